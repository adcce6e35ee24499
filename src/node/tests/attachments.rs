//! Attachments: addresses, conflicts here and in the mesh, failures that leave nothing behind, restarts, the end.

use super::*;
use crate::node::command::Attachment;
use crate::types::{AddressRequest, NetId};

pub(super) fn attached(reply: Reply) -> Attachment {
    match reply {
        Reply::Attached(attachment) => attachment,
        other => panic!("{other:?}"),
    }
}

pub(super) fn why(reply: Reply) -> String {
    match reply {
        Reply::Refused(why) => why,
        other => panic!("{other:?}"),
    }
}

pub(super) fn kinds(world: &mut World, at: usize) -> Vec<&'static str> {
    std::mem::take(&mut world.hosts[at].ops)
        .iter()
        .map(|op| match op {
            HostOp::OpenNetwork { .. } => "open",
            HostOp::CloseNetwork { .. } => "close",
            HostOp::Recapture { .. } => "recapture",
            HostOp::Plug { .. } => "plug",
            HostOp::Unplug { .. } => "unplug",
            HostOp::Filter(_) => "filter",
            HostOp::OpenTunnel { .. } => "tunnel",
            HostOp::CloseTunnel { .. } => "untunnel",
            HostOp::OpenUplink { .. } => "uplink",
            HostOp::CloseUplink { .. } => "unlink",
            HostOp::ResizeNetwork { .. } => "resize network",
            HostOp::Resize { .. } => "resize",
            HostOp::OpenVxlan { .. } => "vxlan",
            HostOp::TryVxlan { .. } => "try vxlan",
            HostOp::CloseVxlan => "unvxlan",
            HostOp::VxlanPeers(_) => "vxlan peers",
            HostOp::SweepRest => "sweep rest",
            HostOp::OpenOffload { .. } => "offload network",
            HostOp::CloseOffload { .. } => "close offload",
            HostOp::Offload { .. } => "offload",
        })
        .collect()
}

pub(super) fn detach(world: &mut World, at: usize, key: &str, addresses: &[&str]) -> Reply {
    let addresses: Vec<AddressRequest> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    world.ask(at, Command::Detach { key: key.to_string(), addresses })
}

#[test]
fn one_interface_for_each_network_in_the_order_of_addresses() {
    let mut world = World::of(1);
    let attachment = attached(world.attach(0, "web", &["10.2.2.1/24", "10.2.1.1/24", "fd00:1::1/64", "10.2.2.2/24"]));
    let shape: Vec<(String, String, usize)> =
        attachment.interfaces.iter().map(|i| (i.name.clone(), i.network.to_string(), i.addresses.len())).collect();
    let expected = [("rnet0", "10.2.2.0/24", 2), ("rnet1", "10.2.1.0/24", 1), ("rnet2", "fd00:1::/64", 1)];
    assert_eq!(shape, expected.map(|(name, network, count)| (name.to_string(), network.to_string(), count)));
    assert_eq!(kinds(&mut world, 0), ["open", "open", "open", "plug"]);
    let fib = world.hosts[0].plane.fib();
    assert_eq!((fib.networks.len(), fib.ports.len()), (3, 3));
    let macs: BTreeSet<_> = attachment.interfaces.iter().map(|interface| interface.mac).collect();
    assert_eq!(macs.len(), 3);
}

#[test]
fn attach_and_detach_are_idempotent() {
    let mut world = World::of(1);
    let first = attached(world.attach(0, "web", &["10.2.1.1/24"]));
    assert_eq!(attached(world.attach(0, "web", &["10.2.1.1/24"])), first);
    assert_eq!(kinds(&mut world, 0), ["open", "plug"]);
    assert_eq!(attached(detach(&mut world, 0, "web", &[])).interfaces, first.interfaces);
    assert_eq!(attached(detach(&mut world, 0, "web", &[])).interfaces, []);
    assert_eq!(kinds(&mut world, 0), ["unplug", "close"]);
    assert_eq!(world.hosts[0].plane.fib().networks.len(), 0);
}

