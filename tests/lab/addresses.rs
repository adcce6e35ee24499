//! Addresses that cannot be had: refused before anything is done, with the reason.

use crate::room::{RNET, Room, SOON};
use crate::wait::until;

crate::facts![
    address_in_use_here_is_refused_naming_the_holder,
    address_in_use_elsewhere_is_refused_naming_the_peer,
    address_is_free_again_after_its_holder_ended,
    texts_that_are_no_address_are_refused,
    network_and_broadcast_addresses_are_refused,
];

fn address_in_use_here_is_refused_naming_the_holder() {
    let room = Room::new();
    let a = room.host("a");
    a.launch(&[]);
    let holder = a.container_running(&["10.2.1.1/24"], &["--name", "web"], "exec sleep 600");
    let before = a.interfaces();
    a.rnet(&["run", "--cidr", "10.2.1.1/24", "--", "true"]).refused(1, &["10.2.1.1", "web"]);
    // All or nothing: the good one of two is not kept.
    a.rnet(&["run", "--cidr", "10.2.3.1/24", "--cidr", "10.2.1.1/24", "--", "true"]).refused(1, &["10.2.1.1"]);
    assert_eq!(a.interfaces(), before);
    assert_eq!(a.status().attachments.len(), 1);
    drop(holder);
}

fn address_in_use_elsewhere_is_refused_naming_the_peer() {
    let room = Room::new();
    let [a, b, c] = room.chain(["a", "b", "c"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    c.launch(&[&b.toward(&c)]);
    let (one, two) = (a.container(&["10.2.1.1/24"]), c.container(&["10.2.1.3/24"]));
    two.reaches("10.2.1.1");
    let stream = two.stream("10.2.1.1");
    until(SOON, "c has heard of the claim", || c.rnet(&["run", "--cidr", "10.2.1.1/24", "--", "true"]).code == 1);
    c.rnet(&["run", "--cidr", "10.2.1.1/24", "--", "true"]).refused(1, &["10.2.1.1", "a"]);
    stream.unharmed();
    drop(one);
}

fn address_is_free_again_after_its_holder_ended() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    b.linked(1);
    a.rnet(&["run", "--cidr", "10.2.1.1/24", "--", "true"]).ok();
    a.rnet(&["run", "--cidr", "10.2.1.1/24", "--", "true"]).ok();
    until(SOON, "b may have it", || b.rnet(&["run", "--cidr", "10.2.1.1/24", "--", "true"]).code == 0);
}

fn texts_that_are_no_address_are_refused() {
    let room = Room::new();
    let a = room.host("a");
    a.launch(&[]);
    for text in [
        "10.2.1.1",
        "10.2.1.1/33",
        "10.2.1/24",
        "10.2.1.256/24",
        "fd00::1/129",
        "x",
        "10.2.1.1/24/24",
        "0.0.0.0/0",
        "224.0.0.1/24",
    ] {
        a.rnet(&["run", "--cidr", text, "--", "true"]).refused(2, &[text]);
        a.rnet(&["attach", text, "pid:1"]).refused(2, &[text]);
    }
    a.run(&["env", "RNET_CIDR=10.2.1.1", RNET, "run", "--", "true"]).refused(2, &["10.2.1.1"]);
    assert_eq!(a.interfaces(), Vec::<String>::new());
}

fn network_and_broadcast_addresses_are_refused() {
    let room = Room::new();
    let a = room.host("a");
    a.launch(&[]);
    a.rnet(&["run", "--cidr", "10.2.1.0/24", "--", "true"]).refused(2, &["10.2.1.0/24", "network"]);
    a.rnet(&["run", "--cidr", "10.2.1.255/24", "--", "true"]).refused(2, &["10.2.1.255/24", "broadcast"]);
    a.rnet(&["run", "--cidr", "fd00:1::/64", "--", "true"]).refused(2, &["fd00:1::/64", "network"]);
    assert_eq!(a.interfaces(), Vec::<String>::new());
}
