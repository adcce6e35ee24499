//! VXLAN between peers: whether this router has it, with whom it is agreed, and which MACs the kernel carries frames to.
//!
//! Owns the engine (one at a time: the kernel's devices, or rnet's own socket) and what is installed for the kernel; `carriers` has
//! the neighbours' side: probes, the choice, agreement. Its changes to the machine go beside the jobs' and in one order with them.
//!
//! ```text
//! off > OpenVxlan(kernel) > open    refused, `--framing auto`: OpenVxlan(userspace)    refused: tried again every 10 s
//!                  ^                     after 10 s, 20 s .. 5 min, or at once if a VXLAN device of somebody else goes:
//!                  '--- CloseVxlan <---- TryVxlan        refused again: as it was; told if it is for another reason
//!
//! kernel: network open > OpenOffload    frame for a MAC behind a neighbour that the kernel serves > Offload(mac, address)
//!         choice changes, MAC or neighbour moves or goes, 3 minutes pass > Offload(mac, none): the next frame brings it back
//! ```
//!
//! The kernel carries what it was told of and nothing else: a frame that it was not told of goes by the capture port as ever, so
//! whatever is lost here costs time and no frame. Without encryption only: a mesh with a password opens no port for this unless
//! it was told of trusted subnets. Bounds: `MAX_OFFLOADS` MACs of a network.

