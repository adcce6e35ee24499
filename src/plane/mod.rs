//! The data plane: what becomes of a frame.
//!
//! Shared by the data path threads; no timers, no logging, no queue inside. This file is a frame's whole way in one sight;
//! each step has a room of its own:
//!
//! ```text
//! from_bridge   frame > guard > macs learn > switch > path write > (Sink)            too big: fragment
//!                                          > offload: a super-frame is cut, segment by segment into datagrams > (Sink)
//!                                          > mss: TCP agrees on segments that fit
//!                                          > neighbours: a question that is answered here > (Sink) bridge
//! from_net      datagram > path open > switch > path write to the next hop > (Sink)  unseen by a relay
//!                                             > once: a flood that was here goes no further
//!                                             > fragment > macs learn > offload: coalesced with its neighbours > (Sink) bridge
//! from_vteps    datagram > vxlan: of which peer > as from_net
//!                        > decap: whose > guard > macs learn > switch > as from_net, or as from_bridge
//! sparse        which datagrams a receiver takes first
//! uplinks       as from_bridge, by strangers: guard, bounds, beacons (`uplink`, `local`)
//! ```
//!
//! Control publishes snapshots (`fib`) and steers paths (`path`); threads load the snapshot once a batch. Results go into
//! the `Sink` that the caller lent: a frame that floods to k neighbours is sealed k times from one untouched plaintext, each
//! time straight into the memory that is sent. On this way nothing is allocated, nothing is formatted, and the only
//! locks are a shard of the MAC table and a path's replay window (floods that came in and pieces of frames take one more each).
//! Every early return is a `Drop` and is counted.

mod bucket;
mod carry;
pub mod counters;
mod decap;
mod demand;
mod encap;
pub mod fib;
pub mod fragment;
pub mod guard;
mod local;
pub mod macs;
pub mod mss;
pub mod neighbours;
mod offers;
pub mod offload;
mod once;
pub mod path;
mod sparse;
pub mod switch;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod tunnel;
pub mod uplink;
pub mod vxlan;

pub use counters::{Count, Drop, Tally};
pub use macs::{Place, Seen};

use crate::types::{Instant, Mac, NetId, ShortId};
use crate::wire::datagram::{HOPS_MAX, Inner, Kind, Outer};
use crate::wire::frame::{Frame, SUPER_FRAME_MAX};
use crate::wire::virtio::{Gso, Offload, Partial};
use crate::wire::vxlan::VXLAN_LEN;
use arc_swap::{ArcSwap, Guard};
use counters::Counters;
use decap::Recent;
use demand::Demand;
use encap::Back;
use fib::{Fib, PathId, PortId};
use local::Sending;
use macs::MacTable;
use offers::Offers;
use offload::{Coalescer, Odd, Segments};
use once::Once;
use smallvec::SmallVec;
use sparse::Flows;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use switch::{Came, Verdict};

/// What work the kernel behind a capture port does on frames that it is given. The default is none: whole frames only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Takes {
    /// Transport checksums that are not completed.
    pub checksum: bool,
    /// Super-frames of TCP.
    pub tcp: bool,
    /// Super-frames of UDP datagrams.
    pub udp: bool,
}

/// How a datagram is to be sent. The default is with all others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Service {
    /// It rides no send but its own.
    pub alone: bool,
    /// It is of a flow that sends little: it rides no send, and joins no train on its way, with those of flows that send much.
    pub sparse: bool,
}

/// Memory that belongs to the caller's batch: where a frame's outcome goes.
pub trait Sink {
    /// `len` bytes (at most 65,507) of a datagram for `to`, to be written whole before the next call. Consecutive calls
    /// with equal `to` and `len` ride one GSO send. Nothing if the batch cannot take more: the datagram is dropped and counted.
    fn datagram(&mut self, to: SocketAddr, len: usize) -> Option<&mut [u8]>;
    /// The same for a datagram that is to be sent in a way of its own.
    fn datagram_by(&mut self, service: Service, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        let _ = service;
        self.datagram(to, len)
    }
    /// As `datagram`, but sent from UDP port `door` of this host.
    fn tunnelled(&mut self, door: u16, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        let _ = (door, to, len);
        None
    }
    /// A frame for the bridge behind `port`, in parts that lie one behind the other, and the work that is left to do on it: no
    /// more than the port `takes`.
    fn deliver(&mut self, port: PortId, offload: &Offload, parts: &[&[u8]]);
    /// What the kernel behind `port` takes.
    fn takes(&self, port: PortId) -> Takes {
        let _ = port;
        Takes::default()
    }
    /// The number of the thread, 0 to 127, which goes into every datagram that it writes.
    fn lane(&self) -> u8 {
        0
    }
    /// A small event for control. Never blocks; a full queue drops and counts.
    fn event(&mut self, event: Event);
}

