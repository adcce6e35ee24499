//! What a path costs: its delay and its loss in one number that changes seldom.
//!
//! Owns the quantiser and its hysteresis; `probe` measures, `loss` grades, the node publishes, and `routes` adds the numbers up.
//! Every change is news for the whole mesh, so the steps are wide, bad news wait a little and good news long:
//!
//! ```text
//! delay    least round trip of the last 4 to 8 s + jitter, less 5 ms     0: below 5.7 ms; steps of the square root of 2
//!   worse    half as much again as the step for 3 s
//!   better   two thirds of it for 30 s (doubled by each relapse within 10 min, up to 8 min)
//! loss     120, 600 or 2000 ms more (`loss::Grade`): TCP halves its pace at each lost segment, and at 5 % little is left of it
//!          whatever the distance (Mathis et al. 1997)
//! ```
//!
//! The least round trip and not the mean, because queues that traffic fills are a reason to wait, not to go another way: the
//! other way's would fill as well, and traffic would swing between the two.

use super::loss::Grade;
use super::probe::Quality;
use crate::types::Instant;
use std::time::Duration;

/// The lowest step, microseconds: hosts are equally near, and it costs nothing. Half of what handing on costs (`routes::A_HOP`): less
/// would never change a way.
const LEAST: u32 = 4757;
/// Steps up to 4 s, microseconds.
const STEPS: [u32; 21] = [
    LEAST, 5657, 8000, 11_314, 16_000, 22_627, 32_000, 45_255, 64_000, 90_510, 128_000, 181_019, 256_000, 362_039,
    512_000, 724_077, 1_024_000, 1_448_155, 2_048_000, 2_896_309, 4_096_000,
];

/// The first measures of a path are those of a machine that is busy with starting it.
const SETTLE: Duration = Duration::from_secs(3);
const WORSE_AFTER: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);
const MOST_PATIENCE: Duration = Duration::from_secs(480);
const RELAPSE: Duration = Duration::from_secs(600);

/// What others should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// Whenever it suits.
    Better,
    /// Soon.
    Worse,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Cost {
    /// One of `STEPS`; 0: not known yet.
    delay: u32,
    grade: Grade,
    first_at: Option<Instant>,
    /// Another step would be right: a worse one or not, and since when.
    away: Option<(bool, Instant)>,
    patience: Duration,
    better_at: Option<Instant>,
}

impl Default for Cost {
    fn default() -> Cost {
        Cost { delay: 0, grade: Grade::Clean, first_at: None, away: None, patience: PATIENCE, better_at: None }
    }
}

/// The nearest step.
fn step(delay: u32) -> u32 {
    // Half a step is the fourth root of 2: 1.189.
    let is_near = |step: &u32| u64::from(*step) * 1189 >= u64::from(delay) * 1000;
    STEPS.into_iter().find(is_near).unwrap_or(4_096_000)
}

impl Cost {
    /// Round-trip time and jitter, microseconds, rounded; 0 while unknown, and where it is near.
    pub fn delay(&self) -> u32 {
        if self.delay <= LEAST { 0 } else { self.delay }
    }

    /// The loss that counts.
    pub fn grade(&self) -> Grade {
        self.grade
    }

    /// All of it, microseconds.
    pub fn whole(&self) -> u32 {
        let more = match self.grade {
            Grade::Clean => 0,
            Grade::Lossy => 120_000,
            Grade::Bad => 600_000,
            Grade::Awful => 2_000_000,
        };
        self.delay.saturating_sub(LEAST).saturating_add(more)
    }

    /// This was measured while the path is proven. Returns what became of the cost, if it changed.
    pub fn weigh(&mut self, quality: &Quality, grade: Grade, now: Instant) -> Option<News> {
        let before = self.whole();
        self.grade = grade;
        self.measured(quality.base_us.saturating_add(quality.jitter_us).max(LEAST), now);
        match self.whole() {
            after if after == before => None,
            after if after > before => Some(News::Worse),
            _ => Some(News::Better),
        }
    }

