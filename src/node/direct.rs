//! Paths to peers that we have no link with, made when frames for them are relayed.
//!
//! Owns such a path from the first wish to its end: when to knock (`knocks` agrees on the keys), at which of the peer's
//! addresses it answers (`mesh::candidates`), its proof (`mesh::probe`), and when the data plane may use it. It carries
//! unicast between its two ends and nothing else: floods stay on the trees of links, and nobody is told of it, so it can make
//! no loop. While it is not proven, or is worse than the way by others, frames go that way.
//!
//! ```text
//! frames relayed -> knock, letters -> keys -> checks at all addresses -> heartbeats at the best one -> proven: in use
//!        ^                |                        |                                   |
//!        |   no answer    |    nothing came back   |          3 s without a heartbeat  |   60 s without a frame
//!        '-- later: 15 s, doubled up to 10 min, or when the peer's addresses change <--'   70 s: forgotten
//! ```
//!
//! The side that knocked chooses the address; the other follows its heartbeats. Each side takes the path out of use after a
//! minute without frames, but opens what comes for ten seconds more, so neither sends into the void.
//!
//! Bounds: [`PATHS_MAX`] paths, [`WISHES_MAX`] peers that are remembered as relayed.

use super::Node;
use super::border::Level;
use super::knocks::{Bucket, Exchange, Heard};
use super::leg::{Arrival, Leg, Post};
use super::quality::Weighed;
use crate::crypto::seal::Cipher;
use crate::crypto::session::Role;
use crate::mesh::candidates::{Candidates, Checked, is_check, leave};
use crate::mesh::probe::Probe;
use crate::mesh::routes::A_HOP;
use crate::plane::fib::Fib;
use crate::plane::path::Path;
use crate::types::{Instant, PeerName, PublicKey, ShortId, Uid};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Paths without links at a time, those included that are being made.
pub const PATHS_MAX: usize = 256;
/// Peers that are remembered as relayed.
pub const WISHES_MAX: usize = 1024;

/// A path that carries nothing is taken out of use, and later forgotten.
pub const IDLE: Duration = Duration::from_secs(60);
const LINGER: Duration = Duration::from_secs(10);
/// Keys were agreed on, but no address answers within this: it is given up.
const PROOF_TIME: Duration = Duration::from_secs(5);
/// A proven path waits so long for the search for its MTU, lest the first frames are cut into the smallest pieces.
const MTU_TIME: Duration = Duration::from_millis(400);
const FIRST_REST: Duration = Duration::from_secs(15);
const LONGEST_REST: Duration = Duration::from_secs(600);
/// For so long after the last relayed frame the status tells who hands them on.
pub(super) const REMEMBER_WISH: Duration = Duration::from_secs(60);

/// A peer that frames are relayed to.
#[derive(Debug)]
pub(super) struct Wish {
    pub relayed_at: Instant,
    failures: u32,
    pub not_before: Instant,
    /// Why there is no direct path; empty while one is being made.
    pub why: String,
    /// Where the peer was said to be when the last try failed.
    tried: Vec<SocketAddr>,
}

/// One path and the machines that look after it.
pub(super) struct Direct {
    pub key: PublicKey,
    /// Their run: another one has no keys of ours.
    pub uid: Uid,
    pub role: Role,
    pub path: Arc<Path>,
    pub probe: Probe,
    pub candidates: Candidates,
    local: Option<IpAddr>,
    pub cipher: Cipher,
    /// The epoch that seals, 0: none yet, and since when.
    pub epoch: u16,
    pub keyed_at: Instant,
    /// Installed, and sealed with as soon as the other side does.
    pub next_epoch: Option<u16>,
    pub retire: Option<(u16, Instant)>,
    pub exchange: Option<Exchange>,
    pub tries: u32,
    pub proven: bool,
    pub since: Instant,
    /// The data plane sends by it.
    pub ready: bool,
    pub used_at: Instant,
    /// Datagrams that were sealed when that was last looked at: more now, and frames flow.
    pub sealed: u64,
    told_mtu: (u16, bool),
    trouble_at: Instant,
    pub weighed: Weighed,
    /// One of the two ends found another way better, and when.
    left: Option<Instant>,
}

impl Direct {
    pub fn new(role: Role, path: Arc<Path>, (key, uid): (PublicKey, Uid), overhead: u16, now: Instant) -> Direct {
        Direct {
            key,
            uid,
            role,
            path,
            probe: Probe::new(role == Role::Dialer, overhead, now),
            candidates: Candidates::default(),
            local: None,
            cipher: Cipher::ChaCha20Poly1305,
            epoch: 0,
            keyed_at: now,
            next_epoch: None,
            retire: None,
            exchange: None,
            tries: 0,
            proven: false,
            since: now,
            ready: false,
            used_at: now,
            sealed: 0,
            told_mtu: (0, false),
            trouble_at: now,
            weighed: Weighed::default(),
            left: None,
        }
    }

