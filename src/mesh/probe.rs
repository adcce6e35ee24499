//! Proof and measure of one datagram path: heartbeats and the search for its MTU.
//!
//! Owns what is known of the path's quality; does not seal, send or choose the endpoint: the owner does, with bodies
//! that `poll` makes. Only bodies that opened (authenticated, not replayed) may be given to `handle`.
//!
//! ```text
//! 0     flags: 1 ASK (answer at once), 2 PROVEN (you acknowledged mine within 3 s), 4 FULL (size test), 8 ARRIVED (answer to one)
//! 1     zero
//! 2..4  size: ARRIVED: bytes of the UDP payload that arrived
//! 4..8  sequence, from 1; 0 in FULL and ARRIVED, which prove a size and nothing else
//! 8..12 acknowledged: newest sequence seen from the other side; 0: none yet
//! 12..16 held: microseconds from its arrival to this sending
//! 16..24 seen: bit n: sequence (acknowledged - n) arrived
//! 24..  zeros up to the tested size (FULL)
//! ```
//!
//! Both sides ask every 500 ms until acknowledged. Then the dialling side asks each second and the other only answers, so
//! that a path costs two datagrams a second; an unanswered ask is repeated after 250 ms or twice the round trip, whichever
//! is more. The path is proven while the other side acknowledged something new within 3 s and says the same of us.
//!
//! MTU: between 1200 (assumed) and 9000; usual sizes first, then halving; three tries a size; checked again each
//! minute, and every 5 s while data flows, because what a narrower path drops in silence nobody else tells; searched anew
//! after 10 minutes, or when the address or this host's network changed.

use crate::types::Instant;
use crate::wire::Malformed;
use smallvec::SmallVec;
use std::time::Duration;

/// Bytes of a heartbeat.
pub const BODY_LEN: usize = 24;
/// A path is dead when nothing was acknowledged for this long.
pub const DEAD_AFTER: Duration = Duration::from_secs(3);

const ASK: u8 = 1;
const PROVEN: u8 = 2;
const FULL: u8 = 4;
const ARRIVED: u8 = 8;

const UNPROVEN_PERIOD: Duration = Duration::from_millis(500);
const PERIOD: Duration = Duration::from_secs(1);
/// How long the answering side waits for the asking side before it asks itself.
const PASSIVE_PERIOD: Duration = Duration::from_millis(1500);
const REPEAT: Duration = Duration::from_millis(250);
/// Timers are rounded to this grid, so that many paths share one wake-up.
const GRID: Duration = Duration::from_millis(250);

/// Smallest MTU that is ever assumed, bytes of UDP payload.
pub const LEAST_MTU: u16 = 1200;
/// Largest that is looked for.
pub const MOST_MTU: u16 = 9000;
/// Sizes tried before halving: Ethernet under IPv4 and IPv6, jumbo frames alike; the size after each tells that it is the limit.
const USUAL: [u16; 8] = [1472, 1473, 1452, 1453, 8972, 8973, 8952, 8953];
const SIZE_TRIES: u8 = 3;
const SIZE_TIMEOUT: Duration = Duration::from_millis(250);
const CHECK_AGAIN: Duration = Duration::from_secs(60);
/// The same while the path is in use.
const CHECK_IN_USE: Duration = Duration::from_secs(5);
/// From the end of a search to the next that a change of the network calls for.
const SEARCH_REST: Duration = Duration::from_secs(2);
/// Datagrams between two checks that make a path one in use: more than heartbeats are.
const IN_USE: u64 = 128;
const SEARCH_AGAIN: Duration = Duration::from_secs(600);

/// The fixed part of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Body {
    flags: u8,
    size: u16,
    sequence: u32,
    acknowledged: u32,
    held_us: u32,
    seen: u64,
}

impl Body {
    fn parse(bytes: &[u8]) -> Result<Body, Malformed> {
        let fixed: &[u8; BODY_LEN] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
        let [flags, zero, s0, s1, q0, q1, q2, q3, a0, a1, a2, a3, h0, h1, h2, h3, seen @ ..] = *fixed;
        if zero != 0 || flags & !(ASK | PROVEN | FULL | ARRIVED) != 0 {
            return Err(Malformed::Field);
        }
        Ok(Body {
            flags,
            size: u16::from_be_bytes([s0, s1]),
            sequence: u32::from_be_bytes([q0, q1, q2, q3]),
            acknowledged: u32::from_be_bytes([a0, a1, a2, a3]),
            held_us: u32::from_be_bytes([h0, h1, h2, h3]),
            seen: u64::from_be_bytes(seen),
        })
    }

