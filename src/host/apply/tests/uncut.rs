//! What libpcap is to have whole, and what must not come so.

use super::*;
use crate::io::capture::Captured;
use crate::io::raw::Injector;
use crate::wire::mark;
use crate::wire::virtio::{Gso, GsoKind, Partial};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const FAR: Mac = Mac([2, 0, 0, 0, 0, 9]);
const SIZE: u16 = 500;

/// An attachment that may send anything, the socket that it does so by, and the capture.
async fn bench() -> Option<(Bench, Netns, Injector, Capture)> {
    if let Err(why) = crate::io::marking::available() {
        eprintln!("skipped: this kernel has no TCX: {why}");
        return None;
    }
    let mut bench = Bench::with(Options { offload: true, ..Options::plain(CaptureKind::Pcap) }).await;
    let capture = bench.open().await;
    let web = Netns::create().unwrap();
    let one = interface("rnet0", 1, &["10.2.1.1/24"]);
    let plugged =
        HostOp::Plug { key: "web".into(), place: place(&web), interfaces: vec![one], mtu: 1410, guarded: false };
    bench.host.apply(plugged).await.unwrap();
    let injector = web.within(|| Injector::open("rnet0")).unwrap();
    Some((bench, web, injector, capture))
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n / 3) as u8).collect()
}

/// A frame of TCP whose checksum holds the sum of its pseudo-header, and what is left to do on it.
fn tcp(version: u8, options: bool, length: usize) -> (Vec<u8>, Offload) {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], FAR.0);
    let ip = match version {
        4 if options => ethernet.ip(etherparse::IpHeaders::Ipv4(
            etherparse::Ipv4Header {
                options: [1, 1, 1, 0].into(),
                ..etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::TCP, [10, 2, 1, 1], [10, 2, 1, 9]).unwrap()
            },
            Default::default(),
        )),
        4 => ethernet.ipv4([10, 2, 1, 1], [10, 2, 1, 9], 64),
        _ => ethernet.ipv6([0xfd; 16], [0xfe; 16], 64),
    };
    let cwr = etherparse::TcpHeader { cwr: true, psh: true, ack: true, ..etherparse::TcpHeader::new(7, 80, 9, 4096) };
    let mut frame = Vec::new();
    ip.tcp_header(cwr)
        .options(&[etherparse::TcpOptionElement::Timestamp(1, 2)])
        .unwrap()
        .write(&mut frame, &payload(length))
        .unwrap();
    let start = frame.len() - length - 32;
    let addresses = if version == 4 { &frame[26..34] } else { &frame[22..54] };
    let mut sum: usize = addresses.chunks(2).map(|word| usize::from(word[0]) << 8 | usize::from(word[1])).sum();
    sum += 6 + frame.len() - start;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[start + 16..start + 18].copy_from_slice(&(sum as u16).to_be_bytes());
    let checksum = Some(Partial { start: start as u16, offset: 16 });
    let kind = if version == 4 { GsoKind::Tcp4 } else { GsoKind::Tcp6 };
    let gso = (length > usize::from(SIZE)).then_some(Gso { kind, ecn: true, size: SIZE, headers: start as u16 + 32 });
    (frame, Offload { checksum, gso })
}

/// The next frame from the attachment, and what is left to do on it.
async fn next(capture: &mut Capture) -> (Vec<u8>, Offload) {
    let mut buffer = vec![0; CAPTURE_MAX];
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match capture.read(&mut buffer).unwrap() {
            Some(Ok(Captured { frame, offload })) if frame.get(..6) == Some(&FAR.0) => {
                return (frame.to_vec(), offload);
            }
            Some(_) => {}
            None => tokio::task::yield_now().await,
        }
    }
    panic!("nothing was captured");
}

fn is_complete(frame: &[u8]) -> bool {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (Some(etherparse::NetSlice::Ipv4(ip)), Some(transport)) = (packet.net, packet.transport) else { return false };
    let ip = ip.header().to_header();
    match transport {
        TransportSlice::Tcp(tcp) => tcp.checksum() == tcp.to_header().calc_checksum_ipv4(&ip, tcp.payload()).unwrap(),
        TransportSlice::Udp(udp) => udp.checksum() == udp.to_header().calc_checksum_ipv4(&ip, udp.payload()).unwrap(),
        _ => false,
    }
}

#[test]
fn super_frames_of_tcp_come_whole_with_the_segment_size_of_their_sender() {
    in_fresh_namespace(async || {
        let Some((mut bench, _web, injector, mut capture)) = bench().await else { return };
        for version in [4, 6] {
            for length in [501, 5_000, 65_000] {
                let (frame, offload) = tcp(version, false, length);
                injector.write(&offload, &[&frame]).unwrap();
                let (got, left) = next(&mut capture).await;
                assert_eq!(left, offload, "IPv{version}, {length} bytes");
                assert!(got == frame, "IPv{version}, {length} bytes");
            }
        }
        bench.host.apply(close()).await.unwrap();
    });
}

