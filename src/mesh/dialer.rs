//! Whom to dial, and when.
//!
//! Owns the targets (given by the user, or discovered in the topology), their back-off and what became of the last try.
//! Does not connect: `poll` names the next dial, the owner reports how it ended. Names are resolved by the driver at
//! each try, so a target stays text here.
//!
//! ```text
//!            poll                 connected(peer)
//! Waiting ---------> Dialling ---------------------> Idle (the peer is linked, by whichever target)
//!    ^  ^-- failed -----|  |-- never --> Never        |
//!    |                                                | lost(peer)
//!    '------------------------------------------------'
//! Waiting --(discovered, TRIES failures)--> Asleep --(10 min, or the network changed)--> Waiting
//! ```
//!
//! `never` is for addresses: a name that led to ourselves or to a collision failed, and may stand for another host by the next try.
//!
//! Delays: 1 s, times 1.5, at most 60 s, less up to a quarter at random. For a minute after a link was lost they stay
//! within 2 s: most losses are restarts. Bounds: `MAX_GIVEN`, `MAX_DISCOVERED` targets, `MAX_DIALLING` dials at once.
//!
//! Anybody in the mesh may tell any address, of any number of peers and ports: what the user did not give, and where no peer of
//! the mesh ever proved to be, is dialled at most `IN_VAIN_MAX` times in `IN_VAIN_TIME` for each IP address. Dials that lead to a
//! peer do not count, so that many routers behind one address are all found.

use crate::types::{Instant, PeerName, Target};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Targets that the user may give.
pub const MAX_GIVEN: usize = 1024;
/// Targets kept from discovery.
pub const MAX_DISCOVERED: usize = 1024;
/// Dials under way at one time.
pub const MAX_DIALLING: usize = 32;

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// Longest delay while a lost peer is likely to come back.
const CLOSE_DELAY: Duration = Duration::from_secs(2);
const CLOSE_FOR: Duration = Duration::from_secs(60);
/// Failures in a row after which a discovered target is put to sleep, and for how long.
const TRIES: u32 = 8;
const SLEEP: Duration = Duration::from_secs(600);
/// Two tries of one target are never closer, whatever changes.
const SPACING: Duration = Duration::from_secs(1);
/// Dials of one IP address that led to no peer, those under way included, and within which time.
pub const IN_VAIN_MAX: u32 = 8;
const IN_VAIN_TIME: Duration = Duration::from_secs(60);
/// IP addresses that are counted at a time; beyond that no other is dialled.
const COUNTED_MAX: usize = 1024;

/// What is going on with a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The next try is at this instant.
    Waiting(Instant),
    /// A dial is under way, or its connection is not a link yet.
    Dialling(u64),
    /// Its peer is linked.
    Idle,
    /// An address that is ourselves or a collision: not tried again until the user gives it again.
    Never,
    /// A discovered target that did not answer: forgotten until this instant.
    Asleep(Instant),
}

/// A target and what is known about it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The user named it.
    pub given: bool,
    /// See [`Attempt`].
    pub attempt: Attempt,
    /// The peer that answered there last, or that discovery expects there.
    pub peer: Option<PeerName>,
    /// Why it is not linked, one line; empty if there was no failure.
    pub why: String,
    /// Whether it led to a link before.
    pub was_linked: bool,
    discovered: bool,
    /// A peer of the mesh proved to be there.
    reached: bool,
    failures: u32,
    delay: Duration,
    last_try: Option<Instant>,
    close_until: Instant,
}

impl Entry {
    fn new(now: Instant) -> Entry {
        Entry {
            given: false,
            attempt: Attempt::Waiting(now),
            peer: None,
            why: String::new(),
            was_linked: false,
            discovered: false,
            reached: false,
            failures: 0,
            delay: FIRST_DELAY,
            last_try: None,
            close_until: Instant::ZERO,
        }
    }

    /// Due as soon as the spacing of tries allows, with a fresh back-off.
    fn hurry(&mut self, now: Instant) {
        self.delay = FIRST_DELAY;
        self.failures = 0;
        let earliest = self.last_try.map_or(now, |last| now.max(last + SPACING));
        self.attempt = Attempt::Waiting(earliest);
    }
}

