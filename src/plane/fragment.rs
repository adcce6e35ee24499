//! Frames too big for a path: told to the sender, or sent in pieces.
//!
//! Owns the three ways: the ICMP answer for a sender that wants to know ([`too_big`]), the cut ([`pieces`]) and the
//! putting together ([`Reassembly`], one per path). Which way is taken is `Plane`'s; layout of the pieces is `wire::datagram`'s.
//!
//! A frame is cut where it does not fit, and put together where it is delivered. A relay passes pieces on as they are, or cuts
//! them further: offsets count from the start of the frame, so pieces of pieces are pieces.
//!
//! ```text
//! slot:  key (origin, network, id) | born | total, once the last piece came | blocks of 8 bytes that are here | bytes
//! ```
//!
//! Memory is bounded by [`PARTIALS_MAX`] and [`PARTIAL_BYTES_MAX`] per path, time by [`PARTIAL_AGE`]; beyond, the oldest
//! partial frame goes. A piece that contradicts what is here (overlap with other bytes, another end) discards the whole
//! frame, as RFC 5722 does; an exact duplicate is ignored.

use super::counters::Drop;
use crate::types::{Instant, NetId, ShortId};
use crate::wire::datagram::Fragment;
use crate::wire::frame::{FRAME_MAX, Frame};
use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{EtherType, Icmpv4Type, Icmpv6Type, Ipv4HeaderSlice, Ipv6HeaderSlice, PacketBuilder, ip_number};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::time::Duration;

/// Most frames that are in pieces at a time, per path.
pub const PARTIALS_MAX: usize = 64;
/// Most bytes that they hold, per path.
pub const PARTIAL_BYTES_MAX: usize = 1 << 20;
/// How long the other pieces of a frame are waited for.
pub const PARTIAL_AGE: Duration = Duration::from_secs(2);

/// The largest answer of [`too_big`]: an Ethernet header and the smallest packet that every IPv6 link carries.
pub const REPLY_MAX: usize = 14 + 1280;

/// Below these a sender would not believe us: RFC 791 and RFC 8200.
const MTU_MIN: (usize, usize) = (576, 1280);

/// An answer in the name of the destination, which tells the sender of `frame` that packets of at most `mtu` bytes get through.
/// Returns its length in `into`; nothing if the sender does not want to know (no DF), would not believe it, or may not be
/// answered (RFC 1122 3.2.2, RFC 4443 2.4): then the frame is to be sent in pieces.
pub fn too_big(frame: &Frame<'_>, mtu: usize, into: &mut [u8; REPLY_MAX]) -> Option<usize> {
    match EtherType(frame.ether_type()) {
        EtherType::IPV4 => too_big_v4(frame, mtu, into),
        EtherType::IPV6 => too_big_v6(frame, mtu, into),
        _ => None,
    }
}

fn too_big_v4(frame: &Frame<'_>, mtu: usize, into: &mut [u8]) -> Option<usize> {
    const QUOTED: usize = 576 - 20 - 8;
    let packet = frame.payload();
    let ip = Ipv4HeaderSlice::from_slice(packet).ok()?;
    let icmp_error =
        || ip.protocol() == ip_number::ICMP && matches!(packet.get(ip.slice().len()), Some(3 | 4 | 5 | 11 | 12) | None);
    let answerable = |ip: Ipv4Addr| !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast());
    let wants = ip.dont_fragment() && ip.fragments_offset().value() == 0 && usize::from(ip.total_len()) > mtu;
    if mtu < MTU_MIN.0 || !wants || icmp_error() || !answerable(ip.source_addr()) || !answerable(ip.destination_addr())
    {
        return None;
    }
    let next_hop_mtu = u16::try_from(mtu).ok()?;
    let reply = PacketBuilder::ethernet2(frame.dst().0, frame.src().0)
        .ipv4(ip.destination(), ip.source(), 64)
        .icmpv4(Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded { next_hop_mtu }));
    reply.write_to_slice(into, packet.get(..packet.len().min(QUOTED))?).ok()
}

