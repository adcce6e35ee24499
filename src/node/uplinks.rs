//! Uplinks: interfaces of this host that rnet did not make, captured for a network, each one more port of it.
//!
//! Owns which are captured, the checks, the changes that it takes, and what follows when a segment is found to be reached twice
//! (`mesh::loops`); `jobs` carries the changes out, `plane` moves the frames. A network with an uplink is open here even if
//! nothing is attached, so that floods of the mesh come.
//!
//! ```text
//! bridge    > OpenNetwork (unless it is open) > OpenUplink   done: a port of the snapshot that carries nothing
//!             Up > it listens, then carries   Away > it carries nothing      as often as the interface comes and goes
//! unbridge  > CloseUplink                     begins: no port any more       > CloseNetwork (unless others use it)
//! ```
//!
//! What `rnet bridge` captured comes back at every start, whether the interface is there or not; what `launch` was told to
//! capture is its own affair. Bound: `MAX_UPLINKS`.

use super::Node;
use super::attach::{Attachments, Plan};
use super::border::{HostOp, Level, Output, RequestId, UplinkState};
use super::command::{Reply, Uplink, UplinkCapture};
use super::jobs::nobody;
use super::requests::nothing_of;
use super::status::{Count, UplinkCondition, UplinkStatus};
use crate::mesh::loops::{Speaker, State, is_vtep, port_of};
use crate::plane::counters;
use crate::plane::fib::{Fib, PortId};
use crate::plane::uplink::Uplink as Port;
use crate::types::{Instant, InterfaceName, NetId, PeerName, Uid};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Captured interfaces at a time.
pub const MAX_UPLINKS: usize = 64;

/// When what could not be captured is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// An interface that is captured, or about to be.
#[derive(Debug)]
struct Captured {
    uplink: Uplink,
    port: Arc<Port>,
    open: bool,
    /// Its MTU, or why it is away.
    state: UplinkState,
}

/// One that is to be captured when that becomes possible.
#[derive(Debug)]
struct Wanted {
    uplink: Uplink,
    /// Why it is not.
    why: String,
    again: Instant,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Uplinks {
    by_port: BTreeMap<PortId, Captured>,
    wanted: BTreeMap<InterfaceName, Wanted>,
}

impl Uplinks {
    pub fn is_empty(&self) -> bool {
        self.by_port.is_empty() && self.wanted.is_empty()
    }

    /// Whether this one is to be captured when that becomes possible.
    pub fn is_wanted(&self, uplink: &Uplink) -> bool {
        self.wanted.get(&uplink.interface).is_some_and(|wanted| wanted.uplink == *uplink)
    }

    /// All that are or should be.
    fn list(&self) -> impl Iterator<Item = &Uplink> {
        self.by_port.values().map(|captured| &captured.uplink).chain(self.wanted.values().map(|wanted| &wanted.uplink))
    }

    /// Whether one that is none of these leads to this network.
    pub fn are_on(&self, id: NetId, gone: &[PortId]) -> bool {
        self.by_port.values().any(|captured| captured.port.network == id && !gone.contains(&captured.port.port))
    }

    /// Those that lead to a network.
    pub fn on(&self, id: NetId) -> Vec<InterfaceName> {
        let on = self.by_port.values().filter(|captured| captured.port.network == id);
        on.map(|captured| captured.uplink.interface.clone()).collect()
    }

    /// The interface that a port is.
    pub fn name(&self, port: PortId) -> Option<InterfaceName> {
        self.by_port.get(&port).map(|captured| captured.uplink.interface.clone())
    }

    /// Writes ports into a Fib that has its networks already.
    pub fn fill(&self, fib: &mut Fib) {
        for Captured { port, .. } in self.by_port.values().filter(|captured| captured.open) {
            if let Some(entry) = fib.networks.get_mut(&port.network) {
                entry.uplinks.push(port.clone());
                fib.ports.insert(port.port, port.network);
            }
        }
    }

