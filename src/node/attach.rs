//! Attachments and the networks that are open for them: what may be attached, and which changes that takes.
//!
//! Owns the tables; what a request comes to is checked in `requests`, and `jobs` carries the planned `HostOp`s out, one after the
//! other, and tells the tables before and after each. So the tables always say what is on the machine, give or take the operation
//! under way:
//!
//! ```text
//! OpenNetwork  done    the network has a port: published to the mesh and the data plane
//! Plug         begins  its MACs and addresses are permitted and claimed, so that its first frame passes; failed: no longer
//! Unplug       begins  they are no longer
//! Recapture    begins  the network has another port, which brings nothing until it is made
//! CloseNetwork begins  the network has no port
//! ```
//!
//! An attachment has one interface for each network; further addresses on it replace the interface by one with all of
//! them. Bounds: `mesh::claims::MAX_CLAIMS` addresses on this host, `MAX_ADDRESSES` in one request, `MAX_TEXT` bytes of key and
//! name.

mod requests;

pub(super) use requests::Plan;

use super::border::HostOp;
use super::command::{Attachment, Interface, Place};
use super::uplinks::Uplinks;
use super::vteps::Vteps;
use crate::mesh::claims::Claim;
use crate::plane::fib::{Fib, NetworkEntry, Permit, PortId};
use crate::types::{HostAddress, NetId, Network};
use std::collections::BTreeMap;

/// Addresses in one request.
pub const MAX_ADDRESSES: usize = 64;
/// Bytes of a key, a name or a path.
pub const MAX_TEXT: usize = 256;

/// A network that is open here, or is being opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Port {
    network: Network,
    port: PortId,
    mtu: u16,
    open: bool,
}

/// What is attached here. See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    by_key: BTreeMap<String, Attachment>,
    networks: BTreeMap<NetId, Port>,
    ports: u32,
    /// Further ports of them.
    pub vteps: Vteps,
    pub uplinks: Uplinks,
}

