//! What is sent arrives as it was sent, whatever kernels and routers have left each other to do on the way.
//!
//! Bytes over TCP in writes of all sizes, both ways at once, and datagrams of all sizes, single and by the many (GSO), over
//! IPv4 and IPv6 at the same time; and no kernel on the way has met a wrong checksum.

use crate::room::{Container, Host, Outcome, Process, Room};
use crate::wait::until;
use serde::Deserialize;
use std::time::Duration;

crate::facts![
    all_arrives_whole_where_both_sides_take_super_frames,
    all_arrives_whole_where_only_one_side_takes_super_frames,
    all_arrives_whole_where_one_side_captures_by_pcap,
    all_arrives_whole_where_one_side_captures_by_packet,
    all_arrives_whole_over_a_line_without_offloads_where_both_sides_capture_by_packet_with_two_threads,
    all_arrives_whole_over_a_relay,
    all_arrives_whole_with_two_threads if TAP,
    all_arrives_whole_over_a_line_without_offloads,
    all_arrives_whole_over_a_line_without_offloads_where_only_one_side_takes_super_frames,
    all_arrives_whole_over_a_line_without_offloads_where_one_side_captures_by_pcap,
    all_arrives_whole_over_a_relay_with_lines_without_offloads,
    all_arrives_whole_with_two_threads_over_a_line_without_offloads if TAP,
    bytes_with_unusual_headers_arrive_whole,
];

pub const FLOW: [&str; 4] = ["python3", "-u", "-c", include_str!("flow.py")];

/// For the traffic of one test on a machine that is loaded.
const TRANSFER: Duration = Duration::from_secs(120);
/// Bytes in each direction of each connection.
const BYTES: usize = 32_000_000;

/// How the underlay is.
#[derive(Clone, Copy, PartialEq)]
enum Line {
    /// A veth as the kernel makes it: super-frames of datagrams pass it whole.
    AsItIs,
    /// Every datagram is a packet, and the receiver's kernel joins them.
    WithoutOffloads,
}

/// Everything, between the two ends of hosts in a chain, each with these options.
fn all_arrives_whole<const N: usize>(names: [&str; N], options: [&[&str]; N], line: Line) {
    let room = Room::new();
    let hosts = room.chain(names);
    let password = room.path("pw");
    for (at, (host, options)) in hosts.iter().zip(options).enumerate() {
        if line == Line::WithoutOffloads {
            for other in hosts.iter().filter(|other| host.is_joined(other)) {
                let device = format!("to-{}", other.name);
                host.sh(&format!("ethtool -K {device} tso off gso off tx-udp-segmentation off gro on"));
            }
        }
        let peer = at.checked_sub(1).map(|before| hosts[before].toward(host));
        let peers: Vec<&str> = peer.iter().map(String::as_str).collect();
        host.launch_with(&[&["--password-file", &password], options].concat(), &peers).ok();
    }
    hosts[N - 1].linked(1);
    let one = hosts[0].container(&["10.2.1.1/24", "fd00:21::1/64"]);
    let two = hosts[N - 1].container(&["10.2.1.2/24", "fd00:21::2/64"]);
    let ends = [(&one, ["10.2.1.1", "fd00:21::1"]), (&two, ["10.2.1.2", "fd00:21::2"])];
    for address in ends[1].1 {
        one.reaches(address);
    }
    bytes_arrive(ends, "tcp-join", BYTES);
    // Pieces of a datagram that is fragmented and whole ones may take the queues of two threads.
    let in_order = hosts.iter().all(|host| host.status().datapath.threads == 1);
    datagrams_arrive(ends, in_order);
    let [first, last] = ends;
    datagrams_arrive([last, first], in_order);
    for (name, errors) in [("one", checksum_errors(&one)), ("two", checksum_errors(&two))] {
        assert_eq!(errors, Vec::<String>::new(), "attachment {name} met wrong checksums");
    }
    for host in &hosts {
        nothing_broke_on(host);
    }
}

