//! Stories in which somebody may not: both sides say why in one line, and nobody else is disturbed.

use super::frames;
use super::machine::Options;
use super::mesh::attach_all;
use super::story::net;
use super::world::{H, World, millis, secs};
use rnet::crypto::keys::public_key;
use rnet::node::border::{Input, LinkId};
use rnet::node::command::{Command, Reply};
use rnet::types::StaticKey;

const NET: &str = "10.2.1.0/24";

/// Two that stand, and a stranger with these options who dials the first.
fn stranger(seed: u64, options: Options) -> (World, [H; 3]) {
    let mut world = World::new(seed);
    let [a, b] = world.hosts();
    let c = world.host(options);
    world.launch(a, &[]);
    world.launch(b, &[a]);
    attach_all(&mut world, &[a, b]);
    world.run_for(secs(2));
    world.launch(c, &[a]);
    (world, [a, b, c])
}

/// Both sides say it, nothing links, and the others do not notice.
fn assert_refused(world: &mut World, [a, b, c]: [H; 3], at_home: &str, at_stranger: &str) {
    assert!(world.ping(a, b, NET));
    let start = world.now;
    let flow = world.flow((a, b), NET, millis(100), secs(20));
    world.run_for(secs(20));
    let from = world.hosts[c.0].ip.to_string();
    let to = world.hosts[a.0].ip.to_string();
    let (home, stranger) = (world.why_not(a, &from), world.why_not(c, &to));
    assert!(home.contains(at_home), "at home: {home:?}");
    assert!(stranger.contains(at_stranger), "at the stranger: {stranger:?}");
    assert!(!world.are_neighbours(a, c));
    assert!(world.status(c).connections.iter().any(|connection| connection.retry_in.is_some()), "it is tried again");
    let (sent, answered) = world.answered(flow, start, world.now);
    assert_eq!(sent, answered, "others do not notice");
    assert_eq!(world.status(a).peers.len(), 2, "nothing of the stranger gets into the topology");
    let lines = world.hosts[a.0].log.iter().filter(|(at, _, _)| *at >= start).count();
    assert!(lines <= 10, "{lines} lines in 20 s");
}

#[test]
fn wrong_password_never_links_and_both_say_so() {
    let (mut world, hosts) = stranger(70, Options { password: Some(2), ..Options::default() });
    assert_refused(&mut world, hosts, "wrong password", "wrong password");
}

#[test]
fn password_on_one_side_only_is_told_apart_from_a_wrong_one() {
    let (mut world, hosts) = stranger(71, Options { password: None, ..Options::default() });
    assert_refused(&mut world, hosts, "peer has no password", "peer requires a password");
}

#[test]
fn other_address_range_is_refused_naming_both() {
    let (mut world, hosts) = stranger(72, Options { range: "10.64.0.0/12".into(), ..Options::default() });
    assert_refused(&mut world, hosts, "10.64.0.0/12", "10.32.0.0/12");
}

#[test]
fn who_is_not_on_the_allow_list_is_refused() {
    let mut world = World::new(73);
    let [b, c] = world.hosts();
    let allow = Some(vec![public_key(&world.hosts[b.0].key)]);
    let a = world.host(Options { allow, ..Options::default() });
    world.launch(a, &[]);
    world.launch(b, &[a]);
    world.attach(a, "10.2.1.1/24");
    world.attach(b, "10.2.1.2/24");
    world.run_for(secs(2));
    world.launch(c, &[a]);
    assert_refused(&mut world, [a, b, c], "allow list", "allow list");
}

#[test]
fn connection_limit_is_said() {
    let mut world = World::new(74);
    let a = world.host(Options { limit: 1, ..Options::default() });
    let [b, c] = world.hosts();
    world.launch(a, &[]);
    world.launch(b, &[a]);
    world.run_for(secs(2));
    world.wall(b, c);
    world.launch(c, &[a]);
    world.run_for(secs(10));
    let at_c = world.why_not(c, &world.hosts[a.0].ip.to_string());
    assert!(at_c.contains("connection limit of 1"), "{at_c}");
}

