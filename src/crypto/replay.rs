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

/// The window. 2 KiB.
#[derive(Debug, Clone)]
pub struct Window {
    /// One above the newest counter accepted; 0 before the first.
    next: u64,
    accepted: u64,
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
        Window { next: 0, accepted: 0, words: [0; WORDS] }
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

    /// Counters up to the newest that was accepted, and how many of them were: what lacks is lost or still on its way.
    pub fn tally(&self) -> (u64, u64) {
        (self.next, self.accepted)
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

    proptest! {
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
