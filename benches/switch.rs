//! Nanoseconds per frame: the look-up alone, a captured frame of 1,400 bytes until it is sealed, and a datagram of one until it is
//! delivered or relayed. Criterion's times are for bursts of 64; elements per second are frames.

mod planes;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use planes::{Memory, PORT, address, chain, frame, mac};
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

/// Fills `out` with a burst from the attachment at `host`.
fn capture(plane: &Plane, frame: &[u8], out: &mut Memory) {
    out.clear();
    // In place of the read from the capture port.
    let mut frame = frame.to_vec();
    let mut batch = plane.batch(NOW);
    for _ in 0..BURST {
        batch.from_bridge(PORT, &mut frame, &Offload::NONE, out);
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
        capture(plane, &frame(host, Mac::BROADCAST, 60), &mut out);
        receive(&relay, 2, host, &mut out, &mut relayed);
        receive(if host == 1 { &last } else { &first }, 4 - host, 2, &mut relayed, &mut out);
    }
    let unicast = frame(1, mac(3), 1400);
    let mut group = c.benchmark_group("switch");
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function("from_bridge, forward 1400 bytes, sealed", |b| b.iter(|| capture(&first, &unicast, &mut out)));
    let sealed = || {
        let mut burst = Memory::new();
        capture(&first, &unicast, &mut burst);
        burst
    };
    group.bench_function("from_net, relay 1400 bytes, sealed", |b| {
        b.iter_batched_ref(sealed, |burst| receive(&relay, 2, 1, burst, &mut out), BatchSize::LargeInput)
    });
    let sealed_twice = || {
        let (mut burst, mut relayed) = (sealed(), Memory::new());
        receive(&relay, 2, 1, &mut burst, &mut relayed);
        relayed
    };
    group.bench_function("from_net, deliver 1400 bytes, sealed", |b| {
        b.iter_batched_ref(sealed_twice, |burst| receive(&last, 3, 2, burst, &mut out), BatchSize::LargeInput)
    });
    assert_eq!(out.delivered, BURST);
    group.finish();
}

criterion_group!(benches, verdict, frames);
criterion_main!(benches);
