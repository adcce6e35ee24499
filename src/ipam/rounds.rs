//! Deciding one step: single-decree Paxos among the voters of the ring that the step changes.
//!
//! ```text
//! proposer:  Prepare(slot, ballot) -> Promise* (quorum) -> Accept(slot, ballot, step) -> Accepted* (quorum) -> Decided
//! ```
//! The step after ring `k` is decided by a majority of the voters of ring `k`, whom everybody that has ring `k` knows: so
//! each ring has one successor, and a change of members needs nothing special. A voter stores its promise before it
//! answers. A ballot may name `dead` peers (an operator's word): they are left out of the count. A majority of n and a
//! majority of the n-1 others share a voter, so that one true word loses nothing; see `takeover`.
//!
//! What is proposed comes from `open` (own requests), from the inbox (others' requests) and from `takeover` and `merge`.

use super::messages::Message;
use super::ring::{Life, Slot};
use super::state::Vote;
use super::steps::{Act, BATCH_MAX, Batch, Request, Step};
use super::{Ipam, MESSAGE};
use crate::types::{Instant, PeerName};
use crate::wire::message::encode_body;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a proposer waits before it repeats itself; doubles up to eight times that.
const REPEAT: Duration = Duration::from_millis(700);
/// How long a proposer that was overtaken stays back, about; doubles with contention.
const STAND_BACK: Duration = Duration::from_millis(300);

/// The rank of a proposal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub(super) struct Ballot {
    pub round: u64,
    pub proposer: PeerName,
    /// Left out of the count by an operator's word.
    pub dead: BTreeSet<PeerName>,
}

struct Promised {
    life: Life,
    boot: u64,
    accepted: Option<(Ballot, Step)>,
    agrees: BTreeSet<PeerName>,
}

struct Round {
    slot: Slot,
    ballot: Ballot,
    reclaim: Vec<PeerName>,
    promises: BTreeMap<PeerName, Promised>,
    step: Option<Step>,
    accepted: BTreeSet<PeerName>,
    at: Instant,
    sent: u32,
}

/// A proposer's side.
#[derive(Default)]
pub(super) struct Rounds {
    round: Option<Round>,
    /// Requests of others.
    pub inbox: BTreeMap<PeerName, Request>,
    not_before: Instant,
    contention: u32,
    highest: u64,
    /// Work is there, but it is too early for it.
    waiting: bool,
}

impl Rounds {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.round.as_ref().map(|round| round.at).or(self.waiting.then_some(self.not_before))
    }

    /// Whether a round of ours is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.round.is_some()
    }

    /// The ring moved on: whatever was under way is void.
    pub(super) fn forget(&mut self) {
        self.round = None;
        self.contention = 0;
        self.highest = 0;
    }
}

impl Ipam {
    /// Where the ring stands here.
    pub(super) fn slot(&self) -> Slot {
        self.ring().map_or(Slot::NONE, |ring| ring.slot.clone())
    }

    /// How many must agree to the next step.
    pub(super) fn quorum(&self, dead: &BTreeSet<PeerName>) -> usize {
        self.ring().map_or_else(|| self.founding_quorum(), |ring| ring.quorum(dead))
    }

    /// Of those, how many can be asked now, ourselves included.
    pub(super) fn within_reach(&self, dead: &BTreeSet<PeerName>) -> usize {
        let me = usize::from(self.may_vote(self.config.me, self.state.life));
        let others = match self.ring() {
            Some(ring) => ring.voters().filter(|v| self.near.contains(v) && !dead.contains(v)).count(),
            None => self.near.len(),
        };
        me + others
    }

    /// Whether `peer` counts in the decision of the next step.
    pub(super) fn may_vote(&self, peer: PeerName, life: Life) -> bool {
        match self.ring() {
            Some(ring) => ring.may_vote(peer, life),
            None => peer != self.config.me || self.may_found(),
        }
    }

