//! Frames and datagrams through whole planes.

mod floods;
mod narrow;
mod super_frames;
mod tunnels;
mod uplinks;
mod vxlan;

use super::testing::*;
use super::*;
use crate::types::Mac;
use crate::wire::datagram::OUTER_LEN;

const CHAIN: &[(usize, usize)] = &[(1, 2), (2, 3)];

fn hello(dst: Mac, src: Mac) -> Vec<u8> {
    ethernet(dst, src, 0x88b5, b"hello")
}

fn dropped(mesh: &mut Mesh, host: usize) -> Vec<(Drop, u64)> {
    mesh.host(host).plane.counters().drops().collect()
}

fn places(mesh: &mut Mesh, host: usize) -> Vec<(Mac, Place)> {
    let now = mesh.now;
    mesh.host(host).plane.macs(now).iter().map(|seen| (seen.mac, seen.place)).collect()
}

#[test]
fn a_flood_reaches_everybody_once_and_the_answer_goes_one_way() {
    let edges = &[(1, 2), (2, 3), (3, 4), (4, 1), (2, 4)];
    let mut mesh = Mesh::new(4, edges, &[7]);
    let question = hello(Mac::BROADCAST, mac(1));
    mesh.capture(1, PORT, &question);
    assert_eq!(mesh.carry(), 3, "three others, three datagrams");
    assert_eq!(mesh.delivered(), [(2, PORT, question.clone()), (3, PORT, question.clone()), (4, PORT, question)]);
    let answer = hello(mac(1), mac(3));
    mesh.capture(3, PORT, &answer);
    assert_eq!(mesh.carry(), 2, "two hops");
    assert_eq!(mesh.delivered(), [(1, PORT, answer)]);
    for host in 1..=4 {
        assert_eq!(dropped(&mut mesh, host), []);
    }
}

#[test]
fn relays_frame_for_third_peer_without_learning_from_it() {
    let mut mesh = Mesh::new(3, CHAIN, &[7]);
    mesh.publish(2, CHAIN, &[], |_| {});
    mesh.send(1, PORT, &hello(Mac::BROADCAST, mac(1)));
    let delivered = mesh.send(3, PORT, &hello(mac(1), mac(3)));
    assert_eq!(delivered, [(1, PORT, hello(mac(1), mac(3)))]);
    assert_eq!(places(&mut mesh, 2), []);
    assert_eq!(places(&mut mesh, 1), [(mac(1), Place::Port(PORT)), (mac(3), Place::Peer(short(3)))]);
    // Also where the network is open, a unicast that passes by is not looked at.
    mesh.publish(2, CHAIN, &[7], |_| {});
    mesh.send(3, PORT, &hello(mac(1), mac(3)));
    assert_eq!(places(&mut mesh, 2), []);
    let counted = mesh.host(2).plane.counters();
    assert_eq!((counted.from_net.frames, counted.to_net.frames, counted.to_bridge.frames), (3, 3, 0));
}

#[test]
fn frames_of_flows_that_send_little_are_marked_for_the_whole_way_and_others_are_not() {
    let mut mesh = Mesh::new(3, CHAIN, &[7]);
    mesh.send(1, PORT, &hello(Mac::BROADCAST, mac(1)));
    let marks = |sent: &[(std::net::SocketAddr, Vec<u8>)]| -> Vec<bool> {
        sent.iter().map(|(_, datagram)| Outer::parse(datagram).unwrap().sparse).collect()
    };
    let big = ethernet(mac(1), mac(3), 0x88b5, &[0; 1400]);
    let small = ethernet(mac(1), mac(3), 0x88b6, b"hello");
    for n in 0..40 {
        mesh.capture(3, PORT, &big);
        mesh.capture(3, PORT, &small);
        let sent = mesh.sent(3);
        let expected = if n < 34 { [true, true] } else { [false, true] };
        assert_eq!(marks(&sent), expected, "after {n} of 1,414 bytes");
        for (_, datagram) in sent {
            mesh.receive(2, address(3), datagram);
        }
        assert_eq!(marks(&mesh.sent(2)), expected, "handed on");
    }
}