pub type Ends<'c, 'h> = [(&'c Container<'h>, [&'static str; 2]); 2];

/// What an end of a connection sent and received: digests, and how many.
#[derive(Deserialize)]
pub struct Bytes {
    pub sent: String,
    pub received: String,
    pub bytes: usize,
}

#[derive(Debug, Deserialize)]
struct Sent {
    count: u64,
    lost: u64,
    sizes: u64,
}

#[derive(Debug, Deserialize)]
struct Heard {
    count: u64,
    wrong: u64,
    twice: u64,
    late: u64,
    sizes: u64,
}

/// What a tool told in its last line.
#[track_caller]
pub fn told<T: for<'d> Deserialize<'d>>(outcome: Outcome) -> T {
    let text = outcome.ok();
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {text}"))
}

/// A tool that waits for its client.
#[track_caller]
pub fn serving(container: &Container, arguments: &[&str]) -> Process {
    let server = container.start(&[&FLOW[..], arguments].concat());
    until(TRANSFER, "the server is ready", || server.stdout().contains("ready"));
    server
}

pub fn bytes_arrive(ends: Ends, join: &str, bytes: usize) {
    let [(one, _), (two, addresses)] = ends;
    let total = bytes.to_string();
    let pairs = addresses.map(|address| {
        let server = serving(two, &["tcp-serve", address, "7000", &total]);
        (server, one.start(&[&FLOW[..], &[join, address, "7000", &total]].concat()))
    });
    for (server, client) in pairs {
        let (client, server): (Bytes, Bytes) = (told(client.finish(TRANSFER)), told(server.finish(TRANSFER)));
        assert_eq!((client.bytes, server.bytes), (bytes, bytes));
        assert_eq!((&client.sent, &server.sent), (&server.received, &client.received), "other bytes arrived");
    }
}

pub fn datagrams_arrive(ends: Ends, in_order: bool) {
    let [(one, _), (two, addresses)] = ends;
    // Of at most 1,370 bytes with IPv4 and 1,350 with IPv6 none is fragmented; a little more once the paths are measured.
    let plans = [
        &[
            "1-1370",
            "1371-1420",
            "2790-2800",
            "9000-9003",
            "65500-65507",
            "1370@47",
            "1000@60",
            "1@64",
            "13@64",
            "517@9",
        ][..],
        &[
            "1-1350",
            "1351-1420",
            "2750-2760",
            "9000-9003",
            "65487-65507",
            "1350@47",
            "1000@60",
            "1@64",
            "13@64",
            "517@9",
        ],
    ];
    let mut flows = Vec::new();
    // Both kinds of receivers: whole super-frames, and datagrams that the kernel has to make of them.
    for (joined, port) in [("0", "7001"), ("1", "7002")] {
        for (address, plan) in addresses.into_iter().zip(plans) {
            let server = serving(two, &["udp-serve", address, port, joined]);
            flows.push((server, one.start(&[&FLOW[..], &["udp-send", address, port], plan].concat())));
        }
    }
    for (server, client) in flows {
        let (client, server): (Sent, Heard) = (told(client.finish(TRANSFER)), told(server.finish(TRANSFER)));
        assert_eq!((server.wrong, server.twice), (0, 0), "{client:?} {server:?}");
        assert_eq!(client.count, server.count + client.lost, "{client:?} {server:?}");
        assert!(server.late == 0 || !in_order, "{server:?}");
        // A machine that is loaded may lose some.
        assert!(client.lost * 50 < client.count && server.sizes * 50 > client.sizes * 49, "{client:?} {server:?}");
    }
}

/// Counters of wrong checksums in a network namespace that are not 0.
fn checksum_errors(container: &Container) -> Vec<String> {
    let text = container.sh("cat /proc/net/snmp /proc/net/snmp6");
    let mut found = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    let mut looked_at = 0;
    let mut judge = |group: &str, name: &str, value: &str| {
        if name.ends_with("InCsumErrors") || (group, name) == ("Tcp:", "InErrs") {
            looked_at += 1;
            if value != "0" {
                found.push(format!("{group}{name}={value}"));
            }
        }
    };
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, value] => judge("", name, value),
            [group, values @ ..] if names.first() == Some(group) => {
                names[1..].iter().zip(values).for_each(|(name, value)| judge(group, name, value));
                names.clear();
            }
            _ => names = words,
        }
    }
    assert!(looked_at >= 6, "the kernel counts {looked_at} kinds of wrong checksums: {text}");
    found
}

