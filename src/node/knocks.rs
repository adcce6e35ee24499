//! Keys for paths without links: two letters, a knock and its answer, at the begin and every two minutes.
//!
//! Owns who knocks when, what the letters hold and which are believed; the secrecy is `crypto::knock`'s, the path is
//! `direct`'s.
//!
//! ```text
//! letter's body    1 or 2 (knock, answer), then the message of crypto::knock; in it, sealed:
//! knock            count, both runs, AES, PathOffer (epoch, index, ephemeral), addresses of who knocks
//! answer           AES, PathOffer, addresses
//!
//! who knocks                            who is knocked at
//!   knock(epoch)            ------>  installs: opens it; the first epoch is sealed with at once
//!   installs, activates     <------  answer
//!   heartbeat under it      -- path ->  activates      both: the epoch before is forgotten 10 to 40 s later
//! ```
//!
//! Letters may be lost or come late: who knocks does so again after a second, with a new count, and an answer to an older
//! knock does not open. Of two that knock at each other at once the lower name's knock counts. A knock that was kept and
//! sent again by whoever handed it on is for another run or has an old count, and changes nothing.
//!
//! Bounds: one knock a second of each peer is answered, [`Bucket`] of all together.

use super::Node;
use super::direct::Direct;
use super::paths::{PROBE_OVERHEAD, fresh};
use super::rekey::{EPOCH_AGE, EPOCH_DATAGRAMS, Fresh, RETIRE_AFTER};
use crate::crypto::keys::Ephemeral;
use crate::crypto::knock::{Knock, Pair};
use crate::crypto::seal::Cipher;
use crate::crypto::session::Role;
use crate::plane::fib::PathId;
use crate::plane::path::{Epoch, Path};
use crate::types::{Instant, PeerName, PublicKey, ShortId, Uid};
use crate::wire::message::{PathOffer, Service, decode_body, encode_body};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub(super) const KNOCK: u8 = 1;
const ANSWER: u8 = 2;

/// A knock that is not answered is repeated after this, then twice as long, at most 8 s.
const PATIENCE: Duration = Duration::from_secs(1);
/// Knocks for a first epoch before the peer is taken to be deaf.
const TRIES: u32 = 3;
/// Keys that cannot be replaced are given up at this age, with their path.
const OLDEST: Duration = Duration::from_secs(600);
/// Two knocks of one peer are never answered closer.
const SPACING: Duration = Duration::from_millis(900);
/// Addresses in a letter.
const ADDRESSES_MAX: usize = 8;

/// A knock that waits for its answer.
pub(super) struct Exchange {
    knock: Knock,
    ephemeral: Ephemeral,
    index: u32,
    epoch: u16,
    due: Instant,
}

impl Exchange {
    /// When it is repeated or given up.
    pub fn due(&self) -> Instant {
        self.due
    }
}

/// The last knock of a peer that was believed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    uid: Uid,
    count: u64,
    at: Instant,
}

/// Handshakes of strangers cost time: 20 at once, then 20 a second.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    full_at: Instant,
}

impl Bucket {
    const BURST: u32 = 20;
    const EVERY: Duration = Duration::from_millis(50);

    pub fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now);
        if full_at - now > Self::EVERY * (Self::BURST - 1) {
            return false;
        }
        self.full_at = full_at + Self::EVERY;
        true
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KnockBody {
    pub count: u64,
    pub from: Uid,
    pub to: Uid,
    pub aes: bool,
    pub offer: PathOffer,
    pub addresses: Vec<SocketAddr>,
}

#[derive(Debug, Serialize, Deserialize)]
struct AnswerBody {
    aes: bool,
    offer: PathOffer,
    addresses: Vec<SocketAddr>,
}

impl Direct {
    /// When its keys are to be replaced; who was knocked at waits for the other.
    pub fn rekey_at(&self) -> Instant {
        let age = if self.role == Role::Dialer { EPOCH_AGE } else { OLDEST };
        self.keyed_at + age
    }

    fn needs_keys(&self, now: Instant) -> bool {
        let old = now >= self.rekey_at() || self.path.counter() >= EPOCH_DATAGRAMS;
        self.role == Role::Dialer && self.exchange.is_none() && (self.epoch == 0 || old)
    }

    fn following_epoch(&self) -> u16 {
        self.epoch.checked_add(1).unwrap_or(1)
    }
}

