//! Underlays that are narrow, wide, or of several widths, and drop in silence what is too big.

use crate::carriers::{BY_VXLAN, KERNEL, both_send_by};
use crate::isolation::{SNIFF, listening};
use crate::room::{Container, Host, Room, SOON};
use crate::wait::{until, within};
use rnet::types::Framing;
use std::time::{Duration, Instant};

crate::facts![
    an_underlay_of_700_bytes_carries_big_pings_and_tcp_at_once,
    an_underlay_of_700_bytes_does_so_by_the_kernel_too,
    who_forbids_fragments_is_told_by_icmp_and_by_icmpv6,
    tcp_agrees_on_segments_that_the_path_takes,
    a_stream_survives_a_path_that_narrows_in_silence,
    jumbo_frames_are_used_where_the_underlay_takes_them,
    jumbo_frames_are_used_by_the_kernel_too,
    jumbo_frames_are_used_by_vxlan_too,
    over_an_ipv6_underlay_attachments_are_20_bytes_narrower,
    a_line_that_widens_is_used_at_once,
    a_mixed_mesh_goes_by_its_narrowest_path,
];

/// From now on this host drops datagrams of more than so many bytes, IP header included, and tells nobody.
fn narrow(host: &Host, bytes: usize) {
    let chain = |hook: &str| {
        format!(
            "add chain inet narrow {hook} {{ type filter hook {hook} priority 0; }}; \
             add rule inet narrow {hook} udp dport 6783-6784 meta length > {bytes} drop"
        )
    };
    host.sh(&format!("nft 'add table inet narrow; {}; {}'", chain("output"), chain("input")));
}

fn widen(one: &Host, other: &Host, mtu: u16) {
    one.sh(&format!("ip link set to-{} mtu {mtu}", other.name));
    other.sh(&format!("ip link set to-{} mtu {mtu}", one.name));
}

