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

    /// `instant` as the standard library and timers know it.
    pub fn to_std(&self, instant: Instant) -> std::time::Instant {
        self.origin + instant.since(Instant::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_back_and_converts_to_the_same_moment() {
        let clock = Clock::start();
        let (first, second) = (clock.now(), clock.now());
        assert!(first <= second);
        assert!(clock.to_std(second) <= std::time::Instant::now());
        assert_eq!(clock.to_std(second) - clock.to_std(first), second - first);
    }
}
