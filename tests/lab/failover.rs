//! VXLAN between peers that fails under a running connection: left within three seconds, used again by itself, without flapping.

use crate::carriers::{
    BY_VXLAN, KERNEL, Talk, attach, block, both_send_by, carries, connection, device, framing_to, sends_by, two,
    unblock,
};
use crate::room::{Host, Room, SOON};
use crate::wait::until;
use rnet::types::Framing;
use std::fs;

crate::facts![
    a_connection_survives_that_the_port_is_blocked_or_narrow_under_the_kernels,
    a_connection_survives_that_the_port_is_blocked_or_narrow_under_our_own,
    a_connection_survives_devices_that_die_or_are_deleted,
    a_connection_over_trusted_ipv6_survives_that_the_port_is_blocked,
];

/// The longest that a connection may stand still.
const MOST_MS: u64 = 3000;

/// By what the paths of this host went, as it told.
fn changes(host: &Host) -> Vec<String> {
    let log = fs::read_to_string(host.data_dir().join("rnet.log")).unwrap();
    let told =
        log.lines().filter_map(|line| Some(line.split_once("goes by ")?.1.split([':', ' ']).next()?.to_string()));
    told.collect()
}

/// The longest wait for an answer since, milliseconds.
#[track_caller]
fn stood_still(talk: &Talk, since: usize, what: &str) -> u64 {
    talk.goes_on(what);
    let longest = talk.took()[since..].iter().copied().max().unwrap_or(0);
    println!("{what}: an answer took {longest} ms at most");
    assert!(longest < MOST_MS, "{what}: {longest} ms");
    longest
}

fn survives(options: [&str; 2], better: Framing) {
    let (_room, hosts) = two([&options, &options]);
    let [one, two] = attach(&hosts);
    both_send_by(&hosts, better);
    let talk = Talk::new(&one, &two, "10.2.1.2");
    if better == Framing::Kernel {
        hosts.iter().for_each(|host| carries(host, 1));
    }
    let [a, b] = &hosts;
    for (longest, why) in [(0, "is UDP port 6784 blocked?"), (1000, "do not get through by UDP port 6784, ")] {
        let before = talk.took().len();
        block(b, longest);
        sends_by(a, b, Framing::Udp);
        if longest == 0 {
            sends_by(b, a, Framing::Udp);
        }
        let lost = stood_still(&talk, before, "they talk on by udp");
        assert!(lost > 200, "it was blocked: {lost} ms");
        until(SOON, "it is told why", || connection(a).path.unwrap().why_not_better.contains(why));
        let told = a.rnet(&["status", "connections"]).ok();
        assert!(told.contains(&format!("not {better}: ")) && told.contains("udp="), "{told}");
        unblock(b);
        let before = talk.took().len();
        // Whether it is wide enough is tried each minute.
        until(4 * SOON, "it is used again", || framing_to(a, b) == Some(better) && framing_to(b, a) == Some(better));
        let lost = stood_still(&talk, before, "they talk on by the better one");
        assert!(lost < 1000, "nothing is lost on the way back: {lost} ms");
        assert!(a.rnet(&["status", "connections"]).ok().contains(&format!("{better}=")), "since when");
    }
    let all = [better, Framing::Udp, better, Framing::Udp, better].map(|framing| framing.to_string());
    // What b sends is never too wide for the way.
    assert_eq!((changes(a).as_slice(), changes(b).as_slice()), (&all[..], &all[..3]));
}

fn a_connection_survives_that_the_port_is_blocked_or_narrow_under_the_kernels() {
    survives(KERNEL, Framing::Kernel);
}

fn a_connection_survives_that_the_port_is_blocked_or_narrow_under_our_own() {
    survives(BY_VXLAN, Framing::Vxlan);
}

fn a_connection_over_trusted_ipv6_survives_that_the_port_is_blocked() {
    for (options, better) in [(KERNEL, Framing::Kernel), (BY_VXLAN, Framing::Vxlan)] {
        let room = Room::new();
        let hosts = room.chain(["a", "b"]);
        let [a, b] = &hosts;
        a.sh("ip address flush dev to-b scope global && ip address add fd77::1/64 dev to-b nodad");
        b.sh("ip address flush dev to-a scope global && ip address add fd77::2/64 dev to-a nodad");
        let password = room.path("pw");
        let trusting = [&["--password-file", &password, "--trusted-subnets", "fd77::/64"][..], &options].concat();
        a.launch_with(&trusting, &[]).ok();
        b.launch_with(&trusting, &["[fd77::1]"]).ok();
        b.linked(1);
        let [one, two] = attach(&hosts);
        both_send_by(&hosts, better);
        assert!(!connection(a).encrypted && !connection(b).encrypted);
        let talk = Talk::new(&one, &two, "10.2.1.2");
        if better == Framing::Kernel {
            hosts.iter().for_each(|host| carries(host, 1));
        }
        let before = talk.took().len();
        block(b, 0);
        sends_by(a, b, Framing::Udp);
        sends_by(b, a, Framing::Udp);
        stood_still(&talk, before, "they talk on by udp");
        assert!(!connection(a).encrypted, "as it was agreed");
        unblock(b);
        let before = talk.took().len();
        both_send_by(&hosts, better);
        stood_still(&talk, before, "they talk on by the better one");
    }
}

fn a_connection_survives_devices_that_die_or_are_deleted() {
    let (_room, hosts) = two([&KERNEL, &KERNEL]);
    let [one, two] = attach(&hosts);
    both_send_by(&hosts, Framing::Kernel);
    let talk = Talk::new(&one, &two, "10.2.1.2");
    hosts.iter().for_each(|host| carries(host, 1));
    let device = device(&hosts[0]);
    for doing in [
        format!("ip link set {device} down"),
        format!("ip link delete {device}"),
        "ip link set rnxffffff down".to_string(),
        "ip link delete rnxffffff".to_string(),
    ] {
        let before = talk.took().len();
        hosts[0].sh(&doing);
        stood_still(&talk, before, &doing);
        let before = talk.took().len();
        both_send_by(&hosts, Framing::Kernel);
        carries(&hosts[0], 1);
        stood_still(&talk, before, "by the kernel again");
    }
}
