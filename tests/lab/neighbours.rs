//! Addresses that rnet gave out: nobody else hears who asks for them, and one that moves is found again at once.

use crate::isolation::{SNIFF, listening};
use crate::room::{Container, Host, Process, Room, SOON};
use crate::wait::{throughout, until};
use std::time::Duration;

crate::facts![
    nobody_else_hears_who_asks_for_a_known_address,
    moved_address_is_reached_within_a_second,
    address_of_a_killed_host_is_found_where_it_is_taken_up,
];

/// a - b - c, all of them linked to b only.
fn mesh() -> (Room, [Host; 3]) {
    let room = Room::new();
    let hosts = room.chain(["a", "b", "c"]);
    hosts[1].launch(&[]);
    hosts[0].launch(&[&hosts[1].toward(&hosts[0])]);
    hosts[2].launch(&[&hosts[1].toward(&hosts[2])]);
    hosts[1].linked(2);
    (room, hosts)
}

/// Requests and solicitations for `target` (as hex) that came from elsewhere.
fn questions(sniffer: &Process, target: &str) -> usize {
    let seen = sniffer.stdout();
    let frames = seen.lines().filter_map(|line| line.strip_prefix("rnet")?.split_once(' ')?.1.split_once(' '));
    // Not those that the attachment sends itself (packet type 4).
    let foreign = frames.filter(|(kind, _)| *kind != "4").map(|(_, hex)| hex);
    let asks = |hex: &&str| {
        let arp = hex.get(24..28) == Some("0806") && hex.get(40..44) == Some("0001") && hex.get(76..84) == Some(target);
        let announces = hex.get(56..64) == hex.get(76..84);
        let solicits = hex.get(24..28) == Some("86dd") && hex.get(108..110) == Some("87");
        (arp && !announces) || (solicits && hex.get(124..156) == Some(target))
    };
    foreign.filter(asks).count()
}

fn suppressed(host: &Host) -> u64 {
    host.status().drops.iter().find(|(why, _)| why == "suppressed").map_or(0, |(_, count)| *count)
}

fn nobody_else_hears_who_asks_for_a_known_address() {
    let (_room, [a, b, c]) = mesh();
    let with = |host: &'static str| [format!("10.2.1.{host}/24"), format!("fd00:21::{host}/64")];
    let addresses = ["1", "2", "3"].map(with);
    let args = addresses.each_ref().map(|pair| pair.each_ref().map(String::as_str));
    let (one, _two, third) = (a.container(&args[0]), b.container(&args[1]), c.container(&args[2]));
    for target in ["10.2.1.2", "10.2.1.3", "fd00:21::2", "fd00:21::3"] {
        one.reaches(target);
    }
    let sniffer = listening(third.start(&[&SNIFF[..], &["-"]].concat()));
    let before = suppressed(&a);
    for _ in 0..5 {
        one.sh("ip neigh flush dev rnet0; ip neigh flush dev rnet1");
        assert!(one.pings("10.2.1.2") && one.pings("fd00:21::2"));
    }
    assert!(suppressed(&a) >= before + 10, "{} questions were answered", suppressed(&a) - before);
    // What nobody knows is asked for everywhere: the sniffer would have seen the others.
    one.run(&["ping", "-nq", "-c1", "-W0.3", "10.2.1.99"]);
    one.run(&["ping", "-nq", "-c1", "-W0.3", "fd00:21::99"]);
    let v6 = |last: &str| format!("fd000021{}{last}", "0".repeat(22));
    until(SOON, "questions for unknown addresses arrive", || {
        questions(&sniffer, "0a020163") > 0 && questions(&sniffer, &v6("99")) > 0
    });
    assert_eq!(questions(&sniffer, "0a020102"), 0, "{}", sniffer.stdout());
    assert_eq!(questions(&sniffer, &v6("02")), 0, "{}", sniffer.stdout());
}

fn attach(host: &Host, name: &str, addresses: &[&str]) {
    host.sh(&format!("ip netns add {name} && ip -n {name} link set lo up"));
    host.rnet(&[&["attach"], addresses, &[&format!("netns:{name}")]].concat()).ok();
}

/// Echo requests ten times a second, each answer a line.
fn pinging(from: &Container, target: &str) -> Process {
    from.reaches(target);
    let ping = from.start(&["ping", "-n", "-i0.1", "-W0.2", target]);
    until(SOON, "answers come", || answers(&ping) > 3);
    ping
}

fn answers(ping: &Process) -> usize {
    ping.stdout().matches("bytes from").count()
}

fn moved_address_is_reached_within_a_second() {
    let (_room, [a, b, c]) = mesh();
    let third = c.container(&["10.2.1.3/24", "fd00:21::3/64"]);
    let other = b.container(&["10.2.1.2/24"]);
    attach(&a, "web", &["10.2.1.1/24", "fd00:21::1/64"]);
    let pings = ["10.2.1.1", "fd00:21::1"].map(|target| pinging(&third, target));
    let beside = pinging(&other, "10.2.1.1");
    a.rnet(&["detach", "netns:web"]).ok();
    until(SOON, "the address is free everywhere", || {
        let taken = b.rnet(&["attach", "10.2.1.1/24", "fd00:21::1/64", "netns:web"]);
        if taken.code != 0 {
            // Its namespace is made at the first try.
            b.run(&["ip", "netns", "add", "web"]);
        }
        taken.code == 0
    });
    let before = pings.each_ref().map(answers);
    let beside_before = answers(&beside);
    let took = until(Duration::from_secs(1), "the moved address answers", || {
        let heard = pings.each_ref().map(answers);
        heard.iter().zip(before).all(|(now, before)| *now > before) && answers(&beside) > beside_before
    });
    eprintln!("moved address: reached after {took:?}");
}

fn address_of_a_killed_host_is_found_where_it_is_taken_up() {
    let (_room, [a, b, c]) = mesh();
    let third = c.container(&["10.2.1.3/24"]);
    attach(&a, "web", &["10.2.1.1/24"]);
    third.reaches("10.2.1.1");
    a.murder();
    // While the peer is believed to live its address is taken; then it is free, though its claim is remembered.
    b.sh("ip netns add web && ip -n web link set lo up");
    until(SOON, "it may be taken up", || b.rnet(&["attach", "10.2.1.1/24", "netns:web"]).code == 0);
    let took = until(Duration::from_secs(1), "it answers", || third.pings("10.2.1.1"));
    eprintln!("address of a killed host: reached after {took:?}");
    throughout(Duration::from_millis(500), "it goes on", || third.pings("10.2.1.1"));
}
