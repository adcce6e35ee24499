use super::*;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

const ASKER: Mac = Mac([2, 0, 0, 0, 0, 1]);
const HOLDER: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// What a receiver takes from a frame: (destination, source, operation or flags, who has it, whose MAC, told to whom).
#[derive(Debug, PartialEq, Eq)]
struct Said {
    dst: Mac,
    src: Mac,
    how: u8,
    address: IpAddr,
    mac: Mac,
    to: IpAddr,
}

fn mac(bytes: &[u8]) -> Mac {
    Mac(bytes.try_into().unwrap())
}

/// Reads ARP, or an advertisement as RFC 4861, 7.1.2 demands it.
fn read(frame: &[u8]) -> Said {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (dst, src) = (mac(&frame[..6]), mac(&frame[6..12]));
    match packet.net.unwrap() {
        NetSlice::Arp(arp) => {
            let ip = |bytes: &[u8]| IpAddr::from(<[u8; 4]>::try_from(bytes).unwrap());
            let (address, to) = (ip(arp.sender_protocol_addr()), ip(arp.target_protocol_addr()));
            Said { dst, src, how: arp.operation().0 as u8, address, mac: mac(arp.sender_hw_addr()), to }
        }
        NetSlice::Ipv6(ip) => {
            let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("not ICMPv6") };
            assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
            assert_eq!((ip.header().hop_limit(), icmp.type_u8(), icmp.code_u8()), (255, 136, 0));
            let bytes = icmp.slice();
            let target: [u8; 16] = bytes[8..24].try_into().unwrap();
            assert_eq!(&bytes[24..26], [2, 1]);
            assert_eq!((bytes.len(), ip.header().source()), (32, target));
            Said {
                dst,
                src,
                how: bytes[4],
                address: target.into(),
                mac: mac(&bytes[26..32]),
                to: ip.header().destination().into(),
            }
        }
        NetSlice::Ipv4(_) => panic!("IPv4"),
    }
}

fn arp_request(dst: Mac, from: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: ASKER.0,
        sender_ipv4: from,
        target_mac: [0; 6],
        target_ipv4: target,
    };
    let mut frame = [&dst.0[..], &ASKER.0, &[8, 6], &packet.to_bytes()].concat();
    // As it comes from a wire.
    frame.resize(60, 0);
    frame
}

fn solicit(dst: Mac, from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    let icmp = Icmpv6Type::Unknown { type_u8: 135, code_u8: 0, bytes5to8: [0; 4] };
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 2);
    let packet =
        etherparse::PacketBuilder::ethernet2(ASKER.0, dst.0).ipv6(from.octets(), group.octets(), 255).icmpv6(icmp);
    packet.write(&mut frame, &[&target.octets()[..], &[1, 1], &ASKER.0].concat()).unwrap();
    frame
}

