//! A tag on what goes over segments that are not ours: members of the mesh made it.
//!
//! HMAC-SHA256 cut to 16 bytes, keyed by a key that is derived from the mesh's password for this purpose alone. A mesh without
//! a password has a key that everybody knows: the tag is a checksum then. Says nothing of when it was made: whoever checks keeps
//! what was replayed out by other means.

use crate::types::Psk;
use aws_lc_rs::hmac;

const PURPOSE: &[u8] = b"rnet beacon v1";

/// Makes and checks tags.
pub struct Tagger(hmac::Key);

impl Tagger {
    /// Of the mesh with this key.
    pub fn new(psk: Option<&Psk>) -> Tagger {
        let secret = psk.map_or([0; 32], |psk| psk.0);
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), PURPOSE);
        Tagger(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// The tag of `bytes`.
    pub fn tag(&self, bytes: &[u8]) -> [u8; 16] {
        hmac::sign(&self.0, bytes).as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// Whether `tag` is that of `bytes`, in constant time.
    pub fn is_right(&self, bytes: &[u8], tag: &[u8; 16]) -> bool {
        self.tag(bytes).iter().zip(tag).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_the_password_makes_a_right_one() {
        let [ours, theirs] = [1, 2].map(|byte| Tagger::new(Some(&Psk([byte; 32]))));
        let open = Tagger::new(None);
        let tag = ours.tag(b"a beacon");
        assert!(ours.is_right(b"a beacon", &tag) && Tagger::new(Some(&Psk([1; 32]))).is_right(b"a beacon", &tag));
        assert!(!theirs.is_right(b"a beacon", &tag) && !open.is_right(b"a beacon", &tag));
        assert!(!ours.is_right(b"a beakon", &tag));
        let mut wrong = tag;
        wrong[15] ^= 1;
        assert!(!ours.is_right(b"a beacon", &wrong));
    }
}
