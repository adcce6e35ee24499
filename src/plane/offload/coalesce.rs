//! Segments, put together again.
//!
//! Owns [`Coalescer`], which lives for one batch of received frames and holds runs: frames of a flow that continue each other
//! and leave as one super-frame. Nothing is copied but the headers of the first frame: the payloads stay where they were
//! received. Does not own who may send (`guard`): whoever begins a run was looked at, and what joins is the same sender.
//!
//! A frame continues a run if it came the same [`Way`] and differs from the first frame only so:
//!
//! ```text
//! IPv4    total length; identification: one more than the last, or with DF the same in all; header checksum, which is right
//! IPv6    payload length
//! TCP     sequence: where the last ended; PSH, which closes the run; checksum, which is right
//! UDP     length; checksum, which is right and there
//! payload 1 byte to as many as in the first; fewer close the run; together at most 65,535 bytes of packet, 64 segments
//! ```
//!
//! A run begins with a frame that has a layout, payload, no padding, and for TCP no flag but ACK. A checksum is right if it is that of
//! the bytes, or, of a partial frame, the sum of the pseudo-header. That of the first frame is proved when a second one comes.
//! At most one run of a flow is held, and what does not join it waits until it is delivered: frames of a flow stay in order.

use super::checksum::{fold, length, network, pseudo, verify};
use super::layout::{HEADERS_MAX, Layout, NETWORK, Protocol, TRANSPORT4, TRANSPORT6, Version, be16, be32, chunk, put};
use crate::plane::fib::PortId;
use crate::types::ShortId;
use crate::wire::virtio::{Gso, Offload};
use smallvec::SmallVec;

/// Runs that are held at a time; beyond, the one that waits longest for its next frame is delivered.
pub const RUNS_MAX: usize = 8;

/// Frames in a run: the kernel refuses UDP super-frames of more (UDP_MAX_SEGMENTS before Linux 6.9).
pub const SEGMENTS_MAX: usize = 64;

/// The most bytes of a packet, its IP header included.
const PACKET_MAX: usize = 65_535;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const DONT_FRAGMENT: u8 = 0x40;

/// Where frames come from and go to. Those of different ways never mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Where they are delivered.
    pub port: PortId,
    /// Who sent them.
    pub origin: ShortId,
}

/// A frame that came in.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'d> {
    /// Where from, and where to.
    pub way: Way,
    /// The whole frame.
    pub frame: &'d [u8],
    /// Its transport checksum holds only the sum of the pseudo-header.
    pub partial: bool,
}

/// What super-frames a port's kernel takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merge {
    /// Of TCP.
    pub tcp: bool,
    /// Of UDP.
    pub udp: bool,
}

/// The runs of a batch. Cheap to make: its memory is not initialised. To be flushed before it is dropped, or frames are lost.
#[derive(Debug)]
pub struct Coalescer<'d> {
    /// What the next frame of each run has in its transport header, see [`tag`]: most frames are told apart by this.
    tags: [u64; RUNS_MAX],
    runs: SmallVec<[Option<Run<'d>>; RUNS_MAX]>,
    /// The payloads of each run but the first.
    payloads: [SmallVec<[&'d [u8]; SEGMENTS_MAX]>; RUNS_MAX],
    /// The run that took a frame last.
    recent: usize,
    /// Counts frames that were taken.
    clock: u32,
}

#[derive(Debug, Clone, Copy)]
struct Run<'d> {
    head: Arrival<'d>,
    layout: Layout,
    /// Identifies the flow; another flow may have the same by accident.
    flow: u64,
    /// What was counted when it began, and when it took its last frame.
    began: u32,
    used: u32,
    /// Bytes of the packet so far.
    packet: usize,
    /// It takes no more.
    closed: bool,
    /// The last frame had PSH.
    pushed: bool,
    /// The checksums of the head are right.
    proved: bool,
    /// The identification that comes next, and how many there are between two.
    identification: u16,
    step: u16,
    /// See `checksum`: what is the same for all frames. Known when proved.
    network: u32,
    pseudo: u32,
}

impl Default for Coalescer<'_> {
    fn default() -> Self {
        Coalescer::new()
    }
}

