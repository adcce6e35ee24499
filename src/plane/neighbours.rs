//! Who has which address, as rnet gave it out: questions for it are answered here and not carried through the mesh.
//!
//! Owns the table and the rules; which claims are worth knowing is decided by control, that fills it from the claims of the
//! peers that data can reach, and the layout of questions and answers is `wire::neighbour`'s. Immutable, part of the
//! snapshot, shared between snapshots.
//!
//! ```text
//! (network, IP)  -> MAC and place        one holder, or disputed: two claim it, and only they can tell
//! (network, MAC) -> place                what the MAC table falls back on
//!
//! asked on a port    holder behind a reachable peer                 answered here, unless the holder itself is asked
//!                    holder on this host, disputed, unknown, gone   goes its way
//! ```
//!
//! A holder on this host has heard the question from the bridge, and answers itself. One whose peer has no next hop is not
//! vouched for: what is here may be old, a flood finds who has the address now.

use super::fib::Fib;
use super::macs::Place;
use crate::types::{Mac, NetId};
use crate::wire::neighbour::Question;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

/// One address that was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Known {
    /// On which network.
    pub network: NetId,
    /// The address.
    pub address: IpAddr,
    /// The interface that has it.
    pub mac: Mac,
    /// Where that is.
    pub place: Place,
}

/// Who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its interface.
    pub mac: Mac,
    /// Where that is.
    pub place: Place,
}

/// A table whose entries are none where two claim a key with different values.
type Table<K, V> = HashMap<K, Option<V>, RandomState>;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Neighbours {
    holders: Table<(NetId, IpAddr), Holder>,
    places: Table<(NetId, Mac), Place>,
}

impl FromIterator<Known> for Neighbours {
    fn from_iter<I: IntoIterator<Item = Known>>(known: I) -> Neighbours {
        let mut neighbours = Neighbours::default();
        for Known { network, address, mac, place } in known {
            note(&mut neighbours.holders, (network, address), Holder { mac, place });
            note(&mut neighbours.places, (network, mac), place);
        }
        neighbours
    }
}

fn note<K: Eq + Hash, V: Eq + Copy>(table: &mut Table<K, V>, key: K, value: V) {
    let held = table.entry(key).or_insert(Some(value));
    if *held != Some(value) {
        *held = None;
    }
}

impl Neighbours {
    /// Who has `address` on `network`, if that is known and undisputed.
    pub fn holder(&self, network: NetId, address: IpAddr) -> Option<Holder> {
        self.holders.get(&(network, address)).copied().flatten()
    }

    /// Where the interface `mac` of `network` is, if that is known and undisputed.
    pub fn place(&self, network: NetId, mac: Mac) -> Option<Place> {
        self.places.get(&(network, mac)).copied().flatten()
    }

    /// Everything that is known and undisputed, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Known> + '_ {
        let known = |(network, address): &(NetId, IpAddr), holder: &Holder| Known {
            network: *network,
            address: *address,
            mac: holder.mac,
            place: holder.place,
        };
        self.holders.iter().filter_map(move |(key, holder)| Some(known(key, holder.as_ref()?)))
    }

    /// Number of addresses, disputed ones included.
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    /// Whether no address is known.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }
}

/// The MAC that answers `question`, asked on a port of `network`; nothing if the question goes its way.
pub fn answers(fib: &Fib, network: NetId, question: &Question) -> Option<Mac> {
    let Holder { mac, place } = fib.neighbours.holder(network, question.target)?;
    let Place::Peer(peer) = place else { return None };
    // A unicast question asks whether the holder still lives: that is for the holder to say. To another MAC it comes from
    // an old memory.
    (mac != question.asker && mac != question.dst && fib.next_hops.contains_key(&peer)).then_some(mac)
}

#[cfg(test)]
mod tests;
