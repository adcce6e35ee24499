use super::*;
use proptest::prelude::*;

const OVERHEAD: u16 = 32;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

/// Two ends and a wire of one millisecond; `passes` says which datagram (from which end, number, size) arrives.
struct Wire<F: FnMut(usize, usize, usize) -> bool> {
    ends: [Probe; 2],
    flying: Vec<(Instant, usize, Vec<u8>)>,
    sent: usize,
    now: Instant,
    passes: F,
}

impl<F: FnMut(usize, usize, usize) -> bool> Wire<F> {
    fn new(passes: F) -> Wire<F> {
        let end = |asks| Probe::new(asks, OVERHEAD, Instant::ZERO);
        Wire { ends: [end(true), end(false)], flying: Vec::new(), sent: 0, now: Instant::ZERO, passes }
    }

    fn run_until(&mut self, until: Instant) {
        loop {
            for from in 0..2 {
                while let Some(body) = self.ends[from].poll(self.now) {
                    self.sent += 1;
                    assert!(self.sent < 1_000_000, "a storm");
                    if (self.passes)(from, self.sent, body.len() + usize::from(OVERHEAD)) {
                        self.flying.push((self.now + Duration::from_millis(1), 1 - from, body));
                    }
                }
            }
            let timers = self
                .ends
                .iter()
                .map(|end| end.deadline(self.now))
                .map(|at| at.max(self.now + Duration::from_millis(1)));
            let next = timers.chain(self.flying.iter().map(|(at, ..)| *at)).min().unwrap();
            if next > until {
                self.now = until;
                return;
            }
            self.now = next;
            let now = self.now;
            let (due, later) = std::mem::take(&mut self.flying).into_iter().partition(|(at, ..)| *at <= now);
            self.flying = later;
            let due: Vec<(Instant, usize, Vec<u8>)> = due;
            for (_, to, body) in due {
                let size = u16::try_from(body.len()).unwrap() + OVERHEAD;
                self.ends[to].handle(&body[..body.len().min(64)], size, now).unwrap();
            }
        }
    }
}

#[test]
fn both_ends_prove_a_good_path_within_two_round_trips() {
    let mut wire = Wire::new(|_, _, _| true);
    wire.run_until(at(6));
    assert!(wire.ends.iter().all(|end| end.proven(at(6))));
}

#[test]
fn a_path_that_works_one_way_only_is_not_proven() {
    let mut wire = Wire::new(|from, _, _| from == 0);
    wire.run_until(at(20_000));
    assert!(wire.ends.iter().all(|end| !end.proven(at(20_000))));
}

#[test]
fn an_idle_path_costs_two_datagrams_a_second() {
    let mut wire = Wire::new(|_, _, size| size <= 1472);
    wire.run_until(at(30_000));
    let before = wire.sent;
    wire.run_until(at(50_000));
    assert!((38..=46).contains(&(wire.sent - before)), "{}", wire.sent - before);
    assert_eq!(wire.ends[0].quality().loss_out, 0.0);
    assert!((1900..2200).contains(&wire.ends[0].quality().rtt_us), "{:?}", wire.ends[0].quality());
    assert!((1900..2200).contains(&wire.ends[1].quality().rtt_us), "{:?}", wire.ends[1].quality());
}

#[test]
fn a_cut_path_is_dead_after_three_seconds_on_both_ends_and_comes_back() {
    let cut = std::cell::Cell::new(false);
    let mut wire = Wire::new(|_, _, _| !cut.get());
    wire.run_until(at(10_000));
    cut.set(true);
    wire.run_until(at(12_000));
    assert!(wire.ends.iter().all(|end| end.proven(at(12_000))));
    wire.run_until(at(13_600));
    assert!(wire.ends.iter().all(|end| !end.proven(at(13_600))));
    cut.set(false);
    wire.run_until(at(14_200));
    assert!(wire.ends.iter().all(|end| end.proven(at(14_200))));
}

