//! The world that the machines live in: virtual time, mail that is lost, late or doubled, partitions, crashes, and the
//! ledger of who holds what. It is a driver like the daemon's: durable first, then everything else, in order.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rnet::ipam::{Granted, Init, Ipam, IpamConfig, IpamOutput, IpamState};
use rnet::types::{HostAddress, Instant, Mac, Network, PeerName, Uid};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub const MS: Duration = Duration::from_millis(1);

pub fn name(host: usize) -> PeerName {
    PeerName(Mac([2, 0, 0, 0, (host >> 8) as u8, host as u8]))
}

pub fn net(text: &str) -> Network {
    text.parse().expect("a network")
}

pub struct Host {
    pub machine: Option<Ipam>,
    pub disk: Option<Arc<IpamState>>,
    pub init: Init,
    pub runs: u64,
    pub side: u8,
    /// An operator said it was dead while it was alive, and it has not heard of it yet.
    pub wronged: bool,
    /// An operator said so while it was down: what it finds on its disk may be somebody else's by now.
    pub condemned: bool,
    pub lines: Vec<String>,
}

pub struct World {
    pub now: Instant,
    pub rng: StdRng,
    pub hosts: Vec<Host>,
    pub ranges: Vec<Network>,
    pub reclaim: Option<Duration>,
    /// Delivery time, order, from, to, bytes (an index keeps the heap small).
    pub queue: BinaryHeap<Reverse<(Instant, u64)>>,
    pub mail: BTreeMap<u64, (usize, usize, Arc<Vec<u8>>)>,
    pub sent: u64,
    pub bytes: u64,
    pub loss: u32,
    /// Of a hundred messages, how many are seconds late; and whether hosts are wrong about whom they reach.
    pub lag: u32,
    pub blind: u32,
    pub requests: BTreeMap<u64, (usize, String)>,
    pub answers: BTreeMap<u64, Result<Granted, String>>,
    pub next_request: u64,
    /// Who holds what.
    pub ledger: BTreeMap<IpAddr, BTreeSet<(usize, String)>>,
    pub excused: BTreeSet<(usize, IpAddr)>,
    /// Outputs of a host after which it crashes, if a crash is due within its next batch.
    pub crash_after: Option<(usize, u32)>,
    pub false_words: bool,
    pub problem: Option<String>,
    /// The ring of each version: there is one.
    pub one_founding: bool,
    pub rings: BTreeMap<u64, String>,
    /// Prints what happens, for a run that is repeated.
    pub loud: bool,
}

impl World {
    pub fn new(seed: u64, inits: Vec<Init>, ranges: Vec<Network>, reclaim: Option<Duration>) -> World {
        let host = |init| Host {
            machine: None,
            disk: None,
            init,
            runs: 0,
            side: 0,
            wronged: false,
            condemned: false,
            lines: Vec::new(),
        };
        let mut world = World {
            now: Instant::ZERO,
            rng: StdRng::seed_from_u64(seed),
            hosts: inits.into_iter().map(host).collect(),
            ranges,
            reclaim,
            queue: BinaryHeap::new(),
            mail: BTreeMap::new(),
            sent: 0,
            bytes: 0,
            loss: 0,
            lag: 0,
            blind: 0,
            requests: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_request: 0,
            ledger: BTreeMap::new(),
            excused: BTreeSet::new(),
            crash_after: None,
            false_words: false,
            problem: None,
            one_founding: false,
            rings: BTreeMap::new(),
            loud: std::env::var_os("RNET_IPAM_SEED").is_some(),
        };
        (0..world.hosts.len()).for_each(|host| world.start(host));
        world.look_around();
        world
    }

    pub fn tell(&self, text: impl FnOnce() -> String) {
        if self.loud {
            eprintln!("{:>8} {}", self.now.millis(), text());
        }
    }

