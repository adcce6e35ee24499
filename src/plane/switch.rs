//! Where a frame goes: (frame, Fib, MacTable) -> Verdict.
//!
//! Decides and does nothing else: verdicts are Copy values that `Plane` carries out, so every rule can be tested
//! without a byte of payload. Learning and guarding come before, in `Plane`.
//!
//! ```text
//! from the bridge   group or unknown MAC -> flood    known here -> nothing to do    known behind a peer -> forward
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
    match macs.lookup(network, dst, now) {
        None => Verdict::Flood,
        Some(Place::Port(_)) => Verdict::Drop(Drop::Local),
        Some(Place::Peer(to)) => match fib.next_hops.get(&to) {
            Some(path) => Verdict::Forward { to, path },
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
