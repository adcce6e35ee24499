//! Addresses that rnet chooses, with real routers: at once, on several hosts, while they are apart, after a kill.

use crate::room::{Container, Host, Room, SOON};
use crate::wait::{throughout, until, within};
use rnet::ipam::IpamStatus;
use std::collections::BTreeSet;
use std::time::Duration;

crate::facts![
    three_hosts_get_addresses_at_once_and_ping,
    run_works_while_the_mesh_is_partitioned,
    killed_router_comes_back_with_addresses_macs_and_traffic,
    process_with_the_number_of_a_dead_one_is_not_attached,
    dead_hosts_space_comes_back_by_rmpeer,
    dead_host_stops_counting_after_reclaim,
    exhausted_subnet_is_told_in_one_line,
    waiting_is_told_and_ends_with_the_client,
    status_ipam_tells_who_owns_what,
    range_over_a_route_of_the_host_is_refused_or_warned_of,
    different_ranges_are_refused_and_told_on_both_sides,
    reset_gives_addresses_to_the_others,
    state_of_an_unknown_layout_is_refused_and_left_alone,
    ipv6_range_gives_addresses_too,
    host_itself_gets_an_address_too,
];

const NET: &str = "net:10.32.2.0/24";

/// All in a line, each launched towards the one before.
fn line<const N: usize>(room: &Room, names: [&'static str; N], options: &[&str]) -> [Host; N] {
    let hosts = room.chain(names);
    let password = room.path("pw");
    let options = [&["--password-file", &password], options].concat();
    for (n, host) in hosts.iter().enumerate() {
        let peers: Vec<String> = n.checked_sub(1).map(|before| hosts[before].toward(host)).into_iter().collect();
        host.launch_with(&options, &peers.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    }
    hosts
}

fn ipam(host: &Host) -> IpamStatus {
    host.status().ipam.expect("address allocation is on")
}

/// Waits until the routers of all hosts count that many members.
fn members(hosts: &[&Host], count: usize) {
    for host in hosts {
        until(SOON, &format!("{} counts {count} members", host.name), || ipam(host).members == count);
    }
}

fn address(container: &Container<'_>) -> String {
    let text = container.sh("ip -o -4 address show rnet0");
    let address = text.split_whitespace().skip_while(|word| *word != "inet").nth(1).expect("an address");
    address.split('/').next().unwrap_or_default().to_string()
}

fn three_hosts_get_addresses_at_once_and_ping() {
    let room = Room::new();
    let hosts = line(&room, ["a", "b", "c"], &[]);
    let containers: Vec<Container<'_>> =
        hosts.iter().flat_map(|h| [h.container(&[NET]), h.container(&[NET])]).collect();
    let addresses: Vec<String> = containers.iter().map(address).collect();
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), 6, "{addresses:?}");
    assert!(addresses.iter().all(|address| address.starts_with("10.32.2.")), "{addresses:?}");
    for other in &addresses {
        containers[0].reaches(other);
        containers[5].reaches(other);
    }
    let out = hosts[1].rnet(&["run", "--cidr", NET, "--", "ping", "-nq", "-c1", "-W2", &addresses[4]]);
    out.ok();
    let out = hosts[0].rnet(&["run", "--", "ip", "-o", "-4", "address", "show", "rnet0"]).ok();
    assert!(out.contains("/12"), "without --cidr an address of the default network: {out}");
}

fn run_works_while_the_mesh_is_partitioned() {
    let room = Room::new();
    let [a, b] = line(&room, ["a", "b"], &[]);
    let (one, two) = (a.container(&[NET]), b.container(&[NET]));
    one.reaches(&address(&two));
    members(&[&a, &b], 2);
    until(SOON, "both have spare addresses", || [&a, &b].iter().all(|h| ipam(h).owners.len() == 2));
    a.sh("ip link set to-b down");
    until(SOON, "a has lost b", || ipam(&a).within_reach == 1);
    let apart: Vec<Container<'_>> =
        [&a, &b].into_iter().flat_map(|host| (0..3).map(move |_| host.container(&[NET]))).collect();
    a.sh("ip link set to-b up");
    let all: Vec<String> = [&one, &two].into_iter().chain(&apart).map(address).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 8, "{all:?}");
    until(Duration::from_secs(60), "they meet again", || one.pings(&all[7]));
}

