//! What frames claim, honest ones and those that hide it.

use super::*;
use proptest::prelude::*;

const SRC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn eth(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &SRC.0, &ether_type.to_be_bytes(), payload].concat()
}

fn claims(ether_type: u16, payload: &[u8]) -> Source {
    source(&Frame::parse(&eth(ether_type, payload)).unwrap())
}

fn ipv4(from: [u8; 4]) -> Vec<u8> {
    [&[0x45, 0, 0, 24, 0, 0, 0x40, 0, 64, 17, 0, 0][..], &from, &[10, 2, 1, 9], &[0; 4]].concat()
}

fn arp_packet(mac: Mac, ip: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 2][..], &mac.0, &ip, &[0; 6], &[10, 2, 1, 9]].concat()
}

fn v6(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last.into())
}

fn ipv6_packet(from: Ipv6Addr, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0x60, 0, 0, 0][..], &length, &[next_header, 255], &from.octets(), &v6(9).octets(), payload].concat()
}

fn link_layer(kind: u8, mac: Mac) -> Vec<u8> {
    [&[kind, 1][..], &mac.0].concat()
}

fn discovery(kind: u8, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), options].concat()
}

#[test]
fn header_fields_are_where_they_belong() {
    let bytes = eth(0x0800, b"payload");
    let frame = Frame::parse(&bytes).unwrap();
    assert_eq!((frame.dst(), frame.src(), frame.ether_type()), (Mac::BROADCAST, SRC, 0x0800));
    assert_eq!((frame.payload(), frame.bytes()), (&b"payload"[..], &bytes[..]));
}

#[test]
fn frames_have_14_to_65549_bytes() {
    for length in 0..HEADER_LEN {
        assert_eq!(Frame::parse(&vec![0; length]).err(), Some(Malformed::Truncated));
    }
    assert!(Frame::parse(&[0; HEADER_LEN]).is_ok());
    assert!(Frame::parse(&vec![0; SUPER_FRAME_MAX]).is_ok());
    assert_eq!(Frame::parse(&vec![0; SUPER_FRAME_MAX + 1]).err(), Some(Malformed::TooLong));
}

#[test]
fn sees_the_source_of_ip() {
    assert_eq!(claims(0x0800, &ipv4([10, 2, 1, 1])), Source::Ip("10.2.1.1".parse().unwrap()));
    assert_eq!(claims(0x86dd, &ipv6_packet(v6(1), 17, &[0; 8])), Source::Ip(v6(1).into()));
    assert_eq!(claims(0x86dd, &ipv6_packet(v6(1), 59, &[])), Source::Ip(v6(1).into()));
}

#[test]
fn sees_the_sender_of_arp() {
    let ip = "10.2.1.1".parse().unwrap();
    assert_eq!(claims(0x0806, &arp_packet(OTHER, [10, 2, 1, 1])), Source::Arp { mac: OTHER, ip });
}

#[test]
fn sees_who_speaks_in_neighbour_discovery() {
    let plain = Source::Neighbour { ip: v6(1), claimed: None, mac: None, router: false };
    let asks = discovery(135, v6(7), &link_layer(1, OTHER));
    let expected = Source::Neighbour { ip: v6(1), claimed: None, mac: Some(OTHER), router: false };
    assert_eq!(claims(0x86dd, &ipv6_packet(v6(1), 58, &asks)), expected, "solicitation");
    let answers = discovery(136, v6(7), &link_layer(2, OTHER));
    let expected = Source::Neighbour { ip: v6(1), claimed: Some(v6(7)), mac: Some(OTHER), router: false };
    assert_eq!(claims(0x86dd, &ipv6_packet(v6(1), 58, &answers)), expected, "advertisement");
    let probes = ipv6_packet(Ipv6Addr::UNSPECIFIED, 58, &discovery(135, v6(7), &[]));
    let expected = Source::Neighbour { ip: Ipv6Addr::UNSPECIFIED, claimed: Some(v6(7)), mac: None, router: false };
    assert_eq!(claims(0x86dd, &probes), expected, "probe of an address");
    assert_eq!(claims(0x86dd, &ipv6_packet(v6(1), 58, &[133, 0, 0, 0, 0, 0, 0, 0])), plain, "router solicitation");
}

#[test]
fn tells_who_speaks_as_a_router() {
    let router = Source::Neighbour { ip: v6(1), claimed: None, mac: Some(OTHER), router: true };
    let advertisement = [&[134; 1][..], &[0; 15], &link_layer(1, OTHER)].concat();
    assert_eq!(claims(0x86dd, &ipv6_packet(v6(1), 58, &advertisement)), router);
    let redirect = [&[137; 1][..], &[0; 39], &link_layer(2, OTHER)].concat();
    assert_eq!(claims(0x86dd, &ipv6_packet(v6(1), 58, &redirect)), router);
}