    /// What sends and takes in its probes.
    pub fn leg(&mut self) -> Leg<'_> {
        Leg {
            path: &self.path,
            probe: &mut self.probe,
            candidates: &mut self.candidates,
            local: &mut self.local,
            sealed: &mut self.sealed,
            trouble_at: &mut self.trouble_at,
            told_mtu: &mut self.told_mtu,
        }
    }

    /// From now on it seals with this epoch.
    pub fn activate(&mut self, epoch: u16, retire_after: Duration, now: Instant) {
        if self.epoch != 0 && self.epoch != epoch {
            self.retire = Some((self.epoch, now + retire_after));
        }
        self.path.activate(epoch);
        (self.epoch, self.keyed_at, self.next_epoch) = (epoch, now, None);
        self.sealed = self.path.counter();
        self.probe.hurry(now);
    }

    /// When something is to be done for it.
    fn deadline(&self, now: Instant) -> Instant {
        let keys = self.exchange.as_ref().map_or_else(|| self.rekey_at(), Exchange::due);
        let mut at = keys.min(self.used_at + if self.ready { IDLE } else { IDLE + LINGER });
        at = at.min(self.retire.map_or(at, |(_, retire)| retire));
        at = at.min(self.left.map_or(at, |left| left + LINGER));
        if self.epoch == 0 {
            return at;
        }
        if !self.proven {
            at = at.min(self.since + PROOF_TIME);
        } else if !self.ready && now - self.used_at < IDLE {
            at = at.min((self.since + MTU_TIME).max(now + Duration::from_millis(20)));
        }
        if self.path.endpoint().is_some() {
            at = at.min(self.probe.deadline(now));
        }
        at.min(self.candidates.deadline().unwrap_or(at))
    }

    /// Frames passed since this was last called.
    fn was_used(&mut self, now: Instant) -> bool {
        self.leg().saw_data(now) | self.path.take_carried()
    }
}

/// All paths without links, and who they are wished for.
#[derive(Default)]
pub(super) struct Directs {
    pub paths: BTreeMap<PeerName, Direct>,
    pub wishes: BTreeMap<PeerName, Wish>,
    pub heard: BTreeMap<PeerName, Heard>,
    pub bucket: Bucket,
}

impl Directs {
    /// Receiver indexes in use.
    pub fn indexes(&self) -> impl Iterator<Item = u32> {
        self.paths.values().flat_map(|direct| direct.path.indexes())
    }

    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.paths.values().map(|direct| direct.deadline(now)).min()
    }
}

impl Node {
    /// Frames of ours for a peer are handed on by another one.
    pub(super) fn relayed(&mut self, to: ShortId) {
        let Some(peer) = self.published.routes.owner(to).filter(|peer| *peer != self.me) else { return };
        let now = self.now;
        let wishes = &mut self.directs.wishes;
        if wishes.len() >= WISHES_MAX && !wishes.contains_key(&peer) {
            return;
        }
        let fresh = || Wish { relayed_at: now, failures: 0, not_before: now, why: String::new(), tried: Vec::new() };
        let wish = wishes.entry(peer).or_insert_with(fresh);
        wish.relayed_at = now;
        let may_try = wish.not_before <= now;
        if may_try && !self.directs.paths.contains_key(&peer) && self.makes_direct_paths_with(peer) {
            self.knock(peer);
        }
    }

    /// Whether a path without a link to `peer` is of use and allowed.
    pub(super) fn makes_direct_paths_with(&self, peer: PeerName) -> bool {
        let Some(key) = self.peers.key(peer) else { return false };
        let allowed = self.config.allow.as_ref().is_none_or(|allow| allow.contains(&key));
        allowed && !self.stopping && self.links.up(peer).is_none() && self.directs.paths.len() < PATHS_MAX
    }

    /// Time passed for paths without links.
    pub(super) fn tend_directs(&mut self) {
        let due = |(_, direct): &(&PeerName, &Direct)| direct.deadline(self.now) <= self.now;
        let peers: Vec<PeerName> = self.directs.paths.iter().filter(due).map(|(peer, _)| *peer).collect();
        for peer in peers {
            self.tend_direct(peer);
        }
    }

