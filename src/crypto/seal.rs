//! The seal of one datagram: AES-256-GCM or ChaCha20-Poly1305, in place, header authenticated.
//!
//! Owns the nonce: four zero bytes and the datagram's counter, big-endian. A counter must never come twice under one key,
//! which `plane::path` sees to (one atomic counter per epoch, new keys long before it could wrap); a counter that came
//! twice to an opener is `replay`'s affair. Snow is not used here: its released version has no associated data for
//! single messages, and it is four times slower.
//!
//! The keys of the two directions differ (`keys`), so both sides count from zero.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// Bytes of the tag.
pub const TAG_LEN: usize = 16;

/// Which AEAD; both peers use the same on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// Where both processors have AES instructions.
    Aes256Gcm,
    /// Everywhere else.
    ChaCha20Poly1305,
}

/// The datagram was not sealed with this key, counter and header, or was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("does not open")]
pub struct Forged;

fn key(cipher: Cipher, bytes: &[u8; 32]) -> Option<LessSafeKey> {
    let algorithm = match cipher {
        Cipher::Aes256Gcm => &AES_256_GCM,
        Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
    };
    // Refuses keys of another length only; without a key nothing is sent and nothing opens.
    UnboundKey::new(algorithm, bytes).ok().map(LessSafeKey::new)
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    if let Some(low) = nonce.last_chunk_mut() {
        *low = counter.to_be_bytes();
    }
    Nonce::assume_unique_for_key(nonce)
}

/// Seals datagrams under one key. Shared by threads; whoever seals chooses the counter.
pub struct Sealer(Option<LessSafeKey>);

impl Sealer {
    /// A sealer with the key of our direction.
    pub fn new(cipher: Cipher, bytes: &[u8; 32]) -> Sealer {
        Sealer(key(cipher, bytes))
    }

    /// Encrypts `body` in place, and returns the tag that has to follow it. `header` is authenticated and stays in clear.
    /// The caller never uses a `counter` twice.
    #[inline]
    pub fn seal(&self, counter: u64, header: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
        let sealed = self
            .0
            .as_ref()
            .and_then(|key| key.seal_in_place_separate_tag(nonce(counter), Aad::from(header), body).ok());
        match sealed.and_then(|tag| tag.as_ref().try_into().ok()) {
            Some(tag) => tag,
            None => {
                // Only for a body above 64 GiB. Nothing of it may leave in clear.
                body.fill(0);
                [0; TAG_LEN]
            }
        }
    }
}

/// Opens datagrams under one key. Shared by threads.
pub struct Opener(Option<LessSafeKey>);

impl Opener {
    /// An opener with the key of the other side's direction.
    pub fn new(cipher: Cipher, bytes: &[u8; 32]) -> Opener {
        Opener(key(cipher, bytes))
    }

    /// Checks and decrypts in place; returns the length of the body without its tag. After an error the content of
    /// `body_and_tag` is of no meaning.
    #[inline]
    pub fn open(&self, counter: u64, header: &[u8], body_and_tag: &mut [u8]) -> Result<usize, Forged> {
        let key = self.0.as_ref().ok_or(Forged)?;
        key.open_in_place(nonce(counter), Aad::from(header), body_and_tag).map(|body| body.len()).map_err(|_| Forged)
    }
}
