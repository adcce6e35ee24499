//! Two rings that were founded apart and meet.
//!
//! The ring with the larger id (the guest) asks the other (the host) to take it in. All or nothing, and exactly once,
//! although two groups of voters are involved: the host's chain alone says what became of an attempt.
//!
//! ```text
//! guest  Move      decided: nobody of the guest hands out any more
//!        Report*   each member tells what it uses; for one that cannot be asked all of its blocks count (Absent)
//!        Knock     the whole of it, to some peer of the host ring
//! host   Vacate -> Shed* | Occupied    owners give the unused addresses that the guest uses to the guest's members
//!        Absorb | Refuse               decided: every address of the guest is free or already its own, or not
//! guest  all take over the host's ring | Thaw: they go on alone, and ask again later
//! ```
//! A refused attempt number is refused for ever, and the guest waits for the answer however long it takes: so it never
//! goes on after it was taken in. No running attachment is touched either way.

use super::messages::{Digest, Message};
use super::ring::{MEMBERS_MAX, Member, Moving, Outcome, Owner, Ring, SUBNETS_MAX, Standing};
use super::space::{Run, ip};
use super::steps::{Act, Guest};
use super::{Ipam, MESSAGE};
use crate::types::{Instant, PeerName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long members that cannot be reached are waited for before all of their blocks count as used.
const ABSENT: Duration = Duration::from_secs(2);
/// How long any member is waited for.
const SILENT: Duration = Duration::from_secs(15);
/// How often the host ring is asked.
const KNOCK: Duration = Duration::from_secs(1);
/// How long to wait after a refusal; doubles up to 16 times.
const BACKOFF: Duration = Duration::from_secs(30);
/// For how long a peer that was heard counts as a way to its ring.
const CONTACT: Duration = Duration::from_secs(40);
/// Most contacts and most pieces in one `Vacate`.
const CONTACTS_MAX: usize = 16;
const PIECES_MAX: usize = 512;
/// Most other rings that a ring remembers; further ones stay apart.
const GUESTS_MAX: usize = 1024;

struct Visit {
    guest: Guest,
    until: Instant,
    asked: Instant,
    occupied: Option<u128>,
}

/// What this host knows about other rings.
#[derive(Default)]
pub(super) struct Meeting {
    /// Rings with a smaller id, and who was heard from them when.
    hosts: BTreeMap<u64, BTreeMap<PeerName, Instant>>,
    not_before: Instant,
    refusals: u32,
    /// When this attempt was first seen here.
    moving: Option<(u32, Instant)>,
    knock_at: Instant,
    visit: Option<Visit>,
    thaw: Option<u32>,
    acts: Vec<Act>,
    next: Option<Instant>,
    /// Why two rings stay apart, for `status`.
    pub conflict: Option<String>,
}

impl Meeting {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }
}

impl Ring {
    /// What this ring is as a guest, once every voter has reported.
    pub(super) fn guest(&self) -> Option<Guest> {
        let moving = self.moving.as_ref().filter(|moving| self.voters().all(|v| moving.reports.contains_key(&v)))?;
        let mut holdings: BTreeMap<Owner, Vec<Run>> = BTreeMap::new();
        for (start, (last, owner)) in &self.blocks {
            let member = self.members.get(&owner.peer);
            let current = member.is_some_and(|m| m.life == owner.life && m.standing == Standing::Voting);
            if !current || !moving.reports.contains_key(&owner.peer) {
                holdings.entry(*owner).or_default().push(Run { start: *start, last: *last });
            }
        }
        for (peer, runs) in &moving.reports {
            if let Some(member) = self.members.get(peer).filter(|_| !runs.is_empty()) {
                holdings.insert(Owner { peer: *peer, life: member.life }, runs.clone());
            }
        }
        Some(Guest {
            ring: self.slot.ring,
            attempt: moving.attempt,
            members: self.members.iter().map(|(name, member)| (*name, *member)).collect(),
            holdings: holdings.into_iter().collect(),
            subnets: self.subnets.iter().copied().collect(),
            guests: self.guests.iter().map(|(ring, outcome)| (*ring, *outcome)).collect(),
        })
    }

