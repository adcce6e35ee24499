//! What this host asks the ring for: its place, space for what waits, spare addresses ahead of need, and what it gives.
//!
//! One request is under way at a time. It is sent again until the ring shows that it was applied, and is never changed:
//! whatever it gives away (`Shed`, `Report`, `Leave`) is out of our hands from the moment it exists. The sender of a lost
//! answer thus cannot be wrong about what it still has.
//!
//! How much is kept ahead: see `holdings`. In a large subnet 64 addresses or half of what is in use, so that an allocation
//! is local even while the mesh is partitioned; in a small one a fair part of an eighth, so that a subnet of 14 addresses
//! is not held up by three hosts that keep many in reserve: the rest stays in the pool, and what a member has is given to
//! another member that needs it (at most half of what is free there, at least one).

use super::messages::{Message, Want};
use super::ring::{Owner, Ring, Standing};
use super::space::{Run, Runs};
use super::steps::{OPS_MAX, Op, Request};
use super::{Ipam, pending::Wish};
use crate::types::{Instant, Network, PeerName};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How long until an unanswered request is sent again, at first to the same peer.
const AGAIN: Duration = Duration::from_secs(1);
/// Tries with one peer before the next one is asked.
const PATIENCE: u32 = 2;
/// Donations that wait for their request; more are not answered and asked for again.
const SHEDS_MAX: usize = 256;
/// Runs in a report; with more, whole blocks count as used.
const REPORT_MAX: usize = 4096;

/// The request under way.
#[derive(Default)]
pub(super) struct Asking {
    pub request: Option<Request>,
    tries: u32,
    at: Instant,
    /// What others need and we may have: heir and place.
    sheds: VecDeque<(Owner, Run)>,
    pub retiring: bool,
}

impl Asking {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.request.as_ref().map(|_| self.at)
    }

    /// Queues a gift; false if the queue is full.
    pub(super) fn shed(&mut self, to: Owner, run: Run) {
        if self.sheds.len() < SHEDS_MAX && !self.sheds.contains(&(to, run)) {
            self.sheds.push_back((to, run));
        }
    }
}

impl Ipam {
    /// Ourselves as an owner.
    pub(super) fn owner(&self) -> Owner {
        Owner { peer: self.config.me, life: self.state.life }
    }

    /// Whether the ring counts this very start of ours in.
    pub(super) fn counted_in(&self) -> bool {
        self.ring()
            .and_then(|ring| ring.members.get(&self.config.me))
            .is_some_and(|m| m.life == self.state.life && m.boot == self.state.boot && m.standing == Standing::Voting)
    }

    /// Whether this host may hand out what it owns.
    pub(super) fn active(&self) -> bool {
        self.counted_in() && !self.asking.retiring && self.ring().is_some_and(|ring| ring.moving.is_none())
    }

    /// Runs that the request under way gives away.
    pub(super) fn giving(&self) -> Vec<Run> {
        let ops = self.asking.request.iter().flat_map(|request| &request.ops);
        ops.filter_map(|op| if let Op::Shed { runs, .. } = op { Some(runs) } else { None }).flatten().copied().collect()
    }

    /// Drops the request under way once the ring shows that it was applied, or can never be.
    pub(super) fn review_request(&mut self) {
        let Some(ring) = self.ring().cloned() else { return };
        let over = self
            .asking
            .request
            .as_ref()
            .is_some_and(|request| request.life != self.state.life || ring.is_stale(request));
        if over {
            self.asking.request = None;
            self.asking.tries = 0;
        }
        self.rounds.inbox.retain(|_, request| !ring.is_stale(request));
    }

    /// Makes the next request, if there is anything to ask for.
    pub(super) fn compose(&mut self, now: Instant) {
        let Some(ring) = self.ring().cloned().filter(|_| self.asking.request.is_none()) else { return };
        let entry = ring.members.get(&self.config.me).copied();
        let known = entry.filter(|m| m.life == self.state.life && m.boot == self.state.boot);
        let mut ops = match known {
            Some(m) if m.standing == Standing::Voting => Vec::new(),
            _ if ring.moving.is_some() || self.asking.retiring => return,
            _ => vec![Op::Join],
        };
        if let Some(moving) = &ring.moving {
            if moving.reports.contains_key(&self.config.me) {
                return;
            }
            ops.push(Op::Report { attempt: moving.attempt, runs: self.in_use() });
        } else if self.asking.retiring {
            ops.push(Op::Leave);
        } else {
            ops.extend(self.gifts());
            ops.extend(self.takes(&ring));
            ops.extend(self.wants(&ring));
        }
        ops.truncate(OPS_MAX);
        if ops.is_empty() {
            return;
        }
        let seq = known.map_or(1, |m| m.seq + 1);
        let (from, life, boot) = (self.config.me, self.state.life, self.state.boot);
        self.asking.request = Some(Request { from, life, boot, seq, ops });
        self.asking.tries = 0;
        self.asking.at = now;
    }

