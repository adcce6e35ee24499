use super::naive::{Packet, ipv4, ipv6, payload, tcp, udp};
use crate::plane::offload::Layout;
use crate::plane::offload::checksum::{complete, fold, is_right, sum};
use crate::wire::Malformed;
use crate::wire::virtio::Partial;
use proptest::prelude::*;

/// RFC 1071, section 1, word by word.
fn plain(bytes: &[u8]) -> u16 {
    let mut sum = 0u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) * 256 + u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = sum % 0x1_0000 + sum / 0x1_0000;
    }
    sum as u16
}

fn packets() -> [Packet; 4] {
    [(ipv4(1), tcp()), (ipv4(1), udp()), (ipv6(1), tcp()), (ipv6(1), udp())]
        .map(|(ip, transport)| Packet::new(ip, transport, payload(77)))
}

#[test]
fn the_example_of_the_rfc_has_this_sum() {
    assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
}

#[test]
fn carries_of_the_largest_packet_are_kept() {
    assert_eq!(sum(&[0xff; 65_535]), plain(&[0xff; 65_535]));
    assert_eq!(sum(&[0xff; 65_534]), 0xffff);
    assert_eq!((fold(u32::MAX), fold(0x1_fffe), fold(0xffff), fold(0)), (0xffff, 0xffff, 0xffff, 0));
}

#[test]
fn what_is_completed_is_what_etherparse_computes() {
    for packet in packets() {
        let mut frame = packet.partial();
        let layout = Layout::of(&frame).unwrap();
        assert!(!is_right(&frame, &layout));
        complete(&mut frame, layout.partial()).unwrap();
        assert_eq!(frame, packet.bytes());
        assert!(is_right(&frame, &layout));
    }
}

#[test]
fn padding_is_not_summed() {
    for packet in packets() {
        let mut frame = packet.partial();
        let layout = Layout::of(&frame).unwrap();
        frame.extend([0xee; 7]);
        complete(&mut frame, layout.partial()).unwrap();
        assert_eq!(frame, [&packet.bytes()[..], &[0xee; 7]].concat());
        assert!(is_right(&frame, &layout));
    }
}

#[test]
fn a_checksum_of_zero_is_written_as_ones_in_udp_only() {
    // The payload's last word is what makes the sum 0xffff.
    for (transport, expected) in [(udp(), 0xffff), (tcp(), 0)] {
        let mut packet = Packet::new(ipv4(1), transport, vec![0; 2]);
        let field = if matches!(packet.transport, super::naive::Transport::Udp(_)) { 6 } else { 16 };
        let checksum = |frame: &[u8]| u16::from_be_bytes([frame[34 + field], frame[35 + field]]);
        packet.payload = checksum(&packet.bytes()).to_be_bytes().to_vec();
        let mut frame = packet.partial();
        let layout = Layout::of(&frame).unwrap();
        complete(&mut frame, layout.partial()).unwrap();
        assert_eq!((checksum(&frame), &frame), (expected, &packet.bytes()));
        assert!(is_right(&frame, &layout));
        frame[34 + field..36 + field].fill(0);
        assert_eq!(is_right(&frame, &layout), expected == 0, "in UDP 0 is none");
    }
}

#[test]
fn a_checksum_outside_of_the_packet_is_refused_and_nothing_written() {
    let frame = packets()[0].partial();
    let last = u16::try_from(frame.len()).unwrap();
    let outside =
        [(last + 1, 0), (last - 1, 0), (last, 0), (0, last - 1), (34, last - 35), (u16::MAX, u16::MAX), (0, u16::MAX)];
    for (start, offset) in outside {
        let mut copy = frame.clone();
        copy.extend([0; 9]);
        assert_eq!(complete(&mut copy, Partial { start, offset }), Err(Malformed::Length), "{start} {offset}");
        assert_eq!(copy[..frame.len()], frame[..]);
    }
    assert_eq!(complete(&mut frame.clone(), Partial { start: 34, offset: last - 36 }), Ok(()));
    assert_eq!(complete(&mut [], Partial { start: 0, offset: 0 }), Err(Malformed::Length));
}

#[test]
fn a_lying_length_sums_to_the_end_of_the_frame() {
    let mut frame = packets()[0].bytes();
    frame[16..18].copy_from_slice(&[0xff, 0xff]);
    let end = frame.len();
    complete(&mut frame, Partial { start: 34, offset: 16 }).unwrap();
    assert_eq!(plain(&frame[34..end]), 0xffff - plain(&packets()[0].bytes()[50..52]) % 0xffff);
}

#[test]
fn any_flipped_bit_is_found_and_a_missing_checksum_is_not_right() {
    for packet in packets() {
        let frame = packet.bytes();
        let layout = Layout::of(&frame).unwrap();
        for at in layout.transport..frame.len() {
            let mut wrong = frame.clone();
            wrong[at] ^= 0x10;
            assert!(!is_right(&wrong, &layout), "{at}");
        }
    }
    let mut none = packets()[1].bytes();
    let layout = Layout::of(&none).unwrap();
    none[40..42].fill(0);
    assert!(!is_right(&none, &layout));
}

proptest! {
    #[test]
    fn sums_as_the_rfc_says(bytes in prop::collection::vec(any::<u8>(), 0..300), skip in 0usize..9) {
        let bytes = bytes.get(skip..).unwrap_or_default();
        prop_assert_eq!(sum(bytes), plain(bytes));
    }

    #[test]
    fn sums_of_ones_as_the_rfc_says(len in 0usize..3000, byte in prop::sample::select(vec![0u8, 1, 0x7f, 0x80, 0xff])) {
        let bytes = vec![byte; len];
        prop_assert_eq!(sum(&bytes), plain(&bytes));
    }

    #[test]
    fn completes_anything_or_refuses(
        mut frame in prop::collection::vec(any::<u8>(), 0..100),
        (kind, start, offset) in (0usize..3, 0u16..110, 0u16..110),
    ) {
        if frame.len() >= 14 {
            frame[12..14].copy_from_slice(&[[8u8, 0], [0x86, 0xdd], [8, 6]][kind]);
        }
        let before = frame.clone();
        let at = usize::from(start + offset);
        match complete(&mut frame, Partial { start, offset }) {
            Ok(()) => {
                prop_assert_eq!(&frame[..at], &before[..at]);
                prop_assert_eq!(&frame[at + 2..], &before[at + 2..]);
            }
            Err(_) => prop_assert_eq!(frame, before),
        }
    }
}
