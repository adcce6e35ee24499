//! What happens on this machine by itself, and what the data path is to take over, as `Host` tells it.

use crate::io::capture::Capture;
use crate::io::udp::UdpSocket;
use crate::node::border::UplinkState;
use crate::plane::fib::PortId;
use crate::types::NetId;
use std::net::SocketAddr;
use tokio::sync::OwnedSemaphorePermit;

/// What happens on this machine. At most one per network or door opened or closed, per attachment and per VXLAN device that is
/// gone, one per VTEP in five seconds, and five changes a second.
pub enum HostEvent {
    /// Frames of `port` are captured here from now on, one capture per queue, instead of what captured them before: for the data
    /// path.
    Opened { port: PortId, captures: Vec<Capture> },
    /// Close the captures of `port`; its device is about to be deleted.
    Closed { port: PortId },
    /// The device of `port` was taken away by others; its captures bring nothing any more.
    CaptureGone { port: PortId },
    /// The process or the namespace of this attachment is gone; its interfaces went with it.
    AttachmentGone { key: String },
    /// An address, a route or a device of this machine changed.
    NetworkChanged,
    /// Datagrams of VTEPs or of peers come to this UDP port, one socket per queue, and what goes to them leaves by others if there are
    /// any: for the data path.
    DoorOpened { door: u16, sockets: Vec<UdpSocket>, senders: Vec<UdpSocket> },
    /// Close the sockets of this UDP port.
    DoorClosed { door: u16 },
    /// What the captured interface of this port does.
    Uplink { port: PortId, state: UplinkState },
    /// A heartbeat came by the kernel's VXLAN from a peer: `size` is that of the whole UDP payload. The next one waits for `turn`.
    Beat { from: SocketAddr, datagram: Vec<u8>, size: u16, turn: OwnedSemaphorePermit },
    /// The VXLAN device of a network, or (none) that of heartbeats, was taken away or changed by others.
    OffloadLost { id: Option<NetId> },
    /// A VXLAN device of somebody else is gone.
    VxlanGone,
    /// What the route to the VTEP behind this port takes, bytes of IP packet.
    RouteMtu { port: PortId, mtu: u16 },
}
