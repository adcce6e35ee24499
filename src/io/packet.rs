//! Frames on a device from outside of it.
//!
//! Owns AF_PACKET sockets (packet(7)): one for a single frame, and one that sends and takes frames of one ether type of one device,
//! for heartbeats on a VXLAN device. The frames of the mesh take the capture port. Nothing here blocks.

use nix::net::if_::if_nametoindex;
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};
use std::io;
use std::os::fd::AsRawFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Sends `frame` (a whole Ethernet frame) out of `device`, in the network namespace of the calling thread. Does not block.
///
/// Errors: ENODEV, ENETDOWN if the device is down, EMSGSIZE, EPERM without CAP_NET_RAW.
pub fn send_frame(device: &str, frame: &[u8]) -> io::Result<()> {
    // Protocol 0 receives nothing.
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)?;
    socket.send_to(frame, &address(if_nametoindex(device)?, 0)?).map(|_| ())
}

fn address(index: u32, ether_type: u16) -> io::Result<SockAddr> {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is plain old data, smaller than the storage and no stricter aligned.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ether_type.to_be();
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the storage was filled as a sockaddr_ll of just this length.
    Ok(unsafe { SockAddr::new(storage, length) })
}

/// Frames of one ether type on one device.
pub struct PacketSocket(AsyncFd<Socket>);

impl PacketSocket {
    /// Opens it on `device`, in the network namespace of the calling thread. Must be called within a runtime with I/O.
    pub fn open(device: &str, ether_type: u16) -> io::Result<PacketSocket> {
        // It takes frames only once it is bound, so none of another device.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)?;
        socket.bind(&address(if_nametoindex(device)?, ether_type)?)?;
        // SAFETY: the socket owns its descriptor, which stays open and the same until it is dropped after the registration.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(PacketSocket(registered.map_err(io::Error::from)?))
    }

    /// Sends a whole Ethernet frame, now or never. Errors: as [`send_frame`]; WouldBlock, ENOBUFS if the queue is full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.get_ref().send(frame).map(|_| ())
    }

    /// The next frame; `buffer` is filled with what fits. Errors: ENETDOWN once when the device goes down, after which it is still to be
    /// read.
    pub async fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        loop {
            let mut ready = self.0.readable().await?;
            let fd = ready.get_inner().as_raw_fd();
            let received =
                ready.try_io(|_| Ok(nix::sys::socket::recv(fd, buffer, nix::sys::socket::MsgFlags::empty())?));
            // Else nothing was there after all.
            if let Ok(length) = received {
                return Ok(buffer.get(..length?).unwrap_or_default());
            }
        }
    }
}
