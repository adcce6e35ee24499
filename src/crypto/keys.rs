//! The keys of a path, one pair per epoch, and static keys.
//!
//! Each epoch is a fresh X25519 exchange whose public halves travel sealed through the link, so that a key that is found
//! later opens nothing of an earlier epoch. HKDF-SHA256 (RFC 5869) binds the keys to the link by its handshake hash:
//!
//! ```text
//! secret = X25519(ours, theirs)
//! key    = HKDF(salt = handshake hash, ikm = secret, info = "rnet path v1" | epoch, 2 bytes big-endian | direction, 1 byte)
//! direction: 1 dialer to listener, 2 listener to dialer
//! ```
//!
//! When an epoch begins and ends is the node's decision, and which key a datagram is under is written in its header.

use super::session::Role;
use crate::types::{PublicKey, StaticKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

const LABEL: &[u8] = b"rnet path v1";

/// The public half of a peer's identity.
pub fn public_key(key: &StaticKey) -> PublicKey {
    PublicKey(public_half(&key.0))
}

/// A new identity.
pub fn generate_key(seed: [u8; 32]) -> StaticKey {
    StaticKey(private_half(seed))
}

/// One side of the exchange for one epoch; used once.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Ephemeral([u8; 32]);

/// The keys of one epoch as one side uses them.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct EpochKeys {
    /// For what we send.
    pub seal: [u8; 32],
    /// For what we receive.
    pub open: [u8; 32],
}

impl Ephemeral {
    /// A key from `seed`, which must be fresh.
    pub fn new(seed: [u8; 32]) -> Ephemeral {
        Ephemeral(private_half(seed))
    }

    /// What the other side has to know.
    pub fn public(&self) -> [u8; 32] {
        public_half(&self.0)
    }

    /// The epoch's keys; nothing if `theirs` is a point of low order, which an honest peer never sends. `hash` is that of
    /// the link's handshake, `role` ours on that link.
    pub fn agree(self, theirs: &[u8; 32], hash: &[u8; 32], epoch: u16, role: Role) -> Option<EpochKeys> {
        let ours = PrivateKey::from_private_key(&X25519, &self.0).ok()?;
        let theirs = UnparsedPublicKey::new(&X25519, theirs);
        let prk =
            agreement::agree(&ours, theirs, (), |secret| Ok(Salt::new(HKDF_SHA256, hash).extract(secret))).ok()?;
        let outward = expand(&prk, epoch, 1)?;
        let inward = expand(&prk, epoch, 2)?;
        Some(match role {
            Role::Dialer => EpochKeys { seal: outward, open: inward },
            Role::Listener => EpochKeys { seal: inward, open: outward },
        })
    }
}

fn expand(prk: &Prk, epoch: u16, direction: u8) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    prk.expand(&[LABEL, &epoch.to_be_bytes(), &[direction]], HKDF_SHA256).ok()?.fill(&mut key).ok()?;
    Some(key)
}

fn private_half(mut seed: [u8; 32]) -> [u8; 32] {
    let mut key = [0; 32];
    StdRng::from_seed(seed).fill_bytes(&mut key);
    seed.zeroize();
    key
}

fn public_half(private: &[u8; 32]) -> [u8; 32] {
    // Any 32 bytes are an X25519 key. Were they refused all the same, zero is nobody's key and agrees with nobody.
    let public =
        PrivateKey::from_private_key(&X25519, private).and_then(|key| key.compute_public_key().map_err(Into::into));
    public.ok().and_then(|public| public.as_ref().try_into().ok()).unwrap_or_default()
}

impl fmt::Debug for Ephemeral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ephemeral(redacted)")
    }
}

impl fmt::Debug for EpochKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochKeys(redacted)")
    }
}
