//! What the tests of this room share: a sink that remembers, pairs of paths with agreed keys, and a mesh of planes
//! whose datagrams are carried by hand. Topologies are given as edges; everything else follows by breadth-first search.

use super::fib::{Fib, Floods, NetworkEntry, PathId, Permit, PortId};
use super::path::{Epoch, Path};
use super::tunnel::{Ends, Tunnel};
use super::{Event, Limits, Plane, Sink, Takes};
use crate::crypto::keys::{Ephemeral, EpochKeys};
use crate::crypto::seal::Cipher;
use crate::crypto::session::Role;
use crate::types::{Instant, Mac, NetId, ShortId};
use crate::wire::datagram::Inner;
use crate::wire::virtio::Offload;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

pub const PORT: PortId = PortId(1);

pub fn net(id: u32) -> NetId {
    NetId::new(id).unwrap()
}

pub fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

pub fn address(host: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, u8::try_from(host).unwrap()], 6783))
}

pub fn short(host: usize) -> ShortId {
    ShortId(u16::try_from(host).unwrap() + 100)
}

/// The door by which the tests' VTEPs are reached.
pub const DOOR: u16 = 4789;

/// Where VTEP `n` is.
pub fn vtep(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, n], 4789))
}

/// VTEP `n`, joined to `network` on port 100 + `n`; it calls the network 40 + `n`.
pub fn tunnel(n: u8, network: u32) -> Tunnel {
    let (port, vni) = (PortId(100 + u32::from(n)), net(40 + u32::from(n)));
    Tunnel::new(Ends { port, network: net(network), vni, to: vtep(n), door: DOOR })
}

/// An Ethernet frame of `ether_type`, padded with nothing.
pub fn ethernet(dst: Mac, src: Mac, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&dst.0[..], &src.0[..], &ether_type.to_be_bytes(), payload].concat()
}

/// A sink that remembers everything.
#[derive(Default)]
pub struct Memory {
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// Datagrams that left by a door.
    pub tunnelled: Vec<(u16, SocketAddr, Vec<u8>)>,
    pub frames: Vec<(PortId, Vec<u8>)>,
    /// What is left to do on each of `frames`.
    pub offloads: Vec<Offload>,
    pub takes: Takes,
    pub events: Vec<Event>,
    pub full: bool,
}

impl Sink for Memory {
    fn datagram(&mut self, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        if self.full {
            return None;
        }
        // Memory of a batch holds what was there before.
        self.datagrams.push((to, vec![0xa5; len]));
        self.datagrams.last_mut().map(|(_, bytes)| bytes.as_mut_slice())
    }

    fn tunnelled(&mut self, door: u16, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        if self.full {
            return None;
        }
        self.tunnelled.push((door, to, vec![0xa5; len]));
        self.tunnelled.last_mut().map(|(_, _, bytes)| bytes.as_mut_slice())
    }

    fn deliver(&mut self, port: PortId, offload: &Offload, parts: &[&[u8]]) {
        self.frames.push((port, parts.concat()));
        self.offloads.push(*offload);
    }

