//! UDP ports by which VTEPs are reached, and what the route to one takes.
//!
//! A door is a port of this host bound by one socket for each data path thread. A VTEP sends each flow from a source port of
//! its own (RFC 7348, section 5), so the kernel's hash keeps a flow on one thread and spreads many. Does not own when there is
//! a door (`host::doors`), nor the datagrams (`egress`, `ingress`).
//!
//! What goes to VTEPs leaves by the door itself, so from one source port, though RFC 7348 (section 5) recommends one of 49152 to 65535
//! by a hash of the inner flow. A source port is a socket's, and a send call is one socket's: a batch for a VTEP is one call now
//! (up to 64 datagrams, 180 ns each), and would be one for each port that its flows hash to (1,115 ns for a datagram that goes
//! alone). Small packets of many flows, which cost the most, would pay that; and headers of our own on a raw socket would lose
//! UDP_SEGMENT. The price: routers with several ways, and the VTEP's own queues, take all that one host sends for one flow.

use super::udp::{UdpSocket, no_ipv6};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

/// setsockopt(2) of UDP: take datagrams over IPv6 that have no checksum.
const UDP_NO_CHECK6_RX: libc::c_int = 102;

/// Binds `port` on this address of the host, or on all; `count` sockets. Errors: AddrInUse if somebody has the port;
/// AddrNotAvailable.
pub fn open(port: u16, at: Option<IpAddr>, count: usize) -> io::Result<Vec<UdpSocket>> {
    let bind = |ip: IpAddr| UdpSocket::bind_together(SocketAddr::new(ip, port), count);
    let sockets = match at {
        Some(ip) => bind(ip)?,
        None => match bind(Ipv6Addr::UNSPECIFIED.into()) {
            Err(e) if no_ipv6(&e) => bind(Ipv4Addr::UNSPECIFIED.into())?,
            other => other?,
        },
    };
    sockets.iter().filter(|socket| socket.speaks_ipv6()).for_each(accept_without_checksum);
    Ok(sockets)
}

/// Sockets of this address of the host, or of all, for sending only: each of a port of its own. So nothing that a slow one has
/// not taken holds up another, sending and receiving do not wait for one another, and routers and threads on the way tell their
/// flows apart (RFC 7348, section 5). Errors: AddrNotAvailable.
pub fn senders(at: Option<IpAddr>, count: usize) -> io::Result<Vec<UdpSocket>> {
    let bind = || match at {
        Some(ip) => UdpSocket::bind_to(SocketAddr::new(ip, 0)),
        None => UdpSocket::bind(0),
    };
    (0..count).map(|_| bind()).collect()
}

/// VTEPs may send without a UDP checksum, and whoever takes VXLAN has to take that (RFC 7348, section 5; RFC 6935). Not
/// reported: before Linux 3.16 such a VTEP is not heard over IPv6.
fn accept_without_checksum(socket: &UdpSocket) {
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int of this length, which outlives the call.
    unsafe {
        let length = size_of_val(&on) as libc::socklen_t;
        let (fd, value) = (socket.as_fd().as_raw_fd(), (&raw const on).cast());
        libc::setsockopt(fd, libc::IPPROTO_UDP, UDP_NO_CHECK6_RX, value, length);
    }
}

/// The way from this host to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Bytes of IP packet that it takes, as far as the kernel knows; at most 65,535.
    pub mtu: u16,
    /// The address is this host's own.
    pub own: bool,
}

/// What the kernel knows of the route to `to` now (ip(7), IP_MTU). Sends nothing. Errors: there is no route.
pub fn route(to: SocketAddr) -> io::Result<Route> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    socket.connect(&to.into())?;
    let (level, option) =
        if to.is_ipv4() { (libc::IPPROTO_IP, libc::IP_MTU) } else { (libc::IPPROTO_IPV6, libc::IPV6_MTU) };
    let mut mtu: libc::c_int = 0;
    let mut length = size_of_val(&mtu) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `mtu`; both outlive the call.
    let asked = unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut mtu).cast(), &raw mut length) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    let own = socket.local_addr()?.as_socket().is_some_and(|local| local.ip() == to.ip());
    Ok(Route { mtu: u16::try_from(mtu).unwrap_or(u16::MAX), own })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::ingress::Ingress;

    #[test]
    fn a_door_is_claimed_spreads_flows_and_keeps_each_on_one_socket() {
        let sockets = open(0, None, 2).unwrap();
        let port = sockets[0].local_addr().unwrap().port();
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap().port() == port));
        assert_eq!(open(port, None, 1).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        let clients: Vec<UdpSocket> = (0..32).map(|_| UdpSocket::bind(0).unwrap()).collect();
        for client in &clients {
            (0..3).for_each(|_| client.send((Ipv4Addr::LOCALHOST, port).into(), b"a datagram").unwrap());
        }
        let (mut ingress, mut seen) = (Ingress::new(), Vec::new());
        for socket in &sockets {
            let mut froms = Vec::new();
            loop {
                let received = ingress.receive(socket).unwrap();
                let last = received.is_last();
                froms.extend(received.map(|(from, _)| from));
                if last {
                    break;
                }
            }
            froms.sort_unstable();
            assert!(froms.chunks(3).all(|flow| flow.len() == 3 && flow.iter().all(|from| *from == flow[0])));
            seen.push(froms.len());
        }
        assert_eq!(seen.iter().sum::<usize>(), 96);
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    }

    #[test]
    fn the_route_to_ourselves_is_known_as_such() {
        let route = route((Ipv4Addr::LOCALHOST, 4789).into()).unwrap();
        assert!(route.own && route.mtu > 1500, "{route:?}");
    }
}
