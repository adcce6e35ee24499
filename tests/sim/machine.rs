//! A host: what its disk, its kernel and its router process hold, and what becomes of frames between attachments and router.
//!
//! The kernel is strict where the real one is: a port is opened once, an interface is plugged into a network that is open, and
//! a network is closed when nothing is on it any more. A router that asks otherwise fails the story.

use super::frames::{self, Said};
use super::wires::PORT;
use super::world::{Event, H, World};
use ipnet::IpNet;
use rnet::ipam::Init;
use rnet::node::Node;
use rnet::node::border::{HostAnswer, HostOp, Level, State};
use rnet::node::command::{Interface, Reply};
use rnet::plane::fib::PortId;
use rnet::plane::{Event as PlaneEvent, Plane, Sink};
use rnet::types::{Engine, Framing, Instant, Mac, Mtu, NetId, PublicKey, StaticKey, Uid};
use rnet::wire::virtio::Offload;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How a router is launched.
#[derive(Debug, Clone)]
pub struct Options {
    pub password: Option<u8>,
    pub allow: Option<Vec<PublicKey>>,
    pub discovery: bool,
    pub limit: usize,
    pub range: String,
    pub init: Init,
    pub reclaim: Option<Duration>,
    pub aes: bool,
    pub mtu: Mtu,
    pub framing: Option<Framing>,
    pub trusted: Vec<IpNet>,
    pub advertise: Vec<SocketAddr>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            password: Some(1),
            allow: None,
            discovery: true,
            limit: 200,
            range: "10.32.0.0/12".into(),
            init: Init::Consensus(1),
            reclaim: Some(Duration::from_secs(3600)),
            aes: true,
            mtu: Mtu::Fixed(1376),
            framing: None,
            trusted: Vec::new(),
            advertise: Vec::new(),
        }
    }
}

/// A running router.
pub struct Process {
    pub node: Node,
    pub plane: Arc<Plane>,
    pub wake_at: Option<Instant>,
    /// How often it was woken by its own timers.
    pub wakes: u64,
    pub next_link: u64,
    pub replies: BTreeMap<u64, Reply>,
    pub stopped: bool,
}

/// An interface in a container.
#[derive(Debug)]
pub struct Nic {
    pub key: String,
    pub net: NetId,
    pub mac: Mac,
    pub ip: Ipv4Addr,
    neighbours: BTreeMap<Ipv4Addr, Mac>,
    /// Told its networks that it is there.
    announced: bool,
}

pub struct Host {
    pub name: String,
    pub ip: IpAddr,
    /// Bytes of IP packets that its line takes.
    pub line_mtu: usize,
    /// Behind a translator with this address, which maps its datagrams to this port and lets in only answers.
    pub nat: Option<SocketAddr>,
    /// The translator takes another port for each destination.
    pub nat_random: bool,
    /// How long it remembers.
    pub nat_life: Duration,
    /// Whom it sent datagrams to through the translator, and when it last did or was answered.
    pub contacted: BTreeMap<SocketAddr, Instant>,
    /// Besides `ip`, told to the router.
    pub more_ips: Vec<IpAddr>,
    /// What its kernel sends from, if not from `ip`.
    pub usual_ip: Option<IpAddr>,
    /// The router asked to be told which address a probe came to.
    pub locates: bool,
    /// Where the router says that datagrams leave from.
    pub sources: BTreeMap<SocketAddr, IpAddr>,
    pub key: StaticKey,
    pub uid: Uid,
    pub options: Options,
    /// What the router asked to be kept.
    pub disk: Option<State>,
    pub powered: bool,
    /// Counts starts and ends of the process: what was meant for an earlier one is void.
    pub life: u64,
    pub process: Option<Process>,
    pub ports: BTreeMap<PortId, NetId>,
    pub nics: Vec<Nic>,
    /// Captured interfaces: name, network, and whether the router knows that they are up.
    pub uplinks: BTreeMap<PortId, (String, NetId, bool)>,
    pub log: Vec<(Instant, Level, String)>,
    /// The next so many changes to this machine fail.
    pub failing_changes: usize,
    /// Echo replies that came back: id, when.
    pub answered: BTreeMap<u64, Instant>,
    /// MTU of each network's devices.
    pub mtus: BTreeMap<NetId, u16>,
    /// The UDP port by which it speaks VXLAN with peers.
    pub vxlan: Option<u16>,
    /// The smallest MTU that an ICMP told, if any did.
    pub told_mtu: Option<u16>,
}

