//! Two messages by which two peers that have no link agree on keys, handed on by others that must not read them.
//!
//! Owns the Noise pattern and the order of its two messages; what they carry is `node::direct`'s. Both ends know each
//! other's static key beforehand, from the topology, so whoever hands a message on can neither read it nor answer it.
//!
//! ```text
//! Noise_KKpsk0_25519_ChaChaPoly_SHA256 with a password, Noise_KK_25519_ChaChaPoly_SHA256 without (noiseprotocol.org)
//! prologue = "rnet knock v1"
//!   -> e, es, ss   32 bytes, the sealed body, 16 bytes
//!   <- e, ee, se   32 bytes, the sealed body, 16 bytes
//! ```
//!
//! The first message can be replayed to its receiver: its body must say which run of which peer it is for, and count. The
//! second cannot. The path's keys come from fresh halves inside the bodies and from `hash`, as those of a link's path do
//! (`keys`), so that a static key that is found later opens nothing of before.

use super::handshake::Seeded;
use crate::types::{Psk, PublicKey, StaticKey};
use snow::{Builder, HandshakeState};

const PROLOGUE: &[u8] = b"rnet knock v1";
/// Bytes that a message has besides its body.
pub const OVERHEAD: usize = 48;
/// The longest body, bytes.
pub const BODY_MAX: usize = 1024;

/// What one end brings.
#[derive(Clone, Copy)]
pub struct Pair<'a> {
    /// Our identity.
    pub ours: &'a StaticKey,
    /// Whom it is with.
    pub theirs: &'a PublicKey,
    /// The password's key.
    pub psk: Option<&'a Psk>,
}

/// Who knocked and waits for the answer.
pub struct Knock(HandshakeState);

/// Who was knocked at and has not answered yet.
pub struct Knocked(HandshakeState);

impl Pair<'_> {
    fn start(&self, seed: [u8; 32], knocks: bool) -> Option<HandshakeState> {
        let pattern = match self.psk {
            Some(_) => "Noise_KKpsk0_25519_ChaChaPoly_SHA256",
            None => "Noise_KK_25519_ChaChaPoly_SHA256",
        };
        let mut builder = Builder::with_resolver(pattern.parse().ok()?, Box::new(Seeded { seed }));
        builder = builder.local_private_key(&self.ours.0).ok()?.remote_public_key(&self.theirs.0).ok()?;
        builder = builder.prologue(PROLOGUE).ok()?;
        if let Some(psk) = self.psk {
            builder = builder.psk(0, &psk.0).ok()?;
        }
        if knocks { builder.build_initiator() } else { builder.build_responder() }.ok()
    }

    /// Begins: the first message, with `body`. `seed` is fresh. Nothing if their key is none, or the body is too long.
    pub fn knock(&self, seed: [u8; 32], body: &[u8]) -> Option<(Knock, Vec<u8>)> {
        let mut state = self.start(seed, true)?;
        let message = write(&mut state, body)?;
        Some((Knock(state), message))
    }

    /// The body of a first message. Nothing: it is not theirs, not for us, or of another password.
    pub fn open(&self, seed: [u8; 32], message: &[u8]) -> Option<(Knocked, Vec<u8>)> {
        let mut state = self.start(seed, false)?;
        let body = read(&mut state, message)?;
        Some((Knocked(state), body))
    }
}

impl Knocked {
    /// The second message, with `body`, and the hash that binds the keys to this exchange.
    pub fn answer(mut self, body: &[u8]) -> Option<(Vec<u8>, [u8; 32])> {
        let message = write(&mut self.0, body)?;
        Some((message, hash(&self.0)?))
    }
}

impl Knock {
    /// The body of the answer, and the hash. Nothing: it is no answer to this knock, which still waits.
    pub fn open(&mut self, message: &[u8]) -> Option<(Vec<u8>, [u8; 32])> {
        let body = read(&mut self.0, message)?;
        Some((body, hash(&self.0)?))
    }
}

fn write(state: &mut HandshakeState, body: &[u8]) -> Option<Vec<u8>> {
    if body.len() > BODY_MAX {
        return None;
    }
    let mut message = vec![0; body.len() + OVERHEAD];
    let length = state.write_message(body, &mut message).ok()?;
    message.truncate(length);
    Some(message)
}

