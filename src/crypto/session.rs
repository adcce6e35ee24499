//! The byte stream of a link: hello, handshake, then messages, encrypted from the first byte that says anything.
//!
//! Owns the order, the framing and the bounds; `handshake` owns the hello and the Noise pattern, `wire::message` what a
//! message holds. Pure: bytes in, bytes and events out. Whoever owns the TCP connection closes it when [`Session::receive`]
//! fails, after flushing what [`Session::take_output`] still has, and does so too when nothing happens for too long.
//!
//! ```text
//! each direction: hello, 8 bytes (handshake.rs), then records:
//!   0      kind: 1 handshake, 2 sealed, 3 refusal in clear
//!   1..3   length of the body, big-endian
//!   3..    body.  handshake: a Noise message, at most 96 bytes.  refusal: 1 byte, wrong password 1, malformed 2
//!                 sealed: a Noise transport message, whose plain text is
//!                   nothing                the listener's confirmation, its first record, never again
//!                   0 | last part          the message is complete
//!                   1 | a full part        65,518 bytes, more follow
//!
//!   dialer    hello ->                           Hello
//!             <- hello          handshake 1 ->   Handshake
//!             <- handshake 2    handshake 3 ->   Confirm
//!             <- sealed, empty                   Open: Authenticated
//!   listener  hello ->                           Hello, then Handshake
//!             <- handshake 3    sealed, empty -> Open: Authenticated
//! ```
//!
//! The dialer counts the listener as authenticated only after its confirmation, which shows that it has the password.
//! A refusal in clear is taken as a hint before that and is malformed after it. Until `Open` nobody makes us hold more
//! than one handshake message; after it, no more than one record and one message of [`MESSAGE_MAX`] bytes.

use super::handshake::{Credentials, HANDSHAKE_MAX, HELLO_LEN, Hello, MAGIC};
use crate::types::{MESSAGE_MAX, Psk, PublicKey, Refusal, StaticKey};
use snow::{HandshakeState, TransportState};
use std::collections::VecDeque;
use std::fmt;
use std::mem;

const HANDSHAKE: u8 = 1;
const SEALED: u8 = 2;
const REFUSAL: u8 = 3;
const HEADER_LEN: usize = 3;
const NOISE_MAX: usize = 65_535;
const TAG_LEN: usize = 16;
/// Bytes of a message in one record: a Noise message less its tag and the byte that says whether more follow.
const PART_MAX: usize = NOISE_MAX - TAG_LEN - 1;
const LAST: u8 = 0;
const MORE: u8 = 1;

/// Which end of the TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It connected.
    Dialer,
    /// It accepted.
    Listener,
}

/// What [`Session::receive`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// The other side has the private half of `key`, and the password if there is one. Always the first event, once.
    Authenticated {
        /// Who it is.
        key: PublicKey,
        /// The handshake's hash: the same on both sides, different for every link.
        hash: [u8; 32],
    },
    /// A whole message.
    Message(Vec<u8>),
}

enum State {
    Hello,
    Handshake(Box<HandshakeState>),
    /// The dialer has said everything and waits for the listener's confirmation.
    Confirm {
        transport: Box<TransportState>,
        hash: [u8; 32],
    },
    Open(Box<TransportState>),
    Failed(Refusal),
}

/// One end of a link's byte stream. See the head of this file.
pub struct Session {
    credentials: Credentials,
    state: State,
    /// The record that is being received, at most one.
    record: Vec<u8>,
    /// The message that is being assembled.
    message: Vec<u8>,
    events: VecDeque<SessionEvent>,
    output: Vec<u8>,
}

impl Session {
    /// A new end with `key` as identity; `seed` must be fresh. The hello is in the output at once.
    pub fn new(role: Role, key: &StaticKey, psk: Option<&Psk>, seed: [u8; 32]) -> Session {
        let hello = Hello::ours(psk.is_some()).emit();
        Session {
            credentials: Credentials { role, key: key.clone(), psk: psk.cloned(), seed },
            state: State::Hello,
            record: Vec::new(),
            message: Vec::new(),
            events: VecDeque::new(),
            output: hello.to_vec(),
        }
    }

