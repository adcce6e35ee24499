//! Attachments and the networks that are open for them: what may be attached, and which changes that takes.
//!
//! Owns the tables and the checks; `jobs` carries the planned `HostOp`s out, one after the other, and tells the tables
//! before and after each. So the tables always say what is on the machine, give or take the operation under way:
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
//! them. Bounds: `mesh::claims::MAX_CLAIMS` addresses on this host, `MAX_ADDRESSES` in one request, `MAX_TEXT` bytes of key and name.

use super::Node;
use super::border::HostOp;
use super::command::{Attach, Attachment, Interface, Place};
use super::expose::Gateways;
use super::uplinks::Uplinks;
use super::vteps::Vteps;
use crate::mesh::claims::{Claim, MAX_CLAIMS};
use crate::plane::fib::{Fib, NetworkEntry, Permit, PortId};
use crate::types::{AddressRequest, HostAddress, Mac, NetId, Network};
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet};

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

/// What a request comes to: whom it is for, and the changes that it takes; none if all is there already.
pub(super) struct Plan {
    pub who: Attachment,
    pub steps: Vec<HostOp>,
}

/// An address that is to be added, and where.
struct Wanted {
    address: HostAddress,
    network: Network,
    id: NetId,
}

impl Node {
    /// Checks an attach request against everything that is known, and plans it. `Err`: one line why not.
    pub(super) fn plan_attach(&mut self, attach: &Attach) -> Result<Plan, String> {
        let who = self.check_who(attach)?;
        let (mut wanted, mut networks) = (Vec::new(), Vec::new());
        for address in self.check_addresses(attach)? {
            let network = address.network();
            let id = attach.vni.unwrap_or_else(|| network.id());
            if !networks.contains(&(id, network)) {
                networks.push((id, network));
            }
            if self.is_held_by(&who.key, address, id) {
                continue;
            }
            self.check_network(network, id)?;
            self.check_free(address, network, id)?;
            wanted.push(Wanted { address, network, id });
        }
        if self.claims.me().claims.len().saturating_add(wanted.len()) > MAX_CLAIMS {
            return Err(format!("attach {}: this host holds as many addresses as it can ({MAX_CLAIMS})", who.key));
        }
        let gateways = self.check_gateways(attach, &networks)?;
        self.check_published(&who, &networks)?;
        if who.place == Place::Host {
            self.attachments.set_masquerade(&networks, attach.masquerade);
        }
        let mut steps = self.plan_interfaces(&who, &wanted, &gateways);
        steps.iter_mut().for_each(|step| {
            if let HostOp::Plug { interfaces, .. } = step {
                interfaces.iter_mut().for_each(|interface| {
                    if networks.iter().any(|(id, _)| *id == interface.id) {
                        interface.masquerade = attach.masquerade;
                    }
                });
            }
        });
        Ok(Plan { who, steps })
    }

    fn check_who(&self, attach: &Attach) -> Result<Attachment, String> {
        let place_text = if let Place::Path(path) = &attach.place { path.as_str() } else { "" };
        let texts = [attach.key.as_str(), attach.name.as_deref().unwrap_or(""), place_text];
        if attach.key.is_empty() || texts.iter().any(|text| text.len() > MAX_TEXT || text.chars().any(char::is_control))
        {
            return Err(format!("attach: a key, name or path must have at most {MAX_TEXT} printable characters"));
        }
        let Attach { key, name, mut place, unguarded, publish: mut published, .. } = attach.clone();
        if let Some(held) = self.attachments.get(&key) {
            if !published.is_empty() {
                return Err(format!("attach {key}: it is attached already: publish its ports with `rnet publish`"));
            }
            published.clone_from(&held.published);
            if !held.place.matches(&place) {
                return Err(format!(
                    "attach {key}: it is attached in another namespace ({}): detach it first",
                    place_of(held)
                ));
            }
            if held.unguarded != unguarded {
                return Err(format!(
                    "attach {key}: it is attached with the guard {}: detach it first",
                    on_off(!held.unguarded)
                ));
            }
        }
        if let Some(held) = self.attachments.get(&key) {
            place = held.place.clone();
        }
        Ok(Attachment { key, name, place, interfaces: Vec::new(), unguarded, published })
    }

