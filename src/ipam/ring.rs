//! The ring: who owns which part of the space, as one immutable value, and how a decided step makes the next one.
//!
//! A ring is found once (`Founding`) and then only changes by steps. `apply` is a pure function, so that every peer that
//! starts from the same ring and applies the same steps holds the same bytes (`hash` chains over the steps). What
//! nobody owns is the common pool. Everything in a step is checked again when it is applied: what no longer holds has no
//! effect, so a request that arrives late or twice does no harm.
//!
//! ```text
//! Member.boot   counts the starts of a router; only the newest start (boot) of an incarnation may ask for anything
//! Member.seq    counts the requests of that start; a request is applied only as number seq + 1: at most once
//! Standing      Voting: counts in the majority. Away: reclaimed; its blocks are set aside until it comes back.
//!               Removed: by `rmpeer` or `reset`; a tombstone that keeps requests from before the removal out.
//! ```
//!
//! Does not decide steps (`rounds`) nor hand out addresses (`holdings`). Merging two rings is in `merge`.

use super::space::Run;
use super::steps::{Act, Batch, Founding, Op, Request};
use crate::types::{Network, PeerName};
use crate::wire::message::encode_body;
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most peers that a ring takes in, tombstones included.
pub const MEMBERS_MAX: usize = 16_384;
/// Most blocks.
pub const BLOCKS_MAX: usize = 262_144;
/// Subnets in which every member keeps addresses ahead of need.
pub const SUBNETS_MAX: usize = 64;
/// Removals that a ring remembers, to tell a ring that went on without them.
const FORCED_MAX: usize = 256;
/// Runs that one wish may be granted in.
const GRANT_RUNS: usize = 16;

/// One life of a peer's address state: the number in the upper half grows with every life that follows a removal or a
/// loss of the state; the lower half is random, so that two lives with one number are told apart. 0: not yet bound.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, Serialize, Deserialize)]
pub struct Life(pub u64);

impl Life {
    /// A peer that was named as a seed and has not joined yet.
    pub const UNBOUND: Life = Life(0);

    /// Life number `number` with a random mark.
    pub const fn new(number: u32, mark: u32) -> Life {
        Life(((number as u64) << 32) | mark as u64)
    }

    /// Which life it is.
    pub const fn number(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The life after `other`, marked as this one.
    pub const fn after(self, other: Life) -> Life {
        Life::new(other.number().saturating_add(1), (self.0 & 0xffff_ffff) as u32)
    }
}

/// Whose a block is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Owner {
    /// The peer.
    pub peer: PeerName,
    /// In which of its lives.
    pub life: Life,
}

/// See the head of this file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Standing {
    /// Counts.
    Voting,
    /// Was unreachable for too long.
    Away,
    /// Is gone.
    Removed,
}

/// A peer in the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Its life.
    pub life: Life,
    /// Its newest start.
    pub boot: u64,
    /// Requests applied since that start.
    pub seq: u64,
    /// Whether it counts.
    pub standing: Standing,
}

/// A ring that asked to be taken in, and what became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Of its attempts, the one that this answers; refused covers all earlier ones.
    pub attempt: u32,
    /// Taken in for good, or refused this time.
    pub absorbed: bool,
}

/// The ring is asking another one to take it in: nobody hands out anything meanwhile.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Moving {
    /// The other ring.
    pub into: u64,
    /// Number of the attempt.
    pub attempt: u32,
    /// What each member really uses. Complete when every voting member is in it.
    pub reports: BTreeMap<PeerName, Vec<Run>>,
}

/// How two rings relate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// The same value.
    Same,
    /// The other one is a later state of this one.
    Later,
    /// The other one is an earlier state of this one.
    Earlier,
    /// Once the same, then forced apart by `rmpeer` on two sides.
    Fork,
    /// Seeded apart.
    Foreign,
}

/// Where a ring stands: enough to compare two.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Slot {
    /// Random, from the founding; 0 where there is no ring yet.
    pub ring: u64,
    /// Steps applied.
    pub index: u64,
    /// Chained over the steps.
    pub hash: u64,
}

impl Slot {
    /// Before any ring.
    pub const NONE: Slot = Slot { ring: 0, index: 0, hash: 0 };
}

