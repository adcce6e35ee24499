//! The kernel's VXLAN devices, and what a port of a bridge may do, by rtnetlink.
//!
//! Owns the messages; which devices there are to be, and why so, is `host::kernel`'s. A device is made without a default remote and
//! learns nothing: what is sent to a MAC that has no entry (`fdb`) goes nowhere. It speaks IPv4 or IPv6 beneath, never both (the kernel
//! binds one socket for each), and all devices of one port and family share the socket.
//!
//! ```text
//! add_vxlan: down, nolearning, dstport, VNI, local if given, DF as asked     vxlans: all there are, ours and others'
//! set_port, port: isolated (no frames between two such ports), learning, flood of unknown, multicast, broadcast
//! ```
//!
//! A kernel takes settings that it does not know without a word (isolation came with Linux 4.18), so they are to be read back.

use super::netlink::{Link, Netlink, NetlinkError, describe, done, io_error};
use futures_util::StreamExt;
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoPortData, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage, VxlanDf,
};
use rtnetlink::{LinkBridgePort, LinkVxlan};
use std::net::{IpAddr, Ipv6Addr};

/// What a VXLAN device is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// Its network id on the wire.
    pub vni: u32,
    /// The UDP port that it listens on and sends to.
    pub port: u16,
    /// Speaks IPv6 beneath.
    pub ipv6: bool,
    /// The one address of this host that it uses; any if there is none.
    pub local: Option<IpAddr>,
    /// Its packets are never cut on the way (IPv4; those of IPv6 never are).
    pub whole: bool,
    /// Learns where MACs are from what it hears.
    pub learns: bool,
}

/// What a port of a bridge does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortRules {
    /// No frame passes between this port and another one that is isolated.
    pub isolated: bool,
    /// MACs are learned from what it brings.
    pub learning: bool,
    /// It is given frames for unknown MACs, for groups, and for all.
    pub flood: bool,
}

impl Netlink {
    /// Makes a VXLAN device that is down. Errors: EEXIST if there is one with its VNI, port and family.
    pub async fn add_vxlan(&self, name: &str, vxlan: &Vxlan, mtu: u16) -> Result<(), NetlinkError> {
        let mut message = LinkVxlan::new(name, vxlan.vni).port(vxlan.port).learning(vxlan.learns);
        message = message.df(if vxlan.whole { VxlanDf::Set } else { VxlanDf::Unset });
        // The unspecified address says which family without saying which address.
        message = match vxlan.local {
            Some(IpAddr::V4(local)) => message.local(local),
            Some(IpAddr::V6(local)) => message.local6(local),
            None if vxlan.ipv6 => message.local6(Ipv6Addr::UNSPECIFIED),
            None => message,
        };
        let message = message.mtu(mtu.into()).build();
        done(self.handle.link().add(message).execute().await, || format!("making the VXLAN device {name}"))
    }

    /// All VXLAN devices of the namespace.
    pub async fn vxlans(&self) -> Result<Vec<(Link, Vxlan)>, NetlinkError> {
        let mut answers = Box::pin(self.handle.link().get().execute());
        let mut all = Vec::new();
        while let Some(answer) = answers.next().await {
            let message =
                answer.map_err(|e| NetlinkError { what: "listing the devices".into(), source: io_error(e) })?;
            all.extend(vxlan(&message).map(|vxlan| (describe(&message), vxlan)));
        }
        Ok(all)
    }

    /// Sets what a port of a bridge does.
    pub async fn set_port(&self, name: &str, rules: PortRules) -> Result<(), NetlinkError> {
        let what = || format!("setting what {name} does on its bridge");
        let message = LinkBridgePort::new(self.index(name, what).await?)
            .isolated(rules.isolated)
            .learning(rules.learning)
            .flood(rules.flood)
            .mcast_flood(rules.flood)
            .bcast_flood(rules.flood)
            .build();
        done(self.handle.link().set_port(message).execute().await, what)
    }

    /// What a port of a bridge does; nothing if it is none.
    pub async fn port(&self, name: &str) -> Result<Option<PortRules>, NetlinkError> {
        let mut answers = Box::pin(self.handle.link().get().match_name(name).execute());
        match answers.next().await {
            Some(Ok(message)) => Ok(port_rules(&message)),
            Some(Err(e)) => {
                let error = NetlinkError { what: format!("looking for {name}"), source: io_error(e) };
                if error.is_no_device() { Ok(None) } else { Err(error) }
            }
            None => Ok(None),
        }
    }
}

fn infos(message: &LinkMessage) -> impl Iterator<Item = &LinkInfo> {
    message.attributes.iter().flat_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.as_slice(),
        _ => &[],
    })
}

fn vxlan(message: &LinkMessage) -> Option<Vxlan> {
    let data = infos(message)
        .find_map(|info| if let LinkInfo::Data(InfoData::Vxlan(data)) = info { Some(data) } else { None })?;
    // 8472 is what a device has that was told no port (Documentation/networking/vxlan.rst); the kernel always tells.
    let mut found = Vxlan { vni: 0, port: 8472, ipv6: false, local: None, whole: false, learns: false };
    for info in data {
        match info {
            InfoVxlan::Id(vni) => found.vni = *vni,
            InfoVxlan::Port(port) => found.port = *port,
            InfoVxlan::Local(ip) => found.local = Some((*ip).into()).filter(|ip: &IpAddr| !ip.is_unspecified()),
            InfoVxlan::Local6(ip) => {
                found.ipv6 = true;
                found.local = Some((*ip).into()).filter(|ip: &IpAddr| !ip.is_unspecified());
            }
            InfoVxlan::Group6(_) => found.ipv6 = true,
            InfoVxlan::Df(df) => found.whole = *df == VxlanDf::Set,
            InfoVxlan::Learning(learns) => found.learns = *learns,
            _ => {}
        }
    }
    Some(found)
}

fn port_rules(message: &LinkMessage) -> Option<PortRules> {
    let port = infos(message).find_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(port)) => Some(port),
        _ => None,
    })?;
    let has = |wanted: InfoBridgePort| port.contains(&wanted);
    let flood = has(InfoBridgePort::UnicastFlood(true))
        || has(InfoBridgePort::MulticastFlood(true))
        || has(InfoBridgePort::BroadcastFlood(true));
    let (isolated, learning) = (has(InfoBridgePort::Isolated(true)), has(InfoBridgePort::Learning(true)));
    Some(PortRules { isolated, learning, flood })
}
