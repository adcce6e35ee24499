//! Three planes in a chain, 1 - 2 - 3, with one network and paths that are sealed unless it says otherwise, and a sink that is a batch's memory. Used by the
//! `switch` bench and by `tests/no_alloc.rs`.

use rnet::crypto::keys::Ephemeral;
use rnet::crypto::seal::Cipher;
use rnet::crypto::session::Role;
use rnet::plane::fib::{Fib, Floods, NetworkEntry, PathId, Permit, PortId};
use rnet::plane::neighbours::Known;
use rnet::plane::path::{Epoch, Path};
use rnet::plane::tunnel::{Ends, Tunnel};
use rnet::plane::uplink::Uplink;
use rnet::plane::vxlan::{Carrier, End};
use rnet::plane::{Event, Limits, Place, Plane, Sink, Takes};
use rnet::types::{Mac, NetId, ShortId};
use rnet::wire::virtio::{Gso, GsoKind, Offload, Partial};
use smallvec::SmallVec;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

pub const PORT: PortId = PortId(1);

/// The attachment at a host; it has 10.0.0.`host`.
pub fn mac(host: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, host])
}

pub fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 6783))
}

/// A UDP packet of `len` bytes, Ethernet header included, from the attachment at `from`.
pub fn frame(from: u8, dst: Mac, len: usize) -> Vec<u8> {
    let packet =
        etherparse::PacketBuilder::ethernet2(mac(from).0, dst.0).ipv4([10, 0, 0, from], [10, 0, 0, 9], 64).udp(7, 9);
    let mut frame = Vec::new();
    packet.write(&mut frame, &vec![0; len - 42]).expect("a vector takes everything");
    frame
}

#[allow(dead_code)] // not every bench has a use for it
/// A super-frame of TCP with `len` bytes of payload, as a kernel hands it over: cut into frames of 1,402 bytes.
pub fn super_frame(from: u8, dst: Mac, len: usize) -> (Vec<u8>, Offload) {
    const HEADERS: u16 = 14 + 20 + 20;
    let packet = etherparse::PacketBuilder::ethernet2(mac(from).0, dst.0).ipv4([10, 0, 0, from], [10, 0, 0, 9], 64);
    let mut frame = Vec::new();
    packet.tcp(7, 9, 1, 4096).ack(2).write(&mut frame, &vec![0; len]).expect("a vector takes everything");
    let checksum = Some(Partial { start: 34, offset: 16 });
    let gso = Some(Gso { kind: GsoKind::Tcp4, ecn: false, size: 1402 - HEADERS, headers: HEADERS });
    (frame, Offload { checksum, gso })
}

/// As [`frame`], of IPv6: from fd00::`from`.
#[allow(dead_code)]
pub fn frame6(from: u8, dst: Mac, len: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let packet = etherparse::PacketBuilder::ethernet2(mac(from).0, dst.0).ipv6(address6(from), address6(9), 64);
    packet.udp(7, 9).write(&mut frame, &vec![0; len - 62]).expect("a vector takes everything");
    frame
}

/// As [`super_frame`], of IPv6.
#[allow(dead_code)]
pub fn super_frame6(from: u8, dst: Mac, len: usize) -> (Vec<u8>, Offload) {
    const HEADERS: u16 = 14 + 40 + 20;
    let packet = etherparse::PacketBuilder::ethernet2(mac(from).0, dst.0).ipv6(address6(from), address6(9), 64);
    let mut frame = Vec::new();
    packet.tcp(7, 9, 1, 4096).ack(2).write(&mut frame, &vec![0; len]).expect("a vector takes everything");
    let checksum = Some(Partial { start: 54, offset: 16 });
    let gso = Some(Gso { kind: GsoKind::Tcp6, ecn: false, size: 1402 - HEADERS, headers: HEADERS });
    (frame, Offload { checksum, gso })
}

/// A super-frame of `count` UDP datagrams of `size` bytes each.
#[allow(dead_code)]
pub fn super_frame_of_udp(from: u8, dst: Mac, count: usize, size: u16) -> (Vec<u8>, Offload) {
    let checksum = Some(Partial { start: 34, offset: 6 });
    let gso = Some(Gso { kind: GsoKind::Udp, ecn: false, size, headers: 42 });
    (frame(from, dst, 42 + count * usize::from(size)), Offload { checksum, gso })
}

