//! VTEPs that are not rnet: the kernel's VXLAN device and Open vSwitch, joined to a network of the mesh; and what strangers try.
//!
//! ```text
//!   b ---- mesh ---- a ------- VXLAN ------- v: bridge - far (a namespace with 10.2.1.50 and fd00:1::50)
//! ```

use crate::isolation::{SNIFF, listening};
use crate::room::{Host, Room, SOON, Stream};
use crate::segment::{Place, broadcasts_are_heard_once, bulk, machine};
use crate::wait::{until, within};

crate::facts![
    a_kernels_vxlan_device_is_on_the_network,
    open_vswitch_is_on_the_network if OPEN_VSWITCH,
    a_vtep_on_another_port_is_on_the_network,
    a_vtep_over_ipv6_is_on_the_network,
    what_a_vtep_cannot_take_is_told_to_the_sender,
    vteps_survive_a_stop_a_kill_and_end_with_forget,
    wrong_requests_are_refused_with_what_to_do,
    a_port_that_the_kernel_holds_is_told_and_taken_when_it_is_free,
    what_strangers_send_to_the_door_is_counted_and_harms_nobody,
    what_comes_back_from_a_vtep_is_dropped,
    of_two_hosts_that_join_a_vtep_one_carries_it_and_the_other_takes_over,
];

const TOOL: [&str; 4] = ["python3", "-u", "-c", include_str!("wire.py")];

/// b and a have a mesh; v is on a line with a.
fn stage() -> (Room, [Host; 3]) {
    let room = Room::new();
    let hosts = room.chain(["b", "a", "v"]);
    let [b, a, _] = &hosts;
    a.launch(&[]);
    b.launch(&[&a.toward(b)]);
    b.linked(1);
    (room, hosts)
}

/// A bridge with a VXLAN device on `v`, and `far` on it.
fn kernel_vtep(v: &Host, vni: u32, local: &str, remote: &str) {
    kernel_vtep_by(4789, v, vni, local, remote);
}

fn kernel_vtep_by(port: u16, v: &Host, vni: u32, local: &str, remote: &str) {
    v.sh(&format!(
        "ip link add br0 type bridge && ip link set br0 up
        ip link add vx0 type vxlan id {vni} dstport {port} local {local} remote {remote}
        ip link set vx0 master br0 up"
    ));
    machine(v, "far", FAR, "ip link set far0 master br0");
}

/// Who is behind the VTEP.
const FAR: [&str; 2] = ["10.2.1.50", "fd00:1::50"];

const JOIN: [&str; 4] = ["--network", "10.2.1.0/24", "--vni", "42"];

fn join(a: &Host, address: &str) {
    a.rnet(&[&["connect", address], &JOIN[..]].concat()).ok();
}

/// A network, and the addresses there of somebody at a, at b, and behind the VTEP.
struct Net {
    network: &'static str,
    here: &'static str,
    there: &'static str,
    far: &'static str,
}

const V4: Net = Net { network: "10.2.1.0/24", here: "10.2.1.1", there: "10.2.1.2", far: "10.2.1.50" };
const V6: Net = Net { network: "fd00:1::/64", here: "fd00:1::1", there: "fd00:1::2", far: "fd00:1::50" };

/// What a VTEP does when much comes at once.
#[derive(Clone, Copy, PartialEq)]
enum Rush {
    /// It takes all of it.
    Passes,
    /// It drops some. Open vSwitch's packet sockets have room for 212,992 bytes each: beside other work on two processors they
    /// dropped two or three thousand frames of what `is_on_the_network` moves (`ss -0 -m`), and nobody else dropped any.
    Overflows,
}