/// Dials that led to no peer, by IP address, since the first of them.
#[derive(Debug, Default)]
struct InVain(BTreeMap<IpAddr, (u32, Instant)>);

impl InVain {
    /// When that target may be dialled, which is due at `at`.
    fn earliest(&self, target: &Target, entry: &Entry, at: Instant) -> Instant {
        let Some(ip) = InVain::counted(target, entry) else { return at };
        match self.0.get(&ip) {
            Some((count, since)) if *count >= IN_VAIN_MAX => at.max(*since + IN_VAIN_TIME),
            Some(_) => at,
            None if self.0.len() < COUNTED_MAX => at,
            None => self.0.values().map(|(_, since)| *since + IN_VAIN_TIME).min().map_or(at, |room| at.max(room)),
        }
    }

    /// The IP address that a dial of this target counts for.
    fn counted(target: &Target, entry: &Entry) -> Option<IpAddr> {
        target.ip().map(|ip| ip.to_canonical()).filter(|_| !entry.given && !entry.reached)
    }

    fn add(&mut self, ip: IpAddr, now: Instant) {
        self.0.retain(|_, (_, since)| now - *since < IN_VAIN_TIME);
        let (count, _) = self.0.entry(ip).or_insert((0, now));
        *count = count.saturating_add(1);
    }

    fn take_back(&mut self, ip: IpAddr) {
        if let Some((count, _)) = self.0.get_mut(&ip) {
            *count = count.saturating_sub(1);
        }
    }
}

/// The machine. See the head of this file.
#[derive(Debug)]
pub struct Dialer {
    entries: BTreeMap<Target, Entry>,
    dials: BTreeMap<u64, Target>,
    linked: BTreeSet<PeerName>,
    in_vain: InVain,
    next_dial: u64,
    /// When `poll` may next have something; nothing: to be computed.
    due: Option<Option<Instant>>,
    rng: StdRng,
}

impl Dialer {
    /// A dialer without targets.
    pub fn new(seed: [u8; 32]) -> Dialer {
        let (entries, dials, linked) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Dialer {
            entries,
            dials,
            linked,
            in_vain: InVain::default(),
            next_dial: 0,
            due: None,
            rng: StdRng::from_seed(seed),
        }
    }

    /// Adds a target of the user, or wakes it if it is there already. False: there are too many.
    pub fn give(&mut self, target: Target, now: Instant) -> bool {
        self.due = None;
        let given = self.entries.values().filter(|entry| entry.given).count();
        if given >= MAX_GIVEN && !self.entries.get(&target).is_some_and(|entry| entry.given) {
            return false;
        }
        let entry = self.entries.entry(target).or_insert_with(|| Entry::new(now));
        entry.given = true;
        if !matches!(entry.attempt, Attempt::Idle | Attempt::Dialling(_)) {
            entry.hurry(now);
        }
        true
    }

    /// Forgets a target of the user; a dial under way is not stopped. False: it was not given.
    pub fn forget(&mut self, target: &Target) -> bool {
        self.due = None;
        let Some(entry) = self.entries.get_mut(target) else { return false };
        let given = std::mem::take(&mut entry.given);
        if !entry.discovered {
            self.entries.remove(target);
        }
        given
    }

    /// The targets that the user gave, in order of their text.
    pub fn given(&self) -> impl Iterator<Item = &Target> {
        self.entries.iter().filter(|(_, entry)| entry.given).map(|(target, _)| target)
    }

    /// All targets, in order of their text.
    pub fn entries(&self) -> impl Iterator<Item = (&Target, &Entry)> {
        self.entries.iter()
    }

    /// The whole set that the topology knows now, with the peer expected there. Those that vanished are forgotten, at most
    /// [`MAX_DISCOVERED`] are kept.
    pub fn discover(&mut self, found: &BTreeMap<Target, PeerName>, now: Instant) {
        self.due = None;
        self.entries.retain(|target, entry| {
            entry.discovered = entry.discovered && found.contains_key(target);
            entry.given || entry.discovered || matches!(entry.attempt, Attempt::Dialling(_))
        });
        let mut room = MAX_DISCOVERED.saturating_sub(self.entries.values().filter(|entry| entry.discovered).count());
        for (target, peer) in found {
            if let Some(entry) = self.entries.get_mut(target) {
                entry.discovered = true;
                continue;
            }
            if room == 0 {
                break;
            }
            room -= 1;
            let attempt = if self.linked.contains(peer) { Attempt::Idle } else { Attempt::Waiting(now) };
            let entry = Entry { discovered: true, peer: Some(*peer), attempt, ..Entry::new(now) };
            self.entries.insert(target.clone(), entry);
        }
    }

