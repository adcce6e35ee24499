//! The addresses that this machine has, by interface: getifaddrs(3).

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use std::io;
use std::net::IpAddr;

/// All addresses of the network namespace of the calling thread whose interfaces are up, in the kernel's order.
pub fn addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let mut all = Vec::new();
    for one in getifaddrs()? {
        let Some(address) = one.address.filter(|_| one.flags.contains(InterfaceFlags::IFF_UP)) else { continue };
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        all.extend(v4.or(v6).map(|ip| (one.interface_name.clone(), ip)));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    #[test]
    fn loopback_is_there() {
        let all = super::addresses().unwrap();
        assert!(all.contains(&("lo".to_string(), IpAddr::V4(Ipv4Addr::LOCALHOST))), "{all:?}");
    }
}
