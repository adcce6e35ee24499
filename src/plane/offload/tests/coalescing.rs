use super::naive::{self, Ip, Packet, Transport, ipv4, ipv6, payload, tcp, udp};
use crate::plane::fib::PortId;
use crate::plane::macs::Place;
use crate::plane::offload::coalesce::{RUNS_MAX, SEGMENTS_MAX};
use crate::plane::offload::{Arrival, Coalescer, Layout, Merge, Way, checksum};
use crate::types::ShortId;
use crate::wire::virtio::{Gso, GsoKind, Offload};

pub(super) const WAY: Way = Way { port: PortId(1), origin: Place::Peer(ShortId(7)) };
pub(super) const BOTH: Merge = Merge { tcp: true, udp: true };

/// What was delivered, in order.
#[derive(Default)]
struct Memory(Vec<(PortId, Offload, Vec<u8>)>);

impl Memory {
    /// How many frames each delivery is worth.
    fn counts(&self) -> Vec<usize> {
        self.0.iter().map(|(_, offload, frame)| naive::finished(offload, frame).len()).collect()
    }

    fn frames(&self) -> Vec<Vec<u8>> {
        self.0.iter().flat_map(|(_, offload, frame)| naive::finished(offload, frame)).collect()
    }
}

/// One batch.
fn deliver<'d>(arrivals: impl IntoIterator<Item = Arrival<'d>>, merge: Merge) -> Memory {
    let mut memory = Memory::default();
    let mut deliver =
        |port: PortId, offload: &Offload, parts: &[&[u8]]| memory.0.push((port, *offload, parts.concat()));
    let mut coalescer = Coalescer::new();
    for arrival in arrivals {
        if !coalescer.join(arrival) {
            coalescer.begin(arrival, merge, &mut deliver);
        }
    }
    coalescer.flush(&mut deliver);
    memory
}

pub(super) fn arrive(frames: &[Vec<u8>], partial: bool) -> impl Iterator<Item = Arrival<'_>> {
    frames.iter().map(move |frame| Arrival { way: WAY, frame, partial })
}

fn counts(frames: &[Vec<u8>]) -> Vec<usize> {
    deliver(arrive(frames, false), BOTH).counts()
}

/// The four kinds of packets, in flow 1.
pub(super) fn kinds() -> [Packet; 4] {
    [(ipv4(1), tcp()), (ipv6(1), tcp()), (ipv4(1), udp()), (ipv6(1), udp())]
        .map(|(ip, transport)| Packet::new(ip, transport, vec![]))
}

/// Packets that continue each other, with payloads of these lengths.
pub(super) fn train(first: &Packet, lengths: &[usize]) -> Vec<Packet> {
    let mut next = first.clone();
    let mut bytes = payload(lengths.iter().sum());
    lengths
        .iter()
        .map(|len| {
            let rest = bytes.split_off(*len);
            let packet = Packet { payload: std::mem::replace(&mut bytes, rest), ..next.clone() };
            if let Transport::Tcp(tcp) = &mut next.transport {
                tcp.sequence_number = tcp.sequence_number.wrapping_add(*len as u32);
            }
            if let Ip::V4(ip) = &mut next.ip {
                ip.identification = ip.identification.wrapping_add(1);
            }
            packet
        })
        .collect()
}

fn bytes(packets: &[Packet]) -> Vec<Vec<u8>> {
    packets.iter().map(Packet::bytes).collect()
}

#[test]
fn segments_of_every_kind_leave_as_one_super_frame() {
    let headers = [(GsoKind::Tcp4, 66), (GsoKind::Tcp6, 86), (GsoKind::Udp, 42), (GsoKind::Udp, 62)];
    for (packet, (kind, headers)) in kinds().iter().zip(headers) {
        let packets = train(packet, &[700, 700, 700, 80]);
        let frames = bytes(&packets);
        let partial: Vec<Vec<u8>> = packets.iter().map(Packet::partial).collect();
        let whole = Packet { payload: payload(2180), ..packet.clone() }.partial();
        let checksum = Some(Layout::of(&whole).unwrap().partial());
        let offload = Offload { checksum, gso: Some(Gso { kind, ecn: false, size: 700, headers }) };
        for memory in [deliver(arrive(&frames, false), BOTH), deliver(arrive(&partial, true), BOTH)] {
            assert_eq!(memory.0, [(WAY.port, offload, whole.clone())]);
            assert_eq!(memory.frames(), frames);
        }
        let half = frames.iter().enumerate().map(|(n, frame)| match n % 2 {
            0 => Arrival { way: WAY, frame, partial: false },
            _ => Arrival { way: WAY, frame: &partial[n], partial: true },
        });
        assert_eq!(deliver(half, BOTH).0, [(WAY.port, offload, whole.clone())]);
    }
}

