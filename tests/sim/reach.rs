//! Stories of peers that reach each other without a link.

use super::machine::Options;
use super::mesh::{assert_floods_once, attach_all};
use super::world::{H, KEPT, World, millis, secs};
use rnet::node::border::Input;
use rnet::node::status::{Connection, ConnectionState};
use rnet::types::{Framing, Instant};
use std::net::{IpAddr, SocketAddr};

const NET: &str = "10.2.1.0/24";

/// Nobody dials whom he was not told to.
fn quiet() -> Options {
    Options { discovery: false, ..Options::default() }
}

/// a and c are linked with b only, though nothing lies between them.
fn chain(world: &mut World, options: Options) -> [H; 3] {
    let [a, b, c] = [(); 3].map(|()| world.host(options.clone()));
    world.launch(b, &[]);
    world.launch(a, &[b]);
    world.launch(c, &[b]);
    attach_all(world, &[a, b, c]);
    world.run_for(secs(3));
    [a, b, c]
}

pub fn connection(world: &mut World, from: H, to: H) -> Option<Connection> {
    let name = world.name(to);
    let of_peer = |c: &Connection| c.peer.as_ref().is_some_and(|(peer, _)| *peer == name);
    world.status(from).connections.into_iter().find(of_peer)
}

pub fn is(world: &mut World, from: H, to: H, state: ConnectionState) -> bool {
    connection(world, from, to).is_some_and(|c| c.state == state)
}

/// Frames that `h` hands on for others in this time.
fn relayed_by(world: &mut World, h: H, time: std::time::Duration) -> u64 {
    let count = |world: &mut World| {
        let traffic = world.status(h).traffic;
        traffic.to_net.frames - traffic.from_bridge.frames.min(traffic.to_net.frames)
    };
    let before = count(world);
    world.run_for(time);
    count(world) - before
}

#[test]
fn first_frame_is_relayed_and_within_a_second_the_rest_goes_directly() {
    for password in [Some(1), None] {
        let mut world = World::new(300);
        let [a, b, c] = chain(&mut world, Options { password, ..quiet() });
        let began = world.now;
        let flow = world.flow((a, c), NET, millis(20), secs(10));
        let direct =
            |world: &mut World| is(world, a, c, ConnectionState::Direct) && is(world, c, a, ConnectionState::Direct);
        let took = world.run_until(secs(1), direct).expect("a direct path within a second");
        assert!(took < secs(1));
        world.run_for(secs(1));
        assert_eq!(relayed_by(&mut world, b, secs(5)), 0, "nothing goes by way of b any more");
        world.run_for(secs(5));
        let (sent, answered) = world.answered(flow, began, world.now);
        assert_eq!(sent, answered + 1, "the first asks for the MAC; not a frame was lost");
        assert_floods_once(&mut world, &[a, b, c]);
        assert!(!world.are_neighbours(a, c), "there is no link");
    }
}

#[test]
fn direct_path_that_carries_nothing_is_given_up_and_made_again() {
    let mut world = World::new(301);
    let [a, _, c] = chain(&mut world, quiet());
    assert!(world.ping(a, c, NET));
    world.run_for(secs(2));
    assert!(is(&mut world, a, c, ConnectionState::Direct));
    world.run_for(secs(150));
    assert!(connection(&mut world, a, c).is_none() && connection(&mut world, c, a).is_none());
    let (start, flow) = (world.now, world.flow((a, c), NET, millis(50), secs(5)));
    world.run_for(secs(6));
    assert!(is(&mut world, a, c, ConnectionState::Direct), "again");
    let (sent, answered) = world.answered(flow, start, world.now);
    assert_eq!(sent, answered);
}