fn too_big_v6(frame: &Frame<'_>, mtu: usize, into: &mut [u8]) -> Option<usize> {
    const QUOTED: usize = 1280 - 40 - 8;
    let packet = frame.payload();
    let ip = Ipv6HeaderSlice::from_slice(packet).ok()?;
    let icmp_error = || ip.next_header() == ip_number::IPV6_ICMP && packet.get(40).is_none_or(|kind| *kind < 128);
    let answerable = |ip: Ipv6Addr| !(ip.is_unspecified() || ip.is_multicast());
    let bigger = usize::from(ip.payload_length()) + 40 > mtu;
    if mtu < MTU_MIN.1 || !bigger || icmp_error() || !answerable(ip.source_addr()) || !answerable(ip.destination_addr())
    {
        return None;
    }
    let reply = PacketBuilder::ethernet2(frame.dst().0, frame.src().0)
        .ipv6(ip.destination(), ip.source(), 64)
        .icmpv6(Icmpv6Type::PacketTooBig { mtu: u32::try_from(mtu).ok()? });
    reply.write_to_slice(into, packet.get(..packet.len().min(QUOTED))?).ok()
}

/// Cuts `len` bytes into pieces of at most `room` bytes: the header of each, and where it lies. `of` is what is cut: a piece of
/// a frame, or for a whole frame a new id with offset 0 and nothing after it.
/// `NoRoom` if not even 8 bytes fit, `BadFragment` if it reaches beyond the largest frame.
pub fn pieces(of: Fragment, len: usize, room: usize) -> Result<impl Iterator<Item = (Fragment, Range<usize>)>, Drop> {
    let step = room & !7;
    if step == 0 {
        return Err(Drop::NoRoom);
    }
    if usize::from(of.offset) + len > FRAME_MAX {
        return Err(Drop::BadFragment);
    }
    Ok((0..len).step_by(step).filter_map(move |start| {
        let end = len.min(start + step);
        let offset = of.offset.checked_add(u16::try_from(start).ok()?)?;
        Some((Fragment { id: of.id, offset, more: of.more || end < len }, start..end))
    }))
}

/// Which frame a piece belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The peer that captured the frame.
    pub origin: ShortId,
    /// The network that it is on.
    pub network: NetId,
    /// See [`Fragment::id`].
    pub id: u32,
}

const BLOCK: usize = 8;
const BLOCK_WORDS: usize = FRAME_MAX.div_ceil(BLOCK).div_ceil(64);

struct Slot {
    /// None: free; the memory waits for the next frame.
    key: Option<Key>,
    born: Instant,
    total: Option<usize>,
    missing: Missing,
    bytes: Vec<u8>,
}

/// Which blocks of a frame are here.
struct Missing {
    here: Box<[u64; BLOCK_WORDS]>,
    count: usize,
}

/// How many blocks of a range were here already.
#[derive(PartialEq)]
enum Overlap {
    None,
    Whole,
    Part,
}

impl Missing {
    fn new() -> Missing {
        Missing { here: Box::new([0; BLOCK_WORDS]), count: 0 }
    }

    fn clear(&mut self) {
        self.here.fill(0);
        self.count = 0;
    }

    fn overlap(&self, range: &Range<usize>) -> Overlap {
        let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        let count = blocks.len();
        let here =
            blocks.filter(|block| self.here.get(block / 64).is_some_and(|word| word >> (block % 64) & 1 == 1)).count();
        match here {
            0 => Overlap::None,
            here if here == count => Overlap::Whole,
            _ => Overlap::Part,
        }
    }

    fn mark(&mut self, range: &Range<usize>) {
        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            if let Some(word) = self.here.get_mut(block / 64) {
                *word |= 1 << (block % 64);
                self.count += 1;
            }
        }
    }
}

impl Slot {
    fn new() -> Slot {
        Slot { key: None, born: Instant::ZERO, total: None, missing: Missing::new(), bytes: Vec::new() }
    }

    fn begin(&mut self, key: Key, now: Instant) {
        self.key = Some(key);
        self.born = now;
        self.total = None;
        self.missing.clear();
        self.bytes.clear();
    }

    fn is_stale(&self, now: Instant) -> bool {
        self.key.is_some() && now.since(self.born) > PARTIAL_AGE
    }