    /// The next dial that is due, numbered; never the same number twice.
    pub fn poll(&mut self, now: Instant) -> Option<(u64, Target)> {
        if self.deadline().is_none_or(|at| at > now) {
            return None;
        }
        self.due = None;
        let (busy, in_vain) = (self.busy(), &self.in_vain);
        let is_due = |target: &Target, entry: &Entry| match entry.attempt {
            Attempt::Waiting(at) | Attempt::Asleep(at) => in_vain.earliest(target, entry, at) <= now,
            _ => false,
        };
        let free = |entry: &Entry| entry.peer.is_none_or(|peer| !busy.contains(&peer));
        let (target, entry) = self.entries.iter_mut().find(|(target, entry)| is_due(target, entry) && free(entry))?;
        let dial = self.next_dial;
        self.next_dial += 1;
        entry.attempt = Attempt::Dialling(dial);
        entry.last_try = Some(now);
        if let Some(ip) = InVain::counted(target, entry) {
            self.in_vain.add(ip, now);
        }
        self.dials.insert(dial, target.clone());
        Some((dial, target.clone()))
    }

    /// Peers that are being dialled. Two addresses of one peer are not dialled at the same time: the second would be a
    /// duplicate.
    fn busy(&self) -> BTreeSet<PeerName> {
        let dialling = self.entries.values().filter(|entry| matches!(entry.attempt, Attempt::Dialling(_)));
        dialling.filter_map(|entry| entry.peer).collect()
    }

    /// When `poll` may next have something.
    pub fn deadline(&mut self) -> Option<Instant> {
        let due = self.due.unwrap_or_else(|| self.next_due());
        self.due = Some(due);
        due
    }

    fn next_due(&self) -> Option<Instant> {
        if self.dials.len() >= MAX_DIALLING {
            return None;
        }
        let busy = self.busy();
        let at = |(target, entry): (&Target, &Entry)| match entry.attempt {
            Attempt::Waiting(at) | Attempt::Asleep(at) if entry.peer.is_none_or(|peer| !busy.contains(&peer)) => {
                Some(self.in_vain.earliest(target, entry, at))
            }
            _ => None,
        };
        self.entries.iter().filter_map(at).min()
    }

    /// The peer at the other end of a dial proved who it is.
    pub fn reached(&mut self, dial: u64, peer: PeerName) {
        self.due = None;
        let Some(target) = self.dials.get(&dial) else { return };
        let Some(entry) = self.entries.get_mut(target) else { return };
        entry.peer = Some(peer);
        if let Some(ip) = InVain::counted(target, entry) {
            self.in_vain.take_back(ip);
        }
        entry.reached = true;
    }

    /// A peer is linked, whoever dialled: its targets rest.
    pub fn connected(&mut self, peer: PeerName) {
        self.due = None;
        self.linked.insert(peer);
        for entry in self.entries.values_mut().filter(|entry| entry.peer == Some(peer)) {
            if let Attempt::Dialling(dial) = entry.attempt {
                self.dials.remove(&dial);
            }
            entry.attempt = Attempt::Idle;
            entry.was_linked = true;
            entry.failures = 0;
            entry.delay = FIRST_DELAY;
            entry.why.clear();
        }
    }

    /// A linked peer is gone: its targets are dialled soon.
    pub fn lost(&mut self, peer: PeerName, why: &str, now: Instant) {
        self.due = None;
        self.linked.remove(&peer);
        for entry in
            self.entries.values_mut().filter(|entry| entry.peer == Some(peer) && entry.attempt == Attempt::Idle)
        {
            entry.close_until = now + CLOSE_FOR;
            entry.why = why.to_string();
            entry.hurry(now + jitter(&mut self.rng, FIRST_DELAY / 4));
        }
    }

