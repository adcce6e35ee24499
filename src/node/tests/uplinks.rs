//! Captured interfaces: brought onto networks, refused, given up, back after a restart; what the data plane hears of them.

use super::attachments::{detach, kinds, why};
use super::*;
use crate::node::STATE_VERSION;
use crate::node::border::UplinkState;
use crate::node::command::{Uplink, UplinkCapture};
use crate::node::status::UplinkCondition;

fn uplink(interface: &str, network: &str) -> Uplink {
    Uplink { interface: interface.parse().unwrap(), network: network.parse().unwrap(), capture: UplinkCapture::Packet }
}

fn add(world: &mut World, interface: &str, network: &str) -> Reply {
    world.ask(0, Command::Bridge(uplink(interface, network)))
}

fn del(world: &mut World, interface: &str) -> Reply {
    world.ask(0, Command::Unbridge { interface: interface.parse().unwrap() })
}

/// The port of the only uplink.
fn port(world: &World) -> PortId {
    let fib = world.hosts[0].plane.fib();
    let mut all = fib.networks.values().flat_map(|entry| &entry.uplinks);
    let port = all.next().expect("an uplink").port;
    assert!(all.next().is_none());
    port
}

fn carries(world: &World, port: PortId) -> bool {
    let fib = world.hosts[0].plane.fib();
    fib.networks[&fib.ports[&port]].uplink(port).unwrap().carries()
}

#[test]
fn an_interface_is_a_port_of_a_network_that_is_open_for_it_alone() {
    let mut world = World::of(2);
    world.connect(1, 0);
    world.seconds(1);
    assert_eq!(add(&mut world, "eth1", "10.2.1.0/24"), Reply::Done);
    assert_eq!(add(&mut world, "eth1", "10.2.1.0/24"), Reply::Done, "idempotent");
    assert_eq!(kinds(&mut world, 0), ["open", "uplink"]);
    let port = port(&world);
    assert!(!carries(&world, port));
    world.input(0, Input::Uplink { port, state: UplinkState::Up(1400) });
    assert!(!carries(&world, port), "it listens first");
    world.seconds(1);
    assert!(carries(&world, port));
    let beacons = world.hosts[0].delivered.iter().filter(|(at, _)| *at == port).count();
    assert_eq!(beacons, 4, "in one second");
    let status = world.status(0);
    assert_eq!(
        (status.uplinks.len(), status.uplinks[0].mtu, status.uplinks[0].condition),
        (1, 1400, UplinkCondition::Carrying)
    );
    assert_eq!(status.networks[0].uplinks, [status.uplinks[0].interface.clone()]);
    // The mesh hears of the network, so that floods come.
    assert!(world.status(1).networks.iter().any(|network| network.network == status.uplinks[0].network));
    // Attachments come and go beside it.
    world.attach(0, "web", &["10.2.1.1/24"]);
    detach(&mut world, 0, "web", &[]);
    assert_eq!(kinds(&mut world, 0), ["plug", "unplug"]);
    assert_eq!(del(&mut world, "eth1"), Reply::Done);
    let told = |line: &str| Reply::Told(vec![line.to_string()]);
    let nothing = told("bridge del eth1: nothing of that name is captured; nothing is");
    assert_eq!(del(&mut world, "eth1"), nothing, "idempotent");
    assert_eq!(kinds(&mut world, 0), ["unlink", "close"]);
    assert!(world.status(0).uplinks.is_empty() && world.hosts[0].plane.fib().ports.is_empty());
    let before = world.hosts[0].delivered.len();
    world.seconds(5);
    assert_eq!(world.hosts[0].delivered.len(), before, "no more beacons");
}