fn width(container: &Container, interface: &str) -> u16 {
    let link = container.sh(&format!("ip -o link show {interface}"));
    link.split("mtu ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("an MTU")
}

/// Nor lost in pieces.
fn nothing_was_too_big(host: &Host) {
    let drops = host.status().drops;
    assert!(drops.iter().all(|(reason, _)| ["no-peers", "suppressed"].contains(&reason.as_str())), "{drops:?}");
}

fn has_width(container: &Container, interface: &str, mtu: u16) {
    until(SOON, &format!("{interface} has an MTU of {mtu}"), || width(container, interface) == mtu);
}

/// Sends so many bytes over TCP, and gives how long that took.
fn transfer(from: &Container, to: &Container, address: &str, megabytes: u32) -> Duration {
    let sink = format!(
        "import socket\ns = socket.create_server(('{address}', 7000))\nprint('ready', flush=True)\nc = s.accept()[0]\n\
         n = 0\nwhile True:\n  b = c.recv(1 << 16)\n  if not b: break\n  n += len(b)\nprint(n)"
    );
    let sink = to.start(&["python3", "-c", &sink]);
    until(SOON, "the receiver listens", || sink.stdout().contains("ready"));
    let source = format!(
        "import socket\ns = socket.create_connection(('{address}', 7000))\nfor _ in range({megabytes}): s.sendall(bytes(1 << 20))"
    );
    let start = Instant::now();
    from.run(&["python3", "-c", &source]).ok();
    let received = sink.finish(SOON).ok();
    assert_eq!(received.lines().last(), Some((u64::from(megabytes) << 20).to_string().as_str()));
    start.elapsed()
}

fn an_underlay_of_700_bytes_carries_big_pings_and_tcp_at_once() {
    carries_much(true, 618);
}

fn an_underlay_of_700_bytes_does_so_by_the_kernel_too() {
    carries_much(false, 634);
}

/// `mtu`: of attachments, 700 less headers of IP, UDP, rnet (the tag of a seal among them) and Ethernet.
fn carries_much(sealed: bool, mtu: u16) {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    for host in [&a, &b] {
        narrow(host, 700);
    }
    let password = room.path("pw");
    let options: &[&str] = if sealed { &["--password-file", &password] } else { &[] };
    a.launch_with(options, &[]).ok();
    b.launch_with(options, &[&a.toward(&b)]).ok();
    let addresses = [["10.2.1.1/24", "fd00:1::1/64"], ["10.2.1.2/24", "fd00:1::2/64"]];
    let (one, two) = (a.container(&addresses[0]), b.container(&addresses[1]));
    one.reaches("10.2.1.2");
    for (address, family) in [("10.2.1.2", "-4"), ("fd00:1::2", "-6")] {
        let outcome = one.run(&["ping", family, "-nq", "-c2", "-i0.5", "-W1", "-s10000", address]);
        assert!(!outcome.stdout.contains(" 0 received"), "the second try at the latest: {outcome:?}");
    }
    let took = transfer(&one, &two, "10.2.1.2", 4);
    assert!(took < Duration::from_secs(10), "{took:?}");
    // IPv6 needs 1280, which goes in pieces.
    for container in [&one, &two] {
        has_width(container, "rnet0", mtu);
        has_width(container, "rnet1", 1280);
    }
    one.run(&["ping", "-nq", "-c1", "-W2", "-M", "do", "-s1232", "fd00:1::2"]).ok();
    assert_eq!(one.sh("ip -6 -o addr show rnet1").matches("fd00:1::1/64").count(), 1, "it keeps its address");
    let took = transfer(&one, &two, "10.2.1.2", 4);
    assert!(took < Duration::from_secs(10), "{took:?}");
    let shown = a.rnet(&["status", "connections"]).ok();
    assert!(shown.contains("mtu=672"), "{shown}");
    let shown = a.rnet(&["status"]).ok();
    assert!(
        shown.contains(&format!("MTU: {mtu} (auto: the path between ")) && shown.contains("takes 672 bytes"),
        "{shown}"
    );
    nothing_was_too_big(&a);
}

fn who_forbids_fragments_is_told_by_icmp_and_by_icmpv6() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    for host in [&a, &b] {
        narrow(host, 1400);
    }
    let password = room.path("pw");
    let options = ["--password-file", &password, "--mtu", "1400"];
    a.launch_with(&options, &[]).ok();
    b.launch_with(&options, &[&a.toward(&b)]).ok();
    let addresses = [["10.2.1.1/24", "fd00:1::1/64"], ["10.2.1.2/24", "fd00:1::2/64"]];
    let (one, _two) = (a.container(&addresses[0]), b.container(&addresses[1]));
    one.reaches("10.2.1.2");
    one.reaches("fd00:1::2");
    // 1400 - 28 - 54. Of a path that takes less than 1280, IPv6 is told nothing, and goes in pieces.
    for (address, told) in [("10.2.1.2", "mtu = 1318"), ("fd00:1::2", "mtu=1318")] {
        until(SOON, &format!("{address}: {told}"), || {
            let outcome = one.run(&["ping", "-n", "-c1", "-W1", "-M", "do", "-s", "1300", address]);
            outcome.code != 0 && outcome.stdout.contains(told)
        });
    }
    // What was told is kept to.
    one.run(&["ping", "-nq", "-c1", "-W2", "-M", "do", "-s", "1290", "10.2.1.2"]).ok();
    one.run(&["ping", "-nq", "-c1", "-W2", "-M", "do", "-s", "1270", "fd00:1::2"]).ok();
}

/// The MSS that the SYN offers which comes out at `to` when `from` connects.
fn offered(from: &Container, to: &Container, address: &str) -> u16 {
    let wire = listening(to.start(&[&SNIFF[..], &["-"]].concat()));
    let connect = format!("import socket\ntry: socket.create_connection(('{address}', 9), 1)\nexcept OSError: pass");
    from.run(&["python3", "-c", &connect]).ok();
    within(SOON, "a SYN", || {
        let seen = wire.stdout();
        seen.lines().filter_map(|line| line.split(' ').nth(2)).find_map(syn_mss)
    })
}

