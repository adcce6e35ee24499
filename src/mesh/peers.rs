//! The topology: what each peer says about itself, its networks and its links.
//!
//! A record belongs to a key; the peer's name is derived from the key and never sent, so a record cannot
//! claim another's name. Two keys with one name (46 bits of a hash) are a collision: the lower key keeps the
//! name on every replica alike, and `Merged::collisions` says so.
//!
//! How records are merged, bounded and collected is `replica`'s; who is told is `gossip`'s.

use super::replica::{Item, Linked, Replica, Stamp};
use crate::types::{NetId, Network, Nickname, PeerName, PublicKey, ShortId, Uid};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::net::SocketAddr;

/// Most links that a record may list.
pub const MAX_LINKS: usize = 1024;
/// Most networks that a record may list.
pub const MAX_NETWORKS: usize = 4096;
/// Most addresses that a record may list.
pub const MAX_ADDRESSES: usize = 8;

/// What a peer says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whom it is about.
    pub key: PublicKey,
    /// The run that wrote it.
    pub uid: Uid,
    /// Grows with each change.
    pub version: u64,
    /// The host's name.
    pub nickname: Nickname,
    /// The peer's number in datagrams; never 0.
    pub short: ShortId,
    /// Networks that it has ports on, ascending by id, at most [`MAX_NETWORKS`].
    pub networks: Vec<(NetId, Network)>,
    /// Its links, ascending by peer, at most [`MAX_LINKS`].
    pub links: Vec<LinkRecord>,
    /// Where its datagrams may be sent to, as it believes itself: at most [`MAX_ADDRESSES`], the surest first.
    pub addresses: Vec<SocketAddr>,
}

/// One end's view of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkRecord {
    /// The other end.
    pub peer: PeerName,
    /// The other end's address as seen from this one; worth dialling if `outbound`.
    pub address: SocketAddr,
    /// Whether this end dialled.
    pub outbound: bool,
    /// Whether the path beside it is proven in both directions, as this end knows.
    pub established: bool,
    /// Round-trip time, microseconds; 0 while unknown. A change of it is a new version for the whole mesh: quantise it.
    pub rtt_us: u32,
    /// The largest UDP payload that gets through from this end, bytes; 0 while unknown. It changes seldom: only a settled one
    /// is told.
    pub mtu: u16,
    /// Where the other end's datagrams come from as this end sees it, while `established`: what a translator (NAT) made of its
    /// address.
    pub seen: Option<SocketAddr>,
    /// What the path costs by its delay, jitter and loss, as this end measures them, microseconds; see `cost`. 0 while unknown, and
    /// where it is near.
    pub cost: u32,
}

impl Record {
    /// The name that belongs to its key. Computes a hash.
    pub fn name(&self) -> PeerName {
        self.key.name()
    }

    /// Whether it lists a proven link to `peer`.
    pub fn is_established(&self, peer: PeerName) -> bool {
        let found = self.links.binary_search_by(|link| link.peer.cmp(&peer)).ok();
        found.and_then(|at| self.links.get(at)).is_some_and(|link| link.established)
    }

    /// Whether it has a port on `network`.
    pub fn is_on(&self, network: NetId) -> bool {
        self.networks.binary_search_by(|(id, _)| id.cmp(&network)).is_ok()
    }
}

impl Item for Record {
    fn name(&self) -> PeerName {
        self.key.name()
    }

    fn stamp(&self) -> Stamp {
        Stamp { version: self.version, uid: self.uid }
    }

    fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    fn rank(&self, other: &Record) -> Ordering {
        // The lower key first: a collision is then settled alike everywhere, whatever the versions do.
        let content = |record: &Record| (record.nickname.clone(), record.short);
        (other.key.cmp(&self.key))
            .then_with(|| self.stamp().cmp(&other.stamp()))
            .then_with(|| content(self).cmp(&content(other)))
            .then_with(|| self.networks.cmp(&other.networks))
            .then_with(|| self.links.cmp(&other.links))
            .then_with(|| self.addresses.cmp(&other.addresses))
    }