    fn emit(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BODY_LEN);
        bytes.extend_from_slice(&[self.flags, 0]);
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.acknowledged.to_be_bytes());
        bytes.extend_from_slice(&self.held_us.to_be_bytes());
        bytes.extend_from_slice(&self.seen.to_be_bytes());
        bytes
    }
}

/// What a probe told, besides the measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// It is the newest heartbeat of the other side: where it came from is where the other side is.
    pub newest: bool,
    /// `proven` or `mtu` changed.
    pub changed: bool,
}

/// Measures of a path.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quality {
    /// Smoothed round-trip time, microseconds; 0 while unknown.
    pub rtt_us: u32,
    /// Smoothed difference of successive round trips (RFC 3550 6.4.1), microseconds.
    pub jitter_us: u32,
    /// Heartbeats of ours lost among the last 64 that could have arrived, per cent.
    pub loss_out: f32,
    /// Heartbeats of the other side lost among its last 64, per cent.
    pub loss_in: f32,
}

/// The machine of one path. See the head of this file.
#[derive(Debug)]
pub struct Probe {
    /// Asks each second once proven; the other side answers.
    asks: bool,
    overhead: u16,
    sequence: u32,
    /// When the last 64 heartbeats were sent, newest last.
    sent: SmallVec<[(u32, Instant); 64]>,
    /// Newest of ours that was acknowledged, and what arrived there before it.
    acknowledged: u32,
    arrived: u64,
    acknowledged_at: Option<Instant>,
    /// Newest of theirs, when it came, and which came before it.
    theirs: u32,
    theirs_at: Instant,
    seen: u64,
    they_proved: bool,
    ask_at: Instant,
    answer: bool,
    size_answers: SmallVec<[u16; 4]>,
    rtt_us: Option<u32>,
    last_rtt_us: u32,
    /// Sixteen times the jitter, so that small changes are not rounded away.
    jitter_us_16: u32,
    search: Search,
}

impl Probe {
    /// A path nothing is known of. `asks`: this is the side that dialled. `overhead`: bytes that sealing adds to a body.
    pub fn new(asks: bool, overhead: u16, now: Instant) -> Probe {
        Probe {
            asks,
            overhead,
            sequence: 0,
            sent: SmallVec::new(),
            acknowledged: 0,
            arrived: 0,
            acknowledged_at: None,
            theirs: 0,
            theirs_at: now,
            seen: 0,
            they_proved: false,
            ask_at: now,
            answer: false,
            size_answers: SmallVec::new(),
            rtt_us: None,
            last_rtt_us: 0,
            jitter_us_16: 0,
            search: Search::new(),
        }
    }

    /// The other side acknowledged a heartbeat of ours lately.
    fn alive(&self, now: Instant) -> bool {
        self.acknowledged_at.is_some_and(|at| now - at < DEAD_AFTER)
    }

    /// Both sides proved the path: data may flow.
    pub fn proven(&self, now: Instant) -> bool {
        self.alive(now) && self.they_proved
    }

    /// Largest UDP payload that came through; 0 while unknown.
    pub fn mtu(&self) -> u16 {
        self.search.proven
    }

    /// What was measured.
    pub fn quality(&self) -> Quality {
        let loss = |newest: u32, bits: u64| {
            let total = u8::try_from(newest.min(64)).unwrap_or(64);
            let mask = 1_u64.checked_shl(total.into()).map_or(u64::MAX, |bit| bit - 1);
            let arrived = u8::try_from((bits & mask).count_ones()).unwrap_or(total);
            100.0 * f32::from(total.saturating_sub(arrived)) / f32::from(total.max(1))
        };
        Quality {
            rtt_us: self.rtt_us.unwrap_or(0),
            jitter_us: self.jitter_us_16 / 16,
            loss_out: loss(self.acknowledged, self.arrived),
            loss_in: loss(self.theirs, self.seen),
        }
    }

