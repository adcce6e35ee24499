use super::*;
use crate::types::PublicKey;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn peer(n: u8) -> PeerName {
    PublicKey([n; 32]).name()
}

fn waits_until(dialer: &Dialer, name: &str) -> Instant {
    match dialer.entries.get(&target(name)).unwrap().attempt {
        Attempt::Waiting(at) => at,
        other => panic!("{other:?}"),
    }
}

#[test]
fn backs_off_by_half_more_each_time_up_to_a_minute() {
    let mut dialer = Dialer::new([1; 32]);
    dialer.give(target("host2"), at(0));
    let (mut now, mut delays) = (at(0), Vec::new());
    for _ in 0..15 {
        let (dial, _) = dialer.poll(now).unwrap();
        assert!(dialer.poll(now).is_none(), "one dial per target");
        dialer.failed(dial, "refused", now);
        let next = waits_until(&dialer, "host2");
        delays.push((next - now).as_millis());
        now = next;
    }
    assert!((750..=1000).contains(&delays[0]), "{delays:?}");
    assert!((1125..=1500).contains(&delays[1]), "{delays:?}");
    assert!(delays.iter().all(|delay| *delay <= 60_000) && delays[14] >= 45_000, "{delays:?}");
}

#[test]
fn network_change_dials_at_once_but_not_twice_a_second() {
    let mut dialer = Dialer::new([1; 32]);
    dialer.give(target("host2"), at(0));
    let (dial, _) = dialer.poll(at(0)).unwrap();
    dialer.failed(dial, "no route", at(10));
    dialer.network_changed(at(20));
    assert_eq!(dialer.deadline(), Some(at(1000)));
    dialer.network_changed(at(5000));
    assert!(dialer.poll(at(5000)).is_some());
}

#[test]
fn discovered_targets_sleep_when_dead_and_given_ones_do_not() {
    let mut dialer = Dialer::new([1; 32]);
    dialer.give(target("10.0.0.1:6783"), at(0));
    let found = [(target("10.0.0.2:6783"), peer(2))].into();
    dialer.discover(&found, at(0));
    let mut now = at(0);
    for _ in 0..20 {
        now += Duration::from_secs(60);
        while let Some((dial, _)) = dialer.poll(now) {
            dialer.failed(dial, "timed out", now);
        }
        if matches!(dialer.entries.get(&target("10.0.0.2:6783")).unwrap().attempt, Attempt::Asleep(_)) {
            break;
        }
    }
    assert_eq!(dialer.entries.get(&target("10.0.0.2:6783")).unwrap().failures, TRIES);
    assert!(matches!(dialer.entries.get(&target("10.0.0.1:6783")).unwrap().attempt, Attempt::Waiting(_)));
    dialer.discover(&BTreeMap::new(), now);
    assert_eq!(dialer.entries().count(), 1, "what the topology no longer knows is forgotten");
}

#[test]
fn target_rests_while_its_peer_is_linked_by_another_way() {
    let mut dialer = Dialer::new([1; 32]);
    dialer.give(target("host2"), at(0));
    let (dial, _) = dialer.poll(at(0)).unwrap();
    dialer.reached(dial, peer(2));
    dialer.connected(peer(2));
    dialer.failed(dial, "already connected", at(5));
    assert_eq!(dialer.entries.get(&target("host2")).unwrap().attempt, Attempt::Idle);
    assert_eq!(dialer.poll(at(100_000)), None);
    dialer.lost(peer(2), "connection reset", at(100_000));
    let next = waits_until(&dialer, "host2");
    assert!(next <= at(100_250));
}

#[test]
fn retries_of_a_lost_peer_stay_close_for_a_minute() {
    let mut dialer = Dialer::new([1; 32]);
    dialer.give(target("host2"), at(0));
    let (dial, _) = dialer.poll(at(0)).unwrap();
    dialer.reached(dial, peer(2));
    dialer.connected(peer(2));
    dialer.lost(peer(2), "reset", at(10_000));
    let mut now = at(10_000);
    let mut tries = 0;
    while now < at(60_000) {
        now = dialer.deadline().unwrap().max(now);
        let (dial, _) = dialer.poll(now).unwrap();
        dialer.failed(dial, "refused", now);
        assert!(waits_until(&dialer, "host2") - now <= CLOSE_DELAY);
        tries += 1;
    }
    assert!(tries >= 25);
}

#[test]
fn never_dials_ourselves_again_until_the_user_asks_again() {
    let mut dialer = Dialer::new([1; 32]);
    dialer.give(target("192.0.2.1"), at(0));
    let (dial, _) = dialer.poll(at(0)).unwrap();
    dialer.never(dial, "this is ourselves", at(0));
    dialer.network_changed(at(10_000));
    assert_eq!((dialer.poll(at(1_000_000)), dialer.deadline()), (None, None));
    dialer.give(target("192.0.2.1"), at(1_000_000));
    assert!(dialer.poll(at(1_000_000)).is_some());
}

