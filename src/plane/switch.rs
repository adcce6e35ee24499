//! Where a frame goes: (frame, Fib, MacTable) -> Verdict.
//!
//! Decides and does nothing else: verdicts are Copy values that `Plane` carries out, so every rule can be tested
//! without a byte of payload. Learning and guarding come before, in `Plane`.
//!
//! ```text
//! from the bridge   group or unknown MAC -> flood    known here -> nothing to do    known behind a peer -> forward
//!                   known: by its last frame, else by whom it was given to, if data reaches that peer
//! from the net      for us -> deliver    for another peer -> forward, unseen    flood -> deliver here if the network is
//!                   open, and hand on along the origin's tree
//! ```
//!
//! Two rules keep a mesh whole while its peers disagree about the topology. A flood is taken only from the
//! neighbour that is above us in the origin's tree, so a frame is never multiplied by two trees that differ. And
//! a frame is handed on at most [`HOPS_MAX`](crate::wire::datagram::HOPS_MAX) times, so what goes in circles ends.

use super::counters::Drop;
use super::fib::{Fib, PathId, PortId};
use super::macs::{MacTable, Place};
use super::path::Path;
use crate::types::{Instant, Mac, NetId, ShortId};
use crate::wire::datagram::Inner;

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict<'f> {
    /// Nothing.
    Drop(Drop),
    /// To the bridge behind this port.
    Deliver(PortId),
    /// To one peer, over this path.
    Forward {
        /// The peer that it is for.
        to: ShortId,
        /// The next hop.
        path: &'f Path,
    },
    /// Along the tree of its origin.
    Flood,
    /// Both: to this port, and along the tree of its origin.
    DeliverAndFlood(PortId),
}

/// What becomes of a frame that was captured on a port of `network`, for `dst`.
pub fn from_bridge<'f>(fib: &'f Fib, macs: &MacTable, network: NetId, dst: Mac, now: Instant) -> Verdict<'f> {
    if dst.is_link_local() {
        return Verdict::Drop(Drop::LinkLocal);
    }
    if dst.is_group() {
        return Verdict::Flood;
    }
    let learned = macs.lookup(network, dst, now);
    match learned.or_else(|| fib.neighbours.place(network, dst)) {
        None => Verdict::Flood,
        Some(Place::Port(_)) => Verdict::Drop(Drop::Local),
        Some(Place::Peer(to)) => match fib.next_hops.get(&to) {
            Some(path) => Verdict::Forward { to, path },
            None if learned.is_none() => Verdict::Flood,
            None => Verdict::Drop(Drop::Unreachable),
        },
    }
}

