//! The hello in clear, and the Noise handshake behind it.
//!
//! Owns the eight bytes that both sides send at once, the choice of the Noise pattern, and snow's resolver with a seeded
//! generator in place of the operating system's. Framing and order are `session`'s.
//!
//! ```text
//! hello, 8 bytes, the same in every version to come:
//!   0..4   "rnet"
//!   4, 5   oldest and newest protocol version spoken
//!   6      flags: bit 0 a password is in use; the others zero
//!   7      zero
//!
//! Noise_XX_25519_ChaChaPoly_SHA256 without a password, XXpsk3 with one (noiseprotocol.org, revision 34)
//! prologue = dialer's hello | listener's hello, so that nobody between the two can change either
//!   -> e                    32 bytes (48 with psk)
//!   <- e, ee, s, es         96 bytes
//!   -> s, se [, psk]        64 bytes: here the listener notices a wrong password
//! ```
//!
//! psk3 and not psk0: with psk0 whoever listens passively could test passwords on the first message. ChaCha20 and not
//! AES: a link carries little, and this is constant-time in portable code on every processor.

use super::session::Role;
use crate::types::{Psk, Refusal, StaticKey};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};

/// Oldest and newest protocol version that is spoken here. 2: datagrams with a lane and checksums that are left out, the MTU of
/// paths in the topology. 3: VXLAN between peers is agreed on; peers' addresses, and their paths' cost, in the topology;
/// letters about paths. 4: floods are numbered.
pub const VERSIONS: (u8, u8) = (4, 4);
/// Bytes of a hello.
pub const HELLO_LEN: usize = 8;
/// What a hello begins with.
pub const MAGIC: [u8; 4] = *b"rnet";
/// The longest message of the handshake, bytes.
pub const HANDSHAKE_MAX: usize = 96;

const PASSWORD: u8 = 1;

/// What a side says in clear before anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Oldest and newest protocol version that it speaks.
    pub versions: (u8, u8),
    /// Whether it has a password.
    pub password: bool,
}

impl Hello {
    /// Ours.
    pub fn ours(password: bool) -> Hello {
        Hello { versions: VERSIONS, password }
    }

    /// The bytes of it.
    pub fn emit(self) -> [u8; HELLO_LEN] {
        let [a, b, c, d] = MAGIC;
        let (oldest, newest) = self.versions;
        [a, b, c, d, oldest, newest, if self.password { PASSWORD } else { 0 }, 0]
    }

    /// Whether this hello of the other side goes together with `ours`: its version range, and a password on both or none.
    pub fn check(ours: Hello, bytes: &[u8; HELLO_LEN]) -> Result<(), Refusal> {
        let [a, b, c, d, oldest, newest, flags, _] = *bytes;
        if [a, b, c, d] != MAGIC {
            return Err(Refusal::NotRnet);
        }
        if oldest > newest {
            return Err(Refusal::Malformed);
        }
        if oldest > ours.versions.1 || newest < ours.versions.0 {
            return Err(Refusal::Version { theirs: (oldest, newest), ours: ours.versions });
        }
        match (flags & PASSWORD != 0, ours.password) {
            (true, false) => Err(Refusal::PeerRequiresPassword),
            (false, true) => Err(Refusal::PeerHasNoPassword),
            _ => Ok(()),
        }
    }
}

/// What one side brings to the handshake.
pub struct Credentials {
    /// Which side.
    pub role: Role,
    /// Its identity.
    pub key: StaticKey,
    /// The password's key.
    pub psk: Option<Psk>,
    /// For the ephemeral key.
    pub seed: [u8; 32],
}

impl Credentials {
    /// Starts the handshake with both hellos as prologue. Nothing only if snow does not know the pattern.
    pub fn start(&self, prologue: &[u8]) -> Option<HandshakeState> {
        let pattern = match self.psk {
            Some(_) => "Noise_XXpsk3_25519_ChaChaPoly_SHA256",
            None => "Noise_XX_25519_ChaChaPoly_SHA256",
        };
        let resolver = Box::new(Seeded { seed: self.seed });
        let mut builder = Builder::with_resolver(pattern.parse().ok()?, resolver);
        builder = builder.local_private_key(&self.key.0).ok()?.prologue(prologue).ok()?;
        if let Some(psk) = &self.psk {
            builder = builder.psk(3, &psk.0).ok()?;
        }
        match self.role {
            Role::Dialer => builder.build_initiator(),
            Role::Listener => builder.build_responder(),
        }
        .ok()
    }
}

/// snow's own algorithms with a generator that is given its seed.
pub(super) struct Seeded {
    pub(super) seed: [u8; 32],
}

impl CryptoResolver for Seeded {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Generator(StdRng::from_seed(self.seed))))
    }
    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }
    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }
    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

struct Generator(StdRng);

impl Random for Generator {
    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill_bytes(into);
        Ok(())
    }
}
