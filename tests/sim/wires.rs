//! The network underneath: who can reach whom, TCP connections, datagrams.
//!
//! TCP is in order and lossless: what cannot be delivered now (a partition, a lost packet) comes later. A connection whose
//! other end's process died is reset; one whose other end vanished with its machine stays silent until something
//! is sent to the machine that came back. Datagrams are lost, late, doubled, overtaken, and dropped when too big.

use super::machine::{Host, Outcome};
use super::world::{Event, H, World, first_ip, millis};
use rand::RngExt;
use rnet::node::border::{DialId, Input, LinkId};
use rnet::plane::Event as PlaneEvent;
use rnet::types::{Instant, Target};
use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub const PORT: u16 = 6783;
/// Bytes that a kernel takes before the other side has them.
const SEND_BUFFER: usize = 256 << 10;
/// How long a dial to nowhere takes.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// What the network does to those who use it.
#[derive(Debug, Clone)]
pub struct Weather {
    /// Shares of datagrams.
    pub lost: f64,
    pub doubled: f64,
    /// How much later than the latency a datagram may come: beyond the gap between two, they overtake each other.
    pub jitter: Duration,
    /// Share of TCP segments that come a retransmission later.
    pub resent: f64,
    /// Bytes of IP packets.
    pub mtu: usize,
    /// TCP, bytes a second.
    pub bandwidth: u64,
}

impl Default for Weather {
    fn default() -> Weather {
        let jitter = Duration::from_micros(300);
        Weather { lost: 0.0, doubled: 0.0, jitter, resent: 0.0, mtu: 1500, bandwidth: 50_000_000 }
    }
}

/// The way from one host to another, where it is not like the others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Line {
    /// Share of datagrams, beside the weather's.
    pub lost: f64,
    /// One way.
    pub latency: Option<Duration>,
    /// How much later datagrams may come, beside the weather's.
    pub jitter: Duration,
}

#[derive(Debug)]
enum Segment {
    Bytes(Vec<u8>),
    /// The other side closed or was reset.
    End(String),
}

/// One end of a TCP connection: a socket of one process on one host.
#[derive(Debug)]
pub struct Socket {
    h: H,
    life: u64,
    link: LinkId,
    ip: IpAddr,
    open: bool,
    /// On the way to here, in order.
    inbox: VecDeque<(Instant, Segment)>,
    /// What was sent from here has left by then.
    sent_until: Instant,
    drain_at: Option<Instant>,
}

impl Socket {
    fn new(h: H, life: u64, link: LinkId, ip: IpAddr, now: Instant) -> Socket {
        Socket { h, life, link, ip, open: true, inbox: VecDeque::new(), sent_until: now, drain_at: None }
    }

    fn in_flight(&self) -> usize {
        self.inbox.iter().map(|(_, segment)| if let Segment::Bytes(bytes) = segment { bytes.len() } else { 0 }).sum()
    }
}

/// Two sockets.
#[derive(Debug)]
pub struct Connection([Socket; 2]);

impl Connection {
    /// Neither end closed it.
    pub fn is_open(&self) -> bool {
        self.0.iter().all(|socket| socket.open)
    }
}

impl World {
    /// Packets pass between these addresses now.
    fn passes(&self, a: IpAddr, b: IpAddr) -> bool {
        let (Some(a), Some(b)) = (self.host_at(a), self.host_at(b)) else { return false };
        a == b || (self.hosts[a.0].powered && self.hosts[b.0].powered && !self.walls.contains(&pair(a, b)))
    }

    pub fn host_at(&self, ip: IpAddr) -> Option<H> {
        let is =
            |host: &Host| host.ip == ip || host.more_ips.contains(&ip) || host.nat.is_some_and(|nat| nat.ip() == ip);
        // Most are where they were.
        let guess = match ip {
            IpAddr::V4(ip) => usize::from(ip.octets()[3]).wrapping_sub(1),
            IpAddr::V6(_) => usize::MAX,
        };
        if self.hosts.get(guess).is_some_and(|host| host.ip == ip && first_ip(guess) == ip) {
            return Some(H(guess));
        }
        self.hosts.iter().position(is).map(H)
    }

