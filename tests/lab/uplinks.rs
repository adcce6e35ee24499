//! Interfaces that rnet did not make, brought onto a network: cards, others' bridges; what they may do wrong, and loops.
//!
//! ```text
//!   a ---- mesh ---- b                    s: a host whose bridge br0 is the segment; `cable` draws a line from a host to a port of it
//!   | seg0           | seg0               far: a namespace on br0 with 10.2.1.50 and fd00:1::50
//!   '------ s (br0) -'
//! ```

use crate::room::{Host, RNET, Room, SOON};
use crate::segment::{Place, broadcasts_are_heard_once, bulk, machine};
use crate::wait::{throughout, until, within};
use rnet::node::status::{UplinkCondition, UplinkStatus};
use std::time::Duration;

crate::facts![
    a_segment_is_on_the_network_by_packet,
    a_segment_is_on_the_network_by_pcap,
    a_segment_is_on_an_ipv6_network,
    somebody_elses_bridge_is_on_the_network,
    a_port_of_somebody_elses_bridge_is_on_the_network,
    launch_captures_what_it_is_told_to,
    an_interface_goes_down_up_away_and_comes_back,
    a_bridged_interface_survives_a_stop_and_a_kill_and_ends_with_del,
    wrong_interfaces_are_refused_with_what_to_do,
    what_lies_upon_another_one_is_not_captured_beside_it,
    two_hosts_on_one_segment_are_noticed_and_healed,
    a_cable_between_two_interfaces_of_one_host_is_noticed_and_healed,
    a_cable_between_interfaces_of_two_hosts_is_noticed_and_healed_by_packet,
    a_cable_between_interfaces_of_two_hosts_is_noticed_and_healed_by_pcap,
    a_storm_on_the_segment_is_bounded_and_told,
    the_mesh_may_run_over_the_segment_that_it_captures,
    without_libpcap_everything_but_pcap_works,
];

const NET: &str = "10.2.1.0/24";
const FAR: [&str; 2] = ["10.2.1.50", "fd00:1::50"];

/// `far` is on the switch.
fn far(s: &Host) {
    machine(s, "far", FAR, "ip link set far0 master br0");
}

/// a and b have a mesh; s is a switch with `far` on it.
fn stage() -> (Room, [Host; 3]) {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    let s = room.host("s");
    s.sh("ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up");
    far(&s);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    b.linked(1);
    (room, [a, b, s])
}

/// A cable from `host`, where it is called `name`, to a port of the switch; up.
fn cable(host: &Host, name: &str, s: &Host) {
    let port = format!("{}-{name}", host.name);
    s.sh(&format!(
        "ip link add {port} type veth peer name {name} netns {} && ip link set {port} master br0 up",
        host.pid_inside()
    ));
    host.sh(&format!("sysctl -qw net.ipv6.conf.{name}.disable_ipv6=1 && ip link set {name} up"));
}

fn bridge(host: &Host, interface: &str, how: &str) {
    host.rnet(&["bridge", "add", interface, "--network", NET, "--capture", how]).ok();
}

fn uplink(host: &Host, interface: &str) -> Option<UplinkStatus> {
    host.status().uplinks.into_iter().find(|uplink| uplink.interface.as_str() == interface)
}

fn is(host: &Host, interface: &str, condition: UplinkCondition) -> bool {
    uplink(host, interface).is_some_and(|uplink| uplink.condition == condition)
}

fn becomes(host: &Host, interface: &str, condition: UplinkCondition) -> Duration {
    let what = format!("{interface} of {} is {condition:?}", host.name);
    let start = std::time::Instant::now();
    while start.elapsed() < SOON {
        if is(host, interface, condition) {
            return start.elapsed();
        }
    }
    panic!("not so: {what}: {:?}", uplink(host, interface));
}

use UplinkCondition::{Away, Blocked, Carrying};

