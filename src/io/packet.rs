//! Sending a frame on a device from outside of it.
//!
//! Owns AF_PACKET sockets for sending only: protocol 0 receives nothing. Used to announce an attachment's addresses; the
//! frames of the mesh take the capture port.

use nix::net::if_::if_nametoindex;
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};
use std::io;

/// Sends `frame` (a whole Ethernet frame) out of `device`, in the network namespace of the calling thread. Does not block.
///
/// Errors: ENODEV, ENETDOWN if the device is down, EMSGSIZE, EPERM without CAP_NET_RAW.
pub fn send_frame(device: &str, frame: &[u8]) -> io::Result<()> {
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)?;
    let index = if_nametoindex(device)?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is plain old data, smaller than the storage and no stricter aligned.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the storage was filled as a sockaddr_ll of just this length.
    let address = unsafe { SockAddr::new(storage, length) };
    socket.send_to(frame, &address).map(|_| ())
}
