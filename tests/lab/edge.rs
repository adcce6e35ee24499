//! The way in and out: `expose`, `hide`, `publish`, `--gateway`, beside other firewalls, and nothing of it left afterwards.

use crate::room::{Host, RNET, Room, SOON};
use crate::wait::{throughout, until};
use std::time::Duration;

crate::facts![
    host_is_on_the_network_both_ways_until_it_is_hidden,
    host_is_on_an_ipv6_network_without_link_local_on_others,
    exposure_survives_a_killed_router_and_a_stop_takes_it_off,
    attachment_gets_out_masqueraded_through_its_gateway,
    without_masquerade_the_outside_routes_to_the_network,
    published_port_is_reached_from_outside_and_from_the_host,
    published_udp_port_is_reached_from_outside_and_from_the_host,
    published_ipv6_port_is_reached,
    taken_port_and_missing_exposure_are_refused_in_one_line,
    flushed_ruleset_is_put_back,
    exposed_networks_do_not_reach_one_another,
    loopback_of_the_host_is_not_reached_from_a_network,
    frames_pass_where_docker_drops_what_is_forwarded,
    bridged_frames_pass_where_forwarded_packets_are_dropped,
    reset_leaves_no_rule_and_switches_forwarding_back,
    overlap_with_an_interface_of_the_host_is_refused,
    without_nft_only_what_needs_it_is_refused,
    run_without_network_and_with_the_hosts,
    run_in_the_namespace_of_another,
    networks_are_added_to_a_running_command_by_its_name,
];

/// A host alone, with an outside that knows nothing of any network.
fn host_and_outside() -> (Room, Host, Host) {
    let room = Room::new();
    let [a, outside] = room.chain(["a", "lan"]);
    a.launch(&[]);
    (room, a, outside)
}

fn pings(host: &Host, address: &str) -> bool {
    host.run(&["ping", "-nq", "-c1", "-W0.5", address]).code == 0
}

#[track_caller]
fn reaches(host: &Host, address: &str) {
    until(SOON, &format!("{address} answers {}", host.name), || pings(host, address));
}

#[track_caller]
fn never_reaches(host: &Host, address: &str) {
    throughout(Duration::from_millis(700), &format!("{address} does not answer {}", host.name), || {
        !pings(host, address)
    });
}