#[test]
fn a_relay_seals_anew_for_each_hop() {
    let mut mesh = Mesh::new(3, CHAIN, &[7]);
    mesh.send(1, PORT, &hello(Mac::BROADCAST, mac(1)));
    mesh.capture(3, PORT, &hello(mac(1), mac(3)));
    let first = mesh.sent(3);
    mesh.receive(2, address(3), first[0].1.clone());
    let second = mesh.sent(2);
    assert_eq!(second[0].0, address(1));
    assert_eq!(first[0].1.len(), second[0].1.len());
    assert!(first[0].1[OUTER_LEN..] != second[0].1[OUTER_LEN..]);
}

#[test]
fn a_network_that_is_not_open_here_is_not_delivered() {
    let mut mesh = Mesh::new(2, &[(1, 2)], &[7]);
    mesh.publish(2, &[(1, 2)], &[8], |_| {});
    assert_eq!(mesh.send(1, PORT, &hello(Mac::BROADCAST, mac(1))), []);
    assert_eq!(dropped(&mut mesh, 2), [(Drop::NotOpen, 1)]);
    // Unicast too, when the sender still believes that it is open.
    mesh.publish(2, &[(1, 2)], &[7], |_| {});
    mesh.send(2, PORT, &hello(Mac::BROADCAST, mac(2)));
    mesh.publish(2, &[(1, 2)], &[8], |_| {});
    assert_eq!(mesh.send(1, PORT, &hello(mac(2), mac(1))), []);
    assert_eq!(dropped(&mut mesh, 2), [(Drop::NotOpen, 2)]);
}

#[test]
fn networks_with_the_same_macs_stay_apart() {
    let mut mesh = Mesh::new(2, &[(1, 2)], &[7, 8]);
    let ports = [PortId(1), PortId(2)];
    assert_eq!(mesh.send(1, ports[0], &hello(Mac::BROADCAST, mac(1))), [(2, ports[0], hello(Mac::BROADCAST, mac(1)))]);
    // On the other network nobody knows that MAC: an answer there is a flood there.
    assert_eq!(mesh.send(2, ports[1], &hello(mac(1), mac(2))), [(1, ports[1], hello(mac(1), mac(2)))]);
    assert_eq!(mesh.host(2).plane.macs(Instant::ZERO).len(), 2);
}

#[test]
fn a_frame_for_the_own_bridge_stays_there() {
    let mut mesh = Mesh::new(2, &[(1, 2)], &[7]);
    mesh.send(1, PORT, &hello(Mac::BROADCAST, mac(1)));
    assert_eq!(mesh.send(1, PORT, &hello(mac(1), mac(9))), []);
    assert_eq!(dropped(&mut mesh, 1), [(Drop::Local, 1)]);
}

#[test]
fn a_mac_that_moves_is_followed_at_once() {
    let mut mesh = Mesh::new(3, &[(1, 2), (1, 3), (2, 3)], &[7]);
    let far = |mesh: &mut Mesh| mesh.send(1, PORT, &hello(mac(9), mac(1))).into_iter().map(|d| d.0).collect::<Vec<_>>();
    mesh.send(2, PORT, &hello(Mac::BROADCAST, mac(9)));
    assert_eq!(far(&mut mesh), [2]);
    mesh.send(3, PORT, &hello(Mac::BROADCAST, mac(9)));
    assert_eq!(far(&mut mesh), [3]);
    mesh.send(1, PORT, &hello(Mac::BROADCAST, mac(9)));
    assert_eq!(far(&mut mesh), [] as [usize; 0]);
    mesh.send(2, PORT, &hello(Mac::BROADCAST, mac(9)));
    assert_eq!(far(&mut mesh), [2]);
}

#[test]
fn what_was_forgotten_is_flooded() {
    let mut mesh = Mesh::new(3, &[(1, 2), (1, 3)], &[7]);
    mesh.send(2, PORT, &hello(Mac::BROADCAST, mac(9)));
    assert_eq!(mesh.send(1, PORT, &hello(mac(9), mac(1))).len(), 1);
    mesh.host(1).plane.forget_peer(short(2));
    assert_eq!(mesh.send(1, PORT, &hello(mac(9), mac(1))).len(), 2);
    mesh.send(2, PORT, &hello(Mac::BROADCAST, mac(9)));
    mesh.host(1).plane.forget_network(net(7));
    assert_eq!(mesh.send(1, PORT, &hello(mac(9), mac(1))).len(), 2);
}