impl Host {
    pub fn port(&self, net: NetId) -> Option<PortId> {
        self.ports.iter().find(|(_, id)| **id == net).map(|(port, _)| *port)
    }

    /// As its kernel lists them.
    pub fn addresses(&self) -> Vec<(String, IpAddr)> {
        std::iter::once(self.ip).chain(self.more_ips.iter().copied()).map(|ip| ("eth0".to_string(), ip)).collect()
    }

    pub fn nic(&self, net: NetId) -> Option<&Nic> {
        self.nics.iter().find(|nic| nic.net == net)
    }

    pub fn has_logged(&self, text: &str) -> bool {
        self.log.iter().any(|(_, _, line)| line.contains(text))
    }

    pub fn change(&mut self, op: HostOp) -> Result<HostAnswer, String> {
        if self.failing_changes > 0 {
            self.failing_changes -= 1;
            return Err("no".into());
        }
        match op {
            HostOp::OpenNetwork { id, port, mtu, .. } => {
                self.mtus.insert(id, mtu);
                assert!(self.ports.values().all(|open| *open != id), "{}: network {id} is opened twice", self.name);
                assert!(self.ports.insert(port, id).is_none(), "{}: {port:?} is used again", self.name);
            }
            HostOp::CloseNetwork { id, port } => {
                assert!(
                    self.nics.iter().all(|nic| nic.net != id),
                    "{}: network {id} is closed while in use",
                    self.name
                );
                assert_eq!(self.ports.remove(&port), Some(id), "{}: closes what is not open", self.name);
            }
            HostOp::Recapture { id, gone, port, .. } => {
                assert_eq!(self.ports.remove(&gone), Some(id), "{}: captures anew what is not open", self.name);
                assert!(self.ports.insert(port, id).is_none(), "{}: {port:?} is used again", self.name);
            }
            HostOp::Plug { key, interfaces, .. } => interfaces.iter().for_each(|interface| self.plug(&key, interface)),
            HostOp::Unplug { key, interfaces, .. } => {
                let gone: BTreeSet<Mac> = interfaces.iter().map(|interface| interface.mac).collect();
                self.nics.retain(|nic| nic.key != key || !gone.contains(&nic.mac));
            }
            HostOp::ResizeNetwork { id, mtu, .. } => {
                assert!(self.ports.values().any(|open| *open == id), "{}: widens what is not open", self.name);
                self.mtus.insert(id, mtu);
            }
            HostOp::Resize { .. } | HostOp::Filter(_) | HostOp::OpenTunnel { .. } | HostOp::CloseTunnel { .. } => {}
            HostOp::OpenUplink { port, id, uplink, .. } => {
                let uplink = (uplink.interface.to_string(), id, false);
                assert!(self.uplinks.insert(port, uplink).is_none(), "{}: {port:?} is used again", self.name);
            }
            HostOp::CloseUplink { port, .. } => drop(self.uplinks.remove(&port)),
            HostOp::OpenVxlan { port, engine: Engine::Userspace } => self.vxlan = Some(port),
            HostOp::OpenVxlan { engine: Engine::Kernel, .. } | HostOp::TryVxlan { .. } => {
                return Err("a simulated kernel has no VXLAN".into());
            }
            HostOp::CloseVxlan => self.vxlan = None,
            HostOp::VxlanPeers(_) | HostOp::SweepRest => {}
            HostOp::OpenOffload { .. } | HostOp::CloseOffload { .. } | HostOp::Offload { .. } => {
                panic!("{}: asks a kernel that it was refused", self.name)
            }
        }
        Ok(HostAnswer::Done)
    }

