//! Frames from VTEPs: VXLAN as RFC 7348 has it, around what `carry` and `switch` do. To VTEPs: `encap`.
//!
//! ```text
//! whose: door, source, VNI > frame > joins a run, or > guard > macs learn > answered here > switch
//! ```
//!
//! Bits that the RFC reserves are not looked at. What a frame may say is `guard`'s. One that is too big for the network's
//! attachments is answered by ICMP where its sender wants to know, and dropped and counted where not: their bridge would do so
//! in silence.
//!
//! A VTEP whose packets cross no wire (a veth, a virtual machine's device that takes tunnels whole) may leave to us what a wire
//! would have forced it to do: a transport checksum that holds only the sum of its pseudo-header is taken as unfinished, and a
//! frame of TCP with such a checksum that is longer than the network takes as a super-frame. A checksum that is right though it
//! looks unfinished is the same when it is completed.

use super::counters::Count;
use super::encap::Back;
use super::fib::PortId;
use super::local::Sending;
use super::macs::Place;
use super::offload::layout::Protocol;
use super::offload::{self, Arrival, Coalescer, Layout, Merge, Segments, checksum};
use super::switch::{self, Came, Ports, Verdict};
use super::tunnel::Tunnel;
use super::{Drop, Load, Sink, Takes, Way, guard, mss};
use crate::types::{Instant, NetId, ShortId};
use crate::wire::Malformed;
use crate::wire::datagram::{HOPS_MAX, Inner};
use crate::wire::frame::{Frame, HEADER_LEN};
use crate::wire::virtio::{Gso, Offload};
use crate::wire::vxlan::{self, VXLAN_LEN};
use std::net::IpAddr;

/// A VLAN tag: it does not count against an MTU.
const TAG_LEN: usize = 4;

