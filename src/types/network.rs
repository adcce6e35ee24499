//! Networks and their ids.
//!
//! A network is named by its CIDR. Its id is a fixed hash of that name, so that hosts agree on it without talking:
//! the first 24 bits of SHA-256 over the canonical text (`10.2.1.0/24`), with 0 moved to 1 because 0 means "no network", and
//! 0xff_ffff to 0xff_fffe because peers prove their VXLAN paths by it ([`VNI_OF_PEERS`]).

use super::Invalid;
use aws_lc_rs::digest;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The VNI (RFC 7348) by which rnet peers prove the VXLAN path between them; no network has it.
pub const VNI_OF_PEERS: u32 = 0xff_ffff;

/// A 24-bit network id (a VNI in VXLAN's words, RFC 7348), 1 to 0xff_fffe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct NetId(u32);

impl NetId {
    /// The id `value`; nothing if it is 0, [`VNI_OF_PEERS`], or needs more than 24 bits.
    pub const fn new(value: u32) -> Option<NetId> {
        if value == 0 || value >= VNI_OF_PEERS { None } else { Some(NetId(value)) }
    }

    /// The number, 1 to 0xff_fffe.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// The name of its network's bridge on every host.
    pub fn bridge(self) -> String {
        format!("rnb{:06x}", self.0)
    }
}

impl TryFrom<u32> for NetId {
    type Error = Invalid;
    fn try_from(value: u32) -> Result<NetId, Invalid> {
        NetId::new(value).ok_or_else(|| Invalid::new(value.to_string(), "a network id from 1 to 16777214"))
    }
}

impl From<NetId> for u32 {
    fn from(id: NetId) -> u32 {
        id.0
    }
}

impl FromStr for NetId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<NetId, Invalid> {
        text.parse().ok().and_then(NetId::new).ok_or_else(|| Invalid::new(text, "a network id from 1 to 16777214"))
    }
}

impl fmt::Display for NetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for NetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net{}", self.0)
    }
}

/// One isolated Ethernet segment, named by its CIDR with no host bits set: `10.2.1.0/24`, `fd00:1::/64`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpNet", into = "IpNet")]
pub struct Network(IpNet);

impl Network {
    /// The network that `subnet` lies in: host bits are cleared.
    pub fn containing(subnet: IpNet) -> Network {
        Network(subnet.trunc())
    }

    /// Its CIDR, host bits clear.
    pub const fn cidr(self) -> IpNet {
        self.0
    }

    /// Whether `address` lies inside.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// `mtu`, or what its packets need at least: an interface of less than 1280 bytes loses its IPv6 addresses (RFC 8200
    /// section 5).
    pub fn usable_mtu(self, mtu: u16) -> u16 {
        if self.0.addr().is_ipv6() { mtu.max(1280) } else { mtu }
    }

    /// Its id; see the head of this file.
    pub fn id(self) -> NetId {
        let hash = digest::digest(&digest::SHA256, self.0.to_string().as_bytes());
        let value = match hash.as_ref() {
            [a, b, c, ..] => u32::from_be_bytes([0, *a, *b, *c]),
            _ => 0,
        };
        NetId(value.clamp(1, VNI_OF_PEERS - 1))
    }
}

impl TryFrom<IpNet> for Network {
    type Error = Invalid;
    fn try_from(cidr: IpNet) -> Result<Network, Invalid> {
        if cidr.trunc() == cidr {
            Ok(Network(cidr))
        } else {
            Err(Invalid::new(cidr.to_string(), "a network such as 10.2.1.0/24 (host bits must be zero)"))
        }
    }
}

impl From<Network> for IpNet {
    fn from(network: Network) -> IpNet {
        network.0
    }
}

impl FromStr for Network {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Network, Invalid> {
        let cidr: IpNet =
            text.parse().map_err(|_| Invalid::new(text, "a network such as 10.2.1.0/24 or fd00:1::/64"))?;
        Network::try_from(cidr)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_the_same_on_every_host_and_release() {
        let network: Network = "10.2.1.0/24".parse().unwrap();
        // First three bytes of `printf 10.2.1.0/24 | sha256sum`.
        assert_eq!(network.id().value(), ID_OF_10_2_1_0);
        assert_ne!(network.id(), "10.2.2.0/24".parse::<Network>().unwrap().id());
        assert_ne!(network.id(), "10.2.1.0/25".parse::<Network>().unwrap().id());
    }

    const ID_OF_10_2_1_0: u32 = 0x83_12a4;

    #[test]
    fn refuses_host_bits_and_nonsense() {
        assert!("10.2.1.1/24".parse::<Network>().is_err());
        assert!("10.2.1.0".parse::<Network>().is_err());
        assert!("10.2.1.0/33".parse::<Network>().is_err());
        assert_eq!(Network::containing("10.2.1.77/24".parse().unwrap()).to_string(), "10.2.1.0/24");
    }

    #[test]
    fn ids_have_24_bits_and_are_not_zero() {
        assert!(NetId::new(0).is_none() && NetId::new(1 << 24).is_none());
        assert!(serde_json::from_str::<NetId>("0").is_err());
        assert_eq!(serde_json::from_str::<NetId>("16777214").unwrap().value(), 0xff_fffe);
    }
}
