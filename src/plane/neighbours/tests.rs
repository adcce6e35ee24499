use super::*;
use crate::plane::fib::Permit;
use crate::plane::testing::{Mesh, PORT, ethernet, mac, net, permit, short};
use crate::plane::{Drop, Tally};
use crate::types::Instant;
use crate::wire::frame::Frame;
use crate::wire::neighbour::{announcement, question};
use etherparse::{ArpEthIpv4Packet, ArpOperation, Icmpv6Type, PacketBuilder};
use proptest::prelude::*;
use std::net::Ipv6Addr;
use std::sync::Arc;

const EDGES: [(usize, usize); 2] = [(1, 2), (2, 3)];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn known(address: &str, mac: Mac, place: Place) -> Known {
    Known { network: net(7), address: ip(address), mac, place }
}

/// The attachment of host `n` has `mac(n)`, 10.0.0.n and fd00::n, as host `here` sees it.
fn given_out(here: usize, hosts: &[usize]) -> Vec<Known> {
    let place = |host: usize| if host == here { Place::Port(PORT) } else { Place::Peer(short(host)) };
    let both = |host: &usize| {
        let mac = mac(u8::try_from(*host).unwrap());
        [format!("10.0.0.{host}"), format!("fd00::{host}")].map(|address| known(&address, mac, place(*host)))
    };
    hosts.iter().flat_map(both).collect()
}

/// Hosts 1 - 2 - 3 with guarded attachments that everybody knows; `change` makes something else of what host 1 knows.
fn mesh(change: impl FnOnce(&mut Vec<Known>)) -> Mesh {
    let mut mesh = Mesh::new(3, &EDGES, &[7]);
    let mut known = given_out(1, &[1, 2, 3]);
    change(&mut known);
    for host in [1, 2, 3] {
        let known = if host == 1 { known.clone() } else { given_out(host, &[1, 2, 3]) };
        mesh.publish(host, &EDGES, &[7], |fib| {
            let entry = fib.networks.get_mut(&net(7)).unwrap();
            entry.unguarded = false;
            let number = u8::try_from(host).unwrap();
            entry.permits.insert(mac(number), permit(&[&format!("10.0.0.{host}"), &format!("fd00::{host}")]));
            fib.neighbours = Arc::new(known.into_iter().collect());
        });
    }
    mesh
}

fn arp(operation: ArpOperation, dst: Mac, from: &str, target: &str) -> Vec<u8> {
    let v4 = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let packet = ArpEthIpv4Packet {
        operation,
        sender_mac: mac(1).0,
        sender_ipv4: v4(from),
        target_mac: [0; 6],
        target_ipv4: v4(target),
    };
    ethernet(dst, mac(1), 0x0806, &packet.to_bytes())
}

fn request(target: &str) -> Vec<u8> {
    arp(ArpOperation::REQUEST, Mac::BROADCAST, "10.0.0.1", target)
}

fn solicitation(from: &str, target: &str) -> Vec<u8> {
    let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    let mut frame = Vec::new();
    let icmp = Icmpv6Type::Unknown { type_u8: 135, code_u8: 0, bytes5to8: [0; 4] };
    let packet =
        PacketBuilder::ethernet2(mac(1).0, [0x33, 0x33, 0xff, 0, 0, 2]).ipv6(v6(from), v6("ff02::1:ff00:2"), 255);
    packet.icmpv6(icmp).write(&mut frame, &v6(target)).unwrap();
    frame
}

fn dropped(mesh: &mut Mesh, reason: Drop) -> u64 {
    let tally: Tally = mesh.host(1).plane.counters();
    tally.dropped(reason)
}

/// Captures at host 1. The one frame that came back there and no other went anywhere; its Ethernet source has the address.
fn answered(mesh: &mut Mesh, frame: &[u8]) -> Mac {
    mesh.capture(1, PORT, frame);
    assert_eq!(mesh.carry(), 0, "nothing leaves the host");
    let delivered = mesh.delivered();
    let [(1, PORT, answer)] = delivered.as_slice() else { panic!("{delivered:?}") };
    let answer = Frame::parse(answer).unwrap();
    assert_eq!(question(&answer), None);
    answer.src()
}

