//! At which of a peer's addresses it answers, and which of them is the nearest.
//!
//! Owns what is known of each address of one path: whether a check came back and after what time. Does not seal or send,
//! and does not move the path: the owner asks `best`. Checks are sealed with the path's keys, so that only the peer
//! itself can answer one, wherever it is.
//!
//! ```text
//! a check, in the layout of a probe (`probe`), told apart by its first byte:
//! 0      flags: 16 CHECK, and 1 ASK if it is to be answered, or 32 LEAVE: the path is worse than another way, use that
//! 1..8   zero
//! 8..12  token: chosen by who asks, comes back in the answer
//! 12..24 zero
//!
//! a candidate:  fresh --(6 checks in 3 s, none answered)--> given up --(trouble, a minute later; told anew)--> fresh
//!                 |--(one answered)--> answers --(checked every 30 s; at once when there is trouble)--> answers
//! ```
//!
//! Both ends check, also where only one decides: what goes out is what opens a translator (NAT) for what comes in.
//! An answer goes to wherever its question came from, and is no longer than that.
//!
//! A host with several addresses of a family asks from each of them by turns, the kernel's choice first: only one of them may
//! have a way there, or be known to a firewall in between. Which one it was is remembered with what answers.
//!
//! Bounds: `TOLD_MAX` addresses that others tell of, `SEEN_MAX` that checks came from. Of an address that never answered
//! nobody gets more than 6 datagrams of 56 bytes a minute from one path, since anybody may be named there.

use crate::types::Instant;
use crate::wire::Malformed;
use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Bytes of a check.
pub const BODY_LEN: usize = 24;
/// Addresses that a peer, or the mesh, may tell of.
pub const TOLD_MAX: usize = 12;
/// Addresses that are kept because something of the peer came from there.
pub const SEEN_MAX: usize = 4;

const ASK: u8 = 1;
const CHECK: u8 = 16;
const LEAVE: u8 = 32;

/// When an address that has not answered yet is checked, after the first time.
const STAGES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1500),
];
/// How often one that answers is asked again, so that it is known whether it could take over.
const AGAIN: Duration = Duration::from_secs(30);
/// An address that never answered is not tried again sooner, whatever happens.
const REST: Duration = Duration::from_secs(60);
/// A check that is not answered by then is lost.
const LOST: Duration = Duration::from_secs(2);
/// Another address is better if it is nearer by this and by a quarter.
const MARGIN_US: u32 = 2000;

/// A question that waits for its answer.
#[derive(Debug, Clone, Copy)]
struct Asked {
    token: u32,
    at: Instant,
    from: Option<IpAddr>,
}

#[derive(Debug)]
struct Candidate {
    to: SocketAddr,
    /// Our address that reached it; nothing: the kernel's choice.
    from: Option<IpAddr>,
    /// When that one last did.
    from_at: Option<Instant>,
    /// The mesh tells of it; else something came from there.
    told: bool,
    /// Checks sent since it was fresh; beyond the last stage: given up, or at rest.
    stage: usize,
    fresh_at: Instant,
    next: Option<Instant>,
    asked: SmallVec<[Asked; 4]>,
    rtt_us: Option<u32>,
    answered: Option<Instant>,
}

impl Candidate {
    fn new(to: SocketAddr, told: bool, now: Instant) -> Candidate {
        let asked = SmallVec::new();
        Candidate {
            to,
            from: None,
            from_at: None,
            told,
            stage: 0,
            fresh_at: now,
            next: Some(now),
            asked,
            rtt_us: None,
            answered: None,
        }
    }

    /// It answered the last time it was asked long enough ago.
    fn answers(&self, now: Instant) -> bool {
        let Some(answered) = self.answered else { return false };
        let overdue = |asked: &Asked| now - asked.at >= LOST && asked.at > answered;
        now - answered < AGAIN + LOST && !self.asked.iter().any(overdue)
    }

    fn refresh(&mut self, now: Instant) {
        if self.answered.is_some() || now - self.fresh_at >= REST {
            (self.stage, self.fresh_at, self.next) = (0, now, Some(now));
        }
    }

    /// Which of our addresses its next check leaves from.
    fn turn(&self, ours: &[IpAddr]) -> Option<IpAddr> {
        if self.stage >= STAGES.len() {
            return self.from.filter(|from| ours.contains(from));
        }
        let mut of_family = ours.iter().filter(|ip| ip.is_ipv4() == self.to.is_ipv4());
        let turns = of_family.clone().count() + 1;
        of_family.nth((self.stage % turns).checked_sub(1)?).copied()
    }