#[test]
fn direct_path_in_use_is_kept_and_its_keys_are_replaced() {
    let mut world = World::new(302);
    world.weather.jitter = millis(20);
    let [a, b, c] = chain(&mut world, quiet());
    let flow = world.flow((a, c), NET, millis(25), secs(620));
    world.run_for(secs(3));
    let (start, before) = (world.now, connection(&mut world, a, c).unwrap().path.unwrap());
    world.run_for(secs(600));
    let after = connection(&mut world, a, c).unwrap().path.unwrap();
    assert!(after.epoch >= before.epoch + 4, "every two minutes: {} {}", before.epoch, after.epoch);
    assert!(after.up_for >= 600, "it was never down");
    world.run_for(secs(20));
    let (sent, answered) = world.answered(flow, start, start + secs(600));
    assert_eq!(sent, answered);
    for h in [a, b, c] {
        let refused = ["unknown-index", "unknown-epoch", "forged", "replayed", "not-ready"];
        let drops = world.status(h).drops;
        assert!(drops.iter().all(|(why, _)| !refused.contains(&why.as_str())), "{drops:?}");
    }
}

#[test]
fn traffic_falls_back_to_the_relay_when_the_direct_path_dies() {
    let mut world = World::new(303);
    let [a, b, c] = chain(&mut world, quiet());
    let flow = world.flow((a, c), NET, millis(50), secs(60));
    world.run_for(secs(3));
    assert!(is(&mut world, a, c, ConnectionState::Direct));
    world.wall(a, c);
    let cut = world.now;
    world.run_for(secs(10));
    let back = world.first_answered(flow, cut).expect("the relay takes over");
    assert!(back - cut < secs(4), "{:?}", back - cut);
    let relayed = connection(&mut world, a, c).unwrap();
    assert_eq!(relayed.state, ConnectionState::Relayed);
    assert_eq!(relayed.via.unwrap().0, world.name(b));
    world.unwall(a, c);
    assert!(world.run_until(secs(40), |world| is(world, a, c, ConnectionState::Direct)).is_some(), "direct again");
}

#[test]
fn where_there_is_no_way_but_the_relay_the_status_says_so_and_why() {
    let mut world = World::new(304);
    let [a, b, c] = chain(&mut world, quiet());
    world.wall(a, c);
    let flow = world.flow((a, c), NET, millis(100), secs(20));
    let start = world.now;
    world.run_for(secs(12));
    for (from, to) in [(a, c), (c, a)] {
        let relayed = connection(&mut world, from, to).unwrap();
        assert_eq!((relayed.state, relayed.via.unwrap().0), (ConnectionState::Relayed, world.name(b)));
        assert!(relayed.info.contains("no answer over UDP"), "{}", relayed.info);
    }
    world.run_for(secs(10));
    let (sent, answered) = world.answered(flow, start, world.now);
    assert_eq!(sent, answered + 1, "trying harms nobody; the first asks for the MAC");
}

#[test]
fn peer_that_restarted_gets_a_new_path() {
    let mut world = World::new(305);
    let [a, b, c] = chain(&mut world, quiet());
    assert!(world.ping(a, c, NET));
    world.run_for(secs(2));
    world.kill(c);
    world.run_for(secs(1));
    world.restart(c, KEPT);
    world.run_for(secs(5));
    let _ = b;
    let (start, _) = (world.now, world.flow((a, c), NET, millis(50), secs(10)));
    assert!(world.run_until(secs(5), |world| is(world, a, c, ConnectionState::Direct)).is_some());
    assert!(world.now - start < secs(5));
}

