//! MACs that control was told of because the kernel could carry their frames.
//!
//! Owns a fixed table that remembers them loosely: each MAC has one place, and the last one to be told holds it. So every frame
//! costs one load, nothing grows, and a place is written at most once a second: what control is told is bounded. A MAC is told
//! again after a while, because what it was told may have been lost, or failed.
//!
//! ```text
//! place of (network, MAC) -> 48 bits of its hash, 16 bits of the second in which it was told; 0: nobody
//! ```

use crate::types::{Instant, Mac, NetId};
use std::sync::atomic::{AtomicU64, Ordering};

/// MACs that are remembered, if they do not share a place.
const PLACES: usize = 4096;
/// Seconds after which a MAC is told again, while frames for it still come.
const AGAIN: u16 = 10;

/// See the head of this file.
pub(super) struct Offers(Box<[AtomicU64]>);

impl Default for Offers {
    fn default() -> Offers {
        Offers((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Offers {
    /// Whether control is to be told of a frame for `mac` now.
    #[inline]
    pub fn raise(&self, network: NetId, mac: Mac, now: Instant) -> bool {
        let (place, hash) = self.place(network, mac);
        let Some(place) = place else { return false };
        let held = place.load(Ordering::Relaxed);
        let second = u64::from(now.seconds()) & 0xffff;
        let age = second.wrapping_sub(held) & 0xffff;
        let waits = if held & !0xffff == hash { age < u64::from(AGAIN) } else { age < 1 };
        if held != 0 && waits {
            return false;
        }
        // Of threads that come at once one tells.
        place.compare_exchange(held, hash | second, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether control was told of it, as far as that is remembered.
    pub fn holds(&self, network: NetId, mac: Mac) -> bool {
        let (place, hash) = self.place(network, mac);
        place.is_some_and(|place| place.load(Ordering::Relaxed) & !0xffff == hash)
    }

    /// The next frame for `mac` is told of.
    pub fn forget(&self, network: NetId, mac: Mac) {
        let (place, hash) = self.place(network, mac);
        if let Some(place) = place.filter(|place| place.load(Ordering::Relaxed) & !0xffff == hash) {
            place.store(0, Ordering::Relaxed);
        }
    }

    /// Its place, and its hash, which is not 0, in the upper 48 bits.
    fn place(&self, network: NetId, mac: Mac) -> (Option<&AtomicU64>, u64) {
        let [a, b, c, d, e, f] = mac.0;
        let word = u64::from_be_bytes([0, 0, a, b, c, d, e, f]) ^ u64::from(network.value()) << 40;
        // An odd number without pattern; the upper bits of a product depend on all of both.
        let mixed = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let place = usize::try_from(mixed & 0xfff).unwrap_or(0) % PLACES;
        (self.0.get(place), (mixed | 1 << 63) & !0xffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::testing::net;
    use std::time::Duration;

    fn at(s: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(s)
    }

    fn mac(n: u32) -> Mac {
        let [a, b, c, d] = n.to_be_bytes();
        Mac([2, 0, a, b, c, d])
    }

    #[test]
    fn a_mac_is_told_once_and_again_after_a_while() {
        let offers = Offers::default();
        let told: Vec<u64> = (0..25).filter(|s| offers.raise(net(1), mac(7), at(*s))).collect();
        assert_eq!(told, [0, 10, 20]);
        assert!(offers.holds(net(1), mac(7)) && !offers.holds(net(2), mac(7)) && !offers.holds(net(1), mac(8)));
        offers.forget(net(1), mac(7));
        assert!(!offers.holds(net(1), mac(7)) && offers.raise(net(1), mac(7), at(25)));
    }

    #[test]
    fn many_macs_are_told_and_those_that_share_a_place_no_more_than_once_a_second() {
        let offers = Offers::default();
        let told = |s: u64| (0..100_000).filter(|n| offers.raise(net(1), mac(*n), at(s))).count();
        let first = told(0);
        assert!(first > PLACES * 9 / 10 && first <= PLACES, "{first}");
        let (again, later) = (told(0), told(1));
        assert!(again == 0 && later <= PLACES && later > PLACES * 9 / 10, "{later}");
    }

    #[test]
    fn a_few_macs_seldom_share_a_place() {
        let offers = Offers::default();
        assert!((0..64).filter(|n| offers.raise(net(1), mac(*n), at(0))).count() >= 62);
    }
}
