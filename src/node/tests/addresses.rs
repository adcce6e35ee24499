//! Addresses that rnet chooses: given at once, given back, waited for, and never promised before they are on the disk.

use super::attachments::{attached, detach, why};
use super::*;
use crate::ipam::IpamStatus;

fn ips(reply: Reply) -> Vec<String> {
    let interfaces = attached(reply).interfaces;
    interfaces.iter().flat_map(|interface| &interface.addresses).map(|address| address.to_string()).collect()
}

fn ipam(world: &mut World, at: usize) -> IpamStatus {
    world.status(at).ipam.unwrap()
}

fn used(world: &mut World, at: usize) -> u64 {
    ipam(world, at).owners.iter().map(|owner| owner.used.unwrap_or(0)).max().unwrap_or(0)
}

/// Asks without waiting for the answer; gives its number.
fn begin(world: &mut World, at: usize, command: Command) -> u64 {
    let request = world.number();
    world.input(at, Input::Command { request: RequestId(request), command });
    request
}

fn meeting(count: u8, init: Init) -> World {
    let addresses = AddressConfig { init, ..space("10.32.0.0/12") };
    let mut world = World::new((1..=count).map(|n| NodeConfig { addresses: addresses.clone(), ..config(n) }).collect());
    (1..usize::from(count)).for_each(|at| world.connect(at - 1, at));
    world.seconds(2);
    world
}

#[test]
fn a_host_alone_gives_addresses_at_once_and_takes_them_back() {
    let mut world = World::of(1);
    assert_eq!(ips(world.attach(0, "web", &["net:10.32.2.0/24"])), ["10.32.2.1/24"]);
    assert_eq!(ips(world.attach(0, "db", &["net:10.32.2.0/24", "net:default", "10.2.1.1/24"])).len(), 3);
    assert_eq!(ips(world.attach(0, "web", &["net:10.32.2.0/24"])), ["10.32.2.1/24"], "the same for the same key");
    assert_eq!(used(&mut world, 0), 3);
    assert_eq!(ips(detach(&mut world, 0, "db", &["net:10.32.2.0/24"])), ["10.32.2.2/24"]);
    detach(&mut world, 0, "db", &[]);
    world.input(0, Input::AttachmentGone { key: "web".to_string() });
    world.seconds(1);
    assert_eq!(used(&mut world, 0), 0);
    assert_eq!(ips(world.attach(0, "new", &["net:10.32.2.0/24"])), ["10.32.2.1/24"]);
}

#[test]
fn explicit_addresses_of_the_space_are_claimed() {
    let mut world = meeting(2, Init::Consensus(2));
    assert_eq!(ips(world.attach(0, "web", &["10.32.2.1/24"])), ["10.32.2.1/24"]);
    assert_eq!(ips(world.attach(1, "db", &["net:10.32.2.0/24"])).len(), 1);
    let why_here = why(world.attach(0, "db", &["10.32.2.1/24"]));
    assert!(why_here.contains("10.32.2.1") && why_here.contains("web"), "{why_here}");
    let why_there = why(world.attach(1, "other", &["10.32.2.1/24"]));
    assert!(why_there.starts_with("ip:10.32.2.1/24: 10.32.2.1 is owned by other peer"), "{why_there}");
}

#[test]
fn hosts_far_apart_in_a_chain_never_give_the_same_address() {
    let mut world = meeting(4, Init::Consensus(4));
    let mut all: Vec<String> = Vec::new();
    for round in 0..5 {
        for at in 0..4 {
            all.extend(ips(world.attach(at, &format!("c{round}"), &["net:10.32.2.0/24"])));
        }
    }
    let distinct: BTreeSet<&String> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (20, 20), "{all:?}");
    assert_eq!(ipam(&mut world, 3).owners.len(), 4, "letters pass several links");
}

