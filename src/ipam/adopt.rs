//! Rings that arrive: which one to take over, and what it says about ourselves.
//!
//! Rings of one founding are states of one chain, so the later one is right and merging is taking the larger index: in any
//! order, any number of times. Loss is repaired by digests: whoever is behind fetches the whole ring. A ring that was
//! founded apart is not taken over, unless it says that it has taken ours in (`merge`).
//!
//! If the ring says that this life of ours was removed, everything it gave us is gone: a new life begins, before anything
//! else is handed out. If it knows a life of ours that our state does not, the state was lost, and the same happens.

use super::messages::{Digest, MESSAGE, Message, PART, PARTS_MAX};
use super::ring::{Life, MEMBERS_MAX, Relation, Ring, Slot, Standing};
use super::steps::Step;
use super::{Ipam, IpamOutput};
use crate::types::{Instant, PeerName};
use crate::wire::message::{decode_body, encode_body};
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How often some peers are told where our ring stands.
const DIGEST: Duration = Duration::from_secs(10);
/// To how many.
const DIGEST_PEERS: usize = 3;
/// To how many of those that just became reachable.
const GREET_PEERS: usize = 16;
/// The same peer is asked for, or sent, a ring no more often than this.
const PACE: Duration = Duration::from_millis(400);

struct Parts {
    from: PeerName,
    slot: Slot,
    of: u16,
    got: BTreeMap<u16, Vec<u8>>,
}

/// What is under way with other peers' rings.
#[derive(Default)]
pub(super) struct Adopting {
    pub digest_at: Instant,
    now: Instant,
    parts: Option<Parts>,
    fetched: BTreeMap<PeerName, Instant>,
    sent: BTreeMap<PeerName, Instant>,
    /// Peers about which a line was logged.
    told: BTreeSet<PeerName>,
    /// Addresses in use, as each peer says.
    pub usage: BTreeMap<PeerName, u64>,
}

impl Ipam {
    /// Every message goes through here.
    pub(super) fn hear(&mut self, from: PeerName, message: Message, now: Instant) {
        self.adopting.now = now;
        match message {
            Message::Digest(digest) => self.hear_digest(from, &digest, now),
            Message::Fetch => self.send_ring(from),
            Message::Full(ring) => self.adopt(from, ring, now),
            Message::Part { .. } => self.hear_part(from, message, now),
            Message::Ask(request) => self.hear_ask(from, request),
            Message::Prepare { .. } => self.hear_prepare(from, message, now),
            Message::Promise { .. } => self.hear_promise(from, message, now),
            Message::Accept { .. } => self.hear_accept(from, message, now),
            Message::Accepted { .. } => self.hear_accepted(from, message, now),
            Message::Nack { slot, ballot, promised } => self.hear_nack(&slot, &ballot, &promised, now),
            Message::Decided { slot, step } => {
                if self.in_step(from, &slot) {
                    self.apply(&step, now);
                }
            }
            Message::Need { want, life } => self.hear_need(from, want, life),
            Message::Deny { want } => self.hear_deny(from, want),
            Message::Evict { peers } => self.hear_evict(peers, now),
            Message::Knock { into, guest } => self.hear_knock(from, into, *guest, now),
            Message::Answered { guest, attempt, why } => self.hear_answered(guest, attempt, why),
            Message::Vacate { guest, attempt, items } => self.hear_vacate(from, guest, attempt, items),
            Message::Occupied { guest, attempt, position } => self.hear_occupied(guest, attempt, position),
        }
    }

    /// Whether a message about `slot` is about the ring as it stands here; if not, whoever is behind is helped.
    pub(super) fn in_step(&mut self, from: PeerName, slot: &Slot) -> bool {
        let mine = self.slot();
        if mine == *slot {
            return true;
        }
        if mine == Slot::NONE || (mine.ring == slot.ring && mine.index < slot.index) {
            self.fetch(from);
        } else if mine.ring == slot.ring || *slot == Slot::NONE {
            self.send_ring(from);
        } else if self.paced(from) {
            self.send_digest(from, false);
        }
        false
    }

    /// Whether something may be sent to `to` now.
    fn paced(&mut self, to: PeerName) -> bool {
        let now = self.adopting.now;
        let early = self.adopting.sent.get(&to).is_some_and(|at| now < *at + PACE);
        if !early && (self.adopting.sent.len() < MEMBERS_MAX || self.adopting.sent.contains_key(&to)) {
            self.adopting.sent.insert(to, now);
        }
        !early
    }

