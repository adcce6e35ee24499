//! VXLAN between peers: what it carries and what it does not, what it writes, and what it takes.

use super::*;
use crate::plane::offload::{Layout, checksum};
use crate::plane::vxlan::{Carrier, End};
use crate::types::VNI_OF_PEERS;
use crate::wire::beat;
use crate::wire::virtio::{GsoKind, Partial};
use crate::wire::vxlan::{self, VXLAN_LEN};
use etherparse::PacketBuilder;
use proptest::prelude::*;

const EDGE: &[(usize, usize)] = &[(1, 2)];
const CHAIN: &[(usize, usize)] = &[(1, 2), (2, 3)];
const VXLAN: u16 = 6784;
const ROOM: usize = 1472 - VXLAN_LEN;
const ALL: Takes = Takes { checksum: true, tcp: true, udp: true };
const TCP_HEADERS: usize = 14 + 20 + 20;

fn end(host: usize, room: usize) -> Carrier {
    Carrier::Vxlan(End { door: VXLAN, to: SocketAddr::new(address(host).ip(), VXLAN), room, unfinished: false })
}

/// From now on `from` leaves checksums unfinished for `to`.
fn leave_unfinished(mesh: &mut Mesh, from: usize, to: usize) {
    let Carrier::Vxlan(end) = end(to, ROOM) else { return };
    mesh.host(from).paths[&to].set_carrier(Carrier::Vxlan(End { unfinished: true, ..end }));
}

/// Hosts joined by `edges`, in clear, of which all speak VXLAN; by it frames go on these paths, from and to.
fn mesh(count: usize, edges: &[(usize, usize)], faster: &[(usize, usize)]) -> Mesh {
    let mut mesh = Mesh::new(count, edges, &[7]);
    for host in 1..=count {
        for (there, path) in mesh.host(host).paths.clone() {
            path.set_sealed(false);
            if faster.contains(&(host, there)) {
                path.set_carrier(end(there, ROOM));
            }
        }
        speak(&mut mesh, host, edges, |_| {});
    }
    mesh
}

/// `host` takes VXLAN of its neighbours.
fn speak(mesh: &mut Mesh, host: usize, edges: &[(usize, usize)], change: impl FnOnce(&mut Fib)) {
    let paths = mesh.host(host).paths.clone();
    mesh.publish(host, edges, &[7], |fib| {
        fib.vxlan_door = Some(VXLAN);
        fib.vxlan_sources.extend(paths.into_iter().map(|(there, path)| (address(there).ip(), path)));
        change(fib);
    });
}

fn arrive(mesh: &mut Mesh, host: usize, from: SocketAddr, datagrams: &mut [Vec<u8>]) {
    let now = mesh.now;
    let here = mesh.host(host);
    let datagrams = datagrams.iter_mut().map(|datagram| (from, datagram.as_mut_slice()));
    here.plane.batch(now).from_vteps(VXLAN, datagrams, &mut here.out);
}

/// Carries datagrams of both framings until there are none; how many there were of each.
fn carry(mesh: &mut Mesh) -> (usize, usize) {
    let (mut udp, mut by_vxlan) = (0, 0);
    loop {
        udp += mesh.carry();
        let mut moved = 0;
        for host in 1..=mesh.hosts.len() {
            for (door, to, datagram) in std::mem::take(&mut mesh.host(host).out.tunnelled) {
                assert_eq!((door, to.port()), (VXLAN, VXLAN));
                let there = (1..=mesh.hosts.len()).find(|there| address(*there).ip() == to.ip()).unwrap();
                arrive(mesh, there, SocketAddr::new(address(host).ip(), 40_000), &mut [datagram]);
                moved += 1;
            }
        }
        by_vxlan += moved;
        if moved == 0 {
            return (udp, by_vxlan);
        }
    }
}

/// How many datagrams of each framing, and where frames came out.
type Outcome = ((usize, usize), Vec<(usize, PortId, Vec<u8>)>);

/// A frame is captured at `host`.
fn send(mesh: &mut Mesh, host: usize, frame: &[u8]) -> Outcome {
    mesh.capture(host, PORT, frame);
    (carry(mesh), mesh.delivered())
}

fn of(vni: u32, frame: &[u8]) -> Vec<u8> {
    let mut header = [0; VXLAN_LEN];
    vxlan::emit(net(vni), &mut header);
    [&header, frame].concat()
}

