//! The search for a path's MTU: which sizes are sent when, and what follows from those that come back.
//!
//! Owns two numbers: the largest size that came through, and the smallest that did not. In between nothing is known. Sizes
//! are UDP payloads in bytes. Does not own what a probe looks like, nor how often the path loses anything: `Probe` does.
//!
//! ```text
//! sure (548)        proven              lost             most (9000)
//! |-----------------|===================|----------------|       a round sends some sizes of === at once, upwards,
//!                                                                 and a small datagram with each try
//! ```
//!
//! A round begins with the usual sizes, so that an ordinary underlay is known after one round trip; then it divides what is
//! left. A size that comes back proves all below it. A round is tried three times, more often where datagrams get lost anyway;
//! only tries count of which the small datagram came back: then it is the size that does not get through. The smallest
//! size that was lost bounds what is left.
//!
//! At the end the MTU is settled: one byte more is known to be lost. What is proven is sent again each minute, and each second
//! while data flows: a path that narrowed in silence is found out within two seconds, and searched from below. Whether it
//! widened is tried after 10 minutes or when a route changed; the other side's new address is a new path. Where there is another
//! way at once (`quick`) it is found out within one second, with less risk of error, and tried again after a minute.

use crate::types::Instant;
use smallvec::SmallVec;
use std::time::Duration;

/// What is taken to get through before anything is proven: the least that every IPv4 host takes (RFC 791), 576, less the
/// headers of IPv4 and UDP. IPv6 demands more.
pub const SURE_MTU: u16 = 576 - 28;
/// Largest that is looked for.
pub const MOST_MTU: u16 = 9000;
/// What is used where not even [`SURE_MTU`] gets through; not looked for below.
const LEAST_MTU: u16 = 256;

/// Where an underlay often ends, ascending: IPv4's least, 1006 of old serial lines, IPv6's least, tunnels of 1400 and 1420
/// bytes, clouds of 1460, Ethernet (under IPv6, IPv4, and one byte more, which tells that it is the limit), jumbo frames.
const USUAL: [u16; 11] = [SURE_MTU, 978, 1232, 1372, 1392, 1432, 1452, 1472, 1473, 8952, 8972];
/// Sizes of a round that divides what is left.
const CUTS: u16 = 4;
/// Sizes of a round at most: the usual ones, and the bounds.
const ROUND: usize = USUAL.len() + 2;

const WAIT: Duration = Duration::from_millis(250);
const QUICK_WAIT: Duration = Duration::from_millis(125);
const TRIES: u8 = 3;
const TRIES_MOST: u8 = 8;
/// A round ends when this is the chance that all tries of a size were lost by accident.
const ACCIDENT: f32 = 0.01;
const QUICK_ACCIDENT: f32 = 0.001;

const CHECK_IDLE: Duration = Duration::from_secs(60);
/// Less than the second between two heartbeats, so that it falls due at each.
const CHECK_BUSY: Duration = Duration::from_millis(750);
/// The same of half a second.
const QUICK_CHECK_BUSY: Duration = Duration::from_millis(400);
const SEARCH_AGAIN: Duration = Duration::from_secs(600);
/// The same where another way is used as long as this one is narrow.
const QUICK_SEARCH_AGAIN: Duration = Duration::from_secs(60);
/// A route that keeps changing does not keep the search going.
const GROW_SPACING: Duration = Duration::from_secs(5);

/// What the path's quality means for a round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Round-trip time.
    pub rtt: Duration,
    /// Share of questions that stay without an answer though they are small.
    pub lost: f32,
    /// There is another way at once, so what fails is to be found out soon.
    pub quick: bool,
}

impl Patience {
    fn wait(&self) -> Duration {
        let least = if self.quick { QUICK_WAIT } else { WAIT };
        least.max(2 * self.rtt)
    }

    /// Whether these many tries are enough.
    fn is_over(&self, tries: u8) -> bool {
        let by_accident = self.lost.clamp(0.0, 1.0).powi(tries.into());
        let accident = if self.quick { QUICK_ACCIDENT } else { ACCIDENT };
        tries >= TRIES && (tries >= TRIES_MOST || by_accident <= accident)
    }
}

/// Sizes that are on their way together.
#[derive(Debug)]
struct Round {
    /// Ascending.
    sizes: SmallVec<[u16; ROUND]>,
    /// The largest that came back; 0: none yet.
    passed: u16,
    /// How many of this try were sent, the small one included.
    sent: usize,
    at: Instant,
    /// The small one of this try came back.
    counts: bool,
    tries: u8,
}

impl Round {
    fn new(sizes: SmallVec<[u16; ROUND]>, now: Instant) -> Round {
        Round { sizes, passed: 0, sent: 0, at: now, counts: false, tries: 0 }
    }

    fn missing(&self) -> impl Iterator<Item = u16> {
        self.sizes.iter().copied().filter(|size| *size > self.passed)
    }

