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
        Window { next: 0, words: [0; WORDS] }
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
        true
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

/// The word of a counter.
#[inline]
const fn slot(counter: u64) -> usize {
    (counter / 64 % WORDS as u64) as usize
}

/// Its bit there.
#[inline]
const fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}
