//! Captured interfaces of this host: opened, given up, and followed while they go down, away and come back.
//!
//! Owns which interface is captured for which port, the checks of what can be captured, and when a capture is made anew. The
//! captures are handed to the data path as they are opened, and closed by it. Changes nothing on the interface but that it is
//! promiscuous meanwhile. What the kernel keeps from us (`io::sieve`) follows the UDP ports by which VTEPs are reached.
//!
//! ```text
//! there and up            captured: Up(mtu)       what it is called counts, not its number: a successor of the same name is it
//! down, deleted, renamed  not: Away(why)          its captures are closed
//! another MTU             Up(mtu), and captured anew where the capture has slots of that size (libpcap)
//! ```
//!
//! Invariant: no two are captured of which one lies upon the other (a bridge and its port, a bond and its slave, a VLAN and its
//! parent): every broadcast would pass both, and beacons of loops would not tell, since none comes back from the wire.

use super::events::HostEvent;
use super::names;
use crate::io::capture::Capture;
use crate::io::netlink::Link;
use crate::io::sieve::{self, Part};
use crate::io::{pcap, raw};
use crate::node::border::UplinkState;
use crate::node::command::{Uplink, UplinkCapture};
use crate::plane::fib::PortId;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// How interfaces are captured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Means {
    /// Data path threads.
    pub queues: usize,
    /// Super-frames and unfinished checksums are taken.
    pub offload: bool,
}

struct Held {
    uplink: Uplink,
    /// TCP and UDP port of the mesh.
    mesh: u16,
    /// While it is captured: the interface's number, and its MTU.
    captured: Option<(u32, u32)>,
    /// As it was told last.
    told: Option<UplinkState>,
    /// By which filters are replaced.
    handles: Vec<OwnedFd>,
    /// Away only because another one that is captured carries the same frames.
    stands_back: bool,
}

#[derive(Default)]
struct Table {
    held: BTreeMap<PortId, Held>,
    /// UDP ports of this host by which VTEPs are reached.
    doors: Vec<u16>,
    /// All interfaces, by number.
    links: BTreeMap<u32, Link>,
}

impl Table {
    /// Whether the interface of `port` can be captured beside the others.
    fn fitness(&self, port: PortId) -> Result<Link, Unfit> {
        let Some(held) = self.held.get(&port) else { return Err(Unfit::Itself("it is not wanted any more".into())) };
        let links: Vec<&Link> = self.links.values().collect();
        let name = held.uplink.interface.as_str();
        let link = fitness(name, &links).map_err(Unfit::Itself)?;
        let captured = self.held.iter().filter(|(other, held)| **other != port && held.captured.is_some());
        let names: Vec<&str> = captured.map(|(_, held)| held.uplink.interface.as_str()).collect();
        together(link, &names, &links).map_err(Unfit::Beside)?;
        Ok(link.clone())
    }
}

/// Why an interface cannot be captured, as one line.
enum Unfit {
    /// It would not do.
    Itself(String),
    /// Another one is captured that carries the same frames.
    Beside(String),
}

/// See the head of this file. Cheap to clone.
#[derive(Clone)]
pub(super) struct Uplinks {
    means: Means,
    events: UnboundedSender<HostEvent>,
    table: Arc<Mutex<Table>>,
}