    fn fetch(&mut self, from: PeerName) {
        let now = self.adopting.now;
        let early = self.adopting.fetched.get(&from).is_some_and(|at| now < *at + PACE);
        if !early && self.adopting.fetched.len() < MEMBERS_MAX {
            self.adopting.fetched.insert(from, now);
            self.tell(from, &Message::Fetch);
        }
    }

    /// Sends the whole ring.
    pub(super) fn send_ring(&mut self, to: PeerName) {
        let Some(ring) = self.ring().cloned().filter(|_| self.paced(to)) else { return };
        let whole = Message::Full(ring.clone()).encode();
        if whole.len() <= MESSAGE {
            self.out.push_back(IpamOutput::Unicast { to, body: whole });
            return;
        }
        let packed = encode_body(&*ring);
        let of = packed.len().div_ceil(PART);
        let Some(of) = u16::try_from(of).ok().filter(|of| *of <= PARTS_MAX) else { return };
        for (number, part) in (0..of).zip(packed.chunks(PART)) {
            self.tell(to, &Message::Part { slot: ring.slot.clone(), number, of, bytes: part.to_vec() });
        }
    }

    fn hear_part(&mut self, from: PeerName, message: Message, now: Instant) {
        let Message::Part { slot, number, of, bytes: part } = message else { return };
        if of > PARTS_MAX || number >= of || part.len() > PART {
            return;
        }
        let same = self.adopting.parts.as_ref().is_some_and(|p| p.from == from && p.slot == slot && p.of == of);
        if !same {
            self.adopting.parts = Some(Parts { from, slot, of, got: BTreeMap::new() });
        }
        let Some(parts) = &mut self.adopting.parts else { return };
        parts.got.insert(number, part);
        if parts.got.len() == usize::from(of) {
            let whole: Vec<u8> = parts.got.values().flatten().copied().collect();
            self.adopting.parts = None;
            match decode_body::<Ring>(&whole) {
                Ok(ring) => self.adopt(from, Arc::new(ring), now),
                Err(_) => self.malformed = self.malformed.saturating_add(1),
            }
        }
    }

    fn digest(&self, reply: bool) -> Digest {
        Digest {
            slot: self.slot(),
            ranges: self.config.ranges.clone(),
            needs: self.ring().is_none() && self.needs_a_ring(),
            reply,
            used: u64::try_from(self.holdings.used.len()).unwrap_or(u64::MAX),
            members: self.ring().map_or(0, |ring| u32::try_from(ring.voters().count()).unwrap_or(u32::MAX)),
        }
    }

    fn send_digest(&mut self, to: PeerName, reply: bool) {
        let digest = self.digest(reply);
        self.tell(to, &Message::Digest(digest));
    }

    /// Tells peers that just became reachable where we stand.
    pub(super) fn greet(&mut self, fresh: &[PeerName]) {
        for peer in fresh.iter().take(GREET_PEERS) {
            self.send_digest(*peer, false);
        }
    }

    /// Repairs loss: tells a few random peers where we stand.
    pub(super) fn gossip_now_and_then(&mut self, now: Instant) {
        self.adopting.now = now;
        if now < self.adopting.digest_at {
            return;
        }
        let urgent = self.ring().is_none() && self.needs_a_ring();
        self.adopting.digest_at = now + if urgent { DIGEST / 10 } else { DIGEST };
        for _ in 0..DIGEST_PEERS.min(self.near.len()) {
            let pick = self.rng.random_range(0..self.near.len());
            if let Some(peer) = self.near.iter().nth(pick).copied() {
                self.send_digest(peer, false);
            }
        }
    }

    fn hear_digest(&mut self, from: PeerName, digest: &Digest, now: Instant) {
        if digest.ranges != self.config.ranges {
            return self.tell_mismatch(from, &digest.ranges);
        }
        if self.adopting.usage.len() < MEMBERS_MAX || self.adopting.usage.contains_key(&from) {
            self.adopting.usage.insert(from, digest.used);
        }
        let mine = self.slot();
        match (mine.ring, digest.slot.ring) {
            (0, 0) => self.election.needed |= digest.needs,
            (0, _) => self.fetch(from),
            (_, 0) => self.send_ring(from),
            (ours, theirs) if ours == theirs && mine.index < digest.slot.index => self.fetch(from),
            (ours, theirs) if ours == theirs && mine.index > digest.slot.index => {
                if !digest.reply {
                    self.send_digest(from, true);
                }
            }
            (ours, theirs) if ours == theirs => {
                if mine.hash != digest.slot.hash {
                    self.tell_fork(from);
                }
            }
            _ => self.hear_foreign(from, digest, now),
        }
    }

