//! Super-frames that have no layout, cut all the same: with VLAN tags, IPv4 options or IPv6 extension headers.
//!
//! Kernels make them too (a socket with IP_OPTIONS, a tagged interface of an unguarded attachment), and whoever sends them
//! sees nothing but a connection that hangs if nobody cuts them. They are rare: here plainness counts, not speed. Segments
//! are whole frames with complete checksums, since nobody else could complete them.
//!
//! ```text
//! | Ethernet, tags | IP, options or extension headers | TCP, UDP | payload ...
//!                  ^ network                          ^ where the kernel's checksum begins
//! ```
//!
//! The sum of the pseudo-header is what stands in the checksum of the super-frame but for the length, so that routing headers,
//! which hide the address that it is made of, need not be understood.

use super::checksum::{fold, length, sum};
use super::layout::{NETWORK, be16, be32, chunk, low16, put};
use super::segment::{CWR, FIN, PSH, TCP_SEGMENTS_MAX, UDP_SEGMENTS_MAX};
use crate::wire::Malformed;
use crate::wire::virtio::{Gso, GsoKind, Partial};

/// 802.1Q, 802.1ad, and what was there before.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// Tags that are looked behind.
const TAGS_MAX: usize = 2;
/// Hop-by-hop options, routing, destination options: they all tell their length alike (RFC 8200).
const EXTENSIONS: [u8; 3] = [0, 43, 60];

/// A super-frame and how it is cut. Borrows the frame.
#[derive(Debug, Clone, Copy)]
pub struct Odd<'f> {
    /// Without padding.
    frame: &'f [u8],
    kind: GsoKind,
    network: usize,
    transport: usize,
    /// Where the checksum is.
    field: usize,
    /// Where the payload begins.
    payload: usize,
    /// Bytes of payload in each segment but the last.
    size: usize,
    /// Sum of the pseudo-header but for the length.
    pseudo: u32,
}

