//! Captured interfaces as ports of a network: who hears what, what a stranger may say, and what is bounded.

use crate::plane::counters::Drop;
use crate::plane::fib::PortId;
use crate::plane::testing::{Mesh, PORT, ethernet, mac, net, permit};
use crate::plane::uplink::{FLOODS, Uplink};
use crate::plane::{Event, Takes};
use crate::types::{Mac, PeerName, Uid};
use crate::wire::beacon::Beacon;
use crate::wire::virtio::{Offload, Partial};
use std::sync::Arc;
use std::time::Duration;

const EDGES: [(usize, usize); 1] = [(1, 2)];
const LEFT: PortId = PortId(50);
const RIGHT: PortId = PortId(51);

/// Hosts 1 and 2; host 1 has two uplinks that carry, beside its bridge.
fn mesh() -> (Mesh, [Arc<Uplink>; 2]) {
    mesh_with(false)
}

fn mesh_with(bare: bool) -> (Mesh, [Arc<Uplink>; 2]) {
    let mut mesh = Mesh::new(2, &EDGES, &[1]);
    let uplinks = [LEFT, RIGHT].map(|port| Arc::new(Uplink::new(port, net(1), bare)));
    uplinks.iter().for_each(|uplink| uplink.set_carries(true));
    let fill = uplinks.clone();
    mesh.publish(1, &EDGES, &[1], |fib| {
        for uplink in fill {
            fib.ports.insert(uplink.port, net(1));
            fib.networks.get_mut(&net(1)).unwrap().uplinks.push(uplink);
        }
    });
    (mesh, uplinks)
}

fn said(dst: Mac, src: Mac) -> Vec<u8> {
    ethernet(dst, src, 0x88b6, &[7; 50])
}

/// Which port of which host a frame came out of.
fn outs(delivered: &[(usize, PortId, Vec<u8>)]) -> Vec<(usize, u32)> {
    let mut outs: Vec<(usize, u32)> = delivered.iter().map(|(host, port, _)| (*host, port.0)).collect();
    outs.sort_unstable();
    outs
}

fn dropped(mesh: &mut Mesh, host: usize, reason: Drop) -> u64 {
    mesh.host(host).plane.counters().dropped(reason)
}

#[test]
fn floods_go_everywhere_else_and_known_ones_to_one_port() {
    let (mut mesh, [left, right]) = mesh();
    assert_eq!(outs(&mesh.send(1, LEFT, &said(Mac::BROADCAST, mac(1)))), [(1, 1), (1, 51), (2, 1)]);
    assert_eq!(outs(&mesh.send(1, PORT, &said(Mac::BROADCAST, mac(2)))), [(1, 50), (1, 51), (2, 1)]);
    assert_eq!(outs(&mesh.send(2, PORT, &said(Mac::BROADCAST, mac(3)))), [(1, 1), (1, 50), (1, 51)]);
    for (from, port, dst, out) in [
        (1, PORT, mac(1), vec![(1, 50)]),
        (1, RIGHT, mac(1), vec![(1, 50)]),
        (2, PORT, mac(1), vec![(1, 50)]),
        (1, LEFT, mac(2), vec![(1, 1)]),
        (1, LEFT, mac(3), vec![(2, 1)]),
        (1, LEFT, mac(1), vec![]),
    ] {
        assert_eq!(outs(&mesh.send(from, port, &said(dst, mac(9 + port.0 as u8)))), out, "{port:?} {dst}");
    }
    assert_eq!((left.from_uplink().frames, left.to_uplink().frames, right.to_uplink().frames), (4, 5, 3));
}

#[test]
fn one_that_is_cut_off_carries_nothing_in_or_out() {
    let (mut mesh, [left, _]) = mesh();
    mesh.send(1, LEFT, &said(Mac::BROADCAST, mac(1)));
    left.set_carries(false);
    assert_eq!(outs(&mesh.send(1, LEFT, &said(Mac::BROADCAST, mac(1)))), []);
    assert_eq!(dropped(&mut mesh, 1, Drop::UplinkBlocked), 1);
    assert_eq!(outs(&mesh.send(2, PORT, &said(Mac::BROADCAST, mac(3)))), [(1, 1), (1, 51)]);
    assert_eq!(
        outs(&mesh.send(1, RIGHT, &said(mac(1), mac(4)))),
        [(1, 1), (2, 1)],
        "where it was is no place any more"
    );
}

#[test]
fn a_stranger_may_not_speak_as_an_attachment() {
    let (mut mesh, [left, _]) = mesh();
    mesh.publish(1, &EDGES, &[1], |fib| {
        fib.ports.insert(LEFT, net(1));
        let entry = fib.networks.get_mut(&net(1)).unwrap();
        entry.uplinks.push(left);
        entry.permits.insert(mac(5), permit(&["10.0.0.5"]));
    });
    assert_eq!(outs(&mesh.send(1, LEFT, &said(Mac::BROADCAST, mac(5)))), []);
    assert_eq!(dropped(&mut mesh, 1, Drop::UplinkLooped), 1);
    assert!(mesh.host(1).plane.macs(crate::types::Instant::ZERO).is_empty(), "nothing is learned of it");
}

