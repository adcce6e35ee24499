//! VXLAN between peers, done by rnet: it is used where it may be, left when it fails, and never used where encryption was asked for.
//!
//! ```text
//!   a ----- b      udp 6783: rnet's own framing      udp 6784: VXLAN
//! ```

use crate::carriers::{BY_VXLAN, attach, block, connection, goes_by, two, unblock};
use crate::isolation::{SNIFF, listening};
use crate::room::{Container, Host, Room, SOON};
use crate::segment::{Place, broadcasts_are_heard_once, bulk};
use crate::vteps::drops;
use crate::wait::{throughout, until};
use rnet::types::Framing;
use std::time::Duration;

crate::facts![
    frames_go_by_vxlan_and_come_whole,
    a_blocked_port_is_left_within_three_seconds_and_used_again,
    a_path_too_narrow_for_vxlan_goes_by_udp,
    one_sided_trust_leaves_a_path_encrypted,
    trust_on_both_sides_makes_a_path_clear,
    a_mesh_of_framings_and_relays_hears_every_broadcast_once,
    what_strangers_send_to_the_port_is_counted_and_harms_nobody,
    a_port_that_the_kernel_holds_is_told_and_taken_when_it_is_free,
    framings_that_cannot_be_are_refused,
];

fn frames_go_by_vxlan_and_come_whole() {
    let (_room, hosts) = two([&BY_VXLAN, &BY_VXLAN]);
    let [one, two] = attach(&hosts);
    goes_by(&hosts, Framing::Vxlan);
    let stream = one.stream("10.2.1.2");
    broadcasts_are_heard_once(&[Place::Here(&one), Place::Here(&two)]);
    stream.unharmed();
    for (from, to, address) in [(&one, &two, "10.2.1.2"), (&two, &one, "10.2.1.1")] {
        bulk(&Place::Here(from), &Place::Here(to), address);
    }
    // Too big for any path, and in pieces.
    one.run(&["ping", "-nq", "-c1", "-W2", "-s", "8000", "10.2.1.2"]).ok();
    for host in &hosts {
        let status = host.status();
        assert!(status.traffic.to_vxlan.frames > 100 && status.traffic.from_vxlan.frames > 100, "{:?}", status.traffic);
        assert_eq!((status.framing.engine, status.framing.port), (Some(Framing::Vxlan), Some(6784)));
        let bad: Vec<_> =
            status.drops.iter().filter(|(why, _)| why.contains("vxlan") || why.contains("send")).collect();
        assert!(bad.is_empty(), "{bad:?}");
        let text = host.rnet(&["status", "connections"]).ok();
        assert!(text.contains("unencrypted vxlan") && text.contains("vxlan="), "{text}");
    }
    hosts.iter().for_each(|host| drop(host.rnet(&["stop"]).ok()));
    hosts.iter().for_each(Host::is_clean);
}

/// The longest time between two answers in the output of `ping -D`.
fn longest_gap(output: &str) -> f64 {
    let at = |line: &str| line.strip_prefix('[')?.split_once(']')?.0.parse::<f64>().ok();
    let times: Vec<f64> = output.lines().filter(|line| line.contains("bytes from")).filter_map(at).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
}

fn a_blocked_port_is_left_within_three_seconds_and_used_again() {
    let (_room, hosts) = two([&BY_VXLAN, &BY_VXLAN]);
    let [one, _two] = attach(&hosts);
    goes_by(&hosts, Framing::Vxlan);
    let ping = one.start(&["ping", "-n", "-D", "-i0.05", "-W1", "10.2.1.2"]);
    until(SOON, "the ping runs", || ping.stdout().lines().count() > 20);
    block(&hosts[1], 0);
    goes_by(&hosts, Framing::Udp);
    let answers = ping.stdout().lines().count();
    until(SOON, "answers come again", || ping.stdout().lines().count() > answers + 20);
    let gap = longest_gap(&ping.stdout());
    assert!(gap < 3.0 && gap > 0.5, "{gap} s without an answer");
    let told = connection(&hosts[0]).path.unwrap().why_not_better;
    assert!(told.starts_with("vxlan: no heartbeat for") && told.contains("is UDP port 6784 blocked?"), "{told}");
    assert!(hosts[0].rnet(&["status", "connections"]).ok().contains("not vxlan: no heartbeat"));
    unblock(&hosts[1]);
    goes_by(&hosts, Framing::Vxlan);
    ping.signal("INT");
    let last = longest_gap(&ping.stdout());
    assert!(last <= gap, "{last} s without an answer on the way back");
}

fn a_path_too_narrow_for_vxlan_goes_by_udp() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    block(&a, 1300);
    a.launch_with(&BY_VXLAN, &[]).ok();
    b.launch_with(&BY_VXLAN, &[&a.toward(&b)]).ok();
    b.linked(1);
    until(SOON, "the size is known", || {
        connection(&b).path.unwrap().why_not_better.contains("do not get through by UDP port 6784")
    });
    throughout(Duration::from_secs(3), "it goes by udp", || connection(&b).path.unwrap().framing == Framing::Udp);
    unblock(&a);
}

