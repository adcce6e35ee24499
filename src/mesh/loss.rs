//! How lossy a path is, from here to the other side: notices lost datagrams, makes sure, and grades.
//!
//! Owns the evidence, the trials and the grade with its hysteresis; sends nothing: `probe` does, tells which heartbeats arrived,
//! and hastens while a trial runs. Each end grades what it sends, so the two grades of a path cover both directions.
//!
//! ```text
//! something was lost ---> trial: 320 heartbeats, 60 a second ---> grade
//!   worse    as soon as so many of a trial are lost that it is worse even if all others arrive: 7, 26, 96 (2, 8, 30 %)
//!   better   nothing lost for 30 s (doubled by each relapse within 10 min, up to 8 min), then a trial that says so
//! ```
//!
//! One lost datagram a second is too little to tell 5 % from 1 % within seconds, and 60 heartbeats a second are too many for a
//! path that is well: so the trial is run when there is reason to. Of 320 heartbeats at 5 % 7 are lost with a probability of
//! 99.6 %, half of the time within the first 135, at 0.5 % of 0.2 %; if it were 4 to 6, the trial goes on up to 640. After a trial that found nothing a single loss is no reason
//! for 5 s and more (doubled each time, up to 1 min), but 2 % of what was sent since then are after 2 s. A path that is not clean
//! is tried again no more often than that.

use crate::types::Instant;
use std::time::Duration;

/// Heartbeats of a trial.
const TRIAL: u32 = 320;
/// If so many are lost of it, which is too few, it goes on for as long again: then 10 are enough for 7.
const UNSURE: u32 = 4;
const ENOUGH: (u32, u32) = (7, 10);
/// Fewer than these, because the path is slow or went down, tell nothing.
const TRIAL_LEAST: u32 = 100;
/// A trial ends after this long.
const TRIAL_MOST: Duration = Duration::from_secs(20);
/// Lost heartbeats of a trial from which a path is of that grade.
const GRADES: [(u32, Grade); 3] = [(96, Grade::Awful), (26, Grade::Bad), (7, Grade::Lossy)];

/// After a trial nothing is tried for so long.
const REST: Duration = Duration::from_secs(2);
/// The same for the reason that a single datagram was lost, and at most.
const LONG_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// So long after a trial the next one is the first again.
const QUIET: Duration = Duration::from_secs(180);

/// How long nothing may be lost before a path is thought better of, and at most.
const PATIENCE: Duration = Duration::from_secs(30);
const MOST_PATIENCE: Duration = Duration::from_secs(480);
/// Worse again so soon after it was thought better of is a relapse.
const RELAPSE: Duration = Duration::from_secs(600);

/// How much of what is sent gets lost. Coarse, since the whole mesh hears of each change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Less than 2 %.
    #[default]
    Clean,
    /// 2 to 8 %.
    Lossy,
    /// 8 to 30 %.
    Bad,
    /// More.
    Awful,
}

impl Grade {
    /// Of so many lost of a trial.
    fn of(lost: u32) -> Grade {
        GRADES.iter().find(|(least, _)| lost >= *least).map_or(Grade::Clean, |(_, grade)| *grade)
    }
}

/// What arrived and what did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sample {
    arrived: u64,
    lost: u64,
}

impl Sample {
    fn add(&mut self, arrived: u64, lost: u64) {
        self.arrived = self.arrived.saturating_add(arrived);
        self.lost = self.lost.saturating_add(lost);
    }

    fn total(&self) -> u64 {
        self.arrived.saturating_add(self.lost)
    }

    /// As if a whole trial.
    fn of_trial(&self) -> u32 {
        let scaled = self.lost.saturating_mul(TRIAL.into()).checked_div(self.total()).unwrap_or(0);
        u32::try_from(scaled).unwrap_or(TRIAL)
    }
}

#[derive(Debug)]
struct Trial {
    began: Instant,
    sample: Sample,
    /// It is to tell whether the path is better.
    hopeful: bool,
    /// The grade when it began.
    before: Grade,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Loss {
    grade: Grade,
    trial: Option<Trial>,
    /// Since the last trial: something was lost; and how much.
    suspected: bool,
    recent: Sample,
    rested_at: Option<Instant>,
    long_rest: Duration,
    /// Nothing was lost since then, as far as one knows.
    clean_since: Instant,
    patience: Duration,
    better_at: Option<Instant>,
}

impl Loss {
    /// A path is taken to be clean.
    pub fn new(now: Instant) -> Loss {
        Loss {
            grade: Grade::Clean,
            trial: None,
            suspected: false,
            recent: Sample::default(),
            rested_at: None,
            long_rest: LONG_REST,
            clean_since: now,
            patience: PATIENCE,
            better_at: None,
        }
    }

    /// What is known.
    pub fn grade(&self) -> Grade {
        self.grade
    }

