//! Peers that are gone: out of the count by a majority's agreement, out of the space by an operator's word.
//!
//! Reclaim. Each member notes since when it has not reached each other one. Whoever proposes asks in `Prepare` who has
//! missed a peer for as long as `reclaim` says; only if a majority of all members (the missed one counts) says so, the step
//! takes it out of the count. Its blocks are set aside, because it may be alive behind a partition and go on handing out
//! what it has; they are its own again when it comes back. Everything else has been in the common pool all along.
//!
//! `rmpeer`. The operator says that the peer is dead, so its blocks go to the pool at once, and it is left out of the
//! count of that very round: a majority of the others is needed (and enough where two hosts were all there was). Several
//! that are dead at once are named one after the other; they are left out together. If the word was wrong, the peer learns
//! of its removal as soon as it hears of the ring, drops what it had, begins a new life and says so (`adopt`); two rings
//! that came from wrong words on both sides are told apart by `Ring::relation`.

use super::Ipam;
use super::messages::Message;
use super::ring::{Life, Standing};
use super::steps::Act;
use crate::types::{Instant, PeerName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long an operator's word that another host passed on is acted upon.
const WORD: Duration = Duration::from_secs(10);
/// Most peers that such words name.
const WORDS_MAX: usize = 1024;

/// See the head of this file.
#[derive(Default)]
pub(super) struct Takeover {
    /// Members out of reach, and since when.
    away: BTreeMap<PeerName, Instant>,
    /// Not before this: the last try found no majority.
    not_before: Instant,
    /// What operators of other hosts say: which start of whom, believed until when.
    words: BTreeMap<PeerName, (u64, Instant)>,
    /// When to look again.
    next: Option<Instant>,
    passed_on: Instant,
}

impl Takeover {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }
}

impl Ipam {
    /// Notes who is out of reach.
    pub(super) fn watch(&mut self, now: Instant) {
        let voters: BTreeSet<PeerName> = self.ring().map(|ring| ring.voters().collect()).unwrap_or_default();
        let near = &self.near;
        let me = self.config.me;
        self.takeover.away.retain(|peer, _| voters.contains(peer) && !near.contains(peer));
        for peer in voters.into_iter().filter(|peer| *peer != me && !near.contains(peer)) {
            self.takeover.away.entry(peer).or_insert(now);
        }
        self.takeover.words.retain(|_, (_, until)| now < *until);
        if self.passes_on() && now >= self.takeover.passed_on + Duration::from_secs(1) {
            self.pass_on(now);
        }
        let due = self.config.reclaim.and_then(|after| self.takeover.away.values().map(|since| *since + after).min());
        let due = due.map(|at| at.max(self.takeover.not_before));
        // Overdue and still there: others may not agree yet, or lead.
        let due = due.map(|at| if at <= now { now + self.retry() } else { at });
        let words = self.takeover.words.values().map(|(_, until)| *until).min();
        let pass_on = self.passes_on().then_some(self.takeover.passed_on + Duration::from_secs(1));
        self.takeover.next = due.into_iter().chain(words).chain(pass_on).min();
    }

    /// A host that is no member tells one what its operator says.
    fn pass_on(&mut self, now: Instant) {
        self.takeover.passed_on = now;
        let known = |peer| Some((peer, self.boot_of(peer)?));
        let peers: Vec<(PeerName, u64)> = self.wished_dead().into_iter().filter_map(known).collect();
        if let Some(to) = self.ring().and_then(|ring| ring.voters().find(|v| self.near.contains(v))) {
            self.tell(to, &Message::Evict { peers });
        }
    }

    fn retry(&self) -> Duration {
        let eighth = self.config.reclaim.unwrap_or_default() / 8;
        eighth.clamp(Duration::from_secs(1), Duration::from_secs(60))
    }

    /// Whether `peer` has been out of our reach for as long as reclaiming needs.
    pub(super) fn is_long_gone(&self, peer: PeerName, now: Instant) -> bool {
        let since = self.takeover.away.get(&peer);
        self.config.reclaim.zip(since).is_some_and(|(after, since)| now.since(*since) >= after)
    }

