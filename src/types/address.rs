//! The addresses of an attachment and the grammar that asks for them.
//!
//! ```text
//! request  = "net:default" | "net:" network | ["ip:"] address "/" length
//! requests = request { " " request } | "none"          nothing at all means net:default
//! ```

use super::{Invalid, Network};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address with the prefix length of its network: `10.2.1.1/24`. Never the network's own nor its broadcast address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpNet", into = "IpNet")]
pub struct HostAddress(IpNet);

const EXPECTED: &str = "an address with its prefix length such as 10.2.1.1/24 or fd00:1::1/64";

impl HostAddress {
    /// The address without its prefix.
    pub fn ip(self) -> IpAddr {
        self.0.addr()
    }

    /// The prefix length.
    pub fn prefix_len(self) -> u8 {
        self.0.prefix_len()
    }

    /// The network that it lies in.
    pub fn network(self) -> Network {
        Network::containing(self.0)
    }
}

impl TryFrom<IpNet> for HostAddress {
    type Error = Invalid;
    fn try_from(net: IpNet) -> Result<HostAddress, Invalid> {
        let text = || net.to_string();
        let ip = net.addr();
        let usable_hosts = net.max_prefix_len() - net.prefix_len() >= 2;
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            return Err(Invalid::new(text(), "a unicast address that a host can have"));
        }
        if usable_hosts && ip == net.network() {
            return Err(Invalid::new(text(), "a host's address (it is the network's own)"));
        }
        if usable_hosts && matches!(ip, IpAddr::V4(_)) && ip == net.broadcast() {
            return Err(Invalid::new(text(), "a host's address (it is the network's broadcast address)"));
        }
        if !usable_hosts {
            return Err(Invalid::new(text(), "in a network of at least 4 addresses (/30, /126 or larger)"));
        }
        Ok(HostAddress(net))
    }
}

impl From<HostAddress> for IpNet {
    fn from(address: HostAddress) -> IpNet {
        address.0
    }
}

impl FromStr for HostAddress {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<HostAddress, Invalid> {
        let net: IpNet = text.parse().map_err(|_| Invalid::new(text, EXPECTED))?;
        HostAddress::try_from(net)
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One word of the address grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressRequest {
    /// `ip:10.2.1.1/24` or `10.2.1.1/24`: that very address.
    Ip(HostAddress),
    /// `net:10.32.2.0/24`: any free address of that network.
    Net(Network),
    /// `net:default`: any free address of the default network.
    NetDefault,
}

impl FromStr for AddressRequest {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<AddressRequest, Invalid> {
        match text.strip_prefix("net:") {
            Some("default") => Ok(AddressRequest::NetDefault),
            Some(network) => {
                let network: Network = network.parse()?;
                if network.cidr().max_prefix_len() - network.cidr().prefix_len() < 2 {
                    return Err(Invalid::new(text, "a network of at least 4 addresses (/30, /126 or larger)"));
                }
                Ok(AddressRequest::Net(network))
            }
            None => text.strip_prefix("ip:").unwrap_or(text).parse().map(AddressRequest::Ip),
        }
    }
}

impl fmt::Display for AddressRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressRequest::Ip(address) => write!(f, "ip:{address}"),
            AddressRequest::Net(network) => write!(f, "net:{network}"),
            AddressRequest::NetDefault => f.write_str("net:default"),
        }
    }
}

impl Serialize for AddressRequest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AddressRequest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<AddressRequest, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Parses a whole request: several words in any number of texts. An empty list means `net:default`; `none` gives nothing.
pub fn parse_requests<S: AsRef<str>>(texts: &[S]) -> Result<Vec<AddressRequest>, Invalid> {
    let words: Vec<&str> = texts.iter().flat_map(|text| text.as_ref().split_whitespace()).collect();
    match words.as_slice() {
        [] => Ok(vec![AddressRequest::NetDefault]),
        ["none"] => Ok(Vec::new()),
        words => words.iter().map(|word| word.parse()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_each_form() {
        let ip = AddressRequest::Ip("10.2.1.1/24".parse().unwrap());
        assert_eq!("10.2.1.1/24".parse(), Ok(ip));
        assert_eq!("ip:10.2.1.1/24".parse(), Ok(ip));
        assert_eq!("net:default".parse(), Ok(AddressRequest::NetDefault));
        assert_eq!("net:10.32.2.0/24".parse(), Ok(AddressRequest::Net("10.32.2.0/24".parse().unwrap())));
        assert_eq!("fd00:1::1/64".parse(), Ok(AddressRequest::Ip("fd00:1::1/64".parse().unwrap())));
    }

    #[test]
    fn refuses_network_and_broadcast_addresses_and_nonsense() {
        for text in [
            "10.2.1.0/24",
            "10.2.1.255/24",
            "10.2.1.1/31",
            "10.2.1.1/32",
            "10.2.1.1",
            "10.2.1.1/33",
            "10.2.1.1/",
            "0.0.0.0/8",
            "224.0.0.1/24",
            "127.0.0.1/8",
            "fd00:1::/64",
            "net:10.32.2.1/24",
            "net:10.32.2.0/31",
            "net:",
            "ip:",
            "",
        ] {
            assert!(text.parse::<AddressRequest>().is_err(), "{text}");
        }
        assert!("fd00:1::ffff:ffff:ffff:ffff/64".parse::<HostAddress>().is_ok(), "IPv6 has no broadcast address");
    }

    #[test]
    fn an_empty_list_asks_for_the_default_network() {
        assert_eq!(parse_requests::<&str>(&[]), Ok(vec![AddressRequest::NetDefault]));
        assert_eq!(parse_requests(&["none"]), Ok(vec![]));
        assert_eq!(parse_requests(&["10.2.1.1/24 net:default", "10.2.2.1/24"]).unwrap().len(), 3);
        assert!(parse_requests(&["none 10.2.1.1/24"]).is_err());
    }
}
