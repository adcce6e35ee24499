//! The datagram path beside each link: its keys, its proof, its address and its MTU.
//!
//! Joins `rekey` (who offers keys when), `mesh::probe` (heartbeats) and the data plane's `Path`, and decides where a path
//! leads: to the address of the link first, then to wherever the newest authenticated heartbeat came from (NAT, moved
//! hosts). A path begins when its link is up and ends with it; data flows while both sides prove it.

use super::Node;
use super::border::{Level, LinkId};
use super::carriers::{self, Vxlan};
use super::leg::{Arrival, Leg, Post};
use super::quality::Weighed;
use super::rekey::{Fresh, KeyStep, Rekey};
use crate::crypto::seal::Cipher;
use crate::crypto::session::Role;
use crate::mesh::candidates::{Candidates, is_check};
use crate::mesh::cost::News;
use crate::mesh::probe::Probe;
use crate::plane::Event;
use crate::plane::fib::PathId;
use crate::plane::path::{Epoch, Path};
use crate::types::{Instant, Refusal, ShortId};
use crate::wire::datagram::{OUTER_LEN, TAG_LEN};
use crate::wire::message::Message;
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Bytes that sealing adds to a probe's body.
pub(super) const PROBE_OVERHEAD: u16 = 32;
const _: () = assert!(PROBE_OVERHEAD as usize == OUTER_LEN + TAG_LEN);
/// After this long without a proof the log and the status say what to look at.
pub(super) const SLOW_PROOF: Duration = Duration::from_secs(5);

/// A path and the machines that look after it.
pub(super) struct Tended {
    pub path: Arc<Path>,
    pub probe: Probe,
    pub rekey: Rekey,
    /// VXLAN beside it, if the two ends agree on that.
    pub vxlan: Option<Vxlan>,
    cipher: Cipher,
    /// Whether both sides proved it, and since when that is so or not so.
    pub proven: bool,
    pub since: Instant,
    /// The user was told that it does not come up.
    warned: bool,
    /// The last limit that was found; 0: none yet.
    pub settled_mtu: u16,
    /// What the data plane was told of the MTU, and whether it is the limit.
    told_mtu: (u16, bool),
    /// Datagrams that were sealed when that was last looked at: more now, and data flows.
    pub sealed: u64,
    /// Where the peer may be reached besides.
    pub candidates: Candidates,
    pub trouble_at: Instant,
    /// Our address that its datagrams leave from; nothing: the kernel's choice.
    pub local: Option<IpAddr>,
    /// What the mesh is told of its quality.
    pub weighed: Weighed,
}

impl Tended {
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

    /// Tells the data plane what was found out of the MTU. Returns whether the mesh is to know it too.
    pub fn tell_mtu(&mut self) -> bool {
        let (is_news, (mtu, settled)) = (self.leg().tell_mtu(), self.told_mtu);
        is_news && settled && mtu != std::mem::replace(&mut self.settled_mtu, mtu)
    }

    pub fn deadline(&self, now: Instant) -> Instant {
        let keys = self.rekey.deadline();
        if self.rekey.active() == 0 {
            return keys;
        }
        let vxlan = self.vxlan.as_ref().and_then(|vxlan| vxlan.deadline(now));
        let others = vxlan.into_iter().chain(self.candidates.deadline());
        others.fold(keys.min(self.probe.deadline(now)), Instant::min)
    }
}

/// An index that no path of ours uses, and a seed.
pub(super) fn fresh(rng: &mut StdRng, used: &BTreeSet<u32>) -> Fresh {
    let mut index: u32 = rng.random();
    while used.contains(&index) {
        index = rng.random();
    }
    Fresh { index, seed: rng.random() }
}

