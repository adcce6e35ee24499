//! Super-frames, cut.
//!
//! Owns [`Segments`]: a super-frame that was found sound, and how each of its segments looks. Nothing is copied before a segment
//! is written, and that goes straight into the memory that is sent. Does not own where segments go.
//!
//! ```text
//! every segment   the headers of the super-frame, and `size` bytes of its payload, the last one what is left
//! IPv4            total length, identification + n, header checksum          IPv6   payload length
//! TCP             sequence + n * size; FIN and PSH on the last only, CWR on the first only
//! UDP             length
//! both            the checksum holds the sum of the pseudo-header of the segment: partial
//! ```
//!
//! What the kernel says of the headers' length is a hint and not looked at (virtio 1.2, section 5.1.6.2).

use super::checksum::{fold, length, network, pseudo, sum};
use super::layout::{HEADERS_MAX, Layout, NETWORK, Protocol, TRANSPORT4, TRANSPORT6, Version, be16, be32, low16, put};
use crate::wire::Malformed;
use crate::wire::virtio::{Gso, Partial};

/// The most segments of a UDP super-frame: UDP_MAX_SEGMENTS of Linux 6.9 and later; before it was 64.
pub const UDP_SEGMENTS_MAX: usize = 128;

/// The most segments of a TCP super-frame: the largest packet in the smallest segments of Linux, 8 bytes (TCP_MIN_GSO_SIZE).
pub const TCP_SEGMENTS_MAX: usize = 8192;

/// Headers are copied with some bytes after them if there are, to be overwritten: a copy of constant size is faster.
const WIDE: usize = 128;
const _: () = assert!(HEADERS_MAX <= WIDE);

pub(super) const FIN: u8 = 0x01;
pub(super) const PSH: u8 = 0x08;
pub(super) const CWR: u8 = 0x80;

/// A sound super-frame and how it is cut. Borrows the frame.
#[derive(Debug, Clone, Copy)]
pub struct Segments<'f> {
    /// Without padding.
    frame: &'f [u8],
    layout: Layout,
    /// Bytes of payload in each segment but the last.
    size: usize,
    count: usize,
    /// Sums of what is the same in all segments: IPv4 header, pseudo-header.
    network: u32,
    pseudo: u32,
    identification: u16,
    sequence: u32,
    flags: u8,
}

impl<'f> Segments<'f> {
    /// Finds out whether `frame` can be cut as `gso` says. `Kind` if it carries something else or has no layout (options and
    /// extension headers are not copied here), `Field` for segments of no bytes, `TooLong` for too many of them.
    pub fn new(frame: &'f [u8], gso: &Gso) -> Result<Segments<'f>, Malformed> {
        let layout = Layout::of(frame).ok_or(Malformed::Kind)?;
        if layout.gso_kind() != gso.kind {
            return Err(Malformed::Kind);
        }
        let segments = Segments {
            frame: frame.get(..layout.end).ok_or(Malformed::Length)?,
            layout,
            size: gso.size.into(),
            count: 0,
            network: network(frame),
            pseudo: pseudo(frame, &layout),
            identification: be16(frame, NETWORK + 4),
            sequence: be32(frame, layout.transport + 4),
            flags: frame.get(layout.transport + 13).copied().unwrap_or(0),
        };
        let most = if layout.protocol == Protocol::Tcp { TCP_SEGMENTS_MAX } else { UDP_SEGMENTS_MAX };
        segments.cut(gso.size.into(), most)
    }

    /// The same TCP super-frame cut smaller, so that no segment is longer than `frame_len` bytes as a frame. None for UDP, whose
    /// datagrams are what they are, and if there is no room: not for a byte, or only in more than [`TCP_SEGMENTS_MAX`] segments.
    pub fn narrowed(&self, frame_len: usize) -> Option<Segments<'f>> {
        if self.layout.protocol == Protocol::Udp {
            return None;
        }
        let room = frame_len.checked_sub(self.layout.payload)?;
        self.cut(self.size.min(room), TCP_SEGMENTS_MAX).ok()
    }

