//! From the password to the pre-shared key of the handshake.
//!
//! Every host must arrive at the same key without talking, so the salt is one text for all; it carries the version of
//! this derivation. Argon2id (RFC 9106) with 64 MiB and three passes makes each guess of an impostor, who can get one
//! handshake to try passwords on, cost a tenth of a second and that memory. Derived once, at launch. The rest of the
//! program sees only [`Psk`], so a balanced PAKE can take this place.

use crate::types::{Password, Psk};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::digest;

const SALT: &[u8] = b"rnet psk v1";
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;

/// The key for `password`. Takes about 130 ms and 64 MiB.
pub fn derive(password: &Password) -> Psk {
    let mut key = [0; 32];
    if stretch(password.expose(), &mut key).is_err() {
        // Argon2 refuses only passwords above 4 GiB, which need no stretching.
        key.copy_from_slice(digest::digest(&digest::SHA256, password.expose()).as_ref());
    }
    Psk(key)
}

fn stretch(password: &[u8], key: &mut [u8; 32]) -> argon2::Result<()> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, Some(key.len()))?;
    let mut memory = vec![Block::default(); params.block_count()];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into_with_memory(
        password,
        SALT,
        key,
        &mut memory,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By an independent implementation (pyca/cryptography 48): hosts that derive differently would not talk.
    #[test]
    fn derives_the_same_key_on_every_host_and_release() {
        let derived = |password: &str| derive(&Password::new(password.into()).unwrap()).0;
        let key = derived("correct horse battery staple");
        assert_eq!(
            key.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "30eb287a7b7feefde7c20771dadd25aa397f840fcc0096544e7a6d6c961e4c67"
        );
        assert_ne!(derived("correct horse battery staple "), key);
    }
}
