//! The TCP listener of links.
//!
//! Owns its options only; connections are `run`'s. It speaks IPv6 and IPv4 at once as the datagram socket does, and
//! stands on the same port.

use super::udp::no_ipv6;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Listens on `port` (0: any free one) of all addresses, IPv4 only where IPv6 is disabled. Non-blocking.
///
/// The address may be taken again at once after a restart (SO_REUSEADDR). Errors: AddrInUse, PermissionDenied.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    match listen_at(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
        Err(e) if no_ipv6(&e) => listen_at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        other => other,
    }
}

/// Listens at this very address; an unspecified IPv6 address takes IPv4 too. Non-blocking.
pub fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn accepts_ipv4_and_tells_a_port_in_use() {
        let listener = listen(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        assert_eq!(listen(port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
