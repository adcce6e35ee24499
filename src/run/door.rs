//! A data path thread's share of a door: its socket of a UDP port by which VTEPs are reached, and what waits to be sent there.
//!
//! Each door has a batch of its own: what one send call takes leaves by one socket.

use super::intake::Intake;
use crate::io::egress::{Egress, Senders, Sent};
use crate::io::udp::UdpSocket;
use crate::plane::Service;
use std::net::SocketAddr;
use std::sync::Arc;

/// See the head of this file.
pub(super) struct Door {
    /// The UDP port.
    pub port: u16,
    pub intake: Intake,
    senders: Senders,
    egress: Egress,
}

impl Door {
    /// Its socket is waited for as `event`. What goes out leaves by `senders`; by the same socket if there are none.
    pub fn new(port: u16, event: u64, socket: UdpSocket, senders: Vec<UdpSocket>) -> Door {
        let socket = Arc::new(socket);
        let mut senders = senders.into_iter().map(Arc::new);
        let senders = Senders::new(senders.next().unwrap_or_else(|| Arc::clone(&socket)), senders);
        Door { port, senders, intake: Intake::new(socket, event), egress: Egress::new() }
    }

    /// Whether what was collected is to be sent before a datagram of `len` bytes for `to`.
    pub fn must_flush(&self, to: SocketAddr, len: usize) -> bool {
        self.egress.is_pressing() && !self.egress.joins(Service::default(), to, len)
    }

    /// Room for a datagram.
    pub fn reserve(&mut self, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        self.egress.reserve(to, len)
    }

    /// Sends what was collected.
    pub fn flush(&mut self) -> Sent {
        self.egress.flush(&mut self.senders)
    }
}
