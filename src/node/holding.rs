//! Neighbours whose router is away while the kernels go on carrying frames between the two hosts.
//!
//! A router that is killed or replaced leaves its kernel's VXLAN at work. If the other end took back what its kernel carries as soon as
//! the link ends, connections would end with it; so they are held as long as nothing better can be done with these frames:
//!
//! ```text
//! link ends, the kernel carries to it > held      back as a neighbour, and VXLAN chosen again > as ever
//! this router starts and finds entries > held     back, not agreed; 15 s without being chosen > taken back
//!                                                 reachable by another way for 2 s            > taken back, relayed
//!                                                 away for 10 minutes                          > taken back
//! ```
//!
//! What moves or is removed meanwhile is taken back by itself, as for any other neighbour. Nothing new is installed for one that is held.
//! Bound: one for each neighbour that there was; found ones are bounded by what the kernel held.

use super::Node;
use super::border::{HostOp, VxlanPeer};
use crate::plane::Place;
use crate::types::{Instant, Mac, NetId, PeerName};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long somebody may be away.
const AWAY: Duration = Duration::from_secs(600);
/// How long one has that this router never knew.
const FOUND: Duration = Duration::from_secs(60);
/// How long one that is back may take until VXLAN is chosen.
const BACK: Duration = Duration::from_secs(15);
/// How long another way to it has to last: those who lost their links to it too still tell of them.
const ELSEWHERE: Duration = Duration::from_secs(2);

/// One who is away.
#[derive(Debug)]
struct Held {
    address: SocketAddr,
    until: Instant,
    elsewhere: Option<Instant>,
    back: Option<Instant>,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Holding(BTreeMap<PeerName, Held>);

impl Holding {
    /// Whether what the kernel carries to this address of `peer` stays.
    pub fn holds(&self, peer: PeerName, to: SocketAddr) -> bool {
        self.0.get(&peer).is_some_and(|held| held.address == to)
    }

    /// Whom VXLAN is taken from besides the neighbours with which it is agreed.
    pub fn peers(&self) -> impl Iterator<Item = VxlanPeer> + '_ {
        self.0.iter().map(|(peer, held)| VxlanPeer { peer: *peer, address: held.address })
    }

    /// All are over.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn hold(&mut self, peer: PeerName, address: SocketAddr, until: Instant) {
        self.0.insert(peer, Held { address, until, elsewhere: None, back: None });
    }

    fn peer_at(&self, to: SocketAddr) -> Option<PeerName> {
        self.0.iter().find(|(_, held)| held.address == to).map(|(peer, _)| *peer)
    }
}

/// How a held neighbour is doing.
enum Standing {
    /// A neighbour again, VXLAN is agreed, and whether the kernel serves it.
    Back {
        at: SocketAddr,
        served: bool,
    },
    /// A neighbour again, without VXLAN.
    Refused,
    /// No neighbour, but reachable.
    Elsewhere,
    Away,
}

impl Node {
    /// The link to a neighbour ended, whose VXLAN was there: what the kernel carries stays for now.
    pub(super) fn neighbour_left(&mut self, peer: PeerName, address: Option<SocketAddr>) {
        match address.filter(|_| !self.stopping && self.framings.carries_to(peer)) {
            Some(address) => {
                self.holding.hold(peer, address, self.now + AWAY);
                self.log_about(
                    address.ip(),
                    format!("the kernel goes on carrying frames to {peer} without its router"),
                );
            }
            None => self.take_back_of(peer),
        }
    }

    /// A killed router's engine was taken over, with these peers.
    pub(super) fn found_peers(&mut self, peers: Vec<VxlanPeer>) {
        for VxlanPeer { peer, address } in peers {
            self.holding.hold(peer, address, self.now + FOUND);
        }
    }

    /// A killed router had the kernel carry frames for these MACs: whose they are is known, or they are taken back.
    pub(super) fn found_offloads(&mut self, id: NetId, found: Vec<(Mac, SocketAddr)>) {
        for (mac, to) in found {
            match self.holding.peer_at(to) {
                Some(peer) => self.framings.found(id, mac, (peer, to), self.now),
                None => self.change_beside(HostOp::Offload { id, mac, to: None }),
            }
        }
    }

    /// Whether a MAC that is held was seen where its peer is not.
    pub(super) fn is_moved(&self, id: NetId, mac: Mac, peer: PeerName) -> bool {
        let short = self.peers.get(peer).map(|record| record.short);
        match self.plane.place(id, mac, self.now) {
            None => false,
            Some(Place::Port(_)) => true,
            Some(Place::Peer(at)) => short.is_some_and(|short| short != at),
        }
    }

    /// Who is back, away for good, or reachable otherwise is held no more.
    pub(super) fn tend_holding(&mut self) {
        let all: Vec<PeerName> = self.holding.0.keys().copied().collect();
        for peer in all {
            let (standing, now) = (self.whereabouts(peer), self.now);
            let Some(held) = self.holding.0.get_mut(&peer) else { continue };
            let lasts = |since: &mut Option<Instant>, span| now - *since.get_or_insert(now) >= span;
            let over = match standing {
                Standing::Back { at, served: true } if at == held.address => {
                    self.holding.0.remove(&peer);
                    continue;
                }
                Standing::Back { at, .. } => at != held.address || lasts(&mut held.back, BACK),
                Standing::Refused => true,
                Standing::Elsewhere => lasts(&mut held.elsewhere, ELSEWHERE),
                Standing::Away => {
                    (held.elsewhere, held.back) = (None, None);
                    now >= held.until
                }
            };
            if over {
                self.holding.0.remove(&peer);
                self.take_back_of(peer);
            }
        }
    }

    fn whereabouts(&self, peer: PeerName) -> Standing {
        let mut neighbours = self.links.neighbours().filter(|(name, _)| *name == peer);
        let tended = neighbours.find_map(|(_, connected)| connected.tended.as_ref());
        match tended {
            Some(tended) if tended.vxlan.is_none() => Standing::Refused,
            Some(tended) => match tended.vxlan_address() {
                Some(at) => Standing::Back { at, served: tended.path.is_for_kernel() },
                None => Standing::Away,
            },
            None if self.published.linked.contains(peer) => Standing::Elsewhere,
            None => Standing::Away,
        }
    }
}
