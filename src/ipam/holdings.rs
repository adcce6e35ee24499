//! What this host may hand out, and which key holds what: the local half, which needs nobody.
//!
//! ```text
//! owned    what the ring gives to this very life of this peer
//! free     owned, less what keys hold, less what is being given away
//! used     position -> key, also of addresses outside of the space and of lost ones
//! excluded what others use without asking (explicit claims heard from the mesh): skipped
//! ```
//! An address that a key holds but the ring no longer gives to us is lost: the key keeps it until it is released (nothing
//! is torn down under a running attachment), it is reported, and it is never handed out again from here.

use super::ring::{Owner, Ring};
use super::space::{Run, Runs, ip, position};
use super::{Granted, Ipam};
use crate::types::{HostAddress, Network};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Addresses kept ahead of need per subnet, at least, where the subnet is large enough.
const SPARE: u128 = 64;
/// All members' spare addresses together are at most this fraction of a subnet.
const SPARE_FRACTION: u128 = 8;
/// Members times subnets up to which every member keeps spare addresses also in subnets that it does not use itself.
const EVERYWHERE: usize = 4096;

/// Spare addresses wanted in a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub network: Network,
    pub window: Run,
    /// Asked for when fewer are free.
    pub low: u128,
    /// Whether the pool has any to take ahead of need.
    pub available: bool,
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Holdings {
    pub owned: Runs,
    pub free: Runs,
    pub used: BTreeMap<u128, String>,
    excluded: BTreeSet<u128>,
    pub targets: Vec<Target>,
    /// In use, of the space, but not ours.
    pub lost: BTreeSet<u128>,
    /// Lost addresses that were reported.
    pub reported: BTreeSet<u128>,
}

impl Holdings {
    pub(super) fn exclude(&mut self, addresses: &BTreeSet<IpAddr>) {
        self.excluded = addresses.iter().map(|ip| position(*ip)).collect();
    }

    /// Recomputes what the ring decides.
    pub(super) fn refresh(&mut self, ring: &Ring, owner: Owner, giving: &[Run]) {
        let mine = ring.blocks.iter().filter(|(_, (_, of))| *of == owner);
        self.owned = mine.map(|(start, (last, _))| Run { start: *start, last: *last }).collect();
        self.free = self.owned.clone();
        for at in self.used.keys() {
            self.free.remove(Run::one(*at));
        }
        giving.iter().for_each(|run| self.free.remove(*run));
        self.lost = self.used.keys().copied().filter(|at| ring.spans(*at) && !self.owned.contains(*at)).collect();
    }

    /// How much to keep ahead of need: 64, or half of what is in use here, but no more than a fair part of an eighth of
    /// the subnet, and at least one.
    pub(super) fn aim(&mut self, ring: &Ring, default: Option<Network>) {
        let voters = ring.voters().count().max(1);
        let mine = |network: &Network| {
            Run::usable(*network).is_some_and(|window| self.owned.clip(window).next().is_some())
                || Some(*network) == default
        };
        let everywhere = voters * ring.subnets.len() <= EVERYWHERE;
        let wanted: BTreeSet<Network> =
            ring.subnets.iter().copied().filter(|n| everywhere || mine(n)).chain(default).collect();
        let target = |network: Network| {
            let window = Run::usable(network)?;
            let used = self.used.range(window.start..=window.last).count() as u128;
            let fair = ring.size_in(window) / (SPARE_FRACTION * voters as u128);
            let low = SPARE.max(used / 2).min(fair).max(1);
            Some(Target { network, window, low, available: ring.fair_share(window) > 0 })
        };
        self.targets = wanted.into_iter().filter_map(target).collect();
    }

    /// The lowest address of `network` that may be handed out now.
    pub(super) fn lowest(&self, network: Network) -> Option<u128> {
        self.free.lowest(Run::usable(network)?, &self.excluded)
    }

    /// Whether `run` is ours and nobody holds any of it.
    pub(super) fn all_free(&self, run: Run) -> bool {
        self.free.clip(run).next() == Some(run)
    }
}

