//! Who a peer is: its key, its name, its nickname, this run's uid, and its number on the data path.

use super::{Invalid, Mac};
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A peer's static X25519 public key. Authorisation compares these, never names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The name that belongs to this key: the first 48 bits of its SHA-256, as a locally administered unicast MAC.
    pub fn name(&self) -> PeerName {
        let hash = digest::digest(&digest::SHA256, &self.0);
        let mut octets = [0; 6];
        for (octet, byte) in octets.iter_mut().zip(hash.as_ref()) {
            *octet = *byte;
        }
        PeerName(Mac::local(octets))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<PublicKey, Invalid> {
        let invalid = || Invalid::new(text, "a public key: 64 hexadecimal digits, as `rnet report` shows it");
        if text.len() != 64 || !text.is_ascii() {
            return Err(invalid());
        }
        let mut key = [0; 32];
        for (i, byte) in key.iter_mut().enumerate() {
            let digits = text.get(2 * i..2 * i + 2).filter(|d| !d.starts_with('+')).ok_or_else(invalid)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| invalid())?;
        }
        Ok(PublicKey(key))
    }
}

/// Text in formats for people (JSON), 32 bytes in messages.
impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { self.0.serialize(s) }
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<PublicKey, D::Error> {
        if d.is_human_readable() {
            String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(d).map(PublicKey)
        }
    }
}

/// A peer's name: 48 bits of its key's hash, written as a MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct PeerName(pub Mac);

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for PeerName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<PeerName, Invalid> {
        text.parse().map(PeerName)
    }
}

/// What people call a peer: the host's name, at most 64 printable characters; others are replaced by `?`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(from = "String")]
pub struct Nickname(String);

impl Nickname {
    /// Makes any text harmless for logs and terminals.
    pub fn new(text: &str) -> Nickname {
        let clean = |c: char| if c.is_ascii_graphic() || (c.is_alphanumeric() && !c.is_control()) { c } else { '?' };
        Nickname(text.trim().chars().take(64).map(clean).collect())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Nickname {
    fn from(text: String) -> Nickname {
        Nickname::new(&text)
    }
}

impl fmt::Display for Nickname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One run of a router: random at every start, so that a restart is told from a clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Uid(pub u64);

/// A peer's 16-bit number in datagrams, agreed through the topology. 0 is never a peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ShortId(pub u16);

impl ShortId {
    /// As a destination: "everybody on this network", along the origin's tree.
    pub const FLOOD: ShortId = ShortId(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_a_local_unicast_mac_of_the_key() {
        let name = PublicKey([7; 32]).name();
        assert!(!name.0.is_group() && name.0.0[0] & 2 == 2);
        assert_ne!(name, PublicKey([8; 32]).name());
        assert_eq!(name.to_string().parse(), Ok(name));
    }

    #[test]
    fn key_parses_what_it_prints() {
        let key = PublicKey([0xa7; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(
            serde_json::to_string(&key).unwrap(),
            format!("\"{key}\""),
            "a report is where --allow is copied from"
        );
        assert_eq!(serde_json::from_str::<PublicKey>(&format!("\"{key}\"")).unwrap(), key);
        assert!("a7".parse::<PublicKey>().is_err());
        assert!("+7".repeat(32).parse::<PublicKey>().is_err());
        assert!("é".repeat(32).parse::<PublicKey>().is_err());
    }

    #[test]
    fn nickname_cannot_carry_terminal_escapes() {
        assert_eq!(Nickname::new("host\u{1b}[31m2\n").as_str(), "host?[31m2");
        assert_eq!(Nickname::new(&"x".repeat(99)).as_str().len(), 64);
        assert_eq!(serde_json::from_str::<Nickname>("\"a\\u0007\"").unwrap().as_str(), "a?");
    }
}