#[test]
fn payloads_are_not_copied() {
    let frames = bytes(&train(&kinds()[0], &[700, 700, 80]));
    let mut coalescer = Coalescer::new();
    let mut parts_seen = Vec::new();
    let mut deliver =
        |_: PortId, _: &Offload, parts: &[&[u8]]| parts_seen.extend(parts.iter().map(|part| part.as_ptr_range()));
    for arrival in arrive(&frames, false) {
        if !coalescer.join(arrival) {
            coalescer.begin(arrival, BOTH, &mut deliver);
        }
    }
    coalescer.flush(&mut deliver);
    let expected: Vec<_> = frames.iter().map(|frame| frame[66..].as_ptr_range()).collect();
    assert_eq!(parts_seen[1..], expected);
}

#[test]
fn a_frame_alone_is_delivered_as_it_came() {
    for packet in kinds() {
        let packet = &train(&packet, &[700])[0];
        let (frame, partial) = (packet.bytes(), packet.partial());
        let checksum = Some(Layout::of(&frame).unwrap().partial());
        assert_eq!(
            deliver(arrive(std::slice::from_ref(&frame), false), BOTH).0,
            [(WAY.port, Offload::NONE, frame.clone())]
        );
        let memory = deliver(arrive(std::slice::from_ref(&partial), true), BOTH);
        assert_eq!(memory.0, [(WAY.port, Offload { checksum, gso: None }, partial)]);
    }
}

#[test]
fn a_port_that_takes_no_super_frames_of_a_protocol_gets_none() {
    for packet in kinds() {
        let frames = bytes(&train(&packet, &[700, 700]));
        let is_tcp = matches!(packet.transport, Transport::Tcp(_));
        for merge in [Merge { tcp: true, udp: false }, Merge { tcp: false, udp: true }, Merge::default()] {
            let expected: &[usize] = if (is_tcp && merge.tcp) || (!is_tcp && merge.udp) { &[2] } else { &[1, 1] };
            assert_eq!(deliver(arrive(&frames, false), merge).counts(), expected);
        }
    }
}

#[test]
fn a_shorter_segment_closes_the_run_and_a_longer_one_does_not_join() {
    for packet in kinds() {
        assert_eq!(counts(&bytes(&train(&packet, &[700, 700, 699, 699, 699]))), [3, 2]);
        assert_eq!(counts(&bytes(&train(&packet, &[700, 701, 701]))), [1, 2]);
        assert_eq!(counts(&bytes(&train(&packet, &[1, 1, 1]))), [3]);
        assert_eq!(counts(&bytes(&train(&packet, &[700, 0, 700]))), [1, 1, 1]);
        assert_eq!(counts(&bytes(&train(&packet, &[0, 0]))), [1, 1]);
    }
}

#[test]
fn psh_closes_the_run_and_is_the_super_frames() {
    let mut packets = train(&kinds()[0], &[700; 5]);
    packets[2].tcp().psh = true;
    let memory = deliver(arrive(&bytes(&packets), false), BOTH);
    assert_eq!(memory.counts(), [3, 2]);
    assert_eq!(memory.frames(), bytes(&packets));
    assert_eq!((memory.0[0].2[47], memory.0[1].2[47]), (0x18, 0x10));
    packets[0].tcp().psh = true;
    assert_eq!(counts(&bytes(&packets)), [1, 2, 2], "with PSH nothing begins");
}

#[test]
fn every_other_flag_passes_alone() {
    let set: [fn(&mut etherparse::TcpHeader); 8] = [
        |tcp| tcp.fin = true,
        |tcp| tcp.syn = true,
        |tcp| tcp.rst = true,
        |tcp| tcp.urg = true,
        |tcp| tcp.ece = true,
        |tcp| tcp.cwr = true,
        |tcp| tcp.ns = true,
        |tcp| tcp.ack = false,
    ];
    for (n, set) in set.iter().enumerate() {
        let mut packets = train(&kinds()[1], &[700; 4]);
        set(packets[2].tcp());
        assert_eq!(counts(&bytes(&packets)), [2, 1, 1], "flag {n}");
    }
    for (n, set) in set.iter().enumerate().filter(|(n, _)| *n != 6) {
        let mut packets = train(&kinds()[0], &[700; 4]);
        packets.iter_mut().for_each(|packet| set(packet.tcp()));
        assert_eq!(counts(&bytes(&packets)), [1, 1, 1, 1], "flag {n} in all");
    }
}