fn killed_router_comes_back_with_addresses_macs_and_traffic() {
    let room = Room::new();
    let [a, b] = line(&room, ["a", "b"], &[]);
    let (web, db, other) = (a.container(&[NET]), a.container(&[NET]), b.container(&[NET]));
    let far = address(&other);
    web.reaches(&far);
    db.reaches(&far);
    let (before, name) = (a.status().attachments, a.status().name);
    let macs = [web.mac("rnet0"), db.mac("rnet0")];
    // A conversation that nobody restarts: its end is not touched.
    let listener = other.start(&["python3", "-uc", "import socket\ns=socket.create_server(('',7777))\nc,_=s.accept()\nwhile True:\n d=c.recv(99)\n if not d: break\n c.sendall(d)"]);
    let talk = format!(
        "import socket,time\nc=None\nwhile c is None:\n try: c=socket.create_connection(('{far}',7777),5)\n except OSError: time.sleep(0.1)\nn=0\nwhile True:\n c.sendall(b'x'); assert c.recv(1)==b'x'; n+=1; print(n,flush=True); time.sleep(0.05)"
    );
    let mut talker = web.start(&["python3", "-uc", &talk]);
    until(SOON, "they talk", || talker.stdout().lines().count() > 5);
    a.murder();
    a.launch_with(&["--password-file", &room.path("pw"), "--resume"], &[]).ok();
    until(SOON, "both are attached again", || a.status().attachments == before);
    web.reaches(&far);
    db.reaches(&far);
    other.reaches(&address(&web));
    let count = talker.stdout().lines().count();
    until(Duration::from_secs(60), "the conversation goes on", || talker.stdout().lines().count() > count + 5);
    assert!(talker.finished().is_none(), "{:?}", talker.finished());
    drop(listener);
    assert_eq!(a.status().name, name, "the identity is kept");
    assert_eq!([web.mac("rnet0"), db.mac("rnet0")], macs);
    let more = a.container(&[NET]);
    let all: BTreeSet<String> = [&web, &db, &other, &more].into_iter().map(address).collect();
    assert_eq!(all.len(), 4);
}

fn process_with_the_number_of_a_dead_one_is_not_attached() {
    let room = Room::new();
    let [a] = line(&room, ["a"], &[]);
    let process = a.start(&["unshare", "--net", "sleep", "600"]);
    let target = format!("pid:{}", process.pid);
    until(SOON, "it has its namespace", || a.rnet(&["attach", NET, &target]).code == 0);
    a.murder();
    // As if the process had died meanwhile and its number had been given to another one.
    let state = a.data_dir().join("state");
    let text = std::fs::read_to_string(&state).unwrap();
    let body = text.split_once('\n').unwrap().1;
    let at = body.find("\"started\":").unwrap() + 10;
    let digits: String = body[at..].chars().take_while(char::is_ascii_digit).collect();
    let forged = body.replace(&format!("\"started\":{digits}"), "\"started\":7");
    std::fs::write(a.data_dir().join("body"), &forged).unwrap();
    a.sh(&format!(
        "cd {} && sum=$(sha256sum <body | cut -d' ' -f1) && {{ echo rnet-state 1 $sum; cat body; }} >state && rm body",
        a.data_dir().display()
    ));
    a.launch_with(&["--password-file", &room.path("pw")], &[]).ok();
    let log = || std::fs::read_to_string(a.data_dir().join("rnet.log")).unwrap();
    until(SOON, "it is refused", || log().contains("another one has its number"));
    until(SOON, "it is dropped", || a.status().attachments.is_empty() && a.interfaces().is_empty());
    until(SOON, "its address is free", || ipam(&a).owners.iter().all(|owner| owner.used == Some(0)));
}

fn dead_hosts_space_comes_back_by_rmpeer() {
    let room = Room::new();
    let [a, b, c] = line(&room, ["a", "b", "c"], &["--ipalloc-range", "10.40.0.0/24"]);
    let containers = [&a, &b, &c].map(|host| host.container(&["net:10.40.0.0/24"]));
    members(&[&a, &b, &c], 3);
    let dead = c.status().name;
    let taken = address(&containers[2]);
    a.rnet(&["rmpeer", "c"]).refused(1, &["within reach"]);
    c.murder();
    until(SOON, "a has lost c", || ipam(&a).within_reach == 2);
    a.rnet(&["rmpeer", "c"]).ok();
    b.rnet(&["rmpeer", &dead.to_string()]).ok();
    a.rnet(&["rmpeer", "c"]).ok();
    a.rnet(&["rmpeer", "nobody"]).refused(1, &["nobody"]);
    members(&[&a, &b], 2);
    assert!(ipam(&a).owners.iter().all(|owner| owner.peer != dead));
    // What it had can be given to others.
    a.rnet(&["run", "--cidr", &format!("{taken}/24"), "--", "true"]).ok();
}