    /// The other side's address changed: the MTU is searched anew, and the new address asked at once.
    pub fn address_changed(&mut self, now: Instant) {
        self.search.restart();
        self.ask_at = now;
    }

    /// A device or a route of this host changed: the MTU is searched anew soon.
    pub fn network_changed(&mut self) {
        self.search.again = true;
    }

    /// How many datagrams were sent under the keys in use.
    pub fn carried(&mut self, datagrams: u64) {
        self.search.carried = datagrams;
    }

    /// Probe at once: the path's keys have only now become usable.
    pub fn hurry(&mut self, now: Instant) {
        self.ask_at = now;
    }

    /// The next body to seal and send now, if any. To be called until it has none.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(size) = self.size_answers.pop() {
            return Some(Body { flags: ARRIVED, size, sequence: 0, acknowledged: 0, held_us: 0, seen: 0 }.emit());
        }
        if now >= self.ask_at {
            return Some(self.heartbeat(ASK, now));
        }
        if self.answer {
            return Some(self.heartbeat(0, now));
        }
        if !self.proven(now) {
            return None;
        }
        let patience = SIZE_TIMEOUT.max(Duration::from_micros(2 * u64::from(self.quality().rtt_us)));
        let size = self.search.poll(patience, now)?;
        let mut body = Body { flags: FULL, size: 0, sequence: 0, acknowledged: 0, held_us: 0, seen: 0 }.emit();
        body.resize(usize::from(size.saturating_sub(self.overhead)).max(BODY_LEN), 0);
        Some(body)
    }

    fn heartbeat(&mut self, ask: u8, now: Instant) -> Vec<u8> {
        self.answer = false;
        self.sequence = self.sequence.wrapping_add(1).max(1);
        if self.sent.len() >= 64 {
            self.sent.remove(0);
        }
        self.sent.push((self.sequence, now));
        if ask != 0 {
            self.ask_at = now + self.wait_for_answer(now);
        }
        let held = u32::try_from((now - self.theirs_at).as_micros()).unwrap_or(u32::MAX);
        let proven = if self.alive(now) { PROVEN } else { 0 };
        Body {
            flags: ask | proven,
            size: 0,
            sequence: self.sequence,
            acknowledged: self.theirs,
            held_us: held,
            seen: self.seen,
        }
        .emit()
    }

    fn wait_for_answer(&self, now: Instant) -> Duration {
        if !self.alive(now) {
            return UNPROVEN_PERIOD;
        }
        let rtt = Duration::from_micros(self.rtt_us.unwrap_or(0).into());
        REPEAT.max(2 * rtt).min(PERIOD)
    }

    /// When `poll` may next have something, or `proven` may turn false.
    pub fn deadline(&self, now: Instant) -> Instant {
        let mut at = self.ask_at;
        if let Some(acknowledged) = self.acknowledged_at.filter(|_| self.alive(now)) {
            at = at.min(acknowledged + DEAD_AFTER);
        }
        if self.proven(now) { at.min(self.search.next) } else { at }
    }

    /// A probe's body (at least its first 24 bytes) of a datagram of `size` bytes of UDP payload.
    pub fn handle(&mut self, body: &[u8], size: u16, now: Instant) -> Result<Heard, Malformed> {
        let body = Body::parse(body)?;
        let (proven, mtu) = (self.proven(now), self.mtu());
        let mut newest = false;
        if body.flags & FULL != 0 {
            // Answers wait in a short list: who sends more at once than it holds is asking in vain.
            if self.size_answers.len() < 4 {
                self.size_answers.push(size);
            }
        } else if body.flags & ARRIVED != 0 {
            self.search.arrived(body.size, now);
        } else {
            newest = self.learn(&body, now);
        }
        Ok(Heard { newest, changed: (proven, mtu) != (self.proven(now), self.mtu()) })
    }

    fn learn(&mut self, body: &Body, now: Instant) -> bool {
        if body.sequence == 0 {
            return false;
        }
        self.answer |= body.flags & ASK != 0;
        if body.sequence <= self.theirs {
            if let Some(bit) = 1u64.checked_shl(self.theirs - body.sequence) {
                self.seen |= bit;
            }
            return false;
        }
        self.seen = self.seen.checked_shl(body.sequence - self.theirs).unwrap_or(0) | 1;
        (self.theirs, self.theirs_at) = (body.sequence, now);
        let (were_alive, they_proved) = (self.alive(now), self.they_proved);
        self.they_proved = body.flags & PROVEN != 0;
        if body.acknowledged > self.acknowledged && body.acknowledged <= self.sequence {
            self.acknowledge(body, now);
        }
        // What the other side waits for is told at once, not at the next beat.
        let came_alive = !were_alive && self.alive(now);
        self.answer |= came_alive || (self.they_proved && !they_proved && !self.asks);
        true
    }

    fn acknowledge(&mut self, body: &Body, now: Instant) {
        (self.acknowledged, self.arrived) = (body.acknowledged, body.seen);
        let sent = self.sent.iter().find(|(sequence, _)| *sequence == body.acknowledged);
        if let Some((_, at)) = sent {
            if now - *at < DEAD_AFTER {
                self.acknowledged_at = Some(now);
            }
            let whole = u32::try_from((now - *at).as_micros()).unwrap_or(u32::MAX);
            let rtt = whole.saturating_sub(body.held_us).max(1);
            let smooth = self.rtt_us.map_or(rtt, |old| old - old / 8 + rtt / 8);
            if self.rtt_us.is_some() {
                let step = rtt.abs_diff(self.last_rtt_us);
                self.jitter_us_16 = (self.jitter_us_16 - self.jitter_us_16 / 16).saturating_add(step);
            }
            (self.rtt_us, self.last_rtt_us) = (Some(smooth), rtt);
        }
        let period = if self.asks { PERIOD } else { PASSIVE_PERIOD };
        self.ask_at = on_grid(now + period);
    }
}

