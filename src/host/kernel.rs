//! The kernel's engine of VXLAN between peers: its devices, what it is told to carry, and what is put back when others meddle.
//!
//! Owns the VXLAN devices (a network has one on its bridge for each IP family that neighbours are reached by, heartbeats have one of
//! their own), the entries in their forwarding tables and their bridges', and the heartbeats' sockets. Which MAC goes where is
//! `node::offload`'s. It works as a cache of flows: what the kernel was not told goes by the capture port to the data path, as always.
//!
//! ```text
//! attachment > guard > bridge - MAC known to be behind rnx<net>, sticky > rnx<net> - MAC -> address of a neighbour > UDP
//!                             - else: TAP > data path > udp framing
//! UDP > gate: neighbours only > rnx<net> > guard: nothing for many, nobody's name of here > bridge > attachments
//! ```
//!
//! - No flood list: floods go by the trees of the mesh, each exactly once; a list in the kernel would have to agree at every moment with
//!   each origin's tree at every peer. So the devices have no default remote, and their ports are given no floods.
//! - Nothing is learned from VXLAN, and entries are sticky: the same MAC also comes in by the TAP (its broadcasts), and must not move there.
//! - VXLAN port and TAP are isolated: what comes by one never leaves by the other, which would be a loop.
//!
//! Invariant: an entry is in the bridge only while the VXLAN device has its address; made in this order, removed in the other.

use super::adopt::network_of;
use super::apply::Host;
use super::beats::{Beats, listen};
use super::fence::{Fences, NEEDED};
use super::gate::Gate;
use super::plan::{self, Under};
use super::{guard, names};
use crate::io::fdb::{self, Entry};
use crate::io::netlink::{Link, Netlink};
use crate::io::packet::PacketSocket;
use crate::io::vxlan::PortRules;
use crate::node::border::{HostAnswer, VxlanPeer};
use crate::node::command::Interface;
use crate::types::{Mac, NetId, Network, PeerName, VNI_OF_PEERS};
use crate::wire::beat;
use nix::net::if_::if_nametoindex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// What a port of a VXLAN device does; the capture port is isolated too and otherwise as any.
pub(super) const RULES: PortRules = PortRules { isolated: true, learning: false, flood: false };
/// Changes within this time are answered together.
const PAUSE: Duration = Duration::from_millis(50);
/// And not more often than this.
const SPACING: Duration = Duration::from_millis(500);

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A network's devices.
struct Carried {
    mtu: u16,
    /// By family (IPv6: true): the device's number.
    devices: BTreeMap<bool, u32>,
    entries: BTreeMap<Mac, SocketAddr>,
}

#[derive(Default)]
struct Kept {
    /// UDP port, and the one address of this host that is used.
    open: Option<(u16, Option<IpAddr>)>,
    beats: BTreeMap<bool, (u32, Task)>,
    peers: BTreeMap<PeerName, SocketAddr>,
    networks: BTreeMap<NetId, Carried>,
    /// Puts back what others change, while it is open.
    watching: Option<Task>,
    /// Ours and guarded, by network and interface: who may not come from elsewhere.
    guarded: BTreeMap<(NetId, String), Mac>,
}

/// See the head of this file. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Kernel {
    kept: Arc<Mutex<Kept>>,
    pub gate: Gate,
    pub beats: Beats,
}

impl Kept {
    /// What one family's devices are made by.
    fn under(&self, ipv6: bool) -> Option<Under> {
        let (port, at) = self.open?;
        Some(Under { port, ipv6, local: at.filter(|at| at.is_ipv6() == ipv6 && !at.is_unspecified()) })
    }

    fn families(&self) -> BTreeSet<bool> {
        self.beats.keys().copied().collect()
    }

    fn guarded(&self, id: NetId) -> Vec<Mac> {
        let of = self.guarded.iter().filter(|((network, _), _)| *network == id);
        of.map(|(_, mac)| *mac).collect::<BTreeSet<Mac>>().into_iter().collect()
    }

