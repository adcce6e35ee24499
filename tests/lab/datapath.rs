//! What the router tells of its data path is so: offloads, threads, cores.

use crate::integrity::{FLOW, serving};
use crate::room::{Host, Process, RNET, Room, SOON};
use crate::wait::{until, within};
use rnet::node::status::DatapathStatus;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

crate::facts![
    offloads_that_are_told_are_those_of_the_device if TAP,
    offloads_that_are_off_are_told_and_are_off if TAP,
    packet_has_threads_and_super_frames_without_a_tap,
    pcap_has_one_thread_and_sends_super_frames_by_packet,
    pcap_without_offloads_sends_for_itself,
    both_of_two_threads_carry_traffic if TAP,
    pinned_threads_stay_on_a_core_each if TAP,
    pinned_threads_stay_on_cores_that_the_router_may_use if TAP,
    values_that_are_none_are_refused_in_a_line,
];

/// A router with these options that has a network open.
fn router<'h>(room: &Room, host: &'h Host, options: &[&str]) -> crate::room::Container<'h> {
    host.launch_with(&[&["--password-file", &room.path("pw")], options].concat(), &[]).ok();
    host.container(&["10.2.1.1/24"])
}

/// As all three ways tell it, which is the same.
fn told(host: &Host) -> (DatapathStatus, String) {
    let report: Value = serde_json::from_str(&host.rnet(&["report"]).ok()).unwrap();
    let from_report: DatapathStatus = serde_json::from_value(report["datapath"].clone()).unwrap();
    assert_eq!(from_report, host.status().datapath);
    let text = host.rnet(&["status"]).ok();
    let row = text.lines().find_map(|line| line.trim_start().strip_prefix("Data path: ")).expect("the row");
    (from_report, row.to_string())
}

/// What the kernel says of the capture port: whether it may leave checksums, and super-frames of TCP and UDP, to the router.
fn device(host: &Host) -> [bool; 3] {
    let name = host.interfaces().into_iter().find(|name| name.starts_with("rnt")).expect("a TAP");
    let features = host.sh(&format!("ethtool -k {name}"));
    let on = |feature: &str| {
        let line = features.lines().find(|line| line.trim_start().starts_with(&format!("{feature}:")));
        line.is_some_and(|line| line.contains(": on"))
    };
    [on("tx-checksum-ip-generic"), on("tx-tcp-segmentation"), on("tx-udp-segmentation")]
}

fn offloads_that_are_told_are_those_of_the_device() {
    let room = Room::new();
    let a = room.host("a");
    let _one = router(&room, &a, &[]);
    let (status, row) = told(&a);
    let offloads = [status.checksum, status.tcp_super_frames, status.udp_super_frames];
    assert_eq!(device(&a), offloads);
    assert!(status.checksum && status.tcp_super_frames && status.udp_gso && status.udp_gro, "{status:?}");
    assert!(status.sparse_lane && status.separate_probes && !status.pinned, "{status:?}");
    assert!(row.starts_with("tap, ") && row.contains("offloads: checksum tso"), "{row}");
}

fn offloads_that_are_off_are_told_and_are_off() {
    let room = Room::new();
    let a = room.host("a");
    let _one = router(&room, &a, &["--offload", "off"]);
    let (status, row) = told(&a);
    assert_eq!(device(&a), [false; 3]);
    assert!(!status.checksum && !status.tcp_super_frames && !status.udp_super_frames, "{status:?}");
    assert!(row.contains("without: checksum tso uso"), "{row}");
}

fn packet_has_threads_and_super_frames_without_a_tap() {
    let room = Room::new();
    let a = room.host("a");
    let _one = router(&room, &a, &["--capture", "packet", "--threads", "2"]);
    let (status, row) = told(&a);
    assert_eq!((status.capture.as_str(), status.threads), ("packet", 2));
    assert!(status.checksum && status.tcp_super_frames, "{status:?}");
    assert!(row.starts_with("packet, 2 threads,") && row.contains("offloads: checksum tso"), "{row}");
}

/// Two routers by libpcap, a stream of TCP between containers of theirs; calls by which the second one gives frames to its bridge,
/// for each megabyte.
fn by_pcap(options: &[&str]) -> (DatapathStatus, String, u64) {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    let options = [&["--capture", "pcap"], options].concat();
    let one = router(&room, &a, &options);
    b.launch_with(&[&["--password-file", &room.path("pw")], &options[..]].concat(), &[&a.toward(&b)]).ok();
    let two = b.container(&["10.2.1.2/24"]);
    one.reaches("10.2.1.2");
    let pair = b.interfaces().into_iter().find(|name| name.starts_with("rnp")).expect("the captured end");
    // What libpcap captures is complete, unless it is marked, and the attachments' own interfaces are left as they are.
    let features = b.sh(&format!("ethtool -k {}", pair.replace("rnp", "rnq")));
    assert!(features.contains("tx-checksum-ip-generic: off"), "{features}");
    assert!(two.sh("ethtool -k rnet0").contains("tx-checksum-ip-generic: on"));
    let counter = |told: String, which: &str| -> u64 {
        let links: Value = serde_json::from_str(&told).unwrap();
        links.pointer(&format!("/0/stats64/{which}")).and_then(Value::as_u64).unwrap()
    };
    let sent = || counter(b.sh(&format!("ip -s -j link show dev {pair}")), "tx/packets");
    let before = sent();
    let _sink = serving(&two, &["sink", "10.2.1.2", "7000"]);
    let bytes = || counter(two.sh("ip -s -j link show dev rnet0"), "rx/bytes");
    let flow: Process = one.start(&[&FLOW[..], &["pour", "10.2.1.2", "7000", "1"]].concat());
    until(SOON, "much has arrived", || bytes() > 30_000_000);
    // Both counters are read while nothing moves any more.
    drop(flow);
    within(SOON, "all is through", || {
        let now = (sent(), bytes());
        (now == (sent(), bytes())).then_some(())
    });
    let frames = (sent() - before) / (bytes() / 1_000_000);
    let (status, row) = told(&a);
    assert_eq!((status.capture.as_str(), status.threads), ("pcap", 1));
    (status, row, frames)
}

