//! One link: from the first byte of a TCP connection to its end.
//!
//! Owns the session, the order of the first messages, keepalive, and how much is on its way to the other side. Does not
//! decide who may link (`node::admit` does, when asked by `Introduced`) nor what messages mean.
//!
//! ```text
//! Handshake --(key proven)--> Intro --(theirs came)--> Asked --accept()--> Accepted --(any message but Refuse)--> Up
//!     |                         |                        |                    |                                   |
//!     '-------------------------'--- 5 s at most --------'--------------------'            5 s of silence         |
//!                                         any ---- refuse(), Refuse from them, malformed ----> Closed <-----------'
//! ```
//!
//! Each side sends its Intro, decides on the other's, and on acceptance sends a Ping: whatever comes after an Intro
//! other than Refuse tells that the other side accepted too, so `Up` comes on both sides or on none. Ping 0 each second
//! keeps the link alive and is not answered; other nonces are.
//!
//! Bounds: `URGENT_MAX` bytes not yet taken by the kernel, beyond which the link is closed as too slow; of gossip the
//! owner keeps one body per channel on its way.

use crate::crypto::session::{Role, Session, SessionEvent};
use crate::types::{Instant, Psk, PublicKey, Refusal, StaticKey};
use crate::wire::message::{Intro, Message};
use std::collections::VecDeque;
use std::time::Duration;

/// Handshake and introduction take at most this long.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A link is dead after this long without a byte.
pub const DEAD_AFTER: Duration = Duration::from_secs(5);
/// Each side says something at least this often. Two may be lost before [`DEAD_AFTER`]; every second would
/// find nothing sooner, for a path's probes do, and costs an idle router with 10 links a tenth of its processor time.
pub const KEEPALIVE: Duration = Duration::from_secs(2);
/// How long a challenged link has to prove that it is alive.
pub const CHALLENGE_TIMEOUT: Duration = Duration::from_millis(1500);
/// Bytes that may be on their way to the other side besides gossip.
pub const URGENT_MAX: usize = 1 << 20;
/// Bytes not yet taken by the kernel beyond which no letter is added.
pub const LETTERS_MAX: usize = 4 << 20;
/// A link whose other side takes nothing for this long is closed.
pub const STALLED_MAX: Duration = Duration::from_secs(30);

/// Timers are rounded down to this grid, so that many links share one wake-up.
const GRID_NANOS: u64 = 250_000_000;

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// By us; the other side was told where that was possible.
    Ours(Refusal),
    /// By the other side, as we have to read it.
    Theirs(Refusal),
}

impl Ending {
    /// The refusal, whoever said it.
    pub fn refusal(&self) -> &Refusal {
        match self {
            Ending::Ours(refusal) | Ending::Theirs(refusal) => refusal,
        }
    }
}

/// What happened on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// The other side proved that it has this key. To be refused here if it may not join.
    Authenticated(PublicKey),
    /// It introduced itself: to be answered by `accept` or `refuse`, now or later.
    Introduced(Intro),
    /// Both sides accepted.
    Up,
    /// A message for the owner: gossip or keys.
    Message(Message),
    /// It answered the challenge.
    Alive,
    /// It is over. What `take_output` still has is to be flushed.
    Closed(Ending),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Handshake,
    Intro,
    Asked,
    Accepted,
    Up,
    Closed,
}

/// What a link is made of.
pub struct Setup<'a> {
    /// Who dialled.
    pub role: Role,
    /// Our identity.
    pub key: &'a StaticKey,
    /// The mesh's password, derived.
    pub psk: Option<&'a Psk>,
    /// Fresh random bytes, never used before.
    pub seed: [u8; 32],
    /// What we say of ourselves; its connection number is fresh.
    pub intro: Intro,
}

/// The machine. See the head of this file.
pub struct Link {
    session: Session,
    role: Role,
    phase: Phase,
    intro: Intro,
    /// Theirs, once it came.
    theirs: Option<Intro>,
    they_accepted: bool,
    key: Option<PublicKey>,
    hash: [u8; 32],
    events: VecDeque<LinkEvent>,
    /// The introduction must be over by then.
    ready_by: Instant,
    heard_at: Instant,
    ping_at: Instant,
    challenge: Option<(u64, Instant)>,
    /// Bytes handed out since the kernel last had taken all.
    undrained: usize,
    /// Of these, gossip.
    gossip: usize,
    stalled_at: Option<Instant>,
}

