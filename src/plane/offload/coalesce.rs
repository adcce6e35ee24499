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

use super::checksum::{fold, length, network, pseudo, sum};
use super::layout::{HEADERS_MAX, Layout, NETWORK, Protocol, TRANSPORT4, TRANSPORT6, Version};
use super::layout::{be16, be32, chunk, gso_kind, low16, partial, put};
use crate::plane::fib::PortId;
use crate::types::ShortId;
use crate::wire::virtio::{Gso, Offload, Partial};
use smallvec::SmallVec;

/// Runs that are held at a time; beyond, the one that waits longest for its next frame is delivered.
pub const RUNS_MAX: usize = 8;

/// Frames in a run: the kernel refuses UDP super-frames of more (UDP_MAX_SEGMENTS before Linux 6.9).
pub const SEGMENTS_MAX: usize = 64;

/// Payloads that are held at a time, those of runs that have left not yet forgotten; beyond, all is delivered.
const PAYLOADS_MAX: usize = 512;

/// The most bytes of a packet, its IP header included.
const PACKET_MAX: usize = 65_535;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const DONT_FRAGMENT: u8 = 0x40;

/// The sequence number in a [`tag`].
const SEQUENCE: u64 = 0xffff_ffff;

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
    /// The flow of each run, see [`flow`]; 0 where none is held.
    flows: [u64; RUNS_MAX],
    /// What was counted when each run took its last frame; 0 where none is held.
    used: [u64; RUNS_MAX],
    /// Those that have left stay, closed, until another takes the place.
    runs: SmallVec<[Run<'d>; RUNS_MAX]>,
    /// The payloads of runs but for the first, each with the place of the next one of its run. Cleared when no run is held.
    payloads: SmallVec<[(&'d [u8], usize); PAYLOADS_MAX]>,
    /// The run that took a frame last.
    recent: usize,
    /// How many runs are held.
    held: usize,
    /// Counts frames that were taken.
    clock: u64,
}

#[derive(Debug, Clone, Copy)]
struct Run<'d> {
    head: Arrival<'d>,
    version: Version,
    protocol: Protocol,
    /// It takes no more.
    closed: bool,
    /// The last frame had PSH.
    pushed: bool,
    /// The checksums of the head are right.
    proved: bool,
    /// Where the payload begins.
    headers: usize,
    /// Bytes of the packet so far.
    packet: usize,
    /// How many frames, and the places of the second one's payload and of the last one's.
    count: usize,
    second: usize,
    last: usize,
    /// What was counted when it began.
    began: u64,
    /// The identification of the last frame, and by how much it grows.
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
            flows: [0; RUNS_MAX],
            used: [0; RUNS_MAX],
            runs: SmallVec::new(),
            payloads: SmallVec::new(),
            recent: 0,
            held: 0,
            clock: 0,
        }
    }

    /// The fast way: true if the frame continues a run and was taken. It has the Ethernet and IP header of the frame that began the
    /// run: who sends what to whom need not be looked at again.
    #[inline]
    pub fn join(&mut self, arrival: Arrival<'d>) -> bool {
        if self.held == 0 {
            return false;
        }
        let Some(tag) = tag(arrival.frame) else { return false };
        if self.tags.get(self.recent) == Some(&tag) && self.extend(self.recent, &arrival) {
            return true;
        }
        for slot in 0..self.runs.len() {
            if self.tags.get(slot) == Some(&tag) && slot != self.recent && self.extend(slot, &arrival) {
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
        let allowed = if layout.protocol == Protocol::Tcp { merge.tcp } else { merge.udp };
        let begins = allowed && may_begin(arrival.frame, &layout);
        if self.held != 0 || begins {
            let flow = flow(&arrival, &layout);
            if let Some(slot) = self.flows.iter().position(|held| *held == flow) {
                self.release(slot, deliver);
            }
            if begins {
                self.hold(Run::new(arrival, &layout), flow, deliver);
                return;
            }
        }
        deliver_one(&arrival, layout.partial(), deliver);
    }

    /// Delivers all that is held, in the order in which the runs began.
    pub fn flush(&mut self, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
        while self.held != 0 {
            let held = self.runs.iter().enumerate().zip(self.used).filter(|(_, used)| *used != 0);
            let Some(((slot, _), _)) = held.min_by_key(|((_, run), _)| run.began) else { return };
            self.release(slot, deliver);
        }
    }

    #[inline]
    fn extend(&mut self, slot: usize, arrival: &Arrival<'d>) -> bool {
        let (Some(run), Some(tag), Some(used)) =
            (self.runs.get_mut(slot), self.tags.get_mut(slot), self.used.get_mut(slot))
        else {
            return false;
        };
        let place = self.payloads.len();
        if place == PAYLOADS_MAX {
            return false;
        }
        let Some(payload) = run.take(arrival) else { return false };
        if run.count == 1 {
            run.second = place;
        } else if let Some((_, next)) = self.payloads.get_mut(run.last) {
            *next = place;
        }
        run.last = place;
        run.count += 1;
        run.closed |= run.count == SEGMENTS_MAX;
        self.payloads.push((payload, place));
        self.clock += 1;
        *used = self.clock;
        if run.protocol == Protocol::Tcp {
            *tag = advance(*tag, payload.len());
        }
        true
    }

    fn hold(&mut self, mut run: Run<'d>, flow: u64, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
        if self.payloads.len() == PAYLOADS_MAX {
            self.flush(deliver);
        }
        // A free place is one that was never used.
        let least = self.used.iter().enumerate().min_by_key(|(_, used)| **used);
        let slot = least.map_or(0, |(slot, _)| slot);
        self.release(slot, deliver);
        self.clock += 1;
        run.began = self.clock;
        let first = tag(run.head.frame).unwrap_or(0);
        let size = run.head.frame.len() - run.headers;
        let next = if run.protocol == Protocol::Tcp { advance(first, size) } else { first };
        match self.runs.get_mut(slot) {
            Some(place) => *place = run,
            None => self.runs.push(run),
        }
        if let (Some(tag), Some(place), Some(used)) =
            (self.tags.get_mut(slot), self.flows.get_mut(slot), self.used.get_mut(slot))
        {
            (*tag, *place, *used) = (next, flow, self.clock);
        }
        self.recent = slot;
        self.held += 1;
    }

    /// Delivers the runs that a frame without a layout may belong to: a fragment has no ports.
    fn release_like(&mut self, arrival: &Arrival<'d>, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
        let ethernet: Option<[u8; NETWORK]> = chunk(arrival.frame, 0);
        let alike = |run: &Run<'_>| run.head.way == arrival.way && chunk(run.head.frame, 0) == ethernet;
        for slot in 0..self.runs.len() {
            if self.runs.get(slot).is_some_and(alike) {
                self.release(slot, deliver);
            }
        }
    }

    /// Delivers the run of this place, if one is held there.
    fn release(&mut self, slot: usize, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
        let (Some(run), Some(flow), Some(used)) =
            (self.runs.get_mut(slot), self.flows.get_mut(slot), self.used.get_mut(slot))
        else {
            return;
        };
        if *used == 0 {
            return;
        }
        (*flow, *used, run.closed) = (0, 0, true);
        if run.count == 1 {
            deliver_one(&run.head, run.partial(), deliver);
        } else {
            run.deliver(&self.payloads, deliver);
        }
        self.held -= 1;
        if self.held == 0 {
            self.payloads.clear();
        }
    }
}

fn deliver_one(arrival: &Arrival<'_>, partial: Partial, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
    let offload = Offload { checksum: arrival.partial.then_some(partial), gso: None };
    deliver(arrival.way.port, &offload, &[arrival.frame]);
}

/// Whether a frame with this layout can be continued.
fn may_begin(frame: &[u8], layout: &Layout) -> bool {
    let plain = match layout.protocol {
        Protocol::Tcp => chunk(frame, layout.transport + 13) == Some([ACK]),
        Protocol::Udp => true,
    };
    plain && layout.payload < layout.end && layout.end == frame.len()
}

impl<'d> Run<'d> {
    /// A run of this frame, which may begin one.
    fn new(head: Arrival<'d>, layout: &Layout) -> Run<'d> {
        Run {
            head,
            version: layout.version,
            protocol: layout.protocol,
            closed: false,
            pushed: false,
            proved: false,
            headers: layout.payload,
            packet: layout.end - NETWORK,
            count: 1,
            second: 0,
            last: 0,
            began: 0,
            identification: be16(head.frame, NETWORK + 4),
            step: 1,
            network: 0,
            pseudo: 0,
        }
    }

    fn partial(&self) -> Partial {
        partial(self.version, self.protocol)
    }

    /// The payload of a frame that continues this run; its tag is known to be the next.
    #[inline]
    fn take(&mut self, arrival: &Arrival<'d>) -> Option<&'d [u8]> {
        match self.version {
            Version::V4 => self.take_at::<TRANSPORT4>(arrival),
            Version::V6 => self.take_at::<TRANSPORT6>(arrival),
        }
    }

    #[inline(always)]
    fn take_at<const AT: usize>(&mut self, arrival: &Arrival<'d>) -> Option<&'d [u8]> {
        let (head, frame) = (self.head.frame, arrival.frame);
        let payload = frame.get(self.headers..)?;
        let size = head.len() - self.headers;
        let fits = !payload.is_empty() && payload.len() <= size && self.packet + payload.len() <= PACKET_MAX;
        if !fits || self.closed || arrival.way != self.head.way {
            return None;
        }
        let (head_ip, head) = head.split_first_chunk::<AT>()?;
        let (ip, transport) = frame.split_first_chunk::<AT>()?;
        let v4 = AT == TRANSPORT4;
        let (differ, announced) = if v4 {
            (differ4(head_ip, ip), usize::from(be16(ip, NETWORK + 2)) + NETWORK)
        } else {
            (differ6(head_ip, ip), usize::from(be16(ip, NETWORK + 4)) + AT)
        };
        if differ != 0 || announced != frame.len() {
            return None;
        }
        let (checksum, pushed) = match self.protocol {
            Protocol::Tcp => {
                let (head, head_options) = head.split_first_chunk::<20>()?;
                let (tcp, options) = transport.split_first_chunk::<20>()?;
                let length = self.headers - AT - 20;
                if differ_tcp(head, tcp) != 0 || !same_options(head_options.get(..length)?, options.get(..length)?) {
                    return None;
                }
                (be16(tcp, 16), be16(tcp, 12) & u16::from(PSH) != 0)
            }
            Protocol::Udp => {
                let udp = transport.first_chunk::<8>()?;
                if usize::from(be16(udp, 4)) != transport.len() {
                    return None;
                }
                (be16(udp, 6), false)
            }
        };
        if !self.proved && !self.prove() {
            self.closed = true;
            return None;
        }
        let (mut identification, mut step) = (0, self.step);
        if v4 {
            identification = be16(ip, NETWORK + 4);
            if identification != self.identification.wrapping_add(step) {
                let repeats = self.count == 1 && identification == self.identification;
                if !repeats || ip.get(NETWORK + 6) != Some(&DONT_FRAGMENT) {
                    return None;
                }
                step = 0;
            }
            let sum = self.network + length(frame.len() - NETWORK) + u32::from(identification);
            if !fold(sum) != be16(ip, NETWORK + 10) {
                return None;
            }
        }
        let sum = self.pseudo + length(transport.len());
        if !is_right(arrival.partial, sum, checksum, transport, self.protocol) {
            return None;
        }
        (self.identification, self.step) = (identification, step);
        self.packet += payload.len();
        self.pushed = pushed;
        self.closed = pushed || payload.len() < size;
        Some(payload)
    }
    /// Whether the checksums of the head are right. Done when a second frame comes: most heads of small packets stay alone.
    #[cold]
    fn prove(&mut self) -> bool {
        let frame = self.head.frame;
        let Some(layout) = Layout::of(frame) else { return false };
        self.network = network(frame);
        self.pseudo = pseudo(frame, &layout);
        let sum = self.network + length(self.packet) + u32::from(self.identification);
        let header = self.version == Version::V6 || !fold(sum) == be16(frame, NETWORK + 10);
        let Some(transport) = frame.get(layout.transport..) else { return false };
        let sum = self.pseudo + length(transport.len());
        let checksum = be16(transport, layout.partial().offset.into());
        self.proved = header && is_right(self.head.partial, sum, checksum, transport, self.protocol);
        self.proved
    }

    /// Delivers it as a super-frame.
    fn deliver(&self, held: &[(&[u8], usize)], deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
        let Some((head, first)) = self.head.frame.split_at_checked(self.headers) else { return };
        let mut memory = [0; HEADERS_MAX];
        let Some(headers) = memory.get_mut(..self.headers) else { return };
        headers.copy_from_slice(head);
        let at = if self.version == Version::V4 { TRANSPORT4 } else { TRANSPORT6 };
        let transport = self.packet + NETWORK - at;
        match self.version {
            Version::V4 => {
                let sum = self.network + length(self.packet) + u32::from(be16(head, NETWORK + 4));
                put(headers, NETWORK + 2, low16(self.packet));
                put(headers, NETWORK + 10, (!fold(sum)).to_be_bytes());
            }
            Version::V6 => put(headers, NETWORK + 4, low16(transport)),
        }
        let sum = fold(self.pseudo + length(transport)).to_be_bytes();
        match self.protocol {
            Protocol::Tcp => {
                put(headers, at + 13, [if self.pushed { ACK | PSH } else { ACK }]);
                put(headers, at + 16, sum);
            }
            Protocol::Udp => {
                put(headers, at + 4, low16(transport));
                put(headers, at + 6, sum);
            }
        }
        let mut parts: SmallVec<[&[u8]; SEGMENTS_MAX + 1]> = SmallVec::new();
        parts.push(headers);
        parts.push(first);
        let mut place = self.second;
        while parts.len() <= self.count
            && let Some((payload, next)) = held.get(place)
        {
            parts.push(payload);
            place = *next;
        }
        let gso = Gso {
            kind: gso_kind(self.version, self.protocol),
            ecn: false,
            size: u16::from_be_bytes(low16(first.len())),
            headers: u16::from_be_bytes(low16(self.headers)),
        };
        deliver(self.head.way.port, &Offload { checksum: Some(self.partial()), gso: Some(gso) }, &parts);
    }
}

/// Whether a transport checksum is right. `sum` is that of the pseudo-header, length included.
#[inline(always)]
fn is_right(partial: bool, pseudo: u32, checksum: u16, transport: &[u8], protocol: Protocol) -> bool {
    if partial {
        return checksum == fold(pseudo);
    }
    let none = protocol == Protocol::Udp && checksum == 0;
    !none && fold(pseudo + u32::from(sum(transport))) == 0xffff
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
        17 => Some(tag & !SEQUENCE),
        _ => None,
    }
}

/// The tag after `bytes` more.
#[inline(always)]
fn advance(tag: u64, bytes: usize) -> u64 {
    let next = (tag & SEQUENCE) + u64::try_from(bytes).unwrap_or(0);
    (tag & !SEQUENCE) | (next & SEQUENCE)
}

/// What differs up to the end of the IPv4 header, but for total length, identification and checksum.
#[inline(always)]
fn differ4<const N: usize>(a: &[u8; N], b: &[u8; N]) -> u64 {
    const COMPARED: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let differ = |at: usize| word(a, at) ^ word(b, at);
    differ(0) | differ(8) | (differ(16) & COMPARED) | differ(26)
}

/// What differs up to the end of the IPv6 header, but for the payload length.
#[inline(always)]
fn differ6<const N: usize>(a: &[u8; N], b: &[u8; N]) -> u64 {
    const COMPARED: u64 = u64::from_ne_bytes([0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let differ = |at: usize| word(a, at) ^ word(b, at);
    differ(0) | differ(8) | (differ(16) & COMPARED) | differ(24) | differ(32) | differ(40) | differ(46)
}

/// What differs in a TCP header but for what is in the tag, PSH and the checksum.
#[inline(always)]
fn differ_tcp(a: &[u8; 20], b: &[u8; 20]) -> u64 {
    const COMPARED: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, !PSH, 0xff, 0xff]);
    const URGENT: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    ((word(a, 8) ^ word(b, 8)) & COMPARED) | ((word(a, 12) ^ word(b, 12)) & URGENT)
}

#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    chunk(bytes, at).map_or(0, u64::from_ne_bytes)
}

/// Whether options are the same; there are whole words of them.
#[inline(always)]
fn same_options(a: &[u8], b: &[u8]) -> bool {
    let words = a.as_chunks::<4>().0.iter().zip(b.as_chunks::<4>().0);
    words.fold(0, |differ, (a, b)| differ | (u32::from_ne_bytes(*a) ^ u32::from_ne_bytes(*b))) == 0
}

/// A number of the flow, not 0: way, Ethernet, addresses, protocol and ports. Of two flows with one number one is only delivered earlier.
fn flow(arrival: &Arrival<'_>, layout: &Layout) -> u64 {
    // Odd numbers without pattern.
    const FACTORS: [u64; 8] = [
        0x9e37_79b9_7f4a_7c15,
        0xbf58_476d_1ce4_e5b9,
        0x94d0_49bb_1331_11eb,
        0xd6e8_feb8_6659_fd93,
        0xa076_1d64_78bd_642f,
        0xe703_7ed1_a0b4_28db,
        0x8ebc_6af0_9c88_c6e3,
        0x5896_5cc7_5374_cc63,
    ];
    let at = |at: usize| chunk(arrival.frame, at).map_or(0, u64::from_ne_bytes);
    let way = u64::from(arrival.way.port.0) << 32 | u64::from(arrival.way.origin.0);
    let protocol = if layout.protocol == Protocol::Tcp { 6 } else { 17 };
    let ports = u64::from(be32(arrival.frame, layout.transport)) << 8 | protocol;
    let words = match layout.version {
        Version::V4 => [way, at(0), at(6), ports, at(NETWORK + 12), 0, 0, 0],
        Version::V6 => {
            [way, at(0), at(6), ports, at(NETWORK + 8), at(NETWORK + 16), at(NETWORK + 24), at(NETWORK + 32)]
        }
    };
    words.iter().zip(FACTORS).fold(0u64, |sum, (word, factor)| sum.wrapping_add(word.wrapping_mul(factor))) | 1
}
