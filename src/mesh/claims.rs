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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::peers::tests::key;
    use proptest::prelude::*;

    fn name(n: u16) -> PeerName {
        key(n).name()
    }

    fn claim(cidr: &str, host: &str) -> Claim {
        let network: Network = cidr.parse().unwrap();
        Claim::new(network, network.id(), host.parse().unwrap(), Mac([2, 0, 0, 0, 0, 1]), "web")
    }

    fn set(n: u16, version: u64, claims: &[Claim]) -> ClaimSet {
        let mut set = ClaimSet { peer: name(n), uid: Uid(1), version, claims: claims.to_vec() };
        set.tidy();
        set
    }

    #[test]
    fn finds_the_holder_on_that_network_only() {
        let mut claims = Claims::new(set(0, 1, &[claim("10.2.1.0/24", "10.2.1.1/24")]));
        claims.merge(vec![set(1, 1, &[claim("10.2.1.0/24", "10.2.1.2/24"), claim("10.0.0.0/8", "10.2.1.3/8")])]);
        let network: Network = "10.2.1.0/24".parse().unwrap();
        let holders = |ip: &str| {
            claims.holders(ip.parse().unwrap(), network.id()).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(holders("10.2.1.1"), vec![name(0)]);
        assert_eq!(holders("10.2.1.2"), vec![name(1)]);
        assert!(holders("10.2.1.3").is_empty(), "held on another network");
    }

    #[test]
    fn shows_addresses_that_two_peers_took_at_once() {
        let mut claims = Claims::new(set(0, 1, &[claim("10.2.1.0/24", "10.2.1.1/24")]));
        claims.merge(vec![set(1, 1, &[claim("10.2.1.0/24", "10.2.1.1/24"), claim("10.2.1.0/24", "10.2.1.2/24")])]);
        let rivals = claims.rivals();
        assert_eq!(rivals.len(), 1);
        assert_eq!((rivals[0].0, rivals[0].1.address.to_string()), (name(1), "10.2.1.1/24".to_owned()));
    }

    #[test]
    fn names_both_networks_of_one_id() {
        let (a, mut b) = (claim("10.2.1.0/24", "10.2.1.1/24"), claim("10.2.2.0/24", "10.2.2.1/24"));
        b.id = a.id;
        let mut claims = Claims::new(set(0, 1, std::slice::from_ref(&a)));
        assert_eq!(claims.clash(b.network, a.id), Some((name(0), a.network)));
        assert_eq!(claims.clash(a.network, a.id), None);
        assert!(claims.collisions().is_empty());
        claims.merge(vec![set(1, 1, std::slice::from_ref(&b))]);
        let (first, second) = ((name(0), a.network), (name(1), b.network));
        let (first, second) = if first < second { (first, second) } else { (second, first) };
        assert_eq!(claims.collisions(), vec![Collision { id: a.id, first, second }]);
    }

    #[test]
    fn refuses_sets_that_are_not_sound() {
        let good = claim("10.2.1.0/24", "10.2.1.1/24");
        let outside = Claim { network: "10.3.0.0/16".parse().unwrap(), ..good.clone() };
        let escape = Claim { label: "\u{1b}[2J".into(), ..good.clone() };
        let many = (0..5000_u32).map(|n| {
            let [_, _, c, d] = n.to_be_bytes();
            claim("10.0.0.0/8", &format!("10.1.{c}.{d}/8"))
        });
        let mut many = ClaimSet { claims: many.collect(), ..set(1, 1, &[]) };
        many.claims.sort_unstable();
        let twice = ClaimSet { claims: vec![good.clone(), good.clone()], ..set(1, 1, &[]) };
        let bad = vec![set(1, 1, &[outside]), set(1, 1, &[escape]), many, twice];
        let mut claims = Claims::new(ClaimSet::empty(name(0), Uid(1)));
        assert_eq!(claims.merge(bad).refused, 4);
        assert_eq!(claims.merge(vec![set(1, 1, &[good])]).refused, 0);
    }

    #[test]
    fn labels_are_harmless() {
        let claim = Claim::new(
            "10.2.1.0/24".parse().unwrap(),
            NetId::new(1).unwrap(),
            "10.2.1.1/24".parse().unwrap(),
            Mac::default(),
            "a\nb",
        );
        assert_eq!(claim.label(), "a?b");
    }

    fn any_set() -> impl Strategy<Value = ClaimSet> {
        let claims = proptest::collection::vec(
            (1_u8..4).prop_map(|host| claim("10.2.1.0/24", &format!("10.2.1.{host}/24"))),
            0..3,
        );
        (0_u16..4, 0_u64..3, 0_u64..2, claims)
            .prop_map(|(n, version, uid, claims)| ClaimSet { uid: Uid(uid), ..set(n, version, &claims) })
    }

    fn merged(batches: &[&[ClaimSet]]) -> Vec<ClaimSet> {
        let mut claims = Claims::new(ClaimSet::empty(name(9), Uid(1)));
        for batch in batches {
            claims.merge(batch.to_vec());
        }
        claims.iter().map(|(_, set)| set.clone()).collect()
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent(
            a in proptest::collection::vec(any_set(), 0..6),
            b in proptest::collection::vec(any_set(), 0..6),
            c in proptest::collection::vec(any_set(), 0..6),
        ) {
            prop_assert_eq!(merged(&[&a, &b]), merged(&[&b, &a]));
            prop_assert_eq!(merged(&[&a, &a]), merged(&[&a]));
            let (ab, bc) = (merged(&[&a, &b]), merged(&[&b, &c]));
            prop_assert_eq!(merged(&[&ab, &c]), merged(&[&a, &bc]));
        }
    }
}