impl Node {
    fn pair<'a>(&'a self, theirs: &'a PublicKey) -> Pair<'a> {
        Pair { ours: &self.config.key, theirs, psk: self.config.psk.as_ref() }
    }

    fn new_direct(&mut self, peer: PeerName, role: Role) -> Option<Direct> {
        let record = self.peers.get(peer)?;
        let whom = (record.key, record.uid);
        let path = Arc::new(Path::new(PathId(self.published.next_path()), ShortId(0)));
        path.set_sealed(self.config.psk.is_some());
        Some(Direct::new(role, path, whom, PROBE_OVERHEAD, self.now))
    }

    /// Begins a path to `peer`.
    pub(super) fn knock(&mut self, peer: PeerName) {
        if let Some(direct) = self.new_direct(peer, Role::Dialer) {
            self.directs.paths.insert(peer, direct);
            self.offer_keys(peer);
        }
    }

    /// Keys that are missing, old or not answered for. `Err`: the path is to be given up, and why.
    pub(super) fn tend_keys(&mut self, peer: PeerName) -> Result<(), String> {
        let now = self.now;
        let Some(direct) = self.directs.paths.get_mut(&peer) else { return Ok(()) };
        if direct.epoch != 0 && now - direct.keyed_at >= OLDEST {
            return Err("its keys cannot be replaced: no way for letters".to_string());
        }
        let unanswered = direct.exchange.as_ref().is_some_and(|exchange| exchange.due <= now);
        if unanswered && direct.epoch == 0 && direct.tries >= TRIES {
            return Err("it does not answer".to_string());
        }
        if unanswered || direct.needs_keys(now) {
            self.offer_keys(peer);
        }
        Ok(())
    }

    fn offer_keys(&mut self, peer: PeerName) {
        let Some((key, uid, epoch)) =
            self.directs.paths.get(&peer).map(|direct| (direct.key, direct.uid, direct.following_epoch()))
        else {
            return;
        };
        let Fresh { index, seed } = self.fresh_index();
        let ephemeral = Ephemeral::new(seed);
        let offer = PathOffer { epoch, index, ephemeral: ephemeral.public() };
        let (count, from, aes) = (self.now.nanos(), self.config.uid, self.config.aes);
        let body = encode_body(&KnockBody { count, from, to: uid, aes, offer, addresses: self.own_candidates() });
        let seed = self.rng.random();
        let knocked = self.pair(&key).knock(seed, &body);
        let Some(direct) = self.directs.paths.get_mut(&peer) else { return };
        let patience = PATIENCE * 2_u32.saturating_pow(direct.tries.min(3));
        direct.tries = direct.tries.saturating_add(1);
        let due = self.now + patience;
        // Without a message their key is none: it is told as deaf in the end.
        let Some((knock, message)) = knocked else { return };
        direct.exchange = Some(Exchange { knock, ephemeral, index, epoch, due });
        self.write_letter(Service::Paths, vec![peer], [&[KNOCK], message.as_slice()].concat());
    }

    /// Our addresses, and what others see of us.
    fn own_candidates(&mut self) -> Vec<SocketAddr> {
        let mut all = self.addresses_of_ours();
        all.truncate(ADDRESSES_MAX);
        all
    }

    /// A letter about paths.
    pub(super) fn path_letter(&mut self, from: PeerName, body: &[u8]) {
        match body.split_first() {
            Some((&KNOCK, message)) => self.knocked(from, message),
            Some((&ANSWER, message)) => self.answered(from, message),
            _ => None,
        };
    }

