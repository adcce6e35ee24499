//! Address management for people and scripts: `status ipam` and its JSON.

use super::Ipam;
use super::pending::Wish;
use super::ring::{Owner, Standing};
use super::space::{Run, ip};
use crate::types::{Instant, Network, PeerName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most runs of an owner that are listed.
const RUNS_SHOWN: usize = 64;

/// Everything that can be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IpamStatus {
    /// The whole space.
    pub ranges: Vec<Network>,
    /// What `net:default` means.
    pub default_subnet: Option<Network>,
    /// `waiting for ...`, `ready`, or why nothing can be handed out here now.
    pub state: String,
    /// Whether addresses can be handed out here now.
    pub ready: bool,
    /// Steps decided since the founding.
    pub version: u64,
    /// Of that version: the same on all peers.
    pub fingerprint: String,
    /// Members that count, and how many of them must agree to a change, and how many are within reach (this host included).
    pub members: usize,
    /// See `members`.
    pub quorum: usize,
    /// See `members`.
    pub within_reach: usize,
    /// Who owns what, by name.
    pub owners: Vec<OwnerStatus>,
    /// Addresses that nobody owns yet.
    pub pool: u64,
    /// Addresses of the whole space.
    pub total: u64,
    /// Requests that wait, and why.
    pub waiting: Vec<WaitingStatus>,
    /// Why another address space was not joined with ours, and what to do.
    pub conflict: Option<String>,
    /// Peers of that other address space.
    pub strangers: Vec<PeerName>,
    /// Messages that could not be read.
    pub malformed: u64,
}

/// The part of one peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnerStatus {
    /// Who.
    pub peer: PeerName,
    /// `member`, `away` (its part is set aside until it returns or `rmpeer`), `former` (of an earlier life of it).
    pub standing: String,
    /// Whether it can be reached now.
    pub reachable: bool,
    /// First and last addresses of its runs, the first 64.
    pub runs: Vec<String>,
    /// Addresses that it owns.
    pub total: u64,
    /// Of them in use, as far as is known here.
    pub used: Option<u64>,
}

/// A request that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitingStatus {
    /// The attachment that it is for, if it is for one.
    pub key: Option<String>,
    /// What was asked for.
    pub what: String,
    /// Why it waits.
    pub why: String,
    /// For how long, seconds.
    pub seconds: u64,
}

fn narrow(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl Ipam {
    /// The whole view.
    pub fn status(&self, now: Instant) -> IpamStatus {
        let none = std::collections::BTreeSet::new();
        let space = || self.config.ranges.iter().map(|range| Run::of(*range));
        let total = space().fold(0u128, |sum, run| sum.saturating_add(run.len()));
        let pool =
            self.ring().map_or(total, |ring| space().fold(0, |sum, run| ring.pool_size(run).saturating_add(sum)));
        let state = self.not_yet();
        IpamStatus {
            ranges: self.config.ranges.clone(),
            default_subnet: self.default_subnet(),
            ready: state.is_none(),
            state: state.unwrap_or_else(|| "ready".into()),
            version: self.version().0,
            fingerprint: self.version().1,
            members: self.ring().map_or(0, |ring| ring.voters().count()),
            quorum: self.quorum(&none),
            within_reach: self.within_reach(&none),
            owners: self.owners(),
            pool: narrow(pool),
            total: narrow(total),
            waiting: self.waiting(now),
            conflict: self.merge.conflict.clone(),
            strangers: self.strangers().into_iter().collect(),
            malformed: self.malformed,
        }
    }

    /// Steps decided since the founding, and what identifies the ring that they led to: the same on all peers.
    pub fn version(&self) -> (u64, String) {
        let slot = self.slot();
        (slot.index, format!("{:016x}-{:016x}", slot.ring, slot.hash))
    }

    fn owners(&self) -> Vec<OwnerStatus> {
        let Some(ring) = self.ring() else { return Vec::new() };
        let mut parts: BTreeMap<Owner, (Vec<String>, u128)> = BTreeMap::new();
        let members = ring.members.iter().filter(|(_, m)| m.standing != Standing::Removed);
        for (peer, member) in members {
            parts.insert(Owner { peer: *peer, life: member.life }, Default::default());
        }
        for (start, (last, owner)) in &ring.blocks {
            let (runs, total) = parts.entry(*owner).or_default();
            *total = total.saturating_add(Run { start: *start, last: *last }.len());
            if runs.len() < RUNS_SHOWN {
                runs.push(format!("{}-{}", ip(*start), ip(*last)));
            }
        }
        let status = |(owner, (runs, total)): (Owner, (Vec<String>, u128))| {
            let member = ring.members.get(&owner.peer).filter(|m| m.life == owner.life);
            let me = owner.peer == self.config.me;
            let current = member.is_some_and(|m| m.standing == Standing::Voting);
            let used = if me {
                Some(narrow(self.holdings.used.len() as u128))
            } else {
                self.adopting.usage.get(&owner.peer).copied()
            };
            OwnerStatus {
                peer: owner.peer,
                standing: match member.map(|m| m.standing) {
                    Some(Standing::Voting) => "member",
                    Some(Standing::Away) => "away",
                    _ => "former",
                }
                .into(),
                reachable: current && (me || self.near.contains(&owner.peer)),
                runs,
                total: narrow(total),
                used: used.filter(|_| current),
            }
        };
        parts.into_iter().map(status).collect()
    }

    fn waiting(&self, now: Instant) -> Vec<WaitingStatus> {
        let status = |pending: &super::pending::Pending| {
            let (key, what) = match &pending.wish {
                Wish::Net { key, network } => (Some(key.clone()), format!("net:{network}")),
                Wish::Address { key, address } => (Some(key.clone()), format!("ip:{address}")),
                Wish::Prime => (None, "prime".into()),
                Wish::Remove { peer, .. } => (None, format!("rmpeer {peer}")),
                Wish::Retire => (None, "reset".into()),
            };
            WaitingStatus { key, what, why: pending.why.clone(), seconds: now.since(pending.since).as_secs() }
        };
        self.pending.values().take(1024).map(status).collect()
    }
}
