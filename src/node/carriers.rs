//! What carries the frames of each path to its neighbour: the agreement on VXLAN, its probes, and the choice.
//!
//! Both ends come to the same verdict from what they said of themselves when they linked, and it stays for the path's life: VXLAN
//! is agreed if the path is not encrypted and both have a port for it; a path is not encrypted if there is no password, or if
//! each trusts the address that the other has. Then `mesh::probe` proves VXLAN as it proves the path itself, through the engine
//! that carries the frames, and `mesh::choice` decides. The probes are sealed with the path's keys, and go where the path goes.

use super::border::{LinkId, Output};
use super::kept::Kept;
use super::paths::Tended;
use super::{Node, NodeConfig};
use crate::crypto::session::Role;
use crate::mesh::choice::{Choice, Health};
use crate::mesh::probe::Probe;
use crate::plane::fib::Fib;
use crate::plane::vxlan::{Carrier, End};
use crate::types::{Engine, Framing, Instant, Network, VNI_OF_PEERS};
use crate::wire::datagram::{Kind, OUTER_LEN, Outer, TAG_LEN};
use crate::wire::frame::HEADER_LEN;
use crate::wire::message::Intro;
use crate::wire::vxlan::VXLAN_LEN;
use std::net::{IpAddr, SocketAddr};

/// Bytes of UDP payload that a probe's body needs besides itself: VXLAN, Ethernet, and what sealing adds.
const OVERHEAD: u16 = 54;
const _: () = assert!(OVERHEAD as usize == VXLAN_LEN + HEADER_LEN + OUTER_LEN + TAG_LEN);
/// Bytes of UDP payload that a packet needs besides itself.
const HEADERS: u16 = 22;
const _: () = assert!(HEADERS as usize == VXLAN_LEN + HEADER_LEN && VNI_OF_PEERS < 1 << 24);

/// VXLAN with a neighbour.
#[derive(Debug)]
pub(super) struct Vxlan {
    /// The neighbour's UDP port.
    port: u16,
    probe: Probe,
    pub choice: Choice,
    /// By what the probe is at work: this machine's engine.
    open: Option<Engine>,
    /// Frames that were sent by VXLAN when that was last looked at, to whomever.
    sent: u64,
}

impl Vxlan {
    /// Nothing, if the two ends do not agree.
    pub fn agreed(ours: &Intro, theirs: &Intro, role: Role, now: Instant) -> Option<Vxlan> {
        let agreed = !is_sealed(ours, theirs) && ours.vxlan != 0 && theirs.vxlan != 0;
        let probe = Probe::of_vxlan(role == Role::Dialer, OVERHEAD, now);
        agreed.then(|| Vxlan { port: theirs.vxlan, probe, choice: Choice::new(now), open: None, sent: 0 })
    }

    /// The other end's address changed.
    pub fn moved(&mut self, now: Instant) {
        self.probe.moved(now);
    }

    pub fn route_changed(&mut self, now: Instant) {
        self.probe.route_changed(now);
    }

    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let probe = self.open.map(|_| self.probe.deadline(now));
        probe.into_iter().chain(self.choice.deadline()).min()
    }
}

/// Whether the path between two ends that introduced themselves so is encrypted. The same on both ends.
pub(super) fn is_sealed(ours: &Intro, theirs: &Intro) -> bool {
    (ours.password || theirs.password) && !(ours.trusts && theirs.trusts)
}

impl Tended {
    /// Where the neighbour takes VXLAN, if that is agreed.
    pub fn vxlan_address(&self) -> Option<SocketAddr> {
        let port = self.vxlan.as_ref()?.port;
        Some(SocketAddr::new(self.path.endpoint()?.ip(), port))
    }

    /// Since when that is so.
    pub fn framing_since(&self) -> Instant {
        self.vxlan.as_ref().map_or(self.since, |vxlan| vxlan.choice.since().max(self.since))
    }

    /// What carries frames to the neighbour itself.
    pub fn framing(&self) -> Framing {
        match self.path.carrier() {
            Carrier::Udp => Framing::Udp,
            Carrier::Vxlan(_) => Framing::Vxlan,
            Carrier::Kernel => Framing::Kernel,
        }
    }
}