    /// What we use of what we own, or all of what we own if that would be too much to tell.
    fn in_use(&self) -> Vec<Run> {
        let mut used = Runs::default();
        let owned = self.holdings.used.keys().filter(|at| self.holdings.owned.contains(**at));
        owned.for_each(|at| used.insert(Run::one(*at)));
        let runs: Vec<Run> = used.iter().take(REPORT_MAX + 1).collect();
        if runs.len() > REPORT_MAX { self.holdings.owned.iter().collect() } else { runs }
    }

    /// Gifts that still hold, taken out of what we hand out.
    fn gifts(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        while ops.len() < OPS_MAX / 2 {
            let Some((to, run)) = self.asking.sheds.pop_front() else { break };
            if self.holdings.all_free(run) {
                self.holdings.free.remove(run);
                ops.push(Op::Shed { runs: vec![run], to: Some(to) });
            }
        }
        ops
    }

    /// Exact addresses that are in the pool: claimed ones, and held ones that we lost but nobody else has.
    fn takes(&self, ring: &Ring) -> Vec<Op> {
        let claimed = self.pending.values().filter_map(|pending| pending.claims());
        let pooled =
            claimed.chain(self.holdings.lost.iter().copied()).filter(|at| ring.spans(*at) && ring.owner(*at).is_none());
        pooled.take(OPS_MAX / 4).map(|position| Op::Take { position }).collect()
    }

    /// Space of the pool: for what waits, and ahead of need.
    fn wants(&self, ring: &Ring) -> Vec<Op> {
        let mut wants: BTreeMap<Network, (u32, u32)> = BTreeMap::new();
        for pending in self.pending.values() {
            if let Wish::Net { network, .. } = &pending.wish {
                let window = Run::usable(*network);
                if window.is_some_and(|window| ring.pool_size(window) > 0) {
                    wants.entry(*network).or_default().0 += 1;
                }
            }
        }
        for target in self.holdings.targets.iter().filter(|target| target.available) {
            let free = self.holdings.free.count(target.window, target.low);
            if free < target.low {
                let spare = u32::try_from(2 * target.low - free).unwrap_or(u32::MAX);
                wants.entry(target.network).or_default().1 = spare;
            }
        }
        let want = |(network, (need, spare))| Op::Want { network, need, spare };
        wants.into_iter().map(want).take(OPS_MAX / 4).collect()
    }

    /// Takes part in what is being decided; true if the ring changed at once.
    pub(super) fn drive(&mut self, now: Instant) -> bool {
        let Some(ring) = self.ring().cloned() else {
            let wanted = self.wants_founding(now);
            return self.propose(wanted, now);
        };
        let voters: Vec<PeerName> = ring
            .voters()
            .filter(|v| self.near.contains(v) || self.may_vote(*v, self.state.life) && *v == self.config.me)
            .collect();
        let leads = voters.first() == Some(&self.config.me);
        let mut wanted = !self.rounds.inbox.is_empty() || !self.removals(&self.named_dead()).is_empty();
        wanted |= leads && (!self.due_for_reclaim(now).is_empty() || !self.merge_acts().is_empty());
        if let Some(request) = self.asking.request.clone() {
            let turn = usize::try_from(self.asking.tries / PATIENCE).unwrap_or(0);
            let target = voters.get(turn.checked_rem(voters.len()).unwrap_or(0)).copied();
            if target == Some(self.config.me) {
                wanted = true;
            }
            if now >= self.asking.at {
                self.asking.at = now + AGAIN;
                self.asking.tries = self.asking.tries.wrapping_add(1);
                if let Some(to) = target.filter(|to| *to != self.config.me) {
                    self.tell(to, &Message::Ask(request));
                }
            }
        }
        self.propose(wanted, now)
    }

    /// A peer's request.
    pub(super) fn hear_ask(&mut self, from: PeerName, request: Request) {
        let fits = request.from == from && request.ops.len() <= OPS_MAX;
        let fresh =
            self.ring().is_some_and(|ring| !ring.is_stale(&request) && self.may_vote(self.config.me, self.state.life));
        if fits && fresh && self.rounds.inbox.len() < super::ring::MEMBERS_MAX {
            self.rounds.inbox.insert(from, request);
        } else if fits {
            // It does not see yet what became of it.
            self.send_ring(from);
        }
    }

    /// Another owner needs some of what we have.
    pub(super) fn hear_need(&mut self, from: PeerName, want: Want, life: super::ring::Life) {
        if !self.active() {
            return;
        }
        let run = match want {
            Want::Net(network) => Run::usable(network).and_then(|window| self.holdings.free.donation(window)),
            Want::At(at) => Some(Run::one(at)).filter(|run| self.holdings.all_free(*run)),
        };
        let already = self.giving().iter().any(|run| match want {
            Want::Net(network) => Run::of(network).meet(*run).is_some(),
            Want::At(at) => run.contains(at),
        });
        match run {
            Some(run) => self.asking.shed(Owner { peer: from, life }, run),
            None if already => {}
            None => self.tell(from, &Message::Deny { want }),
        }
    }
}