#[test]
fn a_request_waits_with_its_reason_and_ends_with_its_client() {
    let init = Init::Consensus(3);
    let mut world = meeting(1, init);
    let request = begin(&mut world, 0, Command::Attach(attach("web", &["net:10.32.2.0/24"])));
    let other = begin(&mut world, 0, Command::Attach(attach("db", &["net:10.32.2.0/24"])));
    world.seconds(5);
    let waiting = ipam(&mut world, 0).waiting;
    assert_eq!(waiting.len(), 2);
    let web = waiting.iter().find(|waiting| waiting.key.as_deref() == Some("web")).unwrap();
    assert!(web.why.contains("2 of 3 hosts must agree") && web.seconds >= 4, "{web:?}");
    world.input(0, Input::Withdrawn { request: RequestId(request) });
    assert_eq!(ipam(&mut world, 0).waiting.len(), 1);
    assert!(!world.hosts[0].replies.contains_key(&request));
    detach(&mut world, 0, "db", &[]);
    assert!(why(world.hosts[0].replies[&other].clone()).contains("detached"));
    assert!(ipam(&mut world, 0).waiting.is_empty());
}

#[test]
fn errors_are_one_clear_line_each() {
    let mut world = World::of(1);
    let outside = why(world.attach(0, "web", &["net:10.99.0.0/24"]));
    assert_eq!(outside, "net:10.99.0.0/24: 10.99.0.0/24 lies outside of the allocation range 10.32.0.0/12");
    for key in ["a", "b"] {
        attached(world.attach(0, key, &["net:10.32.2.0/30"]));
    }
    let full = why(world.attach(0, "c", &["net:10.32.2.0/30"]));
    assert!(full.starts_with("net:10.32.2.0/30: no address is left from 10.32.2.1 to 10.32.2.2"), "{full}");
    let none = AddressConfig { ranges: Vec::new(), ..space("10.32.0.0/12") };
    let mut off = World::new(vec![NodeConfig { addresses: none, ..config(1) }]);
    assert!(why(off.attach(0, "web", &["net:default"])).contains("hands out no addresses"));
    assert_eq!(ips(off.attach(0, "web", &["10.32.0.1/12"])), ["10.32.0.1/12"]);
    assert!(why(world.ask(0, Command::Rmpeer { peers: vec!["nobody".into()] })).contains("no peer is known"));
}

#[test]
fn all_or_nothing_of_a_request_with_several_addresses() {
    let mut world = World::of(1);
    attached(world.attach(0, "a", &["10.32.2.1/24"]));
    why(world.attach(0, "web", &["net:10.32.3.0/24", "10.32.2.1/24"]));
    assert_eq!(used(&mut world, 0), 1, "what was chosen is free again");
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::Plug { .. }));
    why(world.attach(0, "web", &["net:10.32.3.0/24"]));
    world.seconds(1);
    assert_eq!(used(&mut world, 0), 1, "also when the machine fails");
}

#[test]
fn nothing_is_promised_before_it_is_on_the_disk() {
    let mut world = meeting(2, Init::Consensus(2));
    assert_eq!(ips(world.attach(0, "a", &["net:10.32.2.0/24"])).len(), 1);
    world.hosts[0].disk_fails = true;
    let request = begin(&mut world, 0, Command::Attach(attach("b", &["net:10.32.2.0/24"])));
    world.seconds(30);
    assert!(!world.hosts[0].replies.contains_key(&request));
    let status = ipam(&mut world, 0);
    assert!(status.state.starts_with("waiting for the disk"), "{}", status.state);
    assert_eq!(world.status(0).attachments.len(), 1);
    assert_eq!(world.established(0), 1, "links do not depend on it");
}

#[test]
fn a_restart_keeps_addresses_and_goes_on_where_it_was() {
    let mut world = meeting(2, Init::Consensus(2));
    let before = ips(world.attach(0, "web", &["net:10.32.2.0/24"]));
    attached(world.attach(0, "gone", &["net:10.32.2.0/24"]));
    let state = world.hosts[0].saved.clone().unwrap();
    let json = serde_json::to_vec(&state).unwrap();
    let mut state: State = serde_json::from_slice(&json).unwrap();
    // One was attached when the power failed, but its record did not make it.
    state.attachments.retain(|attachment| attachment.key == "web");
    let addresses = AddressConfig { init: Init::Consensus(2), ..space("10.32.0.0/12") };
    world.replace(0, NodeConfig { state, addresses, seed: [77; 32], uid: Uid(77), ..config(1) }, true);
    world.connect(0, 1);
    world.seconds(3);
    assert_eq!(ips(Reply::Attached(world.status(0).attachments[0].clone())), before);
    assert_eq!(used(&mut world, 0), 1);
    assert_eq!(ips(world.attach(0, "web", &["net:10.32.2.0/24"])), before);
    assert_ne!(ips(world.attach(0, "new", &["net:10.32.2.0/24"])), before);
}