/// What left `host` by VXLAN: to whom, on which network, and the frames.
fn written(mesh: &mut Mesh, host: usize) -> Vec<(SocketAddr, NetId, Vec<u8>)> {
    let sent = std::mem::take(&mut mesh.host(host).out.tunnelled).into_iter();
    sent.map(|(_, to, datagram)| {
        let (vni, frame) = vxlan::parse(&datagram).unwrap();
        (to, vni, frame.to_vec())
    })
    .collect()
}

#[test]
fn unicast_between_neighbours_goes_by_vxlan_and_floods_do_not() {
    let mut mesh = mesh(2, EDGE, &[(1, 2), (2, 1)]);
    let question = hello(Mac::BROADCAST, mac(1));
    assert_eq!(send(&mut mesh, 1, &question), ((1, 0), vec![(2, PORT, question)]));
    let answer = hello(mac(1), mac(2));
    assert_eq!(send(&mut mesh, 2, &answer), ((0, 1), vec![(1, PORT, answer)]));
    let unicast = hello(mac(2), mac(1));
    assert_eq!(send(&mut mesh, 1, &unicast), ((0, 1), vec![(2, PORT, unicast)]));
    let unknown = hello(mac(9), mac(1));
    assert_eq!(send(&mut mesh, 1, &unknown), ((1, 0), vec![(2, PORT, unknown)]));
    let tally = mesh.host(1).plane.counters();
    assert_eq!(
        (tally.to_net.frames, tally.to_vxlan.frames, tally.from_net.frames, tally.from_vxlan.frames),
        (3, 1, 1, 1)
    );
    assert_eq!(dropped(&mut mesh, 1), []);
    assert_eq!(dropped(&mut mesh, 2), []);
}

#[test]
fn each_end_chooses_for_itself_and_both_are_taken() {
    let mut mesh = mesh(2, EDGE, &[(1, 2)]);
    send(&mut mesh, 1, &hello(Mac::BROADCAST, mac(1)));
    assert_eq!(send(&mut mesh, 2, &hello(mac(1), mac(2))).0, (1, 0));
    assert_eq!(send(&mut mesh, 1, &hello(mac(2), mac(1))).0, (0, 1));
    mesh.host(1).paths[&2].set_carrier(Carrier::Udp);
    assert_eq!(send(&mut mesh, 1, &hello(mac(2), mac(1))).0, (1, 0));
}

#[test]
fn what_is_relayed_goes_by_the_framing_that_tells_its_origin() {
    let mut mesh = mesh(3, CHAIN, &[(1, 2), (2, 1), (2, 3), (3, 2)]);
    let question = hello(Mac::BROADCAST, mac(1));
    assert_eq!(send(&mut mesh, 1, &question), ((2, 0), vec![(2, PORT, question.clone()), (3, PORT, question)]));
    let answer = hello(mac(1), mac(3));
    assert_eq!(send(&mut mesh, 3, &answer), ((2, 0), vec![(1, PORT, answer)]));
    assert_eq!(send(&mut mesh, 2, &hello(mac(1), mac(2))).0, (0, 1), "its own goes by VXLAN");
}

#[test]
fn a_path_that_is_sealed_has_no_vxlan_whatever_it_is_told() {
    let mut mesh = mesh(2, EDGE, &[(1, 2)]);
    send(&mut mesh, 2, &hello(Mac::BROADCAST, mac(2)));
    for path in [mesh.host(1).paths[&2].clone(), mesh.host(2).paths[&1].clone()] {
        path.set_sealed(true);
    }
    assert_eq!(mesh.host(1).paths[&2].carrier(), Carrier::Udp);
    mesh.host(1).paths[&2].set_carrier(end(2, ROOM));
    assert_eq!(send(&mut mesh, 1, &hello(mac(2), mac(1))).0, (1, 0));
}

#[test]
fn what_does_not_fit_goes_by_the_framing_that_cuts() {
    let mut mesh = mesh(2, EDGE, &[(1, 2)]);
    send(&mut mesh, 2, &hello(Mac::BROADCAST, mac(2)));
    let frame = |len: usize| ethernet(mac(2), mac(1), 0x88b5, &vec![7; len - 14]);
    assert_eq!(send(&mut mesh, 1, &frame(ROOM)), ((0, 1), vec![(2, PORT, frame(ROOM))]));
    assert_eq!(send(&mut mesh, 1, &frame(ROOM + 1)), ((2, 0), vec![(2, PORT, frame(ROOM + 1))]));
}