    /// Heartbeats are to be sent as for a trial.
    pub fn is_trying(&self) -> bool {
        self.trial.is_some()
    }

    /// It became known of so many heartbeats of ours whether they arrived.
    pub fn heartbeats(&mut self, arrived: u64, lost: u64, now: Instant) {
        self.noticed(lost, now);
        match &mut self.trial {
            None => self.remember(arrived, lost),
            Some(trial) => {
                trial.sample.add(arrived, lost);
                let (lost, total) =
                    (u32::try_from(trial.sample.lost).unwrap_or(TRIAL).min(2 * TRIAL), trial.sample.total());
                let longer = total > TRIAL.into();
                self.worsen(Grade::of(if longer { lost * ENOUGH.0 / ENOUGH.1 } else { lost }), now);
                let unsure = lost >= UNSURE && self.grade == Grade::Clean;
                if total >= u64::from(if unsure { 2 * TRIAL } else { TRIAL }) {
                    self.conclude(now);
                }
            }
        }
    }

    /// The same of other datagrams of the path, in either direction: a reason for a trial, not a part of one, since what
    /// loses them may be the receiver's own queue, which heartbeats do not share.
    pub fn datagrams(&mut self, arrived: u64, lost: u64, now: Instant) {
        self.noticed(lost, now);
        if self.trial.is_none() {
            self.remember(arrived, lost);
        }
    }

    fn noticed(&mut self, lost: u64, now: Instant) {
        if lost > 0 {
            (self.suspected, self.clean_since) = (true, now);
        }
    }

    fn remember(&mut self, arrived: u64, lost: u64) {
        self.recent.add(arrived, lost);
        // What is older counts less.
        while self.recent.total() >= 256 {
            self.recent = Sample { arrived: self.recent.arrived / 2, lost: self.recent.lost / 2 };
        }
    }

    /// There is reason for a trial.
    pub fn wants_trial(&self, now: Instant) -> bool {
        let rested = self.rested_at.map_or(Duration::MAX, |at| now - at);
        if self.is_trying() || rested < REST {
            return false;
        }
        let rested = rested >= self.long_rest || rested > QUIET;
        let worse = self.recent.lost >= 2 && Grade::of(self.recent.of_trial()) > self.grade;
        let reason = match self.grade {
            Grade::Clean => worse || (self.suspected && rested),
            _ => worse && rested && self.recent.total() >= TRIAL_LEAST.into(),
        };
        reason || (self.grade > Grade::Clean && now - self.clean_since >= self.patience)
    }

    /// Begins one.
    pub fn begin_trial(&mut self, now: Instant) {
        let hopeful = self.grade > Grade::Clean && now - self.clean_since >= self.patience;
        if self.rested_at.is_none_or(|at| now - at > QUIET) {
            self.long_rest = LONG_REST;
        }
        self.trial = Some(Trial { began: now, sample: Sample::default(), hopeful, before: self.grade });
    }

    /// Ends a trial that takes too long, or whose path is not `proven` any more.
    pub fn tend(&mut self, proven: bool, now: Instant) {
        if self.trial.as_ref().is_some_and(|trial| !proven || now - trial.began >= TRIAL_MOST) {
            self.conclude(now);
        }
    }

    fn conclude(&mut self, now: Instant) {
        let Some(trial) = self.trial.take() else { return };
        (self.suspected, self.recent, self.rested_at) = (false, Sample::default(), Some(now));
        if trial.sample.total() < TRIAL_LEAST.into() {
            return;
        }
        let grade = Grade::of(trial.sample.of_trial());
        match grade.cmp(&self.grade) {
            std::cmp::Ordering::Greater => self.worsen(grade, now),
            std::cmp::Ordering::Less if trial.hopeful => (self.grade, self.better_at) = (grade, Some(now)),
            _ if trial.hopeful => self.clean_since = now,
            _ => {}
        }
        let news = self.grade != trial.before;
        self.long_rest = if news { LONG_REST } else { LONGEST_REST.min(2 * self.long_rest) };
    }