#[test]
fn runs_end_at_64_segments_and_at_the_largest_packet() {
    for packet in kinds() {
        let memory = deliver(arrive(&bytes(&train(&packet, &[10; 150])), false), BOTH);
        assert_eq!(memory.counts(), [SEGMENTS_MAX, SEGMENTS_MAX, 22]);
        let packets = train(&packet, &[1448; 60]);
        let memory = deliver(arrive(&bytes(&packets), false), BOTH);
        let headers = packets[0].bytes().len() - 14 - 1448;
        let most = (65_535 - headers) / 1448;
        assert_eq!(memory.counts(), [most, 60 - most]);
        assert!(memory.0.iter().all(|(_, _, frame)| frame.len() <= 65_535 + 14));
        assert_eq!(memory.frames(), bytes(&packets));
        // Exactly as large, and one byte more.
        let rest = 65_535 - headers - 30_000;
        assert_eq!(counts(&bytes(&train(&packet, &[30_000, 30_000, rest - 30_000]))), [3]);
        assert_eq!(counts(&bytes(&train(&packet, &[30_000, 30_000, rest - 30_000 + 1]))), [2, 1]);
    }
}

#[test]
fn identifications_count_by_one_or_with_df_may_all_be_equal() {
    let merged = |dont_fragment: bool, identifications: &[u16]| {
        let mut packets = train(&kinds()[0], &vec![700; identifications.len()]);
        for (packet, identification) in packets.iter_mut().zip(identifications) {
            (packet.ipv4().identification, packet.ipv4().dont_fragment) = (*identification, dont_fragment);
        }
        counts(&bytes(&packets))
    };
    assert_eq!(merged(false, &[0xfffe, 0xffff, 0, 1]), [4]);
    assert_eq!(merged(true, &[0xfffe, 0xffff, 0, 1]), [4]);
    assert_eq!(merged(true, &[5, 5, 5, 5]), [4]);
    assert_eq!(merged(false, &[5, 5, 5, 5]), [1, 1, 1, 1]);
    for dont_fragment in [true, false] {
        assert_eq!(merged(dont_fragment, &[5, 6, 6, 7]), [2, 2]);
        assert_eq!(merged(dont_fragment, &[5, 7, 9, 8]), [1, 1, 1, 1]);
        assert_eq!(merged(dont_fragment, &[5, 6, 8, 9]), [2, 2]);
    }
    assert_eq!(merged(true, &[5, 5, 6, 7]), [2, 2]);
    assert_eq!(merged(false, &[5, 5, 6, 7]), [1, 3]);
}

#[test]
fn sequence_gaps_and_repetitions_do_not_join() {
    let packets = train(&kinds()[0], &[700; 6]);
    for (order, expected) in [([0, 1, 3, 4], vec![2, 2]), ([0, 1, 1, 2], vec![2, 2]), ([1, 0, 2, 3], vec![1, 1, 2])] {
        let mut packets: Vec<Packet> = order.iter().map(|n: &usize| packets[*n].clone()).collect();
        for (n, packet) in packets.iter_mut().enumerate() {
            packet.ipv4().identification = n as u16;
        }
        assert_eq!(counts(&bytes(&packets)), expected);
    }
}

#[test]
fn a_wrong_checksum_never_merges_and_is_delivered_as_it_came() {
    for packet in kinds() {
        let good = bytes(&train(&packet, &[700; 4]));
        for wrong in 0..4 {
            let mut frames = good.clone();
            let last = frames[wrong].len() - 1;
            frames[wrong][last] ^= 1;
            let mut counts: Vec<Vec<usize>> = Vec::new();
            let memory = deliver(arrive(&frames, false), BOTH);
            assert_eq!(memory.frames(), frames);
            counts.push(memory.counts());
            let expected: &[usize] = [&[1, 3][..], &[1, 1, 2], &[2, 1, 1], &[3, 1]][wrong];
            assert_eq!(counts[0], expected, "{wrong}");
        }
    }
}

