//! The host on its networks, ways out, published ports: what is refused, what the packet filter comes to, what comes back.

use super::*;
use crate::node::border::{Edge, Publication};
use crate::node::command::{Attachment, HOST_KEY};
use crate::plane::guard;
use crate::types::PortMap;
use crate::wire::frame::Frame;

fn ok(reply: Reply) -> Attachment {
    match reply {
        Reply::Attached(attachment) => attachment,
        other => panic!("{other:?}"),
    }
}

fn why(reply: Reply) -> String {
    match reply {
        Reply::Refused(why) => why,
        other => panic!("{other:?}"),
    }
}

fn expose(world: &mut World, addresses: &[&str], masquerade: bool) -> Reply {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    world.ask(0, Command::Expose { addresses, masquerade })
}

fn hide(world: &mut World, addresses: &[&str]) -> Reply {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    world.ask(0, Command::Hide { addresses })
}

fn ports(texts: &[&str]) -> Vec<PortMap> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn publish(world: &mut World, key: &str, texts: &[&str]) -> Reply {
    world.ask(0, Command::Publish { key: key.to_string(), ports: ports(texts) })
}

fn filters(world: &World) -> Vec<Edge> {
    let ops = world.hosts[0].ops.iter();
    ops.filter_map(|op| if let HostOp::Filter(edge) = op { Some(edge.clone()) } else { None }).collect()
}

fn leads(world: &World) -> Vec<(u16, String)> {
    let lead = |publication: &Publication| (publication.host_port, publication.to.to_string());
    filters(world).last().map_or(Vec::new(), |edge| edge.publications.iter().map(lead).collect())
}

#[test]
fn the_host_is_permitted_and_claimed_like_an_attachment_and_may_forward() {
    let mut world = World::of(1);
    let host = ok(expose(&mut world, &["10.2.1.254/24", "fd00:1::fe/64"], true));
    assert_eq!((host.key.as_str(), &host.place, host.interfaces.len()), (HOST_KEY, &Place::Host, 2));
    assert_eq!(host.interfaces[0].name, host.interfaces[0].id.bridge());
    assert_eq!(world.hosts[0].node.claims.me().claims.len(), 2);
    let edge = filters(&world).pop().unwrap();
    assert_eq!((edge.exposures.len(), edge.exposures.iter().all(|e| e.masquerade)), (2, true));
    let (fib, mac) = (world.hosts[0].plane.fib(), host.interfaces[0].mac);
    let entry = &fib.networks[&host.interfaces[0].id];
    assert!(!entry.unguarded, "everybody else on the network is guarded still");
    let check = |source: [u8; 4]| {
        let mut frame = Vec::new();
        let packet = etherparse::PacketBuilder::ethernet2(mac.0, [2; 6]).ipv4(source, [10, 2, 1, 1], 64).udp(1, 2);
        packet.write(&mut frame, b"x").unwrap();
        guard::check(entry, &Frame::parse(&frame).unwrap()).is_ok()
    };
    assert!(check([10, 2, 1, 254]) && check([192, 0, 2, 1]));
    assert!(!check([10, 2, 1, 9]), "it speaks as nobody of the network");
}

#[test]
fn expose_and_hide_are_idempotent_and_the_last_hidden_network_is_closed() {
    let mut world = World::of(1);
    let first = ok(expose(&mut world, &["10.2.1.254/24"], true));
    let count = world.hosts[0].ops.len();
    assert_eq!(ok(expose(&mut world, &["10.2.1.254/24"], true)), first);
    assert_eq!(world.hosts[0].ops.len(), count);
    assert!(!ok(expose(&mut world, &["10.2.1.254/24"], false)).interfaces[0].masquerade);
    assert!(!filters(&world).last().unwrap().exposures[0].masquerade);
    assert_eq!(ok(hide(&mut world, &["10.2.1.254/24"])).interfaces.len(), 1);
    assert_eq!(ok(hide(&mut world, &[])).interfaces.len(), 0);
    assert_eq!(filters(&world).last(), Some(&Edge::default()));
    assert!(world.hosts[0].plane.fib().networks.is_empty());
}

