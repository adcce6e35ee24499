//! The 16-bit numbers that stand for peers in datagrams.
//!
//! Each peer picks a number that nobody it knows of has, and publishes it in its record. Two peers that did not know each
//! other may have picked the same one: then the lowest name keeps it, on every peer alike, and the loser picks
//! another as soon as it hears. Until then the loser is not reachable by number, never confused with the winner.

use super::peers::Peers;
use crate::types::{PeerName, ShortId};
use rand::{Rng, RngExt};
use std::collections::{BTreeMap, BTreeSet};

/// Who owns each number: of several claimants the lowest name.
pub fn owners(peers: &Peers) -> BTreeMap<ShortId, PeerName> {
    let mut owners = BTreeMap::new();
    for (name, record) in peers.iter() {
        owners.entry(record.short).and_modify(|owner: &mut PeerName| *owner = (*owner).min(name)).or_insert(name);
    }
    owners
}

/// A number that is not `taken`, at random; nothing if all 65,535 are.
pub fn pick(taken: &BTreeSet<ShortId>, rng: &mut impl Rng) -> Option<ShortId> {
    let start: u16 = rng.random_range(1..=u16::MAX);
    let round = (start..=u16::MAX).chain(1..start);
    round.map(ShortId).find(|id| !taken.contains(id))
}

/// Gives us another number if a lower name has ours. True if it changed: our record is news then.
pub fn settle(peers: &mut Peers, rng: &mut impl Rng) -> bool {
    let ours = peers.me().short;
    let taken: BTreeSet<ShortId> =
        peers.iter().filter(|(name, _)| *name != peers.name()).map(|(_, record)| record.short).collect();
    let lost = ours == ShortId(0) || (taken.contains(&ours) && owners(peers).get(&ours) != Some(&peers.name()));
    match pick(&taken, rng) {
        Some(free) if lost => peers.update_me(|me| me.short = free),
        _ => false,
    }
}
