//! Runs changes to this machine, undoes them if they fail, and notices when attachments are gone.
//!
//! Owns the connection to the kernel's devices, the captures until they are handed over, and who is plugged. Lives in the
//! control task; what happens by itself is told over the channel of [`HostEvent`]s. One change runs at a time.
//!
//! ```text
//! apply(op) - plan - step step step X         a step fails
//!                     undo  undo  <-+         those before it are undone, last first; the op failed, nothing is left
//! ```
//!
//! Invariant: after a failed [`Host::apply`] the machine is as before it. Whatever a killed router left is found by
//! [`Host::sweep`] (`adopt`), by exact name and kind, and nothing else is ever deleted.

use super::adopt::Found;
use super::announce::announcements;
use super::beats::Beats;
use super::changes::{Devices, Verdict};
use super::doors::Doors;
use super::events::HostEvent;
use super::fence::Fences;
use super::firewall::Firewall;
use super::guard;
use super::inside::{Inside, settings_of_host, silence, unless_gone};
use super::kernel::Kernel;
use super::plan::{Step, plan};
use super::uplinks::{self, Means, Uplinks};
use super::{names, pairs};
use crate::io::capture::{Capture, Options};
use crate::io::netlink::{Netlink, Veth};
use crate::io::netns::Netns;
use crate::io::pidfd::Pidfd;
use crate::io::vxlan::Vxlan;
use crate::io::watch::{Change, Watch};
use crate::io::{ethtool, packet, tap};
use crate::node::border::{HostAnswer, HostOp};
use crate::node::command::{Interface, Place};
use crate::plane::fib::PortId;
use crate::types::Engine;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Changes within this time are told as one.
const QUIET: Duration = Duration::from_millis(200);
/// When a new attachment's addresses are announced: the first may come before the network knows of it.
const ANNOUNCE_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_millis(250), Duration::from_millis(750)];
/// How long a bridge may take to pass a new port's frames; milliseconds as a rule.
const PORT_PATIENCE: Duration = Duration::from_secs(3);

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is plugged under one key.
#[derive(Default)]
struct Plugged {
    veths: Vec<String>,
    process: Option<Task>,
    announcing: Vec<Task>,
}

pub(super) struct Shared {
    pub netlink: Netlink,
    pub events: UnboundedSender<HostEvent>,
    plugged: Mutex<HashMap<String, Plugged>>,
    /// Devices that frames are captured on, and the port of each; bytes of the longest frame there.
    captured: Mutex<HashMap<String, (PortId, usize)>>,
}

/// See the head of this file.
pub struct Host {
    pub(super) capture: Options,
    own: Netns,
    /// The one address of this host that the router uses, if it was told to.
    pub(super) at: Option<IpAddr>,
    pub(super) shared: Arc<Shared>,
    pub(super) firewall: Firewall,
    pub(super) fences: Fences,
    doors: Doors,
    uplinks: Uplinks,
    pub(super) kernel: Kernel,
    /// What a killed router left that may be taken over.
    pub(super) found: Found,
    _watch: Task,
    _keep: [Task; 4],
    /// Tests make the step of this number fail.
    #[cfg(test)]
    fail_at: Option<usize>,
}

impl Host {
    /// Connects to the kernel and begins to watch. Must be called within a runtime, in the router's network namespace.
    ///
    /// Errors: no netlink. That privilege is missing shows at the first change.
    pub async fn start(capture: Options, events: UnboundedSender<HostEvent>) -> Result<Host, String> {
        Host::start_in(None, None, capture, events).await
    }