#[test]
fn sees_neighbour_discovery_behind_extension_headers() {
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let answer = discovery(136, v6(7), &[]);
    let hidden = [&options(60)[..], &options(60), &options(44), &[58, 0, 0, 0, 0, 0, 0, 1], &answer].concat();
    let expected = Source::Neighbour { ip: v6(1), claimed: Some(v6(7)), mac: None, router: false };
    assert_eq!(claims(0x86dd, &ipv6_packet(v6(1), 0, &hidden)), expected, "an atomic fragment is not fragmented");
}

#[test]
fn fragmented_neighbour_discovery_is_plain_ipv6() {
    let first = [&[58, 0, 0, 1, 0, 0, 0, 1][..], &discovery(136, v6(7), &[])].concat();
    assert_eq!(claims(0x86dd, &ipv6_packet(v6(1), 44, &first)), Source::Ip(v6(1).into()));
}

#[test]
fn other_icmpv6_is_plain_ipv6() {
    assert_eq!(claims(0x86dd, &ipv6_packet(v6(1), 58, &[128, 0, 0, 0, 0, 0, 0, 0])), Source::Ip(v6(1).into()));
}

#[test]
fn tags_are_told_apart() {
    for tag in [0x8100, 0x88a8, 0x9100] {
        assert_eq!(claims(tag, &[0, 5, 8, 0]), Source::Tagged);
    }
}

#[test]
fn other_protocols_claim_nothing() {
    for ether_type in [0x88cc, 0x0026, 0x0842, 0xffff] {
        assert_eq!(claims(ether_type, &ipv4([10, 2, 1, 1])), Source::None);
    }
}

#[test]
fn what_no_receiver_would_take_is_malformed() {
    let mut version = ipv4([10, 2, 1, 1]);
    version[0] = 0x65;
    assert_eq!(claims(0x0800, &version), Source::Malformed, "version 6 as IPv4");
    let mut short = ipv4([10, 2, 1, 1]);
    short[0] = 0x44;
    assert_eq!(claims(0x0800, &short), Source::Malformed, "16 bytes of header");
    assert_eq!(claims(0x86dd, &ipv4([10, 2, 1, 1])), Source::Malformed);
    let mut hardware = arp_packet(OTHER, [10, 2, 1, 1]);
    hardware[1] = 6;
    assert_eq!(claims(0x0806, &hardware), Source::Malformed, "ARP of another hardware");
    let mut sizes = arp_packet(OTHER, [10, 2, 1, 1]);
    sizes[5] = 16;
    assert_eq!(claims(0x0806, &sizes), Source::Malformed, "ARP with other lengths");
    let endless = discovery(136, v6(7), &[2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(claims(0x86dd, &ipv6_packet(v6(1), 58, &endless)), Source::Malformed, "an option without length");
    let two = [link_layer(2, SRC), link_layer(2, OTHER)].concat();
    assert_eq!(
        claims(0x86dd, &ipv6_packet(v6(1), 58, &discovery(136, v6(7), &two))),
        Source::Malformed,
        "two addresses"
    );
}

#[test]
fn truncated_headers_are_malformed_at_every_length() {
    let packets = [
        (0x0800, ipv4([10, 2, 1, 1]), 20),
        (0x0806, arp_packet(OTHER, [10, 2, 1, 1]), 28),
        (0x86dd, ipv6_packet(v6(1), 58, &discovery(136, v6(7), &link_layer(2, OTHER))), 40 + 24),
    ];
    for (ether_type, packet, header) in packets {
        for length in 0..header {
            assert_eq!(claims(ether_type, &packet[..length]), Source::Malformed, "{ether_type:#x} at {length}");
        }
        assert_ne!(claims(ether_type, &packet), Source::Malformed);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_frame_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(frame) = Frame::parse(&bytes) {
            prop_assert_eq!(frame.bytes(), &bytes[..]);
            let _ = source(&frame);
        }
    }

    #[test]
    fn any_packet_has_a_source(kind in 0usize..3, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = claims([0x0800, 0x0806, 0x86dd][kind], &bytes);
    }

    #[test]
    fn any_chain_of_extension_headers_ends(next: u8, bytes in prop::collection::vec(prop_oneof![Just(0), Just(60), Just(43), Just(44), Just(58), any::<u8>()], 0..400)) {
        let found = claims(0x86dd, &ipv6_packet(v6(1), next, &bytes));
        prop_assert!(matches!(found, Source::Ip(_) | Source::Neighbour { .. } | Source::Malformed), "{found:?}");
    }
}
