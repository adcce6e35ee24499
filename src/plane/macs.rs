//! Which MAC was last seen where: on a port of this host, or behind a peer.
//!
//! Owns the only table that data path threads write. Decides nothing: `switch` asks it, `Plane` tells it.
//!
//! ```text
//! (network, MAC) -> place, second of the last frame           seats: a sharded map, shared by the threads
//! place          -> how many MACs it holds                    held:  touched only when a MAC comes, moves or goes
//! ```
//!
//! A frame from a known place costs one shard read; "last seen" is an atomic that is written at most once a second. A
//! MAC that shows up elsewhere moves at once, whichever way. Bounded: each place holds at most a given number, all
//! together at most [`MACS_MAX`]; beyond that a MAC is not learned, which the caller counts, and its frames are
//! flooded. Invariant: `held` is the number of seats of each place, but for operations under way. Locks are
//! taken in the order seats, held; never the other way.

use super::fib::PortId;
use crate::types::{Instant, Mac, NetId, ShortId};
use dashmap::{DashMap, Entry};
use foldhash::fast::RandomState;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

/// Most MACs that are learned in all. A seat takes about 40 bytes.
pub const MACS_MAX: usize = 262_144;

/// Where a MAC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// On the bridge behind this port, or behind the VTEP that it is.
    Port(PortId),
    /// Behind this peer.
    Peer(ShortId),
}

/// What learning a MAC did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// It was known to be there.
    Known,
    /// It was not known at all.
    New,
    /// It was elsewhere until now.
    Moved,
    /// There is no room. If it was elsewhere, that is forgotten.
    Refused,
}

/// One learned MAC, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// On which network.
    pub network: NetId,
    /// Which.
    pub mac: Mac,
    /// Where.
    pub place: Place,
    /// Time since its last frame, whole seconds.
    pub age: Duration,
}

struct Seat {
    place: Place,
    second: AtomicU32,
}

/// The table. See the head of this file.
pub struct MacTable {
    seats: DashMap<(NetId, Mac), Seat, RandomState>,
    held: DashMap<Place, usize, RandomState>,
    total: AtomicUsize,
    per_place: usize,
    age: u32,
}

impl MacTable {
    /// A table that holds `per_place` MACs for each port and each peer, and forgets after `age` (whole seconds) of silence.
    pub fn new(per_place: usize, age: Duration) -> MacTable {
        MacTable {
            seats: DashMap::default(),
            held: DashMap::default(),
            total: AtomicUsize::new(0),
            per_place,
            age: u32::try_from(age.as_secs()).unwrap_or(u32::MAX),
        }
    }

    /// Notes that `mac` sent a frame on `network` from `place`.
    pub fn learn(&self, network: NetId, mac: Mac, place: Place, now: Instant) -> Learned {
        let second = now.seconds();
        if let Some(seat) = self.seats.get(&(network, mac))
            && seat.place == place
        {
            // A store only when it changes something: the line stays shared between the cores.
            if seat.second.load(Ordering::Relaxed) != second {
                seat.second.store(second, Ordering::Relaxed);
            }
            return Learned::Known;
        }
        self.seat(network, mac, place, second)
    }

    fn seat(&self, network: NetId, mac: Mac, place: Place, second: u32) -> Learned {
        if !self.reserve(place) {
            // The read comes first so that a flood of new MACs does not take write locks.
            if self.seats.contains_key(&(network, mac))
                && let Some((_, seat)) = self.seats.remove_if(&(network, mac), |_, seat| seat.place != place)
            {
                self.release(seat.place);
            }
            return Learned::Refused;
        }
        match self.seats.entry((network, mac)) {
            Entry::Vacant(vacant) => {
                vacant.insert(Seat { place, second: AtomicU32::new(second) });
                Learned::New
            }
            Entry::Occupied(mut seat) => {
                let old = seat.insert(Seat { place, second: AtomicU32::new(second) }).place;
                self.release(old);
                if old == place { Learned::Known } else { Learned::Moved }
            }
        }
    }