    /// The next size of this try. The small one, 0, comes last: what cuts the try short takes it away too.
    fn next(&mut self) -> Option<u16> {
        let size = self.missing().map(Some).chain([Some(0), None]).nth(self.sent).flatten();
        self.sent += usize::from(size.is_some());
        size
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Search {
    /// Came through; [`LEAST_MTU`]: nothing has.
    low: u16,
    /// Did not come through.
    high: u16,
    round: Option<Round>,
    /// Nothing is to be done before.
    next: Instant,
    checked_at: Instant,
    /// When `low` and `high` last met; nothing while they have not.
    found_at: Option<Instant>,
    settled: bool,
    /// `low` or `high` may have changed: they are tried with the next round.
    doubtful: bool,
    /// A route changed since the last search began.
    again: bool,
}

impl Search {
    pub fn new() -> Search {
        let (next, checked_at) = (Instant::ZERO, Instant::ZERO);
        let (low, high) = (LEAST_MTU, MOST_MTU + 1);
        let (settled, doubtful, again) = (false, false, false);
        Search { low, high, round: None, next, checked_at, found_at: None, settled, doubtful, again }
    }

    /// See [`super::Probe::mtu`].
    pub fn mtu(&self) -> u16 {
        let is_known = self.low > LEAST_MTU || self.high <= SURE_MTU;
        if is_known { self.low } else { 0 }
    }

    /// See [`super::Probe::is_settled`].
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// When `poll` may have something.
    pub fn deadline(&self) -> Instant {
        self.next
    }

    /// Looks for larger sizes, and checks what is proven, as soon as the last search is over for a moment.
    pub fn grow(&mut self, now: Instant) {
        self.again = true;
        if self.round.is_none() {
            self.next = self.next.min(self.rest(now));
        }
    }

    /// When there is something to do next, with nothing on its way and nothing unknown.
    fn rest(&self, now: Instant) -> Instant {
        let again = self.found_at.filter(|_| self.again).map(|at| now.max(at + GROW_SPACING));
        again.unwrap_or(now + CHECK_IDLE)
    }

    /// Data flows: what is proven is checked if that is a while ago.
    pub fn hurry(&mut self, patience: Patience, now: Instant) {
        let spacing = if patience.quick { QUICK_CHECK_BUSY } else { CHECK_BUSY };
        if self.round.is_none() && self.found_at.is_some() && now - self.checked_at >= spacing {
            self.next = self.next.min(now);
        }
    }

    /// The size to send a probe of now; 0: the smallest there is. To be called until it has none.
    pub fn poll(&mut self, patience: Patience, now: Instant) -> Option<u16> {
        while now >= self.next {
            let Some(round) = &mut self.round else {
                self.begin(patience, now);
                continue;
            };
            if let Some(size) = round.next() {
                return Some(size);
            }
            self.next = round.at + patience.wait();
            if now < self.next {
                return None;
            }
            round.tries += u8::from(round.counts);
            if patience.is_over(round.tries) {
                self.end(now);
            } else {
                (round.sent, round.at, round.counts) = (0, now, false);
            }
        }
        None
    }

    /// Begins the next round, if there is one to begin.
    fn begin(&mut self, patience: Patience, now: Instant) {
        if self.low + 1 < self.high {
            self.round = Some(Round::new(self.candidates(), now));
            self.doubtful = false;
            return;
        }
        let checks = self.found_at.is_some() && self.low > LEAST_MTU;
        let spacing = match (self.again, patience.quick) {
            (true, _) => GROW_SPACING,
            (false, true) => QUICK_SEARCH_AGAIN,
            (false, false) => SEARCH_AGAIN,
        };
        if self.found_at.is_some_and(|at| now - at >= spacing) {
            (self.high, self.doubtful, self.again, self.found_at) = (MOST_MTU + 1, true, false, None);
            return;
        }
        self.settled = true;
        self.found_at = self.found_at.or(Some(now));
        self.checked_at = now;
        if checks {
            self.round = Some(Round::new(SmallVec::from_slice(&[self.low]), now));
        } else {
            self.next = self.rest(now);
        }
    }

    fn candidates(&self) -> SmallVec<[u16; ROUND]> {
        let between = |size: &u16| *size > self.low && *size < self.high;
        let mut sizes: SmallVec<[u16; ROUND]> = USUAL.iter().copied().filter(between).collect();
        let (step, rest) = ((self.high - self.low) / (CUTS + 1), (self.high - self.low) % (CUTS + 1));
        if self.doubtful {
            sizes.extend([self.low, self.high - 1].into_iter().filter(|size| (LEAST_MTU + 1..MOST_MTU).contains(size)));
        }
        if sizes.is_empty() && step == 0 {
            sizes.extend((self.low + 1)..self.high);
        } else if sizes.is_empty() {
            // The size after a usual one tells that the usual one is the limit.
            let first = if USUAL.contains(&self.low) { 1 } else { step };
            sizes.push(self.low + first);
            sizes.extend((2..=CUTS).map(|n| self.low + n * step + rest.min(n)));
        }
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// The round was tried often enough: what is missing did not get through.
    fn end(&mut self, now: Instant) {
        let lost = self.round.take().and_then(|round| round.missing().next());
        self.next = now;
        match lost {
            Some(size) if size <= self.low => {
                // What came through before does no longer. `size` itself is tried once more with the others: if it was lost by
                // accident, all is as before after a round trip.
                let again = self.again;
                *self = Search { high: size + 1, next: now, doubtful: true, again, ..Search::new() };
            }
            Some(size) => self.high = self.high.min(size),
            None => {}
        }
    }

    /// A size came back.
    pub fn arrived(&mut self, size: u16, now: Instant) {
        let Some(round) = &mut self.round else { return };
        if size < LEAST_MTU {
            round.counts = true;
        }
        if !round.sizes.contains(&size) {
            return;
        }
        round.passed = round.passed.max(size);
        self.low = self.low.max(size);
        if round.missing().next().is_none() {
            self.round = None;
            self.next = if self.found_at.is_some() { self.rest(now) } else { now };
        }
    }
}