#[test]
fn attachments_of_a_lost_allocator_state_are_claimed_again() {
    let mut world = World::of(1);
    let before = ips(world.attach(0, "web", &["net:10.32.2.0/24"]));
    let state = State { ipam: None, version: 1, ..world.hosts[0].saved.clone().unwrap() };
    world.replace(0, NodeConfig { state, seed: [77; 32], uid: Uid(77), ..config(1) }, true);
    world.seconds(1);
    assert_eq!(used(&mut world, 0), 1);
    assert_ne!(ips(world.attach(0, "new", &["net:10.32.2.0/24"])), before);
}

#[test]
fn the_process_behind_a_number_is_remembered() {
    let mut world = World::of(1);
    let request =
        begin(&mut world, 0, Command::Attach(Attach { place: Place::Pid(7), ..attach("pid:7", &["10.2.1.1/24"]) }));
    world.hosts[0].place = Some(Place::Process { pid: 7, started: 42 });
    world.seconds(1);
    let attachment = attached(world.hosts[0].replies[&request].clone());
    assert_eq!(attachment.place, Place::Process { pid: 7, started: 42 });
    assert_eq!(world.hosts[0].saved.as_ref().unwrap().attachments[0].place, attachment.place);
    let again = Attach { place: Place::Pid(7), ..attach("pid:7", &["10.2.1.2/24"]) };
    let again = attached(world.ask(0, Command::Attach(again)));
    assert_eq!(again.place, attachment.place);
    let other = Attach { place: Place::Process { pid: 7, started: 43 }, ..attach("pid:7", &["10.2.1.2/24"]) };
    assert!(why(world.ask(0, Command::Attach(other))).contains("another namespace"));
}

#[test]
fn who_leaves_gives_its_space_to_the_others() {
    let mut world = meeting(3, Init::Consensus(3));
    for at in 0..3 {
        attached(world.attach(at, "web", &["net:10.32.2.0/24"]));
    }
    assert!(matches!(world.ask(1, Command::Leave), Reply::Told(_)));
    assert!(world.status(1).attachments.is_empty());
    assert!(why(world.attach(1, "db", &["10.2.1.1/24"])).contains("leaving"));
    world.seconds(2);
    let owners: Vec<_> = ipam(&mut world, 0).owners.iter().map(|owner| owner.peer).collect();
    assert!(!owners.contains(&public(2).name()), "{owners:?}");
}

#[test]
fn a_dead_peer_is_removed_by_its_nickname() {
    let mut world = meeting(3, Init::Consensus(3));
    for at in 0..3 {
        attached(world.attach(at, "web", &["net:10.32.2.0/24"]));
    }
    // The middle of the chain stays: the others reach each other over it.
    let alive = why(world.ask(0, Command::Rmpeer { peers: vec!["host3".into()] }));
    assert!(alive.contains("is alive and within reach"), "{alive}");
    world.ask(2, Command::Stop);
    world.seconds(60);
    let told = world.ask(0, Command::Rmpeer { peers: vec!["host3".into()] });
    assert!(matches!(&told, Reply::Told(lines) if lines.len() == 1), "{told:?}");
    assert!(matches!(world.ask(1, Command::Rmpeer { peers: vec!["host3".into()] }), Reply::Told(_)), "safe to repeat");
}

#[test]
fn state_of_an_ipv6_space_survives_as_json() {
    let ranges = vec!["10.32.0.0/12".parse().unwrap(), "fd00:32::/48".parse().unwrap()];
    let addresses = AddressConfig { ranges, ..space("10.32.0.0/12") };
    let mut world = World::new(vec![NodeConfig { addresses: addresses.clone(), ..config(1) }]);
    let before = ips(world.attach(0, "web", &["net:fd00:32:0:1::/64"]));
    assert_eq!(before, ["fd00:32:0:1::1/64"]);
    let state = world.hosts[0].saved.clone().unwrap();
    let state: State = serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
    assert_eq!(state.ipam, world.hosts[0].saved.as_ref().unwrap().ipam);
    world.replace(0, NodeConfig { state, addresses, seed: [77; 32], uid: Uid(77), ..config(1) }, true);
    world.seconds(1);
    assert_eq!(ips(world.attach(0, "web", &["net:fd00:32:0:1::/64"])), before);
}
