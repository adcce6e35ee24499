//! Frames too big for a path: told to the sender, or sent in pieces.
//!
//! Owns the three ways: the ICMP answer for a sender that wants to know ([`too_big`]), the cut ([`pieces`]) and the
//! putting together ([`Reassembly`], one per path). Which way is taken is `Plane`'s; layout of the pieces is `wire::datagram`'s.
//!
//! A frame is cut where it does not fit, and put together where it is delivered. A relay passes pieces on as they are, or cuts
//! them further: offsets count from the start of the frame, so pieces of pieces are pieces. Floods alone are put together at every
//! relay too: two trees may cut one differently, and which copy is taken is a question of whole frames.
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
    pub fn accept(&mut self, key: Key, at: Fragment, piece: &[u8], now: Instant) -> Result<Option<&mut [u8]>, Drop> {
        let start = usize::from(at.offset);
        let range = start..start + piece.len();
        if piece.is_empty()
            || range.end > FRAME_MAX
            || (at.more && !piece.len().is_multiple_of(BLOCK))
            || !start.is_multiple_of(BLOCK)
        {
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
                Ok(Some(&mut slot.bytes))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::testing::{mac, net, short};
    use etherparse::{PacketHeaders, TransportHeader};
    use proptest::prelude::*;

    fn key(id: u32) -> Key {
        Key { origin: short(1), network: net(7), id }
    }

    fn piece(id: u32, offset: u16, more: bool) -> Fragment {
        Fragment { id, offset, more }
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn bytes(len: usize, salt: u32) -> Vec<u8> {
        (0..len).map(|i| (i as u32).wrapping_mul(31).wrapping_add(salt * 7 + i as u32 / 251) as u8).collect()
    }

    fn cut(frame: &[u8], id: u32, room: usize) -> Vec<(Fragment, Vec<u8>)> {
        let pieces = pieces(piece(id, 0, false), frame.len(), room).unwrap();
        pieces.map(|(at, range)| (at, frame[range].to_vec())).collect()
    }

    proptest! {
        #[test]
        fn frames_survive_cutting_twice_in_any_order_with_duplicates(
            len in 1usize..9000, room in 8usize..2000, second in 8usize..500, seed in any::<u64>()
        ) {
            let frames = [bytes(len, 1), bytes(len / 2 + 1, 2)];
            let mut sent: Vec<(u32, Fragment, Vec<u8>)> = Vec::new();
            for (id, frame) in (0..).zip(&frames) {
                for (at, part) in cut(frame, id, room) {
                    // A relay with a smaller MTU cuts the pieces again.
                    for (at, range) in pieces(at, part.len(), second).unwrap() {
                        sent.push((id, at, part[range].to_vec()));
                    }
                }
            }
            // Duplicates arrive while their frame is still incomplete: each frame's last piece is held back.
            let mut order: Vec<usize> = (0..sent.len()).collect();
            order.sort_by_key(|i| (*i as u64 + 1).wrapping_mul(seed | 1).rotate_left(17));
            let last = [0, 1].map(|id| *order.iter().rev().find(|i| sent[**i].0 == id).unwrap());
            let first: Vec<usize> = order.iter().copied().filter(|i| !last.contains(i)).collect();
            let mut table = Reassembly::default();
            for i in first.iter().chain(first.iter().step_by(3)) {
                let (id, at, part) = &sent[*i];
                prop_assert_eq!(table.accept(key(*id), *at, part, Instant::ZERO), Ok(None));
            }
            for i in last {
                let (id, at, part) = &sent[i];
                let whole = table.accept(key(*id), *at, part, Instant::ZERO).unwrap();
                prop_assert_eq!(whole.as_deref(), Some(&frames[*id as usize][..]));
            }
        }

        #[test]
        fn hostile_pieces_stay_within_bounds_and_never_fake_a_frame(
            parts in prop::collection::vec((0u32..100, 0u16..=8191, 0usize..1400, any::<bool>(), 0u64..4000), 1..300)
        ) {
            let mut table = Reassembly::default();
            for (id, offset, len, more, millis) in parts {
                let part = vec![id as u8; len];
                if let Ok(Some(frame)) = table.accept(key(id), piece(id, offset * 8, more), &part, at(millis)) {
                    prop_assert!(frame.len() <= FRAME_MAX && frame.iter().all(|b| *b == id as u8));
                }
                prop_assert!(table.slots.len() <= PARTIALS_MAX && table.held() <= PARTIAL_BYTES_MAX);
            }
        }
    }

    #[test]
    fn pieces_fit_and_their_offsets_are_multiples_of_8() {
        for (at, part) in cut(&bytes(1000, 1), 5, 99) {
            assert!(part.len() <= 99 && at.offset % 8 == 0 && at.id == 5);
            assert_eq!(at.more, usize::from(at.offset) + part.len() < 1000);
        }
        assert_eq!(pieces(piece(1, 0, false), 100, 7).err(), Some(Drop::NoRoom));
        assert_eq!(pieces(piece(1, 65_528, true), 8, 100).err(), Some(Drop::BadFragment));
    }

    #[test]
    fn refuses_pieces_that_make_no_sense() {
        let mut table = Reassembly::default();
        let facts = [
            ("empty", piece(1, 0, true), 0),
            ("not a multiple of 8, with more to come", piece(1, 0, true), 9),
            ("beyond the largest frame", piece(1, 65_528, false), 8),
            ("offset not a multiple of 8", piece(1, 4, true), 8),
        ];
        for (fact, at, len) in facts {
            assert_eq!(table.accept(key(1), at, &vec![0; len], Instant::ZERO), Err(Drop::BadFragment), "{fact}");
        }
        assert!(table.slots.is_empty());
    }

    #[test]
    fn a_contradiction_discards_the_frame() {
        let facts = [
            ("other bytes in the same place", piece(1, 0, true), vec![9; 16]),
            ("overlap", piece(1, 8, true), vec![1; 16]),
            ("an end before what is here", piece(1, 8, false), vec![1; 4]),
        ];
        for (fact, at, part) in facts {
            let mut table = Reassembly::default();
            assert_eq!(table.accept(key(1), piece(1, 0, true), &[1; 16], Instant::ZERO), Ok(None));
            assert_eq!(table.accept(key(1), at, &part, Instant::ZERO), Err(Drop::BadFragment), "{fact}");
            assert_eq!(
                table.accept(key(1), piece(1, 16, false), &[1], Instant::ZERO),
                Ok(None),
                "{fact}: it does not complete"
            );
        }
        let mut table = Reassembly::default();
        assert_eq!(table.accept(key(1), piece(1, 16, false), &[1; 8], Instant::ZERO), Ok(None));
        assert_eq!(
            table.accept(key(1), piece(1, 24, true), &[1; 8], Instant::ZERO),
            Err(Drop::BadFragment),
            "after the end"
        );
    }

    #[test]
    fn frames_of_other_origins_and_networks_do_not_mix() {
        let mut table = Reassembly::default();
        let keys = [key(1), Key { origin: short(2), ..key(1) }, Key { network: net(8), ..key(1) }];
        for (salt, key) in (1..).zip(keys) {
            assert_eq!(table.accept(key, piece(1, 0, true), &[salt; 8], Instant::ZERO), Ok(None));
        }
        for (salt, key) in (1..).zip(keys) {
            let whole = table.accept(key, piece(1, 8, false), &[salt; 3], Instant::ZERO).unwrap();
            assert_eq!(whole.as_deref(), Some(&[salt; 11][..]));
        }
    }

    #[test]
    fn old_pieces_do_not_meet_new_ones() {
        let mut table = Reassembly::default();
        assert_eq!(table.accept(key(1), piece(1, 0, true), &[1; 8], at(0)), Ok(None));
        assert_eq!(table.accept(key(1), piece(1, 8, false), &[1; 8], at(2001)), Ok(None));
        assert_eq!(table.take_lost(), 1);
        table.expire(at(4000));
        assert_eq!(table.take_lost(), 0);
        table.expire(at(4002));
        assert_eq!((table.take_lost(), table.slots.capacity()), (1, 0), "and the memory is given back");
    }

    #[test]
    fn the_oldest_partial_frame_makes_room() {
        let mut table = Reassembly::default();
        for id in 0..=64 {
            assert_eq!(table.accept(key(id), piece(id, 0, true), &[1; 8], at(id.into())), Ok(None));
        }
        assert_eq!((table.slots.len(), table.take_lost()), (PARTIALS_MAX, 1));
        assert_eq!(table.accept(key(1), piece(1, 8, false), &[1], at(65)).unwrap().map(|frame| frame.len()), Some(9));
        assert_eq!(table.accept(key(0), piece(0, 8, false), &[1], at(65)), Ok(None), "0 was the oldest");
    }

    #[test]
    fn many_large_partial_frames_are_not_all_held() {
        let mut table = Reassembly::default();
        for id in 0..40 {
            assert_eq!(table.accept(key(id), piece(id, 64_000, false), &[1; 8], at(id.into())), Ok(None));
            assert!(table.held() <= PARTIAL_BYTES_MAX);
        }
        assert_eq!(table.take_lost(), 40 - (PARTIAL_BYTES_MAX / 64_008) as u64);
    }

    fn udp4(dont_fragment: bool, len: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        let packet = PacketBuilder::ethernet2(mac(1).0, mac(2).0).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(7, 9);
        packet.write(&mut frame, &vec![0; len]).unwrap();
        frame[20] = if dont_fragment { 0x40 } else { 0 };
        frame
    }

    fn answer(frame: &[u8], mtu: usize) -> Option<Vec<u8>> {
        let mut reply = [0; REPLY_MAX];
        too_big(&Frame::parse(frame).unwrap(), mtu, &mut reply).map(|length| reply[..length].to_vec())
    }

    #[test]
    fn tells_ipv4_senders_in_the_name_of_the_destination() {
        let frame = udp4(true, 1480);
        let reply = answer(&frame, 1400).unwrap();
        let headers = PacketHeaders::from_ethernet_slice(&reply).unwrap();
        assert_eq!((&reply[..6], &reply[6..12]), (&mac(1).0[..], &mac(2).0[..]));
        assert_eq!((&reply[26..30], &reply[30..34]), (&[10, 0, 0, 2][..], &[10, 0, 0, 1][..]));
        let Some(TransportHeader::Icmpv4(icmp)) = headers.transport else { panic!() };
        let expected = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
        assert_eq!(icmp.icmp_type, Icmpv4Type::DestinationUnreachable(expected));
        let quoted = &reply[14 + 20 + 8..];
        assert!(frame[14..].starts_with(quoted) && quoted.len() >= 28 && reply.len() - 14 <= 576);
        assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(quoted));
    }

    #[test]
    fn tells_ipv6_senders() {
        let mut frame = Vec::new();
        let (src, dst) = ([0xfd; 16], [0xfc; 16]);
        let packet = PacketBuilder::ethernet2(mac(1).0, mac(2).0).ipv6(src, dst, 64).udp(7, 9);
        packet.write(&mut frame, &[0; 1480]).unwrap();
        let reply = answer(&frame, 1400).unwrap();
        let headers = PacketHeaders::from_ethernet_slice(&reply).unwrap();
        let Some(TransportHeader::Icmpv6(icmp)) = headers.transport else { panic!() };
        assert_eq!(icmp.icmp_type, Icmpv6Type::PacketTooBig { mtu: 1400 });
        assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(dst, src, &reply[62..]).unwrap());
        assert_eq!(reply.len(), REPLY_MAX);
        assert_eq!(answer(&frame, 1279), None, "no IPv6 sender goes below 1280");
    }

    #[test]
    fn does_not_tell_who_may_not_or_need_not_be_told() {
        let change = |at: usize, value: u8| {
            let mut frame = udp4(true, 1480);
            frame[at] = value;
            frame
        };
        let icmp_error = {
            let mut frame = change(23, 1);
            frame[34] = 3;
            frame
        };
        let facts = [
            ("no DF", udp4(false, 1480), 1400),
            ("it fits", udp4(true, 1372), 1400),
            ("nobody believes less than 576", udp4(true, 1480), 575),
            ("a later fragment", change(21, 9), 1400),
            ("an ICMP error", icmp_error, 1400),
            ("from nobody", change(26, 224), 1400),
            ("to a group", change(30, 224), 1400),
            ("not IP", change(12, 0x88), 1400),
        ];
        for (fact, frame, mtu) in facts {
            assert_eq!(answer(&frame, mtu), None, "{fact}");
        }
        assert!(answer(&udp4(true, 1480), 576).is_some());
    }
}
