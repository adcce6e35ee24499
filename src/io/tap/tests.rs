//! On the real kernel: each test in a network namespace of its own.
//!
//! Where the system forbids namespaces or has no /dev/net/tun, each says `skipped:` and shows nothing.

use super::*;
use crate::io::capture::CAPTURE_MAX;
use crate::io::netlink::Netlink;
use crate::io::netns::{self, set_sysctl};
use crate::wire::virtio::{Gso, GsoKind, Partial};
use etherparse::PacketBuilder;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{setsockopt, sockopt};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(5);

/// Runs `test` in a fresh network namespace, with a runtime for netlink.
fn in_fresh_namespace(test: impl AsyncFnOnce(Netlink) + Send) {
    let Some(namespace) = netns::tests::fresh() else { return };
    if !std::path::Path::new("/dev/net/tun").exists() {
        return eprintln!("skipped: there is no /dev/net/tun here");
    }
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            test(Netlink::open()?).await;
            Ok(())
        })
    };
    namespace.within(run).unwrap();
}

fn create(name: &str, queues: usize, wanted: bool) -> Vec<Tap> {
    Tap::create(name, queues, wanted).unwrap()
}

fn one(name: &str, wanted: bool) -> Tap {
    create(name, 1, wanted).remove(0)
}

/// Up, and nothing is sent on it by IPv6 itself.
async fn up(netlink: &Netlink, name: &str) {
    set_sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
    netlink.set_up(name).await.unwrap();
}

/// Two TAPs, ports of one bridge that passes frames.
async fn bridged(netlink: &Netlink, wanted: [bool; 2]) -> [Tap; 2] {
    netlink.add_bridge("bridge", 1500).await.unwrap();
    let taps = [one("left", wanted[0]), one("right", wanted[1])];
    up(netlink, "bridge").await;
    for name in ["left", "right"] {
        netlink.set_master(name, "bridge").await.unwrap();
        up(netlink, name).await;
    }
    let deadline = Instant::now() + PATIENCE;
    for name in ["left", "right"] {
        while !netlink.link(name).await.unwrap().unwrap().forwarding {
            assert!(Instant::now() < deadline, "{name} does not pass frames");
            tokio::task::yield_now().await;
        }
    }
    taps
}

