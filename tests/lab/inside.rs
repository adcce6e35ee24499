//! Root inside an attachment: it may send what it likes, and no other network hears of it, nor the host, nor do its own
//! neighbours believe a lie.

use crate::isolation::{SNIFF, listening};
use crate::room::{Container, Host, Process, Room, SOON};
use crate::wait::until;
use serde_json::json;
use std::collections::BTreeSet;
use std::process::Stdio;

crate::facts![
    nothing_forged_leaves_an_attachment_and_nothing_true_its_network,
    without_the_guard_networks_stay_apart_and_tables_bounded,
    host_is_out_of_reach_of_its_networks,
];

const ATTACKS: [&str; 4] = ["python3", "-u", "-c", include_str!("attacks.py")];
const MARK: &str = "rnet-evil:";
/// How often each frame is sent.
const COUNT: u64 = 2;

/// a and b in a mesh.
fn mesh() -> (Room, [Host; 2]) {
    let room = Room::new();
    let hosts = room.chain(["a", "b"]);
    for host in &hosts {
        // A kernel that filters bridges cuts off what stands behind a packet's end, and with it the attacks' names.
        host.sh("for f in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -w $f ] || echo 0 >$f; done");
    }
    hosts[0].launch(&[]);
    hosts[1].launch(&[&hosts[0].toward(&hosts[1])]);
    hosts[1].linked(1);
    (room, hosts)
}

/// Looks at every interface of a container: what it gets, not what it sends.
struct Ear<'c>(&'static str, Process, &'c Container<'c>);

impl<'c> Ear<'c> {
    fn new(name: &'static str, of: &'c Container<'c>) -> Ear<'c> {
        Ear(name, listening(of.start(&[&SNIFF[..], &["-"]].concat())), of)
    }

    /// Names of the attacks that came out here.
    fn heard(&self) -> BTreeSet<String> {
        let seen = self.1.stdout();
        let frames = seen.lines().filter_map(|line| line.split(' ').nth(2));
        let mark: String = MARK.bytes().map(|byte| format!("{byte:02x}")).collect();
        let name = |hex: &str| {
            let after = hex.split(&mark).nth(1)?;
            let bytes =
                (0..after.len() / 2).map_while(|at| u8::from_str_radix(after.get(2 * at..2 * at + 2)?, 16).ok());
            let text: Vec<u8> = bytes.take_while(|byte| *byte != b';').collect();
            String::from_utf8(text).ok()
        };
        frames.filter_map(name).collect()
    }
}

fn facts_of(container: &Container, address: &str) -> serde_json::Value {
    json!({"mac": container.mac("rnet0"), "ip": address})
}

/// MACs of the devices that the host has on its bridges.
fn doors(host: &Host) -> Vec<String> {
    let text = host.sh("ip -o link show");
    let ours = text.lines().filter(|line| line.split(": ").nth(1).is_some_and(|name| name.starts_with("rn")));
    let mac = |line: &str| line.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).map(str::to_string);
    ours.filter_map(mac).collect()
}

/// Runs all attacks; gives the names of those that are forged, and of those that are not.
fn attack(evil: &Container, facts: &serde_json::Value) -> (BTreeSet<String>, BTreeSet<String>) {
    let outcome = evil.start(&[&ATTACKS[..], &["rnet0", &facts.to_string()]].concat()).finish(3 * SOON).ok();
    let of = |kind: &str| -> BTreeSet<String> {
        outcome.lines().filter_map(|line| line.strip_prefix(kind)).map(str::to_string).collect()
    };
    (of("forged "), of("true "))
}

fn drops(host: &Host, reason: &str) -> u64 {
    host.status().drops.iter().find(|(why, _)| why == reason).map_or(0, |(_, count)| *count)
}

/// Neighbours that a container believes in: address and MAC.
fn neighbours(of: &Container) -> String {
    let text =
        of.sh("ip neigh show nud reachable; ip neigh show nud stale; ip neigh show nud delay; ip neigh show nud probe");
    let lines = text.lines().map(|line| line.split_whitespace().take(5).collect::<Vec<_>>().join(" "));
    lines.collect::<BTreeSet<String>>().into_iter().collect::<Vec<_>>().join("\n")
}