    /// As it was made: the kernel leaves out the device's own port.
    fn whole(&self, entry: Entry) -> Entry {
        let port = self.open.map_or(0, |(port, _)| port);
        let to = entry.to.map(|to| if to.port() == 0 { SocketAddr::new(to.ip(), port) } else { to });
        Entry { to, ..entry }
    }

    fn sources(&self) -> BTreeSet<IpAddr> {
        self.peers.values().map(SocketAddr::ip).collect()
    }
}

impl Kernel {
    async fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().await
    }

    /// Where this peer's heartbeats come from.
    pub async fn address_of(&self, peer: PeerName) -> Option<SocketAddr> {
        self.kept().await.peers.get(&peer).copied()
    }

    /// Ends what listens and watches: the router ends without having closed the engine.
    pub fn let_go(&self) {
        if let Ok(mut kept) = self.kept.try_lock() {
            kept.watching = None;
            kept.beats.clear();
        }
    }

    pub async fn is_open(&self) -> bool {
        self.kept().await.open.is_some()
    }

    /// These attachments are here from now on (or no longer): nobody arrives by VXLAN in their name.
    pub async fn guard(&self, fences: &Fences, key: &str, interfaces: &[Interface], here: bool) -> Result<(), String> {
        let mut kept = self.kept().await;
        let mut changed = BTreeSet::new();
        for interface in interfaces {
            let name = (interface.id, format!("{key}\0{}", interface.name));
            let before = if here { kept.guarded.insert(name, interface.mac) } else { kept.guarded.remove(&name) };
            if before != here.then_some(interface.mac) {
                changed.insert(interface.id);
            }
        }
        for id in changed {
            let Some(carried) = kept.networks.get(&id) else { continue };
            for ipv6 in carried.devices.keys() {
                let device = names::vxlan(id.value(), *ipv6);
                fences.set(&device, guard::arrivals(&device, &kept.guarded(id))).await?;
            }
        }
        Ok(())
    }

    /// A device was changed, or is gone. Answers whether one of ours is not as it was made any more, and of which network it is. What is told is
    /// old news, maybe of our own doing: the device itself is looked at.
    pub async fn lost(&self, netlink: &Netlink, told: &Link) -> Option<Option<NetId>> {
        let mut kept = self.kept().await;
        kept.open?;
        if !names::is_vxlan(&told.name) {
            return if kept.is_intruder(netlink, told).await { Some(self.give_up(&mut kept)) } else { None };
        }
        let (ipv6, id) = (told.name.starts_with("rny"), network_of(&told.name));
        let link = netlink.link(&told.name).await.ok().flatten();
        let Some(id) = id else {
            let (index, _) = kept.beats.get(&ipv6)?;
            let right = link.is_some_and(|link| link.index == *index && link.up);
            return if right { None } else { Some(self.give_up(&mut kept)) };
        };
        let index = *kept.networks.get(&id)?.devices.get(&ipv6)?;
        let bridge = if_nametoindex(names::bridge(id).as_str()).ok();
        if link.is_some_and(|link| link.index == index && link.up && link.master.is_some() && link.master == bridge) {
            return None;
        }
        kept.networks.remove(&id);
        Some(Some(id))
    }

    /// Nothing of the engine counts any more.
    fn give_up(&self, kept: &mut Kept) -> Option<NetId> {
        kept.beats.clear();
        kept.networks.clear();
        self.beats.clear();
        None
    }

    /// Puts back what others change in the forwarding tables, for ever.
    async fn keep(self, netlink: Netlink) {
        loop {
            let Ok(mut watch) = fdb::Watch::open() else { return };
            while let Some((entry, is_there)) = watch.next().await {
                if !self.kept().await.is_wrong(entry, is_there) {
                    continue;
                }
                // Together with what follows at once.
                let quiet = async { while watch.next().await.is_some() {} };
                let _ = timeout(PAUSE, quiet).await;
                if let Err(why) = self.kept().await.settle(&netlink).await {
                    tracing::warn!("the kernel's VXLAN: {why}");
                }
                sleep(SPACING).await;
            }
            // The socket fell behind, or broke: everything is looked at.
            sleep(SPACING).await;
            let _ = self.kept().await.settle(&netlink).await;
        }
    }

    /// What a port of ours does was changed by somebody.
    pub async fn port_changed(&self, netlink: &Netlink, name: &str) {
        let kept = self.kept().await;
        let of = network_of(name).and_then(|id| kept.networks.get(&id));
        if of.is_none() || !names::is_vxlan(name) || netlink.port(name).await.ok().flatten() == Some(RULES) {
            return;
        }
        tracing::warn!("somebody changed what {name} does on its bridge: it is put back");
        if let Err(why) = netlink.set_port(name, RULES).await {
            tracing::warn!("the kernel's VXLAN: {why}");
        }
    }
}