#[test]
fn own_address_as_a_target_is_said_once_and_never_dialled_again() {
    let mut world = World::new(75);
    let [a] = world.hosts();
    world.launch(a, &[a]);
    world.run_for(secs(5));
    let dials = world.next_connection;
    world.run_for(secs(200));
    assert_eq!(world.next_connection, dials);
    assert!(world.why_not(a, "192.0.2.1").contains("ourselves"));
    assert_eq!(world.hosts[a.0].log.iter().filter(|(_, _, line)| line.contains("itself")).count(), 1);
}

#[test]
fn unreachable_and_unresolvable_targets_are_said_and_tried_again() {
    let mut world = World::new(76);
    let [a, b] = world.hosts();
    world.wall(a, b);
    world.launch(a, &[b]);
    let targets = vec!["nowhere.example".parse().unwrap()];
    world.command(a, Command::Connect { targets, replace: false });
    world.run_for(secs(20));
    assert!(world.why_not(a, "192.0.2.2").contains("timed out"));
    assert!(world.why_not(a, "nowhere.example").contains("no such host"));
    world.heal();
    world.launch(b, &[]);
    assert!(world.run_until(secs(61), |world| world.are_neighbours(a, b)).is_some());
}

#[test]
fn cloned_identity_is_refused_on_both_sides_and_the_first_stays() {
    let mut world = World::new(77);
    let [a, b, clone] = world.hosts();
    world.hosts[clone.0].key = StaticKey(world.hosts[b.0].key.0);
    world.launch(a, &[]);
    world.launch(b, &[a]);
    attach_all(&mut world, &[a, b]);
    world.run_for(secs(2));
    assert!(world.ping(a, b, NET));
    let (start, flow) = (world.now, world.flow((a, b), NET, millis(100), secs(60)));
    world.launch(clone, &[a]);
    world.run_for(secs(60));
    let (sent, answered) = world.answered(flow, start, world.now);
    assert_eq!(sent, answered, "the first one keeps its place");
    assert!(world.hosts[a.0].has_logged("cloned identity"), "{:?}", world.hosts[a.0].log);
    let to = world.hosts[a.0].ip.to_string();
    assert!(world.why_not(clone, &to).contains("cloned identity"));
}

#[test]
fn clone_that_joins_elsewhere_in_the_mesh_is_noticed() {
    let mut world = World::new(78);
    let [a, b, c, clone] = world.hosts();
    world.only(&[(a, b), (b, c), (c, clone)]);
    world.hosts[clone.0].key = StaticKey(world.hosts[a.0].key.0);
    world.launch(b, &[]);
    world.launch(a, &[b]);
    world.launch(c, &[b]);
    world.run_for(secs(3));
    world.launch(clone, &[c]);
    // Within its first minute it may be a restart.
    world.run_for(secs(120));
    let noticed = [a, b, c, clone].iter().any(|h| {
        world.hosts[h.0].has_logged("cloned identity")
            || world.hosts[h.0].has_logged("another router runs with the key")
    });
    assert!(noticed);
    // The two must not drive each other and the mesh to say more and more.
    let before = world.bytes;
    world.run_for(secs(60));
    let a_second = (world.bytes - before) / 60;
    assert!(a_second < 20_000, "{a_second} bytes a second");
}

