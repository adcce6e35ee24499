//! rnet's own UDP framing: one Ethernet frame, or one probe, in one datagram between neighbours.
//!
//! Owns the two headers. Sealing is `crypto::seal`, which datagram belongs to which path is `plane::path`, and what the
//! body of a probe means is the mesh's. Integers are big-endian.
//!
//! ```text
//! outer, 16 bytes, always in clear, authenticated with the body where there is a seal:
//!   0      version (high 4 bits) = 3, kind (low 4 bits): 1 sealed, 2 plain, 3 probe (sealed)
//!   1      bits 0 to 6 lane: any number, a receiver with several threads spreads datagrams by it; bit 7 sparse
//!   2..4   key epoch
//!   4..8   receiver index: random, chosen by the receiver, per path and epoch
//!   8..16  counter: never twice under one key
//! inner, 8 bytes, 8 more for a flood, then 6 more for a fragment; in front of the frame, sealed with it:
//!   0..2   short id of the origin, not 0
//!   2..4   short id of the destination, 0 = flood along the origin's tree
//!   4..7   network id, not 0
//!   7      bit 0 fragment, bit 1 partial, bits 2 to 7 how often it may still be handed on
//!   8 bytes  flood: its number among those of its origin
//!   4 bytes  fragment: id, chosen by the peer that cut the frame
//!   2 bytes  fragment: bit 13 more follow, bits 0 to 12 offset in units of 8 bytes, the others zero
//! then the frame; then, where sealed, the tag of 16 bytes
//! ```
//!
//! Sparse: of a flow that sends little. A receiver takes such datagrams first, so that they do not wait behind those of flows that
//! fill its queue. It is a wish, and costs nobody anything who does not know it.
//!
//! Number: by it a peer that is handed a flood twice, by two trees, knows the second copy. Whoever hands a frame on leaves it as it is, and
//! pieces of one frame have one. An origin begins at random at each start and counts up by one for each frame, so what it
//! counted before is far from what it counts now. What is for one peer does without, so a frame that just fits a path for one
//! peer goes in two pieces when it is flooded.
//!
//! Partial: the frame's TCP or UDP checksum holds only the sum of its pseudo-header. The tag, or the checksum of the outer
//! UDP, proves the bytes, so the sender did not sum them up; whoever takes the frame to where neither holds completes it.

use super::Malformed;
use crate::types::{NetId, ShortId};

/// Version of this framing.
pub const VERSION: u8 = 3;
/// Bytes of the outer header.
pub const OUTER_LEN: usize = 16;
/// Bytes of the inner header of a whole frame for one peer.
pub const INNER_LEN: usize = 8;
/// Bytes that a flood has in addition.
pub const NUMBER_LEN: usize = 8;
/// Bytes that a fragment has in addition.
pub const FRAGMENT_LEN: usize = 6;
/// Bytes of the seal.
pub const TAG_LEN: usize = 16;

/// How often a frame is handed on at most. Paths are shorter; it is what ends a frame that goes in circles while peers
/// disagree about the topology.
pub const HOPS_MAX: u8 = 63;

const LANE: u8 = 0x7f;
/// The bit of the datagram's second byte that says sparse.
pub const SPARSE: u8 = 0x80;

