//! Proof and measure of one datagram path: heartbeats, and what the search for its MTU (`search`) sends; `body` has their bytes.
//!
//! Owns what is known of the path's quality; does not seal, send or choose the endpoint: the owner does, with bodies
//! that `poll` makes. Only bodies that opened (authenticated, not replayed) may be given to `handle`.
//!
//! Both sides ask every 500 ms until acknowledged (by VXLAN, which is not missed as much, every 2 s after a while). Then the
//! dialling side asks each second and the other only answers, so that a path costs two datagrams a second; an unanswered ask is
//! repeated after 250 ms or twice the round trip, whichever is more. While data flows the asking side asks every 50 ms, and while
//! the path is tried (`loss`) a side asks every 16 ms, or eight times in a round trip. The path is proven while the other side
//! acknowledged something new within 3 s (by VXLAN 2 s: there is another way at once) and says the same of us.
//!
//! By VXLAN, while data flows, it asks every 500 ms, repeats after 125 ms, and gives up after five asks in vain: TCP that lost
//! what it had under way tries again 1.4 s later, and then 3.0 s later (RFC 6298, from Linux's least of 200 ms); by then there
//! is to be another way.
//!
//! Sizes are tried only while the path is proven, so that what is lost is lost for its size.

mod body;
mod search;

pub use body::BODY_LEN;
pub use search::{MOST_MTU, SURE_MTU};

use super::loss::{Grade, Loss};
use crate::types::Instant;
use crate::wire::Malformed;
use body::{ARRIVED, ASK, Body, FULL, PROVEN, UDP, UNFINISHED, VXLAN};
use search::{Patience, Search};
use smallvec::SmallVec;
use std::time::Duration;

/// A path is dead when nothing was acknowledged for this long.
pub const DEAD_AFTER: Duration = Duration::from_secs(3);
/// The same by VXLAN.
pub const VXLAN_DEAD_AFTER: Duration = Duration::from_secs(2);

const UNPROVEN_PERIOD: Duration = Duration::from_millis(500);
/// The same by VXLAN once so many asks were in vain.
const HOPELESS_PERIOD: Duration = Duration::from_secs(2);
const HOPELESS_AFTER: u32 = 20;
const PERIOD: Duration = Duration::from_secs(1);
/// How long the answering side waits for the asking side before it asks itself.
const PASSIVE_PERIOD: Duration = Duration::from_millis(1500);
const REPEAT: Duration = Duration::from_millis(250);
/// While data flows, and for how long after it did.
const BUSY_PERIOD: Duration = Duration::from_millis(50);
const BUSY: Duration = Duration::from_secs(1);
/// The same by VXLAN, of the asking side, of the other, and until a repetition.
const VXLAN_PERIOD: Duration = Duration::from_millis(500);
const VXLAN_PASSIVE: Duration = Duration::from_millis(600);
const VXLAN_REPEAT: Duration = Duration::from_millis(125);
const VXLAN_BUSY: Duration = Duration::from_secs(2);
/// Asks in vain after which a path by VXLAN is dead.
const GIVE_UP_AFTER: u32 = 5;
/// While the path is tried.
const TRIAL_PERIOD: Duration = Duration::from_millis(16);
/// A heartbeat that is not acknowledged so long after it could have been is lost: what is later was overtaken too often.
const OVERDUE: Duration = Duration::from_millis(200);
/// The least round trip is looked for over one to two of these, in samples that far apart.
const FLOOR: Duration = Duration::from_secs(4);
const FLOOR_SPACING: Duration = Duration::from_millis(900);
/// Timers are rounded to this grid, so that many paths share one wake-up.
const GRID: Duration = Duration::from_millis(250);

/// Answers to size tests that wait to be sent: a whole round of them may come at once.
const SIZE_ANSWERS: usize = 16;

/// What a probe told, besides the measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// It is the newest heartbeat of the other side: where it came from is where the other side is.
    pub newest: bool,
    /// `proven`, `mtu`, `is_settled` or `they_take_unfinished` changed.
    pub changed: bool,
}