fn nothing_forged_leaves_an_attachment_and_nothing_true_its_network() {
    let (_room, [a, b]) = mesh();
    let evil = a.container(&["10.32.2.66/24"]);
    let (near, far) = (a.container(&["10.32.2.1/24"]), b.container(&["10.32.2.2/24"]));
    let (apart, beyond) = (a.container(&["10.32.3.1/24"]), b.container(&["10.32.3.2/24"]));
    let wide = b.container(&["10.32.2.77/12"]);
    for (from, to) in [(&near, "10.32.2.2"), (&far, "10.32.2.1"), (&near, "10.32.2.66"), (&far, "10.32.2.66")] {
        from.reaches(to);
    }
    let facts = json!({
        "own": facts_of(&evil, "10.32.2.66"),
        "friends": [facts_of(&near, "10.32.2.1"), facts_of(&far, "10.32.2.2")],
        "victims": [facts_of(&apart, "10.32.3.1"), facts_of(&beyond, "10.32.3.2")],
        "doors": doors(&a), "hosts": [a.toward(&b)], "count": COUNT, "floods": 20_000,
    });
    let streams = [near.stream("10.32.2.2"), apart.stream("10.32.3.2")];
    let believed = [neighbours(&near), neighbours(&far)];
    let friends = [Ear::new("on the same bridge", &near), Ear::new("of the same network elsewhere", &far)];
    let victims = [
        Ear::new("of another network here", &apart),
        Ear::new("of another network elsewhere", &beyond),
        Ear::new("of a wider network", &wide),
    ];
    let own = Ear::new("the attacker", &evil);
    let (forged, honest) = attack(&evil, &facts);
    assert!(forged.len() > 100 && honest.len() > 20, "{} and {}", forged.len(), honest.len());
    for friend in &friends {
        until(SOON, "the last frame arrives", || friend.heard().contains("last"));
        let heard = friend.heard();
        let believed: Vec<&String> = heard.intersection(&forged).collect();
        assert!(believed.is_empty(), "{} got what is forged: {believed:?}", friend.0);
        assert!(heard.contains("true-broadcast") && heard.contains("true-igmp"), "{} got {heard:?}", friend.0);
    }
    for victim in &victims {
        assert_eq!(victim.heard(), BTreeSet::new(), "{} got something", victim.0);
        assert!(victim.2.pings("10.32.3.1") || victim.0.contains("wider"), "{} is disturbed", victim.0);
    }
    // The host has not answered for itself: no ARP reply names it.
    let host: String = a.toward(&b).split('.').map(|octet| format!("{:02x}", octet.parse::<u8>().unwrap())).collect();
    let replies = own.1.stdout();
    let answered =
        |line: &&str| line.contains("08060001080006040002") && line.get(0..).is_some_and(|l| l.contains(&host));
    assert_eq!(
        replies.lines().find(|line| answered(line) && !line.contains(" 4 ")),
        None,
        "the host answers for itself"
    );
    streams.into_iter().for_each(crate::room::Stream::unharmed);
    assert_eq!([neighbours(&near), neighbours(&far)], believed, "somebody believes a lie");

    let reasons = ["guard-mac", "guard-address", "guard-tagged", "guard-router", "link-local", "group-source"];
    for (reason, least) in reasons.into_iter().zip([20_000, 50, 14, 3, 4, 2]) {
        let counted = drops(&a, reason);
        assert!(counted >= least * if reason == "guard-mac" { 1 } else { COUNT }, "{reason}: {counted}");
    }
    let report = a.rnet(&["report"]).ok();
    assert!(reasons.iter().all(|reason| report.contains(reason)), "{report}");
    // Neither rnet's table nor the kernel's has learned a MAC of the flood, on either host.
    for host in [&a, &b] {
        assert!(host.status().macs.iter().all(|seen| !seen.mac.to_string().starts_with("02:66")), "{}", host.name);
        assert!(!host.sh("bridge fdb show").contains("02:66"), "{}", host.name);
    }
}

