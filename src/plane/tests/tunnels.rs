//! VTEPs as ports of a network: frames between attachments here, peers and VTEPs, and what VTEPs may not do.

use super::*;
use crate::wire::virtio::{GsoKind, Partial};
use crate::wire::vxlan::{self, VXLAN_LEN};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

const EDGE: &[(usize, usize)] = &[(1, 2)];

/// Joins VTEPs to network 7 of `host`.
fn join(mesh: &mut Mesh, host: usize, edges: &[(usize, usize)], vteps: &[u8], change: impl FnOnce(&mut Fib)) {
    mesh.publish(host, edges, &[7], |fib| {
        for n in vteps {
            let tunnel = Arc::new(tunnel(*n, 7));
            fib.tunnels.insert(tunnel.clone());
            fib.networks.get_mut(&net(7)).unwrap().tunnels.push(tunnel);
        }
        change(fib);
    });
}

/// Hosts 1 and 2; VTEPs 5 and 6 at host 1.
fn mesh() -> Mesh {
    let mut mesh = Mesh::new(2, EDGE, &[7]);
    join(&mut mesh, 1, EDGE, &[5, 6], |_| {});
    mesh
}

fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    let mut header = [0; VXLAN_LEN];
    vxlan::emit(net(vni), &mut header);
    [&header, frame].concat()
}

/// Datagrams of VTEP `n` come to `host` in one batch. What it sends from is not the port that it listens on.
fn come(mesh: &mut Mesh, host: usize, n: u8, datagrams: &mut [Vec<u8>]) {
    let from = SocketAddr::new(vtep(n).ip(), 50_000);
    let now = mesh.now;
    let here = mesh.host(host);
    let datagrams = datagrams.iter_mut().map(|datagram| (from, datagram.as_mut_slice()));
    here.plane.batch(now).from_vteps(DOOR, datagrams, &mut here.out);
}

/// A frame of VTEP `n` comes to `host`.
fn speak(mesh: &mut Mesh, host: usize, n: u8, frame: &[u8]) {
    come(mesh, host, n, &mut [vxlan(40 + u32::from(n), frame)]);
}

/// What went to which VTEP of `host`.
fn tunnelled(mesh: &mut Mesh, host: usize) -> Vec<(u8, Vec<u8>)> {
    let sent = std::mem::take(&mut mesh.host(host).out.tunnelled);
    let of = |(door, to, datagram): (u16, SocketAddr, Vec<u8>)| {
        let n = (0..=u8::MAX).find(|n| vtep(*n) == to).unwrap();
        let (vni, frame) = vxlan::parse(&datagram).unwrap();
        assert_eq!((door, vni), (DOOR, net(40 + u32::from(n))));
        (n, frame.to_vec())
    };
    sent.into_iter().map(of).collect()
}

#[test]
fn a_broadcast_reaches_every_port_and_peer_once_and_the_answer_only_who_asked() {
    let mut mesh = mesh();
    // From the bridge here.
    let question = hello(Mac::BROADCAST, mac(1));
    assert_eq!(mesh.send(1, PORT, &question), [(2, PORT, question.clone())]);
    assert_eq!(tunnelled(&mut mesh, 1), [(5, question.clone()), (6, question)]);
    // From a peer.
    let question = hello(Mac::BROADCAST, mac(2));
    assert_eq!(mesh.send(2, PORT, &question), [(1, PORT, question.clone())]);
    assert_eq!(tunnelled(&mut mesh, 1), [(5, question.clone()), (6, question)]);
    // From a VTEP: not to the other one.
    let question = hello(Mac::BROADCAST, mac(50));
    speak(&mut mesh, 1, 5, &question);
    mesh.carry();
    assert_eq!(mesh.delivered(), [(1, PORT, question.clone()), (2, PORT, question)]);
    assert_eq!(tunnelled(&mut mesh, 1), []);
    // Everybody is known now: unicast goes one way.
    for (host, from) in [(1, 1), (2, 2)] {
        assert_eq!(mesh.send(host, PORT, &hello(mac(50), mac(from))), []);
        assert_eq!(tunnelled(&mut mesh, 1), [(5, hello(mac(50), mac(from)))]);
        speak(&mut mesh, 1, 5, &hello(mac(from), mac(50)));
        mesh.carry();
        assert_eq!(mesh.delivered(), [(host, PORT, hello(mac(from), mac(50)))]);
        assert_eq!(tunnelled(&mut mesh, 1), []);
    }
    assert_eq!(dropped(&mut mesh, 1), []);
    assert_eq!(dropped(&mut mesh, 2), []);
    assert_eq!(places(&mut mesh, 1)[2], (mac(50), Place::Port(PortId(105))));
    assert_eq!(places(&mut mesh, 2)[2], (mac(50), Place::Peer(short(1))));
}

