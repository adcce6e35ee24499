//! Super-frames through whole planes: cut, carried by hand, and put together, or completed for a kernel that takes nothing.

use super::floods::mad;
use super::*;
use crate::plane::offload::checksum;
use crate::wire::virtio::{GsoKind, Partial};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

const ALL: Takes = Takes { checksum: true, tcp: true, udp: true };
/// What the assumed MTU leaves for a frame: 1472 - 16 outer - 8 inner - 16 tag.
const ROOM: usize = 1432;
const TCP_HEADERS: usize = 14 + 20 + 20;
const UDP_HEADERS: usize = 14 + 20 + 8;

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

/// A super-frame of TCP from `mac(1)` to `mac(2)`, as a kernel hands it over.
fn tcp(len: usize, size: usize) -> (Vec<u8>, Offload) {
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(mac(1).0, mac(2).0).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    packet.tcp(1000, 2000, 77, 4096).ack(5).psh().write(&mut frame, &body(len)).unwrap();
    (frame, offload(GsoKind::Tcp4, size, TCP_HEADERS, 16))
}

/// The same of UDP datagrams. `df`: they may not be cut further.
fn udp(len: usize, size: usize, df: bool) -> (Vec<u8>, Offload) {
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(mac(1).0, mac(2).0).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    packet.udp(1000, 2000).write(&mut frame, &body(len)).unwrap();
    frame[14 + 6] = if df { 0x40 } else { 0 };
    (frame, offload(GsoKind::Udp, size, UDP_HEADERS, 6))
}

fn offload(kind: GsoKind, size: usize, headers: usize, at: u16) -> Offload {
    let (size, headers) = (size.try_into().unwrap(), headers.try_into().unwrap());
    Offload { checksum: Some(Partial { start: 34, offset: at }), gso: Some(Gso { kind, ecn: false, size, headers }) }
}

/// The hosts of `edges`, which know where `mac(1)` and `mac(2)` are: at host 1 and at `last`. `takes` holds at `last`.
fn mesh(edges: &[(usize, usize)], last: usize, takes: Takes) -> Mesh {
    let mut mesh = Mesh::new(last, edges, &[7]);
    mesh.send(1, PORT, &hello(Mac::BROADCAST, mac(1)));
    mesh.send(last, PORT, &hello(Mac::BROADCAST, mac(2)));
    mesh.host(last).out.takes = takes;
    (1..=last).for_each(|host| mesh.host(host).out.offloads.clear());
    mesh
}

/// Carries what `from` has sent to its neighbour `to`, in batches of `batch`. Returns how many datagrams there were.
fn carry(mesh: &mut Mesh, from: usize, to: usize, batch: usize) -> usize {
    let mut sent: Vec<Vec<u8>> = mesh.sent(from).into_iter().map(|(_, datagram)| datagram).collect();
    sent.chunks_mut(batch).for_each(|batch| mesh.receive_all(to, address(from), batch));
    sent.len()
}

/// The payloads that came out at `host`, in order, and what was left to do on their frames.
fn arrived(mesh: &mut Mesh, host: usize, headers: usize) -> (Vec<u8>, Vec<Offload>) {
    let offloads = std::mem::take(&mut mesh.host(host).out.offloads);
    let frames = mesh.delivered();
    assert!(frames.iter().all(|(at, port, _)| (*at, *port) == (host, PORT)));
    (frames.into_iter().flat_map(|(_, _, frame)| frame[headers..].to_vec()).collect(), offloads)
}

/// Whether the IPv4 and the transport checksum of a frame are right.
fn is_right(frame: &[u8]) -> bool {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(etherparse::NetSlice::Ipv4(ip)) = packet.net else { return false };
    let ip = ip.header().to_header();
    let transport = match packet.transport.unwrap() {
        TransportSlice::Tcp(tcp) => {
            let header = tcp.to_header();
            header.checksum == header.calc_checksum_ipv4_raw(ip.source, ip.destination, tcp.payload()).unwrap()
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            header.checksum == header.calc_checksum_ipv4_raw(ip.source, ip.destination, udp.payload()).unwrap()
        }
        _ => false,
    };
    transport && ip.header_checksum == ip.calc_header_checksum()
}

