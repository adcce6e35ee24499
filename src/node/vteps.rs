//! VTEPs: tunnel ends that are not rnet (RFC 7348), each one more port of a network on this host.
//!
//! Owns which are joined, the checks, and the changes that joining and parting take; `jobs` carries these out, `plane` moves the
//! frames. A network with a VTEP is open here even if nothing is attached, so that floods of the mesh come.
//!
//! ```text
//! join  > OpenNetwork (unless it is open) > OpenTunnel   done: a port of the snapshot
//! part  > CloseTunnel                                    begins: no port any more    > CloseNetwork (unless others use it)
//! ```
//!
//! Of the hosts that join one VTEP for one network all but one carry none of its frames, or everything would come twice and go
//! back to where it came from (`mesh::loops`): the others stand by. A VTEP that was just joined carries at once, without listening
//! first: a VTEP does not send on what another one said, so what comes twice for a moment does not go round, and whoever has moved
//! here with a restart is heard of.
//!
//! What was joined comes back at every start, as attachments do: `launch` has no words for it, so nothing else could be meant.
//! What cannot be joined then (its UDP port is taken) stays wanted and is tried again. Bound: `MAX_VTEPS`.

use super::Node;
use super::attach::Plan;
use super::border::{HostOp, Level, RequestId};
use super::command::{Reply, Vtep};
use super::jobs::{Job, nobody};
use super::requests::nothing_of;
use super::status::{Count, VtepStatus};
use crate::mesh::loops::{self, Speaker, State};
use crate::plane::counters;
use crate::plane::fib::{Fib, PortId};
use crate::plane::tunnel::{Ends, Tunnel};
use crate::types::{Instant, NetId, Network, VtepAddress};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// VTEPs at a time, one on two networks counted twice.
pub const MAX_VTEPS: usize = 256;

/// When what could not be joined is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// A VTEP that is joined, or being joined.
#[derive(Debug)]
struct Joined {
    vtep: Vtep,
    tunnel: Arc<Tunnel>,
    open: bool,
}

/// One that is to be joined when that becomes possible.
#[derive(Debug)]
struct Wanted {
    vtep: Vtep,
    /// Why it is not.
    why: String,
    again: Instant,
}