#[test]
fn vteps_do_not_reach_each_other_through_us() {
    let mut mesh = mesh();
    speak(&mut mesh, 1, 5, &hello(Mac::BROADCAST, mac(50)));
    speak(&mut mesh, 1, 6, &hello(mac(50), mac(60)));
    assert_eq!(dropped(&mut mesh, 1), [(Drop::SplitHorizon, 1)]);
    assert_eq!(tunnelled(&mut mesh, 1), []);
    // To itself: its own bridge's affair.
    speak(&mut mesh, 1, 5, &hello(mac(50), mac(51)));
    assert_eq!(dropped(&mut mesh, 1), [(Drop::Local, 1), (Drop::SplitHorizon, 1)]);
}

#[test]
fn what_is_known_elsewhere_is_not_told_to_vteps() {
    let edges = &[(1, 2), (1, 3), (2, 3)];
    let mut mesh = Mesh::new(3, edges, &[7]);
    join(&mut mesh, 1, edges, &[5], |_| {});
    mesh.send(3, PORT, &hello(Mac::BROADCAST, mac(3)));
    mesh.send(1, PORT, &hello(Mac::BROADCAST, mac(1)));
    tunnelled(&mut mesh, 1);
    // Host 2 has forgotten both, so it floods.
    mesh.host(2).plane.forget_network(net(7));
    for known in [mac(3), mac(1)] {
        mesh.send(2, PORT, &hello(known, mac(2)));
        assert_eq!(tunnelled(&mut mesh, 1), []);
        mesh.host(2).plane.forget_network(net(7));
    }
}

#[test]
fn a_port_that_is_closed_is_forgotten() {
    let mut mesh = mesh();
    speak(&mut mesh, 1, 5, &hello(Mac::BROADCAST, mac(50)));
    mesh.carry();
    mesh.delivered();
    join(&mut mesh, 1, EDGE, &[6], |_| {});
    mesh.host(1).plane.forget_port(PortId(105));
    mesh.send(1, PORT, &hello(mac(50), mac(1)));
    assert_eq!(tunnelled(&mut mesh, 1), [(6, hello(mac(50), mac(1)))]);
    // Even if it were not forgotten, it would be flooded.
    mesh.host(1).plane.macs.learn(net(7), mac(50), Place::Port(PortId(105)), Instant::ZERO);
    mesh.send(1, PORT, &hello(mac(50), mac(1)));
    assert_eq!(tunnelled(&mut mesh, 1).len(), 1);
}

