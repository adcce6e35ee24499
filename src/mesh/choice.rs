//! Which framing carries the traffic of a path: VXLAN where that is proven, else rnet's own, which is always there.
//!
//! Owns the decision and its hysteresis; `probe` measures, the owner tells what it found and carries out what is decided. The two
//! ends of a path choose each for what it sends, and take in both.
//!
//! ```text
//!          not good (at once)
//! better ---------------------> udp        patience: 1 s at first; 5 s after a relapse, doubled by each further one up to 60 s;
//!        <---------------------             5 s again after 10 minutes without one
//!          good for `patience`
//! ```

use crate::types::{Framing, Instant};
use std::time::Duration;

/// How long the better framing has to be good before it is used for the first time.
const FIRST: Duration = Duration::from_secs(1);
/// The same after it failed once, and at most.
const AGAIN: Duration = Duration::from_secs(5);
const MOST: Duration = Duration::from_secs(60);
/// In use for this long, it has proved itself.
const STEADY: Duration = Duration::from_secs(600);

/// What is known of the better framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Both ends hear each other, at full size.
    Good,
    /// No heartbeat came through, for so long; nothing: none ever did.
    Silent(Option<Duration>),
    /// Heartbeats come through, but not of the size that is needed; bytes of UDP payload.
    Narrow {
        /// What does; 0: not known yet.
        takes: u16,
        /// What should.
        needs: u16,
    },
    /// This machine has it no more, or not yet.
    Absent,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Choice {
    better: bool,
    since: Instant,
    /// Since when it is good, while it is not used.
    good_since: Option<Instant>,
    patience: Duration,
    health: Health,
}

impl Choice {
    /// Begins with rnet's own framing.
    pub fn new(now: Instant) -> Choice {
        Choice { better: false, since: now, good_since: None, patience: FIRST, health: Health::Silent(None) }
    }

    /// Whether the better framing carries the traffic.
    pub fn is_better(&self) -> bool {
        self.better
    }

    /// Since when the one in use is.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Takes in what is known now. Returns whether the framing in use changed.
    pub fn judge(&mut self, health: Health, now: Instant) -> bool {
        self.health = health;
        match (health, self.better) {
            (Health::Good, true) => false,
            (Health::Good, false) => {
                let good_since = *self.good_since.get_or_insert(now);
                let over = now - good_since >= self.patience;
                if over {
                    (self.better, self.since, self.good_since) = (true, now, None);
                }
                over
            }
            (_, false) => {
                self.good_since = None;
                false
            }
            (_, true) => {
                let steady = self.patience == FIRST || now - self.since >= STEADY;
                self.patience = if steady { AGAIN } else { (self.patience * 2).min(MOST) };
                (self.better, self.since) = (false, now);
                true
            }
        }
    }