    fn takes(&self, _: PortId) -> Takes {
        self.takes
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

/// The keys of an epoch, as both ends hold them.
pub fn agree(epoch: u16, salt: u8) -> (EpochKeys, EpochKeys) {
    let seeds = ([salt; 32], [!salt; 32]);
    let (publics, hash) = ((Ephemeral::new(seeds.0).public(), Ephemeral::new(seeds.1).public()), [9; 32]);
    let dialer = Ephemeral::new(seeds.0).agree(&publics.1, &hash, epoch, Role::Dialer).unwrap();
    let listener = Ephemeral::new(seeds.1).agree(&publics.0, &hash, epoch, Role::Listener).unwrap();
    (dialer, listener)
}

/// Installs and activates an epoch on both ends. The receiver index is the path's id times 1000, plus the epoch.
pub fn rekey(a: &Path, b: &Path, number: u16) {
    let (dialer, listener) = agree(number, number.to_be_bytes()[1]);
    let index = |path: &Path| path.id().0 * 1000 + u32::from(number);
    let cipher = Cipher::Aes256Gcm;
    a.install(Epoch { number, cipher, keys: dialer, our_index: index(a), their_index: index(b) });
    b.install(Epoch { number, cipher, keys: listener, our_index: index(b), their_index: index(a) });
    a.activate(number);
    b.activate(number);
}

/// Writes a frame as one datagram of `path`.
pub fn write(path: &Path, inner: &Inner, frame: &[u8], out: &mut Memory) {
    path.writer().unwrap().write(inner, frame.len(), out, |into| into.copy_from_slice(frame)).unwrap();
}

/// Two ends of a ready path between hosts 1 and 2, with epoch 1.
pub fn pair() -> (Path, Path) {
    let (a, b) = (Path::new(PathId(12), short(2)), Path::new(PathId(21), short(1)));
    rekey(&a, &b, 1);
    for (path, there) in [(&a, 2), (&b, 1)] {
        path.set_endpoint(address(there));
        path.set_ready(true);
        path.set_mtu(1472);
    }
    (a, b)
}

/// A host of a [`Mesh`]. Its path to host `n` is `paths[&n]`.
pub struct Host {
    pub plane: Plane,
    pub paths: HashMap<usize, Arc<Path>>,
    pub out: Memory,
}

/// Hosts 1 to n, joined by edges.
pub struct Mesh {
    pub hosts: HashMap<usize, Host>,
    pub now: Instant,
}

/// The tree of each origin as one host sees it: the path above, and those below.
#[derive(Default)]
struct Trees(HashMap<ShortId, (Option<PathId>, Below)>);

type Below = Vec<Arc<Path>>;

impl Floods for Trees {
    fn each_next_hop(&self, origin: ShortId, _: NetId, visit: &mut dyn FnMut(&Path)) {
        self.0.get(&origin).into_iter().flat_map(|(_, below)| below).for_each(|path| visit(path));
    }

    fn takes(&self, origin: ShortId, came: PathId) -> bool {
        self.0.get(&origin).and_then(|(above, _)| *above).is_none_or(|above| above == came)
    }
}

/// The parent of each host in the tree of `root`, by breadth-first search; ties go to the lowest.
fn parents(root: usize, edges: &[(usize, usize)]) -> HashMap<usize, usize> {
    let mut parents = HashMap::from([(root, 0)]);
    let mut queue = std::collections::VecDeque::from([root]);
    while let Some(at) = queue.pop_front() {
        let mut next: Vec<usize> =
            edges.iter().filter_map(|&(a, b)| [(a, b), (b, a)].into_iter().find(|e| e.0 == at)).map(|e| e.1).collect();
        next.sort_unstable();
        for host in next {
            parents.entry(host).or_insert_with(|| {
                queue.push_back(host);
                at
            });
        }
    }
    parents
}

impl Mesh {
    /// Every host has a port on each of `networks`, and believes in `edges`.
    pub fn new(count: usize, edges: &[(usize, usize)], networks: &[u32]) -> Mesh {
        let hosts = (1..=count)
            .map(|n| (n, Host { plane: Plane::new(Limits::default()), paths: HashMap::new(), out: Memory::default() }));
        let mut mesh = Mesh { hosts: hosts.collect(), now: Instant::ZERO };
        for &(a, b) in edges {
            mesh.join(a, b);
        }
        for host in 1..=count {
            mesh.publish(host, edges, networks, |_| {});
        }
        mesh
    }

    fn join(&mut self, a: usize, b: usize) {
        let id = |here: usize, there: usize| PathId(u32::try_from(here * 10 + there).unwrap());
        let ends = (Arc::new(Path::new(id(a, b), short(b))), Arc::new(Path::new(id(b, a), short(a))));
        rekey(&ends.0, &ends.1, 1);
        for (path, here, there) in [(ends.0, a, b), (ends.1, b, a)] {
            path.set_endpoint(address(there));
            path.set_ready(true);
            path.set_mtu(1472);
            self.hosts.get_mut(&here).unwrap().paths.insert(there, path);
        }
    }

    /// Publishes what `host` is to believe: `edges`, ports on `networks`, and what `change` makes of it.
    pub fn publish(&mut self, host: usize, edges: &[(usize, usize)], networks: &[u32], change: impl FnOnce(&mut Fib)) {
        let here = self.hosts.get_mut(&host).unwrap();
        let mut fib = Fib { me: short(host), ..Fib::empty() };
        let mut trees = Trees::default();
        let all: Vec<usize> = edges.iter().flat_map(|&(a, b)| [a, b]).collect();
        for &other in &all {
            let from_other = parents(other, edges);
            let above = from_other.get(&host).and_then(|parent| here.paths.get(parent));
            let below = from_other
                .iter()
                .filter(|(_, parent)| **parent == host)
                .filter_map(|(child, _)| here.paths.get(child))
                .cloned();
            trees.0.insert(short(other), (above.map(|path| path.id()), below.collect()));
            if let (true, Some(next)) = (other != host, above) {
                fib.next_hops.insert(short(other), next.clone());
            }
        }
        for path in here.paths.values() {
            fib.by_index.extend(path.indexes().into_iter().map(|index| (index, path.clone())));
            fib.paths.insert(path.id(), path.clone());
        }
        for (port, &network) in (1..).zip(networks) {
            fib.ports.insert(PortId(port), net(network));
            let entry = NetworkEntry { port: Some(PortId(port)), unguarded: true, ..NetworkEntry::default() };
            fib.networks.insert(net(network), entry);
        }
        fib.floods = Box::new(trees);
        change(&mut fib);
        here.plane.publish(fib);
    }

    pub fn host(&mut self, host: usize) -> &mut Host {
        self.hosts.get_mut(&host).unwrap()
    }

    /// A frame is captured at `host`.
    pub fn capture(&mut self, host: usize, port: PortId, frame: &[u8]) {
        let now = self.now;
        let here = self.host(host);
        here.plane.from_bridge(port, frame, now, &mut here.out);
    }

    /// A frame is captured at `host` on which work is left to do.
    pub fn capture_offloaded(&mut self, host: usize, frame: &[u8], offload: &Offload) {
        let now = self.now;
        let here = self.host(host);
        here.plane.batch(now).from_bridge(PORT, &mut frame.to_vec(), offload, &mut here.out);
    }

    /// The same on another port than the bridge's.
    pub fn capture_on(&mut self, host: usize, port: PortId, frame: &[u8], offload: &Offload) {
        let now = self.now;
        let here = self.host(host);
        here.plane.batch(now).from_bridge(port, &mut frame.to_vec(), offload, &mut here.out);
    }

    /// Datagrams arrive at `host` in one batch.
    pub fn receive_all(&mut self, host: usize, from: SocketAddr, datagrams: &mut [Vec<u8>]) {
        let now = self.now;
        let here = self.host(host);
        let datagrams = datagrams.iter_mut().map(|datagram| (from, datagram.as_mut_slice()));
        here.plane.batch(now).from_net(datagrams, &mut here.out);
    }

    /// A datagram arrives at `host`.
    pub fn receive(&mut self, host: usize, from: SocketAddr, mut datagram: Vec<u8>) {
        let now = self.now;
        let here = self.host(host);
        here.plane.from_net(from, &mut datagram, now, &mut here.out);
    }

    /// Takes what `host` has to send.
    pub fn sent(&mut self, host: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.host(host).out.datagrams)
    }

    /// Carries datagrams until none is left; returns how many there were. Fails beyond a limit that no sane mesh reaches.
    pub fn carry(&mut self) -> usize {
        let mut carried = 0;
        loop {
            let sent: Vec<_> = (1..=self.hosts.len())
                .flat_map(|host| self.sent(host).into_iter().map(move |sent| (host, sent)))
                .collect();
            if sent.is_empty() {
                return carried;
            }
            for (from, (to, datagram)) in sent {
                carried += 1;
                assert!(carried < 100_000, "the mesh melts");
                let to = (1..=self.hosts.len()).find(|host| address(*host) == to).unwrap();
                self.receive(to, address(from), datagram);
            }
        }
    }

    /// Captures at `host`, carries, and returns what was delivered where: host, port, frame.
    pub fn send(&mut self, host: usize, port: PortId, frame: &[u8]) -> Vec<(usize, PortId, Vec<u8>)> {
        self.capture(host, port, frame);
        self.carry();
        self.delivered()
    }

    /// Takes what was delivered, by host.
    pub fn delivered(&mut self) -> Vec<(usize, PortId, Vec<u8>)> {
        (1..=self.hosts.len())
            .flat_map(|host| {
                std::mem::take(&mut self.host(host).out.frames)
                    .into_iter()
                    .map(move |(port, frame)| (host, port, frame))
            })
            .collect()
    }
}

/// Permits `mac` these addresses.
pub fn permit(addresses: &[&str]) -> Permit {
    Permit { addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(), unguarded: false, routes_for: None }
}
