//! Which floods were here: each is taken once, by whichever tree it comes first.
//!
//! Owns a window over the numbers of each origin's floods, as a path has one over counters (`crypto::replay`). From whom a flood is
//! taken at all is `switch`'s; who has passed that check alone moves a window, and only that of the origin that it names.
//!
//! ```text
//!  numbers   another run | late: refused, up to LATE_MAX in a row | WINDOW numbers, one bit each | ahead: taken
//!                        ^ newest - ANOTHER_RUN                                           newest ^
//! ```
//!
//! An origin that is launched again begins at random, so what it floods lies ahead, or so far behind that it is of another run: then the
//! window begins anew with it. Nobody silences an origin for long by a number far ahead in its name: when LATE_MAX of its floods in a
//! row were late, the window begins anew too. That costs what it remembered, so a copy may come out twice, once.
//!
//! A window is 2 KiB and made with the first flood, for the peers that there are and for [`STRANGERS`] more, of whom the
//! topology has not told yet or any more. Floods of others beyond these are taken as often as they come.

use crate::crypto::replay::{WINDOW, Window};
use crate::types::ShortId;
use dashmap::DashMap;
use foldhash::fast::RandomState;

/// Windows for origins that are not among the peers.
const STRANGERS: usize = 64;
/// A number so far behind the newest is of another run of its origin: nothing is under way for so long.
const ANOTHER_RUN: u64 = 1 << 32;
/// After so many late ones in a row the newest number is no measure any more.
const LATE_MAX: u32 = 64;

/// See the head of this file. Shared by the threads: a flood takes the lock of a shard.
#[derive(Default)]
pub(super) struct Once {
    origins: DashMap<ShortId, Box<Seen>, RandomState>,
}

/// The floods of one origin.
#[derive(Default)]
struct Seen {
    window: Window,
    newest: u64,
    late: u32,
    /// None came since the last look.
    idle: bool,
}

impl Once {
    /// Whether this flood is taken: it is the first time that it comes. `known`: the origin is one of so many `peers`.
    pub(super) fn accept(&self, (origin, number): (ShortId, u64), known: bool, peers: usize) -> bool {
        if let Some(mut seen) = self.origins.get_mut(&origin) {
            return seen.accept(number);
        }
        if !known && self.origins.len() >= peers.saturating_add(STRANGERS) {
            return true;
        }
        self.origins.entry(origin).or_default().accept(number)
    }

    /// Forgets who is not known and has not flooded anything since the last call.
    pub(super) fn expire(&self, is_known: impl Fn(ShortId) -> bool) {
        self.origins.retain(|origin, seen| is_known(*origin) || !std::mem::replace(&mut seen.idle, true));
    }
}