    fn ask(&mut self, token: u32, from: Option<IpAddr>, now: Instant) {
        if self.asked.len() >= 4 {
            self.asked.remove(0);
        }
        self.asked.push(Asked { token, at: now, from });
        self.stage += 1;
        self.next = match STAGES.get(self.stage) {
            Some(wait) => Some(now + *wait),
            None => self.answered.is_some().then(|| on_grid(now + AGAIN)),
        };
    }
}

/// Timers are rounded up to this grid, so that many share one wake-up.
fn on_grid(at: Instant) -> Instant {
    let grid = 250_000_000;
    Instant::from_nanos(at.nanos().div_ceil(grid) * grid)
}

/// What a check brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// It asks: this goes back to where it came from.
    Asked([u8; BODY_LEN]),
    /// It answers one of ours: that address reaches the peer.
    Answered(SocketAddr),
    /// It answers nothing that is still waited for.
    Late,
    /// The other side would rather not use the path.
    Leave,
}

/// A check to be sealed and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// Where to.
    pub to: SocketAddr,
    /// Our address that it leaves from; nothing: the kernel chooses.
    pub from: Option<IpAddr>,
    /// What is sealed.
    pub body: [u8; BODY_LEN],
}

/// The addresses of one path. See the head of this file.
#[derive(Debug, Default)]
pub struct Candidates {
    list: Vec<Candidate>,
    tokens: u32,
}

/// Asks the other side to use another way.
pub fn leave() -> [u8; BODY_LEN] {
    emit(LEAVE, 0)
}

/// Whether a probe's body is a check.
pub fn is_check(body: &[u8]) -> bool {
    body.first().is_some_and(|flags| flags & CHECK != 0)
}

fn emit(flags: u8, token: u32) -> [u8; BODY_LEN] {
    let mut body = [0; BODY_LEN];
    let [a, b, c, d] = token.to_be_bytes();
    body[0] = CHECK | flags;
    (body[8], body[9], body[10], body[11]) = (a, b, c, d);
    body
}

fn parse(body: &[u8]) -> Result<(u8, u32), Malformed> {
    let fixed: &[u8; BODY_LEN] = body.first_chunk().ok_or(Malformed::Truncated)?;
    let [flags, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, rest @ ..] = *fixed else { return Err(Malformed::Field) };
    if !matches!(flags ^ CHECK, 0 | ASK | LEAVE) || rest != [0; 12] {
        return Err(Malformed::Field);
    }
    Ok((flags ^ CHECK, u32::from_be_bytes([a, b, c, d])))
}

impl Candidates {
    /// The whole list of what the mesh tells; what it does not tell any more is forgotten, the first [`TOLD_MAX`] are kept.
    pub fn tell(&mut self, addresses: &[SocketAddr], now: Instant) {
        let told = addresses.get(..TOLD_MAX).unwrap_or(addresses);
        for candidate in &mut self.list {
            candidate.told = told.contains(&candidate.to);
        }
        // What answers is kept even so: it came from there.
        self.list.retain(|candidate| candidate.told || candidate.answered.is_some());
        for to in told {
            if !self.list.iter().any(|candidate| candidate.to == *to) {
                self.list.push(Candidate::new(*to, true, now));
            }
        }
        self.limit_seen(now);
    }

    /// Something of the peer came from there: it may be what a translator makes of its address. Returns whether it is new.
    pub fn saw(&mut self, from: SocketAddr, now: Instant) -> bool {
        if self.list.iter().any(|candidate| candidate.to == from) {
            return false;
        }
        self.list.push(Candidate::new(from, false, now));
        self.limit_seen(now);
        true
    }

    fn limit_seen(&mut self, now: Instant) {
        let seen = |candidate: &Candidate| !candidate.told;
        while self.list.iter().filter(|candidate| seen(candidate)).count() > SEEN_MAX {
            // The oldest that does not answer, else the oldest.
            let idle = self.list.iter().position(|candidate| seen(candidate) && !candidate.answers(now));
            let Some(at) = idle.or_else(|| self.list.iter().position(seen)) else { return };
            self.list.remove(at);
        }
    }

    /// The path in use is silent, or this machine's addresses are others: all are checked again, as far as the bounds let.
    pub fn trouble(&mut self, now: Instant) {
        self.list.iter_mut().for_each(|candidate| candidate.refresh(now));
    }