/// A server that answers each connection with the address that it comes from.
const WHO_TCP: &str = "exec python3 -u -c '
import socket
s = socket.create_server((\"::\", 8090), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    c, who = s.accept()
    c.sendall((\"you are \" + who[0].removeprefix(\"::ffff:\") + \"\\n\").encode())
    c.close()
'";

const WHO_UDP: &str = "exec python3 -u -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((\"\", 5353))
while True:
    _, who = s.recvfrom(100)
    s.sendto((\"you are \" + who[0]).encode(), who)
'";

/// What the server at `address` answers; empty if nobody does.
fn ask(host: &Host, address: &str, port: u16) -> String {
    let script = format!(
        "import socket; s = socket.create_connection(('{address}', {port}), 1); s.settimeout(1); print(s.recv(100).decode())"
    );
    host.run(&["python3", "-c", &script]).stdout.trim().to_string()
}

fn ask_udp(host: &Host, address: &str, port: u16) -> String {
    let script = format!(
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.5); s.connect(('{address}', {port})); s.send(b'x'); print(s.recv(100).decode())"
    );
    host.run(&["python3", "-c", &script]).stdout.trim().to_string()
}

#[track_caller]
fn answers(host: &Host, address: &str, port: u16, answer: &str) {
    until(SOON, &format!("{address}:{port} answers {} with {answer}", host.name), || {
        ask(host, address, port) == answer
    });
}

fn table(host: &Host) -> String {
    host.run(&["nft", "list", "table", "inet", "rnet"]).stdout
}

fn bridges(host: &Host) -> Vec<String> {
    host.interfaces().into_iter().filter(|name| name.starts_with("rnb")).collect()
}

fn host_is_on_the_network_both_ways_until_it_is_hidden() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    let (near, far) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    for _ in 0..2 {
        assert_eq!(a.rnet(&["expose", "10.2.1.254/24"]).ok().trim(), "10.2.1.254");
    }
    for container in [&near, &far] {
        container.reaches("10.2.1.254");
    }
    reaches(&a, "10.2.1.1");
    reaches(&a, "10.2.1.2");
    never_reaches(&b, "10.2.1.1");
    let ps = a.rnet(&["ps"]).ok();
    assert!(ps.lines().any(|line| line.starts_with("host:expose ") && line.ends_with("10.2.1.254/24")), "{ps}");
    // The host of the far end joins too: two hosts, one network.
    b.rnet(&["expose", "10.2.1.253/24"]).ok();
    reaches(&a, "10.2.1.253");
    b.rnet(&["expose", "10.2.1.254/24"]).refused(1, &["10.2.1.254", "host:expose"]);

    for expected in ["10.2.1.254", ""] {
        assert_eq!(a.rnet(&["hide"]).ok().trim(), expected);
    }
    near.never_reaches("10.2.1.254");
    never_reaches(&a, "10.2.1.1");
    near.reaches("10.2.1.2");
    assert_eq!(table(&a), "");
    drop(near);
    until(SOON, "nothing is left", || a.interfaces().is_empty());
}

fn host_is_on_an_ipv6_network_without_link_local_on_others() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    let (near, far) = (a.container(&["fd00:1::1/64"]), b.container(&["fd00:1::2/64"]));
    assert_eq!(a.rnet(&["expose", "fd00:1::fe/64", "10.2.1.254/24"]).ok().trim(), "fd00:1::fe 10.2.1.254");
    near.reaches("fd00:1::fe");
    far.reaches("fd00:1::fe");
    reaches(&a, "fd00:1::1");
    reaches(&a, "fd00:1::2");
    let v6: Vec<bool> =
        bridges(&a).iter().map(|b| a.sh(&format!("ip -6 -o address show dev {b}")).is_empty()).collect();
    assert!(v6.contains(&true) && v6.contains(&false), "one bridge has IPv6, the other none: {v6:?}");
    let drops = a.status().drops;
    assert!(!drops.iter().any(|(reason, _)| reason.starts_with("guard")), "the host is not dropped: {drops:?}");
    a.rnet(&["hide", "fd00:1::fe/64"]).ok();
    near.never_reaches("fd00:1::fe");
    let left: String = bridges(&a).iter().map(|b| a.sh(&format!("ip -6 -o address show dev {b}"))).collect();
    assert_eq!(left, "");
}

fn exposure_survives_a_killed_router_and_a_stop_takes_it_off() {
    let (_room, a, outside) = host_and_outside();
    a.rnet(&["expose", "10.2.1.254/24"]).ok();
    a.sh("ip netns add web && ip -n web link set lo up");
    a.rnet(&["attach", "10.2.1.1/24", "--gateway", "netns:web"]).ok();
    a.rnet(&["publish", "8091:8090", "netns:web"]).ok();
    reaches(&a, "10.2.1.1");
    let (before, rules) = (a.status().attachments, table(&a));
    a.murder();
    a.launch(&[]);
    until(SOON, "all is attached again", || a.status().attachments == before);
    reaches(&a, "10.2.1.1");
    until(SOON, "the rules are there again", || table(&a) == rules);
    assert!(a.sh("ip -n web route").contains("default via 10.2.1.254"));
    a.rnet(&["stop"]).ok();
    a.is_clean();
    assert_eq!(table(&a), "");
    a.launch(&[]);
    until(SOON, "all is attached again", || a.status().attachments == before);
    let gateway = outside.toward(&a);
    until(SOON, "it gets out", || a.run(&["ip", "netns", "exec", "web", "ping", "-nqc1", "-W0.5", &gateway]).code == 0);
}

fn attachment_gets_out_masqueraded_through_its_gateway() {
    let (_room, a, outside) = host_and_outside();
    let refused = ["run", "--cidr", "10.2.1.1/24", "--gateway", "--", "true"];
    a.rnet(&refused).refused(1, &["10.2.1.0/24", "rnet expose"]);
    assert_eq!(a.interfaces(), Vec::<String>::new());
    a.rnet(&["expose", "10.2.1.254/24"]).ok();
    let log = a.sh(&format!("cat {}/rnet.log", a.data_dir().display()));
    assert!(log.contains("net.ipv4.ip_forward from 0 to 1"), "{log}");
    let with = a.container_running(&["10.2.1.1/24"], &["--gateway"], "exec sleep 600");
    let without = a.container(&["10.2.1.2/24"]);
    let server = outside.start(&["sh", "-c", WHO_TCP]);
    let address = outside.toward(&a);
    with.reaches(&address);
    without.never_reaches(&address);
    let script = format!("import socket; print(socket.create_connection(('{address}', 8090), 2).recv(100).decode())");
    let seen = with.run(&["python3", "-c", &script]).ok();
    assert_eq!(seen.trim(), format!("you are {}", a.toward(&outside)));
    // The host's own traffic to itself is nobody's way out.
    reaches(&a, "10.2.1.254");
    drop(server);
    a.rnet(&["hide"]).ok();
    with.never_reaches(&address);
}

fn without_masquerade_the_outside_routes_to_the_network() {
    let (_room, a, outside) = host_and_outside();
    a.rnet(&["expose", "--without-masquerade", "10.2.1.254/24"]).ok();
    assert!(!table(&a).contains("masquerade"), "{}", table(&a));
    let container = a.container_running(&["10.2.1.1/24"], &["--gateway"], WHO_TCP);
    let address = outside.toward(&a);
    container.never_reaches(&address);
    outside.sh(&format!("ip route add 10.2.1.0/24 via {}", a.toward(&outside)));
    container.reaches(&address);
    reaches(&outside, "10.2.1.1");
    answers(&outside, "10.2.1.1", 8090, &format!("you are {address}"));
    // Exposed again with it, the same network is masqueraded.
    a.rnet(&["expose", "10.2.1.254/24"]).ok();
    answers(&outside, "10.2.1.1", 8090, "you are 10.2.1.254");
}

fn published_port_is_reached_from_outside_and_from_the_host() {
    let (_room, a, outside) = host_and_outside();
    a.rnet(&["expose", "10.2.1.254/24"]).ok();
    let web = a.container_running(&["10.2.1.1/24"], &["--name", "web", "-p", "8091:8090"], WHO_TCP);
    let address = a.toward(&outside);
    answers(&outside, &address, 8091, "you are 10.2.1.254");
    for own in ["127.0.0.1", &address, "10.2.1.254"] {
        answers(&a, own, 8091, "you are 10.2.1.254");
    }
    // From its own network too.
    let other = a.container(&["10.2.1.2/24"]);
    let script = "import socket; print(socket.create_connection(('10.2.1.254', 8091), 2).recv(100).decode())";
    assert_eq!(other.run(&["python3", "-c", script]).ok().trim(), "you are 10.2.1.254");
    let ps = a.rnet(&["ps", "web"]).ok();
    assert!(ps.contains("10.2.1.1/24 8091->8090/tcp"), "{ps}");
    a.rnet(&["publish", &format!("{address}:8092:8090"), "web"]).ok();
    answers(&outside, &address, 8092, "you are 10.2.1.254");
    assert_eq!(ask(&a, "127.0.0.1", 8092), "");
    a.rnet(&["unpublish", "8091:8090", "web"]).ok();
    assert_eq!(ask(&outside, &address, 8091), "");
    answers(&outside, &address, 8092, "you are 10.2.1.254");
    drop(web);
    until(SOON, "its port ends with it", || !table(&a).contains("8092"));
}

fn published_udp_port_is_reached_from_outside_and_from_the_host() {
    let (_room, a, outside) = host_and_outside();
    a.rnet(&["expose", "10.2.1.254/24"]).ok();
    let _dns = a.container_running(&["10.2.1.1/24"], &["--name", "dns", "--publish", "53:5353/udp"], WHO_UDP);
    let address = a.toward(&outside);
    until(SOON, "the outside is answered", || ask_udp(&outside, &address, 53) == "you are 10.2.1.254");
    for own in ["127.0.0.1", &address] {
        until(SOON, "the host is answered", || ask_udp(&a, own, 53) == "you are 10.2.1.254");
    }
}

fn published_ipv6_port_is_reached() {
    let (_room, a, outside) = host_and_outside();
    a.sh("ip address add fd99::1/64 dev to-lan nodad");
    outside.sh("ip address add fd99::2/64 dev to-a nodad");
    a.rnet(&["expose", "fd00:1::fe/64"]).ok();
    let options = ["--name", "web", "-p", "8091:8090", "--gateway"];
    let web = a.container_running(&["fd00:1::1/64"], &options, WHO_TCP);
    answers(&outside, "fd99::1", 8091, "you are fd00:1::fe");
    answers(&a, "fd99::1", 8091, "you are fd00:1::fe");
    web.reaches("fd99::2");
}

fn taken_port_and_missing_exposure_are_refused_in_one_line() {
    let (_room, a, _outside) = host_and_outside();
    let run = ["run", "--cidr", "10.2.1.1/24", "-p", "8091:8090", "--", "true"];
    a.rnet(&run).refused(1, &["8091:8090", "10.2.1.0/24", "rnet expose"]);
    let _web = a.container_running(&["10.2.1.1/24"], &["--name", "web"], "exec sleep 600");
    a.rnet(&["publish", "8091:8090", "web"]).refused(1, &["8091:8090", "rnet expose"]);
    a.rnet(&["expose", "10.2.1.254/24"]).ok();
    a.rnet(&["publish", "8091:8090", "web"]).ok();
    a.rnet(&["publish", "8091:8090", "web"]).ok();
    let _db = a.container_running(&["10.2.1.2/24"], &["--name", "db"], "exec sleep 600");
    a.rnet(&["publish", "127.0.0.1:8091:1", "db"]).refused(1, &["8091/tcp", "web", "rnet unpublish 8091:8090 web"]);
    a.rnet(&["publish", "6783:1/udp", "db"]).refused(1, &["6783"]);
    a.rnet(&["publish", "8091", "db"]).refused(2, &["8091", "HOSTPORT:PORT"]);
    a.rnet(&["publish", "1:2", "nobody"]).refused(1, &["nobody"]);
}

fn flushed_ruleset_is_put_back() {
    let (_room, a, outside) = host_and_outside();
    a.rnet(&["expose", "10.2.1.254/24"]).ok();
    let _web = a.container_running(&["10.2.1.1/24"], &["-p", "8091:8090"], WHO_TCP);
    let address = a.toward(&outside);
    answers(&outside, &address, 8091, "you are 10.2.1.254");
    let rules = table(&a);
    for blow in [
        "nft flush ruleset",
        "nft delete table inet rnet",
        "nft flush chain inet rnet prerouting",
        "nft add rule inet rnet forward drop",
    ] {
        a.sh(blow);
        until(SOON, &format!("the table is as before: {blow}"), || table(&a) == rules);
        answers(&outside, &address, 8091, "you are 10.2.1.254");
    }
    // Others' tables are theirs.
    a.sh("nft add table inet mine && nft add chain inet mine c");
    a.rnet(&["hide"]).ok();
    assert_eq!(table(&a), "");
    assert!(a.sh("nft list ruleset").contains("table inet mine"));
}

fn exposed_networks_do_not_reach_one_another() {
    let (_room, a, outside) = host_and_outside();
    a.rnet(&["expose", "10.2.1.254/24", "10.2.2.254/24"]).ok();
    let one = a.container_running(&["10.2.1.1/24"], &["--gateway"], "exec sleep 600");
    let two = a.container_running(&["10.2.2.1/24"], &["--gateway"], "exec sleep 600");
    let unexposed = a.container(&["10.2.3.1/24"]);
    reaches(&a, "10.2.1.1");
    reaches(&a, "10.2.2.1");
    one.reaches(&outside.toward(&a));
    one.never_reaches("10.2.2.1");
    two.never_reaches("10.2.1.1");
    // One that makes itself a way to the bridge, and routes back at the outside, gets no packet out of the host.
    for bridge in bridges(&a) {
        let mac = a.sh(&format!("ip -o link show {bridge} | grep -o 'link/ether [0-9a-f:]*' | cut -d' ' -f2"));
        unexposed.sh(&format!(
            "ip neigh replace 10.2.3.99 lladdr {} dev rnet0; ip route replace default via 10.2.3.99",
            mac.trim()
        ));
        outside.sh(&format!("ip route replace 10.2.3.0/24 via {}", a.toward(&outside)));
        a.run(&["ip", "route", "replace", "10.2.3.0/24", "dev", &bridge]);
        for address in [outside.toward(&a).as_str(), "10.2.1.1", "10.2.2.1"] {
            unexposed.never_reaches(address);
        }
        a.run(&["ip", "route", "del", "10.2.3.0/24"]);
    }
}

fn loopback_of_the_host_is_not_reached_from_a_network() {
    let (_room, a, _outside) = host_and_outside();
    a.rnet(&["expose", "10.2.1.254/24"]).ok();
    let _web = a.container_running(&["10.2.1.1/24"], &["-p", "8091:8090"], WHO_TCP);
    let _secret = a.start(&["python3", "-m", "http.server", "--bind", "127.0.0.1", "7777"]);
    until(SOON, "the host's own server answers", || {
        a.run(&["curl", "-sfo", "/dev/null", "http://127.0.0.1:7777/"]).code == 0
    });
    let bad = a.container(&["10.2.1.66/24"]);
    bad.sh("ip address del 127.0.0.1/8 dev lo; ip route del local 127.0.0.0/8 table local 2>/dev/null || true
        echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
        ip route add 127.0.0.0/8 via 10.2.1.254");
    let curl = ["curl", "-sf", "-m", "2", "--interface", "10.2.1.66", "-o", "/dev/null", "http://127.0.0.1:7777/"];
    assert_ne!(bad.run(&curl).code, 0, "the host's loopback answers a network");
}

/// What Docker leaves: forwarded packets are dropped unless somebody says otherwise.
fn drop_forwarded(host: &Host, more: &str) {
    for family in ["ip", "ip6"] {
        host.sh(&format!(
            "nft add table {family} filter
            nft add chain {family} filter FORWARD '{{ type filter hook forward priority filter; policy drop; }}'
            {}",
            more.replace("FAMILY", family)
        ));
    }
}

fn marks(host: &Host) -> usize {
    host.sh("nft list ruleset").matches("comment \"rnet\"").count()
}

fn frames_pass_where_docker_drops_what_is_forwarded() {
    let (_room, a, outside) = host_and_outside();
    drop_forwarded(
        &a,
        "nft add chain FAMILY filter DOCKER-USER; nft add rule FAMILY filter DOCKER-USER return
        nft insert rule FAMILY filter FORWARD counter jump DOCKER-USER",
    );
    a.rnet(&["expose", "10.2.1.254/24"]).ok();
    let web = a.container_running(&["10.2.1.1/24"], &["-p", "8091:8090", "--gateway"], WHO_TCP);
    let other = a.container(&["10.2.1.2/24"]);
    let address = a.toward(&outside);
    let all_well = || {
        answers(&outside, &address, 8091, "you are 10.2.1.254");
        web.reaches(&outside.toward(&a));
        web.reaches("10.2.1.2");
        other.reaches("10.2.1.1");
    };
    all_well();
    assert!(a.sh("nft list chain ip filter DOCKER-USER").contains("comment \"rnet\""));
    // iptables understands them too.
    if a.run(&["sh", "-c", "command -v iptables-nft"]).code == 0 {
        assert!(a.sh("iptables-nft -S DOCKER-USER").contains("--comment rnet -j ACCEPT"));
    }
    for blow in ["nft flush chain ip filter DOCKER-USER", "nft flush chain ip6 filter DOCKER-USER"] {
        let before = marks(&a);
        a.sh(blow);
        until(SOON, "our rules are back", || marks(&a) == before);
    }
    all_well();
    // Docker is taken away and comes again.
    a.sh("nft delete table ip filter; nft delete table ip6 filter");
    drop_forwarded(&a, "");
    until(SOON, "our rules are in the new chain", || marks(&a) > 0);
    all_well();
    a.rnet(&["stop"]).ok();
    assert_eq!(marks(&a), 0);
    assert!(a.sh("nft list chain ip filter FORWARD").contains("policy drop"));
}

fn bridged_frames_pass_where_forwarded_packets_are_dropped() {
    let room = Room::new();
    let a = room.host("a");
    drop_forwarded(&a, "");
    let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    let here = a.run(&["test", "-w", switch]).code == 0;
    for on in [true, false] {
        if here {
            a.sh(&format!("echo {} >{switch}", u8::from(on)));
        }
        a.launch(&[]);
        let (one, two) = (a.container(&["10.2.1.1/24", "fd00:1::1/64"]), a.container(&["10.2.1.2/24", "fd00:1::2/64"]));
        one.reaches("10.2.1.2");
        two.reaches("10.2.1.1");
        one.reaches("fd00:1::2");
        assert_eq!(table(&a), "", "nothing is exposed");
        if here && on {
            assert!(marks(&a) > 0);
            // One rule for frames that stay on their bridge opens nothing else.
            assert!(a.sh("nft list ruleset").lines().filter(|l| l.contains("\"rnet\"")).all(|l| l.contains("oifname")));
        }
        drop((one, two));
        until(SOON, "the bridges are gone", || bridges(&a).is_empty());
        until(SOON, "the rules go with them", || marks(&a) == 0);
        a.rnet(&["stop"]).ok();
    }
}

fn reset_leaves_no_rule_and_switches_forwarding_back() {
    let forward = |host: &Host| {
        let files = "/proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding";
        host.sh(&format!("cat {files}")).split_whitespace().map(str::to_string).collect::<Vec<_>>()
    };
    for murder in [false, true] {
        let (_room, a, _outside) = host_and_outside();
        drop_forwarded(&a, "");
        let (before, rules) = (forward(&a), a.sh("nft list ruleset"));
        a.rnet(&["expose", "10.2.1.254/24", "fd00:1::fe/64"]).ok();
        let _web = a.container_running(&["10.2.1.1/24"], &["-p", "8091:8090"], "exec sleep 600");
        assert_eq!(forward(&a), ["1", "1"]);
        if murder {
            a.murder();
        }
        a.rnet(&["reset", "--force"]).ok();
        a.is_clean();
        assert_eq!((forward(&a), a.sh("nft list ruleset")), (before, rules));
        let left =
            a.sh(&format!("find {} {} -type f 2>/dev/null || true", a.run_dir().display(), a.data_dir().display()));
        assert_eq!(left.trim(), "");
    }
    // What was on before stays on.
    let (_room, a, _outside) = host_and_outside();
    a.sh("echo 1 >/proc/sys/net/ipv4/ip_forward");
    a.rnet(&["expose", "10.2.1.254/24"]).ok();
    a.rnet(&["reset", "--force"]).ok();
    assert_eq!(forward(&a)[0], "1");
}

fn overlap_with_an_interface_of_the_host_is_refused() {
    let (_room, a, outside) = host_and_outside();
    a.rnet(&["expose", "10.200.1.77/24"]).refused(1, &["10.200.1.0/24", "to-lan"]);
    assert_eq!(a.interfaces(), Vec::<String>::new());
    reaches(&a, &outside.toward(&a));
}

fn without_nft_only_what_needs_it_is_refused() {
    let room = Room::new();
    let a = room.host("a");
    a.run(&["env", "PATH=/nowhere", RNET, "launch"]).ok();
    a.rnet(&["expose", "10.2.1.254/24"]).refused(1, &["packet filter", "nft is missing"]);
    assert_eq!(a.interfaces(), Vec::<String>::new());
    assert!(a.status().attachments.is_empty());
    assert_eq!(a.sh("cat /proc/sys/net/ipv4/ip_forward").trim(), "0");
    let (one, _two) = (a.container(&["10.2.1.1/24"]), a.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
}

fn run_without_network_and_with_the_hosts() {
    let room = Room::new();
    let a = room.host("a");
    // Neither needs a router.
    let none = a.rnet(&["run", "--network", "none", "--", "ip", "-o", "link"]).ok();
    assert!(none.contains("lo:") && none.contains("UP") && !none.contains("rnet0"), "{none}");
    let own = a.sh("readlink /proc/self/ns/net");
    assert_eq!(a.rnet(&["run", "--network", "host", "--", "readlink", "/proc/self/ns/net"]).ok(), own);
    assert_ne!(a.rnet(&["run", "--network", "none", "--", "readlink", "/proc/self/ns/net"]).ok(), own);
    assert_eq!(a.rnet(&["run", "--network", "host", "--", "sh", "-c", "exit 7"]).code, 7);
    a.rnet(&["run", "--network", "none", "--cidr", "10.2.1.1/24", "--", "true"]).refused(2, &["--cidr", "none"]);
    a.rnet(&["run", "--network", "host", "-p", "1:1", "--", "true"]).refused(2, &["--publish"]);
    assert_eq!(a.rnet(&["run", "--network", "moon", "--", "true"]).code, 2);
}

fn run_in_the_namespace_of_another() {
    let room = Room::new();
    let a = room.host("a");
    a.launch(&[]);
    let web = a.container_running(&["10.2.1.1/24"], &["--name", "web"], "exec sleep 600");
    let other = a.container(&["10.2.1.2/24"]);
    let seen = a.rnet(&["run", "--join", "web", "--", "ip", "-o", "-4", "address", "show", "rnet0"]).ok();
    assert!(seen.contains("10.2.1.1/24"), "{seen}");
    let mut joined = a.start(&[RNET, "run", "--join", "web", "--", "sleep", "600"]);
    until(SOON, "it runs", || a.others("sleep").len() == 3);
    assert_eq!(a.rnet(&["run", "--join", "web", "--", "sh", "-c", "exit 9"]).code, 9);
    other.reaches("10.2.1.1");
    assert_eq!(a.status().attachments.len(), 2, "who joins is nothing of its own");
    drop(web);
    until(SOON, "the attachment ended", || a.status().attachments.len() == 1);
    assert!(joined.finished().is_none(), "each ends by itself");
    assert_eq!(joined.end("TERM").code, 143);
    a.rnet(&["run", "--join", "web", "--", "true"]).refused(1, &["web"]);
    assert_eq!(a.rnet(&["run", "--join", "web", "--cidr", "10.2.1.1/24", "--", "true"]).code, 2);
}

fn networks_are_added_to_a_running_command_by_its_name() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    let web = a.container_running(&["10.2.1.1/24"], &["--name", "web", "--no-guard"], "exec sleep 600");
    let (one, two) = (b.container(&["10.2.1.2/24"]), b.container(&["10.2.2.2/24"]));
    one.reaches("10.2.1.1");
    let stream = one.stream("10.2.1.1");
    assert_eq!(a.rnet(&["attach", "10.2.2.1/24", "web"]).ok().trim(), "10.2.1.1 10.2.2.1");
    two.reaches("10.2.2.1");
    assert!(web.sh("ip -o -4 address show rnet1").contains("10.2.2.1/24"));
    assert_eq!(a.rnet(&["detach", "10.2.2.1/24", "web"]).ok().trim(), "10.2.2.1");
    two.never_reaches("10.2.2.1");
    stream.unharmed();
    let _other = a.container_running(&["10.2.1.3/24"], &["--name", "web"], "exec sleep 600");
    a.rnet(&["attach", "10.2.2.1/24", "web"]).refused(1, &["several", "pid:"]);
}
