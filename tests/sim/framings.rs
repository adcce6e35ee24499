//! Stories about VXLAN between peers: it carries what it may as soon as it is proven, leaves at once when it fails, comes back
//! without flapping, and is never used where encryption was asked for. The simulated kernel has no VXLAN, so it is rnet's own.

use super::frames;
use super::machine::Options;
use super::mesh::{all_ping, assert_floods_once, attach_all};
use super::story::net;
use super::wires::{PORT, pair};
use super::world::{H, World, millis, secs};
use rand::RngExt;
use rnet::node::command::Command;
use rnet::node::status::{Connection, PathStatus};
use rnet::plane::path::Path;
use rnet::plane::vxlan::Carrier;
use rnet::types::{Framing, Instant, PeerName};
use rnet::wire::datagram::{Kind, Outer};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const NET: &str = "10.2.1.0/24";
const VXLAN: u16 = PORT + 1;

fn open() -> Options {
    Options { password: None, ..Options::default() }
}

fn trusting(password: u8, subnets: &[&str]) -> Options {
    let trusted = subnets.iter().map(|subnet| subnet.parse().unwrap()).collect();
    Options { password: Some(password), trusted, ..Options::default() }
}

/// Hosts launched so, each told of the first.
fn launched<const N: usize>(seed: u64, options: [Options; N]) -> (World, [H; N]) {
    let mut world = World::new(seed);
    let hosts = options.map(|options| world.host(options));
    world.launch(hosts[0], &[]);
    hosts[1..].iter().for_each(|h| world.launch(*h, &[hosts[0]]));
    attach_all(&mut world, &hosts);
    (world, hosts)
}

fn connection(world: &mut World, from: H, to: H) -> Option<Connection> {
    let to: PeerName = world.name(to);
    let is = |c: &Connection| c.peer.as_ref().is_some_and(|(peer, _)| *peer == to);
    world.status(from).connections.into_iter().find(is)
}

fn path(world: &mut World, from: H, to: H) -> Option<PathStatus> {
    connection(world, from, to)?.path
}

fn framing(world: &mut World, from: H, to: H) -> Option<Framing> {
    path(world, from, to).map(|path| path.framing)
}

/// Waits until frames go by VXLAN both ways between the first and all others.
fn await_vxlan(world: &mut World, hosts: &[H], limit: Duration) -> Duration {
    let all = |world: &mut World| {
        hosts[1..].iter().all(|h| {
            [(hosts[0], *h), (*h, hosts[0])].iter().all(|(a, b)| framing(world, *a, *b) == Some(Framing::Vxlan))
        })
    };
    world.run_until(limit, all).expect("VXLAN both ways")
}

/// Changes of framing that a host told of.
fn changes(world: &World, h: H) -> usize {
    world.hosts[h.0].log.iter().filter(|(.., line)| line.contains("goes by")).count()
}

/// The longest time without an answer, among requests sent between.
fn longest_gap(world: &World, flow: usize, from: Instant, to: Instant) -> Duration {
    let (mut last, mut longest) = (from, Duration::ZERO);
    while let Some(at) = world.first_answered(flow, last).filter(|at| *at < to) {
        longest = longest.max(at - last);
        last = at + millis(1);
    }
    longest.max(to - last)
}

#[test]
fn without_a_password_frames_soon_go_by_vxlan_and_broadcasts_come_once() {
    let (mut world, hosts) = launched(700, [open(), open(), open()]);
    let took = await_vxlan(&mut world, &hosts, secs(6));
    assert!(took < secs(5), "{took:?}");
    assert!(all_ping(&mut world, &hosts));
    assert_floods_once(&mut world, &hosts);
    let status = world.status(hosts[0]);
    assert_eq!((status.framing.engine, status.framing.port), (Some(Framing::Vxlan), Some(VXLAN)));
    assert!(status.framing.info.contains("a simulated kernel has no VXLAN"), "{:?}", status.framing);
    assert!(world.hosts[0].has_logged("framing kernel cannot be had"));
    // Both ends are rnet, so that nobody needs the inner checksums.
    let fib = world.hosts[0].process.as_ref().unwrap().plane.fib();
    let leaves = |path: &Path| matches!(path.carrier(), Carrier::Vxlan(end) if end.unfinished);
    assert!(fib.vxlan_sources.len() == 2 && fib.vxlan_sources.values().all(|path| leaves(path)));
    let before = world.status(hosts[0]).traffic.to_vxlan.frames;
    (0..5).for_each(|_| assert!(world.ping(hosts[0], hosts[1], NET)));
    assert!(world.status(hosts[0]).traffic.to_vxlan.frames >= before + 5);
}

