//! Datagrams on their way in, received many per system call.
//!
//! Owns the receive buffers: 8 of 64 KiB, because the kernel may coalesce (UDP_GRO) up to 64 KiB of equal-sized
//! datagrams of one sender into one message and cuts silently what does not fit. A call hands each datagram on once,
//! in the memory that it arrived in, in the order of arrival.

use super::udp::{UdpSocket, plain};
use quinn_udp::RecvMeta;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;

/// Messages per system call (8 measured best).
const MESSAGES: usize = 8;
/// Bytes per message.
const MESSAGE: usize = 1 << 16;

/// See the head of this file. One per data path thread.
pub struct Ingress {
    buffers: Box<[u8]>,
    metas: [RecvMeta; MESSAGES],
}

impl Default for Ingress {
    fn default() -> Ingress {
        Ingress::new()
    }
}

impl Ingress {
    /// With all the memory it will ever have.
    pub fn new() -> Ingress {
        Ingress { buffers: vec![0; MESSAGES * MESSAGE].into_boxed_slice(), metas: [RecvMeta::default(); MESSAGES] }
    }

    /// One receive call; `each` is given the sender (never v4-mapped) and the datagram. Answers how many there were; 0: nothing
    /// waits. An error queued by ICMP for an earlier send counts as nothing, other errors mean a broken socket.
    pub fn receive(&mut self, socket: &UdpSocket, mut each: impl FnMut(SocketAddr, &mut [u8])) -> io::Result<usize> {
        let messages = {
            let mut chunks = self.buffers.chunks_exact_mut(MESSAGE);
            let mut slices: [IoSliceMut<'_>; MESSAGES] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            match socket.state.recv(socket.as_udp_ref(), &mut slices, &mut self.metas) {
                Ok(messages) => messages,
                Err(e) if is_transient(&e) => return Ok(0),
                Err(e) => return Err(e),
            }
        };
        let mut datagrams = 0;
        for (buffer, meta) in self.buffers.chunks_exact_mut(MESSAGE).zip(&self.metas).take(messages) {
            let from = plain(meta.addr);
            // An empty datagram has neither length nor stride, and nothing to tell.
            for datagram in buffer[..meta.len.min(MESSAGE)].chunks_mut(meta.stride.max(1)) {
                each(from, datagram);
                datagrams += 1;
            }
        }
        Ok(datagrams)
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EINTR | libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EMSGSIZE)
    )
}