#[test]
fn what_is_not_a_datagram_of_a_vtep_changes_nothing_but_a_counter() {
    let mut mesh = mesh();
    let good = vxlan(45, &hello(Mac::BROADCAST, mac(50)));
    let with = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        bad
    };
    let group = vxlan(45, &hello(Mac::BROADCAST, Mac([3, 0, 0, 0, 0, 1])));
    let cases = [
        (7, good.clone(), Drop::VtepUnknown),
        (7, vec![], Drop::VtepUnknown),
        (5, vec![], Drop::VtepTruncated),
        (5, good[..7].to_vec(), Drop::VtepTruncated),
        (5, good[..8].to_vec(), Drop::VtepTruncated),
        (5, good[..21].to_vec(), Drop::VtepTruncated),
        (5, with(0, 0), Drop::VtepNoVni),
        (5, with(0, 0xf7), Drop::VtepNoVni),
        (5, vxlan(45, b"")[..8].iter().map(|b| if *b == 45 { 0 } else { *b }).collect(), Drop::VtepNoVni),
        (5, with(6, 46), Drop::VtepVni),
        (6, good.clone(), Drop::VtepVni),
        (5, with(4, 1), Drop::VtepVni),
        (5, group, Drop::GroupSource),
        (5, vxlan(45, &hello(Mac([1, 0x80, 0xc2, 0, 0, 2]), mac(50))), Drop::LinkLocal),
    ];
    for (n, bad, reason) in cases {
        mesh.host(1).plane.forget_network(net(7));
        let before = mesh.host(1).plane.counters().dropped(reason);
        come(&mut mesh, 1, n, &mut [bad.clone()]);
        assert_eq!(mesh.host(1).plane.counters().dropped(reason), before + 1, "{reason:?}: {bad:02x?}");
        assert_eq!(mesh.carry() + mesh.delivered().len() + tunnelled(&mut mesh, 1).len(), 0, "{reason:?}");
    }
    // By another door it is another VTEP's.
    let here = mesh.host(1);
    let mut datagram = good.clone();
    here.plane.batch(Instant::ZERO).from_vteps(
        DOOR + 1,
        [(vtep(5), datagram.as_mut_slice())].into_iter(),
        &mut here.out,
    );
    assert_eq!(here.plane.counters().dropped(Drop::VtepUnknown), 3);
    // Reserved bits are not looked at.
    let mut extended = good;
    (extended[0], extended[1], extended[2], extended[3], extended[7]) = (0xff, 0xff, 0xff, 0xff, 0xff);
    come(&mut mesh, 1, 5, &mut [extended]);
    assert_eq!(mesh.delivered().len(), 1);
}

#[test]
fn a_vtep_may_not_speak_for_an_attachment_of_the_mesh() {
    let mut mesh = Mesh::new(2, EDGE, &[7]);
    let here = |network, address: [u8; 4], n, place| neighbours::Known {
        network,
        address: address.into(),
        mac: mac(n),
        place,
    };
    join(&mut mesh, 1, EDGE, &[5], |fib| {
        let entry = fib.networks.get_mut(&net(7)).unwrap();
        entry.permits.insert(mac(1), permit(&["10.0.0.1"]));
        let known = [(1, Place::Port(PORT)), (2, Place::Peer(short(2)))];
        fib.neighbours = Arc::new(known.map(|(n, place)| here(net(7), [10, 0, 0, n], n, place)).into_iter().collect());
    });
    let arp = |sender: u8, ip: [u8; 4]| {
        let fixed = [0, 1, 8, 0, 6, 4, 0, 2];
        let payload = [&fixed[..], &mac(sender).0, &ip, &[0; 6], &[10, 0, 0, 9]].concat();
        ethernet(Mac::BROADCAST, mac(sender), 0x0806, &payload)
    };
    let facts = [
        ("what an attachment here said, back again", hello(Mac::BROADCAST, mac(1)), Some(Drop::VtepLooped)),
        ("what an attachment elsewhere said", hello(Mac::BROADCAST, mac(2)), Some(Drop::VtepLooped)),
        ("an attachment's address here", arp(50, [10, 0, 0, 1]), Some(Drop::GuardAddress)),
        ("an attachment's address elsewhere", arp(50, [10, 0, 0, 2]), Some(Drop::GuardAddress)),
        ("its own address", arp(50, [10, 0, 0, 50]), None),
        ("an address probe", arp(50, [0, 0, 0, 0]), None),
    ];
    for (fact, frame, reason) in facts {
        speak(&mut mesh, 1, 5, &frame);
        mesh.carry();
        assert_eq!(mesh.delivered().len(), if reason.is_some() { 0 } else { 2 }, "{fact}");
        let drops = dropped(&mut mesh, 1);
        assert!(reason.is_none_or(|reason| drops.iter().any(|(why, _)| *why == reason)), "{fact}: {drops:?}");
    }
    assert_eq!(dropped(&mut mesh, 1), [(Drop::GuardAddress, 2), (Drop::VtepLooped, 2)]);
    assert!(places(&mut mesh, 1).iter().all(|(_, place)| *place == Place::Port(PortId(105))), "nothing was taken over");
}