#[test]
fn a_partial_checksum_that_is_not_the_pseudo_headers_never_merges() {
    for packet in kinds() {
        let packets = train(&packet, &[700; 4]);
        let good: Vec<Vec<u8>> = packets.iter().map(Packet::partial).collect();
        let at = usize::from({
            let partial = Layout::of(&good[0]).unwrap().partial();
            partial.start + partial.offset
        });
        for (wrong, expected) in [&[1, 3][..], &[1, 1, 2], &[2, 1, 1], &[3, 1]].iter().enumerate() {
            let mut frames = good.clone();
            frames[wrong][at + 1] ^= 1;
            assert_eq!(deliver(arrive(&frames, true), BOTH).counts(), *expected);
            // A complete one under a flag that says partial, and the other way round.
            let mut frames = good.clone();
            frames[wrong] = packets[wrong].bytes();
            assert_eq!(deliver(arrive(&frames, true), BOTH).counts(), *expected);
            let mut frames = bytes(&packets);
            frames[wrong] = packets[wrong].partial();
            assert_eq!(deliver(arrive(&frames, false), BOTH).counts(), *expected);
        }
    }
}

#[test]
fn a_wrong_ipv4_header_checksum_never_merges() {
    for packet in [&kinds()[0], &kinds()[2]] {
        for partial in [false, true] {
            for (wrong, expected) in [&[1, 3][..], &[1, 1, 2], &[2, 1, 1], &[3, 1]].iter().enumerate() {
                let packets = train(packet, &[700; 4]);
                let bytes = |packet: &Packet| if partial { packet.partial() } else { packet.bytes() };
                let mut frames: Vec<Vec<u8>> = packets.iter().map(bytes).collect();
                frames[wrong][25] ^= 1;
                let memory = deliver(arrive(&frames, partial), BOTH);
                assert_eq!(memory.counts(), *expected);
            }
        }
    }
}

#[test]
fn udp_without_a_checksum_never_merges() {
    for packet in &kinds()[2..] {
        let at = if matches!(packet.ip, Ip::V4(_)) { 40 } else { 60 };
        for partial in [false, true] {
            let mut frames = bytes(&train(packet, &[700; 3]));
            frames.iter_mut().for_each(|frame| frame[at..at + 2].fill(0));
            let mut memory = Memory::default();
            let mut deliver =
                |port: PortId, offload: &Offload, parts: &[&[u8]]| memory.0.push((port, *offload, parts.concat()));
            let mut coalescer = Coalescer::new();
            for arrival in arrive(&frames, partial) {
                assert!(!coalescer.join(arrival));
                coalescer.begin(arrival, BOTH, &mut deliver);
            }
            coalescer.flush(&mut deliver);
            assert_eq!(memory.0.iter().map(|(_, _, frame)| frame.clone()).collect::<Vec<_>>(), frames);
        }
    }
}

#[test]
fn a_sum_of_zero_without_a_checksum_is_no_checksum() {
    // The payload is such that the sum over a checksum field of 0 is right.
    let mut packet = Packet::new(ipv4(1), udp(), vec![0; 4]);
    let checksum = packet.bytes()[40..42].to_vec();
    packet.payload[..2].copy_from_slice(&checksum);
    let mut frame = packet.bytes();
    assert_eq!(frame[40..42], [0xff, 0xff]);
    assert_eq!(counts(&[frame.clone(), frame_after(&packet)]), [2]);
    frame[40..42].fill(0);
    let layout = Layout::of(&frame).unwrap();
    assert_eq!(checksum::fold(checksum::pseudo(&frame, &layout) + 12 + u32::from(checksum::sum(&frame[34..]))), 0xffff);
    assert_eq!(counts(&[frame.clone(), frame_after(&packet)]), [1, 1]);
    let mut first = packet.clone();
    first.ipv4().identification -= 1;
    assert_eq!(counts(&[first.bytes(), frame]), [1, 1]);
}

fn frame_after(packet: &Packet) -> Vec<u8> {
    let mut next = packet.clone();
    next.ipv4().identification += 1;
    next.bytes()
}

