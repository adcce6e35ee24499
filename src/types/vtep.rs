//! Where a tunnel end that is not rnet is: `vxlan://10.0.0.5`, `vxlan://[fd00::5]:4790`.
//!
//! An address, not a name: datagrams are believed by the address that they come from.

use super::Invalid;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The port of VXLAN (IANA); a kernel's and Open vSwitch's default.
pub const VXLAN_PORT: u16 = 4789;

const EXPECTED: &str =
    "a VTEP's address such as vxlan://10.0.0.5 or vxlan://[fd00::5]:4789 (an IP address, not a name)";

/// The address of a VTEP (RFC 7348): unicast, neither link-local IPv6 nor unspecified; the port is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VtepAddress(SocketAddr);

impl VtepAddress {
    /// How the text of one begins.
    pub const SCHEME: &'static str = "vxlan://";

    /// Where its datagrams go.
    pub const fn socket(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for VtepAddress {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<VtepAddress, Invalid> {
        let invalid = || Invalid::new(text, EXPECTED);
        let rest = text.strip_prefix(VtepAddress::SCHEME).ok_or_else(invalid)?;
        let in_brackets = |text: &str| text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
        let (ip, port) = match rest.parse::<Ipv4Addr>() {
            Ok(ip) => (IpAddr::V4(ip), VXLAN_PORT),
            Err(_) => match in_brackets(rest) {
                Some(ip) => (IpAddr::V6(ip), VXLAN_PORT),
                None => {
                    let (host, port) = rest.rsplit_once(':').ok_or_else(invalid)?;
                    let v4 = || host.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
                    let ip = v4().or_else(|| in_brackets(host).map(IpAddr::V6)).ok_or_else(invalid)?;
                    let port = port.parse().ok().filter(|_| !port.starts_with('+')).ok_or_else(invalid)?;
                    (ip, port)
                }
            },
        };
        let ip = ip.to_canonical();
        let local = match ip {
            IpAddr::V4(ip) => ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if port == 0 || local || ip.is_unspecified() || ip.is_multicast() {
            return Err(invalid());
        }
        Ok(VtepAddress(SocketAddr::new(ip, port)))
    }
}

impl fmt::Display for VtepAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(VtepAddress::SCHEME)?;
        match self.0.ip() {
            IpAddr::V4(ip) => write!(f, "{ip}")?,
            IpAddr::V6(ip) => write!(f, "[{ip}]")?,
        }
        if self.0.port() == VXLAN_PORT { Ok(()) } else { write!(f, ":{}", self.0.port()) }
    }
}

impl Serialize for VtepAddress {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VtepAddress {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<VtepAddress, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_prints_and_knows_the_usual_port() {
        for text in ["vxlan://10.0.0.5", "vxlan://10.0.0.5:8472", "vxlan://[fd00::5]", "vxlan://[fd00::5]:1"] {
            assert_eq!(text.parse::<VtepAddress>().unwrap().to_string(), text);
        }
        let usual: VtepAddress = "vxlan://10.0.0.5:4789".parse().unwrap();
        assert_eq!((usual.to_string().as_str(), usual.socket().port()), ("vxlan://10.0.0.5", 4789));
        assert_eq!("vxlan://[::ffff:10.0.0.5]".parse::<VtepAddress>().unwrap(), usual);
    }

    #[test]
    fn refuses_other_texts() {
        for text in [
            "",
            "10.0.0.5",
            "vxlan://",
            "vxlan://host1",
            "vxlan://10.0.0.5:",
            "vxlan://10.0.0.5:0",
            "vxlan://10.0.0.5:+1",
            "vxlan://10.0.0.5:65536",
            "vxlan://10.0.0.5/",
            "vxlan://fd00::5",
            "vxlan://[10.0.0.5]",
            "vxlan://[fd00::5",
            "vxlan://[fe80::1]",
            "vxlan://[::]",
            "vxlan://0.0.0.0",
            "vxlan://239.1.1.1",
            "vxlan://[ff02::1]",
            "vxlan://255.255.255.255",
            "VXLAN://10.0.0.5",
        ] {
            assert!(text.parse::<VtepAddress>().is_err(), "{text:?}");
        }
    }
}