#[test]
fn the_hosts_address_is_nobody_elses() {
    let mut world = World::of(2);
    world.connect(0, 1);
    world.seconds(1);
    ok(expose(&mut world, &["10.2.1.254/24"], true));
    world.seconds(1);
    for at in [0, 1] {
        let why = why(world.attach(at, "web", &["10.2.1.254/24"]));
        assert!(why.contains("host:expose"), "{why}");
    }
    let pretender = Attach { place: Place::Host, ..attach("web", &["10.2.1.1/24"]) };
    assert!(why(world.ask(0, Command::Attach(pretender))).contains("rnet expose"));
    assert!(why(world.ask(0, Command::Attach(attach(HOST_KEY, &["10.2.1.1/24"])))).contains("rnet expose"));
}

#[test]
fn nothing_is_filtered_for_plain_attachments() {
    let mut world = World::of(1);
    ok(world.attach(0, "web", &["10.2.1.1/24"]));
    assert!(filters(&world).is_empty());
}

#[test]
fn a_way_out_leads_through_the_first_exposed_network_of_each_family() {
    let mut world = World::of(1);
    let gateway = |key: &str, addresses: &[&str]| Command::Attach(Attach { gateway: true, ..attach(key, addresses) });
    let refused = why(world.ask(0, gateway("web", &["10.2.1.1/24"])));
    assert!(refused.contains("no address on 10.2.1.0/24") && refused.contains("rnet expose"), "{refused}");
    assert!(world.hosts[0].ops.is_empty());
    ok(expose(&mut world, &["10.2.2.254/24", "10.2.3.254/24", "fd00:1::fe/64"], true));
    let addresses = ["10.2.1.1/24", "10.2.2.1/24", "10.2.3.1/24", "fd00:1::1/64"];
    let web = ok(world.ask(0, gateway("web", &addresses)));
    let ways: Vec<Option<String>> = web.interfaces.iter().map(|i| i.gateway.map(|via| via.to_string())).collect();
    assert_eq!(ways, [None, Some("10.2.2.254".to_string()), None, Some("fd00:1::fe".to_string())]);
    // Asked for later, the interface is plugged anew with it.
    ok(world.attach(0, "db", &["10.2.2.2/24"]));
    world.hosts[0].ops.clear();
    assert!(ok(world.ask(0, gateway("db", &["10.2.2.2/24"]))).interfaces[0].gateway.is_some());
    assert_eq!(world.hosts[0].ops.len(), 2);
    ok(world.ask(0, gateway("db", &["10.2.2.2/24"])));
    assert_eq!(world.hosts[0].ops.len(), 2);
    ok(hide(&mut world, &["10.2.2.254/24"]));
    assert_eq!(world.logged(0, "has no way out"), 2);
}

#[test]
fn a_port_leads_to_its_attachment_until_either_ends() {
    let mut world = World::of(1);
    ok(world.attach(0, "web", &["10.2.1.1/24", "10.2.2.1/24"]));
    let refused = why(publish(&mut world, "web", &["8091:8090"]));
    assert!(refused.contains("rnet expose"), "{refused}");
    ok(expose(&mut world, &["10.2.2.254/24"], true));
    assert_eq!(ok(publish(&mut world, "web", &["8091:8090", "53:53/udp"])).published.len(), 2);
    ok(publish(&mut world, "web", &["8091:8090"]));
    assert_eq!(leads(&world), [(8091, "10.2.2.1:8090".to_string()), (53, "10.2.2.1:53".to_string())]);
    assert_eq!(world.status(0).attachments[1].published.len(), 2);
    let unpublish = Command::Unpublish { key: "web".to_string(), ports: ports(&["53:53/udp"]) };
    ok(world.ask(0, unpublish.clone()));
    ok(world.ask(0, unpublish));
    assert_eq!(leads(&world).len(), 1);
    // Not to an address that it has lost, and again when it is back.
    ok(hide(&mut world, &[]));
    assert_eq!(leads(&world), []);
    ok(expose(&mut world, &["10.2.1.254/24"], true));
    assert_eq!(leads(&world), [(8091, "10.2.1.1:8090".to_string())]);
    world.input(0, Input::AttachmentGone { key: "web".to_string() });
    world.seconds(1);
    assert_eq!(leads(&world), []);
}