fn dead_host_stops_counting_after_reclaim() {
    let room = Room::new();
    let [a, b, c] = line(&room, ["a", "b", "c"], &["--ipalloc-reclaim", "3s"]);
    let _containers = [&a, &b, &c].map(|host| host.container(&[NET]));
    members(&[&a, &b, &c], 3);
    c.murder();
    members(&[&a, &b], 2);
    // Of these two, one alone is no majority.
    b.murder();
    until(SOON, "a has lost b", || ipam(&a).within_reach == 1);
    throughout(Duration::from_secs(6), "b counts", || ipam(&a).members == 2);
    a.rnet(&["run", "--cidr", NET, "--", "true"]).ok();
}

fn exhausted_subnet_is_told_in_one_line() {
    let room = Room::new();
    let [a, b] = line(&room, ["a", "b"], &[]);
    members(&[&b], 0);
    let small = "net:10.32.2.0/29";
    let _containers: Vec<Container<'_>> =
        (0..6).map(|n| if n % 2 == 0 { &a } else { &b }.container(&[small])).collect();
    for host in [&a, &b] {
        host.rnet(&["run", "--cidr", small, "--", "true"])
            .refused(1, &["10.32.2.1", "10.32.2.6", "no address is left"]);
    }
    a.rnet(&["run", "--cidr", "net:10.99.0.0/24", "--", "true"])
        .refused(1, &["10.99.0.0/24", "outside", "10.32.0.0/12"]);
    let held = a.status().attachments[0].interfaces[0].addresses[0];
    b.rnet(&["run", "--cidr", &held.to_string(), "--", "true"]).refused(1, &[&held.ip().to_string(), "owned"]);
}

fn waiting_is_told_and_ends_with_the_client() {
    let room = Room::new();
    let [a] = line(&room, ["a"], &["--ipalloc-init", "consensus=3"]);
    let waiting = a.start(&[crate::room::RNET, "run", "--cidr", NET, "--", "true"]);
    let told = within(SOON, "it is in the status", || ipam(&a).waiting.first().cloned());
    assert!(told.why.contains("2 of 3 hosts must agree"), "{told:?}");
    until(SOON, "it says why", || waiting.stderr().contains("2 of 3 hosts must agree"));
    let text = a.rnet(&["status", "ipam"]).ok();
    assert!(text.contains("waiting: pid:") && text.contains("2 of 3 hosts"), "{text}");
    waiting.signal("TERM");
    until(SOON, "nothing waits", || ipam(&a).waiting.is_empty());
    let prime = a.start(&[crate::room::RNET, "prime"]);
    until(SOON, "prime waits", || ipam(&a).waiting.len() == 1);
    drop(prime);
    until(SOON, "nothing waits", || ipam(&a).waiting.is_empty());
}

fn status_ipam_tells_who_owns_what() {
    let room = Room::new();
    let [a, b] = line(&room, ["a", "b"], &["--ipalloc-default-subnet", "10.33.0.0/16"]);
    b.rnet(&["prime"]).ok();
    let (one, _two) = (a.container(&[]), b.container(&["net:default"]));
    assert!(address(&one).starts_with("10.33."));
    members(&[&a, &b], 2);
    let active = |text: &str| text.lines().filter(|line| line.contains("(1 active)")).count();
    until(Duration::from_secs(40), "each has one", || active(&a.rnet(&["status", "ipam"]).ok()) == 2);
    let text = a.rnet(&["status", "ipam"]).ok();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("(a)") && lines[0].contains(" IPs (") && lines[0].contains("% of total)"), "{text}");
    assert!(lines[1].contains("(b)") && lines[2].starts_with("unowned"), "{text}");
    assert!(text.contains("ready: 2 of 2 members within reach, 2 must agree"), "{text}");
    let summary = a.rnet(&["status"]).ok();
    for words in ["Service: ipam", "Status: ready", "Range: 10.32.0.0/12", "DefaultSubnet: 10.33.0.0/16"] {
        assert!(summary.contains(words), "{words}: {summary}");
    }
    until(SOON, "networks count addresses", || a.rnet(&["status", "networks"]).ok().contains("2 addresses"));
    b.murder();
    until(SOON, "b is unreachable", || a.rnet(&["status", "ipam"]).ok().contains("unreachable!"));
}