    /// The acts of this file.
    pub(super) fn merge_act(&mut self, act: &Act) {
        match act {
            Act::Move { into, attempt } if self.moving.is_none() && *attempt == self.attempts + 1 => {
                self.attempts = *attempt;
                self.moving = Some(Moving { into: *into, attempt: *attempt, reports: BTreeMap::new() });
            }
            Act::Absent { attempt, peer } => {
                let life = self.members.get(peer).map(|m| m.life);
                let whole = self.blocks.iter().filter(|(_, (_, of))| of.peer == *peer && Some(of.life) == life);
                let whole: Vec<Run> = whole.map(|(start, (last, _))| Run { start: *start, last: *last }).collect();
                if let Some(moving) = self.moving.as_mut().filter(|moving| moving.attempt == *attempt) {
                    moving.reports.entry(*peer).or_insert(whole);
                }
            }
            Act::Thaw { attempt } if self.moving.as_ref().is_some_and(|m| m.attempt == *attempt) => self.moving = None,
            Act::Absorb(guest) if self.moving.is_none() => self.absorb(guest),
            Act::Refuse { ring, attempt, owners } if self.is_open(*ring, *attempt) => {
                self.guests.insert(*ring, Outcome { attempt: *attempt, absorbed: false });
                let kept =
                    |of: &Owner| owners.contains(of) && self.members.get(&of.peer).is_none_or(|m| m.life != of.life);
                self.blocks.retain(|_, (_, of)| !kept(of));
            }
            _ => {}
        }
    }

    /// Whether an attempt of a guest has no answer yet.
    fn is_open(&self, ring: u64, attempt: u32) -> bool {
        ring != self.slot.ring
            && (self.guests.len() < GUESTS_MAX || self.guests.contains_key(&ring))
            && self.guests.get(&ring).is_none_or(|outcome| !outcome.absorbed && outcome.attempt < attempt)
    }

    /// The parts of what a guest uses that others own here.
    fn in_the_way(&self, guest: &Guest) -> Vec<(Run, Owner, Owner)> {
        let mut pieces = Vec::new();
        for (owner, runs) in &guest.holdings {
            for run in runs {
                let others = self.blocks_in(*run).filter(|(_, of)| of != owner);
                pieces.extend(others.map(|(piece, of)| (piece, of, *owner)));
            }
        }
        pieces
    }

    fn absorb(&mut self, guest: &Guest) {
        let inside =
            guest.holdings.iter().flat_map(|(_, runs)| runs).all(|run| self.spans(run.start) && self.spans(run.last));
        if !self.is_open(guest.ring, guest.attempt) || !inside || !self.in_the_way(guest).is_empty() {
            return;
        }
        for (owner, runs) in &guest.holdings {
            runs.iter().for_each(|run| self.assign(*run, Some(*owner)));
        }
        for (name, member) in &guest.members {
            let older: Option<&Member> = self.members.get(name);
            if older.is_none_or(|m| m.life.number() <= member.life.number()) && self.members.len() < MEMBERS_MAX {
                self.members.insert(*name, *member);
            }
        }
        for subnet in guest.subnets.iter().take(SUBNETS_MAX.saturating_sub(self.subnets.len())) {
            self.subnets.insert(*subnet);
        }
        self.guests.extend(guest.guests.iter().copied());
        self.guests.insert(guest.ring, Outcome { attempt: guest.attempt, absorbed: true });
    }
}

impl Ipam {
    /// What this file wants decided.
    pub(super) fn merge_acts(&self) -> Vec<Act> {
        self.merge.acts.clone()
    }

    /// A peer whose ring was founded apart from ours.
    pub(super) fn hear_foreign(&mut self, from: PeerName, digest: &Digest, now: Instant) {
        let Some(ring) = self.ring() else { return };
        let theirs = digest.slot.ring;
        if ring.guests.get(&theirs).is_some_and(|outcome| outcome.absorbed) {
            return self.send_ring(from);
        }
        if theirs < ring.slot.ring && (self.merge.hosts.len() < CONTACTS_MAX || self.merge.hosts.contains_key(&theirs))
        {
            let contacts = self.merge.hosts.entry(theirs).or_default();
            if contacts.len() < CONTACTS_MAX || contacts.contains_key(&from) {
                contacts.insert(from, now);
            }
        }
        self.answer_digest(from, digest);
    }

    /// Drives both sides.
    pub(super) fn meet(&mut self, now: Instant) {
        self.merge.acts.clear();
        self.merge.next = None;
        let Some(ring) = self.ring().cloned() else { return };
        let quick = ring.moving.is_none() && self.merge.hosts.is_empty() && self.merge.visit.is_none();
        if quick || !self.counted_in_or_moving(&ring) {
            return;
        }
        self.merge.hosts.retain(|id, contacts| {
            contacts.retain(|_, heard| now < *heard + CONTACT);
            !contacts.is_empty() && *id < ring.slot.ring && !ring.guests.get(id).is_some_and(|o| o.absorbed)
        });
        match &ring.moving {
            Some(moving) => self.move_on(&ring, moving, now),
            None => {
                self.merge.moving = None;
                self.merge.thaw = None;
                self.set_out(&ring, now);
                self.receive_guest(&ring, now);
            }
        }
    }