    /// A dial failed, or its connection ended before it was a link. Gives the target if the reason is news.
    pub fn failed(&mut self, dial: u64, why: &str, now: Instant) -> Option<Target> {
        self.due = None;
        let target = self.dials.remove(&dial)?;
        let linked = &self.linked;
        let entry = self.entries.get_mut(&target)?;
        if entry.peer.is_some_and(|peer| linked.contains(&peer)) {
            entry.attempt = Attempt::Idle;
            entry.why.clear();
            return None;
        }
        let news = entry.why != why && entry.given;
        entry.why = why.to_string();
        entry.failures += 1;
        if !entry.given && entry.failures >= TRIES {
            entry.attempt = Attempt::Asleep(now + SLEEP);
            return None;
        }
        let cap = if now < entry.close_until { CLOSE_DELAY } else { LONGEST_DELAY };
        let delay = entry.delay.min(cap);
        entry.attempt = Attempt::Waiting(now + (delay - jitter(&mut self.rng, delay / 4)));
        entry.delay = (delay * 3 / 2).min(cap);
        news.then_some(target)
    }

    /// A dial led to where it must not lead (ourselves, a collision): an address is not tried again, a name may stand for another
    /// one by the next try. Gives the target if that is news.
    pub fn never(&mut self, dial: u64, why: &str, now: Instant) -> Option<Target> {
        self.due = None;
        if self.dials.get(&dial)?.ip().is_none() {
            return self.failed(dial, why, now);
        }
        let target = self.dials.remove(&dial)?;
        let entry = self.entries.get_mut(&target)?;
        let news = entry.why != why;
        (entry.attempt, entry.peer, entry.why) = (Attempt::Never, None, why.to_string());
        news.then_some(target)
    }

    /// Addresses or routes of this machine changed: whatever waits or sleeps is tried at once.
    pub fn network_changed(&mut self, now: Instant) {
        self.due = None;
        for entry in self.entries.values_mut() {
            if matches!(entry.attempt, Attempt::Waiting(_) | Attempt::Asleep(_)) {
                entry.hurry(now);
            }
        }
    }

    /// The topology tells that this peer (re)started or became reachable: its targets are tried at once.
    pub fn appeared(&mut self, peer: PeerName, now: Instant) {
        self.due = None;
        for entry in self.entries.values_mut().filter(|entry| entry.peer == Some(peer)) {
            if matches!(entry.attempt, Attempt::Waiting(_) | Attempt::Asleep(_)) {
                entry.hurry(now);
            }
        }
    }
}