fn tcp(len: usize, size: u16) -> (Vec<u8>, Offload) {
    let body: Vec<u8> = (0..len).map(|i| (i * 7 + i / 256) as u8).collect();
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(mac(1).0, mac(2).0).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    packet.tcp(1000, 2000, 77, 4096).ack(5).write(&mut frame, &body).unwrap();
    let gso = Gso { kind: GsoKind::Tcp4, ecn: false, size, headers: u16::try_from(TCP_HEADERS).unwrap() };
    (frame, Offload { checksum: Some(Partial { start: 34, offset: 16 }), gso: Some(gso) })
}

proptest! {
    /// However it is cut, all bytes come out in order, and every frame on the wire is whole: its checksums too.
    #[test]
    fn a_super_frame_is_cut_whole_on_the_wire_and_put_together(
        len in 1usize..40_000, size in 500u16..1400, batch in 1usize..64, unfinished: bool,
    ) {
        let mut mesh = mesh(2, EDGE, &[(1, 2)]);
        send(&mut mesh, 2, &hello(Mac::BROADCAST, mac(2)));
        mesh.host(2).out.takes = ALL;
        mesh.host(2).out.offloads.clear();
        if unfinished {
            leave_unfinished(&mut mesh, 1, 2);
        }
        let (frame, offload) = tcp(len, size);
        mesh.capture_offloaded(1, &frame, &offload);
        let sent = written(&mut mesh, 1);
        prop_assert_eq!(sent.len(), len.div_ceil(size.into()));
        for (_, vni, frame) in &sent {
            let layout = Layout::of(frame).unwrap();
            let is_right = if unfinished { checksum::is_partial } else { checksum::is_right };
            prop_assert!(*vni == net(7) && is_right(frame, &layout));
        }
        prop_assert_eq!(mesh.sent(1).len(), 0);
        let mut datagrams: Vec<Vec<u8>> = sent.iter().map(|(_, _, frame)| of(7, frame)).collect();
        for batch in datagrams.chunks_mut(batch) {
            arrive(&mut mesh, 2, SocketAddr::new(address(1).ip(), 40_000), batch);
        }
        let frames = mesh.delivered();
        let payload: Vec<u8> = frames.iter().flat_map(|(_, _, frame)| frame[TCP_HEADERS..].to_vec()).collect();
        prop_assert_eq!(&payload[..], &tcp(len, size).0[TCP_HEADERS..]);
        let complete = mesh.host(2).out.offloads.iter().filter(|offload| offload.checksum.is_none()).count();
        prop_assert!(!unfinished || complete == 0, "nobody is told that a checksum is complete that is not");
        if batch == 63 {
            prop_assert!(frames.len() <= sent.len().div_ceil(44), "{} frames of {}", frames.len(), sent.len());
        }
    }

    /// Whatever comes to the port, nothing is delivered that no neighbour sent as a whole frame, and no event is raised.
    #[test]
    fn any_bytes_are_counted_or_delivered(bytes in prop::collection::vec(any::<u8>(), 0..100), known: bool) {
        let mut mesh = mesh(2, EDGE, &[]);
        let from = if known { address(2) } else { address(9) };
        arrive(&mut mesh, 1, from, &mut [bytes]);
        let delivered = mesh.delivered().len() as u64;
        let drops: u64 = dropped(&mut mesh, 1).iter().map(|(_, count)| count).sum();
        prop_assert_eq!(delivered + drops, 1);
        prop_assert!(known || delivered == 0);
        prop_assert!(mesh.host(1).out.events.is_empty());
    }
}

#[test]
fn an_unfinished_checksum_is_completed() {
    let mut mesh = mesh(2, EDGE, &[(1, 2)]);
    send(&mut mesh, 2, &hello(Mac::BROADCAST, mac(2)));
    let (frame, offload) = tcp(100, 1000);
    let mut partial = frame.clone();
    let layout = Layout::of(&frame).unwrap();
    let sum = checksum::fold(checksum::pseudo(&frame, &layout) + 120);
    partial[50..52].copy_from_slice(&sum.to_be_bytes());
    mesh.capture_offloaded(1, &partial, &Offload { gso: None, ..offload });
    let expected = [(SocketAddr::new(address(2).ip(), VXLAN), net(7), frame)];
    assert_eq!(written(&mut mesh, 1), expected);
}