    /// As others see where `h` sends from.
    fn outside(&self, h: H, (from, port): (Option<IpAddr>, u16)) -> SocketAddr {
        let host = &self.hosts[h.0];
        let own = from.or(host.usual_ip).unwrap_or(host.ip);
        SocketAddr::new(host.nat.map_or(own, |nat| nat.ip()), port)
    }

    /// What datagrams meet on the way between two hosts; anything but their own latency, the same for all, was said by a story.
    fn line(&self, from: IpAddr, to: IpAddr) -> Line {
        if self.lines.is_empty() {
            return Line::default();
        }
        let ends = self.host_at(from).zip(self.host_at(to));
        ends.and_then(|ends| self.lines.get(&ends).copied()).unwrap_or_default()
    }

    /// Both ways between the two are like that from now on.
    pub fn set_line(&mut self, a: H, b: H, line: Line) {
        self.lines.insert((a, b), line);
        self.lines.insert((b, a), line);
    }

    fn latency(&mut self, a: IpAddr, b: IpAddr) -> Duration {
        if let Some(latency) = self.line(a, b).latency {
            return latency;
        }
        let (a, b) = match (self.host_at(a), self.host_at(b)) {
            (Some(a), Some(b)) if a != b => pair(a, b),
            _ => return Duration::from_micros(20),
        };
        // Each pair has its own, between 0.1 and 5 ms.
        Duration::from_micros(100 + (a.0 as u64 * 7919 + b.0 as u64 * 104_729 + self.seed % 1000) % 4900)
    }

    pub fn dial(&mut self, h: H, dial: DialId, target: &Target, default_port: u16) {
        let life = self.hosts[h.0].life;
        let named = self.hosts.iter().find(|host| host.name == target.host).map(|host| host.ip);
        let Some(to) = target.ip().or(named) else {
            return self.after(millis(5), Event::DialFailed { h, life, dial, why: "no such host".into() });
        };
        self.dials.push((self.now, h, to));
        let from = self.hosts[h.0].ip;
        if !self.passes(from, to) {
            return self.after(DIAL_TIMEOUT, Event::DialFailed { h, life, dial, why: "timed out".into() });
        }
        let rtt = 2 * self.latency(from, to);
        let to = SocketAddr::new(to, target.port.unwrap_or(default_port));
        self.after(rtt, Event::Dialled { h, life, dial, to });
    }

    /// The dial's answer is back: if somebody listens, both ends have a connection.
    pub fn dialled(&mut self, h: H, life: u64, dial: DialId, to: SocketAddr) {
        let from = self.hosts[h.0].ip;
        let why = match self.host_at(to.ip()) {
            Some(there) if !self.passes(from, to.ip()) || self.hosts[there.0].nat.is_some() => "timed out",
            Some(there) if self.hosts[there.0].process.is_some() && to.port() == PORT => {
                return self.connect(h, life, dial, to);
            }
            Some(_) => "connection refused",
            None => "no route to host",
        };
        self.after(Duration::ZERO, Event::DialFailed { h, life, dial, why: why.into() });
    }

    fn connect(&mut self, h: H, life: u64, dial: DialId, to: SocketAddr) {
        let Some(there) = self.host_at(to.ip()) else { return };
        let number = self.next_connection;
        self.next_connection += 1;
        let from = self.outside(h, (None, 40_000 + u16::try_from(number % 20_000).unwrap()));
        let (ours, theirs) = (self.new_link(h), self.new_link(there));
        let their_life = self.hosts[there.0].life;
        let ends = [
            Socket::new(h, life, ours, self.hosts[h.0].ip, self.now),
            Socket::new(there, their_life, theirs, to.ip(), self.now),
        ];
        for (end, socket) in ends.iter().enumerate() {
            self.sockets.insert((socket.h, socket.life, socket.link), (number, end));
        }
        self.connections.insert(number, Connection(ends));
        self.feed(there, Input::LinkUp { link: theirs, dial: None, remote: from, local: to });
        self.feed(h, Input::LinkUp { link: ours, dial: Some(dial), remote: to, local: from });
    }