#[test]
fn whoever_is_not_on_the_allow_list_gets_no_direct_path() {
    let mut world = World::new(306);
    let [a, b, c] = [(); 3].map(|()| world.host(quiet()));
    let allowed = rnet::crypto::keys::public_key(&world.hosts[b.0].key);
    world.hosts[a.0].options.allow = Some(vec![allowed]);
    world.launch(b, &[]);
    world.launch(a, &[b]);
    world.launch(c, &[b]);
    attach_all(&mut world, &[a, b, c]);
    world.run_for(secs(3));
    let (start, flow) = (world.now, world.flow((c, a), NET, millis(100), secs(20)));
    world.run_for(secs(21));
    let (sent, answered) = world.answered(flow, start, world.now);
    assert_eq!(sent, answered + 1, "it is relayed; the first asks for the MAC");
    assert!(is(&mut world, c, a, ConnectionState::Relayed) && !is(&mut world, a, c, ConnectionState::Direct));
    assert!(world.why_not(c, &world.name(a).to_string()).contains("does not answer"));
}

/// Links that stand, from one end.
pub fn links(world: &mut World, h: H) -> usize {
    world.status(h).connections.iter().filter(|c| c.state == ConnectionState::Established).count()
}

#[test]
fn newcomer_gets_a_place_though_all_are_taken_and_nobody_is_lost() {
    let mut world = World::new(310);
    let hosts: [H; 12] = [(); 12].map(|()| world.host(Options { limit: 3, ..Options::default() }));
    world.launch(hosts[0], &[]);
    // All know the first one only.
    hosts[1..].iter().for_each(|h| world.launch(*h, &[hosts[0]]));
    attach_all(&mut world, &hosts);
    let whole = |world: &mut World| {
        hosts.iter().all(|h| world.status(*h).peers.iter().filter(|peer| peer.reachable).count() == 12)
    };
    let took = world.run_until(secs(30), whole);
    assert!(took.is_some(), "the mesh is one");
    world.run_for(secs(20));
    assert!(whole(&mut world), "and stays so");
    for h in hosts {
        assert!((1..=3).contains(&links(&mut world, h)));
    }
    assert_floods_once(&mut world, &hosts);
    // Whoever lost a link tries for a minute whether it was a restart.
    world.run_for(secs(90));
    let dialled = world.next_connection;
    world.run_for(secs(60));
    assert!(world.next_connection - dialled < 30, "{} dials a minute", world.next_connection - dialled);
}

/// b and c behind translators, both linked with a.
fn translated(seed: u64, random: [bool; 2]) -> (World, [H; 3]) {
    translated_with(seed, random, Some(1))
}

fn translated_with(seed: u64, random: [bool; 2], password: Option<u8>) -> (World, [H; 3]) {
    let mut world = World::new(seed);
    let [a, b, c] = [(); 3].map(|()| world.host(Options { password, ..Options::default() }));
    for (n, (h, random)) in [b, c].into_iter().zip(random).enumerate() {
        world.hosts[h.0].nat = Some(format!("198.51.100.{}:5000{n}", n + 2).parse().unwrap());
        world.hosts[h.0].nat_random = random;
        world.hosts[h.0].nat_life = secs(30);
    }
    world.launch(a, &[]);
    world.launch(b, &[a]);
    world.launch(c, &[a]);
    attach_all(&mut world, &[a, b, c]);
    world.run_for(secs(3));
    (world, [a, b, c])
}

#[test]
fn two_behind_translators_meet_directly_where_their_ports_stay_the_same() {
    let (mut world, [_, b, c]) = translated(320, [false, false]);
    let (start, flow) = (world.now, world.flow((b, c), NET, millis(20), secs(20)));
    let direct =
        |world: &mut World| is(world, b, c, ConnectionState::Direct) && is(world, c, b, ConnectionState::Direct);
    assert!(world.run_until(secs(1), direct).is_some());
    world.run_for(secs(20));
    let (sent, answered) = world.answered(flow, start, world.now);
    assert!(sent <= answered + 1, "{sent} {answered}");
}

