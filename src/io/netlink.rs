//! Links and addresses, by rtnetlink.
//!
//! Owns one netlink socket and every message that rnet sends through it. The crate breaks its interface often, so nothing of it
//! shows outside of this file and `watch`. The socket belongs to one network namespace for good: the caller's, or one that is
//! given. The kernel's extended explanation of an error is lost in the crate; so each error here says which operation on
//! which device failed.
//!
//! Runs on any tokio runtime with I/O; the connection's task ends with the last clone.

use super::netns::Netns;
use crate::types::{HostAddress, Mac};
use futures_util::StreamExt;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    BridgePortState, BridgeStpState, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::RouteScope;
use rtnetlink::{Error, Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// A failed operation, with what was attempted on which device.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {}{}", describe_error(source), hint(source))]
pub struct NetlinkError {
    /// For instance "making the bridge rnb8312a4".
    pub what: String,
    /// The kernel's error.
    pub source: io::Error,
}

impl NetlinkError {
    /// Whether it failed because the device is not there.
    pub fn is_no_device(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
    }

    /// Whether it failed because it is so already.
    pub fn is_there(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EEXIST)
    }

    /// Whether the kernel has no devices of that kind.
    pub fn is_unsupported(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EOPNOTSUPP)
    }
}

/// The kernel's words without the number that the standard library adds.
fn describe_error(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_string(),
        None => error.to_string(),
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => " (it needs root, or CAP_NET_ADMIN)",
        Some(libc::EOPNOTSUPP) => {
            " (the kernel lacks this kind of device: is the module bridge, veth or vxlan missing?)"
        }
        _ => "",
    }
}

/// Kinds of devices whose frames are those of another one, which IFLA_LINK names.
const STACKED: [&str; 6] = ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec"];

/// A link as far as rnet cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `veth`, `tun`, ...; empty for devices of no kind.
    pub kind: String,
    /// Whether frames on it are Ethernet's; a loopback's only look so.
    pub ethernet: bool,
    /// Whether it is up.
    pub up: bool,
    /// How many times promiscuous mode was asked for: more than 0 while somebody captures on it.
    pub promiscuity: u32,
    /// The bridge that it is a port of, or the bond that it is a slave of.
    pub master: Option<u32>,
    /// The device of this namespace that it is made upon: a VLAN's or macvlan's parent.
    pub lower: Option<u32>,
    /// Whether that bridge passes its frames.
    pub forwarding: bool,
    /// Bytes.
    pub mtu: u32,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// Of a veth: the number of its other end, in the namespace where that is.
    pub peer: Option<u32>,
}

/// A new veth pair: one end here, the other in `inside`.
pub struct Veth<'a> {
    /// Name of the end here.
    pub name: &'a str,
    /// Name of the other end.
    pub peer: &'a str,
    /// Where the other end goes; here if there is none.
    pub inside: Option<&'a Netns>,
    /// The other end's address; the kernel's choice if there is none.
    pub mac: Option<Mac>,
    /// Of both ends, bytes.
    pub mtu: u16,
}

/// Most MACs that a bridge learns (kernels before 6.7 have no limit): what comes beyond is flooded. About 100 bytes each.
const FDB_MAX: u32 = 65_536;

struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// See the head of this file. Clones share the socket.
#[derive(Clone)]
pub struct Netlink {
    pub(super) handle: Handle,
    _connection: Arc<Connection>,
}

