//! Published ports as the user writes them.
//!
//! ```text
//! map = [address ":"] host-port ":" port ["/tcp" | "/udp"]        8091:8090   192.0.2.1:53:5353/udp   [fd00::1]:80:8080
//! ```
//!
//! An IPv6 address stands in brackets. Without an address every one of the host is meant; without a protocol TCP is.

use super::Invalid;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Its name in lower case, for users and for nft alike.
    pub const fn word(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }
}

/// A port of the host that leads to a port of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortMap {
    /// Only on this address of the host; on all if none.
    pub host_ip: Option<IpAddr>,
    /// The host's port, not 0.
    pub host_port: u16,
    /// The attachment's port, not 0.
    pub port: u16,
    /// Of both.
    pub transport: Transport,
}

impl PortMap {
    /// Whether one packet could be meant by both.
    pub fn collides(&self, other: &PortMap) -> bool {
        let same_place = self.host_ip.is_none() || other.host_ip.is_none() || self.host_ip == other.host_ip;
        same_place && self.transport == other.transport && self.host_port == other.host_port
    }

    /// The host's side of it: `8091/tcp`, `192.0.2.1:8091/tcp`.
    pub fn host_side(&self) -> String {
        format!("{}{}/{}", self.place(), self.host_port, self.transport.word())
    }

    /// As `ps` shows it: `8091->8090/tcp`.
    pub fn arrow(&self) -> String {
        format!("{}{}->{}/{}", self.place(), self.host_port, self.port, self.transport.word())
    }

    fn place(&self) -> String {
        match self.host_ip {
            None => String::new(),
            Some(IpAddr::V4(ip)) => format!("{ip}:"),
            Some(IpAddr::V6(ip)) => format!("[{ip}]:"),
        }
    }
}

impl FromStr for PortMap {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<PortMap, Invalid> {
        let invalid = || Invalid::new(text, "a port to publish: [HOSTIP:]HOSTPORT:PORT[/udp], such as 8091:8090");
        let (rest, transport) = match text.rsplit_once('/') {
            None => (text, Transport::Tcp),
            Some((rest, "tcp")) => (rest, Transport::Tcp),
            Some((rest, "udp")) => (rest, Transport::Udp),
            Some(_) => return Err(invalid()),
        };
        let number = |digits: &str| {
            digits.parse::<u16>().ok().filter(|port| *port != 0 && !digits.starts_with('+')).ok_or_else(invalid)
        };
        let (rest, port) = rest.rsplit_once(':').ok_or_else(invalid)?;
        let (place, host_port) = match rest.rsplit_once(':') {
            None => (None, rest),
            Some((place, host_port)) => (Some(place), host_port),
        };
        let host_ip = match place {
            None => None,
            Some(place) => Some(match place.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
                Some(inner) => IpAddr::V6(inner.parse().map_err(|_| invalid())?),
                None => IpAddr::V4(place.parse().map_err(|_| invalid())?),
            }),
        };
        if host_ip.is_some_and(|ip| ip.is_multicast()) {
            return Err(invalid());
        }
        // 0.0.0.0 means all, as everywhere.
        let host_ip = host_ip.filter(|ip| !ip.is_unspecified());
        Ok(PortMap { host_ip, host_port: number(host_port)?, port: number(port)?, transport })
    }
}

impl fmt::Display for PortMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}:{}", self.place(), self.host_port, self.port)?;
        match self.transport {
            Transport::Tcp => Ok(()),
            Transport::Udp => f.write_str("/udp"),
        }
    }
}

impl Serialize for PortMap {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortMap {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<PortMap, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> PortMap {
        text.parse().unwrap()
    }

    #[test]
    fn parses_what_it_prints() {
        for text in ["8091:8090", "53:5353/udp", "192.0.2.1:80:8080", "[fd00::1]:80:8080/udp"] {
            assert_eq!(map(text).to_string(), text);
        }
        assert_eq!(map("1:2/tcp"), map("1:2"));
        assert_eq!(map("0.0.0.0:1:2"), map("1:2"));
        assert_eq!(map("192.0.2.1:53:5353/udp").host_side(), "192.0.2.1:53/udp");
    }

    #[test]
    fn refuses_other_texts() {
        let bad = [
            "",
            "80",
            ":80",
            "80:",
            "0:80",
            "80:0",
            "65536:1",
            "+1:2",
            "1:2/sctp",
            "1:2/",
            "a:1:2",
            "fd00::1:80:80",
            "[192.0.2.1]:1:2",
            "224.0.0.1:1:2",
            "1:2:3:4",
            " 1:2",
        ];
        for text in bad {
            assert!(text.parse::<PortMap>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn collides_where_a_packet_could_be_meant_by_both() {
        assert!(map("80:1").collides(&map("192.0.2.1:80:2")));
        assert!(map("192.0.2.1:80:1").collides(&map("192.0.2.1:80:2")));
        assert!(!map("192.0.2.1:80:1").collides(&map("192.0.2.2:80:1")));
        assert!(!map("80:1").collides(&map("80:1/udp")) && !map("80:1").collides(&map("81:1")));
    }
}