    fn counted_in_or_moving(&self, ring: &Ring) -> bool {
        self.counted_in() || (ring.moving.is_some() && self.may_vote(self.config.me, self.state.life))
    }

    fn wake(&mut self, at: Instant) {
        self.merge.next = Some(self.merge.next.map_or(at, |next| next.min(at)));
    }

    /// Guest: begins an attempt.
    fn set_out(&mut self, ring: &Ring, now: Instant) {
        let Some(into) = self.merge.hosts.keys().next().copied() else { return };
        let leads = ring.voters().find(|v| self.near.contains(v) || *v == self.config.me) == Some(self.config.me);
        if now < self.merge.not_before {
            self.wake(self.merge.not_before);
        } else if leads {
            self.merge.acts.push(Act::Move { into, attempt: ring.attempts + 1 });
        }
    }

    /// Guest: under way.
    fn move_on(&mut self, ring: &Ring, moving: &Moving, now: Instant) {
        let since = match self.merge.moving {
            Some((attempt, since)) if attempt == moving.attempt => since,
            _ => {
                self.merge.moving = Some((moving.attempt, now));
                self.merge.knock_at = now;
                now
            }
        };
        if self.merge.thaw == Some(moving.attempt) {
            self.merge.acts.push(Act::Thaw { attempt: moving.attempt });
            return;
        }
        let waited = now.since(since);
        for peer in ring.voters().filter(|v| !moving.reports.contains_key(v)) {
            let patience = if self.near.contains(&peer) || peer == self.config.me { SILENT } else { ABSENT };
            if waited >= patience {
                self.merge.acts.push(Act::Absent { attempt: moving.attempt, peer });
            }
        }
        self.wake(now + KNOCK);
        let leads = ring.voters().find(|v| self.near.contains(v) || *v == self.config.me) == Some(self.config.me);
        let Some(guest) = ring.guest().filter(|_| leads && now >= self.merge.knock_at) else { return };
        self.merge.knock_at = now + KNOCK;
        let message = Message::Knock { into: moving.into, guest: Box::new(guest) };
        if message.encode().len() > MESSAGE {
            // It cannot have been asked for, so there is nothing to wait for.
            return self.refused(moving.attempt, "the two address spaces are too large to be joined".into(), now);
        }
        let contacts = self.merge.hosts.get(&moving.into).into_iter().flat_map(BTreeMap::keys).copied();
        let to: Vec<PeerName> = contacts.filter(|peer| self.near.contains(peer)).take(2).collect();
        to.into_iter().for_each(|peer| self.tell(peer, &message));
    }

    /// Guest: the host ring refused this attempt.
    fn refused(&mut self, attempt: u32, why: String, now: Instant) {
        if self.merge.thaw == Some(attempt) {
            return;
        }
        self.merge.thaw = Some(attempt);
        self.merge.not_before = now + BACKOFF * (1 << self.merge.refusals.min(4));
        self.merge.refusals += 1;
        self.apart(why);
    }

    fn apart(&mut self, why: String) {
        let line = format!(
            "addresses: two address spaces met and stay apart: {why}. Both go on; release that address on one side, or run `rnet reset` on the hosts of one side"
        );
        if self.merge.conflict.as_ref() != Some(&line) {
            self.merge.conflict = Some(line.clone());
            self.log(line);
        }
    }

    pub(super) fn hear_answered(&mut self, guest: u64, attempt: u32, why: String) {
        let ours = self.ring().filter(|ring| ring.slot.ring == guest).and_then(|ring| ring.moving.clone());
        if ours.is_some_and(|moving| moving.attempt == attempt) {
            let why: String = why.chars().filter(|c| !c.is_control()).take(300).collect();
            let since = self.merge.moving.map_or(Instant::ZERO, |(_, since)| since);
            self.refused(attempt, why, since);
        }
    }