    /// Takes bytes of the stream, cut anywhere. On an error the link ends: flush the output, which may hold a hint for the
    /// other side, and close. The refusal is seen from this side; one that the other side gave in clear is not
    /// authenticated. Every later call gives the same error. Drain the events after each call: they hold at most what
    /// `bytes` completed.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        if let State::Failed(refusal) = &self.state {
            return Err(refusal.clone());
        }
        while !bytes.is_empty() {
            let needed = self.needed().saturating_sub(self.record.len());
            let (taken, rest) = bytes.split_at(needed.min(bytes.len()));
            self.record.extend_from_slice(taken);
            bytes = rest;
            if let Err(fault) = self.advance() {
                return Err(self.fail(fault));
            }
        }
        Ok(())
    }

    /// The next event, in the order of the stream.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// Seals `message` into the output. Ignored before [`SessionEvent::Authenticated`], after an error, and above
    /// [`MESSAGE_MAX`] bytes, which the other side would refuse.
    pub fn send(&mut self, message: &[u8]) {
        let State::Open(transport) = &mut self.state else { return };
        if message.len() > MESSAGE_MAX {
            return;
        }
        let mut rest = message;
        let mut more = true;
        while more {
            let (part, after) = rest.split_at(rest.len().min(PART_MAX));
            more = !after.is_empty();
            rest = after;
            let plain = [&[if more { MORE } else { LAST }], part].concat();
            if let Err(refusal) = seal_record(transport, &plain, &mut self.output) {
                self.state = State::Failed(refusal);
                return;
            }
        }
    }

    /// What has to be written to the connection, in order. Empty if nothing is due.
    pub fn take_output(&mut self) -> Vec<u8> {
        mem::take(&mut self.output)
    }
}

/// Why a record ends the link.
enum Fault {
    /// We found it: the other side does not know yet.
    Found(Refusal),
    /// The other side told us.
    Told(Refusal),
}

impl Session {
    /// How long the record is as far as it is known: its header first, then all of it.
    fn needed(&self) -> usize {
        match (&self.state, self.record.first_chunk::<HEADER_LEN>()) {
            (State::Hello, _) => HELLO_LEN,
            (_, None) => HEADER_LEN,
            (_, Some([_, high, low])) => HEADER_LEN + usize::from(u16::from_be_bytes([*high, *low])),
        }
    }

    /// Looks at what `receive` added, which never reaches beyond `needed`.
    fn advance(&mut self) -> Result<(), Fault> {
        if matches!(self.state, State::Hello) {
            return self.hello().map_err(Fault::Found);
        }
        if self.record.len() == HEADER_LEN {
            return self.header().map_err(Fault::Found);
        }
        if self.record.len() < self.needed() {
            return Ok(());
        }
        let record = mem::take(&mut self.record);
        let Some((kind, body)) = record.first().zip(record.get(HEADER_LEN..)) else { return Ok(()) };
        match *kind {
            HANDSHAKE => self.handshake(body).map_err(Fault::Found),
            SEALED => self.sealed(body).map_err(Fault::Found),
            _ => Err(Fault::Told(refusal_in_clear(body))),
        }
    }

    /// A stream that is not ours is noticed at its first wrong byte: whoever sent it may be waiting for an answer.
    fn hello(&mut self) -> Result<(), Refusal> {
        if self.record.iter().zip(&MAGIC).any(|(theirs, ours)| theirs != ours) {
            return Err(Refusal::NotRnet);
        }
        let Some(theirs) = self.record.first_chunk::<HELLO_LEN>().copied() else { return Ok(()) };
        let hello = Hello::ours(self.credentials.psk.is_some());
        Hello::check(hello, &theirs)?;
        let ours = hello.emit();
        let prologue = match self.credentials.role {
            Role::Dialer => [ours, theirs],
            Role::Listener => [theirs, ours],
        };
        let mut noise = self.credentials.start(prologue.as_flattened()).ok_or(Refusal::Malformed)?;
        self.record.clear();
        if noise.is_my_turn() {
            self.say(&mut noise)?;
        }
        self.state = State::Handshake(Box::new(noise));
        Ok(())
    }