    /// The same; settings of the kernel that it switches on are remembered in this run directory, and doors are only at this address.
    pub async fn start_in(
        run_dir: Option<&Path>,
        at: Option<IpAddr>,
        capture: Options,
        events: UnboundedSender<HostEvent>,
    ) -> Result<Host, String> {
        let netlink = Netlink::open().map_err(|e| format!("opening netlink: {e}"))?;
        let own = Netns::own().map_err(|e| format!("/proc/thread-self/ns/net: {e}"))?;
        let doors = Doors::new((at, capture.queues), netlink.clone(), events.clone());
        let means = Means { queues: capture.queues, offload: capture.offload };
        let uplinks = Uplinks::new(means, events.clone());
        let shared = Arc::new(Shared { netlink, events, plugged: Mutex::default(), captured: Mutex::default() });
        let watch = Watch::open().map_err(|e| format!("watching the network: {e}"))?;
        let kernel = Kernel::default();
        let watch = Task(tokio::spawn(watch_changes(shared.clone(), (kernel.clone(), uplinks.clone()), watch)));
        let firewall = Firewall::new(run_dir.map(Path::to_path_buf));
        let fences = Fences::default();
        let keep = [
            Task(tokio::spawn(firewall.clone().keep())),
            Task(tokio::spawn(fences.clone().keep())),
            Task(tokio::spawn(doors.clone().keep())),
            Task(tokio::spawn(kernel.gate.clone().keep())),
        ];
        Ok(Host {
            capture,
            own,
            at,
            shared,
            firewall,
            fences,
            doors,
            uplinks,
            kernel,
            found: Found::default(),
            _watch: watch,
            _keep: keep,
            #[cfg(test)]
            fail_at: None,
        })
    }

    /// What sends heartbeats by the kernel's VXLAN.
    pub fn beats(&self) -> Beats {
        self.kernel.beats.clone()
    }

    /// Whether peers could speak VXLAN by a socket of ours at this UDP port now. The error is one line.
    pub async fn try_peers(&self, port: u16) -> Result<(), String> {
        self.doors.try_peers(port).await
    }

    /// Makes a change, whole or not at all. The error is one line: what was attempted, and why it failed.
    pub async fn apply(&mut self, op: HostOp) -> Result<HostAnswer, String> {
        let steps = plan(&op, self.capture.kind);
        match op {
            HostOp::OpenNetwork { id, .. } => {
                // Before the first frame: another firewall may drop it.
                self.firewall.bridge(names::bridge(id), true).await;
                if let Err(why) = self.run(steps, None).await {
                    self.firewall.bridge(names::bridge(id), false).await;
                    return Err(why);
                }
            }
            HostOp::CloseNetwork { id, .. } => {
                self.run(steps, None).await?;
                self.firewall.bridge(names::bridge(id), false).await;
            }
            HostOp::Recapture { .. } => self.run(steps, None).await?,
            HostOp::Filter(edge) => self.firewall.set(edge).await?,
            HostOp::OpenTunnel { port, vtep, .. } => {
                self.doors.open(port, &vtep).await?;
                self.uplinks.doors_are(self.doors.numbers());
            }
            HostOp::CloseTunnel { port, .. } => {
                self.doors.close(port);
                self.uplinks.doors_are(self.doors.numbers());
            }
            HostOp::OpenUplink { port, uplink, mesh, must, .. } => {
                let links = self.shared.netlink.links().await.map_err(|e| e.to_string())?;
                self.uplinks.open(port, &uplink, (mesh, must), &links)?;
            }
            HostOp::CloseUplink { port, .. } => self.uplinks.close(port),
            HostOp::OpenVxlan { port, engine: Engine::Userspace } => {
                self.doors.open_peers(port).await?;
                self.uplinks.doors_are(self.doors.numbers());
            }
            HostOp::OpenVxlan { port, engine: Engine::Kernel } => {
                let done = self.open_vxlan(port).await;
                self.uplinks.doors_are([self.doors.numbers(), vec![port]].concat());
                return done;
            }
            HostOp::TryVxlan { port } => self.check_engine(port).await?,
            HostOp::CloseVxlan => {
                self.doors.close_peers().await;
                self.close_vxlan().await?;
            }
            // With sockets of our own the data path knows them by the snapshot.
            HostOp::VxlanPeers(peers) => self.vxlan_peers(&peers).await?,
            HostOp::OpenOffload { network, id, mtu } => return self.open_offload(network, id, mtu).await,
            HostOp::CloseOffload { id } => self.close_offload(id).await?,
            HostOp::Offload { id, mac, to } => self.offload(id, mac, to).await?,
            HostOp::SweepRest => self.sweep_rest().await?,
            HostOp::Plug { key, place: Place::Host, interfaces, .. } => {
                self.check_overlap(&interfaces).await?;
                self.kernel.guard(&self.fences, &key, &interfaces, true).await?;
                self.run(steps, None).await?;
                self.shared.register(&key, &interfaces, None);
            }
            HostOp::Plug { key, place, interfaces, guarded, .. } => {
                let inside = Inside::enter(&place, &self.own)?;
                self.kernel.guard(&self.fences, &key, &interfaces, guarded).await?;
                if let Err(why) = self.run(steps, Some(&inside)).await {
                    let _ = self.kernel.guard(&self.fences, &key, &interfaces, false).await;
                    return Err(why);
                }
                self.shared.register(&key, &interfaces, inside.process);
                return Ok(HostAnswer::Plugged(inside.place));
            }
            HostOp::ResizeNetwork { .. } => self.run(steps, None).await?,
            HostOp::Resize { place, .. } => {
                let inside = Inside::enter(&place, &self.own)?;
                self.run(steps, Some(&inside)).await?;
            }
            HostOp::Unplug { key, interfaces, .. } => {
                // Forgotten first, so that the devices' end is not taken for the attachment's.
                self.shared.unregister(&key, &interfaces);
                self.run(steps, None).await?;
                self.kernel.guard(&self.fences, &key, &interfaces, false).await?;
            }
        }
        Ok(HostAnswer::Done)
    }

