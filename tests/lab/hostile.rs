//! Strangers on the underlay: they may send what they like, and traffic does not notice.

use crate::isolation::{SNIFF, listening};
use crate::room::{Host, Process, Room, SOON};
use crate::wait::until;
use std::process::Stdio;

crate::facts![
    garbage_connections_are_closed_and_harm_nobody,
    half_open_connections_are_ended_and_do_not_keep_peers_out,
    garbage_datagrams_are_counted_and_harm_nobody,
    replayed_datagrams_are_counted_and_not_delivered_twice,
    spoofed_datagrams_do_not_move_or_break_a_path,
    plain_datagrams_from_elsewhere_are_not_delivered,
    datagrams_that_the_kernel_does_not_take_are_counted,
];

const TOOL: [&str; 4] = ["python3", "-u", "-c", include_str!("wire.py")];

/// a and b have a mesh; x is a stranger on a line with a.
fn mesh_and_stranger(password: bool) -> (Room, [Host; 3]) {
    let room = Room::new();
    let hosts = room.chain(["b", "a", "x"]);
    let [b, a, _] = &hosts;
    let pw = room.path("pw");
    let options: &[&str] = if password { &["--password-file", &pw] } else { &[] };
    a.launch_with(options, &[]).ok();
    b.launch_with(options, &[&a.toward(b)]).ok();
    b.linked(1);
    (room, hosts)
}

/// Frames dropped for reasons that contain one of these words.
fn drops(host: &Host, words: &[&str]) -> u64 {
    let drops = host.status().drops;
    drops.iter().filter(|(why, _)| words.iter().any(|word| why.contains(word))).map(|(_, count)| count).sum()
}

