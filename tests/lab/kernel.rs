//! VXLAN between peers by the kernel: it carries what it is told, exactly what the mesh carries, with the router or without it.
//!
//! ```text
//!   a ------- b ------- c        no password; a and b let their kernels carry; who else does what, each test says
//! ```

use crate::carriers::{KERNEL, Talk, block, both_send_by, carries, device, framing_to, sends_by, two, unblock};
use crate::isolation::{SNIFF, listening};
use crate::room::{Container, Host, Process, Room, SOON, Stream};
use crate::segment::{Place, bulk};
use crate::wait::{throughout, until};
use rnet::types::Framing;
use std::time::Duration;

crate::facts![
    the_kernel_carries_everything_between_two_hosts,
    the_kernel_carries_over_ipv6_and_beside_routers_that_speak_vxlan_themselves,
    a_connection_and_a_stream_do_not_notice_that_routers_are_killed_and_come_back,
    nor_that_routers_are_stopped_for_an_upgrade_and_launched_again,
    broadcasts_come_once_in_a_mixed_mesh_while_framings_change,
    devices_and_entries_that_others_take_away_come_back,
    somebody_elses_device_on_our_port_is_named_and_udp_goes_on,
    vxlan_of_strangers_and_in_the_name_of_others_reaches_nobody,
];

fn the_kernel_carries_everything_between_two_hosts() {
    let (_room, hosts) = two([&KERNEL, &KERNEL]);
    let [a, b] = &hosts;
    let (one, two) = (a.container(&["10.2.1.1/24", "fd00:2::1/64"]), b.container(&["10.2.1.2/24", "fd00:2::2/64"]));
    both_send_by(&hosts, Framing::Kernel);
    let (four, six) = (one.stream("10.2.1.2"), one.stream("fd00:2::2"));
    hosts.iter().for_each(|host| carries(host, 2));
    let before = [a.status().traffic, b.status().traffic];
    for (from, to, address) in [(&one, &two, "10.2.1.2"), (&two, &one, "10.2.1.1"), (&one, &two, "fd00:2::2")] {
        bulk(&Place::Here(from), &Place::Here(to), address);
        // Whom it forgot is asked for, and answered, as ever.
        from.sh("ip neigh flush all");
        from.reaches(address);
    }
    let after = [a.status().traffic, b.status().traffic];
    for (before, after) in before.iter().zip(&after) {
        let bytes = after.from_bridge.bytes - before.from_bridge.bytes;
        assert!(bytes < 500_000, "the data path still moved {bytes} bytes of the bridge");
    }
    four.unharmed();
    six.unharmed();
    for view in [&["status", "connections"][..], &["report"]] {
        assert!(a.rnet(view).ok().contains("kernel"), "{view:?}");
    }
    // What is wider than a path, or not from an attachment, is no business of the kernel's.
    one.run(&["ping", "-nq", "-c3", "-i0.2", "-s4000", "10.2.1.2"]).ok();
    hosts.iter().for_each(|host| {
        host.rnet(&["stop"]).ok();
        host.is_clean();
        assert_eq!(host.sh("nft list tables").trim(), "");
    });
}

fn the_kernel_carries_over_ipv6_and_beside_routers_that_speak_vxlan_themselves() {
    let room = Room::new();
    let [a, b, c] = room.chain(["a", "b", "c"]);
    a.sh("ip address add fd77::1/64 dev to-b nodad");
    b.sh("ip address add fd77::2/64 dev to-a nodad");
    b.launch_with(&KERNEL, &[]).ok();
    a.launch_with(&KERNEL, &["[fd77::2]"]).ok();
    c.launch_with(&["--framing", "vxlan"], &[&b.toward(&c)]).ok();
    b.linked(2);
    let containers = [a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]), c.container(&["10.2.1.3/24"])];
    for (host, peer, framing) in
        [(&a, &b, Framing::Kernel), (&b, &a, Framing::Kernel), (&b, &c, Framing::Kernel), (&c, &b, Framing::Vxlan)]
    {
        sends_by(host, peer, framing);
    }
    let [one, two, three] = &containers;
    let streams = [one.stream("10.2.1.2"), two.stream("10.2.1.3"), one.stream("10.2.1.3")];
    carries(&b, 2);
    assert!(b.interfaces().iter().any(|name| name.starts_with("rny")), "{:?}", b.interfaces());
    streams.into_iter().for_each(Stream::unharmed);
    for (from, to, address) in
        [(one, two, "10.2.1.2"), (two, three, "10.2.1.3"), (three, two, "10.2.1.2"), (three, one, "10.2.1.1")]
    {
        bulk(&Place::Here(from), &Place::Here(to), address);
    }
}

