//! What to tell which neighbour, for one channel (the topology, or the claims).
//!
//! ```text
//! link up        our item and theirs, and our digest; each end then sends what the other lacks
//! news           at once to some neighbours at random (log2 n + 2 of n); 100 ms later to as many more, who may have it by then
//!                from others and say so; those that are left get a summary after 500 ms
//! news again     to one neighbour after 8 in a row not more often than every 250 ms, whatever is news by then
//! every 10 s     a summary (8 bytes) to one random neighbour
//! summary        differs from ours: our digest, asking for theirs
//! digest         what they lack; if they asked and we lack something: our digest, not asking again
//! ```
//!
//! So a lost message, a neighbour left out or an item refused for a moment is repaired, and an idle mesh says next to
//! nothing. Nothing is queued but names: what is pending for a neighbour is a set, bounded by the peers, and is
//! turned into a message only when the link has taken the previous one. Peers that no chain of links reaches are not told
//! about (see `replica`); what is pending about them waits.

use super::pace::Pace;
use super::replica::{Digest, Item, Linked, MAX_PEERS, Merged, Replica};
use crate::types::{Instant, PeerName};
use rand::rngs::StdRng;
use rand::seq::{IteratorRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Most bytes of items in one body, except that a single item is always sent whole.
pub const BODY_MAX: usize = 256 << 10;
/// How often a random neighbour gets a summary.
pub const ROUND: Duration = Duration::from_secs(10);
/// How long after news those neighbours that were not told get a summary.
pub const LATER: Duration = Duration::from_millis(500);
/// How long after news they are told to those who were not told at once and did not tell of them meanwhile.
const SOON: Duration = Duration::from_millis(100);
/// How often one neighbour is told something while there is always something to tell. Each change would cross each link of the
/// mesh by itself otherwise: 200 peers that start together sent 2.7 million messages, with this, and with fewer
/// told at once, 0.3 million.
const SPACING: Duration = Duration::from_millis(250);
/// So many bodies are not spaced: what one event brings about is told at once.
const BURST: u32 = 8;

/// What is said on a channel. Encoded by the node (`wire::message`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body<T> {
    /// Items, whole, at most [`BODY_MAX`] bytes.
    Items(Vec<T>),
    /// What the sender has; `answer`: it would like the receiver's digest if that has less.
    Digest { digest: Digest, answer: bool },
    /// [`Digest::summary`] of what the sender has.
    Summary(u64),
}

#[derive(Debug, Default)]
struct Neighbour {
    pending: BTreeSet<PeerName>,
    /// Pending from then on.
    soon: BTreeSet<PeerName>,
    soon_at: Option<Instant>,
    /// A digest is owed; whether it asks for an answer.
    digest: Option<bool>,
    summary: bool,
    /// Their summary, not yet compared with ours.
    theirs: Option<u64>,
    summary_at: Option<Instant>,
    /// The link has not taken the previous body yet.
    busy: bool,
    pace: Pace,
    /// There may be something to say then.
    wait: Option<Instant>,
}

/// See the head of this file. One per channel.
#[derive(Debug)]
pub struct Gossip {
    neighbours: BTreeMap<PeerName, Neighbour>,
    rng: StdRng,
    next_round: Instant,
}

impl Gossip {
    /// Knows no neighbours yet. Two routers must not share a seed, or they would tell the same ones.
    pub fn new(seed: [u8; 32], now: Instant) -> Gossip {
        Gossip { neighbours: BTreeMap::new(), rng: StdRng::from_seed(seed), next_round: now + ROUND }
    }

    /// A link to `neighbour` stands. `me` is our name. Our record should list the link already.
    pub fn link_up(&mut self, me: PeerName, neighbour: PeerName) {
        let pending = BTreeSet::from([me, neighbour]);
        self.neighbours.insert(neighbour, Neighbour { pending, digest: Some(false), ..Neighbour::default() });
    }