/// Everybody reaches everybody, once, and whole.
fn all_are_one_segment(a: &Host, b: &Host, s: &Host) {
    let one = a.container(&["10.2.1.1/24", "fd00:1::1/64"]);
    let two = b.container(&["10.2.1.2/24", "fd00:1::2/64"]);
    let places = [Place::Here(&one), Place::Here(&two), Place::Far(s, "far")];
    for place in &places[..2] {
        FAR.iter().take(1).for_each(|address| place.reaches(address));
    }
    broadcasts_are_heard_once(&places);
    for (from, to, address) in [(0, 2, FAR[0]), (1, 2, FAR[0]), (2, 0, "10.2.1.1"), (2, 1, "10.2.1.2")] {
        bulk(&places[from], &places[to], address);
    }
    // Larger than attachments take: whoever wants to know is told.
    let told = || places[2].run(&["ping", "-n", "-c1", "-W1", "-M", "do", "-s", "1450", "10.2.1.2"]);
    until(SOON, "it is told what is too large", || format!("{:?}", told()).contains("mtu"));
    places[1].run(&["ping", "-nq", "-c1", "-W2", "-s", "4000", FAR[0]]).ok();
}

fn a_segment_is_on_the_network(how: &str) {
    let (_room, [a, b, s]) = stage();
    cable(&a, "seg0", &s);
    bridge(&a, "seg0", how);
    becomes(&a, "seg0", Carrying);
    all_are_one_segment(&a, &b, &s);
    let text = a.rnet(&["status", "connections"]).ok();
    assert!(text.contains("seg0") && text.contains("bridged") && text.contains(how), "{text}");
    assert!(a.rnet(&["status", "networks"]).ok().contains("seg0"));
    assert!(a.rnet(&["status"]).ok().contains("Bridged: 1 interface\n"));
    let macs = a.status().macs;
    assert!(macs.iter().any(|mac| mac.uplink.as_ref().is_some_and(|name| name.as_str() == "seg0")), "{macs:?}");
    a.rnet(&["bridge", "del", "seg0"]).ok();
    assert_eq!(a.status().uplinks, []);
    until(SOON, "it is not promiscuous any more", || !a.sh("ip -d link show seg0").contains("promiscuity 1"));
}

fn a_segment_is_on_the_network_by_packet() {
    a_segment_is_on_the_network("packet");
}

fn a_segment_is_on_the_network_by_pcap() {
    a_segment_is_on_the_network("pcap");
}

fn a_segment_is_on_an_ipv6_network() {
    for how in ["packet", "pcap"] {
        let (_room, [a, b, s]) = stage();
        cable(&a, "seg0", &s);
        a.rnet(&["bridge", "add", "seg0", "--network", "fd00:1::/64", "--capture", how]).ok();
        becomes(&a, "seg0", Carrying);
        let (one, two) = (a.container(&["fd00:1::1/64"]), b.container(&["fd00:1::2/64"]));
        let places = [Place::Here(&one), Place::Here(&two), Place::Far(&s, "far")];
        // Neighbour discovery is multicast: who is asked for answers across the segment and the mesh.
        for (from, to, address) in [(0, 2, FAR[1]), (1, 2, FAR[1]), (2, 0, "fd00:1::1"), (2, 1, "fd00:1::2")] {
            places[from].reaches(address);
            bulk(&places[from], &places[to], address);
        }
    }
}

fn a_port_of_somebody_elses_bridge_is_on_the_network() {
    for how in ["packet", "pcap"] {
        let (_room, [a, b, s]) = stage();
        cable(&a, "seg0", &s);
        a.sh("ip link add own type bridge && ip link set own up && ip link set seg0 master own");
        bridge(&a, "seg0", how);
        becomes(&a, "seg0", Carrying);
        all_are_one_segment(&a, &b, &s);
        assert!(a.sh("ip -o link show seg0").contains("master own"), "it is as it was");
    }
}

fn somebody_elses_bridge_is_on_the_network() {
    let (_room, [a, b, _]) = stage();
    // The segment is a bridge on a itself.
    a.sh("ip link add br0 type bridge && ip link set br0 up");
    far(&a);
    bridge(&a, "br0", "packet");
    becomes(&a, "br0", Carrying);
    all_are_one_segment(&a, &b, &a);
}