impl Vtep {
    /// Its number in beacons.
    pub(super) fn number(&self) -> u32 {
        loops::number(self.address.socket(), self.vni)
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Vteps {
    by_port: BTreeMap<PortId, Joined>,
    wanted: BTreeMap<(VtepAddress, Network), Wanted>,
}

impl Vteps {
    pub fn is_empty(&self) -> bool {
        self.by_port.is_empty() && self.wanted.is_empty()
    }

    /// What must survive a restart.
    pub fn list(&self) -> Vec<Vtep> {
        let all = self.by_port.values().map(|joined| joined.vtep).chain(self.wanted.values().map(|wanted| wanted.vtep));
        all.collect::<BTreeSet<Vtep>>().into_iter().collect()
    }

    /// Whether this one is to be joined when that becomes possible.
    pub fn is_wanted(&self, vtep: &Vtep) -> bool {
        self.wanted.get(&(vtep.address, vtep.network)).is_some_and(|wanted| wanted.vtep == *vtep)
    }

    /// Whether one is joined to this network that is none of these.
    pub fn are_on(&self, id: NetId, gone: &[PortId]) -> bool {
        let mut on = self.by_port.iter().filter(|(_, joined)| joined.tunnel.ends.network == id);
        on.any(|(port, _)| !gone.contains(port))
    }

    /// The ports of a network that are VTEPs.
    pub fn ports(&self, id: NetId) -> impl Iterator<Item = PortId> + '_ {
        self.open().filter(move |joined| joined.tunnel.ends.network == id).map(|joined| joined.tunnel.ends.port)
    }

    /// The VTEP that a port is.
    pub fn address(&self, port: PortId) -> Option<VtepAddress> {
        self.by_port.get(&port).map(|joined| joined.vtep.address)
    }

    /// The one of this number in beacons.
    fn numbered(&self, number: u32) -> Option<&Joined> {
        self.open().find(|joined| joined.vtep.number() == number)
    }

    /// The network of the one that has this number in beacons.
    pub fn network_of(&self, number: u32) -> Option<NetId> {
        self.numbered(number).map(|joined| joined.tunnel.ends.network)
    }

    /// The VTEPs of a network.
    pub fn on(&self, id: NetId) -> Vec<VtepAddress> {
        let on = self.by_port.values().filter(|joined| joined.tunnel.ends.network == id);
        on.map(|joined| joined.vtep.address).collect()
    }

    fn open(&self) -> impl Iterator<Item = &Joined> {
        self.by_port.values().filter(|joined| joined.open)
    }

    /// Writes ports into a Fib that has its networks already.
    pub fn fill(&self, fib: &mut Fib) {
        for Joined { tunnel, .. } in self.open() {
            if let Some(entry) = fib.networks.get_mut(&tunnel.ends.network) {
                entry.tunnels.push(tunnel.clone());
                fib.tunnels.insert(tunnel.clone());
            }
        }
    }

    pub fn begin(&mut self, op: &HostOp) {
        match op {
            HostOp::OpenTunnel { port, id, vtep } => {
                let (to, door) = (vtep.address.socket(), vtep.local_port);
                let ends = Ends { port: *port, network: *id, vni: vtep.vni, to, door };
                let joined = Joined { vtep: *vtep, tunnel: Arc::new(Tunnel::new(ends)), open: false };
                self.by_port.insert(*port, joined);
            }
            HostOp::CloseTunnel { port, .. } => {
                self.by_port.remove(port);
            }
            _ => {}
        }
    }

    pub fn succeeded(&mut self, op: &HostOp) {
        if let HostOp::OpenTunnel { port, .. } = op
            && let Some(joined) = self.by_port.get_mut(port)
        {
            joined.open = true;
        }
    }

    pub fn failed(&mut self, op: &HostOp) {
        if let HostOp::OpenTunnel { port, .. } = op {
            self.by_port.remove(port);
        }
    }

    /// Closes all.
    pub fn clear(&self) -> impl Iterator<Item = HostOp> + '_ {
        self.by_port.iter().map(|(port, joined)| HostOp::CloseTunnel { port: *port, vtep: joined.vtep })
    }

    /// None is to come back.
    pub fn forget_wanted(&mut self) {
        self.wanted.clear();
    }

    pub fn status(&self, now: Instant) -> Vec<VtepStatus> {
        let count = |count: counters::Count| Count { frames: count.frames, bytes: count.bytes };
        let status = |vtep: &Vtep| VtepStatus {
            address: vtep.address,
            network: vtep.network,
            vni: vtep.vni,
            local_port: vtep.local_port,
            mtu: 0,
            from_vtep: Count::default(),
            to_vtep: Count::default(),
            last_heard: None,
            blocked: false,
            shared: String::new(),
            info: String::new(),
        };
        let joined = self.by_port.values().map(|Joined { vtep, tunnel, .. }| VtepStatus {
            mtu: u16::try_from(tunnel.mtu()).unwrap_or(u16::MAX),
            from_vtep: count(tunnel.from_vtep()),
            to_vtep: count(tunnel.to_vtep()),
            last_heard: tunnel.silent_for(now).map(|silent| silent.as_secs()),
            ..status(vtep)
        });
        let is_joined = |vtep: &Vtep| self.by_port.values().any(|joined| joined.vtep == *vtep);
        let wanted = self.wanted.values().filter(|wanted| !is_joined(&wanted.vtep));
        let mut all: Vec<VtepStatus> = joined
            .chain(wanted.map(|wanted| VtepStatus { info: wanted.why.clone(), ..status(&wanted.vtep) }))
            .collect();
        all.sort_by_key(|status| (status.address, status.network));
        all
    }
}

impl Node {
    /// What the router tells of its VTEPs.
    pub(super) fn vtep_status(&self) -> Vec<VtepStatus> {
        let mut all = self.attachments.vteps.status(self.now);
        for status in &mut all {
            let number = loops::number(status.address.socket(), status.vni);
            let other = match self.loops.state(number, self.now) {
                Some(State::Blocked(other)) => {
                    status.blocked = true;
                    other
                }
                _ => self.loops.other(number, self.now),
            };
            let does = if status.blocked { "carries it" } else { "has joined it too and stands by" };
            let told = |Speaker { peer, .. }| format!("a loop if both did: {} {does}", self.named(peer));
            status.shared = other.map(told).unwrap_or_default();
        }
        all
    }

