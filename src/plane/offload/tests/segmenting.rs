use super::naive::{self, Packet, ipv4, ipv6, payload, tcp, udp};
use crate::plane::offload::segment::{TCP_SEGMENTS_MAX, UDP_SEGMENTS_MAX};
use crate::plane::offload::{Segments, checksum};
use crate::wire::Malformed;
use crate::wire::virtio::{Gso, GsoKind};
use proptest::prelude::*;

fn gso(kind: GsoKind, size: usize) -> Gso {
    Gso { kind, ecn: false, size: size.try_into().unwrap(), headers: 0 }
}

fn kind(v4: bool, is_tcp: bool) -> GsoKind {
    match (is_tcp, v4) {
        (false, _) => GsoKind::Udp,
        (true, true) => GsoKind::Tcp4,
        (true, false) => GsoKind::Tcp6,
    }
}

fn packet(v4: bool, is_tcp: bool, len: usize) -> Packet {
    let ip = if v4 { ipv4(1) } else { ipv6(1) };
    Packet::new(ip, if is_tcp { tcp() } else { udp() }, payload(len))
}

/// Every segment as it is written into memory that held something else.
fn written(segments: &Segments<'_>) -> Vec<Vec<u8>> {
    let write = |n| {
        let mut into = vec![0xa5; segments.len_of(n)];
        segments.write(n, &mut into);
        into
    };
    (0..segments.count()).map(write).collect()
}

/// Segments have partial checksums, and completed they are the naive ones.
fn assert_naive(segments: &Segments<'_>, frame: &[u8], size: usize) {
    let expected = naive::segment(frame, size);
    let partial = written(segments);
    assert_eq!(segments.longest(), expected.iter().map(Vec::len).max().unwrap());
    let mut complete = partial.clone();
    complete.iter_mut().for_each(|segment| checksum::complete(segment, segments.partial()).unwrap());
    assert_eq!(complete, expected);
    let whole = (0..segments.count()).map(|n| {
        let mut into = vec![0xa5; segments.len_of(n)];
        segments.write_whole(n, &mut into);
        into
    });
    assert!(whole.eq(expected.iter().cloned()), "complete from the start");
    for (partial, complete) in partial.iter().zip(&expected) {
        assert_eq!(*partial, Packet::parse(complete).partial());
    }
}

#[test]
fn every_kind_is_cut_as_the_naive_way_does() {
    for (v4, is_tcp) in [(true, true), (true, false), (false, true), (false, false)] {
        for (len, size) in [(5000, 1448), (4344, 1448), (1448, 1448), (100, 1448), (65, 64), (1, 1), (64, 1)] {
            let frame = packet(v4, is_tcp, len).bytes();
            let segments = Segments::new(&frame, &gso(kind(v4, is_tcp), size)).unwrap();
            assert_naive(&segments, &frame, size);
        }
    }
}

#[test]
fn the_largest_super_frame_is_cut() {
    let frame = packet(true, true, 65_535 - 52).bytes();
    assert_eq!(frame.len(), crate::wire::frame::SUPER_FRAME_MAX);
    let segments = Segments::new(&frame, &gso(GsoKind::Tcp4, 1448)).unwrap();
    assert_naive(&segments, &frame, 1448);
}

#[test]
fn fin_and_psh_are_the_last_segments_cwr_is_the_first_ones_and_the_rest_everybodys() {
    let mut packet = packet(true, true, 3000);
    (packet.tcp().fin, packet.tcp().psh, packet.tcp().cwr, packet.tcp().ece) = (true, true, true, true);
    let frame = packet.bytes();
    let segments = Segments::new(&frame, &Gso { ecn: true, ..gso(GsoKind::Tcp4, 1000) }).unwrap();
    let flags: Vec<u8> = written(&segments).iter().map(|segment| segment[47]).collect();
    assert_eq!(flags, [0x80 | 0x40 | 0x10, 0x40 | 0x10, 0x40 | 0x10 | 0x08 | 0x01]);
    let alone = Segments::new(&frame, &gso(GsoKind::Tcp4, 3000)).unwrap();
    assert_eq!(written(&alone)[0][47], 0x80 | 0x40 | 0x10 | 0x08 | 0x01);
}

