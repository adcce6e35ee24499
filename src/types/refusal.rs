//! Why two peers do not stay together, as both of them say it.
//!
//! A refusal is one value with one line of text. It is seen from the side that shows it: `theirs`, `ours` and "peer" are
//! exchanged by [`Refusal::mirrored`] before it is told to the other side. Texts that came from the other side are made
//! harmless for logs and terminals and cut to 64 characters while they are decoded. How it travels is not decided here:
//! sealed in a control message (`wire::message`), or as one byte in clear before there are keys (`crypto::session`).

use super::Nickname;
use serde::{Deserialize, Deserializer, Serialize};

/// Why a link is closed or never came to be. `Display` is the one line for people.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No protocol version in common; oldest and newest of each side.
    #[error("no protocol version in common: peer speaks {} and we speak {}", span(*.theirs), span(*.ours))]
    Version {
        /// Oldest and newest that the other side speaks.
        theirs: (u8, u8),
        /// Oldest and newest that this side speaks.
        ours: (u8, u8),
    },
    /// What came is not the protocol of rnet at all.
    #[error("what answers there is not rnet")]
    NotRnet,
    /// The other side has a password and this one has none.
    #[error("peer requires a password")]
    PeerRequiresPassword,
    /// This side has a password and the other one has none.
    #[error("peer has no password")]
    PeerHasNoPassword,
    /// Both have a password, not the same.
    #[error("wrong password: it is not the same on both sides")]
    WrongPassword,
    /// Both ends are this router.
    #[error("this is ourselves")]
    Ourselves,
    /// There is a link between these two already, and it stays.
    #[error("already connected")]
    AlreadyConnected,
    /// Two keys hash to one peer name.
    #[error("name collision: another peer with a different key has this name; remove the identity of one of them")]
    NameCollision,
    /// One key is used by two running routers.
    #[error("cloned identity: a peer with the same key runs elsewhere; remove the identity of one of them")]
    Cloned,
    /// The side that refuses has as many links as it takes.
    #[error("connection limit of {limit} reached")]
    ConnectionLimit {
        /// That number.
        limit: u32,
    },
    /// The key is not one of those that may join.
    #[error("not on the allow list")]
    NotAllowed,
    /// The address ranges of the two differ.
    #[error("different address range: peer has {theirs} and we have {ours}; launch both with the same --ipalloc-range")]
    RangeMismatch {
        /// The other side's.
        #[serde(deserialize_with = "harmless")]
        theirs: String,
        /// This side's.
        #[serde(deserialize_with = "harmless")]
        ours: String,
    },
    /// A message that does not follow the protocol.
    #[error("malformed message")]
    Malformed,
    /// It does not take what it is sent.
    #[error("peer reads too slowly")]
    TooSlow,
    /// Silence for too long.
    #[error("timed out: no word from an rnet there")]
    Timeout,
    /// The router is being stopped.
    #[error("peer is stopping")]
    Stopping,
}

impl Refusal {
    /// The same refusal as the other side has to read it: "theirs" and "ours" exchanged.
    pub fn mirrored(self) -> Refusal {
        match self {
            Refusal::Version { theirs, ours } => Refusal::Version { theirs: ours, ours: theirs },
            Refusal::PeerRequiresPassword => Refusal::PeerHasNoPassword,
            Refusal::PeerHasNoPassword => Refusal::PeerRequiresPassword,
            Refusal::RangeMismatch { theirs, ours } => Refusal::RangeMismatch { theirs: ours, ours: theirs },
            other => other,
        }
    }
}

/// `1` or `1 to 3`.
fn span((oldest, newest): (u8, u8)) -> String {
    if oldest == newest { format!("version {newest}") } else { format!("versions {oldest} to {newest}") }
}

/// Decodes a text of the other side: at most 64 characters, none of which a terminal acts on.
pub fn harmless<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    Nickname::deserialize(d).map(|text| text.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirroring_twice_changes_nothing() {
        let all = [
            Refusal::Version { theirs: (2, 3), ours: (1, 1) },
            Refusal::PeerRequiresPassword,
            Refusal::PeerHasNoPassword,
            Refusal::RangeMismatch { theirs: "10.0.0.0/8".into(), ours: "10.32.0.0/12".into() },
            Refusal::ConnectionLimit { limit: 7 },
        ];
        for refusal in all {
            assert_eq!(refusal.clone().mirrored().mirrored(), refusal);
        }
        assert_eq!(Refusal::PeerRequiresPassword.mirrored().to_string(), "peer has no password");
    }

    #[test]
    fn says_both_versions_and_both_ranges() {
        let version = Refusal::Version { theirs: (2, 3), ours: (1, 1) };
        assert_eq!(
            version.to_string(),
            "no protocol version in common: peer speaks versions 2 to 3 and we speak version 1"
        );
        let range = Refusal::RangeMismatch { theirs: "10.0.0.0/8".into(), ours: "10.32.0.0/12".into() };
        assert_eq!(
            range.to_string(),
            "different address range: peer has 10.0.0.0/8 and we have 10.32.0.0/12; launch both with the same --ipalloc-range"
        );
    }

    #[test]
    fn texts_of_the_other_side_are_cut_and_cleaned() {
        let told = format!("{{\"RangeMismatch\":{{\"theirs\":\"\\u001b[31m\",\"ours\":\"{}\"}}}}", "x".repeat(900));
        let Refusal::RangeMismatch { theirs, ours } = serde_json::from_str(&told).unwrap() else { panic!("{told}") };
        assert_eq!((theirs.as_str(), ours.len()), ("?[31m", 64));
    }
}
