//! A replicated state: one item per peer, written by that peer alone, held by everybody.
//!
//! Items are joined by a total order (`Item::rank`: in the end the version, then the uid), so that merging is commutative,
//! associative and idempotent, and replicas that have seen the same items are equal. Our own item is the exception:
//! nobody else's word replaces it. When somebody holds a newer one about us (we restarted and lost our version), we outbid
//! its version, and the owner's word wins again everywhere.
//!
//! Whether a peer is still worth telling about is the topology's matter (`Linked`): items of peers that no chain of links
//! reaches are left out of digests, so that they are not resurrected by those who have not collected them yet, and
//! are collected after `GRACE`.
//!
//! Bounds: at most `MAX_PEERS` items of at most `MAX_WEIGHT` bytes together; what does not fit is refused and counted.
//! Items are not signed: a member of the mesh can lie about another one, and only the owner's next word mends it.

use crate::types::{Instant, PeerName, Uid};
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most other peers that are remembered.
pub const MAX_PEERS: usize = 16_384;
/// Most memory that the items of others may take together, bytes (see [`Item::weight`]).
pub const MAX_WEIGHT: usize = 64 << 20;
/// Largest version that is believed: leaves room to bump past it.
pub const MAX_VERSION: u64 = 1 << 62;
/// How often in a row, and once a second after that, we outbid somebody's word about us. Two routers with one key would
/// otherwise keep the whole mesh busy.
const OUTBIDS: u8 = 3;
/// How long a peer that no chain of links reaches is remembered.
pub const GRACE: Duration = Duration::from_secs(30);

/// How new an item is: its owner's counter, then which run of the owner wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Grows with each change that the owner makes.
    pub version: u64,
    /// The owner's run.
    pub uid: Uid,
}

/// What one peer says about itself.
pub trait Item: Clone + Eq {
    /// Whose it is.
    fn name(&self) -> PeerName;
    /// How new it is.
    fn stamp(&self) -> Stamp;
    /// Replaces the version.
    fn set_version(&mut self, version: u64);
    /// A total order over all items of one name: the greater one wins. Equal only for equal items.
    fn rank(&self, other: &Self) -> Ordering;
    /// Whether both were written by holders of the same key.
    fn same_owner(&self, other: &Self) -> bool;
    /// Brings an item that this process wrote into the form that `is_sound` demands (sorted, within the limits).
    fn tidy(&mut self);
    /// Whether an item from elsewhere is believable by itself: bounded, consistent.
    fn is_sound(&self) -> bool;
    /// Bytes that it takes in memory; never less than in a message.
    fn weight(&self) -> usize;
}

/// The peers that a chain of links, proven or not, leads to from here. See `Peers::linked`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Linked(Vec<PeerName>);

impl Linked {
    /// Whether `name` is among them.
    pub fn contains(&self, name: PeerName) -> bool {
        self.0.binary_search(&name).is_ok()
    }

    /// All of them, ascending.
    pub fn names(&self) -> &[PeerName] {
        &self.0
    }
}

impl FromIterator<PeerName> for Linked {
    fn from_iter<I: IntoIterator<Item = PeerName>>(names: I) -> Linked {
        let mut names: Vec<PeerName> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        Linked(names)
    }
}

/// Names and stamps of all items worth telling about: 10 to 23 bytes each in a message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest(Vec<(PeerName, Stamp)>);

impl Digest {
    /// Number of items.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it names nobody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first 64 bits of SHA-256 over all of it: equal digests have equal summaries on every host.
    pub fn summary(&self) -> u64 {
        let mut hash = digest::Context::new(&digest::SHA256);
        for (name, stamp) in &self.0 {
            hash.update(&name.0.0);
            hash.update(&stamp.version.to_be_bytes());
            hash.update(&stamp.uid.0.to_be_bytes());
        }
        let first = hash.finish().as_ref().first_chunk::<8>().copied();
        first.map_or(0, u64::from_be_bytes)
    }
}

/// What [`Replica::diff`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Of these we have something newer.
    pub they_lack: Vec<PeerName>,
    /// They have something newer than we.
    pub we_lack: bool,
}

/// What [`Replica::merge`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// Whose items changed here: to be passed on. Ourselves too if we outbid somebody's word about us.
    pub news: Vec<PeerName>,
    /// Somebody held a newer item about us, or another one of the same stamp, written by this run. Now and then after a
    /// restart; if it keeps coming with a uid that is not ours, another router runs with our key.
    pub contested_by: Option<Uid>,
    /// Names under which two keys are known, ours included.
    pub collisions: Vec<PeerName>,
    /// Items that were refused: not sound, or beyond the bounds.
    pub refused: usize,
}