const FLAG_FRAGMENT: u8 = 1;
const FLAG_PARTIAL: u8 = 2;
const HOPS_SHIFT: u32 = 2;
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
    /// Which of the sender's threads wrote it, 0 to 127: what one of them sends shall meet one thread of the receiver.
    pub lane: u8,
    /// See the head of this file.
    pub sparse: bool,
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
        let Some(&[first, lane, e0, e1, i0, i1, i2, i3, c0, c1, c2, c3, c4, c5, c6, c7]) =
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
        Ok(Outer {
            kind,
            lane: lane & LANE,
            sparse: lane & SPARSE != 0,
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
        let lane = (self.lane & LANE) | if self.sparse { SPARSE } else { 0 };
        *into = [first, lane, e0, e1, i0, i1, i2, i3, c0, c1, c2, c3, c4, c5, c6, c7];
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
    /// Of a flood: which one of its origin's. Not written otherwise, and read as 0.
    pub number: u64,
    /// The network that it is on.
    pub network: NetId,
    /// How often it may still be handed on, at most [`HOPS_MAX`]; each relay takes one.
    pub hops: u8,
    /// The frame's transport checksum is not completed; see the head of this file.
    pub partial: bool,
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
        if origin.0 == 0 {
            return Err(Malformed::Field);
        }
        let destination = ShortId(u16::from_be_bytes([d0, d1]));
        let rest = bytes.get(INNER_LEN..).unwrap_or_default();
        let (number, rest) = if destination == ShortId::FLOOD { number(rest)? } else { (0, rest) };
        let fragment = if flags & FLAG_FRAGMENT == 0 { None } else { Some(Fragment::parse(rest)?) };
        let inner = Inner {
            origin,
            destination,
            number,
            network,
            hops: flags >> HOPS_SHIFT,
            partial: flags & FLAG_PARTIAL != 0,
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
        let partial = if self.partial { FLAG_PARTIAL } else { 0 };
        *header = [o0, o1, d0, d1, n0, n1, n2, (self.hops.min(HOPS_MAX) << HOPS_SHIFT) | partial | fragment];
        let rest = match rest.split_first_chunk_mut::<NUMBER_LEN>() {
            Some((number, rest)) if self.is_flood() => {
                *number = self.number.to_be_bytes();
                rest
            }
            _ => rest,
        };
        if let (Some(fragment), Some(rest)) = (self.fragment, rest.first_chunk_mut::<FRAGMENT_LEN>()) {
            fragment.emit(rest);
        }
        length
    }

    /// Bytes that [`Inner::emit`] writes: 8 to 22.
    #[allow(clippy::len_without_is_empty)] // a header is never empty
    #[inline]
    pub const fn len(&self) -> usize {
        let number = if self.is_flood() { NUMBER_LEN } else { 0 };
        INNER_LEN + number + if self.fragment.is_some() { FRAGMENT_LEN } else { 0 }
    }

    /// Whether it is for everybody.
    #[inline]
    pub const fn is_flood(&self) -> bool {
        self.destination.0 == ShortId::FLOOD.0
    }
}

/// The number of a flood, and what follows it.
fn number(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let (number, rest) = bytes.split_first_chunk::<NUMBER_LEN>().ok_or(Malformed::Truncated)?;
    Ok((u64::from_be_bytes(*number), rest))
}

impl Fragment {
    fn parse(bytes: &[u8]) -> Result<Fragment, Malformed> {
        let Some(&[i0, i1, i2, i3, p0, p1]) = bytes.first_chunk::<FRAGMENT_LEN>() else {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OUTER: [u8; 16] = [0x31, 3, 0x01, 0x02, 0xa1, 0xa2, 0xa3, 0xa4, 0, 0, 0, 0, 0, 0, 0x03, 0x04];
    const WHOLE: [u8; 8] = [0x00, 0x07, 0x00, 0x09, 0x83, 0x12, 0xa4, 0xfc];
    const PART: [u8; 14] = [0x00, 0x07, 0x00, 0x09, 0x83, 0x12, 0xa4, 0x27, 0xde, 0xad, 0xbe, 0xef, 0x20, 0xb6];
    const FLOOD: [u8; 16] = [0x00, 0x07, 0, 0, 0x83, 0x12, 0xa4, 0xfc, 1, 2, 3, 4, 5, 6, 7, 8];
    const FLOOD_PART: [u8; 22] =
        [0x00, 0x07, 0, 0, 0x83, 0x12, 0xa4, 0x27, 1, 2, 3, 4, 5, 6, 7, 8, 0xde, 0xad, 0xbe, 0xef, 0x20, 0xb6];

    fn whole() -> Inner {
        Inner {
            origin: ShortId(7),
            destination: ShortId(9),
            number: 0,
            network: NetId::new(0x83_12a4).unwrap(),
            hops: HOPS_MAX,
            partial: false,
            fragment: None,
        }
    }

    fn part() -> Inner {
        let fragment = Fragment { id: 0xdead_beef, offset: 1456, more: true };
        Inner { hops: 9, partial: true, fragment: Some(fragment), ..whole() }
    }

    fn flooded(inner: Inner) -> Inner {
        Inner { destination: ShortId::FLOOD, number: 0x0102_0304_0506_0708, ..inner }
    }

    #[test]
    fn outer_header_is_these_bytes() {
        let outer =
            Outer { kind: Kind::Sealed, lane: 3, sparse: false, epoch: 0x0102, index: 0xa1a2_a3a4, counter: 0x0304 };
        let mut bytes = [0; OUTER_LEN];
        outer.emit(&mut bytes);
        assert_eq!(bytes, OUTER);
        assert_eq!(Outer::parse(&OUTER), Ok(outer));
        for (first, kind) in [(0x32, Kind::Plain), (0x33, Kind::Probe)] {
            bytes[0] = first;
            assert_eq!(Outer::parse(&bytes), Ok(Outer { kind, ..outer }));
        }
    }

    #[test]
    fn inner_header_is_these_bytes() {
        let floods = [(flooded(whole()), &FLOOD[..]), (flooded(part()), &FLOOD_PART[..])];
        for (inner, expected) in [(whole(), &WHOLE[..]), (part(), &PART[..])].into_iter().chain(floods) {
            let mut bytes = [0xee; 30];
            assert_eq!(inner.emit(&mut bytes), expected.len());
            assert_eq!(&bytes[..expected.len()], expected);
            assert_eq!(bytes[expected.len()], 0xee, "nothing behind it is touched");
            assert_eq!(Inner::parse(&bytes), Ok((inner, expected.len())));
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let outer = |at: usize, value: u8| {
            let mut bytes = OUTER;
            bytes[at] = value;
            Outer::parse(&bytes)
        };
        assert_eq!(outer(0, 0x41), Err(Malformed::Version));
        assert_eq!(outer(0, 0x21), Err(Malformed::Version));
        assert_eq!(outer(0, 0x30), Err(Malformed::Kind));
        assert_eq!(outer(0, 0x34), Err(Malformed::Kind));
        let inner = |at: usize, value: u8| {
            let mut bytes = PART;
            bytes[at] = value;
            Inner::parse(&bytes).map(|_| ())
        };
        assert_eq!(inner(1, 0), Err(Malformed::Field), "an origin of 0");
        assert_eq!(inner(12, 0x60), Err(Malformed::Field), "an unknown bit");
        assert_eq!(Inner::parse(&[0, 7, 0, 9, 0, 0, 0, 0]), Err(Malformed::Field), "network 0");
    }

    #[test]
    fn truncated_headers_are_refused_at_every_length() {
        for length in 0..OUTER_LEN {
            assert_eq!(Outer::parse(&OUTER[..length]), Err(Malformed::Truncated));
        }
        for length in 0..INNER_LEN {
            assert_eq!(Inner::parse(&WHOLE[..length]), Err(Malformed::Truncated));
        }
        for header in [&PART[..], &FLOOD, &FLOOD_PART] {
            for length in 0..header.len() {
                assert_eq!(Inner::parse(&header[..length]), Err(Malformed::Truncated));
            }
        }
    }

    #[test]
    fn a_header_that_does_not_fit_is_not_written_at_all() {
        let mut short = [0xee; INNER_LEN + FRAGMENT_LEN - 1];
        assert_eq!(part().emit(&mut short), 0);
        assert_eq!(flooded(part()).emit(&mut short), 0);
        assert_eq!(short, [0xee; 13]);
    }

    #[test]
    fn largest_fragment_offset_fits() {
        let fragment = Fragment { id: 0, offset: 65_528, more: false };
        let inner = Inner { fragment: Some(fragment), ..whole() };
        let mut bytes = [0; 14];
        inner.emit(&mut bytes);
        assert_eq!(bytes[12..], [0x1f, 0xff]);
        assert_eq!(Inner::parse(&bytes), Ok((inner, 14)));
    }

    proptest! {
        #[test]
        fn outer_reads_what_it_wrote(kind in 1u8..=3, lane in 0u8..128, sparse: bool, epoch: u16, index: u32, counter: u64) {
            let kind = [Kind::Sealed, Kind::Plain, Kind::Probe][usize::from(kind) - 1];
            let outer = Outer { kind, lane, sparse, epoch, index, counter };
            let mut bytes = [0xff; OUTER_LEN];
            outer.emit(&mut bytes);
            prop_assert_eq!(Outer::parse(&bytes), Ok(outer));
        }

        #[test]
        fn inner_reads_what_it_wrote(
            origin in 1u16.., destination in prop_oneof![Just(0), any::<u16>()], number: u64, network in 1u32..1 << 24, hops in 0..=HOPS_MAX, partial: bool,
            fragment in prop::option::of((any::<u32>(), 0u16..8192, any::<bool>())),
        ) {
            let fragment = fragment.map(|(id, eighths, more)| Fragment { id, offset: eighths * 8, more });
            let network = NetId::new(network).unwrap();
            let number = if destination == 0 { number } else { 0 };
            let (origin, destination) = (ShortId(origin), ShortId(destination));
            let inner = Inner { origin, destination, number, network, hops, partial, fragment };
            let mut bytes = [0xff; 22];
            let length = inner.emit(&mut bytes);
            prop_assert_eq!(Inner::parse(&bytes[..length]), Ok((inner, length)));
        }

        #[test]
        fn any_bytes_are_refused_or_written_back_alike(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(outer) = Outer::parse(&bytes) {
                let mut again = [0; OUTER_LEN];
                outer.emit(&mut again);
                prop_assert_eq!(&again[..], &bytes[..OUTER_LEN]);
            }
            if let Ok((inner, length)) = Inner::parse(&bytes) {
                let mut again = vec![0; length];
                prop_assert_eq!(inner.emit(&mut again), length);
                prop_assert_eq!(&again[..], &bytes[..length]);
            }
        }
    }
}
