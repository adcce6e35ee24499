//! The MTU of attachments: fixed by the user, or what the narrowest path of the mesh takes whole.
//!
//! Owns the choice and its hysteresis; `paths` measures, the records carry what each peer measured, `jobs` tells the interfaces.
//! Every peer sees the same records and so comes to the same width, without talking about it. Only settled measures are
//! published: what a path takes for a second while it is searched narrows nobody. Nothing is lost meanwhile: frames that do not
//! fit a path are cut, and their senders told.
//!
//! ```text
//! narrowest path of all records | less headers, at least 576 | lasts 2 s: narrower, or the first that is known | in use
//!                                                            | lasts 30 s: wider                               |
//! ```
//!
//! On IPv6 networks it is at least 1280 (`Network::usable_mtu`). Without any path the last width stays.

use super::Node;
use super::border::Level;
use crate::mesh::probe::MOST_MTU;
use crate::types::{Instant, Mtu, PeerName};
use crate::wire::datagram::{INNER_LEN, OUTER_LEN, TAG_LEN};
use crate::wire::frame::HEADER_LEN;
use std::time::Duration;

/// Before a path is known: a sealed frame fits an underlay of 1500 bytes, over IPv6 too.
const START: u16 = 1500 - 40 - 8 - OVERHEAD;
/// Between a UDP payload and what a sealed packet in it may have: 16 + 8 + 16 + 14 bytes.
const OVERHEAD: u16 = 54;
const _: () = assert!(OVERHEAD as usize == OUTER_LEN + INNER_LEN + TAG_LEN + HEADER_LEN && START == 1398);
/// What every host takes over IPv4 (RFC 791).
const LEAST: u16 = 576;

/// How long another width has to last before it is used.
const NARROWER_AFTER: Duration = Duration::from_secs(2);
const WIDER_AFTER: Duration = Duration::from_secs(30);

/// A path that is as narrow as any of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Narrowest {
    /// Who measured it, and to whom it leads.
    pub ends: (PeerName, PeerName),
    /// UDP payload, bytes.
    pub mtu: u16,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Width {
    in_use: u16,
    fixed: bool,
    /// As the records have it.
    narrowest: Option<Narrowest>,
    /// The width in use was measured, not just begun with.
    measured: bool,
    /// Another one, and since when it would be right.
    wanted: Option<(u16, Instant)>,
}

impl Width {
    /// `before`: what was measured in the last run. What is attached still has that width, so it counts until it is measured
    /// otherwise.
    pub fn new(mtu: Mtu, before: Option<u16>) -> Width {
        let (in_use, fixed) = match mtu {
            Mtu::Auto => (before.map_or(START, |before| before.clamp(LEAST, MOST_MTU)), false),
            Mtu::Fixed(bytes) => (bytes, true),
        };
        Width { in_use, fixed, narrowest: None, measured: before.is_some(), wanted: None }
    }

    /// What the next run is to begin with.
    pub fn remembered(&self) -> Option<u16> {
        (self.measured && !self.fixed).then_some(self.in_use)
    }

    /// MTU of attachments, bytes.
    pub fn in_use(&self) -> u16 {
        self.in_use
    }

    pub fn is_fixed(&self) -> bool {
        self.fixed
    }

    pub fn narrowest(&self) -> Option<Narrowest> {
        self.narrowest
    }

    /// The records say this now.
    fn learn(&mut self, narrowest: Option<Narrowest>, sealed: bool, now: Instant) {
        self.narrowest = narrowest;
        let width = narrowest.filter(|_| !self.fixed).map(|path| width(path.mtu, sealed));
        let wanted = width.filter(|width| *width != self.in_use || !self.measured);
        if wanted != self.wanted.map(|(width, _)| width) {
            self.wanted = wanted.map(|width| (width, now));
        }
    }

    /// When `take` has something.
    fn deadline(&self) -> Option<Instant> {
        let (width, since) = self.wanted?;
        let soon = width < self.in_use || !self.measured;
        Some(since + if soon { NARROWER_AFTER } else { WIDER_AFTER })
    }

    /// Changes over to what has lasted long enough. Returns the width before, if it was another one.
    fn take(&mut self, now: Instant) -> Option<u16> {
        let (width, _) = self.wanted.filter(|_| self.deadline().is_some_and(|at| at <= now))?;
        (self.wanted, self.measured) = (None, true);
        let before = std::mem::replace(&mut self.in_use, width);
        (before != width).then_some(before)
    }
}

/// What a path that takes `mtu` bytes of UDP payload leaves for a packet.
fn width(mtu: u16, sealed: bool) -> u16 {
    let tag = if sealed { 0 } else { 16 };
    mtu.min(MOST_MTU).saturating_sub(OVERHEAD - tag).max(LEAST)
}

