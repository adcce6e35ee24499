//! Nanoseconds per frame: the look-up alone, a captured frame of 64, 512 or 1,400 bytes or of 64 KB until it is sealed, and its
//! datagrams until they are delivered or relayed. Criterion's times are for bursts of 64, or of one of 64 KB; elements per second
//! are frames.

mod planes;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use planes::{Memory, PORT, address, chain, frame, mac, super_frame};
use rnet::plane::Plane;
use rnet::plane::fib::Fib;
use rnet::plane::macs::{MacTable, Place};
use rnet::plane::switch::{self, Came};
use rnet::types::{Instant, Mac, NetId, ShortId};
use rnet::wire::virtio::Offload;
use std::hint::black_box;
use std::time::Duration;

const BURST: usize = 64;
const NOW: Instant = Instant::ZERO;

/// Fills `out` with a burst of so many frames.
fn capture(plane: &Plane, (frame, offload, count): &(Vec<u8>, Offload, usize), out: &mut Memory) {
    out.clear();
    // In place of the read from the capture port.
    let mut frame = frame.clone();
    let mut batch = plane.batch(NOW);
    for _ in 0..*count {
        batch.from_bridge(PORT, &mut frame, offload, out);
    }
}

/// Takes in all that `burst` has for `at`.
fn receive(plane: &Plane, at: u8, from: u8, burst: &mut Memory, out: &mut Memory) {
    out.clear();
    let mut batch = plane.batch(NOW);
    batch.from_net(burst.sent_to(address(at)).map(|datagram| (address(from), datagram)), out);
}

fn verdict(c: &mut Criterion) {
    let net = NetId::new(7).expect("not zero");
    let macs = MacTable::new(4096, Duration::from_secs(600));
    let many: Vec<Mac> = (0..4096u16).map(|n| Mac([2, 0, 0, 1, n.to_be_bytes()[0], n.to_be_bytes()[1]])).collect();
    for mac in &many {
        macs.learn(net, *mac, Place::Peer(ShortId(3)), NOW);
    }
    let [plane, ..] = chain();
    let fib: &Fib = &plane.fib();
    let came = Came { network: net, entry: &fib.networks[&net], port: PORT };
    let mut group = c.benchmark_group("switch");
    group.throughput(Throughput::Elements(many.len() as u64));
    group.bench_function("verdict among 4096 MACs", |b| {
        b.iter(|| {
            for mac in &many {
                black_box(switch::from_port(fib, &macs, came, *mac, NOW));
            }
        })
    });
    group.finish();
}

fn frames(c: &mut Criterion) {
    let [first, relay, last] = chain();
    let (mut out, mut relayed) = (Memory::new(), Memory::new());
    // Everybody learns where the attachments are.
    for (host, plane) in [(1, &first), (3, &last)] {
        capture(plane, &(frame(host, Mac::BROADCAST, 60), Offload::NONE, 1), &mut out);
        receive(&relay, 2, host, &mut out, &mut relayed);
        receive(if host == 1 { &last } else { &first }, 4 - host, 2, &mut relayed, &mut out);
    }
    let small = [64, 512, 1400].map(|len| (format!("{len} bytes"), (frame(1, mac(3), len), Offload::NONE, BURST)));
    let (large, offload) = super_frame(1, mac(3), 64_704);
    let mut group = c.benchmark_group("switch");
    for (name, burst) in small.into_iter().chain([("64 KB".to_string(), (large, offload, 1))]) {
        group.throughput(Throughput::Elements(burst.2 as u64));
        group.bench_function(format!("from_bridge, forward {name}, sealed"), |b| {
            b.iter(|| capture(&first, &burst, &mut out))
        });
        let sealed = || {
            let mut sealed = Memory::new();
            capture(&first, &burst, &mut sealed);
            sealed
        };
        group.bench_function(format!("from_net, relay {name}, sealed"), |b| {
            b.iter_batched_ref(sealed, |burst| receive(&relay, 2, 1, burst, &mut out), BatchSize::LargeInput)
        });
        let sealed_twice = || {
            let (mut burst, mut relayed) = (sealed(), Memory::new());
            receive(&relay, 2, 1, &mut burst, &mut relayed);
            relayed
        };
        group.bench_function(format!("from_net, deliver {name}, sealed"), |b| {
            b.iter_batched_ref(sealed_twice, |burst| receive(&last, 3, 2, burst, &mut out), BatchSize::LargeInput)
        });
        assert!(out.delivered > 0);
    }
    group.finish();
}

criterion_group!(benches, verdict, frames);
criterion_main!(benches);
