//! Stories about networks: what is not on one does not hear it, whatever happens underneath; and what goes between hosts
//! with a password says nothing to those who listen. That no frame ever comes out on another network than it was sent on is
//! checked in every story.

use super::frames;
use super::story::net;
use super::world::{H, KEPT, World, millis, secs};
use rand::RngExt;
use rnet::types::Mac;
use std::collections::BTreeMap;

const ONE: &str = "10.2.1.0/24";
const TWO: &str = "10.2.2.0/24";

/// Everybody is on both networks, in a ring with a chord.
fn both(seed: u64) -> (World, [H; 5]) {
    let mut world = World::new(seed);
    let hosts: [H; 5] = world.hosts();
    let [a, b, c, d, e] = hosts;
    world.only(&[(a, b), (b, c), (c, d), (d, e), (e, a), (a, c)]);
    for (n, h) in hosts.iter().enumerate() {
        world.launch(*h, &[hosts[(n + 1) % 5], hosts[(n + 2) % 5]]);
    }
    for (n, h) in hosts.iter().enumerate() {
        world.attach(*h, &format!("10.2.1.{}/24", n + 1));
        world.attach(*h, &format!("10.2.2.{}/24", n + 1));
    }
    world.run_for(secs(5));
    (world, hosts)
}

#[test]
fn frame_of_one_network_never_comes_out_on_another_not_even_to_a_mac_of_that_one() {
    let (mut world, hosts) = both(90);
    let [a, b, ..] = hosts;
    assert!(world.ping(a, b, ONE) && world.ping(a, b, TWO));
    // From a's interface on network one to b's MAC on network two.
    let from = world.hosts[a.0].nic(net(ONE)).unwrap().mac;
    let (to, ip) = world.hosts[b.0].nic(net(TWO)).map(|nic| (nic.mac, nic.ip)).unwrap();
    let own = world.hosts[a.0].nic(net(ONE)).unwrap().ip;
    world.next_token += 1;
    let token = world.next_token;
    world.transmit(a, net(ONE), frames::echo((from, own), (to, ip), None, 8, token));
    world.run_for(secs(1));
    assert!(!world.hosts[a.0].answered.contains_key(&token));
    for network in [ONE, TWO] {
        let expected: BTreeMap<H, usize> = hosts[1..].iter().map(|h| (*h, 1)).collect();
        assert_eq!(world.flood(a, network), expected);
    }
}

#[test]
fn networks_that_overlap_as_numbers_stay_apart() {
    let mut world = World::new(91);
    let [a, b] = world.hosts();
    world.launch(a, &[]);
    world.launch(b, &[a]);
    world.attach(a, "10.32.2.1/24");
    world.attach(b, "10.32.2.2/12");
    world.run_for(secs(2));
    assert_eq!(world.flood(a, "10.32.2.0/24"), BTreeMap::new());
    assert_eq!(world.flood(b, "10.32.0.0/12"), BTreeMap::new());
}

#[test]
fn networks_stay_apart_while_the_topology_changes_under_them() {
    for seed in 92..96 {
        let (mut world, hosts) = both(seed);
        for network in [ONE, TWO] {
            for (from, to) in [(0, 2), (1, 4), (3, 0)] {
                world.flow((hosts[from], hosts[to]), network, millis(20), secs(60));
            }
        }
        for _ in 0..20 {
            let (a, b) = (hosts[world.rng.random_range(0..5)], hosts[world.rng.random_range(0..5)]);
            match world.rng.random_range(0..4) {
                0 if world.hosts[a.0].process.is_some() => world.kill(a),
                0 | 1 if world.hosts[a.0].process.is_none() => world.restart(a, KEPT),
                2 if a != b => world.wall(a, b),
                _ => world.unwall(a, b),
            }
            for network in [ONE, TWO] {
                if let Some(mac) = world.hosts[a.0].nic(net(network)).map(|nic| nic.mac) {
                    world.next_token += 1;
                    let frame = frames::bare(mac, Mac::BROADCAST, world.next_token);
                    world.transmit(a, net(network), frame);
                }
            }
            let pause = millis(world.rng.random_range(50..3000));
            world.run_for(pause);
        }
        let copies: usize = world.sent.values().flat_map(|sent| sent.copies.values()).sum();
        assert!(copies > 1000, "frames flowed: {copies}");
    }
}

#[test]
fn broadcasts_do_not_multiply_while_the_topology_changes() {
    let mut worst = 0;
    for seed in 96..99 {
        let (mut world, hosts) = both(seed);
        let start = world.datagrams;
        for n in 0..50 {
            let (a, b) = (hosts[n % 5], hosts[(n * 3 + 1) % 5]);
            if n % 2 == 0 && a != b {
                world.wall(a, b)
            } else {
                world.heal()
            }
            for _ in 0..20 {
                world.next_token += 1;
                let mac = world.hosts[a.0].nic(net(ONE)).unwrap().mac;
                let frame = frames::bare(mac, Mac::BROADCAST, world.next_token);
                world.transmit(a, net(ONE), frame);
                world.run_for(millis(10));
            }
        }
        worst = worst.max(world.sent.values().flat_map(|sent| sent.copies.values()).copied().max().unwrap_or(0));
        // Each host hands each on once, to each of its neighbours at most, whatever trees there are; and there are heartbeats.
        let datagrams = world.datagrams - start;
        eprintln!("{datagrams} datagrams");
        assert!(datagrams < 17_000, "{datagrams} datagrams for 1000 broadcasts");
    }
    assert_eq!(worst, 1, "a broadcast came out {worst} times at one host");
}

#[test]
fn who_listens_on_the_wire_reads_nothing() {
    let mut world = World::new(99);
    let [a, b, c] = world.hosts();
    world.only(&[(a, b), (b, c)]);
    world.launch(b, &[]);
    world.launch(a, &[b]);
    world.launch(c, &[b]);
    world.attach(a, "10.2.1.1/24");
    world.attach(c, "10.2.1.3/24");
    world.wiretap = Some(Vec::new());
    world.run_for(secs(2));
    assert!(world.ping(a, c, ONE));
    let heard = world.wiretap.take().unwrap();
    let names: Vec<[u8; 6]> = [a, b, c].map(|h| world.name(h).0.0).to_vec();
    for (token, sent) in &world.sent {
        let token = token.to_be_bytes();
        let leaked = heard.iter().any(|(_, _, bytes)| bytes.windows(8).any(|window| window == token));
        assert!(!leaked, "frame {:02x?} passed in clear", sent.bytes);
    }
    let named =
        heard.iter().any(|(_, _, bytes)| bytes.windows(6).any(|window| names.iter().any(|name| name == window)));
    assert!(!named, "a datagram names a peer");
    assert!(heard.len() > 10);
}
