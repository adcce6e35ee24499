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
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Most links that a record may list.
pub const MAX_LINKS: usize = 1024;
/// Most networks that a record may list.
pub const MAX_NETWORKS: usize = 4096;

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
    }

    fn is_sound(&self) -> bool {
        let me = self.name();
        self.short != ShortId(0)
            && self.networks.len() <= MAX_NETWORKS
            && self.links.len() <= MAX_LINKS
            && self.networks.is_sorted_by(|(a, _), (b, _)| a < b)
            && self.links.is_sorted_by(|a, b| a.peer < b.peer)
            && self.links.iter().all(|link| link.peer != me)
    }

    fn weight(&self) -> usize {
        let lists = self.networks.len() * 24 + self.links.len() * 48;
        128 + self.nickname.as_str().len() + lists
    }
}

/// The topology as we know it.
pub type Peers = Replica<Record>;

impl Replica<Record> {
    /// Everybody that a chain of links leads to from us, ourselves included, whether proven or known to one end only.
    pub fn linked(&self) -> Linked {
        let mut seen = BTreeSet::from([self.name()]);
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
