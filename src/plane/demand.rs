//! Which peers we send to by way of others: control is told, so that it may look for a direct path.
//!
//! One slot for many peers, each an atomic that holds when it was last told: a relaxed load a frame, and at most one event
//! in 250 ms for each slot, however many frames pass. Two peers of one slot wait for each other, which is a delay of a
//! path that nobody is owed.

use crate::types::{Instant, ShortId};
use std::sync::atomic::{AtomicU32, Ordering};

/// Between two events of one slot, milliseconds.
const SPACING_MS: u32 = 250;
const SLOTS: usize = 1024;

/// See the head of this file.
pub struct Demand {
    /// Milliseconds, 0: never.
    told: Box<[AtomicU32]>,
}

impl Default for Demand {
    fn default() -> Demand {
        Demand { told: (0..SLOTS).map(|_| AtomicU32::new(0)).collect() }
    }
}

impl Demand {
    /// A frame for `to` goes to somebody who hands it on. Whether control is to be told now.
    #[inline]
    pub fn is_due(&self, to: ShortId, now: Instant) -> bool {
        let Some(slot) = self.told.get(usize::from(to.0) % SLOTS) else { return false };
        // Wraps after 49 days, which costs one event.
        let [.., a, b, c, d] = now.millis().to_be_bytes();
        let now = u32::from_be_bytes([a, b, c, d]).max(1);
        let told = slot.load(Ordering::Relaxed);
        if told != 0 && now.wrapping_sub(told) < SPACING_MS {
            return false;
        }
        // Of several threads one tells.
        slot.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_four_times_a_second_at_most() {
        let demand = Demand::default();
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let told: Vec<u64> = (0..1000).filter(|ms| demand.is_due(ShortId(7), at(*ms))).collect();
        assert_eq!(told, [0, 251, 501, 751], "the first at once");
        assert!(demand.is_due(ShortId(8), at(800)), "another peer does not wait for it");
    }
}
