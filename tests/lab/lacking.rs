//! Kernels that lack what the kernel's VXLAN needs: it is told once, rnet's own is used, and the kernel's once it can be had.
//! Kernels without an offload: it is done without. Kernels that refuse to receive: while that may pass it is waited for.
//!
//! A router runs under `older.py`, which makes the kernel of today answer as one that knows less.

use crate::carriers::{Talk, carries, connection, sends_by};
use crate::integrity::{bytes_arrive, datagrams_arrive};
use crate::isolation::{SNIFF, listening};
use crate::needs::OLDER;
use crate::room::{Host, Outcome, RNET, Room, SOON, Stream};
use crate::vteps::drops;
use crate::wait::{throughout, until};
use rnet::types::Framing;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

crate::facts![
    a_kernel_without_vxlan_is_told_and_rnets_own_is_used if OLDER_KERNEL,
    a_bridge_that_ignores_isolation_without_a_word_is_noticed if OLDER_KERNEL,
    a_bridge_that_ignores_sticky_entries_without_a_word_is_noticed if OLDER_KERNEL,
    a_kernel_without_a_packet_filter_has_no_vxlan_of_the_kernel if OLDER_KERNEL,
    a_host_without_a_packet_filter_has_no_vxlan_of_the_kernel,
    the_kernels_vxlan_is_used_as_soon_as_it_can_be_had if OLDER_KERNEL,
    a_packet_filter_that_comes_later_guards_what_is_attached,
    a_kernel_without_super_frames_of_udp_is_done_with_and_told if OLDER_KERNEL,
    a_kernel_that_joins_no_datagrams_is_done_with_and_told if OLDER_KERNEL,
    a_kernel_that_cuts_no_datagrams_is_done_with_and_told if OLDER_KERNEL,
    a_router_whose_kernel_has_no_memory_waits_without_spinning_and_goes_on if OLDER_KERNEL,
    a_router_that_cannot_receive_any_more_ends_with_a_line if OLDER_KERNEL,
];

/// A host whose kernel lacks something.
struct Old {
    host: Host,
    what: &'static str,
    log: PathBuf,
}

impl Old {
    fn new(room: &Room, what: &'static str) -> Old {
        let host = room.host("a");
        let log = host.data_dir().with_file_name("older.log");
        Old { host, what, log }
    }

    fn launch(&self, options: &[&str]) -> Outcome {
        let log = self.log.to_str().unwrap();
        let outcome = self.host.run(&[&OLDER[..], &[log, self.what, RNET, "launch"], options].concat());
        assert!(outcome.code != 77, "{outcome:?}");
        outcome
    }

    /// How often the kernel was asked for what it lacks.
    fn asked(&self) -> usize {
        fs::read_to_string(&self.log).unwrap_or_default().lines().count()
    }

    /// From now on it lacks nothing.
    fn mend(&self) {
        fs::write(self.log.with_extension("log.off"), "").unwrap();
    }
}

fn logged(host: &Host, words: &str) -> Vec<String> {
    let log = fs::read_to_string(host.data_dir().join("rnet.log")).unwrap();
    log.lines().filter(|line| line.contains(words)).map(str::to_string).collect()
}

/// Whoever names the kernel's is refused in one line; without a name it is told, and all works by rnet's own.
fn is_done_without(what: &'static str, why: &str) {
    let room = Room::new();
    let old = Old::new(&room, what);
    let a = &old.host;
    old.launch(&["--framing", "kernel"]).refused(1, &["--framing kernel", why]);
    assert!(a.interfaces().is_empty(), "{:?}", a.interfaces());
    let b = room.host("b");
    room.join(a, &b);
    old.launch(&[]).ok();
    b.launch_with(&[], &[&a.toward(&b)]).ok();
    falls_back(a, &b, why);
    let asked = old.asked();
    assert!(what == "nftables" || asked >= 2, "the tool changed something: {asked}");
    if what != "nftables" {
        // Again after ten seconds, and then after twenty.
        until(SOON, "it is asked again", || old.asked() > asked);
        let asked = old.asked();
        throughout(Duration::from_secs(4), "not all the time", || old.asked() == asked);
    }
    assert_eq!(logged(a, "cannot be had").len(), 1, "{:?}", logged(a, "cannot be had"));
    a.rnet(&["stop"]).ok();
    b.rnet(&["stop"]).ok();
    a.is_clean();
}