    /// The next check to seal and send now. To be called until it has none. `ours`: our addresses, if there are several.
    pub fn poll(&mut self, ours: &[IpAddr], now: Instant) -> Option<Check> {
        let candidate = self.list.iter_mut().find(|candidate| candidate.next.is_some_and(|at| at <= now))?;
        self.tokens = self.tokens.wrapping_add(1);
        let from = candidate.turn(ours);
        candidate.ask(self.tokens, from, now);
        Some(Check { to: candidate.to, from, body: emit(ASK, self.tokens) })
    }

    /// When `poll` may next have something.
    pub fn deadline(&self) -> Option<Instant> {
        self.list.iter().filter_map(|candidate| candidate.next).min()
    }

    /// A check that opened and came from `from`.
    pub fn handle(&mut self, body: &[u8], from: SocketAddr, now: Instant) -> Result<Checked, Malformed> {
        let (kind, token) = parse(body)?;
        match kind {
            ASK => {
                self.saw(from, now);
                return Ok(Checked::Asked(emit(0, token)));
            }
            LEAVE => return Ok(Checked::Leave),
            _ => {}
        }
        let place = |candidate: &Candidate| candidate.asked.iter().position(|asked| asked.token == token);
        let Some((candidate, at)) =
            self.list.iter_mut().find_map(|candidate| place(candidate).map(|at| (candidate, at)))
        else {
            return Ok(Checked::Late);
        };
        let Asked { at: asked, from, .. } = candidate.asked.remove(at);
        // The first of ours that gets there stays the one, until all are tried anew: a line may have died a moment ago.
        let is_stale = candidate.from_at.is_none_or(|at| at < candidate.fresh_at);
        if asked >= candidate.fresh_at && (from == candidate.from || is_stale) {
            (candidate.from, candidate.from_at) = (from, Some(now));
        }
        let rtt = u32::try_from((now - asked).as_micros()).unwrap_or(u32::MAX).max(1);
        // The least of the last few is the distance; the rest is queues.
        candidate.rtt_us = Some(candidate.rtt_us.map_or(rtt, |old| rtt.min(old.saturating_add(old / 8))));
        candidate.answered = Some(now);
        // Two answers are enough to know it; then it rests.
        if candidate.stage >= 2 {
            (candidate.stage, candidate.next) = (STAGES.len(), Some(on_grid(now + AGAIN)));
        }
        Ok(Checked::Answered(candidate.to))
    }

    /// Where the path should lead: `current` while nothing better answers. `silent`: nothing comes back from `current`.
    pub fn best(&self, current: Option<SocketAddr>, silent: bool, now: Instant) -> Option<SocketAddr> {
        let rtt = |candidate: &&Candidate| candidate.rtt_us.unwrap_or(u32::MAX);
        if silent {
            let fresh = |at: Instant| now - at < LOST;
            let others = self.list.iter().filter(|candidate| Some(candidate.to) != current);
            let answering = others.filter(|candidate| candidate.answered.is_some_and(fresh));
            return answering.min_by_key(rtt).map(|candidate| candidate.to).or(current);
        }
        let nearest = self.list.iter().filter(|candidate| candidate.answers(now)).min_by_key(rtt);
        let (Some(nearest), Some(current)) = (nearest, current) else {
            return nearest.map(|candidate| candidate.to).or(current);
        };
        let known = self.list.iter().find(|candidate| candidate.to == current && candidate.answers(now));
        // One that was never checked works all the same.
        let Some(rtt) = known.and_then(|candidate| candidate.rtt_us) else { return Some(current) };
        let margin = |rtt: u32| rtt.saturating_add((rtt / 4).max(MARGIN_US));
        let is_nearer = margin(nearest.rtt_us.unwrap_or(u32::MAX)) < rtt;
        Some(if is_nearer { nearest.to } else { current })
    }

    /// Which of our addresses reached that one when it last answered; nothing: the kernel's choice.
    pub fn reached_from(&self, to: SocketAddr) -> Option<IpAddr> {
        self.list.iter().find(|candidate| candidate.to == to)?.from
    }

    /// Whether it answered within the last two seconds.
    pub fn is_heard(&self, to: SocketAddr, now: Instant) -> bool {
        let heard = |candidate: &Candidate| candidate.answered.is_some_and(|answered| now - answered < LOST);
        self.list.iter().any(|candidate| candidate.to == to && heard(candidate))
    }

    /// Whether the mesh tells of this address.
    pub fn is_told(&self, address: SocketAddr) -> bool {
        self.list.iter().any(|candidate| candidate.to == address && candidate.told)
    }

    /// How many addresses there are, and how many of them answer.
    pub fn count(&self, now: Instant) -> (usize, usize) {
        (self.list.len(), self.list.iter().filter(|candidate| candidate.answers(now)).count())
    }
}

#[cfg(test)]
mod tests;