/// The next frame that `wanted` takes, and what is left to do on it; nothing if none comes within `patience`.
fn read(tap: &mut Tap, patience: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<(Vec<u8>, Offload)> {
    let mut buffer = vec![0; CAPTURE_MAX];
    let deadline = Instant::now() + patience;
    loop {
        match tap.read(&mut buffer).unwrap() {
            Some(read) => {
                let Captured { frame, mut offload } = read.unwrap();
                if wanted(frame) {
                    // A hint that depends on how the kernel holds the frame.
                    offload.gso = offload.gso.map(|gso| Gso { headers: 0, ..gso });
                    return Some((frame.to_vec(), offload));
                }
            }
            None if Instant::now() < deadline => {
                poll(&mut [PollFd::new(tap.queues.as_fd(), PollFlags::POLLIN)], 20u8).unwrap();
            }
            None => return None,
        }
    }
}

const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
const TCP_HEADERS: usize = 14 + 20 + 20;
const TCP_PARTIAL: Partial = Partial { start: 34, offset: 16 };

/// The sum over the pseudo-header of an IPv4 packet, folded, not complemented.
fn pseudo_sum(frame: &[u8]) -> u16 {
    let length = (frame.len() - 34) as u32;
    let words = frame[26..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum = words.sum::<u32>() + u32::from(frame[23]) + length;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

/// TCP over IPv4 from one end to the other, its checksum partial; and the payload at its end.
fn tcp(length: usize) -> Vec<u8> {
    let builder =
        PacketBuilder::ethernet2(MACS[0], MACS[1]).ipv4([10, 9, 0, 1], [10, 9, 0, 2], 64).tcp(1000, 2000, 77, 999);
    let mut frame = Vec::new();
    builder.ack(5).write(&mut frame, &payload(length)).unwrap();
    let sum = pseudo_sum(&frame);
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn is_tcp(frame: &[u8]) -> bool {
    frame.len() >= TCP_HEADERS && frame[12..14] == [8, 0] && frame[23] == 6
}

/// Whether IPv4's and TCP's or UDP's checksums are right.
fn is_complete(frame: &[u8]) -> bool {
    let packet = etherparse::PacketHeaders::from_ethernet_slice(frame).unwrap();
    let Some(etherparse::NetHeaders::Ipv4(ip, _)) = packet.net else { panic!("no IPv4") };
    let payload = packet.payload.slice();
    ip.header_checksum == ip.calc_header_checksum()
        && match packet.transport.unwrap() {
            etherparse::TransportHeader::Tcp(tcp) => tcp.checksum == tcp.calc_checksum_ipv4(&ip, payload).unwrap(),
            etherparse::TransportHeader::Udp(udp) => udp.checksum == udp.calc_checksum_ipv4(&ip, payload).unwrap(),
            other => panic!("{other:?}"),
        }
}

fn gso(kind: GsoKind, size: u16) -> Option<Gso> {
    Some(Gso { kind, ecn: false, size, headers: 0 })
}

/// The same with the hint, as it is to be written.
fn hinted(offload: Offload, headers: u16) -> Offload {
    Offload { gso: offload.gso.map(|gso| Gso { headers, ..gso }), ..offload }
}

/// A super-frame of TCP with 1400 bytes in each segment.
const SUPER: Offload =
    Offload { checksum: Some(TCP_PARTIAL), gso: Some(Gso { kind: GsoKind::Tcp4, ecn: false, size: 1400, headers: 0 }) };

/// Whether `frame` is read, and `offload` is left to do on it. Not by equality of the whole: nobody reads such a failure.
fn arrives(tap: &mut Tap, frame: &[u8], offload: Offload, wanted: impl Fn(&[u8]) -> bool) {
    let (got, left) = read(tap, PATIENCE, wanted).expect("a frame");
    assert_eq!((got.len(), left), (frame.len(), offload));
    assert!(got == frame, "its bytes differ");
}

#[test]
fn asks_for_the_most_and_steps_down_to_what_the_kernel_knows() {
    let knowing = |known: u32| {
        let mut asked = Vec::new();
        let features = agree(true, |offloads| {
            asked.push(offloads);
            if offloads & !known == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) }
        });
        ((features.checksum, features.tso, features.uso), asked)
    };
    assert_eq!(knowing(u32::MAX), ((true, true, true), vec![0x6f]));
    assert_eq!(knowing(0x1f), ((true, true, false), vec![0x6f, 0x0f]), "before Linux 6.2");
    assert_eq!(knowing(0x01), ((true, false, false), vec![0x6f, 0x0f, 0x01]));
    assert_eq!(knowing(0), ((false, false, false), vec![0x6f, 0x0f, 0x01]));
    assert_eq!(agree(false, |_| panic!("asked")), Features::default());
}

#[test]
fn a_device_has_the_features_that_were_agreed() {
    in_fresh_namespace(async |_| {
        let features = one("tap0", true).features();
        assert!(features.checksum && features.tso && features.fair && !features.multi_queue, "{features:?}");
        assert_eq!(one("tap1", false).features(), Features { fair: true, ..Features::default() });
        let queues = create("tap2", 3, true);
        assert_eq!(queues.len(), 3);
        assert!(queues.iter().all(|tap| tap.features() == Features { multi_queue: true, ..features }));
        assert_eq!(create("tap3", 0, false).len(), 1);
    });
}

/// The device goes. Not always at once: a child that another test forks has its descriptors until it has become its program.
async fn await_end(netlink: &Netlink, name: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while netlink.link(name).await.unwrap().is_some() {
        assert!(std::time::Instant::now() < deadline, "{name} is left");
        std::thread::yield_now();
    }
}

#[test]
fn the_device_goes_with_its_last_queue() {
    in_fresh_namespace(async |netlink| {
        let mut queues = create("tap0", 2, true);
        for _ in 0..2 {
            assert!(netlink.link("tap0").await.unwrap().is_some());
            queues.pop();
        }
        await_end(&netlink, "tap0").await;
        let mut queues = create("tap0", 2, true);
        netlink.delete("tap0").await.unwrap();
        for tap in &mut queues {
            assert_eq!(tap.read(&mut [0; 2048]).unwrap_err().raw_os_error(), Some(libc::EBADFD));
            assert_eq!(tap.write(&Offload::NONE, &[&[0; 60]]).unwrap_err().raw_os_error(), Some(libc::EBADFD));
        }
    });
}

#[test]
fn a_burst_longer_than_the_kernels_own_queue_is_held() {
    in_fresh_namespace(async |netlink| {
        let mut taps = create("tap0", 1, true);
        netlink.add_address("tap0", "10.9.0.1/24".parse().unwrap()).await.unwrap();
        netlink.set_up("tap0").await.unwrap();
        let socket = std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.set_broadcast(true).unwrap();
        for _ in 0..3000 {
            socket.send_to(b"one of many", "10.9.0.255:9").unwrap();
        }
        let mut held = 0;
        while let Some(read) = taps[0].read(&mut [0; 2048]).unwrap() {
            held += usize::from(read.unwrap().frame.ends_with(b"one of many"));
        }
        assert_eq!(held, 3000);
    });
}

#[test]
fn a_name_that_is_taken_is_never_joined() {
    in_fresh_namespace(async |netlink| {
        let error = |name: &str, queues: usize| Tap::create(name, queues, true).err().unwrap();
        let (_single, _several) = (create("single", 1, true), create("several", 2, true));
        netlink.add_bridge("bridge", 1500).await.unwrap();
        for name in ["single", "several", "bridge"] {
            for queues in [1, 2] {
                assert_eq!(error(name, queues).raw_os_error(), Some(libc::EBUSY), "{name} {queues}");
            }
        }
        for name in ["", "tap%d", "sixteen-letters-"] {
            assert_eq!(error(name, 1).kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        error("toomany", 300);
        await_end(&netlink, "toomany").await;
    });
}

#[test]
fn a_super_frame_passes_whole_from_tap_to_tap() {
    in_fresh_namespace(async |netlink| {
        let [mut left, mut right] = bridged(&netlink, [true, true]).await;
        let frame = tcp(50_000);
        // In one part, and as a coalescer has it: headers, and a part for each segment.
        let segments: Vec<&[u8]> =
            [&frame[..TCP_HEADERS]].into_iter().chain(frame[TCP_HEADERS..].chunks(1400)).collect();
        for parts in [&[&frame[..]][..], &segments] {
            left.write(&hinted(SUPER, 54), parts).unwrap();
            arrives(&mut right, &frame, SUPER, is_tcp);
        }
        // A checksum alone.
        let frame = tcp(100);
        let offload = Offload { checksum: Some(TCP_PARTIAL), gso: None };
        left.write(&offload, &[&frame]).unwrap();
        arrives(&mut right, &frame, offload, is_tcp);
    });
}

#[test]
fn the_longest_frames_go_in_and_come_out() {
    in_fresh_namespace(async |netlink| {
        let [mut left, mut right] = bridged(&netlink, [true, true]).await;
        // Ethernet header and all, a device takes 65,535 bytes whole; the kernel cuts longer ones before it.
        let frame = tcp(65_535 - TCP_HEADERS);
        left.write(&hinted(SUPER, 54), &[&frame]).unwrap();
        arrives(&mut right, &frame, SUPER, is_tcp);
        let frame = tcp(65_535 - 40);
        assert!(VIRTIO_LEN + frame.len() <= CAPTURE_MAX);
        left.write(&hinted(SUPER, 54), &[&frame]).unwrap();
        let mut whole = Vec::new();
        while whole.len() < 65_535 - 40 {
            whole.extend_from_slice(&read(&mut right, PATIENCE, is_tcp).expect("a part").0[TCP_HEADERS..]);
        }
        assert!(whole == frame[TCP_HEADERS..]);
    });
}

#[test]
fn without_offload_the_kernel_cuts_and_completes() {
    in_fresh_namespace(async |netlink| {
        let [mut left, mut right] = bridged(&netlink, [true, false]).await;
        let frame = tcp(5000);
        left.write(&hinted(SUPER, 54), &[&frame]).unwrap();
        let mut whole = Vec::new();
        while whole.len() < 5000 {
            let (segment, left_to_do) = read(&mut right, PATIENCE, is_tcp).expect("a segment");
            assert_eq!(left_to_do, Offload::NONE);
            assert!(segment.len() <= TCP_HEADERS + 1400 && is_complete(&segment));
            whole.extend_from_slice(&segment[TCP_HEADERS..]);
        }
        assert!(whole == payload(5000));
    });
}

#[test]
fn a_frame_that_does_not_fit_its_header_is_lost_alone() {
    in_fresh_namespace(async |netlink| {
        let [mut left, mut right] = bridged(&netlink, [true, true]).await;
        let frame = tcp(3000);
        let beyond = Offload { checksum: Some(Partial { start: 4000, offset: 16 }), gso: None };
        let parts = [&frame[..40]; PARTS_MAX + 1];
        assert_eq!(left.write(&beyond, &[&frame]).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(left.write(&Offload::NONE, &parts).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(left.write(&Offload::NONE, &[]).is_err());
        // Without the hint the kernel finds the headers itself.
        left.write(&SUPER, &[&frame]).unwrap();
        arrives(&mut right, &frame, SUPER, is_tcp);
    });
}

/// A socket of the namespace's own that sends out of `name` without asking for a MAC.
async fn broadcaster(netlink: &Netlink, name: &str) -> UdpSocket {
    netlink.add_address(name, "10.9.0.1/24".parse().unwrap()).await.unwrap();
    up(netlink, name).await;
    let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
    socket.set_broadcast(true).unwrap();
    socket
}

fn is_udp(frame: &[u8]) -> bool {
    frame.len() >= 42 && frame[12..14] == [8, 0] && frame[23] == 17
}

#[test]
fn the_hosts_own_datagrams_come_as_one_super_frame_or_each_complete() {
    in_fresh_namespace(async |netlink| {
        let mut tap = one("tap0", true);
        let socket = broadcaster(&netlink, "tap0").await;
        setsockopt(&socket, sockopt::UdpGsoSegment, &1000).unwrap();
        socket.send_to(&payload(3500), "10.9.0.255:9").unwrap();
        let (frame, offload) = read(&mut tap, PATIENCE, is_udp).expect("a frame");
        let checksum = Some(Partial { start: 34, offset: 6 });
        if tap.features().uso {
            assert_eq!(offload, Offload { checksum, gso: gso(GsoKind::Udp, 1000) });
            assert!(frame[42..] == payload(3500));
        } else {
            assert_eq!((frame.len(), offload), (1042, Offload { checksum, gso: None }));
        }
    });
    in_fresh_namespace(async |netlink| {
        let mut tap = one("tap0", false);
        let socket = broadcaster(&netlink, "tap0").await;
        setsockopt(&socket, sockopt::UdpGsoSegment, &1000).unwrap();
        socket.send_to(&payload(3500), "10.9.0.255:9").unwrap();
        for length in [1000, 1000, 1000, 500] {
            let (frame, offload) = read(&mut tap, PATIENCE, is_udp).expect("a frame");
            assert_eq!((frame.len() - 42, offload), (length, Offload::NONE));
            assert!(is_complete(&frame));
        }
    });
}

#[test]
fn a_udp_super_frame_may_have_64_datagrams_but_not_any_number() {
    in_fresh_namespace(async |netlink| {
        let [mut left, mut right] = bridged(&netlink, [true, true]).await;
        if !left.features().uso {
            return eprintln!("skipped: this kernel has no super-frames of UDP");
        }
        let udp = |datagrams: usize| {
            let mut frame = Vec::new();
            let builder = PacketBuilder::ethernet2(MACS[0], MACS[1]).ipv4([10, 9, 0, 1], [10, 9, 0, 2], 64);
            builder.udp(1000, 2000).write(&mut frame, &payload(datagrams * 100)).unwrap();
            let sum = pseudo_sum(&frame);
            frame[40..42].copy_from_slice(&sum.to_be_bytes());
            frame
        };
        let checksum = Some(Partial { start: 34, offset: 6 });
        let offload = Offload { checksum, gso: gso(GsoKind::Udp, 100) };
        // 65 are too many for kernels before 6.9.
        assert_eq!(left.write(&hinted(offload, 42), &[&udp(129)]).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        left.write(&hinted(offload, 42), &[&udp(64)]).unwrap();
        arrives(&mut right, &udp(64), offload, is_udp);
    });
}

#[test]
fn flows_are_spread_over_the_queues_and_each_stays_on_its_own() {
    in_fresh_namespace(async |netlink| {
        let mut queues = create("tap0", 2, true);
        let first = broadcaster(&netlink, "tap0").await;
        let flows: Vec<UdpSocket> = (0..32).map(|_| UdpSocket::bind("10.9.0.1:0").unwrap()).collect();
        flows.iter().for_each(|flow| flow.set_broadcast(true).unwrap());
        for round in 0..3 {
            for flow in flows.iter().chain([&first]) {
                flow.send_to(&[round; 8], "10.9.0.255:9").unwrap();
            }
        }
        let mut seen: Vec<Vec<(u16, u8)>> = Vec::new();
        for tap in &mut queues {
            let mut flows = Vec::new();
            while let Some((frame, _)) = read(tap, Duration::from_millis(100), is_udp) {
                flows.push((u16::from_be_bytes([frame[34], frame[35]]), frame[42]));
            }
            seen.push(flows);
        }
        assert_eq!(seen.iter().map(Vec::len).sum::<usize>(), 33 * 3);
        assert!(seen.iter().all(|flows| !flows.is_empty()));
        let ports = |n: usize| seen[n].iter().map(|(port, _)| *port).collect::<std::collections::BTreeSet<u16>>();
        assert!(ports(0).is_disjoint(&ports(1)));
    });
}

/// UDP of the flow between two ends over IPv4 or IPv6, in one direction or the other.
fn flow(ip6: bool, ports: [u16; 2], back: bool) -> Vec<u8> {
    let ([from, to], [source, destination]) = if back { ([1, 2], [ports[1], ports[0]]) } else { ([2, 1], ports) };
    let ethernet = PacketBuilder::ethernet2(MACS[usize::from(back)], [0xff; 6]);
    let mut frame = Vec::new();
    let written = if ip6 {
        let end = |last: u8| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        ethernet.ipv6(end(from), end(to), 64).udp(source, destination).write(&mut frame, &payload(20))
    } else {
        ethernet.ipv4([10, 9, 0, from], [10, 9, 0, to], 64).udp(source, destination).write(&mut frame, &payload(20))
    };
    written.unwrap();
    frame
}

#[test]
fn both_directions_of_a_flow_are_one_threads() {
    in_fresh_namespace(async |netlink| {
        netlink.add_bridge("bridge", 1500).await.unwrap();
        let (mut left, mut right) = (one("left", true), create("right", 3, true));
        up(&netlink, "bridge").await;
        for name in ["left", "right"] {
            netlink.set_master(name, "bridge").await.unwrap();
            up(&netlink, name).await;
        }
        let deadline = Instant::now() + PATIENCE;
        while !netlink.link("right").await.unwrap().unwrap().forwarding {
            assert!(Instant::now() < deadline, "right does not pass frames");
            tokio::task::yield_now().await;
        }
        let mut whose = |frame: &[u8]| -> usize {
            left.write(&Offload::NONE, &[frame]).unwrap();
            let deadline = Instant::now() + PATIENCE;
            loop {
                let found = right.iter_mut().position(|tap| read(tap, Duration::ZERO, |read| read == frame).is_some());
                if let Some(found) = found {
                    return found;
                }
                assert!(Instant::now() < deadline, "lost");
            }
        };
        for ip6 in [false, true] {
            let ports = (0..40).map(|n| [40_000 + n, 443]);
            let found: Vec<[usize; 2]> =
                ports.map(|ports| [false, true].map(|back| whose(&flow(ip6, ports, back)))).collect();
            assert!(found.iter().all(|[there, back]| there == back), "{found:?}");
            assert!((0..3).all(|thread| found.iter().any(|[there, _]| *there == thread)), "{found:?}");
        }
    });
}

#[test]
fn a_ping_waits_for_a_turn_and_not_for_a_whole_stream() {
    in_fresh_namespace(async |netlink| {
        let [mut left, mut right] = bridged(&netlink, [true, true]).await;
        let (long, count) = (tcp(60_000), 50);

        for _ in 0..count {
            left.write(&hinted(SUPER, 54), &[&long]).unwrap();
        }
        let mut ping = Vec::new();
        let builder = PacketBuilder::ethernet2(MACS[0], [0xff; 6]).ipv4([10, 9, 0, 1], [10, 9, 0, 2], 64);
        builder.icmpv4_echo_request(1, 1).write(&mut ping, &payload(56)).unwrap();
        left.write(&Offload::NONE, &[&ping]).unwrap();
        let (mut before, mut all) = (None, 0);
        while let Some((frame, _)) = read(&mut right, Duration::ZERO, |_| true) {
            if frame == ping {
                before = Some(all);
            }
            all += 1;
        }
        assert_eq!(all, count + 1);
        assert!(before.is_some_and(|before| before <= 3), "{before:?}");
    });
}

#[test]
fn a_short_buffer_cuts_the_frame_and_a_tiny_one_is_told() {
    in_fresh_namespace(async |netlink| {
        let mut tap = one("tap0", true);
        let socket = broadcaster(&netlink, "tap0").await;
        assert!(tap.read(&mut [0; 2048]).unwrap().is_none(), "never blocks");
        socket.send_to(&[7; 500], "10.9.0.255:9").unwrap();
        let mut buffer = [0; VIRTIO_LEN + 100];
        let captured = tap.read(&mut buffer).unwrap().unwrap().unwrap();
        assert_eq!(captured.frame.len(), 100);
        socket.send_to(&[7; 500], "10.9.0.255:9").unwrap();
        assert!(tap.read(&mut [0; VIRTIO_LEN - 1]).is_err());
    });
}
