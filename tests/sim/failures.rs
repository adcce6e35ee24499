//! Stories in which something breaks: what can reach each other does again, and soon.

use super::machine::Options;
use super::mesh::{all_ping, assert_floods_once, attach_all};
use super::wires::pair;
use super::world::{H, KEPT, Keep, World, millis, secs};
use rnet::types::Instant;

const NET: &str = "10.2.1.0/24";

/// a-b-c-d-a, everybody attached and everything settled.
fn ring(seed: u64) -> (World, [H; 4]) {
    let mut world = World::new(seed);
    let hosts: [H; 4] = world.hosts();
    let [a, b, c, d] = hosts;
    world.only(&[(a, b), (b, c), (c, d), (d, a)]);
    world.launch(a, &[d, b]);
    world.launch(b, &[a, c]);
    world.launch(c, &[b, d]);
    world.launch(d, &[c, a]);
    attach_all(&mut world, &hosts);
    world.run_for(secs(5));
    assert!(all_ping(&mut world, &hosts));
    (world, hosts)
}

#[test]
fn neighbours_of_a_killed_router_flow_again_within_6_s_and_with_it_within_3_s_of_its_return() {
    for (seed, silently) in [(20, false), (21, true), (22, true), (23, true)] {
        let (mut world, hosts) = ring(seed);
        let [a, b, c, _] = hosts;
        let flow = world.flow((a, c), NET, millis(50), secs(60));
        // Back and forth is through b for some; a flow between b's neighbours either way must go on.
        world.run_for(secs(2));
        let killed = world.now;
        if silently {
            world.power_off(b)
        } else {
            world.kill(b)
        }
        world.run_for(secs(10));
        let (sent, answered) = world.answered(flow, killed + secs(6), killed + secs(10));
        assert_eq!(sent, answered, "seed {seed}: after 6 s everything flows");
        world.restart(b, KEPT);
        world.attach(b, "10.2.1.2/24");
        let returned = world.now;
        world
            .run_until(secs(3), |world| world.ping(b, c, NET) && world.ping(b, a, NET))
            .expect("within 3 s of its return");
        assert!(world.now - returned < secs(3));
        world.run_for(secs(3));
        let (sent, answered) = world.answered(flow, returned, returned + millis(2500));
        assert_eq!(sent, answered, "seed {seed}: the return disturbs nobody");
        assert_floods_once(&mut world, &hosts);
    }
}

#[test]
fn partition_works_on_both_sides_and_heals() {
    let mut world = World::new(24);
    let hosts: [H; 6] = world.hosts();
    world.launch(hosts[0], &[]);
    hosts[1..].iter().for_each(|h| world.launch(*h, &[hosts[0]]));
    attach_all(&mut world, &hosts);
    world.run_for(secs(5));
    assert!(all_ping(&mut world, &hosts));
    let (left, right) = hosts.split_at(3);
    for lasts in [10, 120] {
        world.partition(left, right);
        world.run_for(secs(lasts));
        assert!(all_ping(&mut world, left) && all_ping(&mut world, right));
        assert!(!world.ping(left[0], right[0], NET));
        world.heal();
        let back = world.run_until(secs(62), |world| world.ping(left[0], right[0], NET));
        assert!(back.is_some(), "after {lasts} s of partition");
        world.run_for(secs(62));
        assert!(all_ping(&mut world, &hosts));
        assert_floods_once(&mut world, &hosts);
    }
}

#[test]
fn wall_between_neighbours_is_walked_around() {
    let mut world = World::new(25);
    let [a, b, c] = world.hosts();
    world.launch(a, &[]);
    world.launch(b, &[a]);
    world.launch(c, &[a]);
    attach_all(&mut world, &[a, b, c]);
    world.run_for(secs(5));
    let flow = world.flow((b, c), NET, millis(50), secs(60));
    world.wall(b, c);
    let cut = world.now;
    world.run_for(secs(10));
    let again = world.first_answered(flow, cut + millis(10)).expect("by way of a");
    assert!(again - cut < secs(6), "{:?}", again - cut);
    world.unwall(b, c);
    let took = world.run_until(secs(90), |world| world.are_neighbours(b, c));
    assert!(took.is_some());
}

#[test]
fn restart_is_told_from_a_clone_whatever_was_kept() {
    for (n, keep) in [
        KEPT,
        Keep { state: false, ..KEPT },
        Keep { identity: true, state: true, uid: true },
        Keep { identity: false, state: false, uid: false },
    ]
    .into_iter()
    .enumerate()
    {
        for silently in [false, true] {
            let mut world = World::new(30 + n as u64);
            let hosts: [H; 4] = world.hosts();
            let [a, b, c, d] = hosts;
            world.only(&[(a, b), (b, c), (c, d), (b, d)]);
            world.launch(a, &[]);
            world.launch(b, &[a]);
            world.launch(c, &[b]);
            world.launch(d, &[b]);
            attach_all(&mut world, &hosts);
            world.run_for(secs(5));
            if silently {
                world.power_off(c)
            } else {
                world.kill(c)
            }
            world.run_for(millis(500));
            world.restart(c, keep);
            if !keep.state {
                let target = world.target(b);
                world.command(c, rnet::node::command::Command::Connect { targets: vec![target], replace: false });
                let address = "10.2.1.3/24";
                // What its former self had is taken until it is forgotten, unless it is the same peer.
                assert!(world.run_until(secs(60), |world| world.try_attach(c, address).is_ok()).is_some());
            }
            // Those who have it in their tables ask anew.
            hosts.iter().for_each(|h| world.forget_arp(*h));
            let back = world.run_until(secs(12), |world| all_ping(world, &hosts));
            assert!(back.is_some(), "{keep:?}, silently: {silently}");
            let cloned = hosts
                .iter()
                .any(|h| world.hosts[h.0].has_logged("clone") || world.hosts[h.0].has_logged("another router"));
            assert!(!cloned, "{keep:?}, silently: {silently}");
            world.run_for(secs(5));
            assert_floods_once(&mut world, &hosts);
        }
    }
}