    /// Puts a piece in. Returns whether the frame is whole now.
    fn put(&mut self, range: Range<usize>, more: bool, piece: &[u8]) -> Result<bool, Drop> {
        let ends_elsewhere = match self.total {
            Some(total) => range.end > total || (!more && range.end != total),
            None => !more && range.end < self.bytes.len(),
        };
        if ends_elsewhere {
            return Err(Drop::BadFragment);
        }
        match self.missing.overlap(&range) {
            Overlap::Part => return Err(Drop::BadFragment),
            Overlap::Whole if self.bytes.get(range.clone()) == Some(piece) => return Ok(false),
            Overlap::Whole => return Err(Drop::BadFragment),
            Overlap::None => {}
        }
        if self.bytes.len() < range.end {
            self.bytes.resize(range.end, 0);
        }
        if let Some(place) = self.bytes.get_mut(range.clone()) {
            place.copy_from_slice(piece);
        }
        self.missing.mark(&range);
        if !more {
            self.total = Some(range.end);
        }
        Ok(self.total.is_some_and(|total| self.missing.count == total.div_ceil(BLOCK)))
    }
}

/// The frames of one path of which some pieces are here.
#[derive(Default)]
pub struct Reassembly {
    slots: Vec<Slot>,
    lost: u64,
}

impl Reassembly {
    /// Takes a piece. Returns the frame when this was the last that lacked; it stays valid until the next call.
    pub fn accept(&mut self, key: Key, at: Fragment, piece: &[u8], now: Instant) -> Result<Option<&[u8]>, Drop> {
        let start = usize::from(at.offset);
        let range = start..start + piece.len();
        if piece.is_empty() || range.end > FRAME_MAX || (at.more && piece.len() % BLOCK != 0) || start % BLOCK != 0 {
            return Err(Drop::BadFragment);
        }
        let index = self.slot(key, now);
        self.make_room(index, range.end);
        let Some(slot) = self.slots.get_mut(index) else {
            return Err(Drop::FragmentLost);
        };
        match slot.put(range, at.more, piece) {
            Ok(false) => Ok(None),
            Ok(true) => {
                slot.key = None;
                Ok(Some(&slot.bytes))
            }
            Err(reason) => {
                slot.key = None;
                Err(reason)
            }
        }
    }

    /// Gives up what waits for too long, and the memory if nothing waits.
    pub fn expire(&mut self, now: Instant) {
        for slot in self.slots.iter_mut().filter(|slot| slot.is_stale(now)) {
            slot.key = None;
            self.lost += 1;
        }
        if self.slots.iter().all(|slot| slot.key.is_none()) {
            self.slots = Vec::new();
        }
    }

    /// Partial frames given up since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// The slot of `key`, begun if it is new: a free one, one more, or the oldest one's.
    fn slot(&mut self, key: Key, now: Instant) -> usize {
        if let Some(index) = self.slots.iter().position(|slot| slot.key == Some(key) && !slot.is_stale(now)) {
            return index;
        }
        let free = self.slots.iter().position(|slot| slot.key.is_none());
        let index = free.unwrap_or_else(|| {
            let oldest = (0..)
                .zip(&self.slots)
                .min_by_key(|(_, slot)| slot.born)
                .map(|(index, slot)| (index, slot.is_stale(now)));
            match oldest {
                Some((index, stale)) if stale || self.slots.len() >= PARTIALS_MAX => {
                    self.lost += 1;
                    index
                }
                _ => {
                    self.slots.push(Slot::new());
                    self.slots.len() - 1
                }
            }
        });
        if let Some(slot) = self.slots.get_mut(index) {
            slot.begin(key, now);
        }
        index
    }

    /// Makes the slot able to hold `need` bytes, at the cost of the oldest others if all together would hold too many.
    fn make_room(&mut self, index: usize, need: usize) {
        let mine = self.slots.get(index).map_or(0, |slot| slot.bytes.capacity());
        if mine >= need {
            return;
        }
        while self.held() - mine + need > PARTIAL_BYTES_MAX {
            let others = (0..).zip(&mut self.slots).filter(|(at, slot)| *at != index && slot.bytes.capacity() > 0);
            // Free ones first, then by age.
            let Some((_, slot)) = others.min_by_key(|(_, slot)| (slot.key.is_some(), slot.born)) else {
                break;
            };
            slot.bytes = Vec::new();
            self.lost += u64::from(slot.key.take().is_some());
        }
        if let Some(slot) = self.slots.get_mut(index) {
            slot.bytes.reserve_exact(need - slot.bytes.len());
        }
    }

    fn held(&self) -> usize {
        self.slots.iter().map(|slot| slot.bytes.capacity()).sum()
    }
}
