//! What each promise looks like: one scenario per line of the product's text.

use super::world::{MS, World, name, net};
use rnet::ipam::{Granted, Init};
use rnet::types::HostAddress;
use std::collections::BTreeSet;
use std::time::Duration;

const RANGE: &str = "10.32.0.0/12";
const S: Duration = Duration::from_secs(1);

fn consensus(hosts: usize) -> World {
    World::new(7, vec![Init::Consensus(hosts); hosts], vec![net(RANGE)], None)
}

fn text(world: &World, request: u64) -> String {
    match world.answers.get(&request) {
        Some(Ok(Granted::Address(address))) => address.to_string(),
        Some(Ok(Granted::Done(text))) => text.clone(),
        Some(Err(why)) => why.clone(),
        None => "waits".into(),
    }
}

fn said(world: &World, host: usize, words: &str) -> usize {
    world.hosts[host].lines.iter().filter(|line| line.contains(words)).count()
}

fn part(world: &mut World, sides: &[u8]) {
    world.hosts.iter_mut().zip(sides).for_each(|(host, side)| host.side = *side);
    world.look_around();
}

#[test]
fn a_lone_host_hands_out_at_once_and_lowest_first() {
    let mut world = World::new(1, vec![Init::Consensus(1)], vec![net(RANGE)], None);
    let subnet = net("10.32.2.0/24");
    let (a, b) = (world.allocate(0, "a", subnet), world.allocate(0, "b", subnet));
    assert_eq!((text(&world, a), text(&world, b)), ("10.32.2.1/24".into(), "10.32.2.2/24".into()));
    let again = world.allocate(0, "a", subnet);
    assert_eq!(text(&world, again), "10.32.2.1/24", "idempotent per key and network");
    world.with(0, |machine, now| machine.release("a", None, now));
    let reused = world.allocate(0, "c", subnet);
    assert_eq!(text(&world, reused), "10.32.2.1/24");
    let default = world.allocate(0, "a", net(RANGE));
    assert_eq!(text(&world, default), "10.32.0.1/12");
}

#[test]
fn ipv6_ranges_work_like_ipv4() {
    let mut world = World::new(1, vec![Init::Consensus(1)], vec![net("fd00:32::/48"), net("10.32.0.0/12")], None);
    let six = world.allocate(0, "a", net("fd00:32:0:2::/64"));
    let four = world.allocate(0, "a", net("10.32.2.0/24"));
    assert_eq!((text(&world, six), text(&world, four)), ("fd00:32:0:2::1/64".into(), "10.32.2.1/24".into()));
}

#[test]
fn each_refusal_is_one_clear_line() {
    let mut world = consensus(2);
    world.run(10 * S);
    let outside = world.allocate(0, "a", net("192.168.1.0/24"));
    assert!(
        text(&world, outside).contains("outside of the allocation range 10.32.0.0/12"),
        "{}",
        text(&world, outside)
    );
    let small = world.allocate(0, "a", net("10.32.0.0/31"));
    assert!(text(&world, small).contains("too small"));
    let tiny = net("10.32.9.0/30");
    let all: Vec<u64> = ["a", "b", "c"].iter().map(|key| world.allocate(0, key, tiny)).collect();
    world.run(20 * S);
    let got: BTreeSet<String> = all.iter().map(|request| text(&world, *request)).collect();
    assert!(got.contains("10.32.9.1/30") && got.contains("10.32.9.2/30"), "{got:?}");
    assert!(got.iter().any(|text| text.starts_with("no address is left from 10.32.9.1 to 10.32.9.2")), "{got:?}");
    let foreign = world.claim(1, "d", "10.32.9.1/30".parse().unwrap());
    world.run(20 * S);
    assert!(text(&world, foreign).contains(&format!("owned by other peer {}", name(0))), "{}", text(&world, foreign));
    let own = world.claim(0, "d", "10.32.9.1/30".parse().unwrap());
    assert!(text(&world, own).contains("already held by"), "{}", text(&world, own));
}