fn a_connection_and_a_stream_do_not_notice_that_routers_are_killed_and_come_back() {
    talk_outlives(Host::murder);
}

fn nor_that_routers_are_stopped_for_an_upgrade_and_launched_again() {
    talk_outlives(|host| {
        host.rnet(&["stop", "--keep"]).ok();
        host.rnet(&["reset"]).refused(1, &["--keep", "rnet reset --force"]);
    });
}

/// Between two hosts whose kernels carry, each of which loses its router so and gets it back.
fn talk_outlives(end: impl Fn(&Host)) {
    let (_room, hosts) = two([&KERNEL, &KERNEL]);
    let [a, b] = &hosts;
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    both_send_by(&hosts, Framing::Kernel);
    let talk = Talk::new(&one, &two, "10.2.1.2");
    let (there, back) = (one.stream("10.2.1.2"), two.stream("10.2.1.1"));
    carries(a, 1);
    carries(b, 1);
    for (victim, other, peers) in [(a, b, vec![]), (b, a, vec![a.toward(b)])] {
        end(victim);
        until(SOON, "the other one noticed", || other.status().connections.iter().all(|c| c.path.is_none()));
        // With no router there, for longer than anything of it is remembered by habit.
        talk.goes_on("they talk without a router");
        talk.goes_on("they go on");
        let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
        victim.launch_with(&KERNEL, &peers).ok();
        talk.goes_on("they talk while it takes over");
        both_send_by(&hosts, Framing::Kernel);
        talk.goes_on("they talk afterwards");
        carries(victim, 1);
        carries(other, 1);
    }
    there.unharmed();
    back.unharmed();
    let late: Vec<u64> = talk.took().into_iter().filter(|ms| *ms > 1000).collect();
    assert!(late.is_empty(), "{late:?} ms");
    assert!(one.pings("10.2.1.2"));
}

/// Hears numbered broadcasts, and tells each as it comes.
const LISTEN: &str = "import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.setsockopt(socket.SOL_SOCKET,socket.SO_RCVBUF,1<<20);s.bind(('',9000))
print('ready',flush=True)
while True: print(s.recv(99).decode(),flush=True)";

/// Says who it is and a number, for 8 s.
const SHOUT: &str = "import socket,sys,time
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.setsockopt(socket.SOL_SOCKET,socket.SO_BROADCAST,1)
for n in range(320): s.sendto(b'%s %d'%(sys.argv[1].encode(),n),('10.2.1.255',9000));time.sleep(0.025)";

fn broadcasts_come_once_in_a_mixed_mesh_while_framings_change() {
    let room = Room::new();
    // a and b trust each other, and b and d; c is encrypted, and reaches the others by b alone; e is behind c.
    let [a, b, c, e] = room.chain(["a", "b", "c", "e"]);
    let d = room.host("d");
    room.join(&b, &d);
    room.join(&a, &d);
    let pw = room.path("pw");
    let trusting = |host: &Host, peers: &[&Host], framing: &str| {
        let subnets: Vec<String> = peers.iter().map(|peer| peer.toward(host)).collect();
        let (subnets, password) = (subnets.join(","), ["--password-file", &pw]);
        host.launch_with(&[&password[..], &["--trusted-subnets", &subnets, "--framing", framing]].concat(), &[]).ok();
    };
    trusting(&a, &[&b, &d], "kernel");
    trusting(&b, &[&a, &d], "kernel");
    trusting(&d, &[&b, &a], "vxlan");
    c.launch(&[]);
    e.launch(&[&c.toward(&e)]);
    a.rnet(&["connect", &b.toward(&a), &d.toward(&a)]).ok();
    b.rnet(&["connect", &c.toward(&b), &d.toward(&b)]).ok();
    for (host, peer, framing) in [
        (&a, &b, Framing::Kernel),
        (&b, &a, Framing::Kernel),
        (&b, &d, Framing::Kernel),
        (&d, &b, Framing::Vxlan),
        (&b, &c, Framing::Udp),
        (&c, &e, Framing::Udp),
    ] {
        sends_by(host, peer, framing);
    }
    let hosts = [&a, &b, &c, &d, &e];
    let containers: Vec<Container> =
        (1..).zip(hosts).map(|(n, host)| host.container(&[&format!("10.2.1.{n}/24")])).collect();
    for n in 2..=5 {
        containers[0].reaches(&format!("10.2.1.{n}"));
    }
    let listeners: Vec<Process> =
        containers.iter().map(|container| container.start(&["python3", "-c", LISTEN])).collect();
    until(SOON, "all listen", || listeners.iter().all(|listener| listener.stdout().contains("ready")));
    let shouters: Vec<Process> = containers
        .iter()
        .zip("abcde".chars())
        .map(|(container, who)| container.start(&["python3", "-c", SHOUT, &who.to_string()]))
        .collect();
    // Unicast beside it, so that MACs come and go in the kernels.
    let pinged = containers[0].stream("10.2.1.2");
    carries(&a, 1);
    block(&b, 0);
    for framing in [Framing::Udp, Framing::Kernel] {
        sends_by(&a, &b, framing);
        sends_by(&b, &a, framing);
        if framing == Framing::Udp {
            unblock(&b);
        }
    }
    for shouter in shouters {
        assert_eq!(shouter.finish(SOON).code, 0);
    }
    let heard = |listener: &Process, who: char| -> Vec<String> {
        let prefix = format!("{who} ");
        listener.stdout().lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_string).collect()
    };
    let all: Vec<String> = (0..320).map(|n: u32| n.to_string()).collect();
    for (listener, own) in listeners.iter().zip("abcde".chars()) {
        for who in "abcde".chars().filter(|who| *who != own) {
            until(SOON, &format!("{own} has heard all that {who} said"), || heard(listener, who).len() >= all.len());
            assert_eq!(heard(listener, who), all, "{own} of {who}");
        }
    }
    let lines = || listeners.iter().map(|listener| listener.stdout().lines().count()).collect::<Vec<_>>();
    let before = lines();
    throughout(Duration::from_millis(300), "nothing comes twice", || lines() == before);
    drop(pinged);
}

