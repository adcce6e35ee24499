//! The largest segment that a TCP connection agrees on, lowered to what a path takes whole.
//!
//! Owns the option in SYN and SYN-ACK (RFC 9293 section 3.7.1) and the checksum over it. Does not own when it is to be lowered:
//! the frame's way does, with the room of the paths that it passes. Never raises it, and adds none where there is none.
//!
//! ```text
//! Ethernet | IPv4 (20 to 60) or IPv6 (40), not a fragment | TCP: 12 offset, 13 flags, 16 checksum, 20.. options: 2, 4, MSS
//! ```
//!
//! The option says what its sender wants to receive, so it bounds segments that come the other way; what is lowered at both
//! ends of a path fits in both directions. The checksum is adjusted by the difference (RFC 1624): a wrong one stays wrong. One that
//! is partial holds the sum of the pseudo-header only, which knows no options.

use super::offload::checksum::fold;
use crate::wire::frame::HEADER_LEN;

const FLAGS: usize = 13;
const CHECKSUM: usize = 16;
const OPTIONS: usize = 20;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;

const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;

/// No sender goes lower (Linux: TCP_MIN_MSS): a path with less room is not told of.
const LEAST: usize = 88;

/// Whether `frame` begins or answers the begin of a TCP connection.
#[inline]
pub fn is_syn(frame: &[u8]) -> bool {
    transport(frame).is_some_and(|at| frame.get(at + FLAGS).is_some_and(|flags| flags & (SYN | RST) == SYN))
}

/// Where the TCP header begins; nothing if there is none.
#[inline]
fn transport(frame: &[u8]) -> Option<usize> {
    let start: &[u8; HEADER_LEN + 10] = frame.first_chunk()?;
    let [.., e0, e1, first, _, _, _, _, _, b6, b7, _, b9] = *start;
    match (u16::from_be_bytes([e0, e1]), first >> 4) {
        // Its length counts words; a fragment may lack what follows, so only DF may be set.
        (0x0800, 4) if b9 == 6 && u16::from_be_bytes([b6, b7]) & 0xbfff == 0 => {
            Some(HEADER_LEN + usize::from(first & 0x0f) * 4)
        }
        (0x86dd, 6) if b6 == 6 => Some(HEADER_LEN + 40),
        _ => None,
    }
}

/// Lowers the MSS that the SYN `frame` offers so that no segment of that size makes a frame of more than `room` bytes.
/// `partial`: its checksum is. Returns whether it changed anything.
pub fn lower(frame: &mut [u8], room: usize, partial: bool) -> bool {
    // Options of IP are rare, and none on a SYN says nothing of other packets: senders subtract what they add (RFC 6691).
    let network = if frame.get(12) == Some(&0x08) { 20 } else { 40 };
    let most = room.saturating_sub(HEADER_LEN + network + 20).max(LEAST);
    let header = transport(frame).and_then(|at| frame.get_mut(at..));
    header.is_some_and(|header| lower_option(header, most, partial).is_some())
}

fn lower_option(header: &mut [u8], most: usize, partial: bool) -> Option<()> {
    let at = find(header)?;
    let place: &mut [u8; 2] = header.get_mut(at..)?.first_chunk_mut()?;
    let old = u16::from_be_bytes(*place);
    let new = u16::try_from(most).ok().filter(|new| *new < old)?;
    *place = new.to_be_bytes();
    if !partial {
        // In the sum a number at an odd place counts with its bytes swapped.
        let [old, new] = if at % 2 == 0 { [old, new] } else { [old.swap_bytes(), new.swap_bytes()] };
        let checksum: &mut [u8; 2] = header.get_mut(CHECKSUM..)?.first_chunk_mut()?;
        *checksum = adjusted(u16::from_be_bytes(*checksum), old, new).to_be_bytes();
    }
    Some(())
}

/// Where the number of the MSS option is in a TCP header.
fn find(header: &[u8]) -> Option<usize> {
    let end = usize::from(header.get(FLAGS - 1)? >> 4) * 4;
    let options = header.get(..end)?;
    let mut at = OPTIONS;
    loop {
        match (*options.get(at)?, options.get(at + 1)) {
            (END, _) => return None,
            (NOTHING, _) => at += 1,
            (MSS, Some(4)) => return (at + 4 <= end).then_some(at + 2),
            (_, Some(length @ 2..)) => at += usize::from(*length),
            _ => return None,
        }
    }
}

