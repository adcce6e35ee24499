//! Paths that are narrow, or of which it is not known yet: what TCP agrees on, and who is told.

use super::*;
use etherparse::{PacketBuilder, TcpHeader};

/// What 1472 bytes leave for a frame: less 16 outer, 8 inner, 16 tag; and what that leaves for a segment over IPv4.
const SEGMENT: u16 = 1472 - 40 - 14 - 40;

/// A SYN from `mac(from)` to `mac(to)` that offers this MSS, its checksum complete.
fn syn(to: Mac, from: usize, mss: u16) -> Vec<u8> {
    let from = u8::try_from(from).unwrap();
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(mac(from).0, to.0).ipv4([10, 0, 0, from], [10, 0, 0, 99], 64);
    let options = [etherparse::TcpOptionElement::MaximumSegmentSize(mss)];
    packet.tcp(1000, 2000, 77, 4096).syn().options(&options).unwrap().write(&mut frame, &[]).unwrap();
    frame
}

fn offered(frame: &[u8]) -> u16 {
    let sliced = etherparse::PacketHeaders::from_ethernet_slice(frame).unwrap();
    let tcp: TcpHeader = sliced.transport.unwrap().tcp().unwrap();
    let layout = crate::plane::offload::Layout::of(frame).unwrap();
    assert!(crate::plane::offload::checksum::is_right(frame, &layout), "its checksum is right");
    let found = tcp.options_iterator().find_map(|option| match option {
        Ok(etherparse::TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
        _ => None,
    });
    found.expect("an MSS")
}

fn line() -> Mesh {
    let mut mesh = Mesh::new(3, CHAIN, &[7]);
    mesh.send(3, PORT, &hello(Mac::BROADCAST, mac(3)));
    mesh
}

#[test]
fn a_connection_agrees_on_segments_that_every_path_on_its_way_takes() {
    for (here, there, mtu) in [(1, 2, 700), (2, 1, 700), (2, 3, 700), (3, 2, 700)] {
        let mut mesh = line();
        mesh.host(here).paths[&there].set_mtu(mtu);
        // As it leaves, as it arrives, at the first host, at the relay and at the last.
        for to in [mac(3), Mac::BROADCAST] {
            let delivered = mesh.send(1, PORT, &syn(to, 1, 1460));
            let at_3 = delivered.iter().find(|(host, ..)| *host == 3).unwrap();
            assert_eq!(offered(&at_3.2), mtu - 40 - 54, "{here}-{there}");
        }
        assert_eq!(dropped(&mut mesh, 1), []);
    }
}

#[test]
fn an_offer_that_fits_is_left_alone() {
    let mut mesh = line();
    for (offer, seen) in [(1460, SEGMENT), (SEGMENT, SEGMENT), (SEGMENT - 1, SEGMENT - 1), (536, 536)] {
        assert_eq!(offered(&mesh.send(1, PORT, &syn(mac(3), 1, offer))[0].2), seen);
    }
}

#[test]
fn nobody_is_told_of_a_limit_that_is_not_known_yet() {
    let mut mesh = line();
    mesh.host(1).paths[&2].set_mtu_so_far(700);
    mesh.host(2).paths[&1].set_mtu_so_far(700);
    assert_eq!(offered(&mesh.send(1, PORT, &syn(mac(3), 1, 1460))[0].2), SEGMENT, "only of the path that is known");
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(mac(1).0, mac(3).0).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 2);
    packet.write(&mut frame, &[5; 1300]).unwrap();
    frame[14 + 6] |= 0x40;
    assert_eq!(mesh.send(1, PORT, &frame), [(3, PORT, frame)], "it may not be cut, but the pieces are ours");
    assert_eq!(dropped(&mut mesh, 1), []);
}

#[test]
fn ipv6_below_its_least_is_cut_and_ipv4_is_told() {
    let mut mesh = Mesh::new(2, &[(1, 2)], &[7]);
    mesh.send(2, PORT, &hello(Mac::BROADCAST, mac(2)));
    // An underlay of 700 bytes.
    mesh.host(1).paths[&2].set_mtu(672);
    let ethernet = || PacketBuilder::ethernet2(mac(1).0, mac(2).0);
    let mut six = Vec::new();
    ethernet().ipv6([0xfd; 16], [0xfc; 16], 64).udp(7, 9).write(&mut six, &[5; 1200]).unwrap();
    assert_eq!(mesh.send(1, PORT, &six), [(2, PORT, six)]);
    let mut four = Vec::new();
    ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(7, 9).write(&mut four, &[5; 1200]).unwrap();
    four[14 + 6] |= 0x40;
    let delivered = mesh.send(1, PORT, &four);
    let [(1, PORT, reply)] = &delivered[..] else { panic!("{delivered:?}") };
    assert_eq!(reply[14 + 20 + 6..14 + 20 + 8], (672u16 - 40 - 14).to_be_bytes());
}
