//! What stays on the machine: nothing, however things end.

use crate::room::{Host, Room, SOON};
use crate::wait::until;

crate::facts![
    stop_removes_every_interface_and_ends_nobody,
    reset_removes_files_too,
    killed_router_is_swept_at_the_next_launch,
    container_lives_on_through_a_killed_router,
    last_attachment_takes_bridge_and_port_along,
    other_peoples_interfaces_are_left_alone,
];

fn one_host() -> (Room, Host) {
    let room = Room::new();
    let a = room.host("a");
    a.launch(&[]);
    (room, a)
}

fn stop_removes_every_interface_and_ends_nobody() {
    let (_room, a) = one_host();
    a.sh("ip netns add web");
    a.rnet(&["attach", "10.2.1.5/24", "netns:web"]).ok();
    let mut container = a.container(&["10.2.1.1/24", "fd00:2::1/64"]);
    assert!(a.interfaces().len() >= 4, "{:?}", a.interfaces());
    a.rnet(&["stop"]).ok();
    a.is_clean();
    assert_eq!(a.sh("ip -n web -o link show | grep -c rnet || true").trim(), "0");
    assert!(container.process.finished().is_none(), "stop ended the container");
    a.rnet(&["stop"]).refused(1, &["not running"]);
}

fn reset_removes_files_too() {
    let (_room, a) = one_host();
    let _container = a.container(&["10.2.1.1/24"]);
    a.rnet(&["reset", "--force"]).ok();
    a.is_clean();
    let left = a.sh(&format!("find {} {} -type f 2>/dev/null || true", a.run_dir().display(), a.data_dir().display()));
    assert_eq!(left.trim(), "");
}

fn killed_router_is_swept_at_the_next_launch() {
    let (_room, a) = one_host();
    let container = a.container(&["10.2.1.1/24"]);
    a.murder();
    assert!(!a.interfaces().is_empty(), "so there is something to sweep");
    drop(container);
    a.launch(&[]);
    until(SOON, "nothing is left", || a.interfaces().is_empty() && a.status().attachments.is_empty());
    a.rnet(&["run", "--cidr", "10.2.1.1/24", "--", "true"]).ok();
}

fn container_lives_on_through_a_killed_router() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    let (mut one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    two.reaches("10.2.1.1");
    a.murder();
    a.launch(&[]);
    two.reaches("10.2.1.1");
    assert!(one.process.finished().is_none());
    let mounts = a.sh("cat /proc/mounts");
    drop(one);
    until(SOON, "nothing is left", || a.interfaces().is_empty());
    assert_eq!(a.sh("cat /proc/mounts"), mounts);
}

fn last_attachment_takes_bridge_and_port_along() {
    let (_room, a) = one_host();
    let (one, two) = (a.container(&["10.2.1.1/24"]), a.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    drop(one);
    until(SOON, "one is off", || a.status().attachments.len() == 1);
    assert!(a.interfaces().iter().any(|name| name.starts_with("rnb")), "the bridge stays for the other");
    drop(two);
    until(SOON, "nothing is left", || a.interfaces().is_empty());
}

fn other_peoples_interfaces_are_left_alone() {
    let room = Room::new();
    let a = room.host("a");
    // Names that begin as ours do, and one that only looks like ours.
    a.sh("ip link add rnd0 type bridge; ip link add rnbx type bridge; ip link add rnb type bridge; ip link add rnet9 type veth peer name other");
    let before = a.interfaces();
    a.launch(&[]);
    drop(a.container(&["10.2.1.1/24"]));
    a.murder();
    a.launch(&[]);
    a.rnet(&["reset", "--force"]).ok();
    assert_eq!(a.interfaces(), before);
}