/// See the head of this file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "super::pack::Packed", into = "super::pack::Packed")]
pub struct Ring {
    /// Where it stands.
    pub slot: Slot,
    /// The whole space.
    pub ranges: Vec<Network>,
    /// Who is or was in it.
    pub members: BTreeMap<PeerName, Member>,
    /// Last position and owner, by first position; neighbours of one owner are one block.
    pub blocks: BTreeMap<u128, (u128, Owner)>,
    /// Subnets asked for so far, the first 64.
    pub subnets: BTreeSet<Network>,
    /// Removals decided without all: index and the hash before.
    pub forced: Vec<(u64, u64)>,
    /// Rings that asked to be taken in.
    pub guests: BTreeMap<u64, Outcome>,
    /// This ring's own attempt to be taken in elsewhere.
    pub moving: Option<Moving>,
    /// Number of its last attempt.
    pub attempts: u32,
}

impl Ring {
    /// The first ring of a founding; members without a life (seeds) join on their own later.
    pub fn found(founding: &Founding) -> Ring {
        let members =
            founding.members.iter().take(MEMBERS_MAX).map(|(name, life, boot)| {
                (*name, Member { life: *life, boot: *boot, seq: 0, standing: Standing::Voting })
            });
        Ring {
            slot: Slot { ring: founding.ring, index: 1, hash: founding.ring },
            ranges: founding.ranges.clone(),
            members: members.collect(),
            blocks: BTreeMap::new(),
            subnets: BTreeSet::new(),
            forced: Vec::new(),
            guests: BTreeMap::new(),
            moving: None,
            attempts: 0,
        }
    }

    /// Members that count.
    pub fn voters(&self) -> impl Iterator<Item = PeerName> {
        self.members.iter().filter(|(_, m)| m.standing == Standing::Voting).map(|(name, _)| *name)
    }

    /// How many voters must agree, where `dead` are left out of the count by an operator's word.
    pub fn quorum(&self, dead: &BTreeSet<PeerName>) -> usize {
        self.voters().filter(|name| !dead.contains(name)).count() / 2 + 1
    }

    /// Whether `peer` in `life` may vote.
    pub fn may_vote(&self, peer: PeerName, life: Life) -> bool {
        self.members
            .get(&peer)
            .is_some_and(|m| m.standing == Standing::Voting && (m.life == life || m.life == Life::UNBOUND))
    }

    /// The block around `position`, clipped to nothing; none: the pool, or outside of the space.
    pub fn owner(&self, position: u128) -> Option<Owner> {
        self.blocks
            .range(..=position)
            .next_back()
            .filter(|(_, (last, _))| *last >= position)
            .map(|(_, (_, owner))| *owner)
    }

    /// The parts of blocks that lie in `window`, lowest first.
    pub fn blocks_in(&self, window: Run) -> impl Iterator<Item = (Run, Owner)> {
        let from = self.blocks.range(..=window.start).next_back().map_or(window.start, |(start, _)| *start);
        self.blocks
            .range(from..=window.last)
            .filter_map(move |(start, (last, owner))| Some((Run { start: *start, last: *last }.meet(window)?, *owner)))
    }

    /// The parts of the common pool that lie in `window`, lowest first of each range.
    pub fn pool_in(&self, window: Run) -> Vec<Run> {
        let mut gaps = Vec::new();
        for range in self.ranges.iter().filter_map(|range| Run::of(*range).meet(window)) {
            let mut next = Some(range.start);
            for (run, _) in self.blocks_in(range) {
                if let Some(at) = next.filter(|at| *at < run.start) {
                    gaps.push(Run { start: at, last: run.start - 1 });
                }
                next = run.last.checked_add(1);
            }
            gaps.extend(next.and_then(|at| Run::new(at, range.last)));
        }
        gaps
    }

    /// Positions of the pool in `window`.
    pub fn pool_size(&self, window: Run) -> u128 {
        self.pool_in(window).into_iter().fold(0, |sum, run| sum.saturating_add(run.len()))
    }

    /// Positions of the space in `window`.
    pub fn size_in(&self, window: Run) -> u128 {
        let parts = self.ranges.iter().filter_map(|range| Run::of(*range).meet(window));
        parts.fold(0, |sum, run| sum.saturating_add(run.len()))
    }

    /// Whether `position` lies in the space.
    pub fn spans(&self, position: u128) -> bool {
        self.ranges.iter().any(|range| Run::of(*range).contains(position))
    }

    /// The part of the pool that one member may take ahead of need in `window`: half, fairly divided.
    pub fn fair_share(&self, window: Run) -> u128 {
        self.pool_size(window) / (2 * self.voters().count().max(1) as u128)
    }