/// What only the frames of this test have in them.
const MARKER: &str = "rnet-framing-lab-marker";

/// Whether the marker, sent from one to the other by UDP, is seen on the line of `host`, and by which UDP ports anything came.
fn on_the_wire(host: &Host, line: &str, one: &Container, address: &str) -> (bool, bool) {
    let wire = listening(host.start(&[&SNIFF[..], &[line]].concat()));
    let shout = "import socket,sys,time
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)
for n in range(20): s.sendto(sys.argv[2].encode(),(sys.argv[1],9000));time.sleep(0.05)";
    one.run(&["python3", "-c", shout, address, MARKER]).ok();
    let hex: String = MARKER.bytes().map(|byte| format!("{byte:02x}")).collect();
    let text = wire.end("KILL").stdout;
    // IPv4 without options, UDP, either port 6784.
    let vxlan = |line: &str| {
        let frame = line.rsplit(' ').next().unwrap_or_default();
        let field = |from: usize, to: usize| frame.get(2 * from..2 * to).unwrap_or_default();
        field(12, 14) == "0800" && field(23, 24) == "11" && field(36, 38) == "1a80"
    };
    (text.contains(&hex), text.lines().any(vxlan))
}

fn one_sided_trust_leaves_a_path_encrypted() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    let pw = room.path("pw");
    let password = ["--password-file", pw.as_str()];
    a.launch_with(&[&password[..], &["--trusted-subnets", "10.200.0.0/16"]].concat(), &[]).ok();
    b.launch_with(&password, &[&a.toward(&b)]).ok();
    b.linked(1);
    let hosts = [a, b];
    let [one, _two] = attach(&hosts);
    let (clear, vxlan) = on_the_wire(&hosts[1], "to-a", &one, "10.2.1.2");
    assert!(!clear && !vxlan, "in clear: {clear}, by VXLAN: {vxlan}");
    let seen = connection(&hosts[0]);
    assert!(seen.encrypted && seen.path.unwrap().why_not_better.contains("the peer does not name this host's address"));
    assert!(connection(&hosts[1]).encrypted);
}

fn trust_on_both_sides_makes_a_path_clear() {
    let room = Room::new();
    let hosts = room.chain(["a", "b"]);
    let [a, b] = &hosts;
    let pw = room.path("pw");
    let trusting =
        ["--password-file", pw.as_str(), "--trusted-subnets", "192.0.2.0/24,10.200.0.0/16", "--framing", "vxlan"];
    a.launch_with(&trusting, &[]).ok();
    b.launch_with(&trusting, &[&a.toward(b)]).ok();
    b.linked(1);
    let [one, _two] = attach(&hosts);
    goes_by(&hosts, Framing::Vxlan);
    assert_eq!(on_the_wire(b, "to-a", &one, "10.2.1.2"), (true, true));
    assert!(!connection(a).encrypted && a.status().encrypted, "the links stay what they are");
    // The wrong password is as wrong as ever.
    let c = room.host("c");
    room.join(a, &c);
    let other = room.path("other-pw");
    c.launch_with(&["--password-file", &other, "--trusted-subnets", "0.0.0.0/0"], &[&a.toward(&c)]).ok();
    c.told(&["wrong password"]);
}

fn a_mesh_of_framings_and_relays_hears_every_broadcast_once() {
    let room = Room::new();
    // a - b - c - d, and b - d.
    let hosts = room.chain(["a", "b", "c", "d"]);
    room.join(&hosts[1], &hosts[3]);
    let [a, b, c, d] = &hosts;
    a.launch_with(&["--framing", "udp"], &[]).ok();
    b.launch_with(&BY_VXLAN, &[&a.toward(b)]).ok();
    c.launch_with(&BY_VXLAN, &[&b.toward(c)]).ok();
    d.launch_with(&BY_VXLAN, &[&b.toward(d), &c.toward(d)]).ok();
    d.linked(2);
    b.linked(3);
    let names = ["10.2.1.1/24", "10.2.1.2/24", "10.2.1.3/24", "10.2.1.4/24"];
    let all: Vec<Container<'_>> = hosts.iter().zip(names).map(|(host, name)| host.container(&[name])).collect();
    for one in &all {
        for n in 1..=4 {
            one.reaches(&format!("10.2.1.{n}"));
        }
    }
    goes_by(&hosts[2..], Framing::Vxlan);
    goes_by(&hosts[..1], Framing::Udp);
    let places: Vec<Place<'_>> = all.iter().map(Place::Here).collect();
    broadcasts_are_heard_once(&places);
    // While framings change.
    block(d, 0);
    broadcasts_are_heard_once(&places);
    goes_by(&hosts[3..], Framing::Udp);
    unblock(d);
    broadcasts_are_heard_once(&places);
    goes_by(&hosts[3..], Framing::Vxlan);
    broadcasts_are_heard_once(&places);
}