    fn new_link(&mut self, h: H) -> LinkId {
        let process = self.hosts[h.0].process.as_mut().unwrap();
        process.next_link += 1;
        LinkId(process.next_link)
    }

    fn socket_of(&self, h: H, link: LinkId) -> Option<(u64, usize)> {
        let life = self.hosts[h.0].life;
        self.sockets.get(&(h, life, link)).copied()
    }

    pub fn send_stream(&mut self, h: H, link: LinkId, mut bytes: Vec<u8>) {
        let Some((number, end)) = self.socket_of(h, link) else { return };
        if !self.connections[&number].0[end].open {
            return;
        }
        // The stream arrives in other pieces than it was sent in.
        if bytes.len() > 1 && self.rng.random_bool(0.2) {
            let cut = self.rng.random_range(1..bytes.len());
            let rest = bytes.split_off(cut);
            self.transmit_segment(number, end, Segment::Bytes(bytes));
            bytes = rest;
        }
        self.transmit_segment(number, end, Segment::Bytes(bytes));
        self.schedule_drain(number, end, Duration::from_micros(5));
    }

    pub fn close_stream(&mut self, h: H, link: LinkId) {
        let Some((number, end)) = self.socket_of(h, link) else { return };
        self.connections.get_mut(&number).unwrap().0[end].open = false;
        self.transmit_segment(number, end, Segment::End("closed by the peer".into()));
    }

    fn transmit_segment(&mut self, number: u64, end: usize, segment: Segment) {
        let [from, to] = [end, 1 - end].map(|end| self.connections[&number].0[end].ip);
        let mut latency = self.latency(from, to);
        while self.rng.random_bool(self.weather.resent.min(0.9)) {
            latency += millis(200);
        }
        let length = if let Segment::Bytes(bytes) = &segment { bytes.len() as u64 } else { 0 };
        self.bytes += length;
        let takes = Duration::from_nanos(length * 1_000_000_000 / self.weather.bandwidth);
        let Connection(ends) = self.connections.get_mut(&number).unwrap();
        ends[end].sent_until = ends[end].sent_until.max(self.now) + takes;
        let earliest = ends[1 - end].inbox.back().map_or(Instant::ZERO, |(at, _)| *at);
        let at = (ends[end].sent_until + latency).max(earliest);
        ends[1 - end].inbox.push_back((at, segment));
        self.at(at, Event::Segment { number, end: 1 - end });
    }

    fn schedule_drain(&mut self, number: u64, end: usize, delay: Duration) {
        let at = self.now + delay;
        self.connections.get_mut(&number).unwrap().0[end].drain_at = Some(at);
        self.at(at, Event::Drained { number, end });
    }

    pub fn drained(&mut self, number: u64, end: usize) {
        let now = self.now;
        let Some(Connection(ends)) = self.connections.get_mut(&number) else { return };
        let in_flight = ends[1 - end].in_flight();
        let socket = &mut ends[end];
        if socket.drain_at != Some(now) || !socket.open {
            return;
        }
        if in_flight > SEND_BUFFER {
            return self.schedule_drain(number, end, millis(10));
        }
        socket.drain_at = None;
        let (h, life, link) = (socket.h, socket.life, socket.link);
        if self.hosts[h.0].life == life {
            self.feed(h, Input::LinkDrained { link });
        }
    }