impl<'f> Odd<'f> {
    /// Finds out whether `frame`, whose checksum is `partial`, can be cut as `gso` says. `Kind` if it is something else.
    pub fn new(frame: &'f [u8], gso: &Gso, partial: Partial) -> Result<Odd<'f>, Malformed> {
        let tags = (0..TAGS_MAX).take_while(|n| TAGS.contains(&be16(frame, NETWORK - 2 + 4 * n))).count();
        let network = NETWORK + 4 * tags;
        let (version, protocol, end) = match be16(frame, network - 2) {
            0x0800 => ipv4(frame, network, partial.start.into())?,
            0x86dd => ipv6(frame, network, partial.start.into())?,
            _ => return Err(Malformed::Kind),
        };
        let frame = frame.get(..end).ok_or(Malformed::Length)?;
        let (transport, field) = (usize::from(partial.start), usize::from(partial.start) + usize::from(partial.offset));
        let [offset] = chunk(frame, transport + 12).unwrap_or([0]);
        let (kind, at, header, most) = match (protocol, version) {
            (6, 4) => (GsoKind::Tcp4, 16, usize::from(offset >> 4) * 4, TCP_SEGMENTS_MAX),
            (6, _) => (GsoKind::Tcp6, 16, usize::from(offset >> 4) * 4, TCP_SEGMENTS_MAX),
            (17, _) => (GsoKind::Udp, 6, 8, UDP_SEGMENTS_MAX),
            _ => return Err(Malformed::Kind),
        };
        let (payload, size) = (transport + header, usize::from(gso.size));
        if kind != gso.kind || partial.offset != at || (at == 16 && header < 20) {
            return Err(Malformed::Kind);
        }
        if payload > end {
            return Err(Malformed::Length);
        }
        if size == 0 || (end - payload).div_ceil(size) > most {
            return Err(Malformed::TooLong);
        }
        let pseudo = u32::from(be16(frame, field)) + u32::from(!be16(&low16(end - transport), 0));
        Ok(Odd { frame, kind, network, transport, field, payload, size, pseudo })
    }

    /// How many segments there are, at least one.
    pub fn count(&self) -> usize {
        (self.frame.len() - self.payload).div_ceil(self.size).max(1)
    }

    /// Bytes of segment `n` as a frame.
    pub fn len_of(&self, n: usize) -> usize {
        self.payload + (self.frame.len() - self.payload).saturating_sub(n.saturating_mul(self.size)).min(self.size)
    }

    /// Writes segment `n`, which exists, as a whole frame into exactly [`Odd::len_of`] bytes.
    pub fn write(&self, n: usize, into: &mut [u8]) {
        let (headers, skipped) = (self.payload, n * self.size);
        let from = headers + skipped;
        let parts = (self.frame.get(..headers), self.frame.get(from..from + (self.len_of(n) - headers)));
        let (Some(template), Some(payload)) = parts else { return };
        if into.len() != template.len() + payload.len() {
            return;
        }
        let (start, rest) = into.split_at_mut(headers);
        start.copy_from_slice(template);
        rest.copy_from_slice(payload);
        self.write_network(n, into);
        let bytes = into.len() - self.transport;
        if self.kind == GsoKind::Udp {
            put(into, self.transport + 4, low16(bytes));
        } else {
            let last = n + 1 == self.count();
            let sequence = be32(self.frame, self.transport + 4).wrapping_add(u32::try_from(skipped).unwrap_or(0));
            let [flags] = chunk(self.frame, self.transport + 13).unwrap_or([0]);
            let not_here = if n == 0 { 0 } else { CWR } | if last { 0 } else { FIN | PSH };
            put(into, self.transport + 4, sequence.to_be_bytes());
            put(into, self.transport + 13, [flags & !not_here]);
        }
        put(into, self.field, [0, 0]);
        let summed = into.get(self.transport..).map_or(0, sum);
        let checksum = match !fold(self.pseudo + length(bytes) + u32::from(summed)) {
            0 if self.kind == GsoKind::Udp => 0xffff,
            checksum => checksum,
        };
        put(into, self.field, checksum.to_be_bytes());
    }

    fn write_network(&self, n: usize, into: &mut [u8]) {
        let (at, length) = (self.network, into.len() - self.network);
        let [first] = chunk(into, at).unwrap_or([0]);
        if first >> 4 == 6 {
            return put(into, at + 4, low16(length - 40));
        }
        let identification = be16(self.frame, at + 4).wrapping_add(be16(&low16(n), 0));
        put(into, at + 2, low16(length));
        put(into, at + 4, identification.to_be_bytes());
        put(into, at + 10, [0, 0]);
        let checksum = !into.get(at..at + usize::from(first & 15) * 4).map_or(0, sum);
        put(into, at + 10, checksum.to_be_bytes());
    }
}

/// Version, protocol and end of the packet, if its transport begins there.
fn ipv4(frame: &[u8], network: usize, transport: usize) -> Result<(u8, u8, usize), Malformed> {
    let header: [u8; 20] = chunk(frame, network).ok_or(Malformed::Truncated)?;
    let [first, _, _, _, _, _, f0, f1, _, protocol, ..] = header;
    let is_fragment = u16::from_be_bytes([f0, f1]) & !0x4000 != 0;
    if !(0x45..=0x4f).contains(&first) || is_fragment || network + usize::from(first & 15) * 4 != transport {
        return Err(Malformed::Kind);
    }
    Ok((4, protocol, network + usize::from(be16(frame, network + 2))))
}

/// See [`ipv4`].
fn ipv6(frame: &[u8], network: usize, transport: usize) -> Result<(u8, u8, usize), Malformed> {
    let header: [u8; 40] = chunk(frame, network).ok_or(Malformed::Truncated)?;
    let [first, _, _, _, _, _, mut next, ..] = header;
    let mut at = network + 40;
    while at < transport && EXTENSIONS.contains(&next) {
        let [following, length] = chunk(frame, at).ok_or(Malformed::Truncated)?;
        (next, at) = (following, at + 8 + 8 * usize::from(length));
    }
    if first >> 4 != 6 || at != transport {
        return Err(Malformed::Kind);
    }
    Ok((6, next, network + 40 + usize::from(be16(frame, network + 4))))
}
