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

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(epochs: (u16, u16), hashes: ([u8; 32], [u8; 32])) -> (EpochKeys, EpochKeys) {
        let (dialer, listener) = (Ephemeral::new([1; 32]), Ephemeral::new([2; 32]));
        let (theirs, ours) = (listener.public(), dialer.public());
        let dialer = dialer.agree(&theirs, &hashes.0, epochs.0, Role::Dialer).unwrap();
        (dialer, listener.agree(&ours, &hashes.1, epochs.1, Role::Listener).unwrap())
    }

    #[test]
    fn both_sides_agree_and_directions_differ() {
        let (dialer, listener) = pair((3, 3), ([9; 32], [9; 32]));
        assert!(dialer.seal == listener.open && dialer.open == listener.seal);
        assert!(dialer.seal != dialer.open);
    }

    #[test]
    fn keys_are_bound_to_the_epoch_and_to_the_link() {
        let (dialer, listener) = pair((3, 4), ([9; 32], [9; 32]));
        assert!(dialer.seal != listener.open && dialer.open != listener.seal);
        let (dialer, listener) = pair((3, 3), ([9; 32], [8; 32]));
        assert!(dialer.seal != listener.open && dialer.open != listener.seal);
    }

    /// Points of order 4, 1 and 8 (RFC 7748, section 6.1): the secret would be zero whatever our key is.
    #[test]
    fn points_of_low_order_agree_on_nothing() {
        let one = unhex("0100000000000000000000000000000000000000000000000000000000000000");
        let eight = unhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800");
        for theirs in [[0; 32], one, eight] {
            assert!(Ephemeral::new([1; 32]).agree(&theirs, &[9; 32], 0, Role::Dialer).is_none(), "{theirs:?}");
        }
    }

    /// By an independent implementation (pyca/cryptography 48): private keys 1..=32 and 33..=64, epoch 0x0102.
    #[test]
    fn keys_are_the_same_in_every_release() {
        let dialer = Ephemeral(unhex("0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20"));
        let listener = Ephemeral(unhex("2122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f40"));
        assert_eq!(dialer.public(), unhex("07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c"));
        let theirs = listener.public();
        assert_eq!(theirs, unhex("5869aff450549732cbaaed5e5df9b30a6da31cb0e5742bad5ad4a1a768f1a67b"));
        let keys = dialer.agree(&theirs, &[9; 32], 0x0102, Role::Dialer).unwrap();
        assert_eq!(keys.seal, unhex("499b1b55eef9eb708870d5c764f6abb84978608f35fc301726ab04a2577f6d57"));
        assert_eq!(keys.open, unhex("1e7ff708ee68a4e3fdff8a4afa6cd3eb6ce68926014830db6a79d0371d43d8ef"));
    }

    #[test]
    fn generated_keys_differ_by_seed() {
        assert!(generate_key([1; 32]) == generate_key([1; 32]));
        assert_ne!(public_key(&generate_key([1; 32])), public_key(&generate_key([2; 32])));
    }

    #[test]
    fn secrets_do_not_print() {
        let keys = EpochKeys { seal: [1; 32], open: [2; 32] };
        assert_eq!(format!("{keys:?} {:?}", Ephemeral::new([1; 32])), "EpochKeys(redacted) Ephemeral(redacted)");
    }

    fn unhex(digits: &str) -> [u8; 32] {
        let octet = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let octets: Vec<u8> = (0..64).step_by(2).map(octet).collect();
        octets.try_into().unwrap()
    }
}