#[test]
fn an_unfinished_checksum_is_left_so_for_who_takes_it_and_the_header_says_so() {
    let mut mesh = mesh(2, EDGE, &[(1, 2)]);
    send(&mut mesh, 2, &hello(Mac::BROADCAST, mac(2)));
    leave_unfinished(&mut mesh, 1, 2);
    let (mut frame, offload) = tcp(3000, 1000);
    mesh.capture_offloaded(1, &frame, &offload);
    // What is complete stays so and is not marked.
    mesh.capture_offloaded(1, &tcp(100, 1000).0, &Offload::NONE);
    frame.truncate(TCP_HEADERS + 100);
    frame[16..18].copy_from_slice(&140u16.to_be_bytes());
    mesh.capture_offloaded(1, &frame, &Offload { gso: None, ..offload });
    let sent: Vec<Vec<u8>> =
        std::mem::take(&mut mesh.host(1).out.tunnelled).into_iter().map(|(_, _, sent)| sent).collect();
    let marks: Vec<[u8; 2]> = sent.iter().map(|datagram| [datagram[1], datagram[7]]).collect();
    assert_eq!(marks, [[0x20, 17], [0x20, 17], [0x20, 17], [0, 0], [0x20, 17]]);
    for datagram in sent.iter().take(3) {
        let bytes = &datagram[VXLAN_LEN..];
        assert!(checksum::is_partial(bytes, &Layout::of(bytes).unwrap()));
    }
}

#[test]
fn a_super_frame_that_crossed_no_wire_is_taken_whole() {
    let mut mesh = mesh(2, EDGE, &[]);
    speak(&mut mesh, 2, EDGE, |fib| fib.networks.get_mut(&net(7)).unwrap().mtu = Some(1400));
    mesh.host(2).out.takes = ALL;
    let (mut frame, _) = tcp(9000, 1346);
    let layout = Layout::of(&frame).unwrap();
    let sum = checksum::fold(checksum::pseudo(&frame, &layout) + 9020);
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
    arrive(&mut mesh, 2, SocketAddr::new(address(1).ip(), 40_000), &mut [of(7, &frame)]);
    let gso = Gso { kind: GsoKind::Tcp4, ecn: false, size: 1360, headers: u16::try_from(TCP_HEADERS).unwrap() };
    assert_eq!(mesh.host(2).out.offloads, [Offload { checksum: Some(layout.partial()), gso: Some(gso) }]);
    assert_eq!(mesh.delivered(), [(2, PORT, frame)]);
    assert_eq!(places(&mut mesh, 2), [(mac(1), Place::Peer(short(1)))]);
    assert_eq!(mesh.host(2).plane.counters().from_vxlan.frames, 7);
}

#[test]
fn bad_input_is_counted_by_its_reason_and_goes_nowhere() {
    let good = hello(mac(1), mac(2));
    let mut no_vni = of(7, &good);
    no_vni[0] = 0;
    let mut reserved = of(7, &good);
    (reserved[0], reserved[1], reserved[7]) = (0xff, 1, 9);
    let facts = [
        ("whole", address(2), of(7, &good), None),
        ("reserved bits", address(2), reserved, None),
        ("from nobody known", address(9), of(7, &good), Some(Drop::VxlanUnknown)),
        ("our own, looped back", address(1), of(7, &good), Some(Drop::VxlanUnknown)),
        ("a network that is not open", address(2), of(8, &good), Some(Drop::NotOpen)),
        ("no header", address(2), vec![8, 0, 0], Some(Drop::VxlanMalformed)),
        ("no frame", address(2), of(7, &good[..13]), Some(Drop::VxlanMalformed)),
        ("no VNI", address(2), no_vni, Some(Drop::VxlanMalformed)),
        ("a broadcast", address(2), of(7, &hello(Mac::BROADCAST, mac(2))), Some(Drop::VxlanGroup)),
        ("a frame of rnet's own framing", address(2), vec![0x22; 60], Some(Drop::VxlanMalformed)),
    ];
    for (fact, from, datagram, reason) in facts {
        let mut mesh = mesh(2, EDGE, &[]);
        arrive(&mut mesh, 1, from, &mut [datagram]);
        let expected: Vec<(Drop, u64)> = reason.iter().map(|reason| (*reason, 1)).collect();
        assert_eq!(dropped(&mut mesh, 1), expected, "{fact}");
        assert_eq!(mesh.delivered().len(), usize::from(reason.is_none()), "{fact}");
    }
}