/// Captures at host 1; the hosts where it came out.
fn flooded(mesh: &mut Mesh, frame: &[u8]) -> Vec<usize> {
    mesh.send(1, PORT, frame).into_iter().map(|(host, _, _)| host).collect()
}

#[test]
fn questions_for_known_addresses_elsewhere_are_answered_here() {
    let mut mesh = mesh(|_| {});
    assert_eq!(answered(&mut mesh, &request("10.0.0.3")), mac(3));
    assert_eq!(answered(&mut mesh, &solicitation("fd00::1", "fd00::2")), mac(2));
    assert_eq!(dropped(&mut mesh, Drop::Suppressed), 2);
    assert_eq!(mesh.host(1).plane.macs(Instant::ZERO).len(), 1, "who asks is known by it");
}

#[test]
fn everything_else_goes_its_way() {
    let mut mesh = mesh(|_| {});
    let facts = [
        ("a question for an unknown address", request("10.0.0.9"), vec![2, 3]),
        ("the same by discovery", solicitation("fd00::1", "fd00::9"), vec![2, 3]),
        ("a question for an address here", request("10.0.0.1"), vec![2, 3]),
        ("an announcement", announcement(ip("10.0.0.1"), mac(1)).unwrap().to_vec(), vec![2, 3]),
        ("an unsolicited advertisement", announcement(ip("fd00::1"), mac(1)).unwrap().to_vec(), vec![2, 3]),
        ("a reply", arp(ArpOperation::REPLY, mac(3), "10.0.0.1", "10.0.0.3"), vec![3]),
        ("a question to the holder itself", arp(ArpOperation::REQUEST, mac(3), "10.0.0.1", "10.0.0.3"), vec![3]),
    ];
    for (fact, frame, hosts) in facts {
        assert_eq!(flooded(&mut mesh, &frame), hosts, "{fact}");
    }
    assert_eq!(dropped(&mut mesh, Drop::Suppressed), 0);
}

#[test]
fn a_question_to_who_had_the_address_before_is_answered_with_who_has_it() {
    let mut mesh = mesh(|_| {});
    assert_eq!(answered(&mut mesh, &arp(ArpOperation::REQUEST, mac(9), "10.0.0.1", "10.0.0.3")), mac(3));
}

#[test]
fn whoever_probes_a_taken_address_hears_so() {
    let mut mesh = mesh(|_| {});
    assert_eq!(answered(&mut mesh, &arp(ArpOperation::REQUEST, Mac::BROADCAST, "0.0.0.0", "10.0.0.3")), mac(3));
    assert_eq!(dropped(&mut mesh, Drop::Suppressed), 1);
    // The guard forbids to claim it: it is counted as that, and answered all the same.
    assert_eq!(answered(&mut mesh, &solicitation("::", "fd00::3")), mac(3));
    assert_eq!(dropped(&mut mesh, Drop::GuardAddress), 1);
    assert_eq!(dropped(&mut mesh, Drop::Suppressed), 1);
}

#[test]
fn forged_questions_are_not_answered() {
    let mut mesh = mesh(|_| {});
    let mut forged = request("10.0.0.3");
    forged[11] = 2;
    let facts = [
        ("with another's MAC", forged, Drop::GuardMac),
        (
            "with another's address",
            arp(ArpOperation::REQUEST, Mac::BROADCAST, "10.0.0.2", "10.0.0.3"),
            Drop::GuardAddress,
        ),
    ];
    for (fact, frame, reason) in facts {
        assert_eq!(flooded(&mut mesh, &frame), Vec::<usize>::new(), "{fact}");
        assert_eq!(dropped(&mut mesh, reason), 1, "{fact}");
    }
    assert_eq!(mesh.host(1).plane.macs(Instant::ZERO), []);
}