impl Link {
    /// A connection that has just been made.
    pub fn new(setup: Setup<'_>, now: Instant) -> Link {
        Link {
            session: Session::new(setup.role, setup.key, setup.psk, setup.seed),
            role: setup.role,
            phase: Phase::Handshake,
            intro: setup.intro,
            theirs: None,
            they_accepted: false,
            key: None,
            hash: [0; 32],
            events: VecDeque::new(),
            ready_by: now + HANDSHAKE_TIMEOUT,
            heard_at: now,
            ping_at: now,
            challenge: None,
            undrained: 0,
            gossip: 0,
            stalled_at: None,
        }
    }

    /// Who dialled.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The other side's key, once proven.
    pub fn key(&self) -> Option<PublicKey> {
        self.key
    }

    /// The handshake's hash: the same on both ends and on no other link. Zero before it ended.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// What we said of ourselves.
    pub fn ours(&self) -> &Intro {
        &self.intro
    }

    /// What the other side said of itself.
    pub fn theirs(&self) -> Option<&Intro> {
        self.theirs.as_ref()
    }

    /// Decides duplicates: of two links between the same two runs the lower one stays, on both ends.
    pub fn rank(&self) -> u64 {
        self.intro.connection ^ self.theirs.as_ref().map_or(0, |intro| intro.connection)
    }

    /// Both sides accepted.
    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// We accepted, and it did not end since.
    pub fn is_accepted(&self) -> bool {
        matches!(self.phase, Phase::Accepted | Phase::Up)
    }

    /// It is over.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// How long it has been silent.
    pub fn silent_for(&self, now: Instant) -> Duration {
        now - self.heard_at
    }

