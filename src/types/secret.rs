//! Secrets: wiped when dropped, never printed, never serialised by accident.

use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The mesh's password as the user wrote it, without the line end of its file.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Password(String);

impl Password {
    /// Takes the text; an empty one is no password. One trailing line end is not part of it.
    pub fn new(mut text: String) -> Option<Password> {
        let kept = text.trim_end_matches(['\r', '\n']).len();
        text.truncate(kept);
        if text.is_empty() { None } else { Some(Password(text)) }
    }

    /// The bytes, for key derivation only.
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The key that the password stands for: what the handshake mixes in.
#[derive(Clone, Zeroize, ZeroizeOnDrop, PartialEq, Eq)]
pub struct Psk(pub [u8; 32]);

/// A peer's static X25519 private key.
#[derive(Clone, Zeroize, ZeroizeOnDrop, PartialEq, Eq)]
pub struct StaticKey(pub [u8; 32]);

macro_rules! redacted {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    )*};
}
redacted!(Password, Psk, StaticKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_loses_only_the_line_end() {
        assert_eq!(Password::new(" pass word \r\n".into()).unwrap().expose(), b" pass word ");
        assert!(Password::new("\n".into()).is_none());
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", Password::new("x".into()).unwrap()), "Password(redacted)");
        assert_eq!(format!("{:?} {:?}", Psk([1; 32]), StaticKey([1; 32])), "Psk(redacted) StaticKey(redacted)");
    }
}
