//! Gossip: what neighbours tell us and we tell them, on both channels.
//!
//! `mesh::gossip` decides what to tell whom; here bodies become messages and back, and what was learned is followed up:
//! numbers (`short`), collisions and clones for the log, targets that are worth dialling now.

use super::Node;
use super::border::Level;
use crate::mesh::gossip::{Body, Gossip};
use crate::mesh::peers::Record;
use crate::mesh::replica::Merged;
use crate::mesh::short;
use crate::types::{PeerName, Refusal, Uid};
use crate::wire::message::{Channel, Message, decode_body, encode_body};

/// After a restart others remember our earlier run and tell of it a few times. Who is told of more often still runs.
const CONTESTS_OF_A_CLONE: u32 = 6;

/// Both channels.
pub(super) struct Tell {
    pub topology: Gossip,
    pub claims: Gossip,
}

impl Tell {
    pub fn link_up(&mut self, me: PeerName, neighbour: PeerName) {
        self.topology.link_up(me, neighbour);
        self.claims.link_up(me, neighbour);
    }

    pub fn link_down(&mut self, neighbour: PeerName) {
        self.topology.link_down(neighbour);
        self.claims.link_down(neighbour);
    }

    pub fn drained(&mut self, neighbour: PeerName) {
        self.topology.drained(neighbour);
        self.claims.drained(neighbour);
    }
}

impl Node {
    /// A neighbour told something.
    pub(super) fn told(&mut self, from: PeerName, channel: Channel, body: &[u8]) -> Result<(), Refusal> {
        match channel {
            Channel::Topology => {
                let body: Body<Record> = decode_body(body).map_err(|_| Refusal::Malformed)?;
                let newcomers = self.newcomers(&body);
                let merged = self.tell.topology.receive(from, body, &mut self.peers, self.now);
                self.topology_merged(&merged, &newcomers);
            }
            Channel::Claims => {
                let body = decode_body(body).map_err(|_| Refusal::Malformed)?;
                let merged = self.tell.claims.receive(from, body, &mut self.claims, self.now);
                self.claims_merged(&merged);
            }
        }
        Ok(())
    }

    /// Peers in `body` that we do not know, or know from an earlier run.
    fn newcomers(&self, body: &Body<Record>) -> Vec<PeerName> {
        let Body::Items(records) = body else { return Vec::new() };
        let fresh = |record: &&Record| self.peers.get(record.name()).is_none_or(|known| known.uid != record.uid);
        records.iter().filter(fresh).map(Record::name).collect()
    }

    fn topology_merged(&mut self, merged: &Merged, newcomers: &[PeerName]) {
        if merged.news.is_empty() && merged.collisions.is_empty() && !merged.me_contested() {
            return;
        }
        self.published.routes_changed = true;
        for peer in newcomers.iter().filter(|peer| merged.news.contains(peer)) {
            self.dialer.appeared(*peer, self.now);
        }
        for name in &merged.collisions {
            self.log_once(format!("name collision: two keys have the name {name}; remove the identity of one of them"));
        }
        self.contested(merged.contested_by);
        if short::settle(&mut self.peers, &mut self.rng) {
            let me = self.me;
            self.tell.topology.spread(&[me], None, self.now);
            self.published.fib_changed = true;
        }
    }

    /// Somebody holds a newer record of us, written by another run.
    fn contested(&mut self, by: Option<Uid>) {
        let Some(uid) = by.filter(|uid| *uid != self.config.uid) else { return };
        let (known, times) = &mut self.published.contested;
        *times = if *known == uid { times.saturating_add(1) } else { 1 };
        *known = uid;
        if *times >= CONTESTS_OF_A_CLONE {
            self.log_once(format!(
                "another router runs with the key of {}: remove the identity of one of them",
                self.me
            ));
        }
    }

    /// Two hosts that took one address at the same moment both have it: people must know.
    fn claims_merged(&mut self, merged: &Merged) {
        self.addresses.claims_changed |= !merged.news.is_empty();
        if merged.news.is_empty() || self.attachments.is_empty() {
            return;
        }
        self.neighbourhood.changed = true;
        let rivals = self.claims.rivals();
        let lines: Vec<String> = rivals
            .into_iter()
            .filter(|(peer, _)| merged.news.contains(peer) && self.published.linked.contains(*peer))
            .map(|(peer, claim)| {
                let (address, network, label) = (claim.address, claim.network, claim.label());
                format!("address {address} on {network} is used twice: here, and by {label} at {}", self.named(peer))
            })
            .collect();
        lines.into_iter().for_each(|line| self.log_once(line));
    }

    /// A warning that the mesh may cause again and again.
    pub(super) fn log_once(&mut self, line: String) {
        if self.published.warned.len() < 64 && self.published.warned.insert(line.clone()) {
            self.log(Level::Warn, line);
        }
    }

    /// Hands what there is to tell to the links that take it.
    pub(super) fn gossip(&mut self) {
        while let Some((peer, body)) = self.tell.topology.poll(&self.peers, &self.published.linked, self.now) {
            self.send_body(peer, Channel::Topology, encode_body(&body));
        }
        while let Some((peer, body)) = self.tell.claims.poll(&self.claims, &self.published.linked, self.now) {
            self.send_body(peer, Channel::Claims, encode_body(&body));
        }
    }

    fn send_body(&mut self, peer: PeerName, channel: Channel, body: Vec<u8>) {
        let up = self.links.by_peer.get(&peer).and_then(|id| self.links.all.get_mut(id));
        if let Some(connected) = up {
            connected.link.send_gossip(&Message::Gossip { channel, body });
        }
    }

    /// Forgets peers that no chain of links has reached for a while.
    pub(super) fn collect(&mut self) {
        let gone = self.peers.collect(&self.published.linked, self.now);
        self.claims.collect(&self.published.linked, self.now);
        if !gone.is_empty() {
            self.published.routes_changed = true;
        }
    }
}