fn without_the_guard_networks_stay_apart_and_tables_bounded() {
    let (_room, [a, b]) = mesh();
    let evil = a.container_running(&["10.32.2.66/24"], &["--no-guard"], "exec sleep 600");
    let (near, far) = (a.container(&["10.32.2.1/24"]), b.container(&["10.32.2.2/24"]));
    let (apart, beyond) = (a.container(&["10.32.3.1/24"]), b.container(&["10.32.3.2/24"]));
    near.reaches("10.32.2.2");
    let facts = json!({
        "own": facts_of(&evil, "10.32.2.66"),
        // Lies about its neighbours are what it is exempt for; about others they must be without effect.
        "friends": [], "victims": [facts_of(&apart, "10.32.3.1"), facts_of(&beyond, "10.32.3.2")],
        "doors": doors(&a), "hosts": [a.toward(&b)], "count": 1, "floods": 20_000,
    });
    let victims = [Ear::new("of another network here", &apart), Ear::new("of another network elsewhere", &beyond)];
    let stream = apart.stream("10.32.3.2");
    let friend = Ear::new("of the same network elsewhere", &far);
    attack(&evil, &facts);
    until(SOON, "the last frame arrives", || friend.heard().contains("last"));
    assert!(friend.heard().contains("flood") && friend.heard().contains("mac-of-nobody"), "so it is not guarded");
    for victim in &victims {
        assert_eq!(victim.heard(), BTreeSet::new(), "{} got something", victim.0);
    }
    stream.unharmed();
    for host in [&a, &b] {
        let macs = host.status().macs;
        assert!(macs.len() < 4096 + 10, "{} learned {} MACs", host.name, macs.len());
        assert!(macs.iter().filter(|seen| seen.mac.to_string().starts_with("02:66")).count() > 1000, "it was flooded");
    }
    // Whoever was known before still is: a frame to it is not flooded.
    let near_mac = near.mac("rnet0");
    assert!(b.status().macs.iter().any(|seen| seen.mac.to_string() == near_mac));
    assert!(far.pings("10.32.2.1") && near.pings("10.32.2.2"));
}

fn host_is_out_of_reach_of_its_networks() {
    let (_room, [a, b]) = mesh();
    let evil = a.container_running(&["10.32.2.66/24"], &["--no-guard"], "exec sleep 600");
    let far = b.container_running(&["10.32.2.2/24"], &["--no-guard"], "exec sleep 600");
    far.reaches("10.32.2.66");
    // Everything that comes to a port of the host, at any address.
    let hear = "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind(('',7777));print('ready',flush=True)\n\
        while True: print('got',s.recvfrom(99),flush=True)";
    let server = listening(a.start_with(&["python3", "-u", "-c", hear], Stdio::null()));
    let before = drops(&a, "unknown-index") + drops(&a, "malformed");
    for (from, address) in [(&evil, "10.32.2.66"), (&far, "10.32.2.2")] {
        let facts = json!({
            "own": facts_of(from, address), "friends": [], "victims": [facts_of(&evil, "10.32.2.66")],
            "doors": doors(&a), "hosts": [a.toward(&b), "127.0.0.1"], "count": 2, "floods": 0,
        });
        attack(from, &facts);
    }
    // By the ordinary way a datagram is heard: what came before it would have been.
    b.sh(&format!("echo fine | timeout 5 python3 -c 'import socket;socket.socket(socket.AF_INET,socket.SOCK_DGRAM).sendto(b\"fine\",(\"{}\",7777))'", a.toward(&b)));
    until(SOON, "the server hears its friends", || server.stdout().contains("fine"));
    assert!(!server.stdout().contains("evil"), "{}", server.stdout());
    assert_eq!(drops(&a, "unknown-index") + drops(&a, "malformed"), before, "the mesh's own port was reached");
}
