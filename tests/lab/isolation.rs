//! What is not in a network cannot reach it, whatever it sends; what is not sent by its owner is not carried.

use crate::room::{Container, Host, Process, Room, SOON};
use crate::wait::until;
use std::net::Ipv4Addr;

crate::facts![
    no_frame_of_one_network_is_seen_on_another,
    forged_mac_and_address_are_dropped_by_the_guard,
    unguarded_attachment_may_send_for_others,
    vlan_tagged_frames_do_not_cross,
    encrypted_mesh_shows_no_plaintext_on_the_wire,
    plain_mesh_shows_it,
];

/// In the middle of each frame that these tests send, and of no other.
const MARKER: &str = "726e65742d6c61622d6d61726b";

/// A sniffer on all interfaces of a container or host that has begun to listen.
pub fn listening(sniffer: Process) -> Process {
    until(SOON, "the sniffer listens", || sniffer.stdout().contains("ready"));
    sniffer
}

pub const SNIFF: [&str; 5] = ["python3", "-u", "-c", include_str!("wire.py"), "sniff"];

fn sniffer(of: &Container) -> Process {
    listening(of.start(&[&SNIFF[..], &["-"]].concat()))
}

/// An Ethernet frame with an IPv4 packet (protocol 253, for experiments) with the marker in it.
fn frame(to: &str, from: &str, source: &str, destination: &str) -> String {
    let mac = |text: &str| text.replace(':', "");
    format!("{}{}0800{}", mac(to), mac(from), packet(source, destination))
}