impl Seen {
    fn accept(&mut self, number: u64) -> bool {
        self.idle = false;
        if self.window.accept(number) {
            self.newest = self.newest.max(number);
            self.late = 0;
            return true;
        }
        let behind = self.newest.saturating_sub(number);
        if behind < WINDOW {
            return false;
        }
        self.late += 1;
        if behind <= ANOTHER_RUN && self.late < LATE_MAX {
            return false;
        }
        *self = Seen { newest: number, ..Seen::default() };
        self.window.accept(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const START: u64 = 1 << 40;

    fn short(n: u16) -> ShortId {
        ShortId(n)
    }

    #[test]
    fn a_flood_is_taken_once_from_whichever_side_it_comes_first() {
        let once = Once::default();
        for number in START..START + 100_000 {
            assert!(once.accept((short(1), number), true, 1), "{number}");
            assert!(!once.accept((short(1), number), true, 1), "{number} again");
        }
        assert!(once.accept((short(2), START), true, 2), "numbers are of one origin");
    }

    #[test]
    fn floods_that_were_overtaken_by_thousands_are_taken() {
        let mut seen = Seen::default();
        for first in (0..100_000).step_by(8000).map(|n| START + n) {
            assert!((first..first + 8000).rev().all(|number| seen.accept(number)));
            assert!((first..first + 8000).all(|number| !seen.accept(number)));
        }
    }

    #[test]
    fn an_origin_that_is_launched_again_is_heard_from_its_first_flood_on() {
        for start in [0, 1, START - (1 << 33), START + (1 << 20), START << 20, u64::MAX >> 1] {
            let mut seen = Seen::default();
            assert!((START..START + 1000).all(|number| seen.accept(number)));
            for number in start..start + 1000 {
                assert!(seen.accept(number), "{number} of the run from {start}");
                assert!(!seen.accept(number), "{number} again");
            }
        }
    }

    #[test]
    fn a_number_far_ahead_silences_its_origin_for_a_moment_and_nobody_else() {
        let once = Once::default();
        for ahead in [WINDOW, 1 << 20, ANOTHER_RUN, 1 << 50, (u64::MAX >> 1) - 2 * START] {
            let origin = short(u16::try_from(ahead % 1000).unwrap());
            let at = |number| once.accept((origin, number), true, 10);
            assert!((START..START + 100).all(at) && at(START + 100 + ahead));
            let taken = (START + 100..START + 1100).filter(|number| at(*number)).count();
            assert!(taken >= 1000 - LATE_MAX as usize, "{taken} after {ahead}");
        }
        assert!(once.accept((short(7), START), true, 10));
        assert!(!Seen::default().accept(u64::MAX), "nobody counts so far");
    }

    #[test]
    fn late_ones_among_others_are_refused() {
        let mut seen = Seen::default();
        assert!((START..START + 3 * WINDOW).all(|number| seen.accept(number)));
        for n in 0..1000 {
            assert!(!seen.accept(START + n), "it was here");
            assert!(seen.accept(START + 3 * WINDOW + n));
        }
    }

    #[test]
    fn strangers_have_few_windows_and_peers_always_have_one() {
        let (once, peers) = (Once::default(), 3);
        for n in 0..1000 {
            assert!(once.accept((short(n), START), false, peers));
        }
        assert_eq!(once.origins.len(), peers + STRANGERS);
        assert!(once.accept((short(999), START), false, peers), "beyond that a copy is not known");
        assert!(!once.accept((short(1), START), false, peers));
        for n in 2000..2000 + 3 {
            assert!(once.accept((short(n), START), true, peers) && !once.accept((short(n), START), true, peers));
        }
        let is_known = |origin: ShortId| origin.0 >= 2000;
        once.expire(is_known);
        assert!(!once.accept((short(1), START), false, peers), "who has just flooded is remembered");
        once.expire(is_known);
        assert_eq!(once.origins.len(), 4);
        once.expire(is_known);
        assert_eq!(once.origins.len(), 3);
    }

    proptest! {
        /// Two ways, each in some order of its own, neither of which is more than a few thousand behind the other.
        #[test]
        fn of_what_comes_by_two_ways_each_is_taken_once(
            start in 0..u64::MAX / 2, count in 1..6000u64, behind in 0..6000usize, swaps in prop::collection::vec((any::<prop::sample::Index>(), 0..400usize), 0..200),
            lost in prop::collection::hash_set(0..6000u64, 0..300),
        ) {
            let all: Vec<u64> = (start..start + count).collect();
            let mut one = all.clone();
            for (index, far) in swaps {
                let at = index.index(one.len());
                let with = (at + far).min(one.len() - 1);
                one.swap(at, with);
            }
            one.retain(|number| !lost.contains(&(number - start)));
            let mut both: Vec<(usize, u64)> = one.iter().copied().enumerate().collect();
            both.extend(all.iter().enumerate().map(|(n, number)| (n + behind, *number)));
            both.sort_by_key(|(at, _)| *at);
            let (mut seen, mut taken) = (Seen::default(), HashSet::new());
            for (_, number) in both {
                prop_assert_eq!(seen.accept(number), taken.insert(number));
            }
            prop_assert_eq!(taken.len(), all.len());
        }

        /// Whatever is said in its name: from an origin that counts on, all but a few are heard.
        #[test]
        fn an_origin_is_heard_again_after_any_lies(lies in prop::collection::vec(any::<u64>(), 0..50), start in 0..u64::MAX / 2) {
            let mut seen = Seen::default();
            for lie in lies {
                seen.accept(lie);
            }
            // Some may have been said before, at most as many as there were lies.
            let heard = (start..start + 1000).filter(|number| seen.accept(*number)).count();
            prop_assert!(heard >= 1000 - 64 - 50, "{}", heard);
        }
    }
}