#[test]
fn numbers_begin_anew_after_the_largest() {
    let frame = packet(true, true, 6000).bytes();
    let segments = Segments::new(&frame, &gso(GsoKind::Tcp4, 1500)).unwrap();
    let numbers: Vec<_> = written(&segments)
        .iter()
        .map(|segment| {
            let mut parsed = Packet::parse(segment);
            (parsed.ipv4().identification, parsed.tcp().sequence_number)
        })
        .collect();
    assert_eq!(numbers, [(0xfffe, u32::MAX - 2000), (0xffff, u32::MAX - 500), (0, 999), (1, 2499)]);
}

#[test]
fn padding_is_not_sent() {
    let frame = packet(true, false, 100).bytes();
    let padded = [&frame[..], &[0xee; 20]].concat();
    let segments = Segments::new(&padded, &gso(GsoKind::Udp, 60)).unwrap();
    assert_naive(&segments, &frame, 60);
}

#[test]
fn the_hint_and_the_old_checksums_are_not_looked_at() {
    let mut frame = packet(true, true, 3000).bytes();
    let honest = written(&Segments::new(&frame, &gso(GsoKind::Tcp4, 1000)).unwrap());
    frame[24..26].fill(0x77);
    frame[50..52].fill(0x77);
    let gso = Gso { headers: u16::MAX, ..gso(GsoKind::Tcp4, 1000) };
    assert_eq!(written(&Segments::new(&frame, &gso).unwrap()), honest);
}

#[test]
fn a_super_frame_without_payload_is_one_segment() {
    for (v4, is_tcp) in [(true, true), (false, true), (true, false), (false, false)] {
        let frame = packet(v4, is_tcp, 0).bytes();
        let segments = Segments::new(&frame, &gso(kind(v4, is_tcp), 1000)).unwrap();
        assert_eq!((segments.count(), segments.longest(), segments.len_of(0)), (1, frame.len(), frame.len()));
        assert_naive(&segments, &frame, 1000);
    }
}

#[test]
fn a_kind_that_is_not_the_frames_is_malformed() {
    for (v4, is_tcp) in [(true, true), (true, false), (false, true), (false, false)] {
        let frame = packet(v4, is_tcp, 3000).bytes();
        for other in [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp] {
            let result = Segments::new(&frame, &gso(other, 1000)).map(|_| ());
            let expected = if other == kind(v4, is_tcp) { Ok(()) } else { Err(Malformed::Kind) };
            assert_eq!(result, expected);
        }
    }
}

#[test]
fn lies_are_malformed() {
    let frame = packet(true, true, 3000).bytes();
    let with = |at: usize, value: u8| {
        let mut frame = frame.clone();
        frame[at] = value;
        Segments::new(&frame, &gso(GsoKind::Tcp4, 1000)).map(|_| ())
    };
    assert_eq!(with(16, 0xff), Err(Malformed::Kind), "longer than the frame");
    assert_eq!(with(14, 0x46), Err(Malformed::Kind), "options");
    assert_eq!(with(20, 0x60), Err(Malformed::Kind), "a fragment");
    assert_eq!(with(46, 0x10), Err(Malformed::Kind), "a header of 4 bytes");
    assert_eq!(
        Segments::new(&frame[..60], &gso(GsoKind::Tcp4, 1000)).map(|_| ()),
        Err(Malformed::Kind),
        "cut in a header"
    );
    assert_eq!(Segments::new(&[], &gso(GsoKind::Tcp4, 1000)).map(|_| ()), Err(Malformed::Kind));
    assert_eq!(
        Segments::new(&frame, &gso(GsoKind::Tcp4, 0)).map(|_| ()),
        Err(Malformed::Field),
        "segments of no bytes"
    );
}

#[test]
fn too_many_segments_are_malformed() {
    let count = |is_tcp, len, size| {
        Segments::new(&packet(true, is_tcp, len).bytes(), &gso(kind(true, is_tcp), size))
            .map(|segments| segments.count())
    };
    assert_eq!(count(false, UDP_SEGMENTS_MAX * 10, 10), Ok(UDP_SEGMENTS_MAX));
    assert_eq!(count(false, UDP_SEGMENTS_MAX * 10 + 1, 10), Err(Malformed::TooLong));
    assert_eq!(count(true, TCP_SEGMENTS_MAX * 3, 3), Ok(TCP_SEGMENTS_MAX));
    assert_eq!(count(true, TCP_SEGMENTS_MAX * 3 + 1, 3), Err(Malformed::TooLong));
}