#[test]
fn frames_of_a_flow_come_in_the_order_in_which_they_were_sent_whole_or_not() {
    in_fresh_namespace(async || {
        let Some((_bench, _web, injector, mut capture)) = bench().await else { return };
        let lengths = [5_000, 100, 40_000, 500, 200, 501];
        for length in lengths.repeat(20) {
            let (frame, offload) = tcp(4, false, length);
            injector.write(&offload, &[&frame]).unwrap();
        }
        for length in lengths.repeat(20) {
            let (frame, offload) = next(&mut capture).await;
            assert_eq!(frame.len(), 14 + 20 + 32 + length);
            // What was not to be cut is completed by the kernel.
            assert!(if length > 500 { offload.gso.is_some() } else { offload == Offload::NONE && is_complete(&frame) });
        }
    });
}

#[test]
fn what_libpcap_could_not_tell_right_comes_cut_and_complete() {
    in_fresh_namespace(async || {
        let Some((_bench, _web, injector, mut capture)) = bench().await else { return };
        let (with_options, offload) = tcp(4, true, 1_200);
        injector.write(&offload, &[&with_options]).unwrap();
        for length in [500, 500, 200] {
            let (frame, offload) = next(&mut capture).await;
            assert_eq!((frame.len(), offload), (14 + 24 + 32 + length, Offload::NONE));
            assert!(is_complete(&frame));
        }
        let mut udp =
            udp_frame((Mac([2, 0, 0, 0, 0, 1]), "10.2.1.1"), (FAR, "10.2.1.9:9".parse().unwrap()), &payload(1_200));
        udp[40..42].copy_from_slice(&(0x0a02u16 * 2 + 0x0101 + 0x0109 + 17 + 1_208).to_be_bytes());
        let gso = Gso { kind: GsoKind::Udp, ecn: false, size: SIZE, headers: 42 };
        let left = Offload { checksum: Some(Partial { start: 34, offset: 6 }), gso: Some(gso) };
        injector.write(&left, &[&udp]).unwrap();
        for length in [500, 500, 200] {
            let (frame, offload) = next(&mut capture).await;
            assert_eq!((frame.len(), offload), (42 + length, Offload::NONE));
            assert!(is_complete(&frame));
        }
    });
}

#[test]
fn nobody_on_the_network_can_send_what_looks_marked() {
    in_fresh_namespace(async || {
        let Some((_bench, _web, injector, mut capture)) = bench().await else { return };
        for length in [400, 1_300] {
            let (mut forged, _) = tcp(4, false, length);
            forged[mark::TYPE..mark::NETWORK].copy_from_slice(&mark::MARKED.to_be_bytes());
            injector.write(&Offload::NONE, &[&forged]).unwrap();
        }
        let (honest, offload) = tcp(4, false, 100);
        injector.write(&offload, &[&honest]).unwrap();
        let (got, _) = next(&mut capture).await;
        assert_eq!(got.len(), honest.len(), "what came first");
    });
}

#[test]
fn a_network_that_gets_wider_has_its_super_frames_whole_as_before() {
    in_fresh_namespace(async || {
        let Some((mut bench, _web, injector, first)) = bench().await else { return };
        let network = "10.2.1.0/24".parse().unwrap();
        bench.host.apply(HostOp::ResizeNetwork { network, id: NetId::new(ID).unwrap(), mtu: 8_000 }).await.unwrap();
        let mut wider = loop {
            if let HostEvent::Opened { mut captures, .. } = bench.event().await {
                break captures.remove(0);
            }
        };
        drop(first);
        let (frame, offload) = tcp(4, false, 20_000);
        injector.write(&offload, &[&frame]).unwrap();
        assert_eq!(next(&mut wider).await, (frame, offload));
    });
}

#[test]
fn what_came_before_a_ring_had_its_filter_is_not_taken_for_its_own() {
    in_fresh_namespace(async || {
        let Some((bench, _web, injector, first)) = bench().await else { return };
        drop(first);
        let (one, two) = names::pair(NetId::new(ID).unwrap());
        let (long, left) = tcp(4, false, 20_000);
        let (ended, deadline) = (AtomicBool::new(false), Instant::now() + PATIENCE * 12);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0u32.. {
                    let to = (FAR, "10.2.1.9:9".parse().unwrap());
                    let numbered = udp_frame((Mac([2, 0, 0, 0, 0, 1]), "10.2.1.1"), to, &number.to_be_bytes());
                    // What the rings have no room for is none of this test's business.
                    let _ = injector.write(&Offload::NONE, &[&numbered]);
                    let _ = injector.write(&left, &[&long]);
                    if ended.load(Relaxed) || Instant::now() > deadline {
                        return;
                    }
                }
            });
            let mut buffer = vec![0; CAPTURE_MAX];
            for _ in 0..30 {
                let mut capture = pairs::open(bench.host.capture, (&one, &two), 1410).unwrap().remove(0);
                let (mut seen, mut wrong) = (Vec::new(), Vec::new());
                while seen.len() < 50 && wrong.is_empty() {
                    assert!(Instant::now() < deadline, "{} frames came", seen.len());
                    match capture.read(&mut buffer).unwrap() {
                        Some(Ok(Captured { frame, .. })) if frame.get(23) == Some(&17) => {
                            seen.push(frame[42..46].to_vec())
                        }
                        Some(Err(why)) => wrong.push(why),
                        Some(Ok(_)) | None => {}
                    }
                }
                seen.sort();
                let twice = seen.windows(2).any(|pair| pair[0] == pair[1]);
                ended.store(twice || !wrong.is_empty(), Relaxed);
                assert!(!twice && wrong.is_empty(), "{wrong:?} {seen:?}");
            }
            ended.store(true, Relaxed);
        });
    });
}
