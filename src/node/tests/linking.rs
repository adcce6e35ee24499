//! Links: who is linked, who is refused and how both sides hear of it, duplicates, clones, ends.

use super::*;
use crate::crypto::session::Role;
use crate::mesh::link::{Link, LinkEvent, Setup};
use crate::wire::message::{Channel, Intro, Message, PathOffer};

/// Two routers of which the first dials the second; after two seconds, what the first shows of it.
fn refused(a: NodeConfig, b: NodeConfig) -> (World, Connection) {
    let mut world = World::new(vec![a, b]);
    world.connect(0, 1);
    world.seconds(2);
    assert_eq!(world.established(0) + world.established(1), 0);
    let failed = world
        .connections(0, ConnectionState::Failed)
        .pop()
        .unwrap_or_else(|| panic!("{:?}", world.status(0).connections));
    (world, failed)
}

/// What the listening side shows of whoever it refused.
fn shown_by_listener(world: &mut World) -> String {
    world.connections(1, ConnectionState::Failed).pop().unwrap().info
}

#[test]
fn two_routers_link_and_prove_their_path_within_a_second() {
    let mut world = World::of(2);
    world.connect(0, 1);
    world.run_for(Duration::from_millis(900));
    for at in 0..2 {
        let connections = world.status(at).connections;
        assert_eq!(connections.len(), 1, "{connections:?}");
        assert_eq!(
            (connections[0].state, connections[0].outbound, connections[0].encrypted),
            (ConnectionState::Established, at == 0, true)
        );
        assert_eq!(connections[0].path.as_ref().unwrap().epoch, 1);
        assert_eq!(world.logged(at, "linked with"), 1);
        assert_eq!(world.hosts[at].plane.fib().next_hops.len(), 1);
    }
    let seen = world.status(0).peers;
    assert_eq!((seen.len(), seen[1].via), (2, Some(public(2).name())));
}

#[test]
fn mtu_is_found_and_used() {
    let mut world = World::of(2);
    world.connect(0, 1);
    world.seconds(4);
    assert_eq!(world.status(0).connections[0].path.as_ref().unwrap().mtu, 1472);
    assert!(world.hosts[1].plane.fib().paths.values().all(|path| path.mtu() == 1472));
}

#[test]
fn wrong_password_is_refused_on_both_sides_with_the_next_try() {
    let (mut world, shown) = refused(config(1), NodeConfig { psk: Some(Psk([8; 32])), ..config(2) });
    assert!(shown.info.contains("wrong password") && shown.retry_in.is_some_and(|seconds| seconds <= 4), "{shown:?}");
    assert!(shown_by_listener(&mut world).contains("wrong password"));
    assert!(world.logged(1, "wrong password") >= 1);
}

#[test]
fn password_on_one_side_only_is_named_as_seen_from_each() {
    let (mut world, shown) = refused(NodeConfig { psk: None, ..config(1) }, config(2));
    assert_eq!(shown.info, "peer requires a password");
    assert_eq!(shown_by_listener(&mut world), "peer has no password");
    let (mut world, shown) = refused(config(1), NodeConfig { psk: None, ..config(2) });
    assert_eq!(shown.info, "peer has no password");
    assert_eq!(shown_by_listener(&mut world), "peer requires a password");
}

#[test]
fn a_key_that_is_not_listed_is_refused() {
    let (mut world, shown) = refused(config(1), NodeConfig { allow: Some(vec![public(3)]), ..config(2) });
    assert_eq!(shown.info, "refused by peer: not on the allow list");
    assert_eq!(shown_by_listener(&mut world), "not on the allow list");
    assert_eq!(shown.peer.unwrap().0, public(2).name());
}

#[test]
fn another_range_is_refused_naming_both() {
    let (mut world, shown) = refused(config(1), NodeConfig { addresses: space("10.0.0.0/8"), ..config(2) });
    assert!(shown.info.contains("peer has 10.0.0.0/8 and we have 10.32.0.0/12"), "{}", shown.info);
    assert!(shown_by_listener(&mut world).contains("peer has 10.32.0.0/12 and we have 10.0.0.0/8"));
}