/// What the data plane tells control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An authenticated probe (heartbeat) arrived on `path` from `from`: its body, at most 64 bytes kept, and the
    /// size of the whole datagram in bytes (padding is cut, its size is what proves the path MTU). Sealed under `epoch`.
    /// `local`: which address of this host it came to; the plane does not know it, its driver may.
    Probe {
        path: PathId,
        epoch: u16,
        from: SocketAddr,
        local: Option<IpAddr>,
        body: SmallVec<[u8; 64]>,
        size: u16,
        at: Instant,
    },
    /// Frames of ours for this peer go by way of another. Told a few times a second at most, while it is so.
    Relayed {
        /// Whom they are for.
        to: ShortId,
    },
    /// A beacon came on this port of `network`, or from a peer: what is behind its Ethernet header. Nobody knows yet who made it.
    Beacon { port: Option<PortId>, network: NetId, body: SmallVec<[u8; 64]>, at: Instant },
    /// A datagram of a path came by VXLAN under the VNI of peers from `from`, and nobody has opened it yet: see `wire::beat`. `size`:
    /// of the whole UDP payload that it came in, bytes, the headers of VXLAN and Ethernet included. Both engines raise it.
    Beat { from: SocketAddr, datagram: Vec<u8>, size: u16, at: Instant },
    /// Frames for this MAC go to this neighbour, and the kernel could carry them. Raised once, and again after a while.
    Offload { network: NetId, mac: Mac, peer: ShortId },
    /// A MAC that was offered so was seen elsewhere than before.
    Moved { network: NetId, mac: Mac },
}

/// Bytes of a probe's body that are kept for control; the rest is padding.
const PROBE_KEPT: usize = 64;

/// The maxima of a plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// MACs learned for each port and each peer.
    pub macs_per_port: usize,
    /// How long a silent MAC is remembered; whole seconds.
    pub mac_age: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { macs_per_port: 4096, mac_age: Duration::from_secs(600) }
    }
}

/// The data plane of one router. See the head of this file.
pub struct Plane {
    fib: ArcSwap<Fib>,
    macs: MacTable,
    counters: Counters,
    offers: Offers,
    next_fragment: AtomicU32,
    next_flood: AtomicU64,
    once: Once,
    demand: Demand,
    flows: Flows,
}

impl Plane {
    /// A plane that knows no network and nobody.
    pub fn new(limits: Limits) -> Plane {
        Plane {
            fib: ArcSwap::from_pointee(Fib::empty()),
            macs: MacTable::new(limits.macs_per_port, limits.mac_age),
            counters: Counters::default(),
            offers: Offers::default(),
            next_fragment: AtomicU32::new(0),
            next_flood: AtomicU64::new(0),
            once: Once::default(),
            demand: Demand::default(),
            flows: Flows::default(),
        }
    }

    /// Where our floods' numbers begin: anywhere in the lower half, and at each start elsewhere. To be said once, before the first.
    pub fn number_floods_from(&self, first: u64) {
        self.next_flood.store(first, Ordering::Relaxed);
    }

    /// Replaces the snapshot; batches that begin from now on use it.
    pub fn publish(&self, fib: Fib) {
        self.fib.store(Arc::new(fib));
    }

    /// The snapshot in use.
    pub fn fib(&self) -> Arc<Fib> {
        self.fib.load_full()
    }