impl Attachments {
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.networks.is_empty() && self.vteps.is_empty() && self.uplinks.is_empty()
    }

    pub fn get(&self, key: &str) -> Option<&Attachment> {
        self.by_key.get(key)
    }

    /// All, by key.
    pub fn list(&self) -> Vec<Attachment> {
        self.by_key.values().cloned().collect()
    }

    fn interfaces(&self) -> impl Iterator<Item = (&Attachment, &Interface)> {
        self.by_key
            .values()
            .flat_map(|attachment| attachment.interfaces.iter().map(move |interface| (attachment, interface)))
    }

    /// Networks that have a port here.
    pub fn open_networks(&self) -> Vec<(NetId, Network)> {
        self.networks.iter().filter(|(_, port)| port.open).map(|(id, port)| (*id, port.network)).collect()
    }

    /// The same with the MTU of each.
    pub fn open_ports(&self) -> impl Iterator<Item = (NetId, Network, u16)> + '_ {
        self.networks.iter().filter(|(_, port)| port.open).map(|(id, port)| (*id, port.network, port.mtu))
    }

    /// Its port here and the network, if the id is that of one that is open.
    pub fn open_port(&self, id: NetId) -> Option<(PortId, Network)> {
        self.networks.get(&id).filter(|port| port.open).map(|port| (port.port, port.network))
    }

    /// A number for a new port.
    pub fn next_port(&mut self) -> PortId {
        self.ports += 1;
        PortId(self.ports)
    }

    /// The network that is open and captured on this port.
    pub fn network_of(&self, port: PortId) -> Option<(NetId, Network)> {
        let mut open = self.networks.iter().filter(|(_, held)| held.open && held.port == port);
        open.next().map(|(id, held)| (*id, held.network))
    }

    /// The attachment of this key, to change what no frame and no peer sees of it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Attachment> {
        self.by_key.get_mut(key)
    }

    /// How many interfaces are on a network.
    pub fn users(&self, id: NetId) -> usize {
        self.interfaces().filter(|(_, interface)| interface.id == id).count()
    }

    pub fn claims(&self) -> Vec<Claim> {
        let claim = |(attachment, interface): (&Attachment, &Interface)| {
            let label = label(attachment).to_string();
            let (network, id, mac) = (interface.network, interface.id, interface.mac);
            let addresses = interface.addresses.clone();
            addresses.into_iter().map(move |address| Claim::new(network, id, address, mac, &label))
        };
        self.interfaces().flat_map(claim).collect()
    }

    /// Writes ports and permits into a Fib.
    pub fn fill(&self, fib: &mut Fib) {
        for (id, port) in self.networks.iter().filter(|(_, port)| port.open) {
            let mut entry = NetworkEntry {
                port: Some(port.port),
                mtu: Some(port.network.usable_mtu(port.mtu)),
                ..NetworkEntry::default()
            };
            for (attachment, interface) in self.interfaces().filter(|(_, interface)| interface.id == *id) {
                let addresses = interface.addresses.iter().map(|address| address.ip()).collect();
                let routes_for = (attachment.place == Place::Host).then_some(interface.network);
                let permit = Permit { addresses, unguarded: attachment.unguarded, routes_for };
                entry.permits.insert(interface.mac, permit);
                entry.unguarded |= attachment.unguarded;
            }
            fib.networks.insert(*id, entry);
            fib.ports.insert(port.port, *id);
        }
        self.vteps.fill(fib);
        self.uplinks.fill(fib);
    }

    /// An operation begins: the tables go first where frames or others must know before.
    pub fn begin(&mut self, op: &HostOp, who: &Attachment) {
        match op {
            HostOp::OpenNetwork { network, id, port, mtu } => {
                self.networks.insert(*id, Port { network: *network, port: *port, mtu: *mtu, open: false });
            }
            HostOp::CloseNetwork { id, .. } => {
                self.networks.remove(id);
            }
            HostOp::Recapture { id, port, .. } => {
                if let Some(held) = self.networks.get_mut(id) {
                    held.port = *port;
                }
            }
            HostOp::Plug { interfaces, .. } => self.add(who, interfaces),
            HostOp::Unplug { key, interfaces, .. } => self.remove(key, interfaces),
            HostOp::ResizeNetwork { id, mtu, .. } => {
                if let Some(held) = self.networks.get_mut(id) {
                    held.mtu = *mtu;
                }
            }
            HostOp::OpenTunnel { .. } | HostOp::CloseTunnel { .. } => self.vteps.begin(op),
            HostOp::OpenUplink { .. } | HostOp::CloseUplink { .. } => self.uplinks.begin(op),
            // Of `framings`, or of no table.
            _ => {}
        }
    }

    /// It was made.
    pub fn succeeded(&mut self, op: &HostOp) {
        self.vteps.succeeded(op);
        self.uplinks.succeeded(op);
        if let HostOp::OpenNetwork { id, .. } = op
            && let Some(port) = self.networks.get_mut(id)
        {
            port.open = true;
        }
    }

    /// The process behind a number is known now.
    pub fn settled(&mut self, key: &str, place: &Place) {
        if let Some(attachment) = self.by_key.get_mut(key) {
            attachment.place = place.clone();
        }
    }

    /// It was not made. What was to be taken away counts as gone all the same.
    pub fn failed(&mut self, op: &HostOp) {
        match op {
            HostOp::OpenNetwork { id, .. } => {
                self.networks.remove(id);
            }
            HostOp::Plug { key, interfaces, .. } => self.remove(key, interfaces),
            HostOp::OpenTunnel { .. } => self.vteps.failed(op),
            HostOp::OpenUplink { .. } => self.uplinks.failed(op),
            // Its attachments still reach each other.
            HostOp::Recapture { .. } => {}
            _ => {}
        }
    }

    fn add(&mut self, who: &Attachment, interfaces: &[Interface]) {
        let empty = || Attachment { interfaces: Vec::new(), ..who.clone() };
        let attachment = self.by_key.entry(who.key.clone()).or_insert_with(empty);
        attachment.interfaces.extend(interfaces.iter().cloned());
        attachment.interfaces.sort_by_key(|interface| number(&interface.name));
    }

    fn remove(&mut self, key: &str, interfaces: &[Interface]) {
        let Some(attachment) = self.by_key.get_mut(key) else { return };
        attachment.interfaces.retain(|kept| interfaces.iter().all(|interface| interface.name != kept.name));
        if attachment.interfaces.is_empty() {
            self.by_key.remove(key);
        }
    }

    /// Unplugs these interfaces of an attachment, plugs what remains of them, and closes networks that nobody uses then.
    fn without(&self, attachment: &Attachment, taken: &[HostAddress], mtu: u16) -> (Vec<HostOp>, Vec<Interface>) {
        let (mut steps, mut gone, mut emptied) = (Vec::new(), Vec::new(), BTreeMap::<NetId, usize>::new());
        let place = &attachment.place;
        for interface in &attachment.interfaces {
            let (lost, kept): (Vec<HostAddress>, Vec<HostAddress>) =
                interface.addresses.iter().copied().partition(|address| taken.contains(address));
            if lost.is_empty() {
                continue;
            }
            steps.push(unplug(&attachment.key, place, vec![interface.clone()]));
            gone.push(Interface { addresses: lost, ..interface.clone() });
            if kept.is_empty() {
                *emptied.entry(interface.id).or_default() += 1;
            } else {
                steps.push(plug(attachment, vec![Interface { addresses: kept, ..interface.clone() }], mtu));
            }
        }
        let unused = emptied.into_iter().filter(|(id, count)| !self.is_used(*id, *count, &[])).map(|(id, _)| id);
        steps.extend(unused.filter_map(|id| self.close(id)));
        (steps, gone)
    }

    pub fn close(&self, id: NetId) -> Option<HostOp> {
        self.networks.get(&id).map(|port| HostOp::CloseNetwork { id, port: port.port })
    }

    /// Gives all that is there this MTU.
    pub fn resize(&self, mtu: u16) -> Vec<HostOp> {
        let networks = self.networks.iter().filter(|(_, port)| port.open);
        let networks = networks.map(|(id, port)| HostOp::ResizeNetwork { network: port.network, id: *id, mtu });
        // The host's interfaces are the bridges themselves.
        let plugged = self.by_key.values().filter(|attachment| attachment.place != Place::Host);
        let plugged = plugged.map(|attachment| {
            let Attachment { key, place, interfaces, .. } = attachment.clone();
            HostOp::Resize { key, place, interfaces, mtu }
        });
        networks.chain(plugged).collect()
    }

    /// Takes everything off the machine.
    pub fn clear(&self) -> Vec<HostOp> {
        let unplugs = self.by_key.values().map(|a| unplug(&a.key, &a.place, a.interfaces.clone()));
        unplugs
            .chain(self.vteps.clear())
            .chain(self.uplinks.clear())
            .chain(self.networks.keys().filter_map(|id| self.close(*id)))
            .collect()
    }
}

