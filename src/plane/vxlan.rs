//! VXLAN between peers (RFC 7348): the faster framing of a path that is not encrypted, done by rnet. VTEPs, which are not rnet, are
//! `encap`'s and `decap`'s.
//!
//! It carries one kind of frame: unicast of this host for the neighbour itself, or of the neighbour for this host. Floods, what is
//! relayed, and what does not fit go by rnet's own framing, so a broadcast comes out once whatever framings there are and
//! while they change. Which framing a path has for the moment is control's (`mesh::choice`); what comes in is taken as soon as
//! VXLAN is agreed, because the two ends change over at different moments.
//!
//! ```text
//! out   own unicast for the neighbour, fits > header | frame, cut if it is a super-frame > (Sink) by the door
//! in    VNI of peers > a probe, sealed: control opens it
//!       source is a neighbour with whom it is agreed > network is open > no group > as any frame that came in by the path
//! ```
//!
//! Checksums leave complete if the other end is a kernel's device. To one that is rnet they leave unfinished, as they came from the
//! bridge, and the header says so (`wire::vxlan`): the checksum of the outer UDP covers the same bytes. They may come unfinished
//! without a word, and TCP in super-frames, from a device whose packets crossed no wire: see `decap`. The header says nothing of
//! who sent it: it is as good as the address that it came from, which is why both ends have to trust that.

use super::decap::settle;
use super::encap::{Back, Unfinished};
use super::local::Sending;
use super::macs::Place;
use super::offload::{self, Arrival, Coalescer, Layout, Merge, Segments};
use super::path::{Path, Writer};
use super::switch::Ports;
use super::{Drop, Event, Load, Sink, Way, carry, guard};
use crate::types::{Mac, NetId, ShortId};
use crate::wire::beat;
use crate::wire::datagram::{Inner, Kind, Outer};
use crate::wire::frame::{Frame, HEADER_LEN};
use crate::wire::vxlan::{self, VXLAN_LEN};
use std::net::{IpAddr, SocketAddr};

/// By what frames of this host for a neighbour itself go to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Carrier {
    /// rnet's own framing.
    #[default]
    Udp,
    /// VXLAN, as here.
    Vxlan(End),
    /// The kernel, once it is told of their MAC; until then rnet's own framing.
    Kernel,
}

/// The other end of a VXLAN path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The UDP port of this host by which datagrams leave.
    pub door: u16,
    /// Where they go.
    pub to: SocketAddr,
    /// The most bytes of a frame, Ethernet header included, that are known to get through.
    pub room: usize,
    /// Whether it takes unfinished checksums.
    pub unfinished: bool,
}

/// The neighbour that the last datagram was of: a look-up less for each.
#[derive(Default)]
pub(super) struct Recent<'f>(Option<(IpAddr, &'f Path, ShortId)>);

impl<'a, S: Sink> Way<'a, S> {
    /// Sends by VXLAN, if the path has that and it is for such a frame; false: nothing was sent.
    #[inline]
    pub(super) fn send_vxlan(&mut self, writer: &Writer, inner: &Inner, load: &Load<'_>) -> Result<bool, Drop> {
        let Some(end) = writer.vxlan(inner, self.fib.me) else { return Ok(false) };
        match load {
            Load::Frame(frame) if frame.len() > end.room => return Ok(false),
            Load::Frame(frame) => {
                let layout = if inner.partial { Layout::of(frame) } else { None };
                let unfinished = match layout.map(|layout| layout.partial()) {
                    None => Unfinished::None,
                    Some(partial) if end.unfinished => Unfinished::Leave(partial),
                    Some(partial) => Unfinished::Complete(partial),
                };
                self.encapsulate((end.door, end.to, inner.network), frame.len(), unfinished, |into| {
                    into.copy_from_slice(frame);
                    // As narrow as the framing that may take over at any time.
                    carry::lower_mss(into, inner, || writer.limit());
                })?;
                self.count_out(frame.len());
            }
            Load::Super(segments) if segments.longest() > end.room => return Ok(false),
            Load::Super(segments) => {
                for n in 0..segments.count() {
                    let (len, way) = (segments.len_of(n), (end.door, end.to, inner.network));
                    let written = if end.unfinished {
                        let unfinished = Unfinished::Leave(segments.partial());
                        self.encapsulate(way, len, unfinished, |into| segments.write(n, into))
                    } else {
                        self.encapsulate(way, len, Unfinished::None, |into| segments.write_whole(n, into))
                    };
                    match written {
                        Ok(()) => self.count_out(len),
                        Err(reason) => self.tally.drop(reason),
                    }
                }
            }
        }
        Ok(true)
    }