impl Merged {
    /// Somebody held another item about us.
    pub fn me_contested(&self) -> bool {
        self.contested_by.is_some()
    }
}

#[derive(Debug, Clone)]
struct Held<T> {
    item: T,
    unlinked_since: Option<Instant>,
}

/// See the head of this file.
#[derive(Debug, Clone)]
pub struct Replica<T> {
    name: PeerName,
    mine: T,
    others: BTreeMap<PeerName, Held<T>>,
    weight: usize,
    refused: u64,
    outbids: u8,
    /// A version about us that others hold and we have not outbid yet.
    outbid: Option<u64>,
}

impl<T: Item> Replica<T> {
    /// A replica that knows only us.
    pub fn new(mut me: T) -> Replica<T> {
        me.tidy();
        let name = me.name();
        Replica { name, mine: me, others: BTreeMap::new(), weight: 0, refused: 0, outbids: OUTBIDS, outbid: None }
    }

    /// Our name.
    pub fn name(&self) -> PeerName {
        self.name
    }

    /// Our own item.
    pub fn me(&self) -> &T {
        &self.mine
    }

    /// Changes our own item and bumps its version; false if it stays the same. Who it belongs to must not change.
    pub fn update_me(&mut self, change: impl FnOnce(&mut T)) -> bool {
        let mut changed = self.mine.clone();
        change(&mut changed);
        changed.tidy();
        if changed == self.mine {
            return false;
        }
        self.mine = changed;
        self.bump();
        true
    }

    /// Makes our item the newest about us that we know of.
    fn bump(&mut self) {
        let known = self.outbid.take().unwrap_or_default().max(self.mine.stamp().version);
        self.mine.set_version(known.saturating_add(1));
    }

    /// All items, ourselves first, then by name.
    pub fn iter(&self) -> impl Iterator<Item = (PeerName, &T)> {
        std::iter::once((self.name, &self.mine)).chain(self.others.iter().map(|(name, held)| (*name, &held.item)))
    }

    /// The item of `name`, which may be ourselves.
    pub fn get(&self, name: PeerName) -> Option<&T> {
        if name == self.name { Some(&self.mine) } else { self.others.get(&name).map(|held| &held.item) }
    }

    /// Number of items, ours included: at least 1.
    pub fn count(&self) -> usize {
        self.others.len().saturating_add(1)
    }

    /// Items refused since the start: unsound, or beyond the bounds.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Takes in what somebody told.
    pub fn merge(&mut self, items: Vec<T>) -> Merged {
        let mut merged = Merged::default();
        for item in items {
            let name = item.name();
            if !item.is_sound() || item.stamp().version > MAX_VERSION {
                merged.refused = merged.refused.saturating_add(1);
            } else if name == self.name {
                self.defend(&item, &mut merged);
            } else {
                self.merge_other(name, item, &mut merged);
            }
        }
        self.refused = self.refused.saturating_add(u64::try_from(merged.refused).unwrap_or(u64::MAX));
        for names in [&mut merged.news, &mut merged.collisions] {
            names.sort_unstable();
            names.dedup();
        }
        merged
    }

    fn defend(&mut self, item: &T, merged: &mut Merged) {
        if !item.same_owner(&self.mine) {
            merged.collisions.push(self.name);
        } else if item.stamp() > self.mine.stamp() || (item.stamp() == self.mine.stamp() && *item != self.mine) {
            merged.contested_by = Some(item.stamp().uid);
            self.outbid = self.outbid.max(Some(item.stamp().version));
            if self.outbids > 0 {
                self.outbids -= 1;
                self.bump();
                merged.news.push(self.name);
            }
        }
    }

    fn merge_other(&mut self, name: PeerName, item: T, merged: &mut Merged) {
        let held = self.others.get(&name);
        if held.is_some_and(|held| !held.item.same_owner(&item)) {
            merged.collisions.push(name);
        }
        if held.is_some_and(|held| item.rank(&held.item) != Ordering::Greater) {
            return;
        }
        let weight =
            self.weight.saturating_sub(held.map_or(0, |held| held.item.weight())).saturating_add(item.weight());
        if weight > MAX_WEIGHT || (held.is_none() && self.others.len() >= MAX_PEERS) {
            merged.refused = merged.refused.saturating_add(1);
            return;
        }
        let unlinked_since = held.and_then(|held| held.unlinked_since);
        self.weight = weight;
        self.others.insert(name, Held { item, unlinked_since });
        merged.news.push(name);
    }

    /// What we have that is worth telling: the items of `linked` peers, and ours.
    pub fn digest(&self, linked: &Linked) -> Digest {
        let told = self.iter().filter(|(name, _)| *name == self.name || linked.contains(*name));
        let mut stamps: Vec<_> = told.map(|(name, item)| (name, item.stamp())).collect();
        stamps.sort_unstable();
        Digest(stamps)
    }