#[test]
fn a_capture_port_that_is_gone_is_made_anew_under_another_number() {
    let mut world = World::of(1);
    attached(world.attach(0, "web", &["10.2.1.1/24", "10.2.2.1/24"]));
    kinds(&mut world, 0);
    let ports = |world: &World| world.hosts[0].plane.fib().ports.clone();
    let before = ports(&world);
    let (gone, id) = before.iter().min().map(|(port, id)| (*port, *id)).unwrap();
    world.input(0, Input::CaptureGone { port: gone });
    world.seconds(1);
    assert_eq!(kinds(&mut world, 0), ["recapture"]);
    let after = ports(&world);
    let new = after.iter().find(|(_, held)| **held == id).map(|(port, _)| *port).unwrap();
    assert!(after.len() == 2 && !before.contains_key(&new), "{before:?} {after:?}");
    assert_eq!(world.hosts[0].log.iter().filter(|(_, line)| line.contains("it is made again")).count(), 1);
    // What is told late, of a port that is not there any more, means nothing; nor does one that cannot be made.
    world.input(0, Input::CaptureGone { port: gone });
    assert_eq!(kinds(&mut world, 0), [""; 0]);
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::Recapture { .. }));
    world.input(0, Input::CaptureGone { port: new });
    world.seconds(1);
    assert!(world.hosts[0].log.iter().any(|(_, line)| line.contains("could not be made again: no permission")));
    assert_eq!(attached(detach(&mut world, 0, "web", &[])).interfaces.len(), 2);
    assert_eq!(ports(&world).len(), 0);
}

#[test]
fn a_further_address_joins_the_interface_of_its_network() {
    let mut world = World::of(1);
    let before = attached(world.attach(0, "web", &["10.2.1.1/24"]));
    kinds(&mut world, 0);
    let after = attached(world.attach(0, "web", &["10.2.1.2/24", "10.2.2.1/24"]));
    assert_eq!(kinds(&mut world, 0), ["open", "unplug", "plug"]);
    assert_eq!((after.interfaces.len(), after.interfaces[0].addresses.len()), (2, 2));
    assert_eq!(
        (after.interfaces[0].mac, &after.interfaces[0].name),
        (before.interfaces[0].mac, &before.interfaces[0].name)
    );
    let taken = attached(detach(&mut world, 0, "web", &["10.2.1.1/24"]));
    assert_eq!(taken.interfaces[0].addresses, ["10.2.1.1/24".parse().unwrap()]);
    assert_eq!(kinds(&mut world, 0), ["unplug", "plug"]);
    assert_eq!(world.status(0).attachments[0].interfaces.len(), 2);
}

#[test]
fn last_attachment_closes_the_network() {
    let mut world = World::of(1);
    attached(world.attach(0, "web", &["10.2.1.1/24"]));
    attached(world.attach(0, "db", &["10.2.1.2/24"]));
    assert_eq!(kinds(&mut world, 0), ["open", "plug", "plug"]);
    detach(&mut world, 0, "web", &[]);
    assert_eq!(kinds(&mut world, 0), ["unplug"]);
    world.input(0, Input::AttachmentGone { key: "db".to_string() });
    world.seconds(1);
    assert_eq!(kinds(&mut world, 0), ["unplug", "close"]);
    assert!(world.status(0).attachments.is_empty());
}

#[test]
fn an_address_in_use_here_is_refused_naming_the_holder() {
    let mut world = World::of(1);
    attached(world.attach(0, "web", &["10.2.1.1/24"]));
    let why = why(world.attach(0, "db", &["10.2.1.2/24", "10.2.1.1/24"]));
    assert!(why.starts_with("address 10.2.1.1/24: web on this host has it on 10.2.1.0/24"), "{why}");
    assert_eq!(kinds(&mut world, 0), ["open", "plug"], "nothing of it was done");
}

#[test]
fn an_address_in_use_elsewhere_is_refused_naming_peer_and_holder() {
    let mut world = World::of(3);
    world.connect(0, 1);
    world.connect(1, 2);
    world.seconds(1);
    attached(world.attach(2, "web", &["10.2.1.1/24"]));
    world.seconds(1);
    let why = why(world.attach(0, "db", &["10.2.1.1/24"]));
    assert!(why.contains("web at ") && why.contains("(host3) has it"), "{why}");
    detach(&mut world, 2, "web", &[]);
    world.seconds(1);
    attached(world.attach(0, "db", &["10.2.1.1/24"]));
}

#[test]
fn an_address_of_a_peer_that_is_gone_can_be_taken() {
    let mut world = World::of(2);
    world.connect(0, 1);
    world.seconds(1);
    attached(world.attach(1, "web", &["10.2.1.1/24"]));
    world.seconds(1);
    world.ask(1, Command::Stop);
    world.seconds(1);
    assert_eq!(world.hosts[0].node.claims.count(), 2, "it is remembered for a while");
    attached(world.attach(0, "web", &["10.2.1.1/24"]));
}

#[test]
fn an_address_that_two_took_at_once_is_said_on_both_hosts() {
    let mut world = World::of(2);
    attached(world.attach(0, "web", &["10.2.1.1/24"]));
    attached(world.attach(1, "db", &["10.2.1.1/24"]));
    world.connect(0, 1);
    world.seconds(30);
    for (at, other) in [(0, "db"), (1, "web")] {
        let line = format!("address 10.2.1.1/24 on 10.2.1.0/24 is used twice: here, and by {other} at");
        assert_eq!(world.logged(at, &line), 1, "{:?}", world.hosts[at].log);
    }
}

