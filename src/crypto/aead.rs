//! AES-256-GCM and ChaCha20-Poly1305 of two libraries, and which of them is faster on this processor.
//!
//! Both give the same bytes, so peers need not agree on one. What differs is the code that each has for a kind of processor
//! (1,400 bytes sealed by AES-256-GCM):
//!
//! | processor | aws-lc | ring |
//! | --- | ---: | ---: |
//! | Intel with AVX-512 and VAES (since Ice Lake) | 161 ns | 220 ns |
//! | AMD with both (Zen 4) | 258 ns | 234 ns |
//! | AMD with VAES alone (Zen 3) | 558 ns | 315 ns |
//!
//! So it is AVX-512 that decides; where both are close it does not matter.
//!
//! ChaCha20-Poly1305 takes the same time by both, on either.

use aws_lc_rs::aead as aws_lc;
use ring::aead as ring;
use serde::{Deserialize, Serialize};

/// Bytes of the tag.
pub const TAG_LEN: usize = 16;
/// Bytes of the nonce.
pub const NONCE_LEN: usize = 12;

/// Which AEAD; both peers use the same on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cipher {
    /// Where both processors have AES instructions.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// Everywhere else.
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl Cipher {
    /// As everybody calls it; the serialised form too.
    pub fn name(self) -> &'static str {
        match self {
            Cipher::Aes256Gcm => "aes-256-gcm",
            Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

/// Whose code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// aws-lc-rs: has code for AVX-512, and the best there is for ARM.
    AwsLc,
    /// ring: has code for VAES without AVX-512.
    Ring,
}

/// What decides, of what an x86 processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Vector {
    /// AES and carry-less multiplication on two blocks at once: VAES, VPCLMULQDQ, AVX2, and BMI2 for what goes with them.
    two_blocks: bool,
    /// The same on four, with masks: AVX-512 F, BW, DQ and VL.
    four_blocks: bool,
}

impl Vector {
    fn here() -> Vector {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let two_blocks = has!("vaes") && has!("vpclmulqdq") && has!("avx2") && has!("bmi2");
            let wide = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
            Vector { two_blocks, four_blocks: two_blocks && wide }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Vector { two_blocks: false, four_blocks: false }
    }
}

impl Library {
    /// The faster one on this processor.
    pub fn fastest(cipher: Cipher) -> Library {
        Library::for_processor(cipher, Vector::here())
    }

    fn for_processor(cipher: Cipher, has: Vector) -> Library {
        match cipher {
            Cipher::Aes256Gcm if has.two_blocks && !has.four_blocks => Library::Ring,
            Cipher::Aes256Gcm | Cipher::ChaCha20Poly1305 => Library::AwsLc,
        }
    }
}

/// A key, with whatever its library computes of it once.
pub enum Key {
    AwsLc(aws_lc::LessSafeKey),
    // Has its tables within.
    Ring(Box<ring::LessSafeKey>),
}

impl Drop for Key {
    /// aws-lc wipes its keys, ring does not: another key takes the place.
    fn drop(&mut self) {
        let Key::Ring(key) = self else { return };
        if let Ok(blank) = ring::UnboundKey::new(key.algorithm(), &[0; 32]) {
            **key = ring::LessSafeKey::new(blank);
            // Or it would not be written, since nobody reads it.
            std::hint::black_box(key);
        }
    }
}

impl Key {
    /// None only if the library refuses the key, which it does for another length alone.
    pub fn new(library: Library, cipher: Cipher, bytes: &[u8; 32]) -> Option<Key> {
        match library {
            Library::AwsLc => {
                let algorithm = match cipher {
                    Cipher::Aes256Gcm => &aws_lc::AES_256_GCM,
                    Cipher::ChaCha20Poly1305 => &aws_lc::CHACHA20_POLY1305,
                };
                aws_lc::UnboundKey::new(algorithm, bytes).ok().map(aws_lc::LessSafeKey::new).map(Key::AwsLc)
            }
            Library::Ring => {
                let algorithm = match cipher {
                    Cipher::Aes256Gcm => &ring::AES_256_GCM,
                    Cipher::ChaCha20Poly1305 => &ring::CHACHA20_POLY1305,
                };
                ring::UnboundKey::new(algorithm, bytes).ok().map(|key| Key::Ring(Box::new(ring::LessSafeKey::new(key))))
            }
        }
    }

    /// Encrypts `body` in place and returns its tag. None, and `body` may be anything, only above 64 GiB.
    #[inline]
    pub fn seal(&self, nonce: [u8; NONCE_LEN], header: &[u8], body: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        match self {
            Key::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, aws_lc::Aad::from(header), body).ok()?;
                tag.as_ref().try_into().ok()
            }
            Key::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, ring::Aad::from(header), body).ok()?;
                tag.as_ref().try_into().ok()
            }
        }
    }

    /// Checks and decrypts in place; the length of the body without its tag. None, and the bytes may be anything, if it was not
    /// sealed with this key, nonce and header, or was changed.
    #[inline]
    pub fn open(&self, nonce: [u8; NONCE_LEN], header: &[u8], body_and_tag: &mut [u8]) -> Option<usize> {
        match self {
            Key::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, aws_lc::Aad::from(header), body_and_tag).ok().map(|body| body.len())
            }
            Key::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, ring::Aad::from(header), body_and_tag).ok().map(|body| body.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIBRARIES: [Library; 2] = [Library::AwsLc, Library::Ring];

    proptest! {
        #[test]
        fn libraries_seal_the_same_bytes_and_open_those_of_each_other(
            chacha in any::<bool>(),
            bytes in any::<[u8; 32]>(),
            nonce in any::<[u8; NONCE_LEN]>(),
            header in prop::collection::vec(any::<u8>(), 0..40),
            body in prop::collection::vec(any::<u8>(), 0..1600),
        ) {
            let cipher = if chacha { Cipher::ChaCha20Poly1305 } else { Cipher::Aes256Gcm };
            let keys = LIBRARIES.map(|library| Key::new(library, cipher, &bytes).unwrap());
            let sealed = keys.each_ref().map(|key| {
                let mut sealed = body.clone();
                let tag = key.seal(nonce, &header, &mut sealed).unwrap();
                sealed.extend(tag);
                sealed
            });
            prop_assert_eq!(&sealed[0], &sealed[1]);
            for key in &keys {
                let mut opened = sealed[0].clone();
                let length = key.open(nonce, &header, &mut opened);
                prop_assert_eq!(length.map(|length| &opened[..length]), Some(body.as_slice()));
                let mut changed = sealed[0].clone();
                changed[body.len() / 2] ^= 1;
                prop_assert_eq!(key.open(nonce, &header, &mut changed), None);
            }
        }
    }

    #[test]
    fn the_library_is_the_one_with_code_for_the_processor() {
        let none = Vector { two_blocks: false, four_blocks: false };
        let two = Vector { two_blocks: true, ..none };
        let four = Vector { four_blocks: true, ..two };
        let aes = |has| Library::for_processor(Cipher::Aes256Gcm, has);
        assert_eq!([none, two, four].map(aes), [Library::AwsLc, Library::Ring, Library::AwsLc]);
        for has in [none, two, four] {
            assert_eq!(Library::for_processor(Cipher::ChaCha20Poly1305, has), Library::AwsLc);
        }
    }
}