    /// Compares what somebody else has with all that we have.
    pub fn diff(&self, theirs: &Digest) -> Diff {
        let theirs: BTreeMap<PeerName, Stamp> = theirs.0.iter().copied().collect();
        let lack = |name: &PeerName, item: &T| theirs.get(name).is_none_or(|stamp| *stamp < item.stamp());
        let they_lack = self.iter().filter(|(name, item)| lack(name, item)).map(|(name, _)| name).collect();
        let we_lack = theirs.iter().any(|(name, stamp)| self.get(*name).is_none_or(|item| item.stamp() < *stamp));
        Diff { they_lack, we_lack }
    }

    /// Forgets the items of peers that have not been `linked` for longer than [`GRACE`], and names them. To be called about
    /// once a second. Outbids what was not outbid at once; the next round of gossip tells.
    pub fn collect(&mut self, linked: &Linked, now: Instant) -> Vec<PeerName> {
        if self.outbid.is_some() {
            self.bump();
        } else {
            self.outbids = self.outbids.saturating_add(1).min(OUTBIDS);
        }
        let mut gone = Vec::new();
        for (name, held) in &mut self.others {
            if linked.contains(*name) {
                held.unlinked_since = None;
            } else if now.since(*held.unlinked_since.get_or_insert(now)) > GRACE {
                gone.push(*name);
            }
        }
        for name in &gone {
            let weight = self.others.remove(name).map_or(0, |held| held.item.weight());
            self.weight = self.weight.saturating_sub(weight);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Mac;

    /// An item whose name says nothing about its key: nobody can make two keys with one name for a test.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Toy {
        name: u8,
        key: u8,
        version: u64,
    }

    impl Item for Toy {
        fn name(&self) -> PeerName {
            PeerName(Mac([self.name; 6]))
        }
        fn stamp(&self) -> Stamp {
            Stamp { version: self.version, uid: Uid(0) }
        }
        fn set_version(&mut self, version: u64) {
            self.version = version;
        }
        fn rank(&self, other: &Toy) -> Ordering {
            other.key.cmp(&self.key).then(self.version.cmp(&other.version))
        }
        fn same_owner(&self, other: &Toy) -> bool {
            self.key == other.key
        }
        fn tidy(&mut self) {}
        fn is_sound(&self) -> bool {
            true
        }
        fn weight(&self) -> usize {
            1
        }
    }

    #[test]
    fn second_key_under_one_name_is_reported_and_never_replaces_the_first() {
        let mut replica = Replica::new(Toy { name: 1, key: 5, version: 1 });
        replica.merge(vec![Toy { name: 2, key: 5, version: 1 }]);
        let merged = replica.merge(vec![Toy { name: 2, key: 6, version: 9 }]);
        assert_eq!((merged.collisions, merged.news.len()), (vec![PeerName(Mac([2; 6]))], 0));
        let merged = replica.merge(vec![Toy { name: 2, key: 4, version: 0 }]);
        assert_eq!((merged.collisions.len(), merged.news.len()), (1, 1), "the lower key keeps the name");
    }

    #[test]
    fn two_routers_with_one_key_outbid_each_other_once_a_second_only() {
        let toy = |version| Toy { name: 1, key: 5, version };
        let mut replica = Replica::new(toy(1));
        let bid = |replica: &mut Replica<Toy>| {
            let other = toy(replica.me().version + 1);
            let merged = replica.merge(vec![other]);
            assert!(merged.me_contested());
            merged.news.len()
        };
        let told: usize = (0..100).map(|_| bid(&mut replica)).sum();
        assert_eq!((told, replica.me().version), (3, 7));
        replica.collect(&Linked::default(), Instant::ZERO);
        assert_eq!(replica.me().version, 9, "the owner's word wins in the end");
        assert_eq!(bid(&mut replica), 0);
        for _ in 0..9 {
            replica.collect(&Linked::default(), Instant::ZERO);
        }
        assert_eq!((bid(&mut replica), bid(&mut replica), bid(&mut replica), bid(&mut replica)), (1, 1, 1, 0));
    }

    #[test]
    fn other_key_under_our_name_is_reported_and_does_not_touch_us() {
        let mut replica = Replica::new(Toy { name: 1, key: 5, version: 1 });
        let merged = replica.merge(vec![Toy { name: 1, key: 4, version: 9 }]);
        assert_eq!((merged.collisions.len(), merged.contested_by, merged.news.len()), (1, None, 0));
        assert_eq!(replica.me().version, 1);
    }
}