#[test]
fn a_claim_outside_of_the_space_is_noted_here_only() {
    let mut world = consensus(2);
    let address: HostAddress = "192.168.7.1/24".parse().unwrap();
    let claim = world.claim(0, "a", address);
    assert_eq!(text(&world, claim), "192.168.7.1/24");
    let other = world.claim(0, "b", address);
    assert!(text(&world, other).contains("already held by a"));
}

#[test]
fn both_sides_of_a_partition_go_on_and_never_agree_by_accident() {
    let mut world = consensus(4);
    world.run(10 * S);
    let subnet = net("10.32.2.0/24");
    let first = world.allocate(0, "first", subnet);
    world.run(10 * S);
    part(&mut world, &[0, 0, 1, 1]);
    let requests: Vec<u64> = (0..4)
        .flat_map(|host| (0..6).map(move |n| (host, n)))
        .map(|(host, n)| world.allocate(host, &format!("k{n}"), subnet))
        .collect();
    let got: BTreeSet<String> = requests.iter().chain([&first]).map(|request| text(&world, *request)).collect();
    assert_eq!(got.len(), 25, "at once, and all different: {got:?}");
    assert!(!got.contains("waits"));
}

#[test]
fn a_host_that_needs_more_gets_it_from_others() {
    let mut world = World::new(3, vec![Init::Consensus(3); 3], vec![net("10.32.0.0/26")], None);
    world.run(10 * S);
    let requests: Vec<u64> = (0..62).map(|n| world.allocate(0, &format!("k{n}"), net("10.32.0.0/26"))).collect();
    world.run(60 * S);
    let got: BTreeSet<String> = requests.iter().map(|request| text(&world, *request)).collect();
    assert_eq!((got.len(), got.contains("waits")), (62, false), "one host may use all 62 addresses of a /26");
}

#[test]
fn a_majority_reclaims_the_dead_and_a_minority_never_does() {
    let mut world = World::new(5, vec![Init::Consensus(5); 5], vec![net(RANGE)], Some(30 * S));
    world.run(10 * S);
    part(&mut world, &[0, 0, 0, 1, 1]);
    world.run(60 * S);
    assert_eq!(world.status(0).members, 3);
    assert_eq!(world.status(3).members, 5, "two of five agree about nothing");
    let isolated = world.allocate(3, "a", net(RANGE));
    assert!(world.address(isolated).is_some(), "what it has is still its own");
    part(&mut world, &[0; 5]);
    world.run(30 * S);
    assert_eq!((0..5).map(|host| world.status(host).members).collect::<Vec<_>>(), [5; 5], "all are back");
    assert_eq!(said(&world, 3, "was removed"), 0, "and lost nothing");
}

#[test]
fn rmpeer_on_two_hosts_at_once_is_the_same_as_once() {
    let mut world = consensus(4);
    world.run(10 * S);
    let used = world.allocate(3, "gone", net("10.32.2.0/30"));
    world.run(5 * S);
    let address = world.address(used).unwrap();
    world.crash(3);
    world.look_around();
    let (a, b) = (world.rmpeer(0, 3), world.rmpeer(1, 3));
    world.run(10 * S);
    assert!(text(&world, a).contains("has no addresses") && text(&world, b).contains("has no addresses"));
    let again = world.rmpeer(2, 3);
    assert!(text(&world, again).contains("has no addresses"));
    let taken = world.claim(0, "heir", address);
    world.run(5 * S);
    assert_eq!(text(&world, taken), address.to_string(), "what it held can be had again");
    // It comes back, alone at first: nothing is handed out before it has heard.
    world.hosts[3].side = 1;
    world.start(3);
    world.look_around();
    let early = world.allocate(3, "new", net(RANGE));
    world.run(20 * S);
    assert_eq!(text(&world, early), "waits");
    part(&mut world, &[0; 4]);
    world.run(20 * S);
    assert!(world.address(early).is_some(), "{}", text(&world, early));
    assert_eq!(said(&world, 3, "was removed from the address space"), 1);
    let report = format!("no longer ours, others may be given the same: {} (gone)", address.ip());
    assert_eq!(said(&world, 3, &report), 1, "{:?}", world.hosts[3].lines);
}