    fn measured(&mut self, delay: u32, now: Instant) {
        let first = *self.first_at.get_or_insert(now);
        if self.delay == 0 {
            self.delay = if now - first >= SETTLE { step(delay) } else { 0 };
            return;
        }
        let (old, new) = (u64::from(self.delay) * 3, u64::from(delay) * 2);
        let away = match (new > old, u64::from(delay) * 3 < u64::from(self.delay) * 2) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        };
        let Some(worse) = away else { return self.away = None };
        let since = self.away.filter(|(direction, _)| *direction == worse).map_or(now, |(_, since)| since);
        self.away = Some((worse, since));
        if now - since < if worse { WORSE_AFTER } else { self.patience } {
            return;
        }
        (self.delay, self.away) = (step(delay), None);
        if worse {
            let relapse = self.better_at.is_some_and(|at| now - at < RELAPSE);
            self.patience = if relapse { MOST_PATIENCE.min(2 * self.patience) } else { PATIENCE };
        } else {
            self.better_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn measured(base_us: u32, jitter_us: u32) -> Quality {
        Quality { base_us, jitter_us, ..Quality::default() }
    }

    /// Settled at `delay` at 3 s.
    fn settled(delay: u32) -> Cost {
        let mut cost = Cost::default();
        cost.weigh(&measured(delay, 0), Grade::Clean, at(0));
        cost.weigh(&measured(delay, 0), Grade::Clean, at(3000));
        cost
    }

    #[test]
    fn steps_are_wide_and_the_nearest_is_taken() {
        assert_eq!([0, 100, 5656, 5657, 10_000, 12_000].map(step), [LEAST, LEAST, LEAST, 5657, 11_314, 11_314]);
        assert_eq!([u32::MAX, 4_000_000].map(step), [4_096_000; 2]);
        assert!(STEPS.is_sorted());
    }

    #[test]
    fn the_first_seconds_of_a_path_do_not_count() {
        let mut cost = Cost::default();
        assert_eq!(cost.weigh(&measured(90_000, 9000), Grade::Clean, at(0)), None);
        assert_eq!(cost.weigh(&measured(300, 100), Grade::Clean, at(2999)), None);
        assert_eq!(cost.whole(), 0);
        assert_eq!(
            cost.weigh(&measured(300, 100), Grade::Clean, at(3000)),
            None,
            "it is near, as everybody took it to be"
        );
        let mut far = Cost::default();
        far.weigh(&measured(90_000, 9000), Grade::Clean, at(0));
        assert_eq!(far.weigh(&measured(90_000, 2000), Grade::Clean, at(3000)), Some(News::Worse));
        assert_eq!((far.whole(), far.delay()), (90_510 - LEAST, 90_510));
    }

    #[test]
    fn slower_counts_after_seconds_and_faster_after_half_a_minute() {
        let mut cost = settled(10_000);
        assert_eq!(cost.weigh(&measured(40_000, 5000), Grade::Clean, at(4000)), None);
        assert_eq!(cost.weigh(&measured(40_000, 5000), Grade::Clean, at(6999)), None);
        assert_eq!(cost.weigh(&measured(40_000, 5000), Grade::Clean, at(7000)), Some(News::Worse));
        assert_eq!(cost.delay(), 45_255);
        assert_eq!(cost.weigh(&measured(10_000, 0), Grade::Clean, at(8000)), None);
        assert_eq!(cost.weigh(&measured(10_000, 0), Grade::Clean, at(37_999)), None);
        assert_eq!(cost.weigh(&measured(10_000, 0), Grade::Clean, at(38_000)), Some(News::Better));
        // It relapses: now it takes a minute.
        cost.weigh(&measured(40_000, 0), Grade::Clean, at(39_000));
        assert_eq!(cost.weigh(&measured(40_000, 0), Grade::Clean, at(42_000)), Some(News::Worse));
        cost.weigh(&measured(10_000, 0), Grade::Clean, at(43_000));
        assert_eq!(cost.weigh(&measured(10_000, 0), Grade::Clean, at(102_999)), None);
        assert_eq!(cost.weigh(&measured(10_000, 0), Grade::Clean, at(103_000)), Some(News::Better));
    }

    #[test]
    fn loss_counts_at_once_and_more_than_any_delay_of_a_detour() {
        let mut cost = settled(500);
        assert_eq!(cost.weigh(&measured(500, 0), Grade::Lossy, at(4000)), Some(News::Worse));
        assert_eq!((cost.whole(), cost.delay()), (120_000, 0));
        assert_eq!(cost.weigh(&measured(500, 0), Grade::Clean, at(5000)), Some(News::Better));
        assert_eq!(cost.whole(), 0);
    }

    proptest! {
        #[test]
        fn noise_of_a_quarter_changes_nothing(
            delay in 6000_u32..3_000_000,
            noise in proptest::collection::vec((75_u64..=125, 1_u64..20_000), 1..200),
        ) {
            let mut cost = settled(delay);
            let (before, mut ms) = (cost.delay, 3000);
            for (percent, pause) in noise {
                ms += pause;
                let now = u32::try_from(u64::from(before) * percent / 100).unwrap();
                prop_assert_eq!(cost.weigh(&measured(now, 0), Grade::Clean, at(ms)), None);
            }
        }

        #[test]
        fn whatever_is_measured_it_changes_seldom_and_follows_in_the_end(
            noise in proptest::collection::vec((1_u32..500_000, 1_u64..3000), 1..400),
            last in 6000_u32..500_000,
        ) {
            let (mut cost, mut ms, mut changes) = (settled(20_000), 3000, 0_u64);
            for (delay, pause) in noise {
                ms += pause;
                changes += u64::from(cost.weigh(&measured(delay, 0), Grade::Clean, at(ms)).is_some());
            }
            // Up and down again takes 33 s; within one way there are few steps, each 3 s apart.
            prop_assert!(changes <= 1 + ms / 3000, "{changes} in {ms} ms");
            for _ in 0..600 {
                ms += 1000;
                cost.weigh(&measured(last, 0), Grade::Clean, at(ms));
            }
            prop_assert!(cost.delay() <= last * 3 / 2 + 1 && last <= cost.delay() * 3 / 2 + 1);
        }
    }
}