#[test]
fn one_port_leads_to_one_attachment_and_the_meshs_own_to_none() {
    let mut world = World::of(1);
    ok(expose(&mut world, &["10.2.1.254/24"], true));
    ok(world.attach(0, "web", &["10.2.1.1/24"]));
    let with = |key: &str, address: &str, publish: &[&str]| {
        Command::Attach(Attach { publish: ports(publish), ..attach(key, &[address]) })
    };
    ok(publish(&mut world, "web", &["8091:8090"]));
    ok(world.ask(0, with("db", "10.2.1.2/24", &["8091:1/udp", "192.0.2.1:80:1", "192.0.2.2:80:1"])));
    for taken in ["8091:1", "192.0.2.1:8091:8090"] {
        let refused = why(publish(&mut world, "db", &[taken]));
        assert!(refused.contains("leads to web already: `rnet unpublish 8091:8090 web` first"), "{refused}");
        assert!(why(world.ask(0, with("new", "10.2.1.3/24", &[taken]))).contains("leads to web already"));
    }
    assert!(why(publish(&mut world, "web", &["80:5"])).contains("192.0.2.1:80/tcp"));
    assert!(why(publish(&mut world, "web", &["77:5", "192.0.2.1:77:6"])).contains("leads to web already"));
    assert!(why(publish(&mut world, "web", &["6783:5"])).contains("the mesh's own"));
    assert!(why(publish(&mut world, "nobody", &["1:5"])).contains("nobody is not attached here"));
    assert!(why(world.ask(0, with("new", "10.2.9.3/24", &["9:9"]))).contains("rnet expose"));
    assert_eq!(world.status(0).attachments.len(), 3);
}

#[test]
fn a_filter_that_cannot_be_set_refuses_and_changes_nothing() {
    let mut world = World::of(1);
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::Filter(edge) if *edge != Edge::default()));
    assert_eq!(why(expose(&mut world, &["10.2.1.254/24"], true)), "no permission");
    assert!(world.status(0).attachments.is_empty() && world.hosts[0].plane.fib().networks.is_empty());
    world.hosts[0].fails = Box::new(|_| false);
    ok(expose(&mut world, &["10.2.1.254/24"], true));
    ok(world.attach(0, "web", &["10.2.1.1/24"]));
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::Filter(edge) if !edge.publications.is_empty()));
    assert_eq!(why(publish(&mut world, "web", &["8091:8090"])), "no permission");
    assert_eq!(leads(&world), [], "what was before is set again");
    assert!(world.status(0).attachments.iter().all(|attachment| attachment.published.is_empty()));
    let with = Attach { publish: ports(&["8091:8090"]), ..attach("db", &["10.2.1.2/24"]) };
    assert_eq!(why(world.ask(0, Command::Attach(with))), "no permission");
    assert_eq!(world.status(0).attachments.len(), 2);
}

#[test]
fn everything_comes_back_after_a_restart_and_is_taken_off_at_the_end() {
    let mut world = World::of(1);
    ok(expose(&mut world, &["10.2.1.254/24"], false));
    let web = Attach { gateway: true, publish: ports(&["8091:8090"]), ..attach("a-web", &["10.2.1.1/24"]) };
    ok(world.ask(0, Command::Attach(web)));
    let (before, edge) = (world.status(0).attachments, filters(&world).pop());
    let state: State = serde_json::from_str(&serde_json::to_string(&world.hosts[0].saved).unwrap()).unwrap();
    world.replace(0, NodeConfig { state, seed: [77; 32], uid: Uid(77), ..config(1) }, true);
    world.seconds(1);
    assert_eq!(world.status(0).attachments, before);
    assert_eq!(filters(&world).pop(), edge);
    assert_eq!(world.ask(0, Command::Stop), Reply::Done);
    assert_eq!(filters(&world).pop(), Some(Edge::default()));
    assert_eq!(world.hosts[0].saved.as_ref().unwrap().attachments, before);
}

#[test]
fn attachments_come_back_though_the_filter_does_not() {
    let mut world = World::of(1);
    ok(expose(&mut world, &["10.2.1.254/24"], true));
    ok(world.attach(0, "web", &["10.2.1.1/24"]));
    ok(publish(&mut world, "web", &["8091:8090"]));
    let state = world.hosts[0].saved.clone().unwrap();
    world.replace(0, NodeConfig { state, seed: [77; 32], uid: Uid(77), ..config(1) }, true);
    world.hosts[0].fails = Box::new(|op| matches!(op, HostOp::Filter(_)));
    world.seconds(1);
    assert_eq!(world.status(0).attachments.len(), 2);
    assert!(world.logged(0, "the packet filter could not be set: no permission") >= 1);
}
