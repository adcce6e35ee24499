//! The data keys of one path: a fresh exchange at the start, every two minutes, and every 2^32 datagrams.
//!
//! Owns who offers when, the numbers of epochs and when an old one is given up. Does not hold keys: they go to the
//! `Path` as they are agreed. Messages travel on the path's link, in order and authenticated.
//!
//! ```text
//! dialer                                   listener
//!   PathOffer(epoch, index, ephemeral) ------>  agree, install: opens it from now on
//!   agree, install, activate      <------ PathAnswer(epoch, index, ephemeral)
//!   PathReady(epoch)              ------>  activate: seals with it from now on
//!        40 s later: retire the previous epoch        10 s later: likewise
//! ```
//!
//! The dialer does not hear when the listener has stopped to seal with the previous epoch: as late as its patience with an
//! exchange, 30 s.
//!
//! Bounds: one exchange at a time, epochs in order, offers at least a second apart; anything else is a malformed link. An
//! exchange that takes longer than 30 s ends the link.

use crate::crypto::keys::{Ephemeral, EpochKeys};
use crate::crypto::session::Role;
use crate::types::{Instant, Refusal};
use crate::wire::message::{Message, PathOffer};
use std::time::Duration;

/// Age at which an epoch is replaced.
pub const EPOCH_AGE: Duration = Duration::from_secs(120);
/// Datagrams after which an epoch is replaced.
pub const EPOCH_DATAGRAMS: u64 = 1 << 32;
/// How long a replaced epoch is still opened after the other side has stopped to seal with it.
pub const RETIRE_AFTER: Duration = Duration::from_secs(10);
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);
const OFFER_SPACING: Duration = Duration::from_secs(1);

/// What is to be done with the path or the link.
pub enum KeyStep {
    /// Say this on the link.
    Send(Message),
    /// Open datagrams of this epoch from now on.
    Install {
        /// Its number.
        epoch: u16,
        /// Its keys, for both directions.
        keys: EpochKeys,
        /// The receiver index in datagrams to us.
        our_index: u32,
        /// The receiver index in datagrams to them.
        their_index: u32,
    },
    /// Seal with this epoch from now on.
    Activate(u16),
    /// Forget this epoch.
    Retire(u16),
}

/// Fresh randomness for one exchange: a receiver index that no other epoch of ours uses, and a seed.
pub struct Fresh {
    /// Receiver index.
    pub index: u32,
    /// Seed of the ephemeral key.
    pub seed: [u8; 32],
}

enum Exchange {
    None,
    /// Dialer: offered, not answered.
    Offered {
        ephemeral: Ephemeral,
        index: u32,
        since: Instant,
    },
    /// Listener: answered, not ready.
    Answered {
        since: Instant,
    },
}

/// The machine of one path. See the head of this file.
pub struct Rekey {
    role: Role,
    hash: [u8; 32],
    /// The epoch that seals; 0 before the first.
    active: u16,
    active_since: Instant,
    exchange: Exchange,
    retire: Option<(u16, Instant)>,
}

impl Rekey {
    /// Keys for the path of the link whose handshake had this hash.
    pub fn new(role: Role, hash: [u8; 32], now: Instant) -> Rekey {
        Rekey { role, hash, active: 0, active_since: now, exchange: Exchange::None, retire: None }
    }

    /// The epoch that seals; 0 before the first.
    pub fn active(&self) -> u16 {
        self.active
    }

    fn next_epoch(&self) -> u16 {
        self.active.checked_add(1).unwrap_or(1)
    }

    /// The dialer's first exchange is due at once, the next when the epoch is old or `sealed` datagrams are many.
    pub fn due(&self, sealed: u64, now: Instant) -> bool {
        let old = now >= self.active_since + EPOCH_AGE || sealed >= EPOCH_DATAGRAMS;
        self.role == Role::Dialer && matches!(self.exchange, Exchange::None) && (self.active == 0 || old)
    }

    /// Time passed; `sealed`: datagrams in the active epoch. `Err`: the link is to be closed.
    pub fn handle(
        &mut self,
        sealed: u64,
        fresh: impl FnOnce() -> Fresh,
        now: Instant,
    ) -> Result<Vec<KeyStep>, Refusal> {
        let mut steps = Vec::new();
        if let Some((epoch, at)) = self.retire
            && now >= at
        {
            self.retire = None;
            steps.push(KeyStep::Retire(epoch));
        }
        if let Exchange::Offered { since, .. } | Exchange::Answered { since } = self.exchange
            && now >= since + EXCHANGE_TIMEOUT
        {
            return Err(Refusal::Timeout);
        }
        if self.due(sealed, now) {
            let Fresh { index, seed } = fresh();
            let ephemeral = Ephemeral::new(seed);
            let offer = PathOffer { epoch: self.next_epoch(), index, ephemeral: ephemeral.public() };
            self.exchange = Exchange::Offered { ephemeral, index, since: now };
            steps.push(KeyStep::Send(Message::PathOffer(offer)));
        }
        Ok(steps)
    }

