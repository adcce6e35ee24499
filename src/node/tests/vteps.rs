//! VTEPs: joined, refused, parted, back after a restart; what the mesh and the data plane hear of them.

use super::attachments::{detach, kinds, why};
use super::*;
use crate::node::command::Vtep;
use crate::node::vteps::MAX_VTEPS;
use crate::types::VtepAddress;

fn vtep(address: &str, network: &str, vni: u32) -> Vtep {
    let address: VtepAddress = address.parse().unwrap();
    let (network, vni) = (network.parse().unwrap(), vni.try_into().unwrap());
    Vtep { address, network, vni, local_port: address.socket().port() }
}

fn join(world: &mut World, address: &str, network: &str, vni: u32) -> Reply {
    world.ask(0, Command::Join(vtep(address, network, vni)))
}

fn part(world: &mut World, address: &str, network: Option<&str>) -> Reply {
    let network = network.map(|network| network.parse().unwrap());
    world.ask(0, Command::Part { address: address.parse().unwrap(), network })
}

#[test]
fn a_vtep_is_a_port_of_a_network_that_is_open_for_it_alone() {
    let mut world = World::of(2);
    world.connect(1, 0);
    world.seconds(1);
    assert_eq!(join(&mut world, "vxlan://10.0.0.5", "10.2.1.0/24", 42), Reply::Done);
    assert_eq!(join(&mut world, "vxlan://10.0.0.5", "10.2.1.0/24", 42), Reply::Done, "idempotent");
    assert_eq!(kinds(&mut world, 0), ["open", "tunnel"]);
    let id = vtep("vxlan://10.0.0.5", "10.2.1.0/24", 42).network.id();
    let fib = world.hosts[0].plane.fib();
    let entry = &fib.networks[&id];
    assert_eq!((entry.tunnels.len(), entry.mtu, entry.port.is_some()), (1, Some(1400), true));
    let (port, source) = (entry.tunnels[0].ends.port, ([10, 0, 0, 5].into(), 42.try_into().unwrap()));
    assert_eq!(fib.tunnels.find(4789, source.0, source.1).map(|tunnel| tunnel.ends.port), Some(port));
    assert_ne!(Some(port), entry.port);
    world.input(0, Input::RouteMtu { port, mtu: 1400 });
    // The mesh hears of the network, so that floods come.
    world.seconds(1);
    let status = world.status(1);
    assert!(status.networks.iter().any(|network| network.id == id && !network.open && network.peers.len() == 1));
    let status = world.status(0);
    assert_eq!((status.vteps.len(), status.vteps[0].mtu, status.vteps[0].last_heard), (1, 1350, None));
    assert_eq!(status.networks[0].vteps, [status.vteps[0].address]);
    // Attachments come and go beside it.
    world.attach(0, "web", &["10.2.1.1/24"]);
    detach(&mut world, 0, "web", &[]);
    assert_eq!(kinds(&mut world, 0), ["plug", "unplug"]);
    assert_eq!(part(&mut world, "vxlan://10.0.0.5:4789", None), Reply::Done);
    let nothing = "forget vxlan://10.0.0.5: nothing of that name is joined; nothing is".to_string();
    assert_eq!(part(&mut world, "vxlan://10.0.0.5:4789", None), Reply::Told(vec![nothing]), "idempotent");
    assert_eq!(kinds(&mut world, 0), ["untunnel", "close"]);
    let fib = world.hosts[0].plane.fib();
    assert!(fib.networks.is_empty() && fib.tunnels.get(port).is_none());
    assert!(world.status(0).vteps.is_empty());
}