#[test]
fn a_framing_that_was_named_is_the_one() {
    let named = |framing| Options { framing: Some(framing), ..open() };
    let (mut world, hosts) = launched(701, [named(Framing::Vxlan), named(Framing::Udp), named(Framing::Kernel)]);
    world.run_for(secs(10));
    let [a, b, c] = hosts;
    assert_eq!((framing(&mut world, a, b), framing(&mut world, b, a)), (Some(Framing::Udp), Some(Framing::Udp)));
    assert_eq!(path(&mut world, a, b).unwrap().why_not_better, "vxlan: the peer has --framing udp");
    assert_eq!(framing(&mut world, a, c), Some(Framing::Udp));
    let status = world.status(c);
    assert!(status.framing.engine.is_none() && status.framing.info.contains("no VXLAN"), "{:?}", status.framing);
    assert!(world.hosts[c.0].has_logged("framing kernel cannot be had: a simulated kernel has no VXLAN"));
    assert_eq!(world.hosts[b.0].vxlan, None);
    assert!(all_ping(&mut world, &hosts));
}

#[test]
fn vxlan_that_is_blocked_is_left_within_three_seconds_and_used_again_when_it_is_back() {
    for seed in 0..20 {
        let (mut world, [a, b]) = launched(710 + seed, [open(), open()]);
        await_vxlan(&mut world, &[a, b], secs(6));
        let flow = world.flow((a, b), NET, millis(20), secs(60));
        world.run_for(secs(3) + millis(113 * seed));
        let blocked = world.now;
        world.no_vxlan.insert(pair(a, b));
        world.run_for(secs(15));
        let gap = longest_gap(&world, flow, blocked, world.now);
        assert!(gap < millis(1400) && gap > millis(500), "{gap:?}, seed {seed}: TCP tries again after 1.4 s");
        let path = path(&mut world, a, b).unwrap();
        assert_eq!(path.framing, Framing::Udp);
        assert!(path.why_not_better.contains("is UDP port 6784 blocked?"), "{}", path.why_not_better);
        assert!(world.are_neighbours(a, b), "the path itself never went down");
        world.no_vxlan.clear();
        let back = world.now;
        let took = await_vxlan(&mut world, &[a, b], secs(10));
        assert!(took > secs(4), "{took:?}: too soon to trust it");
        world.run_for(secs(3));
        assert!(longest_gap(&world, flow, back, world.now) < millis(100), "nothing is lost on the way back");
    }
}

#[test]
fn vxlan_that_comes_and_goes_is_not_trusted() {
    let (mut world, [a, b]) = launched(730, [open(), open()]);
    await_vxlan(&mut world, &[a, b], secs(6));
    let flow = world.flow((a, b), NET, millis(50), secs(600));
    let began = world.now;
    for _ in 0..60 {
        world.no_vxlan.insert(pair(a, b));
        world.run_for(secs(4));
        world.no_vxlan.clear();
        world.run_for(secs(6));
    }
    assert!(changes(&world, a) <= 7, "{} changes in ten minutes", changes(&world, a));
    let (asked, answered) = world.answered(flow, began, world.now);
    assert!(answered * 100 > asked * 98, "{answered} of {asked}");
}

#[test]
fn bad_weather_is_no_reason_to_leave_vxlan() {
    let (mut world, [a, b]) = launched(731, [open(), open()]);
    world.weather.lost = 0.1;
    world.weather.doubled = 0.05;
    world.weather.jitter = millis(30);
    await_vxlan(&mut world, &[a, b], secs(60));
    world.run_for(secs(600));
    assert!(changes(&world, a) <= 4, "{} changes in ten minutes", changes(&world, a));
    // The same under traffic, when it is watched more closely.
    world.flow((a, b), NET, millis(100), secs(600));
    world.run_for(secs(600));
    assert!(changes(&world, a) <= 8, "{} changes in twenty minutes", changes(&world, a));
}