    /// When `handle` has something to do, if no more than 2^32 datagrams are sealed before.
    pub fn deadline(&self) -> Instant {
        let at = match self.exchange {
            Exchange::None if self.active == 0 => self.active_since,
            Exchange::None => self.active_since + EPOCH_AGE,
            Exchange::Offered { since, .. } | Exchange::Answered { since } => since + EXCHANGE_TIMEOUT,
        };
        // A listener waits for the other side's offer, without a time of its own.
        let at = if self.role == Role::Listener && matches!(self.exchange, Exchange::None) {
            Instant::from_nanos(u64::MAX)
        } else {
            at
        };
        self.retire.map_or(at, |(_, retire)| at.min(retire))
    }

    /// A message about keys from the other side. `Err`: the link is to be closed.
    pub fn receive(
        &mut self,
        message: &Message,
        fresh: impl FnOnce() -> Fresh,
        now: Instant,
    ) -> Result<Vec<KeyStep>, Refusal> {
        match (self.role, message) {
            (Role::Listener, Message::PathOffer(offer)) => self.offered(offer, fresh, now),
            (Role::Dialer, Message::PathAnswer(answer)) => self.answered(answer, now),
            (Role::Listener, Message::PathReady { epoch }) => self.ready(*epoch, now),
            _ => Err(Refusal::Malformed),
        }
    }

    fn offered(
        &mut self,
        offer: &PathOffer,
        fresh: impl FnOnce() -> Fresh,
        now: Instant,
    ) -> Result<Vec<KeyStep>, Refusal> {
        let early = self.active != 0 && now - self.active_since < OFFER_SPACING;
        if !matches!(self.exchange, Exchange::None) || offer.epoch != self.next_epoch() || early {
            return Err(Refusal::Malformed);
        }
        let Fresh { index, seed } = fresh();
        let ephemeral = Ephemeral::new(seed);
        let answer = PathOffer { epoch: offer.epoch, index, ephemeral: ephemeral.public() };
        let keys = ephemeral.agree(&offer.ephemeral, &self.hash, offer.epoch, self.role).ok_or(Refusal::Malformed)?;
        self.exchange = Exchange::Answered { since: now };
        let install = KeyStep::Install { epoch: offer.epoch, keys, our_index: index, their_index: offer.index };
        let mut steps = self.retire_now();
        steps.extend([install, KeyStep::Send(Message::PathAnswer(answer))]);
        Ok(steps)
    }

    fn answered(&mut self, answer: &PathOffer, now: Instant) -> Result<Vec<KeyStep>, Refusal> {
        let Exchange::Offered { ephemeral, index, .. } = std::mem::replace(&mut self.exchange, Exchange::None) else {
            return Err(Refusal::Malformed);
        };
        let epoch = self.next_epoch();
        if answer.epoch != epoch {
            return Err(Refusal::Malformed);
        }
        let keys = ephemeral.agree(&answer.ephemeral, &self.hash, epoch, self.role).ok_or(Refusal::Malformed)?;
        let mut steps = self.retire_now();
        steps.push(KeyStep::Install { epoch, keys, our_index: index, their_index: answer.index });
        steps.push(KeyStep::Activate(epoch));
        steps.push(KeyStep::Send(Message::PathReady { epoch }));
        self.activated(epoch, now);
        Ok(steps)
    }

    fn ready(&mut self, epoch: u16, now: Instant) -> Result<Vec<KeyStep>, Refusal> {
        if !matches!(self.exchange, Exchange::Answered { .. }) || epoch != self.next_epoch() {
            return Err(Refusal::Malformed);
        }
        self.exchange = Exchange::None;
        self.activated(epoch, now);
        Ok(vec![KeyStep::Activate(epoch)])
    }

    fn activated(&mut self, epoch: u16, now: Instant) {
        if self.active != 0 {
            let sealing = if self.role == Role::Dialer { EXCHANGE_TIMEOUT } else { Duration::ZERO };
            self.retire = Some((self.active, now + sealing + RETIRE_AFTER));
        }
        (self.active, self.active_since) = (epoch, now);
    }

