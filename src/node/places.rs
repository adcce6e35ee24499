//! Who gets a link where not all can: the limit of links, and what it must not do.
//!
//! Links carry gossip and floods; a few for each peer are enough, and traffic between others takes paths without links
//! (`direct`). Two rules keep a mesh whole under a limit:
//!
//! - Discovery leaves a quarter of the places free, for those who come later, and dials only peers that say they have room.
//!   Whom of many is a matter of both names, so that a mesh does not fall into cliques.
//! - Somebody whom no chain of links reaches gets in even so: a link goes without which its other end is still reached.
//!   Only where each link is somebody's only one, the newcomer is refused.

use super::Node;
use super::border::LinkId;
use crate::mesh::dialer::Attempt;
use crate::mesh::peers::{LinkRecord, Record};
use crate::types::{PeerName, Target};
use std::collections::{BTreeMap, BTreeSet};

/// Addresses of one peer that discovery dials.
const ADDRESSES_OF_A_PEER: usize = 4;

/// Links that discovery is content with.
fn goal(limit: usize) -> usize {
    limit.saturating_sub((limit / 4).max(1)).max(1)
}

/// Whom a peer likes to be linked with: another order for each, that says nothing else.
fn liking(me: PeerName, peer: PeerName) -> u64 {
    let number = |name: PeerName| name.0.0.iter().fold(0_u64, |sum, octet| (sum << 8) | u64::from(*octet));
    // Multipliers of splitmix64 (Steele, Lea, Flood 2014).
    let mix = number(me).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ number(peer).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mix ^ (mix >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Node {
    /// Tells the dialer where the mesh says that peers are, as many as there are places for.
    pub(super) fn discover(&mut self) {
        if !self.config.discovery || self.stopping {
            return;
        }
        let goal = goal(self.config.connection_limit);
        let places = goal.saturating_sub(self.links.by_peer.len());
        let mut wanted: Vec<PeerName> = Vec::new();
        if places > 0 {
            let asleep: BTreeSet<PeerName> = (self.dialer.entries())
                .filter(|(_, entry)| matches!(entry.attempt, Attempt::Asleep(_)))
                .filter_map(|(_, entry)| entry.peer)
                .collect();
            let has_room = |(name, record): &(PeerName, &Record)| {
                *name != self.me && record.links.len() < goal && self.published.linked.contains(*name)
            };
            let is_new = |name: &PeerName| !self.links.by_peer.contains_key(name) && !asleep.contains(name);
            wanted = self.peers.iter().filter(has_room).map(|(name, _)| name).filter(is_new).collect();
            wanted.sort_by_key(|name| liking(self.me, *name));
            // Some will not be reached, or find others first.
            wanted.truncate(2 * places + 4);
            wanted.extend(self.links.by_peer.keys().copied().chain(asleep));
        }
        let found = self.targets_of(&wanted.into_iter().collect());
        self.dialer.discover(&found, self.now);
    }

    /// Where others reached these peers, and where they say to be.
    fn targets_of(&self, wanted: &BTreeSet<PeerName>) -> BTreeMap<Target, PeerName> {
        let mut found: BTreeMap<Target, PeerName> = BTreeMap::new();
        let mut per_peer: BTreeMap<PeerName, usize> = BTreeMap::new();
        for (name, record) in self.peers.iter().filter(|(name, _)| self.published.linked.contains(*name)) {
            let own = record.addresses.iter().filter(|at| wanted.contains(&name) && self.is_elsewhere(**at));
            found.extend(own.take(ADDRESSES_OF_A_PEER).map(|at| (Target::from_addr(*at), name)));
            let may_dial = |link: &&LinkRecord| wanted.contains(&link.peer) && self.is_elsewhere(link.address);
            for link in record.links.iter().filter(|_| name != self.me).filter(may_dial) {
                let count = per_peer.entry(link.peer).or_default();
                if *count < ADDRESSES_OF_A_PEER && found.insert(Target::from_addr(link.address), link.peer).is_none() {
                    *count += 1;
                }
            }
        }
        found
    }

    /// All places are taken and nobody leads to `peer`: the link that is not needed, if there is one.
    pub(super) fn gives_way_to(&self, peer: PeerName) -> Option<LinkId> {
        let full = self.links.by_peer.len() >= self.config.connection_limit;
        if !full || self.published.linked.contains(peer) {
            return None;
        }
        let neighbours: BTreeSet<PeerName> = self.links.neighbours().map(|(name, _)| name).collect();
        let others = |name: PeerName| self.peers.get(name).map_or(0, |record| record.links.len());
        let spare = neighbours.iter().filter(|name| self.is_reached_by_others(**name, &neighbours));
        let spare = spare.max_by_key(|name| (others(**name), **name))?;
        Some(self.links.up(*spare)?.0)
    }

    /// Whether links that carry data lead from `peer` to another of our neighbours, but not by way of us.
    fn is_reached_by_others(&self, peer: PeerName, neighbours: &BTreeSet<PeerName>) -> bool {
        let established = |from: PeerName, to: PeerName| self.peers.get(from).is_some_and(|r| r.is_established(to));
        let (mut seen, mut queue) = (BTreeSet::from([self.me, peer]), vec![peer]);
        while let Some(at) = queue.pop() {
            for link in self.peers.get(at).map_or(&[][..], |record| &record.links) {
                if link.established && established(link.peer, at) && seen.insert(link.peer) {
                    if neighbours.contains(&link.peer) {
                        return true;
                    }
                    queue.push(link.peer);
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discovery_leaves_places_for_those_who_come_later() {
        let facts = [(1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (100, 75)];
        for (limit, links) in facts {
            assert_eq!(goal(limit), links, "{limit}");
        }
    }
}