    /// Refuses a record by its header, before any of its body is kept.
    fn header(&self) -> Result<(), Refusal> {
        let Some(&[kind, high, low]) = self.record.first_chunk::<HEADER_LEN>() else { return Ok(()) };
        let allowed = match (&self.state, kind) {
            (State::Handshake(_), HANDSHAKE) => 1..=HANDSHAKE_MAX,
            (State::Handshake(_) | State::Confirm { .. }, REFUSAL) => 1..=1,
            (State::Confirm { .. }, SEALED) => TAG_LEN..=TAG_LEN,
            (State::Open(_), SEALED) => TAG_LEN + 1..=NOISE_MAX,
            _ => return Err(Refusal::Malformed),
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if allowed.contains(&length) { Ok(()) } else { Err(Refusal::Malformed) }
    }

    fn handshake(&mut self, body: &[u8]) -> Result<(), Refusal> {
        let State::Handshake(mut noise) = mem::replace(&mut self.state, State::Hello) else {
            return Err(Refusal::Malformed);
        };
        // The password enters with the third message, so everything but the password has been checked when it fails.
        let proving = self.credentials.role == Role::Listener && noise.was_write_payload_encrypted();
        let password = proving && self.credentials.psk.is_some();
        let mut payload = [0; HANDSHAKE_MAX];
        match noise.read_message(body, &mut payload) {
            Ok(0) => {}
            Err(_) if password => return Err(Refusal::WrongPassword),
            Ok(_) | Err(_) => return Err(Refusal::Malformed),
        }
        if !noise.is_handshake_finished() {
            self.say(&mut noise)?;
        }
        self.state = if noise.is_handshake_finished() { self.finish(*noise)? } else { State::Handshake(noise) };
        Ok(())
    }

    /// Our next message of the handshake.
    fn say(&mut self, noise: &mut HandshakeState) -> Result<(), Refusal> {
        let mut message = [0; HANDSHAKE_MAX];
        let length = noise.write_message(&[], &mut message).map_err(|_| Refusal::Malformed)?;
        record_header(HANDSHAKE, length, &mut self.output);
        self.output.extend(message.iter().take(length));
        Ok(())
    }

    /// All three messages are through: the listener confirms, the dialer waits for that.
    fn finish(&mut self, noise: HandshakeState) -> Result<State, Refusal> {
        let hash = noise.get_handshake_hash().try_into().map_err(|_| Refusal::Malformed)?;
        let mut transport = Box::new(noise.into_transport_mode().map_err(|_| Refusal::Malformed)?);
        if self.credentials.role == Role::Dialer {
            return Ok(State::Confirm { transport, hash });
        }
        self.events.push_back(authenticated(&transport, hash)?);
        seal_record(&mut transport, &[], &mut self.output)?;
        Ok(State::Open(transport))
    }

    fn sealed(&mut self, body: &[u8]) -> Result<(), Refusal> {
        if let State::Confirm { .. } = self.state {
            return self.confirmed(body);
        }
        let State::Open(transport) = &mut self.state else { return Err(Refusal::Malformed) };
        let mut plain = vec![0; body.len()];
        let length = transport.read_message(body, &mut plain).map_err(|_| Refusal::Malformed)?;
        let Some((flag, part)) = plain.get(..length).and_then(<[u8]>::split_first) else {
            return Err(Refusal::Malformed);
        };
        // Only full parts may be followed by another, else a message could be endless without ever growing.
        let well_formed = *flag == LAST || (*flag == MORE && part.len() == PART_MAX);
        if !well_formed || self.message.len() + part.len() > MESSAGE_MAX {
            return Err(Refusal::Malformed);
        }
        self.message.extend_from_slice(part);
        if *flag == LAST {
            self.events.push_back(SessionEvent::Message(mem::take(&mut self.message)));
        }
        Ok(())
    }

    fn confirmed(&mut self, body: &[u8]) -> Result<(), Refusal> {
        let State::Confirm { mut transport, hash } = mem::replace(&mut self.state, State::Hello) else {
            return Err(Refusal::Malformed);
        };
        transport.read_message(body, &mut [0; TAG_LEN]).map_err(|_| Refusal::Malformed)?;
        self.events.push_back(authenticated(&transport, hash)?);
        self.state = State::Open(transport);
        Ok(())
    }

    fn fail(&mut self, fault: Fault) -> Refusal {
        let confirmed = matches!(self.state, State::Open(_));
        let refusal = match fault {
            Fault::Told(refusal) => refusal,
            Fault::Found(refusal) => {
                let code = hint(&refusal).filter(|_| !confirmed);
                if let Some(code) = code {
                    record_header(REFUSAL, 1, &mut self.output);
                    self.output.push(code);
                }
                refusal
            }
        };
        self.record = Vec::new();
        self.message = Vec::new();
        self.state = State::Failed(refusal.clone());
        refusal
    }
}

/// What helps the other side and gives nothing away. Everything else it can read from our hello.
fn hint(refusal: &Refusal) -> Option<u8> {
    match refusal {
        Refusal::WrongPassword => Some(1),
        Refusal::Malformed => Some(2),
        _ => None,
    }
}

fn refusal_in_clear(body: &[u8]) -> Refusal {
    if body == [1] { Refusal::WrongPassword } else { Refusal::Malformed }
}

fn authenticated(transport: &TransportState, hash: [u8; 32]) -> Result<SessionEvent, Refusal> {
    let key = transport.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(Refusal::Malformed)?;
    Ok(SessionEvent::Authenticated { key: PublicKey(key), hash })
}

fn record_header(kind: u8, length: usize, into: &mut Vec<u8>) {
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    into.extend([kind, high, low]);
}

/// Fails only after 2^64 records, or for a plain text that does not fit into one; then nothing is written.
fn seal_record(transport: &mut TransportState, plain: &[u8], into: &mut Vec<u8>) -> Result<(), Refusal> {
    let mut body = vec![0; plain.len() + TAG_LEN];
    let length = transport.write_message(plain, &mut body).map_err(|_| Refusal::Malformed)?;
    record_header(SEALED, length, into);
    into.extend(body.iter().take(length));
    Ok(())
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Hello => "hello",
            State::Handshake(_) => "handshake",
            State::Confirm { .. } => "confirm",
            State::Open(_) => "open",
            State::Failed(_) => "failed",
        };
        f.debug_struct("Session").field("role", &self.credentials.role).field("state", &state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