#[test]
fn two_behind_translators_that_take_a_port_for_each_are_relayed_and_told_so() {
    let (mut world, [a, b, c]) = translated(321, [true, true]);
    let (start, flow) = (world.now, world.flow((b, c), NET, millis(100), secs(20)));
    world.run_for(secs(15));
    for (from, to) in [(b, c), (c, b)] {
        let relayed = connection(&mut world, from, to).unwrap();
        assert_eq!((relayed.state, relayed.via.unwrap().0), (ConnectionState::Relayed, world.name(a)));
        assert!(relayed.info.contains("no answer over UDP"), "{}", relayed.info);
    }
    world.run_for(secs(6));
    let (sent, answered) = world.answered(flow, start, world.now);
    assert_eq!(sent, answered + 1);
}

#[test]
fn idle_peer_behind_a_translator_is_reached_after_ten_minutes() {
    let (mut world, [a, b, _]) = translated(322, [false, true]);
    assert!(world.ping(a, b, NET));
    let links = world.next_connection;
    world.run_for(secs(600));
    let id = world.send_echo(a, b, super::story::net(NET), 56);
    assert!(world.run_until(millis(50), |world| world.hosts[a.0].answered.contains_key(&id)).is_some(), "at once");
    assert_eq!(world.next_connection, links, "by the same link");
}

#[test]
fn translator_that_takes_another_address_is_survived_within_two_seconds_without_a_link() {
    let ways = [(false, false), (true, false), (false, true)];
    for (password, (reset, random)) in [Some(1), None].into_iter().flat_map(|password| ways.map(|way| (password, way)))
    {
        let (mut world, [a, b, _]) = translated_with(323, [random, false], password);
        let flow = world.flow((a, b), NET, millis(20), secs(30));
        world.run_for(secs(4));
        let (cut, links) = (world.now, world.next_connection);
        world.rebind(b, "198.51.100.77:61000".parse().unwrap(), reset);
        let back = |world: &mut World| world.first_answered(flow, cut).is_some();
        let took =
            world.run_until(secs(2), back).unwrap_or_else(|| panic!("within 2 s: {reset} {random} {password:?}"));
        // Where the connection is reset, it is dialled again a moment later.
        assert!(took < if reset { millis(300) } else { secs(2) }, "{took:?} {reset} {random} {password:?}");
        assert!(reset || world.next_connection == links, "no link was made for it: {random} {password:?}");
        let again = world.now;
        world.run_for(secs(20));
        assert!(world.are_neighbours(a, b), "the link is made anew");
        let (sent, answered) = world.answered_since(flow, again);
        assert_eq!(sent, answered, "which nobody notices: {reset} {random} {password:?}");
        assert!(world.hosts[a.0].has_logged("moved to 198.51.100.77"));
    }
}

#[test]
fn translator_that_takes_another_port_is_followed_without_a_new_link() {
    for password in [Some(1), None] {
        let (mut world, [a, b, _]) = translated_with(330, [false, false], password);
        let flow = world.flow((a, b), NET, millis(20), secs(20));
        world.run_for(secs(4));
        let (cut, links, before) =
            (world.now, world.next_connection, connection(&mut world, a, b).unwrap().path.unwrap());
        // Of UDP only: the connection goes on.
        world.hosts[b.0].nat = Some(SocketAddr::new(before.endpoint.ip(), 61_000));
        world.hosts[b.0].contacted.clear();
        world.run_for(secs(12));
        let back = world.first_answered(flow, cut).expect("it is back");
        assert!(back - cut < secs(2), "{:?} {password:?}", back - cut);
        let after = connection(&mut world, a, b).unwrap().path.unwrap();
        assert_eq!((after.endpoint.port(), after.epoch), (61_000, before.epoch), "the same keys");
        assert!(after.up_for >= before.up_for + 12 && world.next_connection == links, "the same link, never down");
    }
}

