//! Peers that cannot or must not come together: each side says why, in one line, and nobody else is disturbed.

use crate::room::{Host, Room, SOON};
use crate::wait::{throughout, until};
use rnet::node::status::ConnectionState;
use std::time::Duration;

crate::facts![
    wrong_password_is_told_on_both_sides_and_harms_nobody,
    password_on_one_side_only_is_told_on_both_sides,
    own_address_as_a_peer_is_told,
    unreachable_and_unresolvable_peers_are_told_and_do_not_stop_the_launch,
    peer_that_is_not_on_the_allow_list_is_refused,
    peer_that_is_another_program_is_told,
    corrected_password_joins,
    two_dials_at_the_same_time_leave_one_link,
    cloned_identity_is_refused,
];

/// Two hosts with a mesh and traffic, and a third beside b that has nothing yet.
fn mesh_of_two() -> (Room, [Host; 3]) {
    let room = Room::new();
    let hosts = room.chain(["a", "b", "c"]);
    let [a, b, _] = &hosts;
    a.launch(&[]);
    b.launch(&[&a.toward(b)]);
    b.linked(1);
    (room, hosts)
}

/// Panics if the two ever hold an established connection during a while.
fn stays_out(host: &Host) {
    throughout(Duration::from_secs(1), &format!("{} stays out", host.name), || {
        host.status().connections.iter().all(|c| c.state != ConnectionState::Established)
    });
}

fn wrong_password_is_told_on_both_sides_and_harms_nobody() {
    let (room, [a, b, c]) = mesh_of_two();
    let (one, _other) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    let stream = one.stream("10.2.1.2");
    c.launch_with(&["--password-file", &room.path("other-pw")], &[&b.toward(&c)]).ok();
    let told = c.told(&["wrong password"]);
    assert!(told.retry_in.is_some() || told.state == ConnectionState::Connecting, "{told:?}");
    b.told(&["wrong password"]);
    stays_out(&c);
    let lines = c.rnet(&["status", "connections"]).ok();
    assert!(lines.contains("wrong password"), "{lines}");
    stream.unharmed();
}

fn password_on_one_side_only_is_told_on_both_sides() {
    let (_room, [_a, b, c]) = mesh_of_two();
    c.launch_with(&[], &[&b.toward(&c)]).ok();
    c.told(&["password"]);
    b.told(&["no password"]);
    stays_out(&c);
}

fn own_address_as_a_peer_is_told() {
    let (room, [a, b, _c]) = mesh_of_two();
    let room_password = room.path("pw");
    a.rnet(&["stop"]).ok();
    a.launch_with(&["--password-file", &room_password], &["127.0.0.1", &a.toward(&b)]).ok();
    let told = a.told(&["ourselves"]);
    assert_ne!(told.state, ConnectionState::Established);
    assert!(a.status().peers.iter().all(|p| p.name != a.status().name || p.links.iter().all(|l| l.name != p.name)));
    b.linked(1);
}

fn unreachable_and_unresolvable_peers_are_told_and_do_not_stop_the_launch() {
    let (room, [_a, b, c]) = mesh_of_two();
    c.sh("ip route add unreachable 192.0.2.0/24");
    let nobody = format!("{}:6799", b.toward(&c));
    let peers = ["192.0.2.1", "no-such-host.invalid", &nobody, &b.toward(&c)];
    c.launch_with(&["--password-file", &room.path("pw")], &peers).ok();
    c.linked(1);
    for peer in &peers[..3] {
        until(SOON, &format!("{peer} has a reason"), || {
            let connections = c.status().connections;
            connections
                .iter()
                .any(|x| x.address.contains(peer) && !x.info.is_empty() && x.state != ConnectionState::Established)
        });
    }
    let lines = c.rnet(&["status", "connections"]).ok();
    assert!(peers.iter().all(|peer| lines.contains(peer)), "{lines}");
}

fn peer_that_is_not_on_the_allow_list_is_refused() {
    let room = Room::new();
    let [a, b, c] = room.chain(["a", "b", "c"]);
    a.launch(&[]);
    let key = a.status().public_key.to_string();
    b.launch_with(&["--password-file", &room.path("pw"), "--allow", &key], &[&a.toward(&b)]).ok();
    b.linked(1);
    c.launch(&[&b.toward(&c)]);
    c.told(&["allow"]);
    b.told(&["allow"]);
    stays_out(&c);
}

fn peer_that_is_another_program_is_told() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    let _mail = b.start(&["python3", "-u", "-c", include_str!("wire.py"), "banner", "6783"]);
    a.launch(&[&b.toward(&a)]);
    a.told(&["rnet"]);
}

fn corrected_password_joins() {
    let (room, [a, b, c]) = mesh_of_two();
    c.launch_with(&["--password-file", &room.path("other-pw")], &[&b.toward(&c)]).ok();
    c.told(&["wrong password"]);
    c.rnet(&["stop"]).ok();
    c.launch(&[&b.toward(&c)]);
    c.linked(1);
    let (one, _other) = (a.container(&["10.2.1.1/24"]), c.container(&["10.2.1.3/24"]));
    one.reaches("10.2.1.3");
}

fn two_dials_at_the_same_time_leave_one_link() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[&b.toward(&a)]);
    b.launch(&[&a.toward(&b)]);
    a.linked(1);
    b.linked(1);
    let links = |host: &Host| host.status().connections.iter().filter(|c| c.peer.is_some()).count();
    until(SOON, "one link is left", || links(&a) == 1 && links(&b) == 1);
}

fn cloned_identity_is_refused() {
    let (_room, [a, b, c]) = mesh_of_two();
    let (one, _other) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    let stream = one.stream("10.2.1.2");
    c.sh(&format!("cp -a {} {}", a.data_dir().display(), c.data_dir().display()));
    c.launch(&[&b.toward(&c)]);
    c.told(&["key"]);
    stream.unharmed();
}