    /// What can be said of a request before addresses are chosen for it.
    pub(super) fn check_request(&self, attach: &Attach) -> Result<(), String> {
        self.check_who(attach)?;
        if attach.addresses.len() > MAX_ADDRESSES {
            return Err(format!("attach {}: at most {MAX_ADDRESSES} addresses at a time", attach.key));
        }
        Ok(())
    }

    fn check_addresses(&self, attach: &Attach) -> Result<Vec<HostAddress>, String> {
        let mut addresses = Vec::new();
        for request in &attach.addresses {
            if let AddressRequest::Ip(address) = request
                && !addresses.contains(address)
            {
                addresses.push(*address);
            }
        }
        let networks: BTreeSet<Network> = addresses.iter().map(|address| address.network()).collect();
        if let (Some(vni), [first, second, ..]) = (attach.vni, networks.into_iter().collect::<Vec<_>>().as_slice()) {
            return Err(format!(
                "attach {}: --vni {vni} is for one network, and {first} and {second} are two",
                attach.key
            ));
        }
        Ok(addresses)
    }

    fn is_held_by(&self, key: &str, address: HostAddress, id: NetId) -> bool {
        let interfaces = self.attachments.get(key).map_or(&[][..], |held| &held.interfaces);
        interfaces.iter().any(|interface| interface.id == id && interface.addresses.contains(&address))
    }

    /// One id for each network, and one network for each id, here and in the mesh.
    pub(super) fn check_network(&self, network: Network, id: NetId) -> Result<(), String> {
        let clash = |other: Network, whose: String| {
            format!(
                "network {network}: its id {id} is that of {other} {whose} already: give one of them another id with --vni"
            )
        };
        for (open_id, open) in &self.attachments.networks {
            if *open_id == id && open.network != network {
                return Err(clash(open.network, "on this host".to_string()));
            }
            if open.network == network && *open_id != id {
                return Err(format!(
                    "network {network}: it is open on this host under the id {open_id}: give --vni {open_id}"
                ));
            }
        }
        if let Some((peer, other)) =
            self.claims.clash(network, id).filter(|(peer, _)| self.published.linked.contains(*peer))
        {
            return Err(clash(other, format!("at {}", self.named(peer))));
        }
        for (peer, record) in self.peers.iter().filter(|(peer, _)| self.published.linked.contains(*peer)) {
            if let Some((_, other)) =
                record.networks.iter().find(|(other_id, other)| *other_id == id && *other != network)
            {
                return Err(clash(*other, format!("at {}", self.named(peer))));
            }
        }
        Ok(())
    }

    /// Nobody has that address on that network, here or at a peer that is reachable.
    fn check_free(&self, address: HostAddress, network: Network, id: NetId) -> Result<(), String> {
        let holds = |interface: &Interface| {
            interface.id == id && interface.addresses.iter().any(|held| held.ip() == address.ip())
        };
        if let Some((holder, _)) = self.attachments.interfaces().find(|(_, interface)| holds(interface)) {
            let holder = label(holder);
            return Err(format!(
                "address {address}: {holder} on this host has it on {network}: give another one, or detach {holder}"
            ));
        }
        let others = self.claims.holders(address.ip(), id).into_iter();
        let mut reachable = others.filter(|(peer, _)| *peer != self.me && self.published.linked.contains(*peer));
        match reachable.next() {
            Some((peer, claim)) => Err(format!(
                "address {address}: {} at {} has it on {network}: give another one",
                claim.label(),
                self.named(peer)
            )),
            None => Ok(()),
        }
    }

    /// `name(nickname)`.
    pub(super) fn named(&self, peer: crate::types::PeerName) -> String {
        let nickname = self.peers.get(peer).map(|record| record.nickname.to_string()).unwrap_or_default();
        format!("{peer}({nickname})")
    }

