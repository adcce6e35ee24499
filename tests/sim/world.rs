//! Time, the queue of events, and what a story can do and ask.

use super::machine::{Host, Options, Outcome, Process, Sent};
use super::story::Flow;
use super::wires::{Connection, Line, PORT, Weather};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rnet::crypto::keys::generate_key;
use rnet::node::border::{DialId, HostAnswer, HostId, Input, Level, LinkId, Output, State};
use rnet::node::status::DatapathStatus;
use rnet::node::{AddressConfig, Node, NodeConfig, ReachConfig, STATE_VERSION};
use rnet::plane::fib::PortId;
use rnet::plane::{Event as PlaneEvent, Limits, Plane};
use rnet::types::{Instant, NetId, Nickname, Psk, StaticKey, Uid};
use rnet::wire::beat;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A host, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct H(pub usize);

pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What will happen.
#[derive(Debug, Hash)]
pub enum Event {
    Wake { h: H, life: u64 },
    Dialled { h: H, life: u64, dial: DialId, to: SocketAddr },
    DialFailed { h: H, life: u64, dial: DialId, why: String },
    Segment { number: u64, end: usize },
    Drained { number: u64, end: usize },
    Datagram { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Stored { h: H, life: u64, number: u64, state: Box<Unhashed<State>> },
    Changed { h: H, life: u64, host: HostId, why_not: Option<String> },
    Transmit { h: H, life: u64, net: NetId, frame: Vec<u8> },
    Flow { number: usize },
    Captured { h: H, life: u64, port: PortId, frame: Vec<u8> },
}

/// Follows from what is in the history already.
#[derive(Debug)]
pub struct Unhashed<T>(T);

impl<T> Hash for Unhashed<T> {
    fn hash<S: Hasher>(&self, _: &mut S) {}
}

struct Due {
    at: Instant,
    order: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        // The heap gives its greatest first.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// What survives a restart of a router.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    pub identity: bool,
    pub state: bool,
    pub uid: bool,
}

/// An ordinary restart: only the run is new.
pub const KEPT: Keep = Keep { identity: true, state: true, uid: false };

pub struct World {
    pub now: Instant,
    pub seed: u64,
    pub rng: StdRng,
    pub hosts: Vec<Host>,
    pub weather: Weather,
    pub walls: BTreeSet<(H, H)>,
    /// Between these a firewall lets TCP pass and UDP not.
    pub no_udp: BTreeSet<(H, H)>,
    /// Addresses that nothing gets to any more.
    pub dead_ips: BTreeSet<IpAddr>,
    /// From one to another, where it is not like the others.
    pub lines: BTreeMap<(H, H), Line>,
    /// Between these it lets all pass but VXLAN.
    pub no_vxlan: BTreeSet<(H, H)>,
    /// Bytes of UDP payload that VXLAN may have at most.
    pub vxlan_widest: usize,
    pub connections: BTreeMap<u64, Connection>,
    pub next_connection: u64,
    /// Who dialled whom, and when.
    pub dials: Vec<(Instant, H, IpAddr)>,
    /// Which connection, and which end of it.
    pub sockets: HashMap<(H, u64, LinkId), (u64, usize)>,
    pub sent: BTreeMap<u64, Sent>,
    pub next_token: u64,
    /// Datagrams given to the network.
    pub datagrams: u64,
    /// Bytes given to the network, by either protocol.
    pub bytes: u64,
    /// Every datagram that arrived, while somebody listens.
    pub wiretap: Option<Vec<(SocketAddr, SocketAddr, Vec<u8>)>>,
    pub flows: Vec<Flow>,
    /// The segment that each interface is plugged into, and frames on each.
    pub cables: BTreeMap<(H, String), u32>,
    pub segment_frames: BTreeMap<u32, u64>,
    queue: BinaryHeap<Due>,
    order: u64,
    pub next_request: u64,
    history: DefaultHasher,
}

/// The address that a host begins with.
pub fn first_ip(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, u8::try_from(number + 1).unwrap()))
}

impl World {
    pub fn new(seed: u64) -> World {
        World {
            now: Instant::ZERO,
            seed,
            rng: StdRng::seed_from_u64(seed),
            hosts: Vec::new(),
            weather: Weather::default(),
            walls: BTreeSet::new(),
            no_udp: BTreeSet::new(),
            dead_ips: BTreeSet::new(),
            lines: BTreeMap::new(),
            no_vxlan: BTreeSet::new(),
            vxlan_widest: usize::MAX,
            connections: BTreeMap::new(),
            next_connection: 0,
            dials: Vec::new(),
            sockets: HashMap::new(),
            sent: BTreeMap::new(),
            next_token: 1 << 32,
            datagrams: 0,
            bytes: 0,
            wiretap: None,
            flows: Vec::new(),
            cables: BTreeMap::new(),
            segment_frames: BTreeMap::new(),
            queue: BinaryHeap::new(),
            order: 0,
            next_request: 0,
            history: DefaultHasher::new(),
        }
    }

