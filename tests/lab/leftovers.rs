//! What stays on the machine: nothing, however things end.

use crate::room::{Host, Room, SOON};
use crate::wait::until;

crate::facts![
    stop_removes_every_interface_and_ends_nobody,
    reset_removes_files_too,
    killed_router_is_swept_at_the_next_launch,
    container_lives_on_through_a_killed_router,
    what_is_right_is_taken_over_after_a_kill_and_nothing_is_unplugged,
    what_is_no_more_right_after_a_kill_is_plugged_again,
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

/// Number and name of each interface, but for the capture port, which goes with the router.
fn numbers(a: &Host) -> Vec<String> {
    let text = a.sh("ip -o link show | sed -n 's/^\\([0-9]*: rn[^t][^:]*\\):.*/\\1/p'");
    text.lines().map(str::to_string).collect()
}

fn what_is_right_is_taken_over_after_a_kill_and_nothing_is_unplugged() {
    let (_room, a) = one_host();
    let (one, two) = (a.container(&["10.2.1.1/24", "fd00:2::1/64"]), a.container(&["10.2.1.2/24", "fd00:2::2/64"]));
    a.rnet(&["expose", "10.2.1.254/24"]).ok();
    a.sh("ip netns add web");
    a.rnet(&["attach", "10.2.1.5/24", "netns:web"]).ok();
    // Nothing of it is ours by what it says.
    a.sh("ip link add rnv0badcafe type veth peer name rnleft && ip link add rnb0000aa type bridge");
    let (stream, six, host) = (one.stream("10.2.1.2"), one.stream("fd00:2::2"), one.stream("10.2.1.254"));
    let before = numbers(&a);
    assert_eq!(before.len(), 2 + 4 + 1 + 1 + 1 + 1, "{before:?}");
    a.murder();
    until(SOON, "the capture ports are gone", || a.interfaces().iter().all(|name| !name.starts_with("rnt")));
    a.launch(&[]);
    until(SOON, "all is back", || a.status().attachments.len() == 4);
    let is_left = |line: &String| !line.contains("0badcafe") && !line.contains("0000aa");
    let right: Vec<String> = before.into_iter().filter(is_left).collect();
    until(SOON, "what is not right is gone, and nothing else", || numbers(&a) == right);
    two.reaches("10.2.1.5");
    two.reaches("10.2.1.254");
    [stream, six, host].into_iter().for_each(crate::room::Stream::unharmed);
    // Forged frames still reach nobody.
    assert_ne!(one.run(&["ping", "-nq", "-c1", "-W0.5", "-I", "10.2.1.2", "10.2.1.5"]).code, 0);
    drop((one, two));
    a.rnet(&["detach", "netns:web"]).ok();
    a.rnet(&["hide"]).ok();
    until(SOON, "nothing is left", || a.interfaces().is_empty());
    a.rnet(&["stop"]).ok();
    a.is_clean();
    assert_eq!(a.sh("nft list tables").trim(), "");
}

fn what_is_no_more_right_after_a_kill_is_plugged_again() {
    let (_room, a) = one_host();
    let (one, two) = (a.container(&["10.2.1.1/24"]), a.container(&["10.2.1.2/24"]));
    let (was, mac) = (a.interfaces(), one.mac("rnet0"));
    a.murder();
    // Somebody gave it another MAC, and another address to the host.
    one.sh("ip link set rnet0 address 02:00:00:00:00:99");
    a.sh("ip address add 10.2.1.77/24 dev $(ip -o link show type bridge | sed -n 's/.*\\(rnb[0-9a-f]*\\):.*/\\1/p')");
    a.launch(&[]);
    two.reaches("10.2.1.1");
    assert_eq!(one.mac("rnet0"), mac);
    assert_eq!(a.interfaces().len(), was.len());
    assert_eq!(a.sh("ip -o address show to 10.2.1.77").trim(), "");
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