impl Kept {
    /// Whether a change is none of ours.
    fn is_wrong(&self, entry: Entry, is_there: bool) -> bool {
        let entry = self.whole(entry);
        let device = |carried: &&Carried| carried.devices.values().any(|index| *index == entry.device);
        if let Some(carried) = self.networks.values().find(device) {
            return match (carried.entries.get(&entry.mac), is_there) {
                (wanted, true) => !entry.own && (wanted.is_none() || entry.to.is_some_and(|to| Some(&to) != wanted)),
                (wanted, false) => wanted.is_some(),
            };
        }
        if self.beats.values().all(|(index, _)| *index != entry.device) {
            return false;
        }
        let wanted = self.peers.iter().find(|(peer, _)| peer.0 == entry.mac).map(|(_, to)| *to);
        if is_there { entry.to.is_some() && entry.to != wanted } else { wanted.is_some() }
    }

    /// Whether somebody else's VXLAN device has our port now: it would hear what is not for it, and not what is.
    async fn is_intruder(&self, netlink: &Netlink, told: &Link) -> bool {
        let Some((port, _)) = self.open.filter(|_| told.kind == "vxlan" && told.up) else { return false };
        let all = netlink.vxlans().await.unwrap_or_default();
        all.iter().any(|(link, vxlan)| link.index == told.index && vxlan.port == port)
    }

    /// Makes the forwarding tables what they are to be.
    async fn settle(&self, netlink: &Netlink) -> Result<(), String> {
        let all = || self.networks.values().flat_map(|carried| &carried.devices).map(|(_, index)| *index);
        let devices: Vec<u32> = all().chain(self.beats.values().map(|(index, _)| *index)).collect();
        let entries = netlink.entries(&devices).await.map_err(|e| e.to_string())?;
        let entries: Vec<Entry> = entries.into_iter().map(|entry| self.whole(entry)).collect();
        let mut restored = 0;
        for carried in self.networks.values() {
            for (ipv6, device) in &carried.devices {
                restored += settle_device(netlink, (*device, *ipv6), &carried.entries, &entries, true).await?;
            }
        }
        for (ipv6, (device, _)) in &self.beats {
            let wanted = self.peers.iter().map(|(peer, to)| (peer.0, *to)).collect();
            restored += settle_device(netlink, (*device, *ipv6), &wanted, &entries, false).await?;
        }
        if restored > 0 {
            tracing::warn!("somebody changed {restored} entries of the kernel's forwarding tables: they are put back");
        }
        Ok(())
    }
}