fn launch_captures_what_it_is_told_to() {
    for (options, how) in [(&[][..], "packet"), (&["--capture", "pcap"], "pcap"), (&["--capture", "packet"], "packet")]
    {
        let room = Room::new();
        let [a, b] = room.chain(["a", "b"]);
        let s = room.host("s");
        s.sh("ip link add br0 type bridge && ip link set br0 up");
        far(&s);
        cable(&a, "seg0", &s);
        let password = room.path("pw");
        let given = format!("seg0={NET}");
        a.launch_with(&[&["--password-file", &password, "--interface", &given], options].concat(), &[]).ok();
        b.launch(&[&a.toward(&b)]);
        b.linked(1);
        becomes(&a, "seg0", Carrying);
        assert_eq!(uplink(&a, "seg0").unwrap().capture, how);
        let two = b.container(&["10.2.1.2/24"]);
        two.reaches(FAR[0]);
        drop(two);
        a.rnet(&["stop"]).ok();
        a.launch(&[]);
        assert_eq!(a.status().uplinks, [], "it was for that launch");
    }
}

fn an_interface_goes_down_up_away_and_comes_back() {
    for how in ["packet", "pcap"] {
        let (_room, [a, b, s]) = stage();
        cable(&a, "seg0", &s);
        bridge(&a, "seg0", how);
        becomes(&a, "seg0", Carrying);
        let two = b.container(&["10.2.1.2/24"]);
        two.reaches(FAR[0]);
        a.sh("ip link set seg0 down");
        becomes(&a, "seg0", Away);
        let told = uplink(&a, "seg0").unwrap().info;
        assert!(told.contains("ip link set seg0 up"), "{told}");
        a.sh("ip link set seg0 up");
        becomes(&a, "seg0", Carrying);
        two.reaches(FAR[0]);
        a.sh("ip link set seg0 mtu 1400 && ip link set seg0 mtu 1500");
        s.sh("ip link delete a-seg0");
        becomes(&a, "seg0", Away);
        assert!(uplink(&a, "seg0").unwrap().info.contains("no such interface"));
        cable(&a, "seg0", &s);
        becomes(&a, "seg0", Carrying);
        two.reaches(FAR[0]);
        a.sh("ip link set seg0 name other");
        becomes(&a, "seg0", Away);
        a.sh("ip link set other name seg0");
        becomes(&a, "seg0", Carrying);
        two.reaches(FAR[0]);
    }
}

fn a_bridged_interface_survives_a_stop_and_a_kill_and_ends_with_del() {
    let (_room, [a, b, s]) = stage();
    cable(&a, "seg0", &s);
    bridge(&a, "seg0", "packet");
    // Once is enough.
    bridge(&a, "seg0", "packet");
    a.rnet(&["stop"]).ok();
    a.launch(&[]);
    b.linked(1);
    becomes(&a, "seg0", Carrying);
    a.murder();
    // It may be away when the router comes back.
    s.sh("ip link delete a-seg0");
    a.launch(&[]);
    b.linked(1);
    becomes(&a, "seg0", Away);
    cable(&a, "seg0", &s);
    becomes(&a, "seg0", Carrying);
    let two = b.container(&["10.2.1.2/24"]);
    two.reaches(FAR[0]);
    a.rnet(&["bridge", "del", "seg0"]).ok();
    let again = a.rnet(&["bridge", "del", "seg0"]);
    assert!(again.code == 0 && again.stderr.contains("nothing of that name is captured; nothing is"), "{again:?}");
    two.never_reaches(FAR[0]);
    a.rnet(&["stop"]).ok();
    a.launch(&[]);
    assert_eq!(a.status().uplinks, []);
    assert_eq!(a.interfaces(), Vec::<String>::new(), "the network was open for it alone");
}