    /// Whether this interface can be captured, `beside` others. The error is one line, with what to do.
    pub async fn check_uplink(&self, name: &str, beside: &[&str]) -> Result<(), String> {
        let links = self.shared.netlink.links().await.map_err(|e| e.to_string())?;
        let links: Vec<_> = links.iter().collect();
        uplinks::together(uplinks::fitness(name, &links)?, beside, &links)
    }

    /// An address in a network that the host has an interface on already would take that interface's traffic away.
    async fn check_overlap(&self, interfaces: &[Interface]) -> Result<(), String> {
        let links = self.shared.netlink.links().await.map_err(|e| e.to_string())?;
        let addresses = self.shared.netlink.addresses().await.map_err(|e| e.to_string())?;
        for (index, held) in addresses {
            let Some(link) = links.iter().find(|link| link.index == index) else { continue };
            let overlaps = |interface: &&Interface| {
                let network = interface.network.cidr();
                network.contains(&held.trunc()) || held.trunc().contains(&network)
            };
            let foreign = !names::is_ours(&link.name, &link.kind);
            if let Some(interface) = interfaces.iter().find(overlaps).filter(|_| foreign) {
                let (network, device) = (interface.network, &link.name);
                return Err(format!(
                    "expose: network {network} overlaps {held}, which this host has on {device}: use another network"
                ));
            }
        }
        Ok(())
    }