fn syn_mss(hex: &str) -> Option<u16> {
    let byte = |at: usize| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok();
    let tcp = match (byte(12)?, byte(13)?) {
        (8, 0) if byte(23)? == 6 => 34,
        (0x86, 0xdd) if byte(20)? == 6 => 54,
        _ => return None,
    };
    let offers = byte(tcp + 13)? == 2 && byte(tcp + 20)? == 2;
    offers.then_some(u16::from_be_bytes([byte(tcp + 22)?, byte(tcp + 23)?]))
}

fn tcp_agrees_on_segments_that_the_path_takes() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    for host in [&a, &b] {
        narrow(host, 700);
    }
    let password = room.path("pw");
    let options = ["--password-file", &password, "--mtu", "1400"];
    a.launch_with(&options, &[]).ok();
    b.launch_with(&options, &[&a.toward(&b)]).ok();
    let addresses = [["10.2.1.1/24", "fd00:1::1/64"], ["10.2.1.2/24", "fd00:1::2/64"]];
    let (one, two) = (a.container(&addresses[0]), b.container(&addresses[1]));
    one.reaches("10.2.1.2");
    one.reaches("fd00:1::2");
    // 700 - 28 - 40 of rnet - 14 of Ethernet - IP and TCP, once the limit is known.
    for (address, mss) in [("10.2.1.2", 618 - 40), ("fd00:1::2", 618 - 60)] {
        until(SOON, "the MSS is lowered", || offered(&one, &two, address) == mss);
    }
    assert_eq!((width(&one, "rnet0"), width(&two, "rnet1")), (1400, 1400), "interfaces are as they were told to be");
    let took = transfer(&one, &two, "10.2.1.2", 4);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

fn a_stream_survives_a_path_that_narrows_in_silence() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    let sink = "import socket\ns = socket.create_server(('10.2.1.2', 7000))\nprint('ready', flush=True)\nc = s.accept()[0]\n\
                import time\nlast, longest, end, n = time.monotonic(), 0, time.monotonic() + 12, 0\n\
                while time.monotonic() < end:\n  n += len(c.recv(1 << 16)); now = time.monotonic()\n\
                \x20 longest, last = max(longest, now - last), now\n  if n and now > end - 11.5: print('flows', flush=True)\n\
                print(longest)";
    let sink = two.start(&["python3", "-u", "-c", sink]);
    until(SOON, "the receiver listens", || sink.stdout().contains("ready"));
    let source = "import socket\ns = socket.create_connection(('10.2.1.2', 7000))\ntry:\n  while True: s.sendall(bytes(1 << 14))\n\
                  except OSError: pass";
    let source = one.start(&["python3", "-c", source]);
    until(SOON, "bytes flow", || sink.stdout().contains("flows"));
    for host in [&a, &b] {
        narrow(host, 700);
    }
    let told = sink.finish(SOON).ok();
    let longest: f64 = told.lines().last().and_then(|line| line.parse().ok()).expect("a time");
    // Two seconds until it is noticed, and what TCP needs to try again.
    println!("a stream over a path that narrowed stood still for {longest:.1} s");
    assert!(longest > 0.2 && longest < 5.0, "nothing came for {longest} s");
    drop(source);
    let shown = a.rnet(&["status", "connections"]).ok();
    assert!(shown.contains("established") && shown.contains("mtu=672"), "{shown}");
}

fn jumbo_frames_are_used_where_the_underlay_takes_them() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    widen(&a, &b, 9000);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    b.linked(1);
    // 9000 - 28 - 54.
    jumbo_frames_are_used([a, b], 8918);
}

fn jumbo_frames_are_used_by_the_kernel_too() {
    jumbo_frames_are_used_by(&KERNEL, Framing::Kernel);
}

fn jumbo_frames_are_used_by_vxlan_too() {
    jumbo_frames_are_used_by(&BY_VXLAN, Framing::Vxlan);
}