    /// Begins a batch: one snapshot and one time for all its frames, counted when it is dropped. To be held for a burst, not longer.
    pub fn batch(&self, now: Instant) -> Batch<'_> {
        Batch { plane: self, fib: self.fib.load(), tally: Tally::default(), now }
    }

    /// A batch of one frame on which nothing is left to do; see [`Batch::from_bridge`].
    pub fn from_bridge(&self, from: PortId, frame: &[u8], now: Instant, out: &mut impl Sink) {
        let mut batch = self.batch(now);
        if let Err(reason) = batch.way(out).captured(from, frame, false, &Load::Frame(frame)) {
            batch.tally.drop(reason);
        }
    }

    /// A batch of one datagram; see [`Batch::from_net`].
    pub fn from_net(&self, from: SocketAddr, datagram: &mut [u8], now: Instant, out: &mut impl Sink) {
        self.batch(now).from_net(std::iter::once((from, datagram)), out);
    }

    /// The next frame from the bridge for `mac` is told of anew, if the kernel could carry it.
    pub fn offer_again(&self, network: NetId, mac: Mac) {
        self.offers.forget(network, mac);
    }

    /// Where frames for `mac` go, if that is known.
    pub fn place(&self, network: NetId, mac: Mac, now: Instant) -> Option<Place> {
        self.macs.lookup(network, mac, now).or_else(|| self.fib.load().neighbours.place(network, mac))
    }

    /// Adds what the caller lost after the plane had handed it over: what the kernel did not take.
    pub fn count(&self, lost: &Tally) {
        self.counters.add(lost);
    }

    /// What was counted so far, but for batches under way.
    pub fn counters(&self) -> Tally {
        self.counters.read()
    }

    /// The learned MACs, sorted by network and MAC.
    pub fn macs(&self, now: Instant) -> Vec<Seen> {
        self.macs.list(now)
    }

    /// Forgets the MACs behind `peer`: it is gone, or its number is now another's.
    pub fn forget_peer(&self, peer: ShortId) {
        self.macs.forget_peer(peer);
    }

    /// Forgets the MACs behind a port: it is closed.
    pub fn forget_port(&self, port: PortId) {
        self.macs.forget_port(port);
    }

    /// Forgets where `mac` was seen on `network`: it is elsewhere now.
    pub fn forget_mac(&self, network: NetId, mac: Mac) {
        self.macs.forget_mac(network, mac);
    }

    /// Forgets the MACs of `network`: it has no port here any more.
    pub fn forget_network(&self, network: NetId) {
        self.macs.forget_network(network);
    }

    /// Gives back the memory of what is too old: MACs, partial frames, floods of who is gone. To be called every few seconds.
    pub fn expire(&self, now: Instant) {
        self.macs.expire(now);
        let mut tally = Tally::default();
        let fib = self.fib.load();
        self.once.expire(|origin| fib.next_hops.contains_key(&origin));
        for path in fib.paths.values() {
            tally.drops_of(Drop::FragmentLost, path.expire(now));
        }
        self.counters.add(&tally);
    }

    /// A new id for a frame that is cut. Relays cut frames of other origins, so the ids of peers begin far apart.
    fn fragment_id(&self, me: ShortId) -> u32 {
        (u32::from(me.0) << 16).wrapping_add(self.next_fragment.fetch_add(1, Ordering::Relaxed))
    }

    /// The first of so many numbers for frames that are flooded.
    fn flood_numbers(&self, count: usize) -> u64 {
        self.next_flood.fetch_add(u64::try_from(count).unwrap_or(1), Ordering::Relaxed)
    }
}

/// A burst of frames under one snapshot. See [`Plane::batch`].
pub struct Batch<'p> {
    plane: &'p Plane,
    fib: Guard<Arc<Fib>>,
    tally: Tally,
    now: Instant,
}

impl std::ops::Drop for Batch<'_> {
    fn drop(&mut self) {
        self.plane.counters.add(&self.tally);
    }
}