    /// The link is gone: nothing is pending for it any more.
    pub fn link_down(&mut self, neighbour: PeerName) {
        self.neighbours.remove(&neighbour);
    }

    /// The link has taken what [`Gossip::poll`] gave for it: it may give more.
    pub fn drained(&mut self, neighbour: PeerName) {
        if let Some(neighbour) = self.neighbours.get_mut(&neighbour) {
            neighbour.busy = false;
        }
    }

    /// The items of `news` changed here: to be told, though not to `except`, who told us.
    pub fn spread(&mut self, news: &[PeerName], except: Option<PeerName>, now: Instant) {
        let others: Vec<PeerName> = self.neighbours.keys().copied().filter(|name| Some(*name) != except).collect();
        if news.is_empty() || others.is_empty() {
            return;
        }
        let at_once = at_once(others.len());
        let mut told: Vec<PeerName> = others.iter().copied().sample(&mut self.rng, fan_out(others.len()));
        told.shuffle(&mut self.rng);
        let rank = |name: &PeerName| told.iter().position(|told| told == name);
        for (name, neighbour) in self.neighbours.iter_mut().filter(|(name, _)| Some(**name) != except) {
            match rank(name) {
                Some(rank) if rank < at_once => neighbour.pending.extend(news),
                Some(_) => {
                    neighbour.soon.extend(news.iter().filter(|name| !neighbour.pending.contains(name)));
                    neighbour.soon_at.get_or_insert(now + SOON);
                }
                None => _ = neighbour.summary_at.get_or_insert(now + LATER),
            }
        }
    }

    /// Takes in what `from` said: merges items into `replica` and plans what follows, telling others included. The caller
    /// looks at `Merged` for what changed.
    pub fn receive<T: Item>(
        &mut self,
        from: PeerName,
        body: Body<T>,
        replica: &mut Replica<T>,
        now: Instant,
    ) -> Merged {
        match (body, self.neighbours.get_mut(&from)) {
            (Body::Items(items), _) => return self.receive_items(from, items, replica, now),
            (Body::Digest { digest, answer }, Some(neighbour)) if digest.len() <= MAX_PEERS.saturating_add(1) => {
                let diff = replica.diff(&digest);
                neighbour.pending.extend(diff.they_lack);
                if answer && diff.we_lack {
                    neighbour.digest.get_or_insert(false);
                }
            }
            (Body::Summary(theirs), Some(neighbour)) => neighbour.theirs = Some(theirs),
            _ => {}
        }
        Merged::default()
    }

    fn receive_items<T: Item>(
        &mut self,
        from: PeerName,
        items: Vec<T>,
        replica: &mut Replica<T>,
        now: Instant,
    ) -> Merged {
        let told: Vec<_> = items.iter().map(|item| (item.name(), item.stamp())).collect();
        let merged = replica.merge(items);
        self.spread(&merged.news, Some(from), now);
        if let Some(neighbour) = self.neighbours.get_mut(&from) {
            for (name, stamp) in told {
                // They have it: no need to tell them what another neighbour told us as well.
                if replica.get(name).is_some_and(|item| item.stamp() == stamp) {
                    neighbour.pending.remove(&name);
                    neighbour.soon.remove(&name);
                }
            }
            if merged.news.contains(&replica.name()) {
                neighbour.pending.insert(replica.name());
            }
        }
        merged
    }

    /// Time passed: summaries fall due.
    pub fn handle(&mut self, now: Instant) {
        for neighbour in self.neighbours.values_mut() {
            if neighbour.soon_at.take_if(|at| *at <= now).is_some() {
                neighbour.pending.append(&mut neighbour.soon);
            }
            if neighbour.summary_at.is_some_and(|at| at <= now) {
                neighbour.summary_at = None;
                neighbour.summary = true;
            }
        }
        if self.next_round <= now {
            // A little apart from others that started together.
            self.next_round = now + ROUND + Duration::from_millis(250 * self.rng.random_range(0..4));
            if let Some(neighbour) = self.neighbours.values_mut().choose(&mut self.rng) {
                neighbour.summary = true;
            }
        }
    }