#[test]
fn thirty_percent_loss_neither_kills_a_path_nor_goes_unseen() {
    let mut random = StdRng::seed_from_u64(7);
    let mut wire = Wire::new(move |_, _, size| size <= 1472 && random.random_bool(0.7));
    wire.run_until(at(5000));
    let mut dead = 0;
    for second in 5..300 {
        wire.run_until(at(second * 1000));
        dead += u32::from(!wire.ends.iter().all(|end| end.proven(wire.now)));
    }
    assert!(dead <= 1, "{dead} seconds dead");
    let loss = wire.ends[0].quality().loss_out;
    assert!((10.0..55.0).contains(&loss), "{loss}");
}

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[test]
fn finds_the_mtu_of_usual_and_unusual_paths() {
    let limits =
        [300, 548, 549, 672, 978, 1000, 1199, 1200, 1232, 1280, 1372, 1392, 1452, 1472, 1473, 4000, 8952, 8972, 9000];
    for limit in limits {
        let mut wire = Wire::new(|_, _, size| size <= limit);
        wire.run_until(at(10_000));
        for end in &wire.ends {
            assert_eq!((usize::from(end.mtu()), end.is_settled()), (limit, true));
        }
    }
}

#[test]
fn an_underlay_that_takes_nothing_is_given_the_least() {
    let mut wire = Wire::new(|_, _, size| size <= 100);
    wire.run_until(at(10_000));
    assert_eq!((wire.ends[0].mtu(), wire.ends[0].is_settled()), (256, true));
}

#[test]
fn usual_mtu_is_known_after_a_round_trip_and_settled_after_a_second() {
    for limit in [548, 1452, 1472, 8972] {
        let mut wire = Wire::new(|_, _, size| size <= limit);
        wire.run_until(at(10));
        assert!(wire.ends.iter().all(|end| usize::from(end.mtu()) == limit && !end.is_settled()));
        wire.run_until(at(if limit == 1472 { 1000 } else { 2000 }));
        assert!(wire.ends.iter().all(|end| usize::from(end.mtu()) == limit && end.is_settled()));
    }
}

#[test]
fn what_is_used_never_exceeds_what_came_through() {
    for limit in [548, 700, 1472] {
        let mut wire = Wire::new(|_, _, size| size <= limit);
        for ms in 0..10_000 {
            wire.run_until(at(ms));
            assert!(wire.ends.iter().all(|end| usize::from(end.mtu()) <= limit));
        }
    }
}

/// Runs for a time while data flows: what is proven is checked with each heartbeat.
fn run_busy<F: FnMut(usize, usize, usize) -> bool>(wire: &mut Wire<F>, until: Instant) {
    while wire.now < until {
        let now = wire.now;
        wire.ends.iter_mut().for_each(|end| end.data_flows(now));
        wire.run_until((now + Duration::from_millis(100)).min(until));
    }
}

#[test]
fn a_silent_black_hole_is_noticed_within_two_seconds_while_data_flows() {
    for (wide, narrow) in [(1472, 1400), (1472, 672), (8972, 1472), (1472, 300)] {
        let limit = std::cell::Cell::new(wide);
        let mut wire = Wire::new(|_, _, size| size <= limit.get());
        run_busy(&mut wire, at(20_000));
        limit.set(narrow);
        run_busy(&mut wire, at(22_000));
        // 548 is what is assumed while nothing is known.
        assert!(wire.ends.iter().all(|end| usize::from(end.mtu()) <= narrow.max(548)), "{narrow}");
        run_busy(&mut wire, at(30_000));
        assert!(wire.ends.iter().all(|end| usize::from(end.mtu()) == narrow && end.is_settled()), "{narrow}");
    }
}

#[test]
fn mtu_of_an_idle_path_shrinks_within_a_minute_and_grows_after_ten() {
    let limit = std::cell::Cell::new(1472);
    let mut wire = Wire::new(|_, _, size| size <= limit.get());
    wire.run_until(at(10_000));
    limit.set(1400);
    wire.run_until(at(75_000));
    assert_eq!(wire.ends[0].mtu(), 1400);
    limit.set(8972);
    wire.run_until(at(800_000));
    assert_eq!(wire.ends[0].mtu(), 8972);
}