    /// Members to ask the others about.
    pub(super) fn due_for_reclaim(&self, now: Instant) -> BTreeSet<PeerName> {
        if now < self.takeover.not_before || self.ring().is_some_and(|ring| ring.moving.is_some()) {
            return BTreeSet::new();
        }
        self.takeover.away.keys().filter(|peer| self.is_long_gone(**peer, now)).take(256).copied().collect()
    }

    /// A round has asked about them: not at once again.
    pub(super) fn asked_about_reclaim(&mut self, now: Instant) {
        self.takeover.not_before = now + self.retry();
    }

    /// Peers that `rmpeer` was called for here.
    fn wished_dead(&self) -> BTreeSet<PeerName> {
        let wishes = self.pending.values().filter_map(|pending| match pending.wish {
            super::pending::Wish::Remove { peer, boot } => Some((peer, boot)),
            _ => None,
        });
        let dead = wishes.filter(|(peer, boot)| !self.near.contains(peer) && self.boot_of(*peer) == *boot);
        dead.map(|(peer, _)| peer).collect()
    }

    /// The start of a peer that the ring knows.
    pub(super) fn boot_of(&self, peer: PeerName) -> Option<u64> {
        self.ring().and_then(|ring| ring.members.get(&peer)).map(|member| member.boot)
    }

    fn passes_on(&self) -> bool {
        !self.may_vote(self.config.me, self.state.life) && !self.wished_dead().is_empty()
    }

    /// Peers that operators say are dead, and that we do not reach.
    pub(super) fn named_dead(&self) -> BTreeSet<PeerName> {
        let words = self
            .takeover
            .words
            .iter()
            .filter(|(p, (boot, _))| !self.near.contains(p) && self.boot_of(**p) == Some(*boot));
        let words = words.map(|(peer, _)| *peer);
        let Some(ring) = self.ring() else { return BTreeSet::new() };
        let stands = |peer: &PeerName| ring.members.get(peer).is_some_and(|m| m.standing != Standing::Removed);
        let owns = |peer: &PeerName| ring.blocks.values().any(|(_, owner)| owner.peer == *peer);
        self.wished_dead().into_iter().chain(words).filter(|p| *p != self.config.me && (stands(p) || owns(p))).collect()
    }

    /// The removals of these peers, and of older lives of peers that `rmpeer` was called for.
    pub(super) fn removals(&self, dead: &BTreeSet<PeerName>) -> Vec<Act> {
        let Some(ring) = self.ring().filter(|ring| ring.moving.is_none()) else { return Vec::new() };
        let wished = self.pending.values().filter_map(|pending| match pending.wish {
            super::pending::Wish::Remove { peer, .. } => Some(peer),
            _ => None,
        });
        let mut acts = Vec::new();
        for peer in dead.iter().copied().chain(wished).collect::<BTreeSet<_>>() {
            let Some(member) = ring.members.get(&peer).filter(|_| peer != self.config.me) else { continue };
            if member.standing != Standing::Removed && dead.contains(&peer) {
                acts.push(Act::Remove { peer, life: member.life, boot: member.boot });
                continue;
            }
            let owners =
                ring.blocks.values().map(|(_, owner)| owner).filter(|o| o.peer == peer && o.life != member.life);
            let older: Option<Life> = owners.map(|owner| owner.life).max();
            acts.extend(older.map(|life| Act::Remove { peer, life, boot: 0 }));
        }
        acts
    }

    /// Another host's operator says that these are dead.
    pub(super) fn hear_evict(&mut self, peers: Vec<(PeerName, u64)>, now: Instant) {
        for (peer, boot) in peers.into_iter().take(WORDS_MAX) {
            if self.takeover.words.len() < WORDS_MAX {
                self.takeover.words.insert(peer, (boot, now + WORD));
            }
        }
        self.watch(now);
    }
}