    fn tend_direct(&mut self, peer: PeerName) {
        let now = self.now;
        let Some(direct) = self.directs.paths.get_mut(&peer) else { return };
        if direct.was_used(now) {
            direct.used_at = now;
        }
        if let Some((epoch, _)) = direct.retire.take_if(|(_, at)| *at <= now) {
            direct.path.retire(epoch);
            self.published.fib_changed = true;
        }
        if direct.left.is_some_and(|left| now - left >= LINGER) {
            self.end_direct(peer, Some("the way by others is better".to_string()));
        } else if now - direct.used_at >= IDLE + LINGER {
            self.end_direct(peer, None);
        } else if direct.epoch != 0 && !direct.proven && now - direct.since >= PROOF_TIME {
            let (all, _) = direct.candidates.count(now);
            let addresses = if all == 1 { "address".to_string() } else { format!("{all} addresses") };
            let why = match all {
                0 => "no address of it is known".to_string(),
                _ => format!("no answer over UDP from its {addresses}"),
            };
            self.end_direct(peer, Some(why));
        } else if let Err(why) = self.tend_keys(peer) {
            self.end_direct(peer, Some(why));
        } else {
            self.leave_direct(peer);
            self.probe_direct(peer);
            self.judge_direct(peer);
        }
    }

    /// A heartbeat came: the path is left if it is worse than the way by others.
    fn weigh_direct(&mut self, peer: PeerName) {
        let (now, may_try) = (self.now, self.may_try());
        let Some(route) = self.published.routes.route(peer) else { return };
        let Some(direct) = self.directs.paths.get_mut(&peer) else { return };
        direct.weighed.look_at_arrivals(&direct.path, &mut direct.probe, direct.since, now);
        direct.weighed.weigh(&mut direct.probe, may_try, now);
        let is_worse = direct.weighed.cost.whole().saturating_add(A_HOP) > route.cost && route.distance > 1;
        if direct.proven && is_worse && direct.left.is_none() {
            direct.left = Some(now);
            self.leave_direct(peer);
        }
    }

    /// Tells the other side that a path is left, as long as it is opened: it cannot know what we did not get.
    fn leave_direct(&mut self, peer: PeerName) {
        let Some(direct) = self.directs.paths.get_mut(&peer).filter(|direct| direct.left.is_some()) else { return };
        if let Some(to) = direct.path.endpoint() {
            let from = direct.local;
            direct.leg().send((from, to), &leave(), &mut self.out);
        }
    }

    /// Sends what its machines want sent.
    fn probe_direct(&mut self, peer: PeerName) {
        let Some(direct) = self.directs.paths.get_mut(&peer).filter(|direct| direct.epoch != 0) else { return };
        let mut post = Post { whereabouts: &mut self.whereabouts, out: &mut self.out, now: self.now };
        let mut leg = direct.leg();
        leg.send_checks(&mut post);
        leg.send_probes(&mut post);
    }

    /// Tells the data plane whether frames may go by it.
    fn judge_direct(&mut self, peer: PeerName) {
        let now = self.now;
        let Some(direct) = self.directs.paths.get_mut(&peer) else { return };
        direct.leg().tell_mtu();
        let proven = direct.probe.proven(now);
        let changed = proven != direct.proven;
        if changed {
            (direct.proven, direct.since) = (proven, now);
        }
        let measured = direct.probe.is_settled() || now - direct.since >= MTU_TIME;
        let ready = proven && direct.left.is_none() && now - direct.used_at < IDLE && (direct.ready || measured);
        if ready == std::mem::replace(&mut direct.ready, ready) {
            return;
        }
        direct.path.set_ready(ready);
        self.published.fib_changed = true;
        let endpoint = direct.path.endpoint();
        let at = endpoint.map_or(String::new(), |endpoint| format!(" at {endpoint}"));
        if ready && let Some(wish) = self.directs.wishes.get_mut(&peer) {
            (wish.failures, wish.why) = (0, String::new());
        }
        let named = self.named(peer);
        match (ready, proven) {
            (true, _) => self.log(Level::Info, format!("direct path to {named}{at} is up, without a link")),
            (false, true) => self.log(Level::Debug, format!("direct path to {named} rests")),
            (false, false) => {
                self.log(Level::Info, format!("direct path to {named}{at} is down: no heartbeat for 3 s"));
            }
        }
    }

    /// Forgets a path. `why`: it failed, and is tried again only later.
    pub(super) fn end_direct(&mut self, peer: PeerName, why: Option<String>) {
        let Some(direct) = self.directs.paths.remove(&peer) else { return };
        direct.path.set_ready(false);
        self.published.fib_changed = true;
        let Some(why) = why else { return };
        let tried = self.addresses_of(peer, &[]);
        let Some(wish) = self.directs.wishes.get_mut(&peer) else { return };
        let rest = FIRST_REST * 2_u32.saturating_pow(wish.failures.min(10));
        wish.failures = wish.failures.saturating_add(1);
        (wish.not_before, wish.tried, wish.why) = (self.now + rest.min(LONGEST_REST), tried, why.clone());
        let line = format!("no direct path to {}: {why}", self.named(peer));
        self.log(Level::Debug, line);
    }