#[test]
fn what_may_be_old_is_not_vouched_for() {
    let mut disputed = mesh(|known| known.push(self::known("10.0.0.3", mac(8), Place::Peer(short(2)))));
    assert_eq!(flooded(&mut disputed, &request("10.0.0.3")), [2, 3], "two claim it");
    assert_eq!(answered(&mut disputed, &request("10.0.0.2")), mac(2));
    let mut here = mesh(|known| known.push(self::known("10.0.0.3", mac(8), Place::Port(PORT))));
    assert_eq!(flooded(&mut here, &request("10.0.0.3")), [2, 3], "somebody here claims it too");
    let mut gone = mesh(|known| {
        known.iter_mut().filter(|known| known.mac == mac(3)).for_each(|known| known.place = Place::Peer(short(9)))
    });
    assert_eq!(flooded(&mut gone, &request("10.0.0.3")), [2, 3], "the peer has no next hop");
    let to_gone = ethernet(mac(3), mac(1), 0x88b5, b"x");
    assert_eq!(flooded(&mut gone, &to_gone), [2, 3], "nor is its MAC a reason to drop");
}

#[test]
fn another_network_knows_nothing_of_it() {
    let mut mesh = Mesh::new(3, &EDGES, &[7, 8]);
    mesh.publish(1, &EDGES, &[7, 8], |fib| fib.neighbours = Arc::new(given_out(1, &[1, 2, 3]).into_iter().collect()));
    let other = crate::plane::fib::PortId(2);
    assert_eq!(mesh.send(1, other, &request("10.0.0.3")).len(), 2);
    let unicast = ethernet(mac(3), mac(1), 0x88b5, b"x");
    assert_eq!(mesh.send(1, other, &unicast).len(), 2);
}

#[test]
fn the_first_frame_to_a_known_attachment_is_not_flooded() {
    let mut mesh = mesh(|_| {});
    let frame = ethernet(mac(3), mac(1), 0x88b5, b"x");
    assert_eq!(flooded(&mut mesh, &frame), [3], "not delivered at the relay");
    // To one that is here the bridge has brought it.
    let own = ethernet(mac(1), mac(1), 0x88b5, b"x");
    let mut fresh = self::mesh(|_| {});
    assert_eq!(flooded(&mut fresh, &own), Vec::<usize>::new());
    assert_eq!(dropped(&mut fresh, Drop::Local), 1);
}

#[test]
fn what_was_seen_last_outweighs_what_was_given_out_until_it_is_forgotten() {
    let mut mesh = mesh(|_| {});
    // An attachment without guard took mac(3) to host 2.
    mesh.publish(2, &EDGES, &[7], |fib| {
        let entry = fib.networks.get_mut(&net(7)).unwrap();
        entry.permits.insert(mac(3), Permit { unguarded: true, ..Permit::default() });
    });
    mesh.send(2, PORT, &ethernet(Mac::BROADCAST, mac(3), 0x88b5, b"x"));
    let frame = ethernet(mac(3), mac(1), 0x88b5, b"x");
    assert_eq!(flooded(&mut mesh, &frame), [2]);
    mesh.host(1).plane.forget_mac(net(7), mac(3));
    assert_eq!(flooded(&mut mesh, &frame), [3]);
}

proptest! {
    #[test]
    fn a_table_holds_what_nobody_disputes_whatever_the_order(
        claims in proptest::collection::vec((1_u8..5, 1_u8..5, 1_usize..4), 0..12), seed in any::<u64>(),
    ) {
        let known: Vec<Known> = claims.iter().map(|(address, at, host)| known(&format!("10.0.0.{address}"), mac(*at), Place::Peer(short(*host)))).collect();
        let table: Neighbours = known.iter().copied().collect();
        let mut other = known.clone();
        if !other.is_empty() {
            let middle = usize::try_from(seed % other.len() as u64).unwrap();
            other.rotate_left(middle);
        }
        let rotated: Neighbours = other.into_iter().collect();
        for address in 1_u8..5 {
            let target = ip(&format!("10.0.0.{address}"));
            let mut holders: Vec<Holder> =
                known.iter().filter(|known| known.address == target).map(|known| Holder { mac: known.mac, place: known.place }).collect();
            holders.dedup();
            let expected = holders.first().copied().filter(|first| holders.iter().all(|holder| holder == first));
            prop_assert_eq!(table.holder(net(7), target), expected);
            prop_assert_eq!(rotated.holder(net(7), target), expected);
        }
    }
}