fn jitter(rng: &mut StdRng, up_to: Duration) -> Duration {
    let nanos = u64::try_from(up_to.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(rng.random_range(0..=nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PublicKey;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    fn peer(n: u8) -> PeerName {
        PublicKey([n; 32]).name()
    }

    fn waits_until(dialer: &Dialer, name: &str) -> Instant {
        match dialer.entries.get(&target(name)).unwrap().attempt {
            Attempt::Waiting(at) => at,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn backs_off_by_half_more_each_time_up_to_a_minute() {
        let mut dialer = Dialer::new([1; 32]);
        dialer.give(target("host2"), at(0));
        let (mut now, mut delays) = (at(0), Vec::new());
        for _ in 0..15 {
            let (dial, _) = dialer.poll(now).unwrap();
            assert!(dialer.poll(now).is_none(), "one dial per target");
            dialer.failed(dial, "refused", now);
            let next = waits_until(&dialer, "host2");
            delays.push((next - now).as_millis());
            now = next;
        }
        assert!((750..=1000).contains(&delays[0]), "{delays:?}");
        assert!((1125..=1500).contains(&delays[1]), "{delays:?}");
        assert!(delays.iter().all(|delay| *delay <= 60_000) && delays[14] >= 45_000, "{delays:?}");
    }

    #[test]
    fn network_change_dials_at_once_but_not_twice_a_second() {
        let mut dialer = Dialer::new([1; 32]);
        dialer.give(target("host2"), at(0));
        let (dial, _) = dialer.poll(at(0)).unwrap();
        dialer.failed(dial, "no route", at(10));
        dialer.network_changed(at(20));
        assert_eq!(dialer.deadline(), Some(at(1000)));
        dialer.network_changed(at(5000));
        assert!(dialer.poll(at(5000)).is_some());
    }

    #[test]
    fn discovered_targets_sleep_when_dead_and_given_ones_do_not() {
        let mut dialer = Dialer::new([1; 32]);
        dialer.give(target("10.0.0.1:6783"), at(0));
        let found = [(target("10.0.0.2:6783"), peer(2))].into();
        dialer.discover(&found, at(0));
        let mut now = at(0);
        for _ in 0..20 {
            now += Duration::from_secs(60);
            while let Some((dial, _)) = dialer.poll(now) {
                dialer.failed(dial, "timed out", now);
            }
            if matches!(dialer.entries.get(&target("10.0.0.2:6783")).unwrap().attempt, Attempt::Asleep(_)) {
                break;
            }
        }
        assert_eq!(dialer.entries.get(&target("10.0.0.2:6783")).unwrap().failures, TRIES);
        assert!(matches!(dialer.entries.get(&target("10.0.0.1:6783")).unwrap().attempt, Attempt::Waiting(_)));
        dialer.discover(&BTreeMap::new(), now);
        assert_eq!(dialer.entries().count(), 1, "what the topology no longer knows is forgotten");
    }

    #[test]
    fn target_rests_while_its_peer_is_linked_by_another_way() {
        let mut dialer = Dialer::new([1; 32]);
        dialer.give(target("host2"), at(0));
        let (dial, _) = dialer.poll(at(0)).unwrap();
        dialer.reached(dial, peer(2));
        dialer.connected(peer(2));
        dialer.failed(dial, "already connected", at(5));
        assert_eq!(dialer.entries.get(&target("host2")).unwrap().attempt, Attempt::Idle);
        assert_eq!(dialer.poll(at(100_000)), None);
        dialer.lost(peer(2), "connection reset", at(100_000));
        let next = waits_until(&dialer, "host2");
        assert!(next <= at(100_250));
    }

    #[test]
    fn retries_of_a_lost_peer_stay_close_for_a_minute() {
        let mut dialer = Dialer::new([1; 32]);
        dialer.give(target("host2"), at(0));
        let (dial, _) = dialer.poll(at(0)).unwrap();
        dialer.reached(dial, peer(2));
        dialer.connected(peer(2));
        dialer.lost(peer(2), "reset", at(10_000));
        let mut now = at(10_000);
        let mut tries = 0;
        while now < at(60_000) {
            now = dialer.deadline().unwrap().max(now);
            let (dial, _) = dialer.poll(now).unwrap();
            dialer.failed(dial, "refused", now);
            assert!(waits_until(&dialer, "host2") - now <= CLOSE_DELAY);
            tries += 1;
        }
        assert!(tries >= 25);
    }

    #[test]
    fn never_dials_ourselves_again_until_the_user_asks_again() {
        let mut dialer = Dialer::new([1; 32]);
        dialer.give(target("192.0.2.1"), at(0));
        let (dial, _) = dialer.poll(at(0)).unwrap();
        dialer.never(dial, "this is ourselves", at(0));
        dialer.network_changed(at(10_000));
        assert_eq!((dialer.poll(at(1_000_000)), dialer.deadline()), (None, None));
        dialer.give(target("192.0.2.1"), at(1_000_000));
        assert!(dialer.poll(at(1_000_000)).is_some());
    }

    #[test]
    fn name_that_stood_for_ourselves_is_tried_again_as_after_a_failure() {
        let mut dialer = Dialer::new([1; 32]);
        dialer.give(target("host1"), at(0));
        let mut now = at(0);
        for _ in 0..12 {
            let (dial, _) = dialer.poll(now).unwrap();
            dialer.never(dial, "this is ourselves", now);
            now = waits_until(&dialer, "host1");
        }
        let (dial, _) = dialer.poll(now).unwrap();
        dialer.never(dial, "this is ourselves", now);
        assert!(waits_until(&dialer, "host1") - now >= Duration::from_secs(45), "seldom, in the end");
    }

    #[test]
    fn one_peer_is_not_dialled_at_two_addresses_at_once() {
        let mut dialer = Dialer::new([1; 32]);
        let found = [(target("10.0.0.2:6783"), peer(2)), (target("10.1.0.2:6783"), peer(2))].into();
        dialer.discover(&found, at(0));
        let (dial, first) = dialer.poll(at(0)).unwrap();
        assert!(dialer.poll(at(0)).is_none());
        dialer.failed(dial, "timed out", at(100));
        assert_ne!(dialer.poll(at(100)).unwrap().1, first);
    }

    /// A peer for each port of one address.
    fn ports(ip: &str, count: u8) -> BTreeMap<Target, PeerName> {
        (0..count).map(|n| (target(&format!("{ip}:{}", 7000 + u16::from(n))), peer(n))).collect()
    }

    #[test]
    fn one_address_that_others_tell_of_is_dialled_a_few_times_a_minute() {
        let mut dialer = Dialer::new([1; 32]);
        dialer.give(target("192.0.2.1:22"), at(0));
        dialer.discover(&ports("192.0.2.1", 200), at(0));
        let (mut now, mut dialled) = (at(0), Vec::new());
        while now < at(180_000) {
            while let Some((dial, to)) = dialer.poll(now) {
                dialled.push((now, to.port != Some(22)));
                dialer.failed(dial, "refused", now);
            }
            let next = dialer.deadline().unwrap();
            assert!(next > now, "it does not spin");
            now = next;
        }
        for minute in 0..3 {
            let within = (at(minute * 60_000)..at((minute + 1) * 60_000)).contains(&now);
            let of_minute = dialled
                .iter()
                .filter(|(when, counts)| *counts && (at(minute * 60_000)..at((minute + 1) * 60_000)).contains(when));
            assert!(!within && of_minute.count() == IN_VAIN_MAX as usize, "minute {minute}");
        }
        let given = dialled.iter().filter(|(_, counts)| !counts).count();
        assert!(given >= 8, "what the user gave is tried as ever: {given}");
        // Another address has its own count, also in the other way to write it.
        dialer.discover(&ports("[::ffff:192.0.2.1]", 20).into_iter().chain(ports("192.0.2.2", 2)).collect(), now);
        let next: Vec<Target> = std::iter::from_fn(|| dialer.poll(now)).map(|(_, to)| to).collect();
        assert!(next.iter().filter(|to| to.host == "192.0.2.2").count() == 2 && next.len() <= 3 + IN_VAIN_MAX as usize);
    }

    #[test]
    fn many_routers_behind_one_address_are_all_found() {
        let mut dialer = Dialer::new([1; 32]);
        let all = ports("192.0.2.1", 60);
        dialer.discover(&all, at(0));
        let mut found = 0;
        while let Some((dial, to)) = dialer.poll(at(0)) {
            dialer.reached(dial, all[&to]);
            dialer.connected(all[&to]);
            found += 1;
        }
        assert_eq!(found, 60, "at once");
        // Once found, they are dialled again as soon as any that was lost.
        (0..60).for_each(|n| dialer.lost(peer(n), "reset", at(10_000)));
        let again = std::iter::from_fn(|| dialer.poll(at(11_000))).count();
        assert_eq!(again, MAX_DIALLING);
    }

    #[test]
    fn addresses_that_are_counted_are_bounded() {
        let mut in_vain = InVain::default();
        let entry = Entry::new(at(0));
        let of = |n: u32| IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        (0..1024).for_each(|n| in_vain.add(of(n), at(u64::from(n))));
        let earliest = |n| in_vain.earliest(&target(&of(n).to_string()), &entry, at(2000));
        assert_eq!((earliest(3), earliest(5000)), (at(2000), at(60_000)));
        in_vain.add(of(5000), at(60_000));
        assert_eq!(in_vain.0.len(), COUNTED_MAX);
    }

    #[test]
    fn dials_and_targets_are_bounded() {
        let mut dialer = Dialer::new([1; 32]);
        for n in 0..2 * MAX_GIVEN {
            assert_eq!(dialer.give(target(&format!("host{n}")), at(0)), n < MAX_GIVEN);
        }
        let found = (0..2 * MAX_DISCOVERED)
            .map(|n| (target(&format!("other{n}")), peer(u8::try_from(n % 251).unwrap())))
            .collect();
        dialer.discover(&found, at(0));
        assert_eq!(dialer.entries().count(), MAX_GIVEN + MAX_DISCOVERED);
        let dials = std::iter::from_fn(|| dialer.poll(at(0))).count();
        assert_eq!(dials, MAX_DIALLING);
    }
}
