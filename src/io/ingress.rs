//! Datagrams on their way in, received many per system call.
//!
//! Owns the receive buffers: 8 of 64 KiB, because the kernel may coalesce (UDP_GRO) up to 64 KiB of equal-sized
//! datagrams of one sender into one message and cuts silently what does not fit. A call hands each datagram on once, in the
//! order of arrival, as a slice of its own of the memory that it arrived in: a batch may hold on to all of them.

use super::udp::{UdpSocket, plain};
use quinn_udp::RecvMeta;
use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::iter::Zip;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::slice::{ChunksExactMut, ChunksMut, Iter};

/// Messages per system call (8 measured best).
const MESSAGES: usize = 8;
/// Bytes per message.
const MESSAGE: usize = 1 << 16;

/// See the head of this file. One per data path thread.
pub struct Ingress {
    buffers: Box<[u8]>,
    metas: [RecvMeta; MESSAGES],
    local: Cell<Option<IpAddr>>,
}

impl Default for Ingress {
    fn default() -> Ingress {
        Ingress::new()
    }
}

impl Ingress {
    /// With all the memory it will ever have.
    pub fn new() -> Ingress {
        let buffers = vec![0; MESSAGES * MESSAGE].into_boxed_slice();
        Ingress { buffers, metas: [RecvMeta::default(); MESSAGES], local: Cell::new(None) }
    }

    /// One receive call, and what it brought: nothing if nothing waits, or if it failed in a way that may pass (`has_failed`).
    /// Errors: those of a call that can never succeed; whoever reads the socket need not try again.
    pub fn receive<'b>(&'b mut self, socket: &UdpSocket) -> io::Result<Received<'b>> {
        let (messages, failed) = {
            let mut chunks = self.buffers.chunks_exact_mut(MESSAGE);
            let mut slices: [IoSliceMut<'_>; MESSAGES] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            match socket.state.recv(socket.as_udp_ref(), &mut slices, &mut self.metas) {
                Ok(messages) => (messages, false),
                Err(e) => match e.raw_os_error() {
                    Some(libc::EAGAIN | libc::EINTR) => (0, false),
                    errno if is_final(errno) => return Err(e),
                    _ => (0, true),
                },
            }
        };
        let buffers = self.buffers.chunks_exact_mut(MESSAGE);
        let metas = self.metas.get(..messages).unwrap_or(&self.metas).iter();
        let bytes = metas.as_slice().iter().map(|meta| meta.len).sum();
        let next = metas.zip(buffers);
        Ok(Received { messages, failed, bytes, from: NOBODY, local: &self.local, datagrams: [].chunks_mut(1), next })
    }
}

/// No sender: before the first message.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What one receive call brought, datagram by datagram: the sender (never v4-mapped), and the memory that it arrived in, which
/// is the caller's until the next receive call.
pub struct Received<'b> {
    messages: usize,
    failed: bool,
    bytes: usize,
    from: SocketAddr,
    local: &'b Cell<Option<IpAddr>>,
    datagrams: ChunksMut<'b, u8>,
    next: Zip<Iter<'b, RecvMeta>, ChunksExactMut<'b, u8>>,
}

impl<'b> Received<'b> {
    /// The address of this host that the datagram came to which was handed on last, if the socket tells (`UdpSocket::locate`).
    pub fn local(&self) -> &'b Cell<Option<IpAddr>> {
        self.local
    }

    /// Whether nothing waited.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Whether the call failed, which says nothing of the next one.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Bytes of all its datagrams.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waited any more after this: another call would bring nothing, or what has come since.
    pub fn is_last(&self) -> bool {
        self.messages < MESSAGES
    }
}

impl<'b> Iterator for Received<'b> {
    type Item = (SocketAddr, &'b mut [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(datagram) = self.datagrams.next() {
                return Some((self.from, datagram));
            }
            let (meta, buffer) = self.next.next()?;
            self.from = plain(meta.addr);
            self.local.set(meta.dst_ip.map(|ip| ip.to_canonical()));
            // An empty datagram has neither length nor stride, and nothing to tell.
            let length = meta.len.min(MESSAGE);
            self.datagrams = buffer.get_mut(..length).unwrap_or_default().chunks_mut(meta.stride.max(1));
        }
    }
}

/// Mistakes of ours, which no time heals: no socket, no such call, arguments that are none. All else the kernel may say of a
/// socket that works: what ICMP or the end of a device left there (ENETDOWN, EHOSTUNREACH, ...; told once), no memory (ENOBUFS,
/// ENOMEM), a rule of this host (EACCES, EPERM), or that somebody cut it off (ECONNABORTED; ss(8), --kill).
fn is_final(errno: Option<i32>) -> bool {
    matches!(
        errno,
        Some(
            libc::EBADF
                | libc::ENOTSOCK
                | libc::EFAULT
                | libc::EINVAL
                | libc::EOPNOTSUPP
                | libc::ENOSYS
                | libc::ENOTCONN
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mistakes_of_ours_are_final() {
        let passing = [
            libc::ENOBUFS,
            libc::ENOMEM,
            libc::ENETDOWN,
            libc::ENETUNREACH,
            libc::EHOSTDOWN,
            libc::EHOSTUNREACH,
            libc::ECONNREFUSED,
            libc::ECONNABORTED,
            libc::EACCES,
            libc::EPERM,
            libc::EPROTO,
            libc::EMSGSIZE,
            libc::EIO,
        ];
        assert!(!passing.into_iter().any(|errno| is_final(Some(errno))) && !is_final(None));
        assert!(
            [libc::EBADF, libc::ENOTSOCK, libc::EINVAL, libc::EFAULT].into_iter().all(|errno| is_final(Some(errno)))
        );
    }

    #[test]
    fn a_failure_is_told_once_and_what_comes_after_it_arrives() {
        let bind = || UdpSocket::bind_to("127.0.0.1:0".parse().unwrap()).unwrap();
        let (socket, gone) = (bind(), bind());
        let (own, nobody) = (socket.local_addr().unwrap(), gone.local_addr().unwrap());
        drop(gone);
        // A connected socket hears of ICMP errors.
        nix::sys::socket::connect(nix::libc::c_int::from(std::os::fd::AsRawFd::as_raw_fd(&socket)), &to_nix(nobody))
            .unwrap();
        socket.send(nobody, b"?").unwrap();
        let mut ingress = Ingress::new();
        let received = ingress.receive(&socket).unwrap();
        assert!(received.has_failed() && received.is_empty() && received.is_last());
        assert!(!ingress.receive(&socket).unwrap().has_failed());
        let peer = UdpSocket::bind_to(nobody).unwrap();
        peer.send(own, b"hello").unwrap();
        let received = ingress.receive(&socket).unwrap();
        assert_eq!(received.map(|(_, datagram)| datagram.to_vec()).collect::<Vec<_>>(), [b"hello"]);
    }

    fn to_nix(address: SocketAddr) -> nix::sys::socket::SockaddrStorage {
        address.into()
    }
}