    /// One interface for each network, in the order of the addresses; networks that are not open are opened first.
    fn plan_interfaces(&mut self, who: &Attachment, wanted: &[Wanted], gateways: &Gateways) -> Vec<HostOp> {
        let held: Vec<Interface> = self.attachments.get(&who.key).map_or(Vec::new(), |held| held.interfaces.clone());
        let mut free =
            (0..).map(|n| format!("rnet{n}")).filter(|name| held.iter().all(|interface| interface.name != *name));
        let (mut plugged, mut replaced): (Vec<Interface>, Vec<Interface>) = (Vec::new(), Vec::new());
        let mut opened: BTreeMap<NetId, Network> = BTreeMap::new();
        for Wanted { address, network, id } in wanted {
            if let Some(interface) = plugged.iter_mut().find(|interface| interface.id == *id) {
                interface.addresses.push(*address);
            } else if let Some(old) = held.iter().find(|interface| interface.id == *id) {
                replaced.push(old.clone());
                let addresses = old.addresses.iter().copied().chain([*address]).collect();
                plugged.push(Interface { addresses, ..old.clone() });
            } else {
                let mac = Mac::local(self.rng.random());
                let name = if who.place == Place::Host { id.bridge() } else { free.next().unwrap_or_default() };
                let (addresses, gateway) = (vec![*address], None);
                plugged.push(Interface {
                    name,
                    network: *network,
                    id: *id,
                    mac,
                    addresses,
                    gateway,
                    masquerade: false,
                });
                opened.insert(*id, *network);
            }
        }
        for old in held.iter().filter(|old| gateways.get(&old.id).is_some_and(|via| old.gateway != Some(*via))) {
            if plugged.iter().all(|interface| interface.id != old.id) {
                replaced.push(old.clone());
                plugged.push(old.clone());
            }
        }
        for interface in &mut plugged {
            interface.gateway = gateways.get(&interface.id).copied().or(interface.gateway);
        }
        let mut steps = self.plan_networks(opened);
        if !replaced.is_empty() {
            steps.push(unplug(&who.key, &who.place, replaced));
        }
        if !plugged.is_empty() {
            steps.push(plug(who, plugged, self.width.in_use()));
        }
        steps
    }

    pub(super) fn plan_networks(&mut self, wanted: BTreeMap<NetId, Network>) -> Vec<HostOp> {
        let mut steps = Vec::new();
        for (id, network) in wanted {
            if !self.attachments.networks.contains_key(&id) {
                let port = self.attachments.next_port();
                steps.push(HostOp::OpenNetwork { network, id, port, mtu: self.width.in_use() });
            }
        }
        steps
    }

    /// Plans to capture a network anew, unless it has been closed meanwhile.
    pub(super) fn plan_recapture(&mut self, gone: PortId) -> Option<HostOp> {
        let (id, network) = self.attachments.network_of(gone)?;
        let mtu = network.usable_mtu(self.width.in_use());
        self.attachments.ports += 1;
        let port = PortId(self.attachments.ports);
        Some(HostOp::Recapture { id, gone, port, mtu })
    }

    /// Plans to plug again what was attached in the last run.
    pub(super) fn plan_restore(&mut self, attachment: &Attachment) -> Result<Plan, String> {
        let mut wanted = BTreeMap::new();
        for interface in &attachment.interfaces {
            self.check_network(interface.network, interface.id)?;
            for address in &interface.addresses {
                self.check_free(*address, interface.network, interface.id)?;
            }
            wanted.insert(interface.id, interface.network);
        }
        let mut steps = self.plan_networks(wanted);
        steps.push(plug(attachment, attachment.interfaces.clone(), self.width.in_use()));
        Ok(Plan { who: Attachment { interfaces: Vec::new(), ..attachment.clone() }, steps })
    }

    /// Plans to take addresses (none given: all) of an attachment off the mesh; also gives what is taken.
    pub(super) fn plan_detach(&self, key: &str, addresses: &[AddressRequest]) -> (Plan, Attachment) {
        let Some(held) = self.attachments.get(key) else {
            // Not attached: nothing to take off, which is no error.
            let who = Attachment { key: key.into(), ..super::jobs::nobody() };
            return (Plan { who: who.clone(), steps: Vec::new() }, who);
        };
        let taken = if addresses.is_empty() {
            held.interfaces.iter().flat_map(|interface| interface.addresses.iter().copied()).collect()
        } else {
            self.meant_addresses(held, addresses)
        };
        let (steps, gone) = self.attachments.without(held, &taken, self.width.in_use());
        let who = Attachment { interfaces: Vec::new(), ..held.clone() };
        (Plan { who: who.clone(), steps }, Attachment { interfaces: gone, ..who })
    }
}

fn place_of(attachment: &Attachment) -> String {
    match &attachment.place {
        Place::Pid(pid) | Place::Process { pid, .. } => format!("of process {pid}"),
        Place::Path(path) => path.clone(),
        Place::Host => "the host's own".to_string(),
    }
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}