    /// Where `mac` is on `network`, unless it has been silent for too long.
    pub fn lookup(&self, network: NetId, mac: Mac, now: Instant) -> Option<Place> {
        let seat = self.seats.get(&(network, mac))?;
        (!self.stale(&seat, now.seconds())).then_some(seat.place)
    }

    /// Forgets what has been silent for too long. To be called now and then; `lookup` does not depend on it.
    pub fn expire(&self, now: Instant) {
        let second = now.seconds();
        self.forget(|_, seat| self.stale(seat, second));
    }

    /// Forgets all that is behind `peer`.
    pub fn forget_peer(&self, peer: ShortId) {
        self.forget(|_, seat| seat.place == Place::Peer(peer));
    }

    /// Forgets all that is behind this port.
    pub fn forget_port(&self, port: PortId) {
        self.forget(|_, seat| seat.place == Place::Port(port));
    }

    /// Forgets `mac` on `network`, wherever it is.
    pub fn forget_mac(&self, network: NetId, mac: Mac) {
        if let Some((_, seat)) = self.seats.remove(&(network, mac)) {
            self.release(seat.place);
        }
    }

    /// Forgets all of `network`.
    pub fn forget_network(&self, network: NetId) {
        self.forget(|key, _| key.0 == network);
    }

    /// All that is known, sorted by network and MAC.
    pub fn list(&self, now: Instant) -> Vec<Seen> {
        let second = now.seconds();
        let seen = self.seats.iter().filter(|seat| !self.stale(seat, second)).map(|seat| {
            let age = second.saturating_sub(seat.second.load(Ordering::Relaxed));
            let (network, mac) = *seat.key();
            Seen { network, mac, place: seat.place, age: Duration::from_secs(age.into()) }
        });
        let mut list: Vec<Seen> = seen.collect();
        list.sort_unstable_by_key(|seen| (seen.network, seen.mac));
        list
    }

    fn stale(&self, seat: &Seat, second: u32) -> bool {
        second.saturating_sub(seat.second.load(Ordering::Relaxed)) >= self.age
    }

    fn forget(&self, which: impl Fn(&(NetId, Mac), &Seat) -> bool) {
        self.seats.retain(|key, seat| {
            let gone = which(key, seat);
            if gone {
                self.release(seat.place);
            }
            !gone
        });
    }

    fn reserve(&self, place: Place) -> bool {
        if self.total.fetch_add(1, Ordering::Relaxed) < MACS_MAX {
            let mut held = self.held.entry(place).or_insert(0);
            if *held < self.per_place {
                *held += 1;
                return true;
            }
        }
        self.total.fetch_sub(1, Ordering::Relaxed);
        false
    }