fn range_over_a_route_of_the_host_is_refused_or_warned_of() {
    let room = Room::new();
    let [a, _b] = room.chain(["a", "b"]);
    let password = room.path("pw");
    a.sh("ip address add 10.40.0.1/24 dev to-b");
    a.launch_with(&["--password-file", &password], &[])
        .refused(1, &["10.32.0.0/12", "10.40.0.0/24", "--ipalloc-range"]);
    let outcome = a.launch_with(&["--password-file", &password, "--ipalloc-range", "10.40.0.0/16"], &[]);
    assert!(outcome.code == 0 && outcome.stderr.contains("10.40.0.0/24"), "{outcome:?}");
    assert_eq!(a.rnet(&["run", "--cidr", "net:10.40.1.0/24", "--", "true"]).code, 0);
}

fn different_ranges_are_refused_and_told_on_both_sides() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    let password = room.path("pw");
    a.launch_with(&["--password-file", &password, "--ipalloc-range", "10.48.0.0/16"], &[]).ok();
    b.launch_with(&["--password-file", &password], &[&a.toward(&b)]).ok();
    for host in [&a, &b] {
        host.told(&["10.48.0.0/16", "10.32.0.0/12", "--ipalloc-range"]);
    }
    for text in ["10.48.0.1/16", "x", "10.48.0.0/16,10.48.1.0/24"] {
        let outcome = b.launch_with(&["--password-file", &password, "--ipalloc-range", text], &[]);
        outcome.refused(2, &["--ipalloc-range"]);
    }
}

fn reset_gives_addresses_to_the_others() {
    let room = Room::new();
    let [a, b, c] = line(&room, ["a", "b", "c"], &[]);
    let _containers = [&a, &b, &c].map(|host| host.container(&[NET]));
    members(&[&a, &b, &c], 3);
    let name = c.status().name;
    let outcome = c.rnet(&["reset"]);
    assert!(outcome.code == 0 && outcome.stderr.is_empty(), "{outcome:?}");
    members(&[&a, &b], 2);
    assert!(ipam(&a).owners.iter().all(|owner| owner.peer != name));
}

fn state_of_an_unknown_layout_is_refused_and_left_alone() {
    let room = Room::new();
    let [a] = line(&room, ["a"], &[]);
    a.rnet(&["stop"]).ok();
    let dir = a.data_dir();
    a.sh(&format!(
        "cd {} && tail -n +2 state | sed 's/\"version\":2/\"version\":99/' >body && sum=$(sha256sum <body | cut -d' ' -f1) && {{ echo rnet-state 1 $sum; cat body; }} >state && rm body",
        dir.display()
    ));
    let before = std::fs::read(dir.join("state")).unwrap();
    a.launch_with(&["--password-file", &room.path("pw")], &[]).refused(1, &["layout 99"]);
    assert_eq!(std::fs::read(dir.join("state")).unwrap(), before);
}

fn ipv6_range_gives_addresses_too() {
    let room = Room::new();
    let [a, b] = line(&room, ["a", "b"], &["--ipalloc-range", "10.32.0.0/12,fd00:32::/48"]);
    let (one, two) = (a.container(&["net:fd00:32:0:1::/64"]), b.container(&["net:fd00:32:0:1::/64", NET]));
    let of = |container: &Container<'_>| {
        let text = container.sh("ip -o -6 address show dev rnet0 scope global");
        let address = text.split_whitespace().skip_while(|word| *word != "inet6").nth(1).unwrap().to_string();
        address.split('/').next().unwrap().to_string()
    };
    assert_ne!(of(&one), of(&two));
    one.reaches(&of(&two));
    a.murder();
    a.launch_with(
        &["--password-file", &room.path("pw"), "--resume", "--ipalloc-range", "10.32.0.0/12,fd00:32::/48"],
        &[],
    )
    .ok();
    one.reaches(&of(&two));
}

fn host_itself_gets_an_address_too() {
    let room = Room::new();
    let [a, b] = line(&room, ["a", "b"], &[]);
    let (one, two) = (a.container(&[NET]), b.container(&[NET]));
    let exposed = a.rnet(&["expose", NET]).ok().trim().to_string();
    assert!(exposed.starts_with("10.32.2.") && exposed != address(&one) && exposed != address(&two), "{exposed}");
    assert_eq!(a.rnet(&["expose", NET]).ok().trim(), exposed);
    two.reaches(&exposed);
    a.murder();
    a.launch_with(&["--password-file", &room.path("pw"), "--resume"], &[]).ok();
    two.reaches(&exposed);
    assert_eq!(a.rnet(&["hide"]).ok().trim(), exposed);
    let used = |host: &Host| ipam(host).owners.iter().find(|o| o.peer == host.status().name).and_then(|o| o.used);
    assert_eq!(used(&a), Some(1), "its address is free again");
}
