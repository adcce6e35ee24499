//! Stories in fair weather: who is told to reach whom does.

use super::machine::Options;
use super::world::{H, World, millis, secs};
use std::collections::BTreeMap;

const NET: &str = "10.2.1.0/24";

/// Attaches `10.2.1.<n + 1>` at each host n.
pub fn attach_all(world: &mut World, hosts: &[H]) {
    for (n, h) in hosts.iter().enumerate() {
        world.attach(*h, &format!("10.2.1.{}/24", n + 1));
    }
}

/// Whether everybody answers everybody's ping.
pub fn all_ping(world: &mut World, hosts: &[H]) -> bool {
    let pairs = hosts.iter().flat_map(|a| hosts.iter().filter(move |b| a != *b).map(move |b| (*a, *b)));
    pairs.collect::<Vec<_>>().into_iter().all(|(a, b)| world.ping(a, b, NET))
}

/// Asserts that a broadcast of each comes out at every other one exactly once.
pub fn assert_floods_once(world: &mut World, hosts: &[H]) {
    for from in hosts {
        let expected: BTreeMap<H, usize> = hosts.iter().filter(|h| *h != from).map(|h| (*h, 1)).collect();
        assert_eq!(world.flood(*from, NET), expected, "broadcast of {from:?}");
    }
}

#[test]
fn chain_of_three_pings_end_to_end_and_the_relay_learns_nothing() {
    let mut world = World::new(1);
    let [a, b, c] = world.hosts();
    world.only(&[(a, b), (b, c)]);
    world.launch(a, &[]);
    world.launch(b, &[a]);
    world.run_for(secs(1));
    world.attach(a, "10.2.1.1/24");
    world.launch(c, &[b]);
    let launched = world.now;
    world.attach(c, "10.2.1.3/24");
    world.run_until(secs(3), |world| world.ping(c, a, NET)).expect("within 3 s of the third launch");
    assert!(world.now - launched < secs(3), "{:?}", world.now - launched);
    assert!(world.status(b).macs.is_empty(), "a relay learns nothing");
    assert!(world.status(a).macs.iter().any(|seen| seen.peer == Some(world.name(c))));
}

#[test]
fn two_hosts_ping_within_a_second_of_the_second_launch() {
    let mut world = World::new(2);
    let [a, b] = world.hosts();
    world.launch(a, &[]);
    world.attach(a, "10.2.1.1/24");
    world.launch(b, &[a]);
    world.attach(b, "10.2.1.2/24");
    let took = world.run_until(secs(1), |world| world.ping(b, a, NET));
    assert!(took.is_some());
    assert!(world.are_neighbours(a, b));
}

#[test]
fn without_a_password_frames_flow_all_the_same() {
    let mut world = World::new(3);
    let [a, b, c] = [(); 3].map(|()| world.host(Options { password: None, ..Options::default() }));
    world.only(&[(a, b), (b, c)]);
    world.launch(b, &[]);
    world.launch(a, &[b]);
    world.launch(c, &[b]);
    attach_all(&mut world, &[a, b, c]);
    assert!(world.run_until(secs(3), |world| all_ping(world, &[a, b, c])).is_some());
    assert!(!world.status(a).encrypted);
}

#[test]
fn twelve_find_each_other_from_one_target_and_flood_exactly_once() {
    let mut world = World::new(4);
    let hosts: [H; 12] = world.hosts();
    world.launch(hosts[0], &[]);
    hosts[1..].iter().for_each(|h| world.launch(*h, &[hosts[0]]));
    let everybody_linked = |world: &mut World| {
        hosts.iter().all(|h| world.status(*h).connections.iter().filter(|c| c.path.is_some()).count() == 11)
    };
    let took = world.run_until(secs(10), everybody_linked);
    assert!(took.is_some(), "66 links");
    attach_all(&mut world, &hosts);
    world.run_for(secs(2));
    assert_floods_once(&mut world, &hosts);
    assert!(all_ping(&mut world, &hosts));
}

