//! Frames from one host's bridge to another's, by way of the data planes that the routers steer.

use super::*;
use crate::crypto::seal::Cipher;
use crate::types::{Mac, NetId, Network};

/// An IPv4 frame that the guard lets through.
fn frame(source: Mac, destination: Mac, from: [u8; 4]) -> Vec<u8> {
    let mut frame = [destination.0, source.0].concat();
    frame.extend([0x08, 0x00]);
    let mut packet = [0u8; 40];
    (packet[0], packet[3], packet[8], packet[9]) = (0x45, 40, 64, 17);
    packet[12..16].copy_from_slice(&from);
    packet[16..20].copy_from_slice(&[10, 2, 1, 77]);
    frame.extend(packet);
    frame
}

fn network() -> NetId {
    "10.2.1.0/24".parse::<Network>().unwrap().id()
}

/// Attaches `10.2.1.<host + 1>` on a host; its MAC and the network's port there.
fn plug(world: &mut World, at: usize) -> (Mac, PortId) {
    let address = format!("10.2.1.{}/24", at + 1);
    let Reply::Attached(attachment) = world.attach(at, "web", &[&address]) else { panic!() };
    let port = world.hosts[at].plane.fib().networks[&network()].port.unwrap();
    (attachment.interfaces[0].mac, port)
}

/// A - B - C: A and C cannot reach each other.
fn chain() -> World {
    let mut world = World::of(3);
    world.no_tcp.insert((0, 2));
    world.no_udp.insert((0, 2));
    world.connect(1, 0);
    world.connect(2, 1);
    world.seconds(1);
    world
}

fn delivered(world: &mut World, at: usize) -> Vec<Vec<u8>> {
    std::mem::take(&mut world.hosts[at].delivered).into_iter().map(|(_, frame)| frame).collect()
}

#[test]
fn frames_cross_a_relay_that_has_no_port_on_their_network() {
    let mut world = chain();
    let (a, port_a) = plug(&mut world, 0);
    let (c, port_c) = plug(&mut world, 2);
    world.seconds(1);
    let hello = frame(a, Mac::BROADCAST, [10, 2, 1, 1]);
    world.capture(0, port_a, &hello);
    world.seconds(1);
    assert_eq!(delivered(&mut world, 2), vec![hello]);
    let answer = frame(c, a, [10, 2, 1, 3]);
    world.capture(2, port_c, &answer);
    world.seconds(1);
    assert_eq!(delivered(&mut world, 0), vec![answer]);
    assert!(delivered(&mut world, 1).is_empty());
    assert_eq!(
        world.status(0).peers.iter().find(|peer| peer.name == public(3).name()).unwrap().via,
        Some(public(2).name())
    );
}

#[test]
fn macs_behind_a_peer_that_is_gone_are_forgotten() {
    let mut world = chain();
    plug(&mut world, 0);
    let (c, port_c) = plug(&mut world, 2);
    world.seconds(1);
    world.capture(2, port_c, &frame(c, Mac::BROADCAST, [10, 2, 1, 3]));
    world.seconds(1);
    let macs = world.status(0).macs;
    assert_eq!((macs.len(), macs[0].mac, macs[0].peer), (1, c, Some(public(3).name())));
    world.ask(2, Command::Stop);
    world.seconds(1);
    assert!(world.status(0).macs.is_empty());
    assert_eq!(world.logged(0, "(host3) is not reachable any more"), 1);
}

#[test]
fn another_networks_port_never_sees_them() {
    let mut world = chain();
    let (a, port_a) = plug(&mut world, 0);
    assert!(matches!(world.attach(2, "web", &["10.2.2.3/24"]), Reply::Attached(_)));
    world.seconds(1);
    world.capture(0, port_a, &frame(a, Mac::BROADCAST, [10, 2, 1, 1]));
    world.seconds(1);
    assert!(delivered(&mut world, 2).is_empty());
}

