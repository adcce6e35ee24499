//! How often something is done while there is always reason to: a few times at once, then evenly spaced.
//!
//! Owns when the next time may be; the owner knows what, and that there is reason. One event brings about a few changes, which are
//! not to wait; a mesh that comes up brings about thousands, of which most are overtaken by the next.
//!
//! ```text
//! each time is paid for by `every`; `burst` of them may be owed (the leaky bucket as a meter, ITU-T I.371)
//! ```

use crate::types::Instant;
use std::time::Duration;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Pace {
    /// All that was done is paid for by then.
    paid: Instant,
}

impl Pace {
    /// When it may be done again: `now`, or later.
    pub fn next(&self, every: Duration, burst: u32, now: Instant) -> Instant {
        let owed = self.paid - now;
        let most = every * burst;
        if owed <= most { now } else { now + (owed - most) }
    }

    /// It is done.
    pub fn took(&mut self, every: Duration, now: Instant) {
        self.paid = self.paid.max(now) + every;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_done_at_once_and_the_rest_evenly() {
        let (mut pace, every) = (Pace::default(), Duration::from_millis(100));
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let mut done = Vec::new();
        for ms in 1000..3000 {
            while pace.next(every, 3, at(ms)) <= at(ms) {
                pace.took(every, at(ms));
                done.push(ms);
            }
        }
        assert_eq!(done[..6], [1000, 1000, 1000, 1000, 1100, 1200]);
        assert_eq!(done.len(), 4 + 19);
        assert_eq!(pace.next(every, 3, at(2999)), at(3000));
        assert_eq!(pace.next(every, 3, at(9000)), at(9000), "a quiet time pays for all");
    }
}
