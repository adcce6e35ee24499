//! Events of the data plane with what only its driver knows: at which address of this host a probe came in.
//!
//! Lent to the plane in place of the thread's outlet, for datagrams of paths; all else it passes on.

use crate::plane::fib::PortId;
use crate::plane::{Event, Service, Sink, Takes};
use crate::wire::virtio::Offload;
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};

/// See the head of this file.
pub(super) struct Located<'a, S> {
    pub outlet: &'a mut S,
    /// Where the datagram came in that the plane is at.
    pub local: &'a Cell<Option<IpAddr>>,
}

impl<S: Sink> Sink for Located<'_, S> {
    fn datagram(&mut self, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        self.outlet.datagram(to, len)
    }

    fn datagram_by(&mut self, service: Service, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        self.outlet.datagram_by(service, to, len)
    }

    fn tunnelled(&mut self, door: u16, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        self.outlet.tunnelled(door, to, len)
    }

    fn deliver(&mut self, port: PortId, offload: &Offload, parts: &[&[u8]]) {
        self.outlet.deliver(port, offload, parts);
    }

    fn takes(&self, port: PortId) -> Takes {
        self.outlet.takes(port)
    }

    fn lane(&self) -> u8 {
        self.outlet.lane()
    }

    fn event(&mut self, mut event: Event) {
        if let Event::Probe { local, .. } = &mut event {
            *local = self.local.get();
        }
        self.outlet.event(event);
    }
}