#[test]
fn network_ids_that_collide_are_refused_naming_both() {
    let mut world = World::of(2);
    world.connect(0, 1);
    world.seconds(1);
    let vni = NetId::new(7);
    attached(world.ask(1, Command::Attach(Attach { vni, ..attach("web", &["10.2.1.1/24"]) })));
    world.seconds(1);
    let why_remote = why(world.ask(0, Command::Attach(Attach { vni, ..attach("db", &["10.2.2.1/24"]) })));
    assert!(
        why_remote.contains("network 10.2.2.0/24: its id 7 is that of 10.2.1.0/24 at ")
            && why_remote.contains("(host2)"),
        "{why_remote}"
    );
    let why_here = why(world.ask(1, Command::Attach(Attach { vni, ..attach("db", &["10.2.2.1/24"]) })));
    assert!(why_here.contains("its id 7 is that of 10.2.1.0/24 on this host"), "{why_here}");
    let why_other = why(world.attach(1, "db", &["10.2.1.9/24"]));
    assert!(why_other.contains("it is open on this host under the id 7: give --vni 7"), "{why_other}");
    let why_two =
        why(world
            .ask(1, Command::Attach(Attach { vni: NetId::new(8), ..attach("db", &["10.2.5.1/24", "10.2.6.1/24"]) })));
    assert!(why_two.contains("--vni 8 is for one network"), "{why_two}");
}

#[test]
fn a_failed_plug_is_undone_and_claims_nothing() {
    let mut world = World::of(1);
    attached(world.attach(0, "web", &["10.2.1.1/24"]));
    kinds(&mut world, 0);
    let before = world.status(0).attachments;
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::Plug { interfaces, .. } if interfaces.len() == 2));
    assert_eq!(why(world.attach(0, "web", &["10.2.1.2/24", "10.2.2.1/24"])), "no permission");
    assert_eq!(kinds(&mut world, 0), ["open", "unplug", "plug", "plug", "close"]);
    assert_eq!(world.status(0).attachments, before);
    assert_eq!(world.hosts[0].plane.fib().networks.len(), 1);
    assert_eq!(world.hosts[0].node.claims.me().claims.len(), 1);
}

#[test]
fn a_network_that_cannot_be_opened_leaves_nothing() {
    let mut world = World::of(1);
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::OpenNetwork { .. }));
    assert_eq!(why(world.attach(0, "web", &["10.2.1.1/24"])), "no permission");
    assert_eq!(kinds(&mut world, 0), ["open"]);
    world.hosts[0].fails = Box::new(|_| false);
    attached(world.attach(0, "web", &["10.2.1.1/24"]));
}

#[test]
fn one_key_in_two_namespaces_is_refused() {
    let mut world = World::of(1);
    attached(world.attach(0, "web", &["10.2.1.1/24"]));
    let elsewhere = Attach { place: Place::Pid(7), ..attach("web", &["10.2.1.2/24"]) };
    let why = why(world.ask(0, Command::Attach(elsewhere)));
    assert!(why.contains("attached in another namespace (/run/netns/web)"), "{why}");
}

#[test]
fn attachments_come_back_after_a_restart_with_their_macs() {
    let mut world = World::of(1);
    let web = attached(world.attach(0, "web", &["10.2.1.1/24", "10.2.2.1/24"]));
    let db = attached(world.ask(0, Command::Attach(Attach { unguarded: true, ..attach("db", &["10.2.1.2/24"]) })));
    let state = world.hosts[0].saved.clone().unwrap();
    world.replace(0, NodeConfig { state, seed: [77; 32], uid: Uid(77), ..config(1) }, true);
    world.seconds(1);
    assert_eq!(world.status(0).attachments, [db, web]);
    let state = world.hosts[0].saved.clone().unwrap();
    world.replace(0, NodeConfig { state, seed: [78; 32], uid: Uid(78), ..config(1) }, true);
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::Plug { key, .. } if key == "web"));
    world.seconds(1);
    assert_eq!(world.status(0).attachments.len(), 1);
    assert_eq!(world.logged(0, "web is not attached again: no permission"), 1);
    assert_eq!(world.hosts[0].saved.as_ref().unwrap().attachments.len(), 1);
}

#[test]
fn stop_takes_everything_off_and_keeps_what_to_attach_again() {
    let mut world = World::of(1);
    attached(world.attach(0, "web", &["10.2.1.1/24", "10.2.2.1/24"]));
    kinds(&mut world, 0);
    assert_eq!(world.ask(0, Command::Stop), Reply::Done);
    assert!(world.hosts[0].stopped);
    assert_eq!(kinds(&mut world, 0), ["unplug", "close", "close"]);
    assert_eq!(world.hosts[0].saved.as_ref().unwrap().attachments.len(), 1);
    assert_eq!(why(world.attach(0, "db", &["10.2.1.2/24"])), "the router is stopping");
}

