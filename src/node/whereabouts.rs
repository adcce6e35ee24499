//! Where we may be reached, and where others may be: which addresses are told, and which of those told are tried.
//!
//! Ours: what the user advertises, then what this machine's interfaces have, without those that lead nowhere else
//! (`InterfaceFilter`). A peer's: what it tells itself, and what its neighbours see its datagrams come from. Anybody in the
//! mesh may tell anything, so what cannot be a host's address elsewhere is not tried, and one line says so; how little is
//! sent to the rest is bounded by `mesh::candidates` and by [`Restraint`].

use super::Node;
use super::border::Output;
use crate::mesh::candidates::TOLD_MAX;
use crate::mesh::peers::MAX_ADDRESSES;
use crate::types::{Instant, InterfaceFilter, PeerName, objection};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Where a person has to decide how we are reached.
#[derive(Debug, Clone, Default)]
pub struct ReachConfig {
    /// Told to others before any other address; port 0 stands for ours.
    pub advertise: Vec<SocketAddr>,
    /// Interfaces whose addresses are told.
    pub interfaces: InterfaceFilter,
    /// The only address that we listen on, an unspecified one for all of its family; none: all of both.
    pub listen: Option<IpAddr>,
}

impl ReachConfig {
    /// Whether somebody who sends there reaches us.
    fn listens_on(&self, ip: IpAddr) -> bool {
        match self.listen {
            Some(IpAddr::V4(any)) if any.is_unspecified() => ip.is_ipv4(),
            Some(only) if !only.is_unspecified() => only == ip,
            _ => true,
        }
    }
}

/// What we know of our own addresses.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    /// All of this machine, told or not.
    own: Vec<IpAddr>,
    /// For our record.
    pub told: Vec<SocketAddr>,
    /// Those of this machine that are told, if there are several of a family: it matters which one a datagram leaves from.
    pub ours: Vec<IpAddr>,
    /// As the driver was told, and whether that may have changed.
    pub sources: BTreeMap<SocketAddr, IpAddr>,
    pub sources_changed: bool,
    pub restraint: Restraint,
}

/// Checks to one IP address, from all paths together, within a time.
const CHECKS_MAX: u32 = 64;
const CHECKS_TIME: Duration = Duration::from_secs(10);
/// Addresses that are counted at a time; beyond that nobody new is sent anything.
const COUNTED_MAX: usize = 1024;

/// Keeps what the mesh makes us send to any one address small, whoever has it.
#[derive(Debug, Default)]
pub(super) struct Restraint {
    sent: BTreeMap<IpAddr, (u32, Instant)>,
}

impl Restraint {
    /// Whether one more check may go there now.
    pub fn allows(&mut self, to: IpAddr, now: Instant) -> bool {
        if self.sent.len() >= COUNTED_MAX {
            self.sent.retain(|_, (_, since)| now - *since < CHECKS_TIME);
        }
        if self.sent.len() >= COUNTED_MAX && !self.sent.contains_key(&to) {
            return false;
        }
        let (count, since) = self.sent.entry(to).or_insert((0, now));
        if now - *since >= CHECKS_TIME {
            (*count, *since) = (0, now);
        }
        *count = count.saturating_add(1);
        *count <= CHECKS_MAX
    }
}

impl Node {
    /// This machine's addresses, by interface, as they are now.
    pub(super) fn own_addresses(&mut self, all: &[(String, IpAddr)]) {
        let canonical = |ip: &IpAddr| ip.to_canonical();
        self.whereabouts.own = all.iter().map(|(_, ip)| canonical(ip)).collect();
        let port = self.config.port;
        let mut told: Vec<SocketAddr> = Vec::new();
        for advertised in &self.config.reach.advertise {
            let port = if advertised.port() == 0 { port } else { advertised.port() };
            told.push(SocketAddr::new(canonical(&advertised.ip()), port));
        }
        let interfaces = all.iter().filter(|(name, _)| self.config.reach.interfaces.allows(name));
        let ours = interfaces.map(|(_, ip)| canonical(ip)).filter(|ip| self.config.reach.listens_on(*ip));
        told.extend(ours.map(|ip| SocketAddr::new(ip, port)));
        told.retain(|address| objection(*address).is_none());
        let mut seen = Vec::new();
        told.retain(|address| {
            !seen.contains(address) && {
                seen.push(*address);
                true
            }
        });
        told.truncate(MAX_ADDRESSES);
        self.tell_apart(&told);
        if self.whereabouts.told != told {
            self.whereabouts.told = told;
            self.refresh_record();
        }
    }

