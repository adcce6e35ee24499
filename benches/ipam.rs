//! Address management: allocations on one host, and a ring of 1,000 peers. Limits: 100,000 allocations a second; the ring
//! fits into 100 kB and is taken over in 50 ms. The bench fails if a limit is missed.
#![allow(clippy::disallowed_methods)] // a bench reads the clock

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rnet::ipam::{Init, Ipam, IpamConfig, IpamOutput};
use rnet::types::{Instant, Mac, Network, PeerName, Uid};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hint::black_box;
use std::time::Duration;

const PEERS: usize = 1000;
const ALLOCATIONS: u64 = 100_000;

fn name(host: usize) -> PeerName {
    PeerName(Mac([2, 0, 0, 0, (host >> 8) as u8, host as u8]))
}

fn machine(host: usize, init: Init) -> Ipam {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(host as u64).to_be_bytes());
    let range: Network = "10.32.0.0/12".parse().expect("a network");
    let config = IpamConfig {
        me: name(host),
        uid: Uid(1),
        ranges: vec![range],
        default_subnet: None,
        init,
        reclaim: None,
        seed,
    };
    Ipam::new(config, None, Instant::ZERO)
}

/// One allocation after the other, each of them with its own durable state before its answer.
fn allocate_all(mut host: Ipam, keys: &[String], network: Network) -> Ipam {
    for (request, key) in (0u64..).zip(keys) {
        host.allocate(request, key, network, Instant::ZERO);
        let mut answered = false;
        while let Some(output) = host.poll() {
            answered |= matches!(black_box(output), IpamOutput::Answer { result: Ok(_), .. });
        }
        assert!(answered);
    }
    host
}

/// A thousand peers that seeded one ring and joined it; messages arrive at once and in order.
fn thousand() -> Vec<Ipam> {
    let seeds: Vec<PeerName> = (0..PEERS).map(name).collect();
    let mut hosts: Vec<Ipam> = (0..PEERS).map(|host| machine(host, Init::Seed(seeds.clone()))).collect();
    let all: BTreeSet<PeerName> = seeds.iter().copied().collect();
    let index: BTreeMap<PeerName, usize> = seeds.iter().copied().zip(0..).collect();
    let mut now = Instant::ZERO;
    hosts.iter_mut().for_each(|host| host.reachable(&all, now));
    for _ in 0..40 {
        let mut mail: VecDeque<(usize, usize, Vec<u8>)> = VecDeque::new();
        for from in 0..PEERS {
            hosts[from].tick(now);
            collect(&mut hosts, from, &index, &mut mail);
        }
        while let Some((from, to, body)) = mail.pop_front() {
            hosts[to].receive(name(from), &body, now);
            collect(&mut hosts, to, &index, &mut mail);
        }
        now += Duration::from_millis(1000);
        if hosts.iter().all(|host| host.status(now).ready) {
            break;
        }
    }
    assert!(hosts.iter().all(|host| host.status(now).ready), "the ring stands");
    hosts
}

fn collect(
    hosts: &mut [Ipam],
    from: usize,
    index: &BTreeMap<PeerName, usize>,
    mail: &mut VecDeque<(usize, usize, Vec<u8>)>,
) {
    while let Some(output) = hosts[from].poll() {
        match output {
            IpamOutput::Unicast { to, body } => mail.push_back((from, index[&to], body)),
            IpamOutput::Gossip(body) => {
                mail.extend((0..hosts.len()).filter(|to| *to != from).map(|to| (from, to, body.clone())));
            }
            _ => {}
        }
    }
}

/// What a peer that has nothing yet is sent: found by asking like one.
fn whole_ring(hosts: &mut [Ipam], now: Instant) -> Vec<u8> {
    let mut late = machine(PEERS, Init::Observer);
    while late.poll().is_some() {}
    let late_name = name(PEERS);
    let reach: BTreeSet<PeerName> = [name(0)].into();
    late.reachable(&reach, now);
    let mut to_host: Vec<Vec<u8>> = Vec::new();
    while let Some(output) = late.poll() {
        if let IpamOutput::Unicast { body, .. } = output {
            to_host.push(body);
        }
    }
    let mut whole = Vec::new();
    for body in to_host {
        hosts[0].receive(late_name, &body, now);
        while let Some(output) = hosts[0].poll() {
            if let IpamOutput::Unicast { to, body } = output
                && to == late_name
                && body.len() > whole.len()
            {
                whole = body;
            }
        }
    }
    whole
}

fn benches(c: &mut Criterion) {
    let keys: Vec<String> = (0..ALLOCATIONS).map(|n| format!("container-{n:08x}")).collect();
    let network: Network = "10.32.0.0/12".parse().expect("a network");
    let begun = std::time::Instant::now();
    allocate_all(machine(0, Init::Consensus(1)), &keys, network);
    let took = begun.elapsed();
    println!("{ALLOCATIONS} allocations took {took:?}");
    assert!(took < Duration::from_secs(1), "100,000 allocations a second");

    let mut group = c.benchmark_group("ipam");
    group.sample_size(10);
    group.throughput(Throughput::Elements(ALLOCATIONS));
    group.bench_function("allocate", |b| {
        b.iter_batched(
            || machine(0, Init::Consensus(1)),
            |host| allocate_all(host, &keys, network),
            BatchSize::PerIteration,
        )
    });

    let mut hosts = thousand();
    let now = Instant::ZERO + Duration::from_secs(100);
    let whole = whole_ring(&mut hosts, now);
    println!("a ring of {PEERS} peers is {} bytes", whole.len());
    assert!(whole.len() > 10_000 && whole.len() < 100_000, "a ring of 1,000 peers gossips under 100 kB");
    let merge = |mut late: Ipam| {
        late.receive(name(0), &whole, now);
        assert!(late.status(now).members == PEERS);
        late
    };
    let begun = std::time::Instant::now();
    merge(machine(PEERS, Init::Observer));
    let took = begun.elapsed();
    println!("taking it over took {took:?}");
    assert!(took < Duration::from_millis(50), "a ring of 1,000 peers merges in 50 ms");
    group.throughput(Throughput::Elements(PEERS as u64));
    group.bench_function("merge_1000_peers", |b| {
        b.iter_batched(|| machine(PEERS, Init::Observer), merge, BatchSize::PerIteration)
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
