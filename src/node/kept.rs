//! Paths whose links broke: what still proves itself goes on while the link is made anew.
//!
//! A link is one TCP connection, which dies with an address (a moved host, a translator that forgot); a path is keys, and
//! leads wherever its newest heartbeat came from. So when a link breaks without a word, its path has to prove itself at
//! once: three heartbeats, one of which must be answered. If so, it stays what it was for data, and in our record, until
//! the next link's path is proven, or its heartbeats fail, or a minute has passed: its keys are replaced through a link only.
//!
//! ```text
//! link broke --(three heartbeats)--> answered: kept --(3 s of silence; 60 s; 2 s after another path is proven)--> gone
//!                                    not answered within 100 ms and three round trips --> gone
//! ```

use super::Node;
use super::border::Level;
use super::checks::SILENT;
use super::leg::{Arrival, Post};
use super::links::Connected;
use super::paths::Tended;
use crate::mesh::candidates::is_check;
use crate::mesh::peers::LinkRecord;
use crate::plane::fib::Fib;
use crate::plane::path::Path;
use crate::plane::vxlan::Carrier;
use crate::types::{Instant, Nickname, PeerName, Refusal, ShortId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Longest life of a path without its link.
const LIFE: Duration = Duration::from_secs(60);
/// How long it is opened after another one carries the data: the other side changes over by itself.
const LINGER: Duration = Duration::from_secs(2);
const LEAST_TRIAL: Duration = Duration::from_millis(100);

/// A path without its link.
pub(super) struct Kept {
    pub tended: Tended,
    pub nickname: Nickname,
    pub address: SocketAddr,
    pub outbound: bool,
    began: Instant,
    until: Instant,
    /// When the next heartbeat of the trial is due, and the end of it; nothing: it passed.
    trial: Option<(Instant, Instant)>,
}

impl Kept {
    fn deadline(&self, now: Instant) -> Instant {
        let at = self.until.min(self.tended.probe.deadline(now));
        let at = self.tended.candidates.deadline().map_or(at, |check| at.min(check));
        self.trial.map_or(at, |(next, end)| at.min(next).min(end))
    }

    /// Whether it is still what it was.
    fn stands(&mut self, now: Instant) -> bool {
        if now >= self.until || !self.tended.probe.proven(now) {
            return false;
        }
        let Some((next, end)) = self.trial else { return true };
        if !self.tended.probe.is_silent(now - self.began, now) {
            self.trial = None;
        } else if now >= end {
            return false;
        } else if now >= next {
            self.tended.probe.hurry(now);
            self.trial = Some((next + (end - self.began) / 3, end));
        }
        true
    }
}

/// All of them, at most one for each peer that was linked.
#[derive(Default)]
pub(super) struct KeptPaths(pub BTreeMap<PeerName, Kept>);

impl KeptPaths {
    /// Receiver indexes in use.
    pub fn indexes(&self) -> impl Iterator<Item = u32> {
        self.0.values().flat_map(|kept| kept.tended.path.indexes())
    }

    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|kept| kept.deadline(now)).min()
    }

    /// Adds them to what our record says of links.
    pub fn record(&self, links: &mut Vec<LinkRecord>) {
        for (peer, kept) in &self.0 {
            if links.iter().any(|link| link.peer == *peer && link.established) {
                continue;
            }
            links.retain(|link| link.peer != *peer);
            links.push(LinkRecord {
                peer: *peer,
                address: kept.address,
                outbound: kept.outbound,
                established: true,
                rtt_us: kept.tended.weighed.cost.delay(),
                mtu: kept.tended.settled_mtu,
                seen: kept.tended.path.endpoint(),
                cost: kept.tended.weighed.cost.whole(),
            });
        }
    }
}

impl Node {
    /// A link ended. Takes its path out of it if that may live on.
    pub(super) fn keep_path(&mut self, connected: &mut Connected, refusal: Option<&Refusal>) {
        let broke = matches!(refusal, None | Some(Refusal::Timeout | Refusal::AlreadyConnected));
        let Some(peer) = connected.peer.filter(|_| broke && !self.stopping) else { return };
        let (nickname, address, outbound) = (connected.nickname(), connected.dialable(), connected.dial.is_some());
        let Some(mut tended) = connected.tended.take_if(|tended| tended.may_be_kept(self.now)) else {
            return;
        };
        let now = self.now;
        // Without a link nobody proves VXLAN; what still comes by it is taken.
        tended.path.set_carrier(Carrier::Udp);
        let quality = tended.probe.quality();
        let trip = Duration::from_micros(u64::from(quality.rtt_us) + 4 * u64::from(quality.jitter_us));
        let trial = LEAST_TRIAL + 3 * trip;
        tended.probe.hurry(now);
        let kept = Kept {
            tended,
            nickname,
            address,
            outbound,
            began: now,
            until: now + LIFE,
            trial: Some((now + trial / 3, now + trial)),
        };
        if let Some(old) = self.kept.0.insert(peer, kept) {
            old.tended.path.set_ready(false);
        }
        self.published.fib_changed = true;
        // The dialer may need other addresses than before.
        self.published.routes_changed = true;
    }

