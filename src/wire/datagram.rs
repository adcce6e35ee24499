//! rnet's own UDP framing: one Ethernet frame, or one probe, in one datagram between neighbours.
//!
//! Owns the two headers. Sealing is `crypto::seal`, which datagram belongs to which path is `plane::path`, and what the
//! body of a probe means is the mesh's. Integers are big-endian.
//!
//! ```text
//! outer, 16 bytes, always in clear, authenticated with the body where there is a seal:
//!   0      version (high 4 bits) = 1, kind (low 4 bits): 1 sealed, 2 plain, 3 probe (sealed)
//!   1      zero
//!   2..4   key epoch
//!   4..8   receiver index: random, chosen by the receiver, per path and epoch
//!   8..16  counter: never twice under one key
//! inner, 8 bytes, or 14 for a fragment; in front of the frame, sealed with it:
//!   0..2   short id of the origin, not 0
//!   2..4   short id of the destination, 0 = flood along the origin's tree
//!   4..7   network id, not 0
//!   7      bit 0 fragment, bit 1 zero, bits 2 to 7 how often it may still be handed on
//!   8..12  fragment: id, per path
//!  12..14  fragment: bit 13 more follow, bits 0 to 12 offset in units of 8 bytes, the others zero
//! then the frame; then, where sealed, the tag of 16 bytes
//! ```

use super::Malformed;
use crate::types::{NetId, ShortId};

/// Version of this framing.
pub const VERSION: u8 = 1;
/// Bytes of the outer header.
pub const OUTER_LEN: usize = 16;
/// Bytes of the inner header of a whole frame.
pub const INNER_LEN: usize = 8;
/// Bytes that a fragment has in addition.
pub const FRAGMENT_LEN: usize = 6;
/// Bytes of the seal.
pub const TAG_LEN: usize = 16;

/// How often a frame is handed on at most. Paths are shorter; it is what ends a frame that goes in circles while peers
/// disagree about the topology.
pub const HOPS_MAX: u8 = 63;

const FLAG_FRAGMENT: u8 = 1;
const HOPS_SHIFT: u32 = 2;
const FLAGS_KNOWN: u8 = FLAG_FRAGMENT | (HOPS_MAX << HOPS_SHIFT);
const MORE: u16 = 1 << 13;
const OFFSET: u16 = MORE - 1;

/// What a datagram carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Inner header and frame, sealed.
    Sealed = 1,
    /// Inner header and frame, in clear.
    Plain = 2,
    /// A probe of the path, always sealed.
    Probe = 3,
}

/// The header that every datagram begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Outer {
    /// What follows.
    pub kind: Kind,
    /// Which of the path's keys.
    pub epoch: u16,
    /// Which of the receiver's paths.
    pub index: u32,
    /// The nonce, and the place in the replay window.
    pub counter: u64,
}

impl Outer {
    /// Reads the first 16 bytes of `datagram`; what follows is not looked at.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Result<Outer, Malformed> {
        let Some(&[first, zero, e0, e1, i0, i1, i2, i3, c0, c1, c2, c3, c4, c5, c6, c7]) =
            datagram.first_chunk::<OUTER_LEN>()
        else {
            return Err(Malformed::Truncated);
        };
        if first >> 4 != VERSION {
            return Err(Malformed::Version);
        }
        let kind = match first & 0x0f {
            1 => Kind::Sealed,
            2 => Kind::Plain,
            3 => Kind::Probe,
            _ => return Err(Malformed::Kind),
        };
        if zero != 0 {
            return Err(Malformed::Field);
        }
        Ok(Outer {
            kind,
            epoch: u16::from_be_bytes([e0, e1]),
            index: u32::from_be_bytes([i0, i1, i2, i3]),
            counter: u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
        })
    }

    /// Writes it.
    #[inline]
    pub fn emit(&self, into: &mut [u8; OUTER_LEN]) {
        let [e0, e1] = self.epoch.to_be_bytes();
        let [i0, i1, i2, i3] = self.index.to_be_bytes();
        let [c0, c1, c2, c3, c4, c5, c6, c7] = self.counter.to_be_bytes();
        let first = (VERSION << 4) | self.kind as u8;
        *into = [first, 0, e0, e1, i0, i1, i2, i3, c0, c1, c2, c3, c4, c5, c6, c7];
    }
}