fn wrong_interfaces_are_refused_with_what_to_do() {
    let (room, [a, _b, s]) = stage();
    let _one = a.container(&["10.2.1.1/24"]);
    a.sh("ip link add asleep type bridge && ip link add gre0x type gre local 127.0.0.1 remote 127.0.0.2 2>/dev/null || true");
    a.sh("ip link set lo up");
    let add = |name: &str, how: &str| a.rnet(&["bridge", "add", name, "--network", NET, "--capture", how]);
    let ours = a.interfaces();
    for how in ["packet", "pcap"] {
        add("eth7", how).refused(1, &["bridge add eth7", "there is no such interface"]);
        add("lo", how).refused(1, &["lo: it is no Ethernet interface"]);
        add("asleep", how).refused(1, &["it is down", "ip link set asleep up"]);
        for name in &ours {
            add(name, how).refused(1, &[name, "rnet's own"]);
        }
    }
    cable(&a, "seg0", &s);
    bridge(&a, "seg0", "packet");
    add("seg0", "pcap").refused(1, &["captured for 10.2.1.0/24 by packet already", "rnet bridge del seg0"]);
    let other = a.rnet(&["bridge", "add", "seg0", "--network", "10.9.0.0/24"]);
    other.refused(1, &["captured for 10.2.1.0/24", "already"]);
    add("seg/0", "packet").refused(2, &["bridge add: ", "name of a network interface"]);
    add("seg0", "tap").refused(2, &["--capture", "packet, pcap"]);
    assert!(uplink(&a, "seg0").is_some() && a.status().uplinks.len() == 1);
    // The same at launch, before anything is made.
    let c = room.host("c");
    let password = room.path("pw");
    let launch = |options: &[&str]| c.launch_with(&[&["--password-file", &password], options].concat(), &[]);
    for (option, words) in [
        ("eth7", &["--interface eth7", "there is no such interface"][..]),
        ("lo=10.2.1.0/24", &["--interface lo", "no Ethernet"]),
    ] {
        for how in ["tap", "packet", "pcap"] {
            launch(&["--capture", how, "--interface", option]).refused(1, words);
        }
    }
    c.sh("ip link add asleep type bridge");
    for how in ["tap", "packet", "pcap"] {
        launch(&["--capture", how, "--interface", "asleep"])
            .refused(1, &["--interface asleep", "ip link set asleep up"]);
    }
    launch(&["--interface", "asleep", "--interface", "asleep=10.9.0.0/24"]).refused(2, &["--interface", "asleep"]);
    launch(&["--interface", "a/b"]).refused(2, &["--interface", "name of a network interface"]);
    launch(&["--interface", "eth1=10.2.1.7/24"]).refused(2, &["--interface", "eth1"]);
    c.is_clean();
}

fn what_lies_upon_another_one_is_not_captured_beside_it() {
    let (room, [a, _b, _s]) = stage();
    let others =
        "ip link add br0 type bridge && ip link add eth1 type veth peer name far1 && ip link set eth1 master br0
        ip link add eth2 type veth peer name far2 && ip link add link eth2 name mac2 type macvlan && ip link add eth3 type veth peer name far3
        for name in br0 eth1 far1 eth2 far2 mac2 eth3 far3; do ip link set $name up; done";
    a.sh(others);
    let add = |name: &str, network: &str| a.rnet(&["bridge", "add", name, "--network", network]);
    let twice = "every broadcast would be carried twice";
    for (one, other) in [("br0", "eth1"), ("eth1", "br0"), ("eth2", "mac2"), ("mac2", "eth2")] {
        add(one, NET).ok();
        for network in [NET, "10.9.0.0/24"] {
            let start = format!("bridge add {other}: ");
            add(other, network).refused(1, &[&start, twice, &format!("{one} is captured already")]);
        }
        assert_eq!(a.status().uplinks.len(), 1);
        a.rnet(&["bridge", "del", one]).ok();
    }
    // Made so while both are captured: one stands back until the other is given up.
    add("br0", NET).ok();
    add("eth3", NET).ok();
    let away =
        |name: &str| uplink(&a, name).is_some_and(|uplink| uplink.condition == Away && uplink.info.contains(twice));
    a.sh("ip link set eth3 master br0");
    let found = within(SOON, "one of them stands back", || ["br0", "eth3"].into_iter().find(|name| away(name)));
    let other = if found == "br0" { "eth3" } else { "br0" };
    assert!(!away(other));
    a.rnet(&["bridge", "del", other]).ok();
    becomes(&a, found, Carrying);
    // The same at launch, before anything is made.
    let c = room.host("c");
    c.sh(others);
    let words = ["--interface eth1", "eth1", "br0", twice];
    c.launch_with(&["--interface", "br0=10.2.1.0/24", "--interface", "eth1=10.9.0.0/24"], &[]).refused(1, &words);
    c.is_clean();
}