#[test]
fn a_path_that_is_cut_and_mended_keeps_its_mtu() {
    let cut = std::cell::Cell::new(false);
    let mut wire = Wire::new(|_, _, size| !cut.get() && size <= 1472);
    run_busy(&mut wire, at(10_000));
    for (begin, length) in [(10_000, 900), (20_000, 2500), (30_000, 20_000)] {
        cut.set(true);
        run_busy(&mut wire, at(begin + length));
        cut.set(false);
        run_busy(&mut wire, at(begin + length + 4000));
        assert!(wire.ends.iter().all(|end| (end.mtu(), end.is_settled()) == (1472, true)), "{length}");
    }
}

#[test]
fn random_loss_is_not_taken_for_a_narrow_path() {
    let mut random = StdRng::seed_from_u64(3);
    let mut wire = Wire::new(move |_, _, size| size <= 1472 && random.random_bool(0.8));
    run_busy(&mut wire, at(30_000));
    let (mut short, mut least) = (0, u16::MAX);
    for second in 30..630 {
        run_busy(&mut wire, at(second * 1000));
        short += u32::from(wire.ends[0].mtu() < 1472);
        least = least.min(wire.ends[0].mtu().max(548));
    }
    assert!(short <= 12, "{short} of 600 seconds below, {least} at least");
}

#[test]
fn watching_a_busy_path_costs_some_fifty_datagrams_a_second() {
    let mut wire = Wire::new(|_, _, size| size <= 1472);
    run_busy(&mut wire, at(30_000));
    let before = wire.sent;
    run_busy(&mut wire, at(50_000));
    assert!(wire.sent - before <= 20 * (40 + 10) + 20, "{}", wire.sent - before);
}

#[test]
fn address_change_forgets_the_mtu_and_searches_at_once() {
    let limit = std::cell::Cell::new(8972);
    let mut wire = Wire::new(|_, _, size| size <= limit.get());
    wire.run_until(at(10_000));
    limit.set(1472);
    let now = wire.now;
    wire.ends[0].address_changed(now);
    assert_eq!(wire.ends[0].mtu(), 0);
    wire.run_until(at(10_010));
    assert_eq!(wire.ends[0].mtu(), 1472);
}

#[test]
fn a_changed_route_looks_for_more_at_once_and_keeps_what_it_has() {
    let limit = std::cell::Cell::new(1472);
    let mut wire = Wire::new(|_, _, size| size <= limit.get());
    wire.run_until(at(10_000));
    limit.set(8972);
    let now = wire.now;
    wire.ends[0].route_changed(now);
    assert_eq!((wire.ends[0].mtu(), wire.ends[0].is_settled()), (1472, true));
    wire.run_until(at(10_010));
    assert_eq!(wire.ends[0].mtu(), 8972);
    limit.set(1400);
    wire.run_until(at(20_000));
    let now = wire.now;
    wire.ends[0].route_changed(now);
    wire.run_until(at(24_000));
    assert_eq!(wire.ends[0].mtu(), 1400);
}

#[test]
fn a_route_that_changes_while_sizes_are_tried_is_not_forgotten_and_one_that_keeps_changing_costs_little() {
    for begin in [5, 500, 900, 1500, 4000] {
        let limit = std::cell::Cell::new(1472);
        let mut wire = Wire::new(|_, _, size| size <= limit.get());
        wire.run_until(at(begin));
        limit.set(8972);
        wire.ends.iter_mut().for_each(|end| end.route_changed(at(begin)));
        wire.run_until(at(begin + 7000));
        assert!(wire.ends.iter().all(|end| end.mtu() == 8972), "{begin}");
    }
    let mut wire = Wire::new(|_, _, size| size <= 1472);
    wire.run_until(at(10_000));
    let before = wire.sent;
    for ms in 10_000..20_000 {
        wire.run_until(at(ms));
        wire.ends.iter_mut().for_each(|end| end.route_changed(at(ms)));
    }
    assert!(wire.sent - before < 200, "{}", wire.sent - before);
}