#[test]
fn without_discovery_the_mesh_is_what_was_asked_for() {
    let mut world = World::new(5);
    let hosts: [H; 4] = [(); 4].map(|()| world.host(Options { discovery: false, ..Options::default() }));
    world.launch(hosts[0], &[]);
    (1..4).for_each(|n| world.launch(hosts[n], &[hosts[n - 1]]));
    attach_all(&mut world, &hosts);
    world.run_for(secs(5));
    assert!(all_ping(&mut world, &hosts));
    assert!(!world.are_neighbours(hosts[0], hosts[3]) && world.are_neighbours(hosts[0], hosts[1]));
}

#[test]
fn floods_reach_everybody_once_in_any_stable_shape() {
    for seed in 0..6 {
        let mut world = World::new(100 + seed);
        let hosts: [H; 7] = world.hosts();
        let edge = |n: usize, m: usize| (hosts[n], hosts[m]);
        let edges = match seed {
            0 => vec![edge(0, 1), edge(1, 2), edge(2, 3), edge(3, 4), edge(4, 5), edge(5, 6)],
            1 => (0..7).map(|n| edge(n, (n + 1) % 7)).collect(),
            2 => (1..7).map(|n| edge(0, n)).collect(),
            3 => vec![edge(0, 1), edge(0, 2), edge(1, 2), edge(2, 3), edge(3, 4), edge(3, 5), edge(4, 5), edge(5, 6)],
            4 => (0..7)
                .flat_map(|n| (0..n).map(move |m| (n, m)))
                .filter(|(n, m)| (n + m) % 2 == 1)
                .map(|(n, m)| edge(n, m))
                .collect(),
            _ => (1..7).flat_map(|n| [edge(n, n / 2), edge(n, n % 3)]).filter(|(a, b)| a != b).collect(),
        };
        world.only(&edges);
        hosts.iter().for_each(|h| world.launch(*h, &[]));
        for (a, b) in edges {
            world.command(a, rnet::node::command::Command::Connect { targets: vec![world.target(b)], replace: false });
        }
        attach_all(&mut world, &hosts);
        world.run_for(secs(8));
        assert_floods_once(&mut world, &hosts);
    }
}

#[test]
fn flood_goes_only_where_the_network_is_and_through_who_must_relay() {
    let mut world = World::new(7);
    let [a, b, c, d] = world.hosts();
    world.only(&[(a, b), (b, c), (b, d)]);
    world.launch(b, &[]);
    [a, c, d].into_iter().for_each(|h| world.launch(h, &[b]));
    world.attach(a, "10.2.1.1/24");
    world.attach(c, "10.2.1.3/24");
    world.attach(d, "10.9.9.4/24");
    world.run_for(secs(3));
    let before = world.status(d).traffic.from_net.frames;
    assert_eq!(world.flood(a, NET), BTreeMap::from([(c, 1)]));
    assert_eq!(world.status(d).traffic.from_net.frames, before, "nobody below d has the network");
}

#[test]
fn keys_are_replaced_under_traffic_and_nothing_is_lost() {
    let mut world = World::new(8);
    // Many datagrams are under way whenever keys change, and they overtake each other.
    world.weather.jitter = millis(40);
    let [a, b, c] = world.hosts();
    world.only(&[(a, b), (b, c)]);
    world.launch(b, &[]);
    world.launch(a, &[b]);
    world.launch(c, &[b]);
    attach_all(&mut world, &[a, b, c]);
    world.run_for(secs(3));
    assert!(all_ping(&mut world, &[a, b, c]));
    let (start, epoch) =
        (world.now, |world: &mut World, h| world.status(h).connections[0].path.as_ref().unwrap().epoch);
    let first = epoch(&mut world, a);
    let flows = [(a, c), (c, a)].map(|ends| world.flow(ends, NET, millis(10), secs(400)));
    world.run_for(secs(401));
    assert!(epoch(&mut world, a) >= first + 3, "every 2 minutes");
    for flow in flows {
        assert_eq!(world.answered(flow, start, world.now), (40_000, 40_000));
    }
    for h in [a, b, c] {
        let refused = ["unknown-index", "unknown-epoch", "forged", "replayed"];
        let drops = world.status(h).drops;
        assert!(drops.iter().all(|(why, _)| !refused.contains(&why.as_str())), "{drops:?}");
    }
}

