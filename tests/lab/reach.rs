//! Who reaches whom, and by which way: few links, translators, several addresses, lossy lines.

use crate::lan::{Lan, Translated};
use crate::room::{Container, Host, Process, Room, SOON};
use crate::wait::until;
use rnet::node::status::{Connection, ConnectionState, Status};
use rnet::types::Framing;
use std::time::{Duration, Instant};

crate::facts![
    twelve_hosts_with_three_links_each_talk_directly,
    idle_host_behind_a_translator_is_reached_and_a_new_address_of_it_is_survived,
    idle_host_behind_a_translator_is_reached_and_a_new_address_of_it_is_survived_without_a_password,
    two_behind_translators_meet_directly_where_ports_are_kept,
    two_behind_translators_with_random_ports_are_relayed_and_told_so,
    answers_leave_from_the_address_that_was_reached,
    another_address_takes_over_when_a_line_dies,
    another_address_takes_over_when_a_line_dies_without_a_password,
    ipv6_takes_over_from_ipv4,
    ipv6_takes_over_from_ipv4_without_a_password,
    ipv6_alone_carries_a_mesh,
    where_two_have_no_family_in_common_a_third_hands_on,
    lossy_line_is_left_within_ten_seconds,
    name_with_a_dead_address_and_a_live_one_is_reached_by_the_live_one,
    name_is_resolved_again_at_every_try,
    advertised_address_is_where_others_dial,
    address_that_is_not_listened_on_is_neither_told_nor_answered,
    filtered_interface_is_not_told_and_not_used,
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

    /// Waits until so many more are answered.
    #[track_caller]
    fn goes_on(&self, answers: usize) {
        let count = || self.0.stdout().matches("icmp_seq=").count();
        let enough = count() + answers;
        until(SOON, "requests are answered", || count() >= enough);
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

/// Both ends have a direct path within a second of the first packet, and what it takes to look.
#[track_caller]
fn meet_soon(one: &Host, other: &Host, began: Instant) {
    becomes(one, &other.name, ConnectionState::Direct, SOON);
    becomes(other, &one.name, ConnectionState::Direct, SOON);
    let took = began.elapsed();
    assert!(took < Duration::from_millis(1500), "{} and {}: {took:?}", one.name, other.name);
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
        let began = Instant::now();
        first.reaches(&address);
        meet_soon(&hosts[0], host, began);
        first.stream(&address).unharmed();
        let text = hosts[0].rnet(&["status", "connections"]).ok();
        assert!(text.lines().any(|line| line.contains(&host.name) && line.contains(" direct ")), "{text}");
        drop(container);
    }
}

/// Launches a router, encrypted or not.
#[track_caller]
fn launch(host: &Host, encrypted: bool, room: &Room, peers: &[&str]) {
    match encrypted {
        true => host.launch_with(&["--password-file", &room.path("pw")], peers).ok(),
        false => host.launch_with(&[], peers).ok(),
    };
}

/// A host in the open, and one or two behind translators that dial it.
fn translated(room: &Room, how: &str, names: &[(&str, u8)], encrypted: bool) -> (Host, Lan, Vec<Translated>) {
    let lan = Lan::new(room, "10.201.0");
    let open = room.host("open");
    let address = lan.plug(&open, "eth0");
    launch(&open, encrypted, room, &[]);
    let behind: Vec<Translated> = names.iter().map(|name| Translated::new(room, &lan, *name, how)).collect();
    behind.iter().for_each(|t| launch(&t.host, encrypted, room, &[&address]));
    open.linked(names.len());
    (open, lan, behind)
}

fn idle_host_behind_a_translator_is_reached_and_a_new_address_of_it_is_survived() {
    survives_a_new_address(true);
}

fn idle_host_behind_a_translator_is_reached_and_a_new_address_of_it_is_survived_without_a_password() {
    survives_a_new_address(false);
}

fn survives_a_new_address(encrypted: bool) {
    for how in ["", "random"] {
        let room = Room::new();
        let (open, _lan, behind) = translated(&room, how, &[("hidden", 1)], encrypted);
        let hidden = &behind[0];
        let server = hidden.host.container(&["10.2.1.2/24"]);
        let client = open.container(&["10.2.1.1/24"]);
        client.reaches("10.2.1.2");
        // Mappings last 5 s here: nothing but heartbeats passes for longer than that.
        hidden.outlasts_mappings("10.201.0.1");
        assert!(hidden.remembers(6783) > 0 && client.pings("10.2.1.2"), "at once, after silence");
        let talk = Talk::start(&client, &server, "10.2.1.2");
        let beat = Beat::start(&client, "10.2.1.2");
        beat.goes_on(20);
        hidden.moves_to("10.201.0.2", "10.201.0.77");
        beat.goes_on(20);
        let gap = beat.longest_gap();
        assert!(gap < 2000, "{how}: {gap} ms without an answer");
        talk.ends_well();
        let endpoint = connection(&open.status(), "hidden").and_then(|c| c.path).map(|path| path.endpoint.to_string());
        assert!(endpoint.clone().is_some_and(|endpoint| endpoint.starts_with("10.201.0.77:")), "{endpoint:?}");
    }
}

/// One TCP connection between containers, over which somebody talks for ten seconds.
struct Talk {
    echo: Process,
    talk: Process,
}

impl Talk {
    #[track_caller]
    fn start(client: &Container<'_>, server: &Container<'_>, to: &str) -> Talk {
        let echo = server.start(&["python3", "-u", "-c", ECHO]);
        until(SOON, "the server listens", || echo.stdout().contains("ready"));
        let talk = client.start(&["python3", "-u", "-c", TALK, to]);
        until(SOON, "they talk", || talk.stdout().contains("begun"));
        Talk { echo, talk }
    }

    /// Panics unless all that was said came back by the same connection.
    #[track_caller]
    fn ends_well(mut self) {
        let said = self.talk.finish(SOON);
        assert!(said.code == 0 && said.stdout.contains("all came back"), "{said:?}");
        assert!(self.echo.finished().is_none());
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
    if n == 0: print('begun')
    time.sleep(0.05)
print('all came back')
";

fn two_behind_translators_meet_directly_where_ports_are_kept() {
    let room = Room::new();
    let (_open, _lan, behind) = translated(&room, "", &[("one", 1), ("two", 2)], true);
    let (one, two) = (&behind[0].host, &behind[1].host);
    let _server = two.container(&["10.2.1.2/24"]);
    let client = one.container(&["10.2.1.1/24"]);
    let began = Instant::now();
    client.reaches("10.2.1.2");
    meet_soon(one, two, began);
    client.stream("10.2.1.2").unharmed();
}

fn two_behind_translators_with_random_ports_are_relayed_and_told_so() {
    let room = Room::new();
    let (_open, _lan, behind) = translated(&room, "random", &[("one", 1), ("two", 2)], true);
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

/// A private address that the kernel answers from, and a public one that is dialled: a translator lets in what comes from there
/// only.
fn answers_leave_from_the_address_that_was_reached() {
    let (room, public) = (Room::new(), "203.0.113.1");
    let lan = Lan::new(&room, "10.201.0");
    let open = room.host("open");
    let private = lan.plug(&open, "eth0");
    open.sh(&format!("ip address add {public}/32 dev eth0"));
    let Translated { host: hidden, nat } = Translated::new(&room, &lan, ("hidden", 1), "");
    nat.sh(&format!(
        "ip route add {public} via {private} && \
         nft 'add chain ip nat onward {{ type filter hook forward priority 0; }}' && \
         nft add rule ip nat onward ip daddr {private} drop"
    ));
    open.launch(&[]);
    hidden.launch(&[public]);
    open.linked(1);
    hidden.linked(1);
    let _server = hidden.container(&["10.2.1.2/24"]);
    let client = open.container(&["10.2.1.1/24"]);
    client.stream("10.2.1.2").unharmed();
    let endpoint = connection(&hidden.status(), "open").and_then(|c| c.path).map(|path| path.endpoint.ip().to_string());
    assert_eq!(endpoint.as_deref(), Some(public));
}

/// Datagrams of the mesh that come in by an interface.
struct Counted<'h>(&'h Host);

impl Counted<'_> {
    fn on<'h>(host: &'h Host, interface: &str) -> Counted<'h> {
        host.sh(&format!(
            "nft add table inet counted && \
             nft 'add chain inet counted in {{ type filter hook input priority -300; }}' && \
             nft add rule inet counted in iifname {interface} udp dport 6783 counter"
        ));
        Counted(host)
    }

    #[track_caller]
    fn count(&self) -> u64 {
        let rules = self.0.sh("nft list chain inet counted in");
        let count = rules.split("packets ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        count.expect("a counter")
    }
}

/// Two hosts on two switches; cuts the first.
fn takes_over(first: &str, second: &str, encrypted: bool) {
    let room = Room::new();
    let (one_lan, other_lan) = (Lan::new(&room, first), Lan::new(&room, second));
    let (a, b) = (room.host("a"), room.host("b"));
    let (_, dialled) = (one_lan.plug(&a, "eth0"), one_lan.plug(&b, "eth0"));
    other_lan.plug(&a, "eth1");
    let other = other_lan.plug(&b, "eth1");
    let eth1 = Counted::on(&a, "eth1");
    launch(&b, encrypted, &room, &[]);
    launch(&a, encrypted, &room, &[&dialled]);
    a.linked(1);
    let server = b.container(&["10.2.1.2/24"]);
    let client = a.container(&["10.2.1.1/24"]);
    let (talk, beat) = (Talk::start(&client, &server, "10.2.1.2"), Beat::start(&client, "10.2.1.2"));
    until(SOON, "the other address is checked, and answers", || eth1.count() >= 2);
    beat.goes_on(20);
    if !encrypted {
        let better = |host: &Host, peer: &str| {
            let path = connection(&host.status(), peer).and_then(|c| c.path);
            path.is_some_and(|path| path.framing != Framing::Udp)
        };
        until(SOON, "VXLAN carries the frames", || better(&a, "b") && better(&b, "a"));
    }
    one_lan.cut(2);
    beat.goes_on(20);
    let gap = beat.longest_gap();
    assert!(gap < 3000, "{gap} ms without an answer");
    talk.ends_well();
    // The link too is made anew, by the address that is left.
    until(SOON, "a link by the other address", || {
        let c = connection(&a.status(), "b").filter(|c| c.state == ConnectionState::Established);
        c.and_then(|c| c.path).is_some_and(|path| path.endpoint.ip().to_string() == other)
    });
}

fn another_address_takes_over_when_a_line_dies() {
    takes_over("10.201.0", "10.203.0", true);
}

fn another_address_takes_over_when_a_line_dies_without_a_password() {
    takes_over("10.201.0", "10.203.0", false);
}

fn ipv6_takes_over_from_ipv4() {
    takes_over("10.201.0", "fd00:201:", true);
}

fn ipv6_takes_over_from_ipv4_without_a_password() {
    takes_over("10.201.0", "fd00:201:", false);
}

fn ipv6_alone_carries_a_mesh() {
    let room = Room::new();
    let lan = Lan::new(&room, "fd00:201:");
    let hosts = ["a", "b", "c"].map(|name| room.host(name));
    let addresses: Vec<String> = hosts.iter().map(|host| lan.plug(host, "eth0")).collect();
    hosts[0].launch(&[]);
    hosts[1..].iter().for_each(|host| host.launch(&[&addresses[0]]));
    hosts.iter().for_each(|host| host.linked(2));
    let _server = hosts[2].container(&["10.2.1.2/24"]);
    hosts[1].container(&["10.2.1.1/24"]).stream("10.2.1.2").unharmed();
    let endpoint = connection(&hosts[1].status(), "c").and_then(|c| c.path).map(|path| path.endpoint.ip().to_string());
    assert_eq!(endpoint.as_deref(), Some(addresses[2].as_str()));
}

fn where_two_have_no_family_in_common_a_third_hands_on() {
    let room = Room::new();
    let (old, new) = (Lan::new(&room, "10.201.0"), Lan::new(&room, "fd00:201:"));
    let [a, b, c] = ["a", "b", "c"].map(|name| room.host(name));
    old.plug(&a, "eth0");
    let (by_old, by_new) = (old.plug(&b, "eth0"), new.plug(&b, "eth1"));
    new.plug(&c, "eth0");
    b.launch(&[]);
    a.launch(&[&by_old]);
    c.launch(&[&by_new]);
    b.linked(2);
    let _server = c.container(&["10.2.1.2/24"]);
    let client = a.container(&["10.2.1.1/24"]);
    let stream = client.stream("10.2.1.2");
    until(SOON, "the relay is told, and why", || {
        connection(&a.status(), "c").is_some_and(|c| {
            let via = c.via.is_some_and(|(_, nickname)| nickname.as_str() == "b");
            c.state == ConnectionState::Relayed && via && c.info.contains("no answer over UDP")
        })
    });
    stream.unharmed();
}

/// Gives a host names of its own.
fn names(host: &Host, lines: &str) {
    let file = host.data_dir().with_file_name("hosts");
    std::fs::write(&file, format!("127.0.0.1 localhost\n{lines}\n")).unwrap();
    host.sh(&format!("mountpoint -q /etc/hosts || mount --bind {} /etc/hosts", file.display()));
}

/// Nobody is there and nobody says so: whoever dials it waits.
fn is_silent(host: &Host, address: &str) {
    host.sh(&format!("ip neighbour replace {address} lladdr 02:00:00:00:00:99 dev eth0 nud permanent"));
}

fn name_with_a_dead_address_and_a_live_one_is_reached_by_the_live_one() {
    // Our own is among them too, where all hosts of a mesh have one name.
    for order in [["10.201.0.99", "10.201.0.2", "10.201.0.1"], ["10.201.0.2", "10.201.0.1", "10.201.0.99"]] {
        let room = Room::new();
        let lan = Lan::new(&room, "10.201.0");
        let [a, b] = ["a", "b"].map(|name| room.host(name));
        [&a, &b].into_iter().for_each(|host| _ = lan.plug(host, "eth0"));
        is_silent(&b, "10.201.0.99");
        names(&b, &order.map(|address| format!("{address} mesh.example")).join("\n"));
        a.launch(&[]);
        b.launch(&["mesh.example"]);
        // One address alone would take five seconds, after which the next try were the same.
        until(Duration::from_secs(3), "the live one is linked", || {
            connection(&b.status(), "a").is_some_and(|c| c.state == ConnectionState::Established)
        });
        let status = b.status();
        assert_eq!(status.targets.iter().map(ToString::to_string).collect::<Vec<_>>(), ["mesh.example"]);
        assert_eq!(connection(&status, "a").unwrap().path.unwrap().endpoint.to_string(), "10.201.0.1:6783");
    }
}

fn name_is_resolved_again_at_every_try() {
    let room = Room::new();
    let lan = Lan::new(&room, "10.201.0");
    let [a, b, other] = ["a", "b", "other"].map(|name| room.host(name));
    [&a, &b, &other].into_iter().for_each(|host| _ = lan.plug(host, "eth0"));
    names(&b, "");
    a.launch(&[]);
    b.launch(&["mesh.example"]);
    b.told(&["no such name"]);
    // Somebody else's machine, where nobody listens; then our own.
    names(&b, "10.201.0.3 mesh.example");
    b.told(&["connection refused"]);
    names(&b, "10.201.0.2 mesh.example");
    b.told(&["ourselves"]);
    names(&b, "10.201.0.1 mesh.example");
    b.linked(1);
    // It moves, and the name with it: the link by the old address breaks, and the next try finds it.
    a.sh("ip address del 10.201.0.1/24 dev eth0 && ip address add 10.201.0.50/24 dev eth0");
    a.murder();
    names(&b, "10.201.0.50 mesh.example");
    a.launch(&[]);
    until(2 * SOON, "linked at the new address", || {
        let c = connection(&b.status(), "a").filter(|c| c.state == ConnectionState::Established);
        c.and_then(|c| c.path).is_some_and(|path| path.endpoint.to_string() == "10.201.0.50:6783")
    });
}

fn advertised_address_is_where_others_dial() {
    let room = Room::new();
    let lan = Lan::new(&room, "10.201.0");
    let [open, far] = ["open", "far"].map(|name| room.host(name));
    let meeting = lan.plug(&open, "eth0");
    lan.plug(&far, "eth0");
    let Translated { host: hidden, nat } = Translated::new(&room, &lan, ("hidden", 1), "");
    // As a router at home: what comes in for one port outside is for the host inside.
    nat.sh("nft 'add chain ip nat before { type nat hook prerouting priority -100; }' && \
         nft add rule ip nat before iifname out tcp dport 7000 dnat to 10.202.1.2:6783 && \
         nft add rule ip nat before iifname out udp dport 7000 dnat to 10.202.1.2:6783");
    let (password, outside) = (room.path("pw"), "10.201.0.3:7000");
    open.launch(&[]);
    let options = ["--password-file", &password, "--advertise", outside, "--no-discovery"];
    hidden.launch_with(&options, &[&meeting]).ok();
    far.launch(&[&meeting]);
    until(SOON, "whoever only heard of it has a link by the address that is advertised", || {
        let c = connection(&far.status(), "hidden").filter(|c| c.state == ConnectionState::Established);
        c.is_some_and(|c| c.outbound && c.address == outside)
    });
    let _server = hidden.container(&["10.2.1.2/24"]);
    far.container(&["10.2.1.1/24"]).stream("10.2.1.2").unharmed();
}

/// Two hosts on two switches, launched with these options; `b` dials by the first: that alone is told, and nothing goes by the
/// second, not even once the first is dead.
fn keeps_to_the_first(of_a: &[&str], of_b: &[&str]) {
    let room = Room::new();
    let (one_lan, other_lan) = (Lan::new(&room, "10.201.0"), Lan::new(&room, "10.203.0"));
    let (a, b) = (room.host("a"), room.host("b"));
    let (dialled, _) = (one_lan.plug(&a, "eth0"), one_lan.plug(&b, "eth0"));
    other_lan.plug(&a, "eth1");
    other_lan.plug(&b, "eth1");
    let eth1 = Counted::on(&a, "eth1");
    let password = room.path("pw");
    a.launch_with(&[&["--password-file", password.as_str()][..], of_a].concat(), &[]).ok();
    b.launch_with(&[&["--password-file", password.as_str()][..], of_b].concat(), &[&dialled]).ok();
    b.linked(1);
    let _server = a.container(&["10.2.1.2/24"]);
    let client = b.container(&["10.2.1.1/24"]);
    client.reaches("10.2.1.2");
    one_lan.cut(1);
    until(SOON, "the only line is dead", || {
        connection(&b.status(), "a").is_none_or(|c| c.state != ConnectionState::Established)
    });
    assert!(!client.pings("10.2.1.2") && eth1.count() == 0);
}

fn address_that_is_not_listened_on_is_neither_told_nor_answered() {
    keeps_to_the_first(&["--listen", "10.201.0.1"], &[]);
}

fn filtered_interface_is_not_told_and_not_used() {
    keeps_to_the_first(&["--interface-filter", "!eth1"], &["--interface-filter", "eth0"]);
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
    // All six ends of links tell how large datagrams may be, so none is tried any more that is too big; and loss is looked at over
    // a few seconds.
    until(SOON, "sizes are found, and the line in between is the way", || {
        let status = a.status();
        let sizes: Vec<u16> = status.peers.iter().flat_map(|peer| &peer.links).map(|link| link.mtu).collect();
        let lasts = |from: &Host, to: &str| {
            connection(&from.status(), to).and_then(|c| c.path).is_some_and(|path| path.up_for >= 5)
        };
        let is_settled = sizes.len() == 6 && !sizes.contains(&0) && lasts(&a, "b") && lasts(&b, "a");
        is_settled && via(&a, "b").as_deref() == Some("b")
    });
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