impl Ipam {
    /// Takes over what the stored state holds.
    pub(super) fn load_holdings(&mut self) {
        let held = self.state.held.iter();
        let used = held.flat_map(|(key, addresses)| addresses.iter().map(move |a| (position(a.ip()), key.clone())));
        self.holdings.used = used.collect();
    }

    /// The address that `key` holds in `network` and may keep: ours by the ring, or outside of the space.
    pub(super) fn existing(&self, key: &str, network: Network) -> Option<HostAddress> {
        let good = |address: &&HostAddress| {
            let at = position(address.ip());
            address.network() == network && (self.holdings.owned.contains(at) || !self.spans(address.ip()))
        };
        self.held(key).iter().find(good).copied()
    }

    /// Hands `at` out.
    pub(super) fn hand_out(&mut self, key: &str, at: u128, prefix: u8) -> Result<Granted, String> {
        let net = IpNet::new(ip(at), prefix).map_err(|_| format!("/{prefix} is no prefix length"))?;
        let address = HostAddress::try_from(net).map_err(|error| error.to_string())?;
        self.holdings.free.remove(Run::one(at));
        self.holdings.used.insert(at, key.to_owned());
        // A lost address of this key in the same network is replaced by this one.
        let network = address.network();
        let lost: Vec<HostAddress> = self.held(key).iter().filter(|a| a.network() == network).copied().collect();
        let lost: Vec<HostAddress> = lost
            .into_iter()
            .filter(|a| a.ip() != address.ip() && self.spans(a.ip()) && !self.holdings.owned.contains(position(a.ip())))
            .collect();
        lost.into_iter().for_each(|old| self.give_up(key, Some(old)));
        self.state_mut().held.entry(key.to_owned()).or_default().push(address);
        Ok(Granted::Address(address))
    }

    /// Frees what `key` holds.
    pub(super) fn give_up(&mut self, key: &str, address: Option<HostAddress>) {
        let gone: Vec<HostAddress> =
            self.held(key).iter().filter(|a| address.is_none_or(|wanted| wanted == **a)).copied().collect();
        if gone.is_empty() {
            return;
        }
        for address in &gone {
            let at = position(address.ip());
            self.holdings.used.remove(&at);
            self.holdings.reported.remove(&at);
            self.holdings.lost.remove(&at);
            if self.holdings.owned.contains(at) && !self.giving().iter().any(|run| run.contains(at)) {
                self.holdings.free.insert(Run::one(at));
            }
        }
        let held = &mut self.state_mut().held;
        if let Some(list) = held.get_mut(key) {
            list.retain(|a| !gone.contains(a));
            if list.is_empty() {
                held.remove(key);
            }
        }
    }

    /// Rebuilds the local view after the ring, or our place in it, changed.
    pub(super) fn refresh(&mut self) {
        let Some(ring) = self.ring().cloned() else { return };
        let giving = self.giving();
        self.holdings.refresh(&ring, self.owner(), &giving);
        let default = self.default_subnet();
        self.holdings.aim(&ring, default);
    }

    /// Says once which addresses in use here belong to others now.
    pub(super) fn report_lost(&mut self) {
        let Some(ring) = self.ring().cloned() else { return };
        let me = self.owner();
        let lost: Vec<(u128, String)> = self
            .holdings
            .lost
            .iter()
            .filter(|at| !self.holdings.reported.contains(at))
            .filter(|at| ring.owner(**at).is_some_and(|owner| owner.peer != me.peer))
            .filter_map(|at| Some((*at, self.holdings.used.get(at)?.clone())))
            .collect();
        if lost.is_empty() {
            return;
        }
        let names: Vec<String> = lost.iter().take(16).map(|(at, key)| format!("{} ({key})", ip(*at))).collect();
        let more = if lost.len() > 16 { format!(" and {} more", lost.len() - 16) } else { String::new() };
        self.holdings.reported.extend(lost.into_iter().map(|(at, _)| at));
        self.log(format!(
            "addresses: in use here but no longer ours, others may be given the same: {}{more}: detach and attach them again",
            names.join(", ")
        ));
    }
}