    /// Runs all steps, or undoes those that were run.
    pub(super) async fn run(&mut self, steps: Vec<Step>, inside: Option<&Inside>) -> Result<(), String> {
        let mut captures = Vec::new();
        let mut undoing: Vec<Step> = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            match self.step(number, step, inside, &mut captures).await {
                Ok(()) => undoing.extend(step.undo()),
                Err(why) => {
                    let undone = self.undo(undoing, &mut captures).await;
                    return Err(undone.err().map_or(why.clone(), |left| format!("{why}; and undoing failed: {left}")));
                }
            }
        }
        Ok(())
    }

    /// Runs all, whatever fails; tells the first failure.
    async fn undo(&mut self, undoing: Vec<Step>, captures: &mut Vec<Capture>) -> Result<(), String> {
        captures.clear();
        let mut result = Ok(());
        for step in undoing.iter().rev() {
            result = result.and(self.execute(step, None, captures).await);
        }
        result
    }

    async fn step(
        &mut self,
        _number: usize,
        step: &Step,
        inside: Option<&Inside>,
        captures: &mut Vec<Capture>,
    ) -> Result<(), String> {
        #[cfg(test)]
        if self.fail_at == Some(_number) {
            return Err(format!("injected at {step:?}"));
        }
        self.execute(step, inside, captures).await
    }

    async fn execute(
        &mut self,
        step: &Step,
        inside: Option<&Inside>,
        captures: &mut Vec<Capture>,
    ) -> Result<(), String> {
        let netlink = &self.shared.netlink;
        let result = match step {
            Step::AddBridge { name, mtu } if self.found.take(name) => netlink.set_mtu(name, *mtu).await,
            Step::AddBridge { name, mtu } => netlink.add_bridge(name, *mtu).await,
            Step::AddVxlan { name, vxlan, mtu } => return self.add_vxlan(name, vxlan, *mtu).await,
            Step::SetPort { port, rules } => netlink.set_port(port, *rules).await,
            Step::AddPair { name, peer, mtu } => {
                netlink.add_veth(Veth { name, peer, inside: None, mac: None, mtu: *mtu }).await
            }
            Step::SetMtu { name, mtu } => unless_gone(netlink.set_mtu(name, *mtu).await),
            Step::SetMaster { port, bridge } => netlink.set_master(port, bridge).await,
            Step::SetUp { name } => netlink.set_up(name).await,
            Step::SetMac { name, mac } => netlink.set_mac(name, *mac).await,
            Step::HostAddress { name, address } => match netlink.add_address(name, *address).await {
                Err(e) if e.is_there() && self.found.has(name) => Ok(()),
                other => other,
            },
            Step::RemoveAddress { name, address } => netlink.remove_address(name, *address).await.map(|_| ()),
            Step::HostSettings { name, ipv6 } => return settings_of_host(name, *ipv6).map_err(|e| e.to_string()),
            Step::Complete { name } => {
                let off = ethtool::transmit_checksums_off(name);
                return off.map_err(|e| format!("switching checksum offload of {name} off: {e}"));
            }
            Step::AwaitForwarding { port } => return self.await_forwarding(port).await,
            Step::Delete { name } => netlink.delete(name).await.map(|_| ()),
            Step::AddTap { name } => {
                let queues = tap::Tap::create(name, self.capture.queues, self.capture.offload);
                captures.extend(queues.map_err(|e| tap_error(name, &e))?.into_iter().map(Capture::Tap));
                Ok(())
            }
            // The host goes on using them.
            Step::Silence { name } | Step::Shut { name } if self.found.is_exposed(name) => Ok(()),
            Step::Silence { name } => {
                return silence(name).map_err(|e| e.to_string());
            }
            Step::OpenPair { name, bridged, mtu } => {
                captures.extend(pairs::open(self.capture, (name, bridged), *mtu)?);
                Ok(())
            }
            Step::WidenPair { name, bridged, mtu } => {
                let Some((port, has)) = self.shared.captured().get(name).copied() else { return Ok(()) };
                if pairs::is_enough(has, *mtu) {
                    return Ok(());
                }
                let wider = pairs::open(self.capture, (name, bridged), *mtu)?;
                self.shared.captured().insert(name.clone(), (port, pairs::room(&wider)));
                return self.shared.tell(HostEvent::Opened { port, captures: wider });
            }
            Step::HandOver { port, name } => {
                if captures.is_empty() {
                    return Err("no capture to hand over".to_string());
                }
                self.shared.captured().insert(name.clone(), (*port, pairs::room(captures)));
                return self.shared.tell(HostEvent::Opened { port: *port, captures: std::mem::take(captures) });
            }
            Step::Shut { name } => return self.fences.set(name, guard::bridge(name)).await,
            Step::Guard { name, capture, mac, addresses } => {
                return self.fences.set(name, guard::port(name, capture, *mac, addresses)).await;
            }
            Step::GuardArrivals { name, guarded } => {
                return self.fences.set(name, guard::arrivals(name, guarded)).await;
            }
            Step::GuardBeats { name, ether_type } => {
                return self.fences.set(name, guard::beats(name, *ether_type)).await;
            }
            Step::GuardAnew { capture } => return self.fences.renew(capture).await,
            Step::Unshut { name } | Step::Unguard { name } => {
                self.found.expose(name);
                return self.fences.clear(name).await;
            }
            Step::TakeBack { port } => {
                // Forgotten first, so that the device's end is not taken for somebody else's doing.
                self.shared.captured().retain(|_, (captured, _)| captured != port);
                return self.shared.tell(HostEvent::Closed { port: *port });
            }
            Step::AddVeth { .. }
            | Step::InsideSettings { .. }
            | Step::InsideAddress { .. }
            | Step::InsideMtu { .. }
            | Step::InsideUp { .. }
            | Step::InsideMulticast { .. }
            | Step::InsideDefaultRoute { .. } => {
                let inside = inside.ok_or("a step inside without a namespace")?;
                return inside.execute(step, &self.shared.netlink, &mut self.found).await;
            }
        };
        result.map_err(|e| e.to_string())
    }

    /// Makes a VXLAN device, unless one that is just so was left.
    async fn add_vxlan(&mut self, name: &str, vxlan: &Vxlan, mtu: u16) -> Result<(), String> {
        let netlink = &self.shared.netlink;
        if self.found.take(name) {
            let all = netlink.vxlans().await.map_err(|e| e.to_string())?;
            if all.iter().any(|(link, left)| link.name == name && left == vxlan) {
                return netlink.set_mtu(name, mtu).await.map_err(|e| e.to_string());
            }
        }
        netlink.delete(name).await.map_err(|e| e.to_string())?;
        netlink.add_vxlan(name, vxlan, mtu).await.map_err(|e| e.to_string())
    }

    async fn await_forwarding(&self, port: &str) -> Result<(), String> {
        let deadline = Instant::now() + PORT_PATIENCE;
        loop {
            let link = self.shared.netlink.link(port).await.map_err(|e| e.to_string())?;
            match link {
                Some(link) if link.forwarding => return Ok(()),
                None => return Err(format!("{port} is gone")),
                Some(_) if Instant::now() >= deadline => {
                    return Err(format!("{port}: the bridge does not pass its frames"));
                }
                Some(_) => sleep(Duration::from_millis(2)).await,
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kernel.let_go();
    }
}

impl Shared {
    fn plugged(&self) -> MutexGuard<'_, HashMap<String, Plugged>> {
        self.plugged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn captured(&self) -> MutexGuard<'_, HashMap<String, (PortId, usize)>> {
        self.captured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: HostEvent) -> Result<(), String> {
        self.events.send(event).map_err(|_| "the router is ending".to_string())
    }

    /// Remembers what was plugged, watches its process and announces its addresses.
    fn register(self: &Arc<Shared>, key: &str, interfaces: &[Interface], process: Option<Pidfd>) {
        let mut all = self.plugged();
        let plugged = all.entry(key.to_string()).or_default();
        plugged.veths.extend(interfaces.iter().map(|interface| names::veth(key, &interface.name)));
        plugged.announcing.retain(|task| !task.0.is_finished());
        plugged.announcing.push(Task(tokio::spawn(announce(interfaces.to_vec()))));
        if let (Some(process), None) = (process, &plugged.process) {
            let (shared, key) = (self.clone(), key.to_string());
            plugged.process = Some(Task(tokio::spawn(async move {
                if process.gone().await.is_ok() {
                    shared.gone(&key).await;
                }
            })));
        }
    }

    fn unregister(&self, key: &str, interfaces: &[Interface]) {
        let mut all = self.plugged();
        if let Some(plugged) = all.get_mut(key) {
            let unplugged: Vec<String> = interfaces.iter().map(|interface| names::veth(key, &interface.name)).collect();
            plugged.veths.retain(|veth| !unplugged.contains(veth));
            if plugged.veths.is_empty() {
                all.remove(key);
            }
        }
    }

    /// The attachment has ended: what others keep alive of it is removed.
    async fn gone(&self, key: &str) {
        // Its task may be the one that runs this: it is dropped, and so ended, only after the last wait.
        let Some(plugged) = self.plugged().remove(key) else { return };
        for veth in &plugged.veths {
            // Most went with the namespace. What cannot be deleted is found by the next sweep.
            let _ = self.netlink.delete(veth).await;
        }
        let _ = self.tell(HostEvent::AttachmentGone { key: key.to_string() });
    }

    fn key_of(&self, veth: &str) -> Option<String> {
        let all = self.plugged();
        all.iter().find(|(_, plugged)| plugged.veths.iter().any(|name| name == veth)).map(|(key, _)| key.clone())
    }
}