    /// A segment is due at one end.
    pub fn segment(&mut self, number: u64, end: usize) {
        let Some(Connection(ends)) = self.connections.get(&number) else { return };
        let Some((at, _)) = ends[end].inbox.front() else { return };
        if *at > self.now {
            return;
        }
        let (here, there) = (&ends[end], &ends[1 - end]);
        let moved = [here, there].iter().any(|socket| self.hosts[socket.h.0].ip != socket.ip);
        if moved || !self.passes(here.ip, there.ip) {
            return self.after(millis(200), Event::Segment { number, end });
        }
        let is_live = here.open && self.hosts[here.h.0].life == here.life;
        let (h, link) = (here.h, here.link);
        let Connection(ends) = self.connections.get_mut(&number).unwrap();
        let (_, segment) = ends[end].inbox.pop_front().unwrap();
        if ends[end].inbox.front().is_some_and(|(at, _)| *at <= self.now) {
            self.at(self.now, Event::Segment { number, end });
        }
        match segment {
            Segment::Bytes(bytes) if is_live => self.feed(h, Input::LinkBytes { link, bytes: &bytes }),
            // Nobody is there: the kernel says so.
            Segment::Bytes(_) => {
                let sender_is_open = self.connections[&number].0[1 - end].open;
                if sender_is_open {
                    self.transmit_segment(number, end, Segment::End("connection reset".into()));
                }
            }
            Segment::End(why) => {
                self.connections.get_mut(&number).unwrap().0[end].open = false;
                if is_live {
                    self.feed(h, Input::LinkDown { link, why });
                }
            }
        }
        let over = |socket: &Socket| !socket.open && socket.inbox.is_empty();
        if self.connections[&number].0.iter().all(over) {
            let Connection(ends) = self.connections.remove(&number).unwrap();
            for socket in ends {
                self.sockets.remove(&(socket.h, socket.life, socket.link));
            }
        }
    }

    /// The process that had these sockets is gone. With its machine: silently.
    pub fn drop_sockets(&mut self, h: H, silently: bool) {
        let mine = |socket: &Socket| socket.h == h && socket.open;
        let ends: Vec<(u64, usize)> = (self.connections.iter())
            .flat_map(|(number, c)| c.0.iter().enumerate().filter(|(_, s)| mine(s)).map(|(end, _)| (*number, end)))
            .collect();
        for (number, end) in ends {
            self.connections.get_mut(&number).unwrap().0[end].open = false;
            if !silently {
                self.transmit_segment(number, end, Segment::End("connection reset".into()));
            }
        }
    }

    /// From this UDP port of `h`.
    pub fn send_datagram(&mut self, h: H, from: (Option<IpAddr>, u16), to: SocketAddr, bytes: Vec<u8>) {
        let from = self.mapped(h, to).unwrap_or_else(|| self.outside(h, from));
        self.hosts[h.0].contacted.insert(to, self.now);
        self.datagrams += 1;
        self.bytes += bytes.len() as u64;
        let lines = [self.host_at(to.ip()), Some(h)].into_iter().flatten().map(|h| self.hosts[h.0].line_mtu);
        let widest = lines.min().unwrap_or(usize::MAX).min(self.weather.mtu);
        let line = self.line(from.ip(), to.ip());
        let lost = 1.0 - (1.0 - self.weather.lost) * (1.0 - line.lost);
        if bytes.len() + 28 > widest || self.rng.random_bool(lost) {
            return;
        }
        let copies = 1 + usize::from(self.rng.random_bool(self.weather.doubled));
        for _ in 0..copies {
            let late = (self.weather.jitter + line.jitter).mul_f64(self.rng.random::<f64>());
            let latency = self.latency(from.ip(), to.ip()) + late;
            self.after(latency, Event::Datagram { from, to, bytes: bytes.clone() });
        }
    }

    pub fn datagram(&mut self, from: SocketAddr, to: SocketAddr, mut bytes: Vec<u8>) {
        let Some(h) = self.host_at(to.ip()) else { return };
        let host = &self.hosts[h.0];
        let by_vxlan = host.nat.is_none() && Some(to.port()) == host.vxlan;
        let remembered = host.contacted.get(&from).is_some_and(|at| self.now - *at < host.nat_life);
        let is_let_in = match self.mapped(h, from) {
            None => to.port() == PORT || by_vxlan,
            Some(nat) => nat == to && remembered,
        };
        if by_vxlan && bytes.len() > self.vxlan_widest {
            return;
        }
        let filtered = if by_vxlan { &self.no_vxlan } else { &self.no_udp };
        let is_filtered = self.host_at(from.ip()).is_some_and(|from| filtered.contains(&pair(from, h)));
        if !self.passes(from.ip(), to.ip()) || !is_let_in || is_filtered || self.dead_ips.contains(&to.ip()) {
            return;
        }
        if let Some(wiretap) = &mut self.wiretap {
            wiretap.push((from, to, bytes.clone()));
        }
        let Some(process) = &self.hosts[h.0].process else { return };
        let (plane, mut outcome) = (process.plane.clone(), Outcome::default());
        if by_vxlan {
            plane.batch(self.now).from_vteps(to.port(), std::iter::once((from, bytes.as_mut_slice())), &mut outcome);
        } else {
            plane.from_net(from, &mut bytes, self.now, &mut outcome);
        }
        for event in outcome.events.iter_mut().filter(|_| self.hosts[h.0].locates) {
            if let PlaneEvent::Probe { local, .. } = event {
                *local = Some(to.ip());
            }
        }
        self.carry_out(h, outcome);
    }