#[test]
fn vxlan_is_not_used_where_it_is_too_narrow_for_the_networks() {
    let (mut world, [a, b]) = launched(740, [open(), open()]);
    world.vxlan_widest = 1300;
    world.run_for(secs(10));
    assert_eq!(framing(&mut world, a, b), Some(Framing::Udp));
    let why = path(&mut world, a, b).unwrap().why_not_better;
    assert_eq!(why, "vxlan: datagrams of 1398 bytes do not get through by UDP port 6784, 1300 do");
    // It widens, is used, and narrows in silence while frames flow.
    world.vxlan_widest = usize::MAX;
    await_vxlan(&mut world, &[a, b], secs(80));
    let (mine, theirs) = (world.hosts[a.0].nic(net(NET)).unwrap().mac, world.hosts[b.0].nic(net(NET)).unwrap().mac);
    let send = |world: &mut World| {
        world.next_token += 1;
        world.transmit(a, net(NET), frames::frame(mine, theirs, 0x88b5, &[7; 1340], world.next_token));
        world.run_for(millis(50));
        world.sent[&world.next_token].copies.contains_key(&b)
    };
    world.run_until(secs(2), |world| world.ping(a, b, NET)).expect("they know each other");
    assert!((0..40).all(|_| send(&mut world)));
    world.vxlan_widest = 1300;
    let lost = (0..200).filter(|_| !send(&mut world)).count();
    assert!(lost > 0 && lost * 50 < 3000, "{lost} frames of 20 a second");
    assert_eq!(framing(&mut world, a, b), Some(Framing::Udp));
}

/// Bytes of a frame that were seen in clear on the wire, from where to where.
fn in_clear(world: &World, token: u64) -> BTreeSet<(u16, H, H)> {
    let token = token.to_be_bytes();
    let tap = world.wiretap.as_ref().unwrap().iter();
    tap.filter(|(.., bytes)| bytes.windows(8).any(|window| window == token))
        .map(|(from, to, _)| (to.port(), world.host_at(from.ip()).unwrap(), world.host_at(to.ip()).unwrap()))
        .collect()
}

fn tokens_in_clear(world: &World) -> BTreeSet<(u16, H, H)> {
    world.sent.keys().flat_map(|token| in_clear(world, *token)).collect()
}

#[test]
fn only_paths_that_both_ends_trust_are_in_clear() {
    // a and b trust each other; a trusts c, which trusts nobody; d trusts all, but is trusted by nobody.
    let all = [
        trusting(1, &["192.0.2.2/31"]),
        trusting(1, &["192.0.2.1/32"]),
        trusting(1, &[]),
        trusting(1, &["0.0.0.0/0", "::/0"]),
    ];
    let (mut world, hosts) = launched(750, all);
    world.wiretap = Some(Vec::new());
    let [a, b, c, d] = hosts;
    world.run_until(secs(10), |world| framing(world, a, b) == Some(Framing::Vxlan)).expect("trusted on both sides");
    world.run_until(secs(5), |world| all_ping(world, &hosts)).expect("all reach all");
    assert_floods_once(&mut world, &hosts);
    for (from, to) in [(a, c), (c, a), (a, d), (d, a), (b, c), (c, d), (d, b)] {
        let connection = connection(&mut world, from, to).unwrap();
        let path = connection.path.unwrap();
        assert!(connection.encrypted && path.framing == Framing::Udp, "{from:?} to {to:?}");
    }
    assert!(!connection(&mut world, a, b).unwrap().encrypted);
    let why = |world: &mut World, from, to| path(world, from, to).unwrap().why_not_better;
    assert!(why(&mut world, a, c).contains("the peer does not name this host's address in its --trusted-subnets"));
    assert!(why(&mut world, d, a).contains("the peer does not name"));
    assert!(why(&mut world, a, d).contains("--trusted-subnets does not name the peer's address"));
    assert_eq!(why(&mut world, c, a), "", "who has no VXLAN misses none");
    // Whatever fails, nothing else is ever in clear.
    for step in 0..20 {
        world.no_vxlan = if step % 3 == 0 { BTreeSet::from([pair(a, b)]) } else { BTreeSet::new() };
        world.walls = if step % 4 == 0 { BTreeSet::from([pair(a, c), pair(b, d)]) } else { BTreeSet::new() };
        world.run_for(secs(4));
        hosts.iter().for_each(|h| drop(world.flood(*h, NET)));
        all_ping(&mut world, &hosts);
    }
    let seen = tokens_in_clear(&world);
    assert!(seen.iter().all(|(_, from, to)| pair(*from, *to) == pair(a, b)), "{seen:?}");
    assert!(seen.contains(&(VXLAN, a, b)) && seen.contains(&(PORT, a, b)));
}