impl<'d> Coalescer<'d> {
    /// Holds nothing.
    #[inline]
    pub fn new() -> Coalescer<'d> {
        Coalescer {
            tags: [0; RUNS_MAX],
            runs: SmallVec::new_const(),
            payloads: [const { SmallVec::new_const() }; RUNS_MAX],
            recent: 0,
            clock: 0,
        }
    }

    /// The fast way: true if the frame continues a run and was taken. It has the Ethernet and IP header of the frame that began the
    /// run: who sends what to whom need not be looked at again.
    #[inline]
    pub fn join(&mut self, arrival: Arrival<'d>) -> bool {
        if self.runs.is_empty() {
            return false;
        }
        let Some(tag) = tag(arrival.frame) else { return false };
        if self.tags.get(self.recent) == Some(&tag) && self.extend(self.recent, &arrival) {
            return true;
        }
        for slot in 0..RUNS_MAX {
            if self.tags.get(slot) == Some(&tag) && self.extend(slot, &arrival) {
                self.recent = slot;
                return true;
            }
        }
        false
    }

    /// The other way: takes a frame that did not join. What it must not overtake is delivered first; then it begins a run, if it can
    /// be continued and `merge` allows its protocol, or is delivered at once.
    pub fn begin(&mut self, arrival: Arrival<'d>, merge: Merge, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
        let Some(layout) = Layout::of(arrival.frame) else {
            self.release_like(&arrival, deliver);
            deliver(arrival.way.port, &Offload::NONE, &[arrival.frame]);
            return;
        };
        let flow = flow(&arrival, &layout);
        let held = self.runs.iter().position(|run| run.as_ref().is_some_and(|run| run.flow == flow));
        if let Some(slot) = held {
            self.release(slot, deliver);
        }
        let allowed = if layout.protocol == Protocol::Tcp { merge.tcp } else { merge.udp };
        let run = if allowed { Run::begin(arrival, layout, flow) } else { None };
        match run {
            Some(run) => self.hold(run, deliver),
            None => deliver_one(&arrival, &layout, deliver),
        }
    }

    /// Delivers all that is held, in the order in which the runs began.
    pub fn flush(&mut self, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
        while let Some(slot) = self.least(|run| run.began) {
            self.release(slot, deliver);
        }
        self.runs.clear();
        self.recent = 0;
    }

    /// The slot whose run has the least of `key`.
    fn least(&self, key: impl Fn(&Run<'_>) -> u32) -> Option<usize> {
        let held = self.runs.iter().enumerate().filter_map(|(slot, run)| Some((slot, key(run.as_ref()?))));
        held.min_by_key(|(_, key)| *key).map(|(slot, _)| slot)
    }

    fn extend(&mut self, slot: usize, arrival: &Arrival<'d>) -> bool {
        let (Some(Some(run)), Some(payloads), Some(tag)) =
            (self.runs.get_mut(slot), self.payloads.get_mut(slot), self.tags.get_mut(slot))
        else {
            return false;
        };
        let Some(payload) = run.take(arrival) else { return false };
        payloads.push(payload);
        run.closed |= payloads.len() + 1 == SEGMENTS_MAX;
        self.clock = self.clock.wrapping_add(1);
        run.used = self.clock;
        *tag = run.next_tag();
        true
    }

    fn hold(&mut self, mut run: Run<'d>, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
        self.clock = self.clock.wrapping_add(1);
        (run.began, run.used) = (self.clock, self.clock);
        let tag = run.next_tag();
        let free = self.runs.iter().position(Option::is_none);
        let slot = match free {
            Some(slot) => slot,
            None if self.runs.len() < RUNS_MAX => {
                self.runs.push(None);
                self.runs.len() - 1
            }
            None => {
                let slot = self.least(|run| run.used).unwrap_or(0);
                self.release(slot, deliver);
                slot
            }
        };
        if let (Some(place), Some(known)) = (self.runs.get_mut(slot), self.tags.get_mut(slot)) {
            *place = Some(run);
            *known = tag;
            self.recent = slot;
        }
    }

    /// Delivers the runs that a frame without a layout may belong to: a fragment has no ports.
    fn release_like(&mut self, arrival: &Arrival<'d>, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
        let ethernet: Option<[u8; NETWORK]> = chunk(arrival.frame, 0);
        let alike = |run: &Run<'_>| run.head.way == arrival.way && chunk(run.head.frame, 0) == ethernet;
        for slot in 0..self.runs.len() {
            if self.runs.get(slot).is_some_and(|run| run.as_ref().is_some_and(alike)) {
                self.release(slot, deliver);
            }
        }
    }

    fn release(&mut self, slot: usize, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
        let (Some(run), Some(payloads)) = (self.runs.get_mut(slot).and_then(Option::take), self.payloads.get_mut(slot))
        else {
            return;
        };
        if payloads.is_empty() {
            deliver_one(&run.head, &run.layout, deliver);
        } else {
            run.deliver(payloads, deliver);
            payloads.clear();
        }
    }
}