/// Panics if a router met what should not be.
#[track_caller]
fn nothing_broke_on(host: &Host) {
    let bad = ["malformed", "forged", "replayed", "unknown-epoch", "bad-fragment", "fragment-lost", "impersonated"];
    let bad = [&bad[..], &["sink-full", "send-too-big", "send-failed", "too-big", "plain-on-sealed"]].concat();
    let drops = host.status().drops;
    let met: Vec<_> = drops.iter().filter(|(why, _)| bad.contains(&why.as_str())).collect();
    assert!(met.is_empty(), "{} dropped {met:?}", host.name);
}

fn bytes_with_unusual_headers_arrive_whole() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    b.linked(1);
    let one = a.container(&["10.2.1.1/24", "fd00:21::1/64"]);
    let two = b.container(&["10.2.1.2/24", "fd00:21::2/64"]);
    let ends = [(&one, ["10.2.1.1", "fd00:21::1"]), (&two, ["10.2.1.2", "fd00:21::2"])];
    for address in ends[1].1 {
        one.reaches(address);
    }
    bytes_arrive(ends, "tcp-join-with-options", BYTES / 4);
    [&a, &b].into_iter().for_each(nothing_broke_on);
}

const NONE: &[&str] = &[];
const OFF: &[&str] = &["--offload", "off"];
const PCAP: &[&str] = &["--capture", "pcap"];
const PACKET: &[&str] = &["--capture", "packet"];
const TWO_PACKET: &[&str] = &["--capture", "packet", "--threads", "2"];
const TWO: &[&str] = &["--threads", "2"];

fn all_arrives_whole_where_both_sides_take_super_frames() {
    all_arrives_whole(["a", "b"], [NONE, NONE], Line::AsItIs);
}

fn all_arrives_whole_where_only_one_side_takes_super_frames() {
    all_arrives_whole(["a", "b"], [NONE, OFF], Line::AsItIs);
}

fn all_arrives_whole_where_one_side_captures_by_pcap() {
    all_arrives_whole(["a", "b"], [NONE, PCAP], Line::AsItIs);
}

fn all_arrives_whole_where_one_side_captures_by_packet() {
    all_arrives_whole(["a", "b"], [NONE, PACKET], Line::AsItIs);
}

fn all_arrives_whole_over_a_line_without_offloads_where_both_sides_capture_by_packet_with_two_threads() {
    all_arrives_whole(["a", "b"], [TWO_PACKET, TWO_PACKET], Line::WithoutOffloads);
}

fn all_arrives_whole_over_a_relay() {
    all_arrives_whole(["a", "b", "c"], [NONE, NONE, NONE], Line::AsItIs);
}

fn all_arrives_whole_with_two_threads() {
    all_arrives_whole(["a", "b"], [TWO, TWO], Line::AsItIs);
}

fn all_arrives_whole_over_a_line_without_offloads() {
    all_arrives_whole(["a", "b"], [NONE, NONE], Line::WithoutOffloads);
}

fn all_arrives_whole_over_a_line_without_offloads_where_only_one_side_takes_super_frames() {
    all_arrives_whole(["a", "b"], [NONE, OFF], Line::WithoutOffloads);
}

fn all_arrives_whole_over_a_line_without_offloads_where_one_side_captures_by_pcap() {
    all_arrives_whole(["a", "b"], [NONE, PCAP], Line::WithoutOffloads);
}

fn all_arrives_whole_over_a_relay_with_lines_without_offloads() {
    all_arrives_whole(["a", "b", "c"], [NONE, NONE, NONE], Line::WithoutOffloads);
}

fn all_arrives_whole_with_two_threads_over_a_line_without_offloads() {
    all_arrives_whole(["a", "b"], [TWO, TWO], Line::WithoutOffloads);
}
