//! Devices that change or go under traffic.

use crate::integrity::{Bytes, FLOW, serving, told};
use crate::room::{Container, Host, Process, Room, SOON};
use crate::wait::until;
use std::process::Stdio;
use std::time::Duration;

crate::facts![
    stream_survives_a_line_that_becomes_narrow_and_wide_again,
    stream_survives_a_line_that_becomes_narrow_beyond_a_router,
];

/// Bytes that came to an interface of a container.
fn received(container: &Container) -> u64 {
    let text = container.sh("grep rnet0 /proc/net/dev");
    text.split_whitespace().nth(1).and_then(|bytes| bytes.parse().ok()).expect("a counter of bytes")
}

/// Waits until much more has come.
#[track_caller]
fn flows_on(container: &Container, what: &str) -> Duration {
    let before = received(container);
    until(2 * SOON, what, || received(container) > before + 2_000_000)
}

fn path_mtu(host: &Host) -> u16 {
    host.status().connections.first().and_then(|connection| connection.path.as_ref()).map_or(0, |path| path.mtu)
}

fn drops(host: &Host, reason: &str) -> u64 {
    host.status().drops.iter().find(|(why, _)| why == reason).map_or(0, |(_, count)| *count)
}

/// A stream of random bytes from one container to another, with all that it takes to tell whether it arrived as it was sent.
struct Flow {
    client: Process,
    server: Process,
}

impl Flow {
    fn new(from: &Container, to: &Container, address: &str) -> Flow {
        let server = serving(to, &["tcp-serve", address, "7000", "1000"]);
        let client = from.start_with(&[&FLOW[..], &["tcp-join-until-told", address, "7000"]].concat(), Stdio::piped());
        Flow { client, server }
    }

    fn ends_well(mut self) {
        self.client.close_input();
        let (client, server): (Bytes, Bytes) = (told(self.client.finish(3 * SOON)), told(self.server.finish(SOON)));
        assert_eq!((client.sent, client.received), (server.received, server.sent), "other bytes arrived");
    }
}

fn stream_survives_a_line_that_becomes_narrow_and_wide_again() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    b.linked(1);
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    let flow = Flow::new(&one, &two, "10.2.1.2");
    flows_on(&two, "the stream flows");
    until(SOON, "the width of the path is known", || path_mtu(&a) == 1472 && path_mtu(&b) == 1472);
    let wide = |mtu: u16| {
        b.sh(&format!("ip link set to-a mtu {mtu}"));
        a.sh(&format!("ip link set to-b mtu {mtu}"));
    };
    wide(1300);
    let took = flows_on(&two, "the stream flows on over the narrow line");
    assert!(drops(&a, "send-too-big") > 0, "what was too big is counted: {:?}", a.status().drops);
    until(SOON, "the width of the path is known", || path_mtu(&a) == 1272 && path_mtu(&b) == 1272);
    eprintln!("stream over a line that became narrow: goes on after {took:?}");
    flows_on(&two, "the stream still flows");
    wide(1500);
    flows_on(&two, "the stream flows on over the wide line");
    until(SOON, "the path is as wide as the line again", || path_mtu(&a) == 1472 && path_mtu(&b) == 1472);
    flows_on(&two, "the stream still flows");
    flow.ends_well();
}

fn stream_survives_a_line_that_becomes_narrow_beyond_a_router() {
    let room = Room::new();
    let [a, router, b] = room.chain(["a", "router", "b"]);
    router.sh("echo 1 >/proc/sys/net/ipv4/ip_forward");
    a.sh(&format!("ip route add {} via {}", b.toward(&router), router.toward(&a)));
    b.sh(&format!("ip route add {} via {}", a.toward(&router), router.toward(&b)));
    a.launch(&[]);
    b.launch(&[&a.toward(&router)]);
    b.linked(1);
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    let flow = Flow::new(&one, &two, "10.2.1.2");
    flows_on(&two, "the stream flows");
    until(SOON, "the width of the path is known", || path_mtu(&a) == 1472 && path_mtu(&b) == 1472);
    // Nothing changes at a, and what the router has to say no one need believe.
    router.sh("ip link set to-b mtu 1300");
    b.sh("ip link set to-router mtu 1300");
    let took = flows_on(&two, "the stream flows on through the narrow line");
    eprintln!("stream through a line that became narrow in silence: goes on after {took:?}");
    assert!(took < SOON, "{took:?}");
    flow.ends_well();
}
