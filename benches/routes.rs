//! The control plane's two expensive moments, for a sparse mesh of 1,000 peers with about 10 links each and 3 networks
//! each: next hops after a link changed (limit 5 ms), and taking in a whole topology at once (limit 50 ms). Beside them
//! what an origin's first flood costs a data path thread. The limits are asserted on the median of 21 runs.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use criterion::{BatchSize, Criterion};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rnet::mesh::peers::{LinkRecord, Peers, Record};
use rnet::mesh::routes::Routes;
use rnet::types::{Instant, NetId, Network, Nickname, PublicKey, ShortId, Uid};
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

const PEERS: u16 = 1000;
const LINKS_DIALLED: usize = 5;

fn key(n: u16) -> PublicKey {
    let [a, b] = n.to_be_bytes();
    let mut key = [7; 32];
    (key[0], key[1]) = (a, b);
    PublicKey(key)
}

/// A connected mesh: everybody dials the one before and four others at random.
fn topology() -> Vec<Record> {
    let mut rng = StdRng::seed_from_u64(1);
    let names: Vec<_> = (0..PEERS).map(|n| key(n).name()).collect();
    let mut links = vec![Vec::new(); usize::from(PEERS)];
    for n in 1..usize::from(PEERS) {
        for dialled in 0..LINKS_DIALLED {
            let to = if dialled == 0 { n - 1 } else { rng.random_range(0..n) };
            if links[n].iter().any(|link: &LinkRecord| link.peer == names[to]) {
                continue;
            }
            for (at, peer, outbound) in [(n, names[to], true), (to, names[n], false)] {
                let address = SocketAddr::from(([10, 0, 0, 1], 6783));
                links[at].push(LinkRecord {
                    peer,
                    address,
                    outbound,
                    established: true,
                    rtt_us: 250,
                    mtu: 1472,
                    seen: None,
                    cost: 250,
                });
            }
        }
    }
    let network = |n: u16| Network::containing(format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap());
    (0..PEERS)
        .zip(links)
        .map(|(n, mut links)| {
            links.sort_unstable();
            let mut networks: Vec<_> = [0, 1, 2 + n % 50].into_iter().map(|n| (network(n).id(), network(n))).collect();
            networks.sort_unstable();
            let nickname = Nickname::new(&format!("host{n}"));
            Record {
                key: key(n),
                uid: Uid(n.into()),
                version: 1,
                nickname,
                short: ShortId(n + 1),
                networks,
                links,
                addresses: Vec::new(),
            }
        })
        .collect()
}

fn known(records: &[Record]) -> Peers {
    let mut peers = Peers::new(records[0].clone());
    peers.merge(records.to_vec());
    peers
}

/// Everything that one changed record of another peer sets off, up to new next hops.
fn change_one_link(peers: &mut Peers, version: u64) -> Routes {
    let mut record = peers.get(key(500).name()).unwrap().clone();
    record.version = version;
    record.links[0].established = version.is_multiple_of(2);
    assert_eq!(peers.merge(vec![record]).news.len(), 1);
    Routes::compute(peers)
}

fn net() -> NetId {
    Network::containing("10.0.0.0/24".parse().unwrap()).id()
}

fn median(mut run: impl FnMut(u64)) -> Duration {
    let mut times: Vec<Duration> = (0..21)
        .map(|round| {
            let start = std::time::Instant::now();
            run(round);
            start.elapsed()
        })
        .collect();
    times.sort();
    times[10]
}

fn assert_limits(records: &[Record]) {
    let mut peers = known(records);
    let routes = median(|round| drop(black_box(change_one_link(&mut peers, 2 + round))));
    println!("next hops after one link changed, 1,000 peers: {routes:?} (limit 5 ms)");
    assert!(routes < Duration::from_millis(5));
    let merge = median(|_| drop(black_box(known(records))));
    println!("whole topology of 1,000 peers merged: {merge:?} (limit 50 ms)");
    assert!(merge < Duration::from_millis(50));
}

fn main() {
    let records = topology();
    let mut criterion = Criterion::default().configure_from_args().sample_size(30);
    let (mut peers, mut version) = (known(&records), 1);
    criterion.bench_function("routes/link_change_1000", |b| {
        b.iter(|| {
            version += 1;
            change_one_link(&mut peers, version)
        })
    });
    criterion.bench_function("routes/first_flood_of_an_origin_1000", |b| {
        let compute = || Routes::compute(&peers);
        b.iter_batched_ref(compute, |routes| routes.flood(ShortId(1), net()).len(), BatchSize::SmallInput)
    });
    let routes = Routes::compute(&peers);
    criterion
        .bench_function("routes/later_flood_1000", |b| b.iter(|| black_box(&routes).flood(ShortId(1), net()).len()));
    criterion.bench_function("topology/merge_1000", |b| {
        let fresh = || (Peers::new(records[0].clone()), records.clone());
        b.iter_batched(fresh, |(mut peers, records)| (peers.merge(records), peers), BatchSize::LargeInput)
    });
    let linked = peers.linked();
    criterion.bench_function("topology/linked_1000", |b| b.iter(|| peers.linked()));
    criterion.bench_function("topology/summary_1000", |b| b.iter(|| peers.digest(&linked).summary()));
    criterion.bench_function("topology/collect_1000", |b| b.iter(|| peers.clone().collect(&linked, Instant::ZERO)));
    assert_limits(&records);
    criterion.final_summary();
}