/// Everything that somebody behind a VTEP may expect, in both directions, here and across the mesh.
fn is_on_the_network(net: &Net, [b, a, v]: &[Host; 3], address: &str, rush: Rush) {
    a.rnet(&["connect", address, "--network", net.network, "--vni", "42"]).ok();
    let length = net.network.rsplit_once('/').unwrap().1;
    let (one, two) =
        (a.container(&[&format!("{}/{length}", net.here)]), b.container(&[&format!("{}/{length}", net.there)]));
    let (here, there, far) = (Place::Here(&one), Place::Here(&two), Place::Far(v, "far"));
    // Nobody knows anybody yet, so each begins with a question (ARP, or neighbour discovery).
    far.reaches(net.here);
    far.reaches(net.there);
    here.reaches(net.far);
    there.reaches(net.far);
    let mut stream = Some(one.stream(net.far));
    if net.network == V4.network {
        broadcasts_are_heard_once(&[Place::Here(&one), Place::Here(&two), Place::Far(v, "far")]);
    }
    if rush == Rush::Overflows {
        stream.take().into_iter().for_each(Stream::unharmed);
    }
    for (from, to, address) in
        [(&here, &far, net.far), (&far, &here, net.here), (&there, &far, net.far), (&far, &there, net.there)]
    {
        bulk(from, to, address);
    }
    stream.into_iter().for_each(Stream::unharmed);
    let status = a.status();
    let vtep = &status.vteps[0];
    assert_eq!((vtep.address.to_string().as_str(), vtep.vni.value(), vtep.info.as_str()), (address, 42, ""));
    assert!(vtep.from_vtep.frames > 1000 && vtep.to_vtep.frames > 1000 && vtep.last_heard < Some(5), "{vtep:?}");
    assert!(status.macs.iter().any(|seen| seen.vtep == Some(vtep.address)));
    for view in ["targets", "connections", "networks"] {
        assert!(a.rnet(&["status", view]).ok().contains(address), "status {view}");
    }
    let drops: Vec<_> = status.drops.iter().filter(|(why, _)| why.contains("vtep") || why.contains("send")).collect();
    assert!(drops.is_empty(), "{drops:?}");
}

fn a_kernels_vxlan_device_is_on_the_network() {
    let (_room, hosts) = stage();
    let [_, a, v] = &hosts;
    kernel_vtep(v, 42, &v.toward(a), &a.toward(v));
    is_on_the_network(&V4, &hosts, &format!("vxlan://{}", v.toward(a)), Rush::Passes);
}

fn a_vtep_on_another_port_is_on_the_network() {
    let (_room, hosts) = stage();
    let [b, a, v] = &hosts;
    kernel_vtep_by(8472, v, 42, &v.toward(a), &a.toward(v));
    join(a, &format!("vxlan://{}:8472", v.toward(a)));
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches(FAR[0]);
    two.reaches(FAR[0]);
    broadcasts_are_heard_once(&[Place::Here(&one), Place::Here(&two), Place::Far(v, "far")]);
    // The same by the port that everybody has is nobody's.
    a.rnet(&["forget", &format!("vxlan://{}", v.toward(a))]).ok();
    one.reaches(FAR[0]);
    a.rnet(&["forget", &format!("vxlan://{}:8472", v.toward(a))]).ok();
    one.never_reaches(FAR[0]);
}

fn a_vtep_over_ipv6_is_on_the_network() {
    let (_room, hosts) = stage();
    let [_, a, v] = &hosts;
    a.sh("ip address add fd77::1/64 dev to-v nodad");
    v.sh("ip address add fd77::2/64 dev to-a nodad");
    // Without UDP checksums, as switches send them; and whole packets, as on a wire.
    kernel_vtep(v, 42, "fd77::2", "fd77::1 udp6zerocsumtx udp6zerocsumrx");
    on_a_wire(v);
    is_on_the_network(&V6, &hosts, "vxlan://[fd77::2]", Rush::Passes);
    until(SOON, "the route's MTU is known", || a.status().vteps[0].mtu == 1430);
}

/// `v` finishes checksums and cuts frames itself, as it must where there is a wire, and as a veth need not.
fn on_a_wire(v: &Host) {
    v.sh("ethtool -K to-a tx off >/dev/null");
}

