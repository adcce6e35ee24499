//! Who the other side is, and what nobody else may read or change.
//!
//! Pure: randomness comes in as seeds, and everything is a function of its input. Algorithms are bought, not made: snow
//! for the handshake of a link, aws-lc-rs or ring for datagrams, aws-lc-rs for key derivation, argon2 for the password.
//! Nothing here knows what a message or a frame means, nor when to change keys.
//!
//! ```text
//! psk        password -> the key that the handshake mixes in
//! handshake  hello, Noise XX / XXpsk3, its seeded resolver
//! knock      Noise KK / KKpsk0, two messages, for peers without a link
//! session    the byte stream of a link: hello, handshake, then messages
//! keys       per epoch of a path: fresh X25519, HKDF, one key for each direction
//! aead       the cipher of a datagram by the library that is faster here
//! seal       one datagram: AES-256-GCM or ChaCha20-Poly1305
//! replay     which counters were seen
//! tag        members of the mesh said this, on a segment where others may talk too
//! ```
//!
//! Secrets are wiped on drop and never printed.

pub mod aead;
pub mod handshake;
pub mod keys;
pub mod knock;
pub mod psk;
pub mod replay;
pub mod seal;
pub mod session;
pub mod tag;
