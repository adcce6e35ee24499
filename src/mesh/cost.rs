//! What a path costs: one number of its round trip, jitter and loss, told to the mesh seldom and never for noise.
//!
//! Owns the measure of loss (what others sent and what arrived, frames and heartbeats alike), the formula and the hysteresis.
//! Every peer finds its ways by these numbers, so a change makes the whole mesh compute: worse news are told within seconds,
//! better news when they have lasted.
//!
//! ```text
//! cost = smoothed round trip + 2 x jitter + 20 ms for each per cent lost    (microseconds)
//! loss: of what was sent to us in the last 2 to 8 s, in classes: below 1 %: 0, else 1, 2, 5, 10, 20, 50 %
//! told: a higher class when two looks, 2 s apart, agree; a lower one after 30 s and 100 datagrams that show no more; delays if they moved by a half
//!       and 5 ms, for 10 s
//! ```
//!
//! Per cent are seen in what arrives only, since each end knows what it got: the mesh takes the worse of both ends.

use crate::mesh::probe::Quality;
use crate::types::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// What a per cent of loss costs, microseconds. TCP halves its pace at each lost segment; at 5 % little is left of it
/// whatever the distance (Mathis et al. 1997), so that a detour of 100 ms is better.
const A_PER_CENT: u32 = 20_000;
/// How often loss is looked at, and over how many such times.
const SLICE: Duration = Duration::from_secs(2);
const SLICES: usize = 4;
/// Fewer datagrams say nothing.
const ENOUGH: i64 = 20;
/// So many, and so long, that less loss is no luck: a path that was left for its loss carries a heartbeat a second, and must
/// not be taken back for those it did not lose.
const CERTAIN: i64 = 100;
const BETTER_AFTER: Duration = Duration::from_secs(30);
const MOVED_AFTER: Duration = Duration::from_secs(10);
/// Delays that moved by less are the same: half of what handing on costs.
const MOVED_LEAST: u32 = 5000;
/// Lower bounds of classes, per cent.
const CLASSES: [u32; 6] = [1, 2, 5, 10, 20, 50];

/// What came of what was sent to us: grows from 0 with the keys of an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// The epoch that this is about.
    pub epoch: u16,
    /// Datagrams that the other side sealed, up to the newest that came.
    pub sent: u64,
    /// Of these, those that came.
    pub came: u64,
    /// Of those that did not come, those that nobody expected to; of all epochs together.
    pub aside: i64,
}

/// The machine of one path. See the head of this file.
#[derive(Debug, Default)]
pub struct Cost {
    last: Arrivals,
    looked_at: Option<Instant>,
    /// Sent and came, in the last few slices. What is counted as lost in one for having been overtaken, or for not being known
    /// to be a test yet, is made good in the next.
    slices: VecDeque<(i64, i64)>,
    /// The class at the last look: one look alone may err.
    last_loss: u32,
    told_loss: u32,
    /// Sent and came since the loss was told, or last weighed; and since when.
    evidence: (i64, i64),
    evidence_since: Instant,
    told_delay: u32,
    moved_since: Option<Instant>,
}

/// The class of a share.
fn class((sent, came): (i64, i64)) -> u32 {
    if sent < ENOUGH {
        return 0;
    }
    let lost = sent.saturating_sub(came).max(0);
    let per_cent = u32::try_from(lost.saturating_mul(100) / sent).unwrap_or(100);
    CLASSES.iter().rev().find(|bound| per_cent >= **bound).copied().unwrap_or(0)
}

/// Two significant bits: what is worth telling.
fn rough(delay: u32) -> u32 {
    let drop = (u32::BITS - delay.leading_zeros()).saturating_sub(2);
    delay >> drop << drop
}

impl Cost {
    /// What is told now.
    pub fn told(&self) -> u32 {
        self.told_delay.saturating_add(self.told_loss.saturating_mul(A_PER_CENT))
    }

    /// Loss as it was told, per cent.
    pub fn loss(&self) -> u32 {
        self.told_loss
    }

    /// Time passed: to be called a few times a second or less. Returns whether what is told changed.
    pub fn observe(&mut self, arrivals: Arrivals, quality: Quality, now: Instant) -> bool {
        let before = self.told();
        self.observe_loss(arrivals, now);
        self.observe_delay(quality, now);
        before != self.told()
    }

    fn observe_loss(&mut self, arrivals: Arrivals, now: Instant) {
        if self.looked_at.is_some_and(|at| now - at < SLICE) {
            return;
        }
        if self.looked_at.is_some() && arrivals.epoch == self.last.epoch {
            let grown = |now: u64, before: u64| i64::try_from(now.saturating_sub(before)).unwrap_or(i64::MAX);
            let aside = arrivals.aside.saturating_sub(self.last.aside);
            let sent = grown(arrivals.sent, self.last.sent).saturating_sub(aside);
            let came = grown(arrivals.came, self.last.came);
            self.slices.push_back((sent, came));
            if self.slices.len() > SLICES {
                self.slices.pop_front();
            }
            self.evidence = (self.evidence.0.saturating_add(sent), self.evidence.1.saturating_add(came));
        }
        (self.last, self.looked_at) = (arrivals, Some(now));
        let sum = self
            .slices
            .iter()
            .fold((0_i64, 0_i64), |(s, c), (sent, came)| (s.saturating_add(*sent), c.saturating_add(*came)));
        let seen = class(sum);
        let loss = seen.min(std::mem::replace(&mut self.last_loss, seen));
        let certain = self.evidence.0 >= CERTAIN && now - self.evidence_since >= BETTER_AFTER;
        if loss > self.told_loss {
            self.told_loss = loss;
        } else if certain {
            self.told_loss = self.told_loss.min(class(self.evidence));
        } else {
            return;
        }
        (self.evidence, self.evidence_since) = ((0, 0), now);
    }