    pub fn begin(&mut self, op: &HostOp) {
        match op {
            HostOp::OpenUplink { port, id, uplink, .. } => {
                let bare = uplink.capture == UplinkCapture::Pcap;
                let (held, state) = (Arc::new(Port::new(*port, *id, bare)), UplinkState::Away(String::new()));
                let captured = Captured { uplink: uplink.clone(), port: held, open: false, state };
                self.by_port.insert(*port, captured);
            }
            HostOp::CloseUplink { port, .. } => {
                self.by_port.remove(port);
            }
            _ => {}
        }
    }

    pub fn succeeded(&mut self, op: &HostOp) {
        if let HostOp::OpenUplink { port, .. } = op
            && let Some(captured) = self.by_port.get_mut(port)
        {
            captured.open = true;
        }
    }

    pub fn failed(&mut self, op: &HostOp) {
        if let HostOp::OpenUplink { port, .. } = op {
            self.by_port.remove(port);
        }
    }

    /// Gives all up.
    pub fn clear(&self) -> impl Iterator<Item = HostOp> + '_ {
        self.by_port.iter().map(|(port, captured)| HostOp::CloseUplink { port: *port, uplink: captured.uplink.clone() })
    }

    /// None is to come back.
    pub fn forget_wanted(&mut self) {
        self.wanted.clear();
    }
}

impl Attachments {
    /// Whether a network is used by more than `leaving` interfaces, or by a port that is none of `gone`.
    pub fn is_used(&self, id: NetId, leaving: usize, gone: &[PortId]) -> bool {
        self.users(id) > leaving || self.vteps.are_on(id, gone) || self.uplinks.are_on(id, gone)
    }

    /// Closes a network that nothing uses once these ports of it are gone.
    pub fn close_without(&self, id: NetId, gone: &[PortId]) -> Option<HostOp> {
        if self.is_used(id, 0, gone) { None } else { self.close(id) }
    }
}

impl Node {
    /// What was captured in the last run, and what is to be captured in this one.
    pub(super) fn restore_uplinks(&mut self, stored: Vec<Uplink>) {
        let given = self.config.uplinks.clone();
        let is_given = |uplink: &Uplink| given.iter().any(|given| given.interface == uplink.interface);
        let stored = stored.into_iter().filter(|uplink| !is_given(uplink));
        let all: Vec<Uplink> = given.iter().cloned().chain(stored).take(MAX_UPLINKS).collect();
        for uplink in all {
            let wanted = Wanted { uplink: uplink.clone(), why: String::new(), again: self.now + AGAIN };
            self.attachments.uplinks.wanted.insert(uplink.interface.clone(), wanted);
            self.jobs.bridge_later(uplink);
        }
    }

    /// Tries again what could not be captured.
    pub(super) fn retry_uplinks(&mut self) {
        if self.stopping || self.leaving {
            return;
        }
        for wanted in self.attachments.uplinks.wanted.values_mut().filter(|wanted| wanted.again <= self.now) {
            wanted.again = self.now + AGAIN;
            self.jobs.bridge_later(wanted.uplink.clone());
        }
    }

    /// What must survive a restart.
    pub(super) fn uplinks_to_keep(&self) -> Vec<Uplink> {
        let mut all: Vec<Uplink> = self.attachments.uplinks.list().cloned().collect();
        all.retain(|uplink| !self.config.uplinks.contains(uplink));
        all.sort();
        all.dedup();
        all
    }

    /// Plans to capture an interface; it `must` be there where somebody waits for it. `Err`: why not, without what.
    pub(super) fn plan_bridge(&mut self, uplink: &Uplink, must: bool) -> Result<Plan, String> {
        let done = Plan { who: nobody(), steps: Vec::new() };
        for Captured { uplink: other, .. } in self.attachments.uplinks.by_port.values() {
            if other == uplink {
                return Ok(done);
            }
            if other.interface == uplink.interface {
                let (interface, network, by) = (&other.interface, other.network, other.capture.name());
                return Err(format!(
                    "it is captured for {network} by {by} already: `rnet bridge del {interface}` first"
                ));
            }
        }
        if self.attachments.uplinks.by_port.len() >= MAX_UPLINKS {
            return Err(format!("there are {MAX_UPLINKS} captured interfaces already: give some up first"));
        }
        let (network, id) = (uplink.network, self.id_of(uplink.network));
        self.check_network(network, id)?;
        let mut steps = self.plan_networks([(id, network)].into());
        let port = self.attachments.next_port();
        steps.push(HostOp::OpenUplink { port, id, uplink: uplink.clone(), mesh: self.config.port, must });
        Ok(Plan { steps, ..done })
    }

