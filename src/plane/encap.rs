//! Frames to VTEPs: VXLAN as RFC 7348 has it, around what `carry` and `switch` do. From VTEPs: `decap`.
//!
//! Super-frames are cut and checksums completed, each frame behind a header in the memory that it is sent from. Nothing is cut
//! to fit (RFC 7348, section 4.3): TCP agrees on segments that fit, and a frame too big for the route to a VTEP is answered by
//! ICMP where its sender wants to know, be that here or at a peer, and dropped and counted where not.

use super::counters::Count;
use super::fib::PortId;
use super::local::Sending;
use super::macs::Place;
use super::offload::{self, Arrival, Coalescer, Layout, Merge, checksum};
use super::switch::{self, Ports};
use super::tunnel::{Ends, Tunnel};
use super::{Drop, Load, Sink, Way, fragment, guard, mss};
use crate::types::{Mac, NetId, ShortId};
use crate::wire::datagram::{HOPS_MAX, Inner};
use crate::wire::frame::Frame;
use crate::wire::virtio::Partial;
use crate::wire::vxlan::{self, VXLAN_LEN};
use std::net::SocketAddr;
use std::sync::Arc;

/// Where the sender of a frame is told something.
#[derive(Debug, Clone, Copy)]
pub(super) enum Back {
    /// At this port.
    Port(PortId),
    /// On this network of a peer.
    Peer(NetId, ShortId),
}

/// What becomes of a checksum that holds only the sum of its pseudo-header.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unfinished {
    /// There is none.
    None,
    /// It is completed: what VTEPs get.
    Complete(Partial),
    /// It is left so, and the header says it.
    Leave(Partial),
}

