//! Which counters of an epoch were seen: a sliding window as in RFC 6479.
//!
//! Datagrams overtake each other (several queues, GRO, the network), so a counter may come late, but never twice. The
//! window is a ring of words that moves in whole words: no shifting, and at most the whole ring is cleared at a jump.
//! One window per epoch and direction; it is asked before opening, because that is cheap, and told after opening,
//! because only what is authentic may move it.
//!
//! ```text
//!  counters     ... | never again | WINDOW counters, one bit each | next ...
//!                                                           newest ^
//! ```

/// How far behind the newest a counter may come.
pub const WINDOW: u64 = BITS - 64;

const WORDS: usize = 256;
const BITS: u64 = WORDS as u64 * 64;

/// Counters of which it became known whether they arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// So many did.
    pub arrived: u64,
    /// So many did not.
    pub lost: u64,
}

/// The window. 2 KiB.
#[derive(Debug, Clone)]
pub struct Window {
    /// One above the newest counter accepted; 0 before the first.
    next: u64,
    accepted: u64,
    /// `next` when it was last judged, and what was found then below the mark of that time.
    mark: u64,
    judged: Arrivals,
    words: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Window {
        Window::new()
    }
}

impl Window {
    /// Nothing was seen.
    pub const fn new() -> Window {
        Window { next: 0, accepted: 0, mark: 0, judged: Arrivals { arrived: 0, lost: 0 }, words: [0; WORDS] }
    }

    /// Whether `accept` would say yes now. Changes nothing: ask before opening.
    #[inline]
    pub fn may_accept(&self, counter: u64) -> bool {
        if counter == u64::MAX {
            return false; // Never sent, and one more would not fit.
        }
        if counter >= self.next {
            return true;
        }
        self.next - counter <= WINDOW && self.words.get(slot(counter)).is_some_and(|word| word & bit(counter) == 0)
    }

    /// Marks `counter` as seen; false if it was seen before or is too old. Only for what has been opened.
    #[inline]
    pub fn accept(&mut self, counter: u64) -> bool {
        if !self.may_accept(counter) {
            return false;
        }
        if counter >= self.next {
            self.advance(counter);
        }
        if let Some(word) = self.words.get_mut(slot(counter)) {
            *word |= bit(counter);
        }
        self.accepted += 1;
        true
    }

    /// Which of the counters below the newest of the last call arrived, that were not counted by then. What has left the window
    /// since is counted at once. So who calls it every now and then gives those that are overtaken that much time; who comes later
    /// still was counted as lost, and one is counted less the next time.
    pub fn judge(&mut self) -> Arrivals {
        let mark = self.mark.max(self.next.saturating_sub(WINDOW));
        let arrived = self.accepted.saturating_sub(self.count_from(mark));
        let all = Arrivals { arrived, lost: mark.saturating_sub(arrived) };
        let before = self.judged;
        self.judged = Arrivals { arrived: all.arrived, lost: all.lost.max(before.lost) };
        self.mark = self.next;
        Arrivals { arrived: all.arrived.saturating_sub(before.arrived), lost: all.lost.saturating_sub(before.lost) }
    }

    /// Counters seen from `first` on, which must be within the window.
    fn count_from(&self, first: u64) -> u64 {
        let word = |block: u64| self.words.get(slot(block * 64)).copied().unwrap_or(0);
        let partial = u64::from((word(first / 64) >> (first % 64)).count_ones());
        let blocks = (first / 64 + 1)..self.next.div_ceil(64);
        if first >= self.next {
            0
        } else {
            partial + blocks.map(|block| u64::from(word(block).count_ones())).sum::<u64>()
        }
    }

    /// Makes `counter` the newest: the words between the old newest and it lose what they held a round ago.
    fn advance(&mut self, counter: u64) {
        let first = self.next.div_ceil(64);
        let last = counter / 64;
        if last.saturating_sub(first) >= WORDS as u64 {
            self.words = [0; WORDS];
        } else {
            for block in first..=last {
                if let Some(word) = self.words.get_mut(slot(block * 64)) {
                    *word = 0;
                }
            }
        }
        self.next = counter + 1;
    }
}

/// The word of a counter: the low byte of its block's number, as there are 256 words.
#[inline]
fn slot(counter: u64) -> usize {
    let [low, ..] = (counter / 64).to_le_bytes();
    usize::from(low)
}

