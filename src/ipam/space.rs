//! Positions, runs of positions and sets of runs: the arithmetic of address space.
//!
//! A position is an address as a `u128`. IPv4 lies at `::ffff:a.b.c.d` (RFC 4291 2.5.5.2), so that both families share
//! one line and nothing else here knows that there are two. A run is a closed interval of positions (closed, so that the
//! last address of IPv6 needs no 129th bit). Invariant of [`Runs`]: sorted, disjoint, never adjacent.
//!
//! Does not know who owns what (`ring`), nor which key holds an address (`holdings`).

use crate::types::Network;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// The position of an address.
pub fn position(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address at a position.
pub fn ip(position: u128) -> IpAddr {
    let v6 = Ipv6Addr::from(position);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

/// A closed interval of positions; `start <= last` always holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "(u128, u128)", into = "(u128, u128)")]
pub struct Run {
    /// First position.
    pub start: u128,
    /// Last position, included.
    pub last: u128,
}

impl Run {
    /// A single position.
    pub const fn one(position: u128) -> Run {
        Run { start: position, last: position }
    }

    /// The run from `start` to `last`; nothing if it would be empty.
    pub fn new(start: u128, last: u128) -> Option<Run> {
        (start <= last).then_some(Run { start, last })
    }

    /// Every position of a network.
    pub fn of(network: Network) -> Run {
        let cidr = network.cidr();
        Run { start: position(cidr.network()), last: position(cidr.broadcast()) }
    }

    /// What hosts of a network may have: without the network's own address (of IPv6: the subnet-router anycast address,
    /// RFC 4291 2.6.1) and without IPv4's broadcast address. Nothing below 4 addresses (/30, /126).
    pub fn usable(network: Network) -> Option<Run> {
        let cidr = network.cidr();
        if cidr.max_prefix_len().saturating_sub(cidr.prefix_len()) < 2 {
            return None;
        }
        let whole = Run::of(network);
        let last = if matches!(cidr, IpNet::V4(_)) { whole.last.saturating_sub(1) } else { whole.last };
        Run::new(whole.start.saturating_add(1), last)
    }

    /// How many positions, saturating at `u128::MAX`.
    pub fn len(self) -> u128 {
        (self.last - self.start).saturating_add(1)
    }

    /// Whether `position` lies inside.
    pub fn contains(self, position: u128) -> bool {
        self.start <= position && position <= self.last
    }

    /// What both have.
    pub fn meet(self, other: Run) -> Option<Run> {
        Run::new(self.start.max(other.start), self.last.min(other.last))
    }
}

impl TryFrom<(u128, u128)> for Run {
    type Error = &'static str;
    fn try_from((start, last): (u128, u128)) -> Result<Run, &'static str> {
        Run::new(start, last).ok_or("a run ends before it starts")
    }
}

impl From<Run> for (u128, u128) {
    fn from(run: Run) -> (u128, u128) {
        (run.start, run.last)
    }
}

/// A set of positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(BTreeMap<u128, u128>);

impl Runs {
    /// The runs, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = Run> {
        self.0.iter().map(|(start, last)| Run { start: *start, last: *last })
    }

    /// Whether `position` is in the set.
    pub fn contains(&self, position: u128) -> bool {
        self.0.range(..=position).next_back().is_some_and(|(_, last)| *last >= position)
    }

    /// The parts that lie in `window`, lowest first.
    pub fn clip(&self, window: Run) -> impl Iterator<Item = Run> {
        let from = self.0.range(..=window.start).next_back().map_or(window.start, |(start, _)| *start);
        self.0
            .range(from..=window.last)
            .filter_map(move |(start, last)| Run { start: *start, last: *last }.meet(window))
    }

    /// How many positions of `window` are in the set; stops counting beyond `enough`.
    pub fn count(&self, window: Run, enough: u128) -> u128 {
        let mut sum = 0u128;
        for run in self.clip(window) {
            sum = sum.saturating_add(run.len());
            if sum > enough {
                break;
            }
        }
        sum
    }

    /// Adds a run.
    pub fn insert(&mut self, run: Run) {
        let mut merged = run;
        let below = self.0.range(..=run.start).next_back().map(|(start, last)| Run { start: *start, last: *last });
        if let Some(below) = below.filter(|below| below.last.saturating_add(1) >= run.start) {
            merged = Run { start: below.start, last: below.last.max(run.last) };
        }
        let reach = merged.last.saturating_add(1);
        let swallowed: Vec<(u128, u128)> =
            self.0.range(merged.start..=reach).map(|(start, last)| (*start, *last)).collect();
        for (start, last) in swallowed {
            self.0.remove(&start);
            merged.last = merged.last.max(last);
        }
        self.0.insert(merged.start, merged.last);
    }

    /// Takes a run out.
    pub fn remove(&mut self, run: Run) {
        let from = self.0.range(..=run.start).next_back().map_or(run.start, |(start, _)| *start);
        let hit: Vec<(u128, u128)> = self.0.range(from..=run.last).map(|(start, last)| (*start, *last)).collect();
        for (start, last) in hit.into_iter().filter(|(_, last)| *last >= run.start) {
            self.0.remove(&start);
            if start < run.start {
                self.0.insert(start, run.start - 1);
            }
            if last > run.last {
                self.0.insert(run.last + 1, last);
            }
        }
    }

    /// The lowest position of `window` that is in the set and not in `except`.
    pub fn lowest(&self, window: Run, except: &BTreeSet<u128>) -> Option<u128> {
        for run in self.clip(window) {
            let mut at = run.start;
            for taken in except.range(run.start..=run.last) {
                if *taken > at {
                    break;
                }
                at = taken.saturating_add(1);
            }
            if at <= run.last {
                return Some(at);
            }
        }
        None
    }

    /// What to give to somebody who needs space in `window`: the biggest aligned power-of-two chunk that holds at most
    /// half (rounded up, so that a single position can be given) of what is in the set there; the highest of equals.
    pub fn donation(&self, window: Run) -> Option<Run> {
        let total = self.count(window, u128::MAX);
        let limit = total - total / 2;
        let mut best: Option<Run> = None;
        for run in self.clip(window) {
            let chunk = largest_chunk(run, limit);
            if chunk.is_some_and(|chunk| best.is_none_or(|best| chunk.len() >= best.len())) {
                best = chunk;
            }
        }
        best
    }
}

