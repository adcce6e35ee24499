//! The host on its own networks: which addresses it has there, and whose way out leads through it.
//!
//! The host is an attachment like any other (`HOST_KEY`): its addresses are checked, claimed, permitted and stored like
//! those of a container, and its interface on a network is that network's bridge, with a MAC of our choice. What it may do
//! beyond that is route: `plane::guard` lets it send from addresses outside of the network, and `Edge` says what is
//! rewritten on the way.
//!
//! Invariant: a gateway is an address that the host had on the attachment's network when the way out was asked for.

use super::Node;
use super::attach::{Attachments, label};
use super::border::{Exposure, Level};
use super::command::{Attach, Attachment, HOST_KEY, Interface, Place};
use crate::types::{AddressRequest, HostAddress, NetId, Network};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Networks through which a way out leads, and the host's address there.
pub(super) type Gateways = BTreeMap<NetId, IpAddr>;

/// The request that puts the host itself on networks.
pub(super) fn exposure(addresses: Vec<AddressRequest>, masquerade: bool) -> Attach {
    Attach {
        key: HOST_KEY.to_string(),
        name: None,
        place: Place::Host,
        addresses,
        unguarded: false,
        vni: None,
        gateway: false,
        masquerade,
        publish: Vec::new(),
    }
}

impl Attachments {
    /// The host's interfaces.
    pub fn exposed(&self) -> &[Interface] {
        self.get(HOST_KEY).map_or(&[], |host| &host.interfaces)
    }

    /// The networks that the host is on, by id.
    pub fn exposures(&self) -> Vec<Exposure> {
        let exposure = |interface: &Interface| Exposure {
            id: interface.id,
            network: interface.network,
            masquerade: interface.masquerade,
        };
        let mut all: Vec<Exposure> = self.exposed().iter().map(exposure).collect();
        all.sort_by_key(|exposure| exposure.id);
        all
    }

    /// The host's first address on a network.
    pub fn host_address(&self, id: NetId) -> Option<HostAddress> {
        self.exposed().iter().find(|interface| interface.id == id)?.addresses.first().copied()
    }

    /// Exposing again with or without masquerade changes the networks that are exposed already.
    pub fn set_masquerade(&mut self, networks: &[(NetId, Network)], masquerade: bool) {
        let interfaces = self.get_mut(HOST_KEY).map(|host| host.interfaces.iter_mut()).into_iter().flatten();
        for interface in interfaces.filter(|interface| networks.iter().any(|(id, _)| *id == interface.id)) {
            interface.masquerade = masquerade;
        }
    }
}

impl Node {
    /// The way out of an attachment: through the first of its networks, of each family, that the host is exposed on.
    pub(super) fn check_gateways(&self, attach: &Attach, networks: &[(NetId, Network)]) -> Result<Gateways, String> {
        let mut gateways = Gateways::new();
        if !attach.gateway {
            return Ok(gateways);
        }
        let who = attach.name.as_deref().unwrap_or(&attach.key);
        for family_is_ipv4 in [true, false] {
            let via = |(id, _): &(NetId, Network)| {
                let ip = self.attachments.host_address(*id)?.ip();
                (ip.is_ipv4() == family_is_ipv4).then_some((*id, ip))
            };
            gateways.extend(networks.iter().find_map(via));
        }
        match networks.first() {
            _ if !gateways.is_empty() => Ok(gateways),
            Some((_, network)) => Err(format!(
                "gateway of {who}: this host has no address on {network}: give it one with `rnet expose` first"
            )),
            None => Err(format!("gateway of {who}: it needs an address on a network that this host is exposed on")),
        }
    }

    /// Says who loses something by it that the host is taken off networks.
    pub(super) fn warn_hidden(&mut self, taken: &Attachment) {
        if taken.key != HOST_KEY {
            return;
        }
        let gone: Vec<IpAddr> =
            taken.interfaces.iter().flat_map(|interface| &interface.addresses).map(|address| address.ip()).collect();
        let loses = |attachment: &Attachment| {
            let mut interfaces = attachment.interfaces.iter();
            attachment.key != HOST_KEY && interfaces.any(|i| i.gateway.is_some_and(|via| gone.contains(&via)))
        };
        let losers: Vec<Attachment> = self.attachments.list().into_iter().filter(loses).collect();
        for loser in &losers {
            self.log(Level::Warn, format!("{} has no way out until this host is exposed again", label(loser)));
        }
    }
}