fn deliver_one(arrival: &Arrival<'_>, layout: &Layout, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
    let offload = Offload { checksum: arrival.partial.then(|| layout.partial()), gso: None };
    deliver(arrival.way.port, &offload, &[arrival.frame]);
}

impl<'d> Run<'d> {
    /// A run of this frame, if it can be continued.
    fn begin(head: Arrival<'d>, layout: Layout, flow: u64) -> Option<Run<'d>> {
        let frame = head.frame;
        let plain = match layout.protocol {
            Protocol::Tcp => chunk(frame, layout.transport + 13) == Some([ACK]),
            Protocol::Udp => true,
        };
        if !plain || layout.payload == layout.end || layout.end != frame.len() {
            return None;
        }
        Some(Run {
            head,
            layout,
            flow,
            began: 0,
            used: 0,
            packet: layout.end - NETWORK,
            closed: false,
            pushed: false,
            proved: false,
            identification: be16(frame, NETWORK + 4).wrapping_add(1),
            step: 1,
            network: 0,
            pseudo: 0,
        })
    }

    /// See [`tag`].
    fn next_tag(&self) -> u64 {
        let Some(tag) = tag(self.head.frame) else { return 0 };
        if self.layout.protocol == Protocol::Udp {
            return tag;
        }
        let sent = self.packet + NETWORK - self.layout.payload;
        let sequence = be32(self.head.frame, self.layout.transport + 4).wrapping_add(u32::try_from(sent).unwrap_or(0));
        (tag & !0xffff_ffff) | u64::from(sequence)
    }

    /// The payload of a frame that continues this run.
    fn take(&mut self, arrival: &Arrival<'d>) -> Option<&'d [u8]> {
        if self.closed || arrival.way != self.head.way {
            return None;
        }
        let (head, frame) = (self.head.frame, arrival.frame);
        let layout = Layout::of(frame)?;
        if (layout.version, layout.protocol, layout.payload, frame.len())
            != (self.layout.version, self.layout.protocol, self.layout.payload, layout.end)
            || !same_headers(head, frame, &layout)
        {
            return None;
        }
        let payload = frame.get(layout.payload..)?;
        let size = head.len() - layout.payload;
        if payload.is_empty() || payload.len() > size || self.packet + payload.len() > PACKET_MAX {
            return None;
        }
        if !self.proved && !self.prove() {
            self.closed = true;
            return None;
        }
        let mut step = self.step;
        if layout.version == Version::V4 {
            let identification = be16(frame, NETWORK + 4);
            let first = self.packet == head.len() - NETWORK;
            if first && identification == be16(head, NETWORK + 4) && may_repeat(head) {
                step = 0;
            } else if identification != self.identification {
                return None;
            }
            let sum = self.network + length(layout.end - NETWORK) + u32::from(identification);
            if !fold(sum) != be16(frame, NETWORK + 10) {
                return None;
            }
        }
        if !checksum_is_right(arrival, &layout, self.pseudo) {
            return None;
        }
        if layout.version == Version::V4 {
            self.step = step;
            self.identification = be16(frame, NETWORK + 4).wrapping_add(step);
        }
        self.packet += payload.len();
        self.pushed = layout.protocol == Protocol::Tcp && be16(frame, layout.transport + 12) & u16::from(PSH) != 0;
        self.closed = self.pushed || payload.len() < size;
        Some(payload)
    }

    /// Whether the checksums of the head are right. Done when a second frame comes: most heads of small packets stay alone.
    #[cold]
    fn prove(&mut self) -> bool {
        let frame = self.head.frame;
        self.network = network(frame);
        self.pseudo = pseudo(frame, &self.layout);
        let sum = self.network + length(self.layout.end - NETWORK) + u32::from(be16(frame, NETWORK + 4));
        let header = self.layout.version == Version::V6 || !fold(sum) == be16(frame, NETWORK + 10);
        self.proved = header && checksum_is_right(&self.head, &self.layout, self.pseudo);
        self.proved
    }

    /// Delivers it as a super-frame.
    fn deliver(&self, payloads: &[&[u8]], deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
        let layout = &self.layout;
        let Some((head, first)) = self.head.frame.split_at_checked(layout.payload) else { return };
        let mut memory = [0; HEADERS_MAX];
        let Some(headers) = memory.get_mut(..layout.payload) else { return };
        headers.copy_from_slice(head);
        let transport = self.packet + NETWORK - layout.transport;
        match layout.version {
            Version::V4 => {
                let sum = self.network + length(self.packet) + u32::from(be16(head, NETWORK + 4));
                put(headers, NETWORK + 2, low16(self.packet));
                put(headers, NETWORK + 10, (!fold(sum)).to_be_bytes());
            }
            Version::V6 => put(headers, NETWORK + 4, low16(transport)),
        }
        let sum = fold(self.pseudo + length(transport)).to_be_bytes();
        match layout.protocol {
            Protocol::Tcp => {
                put(headers, layout.transport + 13, [if self.pushed { ACK | PSH } else { ACK }]);
                put(headers, layout.transport + 16, sum);
            }
            Protocol::Udp => {
                put(headers, layout.transport + 4, low16(transport));
                put(headers, layout.transport + 6, sum);
            }
        }
        let mut parts: SmallVec<[&[u8]; SEGMENTS_MAX + 1]> = SmallVec::new();
        parts.push(headers);
        parts.push(first);
        parts.extend_from_slice(payloads);
        let gso = Gso {
            kind: layout.gso_kind(),
            ecn: false,
            size: u16::from_be_bytes(low16(first.len())),
            headers: u16::from_be_bytes(low16(layout.payload)),
        };
        deliver(self.head.way.port, &Offload { checksum: Some(layout.partial()), gso: Some(gso) }, &parts);
    }
}

/// The ports and, for TCP, the sequence number. None for what cannot continue any run.
#[inline(always)]
fn tag(frame: &[u8]) -> Option<u64> {
    let (transport, protocol) = match be16(frame, 12) {
        0x0800 => (TRANSPORT4, frame.get(NETWORK + 9)),
        0x86dd => (TRANSPORT6, frame.get(NETWORK + 6)),
        _ => return None,
    };
    let tag = u64::from_be_bytes(chunk(frame, transport)?);
    match protocol? {
        6 => Some(tag),
        17 => Some(tag & !0xffff_ffff),
        _ => None,
    }
}

fn same_headers(head: &[u8], frame: &[u8], layout: &Layout) -> bool {
    let ignored: &[usize] = match (layout.version, layout.protocol) {
        (Version::V4, Protocol::Tcp) => &[16, 17, 18, 19, 24, 25, 38, 39, 40, 41, 47, 50, 51],
        (Version::V4, Protocol::Udp) => &[16, 17, 18, 19, 24, 25, 38, 39, 40, 41],
        (Version::V6, Protocol::Tcp) => &[18, 19, 58, 59, 60, 61, 67, 70, 71],
        (Version::V6, Protocol::Udp) => &[18, 19, 58, 59, 60, 61],
    };
    let same =
        head.iter().zip(frame).take(layout.payload).enumerate().all(|(at, (a, b))| a == b || ignored.contains(&at));
    let flags = chunk::<1>(frame, layout.transport + 13).map(|[flags]| flags & !PSH);
    same && (layout.protocol == Protocol::Udp || flags == Some(ACK))
}

fn may_repeat(frame: &[u8]) -> bool {
    frame.get(NETWORK + 6).is_some_and(|flags| flags & DONT_FRAGMENT != 0)
}

fn checksum_is_right(arrival: &Arrival<'_>, layout: &Layout, pseudo: u32) -> bool {
    if !arrival.partial {
        return verify(arrival.frame, layout, pseudo);
    }
    let partial = layout.partial();
    let at = usize::from(partial.start + partial.offset);
    be16(arrival.frame, at) == fold(pseudo + length(layout.end - layout.transport))
}

/// A number of the flow: way, Ethernet, addresses, protocol and ports. Of two flows with one number one is only delivered earlier.
fn flow(arrival: &Arrival<'_>, layout: &Layout) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let frame = arrival.frame;
    let addresses = match layout.version {
        Version::V4 => frame.get(NETWORK + 12..TRANSPORT4 + 4),
        Version::V6 => frame.get(NETWORK + 8..TRANSPORT6 + 4),
    };
    let way = u64::from(arrival.way.port.0) << 32 | u64::from(arrival.way.origin.0) << 8;
    let mut number = way | if layout.protocol == Protocol::Tcp { 6 } else { 17 };
    let ethernet = frame.get(..NETWORK).unwrap_or_default();
    for bytes in ethernet.chunks(8).chain(addresses.unwrap_or_default().chunks(8)) {
        let mut word = [0; 8];
        for (place, byte) in word.iter_mut().zip(bytes) {
            *place = *byte;
        }
        number = (number ^ u64::from_ne_bytes(word)).wrapping_mul(ODD).rotate_left(29);
    }
    number
}

/// The low 16 bits, big-endian.
fn low16(number: usize) -> [u8; 2] {
    let [.., high, low] = number.to_be_bytes();
    [high, low]
}
