//! `rnet run`: a program on the mesh behaves as if nobody stood between it and its caller, and leaves nothing.

use crate::room::{Host, RNET, Room, SOON};
use crate::wait::{until, within};
use std::io::Write;
use std::process::Stdio;

crate::facts![
    exit_status_passes_through,
    missing_command_is_127_and_nothing_is_left,
    command_that_cannot_be_executed_is_126,
    term_reaches_the_command,
    input_and_output_pass_through,
    terminal_passes_through,
    interface_is_up_and_addressed_before_the_command_starts,
    several_networks_are_several_interfaces_in_order,
    ipv6_reaches_across_the_mesh,
    full_size_packets_pass_unfragmented,
    name_and_addresses_are_listed,
    resolv_conf_is_the_containers_own,
    outside_is_not_reached,
    killed_run_takes_its_command_along_and_leaves_nothing,
];

fn one_host() -> (Room, Host) {
    let room = Room::new();
    let a = room.host("a");
    a.launch(&[]);
    (room, a)
}

fn rnet_run<'a>(command: &[&'a str]) -> Vec<&'a str> {
    [&[RNET, "run", "--cidr", "10.2.1.1/24", "--"], command].concat()
}

fn exit_status_passes_through() {
    let (_room, a) = one_host();
    for (script, code) in
        [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -KILL $$", 137), ("kill -TERM $$", 143)]
    {
        let outcome = a.run(&rnet_run(&["sh", "-c", script]));
        assert_eq!((outcome.code, outcome.stderr.as_str()), (code, ""), "{script}");
    }
    until(SOON, "nothing is left", || a.interfaces().is_empty());
}

fn missing_command_is_127_and_nothing_is_left() {
    let (_room, a) = one_host();
    a.run(&rnet_run(&["no-such-command"])).refused(127, &["no-such-command"]);
    a.run(&rnet_run(&["/no/such/command"])).refused(127, &["/no/such/command"]);
    until(SOON, "nothing is left", || a.interfaces().is_empty() && a.status().attachments.is_empty());
}

fn command_that_cannot_be_executed_is_126() {
    let (_room, a) = one_host();
    a.run(&rnet_run(&["/etc/passwd"])).refused(126, &["/etc/passwd"]);
    until(SOON, "nothing is left", || a.interfaces().is_empty());
}

fn term_reaches_the_command() {
    let (_room, a) = one_host();
    let script = "trap 'echo got it; exit 42' TERM; while :; do sleep 0.05; done";
    let container = a.container_running(&["10.2.1.1/24"], &[], script);
    let outcome = container.process.end("TERM");
    assert_eq!((outcome.code, outcome.stdout.trim()), (42, "got it"), "{outcome:?}");
    until(SOON, "nothing is left", || a.interfaces().is_empty());
}

fn input_and_output_pass_through() {
    let (room, a) = one_host();
    let path = room.path("input");
    let mut file = std::fs::File::create(&path).unwrap();
    let lines: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
    file.write_all(lines.as_bytes()).unwrap();
    let input = Stdio::from(std::fs::File::open(&path).unwrap());
    let outcome = a.start_with(&rnet_run(&["sh", "-c", "cat; echo done >&2"]), input).finish(SOON);
    assert_eq!(outcome.code, 0);
    assert!(outcome.stdout == lines, "{} bytes of {}", outcome.stdout.len(), lines.len());
    assert_eq!(outcome.stderr, "done\n");
}

fn terminal_passes_through() {
    let (_room, a) = one_host();
    let inner =
        format!("{RNET} run --cidr 10.2.1.1/24 -- sh -c 'test -t 0 && test -t 1 && stty size && ps -o stat= -p $$'");
    let outcome = a.run(&["script", "-qec", &format!("stty rows 33 cols 77; {inner}"), "/dev/null"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.contains("33 77"), "{outcome:?}");
    assert!(outcome.stdout.contains('+'), "the command is not in the terminal's foreground: {outcome:?}");
    // Ctrl-C at the terminal ends the command, and the run says so.
    let read = format!(
        "exec {RNET} run --cidr 10.2.1.1/24 -- sh -c 'trap \"exit 9\" INT; echo ready; while :; do sleep 0.05; done'"
    );
    let mut terminal = a.start_with(&["script", "-qec", &read, "/dev/null"], Stdio::piped());
    until(SOON, "the command is ready", || terminal.stdout().contains("ready"));
    terminal.type_in(b"\x03");
    assert_eq!(terminal.finish(SOON).code, 9);
}

fn interface_is_up_and_addressed_before_the_command_starts() {
    let (_room, a) = one_host();
    let text = a.run(&rnet_run(&["ip", "-o", "address", "show"])).ok();
    assert!(text.contains("rnet0") && text.contains("10.2.1.1/24") && !text.contains("tentative"), "{text}");
    let text = a.run(&rnet_run(&["ip", "-o", "link", "show", "up"])).ok();
    assert!(text.contains("rnet0") && text.contains("lo:"), "{text}");
    // A multicast sender needs a route to send to.
    let text = a.run(&rnet_run(&["ip", "route"])).ok();
    assert!(text.contains("10.2.1.0/24"), "{text}");
}

fn several_networks_are_several_interfaces_in_order() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    let one = a.container(&["10.2.1.1/24", "10.2.2.1/24", "10.2.3.1/24"]);
    let text = one.sh("ip -o -4 address show");
    for (i, address) in ["10.2.1.1/24", "10.2.2.1/24", "10.2.3.1/24"].iter().enumerate() {
        assert!(text.lines().any(|l| l.contains(&format!("rnet{i}")) && l.contains(address)), "{text}");
    }
    let two = b.container(&["10.2.2.2/24"]);
    two.reaches("10.2.2.1");
    b.container(&["10.2.3.2/24"]).reaches("10.2.3.1");
    // Two addresses of one network are two addresses on one interface or two interfaces; both answer.
    let both = b.container(&["10.2.1.8/24", "10.2.1.9/24"]);
    one.reaches("10.2.1.8");
    one.reaches("10.2.1.9");
    drop(both);
}

fn ipv6_reaches_across_the_mesh() {
    let room = Room::new();
    let [a, b, c] = room.chain(["a", "b", "c"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    c.launch(&[&b.toward(&c)]);
    let (one, _other) = (a.container(&["fd00:1::1/64", "10.2.1.1/24"]), c.container(&["fd00:1::3/64", "10.2.1.3/24"]));
    one.reaches("fd00:1::3");
    one.reaches("10.2.1.3");
}

fn full_size_packets_pass_unfragmented() {
    let room = Room::new();
    let [a, b, c] = room.chain(["a", "b", "c"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    c.launch(&[&b.toward(&c)]);
    let (one, _other) = (a.container(&["10.2.1.1/24"]), c.container(&["10.2.1.3/24"]));
    one.reaches("10.2.1.3");
    // 1500 - 28 of IPv4 and UDP - 54, once all paths are measured.
    until(SOON, "the width of the mesh", || {
        a.status().mtu == 1418 && one.sh("ip -o link show rnet0").contains("mtu 1418")
    });
    let link = one.sh("ip -o link show rnet0");
    let mtu: usize = within(SOON, "an MTU", || link.split("mtu ").nth(1)?.split(' ').next()?.parse().ok());
    assert_eq!(mtu, usize::from(a.status().mtu));
    let largest = (mtu - 28).to_string();
    one.run(&["ping", "-c3", "-i0.2", "-W2", "-M", "do", "-s", &largest, "10.2.1.3"]).ok();
    // Nothing on the underlay was fragmented: every datagram fits its 1500 bytes.
    let fragments = "grep '^Ip: [0-9]' /proc/net/snmp | tr ' ' '\\n' | tail -n 3 | head -n 2 | tr '\\n' ' '";
    assert_eq!(a.sh(fragments).trim().replace("0 0", ""), "", "the underlay fragmented");
    // What is larger still arrives: the sender's own kernel fragments it.
    one.run(&["ping", "-c1", "-W2", "-M", "dont", "-s", "4000", "10.2.1.3"]).ok();
}

fn name_and_addresses_are_listed() {
    let (_room, a) = one_host();
    let container = a.container_running(&["10.2.1.1/24"], &["--name", "web"], "exec sleep 600");
    let text = a.rnet(&["ps"]).ok();
    let line = text.lines().find(|line| line.contains("web")).unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains("10.2.1.1/24") && line.contains(&container.mac("rnet0")), "{line}");
    assert_eq!(a.rnet(&["ps", "web"]).ok().lines().filter(|line| line.contains("10.2.1.1/24")).count(), 1);
    let json: serde_json::Value = serde_json::from_str(&a.rnet(&["ps", "--json"]).ok()).unwrap();
    assert!(json.to_string().contains("10.2.1.1/24"), "{json}");
}

fn resolv_conf_is_the_containers_own() {
    let (_room, a) = one_host();
    let outside = a.sh("cat /etc/resolv.conf 2>/dev/null || true");
    a.run(&rnet_run(&["sh", "-c", "test -r /etc/resolv.conf"])).ok();
    assert_eq!(a.sh("cat /etc/resolv.conf 2>/dev/null || true"), outside);
}

fn outside_is_not_reached() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[]);
    let container = a.container(&["10.2.1.1/24"]);
    container.never_reaches(&a.toward(&b));
    container.never_reaches(&b.toward(&a));
}

fn killed_run_takes_its_command_along_and_leaves_nothing() {
    let (_room, a) = one_host();
    let container = a.container(&["10.2.1.1/24"]);
    let command = container.pid;
    assert!(!a.interfaces().is_empty());
    container.process.signal("KILL");
    until(SOON, "the command ended", || a.run(&["test", "-d", &format!("/proc/{command}")]).code != 0);
    until(SOON, "nothing is left", || a.interfaces().is_empty() && a.status().attachments.is_empty());
    a.run(&rnet_run(&["true"])).ok();
}