#[test]
fn tcp_is_narrowed_as_far_as_there_is_room_and_udp_never() {
    let frame = packet(true, true, 9000).bytes();
    let segments = Segments::new(&frame, &gso(GsoKind::Tcp4, 1448)).unwrap();
    for frame_len in [66 + 2, 300, 1513, 1514, 1515, 9000, usize::MAX] {
        let narrowed = segments.narrowed(frame_len).unwrap();
        let size = 1448.min(frame_len - 66);
        assert_eq!(narrowed.longest(), 66 + size);
        assert_naive(&narrowed, &frame, size);
    }
    for frame_len in [0, 1, 65, 66, 66 + 1] {
        assert!(segments.narrowed(frame_len).is_none(), "{frame_len}: no room, or 9000 segments");
    }
    let small = packet(true, true, 100).bytes();
    let segments = Segments::new(&small, &gso(GsoKind::Tcp4, 60)).unwrap();
    assert_naive(&segments.narrowed(67).unwrap(), &small, 1);
    assert_naive(&segments.narrowed(80).unwrap().narrowed(1000).unwrap(), &small, 14);
    let udp = packet(true, false, 3000).bytes();
    assert!(Segments::new(&udp, &gso(GsoKind::Udp, 1000)).unwrap().narrowed(60_000).is_none());
}

#[test]
fn memory_of_another_length_and_segments_that_do_not_exist_are_left_alone() {
    let frame = packet(true, true, 3000).bytes();
    let segments = Segments::new(&frame, &gso(GsoKind::Tcp4, 1000)).unwrap();
    for (n, length) in [(0, 0), (0, 40), (0, 1065), (0, 1067), (3, 66), (4, 66), (usize::MAX, 66), (usize::MAX, 1066)] {
        let mut into = vec![0xa5; length];
        segments.write(n, &mut into);
        assert!(into.iter().all(|byte| *byte == 0xa5), "{n} {length}");
    }
    assert_eq!((segments.len_of(2), segments.len_of(3), segments.len_of(usize::MAX)), (1066, 66, 66));
}

proptest! {
    #[test]
    fn any_super_frame_is_cut_as_the_naive_way_does(
        (v4, is_tcp, ecn) in any::<(bool, bool, bool)>(),
        (len, size) in (0usize..20_000, 1usize..3000),
        (options, flags) in (0usize..=10, any::<u8>()),
        (id, sequence, dont_fragment, class) in any::<(u16, u32, bool, u8)>(),
        narrow in 60usize..3000,
    ) {
        let mut packet = packet(v4, is_tcp, len);
        match &mut packet.ip {
            naive::Ip::V4(ip) => (ip.identification, ip.dont_fragment) = (id, dont_fragment),
            naive::Ip::V6(ip) => ip.traffic_class = class,
        }
        if is_tcp {
            let tcp = packet.tcp();
            tcp.set_options_raw(&vec![1; options * 4]).unwrap();
            (tcp.sequence_number, tcp.cwr, tcp.ece, tcp.urg) = (sequence, flags & 128 != 0, flags & 64 != 0, flags & 32 != 0);
            (tcp.ack, tcp.psh, tcp.fin) = (flags & 16 != 0, flags & 8 != 0, flags & 1 != 0);
        }
        let frame = packet.partial();
        let most = if is_tcp { TCP_SEGMENTS_MAX } else { UDP_SEGMENTS_MAX };
        let segments = Segments::new(&frame, &Gso { ecn: ecn && is_tcp, ..gso(kind(v4, is_tcp), size) });
        prop_assert_eq!(segments.is_ok(), len.div_ceil(size) <= most);
        let Ok(segments) = segments else { return Ok(()) };
        assert_naive(&segments, &frame, size);
        let headers = frame.len() - len;
        match segments.narrowed(narrow) {
            Some(narrowed) => assert_naive(&narrowed, &frame, size.min(narrow - headers)),
            None => prop_assert!(!is_tcp || narrow <= headers || len.div_ceil(narrow - headers) > most),
        }
    }

    #[test]
    fn any_bytes_are_refused_or_cut(
        changes in prop::collection::vec((0usize..90, any::<u8>()), 0..4),
        (v4, is_tcp) in any::<(bool, bool)>(),
        (cut, size) in (0usize..300, 0u16..100),
    ) {
        let mut frame = packet(v4, is_tcp, 100).bytes();
        changes.iter().for_each(|(at, value)| frame[*at] = *value);
        frame.truncate(cut);
        for kind in [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp] {
            if let Ok(segments) = Segments::new(&frame, &gso(kind, size.into())) {
                prop_assert_eq!(written(&segments).len(), segments.count());
            }
        }
    }
}