#[test]
fn moved_host_keeps_its_traffic_while_its_link_dies_and_is_made_again() {
    for password in [Some(1), None] {
        let mut world = World::new(324);
        let [a, b] = [(); 2].map(|()| world.host(Options { password, ..Options::default() }));
        world.launch(a, &[]);
        world.launch(b, &[a]);
        attach_all(&mut world, &[a, b]);
        world.run_for(secs(3));
        let flow = world.flow((a, b), NET, millis(20), secs(40));
        world.run_for(secs(1));
        let moved = world.now;
        world.move_to(b, "198.51.100.9".parse().unwrap());
        world.run_for(secs(30));
        assert!(world.are_neighbours(a, b));
        let back = world.first_answered(flow, moved).unwrap();
        assert!(back - moved < millis(200), "{:?} {password:?}", back - moved);
        let (sent, answered) = world.answered_since(flow, back);
        assert_eq!(sent, answered);
    }
}

#[test]
fn of_several_addresses_another_takes_over_when_the_one_in_use_dies() {
    for password in [Some(1), None] {
        let mut world = World::new(325);
        let [a, b] = [(); 2].map(|()| world.host(Options { password, ..Options::default() }));
        world.hosts[b.0].more_ips = vec!["198.51.100.50".parse().unwrap()];
        world.launch(b, &[]);
        world.launch(a, &[b]);
        attach_all(&mut world, &[a, b]);
        world.run_for(secs(5));
        let flow = world.flow((a, b), NET, millis(20), secs(60));
        world.run_for(secs(1));
        let best = if password.is_some() { Framing::Udp } else { Framing::Vxlan };
        let path = |world: &mut World, from, to| connection(world, from, to).unwrap().path.unwrap();
        assert_eq!((path(&mut world, a, b).framing, path(&mut world, b, a).framing), (best, best));
        let first = path(&mut world, a, b).endpoint.ip();
        let links = world.next_connection;
        world.dead_ips.insert(first);
        let cut = world.now;
        world.run_for(secs(10));
        let back = world.first_answered(flow, cut).expect("the other address takes over");
        assert!(back - cut < secs(3), "{:?}", back - cut);
        let second = path(&mut world, a, b).endpoint.ip();
        assert_ne!(second, first);
        // VXLAN that still comes from the first is not taken; from the second it is proven anew, and no frame is lost for it.
        assert_eq!((path(&mut world, a, b).framing, path(&mut world, b, a).framing), (Framing::Udp, Framing::Udp));
        world.hosts[b.0].usual_ip = Some(second);
        world.run_for(secs(20));
        assert_eq!((path(&mut world, a, b).framing, path(&mut world, b, a).framing), (best, best));
        let (sent, answered) = world.answered_since(flow, back);
        assert_eq!(sent, answered);
        assert_eq!(world.next_connection, links, "the same link");
    }
}

#[test]
fn peer_behind_a_translator_gets_answers_from_the_address_that_it_dialled() {
    let mut world = World::new(327);
    let [a, b] = world.hosts();
    let private: IpAddr = "10.9.9.9".parse().unwrap();
    // The kernel of a sends from where nobody reaches it, and the translator of b lets in only what b has sent to.
    world.hosts[a.0].more_ips = vec![private];
    world.hosts[a.0].usual_ip = Some(private);
    world.dead_ips.insert(private);
    world.hosts[b.0].nat = Some("198.51.100.2:50000".parse().unwrap());
    world.hosts[b.0].nat_life = secs(30);
    world.launch(a, &[]);
    world.launch(b, &[a]);
    attach_all(&mut world, &[a, b]);
    world.run_for(secs(3));
    assert!(world.are_neighbours(a, b));
    let (start, flow) = (world.now, world.flow((b, a), NET, millis(20), secs(10)));
    world.run_for(secs(11));
    let (sent, answered) = world.answered(flow, start, world.now);
    assert!(sent <= answered + 1, "{sent} {answered}");
    // It moves, and is followed from the same address.
    world.rebind(b, "198.51.100.77:61000".parse().unwrap(), false);
    let (cut, flow) = (world.now, world.flow((b, a), NET, millis(20), secs(20)));
    world.run_for(secs(21));
    let back = world.first_answered(flow, cut).expect("it is back");
    assert!(back - cut < secs(2), "{:?}", back - cut);
}

