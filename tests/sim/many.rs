//! A mesh of many peers with few links each: whoever has no link with whom it talks takes a path of their own.

use super::machine::Options;
use super::reach::{is, links};
use super::story::attach;
use super::world::{H, World, millis, secs};
use rnet::node::status::ConnectionState;
use std::collections::BTreeMap;

const NET: &str = "10.2.1.0/24";

/// Fewer or more (`RNET_SIM_PEERS`, at most 254) are for looking at how things grow: 100 take 30 s where nothing is optimised, 200 two
/// minutes.
#[allow(clippy::disallowed_methods)]
fn peers() -> usize {
    std::env::var("RNET_SIM_PEERS").ok().and_then(|peers| peers.parse().ok()).unwrap_or(200)
}

/// Broadcasts of these at the same time come out at all others exactly once.
fn assert_broadcasts_once(world: &mut World, from: &[H], all: &[H]) {
    let tokens: Vec<(H, u64)> = from.iter().map(|h| (*h, world.broadcast(*h, NET))).collect();
    world.run_for(secs(1));
    for (h, token) in tokens {
        let expected: BTreeMap<H, usize> = all.iter().filter(|other| **other != h).map(|h| (*h, 1)).collect();
        assert_eq!(world.sent[&token].copies, expected, "broadcast of {h:?}");
    }
}

#[test]
fn two_hundred_with_eight_links_each_talk_directly_while_they_talk() {
    let mut world = World::new(311);
    let count = peers();
    let hosts: Vec<H> = (0..count).map(|_| world.host(Options { limit: 8, ..Options::default() })).collect();
    for (n, h) in hosts.iter().enumerate() {
        let targets = if n == 0 { vec![] } else { vec![hosts[n / 2], hosts[n * 3 / 4]] };
        world.launch(*h, &targets);
        world.ask(*h, attach(&format!("c{n}"), &format!("10.2.1.{}/24", n + 1)));
        world.run_for(millis(5));
    }
    let whole = |world: &mut World| {
        let reached = |n: &usize| world.status(hosts[*n]).peers.iter().filter(|peer| peer.reachable).count();
        [0, count / 3, count / 2, count - 1].iter().map(reached).all(|peers| peers == count)
    };
    assert!(world.run_until(secs(60), whole).is_some(), "all know all");
    world.run_for(secs(10));
    for h in &hosts {
        assert!((1..=8).contains(&links(&mut world, *h)));
    }
    let some: Vec<H> = hosts.iter().copied().step_by(count.div_ceil(10)).collect();
    assert_broadcasts_once(&mut world, &some, &hosts);

    let pairs = (0..count / 2).map(|n| (hosts[n], hosts[count - 1 - n]));
    let pairs: Vec<(H, H)> = pairs.filter(|(a, b)| !world.are_neighbours(*a, *b)).take(20).collect();
    assert_eq!(pairs.len(), 20.min(count / 2 - 2));
    let start = world.now;
    let flows: Vec<usize> = pairs.iter().map(|pair| world.flow(*pair, NET, millis(20), secs(5))).collect();
    world.run_for(secs(1));
    for (a, b) in &pairs {
        let direct = [(*a, *b), (*b, *a)].map(|(a, b)| is(&mut world, a, b, ConnectionState::Direct));
        assert_eq!(direct, [true; 2], "{a:?} and {b:?} within a second");
    }
    assert_broadcasts_once(&mut world, &some, &hosts);
    world.run_for(secs(4));
    for flow in flows {
        let (sent, answered) = world.answered_since(flow, start);
        assert_eq!(sent, answered + 1, "nothing is lost while the way changes; the first asks for the MAC");
        assert_eq!(world.first_answered(flow, start), Some(start + millis(20)), "the next is relayed at once");
    }
    world.run_for(secs(75));
    let direct = |world: &mut World, h: &H| {
        world.status(*h).connections.iter().filter(|c| c.state == ConnectionState::Direct).count()
    };
    assert_eq!(hosts.iter().map(|h| direct(&mut world, h)).sum::<usize>(), 0, "nobody talks any more");
}
