//! The ring's compact form, for messages and for the state on disk: a ring of 1,000 peers fits into 100 kB.
//!
//! ```text
//! owners    every (peer, life) that owns a block, once
//! blocks    (gap since the end of the previous block, length - 1, index into owners), ascending by position
//! ```
//! Small numbers are small in both encodings (bincode's variable-length integers, JSON). Unpacking checks what a peer
//! controls: order, overflow, indexes, maxima.

use super::ring::{BLOCKS_MAX, MEMBERS_MAX, Member, Moving, Outcome, Owner, Ring, SUBNETS_MAX, Slot};
use crate::types::{Network, PeerName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// See the head of this file.
#[derive(Serialize, Deserialize)]
pub(super) struct Packed {
    slot: Slot,
    ranges: Vec<Network>,
    members: Vec<(PeerName, Member)>,
    owners: Vec<Owner>,
    blocks: Vec<(u128, u128, u32)>,
    subnets: Vec<Network>,
    forced: Vec<(u64, u64)>,
    guests: Vec<(u64, Outcome)>,
    moving: Option<Moving>,
    attempts: u32,
}

/// Why a packed ring is no ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address ring")]
pub(super) struct NotARing;

impl From<Ring> for Packed {
    fn from(ring: Ring) -> Packed {
        let mut owners: Vec<Owner> = Vec::new();
        let mut index: BTreeMap<Owner, u32> = BTreeMap::new();
        let mut blocks = Vec::with_capacity(ring.blocks.len());
        let mut end = 0u128;
        for (start, (last, owner)) in &ring.blocks {
            let at = *index.entry(*owner).or_insert_with(|| {
                owners.push(*owner);
                u32::try_from(owners.len() - 1).unwrap_or(u32::MAX)
            });
            blocks.push((start - end, last - start, at));
            end = *last;
        }
        Packed {
            slot: ring.slot,
            ranges: ring.ranges,
            members: ring.members.into_iter().collect(),
            owners,
            blocks,
            subnets: ring.subnets.into_iter().collect(),
            forced: ring.forced,
            guests: ring.guests.into_iter().collect(),
            moving: ring.moving,
            attempts: ring.attempts,
        }
    }
}

impl TryFrom<Packed> for Ring {
    type Error = NotARing;
    fn try_from(packed: Packed) -> Result<Ring, NotARing> {
        if packed.members.len() > MEMBERS_MAX || packed.blocks.len() > BLOCKS_MAX || packed.subnets.len() > SUBNETS_MAX {
            return Err(NotARing);
        }
        let mut blocks = BTreeMap::new();
        let mut end = 0u128;
        for (gap, length, owner) in packed.blocks {
            let start = end.checked_add(gap).ok_or(NotARing)?;
            let last = start.checked_add(length).ok_or(NotARing)?;
            let owner = usize::try_from(owner).ok().and_then(|at| packed.owners.get(at)).ok_or(NotARing)?;
            if !blocks.is_empty() && gap == 0 {
                return Err(NotARing);
            }
            blocks.insert(start, (last, *owner));
            end = last;
        }
        Ok(Ring {
            slot: packed.slot,
            ranges: packed.ranges,
            members: packed.members.into_iter().collect(),
            blocks,
            subnets: packed.subnets.into_iter().collect(),
            forced: packed.forced,
            guests: packed.guests.into_iter().collect(),
            moving: packed.moving,
            attempts: packed.attempts,
        })
    }
}