fn open_vswitch_is_on_the_network() {
    let (room, hosts) = stage();
    let [_, a, v] = &hosts;
    let (local, remote) = (v.toward(a), a.toward(v));
    // Everything of it in the room; its userspace datapath needs whole packets and finished checksums, which a veth leaves
    // undone.
    v.sh(&format!(
        "mkdir {dir} && ovsdb-tool create {dir}/conf.db /usr/share/openvswitch/vswitch.ovsschema",
        dir = room.path("ovs")
    ));
    a.sh("ethtool -K to-v tx off >/dev/null");
    let environment =
        ["env".to_string(), format!("OVS_RUNDIR={}", room.path("ovs")), format!("OVS_DBDIR={}", room.path("ovs"))];
    let socket = format!("unix:{}", room.path("ovs/db.sock"));
    let with = |argv: &[&str]| -> Vec<String> {
        environment.iter().cloned().chain(argv.iter().map(|w| w.to_string())).collect()
    };
    let start = |argv: &[&str]| v.start(&with(argv).iter().map(String::as_str).collect::<Vec<_>>());
    let punix = format!("--remote=p{socket}");
    let _db = start(&["ovsdb-server", &punix, "--no-chdir", &room.path("ovs/conf.db")]);
    let vsctl = |argv: &[&str]| {
        v.run(
            &with(&[&["ovs-vsctl", &format!("--db={socket}"), "--timeout=10"], argv].concat())
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        )
    };
    until(SOON, "the database answers", || vsctl(&["--no-wait", "init"]).code == 0);
    let switch = start(&["ovs-vswitchd", &socket, "--no-chdir"]);
    for bridge in ["br0", "under"] {
        let added = vsctl(&["add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev"]);
        assert_eq!(added.code, 0, "{added:?} {}", switch.stderr());
    }
    let options = ["options:key=42", &format!("options:remote_ip={remote}"), &format!("options:local_ip={local}")];
    vsctl(&[&["add-port", "br0", "vx0", "--", "set", "interface", "vx0", "type=vxlan"], &options[..]].concat()).ok();
    // The underlay's address moves to the userspace bridge, by which tunnels leave.
    vsctl(&["add-port", "under", "to-a"]).ok();
    v.sh(&format!(
        "ip address flush dev to-a && ip address add {local}/24 dev under && ip link set under up && ip link set br0 up"
    ));
    machine(v, "far", FAR, "ethtool -K far0 tx off >/dev/null && ip netns exec far ethtool -K eth0 tx off >/dev/null");
    vsctl(&["add-port", "br0", "far0"]).ok();
    is_on_the_network(&V4, &hosts, &format!("vxlan://{local}"), Rush::Overflows);
}

fn what_a_vtep_cannot_take_is_told_to_the_sender() {
    let room = Room::new();
    let [a, v] = room.chain(["a", "v"]);
    a.launch_with(&["--mtu", "1500"], &[]).ok();
    kernel_vtep(&v, 42, &v.toward(&a), &a.toward(&v));
    let address = format!("vxlan://{}", v.toward(&a));
    join(&a, &address);
    let one = a.container(&["10.2.1.1/24", "fd00:1::1/64"]);
    let (here, far) = (Place::Here(&one), Place::Far(&v, "far"));
    here.reaches("10.2.1.50");
    let sized = |place: &Place<'_>, size: &str, df: &str, to: &str| {
        place.run(&["ping", "-n", "-c2", "-i0.2", "-W1", "-M", df, "-s", size, to])
    };
    assert_eq!(sized(&here, "1422", "do", "10.2.1.50").code, 0, "1450 bytes fit");
    let outcome = sized(&here, "1423", "do", "10.2.1.50");
    assert!(outcome.code != 0 && outcome.stdout.contains("mtu = 1450"), "{outcome:?}");
    bulk(&here, &far, "10.2.1.50");
    bulk(&far, &here, "10.2.1.1");
    // IPv6 senders learn it too: 48 bytes are headers.
    a.rnet(&["connect", &address, "--network", V6.network, "--vni", "43"]).ok();
    v.sh(&format!(
        "ip link add vx1 type vxlan id 43 dstport 4789 local {} remote {}
        ip link add br1 type bridge && ip link set br1 up && ip link set vx1 master br1 up
        ip link add far1 type veth peer name eth1 netns far && ip link set far1 master br1 up
        ip -n far address del {far}/64 dev eth0 && ip -n far address add {far}/64 dev eth1 nodad
        ip -n far link set eth1 up",
        v.toward(&a),
        a.toward(&v),
        far = V6.far
    ));
    here.reaches(V6.far);
    assert_eq!(sized(&here, "1402", "do", V6.far).code, 0);
    let outcome = sized(&here, "1403", "do", V6.far);
    assert!(outcome.code != 0 && outcome.stdout.contains("mtu=1450"), "{outcome:?}");
    a.rnet(&["forget", &address, "--network", V6.network]).ok();
    // What its sender may cut, and did not, is counted: VXLAN has no fragments.
    one.sh("ip route flush cache");
    let counted = |why: &str| a.status().drops.iter().filter(|(label, _)| label == why).map(|(_, n)| n).sum::<u64>();
    assert_ne!(sized(&here, "1423", "probe", "10.2.1.50").code, 0);
    assert!(counted("too-big") >= 2);
    // The underlay becomes narrower.
    a.sh("ip link set to-v mtu 1400");
    v.sh("ip link set to-a mtu 1400");
    until(SOON, "the route is looked at again", || a.status().vteps[0].mtu == 1350);
    bulk(&here, &far, "10.2.1.50");
    // The other way: attachments with a smaller MTU than the VTEP's side.
    a.rnet(&["stop"]).ok();
    drop(one);
    a.launch_with(&["--mtu", "1280"], &[]).ok();
    let one = a.container(&["10.2.1.1/24"]);
    far.reaches("10.2.1.1");
    assert_eq!(sized(&far, "1252", "do", "10.2.1.1").code, 0);
    let outcome = sized(&far, "1253", "do", "10.2.1.1");
    assert!(outcome.code != 0 && outcome.stdout.contains("mtu = 1280"), "{outcome:?}");
    bulk(&far, &Place::Here(&one), "10.2.1.1");
}

