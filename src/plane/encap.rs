//! Frames to VTEPs and from them: VXLAN as RFC 7348 has it, around what `carry` and `switch` do.
//!
//! ```text
//! from a VTEP   whose: door, source, VNI > frame > joins a run, or > guard > macs learn > answered here > switch
//! to a VTEP     super-frames are cut, checksums completed, each frame behind a header in the memory that it is sent from
//! ```
//!
//! Bits that the RFC reserves are not looked at. Nothing is cut to fit (RFC 7348, section 4.3): a frame too big for the route
//! to a VTEP, or one from there too big for the network's attachments, is answered by ICMP where its sender wants to know, and
//! dropped and counted where not. What a frame's sender may say is `guard`'s.

use super::counters::Count;
use super::fib::{NetworkEntry, PortId};
use super::macs::Place;
use super::offload::{self, Arrival, Coalescer, Layout, Merge, checksum};
use super::switch::{self, Came, Ports, Verdict};
use super::tunnel::Tunnel;
use super::{Drop, Load, Sink, Way, fragment, guard};
use crate::types::{Instant, Mac, NetId, ShortId};
use crate::wire::Malformed;
use crate::wire::datagram::{HOPS_MAX, Inner};
use crate::wire::frame::{Frame, HEADER_LEN};
use crate::wire::virtio::Partial;
use crate::wire::vxlan::{self, VXLAN_LEN};
use std::net::IpAddr;
use std::sync::Arc;

/// A VLAN tag: it does not count against an MTU.
const TAG_LEN: usize = 4;

/// Where the sender of a frame is told something.
#[derive(Debug, Clone, Copy)]
pub(super) enum Back {
    /// At this port.
    Port(PortId),
    /// On this network of a peer.
    Peer(NetId, ShortId),
}

/// The tunnel that the last datagram was of, and what came by it since it was last told: a look-up and two atomics less for each.
#[derive(Default)]
pub(super) struct Recent<'f> {
    tunnel: Option<&'f Tunnel>,
    count: Count,
}

impl<'f> Recent<'f> {
    fn is(&self, (door, from): (u16, IpAddr), vni: NetId) -> Option<&'f Tunnel> {
        self.tunnel.filter(|tunnel| {
            let ends = &tunnel.ends;
            ends.vni == vni && ends.door == door && ends.to.ip() == from
        })
    }

    fn count(&mut self, tunnel: &'f Tunnel, bytes: usize, now: Instant) {
        if self.tunnel != Some(tunnel) {
            self.tell(now);
            self.tunnel = Some(tunnel);
        }
        self.count.add(bytes);
    }

    /// Tells the tunnel what was counted.
    pub fn tell(&mut self, now: Instant) {
        let count = std::mem::take(&mut self.count);
        if let Some(tunnel) = self.tunnel.filter(|_| count.frames > 0) {
            tunnel.received(count, now);
        }
    }
}