#[test]
fn a_vtep_that_asks_for_an_attachment_elsewhere_is_answered_here() {
    let mut mesh = Mesh::new(2, EDGE, &[7]);
    join(&mut mesh, 1, EDGE, &[5], |fib| {
        let (network, address, place) = (net(7), [10, 0, 0, 2].into(), Place::Peer(short(2)));
        fib.neighbours = Arc::new([neighbours::Known { network, address, mac: mac(2), place }].into_iter().collect());
    });
    let payload = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac(50).0, &[10, 0, 0, 50], &[0; 6], &[10, 0, 0, 2]].concat();
    speak(&mut mesh, 1, 5, &ethernet(Mac::BROADCAST, mac(50), 0x0806, &payload));
    let answers = tunnelled(&mut mesh, 1);
    assert_eq!(answers.len(), 1);
    assert_eq!((&answers[0].1[..6], &answers[0].1[22..32]), (&mac(50).0[..], &[2, 0, 0, 0, 0, 2, 10, 0, 0, 2][..]));
    assert_eq!(mesh.carry(), 0);
    assert_eq!(dropped(&mut mesh, 1), [(Drop::Suppressed, 1)]);
}

/// TCP from `mac(from)` to `mac(to)`: one super-frame as a kernel hands it over, cut into `size` bytes of payload.
fn super_frame(from: u8, to: u8, len: usize, size: u16) -> (Vec<u8>, Offload) {
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(mac(from).0, mac(to).0).ipv4([10, 0, 0, from], [10, 0, 0, to], 64);
    let body: Vec<u8> = (0..len).map(|i| (i * 7 + i / 256) as u8).collect();
    packet.tcp(1000, 2000, 77, 4096).ack(5).write(&mut frame, &body).unwrap();
    let checksum = Some(Partial { start: 34, offset: 16 });
    (frame, Offload { checksum, gso: Some(Gso { kind: GsoKind::Tcp4, ecn: false, size, headers: 54 }) })
}