#[test]
fn an_old_heartbeat_is_not_the_newest() {
    let mut wire = Wire::new(|_, _, _| true);
    wire.run_until(at(3000));
    let old = Body { sequence: 1, ..wire.ends[0].blank(0) }.emit();
    let heard = wire.ends[0].handle(&old, 56, at(3000)).unwrap();
    assert_eq!(heard, Heard { newest: false, changed: false });
}

/// Two ends that prove VXLAN between them.
fn by_vxlan<F: FnMut(usize, usize, usize) -> bool>(passes: F) -> Wire<F> {
    let mut wire = Wire::new(passes);
    wire.ends = [true, false].map(|asks| Probe::of_vxlan(asks, OVERHEAD, Instant::ZERO));
    wire
}

#[test]
fn vxlan_that_fails_is_found_out_within_two_seconds_and_that_it_is_back_within_three() {
    let passes = std::cell::Cell::new(true);
    let mut wire = by_vxlan(|_, _, size| passes.get() && size <= 1472);
    for ms in (3000..4000).step_by(37) {
        passes.set(true);
        wire.run_until(wire.now + Duration::from_millis(ms));
        assert!(wire.ends.iter().all(|end| end.proven(wire.now)));
        passes.set(false);
        wire.run_until(wire.now + Duration::from_millis(2005));
        assert!(wire.ends.iter().all(|end| !end.proven(wire.now)), "{ms}");
        if ms % 10 == 0 {
            let before = wire.sent;
            wire.run_until(wire.now + Duration::from_secs(60));
            assert!(wire.sent - before <= 2 * (HOPELESS_AFTER as usize + 30), "{}", wire.sent - before);
        }
    }
}

/// Data flows both ways, as the owner tells whenever it looks.
fn run_busy_by_vxlan<F: FnMut(usize, usize, usize) -> bool>(wire: &mut Wire<F>, until: Instant) {
    while wire.now < until {
        let (now, soon) = (wire.now, wire.ends.iter().map(|end| end.deadline(wire.now)).min().unwrap());
        wire.ends.iter_mut().for_each(|end| end.data_flows(now));
        wire.run_until(soon.max(now + Duration::from_millis(1)).min(now + Duration::from_millis(500)).min(until));
    }
}

#[test]
fn vxlan_that_fails_or_narrows_under_traffic_is_found_out_before_tcp_tries_for_the_third_time() {
    for ms in (4000..5000).step_by(37) {
        for (narrow, limit) in [(0, 1300), (1000, 1000)] {
            let widest = std::cell::Cell::new(1472);
            let mut wire = by_vxlan(|_, _, size| size <= widest.get());
            run_busy_by_vxlan(&mut wire, at(ms));
            assert!(wire.ends.iter().all(|end| end.proven(wire.now) && end.mtu() == 1472), "{ms}");
            widest.set(narrow);
            run_busy_by_vxlan(&mut wire, at(ms + limit));
            let found = wire.ends.iter().all(|end| !end.proven(wire.now) || end.mtu() < 1472);
            assert!(found, "{ms}, {narrow}: {:?}", wire.ends.each_ref().map(|end| (end.proven(wire.now), end.mtu())));
        }
    }
}

#[test]
fn watching_vxlan_under_traffic_costs_little_and_ends_with_it() {
    let mut wire = by_vxlan(|_, _, size| size <= 1472);
    run_busy_by_vxlan(&mut wire, at(30_000));
    let before = wire.sent;
    run_busy_by_vxlan(&mut wire, at(50_000));
    // Asks and answers, and for each end two size tests a second with all that belongs to them.
    assert!(wire.sent - before <= 20 * (2 * 2 + 2 * 2 * 4) + 20, "{}", wire.sent - before);
    wire.run_until(at(60_000));
    let before = wire.sent;
    wire.run_until(at(80_000));
    assert!(wire.sent - before <= 46, "{}", wire.sent - before);
}