    /// Plans to give an interface up, and what is answered; it is no error if it is not captured.
    pub(super) fn plan_unbridge(&mut self, interface: &InterfaceName) -> (Plan, Reply) {
        let all: BTreeSet<&InterfaceName> = self.attachments.uplinks.list().map(|uplink| &uplink.interface).collect();
        let reply = if all.contains(interface) {
            Reply::Done
        } else {
            let names: Vec<String> = all.into_iter().map(InterfaceName::to_string).collect();
            nothing_of(&format!("bridge del {interface}"), "captured", &names)
        };
        self.attachments.uplinks.wanted.remove(interface);
        self.unsaved = true;
        let uplinks = &self.attachments.uplinks;
        let meant = uplinks.by_port.iter().find(|(_, captured)| captured.uplink.interface == *interface);
        let Some((port, captured)) = meant else { return (Plan { who: nobody(), steps: Vec::new() }, reply) };
        let mut steps = vec![HostOp::CloseUplink { port: *port, uplink: captured.uplink.clone() }];
        steps.extend(self.attachments.close_without(captured.port.network, &[*port]));
        (Plan { who: nobody(), steps }, reply)
    }

    /// An interface was captured, or could not be.
    pub(super) fn bridged(&mut self, request: Option<RequestId>, uplink: &Uplink, failure: Option<String>) {
        let interface = &uplink.interface;
        match (failure, request) {
            (Some(why), Some(request)) => self.refuse_request(request, format!("bridge add {interface}: {why}")),
            (Some(why), None) => {
                let Some(wanted) = self.attachments.uplinks.wanted.get_mut(interface) else { return };
                if wanted.why != why {
                    wanted.why.clone_from(&why);
                    self.log(Level::Warn, format!("{interface} does not lead to {}: {why}", uplink.network));
                }
            }
            (None, request) => {
                self.attachments.uplinks.wanted.remove(interface);
                self.unsaved = true;
                if let Some(request) = request {
                    self.reply_when_stored(request, Reply::Done);
                }
            }
        }
    }

    /// A captured interface came, went, or has another MTU.
    pub(super) fn uplink_is(&mut self, port: PortId, state: &UplinkState) {
        let Some(captured) = self.attachments.uplinks.by_port.get_mut(&port) else { return };
        let before = std::mem::replace(&mut captured.state, state.clone());
        let interface = captured.uplink.interface.clone();
        match state {
            UplinkState::Up(mtu) => {
                captured.port.set_mtu(*mtu);
                if !matches!(before, UplinkState::Up(_)) {
                    self.loops.open(port.0, captured.port.network, self.now);
                    self.log(Level::Info, format!("{interface} is captured"));
                }
            }
            UplinkState::Away(why) => {
                captured.port.set_carries(false);
                self.loops.close(port.0);
                self.plane.forget_port(port);
                if before != *state {
                    self.log(Level::Warn, format!("{interface} carries nothing: {why}"));
                }
            }
        }
    }

    /// A beacon was heard, on a captured port or elsewhere.
    pub(super) fn beacon(&mut self, port: Option<PortId>, network: NetId, body: &[u8]) {
        let at = match port_of(body) {
            Some(number) if is_vtep(number) => Some(number),
            _ => port.filter(|port| self.attachments.uplinks.by_port.contains_key(port)).map(|port| port.0),
        };
        let (peers, routes) = (&self.peers, &self.published.routes);
        let is_member = |peer: PeerName, run: Uid| {
            routes.next_hop(peer).is_some() && peers.get(peer).is_some_and(|record| record.uid == run)
        };
        self.loops.heard((at, network), body, self.now, is_member);
    }

