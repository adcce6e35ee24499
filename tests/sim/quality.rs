//! Stories of paths that are slow, noisy or lossy, and of the ways that are taken around them.

use super::mesh::{assert_floods_once, attach_all};
use super::wires::pair;
use super::world::{H, World, millis, secs};

const NET: &str = "10.2.1.0/24";

fn triangle(seed: u64) -> (World, [H; 3]) {
    let mut world = World::new(seed);
    let hosts: [H; 3] = world.hosts();
    world.launch(hosts[0], &[]);
    world.launch(hosts[1], &[hosts[0]]);
    world.launch(hosts[2], &[hosts[0]]);
    attach_all(&mut world, &hosts);
    world.run_for(secs(5));
    (world, hosts)
}

fn via(world: &mut World, from: H, to: H) -> Option<H> {
    let (name, all) = (world.name(to), 0..world.hosts.len());
    let via = world.status(from).peers.iter().find(|peer| peer.name == name)?.via?;
    all.map(H).find(|h| world.name(*h) == via)
}

/// Versions of all records together: grows with whatever the mesh is told.
fn told(world: &mut World, of: H) -> u64 {
    world.status(of).peers.iter().map(|peer| peer.version).sum()
}

#[test]
fn path_that_loses_5_per_cent_is_left_within_10_seconds_and_not_taken_back_while_it_does() {
    let (mut world, [a, b, c]) = triangle(400);
    assert_eq!(via(&mut world, a, b), Some(b));
    let flow = world.flow((a, b), NET, millis(20), secs(400));
    world.run_for(secs(3));
    world.lossy.insert(pair(a, b), 0.05);
    let left = |world: &mut World| via(world, a, b) == Some(c) && via(world, b, a) == Some(c);
    assert!(world.run_until(secs(10), left).is_some());
    world.run_for(millis(500));
    let (start, before) = (world.now, told(&mut world, a));
    for _ in 0..20 {
        world.run_for(secs(10));
        assert!(left(&mut world), "it is not taken back");
    }
    let (sent, answered) = world.answered_since(flow, start);
    assert_eq!(sent, answered, "nothing is lost by the other way");
    assert!(told(&mut world, a) - before < 20, "and the mesh has its peace");
    assert_floods_once(&mut world, &[a, b, c]);
    world.lossy.clear();
    let back = |world: &mut World| via(world, a, b) == Some(b);
    assert!(world.run_until(secs(300), back).is_some(), "when it is well again it is used again");
}

#[test]
fn long_way_is_left_for_two_short_ones() {
    let (mut world, [a, b, c]) = triangle(401);
    world.slow.insert(pair(a, b), millis(40));
    let left = |world: &mut World| via(world, a, b) == Some(c);
    assert!(world.run_until(secs(60), left).is_some());
    assert_floods_once(&mut world, &[a, b, c]);
    world.slow.insert(pair(a, b), millis(1));
    assert!(world.run_until(secs(120), |world| via(world, a, b) == Some(b)).is_some());
}

#[test]
fn noise_makes_no_routes() {
    let mut world = World::new(402);
    world.weather.jitter = millis(30);
    let hosts: [H; 6] = world.hosts();
    world.launch(hosts[0], &[]);
    hosts[1..].iter().for_each(|h| world.launch(*h, &[hosts[0]]));
    attach_all(&mut world, &hosts);
    world.run_for(secs(60));
    let ways = |world: &mut World| {
        let pairs = hosts.iter().flat_map(|a| hosts.iter().filter(move |b| a != *b).map(move |b| (*a, *b)));
        pairs.collect::<Vec<_>>().into_iter().map(|(a, b)| via(world, a, b)).collect::<Vec<_>>()
    };
    let mut changes = 0;
    let mut last = ways(&mut world);
    for _ in 0..60 {
        world.run_for(secs(5));
        let now = ways(&mut world);
        changes += usize::from(now != last);
        last = now;
    }
    assert!(changes <= 2, "{changes} changes in five minutes");
    assert_floods_once(&mut world, &hosts);
}

#[test]
fn direct_path_without_a_link_is_left_too_when_it_loses_frames() {
    let mut world = World::new(403);
    let options = super::machine::Options { discovery: false, ..Default::default() };
    let [a, b, c] = [(); 3].map(|()| world.host(options.clone()));
    world.launch(b, &[]);
    world.launch(a, &[b]);
    world.launch(c, &[b]);
    attach_all(&mut world, &[a, b, c]);
    world.run_for(secs(3));
    let flow = world.flow((a, c), NET, millis(20), secs(60));
    world.run_for(secs(3));
    let count = |world: &mut World| world.status(b).traffic.to_net.frames;
    let before = count(&mut world);
    world.run_for(secs(5));
    assert_eq!(count(&mut world), before, "nothing is relayed");
    world.lossy.insert(pair(a, c), 0.05);
    world.run_for(secs(10));
    let start = world.now;
    world.run_for(secs(10));
    let (sent, answered) = world.answered_since(flow, start);
    assert_eq!(sent, answered, "by the relay nothing is lost");
}
