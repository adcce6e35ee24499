//! The steps of a frame's way that more than one verdict needs: answer, write, cut, flood, arrive, deliver.
//!
//! Each step counts what it did; what it could not do it returns as the reason, which `Batch` counts. Where a frame goes was
//! decided by `switch`; the order of the steps is in `Plane`.

use super::counters::Count;
use super::encap::Back;
use super::fib::{PathId, PortId};
use super::local::Sending;
use super::macs::{Learned, Place};
use super::offload::{self, Arrival, Coalescer, Layout, Merge, Segments, checksum};
use super::path::{Path, Writer};
use super::switch::{Ports, Verdict};
use super::{Drop, Event, Load, Sink, Way, fragment, guard, mss, neighbours};
use crate::types::{Mac, NetId};
use crate::wire::datagram::{Fragment, Inner};
use crate::wire::frame::{Frame, HEADER_LEN, SUPER_FRAME_MAX};
use crate::wire::neighbour::{self, Question};
use crate::wire::virtio::Offload;

impl<S: Sink> Way<'_, S> {
    pub(super) fn learn(&mut self, network: NetId, mac: Mac, place: Place) {
        match self.plane.macs.learn(network, mac, place, self.now) {
            Learned::Known | Learned::New => {}
            Learned::Refused => self.tally.unlearned += 1,
            Learned::Moved if self.plane.offers.holds(network, mac) => self.out.event(Event::Moved { network, mac }),
            Learned::Moved => {}
        }
    }

    /// Answers a question for an address that is known. Goes on with what the guard said of the frame if it asks nothing,
    /// or if others have to answer.
    ///
    /// A refused probe is answered too: whoever wants an address that another has must hear so, or takes it.
    pub(super) fn ask(
        &mut self,
        port: PortId,
        network: NetId,
        frame: &Frame<'_>,
        checked: Result<(), Drop>,
    ) -> Result<(), Drop> {
        let heard = |question: &Question| match checked {
            Ok(()) => true,
            Err(reason) => reason == Drop::GuardAddress && question.is_probe(),
        };
        let Some(question) = neighbour::question(frame).filter(heard) else { return checked };
        let answer =
            neighbours::answers(self.fib, network, &question).and_then(|mac| neighbour::answer(&question, mac));
        let Some(answer) = answer else { return checked };
        self.deliver(port, &answer);
        checked.and(Err(Drop::Suppressed))
    }

    /// Writes one datagram, or one for each segment. `TooBig`: nothing was written.
    pub(super) fn send(&mut self, path: &Path, inner: &Inner, load: &Load<'_>) -> Result<(), Drop> {
        let writer = path.writer()?.sparse(self.sparse);
        if self.send_vxlan(&writer, inner, load)? {
            return Ok(());
        }
        match load {
            Load::Frame(payload) => self.write(&writer, inner, payload),
            Load::Super(segments) if segments.longest() <= writer.room_behind(inner) => {
                self.cut(&writer, inner, segments)
            }
            // A sender of TCP does not see how its bytes are cut: smaller is as good.
            Load::Super(segments) => {
                let narrowed = segments.narrowed(writer.room_behind(inner)).ok_or(Drop::TooBig)?;
                // These are other frames than those that go to wider neighbours.
                let number = if inner.is_flood() { self.plane.flood_numbers(narrowed.count()) } else { 0 };
                self.cut(&writer, &Inner { number, ..*inner }, &narrowed)
            }
        }
    }

    fn write(&mut self, writer: &Writer, inner: &Inner, payload: &[u8]) -> Result<(), Drop> {
        writer.write(inner, payload.len(), self.out, |into| {
            into.copy_from_slice(payload);
            lower_mss(into, inner, || writer.limit());
        })?;
        self.tally.to_net.add(payload.len());
        Ok(())
    }

    /// Each segment becomes a datagram where it is sent from; what the batch has no room for is lost alone.
    fn cut(&mut self, writer: &Writer, inner: &Inner, segments: &Segments<'_>) -> Result<(), Drop> {
        for (n, inner) in (0..segments.count()).zip(numbered(*inner)) {
            let len = segments.len_of(n);
            match writer.write(&inner, len, self.out, |into| segments.write(n, into)) {
                Ok(()) => self.tally.to_net.add(len),
                Err(reason) => self.tally.drop(reason),
            }
        }
        Ok(())
    }

    /// Writes as many datagrams as it takes.
    pub(super) fn send_all(&mut self, path: &Path, inner: &Inner, load: &Load<'_>) -> Result<(), Drop> {
        match self.send(path, inner, load) {
            Err(Drop::TooBig) => self.send_pieces(path, inner, load),
            sent => sent,
        }
    }

    pub(super) fn send_pieces(&mut self, path: &Path, inner: &Inner, load: &Load<'_>) -> Result<(), Drop> {
        match load {
            Load::Frame(payload) => self.send_pieces_of(path, inner, payload),
            Load::Super(segments) => self.send_pieces_of_each(path, inner, segments),
        }
    }

    /// Datagrams of UDP keep their bounds, so each is a frame that is sent in pieces.
    #[cold]
    fn send_pieces_of_each(&mut self, path: &Path, inner: &Inner, segments: &Segments<'_>) -> Result<(), Drop> {
        let mut memory = [0; SUPER_FRAME_MAX];
        for (n, inner) in (0..segments.count()).zip(numbered(*inner)) {
            let Some(frame) = memory.get_mut(..segments.len_of(n)) else { return Err(Drop::Malformed) };
            segments.write(n, frame);
            self.send_pieces_of(path, &inner, frame)?;
        }
        Ok(())
    }

    fn send_pieces_of(&mut self, path: &Path, inner: &Inner, payload: &[u8]) -> Result<(), Drop> {
        let writer = path.writer()?.sparse(self.sparse);
        let whole = || Fragment { id: self.plane.fragment_id(self.fib.me), offset: 0, more: false };
        let of = inner.fragment.unwrap_or_else(whole);
        let header = |fragment| Inner { fragment: Some(fragment), ..*inner };
        for (fragment, range) in fragment::pieces(of, payload.len(), writer.room_behind(&header(of)))? {
            let piece = payload.get(range).ok_or(Drop::BadFragment)?;
            self.write(&writer, &header(fragment), piece)?;
        }
        Ok(())
    }

    /// Tells the sender of a frame that does not fit how much would; false: it does not want to know, or may not be told.
    pub(super) fn tell_too_big(&mut self, from: PortId, frame: &Frame<'_>, path: &Path) -> Result<bool, Drop> {
        let Some(limit) = path.writer()?.limit() else { return Ok(false) };
        Ok(self.tell_mtu(Back::Port(from), frame, limit.saturating_sub(HEADER_LEN)))
    }

    /// Hands frames of our own to all others; see [`Way::hand_on`].
    pub(super) fn flood(&mut self, inner: &Inner, load: &Load<'_>) -> usize {
        let number = self.plane.flood_numbers(load.frames());
        self.hand_on(&Inner { number, ..*inner }, load, None)
    }

    /// Hands a frame on along the tree of its origin, but not back to where it came from. Returns how many neighbours
    /// there are to have it; what does not get through to one of them is counted and does not keep it from the others.
    fn hand_on(&mut self, inner: &Inner, load: &Load<'_>, came: Option<PathId>) -> usize {
        let (fib, mut hops) = (self.fib, 0);
        fib.floods.each_next_hop(inner.origin, inner.network, &mut |path| {
            if Some(path.id()) == came {
                return;
            }
            hops += 1;
            if let Err(reason) = self.send_all(path, inner, load) {
                self.tally.drop(reason);
            }
        });
        hops
    }

    /// A flood, or a piece of one, came in: the first copy of it is delivered and handed on, as the verdict says.
    pub(super) fn flooded<'d>(
        &mut self,
        verdict: Verdict<'_>,
        (came, inner): (&Path, &Inner),
        payload: &'d mut [u8],
        held: &mut Coalescer<'d>,
    ) -> Result<(), Drop> {
        self.whole((came, inner), payload, held, |way, frame, held| {
            let (plane, known) = (way.plane, &way.fib.next_hops);
            if !plane.once.accept((inner.origin, inner.number), known.contains_key(&inner.origin), known.len()) {
                return Err(Drop::Duplicate);
            }
            let onward = Inner { hops: inner.hops.saturating_sub(1), fragment: None, ..*inner };
            let hops = match verdict {
                Verdict::Deliver(_) => 0,
                _ => way.hand_on(&onward, &Load::Frame(frame), Some(came.id())),
            };
            match verdict {
                Verdict::Deliver(ports) | Verdict::DeliverAndFlood(ports) => way.accept(ports, inner, frame, held),
                _ if hops == 0 => Err(Drop::NotOpen),
                _ => Ok(()),
            }
        })
    }

    /// A frame, or a piece of one, is at its destination.
    pub(super) fn arrive<'d>(
        &mut self,
        ports: Ports<'_>,
        (came, inner): (&Path, &Inner),
        payload: &'d mut [u8],
        held: &mut Coalescer<'d>,
    ) -> Result<(), Drop> {
        self.whole((came, inner), payload, held, |way, frame, held| way.accept(ports, inner, frame, held))
    }

    /// Goes on with the frame, once it is whole.
    #[inline]
    fn whole<'d>(
        &mut self,
        (came, inner): (&Path, &Inner),
        payload: &'d mut [u8],
        held: &mut Coalescer<'d>,
        then: impl for<'f> FnOnce(&mut Self, &'f mut [u8], &mut Coalescer<'f>) -> Result<(), Drop>,
    ) -> Result<(), Drop> {
        let Some(fragment) = inner.fragment else {
            return then(self, payload, held);
        };
        let now = self.now;
        let mut accepted = Ok(());
        let (piece, lost) = came.reassemble((inner, fragment, payload), now, |frame| {
            // Its memory is the path's: it cannot be held, so it goes by itself.
            let mut alone = Coalescer::new();
            accepted = then(self, frame, &mut alone);
            self.flush(&mut alone);
        });
        self.tally.drops_of(Drop::FragmentLost, lost);
        piece.and(accepted)
    }

    /// A whole frame is at its destination. One that continues a run was looked at when the run began.
    fn accept<'d>(
        &mut self,
        ports: Ports<'_>,
        inner: &Inner,
        bytes: &'d mut [u8],
        held: &mut Coalescer<'d>,
    ) -> Result<(), Drop> {
        let ports = self.among(ports, inner.network, bytes)?;
        let Some((port, uplink)) = ports.single() else {
            return self.accept_for_ports(ports, inner, bytes, held);
        };
        let takes = self.out.takes(port);
        let partial = inner.partial && takes.checksum;
        if inner.partial && !takes.checksum {
            let layout = Layout::of(bytes).ok_or(Drop::Malformed)?;
            checksum::complete(bytes, layout.partial()).map_err(|_| Drop::Malformed)?;
        }
        let bytes: &'d [u8] = bytes;
        let arrival = Arrival { way: offload::Way { port, origin: Place::Peer(inner.origin) }, frame: bytes, partial };
        if held.join(arrival) {
            self.tally.to_bridge.add(bytes.len());
            if let Some(uplink) = uplink {
                uplink.sent(Count { frames: 1, bytes: bytes.len() as u64 });
            }
            return Ok(());
        }
        if partial && Layout::of(bytes).is_none() {
            return Err(Drop::Malformed);
        }
        let frame = Frame::parse(bytes).map_err(|_| Drop::Malformed)?;
        let entry = self.fib.networks.get(&inner.network).ok_or(Drop::NotOpen)?;
        if frame.dst().is_link_local() {
            return Err(Drop::LinkLocal);
        }
        guard::check_arrival(entry, &frame)?;
        if !entry.uplinks.is_empty() {
            self.hears_beacon(None, inner.network, bytes)?;
        }
        // From an origin that the topology does not know (yet) nothing is learned: no answer could go there, and the
        // table stays bounded by the peers that there are.
        if self.fib.next_hops.contains_key(&inner.origin) {
            self.learn(inner.network, frame.src(), Place::Peer(inner.origin));
        }
        if let Some(uplink) = uplink {
            let back = Back::Peer(inner.network, inner.origin);
            let sending = Sending { back, frame: &frame, load: &Load::Frame(bytes), partial };
            self.check_room(Some(uplink.mtu()), &sending)?;
            uplink.sent(Count { frames: 1, bytes: bytes.len() as u64 });
        }
        self.tally.to_bridge.add(bytes.len());
        let merge = Merge { tcp: takes.tcp, udp: takes.udp };
        let out = &mut *self.out;
        held.begin(arrival, merge, &mut |port, offload, parts| out.deliver(port, offload, parts));
        Ok(())
    }

    pub(super) fn flush(&mut self, held: &mut Coalescer<'_>) {
        held.flush(&mut |port, offload, parts| self.out.deliver(port, offload, parts));
    }

    /// A frame of our own.
    pub(super) fn deliver(&mut self, port: PortId, frame: &[u8]) {
        if let Some(tunnel) = self.fib.tunnels.get(port) {
            return self.deliver_to_tunnel(tunnel, frame);
        }
        self.tally.to_bridge.add(frame.len());
        self.out.deliver(port, &Offload::NONE, &[frame]);
    }
}

/// A connection that begins over a path agrees on segments that it takes whole.
#[inline]
pub(super) fn lower_mss(frame: &mut [u8], inner: &Inner, limit: impl FnOnce() -> Option<usize>) {
    if inner.fragment.is_none()
        && mss::is_syn(frame)
        && let Some(limit) = limit()
    {
        mss::lower(frame, limit, inner.partial);
    }
}

/// Headers for the segments of a super-frame: if they are flooded, each has a number of its own.
fn numbered(inner: Inner) -> impl Iterator<Item = Inner> {
    std::iter::successors(Some(inner), |last| Some(Inner { number: last.number.wrapping_add(1), ..*last }))
}

impl Load<'_> {
    /// Frames, as they will be on a wire.
    pub(super) fn frames(&self) -> usize {
        match self {
            Load::Frame(_) => 1,
            Load::Super(segments) => segments.count(),
        }
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Load::Frame(frame) => frame.len(),
            Load::Super(segments) => segments.bytes(),
        }
    }
}
