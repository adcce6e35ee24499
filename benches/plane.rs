//! The whole plane: frames in to sealed datagrams out, and back, in bursts of 64 frames of 64, 512 and 1,400 bytes, and as
//! super-frames of 64 KB. Bytes per second are bytes of frames; what the kernel does on both sides is not in it.

mod planes;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use planes::{Memory, PORT, address, chain, frame, mac, super_frame};
use rnet::plane::{Plane, Takes};
use rnet::types::{Instant, Mac};
use rnet::wire::virtio::Offload;

const BURST: usize = 64;
const NOW: Instant = Instant::ZERO;
const ALL: Takes = Takes { checksum: true, tcp: true, udp: true };

/// What a burst is read from: its frames, one behind the other.
struct Burst {
    frames: Vec<Vec<u8>>,
    offload: Offload,
}

impl Burst {
    /// Captured at host 1: into sealed datagrams.
    fn out(&mut self, plane: &Plane, memory: &mut Memory) {
        memory.clear();
        let mut batch = plane.batch(NOW);
        for frame in &mut self.frames {
            batch.from_bridge(PORT, frame, &self.offload, memory);
        }
    }
}

/// Sealed datagrams from host 1: into frames at host 2.
fn back(plane: &Plane, burst: &mut Memory, memory: &mut Memory) {
    memory.clear();
    plane.batch(NOW).from_net(burst.sent_to(address(2)).map(|datagram| (address(1), datagram)), memory);
}

fn bursts() -> Vec<(String, Burst)> {
    let small = [64, 512, 1400].map(|len| {
        let frames = vec![frame(1, mac(2), len); BURST];
        (format!("{BURST} x {len}"), Burst { frames, offload: Offload::NONE })
    });
    let (frame, offload) = super_frame(1, mac(2), 64_704);
    let large = ("64 KB super-frame".to_string(), Burst { frames: vec![frame], offload });
    small.into_iter().chain([large]).collect()
}

fn plane(c: &mut Criterion) {
    let [first, second, _] = chain();
    let (mut out, mut delivered) = (Memory::new(), Memory::new());
    delivered.takes = ALL;
    // The first host learns where the second one's attachment is.
    second.from_bridge(PORT, &frame(2, Mac::BROADCAST, 60), NOW, &mut out);
    out.sent_to(address(1)).for_each(|datagram| first.from_net(address(2), datagram, NOW, &mut delivered));
    let mut group = c.benchmark_group("plane");
    for (name, mut burst) in bursts() {
        let bytes: usize = burst.frames.iter().map(Vec::len).sum();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_with_input(BenchmarkId::new("frames to sealed datagrams", &name), &(), |b, ()| {
            b.iter(|| burst.out(&first, &mut out));
        });
        let mut sealed = || {
            let mut memory = Memory::new();
            burst.out(&first, &mut memory);
            memory
        };
        group.bench_with_input(BenchmarkId::new("sealed datagrams to frames", &name), &(), |b, ()| {
            b.iter_batched_ref(&mut sealed, |memory| back(&second, memory, &mut delivered), BatchSize::LargeInput);
        });
        assert!(delivered.delivered > 0);
    }
    group.finish();
}

criterion_group!(benches, plane);
criterion_main!(benches);
