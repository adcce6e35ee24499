//! Random histories. Whatever happened, once it stops happening everything that could reach each other does, and
//! floods come out once. One seed gives one history.

use super::machine::Options;
use super::world::{H, KEPT, Keep, World, millis, secs};
use rand::RngExt;
use rnet::node::status::ConnectionState;
use std::collections::BTreeMap;
use std::time::Duration;

const NET: &str = "10.2.1.0/24";
/// Longest wait between two dials, and what it takes then to agree.
const SETTLED: Duration = Duration::from_secs(75);

/// One thing that happens. `lossy`: routers may lose what they knew.
fn happen(world: &mut World, hosts: &[H], lossy: bool) {
    let any = |world: &mut World| hosts[world.rng.random_range(0..hosts.len())];
    let (a, b) = (any(world), any(world));
    let runs = world.hosts[a.0].process.is_some();
    match world.rng.random_range(0..12) {
        0 if runs => world.kill(a),
        1 if runs => world.power_off(a),
        0..=3 if !runs => {
            let keep =
                [KEPT, Keep { uid: true, ..KEPT }, Keep { state: false, ..KEPT }, Keep { identity: false, ..KEPT }];
            let keep = keep[world.rng.random_range(0..if lossy { keep.len() } else { 2 })];
            world.restart(a, keep);
        }
        4 | 5 if a != b => world.wall(a, b),
        6 | 7 => world.unwall(a, b),
        8 => {
            let cut = world.rng.random_range(1..hosts.len());
            world.partition(&hosts[..cut], &hosts[cut..]);
        }
        9 => world.heal(),
        10 if runs && a != b => {
            let target = world.target(b);
            world.command(a, rnet::node::command::Command::Connect { targets: vec![target], replace: false });
        }
        _ if runs => {
            let _ = world.try_attach(a, &format!("10.2.1.{}/24", a.0 + 1));
        }
        _ => {}
    }
    let pause = millis(world.rng.random_range(0..4000));
    world.run_for(pause);
}

fn history(seed: u64, steps: usize, lossy: bool) -> World {
    let mut world = World::new(seed);
    let count = world.rng.random_range(3..7);
    let discovery = world.rng.random_bool(0.7);
    let hosts: Vec<H> = (0..count).map(|_| world.host(Options { discovery, ..Options::default() })).collect();
    world.weather.lost = world.rng.random_range(0.0..0.1);
    world.weather.resent = world.rng.random_range(0.0..0.1);
    world.weather.doubled = 0.02;
    for (n, h) in hosts.iter().enumerate() {
        let targets: Vec<H> = hosts[..n].iter().copied().take(2).collect();
        world.launch(*h, &targets);
    }
    for _ in 0..steps {
        happen(&mut world, &hosts, lossy);
    }
    world
}

/// Everything is up, attached and, where targets were lost, told anew whom to dial; then it has to settle.
fn settle(world: &mut World, lossy: bool) {
    let hosts: Vec<H> = (0..world.hosts.len()).map(H).collect();
    world.weather.lost = 0.0;
    world.weather.resent = 0.0;
    world.weather.doubled = 0.0;
    for h in &hosts {
        if world.hosts[h.0].process.is_none() {
            world.restart(*h, KEPT);
        }
        if lossy {
            let targets = hosts.iter().filter(|other| *other != h).map(|other| world.target(*other)).collect();
            world.command(*h, rnet::node::command::Command::Connect { targets, replace: true });
        } else {
            world.heal();
        }
    }
    world.run_for(SETTLED);
    for h in &hosts {
        if world.hosts[h.0].nics.is_empty() {
            world.attach(*h, &format!("10.2.1.{}/24", h.0 + 1));
        }
        world.forget_arp(*h);
    }
    world.run_for(secs(2));
}

#[test]
fn whatever_happened_all_that_can_reach_each_other_do_in_the_end() {
    for seed in 1000..1000 + cases() {
        let mut world = history(seed, 40, true);
        settle(&mut world, true);
        assert_all_is_well(&mut world);
    }
}

#[test]
fn whatever_was_not_lost_comes_back_without_being_told_again() {
    for seed in 2000..2000 + cases() {
        let mut world = history(seed, 40, false);
        settle(&mut world, false);
        assert_all_is_well(&mut world);
    }
}

fn assert_all_is_well(world: &mut World) {
    let (seed, hosts) = (world.seed, (0..world.hosts.len()).map(H).collect::<Vec<H>>());
    for a in &hosts {
        for b in hosts.iter().filter(|b| *b != a) {
            let could = world.could_reach(*a, *b);
            assert_eq!(world.ping(*a, *b, NET), could, "seed {seed}: {a:?} to {b:?}");
        }
    }
    for from in &hosts {
        let could = hosts.iter().filter(|h| *h != from && world.could_reach(*from, **h));
        let expected: BTreeMap<H, usize> = could.map(|h| (*h, 1)).collect();
        assert_eq!(world.flood(*from, NET), expected, "seed {seed}: broadcast of {from:?}");
    }
    let links = |h: &H| world.status(*h).connections.iter().filter(|c| c.state == ConnectionState::Established).count();
    let links: usize = hosts.iter().map(links).sum();
    let sockets = world.connections.values().filter(|connection| connection.is_open()).count();
    assert_eq!(links, 2 * sockets, "seed {seed}: no connection is left over");
}

/// More with `RNET_SIM_CASES`.
#[allow(clippy::disallowed_methods)]
fn cases() -> u64 {
    std::env::var("RNET_SIM_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(12)
}

#[test]
fn same_seed_gives_the_same_run_and_another_seed_another() {
    let [first, again, other] = [7, 7, 8].map(|seed| history(seed, 30, true).history());
    assert_eq!(first, again);
    assert_ne!(first, other);
}