    /// Host: somebody asks to be taken in.
    pub(super) fn hear_knock(&mut self, from: PeerName, into: u64, guest: Guest, now: Instant) {
        let Some(ring) = self.ring().cloned() else { return };
        let answer = |why: &str| Message::Answered { guest: guest.ring, attempt: guest.attempt, why: why.into() };
        let outcome = ring.guests.get(&guest.ring).copied();
        if outcome.is_some_and(|outcome| outcome.absorbed) {
            return self.send_ring(from);
        }
        if into != ring.slot.ring {
            if ring.guests.get(&into).is_some_and(|outcome| outcome.absorbed) {
                self.tell(
                    from,
                    &answer("the other address space was itself joined with a third one; it is tried again"),
                );
            }
            return;
        }
        if outcome.is_some_and(|outcome| outcome.attempt >= guest.attempt) {
            let why = self.merge.conflict.clone().map_or_else(
                || "an address is in use in both".into(),
                |line| {
                    line.split(": ").nth(2).and_then(|rest| rest.split(". Both").next()).unwrap_or_default().to_owned()
                },
            );
            return self.tell(from, &answer(&why));
        }
        let until = now + KNOCK * 3;
        match &mut self.merge.visit {
            Some(visit) if visit.guest.ring == guest.ring && visit.guest.attempt == guest.attempt => {
                visit.until = until
            }
            Some(visit) if now < visit.until => {}
            _ => self.merge.visit = Some(Visit { guest, until, asked: Instant::ZERO, occupied: None }),
        }
    }

    /// Host: makes room for a guest, or finds that it cannot.
    fn receive_guest(&mut self, ring: &Ring, now: Instant) {
        let Some(mut visit) = self.merge.visit.take() else { return };
        if now >= visit.until || !ring.is_open(visit.guest.ring, visit.guest.attempt) {
            return;
        }
        self.wake(now + KNOCK);
        let pieces = ring.in_the_way(&visit.guest);
        if pieces.is_empty() {
            self.merge.acts.push(Act::Absorb(Box::new(visit.guest.clone())));
        } else if visit.occupied.is_none() {
            visit.occupied = self.make_room(ring, &pieces, &mut visit, now);
        }
        if let Some(at) = visit.occupied {
            let holder = ring.owner(at).map_or_else(String::new, |owner| format!(" (here at {})", owner.peer));
            self.apart(format!("{}{holder} is in use in both", ip(at)));
            let owners = visit.guest.holdings.iter().map(|(owner, _)| *owner).collect();
            self.merge.acts.push(Act::Refuse { ring: visit.guest.ring, attempt: visit.guest.attempt, owners });
        }
        self.merge.visit = Some(visit);
    }

    /// Asks owners to vacate; an address that cannot be vacated, if there is one.
    fn make_room(
        &mut self,
        ring: &Ring,
        pieces: &[(Run, Owner, Owner)],
        visit: &mut Visit,
        now: Instant,
    ) -> Option<u128> {
        let me = self.owner();
        let mut others: BTreeMap<PeerName, Vec<(Run, Owner)>> = BTreeMap::new();
        for (piece, of, heir) in pieces {
            let current =
                ring.members.get(&of.peer).is_some_and(|m| m.life == of.life && m.standing == Standing::Voting);
            if *of == me {
                if let Err(at) = self.vacate(*piece, *heir) {
                    return Some(at);
                }
            } else if current && self.near.contains(&of.peer) {
                others.entry(of.peer).or_default().push((*piece, *heir));
            } else {
                return Some(piece.start);
            }
        }
        if now >= visit.asked + KNOCK {
            visit.asked = now;
            for (peer, mut items) in others {
                items.truncate(PIECES_MAX);
                self.tell(peer, &Message::Vacate { guest: visit.guest.ring, attempt: visit.guest.attempt, items });
            }
        }
        None
    }

    /// Gives a run away if nobody holds any of it; else the address that is held.
    fn vacate(&mut self, run: Run, heir: Owner) -> Result<(), u128> {
        if let Some((at, _)) = self.holdings.used.range(run.start..=run.last).next() {
            return Err(*at);
        }
        if self.holdings.all_free(run) {
            self.asking.shed(heir, run);
        }
        Ok(())
    }

    pub(super) fn hear_vacate(&mut self, from: PeerName, guest: u64, attempt: u32, items: Vec<(Run, Owner)>) {
        if !self.active() {
            return;
        }
        for (run, heir) in items.into_iter().take(PIECES_MAX) {
            if let Err(position) = self.vacate(run, heir) {
                return self.tell(from, &Message::Occupied { guest, attempt, position });
            }
        }
    }

    pub(super) fn hear_occupied(&mut self, guest: u64, attempt: u32, position: u128) {
        let visit = self.merge.visit.as_mut();
        if let Some(visit) = visit.filter(|visit| visit.guest.ring == guest && visit.guest.attempt == attempt) {
            visit.occupied = Some(position);
        }
    }

    /// Peers of rings that stay apart from ours, for `status`.
    pub(super) fn strangers(&self) -> BTreeSet<PeerName> {
        self.merge.hosts.values().flat_map(BTreeMap::keys).copied().collect()
    }
}