fn address6(host: u8) -> [u8; 16] {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()).octets()
}

/// A batch of fixed memory: what does not fit is refused.
pub struct Memory {
    bytes: Vec<u8>,
    used: usize,
    sent: Vec<(SocketAddr, std::ops::Range<usize>)>,
    /// Writes to capture ports: a super-frame is one.
    pub delivered: usize,
    /// What all ports take.
    pub takes: Takes,
}

impl Memory {
    pub fn new() -> Memory {
        Memory {
            bytes: vec![0; 1 << 20],
            used: 0,
            sent: Vec::with_capacity(1024),
            delivered: 0,
            takes: Takes::default(),
        }
    }

    pub fn clear(&mut self) {
        self.used = 0;
        self.delivered = 0;
        self.sent.clear();
    }

    /// The datagrams for `to`, to be opened in place.
    pub fn sent_to(&mut self, to: SocketAddr) -> impl Iterator<Item = &mut [u8]> {
        let mut rest = self.bytes.as_mut_slice();
        let mut begin = 0;
        self.sent.iter().filter_map(move |(whom, range)| {
            let (_, from) = std::mem::take(&mut rest).split_at_mut(range.start - begin);
            let (datagram, after) = from.split_at_mut(range.len());
            (rest, begin) = (after, range.end);
            (*whom == to).then_some(datagram)
        })
    }
}

impl Sink for Memory {
    fn datagram(&mut self, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        let range = self.used..self.used + len;
        let memory = self.bytes.get_mut(range.clone())?;
        self.used = range.end;
        self.sent.push((to, range));
        Some(memory)
    }

    fn tunnelled(&mut self, _: u16, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        self.datagram(to, len)
    }

    fn deliver(&mut self, _: PortId, _: &Offload, parts: &[&[u8]]) {
        self.delivered += usize::from(!parts.is_empty());
    }

    fn takes(&self, _: PortId) -> Takes {
        self.takes
    }

    fn event(&mut self, _: Event) {}
}

/// The VTEP at host 1 of [`chain_with_vtep`].
#[allow(dead_code)]
pub fn vtep() -> Arc<Tunnel> {
    let network = NetId::new(7).expect("not zero");
    let to = SocketAddr::from(([198, 51, 100, 5], 4789));
    Arc::new(Tunnel::new(Ends { port: PortId(2), network, vni: network, to, door: 4789 }))
}

/// As [`chain`], with a VTEP at host 1.
#[allow(dead_code)]
pub fn chain_with_vtep() -> [Plane; 3] {
    chain_of(&[vtep()], &[], Between::Sealed)
}

/// The captured interface at host 1 of [`chain_with_uplink`].
#[allow(dead_code)]
pub const UPLINK: PortId = PortId(3);

/// As [`chain`], with a captured interface at host 1, whose capture tells nothing.
#[allow(dead_code)]
pub fn chain_with_uplink() -> [Plane; 3] {
    let uplink = Uplink::new(UPLINK, NetId::new(7).expect("not zero"), true);
    uplink.set_carries(true);
    chain_of(&[], &[Arc::new(uplink)], Between::Sealed)
}

/// The tree of every origin in a chain: to the other side of where it came from.
struct Chain {
    me: ShortId,
    paths: Vec<Arc<Path>>,
}

impl Floods for Chain {
    fn each_next_hop(&self, origin: ShortId, _: NetId, visit: &mut dyn FnMut(&Path)) {
        let beyond = |path: &&Arc<Path>| origin == self.me || (path.peer() > self.me) == (origin < self.me);
        self.paths.iter().filter(beyond).for_each(|path| visit(path));
    }
}

/// By what neighbours speak to each other.
#[derive(Clone, Copy)]
enum Between {
    Sealed,
    Clear,
    Vxlan { unfinished: bool },
}

/// The UDP port of peers that speak VXLAN.
pub const DOOR: u16 = 6784;

/// Where the VXLAN of a host goes.
pub fn door(host: u8) -> SocketAddr {
    SocketAddr::new(address(host).ip(), DOOR)
}

