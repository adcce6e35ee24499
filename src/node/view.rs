//! The one view of the router, made when somebody asks: what the tables say, in the words of `status`.
//!
//! Connections are the links that stand, the peers without a link that frames go to, the targets that are not linked (each
//! with why and when it is tried again), and strangers that were refused within the last minute.

use super::Node;
use super::direct::REMEMBER_WISH;
use super::links::Connected;
use super::paths::{SLOW_PROOF, no_proof};
use super::quality::Weighed;
use super::status::{
    Connection, ConnectionState, Count, LearnedMac, NetworkStatus, PathLimit, PathStatus, Peer, PeerLink, Status,
    Traffic,
};
use super::width::Narrowest;
use crate::crypto::session::Role;
use crate::mesh::dialer::{Attempt, Entry};
use crate::mesh::peers::Record;
use crate::mesh::probe::Probe;
use crate::plane::macs::Place;
use crate::plane::path::Path;
use crate::types::{Framing, Instant, NetId, Network, Nickname, PeerName, Target};
use std::collections::{BTreeMap, BTreeSet};

impl Node {
    /// Everything that can be told.
    pub(super) fn status(&self) -> Status {
        let tally = self.plane.counters();
        let count = |count: crate::plane::counters::Count| Count { frames: count.frames, bytes: count.bytes };
        Status {
            version: self.config.version.clone(),
            name: self.me,
            nickname: self.config.nickname.clone(),
            public_key: self.public,
            port: self.config.port,
            encrypted: self.config.psk.is_some(),
            discovery: self.config.discovery,
            allowed: self.config.allow.as_ref().map(Vec::len),
            mtu: self.width.in_use(),
            mtu_auto: !self.width.is_fixed(),
            mtu_limit: self.width.narrowest().map(|path| self.limit(path)),
            framing: self.framings.status(),
            datapath: self.config.datapath.clone(),
            uptime: (self.now - self.started).as_secs(),
            targets: self.dialer.given().cloned().collect(),
            connections: self.connections(),
            peers: self.peers.iter().map(|(name, record)| self.peer(name, record)).collect(),
            networks: self.networks(),
            ipam: self.address_status(),
            letters_lost: self.addresses.lost,
            nicknames: self.addresses.nicknames.clone(),
            attachments: self.attachments.list(),
            vteps: self.vtep_status(),
            uplinks: self.uplink_status(),
            macs: self.learned(),
            drops: tally.drops().map(|(reason, times)| (reason.label().to_string(), times)).collect(),
            traffic: Traffic {
                from_bridge: count(tally.from_bridge),
                to_bridge: count(tally.to_bridge),
                from_net: count(tally.from_net),
                to_net: count(tally.to_net),
                from_vxlan: count(tally.from_vxlan),
                to_vxlan: count(tally.to_vxlan),
            },
        }
    }

    fn limit(&self, Narrowest { ends: (one, other), mtu }: Narrowest) -> PathLimit {
        PathLimit { ends: [(one, self.nickname_of(one)), (other, self.nickname_of(other))], mtu }
    }

    fn connections(&self) -> Vec<Connection> {
        let mut all: Vec<Connection> =
            self.links.neighbours().map(|(peer, connected)| self.standing(peer, connected)).collect();
        all.extend(self.without_links());
        all.extend(self.dialer.entries().filter_map(|(target, entry)| self.attempt(target, entry)));
        all.extend(self.links.refused.values().map(|refused| Connection {
            address: refused.remote.to_string(),
            outbound: false,
            state: ConnectionState::Failed,
            peer: refused.peer.clone(),
            info: refused.why.clone(),
            retry_in: None,
            encrypted: false,
            path: None,
            via: None,
        }));
        all.sort_by_key(|connection| connection.state);
        all
    }