    fn plug(&mut self, key: &str, interface: &Interface) {
        assert!(self.port(interface.id).is_some(), "{}: network {} is not open", self.name, interface.network);
        assert!(self.nics.iter().all(|nic| nic.mac != interface.mac), "{}: MAC {} twice", self.name, interface.mac);
        for address in &interface.addresses {
            let IpAddr::V4(ip) = address.ip() else { continue };
            let (net, mac) = (interface.id, interface.mac);
            self.nics.push(Nic { key: key.to_string(), net, mac, ip, neighbours: BTreeMap::new(), announced: false });
        }
    }
}

/// Where the data plane's results go: they are carried out after the call.
#[derive(Default)]
pub struct Outcome {
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// By the port by which peers speak VXLAN.
    pub tunnelled: Vec<(SocketAddr, Vec<u8>)>,
    pub delivered: Vec<(PortId, Vec<u8>)>,
    pub events: Vec<PlaneEvent>,
}

impl Sink for Outcome {
    fn datagram(&mut self, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        self.datagrams.push((to, vec![0; len]));
        self.datagrams.last_mut().map(|(_, bytes)| bytes.as_mut_slice())
    }

    fn tunnelled(&mut self, _: u16, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        self.tunnelled.push((to, vec![0; len]));
        self.tunnelled.last_mut().map(|(_, bytes)| bytes.as_mut_slice())
    }

    fn deliver(&mut self, port: PortId, _: &Offload, parts: &[&[u8]]) {
        self.delivered.push((port, parts.concat()));
    }

    fn event(&mut self, event: PlaneEvent) {
        self.events.push(event);
    }
}

/// A frame that is on its way or was, as it was sent.
pub struct Sent {
    pub net: NetId,
    pub bytes: Vec<u8>,
    /// How often it came out, by host.
    pub copies: BTreeMap<H, usize>,
}

/// Within a bridge and a container.
const BRIDGE: Duration = Duration::from_micros(20);

impl World {
    /// An attachment sends: what is on the same bridge hears it, and the router captures it.
    pub fn transmit(&mut self, h: H, net: NetId, frame: Vec<u8>) {
        let token = frames::token(&frame).unwrap();
        self.sent.insert(token, Sent { net, bytes: frame.clone(), copies: BTreeMap::new() });
        self.transmit_raw(h, net, frame);
    }

    /// Without being known to the world: forgeries.
    pub fn transmit_raw(&mut self, h: H, net: NetId, frame: Vec<u8>) {
        let host = &mut self.hosts[h.0];
        let local = host.nics.iter().any(|nic| nic.net == net && nic.mac == frames::dst(&frame));
        self.hear(h, net, &frame);
        let host = &mut self.hosts[h.0];
        let (Some(port), Some(process), false) = (host.port(net), &host.process, local) else { return };
        let (plane, mut outcome) = (process.plane.clone(), Outcome::default());
        plane.from_bridge(port, &frame, self.now, &mut outcome);
        self.carry_out(h, outcome);
    }

    /// What the data plane of `h` wants done.
    pub fn carry_out(&mut self, h: H, outcome: Outcome) {
        for (to, bytes) in outcome.datagrams {
            let from = self.hosts[h.0].sources.get(&to).copied();
            self.send_datagram(h, (from, PORT), to, bytes);
        }
        let door = self.hosts[h.0].vxlan;
        for (to, bytes) in outcome.tunnelled {
            door.into_iter().for_each(|door| self.send_datagram(h, (None, door), to, bytes.clone()));
        }
        for (port, frame) in outcome.delivered {
            let host = &self.hosts[h.0];
            if let Some((name, ..)) = host.uplinks.get(&port) {
                if let Some(segment) = self.cables.get(&(h, name.clone())).copied() {
                    self.on_segment(segment, Some((h, port)), &frame);
                }
                continue;
            }
            let net = *host
                .ports
                .get(&port)
                .unwrap_or_else(|| panic!("{}: frame for {port:?}, which is not open", host.name));
            self.came_out(h, net, &frame);
            self.hear(h, net, &frame);
        }
        for event in outcome.events {
            self.plane_event(h, event);
        }
    }