#[test]
fn loss_is_not_taken_for_the_end_of_vxlan_under_traffic() {
    let mut random = StdRng::seed_from_u64(11);
    let mut wire = by_vxlan(move |_, _, size| size <= 1472 && random.random_bool(0.9));
    run_busy_by_vxlan(&mut wire, at(10_000));
    let mut bad = 0;
    for second in 10..610 {
        run_busy_by_vxlan(&mut wire, at(second * 1000));
        bad += u32::from(wire.ends.iter().any(|end| !end.proven(wire.now) || end.mtu() < 1472));
    }
    assert!(bad <= 3, "{bad} of 600 seconds");
}

#[test]
fn a_heartbeat_proves_only_the_way_that_it_was_made_for() {
    let (mut by_udp, mut by_vxlan) = (Probe::new(true, OVERHEAD, at(0)), Probe::of_vxlan(true, OVERHEAD, at(0)));
    let (udp, vxlan) = (by_udp.poll(at(0)).unwrap(), by_vxlan.poll(at(0)).unwrap());
    assert_eq!((udp[1], vxlan[1]), (0, 1));
    assert_eq!(by_udp.handle(&vxlan, 56, at(1)), Err(Malformed::Field));
    assert_eq!(by_vxlan.handle(&udp, 56, at(1)), Err(Malformed::Field));
    assert!(Probe::new(false, OVERHEAD, at(0)).handle(&udp, 56, at(1)).is_ok());
}

#[test]
fn each_end_is_told_whether_the_other_takes_unfinished_checksums() {
    let mut wire = by_vxlan(|_, _, _| true);
    wire.run_until(at(3000));
    assert!(wire.ends.iter().all(|end| !end.they_take_unfinished()));
    wire.ends[1].take_unfinished(true, at(3000));
    wire.run_until(at(3010));
    assert_eq!(wire.ends.each_ref().map(Probe::they_take_unfinished), [true, false], "at once, and only so");
    wire.ends[1].take_unfinished(false, at(3010));
    wire.run_until(at(3020));
    assert!(!wire.ends[0].they_take_unfinished());
}

#[test]
fn a_change_of_what_the_other_end_takes_is_told() {
    let (mut here, mut there) = (Probe::of_vxlan(true, OVERHEAD, at(0)), Probe::of_vxlan(false, OVERHEAD, at(0)));
    there.take_unfinished(true, at(0));
    let body = there.poll(at(0)).unwrap();
    assert!(here.handle(&body, 56, at(1)).unwrap().changed);
    there.hurry(at(2));
    let body = there.poll(at(2)).unwrap();
    assert!(!here.handle(&body, 56, at(3)).unwrap().changed);
}

#[test]
fn elsewhere_it_has_to_be_proven_again() {
    let mut wire = by_vxlan(|_, _, _| true);
    wire.run_until(at(3000));
    assert_eq!(wire.ends[0].silent_for(at(3000)).map(|silent| silent < Duration::from_secs(2)), Some(true));
    wire.ends[0].moved(at(3000));
    assert!(!wire.ends[0].proven(at(3000)) && wire.ends[0].silent_for(at(3000)).is_none());
    wire.run_until(at(3010));
    assert!(wire.ends[0].proven(at(3010)));
}

proptest! {
    #[test]
    fn handles_any_bytes(bodies in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..64), any::<u16>(), 0u64..5000), 0..40)) {
        let mut probe = Probe::new(true, OVERHEAD, Instant::ZERO);
        let mut now = Instant::ZERO;
        for (mut body, size, wait) in bodies {
            if let Some(flags) = body.first_mut() { *flags &= 31; }
            if let Some(zero) = body.get_mut(1) { *zero = 0; }
            now += Duration::from_millis(wait);
            let _ = probe.handle(&body, size, now);
            let sent = std::iter::from_fn(|| probe.poll(now)).take(60).count();
            prop_assert!(sent < 60, "a storm");
            prop_assert!(probe.deadline(now) > now);
            let quality = probe.quality();
            prop_assert!((0.0..=100.0).contains(&quality.loss_in) && (0.0..=100.0).contains(&quality.loss_out));
        }
    }

    #[test]
    fn body_parses_what_it_emits(flags in 0u8..16, way in 0u8..2, size: u16, sequence: u32, acknowledged: u32, held_us: u32, seen: u64) {
        let body = Body { flags, way, size, sequence, acknowledged, held_us, seen };
        prop_assert_eq!(Body::parse(&body.emit()), Ok(body));
    }
}