impl Node {
    /// The link is up: makes its path and begins to exchange keys.
    pub(super) fn open_path(&mut self, id: LinkId) {
        let number = self.published.next_path();
        let Some(connected) = self.links.all.get_mut(&id) else { return };
        let role = connected.link.role();
        let theirs_aes = connected.link.theirs().is_some_and(|intro| intro.aes);
        let cipher = if self.config.aes && theirs_aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 };
        let path = Arc::new(Path::new(PathId(number), ShortId(0)));
        let theirs = connected.link.theirs();
        path.set_sealed(theirs.is_none_or(|theirs| carriers::is_sealed(connected.link.ours(), theirs)));
        let agreed = theirs.and_then(|theirs| Vxlan::agreed(connected.link.ours(), theirs, role, self.now));
        path.set_endpoint(connected.dialable());
        // Who dialled us gets answers from where it dialled to.
        let local = Some(connected.local).filter(|_| role == Role::Listener);
        connected.tended = Some(Tended {
            path,
            probe: Probe::new(role == Role::Dialer, PROBE_OVERHEAD, self.now),
            rekey: Rekey::new(role, connected.link.hash(), self.now),
            vxlan: agreed,
            cipher,
            proven: false,
            since: self.now,
            warned: false,
            settled_mtu: 0,
            told_mtu: (0, false),
            sealed: 0,
            candidates: Candidates::default(),
            trouble_at: self.now,
            local: None,
            weighed: Weighed::default(),
        });
        if let Some(local) = local.filter(|local| self.may_leave_from(*local)) {
            let tended = self.links.all.get_mut(&id).and_then(|connected| connected.tended.as_mut());
            tended.into_iter().for_each(|tended| tended.local = Some(local));
        }
        self.tell_candidates(id);
        self.published.fib_changed = true;
        self.whereabouts.sources_changed = true;
    }

    pub(super) fn used_indexes(&self) -> BTreeSet<u32> {
        let paths = self.links.all.values().filter_map(|connected| connected.tended.as_ref());
        paths
            .flat_map(|tended| tended.path.indexes())
            .chain(self.directs.indexes())
            .chain(self.kept.indexes())
            .collect()
    }

    /// A message about keys.
    pub(super) fn key_message(&mut self, id: LinkId, message: &Message) -> Result<(), Refusal> {
        let used = self.used_indexes();
        let Some(tended) = self.links.all.get_mut(&id).and_then(|connected| connected.tended.as_mut()) else {
            return Ok(());
        };
        let steps = tended.rekey.receive(message, || fresh(&mut self.rng, &used), self.now)?;
        self.key_steps(id, steps);
        Ok(())
    }

    fn key_steps(&mut self, id: LinkId, steps: Vec<KeyStep>) {
        let Some(connected) = self.links.all.get_mut(&id) else { return };
        let Some(tended) = connected.tended.as_mut() else { return };
        for step in steps {
            match step {
                KeyStep::Send(message) => connected.link.send(&message),
                KeyStep::Install { epoch: number, keys, our_index, their_index } => {
                    let cipher = tended.cipher;
                    tended.path.install(Epoch { number, cipher, keys, our_index, their_index });
                    // Before the answer is sent: what comes with it must find the path.
                    self.published.fib_changed = true;
                }
                KeyStep::Activate(epoch) => {
                    tended.path.activate(epoch);
                    tended.sealed = 0;
                    if !tended.proven {
                        tended.probe.hurry(self.now);
                    }
                }
                KeyStep::Retire(epoch) => {
                    tended.path.retire(epoch);
                    self.published.fib_changed = true;
                }
            }
        }
    }

    /// Time passed for a path: keys, heartbeats, proof.
    pub(super) fn tend_path(&mut self, id: LinkId) {
        let used = if self.keys_due(id) { self.used_indexes() } else { BTreeSet::new() };
        let Some(connected) = self.links.all.get_mut(&id).filter(|connected| connected.link.is_up()) else { return };
        let Some(tended) = connected.tended.as_mut() else { return };
        match tended.rekey.handle(tended.path.counter(), || fresh(&mut self.rng, &used), self.now) {
            Ok(steps) => self.key_steps(id, steps),
            Err(refusal) => return connected.link.refuse(refusal),
        }
        self.weigh_path(id);
        self.send_checks(id);
        self.send_probes(id);
        self.judge_path(id);
        self.tend_carrier(id);
    }

    /// Most of the time there are no keys to be made, and no need to know which indexes are in use.
    fn keys_due(&self, id: LinkId) -> bool {
        let tended = self.links.all.get(&id).and_then(|connected| connected.tended.as_ref());
        tended.is_some_and(|tended| tended.rekey.due(tended.path.counter(), self.now))
    }

    pub(super) fn send_probes(&mut self, id: LinkId) {
        let tended = self.links.all.get_mut(&id).and_then(|connected| connected.tended.as_mut());
        let Some(tended) = tended.filter(|tended| tended.rekey.active() != 0) else { return };
        let mut post = Post { whereabouts: &mut self.whereabouts, out: &mut self.out, now: self.now };
        let mut leg = tended.leg();
        leg.saw_data(self.now);
        leg.send_probes(&mut post);
    }

    /// Tells the data plane and the mesh whether data may flow.
    fn judge_path(&mut self, id: LinkId) {
        let Some(connected) = self.links.all.get_mut(&id) else { return };
        let Some(tended) = connected.tended.as_mut() else { return };
        let proven = tended.probe.proven(self.now);
        let limited = tended.tell_mtu();
        let changed = proven != tended.proven;
        let lasted = self.now - tended.since;
        if changed {
            (tended.proven, tended.warned, tended.since) = (proven, false, self.now);
            tended.path.set_ready(proven);
        } else if !proven && !tended.warned && lasted >= SLOW_PROOF {
            tended.warned = true;
        } else {
            if limited {
                self.published.telling.hear(Some(News::Worse));
            }
            return;
        }
        self.tell_path(id, changed, lasted);
        self.refresh_record();
    }

    /// A path came up or went down, or does not come up at all.
    fn tell_path(&mut self, id: LinkId, changed: bool, lasted: Duration) {
        let Some(connected) = self.links.all.get(&id) else { return };
        let (Some(tended), Some(peer), nickname) = (connected.tended.as_ref(), connected.peer, connected.nickname())
        else {
            return;
        };
        let to = tended.path.endpoint();
        let at = to.map_or(String::new(), |to| format!(" at {to}"));
        let (level, line) = match (changed, tended.proven) {
            (true, true) => (Level::Info, format!("path to {peer}({nickname}){at} is up")),
            (true, false) => {
                let seconds = lasted.as_secs();
                (Level::Warn, format!("path to {peer}({nickname}){at} is down after {seconds} s: no heartbeat for 3 s"))
            }
            (false, _) => (Level::Warn, format!("path to {peer}({nickname}): {}", no_proof(to))),
        };
        self.log(level, line);
    }

    /// The data plane has something to tell.
    pub(super) fn told_by_plane(&mut self, event: Event) {
        match event {
            Event::Probe { path, from, local, body, size, at, epoch } => {
                let local = local.filter(|local| self.may_leave_from(*local));
                let came = Arrival { path, epoch, from, local, body: &body, size, at: at.min(self.now) };
                if !self.probed(&came) {
                    self.probed_without_link(&came);
                }
            }
            Event::Relayed { to } => self.relayed(to),
            Event::Beat { from, datagram, size, at } => self.beat(from, datagram, size, at),
            Event::Offload { network, mac, peer } => self.offload_offered(network, mac, peer),
            Event::Moved { network, mac } => self.offload_moved(network, mac),
            Event::Beacon { port, network, body, .. } => self.beacon(port, network, &body),
        }
    }

    /// The data plane opened a probe. False: it is of a path without a link.
    fn probed(&mut self, came: &Arrival<'_>) -> bool {
        let of_path = |tended: &Tended| tended.path.id() == came.path;
        let found = self.links.all.iter_mut().find(|(_, connected)| connected.tended.as_ref().is_some_and(of_path));
        let Some((id, connected)) = found else { return false };
        let (id, nickname, leads) = (*id, connected.nickname(), connected.link.role() == Role::Dialer);
        let (Some(tended), Some(peer)) = (connected.tended.as_mut(), connected.peer) else { return true };
        if is_check(came.body) {
            self.checked(id, came);
            return true;
        }
        let Ok(heard) = tended.probe.handle(came.body, came.size, came.at) else { return true };
        let from = came.from;
        let stays = leads && tended.is_aside(from) || !tended.may_lead_to(from.ip(), &self.config);
        let mut post = Post { whereabouts: &mut self.whereabouts, out: &mut self.out, now: self.now };
        if heard.newest && tended.follow(came, leads, stays, &mut post) {
            let line = format!("path to {peer}({nickname}) moved to {from}");
            self.log_about(from.ip(), line);
        }
        self.weigh_path(id);
        self.send_probes(id);
        if heard.changed {
            self.judge_path(id);
        }
        true
    }

    /// Addresses or routes of this machine changed, and so perhaps what the underlay takes.
    pub(super) fn routes_changed(&mut self) {
        for tended in self.links.all.values_mut().filter_map(|connected| connected.tended.as_mut()) {
            tended.probe.route_changed(self.now);
            // From a new address the other side hears of it.
            tended.probe.hurry(self.now);
            tended.candidates.trouble(self.now);
            tended.vxlan.iter_mut().for_each(|vxlan| vxlan.route_changed(self.now));
        }
    }
}

/// What to look at when heartbeats do not come through.
pub(super) fn no_proof(endpoint: Option<SocketAddr>) -> String {
    match endpoint {
        Some(to) => format!("no heartbeat over UDP with {to}: is that port open for UDP on both hosts?"),
        None => "no heartbeat over UDP".to_string(),
    }
}