    /// Sends beacons that are due, and cuts and joins ports whose segments are reached otherwise than before.
    pub(super) fn tend_loops(&mut self) {
        for (port, frame) in self.loops.due(self.now) {
            let (frame, at) = (frame.to_vec(), PortId(port));
            match self.attachments.vteps.network_of(port) {
                Some(network) => self.out.push_back(Output::Announce { network, frame }),
                None => self.out.push_back(Output::Deliver { port: at, frame }),
            }
        }
        for (port, state) in self.loops.changes(self.now) {
            if is_vtep(port) {
                self.vtep_carries(port, state);
                continue;
            }
            let Some(captured) = self.attachments.uplinks.by_port.get(&PortId(port)) else { continue };
            let was_blocked = !captured.port.carries() && captured.port.from_uplink().frames > 0;
            captured.port.set_carries(state == State::Carrying);
            let (interface, network) = (captured.uplink.interface.clone(), captured.port.network);
            match state {
                State::Blocked(other) => {
                    // Much of what was learned came around the loop.
                    self.plane.forget_network(network);
                    let other = self.describe(other);
                    self.log(Level::Warn, format!("{interface} is cut off: a loop: {other} keeps this segment"));
                }
                State::Carrying if was_blocked => {
                    self.plane.forget_network(network);
                    self.log(Level::Info, format!("{interface} carries frames again"));
                }
                State::Carrying => self.log(Level::Info, format!("{interface} carries frames")),
                State::Listening => {}
            }
        }
    }

    /// Another port that reaches a segment, for people.
    fn describe(&self, other: Option<Speaker>) -> String {
        match other {
            None => "an attachment, a VTEP or a peer that is connected to it".to_string(),
            Some(Speaker { peer, port }) if peer == self.me => match self.attachments.uplinks.name(PortId(port)) {
                Some(interface) => format!("{interface} of this host"),
                None => "another interface of this host".to_string(),
            },
            Some(Speaker { peer, port }) => format!("port {port} of {}", self.named(peer)),
        }
    }

    pub(super) fn uplink_status(&self) -> Vec<UplinkStatus> {
        let uplinks = &self.attachments.uplinks;
        let captured = uplinks.by_port.values().map(|captured| self.status_of(captured));
        let is_captured =
            |wanted: &Wanted| uplinks.by_port.values().any(|c| c.uplink.interface == wanted.uplink.interface);
        let wanted = uplinks.wanted.values().filter(|wanted| !is_captured(wanted));
        let mut all: Vec<UplinkStatus> = captured
            .chain(wanted.map(|Wanted { uplink, why, .. }| UplinkStatus { info: why.clone(), ..blank(uplink) }))
            .collect();
        all.sort_by(|one, other| one.interface.cmp(&other.interface));
        all
    }

    fn status_of(&self, Captured { uplink, port, state, .. }: &Captured) -> UplinkStatus {
        let count = |count: counters::Count| Count { frames: count.frames, bytes: count.bytes };
        let id = port.port.0;
        let told = UplinkStatus {
            port: id,
            from_uplink: count(port.from_uplink()),
            to_uplink: count(port.to_uplink()),
            ..blank(uplink)
        };
        let mtu = match state {
            UplinkState::Up(mtu) => *mtu,
            UplinkState::Away(why) => return UplinkStatus { info: why.clone(), ..told },
        };
        let (condition, info) = match self.loops.state(id, self.now) {
            Some(State::Blocked(other)) => {
                (UplinkCondition::Blocked, format!("a loop: {} keeps this segment", self.describe(other)))
            }
            Some(State::Carrying) => {
                let other = self.loops.other(id, self.now).map(|other| self.describe(Some(other)));
                let info = other.map(|other| format!("a loop: {other} reaches this segment too and is cut off"));
                (UplinkCondition::Carrying, info.unwrap_or_default())
            }
            _ => (UplinkCondition::Listening, String::new()),
        };
        UplinkStatus { condition, mtu, info, ..told }
    }
}

/// Of an interface of which nothing is known.
fn blank(uplink: &Uplink) -> UplinkStatus {
    UplinkStatus {
        interface: uplink.interface.clone(),
        network: uplink.network,
        capture: uplink.capture.name().to_string(),
        port: 0,
        condition: UplinkCondition::Away,
        mtu: 0,
        from_uplink: Count::default(),
        to_uplink: Count::default(),
        info: String::new(),
    }
}