/// What the log of a router says, lines with this word.
fn logged(host: &Host, word: &str) -> Vec<String> {
    let text = std::fs::read_to_string(host.data_dir().join("rnet.log")).unwrap_or_default();
    text.lines().filter(|line| line.contains(word)).map(str::to_string).collect()
}

/// Exactly one of these ports carries, and what is said is heard once by everybody.
fn one_is_cut(ports: [(&Host, &str); 2]) -> usize {
    let blocked = |(host, name): (&Host, &str)| is(host, name, Blocked);
    let carries = |(host, name): (&Host, &str)| is(host, name, Carrying);
    let found =
        within(SOON, "one of two ports is cut", || (0..2).find(|at| blocked(ports[*at]) && carries(ports[1 - at])));
    let (host, name) = ports[found];
    let status = host.rnet(&["status", "connections"]).ok();
    assert!(status.contains("blocked") && status.contains("a loop"), "{status}");
    assert!(host.rnet(&["status"]).ok().contains("blocked: a loop"));
    assert!(host.rnet(&["report"]).ok().contains("\"blocked\""));
    assert!(!logged(host, &format!("{name} is cut off: a loop")).is_empty());
    found
}

const WATCH: &str = "import sys,json,subprocess,time
begin=time.monotonic()
subprocess.run(['sh','-ec',sys.argv[1]],check=True)
made=time.monotonic()
for _ in range(500):
    for rnet in sys.argv[3:]:
        env=dict(zip(('RNET_RUN_DIR','RNET_DATA_DIR'),rnet.split(',')))
        s=json.loads(subprocess.run([sys.argv[2],'status','--json'],env=env,capture_output=True,check=True).stdout)
        if any(u['condition']=='blocked' for u in s['uplinks']):
            print(time.monotonic()-made);sys.exit()
print('never')";

/// Runs a script of `host` that makes a loop; how long it takes until one of these routers has cut it, as their status tells.
fn cut_after(host: &Host, script: &str, routers: &[&Host]) -> f64 {
    let dirs: Vec<String> =
        routers.iter().map(|r| format!("{},{}", r.run_dir().display(), r.data_dir().display())).collect();
    let argv: Vec<&str> =
        ["python3", "-c", WATCH, script, RNET].into_iter().chain(dirs.iter().map(String::as_str)).collect();
    host.run(&argv).ok().trim().parse().expect("it was cut")
}

fn two_hosts_on_one_segment_are_noticed_and_healed() {
    let (_room, [a, b, s]) = stage();
    // Two segments first, which a cable makes one.
    s.sh("ip link add br1 type bridge mcast_snooping 0 && ip link set br1 up");
    cable(&a, "seg0", &s);
    cable(&b, "seg0", &s);
    s.sh("ip link set b-seg0 master br1");
    bridge(&a, "seg0", "packet");
    bridge(&b, "seg0", "packet");
    becomes(&a, "seg0", Carrying);
    becomes(&b, "seg0", Carrying);
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches(FAR[0]);
    two.reaches(FAR[0]);
    s.sh("ip link add patch0 type veth peer name patch1 && ip link set patch0 master br0 && ip link set patch1 master br1 up");
    let took = cut_after(&s, "ip link set patch0 up", &[&a, &b]);
    eprintln!("noticed after {took:.3} s");
    assert!(took < 1.0, "noticed after {took} s");
    let ports = [(&a, "seg0"), (&b, "seg0")];
    one_is_cut(ports);
    let places = [Place::Here(&one), Place::Here(&two), Place::Far(&s, "far")];
    one.reaches(FAR[0]);
    two.reaches(FAR[0]);
    broadcasts_are_heard_once(&places);
    s.sh("ip link delete patch0");
    for (host, name) in ports {
        becomes(host, name, Carrying);
    }
    broadcasts_are_heard_once(&places);
}