#[test]
fn nobody_speaks_for_an_attachment_of_this_host() {
    let mut mesh = mesh(2, EDGE, &[]);
    speak(&mut mesh, 1, EDGE, |fib| {
        fib.networks.get_mut(&net(7)).unwrap().permits.insert(mac(1), permit(&["10.0.0.1"]));
    });
    arrive(&mut mesh, 1, address(2), &mut [of(7, &hello(mac(3), mac(1)))]);
    assert_eq!(dropped(&mut mesh, 1), [(Drop::Impersonated, 1)]);
}

#[test]
fn probes_of_known_paths_are_handed_on_as_they_came_and_others_dropped() {
    let mut mesh = mesh(2, EDGE, &[]);
    let (from, name) = (SocketAddr::new(address(2).ip(), 40_000), crate::types::PeerName(mac(1)));
    let mut probe = Vec::new();
    assert!(mesh.host(2).paths[&1].seal_probe(&[5; 24], &mut probe));
    let frame = beat::frame(name, name, &probe);
    let now = mesh.now;
    let host = mesh.host(2);
    host.plane.batch(now).beat(address(1), &frame, &mut host.out);
    let (door, to, datagram) = host.out.tunnelled.pop().unwrap();
    assert_eq!(
        (door, to, u32::from_be_bytes([0, datagram[4], datagram[5], datagram[6]])),
        (VXLAN, address(1), VNI_OF_PEERS)
    );
    let size = u16::try_from(datagram.len()).unwrap();
    let mut strange = datagram.clone();
    strange[VXLAN_LEN + 14 + 5] ^= 1;
    arrive(&mut mesh, 1, from, &mut [datagram, strange]);
    let event = Event::Beat { from, datagram: probe, size, at: now };
    assert_eq!(mesh.host(1).out.events, [event]);
    assert_eq!(dropped(&mut mesh, 1), [(Drop::UnknownIndex, 1)]);
}

#[test]
fn what_the_kernel_could_carry_is_told_once_and_goes_the_slow_way_until_it_does() {
    let mut mesh = mesh(3, CHAIN, &[]);
    for (host, there) in [(1, 2), (2, 1), (2, 3)] {
        mesh.host(host).paths[&there].set_carrier(Carrier::Kernel);
    }
    // Attachments have these; what is behind an uplink or a VTEP of a peer is not on its bridge.
    speak(&mut mesh, 1, CHAIN, |fib| {
        let known = |n: u8| {
            let (address, place) = ([10, 0, 0, n].into(), Place::Peer(short(n.into())));
            crate::plane::neighbours::Known { network: net(7), address, mac: mac(n), place }
        };
        fib.neighbours = Arc::new([2, 3].map(known).into_iter().collect());
    });
    for host in [1, 2, 3] {
        send(&mut mesh, host, &hello(Mac::BROADCAST, mac(u8::try_from(host).unwrap())));
    }
    send(&mut mesh, 2, &hello(Mac::BROADCAST, mac(9)));
    assert!(mesh.hosts.values().all(|host| host.out.events.is_empty()), "floods are nothing for the kernel");
    let offers = |mesh: &mut Mesh| -> Vec<Event> {
        let events = mesh.host(1).out.events.iter().cloned();
        events.filter(|event| !matches!(event, Event::Relayed { .. })).collect()
    };
    assert_eq!(send(&mut mesh, 1, &hello(mac(9), mac(1))).0, (1, 0));
    assert_eq!(offers(&mut mesh), []);
    for _ in 0..3 {
        assert_eq!(send(&mut mesh, 1, &hello(mac(2), mac(1))).0, (1, 0));
        assert_eq!(send(&mut mesh, 1, &hello(mac(3), mac(1))).0, (2, 0), "behind a relay");
    }
    assert_eq!(offers(&mut mesh), [Event::Offload { network: net(7), mac: mac(2), peer: short(2) }]);
    assert!(mesh.host(2).out.events.is_empty(), "what is relayed is nothing for the kernel");
    mesh.host(1).plane.offer_again(net(7), mac(2));
    send(&mut mesh, 1, &hello(mac(2), mac(1)));
    assert_eq!(offers(&mut mesh).len(), 2);
    // It shows up behind the other one.
    send(&mut mesh, 3, &hello(Mac::BROADCAST, mac(2)));
    assert_eq!(mesh.host(1).out.events.last(), Some(&Event::Moved { network: net(7), mac: mac(2) }));
}