/// In clear. The framing carries frames of the full width, or it would be left.
fn jumbo_frames_are_used_by(options: &[&str], framing: Framing) {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    widen(&a, &b, 9000);
    a.launch_with(options, &[]).ok();
    b.launch_with(options, &[&a.toward(&b)]).ok();
    b.linked(1);
    let hosts = [a, b];
    both_send_by(&hosts, framing);
    // 9000 - 28 - 38: nothing is sealed, which udp has to carry too.
    let hosts = jumbo_frames_are_used(hosts, 8934);
    both_send_by(&hosts, framing);
}

fn jumbo_frames_are_used([a, b]: [Host; 2], mtu: u16) -> [Host; 2] {
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    for container in [&one, &two] {
        has_width(container, "rnet0", mtu);
    }
    let whole = (mtu - 28).to_string();
    one.run(&["ping", "-nq", "-c2", "-i0.2", "-W2", "-M", "do", "-s", &whole, "10.2.1.2"]).ok();
    transfer(&one, &two, "10.2.1.2", 16);
    // What comes later has it from the start, and the bridge too.
    let three = b.container(&["10.2.1.3/24"]);
    assert_eq!(width(&three, "rnet0"), mtu);
    assert!(b.sh("ip -o link show type bridge").contains(&format!("mtu {mtu}")));
    one.run(&["ping", "-nq", "-c2", "-i0.2", "-W2", "-M", "do", "-s", &whole, "10.2.1.3"]).ok();
    nothing_was_too_big(&a);
    drop((one, two, three));
    [a, b]
}

fn over_an_ipv6_underlay_attachments_are_20_bytes_narrower() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.sh("ip address add fd77::1/64 dev to-b nodad && ip address flush dev to-b scope global to 0.0.0.0/0");
    b.sh("ip address add fd77::2/64 dev to-a nodad && ip address flush dev to-a scope global to 0.0.0.0/0");
    a.launch(&[]);
    b.launch(&["[fd77::1]"]);
    b.linked(1);
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    // 1500 - 48, and - 54.
    until(SOON, "the path is measured", || a.rnet(&["status", "connections"]).ok().contains("mtu=1452"));
    for container in [&one, &two] {
        has_width(container, "rnet0", 1398);
    }
    one.run(&["ping", "-nq", "-c2", "-i0.2", "-W2", "-M", "do", "-s1370", "10.2.1.2"]).ok();
    transfer(&one, &two, "10.2.1.2", 16);
    nothing_was_too_big(&a);
}

fn a_line_that_widens_is_used_at_once() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    let takes =
        |host: &Host, mtu| host.status().connections.iter().any(|c| c.path.as_ref().is_some_and(|p| p.mtu == mtu));
    for mtu in [1500, 9000, 1400] {
        widen(&a, &b, mtu);
        for host in [&a, &b] {
            until(SOON, "the path is as wide as the line", || takes(host, mtu - 28));
        }
    }
}

fn a_mixed_mesh_goes_by_its_narrowest_path() {
    let room = Room::new();
    let [a, b, c] = room.chain(["a", "b", "c"]);
    widen(&a, &b, 9000);
    widen(&b, &c, 1300);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    c.launch(&[&b.toward(&c)]);
    let (one, two, three) =
        (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]), c.container(&["10.2.1.3/24"]));
    one.reaches("10.2.1.3");
    // 1300 - 28 - 54.
    for container in [&one, &two, &three] {
        has_width(container, "rnet0", 1218);
    }
    for address in ["10.2.1.2", "10.2.1.3"] {
        one.run(&["ping", "-nq", "-c2", "-i0.2", "-W2", "-M", "do", "-s1190", address]).ok();
        one.run(&["ping", "-nq", "-c2", "-i0.2", "-W2", "-s10000", address]).ok();
    }
    transfer(&one, &three, "10.2.1.3", 8);
    let limit = a.status().mtu_limit.expect("a limit");
    let ends = limit.ends.map(|(_, nickname)| nickname.to_string());
    assert!(limit.mtu == 1272 && ends.contains(&"b".to_string()) && ends.contains(&"c".to_string()), "{ends:?}");
}