#[test]
fn a_network_closes_with_the_last_that_uses_it() {
    let mut world = World::of(1);
    world.attach(0, "web", &["10.2.1.1/24"]);
    join(&mut world, "vxlan://10.0.0.5", "10.2.1.0/24", 42);
    join(&mut world, "vxlan://10.0.0.6", "10.2.1.0/24", 42);
    assert_eq!(kinds(&mut world, 0), ["open", "plug", "tunnel", "tunnel"]);
    part(&mut world, "vxlan://10.0.0.5", None);
    detach(&mut world, 0, "web", &[]);
    assert_eq!(kinds(&mut world, 0), ["untunnel", "unplug"]);
    part(&mut world, "vxlan://10.0.0.6", None);
    assert_eq!(kinds(&mut world, 0), ["untunnel", "close"]);
}

#[test]
fn what_cannot_be_told_apart_is_refused_with_what_to_do() {
    let mut world = World::of(1);
    assert_eq!(join(&mut world, "vxlan://10.0.0.5", "10.2.1.0/24", 42), Reply::Done);
    kinds(&mut world, 0);
    let facts = [
        ("vxlan://10.0.0.5", "10.2.1.0/24", 43, "is on 10.2.1.0/24 with VNI 42 already: forget it first"),
        ("vxlan://10.0.0.5", "10.2.2.0/24", 42, "those of vxlan://10.0.0.5 on 10.2.1.0/24: give another VNI"),
        ("vxlan://10.0.0.6:6783", "10.2.1.0/24", 42, "UDP port 6783 is the mesh's own"),
    ];
    for (address, network, vni, text) in facts {
        let why = why(join(&mut world, address, network, vni));
        assert!(why.starts_with(&format!("connect {address}: ")) && why.contains(text), "{why}");
    }
    let why_not =
        why(world.ask(0, Command::Join(Vtep { local_port: 4789, ..vtep("vxlan://10.0.0.5:8472", "10.2.2.0/24", 42) })));
    assert!(why_not.contains("those of vxlan://10.0.0.5 on 10.2.1.0/24"), "{why_not}");
    let no_port = Vtep { local_port: 0, ..vtep("vxlan://10.0.0.7", "10.2.1.0/24", 42) };
    assert!(why(world.ask(0, Command::Join(no_port))).contains("UDP port 0"));
    assert_eq!(kinds(&mut world, 0), [] as [&str; 0]);
    // On several networks, by several VNIs.
    assert_eq!(join(&mut world, "vxlan://10.0.0.5", "10.2.2.0/24", 43), Reply::Done);
    let why_not = why(part(&mut world, "vxlan://10.0.0.5", None));
    assert!(why_not.contains("(10.2.1.0/24, 10.2.2.0/24): say which with --network"), "{why_not}");
    let other = part(&mut world, "vxlan://10.0.0.5", Some("10.9.0.0/24"));
    let words = "nothing of that name is joined to 10.9.0.0/24; vxlan://10.0.0.5 to ";
    assert!(matches!(&other, Reply::Told(lines) if lines[0].contains(words)), "{other:?}");
    assert_eq!(part(&mut world, "vxlan://10.0.0.5", Some("10.2.1.0/24")), Reply::Done);
    assert_eq!(world.status(0).vteps.iter().map(|vtep| vtep.vni.value()).collect::<Vec<_>>(), [43]);
}

#[test]
fn a_network_that_is_known_keeps_its_id() {
    let mut world = World::of(2);
    world.connect(1, 0);
    world.seconds(1);
    let own = Attach { vni: Some(77.try_into().unwrap()), ..attach("web", &["10.2.1.1/24"]) };
    world.ask(1, Command::Attach(own));
    world.seconds(1);
    assert_eq!(join(&mut world, "vxlan://10.0.0.5", "10.2.1.0/24", 42), Reply::Done);
    assert_eq!(world.status(0).networks.iter().map(|network| network.id.value()).collect::<Vec<_>>(), [77]);
}

#[test]
fn a_port_in_use_undoes_all_and_is_told() {
    let mut world = World::of(1);
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::OpenTunnel { .. }));
    let why = why(join(&mut world, "vxlan://10.0.0.5", "10.2.1.0/24", 42));
    assert_eq!(why, "connect vxlan://10.0.0.5: no permission");
    assert_eq!(kinds(&mut world, 0), ["open", "tunnel", "close"]);
    assert!(world.status(0).vteps.is_empty() && world.hosts[0].plane.fib().networks.is_empty());
}