    fn standing(&self, peer: PeerName, connected: &Connected) -> Connection {
        let tended = connected.tended.as_ref();
        let proven = tended.is_some_and(|tended| tended.proven);
        let path = tended.filter(|_| proven).and_then(|tended| {
            let path =
                self.measured((&tended.path, &tended.probe, &tended.weighed), tended.rekey.active(), tended.since)?;
            let both = connected.link.theirs().map(|theirs| (connected.link.ours(), theirs));
            Some(PathStatus {
                framing: tended.framing(),
                framing_for: (self.now - tended.framing_since()).as_secs(),
                why_not_better: self.why_not_better(tended, both),
                ..path
            })
        });
        let waits_long = tended.filter(|tended| !proven && self.now - tended.since >= SLOW_PROOF);
        Connection {
            address: connected.remote.to_string(),
            outbound: connected.dial.is_some(),
            state: if proven { ConnectionState::Established } else { ConnectionState::Pending },
            peer: Some((peer, connected.nickname())),
            info: waits_long.map(|tended| no_proof(tended.path.endpoint())).unwrap_or_default(),
            retry_in: None,
            encrypted: tended.map_or(self.config.psk.is_some(), |tended| tended.path.is_sealed()),
            path,
            via: None,
        }
    }

    /// What is known of a path.
    fn measured(
        &self,
        (path, probe, weighed): (&Path, &Probe, &Weighed),
        epoch: u16,
        since: Instant,
    ) -> Option<PathStatus> {
        let quality = probe.quality();
        Some(PathStatus {
            framing: Framing::Udp,
            framing_for: (self.now - since).as_secs(),
            why_not_better: String::new(),
            endpoint: path.endpoint()?,
            rtt_us: u64::from(quality.rtt_us),
            jitter_us: u64::from(quality.jitter_us),
            loss_out_percent: quality.loss_out,
            loss_in_percent: quality.loss_in,
            arrived: weighed.arrivals.arrived,
            lost: weighed.arrivals.lost,
            cost_us: weighed.cost.whole(),
            mtu: probe.mtu(),
            cipher: path.cipher(),
            epoch,
            up_for: (self.now - since).as_secs(),
        })
    }

    /// Peers that frames were sent to lately though there is no link: by a path of their own, or by way of another peer.
    fn without_links(&self) -> Vec<Connection> {
        let direct = self.directs.paths.iter().filter(|(_, direct)| direct.proven);
        let directs = direct.map(|(peer, direct)| Connection {
            address: direct.path.endpoint().map_or_else(|| "-".to_string(), |endpoint| endpoint.to_string()),
            outbound: direct.role == Role::Dialer,
            state: ConnectionState::Direct,
            peer: Some((*peer, self.nickname_of(*peer))),
            info: if direct.ready { String::new() } else { "at rest".to_string() },
            retry_in: None,
            encrypted: self.config.psk.is_some(),
            path: self.measured((&direct.path, &direct.probe, &direct.weighed), direct.epoch, direct.since),
            via: None,
        });
        let relayed = self.directs.wishes.iter().filter_map(|(peer, wish)| {
            let via = self.published.routes.next_hop(*peer).filter(|via| via != peer)?;
            let is_direct = self.directs.paths.get(peer).is_some_and(|direct| direct.proven);
            let waits = wish.not_before > self.now && !wish.why.is_empty();
            (!is_direct && self.now - wish.relayed_at < REMEMBER_WISH).then(|| Connection {
                address: "-".to_string(),
                outbound: true,
                state: ConnectionState::Relayed,
                peer: Some((*peer, self.nickname_of(*peer))),
                info: wish.why.clone(),
                retry_in: waits.then(|| self.seconds_until(wish.not_before)),
                encrypted: self.config.psk.is_some(),
                path: None,
                via: Some((via, self.nickname_of(via))),
            })
        });
        let unlinked = self.kept.0.iter().filter(|(peer, _)| self.links.up(**peer).is_none());
        let kept = unlinked.map(|(peer, kept)| Connection {
            address: kept.address.to_string(),
            outbound: kept.outbound,
            state: ConnectionState::Direct,
            peer: Some((*peer, kept.nickname.clone())),
            info: "its link broke".to_string(),
            retry_in: None,
            encrypted: self.config.psk.is_some(),
            path: self.measured(
                (&kept.tended.path, &kept.tended.probe, &kept.tended.weighed),
                kept.tended.rekey.active(),
                kept.tended.since,
            ),
            via: None,
        });
        directs.chain(kept).chain(relayed).collect()
    }