/// Whether the TCP checksum of a frame is complete and right.
fn is_right(frame: &[u8]) -> bool {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (Some(etherparse::NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (packet.net, packet.transport) else {
        return false;
    };
    let (ip, header) = (ip.header().to_header(), tcp.to_header());
    header.checksum == header.calc_checksum_ipv4_raw(ip.source, ip.destination, tcp.payload()).unwrap()
}

#[test]
fn super_frames_leave_as_complete_frames_that_fit_and_come_back_as_super_frames() {
    let mut mesh = mesh();
    mesh.host(1).out.takes = Takes { checksum: true, tcp: true, udp: true };
    speak(&mut mesh, 1, 5, &hello(Mac::BROADCAST, mac(50)));
    mesh.send(1, PORT, &hello(Mac::BROADCAST, mac(1)));
    mesh.host(1).out.frames.clear();
    mesh.host(1).out.offloads.clear();
    tunnelled(&mut mesh, 1);
    // Cut for attachments of a larger MTU than the way to the VTEP: smaller is as good for TCP.
    for size in [1300, 1448] {
        let (frame, offload) = super_frame(1, 50, 30_000, size);
        mesh.capture_offloaded(1, &frame, &offload);
        let sent = tunnelled(&mut mesh, 1);
        let longest = sent.iter().map(|(_, frame)| frame.len()).max().unwrap();
        assert_eq!(longest, (usize::from(size) + 54).min(1464));
        assert!(sent.iter().all(|(n, frame)| *n == 5 && is_right(frame)));
        let bytes: Vec<u8> = sent.iter().flat_map(|(_, frame)| frame[54..].to_vec()).collect();
        assert_eq!(bytes, frame[54..]);
    }
    // The other way: whole frames of a VTEP, verified, as one.
    let (frame, offload) = super_frame(50, 1, 30_000, 1300);
    let segments = Segments::new(&frame, &offload.gso.unwrap()).unwrap();
    let mut datagrams: Vec<Vec<u8>> = (0..segments.count())
        .map(|n| {
            let mut segment = vec![0; segments.len_of(n)];
            segments.write(n, &mut segment);
            offload::checksum::complete(&mut segment, segments.partial()).unwrap();
            vxlan(45, &segment)
        })
        .collect();
    let mut damaged = datagrams.clone();
    come(&mut mesh, 1, 5, &mut datagrams);
    let delivered = mesh.delivered();
    assert_eq!(delivered.len(), 1);
    assert!(delivered[0].2[54..] == frame[54..] && mesh.host(1).out.offloads[0].gso.is_some());
    // What is damaged is not covered up.
    damaged[3][100] ^= 1;
    come(&mut mesh, 1, 5, &mut damaged);
    assert!(mesh.delivered().iter().any(|(_, _, frame)| frame.len() == 1354 && !is_right(frame)));
    let tunnel = mesh.host(1).plane.fib().tunnels.get(PortId(105)).cloned().unwrap();
    assert_eq!(tunnel.from_vtep().frames, 1 + 2 * datagrams.len() as u64);
    assert!(tunnel.to_vtep().bytes > 60_000 && tunnel.silent_for(Instant::ZERO) == Some(Duration::ZERO));
}

#[test]
fn unfinished_checksums_are_completed_for_a_vtep_wherever_they_come_from() {
    let mut mesh = mesh();
    speak(&mut mesh, 1, 5, &hello(Mac::BROADCAST, mac(50)));
    mesh.carry();
    let (whole, offload) = super_frame(1, 50, 1000, 1300);
    let mut frame = whole.clone();
    Segments::new(&whole, &offload.gso.unwrap()).unwrap().write(0, &mut frame);
    assert!(!is_right(&frame));
    mesh.capture_offloaded(1, &frame, &Offload { gso: None, ..offload });
    frame[11] = 2;
    mesh.capture_offloaded(2, &frame, &Offload { gso: None, ..offload });
    let broadcast = [&[0xff; 6], &frame[6..]].concat();
    mesh.capture_offloaded(2, &broadcast, &Offload { gso: None, ..offload });
    mesh.delivered();
    mesh.carry();
    let sent = tunnelled(&mut mesh, 1);
    assert_eq!(sent.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [5, 5, 5, 6]);
    assert!(sent.iter().all(|(_, frame)| is_right(frame)));
    assert!(mesh.delivered().iter().all(|(host, _, frame)| *host == 1 && is_right(frame)));
}

#[test]
fn a_connection_to_or_from_a_vtep_agrees_on_segments_that_fit() {
    let mut mesh = mesh();
    speak(&mut mesh, 1, 5, &hello(Mac::BROADCAST, mac(50)));
    mesh.send(1, PORT, &hello(Mac::BROADCAST, mac(1)));
    mesh.delivered();
    tunnelled(&mut mesh, 1);
    mesh.host(1).plane.fib().tunnels.get(PortId(105)).unwrap().set_mtu(1400);
    let syn = |from: u8, to: u8| {
        let mut frame = Vec::new();
        let packet = PacketBuilder::ethernet2(mac(from).0, mac(to).0).ipv4([10, 0, 0, from], [10, 0, 0, to], 64);
        let options = [etherparse::TcpOptionElement::MaximumSegmentSize(1460)];
        packet.tcp(1, 2, 3, 4).syn().options(&options).unwrap().write(&mut frame, &[]).unwrap();
        frame
    };
    let agreed = |frame: &[u8]| (u16::from_be_bytes([frame[56], frame[57]]), is_right(frame));
    mesh.capture(1, PORT, &syn(1, 50));
    assert_eq!(agreed(&tunnelled(&mut mesh, 1)[0].1), (1350 - 40, true));
    for frame in [syn(50, 1), unfinished(&syn(50, 1))] {
        speak(&mut mesh, 1, 5, &frame);
        assert_eq!(agreed(&mesh.delivered()[0].2), (1350 - 40, true));
    }
}

/// As a kernel leaves it that computes no checksums.
fn unfinished(frame: &[u8]) -> Vec<u8> {
    let (layout, mut frame) = (offload::Layout::of(frame).unwrap(), frame.to_vec());
    let sum = offload::checksum::pseudo(&frame, &layout) + u32::try_from(layout.end - layout.transport).unwrap();
    frame[50..52].copy_from_slice(&offload::checksum::fold(sum).to_be_bytes());
    frame
}

#[test]
fn what_the_kernel_of_a_vtep_left_undone_is_done_where_it_has_to_be() {
    let mut mesh = Mesh::new(2, EDGE, &[7]);
    join(&mut mesh, 1, EDGE, &[5], |fib| fib.networks.get_mut(&net(7)).unwrap().mtu = Some(1400));
    mesh.send(1, PORT, &hello(Mac::BROADCAST, mac(1)));
    mesh.send(2, PORT, &hello(Mac::BROADCAST, mac(2)));
    let long = |to: u8| super_frame(50, to, 30_000, 1).0;
    let bodies = |frames: &[(usize, PortId, Vec<u8>)]| -> Vec<u8> {
        frames.iter().flat_map(|(_, _, frame)| frame[54..].to_vec()).collect()
    };
    for takes in [Takes { checksum: true, tcp: true, udp: true }, Takes::default()] {
        mesh.host(1).out.takes = takes;
        // A super-frame for the bridge here.
        mesh.host(1).out.offloads.clear();
        speak(&mut mesh, 1, 5, &unfinished(&long(1)));
        let delivered = mesh.delivered();
        assert!(bodies(&delivered) == long(1)[54..]);
        if takes.tcp {
            let offload = mesh.host(1).out.offloads[0];
            assert_eq!((delivered.len(), offload.gso.map(|gso| gso.size)), (1, Some(1360)));
        } else {
            assert!(delivered.iter().all(|(_, _, frame)| frame.len() <= 1414 && is_right(frame)));
        }
        // A single frame.
        mesh.host(1).out.offloads.clear();
        let (frame, _) = super_frame(50, 1, 900, 1);
        speak(&mut mesh, 1, 5, &unfinished(&frame));
        let (delivered, left) = (mesh.delivered().remove(0).2, mesh.host(1).out.offloads[0].checksum.is_some());
        assert_eq!((is_right(&delivered), left), (!takes.checksum, takes.checksum));
        // For a peer, and for everybody.
        speak(&mut mesh, 1, 5, &unfinished(&long(2)));
        mesh.carry();
        let delivered = mesh.delivered();
        assert!(delivered.iter().all(|(host, _, frame)| *host == 2 && is_right(frame)));
        assert!(bodies(&delivered) == long(2)[54..]);
        speak(&mut mesh, 1, 5, &unfinished(&long(99)));
        mesh.carry();
        let delivered = mesh.delivered();
        for host in [1, 2] {
            let here: Vec<_> = delivered.iter().filter(|delivered| delivered.0 == host).cloned().collect();
            assert!(bodies(&here) == long(99)[54..]);
        }
    }
    // With a checksum that is complete it is no super-frame, but too big.
    speak(&mut mesh, 1, 5, &long(1));
    assert_eq!(mesh.delivered().len(), 0);
    assert_eq!(dropped(&mut mesh, 1), [(Drop::TooBig, 1)]);
}

/// UDP of `len` bytes of packet.
fn packet(from: u8, to: u8, len: usize, df: bool) -> Vec<u8> {
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(mac(from).0, mac(to).0).ipv4([10, 0, 0, from], [10, 0, 0, to], 64);
    packet.udp(1, 2).write(&mut frame, &vec![7; len - 28]).unwrap();
    frame[14 + 6] = if df { 0x40 } else { 0 };
    frame
}

/// The MTU that an ICMP message tells, if the frame is one.
fn told(frame: &[u8]) -> Option<u16> {
    let is_too_big = frame.get(23) == Some(&1) && frame.get(34..36) == Some(&[3, 4]);
    is_too_big.then(|| u16::from_be_bytes([frame[40], frame[41]]))
}

#[test]
fn what_does_not_fit_is_told_to_its_sender_or_counted_and_never_cut() {
    let mut mesh = Mesh::new(2, EDGE, &[7]);
    join(&mut mesh, 1, EDGE, &[5], |fib| fib.networks.get_mut(&net(7)).unwrap().mtu = Some(1400));
    speak(&mut mesh, 1, 5, &hello(Mac::BROADCAST, mac(50)));
    mesh.send(1, PORT, &hello(Mac::BROADCAST, mac(1)));
    mesh.send(2, PORT, &hello(Mac::BROADCAST, mac(2)));
    tunnelled(&mut mesh, 1);
    for (here, there) in [(1, 2), (2, 1)] {
        mesh.host(here).paths[&there].set_mtu(9000);
    }
    // The largest that fits does.
    mesh.capture(1, PORT, &packet(1, 50, 1450, true));
    assert_eq!(tunnelled(&mut mesh, 1).len(), 1);
    // From here, and from a peer.
    for (host, from) in [(1, 1), (2, 2)] {
        for df in [true, false] {
            let answers = mesh.send(host, PORT, &packet(from, 50, 1451, df));
            assert_eq!(tunnelled(&mut mesh, 1), []);
            let answers: Vec<_> = answers.iter().map(|(at, _, frame)| (*at, told(frame))).collect();
            assert_eq!(answers, if df { vec![(host, Some(1450))] } else { vec![] });
        }
    }
    assert_eq!(dropped(&mut mesh, 1), [(Drop::TooBig, 2), (Drop::VtepTooBig, 2)]);
    // From the VTEP, for here and for a peer: more than attachments take.
    for to in [1, 2] {
        speak(&mut mesh, 1, 5, &packet(50, to, 1400, true));
        mesh.carry();
        assert_eq!(mesh.delivered().len(), 1);
        for df in [true, false] {
            speak(&mut mesh, 1, 5, &packet(50, to, 1401, df));
            assert_eq!(mesh.carry() + mesh.delivered().len(), 0);
            let answers: Vec<_> = tunnelled(&mut mesh, 1).iter().map(|(n, frame)| (*n, told(frame))).collect();
            assert_eq!(answers, if df { vec![(5, Some(1400))] } else { vec![] });
        }
    }
    assert_eq!(dropped(&mut mesh, 1), [(Drop::TooBig, 4), (Drop::VtepTooBig, 4)]);
    // A narrower route, found meanwhile.
    mesh.host(1).plane.fib().tunnels.get(PortId(105)).unwrap().set_mtu(1000);
    let answers = mesh.send(1, PORT, &packet(1, 50, 1400, true));
    assert_eq!(told(&answers[0].2), Some(950));
    // UDP super-frames have bounds of their own.
    let frame = packet(1, 50, 3028, true);
    let gso = Some(Gso { kind: GsoKind::Udp, ecn: false, size: 1000, headers: 42 });
    mesh.capture_offloaded(1, &frame, &Offload { checksum: Some(Partial { start: 34, offset: 6 }), gso });
    assert_eq!((tunnelled(&mut mesh, 1).len(), told(&mesh.delivered()[0].2)), (0, Some(950)));
}

#[test]
fn a_frame_of_a_vtep_that_does_not_fit_a_path_arrives_in_pieces_or_is_told() {
    let mut mesh = mesh();
    mesh.send(2, PORT, &hello(Mac::BROADCAST, mac(2)));
    mesh.host(1).paths[&2].set_mtu(700);
    speak(&mut mesh, 1, 5, &packet(50, 2, 1400, false));
    assert!(mesh.carry() > 1);
    assert_eq!(
        mesh.delivered(),
        [(1, PORT, hello(Mac::BROADCAST, mac(2))), (2, PORT, packet(50, 2, 1400, false))][1..]
    );
    tunnelled(&mut mesh, 1);
    speak(&mut mesh, 1, 5, &packet(50, 2, 1400, true));
    assert!(tunnelled(&mut mesh, 1).iter().all(|(n, frame)| *n == 5 && told(frame).is_some()));
    assert_eq!(dropped(&mut mesh, 1), [(Drop::TooBig, 1)]);
}

#[test]
fn a_frame_of_our_own_goes_to_a_vtep_too() {
    let mut mesh = mesh();
    let here = mesh.host(1);
    here.plane.batch(Instant::ZERO).deliver_to(PortId(106), &hello(Mac::BROADCAST, mac(9)), &mut here.out);
    here.plane.batch(Instant::ZERO).deliver_to(PORT, &hello(Mac::BROADCAST, mac(9)), &mut here.out);
    assert_eq!(tunnelled(&mut mesh, 1), [(6, hello(Mac::BROADCAST, mac(9)))]);
    assert_eq!(mesh.delivered(), [(1, PORT, hello(Mac::BROADCAST, mac(9)))]);
}

proptest! {
    /// Any tree of hosts, any VTEPs at them: a broadcast comes out once at every bridge but its own, and once at every VTEP unless
    /// it came from one at the same host; a unicast to whoever was heard comes out once, there, and nowhere else.
    #[test]
    fn everybody_hears_a_broadcast_once_and_an_answer_goes_to_one(
        parents in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        vteps in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        (asks, answers) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let hosts = parents.len() + 1;
        let edges: Vec<_> = parents.iter().zip(2..).map(|(at, child)| (at.index(child - 1) + 1, child)).collect();
        let mut mesh = Mesh::new(hosts, &edges, &[7]);
        let at: Vec<(usize, u8)> = vteps.iter().zip(50..).map(|(host, n)| (host.index(hosts) + 1, n)).collect();
        for host in 1..=hosts {
            let here: Vec<u8> = at.iter().filter(|(there, _)| *there == host).map(|(_, n)| *n).collect();
            join(&mut mesh, host, &edges, &here, |_| {});
        }
        // Places: the bridges of all hosts, then VTEPs. Whoever is there has a MAC of that number.
        let places: Vec<(usize, Option<u8>)> =
            (1..=hosts).map(|host| (host, None)).chain(at.iter().map(|(host, n)| (*host, Some(*n)))).collect();
        let who = |place: &(usize, Option<u8>)| mac(place.1.unwrap_or(place.0 as u8));
        let send = |mesh: &mut Mesh, place: &(usize, Option<u8>), frame: &[u8]| {
            match place.1 {
                None => mesh.capture(place.0, PORT, frame),
                Some(n) => speak(mesh, place.0, n, frame),
            }
            mesh.carry();
            let mut heard: Vec<(usize, Option<u8>)> = mesh.delivered().iter().map(|(host, ..)| (*host, None)).collect();
            for host in 1..=hosts {
                heard.extend(tunnelled(mesh, host).iter().map(|(n, _)| (host, Some(*n))));
            }
            heard.sort_unstable();
            heard
        };
        let (asker, answerer) = (places[asks.index(places.len())], places[answers.index(places.len())]);
        let reached = |from: &(usize, Option<u8>)| {
            let apart = |to: &&(usize, Option<u8>)| {
                *to != from && !(from.1.is_some() && to.1.is_some() && from.0 == to.0)
            };
            let mut reached: Vec<_> = places.iter().filter(apart).copied().collect();
            reached.sort_unstable();
            reached
        };
        prop_assert_eq!(send(&mut mesh, &asker, &hello(Mac::BROADCAST, who(&asker))), reached(&asker));
        let heard = send(&mut mesh, &answerer, &hello(who(&asker), who(&answerer)));
        prop_assert_eq!(heard, if reached(&answerer).contains(&asker) { vec![asker] } else { vec![] });
    }
}

#[test]
fn a_vtep_that_another_host_carries_is_given_nothing_and_brings_nothing() {
    let mut mesh = mesh();
    let set =
        |mesh: &mut Mesh, carries| mesh.host(1).plane.fib().tunnels.get(PortId(105)).unwrap().set_carries(carries);
    set(&mut mesh, false);
    let question = hello(Mac::BROADCAST, mac(1));
    mesh.send(1, PORT, &question);
    assert_eq!(tunnelled(&mut mesh, 1), [(6, question)]);
    speak(&mut mesh, 1, 5, &hello(Mac::BROADCAST, mac(50)));
    assert_eq!(mesh.carry() + mesh.delivered().len(), 0);
    assert_eq!(mesh.host(1).plane.counters().dropped(Drop::VtepBlocked), 1);
    set(&mut mesh, true);
    speak(&mut mesh, 1, 5, &hello(Mac::BROADCAST, mac(50)));
    assert!(mesh.carry() > 0 && !mesh.delivered().is_empty());
}
