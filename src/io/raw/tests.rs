//! On the real kernel: a veth pair in a network namespace of its own, one end captured. Where the system forbids namespaces, each
//! says `skipped:` and shows nothing.

use super::*;
use crate::io::capture::CAPTURE_MAX;
use crate::io::netlink::{Netlink, Veth};
use crate::io::netns::{self, set_sysctl};
use crate::wire::virtio::GsoKind;
use nix::poll::{PollFd, PollFlags, poll};
use std::time::{Duration, Instant};

const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// Runs `test` with the ends of a pair, both up.
fn with_pair(test: impl AsyncFnOnce(Netlink) + Send) {
    let Some(namespace) = netns::tests::fresh() else { return };
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let netlink = Netlink::open()?;
            netlink.add_veth(Veth { name: "one", peer: "two", inside: None, mac: None, mtu: 1500 }).await.unwrap();
            for name in ["one", "two"] {
                set_sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
                netlink.set_up(name).await.unwrap();
            }
            settle();
            test(netlink).await;
            Ok(())
        })
    };
    namespace.within(run).unwrap();
}

/// The kernel notices the other end of a pair a moment after it comes up.
fn settle() {
    let (mut one, mut two) = (open("one"), open("two"));
    let deadline = Instant::now() + LONG;
    while read(&mut two, SHORT, b"hello").is_none() {
        assert!(Instant::now() < deadline, "the pair passes nothing");
        let _ = one.write(&Offload::NONE, &[&udp([1, 2], b"hello")]);
    }
}

fn wish(offload: bool) -> Wish<'static> {
    Wish { queues: 1, offload, deaf_to: &[6783] }
}

fn open(name: &str) -> Raw {
    Raw::open(name, wish(true)).unwrap().remove(0)
}

/// The next frame with `mark` in it, and what is left to do on it; nothing if none comes within `patience`.
fn read(raw: &mut Raw, patience: Duration, mark: &[u8]) -> Option<(Vec<u8>, Offload)> {
    let mut buffer = vec![0; CAPTURE_MAX];
    let deadline = Instant::now() + patience;
    loop {
        match raw.read(&mut buffer).unwrap() {
            Some(read) => {
                let Captured { frame, offload } = read.unwrap();
                if mark.is_empty() || frame.windows(mark.len()).any(|window| window == mark) {
                    return Some((frame.to_vec(), offload));
                }
            }
            None if Instant::now() < deadline => {
                poll(&mut [PollFd::new(raw.as_fd(), PollFlags::POLLIN)], 20u8).unwrap();
            }
            None => return None,
        }
    }
}

const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(100);

/// UDP over IPv4 from `ports[0]` to `ports[1]`; its checksum is none.
fn udp(ports: [u16; 2], mark: &[u8]) -> Vec<u8> {
    let length = (28 + mark.len()) as u16;
    let mut frame = [&MACS[1][..], &MACS[0], &[8, 0, 0x45, 0], &length.to_be_bytes()].concat();
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    ports.iter().chain(&[length - 20, 0]).for_each(|word| frame.extend(word.to_be_bytes()));
    [frame, mark.to_vec()].concat()
}

#[test]
fn frames_pass_both_ways_and_our_own_do_not_come_back() {
    with_pair(async |_| {
        let (mut one, mut two) = (open("one"), open("two"));
        let frame = udp([1, 2], b"a frame");
        one.write(&Offload::NONE, &[&frame[..20], &frame[20..]]).unwrap();
        assert_eq!(read(&mut two, LONG, b"a frame"), Some((frame.clone(), Offload::NONE)));
        assert_eq!(read(&mut one, SHORT, b"a frame"), None, "it would be carried again");
        two.write(&Offload::NONE, &[&frame]).unwrap();
        assert!(read(&mut one, LONG, b"a frame").is_some());
    });
}

#[test]
fn what_the_filter_keeps_out_does_not_come() {
    with_pair(async |netlink| {
        let (mut one, mut two) = (open("one"), open("two"));
        let mac = netlink.link("two").await.unwrap().unwrap().mac.unwrap();
        let to_two = [&mac.0[..], &udp([1, 2], b"for the interface")[6..]].concat();
        for frame in [udp([6783, 9], b"from the mesh"), udp([9, 6783], b"to the mesh"), to_two] {
            one.write(&Offload::NONE, &[&frame]).unwrap();
        }
        one.write(&Offload::NONE, &[&udp([4789, 4789], b"for VTEPs")]).unwrap();
        one.write(&Offload::NONE, &[&udp([9, 9], b"the last")]).unwrap();
        let next = |two: &mut Raw| read(two, LONG, b"").map(|(frame, _)| frame[42..].to_vec());
        assert_eq!(next(&mut two), Some(b"for VTEPs".to_vec()));
        assert_eq!(next(&mut two), Some(b"the last".to_vec()));
        sieve::attach(&two.handle().unwrap(), &[6783, 4789], super::super::sieve::Part::All).unwrap();
        one.write(&Offload::NONE, &[&udp([4789, 4789], b"for VTEPs")]).unwrap();
        assert_eq!(read(&mut two, SHORT, b"for VTEPs"), None, "replaced");
    });
}