impl NodeConfig {
    /// Whether the other end needs no encryption, for all that this side can tell.
    pub(super) fn trusts(&self, remote: IpAddr) -> bool {
        self.trusted_subnets.iter().any(|subnet| subnet.contains(&remote.to_canonical()))
    }
}

impl Node {
    /// Why the path of a link is not carried by something better; nothing if it is, or if nothing better is wanted.
    pub(super) fn why_not_better(&self, tended: &Tended, intros: Option<(&Intro, &Intro)>) -> String {
        let (Some(port), best) = (self.framings.port(), self.framings.best()) else { return String::new() };
        if let Some(vxlan) = &tended.vxlan {
            let no_kernel = || self.framings.why_no_kernel().map(|why| format!("{}: {why}", Framing::Kernel));
            return vxlan.choice.why_not(best, port, self.now).or_else(no_kernel).unwrap_or_default();
        }
        let why = match intros {
            Some((ours, theirs)) if is_sealed(ours, theirs) => match (ours.trusts, theirs.trusts) {
                (true, false) => "encrypted: the peer does not name this host's address in its --trusted-subnets",
                (false, true) => "encrypted: --trusted-subnets does not name the peer's address",
                _ => "encrypted",
            },
            Some((_, theirs)) if theirs.vxlan == 0 => "the peer has --framing udp",
            _ => "it is not agreed",
        };
        format!("{best}: {why}")
    }

    /// Writes whose VXLAN is taken. Of two neighbours at one address the one that is proven counts, for only one can be.
    pub(super) fn fill_vxlan_sources(&self, fib: &mut Fib) {
        for tended in self.links.neighbours().filter_map(|(_, connected)| connected.tended.as_ref()) {
            let (Some(address), Some(vxlan)) = (tended.vxlan_address(), &tended.vxlan) else { continue };
            let ip = address.ip().to_canonical();
            if vxlan.probe.proven(self.now) || !fib.vxlan_sources.contains_key(&ip) {
                fib.vxlan_sources.insert(ip, tended.path.clone());
            }
        }
        // The other end learns later that the link broke.
        for Kept { tended, .. } in self.kept.0.values() {
            if let Some(address) = tended.vxlan_address() {
                fib.vxlan_sources.entry(address.ip().to_canonical()).or_insert_with(|| tended.path.clone());
            }
        }
    }

    /// A probe came by VXLAN, not opened yet.
    pub(super) fn beat(&mut self, from: SocketAddr, mut datagram: Vec<u8>, size: u16, at: Instant) {
        let Ok(outer) = Outer::parse(&datagram) else { return };
        let Some(path) = self.plane.fib().by_index.get(&outer.index).cloned() else { return };
        let of_path = |tended: &Tended| tended.path.id() == path.id();
        let found = self.links.all.iter_mut().find(|(_, connected)| connected.tended.as_ref().is_some_and(of_path));
        let Some((id, tended)) = found.and_then(|(id, connected)| Some((*id, connected.tended.as_mut()?))) else {
            return;
        };
        let ip = |address: SocketAddr| address.ip().to_canonical();
        // Frames from elsewhere would not be taken, so probes from there prove nothing.
        let expected = tended.path.endpoint().is_some_and(|to| ip(to) == ip(from)) && outer.kind == Kind::Probe;
        let Some(vxlan) = tended.vxlan.as_mut().filter(|vxlan| vxlan.open.is_some() && expected) else { return };
        let Ok(body) = path.open(from, &outer, &mut datagram) else { return };
        let Ok(heard) = vxlan.probe.handle(body, size, at.min(self.now)) else { return };
        self.send_beats(id);
        if heard.changed {
            self.published.fib_changed = true;
            self.judge_carrier(id);
        }
    }

    /// Time passed for VXLAN with a neighbour.
    pub(super) fn tend_carrier(&mut self, id: LinkId) {
        self.send_beats(id);
        self.judge_carrier(id);
    }

