//! Where the headers of a frame are.
//!
//! Owns the one shape that offloading knows: TCP or UDP directly over IPv4 without options or IPv6 without extension
//! headers, not a fragment, with lengths that agree. Everything else has no [`Layout`] and passes as it is. Does not own
//! checksums: a layout says where, never whether what is there is right.
//!
//! ```text
//! 0          14                 34 or 54                 payload       end
//! | Ethernet | IPv4 or IPv6     | TCP (20 to 60), UDP (8) | payload ... | padding of short frames
//!              16: total length   4: sequence  4: length
//!              18: identification 12: offset   6: checksum
//!              20: DF, fragment   13: flags
//!              24: checksum       16: checksum
//! ```

use crate::wire::frame::HEADER_LEN;
use crate::wire::virtio::{GsoKind, Partial};

/// Where the network header begins.
pub(super) const NETWORK: usize = HEADER_LEN;
/// Where the transport header begins over IPv4, and over IPv6.
pub(super) const TRANSPORT4: usize = NETWORK + 20;
/// See [`TRANSPORT4`].
pub(super) const TRANSPORT6: usize = NETWORK + 40;
/// The most bytes of headers that a frame with a layout has: IPv6 and TCP with all its options.
pub(super) const HEADERS_MAX: usize = TRANSPORT6 + 60;

const DONT_FRAGMENT: u16 = 0x4000;

/// The version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What IP carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Offsets from the begin of the frame, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The version of IP.
    pub version: Version,
    /// What it carries.
    pub protocol: Protocol,
    /// Where the TCP or UDP header begins: 34 or 54.
    pub transport: usize,
    /// Where its payload begins: how many bytes of headers there are, at most 114.
    pub payload: usize,
    /// Where the packet ends: not beyond the frame; what the frame has beyond is padding.
    pub end: usize,
}

impl Layout {
    /// The layout of `frame`. None if it is not TCP or UDP, a fragment, has IP options or extension headers, or lengths that
    /// contradict each other or the frame.
    #[inline]
    pub fn of(frame: &[u8]) -> Option<Layout> {
        let start: &[u8; TRANSPORT4] = frame.first_chunk()?;
        let (ethernet, ip) = start.split_first_chunk::<NETWORK>()?;
        let [.., t0, t1] = *ethernet;
        let (version, transport, end, protocol) = match (u16::from_be_bytes([t0, t1]), ip) {
            (0x0800, &[0x45, _, l0, l1, _, _, f0, f1, _, protocol, ..])
                if u16::from_be_bytes([f0, f1]) & !DONT_FRAGMENT == 0 =>
            {
                (Version::V4, TRANSPORT4, NETWORK + usize::from(u16::from_be_bytes([l0, l1])), protocol)
            }
            (0x86dd, &[0x60..=0x6f, _, _, _, l0, l1, protocol, ..]) => {
                (Version::V6, TRANSPORT6, TRANSPORT6 + usize::from(u16::from_be_bytes([l0, l1])), protocol)
            }
            _ => return None,
        };
        let packet = frame.get(..end)?;
        let header = packet.get(transport..)?;
        let (protocol, payload) = match protocol {
            6 => {
                let [.., offset, _, _, _, _, _, _, _] = *header.first_chunk::<20>()?;
                (Protocol::Tcp, transport + usize::from(offset >> 4) * 4)
            }
            17 => {
                let [_, _, _, _, l0, l1, _, _] = *header.first_chunk::<8>()?;
                if usize::from(u16::from_be_bytes([l0, l1])) != header.len() {
                    return None;
                }
                (Protocol::Udp, transport + 8)
            }
            _ => return None,
        };
        // A TCP header is not below 20 bytes.
        let least = if protocol == Protocol::Tcp { transport + 20 } else { payload };
        (least <= payload && payload <= end).then_some(Layout { version, protocol, transport, payload, end })
    }

    /// Where its checksum is.
    #[inline]
    pub fn partial(&self) -> Partial {
        let start = if self.version == Version::V4 { 34 } else { 54 };
        Partial { start, offset: if self.protocol == Protocol::Tcp { 16 } else { 6 } }
    }

    /// What a super-frame of this layout is called.
    #[inline]
    pub fn gso_kind(&self) -> GsoKind {
        match (self.protocol, self.version) {
            (Protocol::Tcp, Version::V4) => GsoKind::Tcp4,
            (Protocol::Tcp, Version::V6) => GsoKind::Tcp6,
            (Protocol::Udp, _) => GsoKind::Udp,
        }
    }
}

/// Whether a frame without gso may travel with its checksum uncompleted: whether `partial` is what its layout says, so that one
/// bit is enough for the receiver. Otherwise it is to be completed, and that before anything in the frame is believed:
/// see [`super::checksum::complete`].
#[inline]
pub fn may_stay_partial(frame: &[u8], partial: Partial) -> bool {
    Layout::of(frame).is_some_and(|layout| layout.partial() == partial)
}

/// The big-endian number at `at`; 0 beyond the end.
#[inline(always)]
pub(super) fn be16(bytes: &[u8], at: usize) -> u16 {
    chunk(bytes, at).map_or(0, u16::from_be_bytes)
}

/// See [`be16`].
#[inline(always)]
pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    chunk(bytes, at).map_or(0, u32::from_be_bytes)
}

/// The `N` bytes at `at`.
#[inline(always)]
pub(super) fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Writes `field` at `at`; nothing beyond the end.
#[inline(always)]
pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, field: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = field;
    }
}
