//! Lines that lose a few datagrams: traffic leaves them while another way is better.

use crate::room::{Host, Room, SOON};
use crate::wait::until;
use std::time::Duration;

crate::facts![traffic_leaves_a_path_that_loses_5_percent_within_10_s_and_then_loses_nothing];

/// By whom `host` reaches the host of this name.
fn via(host: &Host, name: &str) -> String {
    let peers = host.status().peers;
    let via = peers.iter().find(|peer| peer.nickname.as_str() == name).and_then(|peer| peer.via);
    peers.iter().find(|peer| Some(peer.name) == via).map(|peer| peer.nickname.to_string()).unwrap_or_default()
}

fn traffic_leaves_a_path_that_loses_5_percent_within_10_s_and_then_loses_nothing() {
    let room = Room::new();
    let [a, b, c] = room.chain(["a", "b", "c"]);
    room.join(&c, &a);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    c.launch(&[&b.toward(&c), &a.toward(&c)]);
    [&a, &b, &c].iter().for_each(|host| host.linked(2));
    let (one, _other) = (a.container(&["10.2.1.1/24"]), c.container(&["10.2.1.3/24"]));
    one.reaches("10.2.1.3");
    until(SOON, "the line between the two is in use", || via(&a, "c") == "c" && via(&c, "a") == "a");

    let _pings = one.start(&["ping", "-i0.1", "-q", "10.2.1.3"]);
    for (host, line) in [(&a, "to-c"), (&c, "to-a")] {
        let rule = format!("iifname {line} meta l4proto udp numgen random mod 100 < 5 drop");
        host.sh(&format!("nft add table inet weather && nft 'add chain inet weather in {{ type filter hook input priority 0; }}' && nft 'add rule inet weather in {rule}'"));
    }
    let left = until(Duration::from_secs(10), "the lossy line is left", || via(&a, "c") == "b" && via(&c, "a") == "b");
    let took = one.run(&["ping", "-c100", "-i0.05", "-W1", "10.2.1.3"]).ok();
    assert!(took.contains(" 0% packet loss"), "{took}");
    eprintln!("a line that loses 5 % was left after {left:?}");
    let said = a.rnet(&["status", "peers"]).ok();
    assert!(
        said.lines().any(|line| line.contains("(c) - by way of ") && line.contains("directly it would be")),
        "{said}"
    );
    let log = std::fs::read_to_string(a.data_dir().join("rnet.log")).unwrap();
    assert!(log.contains("loses more than") && log.contains("is reached by way of"), "{log}");

    [&a, &c].iter().for_each(|host| drop(host.sh("nft delete table inet weather")));
    let back =
        until(Duration::from_secs(90), "the line is in use again", || via(&a, "c") == "c" && via(&c, "a") == "a");
    assert!(back > Duration::from_secs(20), "too soon to be sure: {back:?}");
    assert!(one.pings("10.2.1.3"));
}