#[test]
fn garbage_changes_nothing_but_a_counter() {
    let mut mesh = Mesh::new(2, &[(1, 2)], &[7]);
    mesh.capture(1, PORT, &hello(Mac::BROADCAST, mac(1)));
    let good = mesh.sent(1).remove(0).1;
    let with = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        bad
    };
    let last = good.len() - 1;
    let cases = [
        (vec![], Drop::Malformed),
        (good[..15].to_vec(), Drop::Malformed),
        (with(0, 0x21), Drop::Malformed),
        (with(0, 0x3f), Drop::Malformed),
        (with(3, 99), Drop::UnknownEpoch),
        (with(4, 99), Drop::UnknownIndex),
        (with(15, 77), Drop::Forged),
        (with(1, 77), Drop::Forged),
        (with(0, 0x33), Drop::Forged),
        (with(0, 0x32), Drop::PlainOnSealed),
        (with(20, !good[20]), Drop::Forged),
        (with(last, !good[last]), Drop::Forged),
        (good[..good.len() - 1].to_vec(), Drop::Forged),
        (good[..OUTER_LEN].to_vec(), Drop::Forged),
        ([&good[..], b"more"].concat(), Drop::Forged),
    ];
    for (bad, reason) in cases {
        let before = mesh.host(2).plane.counters().dropped(reason);
        mesh.receive(2, address(1), bad);
        assert_eq!(mesh.host(2).plane.counters().dropped(reason), before + 1, "{reason:?}");
    }
    let here = mesh.host(2);
    assert!(here.out.frames.is_empty() && here.out.datagrams.is_empty() && here.out.events.is_empty());
    assert_eq!(here.plane.counters().from_net.frames, 0);
    assert_eq!(places(&mut mesh, 2), []);
    // The genuine one still gets through after all that, once, from wherever it comes.
    mesh.receive(2, address(9), good.clone());
    mesh.receive(2, address(1), good);
    assert_eq!(mesh.delivered().len(), 1);
    assert_eq!(mesh.host(2).plane.counters().dropped(Drop::Replayed), 1);
}

#[test]
fn in_clear_only_on_plain_paths_and_only_from_the_endpoint() {
    let mut mesh = Mesh::new(2, &[(1, 2)], &[7]);
    mesh.host(1).paths[&2].set_sealed(false);
    mesh.capture(1, PORT, &hello(Mac::BROADCAST, mac(1)));
    let plain = mesh.sent(1).remove(0).1;
    assert!(plain.ends_with(&hello(Mac::BROADCAST, mac(1))));
    mesh.receive(2, address(1), plain.clone());
    assert_eq!(dropped(&mut mesh, 2), [(Drop::PlainOnSealed, 1)]);
    mesh.host(2).paths[&1].set_sealed(false);
    mesh.receive(2, address(9), plain.clone());
    assert_eq!(dropped(&mut mesh, 2), [(Drop::PlainOnSealed, 1), (Drop::WrongAddress, 1)]);
    assert_eq!(mesh.delivered(), []);
    mesh.receive(2, address(1), plain);
    mesh.capture(1, PORT, &hello(Mac::BROADCAST, mac(1)));
    let plain = mesh.sent(1).remove(0).1;
    let mapped = SocketAddr::from((std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped(), 6783));
    mesh.receive(2, mapped, plain.clone());
    assert_eq!(mesh.delivered().len(), 2);
    // What anybody may write a second time is taken once all the same, if it is a flood.
    mesh.receive(2, address(1), plain);
    assert_eq!((mesh.delivered().len(), mesh.host(2).plane.counters().dropped(Drop::Duplicate)), (0, 1));
}

#[test]
fn a_forged_plain_datagram_does_not_shut_out_probes() {
    let mut mesh = Mesh::new(2, &[(1, 2)], &[7]);
    for (here, there) in [(1, 2), (2, 1)] {
        mesh.host(here).paths[&there].set_sealed(false);
    }
    mesh.capture(1, PORT, &hello(Mac::BROADCAST, mac(1)));
    let mut forged = mesh.sent(1).remove(0).1;
    forged[8..16].copy_from_slice(&(u64::MAX - 1).to_be_bytes());
    mesh.receive(2, address(1), forged);
    let mut probe = Vec::new();
    assert!(mesh.host(1).paths[&2].seal_probe(b"are you there", &mut probe));
    mesh.receive(2, address(1), probe);
    assert_eq!(mesh.host(2).out.events.len(), 1);
}