/// a has no VXLAN of the kernel and says why; b has.
fn falls_back(a: &Host, b: &Host, why: &str) {
    sends_by(a, b, Framing::Vxlan);
    sends_by(b, a, Framing::Kernel);
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    // The kernel is told of a MAC by a frame for it, which may have come before it could be.
    let streams = [one.stream("10.2.1.2"), two.stream("10.2.1.1")];
    carries(b, 1);
    let told = logged(a, "cannot be had");
    assert!(told.len() == 1 && told[0].contains("WARN"), "{told:?}");
    assert!(told[0].contains(why) && told[0].contains("vxlan is used instead"), "{told:?}");
    let status = a.status().framing;
    assert_eq!(status.engine, Some(Framing::Vxlan));
    assert!(status.info.starts_with("kernel: ") && status.info.contains(why), "{status:?}");
    for view in [&["status"][..], &["status", "connections"], &["report"]] {
        let text = a.rnet(view).ok();
        assert!(text.contains(why), "{view:?}: {text}");
    }
    assert!(connection(a).path.unwrap().why_not_better.contains(why));
    streams.into_iter().for_each(Stream::unharmed);
    assert!(!a.interfaces().iter().any(|name| name.starts_with("rnx") || name == "rnbffffff"), "{:?}", a.interfaces());
}

fn a_kernel_without_vxlan_is_told_and_rnets_own_is_used() {
    is_done_without("vxlan", "this kernel has no VXLAN devices (module vxlan)");
}

fn a_bridge_that_ignores_isolation_without_a_word_is_noticed() {
    is_done_without("isolated", "this kernel's bridges lack isolated ports or sticky entries");
}

fn a_bridge_that_ignores_sticky_entries_without_a_word_is_noticed() {
    is_done_without("sticky", "this kernel's bridges lack isolated ports or sticky entries");
}

fn a_kernel_without_a_packet_filter_has_no_vxlan_of_the_kernel() {
    is_done_without("nftables", "it needs a packet filter on devices");
}

fn a_host_without_a_packet_filter_has_no_vxlan_of_the_kernel() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    let launch = ["env", "PATH=/nowhere", RNET, "launch"];
    a.run(&[&launch[..], &["--framing", "kernel"]].concat()).refused(1, &["--framing kernel", "nft is missing"]);
    a.run(&launch).ok();
    b.launch_with(&[], &[&a.toward(&b)]).ok();
    falls_back(&a, &b, "the program nft is missing: install nftables");
}

/// A device of somebody else comes and goes: reason to look again.
fn look_again(host: &Host) {
    host.sh("ip link add vx9 type vxlan id 9 dstport 9999 && ip link delete vx9");
}

fn the_kernels_vxlan_is_used_as_soon_as_it_can_be_had() {
    let room = Room::new();
    let (old, b) = (Old::new(&room, "vxlan"), room.host("b"));
    let a = &old.host;
    room.join(a, &b);
    old.launch(&[]).ok();
    b.launch_with(&[], &[&a.toward(&b)]).ok();
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    sends_by(a, &b, Framing::Vxlan);
    let talk = Talk::new(&one, &two, "10.2.1.2");
    old.mend();
    look_again(a);
    sends_by(a, &b, Framing::Kernel);
    carries(a, 1);
    talk.goes_on("they talk by the kernel");
    let longest = talk.took().into_iter().max();
    // The port changes hands: what the neighbour sends meanwhile is lost.
    assert!(longest < Some(1000), "{longest:?} ms");
    let path = connection(a).path.unwrap();
    assert_eq!((path.why_not_better.as_str(), a.status().framing.info.as_str()), ("", ""));
    assert_eq!(logged(a, "cannot be had").len(), 1);
}

fn a_packet_filter_that_comes_later_guards_what_is_attached() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    let programs = a.data_dir().with_file_name("programs");
    fs::create_dir(&programs).unwrap();
    a.run(&["env", &format!("PATH={}", programs.display()), RNET, "launch"]).ok();
    b.launch_with(&[], &[&a.toward(&b)]).ok();
    let (one, _two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    let other = a.container(&["10.2.1.3/24"]);
    one.reaches("10.2.1.2");
    assert_eq!(a.sh("nft list tables").trim(), "");
    let nft = a.sh("command -v nft");
    std::os::unix::fs::symlink(nft.trim(), programs.join("nft")).unwrap();
    look_again(&a);
    sends_by(&a, &b, Framing::Kernel);
    assert_eq!(logged(&a, "cannot pass for one another any more").len(), 1);
    // In the name of the neighbour, to everybody.
    let inside = listening(other.start(&[&SNIFF[..], &["rnet0"]].concat()));
    let forged = |to: &str, mark: &str| format!("{to}02000000009988b5{mark}{}", "00".repeat(44));
    let mac = other.mac("rnet0").replace(':', "");
    one.run(&["python3", "-c", include_str!("wire.py"), "send", "rnet0", "20", &forged(&mac, "feed0001")]).ok();
    until(SOON, "they are counted", || drops(&a, "guard-mac") >= 20);
    assert!(!inside.stdout().contains("feed0001"), "it came by the bridge");
    one.reaches("10.2.1.3");
}

