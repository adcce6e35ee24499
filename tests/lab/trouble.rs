//! Devices that change or go under traffic.

use crate::integrity::{Bytes, FLOW, serving, told};
use crate::room::{Container, Host, Process, Room, SOON};
use crate::wait::until;
use std::process::Stdio;
use std::time::Duration;

crate::facts![
    stream_survives_a_line_that_becomes_narrow_and_wide_again,
    stream_survives_a_line_that_becomes_narrow_beyond_a_router,
    tap_that_somebody_deletes_is_made_again if TAP,
    packet_device_that_somebody_deletes_is_made_again,
    pcap_device_that_somebody_deletes_is_made_again,
    tap_that_goes_down_and_up_works_on if TAP,
    pcap_devices_that_go_down_and_up_work_on,
    what_a_router_that_stands_still_misses_is_counted,
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

/// a with these options, and b; in each a container on two networks.
fn two_networks<'h>(room: &Room, [a, b]: &'h [Host; 2], options: &[&str]) -> [Container<'h>; 2] {
    a.launch_with(&[&["--password-file", &room.path("pw")], options].concat(), &[]).ok();
    b.launch(&[&a.toward(b)]);
    b.linked(1);
    let (one, two) = (a.container(&["10.2.1.1/24", "10.2.2.1/24"]), b.container(&["10.2.1.2/24", "10.2.2.2/24"]));
    one.reaches("10.2.1.2");
    one.reaches("10.2.2.2");
    [one, two]
}

/// The device that a network is captured on.
fn capture_device(network: &str, prefix: &str) -> String {
    let network = network.parse::<rnet::types::Network>().unwrap();
    format!("{prefix}{:06x}", network.id().value())
}

/// Lines of the log that say that something is not as it should be.
fn complaints(host: &Host) -> Vec<String> {
    let log = std::fs::read_to_string(host.data_dir().join("rnet.log")).unwrap();
    log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).map(str::to_string).collect()
}

fn deleted_device_is_made_again(options: &[&str], prefix: &str) {
    let room = Room::new();
    let hosts = room.chain(["a", "b"]);
    let [a, _] = &hosts;
    let [one, two] = two_networks(&room, &hosts, options);
    let neighbour = a.container(&["10.2.1.3/24"]);
    let (other, flow) = (one.stream("10.2.2.2"), Flow::new(&one, &two, "10.2.1.2"));
    flows_on(&two, "the stream flows");
    let device = capture_device("10.2.1.0/24", prefix);
    let before = complaints(a).len();
    for deleted in 1..=3 {
        a.sh(&format!("ip link del {device}"));
        flows_on(&two, "the stream flows on through the device that was made again");
        assert!(a.interfaces().contains(&device));
        let told = &complaints(a)[before..];
        assert_eq!(told.len(), deleted, "{told:?}");
        assert!(told.iter().all(|line| line.contains("10.2.1.0/24") && line.contains("deleted")), "{told:?}");
    }
    flow.ends_well();
    other.unharmed();
    assert!(neighbour.pings("10.2.1.1") && neighbour.pings("10.2.1.2"));
    // What the kernel's guard does not let pass is read in full behind the new device.
    let forged = drops(a, "guard-mac");
    let frame = "ffffffffffff0200000000770800".to_string() + &"00".repeat(46);
    neighbour.run(&["python3", "-c", include_str!("wire.py"), "send", "rnet0", "5", &frame]).ok();
    until(SOON, "what is forged is counted", || drops(a, "guard-mac") >= forged + 5);
    drop((one, neighbour));
    a.rnet(&["stop"]).ok();
    a.is_clean();
}

fn tap_that_somebody_deletes_is_made_again() {
    for threads in ["1", "2"] {
        deleted_device_is_made_again(&["--threads", threads], "rnt");
    }
}

fn packet_device_that_somebody_deletes_is_made_again() {
    deleted_device_is_made_again(&["--capture", "packet"], "rnp");
}

fn pcap_device_that_somebody_deletes_is_made_again() {
    deleted_device_is_made_again(&["--capture", "pcap"], "rnp");
}

fn device_goes_down_and_up(options: &[&str], prefixes: &[&str]) {
    let room = Room::new();
    let hosts = room.chain(["a", "b"]);
    let [a, _] = &hosts;
    let [one, two] = two_networks(&room, &hosts, options);
    let (other, flow) = (one.stream("10.2.2.2"), Flow::new(&one, &two, "10.2.1.2"));
    for prefix in prefixes {
        flows_on(&two, "the stream flows");
        let device = capture_device("10.2.1.0/24", prefix);
        a.sh(&format!("ip link set {device} down"));
        one.never_reaches("10.2.1.2");
        if *prefix != "rnq" {
            // The other end of what is captured takes all, and nobody hears where it goes.
            until(SOON, "what the device does not take is counted", || {
                two.run(&["ping", "-n", "-c1", "-W1", "10.2.1.1"]);
                drops(a, "bridge-full") > 0
            });
        }
        a.sh(&format!("ip link set {device} up"));
        flows_on(&two, "the stream flows on");
    }
    flow.ends_well();
    other.unharmed();
}

fn tap_that_goes_down_and_up_works_on() {
    device_goes_down_and_up(&[], &["rnt"]);
}

fn pcap_devices_that_go_down_and_up_work_on() {
    device_goes_down_and_up(&["--capture", "pcap"], &["rnp", "rnq"]);
}

fn what_a_router_that_stands_still_misses_is_counted() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    b.linked(1);
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    let told = |reason: &str| {
        let report: serde_json::Value = serde_json::from_str(&b.rnet(&["report"]).ok()).unwrap();
        let drops: Vec<(String, u64)> = serde_json::from_value(report["drops"].clone()).unwrap();
        drops.into_iter().find(|(why, _)| why == reason).map_or(0, |(_, count)| count)
    };
    assert_eq!(["net-queue", "bridge-queue"].map(told), [0, 0]);
    let pid = b.router_pid();
    b.sh(&format!("kill -STOP {pid}"));
    // More than the queues hold: garbage for its port, and broadcasts on its bridge.
    let flood = a.start(&[&FLOW[..], &["flood", &b.toward(&a), "6783", "1", "0"]].concat());
    let broadcast = two.start(&[&FLOW[..], &["broadcast", "rnet0", "1", "60"]].concat());
    let sent = [flood, broadcast].map(|process| process.finish(SOON).ok());
    b.sh(&format!("kill -CONT {pid}"));
    until(SOON, "what was missed is told", || ["net-queue", "bridge-queue"].map(told).iter().all(|count| *count > 0));
    eprintln!("{sent:?}: {:?}", b.status().drops);
    one.reaches("10.2.1.2");
}