/// The last point of the grid before `at`.
fn on_grid(at: Instant) -> Instant {
    let grid = u64::try_from(GRID.as_nanos()).unwrap_or(1);
    Instant::from_nanos(at.nanos() / grid * grid)
}

/// The search for the MTU: `low` came through, `high` did not.
#[derive(Debug)]
struct Search {
    /// What the data path may use.
    proven: u16,
    low: u16,
    high: u16,
    /// The size on its way, tries made, when the last was sent.
    trial: Option<(u16, u8, Instant)>,
    /// Nothing is tried before.
    next: Instant,
    searched_at: Option<Instant>,
    /// To be searched anew.
    again: bool,
    /// When the size in use was last sent to be checked, and what had been carried then; and what has been until now.
    checked: (Instant, u64),
    carried: u64,
}

impl Search {
    fn new() -> Search {
        Search {
            proven: 0,
            low: LEAST_MTU,
            high: MOST_MTU + 1,
            trial: None,
            next: Instant::ZERO,
            searched_at: None,
            again: false,
            checked: (Instant::ZERO, 0),
            carried: 0,
        }
    }

    fn restart(&mut self) {
        *self = Search { proven: self.proven, checked: self.checked, carried: self.carried, ..Search::new() };
    }

    /// Whether the search is over and something calls for a look before the time.
    fn is_called_for(&self, now: Instant) -> bool {
        let (Some(searched), None) = (self.searched_at, self.trial) else { return false };
        // Keys are replaced now and then, and datagrams counted anew.
        let in_use = self.carried.checked_sub(self.checked.1).unwrap_or(self.carried) > IN_USE;
        let checked = searched.max(self.checked.0);
        (self.again && now - searched >= SEARCH_REST) || (in_use && now - checked >= CHECK_IN_USE)
    }

    fn done(&self) -> bool {
        self.low + 1 >= self.high
    }

    fn candidate(&self) -> u16 {
        let usual = USUAL.iter().copied().find(|size| *size > self.low && *size < self.high);
        usual.unwrap_or(self.low + (self.high - self.low) / 2)
    }