/// Answers how many entries of a device were wrong.
async fn settle_device(
    netlink: &Netlink,
    (device, ipv6): (u32, bool),
    wanted: &BTreeMap<Mac, SocketAddr>,
    entries: &[Entry],
    bridged: bool,
) -> Result<usize, String> {
    let mut wrong = 0;
    let wanted: BTreeMap<Mac, SocketAddr> =
        wanted.iter().filter(|(_, to)| to.is_ipv6() == ipv6).map(|(mac, to)| (*mac, *to)).collect();
    let here = || entries.iter().filter(|entry| entry.device == device && !entry.own);
    for entry in here().filter(|entry| !wanted.contains_key(&entry.mac)) {
        wrong += 1;
        let removed = match entry.to {
            Some(_) => netlink.send_nowhere(device, entry.mac).await,
            None => netlink.unstick(device, entry.mac).await,
        };
        removed.map_err(|e| e.to_string())?;
    }
    for (mac, to) in &wanted {
        if !here().any(|entry| entry.mac == *mac && entry.to == Some(*to)) {
            wrong += 1;
            netlink.send_to(device, *mac, *to).await.map_err(|e| e.to_string())?;
        }
        if bridged && !here().any(|entry| entry.mac == *mac && entry.to.is_none() && entry.sticky) {
            wrong += 1;
            netlink.stick(device, *mac).await.map_err(|e| e.to_string())?;
        }
    }
    Ok(wrong)
}

impl Host {
    /// Opens the engine, and answers the peers that a killed router had agreed it with. The error is one line.
    pub(super) async fn open_vxlan(&mut self, port: u16) -> Result<HostAnswer, String> {
        if self.kernel.is_open().await {
            self.close_vxlan().await?;
        }
        self.check_engine(port).await?;
        self.kernel.kept().await.open = Some((port, self.at));
        match self.try_open_vxlan(port).await {
            Ok(peers) => Ok(HostAnswer::Vxlan(peers)),
            Err(why) => {
                let _ = self.close_vxlan().await;
                Err(why)
            }
        }
    }

    async fn try_open_vxlan(&mut self, port: u16) -> Result<Vec<VxlanPeer>, String> {
        let first = self.at.is_some_and(|at| at.is_ipv6() && !at.is_unspecified());
        // Before the device, so that it never hears a stranger; but not before what was agreed is known.
        let peers = self.former_peers(port).await;
        self.kernel.gate.set(port, &peers.iter().map(|peer| peer.address.ip()).collect()).await?;
        let families: BTreeSet<bool> = [first].into_iter().chain(peers.iter().map(|p| p.address.is_ipv6())).collect();
        for ipv6 in families {
            self.open_beats(ipv6).await?;
        }
        if self.fences.are_lacking().await {
            return Err(NEEDED.to_string());
        }
        let watching = Task(tokio::spawn(self.kernel.clone().keep(self.shared.netlink.clone())));
        let mut kept = self.kernel.kept().await;
        kept.watching = Some(watching);
        kept.peers = peers.iter().map(|peer| (peer.peer, peer.address)).collect();
        Ok(peers)
    }

    /// The peers whose heartbeats a killed router was told to send where.
    async fn former_peers(&self, port: u16) -> Vec<VxlanPeer> {
        let devices = [false, true].map(|ipv6| names::vxlan(VNI_OF_PEERS, ipv6)).into_iter();
        let kept = devices.filter(|name| self.found.has(name)).filter_map(|name| if_nametoindex(name.as_str()).ok());
        let entries = self.shared.netlink.entries(&kept.collect::<Vec<_>>()).await.unwrap_or_default();
        let address = |to: SocketAddr| if to.port() == 0 { SocketAddr::new(to.ip(), port) } else { to };
        let peer = |entry: &Entry| Some(VxlanPeer { peer: PeerName(entry.mac), address: address(entry.to?) });
        entries.iter().filter_map(peer).collect()
    }

    /// Makes the device of heartbeats of one family, and listens there.
    async fn open_beats(&mut self, ipv6: bool) -> Result<(), String> {
        let under = self.kernel.kept().await.under(ipv6).ok_or("the engine is not open")?;
        let name = names::vxlan(VNI_OF_PEERS, ipv6);
        if let Err(why) = self.run(plan::beats(&under), None).await {
            return Err(self.told(under.port, why).await);
        }
        let failed = |why: &dyn std::fmt::Display| format!("heartbeats on {name}: {why}");
        let index = if_nametoindex(name.as_str()).map_err(|why| failed(&why))?;
        let socket = Arc::new(PacketSocket::open(&name, beat::ETHER_TYPE).map_err(|why| failed(&why))?);
        let listening = listen(self.kernel.clone(), socket.clone(), self.shared.events.clone());
        self.kernel.kept().await.beats.insert(ipv6, (index, Task(tokio::spawn(listening))));
        self.kernel.beats.set(ipv6, socket);
        Ok(())
    }