    /// Hosts that all reach each other, with nothing running.
    pub fn hosts<const N: usize>(&mut self) -> [H; N] {
        std::array::from_fn(|_| self.host(Options::default()))
    }

    pub fn host(&mut self, options: Options) -> H {
        let n = self.hosts.len();
        let ip = first_ip(n);
        self.hosts.push(Host {
            name: format!("host{n}"),
            ip,
            line_mtu: usize::MAX,
            nat: None,
            nat_random: false,
            nat_life: Duration::MAX,
            contacted: BTreeMap::new(),
            more_ips: Vec::new(),
            usual_ip: None,
            locates: false,
            sources: BTreeMap::new(),
            key: generate_key(self.rng.random()),
            uid: Uid(self.rng.random()),
            options,
            disk: None,
            powered: true,
            life: 0,
            process: None,
            ports: BTreeMap::new(),
            nics: Vec::new(),
            uplinks: BTreeMap::new(),
            log: Vec::new(),
            failing_changes: 0,
            answered: BTreeMap::new(),
            mtus: BTreeMap::new(),
            vxlan: None,
            told_mtu: None,
        });
        H(n)
    }

    // ---- what a story does

    /// Starts a router with these hosts as its targets.
    pub fn launch(&mut self, h: H, targets: &[H]) {
        let targets = targets.iter().map(|target| self.target(*target)).collect();
        self.start(h, State { version: STATE_VERSION, targets, ..State::default() });
    }

    fn start(&mut self, h: H, state: State) {
        let (seed, now) = (self.rng.random(), self.now);
        let host = &mut self.hosts[h.0];
        assert!(host.powered && host.process.is_none());
        host.life += 1;
        host.disk = Some(state.clone());
        let plane = Arc::new(Plane::new(Limits::default()));
        let options = host.options.clone();
        let config = NodeConfig {
            key: StaticKey(host.key.0),
            psk: options.password.map(|password| Psk([password; 32])),
            nickname: Nickname::new(&host.name),
            port: PORT,
            uid: host.uid,
            seed,
            aes: options.aes,
            discovery: options.discovery,
            allow: options.allow,
            connection_limit: options.limit,
            mtu: options.mtu,
            reach: ReachConfig { advertise: options.advertise, ..ReachConfig::default() },
            framing: options.framing,
            trusted_subnets: options.trusted,
            datapath: DatapathStatus::default(),
            addresses: AddressConfig {
                ranges: options.range.split_whitespace().map(|range| range.parse().unwrap()).collect(),
                default_subnet: None,
                init: options.init,
                reclaim: options.reclaim,
            },
            uplinks: Vec::new(),
            state,
            version: "sim".into(),
        };
        let host = &mut self.hosts[h.0];
        (host.locates, host.sources) = (false, BTreeMap::new());
        let mut node = Node::new(config, plane.clone(), now);
        node.handle(Input::Addresses(self.hosts[h.0].addresses()), now);
        let host = &mut self.hosts[h.0];
        host.process = Some(Process {
            node,
            plane,
            wake_at: None,
            wakes: 0,
            next_link: 0,
            replies: BTreeMap::new(),
            stopped: false,
        });
        self.pump(h);
    }

    /// SIGKILL: the kernel resets its connections and removes its ports.
    pub fn kill(&mut self, h: H) {
        self.end(h, false);
    }

    /// The plug is pulled: nobody hears of it.
    pub fn power_off(&mut self, h: H) {
        self.end(h, true);
        self.hosts[h.0].powered = false;
    }

    fn end(&mut self, h: H, silently: bool) {
        self.drop_sockets(h, silently);
        let host = &mut self.hosts[h.0];
        host.process = None;
        host.life += 1;
        host.ports.clear();
        host.vxlan = None;
        host.nics.clear();
        host.uplinks.clear();
    }

    pub fn restart(&mut self, h: H, keep: Keep) {
        let (key, uid) = (generate_key(self.rng.random()), Uid(self.rng.random()));
        let host = &mut self.hosts[h.0];
        host.powered = true;
        if !keep.identity {
            host.key = key;
        }
        if !keep.uid {
            host.uid = uid;
        }
        let state = host.disk.take().filter(|_| keep.state);
        self.start(h, state.unwrap_or(State { version: STATE_VERSION, ..State::default() }));
    }

    // ---- time

    /// A number that two runs share only if everything in them happened alike.
    pub fn history(&self) -> u64 {
        self.history.finish()
    }

    pub fn at(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.queue.push(Due { at: at.max(self.now), order: self.order, event });
    }