#[test]
fn padded_frames_pass_alone_with_their_padding() {
    for packet in kinds() {
        let mut frames = bytes(&train(&packet, &[700; 4]));
        frames[1].extend([0; 4]);
        let memory = deliver(arrive(&frames, false), BOTH);
        assert_eq!(
            memory.0.iter().map(|delivered| delivered.2.len()).collect::<Vec<_>>()[..2],
            [frames[0].len(), frames[1].len()]
        );
        assert_eq!(memory.counts(), [1, 1, 2]);
    }
}

#[test]
fn ways_never_mix() {
    let frames = bytes(&train(&kinds()[0], &[700; 4]));
    let ways = [WAY, Way { port: PortId(2), ..WAY }, Way { origin: Place::Peer(ShortId(8)), ..WAY }];
    for other in &ways[1..] {
        let mixed = frames.iter().enumerate().map(|(n, frame)| {
            let way = if n == 1 || n == 2 { *other } else { WAY };
            Arrival { way, frame, partial: false }
        });
        let memory = deliver(mixed, BOTH);
        assert_eq!(memory.counts(), [1, 2, 1]);
        assert_eq!(memory.0.iter().map(|delivered| delivered.0).collect::<Vec<_>>(), [WAY.port, other.port, WAY.port]);
    }
    // Equal frames of several ways: each way has its own.
    let all = frames.iter().flat_map(|frame| ways.map(|way| Arrival { way, frame, partial: false }));
    assert_eq!(deliver(all, BOTH).counts(), [4, 4, 4]);
}

#[test]
fn as_many_flows_as_there_are_runs_merge_side_by_side_and_leave_in_the_order_they_began() {
    let flows: Vec<Vec<Vec<u8>>> = (0..RUNS_MAX as u8)
        .map(|flow| {
            let [tcp4, tcp6, udp4, udp6] = kinds();
            let mut packet = [tcp4, tcp6, udp4, udp6][usize::from(flow % 4)].clone();
            packet.ethernet.source[5] = flow;
            bytes(&train(&packet, &[300; 5]))
        })
        .collect();
    let turns: Vec<Vec<u8>> = (0..5).flat_map(|turn| flows.iter().map(move |flow| flow[turn].clone())).collect();
    let memory = deliver(arrive(&turns, false), BOTH);
    assert_eq!(memory.counts(), [5; RUNS_MAX]);
    assert_eq!(memory.frames(), flows.concat());
}

#[test]
fn with_more_flows_the_one_that_waits_longest_leaves_first() {
    let flow = |flow: u8| {
        let mut packet = kinds()[0].clone();
        packet.ethernet.source[5] = flow;
        bytes(&train(&packet, &[300; 3]))
    };
    let flows: Vec<_> = (0..=RUNS_MAX as u8).map(flow).collect();
    let mut frames: Vec<Vec<u8>> = flows[..RUNS_MAX].iter().map(|flow| flow[0].clone()).collect();
    frames.push(flows[0][1].clone());
    frames.push(flows[RUNS_MAX][0].clone());
    frames.push(flows[0][2].clone());
    let memory = deliver(arrive(&frames, false), BOTH);
    assert_eq!(memory.0[0].2, flows[1][0], "flow 0 took a frame since");
    assert_eq!(memory.counts(), [1, 3, 1, 1, 1, 1, 1, 1, 1]);
}

#[test]
fn a_frame_waits_for_the_run_of_its_flow_and_for_no_other() {
    let mut other = kinds()[0].clone();
    other.tcp().source_port += 1;
    let others = bytes(&train(&other, &[300; 2]));
    let mut packets = train(&kinds()[0], &[300; 3]);
    packets[2].tcp().fin = true;
    let ours = bytes(&packets);
    let frames = [&others[0], &ours[0], &ours[1], &ours[2], &others[1]].map(Vec::clone);
    let memory = deliver(arrive(&frames, false), BOTH);
    assert_eq!(memory.counts(), [2, 1, 2]);
    assert_eq!(memory.frames(), [&ours[..], &others[..]].concat());
}