fn packet(source: &str, destination: &str) -> String {
    let address = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
    // Total length 60, no fragments, TTL 64.
    let mut header = [0x45, 0, 0, 60, 0, 0, 0, 0, 64, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[12..16].copy_from_slice(&address(source));
    header[16..].copy_from_slice(&address(destination));
    // A bridge with netfilter behind it drops a header whose checksum is wrong before we see it.
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    let header: String = header.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{header}{MARKER}{}", "00".repeat(40 - MARKER.len() / 2))
}

fn send(from: &Container, frames: &[&str]) {
    let tool = ["python3", "-c", include_str!("wire.py"), "send", "rnet0", "5"];
    from.run(&[&tool[..], frames].concat()).ok();
}

fn mesh_of_two(password: bool) -> (Room, [Host; 2]) {
    let room = Room::new();
    let hosts = room.chain(["a", "b"]);
    let pw = room.path("pw");
    let options: &[&str] = if password { &["--password-file", &pw] } else { &[] };
    hosts[0].launch_with(options, &[]).ok();
    hosts[1].launch_with(options, &[&hosts[0].toward(&hosts[1])]).ok();
    hosts[1].linked(1);
    (room, hosts)
}

const EVERYBODY: &str = "ff:ff:ff:ff:ff:ff";

fn no_frame_of_one_network_is_seen_on_another() {
    let (_room, [a, b]) = mesh_of_two(true);
    let (a1, b1) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    // The same numbers inside a wider network, and a disjoint one, each on both hosts.
    let (a2, b2) = (a.container(&["10.2.1.5/16"]), b.container(&["10.2.1.6/16"]));
    let (a3, b3) = (a.container(&["10.9.1.1/24"]), b.container(&["10.9.1.2/24"]));
    a1.reaches("10.2.1.2");
    a2.reaches("10.2.1.6");
    a3.reaches("10.9.1.2");
    let strangers = [&a2, &b2, &a3, &b3].map(sniffer);
    let friend = sniffer(&b1);
    let (from, own, source) = (a1.mac("rnet0"), b1.mac("rnet0"), "10.2.1.1");
    let frames: Vec<String> =
        [EVERYBODY, &own, &a2.mac("rnet0"), &b2.mac("rnet0"), &a3.mac("rnet0"), &b3.mac("rnet0"), "01:00:5e:00:00:fb"]
            .iter()
            .map(|to| frame(to, &from, source, "10.2.1.6"))
            .collect();
    send(&a1, &frames.iter().map(String::as_str).collect::<Vec<_>>());
    until(SOON, "the right network hears it", || friend.stdout().contains(MARKER));
    // What the friend has got was sent after everything else, so what is not here by now will not come.
    send(&a1, &[&frames[0]]);
    a2.reaches("10.2.1.6");
    a3.reaches("10.9.1.2");
    for stranger in strangers {
        assert!(!stranger.stdout().contains(MARKER), "a frame of another network was seen");
    }
    a1.never_reaches("10.2.1.6");
    a1.never_reaches("10.9.1.2");
}

fn forged_mac_and_address_are_dropped_by_the_guard() {
    let (_room, [a, b]) = mesh_of_two(true);
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    let third = a.container(&["10.2.1.3/24"]);
    one.reaches("10.2.1.2");
    third.reaches("10.2.1.2");
    let listener = sniffer(&two);
    let (own, victim) = (one.mac("rnet0"), third.mac("rnet0"));
    let forged_mac = frame(EVERYBODY, &victim, "10.2.1.1", "10.2.1.2");
    let forged_address = frame(EVERYBODY, &own, "10.2.1.3", "10.2.1.2");
    // ARP: "10.2.1.3 is at my MAC", padded with the marker.
    let hex = own.replace(':', "");
    let forged_arp = format!("ffffffffffff{hex}08060001080006040002{hex}0a020103ffffffffffff0a020102{MARKER}");
    let stream = third.stream("10.2.1.2");
    send(&one, &[&forged_mac, &forged_address, &forged_arp]);
    until(SOON, "the guard counts them", || {
        a.status().drops.iter().filter(|(why, _)| why.contains("guard")).map(|d| d.1).sum::<u64>() >= 15
    });
    assert!(!listener.stdout().contains(MARKER), "a forged frame was carried");
    stream.unharmed();
    // What is true is carried.
    send(&one, &[&frame(EVERYBODY, &own, "10.2.1.1", "10.2.1.2")]);
    until(SOON, "the true frame arrives", || listener.stdout().contains(MARKER));
}

fn unguarded_attachment_may_send_for_others() {
    let (_room, [a, b]) = mesh_of_two(true);
    let one = a.container_running(&["10.2.1.1/24"], &["--no-guard"], "exec sleep 600");
    let two = b.container(&["10.2.1.2/24"]);
    one.reaches("10.2.1.2");
    let listener = sniffer(&two);
    send(&one, &[&frame(EVERYBODY, "02:00:00:00:00:77", "10.2.1.77", "10.2.1.2")]);
    until(SOON, "the frame arrives", || listener.stdout().contains(MARKER));
}

fn vlan_tagged_frames_do_not_cross() {
    let (_room, [a, b]) = mesh_of_two(true);
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    let other = b.container(&["10.9.1.2/24"]);
    one.reaches("10.2.1.2");
    let listeners = [sniffer(&two), sniffer(&other)];
    let own = one.mac("rnet0").replace(':', "");
    let tagged = |tags: &str| format!("ffffffffffff{own}{tags}0800{}", packet("10.2.1.1", "10.2.1.2"));
    send(&one, &[&tagged("81000001"), &tagged("88a80001"), &tagged("8100000181000002")]);
    send(&one, &[&frame(EVERYBODY, &one.mac("rnet0"), "10.2.1.1", "10.2.1.9")]);
    let last = "0a020109";
    until(SOON, "an untagged frame arrives", || listeners[0].stdout().contains(last));
    let seen = listeners[0].stdout();
    assert!(
        seen.lines().filter(|line| line.contains(MARKER)).all(|line| line.contains(last)),
        "a tagged frame was carried: {seen}"
    );
    assert!(!listeners[1].stdout().contains(MARKER));
}

/// Frames of the line between a and b while a container sends the marker, which arrives.
fn wire_during_a_marked_ping(a: &Host, b: &Host) -> String {
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    let wire = listening(a.start(&[&SNIFF[..], &["to-b"]].concat()));
    let inside = sniffer(&two);
    one.run(&["ping", "-c3", "-i0.2", "-p", MARKER, "10.2.1.2"]).ok();
    until(SOON, "the marker arrives", || inside.stdout().contains(MARKER));
    let seen = wire.stdout();
    assert!(seen.lines().count() > 6, "the sniffer on the line sees the traffic");
    seen
}

fn encrypted_mesh_shows_no_plaintext_on_the_wire() {
    let (_room, [a, b]) = mesh_of_two(true);
    let seen = wire_during_a_marked_ping(&a, &b);
    assert!(!seen.contains(MARKER));
    // Nor the addresses of the containers, nor the names of the peers.
    assert!(!seen.contains("0a0201010a020102"));
    assert!(!seen.contains(&a.status().name.to_string().replace(':', "")));
}

fn plain_mesh_shows_it() {
    let (_room, [a, b]) = mesh_of_two(false);
    assert!(wire_during_a_marked_ping(&a, &b).contains(MARKER), "so the test above can fail");
}