#[test]
fn probes_are_told_to_control_with_their_size_and_whence_they_came() {
    let mut mesh = Mesh::new(2, &[(1, 2)], &[7]);
    mesh.host(1).paths[&2].set_ready(false);
    let mut body = vec![0; 1400];
    body[..4].copy_from_slice(b"ping");
    let mut probe = vec![1, 2, 3];
    assert!(mesh.host(1).paths[&2].seal_probe(&body, &mut probe));
    assert_eq!(probe.len(), 1432);
    mesh.receive(2, address(77), probe.clone());
    mesh.receive(2, address(1), probe);
    let path = mesh.host(2).paths[&1].id();
    let kept = SmallVec::from_slice(&body[..64]);
    let event =
        Event::Probe { path, epoch: 1, from: address(77), local: None, body: kept, size: 1432, at: Instant::ZERO };
    assert_eq!(mesh.host(2).out.events, [event]);
    assert_eq!(dropped(&mut mesh, 2), [(Drop::Replayed, 1)]);
}

#[test]
fn nothing_goes_out_on_a_path_that_is_not_proven_or_when_the_batch_is_full() {
    let mut mesh = Mesh::new(2, &[(1, 2)], &[7]);
    mesh.host(1).paths[&2].set_ready(false);
    assert_eq!(mesh.send(1, PORT, &hello(Mac::BROADCAST, mac(1))), []);
    mesh.host(1).paths[&2].set_ready(true);
    mesh.host(1).out.full = true;
    assert_eq!(mesh.send(1, PORT, &hello(Mac::BROADCAST, mac(1))), []);
    assert_eq!(dropped(&mut mesh, 1), [(Drop::NotReady, 1), (Drop::SinkFull, 1)]);
    assert_eq!(mesh.host(1).plane.counters().to_net.frames, 0);
}

#[test]
fn a_guarded_port_lets_only_its_own_through_and_nobody_else_take_its_name() {
    let edges = &[(1, 2)];
    let mut mesh = Mesh::new(2, edges, &[7]);
    mesh.publish(1, edges, &[7], |fib| {
        let entry = fib.networks.get_mut(&net(7)).unwrap();
        entry.unguarded = false;
        entry.permits.insert(mac(1), permit(&["10.0.0.1"]));
    });
    assert_eq!(mesh.send(1, PORT, &hello(Mac::BROADCAST, mac(2))), []);
    assert_eq!(places(&mut mesh, 1), [], "what is refused is not learned");
    assert_eq!(mesh.send(1, PORT, &hello(Mac::BROADCAST, mac(1))).len(), 1);
    assert_eq!(mesh.send(2, PORT, &hello(Mac::BROADCAST, mac(1))), []);
    assert_eq!(places(&mut mesh, 1), [(mac(1), Place::Port(PORT))], "no peer takes over a MAC that was given out here");
    assert_eq!(dropped(&mut mesh, 1), [(Drop::GuardMac, 1), (Drop::Impersonated, 1)]);
}

#[test]
fn a_frame_in_circles_ends() {
    // 1 believes that 4 is behind 2, 2 behind 3, 3 behind 1: none of them hands it back, all hand it on.
    let ring = &[(1, 2), (2, 3), (3, 1)];
    let mut mesh = Mesh::new(3, ring, &[7]);
    for (host, towards) in [(1, 2), (2, 3), (3, 1)] {
        let next = mesh.host(host).paths[&towards].clone();
        mesh.publish(host, ring, &[7], |fib| {
            fib.next_hops.insert(short(4), next);
        });
    }
    let now = mesh.now;
    mesh.host(1).plane.macs.learn(net(7), mac(4), Place::Peer(short(4)), now);
    mesh.capture(1, PORT, &hello(mac(4), mac(1)));
    // Round it comes to its origin, which knows it; so it never gets further than once around.
    assert_eq!(mesh.carry(), 3);
    assert_eq!(dropped(&mut mesh, 1), [(Drop::Own, 1)]);
    // Not so if the origin is outside of the circle.
    let inner = Inner {
        origin: short(5),
        destination: short(4),
        number: 0,
        network: net(7),
        hops: HOPS_MAX,
        partial: false,
        fragment: None,
    };
    let mut out = Memory::default();
    write(&mesh.host(1).paths[&2], &inner, &hello(mac(4), mac(5)), &mut out);
    mesh.receive(2, address(1), out.datagrams.remove(0).1);
    assert_eq!(mesh.carry(), usize::from(HOPS_MAX));
    let total: u64 = (1..=3).map(|host| mesh.host(host).plane.counters().dropped(Drop::HopLimit)).sum();
    assert_eq!(total, 1);
}

