//! Which MAC is behind which device: the forwarding tables of bridges and of VXLAN devices, by rtnetlink.
//!
//! Owns the messages and a socket that hears of changes; which entries there are to be is `host::kernel`'s.
//!
//! ```text
//! VXLAN device   MAC -> address and UDP port   NTF_SELF, permanent             Entry { to: Some(..) }
//! bridge         MAC -> port                   NTF_MASTER, NTF_STICKY, NOARP   Entry { to: None, sticky: true }
//! ```
//!
//! An entry of a bridge is static, so it does not age, and sticky, so it does not follow a frame of its MAC that comes in by another port
//! (Linux 4.20; older kernels take the flag without a word, so it is to be read back).

use super::netlink::{Netlink, NetlinkError, done, io_error};
use crate::types::Mac;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::task::JoinHandle;

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The device: a VXLAN device, or a port of a bridge.
    pub device: u32,
    /// Who.
    pub mac: Mac,
    /// Of a VXLAN device: where that is. Port 0: the device's own.
    pub to: Option<SocketAddr>,
    /// Of a bridge: it stays where it is.
    pub sticky: bool,
    /// The device's own MAC, which is there by itself.
    pub own: bool,
}

impl Netlink {
    /// Has the VXLAN device send frames for `mac` there, and nowhere else.
    pub async fn send_to(&self, device: u32, mac: Mac, to: SocketAddr) -> Result<(), NetlinkError> {
        let mut request = self.handle.neighbours().add_bridge(device, &mac.0).destination(to.ip()).replace();
        let message = request.message_mut();
        message.header.flags = NeighbourFlags::Own;
        message.header.state = NeighbourState::Other(PERMANENT | NOARP);
        message.attributes.push(NeighbourAttribute::Port(to.port()));
        done(request.execute().await, || format!("sending frames for {mac} to {to}"))
    }

    /// Has the VXLAN device send them nowhere. Answers whether it did.
    pub async fn send_nowhere(&self, device: u32, mac: Mac) -> Result<bool, NetlinkError> {
        let removed = self.handle.neighbours().del(bridge_message(device, mac, NeighbourFlags::Own)).execute().await;
        unless_missing(done(removed, || format!("sending no more frames for {mac}")))
    }

    /// Has the bridge of the port `device` forward frames for `mac` to that port, wherever frames of it come from.
    pub async fn stick(&self, device: u32, mac: Mac) -> Result<(), NetlinkError> {
        let request = self.handle.neighbours().add_bridge(device, &mac.0).state(NeighbourState::Noarp).replace();
        let request = request.flags(NeighbourFlags::Controller | NeighbourFlags::Sticky);
        done(request.execute().await, || format!("forwarding frames for {mac}"))
    }

    /// Has the bridge of the port `device` forward them there until it learns better, or hears nothing of it for long.
    pub async fn lean(&self, device: u32, mac: Mac) -> Result<(), NetlinkError> {
        let request = self.handle.neighbours().add_bridge(device, &mac.0).state(NeighbourState::Reachable).replace();
        let request = request.flags(NeighbourFlags::Controller);
        done(request.execute().await, || format!("forwarding frames for {mac}"))
    }

    /// Has the bridge know nothing of `mac` at the port `device`. Answers whether it did.
    pub async fn unstick(&self, device: u32, mac: Mac) -> Result<bool, NetlinkError> {
        let message = bridge_message(device, mac, NeighbourFlags::Controller);
        let removed = self.handle.neighbours().del(message).execute().await;
        unless_missing(done(removed, || format!("forgetting where {mac} is")))
    }

    /// All entries of these devices, as VXLAN devices and as ports of a bridge.
    pub async fn entries(&self, devices: &[u32]) -> Result<Vec<Entry>, NetlinkError> {
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
        let mut answers = Box::pin(request.execute());
        let mut all = Vec::new();
        while let Some(answer) = answers.next().await {
            let what = || "listing the forwarding tables".to_string();
            let message = answer.map_err(|e| NetlinkError { what: what(), source: io_error(e) })?;
            all.extend(entry(&message).filter(|entry| devices.contains(&entry.device)));
        }
        Ok(all)
    }
}

/// NUD_NOARP and NUD_PERMANENT.
const NOARP: u16 = 0x40;
const PERMANENT: u16 = 0x80;

fn bridge_message(device: u32, mac: Mac, flags: NeighbourFlags) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = device;
    message.header.flags = flags;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}

fn unless_missing(result: Result<(), NetlinkError>) -> Result<bool, NetlinkError> {
    match result {
        Err(e) if e.is_no_device() || e.source.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        // What a VXLAN device, or a port that left its bridge, says.
        Err(e) if matches!(e.source.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(false),
        other => other.map(|()| true),
    }
}

fn entry(message: &NeighbourMessage) -> Option<Entry> {
    if message.header.family != AddressFamily::Bridge {
        return None;
    }
    let (mut mac, mut ip, mut port) = (None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac),
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => ip = address(bytes),
            NeighbourAttribute::Port(number) => port = *number,
            _ => {}
        }
    }
    let own = message.header.state == NeighbourState::Permanent && ip.is_none();
    let sticky = message.header.flags.contains(NeighbourFlags::Sticky);
    Some(Entry { device: message.header.ifindex, mac: mac?, to: ip.map(|ip| SocketAddr::new(ip, port)), sticky, own })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// Hears of changes of forwarding tables.
pub struct Watch {
    messages: BoxStream<'static, RouteNetlinkMessage>,
    connection: JoinHandle<()>,
}

impl Watch {
    /// Watches the network namespace of the calling thread. Must be called within a runtime.
    pub fn open() -> io::Result<Watch> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Neigh])?;
        let inner = messages.filter_map(|(message, _)| {
            std::future::ready(match message.payload {
                NetlinkPayload::InnerMessage(inner) => Some(inner),
                _ => None,
            })
        });
        Ok(Watch { messages: Box::pin(inner), connection: tokio::spawn(connection) })
    }

    /// The next change, and whether the entry is there now; nothing once the socket broke.
    pub async fn next(&mut self) -> Option<(Entry, bool)> {
        loop {
            let found = match self.messages.next().await? {
                RouteNetlinkMessage::NewNeighbour(message) => entry(&message).map(|entry| (entry, true)),
                RouteNetlinkMessage::DelNeighbour(message) => entry(&message).map(|entry| (entry, false)),
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
