//! Frames to the ports of this host: its bridge, uplinks, VTEPs; and what uplinks bring.
//!
//! A port takes frames as its kernel can (`Takes`) and as long as it has room: what a sender of TCP left uncut is cut smaller,
//! whoever else wants to know is told by ICMP how much would fit, and the rest is dropped and counted. Nothing is cut into pieces:
//! behind a port are machines that do not know rnet.

use super::counters::Count;
use super::encap::Back;
use super::fib::{NetworkEntry, PortId};
use super::offload::{Layout, Segments, checksum};
use super::switch::{Ports, Verdict};
use super::uplink::{BEACONS, Uplink};
use super::{Drop, Event, Load, Sink, Way, guard};
use crate::types::NetId;
use crate::wire::beacon::{BODY_LEN, is_beacon};
use crate::wire::frame::{Frame, HEADER_LEN, SUPER_FRAME_MAX};
use crate::wire::virtio::Offload;
use smallvec::SmallVec;

/// A VLAN tag: it does not count against an MTU.
const TAG_LEN: usize = 4;

/// A frame or super-frame, and where its sender is told something.
pub(super) struct Sending<'f> {
    pub back: Back,
    pub frame: &'f Frame<'f>,
    pub load: &'f Load<'f>,
    /// The checksum of the one frame holds only the sum of its pseudo-header.
    pub partial: bool,
}

impl<'a, S: Sink> Way<'a, S> {
    /// Whether a frame that came in by an uplink goes on, and counts it.
    pub(super) fn admit(
        &mut self,
        uplink: &Uplink,
        entry: &NetworkEntry,
        frame: &Frame<'_>,
        load: &Load<'_>,
    ) -> Result<(), Drop> {
        if !uplink.carries() {
            return Err(Drop::UplinkBlocked);
        }
        let mut count = Count::default();
        count.add_all(load.frames(), load.bytes());
        uplink.received(count);
        guard::check_stranger(self.fib, uplink.network, entry, frame).map_err(|why| match why {
            Drop::VtepLooped => Drop::UplinkLooped,
            other => other,
        })
    }

    /// What is left to do on a captured frame: as the capture tells, or as it looks where that tells nothing.
    pub(super) fn found(&self, from: PortId, frame: &[u8], told: &Offload) -> Result<Offload, Drop> {
        let entry = self.fib.ports.get(&from).and_then(|network| self.fib.networks.get(network));
        match entry.filter(|entry| !entry.uplinks.is_empty()).and_then(|entry| entry.uplink(from)) {
            Some(uplink) if uplink.bare => uplink.found(frame),
            _ => Ok(*told),
        }
    }

