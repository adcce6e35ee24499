use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 6783))
}

/// Sends what is due; those of `works` answer after their milliseconds.
fn run(candidates: &mut Candidates, works: &BTreeMap<SocketAddr, u64>, from: u64, to: u64) -> Vec<(u64, SocketAddr)> {
    let (mut sent, mut under_way) = (Vec::new(), Vec::new());
    for ms in from..to {
        under_way.retain(|(due, to, body): &(u64, SocketAddr, [u8; BODY_LEN])| {
            if *due == ms {
                candidates.handle(body, *to, at(ms)).unwrap();
            }
            *due != ms
        });
        while let Some(Check { to, body, .. }) = candidates.poll(&[], at(ms)) {
            sent.push((ms, to));
            if let Some(rtt) = works.get(&to) {
                let Checked::Asked(answer) = Candidates::default().handle(&body, address(99), at(ms)).unwrap() else {
                    panic!()
                };
                under_way.push((ms + rtt, to, answer));
            }
        }
    }
    sent
}

#[test]
fn the_nearest_that_answers_is_the_best() {
    let mut candidates = Candidates::default();
    candidates.tell(&[address(1), address(2), address(3)], at(0));
    assert_eq!(candidates.best(None, true, at(0)), None);
    run(&mut candidates, &BTreeMap::from([(address(2), 80), (address(3), 20)]), 0, 4000);
    assert_eq!(candidates.best(None, false, at(4000)), Some(address(3)));
    assert_eq!(candidates.count(at(4000)), (3, 2));
}

#[test]
fn a_little_nearer_is_no_reason_to_move() {
    let mut candidates = Candidates::default();
    candidates.tell(&[address(1), address(2)], at(0));
    run(&mut candidates, &BTreeMap::from([(address(1), 20), (address(2), 17)]), 0, 4000);
    assert_eq!(candidates.best(Some(address(1)), false, at(4000)), Some(address(1)));
    let mut candidates = Candidates::default();
    candidates.tell(&[address(1), address(2)], at(0));
    run(&mut candidates, &BTreeMap::from([(address(1), 20), (address(2), 5)]), 0, 4000);
    assert_eq!(candidates.best(Some(address(1)), false, at(4000)), Some(address(2)));
}

#[test]
fn another_takes_over_when_the_one_in_use_falls_silent() {
    let mut candidates = Candidates::default();
    candidates.tell(&[address(1), address(2)], at(0));
    run(&mut candidates, &BTreeMap::from([(address(1), 5), (address(2), 90)]), 0, 10_000);
    assert_eq!(candidates.best(Some(address(1)), false, at(10_000)), Some(address(1)));
    candidates.trouble(at(10_000));
    assert_eq!(candidates.best(Some(address(1)), true, at(10_000)), Some(address(1)), "nothing else answers yet");
    run(&mut candidates, &BTreeMap::from([(address(2), 90)]), 10_000, 10_100);
    assert_eq!(candidates.best(Some(address(1)), true, at(10_100)), Some(address(2)), "though the other was nearer");
}

#[test]
fn who_never_answers_gets_six_checks_a_minute_at_most() {
    let mut candidates = Candidates::default();
    let mut sent = Vec::new();
    for round in 0..60_u64 {
        // Somebody tells of it again and again, and there is trouble all the time.
        candidates.tell(&[address(1)], at(round * 1000));
        candidates.trouble(at(round * 1000));
        sent.extend(run(&mut candidates, &BTreeMap::new(), round * 1000, (round + 1) * 1000));
    }
    assert_eq!(sent.len(), 6, "{sent:?}");
    candidates.trouble(at(61_000));
    assert_eq!(run(&mut candidates, &BTreeMap::new(), 61_000, 70_000).len(), 6);
}

#[test]
fn one_that_answers_is_asked_every_half_minute() {
    let mut candidates = Candidates::default();
    candidates.tell(&[address(1)], at(0));
    let sent = run(&mut candidates, &BTreeMap::from([(address(1), 5)]), 0, 200_000);
    assert!((6..=9).contains(&sent.len()), "{sent:?}");
}