impl Batch<'_> {
    /// A frame that was captured on `from`, and what the kernel left to do on it. A checksum that cannot travel unfinished is
    /// completed in place.
    pub fn from_bridge(&mut self, from: PortId, frame: &mut [u8], offload: &Offload, out: &mut impl Sink) {
        let mut way = self.way(out);
        let passed = way.found(from, frame, offload).and_then(|offload| match &offload.gso {
            None => match offload::settle(frame, offload.checksum) {
                Ok(partial) => way.captured(from, frame, partial, &Load::Frame(frame)),
                Err(_) => Err(Drop::Malformed),
            },
            Some(gso) => match Segments::new(frame, gso) {
                Ok(segments) => way.captured(from, frame, true, &Load::Super(&segments)),
                Err(_) => way.captured_odd(from, frame, gso, offload.checksum),
            },
        });
        if let Err(reason) = passed {
            self.tally.drop(reason);
        }
    }

    /// Datagrams as they came, from whom; each is opened in place. What is for the bridge of this host is coalesced over all of
    /// them and has been delivered when this returns.
    pub fn from_net<'d>(&mut self, datagrams: impl Iterator<Item = (SocketAddr, &'d mut [u8])>, out: &mut impl Sink) {
        let mut held = Coalescer::new();
        let mut way = self.way(out);
        for (from, datagram) in datagrams {
            if let Err(reason) = way.received(from, datagram, &mut held) {
                way.tally.drop(reason);
            }
        }
        held.flush(&mut |port, offload, parts| out.deliver(port, offload, parts));
    }

    /// VXLAN datagrams of VTEPs or of peers as they came to UDP port `door`, from whom. Frames for the bridge are coalesced over all of them and have been
    /// delivered when this returns.
    pub fn from_vteps<'d>(
        &mut self,
        door: u16,
        datagrams: impl Iterator<Item = (SocketAddr, &'d mut [u8])>,
        out: &mut impl Sink,
    ) {
        let mut held = Coalescer::new();
        let (now, mut recent, mut peer) = (self.now, Recent::default(), vxlan::Recent::default());
        let of_peers = self.fib.vxlan_door == Some(door);
        let mut way = self.way(out);
        for (from, datagram) in datagrams {
            let passed = match of_peers {
                true => way.peered(from, datagram, &mut peer, &mut held),
                false => way.tunnelled((door, from.ip()), datagram, &mut recent, &mut held),
            };
            if let Err(reason) = passed {
                way.tally.drop(reason);
            }
        }
        recent.tell(now);
        held.flush(&mut |port, offload, parts| out.deliver(port, offload, parts));
    }

    /// A frame for a peer by VXLAN, under the VNI of peers. Gone if this host has no door for that.
    pub fn beat(&mut self, to: SocketAddr, frame: &[u8], out: &mut impl Sink) {
        let Some(door) = self.fib.vxlan_door else { return };
        let room = out.tunnelled(door, to, VXLAN_LEN + frame.len());
        if let Some((header, rest)) = room.and_then(|room| room.split_first_chunk_mut::<VXLAN_LEN>()) {
            crate::wire::vxlan::emit_of_peers(header);
            rest.copy_from_slice(frame);
        }
    }

    /// A frame of our own for all others on a network, but not for this host's ports.
    pub fn announce(&mut self, network: NetId, frame: &[u8], out: &mut impl Sink) {
        let (origin, destination) = (self.fib.me, ShortId::FLOOD);
        let (number, hops) = (0, HOPS_MAX);
        let inner = Inner { origin, destination, number, network, hops, partial: false, fragment: None };
        self.way(out).flood(&inner, &Load::Frame(frame));
    }

    /// A frame of our own for whatever is behind `port`.
    pub fn deliver_to(&mut self, port: PortId, frame: &[u8], out: &mut impl Sink) {
        self.way(out).deliver(port, frame);
    }

    fn way<'a, S: Sink>(&'a mut self, out: &'a mut S) -> Way<'a, S> {
        Way { plane: self.plane, fib: &self.fib, tally: &mut self.tally, out, now: self.now, sparse: false }
    }
}

/// What is to be sent.
enum Load<'f> {
    /// A frame, or a piece of one.
    Frame(&'f [u8]),
    /// Many segments under one header.
    Super(&'f Segments<'f>),
}

/// One frame's way, and what it needs.
struct Way<'a, S> {
    plane: &'a Plane,
    fib: &'a Fib,
    tally: &'a mut Tally,
    out: &'a mut S,
    now: Instant,
    /// The frame is of a flow that sends little.
    sparse: bool,
}