use super::Node;
use super::attach::Attachments;
use super::border::{HostAnswer, HostId, HostOp, Level, Output, VxlanPeer};
use super::status::FramingStatus;
use crate::plane::Place;
use crate::plane::fib::Fib;
use crate::types::{Engine, Framing, Instant, Mac, NetId, PeerName, ShortId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// MACs of one network that the kernel carries frames to.
pub const MAX_OFFLOADS: usize = 1024;
/// When an engine that could not be had, or a device, is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// How rarely the kernel's is tried again at least, while rnet's own does its work.
const SELDOM: Duration = Duration::from_secs(300);
/// How often at most, whatever others do to their devices.
const SPACING: Duration = Duration::from_secs(1);
/// How long a MAC stays installed; then its next frame is looked at as any other.
const REFRESH: Duration = Duration::from_secs(180);

/// What of VXLAN this machine has.
#[derive(Debug)]
enum State {
    /// Nothing yet.
    Off,
    Opening(Engine),
    Open(Engine),
    /// Refused: why, and when it is tried again.
    Failed(String, Instant),
}

/// The kernel's engine, which would have been used and could not be had.
#[derive(Debug)]
struct Lacking {
    why: String,
    /// When it is tried again, and how long it was waited for that.
    again: Instant,
    wait: Duration,
    /// The machine is asked just now.
    asking: bool,
}

impl Lacking {
    fn is_due(&self, now: Instant) -> bool {
        !self.asking && self.again <= now
    }
}

/// A MAC that the kernel carries frames to.
#[derive(Debug, Clone, Copy)]
struct Offloaded {
    peer: PeerName,
    to: SocketAddr,
    since: Instant,
}

/// The kernel's VXLAN device of a network.
#[derive(Debug, Default)]
struct Device {
    open: bool,
    /// It was refused: not before.
    again: Option<Instant>,
    macs: BTreeMap<Mac, Offloaded>,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Framings {
    /// None: the fastest that there is.
    wish: Option<Framing>,
    /// The UDP port; none: VXLAN is never spoken, and why.
    port: Result<u16, &'static str>,
    state: State,
    no_kernel: Option<Lacking>,
    devices: BTreeMap<NetId, Device>,
    told: Vec<VxlanPeer>,
    under_way: BTreeMap<HostId, HostOp>,
}

impl Framings {
    pub fn new(wish: Option<Framing>, mesh_port: u16, encrypts_all: bool) -> Framings {
        let port = match (wish, encrypts_all) {
            (Some(Framing::Udp), _) => Err("--framing udp"),
            (_, true) => Err("all paths are encrypted (--trusted-subnets names those that need not be)"),
            _ => mesh_port.checked_add(1).ok_or("there is no UDP port after that of the mesh"),
        };
        let (devices, told, under_way) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Framings { wish, port, state: State::Off, no_kernel: None, devices, told, under_way }
    }

    /// The UDP port by which this router speaks VXLAN with peers, if it ever does.
    pub fn port(&self) -> Option<u16> {
        self.port.ok()
    }

    /// Who does it, while that works.
    pub fn engine(&self) -> Option<Engine> {
        match self.state {
            State::Open(engine) => Some(engine),
            _ => None,
        }
    }

    /// The framing that paths would have at best.
    pub fn best(&self) -> Framing {
        match self.state {
            State::Open(engine) | State::Opening(engine) => engine.framing(),
            State::Off | State::Failed(..) => match (self.wish, &self.no_kernel) {
                (Some(wish), _) => wish,
                (None, Some(_)) => Framing::Vxlan,
                (None, None) => Framing::Kernel,
            },
        }
    }

    /// Why the kernel's engine is not used, though it would have been.
    pub fn why_no_kernel(&self) -> Option<&str> {
        self.no_kernel.as_ref().map(|lacking| lacking.why.as_str())
    }

    /// The engine to try next.
    fn next_engine(&self, now: Instant) -> Engine {
        match (self.wish, &self.no_kernel) {
            (Some(Framing::Vxlan), _) => Engine::Userspace,
            (None, Some(lacking)) if !lacking.is_due(now) => Engine::Userspace,
            _ => Engine::Kernel,
        }
    }

    /// The kernel's engine was refused. Whether that is news.
    fn lack(&mut self, why: String, now: Instant) -> bool {
        let wait = self.no_kernel.as_ref().map_or(AGAIN, |lacking| (lacking.wait * 2).min(SELDOM));
        let is_new = self.why_no_kernel() != Some(why.as_str());
        self.no_kernel = Some(Lacking { why, again: now + wait, wait, asking: false });
        is_new
    }

    fn all(&self) -> impl Iterator<Item = (NetId, Mac, &Offloaded)> {
        self.devices.iter().flat_map(|(id, device)| device.macs.iter().map(move |(mac, held)| (*id, *mac, held)))
    }

    /// Whether the kernel carries anything to this neighbour.
    pub fn carries_to(&self, peer: PeerName) -> bool {
        self.devices.values().flat_map(|device| device.macs.values()).any(|held| held.peer == peer)
    }

    /// A killed router had the kernel carry frames for this MAC to there.
    pub fn found(&mut self, id: NetId, mac: Mac, (peer, to): (PeerName, SocketAddr), now: Instant) {
        if let Some(device) = self.devices.get_mut(&id) {
            device.macs.insert(mac, Offloaded { peer, to, since: now });
        }
    }

    pub fn fill(&self, fib: &mut Fib) {
        fib.vxlan_door = self.port().filter(|_| self.engine() == Some(Engine::Userspace));
    }

    pub fn status(&self) -> FramingStatus {
        let info = match (&self.port, &self.state, &self.no_kernel) {
            (Err(why), ..) => (*why).to_string(),
            // Two engines that lack the same say it once.
            (_, State::Failed(why, _), Some(lacking)) if *why != lacking.why => {
                format!("kernel: {}; vxlan: {why}", lacking.why)
            }
            (_, State::Failed(why, _), _) => why.clone(),
            (_, _, Some(Lacking { why, .. })) => format!("kernel: {why}"),
            _ => String::new(),
        };
        FramingStatus {
            wanted: self.wish.map_or("auto".to_string(), |wish| wish.to_string()),
            engine: self.engine().map(Engine::framing),
            port: self.port(),
            offloaded: self.devices.values().map(|device| device.macs.len()).sum(),
            info,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let devices = self.devices.values().filter_map(|device| device.again);
        let engine = match (&self.state, &self.no_kernel) {
            (State::Failed(_, again), _) => Some(*again),
            (State::Open(Engine::Userspace), Some(lacking)) if !lacking.asking => Some(lacking.again),
            _ => None,
        };
        devices.chain(engine).min()
    }

    /// Forgets all devices. What closes them and the engine.
    pub fn clear(&mut self) -> Vec<HostOp> {
        let open = matches!(self.state, State::Open(_) | State::Opening(_));
        let devices = std::mem::take(&mut self.devices).into_keys();
        let closed = devices.map(|id| HostOp::CloseOffload { id });
        (self.state, self.told) = (State::Off, Vec::new());
        closed.chain(open.then_some(HostOp::CloseVxlan)).collect()
    }
}

/// What could not be done, for the log.
pub(super) fn what(op: &HostOp) -> String {
    match op {
        HostOp::OpenVxlan { .. } | HostOp::TryVxlan { .. } => "VXLAN between peers could not be opened".to_string(),
        HostOp::CloseVxlan => "VXLAN between peers could not be closed".to_string(),
        HostOp::VxlanPeers(_) => "the peers that may send VXLAN could not be told to the kernel".to_string(),
        HostOp::OpenOffload { network, .. } => format!("network {network} gets no VXLAN device"),
        HostOp::CloseOffload { id } => format!("the VXLAN device of network {id} could not be taken off"),
        HostOp::Offload { id, mac, .. } => format!("{mac} on network {id}: its entry could not be changed"),
        _ => "this machine could not be changed".to_string(),
    }
}

impl Attachments {
    /// Networks whose bridge is there, and the MTU of each.
    fn bridged(&self) -> impl Iterator<Item = HostOp> + '_ {
        self.open_ports().map(|(id, network, mtu)| HostOp::OpenOffload { network, id, mtu })
    }
}

impl Node {
    /// A change beside the jobs'.
    pub(super) fn change_beside(&mut self, op: HostOp) {
        let host = self.jobs.number();
        self.framings.under_way.insert(host, op.clone());
        self.out.push_back(Output::Host { host, op });
    }

    /// Opens what is to be open, and tells the machine of neighbours.
    pub(super) fn tend_framings(&mut self) {
        let Some(port) = self.framings.port().filter(|_| !self.stopping) else { return };
        let due = match self.framings.state {
            State::Off => true,
            State::Failed(_, again) => again <= self.now,
            _ => false,
        };
        if due {
            let engine = self.framings.next_engine(self.now);
            self.framings.state = State::Opening(engine);
            self.change_beside(HostOp::OpenVxlan { port, engine });
        }
        self.ask_for_kernel(port);
        self.tell_vxlan_peers();
        if self.framings.engine() == Some(Engine::Kernel) {
            self.open_devices();
        }
    }

    /// When `tend_framings` has something to do.
    pub(super) fn framings_deadline(&self) -> Option<Instant> {
        if self.stopping { None } else { self.framings.deadline() }
    }

    /// While rnet's own engine does its work, it is asked whether the kernel's could be had by now; nothing is given up for that.
    fn ask_for_kernel(&mut self, port: u16) {
        let (is_own, now) = (self.framings.engine() == Some(Engine::Userspace), self.now);
        let Some(lacking) = self.framings.no_kernel.as_mut().filter(|lacking| is_own && lacking.is_due(now)) else {
            return;
        };
        lacking.asking = true;
        self.change_beside(HostOp::TryVxlan { port });
    }

    /// It could, or not.
    fn kernel_answered(&mut self, result: Result<(), String>) {
        let Some(lacking) = self.framings.no_kernel.as_mut() else { return };
        (lacking.asking, lacking.again) = (false, self.now);
        match result {
            // The two have the same UDP port. Nothing is lost on the way: udp is beneath.
            Ok(()) if self.framings.engine() == Some(Engine::Userspace) && !self.stopping => self.close_engine(),
            Ok(()) => {}
            Err(why) => self.kernel_refused(why),
        }
    }

    fn kernel_refused(&mut self, why: String) {
        if self.framings.lack(why.clone(), self.now) {
            self.log(Level::Warn, format!("framing kernel cannot be had: {why}; vxlan is used instead"));
        }
    }

    /// A VXLAN device of somebody else is gone: its UDP port may be ours now.
    pub(super) fn vxlan_gone(&mut self) {
        let (soon, lacking) = (self.now + SPACING, self.framings.no_kernel.as_mut());
        let kernel = lacking.map(|lacking| {
            (lacking.again, lacking.wait) = (soon.min(lacking.again), AGAIN / 2);
            lacking.again
        });
        if let State::Failed(_, again) = &mut self.framings.state {
            // Not before the better one.
            *again = kernel.unwrap_or(soon.min(*again));
        }
    }

    fn close_engine(&mut self) {
        let closing = self.framings.clear();
        closing.into_iter().for_each(|op| self.change_beside(op));
        self.engine_changed();
    }

    fn tell_vxlan_peers(&mut self) {
        if self.framings.engine().is_none() {
            return;
        }
        let agreed = self.links.neighbours().filter_map(|(peer, connected)| {
            let tended = connected.tended.as_ref()?;
            Some(VxlanPeer { peer, address: tended.vxlan_address()? })
        });
        let mut peers: Vec<VxlanPeer> = agreed.collect();
        let kept = self
            .kept
            .0
            .iter()
            .filter_map(|(peer, kept)| Some(VxlanPeer { peer: *peer, address: kept.tended.vxlan_address()? }));
        for besides in kept.chain(self.holding.peers()) {
            if peers.iter().all(|peer| peer.peer != besides.peer) {
                peers.push(besides);
            }
        }
        if peers != self.framings.told {
            self.framings.told.clone_from(&peers);
            self.published.fib_changed = true;
            self.change_beside(HostOp::VxlanPeers(peers));
        }
    }

    fn open_devices(&mut self) {
        let is_missing = |op: &HostOp| {
            let HostOp::OpenOffload { id, .. } = op else { return false };
            self.framings.devices.get(id).is_none_or(|device| device.again.is_some_and(|at| at <= self.now))
        };
        let missing: Vec<HostOp> = self.attachments.bridged().filter(is_missing).collect();
        for op in missing {
            if let HostOp::OpenOffload { id, .. } = op {
                self.framings.devices.insert(id, Device::default());
                self.change_beside(op);
            }
        }
    }

    /// A change beside the jobs' was made, or not; if it was none, the answer comes back.
    pub(super) fn changed_beside(
        &mut self,
        host: HostId,
        result: Result<HostAnswer, String>,
    ) -> Result<(), Result<HostAnswer, String>> {
        let Some(op) = self.framings.under_way.remove(&host) else { return Err(result) };
        match (&op, result) {
            (HostOp::OpenVxlan { engine, .. }, result) => {
                if let Ok(HostAnswer::Vxlan(peers)) = &result {
                    self.found_peers(peers.clone());
                }
                self.engine_answered(*engine, result.map(drop));
            }
            (HostOp::TryVxlan { .. }, result) => self.kernel_answered(result.map(drop)),
            (HostOp::OpenOffload { id, .. }, Ok(answer)) => {
                if let Some(device) = self.framings.devices.get_mut(id) {
                    (device.open, device.again) = (true, None);
                }
                if let HostAnswer::Offloaded(found) = answer {
                    self.found_offloads(*id, found);
                }
            }
            (HostOp::OpenOffload { id, .. }, Err(why)) => {
                if let Some(device) = self.framings.devices.get_mut(id) {
                    *device = Device { again: Some(self.now + AGAIN), ..Device::default() };
                }
                self.warn_once(format!("{}: {why}", what(&op)));
            }
            (HostOp::Offload { id, mac, to: Some(_) }, Err(why)) => {
                if let Some(device) = self.framings.devices.get_mut(id) {
                    device.macs.remove(mac);
                }
                self.warn_once(format!("{}: {why}", what(&op)));
            }
            (_, Ok(_)) => {}
            (_, Err(why)) => self.log(Level::Warn, format!("{}: {why}", what(&op))),
        }
        Ok(())
    }

    fn engine_answered(&mut self, engine: Engine, result: Result<(), String>) {
        if !matches!(self.framings.state, State::Opening(opening) if opening == engine) {
            return;
        }
        match result {
            Ok(()) => {
                self.framings.state = State::Open(engine);
                if engine == Engine::Kernel {
                    self.framings.no_kernel = None;
                }
                let port = self.framings.port().unwrap_or_default();
                self.log(
                    Level::Info,
                    format!("VXLAN with peers that need no encryption: {}, UDP port {port}", engine.framing()),
                );
            }
            Err(why) if engine == Engine::Kernel && self.framings.wish.is_none() => {
                self.framings.state = State::Off;
                self.kernel_refused(why);
            }
            Err(why) => {
                self.warn_once(format!("framing {} cannot be had: {why}; udp is used instead", engine.framing()));
                self.framings.state = State::Failed(why, self.now + AGAIN);
            }
        }
        self.engine_changed();
    }

    /// What is tried again and again is told once.
    fn warn_once(&mut self, line: String) {
        if self.published.warned.insert(line.clone()) {
            self.log(Level::Warn, line);
        }
    }

    fn engine_changed(&mut self) {
        self.published.fib_changed = true;
        self.judge_carriers();
    }

    /// Somebody took away what the kernel had been given.
    pub(super) fn offload_lost(&mut self, id: Option<NetId>) {
        match id {
            Some(id) => {
                let Some(device) = self.framings.devices.get_mut(&id).filter(|device| device.open) else { return };
                let macs = std::mem::take(device).macs;
                device.again = Some(self.now + Duration::from_secs(1));
                macs.keys().for_each(|mac| self.plane.offer_again(id, *mac));
                let line = format!("network {id}: its VXLAN device was changed by somebody else: it is made again");
                self.log_about([0, 0, 0, 0].into(), line);
            }
            None if self.framings.engine() == Some(Engine::Kernel) => {
                let line = "the device of VXLAN heartbeats was changed by somebody else: it is made again";
                self.log_about([0, 0, 0, 0].into(), line.to_string());
                self.close_engine();
                self.framings.state = State::Failed(line.to_string(), self.now + Duration::from_secs(1));
            }
            None => {}
        }
    }

    /// A network is about to be closed: its device first.
    pub(super) fn close_offload(&mut self, id: NetId) {
        if self.framings.devices.remove(&id).is_some() {
            self.change_beside(HostOp::CloseOffload { id });
        }
    }

    /// Frames for this MAC go to this neighbour again and again.
    pub(super) fn offload_offered(&mut self, network: NetId, mac: Mac, peer: ShortId) {
        let is_meant = |tended: &super::paths::Tended| tended.path.peer() == peer && tended.path.is_for_kernel();
        let meant = self.links.neighbours().find_map(|(name, connected)| {
            let tended = connected.tended.as_ref().filter(|tended| is_meant(tended))?;
            Some((name, tended.vxlan_address()?))
        });
        let Some((peer, to)) = meant else { return };
        let Some(device) = self.framings.devices.get_mut(&network).filter(|device| device.open) else { return };
        if device.macs.len() >= MAX_OFFLOADS || device.macs.contains_key(&mac) {
            return;
        }
        device.macs.insert(mac, Offloaded { peer, to, since: self.now });
        self.change_beside(HostOp::Offload { id: network, mac, to: Some(to) });
    }

    /// This MAC was seen elsewhere.
    pub(super) fn offload_moved(&mut self, network: NetId, mac: Mac) {
        self.take_back(|id, other, _| id == network && other == mac);
    }

    /// The kernel is to carry nothing to this neighbour any more.
    pub(super) fn take_back_of(&mut self, peer: PeerName) {
        self.take_back(|_, _, offloaded| offloaded.peer == peer);
    }

    /// What is old, or not so any more.
    pub(super) fn review_offloads(&mut self) {
        if self.framings.devices.values().all(|device| device.macs.is_empty()) {
            return;
        }
        let at: BTreeMap<PeerName, (ShortId, SocketAddr)> = self
            .links
            .neighbours()
            .filter_map(|(peer, connected)| {
                let tended = connected.tended.as_ref().filter(|tended| tended.path.is_for_kernel())?;
                Some((peer, (tended.path.peer(), tended.vxlan_address()?)))
            })
            .collect();
        let (plane, now) = (self.plane.clone(), self.now);
        let held = self.framings.all().filter(|(_, _, offloaded)| self.holding.holds(offloaded.peer, offloaded.to));
        let stay: BTreeSet<(NetId, Mac)> = held
            .filter(|(id, mac, offloaded)| !self.is_moved(*id, *mac, offloaded.peer))
            .map(|(id, mac, _)| (id, mac))
            .collect();
        self.take_back(|id, mac, offloaded| {
            if stay.contains(&(id, mac)) {
                return false;
            }
            let Some((short, to)) = at.get(&offloaded.peer) else { return true };
            let moved = plane.place(id, mac, now).is_some_and(|place| place != Place::Peer(*short));
            moved || *to != offloaded.to || now - offloaded.since >= REFRESH
        });
    }

    fn take_back(&mut self, is_over: impl Fn(NetId, Mac, &Offloaded) -> bool) {
        let mut over = Vec::new();
        for (id, device) in &mut self.framings.devices {
            over.extend(device.macs.extract_if(.., |mac, held| is_over(*id, *mac, held)).map(|(mac, _)| (*id, mac)));
        }
        for (id, mac) in over {
            self.change_beside(HostOp::Offload { id, mac, to: None });
            self.plane.offer_again(id, mac);
        }
    }
}