#[test]
fn with_a_password_and_no_trust_no_port_is_opened() {
    let (mut world, hosts) = launched(751, [trusting(1, &[]), trusting(1, &[])]);
    world.wiretap = Some(Vec::new());
    world.run_until(secs(5), |world| all_ping(world, &hosts)).expect("up");
    world.run_for(secs(20));
    assert!(hosts.iter().all(|h| world.hosts[h.0].vxlan.is_none()));
    assert!(tokens_in_clear(&world).is_empty());
    assert!(world.wiretap.as_ref().unwrap().iter().all(|(_, to, _)| to.port() == PORT));
    let status = world.status(hosts[0]);
    assert!(status.framing.info.contains("all paths are encrypted"), "{:?}", status.framing);
}

#[test]
fn a_mesh_of_all_framings_with_relays_delivers_every_broadcast_once_while_framings_come_and_go() {
    for seed in 0..6 {
        let named = |framing| Options { framing, ..open() };
        let mix = [None, Some(Framing::Udp), Some(Framing::Vxlan), None, Some(Framing::Vxlan)];
        let (mut world, hosts) = launched(760 + seed, mix.map(named));
        let [a, b, c, d, e] = hosts;
        world.only(&[(a, b), (b, c), (c, d), (d, e), (c, e)]);
        for (h, target) in [(c, b), (d, c), (e, c)] {
            let targets = vec![world.target(target)];
            world.command(h, Command::Connect { targets, replace: false });
        }
        world.run_until(secs(60), |world| all_ping(world, &hosts)).expect("all reach all");
        world.run_for(secs(10));
        for step in 0..30 {
            let edges = [(c, d), (d, e), (c, e)];
            world.no_vxlan = edges.iter().filter(|_| world.rng.random_bool(0.4)).map(|(x, y)| pair(*x, *y)).collect();
            world.run_for(millis(700 + 37 * step));
            assert_floods_once(&mut world, &hosts);
            for (x, y) in edges {
                world.send_echo(x, y, net(NET), 56);
            }
        }
        world.run_for(secs(1));
        assert!(world.sent.values().all(|sent| sent.copies.values().all(|copies| *copies == 1)), "nothing comes twice");
        world.no_vxlan.clear();
        world.run_until(secs(120), |world| framing(world, c, e) == Some(Framing::Vxlan)).expect("it is back");
        assert_eq!(framing(&mut world, a, b), Some(Framing::Udp));
    }
}

#[test]
fn a_host_that_moves_is_proven_anew_before_vxlan_follows_it() {
    let (mut world, [a, b]) = launched(780, [open(), open()]);
    await_vxlan(&mut world, &[a, b], secs(6));
    let flow = world.flow((a, b), NET, millis(50), secs(60));
    world.run_for(secs(2));
    let moved = world.now;
    world.hosts[b.0].ip = "192.0.2.99".parse().unwrap();
    world.run_for(secs(20));
    assert!(longest_gap(&world, flow, moved, world.now) < secs(12), "as long as any path takes that moves");
    await_vxlan(&mut world, &[a, b], secs(30));
}

#[test]
fn a_trusted_host_that_moves_to_where_it_is_not_trusted_is_sent_nothing_in_clear() {
    for framing in [None, Some(Framing::Udp)] {
        let of = |subnets: &[&str]| Options { framing, ..trusting(1, subnets) };
        let (mut world, [a, b]) = launched(790, [of(&["192.0.2.0/24"]), of(&["0.0.0.0/0"])]);
        world.run_until(secs(6), |world| connection(world, a, b).is_some_and(|c| !c.encrypted)).expect("in clear");
        let flow = world.flow((a, b), NET, millis(50), secs(60));
        world.run_for(secs(2));
        world.wiretap = Some(Vec::new());
        let away: IpAddr = "198.51.100.9".parse().unwrap();
        let moved = world.now;
        world.move_to(b, away);
        let sealed = |world: &mut World| {
            connection(world, a, b)
                .is_some_and(|c| c.encrypted && c.path.is_some_and(|path| path.endpoint.ip() == away))
        };
        world.run_until(secs(40), sealed).expect("a new link, whose path is encrypted");
        world.run_for(secs(5));
        assert!(world.first_answered(flow, moved).is_some());
        let tap = world.wiretap.as_ref().unwrap();
        let there: Vec<_> = tap.iter().filter(|(_, to, _)| to.ip() == away).collect();
        assert!(!there.is_empty());
        let plain =
            |to: &SocketAddr, bytes: &[u8]| to.port() == VXLAN || Outer::parse(bytes).unwrap().kind == Kind::Plain;
        assert_eq!(there.iter().filter(|(_, to, bytes)| plain(to, bytes)).count(), 0, "{framing:?}");
    }
}