    /// A VTEP may carry frames, or another host does.
    pub(super) fn vtep_carries(&mut self, number: u32, state: State) {
        let Some(joined) = self.attachments.vteps.numbered(number) else { return };
        let (address, network, id) = (joined.vtep.address, joined.vtep.network, joined.tunnel.ends.network);
        let carries = !matches!(state, State::Blocked(_));
        if joined.tunnel.carries() == carries {
            return;
        }
        joined.tunnel.set_carries(carries);
        // Where MACs are is another way now.
        self.plane.forget_network(id);
        match state {
            State::Blocked(Some(Speaker { peer, .. })) => {
                let by = self.named(peer);
                self.log(
                    Level::Warn,
                    format!("{address} stands by: {by} has joined it for {network} too, and carries it"),
                );
            }
            State::Carrying => self.log(Level::Info, format!("{address} carries frames of {network}")),
            State::Blocked(None) | State::Listening => {}
        }
    }

    /// `rnet connect vxlan://...`.
    pub(super) fn join(&mut self, request: RequestId, vtep: Vtep) {
        self.ask(request, Job::Join { request: Some(request), vtep });
    }

    /// `rnet forget vxlan://...`.
    pub(super) fn part(&mut self, request: RequestId, address: VtepAddress, network: Option<Network>) {
        self.ask(request, Job::Part { request, address, network });
    }

    /// What was joined in the last run is joined again.
    pub(super) fn restore_vteps(&mut self, vteps: Vec<Vtep>) {
        for vtep in vteps.into_iter().take(MAX_VTEPS) {
            let wanted = Wanted { vtep, why: String::new(), again: self.now + AGAIN };
            self.attachments.vteps.wanted.insert((vtep.address, vtep.network), wanted);
            self.jobs.join_later(vtep);
        }
    }

    /// Tries again what could not be joined.
    pub(super) fn retry_vteps(&mut self) {
        if self.stopping || self.leaving {
            return;
        }
        for wanted in self.attachments.vteps.wanted.values_mut().filter(|wanted| wanted.again <= self.now) {
            wanted.again = self.now + AGAIN;
            self.jobs.join_later(wanted.vtep);
        }
    }

    /// Plans to join a VTEP. `Err`: why not, without what.
    pub(super) fn plan_join(&mut self, vtep: &Vtep) -> Result<Plan, String> {
        let done = Plan { who: nobody(), steps: Vec::new() };
        let Vtep { address, network, vni, local_port } = *vtep;
        if local_port == 0 {
            return Err("no VTEP can send to UDP port 0: give another one with --local-port".into());
        }
        if local_port == self.config.port || Some(local_port) == self.framings.port() {
            let why = "is the mesh's own: have the VTEP send to another one and give it with --local-port";
            return Err(format!("UDP port {local_port} {why}"));
        }
        for Joined { vtep: other, .. } in self.attachments.vteps.by_port.values() {
            if other == vtep {
                return Ok(done);
            }
            if (other.address, other.network) == (address, network) {
                return Err(format!("it is on {network} with VNI {} already: forget it first", other.vni));
            }
            let source = |vtep: &Vtep| (vtep.address.socket().ip(), vtep.local_port, vtep.vni);
            if source(other) == source(vtep) {
                let (which, on) = (other.address, other.network);
                return Err(format!("frames with VNI {vni} from there are those of {which} on {on}: give another VNI"));
            }
        }
        let all = self.attachments.vteps.list();
        if !all.contains(vtep) && all.len() >= MAX_VTEPS {
            return Err(format!("there are {MAX_VTEPS} VTEPs already: forget some first"));
        }
        let id = self.id_of(network);
        self.check_network(network, id)?;
        let mut steps = self.plan_networks([(id, network)].into());
        let port = self.attachments.next_port();
        steps.push(HostOp::OpenTunnel { port, id, vtep: *vtep });
        Ok(Plan { steps, ..done })
    }

