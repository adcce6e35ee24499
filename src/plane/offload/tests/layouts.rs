use super::naive::{Packet, Transport, ipv4, ipv6, payload, tcp, udp};
use crate::plane::offload::layout::{Layout, Protocol, Version, may_stay_partial};
use crate::wire::virtio::{GsoKind, Partial};
use proptest::prelude::*;

fn frames() -> [Vec<u8>; 4] {
    [(ipv4(1), tcp()), (ipv6(1), tcp()), (ipv4(1), udp()), (ipv6(1), udp())]
        .map(|(ip, transport)| Packet::new(ip, transport, payload(100)).bytes())
}

#[test]
fn says_where_the_headers_are() {
    let expected = [
        (Version::V4, Protocol::Tcp, 34, 66, GsoKind::Tcp4, 16),
        (Version::V6, Protocol::Tcp, 54, 86, GsoKind::Tcp6, 16),
        (Version::V4, Protocol::Udp, 34, 42, GsoKind::Udp, 6),
        (Version::V6, Protocol::Udp, 54, 62, GsoKind::Udp, 6),
    ];
    for (frame, (version, protocol, transport, payload, kind, offset)) in frames().iter().zip(expected) {
        let layout = Layout::of(frame).unwrap();
        assert_eq!(layout, Layout { version, protocol, transport, payload, end: frame.len() });
        assert_eq!(layout.gso_kind(), kind);
        let partial = Partial { start: u16::try_from(transport).unwrap(), offset };
        assert_eq!(layout.partial(), partial);
        assert!(may_stay_partial(frame, partial));
        for (start, offset) in [(partial.start + 1, offset), (partial.start, 22 - offset), (0, 0)] {
            assert!(!may_stay_partial(frame, Partial { start, offset }));
        }
    }
}

#[test]
fn padding_is_behind_the_end() {
    for frame in frames() {
        let padded = [&frame[..], &[0; 9]].concat();
        assert_eq!(Layout::of(&padded), Layout::of(&frame));
    }
}

#[test]
fn a_frame_cut_anywhere_has_none() {
    for frame in frames() {
        for length in 0..frame.len() {
            assert_eq!(Layout::of(&frame[..length]), None, "{length}");
        }
    }
}

#[test]
fn what_is_odd_has_none() {
    let [tcp4, tcp6, udp4, udp6] = frames();
    type Changes<'a> = &'a [(usize, u8)];
    let facts: [(&str, &[u8], Changes<'_>); 21] = [
        ("another ether type", &tcp4, &[(13, 6)]),
        ("a tag", &tcp4, &[(12, 0x81)]),
        ("IPv6 in IPv4's type", &tcp4, &[(14, 0x65)]),
        ("IPv4 in IPv6's type", &tcp6, &[(14, 0x45)]),
        ("IPv4 options", &tcp4, &[(14, 0x46)]),
        ("an IPv4 header too short", &tcp4, &[(14, 0x44)]),
        ("more fragments", &tcp4, &[(20, 0x20)]),
        ("a later fragment", &tcp4, &[(21, 1)]),
        ("a far fragment", &tcp4, &[(20, 0x10)]),
        ("the reserved flag", &tcp4, &[(20, 0x80)]),
        ("ICMP", &tcp4, &[(23, 1)]),
        ("IPv6 hop-by-hop options", &tcp6, &[(20, 0)]),
        ("an IPv6 fragment", &udp6, &[(20, 44)]),
        ("a TCP header too short", &tcp4, &[(46, 0x40)]),
        ("a TCP header of no bytes", &tcp6, &[(66, 0)]),
        ("an IPv4 packet too long for the frame", &udp4, &[(17, 129), (39, 109)]),
        ("an IPv6 packet too long for the frame", &udp6, &[(19, 109), (59, 109)]),
        ("a UDP length too long for the packet", &udp4, &[(39, 109)]),
        ("a UDP length too short for the packet", &udp6, &[(59, 107)]),
        ("a UDP length of nothing", &udp4, &[(39, 0)]),
        ("no length", &tcp4, &[(16, 0), (17, 0)]),
    ];
    assert_eq!((udp4[17], udp6[19], udp4[39]), (128, 108, 108));
    for (fact, frame, changes) in facts {
        assert!(Layout::of(frame).is_some());
        let mut odd = frame.to_vec();
        changes.iter().for_each(|(at, value)| odd[*at] = *value);
        assert_eq!(Layout::of(&odd), None, "{fact}");
    }
}

#[test]
fn a_tcp_header_may_fill_the_packet_but_not_more() {
    let mut packet = Packet::new(ipv4(1), tcp(), vec![]);
    packet.tcp().set_options_raw(&[1; 40]).unwrap();
    let mut frame = packet.bytes();
    assert_eq!(Layout::of(&frame).map(|layout| (layout.payload, layout.end)), Some((94, 94)));
    frame.truncate(90);
    frame[17] -= 4;
    assert_eq!(Layout::of(&frame), None);
}

proptest! {
    #[test]
    fn any_bytes_have_none_or_one_that_lies_inside(
        which in 0usize..4,
        changes in prop::collection::vec((0usize..90, any::<u8>()), 0..4),
        cut in 0usize..300,
    ) {
        let mut frame = frames()[which].clone();
        changes.iter().for_each(|(at, value)| frame[*at] = *value);
        frame.truncate(cut);
        if let Some(layout) = Layout::of(&frame) {
            prop_assert!(layout.transport < layout.payload && layout.payload <= layout.end && layout.end <= frame.len());
            let parsed = Packet::parse(&frame[..layout.end]);
            prop_assert_eq!(parsed.payload.as_slice(), &frame[layout.payload..layout.end]);
            prop_assert_eq!(matches!(parsed.transport, Transport::Tcp(_)), layout.protocol == Protocol::Tcp);
        }
    }
}