fn vteps_survive_a_stop_a_kill_and_end_with_forget() {
    let (_room, [_b, a, v]) = stage();
    kernel_vtep(&v, 42, &v.toward(&a), &a.toward(&v));
    let address = format!("vxlan://{}", v.toward(&a));
    join(&a, &address);
    let sockets = || a.sh("cat /proc/net/udp /proc/net/udp6").matches(":12B5 ").count();
    assert!(sockets() > 0);
    assert_eq!(a.interfaces().len(), 2, "a bridge and a capture port for nobody but the VTEP");
    a.rnet(&["stop"]).ok();
    a.is_clean();
    assert_eq!(sockets(), 0);
    for killed in [false, true] {
        if killed {
            a.murder();
        }
        a.launch(&[]);
        until(SOON, "it is joined again", || a.status().vteps.first().is_some_and(|vtep| vtep.info.is_empty()));
        let one = a.container(&["10.2.1.1/24"]);
        one.reaches("10.2.1.50");
    }
    // Off and on again at once.
    for _ in 0..3 {
        a.rnet(&["forget", &address]).ok();
        join(&a, &address);
    }
    a.rnet(&["forget", &address]).ok();
    until(SOON, "nothing is left of it", || sockets() == 0 && a.interfaces().is_empty());
    assert!(a.status().vteps.is_empty());
    a.rnet(&["stop"]).ok();
    a.launch(&[]);
    assert!(a.status().vteps.is_empty() && a.interfaces().is_empty());
}

fn wrong_requests_are_refused_with_what_to_do() {
    let room = Room::new();
    let [a, v] = room.chain(["a", "v"]);
    a.launch(&[]);
    let address = format!("vxlan://{}", v.toward(&a));
    let own = format!("vxlan://{}", a.toward(&v));
    let connect = |words: &[&str]| a.rnet(&[&["connect"], words].concat());
    connect(&[&address]).refused(2, &["--network CIDR --vni ID"]);
    connect(&[&address, "--network", "10.2.1.0/24"]).refused(2, &["--vni ID"]);
    connect(&[&address, "--network", "10.2.1.0/24", "--vni", "0"]).refused(2, &["from 1 to 16777214"]);
    connect(&[&address, "--network", "10.2.1.0/24", "--vni", "16777216"]).refused(2, &["from 1 to 16777214"]);
    connect(&[&[own.as_str()], &JOIN[..]].concat()).refused(1, &["that is this host itself"]);
    join(&a, &address);
    connect(&[&address, "--network", "10.2.1.0/24", "--vni", "43"]).refused(1, &["with VNI 42 already", "forget it"]);
    connect(&[&address, "--network", "10.2.2.0/24", "--vni", "42"]).refused(1, &["give another VNI"]);
    connect(&[&address, "--network", "10.2.2.0/24", "--vni", "43"]).ok();
    a.rnet(&["forget", &address]).refused(1, &["on several networks", "--network"]);
    a.rnet(&["forget", &address, "--network", "10.2.2.0/24"]).ok();
    a.rnet(&["forget", &address]).ok();
    let again = a.rnet(&["forget", &address, "192.0.2.9"]);
    let words = ["joined; nothing is", "forget 192.0.2.9: nothing of that name is given as a peer to dial; "];
    assert!(again.code == 0 && words.iter().all(|word| again.stderr.contains(word)), "{again:?}");
}