    fn cut(self, size: usize, most: usize) -> Result<Segments<'f>, Malformed> {
        if size == 0 {
            return Err(Malformed::Field);
        }
        let count = self.payload().div_ceil(size).max(1);
        if count > most { Err(Malformed::TooLong) } else { Ok(Segments { size, count, ..self }) }
    }

    /// How many there are, at least one.
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the longest segment as a frame, headers included: of each but the last.
    #[inline]
    pub fn longest(&self) -> usize {
        self.layout.payload + self.size.min(self.payload())
    }

    /// Bytes of segment `n` as a frame; of one that does not exist, its headers'.
    #[inline]
    pub fn len_of(&self, n: usize) -> usize {
        self.layout.payload + self.payload().saturating_sub(n.saturating_mul(self.size)).min(self.size)
    }

    /// Where the checksum of every segment is.
    #[inline]
    pub fn partial(&self) -> Partial {
        self.layout.partial()
    }

    /// How a kernel is told to cut it.
    pub fn gso(&self) -> Gso {
        let (size, headers) = (u16::try_from(self.size), u16::try_from(self.layout.payload));
        let (size, headers) = (size.unwrap_or(u16::MAX), headers.unwrap_or(u16::MAX));
        let ecn = self.is_tcp() && self.flags & CWR != 0;
        Gso { kind: self.layout.gso_kind(), ecn, size, headers }
    }

    /// Whether it carries TCP; else UDP.
    pub fn is_tcp(&self) -> bool {
        self.layout.protocol == Protocol::Tcp
    }

    /// The super-frame itself: headers, and the payload of all.
    pub fn whole(&self) -> (&'f [u8], &'f [u8]) {
        self.frame.split_at_checked(self.layout.payload).unwrap_or((self.frame, &[]))
    }

    /// Bytes of all segments as frames.
    pub fn bytes(&self) -> usize {
        match self.count {
            0 => 0,
            count => (count - 1) * self.longest() + self.len_of(count - 1),
        }
    }

    fn payload(&self) -> usize {
        self.frame.len() - self.layout.payload
    }

    /// Writes segment `n` as a whole frame, with a partial checksum. `into` has exactly [`Segments::len_of`] bytes; if it has
    /// not, or there is no such segment, it is left as it is.
    #[inline]
    pub fn write(&self, n: usize, into: &mut [u8]) {
        if n >= self.count || into.len() != self.len_of(n) {
            return;
        }
        let headers = self.layout.payload;
        let skipped = n * self.size;
        match (into.first_chunk_mut::<WIDE>(), self.frame.first_chunk::<WIDE>()) {
            (Some(wide), Some(template)) => *wide = *template,
            _ => copy(into.get_mut(..headers), self.frame.get(..headers)),
        }
        let from = headers + skipped;
        let rest = into.len() - headers;
        copy(into.get_mut(headers..), self.frame.get(from..from + rest));
        match self.layout.version {
            Version::V4 => {
                if let Some(header) = into.first_chunk_mut::<TRANSPORT4>() {
                    self.write_ipv4(n, rest, header);
                }
                self.write_transport::<TRANSPORT4>(n, rest, into);
            }
            Version::V6 => {
                put(into, NETWORK + 4, low16(headers + rest - TRANSPORT6));
                self.write_transport::<TRANSPORT6>(n, rest, into);
            }
        }
    }

    /// The same with a complete checksum. The payload is summed where it comes from, which brings it near for the copy; what
    /// was stored a moment ago is slow to read (measured: half the price of the sum).
    #[inline]
    pub fn write_whole(&self, n: usize, into: &mut [u8]) {
        if n >= self.count || into.len() != self.len_of(n) {
            return;
        }
        let (headers, at) = (self.layout.payload, self.layout.transport);
        let from = headers + n * self.size;
        let payload = sum(self.frame.get(from..from + (into.len() - headers)).unwrap_or_default());
        self.write(n, into);
        // Transport headers have an even length, so that the two sums add up; the field holds the pseudo-header's.
        let header = sum(into.get(at..headers).unwrap_or_default());
        let checksum = match !fold(u32::from(header) + u32::from(payload)) {
            0 if self.layout.protocol == Protocol::Udp => 0xffff,
            checksum => checksum,
        };
        let Some(transport) = into.get_mut(at..) else { return };
        let offset = usize::from(self.layout.partial().offset);
        if let Some(field) = transport.get_mut(offset..offset + 2) {
            field.copy_from_slice(&checksum.to_be_bytes());
        }
    }

    #[inline(always)]
    fn write_ipv4(&self, n: usize, payload: usize, header: &mut [u8; TRANSPORT4]) {
        let total = self.layout.payload + payload - NETWORK;
        let identification = self.identification.wrapping_add(u16::from_be_bytes(low16(n)));
        let checksum = !fold(self.network + length(total) + u32::from(identification));
        put(header, NETWORK + 2, low16(total));
        put(header, NETWORK + 4, identification.to_be_bytes());
        put(header, NETWORK + 10, checksum.to_be_bytes());
    }

    #[inline(always)]
    fn write_transport<const AT: usize>(&self, n: usize, payload: usize, into: &mut [u8]) {
        let bytes = self.layout.payload + payload - AT;
        let sum = fold(self.pseudo + length(bytes)).to_be_bytes();
        let Some(into) = into.get_mut(AT..) else { return };
        match self.layout.protocol {
            Protocol::Tcp => {
                let Some(header) = into.first_chunk_mut::<20>() else { return };
                let skipped = u32::try_from(n * self.size).unwrap_or(0);
                let mut flags = self.flags;
                if n != 0 {
                    flags &= !CWR;
                }
                if n + 1 != self.count {
                    flags &= !(FIN | PSH);
                }
                put(header, 4, self.sequence.wrapping_add(skipped).to_be_bytes());
                put(header, 13, [flags]);
                put(header, 16, sum);
            }
            Protocol::Udp => {
                let Some(header) = into.first_chunk_mut::<8>() else { return };
                put(header, 4, low16(bytes));
                put(header, 6, sum);
            }
        }
    }
}

/// Both have the same length, or nothing is copied.
#[inline(always)]
fn copy(into: Option<&mut [u8]>, from: Option<&[u8]>) {
    if let (Some(into), Some(from)) = (into, from)
        && into.len() == from.len()
    {
        into.copy_from_slice(from);
    }
}