#[test]
fn super_frames_and_unfinished_checksums_pass_as_they_are() {
    with_pair(async |_| {
        let (mut one, mut two) = (open("one"), open("two"));
        let payload = [b"a super-frame".to_vec(), vec![7; 30_000]].concat();
        let mut frame = [&MACS[1][..], &MACS[0], &[8, 0, 0x45, 0]].concat();
        frame.extend((40 + payload.len() as u16).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let sum = frame[14..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>();
        let sum = (sum & 0xffff) + (sum >> 16);
        frame[24..26].copy_from_slice(&(!(sum as u16 + (sum >> 16) as u16)).to_be_bytes());
        frame.extend([0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 255, 255, 0, 0, 0, 0]);
        frame.extend(&payload);
        let checksum = Some(Partial { start: 34, offset: 16 });
        let gso = Gso { kind: GsoKind::Tcp4, ecn: false, size: 1448, headers: 54 };
        let offload = Offload { checksum, gso: Some(gso) };
        one.write(&offload, &[&frame[..54], &frame[54..]]).unwrap();
        let (got, told) = read(&mut two, LONG, b"a super-frame").unwrap();
        assert_eq!((got.len(), told.checksum), (frame.len(), checksum));
        assert_eq!(told.gso.map(|gso| (gso.kind, gso.size)), Some((GsoKind::Tcp4, 1448)));
        let long = vec![0; 1600];
        assert!(one.write(&Offload::NONE, &[&long]).is_err(), "the interface has no room for it");
    });
}

#[test]
fn an_injector_sends_as_a_capture_does_and_a_capture_beside_it_does_not_hear_that() {
    with_pair(async |_| {
        let (mut one, mut two, injector) = (open("one"), open("two"), Injector::open("one").unwrap());
        let mut frame = udp([1, 2], b"injected");
        // The sum of its pseudo-header, for the checksum to be unfinished.
        let length = (frame.len() - 34) as u16;
        let words = frame[26..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let sum = words.sum::<u32>() + 17 + u32::from(length);
        frame[40..42].copy_from_slice(&((sum as u16).wrapping_add((sum >> 16) as u16)).to_be_bytes());
        let offload = Offload { checksum: Some(Partial { start: 34, offset: 6 }), gso: None };
        injector.write(&offload, &[&frame[..42], &frame[42..]]).unwrap();
        assert_eq!(read(&mut two, LONG, b"injected"), Some((frame, offload)));
        assert_eq!(read(&mut one, SHORT, b"injected"), None);
        assert_eq!(Injector::open("three").err().unwrap().raw_os_error(), Some(libc::ENODEV));
        can_inject().unwrap();
    });
}

#[test]
fn a_tag_is_put_back_where_it_was() {
    with_pair(async |_| {
        let (mut one, mut two) = (open("one"), open("two"));
        let plain = udp([1, 2], b"a tagged frame");
        let tagged = [&plain[..12], &[0x81, 0, 0x20, 42], &plain[12..]].concat();
        one.write(&Offload::NONE, &[&tagged]).unwrap();
        assert_eq!(read(&mut two, LONG, b"a tagged frame"), Some((tagged, Offload::NONE)));
        let partial = Offload { checksum: Some(Partial { start: 34, offset: 6 }), gso: None };
        assert_eq!(behind_tag(partial).checksum, Some(Partial { start: 38, offset: 6 }));
    });
}

#[test]
fn down_and_up_again_goes_on() {
    with_pair(async |netlink| {
        let (mut one, mut two) = (open("one"), open("two"));
        for name in ["one", "two"] {
            netlink.set_down(name).await.unwrap();
        }
        assert!(one.write(&Offload::NONE, &[&udp([1, 2], b"lost")]).is_err());
        assert_eq!(read(&mut two, SHORT, b"lost"), None);
        for name in ["one", "two"] {
            netlink.set_up(name).await.unwrap();
        }
        settle();
        assert_eq!(read(&mut one, SHORT, b"lost"), None);
        one.write(&Offload::NONE, &[&udp([1, 2], b"again")]).unwrap();
        assert!(read(&mut two, LONG, b"again").is_some());
    });
}

#[test]
fn flows_are_spread_over_queues_and_each_frame_comes_once() {
    with_pair(async |_| {
        let mut one = open("one");
        let mut queues = Raw::open("two", Wish { queues: 2, ..wish(true) }).unwrap();
        for flow in 0..64u16 {
            for _ in 0..3 {
                one.write(&Offload::NONE, &[&udp([1000 + flow, 2], &[0xee, 0xff, 0xee, flow as u8])]).unwrap();
            }
        }
        let mut seen = Vec::new();
        for raw in &mut queues {
            let mut flows = Vec::new();
            while let Some((frame, _)) = read(raw, SHORT, &[0xee, 0xff, 0xee]) {
                flows.push(frame[45]);
            }
            flows.sort_unstable();
            assert!(flows.chunks(3).all(|flow| flow.len() == 3 && flow.iter().all(|f| *f == flow[0])), "{flows:?}");
            seen.push(flows.len());
        }
        assert_eq!(seen.iter().sum::<usize>(), 192);
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
        assert!(queues.iter().all(|raw| raw.dropped() == 0));
    });
}

#[test]
fn an_interface_that_is_not_there_is_told() {
    with_pair(async |_| {
        let error = Raw::open("three", wish(true)).err().unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    });
}