#[test]
fn connection_limit_is_told_with_its_number() {
    let mut world = World::new(vec![config(1), NodeConfig { connection_limit: 1, ..config(2) }, config(3)]);
    world.connect(2, 1);
    world.seconds(1);
    world.connect(0, 1);
    world.seconds(2);
    assert_eq!((world.established(0), world.established(1), world.established(2)), (0, 1, 1));
    assert_eq!(world.connections(0, ConnectionState::Failed)[0].info, "refused by peer: connection limit of 1 reached");
}

#[test]
fn own_address_as_a_peer_is_said_once_and_never_tried_again() {
    let mut world = World::of(1);
    world.connect(0, 0);
    world.seconds(300);
    let connections = world.status(0).connections;
    assert_eq!(connections.len(), 1, "{connections:?}");
    assert_eq!((connections[0].info.as_str(), connections[0].retry_in), ("this is ourselves, retry: never", None));
    assert_eq!(world.hosts[0].log.len(), 1, "{:?}", world.hosts[0].log);
    assert!(world.next < 20, "it was dialled again");
}

#[test]
fn unreachable_target_shows_why_and_when_it_is_tried_again() {
    let mut world = World::of(1);
    world.connect(0, 7);
    world.seconds(30);
    let shown = world.connections(0, ConnectionState::Failed).pop().unwrap();
    assert_eq!(shown.info, "connection refused");
    assert!(shown.retry_in.is_some_and(|seconds| seconds <= 20));
    assert_eq!(world.logged(0, "connection refused"), 1, "the same reason is one line");
}

#[test]
fn of_two_links_dialled_from_both_sides_one_stays() {
    for seed in 0..20 {
        let mut world = World::new(vec![NodeConfig { seed: [100 + seed; 32], ..config(1) }, config(2)]);
        world.connect(0, 1);
        world.connect(1, 0);
        world.seconds(3);
        for at in 0..2 {
            let connections = world.status(at).connections;
            assert_eq!(connections.len(), 1, "{connections:?}");
            assert_eq!(connections[0].state, ConnectionState::Established);
        }
        assert_eq!(world.pipes.len(), 1);
        let before = world.next;
        world.seconds(60);
        assert!(world.next - before < 4, "dials again and again");
    }
}

#[test]
fn a_clone_is_refused_and_the_first_one_stays() {
    let mut world = World::new(vec![config(1), config(2), NodeConfig { uid: Uid(99), seed: [99; 32], ..config(1) }]);
    world.connect(0, 1);
    world.seconds(1);
    world.connect(2, 1);
    world.seconds(4);
    assert_eq!((world.established(0), world.established(1), world.established(2)), (1, 1, 0));
    let shown = world.connections(2, ConnectionState::Failed).pop().unwrap();
    assert!(shown.info.contains("cloned identity"), "{}", shown.info);
    assert!(world.logged(1, "cloned identity") >= 1);
}

#[test]
fn a_clone_that_dials_its_original_is_told_so() {
    let (_, shown) = refused(config(1), NodeConfig { uid: Uid(99), seed: [99; 32], ..config(1) });
    assert!(shown.info.contains("cloned identity"), "{}", shown.info);
}

#[test]
fn a_restarted_router_is_linked_again_though_its_old_link_was_never_reset() {
    let mut world = World::of(2);
    world.connect(0, 1);
    world.seconds(5);
    let again = NodeConfig { uid: Uid(77), seed: [77; 32], ..config(1) };
    world.replace(0, again, false);
    world.connect(0, 1);
    world.seconds(3);
    assert_eq!((world.established(0), world.established(1)), (1, 1));
    assert_eq!(world.status(1).peers.len(), 2);
}

