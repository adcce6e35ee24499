//! An Ethernet address.

use super::Invalid;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An IEEE 802 48-bit address, written `7e:21:4a:70:2f:45`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Group addresses (multicast and broadcast) have the lowest bit of the first octet set.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// A locally administered unicast address made of the first 46 usable bits of `seed`.
    pub const fn local(seed: [u8; 6]) -> Mac {
        let mut octets = seed;
        octets[0] = (octets[0] & 0xfc) | 0x02;
        Mac(octets)
    }

    /// 01:80:c2:00:00:0X: link-local protocols (STP, LACP, LLDP) that a bridge never forwards (IEEE 802.1D 7.12.6).
    pub const fn is_link_local(self) -> bool {
        let [a, b, c, d, e, f] = self.0;
        a == 0x01 && b == 0x80 && c == 0xc2 && d == 0 && e == 0 && f & 0xf0 == 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Mac, Invalid> {
        let invalid = || Invalid::new(text, "a MAC address such as 7e:21:4a:70:2f:45");
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(invalid)?;
            if part.is_empty() || part.len() > 2 || part.starts_with('+') {
                return Err(invalid());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() { Err(invalid()) } else { Ok(Mac(octets)) }
    }
}

/// Text in formats for people (JSON), six bytes in messages.
impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { self.0.serialize(s) }
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Mac, D::Error> {
        if d.is_human_readable() {
            String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 6]>::deserialize(d).map(Mac)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_prints() {
        let mac = Mac([0x7e, 0x21, 0x4a, 0x70, 0x2f, 0x05]);
        assert_eq!(mac.to_string(), "7e:21:4a:70:2f:05");
        assert_eq!("7e:21:4A:70:2f:5".parse(), Ok(mac));
    }

    #[test]
    fn refuses_other_texts() {
        for text in [
            "",
            "7e:21:4a:70:2f",
            "7e:21:4a:70:2f:45:01",
            "7e:21:4a:70:2f:145",
            "7e:21:4a:70:2f:+5",
            "zz:21:4a:70:2f:45",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn tells_group_and_link_local_addresses() {
        assert!(Mac::BROADCAST.is_group() && !Mac::BROADCAST.is_link_local());
        assert!(Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e]).is_link_local());
        assert!(!Mac([0x01, 0x80, 0xc2, 0, 0, 0x10]).is_link_local());
        assert!(!Mac::local([0xff; 6]).is_group());
    }
}
