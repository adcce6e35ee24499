//! The daemon's monotone clock.
//!
//! Owns the origin that `types::Instant` counts from. One per process, copied to every thread, so that numbers taken on
//! different threads compare. It does not jump with the wall clock (CLOCK_MONOTONIC) and stands still while the machine sleeps.

use crate::types::Instant;

/// Counts nanoseconds since [`Clock::start`].
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// Now becomes `Instant::ZERO`.
    pub fn start() -> Clock {
        Clock { origin: std::time::Instant::now() }
    }

    /// The time since the start.
    pub fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_back() {
        let clock = Clock::start();
        let (first, second) = (clock.now(), clock.now());
        assert!(first <= second);
    }
}