#[test]
fn a_listener_that_restarts_is_found_again_by_who_dialled_it() {
    let mut world = World::of(2);
    world.connect(0, 1);
    world.seconds(5);
    world.replace(1, NodeConfig { uid: Uid(77), seed: [77; 32], ..config(2) }, true);
    world.seconds(3);
    assert_eq!((world.established(0), world.established(1)), (1, 1));
}

#[test]
fn a_link_without_udp_is_pending_and_says_what_to_look_at() {
    let mut world = World::of(2);
    world.no_udp.insert((0, 1));
    world.connect(0, 1);
    world.seconds(10);
    let pending = world.connections(0, ConnectionState::Pending);
    assert!(pending[0].info.contains("is that port open for UDP"), "{pending:?}");
    assert_eq!(world.hosts[0].plane.fib().next_hops.len(), 0, "no data before the proof");
    assert_eq!(world.logged(0, "no heartbeat over UDP"), 1);
    world.no_udp.clear();
    world.seconds(2);
    assert_eq!((world.established(0), world.established(1)), (1, 1));
    world.no_udp.insert((0, 1));
    world.run_for(Duration::from_millis(4200));
    assert_eq!((world.established(0), world.established(1)), (0, 0));
    assert_eq!(world.hosts[0].plane.fib().next_hops.len(), 0);
}

#[test]
fn a_link_that_fell_silent_is_dead_after_five_seconds() {
    let mut world = World::of(2);
    world.connect(0, 1);
    world.seconds(5);
    world.pipes.clear();
    world.no_tcp.insert((0, 1));
    world.seconds(4);
    assert_eq!(world.established(0), 1, "the path goes on");
    world.seconds(3);
    assert_eq!(world.connections(0, ConnectionState::Retrying).len(), 1);
    assert_eq!(world.connections(0, ConnectionState::Direct)[0].info, "its link broke");
    world.no_tcp.clear();
    world.seconds(4);
    assert_eq!((world.established(0), world.established(1)), (1, 1));
}

#[test]
fn keys_are_replaced_every_two_minutes_without_a_gap() {
    let mut world = World::of(2);
    world.connect(0, 1);
    world.seconds(1);
    for minutes in [2, 4, 6] {
        world.seconds(120);
        let path = world.status(0).connections[0].path.clone().unwrap();
        assert_eq!(path.epoch, 1 + minutes / 2);
        assert_eq!((path.loss_out_percent, path.loss_in_percent), (0.0, 0.0));
    }
    assert_eq!(world.logged(0, "is down"), 0);
    world.seconds(45);
    assert_eq!(world.hosts[0].plane.fib().by_index.len(), 1, "the old epoch is retired");
}

#[test]
fn a_moved_address_is_followed() {
    let mut world = World::of(2);
    world.connect(0, 1);
    world.seconds(5);
    let moved = SocketAddr::from(([10, 0, 9, 9], 1234));
    world.hosts[0].address = moved;
    world.seconds(4);
    assert_eq!(world.status(1).connections[0].path.as_ref().unwrap().endpoint, moved);
    assert_eq!((world.established(0), world.established(1)), (1, 1));
    assert_eq!(world.logged(1, "moved to 10.0.9.9:1234"), 1);
}

#[test]
fn half_open_connections_are_bounded_and_short_lived() {
    let mut world = World::of(1);
    for n in 0..300u16 {
        let remote = SocketAddr::from(([10, 9, u8::try_from(n % 10).unwrap(), 1], 1000 + n));
        let link = LinkId(world.number());
        world.input(0, Input::LinkUp { link, dial: None, remote, local: address_of(0) });
    }
    assert_eq!(world.hosts[0].node.links.all.len(), super::super::links::MAX_PENDING);
    world.seconds(6);
    assert_eq!(world.hosts[0].node.links.all.len(), 0);
    assert!(world.hosts[0].log.len() <= 60, "{}", world.hosts[0].log.len());
}

