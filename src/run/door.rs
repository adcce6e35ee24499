//! A data path thread's share of a door: its socket of a UDP port by which VTEPs are reached, and what waits to be sent there.
//!
//! Each door has a batch of its own: what one send call takes leaves by one socket.

use crate::io::egress::{Egress, Senders, Sent};
use crate::io::lost;
use crate::io::udp::UdpSocket;
use std::net::SocketAddr;
use std::sync::Arc;

/// See the head of this file.
pub(super) struct Door {
    /// The UDP port.
    pub port: u16,
    pub socket: Arc<UdpSocket>,
    senders: Senders,
    egress: Egress,
    /// Datagrams that the socket dropped so far.
    drops: u32,
}

impl Door {
    /// What goes out leaves by `senders`; by the same socket if there are none.
    pub fn new(port: u16, socket: UdpSocket, senders: Vec<UdpSocket>) -> Door {
        let drops = lost::of_socket(&socket).unwrap_or(0);
        let socket = Arc::new(socket);
        let mut senders = senders.into_iter().map(Arc::new);
        let senders = Senders::new(senders.next().unwrap_or_else(|| Arc::clone(&socket)), senders);
        Door { port, senders, socket, egress: Egress::new(), drops }
    }

    /// Whether what was collected is to be sent before a datagram of `len` bytes for `to`.
    pub fn must_flush(&self, to: SocketAddr, len: usize) -> bool {
        self.egress.is_pressing() && !self.egress.joins(to, len)
    }

    /// Room for a datagram.
    pub fn reserve(&mut self, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        self.egress.reserve(to, len)
    }

    /// Sends what was collected.
    pub fn flush(&mut self) -> Sent {
        self.egress.flush(&mut self.senders)
    }

    /// Datagrams that the socket dropped since this was last asked.
    pub fn dropped(&mut self) -> u64 {
        let drops = lost::of_socket(&*self.socket).unwrap_or(self.drops);
        let new = drops.wrapping_sub(self.drops);
        self.drops = drops;
        new.into()
    }
}