fn devices_and_entries_that_others_take_away_come_back() {
    let (_room, hosts) = two([&KERNEL, &KERNEL]);
    let [a, b] = &hosts;
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    both_send_by(&hosts, Framing::Kernel);
    let stream = one.stream("10.2.1.2");
    carries(a, 1);
    let device = device(a);
    let (mac, b_address) = (two.mac("rnet0"), b.toward(a));
    let entries = || a.sh(&format!("bridge fdb show dev {device}"));
    let is_whole = || {
        let text = entries();
        let ours: Vec<&str> = text.lines().filter(|line| line.starts_with(&mac)).collect();
        ours.len() == 2 && ours.iter().any(|l| l.contains("sticky")) && ours.iter().any(|l| l.contains(&b_address))
    };
    assert!(is_whole(), "{}", entries());
    a.sh(&format!("bridge fdb del {mac} dev {device} master"));
    until(SOON, "the bridge's entry is back", is_whole);
    a.sh(&format!("bridge fdb del {mac} dev {device} self"));
    until(SOON, "the device's entry is back", is_whole);
    // A flood list would double every broadcast.
    a.sh(&format!("bridge fdb append 00:00:00:00:00:00 dev {device} dst {b_address} self permanent"));
    until(SOON, "no flood list", || !entries().contains("00:00:00:00:00:00"));
    a.sh(&format!("bridge link set dev {device} flood on isolated off learning on"));
    let rules = || a.sh(&format!("bridge -d link show dev {device}"));
    until(SOON, "its port is as it was", || {
        let text = rules();
        ["isolated on", "learning off", " flood off", "mcast_flood off", "bcast_flood off"]
            .iter()
            .all(|word| text.contains(word))
    });
    a.sh("nft delete table inet rnet_vxlan");
    until(SOON, "the gate is back", || a.sh("nft list tables").contains("rnet_vxlan"));
    for (doing, again) in [
        (format!("ip link delete {device}"), Framing::Kernel),
        (format!("ip link set {device} nomaster"), Framing::Kernel),
        ("ip link delete rnxffffff".to_string(), Framing::Kernel),
        ("ip link set rnxffffff down".to_string(), Framing::Kernel),
    ] {
        a.sh(&doing);
        one.reaches("10.2.1.2");
        two.reaches("10.2.1.1");
        until(SOON, &format!("all is as it was after {doing}"), || {
            a.interfaces().contains(&device) && framing_to(a, b) == Some(again) && is_whole()
        });
    }
    drop(stream);
}