#[test]
fn what_has_no_way_on_or_only_the_way_back_is_counted_where_it_ends() {
    let mut mesh = Mesh::new(3, CHAIN, &[7]);
    mesh.send(3, PORT, &hello(Mac::BROADCAST, mac(3)));
    let frame = hello(mac(3), mac(1));
    mesh.publish(2, CHAIN, &[7], |fib| {
        let back = fib.next_hops[&short(1)].clone();
        fib.next_hops.insert(short(3), back);
    });
    assert_eq!(mesh.send(1, PORT, &frame), []);
    assert_eq!(dropped(&mut mesh, 2), [(Drop::WayBack, 1)]);
    mesh.publish(2, CHAIN, &[7], |fib| drop(fib.next_hops.remove(&short(3))));
    assert_eq!(mesh.send(1, PORT, &frame), []);
    assert_eq!(dropped(&mut mesh, 2), [(Drop::Unreachable, 1), (Drop::WayBack, 1)]);
    mesh.publish(1, CHAIN, &[7], |fib| drop(fib.next_hops.remove(&short(3))));
    assert_eq!(mesh.send(1, PORT, &frame), []);
    assert_eq!(dropped(&mut mesh, 1), [(Drop::Unreachable, 1)]);
}

#[test]
fn from_an_unknown_origin_it_is_delivered_but_not_learned() {
    let mut mesh = Mesh::new(2, &[(1, 2)], &[7]);
    let inner = Inner {
        origin: short(55),
        destination: short(2),
        number: 0,
        network: net(7),
        hops: 9,
        partial: false,
        fragment: None,
    };
    let mut out = Memory::default();
    write(&mesh.host(1).paths[&2], &inner, &hello(mac(2), mac(1)), &mut out);
    mesh.receive(2, address(1), out.datagrams.remove(0).1);
    assert_eq!(mesh.delivered().len(), 1);
    assert_eq!(places(&mut mesh, 2), []);
}

#[test]
fn a_frame_too_big_for_a_path_arrives_whole() {
    for sealed in [true, false] {
        let mut mesh = Mesh::new(3, CHAIN, &[7]);
        for (here, there, mtu) in [(1, 2, 1000), (2, 1, 1000), (2, 3, 300), (3, 2, 548)] {
            mesh.host(here).paths[&there].set_mtu(mtu);
            mesh.host(here).paths[&there].set_sealed(sealed);
        }
        let frame = ethernet(Mac::BROADCAST, mac(1), 0x88b5, &(0..3000).map(|i| i as u8).collect::<Vec<_>>());
        let delivered = mesh.send(1, PORT, &frame);
        assert_eq!(delivered, [(2, PORT, frame.clone()), (3, PORT, frame)]);
        // Unicast through a relay that has to cut the pieces of others.
        let frame = ethernet(mac(3), mac(1), 0x88b5, &[7; 5000]);
        mesh.send(3, PORT, &hello(Mac::BROADCAST, mac(3)));
        assert_eq!(mesh.send(1, PORT, &frame), [(3, PORT, frame)]);
    }
}

#[test]
fn no_datagram_is_larger_than_its_path() {
    let mut mesh = Mesh::new(2, &[(1, 2)], &[7]);
    // 54 bytes of headers and tag leave 8 for a piece.
    for mtu in [62, 63, 100, 577, 1472] {
        mesh.host(1).paths[&2].set_mtu(mtu);
        for len in [0, 1, 7, 8, 500, 1500, 9000, 65_521] {
            mesh.capture(1, PORT, &ethernet(Mac::BROADCAST, mac(1), 0x88b5, &vec![3; len]));
            let sent = mesh.sent(1);
            assert!(
                !sent.is_empty() && sent.iter().all(|(_, datagram)| datagram.len() <= usize::from(mtu)),
                "{mtu} {len}"
            );
        }
    }
    assert_eq!(dropped(&mut mesh, 1), []);
    mesh.host(1).paths[&2].set_mtu(61);
    mesh.capture(1, PORT, &ethernet(Mac::BROADCAST, mac(1), 0x88b5, &[3; 500]));
    assert_eq!(dropped(&mut mesh, 1), [(Drop::NoRoom, 1)]);
}