#[test]
fn the_last_host_of_two_goes_on_after_rmpeer() {
    let mut world = consensus(2);
    world.run(10 * S);
    world.crash(1);
    world.look_around();
    let waits = world.allocate(0, "a", net("10.32.77.0/24"));
    world.run(5 * S);
    assert_eq!(text(&world, waits), "waits");
    let why = world.status(0).waiting[0].why.clone();
    assert!(why.contains("needs 2 of 2 members and 1 are within reach") && why.contains(&name(1).to_string()), "{why}");
    let removed = world.rmpeer(0, 1);
    world.run(S);
    assert!(text(&world, removed).contains("has no addresses"));
    assert_eq!(text(&world, waits), "10.32.77.1/24");
}

#[test]
fn several_dead_hosts_are_removed_together() {
    let mut world = consensus(5);
    world.run(10 * S);
    (2..5).for_each(|host| world.crash(host));
    world.look_around();
    let first = world.rmpeer(0, 2);
    world.run(3 * S);
    assert_eq!(text(&world, first), "waits", "two of the four others are no majority");
    world.rmpeer(0, 3);
    world.rmpeer(0, 4);
    world.run(10 * S);
    assert_eq!(world.status(1).members, 2);
}

#[test]
fn rmpeer_of_a_living_neighbour_is_refused() {
    let mut world = consensus(3);
    world.run(10 * S);
    let wrong = world.rmpeer(0, 1);
    assert!(text(&world, wrong).contains("is alive and within reach"));
}

#[test]
fn a_host_that_is_reset_gives_everything_back() {
    let mut world = consensus(3);
    world.run(10 * S);
    let pool = world.status(1).pool;
    let request = world.request(0, "reset");
    world.with(0, |machine, now| machine.retire(request, now));
    world.run(5 * S);
    assert!(text(&world, request).contains("given back"));
    assert_eq!(world.status(1).members, 2);
    assert!(world.status(1).pool >= pool);
}

#[test]
fn a_restarted_host_keeps_what_it_held() {
    let mut world = consensus(3);
    world.run(10 * S);
    let before = world.allocate(0, "a", net(RANGE));
    world.crash(0);
    world.start(0);
    world.look_around();
    world.run(5 * S);
    let after = world.allocate(0, "a", net(RANGE));
    assert_eq!(text(&world, before), text(&world, after));
}

#[test]
fn a_stored_state_is_json() {
    let mut world = consensus(2);
    world.run(10 * S);
    world.allocate(0, "a", net(RANGE));
    let state = world.hosts[0].disk.clone().unwrap();
    let json = serde_json::to_string(&*state).unwrap();
    assert_eq!(serde_json::from_str::<rnet::ipam::IpamState>(&json).unwrap(), *state);
}

#[test]
fn two_spaces_that_do_not_conflict_become_one() {
    for seed in 0..20 {
        let mut world = World::new(seed, vec![Init::Consensus(1); 2], vec![net(RANGE)], None);
        part(&mut world, &[0, 1]);
        let a = world.allocate(0, "a", net("10.32.1.0/24"));
        let b = world.allocate(1, "b", net("10.32.2.0/24"));
        let c = world.claim(1, "c", "10.32.1.7/24".parse().unwrap());
        part(&mut world, &[0, 0]);
        world.run(30 * S);
        assert_eq!(
            (world.status(0).members, world.status(1).members),
            (2, 2),
            "seed {seed} {:?}",
            world.hosts[1].lines
        );
        assert_eq!([a, b, c].map(|r| text(&world, r)), ["10.32.1.1/24", "10.32.2.1/24", "10.32.1.7/24"]);
        let more: Vec<u64> = (0..2).map(|host| world.allocate(host, "more", net("10.32.1.0/24"))).collect();
        world.run(10 * S);
        assert_eq!(more.iter().filter(|r| world.address(**r).is_some()).count(), 2);
        assert_eq!(world.problem, None);
        assert_eq!(said(&world, 0, "was joined") + said(&world, 1, "was joined"), 1);
    }
}

