//! The whole thing as its user meets it: three hosts in a chain, six commands.

use crate::room::{Host, Room, SOON};
use crate::wait::until;
use std::time::Duration;

crate::facts![
    three_hosts_in_a_chain_ping_and_curl_across_the_relay_and_another_network_does_not,
    peers_that_were_not_named_are_found_by_discovery,
    relay_needs_no_port_on_the_network_that_it_relays,
    ring_of_four_heals_after_a_relay_is_killed_and_after_its_return,
    ring_of_four_heals_after_a_line_falls_silent,
    plain_mesh_carries_traffic_across_the_relay,
    pcap_carries_traffic_as_well_as_a_tap,
];

fn three_hosts_in_a_chain_ping_and_curl_across_the_relay_and_another_network_does_not() {
    let room = Room::new();
    let [a, b, c] = room.chain(["a", "b", "c"]);
    assert_ne!(a.run(&["ping", "-c1", "-W0.3", &c.toward(&b)]).code, 0, "a and c must not have a line");

    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    c.launch(&[&b.toward(&c)]);
    let web = "exec python3 -m http.server 80 --directory /proc/sys/kernel/random";
    let _web = a.container_running(&["10.2.1.1/24"], &["--name", "web"], web);
    let rnet = crate::room::RNET;
    let client = "ping -c3 10.2.1.1 && curl -s --retry 5 --retry-connrefused --max-time 5 10.2.1.1 >/dev/null";
    c.run(&[rnet, "run", "--cidr", "10.2.1.3/24", "--", "sh", "-c", client]).ok();
    let other = c.run(&[rnet, "run", "--cidr", "10.2.2.3/24", "--", "ping", "-c3", "-W1", "10.2.1.1"]);
    assert_ne!(other.code, 0, "another network reaches it: {other:?}");
    assert!(!other.stdout.contains("bytes from"), "{other:?}");
}

fn peers_that_were_not_named_are_found_by_discovery() {
    let room = Room::new();
    let [a, b, c] = room.chain(["a", "b", "c"]);
    room.join(&c, &a);
    // c learns of a from b, by the address that a has on its line to b; this way c can get there without b.
    c.sh(&format!("ip route add {} via {}", a.toward(&b), a.toward(&c)));
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    c.launch(&[&b.toward(&c)]);
    [&a, &b, &c].iter().for_each(|host| host.linked(2));
    assert_eq!(c.status().targets.len(), 1, "what was discovered is not a target of the user's");
}

fn relay_needs_no_port_on_the_network_that_it_relays() {
    let room = Room::new();
    let [a, b, c] = room.chain(["a", "b", "c"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    c.launch(&[&b.toward(&c)]);
    let one = a.container(&["10.2.1.1/24"]);
    let _other = c.container(&["10.2.1.3/24"]);
    one.reaches("10.2.1.3");
    assert_eq!(b.interfaces(), Vec::<String>::new());
    assert!(b.status().traffic.to_net.frames > 0);
}

/// a - b - c - d - a, all linked.
fn ring_of_four() -> (Room, [Host; 4]) {
    let room = Room::new();
    let hosts = room.chain(["a", "b", "c", "d"]);
    let [a, b, c, d] = &hosts;
    room.join(d, a);
    a.launch(&[]);
    b.launch(&[&a.toward(b)]);
    c.launch(&[&b.toward(c)]);
    d.launch(&[&c.toward(d), &a.toward(d)]);
    hosts.iter().for_each(|host| host.linked(2));
    (room, hosts)
}

/// Nobody is told: what is sent into the line is lost, both ways.
fn ring_of_four_heals_after_a_line_falls_silent() {
    let (_room, [a, b, c, d]) = ring_of_four();
    let (one, _other) = (a.container(&["10.2.1.1/24"]), c.container(&["10.2.1.3/24"]));
    one.reaches("10.2.1.3");
    let to_c = a.status().peers.into_iter().find(|peer| peer.nickname.as_str() == "c").and_then(|peer| peer.via);
    let relay = if to_c == Some(b.status().name) { &b } else { &d };
    // The far end is in a namespace that forwards nothing: the near one keeps its carrier and address.
    relay.sh("ip netns add nowhere && ip link set to-a netns nowhere && ip -n nowhere link set to-a up");
    assert!(!one.pings("10.2.1.3"), "the line that was cut was not in use");
    let healed = until(Duration::from_secs(6), "traffic flows the other way round", || one.pings("10.2.1.3"));
    eprintln!("ring of four: healed {healed:?} after a line fell silent");
}

fn ring_of_four_heals_after_a_relay_is_killed_and_after_its_return() {
    let (_room, [a, b, c, d]) = ring_of_four();
    let (one, _other) = (a.container(&["10.2.1.1/24"]), c.container(&["10.2.1.3/24"]));
    one.reaches("10.2.1.3");
    let to_c = a.status().peers.into_iter().find(|peer| peer.nickname.as_str() == "c").and_then(|peer| peer.via);
    let relay = if to_c == Some(b.status().name) { &b } else { &d };
    relay.murder();
    let healed = until(Duration::from_secs(6), "traffic between the dead relay's neighbours flows again", || {
        one.pings("10.2.1.3")
    });
    let peers = if relay.name == "b" { [a.toward(&b), c.toward(&b)] } else { [c.toward(&d), a.toward(&d)] };
    relay.launch(&[&peers[0], &peers[1]]);
    let back = relay.container(&["10.2.1.4/24"]);
    let returned = until(Duration::from_secs(3), "the returned host is reached", || back.pings("10.2.1.1"));
    eprintln!("ring of four: healed {healed:?} after the kill, {returned:?} after the return");
    until(SOON, "both ways", || one.pings("10.2.1.3") && one.pings("10.2.1.4"));
}

fn plain_mesh_carries_traffic_across_the_relay() {
    let room = Room::new();
    let [a, b, c] = room.chain(["a", "b", "c"]);
    a.launch_with(&[], &[]).ok();
    b.launch_with(&[], &[&a.toward(&b)]).ok();
    c.launch_with(&[], &[&b.toward(&c)]).ok();
    let (one, _other) = (a.container(&["10.2.1.1/24"]), c.container(&["10.2.1.3/24"]));
    one.reaches("10.2.1.3");
    assert!(!a.status().encrypted);
}

fn pcap_carries_traffic_as_well_as_a_tap() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    let password = room.path("pw");
    a.launch_with(&["--capture", "pcap", "--password-file", &password], &[]).ok();
    b.launch(&[&a.toward(&b)]);
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    // Bulk, both ways: offloads that a veth pretends to have done would break checksums and sizes here.
    let serve = "import socket,sys\ns=socket.create_server(('',7000));print('ready',flush=True);c,_=s.accept()\nn=0\n\
        while True:\n b=c.recv(65536)\n if not b: break\n n+=len(b)\nc.sendall(str(n).encode())";
    let send = "import socket,sys\nc=socket.create_connection((sys.argv[1],7000),timeout=10);c.settimeout(10)\n\
        c.sendall(b'x'*2000000);c.shutdown(1);print(c.recv(99).decode())";
    for (from, to, address) in [(&one, &two, "10.2.1.2"), (&two, &one, "10.2.1.1")] {
        let server = to.start(&["python3", "-c", serve]);
        until(SOON, "the server listens", || server.stdout().contains("ready"));
        assert_eq!(from.run(&["python3", "-c", send, address]).ok().trim(), "2000000");
    }
    a.rnet(&["stop"]).ok();
    a.is_clean();
}