    fn same_owner(&self, other: &Record) -> bool {
        self.key == other.key
    }

    fn tidy(&mut self) {
        let me = self.name();
        self.networks.sort_unstable();
        self.networks.dedup_by_key(|(id, _)| *id);
        self.networks.truncate(MAX_NETWORKS);
        // Of two links to one peer the proven one counts.
        self.links.retain(|link| link.peer != me);
        self.links.sort_unstable_by_key(|link| (link.peer, !link.established, link.address));
        self.links.dedup_by_key(|link| link.peer);
        self.links.truncate(MAX_LINKS);
        self.addresses.truncate(MAX_ADDRESSES);
    }

    fn is_sound(&self) -> bool {
        let me = self.name();
        self.short != ShortId(0)
            && self.networks.len() <= MAX_NETWORKS
            && self.links.len() <= MAX_LINKS
            && self.addresses.len() <= MAX_ADDRESSES
            && self.networks.is_sorted_by(|(a, _), (b, _)| a < b)
            && self.links.is_sorted_by(|a, b| a.peer < b.peer)
            && self.links.iter().all(|link| link.peer != me)
    }

    fn weight(&self) -> usize {
        let lists = self.networks.len() * 24 + self.links.len() * 72 + self.addresses.len() * 20;
        128 + self.nickname.as_str().len() + lists
    }
}

/// The topology as we know it.
pub type Peers = Replica<Record>;

impl Replica<Record> {
    /// Everybody that a chain of links leads to from us, ourselves included, whether proven or known to one end only.
    pub fn linked(&self) -> Linked {
        let mut seen: HashSet<PeerName, foldhash::fast::RandomState> = HashSet::from_iter([self.name()]);
        let mut queue = vec![self.name()];
        while let Some(name) = queue.pop() {
            for link in self.get(name).map_or(&[][..], |record| &record.links) {
                if seen.insert(link.peer) {
                    queue.push(link.peer);
                }
            }
        }
        seen.into_iter().collect()
    }

