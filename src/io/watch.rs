//! Changes of this machine's links, addresses and routes, as the kernel tells them.
//!
//! Owns a netlink socket that is a member of the multicast groups. What a change means, and which of them are our own doing,
//! is `host`'s. If the socket falls behind, changes are lost; the reader is told to look at everything again.

use super::netlink::{Link, describe};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::route::RouteAttribute;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use std::io;
use tokio::task::JoinHandle;

/// One change. Devices are told by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An address came or went.
    Address(u32),
    /// A route came or went; through this device, if it has one.
    Route(Option<u32>),
    /// A device is new or changed.
    Link(Link),
    /// What a port of a bridge does may have changed.
    Port(Link),
    /// A device is gone.
    LinkGone(Link),
}

/// See the head of this file.
pub struct Watch {
    messages: BoxStream<'static, RouteNetlinkMessage>,
    connection: JoinHandle<()>,
}

impl Watch {
    /// Watches the network namespace of the calling thread. Must be called within a runtime.
    pub fn open() -> io::Result<Watch> {
        use MulticastGroup::{Ipv4Ifaddr, Ipv4Route, Ipv6Ifaddr, Ipv6Route, Link};
        let groups = [Link, Ipv4Ifaddr, Ipv6Ifaddr, Ipv4Route, Ipv6Route];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)?;
        let inner = messages.filter_map(|(message, _)| {
            std::future::ready(match message.payload {
                NetlinkPayload::InnerMessage(inner) => Some(inner),
                _ => None,
            })
        });
        Ok(Watch { messages: Box::pin(inner), connection: tokio::spawn(connection) })
    }

    /// The next change; nothing once the socket broke.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            match self.messages.next().await? {
                RouteNetlinkMessage::NewLink(m) if m.header.interface_family == AddressFamily::Bridge => {
                    return Some(Change::Port(describe(&m)));
                }
                // A device that left a bridge; it is not gone for that.
                RouteNetlinkMessage::DelLink(m) if m.header.interface_family == AddressFamily::Bridge => {}
                RouteNetlinkMessage::NewAddress(m) | RouteNetlinkMessage::DelAddress(m) => {
                    return Some(Change::Address(m.header.index));
                }
                RouteNetlinkMessage::NewRoute(m) | RouteNetlinkMessage::DelRoute(m) => {
                    let through = m
                        .attributes
                        .iter()
                        .find_map(|a| if let RouteAttribute::Oif(index) = a { Some(*index) } else { None });
                    return Some(Change::Route(through));
                }
                RouteNetlinkMessage::NewLink(m) => return Some(Change::Link(describe(&m))),
                RouteNetlinkMessage::DelLink(m) => return Some(Change::LinkGone(describe(&m))),
                _ => {}
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