    fn seconds_until(&self, at: Instant) -> u64 {
        u64::try_from((at - self.now).as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
    }

    fn attempt(&self, target: &Target, entry: &Entry) -> Option<Connection> {
        let failed = if entry.was_linked { ConnectionState::Retrying } else { ConnectionState::Failed };
        let (state, info, retry_in) = match entry.attempt {
            Attempt::Idle | Attempt::Asleep(_) => return None,
            Attempt::Dialling(_) => (ConnectionState::Connecting, entry.why.clone(), None),
            Attempt::Waiting(_) if entry.why.is_empty() => (ConnectionState::Connecting, String::new(), None),
            Attempt::Waiting(at) => (failed, entry.why.clone(), Some(self.seconds_until(at))),
            Attempt::Never => (ConnectionState::Failed, format!("{}, retry: never", entry.why), None),
        };
        let peer = entry.peer.map(|peer| (peer, self.nickname_of(peer)));
        let address = target.to_string();
        Some(Connection {
            address,
            outbound: true,
            state,
            peer,
            info,
            retry_in,
            encrypted: false,
            path: None,
            via: None,
        })
    }

    fn nickname_of(&self, peer: PeerName) -> Nickname {
        self.peers.get(peer).map(|record| record.nickname.clone()).unwrap_or_default()
    }

    fn peer(&self, name: PeerName, record: &Record) -> Peer {
        let via = self.published.routes.next_hop(name);
        let link = |link: &crate::mesh::peers::LinkRecord| PeerLink {
            name: link.peer,
            nickname: self.nickname_of(link.peer),
            outbound: link.outbound,
            address: link.address,
            established: link.established,
            rtt_us: link.rtt_us,
            cost: link.cost,
            mtu: link.mtu,
        };
        Peer {
            name,
            nickname: record.nickname.clone(),
            short: record.short.0,
            version: record.version,
            via,
            reachable: name == self.me || via.is_some(),
            cost_us: self.published.routes.route(name).map(|route| route.cost),
            link_cost_us: self.published.routes.link_cost(name),
            networks: record.networks.iter().map(|(id, _)| *id).collect(),
            links: record.links.iter().map(link).collect(),
        }
    }

    fn networks(&self) -> Vec<NetworkStatus> {
        let mut known: BTreeMap<(NetId, Network), BTreeSet<PeerName>> = BTreeMap::new();
        for (name, record) in self.peers.iter() {
            for network in &record.networks {
                known.entry(*network).or_default().insert(name);
            }
        }
        let mut in_use: BTreeMap<NetId, usize> = BTreeMap::new();
        let present = |name: PeerName| name == self.me || self.published.linked.contains(name);
        for (_, set) in self.claims.iter().filter(|(name, _)| present(*name)) {
            set.claims.iter().for_each(|claim| *in_use.entry(claim.id).or_default() += 1);
        }
        let network = |((id, network), peers): ((NetId, Network), BTreeSet<PeerName>)| {
            let open = peers.contains(&self.me);
            let attachments = if open { self.attachments.users(id) } else { 0 };
            let addresses = in_use.get(&id).copied().unwrap_or(0);
            let vteps = if open { self.attachments.vteps.on(id) } else { Vec::new() };
            let uplinks = if open { self.attachments.uplinks.on(id) } else { Vec::new() };
            let peers = peers.into_iter().collect();
            NetworkStatus { network, id, open, attachments, addresses, vteps, uplinks, peers }
        };
        known.into_iter().map(network).collect()
    }

    fn learned(&self) -> Vec<LearnedMac> {
        let learned = |seen: crate::plane::macs::Seen| {
            let (peer, port) = match seen.place {
                Place::Port(port) => (None, Some(port)),
                Place::Peer(short) => (self.published.routes.owner(short), None),
            };
            let vtep = port.and_then(|port| self.attachments.vteps.address(port));
            let uplink = port.and_then(|port| self.attachments.uplinks.name(port));
            LearnedMac { network: seen.network, mac: seen.mac, peer, vtep, uplink, age: seen.age.as_secs() }
        };
        self.plane.macs(self.now).into_iter().map(learned).collect()
    }
}