    /// A path has room for two epochs: what still waits to be retired goes before a third comes.
    fn retire_now(&mut self) -> Vec<KeyStep> {
        self.retire.take().map(|(epoch, _)| KeyStep::Retire(epoch)).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn fresh(n: u8) -> impl FnOnce() -> Fresh {
        move || Fresh { index: n.into(), seed: [n; 32] }
    }

    /// Runs one exchange; returns what each end did to its path.
    fn exchange(dialer: &mut Rekey, listener: &mut Rekey, sealed: u64, now: Instant) -> [Vec<KeyStep>; 2] {
        let mut done = [Vec::new(), Vec::new()];
        let mut steps = dialer.handle(sealed, fresh(1), now).unwrap();
        let mut end = 0;
        while !steps.is_empty() {
            let mut next = Vec::new();
            for step in steps {
                match step {
                    KeyStep::Send(message) => {
                        let other: &mut Rekey = if end == 0 { listener } else { dialer };
                        next.extend(other.receive(&message, fresh(2), now).unwrap());
                    }
                    step => done[end].push(step),
                }
            }
            (steps, end) = (next, 1 - end);
        }
        done
    }

    fn pair() -> (Rekey, Rekey) {
        (Rekey::new(Role::Dialer, [9; 32], at(0)), Rekey::new(Role::Listener, [9; 32], at(0)))
    }

    #[test]
    fn both_ends_agree_on_keys_and_indexes() {
        let (mut dialer, mut listener) = pair();
        let [mine, theirs] = exchange(&mut dialer, &mut listener, 0, at(0));
        let (KeyStep::Install { keys: a, our_index: 1, their_index: 2, .. }, KeyStep::Activate(1)) =
            (&mine[0], &mine[1])
        else {
            panic!()
        };
        let (KeyStep::Install { keys: b, our_index: 2, their_index: 1, .. }, KeyStep::Activate(1)) =
            (&theirs[0], &theirs[1])
        else {
            panic!()
        };
        assert!(a.seal == b.open && a.open == b.seal && a.seal != a.open);
        assert_eq!((dialer.active(), listener.active()), (1, 1));
    }

    #[test]
    fn replaces_keys_by_age_and_by_count_and_retires_the_old() {
        let (mut dialer, mut listener) = pair();
        exchange(&mut dialer, &mut listener, 0, at(0));
        assert!(dialer.handle(EPOCH_DATAGRAMS - 1, fresh(1), at(119_000)).unwrap().is_empty());
        assert_eq!(dialer.deadline(), at(120_000));
        exchange(&mut dialer, &mut listener, 0, at(120_000));
        assert_eq!((dialer.active(), listener.active()), (2, 2));
        assert!(listener.handle(0, fresh(1), at(129_999)).unwrap().is_empty());
        assert!(matches!(listener.handle(0, fresh(1), at(130_000)).unwrap()[..], [KeyStep::Retire(1)]));
        assert!(dialer.handle(0, fresh(1), at(159_999)).unwrap().is_empty());
        assert!(matches!(dialer.handle(0, fresh(1), at(160_000)).unwrap()[..], [KeyStep::Retire(1)]));
        exchange(&mut dialer, &mut listener, EPOCH_DATAGRAMS, at(170_000));
        assert_eq!((dialer.active(), listener.active()), (3, 3));
    }

    #[test]
    fn epoch_numbers_wrap_past_zero() {
        let (mut dialer, mut listener) = pair();
        (dialer.active, listener.active) = (u16::MAX, u16::MAX);
        exchange(&mut dialer, &mut listener, EPOCH_DATAGRAMS, at(5000));
        assert_eq!((dialer.active(), listener.active()), (1, 1));
    }

    #[test]
    fn refuses_messages_out_of_order() {
        let (mut dialer, mut listener) = pair();
        let offer = PathOffer { epoch: 2, index: 7, ephemeral: [9; 32] };
        for message in [Message::PathOffer(offer), Message::PathReady { epoch: 1 }, Message::PathAnswer(offer)] {
            assert!(listener.receive(&message, fresh(2), at(0)).is_err(), "{message:?}");
            assert!(dialer.receive(&message, fresh(2), at(0)).is_err(), "{message:?}");
        }
        exchange(&mut dialer, &mut listener, 0, at(0));
        assert!(listener.receive(&Message::PathOffer(offer), fresh(2), at(500)).is_err(), "too early");
    }

    #[test]
    fn refuses_a_low_order_point() {
        let (_, mut listener) = pair();
        let offer = PathOffer { epoch: 1, index: 7, ephemeral: [0; 32] };
        assert!(listener.receive(&Message::PathOffer(offer), fresh(2), at(0)).is_err());
    }

    #[test]
    fn an_exchange_that_hangs_ends_the_link() {
        let (mut dialer, _) = pair();
        dialer.handle(0, fresh(1), at(0)).unwrap();
        assert!(dialer.handle(0, fresh(1), at(29_000)).unwrap().is_empty());
        assert!(dialer.handle(0, fresh(1), at(30_000)).is_err());
    }
}