/// Runs for `seconds` as an owner does that lets it try; returns when each end's grade changed first.
fn run_tried<F: FnMut(usize, usize, usize) -> bool>(
    wire: &mut Wire<F>,
    busy: bool,
    seconds: u64,
) -> [Option<Instant>; 2] {
    let (mut changed, start) = ([None, None], wire.now.millis());
    for ms in (start..start + seconds * 1000).step_by(100) {
        wire.run_until(at(ms));
        for (end, changed) in wire.ends.iter_mut().zip(&mut changed) {
            if busy {
                end.data_flows(at(ms));
            }
            if end.wants_trial(at(ms)) {
                end.begin_trial(at(ms));
            }
            if end.grade() != Grade::Clean && changed.is_none() {
                *changed = Some(at(ms));
            }
        }
    }
    changed
}

#[test]
fn the_end_whose_datagrams_get_lost_finds_out_within_seconds() {
    let mut took = Vec::new();
    for seed in 0..100 {
        let (mut random, lossy) = (StdRng::seed_from_u64(seed), std::cell::Cell::new(false));
        let mut wire =
            Wire::new(|from, _, size| size <= 1472 && !(lossy.get() && from == 0 && random.random_bool(0.05)));
        run_tried(&mut wire, true, 10);
        lossy.set(true);
        let [ours, theirs] = run_tried(&mut wire, true, 20);
        assert!(theirs.is_none(), "{theirs:?}");
        took.push(ours.expect("found out") - at(10_000));
    }
    took.sort_unstable();
    assert!(
        took[50] < Duration::from_millis(4500) && took[98] < Duration::from_secs(9),
        "{:?} {:?}",
        took[50],
        took[98]
    );
}

#[test]
fn a_trial_costs_some_hundred_datagrams_and_a_clean_path_none() {
    let mut wire = Wire::new(|_, _, size| size <= 1472);
    run_tried(&mut wire, false, 30);
    let before = wire.sent;
    run_tried(&mut wire, false, 20);
    assert!(wire.sent - before <= 46);
    let (now, before) = (wire.now, wire.sent);
    wire.ends[1].begin_trial(now);
    run_tried(&mut wire, false, 20);
    assert!((640..760).contains(&(wire.sent - before)) && !wire.ends[1].is_tried(), "{}", wire.sent - before);
    assert_eq!(wire.ends[1].grade(), Grade::Clean);
}

#[test]
fn heartbeats_that_overtake_each_other_are_not_lost_ones() {
    let (mut random, mut flying) = (StdRng::seed_from_u64(5), Vec::new());
    let mut ends = [Probe::new(true, OVERHEAD, Instant::ZERO), Probe::new(false, OVERHEAD, Instant::ZERO)];
    for ms in 0..120_000 {
        for (from, end) in ends.iter_mut().enumerate() {
            end.data_flows(at(ms));
            if end.wants_trial(at(ms)) || ms == 20_000 {
                end.begin_trial(at(ms));
            }
            while let Some(body) = end.poll(at(ms)) {
                flying.push((ms + random.random_range(2..90), 1 - from, body));
            }
        }
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut flying).into_iter().partition(|(when, ..)| *when <= ms);
        flying = later;
        for (_, to, body) in due {
            ends[to].handle(&body[..24], 56, at(ms)).unwrap();
        }
    }
    for end in &ends {
        let quality = end.quality();
        assert_eq!(end.grade(), Grade::Clean);
        assert!(quality.jitter_us > 10_000 && quality.base_us < 70_000, "{quality:?}");
    }
}