impl Node {
    /// The topology changed: looks for its narrowest path.
    pub(super) fn weigh_paths(&mut self) {
        let here = |name: PeerName| name == self.me || self.published.linked.contains(name);
        let records = self.peers.iter().filter(|(name, _)| here(*name));
        let paths = records.flat_map(|(name, record)| {
            let measured = record.links.iter().filter(|link| link.established && link.mtu != 0);
            measured.map(move |link| Narrowest { ends: (name, link.peer), mtu: link.mtu })
        });
        // Everybody is to name the same one.
        let narrowest = paths.min_by_key(|path| (path.mtu, path.ends.0.min(path.ends.1), path.ends));
        self.width.learn(narrowest, self.config.psk.is_some(), self.now);
    }

    /// When `tend_width` has something to do.
    pub(super) fn width_deadline(&self) -> Option<Instant> {
        self.width.deadline()
    }

    /// Tells the interfaces of a width that has lasted.
    pub(super) fn tend_width(&mut self) {
        let measured = self.width.remembered();
        let before = self.width.take(self.now);
        self.unsaved |= measured != self.width.remembered();
        let Some(before) = before else { return };
        let why = self.width.narrowest.map_or(String::new(), |Narrowest { ends: (one, other), mtu }| {
            format!(": the path between {} and {} takes {mtu} bytes", self.named(one), self.named(other))
        });
        self.log(Level::Info, format!("MTU of attachments is {} instead of {before}{why}", self.width.in_use));
        self.resize();
        self.judge_carriers();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PeerName;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn path(mtu: u16) -> Option<Narrowest> {
        let name: PeerName = "02:00:00:00:00:01".parse().unwrap();
        Some(Narrowest { ends: (name, name), mtu })
    }

    #[test]
    fn leaves_room_for_headers_and_never_too_little() {
        assert_eq!([width(1472, true), width(1472, false), width(1452, true)], [1418, 1434, 1398]);
        assert_eq!([width(672, true), width(300, true), width(0, true), width(65_535, true)], [618, 576, 576, 8946]);
    }

    #[test]
    fn the_first_path_counts_after_a_moment_and_a_wider_one_after_half_a_minute() {
        let mut width = Width::new(Mtu::Auto, None);
        assert_eq!((width.in_use(), width.deadline()), (1398, None));
        width.learn(path(1472), true, at(1000));
        assert_eq!((width.take(at(2999)), width.deadline()), (None, Some(at(3000))));
        assert_eq!((width.take(at(3000)), width.in_use()), (Some(1398), 1418));
        width.learn(path(8972), true, at(10_000));
        assert_eq!(width.take(at(39_999)), None);
        assert_eq!((width.take(at(40_000)), width.in_use()), (Some(1418), 8918));
        width.learn(path(1272), true, at(50_000));
        assert_eq!((width.take(at(52_000)), width.in_use()), (Some(8918), 1218));
    }

    #[test]
    fn what_does_not_last_changes_nothing() {
        let mut width = Width::new(Mtu::Auto, None);
        width.learn(path(1472), true, at(0));
        width.take(at(2000));
        for second in 3..100 {
            width.learn(path(if second % 2 == 0 { 1472 } else { 1000 }), true, at(second * 1000));
            assert_eq!(width.take(at(second * 1000 + 999)), None);
        }
        width.learn(path(1472), true, at(100_000));
        width.learn(None, true, at(101_000));
        assert_eq!((width.deadline(), width.in_use()), (None, 1418), "alone, it stays as it is");
    }

    #[test]
    fn told_again_of_the_same_width_it_goes_on_waiting() {
        let mut width = Width::new(Mtu::Auto, None);
        width.learn(path(1472), true, at(0));
        width.learn(path(1472), true, at(1500));
        assert_eq!(width.take(at(2000)), Some(1398));
        let mut same = Width::new(Mtu::Auto, None);
        same.learn(path(1452), true, at(0));
        assert_eq!(same.take(at(2000)), None, "what it began with was right");
        same.learn(path(1472), true, at(3000));
        assert_eq!(same.deadline(), Some(at(33_000)));
    }

    #[test]
    fn what_was_measured_in_the_last_run_counts_until_it_is_measured_otherwise() {
        let mut first = Width::new(Mtu::Auto, None);
        assert_eq!(first.remembered(), None);
        first.learn(path(1472), true, at(0));
        first.take(at(2000));
        let mut second = Width::new(Mtu::Auto, first.remembered());
        assert_eq!((second.in_use(), second.remembered()), (1418, Some(1418)));
        second.learn(path(1452), true, at(0));
        assert_eq!((second.take(at(1999)), second.take(at(2000)), second.in_use()), (None, Some(1418), 1398));
        assert_eq!(Width::new(Mtu::Auto, Some(7)).in_use(), 576, "a state file can say anything");
        assert_eq!(Width::new(Mtu::Fixed(1300), Some(1418)).in_use(), 1300);
    }

    #[test]
    fn a_fixed_width_follows_nothing() {
        let mut width = Width::new(Mtu::Fixed(1300), None);
        width.learn(path(672), true, at(0));
        assert_eq!((width.deadline(), width.take(at(100_000)), width.in_use()), (None, None, 1300));
    }
}