    /// A frame came out of the router of `h` on `net`.
    fn came_out(&mut self, h: H, net: NetId, frame: &[u8]) {
        if matches!(frames::read(frame), Said::TooBig { .. }) || frames::is_of_rnet(frame) {
            return;
        }
        let name = &self.hosts[h.0].name;
        let sent = frames::token(frame).and_then(|token| self.sent.get_mut(&token));
        let sent = sent.unwrap_or_else(|| panic!("{name}: a frame came out that nobody sent: {frame:02x?}"));
        assert_eq!(sent.net, net, "{name}: a frame of network {} came out on {net}", sent.net);
        assert_eq!(sent.bytes, frame, "{name}: a frame came out changed");
        *sent.copies.entry(h).or_default() += 1;
    }

    /// The attachments on a bridge hear a frame, and answer.
    fn hear(&mut self, h: H, net: NetId, frame: &[u8]) {
        let to = frames::dst(frame);
        let said = frames::read(frame);
        let mut answers: Vec<Vec<u8>> = Vec::new();
        let now = self.now;
        let host = &mut self.hosts[h.0];
        for nic in host.nics.iter_mut().filter(|nic| nic.net == net && (to.is_group() || nic.mac == to)) {
            let us = (nic.mac, nic.ip);
            match said {
                Said::WhoHas { mac, ip, target } if mac != nic.mac => {
                    nic.neighbours.insert(ip, mac);
                    if target == nic.ip {
                        self.next_token += 1;
                        answers.push(frames::arp(us, mac, (mac, ip), true, self.next_token));
                    }
                }
                Said::IAm { mac, ip } if mac != nic.mac => {
                    nic.neighbours.insert(ip, mac);
                }
                Said::Echo { mac, from, to, reply: false, id } if to == nic.ip => {
                    self.next_token += 1;
                    answers.push(frames::echo(us, (mac, from), Some(id), frame.len() - 58, self.next_token));
                }
                Said::Echo { to, reply: true, id, .. } if to == nic.ip => {
                    host.answered.insert(id, now);
                }
                Said::TooBig { mtu } => host.told_mtu = Some(host.told_mtu.map_or(mtu, |told| told.min(mtu))),
                _ => {}
            }
        }
        let life = host.life;
        for frame in answers {
            self.after(BRIDGE, Event::Transmit { h, life, net, frame });
        }
    }

    /// `from` asks for `to`'s address if it does not know it, or sends an echo request. The id by which an answer is known.
    pub fn send_echo(&mut self, from: H, to: H, net: NetId, fill: usize) -> u64 {
        self.next_token += 1;
        let token = self.next_token;
        let target = self.hosts[to.0].nic(net).map(|nic| nic.ip);
        let us = self.hosts[from.0].nic(net).map(|nic| (nic.mac, nic.ip, nic.neighbours.clone()));
        let (Some(target), Some((mac, ip, neighbours))) = (target, us) else { return token };
        let frame = match neighbours.get(&target) {
            Some(known) => frames::echo((mac, ip), (*known, target), None, fill, token),
            None => frames::arp((mac, ip), Mac::BROADCAST, (Mac::default(), target), false, token),
        };
        self.transmit(from, net, frame);
        token
    }

    /// Interfaces that came up say so by a gratuitous ARP.
    pub fn announce(&mut self, h: H) {
        let (host, mut frames) = (&mut self.hosts[h.0], Vec::new());
        for nic in host.nics.iter_mut().filter(|nic| !nic.announced) {
            nic.announced = true;
            self.next_token += 1;
            let target = (Mac::default(), nic.ip);
            frames.push((nic.net, frames::arp((nic.mac, nic.ip), Mac::BROADCAST, target, false, self.next_token)));
        }
        frames.into_iter().for_each(|(net, frame)| self.transmit(h, net, frame));
    }

    /// Containers forget their neighbours' MACs.
    pub fn forget_arp(&mut self, h: H) {
        self.hosts[h.0].nics.iter_mut().for_each(|nic| nic.neighbours.clear());
    }
}