fn a_port_that_the_kernel_holds_is_told_and_taken_when_it_is_free() {
    let (_room, [_b, a, v]) = stage();
    a.sh("ip link add vx9 type vxlan id 9 dstport 4789 && ip link set vx9 up");
    let address = format!("vxlan://{}", v.toward(&a));
    let refused = a.rnet(&[&["connect", &address], &JOIN[..]].concat());
    let words = ["UDP port 4789", "in use", "vx9 (VNI 9)", "--local-port"];
    refused.refused(1, &words);
    assert!(a.status().vteps.is_empty() && a.interfaces().is_empty());
    // By another port; the VTEP is told to send there.
    a.rnet(&[&["connect", &address], &JOIN[..], &["--local-port", "4790"]].concat()).ok();
    kernel_vtep(&v, 42, &v.toward(&a), &a.toward(&v));
    v.sh(&format!(
        "bridge fdb del 00:00:00:00:00:00 dev vx0 dst {0}
        bridge fdb append 00:00:00:00:00:00 dev vx0 dst {0} port 4790",
        a.toward(&v)
    ));
    // What its device learns it sends to the usual port, so it must not.
    v.sh("ip link set vx0 type vxlan nolearning");
    let one = a.container(&["10.2.1.1/24"]);
    one.reaches("10.2.1.50");
    a.rnet(&["forget", &address]).ok();
    a.sh("ip link del vx9");
    v.sh("ip link del vx0");
    join(&a, &address);
    // Taken while the router is away: it starts, says so, and tries again.
    a.rnet(&["stop"]).ok();
    a.sh("ip link add vx9 type vxlan id 9 dstport 4789 && ip link set vx9 up");
    a.launch(&[]);
    until(SOON, "it is told", || words.iter().all(|word| a.status().vteps[0].info.contains(word)));
    assert!(a.rnet(&["status", "connections"]).ok().contains("failed"));
    a.sh("ip link del vx9");
    until(SOON, "it is joined", || a.status().vteps[0].info.is_empty());
}

pub fn drops(host: &Host, why: &str) -> u64 {
    host.status().drops.iter().filter(|(label, _)| label == why).map(|(_, count)| count).sum()
}

fn what_strangers_send_to_the_door_is_counted_and_harms_nobody() {
    let (room, [_b, a, v]) = stage();
    let x = room.host("x");
    room.join(&a, &x);
    kernel_vtep(&v, 42, &v.toward(&a), &a.toward(&v));
    join(&a, &format!("vxlan://{}", v.toward(&a)));
    let one = a.container(&["10.2.1.1/24"]);
    let stream = one.stream("10.2.1.50");
    let inside = listening(one.start(&[&SNIFF[..], &["rnet0"]].concat()));
    // A broadcast of protocol 0x88b5 from somebody.
    let frame = "ffffffffffff02000000009988b5cafecafecafecafe";
    let good = format!("0800000000002a00{frame}");
    let facts = [
        (x.toward(&a), good.clone(), "vtep-unknown"),
        (v.toward(&a), format!("0800000000002b00{frame}"), "vtep-vni"),
        (v.toward(&a), format!("0000000000002a00{frame}"), "vtep-no-vni"),
        (v.toward(&a), format!("0800000000000000{frame}"), "vtep-no-vni"),
        (v.toward(&a), "0800000000002a".to_string(), "vtep-truncated"),
        (v.toward(&a), good[..16 + 26].to_string(), "vtep-truncated"),
        (v.toward(&a), "0800000000002a00ffffffffffff03000000009988b5cafe".to_string(), "group-source"),
    ];
    for (source, body, why) in facts {
        let before = drops(&a, why);
        // Spoofed where it has to be: from another line, with the VTEP's address.
        a.sh("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.to-x.rp_filter=0");
        x.run(&[&TOOL[..], &["spoof", &source, "40000", &a.toward(&x), "4789"], &vec![body.as_str(); 20]].concat())
            .ok();
        until(SOON, &format!("{why} is counted"), || drops(&a, why) >= before + 20);
    }
    assert!(!inside.stdout().contains("88b5cafe"), "delivered");
    // Bits that are reserved are not looked at, and nothing is wrong with them.
    let before: u64 = a.status().drops.iter().map(|(_, count)| count).sum();
    let extended = format!("ff11223300002aff{frame}");
    x.run(&[&TOOL[..], &["spoof", &v.toward(&a), "40000", &a.toward(&x), "4789", &extended]].concat()).ok();
    until(SOON, "it is delivered", || inside.stdout().contains("88b5cafe"));
    assert_eq!(a.status().drops.iter().map(|(_, count)| count).sum::<u64>(), before);
    stream.unharmed();
}