#[test]
fn simultaneous_dials_settle_to_one_link_and_stay() {
    for seed in 40..60 {
        let mut world = World::new(seed);
        let [a, b] = world.hosts();
        world.launch(a, &[b]);
        world.launch(b, &[a]);
        world.run_for(secs(4));
        let links = |world: &mut World| world.status(a).connections.len() + world.status(b).connections.len();
        assert_eq!(links(&mut world), 2, "seed {seed}");
        assert_eq!(world.connections.len(), 1, "seed {seed}: one TCP connection");
        let before = world.next_connection;
        world.run_for(secs(60));
        assert_eq!(world.next_connection, before, "seed {seed}: nobody dials what is linked");
        assert!(world.are_neighbours(a, b));
    }
}

#[test]
fn mesh_holds_with_30_percent_of_datagrams_lost_doubled_and_overtaken() {
    let mut world = World::new(61);
    world.weather.lost = 0.3;
    world.weather.doubled = 0.05;
    world.weather.jitter = millis(30);
    world.weather.resent = 0.3;
    let hosts: [H; 5] = world.hosts();
    world.launch(hosts[0], &[]);
    hosts[1..].iter().for_each(|h| world.launch(*h, &[hosts[0]]));
    attach_all(&mut world, &hosts);
    world.run_for(secs(15));
    let (a, b) = (hosts[1], hosts[4]);
    let flow = world.flow((a, b), NET, millis(100), secs(120));
    let start = world.now;
    world.run_for(secs(121));
    let (sent, answered) = world.answered(flow, start, world.now);
    // 49 % of echoes survive both ways if a path always stands.
    assert!(answered * 100 >= sent * 40, "{answered} of {sent}");
    let views: Vec<usize> =
        hosts.iter().map(|h| world.status(*h).peers.iter().filter(|peer| peer.reachable).count()).collect();
    assert_eq!(views, [5; 5], "gossip converged");
}

#[test]
fn path_that_udp_does_not_pass_is_said_and_walked_around() {
    let mut world = World::new(62);
    let [a, b, c] = world.hosts();
    world.no_udp = [pair(b, c)].into();
    world.launch(a, &[]);
    world.launch(b, &[a]);
    world.launch(c, &[a]);
    attach_all(&mut world, &[a, b, c]);
    assert!(world.run_until(secs(3), |world| all_ping(world, &[a, b, c])).is_some());
    world.run_for(secs(20));
    assert!(world.why_not(c, &world.name(b).to_string()).contains("UDP"));
    // Now none passes to or from b, and later all again.
    world.no_udp.insert(pair(a, b));
    world.run_for(secs(5));
    assert!(!world.ping(a, b, NET));
    assert!(!world.status(a).peers.iter().any(|peer| peer.name == world.name(b) && peer.reachable));
    assert!(world.ping(a, c, NET));
    world.no_udp.clear();
    assert!(world.run_until(secs(3), |world| all_ping(world, &[a, b, c])).is_some());
    assert!(world.are_neighbours(b, c));
}

#[test]
fn peers_that_are_gone_are_forgotten_and_their_addresses_are_free() {
    let mut world = World::new(63);
    let [a, b, c] = world.hosts();
    world.launch(a, &[]);
    world.launch(b, &[a]);
    world.launch(c, &[a]);
    attach_all(&mut world, &[a, b, c]);
    world.run_for(secs(3));
    world.power_off(c);
    world.run_for(secs(60));
    for h in [a, b] {
        let status = world.status(h);
        assert_eq!(status.peers.len(), 2, "{:?}", status.peers);
    }
    world.attach(b, "10.2.1.3/24");
}

#[test]
fn slow_link_takes_a_whole_topology_without_dying() {
    let mut world = World::new(64);
    world.weather.bandwidth = 20_000;
    let hosts: [H; 12] = [(); 12].map(|()| world.host(Options { discovery: false, ..Options::default() }));
    world.launch(hosts[0], &[]);
    hosts[1..].iter().for_each(|h| world.launch(*h, &[hosts[0]]));
    attach_all(&mut world, &hosts);
    world.run_for(secs(20));
    let start: Instant = world.now;
    assert!(all_ping(&mut world, &hosts));
    world.run_for(secs(30));
    let ended =
        hosts.iter().flat_map(|h| &world.hosts[h.0].log).filter(|(at, _, line)| *at > start && line.contains("ended"));
    assert_eq!(ended.count(), 0);
}