    /// Begins a round if there is reason to; true if it was decided at once (we are a majority alone).
    pub(super) fn propose(&mut self, wanted: bool, now: Instant) -> bool {
        let dead = self.named_dead();
        let able = self.may_vote(self.config.me, self.state.life) && self.within_reach(&dead) >= self.quorum(&dead);
        self.rounds.waiting = false;
        if let Some(round) = &self.rounds.round {
            if able && round.slot == self.slot() && (round.ballot.dead == dead || !wanted) {
                return false;
            }
            self.rounds.round = None;
        }
        if !wanted || !able {
            return false;
        }
        if now < self.rounds.not_before {
            self.rounds.waiting = true;
            return false;
        }
        let round = self.state.vote.promised.round.max(self.rounds.highest) + 1;
        let ballot = Ballot { round, proposer: self.config.me, dead };
        let reclaim: Vec<PeerName> = self.due_for_reclaim(now).into_iter().collect();
        let slot = self.slot();
        let vote = self.vote_mut(&slot);
        vote.promised = ballot.clone();
        let accepted = vote.accepted.clone();
        let (life, boot) = (self.state.life, self.state.boot);
        let mine = Promised { life, boot, accepted, agrees: reclaim.iter().copied().collect() };
        let me = self.config.me;
        self.rounds.round = Some(Round {
            promises: [(me, mine)].into(),
            step: None,
            accepted: BTreeSet::new(),
            at: now + REPEAT,
            sent: 1,
            slot: slot.clone(),
            ballot: ballot.clone(),
            reclaim: reclaim.clone(),
        });
        if self.promised_by_all_needed() {
            return self.choose(now);
        }
        self.gossip(&Message::Prepare { slot, ballot, reclaim });
        false
    }

    /// Repeats what was not answered.
    pub(super) fn rounds_tick(&mut self, now: Instant) {
        let Some(round) = self.rounds.round.as_mut().filter(|round| now >= round.at) else { return };
        round.at = now + REPEAT * (1 << round.sent.min(3));
        round.sent = round.sent.saturating_add(1);
        let (slot, ballot) = (round.slot.clone(), round.ballot.clone());
        let message = match &round.step {
            None => Message::Prepare { slot, ballot, reclaim: round.reclaim.clone() },
            Some(step) => Message::Accept { slot, ballot, step: step.clone() },
        };
        self.gossip(&message);
    }

    fn vote_mut(&mut self, slot: &Slot) -> &mut Vote {
        let state = self.state_mut();
        if state.vote.slot != *slot {
            state.vote = Vote::fresh(slot.clone());
        }
        &mut state.vote
    }

    fn enough(&self, from: impl Iterator<Item = (PeerName, Life)>, dead: &BTreeSet<PeerName>) -> bool {
        from.filter(|(peer, life)| !dead.contains(peer) && self.may_vote(*peer, *life)).count() >= self.quorum(dead)
    }

    fn promised_by_all_needed(&self) -> bool {
        self.rounds.round.as_ref().is_some_and(|round| {
            self.enough(round.promises.iter().map(|(peer, p)| (*peer, p.life)), &round.ballot.dead)
        })
    }

    /// Phase one is won: the step is the one accepted under the highest ballot, or ours.
    fn choose(&mut self, now: Instant) -> bool {
        let Some(round) = &self.rounds.round else { return false };
        let (slot, ballot, me) = (round.slot.clone(), round.ballot.clone(), self.config.me);
        let asked_about = !round.reclaim.is_empty();
        let highest = round.promises.values().filter_map(|p| p.accepted.as_ref()).max_by(|a, b| a.0.cmp(&b.0));
        let step = match highest {
            Some((_, step)) => step.clone(),
            None if slot == Slot::NONE => {
                let members = round.promises.iter().map(|(peer, p)| (*peer, p.life, p.boot)).collect();
                self.founding(members)
            }
            None => Step::Batch(self.batch(round)),
        };
        if asked_about {
            self.asked_about_reclaim(now);
        }
        if step == Step::Batch(Batch::default()) {
            self.rounds.round = None;
            return false;
        }
        self.vote_mut(&slot).accepted = Some((ballot.clone(), step.clone()));
        if let Some(round) = &mut self.rounds.round {
            round.step = Some(step.clone());
            round.accepted.insert(me);
            round.at = now + REPEAT;
            round.sent = 1;
        }
        if self.decided() {
            self.conclude(now);
            return true;
        }
        self.gossip(&Message::Accept { slot, ballot, step });
        false
    }

    /// All that waits, as one batch of bounded size.
    fn batch(&self, round: &Round) -> Batch {
        let Some(ring) = self.ring() else { return Batch::default() };
        let agreed = |peer: &&PeerName| {
            round.promises.values().filter(|p| p.agrees.contains(peer)).count() >= ring.quorum(&BTreeSet::new())
        };
        let reclaimed = round.reclaim.iter().filter(agreed).filter_map(|peer| {
            ring.members.get(peer).map(|m| Act::Reclaim { peer: *peer, life: m.life, boot: m.boot })
        });
        let mut acts: Vec<Act> = self.removals(&round.ballot.dead);
        acts.extend(reclaimed);
        acts.extend(self.merge_acts());
        acts.truncate(BATCH_MAX);
        let mut size = encode_body(&acts).len();
        let mut requests = Vec::new();
        for request in self.asking.request.iter().chain(self.rounds.inbox.values()).take(BATCH_MAX) {
            size += encode_body(request).len();
            if size > MESSAGE / 2 && !(requests.is_empty() && acts.is_empty()) {
                break;
            }
            requests.push(request.clone());
        }
        Batch { acts, requests }
    }