    /// Closes the engine, and removes all devices of it.
    pub(super) async fn close_vxlan(&mut self) -> Result<(), String> {
        let (networks, beats) = {
            let mut kept = self.kernel.kept().await;
            (kept.open, kept.watching) = (None, None);
            kept.peers.clear();
            (std::mem::take(&mut kept.networks), std::mem::take(&mut kept.beats))
        };
        self.kernel.beats.clear();
        let mut done = Ok(());
        for (id, carried) in networks {
            for ipv6 in carried.devices.into_keys() {
                done = done.and(self.run(plan::close_vxlan(id.value(), ipv6), None).await);
            }
        }
        for ipv6 in beats.into_keys() {
            done = done.and(self.run(plan::close_vxlan(VNI_OF_PEERS, ipv6), None).await);
        }
        done.and(self.kernel.gate.clear().await)
    }

    /// VXLAN is taken from these and nobody else, and heartbeats go to them.
    pub(super) async fn vxlan_peers(&mut self, peers: &[VxlanPeer]) -> Result<(), String> {
        let Some((port, _)) = self.kernel.kept().await.open else { return Ok(()) };
        let wanted: BTreeMap<PeerName, SocketAddr> = peers.iter().map(|peer| (peer.peer, peer.address)).collect();
        let families: BTreeSet<bool> = wanted.values().map(SocketAddr::is_ipv6).collect();
        let lacking: Vec<bool> = families.difference(&self.kernel.kept().await.families()).copied().collect();
        for ipv6 in lacking {
            self.open_beats(ipv6).await?;
            let networks: Vec<(NetId, u16)> =
                self.kernel.kept().await.networks.iter().map(|(id, carried)| (*id, carried.mtu)).collect();
            for (id, mtu) in networks {
                self.open_device(id, mtu, ipv6).await?;
            }
        }
        let mut kept = self.kernel.kept().await;
        let before = std::mem::replace(&mut kept.peers, wanted.clone());
        self.kernel.gate.set(port, &kept.sources()).await?;
        let netlink = &self.shared.netlink;
        for (peer, to) in before.iter().filter(|(peer, to)| wanted.get(peer) != Some(to)) {
            if let Some((device, _)) = kept.beats.get(&to.is_ipv6()) {
                netlink.send_nowhere(*device, peer.0).await.map_err(|e| e.to_string())?;
            }
        }
        for (peer, to) in wanted.iter().filter(|(peer, to)| before.get(peer) != Some(to)) {
            let device = kept.beats.get(&to.is_ipv6()).map_or(0, |(device, _)| *device);
            netlink.send_to(device, peer.0, *to).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Makes a network's devices, and answers what a killed router had the kernel carry there.
    pub(super) async fn open_offload(&mut self, network: Network, id: NetId, mtu: u16) -> Result<HostAnswer, String> {
        let mtu = network.usable_mtu(mtu);
        let families = {
            let mut kept = self.kernel.kept().await;
            if kept.open.is_none() {
                return Err("the kernel's engine is not open".to_string());
            }
            kept.networks.remove(&id);
            kept.families()
        };
        let mut former = Vec::new();
        for ipv6 in families {
            let name = names::vxlan(id.value(), ipv6);
            let left = self.found.has(&name);
            self.open_device(id, mtu, ipv6).await?;
            if left {
                former.extend(self.former_entries(&name).await?);
            }
        }
        let mut kept = self.kernel.kept().await;
        if let Some(carried) = kept.networks.get_mut(&id) {
            carried.entries = former.iter().copied().collect();
        }
        kept.settle(&self.shared.netlink).await?;
        Ok(HostAnswer::Offloaded(former))
    }

    async fn open_device(&mut self, id: NetId, mtu: u16, ipv6: bool) -> Result<(), String> {
        let (under, guarded) = {
            let kept = self.kernel.kept().await;
            (kept.under(ipv6).ok_or("the engine is not open")?, kept.guarded(id))
        };
        if let Err(why) = self.run(plan::offload(id, mtu, &under, guarded), None).await {
            return Err(self.told(under.port, why).await);
        }
        let name = names::vxlan(id.value(), ipv6);
        let index = if_nametoindex(name.as_str()).map_err(|why| format!("{name}: {why}"))?;
        let mut kept = self.kernel.kept().await;
        let empty = || Carried { mtu, devices: BTreeMap::new(), entries: BTreeMap::new() };
        kept.networks.entry(id).or_insert_with(empty).devices.insert(ipv6, index);
        Ok(())
    }

    /// Entries that are whole: in the device and in its bridge.
    async fn former_entries(&self, name: &str) -> Result<Vec<(Mac, SocketAddr)>, String> {
        let Ok(index) = if_nametoindex(name) else { return Ok(Vec::new()) };
        let entries = self.shared.netlink.entries(&[index]).await.map_err(|e| e.to_string())?;
        let kept = self.kernel.kept().await;
        let entries: Vec<Entry> = entries.into_iter().map(|entry| kept.whole(entry)).collect();
        let stuck: BTreeSet<Mac> = entries.iter().filter(|entry| entry.sticky).map(|entry| entry.mac).collect();
        let whole = entries.iter().filter(|entry| stuck.contains(&entry.mac));
        Ok(whole.filter_map(|entry| Some((entry.mac, entry.to?))).collect())
    }

    pub(super) async fn close_offload(&mut self, id: NetId) -> Result<(), String> {
        let carried = self.kernel.kept().await.networks.remove(&id);
        let families =
            carried.map(|carried| carried.devices.into_keys().collect()).unwrap_or_else(|| vec![false, true]);
        let mut done = Ok(());
        for ipv6 in families {
            done = done.and(self.run(plan::close_vxlan(id.value(), ipv6), None).await);
        }
        done
    }

    /// Has the kernel carry frames for `mac` there, or no longer.
    pub(super) async fn offload(&mut self, id: NetId, mac: Mac, to: Option<SocketAddr>) -> Result<(), String> {
        let mut kept = self.kernel.kept().await;
        let netlink = &self.shared.netlink;
        let Some(carried) = kept.networks.get_mut(&id) else {
            return to.map_or(Ok(()), |_| Err(format!("network {id} has no VXLAN device")));
        };
        let before = carried.entries.remove(&mac);
        if let Some(to) = to {
            let device =
                *carried.devices.get(&to.is_ipv6()).ok_or_else(|| format!("{to}: no VXLAN device of its family"))?;
            let install = async {
                netlink.send_to(device, mac, to).await?;
                netlink.stick(device, mac).await
            };
            carried.entries.insert(mac, to);
            if let Err(why) = install.await {
                carried.entries.remove(&mac);
                let _ = netlink.unstick(device, mac).await;
                let _ = netlink.send_nowhere(device, mac).await;
                return Err(why.to_string());
            }
        }
        let stale = before.and_then(|before| carried.devices.get(&before.is_ipv6()).map(|device| (before, *device)));
        let Some((_, device)) = stale.filter(|(before, _)| to.is_none_or(|to| to.is_ipv6() != before.is_ipv6())) else {
            return Ok(());
        };
        if to.is_none() {
            // The frames of a flow go on by the data path; without an entry they would go to every attachment here.
            let leant = match self.capture_index(id) {
                Some(capture) => netlink.lean(capture, mac).await.is_ok(),
                None => false,
            };
            if !leant {
                netlink.unstick(device, mac).await.map_err(|e| e.to_string())?;
            }
        }
        netlink.send_nowhere(device, mac).await.map(drop).map_err(|e| e.to_string())
    }

    fn capture_index(&self, id: NetId) -> Option<u32> {
        if_nametoindex(plan::on_bridge(id, self.capture.kind).as_str()).ok()
    }
}
