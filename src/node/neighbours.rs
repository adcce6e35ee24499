//! What the data plane may answer for: the addresses that were given out, as the claims of reachable peers tell.
//!
//! Owns when the plane's table is made anew, and what follows when an address has moved. New routes make a new table at once,
//! claims at most every 100 ms; a table holds only networks that have a port here, and only peers that data can reach, so
//! that what a dead peer said is not passed on.
//!
//! ```text
//! an address has another MAC than before, elsewhere   announced to our own ports: the caches there are right without a flood
//! a MAC is behind another peer than before            the MAC table forgets it: the next frame goes where the claim says
//! ```
//!
//! Addresses that nobody has are remembered for a while, because one that moves is gone before it comes back. Bounds:
//! `REMEMBERED_MAX` addresses, `ANNOUNCE_MAX` announcements at a time; beyond that the new holder's own, which floods, does it.

use super::Node;
use super::border::Output;
use crate::mesh::claims::Claim;
use crate::plane::Place;
use crate::plane::neighbours::{Known, Neighbours};
use crate::types::{Instant, NetId, PeerName};
use crate::wire::neighbour::announcement;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Claims make a new table not more often than this.
const SPACING: Duration = Duration::from_millis(100);
/// How long the last holder of an address is remembered: others' caches may still name it.
const REMEMBER: Duration = Duration::from_secs(600);
/// Addresses that are remembered.
const REMEMBERED_MAX: usize = 65_536;
/// Announcements that one table brings about.
const ANNOUNCE_MAX: usize = 256;

/// The last undisputed holder of an address.
#[derive(Debug, Clone, Copy)]
struct Last {
    known: Known,
    /// Nobody has it since.
    gone: Option<Instant>,
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Neighbourhood {
    /// What the next Fib holds.
    pub table: Arc<Neighbours>,
    /// Claims or the networks that are open here have changed.
    pub changed: bool,
    at: Option<Instant>,
    last: BTreeMap<(NetId, IpAddr), Last>,
}

impl Neighbourhood {
    /// When a new table is due.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        self.changed.then(|| self.at.map_or(now, |at| at + SPACING))
    }

    /// Takes in a new table; gives those whose MAC or place is another than before, as they were and as they are.
    fn renew(&mut self, table: Neighbours, now: Instant) -> Vec<(Known, Known)> {
        let mut moved = Vec::new();
        for last in self.last.values_mut() {
            last.gone = last.gone.or(Some(now));
        }
        for known in table.iter() {
            let key = (known.network, known.address);
            let room = self.last.len() < REMEMBERED_MAX;
            if let Some(before) = self.last.get_mut(&key) {
                if before.known != known {
                    moved.push((before.known, known));
                }
                *before = Last { known, gone: None };
            } else if room {
                self.last.insert(key, Last { known, gone: None });
            }
        }
        self.last.retain(|_, last| last.gone.is_none_or(|gone| now.since(gone) < REMEMBER));
        self.table = Arc::new(table);
        (self.changed, self.at) = (false, Some(now));
        // The table has no order, and what comes of this must not depend on chance.
        moved.sort_unstable_by_key(|(_, known)| *known);
        moved
    }
}

impl Node {
    /// Makes a new table if one is due, or at once.
    pub(super) fn refresh_neighbours(&mut self, at_once: bool) {
        if !at_once && self.neighbourhood.due(self.now).is_none_or(|due| due > self.now) {
            return;
        }
        let table: Neighbours = self.claims.iter().flat_map(|(peer, set)| self.known_of(peer, &set.claims)).collect();
        let moved = self.neighbourhood.renew(table, self.now);
        self.published.fib_changed = true;
        let mut announced = 0;
        for (before, known) in moved {
            if before.mac == known.mac {
                self.plane.forget_mac(known.network, known.mac);
            } else if announced < ANNOUNCE_MAX && matches!(known.place, Place::Peer(_)) {
                announced += 1;
                self.announce(&known);
            }
        }
    }

    /// What `peer` claims on networks that have a port here, if data can reach it.
    fn known_of<'a>(&'a self, peer: PeerName, claims: &'a [Claim]) -> impl Iterator<Item = Known> + 'a {
        let short = self.published.routes.route(peer).and_then(|route| route.short);
        claims.iter().filter_map(move |claim| {
            let (port, network) = self.attachments.open_port(claim.id)?;
            let place = if peer == self.me { Place::Port(port) } else { Place::Peer(short?) };
            // Another network under the same id is not ours to answer for.
            let known = Known { network: claim.id, address: claim.address.ip(), mac: claim.mac, place };
            (network == claim.network).then_some(known)
        })
    }

    fn announce(&mut self, known: &Known) {
        let bridge = self.attachments.open_port(known.network).map(|(port, _)| port);
        let Some(frame) = announcement(known.address, known.mac) else { return };
        for port in bridge.into_iter().chain(self.attachments.vteps.ports(known.network)) {
            self.out.push_back(Output::Deliver { port, frame: frame.to_vec() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Mac, ShortId};

    fn known(address: u8, mac: u8, peer: u16) -> Known {
        let network = NetId::new(1).unwrap();
        let place = Place::Peer(ShortId(peer));
        Known { network, address: [10, 0, 0, address].into(), mac: Mac([2, 0, 0, 0, 0, mac]), place }
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn renewed(all: &mut Neighbourhood, known: &[Known], seconds: u64) -> Vec<(Known, Known)> {
        all.renew(known.iter().copied().collect(), at(seconds))
    }

    #[test]
    fn an_address_that_was_gone_for_a_while_has_moved() {
        let mut all = Neighbourhood::default();
        let (old, new) = (known(1, 1, 1), known(1, 2, 2));
        assert_eq!(renewed(&mut all, &[old], 0), []);
        assert_eq!(renewed(&mut all, &[old], 1), [], "nothing changed");
        assert_eq!(renewed(&mut all, &[], 2), []);
        assert_eq!(renewed(&mut all, &[], 500), []);
        assert_eq!(renewed(&mut all, &[new], 601), [(old, new)]);
        assert_eq!(renewed(&mut all, &[], 700), []);
        assert_eq!(renewed(&mut all, &[], 1300), []);
        assert_eq!(renewed(&mut all, &[old], 1301), [], "forgotten");
    }

    #[test]
    fn what_two_claim_has_not_moved_until_one_gives_it_up() {
        let mut all = Neighbourhood::default();
        let (old, new) = (known(1, 1, 1), known(1, 2, 2));
        renewed(&mut all, &[old], 0);
        assert_eq!(renewed(&mut all, &[old, new], 1), []);
        assert_eq!(renewed(&mut all, &[new], 2), [(old, new)]);
    }

    #[test]
    fn a_table_is_due_at_once_then_not_for_a_while() {
        let mut all = Neighbourhood { changed: true, ..Neighbourhood::default() };
        assert_eq!(all.due(at(1)), Some(at(1)));
        renewed(&mut all, &[], 1);
        assert_eq!(all.due(at(1)), None);
        all.changed = true;
        assert_eq!(all.due(at(1)), Some(at(1) + SPACING));
    }

    #[test]
    fn memory_is_bounded() {
        let mut all = Neighbourhood::default();
        let many = (0..u32::try_from(REMEMBERED_MAX + 10).unwrap())
            .map(|n| Known { address: IpAddr::from(n.to_be_bytes()), ..known(1, 1, 1) });
        all.renew(many.collect(), at(0));
        assert_eq!(all.last.len(), REMEMBERED_MAX);
        assert_eq!(all.table.len(), REMEMBERED_MAX + 10);
    }
}