    fn release(&self, place: Place) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        if let Entry::Occupied(mut held) = self.held.entry(place) {
            if *held.get() > 1 {
                *held.get_mut() -= 1;
            } else {
                held.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const AGE: Duration = Duration::from_secs(600);
    const HERE: Place = Place::Port(PortId(1));
    const THERE: Place = Place::Peer(ShortId(7));

    fn net(n: u32) -> NetId {
        NetId::new(n).unwrap()
    }

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    /// The counts must be what the seats say.
    fn check(table: &MacTable) {
        let mut counts: HashMap<Place, usize> = HashMap::new();
        for seat in &table.seats {
            *counts.entry(seat.place).or_default() += 1;
        }
        assert_eq!(table.total.load(Ordering::Relaxed), table.seats.len());
        assert_eq!(table.held.iter().map(|held| (*held.key(), *held)).collect::<HashMap<_, _>>(), counts);
    }

    #[test]
    fn moves_at_once_in_both_directions() {
        let table = MacTable::new(10, AGE);
        assert_eq!(table.learn(net(1), mac(1), HERE, at(0)), Learned::New);
        assert_eq!(table.learn(net(1), mac(1), THERE, at(0)), Learned::Moved);
        assert_eq!(table.lookup(net(1), mac(1), at(0)), Some(THERE));
        assert_eq!(table.learn(net(1), mac(1), HERE, at(0)), Learned::Moved);
        assert_eq!(table.lookup(net(1), mac(1), at(0)), Some(HERE));
        check(&table);
    }

    #[test]
    fn a_mac_on_two_networks_is_two_macs() {
        let table = MacTable::new(10, AGE);
        table.learn(net(1), mac(1), HERE, at(0));
        assert_eq!(table.lookup(net(2), mac(1), at(0)), None);
        table.learn(net(2), mac(1), THERE, at(0));
        assert_eq!(table.lookup(net(1), mac(1), at(0)), Some(HERE));
    }

    #[test]
    fn forgets_after_silence_and_not_before() {
        let table = MacTable::new(10, AGE);
        table.learn(net(1), mac(1), HERE, at(100));
        table.learn(net(1), mac(1), HERE, at(150));
        assert_eq!(table.lookup(net(1), mac(1), at(749)), Some(HERE));
        assert_eq!(table.lookup(net(1), mac(1), at(750)), None);
        table.expire(at(749));
        assert_eq!(table.seats.len(), 1);
        table.expire(at(750));
        assert_eq!(table.seats.len(), 0);
        check(&table);
    }

    #[test]
    fn a_full_place_learns_no_more_until_it_forgets() {
        let table = MacTable::new(2, AGE);
        for n in 1..=2 {
            assert_eq!(table.learn(net(1), mac(n), THERE, at(0)), Learned::New);
        }
        assert_eq!(table.learn(net(1), mac(3), THERE, at(0)), Learned::Refused);
        assert_eq!(table.learn(net(1), mac(1), THERE, at(1)), Learned::Known, "what it has, it keeps");
        assert_eq!(table.learn(net(1), mac(3), HERE, at(0)), Learned::New, "another place has room");
        table.expire(at(600));
        assert_eq!(table.learn(net(1), mac(4), THERE, at(600)), Learned::New);
        check(&table);
    }

    #[test]
    fn a_mac_that_moves_to_a_full_place_is_not_left_at_the_old_one() {
        let table = MacTable::new(1, AGE);
        table.learn(net(1), mac(1), THERE, at(0));
        table.learn(net(1), mac(2), HERE, at(0));
        assert_eq!(table.learn(net(1), mac(2), THERE, at(0)), Learned::Refused);
        assert_eq!(table.lookup(net(1), mac(2), at(0)), None);
        check(&table);
    }

    #[test]
    fn lists_sorted_with_ages() {
        let table = MacTable::new(10, AGE);
        table.learn(net(2), mac(1), THERE, at(5));
        table.learn(net(1), mac(9), HERE, at(7));
        let list = table.list(at(10));
        assert_eq!(
            list.iter().map(|s| (s.network, s.place, s.age.as_secs())).collect::<Vec<_>>(),
            [(net(1), HERE, 3), (net(2), THERE, 5)]
        );
    }

    proptest! {
        #[test]
        fn counts_agree_with_seats_after_any_operations(ops in prop::collection::vec((0u8..6, 1u8..6, 1u32..3, 0u64..900), 0..60)) {
            let table = MacTable::new(3, AGE);
            for (op, n, network, second) in ops {
                match op {
                    5 => table.forget_mac(net(network), mac(n)),
                    0 | 1 => { table.learn(net(network), mac(n), if op == 0 { HERE } else { THERE }, at(second)); }
                    2 => table.expire(at(second)),
                    3 => table.forget_peer(ShortId(7)),
                    _ => table.forget_network(net(network)),
                }
                check(&table);
                prop_assert!(table.held.iter().all(|held| *held <= 3));
            }
        }
    }
}
