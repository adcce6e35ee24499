//! Paths without links: which letters are believed, and which addresses are tried.

use super::*;
use crate::crypto::keys::Ephemeral;
use crate::crypto::knock::Pair;
use crate::mesh::peers::Record;
use crate::node::knocks::{KNOCK, KnockBody};
use crate::plane::fib::PathId;
use crate::types::{PeerName, ShortId};
use crate::wire::message::{PathOffer, encode_body};

/// Routers 1, 2, 3 in a chain, with a path between the ends.
fn with_direct_path() -> World {
    let mut world = World::of(3);
    world.connect(0, 1);
    world.connect(2, 1);
    world.seconds(3);
    let short = short_of(&world, 2);
    world.hosts[0].node.relayed(short);
    world.seconds(2);
    assert!(path(&world, 0, 2).is_some() && path(&world, 2, 0).is_some());
    world
}

fn name(at: usize) -> PeerName {
    public(u8::try_from(at).unwrap() + 1).name()
}

fn short_of(world: &World, at: usize) -> ShortId {
    world.hosts[at].node.peers.me().short
}

/// The proven path of one to another.
fn path(world: &World, at: usize, to: usize) -> Option<PathId> {
    let direct = world.hosts[at].node.directs.paths.get(&name(to)).filter(|direct| direct.proven)?;
    Some(direct.path.id())
}

/// Router 1 knocks at router 3, as whoever kept its letter would have it.
fn knock(world: &mut World, count: u64, to: u64) {
    let offer = PathOffer { epoch: 1, index: 7, ephemeral: Ephemeral::new([5; 32]).public() };
    let body = KnockBody { count, from: Uid(1), to: Uid(to), aes: true, offer, addresses: Vec::new() };
    let (key, psk) = (generate_key([1; 32]), Psk([7; 32]));
    let pair = Pair { ours: &key, theirs: &public(3), psk: Some(&psk) };
    let (_, message) = pair.knock([6; 32], &encode_body(&body)).unwrap();
    world.hosts[2].node.path_letter(name(0), &[&[KNOCK], message.as_slice()].concat());
    world.drain(2);
}

#[test]
fn a_knock_that_is_sent_again_or_is_for_another_run_changes_nothing() {
    let mut world = with_direct_path();
    let before = path(&world, 2, 0);
    for (count, to) in [(1, 3), (u64::MAX, 9)] {
        world.seconds(1);
        knock(&mut world, count, to);
        assert_eq!(path(&world, 2, 0), before, "{count} {to}");
    }
    world.seconds(1);
    knock(&mut world, u64::MAX, 3);
    assert_eq!(path(&world, 2, 0), None, "a new one for this run begins anew");
}

#[test]
fn letters_that_are_no_letters_change_nothing() {
    let mut world = with_direct_path();
    let before = path(&world, 2, 0);
    for body in [&[][..], &[KNOCK], &[2], &[9, 9], &[KNOCK; 200], &[2; 200], &[KNOCK; 5000]] {
        world.seconds(1);
        world.hosts[2].node.path_letter(name(0), body);
        world.hosts[2].node.path_letter(PeerName::default(), body);
    }
    assert_eq!(path(&world, 2, 0), before);
}

#[test]
fn addresses_that_cannot_be_a_peers_are_told_in_one_line_each_and_not_tried() {
    let mut world = World::of(2);
    world.connect(0, 1);
    world.seconds(2);
    let own = address_of(0);
    world.input(0, Input::Addresses(vec![("eth0".to_string(), own.ip())]));
    let lies = ["127.0.0.1:6783", "224.0.0.1:6783", "0.0.0.0:6783", &own.to_string()].map(|a| a.parse().unwrap());
    let node = &mut world.hosts[0].node;
    let record = node.peers.get(name(1)).unwrap().clone();
    node.peers.merge(vec![Record { version: record.version + 1, addresses: lies.to_vec(), ..record }]);
    for _ in 0..3 {
        let tried = node.addresses_of(name(1), &[]);
        assert!(tried.iter().all(|address| !lies.contains(address)), "{tried:?}");
    }
    world.drain(0);
    let reasons = ["is a loopback address", "is a multicast address", "is no host's address", "is our own"];
    for (lie, why) in lies.iter().zip(reasons) {
        assert_eq!(world.logged(0, &format!("advertises {lie}, which {why}: not tried")), 1, "{lie}");
    }
}

#[test]
fn only_a_host_with_several_addresses_of_a_family_asks_where_probes_come_in() {
    let mut world = World::of(1);
    let mut has = |addresses: &[(&str, &str)]| {
        let all = addresses.iter().map(|(name, ip)| (name.to_string(), ip.parse().unwrap())).collect();
        world.input(0, Input::Addresses(all));
        world.hosts[0].located.clone()
    };
    assert!(has(&[("lo", "127.0.0.1"), ("eth0", "10.0.0.1"), ("eth0", "fd00::1"), ("eth0", "fe80::1")]).is_empty());
    assert!(has(&[("eth0", "10.0.0.1"), ("docker0", "172.17.0.1")]).is_empty(), "containers' are not told");
    assert_eq!(has(&[("eth0", "10.0.0.1"), ("eth1", "10.0.1.1")]), [true]);
    assert_eq!(has(&[("eth0", "10.0.0.1"), ("eth1", "10.0.2.1"), ("eth2", "10.0.3.1")]), [true], "as before");
    assert_eq!(has(&[("eth0", "fd00::1"), ("eth1", "fd00::2")]), [true]);
    assert_eq!(has(&[("eth0", "10.0.0.1")]), [true, false]);
}