fn plug(who: &Attachment, interfaces: Vec<Interface>, mtu: u16) -> HostOp {
    HostOp::Plug { key: who.key.clone(), place: who.place.clone(), interfaces, mtu, guarded: !who.unguarded }
}

fn unplug(key: &str, place: &Place, interfaces: Vec<Interface>) -> HostOp {
    HostOp::Unplug { key: key.to_string(), place: place.clone(), interfaces }
}

/// What undoes an operation that was made.
pub(super) fn undo(op: &HostOp, mtu: u16, guarded: bool) -> Option<HostOp> {
    match op {
        HostOp::OpenNetwork { id, port, .. } => Some(HostOp::CloseNetwork { id: *id, port: *port }),
        HostOp::OpenTunnel { port, vtep, .. } => Some(HostOp::CloseTunnel { port: *port, vtep: *vtep }),
        HostOp::OpenUplink { port, uplink, .. } => Some(HostOp::CloseUplink { port: *port, uplink: uplink.clone() }),
        HostOp::Plug { key, place, interfaces, .. } => Some(unplug(key, place, interfaces.clone())),
        HostOp::Unplug { key, place, interfaces } => {
            let (key, place, interfaces) = (key.clone(), place.clone(), interfaces.clone());
            Some(HostOp::Plug { key, place, interfaces, mtu, guarded })
        }
        // The packet filter and VXLAN follow the tables by themselves, the MTU the mesh.
        _ => None,
    }
}

/// What people call an attachment.
pub(super) fn label(attachment: &Attachment) -> &str {
    attachment.name.as_deref().unwrap_or(&attachment.key)
}

/// The number in `rnet7`.
fn number(name: &str) -> u32 {
    name.strip_prefix("rnet").and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX)
}
