//! Who reaches whom, and by which way: few links, translators, several addresses, lossy lines.

use crate::lan::{Lan, Translated};
use crate::room::{Container, Host, Process, Room, SOON};
use crate::wait::until;
use rnet::node::status::{Connection, ConnectionState, Status};
use std::time::Duration;

crate::facts![
    twelve_hosts_with_three_links_each_talk_directly,
    idle_host_behind_a_translator_is_reached_and_a_new_address_of_it_is_survived,
    two_behind_translators_meet_directly_where_ports_are_kept,
    two_behind_translators_with_random_ports_are_relayed_and_told_so,
    another_address_takes_over_when_a_line_dies,
    ipv6_takes_over_from_ipv4,
    lossy_line_is_left_within_ten_seconds,
    addresses_that_nobody_can_reach_are_refused_at_launch,
];

/// The connection of `host` to the peer of that name.
fn connection(status: &Status, peer: &str) -> Option<Connection> {
    let is = |c: &&Connection| c.peer.as_ref().is_some_and(|(_, nickname)| nickname.as_str() == peer);
    status.connections.iter().find(is).cloned()
}

#[track_caller]
fn becomes(host: &Host, peer: &str, state: ConnectionState, limit: Duration) {
    until(limit, &format!("{} has {peer} as {state:?}", host.name), || {
        connection(&host.status(), peer).is_some_and(|c| c.state == state)
    });
}

/// Sends an echo request each 50 ms; the longest time without an answer, in milliseconds, once it is ended.
struct Beat(Process);

impl Beat {
    fn start(from: &Container<'_>, to: &str) -> Beat {
        from.reaches(to);
        Beat(from.start(&["ping", "-n", "-D", "-i0.05", "-W1", to]))
    }

    fn longest_gap(self) -> u64 {
        let outcome = self.0.end("INT");
        let times: Vec<f64> = (outcome.stdout.lines())
            .filter(|line| line.contains("icmp_seq"))
            .filter_map(|line| line.strip_prefix('[')?.split_once(']')?.0.parse().ok())
            .collect();
        assert!(times.len() > 20, "{outcome:?}");
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        (longest * 1000.0) as u64
    }
}

fn twelve_hosts_with_three_links_each_talk_directly() {
    let room = Room::new();
    let lan = Lan::new(&room, "10.201.0");
    let hosts: Vec<Host> = (0..12).map(|n| room.host(&format!("h{n}"))).collect();
    let addresses: Vec<String> = hosts.iter().map(|host| lan.plug(host, "eth0")).collect();
    let password = room.path("pw");
    for (n, host) in hosts.iter().enumerate() {
        let peers: Vec<&str> = addresses.iter().take(n.min(1)).map(String::as_str).collect();
        host.launch_with(&["--password-file", &password, "--conn-limit", "3"], &peers).ok();
    }
    let reached = |host: &Host| host.status().peers.iter().filter(|peer| peer.reachable).count();
    until(Duration::from_secs(60), "all know all", || hosts.iter().all(|host| reached(host) == 12));
    let established = |s: &Status| s.connections.iter().filter(|c| c.state == ConnectionState::Established).count();
    assert!(hosts.iter().all(|host| established(&host.status()) <= 3));
    let first = hosts[0].container(&["10.2.1.1/24"]);
    let without_link = |name: &str| {
        let linked = connection(&hosts[0].status(), name);
        linked.is_none_or(|c| !matches!(c.state, ConnectionState::Established | ConnectionState::Pending))
    };
    let far: Vec<&Host> = hosts[1..].iter().filter(|host| without_link(&host.name)).take(4).collect();
    for (n, host) in far.iter().enumerate() {
        let address = format!("10.2.1.{}", n + 2);
        let container = host.container(&[&format!("{address}/24")]);
        first.reaches(&address);
        becomes(&hosts[0], &host.name, ConnectionState::Direct, SOON);
        becomes(host, "h0", ConnectionState::Direct, SOON);
        let stream = first.stream(&address);
        std::thread::sleep(Duration::from_secs(1));
        stream.unharmed();
        let text = hosts[0].rnet(&["status", "connections"]).ok();
        assert!(text.lines().any(|line| line.contains(&host.name) && line.contains(" direct ")), "{text}");
        drop(container);
    }
}