impl FromIterator<Run> for Runs {
    fn from_iter<I: IntoIterator<Item = Run>>(runs: I) -> Runs {
        let mut set = Runs::default();
        runs.into_iter().for_each(|run| set.insert(run));
        set
    }
}

/// The highest of the largest aligned power-of-two chunks within `run` of at most `limit` positions.
fn largest_chunk(run: Run, limit: u128) -> Option<Run> {
    let cap = run.len().min(limit);
    let mut bits = cap.checked_ilog2()?;
    loop {
        let size = 1u128 << bits;
        let end = run.last.saturating_add(1) & !(size - 1);
        let chunk = end.checked_sub(size).and_then(|start| Run::new(start, end - 1)).filter(|c| c.start >= run.start);
        if chunk.is_some() || bits == 0 {
            return chunk;
        }
        bits -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn both_families_survive_the_way_there_and_back() {
        for text in ["10.32.0.1", "255.255.255.255", "fd00::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(ip(position(address)), address);
        }
    }

    #[test]
    fn network_and_broadcast_addresses_are_not_usable() {
        let run = Run::usable(net("10.32.2.0/24")).unwrap();
        assert_eq!((ip(run.start).to_string(), ip(run.last).to_string()), ("10.32.2.1".into(), "10.32.2.254".into()));
        assert_eq!(Run::usable(net("10.32.2.4/30")).unwrap().len(), 2);
        assert_eq!(Run::usable(net("fd00::/126")).unwrap().len(), 3, "IPv6 has no broadcast address");
        assert!(Run::usable(net("10.32.2.4/31")).is_none() && Run::usable(net("fd00::/127")).is_none());
        assert_eq!(Run::of(net("::/0")).len(), u128::MAX, "saturates");
    }

    #[test]
    fn a_donation_is_aligned_and_at_most_half_rounded_up() {
        let free: Runs = [Run { start: 1, last: 100 }].into_iter().collect();
        let chunk = free.donation(Run { start: 0, last: 1000 }).unwrap();
        assert_eq!((chunk.len(), chunk.start % 32), (32, 0));
        let one: Runs = [Run::one(7)].into_iter().collect();
        assert_eq!(one.donation(Run { start: 0, last: 9 }), Some(Run::one(7)));
        assert_eq!(one.donation(Run { start: 8, last: 9 }), None);
        let end: Runs = [Run { start: u128::MAX - 7, last: u128::MAX }].into_iter().collect();
        assert!(end.donation(Run { start: 0, last: u128::MAX }).unwrap().len() <= 4);
    }

    proptest! {
        #[test]
        fn runs_are_the_set_that_a_bitmap_is(ops in prop::collection::vec((any::<bool>(), 0u128..64, 0u128..20), 0..40)) {
            let (mut runs, mut model) = (Runs::default(), BTreeSet::new());
            for (add, start, len) in ops {
                let run = Run { start, last: start + len };
                if add {
                    runs.insert(run);
                    model.extend(run.start..=run.last);
                } else {
                    runs.remove(run);
                    model.retain(|p| !run.contains(*p));
                }
                prop_assert_eq!(runs.iter().flat_map(|r| r.start..=r.last).collect::<BTreeSet<_>>(), model.clone());
                let parts: Vec<Run> = runs.iter().collect();
                prop_assert!(parts.windows(2).all(|w| w[0].last + 1 < w[1].start), "adjacent runs are one");
            }
            let window = Run { start: 10, last: 40 };
            let except: BTreeSet<u128> = [11, 12, 20].into();
            let lowest = model.iter().find(|p| window.contains(**p) && !except.contains(p)).copied();
            prop_assert_eq!(runs.lowest(window, &except), lowest);
            prop_assert_eq!(runs.count(window, u128::MAX), model.iter().filter(|p| window.contains(**p)).count() as u128);
        }
    }
}
