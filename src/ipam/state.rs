//! What survives a restart, and what a start makes of it.
//!
//! Everything that this peer ever promised to others is in here, which is why every output waits for it: its place in
//! the ring, its votes, and the addresses that its attachments hold. `boot` grows at every start, before anything is sent:
//! the ring counts only the newest start of a peer in, so whatever an older one sent is void by then.

use super::IpamConfig;
use super::ring::{Life, Ring, Slot};
use super::rounds::Ballot;
use super::steps::Step;
use crate::types::{HostAddress, Network, PeerName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Layout of [`IpamState`].
const VERSION: u32 = 1;

/// What this peer promised in the round for the step after `slot`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Vote {
    /// The ring that the step changes.
    pub slot: Slot,
    /// Nothing below this ballot.
    pub promised: Ballot,
    /// Accepted last.
    pub accepted: Option<(Ballot, Step)>,
}

impl Vote {
    /// Nothing promised yet.
    pub(super) fn fresh(slot: Slot) -> Vote {
        Vote { slot, promised: Ballot::default(), accepted: None }
    }
}

/// Opaque to the driver: one value to store as JSON and to give back at the next start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IpamState {
    /// Layout of this struct; 1.
    pub version: u32,
    pub(super) me: PeerName,
    pub(super) ranges: Vec<Network>,
    pub(super) life: Life,
    pub(super) boot: u64,
    pub(super) ring: Option<Arc<Ring>>,
    pub(super) vote: Vote,
    pub(super) held: BTreeMap<String, Vec<HostAddress>>,
}

impl IpamState {
    /// The state of a start: the stored one with the next boot number, or a fresh one. With a line for the log if what was
    /// stored could not be used whole.
    pub(super) fn start(stored: Option<IpamState>, config: &IpamConfig, mark: u32) -> (IpamState, Option<String>) {
        let fresh = |life| IpamState {
            version: VERSION,
            me: config.me,
            ranges: config.ranges.clone(),
            life,
            boot: 1,
            ring: None,
            vote: Vote::fresh(Slot::NONE),
            held: BTreeMap::new(),
        };
        let first = Life::new(1, mark);
        match stored {
            None => (fresh(first), None),
            Some(state) if state.version != VERSION => {
                let line = format!(
                    "addresses: the stored state has layout {} and this release reads {VERSION}: starting without it",
                    state.version
                );
                (fresh(first), Some(line))
            }
            Some(state) if state.me == config.me && state.ranges == config.ranges => {
                let boot = state.boot.saturating_add(1);
                (IpamState { boot, ..state }, None)
            }
            Some(state) => {
                let why = if state.me == config.me { "the address range changed" } else { "this host's name changed" };
                let line = format!("addresses: {why}: attachments keep what they have, the rest starts afresh");
                (IpamState { held: state.held, ..fresh(first.after(state.life)) }, Some(line))
            }
        }
    }
}