    /// The key under which `name` is known.
    pub fn key(&self, name: PeerName) -> Option<PublicKey> {
        self.get(name).map(|record| record.key)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::mesh::replica::Merged;
    use crate::types::Instant;
    use proptest::prelude::*;
    use std::time::Duration;

    /// The key of peer `n`; names are its hashes and so in no particular order.
    pub(crate) fn key(n: u16) -> PublicKey {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        PublicKey(key)
    }

    pub(crate) fn link(to: u16, established: bool) -> LinkRecord {
        let address = SocketAddr::from(([10, 0, to.to_be_bytes()[0], to.to_be_bytes()[1]], 6783));
        LinkRecord {
            peer: key(to).name(),
            address,
            outbound: true,
            established,
            rtt_us: 0,
            mtu: 0,
            seen: None,
            cost: 0,
        }
    }

    /// Peer `n` with number n + 1 and links to `to`.
    pub(crate) fn record(n: u16, to: &[(u16, bool)]) -> Record {
        let mut record = Record {
            key: key(n),
            uid: Uid(u64::from(n)),
            version: 1,
            nickname: Nickname::new(&format!("host{n}")),
            short: ShortId(n + 1),
            networks: Vec::new(),
            links: to.iter().map(|(to, established)| link(*to, *established)).collect(),
            addresses: Vec::new(),
        };
        record.tidy();
        record
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let links = proptest::collection::vec((0_u16..5, any::<bool>()), 0..4);
        (0_u16..4, 0_u64..3, 0_u64..3, 1_u16..3, links).prop_map(|(n, uid, version, short, links)| Record {
            uid: Uid(uid),
            version,
            short: ShortId(short),
            ..record(n, &links)
        })
    }

    fn merged(batches: &[&[Record]]) -> Vec<Record> {
        let mut peers = Peers::new(record(9, &[]));
        for batch in batches {
            peers.merge(batch.to_vec());
        }
        peers.iter().map(|(_, record)| record.clone()).collect()
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_and_idempotent(
            a in proptest::collection::vec(any_record(), 0..6),
            b in proptest::collection::vec(any_record(), 0..6),
            c in proptest::collection::vec(any_record(), 0..6),
        ) {
            prop_assert_eq!(merged(&[&a, &b]), merged(&[&b, &a]));
            prop_assert_eq!(merged(&[&a, &a]), merged(&[&a]));
            let ab = merged(&[&a, &b]);
            let bc = merged(&[&b, &c]);
            prop_assert_eq!(merged(&[&ab, &c]), merged(&[&a, &bc]));
        }

        #[test]
        fn news_are_exactly_what_changed(
            a in proptest::collection::vec(any_record(), 0..6),
            b in proptest::collection::vec(any_record(), 0..6),
        ) {
            let mut peers = Peers::new(record(9, &[]));
            peers.merge(a);
            let before = peers.clone();
            let news = peers.merge(b).news;
            for (name, record) in peers.iter() {
                prop_assert_eq!(news.contains(&name), before.get(name) != Some(record));
            }
        }

        #[test]
        fn our_own_word_about_us_wins_in_the_end(stale in proptest::collection::vec(any_record(), 0..6), version in 0_u64..3) {
            let mut me = Peers::new(Record { uid: Uid(1), version, ..record(0, &[]) });
            let mut other = Peers::new(record(9, &[]));
            other.merge(stale.clone());
            me.merge(other.iter().map(|(_, record)| record.clone()).collect());
            other.merge(vec![me.me().clone()]);
            prop_assert_eq!(other.get(me.name()), Some(me.me()));
        }
    }

    #[test]
    fn bumps_past_what_others_remember_of_an_earlier_run() {
        let mut peers = Peers::new(Record { uid: Uid(77), ..record(0, &[]) });
        let before = Record { version: 57, ..record(0, &[(1, true)]) };
        let result = peers.merge(vec![before.clone()]);
        assert_eq!((result.contested_by, result.news), (Some(Uid(0)), vec![key(0).name()]));
        assert_eq!((peers.me().version, peers.me().uid), (58, Uid(77)));
        assert_eq!(peers.merge(vec![before]), Merged::default(), "an echo is not another contest");
    }

    #[test]
    fn same_stamp_with_other_content_is_contested() {
        let mut peers = Peers::new(record(0, &[]));
        assert!(!peers.merge(vec![record(0, &[])]).me_contested());
        assert!(peers.merge(vec![record(0, &[(1, true)])]).me_contested());
        assert_eq!(peers.me().version, 2);
    }

    #[test]
    fn refuses_records_that_are_not_sound() {
        let good = record(1, &[(2, true), (3, false)]);
        let mut unsorted = good.clone();
        unsorted.links.reverse();
        let mut twice = good.clone();
        twice.links.push(*twice.links.last().unwrap());
        let mut to_itself = good.clone();
        to_itself.links = vec![link(1, true)];
        let mut many = good.clone();
        many.links = (2..2000).map(|n| link(n, true)).collect();
        many.links.sort();
        let mut networks = good.clone();
        let network: Network = "10.2.1.0/24".parse().unwrap();
        networks.networks = vec![(network.id(), network), (network.id(), network)];
        let bad = vec![
            Record { short: ShortId(0), ..good.clone() },
            Record { version: u64::MAX, ..good.clone() },
            unsorted,
            twice,
            to_itself,
            many,
            networks,
        ];
        let mut peers = Peers::new(record(0, &[]));
        let count = bad.len();
        let result = peers.merge(bad);
        assert_eq!((result.refused, result.news.len(), peers.count()), (count, 0, 1));
        assert_eq!(peers.refused(), 7);
        assert_eq!(peers.merge(vec![good]).news.len(), 1);
    }

    #[test]
    fn own_record_is_tidied_and_versioned_by_change() {
        let mut peers = Peers::new(record(0, &[]));
        assert!(!peers.update_me(|_| ()));
        assert!(peers.update_me(|me| me.links = vec![link(2, false), link(1, true), link(2, true), link(0, true)]));
        assert!(peers.me().is_sound());
        assert_eq!((peers.me().version, peers.me().links.len()), (2, 2));
        assert!(peers.me().is_established(key(2).name()), "the proven one of two links counts");
    }

    #[test]
    fn memory_is_bounded_whatever_is_told() {
        use crate::mesh::replica::{MAX_PEERS, MAX_WEIGHT};
        let mut peers = Peers::new(record(0, &[]));
        let links: Vec<_> = (1..=1000).map(|n| (n, true)).collect();
        let fat = record(0, &links);
        let (mut weight, mut refused) = (0, 0);
        for n in 1..u16::try_from(MAX_PEERS).unwrap() + 100 {
            let mut record = Record { key: key(n), short: ShortId(n), ..fat.clone() };
            record.tidy();
            weight += record.weight();
            refused += peers.merge(vec![record]).refused;
        }
        assert!(weight > 10 * MAX_WEIGHT && refused > MAX_PEERS / 2);
        assert!(peers.iter().skip(1).map(|(_, record)| record.weight()).sum::<usize>() <= MAX_WEIGHT);
        let mut peers = Peers::new(record(0, &[]));
        let many: Vec<Record> = (1..u16::try_from(MAX_PEERS).unwrap() + 100).map(|n| record(n, &[])).collect();
        assert_eq!(peers.merge(many).refused, 99);
        assert_eq!(peers.count(), MAX_PEERS + 1);
    }

    #[test]
    fn follows_links_that_only_one_end_reports() {
        let mut peers = Peers::new(record(0, &[(1, false)]));
        peers.merge(vec![record(1, &[(2, false)]), record(3, &[(0, true)])]);
        let linked = peers.linked();
        assert!(linked.contains(key(2).name()), "a peer is linked before its record arrives");
        assert!(!linked.contains(key(3).name()));
        assert_eq!(linked.names().len(), 3);
    }

    #[test]
    fn collects_only_who_stays_unlinked_for_the_grace_time() {
        let second = |n: u64| Instant::ZERO + Duration::from_secs(n);
        let mut peers = Peers::new(record(0, &[(1, true)]));
        peers.merge(vec![record(1, &[]), record(2, &[]), record(3, &[])]);
        let collect = |peers: &mut Peers, at| {
            let linked = peers.linked();
            peers.collect(&linked, second(at))
        };
        assert!(collect(&mut peers, 0).is_empty());
        peers.merge(vec![Record { version: 2, ..record(1, &[(2, true)]) }]);
        assert!(collect(&mut peers, 20).is_empty());
        peers.merge(vec![Record { version: 3, ..record(1, &[]) }]);
        assert!(collect(&mut peers, 30).is_empty());
        assert_eq!(collect(&mut peers, 31), vec![key(3).name()]);
        assert!(collect(&mut peers, 60).is_empty(), "2 was linked at 20 and is counted from 30 on");
        assert_eq!(collect(&mut peers, 61), vec![key(2).name()]);
        assert_eq!(peers.count(), 2);
    }

    #[test]
    fn does_not_tell_of_peers_that_nobody_reaches() {
        let mut peers = Peers::new(record(0, &[(1, true)]));
        peers.merge(vec![record(1, &[]), record(2, &[])]);
        let linked = peers.linked();
        assert_eq!(peers.digest(&linked).len(), 2);
    }

    #[test]
    fn digests_tell_both_directions_apart() {
        let newer = Record { version: 5, ..record(1, &[]) };
        let mut ours = Peers::new(record(0, &[(1, true), (2, true)]));
        ours.merge(vec![newer, record(2, &[])]);
        let mut theirs = Peers::new(record(2, &[(0, true), (1, true), (3, true)]));
        theirs.merge(vec![record(0, &[(1, true), (2, true)]), record(1, &[]), record(3, &[])]);
        let diff = ours.diff(&theirs.digest(&theirs.linked()));
        assert_eq!(diff.they_lack, vec![key(1).name()]);
        assert!(diff.we_lack, "they know 3, and more of themselves");
        let same = ours.digest(&ours.linked());
        assert_eq!(ours.diff(&same), Default::default());
        assert_ne!(same.summary(), theirs.digest(&theirs.linked()).summary());
    }
}