#[test]
fn what_was_joined_comes_back_and_is_tried_again_until_it_can() {
    let mut world = World::of(1);
    join(&mut world, "vxlan://10.0.0.5", "10.2.1.0/24", 42);
    join(&mut world, "vxlan://[fd00::6]:8472", "10.2.1.0/24", 7);
    world.seconds(1);
    let state = world.hosts[0].saved.clone().unwrap();
    assert_eq!(state.vteps.len(), 2);
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    // Taking things off because the router ends does not forget them.
    world.ask(0, Command::Stop);
    assert_eq!(world.hosts[0].saved.as_ref().unwrap().vteps.len(), 2);
    world.replace(0, NodeConfig { state, ..config(1) }, true);
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::OpenTunnel { vtep, .. } if vtep.local_port == 8472));
    world.seconds(1);
    let vteps = world.status(0).vteps;
    assert_eq!(vteps.iter().map(|vtep| vtep.info.as_str()).collect::<Vec<_>>(), ["", "no permission"]);
    world.seconds(60);
    assert_eq!(world.logged(0, "vxlan://[fd00::6]:8472 is not on 10.2.1.0/24: no permission"), 1);
    assert_eq!(world.hosts[0].saved.as_ref().map_or(2, |state| state.vteps.len()), 2, "still wanted");
    world.hosts[0].fails = Box::new(|_| false);
    world.seconds(15);
    assert!(world.status(0).vteps.iter().all(|vtep| vtep.info.is_empty() && vtep.mtu > 0));
    let before = kinds(&mut world, 0).len();
    world.seconds(60);
    assert_eq!((kinds(&mut world, 0).len(), before > 2), (0, true), "nothing is tried any more");
    // What is forgotten while it cannot be joined is not tried again.
    world.hosts[0].fails = Box::new(|_| true);
    let state = world.hosts[0].saved.clone().unwrap();
    world.replace(0, NodeConfig { state, ..config(1) }, true);
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::OpenTunnel { .. }));
    world.seconds(1);
    part(&mut world, "vxlan://10.0.0.5", None);
    part(&mut world, "vxlan://[fd00::6]:8472", None);
    kinds(&mut world, 0);
    world.seconds(60);
    assert_eq!(kinds(&mut world, 0), [] as [&str; 0]);
    assert!(world.hosts[0].saved.as_ref().unwrap().vteps.is_empty());
}

#[test]
fn what_was_forgotten_is_not_joined_by_an_attempt_that_waited() {
    let mut world = World::of(1);
    let vtep = vtep("vxlan://10.0.0.5", "10.2.1.0/24", 42);
    let state = State { vteps: vec![vtep], ..State::default() };
    world.replace(0, NodeConfig { state, ..config(1) }, true);
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::OpenTunnel { .. }));
    world.seconds(1);
    world.hosts[0].fails = Box::new(|_| false);
    assert_eq!(part(&mut world, "vxlan://10.0.0.5", None), Reply::Done);
    kinds(&mut world, 0);
    world.hosts[0].node.jobs.join_later(vtep);
    world.ask(0, Command::Detach { key: "nobody".into(), addresses: vec![] });
    assert_eq!(kinds(&mut world, 0), [] as [&str; 0]);
    assert!(world.status(0).vteps.is_empty());
}

#[test]
fn there_is_a_most_and_what_is_there_may_be_asked_for_again() {
    let mut world = World::of(1);
    for n in 0..MAX_VTEPS {
        let address = format!("vxlan://10.0.{}.5", n);
        assert_eq!(join(&mut world, &address, "10.2.1.0/24", 42), Reply::Done);
    }
    assert_eq!(join(&mut world, "vxlan://10.0.7.5", "10.2.1.0/24", 42), Reply::Done);
    assert!(why(join(&mut world, "vxlan://10.1.0.5", "10.2.1.0/24", 42)).contains("256 VTEPs already"));
}