/// A router whose kernel lacks one offload tells that it does without, and all that is sent arrives.
fn works_without(what: &'static str, offload: &str) {
    let room = Room::new();
    let (old, b) = (Old::new(&room, what), room.host("b"));
    let a = &old.host;
    room.join(a, &b);
    let password = ["--password-file", &room.path("pw")];
    old.launch(&password).ok();
    b.launch(&[&a.toward(&b)]);
    b.linked(1);
    let lacks = |host: &Host| {
        let offloads = host.status().datapath.offloads();
        offloads.into_iter().filter(|(_, has)| !has).map(|(name, _)| name).collect::<Vec<_>>()
    };
    if lacks(&b).contains(&offload) {
        return eprintln!("skipped: this kernel has no {offload} either");
    }
    assert_eq!(lacks(a), [lacks(&b), vec![offload]].concat());
    let text = a.rnet(&["status"]).ok();
    let row = text.lines().find(|line| line.contains("Data path: ")).expect("the row");
    assert!(row.split_once("without: ").is_some_and(|(_, names)| names.contains(offload)), "{row}");
    let report: serde_json::Value = serde_json::from_str(&a.rnet(&["report"]).ok()).unwrap();
    let word = match offload {
        "uso" => "udp_super_frames",
        "gro" => "udp_gro",
        _ => "udp_gso",
    };
    assert_eq!(report["datapath"][word], false, "{report}");
    let one = a.container(&["10.2.1.1/24", "fd00:21::1/64"]);
    let two = b.container(&["10.2.1.2/24", "fd00:21::2/64"]);
    let ends = [(&one, ["10.2.1.1", "fd00:21::1"]), (&two, ["10.2.1.2", "fd00:21::2"])];
    for address in ends[1].1 {
        one.reaches(address);
    }
    bytes_arrive(ends, "tcp-join", 3_000_000);
    let in_order = [a, &b].into_iter().all(|host| host.status().datapath.threads == 1);
    datagrams_arrive(ends, in_order);
    assert_eq!((drops(a, "forged"), drops(&b, "forged")), (0, 0));
    let undone = if what == "segment" { old.asked() } else { 0 };
    assert_eq!(undone, 0, "it asked for segments that its kernel does not know");
}

fn a_kernel_without_super_frames_of_udp_is_done_with_and_told() {
    works_without("uso", "uso");
}

fn a_kernel_that_joins_no_datagrams_is_done_with_and_told() {
    works_without("gro", "gro");
}

fn a_kernel_that_cuts_no_datagrams_is_done_with_and_told() {
    works_without("segment", "gso");
}

fn a_router_whose_kernel_has_no_memory_waits_without_spinning_and_goes_on() {
    let room = Room::new();
    let (old, b) = (Old::new(&room, "memory"), room.host("b"));
    let a = &old.host;
    room.join(a, &b);
    old.launch(&["--password-file", &room.path("pw")]).ok();
    b.launch(&[&a.toward(&b)]);
    until(SOON, "reads fail, and are counted", || drops(a, "receive-failed") > 0);
    let (before, began) = (old.asked(), Instant::now());
    throughout(Duration::from_secs(3), "the router is there", || a.rnet(&["status"]).code == 0);
    // Twice for each datagram that comes, of which a peer sends a few a second.
    let (reads, seconds) = (old.asked() - before, began.elapsed().as_secs() + 1);
    assert!(reads < 200 * seconds as usize, "{reads} reads in {seconds} s");
    old.mend();
    a.linked(1);
    let (one, _two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    assert_eq!(logged(a, "ERROR"), Vec::<String>::new());
}

fn a_router_that_cannot_receive_any_more_ends_with_a_line() {
    let room = Room::new();
    let (old, b) = (Old::new(&room, "broken"), room.host("b"));
    let a = &old.host;
    room.join(a, &b);
    old.launch(&["--password-file", &room.path("pw")]).ok();
    b.launch(&[&a.toward(&b)]);
    until(SOON, "it has ended", || a.rnet(&["status"]).code != 0 && !a.run_dir().join("rnet.sock").exists());
    let errors = logged(a, "ERROR");
    assert!(errors.len() == 1 && errors[0].contains("data path: thread 0: UDP socket: "), "{errors:?}");
    assert!(errors[0].contains("the router has ended"), "{errors:?}");
    a.is_clean();
}
