//! Who has which address: what each peer says about the attachments on its host.
//!
//! Replicated like the topology, on a gossip channel of its own, so that an attach is refused when somebody
//! else in the mesh has the address, and a network is refused when its id already means another network. Nothing here
//! allocates addresses, and two hosts that claim one address at the same moment both succeed: `rivals` shows it.

use super::replica::{Item, Replica, Stamp};
use crate::types::{HostAddress, Mac, NetId, Network, Nickname, PeerName, Uid};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Most claims of one peer.
pub const MAX_CLAIMS: usize = 4096;
/// Longest label, bytes.
pub const MAX_LABEL: usize = 256;

/// One address of one attachment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// The network's id.
    pub id: NetId,
    /// The address, which lies in `network`.
    pub address: HostAddress,
    /// The network.
    pub network: Network,
    /// The interface that has it.
    pub mac: Mac,
    /// The attachment, for people: at most 64 printable characters.
    label: String,
}

impl Claim {
    /// A claim; anything but printable characters in `label` is replaced, and it is cut to 64 characters.
    pub fn new(network: Network, id: NetId, address: HostAddress, mac: Mac, label: &str) -> Claim {
        Claim { network, id, address, mac, label: Nickname::new(label).as_str().to_owned() }
    }

    /// The attachment, for people.
    pub fn label(&self) -> &str {
        &self.label
    }
}

/// All claims of one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimSet {
    /// Whose they are.
    pub peer: PeerName,
    /// The run that wrote them.
    pub uid: Uid,
    /// Grows with each change.
    pub version: u64,
    /// Ascending by network id and address, each pair once, at most [`MAX_CLAIMS`].
    pub claims: Vec<Claim>,
}

impl ClaimSet {
    /// No claims yet.
    pub fn empty(peer: PeerName, uid: Uid) -> ClaimSet {
        ClaimSet { peer, uid, version: 1, claims: Vec::new() }
    }
}

impl Item for ClaimSet {
    fn name(&self) -> PeerName {
        self.peer
    }

    fn stamp(&self) -> Stamp {
        Stamp { version: self.version, uid: self.uid }
    }

    fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    fn rank(&self, other: &ClaimSet) -> Ordering {
        self.stamp().cmp(&other.stamp()).then_with(|| self.claims.cmp(&other.claims))
    }

    fn same_owner(&self, _: &ClaimSet) -> bool {
        true
    }

    fn tidy(&mut self) {
        self.claims.sort_unstable();
        self.claims.dedup_by_key(|claim| (claim.id, claim.address.ip()));
        self.claims.truncate(MAX_CLAIMS);
    }

    fn is_sound(&self) -> bool {
        let clean =
            |claim: &Claim| claim.label.len() <= MAX_LABEL && Nickname::new(&claim.label).as_str() == claim.label;
        self.claims.len() <= MAX_CLAIMS
            && self.claims.is_sorted_by(|a, b| (a.id, a.address) < (b.id, b.address))
            && self.claims.iter().all(|claim| claim.network.contains(claim.address.ip()) && clean(claim))
    }

    fn weight(&self) -> usize {
        let claims: usize = self.claims.iter().map(|claim| 96 + claim.label.len()).sum();
        96 + claims
    }
}

/// Two networks under one id: frames of one would come out on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Collision {
    /// The id.
    pub id: NetId,
    /// The network that the peer of the lower name (then the lower CIDR) uses it for, and that peer.
    pub first: (PeerName, Network),
    /// Another network that uses it, and who has it.
    pub second: (PeerName, Network),
}

/// Who has which address, as we know it.
pub type Claims = Replica<ClaimSet>;

impl Replica<ClaimSet> {
    /// Who has `ip` on the network `id`, ourselves included.
    pub fn holders(&self, ip: IpAddr, id: NetId) -> Vec<(PeerName, &Claim)> {
        self.each().filter(|(_, claim)| claim.id == id && claim.address.ip() == ip).collect()
    }

    /// Those of our addresses that somebody else has too.
    pub fn rivals(&self) -> Vec<(PeerName, &Claim)> {
        let ours = |claim: &Claim| {
            self.me().claims.iter().any(|own| (own.id, own.address.ip()) == (claim.id, claim.address.ip()))
        };
        self.each().filter(|(name, claim)| *name != self.name() && ours(claim)).collect()
    }

    /// Somebody who uses the id of `network` for another one, and that one: `network` must not be opened under it.
    pub fn clash(&self, network: Network, id: NetId) -> Option<(PeerName, Network)> {
        self.each()
            .find(|(_, claim)| claim.id == id && claim.network != network)
            .map(|(name, claim)| (name, claim.network))
    }

    /// All ids that stand for more than one network, each named once.
    pub fn collisions(&self) -> Vec<Collision> {
        let mut uses: BTreeMap<NetId, Vec<(PeerName, Network)>> = BTreeMap::new();
        for (name, claim) in self.each() {
            uses.entry(claim.id).or_default().push((name, claim.network));
        }
        let mut collisions = Vec::new();
        for (id, mut users) in uses {
            users.sort_unstable();
            let Some(first) = users.first().copied() else { continue };
            let second = users.into_iter().find(|(_, network)| *network != first.1);
            collisions.extend(second.map(|second| Collision { id, first, second }));
        }
        collisions
    }

    fn each(&self) -> impl Iterator<Item = (PeerName, &Claim)> {
        self.iter().flat_map(|(name, set)| set.claims.iter().map(move |claim| (name, claim)))
    }
}