#[test]
fn floods_of_a_segment_are_bounded_and_other_frames_are_not() {
    let (mut mesh, _) = mesh();
    mesh.send(2, PORT, &said(Mac::BROADCAST, mac(3)));
    mesh.now += Duration::from_secs(5);
    let (count, mut heard) = (FLOODS.at_once + 500, 0);
    for _ in 0..count {
        heard +=
            mesh.send(1, LEFT, &said(Mac::BROADCAST, mac(1))).iter().filter(|(host, ..)| *host == 2).count() as u64;
    }
    assert_eq!(heard, FLOODS.at_once);
    assert_eq!(dropped(&mut mesh, 1, Drop::FloodRate), 500);
    assert_eq!(outs(&mesh.send(1, LEFT, &said(mac(3), mac(1)))), [(2, 1)], "known ones pass");
    assert_eq!(mesh.send(1, RIGHT, &said(Mac::BROADCAST, mac(4))).len(), 3, "each segment has its own bound");
    mesh.now += Duration::from_secs(1);
    assert_eq!(mesh.send(1, LEFT, &said(Mac::BROADCAST, mac(1))).len(), 3);
}

#[test]
fn beacons_go_to_control_and_no_further() {
    let (mut mesh, [left, _]) = mesh();
    left.set_carries(false);
    let beacon = Beacon { network: net(1), peer: PeerName(mac(9)), port: 4, run: Uid(1), number: 1 };
    let frame = beacon.emit(|_| [0; 16]);
    let heard = |mesh: &mut Mesh, host: usize| -> Vec<Option<PortId>> {
        let events = std::mem::take(&mut mesh.host(host).out.events);
        let port = |event: Event| match event {
            Event::Beacon { port, network, body, .. } if network == net(1) && body[..] == frame[14..] => port,
            other => panic!("{other:?}"),
        };
        events.into_iter().map(port).collect()
    };
    assert_eq!(outs(&mesh.send(1, LEFT, &frame)), [], "blocked or not");
    assert_eq!(heard(&mut mesh, 1), [Some(LEFT)]);
    // Somebody bridges a segment with an attachment: it goes through the mesh to whoever has an uplink, and to no segment.
    assert_eq!(outs(&mesh.send(2, PORT, &frame)), [(1, 1)]);
    assert_eq!((heard(&mut mesh, 1), heard(&mut mesh, 2)), (vec![None], vec![]));
    for _ in 0..500 {
        mesh.send(1, LEFT, &frame);
    }
    assert!(heard(&mut mesh, 1).len() < 60, "control has other things to do");
    assert!(dropped(&mut mesh, 1, Drop::BeaconRate) > 400);
}

/// TCP over IPv4 without options, to a host of the segment.
fn tcp(dst: Mac, src: Mac, payload: usize) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((40 + payload as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend([0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 255, 255, 0, 0, 0, 0]);
    packet.extend((0..payload).map(|n| n as u8));
    let mut frame = ethernet(dst, src, 0x0800, &packet);
    // Only the sum of the pseudo-header.
    let words = frame[26..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum = words.sum::<u32>() + 6 + (20 + payload as u32);
    frame[50..52].copy_from_slice(&((sum & 0xffff) as u16 + (sum >> 16) as u16).to_be_bytes());
    frame
}

#[test]
fn what_a_capture_does_not_tell_is_found_out() {
    let (mut mesh, _) = mesh_with(true);
    mesh.send(1, RIGHT, &said(Mac::BROADCAST, mac(2)));
    let frame = tcp(mac(2), mac(1), 100);
    mesh.capture_on(1, LEFT, &frame, &Offload::NONE);
    let [(1, RIGHT, got)] = &mesh.delivered()[..] else { panic!() };
    let packet = etherparse::SlicedPacket::from_ethernet(got).unwrap();
    let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Tcp(tcp_got))) =
        (packet.net, packet.transport)
    else {
        panic!()
    };
    let right = tcp_got.to_header().calc_checksum_ipv4(&ip.header().to_header(), tcp_got.payload()).unwrap();
    assert_eq!(tcp_got.checksum(), right, "completed for a port that takes whole frames only");
    // A super-frame: cut as the interface would have.
    mesh.capture_on(1, LEFT, &tcp(mac(2), mac(1), 4000), &Offload::NONE);
    let lengths: Vec<usize> = mesh.delivered().iter().map(|(_, _, frame)| frame.len()).collect();
    assert_eq!(lengths, [1514, 1514, 54 + 4000 - 2 * 1460]);
    mesh.host(1).out.takes = Takes { checksum: true, tcp: true, udp: true };
    mesh.capture_on(1, LEFT, &tcp(mac(2), mac(1), 4000), &Offload::NONE);
    assert_eq!(mesh.delivered().len(), 1, "whole, where the port takes it so");
    let told = mesh.host(1).out.offloads.last().unwrap().gso.unwrap();
    assert_eq!(told.size, 1460);
}

#[test]
fn a_port_gets_nothing_that_it_has_no_room_for() {
    let (mut mesh, [_, right]) = mesh();
    right.set_mtu(1000);
    mesh.send(1, RIGHT, &said(Mac::BROADCAST, mac(2)));
    mesh.send(1, LEFT, &said(Mac::BROADCAST, mac(1)));
    let partial = Offload { checksum: Some(Partial { start: 34, offset: 16 }), gso: None };
    mesh.capture_on(1, LEFT, &tcp(mac(2), mac(1), 1200), &partial);
    let back = mesh.delivered();
    assert_eq!(outs(&back), [(1, 50)], "its sender is told by ICMP");
    assert_eq!(dropped(&mut mesh, 1, Drop::TooBig), 1);
    assert_eq!(back[0].2[..6], mac(1).0);
    let long = ethernet(mac(2), mac(1), 0x88b6, &[0; 1200]);
    assert_eq!(outs(&mesh.send(1, LEFT, &long)), []);
    assert_eq!(outs(&mesh.send(2, PORT, &ethernet(mac(2), mac(3), 0x88b6, &[0; 1200]))), []);
    assert_eq!(dropped(&mut mesh, 1, Drop::PortTooBig), 2);
}
