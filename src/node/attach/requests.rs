//! What an attach or detach request comes to: checked against everything that is known, then planned as changes.
//!
//! Owns the checks and the order of the changes; the tables are `attach`'s, `jobs` carries the plan out.

use super::{MAX_ADDRESSES, MAX_TEXT, label, plug, unplug};
use crate::mesh::claims::MAX_CLAIMS;
use crate::node::Node;
use crate::node::border::HostOp;
use crate::node::command::{Attach, Attachment, Interface, Place};
use crate::node::expose::Gateways;
use crate::plane::fib::PortId;
use crate::types::{AddressRequest, HostAddress, Mac, NetId, Network};
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet};

/// What a request comes to: whom it is for, and the changes that it takes; none if all is there already.
pub(in crate::node) struct Plan {
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
    pub(in crate::node) fn plan_attach(&mut self, attach: &Attach) -> Result<Plan, String> {
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
    pub(in crate::node) fn check_request(&self, attach: &Attach) -> Result<(), String> {
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
    pub(in crate::node) fn check_network(&self, network: Network, id: NetId) -> Result<(), String> {
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
    pub(in crate::node) fn named(&self, peer: crate::types::PeerName) -> String {
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

    pub(in crate::node) fn plan_networks(&mut self, wanted: BTreeMap<NetId, Network>) -> Vec<HostOp> {
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
    pub(in crate::node) fn plan_recapture(&mut self, gone: PortId) -> Option<HostOp> {
        let (id, network) = self.attachments.network_of(gone)?;
        let mtu = network.usable_mtu(self.width.in_use());
        self.attachments.ports += 1;
        let port = PortId(self.attachments.ports);
        Some(HostOp::Recapture { id, gone, port, mtu })
    }

    /// Plans to plug again what was attached in the last run.
    pub(in crate::node) fn plan_restore(&mut self, attachment: &Attachment) -> Result<Plan, String> {
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
    pub(in crate::node) fn plan_detach(&self, key: &str, addresses: &[AddressRequest]) -> (Plan, Attachment) {
        let Some(held) = self.attachments.get(key) else {
            // Not attached: nothing to take off, which is no error.
            let who = Attachment { key: key.into(), ..crate::node::jobs::nobody() };
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