    /// Time passed for paths without their links.
    pub(super) fn tend_kept(&mut self) {
        let now = self.now;
        let due = |(_, kept): &(&PeerName, &Kept)| kept.deadline(now) <= now;
        let peers: Vec<PeerName> = self.kept.0.iter().filter(due).map(|(peer, _)| *peer).collect();
        for peer in peers {
            let replaced = self.links.up(peer).and_then(|(_, c)| c.tended.as_ref()).is_some_and(|next| next.proven);
            let Some(kept) = self.kept.0.get_mut(&peer) else { continue };
            if replaced {
                kept.until = kept.until.min(now + LINGER);
            }
            if kept.stands(now) {
                self.probe_kept(peer);
            } else {
                self.end_kept(peer);
            }
        }
    }

    fn probe_kept(&mut self, peer: PeerName) {
        let Some(Kept { tended, .. }) = self.kept.0.get_mut(&peer) else { return };
        let mut post = Post { whereabouts: &mut self.whereabouts, out: &mut self.out, now: self.now };
        let mut leg = tended.leg();
        leg.send_checks(&mut post);
        leg.send_probes(&mut post);
        tended.tell_mtu();
    }

    fn end_kept(&mut self, peer: PeerName) {
        let Some(kept) = self.kept.0.remove(&peer) else { return };
        kept.tended.path.set_ready(false);
        self.published.fib_changed = true;
        self.refresh_record();
        if self.now < kept.until {
            let line = format!("path to {peer}({}) ended with its link", kept.nickname);
            self.log(Level::Debug, line);
        }
    }

    /// The data plane opened a probe of a path that has no link.
    pub(super) fn probed_without_link(&mut self, came: &Arrival<'_>) {
        let found = self.kept.0.iter_mut().find(|(_, kept)| kept.tended.path.id() == came.path);
        let Some((peer, kept)) = found.map(|(peer, kept)| (*peer, kept)) else {
            return self.direct_probed(came);
        };
        let (leads, tended) = (kept.outbound, &mut kept.tended);
        let mut post = Post { whereabouts: &mut self.whereabouts, out: &mut self.out, now: self.now };
        if is_check(came.body) {
            tended.leg().checked(came, &mut post);
        } else if tended.probe.handle(came.body, came.size, came.at).is_ok_and(|heard| heard.newest) {
            let is_elsewhere = leads && tended.is_aside(came.from) && !tended.probe.is_silent(SILENT, came.at);
            let stays = is_elsewhere || !tended.may_lead_to(came.from.ip(), &self.config);
            if tended.follow(came, leads, stays, &mut post) {
                let line = format!("path to {peer}({}) moved to {}", kept.nickname, came.from);
                self.log_about(came.from.ip(), line);
            }
        }
        self.probe_kept(peer);
    }

    /// The path that data for a neighbour takes.
    pub(super) fn path_beside(&self, peer: PeerName) -> Option<Arc<Path>> {
        let beside = self.links.up(peer).and_then(|(_, connected)| connected.tended.as_ref());
        let kept = self.kept.0.get(&peer).map(|kept| &kept.tended);
        let best = beside.filter(|tended| tended.proven).or(kept).or(beside)?;
        Some(best.path.clone())
    }

    /// Their datagrams are still opened.
    pub(super) fn fill_kept(&self, fib: &mut Fib) {
        for (peer, Kept { tended, .. }) in &self.kept.0 {
            tended.path.set_peer(self.peers.get(*peer).map_or(ShortId(0), |record| record.short));
            fib.paths.insert(tended.path.id(), tended.path.clone());
            fib.by_index.extend(tended.path.indexes().into_iter().map(|index| (index, tended.path.clone())));
        }
    }

    /// An address or route of this machine changed.
    pub(super) fn hurry_kept(&mut self) {
        self.kept.0.values_mut().for_each(|kept| kept.tended.probe.hurry(self.now));
    }
}