/// A host in the open, and one or two behind translators that dial it.
fn translated(room: &Room, how: &str, names: &[(&str, u8)]) -> (Host, Lan, Vec<Translated>) {
    let lan = Lan::new(room, "10.201.0");
    let open = room.host("open");
    let address = lan.plug(&open, "eth0");
    open.launch(&[]);
    let behind: Vec<Translated> = names.iter().map(|name| Translated::new(room, &lan, *name, how)).collect();
    behind.iter().for_each(|t| t.host.launch(&[&address]));
    open.linked(names.len());
    (open, lan, behind)
}

fn idle_host_behind_a_translator_is_reached_and_a_new_address_of_it_is_survived() {
    for how in ["", "random"] {
        let room = Room::new();
        let (open, _lan, behind) = translated(&room, how, &[("hidden", 1)]);
        let hidden = &behind[0];
        let server = hidden.host.container(&["10.2.1.2/24"]);
        let client = open.container(&["10.2.1.1/24"]);
        client.reaches("10.2.1.2");
        // Mappings last 5 s here: nothing but heartbeats passes for longer than that.
        std::thread::sleep(Duration::from_secs(12));
        assert!(client.pings("10.2.1.2"), "at once, after silence");
        let mut echo = server.start(&["python3", "-u", "-c", ECHO]);
        until(SOON, "the server listens", || echo.stdout().contains("ready"));
        let talk = client.start(&["python3", "-u", "-c", TALK, "10.2.1.2"]);
        let beat = Beat::start(&client, "10.2.1.2");
        std::thread::sleep(Duration::from_secs(2));
        hidden.moves_to("10.201.0.2", "10.201.0.77");
        std::thread::sleep(Duration::from_secs(9));
        let gap = beat.longest_gap();
        assert!(gap < 2000, "{how}: {gap} ms without an answer");
        let said = talk.finish(SOON);
        assert!(said.code == 0 && said.stdout.contains("all came back"), "{said:?}");
        assert!(echo.finished().is_none());
        let endpoint = connection(&open.status(), "hidden").and_then(|c| c.path).map(|path| path.endpoint.to_string());
        assert!(endpoint.clone().is_some_and(|endpoint| endpoint.starts_with("10.201.0.77:")), "{endpoint:?}");
    }
}

/// Echoes whatever one connection says.
const ECHO: &str = "
import socket
s = socket.create_server(('', 7777)); print('ready')
c, _ = s.accept()
while True:
    data = c.recv(100)
    if not data: break
    c.sendall(data)
s.accept()
";

/// Says something 20 times a second for ten seconds over one connection, and hears it back.
const TALK: &str = "
import socket, sys, time
c = socket.create_connection((sys.argv[1], 7777)); c.settimeout(8)
for n in range(200):
    word = b'%06d' % n
    c.sendall(word)
    back = b''
    while len(back) < 6: back += c.recv(6 - len(back))
    assert back == word
    time.sleep(0.05)
print('all came back')
";

fn two_behind_translators_meet_directly_where_ports_are_kept() {
    let room = Room::new();
    let (_open, _lan, behind) = translated(&room, "", &[("one", 1), ("two", 2)]);
    let (one, two) = (&behind[0].host, &behind[1].host);
    let _server = two.container(&["10.2.1.2/24"]);
    let client = one.container(&["10.2.1.1/24"]);
    client.reaches("10.2.1.2");
    becomes(one, "two", ConnectionState::Direct, SOON);
    becomes(two, "one", ConnectionState::Direct, SOON);
    let stream = client.stream("10.2.1.2");
    std::thread::sleep(Duration::from_secs(2));
    stream.unharmed();
}

fn two_behind_translators_with_random_ports_are_relayed_and_told_so() {
    let room = Room::new();
    let (_open, _lan, behind) = translated(&room, "random", &[("one", 1), ("two", 2)]);
    let (one, two) = (&behind[0].host, &behind[1].host);
    let _server = two.container(&["10.2.1.2/24"]);
    let client = one.container(&["10.2.1.1/24"]);
    let stream = client.stream("10.2.1.2");
    until(SOON, "the relay is told, and why", || {
        connection(&one.status(), "two").is_some_and(|c| {
            let via = c.via.is_some_and(|(_, nickname)| nickname.as_str() == "open");
            c.state == ConnectionState::Relayed && via && c.info.contains("no answer over UDP")
        })
    });
    let text = one.rnet(&["status", "connections"]).ok();
    assert!(text.contains("relayed") && text.contains("(open) no answer over UDP"), "{text}");
    stream.unharmed();
}