/// Measures of a path.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quality {
    /// Smoothed round-trip time, microseconds; 0 while unknown.
    pub rtt_us: u32,
    /// The least of the last seconds, microseconds: without queues; 0 while unknown.
    pub base_us: u32,
    /// Smoothed difference of successive round trips (RFC 3550 6.4.1), microseconds.
    pub jitter_us: u32,
    /// Heartbeats of ours lost among the last 64 that could have arrived, per cent.
    pub loss_out: f32,
    /// Heartbeats of the other side lost among its last 64, per cent.
    pub loss_in: f32,
}

/// The least round trip of late.
#[derive(Debug, Default)]
struct Floor {
    now: Option<u32>,
    before: Option<u32>,
    since: Instant,
    sampled_at: Option<Instant>,
}

impl Floor {
    /// However often the path is asked, samples are as far apart, so that the least of them means the same.
    fn sample(&mut self, rtt_us: u32, now: Instant) {
        if self.sampled_at.is_some_and(|at| now - at < FLOOR_SPACING) {
            return;
        }
        self.sampled_at = Some(now);
        if now - self.since >= FLOOR {
            (self.before, self.now, self.since) = (self.now.take(), None, now);
        }
        self.now = Some(self.now.map_or(rtt_us, |least| least.min(rtt_us)));
    }

    fn least(&self) -> u32 {
        self.now.into_iter().chain(self.before).min().unwrap_or(0)
    }
}

/// The machine of one path. See the head of this file.
#[derive(Debug)]
pub struct Probe {
    /// Asks each second once proven; the other side answers.
    asks: bool,
    overhead: u16,
    way: u8,
    /// Asks since the last one that was acknowledged.
    unanswered: u32,
    /// Until when data is taken to flow.
    busy_until: Instant,
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
    /// Whether we take unfinished checksums, and they do, as each says.
    unfinished: (bool, bool),
    ask_at: Instant,
    answer: bool,
    size_answers: SmallVec<[u16; SIZE_ANSWERS]>,
    /// Tests that were sent, as heartbeats count them; theirs, as they count them; and how many of those did not come.
    tests: u16,
    their_tests: u16,
    tests_lost: i64,
    rtt_us: Option<u32>,
    last_rtt_us: u32,
    /// Sixteen times the jitter, so that small changes are not rounded away.
    jitter_us_16: u32,
    floor: Floor,
    /// The newest of ours of which `loss` knows whether it arrived.
    judged: u32,
    loss: Loss,
    search: Search,
}

impl Probe {
    /// A path nothing is known of. `asks`: this is the side that dialled. `overhead`: bytes that sealing adds to a body.
    pub fn new(asks: bool, overhead: u16, now: Instant) -> Probe {
        Probe {
            asks,
            overhead,
            way: UDP,
            unanswered: 0,
            busy_until: Instant::ZERO,
            sequence: 0,
            sent: SmallVec::new(),
            acknowledged: 0,
            arrived: 0,
            acknowledged_at: None,
            theirs: 0,
            theirs_at: now,
            seen: 0,
            they_proved: false,
            unfinished: (false, false),
            ask_at: now,
            answer: false,
            size_answers: SmallVec::new(),
            tests: 0,
            their_tests: 0,
            tests_lost: 0,
            rtt_us: None,
            last_rtt_us: 0,
            jitter_us_16: 0,
            floor: Floor::default(),
            judged: 0,
            loss: Loss::new(now),
            search: Search::new(),
        }
    }

    /// The same for VXLAN between the two; `overhead` counts its headers too.
    pub fn of_vxlan(asks: bool, overhead: u16, now: Instant) -> Probe {
        Probe { way: VXLAN, ..Probe::new(asks, overhead, now) }
    }

    fn dead_after(&self) -> Duration {
        if self.way == VXLAN { VXLAN_DEAD_AFTER } else { DEAD_AFTER }
    }

    /// The other side acknowledged a heartbeat of ours lately.
    fn alive(&self, now: Instant) -> bool {
        let gave_up = self.way == VXLAN && self.unanswered > GIVE_UP_AFTER;
        !gave_up && self.acknowledged_at.is_some_and(|at| now - at < self.dead_after())
    }

