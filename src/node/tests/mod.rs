//! Two, three and a few more routers in one test: a driver in memory with virtual time.
//!
//! `World` is the smallest driver of the border: TCP connections are queues that lose nothing and take a millisecond, UDP
//! datagrams go to whoever listens at the address unless `cut` says otherwise, the machine does whatever it is asked unless
//! told to fail. Larger stories (loss, partitions, many routers) are the simulator's.

mod addresses;
mod attachments;
mod direct;
mod edge;
mod engines;
mod linking;
mod neighbours;
mod offloads;
mod rekeying;
mod traffic;
mod uplinks;
mod vteps;

use super::border::{DialId, HostAnswer, HostId, HostOp, Input, Level, LinkId, Output, RequestId, State};
use super::command::{Attach, Command, Place, Reply};
use super::status::{Connection, ConnectionState, DatapathStatus, Status};
use super::{AddressConfig, Node, NodeConfig, ReachConfig};
use crate::crypto::keys::generate_key;
use crate::ipam::Init;
use crate::plane::fib::PortId;
use crate::plane::{Event, Limits, Plane, Sink};
use crate::types::{Instant, Mtu, Nickname, Psk, PublicKey, Target, Uid};
use crate::wire::virtio::Offload;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const LATENCY: Duration = Duration::from_millis(1);

/// Something on its way.
enum Flying {
    Up { link: LinkId, dial: Option<DialId>, remote: SocketAddr },
    Bytes { link: LinkId, bytes: Vec<u8> },
    Drained { link: LinkId },
    Down { link: LinkId },
    DialFailed { dial: DialId },
    Datagram { from: SocketAddr, bytes: Vec<u8> },
    Host { host: HostId, result: Result<HostAnswer, String> },
    Stored { number: u64, state: Box<State> },
    Event(Event),
}

/// What a machine finds when it is asked for this; nothing particular.
type Finds = dyn Fn(&HostOp) -> Option<HostAnswer>;

/// One router and what its driver keeps.
struct Host {
    node: Node,
    plane: Arc<Plane>,
    address: SocketAddr,
    wait: Option<Instant>,
    /// Frames that came out, by port.
    delivered: Vec<(PortId, Vec<u8>)>,
    replies: BTreeMap<u64, Reply>,
    ops: Vec<HostOp>,
    log: Vec<(Level, String)>,
    saved: Option<State>,
    /// Whether it asks where probes come in, each time that it said so.
    located: Vec<bool>,
    stopped: bool,
    /// Where it says that interfaces were plugged.
    place: Option<Place>,
    /// Nothing is stored any more.
    disk_fails: bool,
    /// The machine refuses operations of which this is true.
    fails: Box<dyn Fn(&HostOp) -> bool>,
    /// It answers so.
    finds: Box<Finds>,
}

struct World {
    now: Instant,
    hosts: Vec<Host>,
    flying: VecDeque<(Instant, usize, Flying)>,
    /// Both ends of each connection: (host, link).
    pipes: Vec<[(usize, LinkId); 2]>,
    /// Pairs of hosts between which no UDP passes, and no TCP.
    no_udp: BTreeSet<(usize, usize)>,
    no_tcp: BTreeSet<(usize, usize)>,
    next: u64,
}

/// What makes one router differ from another in a test.
fn config(n: u8) -> NodeConfig {
    NodeConfig {
        key: generate_key([n; 32]),
        psk: Some(Psk([7; 32])),
        nickname: Nickname::new(&format!("host{n}")),
        port: 6783,
        uid: Uid(u64::from(n)),
        seed: [n; 32],
        aes: true,
        discovery: false,
        allow: None,
        connection_limit: 200,
        mtu: Mtu::Fixed(1400),
        reach: ReachConfig::default(),
        framing: None,
        trusted_subnets: Vec::new(),
        datapath: DatapathStatus::default(),
        addresses: space("10.32.0.0/12"),
        uplinks: Vec::new(),
        state: State::default(),
        version: "test".to_string(),
    }
}

/// Founded by whoever needs it first.
fn space(range: &str) -> AddressConfig {
    let reclaim = Some(Duration::from_secs(60));
    AddressConfig { ranges: vec![range.parse().unwrap()], default_subnet: None, init: Init::Consensus(1), reclaim }
}

fn public(n: u8) -> PublicKey {
    crate::crypto::keys::public_key(&generate_key([n; 32]))
}