#[test]
fn big_frames_get_through_a_narrow_path_or_their_sender_is_told() {
    let mut world = World::new(9);
    world.weather.mtu = 1280;
    let [a, b] = world.hosts();
    world.launch(a, &[]);
    world.launch(b, &[a]);
    attach_all(&mut world, &[a, b]);
    world.run_for(secs(10));
    let path_mtu = world.status(a).connections[0].path.as_ref().unwrap().mtu;
    assert_eq!(path_mtu, 1252);
    assert!(world.ping_with(a, b, NET, 1000));
    // The echoes say "do not fragment".
    assert!(!world.ping_with(a, b, NET, 1300));
    let told = world.hosts[a.0].told_mtu.expect("the sender is told");
    assert!(told <= 1252 && world.ping_with(a, b, NET, usize::from(told) - 44), "what it was told fits: {told}");
}

#[test]
fn path_mtu_is_found_where_the_underlay_is_ordinary() {
    let mut world = World::new(10);
    let [a, b] = world.hosts();
    world.launch(a, &[]);
    world.launch(b, &[a]);
    let found = |world: &mut World| {
        world.status(a).connections.iter().any(|c| c.path.as_ref().is_some_and(|path| path.mtu == 1472))
    };
    assert!(world.run_until(secs(5), found).is_some());
}

#[test]
fn idle_router_with_ten_links_wakes_a_few_times_a_second() {
    let mut world = World::new(11);
    let hosts: [H; 11] = world.hosts();
    world.launch(hosts[0], &[]);
    hosts[1..].iter().for_each(|h| world.launch(*h, &[hosts[0]]));
    world.run_for(secs(60));
    let before = world.wakes(hosts[0]);
    world.run_for(secs(60));
    let a_second = (world.wakes(hosts[0]) - before) / 60;
    assert!(a_second <= 12, "{a_second} wake-ups a second");
}

#[test]
fn moved_host_is_found_at_its_new_address() {
    let mut world = World::new(12);
    let [a, b] = world.hosts();
    world.launch(a, &[]);
    world.launch(b, &[a]);
    attach_all(&mut world, &[a, b]);
    assert!(world.run_until(secs(3), |world| world.ping(a, b, NET)).is_some());
    let dialled = world.next_connection;
    world.move_to(b, "198.51.100.9".parse().unwrap());
    let back = world.run_until(secs(1), |world| world.ping(a, b, NET));
    assert!(back.is_some(), "pings flow again");
    assert_eq!(world.next_connection, dialled, "without another link");
    assert!(world.run_until(secs(30), |world| world.are_neighbours(a, b)).is_some());
}

#[test]
fn hosts_behind_translators_meet_through_one_that_is_not() {
    let mut world = World::new(13);
    let [a, b, c] = world.hosts();
    world.hosts[b.0].nat = Some("198.51.100.2:50002".parse().unwrap());
    world.hosts[c.0].nat = Some("198.51.100.3:50003".parse().unwrap());
    world.launch(a, &[]);
    world.launch(b, &[a]);
    world.launch(c, &[a]);
    attach_all(&mut world, &[a, b, c]);
    assert!(world.run_until(secs(3), |world| world.ping(b, c, NET)).is_some());
    assert!(all_ping(&mut world, &[a, b, c]));
    let (start, flow) = (world.now, world.flow((c, b), NET, millis(50), secs(30)));
    world.run_for(secs(5));
    // The translator forgets, and gives the next datagram another port.
    world.hosts[b.0].nat = Some("198.51.100.2:50777".parse().unwrap());
    world.hosts[b.0].contacted.clear();
    world.run_for(secs(10));
    let (sent, answered) = world.answered(flow, start + secs(9), start + secs(14));
    assert_eq!(sent, answered, "the path followed");
}

#[test]
fn container_that_moved_to_another_host_is_found_there_at_once() {
    let mut world = World::new(14);
    let [a, b, c] = world.hosts();
    world.launch(a, &[]);
    world.launch(b, &[a]);
    world.launch(c, &[a]);
    attach_all(&mut world, &[a, b]);
    world.run_for(secs(3));
    assert!(world.ping(b, a, NET));
    let detach = rnet::node::command::Command::Detach { key: "10.2.1.1/24@host0".into(), addresses: vec![] };
    world.command(a, detach);
    assert!(world.run_until(secs(1), |world| world.try_attach(c, "10.2.1.1/24").is_ok()).is_some());
    assert!(world.ping(b, c, NET), "its neighbours heard of it");
}