fn pcap_has_one_thread_and_sends_super_frames_by_packet() {
    let (status, row, frames) = by_pcap(&[]);
    assert!(status.checksum && status.tcp_super_frames && status.injection == "packet", "{status:?}");
    assert!(
        row.starts_with("pcap (TCP comes uncut, frames go out by packet), 1 thread, offloads: checksum tso"),
        "{row}"
    );
    assert!(frames < 400, "{frames} frames for each megabyte");
}

fn pcap_without_offloads_sends_for_itself() {
    let (status, row, frames) = by_pcap(&["--offload", "off"]);
    assert!(!status.checksum && !status.tcp_super_frames && !status.udp_super_frames, "{status:?}");
    assert_eq!(status.injection, "pcap");
    assert!(row.starts_with("pcap, 1 thread,") && row.contains("without: checksum tso uso"), "{row}");
    assert!(frames > 600, "{frames} frames for each megabyte");
}

/// The data path's threads by name: number, and time on a processor so far.
fn threads(host: &Host) -> BTreeMap<String, (u32, Duration)> {
    let script =
        format!("cd /proc/{}/task && for t in *; do echo $t $(cat $t/comm $t/schedstat); done", host.router_pid());
    let text = host.sh(&script);
    let thread = |line: &str| {
        let mut words = line.split_whitespace();
        let (number, name, time) = (words.next()?.parse().ok()?, words.next()?, words.next()?.parse().ok()?);
        name.starts_with("rnet-data").then(|| (name.to_string(), (number, Duration::from_nanos(time))))
    };
    text.lines().filter_map(thread).collect()
}

fn names(threads: &BTreeMap<String, (u32, Duration)>) -> Vec<&str> {
    threads.keys().map(String::as_str).collect()
}

fn both_of_two_threads_carry_traffic() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    let one = router(&room, &a, &["--threads", "2"]);
    let options = ["--password-file", &room.path("pw"), "--threads", "2"];
    b.launch_with(&options, &[&a.toward(&b)]).ok();
    let two = b.container(&["10.2.1.2/24"]);
    for host in [&a, &b] {
        let (status, row) = told(host);
        assert_eq!(status.threads, 2);
        assert!(row.starts_with("tap, 2 threads,"), "{row}");
        assert_eq!(names(&threads(host)), ["rnet-data-0", "rnet-data-1"]);
    }
    one.reaches("10.2.1.2");
    let before = [threads(&a), threads(&b)];
    let _sink = serving(&two, &["sink", "10.2.1.2", "7000"]);
    // The kernel chooses a queue for each flow: with so many, one thread has them all once in 2^15 times.
    let _flows: Process = one.start(&[&FLOW[..], &["pour", "10.2.1.2", "7000", "16"]].concat());
    for (host, before) in [&a, &b].into_iter().zip(before) {
        until(SOON, &format!("both threads of {} work", host.name), || {
            let work = |(name, (_, now)): (&String, &(u32, Duration))| now.saturating_sub(before[name].1);
            threads(host).iter().map(work).all(|work| work > Duration::from_millis(50))
        });
    }
}

/// The cores that each thread of the data path may use.
fn cores(host: &Host) -> Vec<String> {
    let allowed = |number: u32| {
        let text = host.sh(&format!("grep Cpus_allowed_list /proc/{}/task/{number}/status", host.router_pid()));
        text.split_whitespace().last().unwrap_or_default().to_string()
    };
    threads(host).values().map(|(number, _)| allowed(*number)).collect()
}

fn pinned_threads_stay_on_a_core_each() {
    let room = Room::new();
    let a = room.host("a");
    let _one = router(&room, &a, &["--threads", "2", "--pin-threads"]);
    let (status, row) = told(&a);
    assert!(status.pinned && row.starts_with("tap, 2 threads pinned,"), "{row}");
    let several = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    let cores = cores(&a);
    assert!(cores.iter().all(|core| core.parse::<u32>().is_ok()), "{cores:?}");
    assert_eq!(cores[0] != cores[1], several, "{cores:?}");
}

fn pinned_threads_stay_on_cores_that_the_router_may_use() {
    let room = Room::new();
    let a = room.host("a");
    let own = a.sh("grep Cpus_allowed_list /proc/self/status");
    let last = own.trim().rsplit([',', '-', '\t']).next().unwrap_or_default();
    let password = room.path("pw");
    a.run(&["taskset", "-c", last, RNET, "launch", "--threads", "2", "--pin-threads", "--password-file", &password])
        .ok();
    assert_eq!(cores(&a), [last, last]);
    let log = std::fs::read_to_string(a.data_dir().join("rnet.log")).unwrap();
    assert!(!log.contains("pinned"), "{log}");
}

fn values_that_are_none_are_refused_in_a_line() {
    let room = Room::new();
    let a = room.host("a");
    for (option, value, range) in [
        ("--threads", "0", "1 to 64"),
        ("--threads", "x", "1 to 64"),
        ("--threads", "65", "64"),
        ("--offload", "maybe", "auto, off"),
    ] {
        a.launch_with(&[option, value], &[]).refused(2, &[option, value, range]);
    }
    a.launch_with(&["--capture", "pcap", "--threads", "2"], &[]).refused(2, &["--threads: 2", "--capture pcap"]);
    a.is_clean();
}