fn garbage_connections_are_closed_and_harm_nobody() {
    let (_room, [b, a, x]) = mesh_and_stranger(true);
    let (one, _two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    let stream = one.stream("10.2.1.2");
    let closed = x.run(&[&TOOL[..], &["garbage-tcp", &a.toward(&x), "6783", "60"]].concat()).ok();
    assert_eq!(closed.trim(), "60", "connections that were not closed");
    stream.unharmed();
    let status = a.status();
    assert!(status.connections.len() < 70, "a stranger's connections are remembered without a bound");
    b.linked(1);
}

fn half_open_connections_are_ended_and_do_not_keep_peers_out() {
    let (_room, [b, a, x]) = mesh_and_stranger(true);
    let (one, _two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    let stream = one.stream("10.2.1.2");
    let address = a.toward(&x);
    let hold = [&TOOL[..], &["hold", &address, "6783", "100"]].concat();
    let mut held: Vec<Process> = (0..3).map(|_| x.start_with(&hold, Stdio::piped())).collect();
    until(SOON, "they hold their connections", || held.iter().all(|process| process.stdout().contains("ready")));
    x.launch(&[&a.toward(&x)]);
    x.linked(1);
    let sockets = || {
        a.sh("cat /proc/net/tcp /proc/net/tcp6")
            .lines()
            .filter(|line| line.contains(":1A7F") && line.contains(" 01 "))
            .count()
    };
    until(3 * SOON, "the router ends them itself", || sockets() < 40);
    held.iter_mut().for_each(Process::close_input);
    stream.unharmed();
}

fn garbage_datagrams_are_counted_and_harm_nobody() {
    let (_room, [b, a, x]) = mesh_and_stranger(true);
    let (one, _two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    let stream = one.stream("10.2.1.2");
    x.run(&[&TOOL[..], &["garbage-udp", &a.toward(&x), "6783", "3000"]].concat()).ok();
    until(SOON, "they are counted", || a.status().drops.iter().map(|(_, count)| count).sum::<u64>() >= 1000);
    stream.unharmed();
}

/// Frames that came to a from b on their line during `traffic`, as hex, UDP to the mesh's port only.
fn recorded(a: &Host, traffic: impl FnOnce()) -> Vec<String> {
    let wire = listening(a.start(&[&SNIFF[..], &["to-b"]].concat()));
    traffic();
    let seen = wire.end("TERM").stdout;
    let frames = seen.lines().filter_map(|line| line.strip_prefix("to-b 0 "));
    let ours = frames.filter(|hex| {
        hex.get(24..28) == Some("0800") && hex.get(46..48) == Some("11") && hex.get(72..76) == Some("1a7f")
    });
    // A veth leaves UDP checksums unfinished, and the kernel would drop them; none at all is allowed over IPv4.
    ours.map(|hex| format!("{}0000{}", &hex[..80], &hex[84..])).collect()
}

fn replayed_datagrams_are_counted_and_not_delivered_twice() {
    let (_room, [b, a, _x]) = mesh_and_stranger(true);
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    let frames = recorded(&a, || drop(two.run(&["ping", "-c20", "-i0.02", "10.2.1.1"]).ok()));
    assert!(frames.len() >= 20, "{} frames recorded", frames.len());
    let before = drops(&a, &["replayed"]);
    let stream = one.stream("10.2.1.2");
    let inside = listening(one.start(&[&SNIFF[..], &["rnet0"]].concat()));
    // The very frames again, on the line, as if b had sent them.
    let frames: Vec<&str> = frames.iter().map(String::as_str).collect();
    b.run(&[&TOOL[..], &["send", "to-a", "2"], &frames].concat()).ok();
    until(SOON, "they are counted", || drops(&a, &["replayed"]) >= before + 40);
    // Echo requests (ICMP type 8) came to a's container only by the replay.
    let requests = inside
        .stdout()
        .lines()
        .filter(|l| {
            l.starts_with("rnet0 0 ") && l.get(8 + 46..8 + 48) == Some("01") && l.get(8 + 68..8 + 70) == Some("08")
        })
        .count();
    assert_eq!(requests, 0, "replayed frames were delivered");
    stream.unharmed();
}

fn spoofed_datagrams_do_not_move_or_break_a_path() {
    let (_room, [b, a, x]) = mesh_and_stranger(true);
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    let frames = {
        one.reaches("10.2.1.2");
        recorded(&a, || drop(two.run(&["ping", "-c20", "-i0.02", "10.2.1.1"]).ok()))
    };
    // True headers, damaged bodies: with b's address, and with the stranger's own.
    let damaged: Vec<String> = frames
        .iter()
        .filter(|hex| hex.len() > 84 + 2 * 40)
        .map(|hex| {
            let (head, body) = hex[84..].split_at(2 * 24);
            let flipped = if &body[..1] == "0" { "1" } else { "0" };
            // A counter far ahead, so that the replay window does not judge first.
            format!("{}00000000ffffff{}{}{flipped}{}", &head[..16], &head[30..32], &head[32..], &body[1..])
        })
        .collect();
    assert!(damaged.len() >= 10);
    let endpoint = a.status().connections[0].path.as_ref().map(|path| path.endpoint);
    let before = drops(&a, &["forged"]);
    let stream = one.stream("10.2.1.2");
    let bodies: Vec<&str> = damaged.iter().map(String::as_str).collect();
    for source in [b.toward(&a), x.toward(&a)] {
        x.run(&[&TOOL[..], &["spoof", &source, "6783", &a.toward(&x), "6783"], &bodies].concat()).ok();
    }
    let all = 2 * damaged.len() as u64;
    until(SOON, "they are counted", || drops(&a, &["forged"]) >= before + all);
    stream.unharmed();
    assert_eq!(
        a.status().connections[0].path.as_ref().map(|path| path.endpoint),
        endpoint,
        "the path followed a forged datagram"
    );
}

fn plain_datagrams_from_elsewhere_are_not_delivered() {
    let (_room, [b, a, x]) = mesh_and_stranger(false);
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    let frames = recorded(&a, || drop(two.run(&["ping", "-c20", "-i0.02", "10.2.1.1"]).ok()));
    let bodies: Vec<&str> = frames.iter().filter(|hex| hex.len() > 84 + 2 * 80).map(|hex| &hex[84..]).collect();
    assert!(bodies.len() >= 20, "{} plain datagrams recorded", bodies.len());
    let before = a.status().drops.iter().map(|(_, count)| count).sum::<u64>();
    let inside = listening(one.start(&[&SNIFF[..], &["rnet0"]].concat()));
    x.run(&[&TOOL[..], &["spoof", &x.toward(&a), "6783", &a.toward(&x), "6783"], &bodies].concat()).ok();
    until(SOON, "they are counted", || a.status().drops.iter().map(|(_, count)| count).sum::<u64>() >= before + 20);
    assert!(
        !inside.stdout().lines().any(|line| line.starts_with("rnet0 0 ") && line.contains("0a0201020a020101")),
        "delivered"
    );
}

fn datagrams_that_the_kernel_does_not_take_are_counted() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    b.linked(1);
    let (one, _two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    let _traffic = one.start(&["ping", "-q", "-i", "0.02", "10.2.1.2"]);
    assert_eq!(drops(&a, &["send-"]), 0);
    a.sh("ip address flush dev to-b");
    until(SOON, "what could not be sent is counted", || drops(&a, &["send-unreachable"]) > 0);
}