/// What becomes of an opened datagram with the header `inner` that came in on the path `came`. It needs no look at the frame.
pub fn from_net<'f>(fib: &'f Fib, came: PathId, inner: &Inner) -> Verdict<'f> {
    if inner.origin == fib.me || inner.origin == ShortId::FLOOD {
        return Verdict::Drop(Drop::Own);
    }
    let port = fib.networks.get(&inner.network).and_then(|entry| entry.port);
    if inner.destination == fib.me {
        return port.map_or(Verdict::Drop(Drop::NotOpen), Verdict::Deliver);
    }
    if inner.destination == ShortId::FLOOD {
        if fib.floods.upstream(inner.origin).is_some_and(|above| above != came) {
            return Verdict::Drop(Drop::WrongTree);
        }
        return match (port, inner.hops) {
            (Some(port), 0) => Verdict::Deliver(port),
            (None, 0) => Verdict::Drop(Drop::HopLimit),
            (Some(port), _) => Verdict::DeliverAndFlood(port),
            (None, _) => Verdict::Flood,
        };
    }
    match fib.next_hops.get(&inner.destination) {
        None => Verdict::Drop(Drop::Unreachable),
        Some(path) if path.id() == came => Verdict::Drop(Drop::WayBack),
        Some(_) if inner.hops == 0 => Verdict::Drop(Drop::HopLimit),
        Some(path) => Verdict::Forward { to: inner.destination, path },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::fib::{Floods, NetworkEntry};
    use crate::plane::testing::{PORT, mac, net};
    use std::sync::Arc;
    use std::time::Duration;

    const ME: ShortId = ShortId(1);
    const FAR: ShortId = ShortId(2);
    const NOWHERE: ShortId = ShortId(3);
    const ABOVE: PathId = PathId(10);
    const ASIDE: PathId = PathId(11);

    /// Floods of `FAR` come in on `ABOVE`.
    struct Tree;

    impl Floods for Tree {
        fn each_next_hop(&self, _: ShortId, _: NetId, _: &mut dyn FnMut(&Path)) {}

        fn upstream(&self, origin: ShortId) -> Option<PathId> {
            (origin == FAR).then_some(ABOVE)
        }
    }

    /// `FAR` is behind `ABOVE`; network 1 has a port, network 2 has none.
    fn fib() -> Fib {
        let mut fib = Fib { me: ME, floods: Box::new(Tree), ..Fib::empty() };
        fib.next_hops.insert(FAR, Arc::new(Path::new(ABOVE, FAR)));
        fib.networks.insert(net(1), NetworkEntry { port: Some(PORT), ..NetworkEntry::default() });
        fib.networks.insert(net(2), NetworkEntry::default());
        fib
    }

    #[test]
    fn what_becomes_of_a_captured_frame() {
        let (fib, now) = (fib(), Instant::ZERO);
        let macs = MacTable::new(10, Duration::from_secs(600));
        macs.learn(net(1), mac(1), Place::Port(PORT), now);
        macs.learn(net(1), mac(2), Place::Peer(FAR), now);
        macs.learn(net(1), mac(3), Place::Peer(NOWHERE), now);
        let path = &*fib.next_hops[&FAR];
        let later = now + Duration::from_secs(600);
        let facts = [
            ("to everybody", 1, Mac::BROADCAST, now, Verdict::Flood),
            ("to a group", 1, Mac([0x33, 0x33, 0, 0, 0, 1]), now, Verdict::Flood),
            ("to a neighbouring bridge", 1, Mac([1, 0x80, 0xc2, 0, 0, 0x0e]), now, Verdict::Drop(Drop::LinkLocal)),
            ("to nobody known", 1, mac(9), now, Verdict::Flood),
            ("to the same bridge", 1, mac(1), now, Verdict::Drop(Drop::Local)),
            ("to a peer", 1, mac(2), now, Verdict::Forward { to: FAR, path }),
            ("to a peer that is gone", 1, mac(3), now, Verdict::Drop(Drop::Unreachable)),
            ("to a peer, on another network", 2, mac(2), now, Verdict::Flood),
            ("to a peer, after long silence", 1, mac(2), later, Verdict::Flood),
        ];
        for (fact, network, dst, now, verdict) in facts {
            assert_eq!(from_bridge(&fib, &macs, net(network), dst, now), verdict, "{fact}");
        }
    }

    #[test]
    fn what_becomes_of_a_datagram() {
        let fib = fib();
        let path = &*fib.next_hops[&FAR];
        let all = ShortId::FLOOD;
        let facts = [
            ("for us", FAR, ME, 1, ABOVE, 5, Verdict::Deliver(PORT)),
            ("for us, by a way that we would not take", FAR, ME, 1, ASIDE, 5, Verdict::Deliver(PORT)),
            ("for us, at its last hop", FAR, ME, 1, ABOVE, 0, Verdict::Deliver(PORT)),
            ("for us, network without a port", FAR, ME, 2, ABOVE, 5, Verdict::Drop(Drop::NotOpen)),
            ("for us, unknown network", FAR, ME, 9, ABOVE, 5, Verdict::Drop(Drop::NotOpen)),
            ("our own for us", ME, ME, 1, ABOVE, 5, Verdict::Drop(Drop::Own)),
            ("our own flood", ME, all, 1, ABOVE, 5, Verdict::Drop(Drop::Own)),
            ("our own for another", ME, FAR, 1, ASIDE, 5, Verdict::Drop(Drop::Own)),
            ("of nobody", all, ME, 1, ABOVE, 5, Verdict::Drop(Drop::Own)),
            ("for another", NOWHERE, FAR, 1, ASIDE, 5, Verdict::Forward { to: FAR, path }),
            (
                "for another, on a network that we are not on",
                NOWHERE,
                FAR,
                9,
                ASIDE,
                5,
                Verdict::Forward { to: FAR, path },
            ),
            ("for another, back where it came from", NOWHERE, FAR, 1, ABOVE, 5, Verdict::Drop(Drop::WayBack)),
            ("for another, too often handed on", NOWHERE, FAR, 1, ASIDE, 0, Verdict::Drop(Drop::HopLimit)),
            ("for another, unreachable", FAR, NOWHERE, 1, ABOVE, 5, Verdict::Drop(Drop::Unreachable)),
            ("a flood", FAR, all, 1, ABOVE, 5, Verdict::DeliverAndFlood(PORT)),
            ("a flood of a network without a port", FAR, all, 2, ABOVE, 5, Verdict::Flood),
            ("a flood of an unknown network", FAR, all, 9, ABOVE, 5, Verdict::Flood),
            ("a flood from the wrong side", FAR, all, 1, ASIDE, 5, Verdict::Drop(Drop::WrongTree)),
            ("a flood of a stranger", NOWHERE, all, 1, ASIDE, 5, Verdict::DeliverAndFlood(PORT)),
            ("a flood at its last hop", FAR, all, 1, ABOVE, 0, Verdict::Deliver(PORT)),
            ("a flood at its last hop, not for us", FAR, all, 9, ABOVE, 0, Verdict::Drop(Drop::HopLimit)),
        ];
        for (fact, origin, destination, network, came, hops, verdict) in facts {
            let inner = Inner { origin, destination, network: net(network), hops, partial: false, fragment: None };
            assert_eq!(from_net(&fib, came, &inner), verdict, "{fact}");
        }
    }
}
