//! The highest rate that a path carries, found by trials. Pure: whoever calls it sends.

/// What became of packets sent for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Packets per second that were wanted; 0: as many as possible.
    pub wanted: f64,
    pub seconds: f64,
    pub sent: u64,
    /// Of these, when the last one was sent.
    pub received_by_then: u64,
    /// Of these, when no more came.
    pub received: u64,
}

impl Trial {
    /// Part of the sent packets that never came, 0 to 1.
    pub fn loss(&self) -> f64 {
        if self.sent == 0 { 1.0 } else { 1.0 - self.received.min(self.sent) as f64 / self.sent as f64 }
    }

    pub fn sent_rate(&self) -> f64 {
        self.sent as f64 / self.seconds
    }

    pub fn received_rate(&self) -> f64 {
        self.received_by_then as f64 / self.seconds
    }

    /// Whether the path carried it, and the sender sent enough of it: what counts in the end is what was received.
    fn holds(&self, loss: f64) -> bool {
        self.loss() <= loss && self.sent_rate() >= 0.8 * self.wanted
    }
}

/// What a rate must do to count.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Most that may be lost, 0 to 1.
    pub loss: f64,
    /// How long the answer must hold.
    pub seconds: f64,
}

const FIRST: f64 = 25_000.0;
const LOWEST: f64 = 50.0;
const HIGHEST: f64 = 12_000_000.0;
/// The bracket is narrow enough.
const NARROW: f64 = 1.04;
/// Length of a trial before the answer is near, seconds.
const GLANCE: f64 = 0.4;
/// A stall of the machine must not pass for a limit of the path: a rate is refused only when it fails so often.
const CHANCES: u32 = 3;
/// Rates that are tried at full length, in steps down that grow: 3 %, 6 %, ...
const CONFIRMATIONS: u32 = 12;
const STEP: f64 = 0.03;

/// Brackets by doubling, narrows by halving the ratio, and answers with a trial of full length that held. None if none did.
pub fn highest<E>(goal: Goal, mut send: impl FnMut(f64, f64) -> Result<Trial, E>) -> Result<Option<Trial>, E> {
    let mut holds = |rate: f64| -> Result<bool, E> {
        for _ in 0..CHANCES {
            if send(rate, GLANCE)?.holds(goal.loss) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let (mut low, mut high) = (FIRST, FIRST);
    if holds(FIRST)? {
        high = FIRST * 2.0;
        while high < HIGHEST && holds(high)? {
            (low, high) = (high, high * 2.0);
        }
    } else {
        low = FIRST / 2.0;
        while low >= LOWEST && !holds(low)? {
            (low, high) = (low / 2.0, low);
        }
    }
    while low >= LOWEST && high / low > NARROW {
        let middle = (low * high).sqrt();
        *(if holds(middle)? { &mut low } else { &mut high }) = middle;
    }
    for step in 1..=CONFIRMATIONS {
        let trial = send(low, goal.seconds)?;
        if trial.holds(goal.loss) {
            return Ok(Some(trial));
        }
        low *= 1.0 - STEP * f64::from(step);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const GOAL: Goal = Goal { loss: 0.005, seconds: 2.0 };

    /// A path that carries `limit` packets per second and loses the rest, behind a sender that sends `sender` at most.
    fn path(limit: f64, sender: f64) -> impl FnMut(f64, f64) -> Result<Trial, Infallible> {
        move |wanted, seconds| {
            let sent = wanted.min(sender);
            let (sent, received) = ((sent * seconds) as u64, (sent.min(limit) * seconds) as u64);
            Ok(Trial { wanted, seconds, sent, received_by_then: received, received })
        }
    }

    fn found(limit: f64, sender: f64) -> f64 {
        highest(GOAL, path(limit, sender)).unwrap().unwrap().received_rate()
    }

    #[test]
    fn finds_the_limit_of_the_path_within_a_few_percent() {
        for limit in [150.0, 3_000.0, 25_000.0, 26_000.0, 99_000.0, 431_000.0, 2_500_000.0] {
            let found = found(limit, 1e9);
            assert!((0.95..=1.01).contains(&(found / limit)), "{found} of {limit}");
        }
    }

    #[test]
    fn finds_the_limit_of_a_sender_that_is_slower_than_the_path() {
        let found = found(1e9, 312_000.0);
        assert!((0.95..=1.01).contains(&(found / 312_000.0)), "{found}");
    }

    #[test]
    fn dead_path_has_no_answer_after_few_trials() {
        let mut trials = 0;
        let answer = highest(GOAL, |wanted, seconds| {
            trials += 1;
            Ok::<_, Infallible>(Trial { wanted, seconds, sent: 1000, received_by_then: 0, received: 0 })
        });
        assert_eq!(answer.unwrap(), None);
        assert!(trials < 60, "{trials}");
    }

    #[test]
    fn single_stall_does_not_pass_for_a_limit() {
        let (mut inner, mut trials) = (path(400_000.0, 1e9), 0);
        let answer = highest(GOAL, |wanted, seconds| {
            trials += 1;
            let trial = inner(wanted, seconds)?;
            // The third trial loses half, whatever its rate.
            Ok::<_, Infallible>(if trials == 3 { Trial { received: trial.sent / 2, ..trial } } else { trial })
        });
        let found = answer.unwrap().unwrap().received_rate();
        assert!(found > 380_000.0, "{found}");
    }

    #[test]
    fn answer_held_for_the_whole_time_with_no_more_loss_than_allowed() {
        // Long trials carry less than short ones, as when queues fill slowly.
        let answer = highest(GOAL, |wanted: f64, seconds| {
            let limit = if seconds < 1.0 { 200_000.0 } else { 150_000.0 };
            path(limit, 1e9)(wanted, seconds)
        });
        let trial = answer.unwrap().unwrap();
        assert_eq!(trial.seconds, GOAL.seconds);
        assert!(trial.loss() <= GOAL.loss && trial.received_rate() > 130_000.0, "{trial:?}");
    }

    #[test]
    fn loss_of_nothing_sent_is_total() {
        let nothing = Trial { wanted: 0.0, seconds: 1.0, sent: 0, received_by_then: 0, received: 0 };
        assert_eq!(nothing.loss(), 1.0);
    }

    #[test]
    fn errors_of_the_sender_come_out() {
        assert_eq!(highest(GOAL, |_, _| Err("no route")), Err("no route"));
    }
}
