//! A bound on how often something may happen: so many a second, and so many at once.
//!
//! Owns one number, shared by the threads: when a bucket that was emptied so far would be full again (the generic cell rate
//! algorithm, ITU-T I.371). Nothing refills it but the time that the caller tells.

use crate::types::Instant;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much passes.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// In a second; not 0.
    pub each_second: u64,
    /// At once, after a quiet time.
    pub at_once: u64,
}

/// See the head of this file. Begins full.
#[derive(Debug, Default)]
pub struct Bucket {
    /// Nanoseconds on the caller's clock.
    full_at: AtomicU64,
}

impl Bucket {
    /// Whether `count` may happen now; takes them if so. More at once than ever may be is let through by a full bucket, and
    /// empties it for as long as they all would have taken.
    #[inline]
    pub fn admit(&self, rate: Rate, count: usize, now: Instant) -> bool {
        let cost = 1_000_000_000 / rate.each_second.max(1);
        let (now, depth) = (now.nanos(), cost.saturating_mul(rate.at_once));
        let wanted = cost.saturating_mul(u64::try_from(count).unwrap_or(u64::MAX));
        let taken = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let begin = full_at.max(now);
            let is_full = begin == now;
            let after = begin.saturating_add(wanted);
            (is_full || after.saturating_sub(now) <= depth).then_some(after)
        });
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const RATE: Rate = Rate { each_second: 100, at_once: 10 };

    fn passed(bucket: &Bucket, tries: usize, now: Instant) -> usize {
        (0..tries).filter(|_| bucket.admit(RATE, 1, now)).count()
    }

    #[test]
    fn lets_a_burst_through_and_then_the_rate() {
        let (bucket, mut now) = (Bucket::default(), Instant::ZERO + Duration::from_secs(5));
        assert_eq!(passed(&bucket, 50, now), 10);
        now += Duration::from_millis(30);
        assert_eq!(passed(&bucket, 50, now), 3);
        let all: usize = (0..1000)
            .map(|_| {
                now += Duration::from_millis(10);
                passed(&bucket, 9, now)
            })
            .sum();
        assert_eq!(all, 1000, "ten seconds");
        now += Duration::from_secs(60);
        assert_eq!(passed(&bucket, 50, now), 10, "quiet times do not add up");
    }

    #[test]
    fn what_is_larger_than_the_bucket_passes_when_it_is_full_and_is_paid_for() {
        let (bucket, now) = (Bucket::default(), Instant::ZERO + Duration::from_secs(5));
        assert!(bucket.admit(RATE, 45, now));
        assert!(!bucket.admit(RATE, 1, now + Duration::from_millis(340)));
        assert!(bucket.admit(RATE, 1, now + Duration::from_millis(360)));
    }
}
