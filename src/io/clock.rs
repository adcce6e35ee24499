//! The daemon's monotone clock.
//!
//! Owns the origin that `types::Instant` counts from. One per process, copied to every thread, so that numbers taken on
//! different threads compare. It does not jump with the wall clock (CLOCK_MONOTONIC) and stands still while the machine sleeps.
//!
//! Its whole seconds begin with those of the wall clock at the start. Timers lie on a grid of whole seconds and their quarters,
//! so routers whose hosts keep the time send their probes together, and who has many neighbours wakes a few times a
//! second for all of them instead of once for each.

use crate::types::Instant;

/// Counts nanoseconds since [`Clock::start`].
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// `Instant::ZERO` becomes the last whole second of the wall clock.
    pub fn start() -> Clock {
        let now = std::time::Instant::now();
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let past = std::time::Duration::from_nanos(u64::from(wall.subsec_nanos()));
        Clock { origin: now.checked_sub(past).unwrap_or(now) }
    }

    /// The time since the origin.
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

    #[test]
    fn whole_seconds_are_those_of_the_wall_clock() {
        let subsecond = |nanos: u128| (nanos % 1_000_000_000) as i64;
        let wall = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let clock = Clock::start();
        // The closest of several readings: other processes may come between the two clocks.
        let apart =
            (0..100).map(|_| (subsecond(wall()) - subsecond(clock.now().nanos().into())).rem_euclid(1_000_000_000));
        let nearest = apart.map(|nanos| nanos.min(1_000_000_000 - nanos)).min().unwrap();
        assert!(nearest < 50_000_000, "{nearest} ns apart");
    }
}