    fn worsen(&mut self, grade: Grade, now: Instant) {
        if grade <= self.grade {
            return;
        }
        if self.grade == Grade::Clean {
            let relapse = self.better_at.is_some_and(|at| now - at < RELAPSE);
            self.patience = if relapse { MOST_PATIENCE.min(2 * self.patience) } else { PATIENCE };
        }
        (self.grade, self.clean_since) = (grade, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    /// A path that loses `share` from `begin` on, in ms, which is told of a heartbeat every 50 ms (every 16 while it is tried).
    struct Lab {
        loss: Loss,
        rng: StdRng,
        ms: u64,
        trials: u32,
    }

    impl Lab {
        fn new(seed: u64) -> Lab {
            Lab { loss: Loss::new(at(0)), rng: StdRng::seed_from_u64(seed), ms: 0, trials: 0 }
        }

        /// Until `until` ms, or the grade changed.
        fn run(&mut self, share: f64, until: u64) -> Option<u64> {
            let before = self.loss.grade();
            while self.ms < until {
                self.ms += if self.loss.is_trying() { 16 } else { 50 };
                let lost = self.rng.random_bool(share);
                self.loss.heartbeats(u64::from(!lost), u64::from(lost), at(self.ms));
                self.loss.tend(true, at(self.ms));
                if self.loss.wants_trial(at(self.ms)) {
                    self.loss.begin_trial(at(self.ms));
                    self.trials += 1;
                }
                if self.loss.grade() != before {
                    return Some(self.ms);
                }
            }
            None
        }
    }

    #[test]
    fn five_percent_are_found_within_ten_seconds_and_mostly_within_five() {
        let mut took: Vec<u64> = Vec::new();
        for seed in 0..400 {
            let mut lab = Lab::new(seed);
            lab.run(0.0, 60_000);
            took.push(lab.run(0.05, 200_000).unwrap_or(200_000) - 60_000);
            assert_eq!(lab.loss.grade(), Grade::Lossy);
        }
        took.sort_unstable();
        assert!(took[200] < 4500 && took[396] < 10_000, "median {}, 99 % {}", took[200], took[396]);
    }

    #[test]
    fn heavy_loss_is_found_sooner_and_graded() {
        for (share, grade, within) in [(0.15, Grade::Bad, 12_000), (0.6, Grade::Awful, 6000)] {
            for seed in 0..50 {
                let mut lab = Lab::new(seed);
                while lab.loss.grade() < grade {
                    lab.run(share, within).expect("in time");
                }
            }
        }
    }

    #[test]
    fn half_a_percent_is_no_reason_to_leave_a_path_and_costs_little() {
        let mut alarms = 0;
        for seed in 0..20 {
            let mut lab = Lab::new(seed);
            alarms += u32::from(lab.run(0.005, 600_000).is_some());
            assert!(lab.trials <= 20, "{} trials in ten minutes", lab.trials);
        }
        assert!(alarms <= 2, "{alarms} of 20");
    }

    #[test]
    fn a_path_that_healed_is_clean_after_half_a_minute_and_later_after_each_relapse() {
        let mut lab = Lab::new(1);
        let mut waits = Vec::new();
        for _ in 0..3 {
            lab.run(0.1, u64::MAX).unwrap();
            lab.run(0.1, lab.ms + 10_000);
            let healed = lab.ms;
            while lab.loss.grade() > Grade::Clean {
                lab.run(0.0, u64::MAX).unwrap();
            }
            waits.push((lab.ms - healed) / 1000);
        }
        assert!(
            (30..40).contains(&waits[0]) && (58..70).contains(&waits[1]) && (118..130).contains(&waits[2]),
            "{waits:?}"
        );
    }

    #[test]
    fn a_lossy_path_is_not_thought_better_of_while_it_is_lossy() {
        for seed in 0..20 {
            let mut lab = Lab::new(seed);
            lab.run(0.05, u64::MAX).unwrap();
            let better = (0..10).filter_map(|_| lab.run(0.05, lab.ms + 60_000)).count();
            assert!(lab.loss.grade() > Grade::Clean && better <= 1, "{better}");
        }
    }

    #[test]
    fn a_full_queue_of_the_receiver_is_tried_and_does_not_count() {
        let mut lab = Lab::new(3);
        for _ in 0..600 {
            lab.loss.datagrams(900, 100, at(lab.ms));
            assert_eq!(lab.run(0.0, lab.ms + 1000), None);
        }
        assert!(lab.trials > 10 && lab.loss.grade() == Grade::Clean);
    }

    proptest! {
        #[test]
        fn better_only_after_patience_and_a_trial(
            steps in proptest::collection::vec((0_u64..3, 0_u64..2, 1_u64..2000, any::<bool>()), 1..400)
        ) {
            let (mut loss, mut ms, mut lost_at) = (Loss::new(at(0)), 0, 0);
            for (arrived, lost, pause, proven) in steps {
                ms += pause;
                let before = loss.grade();
                let tried = loss.is_trying();
                loss.heartbeats(arrived * 50, lost, at(ms));
                loss.tend(proven, at(ms));
                if loss.grade() < before {
                    prop_assert!(tried && ms - lost_at >= 30_000 - 20_000, "since {lost_at} at {ms}");
                }
                if loss.grade() > before {
                    prop_assert!(tried);
                }
                if lost > 0 {
                    lost_at = ms;
                }
                if loss.wants_trial(at(ms)) {
                    loss.begin_trial(at(ms));
                }
            }
        }
    }
}
