//! The limits that the router keeps, measured: alone on the machine, in a release build only (`./dev bench`).

use crate::fairness::round_trips;
use crate::integrity::{FLOW, serving};
use crate::room::{Host, Room, SOON};
use crate::wait::{machine_alone, until};
use libtest_mimic::Trial;
use std::time::{Duration, Instant};

pub fn facts() -> Vec<Trial> {
    let limits: [(&str, fn()); 4] = [
        ("limit_third_host_pings_the_first_within_3_seconds_of_its_launch", third_host_pings_the_first),
        ("limit_router_with_10_links_idles_on_20_megabytes_and_0_3_percent", router_with_10_links_idles),
        ("limit_many_runs_leave_no_trace_and_no_growth", many_runs_leave_no_growth),
        ("limit_ping_beside_a_saturating_stream_takes_5_milliseconds", ping_beside_a_saturating_stream),
    ];
    let trial = |(name, limit): (&str, fn())| {
        let run = move || {
            let _alone = machine_alone();
            limit();
            Ok(())
        };
        Trial::test(format!("limits::{name}"), run).with_ignored_flag(cfg!(debug_assertions))
    };
    limits.map(trial).into()
}

fn third_host_pings_the_first() {
    let room = Room::new();
    let [a, b, c] = room.chain(["a", "b", "c"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    b.linked(1);
    let _web = a.container(&["10.2.1.1/24"]);
    let start = Instant::now();
    c.launch(&[&b.toward(&c)]);
    let launched = start.elapsed();
    let one = c.container(&["10.2.1.3/24"]);
    until(Duration::from_secs(3), "the first ping", || one.pings("10.2.1.1"));
    let took = start.elapsed();
    eprintln!("launch returned after {launched:?}, first ping a-c after {took:?} (limit 3 s)");
    assert!(took < Duration::from_secs(3));
}

/// Processor time of a process so far, and its resident memory in bytes.
fn usage(host: &Host, pid: u32) -> (Duration, u64) {
    let text = host.sh(&format!("cat /proc/{pid}/task/*/schedstat; grep VmRSS /proc/{pid}/status"));
    let nanos = text.lines().filter_map(|line| line.split(' ').next()?.parse::<u64>().ok()).sum();
    let kilobytes = text
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    (Duration::from_nanos(nanos), kilobytes.unwrap() * 1024)
}

fn router_with_10_links_idles() {
    let room = Room::new();
    let hub = room.host("hub");
    hub.launch(&[]);
    let hosts: Vec<Host> = (0..10).map(|i| room.host(&format!("h{i}"))).collect();
    for host in &hosts {
        room.join(&hub, host);
        host.launch(&[&hub.toward(host)]);
    }
    hub.linked(10);
    let pid = hub.router_pid();
    // Settled: the exchanges after the last link are over.
    let settle = Instant::now();
    until(SOON, "the mesh is settled", || settle.elapsed() > Duration::from_secs(5));
    let (before, _) = usage(&hub, pid);
    let (start, span) = (Instant::now(), Duration::from_secs(30));
    until(2 * span, "the time is over", || start.elapsed() >= span);
    let (after, resident) = usage(&hub, pid);
    let percent = (after - before).as_secs_f64() / start.elapsed().as_secs_f64() * 100.0;
    eprintln!(
        "router with 10 links: {percent:.3} % of a core (limit 0.3), {:.1} MB resident (limit 20)",
        resident as f64 / 1e6
    );
    assert!(percent <= 0.3, "{percent:.3} %");
    assert!(resident <= 20_000_000, "{resident} bytes");
}

fn many_runs_leave_no_growth() {
    let room = Room::new();
    let a = room.host("a");
    a.launch(&[]);
    let files = |host: &Host| -> usize {
        host.sh(&format!("ls /proc/{}/fd | wc -l", host.router_pid())).trim().parse().unwrap()
    };
    let once = |i: usize| a.rnet(&["run", "--cidr", &format!("10.2.1.{}/24", 1 + i % 200), "--", "true"]).ok();
    (0..10).for_each(|i| drop(once(i)));
    until(SOON, "all is off", || a.interfaces().is_empty());
    let (before, (_, memory)) = (files(&a), usage(&a, a.router_pid()));
    (0..100).for_each(|i| drop(once(i)));
    until(SOON, "all is off", || a.interfaces().is_empty());
    let (after, (_, grown)) = (files(&a), usage(&a, a.router_pid()));
    assert!(after <= before, "{before} open files became {after}");
    assert!(grown < memory + 3_000_000, "{memory} bytes became {grown}");
}

fn ping_beside_a_saturating_stream() {
    let room = Room::new();
    let [a, b] = room.chain(["a", "b"]);
    a.launch(&[]);
    b.launch(&[&a.toward(&b)]);
    b.linked(1);
    let (one, two) = (a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"]));
    one.reaches("10.2.1.2");
    let sink = serving(&two, &["sink", "10.2.1.2", "7000"]);
    let before = b.status().traffic.to_bridge.bytes;
    let start = Instant::now();
    let stream = one.start(&[&FLOW[..], &["pour", "10.2.1.2", "7000", "1"]].concat());
    until(SOON, "the stream flows", || stream.stdout().contains("ready"));
    let (times, lost) = round_trips(one.run(&["ping", "-n", "-i0.02", "-c200", "-W1", "10.2.1.2"]));
    let bytes = b.status().traffic.to_bridge.bytes - before;
    let rate = bytes as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9;
    let [median, most, worst] = [50, 90, 99].map(|percent| times[(times.len() - 1) * percent / 100]);
    eprintln!(
        "ping beside a stream of {rate:.1} Gbit/s: median {median} ms, 9 of 10 {most} ms, 99 of 100 {worst} ms (limit 5)"
    );
    assert!(worst < 5.0, "{times:?}");
    assert!(lost <= 2, "{lost} of 200 were not answered");
    drop((stream, sink));
}