    fn send_beats(&mut self, id: LinkId) {
        let Some(connected) = self.links.all.get_mut(&id) else { return };
        let (Some(tended), Some(peer)) = (connected.tended.as_mut(), connected.peer) else { return };
        let Some(to) = tended.vxlan_address().filter(|_| tended.rekey.active() != 0) else { return };
        let Some(vxlan) = tended.vxlan.as_mut().filter(|vxlan| vxlan.open.is_some()) else { return };
        let sent = match tended.path.carrier() {
            Carrier::Vxlan(_) => self.plane.counters().to_vxlan.frames,
            // Nobody counts these here: while MACs are installed, frames may flow.
            Carrier::Kernel => vxlan.sent + u64::from(self.framings.carries_to(peer)),
            Carrier::Udp => vxlan.sent,
        };
        if sent != std::mem::replace(&mut vxlan.sent, sent) {
            vxlan.probe.data_flows(self.now);
            // What it loses, the path loses, and VXLAN has no trials of its own.
            tended.probe.data_flows(self.now);
        }
        while let Some(body) = vxlan.probe.poll(self.now) {
            let mut bytes = Vec::new();
            if tended.path.seal_probe(&body, &mut bytes) {
                tended.sealed += 1;
                self.out.push_back(Output::Beat { peer, to, body: bytes });
            }
        }
    }

    /// Bytes of UDP payload that the widest packet of a network here takes.
    fn needs(&self) -> u16 {
        let mtu = self.width.in_use();
        let networks = self.attachments.open_networks();
        let widest = networks.iter().map(|(_, network): &(_, Network)| network.usable_mtu(mtu)).max();
        widest.unwrap_or(mtu).saturating_add(HEADERS)
    }

    /// The engine, or what has to fit, changed.
    pub(super) fn judge_carriers(&mut self) {
        let ids: Vec<LinkId> = self.links.all.keys().copied().collect();
        for id in ids {
            self.tend_carrier(id);
        }
    }

    /// Decides by what frames go, and tells the data plane.
    fn judge_carrier(&mut self, id: LinkId) {
        let (engine, needs) = (self.framings.engine(), self.needs());
        let (door, now) = (self.framings.port().unwrap_or_default(), self.now);
        let Some(connected) = self.links.all.get_mut(&id) else { return };
        let (Some(tended), Some(peer)) = (connected.tended.as_mut(), connected.peer) else { return };
        let address = tended.vxlan_address();
        let Some(vxlan) = tended.vxlan.as_mut() else { return };
        if vxlan.open != engine {
            vxlan.open = engine;
            // A kernel's device would drop them.
            vxlan.probe.take_unfinished(engine == Some(Engine::Userspace), now);
        }
        // The kernel knows no detours.
        let direct = self.published.routes.next_hop(peer).is_none_or(|via| via == peer);
        let takes = vxlan.probe.mtu();
        let health = match engine {
            None => Health::Absent,
            Some(_) if !vxlan.probe.proven(now) => Health::Silent(vxlan.probe.silent_for(now)),
            Some(_) if takes < needs => Health::Narrow { takes, needs },
            Some(_) => Health::Good,
        };
        let changed = vxlan.choice.judge(health, now);
        let (room, unfinished) = (usize::from(takes).saturating_sub(VXLAN_LEN), vxlan.probe.they_take_unfinished());
        let end = |to| End { door, to, room, unfinished };
        let carrier = match (engine, address) {
            (Some(Engine::Userspace), Some(to)) if vxlan.choice.is_better() => Carrier::Vxlan(end(to)),
            (Some(Engine::Kernel), Some(_)) if vxlan.choice.is_better() && direct => Carrier::Kernel,
            _ => Carrier::Udp,
        };
        let before = tended.path.carrier();
        if before != carrier {
            tended.path.set_carrier(carrier);
            if before == Carrier::Kernel {
                self.take_back_of(peer);
            }
        }
        if changed {
            self.tell_choice(id);
        }
    }

    /// One line for people: another framing carries the traffic of a path.
    fn tell_choice(&mut self, id: LinkId) {
        let Some(connected) = self.links.all.get(&id) else { return };
        let (Some(tended), Some(peer)) = (connected.tended.as_ref(), connected.peer) else { return };
        let framing = tended.framing();
        let why = match framing {
            Framing::Udp => self.why_not_better(tended, None),
            _ => String::new(),
        };
        let line = format!("path to {peer}({}) goes by {framing}", connected.nickname());
        match why.is_empty() {
            true => self.log(super::border::Level::Info, line),
            false => self.log(super::border::Level::Warn, format!("{line}: {why}")),
        }
    }
}
