//! Stories of addresses that rnet chooses: partitions, dead peers, operators, hosts that meet late. Whatever happens, no two
//! running attachments have the same address.

use super::machine::Options;
use super::story::{attach, first_address};
use super::world::{H, KEPT, World, secs};
use rnet::ipam::{Init, IpamStatus};
use rnet::node::command::{Command, Reply};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

const NET: &str = "net:10.32.2.0/24";

fn mesh(world: &mut World, count: usize, options: &Options) -> Vec<H> {
    let hosts: Vec<H> = (0..count).map(|_| world.host(options.clone())).collect();
    world.launch(hosts[0], &[]);
    hosts[1..].iter().for_each(|h| world.launch(*h, &[hosts[0]]));
    world.run_for(secs(3));
    hosts
}

fn of(count: usize) -> Options {
    Options { init: Init::Consensus(count), ..Options::default() }
}

fn with_reclaim(count: usize, seconds: u64) -> Options {
    Options { reclaim: Some(secs(seconds)), ..of(count) }
}

/// No address twice among all running attachments; how many there are.
fn assert_distinct(world: &mut World, hosts: &[H]) -> usize {
    let mut holders: BTreeMap<IpAddr, (H, String)> = BTreeMap::new();
    let running: Vec<H> = hosts.iter().copied().filter(|h| world.hosts[h.0].process.is_some()).collect();
    for h in running {
        for attachment in world.status(h).attachments {
            for address in attachment.interfaces.iter().flat_map(|interface| &interface.addresses) {
                let other = holders.insert(address.ip(), (h, attachment.key.clone()));
                assert!(other.is_none(), "{} is at {other:?} and {h:?}/{}", address.ip(), attachment.key);
            }
        }
    }
    holders.len()
}

fn get(world: &mut World, h: H, key: &str) -> IpAddr {
    world.try_attach_as(h, key, NET).unwrap_or_else(|why| panic!("{key} at {h:?}: {why}"))
}

fn get_all(world: &mut World, hosts: &[H], key: &str) {
    for h in hosts {
        get(world, *h, key);
    }
}

fn ipam(world: &mut World, h: H) -> IpamStatus {
    world.status(h).ipam.unwrap()
}

fn members(world: &mut World, h: H) -> usize {
    ipam(world, h).members
}

#[test]
fn two_hosts_that_ask_at_the_same_moment_get_two_addresses_and_ping() {
    for seed in 0..20 {
        let mut world = World::new(600 + seed);
        let hosts = mesh(&mut world, 2, &of(2));
        let asked = hosts.iter().map(|h| (*h, world.ask(*h, attach("web", NET)))).collect::<Vec<_>>();
        let got: Vec<IpAddr> =
            asked.into_iter().map(|(h, n)| first_address(&world.answer(h, n).unwrap()).unwrap()).collect();
        assert_ne!(got[0], got[1]);
        assert!(world.ping(hosts[0], hosts[1], "10.32.2.0/24"));
    }
}

#[test]
fn addresses_are_given_on_both_sides_of_a_partition_and_never_twice() {
    for seed in 0..10 {
        let mut world = World::new(620 + seed);
        let hosts = mesh(&mut world, 4, &of(4));
        get_all(&mut world, &hosts, "first");
        world.run_for(secs(2));
        world.partition(&hosts[..2], &hosts[2..]);
        world.run_for(secs(10));
        for n in 0..5 {
            for h in &hosts {
                let start = world.now;
                get(&mut world, *h, &format!("apart{n}"));
                assert!(world.now - start < Duration::from_millis(200), "at once, as nobody has to be asked");
            }
        }
        assert_eq!(assert_distinct(&mut world, &hosts), 24);
        world.heal();
        world.run_for(secs(60));
        get_all(&mut world, &hosts, "after");
        assert_eq!(assert_distinct(&mut world, &hosts), 28);
        let states: Vec<_> = hosts.iter().map(|h| ipam(&mut world, *h).version).collect();
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:?}");
    }
}

#[test]
fn a_dead_peer_stops_counting_by_itself_and_a_minority_never_decides() {
    let mut world = World::new(640);
    let hosts = mesh(&mut world, 5, &with_reclaim(5, 60));
    get_all(&mut world, &hosts, "first");
    world.run_for(secs(2));
    assert_eq!(members(&mut world, hosts[0]), 5);
    world.power_off(hosts[4]);
    let reclaimed = world.run_until(secs(200), |world| members(world, hosts[0]) == 4);
    assert!(reclaimed.is_some_and(|time| time >= secs(55)), "{reclaimed:?}");
    // Two of four are no majority.
    world.partition(&hosts[..2], &hosts[2..4]);
    world.run_for(secs(600));
    for h in &hosts[..4] {
        assert_eq!(members(&mut world, *h), 4, "at {h:?}");
    }
    world.heal();
    world.restart(hosts[4], KEPT);
    world.command(hosts[4], Command::Connect { targets: vec![world.target(hosts[0])], replace: false });
    assert!(world.run_until(secs(60), |world| members(world, hosts[0]) == 5).is_some(), "it is one of them again");
    get_all(&mut world, &hosts, "after");
    assert_distinct(&mut world, &hosts);
}