    /// Whether `request` was applied, or can never be.
    pub fn is_stale(&self, request: &Request) -> bool {
        let joins = request.ops.first() == Some(&Op::Join);
        match self.members.get(&request.from) {
            None => !joins,
            Some(m) if m.life == request.life => match m.standing {
                Standing::Removed => true,
                Standing::Away if !joins => true,
                _ => (request.boot, request.seq) <= (m.boot, m.seq),
            },
            Some(m) => !joins || request.life.number() <= m.life.number(),
        }
    }

    /// How `other` relates to this one.
    pub fn relation(&self, other: &Ring) -> Relation {
        if self.slot == other.slot {
            Relation::Same
        } else if self.slot.ring != other.slot.ring {
            Relation::Foreign
        } else if self.slot.index < other.slot.index {
            if other.descends_from(self) { Relation::Later } else { Relation::Fork }
        } else if self.slot.index > other.slot.index && self.descends_from(other) {
            Relation::Earlier
        } else {
            Relation::Fork
        }
    }

    /// Whether this later ring grew out of `earlier`: ordinary steps cannot fork, so only removals are compared.
    fn descends_from(&self, earlier: &Ring) -> bool {
        let oldest = self.forced.first().map_or(u64::MAX, |(index, _)| *index);
        let shared = |entry: &&(u64, u64)| entry.0 <= earlier.slot.index;
        self.forced.iter().filter(shared).all(|entry| earlier.forced.contains(entry))
            && earlier
                .forced
                .iter()
                .filter(|e| e.0 >= oldest || self.forced.len() < FORCED_MAX)
                .all(|e| self.forced.contains(e))
            && self.forced.iter().filter(|e| e.0 == earlier.slot.index + 1).all(|e| e.1 == earlier.slot.hash)
    }

    /// The ring after `batch`.
    pub fn apply(&self, batch: &Batch) -> Ring {
        let mut next = self.clone();
        let before = self.slot.hash;
        next.slot.index += 1;
        next.slot.hash = chain(before, batch);
        for act in &batch.acts {
            next.act(act, before);
        }
        for request in &batch.requests {
            next.request(request);
        }
        next
    }

    fn request(&mut self, request: &Request) {
        let joins = request.ops.first() == Some(&Op::Join);
        let fits = |m: &&mut Member| {
            m.life == request.life
                && m.boot == request.boot
                && m.standing == Standing::Voting
                && m.seq + 1 == request.seq
        };
        if joins {
            if !self.join(request) {
                return;
            }
        } else if let Some(member) = self.members.get_mut(&request.from).filter(fits) {
            member.seq = request.seq;
        } else {
            return;
        }
        let owner = Owner { peer: request.from, life: request.life };
        for op in &request.ops {
            self.op(op, owner);
        }
    }

    /// Takes in a peer, or a peer's newer start or life. Nobody joins while the ring moves: its members are being counted.
    fn join(&mut self, request: &Request) -> bool {
        if self.moving.is_some() {
            return false;
        }
        let welcome = match self.members.get(&request.from) {
            None => self.members.len() < MEMBERS_MAX && request.life != Life::UNBOUND,
            Some(m) if m.life == request.life => match m.standing {
                Standing::Removed => false,
                Standing::Voting => request.boot > m.boot,
                Standing::Away => request.boot > m.boot || (request.boot == m.boot && request.seq == m.seq + 1),
            },
            Some(m) => request.life.number() > m.life.number(),
        };
        if welcome {
            let member =
                Member { life: request.life, boot: request.boot, seq: request.seq, standing: Standing::Voting };
            self.members.insert(request.from, member);
        }
        welcome
    }

    fn op(&mut self, op: &Op, owner: Owner) {
        match op {
            Op::Report { attempt, runs } => {
                if let Some(moving) = self.moving.as_mut().filter(|moving| moving.attempt == *attempt) {
                    moving.reports.entry(owner.peer).or_insert_with(|| runs.clone());
                }
            }
            _ if self.moving.is_some() => {}
            Op::Join => {}
            Op::Want { network, need, spare } => self.grant(*network, *need, *spare, owner),
            Op::Take { position } => {
                if self.spans(*position) && self.owner(*position).is_none() {
                    self.assign(Run::one(*position), Some(owner));
                }
            }
            Op::Shed { runs, to } => {
                let heir = to.filter(|to| self.members.get(&to.peer).is_none_or(|m| m.life == to.life));
                for run in runs {
                    let mine: Vec<Run> =
                        self.blocks_in(*run).filter(|(_, of)| *of == owner).map(|(run, _)| run).collect();
                    mine.into_iter().for_each(|run| self.assign(run, heir));
                }
            }
            Op::Leave => {
                self.free_blocks(|of| of.peer == owner.peer);
                self.set_standing(owner.peer, Standing::Removed);
            }
        }
    }

