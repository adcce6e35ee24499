//! `attach` and `detach`: namespaces that somebody else made.

use crate::room::{Host, Room, SOON};
use crate::wait::until;

crate::facts![
    named_namespace_is_attached_and_detached_idempotently,
    namespace_of_a_process_is_attached_and_detached_idempotently,
    detach_of_one_address_keeps_the_others,
    attachment_of_a_process_ends_with_it,
    missing_targets_are_refused,
    attachment_survives_a_restart_of_the_router,
    own_namespace_of_the_host_is_refused,
];

fn mesh_of_two() -> (Room, [Host; 2]) {
    let room = Room::new();
    let hosts = room.chain(["a", "b"]);
    hosts[0].launch(&[]);
    hosts[1].launch(&[&hosts[0].toward(&hosts[1])]);
    (room, hosts)
}

fn named_namespace_is_attached_and_detached_idempotently() {
    let (_room, [a, b]) = mesh_of_two();
    let other = b.container(&["10.2.1.2/24"]);
    a.sh("ip netns add web && ip -n web link set lo up");
    let before = a.sh("ip -n web -o link show | wc -l");
    let attach = ["attach", "10.2.1.1/24", "netns:web"];
    assert_eq!(a.rnet(&attach).ok().trim(), "10.2.1.1");
    other.reaches("10.2.1.1");
    let interfaces = a.interfaces();
    let stream = other.stream("10.2.1.1");
    assert_eq!(a.rnet(&attach).ok().trim(), "10.2.1.1");
    assert_eq!(a.interfaces(), interfaces);
    stream.unharmed();
    // Another address is another interface beside the first.
    a.rnet(&["attach", "10.2.2.1/24", "netns:web"]).ok();
    assert!(a.sh("ip -n web -o -4 address show").contains("10.2.2.1/24"));
    other.reaches("10.2.1.1");

    assert_eq!(a.rnet(&["detach", "netns:web"]).ok().split_whitespace().count(), 2);
    a.rnet(&["detach", "netns:web"]).ok();
    assert_eq!(a.sh("ip -n web -o link show | wc -l"), before);
    assert_eq!(a.interfaces(), Vec::<String>::new());
    other.never_reaches("10.2.1.1");
    a.rnet(&["attach", "10.2.1.1/24", "netns:/run/netns/web"]).ok();
    other.reaches("10.2.1.1");
}

fn namespace_of_a_process_is_attached_and_detached_idempotently() {
    let (_room, [a, b]) = mesh_of_two();
    let other = b.container(&["10.2.1.2/24"]);
    let process = a.start(&["unshare", "--net", "sleep", "600"]);
    until(SOON, "it has its namespace", || {
        a.sh("readlink /proc/self/ns/net") != a.sh(&format!("readlink /proc/{}/ns/net", process.pid))
    });
    let target = format!("pid:{}", process.pid);
    for _ in 0..2 {
        assert_eq!(a.rnet(&["attach", "10.2.1.1/24", &target]).ok().trim(), "10.2.1.1");
    }
    other.reaches("10.2.1.1");
    for _ in 0..2 {
        a.rnet(&["detach", &target]).ok();
    }
    assert_eq!(a.interfaces(), Vec::<String>::new());
}

fn detach_of_one_address_keeps_the_others() {
    let (_room, [a, b]) = mesh_of_two();
    let (one, two) = (b.container(&["10.2.1.2/24"]), b.container(&["10.2.2.2/24"]));
    a.sh("ip netns add web");
    a.rnet(&["attach", "10.2.1.1/24", "10.2.2.1/24", "netns:web"]).ok();
    one.reaches("10.2.1.1");
    two.reaches("10.2.2.1");
    assert_eq!(a.rnet(&["detach", "10.2.1.1/24", "netns:web"]).ok().trim(), "10.2.1.1");
    one.never_reaches("10.2.1.1");
    assert!(two.pings("10.2.2.1"));
}

fn attachment_of_a_process_ends_with_it() {
    let (_room, [a, _b]) = mesh_of_two();
    let process = a.start(&["unshare", "--net", "sleep", "600"]);
    until(SOON, "it has its namespace", || {
        a.sh("readlink /proc/self/ns/net") != a.sh(&format!("readlink /proc/{}/ns/net", process.pid))
    });
    a.rnet(&["attach", "10.2.1.1/24", &format!("pid:{}", process.pid)]).ok();
    assert_eq!(a.status().attachments.len(), 1);
    drop(process);
    until(SOON, "nothing is left", || a.status().attachments.is_empty() && a.interfaces().is_empty());
}

fn missing_targets_are_refused() {
    let (_room, [a, _b]) = mesh_of_two();
    a.rnet(&["attach", "10.2.1.1/24", "pid:4194000"]).refused(1, &["4194000"]);
    a.rnet(&["attach", "10.2.1.1/24", "netns:nowhere"]).refused(1, &["nowhere"]);
    a.rnet(&["attach", "10.2.1.1/24", "netns:/etc/passwd"]).refused(1, &["/etc/passwd"]);
    a.rnet(&["attach", "10.2.1.1/24", "no-such-container"]).refused(1, &["no-such-container"]);
    assert_eq!(a.interfaces(), Vec::<String>::new());
    assert!(a.status().attachments.is_empty());
}

fn attachment_survives_a_restart_of_the_router() {
    let (room, [a, b]) = mesh_of_two();
    let other = b.container(&["10.2.1.2/24"]);
    a.sh("ip netns add web");
    a.rnet(&["attach", "10.2.1.1/24", "netns:web"]).ok();
    other.reaches("10.2.1.1");
    a.murder();
    a.launch_with(&["--password-file", &room.path("pw"), "--resume"], &[]).ok();
    other.reaches("10.2.1.1");
    assert_eq!(a.status().attachments.len(), 1);
}

fn own_namespace_of_the_host_is_refused() {
    let (_room, [a, _b]) = mesh_of_two();
    let router = a.router_pid();
    a.rnet(&["attach", "10.2.1.1/24", &format!("pid:{router}")]).refused(1, &["host"]);
    assert_eq!(a.interfaces(), Vec::<String>::new());
}