    /// What an uplink may not bring: floods beyond its share, and frames for attachments that are longer than these take.
    pub(super) fn bound(
        &mut self,
        uplink: &Uplink,
        entry: &NetworkEntry,
        sending: &Sending<'_>,
        verdict: &Verdict<'_>,
    ) -> Result<(), Drop> {
        match verdict {
            Verdict::Flood | Verdict::DeliverAndFlood(_) if !uplink.admits_flood(sending.load.frames(), self.now) => {
                Err(Drop::FloodRate)
            }
            Verdict::Forward { .. } => match sending.load {
                Load::Frame(_) if self.fib.neighbours.place(uplink.network, sending.frame.dst()).is_some() => {
                    self.check_room(entry.mtu.map(usize::from), sending)
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Takes in a beacon, if the frame is one and somebody here wants to hear of it. True: it goes no further.
    #[inline]
    pub(super) fn hears_beacon(&mut self, port: Option<PortId>, network: NetId, bytes: &[u8]) -> Result<bool, Drop> {
        if !is_beacon(bytes) {
            return Ok(false);
        }
        let Some(entry) = self.fib.networks.get(&network) else { return Ok(false) };
        let at = port.and_then(|port| entry.uplinks.iter().find(|uplink| uplink.port == port));
        let of_uplink = at.or(entry.uplinks.first()).map(|uplink| &uplink.beacons);
        let Some(bucket) = of_uplink.or(entry.tunnels.first().map(|tunnel| &tunnel.beacons)) else { return Ok(false) };
        if !bucket.admit(BEACONS, 1, self.now) {
            return Err(Drop::BeaconRate);
        }
        let body = bytes.get(HEADER_LEN..).and_then(|body| body.get(..BODY_LEN)).ok_or(Drop::Malformed)?;
        let (port, at_uplink) = (port, at.is_some());
        self.out.event(Event::Beacon { port, network, body: SmallVec::from_slice(body), at: self.now });
        Ok(at_uplink)
    }

    /// Gives a frame to ports; what does not get through to one of them is counted and does not keep it from the others.
    pub(super) fn hand_out(&mut self, ports: Ports<'_>, network: NetId, sending: &Sending<'_>) {
        if let Some(bridge) = ports.bridge {
            let mtu = self.fib.networks.get(&network).and_then(|entry| entry.mtu).map(usize::from);
            let sent = self.hand_to(bridge, mtu, sending);
            self.note(sent);
        }
        // A beacon on a segment says that its sender is there.
        if !is_beacon(sending.frame.bytes()) {
            for uplink in ports.uplinks() {
                let sent = self.hand_to_uplink(uplink, sending);
                self.note(sent);
            }
        }
        self.send_to_tunnels(ports.tunnels, (sending.back, sending.frame), sending.load, sending.partial);
    }

    pub(super) fn hand_to_uplink(&mut self, uplink: &Uplink, sending: &Sending<'_>) -> Result<(), Drop> {
        self.hand_to(uplink.port, Some(uplink.mtu()), sending)?;
        let mut count = Count::default();
        count.add_all(sending.load.frames(), sending.load.bytes());
        uplink.sent(count);
        Ok(())
    }

    fn note(&mut self, sent: Result<(), Drop>) {
        if let Err(reason) = sent {
            self.tally.drop(reason);
        }
    }

    /// Gives a frame to a port that takes packets of `mtu` bytes.
    fn hand_to(&mut self, port: PortId, mtu: Option<usize>, sending: &Sending<'_>) -> Result<(), Drop> {
        let room = mtu.map_or(SUPER_FRAME_MAX, |mtu| mtu + HEADER_LEN);
        match sending.load {
            Load::Frame(bytes) => {
                self.check_room(mtu, sending)?;
                self.tally.to_bridge.add(bytes.len());
                self.deliver_one(port, bytes, sending.partial)
            }
            Load::Super(segments) if segments.longest() <= room => self.deliver_super(port, segments),
            Load::Super(segments) => match segments.narrowed(room) {
                Some(narrowed) => self.deliver_super(port, &narrowed),
                None => Err(self.too_big(mtu.unwrap_or(0), sending)),
            },
        }
    }

    /// Whether a port that takes packets of `mtu` bytes takes this frame; its sender is told if not.
    pub(super) fn check_room(&mut self, mtu: Option<usize>, sending: &Sending<'_>) -> Result<(), Drop> {
        let tag = if matches!(sending.frame.ether_type(), 0x8100 | 0x88a8) { TAG_LEN } else { 0 };
        match mtu {
            Some(mtu) if sending.frame.bytes().len() > mtu + HEADER_LEN + tag => Err(self.too_big(mtu, sending)),
            _ => Ok(()),
        }
    }

    fn too_big(&mut self, mtu: usize, sending: &Sending<'_>) -> Drop {
        if self.tell_mtu(sending.back, sending.frame, mtu) { Drop::TooBig } else { Drop::PortTooBig }
    }

    fn deliver_one(&mut self, port: PortId, bytes: &[u8], partial: bool) -> Result<(), Drop> {
        if !partial {
            self.out.deliver(port, &Offload::NONE, &[bytes]);
            return Ok(());
        }
        let partial = Layout::of(bytes).ok_or(Drop::Malformed)?.partial();
        if self.out.takes(port).checksum {
            self.out.deliver(port, &Offload { checksum: Some(partial), gso: None }, &[bytes]);
            return Ok(());
        }
        let mut memory = [0; SUPER_FRAME_MAX];
        let copy = memory.get_mut(..bytes.len()).ok_or(Drop::Malformed)?;
        copy.copy_from_slice(bytes);
        checksum::complete(copy, partial).map_err(|_| Drop::Malformed)?;
        self.out.deliver(port, &Offload::NONE, &[copy]);
        Ok(())
    }

    fn deliver_super(&mut self, port: PortId, segments: &Segments<'_>) -> Result<(), Drop> {
        let (takes, gso) = (self.out.takes(port), segments.gso());
        self.tally.to_bridge.add_all(segments.count(), segments.bytes());
        if !takes.checksum || !(if segments.is_tcp() { takes.tcp } else { takes.udp }) {
            self.deliver_each(port, segments);
            return Ok(());
        }
        let offload = Offload { checksum: Some(segments.partial()), gso: Some(gso) };
        let (headers, payload) = segments.whole();
        self.out.deliver(port, &offload, &[headers, payload]);
        Ok(())
    }

    /// For a kernel that takes whole frames only.
    #[cold]
    pub(super) fn deliver_each(&mut self, port: PortId, segments: &Segments<'_>) {
        let mut memory = [0; SUPER_FRAME_MAX];
        for n in 0..segments.count() {
            let Some(frame) = memory.get_mut(..segments.len_of(n)) else { return };
            segments.write_whole(n, frame);
            self.out.deliver(port, &Offload::NONE, &[frame]);
        }
    }
}