#[test]
fn halt_ends_and_leaves_everything_to_the_next_router() {
    let mut world = World::of(1);
    attached(world.attach(0, "web", &["10.2.1.1/24"]));
    let before = world.hosts[0].ops.len();
    assert_eq!(world.ask(0, Command::Halt), Reply::Done);
    assert!(world.hosts[0].stopped);
    assert_eq!(world.hosts[0].ops.len(), before, "nothing was changed");
    assert_eq!(
        world.hosts[0].saved.as_ref().map(|state| state.attachments.len()),
        Some(1),
        "and it is known what is there"
    );
}

#[test]
fn stop_ends_though_the_machine_does_not_obey() {
    let mut world = World::of(1);
    attached(world.attach(0, "web", &["10.2.1.1/24"]));
    world.hosts[0].fails = Box::new(|_| true);
    assert_eq!(world.ask(0, Command::Stop), Reply::Done);
    assert!(world.hosts[0].stopped);
}

#[test]
fn requests_wait_in_bounded_number() {
    let mut world = World::of(1);
    for n in 0..300u64 {
        let attach = attach(&format!("c{n}"), &[&format!("10.2.{}.{}/16", n / 200, 1 + n % 200)]);
        world.input(0, Input::Command { request: RequestId(10_000 + n), command: Command::Attach(attach) });
    }
    world.seconds(2);
    let refused = world.hosts[0]
        .replies
        .values()
        .filter(|reply| matches!(reply, Reply::Refused(why) if why.contains("too many")))
        .count();
    assert_eq!(world.hosts[0].replies.len(), 300);
    assert!((30..=60).contains(&refused), "{refused}");
}

#[test]
fn what_is_attached_follows_the_narrowest_path_and_what_comes_has_its_width() {
    let mut world = World::new(vec![NodeConfig { mtu: Mtu::Auto, ..config(1) }, config(2)]);
    attached(world.attach(0, "web", &["10.2.1.1/24", "fd00:1::1/64"]));
    let addresses = vec!["10.2.1.9/24".parse().unwrap()];
    attached(world.ask(0, Command::Expose { addresses, masquerade: false }));
    let width = |op: &HostOp| match op {
        HostOp::OpenNetwork { mtu, .. }
        | HostOp::Plug { mtu, .. }
        | HostOp::ResizeNetwork { mtu, .. }
        | HostOp::Resize { mtu, .. } => Some(*mtu),
        _ => None,
    };
    assert!(world.hosts[0].ops.iter().filter_map(width).all(|mtu| mtu == 1398));
    kinds(&mut world, 0);
    assert_eq!((world.status(0).mtu, world.status(0).mtu_auto, world.status(0).mtu_limit), (1398, true, None));
    world.connect(0, 1);
    world.seconds(8);
    assert!(world.hosts[0].ops.iter().all(|op| width(op) == Some(1418)));
    assert_eq!(
        kinds(&mut world, 0),
        ["resize network", "resize network", "resize"],
        "the host is on the bridge itself"
    );
    attached(world.attach(0, "db", &["10.2.1.2/24"]));
    assert!(world.hosts[0].ops.iter().all(|op| width(op) == Some(1418)));
    let status = world.status(0);
    let limit = status.mtu_limit.unwrap();
    assert_eq!((status.mtu, limit.mtu), (1418, 1472));
    let ends: BTreeSet<_> = limit.ends.iter().map(|(name, _)| *name).collect();
    assert_eq!(ends, BTreeSet::from([public(1).name(), public(2).name()]));
    assert_eq!(world.logged(0, "MTU of attachments is 1418 instead of 1398: the path between"), 1);
    // A fixed one follows nobody.
    assert_eq!((world.status(1).mtu, world.status(1).mtu_auto), (1400, false));
}

#[test]
fn an_interface_that_cannot_be_widened_keeps_the_others_from_nothing() {
    let mut world = World::new(vec![NodeConfig { mtu: Mtu::Auto, ..config(1) }, config(2)]);
    attached(world.attach(0, "web", &["10.2.1.1/24"]));
    attached(world.attach(0, "db", &["10.2.1.2/24"]));
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::Resize { key, .. } if key == "db"));
    world.connect(0, 1);
    world.seconds(8);
    assert_eq!(world.logged(0, "db does not get an MTU of 1418: no permission"), 1);
    assert_eq!(kinds(&mut world, 0), ["open", "plug", "plug", "resize network", "resize", "resize"]);
    assert_eq!(world.status(0).attachments.len(), 2);
}