    pub fn start(&mut self, host: usize) {
        self.tell(|| format!("start {host}"));
        let Host { disk, init, runs, .. } = &mut self.hosts[host];
        *runs += 1;
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        let config = IpamConfig {
            me: name(host),
            uid: Uid(*runs),
            ranges: self.ranges.clone(),
            default_subnet: None,
            init: init.clone(),
            reclaim: self.reclaim,
            seed,
        };
        let machine = Ipam::new(config, disk.as_deref().cloned(), self.now);
        // What was durable is held, whether or not the answer went out before the crash; what was not is not.
        let mut answered = Vec::new();
        for (ip, holders) in &mut self.ledger {
            let before = holders.len();
            holders.retain(|(holder, _)| *holder != host);
            if holders.len() < before && !self.excused.contains(&(host, *ip)) {
                answered.push(*ip);
            }
        }
        let held: Vec<(String, IpAddr)> =
            machine.holdings().flat_map(|(key, list)| list.iter().map(move |a| (key.to_owned(), a.ip()))).collect();
        let forgotten: Vec<IpAddr> = answered.into_iter().filter(|ip| held.iter().all(|(_, at)| at != ip)).collect();
        if !forgotten.is_empty() && self.hosts[host].disk.is_some() {
            self.problem.get_or_insert(format!("host {host} forgot {forgotten:?}, which it had answered with"));
        }
        self.hosts[host].machine = Some(machine);
        if self.hosts[host].condemned {
            self.excused.extend(held.iter().map(|(_, ip)| (host, *ip)));
        }
        held.into_iter().for_each(|(key, ip)| self.hold(host, key, ip));
        self.drain(host);
    }

    pub fn hold(&mut self, host: usize, key: String, ip: IpAddr) {
        self.tell(|| format!("host {host}: {key} holds {ip}"));
        if self.hosts[host].wronged {
            self.excused.insert((host, ip));
        }
        let holders = self.ledger.entry(ip).or_default();
        holders.insert((host, key));
        let guilty: Vec<_> = holders.iter().filter(|(holder, _)| !self.excused.contains(&(*holder, ip))).collect();
        if guilty.len() > 1 {
            self.problem.get_or_insert(format!("{ip} is held by {guilty:?} at {:?}", self.now));
        }
    }

    pub fn crash(&mut self, host: usize) {
        self.tell(|| format!("crash {host}"));
        self.hosts[host].machine = None;
        let gone: Vec<u64> = self.requests.iter().filter(|(_, (at, _))| *at == host).map(|(id, _)| *id).collect();
        gone.iter().for_each(|id| drop(self.requests.remove(id)));
    }

    /// Carries out what a host wants, in order; durable first.
    pub fn drain(&mut self, host: usize) {
        loop {
            if let Some((victim, left)) = self.crash_after.filter(|(victim, _)| *victim == host) {
                if left == 0 {
                    self.crash_after = None;
                    return self.crash(host);
                }
                self.crash_after = Some((victim, left - 1));
            }
            let Some(output) = self.hosts[host].machine.as_mut().and_then(Ipam::poll) else { return };
            match output {
                IpamOutput::Persist(state) => {
                    self.hosts[host].disk = Some(state);
                    self.check_ring(host);
                }
                IpamOutput::Gossip(body) => {
                    let body = Arc::new(body);
                    (0..self.hosts.len()).filter(|to| *to != host).for_each(|to| self.post(host, to, body.clone()));
                }
                IpamOutput::Unicast { to, body } => {
                    let to = (0..self.hosts.len()).find(|host| name(*host) == to);
                    to.into_iter().for_each(|to| self.post(host, to, Arc::new(body.clone())));
                }
                IpamOutput::Answer { request, result } => {
                    let asked = self.requests.remove(&request);
                    if let (Some((at, key)), Ok(Granted::Address(address))) = (asked, &result) {
                        self.hold(at, key, address.ip());
                    }
                    self.answers.insert(request, result);
                }
                IpamOutput::Waiting { .. } => {}
                IpamOutput::Log(line) => {
                    if line.contains("was removed from the address space") {
                        self.hosts[host].wronged = false;
                        self.hosts[host].condemned = false;
                    }
                    self.tell(|| format!("host {host}: {line}"));
                    self.hosts[host].lines.push(line);
                }
            }
        }
    }

    /// One founding: one chain, in whichever order it is seen.
    fn check_ring(&mut self, host: usize) {
        let Some((version, fingerprint)) = self.hosts[host].machine.as_ref().map(Ipam::version) else { return };
        if self.one_founding && version > 0 && !self.false_words {
            let known = self.rings.entry(version).or_insert_with(|| fingerprint.clone());
            if *known != fingerprint {
                self.problem.get_or_insert(format!("two rings of version {version} at {:?}", self.now));
            }
        }
    }

    pub fn post(&mut self, from: usize, to: usize, body: Arc<Vec<u8>>) {
        assert!(body.len() <= rnet::ipam::MESSAGE + 1, "a message is bounded");
        self.bytes += body.len() as u64;
        let copies =
            if self.rng.random_range(0..100u32) < self.loss { [0, 0, 2][self.rng.random_range(0..3usize)] } else { 1 };
        for _ in 0..copies {
            let slow = self.rng.random_range(0..100u32) < self.lag;
            let delay = MS * self.rng.random_range(1..if slow { 8000 } else { 60u32 });
            self.sent += 1;
            self.queue.push(Reverse((self.now + delay, self.sent)));
            self.mail.insert(self.sent, (from, to, body.clone()));
        }
    }