#[test]
fn a_frame_with_anothers_address_stays_on_the_bridge() {
    let mut world = chain();
    let (a, port_a) = plug(&mut world, 0);
    plug(&mut world, 2);
    world.seconds(1);
    world.capture(0, port_a, &frame(a, Mac::BROADCAST, [10, 2, 1, 9]));
    world.capture(0, port_a, &frame(Mac::local([9; 6]), Mac::BROADCAST, [10, 2, 1, 1]));
    world.seconds(1);
    assert!(delivered(&mut world, 2).is_empty());
}

#[test]
fn third_router_reaches_the_first_within_a_second_of_its_launch() {
    let mut world = World::of(2);
    world.connect(1, 0);
    world.seconds(5);
    world.add(config(3));
    world.no_tcp.insert((0, 2));
    world.no_udp.insert((0, 2));
    world.connect(2, 1);
    world.run_for(Duration::from_millis(500));
    assert_eq!(world.hosts[2].plane.fib().next_hops.len(), 2);
    assert_eq!(world.hosts[0].plane.fib().next_hops.len(), 2);
}

#[test]
fn traffic_takes_the_other_way_when_a_relay_dies_or_is_stopped() {
    for killed in [true, false] {
        // A ring: 0 - 1 - 2 - 3 - 0.
        let mut world = World::of(4);
        for (a, b) in [(0, 2), (1, 3)] {
            world.no_tcp.insert((a, b));
            world.no_udp.insert((a, b));
        }
        for (a, b) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
            world.connect(a, b);
        }
        world.seconds(2);
        let (a, port_a) = plug(&mut world, 0);
        plug(&mut world, 2);
        world.seconds(1);
        let via = world.status(0).peers.iter().find(|peer| peer.name == public(3).name()).unwrap().via.unwrap();
        let relay = if via == public(2).name() { 1 } else { 3 };
        if killed {
            // Nobody hears of it: no reset, no word.
            world.hosts[relay].address = SocketAddr::from(([10, 9, 9, 9], 1));
            world.pipes.retain(|pipe| pipe.iter().all(|end| end.0 != relay));
            world.run_for(Duration::from_millis(5500));
        } else {
            assert_eq!(world.ask(relay, Command::Stop), Reply::Done);
            world.run_for(Duration::from_millis(200));
        }
        world.capture(0, port_a, &frame(a, Mac::BROADCAST, [10, 2, 1, 1]));
        world.run_for(Duration::from_millis(100));
        assert_eq!(delivered(&mut world, 2).len(), 1, "killed: {killed}");
    }
}

#[test]
fn without_a_password_frames_are_plain_and_arrive() {
    let mut world = World::new((1..=2).map(|n| NodeConfig { psk: None, ..config(n) }).collect());
    world.connect(0, 1);
    world.seconds(1);
    let (a, port_a) = plug(&mut world, 0);
    plug(&mut world, 1);
    world.seconds(1);
    let hello = frame(a, Mac::BROADCAST, [10, 2, 1, 1]);
    world.capture(0, port_a, &hello);
    let plain = |(_, _, what): &(Instant, usize, Flying)| matches!(what, Flying::Datagram { bytes, .. } if bytes.ends_with(&hello));
    assert!(world.flying.iter().any(plain));
    assert!(!world.status(0).encrypted);
    world.seconds(1);
    assert_eq!(delivered(&mut world, 1), vec![hello]);
}

#[test]
fn a_processor_without_aes_makes_both_use_chacha() {
    let mut world = World::new(vec![config(1), NodeConfig { aes: false, ..config(2) }]);
    world.connect(0, 1);
    world.seconds(2);
    let ciphers =
        |world: &mut World| [0, 1].map(|host| world.status(host).connections[0].path.as_ref().unwrap().cipher);
    assert_eq!(ciphers(&mut world), [Some(Cipher::ChaCha20Poly1305); 2]);
    let mut world = World::new(vec![config(1), config(2)]);
    world.connect(0, 1);
    world.seconds(2);
    assert_eq!(ciphers(&mut world), [Some(Cipher::Aes256Gcm); 2]);
    // In clear there is none.
    let mut world = World::new((1..=2).map(|n| NodeConfig { psk: None, ..config(n) }).collect());
    world.connect(0, 1);
    world.seconds(2);
    assert_eq!(ciphers(&mut world), [None; 2]);
}