    /// When [`Gossip::handle`] or [`Gossip::poll`] has something to do; nothing while there are no neighbours.
    pub fn deadline(&self) -> Option<Instant> {
        let waits = |neighbour: &Neighbour| {
            [neighbour.wait, neighbour.soon_at, neighbour.summary_at].into_iter().flatten().min()
        };
        let later = self.neighbours.values().filter_map(waits).min();
        let round = (!self.neighbours.is_empty()).then_some(self.next_round);
        later.into_iter().chain(round).min()
    }

    /// The next body to send, and to whom; that neighbour gets no other before [`Gossip::drained`].
    pub fn poll<T: Item>(
        &mut self,
        replica: &Replica<T>,
        linked: &Linked,
        now: Instant,
    ) -> Option<(PeerName, Body<T>)> {
        let mut free = self.neighbours.iter_mut().filter(|(_, neighbour)| !neighbour.busy);
        free.find_map(|(name, neighbour)| {
            let body = neighbour.may_speak(now).then(|| neighbour.next(replica, linked)).flatten()?;
            neighbour.busy = true;
            // What does not fit into one body is not what the spacing is for.
            if neighbour.pending.is_empty() {
                neighbour.pace.took(SPACING, now);
            }
            Some((*name, body))
        })
    }
}

impl Neighbour {
    /// Whether it is not too soon; if it is, and there may be something to say, waits.
    fn may_speak(&mut self, now: Instant) -> bool {
        let silent = self.pending.is_empty() && self.theirs.is_none() && self.digest.is_none() && !self.summary;
        let next = self.pace.next(SPACING, BURST, now);
        self.wait = (next > now && !silent).then_some(next);
        !silent && next <= now
    }

    fn next<T: Item>(&mut self, replica: &Replica<T>, linked: &Linked) -> Option<Body<T>> {
        let items = self.take_items(replica, linked);
        if !items.is_empty() {
            return Some(Body::Items(items));
        }
        if self.theirs.take().is_some_and(|theirs| replica.digest(linked).summary() != theirs) {
            self.digest = Some(true);
        }
        if let Some(answer) = self.digest.take() {
            // A digest says more than the summary would.
            self.summary = false;
            return Some(Body::Digest { digest: replica.digest(linked), answer });
        }
        std::mem::take(&mut self.summary).then(|| Body::Summary(replica.digest(linked).summary()))
    }

    /// Takes pending names until their items fill a body. Names without an item are dropped; peers that are not linked (any
    /// more, or not yet: the record that links them may be on its way) stay pending until they are, or are collected.
    fn take_items<T: Item>(&mut self, replica: &Replica<T>, linked: &Linked) -> Vec<T> {
        let mut items = Vec::new();
        let mut size = 0_usize;
        self.pending.retain(|name| {
            let Some(item) = replica.get(*name) else { return false };
            let weight = item.weight();
            if !linked.contains(*name) || (size.saturating_add(weight) > BODY_MAX && !items.is_empty()) {
                return true;
            }
            size = size.saturating_add(weight);
            items.push(item.clone());
            false
        });
        items
    }
}

/// How many of `count` neighbours are told news at once. Each of them tells others, so that nearly everybody has it from two or
/// three, instead of from all it is linked with.
fn at_once(count: usize) -> usize {
    usize::try_from(count.max(1).ilog2()).unwrap_or(0).saturating_add(2).min(count)
}

/// How many of them get it at all without asking.
fn fan_out(count: usize) -> usize {
    let doubled_log = usize::try_from(count.saturating_mul(count).max(1).ilog2()).unwrap_or(usize::MAX);
    doubled_log.saturating_add(1).min(count)
}

#[cfg(test)]
mod tests;