fn asked(frame: &[u8]) -> Option<Question> {
    question(&Frame::parse(frame).unwrap())
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn an_arp_request_is_answered_to_the_asker() {
    let question = asked(&arp_request(Mac::BROADCAST, [10, 0, 0, 1], [10, 0, 0, 2])).unwrap();
    let (target, from) = (ip("10.0.0.2"), ip("10.0.0.1"));
    assert_eq!(question, Question { target, dst: Mac::BROADCAST, asker: ASKER, from });
    let said = read(&answer(&question, HOLDER).unwrap());
    assert_eq!(said, Said { dst: ASKER, src: HOLDER, how: 2, address: target, mac: HOLDER, to: from });
}

#[test]
fn a_solicitation_is_answered_with_solicited_and_override() {
    let question = asked(&solicit(Mac([0x33, 0x33, 0xff, 0, 0, 2]), v6("fd00::1"), v6("fd00::2"))).unwrap();
    let (target, from) = (ip("fd00::2"), ip("fd00::1"));
    assert!(!question.is_probe());
    let said = read(&answer(&question, HOLDER).unwrap());
    assert_eq!(said, Said { dst: ASKER, src: HOLDER, how: 0x60, address: target, mac: HOLDER, to: from });
}

#[test]
fn probes_hear_that_the_address_is_taken() {
    let question = asked(&arp_request(Mac::BROADCAST, [0; 4], [10, 0, 0, 2])).unwrap();
    assert!(question.is_probe());
    let said = read(&answer(&question, HOLDER).unwrap());
    let (address, to) = (ip("10.0.0.2"), ip("0.0.0.0"));
    assert_eq!(said, Said { dst: ASKER, src: HOLDER, how: 2, address, mac: HOLDER, to });
    // Who has no address cannot be told but by telling all (RFC 4861, 7.2.4).
    let question = asked(&solicit(Mac([0x33, 0x33, 0xff, 0, 0, 2]), v6("::"), v6("fd00::2"))).unwrap();
    assert!(question.is_probe());
    let said = read(&answer(&question, HOLDER).unwrap());
    let (address, to) = (ip("fd00::2"), ip("ff02::1"));
    assert_eq!(said, Said { dst: ALL_NODES.1, src: HOLDER, how: 0x20, address, mac: HOLDER, to });
}

#[test]
fn announcements_tell_everybody() {
    let said = read(&announcement(ip("10.0.0.2"), HOLDER).unwrap());
    let address = ip("10.0.0.2");
    assert_eq!(said, Said { dst: Mac::BROADCAST, src: HOLDER, how: 1, address, mac: HOLDER, to: address });
    let said = read(&announcement(ip("fd00::2"), HOLDER).unwrap());
    let (address, to) = (ip("fd00::2"), ip("ff02::1"));
    assert_eq!(said, Said { dst: ALL_NODES.1, src: HOLDER, how: 0x20, address, mac: HOLDER, to });
}

#[test]
fn what_does_not_ask_is_no_question() {
    let request = arp_request(Mac::BROADCAST, [10, 0, 0, 1], [10, 0, 0, 2]);
    let solicitation = solicit(Mac([0x33, 0x33, 0xff, 0, 0, 2]), v6("fd00::1"), v6("fd00::2"));
    assert!(asked(&request).is_some() && asked(&solicitation).is_some());
    let changed = |frame: &[u8], at: usize, byte: u8| {
        let mut frame = frame.to_vec();
        frame[at] = byte;
        frame
    };
    let facts = [
        ("an ARP reply", changed(&request, 21, 2)),
        ("an announcement by ARP", arp_request(Mac::BROADCAST, [10, 0, 0, 2], [10, 0, 0, 2])),
        ("ARP of another hardware", changed(&request, 15, 6)),
        ("ARP of another protocol", changed(&request, 17, 6)),
        ("ARP in the name of another", changed(&request, 27, 9)),
        ("ARP cut short", request[..40].to_vec()),
        ("an advertisement", changed(&solicitation, 54, 136)),
        ("a solicitation from beyond a router", changed(&solicitation, 21, 254)),
        ("a solicitation of another code", changed(&solicitation, 55, 1)),
        ("a solicitation cut short", solicitation[..77].to_vec()),
        ("TCP", changed(&solicitation, 20, 6)),
        ("a solicitation of a group", changed(&solicitation, 62, 0xff)),
        ("IPv4", changed(&request, 13, 0)),
        ("nothing", request[..14].to_vec()),
    ];
    for (fact, frame) in facts {
        assert_eq!(asked(&frame), None, "{fact}");
    }
    let announced = announcement(ip("10.0.0.2"), HOLDER).unwrap();
    assert_eq!(asked(&announced), None);
}

fn any_mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(Mac)
}

proptest! {
    #[test]
    fn answers_parse_back_and_stay_on_the_stack(
        holder in any_mac(), asker in any_mac(), v4 in any::<([u8; 4], [u8; 4])>(), v6 in any::<([u8; 16], [u8; 16])>(), probe in any::<bool>(),
    ) {
        let zero = |ip: IpAddr, none: IpAddr| if probe { none } else { ip };
        for (target, from) in [
            (IpAddr::from(v4.0), zero(v4.1.into(), Ipv4Addr::UNSPECIFIED.into())),
            (IpAddr::from(v6.0), zero(v6.1.into(), Ipv6Addr::UNSPECIFIED.into())),
        ] {
            let asks = Question { target, dst: Mac::BROADCAST, asker, from };
            let built = answer(&asks, holder).unwrap();
            prop_assert!(!built.spilled());
            let said = read(&built);
            prop_assert_eq!((said.address, said.mac, said.src), (target, holder, holder));
            let to_all = probe && target.is_ipv6();
            prop_assert_eq!(said.dst, if to_all { ALL_NODES.1 } else { asker });
            let announced = announcement(target, holder).unwrap();
            prop_assert!(!announced.spilled());
            prop_assert_eq!(read(&announced).mac, holder);
        }
    }

    #[test]
    fn any_bytes_are_a_question_or_not(bytes in proptest::collection::vec(any::<u8>(), 14..120), kind in 0..3) {
        let mut bytes = bytes;
        bytes[12..14].copy_from_slice([&[8, 6], &[0x86, 0xdd], &[8, 0]][kind as usize]);
        if let Some(question) = asked(&bytes) {
            prop_assert_ne!(question.target, question.from);
        }
    }
}