#[test]
fn stopping_takes_vteps_off_before_their_networks() {
    let mut world = World::of(1);
    world.attach(0, "web", &["10.2.1.1/24"]);
    join(&mut world, "vxlan://10.0.0.5", "10.2.1.0/24", 42);
    kinds(&mut world, 0);
    assert_eq!(world.ask(0, Command::Stop), Reply::Done);
    assert_eq!(kinds(&mut world, 0), ["unplug", "untunnel", "close"]);
}

#[test]
fn leaving_forgets_them() {
    let mut world = World::of(1);
    join(&mut world, "vxlan://10.0.0.5", "10.2.1.0/24", 42);
    world.ask(0, Command::Leave);
    world.seconds(1);
    assert!(world.hosts[0].saved.as_ref().unwrap().vteps.is_empty());
    assert!(why(join(&mut world, "vxlan://10.0.0.5", "10.2.1.0/24", 42)).contains("leaving"));
}

#[test]
fn an_address_that_moved_is_announced_to_vteps_too() {
    let mut world = World::of(3);
    world.connect(1, 0);
    world.connect(2, 0);
    world.seconds(1);
    join(&mut world, "vxlan://10.0.0.5", "10.2.1.0/24", 42);
    world.attach(1, "web", &["10.2.1.9/24"]);
    world.seconds(1);
    detach(&mut world, 1, "web", &[]);
    world.seconds(1);
    world.hosts[0].delivered.clear();
    world.attach(2, "web", &["10.2.1.9/24"]);
    world.seconds(1);
    let fib = world.hosts[0].plane.fib();
    let entry = fib.networks.values().next().unwrap();
    let announced: BTreeSet<PortId> = world.hosts[0].delivered.iter().map(|(port, _)| *port).collect();
    assert_eq!(announced, BTreeSet::from([entry.port.unwrap(), entry.tunnels[0].ends.port]));
}

#[test]
fn of_two_hosts_that_join_a_vtep_one_stands_by_and_takes_over() {
    let mut world = World::of(2);
    world.connect(1, 0);
    world.seconds(1);
    for at in [0, 1] {
        let reply = world.ask(at, Command::Join(vtep("vxlan://10.0.0.5", "10.2.1.0/24", 42)));
        assert_eq!(reply, Reply::Done);
    }
    world.seconds(3);
    let blocked = |world: &mut World| [0, 1].map(|at| world.status(at).vteps[0].blocked);
    let told = |world: &mut World| [0, 1].map(|at| world.status(at).vteps[0].shared.clone());
    let both = blocked(&mut world);
    let stands_by = both.iter().position(|blocked| *blocked).unwrap();
    assert!(!both[1 - stands_by], "one carries it");
    let carries = |world: &World, at: usize| {
        let fib = world.hosts[at].plane.fib();
        fib.networks.values().flat_map(|entry| &entry.tunnels).all(|tunnel| tunnel.carries())
    };
    assert!(carries(&world, 1 - stands_by) && !carries(&world, stands_by));
    let words = told(&mut world);
    assert!(words[stands_by].contains("carries it") && words[1 - stands_by].contains("stands by"), "{words:?}");
    let warned = |(level, line): &(Level, String)| *level == Level::Warn && line.contains("vxlan://10.0.0.5 stands by");
    assert_eq!(world.hosts[stands_by].log.iter().filter(|line| warned(line)).count(), 1);
    let part = Command::Part { address: "vxlan://10.0.0.5".parse().unwrap(), network: None };
    assert_eq!(world.ask(1 - stands_by, part), Reply::Done);
    world.seconds(8);
    assert!(carries(&world, stands_by) && !world.status(stands_by).vteps[0].blocked);
    assert_eq!(world.status(stands_by).vteps[0].shared, "");
}
