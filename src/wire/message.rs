//! What two linked peers say to each other, sealed, in messages of at most [`MESSAGE_MAX`] bytes.
//!
//! Owns the types and their bytes; the only place that knows bincode. Does not own: how a message is cut and sealed
//! (`crypto::session`), when it is sent (`mesh::link`, `node`), and what the body of a gossip message holds
//! (`mesh::peers`, `mesh::claims`), which goes through the same codec and limits by [`encode_body`] and [`decode_body`].
//!
//! ```text
//! 0      type of the message: 1 intro, 2 refuse, 3 ping, 4 pong, 5 gossip, 6 path offer, 7 path answer, 8 path ready,
//!        9 letter
//! 1..    the fields in order, bincode 2 "standard": little-endian, integers above 250 as 0xfb/0xfc/0xfd and 2/4/8 bytes,
//!        lists and texts with their length in front
//! ```
//!
//! Bincode cannot skip what it does not know, so the layout of a type is fixed for a protocol version: new facts travel
//! in new types of message. All bytes must be consumed. Whatever length a list or text announces, little is reserved
//! before its content is there: byte strings are copied from what came, lists grow as serde reads them (at most 1 MiB
//! ahead), texts reserve once, within the limit, and fail. Element types must not be of size zero, since a count of those
//! costs the sender nothing.

use super::Malformed;
use crate::types::{Nickname, PeerName, Uid, harmless};
use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::error::DecodeError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use crate::types::{MESSAGE_MAX, Refusal};

/// What bincode may count while it decodes. It counts every integer as 8 bytes, also those that took one, so with less
/// than this a message that was encoded here could be refused there. Larger announcements fail before they reserve.
const COUNT_MAX: usize = 8 * MESSAGE_MAX;
type Codec = Configuration<LittleEndian, Varint, Limit<COUNT_MAX>>;
const CODEC: Codec = bincode::config::standard().with_limit::<COUNT_MAX>();

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Who this is: the first message in each direction.
    Intro(Intro),
    /// Why the link is closed: the last message. As the receiver has to read it ([`Refusal::mirrored`]).
    Refuse(Refusal),
    /// A sign of life, to be answered.
    Ping {
        /// Comes back in the answer.
        nonce: u64,
    },
    /// The answer to a ping.
    Pong {
        /// That of the ping.
        nonce: u64,
    },
    /// A part of the replicated state.
    Gossip {
        /// Of which.
        channel: Channel,
        /// By [`encode_body`].
        body: Vec<u8>,
    },
    /// The dialer's half of a key exchange for the path's next epoch.
    PathOffer(PathOffer),
    /// The listener's half.
    PathAnswer(PathOffer),
    /// The dialer seals with this epoch from now on.
    PathReady {
        /// That of the offer.
        epoch: u16,
    },
    /// Something for peers that may be several links away, handed on from link to link.
    Letter(Letter),
}

/// What a letter is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Service {
    /// Who may hand out which address (`ipam`).
    Addresses,
    /// Keys of a path between peers that have no link (`node::direct`).
    Paths,
}

/// A message for certain peers. Whoever hands it on splits the list of receivers by next hop, so each gets it at most once
/// and nobody needs to remember what it has seen. It may be lost: services repair that themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// What it is about.
    pub service: Service,
    /// Who wrote it, as those who handed it on say.
    pub from: PeerName,
    /// For whom; at most [`RECEIVERS_MAX`].
    pub to: Vec<PeerName>,
    /// Links that it may still pass, so that routes that disagree for a moment do not keep it going round.
    pub hops: u8,
    /// The service's own bytes, versioned by it; at most [`LETTER_MAX`].
    #[serde(with = "octets")]
    pub body: Vec<u8>,
}

/// Most receivers of one letter: as many peers as a mesh may have.
pub const RECEIVERS_MAX: usize = 16_384;
/// Most bytes of a letter's body.
pub const LETTER_MAX: usize = (256 << 10) + 64;

impl Letter {
    /// Within the limits of its fields.
    fn is_sound(&self) -> bool {
        self.to.len() <= RECEIVERS_MAX && self.body.len() <= LETTER_MAX
    }
}

/// Which replicated state a gossip message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Channel {
    /// Peers and their links.
    Topology,
    /// Addresses and who has them.
    Claims,
}