    /// Lowest addresses first, in few runs, so that the ring stays small.
    fn grant(&mut self, network: Network, need: u32, spare: u32, owner: Owner) {
        let Some(window) = Run::usable(network) else { return };
        if self.subnets.len() < SUBNETS_MAX {
            self.subnets.insert(network);
        }
        let mut left = u128::from(need).max(u128::from(spare).min(self.fair_share(window)));
        for gap in self.pool_in(window).into_iter().take(GRANT_RUNS) {
            if left == 0 {
                break;
            }
            let run = Run { start: gap.start, last: gap.last.min(gap.start.saturating_add(left - 1)) };
            left = left.saturating_sub(run.len());
            self.assign(run, Some(owner));
        }
    }

    fn act(&mut self, act: &Act, before: u64) {
        match act {
            Act::Reclaim { peer, life, boot } => {
                let same = self.members.get(peer).is_some_and(|m| m.life == *life && m.boot == *boot);
                if same && self.moving.is_none() && self.voters().count() > 1 {
                    self.set_standing(*peer, Standing::Away);
                }
            }
            Act::Remove { peer, life, boot } => self.remove(*peer, *life, *boot, before),
            other => self.merge_act(other),
        }
    }

    /// An operator's word that this start of the peer is dead: all that it had is free.
    fn remove(&mut self, peer: PeerName, life: Life, boot: u64, before: u64) {
        let member = self.members.get(&peer).copied();
        let kept = match member {
            Some(m) if m.life == life && m.boot == boot => None,
            Some(m) if m.life.number() > life.number() => Some(m.life),
            _ => return,
        };
        if self.forced.last().is_none_or(|(index, _)| *index != self.slot.index) {
            self.forced.push((self.slot.index, before));
            let surplus = self.forced.len().saturating_sub(FORCED_MAX);
            self.forced.drain(..surplus);
        }
        self.free_blocks(|of| of.peer == peer && Some(of.life) != kept);
        if kept.is_none() {
            self.set_standing(peer, Standing::Removed);
        }
    }

    fn set_standing(&mut self, peer: PeerName, standing: Standing) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.standing = standing;
        }
    }

    fn free_blocks(&mut self, whose: impl Fn(&Owner) -> bool) {
        self.blocks.retain(|_, (_, owner)| !whose(owner));
    }

    /// Gives `run` to an owner, or to the pool; whatever was there is cut.
    pub fn assign(&mut self, run: Run, owner: Option<Owner>) {
        let hit: Vec<(Run, Owner)> = {
            let from = self.blocks.range(..=run.start).next_back().map_or(run.start, |(start, _)| *start);
            let blocks = self.blocks.range(from..=run.last).filter(|(_, (last, _))| *last >= run.start);
            blocks.map(|(start, (last, owner))| (Run { start: *start, last: *last }, *owner)).collect()
        };
        for (old, of) in hit {
            self.blocks.remove(&old.start);
            if old.start < run.start {
                self.blocks.insert(old.start, (run.start - 1, of));
            }
            if old.last > run.last {
                self.blocks.insert(run.last + 1, (old.last, of));
            }
        }
        let Some(owner) = owner.filter(|_| self.blocks.len() < BLOCKS_MAX) else { return };
        let (mut start, mut last) = (run.start, run.last);
        let below = start.checked_sub(1).and_then(|end| self.blocks.range(..=end).next_back().filter(|b| b.1.0 == end));
        if let Some((at, _)) = below.filter(|(_, (_, of))| *of == owner) {
            start = *at;
        }
        if let Some((end, of)) =
            last.checked_add(1).and_then(|at| self.blocks.get(&at)).copied().filter(|b| b.1 == owner)
        {
            debug_assert_eq!(of, owner);
            self.blocks.remove(&(last + 1));
            last = end;
        }
        self.blocks.insert(start, (last, owner));
    }
}