fn address_of(host: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(host).unwrap() + 1], 6783))
}

fn target(host: usize) -> Target {
    address_of(host).ip().to_string().parse().unwrap()
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl World {
    fn new(configs: Vec<NodeConfig>) -> World {
        let mut world = World {
            now: Instant::ZERO,
            hosts: Vec::new(),
            flying: VecDeque::new(),
            pipes: Vec::new(),
            no_udp: BTreeSet::new(),
            no_tcp: BTreeSet::new(),
            next: 0,
        };
        configs.into_iter().for_each(|config| world.add(config));
        world
    }

    /// Routers 1.. with usual settings.
    fn of(count: u8) -> World {
        World::new((1..=count).map(config).collect())
    }

    fn add(&mut self, config: NodeConfig) {
        let at = self.hosts.len();
        let host = self.make(config, at);
        self.hosts.push(host);
        self.drain(at);
    }

    fn make(&self, config: NodeConfig, at: usize) -> Host {
        let plane = Arc::new(Plane::new(Limits::default()));
        Host {
            node: Node::new(config, plane.clone(), self.now),
            plane,
            address: address_of(at),
            wait: None,
            delivered: Vec::new(),
            replies: BTreeMap::new(),
            ops: Vec::new(),
            log: Vec::new(),
            saved: None,
            located: Vec::new(),
            stopped: false,
            place: None,
            disk_fails: false,
            fails: Box::new(|_| false),
            finds: Box::new(|_| None),
        }
    }

    /// The router of a host dies without a word and another begins; its connections are reset if `reset`.
    fn replace(&mut self, at: usize, config: NodeConfig, reset: bool) {
        let ends: Vec<[(usize, LinkId); 2]> =
            self.pipes.iter().copied().filter(|pipe| pipe.iter().any(|end| end.0 == at)).collect();
        self.pipes.retain(|pipe| pipe.iter().all(|end| end.0 != at));
        for (host, link) in ends.into_iter().flatten().filter(|(host, _)| *host != at && reset) {
            self.fly(host, Flying::Down { link });
        }
        self.flying.retain(|(_, to, _)| *to != at);
        self.hosts[at] = self.make(config, at);
        self.drain(at);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn fly(&mut self, to: usize, what: Flying) {
        self.flying.push_back((self.now + LATENCY, to, what));
    }

    fn input(&mut self, at: usize, input: Input<'_>) {
        self.hosts[at].node.handle(input, self.now);
        self.drain(at);
    }

    fn drain(&mut self, at: usize) {
        for count in 0.. {
            assert!(count < 100_000, "a router that never waits");
            match self.hosts[at].node.poll(self.now) {
                Output::Wait(wait) => {
                    assert!(wait.is_none_or(|wait| wait > self.now), "waits for the past");
                    self.hosts[at].wait = wait;
                    return;
                }
                output => self.carry_out(at, output),
            }
        }
    }

    fn carry_out(&mut self, at: usize, output: Output) {
        match output {
            Output::Dial { dial, target, default_port } => {
                let address = SocketAddr::new(target.ip().unwrap(), target.port.unwrap_or(default_port));
                self.dial(at, dial, address);
            }
            Output::Send { link, bytes } => {
                if let Some((to, other)) = self.other_end(at, link) {
                    self.fly(to, Flying::Bytes { link: other, bytes });
                }
                self.fly(at, Flying::Drained { link });
            }
            Output::Close { link } => {
                if let Some((to, other)) = self.other_end(at, link) {
                    self.fly(to, Flying::Down { link: other });
                }
                self.pipes.retain(|pipe| !pipe.contains(&(at, link)));
            }
            Output::Datagram { to, bytes, .. } => self.datagram(at, to, bytes),
            Output::Locate(on) => self.hosts[at].located.push(on),
            Output::Sources(_) => {}
            Output::Beat { to, body, .. } => self.beat(at, to, body),
            Output::Deliver { port, frame } => self.hosts[at].delivered.push((port, frame)),
            Output::Announce { network, frame } => {
                let all: Vec<usize> = (0..self.hosts.len()).filter(|other| *other != at).collect();
                for other in all {
                    // As `plane` tells it, without the mesh between.
                    if self.hosts[other].plane.fib().networks.get(&network).is_some_and(|e| !e.tunnels.is_empty()) {
                        let body = smallvec::SmallVec::from_slice(&frame[14..]);
                        let at = self.now;
                        let event = crate::plane::Event::Beacon { port: None, network, body, at };
                        self.fly(other, Flying::Event(event));
                    }
                }
            }
            Output::Host { host, op } => {
                let result =
                    if (self.hosts[at].fails)(&op) { Err("no permission".to_string()) } else { Ok(HostAnswer::Done) };
                if let HostOp::Plug { interfaces, .. } = &op {
                    let fib = self.hosts[at].plane.fib();
                    let permitted = interfaces.iter().all(|i| fib.networks[&i.id].permits.contains_key(&i.mac));
                    assert!(permitted, "the first frame of an interface would be dropped");
                }
                let result = match (result, (self.hosts[at].finds)(&op)) {
                    (Ok(_), Some(found)) => Ok(found),
                    (result, _) => result,
                };
                let plugged = self.hosts[at].place.clone().filter(|_| matches!(op, HostOp::Plug { .. }));
                let result = result.map(|done| plugged.map_or(done, HostAnswer::Plugged));
                self.hosts[at].ops.push(op);
                self.fly(at, Flying::Host { host, result });
            }
            Output::Reply { request, reply } => {
                let old = self.hosts[at].replies.insert(request.0, reply);
                assert!(old.is_none(), "answered twice");
            }
            Output::Persist { number, state } if !self.hosts[at].disk_fails => {
                self.fly(at, Flying::Stored { number, state: Box::new(state) });
            }
            Output::Persist { .. } => {}
            Output::Log { level, line } => self.hosts[at].log.push((level, line)),
            Output::Stopped { .. } => self.hosts[at].stopped = true,
            Output::Wait(_) => unreachable!(),
        }
    }

    fn dial(&mut self, at: usize, dial: DialId, address: SocketAddr) {
        let found = self.hosts.iter().position(|host| host.address == address);
        let Some(to) = found.filter(|to| !self.no_tcp.contains(&pair(at, *to))) else {
            return self.fly(at, Flying::DialFailed { dial });
        };
        let (ours, theirs) = (LinkId(self.number()), LinkId(self.number()));
        self.pipes.push([(at, ours), (to, theirs)]);
        self.fly(at, Flying::Up { link: ours, dial: Some(dial), remote: address });
        let ephemeral = SocketAddr::new(self.hosts[at].address.ip(), 40_000 + u16::try_from(ours.0 % 20_000).unwrap());
        self.fly(to, Flying::Up { link: theirs, dial: None, remote: ephemeral });
    }

    fn other_end(&self, at: usize, link: LinkId) -> Option<(usize, LinkId)> {
        let pipe = self.pipes.iter().find(|pipe| pipe.contains(&(at, link)))?;
        pipe.iter().copied().find(|end| *end != (at, link))
    }

    fn datagram(&mut self, at: usize, to: SocketAddr, bytes: Vec<u8>) {
        let from = self.hosts[at].address;
        if let Some(host) = self.hosts.iter().position(|host| host.address == to)
            && !self.no_udp.contains(&pair(at, host))
            && bytes.len() <= 1472
        {
            self.fly(host, Flying::Datagram { from, bytes });
        }
    }

    /// A heartbeat by VXLAN, over the same line as datagrams.
    fn beat(&mut self, at: usize, to: SocketAddr, datagram: Vec<u8>) {
        let from = SocketAddr::new(self.hosts[at].address.ip(), 6784);
        let size = u16::try_from(datagram.len() + 22).unwrap();
        if let Some(host) = self.hosts.iter().position(|host| host.address.ip() == to.ip() && to.port() == 6784)
            && !self.no_udp.contains(&pair(at, host))
            && size <= 1472
        {
            let at = self.now + LATENCY;
            self.fly(host, Flying::Event(Event::Beat { from, datagram, size, at }));
        }
    }

    fn arrive(&mut self, at: usize, what: Flying) {
        let Some(local) = self.hosts.get(at).map(|host| host.address) else { return };
        match what {
            Flying::Up { link, dial, remote } => self.input(at, Input::LinkUp { link, dial, remote, local }),
            Flying::Bytes { link, bytes } => self.input(at, Input::LinkBytes { link, bytes: &bytes }),
            Flying::Drained { link } => self.input(at, Input::LinkDrained { link }),
            Flying::Down { link } => {
                if self.other_end(at, link).is_some() || self.pipes.iter().all(|pipe| !pipe.contains(&(at, link))) {
                    self.input(at, Input::LinkDown { link, why: "closed by the other side".to_string() });
                }
            }
            Flying::DialFailed { dial } => {
                self.input(at, Input::DialFailed { dial, why: "connection refused".to_string() })
            }
            Flying::Stored { number, state } => {
                self.hosts[at].saved = Some(*state);
                self.input(at, Input::Persisted { number });
            }
            Flying::Host { host, result } => self.input(at, Input::HostDone { host, result }),
            Flying::Event(event) => self.input(at, Input::Plane(event)),
            Flying::Datagram { from, mut bytes } => {
                let mut collected = Collected::default();
                self.hosts[at].plane.clone().from_net(from, &mut bytes, self.now, &mut collected);
                self.take(at, collected);
            }
        }
    }

    /// What the data plane of a host wrote into its sink goes out.
    fn take(&mut self, at: usize, collected: Collected) {
        for (to, bytes) in collected.datagrams {
            self.datagram(at, to, bytes);
        }
        self.hosts[at].delivered.extend(collected.delivered);
        for event in collected.events {
            self.fly(at, Flying::Event(event));
        }
    }

    /// A frame is captured on a port.
    fn capture(&mut self, at: usize, port: PortId, frame: &[u8]) {
        let mut collected = Collected::default();
        self.hosts[at].plane.clone().from_bridge(port, frame, self.now, &mut collected);
        self.take(at, collected);
    }

    fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let arrival = self.flying.iter().map(|(at, ..)| *at).min();
            let timer = self.hosts.iter().filter_map(|host| host.wait).min();
            let Some(next) = arrival.into_iter().chain(timer).min().filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            if let Some(first) = self.flying.iter().position(|(at, ..)| *at <= self.now) {
                let (_, to, what) = self.flying.remove(first).unwrap();
                self.arrive(to, what);
                continue;
            }
            for at in 0..self.hosts.len() {
                if self.hosts[at].wait.is_some_and(|wait| wait <= self.now) {
                    self.input(at, Input::Tick);
                }
            }
        }
        self.now = until;
    }

    fn seconds(&mut self, seconds: u64) {
        self.run_for(Duration::from_secs(seconds));
    }

    /// Asks, and lets time pass until it is answered; at most ten seconds.
    fn ask(&mut self, at: usize, command: Command) -> Reply {
        let request = self.number();
        self.input(at, Input::Command { request: RequestId(request), command });
        for _ in 0..1000 {
            if let Some(reply) = self.hosts[at].replies.get(&request) {
                return reply.clone();
            }
            self.run_for(Duration::from_millis(10));
        }
        panic!("not answered");
    }

    fn connect(&mut self, from: usize, to: usize) {
        let command = Command::Connect { targets: vec![target(to)], replace: false };
        assert_eq!(self.ask(from, command), Reply::Done);
    }

    fn status(&mut self, at: usize) -> Status {
        match self.ask(at, Command::Status) {
            Reply::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// The connections of a host that are in this state.
    fn connections(&mut self, at: usize, state: ConnectionState) -> Vec<Connection> {
        self.status(at).connections.into_iter().filter(|connection| connection.state == state).collect()
    }

    fn established(&mut self, at: usize) -> usize {
        self.connections(at, ConnectionState::Established).len()
    }

    fn attach(&mut self, at: usize, key: &str, addresses: &[&str]) -> Reply {
        self.ask(at, Command::Attach(attach(key, addresses)))
    }

    fn logged(&self, at: usize, text: &str) -> usize {
        self.hosts[at].log.iter().filter(|(_, line)| line.contains(text)).count()
    }
}

fn attach(key: &str, addresses: &[&str]) -> Attach {
    Attach {
        key: key.to_string(),
        name: None,
        place: Place::Path(format!("/run/netns/{key}")),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        unguarded: false,
        vni: None,
        gateway: false,
        masquerade: false,
        publish: Vec::new(),
    }
}

/// A sink that keeps everything.
#[derive(Default)]
struct Collected {
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    delivered: Vec<(PortId, Vec<u8>)>,
    events: Vec<Event>,
}

impl Sink for Collected {
    fn datagram(&mut self, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        self.datagrams.push((to, vec![0; len]));
        self.datagrams.last_mut().map(|(_, bytes)| bytes.as_mut_slice())
    }

    fn deliver(&mut self, port: PortId, _: &Offload, parts: &[&[u8]]) {
        self.delivered.push((port, parts.concat()));
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}