    pub fn with(&mut self, host: usize, act: impl FnOnce(&mut Ipam, Instant)) {
        let now = self.now;
        if let Some(machine) = self.hosts[host].machine.as_mut() {
            act(machine, now);
            self.drain(host);
        }
    }

    /// Every host that is up learns whom it reaches.
    pub fn look_around(&mut self) {
        self.tell(|| {
            format!("sides {:?}", self.hosts.iter().map(|h| h.machine.as_ref().map(|_| h.side)).collect::<Vec<_>>())
        });
        for host in 0..self.hosts.len() {
            let joined: Vec<usize> = (0..self.hosts.len()).filter(|o| self.joined(host, *o)).collect();
            let blind = self.blind;
            let reach = joined.into_iter().filter(|_| self.rng.random_range(0..100u32) >= blind).map(name).collect();
            self.with(host, |machine, now| machine.reachable(&reach, now));
        }
    }

    pub fn joined(&self, a: usize, b: usize) -> bool {
        self.hosts[a].side == self.hosts[b].side && self.hosts[a].machine.is_some() && self.hosts[b].machine.is_some()
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let mail = self.queue.peek().map(|Reverse((at, _))| *at);
            let timers = self.hosts.iter().filter_map(|h| h.machine.as_ref().and_then(Ipam::deadline));
            let Some(next) = timers.chain(mail).min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            if mail.is_some_and(|at| at <= self.now) {
                let letter = self.queue.pop().and_then(|Reverse((_, id))| self.mail.remove(&id));
                if let Some((from, to, body)) = letter.filter(|(from, to, _)| self.joined(*from, *to)) {
                    self.with(to, |machine, now| machine.receive(name(from), &body, now));
                }
                continue;
            }
            for host in 0..self.hosts.len() {
                let due = self.hosts[host].machine.as_ref().and_then(Ipam::deadline).is_some_and(|at| at <= self.now);
                if due {
                    self.with(host, |machine, now| machine.tick(now));
                    let late =
                        self.hosts[host].machine.as_ref().and_then(Ipam::deadline).is_some_and(|at| at <= self.now);
                    if late {
                        self.problem.get_or_insert(format!("a tick leaves the deadline where it was: host {host}"));
                        return;
                    }
                }
            }
        }
        self.now = end;
    }

    pub fn request(&mut self, host: usize, key: &str) -> u64 {
        self.next_request += 1;
        self.requests.insert(self.next_request, (host, key.to_owned()));
        self.next_request
    }

    pub fn allocate(&mut self, host: usize, key: &str, network: Network) -> u64 {
        let request = self.request(host, key);
        self.with(host, |machine, now| machine.allocate(request, key, network, now));
        request
    }

    pub fn claim(&mut self, host: usize, key: &str, address: HostAddress) -> u64 {
        let request = self.request(host, key);
        self.with(host, |machine, now| machine.claim(request, key, address, now));
        request
    }

    pub fn rmpeer(&mut self, host: usize, victim: usize) -> u64 {
        self.tell(|| format!("host {host}: rmpeer {victim}"));
        let request = self.request(host, "operator");
        for (ip, holders) in &self.ledger {
            if holders.iter().any(|(holder, _)| *holder == victim) {
                self.excused.insert((victim, *ip));
            }
        }
        if self.hosts[victim].machine.is_some() && self.hosts[host].side != self.hosts[victim].side {
            self.hosts[victim].wronged = true;
            self.false_words = true;
        }
        // A word of a host that was itself said to be dead, and has not heard of it: two words that contradict each other.
        self.false_words |= self.hosts[host].condemned;
        self.hosts[victim].condemned |= self.hosts[victim].machine.is_none();
        self.with(host, |machine, now| machine.rmpeer(request, name(victim), now));
        request
    }

    pub fn address(&self, request: u64) -> Option<HostAddress> {
        match self.answers.get(&request) {
            Some(Ok(Granted::Address(address))) => Some(*address),
            _ => None,
        }
    }

    pub fn heal(&mut self) {
        self.loss = 0;
        self.lag = 0;
        self.blind = 0;
        self.crash_after = None;
        self.hosts.iter_mut().for_each(|host| host.side = 0);
        for host in 0..self.hosts.len() {
            if self.hosts[host].machine.is_none() {
                self.start(host);
            }
        }
        self.look_around();
    }

    pub fn status(&self, host: usize) -> rnet::ipam::IpamStatus {
        self.hosts[host].machine.as_ref().expect("it is up").status(self.now)
    }
}
