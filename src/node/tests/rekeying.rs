//! Keys that change under load: two ends of a path, datagrams under way in both directions all the time, virtual time.

use crate::crypto::seal::Cipher;
use crate::crypto::session::Role;
use crate::node::rekey::{EPOCH_DATAGRAMS, Fresh, KeyStep, Rekey};
use crate::plane::fib::{PathId, PortId};
use crate::plane::path::{Epoch, Path};
use crate::plane::{Drop, Event, Sink};
use crate::types::{Instant, NetId, ShortId};
use crate::wire::datagram::{HOPS_MAX, Inner, Outer};
use crate::wire::message::Message;
use crate::wire::virtio::Offload;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

struct End {
    rekey: Rekey,
    path: Path,
    indexes: u32,
    epochs: u16,
}

/// What came of it: datagrams written, opened, and refused by reason; epochs that were activated at each end.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    written: u64,
    opened: u64,
    refused: BTreeMap<Drop, u64>,
    epochs: [u16; 2],
}

/// Memory for one datagram.
#[derive(Default)]
struct One(Vec<u8>);

impl Sink for One {
    fn datagram(&mut self, _: SocketAddr, len: usize) -> Option<&mut [u8]> {
        self.0 = vec![0; len];
        Some(&mut self.0)
    }
    fn deliver(&mut self, _: PortId, _: &Offload, _: &[&[u8]]) {}
    fn event(&mut self, _: Event) {}
}

const TICK: Duration = Duration::from_millis(4);

fn address(end: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, u8::try_from(end).unwrap()], 6783))
}

impl End {
    fn new(at: usize) -> End {
        let role = if at == 0 { Role::Dialer } else { Role::Listener };
        let path = Path::new(PathId(u32::try_from(at).unwrap()), ShortId(u16::try_from(2 - at).unwrap()));
        path.set_endpoint(address(1 - at));
        path.set_ready(true);
        End { rekey: Rekey::new(role, [9; 32], Instant::ZERO), path, indexes: 0, epochs: 0 }
    }

    /// Carries out steps; gives what is to be said.
    fn take(&mut self, steps: Vec<KeyStep>) -> Vec<Message> {
        let mut said = Vec::new();
        for step in steps {
            match step {
                KeyStep::Send(message) => said.push(message),
                KeyStep::Install { epoch: number, keys, our_index, their_index } => {
                    self.path.install(Epoch { number, cipher: Cipher::Aes256Gcm, keys, our_index, their_index });
                }
                KeyStep::Activate(epoch) => {
                    self.path.activate(epoch);
                    self.epochs += 1;
                }
                KeyStep::Retire(epoch) => self.path.retire(epoch),
            }
        }
        said
    }

    fn write(&self) -> Vec<u8> {
        let network = NetId::new(7).unwrap();
        let (origin, destination) = (ShortId(1), ShortId(2));
        let inner = Inner { origin, destination, number: 0, network, hops: HOPS_MAX, partial: false, fragment: None };
        let mut one = One::default();
        self.path.writer().unwrap().write(&inner, 40, &mut one, |into| into.fill(7)).unwrap();
        one.0
    }

    fn open(&self, from: usize, mut datagram: Vec<u8>) -> Result<(), Drop> {
        let outer = Outer::parse(&datagram).unwrap();
        if !self.path.indexes().contains(&outer.index) {
            return Err(Drop::UnknownIndex);
        }
        self.path.open(address(from), &outer, &mut datagram).map(drop)
    }
}

/// Each end writes 250 datagrams in each of `seconds`; keys change every `period`. What is said on the link takes `link`,
/// and each datagram what `delay` gives.
fn run(seconds: u64, period: Duration, link: Duration, mut delay: impl FnMut(&mut StdRng) -> Duration) -> Outcome {
    let mut random = StdRng::seed_from_u64(5);
    let mut ends = [End::new(0), End::new(1)];
    let mut said: VecDeque<(Instant, usize, Message)> = VecDeque::new();
    let mut flying: BTreeMap<(Instant, u64), (usize, Vec<u8>)> = BTreeMap::new();
    let mut outcome = Outcome::default();
    let (mut now, mut change_at) = (Instant::ZERO, Instant::ZERO + period);
    let end = Instant::ZERO + Duration::from_secs(seconds);
    while now < end || !flying.is_empty() {
        for at in 0..2 {
            while let Some(position) = said.iter().position(|(due, to, _)| *to == at && *due <= now) {
                let (_, _, message) = said.remove(position).unwrap();
                let fresh = fresh(&mut ends[at], &mut random);
                let steps = ends[at].rekey.receive(&message, || fresh, now).unwrap();
                said.extend(ends[at].take(steps).into_iter().map(|message| (now + link, 1 - at, message)));
            }
            let sealed = if now >= change_at && now < end { EPOCH_DATAGRAMS } else { 0 };
            if at == 0 && sealed > 0 && ends[0].rekey.due(sealed, now) {
                change_at = now + period;
            }
            let fresh = fresh(&mut ends[at], &mut random);
            let steps = ends[at].rekey.handle(sealed, || fresh, now).unwrap();
            said.extend(ends[at].take(steps).into_iter().map(|message| (now + link, 1 - at, message)));
        }
        while let Some(entry) = flying.first_entry().filter(|entry| entry.key().0 <= now) {
            let (to, datagram) = entry.remove();
            match ends[to].open(1 - to, datagram) {
                Ok(()) => outcome.opened += 1,
                Err(reason) => *outcome.refused.entry(reason).or_default() += 1,
            }
        }
        for at in (0..2).filter(|_| now < end && ends.iter().all(|end| end.epochs > 0)) {
            outcome.written += 1;
            flying.insert((now + delay(&mut random), outcome.written), (1 - at, ends[at].write()));
        }
        now += TICK;
    }
    outcome.epochs = ends.map(|end| end.epochs);
    outcome
}

fn fresh(end: &mut End, random: &mut StdRng) -> Fresh {
    end.indexes += 1;
    Fresh { index: end.indexes, seed: random.random() }
}

fn assert_nothing_lost(outcome: &Outcome, epochs: u16) {
    assert_eq!(outcome.refused, BTreeMap::new(), "{outcome:?}");
    assert_eq!((outcome.written, outcome.epochs), (outcome.opened, [epochs; 2]));
    assert!(outcome.written > 10_000, "{outcome:?}");
}

#[test]
fn nothing_is_lost_when_keys_change_and_datagrams_are_under_way_for_nearly_ten_seconds() {
    let link = Duration::from_millis(50);
    let late = Duration::from_millis(9800);
    assert_nothing_lost(&run(60, Duration::from_secs(12), link, |_| late), 5);
    assert_nothing_lost(&run(60, Duration::from_secs(12), link, |random| late.mul_f64(random.random())), 5);
}

#[test]
fn nothing_is_lost_when_keys_change_before_the_last_ones_are_given_up() {
    let (period, link) = (Duration::from_secs(2), Duration::from_millis(20));
    let outcome = run(30, period, link, |random| Duration::from_millis(1900).mul_f64(random.random()));
    assert_nothing_lost(&outcome, 15);
}

#[test]
fn nothing_is_lost_when_the_link_is_as_slow_as_it_may_be() {
    // An exchange is three words, and ends the link after 30 s at either end.
    for link in [5, 14] {
        let link = Duration::from_secs(link);
        let outcome = run(149, Duration::from_secs(50), link, |random| Duration::from_secs(1).mul_f64(random.random()));
        assert_nothing_lost(&outcome, 3);
    }
}