impl Netlink {
    /// A socket in the network namespace of the calling thread. Must be called within a runtime.
    pub fn open() -> io::Result<Netlink> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Netlink { handle, _connection: Arc::new(Connection(tokio::spawn(connection))) })
    }

    /// A socket in `namespace`. Must be called within a runtime.
    pub fn open_in(namespace: &Netns) -> io::Result<Netlink> {
        let runtime = tokio::runtime::Handle::current();
        namespace.within(move || {
            let _entered = runtime.enter();
            Netlink::open()
        })
    }

    /// Makes a bridge that is down, without spanning tree and without multicast snooping: a plain Ethernet segment.
    pub async fn add_bridge(&self, name: &str, mtu: u16) -> Result<(), NetlinkError> {
        let message = LinkMessageBuilder::<LinkBridge>::new(name)
            .mtu(mtu.into())
            .stp_state(BridgeStpState::Disabled)
            .mcast_snooping(false)
            .fdb_max_learned(FDB_MAX)
            .build();
        done(self.handle.link().add(message).execute().await, || format!("making the bridge {name}"))
    }

    /// Makes a veth pair, both ends down.
    pub async fn add_veth(&self, veth: Veth<'_>) -> Result<(), NetlinkError> {
        let mut peer = LinkUnspec::new_with_name(veth.peer).mtu(veth.mtu.into());
        if let Some(namespace) = veth.inside {
            peer = peer.setns_by_fd(namespace.as_fd().as_raw_fd());
        }
        if let Some(mac) = veth.mac {
            peer = peer.address(mac.0.to_vec());
        }
        let message = LinkMessageBuilder::<LinkVeth>::new(veth.name, veth.peer)
            .mtu(veth.mtu.into())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
            .build();
        done(self.handle.link().add(message).execute().await, || {
            format!("making the veth pair {} and {}", veth.name, veth.peer)
        })
    }

    /// Makes `port` a port of `bridge`.
    pub async fn set_master(&self, port: &str, bridge: &str) -> Result<(), NetlinkError> {
        let what = || format!("putting {port} on the bridge {bridge}");
        let master = self.index(bridge, what).await?;
        let message = LinkUnspec::new_with_index(self.index(port, what).await?).controller(master).build();
        done(self.handle.link().set(message).execute().await, what)
    }

    /// Sets the MTU, bytes.
    pub async fn set_mtu(&self, name: &str, mtu: u16) -> Result<(), NetlinkError> {
        let what = || format!("setting the MTU of {name} to {mtu}");
        let message = LinkUnspec::new_with_index(self.index(name, what).await?).mtu(mtu.into()).build();
        done(self.handle.link().set(message).execute().await, what)
    }

    /// Takes the device down.
    #[cfg(test)]
    pub async fn set_down(&self, name: &str) -> Result<(), NetlinkError> {
        let what = || format!("taking {name} down");
        let message = LinkUnspec::new_with_index(self.index(name, what).await?).down().build();
        done(self.handle.link().set(message).execute().await, what)
    }

    /// Brings the device up.
    pub async fn set_up(&self, name: &str) -> Result<(), NetlinkError> {
        let what = || format!("bringing {name} up");
        let message = LinkUnspec::new_with_index(self.index(name, what).await?).up().build();
        done(self.handle.link().set(message).execute().await, what)
    }

    /// Adds an address. An IPv6 one is usable at once: no duplicate address detection, its uniqueness is the mesh's to know.
    pub async fn add_address(&self, name: &str, address: HostAddress) -> Result<(), NetlinkError> {
        let what = || format!("giving {address} to {name}");
        let index = self.index(name, what).await?;
        let mut request = self.handle.address().add(index, address.ip(), address.prefix_len());
        if address.ip().is_ipv6() {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        done(request.execute().await, what)
    }

    /// Sets the Ethernet address.
    pub async fn set_mac(&self, name: &str, mac: Mac) -> Result<(), NetlinkError> {
        let what = || format!("giving {name} the MAC {mac}");
        let message = LinkUnspec::new_with_index(self.index(name, what).await?).address(mac.0.to_vec()).build();
        done(self.handle.link().set(message).execute().await, what)
    }

    /// Removes an address. Answers whether it was there.
    pub async fn remove_address(&self, name: &str, address: HostAddress) -> Result<bool, NetlinkError> {
        let what = || format!("taking {address} from {name}");
        let Some(link) = self.link(name).await? else { return Ok(false) };
        for (index, held, message) in self.address_messages().await? {
            if index == link.index && held == IpNet::from(address) {
                return match done(self.handle.address().del(message).execute().await, what) {
                    Err(e) if e.is_no_device() || e.source.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(false),
                    other => other.map(|()| true),
                };
            }
        }
        Ok(false)
    }

    /// All addresses of the namespace, with the numbers of their devices.
    pub async fn addresses(&self) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
        Ok(self.address_messages().await?.into_iter().map(|(index, address, _)| (index, address)).collect())
    }

    async fn address_messages(&self) -> Result<Vec<(u32, IpNet, AddressMessage)>, NetlinkError> {
        let mut answers = Box::pin(self.handle.address().get().execute());
        let mut all = Vec::new();
        while let Some(answer) = answers.next().await {
            let message =
                answer.map_err(|e| NetlinkError { what: "listing the addresses".into(), source: io_error(e) })?;
            // On point-to-point links the local address differs from the one that the prefix is of.
            let of = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
            let local = of(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
            let any = of(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None });
            if let Some(address) = local.or(any).and_then(|ip| IpNet::new(ip, message.header.prefix_len).ok()) {
                all.push((message.header.index, address, message));
            }
        }
        Ok(all)
    }

    /// Sends what has no other route through the device to `via`. Errors: EEXIST if there is such a route already.
    pub async fn add_default_route(&self, name: &str, via: IpAddr) -> Result<(), NetlinkError> {
        let what = || format!("routing through {name} to {via}");
        let index = self.index(name, what).await?;
        let message = match via {
            IpAddr::V4(via) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(via).output_interface(index).build(),
            IpAddr::V6(via) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(via).output_interface(index).build(),
        };
        done(self.handle.route().add(message).execute().await, what)
    }

    /// Sends IPv4 multicast through the device. Answers false if something else does already.
    pub async fn add_multicast_route(&self, name: &str) -> Result<bool, NetlinkError> {
        let what = || format!("routing multicast through {name}");
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::new(224, 0, 0, 0), 4)
            .output_interface(self.index(name, what).await?)
            .scope(RouteScope::Link)
            .build();
        match done(self.handle.route().add(route).execute().await, what) {
            Err(e) if e.source.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Deletes the device. Answers whether it was there.
    pub async fn delete(&self, name: &str) -> Result<bool, NetlinkError> {
        let what = || format!("deleting {name}");
        let Some(link) = self.link(name).await? else { return Ok(false) };
        match done(self.handle.link().del(link.index).execute().await, what) {
            Err(e) if e.is_no_device() => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// The device of this name, if there is one.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut answers = Box::pin(self.handle.link().get().match_name(name).execute());
        match answers.next().await {
            Some(Ok(message)) => Ok(Some(describe(&message))),
            Some(Err(e)) => {
                let error = NetlinkError { what: format!("looking for {name}"), source: io_error(e) };
                if error.is_no_device() { Ok(None) } else { Err(error) }
            }
            None => Ok(None),
        }
    }

    /// All devices of the namespace.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let mut answers = Box::pin(self.handle.link().get().execute());
        let mut links = Vec::new();
        while let Some(answer) = answers.next().await {
            let message =
                answer.map_err(|e| NetlinkError { what: "listing the devices".into(), source: io_error(e) })?;
            links.push(describe(&message));
        }
        Ok(links)
    }

    pub(super) async fn index(&self, name: &str, what: impl Fn() -> String) -> Result<u32, NetlinkError> {
        match self.link(name).await? {
            Some(link) => Ok(link.index),
            None => Err(NetlinkError { what: what(), source: io::Error::from_raw_os_error(libc::ENODEV) }),
        }
    }
}