    /// The id of a network as it is known here or in the mesh; else the one made of its CIDR.
    pub(super) fn id_of(&self, network: Network) -> NetId {
        let here = self.attachments.open_networks();
        let reachable = self.peers.iter().filter(|(peer, _)| self.published.linked.contains(*peer));
        let mut known = here.iter().chain(reachable.flat_map(|(_, record)| &record.networks));
        known.find(|(_, other)| *other == network).map_or_else(|| network.id(), |(id, _)| *id)
    }

    /// Plans to take a VTEP off one network; it is no error if it is on none. `Err`: why not, without what.
    pub(super) fn plan_part(
        &mut self,
        address: VtepAddress,
        network: Option<Network>,
    ) -> Result<(Plan, Reply), String> {
        let is_meant = |vtep: &Vtep| vtep.address == address && network.is_none_or(|network| network == vtep.network);
        let all = self.attachments.vteps.list();
        let meant: Vec<Vtep> = all.iter().filter(|vtep| is_meant(vtep)).copied().collect();
        let reply = match meant.is_empty() {
            false => Reply::Done,
            true => {
                let names: Vec<String> =
                    all.iter().map(|vtep| format!("{} to {}", vtep.address, vtep.network)).collect();
                let to = network.map(|network| format!(" to {network}")).unwrap_or_default();
                nothing_of(&format!("forget {address}"), &format!("joined{to}"), &names)
            }
        };
        let networks: BTreeSet<Network> = meant.iter().map(|vtep| vtep.network).collect();
        if networks.len() > 1 {
            let networks: Vec<String> = networks.iter().map(Network::to_string).collect();
            return Err(format!("it is on several networks ({}): say which with --network", networks.join(", ")));
        }
        self.attachments.vteps.wanted.retain(|_, wanted| !meant.contains(&wanted.vtep));
        self.unsaved = true;
        let gone: Vec<(PortId, &Joined)> = self
            .attachments
            .vteps
            .by_port
            .iter()
            .filter(|(_, joined)| meant.contains(&joined.vtep))
            .map(|(port, joined)| (*port, joined))
            .collect();
        let mut steps: Vec<HostOp> =
            gone.iter().map(|(port, joined)| HostOp::CloseTunnel { port: *port, vtep: joined.vtep }).collect();
        let ports: Vec<PortId> = gone.iter().map(|(port, _)| *port).collect();
        let ids: BTreeSet<NetId> = gone.iter().map(|(_, joined)| joined.tunnel.ends.network).collect();
        steps.extend(ids.into_iter().filter_map(|id| self.attachments.close_without(id, &ports)));
        Ok((Plan { who: nobody(), steps }, reply))
    }

    /// A VTEP was joined, or could not be.
    pub(super) fn joined(&mut self, request: Option<RequestId>, vtep: &Vtep, failure: Option<String>) {
        let key = (vtep.address, vtep.network);
        match (failure, request) {
            (Some(why), Some(request)) => self.refuse_request(request, format!("connect {}: {why}", vtep.address)),
            (Some(why), None) => {
                let Some(wanted) = self.attachments.vteps.wanted.get_mut(&key) else { return };
                if wanted.why != why {
                    wanted.why.clone_from(&why);
                    self.log(Level::Warn, format!("{} is not on {}: {why}", vtep.address, vtep.network));
                }
            }
            (None, request) => {
                self.attachments.vteps.wanted.remove(&key);
                if self.loops.state(vtep.number(), self.now).is_none()
                    && let Some(id) = self.attachments.vteps.network_of(vtep.number())
                {
                    self.loops.open(vtep.number(), id, self.now);
                }
                self.unsaved = true;
                if let Some(request) = request {
                    self.reply_when_stored(request, Reply::Done);
                }
            }
        }
    }

    /// The route to a VTEP takes more or less than it did.
    pub(super) fn route_mtu(&mut self, port: PortId, mtu: u16) {
        if let Some(joined) = self.attachments.vteps.by_port.get(&port) {
            joined.tunnel.set_mtu(mtu);
        }
    }
}