    pub fn after(&mut self, time: Duration, event: Event) {
        self.at(self.now + time, event);
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `is_so`, looked at every 10 ms, for at most `limit`; how long it took.
    pub fn run_until(&mut self, limit: Duration, mut is_so: impl FnMut(&mut World) -> bool) -> Option<Duration> {
        let start = self.now;
        loop {
            if is_so(self) {
                return Some(self.now - start);
            }
            if self.now - start >= limit {
                return None;
            }
            self.run_for(millis(10));
        }
    }

    fn step(&mut self, end: Instant) -> bool {
        if self.queue.peek().is_none_or(|due| due.at > end) {
            return false;
        }
        let Due { at, event, .. } = self.queue.pop().unwrap();
        self.now = at;
        (at, &event).hash(&mut self.history);
        self.happen(event);
        true
    }

    fn is_alive(&self, h: H, life: u64) -> bool {
        self.hosts[h.0].life == life && self.hosts[h.0].process.is_some()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake { h, life } if self.is_alive(h, life) => {
                let process = self.hosts[h.0].process.as_mut().unwrap();
                if process.wake_at == Some(self.now) {
                    process.wake_at = None;
                    process.wakes += 1;
                    self.feed(h, Input::Tick);
                }
            }
            Event::Dialled { h, life, dial, to } if self.is_alive(h, life) => self.dialled(h, life, dial, to),
            Event::DialFailed { h, life, dial, why } if self.is_alive(h, life) => {
                self.feed(h, Input::DialFailed { dial, why })
            }
            Event::Changed { h, life, host, why_not } if self.is_alive(h, life) => {
                let result = why_not.map_or(Ok(HostAnswer::Done), Err);
                self.feed(h, Input::HostDone { host, result });
                self.announce(h);
                self.tell_uplinks(h);
            }
            Event::Captured { h, life, port, frame } if self.is_alive(h, life) => self.captured(h, port, &frame),
            Event::Stored { h, life, number, state } if self.is_alive(h, life) => {
                self.hosts[h.0].disk = Some(state.0);
                self.feed(h, Input::Persisted { number });
            }
            Event::Transmit { h, life, net, frame } if self.is_alive(h, life) => self.transmit(h, net, frame),
            Event::Segment { number, end } => self.segment(number, end),
            Event::Drained { number, end } => self.drained(number, end),
            Event::Datagram { from, to, bytes } => self.datagram(from, to, bytes),
            Event::Flow { number } => self.flow_on(number),
            // Meant for a process that is no more.
            _ => {}
        }
    }

    pub fn plane_event(&mut self, h: H, event: PlaneEvent) {
        self.feed(h, Input::Plane(event));
    }

    /// Tells a router, and carries out what it wants.
    pub fn feed(&mut self, h: H, input: Input<'_>) {
        let now = self.now;
        if let Some(process) = &mut self.hosts[h.0].process {
            process.node.handle(input, now);
            self.pump(h);
        }
    }

    fn pump(&mut self, h: H) {
        for _ in 0..100_000 {
            let (now, life) = (self.now, self.hosts[h.0].life);
            let Some(process) = &mut self.hosts[h.0].process else { return };
            match process.node.poll(now) {
                Output::Wait(at) => {
                    assert!(at.is_none_or(|at| at > now), "{} does not wait", self.hosts[h.0].name);
                    let before = std::mem::replace(&mut process.wake_at, at);
                    if let Some(at) = at.filter(|_| at != before) {
                        self.at(at, Event::Wake { h, life });
                    }
                    return;
                }
                Output::Dial { dial, target, default_port } => self.dial(h, dial, &target, default_port),
                Output::Send { link, bytes } => self.send_stream(h, link, bytes),
                Output::Close { link } => self.close_stream(h, link),
                Output::Datagram { from, to, bytes } => self.send_datagram(h, (from, PORT), to, bytes),
                Output::Locate(on) => self.hosts[h.0].locates = on,
                Output::Sources(all) => self.hosts[h.0].sources = all,
                Output::Beat { peer, to, body } => {
                    let Some(process) = &self.hosts[h.0].process else { continue };
                    let (plane, frame) = (process.plane.clone(), beat::frame(process.node.name(), peer, &body));
                    let mut outcome = Outcome::default();
                    plane.batch(self.now).beat(to, &frame, &mut outcome);
                    self.carry_out(h, outcome);
                }
                Output::Deliver { port, frame } => {
                    self.carry_out(h, Outcome { delivered: vec![(port, frame)], ..Outcome::default() });
                }
                Output::Announce { network, frame } => {
                    let Some(process) = &self.hosts[h.0].process else { continue };
                    let (plane, mut outcome) = (process.plane.clone(), Outcome::default());
                    plane.batch(self.now).announce(network, &frame, &mut outcome);
                    self.carry_out(h, outcome);
                }
                Output::Host { host, op } => {
                    let why_not = self.hosts[h.0].change(op).err();
                    self.after(millis(3), Event::Changed { h, life, host, why_not });
                }
                Output::Reply { request, reply } => {
                    assert!(process.replies.insert(request.0, reply).is_none(), "answered twice");
                }
                Output::Persist { number, state } => {
                    // A kill before that loses it, as a power failure does.
                    self.after(millis(2), Event::Stored { h, life, number, state: Box::new(Unhashed(state)) });
                }
                Output::Log { level, line } => {
                    assert!(level != Level::Error, "{}: {line}", self.hosts[h.0].name);
                    (&line, h).hash(&mut self.history);
                    self.hosts[h.0].log.push((now, level, line));
                }
                Output::Stopped { .. } => process.stopped = true,
            }
        }
        panic!("{} never waits", self.hosts[h.0].name);
    }
}