    /// Somebody knocks. Nothing: it is not believed, or not wanted.
    fn knocked(&mut self, from: PeerName, message: &[u8]) -> Option<()> {
        let (key, uid) = self.peers.get(from).map(|record| (record.key, record.uid))?;
        let heard = self.directs.heard.get(&from).copied().filter(|heard| heard.uid == uid);
        let early = heard.is_some_and(|heard| self.now - heard.at < SPACING);
        let known = self.directs.paths.contains_key(&from);
        if early || !(known || self.makes_direct_paths_with(from)) || !self.directs.bucket.take(self.now) {
            return None;
        }
        let seed = self.rng.random();
        let (knocked, body) = self.pair(&key).open(seed, message)?;
        let body: KnockBody = decode_body(&body).ok()?;
        let stale = heard.is_some_and(|heard| body.count <= heard.count);
        if stale || body.from != uid || body.to != self.config.uid || self.links.up(from).is_some() {
            return None;
        }
        self.directs.heard.insert(from, Heard { uid, count: body.count, at: self.now });
        self.admit(from, &body)?;
        let Fresh { index, seed } = self.fresh_index();
        let ephemeral = Ephemeral::new(seed);
        let offer = PathOffer { epoch: body.offer.epoch, index, ephemeral: ephemeral.public() };
        let answer = AnswerBody { aes: self.config.aes, offer, addresses: self.own_candidates() };
        let (message, hash) = knocked.answer(&encode_body(&answer))?;
        let keys = ephemeral.agree(&body.offer.ephemeral, &hash, offer.epoch, Role::Listener)?;
        let cipher = self.cipher_with(body.aes);
        let addresses = self.addresses_of(from, &body.addresses);
        let now = self.now;
        let direct = self.directs.paths.get_mut(&from)?;
        direct.cipher = cipher;
        direct.path.install(Epoch {
            number: offer.epoch,
            cipher,
            keys,
            our_index: index,
            their_index: body.offer.index,
        });
        if direct.epoch == 0 {
            direct.activate(offer.epoch, RETIRE_AFTER, now);
            direct.since = now;
        } else {
            direct.next_epoch = Some(offer.epoch);
        }
        direct.candidates.tell(&addresses, now);
        self.published.fib_changed = true;
        // What comes under these keys must find the path before the answer brings it about.
        self.publish();
        self.write_letter(Service::Paths, vec![from], [&[ANSWER], message.as_slice()].concat());
        self.tend_directs();
        Some(())
    }

    /// Makes room for what a knock asks for. Nothing: it does not go together with what there is.
    fn admit(&mut self, from: PeerName, body: &KnockBody) -> Option<()> {
        if let Some(direct) = self.directs.paths.get(&from) {
            let ours_counts = direct.role == Role::Dialer && direct.exchange.is_some() && self.me < from;
            if direct.epoch == 0 && ours_counts {
                return None;
            }
            if direct.role == Role::Listener && direct.epoch != 0 && body.offer.epoch == direct.following_epoch() {
                return Some(());
            }
        }
        // They begin anew: what we have is of no use to them.
        if body.offer.epoch != 1 || !self.makes_room_for(from) {
            return None;
        }
        self.end_direct(from, None);
        let direct = self.new_direct(from, Role::Listener)?;
        self.directs.paths.insert(from, direct);
        Some(())
    }

    fn makes_room_for(&self, peer: PeerName) -> bool {
        self.directs.paths.contains_key(&peer) || self.makes_direct_paths_with(peer)
    }

    /// Our knock is answered.
    fn answered(&mut self, from: PeerName, message: &[u8]) -> Option<()> {
        let direct = self.directs.paths.get_mut(&from)?;
        let (body, hash) = direct.exchange.as_mut()?.knock.open(message)?;
        let Exchange { ephemeral, index, epoch, .. } = direct.exchange.take()?;
        let body: AnswerBody = decode_body(&body).ok()?;
        let keys = ephemeral.agree(&body.offer.ephemeral, &hash, epoch, Role::Dialer)?;
        let cipher = self.cipher_with(body.aes);
        let addresses = self.addresses_of(from, &body.addresses);
        let now = self.now;
        let direct = self.directs.paths.get_mut(&from)?;
        let first = direct.epoch == 0;
        direct.cipher = cipher;
        direct.tries = 0;
        direct.path.install(Epoch { number: epoch, cipher, keys, our_index: index, their_index: body.offer.index });
        // The other side seals with the epoch before until our first heartbeat is there.
        direct.activate(epoch, RETIRE_AFTER + Duration::from_secs(30), now);
        if first {
            direct.since = now;
        }
        direct.candidates.tell(&addresses, now);
        self.published.fib_changed = true;
        self.publish();
        self.tend_directs();
        Some(())
    }

    fn cipher_with(&self, aes: bool) -> Cipher {
        if self.config.aes && aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 }
    }

    fn fresh_index(&mut self) -> Fresh {
        let used = self.used_indexes();
        fresh(&mut self.rng, &used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_knocks_at_once_and_then_twenty_a_second() {
        let mut bucket = Bucket::default();
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        assert_eq!((0..100).filter(|_| bucket.take(at(0))).count(), 20);
        assert_eq!((0..1000).filter(|ms| bucket.take(at(*ms))).count(), 19);
        assert_eq!((0..100).filter(|_| bucket.take(at(60_000))).count(), 20);
    }
}