/// What a peer says of itself beyond its key, which the handshake proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intro {
    /// The host's name.
    pub nickname: Nickname,
    /// This run.
    pub uid: Uid,
    /// Random per connection: of two links between the same peers the one with the lower XOR of both numbers stays.
    pub connection: u64,
    /// TCP and UDP port that it listens on.
    pub port: u16,
    /// Its processor is fast at AES: the path uses AES-256-GCM if both are.
    pub aes: bool,
    /// It has a password, so its datagrams are sealed, unless both ends trust each other's addresses.
    pub password: bool,
    /// UDP port by which it speaks VXLAN on paths that are not sealed; 0: it does not.
    pub vxlan: u16,
    /// The address that it has this link with needs no encryption, as far as it is concerned.
    pub trusts: bool,
    /// The range that it allocates addresses from; cut to 64 characters when read.
    #[serde(deserialize_with = "harmless")]
    pub range: String,
}

/// Half of a key exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathOffer {
    /// The epoch that the keys are for.
    pub epoch: u16,
    /// The receiver index that datagrams to the sender of this must carry.
    pub index: u32,
    /// A fresh X25519 public key.
    pub ephemeral: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct Gossip {
    channel: Channel,
    #[serde(with = "octets")]
    body: Vec<u8>,
}

impl Message {
    /// The bytes of it. Longer than [`MESSAGE_MAX`] only if a gossip body is; such a message is refused by the receiver.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Message::Intro(intro) => tagged(1, intro),
            Message::Refuse(refusal) => tagged(2, refusal),
            Message::Ping { nonce } => tagged(3, nonce),
            Message::Pong { nonce } => tagged(4, nonce),
            Message::Gossip { channel, body } => tagged(5, &GossipRef { channel: *channel, body }),
            Message::PathOffer(offer) => tagged(6, offer),
            Message::PathAnswer(answer) => tagged(7, answer),
            Message::PathReady { epoch } => tagged(8, epoch),
            Message::Letter(letter) => tagged(9, letter),
        }
    }

    /// The message that `bytes` are, all of them.
    pub fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
        if bytes.len() > MESSAGE_MAX {
            return Err(Malformed::TooLong);
        }
        let (kind, fields) = bytes.split_first().ok_or(Malformed::Truncated)?;
        match kind {
            1 => decode_body(fields).map(Message::Intro),
            2 => decode_body(fields).map(Message::Refuse),
            3 => decode_body(fields).map(|nonce| Message::Ping { nonce }),
            4 => decode_body(fields).map(|nonce| Message::Pong { nonce }),
            5 => decode_body(fields).map(|Gossip { channel, body }| Message::Gossip { channel, body }),
            6 => decode_body(fields).map(Message::PathOffer),
            7 => decode_body(fields).map(Message::PathAnswer),
            8 => decode_body(fields).map(|epoch| Message::PathReady { epoch }),
            9 => match decode_body::<Letter>(fields) {
                Ok(letter) if letter.is_sound() => Ok(Message::Letter(letter)),
                Ok(_) => Err(Malformed::TooLong),
                Err(malformed) => Err(malformed),
            },
            _ => Err(Malformed::Kind),
        }
    }
}

#[derive(Serialize)]
struct GossipRef<'a> {
    channel: Channel,
    #[serde(with = "octets")]
    body: &'a [u8],
}

/// The bytes of `body`. Empty if its `Serialize` fails, which a derived one never does.
pub fn encode_body<T: Serialize>(body: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(body, CODEC).unwrap_or_default()
}

/// The value that `bytes` are, all of them; at most [`MESSAGE_MAX`].
pub fn decode_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    if bytes.len() > MESSAGE_MAX {
        return Err(Malformed::TooLong);
    }
    match bincode::serde::decode_from_slice(bytes, CODEC) {
        Ok((body, used)) if used == bytes.len() => Ok(body),
        Ok(_) => Err(Malformed::Trailing),
        Err(DecodeError::UnexpectedEnd { .. }) => Err(Malformed::Truncated),
        Err(DecodeError::LimitExceeded) => Err(Malformed::Length),
        Err(_) => Err(Malformed::Field),
    }
}

fn tagged<T: Serialize>(kind: u8, fields: &T) -> Vec<u8> {
    let mut bytes = vec![kind];
    // Writing to memory cannot fail; a value that cannot be serialised would leave a message that no receiver takes.
    let _ = bincode::serde::encode_into_std_write(fields, &mut bytes, CODEC);
    bytes
}

/// Byte strings in one piece: serde would take a `Vec<u8>` element by element.
mod octets {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};
    use std::fmt;

    pub fn serialize<S: Serializer>(octets: impl AsRef<[u8]>, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(octets.as_ref())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        d.deserialize_bytes(Octets) // bincode lends the bytes, so nothing is reserved for a length that is not there
    }

    struct Octets;

    impl Visitor<'_> for Octets {
        type Value = Vec<u8>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a byte string")
        }
        fn visit_bytes<E: Error>(self, octets: &[u8]) -> Result<Vec<u8>, E> {
            Ok(octets.to_vec())
        }
    }
}

#[cfg(test)]
mod tests;