#[test]
fn a_super_frame_crosses_a_relay_as_datagrams_and_arrives_as_one() {
    let mut mesh = mesh(CHAIN, 3, ALL);
    let (frame, offload) = tcp(60_000, 1300);
    mesh.capture_offloaded(1, &frame, &offload);
    assert_eq!(carry(&mut mesh, 1, 2, 1000), 60_000usize.div_ceil(1300));
    assert!(mesh.host(2).out.frames.is_empty());
    carry(&mut mesh, 2, 3, 1000);
    let (bytes, offloads) = arrived(&mut mesh, 3, TCP_HEADERS);
    assert!(bytes == body(60_000));
    assert_eq!(offloads, [offload]);
    let counted = mesh.host(3).plane.counters();
    assert_eq!(
        (counted.to_bridge.frames, counted.from_net.frames),
        (47 + 1, 47 + 1),
        "frames as on a wire, and the hello"
    );
    let sent = mesh.host(1).plane.counters();
    assert_eq!(sent.from_bridge.bytes, sent.to_net.bytes, "bytes too");
    assert_eq!((dropped(&mut mesh, 1), dropped(&mut mesh, 2), dropped(&mut mesh, 3)), (vec![], vec![], vec![]));
}

#[test]
fn batch_boundaries_change_nothing_but_the_number_of_frames() {
    for batch in [1, 2, 7, 46] {
        let mut mesh = mesh(&[(1, 2)], 2, ALL);
        let (frame, offload) = tcp(60_000, 1300);
        mesh.capture_offloaded(1, &frame, &offload);
        carry(&mut mesh, 1, 2, batch);
        let (bytes, offloads) = arrived(&mut mesh, 2, TCP_HEADERS);
        assert!(bytes == body(60_000), "{batch}");
        assert_eq!(offloads.len(), 47usize.div_ceil(batch), "{batch}");
    }
}

#[test]
fn a_kernel_that_takes_nothing_is_given_whole_frames_with_right_checksums() {
    for (headers, (frame, offload)) in [(TCP_HEADERS, tcp(20_000, 1300)), (UDP_HEADERS, udp(20_000, 1300, true))] {
        let mut mesh = mesh(CHAIN, 3, Takes::default());
        mesh.capture_offloaded(1, &frame, &offload);
        carry(&mut mesh, 1, 2, 1000);
        carry(&mut mesh, 2, 3, 1000);
        let frames: Vec<Vec<u8>> = mesh.delivered().into_iter().map(|(_, _, frame)| frame).collect();
        assert_eq!(frames.len(), 16);
        assert!(frames.iter().all(|frame| is_right(frame)));
        assert!(frames.iter().flat_map(|frame| &frame[headers..]).eq(&body(20_000)));
        assert!(mesh.host(3).out.offloads.iter().all(|offload| *offload == Offload::NONE));
    }
}