    fn count_out(&mut self, len: usize) {
        self.tally.to_net.add(len);
        self.tally.to_vxlan.add(len);
    }

    /// A datagram that came to the door of peers.
    pub(super) fn peered<'d>(
        &mut self,
        from: SocketAddr,
        datagram: &'d mut [u8],
        recent: &mut Recent<'a>,
        held: &mut Coalescer<'d>,
    ) -> Result<(), Drop> {
        let fib = self.fib;
        let Ok((network, _)) = vxlan::parse(datagram) else { return self.beat(from, datagram) };
        let (came, origin) = match recent.0 {
            Some((ip, path, peer)) if ip == from.ip() => (path, peer),
            _ => {
                let path = &**fib.vxlan_sources.get(&from.ip().to_canonical()).ok_or(Drop::VxlanUnknown)?;
                (path, path.peer())
            }
        };
        recent.0 = Some((from.ip(), came, origin));
        let bytes = datagram.get_mut(VXLAN_LEN..).filter(|bytes| bytes.len() >= HEADER_LEN);
        let bytes = bytes.ok_or(Drop::VxlanMalformed)?;
        if bytes.first().is_none_or(|first| first & 1 != 0) {
            return Err(Drop::VxlanGroup);
        }
        let entry = fib.networks.get(&network).filter(|entry| !entry.all().is_empty()).ok_or(Drop::NotOpen)?;
        let takes = entry.port.map(|bridge| self.out.takes(bridge)).unwrap_or_default();
        let mtu = entry.mtu.map_or(usize::from(u16::MAX), usize::from);
        let (partial, gso) = settle(bytes, mtu, takes)?;
        let (destination, number, hops) = (fib.me, 0, 0);
        let inner = Inner { origin, destination, number, network, hops, partial, fragment: None };
        carry::lower_mss(bytes, &inner, || came.writer().ok()?.limit());
        let Some(gso) = gso else {
            self.count_in(1, bytes.len());
            return self.arrive(entry.all(), (came, &inner), bytes, held);
        };
        let bytes: &'d [u8] = bytes;
        let segments = Segments::new(bytes, &gso).map_err(|_| Drop::Malformed)?;
        let load = Load::Super(&segments);
        self.count_in(load.frames(), load.bytes());
        let frame = Frame::parse(bytes).map_err(|_| Drop::Malformed)?;
        guard::check_arrival(entry, &frame)?;
        if fib.next_hops.contains_key(&origin) {
            self.learn(network, frame.src(), Place::Peer(origin));
        }
        let ports = self.among(entry.all(), network, bytes)?;
        let sending = Sending { back: Back::Peer(network, origin), frame: &frame, load: &load, partial: true };
        self.hand_out(Ports { bridge: None, ..ports }, network, &sending);
        if let Some(port) = ports.bridge {
            let way = offload::Way { port, origin: Place::Peer(origin) };
            self.hand_over(Arrival { way, frame: bytes, partial: true }, &load, (Some(gso), Merge::default()), held);
        }
        Ok(())
    }

    fn count_in(&mut self, frames: usize, bytes: usize) {
        self.tally.from_net.add_all(frames, bytes);
        self.tally.from_vxlan.add_all(frames, bytes);
    }

    /// A probe of a VXLAN path, or nothing that anybody here would have sent. It is opened by control: only the path's number is looked
    /// at, which strangers do not know.
    #[cold]
    fn beat(&mut self, from: SocketAddr, datagram: &[u8]) -> Result<(), Drop> {
        let frame = vxlan::of_peers(datagram).ok_or(Drop::VxlanMalformed)?;
        let probe = beat::datagram(frame).ok_or(Drop::VxlanMalformed)?;
        let outer = Outer::parse(probe).ok().filter(|outer| outer.kind == Kind::Probe).ok_or(Drop::VxlanMalformed)?;
        if !self.fib.by_index.contains_key(&outer.index) {
            return Err(Drop::UnknownIndex);
        }
        let size = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
        self.out.event(Event::Beat { from, datagram: probe.to_vec(), size, at: self.now });
        Ok(())
    }

    /// Tells control of a MAC that frames from the bridge go to by `path`, if the kernel could carry them.
    #[inline]
    pub(super) fn offer(&mut self, path: &Path, (network, peer): (NetId, ShortId), mac: Mac) {
        // What is behind an uplink or a VTEP of the peer is not on its bridge, which is all that its kernel knows.
        let is_attached = || self.fib.neighbours.place(network, mac).is_some();
        if path.is_for_kernel()
            && path.peer() == peer
            && is_attached()
            && self.plane.offers.raise(network, mac, self.now)
        {
            self.out.event(Event::Offload { network, mac, peer });
        }
    }
}