    /// When `judge` would change over by itself, if nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.good_since.map(|since| since + self.patience)
    }

    /// Why the better framing, which is `named` and uses this UDP port, is not in use; nothing if it is.
    pub fn why_not(&self, named: Framing, port: u16, now: Instant) -> Option<String> {
        if self.better {
            return None;
        }
        let why = match self.health {
            Health::Absent => "this host does not have it at the moment".to_string(),
            Health::Silent(None) => format!("no heartbeat: is UDP port {port} open on both hosts?"),
            Health::Silent(Some(silent)) => {
                format!("no heartbeat for {} s: is UDP port {port} blocked?", silent.as_secs())
            }
            Health::Narrow { takes: 0, .. } => "its size is being measured".to_string(),
            Health::Narrow { takes, needs } => {
                format!("datagrams of {needs} bytes do not get through by UDP port {port}, {takes} do")
            }
            Health::Good => {
                let left = self.deadline().map_or(Duration::ZERO, |at| at - now);
                format!("it is tried for {} s more", left.as_millis().div_ceil(1000))
            }
        };
        Some(format!("{named}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    const SILENT: Health = Health::Silent(Some(Duration::from_secs(2)));

    #[test]
    fn the_better_one_is_used_after_a_second_and_left_at_once() {
        let mut choice = Choice::new(at(0));
        assert!(!choice.judge(Health::Good, at(500)) && choice.deadline() == Some(at(1500)));
        assert!(!choice.judge(Health::Good, at(1499)) && choice.judge(Health::Good, at(1500)));
        assert_eq!((choice.is_better(), choice.since(), choice.deadline()), (true, at(1500), None));
        assert!(choice.judge(SILENT, at(2000)) && !choice.is_better());
    }

    #[test]
    fn each_relapse_makes_it_wait_longer_up_to_a_minute() {
        let (mut choice, mut now, mut waits) = (Choice::new(at(0)), 0, Vec::new());
        for _ in 0..7 {
            choice.judge(Health::Good, at(now));
            let due = choice.deadline().unwrap();
            waits.push((due - at(now)).as_secs());
            assert!(choice.judge(Health::Good, due));
            now = due.nanos() / 1_000_000 + 100;
            assert!(choice.judge(SILENT, at(now)));
        }
        assert_eq!(waits, [1, 5, 10, 20, 40, 60, 60]);
        choice.judge(Health::Good, at(now));
        let due = choice.deadline().unwrap();
        choice.judge(Health::Good, due);
        assert!(choice.judge(SILENT, due + STEADY));
        choice.judge(Health::Good, due + STEADY);
        assert_eq!(choice.deadline(), Some(due + STEADY + AGAIN), "after ten good minutes the past is forgotten");
    }

    #[test]
    fn one_bad_moment_begins_the_wait_anew() {
        let mut choice = Choice::new(at(0));
        choice.judge(Health::Good, at(0));
        choice.judge(Health::Narrow { takes: 900, needs: 1422 }, at(900));
        assert!(!choice.judge(Health::Good, at(950)) && !choice.judge(Health::Good, at(1949)));
        assert!(choice.judge(Health::Good, at(1950)));
    }

    #[test]
    fn tells_why_not() {
        let mut choice = Choice::new(at(0));
        let mut why = |health| {
            choice.judge(health, at(0));
            choice.why_not(Framing::Kernel, 6784, at(0)).unwrap()
        };
        assert_eq!(
            why(Health::Silent(Some(Duration::from_secs(12)))),
            "kernel: no heartbeat for 12 s: is UDP port 6784 blocked?"
        );
        assert_eq!(why(Health::Silent(None)), "kernel: no heartbeat: is UDP port 6784 open on both hosts?");
        assert_eq!(
            why(Health::Narrow { takes: 1400, needs: 1472 }),
            "kernel: datagrams of 1472 bytes do not get through by UDP port 6784, 1400 do"
        );
        assert_eq!(why(Health::Good), "kernel: it is tried for 1 s more");
        assert_eq!(why(Health::Absent), "kernel: this host does not have it at the moment");
        choice.judge(Health::Good, at(0));
        choice.judge(Health::Good, at(1000));
        assert_eq!(choice.why_not(Framing::Kernel, 6784, at(1000)), None);
    }

    proptest! {
        /// However health comes and goes: never better while it is not good, and the changes over to better get rarer.
        #[test]
        fn never_flaps(steps in prop::collection::vec((any::<bool>(), 1u64..3000), 1..300)) {
            let (mut choice, mut now, mut upgrades) = (Choice::new(at(0)), 0, Vec::new());
            for (good, ms) in steps {
                now += ms;
                let changed = choice.judge(if good { Health::Good } else { SILENT }, at(now));
                prop_assert!(good || !choice.is_better());
                if changed && choice.is_better() {
                    upgrades.push(now);
                }
            }
            let spaced = upgrades.windows(2).enumerate().all(|(n, pair)| {
                let least = [5000, 10_000, 20_000, 40_000, 60_000];
                pair[1] - pair[0] >= least[n.min(4)] || pair[1] - pair[0] >= 600_000
            });
            let total: u64 = upgrades.last().copied().unwrap_or(0);
            prop_assert!(spaced || total > 600_000);
        }
    }
}