#[test]
fn rmpeer_on_two_hosts_at_once_frees_the_space_of_the_dead_once() {
    let mut world = World::new(650);
    let hosts = mesh(&mut world, 4, &of(4));
    get_all(&mut world, &hosts, "first");
    world.power_off(hosts[3]);
    world.run_for(secs(40));
    let dead = Command::Rmpeer { peers: vec![world.hosts[hosts[3].0].name.clone()] };
    let asked = [hosts[0], hosts[1]].map(|h| (h, world.ask(h, dead.clone())));
    for (h, n) in asked {
        let reply = world.answer(h, n);
        assert!(matches!(reply, Some(Reply::Told(_))), "{reply:?}");
    }
    assert!(matches!(world.command(hosts[2], dead), Reply::Told(_)), "and again");
    let name = world.name(hosts[3]);
    assert!(ipam(&mut world, hosts[0]).owners.iter().all(|owner| owner.peer != name));
    // It was not dead at all: it says so, and its old addresses are nobody's but its running attachments'.
    world.restart(hosts[3], KEPT);
    world.command(hosts[3], Command::Connect { targets: vec![world.target(hosts[0])], replace: false });
    world.run_for(secs(30));
    assert!(world.hosts[hosts[3].0].has_logged("was removed from the address space"));
    get_all(&mut world, &hosts, "after");
    assert_distinct(&mut world, &hosts);
}

#[test]
fn two_that_started_alone_meet_and_have_one_space() {
    let mut world = World::new(660);
    let [a, b] = world.hosts();
    world.launch(a, &[]);
    world.launch(b, &[]);
    // Founded apart, and nothing given out that the other has too.
    world.try_attach_as(a, "web", "10.32.2.1/24").unwrap();
    world.try_attach_as(b, "web", "10.32.2.200/24").unwrap();
    world.command(b, Command::Connect { targets: vec![world.target(a)], replace: false });
    let joined = world.run_until(secs(120), |world| members(world, a) == 2 && members(world, b) == 2);
    assert!(joined.is_some(), "{:?}", ipam(&mut world, a));
    for n in 0..5 {
        get_all(&mut world, &[a, b], &format!("c{n}"));
    }
    assert_eq!(assert_distinct(&mut world, &[a, b]), 12);
}

#[test]
fn two_that_gave_out_the_same_address_apart_keep_their_links_and_say_what_to_do() {
    let mut world = World::new(670);
    let [a, b] = world.hosts();
    for h in [a, b] {
        world.launch(h, &[]);
        get(&mut world, h, "web");
    }
    world.command(b, Command::Connect { targets: vec![world.target(a)], replace: false });
    let told = world.run_until(secs(180), |world| [a, b].into_iter().any(|h| ipam(world, h).conflict.is_some()));
    assert!(told.is_some());
    assert!(world.run_until(secs(3), |world| world.are_neighbours(a, b)).is_some());
    world.run_for(secs(60));
    assert!(world.are_neighbours(a, b), "the link stays");
    for h in [a, b] {
        assert_eq!(world.status(h).attachments.len(), 1, "no running attachment is touched");
    }
    let conflict = [a, b].into_iter().find_map(|h| ipam(&mut world, h).conflict).unwrap();
    assert!(conflict.contains("10.32.2.1") && !conflict.contains('\n'), "{conflict}");
}

#[test]
fn killed_and_restarted_routers_keep_addresses_and_give_none_twice() {
    for seed in 0..10 {
        let mut world = World::new(680 + seed);
        let hosts = mesh(&mut world, 3, &of(3));
        for n in 0..12_usize {
            let h = hosts[n % 3];
            get(&mut world, h, &format!("c{n}"));
            let victim = hosts[(n + usize::try_from(seed).unwrap()) % 3];
            let before = world.status(victim).attachments;
            world.kill(victim);
            world.restart(victim, KEPT);
            world.run_for(secs(8));
            assert_eq!(world.status(victim).attachments, before);
        }
        assert_eq!(assert_distinct(&mut world, &hosts), 12);
    }
}

#[test]
fn a_chain_of_eight_shares_one_space_over_its_relays() {
    let mut world = World::new(690);
    let options = Options { discovery: false, ..of(8) };
    let hosts: Vec<H> = (0..8).map(|_| world.host(options.clone())).collect();
    world.launch(hosts[0], &[]);
    (1..8).for_each(|n| world.launch(hosts[n], &[hosts[n - 1]]));
    world.run_for(secs(8));
    for n in 0..3 {
        get_all(&mut world, &hosts, &format!("c{n}"));
    }
    assert_eq!(assert_distinct(&mut world, &hosts), 24);
    assert_eq!(members(&mut world, hosts[7]), 8);
}