fn a_cable_between_two_interfaces_of_one_host_is_noticed_and_healed() {
    let (_room, [a, b, _s]) = stage();
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    a.sh("ip link add left type veth peer name right && ip link set right up");
    let add = |name: &str| format!("{RNET} bridge add {name} --network {NET}");
    let script = format!("ip link set left up; {}; {}", add("left"), add("right"));
    let took = cut_after(&a, &script, &[&a]);
    eprintln!("noticed after {took:.3} s");
    assert!(took < 1.0, "noticed after {took} s");
    let ports = [(&a, "left"), (&a, "right")];
    assert_eq!(one_is_cut(ports), 1, "the lower port keeps it");
    assert!(uplink(&a, "right").unwrap().info.contains("left of this host keeps this segment"));
    broadcasts_are_heard_once(&[Place::Here(&one), Place::Here(&two)]);
    // Cut: a pair is one cable, so both ends go.
    a.sh("ip link delete left && ip link add left type bridge && ip link add right type bridge");
    a.sh("ip link set left up && ip link set right up");
    for (host, name) in ports {
        becomes(host, name, Carrying);
    }
    broadcasts_are_heard_once(&[Place::Here(&one), Place::Here(&two)]);
}

fn a_cable_between_interfaces_of_two_hosts_is_noticed_and_healed_by_packet() {
    a_cable_between_hosts("packet");
}

fn a_cable_between_interfaces_of_two_hosts_is_noticed_and_healed_by_pcap() {
    a_cable_between_hosts("pcap");
}

fn a_cable_between_hosts(how: &str) {
    let (_room, [a, b, _s]) = stage();
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    let draw = format!("ip link add cross type veth peer name cross netns {} && ip link set cross up", b.pid_inside());
    a.sh(&draw);
    b.sh("ip link set cross up");
    bridge(&a, "cross", how);
    let (run, data) = (b.run_dir(), b.data_dir());
    let there = format!("RNET_RUN_DIR={} RNET_DATA_DIR={}", run.display(), data.display());
    let script = format!("{there} {RNET} bridge add cross --network {NET} --capture {how}");
    let took = cut_after(&b, &script, &[&a, &b]);
    eprintln!("noticed after {took:.3} s");
    assert!(took < 1.0, "noticed after {took} s");
    let ports = [(&a, "cross"), (&b, "cross")];
    let lower = if a.status().name < b.status().name { 0 } else { 1 };
    assert_eq!(one_is_cut(ports), 1 - lower, "the lower name keeps it");
    broadcasts_are_heard_once(&[Place::Here(&one), Place::Here(&two)]);
    one.reaches("10.2.1.2");
    a.sh("ip link delete cross && ip link add cross type bridge && ip link set cross up");
    becomes(&a, "cross", Carrying);
    b.sh("ip link add cross type bridge && ip link set cross up");
    becomes(&b, "cross", Carrying);
    broadcasts_are_heard_once(&[Place::Here(&one), Place::Here(&two)]);
}

/// Broadcasts as fast as it can for 2 s; tells how many.
const STORM: &str = "import socket,time
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.setsockopt(socket.SOL_SOCKET,socket.SO_BROADCAST,1)
n,end=0,time.monotonic()+2
while time.monotonic()<end:
    s.sendto(b'storm',('10.2.1.255',9000));n+=1
print(n)";

const COUNT: &str = "import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.setsockopt(socket.SOL_SOCKET,socket.SO_RCVBUF,1<<24);s.bind(('',9000))
print('ready',flush=True)
n=0
while s.recv(99)!=b'end': n+=1
print(n)";