    /// Answers a digest of a foreign ring with ours.
    pub(super) fn answer_digest(&mut self, from: PeerName, digest: &Digest) {
        if !digest.reply {
            self.send_digest(from, true);
        }
    }

    fn tell_mismatch(&mut self, from: PeerName, theirs: &[crate::types::Network]) {
        if self.adopting.told.len() < MEMBERS_MAX && self.adopting.told.insert(from) {
            let theirs: Vec<String> = theirs.iter().take(8).map(ToString::to_string).collect();
            let ours = self.ranges_text();
            self.log(format!(
                "addresses: {from} hands out from {} and this host from {ours}: launch both with the same --ipalloc-range",
                theirs.join(" ")
            ));
        }
    }

    fn tell_fork(&mut self, from: PeerName) {
        if self.adopting.told.len() < MEMBERS_MAX && self.adopting.told.insert(from) {
            self.log(format!(
                "addresses: {from} and this host removed each other's side with `rnet rmpeer`: both go on apart; run `rnet reset` on the hosts of one side"
            ));
        }
    }

    fn adopt(&mut self, from: PeerName, ring: Arc<Ring>, now: Instant) {
        if ring.ranges != self.config.ranges {
            return self.tell_mismatch(from, &ring.ranges);
        }
        let Some(mine) = self.ring() else { return self.install(ring, now) };
        match mine.relation(&ring) {
            Relation::Same | Relation::Earlier => {}
            Relation::Later => self.install(ring, now),
            Relation::Fork => self.tell_fork(from),
            Relation::Foreign => {
                if ring.guests.get(&mine.slot.ring).is_some_and(|outcome| outcome.absorbed) {
                    let members = ring.voters().count();
                    self.log(format!(
                        "addresses: this host's address space was joined with that of {from}: {members} members"
                    ));
                    self.install(ring, now);
                }
            }
        }
    }

    /// A decided step.
    pub(super) fn apply(&mut self, step: &Step, now: Instant) {
        let next = match (step, self.ring()) {
            (Step::Found(founding), None) if founding.ranges == self.config.ranges => Ring::found(founding),
            (Step::Batch(batch), Some(ring)) => ring.apply(batch),
            _ => return,
        };
        self.install(Arc::new(next), now);
    }

    fn install(&mut self, ring: Arc<Ring>, now: Instant) {
        let vote = super::state::Vote::fresh(ring.slot.clone());
        let state = self.state_mut();
        state.vote = vote;
        state.ring = Some(ring);
        self.rounds.forget();
        self.election = super::election::Election::default();
        self.adopting.parts = None;
        self.review(now);
    }

    /// Draws the conclusions of a ring that is new here.
    pub(super) fn review(&mut self, now: Instant) {
        let Some(ring) = self.ring().cloned() else { return };
        if let Some(member) = ring.members.get(&self.config.me).copied().filter(|m| m.life != Life::UNBOUND) {
            let (mine, me) = (self.state.life, self.config.me);
            let line = if member.life == mine && member.standing == Standing::Removed && !self.asking.retiring {
                Some("addresses: this host was removed from the address space while it was away: it drops what it had and begins anew".into())
            } else if member.life == mine && member.boot > self.state.boot {
                Some(format!(
                    "addresses: the stored state of this host ({me}) is older than what the others know: what it had stays set aside; `rnet rmpeer {me}` on another host frees it"
                ))
            } else if member.life != mine && member.life.number() >= mine.number() {
                Some(format!(
                    "addresses: the others know this host ({me}) from before its state was lost: what it had stays set aside; `rnet rmpeer {me}` on another host frees it"
                ))
            } else {
                None
            };
            if let Some(line) = line {
                self.log(line);
                self.begin_again(member.life);
            }
        }
        self.review_request();
        self.watch(now);
        self.refresh();
        self.report_lost();
    }

    fn begin_again(&mut self, last: Life) {
        let state = self.state_mut();
        state.life = state.life.after(last);
        self.asking = super::open::Asking::default();
    }
}
