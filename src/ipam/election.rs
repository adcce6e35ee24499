//! The first ring: who may found it, and when.
//!
//! `consensus=N`: the founding is an ordinary round (`rounds`) for the step after "no ring", with N/2+1 hosts that have no
//! ring either as voters; the members are those who promised. N=1 founds alone, but only when an address is needed, so that
//! two hosts that start alone and find each other before that have one ring. N>1 founds as soon as enough hosts are
//! within reach: whoever has the lowest name begins, the others follow after a while. If N is smaller than the number of
//! hosts, two rings may come about; see `merge`.
//! `seed=...`: the ring is computed, the same everywhere. `observer`: votes never, waits.

use super::ring::{Life, Ring};
use super::steps::{Founding, Step};
use super::{Init, Ipam};
use crate::types::{Instant, PeerName};
use aws_lc_rs::digest;
use std::sync::Arc;
use std::time::Duration;

/// How long a host that others can be reached from waits for word of a ring of theirs.
const LISTEN: Duration = Duration::from_millis(1000);
/// How long those with a higher name leave it to the lowest.
const DEFER: Duration = Duration::from_millis(2000);

/// When to begin.
#[derive(Default)]
pub(super) struct Election {
    at: Option<Instant>,
    /// Others need a ring and asked for it.
    pub needed: bool,
}

impl Election {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.at
    }
}

impl Ipam {
    pub(super) fn founding_quorum(&self) -> usize {
        match self.config.init {
            Init::Consensus(hosts) => hosts / 2 + 1,
            Init::Seed(_) | Init::Observer => usize::MAX,
        }
    }

    /// Whether this host votes about the founding.
    pub(super) fn may_found(&self) -> bool {
        matches!(self.config.init, Init::Consensus(_))
    }

    /// Somebody waits for addresses here.
    pub(super) fn needs_a_ring(&self) -> bool {
        self.pending.values().any(|pending| !matches!(pending.wish, super::pending::Wish::Retire))
    }

    /// Whether to propose a founding now.
    pub(super) fn wants_founding(&mut self, now: Instant) -> bool {
        let quorum = self.founding_quorum();
        let needed = self.needs_a_ring() || self.election.needed || (quorum > 1 && quorum < usize::MAX);
        if !self.may_found() || !needed || self.within_reach(&Default::default()) < quorum {
            self.election.at = None;
            return false;
        }
        let lowest = self.near.first().is_none_or(|peer| self.config.me < *peer);
        let listen = if self.near.is_empty() { Duration::ZERO } else { LISTEN };
        let pause = if lowest || quorum == 1 { listen } else { listen + DEFER };
        let at = *self.election.at.get_or_insert(now + pause);
        if now >= at {
            self.election.at = Some(now + DEFER);
            return true;
        }
        self.rounds.is_busy()
    }

    /// The founding that these hosts promised to.
    pub(super) fn founding(&mut self, members: Vec<(PeerName, Life, u64)>) -> Step {
        let ring = rand::RngExt::random::<u64>(&mut self.rng).max(1);
        Step::Found(Founding { ring, ranges: self.config.ranges.clone(), members })
    }

    /// The ring that a list of seeds stands for.
    pub(super) fn found_from_seeds(&mut self) {
        let Init::Seed(names) = &self.config.init else { return };
        if self.state.ring.is_some() || names.is_empty() {
            return;
        }
        let mut names = names.clone();
        names.sort_unstable();
        names.dedup();
        let text = format!("rnet seed {:?} {names:?}", self.config.ranges);
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        let ring = hash.as_ref().iter().take(8).fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte)).max(1);
        let members = names.into_iter().map(|name| (name, Life::UNBOUND, 0)).collect();
        let founding = Founding { ring, ranges: self.config.ranges.clone(), members };
        self.state_mut().ring = Some(Arc::new(Ring::found(&founding)));
    }

    /// What the founding waits for.
    pub(super) fn founding_text(&self) -> String {
        let reach = self.near.len();
        match &self.config.init {
            Init::Consensus(hosts) => format!(
                "no address space yet: {} of {hosts} hosts must agree, {} are within reach",
                hosts / 2 + 1,
                reach + 1
            ),
            Init::Seed(_) => "no address space yet: no seeds were named".into(),
            Init::Observer => format!("no address space yet: this host only observes, {reach} others are within reach"),
        }
    }
}