    /// It is to be found out at once if nothing comes through any more.
    fn is_busy_by_vxlan(&self, now: Instant) -> bool {
        self.way == VXLAN && now < self.busy_until
    }

    /// Time since the other side last acknowledged anything; nothing: it never did.
    pub fn silent_for(&self, now: Instant) -> Option<Duration> {
        self.acknowledged_at.map(|at| now - at)
    }

    /// Nothing was acknowledged for this long, or never.
    pub fn is_silent(&self, time: Duration, now: Instant) -> bool {
        self.silent_for(now).is_none_or(|silent| silent >= time)
    }

    /// Both sides proved the path: data may flow.
    pub fn proven(&self, now: Instant) -> bool {
        self.alive(now) && self.they_proved
    }

    /// Largest UDP payload that came through; 0 while unknown: then only [`SURE_MTU`] is sure.
    pub fn mtu(&self) -> u16 {
        self.search.mtu()
    }

    /// Nothing larger than `mtu` gets through: it is the path's limit, not just what was tried so far.
    pub fn is_settled(&self) -> bool {
        self.search.is_settled()
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
            base_us: self.floor.least(),
            jitter_us: self.jitter_us_16 / 16,
            loss_out: loss(self.acknowledged, self.arrived),
            loss_in: loss(self.theirs, self.seen),
        }
    }

    /// Tests of the other side that did not come, as of its newest heartbeat: they were lost for their size, or at an address
    /// where nobody is, and say nothing of the path's quality.
    pub fn tests_lost(&self) -> i64 {
        self.tests_lost
    }

    /// A datagram was sealed that need not arrive: heartbeats count it as a size test.
    pub fn sent_aside(&mut self) {
        self.tests = self.tests.wrapping_add(1);
    }

    /// Such a one came.
    pub fn came_aside(&mut self) {
        self.tests_lost = self.tests_lost.saturating_sub(1);
    }

    /// The other side's address changed: nothing is known of the MTU, and the new address is asked at once.
    pub fn address_changed(&mut self, now: Instant) {
        self.search = Search::new();
        self.ask_at = now;
    }

    /// The other side is elsewhere now: nothing is proven until it is heard from there.
    pub fn moved(&mut self, now: Instant) {
        self.acknowledged_at = None;
        self.unanswered = 0;
        self.address_changed(now);
    }

    /// An address or a route of this machine changed: larger datagrams may get through, or not even those that did.
    pub fn route_changed(&mut self, now: Instant) {
        self.search.grow(now);
    }

    /// Data was sent since this was last called: if full-size datagrams get lost now, or any, it is to be noticed.
    pub fn data_flows(&mut self, now: Instant) {
        if self.way == VXLAN {
            self.busy_until = now + VXLAN_BUSY;
            if let Some(acknowledged) = self.acknowledged_at.filter(|_| self.unanswered == 0 && self.alive(now)) {
                self.ask_at = self.ask_at.min(acknowledged + self.period(now));
            }
        } else {
            self.busy_until = now + BUSY;
            if self.asks && self.alive(now) {
                self.ask_at = self.ask_at.min(now + BUSY_PERIOD);
            }
        }
        self.search.hurry(self.patience(), now);
    }

    fn period(&self, now: Instant) -> Duration {
        match (self.is_busy_by_vxlan(now), self.asks) {
            (true, true) => VXLAN_PERIOD,
            (true, false) => VXLAN_PASSIVE,
            (false, true) => PERIOD,
            (false, false) => PASSIVE_PERIOD,
        }
    }

    /// It became known of other datagrams of the path, in either direction, whether they arrived.
    pub fn datagrams(&mut self, arrived: u64, lost: u64, now: Instant) {
        self.loss.datagrams(arrived, lost, now);
    }

    /// How much of what is sent gets lost.
    pub fn grade(&self) -> Grade {
        self.loss.grade()
    }

    /// There is reason to try how lossy the path is, by a burst of heartbeats.
    pub fn wants_trial(&self, now: Instant) -> bool {
        self.proven(now) && self.loss.wants_trial(now)
    }

    /// Whether such a burst goes on.
    pub fn is_tried(&self) -> bool {
        self.loss.is_trying()
    }

    /// Begins it.
    pub fn begin_trial(&mut self, now: Instant) {
        self.loss.begin_trial(now);
        self.judged = self.sequence;
        self.ask_at = now;
    }

    /// Probe at once: the path's keys have only now become usable.
    pub fn hurry(&mut self, now: Instant) {
        self.ask_at = now;
    }

    /// Whether this side takes frames with unfinished checksums; heartbeats say so from now on, the next one at once.
    pub fn take_unfinished(&mut self, takes: bool, now: Instant) {
        self.unfinished.0 = takes;
        self.hurry(now);
    }

    /// Whether the other side takes them, as its newest heartbeat says.
    pub fn they_take_unfinished(&self) -> bool {
        self.unfinished.1
    }

    /// The next body to seal and send now, if any. To be called until it has none.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(size) = self.size_answers.pop() {
            return Some(Body { size, ..self.blank(ARRIVED) }.emit());
        }
        self.loss.tend(self.proven(now), now);
        if now >= self.ask_at {
            return Some(self.heartbeat(ASK, now));
        }
        if self.answer {
            return Some(self.heartbeat(0, now));
        }
        if !self.proven(now) {
            return None;
        }
        let size = self.search.poll(self.patience(), now)?;
        self.tests = self.tests.wrapping_add(1);
        let mut body = self.blank(FULL).emit();
        body.resize(usize::from(size.saturating_sub(self.overhead)).max(BODY_LEN), 0);
        Some(body)
    }

    fn blank(&self, flags: u8) -> Body {
        Body { flags, way: self.way, size: 0, sequence: 0, acknowledged: 0, held_us: 0, seen: 0 }
    }

    fn patience(&self) -> Patience {
        let Quality { rtt_us, loss_out, loss_in, .. } = self.quality();
        let lost = 1.0 - (1.0 - loss_out / 100.0) * (1.0 - loss_in / 100.0);
        Patience { rtt: Duration::from_micros(rtt_us.into()), lost, quick: self.way == VXLAN }
    }

    fn heartbeat(&mut self, ask: u8, now: Instant) -> Vec<u8> {
        self.answer = false;
        self.sequence = self.sequence.wrapping_add(1).max(1);
        if self.sent.len() >= 64 {
            self.sent.remove(0);
        }
        self.sent.push((self.sequence, now));
        if ask != 0 {
            self.unanswered = self.unanswered.saturating_add(1);
            self.ask_at = now + self.wait_for_answer(now);
        }
        let held = u32::try_from((now - self.theirs_at).as_micros()).unwrap_or(u32::MAX);
        let proven = if self.alive(now) { PROVEN } else { 0 };
        let (sequence, acknowledged, seen) = (self.sequence, self.theirs, self.seen);
        let unfinished = if self.unfinished.0 { UNFINISHED } else { 0 };
        let flags = ask | proven | unfinished;
        Body { size: self.tests, sequence, acknowledged, held_us: held, seen, ..self.blank(flags) }.emit()
    }

    fn wait_for_answer(&self, now: Instant) -> Duration {
        if !self.alive(now) {
            let hopeless = self.way == VXLAN && self.unanswered > HOPELESS_AFTER;
            return if hopeless { HOPELESS_PERIOD } else { UNPROVEN_PERIOD };
        }
        self.haste(now).unwrap_or_else(|| {
            let least = if self.is_busy_by_vxlan(now) { VXLAN_REPEAT } else { REPEAT };
            least.max(2 * self.rtt()).min(PERIOD)
        })
    }

    fn rtt(&self) -> Duration {
        Duration::from_micros(self.rtt_us.unwrap_or(0).into())
    }

    /// Asks follow each other so closely, answered or not.
    fn haste(&self, now: Instant) -> Option<Duration> {
        if self.loss.is_trying() {
            return Some(TRIAL_PERIOD.max(self.rtt() / 8));
        }
        (self.asks && self.way == UDP && now < self.busy_until).then_some(BUSY_PERIOD)
    }

    /// When `poll` may next have something, or `proven` may turn false.
    pub fn deadline(&self, now: Instant) -> Instant {
        let mut at = self.ask_at;
        if let Some(acknowledged) = self.acknowledged_at.filter(|_| self.alive(now)) {
            at = at.min(acknowledged + self.dead_after());
        }
        if self.proven(now) { at.min(self.search.deadline()) } else { at }
    }

    /// A probe's body (at least its first 24 bytes) of a datagram of `size` bytes of UDP payload.
    pub fn handle(&mut self, body: &[u8], size: u16, now: Instant) -> Result<Heard, Malformed> {
        // What was sent by one way and came by the other proves neither.
        let body =
            Body::parse(body).and_then(|body| if body.way == self.way { Ok(body) } else { Err(Malformed::Field) })?;
        let before = self.verdict(now);
        let mut newest = false;
        if body.flags & FULL != 0 {
            self.tests_lost = self.tests_lost.saturating_sub(1);
            // Answers wait in a short list: who sends more at once than it holds is asking in vain.
            if self.size_answers.len() < SIZE_ANSWERS {
                self.size_answers.push(size);
            }
        } else if body.flags & ARRIVED != 0 {
            self.search.arrived(body.size, now);
        } else {
            newest = self.learn(&body, now);
        }
        Ok(Heard { newest, changed: before != self.verdict(now) })
    }

    fn verdict(&self, now: Instant) -> (bool, u16, bool, bool) {
        (self.proven(now), self.mtu(), self.is_settled(), self.they_take_unfinished())
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
        let tests = body.size.wrapping_sub(std::mem::replace(&mut self.their_tests, body.size));
        self.tests_lost = self.tests_lost.saturating_add(tests.into());
        let (were_alive, they_proved) = (self.alive(now), self.they_proved);
        self.they_proved = body.flags & PROVEN != 0;
        self.unfinished.1 = body.flags & UNFINISHED != 0;
        if body.acknowledged > self.acknowledged && body.acknowledged <= self.sequence {
            self.acknowledge(body, now);
        }
        // What the other side waits for is told at once, not at the next beat.
        let came_alive = !were_alive && self.alive(now);
        self.answer |= came_alive || (self.they_proved && !they_proved && !self.asks);
        true
    }

    fn acknowledge(&mut self, body: &Body, now: Instant) {
        (self.acknowledged, self.arrived, self.unanswered) = (body.acknowledged, body.seen, 0);
        let sent = self.sent.iter().find(|(sequence, _)| *sequence == body.acknowledged);
        if let Some((_, at)) = sent {
            if now - *at < self.dead_after() {
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
            self.floor.sample(rtt, now);
        }
        self.judge(now);
        if self.haste(now).is_none() {
            let at = now + self.period(now);
            self.ask_at = if self.is_busy_by_vxlan(now) { at } else { on_grid(at) };
        }
    }

    /// Counts those heartbeats of ours that had time enough to arrive.
    fn judge(&mut self, now: Instant) {
        let time = self.rtt() + OVERDUE;
        let (mut arrived, mut lost) = (0, 0);
        for (sequence, at) in &self.sent {
            let back = self.acknowledged.checked_sub(*sequence).filter(|_| *sequence > self.judged);
            let Some(back) = back.filter(|_| now - *at >= time) else { continue };
            self.judged = *sequence;
            // What is not told of any more may have arrived.
            match 1_u64.checked_shl(back).map(|bit| self.arrived & bit != 0) {
                Some(true) => arrived += 1,
                Some(false) => lost += 1,
                None => {}
            }
        }
        if arrived + lost > 0 {
            self.loss.heartbeats(arrived, lost, now);
        }
    }
}

/// The last point of the grid before `at`.
fn on_grid(at: Instant) -> Instant {
    let grid = u64::try_from(GRID.as_nanos()).unwrap_or(1);
    Instant::from_nanos(at.nanos() / grid * grid)
}

#[cfg(test)]
mod tests;