/// Two keys whose hashes share the 46 bits of a peer's name, found by trying 12 million.
fn twins() -> [StaticKey; 2] {
    [6_612_872_u32, 11_939_452].map(|n| {
        let mut key = [0x42; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        StaticKey(key)
    })
}

#[test]
fn name_collision_is_refused_on_both_sides() {
    let mut world = World::new(79);
    let [a, b, twin] = world.hosts();
    [world.hosts[b.0].key, world.hosts[twin.0].key] = twins();
    assert_eq!(world.name(b), world.name(twin));
    world.launch(a, &[]);
    world.launch(b, &[a]);
    attach_all(&mut world, &[a, b]);
    world.run_for(secs(2));
    assert!(world.ping(a, b, NET));
    let (start, flow) = (world.now, world.flow((a, b), NET, millis(100), secs(20)));
    world.launch(twin, &[a, b]);
    world.run_for(secs(20));
    let (sent, answered) = world.answered(flow, start, world.now);
    assert_eq!(sent, answered);
    for h in [a, b] {
        let (there, here) = (world.hosts[h.0].ip.to_string(), world.hosts[twin.0].ip.to_string());
        assert!(world.why_not(twin, &there).contains("name collision"), "{h:?}: {}", world.why_not(twin, &there));
        assert!(world.why_not(h, &here).contains("name collision"), "{h:?}: {}", world.why_not(h, &here));
    }
}

#[test]
fn address_that_is_held_elsewhere_is_refused_naming_the_holder() {
    let mut world = World::new(80);
    let [a, b, c] = world.hosts();
    world.only(&[(a, b), (b, c)]);
    world.launch(b, &[]);
    world.launch(a, &[b]);
    world.launch(c, &[b]);
    world.attach(a, "10.2.1.1/24");
    world.run_for(secs(2));
    let why = world.try_attach(c, "10.2.1.1/24").unwrap_err();
    assert!(why.contains("10.2.1.1") && why.contains(&world.name(a).to_string()), "{why}");
    // The same number on another network is another address.
    world.attach(c, "10.2.1.1/16");
    let key = "10.2.1.1/24@host0".to_string();
    assert!(matches!(world.command(a, Command::Detach { key, addresses: vec![] }), Reply::Attached(_) | Reply::Done));
    world.run_for(secs(1));
    world.attach(c, "10.2.1.1/24");
}

#[test]
fn failed_change_is_undone_and_the_next_try_succeeds() {
    let mut world = World::new(81);
    let [a, b] = world.hosts();
    world.launch(a, &[]);
    world.launch(b, &[a]);
    world.attach(b, "10.2.1.2/24");
    for failing in 1..3 {
        world.hosts[a.0].failing_changes = failing;
        assert!(world.try_attach(a, "10.2.1.1/24").is_err());
        world.hosts[a.0].failing_changes = 0;
        world.run_for(secs(1));
        assert!(world.hosts[a.0].nics.is_empty());
        assert!(world.status(b).networks.iter().all(|network| network.peers == [world.name(b)]));
    }
    world.attach(a, "10.2.1.1/24");
    assert!(world.run_until(secs(2), |world| world.ping(a, b, NET)).is_some());
}

#[test]
fn stop_gives_everything_up_and_says_goodbye() {
    let mut world = World::new(82);
    let [a, b] = world.hosts();
    world.launch(a, &[]);
    world.launch(b, &[a]);
    attach_all(&mut world, &[a, b]);
    world.run_for(secs(2));
    assert_eq!(world.command(a, Command::Stop), Reply::Done);
    world.run_for(millis(200));
    assert!(world.hosts[a.0].process.as_ref().unwrap().stopped);
    assert!(world.hosts[a.0].ports.is_empty() && world.hosts[a.0].nics.is_empty());
    assert!(world.hosts[b.0].has_logged("stopping"));
    let kept = world.hosts[a.0].disk.clone().unwrap();
    assert_eq!(kept.attachments.len(), 1, "it comes back at the next start");
}

#[test]
fn garbage_on_the_tcp_port_is_bounded_and_disturbs_nobody() {
    let mut world = World::new(83);
    let [a, b] = world.hosts();
    world.launch(a, &[]);
    world.launch(b, &[a]);
    attach_all(&mut world, &[a, b]);
    world.run_for(secs(2));
    assert!(world.ping(a, b, NET));
    let (start, flow) = (world.now, world.flow((a, b), NET, millis(100), secs(20)));
    for n in 0..2000_u64 {
        let remote = format!("203.0.113.{}:{}", n % 250, 1000 + n).parse().unwrap();
        let (link, local) = (LinkId(1_000_000 + n), "192.0.2.1:6783".parse().unwrap());
        world.feed(a, Input::LinkUp { link, dial: None, remote, local });
        // A third says nothing, a third speaks nonsense, a third begins as one should.
        let bytes = [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"rnet\x01\x01\x01\xff\xff\xff\xff"][n as usize % 3];
        world.feed(a, Input::LinkBytes { link, bytes });
        world.run_for(millis(10));
    }
    let (sent, answered) = world.answered(flow, start, world.now);
    assert_eq!(sent, answered);
    assert!(world.are_neighbours(a, b));
    let lines = world.hosts[a.0].log.iter().filter(|(at, _, _)| *at >= start).count();
    assert!(lines <= 100, "{lines} lines");
}

#[test]
fn garbage_replayed_and_spoofed_datagrams_change_nothing() {
    let mut world = World::new(84);
    let [a, b] = world.hosts();
    world.launch(a, &[]);
    world.launch(b, &[a]);
    attach_all(&mut world, &[a, b]);
    world.run_for(secs(2));
    assert!(world.ping(a, b, NET));
    world.wiretap = Some(Vec::new());
    let (start, flow) = (world.now, world.flow((a, b), NET, millis(10), secs(30)));
    world.run_for(secs(10));
    let heard = world.wiretap.take().unwrap();
    for (n, (from, to, bytes)) in heard.iter().enumerate() {
        let mut bytes = bytes.clone();
        let elsewhere = "203.0.113.7:6783".parse().unwrap();
        match n % 4 {
            0 => world.datagram(*from, *to, bytes),
            1 => world.datagram(elsewhere, *to, bytes),
            2 => {
                let at = n % bytes.len();
                bytes[at] ^= 1 << (n % 8);
                world.datagram(*from, *to, bytes);
            }
            _ => world.datagram(*from, *to, bytes[..n % bytes.len()].to_vec()),
        }
        world.run_for(millis(5));
    }
    world.run_for(secs(21).saturating_sub(millis(5 * heard.len() as u64)));
    let (sent, answered) = world.answered(flow, start, start + secs(29));
    assert_eq!(sent, answered);
    assert!(world.sent.values().all(|sent| sent.copies.values().all(|copies| *copies == 1)), "nothing comes out twice");
    let endpoint = world.status(a).connections[0].path.as_ref().unwrap().endpoint;
    assert_eq!(endpoint.ip(), world.hosts[b.0].ip, "the path did not follow the forger");
}

#[test]
fn forged_sources_do_not_pass_the_port() {
    let mut world = World::new(85);
    let [a, b, c] = world.hosts();
    world.launch(a, &[]);
    world.launch(b, &[a]);
    world.launch(c, &[a]);
    attach_all(&mut world, &[a, b, c]);
    world.run_for(secs(3));
    let id = net(NET);
    let nic = |world: &World, h: H| world.hosts[h.0].nic(id).map(|nic| (nic.mac, nic.ip)).unwrap();
    let (ours, theirs) = (nic(&world, a), nic(&world, b));
    let all = rnet::types::Mac::BROADCAST;
    // None of these is known to the world: if one comes out anywhere, the story fails.
    for forged in [
        frames::bare(theirs.0, all, 1),
        frames::arp((ours.0, theirs.1), all, (all, theirs.1), false, 2),
        frames::arp(theirs, all, (all, ours.1), true, 3),
        frames::echo((ours.0, theirs.1), nic(&world, c), None, 8, 4),
        frames::frame(ours.0, all, 0x8100, &[0, 1, 8, 0], 5),
        frames::frame(all, all, 0x88b5, &[], 6),
    ] {
        world.transmit_raw(a, id, forged);
    }
    world.run_for(secs(1));
    let drops: u64 = world
        .status(a)
        .drops
        .iter()
        .filter(|(reason, _)| reason.contains("guard") || reason.contains("source") || reason.contains("tag"))
        .map(|(_, n)| n)
        .sum();
    assert!(drops >= 6, "{:?}", world.status(a).drops);
}
