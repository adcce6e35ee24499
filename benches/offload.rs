//! Super-frames cut and put together: of 64 KB, and of 64 segments of 64 and 512 bytes, of TCP and UDP; beside a copy of the same
//! bytes; and sums. Elements per second are
//! segments. What is measured of the coalescer is a whole batch: made, fed, flushed.

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use etherparse::{PacketBuilder, TcpHeader};
use rnet::plane::Place;
use rnet::plane::fib::PortId;
use rnet::plane::offload::{Arrival, Coalescer, Layout, Merge, Segments, Way, checksum};
use rnet::types::ShortId;
use rnet::wire::virtio::{Gso, GsoKind, Offload};
use std::hint::black_box;

const WAY: Way = Way { port: PortId(1), origin: Place::Peer(ShortId(2)) };
const BOTH: Merge = Merge { tcp: true, udp: true };

/// TCP with time stamps, as the kernel sends it.
fn tcp(ports: u16, payload: usize) -> Vec<u8> {
    let mut header = TcpHeader::new(ports, 5201, 1000, 512);
    header.ack = true;
    header.set_options_raw(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]).expect("12 bytes of options");
    let packet = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp_header(header);
    let mut frame = Vec::new();
    packet.write(&mut frame, &vec![7; payload]).expect("a vector takes everything");
    frame
}

fn udp(ports: u16, payload: usize) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(ports, 9);
    let mut frame = Vec::new();
    packet.write(&mut frame, &vec![7; payload]).expect("a vector takes everything");
    frame
}

fn cut(segments: &Segments<'_>, into: &mut [u8]) {
    let mut rest = into;
    for n in 0..segments.count() {
        let Some((segment, after)) = rest.split_at_mut_checked(segments.len_of(n)) else { return };
        segments.write(n, segment);
        rest = after;
    }
}

fn super_frames() -> [(&'static str, Vec<u8>, Gso); 6] {
    let of_tcp = |size| Gso { kind: GsoKind::Tcp4, ecn: false, size, headers: 66 };
    let of_udp = |size| Gso { kind: GsoKind::Udp, ecn: false, size, headers: 42 };
    [
        ("64 x 64 B TCP", tcp(1, 64 * 64), of_tcp(64)),
        ("64 x 512 B TCP", tcp(1, 64 * 512), of_tcp(512)),
        ("64 KB TCP", tcp(1, 65_160), of_tcp(1448)),
        ("64 x 64 B UDP", udp(1, 64 * 64), of_udp(64)),
        ("64 x 512 B UDP", udp(1, 64 * 512), of_udp(512)),
        ("64 KB UDP", udp(1, 45 * 1400), of_udp(1400)),
    ]
}

fn sums(c: &mut Criterion) {
    let bytes = vec![0xa5; 1400];
    let mut frame = tcp(1, 1448);
    let partial = Layout::of(&frame).expect("TCP").partial();
    let mut group = c.benchmark_group("checksum");
    group.bench_function("sum 1400 bytes", |b| b.iter(|| checksum::sum(black_box(&bytes))));
    group.bench_function("complete 1448 bytes", |b| b.iter(|| checksum::complete(black_box(&mut frame), partial)));
    group.finish();
}

fn segment(c: &mut Criterion) {
    let mut group = c.benchmark_group("segment");
    for (name, frame, gso) in &super_frames() {
        let segments = Segments::new(frame, gso).expect("sound");
        let total: usize = (0..segments.count()).map(|n| segments.len_of(n)).sum();
        let mut memory = vec![0; total];
        let whole: Vec<u8> = frame.iter().copied().cycle().take(total).collect();
        group.throughput(Throughput::Elements(segments.count() as u64));
        group.bench_function(*name, |b| {
            b.iter(|| cut(&Segments::new(black_box(frame), gso).expect("sound"), black_box(&mut memory)))
        });
        group.bench_function(format!("{name}, a copy of the same pieces"), |b| {
            b.iter(|| {
                let pieces = memory.chunks_mut(segments.longest()).zip(black_box(&whole).chunks(segments.longest()));
                pieces.for_each(|(into, from)| into.copy_from_slice(from));
            })
        });
    }
    group.finish();
}

fn coalesce(c: &mut Criterion) {
    let mut group = c.benchmark_group("coalesce");
    group.bench_function("nothing", |b| b.iter(|| batch(black_box(&[]), true)));
    for (name, frame, gso) in &super_frames() {
        let segments = Segments::new(frame, gso).expect("sound");
        let partial: Vec<Vec<u8>> = (0..segments.count())
            .map(|n| {
                let mut segment = vec![0; segments.len_of(n)];
                segments.write(n, &mut segment);
                segment
            })
            .collect();
        let mut complete = partial.clone();
        complete.iter_mut().for_each(|frame| checksum::complete(frame, segments.partial()).expect("TCP or UDP"));
        group.throughput(Throughput::Elements(segments.count() as u64));
        whole_batch(&mut group, &format!("{name}, partial"), &partial, true, 1);
        whole_batch(&mut group, &format!("{name}, complete"), &complete, false, 1);
    }
    let turns: Vec<Vec<u8>> = (0..64).map(|n| udp(n % 8, 64)).collect();
    let many: Vec<Vec<u8>> = (0..64).map(|flow| udp(flow, 64)).collect();
    let acks: Vec<Vec<u8>> = (0..64).map(|_| tcp(1, 0)).collect();
    group.throughput(Throughput::Elements(64));
    whole_batch(&mut group, "8 UDP flows in turn, 64 frames, complete", &turns, false, 8);
    whole_batch(&mut group, "64 UDP flows of a frame each, complete", &many, false, 64);
    whole_batch(&mut group, "64 empty acknowledgements", &acks, false, 64);
    group.finish();
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn whole_batch(group: &mut Group<'_>, name: &str, frames: &[Vec<u8>], partial: bool, expected: usize) {
    assert_eq!(batch(frames, partial), expected);
    group.bench_function(name, |b| b.iter(|| batch(black_box(frames), partial)));
}

/// How many frames come out of a batch.
fn batch(frames: &[Vec<u8>], partial: bool) -> usize {
    let mut delivered = 0;
    let mut deliver = |_: PortId, _: &Offload, parts: &[&[u8]]| {
        delivered += 1;
        black_box(parts);
    };
    let mut coalescer = Coalescer::new();
    for frame in frames {
        let arrival = Arrival { way: WAY, frame, partial };
        if !coalescer.join(arrival) {
            coalescer.begin(arrival, BOTH, &mut deliver);
        }
    }
    coalescer.flush(&mut deliver);
    delivered
}

criterion_group!(benches, sums, segment, coalesce);
criterion_main!(benches);