    /// The size to send a probe of now.
    fn poll(&mut self, patience: Duration, now: Instant) -> Option<u16> {
        if now < self.next && !self.is_called_for(now) {
            return None;
        }
        if let Some((size, tries, sent)) = self.trial {
            if now < sent + patience {
                self.next = sent + patience;
                return None;
            }
            if tries < SIZE_TRIES {
                return Some(self.send(size, tries + 1, patience, now));
            }
            self.lost(size);
        }
        if self.done() {
            return self.check(patience, now);
        }
        let size = self.candidate();
        Some(self.send(size, 1, patience, now))
    }

    fn send(&mut self, size: u16, tries: u8, patience: Duration, now: Instant) -> u16 {
        self.trial = Some((size, tries, now));
        self.next = now + patience;
        size
    }

    /// The search is over: what it found is checked each minute, and searched anew after ten.
    fn check(&mut self, patience: Duration, now: Instant) -> Option<u16> {
        let Some(searched) = self.searched_at else {
            self.searched_at = Some(now);
            self.proven = self.low;
            self.next = now + CHECK_AGAIN;
            return None;
        };
        self.checked = (now, self.carried);
        if self.again || now - searched >= SEARCH_AGAIN {
            self.restart();
            let size = self.candidate();
            return Some(self.send(size, 1, patience, now));
        }
        let size = self.low;
        (size > LEAST_MTU).then(|| self.send(size, 1, patience, now)).or_else(|| {
            self.next = now + CHECK_AGAIN;
            None
        })
    }

    fn lost(&mut self, size: u16) {
        self.trial = None;
        if size <= self.low {
            // What came through before does no longer.
            self.restart();
            self.proven = LEAST_MTU;
            self.high = size;
            return;
        }
        self.high = size;
        // Until something larger is proven, only the assumed size is safe.
        if self.proven == 0 || self.proven >= size {
            self.proven = self.low;
        }
    }