    fn observe_delay(&mut self, quality: Quality, now: Instant) {
        if quality.rtt_us == 0 {
            return;
        }
        let delay = quality.rtt_us.saturating_add(quality.jitter_us.saturating_mul(2));
        let (low, high) = (delay.min(self.told_delay), delay.max(self.told_delay));
        let moved = high - low > MOVED_LEAST && u64::from(high) * 2 > u64::from(low) * 3;
        if !moved {
            self.moved_since = None;
        } else if self.told_delay == 0 || now - *self.moved_since.get_or_insert(now) >= MOVED_AFTER {
            (self.told_delay, self.moved_since) = (rough(delay), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn quality(rtt_us: u32, jitter_us: u32) -> Quality {
        Quality { rtt_us, jitter_us, loss_out: 0.0, loss_in: 0.0 }
    }

    /// Feeds a stream of `pace` datagrams a second of which each `lost`-th is lost, from one time to another; when what was
    /// told changed.
    fn stream(cost: &mut Cost, arrivals: &mut Arrivals, (pace, lost): (u64, u64), from: u64, to: u64) -> Vec<u64> {
        let mut told = Vec::new();
        for ms in (from..to).step_by(250) {
            let sent = pace * 250 / 1000;
            arrivals.sent += sent;
            arrivals.came += sent;
            let so_far = |sent: u64| sent.checked_div(lost).unwrap_or(0);
            arrivals.came -= so_far(arrivals.sent) - so_far(arrivals.sent - sent);
            if cost.observe(*arrivals, quality(1000, 0), at(ms)) {
                told.push(ms);
            }
        }
        told
    }

    #[test]
    fn loss_of_5_per_cent_is_told_within_9_seconds_and_forgotten_half_a_minute_after_its_end() {
        for pace in [20, 100, 10_000] {
            let (mut cost, mut arrivals) = (Cost::default(), Arrivals { epoch: 1, ..Arrivals::default() });
            stream(&mut cost, &mut arrivals, (pace, 0), 0, 20_000);
            assert_eq!(cost.loss(), 0);
            stream(&mut cost, &mut arrivals, (pace, 20), 20_000, 29_000);
            assert!(cost.loss() >= 2, "{pace}: {}", cost.loss());
            let high = cost.told();
            let told = stream(&mut cost, &mut arrivals, (pace, 0), 29_000, 130_000);
            assert!(cost.loss() == 0 && cost.told() < high);
            assert!(told.iter().all(|ms| *ms < 32_000 || *ms >= 50_000), "{pace}: {told:?}");
        }
    }

    #[test]
    fn few_datagrams_say_nothing() {
        let (mut cost, mut arrivals) = (Cost::default(), Arrivals { epoch: 1, ..Arrivals::default() });
        stream(&mut cost, &mut arrivals, (4, 2), 0, 4000);
        assert_eq!(cost.loss(), 0);
    }

    #[test]
    fn a_path_that_was_left_is_not_taken_back_for_a_few_heartbeats() {
        let (mut cost, mut arrivals) = (Cost::default(), Arrivals { epoch: 1, ..Arrivals::default() });
        stream(&mut cost, &mut arrivals, (100, 20), 0, 20_000);
        assert!(cost.loss() >= 2);
        stream(&mut cost, &mut arrivals, (4, 40), 20_000, 200_000);
        assert!(cost.loss() >= 1, "it still loses, though seldom seen");
        stream(&mut cost, &mut arrivals, (4, 0), 200_000, 300_000);
        assert_eq!(cost.loss(), 0);
    }

    #[test]
    fn tests_that_nobody_expects_to_arrive_are_no_loss_though_their_count_comes_late() {
        let mut cost = Cost::default();
        let mut arrivals = Arrivals { epoch: 1, ..Arrivals::default() };
        for second in 0..60_u64 {
            // Eight tests a second, of which five are too big; the last heartbeat did not know of them yet.
            arrivals = Arrivals { sent: arrivals.sent + 18, came: arrivals.came + 13, ..arrivals };
            cost.observe(arrivals, quality(1000, 0), at(second * 1000));
            arrivals.aside += 5;
        }
        assert_eq!(cost.loss(), 0);
    }

    #[test]
    fn new_keys_are_no_loss() {
        let (mut cost, mut arrivals) = (Cost::default(), Arrivals { epoch: 1, ..Arrivals::default() });
        stream(&mut cost, &mut arrivals, (100, 0), 0, 10_000);
        let mut next = Arrivals { epoch: 2, sent: 50, came: 50, aside: 0 };
        let told = stream(&mut cost, &mut next, (100, 0), 10_000, 20_000);
        assert!(told.is_empty() && cost.loss() == 0);
    }

    #[test]
    fn delays_that_wander_within_noise_are_told_once() {
        let mut cost = Cost::default();
        let mut told = 0;
        for n in 0..2000_u32 {
            let noisy = 20_000 + (n * 7919) % 9000;
            told += u32::from(cost.observe(Arrivals::default(), quality(noisy, 1000), at(u64::from(n) * 250)));
        }
        assert_eq!(told, 1);
        for n in 2000..2100_u32 {
            told += u32::from(cost.observe(Arrivals::default(), quality(90_000, 1000), at(u64::from(n) * 250)));
        }
        assert_eq!((told, cost.told()), (2, 65_536));
    }

    #[test]
    fn on_a_local_line_nothing_is_told_but_that_it_is_near() {
        let mut cost = Cost::default();
        for n in 0..1000_u32 {
            cost.observe(Arrivals::default(), quality(100 + (n * 7919) % 1500, 40), at(u64::from(n) * 250));
        }
        assert_eq!(cost.told(), 0);
    }
}