impl<'a, S: Sink> Way<'a, S> {
    /// Which of these ports a frame from a peer is for.
    #[inline]
    pub(super) fn among<'p>(&self, ports: Ports<'p>, network: NetId, bytes: &[u8]) -> Result<Ports<'p>, Drop>
    where
        'a: 'p,
    {
        if ports.tunnels.is_empty() && ports.uplinks.is_empty() {
            return Ok(ports);
        }
        let dst = Mac(*bytes.first_chunk().ok_or(Drop::Malformed)?);
        Ok(switch::among(self.fib, &self.plane.macs, ports, (network, dst), self.now))
    }

    /// A whole frame of a peer for VTEPs, or for several ports.
    pub(super) fn accept_for_ports<'d>(
        &mut self,
        ports: Ports<'_>,
        inner: &Inner,
        bytes: &'d mut [u8],
        held: &mut Coalescer<'d>,
    ) -> Result<(), Drop> {
        if inner.partial {
            let layout = Layout::of(bytes).ok_or(Drop::Malformed)?;
            checksum::complete(bytes, layout.partial()).map_err(|_| Drop::Malformed)?;
        }
        let bytes: &'d [u8] = bytes;
        let frame = Frame::parse(bytes).map_err(|_| Drop::Malformed)?;
        let entry = self.fib.networks.get(&inner.network).ok_or(Drop::NotOpen)?;
        if frame.dst().is_link_local() {
            return Err(Drop::LinkLocal);
        }
        guard::check_arrival(entry, &frame)?;
        let origin = Place::Peer(inner.origin);
        if self.fib.next_hops.contains_key(&inner.origin) {
            self.learn(inner.network, frame.src(), origin);
        }
        if let Some(port) = ports.bridge {
            // Not as a run: what would join it has to go to the VTEPs too.
            let way = offload::Way { port, origin };
            self.hold(Arrival { way, frame: bytes, partial: false }, Merge::default(), held);
        }
        self.hears_beacon(None, inner.network, bytes)?;
        let back = Back::Peer(inner.network, inner.origin);
        let sending = Sending { back, frame: &frame, load: &Load::Frame(bytes), partial: false };
        self.hand_out(Ports { bridge: None, ..ports }, inner.network, &sending);
        Ok(())
    }

    /// Sends a frame to VTEPs; what does not get through to one of them is counted and does not keep it from
    /// the others.
    pub(super) fn send_to_tunnels(
        &mut self,
        tunnels: &[Arc<Tunnel>],
        (back, frame): (Back, &Frame<'_>),
        load: &Load<'_>,
        partial: bool,
    ) {
        for tunnel in tunnels.iter().filter(|tunnel| tunnel.carries()) {
            let sent = match self.send_to_tunnel(tunnel, load, partial) {
                Err(Drop::TooBig) if !self.tell_mtu(back, frame, tunnel.mtu()) => Err(Drop::VtepTooBig),
                sent => sent,
            };
            if let Err(reason) = sent {
                self.tally.drop(reason);
            }
        }
    }

    /// Writes one datagram, or one for each segment. `TooBig`: nothing was written.
    fn send_to_tunnel(&mut self, tunnel: &Tunnel, load: &Load<'_>, partial: bool) -> Result<(), Drop> {
        let (room, Ends { door, to, vni, .. }) = (tunnel.room(), tunnel.ends);
        let way = (door, to, vni);
        let mut sent = Count::default();
        match load {
            Load::Frame(frame) if frame.len() > room => return Err(Drop::TooBig),
            Load::Frame(frame) => {
                let layout = if partial { Layout::of(frame) } else { None };
                let unfinished = layout.map_or(Unfinished::None, |layout| Unfinished::Complete(layout.partial()));
                self.encapsulate(way, frame.len(), unfinished, |into| {
                    into.copy_from_slice(frame);
                    if mss::is_syn(into) {
                        mss::lower(into, room, partial);
                    }
                })?;
                sent.add(frame.len());
            }
            Load::Super(segments) => {
                let narrowed = if segments.longest() > room { segments.narrowed(room) } else { Some(**segments) };
                let segments = narrowed.ok_or(Drop::TooBig)?;
                for n in 0..segments.count() {
                    let len = segments.len_of(n);
                    match self.encapsulate(way, len, Unfinished::None, |into| segments.write_whole(n, into)) {
                        Ok(()) => sent.add(len),
                        Err(reason) => self.tally.drop(reason),
                    }
                }
            }
        }
        tunnel.sent(sent);
        Ok(())
    }

    /// Writes one datagram of VXLAN: by this door, where to, on which network as it is called there.
    #[inline]
    pub(super) fn encapsulate(
        &mut self,
        (door, to, vni): (u16, SocketAddr, NetId),
        len: usize,
        unfinished: Unfinished,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), Drop> {
        let datagram = self.out.tunnelled(door, to, VXLAN_LEN + len).ok_or(Drop::SinkFull)?;
        let (header, frame) = datagram.split_first_chunk_mut::<VXLAN_LEN>().ok_or(Drop::SinkFull)?;
        vxlan::emit(vni, header);
        fill(frame);
        match unfinished {
            Unfinished::None => Ok(()),
            Unfinished::Leave(partial) if vxlan::mark_unfinished(header, partial) => Ok(()),
            // It cannot fail: where it is was found in this very frame.
            Unfinished::Complete(partial) | Unfinished::Leave(partial) => {
                checksum::complete(frame, partial).map_err(|_| Drop::Malformed)
            }
        }
    }

    /// A frame of our own.
    pub(super) fn deliver_to_tunnel(&mut self, tunnel: &Tunnel, frame: &[u8]) {
        if let Err(reason) = self.send_to_tunnel(tunnel, &Load::Frame(frame), false) {
            self.tally.drop(reason);
        }
    }

    /// Tells the sender of a frame that does not fit how much would; false: it does not want to know, or cannot be told.
    pub(super) fn tell_mtu(&mut self, back: Back, frame: &Frame<'_>, mtu: usize) -> bool {
        let mut reply = [0; fragment::REPLY_MAX];
        let told = fragment::too_big(frame, mtu, &mut reply).and_then(|length| reply.get(..length));
        let Some(reply) = told else { return false };
        match back {
            Back::Port(port) => self.deliver(port, reply),
            Back::Peer(network, destination) => {
                let Some(path) = self.fib.next_hops.get(&destination) else { return false };
                let (origin, number, hops) = (self.fib.me, 0, HOPS_MAX);
                let inner = Inner { origin, destination, number, network, hops, partial: false, fragment: None };
                if let Err(reason) = self.send_all(path, &inner, &Load::Frame(reply)) {
                    self.tally.drop(reason);
                }
            }
        }
        true
    }
}
