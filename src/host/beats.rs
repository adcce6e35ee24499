//! Heartbeats by the kernel's VXLAN: frames on a device of their own, sent and taken by a socket (packet(7)).
//!
//! Their layout is `wire::beat`'s. A peer's address is that of its entry on the device, by the MAC that the frame comes from: the kernel
//! does not tell where it came from. A wrong one proves nothing, since what is in the frame is sealed with the path's keys. Bounded: at most
//! [`WAITING_MAX`] wait for control, more are lost.

use super::events::HostEvent;
use super::kernel::Kernel;
use crate::io::packet::PacketSocket;
use crate::types::{Mac, PeerName};
use crate::wire::beat;
use crate::wire::frame::HEADER_LEN;
use crate::wire::vxlan::VXLAN_LEN;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;

/// How long a device that is down or gone is left alone.
const PAUSE: Duration = Duration::from_millis(500);
/// The largest frame with a heartbeat: what a jumbo path takes.
const BEAT_MAX: usize = 16 << 10;
/// Heartbeats that may wait for control.
const WAITING_MAX: usize = 64;

/// Sends heartbeats while the kernel's engine is open. Cheap to clone.
#[derive(Clone, Default)]
pub struct Beats(Arc<Mutex<BTreeMap<bool, Arc<PacketSocket>>>>);

impl Beats {
    /// Sends a frame (`wire::beat`) to a peer, now or never; false: this engine is not open.
    pub fn send(&self, to: SocketAddr, frame: &[u8]) -> bool {
        let sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = sockets.get(&to.is_ipv6()) {
            // A heartbeat that cannot leave is a lost one: the prober draws the conclusion.
            let _ = socket.send(frame);
        }
        !sockets.is_empty()
    }

    pub(super) fn set(&self, ipv6: bool, socket: Arc<PacketSocket>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(ipv6, socket);
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Tells of heartbeats as they come.
pub(super) async fn listen(kernel: Kernel, socket: Arc<PacketSocket>, events: UnboundedSender<HostEvent>) {
    let mut buffer = vec![0; BEAT_MAX];
    let waiting = Arc::new(Semaphore::new(WAITING_MAX));
    loop {
        let Ok(frame) = socket.receive(&mut buffer).await else {
            // The device is down or gone, which others tell.
            sleep(PAUSE).await;
            continue;
        };
        let Some(datagram) = beat::datagram(frame) else { continue };
        let Ok(turn) = waiting.clone().try_acquire_owned() else { continue };
        let Some(sender) = frame.get(6..12).and_then(|mac| <[u8; 6]>::try_from(mac).ok()).map(Mac) else { continue };
        let size = u16::try_from(VXLAN_LEN + HEADER_LEN + datagram.len()).unwrap_or(u16::MAX);
        let datagram = datagram.to_vec();
        let from = kernel.address_of(PeerName(sender)).await;
        if let Some(from) = from
            && events.send(HostEvent::Beat { from, datagram, size, turn }).is_err()
        {
            return;
        }
    }
}