fn somebody_elses_device_on_our_port_is_named_and_udp_goes_on() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.sh("ip link add flannel.1 type vxlan id 42 dstport 6784 local 127.0.0.1 && ip link set flannel.1 up");
    a.launch_with(&KERNEL, &[]).refused(1, &["--framing kernel", "6784", "flannel.1", "VNI 42", "--port"]);
    assert!(a.interfaces().is_empty());
    a.launch_with(&[], &[]).ok();
    b.launch_with(&[], &[&a.toward(&b)]).ok();
    let (one, _two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    let words = ["6784", "flannel.1", "VNI 42", "--port"];
    until(SOON, "status says who has the port", || words.iter().all(|word| a.status().framing.info.contains(word)));
    let report = a.rnet(&["report"]).ok();
    assert!(words.iter().all(|word| report.contains(word)), "{report}");
    assert_eq!((framing_to(&a, &b), framing_to(&b, &a)), (Some(Framing::Udp), Some(Framing::Udp)));
    assert!(a.sh("ip -d link show flannel.1").contains("dstport 6784"), "it was left alone");
    a.sh("ip link delete flannel.1");
    sends_by(&a, &b, Framing::Kernel);
    sends_by(&b, &a, Framing::Kernel);
    assert_eq!(a.status().framing.info, "");
    one.reaches("10.2.1.2");
}

/// Sends the UDP payload argv 2 to the VXLAN port of argv 1, five times.
const FORGE: &str = "import socket,sys
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)
for _ in range(5): s.sendto(bytes.fromhex(sys.argv[2]),(sys.argv[1],6784))";

fn vxlan_of_strangers_and_in_the_name_of_others_reaches_nobody() {
    let room = Room::new();
    let [b, a, stranger] = room.chain(["b", "a", "s"]);
    a.launch_with(&KERNEL, &[]).ok();
    b.launch_with(&KERNEL, &[&a.toward(&b)]).ok();
    let (one, other, two) =
        (a.container(&["10.2.1.1/24"]), a.container(&["10.2.1.3/24"]), b.container(&["10.2.1.2/24"]));
    sends_by(&a, &b, Framing::Kernel);
    sends_by(&b, &a, Framing::Kernel);
    let stream = one.stream("10.2.1.2");
    carries(&a, 1);
    let vni = u32::from_str_radix(&device(&a)[3..], 16).unwrap();
    let mac = |container: &Container| container.mac("rnet0").replace(':', "");
    let frame = |to: &str, from: &str, mark: &str| format!("{to}{from}88b6{}{}", mark, "00".repeat(46));
    let sniffers = [&one, &other].map(|container| listening(container.start(&[&SNIFF[..], &["-"]].concat())));
    let heard = |mark: &str| sniffers.iter().any(|sniffer| sniffer.stdout().contains(mark));
    let forge = |host: &Host, to: &str, payload: &str| {
        host.run(&["python3", "-c", FORGE, to, payload]).ok();
    };
    let header = |vni: u32| format!("08000000{vni:06x}00");
    let say = |host: &Host, to: &str, frame: &str| forge(host, to, &(header(vni) + frame));
    let (to_a, from_s) = (a.toward(&b), a.toward(&stranger));
    say(&stranger, &from_s, &frame(&mac(&one), "020000000066", "feed0001"));
    say(&b, &to_a, &frame("ffffffffffff", "020000000066", "feed0002"));
    say(&b, &to_a, &frame("01005e000001", "020000000066", "feed0003"));
    say(&b, &to_a, &frame(&mac(&one), &mac(&other), "feed0004"));
    say(&b, &to_a, &frame(&mac(&one), "030000000066", "feed0005"));
    // Of no network here, of the heartbeats', without a network's number, with bits that are reserved, cut short.
    let good = frame(&mac(&one), "020000000066", "feed0006");
    forge(&b, &to_a, &(header(vni ^ 1) + &good));
    forge(&b, &to_a, &(header(0xff_ffff) + &good));
    forge(&b, &to_a, &format!("00000000{vni:06x}00{good}"));
    forge(&b, &to_a, &format!("ff112233{vni:06x}ff{good}"));
    forge(&b, &to_a, &header(vni)[..14]);
    forge(&b, &to_a, &(header(vni) + &good[..26]));
    // What a itself sent, back to it: from its own address, and from that of its neighbour.
    forge(&a, &to_a, &(header(vni) + &good));
    say(&b, &to_a, &frame(&mac(&two), &mac(&one), "feed0007"));
    // What the gate and the guard let through shows that the forgery is one.
    say(&b, &to_a, &frame(&mac(&one), "020000000066", "feed0008"));
    until(SOON, "an honest one arrives", || heard("feed0008"));
    for mark in ["feed0001", "feed0002", "feed0003", "feed0004", "feed0005", "feed0006", "feed0007"] {
        assert!(!heard(mark), "{mark} arrived");
    }
    stream.unharmed();
    two.reaches("10.2.1.3");
}
