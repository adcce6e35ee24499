//! An address to dial, as the user wrote it.

use super::Invalid;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// `<ip or host name>[:<port>]`, IPv6 with a port in brackets: `10.0.0.7`, `host2:6783`, `[fd00::7]:6783`, `fd00::7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// A host name or the text of an IP address, without brackets.
    pub host: String,
    /// The port if one was given; otherwise the mesh's own port is meant.
    pub port: Option<u16>,
}

impl Target {
    /// The target for a known socket address.
    pub fn from_addr(addr: SocketAddr) -> Target {
        Target { host: addr.ip().to_string(), port: Some(addr.port()) }
    }

    /// The address if the host is one and needs no resolving.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for Target {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Target, Invalid> {
        let invalid = || Invalid::new(text, "a peer's address such as 192.0.2.7, host2, host2:6783 or [fd00::7]:6783");
        let port = |digits: &str| {
            digits.parse::<u16>().ok().filter(|p| *p != 0 && !digits.starts_with('+')).ok_or_else(invalid)
        };
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Target { host: ip.to_string(), port: None });
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (ip, rest) = rest.split_once(']').ok_or_else(invalid)?;
            let ip: IpAddr = ip.parse().map_err(|_| invalid())?;
            let port = match rest.strip_prefix(':') {
                Some(digits) => Some(port(digits)?),
                None if rest.is_empty() => None,
                None => return Err(invalid()),
            };
            return Ok(Target { host: ip.to_string(), port });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, digits)) => (host, Some(port(digits)?)),
            None => (text, None),
        };
        let label = |l: &str| {
            !l.is_empty() && l.len() <= 63 && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        let name = host.strip_suffix('.').unwrap_or(host);
        // A name of digits and dots only would be a mistyped address, and a resolver would be asked for it.
        let numeric = name.chars().all(|c| c.is_ascii_digit() || c == '.');
        if host.len() > 253 || (numeric && name.parse::<IpAddr>().is_err()) || !name.split('.').all(label) {
            return Err(invalid());
        }
        Ok(Target { host: host.to_string(), port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => f.write_str(&self.host),
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Target, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_prints() {
        for text in ["192.0.2.7", "192.0.2.7:6783", "host2", "host2.example.org:7000", "fd00::7", "[fd00::7]:6783"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!("[fd00::7]".parse::<Target>().unwrap().to_string(), "fd00::7");
    }

    #[test]
    fn refuses_other_texts() {
        for text in [
            "",
            ":6783",
            "host:",
            "host:0",
            "host:65536",
            "a b",
            "10.0.0.256",
            "10.0.0",
            "[fd00::7",
            "[fd00::7]x",
            "-/x",
            "host:+1",
            "http://x",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