pub(super) fn describe(message: &LinkMessage) -> Link {
    let up = message.header.flags.contains(LinkFlags::Up);
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: String::new(),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        up,
        promiscuity: 0,
        master: None,
        lower: None,
        forwarding: false,
        mtu: 0,
        mac: None,
        peer: None,
    };
    let mut elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Promiscuity(count) => link.promiscuity = *count,
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::Address(bytes) => link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac),
            LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| match info {
                LinkInfo::Kind(kind) => link.kind = kind_name(kind),
                LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                    link.forwarding = port.contains(&InfoBridgePort::State(BridgePortState::Forwarding));
                }
                _ => {}
            }),
            _ => {}
        }
    }
    link.lower = link.peer.filter(|_| !elsewhere && STACKED.contains(&link.kind.as_str()));
    link
}

fn kind_name(kind: &InfoKind) -> String {
    match kind {
        InfoKind::Bridge => "bridge".into(),
        InfoKind::Veth => "veth".into(),
        InfoKind::Tun => "tun".into(),
        InfoKind::Vxlan => "vxlan".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

pub(super) fn done(result: Result<(), Error>, what: impl Fn() -> String) -> Result<(), NetlinkError> {
    result.map_err(|e| NetlinkError { what: what(), source: io_error(e) })
}

pub(super) fn io_error(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