    /// Bytes that arrived.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) {
        if self.is_closed() {
            return;
        }
        self.heard_at = now;
        let result = self.session.receive(bytes);
        while let Some(event) = self.session.poll_event() {
            self.session_event(event);
            if self.is_closed() {
                return;
            }
        }
        if let Err(refusal) = result {
            // The session has put what can be told into its output.
            self.close(Ending::Ours(refusal));
        }
    }

    fn session_event(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Authenticated { key, hash } => {
                (self.key, self.hash, self.phase) = (Some(key), hash, Phase::Intro);
                self.transmit(&Message::Intro(self.intro.clone()));
                self.events.push_back(LinkEvent::Authenticated(key));
            }
            SessionEvent::Message(bytes) => match Message::decode(&bytes) {
                Ok(message) => self.message(message),
                Err(_) => self.refuse(Refusal::Malformed),
            },
        }
    }

    fn message(&mut self, message: Message) {
        match (self.phase, message) {
            (_, Message::Refuse(refusal)) => self.close(Ending::Theirs(refusal)),
            (Phase::Intro, Message::Intro(intro)) => {
                self.phase = Phase::Asked;
                self.theirs = Some(intro.clone());
                self.events.push_back(LinkEvent::Introduced(intro));
            }
            // The other side decided before we did. Until it hears from us it has nothing else to say.
            (Phase::Asked, Message::Ping { .. }) => self.they_accepted = true,
            (Phase::Accepted, message) => {
                self.up();
                self.deliver(message);
            }
            (Phase::Up, message) => self.deliver(message),
            _ => self.refuse(Refusal::Malformed),
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Ping { nonce: 0 } => {}
            Message::Ping { nonce } => self.send(&Message::Pong { nonce }),
            Message::Pong { nonce } => {
                if self.challenge.is_some_and(|(asked, _)| asked == nonce) {
                    self.challenge = None;
                    self.events.push_back(LinkEvent::Alive);
                }
            }
            Message::Intro(_) => self.refuse(Refusal::Malformed),
            message => self.events.push_back(LinkEvent::Message(message)),
        }
    }

    /// What happened, in order.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// Takes the other side in, after `Introduced`.
    pub fn accept(&mut self, now: Instant) {
        if self.phase == Phase::Asked {
            self.phase = Phase::Accepted;
            self.ready_by = now + HANDSHAKE_TIMEOUT;
            self.ping_at = self.next_ping(now);
            self.transmit(&Message::Ping { nonce: 0 });
            if self.they_accepted {
                self.up();
            }
        }
    }

    fn up(&mut self) {
        self.phase = Phase::Up;
        self.events.push_back(LinkEvent::Up);
    }

    /// Ends the link and tells the other side why, if there are keys to tell it with.
    pub fn refuse(&mut self, refusal: Refusal) {
        if self.is_closed() {
            return;
        }
        if self.phase > Phase::Handshake {
            self.transmit(&Message::Refuse(refusal.clone().mirrored()));
        }
        self.close(Ending::Ours(refusal));
    }

    fn close(&mut self, ending: Ending) {
        self.phase = Phase::Closed;
        self.events.push_back(LinkEvent::Closed(ending));
    }

    /// Asks the other side to prove that it is alive; `nonce` is random and not 0. Answered by `Alive`.
    pub fn challenge(&mut self, nonce: u64, now: Instant) {
        self.challenge = Some((nonce, now + CHALLENGE_TIMEOUT));
        self.send(&Message::Ping { nonce });
    }

    /// It was challenged and neither answered nor ran out of time.
    pub fn is_challenged(&self) -> bool {
        self.challenge.is_some()
    }

    /// The challenge's time is over and it was not answered.
    pub fn failed_challenge(&self, now: Instant) -> bool {
        self.challenge.is_some_and(|(_, until)| now >= until)
    }

    /// Sends a small message now. A link whose other side does not take what it is sent is closed.
    pub fn send(&mut self, message: &Message) {
        if !self.is_accepted() {
            return;
        }
        if self.undrained > URGENT_MAX.saturating_add(self.gossip) {
            self.close(Ending::Ours(Refusal::TooSlow));
            return;
        }
        self.transmit(message);
    }

    /// Sends one body of gossip. The owner sends no other of its channel before the kernel has taken all.
    pub fn send_gossip(&mut self, message: &Message) {
        if self.is_up() {
            let bytes = message.encode();
            // Sealing adds 18 bytes to each 64 KiB; the difference is nothing to `URGENT_MAX`.
            self.gossip = self.gossip.saturating_add(bytes.len());
            self.session.send(&bytes);
        }
    }

    /// Sends a letter, unless the other side is behind with what it was sent: then it is lost, and answered false.
    pub fn send_letter(&mut self, message: &Message) -> bool {
        let room = self.is_up() && self.gossip.max(self.undrained) < LETTERS_MAX;
        if room {
            self.send_gossip(message);
        }
        room
    }

    /// The kernel has taken all.
    pub fn drained(&mut self) {
        self.undrained = 0;
        self.gossip = 0;
        self.stalled_at = None;
    }

    fn transmit(&mut self, message: &Message) {
        self.session.send(&message.encode());
    }

    /// Bytes for the other side; empty if there are none.
    pub fn take_output(&mut self) -> Vec<u8> {
        let bytes = self.session.take_output();
        self.undrained = self.undrained.saturating_add(bytes.len());
        bytes
    }

    /// Time passed: keepalive and deaths.
    pub fn handle(&mut self, now: Instant) {
        match self.phase {
            Phase::Closed => return,
            Phase::Up if now >= self.heard_at + DEAD_AFTER => return self.refuse(Refusal::Timeout),
            Phase::Up => {}
            _ if now >= self.ready_by => return self.refuse(Refusal::Timeout),
            _ => {}
        }
        if self.undrained > 0 && now >= *self.stalled_at.get_or_insert(now) + STALLED_MAX {
            return self.refuse(Refusal::TooSlow);
        }
        if self.is_accepted() && now >= self.ping_at {
            self.ping_at = self.next_ping(now);
            self.send(&Message::Ping { nonce: 0 });
        }
    }

    fn next_ping(&self, now: Instant) -> Instant {
        Instant::from_nanos((now + KEEPALIVE).nanos() / GRID_NANOS * GRID_NANOS)
    }

    /// When `handle` has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let at = match self.phase {
            Phase::Closed => return None,
            Phase::Up => self.ping_at.min(self.heard_at + DEAD_AFTER),
            Phase::Accepted => self.ping_at.min(self.ready_by),
            _ => self.ready_by,
        };
        Some(self.challenge.map_or(at, |(_, until)| at.min(until)))
    }
}

#[cfg(test)]
mod tests;