fn read(state: &mut HandshakeState, message: &[u8]) -> Option<Vec<u8>> {
    if message.len() > BODY_MAX + OVERHEAD {
        return None;
    }
    let mut body = vec![0; message.len()];
    let length = state.read_message(message, &mut body).ok()?;
    body.truncate(length);
    Some(body)
}

fn hash(state: &HandshakeState) -> Option<[u8; 32]> {
    state.get_handshake_hash().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::{generate_key, public_key};

    fn keys() -> (StaticKey, StaticKey) {
        (generate_key([1; 32]), generate_key([2; 32]))
    }

    #[test]
    fn both_ends_read_each_other_and_share_a_hash() {
        let (a, b) = keys();
        let (a_public, b_public) = (public_key(&a), public_key(&b));
        for psk in [None, Some(Psk([7; 32]))] {
            let psk = psk.as_ref();
            let (mut knock, first) = Pair { ours: &a, theirs: &b_public, psk }.knock([3; 32], b"hello").unwrap();
            let there = Pair { ours: &b, theirs: &a_public, psk };
            let (knocked, body) = there.open([4; 32], &first).unwrap();
            assert_eq!(body, b"hello");
            let (second, their_hash) = knocked.answer(b"come in").unwrap();
            assert_eq!((first.len(), second.len()), (5 + OVERHEAD, 7 + OVERHEAD));
            let (body, hash) = knock.open(&second).unwrap();
            assert_eq!((body.as_slice(), hash), (&b"come in"[..], their_hash));
        }
    }

    #[test]
    fn whoever_hands_it_on_can_neither_read_nor_answer() {
        let (a, b) = keys();
        let (middle, psk) = (generate_key([9; 32]), Psk([7; 32]));
        let (a_public, b_public) = (public_key(&a), public_key(&b));
        let (mut knock, first) =
            Pair { ours: &a, theirs: &b_public, psk: Some(&psk) }.knock([3; 32], b"secret").unwrap();
        assert!(!first.windows(6).any(|bytes| bytes == b"secret"));
        let relay = Pair { ours: &middle, theirs: &a_public, psk: Some(&psk) };
        assert!(relay.open([4; 32], &first).is_none(), "it knows the password and all public keys");
        // It begins an exchange of its own, in the name of the other.
        let (_, forged) = relay.knock([5; 32], b"I am b").unwrap();
        assert!(knock.open(&forged).is_none());
        assert!(Pair { ours: &a, theirs: &b_public, psk: Some(&psk) }.open([6; 32], &forged).is_none());
    }

    #[test]
    fn another_password_opens_nothing() {
        let (a, b) = keys();
        let (a_public, b_public) = (public_key(&a), public_key(&b));
        let (one, other) = (Psk([7; 32]), Psk([8; 32]));
        let (_, first) = Pair { ours: &a, theirs: &b_public, psk: Some(&one) }.knock([3; 32], b"hello").unwrap();
        for psk in [Some(&other), None] {
            assert!(Pair { ours: &b, theirs: &a_public, psk }.open([4; 32], &first).is_none());
        }
    }

    #[test]
    fn an_answer_to_another_knock_leaves_this_one_waiting() {
        let (a, b) = keys();
        let (a_public, b_public) = (public_key(&a), public_key(&b));
        let (here, there) =
            (Pair { ours: &a, theirs: &b_public, psk: None }, Pair { ours: &b, theirs: &a_public, psk: None });
        let (_, old) = here.knock([3; 32], b"one").unwrap();
        let (mut knock, new) = here.knock([4; 32], b"two").unwrap();
        let answer = |message: &[u8]| there.open([5; 32], message).unwrap().0.answer(b"yes").unwrap().0;
        assert!(knock.open(&answer(&old)).is_none());
        assert!(knock.open(&answer(&new)).is_some());
    }

    #[test]
    fn what_is_too_long_or_too_short_is_refused() {
        let (a, b) = keys();
        let b_public = public_key(&b);
        let here = Pair { ours: &a, theirs: &b_public, psk: None };
        assert!(here.knock([3; 32], &[0; BODY_MAX]).is_some());
        assert!(here.knock([3; 32], &[0; BODY_MAX + 1]).is_none());
        for length in [0, 31, 47, BODY_MAX + OVERHEAD + 1, 70_000] {
            assert!(here.open([4; 32], &vec![0; length]).is_none(), "{length}");
        }
    }
}
