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

    /// One receive call, and what it brought: nothing if nothing waits. An error queued by ICMP for an earlier send counts as
    /// nothing, other errors mean a broken socket.
    pub fn receive<'b>(&'b mut self, socket: &UdpSocket) -> io::Result<Received<'b>> {
        let messages = {
            let mut chunks = self.buffers.chunks_exact_mut(MESSAGE);
            let mut slices: [IoSliceMut<'_>; MESSAGES] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            match socket.state.recv(socket.as_udp_ref(), &mut slices, &mut self.metas) {
                Ok(messages) => messages,
                Err(e) if is_transient(&e) => 0,
                Err(e) => return Err(e),
            }
        };
        let buffers = self.buffers.chunks_exact_mut(MESSAGE);
        let metas = self.metas.get(..messages).unwrap_or(&self.metas).iter();
        let bytes = metas.as_slice().iter().map(|meta| meta.len).sum();
        let next = metas.zip(buffers);
        Ok(Received { messages, bytes, from: NOBODY, local: &self.local, datagrams: [].chunks_mut(1), next })
    }
}

/// No sender: before the first message.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What one receive call brought, datagram by datagram: the sender (never v4-mapped), and the memory that it arrived in, which
/// is the caller's until the next receive call.
pub struct Received<'b> {
    messages: usize,
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

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EINTR | libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EMSGSIZE)
    )
}