impl<S: Sink> Way<'_, S> {
    fn captured(&mut self, from: PortId, bytes: &[u8], partial: bool, load: &Load<'_>) -> Result<(), Drop> {
        let fib = self.fib;
        let frame = Frame::parse(bytes).map_err(|_| Drop::Malformed)?;
        let network = *fib.ports.get(&from).ok_or(Drop::UnknownPort)?;
        let entry = fib.networks.get(&network).ok_or(Drop::UnknownPort)?;
        if !entry.uplinks.is_empty() && self.hears_beacon(Some(from), network, bytes)? {
            return Ok(());
        }
        let uplink = entry.uplink(from);
        self.tally.from_bridge.add_all(load.frames(), load.bytes());
        let checked = match uplink {
            None => guard::check(entry, &frame),
            Some(uplink) => self.admit(uplink, entry, &frame, load),
        };
        if checked.is_ok() {
            self.learn(network, frame.src(), Place::Port(from));
        }
        self.ask(from, network, &frame, checked)?;
        self.sparse = self.plane.flows.is_sparse(&frame, load.bytes(), self.now);
        let inner = |destination| {
            let (origin, number, hops) = (fib.me, 0, HOPS_MAX);
            Inner { origin, destination, number, network, hops, partial, fragment: None }
        };
        let came = Came { network, entry, port: from };
        let verdict = switch::from_port(fib, &self.plane.macs, came, frame.dst(), self.now);
        let sending = Sending { back: Back::Port(from), frame: &frame, load, partial };
        if let Some(uplink) = uplink {
            self.bound(uplink, entry, &sending, &verdict)?;
        }
        match verdict {
            Verdict::Drop(reason) => Err(reason),
            Verdict::Forward { to, path } => {
                if path.peer() != to && self.plane.demand.is_due(to, self.now) {
                    self.out.event(Event::Relayed { to });
                }
                match self.send(path, &inner(to), load) {
                    Err(Drop::TooBig) if self.tell_too_big(from, &frame, path)? => Err(Drop::TooBig),
                    Err(Drop::TooBig) => self.send_pieces(path, &inner(to), load),
                    Err(reason) => Err(reason),
                    Ok(()) => {
                        self.offer(path, (network, to), frame.dst());
                        Ok(())
                    }
                }
            }
            Verdict::Flood => match self.flood(&inner(ShortId::FLOOD), load) {
                0 => Err(Drop::NoPeers),
                _ => Ok(()),
            },
            Verdict::Deliver(ports) => {
                self.hand_out(ports, network, &sending);
                Ok(())
            }
            Verdict::DeliverAndFlood(ports) => {
                self.hand_out(ports, network, &sending);
                self.flood(&inner(ShortId::FLOOD), load);
                Ok(())
            }
        }
    }

    /// A super-frame that has no layout: each segment goes its way as a frame.
    #[cold]
    fn captured_odd(&mut self, from: PortId, bytes: &[u8], gso: &Gso, checksum: Option<Partial>) -> Result<(), Drop> {
        let odd = checksum.and_then(|partial| Odd::new(bytes, gso, partial).ok()).ok_or(Drop::Malformed)?;
        let mut memory = [0; SUPER_FRAME_MAX];
        for n in 0..odd.count() {
            let frame = memory.get_mut(..odd.len_of(n)).ok_or(Drop::Malformed)?;
            odd.write(n, frame);
            if let Err(reason) = self.captured(from, frame, false, &Load::Frame(frame)) {
                self.tally.drop(reason);
            }
        }
        Ok(())
    }

    fn received<'d>(&mut self, from: SocketAddr, datagram: &'d mut [u8], held: &mut Coalescer<'d>) -> Result<(), Drop> {
        let fib = self.fib;
        let outer = Outer::parse(datagram).map_err(|_| Drop::Malformed)?;
        let came = fib.by_index.get(&outer.index).ok_or(Drop::UnknownIndex)?;
        let size = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
        let body = came.open(from, &outer, datagram)?;
        self.sparse = outer.sparse;
        if outer.kind == Kind::Probe {
            let body = body.get(..PROBE_KEPT).unwrap_or(body);
            let body = SmallVec::from_slice(body);
            let (path, epoch, at) = (came.id(), outer.epoch, self.now);
            self.out.event(Event::Probe { path, epoch, from, local: None, body, size, at });
            return Ok(());
        }
        let (inner, header) = Inner::parse(body).map_err(|_| Drop::Malformed)?;
        let payload = body.get_mut(header..).ok_or(Drop::Malformed)?;
        self.tally.from_net.add(payload.len());
        carry::lower_mss(payload, &inner, || came.writer().ok()?.limit());
        match switch::from_net(fib, came.id(), &inner) {
            Verdict::Drop(reason) => Err(reason),
            Verdict::Forward { path, .. } => {
                let onward = Inner { hops: inner.hops.saturating_sub(1), ..inner };
                self.send_all(path, &onward, &Load::Frame(payload))
            }
            Verdict::Deliver(ports) if !inner.is_flood() => self.arrive(ports, (came, &inner), payload, held),
            flood => self.flooded(flood, (came, &inner), payload, held),
        }
    }
}