/// Where a fragment belongs in its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// The same for all fragments of a frame.
    pub id: u32,
    /// Bytes of the frame before this one, a multiple of 8, at most 65,528.
    pub offset: u16,
    /// Others follow.
    pub more: bool,
}

/// The header in front of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Inner {
    /// The peer that captured the frame; never 0.
    pub origin: ShortId,
    /// The peer that it is for, or [`ShortId::FLOOD`].
    pub destination: ShortId,
    /// The network that it is on.
    pub network: NetId,
    /// How often it may still be handed on, at most [`HOPS_MAX`]; each relay takes one.
    pub hops: u8,
    /// Set if what follows is a part of a frame.
    pub fragment: Option<Fragment>,
}

impl Inner {
    /// Reads the header at the begin of `bytes`, and says how long it is.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<(Inner, usize), Malformed> {
        let Some(&[o0, o1, d0, d1, n0, n1, n2, flags]) = bytes.first_chunk::<INNER_LEN>() else {
            return Err(Malformed::Truncated);
        };
        let origin = ShortId(u16::from_be_bytes([o0, o1]));
        let network = NetId::new(u32::from_be_bytes([0, n0, n1, n2])).ok_or(Malformed::Field)?;
        if origin.0 == 0 || flags & !FLAGS_KNOWN != 0 {
            return Err(Malformed::Field);
        }
        let fragment = if flags & FLAG_FRAGMENT == 0 { None } else { Some(Fragment::parse(bytes)?) };
        let inner = Inner {
            origin,
            destination: ShortId(u16::from_be_bytes([d0, d1])),
            network,
            hops: flags >> HOPS_SHIFT,
            fragment,
        };
        Ok((inner, inner.len()))
    }

    /// Writes it to the begin of `into` and says how long it is; writes nothing and says 0 if `into` is too short.
    #[inline]
    pub fn emit(&self, into: &mut [u8]) -> usize {
        let length = self.len();
        let Some((header, rest)) =
            into.get_mut(..length).and_then(|header| header.split_first_chunk_mut::<INNER_LEN>())
        else {
            return 0;
        };
        let [o0, o1] = self.origin.0.to_be_bytes();
        let [d0, d1] = self.destination.0.to_be_bytes();
        let [_, n0, n1, n2] = self.network.value().to_be_bytes();
        let fragment = if self.fragment.is_some() { FLAG_FRAGMENT } else { 0 };
        *header = [o0, o1, d0, d1, n0, n1, n2, (self.hops.min(HOPS_MAX) << HOPS_SHIFT) | fragment];
        if let (Some(fragment), Some(rest)) = (self.fragment, rest.first_chunk_mut::<FRAGMENT_LEN>()) {
            fragment.emit(rest);
        }
        length
    }

    /// Bytes that [`Inner::emit`] writes: 8 or 14.
    #[allow(clippy::len_without_is_empty)] // a header is never empty
    #[inline]
    pub const fn len(&self) -> usize {
        if self.fragment.is_some() { INNER_LEN + FRAGMENT_LEN } else { INNER_LEN }
    }
}

impl Fragment {
    /// `bytes` begins with the inner header.
    fn parse(bytes: &[u8]) -> Result<Fragment, Malformed> {
        let fields = bytes.get(INNER_LEN..).and_then(|rest| rest.first_chunk::<FRAGMENT_LEN>());
        let Some(&[i0, i1, i2, i3, p0, p1]) = fields else {
            return Err(Malformed::Truncated);
        };
        let place = u16::from_be_bytes([p0, p1]);
        if place & !(MORE | OFFSET) != 0 {
            return Err(Malformed::Field);
        }
        Ok(Fragment {
            id: u32::from_be_bytes([i0, i1, i2, i3]),
            offset: (place & OFFSET) << 3,
            more: place & MORE != 0,
        })
    }

    fn emit(&self, into: &mut [u8; FRAGMENT_LEN]) {
        let [i0, i1, i2, i3] = self.id.to_be_bytes();
        let more = if self.more { MORE } else { 0 };
        let [p0, p1] = (more | (self.offset >> 3)).to_be_bytes();
        *into = [i0, i1, i2, i3, p0, p1];
    }
}