#[test]
fn of_two_lines_to_one_address_the_other_takes_over() {
    for password in [Some(1), None] {
        let mut world = World::new(328);
        let [a, b] = [(); 2].map(|()| world.host(Options { password, ..Options::default() }));
        let [first, second] = ["198.51.100.61", "198.51.100.62"].map(|ip| ip.parse::<IpAddr>().unwrap());
        world.hosts[a.0].ip = first;
        world.hosts[a.0].more_ips = vec![second];
        world.launch(b, &[]);
        world.launch(a, &[b]);
        attach_all(&mut world, &[a, b]);
        world.run_for(secs(5));
        let flow = world.flow((a, b), NET, millis(20), secs(30));
        world.run_for(secs(1));
        // Nothing reaches b that leaves by the first line, nor comes back by it; the kernel of a does not notice.
        world.dead_ips.insert(first);
        let cut = world.now;
        world.run_for(secs(15));
        let back = world.first_answered(flow, cut).expect("the other line takes over");
        assert!(back - cut < secs(3), "{:?} {password:?}", back - cut);
    }
}

#[test]
fn forged_addresses_draw_a_few_checks_and_no_more() {
    let mut world = World::new(326);
    let [a, b, victim] = world.hosts();
    let nobody = world.hosts[victim.0].ip;
    world.launch(a, &[]);
    world.launch(b, &[a]);
    world.wiretap = Some(Vec::new());
    // b lies about where it is, again and again, and a has trouble with its lines.
    for round in 0..60_u8 {
        let mut all = vec![("eth0".to_string(), nobody)];
        all.extend((0..round % 3).map(|n| ("eth0".to_string(), IpAddr::from([203, 0, 113, n]))));
        world.feed(b, Input::Addresses(all));
        world.feed(a, Input::NetworkChanged);
        world.run_for(secs(1));
    }
    let arrived = world.wiretap.take().unwrap();
    let there = arrived.iter().filter(|(_, to, _)| to.ip() == nobody);
    let lengths: Vec<usize> = there.map(|(_, _, bytes)| bytes.len()).collect();
    assert!(!lengths.is_empty() && lengths.len() <= 12, "{} in a minute", lengths.len());
    assert!(lengths.iter().all(|length| *length <= 56));
}

#[test]
fn forged_addresses_on_many_ports_of_one_host_draw_a_few_dials_a_minute() {
    let mut world = World::new(329);
    let [a, b, victim] = world.hosts();
    let nobody = world.hosts[victim.0].ip;
    // Each tells of four more ports there, and cannot be reached where it really is.
    let liars: [H; 16] = std::array::from_fn(|n| {
        let ports = (0..4).map(|port| SocketAddr::new(nobody, 7000 + 4 * u16::try_from(n).unwrap() + port));
        world.host(Options { discovery: false, advertise: ports.collect(), ..Options::default() })
    });
    liars.iter().for_each(|liar| world.wall(a, *liar));
    world.hosts[b.0].options.discovery = false;
    world.launch(b, &[]);
    world.launch(a, &[b]);
    liars.iter().for_each(|liar| world.launch(*liar, &[b]));
    for _ in 0..180 {
        world.feed(a, Input::NetworkChanged);
        world.run_for(secs(1));
    }
    for minute in 0..3 {
        let within =
            |at: &Instant| (Instant::ZERO + secs(60 * minute)..Instant::ZERO + secs(60 * (minute + 1))).contains(at);
        let there = world.dials.iter().filter(|(at, from, to)| *from == a && *to == nobody && within(at)).count();
        assert!(there > 0 && there <= 16, "{there} in minute {minute}");
    }
    let there = world.dials.iter().filter(|(_, from, to)| *from == a && *to == nobody).count();
    assert!(there <= 32, "{there} in three minutes");
}