/// A checksum after one word of what it covers changed (RFC 1624, equation 3).
fn adjusted(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u32::from(!checksum) + u32::from(!old) + u32::from(new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::offload::Layout;
    use crate::plane::offload::checksum::{complete, is_right, pseudo};
    use crate::plane::testing::mac;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    /// A SYN with these bytes of options (padded with NOP), its checksum complete or partial.
    fn syn(v6: bool, options: &[u8], payload: &[u8], partial: bool) -> Vec<u8> {
        let mut options = options.to_vec();
        while !options.len().is_multiple_of(4) {
            options.push(NOTHING);
        }
        let ethernet = PacketBuilder::ethernet2(mac(1).0, mac(2).0);
        let ip = if v6 {
            ethernet.ipv6([0xfd; 16], [0xfc; 16], 64)
        } else {
            ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        };
        let mut frame = Vec::new();
        ip.tcp(1234, 80, 77, 5000).syn().options_raw(&options).unwrap().write(&mut frame, payload).unwrap();
        if partial {
            let layout = Layout::of(&frame).unwrap();
            let bytes = u32::try_from(layout.end - layout.transport).unwrap();
            let sum = fold(pseudo(&frame, &layout) + bytes);
            frame[layout.transport + CHECKSUM..][..2].copy_from_slice(&sum.to_be_bytes());
        }
        frame
    }

    fn mss_of(frame: &[u8]) -> Option<u16> {
        let header = &frame[transport(frame)?..];
        let at = find(header)?;
        Some(u16::from_be_bytes([header[at], header[at + 1]]))
    }

    fn with_mss(mss: u16) -> Vec<u8> {
        let [high, low] = mss.to_be_bytes();
        vec![MSS, 4, high, low]
    }

    #[test]
    fn room_of_a_path_becomes_the_segment_that_fills_it() {
        for (v6, most) in [(false, 632 - 54), (true, 632 - 74)] {
            let mut frame = syn(v6, &with_mss(1460), &[], false);
            assert!(is_syn(&frame) && lower(&mut frame, 632, false));
            assert_eq!(mss_of(&frame), Some(most));
            assert!(is_right(&frame, &Layout::of(&frame).unwrap()));
            assert!(!lower(&mut frame, 632, false) && !lower(&mut frame, 9000, false), "never raised");
        }
        let mut frame = syn(false, &with_mss(1460), &[], false);
        assert!(lower(&mut frame, 10, false));
        assert_eq!(mss_of(&frame), Some(88), "no sender believes less");
    }

    #[test]
    fn only_syn_of_tcp_that_is_no_fragment() {
        let good = syn(false, &with_mss(1460), &[], false);
        let change = |at: usize, value: u8| {
            let mut frame = good.clone();
            frame[at] = value;
            frame
        };
        let facts = [
            ("ack", change(47, 0x10)),
            ("rst", change(47, 0x06)),
            ("udp", change(23, 17)),
            ("more fragments", change(20, 0x20)),
            ("a later fragment", change(21, 9)),
            ("another version", change(14, 0x65)),
            ("arp", change(13, 0x06)),
            ("short", good[..40].to_vec()),
        ];
        for (fact, frame) in facts {
            assert!(!is_syn(&frame), "{fact}");
        }
        assert!(is_syn(&good) && is_syn(&change(47, 0x12)) && is_syn(&change(20, 0x40)));
    }

    #[test]
    fn odd_options_are_left_alone() {
        let facts: [(&str, &[u8]); 5] = [
            ("none", &[]),
            ("behind the end", &[END, 0, 0, 0, MSS, 4, 5, 180]),
            ("of another length", &[MSS, 3, 5, NOTHING]),
            ("after an option without a length", &[8, 0, MSS, 4, 5, 180]),
            ("cut off", &[NOTHING, NOTHING, MSS, 4]),
        ];
        for (fact, options) in facts {
            let frame = syn(false, options, &[], false);
            let mut lowered = frame.clone();
            assert!(!lower(&mut lowered, 700, false) && lowered == frame, "{fact}");
        }
    }

    proptest! {
        #[test]
        fn checksum_stays_right_wherever_the_option_is(
            v6: bool, mss: u16, room in 0usize..10_000, before in 0usize..8, partial: bool, payload in prop::collection::vec(any::<u8>(), 0..40)
        ) {
            let options = [vec![NOTHING; before], with_mss(mss), vec![4, 2]].concat();
            let mut frame = syn(v6, &options, &payload, partial);
            let changed = lower(&mut frame, room, partial);
            let most = room.saturating_sub(if v6 { 74 } else { 54 }).max(LEAST);
            prop_assert_eq!(mss_of(&frame).map(usize::from), Some(usize::from(mss).min(most)));
            prop_assert_eq!(changed, usize::from(mss) > most);
            let layout = Layout::of(&frame).unwrap();
            if partial {
                complete(&mut frame, layout.partial()).unwrap();
            }
            prop_assert!(is_right(&frame, &layout));
        }

        #[test]
        fn any_bytes_pass(mut bytes in prop::collection::vec(any::<u8>(), 0..120), room in 0usize..2000, v6: bool, partial: bool) {
            for (at, byte) in (12..).zip(if v6 { [0x86, 0xdd, 0x60] } else { [8, 0, 0x45] }) {
                if let Some(place) = bytes.get_mut(at) { *place = byte; }
            }
            let before = bytes.clone();
            let changed = lower(&mut bytes, room, partial);
            prop_assert_eq!(changed, before != bytes);
            let differ = before.iter().zip(&bytes).filter(|(a, b)| a != b).count();
            prop_assert!(differ <= 4);
        }
    }
}