    /// Whether it matters from which of our addresses something leaves, and so at which one it comes in.
    fn tell_apart(&mut self, told: &[SocketAddr]) {
        let Whereabouts { own, ours: before, .. } = &self.whereabouts;
        let ours: BTreeSet<IpAddr> = told.iter().map(SocketAddr::ip).filter(|ip| own.contains(ip)).collect();
        let of_v4 = ours.iter().filter(|ip| ip.is_ipv4()).count();
        let several = of_v4 > 1 || ours.len() - of_v4 > 1;
        let were_several = !before.is_empty();
        if several != were_several {
            self.out.push_back(Output::Locate(several));
        }
        self.whereabouts.ours = if several { ours.into_iter().collect() } else { Vec::new() };
        if several || were_several {
            self.unpin();
        }
    }

    /// Whether something may be told to leave from that address.
    pub(super) fn may_leave_from(&self, ip: IpAddr) -> bool {
        let Whereabouts { own, ours, .. } = &self.whereabouts;
        !ours.is_empty() && own.contains(&ip) && objection(SocketAddr::new(ip, self.config.port)).is_none()
    }

    fn is_ours(&self, address: SocketAddr) -> bool {
        address.port() == self.config.port && self.whereabouts.own.contains(&address.ip())
    }

    /// Where the mesh says that `peer` may be reached, without what cannot be: at most [`TOLD_MAX`].
    pub(super) fn addresses_of(&mut self, peer: PeerName, besides: &[SocketAddr]) -> Vec<SocketAddr> {
        let Some(record) = self.peers.get(peer) else { return Vec::new() };
        let own = besides.iter().chain(&record.addresses).copied();
        // What its neighbours see: behind a translator that is the only one that works.
        let seen_by = |neighbour: PeerName| {
            let links = &self.peers.get(neighbour)?.links;
            links.get(links.binary_search_by(|link| link.peer.cmp(&peer)).ok()?)?.seen
        };
        let seen = record.links.iter().filter_map(|link| seen_by(link.peer));
        let mut all: Vec<SocketAddr> = Vec::new();
        for address in own.chain(seen).map(|address| SocketAddr::new(address.ip().to_canonical(), address.port())) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        let named = self.named(peer);
        all.retain(|address| {
            let why = objection(*address).or_else(|| self.is_ours(*address).then_some("is our own"));
            if let Some(why) = why {
                self.log_once(format!("{named} advertises {address}, which {why}: not tried"));
            }
            why.is_none()
        });
        all.truncate(TOLD_MAX);
        all
    }

    /// Where we may be reached ourselves, as far as we know and our neighbours see.
    pub(super) fn addresses_of_ours(&self) -> Vec<SocketAddr> {
        let seen_by = |neighbour: PeerName| {
            let links = &self.peers.get(neighbour)?.links;
            links.get(links.binary_search_by(|link| link.peer.cmp(&self.me)).ok()?)?.seen
        };
        let seen = self.links.by_peer.keys().filter_map(|neighbour| seen_by(*neighbour));
        let mut all = self.whereabouts.told.clone();
        for address in seen {
            // What was translated comes first: it is known to have worked.
            if !all.contains(&address) {
                all.insert(0, address);
            }
        }
        all
    }

    /// Whether an address that the mesh tells of may be dialled.
    pub(super) fn is_elsewhere(&self, address: SocketAddr) -> bool {
        objection(address).is_none() && !self.is_ours(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_is_only_where_we_listen() {
        let listens = |on: &str, ip: &str| {
            let listen = (!on.is_empty()).then(|| on.parse().unwrap());
            ReachConfig { listen, ..ReachConfig::default() }.listens_on(ip.parse().unwrap())
        };
        for (on, ip, told) in [
            ("", "10.0.0.1", true),
            ("::", "10.0.0.1", true),
            ("0.0.0.0", "10.0.0.1", true),
            ("0.0.0.0", "2001:db8::1", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
        ] {
            assert_eq!(listens(on, ip), told, "{on} {ip}");
        }
    }

    #[test]
    fn nobody_gets_more_than_a_few_checks_whoever_names_him() {
        let mut restraint = Restraint::default();
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let victim = IpAddr::from([192, 0, 2, 1]);
        let allowed =
            |restraint: &mut Restraint, second| (0..1000).filter(|_| restraint.allows(victim, at(second))).count();
        assert_eq!((allowed(&mut restraint, 0), allowed(&mut restraint, 9)), (64, 0));
        assert_eq!(allowed(&mut restraint, 10), 64);
        let many = (0..3000_u32).filter(|n| restraint.allows(IpAddr::from((n + 1).to_be_bytes()), at(11))).count();
        assert_eq!(many, COUNTED_MAX - 1);
        assert!(restraint.allows(IpAddr::from([9, 9, 9, 9]), at(30)), "room again");
    }
}