/// Sends back whatever comes.
const MIRROR: &str = "import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind(('',4789));print('ready',flush=True)
while True:
 d,f=s.recvfrom(65536);s.sendto(d,f)";

fn what_comes_back_from_a_vtep_is_dropped() {
    let (_room, [b, a, v]) = stage();
    join(&a, &format!("vxlan://{}", v.toward(&a)));
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    let mirror = listening(v.start(&["python3", "-c", MIRROR]));
    let stream = one.stream("10.2.1.2");
    for from in [&one, &two] {
        let before = drops(&a, "vtep-looped");
        from.run(&["ping", "-nq", "-c3", "-i0.2", "-W0.2", "10.2.1.77"]);
        until(SOON, "what came back is counted", || drops(&a, "vtep-looped") >= before + 2);
    }
    stream.unharmed();
    assert!(a.status().macs.iter().all(|seen| seen.vtep.is_none()), "an attachment was taken over");
    drop(mirror);
}

/// What a kernel's VTEP has learned is learned anew. When a MAC moves to another address, Linux (6.18) goes on by its cached route to the
/// one before, here by another interface, where nobody answers for the new one.
fn learns_anew(v: &Host) {
    v.sh("for mac in $(bridge fdb show dev vx0 | grep dst | grep -v permanent | cut -d' ' -f1)
        do bridge fdb del $mac dev vx0 || true; done");
}

fn of_two_hosts_that_join_a_vtep_one_carries_it_and_the_other_takes_over() {
    let (room, [b, a, v]) = stage();
    room.join(&b, &v);
    kernel_vtep(&v, 42, &v.toward(&a), &a.toward(&v));
    // It floods to both, and has one address for both.
    v.sh(&format!("bridge fdb append 00:00:00:00:00:00 dev vx0 dst {}", b.toward(&v)));
    b.sh(&format!("ip route add {} via {}", v.toward(&a), v.toward(&b)));
    let address = format!("vxlan://{}", v.toward(&a));
    let hosts = [&a, &b];
    hosts.into_iter().for_each(|host| join(host, &address));
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    let blocked = |host: &Host| host.status().vteps[0].blocked;
    let stands_by = within(SOON, "one stands by", || {
        let both = hosts.map(|host| (blocked(host), host.status().vteps[0].shared.is_empty()));
        (0..2).find(|at| both[*at] == (true, false) && both[1 - at] == (false, false))
    });
    let (carrier, spare) = (hosts[1 - stands_by], hosts[stands_by]);
    learns_anew(&v);
    let places = [Place::Here(&one), Place::Here(&two), Place::Far(&v, "far")];
    places[0].reaches(FAR[0]);
    places[1].reaches(FAR[0]);
    broadcasts_are_heard_once(&places);
    let told = spare.rnet(&["status", "connections"]).ok();
    assert!(told.contains("blocked") && told.contains(&format!("({}) carries it", carrier.name)), "{told}");
    assert!(carrier.rnet(&["status", "connections"]).ok().contains(&format!("({}) has joined it too", spare.name)));
    for host in hosts {
        assert!(host.rnet(&["status"]).ok().contains("1 joined by another host too"));
        assert!(host.rnet(&["report"]).ok().contains("\"blocked\""));
    }
    let log = std::fs::read_to_string(spare.data_dir().join("rnet.log")).unwrap();
    assert!(log.contains(&format!("{address} stands by")), "{log}");
    carrier.rnet(&["forget", &address]).ok();
    until(SOON, "the other takes over", || !blocked(spare));
    assert_eq!(spare.status().vteps[0].shared, "");
    learns_anew(&v);
    places[0].reaches(FAR[0]);
    places[1].reaches(FAR[0]);
    broadcasts_are_heard_once(&places);
}
