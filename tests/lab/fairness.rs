//! Who sends much harms nobody else: neighbours, links, heartbeats. Alone on the machine, because time matters.

use crate::integrity::{FLOW, told};
use crate::room::{Container, Host, Outcome, Room, SOON};
use crate::wait::{machine_alone, throughout, until};
use libtest_mimic::Trial;
use rnet::node::status::ConnectionState;
use serde::Deserialize;
use std::time::Duration;

pub fn facts() -> Vec<Trial> {
    let facts: [(&str, fn()); 3] = [
        ("flood_to_a_slow_neighbour_does_not_starve_another", flood_to_a_slow_neighbour),
        ("flood_to_a_neighbour_behind_a_long_queue_does_not_starve_another", flood_to_a_neighbour_behind_a_long_queue),
        ("broadcast_flood_to_ten_neighbours_breaks_no_path", broadcast_flood_to_ten_neighbours),
    ];
    let trial = |(name, fact): (&str, fn())| {
        let run = move || {
            let _alone = machine_alone();
            fact();
            Ok(())
        };
        Trial::test(format!("fairness::{name}"), run)
    };
    facts.map(trial).into()
}

/// What a tool sent.
#[derive(Debug, Deserialize)]
struct Poured {
    count: u64,
}

/// Round trips in milliseconds, shortest first, and how many requests were not answered.
pub fn round_trips(ping: Outcome) -> (Vec<f64>, usize) {
    let time = |line: &str| line.split("time=").nth(1)?.split(' ').next()?.parse().ok();
    let summary = ping.stdout.lines().find(|line| line.contains("packets transmitted")).expect("ping's summary");
    let sent: usize = summary.split(' ').next().and_then(|count| count.parse().ok()).expect("a number");
    let mut times: Vec<f64> = ping.stdout.lines().filter_map(time).collect();
    times.sort_by(f64::total_cmp);
    let lost = sent - times.len();
    (times, lost)
}

fn established(host: &Host) -> usize {
    host.status().connections.iter().filter(|connection| connection.state == ConnectionState::Established).count()
}

/// Lines of the log about links and paths that went.
fn falls(host: &Host) -> Vec<String> {
    let log = std::fs::read_to_string(host.data_dir().join("rnet.log")).unwrap();
    log.lines().filter(|line| line.contains("is down") || line.contains(" ended: ")).map(str::to_string).collect()
}

fn drops(host: &Host, reason: &str) -> u64 {
    host.status().drops.iter().find(|(why, _)| why == reason).map_or(0, |(_, count)| *count)
}

/// A hub with a neighbour behind a line of 1 Mbit/s and another one as it is; 32 times as much as the line takes is sent to the
/// slow one while the other is pinged. Gives the hub as it is then.
fn while_a_slow_neighbour_is_flooded(queue: &str, judge: impl FnOnce(&Host, &Host)) {
    let room = Room::new();
    let [hub, slow, fast] = ["hub", "slow", "fast"].map(|name| room.host(name));
    hub.launch(&[]);
    for other in [&slow, &fast] {
        room.join(&hub, other);
        other.launch(&[&hub.toward(other)]);
        other.linked(1);
    }
    let (flooder, asker) = (hub.container(&["10.2.1.1/24"]), hub.container(&["10.2.1.4/24"]));
    let (_victim, _fast) = (slow.container(&["10.2.1.2/24"]), fast.container(&["10.2.1.3/24"]));
    flooder.reaches("10.2.1.2");
    asker.reaches("10.2.1.3");
    hub.sh(&format!("tc qdisc add dev to-slow root tbf rate 1mbit burst 32kb {queue}"));
    let flood = flooder.start(&[&FLOW[..], &["flood", "10.2.1.2", "7000", "6", "4000000"]].concat());
    let (times, lost) = round_trips(asker.run(&["ping", "-n", "-i0.05", "-c100", "-W1", "10.2.1.3"]));
    judge(&hub, &slow);
    let poured: Poured = told(flood.finish(SOON));
    assert_eq!(lost, 0, "requests were not answered");
    let [median, most, worst] = [50, 90, 99].map(|at| times[at]);
    eprintln!("ping beside a flood to a slow neighbour: median {median} ms, 9 of 10 {most} ms, all {worst} ms");
    assert!(poured.count > 10_000, "{poured:?}");
    // Some may have waited for the machine.
    assert!(most < 50.0, "{times:?}");
    assert!(falls(&hub).iter().chain(&falls(&fast)).all(|line| line.contains("(slow)")), "{:?}", falls(&hub));
}

fn flood_to_a_slow_neighbour() {
    // Its queue is short: what does not fit is dropped, and heartbeats, which are small, fit.
    while_a_slow_neighbour_is_flooded("latency 100ms", |hub, slow| {
        assert_eq!((established(hub), established(slow)), (2, 1));
        assert_eq!((falls(hub), falls(slow)), (Vec::new(), Vec::new()));
        let queue = hub.sh("tc -s qdisc show dev to-slow");
        assert!(!queue.contains("dropped 0"), "so the line is flooded: {queue}");
    });
}

fn flood_to_a_neighbour_behind_a_long_queue() {
    // It holds more than a send buffer: whoever shares that would not get to send.
    while_a_slow_neighbour_is_flooded("limit 50mb", |hub, _| {
        assert!(drops(hub, "send-full") > 1000, "what is lost is counted: {:?}", hub.status().drops);
        assert!(established(hub) >= 1);
    });
}

fn broadcast_flood_to_ten_neighbours() {
    let room = Room::new();
    let hub = room.host("hub");
    hub.launch(&[]);
    let hosts: Vec<Host> = (0..10).map(|i| room.host(&format!("h{i}"))).collect();
    for host in &hosts {
        room.join(&hub, host);
        host.launch(&[&hub.toward(host)]);
    }
    hub.linked(10);
    let one = hub.container(&["10.2.1.100/24"]);
    let address = |i: usize| format!("10.2.1.{}", i + 1);
    let others: Vec<Container> =
        hosts.iter().enumerate().map(|(i, host)| host.container(&[&format!("{}/24", address(i))])).collect();
    (0..10).for_each(|i| {
        one.reaches(&address(i));
    });
    let before = hub.status().traffic.to_net.frames;
    let flood = [&FLOW[..], &["broadcast", "rnet0", "3", "1400"]].concat();
    let floods = [one.start(&flood), one.start(&flood)];
    throughout(Duration::from_secs(2), "all paths are up", || established(&hub) == 10);
    let poured: u64 = floods.map(|flood| told::<Poured>(flood.finish(SOON)).count).iter().sum();
    let carried = hub.status().traffic.to_net.frames - before;
    eprintln!("broadcast flood: {poured} frames offered, {carried} sent to ten neighbours");
    assert!(carried > 30_000, "{carried}");
    until(Duration::from_secs(1), "everybody is reached again", || (0..10).all(|i| one.pings(&address(i))));
    assert!(established(&hub) == 10 && hosts.iter().all(|host| established(host) == 1));
    let falls: Vec<String> = hosts.iter().chain([&hub]).flat_map(falls).collect();
    assert!(falls.is_empty(), "{falls:?}");
    drop(others);
}