#[test]
fn a_sender_that_forbids_fragments_is_told_the_mtu() {
    let mut mesh = Mesh::new(2, &[(1, 2)], &[7]);
    mesh.send(2, PORT, &hello(Mac::BROADCAST, mac(2)));
    let packet =
        etherparse::PacketBuilder::ethernet2(mac(1).0, mac(2).0).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 2);
    let mut frame = Vec::new();
    packet.write(&mut frame, &[0; 1480]).unwrap();
    frame[14 + 6] |= 0x40;
    let delivered = mesh.send(1, PORT, &frame);
    let [(1, PORT, reply)] = &delivered[..] else { panic!("{delivered:?}") };
    // 1472 - 16 outer - 8 inner - 16 tag - 14 Ethernet.
    assert_eq!(reply[14 + 20..14 + 20 + 2], [3, 4]);
    assert_eq!(reply[14 + 20 + 6..14 + 20 + 8], 1418u16.to_be_bytes());
    assert_eq!(dropped(&mut mesh, 1), [(Drop::TooBig, 1)]);
    // What it is told fits.
    let mut fits = Vec::new();
    let packet =
        etherparse::PacketBuilder::ethernet2(mac(1).0, mac(2).0).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 2);
    packet.write(&mut fits, &[0; 1418 - 28]).unwrap();
    mesh.capture(1, PORT, &fits);
    assert_eq!(mesh.sent(1).len(), 1);
}

#[test]
fn partial_frames_are_given_up() {
    let mut mesh = Mesh::new(2, &[(1, 2)], &[7]);
    mesh.capture(1, PORT, &ethernet(Mac::BROADCAST, mac(1), 0x88b5, &[3; 2000]));
    let pieces = mesh.sent(1);
    assert_eq!(pieces.len(), 2);
    mesh.receive(2, address(1), pieces[0].1.clone());
    let later = mesh.now + std::time::Duration::from_secs(3);
    mesh.host(2).plane.expire(later);
    assert_eq!(dropped(&mut mesh, 2), [(Drop::FragmentLost, 1)]);
}

#[test]
fn malformed_frames_are_counted_on_both_sides() {
    let mut mesh = Mesh::new(2, &[(1, 2)], &[7]);
    mesh.capture(1, PORT, &[0; 13]);
    mesh.capture(1, PortId(9), &hello(Mac::BROADCAST, mac(1)));
    mesh.capture(1, PORT, &hello(Mac([1, 0x80, 0xc2, 0, 0, 0]), mac(1)));
    assert_eq!(dropped(&mut mesh, 1), [(Drop::Malformed, 1), (Drop::UnknownPort, 1), (Drop::LinkLocal, 1)]);
    let inner = Inner {
        origin: short(1),
        destination: short(2),
        number: 0,
        network: net(7),
        hops: 9,
        partial: false,
        fragment: None,
    };
    for frame in [vec![0; 13], hello(mac(2), Mac::BROADCAST), hello(Mac([1, 0x80, 0xc2, 0, 0, 0]), mac(1))] {
        let mut out = Memory::default();
        write(&mesh.host(1).paths[&2], &inner, &frame, &mut out);
        mesh.receive(2, address(1), out.datagrams.remove(0).1);
    }
    assert_eq!(dropped(&mut mesh, 2), [(Drop::Malformed, 1), (Drop::LinkLocal, 1), (Drop::GroupSource, 1)]);
    assert_eq!(mesh.delivered(), []);
}

#[test]
fn a_batch_counts_when_it_ends_and_uses_one_snapshot() {
    let mut mesh = Mesh::new(2, &[(1, 2)], &[7]);
    let now = mesh.now;
    let here = mesh.host(1);
    let mut batch = here.plane.batch(now);
    here.plane.publish(Fib::empty());
    for _ in 0..3 {
        batch.from_bridge(PORT, &mut hello(Mac::BROADCAST, mac(1)), &Offload::NONE, &mut here.out);
    }
    assert_eq!(here.plane.counters().from_bridge.frames, 0);
    drop(batch);
    let counted = here.plane.counters();
    assert_eq!((counted.from_bridge, counted.to_net.frames), (Count { frames: 3, bytes: 57 }, 3));
}
