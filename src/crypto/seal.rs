//! The seal of one datagram: AES-256-GCM or ChaCha20-Poly1305, in place, header authenticated.
//!
//! Owns the nonce: four zero bytes and the datagram's counter, big-endian. A counter must never come twice under one key,
//! which `plane::path` sees to (one atomic counter per epoch, new keys long before it could wrap); a counter that came
//! twice to an opener is `replay`'s affair. Snow is not used here: its released version has no associated data for
//! single messages, and it is four times slower.
//!
//! The keys of the two directions differ (`keys`), so both sides count from zero.

use super::aead::{Key, Library, NONCE_LEN};

pub use super::aead::{Cipher, TAG_LEN};

/// The datagram was not sealed with this key, counter and header, or was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("does not open")]
pub struct Forged;

/// Without a key nothing is sent and nothing opens.
fn key(cipher: Cipher, bytes: &[u8; 32]) -> Option<Key> {
    Key::new(Library::fastest(cipher), cipher, bytes)
}

fn nonce(counter: u64) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    if let Some(low) = nonce.last_chunk_mut() {
        *low = counter.to_be_bytes();
    }
    nonce
}

/// Seals datagrams under one key. Shared by threads; whoever seals chooses the counter.
pub struct Sealer(Option<Key>);

impl Sealer {
    /// A sealer with the key of our direction.
    pub fn new(cipher: Cipher, bytes: &[u8; 32]) -> Sealer {
        Sealer(key(cipher, bytes))
    }

    /// Encrypts `body` in place, and returns the tag that has to follow it. `header` is authenticated and stays in clear.
    /// The caller never uses a `counter` twice.
    #[inline]
    pub fn seal(&self, counter: u64, header: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
        match self.0.as_ref().and_then(|key| key.seal(nonce(counter), header, body)) {
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
pub struct Opener(Option<Key>);

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
        key.open(nonce(counter), header, body_and_tag).ok_or(Forged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        for cipher in BOTH {
            let (sealer, opener) = (Sealer::new(cipher, &[7; 32]), Opener::new(cipher, &[7; 32]));
            let mut sealed = b"a frame".to_vec();
            let tag = sealer.seal(9, b"header", &mut sealed);
            assert_ne!(sealed, b"a frame");
            sealed.extend(tag);
            let open = |counter, header: &[u8], mut bytes: Vec<u8>| {
                opener.open(counter, header, &mut bytes).map(|length| bytes[..length].to_vec())
            };
            assert_eq!(open(9, b"header", sealed.clone()), Ok(b"a frame".to_vec()));
            assert_eq!(open(8, b"header", sealed.clone()), Err(Forged), "another counter");
            assert_eq!(open(9, b"Header", sealed.clone()), Err(Forged), "another header");
            for at in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(open(9, b"header", changed), Err(Forged), "byte {at}");
                assert_eq!(open(9, b"header", sealed[..at].to_vec()), Err(Forged), "{at} bytes");
            }
            let mut other = sealed.clone();
            assert_eq!(Opener::new(cipher, &[8; 32]).open(9, b"header", &mut other), Err(Forged), "another key");
        }
    }

    #[test]
    fn ciphers_do_not_open_each_other() {
        let mut sealed = vec![0; 64];
        let tag = Sealer::new(BOTH[0], &[7; 32]).seal(0, b"", &mut sealed);
        sealed.extend(tag);
        assert_eq!(Opener::new(BOTH[1], &[7; 32]).open(0, b"", &mut sealed), Err(Forged));
    }

    /// By an independent implementation (pyca/cryptography 48), nonce 00000000 0102030405060708.
    #[test]
    fn seals_the_same_bytes_in_every_release() {
        let expected =
            ["b20b1e02d245b2d4594a1c8c68a15171abe064587be04f", "b2e72b2202703e03bc7b2e83634d83dcfc4405f1dd13e3"];
        for (cipher, expected) in BOTH.into_iter().zip(expected) {
            let mut body = b"a frame".to_vec();
            let tag = Sealer::new(cipher, &[7; 32]).seal(0x0102_0304_0506_0708, b"header", &mut body);
            body.extend(tag);
            assert_eq!(body.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), expected, "{cipher:?}");
        }
    }

    #[test]
    fn can_be_shared_by_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Sealer>();
        shared::<Opener>();
    }
}