fn join(here: u8, there: u8, between: Between) -> (Arc<Path>, Arc<Path>) {
    let new = |here: u8, there: u8| Arc::new(Path::new(PathId(u32::from(here * 10 + there)), ShortId(there.into())));
    let (a, b) = (new(here, there), new(there, here));
    let seeds = [[here; 32], [there; 32]];
    let publics = seeds.map(|seed| Ephemeral::new(seed).public());
    for (path, seed, theirs, role, other) in [(&a, 0, 1, Role::Dialer, &b), (&b, 1, 0, Role::Listener, &a)] {
        let keys = Ephemeral::new(seeds[seed]).agree(&publics[theirs], &[0; 32], 1, role).expect("an honest point");
        let (our_index, their_index) = (path.id().0, other.id().0);
        path.install(Epoch { number: 1, cipher: Cipher::Aes256Gcm, keys, our_index, their_index });
        path.activate(1);
        path.set_ready(true);
        path.set_mtu(1472);
    }
    a.set_endpoint(address(there));
    b.set_endpoint(address(here));
    for (path, to) in [(&a, there), (&b, here)] {
        path.set_sealed(matches!(between, Between::Sealed));
        if let Between::Vxlan { unfinished } = between {
            path.set_carrier(Carrier::Vxlan(End { door: DOOR, to: door(to), room: 1450, unfinished }));
        }
    }
    (a, b)
}

/// What was given out, as everybody sees it from elsewhere: 10.0.0.`host` and fd00::`host`.
fn known(network: NetId) -> impl Iterator<Item = Known> {
    (1..=3).flat_map(move |host| {
        let addresses = [IpAddr::from([10, 0, 0, host]), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()).into()];
        addresses.map(|address| Known { network, address, mac: mac(host), place: Place::Peer(ShortId(host.into())) })
    })
}

/// The planes of hosts 1, 2 and 3. Ports are guarded.
pub fn chain() -> [Plane; 3] {
    chain_of(&[], &[], Between::Sealed)
}

/// The same, and nothing is sealed.
#[allow(dead_code)]
pub fn chain_in_clear() -> [Plane; 3] {
    chain_of(&[], &[], Between::Clear)
}

/// The same, and neighbours speak VXLAN; `unfinished`: they take unfinished checksums.
#[allow(dead_code)]
pub fn chain_by_vxlan(unfinished: bool) -> [Plane; 3] {
    chain_of(&[], &[], Between::Vxlan { unfinished })
}

/// The same, with VTEPs at host 1.
fn chain_of(tunnels: &[Arc<Tunnel>], uplinks: &[Arc<Uplink>], between: Between) -> [Plane; 3] {
    let net = NetId::new(7).expect("not zero");
    let (left, right) = (join(1, 2, between), join(2, 3, between));
    let paths = [vec![left.0], vec![left.1, right.0], vec![right.1]];
    let mut host = 0;
    paths.map(|paths| {
        host += 1;
        let mut fib = Fib { me: ShortId(host.into()), ..Fib::empty() };
        for other in (1..=3).filter(|other| *other != host) {
            let next = if other > host { paths.last() } else { paths.first() };
            fib.next_hops.extend(next.map(|path| (ShortId(other.into()), path.clone())));
        }
        fib.by_index =
            paths.iter().flat_map(|path| path.indexes().into_iter().map(|index| (index, path.clone()))).collect();
        let mut entry = NetworkEntry { port: Some(PORT), ..NetworkEntry::default() };
        let addresses = SmallVec::from_slice(&[[10, 0, 0, host].into(), address6(host).into()]);
        entry.permits.insert(mac(host), Permit { addresses, unguarded: false, routes_for: None });
        for tunnel in tunnels.iter().filter(|_| host == 1) {
            entry.tunnels.push(tunnel.clone());
            fib.tunnels.insert(tunnel.clone());
        }
        for uplink in uplinks.iter().filter(|_| host == 1) {
            entry.uplinks.push(uplink.clone());
            fib.ports.insert(uplink.port, net);
        }
        if matches!(between, Between::Vxlan { .. }) {
            fib.vxlan_door = Some(DOOR);
            let neighbours = paths.iter().filter_map(|path| Some((path.endpoint()?.ip(), path.clone())));
            fib.vxlan_sources.extend(neighbours);
        }
        fib.ports.insert(PORT, net);
        fib.networks.insert(net, entry);
        fib.neighbours = Arc::new(known(net).collect());
        fib.floods = Box::new(Chain { me: fib.me, paths });
        let plane = Plane::new(Limits::default());
        plane.publish(fib);
        plane
    })
}