#[test]
fn a_frame_without_a_layout_waits_for_all_runs_between_the_same_two() {
    let mut fragment = bytes(&train(&kinds()[2], &[300]))[0].clone();
    fragment[20..22].copy_from_slice(&[0x20, 4]);
    let mut elsewhere = kinds()[0].clone();
    elsewhere.ethernet.destination[5] = 77;
    let elsewhere = bytes(&train(&elsewhere, &[300; 2]));
    let (first, second) = (bytes(&train(&kinds()[0], &[300; 2])), bytes(&train(&kinds()[2], &[300; 2])));
    let frames =
        [&elsewhere[0], &first[0], &second[0], &first[1], &second[1], &fragment, &elsewhere[1]].map(Vec::clone);
    for partial in [false, true] {
        let mut delivered = Vec::new();
        let mut deliver =
            |_: PortId, offload: &Offload, parts: &[&[u8]]| delivered.push((parts.len(), offload.checksum.is_some()));
        let mut coalescer = Coalescer::new();
        for (n, frame) in frames.iter().enumerate() {
            let arrival = Arrival { way: WAY, frame, partial: partial && n == 5 };
            if !coalescer.join(arrival) {
                coalescer.begin(arrival, BOTH, &mut deliver);
            }
        }
        coalescer.flush(&mut deliver);
        assert_eq!(delivered, [(3, true), (3, true), (1, false), (3, true)]);
    }
    let arp = [&first[0][..12], &[8, 6], &[0; 28]].concat();
    let short = first[0][..13].to_vec();
    let frames = [&first[0], &arp, &short, &first[1]].map(Vec::clone);
    let memory = deliver(arrive(&frames, false), BOTH);
    assert_eq!(memory.counts(), [1, 1, 2], "it is of no flow that runs");
    let other = Way { origin: Place::Peer(ShortId(8)), ..WAY };
    let arrivals = [(WAY, &first[0]), (other, &fragment), (WAY, &first[1])].map(|(way, frame)| Arrival {
        way,
        frame,
        partial: false,
    });
    assert_eq!(deliver(arrivals, BOTH).0.len(), 2, "it came another way");
}

#[test]
fn a_batch_of_any_size_is_taken() {
    // Nine hundred segments of seven flows in turn: more payloads than are held at a time.
    let flows: Vec<Vec<Vec<u8>>> = (0..7)
        .map(|flow| {
            let mut packet = kinds()[0].clone();
            packet.ethernet.source[5] = flow;
            bytes(&train(&packet, &[30; 130]))
        })
        .collect();
    let frames: Vec<Vec<u8>> = (0..130).flat_map(|turn| flows.iter().map(move |flow| flow[turn].clone())).collect();
    let memory = deliver(arrive(&frames, false), BOTH);
    assert!(memory.0.len() <= 7 * 3 + 7, "{}", memory.0.len());
    let mut coalescer = Coalescer::new();
    for arrival in arrive(&frames, false) {
        if !coalescer.join(arrival) {
            coalescer.begin(arrival, BOTH, &mut |_: PortId, _: &Offload, _: &[&[u8]]| ());
        }
        assert!(!coalescer.is_on_heap());
    }
    let mut out = memory.frames();
    let mut expected = frames.clone();
    out.sort();
    expected.sort();
    assert_eq!(out, expected);
}

#[test]
fn what_cannot_be_continued_is_delivered_at_once() {
    for packet in kinds() {
        let mut packets = train(&packet, &[0, 700]);
        if let Transport::Tcp(tcp) = &mut packets[1].transport {
            tcp.psh = true;
        }
        let is_tcp = matches!(packet.transport, Transport::Tcp(_));
        for (packet, at_once) in packets.iter().zip([true, is_tcp]) {
            let frame = packet.bytes();
            let mut delivered = 0;
            let mut coalescer = Coalescer::new();
            let arrival = Arrival { way: WAY, frame: &frame, partial: false };
            coalescer.begin(arrival, BOTH, &mut |_: PortId, _: &Offload, _: &[&[u8]]| delivered += 1);
            assert_eq!(delivered, usize::from(at_once));
        }
    }
}

#[test]
fn a_flushed_coalescer_begins_anew() {
    let frames = bytes(&train(&kinds()[0], &[300; 4]));
    let mut counts = Vec::new();
    let mut deliver = |_: PortId, _: &Offload, parts: &[&[u8]]| counts.push(parts.len());
    let mut coalescer = Coalescer::default();
    for pair in frames.chunks(2) {
        for arrival in arrive(pair, false) {
            if !coalescer.join(arrival) {
                coalescer.begin(arrival, BOTH, &mut deliver);
            }
        }
        coalescer.flush(&mut deliver);
        coalescer.flush(&mut deliver);
    }
    assert_eq!(counts, [3, 3]);
}