    /// What a translator makes of the address of `h` in datagrams to `to`.
    fn mapped(&self, h: H, to: SocketAddr) -> Option<SocketAddr> {
        let host = &self.hosts[h.0];
        let nat = host.nat?;
        let mut port = nat.port();
        if host.nat_random {
            let mut hash = DefaultHasher::new();
            (to, port).hash(&mut hash);
            port = 20_000 + u16::try_from(hash.finish() % 40_000).unwrap();
        }
        Some(SocketAddr::new(nat.ip(), port))
    }

    /// The translator of `h` forgets all it knew and takes another address: connections through it hang, and `reset`s them
    /// inside when it says so.
    pub fn rebind(&mut self, h: H, nat: SocketAddr, reset: bool) {
        self.hosts[h.0].nat = Some(nat);
        self.hosts[h.0].contacted.clear();
        self.hang(h, reset);
    }

    /// `h` has another address: its connections hang.
    pub fn move_to(&mut self, h: H, ip: IpAddr) {
        self.hosts[h.0].ip = ip;
        let all = self.hosts[h.0].addresses();
        self.feed(h, Input::Addresses(all));
        self.feed(h, Input::NetworkChanged);
    }

    fn hang(&mut self, h: H, reset: bool) {
        let life = self.hosts[h.0].life;
        let mut links = Vec::new();
        for Connection(ends) in self.connections.values_mut() {
            if let Some(end) = ends.iter().position(|end| end.h == h && end.life == life && end.open) {
                // Packets of neither end arrive any more.
                ends[end].ip = IpAddr::from([0, 0, 0, 0]);
                links.push(ends[end].link);
                ends[end].open &= !reset;
            }
        }
        for link in links.into_iter().filter(|_| reset) {
            self.feed(h, Input::LinkDown { link, why: "connection reset".into() });
        }
    }

    /// Nothing passes between the two any more.
    pub fn wall(&mut self, a: H, b: H) {
        self.walls.insert(pair(a, b));
    }

    /// It passes again. The hosts do not notice.
    pub fn unwall(&mut self, a: H, b: H) {
        self.walls.remove(&pair(a, b));
    }

    /// Only these can reach each other.
    pub fn only(&mut self, edges: &[(H, H)]) {
        let all = (0..self.hosts.len()).flat_map(|a| (0..a).map(move |b| pair(H(a), H(b))));
        let open: BTreeSet<(H, H)> = edges.iter().map(|(a, b)| pair(*a, *b)).collect();
        self.walls = all.filter(|pair| !open.contains(pair)).collect();
    }

    /// Nothing passes from one group to the other.
    pub fn partition(&mut self, one: &[H], other: &[H]) {
        one.iter().for_each(|a| other.iter().for_each(|b| self.wall(*a, *b)));
    }

    pub fn heal(&mut self) {
        self.walls.clear();
    }

    /// Whether the network underneath lets the two reach each other, over as many routers that run as it takes.
    pub fn could_reach(&self, from: H, to: H) -> bool {
        let runs = |h: &H| self.hosts[h.0].process.is_some();
        let (mut seen, mut queue) = (BTreeSet::from([from]), vec![from]);
        while let Some(at) = queue.pop() {
            let next = (0..self.hosts.len())
                .map(H)
                .filter(|h| runs(h) && self.passes(self.hosts[at.0].ip, self.hosts[h.0].ip));
            for h in next.collect::<Vec<_>>() {
                if seen.insert(h) {
                    queue.push(h);
                }
            }
        }
        runs(&from) && seen.contains(&to)
    }
}

pub fn pair(a: H, b: H) -> (H, H) {
    (a.min(b), a.max(b))
}