    fn decided(&self) -> bool {
        let Some(round) = &self.rounds.round else { return false };
        let lives = round.accepted.iter().filter_map(|peer| {
            let life = round.promises.get(peer).map(|p| p.life);
            Some((*peer, life?))
        });
        self.enough(lives, &round.ballot.dead)
    }

    fn conclude(&mut self, now: Instant) {
        let Some(Round { slot, step: Some(step), .. }) = self.rounds.round.take() else { return };
        self.gossip(&Message::Decided { slot, step: step.clone() });
        self.apply(&step, now);
    }

    /// A proposer asks for our promise.
    pub(super) fn hear_prepare(&mut self, from: PeerName, message: Message, now: Instant) {
        let Message::Prepare { slot, ballot, reclaim } = message else { return };
        if !self.in_step(from, &slot) || !self.may_vote(self.config.me, self.state.life) {
            return;
        }
        let (life, boot) = (self.state.life, self.state.boot);
        let agrees: Vec<PeerName> = reclaim.iter().filter(|peer| self.is_long_gone(**peer, now)).copied().collect();
        let vote = self.vote_mut(&slot);
        if ballot < vote.promised {
            let promised = vote.promised.clone();
            return self.tell(from, &Message::Nack { slot, ballot, promised });
        }
        vote.promised = ballot.clone();
        let accepted = vote.accepted.clone();
        self.yield_to(&ballot, now);
        self.tell(from, &Message::Promise { slot, ballot, life, boot, accepted, agrees });
    }

    /// A proposer asks us to accept.
    pub(super) fn hear_accept(&mut self, from: PeerName, message: Message, now: Instant) {
        let Message::Accept { slot, ballot, step } = message else { return };
        if !self.in_step(from, &slot) || !self.may_vote(self.config.me, self.state.life) {
            return;
        }
        let life = self.state.life;
        let vote = self.vote_mut(&slot);
        if ballot < vote.promised {
            let promised = vote.promised.clone();
            return self.tell(from, &Message::Nack { slot, ballot, promised });
        }
        vote.promised = ballot.clone();
        vote.accepted = Some((ballot.clone(), step));
        self.yield_to(&ballot, now);
        self.tell(from, &Message::Accepted { slot, ballot, life });
    }

    /// Somebody with a higher ballot is at work: leave it to him for a while.
    fn yield_to(&mut self, ballot: &Ballot, now: Instant) {
        self.rounds.highest = self.rounds.highest.max(ballot.round);
        if self.rounds.round.as_ref().is_none_or(|round| round.ballot < *ballot) {
            self.stand_back(now);
        }
    }

    fn stand_back(&mut self, now: Instant) {
        self.rounds.round = None;
        self.rounds.contention = (self.rounds.contention + 1).min(5);
        let pause = self.jitter(STAND_BACK * (1 << self.rounds.contention) / 2);
        self.rounds.not_before = now + pause;
    }

    /// A voter's promise.
    pub(super) fn hear_promise(&mut self, from: PeerName, message: Message, now: Instant) {
        let Message::Promise { slot, ballot, life, boot, accepted, agrees } = message else { return };
        if !self.may_vote(from, life) {
            return;
        }
        let fits = |round: &&mut Round| round.slot == slot && round.ballot == ballot && round.step.is_none();
        let Some(round) = self.rounds.round.as_mut().filter(fits) else { return };
        round.promises.insert(from, Promised { life, boot, accepted, agrees: agrees.into_iter().collect() });
        if self.promised_by_all_needed() {
            self.choose(now);
        }
    }

    /// A voter accepted.
    pub(super) fn hear_accepted(&mut self, from: PeerName, message: Message, now: Instant) {
        let Message::Accepted { slot, ballot, life } = message else { return };
        if !self.may_vote(from, life) {
            return;
        }
        let fits = |round: &&mut Round| round.slot == slot && round.ballot == ballot && round.step.is_some();
        let Some(round) = self.rounds.round.as_mut().filter(fits) else { return };
        round.accepted.insert(from);
        round.promises.entry(from).or_insert(Promised { life, boot: 0, accepted: None, agrees: BTreeSet::new() });
        if self.decided() {
            self.conclude(now);
        }
    }

    /// A voter promised itself to somebody else.
    pub(super) fn hear_nack(&mut self, slot: &Slot, ballot: &Ballot, promised: &Ballot, now: Instant) {
        self.rounds.highest = self.rounds.highest.max(promised.round);
        if self.rounds.round.as_ref().is_some_and(|round| round.slot == *slot && round.ballot == *ballot) {
            self.stand_back(now);
        }
    }
}