    /// The data plane opened a probe of a path without a link.
    pub(super) fn direct_probed(&mut self, came: &Arrival<'_>) {
        let found = self.directs.paths.iter_mut().find(|(_, direct)| direct.path.id() == came.path);
        let Some((peer, direct)) = found.map(|(peer, direct)| (*peer, direct)) else { return };
        if direct.next_epoch == Some(came.epoch) {
            direct.activate(came.epoch, super::rekey::RETIRE_AFTER, self.now);
        }
        let mut post = Post { whereabouts: &mut self.whereabouts, out: &mut self.out, now: self.now };
        if is_check(came.body) {
            match direct.leg().checked(came, &mut post) {
                Some(Checked::Answered(_)) if direct.role == Role::Dialer => _ = direct.leg().choose(&mut post),
                Some(Checked::Leave) => _ = direct.left.get_or_insert(self.now),
                _ => {}
            }
        } else if let Ok(heard) = direct.probe.handle(came.body, came.size, came.at) {
            let moved = heard.newest && direct.path.endpoint() != Some(came.from);
            // Who knocked leads; the other side is followed where it must have moved.
            let leads = direct.role == Role::Dialer && !direct.leg().is_silent(self.now);
            if moved {
                direct.candidates.saw(came.from, came.at);
            }
            if moved && !leads {
                direct.leg().lead_to(came.from, came.local, &mut post);
            } else if heard.newest && !leads {
                direct.leg().leave_from(came.local, &mut post);
            }
            self.weigh_direct(peer);
        }
        self.probe_direct(peer);
        self.judge_direct(peer);
    }

    /// Adds the paths to what the data plane knows, where they are better than what the links lead to.
    pub(super) fn fill_directs(&self, fib: &mut Fib) {
        for (peer, direct) in &self.directs.paths {
            fib.paths.insert(direct.path.id(), direct.path.clone());
            fib.by_index.extend(direct.path.indexes().into_iter().map(|index| (index, direct.path.clone())));
            let short = self.peers.get(*peer).map_or(ShortId(0), |record| record.short);
            direct.path.set_peer(short);
            let is_theirs = self.published.routes.owner(short) == Some(*peer);
            let is_neighbour = self.published.routes.next_hop(*peer) == Some(*peer);
            if direct.ready && is_theirs && !is_neighbour {
                fib.next_hops.insert(short, direct.path.clone());
            }
        }
    }

    /// The topology changed: peers that are gone or began anew have no path of ours, and new addresses may work.
    pub(super) fn review_directs(&mut self) {
        let run = |peer: &PeerName| self.peers.get(*peer).map(|record| record.uid);
        let gone: Vec<PeerName> =
            self.directs.paths.iter().filter(|(peer, d)| run(peer) != Some(d.uid)).map(|(p, _)| *p).collect();
        gone.into_iter().for_each(|peer| self.end_direct(peer, None));
        let peers: Vec<PeerName> = self.directs.paths.keys().copied().collect();
        for peer in peers {
            let addresses = self.addresses_of(peer, &[]);
            if let Some(direct) = self.directs.paths.get_mut(&peer) {
                direct.candidates.tell(&addresses, self.now);
            }
        }
        let failed: Vec<PeerName> =
            self.directs.wishes.iter().filter(|(_, wish)| wish.failures > 0).map(|(peer, _)| *peer).collect();
        for peer in failed {
            let addresses = self.addresses_of(peer, &[]);
            let now = self.now;
            if let Some(wish) = self.directs.wishes.get_mut(&peer).filter(|wish| wish.tried != addresses) {
                (wish.not_before, wish.tried, wish.failures) = (wish.not_before.min(now + FIRST_REST), addresses, 0);
            }
        }
    }

    /// An address or route of this machine changed: what did not work may work now, and what worked is asked at once.
    pub(super) fn hurry_directs(&mut self) {
        for direct in self.directs.paths.values_mut() {
            direct.candidates.trouble(self.now);
            direct.probe.route_changed(self.now);
            direct.probe.hurry(self.now);
        }
        for wish in self.directs.wishes.values_mut() {
            (wish.not_before, wish.failures) = (self.now, 0);
        }
    }

    /// Forgets what nobody asks for.
    pub(super) fn forget_wishes(&mut self) {
        let now = self.now;
        let Directs { paths, wishes, heard, .. } = &mut self.directs;
        wishes.retain(|peer, wish| {
            paths.contains_key(peer) || now - wish.relayed_at < REMEMBER_WISH || wish.not_before > now
        });
        heard.retain(|peer, _| self.peers.get(*peer).is_some());
    }
}