/// Tells what matters of the changes that the kernel tells.
async fn watch_changes(shared: Arc<Shared>, (kernel, uplinks): (Kernel, Uplinks), mut watch: Watch) {
    let mut devices = Devices::new(&shared.netlink.links().await.unwrap_or_default());
    let mut due: Option<Instant> = None;
    loop {
        let change = match due {
            None => watch.next().await,
            Some(at) => match tokio::time::timeout_at(at, watch.next()).await {
                Ok(change) => change,
                Err(_) => {
                    due = None;
                    let _ = shared.tell(HostEvent::NetworkChanged);
                    continue;
                }
            },
        };
        let Some(change) = change else { return };
        match &change {
            Change::Link(link) | Change::LinkGone(link) => {
                match &change {
                    Change::Link(_) => uplinks.changed(link),
                    _ => uplinks.gone(link),
                }
                if let Some(id) = kernel.lost(&shared.netlink, link).await {
                    let _ = shared.tell(HostEvent::OffloadLost { id });
                }
                let is_others = link.kind == "vxlan" && !names::is_vxlan(&link.name);
                if is_others && matches!(change, Change::LinkGone(_)) {
                    let _ = shared.tell(HostEvent::VxlanGone);
                }
            }
            Change::Port(link) => kernel.port_changed(&shared.netlink, &link.name).await,
            _ => {}
        }
        match devices.judge(&change) {
            Verdict::Nothing => {}
            Verdict::Network => due = due.or(Some(Instant::now() + QUIET)),
            Verdict::Gone(name) => {
                let port = shared.captured().remove(&name);
                if let Some((port, _)) = port {
                    let _ = shared.tell(HostEvent::CaptureGone { port });
                }
                if let Some(key) = shared.key_of(&name) {
                    shared.gone(&key).await;
                }
            }
        }
    }
}

/// Announces through the bridge, so that the mesh hears it: what is sent into our end of the pair goes inside only.
async fn announce(interfaces: Vec<Interface>) {
    for pause in ANNOUNCE_AFTER {
        sleep(pause).await;
        for interface in &interfaces {
            for frame in announcements(interface) {
                // A bridge that is gone has nobody to tell.
                let _ = packet::send_frame(&names::bridge(interface.id), &frame);
            }
        }
    }
}

fn tap_error(name: &str, error: &io::Error) -> String {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) => "/dev/net/tun is missing: load the kernel module tun (modprobe tun)".into(),
        (_, Some(libc::EPERM | libc::EACCES)) => format!("making the TAP {name}: it needs root, or CAP_NET_ADMIN"),
        (_, Some(libc::EBUSY)) => format!("making the TAP {name}: another router in this network namespace has it"),
        _ => format!("making the TAP {name}: {error}"),
    }
}

#[cfg(test)]
mod tests;