#[test]
fn name_that_stood_for_ourselves_is_tried_again_as_after_a_failure() {
    let mut dialer = Dialer::new([1; 32]);
    dialer.give(target("host1"), at(0));
    let mut now = at(0);
    for _ in 0..12 {
        let (dial, _) = dialer.poll(now).unwrap();
        dialer.never(dial, "this is ourselves", now);
        now = waits_until(&dialer, "host1");
    }
    let (dial, _) = dialer.poll(now).unwrap();
    dialer.never(dial, "this is ourselves", now);
    assert!(waits_until(&dialer, "host1") - now >= Duration::from_secs(45), "seldom, in the end");
}

#[test]
fn one_peer_is_not_dialled_at_two_addresses_at_once() {
    let mut dialer = Dialer::new([1; 32]);
    let found = [(target("10.0.0.2:6783"), peer(2)), (target("10.1.0.2:6783"), peer(2))].into();
    dialer.discover(&found, at(0));
    let (dial, first) = dialer.poll(at(0)).unwrap();
    assert!(dialer.poll(at(0)).is_none());
    dialer.failed(dial, "timed out", at(100));
    assert_ne!(dialer.poll(at(100)).unwrap().1, first);
}

/// A peer for each port of one address.
fn ports(ip: &str, count: u8) -> BTreeMap<Target, PeerName> {
    (0..count).map(|n| (target(&format!("{ip}:{}", 7000 + u16::from(n))), peer(n))).collect()
}

#[test]
fn one_address_that_others_tell_of_is_dialled_a_few_times_a_minute() {
    let mut dialer = Dialer::new([1; 32]);
    dialer.give(target("192.0.2.1:22"), at(0));
    dialer.discover(&ports("192.0.2.1", 200), at(0));
    let (mut now, mut dialled) = (at(0), Vec::new());
    while now < at(180_000) {
        while let Some((dial, to)) = dialer.poll(now) {
            dialled.push((now, to.port != Some(22)));
            dialer.failed(dial, "refused", now);
        }
        let next = dialer.deadline().unwrap();
        assert!(next > now, "it does not spin");
        now = next;
    }
    for minute in 0..3 {
        let within = (at(minute * 60_000)..at((minute + 1) * 60_000)).contains(&now);
        let of_minute = dialled
            .iter()
            .filter(|(when, counts)| *counts && (at(minute * 60_000)..at((minute + 1) * 60_000)).contains(when));
        assert!(!within && of_minute.count() == IN_VAIN_MAX as usize, "minute {minute}");
    }
    let given = dialled.iter().filter(|(_, counts)| !counts).count();
    assert!(given >= 8, "what the user gave is tried as ever: {given}");
    // Another address has its own count, also in the other way to write it.
    dialer.discover(&ports("[::ffff:192.0.2.1]", 20).into_iter().chain(ports("192.0.2.2", 2)).collect(), now);
    let next: Vec<Target> = std::iter::from_fn(|| dialer.poll(now)).map(|(_, to)| to).collect();
    assert!(next.iter().filter(|to| to.host == "192.0.2.2").count() == 2 && next.len() <= 3 + IN_VAIN_MAX as usize);
}

#[test]
fn many_routers_behind_one_address_are_all_found() {
    let mut dialer = Dialer::new([1; 32]);
    let all = ports("192.0.2.1", 60);
    dialer.discover(&all, at(0));
    let mut found = 0;
    while let Some((dial, to)) = dialer.poll(at(0)) {
        dialer.reached(dial, all[&to]);
        dialer.connected(all[&to]);
        found += 1;
    }
    assert_eq!(found, 60, "at once");
    // Once found, they are dialled again as soon as any that was lost.
    (0..60).for_each(|n| dialer.lost(peer(n), "reset", at(10_000)));
    let again = std::iter::from_fn(|| dialer.poll(at(11_000))).count();
    assert_eq!(again, MAX_DIALLING);
}

#[test]
fn addresses_that_are_counted_are_bounded() {
    let mut in_vain = InVain::default();
    let entry = Entry::new(at(0));
    let of = |n: u32| IpAddr::from((0x0a00_0000 + n).to_be_bytes());
    (0..1024).for_each(|n| in_vain.add(of(n), at(u64::from(n))));
    let earliest = |n| in_vain.earliest(&target(&of(n).to_string()), &entry, at(2000));
    assert_eq!((earliest(3), earliest(5000)), (at(2000), at(60_000)));
    in_vain.add(of(5000), at(60_000));
    assert_eq!(in_vain.0.len(), COUNTED_MAX);
}

#[test]
fn dials_and_targets_are_bounded() {
    let mut dialer = Dialer::new([1; 32]);
    for n in 0..2 * MAX_GIVEN {
        assert_eq!(dialer.give(target(&format!("host{n}")), at(0)), n < MAX_GIVEN);
    }
    let found =
        (0..2 * MAX_DISCOVERED).map(|n| (target(&format!("other{n}")), peer(u8::try_from(n % 251).unwrap()))).collect();
    dialer.discover(&found, at(0));
    assert_eq!(dialer.entries().count(), MAX_GIVEN + MAX_DISCOVERED);
    let dials = std::iter::from_fn(|| dialer.poll(at(0))).count();
    assert_eq!(dials, MAX_DIALLING);
}