#[test]
fn where_a_check_came_from_is_checked_too_and_such_are_few() {
    let mut candidates = Candidates::default();
    candidates.tell(&[address(1)], at(0));
    for n in 10..30 {
        assert_eq!(candidates.handle(&emit(ASK, 7), address(n), at(0)), Ok(Checked::Asked(emit(0, 7))));
    }
    assert_eq!(candidates.count(at(0)).0, 1 + SEEN_MAX);
    run(&mut candidates, &BTreeMap::from([(address(29), 30)]), 0, 1000);
    assert_eq!(candidates.best(None, true, at(1000)), Some(address(29)));
    candidates.tell(&[], at(1000));
    assert_eq!(candidates.count(at(1000)), (1, 1), "what answers is kept");
}

#[test]
fn answers_to_nothing_change_nothing() {
    let mut candidates = Candidates::default();
    candidates.tell(&[address(1)], at(0));
    assert_eq!(candidates.handle(&emit(0, 77), address(1), at(0)), Ok(Checked::Late));
    let Check { body: ask, .. } = candidates.poll(&[], at(0)).unwrap();
    let Ok(Checked::Asked(answer)) = Candidates::default().handle(&ask, address(9), at(0)) else { panic!() };
    assert_eq!(candidates.handle(&answer, address(9), at(5)), Ok(Checked::Answered(address(1))));
    assert_eq!(candidates.handle(&answer, address(9), at(9)), Ok(Checked::Late), "twice");
}

/// Sends what is due between two moments; what leaves from `works` is answered at once. What left from where.
fn asks(candidates: &mut Candidates, works: Option<IpAddr>, from: u64, to: u64) -> Vec<Option<IpAddr>> {
    let ours = [7, 8].map(|n| IpAddr::from([10, 0, 0, n]));
    let mut sent = Vec::new();
    for ms in from..to {
        while let Some(check) = candidates.poll(&ours, at(ms)) {
            sent.push(check.from);
            if check.from == works {
                let asked = Candidates::default().handle(&check.body, address(99), at(ms));
                let Ok(Checked::Asked(answer)) = asked else { panic!() };
                candidates.handle(&answer, check.to, at(ms)).unwrap();
            }
        }
    }
    sent
}

#[test]
fn each_of_our_addresses_asks_by_turns_and_the_one_that_is_answered_is_remembered() {
    let [first, second] = [7, 8].map(|n| Some(IpAddr::from([10, 0, 0, n])));
    let mut candidates = Candidates::default();
    candidates.tell(&[address(1)], at(0));
    let sent = asks(&mut candidates, second, 0, 4000);
    assert_eq!(sent, [None, first, second], "then it is known, and rests");
    assert_eq!(candidates.reached_from(address(1)), second);
    // Later it is asked from there, and from all again when there is trouble.
    assert_eq!(asks(&mut candidates, second, 4000, 40_000), [second]);
    candidates.trouble(at(40_000));
    assert_eq!(asks(&mut candidates, first, 40_000, 44_000), [None, first]);
    assert_eq!(candidates.reached_from(address(1)), first);
    assert!(candidates.is_heard(address(1), at(42_000)) && !candidates.is_heard(address(1), at(50_000)));
    let mut candidates = Candidates::default();
    candidates.tell(&[address(1)], at(0));
    assert_eq!(asks(&mut candidates, address(1).ip().into(), 0, 60_000).len(), 6, "no more than from one address");
}

#[test]
fn an_address_of_the_other_family_never_asks() {
    let mut candidates = Candidates::default();
    candidates.tell(&["[2001:db8::1]:6783".parse().unwrap()], at(0));
    assert!(asks(&mut candidates, None, 0, 4000).iter().all(Option::is_none));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_are_a_check(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok((kind, token)) = parse(&bytes) {
            prop_assert_eq!(&emit(kind, token)[..], &bytes[..BODY_LEN]);
        }
    }
}

#[test]
fn what_got_there_a_moment_ago_is_not_taken_for_what_gets_there_now() {
    let (mut candidates, first) = (Candidates::default(), Some(IpAddr::from([10, 0, 0, 7])));
    candidates.tell(&[address(1)], at(0));
    asks(&mut candidates, first, 0, 1000);
    assert_eq!(candidates.reached_from(address(1)), first);
    // Its line dies less than two seconds after the last answer by it, and the kernel's choice is another one.
    candidates.trouble(at(1500));
    asks(&mut candidates, None, 1500, 1600);
    assert_eq!(candidates.reached_from(address(1)), None);
    // One that works is not left for another that does too.
    candidates.trouble(at(2000));
    asks(&mut candidates, None, 2000, 2001);
    asks(&mut candidates, first, 2001, 4000);
    assert_eq!(candidates.reached_from(address(1)), None);
}