impl Uplinks {
    pub fn new(means: Means, events: UnboundedSender<HostEvent>) -> Uplinks {
        Uplinks { means, events, table: Arc::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Captures an interface for `port`, of which the kernel says `links`. If it `must` be possible now, the error says in one line
    /// why it is not; else it is waited for.
    pub fn open(&self, port: PortId, uplink: &Uplink, (mesh, must): (u16, bool), links: &[Link]) -> Result<(), String> {
        let mut table = self.table();
        let (uplink, handles) = (uplink.clone(), Vec::new());
        let held = Held { uplink, mesh, captured: None, told: None, handles, stands_back: false };
        table.held.insert(port, held);
        table.links = links.iter().map(|link| (link.index, link.clone())).collect();
        match self.try_capture(&mut table, port) {
            Err(Unfit::Itself(why) | Unfit::Beside(why)) if must => {
                table.held.remove(&port);
                Err(why)
            }
            Err(why) => {
                self.lose(&mut table, port, why);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn try_capture(&self, table: &mut Table, port: PortId) -> Result<(), Unfit> {
        let link = table.fitness(port)?;
        self.capture(table, port, &link).map_err(Unfit::Itself)
    }

    /// Those that stood back behind what was captured: maybe they need not any more.
    fn review(&self, table: &mut Table) {
        let back: Vec<PortId> = table.held.iter().filter(|(_, held)| held.stands_back).map(|(port, _)| *port).collect();
        for port in back {
            if let Err(why) = self.try_capture(table, port) {
                self.lose(table, port, why);
            }
        }
    }

    /// The interface of `port` is captured no longer.
    pub fn close(&self, port: PortId) {
        let mut table = self.table();
        if table.held.remove(&port).is_some() {
            let _ = self.events.send(HostEvent::Closed { port });
            self.review(&mut table);
        }
    }

    /// An interface is new or changed.
    pub fn changed(&self, link: &Link) {
        let mut table = self.table();
        table.links.retain(|index, other| *index == link.index || other.name != link.name);
        let was = table.links.insert(link.index, link.clone());
        let moved = was.is_none_or(|was| (was.master, was.lower) != (link.master, link.lower));
        let ports: Vec<PortId> = table.held.keys().copied().collect();
        for port in ports {
            let Some(held) = table.held.get(&port) else { continue };
            let is_named = held.uplink.interface.as_str() == link.name;
            match held.captured {
                // Renamed.
                Some((index, _)) if index == link.index && !is_named => {
                    let why = format!("it is called {} now", link.name);
                    self.lose(&mut table, port, Unfit::Itself(why));
                }
                // What lies between two may be neither.
                Some(_) if moved && matches!(table.fitness(port), Err(Unfit::Beside(_))) => {
                    if let Err(why) = table.fitness(port) {
                        self.lose(&mut table, port, why);
                    }
                }
                _ if !is_named => {}
                Some((index, mtu)) if index == link.index && link.up => {
                    if mtu != link.mtu {
                        let anew = held.uplink.capture == UplinkCapture::Pcap;
                        self.widen(&mut table, port, link, anew);
                    }
                }
                _ => {
                    if let Err(why) = self.try_capture(&mut table, port) {
                        self.lose(&mut table, port, why);
                    }
                }
            }
        }
        self.review(&mut table);
    }

    /// An interface is gone.
    pub fn gone(&self, link: &Link) {
        let mut table = self.table();
        table.links.remove(&link.index);
        let is_it = |held: &Held| match held.captured {
            Some((index, _)) => index == link.index,
            None => held.uplink.interface.as_str() == link.name,
        };
        let ports: Vec<PortId> = table.held.iter().filter(|(_, held)| is_it(held)).map(|(port, _)| *port).collect();
        for port in ports {
            self.lose(&mut table, port, Unfit::Itself("there is no such interface any more".to_string()));
        }
        self.review(&mut table);
    }

    /// VTEPs are reached by these UDP ports of this host.
    pub fn doors_are(&self, doors: Vec<u16>) {
        let mut table = self.table();
        table.doors = doors;
        let deaf_to = |held: &Held| [&[held.mesh][..], &table.doors].concat();
        for held in table.held.values() {
            let ports = deaf_to(held);
            for handle in &held.handles {
                if let Err(why) = sieve::attach(handle, &ports, Part::All) {
                    tracing::warn!("{}: the filter cannot be replaced: {why}", held.uplink.interface);
                }
            }
        }
    }

    fn widen(&self, table: &mut Table, port: PortId, link: &Link, anew: bool) {
        if anew {
            if let Err(why) = self.capture(table, port, link) {
                self.lose(table, port, Unfit::Itself(why));
            }
            return;
        }
        if let Some(held) = table.held.get_mut(&port) {
            held.captured = Some((link.index, link.mtu));
        }
        self.tell(table, port, UplinkState::Up(mtu_of(link)));
    }

    /// Opens captures and hands them over, instead of those that there are.
    fn capture(&self, table: &mut Table, port: PortId, link: &Link) -> Result<(), String> {
        let doors = table.doors.clone();
        let Some(held) = table.held.get_mut(&port) else { return Ok(()) };
        let deaf_to = [&[held.mesh][..], &doors].concat();
        let name = held.uplink.interface.as_str();
        let Means { queues, offload } = self.means;
        let (captures, handles): (Vec<Capture>, _) = match held.uplink.capture {
            UplinkCapture::Packet => {
                let wish = raw::Wish { queues, offload, deaf_to: &deaf_to };
                let all = raw::Raw::open(name, wish).map_err(|e| refused(&e))?;
                let handles: Result<Vec<OwnedFd>, _> = all.iter().map(raw::Raw::handle).collect();
                (all.into_iter().map(Capture::Raw).collect(), handles)
            }
            UplinkCapture::Pcap => {
                let wish = pcap::Wish { longest: pcap::SUPER, queues, offload, deaf_to: &deaf_to, marking: None };
                let mut all = pcap::Pcap::open(name, wish)?;
                let handles: Result<Vec<OwnedFd>, _> = all.iter_mut().take(1).map(pcap::Pcap::handle).collect();
                (all.into_iter().map(Capture::Pcap).collect(), handles)
            }
        };
        held.handles = handles.map_err(|e| e.to_string())?;
        held.captured = Some((link.index, link.mtu));
        held.stands_back = false;
        let _ = self.events.send(HostEvent::Opened { port, captures });
        self.tell(table, port, UplinkState::Up(mtu_of(link)));
        Ok(())
    }

    /// It cannot be captured just now.
    fn lose(&self, table: &mut Table, port: PortId, why: Unfit) {
        let (why, stands_back) = match why {
            Unfit::Itself(why) => (why, false),
            Unfit::Beside(why) => (why, true),
        };
        if let Some(held) = table.held.get_mut(&port) {
            held.stands_back = stands_back;
            held.handles.clear();
            if held.captured.take().is_some() {
                let _ = self.events.send(HostEvent::Closed { port });
            }
        }
        self.tell(table, port, UplinkState::Away(why));
    }

    fn tell(&self, table: &mut Table, port: PortId, state: UplinkState) {
        let Some(held) = table.held.get_mut(&port) else { return };
        if held.told.as_ref() != Some(&state) {
            held.told = Some(state.clone());
            let _ = self.events.send(HostEvent::Uplink { port, state });
        }
    }
}

fn mtu_of(link: &Link) -> u16 {
    u16::try_from(link.mtu).unwrap_or(u16::MAX)
}

/// Whether an interface can be captured, among all `links` that there are. The error is one line, with what to do.
pub(super) fn fitness<'l>(name: &str, links: &[&'l Link]) -> Result<&'l Link, String> {
    let link = links.iter().copied().find(|link| link.name == name);
    let link = link.ok_or("there is no such interface: `ip link` lists them")?;
    let is_ours = |link: &Link| names::is_ours(&link.name, &link.kind);
    if is_ours(link) {
        return Err("it is rnet's own: what is attached to rnet is on its network already".to_string());
    }
    if !link.ethernet {
        return Err("it is no Ethernet interface".to_string());
    }
    if let Some(bridge) = links.iter().find(|other| Some(other.index) == link.master && is_ours(other)) {
        return Err(format!("it is a port of rnet's own bridge {}, and on its network already", bridge.name));
    }
    if !link.up {
        return Err(format!("it is down: bring it up first: ip link set {name} up"));
    }
    Ok(link)
}

/// Whether an interface carries nothing that one of the `captured` does. The error is one line that names both.
pub(super) fn together(link: &Link, captured: &[&str], links: &[&Link]) -> Result<(), String> {
    let others = captured.iter().filter_map(|name| links.iter().find(|other| other.name == *name));
    for other in others.filter(|other| other.index != link.index) {
        let (below, upon) = if above(link, links).contains(&other.index) {
            (&link.name, &other.name)
        } else if above(other, links).contains(&link.index) {
            (&other.name, &link.name)
        } else {
            continue;
        };
        let (name, other) = (&link.name, &other.name);
        return Err(format!(
            "what passes {below} passes {upon} too (`ip -d link show {below}`), and {other} is captured already: every broadcast \
             would be carried twice; capture either {name} or {other}"
        ));
    }
    Ok(())
}

/// Numbers of the devices that get what this one does: its master, what is made upon it, theirs, and so on.
fn above(link: &Link, links: &[&Link]) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut due = vec![(link.index, link.master)];
    while let Some((index, master)) = due.pop() {
        let upon = links.iter().filter(|other| other.lower == Some(index) || Some(other.index) == master);
        for other in upon {
            if found.insert(other.index) {
                due.push((other.index, other.master));
            }
        }
    }
    found
}

fn refused(why: &std::io::Error) -> String {
    match why.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "it needs root, or CAP_NET_RAW and CAP_NET_ADMIN".to_string(),
        Some(libc::ENODEV | libc::ENXIO) => "there is no such interface: `ip link` lists them".to_string(),
        Some(libc::EAFNOSUPPORT) => "the kernel has no AF_PACKET: load the module af_packet".to_string(),
        _ => format!("it cannot be captured: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, kind: &str) -> Link {
        Link {
            index: 7,
            name: name.into(),
            kind: kind.into(),
            ethernet: true,
            up: true,
            promiscuity: 0,
            master: None,
            lower: None,
            peer: None,
            forwarding: false,
            mtu: 1500,
            mac: None,
        }
    }

    #[test]
    fn what_cannot_be_captured_is_told_with_what_to_do() {
        let eth1 = link("eth1", "");
        let ours = Link { index: 3, ..link("rnb8312a4", "bridge") };
        let port = Link { master: Some(3), ..eth1.clone() };
        let facts = [
            (None, "there is no such interface"),
            (Some(ours.clone()), "rnet's own"),
            (Some(link("rnt8312a4", "tun")), "rnet's own"),
            (Some(link("rnv01234567", "veth")), "rnet's own"),
            (Some(Link { ethernet: false, ..link("tun0", "tun") }), "no Ethernet"),
            (Some(Link { up: false, ..eth1.clone() }), "ip link set eth1 up"),
            (Some(port), "a port of rnet's own bridge rnb8312a4"),
        ];
        for (link, told) in facts {
            let links: Vec<&Link> = link.iter().chain([&ours]).collect();
            let name = link.as_ref().map_or("eth1", |link| link.name.as_str());
            let why = fitness(name, &links).unwrap_err();
            assert!(why.contains(told), "{link:?}: {why}");
        }
        assert!(fitness("eth1", &[&eth1, &ours]).is_ok());
    }

    #[test]
    fn what_lies_upon_another_one_is_not_captured_beside_it_and_what_lies_next_to_it_is() {
        let at = |index, name: &str, (master, lower)| Link { index, master, lower, ..link(name, "") };
        let links = [
            at(1, "eth1", (Some(3), None)),
            at(2, "eth2", (Some(3), None)),
            at(3, "bond0", (None, None)),
            at(4, "bond0.10", (Some(6), Some(3))),
            at(5, "bond0.20", (None, Some(3))),
            at(6, "br0", (None, None)),
            at(7, "eth3", (None, None)),
        ];
        let links: Vec<&Link> = links.iter().collect();
        let both = |one: &str, other: &str| {
            let link = links.iter().find(|link| link.name == one).unwrap();
            together(link, &[other], &links)
        };
        for (below, upon) in
            [("eth1", "bond0"), ("eth1", "bond0.10"), ("eth2", "br0"), ("bond0", "bond0.20"), ("bond0.10", "br0")]
        {
            let told = format!("what passes {below} passes {upon} too");
            assert!(
                both(below, upon).unwrap_err().starts_with(&told) && both(upon, below).unwrap_err().starts_with(&told)
            );
        }
        for (one, other) in
            [("eth1", "eth3"), ("bond0.10", "bond0.20"), ("eth3", "br0"), ("eth1", "eth1"), ("eth1", "eth9")]
        {
            assert_eq!(both(one, other), Ok(()), "{one} and {other}");
        }
    }
}
