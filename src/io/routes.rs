//! The routes of this network namespace, as /proc/net tells them.
//!
//! Owns the reading of route(8)'s two files (proc_pid_net(5)), main table only for IPv4. Gives destinations with their devices;
//! the default route, link-local and multicast ones are no destination that an address range could collide with. Whether
//! one matters is the caller's.
//!
//! ```text
//! /proc/net/route       Iface Destination ... Mask ...   tab-separated, addresses as hexadecimal host-order words
//! /proc/net/ipv6_route  destination prefix ... device    hexadecimal digits without colons
//! ```

use crate::types::Network;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Destinations and the devices that they lead to. What cannot be read or makes no sense is left out.
pub fn destinations() -> Vec<(Network, String)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (v4, v6) = (read("/proc/net/route"), read("/proc/net/ipv6_route"));
    v4.lines().filter_map(line_v4).chain(v6.lines().filter_map(line_v6)).collect()
}

fn line_v4(line: &str) -> Option<(Network, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let word = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok().map(u32::to_ne_bytes);
    let (destination, mask) = (Ipv4Addr::from(word(1)?), Ipv4Addr::from(word(7)?));
    let net = Ipv4Net::with_netmask(destination, mask).ok().filter(|net| net.prefix_len() > 0)?;
    let usual = !destination.is_link_local() && !destination.is_multicast() && !destination.is_loopback();
    usual.then(|| (Network::containing(IpNet::V4(net)), (*fields.first().unwrap_or(&"")).to_string()))
}

fn line_v6(line: &str) -> Option<(Network, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let destination = Ipv6Addr::from(u128::from_str_radix(fields.first()?, 16).ok()?);
    let prefix = u8::from_str_radix(fields.get(1)?, 16).ok().filter(|prefix| *prefix > 0)?;
    let net = Ipv6Net::new(destination, prefix).ok()?;
    let unusual = destination.is_multicast() || destination.is_loopback() || destination.is_unicast_link_local();
    (!unusual).then(|| (Network::containing(IpNet::V6(net)), (*fields.last().unwrap_or(&"")).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn reads_what_route_tells() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                    eth1\t0000FEA9\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let routes: Vec<_> = text.lines().filter_map(line_v4).collect();
        assert_eq!(routes, [("192.168.0.0/24".parse().unwrap(), "eth0".to_string())]);
    }

    #[test]
    fn reads_what_ipv6_route_tells() {
        let line = |destination: &str, prefix: &str| {
            format!("{destination} {prefix} {0} 00 {0} 00000100 00000001 00000000 00000001     eth0", "0".repeat(32))
        };
        let read = |destination: &str, prefix: &str| line_v6(&line(destination, prefix));
        let expected = Some(("fd00:1::/64".parse().unwrap(), "eth0".to_string()));
        assert_eq!(read("fd000001000000000000000000000000", "40"), expected);
        for (destination, prefix) in
            [("0", "00"), ("fe80000000000000", "40"), ("ff000000000000000000000000000000", "08")]
        {
            assert_eq!(read(&format!("{destination:0<32}"), prefix), None);
        }
        assert_eq!(line_v6("x y"), None);
    }
}
