//! One run: what it is, whether a frame continues it, and how it leaves.
//!
//! The comparison is the price that every segment pays, so it is a few words under masks: the header of the first frame is read
//! where it was received, beside that of the new one. What is cheap and most often differs comes first, checksums last.
//!
//! ```text
//! tag       8 bytes of the transport header: ports, and for TCP the sequence number; how runs are found
//! network   the IPv4 header's sum without length, identification, checksum;   pseudo   the pseudo-header's without length
//! places    the payloads of the second frame to the last, a list through the coalescer's memory
//! ```

use super::{Arrival, SEGMENTS_MAX};
use crate::plane::fib::PortId;
use crate::plane::offload::checksum::{covers, fold, length, network, pseudo};
use crate::plane::offload::layout::{HEADERS_MAX, Layout, NETWORK, Protocol, TRANSPORT4, TRANSPORT6, Version};
use crate::plane::offload::layout::{be16, chunk, gso_kind, low16, partial, put};
use crate::wire::virtio::{Gso, Offload, Partial};
use smallvec::SmallVec;

/// The most bytes of a packet, its IP header included.
const PACKET_MAX: usize = 65_535;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const DONT_FRAGMENT: u8 = 0x40;

/// The sequence number in a [`tag`].
const SEQUENCE: u64 = 0xffff_ffff;

#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'d> {
    pub(super) head: Arrival<'d>,
    version: Version,
    protocol: Protocol,
    /// It takes no more.
    pub(super) closed: bool,
    /// The last frame had PSH.
    pushed: bool,
    /// The checksums of the head are right.
    proved: bool,
    /// Where the payload begins.
    headers: usize,
    /// Bytes of the packet so far.
    packet: usize,
    /// How many frames, and the places of the second one's payload and of the last one's.
    pub(super) count: usize,
    second: usize,
    last: usize,
    /// What was counted when it began.
    pub(super) began: u64,
    /// The identification of the last frame, and by how much it grows.
    identification: u16,
    step: u16,
    /// See `checksum`: what is the same for all frames. Known when proved.
    network: u32,
    pseudo: u32,
}

/// Whether a frame with this layout can be continued.
pub(super) fn may_begin(frame: &[u8], layout: &Layout) -> bool {
    let plain = match layout.protocol {
        Protocol::Tcp => chunk(frame, layout.transport + 13) == Some([ACK]),
        Protocol::Udp => true,
    };
    plain && layout.payload < layout.end && layout.end == frame.len()
}

impl<'d> Run<'d> {
    /// A run of this frame, which may begin one.
    pub(super) fn new(head: Arrival<'d>, layout: &Layout) -> Run<'d> {
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

    /// Where the checksums of its frames are.
    pub(super) fn partial(&self) -> Partial {
        partial(self.version, self.protocol)
    }

    /// Bytes of payload of its first frame.
    #[inline(always)]
    pub(super) fn size(&self) -> usize {
        self.head.frame.len() - self.headers
    }

    /// The tag that its next frame has, if the last one had `tag` and `bytes` of payload.
    #[inline(always)]
    pub(super) fn next_tag(&self, tag: u64, bytes: usize) -> u64 {
        if self.protocol == Protocol::Tcp { advance(tag, bytes) } else { tag }
    }

    /// The payload of a frame that continues this run; its tag is known to be the next.
    #[inline]
    pub(super) fn take(&mut self, arrival: &Arrival<'d>) -> Option<&'d [u8]> {
        match self.version {
            Version::V4 => self.take_at::<TRANSPORT4>(arrival),
            Version::V6 => self.take_at::<TRANSPORT6>(arrival),
        }
    }

    #[inline(always)]
    fn take_at<const AT: usize>(&mut self, arrival: &Arrival<'d>) -> Option<&'d [u8]> {
        let (head, frame) = (self.head.frame, arrival.frame);
        let payload = frame.get(self.headers..)?;
        let size = self.size();
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
        if !is_right(arrival.partial, checksum, sum, transport, self.protocol) {
            return None;
        }
        (self.identification, self.step) = (identification, step);
        self.packet += payload.len();
        self.pushed = pushed;
        self.closed = pushed || payload.len() < size;
        Some(payload)
    }

    /// Notes the place of the payload that was taken; returns the place that it comes after, if that has one.
    #[inline(always)]
    pub(super) fn append(&mut self, place: usize) -> Option<usize> {
        let before = (self.count > 1).then_some(self.last);
        if before.is_none() {
            self.second = place;
        }
        self.last = place;
        self.count += 1;
        self.closed |= self.count == SEGMENTS_MAX;
        before
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
        self.proved = header && is_right(self.head.partial, checksum, sum, transport, self.protocol);
        self.proved
    }

    /// Delivers it as a super-frame.
    pub(super) fn deliver(&self, held: &[(&[u8], usize)], deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
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

/// Whether a transport checksum is right, or as a partial one should be. `pseudo` is the pseudo-header's sum, length included.
#[inline(always)]
fn is_right(partial: bool, checksum: u16, pseudo: u32, transport: &[u8], protocol: Protocol) -> bool {
    if partial { checksum == fold(pseudo) } else { covers(checksum, pseudo, transport, protocol) }
}

/// The ports and, for TCP, the sequence number. None for what cannot continue any run.
#[inline(always)]
pub(super) fn tag(frame: &[u8]) -> Option<u64> {
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

/// The tag of the frame that comes after one with this tag and `bytes` of payload.
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