/// Two hosts on two switches; cuts the first.
fn takes_over(first: &str, second: &str) {
    let room = Room::new();
    let (one_lan, other_lan) = (Lan::new(&room, first), Lan::new(&room, second));
    let (a, b) = (room.host("a"), room.host("b"));
    let (_, dialled) = (one_lan.plug(&a, "eth0"), one_lan.plug(&b, "eth0"));
    other_lan.plug(&a, "eth1");
    let other = other_lan.plug(&b, "eth1");
    b.launch(&[]);
    a.launch(&[&dialled]);
    a.linked(1);
    let _server = b.container(&["10.2.1.2/24"]);
    let client = a.container(&["10.2.1.1/24"]);
    client.reaches("10.2.1.2");
    // The other address is known to answer.
    std::thread::sleep(Duration::from_secs(3));
    let beat = Beat::start(&client, "10.2.1.2");
    std::thread::sleep(Duration::from_secs(1));
    one_lan.cut(2);
    std::thread::sleep(Duration::from_secs(7));
    let gap = beat.longest_gap();
    assert!(gap < 3500, "{gap} ms without an answer");
    // The link too is made anew, by the address that is left.
    until(SOON, "a link by the other address", || {
        let c = connection(&a.status(), "b").filter(|c| c.state == ConnectionState::Established);
        c.and_then(|c| c.path).is_some_and(|path| path.endpoint.ip().to_string() == other)
    });
}

fn another_address_takes_over_when_a_line_dies() {
    takes_over("10.201.0", "10.203.0");
}

fn ipv6_takes_over_from_ipv4() {
    takes_over("10.201.0", "fd00:201:");
}

fn lossy_line_is_left_within_ten_seconds() {
    let room = Room::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| room.host(name));
    room.join(&a, &b);
    room.join(&b, &c);
    room.join(&a, &c);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    c.launch(&[&a.toward(&c), &b.toward(&c)]);
    [&a, &b, &c].into_iter().for_each(|host| host.linked(2));
    let _server = b.container(&["10.2.1.2/24"]);
    let client = a.container(&["10.2.1.1/24"]);
    client.reaches("10.2.1.2");
    let stream = client.start(&["ping", "-nq", "-i0.02", "10.2.1.2"]);
    let via = |from: &Host, to: &str| {
        let status = from.status();
        let via = status.peers.iter().find(|peer| peer.nickname.as_str() == to)?.via?;
        status.peers.iter().find(|peer| peer.name == via).map(|peer| peer.nickname.to_string())
    };
    // Sizes are being searched for.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(via(&a, "b").as_deref(), Some("b"));
    for (from, to) in [(&a, "to-b"), (&b, "to-a")] {
        // As netem would, where the kernel has none.
        from.sh(&format!(
            "nft add table inet lossy && \
             nft 'add chain inet lossy in {{ type filter hook input priority -300; }}' && \
             nft add rule inet lossy in iifname {to} udp dport 6783 numgen random mod 20 0 drop"
        ));
    }
    until(Duration::from_secs(10), "a and b talk by way of c", || {
        via(&a, "b").as_deref() == Some("c") && via(&b, "a").as_deref() == Some("c")
    });
    drop(stream);
    client.stream("10.2.1.2").unharmed();
}

fn addresses_that_nobody_can_reach_are_refused_at_launch() {
    let room = Room::new();
    let host = room.host("h");
    let facts = [
        ("--advertise", "127.0.0.1", "is a loopback address"),
        ("--advertise", "ff02::1", "is a multicast address"),
        ("--advertise", "myname", "an IP address is needed"),
        ("--interface-filter", "e*h", "interface names"),
    ];
    for (option, value, words) in facts {
        host.launch_with(&[option, value], &[]).refused(2, &[option, words]);
    }
    host.launch_with(&["--advertise", "192.0.2.7:7000", "--interface-filter", "!tun0", "--listen", "0.0.0.0"], &[])
        .ok();
}