fn a_storm_on_the_segment_is_bounded_and_told() {
    let (_room, [a, b, s]) = stage();
    cable(&a, "seg0", &s);
    bridge(&a, "seg0", "packet");
    becomes(&a, "seg0", Carrying);
    let two = b.container(&["10.2.1.2/24"]);
    two.reaches(FAR[0]);
    let counter = two.start(&["python3", "-c", COUNT]);
    until(SOON, "it counts", || counter.stdout().contains("ready"));
    let start = std::time::Instant::now();
    let said: f64 = Place::Far(&s, "far").run(&["python3", "-c", STORM]).ok().trim().parse().unwrap();
    let took = start.elapsed().as_secs_f64();
    two.sh("python3 -c \"import socket;socket.socket(2,2).sendto(b'end',('10.2.1.2',9000))\"");
    let heard: f64 = counter.finish(SOON).ok().lines().last().unwrap().parse().unwrap();
    // 4,000 a second, and 2,000 at once.
    let most = 2000.0 + 4000.0 * took;
    assert!(said > 2.0 * most, "{said} in {took} s are no storm");
    assert!(heard <= most && heard > 4000.0, "{heard} of {said} in {took} s");
    let drops = a.status().drops;
    let told = drops.iter().find(|(reason, _)| reason == "flood-rate").map_or(0, |(_, count)| *count);
    assert!(told as f64 >= 0.5 * (said - heard), "{told} of {said} less {heard}: {drops:?}");
    // It is over, and so is its harm.
    two.reaches(FAR[0]);
}

fn the_mesh_may_run_over_the_segment_that_it_captures() {
    let room = Room::new();
    let (a, b, s) = (room.host("a"), room.host("b"), room.host("s"));
    s.sh("ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up");
    far(&s);
    for (host, address) in [(&a, "10.201.0.1/24"), (&b, "10.201.0.2/24")] {
        // The host's own bridge, a port of which is captured: it sees all that the bridge floods, our datagrams among it.
        cable(host, "seg0", &s);
        host.sh(&format!(
            "ip link add own type bridge && ip link set seg0 master own && ip address add {address} dev own && ip link set own up
            ip link add port type veth peer name tapped && ip link set port master own up && ip link set tapped up
            ip link set own type bridge ageing_time 0"
        ));
    }
    a.launch(&[]);
    b.launch(&["10.201.0.1"]);
    b.linked(1);
    bridge(&a, "tapped", "packet");
    bridge(&b, "tapped", "packet");
    one_is_cut([(&a, "tapped"), (&b, "tapped")]);
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    two.reaches(FAR[0]);
    broadcasts_are_heard_once(&[Place::Here(&one), Place::Here(&two), Place::Far(&s, "far")]);
    let before = a.status().traffic.to_net.frames;
    throughout(Duration::from_secs(2), "the mesh is quiet", || a.status().traffic.to_net.frames < before + 500);
}

fn without_libpcap_everything_but_pcap_works() {
    let (room, [_a, _b, s]) = stage();
    // Nothing of that name is there for programs that start from now on.
    let hide = "for lib in $(ldconfig -p | sed -n 's/.*libpcap.so.* => //p'); do mount --bind /dev/null $lib; done";
    let c = room.host("c");
    let launched = c.run(&["unshare", "--mount", "sh", "-ec", &format!("{hide}; exec {RNET} launch --capture pcap")]);
    launched.refused(1, &["--capture pcap: libpcap is not installed", "--capture packet"]);
    c.run(&["unshare", "--mount", "sh", "-ec", &format!("{hide}; exec {RNET} launch --capture packet")]).ok();
    cable(&c, "seg0", &s);
    c.rnet(&["bridge", "add", "seg0", "--network", NET, "--capture", "pcap"])
        .refused(1, &["bridge add seg0: libpcap is not installed"]);
    bridge(&c, "seg0", "packet");
    becomes(&c, "seg0", Carrying);
}