fn what_strangers_send_to_the_port_is_counted_and_harms_nobody() {
    const TOOL: [&str; 4] = ["python3", "-u", "-c", include_str!("wire.py")];
    let (room, hosts) = two([&BY_VXLAN, &BY_VXLAN]);
    let [a, b] = &hosts;
    let x = room.host("x");
    room.join(a, &x);
    let [one, _two] = attach(&hosts);
    goes_by(&hosts, Framing::Vxlan);
    let stream = one.stream("10.2.1.2");
    let inside = listening(one.start(&[&SNIFF[..], &["rnet0"]].concat()));
    let id = a.status().networks[0].id.value();
    let header = |id: u32| format!("08000000{id:06x}00");
    let mac = one.mac("rnet0").replace(':', "");
    let frame = format!("{mac}02000000009988b5cafecafecafecafe");
    let good = format!("{}{frame}", header(id));
    let peer = b.toward(a);
    let facts = [
        (x.toward(a), good.clone(), "vxlan-unknown"),
        (a.toward(b), good.clone(), "vxlan-unknown"),
        (peer.clone(), format!("{}{frame}", header(id ^ 1)), "not-open"),
        (peer.clone(), format!("00000000{id:06x}00{frame}"), "vxlan-malformed"),
        (peer.clone(), header(id)[..14].to_string(), "vxlan-malformed"),
        (peer.clone(), good[..16 + 26].to_string(), "vxlan-malformed"),
        (peer.clone(), format!("{}ffffffffffff02000000009988b5cafe", header(id)), "vxlan-group"),
        (peer.clone(), format!("{}{frame}", header(0xff_ffff)), "vxlan-malformed"),
        (peer.clone(), format!("{}{mac}{mac}88b5cafe", header(id)), "impersonated"),
    ];
    a.sh("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.to-x.rp_filter=0 net.ipv4.conf.all.accept_local=1");
    for (source, body, why) in facts {
        let before = drops(a, why);
        // Spoofed where it has to be: from another line, with the neighbour's address.
        x.run(&[&TOOL[..], &["spoof", &source, "40000", &a.toward(&x), "6784"], &vec![body.as_str(); 20]].concat())
            .ok();
        until(SOON, &format!("{why} is counted"), || drops(a, why) >= before + 20);
    }
    assert!(!inside.stdout().contains("88b5cafe"), "delivered");
    // Bits that are reserved are not looked at: this one is as good as any of the neighbour.
    let extended = format!("ff112233{id:06x}ff{frame}");
    x.run(&[&TOOL[..], &["spoof", &peer, "40000", &a.toward(&x), "6784", &extended]].concat()).ok();
    until(SOON, "it is delivered", || inside.stdout().contains("88b5cafe"));
    stream.unharmed();
}

fn a_port_that_the_kernel_holds_is_told_and_taken_when_it_is_free() {
    let room = Room::new();
    let hosts = room.chain(["a", "b"]);
    let [a, b] = &hosts;
    a.sh("ip link add vx9 type vxlan id 9 dstport 6784 && ip link set vx9 up");
    let words = ["UDP port 6784", "in use", "vx9 (VNI 9)", "--port"];
    a.launch_with(&BY_VXLAN, &[]).refused(1, &[&["--framing vxlan"], &words[..]].concat());
    a.launch_with(&[], &[]).ok();
    b.launch_with(&BY_VXLAN, &[&a.toward(b)]).ok();
    b.linked(1);
    until(SOON, "it is told", || words.iter().all(|word| a.status().framing.info.contains(word)));
    let status = a.rnet(&["status"]).ok();
    assert!(words.iter().all(|word| status.contains(word)), "{status}");
    let [one, _two] = attach(&hosts);
    let stream = one.stream("10.2.1.2");
    a.sh("ip link del vx9");
    until(SOON, "it is taken", || a.status().framing.engine.is_some());
    goes_by(&hosts[1..], Framing::Vxlan);
    stream.unharmed();
}

fn framings_that_cannot_be_are_refused() {
    let room = Room::new();
    let a = room.host("a");
    let pw = room.path("pw");
    a.launch_with(&["--framing", "tcp"], &[]).refused(2, &["--framing", "auto, kernel, vxlan, udp"]);
    a.launch_with(&["--framing", "vxlan", "--password-file", &pw], &[]).refused(2, &["--framing", "--trusted-subnets"]);
    a.launch_with(&["--framing", "vxlan", "--port", "65535"], &[]).refused(2, &["--framing", "--port"]);
    let subnets = ["--trusted-subnets", "10.0.0.0/8,nonsense", "--password-file", &pw];
    a.launch_with(&subnets, &[]).refused(2, &["nonsense", "subnet"]);
    a.launch_with(&["--trusted-subnets", "10.0.0.0/8"], &[]).refused(2, &["--trusted-subnets", "without a password"]);
    // VTEPs cannot have the port.
    a.launch_with(&BY_VXLAN, &[]).ok();
    let join = ["connect", "vxlan://192.0.2.1", "--network", "10.2.1.0/24", "--vni", "7", "--local-port", "6784"];
    a.rnet(&join).refused(1, &["6784", "--local-port"]);
}