impl<'a, S: Sink> Way<'a, S> {
    /// A datagram that came to a door.
    pub(super) fn tunnelled<'d>(
        &mut self,
        source: (u16, IpAddr),
        datagram: &'d [u8],
        recent: &mut Recent<'a>,
        held: &mut Coalescer<'d>,
    ) -> Result<(), Drop> {
        let fib = self.fib;
        let parsed = vxlan::parse(datagram);
        let known = parsed.ok().and_then(|(vni, _)| recent.is(source, vni));
        let (tunnel, bytes) = match (known, parsed) {
            (Some(tunnel), Ok((_, bytes))) => (tunnel, bytes),
            _ if !fib.tunnels.knows(source.0, source.1) => return Err(Drop::VtepUnknown),
            (_, Err(Malformed::Truncated)) => return Err(Drop::VtepTruncated),
            (_, Err(_)) => return Err(Drop::VtepNoVni),
            (None, Ok((vni, bytes))) => (&**fib.tunnels.find(source.0, source.1, vni).ok_or(Drop::VtepVni)?, bytes),
        };
        let frame = Frame::parse(bytes).map_err(|_| Drop::VtepTruncated)?;
        recent.count(tunnel, bytes.len(), self.now);
        let (network, port) = (tunnel.ends.network, tunnel.ends.port);
        let entry = fib.networks.get(&network).ok_or(Drop::NotOpen)?;
        // One that continues a run was looked at when the run began.
        let arrival = |bridge| {
            let way = offload::Way { port: bridge, origin: Place::Port(port) };
            Arrival { way, frame: bytes, partial: false }
        };
        if entry.port.is_some_and(|bridge| held.join(arrival(bridge))) {
            self.tally.to_bridge.add(bytes.len());
            return Ok(());
        }
        guard::check_tunnelled(fib, network, entry, &frame)?;
        self.learn(network, frame.src(), Place::Port(port));
        self.ask(port, network, &frame, Ok(()))?;
        self.check_size(entry, port, &frame)?;
        let came = Came { network, entry, port };
        let inner = |destination| {
            let (origin, hops) = (fib.me, HOPS_MAX);
            Inner { origin, destination, network, hops, partial: false, fragment: None }
        };
        let load = Load::Frame(bytes);
        match switch::from_port(fib, &self.plane.macs, came, frame.dst(), self.now) {
            Verdict::Drop(reason) => Err(reason),
            Verdict::Forward { to, path } => match self.send(path, &inner(to), &load) {
                Err(Drop::TooBig) if self.tell_too_big(port, &frame, path)? => Err(Drop::TooBig),
                Err(Drop::TooBig) => self.send_pieces(path, &inner(to), &load),
                sent => sent,
            },
            Verdict::Flood => match self.flood(&inner(ShortId::FLOOD), &load, None) {
                0 => Err(Drop::NoPeers),
                _ => Ok(()),
            },
            Verdict::Deliver(Ports { bridge, .. }) => {
                let bridge = bridge.ok_or(Drop::NotOpen)?;
                let takes = self.out.takes(bridge);
                self.begin(arrival(bridge), Merge { tcp: takes.tcp, udp: takes.udp }, held);
                Ok(())
            }
            Verdict::DeliverAndFlood(Ports { bridge, .. }) => {
                // Not as a run: what would join it has to be flooded too.
                bridge.into_iter().for_each(|bridge| self.begin(arrival(bridge), Merge::default(), held));
                self.flood(&inner(ShortId::FLOOD), &load, None);
                Ok(())
            }
        }
    }

    fn begin<'d>(&mut self, arrival: Arrival<'d>, merge: Merge, held: &mut Coalescer<'d>) {
        self.tally.to_bridge.add(arrival.frame.len());
        let out = &mut *self.out;
        held.begin(arrival, merge, &mut |port, offload, parts| out.deliver(port, offload, parts));
    }

    /// A VTEP's side may have a larger MTU than attachments, whose bridge would drop what they cannot take in silence.
    fn check_size(&mut self, entry: &NetworkEntry, from: PortId, frame: &Frame<'_>) -> Result<(), Drop> {
        let Some(mtu) = entry.mtu.map(usize::from) else { return Ok(()) };
        let tag = if matches!(frame.ether_type(), 0x8100 | 0x88a8) { TAG_LEN } else { 0 };
        if frame.bytes().len() <= mtu + HEADER_LEN + tag {
            return Ok(());
        }
        Err(if self.tell_mtu(Back::Port(from), frame, mtu) { Drop::TooBig } else { Drop::VtepTooBig })
    }

    /// Which of these ports a frame from a peer is for.
    #[inline]
    pub(super) fn among<'p>(&self, ports: Ports<'p>, network: NetId, bytes: &[u8]) -> Result<Ports<'p>, Drop>
    where
        'a: 'p,
    {
        if ports.tunnels.is_empty() {
            return Ok(ports);
        }
        let dst = Mac(*bytes.first_chunk().ok_or(Drop::Malformed)?);
        Ok(switch::among(self.fib, &self.plane.macs, ports, (network, dst), self.now))
    }

    /// A whole frame of a peer for VTEPs, and perhaps for the bridge too.
    pub(super) fn accept_for_tunnels<'d>(
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
            self.begin(Arrival { way, frame: bytes, partial: false }, Merge::default(), held);
        }
        let back = Back::Peer(inner.network, inner.origin);
        self.to_tunnels(ports.tunnels, (back, &frame), &Load::Frame(bytes), false);
        Ok(())
    }

    /// Sends a frame to VTEPs; what does not get through to one of them is counted and does not keep it from
    /// the others.
    pub(super) fn to_tunnels(
        &mut self,
        tunnels: &[Arc<Tunnel>],
        (back, frame): (Back, &Frame<'_>),
        load: &Load<'_>,
        partial: bool,
    ) {
        for tunnel in tunnels {
            let sent = match self.to_tunnel(tunnel, load, partial) {
                Err(Drop::TooBig) if !self.tell_mtu(back, frame, tunnel.mtu()) => Err(Drop::VtepTooBig),
                sent => sent,
            };
            if let Err(reason) = sent {
                self.tally.drop(reason);
            }
        }
    }

    /// Writes one datagram, or one for each segment. `TooBig`: nothing was written.
    fn to_tunnel(&mut self, tunnel: &Tunnel, load: &Load<'_>, partial: bool) -> Result<(), Drop> {
        let room = tunnel.room();
        let mut sent = Count::default();
        match load {
            Load::Frame(frame) if frame.len() > room => return Err(Drop::TooBig),
            Load::Frame(frame) => {
                let partial = if partial { Layout::of(frame).map(|layout| layout.partial()) } else { None };
                self.encapsulate(tunnel, frame.len(), partial, |into| into.copy_from_slice(frame))?;
                sent.add(frame.len());
            }
            Load::Super(segments) => {
                let narrowed = if segments.longest() > room { segments.narrowed(room) } else { Some(**segments) };
                let segments = narrowed.ok_or(Drop::TooBig)?;
                for n in 0..segments.count() {
                    let len = segments.len_of(n);
                    match self.encapsulate(tunnel, len, Some(segments.partial()), |into| segments.write(n, into)) {
                        Ok(()) => sent.add(len),
                        Err(reason) => self.tally.drop(reason),
                    }
                }
            }
        }
        tunnel.sent(sent);
        Ok(())
    }

    fn encapsulate(
        &mut self,
        tunnel: &Tunnel,
        len: usize,
        partial: Option<Partial>,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), Drop> {
        let datagram = self.out.tunnelled(tunnel.ends.door, tunnel.ends.to, VXLAN_LEN + len).ok_or(Drop::SinkFull)?;
        let (header, frame) = datagram.split_first_chunk_mut::<VXLAN_LEN>().ok_or(Drop::SinkFull)?;
        vxlan::emit(tunnel.ends.vni, header);
        fill(frame);
        match partial {
            // It cannot fail: where it is was found in this very frame.
            Some(partial) => checksum::complete(frame, partial).map_err(|_| Drop::Malformed),
            None => Ok(()),
        }
    }

    /// A frame of our own.
    pub(super) fn deliver_to_tunnel(&mut self, tunnel: &Tunnel, frame: &[u8]) {
        if let Err(reason) = self.to_tunnel(tunnel, &Load::Frame(frame), false) {
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
                let (origin, hops) = (self.fib.me, HOPS_MAX);
                let inner = Inner { origin, destination, network, hops, partial: false, fragment: None };
                if let Err(reason) = self.send_all(path, &inner, &Load::Frame(reply)) {
                    self.tally.drop(reason);
                }
            }
        }
        true
    }
}