/// The hash after a step: the first 64 bits of SHA-256 over the hash before and the step.
fn chain(before: u64, batch: &Batch) -> u64 {
    let mut bytes = before.to_be_bytes().to_vec();
    bytes.extend(encode_body(batch));
    let hash = digest::digest(&digest::SHA256, &bytes);
    hash.as_ref().iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerName {
        PeerName(crate::types::Mac([2, 0, 0, 0, 0, n]))
    }

    fn found(peers: u8) -> Ring {
        let members = (0..peers).map(|n| (peer(n), Life::new(1, 7), 1)).collect();
        Ring::found(&Founding { ring: 5, ranges: vec!["10.32.0.0/24".parse().unwrap()], members })
    }

    fn ask(n: u8, boot: u64, seq: u64, ops: Vec<Op>) -> Batch {
        let request = Request { from: peer(n), life: Life::new(1, 7), boot, seq, ops };
        Batch { acts: Vec::new(), requests: vec![request] }
    }

    fn want(need: u32) -> Op {
        Op::Want { network: "10.32.0.0/24".parse().unwrap(), need, spare: 0 }
    }

    fn owned(ring: &Ring, n: u8) -> u128 {
        let mine = ring.blocks.iter().filter(|(_, (_, of))| of.peer == peer(n));
        mine.map(|(start, (last, _))| last - start + 1).sum()
    }

    #[test]
    fn a_request_is_applied_at_most_once_and_only_in_order() {
        let ring = found(2).apply(&ask(0, 1, 1, vec![want(3)]));
        assert_eq!(owned(&ring, 0), 3);
        assert_eq!(owned(&ring.apply(&ask(0, 1, 1, vec![want(3)])), 0), 3, "doubled");
        assert_eq!(owned(&ring.apply(&ask(0, 1, 3, vec![want(3)])), 0), 3, "too early");
        assert_eq!(owned(&ring.apply(&ask(0, 1, 2, vec![want(3)])), 0), 6);
    }

    #[test]
    fn a_newer_start_voids_what_the_older_one_sent() {
        let ring = found(2).apply(&ask(0, 2, 1, vec![Op::Join]));
        assert_eq!(owned(&ring.apply(&ask(0, 1, 2, vec![want(3)])), 0), 0);
        assert_eq!(ring.apply(&ask(0, 1, 9, vec![Op::Join])).members[&peer(0)].boot, 2);
    }

    #[test]
    fn a_removal_is_void_once_the_peer_has_started_again() {
        let remove =
            Batch { acts: vec![Act::Remove { peer: peer(0), life: Life::new(1, 7), boot: 1 }], requests: Vec::new() };
        let ring = found(2).apply(&ask(0, 2, 1, vec![Op::Join, want(3)]));
        assert_eq!(owned(&ring.apply(&remove), 0), 3);
        let gone = found(2).apply(&ask(0, 1, 1, vec![want(3)])).apply(&remove);
        assert_eq!((owned(&gone, 0), gone.voters().count()), (0, 1));
        assert_eq!(gone.apply(&ask(0, 2, 1, vec![Op::Join])).voters().count(), 1, "that life is over");
    }

    #[test]
    fn only_the_owner_gives_away_and_only_what_it_has() {
        let ring = found(2).apply(&ask(0, 1, 1, vec![want(4)]));
        let run = ring.pool_in(Run::of(ring.ranges[0]))[0];
        let all = Run { start: run.start, last: run.start + 200 };
        let heir = Owner { peer: peer(1), life: Life::new(1, 7) };
        let stolen = ring.apply(&ask(1, 1, 1, vec![Op::Shed { runs: vec![all], to: Some(heir) }]));
        assert_eq!((owned(&stolen, 0), owned(&stolen, 1)), (4, 0));
        let given = ring.apply(&ask(0, 1, 2, vec![Op::Shed { runs: vec![all], to: Some(heir) }]));
        assert_eq!(owned(&given, 0) + owned(&given, 1), 4);
    }

    #[test]
    fn rings_know_their_ancestors_and_forks() {
        let remove = |n: u8| Batch {
            acts: vec![Act::Remove { peer: peer(n), life: Life::new(1, 7), boot: 1 }],
            requests: Vec::new(),
        };
        let base = found(3);
        let later = base.apply(&ask(0, 1, 1, vec![want(1)]));
        assert_eq!((base.relation(&later), later.relation(&base)), (Relation::Later, Relation::Earlier));
        let (left, right) = (base.apply(&remove(0)), base.apply(&remove(1)));
        assert_eq!(left.relation(&right), Relation::Fork);
        assert_eq!(left.relation(&right.apply(&remove(2))), Relation::Fork);
        assert_eq!(later.relation(&left.apply(&remove(2))), Relation::Fork, "forced past a step that it does not know");
        assert_eq!(base.relation(&left.apply(&remove(2))), Relation::Later);
    }
}