/// TCP's flag that only the first segment may have.
const CWR: u8 = 0x80;

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

    fn count(&mut self, tunnel: &'f Tunnel, load: &Load<'_>, now: Instant) {
        if self.tunnel != Some(tunnel) {
            self.tell(now);
            self.tunnel = Some(tunnel);
        }
        self.count.add_all(load.frames(), load.bytes());
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
        datagram: &'d mut [u8],
        recent: &mut Recent<'a>,
        held: &mut Coalescer<'d>,
    ) -> Result<(), Drop> {
        let fib = self.fib;
        let tunnel = self.whose(source, datagram, recent)?;
        if !tunnel.carries() {
            return Err(Drop::VtepBlocked);
        }
        let bytes = datagram.get_mut(VXLAN_LEN..).filter(|bytes| bytes.len() >= HEADER_LEN);
        let bytes = bytes.ok_or(Drop::VtepTruncated)?;
        let (network, port) = (tunnel.ends.network, tunnel.ends.port);
        let entry = fib.networks.get(&network).ok_or(Drop::NotOpen)?;
        let takes = entry.port.map(|bridge| self.out.takes(bridge)).unwrap_or_default();
        let mtu = entry.mtu.map_or_else(|| tunnel.mtu(), usize::from);
        let (partial, gso) = settle(bytes, mtu, takes)?;
        if mss::is_syn(bytes) {
            mss::lower(bytes, tunnel.room(), partial);
        }
        let bytes: &'d [u8] = bytes;
        let segments = gso.map(|gso| Segments::new(bytes, &gso)).transpose().map_err(|_| Drop::Malformed)?;
        let load = segments.as_ref().map_or(Load::Frame(bytes), Load::Super);
        recent.count(tunnel, &load, self.now);
        // One that continues a run was looked at when the run began.
        let arrival = |bridge| {
            let way = offload::Way { port: bridge, origin: Place::Port(port) };
            Arrival { way, frame: bytes, partial }
        };
        if gso.is_none() && entry.port.is_some_and(|bridge| held.join(arrival(bridge))) {
            self.tally.to_bridge.add(bytes.len());
            return Ok(());
        }
        let frame = Frame::parse(bytes).map_err(|_| Drop::Malformed)?;
        guard::check_stranger(fib, network, entry, &frame)?;
        self.hears_beacon(Some(port), network, bytes)?;
        self.learn(network, frame.src(), Place::Port(port));
        self.ask(port, network, &frame, Ok(()))?;
        if gso.is_none() && entry.mtu.is_some() {
            self.check_size(port, &frame, mtu)?;
        }
        let inner = |destination| {
            let (origin, number, hops) = (fib.me, 0, HOPS_MAX);
            Inner { origin, destination, number, network, hops, partial: partial || gso.is_some(), fragment: None }
        };
        match switch::from_port(fib, &self.plane.macs, Came { network, entry, port }, frame.dst(), self.now) {
            Verdict::Drop(reason) => Err(reason),
            Verdict::Forward { to, path } => match self.send(path, &inner(to), &load) {
                Err(Drop::TooBig) if self.tell_too_big(port, &frame, path)? => Err(Drop::TooBig),
                Err(Drop::TooBig) => self.send_pieces(path, &inner(to), &load),
                sent => sent,
            },
            Verdict::Flood => match self.flood(&inner(ShortId::FLOOD), &load) {
                0 => Err(Drop::NoPeers),
                _ => Ok(()),
            },
            Verdict::Deliver(ports) => {
                let merge = Merge { tcp: takes.tcp, udp: takes.udp };
                match ports.bridge {
                    Some(bridge) => self.hand_over(arrival(bridge), &load, (gso, merge), held),
                    None => {
                        let sending = Sending { back: Back::Port(port), frame: &frame, load: &load, partial };
                        self.hand_out(ports, network, &sending);
                    }
                }
                Ok(())
            }
            Verdict::DeliverAndFlood(ports) => {
                if let Some(bridge) = ports.bridge {
                    // Not as a run: what would join it has to be flooded too.
                    self.hand_over(arrival(bridge), &load, (gso, Merge::default()), held);
                }
                let sending = Sending { back: Back::Port(port), frame: &frame, load: &load, partial };
                self.hand_out(Ports { bridge: None, ..ports }, network, &sending);
                self.flood(&inner(ShortId::FLOOD), &load);
                Ok(())
            }
        }
    }

    /// The tunnel that a datagram is of.
    fn whose(&self, source: (u16, IpAddr), datagram: &[u8], recent: &Recent<'a>) -> Result<&'a Tunnel, Drop> {
        let tunnels = &self.fib.tunnels;
        let vni = vxlan::parse(datagram).map(|(vni, _)| vni);
        if let Some(tunnel) = vni.ok().and_then(|vni| recent.is(source, vni)) {
            return Ok(tunnel);
        }
        match vni {
            _ if !tunnels.knows(source.0, source.1) => Err(Drop::VtepUnknown),
            Err(Malformed::Truncated) => Err(Drop::VtepTruncated),
            Err(_) => Err(Drop::VtepNoVni),
            Ok(vni) => tunnels.find(source.0, source.1, vni).map(|tunnel| &**tunnel).ok_or(Drop::VtepVni),
        }
    }

    fn check_size(&mut self, from: PortId, frame: &Frame<'_>, mtu: usize) -> Result<(), Drop> {
        let tag = if matches!(frame.ether_type(), 0x8100 | 0x88a8) { TAG_LEN } else { 0 };
        if frame.bytes().len() <= mtu + HEADER_LEN + tag {
            return Ok(());
        }
        Err(if self.tell_mtu(Back::Port(from), frame, mtu) { Drop::TooBig } else { Drop::VtepTooBig })
    }

    /// A frame or super-frame for the bridge.
    pub(super) fn hand_over<'d>(
        &mut self,
        arrival: Arrival<'d>,
        load: &Load<'_>,
        (gso, merge): (Option<Gso>, Merge),
        held: &mut Coalescer<'d>,
    ) {
        let (Load::Super(segments), Some(gso)) = (load, gso) else {
            return self.hold(arrival, merge, held);
        };
        // What came before it goes before it.
        self.flush(held);
        self.tally.to_bridge.add_all(load.frames(), load.bytes());
        let (port, takes) = (arrival.way.port, self.out.takes(arrival.way.port));
        if !(takes.tcp && takes.checksum) || gso.ecn {
            return self.deliver_each(port, segments);
        }
        let offload = Offload { checksum: Some(segments.partial()), gso: Some(gso) };
        let (headers, payload) = arrival.frame.split_at_checked(gso.headers.into()).unwrap_or((arrival.frame, &[]));
        self.out.deliver(port, &offload, &[headers, payload]);
    }

    /// Delivers a frame, or holds it for those that continue it.
    pub(super) fn hold<'d>(&mut self, arrival: Arrival<'d>, merge: Merge, held: &mut Coalescer<'d>) {
        self.tally.to_bridge.add(arrival.frame.len());
        let out = &mut *self.out;
        held.begin(arrival, merge, &mut |port, offload, parts| out.deliver(port, offload, parts));
    }
}

/// What a kernel left to do on a frame from a VTEP: whether its checksum is unfinished, and how it is cut if it is a
/// super-frame. A checksum that the port does not take unfinished is completed in place.
pub(super) fn settle(bytes: &mut [u8], mtu: usize, takes: Takes) -> Result<(bool, Option<Gso>), Drop> {
    let Some(layout) = Layout::of(bytes).filter(|layout| checksum::is_partial(bytes, layout)) else {
        return Ok((false, None));
    };
    let most = mtu + HEADER_LEN;
    let size = most.saturating_sub(layout.payload);
    if bytes.len() > most && layout.protocol == Protocol::Tcp && size > 0 {
        let ecn = bytes.get(layout.transport + 13).is_some_and(|flags| flags & CWR != 0);
        let (size, headers) = (u16::try_from(size), u16::try_from(layout.payload));
        let (size, headers) = (size.map_err(|_| Drop::Malformed)?, headers.map_err(|_| Drop::Malformed)?);
        return Ok((false, Some(Gso { kind: layout.gso_kind(), ecn, size, headers })));
    }
    if takes.checksum {
        return Ok((true, None));
    }
    checksum::complete(bytes, layout.partial()).map_err(|_| Drop::Malformed)?;
    Ok((false, None))
}
