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
    let (ours, me) = (peers.me().short, peers.name());
    // Asked whenever somebody told something.
    if ours != ShortId(0) && peers.iter().all(|(name, record)| record.short != ours || name >= me) {
        return false;
    }
    let taken: BTreeSet<ShortId> =
        peers.iter().filter(|(name, _)| *name != me).map(|(_, record)| record.short).collect();
    match pick(&taken, rng) {
        Some(free) => peers.update_me(|me| me.short = free),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::peers::Record;
    use crate::mesh::peers::tests::record;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn two_with_one_number() -> (Peers, Peers) {
        let (a, b) = (record(0, &[]), record(1, &[]));
        let b = Record { short: a.short, ..b };
        let (low, high) = if a.name() < b.name() { (a, b) } else { (b, a) };
        let (mut winner, mut loser) = (Peers::new(low.clone()), Peers::new(high.clone()));
        winner.merge(vec![high]);
        loser.merge(vec![low]);
        (winner, loser)
    }

    #[test]
    fn lowest_name_keeps_a_contested_number() {
        let (mut winner, mut loser) = two_with_one_number();
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!(owners(&winner), owners(&loser));
        assert_eq!(owners(&winner).get(&winner.me().short), Some(&winner.name()));
        assert!(!settle(&mut winner, &mut rng));
        assert!(settle(&mut loser, &mut rng));
        assert_ne!(winner.me().short, loser.me().short);
        assert_eq!(loser.me().version, 2, "the new number is news");
        assert!(!settle(&mut loser, &mut rng), "settled once and for all");
    }

    #[test]
    fn everybody_ends_with_a_number_of_its_own() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut all: Vec<Peers> =
            (0..40).map(|n| Peers::new(Record { short: ShortId(1 + n % 3), ..record(n, &[]) })).collect();
        for _ in 0..10 {
            let told: Vec<Record> = all.iter().map(|peers| peers.me().clone()).collect();
            for peers in &mut all {
                peers.merge(told.clone());
                settle(peers, &mut rng);
            }
        }
        assert_eq!(owners(&all[0]).len(), 40);
    }

    #[test]
    fn picks_the_last_free_number_and_none_when_there_is_none() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut taken: BTreeSet<ShortId> = (1..=u16::MAX).map(ShortId).collect();
        assert_eq!(pick(&taken, &mut rng), None);
        taken.remove(&ShortId(4711));
        assert_eq!(pick(&taken, &mut rng), Some(ShortId(4711)));
        taken.clear();
        assert_ne!(pick(&taken, &mut rng), Some(ShortId(0)));
    }
}
