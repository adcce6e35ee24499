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
mod tests;
