//! What to tell which neighbour, for one channel (the topology, or the claims).
//!
//! ```text
//! link up        our item and theirs, and our digest; each end then sends what the other lacks
//! news           at once to a random subset of the neighbours (2 log2 n of n); the others get a summary 500 ms later
//! every 10 s     a summary (8 bytes) to one random neighbour
//! summary        differs from ours: our digest, asking for theirs
//! digest         what they lack; if they asked and we lack something: our digest, not asking again
//! ```
//!
//! So a lost message, a neighbour left out or an item refused for a moment is repaired, and an idle mesh says next to
//! nothing. Nothing is queued but names: what is pending for a neighbour is a set, bounded by the peers, and is
//! turned into a message only when the link has taken the previous one.

use super::replica::{Digest, Item, Linked, MAX_PEERS, Merged, Replica};
use crate::types::{Instant, PeerName};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
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
    /// A digest is owed; whether it asks for an answer.
    digest: Option<bool>,
    summary: bool,
    summary_at: Option<Instant>,
    /// The link has not taken the previous body yet.
    busy: bool,
}

impl Neighbour {
    fn is_idle(&self) -> bool {
        self.busy || (self.pending.is_empty() && self.digest.is_none() && !self.summary)
    }
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
        let told: BTreeSet<PeerName> =
            others.iter().copied().sample(&mut self.rng, fan_out(others.len())).into_iter().collect();
        for (name, neighbour) in &mut self.neighbours {
            if told.contains(name) {
                neighbour.pending.extend(news);
            } else if Some(*name) != except {
                neighbour.summary_at.get_or_insert(now + LATER);
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
        linked: &Linked,
        now: Instant,
    ) -> Merged {
        match body {
            Body::Items(items) => self.receive_items(from, items, replica, now),
            Body::Digest { digest, answer } => {
                if digest.len() <= MAX_PEERS.saturating_add(1) {
                    let diff = replica.diff(&digest, linked);
                    if let Some(neighbour) = self.neighbours.get_mut(&from) {
                        neighbour.pending.extend(diff.they_lack);
                        if answer && diff.we_lack {
                            neighbour.digest.get_or_insert(false);
                        }
                    }
                }
                Merged::default()
            }
            Body::Summary(theirs) => {
                if let Some(neighbour) = self.neighbours.get_mut(&from)
                    && replica.digest(linked).summary() != theirs
                {
                    neighbour.digest = Some(true);
                }
                Merged::default()
            }
        }
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
                }
            }
            if merged.me_contested() {
                neighbour.pending.insert(replica.name());
            }
        }
        merged
    }

    /// Time passed: summaries fall due.
    pub fn handle(&mut self, now: Instant) {
        for neighbour in self.neighbours.values_mut() {
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

    /// When [`Gossip::handle`] has something to do; nothing while there are no neighbours.
    pub fn deadline(&self) -> Option<Instant> {
        let later = self.neighbours.values().filter_map(|neighbour| neighbour.summary_at).min();
        let round = (!self.neighbours.is_empty()).then_some(self.next_round);
        later.into_iter().chain(round).min()
    }

    /// The next body to send, and to whom; that neighbour gets no other before [`Gossip::drained`].
    pub fn poll<T: Item>(&mut self, replica: &Replica<T>, linked: &Linked) -> Option<(PeerName, Body<T>)> {
        while let Some((name, neighbour)) = self.neighbours.iter_mut().find(|(_, neighbour)| !neighbour.is_idle()) {
            let items = take_items(&mut neighbour.pending, replica);
            let body = if !items.is_empty() {
                Body::Items(items)
            } else if let Some(answer) = neighbour.digest.take() {
                // A digest says more than the summary would.
                neighbour.summary = false;
                Body::Digest { digest: replica.digest(linked), answer }
            } else if std::mem::take(&mut neighbour.summary) {
                Body::Summary(replica.digest(linked).summary())
            } else {
                continue;
            };
            neighbour.busy = true;
            return Some((*name, body));
        }
        None
    }
}

/// How many of `count` neighbours are told news at once.
fn fan_out(count: usize) -> usize {
    let doubled_log = usize::try_from(count.saturating_mul(count).max(1).ilog2()).unwrap_or(usize::MAX);
    doubled_log.saturating_add(1).min(count)
}

/// Takes names off `pending` until their items fill a body. Names without an item are dropped.
fn take_items<T: Item>(pending: &mut BTreeSet<PeerName>, replica: &Replica<T>) -> Vec<T> {
    let mut items = Vec::new();
    let mut size = 0_usize;
    while let Some(name) = pending.first().copied() {
        if let Some(item) = replica.get(name) {
            size = size.saturating_add(item.weight());
            if size > BODY_MAX && !items.is_empty() {
                break;
            }
            items.push(item.clone());
        }
        pending.remove(&name);
    }
    items
}