    fn arrived(&mut self, size: u16, now: Instant) {
        let Some((trial, _, _)) = self.trial else { return };
        if size != trial {
            return;
        }
        self.trial = None;
        self.next = if self.searched_at.is_some() { now + CHECK_AGAIN } else { now };
        self.low = self.low.max(size);
        if self.proven == 0 || size > self.proven {
            self.proven = size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OVERHEAD: u16 = 32;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    /// Two ends and a wire of one millisecond; `passes` says which datagram (from which end, number, size) arrives.
    struct Wire<F: FnMut(usize, usize, usize) -> bool> {
        ends: [Probe; 2],
        flying: Vec<(Instant, usize, Vec<u8>)>,
        sent: usize,
        now: Instant,
        passes: F,
    }

    impl<F: FnMut(usize, usize, usize) -> bool> Wire<F> {
        fn new(passes: F) -> Wire<F> {
            let end = |asks| Probe::new(asks, OVERHEAD, Instant::ZERO);
            Wire { ends: [end(true), end(false)], flying: Vec::new(), sent: 0, now: Instant::ZERO, passes }
        }

        fn run_until(&mut self, until: Instant) {
            loop {
                for from in 0..2 {
                    while let Some(body) = self.ends[from].poll(self.now) {
                        self.sent += 1;
                        assert!(self.sent < 1_000_000, "a storm");
                        if (self.passes)(from, self.sent, body.len() + usize::from(OVERHEAD)) {
                            self.flying.push((self.now + Duration::from_millis(1), 1 - from, body));
                        }
                    }
                }
                let timers = self
                    .ends
                    .iter()
                    .map(|end| end.deadline(self.now))
                    .map(|at| at.max(self.now + Duration::from_millis(1)));
                let next = timers.chain(self.flying.iter().map(|(at, ..)| *at)).min().unwrap();
                if next > until {
                    self.now = until;
                    return;
                }
                self.now = next;
                let now = self.now;
                let (due, later) = std::mem::take(&mut self.flying).into_iter().partition(|(at, ..)| *at <= now);
                self.flying = later;
                let due: Vec<(Instant, usize, Vec<u8>)> = due;
                for (_, to, body) in due {
                    let size = u16::try_from(body.len()).unwrap() + OVERHEAD;
                    self.ends[to].handle(&body[..body.len().min(64)], size, now).unwrap();
                }
            }
        }
    }

    #[test]
    fn both_ends_prove_a_good_path_within_two_round_trips() {
        let mut wire = Wire::new(|_, _, _| true);
        wire.run_until(at(6));
        assert!(wire.ends.iter().all(|end| end.proven(at(6))));
    }

    #[test]
    fn a_path_that_works_one_way_only_is_not_proven() {
        let mut wire = Wire::new(|from, _, _| from == 0);
        wire.run_until(at(20_000));
        assert!(wire.ends.iter().all(|end| !end.proven(at(20_000))));
    }

    #[test]
    fn an_idle_path_costs_two_datagrams_a_second() {
        let mut wire = Wire::new(|_, _, size| size <= 1472);
        wire.run_until(at(30_000));
        let before = wire.sent;
        wire.run_until(at(50_000));
        assert!((38..=46).contains(&(wire.sent - before)), "{}", wire.sent - before);
        assert_eq!(wire.ends[0].quality().loss_out, 0.0);
        assert!((1900..2200).contains(&wire.ends[0].quality().rtt_us), "{:?}", wire.ends[0].quality());
        assert!((1900..2200).contains(&wire.ends[1].quality().rtt_us), "{:?}", wire.ends[1].quality());
    }

    #[test]
    fn a_cut_path_is_dead_after_three_seconds_on_both_ends_and_comes_back() {
        let cut = std::cell::Cell::new(false);
        let mut wire = Wire::new(|_, _, _| !cut.get());
        wire.run_until(at(10_000));
        cut.set(true);
        wire.run_until(at(12_000));
        assert!(wire.ends.iter().all(|end| end.proven(at(12_000))));
        wire.run_until(at(13_600));
        assert!(wire.ends.iter().all(|end| !end.proven(at(13_600))));
        cut.set(false);
        wire.run_until(at(14_200));
        assert!(wire.ends.iter().all(|end| end.proven(at(14_200))));
    }

    #[test]
    fn thirty_percent_loss_neither_kills_a_path_nor_goes_unseen() {
        let mut random = StdRng::seed_from_u64(7);
        let mut wire = Wire::new(move |_, _, size| size <= 1472 && random.random_bool(0.7));
        wire.run_until(at(5000));
        let mut dead = 0;
        for second in 5..300 {
            wire.run_until(at(second * 1000));
            dead += u32::from(!wire.ends.iter().all(|end| end.proven(wire.now)));
        }
        assert!(dead <= 1, "{dead} seconds dead");
        let loss = wire.ends[0].quality().loss_out;
        assert!((10.0..55.0).contains(&loss), "{loss}");
    }

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn finds_the_mtu_of_usual_and_unusual_paths() {
        for limit in [1200, 1280, 1372, 1392, 1452, 1472, 1473, 4000, 8952, 8972, 9000] {
            let mut wire = Wire::new(|_, _, size| size <= limit);
            wire.run_until(at(20_000));
            for end in &wire.ends {
                assert_eq!(usize::from(end.mtu()), limit);
            }
        }
    }

    #[test]
    fn usual_mtu_is_known_within_a_second_and_a_half() {
        let mut wire = Wire::new(|_, _, size| size <= 1472);
        wire.run_until(at(1500));
        assert_eq!(wire.ends[0].mtu(), 1472);
    }

    #[test]
    fn mtu_shrinks_within_a_minute_and_grows_after_ten() {
        let limit = std::cell::Cell::new(1472);
        let mut wire = Wire::new(|_, _, size| size <= limit.get());
        wire.run_until(at(10_000));
        limit.set(1400);
        wire.run_until(at(85_000));
        assert_eq!(wire.ends[0].mtu(), 1400);
        limit.set(8972);
        wire.run_until(at(800_000));
        assert_eq!(wire.ends[0].mtu(), 8972);
    }

    #[test]
    fn mtu_of_a_path_in_use_shrinks_within_six_seconds() {
        let limit = std::cell::Cell::new(1472);
        let mut wire = Wire::new(|_, _, size| size <= limit.get());
        let mut carried = 0;
        let mut run = |wire: &mut Wire<_>, until: u64| {
            for tenth in wire.now.nanos() / 100_000_000..until * 10 {
                carried += 100;
                wire.ends.iter_mut().for_each(|end| end.carried(carried));
                wire.run_until(at(tenth * 100));
            }
        };
        run(&mut wire, 20);
        let before = wire.sent;
        run(&mut wire, 50);
        assert!((80..=88).contains(&(wire.sent - before)), "heartbeats and checks: {}", wire.sent - before);
        limit.set(1300);
        run(&mut wire, 57);
        assert!(wire.ends.iter().all(|end| end.mtu() <= 1300));
        run(&mut wire, 70);
        assert!(wire.ends.iter().all(|end| end.mtu() == 1300));
        // Keys are replaced.
        carried = 0;
        limit.set(1250);
        let mut carry = |wire: &mut Wire<_>, until: u64| {
            for tenth in wire.now.nanos() / 100_000_000..until * 10 {
                carried += 10;
                wire.ends.iter_mut().for_each(|end| end.carried(carried));
                wire.run_until(at(tenth * 100));
            }
        };
        carry(&mut wire, 80);
        assert!(wire.ends.iter().all(|end| end.mtu() <= 1250));
    }

    #[test]
    fn mtu_shrinks_and_grows_soon_where_the_hosts_network_changed() {
        let limit = std::cell::Cell::new(1472);
        let mut wire = Wire::new(|_, _, size| size <= limit.get());
        wire.run_until(at(20_000));
        limit.set(1300);
        wire.ends.iter_mut().for_each(Probe::network_changed);
        wire.run_until(at(22_500));
        assert!(wire.ends.iter().all(|end| end.mtu() <= 1300));
        // In the middle of the search: it is searched once more afterwards.
        limit.set(1472);
        wire.ends.iter_mut().for_each(Probe::network_changed);
        wire.run_until(at(45_000));
        assert!(wire.ends.iter().all(|end| end.mtu() == 1472));
        // However often it changes, searches rest in between.
        let before = wire.sent;
        for tenth in 450..650 {
            wire.ends.iter_mut().for_each(Probe::network_changed);
            wire.run_until(at(tenth * 100));
        }
        assert!(wire.sent - before < 40 + 2 * 8 * 6, "{}", wire.sent - before);
        assert!(wire.ends.iter().all(|end| end.mtu() == 1472));
    }

    #[test]
    fn address_change_searches_at_once() {
        let limit = std::cell::Cell::new(1472);
        let mut wire = Wire::new(|_, _, size| size <= limit.get());
        wire.run_until(at(10_000));
        limit.set(8972);
        let now = wire.now;
        wire.ends[0].address_changed(now);
        wire.run_until(at(20_000));
        assert_eq!(wire.ends[0].mtu(), 8972);
    }

    #[test]
    fn an_old_heartbeat_is_not_the_newest() {
        let mut wire = Wire::new(|_, _, _| true);
        wire.run_until(at(3000));
        let old = Body { flags: 0, size: 0, sequence: 1, acknowledged: 0, held_us: 0, seen: 0 }.emit();
        let heard = wire.ends[0].handle(&old, 56, at(3000)).unwrap();
        assert_eq!(heard, Heard { newest: false, changed: false });
    }

    proptest! {
        #[test]
        fn handles_any_bytes(bodies in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..64), any::<u16>(), 0u64..5000), 0..40)) {
            let mut probe = Probe::new(true, OVERHEAD, Instant::ZERO);
            let mut now = Instant::ZERO;
            for (mut body, size, wait) in bodies {
                if let Some(flags) = body.first_mut() { *flags &= 15; }
                if let Some(zero) = body.get_mut(1) { *zero = 0; }
                now += Duration::from_millis(wait);
                let _ = probe.handle(&body, size, now);
                let sent = std::iter::from_fn(|| probe.poll(now)).take(20).count();
                prop_assert!(sent < 20, "a storm");
                prop_assert!(probe.deadline(now) > now);
                let quality = probe.quality();
                prop_assert!((0.0..=100.0).contains(&quality.loss_in) && (0.0..=100.0).contains(&quality.loss_out));
            }
        }

        #[test]
        fn body_parses_what_it_emits(flags in 0u8..16, size: u16, sequence: u32, acknowledged: u32, held_us: u32, seen: u64) {
            let body = Body { flags, size, sequence, acknowledged, held_us, seen };
            prop_assert_eq!(Body::parse(&body.emit()), Ok(body));
        }
    }
}