#[test]
fn garbage_is_turned_away_and_harms_nobody() {
    let mut world = World::of(2);
    world.connect(0, 1);
    world.seconds(2);
    for n in 0..100u16 {
        let link = LinkId(world.number());
        let remote = SocketAddr::from(([10, 9, 9, 9], 1000 + n));
        world.input(0, Input::LinkUp { link, dial: None, remote, local: address_of(0) });
        world.input(0, Input::LinkBytes { link, bytes: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" });
    }
    assert_eq!(world.hosts[0].node.links.all.len(), 1);
    assert!(world.logged(0, "is not rnet") <= 5);
    world.seconds(2);
    assert_eq!(world.established(0), 1);
}

#[test]
fn a_stopping_router_is_gone_at_once_for_its_neighbours() {
    let mut world = World::of(2);
    world.connect(0, 1);
    world.seconds(3);
    assert_eq!(world.ask(1, Command::Stop), Reply::Done);
    world.run_for(Duration::from_millis(5));
    assert!(world.hosts[1].stopped);
    assert_eq!(world.hosts[0].plane.fib().next_hops.len(), 0);
    assert_eq!(world.logged(0, "peer is stopping"), 1);
    let shown = world.connections(0, ConnectionState::Retrying);
    assert_eq!(shown[0].info, "peer is stopping");
    assert_eq!(world.hosts[0].node.tell.topology.deadline(), None, "nothing is to be told to it");
}

#[test]
fn targets_are_saved_and_dialled_by_the_next_run() {
    let mut world = World::of(2);
    world.connect(0, 1);
    world.seconds(1);
    let state = world.hosts[0].saved.clone().unwrap();
    assert_eq!(state.targets, vec![target(1)]);
    world.replace(0, NodeConfig { state, uid: Uid(77), seed: [77; 32], ..config(1) }, true);
    world.seconds(2);
    assert_eq!(world.established(0), 1);
    let forget = Command::Forget { targets: vec![target(1)] };
    assert_eq!(world.ask(0, forget.clone()), Reply::Done);
    let told = format!("forget {}: nothing of that name is given as a peer to dial; nothing is", target(1));
    assert_eq!(world.ask(0, forget), Reply::Told(vec![told]), "idempotent");
    world.seconds(1);
    assert!(world.hosts[0].saved.clone().unwrap().targets.is_empty());
    world.seconds(1);
    assert_eq!(world.established(0), 1, "links stay up");
}

#[test]
fn a_change_of_the_network_dials_at_once() {
    let mut world = World::of(2);
    world.no_tcp.insert((0, 1));
    world.connect(0, 1);
    world.seconds(120);
    world.no_tcp.clear();
    world.input(0, Input::NetworkChanged);
    world.run_for(Duration::from_millis(1200));
    assert_eq!(world.established(0), 1);
}

#[test]
fn discovered_peers_are_linked_and_undiscovered_ones_are_not() {
    for discovery in [true, false] {
        let mut world = World::new((1..=3).map(|n| NodeConfig { discovery, ..config(n) }).collect());
        world.connect(0, 1);
        world.connect(2, 1);
        world.seconds(4);
        assert_eq!(world.established(0), if discovery { 2 } else { 1 });
    }
}

#[test]
fn an_idle_router_seldom_wakes() {
    let mut world = World::of(5);
    for other in 1..5 {
        world.connect(other, 0);
    }
    world.seconds(30);
    let mut ticks = 0;
    let until = world.now + Duration::from_secs(10);
    while world.now < until {
        let wait = world.hosts[0].wait.unwrap();
        world.run_for(wait - world.now);
        ticks += 1;
    }
    assert!(ticks <= 10 * 3, "{ticks} timers in ten seconds");
}

/// A member of the mesh that does not follow the protocol: only its link is ours.
struct Rogue {
    link: Link,
    id: LinkId,
}

impl Rogue {
    fn joins(world: &mut World) -> Rogue {
        let intro = Intro {
            nickname: Nickname::new("rogue"),
            uid: Uid(66),
            connection: 1,
            port: 6783,
            aes: true,
            password: true,
            vxlan: 0,
            trusts: false,
            range: "10.32.0.0/12".to_string(),
        };
        let (key, psk) = (generate_key([66; 32]), Psk([7; 32]));
        let setup = Setup { role: Role::Dialer, key: &key, psk: Some(&psk), seed: [66; 32], intro };
        let mut rogue = Rogue { link: Link::new(setup, world.now), id: LinkId(world.number()) };
        let remote = SocketAddr::from(([10, 6, 6, 6], 6666));
        world.pipes.push([(0, rogue.id), (usize::MAX, rogue.id)]);
        world.input(0, Input::LinkUp { link: rogue.id, dial: None, remote, local: address_of(0) });
        for _ in 0..5 {
            rogue.exchange(world);
        }
        assert!(rogue.link.is_up());
        rogue
    }

    /// Bytes both ways; what was on its way to the rogue is taken out of the world.
    fn exchange(&mut self, world: &mut World) {
        let bytes = self.link.take_output();
        world.input(0, Input::LinkBytes { link: self.id, bytes: &bytes });
        let (mine, others) = std::mem::take(&mut world.flying).into_iter().partition(|(_, to, _)| *to == usize::MAX);
        world.flying = others;
        let mine: VecDeque<(Instant, usize, Flying)> = mine;
        for (_, _, what) in mine {
            if let Flying::Bytes { bytes, .. } = what {
                self.link.receive(&bytes, world.now);
            }
        }
        while let Some(event) = self.link.poll_event() {
            if let LinkEvent::Introduced(_) = event {
                self.link.accept(world.now);
            }
        }
    }

    fn says(&mut self, world: &mut World, message: Message) {
        self.link.send(&message);
        self.exchange(world);
    }
}

#[test]
fn a_member_that_talks_nonsense_loses_its_link_and_nobody_else_does() {
    let offer = |epoch| Message::PathOffer(PathOffer { epoch, index: 1, ephemeral: [9; 32] });
    let nonsense = [
        vec![Message::Gossip { channel: Channel::Topology, body: vec![0xff; 100] }],
        vec![Message::Gossip { channel: Channel::Claims, body: Vec::new() }],
        vec![offer(7)],
        vec![offer(1), offer(1)],
        vec![Message::PathReady { epoch: 1 }],
        vec![offer(1), Message::PathReady { epoch: 1 }, offer(2)],
    ];
    for messages in nonsense {
        let mut world = World::of(2);
        world.connect(0, 1);
        world.seconds(1);
        let mut rogue = Rogue::joins(&mut world);
        assert_eq!(world.hosts[0].node.links.all.len(), 2);
        for message in &messages {
            rogue.says(&mut world, message.clone());
        }
        assert!(rogue.link.is_closed(), "{messages:?}");
        assert_eq!(world.hosts[0].node.links.all.len(), 1);
        assert_eq!(world.logged(0, "malformed message"), 1);
        world.seconds(1);
        assert_eq!(world.established(0), 1);
        assert_eq!(world.hosts[0].plane.fib().paths.len(), 1);
    }
}

#[test]
fn what_a_member_says_about_us_is_overruled() {
    let mut world = World::of(2);
    world.connect(0, 1);
    world.seconds(1);
    let mut rogue = Rogue::joins(&mut world);
    let mut lie = world.hosts[0].node.peers.me().clone();
    (lie.version, lie.links) = (1000, Vec::new());
    let body = crate::wire::message::encode_body(&crate::mesh::gossip::Body::Items(vec![lie]));
    rogue.says(&mut world, Message::Gossip { channel: Channel::Topology, body });
    assert_eq!(world.hosts[0].node.peers.me().links.len(), 2);
    assert!(world.hosts[0].node.peers.me().version > 1000);
    world.seconds(1);
    let told = world.hosts[1].node.peers.get(public(1).name()).unwrap();
    assert_eq!(told.version, world.hosts[0].node.peers.me().version);
}
