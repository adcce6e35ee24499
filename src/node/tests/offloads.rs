//! What the kernel is told to carry: installed, taken back, held while a neighbour's router is away, taken over after a kill.

use super::*;
use crate::node::border::VxlanPeer;
use crate::types::{Mac, NetId, PeerName};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn open(n: u8) -> NodeConfig {
    // What a kernel carries is not sealed.
    NodeConfig { psk: None, ..config(n) }
}

fn network() -> NetId {
    "10.2.1.0/24".parse::<crate::types::Network>().unwrap().id()
}

fn name(n: u8) -> PeerName {
    public(n).name()
}

fn vxlan(host: usize) -> SocketAddr {
    SocketAddr::new(address_of(host).ip(), 6784)
}

/// Everything that the kernel of host 0 carries now, and who is let in.
fn carried(world: &World) -> (BTreeMap<Mac, SocketAddr>, Vec<PeerName>) {
    let (mut macs, mut peers) = (BTreeMap::new(), Vec::new());
    for op in &world.hosts[0].ops {
        match op {
            HostOp::Offload { mac, to: Some(to), .. } => drop(macs.insert(*mac, *to)),
            HostOp::Offload { mac, to: None, .. } => drop(macs.remove(mac)),
            HostOp::VxlanPeers(list) => peers = list.iter().map(|peer| peer.peer).collect(),
            _ => {}
        }
    }
    (macs, peers)
}

/// Two neighbours by the kernel, and a MAC behind the second.
fn carrying(configs: Vec<NodeConfig>) -> World {
    let mut world = World::new(configs);
    world.connect(0, 1);
    for at in 1..world.hosts.len() {
        (1..at).for_each(|other| world.connect(at, other));
        if at > 1 {
            world.connect(at, 0);
        }
    }
    world.attach(0, "web", &["10.2.1.1/24"]);
    world.seconds(8);
    offer(&mut world);
    assert_eq!(carried(&world).0, BTreeMap::from([(MAC, vxlan(1))]));
    assert!(carried(&world).1.contains(&name(2)));
    world
}

fn offer(world: &mut World) {
    let fib = world.hosts[0].plane.fib();
    let peer =
        fib.paths.values().find(|path| path.endpoint().map(|to| to.ip()) == Some(address_of(1).ip())).unwrap().peer();
    world.input(0, Input::Plane(Event::Offload { network: network(), mac: MAC, peer }));
    world.seconds(1);
}

#[test]
fn what_the_kernel_carries_ends_with_the_way_it_goes() {
    let mut world = carrying(vec![open(1), open(2)]);
    world.no_udp.insert((0, 1));
    world.seconds(4);
    assert!(carried(&world).0.is_empty(), "the link stands, the way does not");
}

#[test]
fn a_mac_that_is_seen_elsewhere_is_taken_back() {
    let mut world = carrying(vec![open(1), open(2)]);
    world.input(0, Input::Plane(Event::Moved { network: network(), mac: MAC }));
    world.seconds(1);
    assert!(carried(&world).0.is_empty());
}

#[test]
fn while_a_neighbours_router_is_away_the_kernel_goes_on_and_when_it_is_back_nothing_is_taken_back() {
    let mut world = carrying(vec![open(1), open(2)]);
    world.no_tcp.insert((0, 1));
    world.replace(1, NodeConfig { uid: Uid(77), ..open(2) }, true);
    world.seconds(60);
    let ops = world.hosts[0].ops.len();
    assert_eq!(carried(&world), (BTreeMap::from([(MAC, vxlan(1))]), vec![name(2)]));
    world.no_tcp.clear();
    world.seconds(60);
    assert!(world.established(0) == 1);
    let later = &world.hosts[0].ops[ops..];
    assert!(!later.iter().any(|op| matches!(op, HostOp::Offload { .. })), "{later:?}");
    assert_eq!(carried(&world).1, [name(2)]);
    // And then it is as any other.
    world.no_udp.insert((0, 1));
    world.seconds(4);
    assert!(carried(&world).0.is_empty());
}