/// Its bit there.
#[inline]
const fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn takes_each_counter_once_from_zero_on() {
        let mut window = Window::new();
        for counter in 0..4 * BITS {
            assert!(window.may_accept(counter) && window.accept(counter), "{counter}");
            assert!(!window.may_accept(counter) && !window.accept(counter), "{counter} again");
        }
    }

    #[test]
    fn takes_late_counters_within_the_window_and_none_behind_it() {
        let mut window = Window::new();
        let newest = 1_000_000;
        assert!(window.accept(newest));
        assert!(window.accept(newest + 1 - WINDOW), "the oldest that fits");
        assert!(!window.accept(newest - WINDOW), "one older");
        const { assert!(WINDOW >= 8192) };
    }

    #[test]
    fn forgets_nothing_inside_the_window_when_it_moves() {
        let mut window = Window::new();
        for counter in (0..WINDOW).filter(|counter| counter % 3 == 0) {
            assert!(window.accept(counter));
        }
        assert!(window.accept(WINDOW - 1 + 64 * 10));
        for counter in 64 * 10..WINDOW {
            assert_eq!(window.accept(counter), counter % 3 != 0, "{counter}");
        }
    }

    #[test]
    fn a_jump_of_more_than_the_ring_clears_it() {
        let mut window = Window::new();
        for counter in 0..BITS {
            window.accept(counter);
        }
        assert!(window.accept(u64::MAX - 1));
        assert!(window.accept(u64::MAX - 2) && !window.accept(u64::MAX - 2));
        assert!(!window.accept(u64::MAX), "the last number is never sent");
        assert!(!window.accept(BITS));
    }

    #[test]
    fn asking_changes_nothing() {
        let mut window = Window::new();
        assert!(window.may_accept(1 << 40));
        assert!(window.accept(0), "the window did not move");
    }

    #[test]
    fn gaps_are_counted_once_they_had_time_to_fill() {
        let mut window = Window::new();
        for counter in [0, 1, 2, 5, 4, 9] {
            window.accept(counter);
        }
        assert_eq!(window.judge(), Arrivals::default(), "nothing is late yet");
        window.accept(7);
        window.accept(10);
        assert_eq!(window.judge(), Arrivals { arrived: 7, lost: 3 }, "3, 6 and 8");
        assert_eq!(window.judge(), Arrivals { arrived: 1, lost: 0 });
        window.accept(3);
        window.accept(12);
        window.judge();
        assert_eq!(window.judge(), Arrivals { arrived: 1, lost: 0 }, "11 is lost, but 3 was not");
    }

    #[test]
    fn a_burst_larger_than_the_window_is_counted_as_far_as_it_left_it() {
        let mut window = Window::new();
        for counter in (0..10 * BITS).filter(|counter| counter % 20 != 7) {
            window.accept(counter);
        }
        let found = window.judge();
        let total = found.arrived + found.lost;
        assert_eq!(total, 10 * BITS - WINDOW);
        assert_eq!(found.lost, total / 20);
    }

    proptest! {
        #[test]
        fn what_is_judged_is_all_that_was_sent_in_the_end(
            lost in prop::collection::vec(prop::bool::weighted(0.1), 1..3000), every in 1_usize..400, swaps in 0_usize..30,
        ) {
            let mut order: Vec<u64> = (0..lost.len() as u64).filter(|n| !lost[*n as usize]).collect();
            for n in 0..order.len() {
                let with = (n + swaps * (n % 7) / 7).min(order.len() - 1);
                order.swap(n, with);
            }
            let (mut window, mut sum) = (Window::new(), Arrivals::default());
            let mut add = |found: Arrivals| (sum.arrived, sum.lost) = (sum.arrived + found.arrived, sum.lost + found.lost);
            for (n, counter) in order.iter().enumerate() {
                prop_assert!(window.accept(*counter));
                if n % every == 0 {
                    add(window.judge());
                }
            }
            add(window.judge());
            add(window.judge());
            let newest = order.iter().max().map_or(0, |newest| newest + 1);
            prop_assert_eq!(sum.arrived, order.len() as u64);
            // Those that came very late were counted twice.
            prop_assert!(sum.lost >= newest - sum.arrived && sum.lost <= newest - sum.arrived + swaps as u64 * order.len() as u64);
            if swaps < 2 {
                prop_assert_eq!(sum.lost, newest - sum.arrived);
            }
        }

        #[test]
        fn agrees_with_a_set(
            steps in prop::collection::vec((prop_oneof![0u64..100, 0u64..5_000, 0u64..40_000], any::<bool>()), 1..400),
            base in prop_oneof![Just(0), Just(1 << 50)],
        ) {
            let (mut window, mut seen, mut next) = (Window::new(), HashSet::new(), 0u64);
            let mut at = base;
            for (distance, forward) in steps {
                at = if forward { at + distance } else { at.saturating_sub(distance) };
                let fits = at >= next || next - at <= WINDOW;
                let expected = fits && !seen.contains(&at);
                prop_assert_eq!(window.may_accept(at), expected);
                prop_assert_eq!(window.accept(at), expected);
                if expected {
                    seen.insert(at);
                    next = next.max(at + 1);
                }
            }
        }

        #[test]
        fn agrees_with_a_set_where_counters_are_close(offsets in prop::collection::vec(0u64..200, 1..400)) {
            let (mut window, mut seen) = (Window::new(), HashSet::new());
            for counter in offsets {
                prop_assert_eq!(window.accept(counter), seen.insert(counter));
            }
        }
    }
}