#[test]
fn while_it_is_away_it_carries_nothing_and_says_why() {
    let mut world = World::of(1);
    add(&mut world, "eth1", "10.2.1.0/24");
    let port = port(&world);
    world.input(0, Input::Uplink { port, state: UplinkState::Up(1500) });
    world.seconds(1);
    world.input(0, Input::Uplink { port, state: UplinkState::Away("it is down".into()) });
    assert!(!carries(&world, port));
    let status = world.status(0).uplinks.remove(0);
    assert_eq!((status.condition, status.info.as_str()), (UplinkCondition::Away, "it is down"));
    world.input(0, Input::Uplink { port, state: UplinkState::Up(1500) });
    world.seconds(1);
    assert!(carries(&world, port));
    // Another MTU alone interrupts nothing.
    world.input(0, Input::Uplink { port, state: UplinkState::Up(9000) });
    assert!(carries(&world, port));
    assert_eq!(world.status(0).uplinks[0].mtu, 9000);
}

#[test]
fn what_is_wrong_is_refused_and_what_the_machine_refuses_is_undone() {
    let mut world = World::of(1);
    add(&mut world, "eth1", "10.2.1.0/24");
    kinds(&mut world, 0);
    let told = why(add(&mut world, "eth1", "10.2.2.0/24"));
    assert_eq!(told, "bridge add eth1: it is captured for 10.2.1.0/24 by packet already: `rnet bridge del eth1` first");
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::OpenUplink { .. }));
    assert_eq!(why(add(&mut world, "eth2", "10.2.2.0/24")), "bridge add eth2: no permission");
    assert_eq!(kinds(&mut world, 0), ["open", "uplink", "close"]);
    assert_eq!(world.status(0).uplinks.len(), 1);
}

#[test]
fn what_was_added_comes_back_and_what_launch_captures_is_its_own_affair() {
    let given = NodeConfig { uplinks: vec![uplink("eth9", "10.2.9.0/24")], ..config(1) };
    let mut world = World::new(vec![given]);
    world.seconds(1);
    add(&mut world, "eth1", "10.2.1.0/24");
    world.seconds(1);
    assert_eq!(world.status(0).uplinks.len(), 2);
    let saved = world.hosts[0].saved.clone().unwrap();
    assert_eq!(saved.uplinks, [uplink("eth1", "10.2.1.0/24")]);
    let text = serde_json::to_string(&saved).unwrap();
    let mut world = World::new(vec![NodeConfig { state: serde_json::from_str(&text).unwrap(), ..config(1) }]);
    world.seconds(1);
    assert!(world.hosts[0].ops.iter().any(|op| matches!(op, HostOp::OpenUplink { must: false, .. })), "away or not");
    assert_eq!(world.status(0).uplinks.iter().map(|up| up.interface.as_str()).collect::<Vec<_>>(), ["eth1"]);
    del(&mut world, "eth1");
    world.seconds(1);
    assert!(world.hosts[0].saved.clone().unwrap().uplinks.is_empty());
}

#[test]
fn what_was_given_up_is_not_captured_by_an_attempt_that_waited() {
    let mut world = World::of(1);
    let state = State { uplinks: vec![uplink("eth1", "10.2.1.0/24")], ..State::default() };
    world.replace(0, NodeConfig { state, ..config(1) }, true);
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::OpenUplink { .. }));
    world.seconds(1);
    world.hosts[0].fails = Box::new(|_| false);
    assert_eq!(del(&mut world, "eth1"), Reply::Done);
    kinds(&mut world, 0);
    world.hosts[0].node.jobs.bridge_later(uplink("eth1", "10.2.1.0/24"));
    world.seconds(1);
    assert_eq!(kinds(&mut world, 0), [] as [&str; 0]);
    assert!(world.status(0).uplinks.is_empty());
}

#[test]
fn what_cannot_be_captured_at_the_start_stays_wanted_and_is_tried_again() {
    let state = State { version: STATE_VERSION, uplinks: vec![uplink("eth1", "10.2.1.0/24")], ..State::default() };
    let mut world = World::new(vec![config(1)]);
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::OpenUplink { .. }));
    world.replace(0, NodeConfig { state, ..config(1) }, false);
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::OpenUplink { .. }));
    world.seconds(1);
    let status = world.status(0).uplinks.remove(0);
    assert_eq!((status.condition, status.info.as_str()), (UplinkCondition::Away, "no permission"));
    world.hosts[0].fails = Box::new(|_| false);
    world.seconds(12);
    assert!(world.status(0).uplinks[0].port > 0, "captured");
}
