//! Ports of this host that lead to attachments, and the packet filter that they and the exposures come to.
//!
//! A published port belongs to its attachment: it is stored with it, comes back with it and ends with it. Where it leads
//! is worked out anew whenever something changed, so that a port never leads to an address that its attachment has lost.
//! It leads to the attachment's first address, of each family, on a network where this host has one too.
//!
//! Bounds: `MAX_PORTS` for all attachments together.

use super::Node;
use super::attach::{Plan, label};
use super::border::{Edge, HostOp, Publication};
use super::command::{Attachment, HOST_KEY};
use super::jobs::Change;
use crate::types::{NetId, Network, PortMap};
use std::net::SocketAddr;

/// Published ports on this host.
pub const MAX_PORTS: usize = 4096;

impl Node {
    /// The packet filter as it should be, unless that is what was asked for last.
    pub(super) fn filter_due(&self) -> Option<Edge> {
        let edge = self.edge();
        (self.filter.as_ref() != Some(&edge)).then_some(edge)
    }

    /// An operation begins. A filter that fails is not tried again by itself: with nothing changed it would fail again.
    pub(super) fn filter_begins(&mut self, op: &HostOp) {
        if let HostOp::Filter(edge) = op {
            self.filter = Some(edge.clone());
        }
    }

    fn edge(&self) -> Edge {
        let attachments = self.attachments.list();
        let publications = attachments
            .iter()
            .flat_map(|attachment| attachment.published.iter().flat_map(|port| self.lead(attachment, port)));
        let publications = publications.collect();
        Edge { exposures: self.attachments.exposures(), publications }
    }

    /// Where a port leads: at most one address of each family.
    fn lead(&self, attachment: &Attachment, port: &PortMap) -> Vec<Publication> {
        let mut found: Vec<Publication> = Vec::new();
        for interface in &attachment.interfaces {
            let exposed = self.attachments.host_address(interface.id).is_some();
            for address in interface.addresses.iter().filter(|_| exposed) {
                let same_family = |other: std::net::IpAddr| other.is_ipv4() == address.ip().is_ipv4();
                let wanted = port.host_ip.is_none_or(same_family);
                if wanted && found.iter().all(|publication| !same_family(publication.to.ip())) {
                    let to = SocketAddr::new(address.ip(), port.port);
                    let PortMap { transport, host_ip, host_port, .. } = *port;
                    found.push(Publication { transport, host_ip, host_port, to, id: interface.id });
                }
            }
        }
        found
    }

    /// Whether these ports may lead to `who`: each once on this host, and none of the router's own.
    fn check_ports(&self, who: &Attachment, ports: &[PortMap]) -> Result<(), String> {
        let attachments = self.attachments.list();
        let others: usize = attachments.iter().map(|attachment| attachment.published.len()).sum();
        if others.saturating_add(ports.len()) > MAX_PORTS {
            return Err(format!("publish: this host has as many published ports as it can ({MAX_PORTS})"));
        }
        for (at, port) in ports.iter().enumerate() {
            if port.host_port == self.config.port {
                return Err(format!("publish {port}: port {} is the mesh's own: give another one", port.host_port));
            }
            let twice = ports.iter().take(at).find(|other| other.collides(port)).map(|other| (who, other));
            let taken = attachments.iter().flat_map(|other| other.published.iter().map(move |taken| (other, taken)));
            let mut taken = taken.filter(|(other, taken)| !(other.key == who.key && *taken == port));
            if let Some((other, held)) = twice.or_else(|| taken.find(|(_, taken)| taken.collides(port))) {
                let (name, side) = (label(other), held.host_side());
                return Err(format!(
                    "publish {port}: {side} of this host leads to {name} already: `rnet unpublish {held} {name}` first"
                ));
            }
        }
        Ok(())
    }

    /// The ports that a new attachment comes with.
    pub(super) fn check_published(&self, who: &Attachment, networks: &[(NetId, Network)]) -> Result<(), String> {
        let Some(first) = who.published.first().filter(|_| self.attachments.get(&who.key).is_none()) else {
            return Ok(());
        };
        if networks.iter().all(|(id, _)| self.attachments.host_address(*id).is_none()) {
            return Err(no_way_in(first, networks.first().map(|(_, network)| *network), who));
        }
        self.check_ports(who, &who.published)
    }

    /// Plans to publish ports, or to end that; also gives the ports as they were.
    pub(super) fn plan_ports(&mut self, key: &str, change: &Change) -> Result<(Plan, Vec<PortMap>), String> {
        let Some(held) = self.attachments.get(key).filter(|_| key != HOST_KEY).cloned() else {
            return match change {
                // Nothing leads to it, which is no error.
                Change::Unpublish(_) => {
                    let who = Attachment { key: key.into(), ..super::jobs::nobody() };
                    Ok((Plan { who, steps: Vec::new() }, Vec::new()))
                }
                Change::Publish(_) => Err(format!("publish: {key} is not attached here")),
            };
        };
        let before = held.published.clone();
        let mut after = before.clone();
        match change {
            Change::Publish(ports) => {
                let new: Vec<PortMap> = ports.iter().filter(|port| !before.contains(port)).copied().collect();
                self.check_ports(&held, &new)?;
                if let Some(lost) = new.iter().find(|port| self.lead(&held, port).is_empty()) {
                    return Err(no_way_in(lost, held.interfaces.first().map(|interface| interface.network), &held));
                }
                after.extend(new);
            }
            Change::Unpublish(ports) => after.retain(|port| !ports.is_empty() && !ports.contains(port)),
        }
        self.set_ports(key, after);
        Ok((Plan { who: Attachment { interfaces: Vec::new(), ..held }, steps: Vec::new() }, before))
    }

    /// Sets which ports lead to an attachment; the packet filter follows.
    pub(super) fn set_ports(&mut self, key: &str, ports: Vec<PortMap>) {
        if let Some(attachment) = self.attachments.get_mut(key) {
            attachment.published = ports;
            self.unsaved = true;
        }
    }
}

fn no_way_in(port: &PortMap, network: Option<Network>, who: &Attachment) -> String {
    let name = label(who);
    let family = match port.host_ip {
        None => "",
        Some(ip) if ip.is_ipv4() => " by IPv4",
        Some(_) => " by IPv6",
    };
    match network {
        Some(network) => format!(
            "publish {port}: this host does not reach {name}{family}: give it an address on {network} with `rnet expose` first"
        ),
        None => format!("publish {port}: {name} has no address"),
    }
}