#[test]
fn a_super_frame_with_options_goes_as_whole_frames() {
    let mut mesh = mesh(&[(1, 2)], 2, ALL);
    let (plain, Offload { gso, checksum }) = tcp(20_000, 1300);
    // The sum of the pseudo-header stays what it is: options are not in it.
    let words = plain[26..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let pseudo = checksum::fold(words.sum::<u32>() + 6 + 20_020);
    let mut frame = [&plain[..34], &[1; 4], &plain[34..]].concat();
    frame[14] = 0x46;
    frame[16..18].copy_from_slice(&20_044u16.to_be_bytes());
    frame[38 + 16..38 + 18].copy_from_slice(&pseudo.to_be_bytes());
    let checksum = checksum.map(|partial| Partial { start: 38, ..partial });
    mesh.capture_offloaded(1, &frame, &Offload { gso, checksum });
    assert_eq!(carry(&mut mesh, 1, 2, 1000), 16);
    assert!(mesh.host(2).out.offloads.iter().all(|offload| *offload == Offload::NONE));
    let frames: Vec<Vec<u8>> = mesh.delivered().into_iter().map(|(_, _, frame)| frame).collect();
    assert!(frames.len() == 16 && frames.iter().all(|frame| is_right(frame)));
    assert!(frames.iter().flat_map(|frame| &frame[TCP_HEADERS + 4..]).eq(&body(20_000)));
    assert_eq!((dropped(&mut mesh, 1), dropped(&mut mesh, 2)), (vec![], vec![]));
}

#[test]
fn an_unfinished_checksum_travels_unless_nobody_could_finish_it() {
    let mut mesh = mesh(&[(1, 2)], 2, ALL);
    let (frame, offload) = udp(500, 500, true);
    let offload = Offload { gso: None, ..offload };
    mesh.capture_offloaded(1, &frame, &offload);
    carry(&mut mesh, 1, 2, 1);
    assert_eq!(arrived(&mut mesh, 2, 0), (frame, vec![offload]));
    // Not UDP nor TCP: summed up before it leaves. 16 bits at 14 + 2, over all from 14 on.
    let mut odd = ethernet(mac(2), mac(1), 0x88b5, &[1, 2, 0, 0, 5, 6]);
    mesh.capture_offloaded(1, &odd, &Offload { checksum: Some(Partial { start: 14, offset: 2 }), gso: None });
    carry(&mut mesh, 1, 2, 1);
    odd[16..18].copy_from_slice(&(!0x0608u16).to_be_bytes());
    assert_eq!(arrived(&mut mesh, 2, 0), (odd, vec![Offload::NONE]));
}

#[test]
fn tcp_is_cut_smaller_where_the_path_is_narrow() {
    for mtu in [700, 1280] {
        let mut mesh = mesh(&[(1, 2)], 2, ALL);
        mesh.host(1).paths[&2].set_mtu(mtu);
        let (frame, offload) = tcp(30_000, 1300);
        mesh.capture_offloaded(1, &frame, &offload);
        let sent = mesh.sent(1);
        assert!(sent.iter().all(|(_, datagram)| datagram.len() <= usize::from(mtu)), "{mtu}");
        let mut sent: Vec<Vec<u8>> = sent.into_iter().map(|(_, datagram)| datagram).collect();
        mesh.receive_all(2, address(1), &mut sent);
        assert!(arrived(&mut mesh, 2, TCP_HEADERS).0 == body(30_000), "{mtu}");
        assert_eq!(dropped(&mut mesh, 1), [], "{mtu}");
    }
}

#[test]
fn udp_that_does_not_fit_is_told_or_goes_in_pieces() {
    let mut told = mesh(&[(1, 2)], 2, ALL);
    told.host(1).paths[&2].set_mtu(1000);
    let (frame, offload) = udp(13_000, 1300, true);
    told.capture_offloaded(1, &frame, &offload);
    assert_eq!((told.sent(1).len(), dropped(&mut told, 1)), (0, vec![(Drop::TooBig, 1)]));
    let delivered = told.delivered();
    let [(1, PORT, reply)] = &delivered[..] else { panic!("{delivered:?}") };
    assert_eq!(reply[14 + 20..14 + 20 + 2], [3, 4]);

    let mut cut = mesh(&[(1, 2)], 2, ALL);
    cut.host(1).paths[&2].set_mtu(1000);
    let (frame, offload) = udp(13_000, 1300, false);
    cut.capture_offloaded(1, &frame, &offload);
    assert_eq!(carry(&mut cut, 1, 2, 1000), 20);
    let (bytes, offloads) = arrived(&mut cut, 2, UDP_HEADERS);
    assert!(bytes == body(13_000));
    assert_eq!(offloads, [Offload { gso: None, ..offload }; 10]);
}

#[test]
fn a_flooded_super_frame_reaches_everybody_once() {
    let mut mesh = Mesh::new(4, &[(1, 2), (2, 3), (1, 4)], &[7]);
    (2..=4).for_each(|host| mesh.host(host).out.takes = ALL);
    let (frame, offload) = udp(10_000, 1000, true);
    mesh.capture_offloaded(1, &frame, &offload);
    let mut sent = mesh.sent(1);
    sent.sort_by_key(|(to, _)| *to);
    let (mut to_2, mut to_4): (Vec<_>, Vec<_>) = sent.into_iter().partition(|(to, _)| *to == address(2));
    let bytes = |datagrams: &mut Vec<(SocketAddr, Vec<u8>)>| -> Vec<Vec<u8>> {
        datagrams.drain(..).map(|(_, datagram)| datagram).collect()
    };
    mesh.receive_all(2, address(1), &mut bytes(&mut to_2));
    mesh.receive_all(4, address(1), &mut bytes(&mut to_4));
    carry(&mut mesh, 2, 3, 1000);
    let frames = mesh.delivered();
    assert_eq!(frames.iter().map(|(host, ..)| *host).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(frames.iter().all(|(_, _, frame)| frame[UDP_HEADERS..] == body(10_000)));
}

#[test]
fn a_super_frame_that_lies_is_dropped_and_counted() {
    let mut mesh = mesh(&[(1, 2)], 2, ALL);
    let (frame, offload) = tcp(20_000, 1300);
    let gso = offload.gso.unwrap();
    let lies = [
        ("another protocol", Offload { gso: Some(Gso { kind: GsoKind::Udp, ..gso }), ..offload }, &frame[..]),
        ("another version", Offload { gso: Some(Gso { kind: GsoKind::Tcp6, ..gso }), ..offload }, &frame[..]),
        ("cut off", offload, &frame[..40]),
        ("no frame at all", offload, &frame[..10]),
    ];
    for (lie, offload, frame) in lies {
        let before = mesh.host(1).plane.counters().dropped(Drop::Malformed);
        mesh.capture_offloaded(1, frame, &offload);
        assert_eq!(mesh.sent(1), [], "{lie}");
        assert_eq!(mesh.host(1).plane.counters().dropped(Drop::Malformed), before + 1, "{lie}");
    }
    let outside = Offload { checksum: Some(Partial { start: 60_000, offset: 16 }), gso: None };
    mesh.capture_offloaded(1, &frame, &outside);
    assert_eq!(dropped(&mut mesh, 1), [(Drop::Malformed, 5)]);
}

#[test]
fn the_guard_looks_at_super_frames_too() {
    let mut mesh = mesh(&[(1, 2)], 2, ALL);
    mesh.publish(1, &[(1, 2)], &[7], |fib| {
        let entry = fib.networks.get_mut(&net(7)).unwrap();
        entry.unguarded = false;
        entry.permits.insert(mac(1), permit(&["10.0.0.9"]));
    });
    let (frame, offload) = tcp(20_000, 1300);
    mesh.capture_offloaded(1, &frame, &offload);
    assert_eq!((mesh.sent(1).len(), dropped(&mut mesh, 1)), (0, vec![(Drop::GuardAddress, 1)]));
}

#[test]
fn no_segment_is_larger_than_its_path_allows() {
    let mut mesh = mesh(&[(1, 2)], 2, ALL);
    let (frame, offload) = tcp(20_000, ROOM - TCP_HEADERS);
    mesh.capture_offloaded(1, &frame, &offload);
    assert_eq!(mesh.sent(1).iter().map(|(_, datagram)| datagram.len()).max(), Some(1472));
}

#[test]
fn a_super_frame_that_is_flooded_by_two_ways_comes_out_once() {
    let edges = &[(1, 2), (1, 3), (2, 4), (3, 4)];
    // One way may be narrower: what is no TCP is the same frames for all.
    for (narrow, is_udp) in [(1472, false), (1472, true), (1000, true)] {
        let mut mesh = mad(4, edges);
        mesh.host(1).paths[&3].set_mtu(narrow);
        let ((frame, offload), headers) =
            if is_udp { (udp(20_000, 1200, false), UDP_HEADERS) } else { (tcp(20_000, 1200), TCP_HEADERS) };
        mesh.capture_offloaded(1, &frame, &offload);
        mesh.carry();
        let frames = mesh.delivered();
        for host in 2..=4 {
            let mine = frames.iter().filter(|(at, ..)| *at == host);
            let all: Vec<&[u8]> = mine.map(|(.., frame)| &frame[headers..]).collect();
            assert_eq!(all.len(), 20_000usize.div_ceil(1200), "{narrow} {is_udp}");
            assert!(all.concat() == body(20_000));
        }
        assert!(mesh.host(4).plane.counters().dropped(Drop::Duplicate) > 0);
    }
}

#[test]
fn tcp_that_is_flooded_is_cut_for_each_way_and_no_byte_of_it_is_lost() {
    let mut mesh = mad(4, &[(1, 2), (1, 3), (2, 4), (3, 4)]);
    mesh.host(1).paths[&3].set_mtu(1000);
    let (frame, offload) = tcp(20_000, 1200);
    mesh.capture_offloaded(1, &frame, &offload);
    mesh.carry();
    let mut here = vec![false; 20_000];
    for (_, _, frame) in mesh.delivered().iter().filter(|(host, ..)| *host == 4) {
        let sequence = u32::from_be_bytes(frame[38..42].try_into().unwrap());
        let at = sequence as usize - 77;
        here[at..at + frame.len() - TCP_HEADERS].fill(true);
    }
    assert!(here.iter().all(|here| *here));
}