#[test]
fn who_is_away_for_good_or_comes_back_without_vxlan_is_held_no_more() {
    for back in [None, Some(NodeConfig { framing: Some(crate::types::Framing::Udp), ..open(2) })] {
        let mut world = carrying(vec![open(1), open(2)]);
        world.no_tcp.insert((0, 1));
        let other = back.is_some();
        world.replace(1, NodeConfig { uid: Uid(77), ..back.unwrap_or_else(|| open(2)) }, true);
        world.seconds(if other { 5 } else { 590 });
        assert_eq!(carried(&world), (BTreeMap::from([(MAC, vxlan(1))]), vec![name(2)]));
        if other {
            world.no_tcp.clear();
        }
        world.seconds(60);
        assert_eq!(carried(&world), (BTreeMap::new(), Vec::new()));
    }
}

#[test]
fn who_is_reachable_by_another_way_is_relayed_and_not_held() {
    let mut world = carrying(vec![open(1), open(2), open(3)]);
    // The line between the two breaks and both notice; the third still has both.
    world.no_tcp.insert((0, 1));
    world.no_udp.insert((0, 1));
    let ends: Vec<(usize, LinkId)> =
        world.pipes.iter().filter(|pipe| pipe.iter().all(|end| end.0 < 2)).flatten().copied().collect();
    for (at, link) in ends {
        world.pipes.retain(|pipe| !pipe.contains(&(at, link)));
        world.input(at, Input::LinkDown { link, why: "broken".into() });
    }
    world.run_for(Duration::from_millis(500));
    assert_eq!(carried(&world).0.len(), 1, "it may still be the router that is away");
    world.seconds(4);
    assert!(carried(&world).0.is_empty());
    assert_eq!(carried(&world).1, [name(3)]);
}

#[test]
fn what_a_killed_router_had_its_kernel_carry_goes_on_if_its_neighbour_comes_back() {
    for comes_back in [true, false] {
        let mut world = carrying(vec![open(1), open(2)]);
        let state = world.hosts[0].saved.clone().unwrap();
        world.no_tcp.insert((0, 1));
        world.replace(0, NodeConfig { uid: Uid(78), state, ..open(1) }, true);
        // It is asked before it can answer.
        let former = VxlanPeer { peer: name(2), address: vxlan(1) };
        world.hosts[0].finds = Box::new(move |op| match op {
            HostOp::OpenVxlan { .. } => Some(HostAnswer::Vxlan(vec![former])),
            HostOp::OpenOffload { .. } => {
                let stranger = (Mac([2, 0, 0, 0, 0, 66]), "10.9.9.9:6784".parse().unwrap());
                Some(HostAnswer::Offloaded(vec![(MAC, vxlan(1)), stranger]))
            }
            _ => None,
        });
        world.flying.retain(|(_, to, what)| !(*to == 0 && matches!(what, Flying::Host { .. })));
        let asked = std::mem::take(&mut world.hosts[0].ops);
        assert!(matches!(asked[0], HostOp::OpenVxlan { .. }), "before anything is closed to anybody: {asked:?}");
        world.fly(0, Flying::Host { host: HostId(1), result: Ok(HostAnswer::Vxlan(vec![former])) });
        if let Some(HostOp::OpenNetwork { .. }) = asked.get(1) {
            world.fly(0, Flying::Host { host: HostId(2), result: Ok(HostAnswer::Done) });
        }
        world.seconds(5);
        assert_eq!(carried(&world).1, [name(2)]);
        let taken_back = |world: &World, mac: Mac| {
            world.hosts[0]
                .ops
                .iter()
                .any(|op| matches!(op, HostOp::Offload { mac: other, to: None, .. } if *other == mac))
        };
        assert!(taken_back(&world, Mac([2, 0, 0, 0, 0, 66])), "nobody is known at its address");
        if comes_back {
            world.no_tcp.clear();
        }
        world.seconds(120);
        assert_eq!(taken_back(&world, MAC), !comes_back);
        assert_eq!(carried(&world).1.len(), usize::from(comes_back));
    }
}
