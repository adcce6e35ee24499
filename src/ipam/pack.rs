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
        if packed.members.len() > MEMBERS_MAX || packed.blocks.len() > BLOCKS_MAX || packed.subnets.len() > SUBNETS_MAX
        {
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

#[cfg(test)]
mod tests {
    use super::super::ring::Life;
    use super::super::space::Run;
    use super::super::steps::Founding;
    use super::*;
    use crate::wire::message::{decode_body, encode_body};
    use proptest::prelude::*;

    fn ring(grants: &[(u8, u8, u8)]) -> Ring {
        let peer = |n: u8| PeerName(crate::types::Mac([2, 0, 0, 0, 0, n]));
        let founding = Founding {
            ring: 9,
            ranges: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/120".parse().unwrap()],
            members: (0..4).map(|n| (peer(n), Life::new(1, 7), 1)).collect(),
        };
        let mut ring = Ring::found(&founding);
        let base = Run::of(founding.ranges[0]).start;
        for (start, len, who) in grants {
            let start = base + u128::from(*start);
            let owner = (*who % 5 < 4).then(|| Owner { peer: peer(*who % 5), life: Life::new(1, 7) });
            ring.assign(Run { start, last: start + u128::from(*len) }, owner);
        }
        ring
    }

    proptest! {
        #[test]
        fn a_ring_survives_both_encodings(grants in prop::collection::vec(any::<(u8, u8, u8)>(), 0..40)) {
            let ring = ring(&grants);
            prop_assert_eq!(decode_body::<Ring>(&encode_body(&ring)), Ok(ring.clone()));
            let json = serde_json::to_string(&ring).unwrap();
            prop_assert_eq!(serde_json::from_str::<Ring>(&json).unwrap(), ring);
        }

        #[test]
        fn every_position_has_its_last_owner(grants in prop::collection::vec(any::<(u8, u8, u8)>(), 0..40)) {
            let ring = ring(&grants);
            let base = Run::of(ring.ranges[0]).start;
            for at in 0u128..512 {
                let hit = |g: &&(u8, u8, u8)| u128::from(g.0) <= at && at <= u128::from(g.0) + u128::from(g.1);
                let last = grants.iter().rev().find(hit).filter(|g| g.2 % 5 < 4);
                prop_assert_eq!(ring.owner(base + at).map(|o| o.peer.0.0[5]), last.map(|g| g.2 % 5));
            }
            let parts: Vec<_> = ring.blocks.iter().collect();
            prop_assert!(parts.windows(2).all(|w| w[0].1.0 < *w[1].0 && (w[0].1.1 != w[1].1.1 || w[0].1.0 + 1 < *w[1].0)));
        }

        #[test]
        fn bytes_of_a_peer_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_body::<Ring>(&bytes);
            let _ = super::super::messages::Message::decode(&bytes);
        }
    }

    #[test]
    fn a_ring_that_lies_is_refused() {
        let packed = |blocks| Packed { blocks, ..Packed::from(ring(&[(0, 1, 1)])) };
        assert!(Ring::try_from(packed(vec![(5, 1, 0)])).is_ok());
        assert!(Ring::try_from(packed(vec![(5, 1, 9)])).is_err(), "no such owner");
        assert!(Ring::try_from(packed(vec![(5, 1, 0), (0, 1, 0)])).is_err(), "blocks overlap");
        assert!(Ring::try_from(packed(vec![(u128::MAX, 1, 0)])).is_err(), "past the end");
    }
}