#[test]
fn two_spaces_that_conflict_go_on_apart_and_say_what_to_do() {
    for seed in 0..20 {
        let mut world = World::new(seed, vec![Init::Consensus(1); 2], vec![net(RANGE)], None);
        part(&mut world, &[0, 1]);
        world.allocate(0, "a", net(RANGE));
        world.allocate(1, "b", net(RANGE));
        world.problem = None; // Both hold 10.32.0.1: seeded apart, nobody could know.
        part(&mut world, &[0, 0]);
        world.run(20 * S);
        for host in 0..2 {
            let status = world.status(host);
            assert_eq!(status.members, 1);
            assert!(status.conflict.as_ref().is_some_and(|line| line.contains("10.32.0.1")), "{:?}", status.conflict);
            assert_eq!(said(&world, host, "stay apart"), 1, "{:?}", world.hosts[host].lines);
            let more = world.allocate(host, "more", net("10.32.9.0/24"));
            world.run(S);
            assert!(world.address(more).is_some(), "it goes on");
        }
        // One side gives the address up: they join by themselves.
        for host in 0..2 {
            world.with(host, |machine, now| machine.release("more", None, now));
        }
        world.with(0, |machine, now| machine.release("a", None, now));
        world.run(120 * S);
        assert_eq!((world.status(0).members, world.status(1).members), (2, 2), "seed {seed}");
    }
}

#[test]
fn larger_spaces_join_too_with_a_member_away() {
    let mut inits = vec![Init::Consensus(3); 3];
    inits.extend(vec![Init::Consensus(2); 2]);
    let mut world = World::new(11, inits, vec![net(RANGE)], None);
    part(&mut world, &[0, 0, 0, 1, 1]);
    world.run(10 * S);
    (0..3).for_each(|host| _ = world.allocate(host, "a", net("10.32.1.0/24")));
    (3..5).for_each(|host| _ = world.allocate(host, "a", net("10.33.1.0/24")));
    world.run(5 * S);
    part(&mut world, &[0, 0, 2, 0, 0]);
    world.run(60 * S);
    part(&mut world, &[0; 5]);
    world.run(60 * S);
    let members: Vec<usize> = (0..5).map(|host| world.status(host).members).collect();
    assert_eq!(members, [5; 5], "{:?}", world.hosts.iter().map(|h| &h.lines).collect::<Vec<_>>());
    assert_eq!(world.problem, None);
}

#[test]
fn ranges_that_differ_are_told_once() {
    let mut world = World::new(3, vec![Init::Consensus(1); 2], vec![net(RANGE)], None);
    world.ranges = vec![net("10.40.0.0/13")];
    world.hosts[1].disk = None;
    world.start(1);
    world.look_around();
    world.run(60 * S);
    assert_eq!(said(&world, 0, "launch both with the same --ipalloc-range"), 1, "{:?}", world.hosts[0].lines);
}

#[test]
fn a_hundred_peers_converge() {
    let mut inits = vec![Init::Observer; 100];
    inits[..5].fill(Init::Consensus(5));
    let mut world = World::new(1, inits, vec![net(RANGE)], None);
    world.run(30 * S);
    let versions: BTreeSet<u64> = (0..100).map(|host| world.status(host).version).collect();
    assert_eq!(versions.len(), 1, "{versions:?}");
    let requests: Vec<u64> = (0..100).map(|host| world.allocate(host, "a", net(RANGE))).collect();
    let got: BTreeSet<String> = requests.iter().map(|request| text(&world, *request)).collect();
    assert_eq!((got.len(), got.contains("waits")), (100, false), "each at once from its own part");
    let before = world.bytes;
    world.run(60 * S);
    let quiet = (world.bytes - before) / 60 / 100;
    assert!(quiet < 200, "an idle peer says {quiet} bytes a second");
    assert_eq!(world.problem, None);
    let _ = MS;
}
