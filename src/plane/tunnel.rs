//! A VTEP (a VXLAN tunnel end that is not rnet, RFC 7348) as one more port of a network on this host.
//!
//! Owns where such a port leads, how much it takes, what it counted, and by what a datagram is known to be of it. Created
//! and steered by control, shared by the data path threads. What comes from it and goes to it is `encap`'s, which port a frame
//! goes to is `switch`'s, and the UDP sockets (doors) are the caller's.
//!
//! ```text
//! (door, source address, VNI) -> tunnel      a datagram that came in; its source port only spreads load (RFC 7348, section 5)
//! port                        -> tunnel      a MAC that was learned there
//! ```
//!
//! Frames travel whole: what the route to the VTEP has no room for is never cut (RFC 7348, section 4.3).

use super::bucket::Bucket;
use super::counters::Count;
use super::fib::PortId;
use crate::types::{Instant, NetId};
use crate::wire::frame::HEADER_LEN;
use crate::wire::vxlan::VXLAN_LEN;
use foldhash::fast::RandomState;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The MTU of the route to a VTEP until another is known: Ethernet's.
pub const MTU_ASSUMED: u16 = 1500;

/// Headers of IP and UDP before those of VXLAN, bytes.
const UNDERLAY4: usize = 20 + 8;
const UNDERLAY6: usize = 40 + 8;

/// What a tunnel is between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The port that it is here.
    pub port: PortId,
    /// The network of that port.
    pub network: NetId,
    /// What the VTEP calls that network.
    pub vni: NetId,
    /// Where datagrams go.
    pub to: SocketAddr,
    /// The UDP port of this host by which they leave, and come.
    pub door: u16,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Tunnel {
    /// For its whole life.
    pub ends: Ends,
    carries: AtomicBool,
    pub(super) beacons: Bucket,
    mtu: AtomicU16,
    from: (AtomicU64, AtomicU64),
    to: (AtomicU64, AtomicU64),
    /// Second of the last frame, plus one; 0: there was none.
    heard: AtomicU32,
}

impl Tunnel {
    /// One that nothing has passed yet, over a route of the assumed MTU; it carries frames.
    pub fn new(ends: Ends) -> Tunnel {
        let (mtu, heard, carries) = (AtomicU16::new(MTU_ASSUMED), AtomicU32::new(0), AtomicBool::new(true));
        let beacons = Bucket::default();
        Tunnel { ends, carries, beacons, mtu, from: Default::default(), to: Default::default(), heard }
    }

    /// Whether frames pass; not while another host of the mesh carries those of the same VTEP.
    pub fn carries(&self) -> bool {
        self.carries.load(Ordering::Relaxed)
    }

    /// Lets frames pass, or not.
    pub fn set_carries(&self, carries: bool) {
        self.carries.store(carries, Ordering::Relaxed);
    }

    /// The MTU of the route to the VTEP, bytes of IP packet; 0: unknown, [`MTU_ASSUMED`] is taken.
    pub fn set_mtu(&self, mtu: u16) {
        self.mtu.store(if mtu == 0 { MTU_ASSUMED } else { mtu }, Ordering::Relaxed);
    }

    /// The most bytes of a frame, Ethernet header included, that a datagram takes.
    pub fn room(&self) -> usize {
        let underlay = if self.ends.to.is_ipv4() { UNDERLAY4 } else { UNDERLAY6 };
        usize::from(self.mtu.load(Ordering::Relaxed)).saturating_sub(underlay + VXLAN_LEN)
    }

    /// The largest packet that the VTEP's side of the network can be sent, bytes: 50 less than the route takes over IPv4, 70 over IPv6.
    pub fn mtu(&self) -> usize {
        self.room().saturating_sub(HEADER_LEN)
    }

    /// Counts what came from the VTEP.
    pub(super) fn received(&self, count: Count, now: Instant) {
        let heard = now.seconds().saturating_add(1);
        // A store only when it changes something: the line stays shared between the cores.
        if self.heard.load(Ordering::Relaxed) != heard {
            self.heard.store(heard, Ordering::Relaxed);
        }
        add(&self.from, count);
    }

    /// Counts what was sent to it.
    pub(super) fn sent(&self, count: Count) {
        add(&self.to, count);
    }

    /// What came from the VTEP so far.
    pub fn from_vtep(&self) -> Count {
        read(&self.from)
    }

    /// What was sent to it so far.
    pub fn to_vtep(&self) -> Count {
        read(&self.to)
    }

    /// Time since its last frame, whole seconds; nothing if there was none.
    pub fn silent_for(&self, now: Instant) -> Option<Duration> {
        let second = self.heard.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_secs(now.seconds().saturating_sub(second).into()))
    }
}

impl PartialEq for Tunnel {
    fn eq(&self, other: &Tunnel) -> bool {
        self.ends == other.ends
    }
}

fn add(pair: &(AtomicU64, AtomicU64), count: Count) {
    pair.0.fetch_add(count.frames, Ordering::Relaxed);
    pair.1.fetch_add(count.bytes, Ordering::Relaxed);
}

fn read(pair: &(AtomicU64, AtomicU64)) -> Count {
    Count { frames: pair.0.load(Ordering::Relaxed), bytes: pair.1.load(Ordering::Relaxed) }
}

/// The tunnels of this host. Part of the snapshot.
#[derive(Debug, Default)]
pub struct Tunnels {
    by_port: HashMap<PortId, Arc<Tunnel>, RandomState>,
    by_source: HashMap<(u16, IpAddr, NetId), Arc<Tunnel>, RandomState>,
    sources: HashSet<(u16, IpAddr), RandomState>,
}

impl Tunnels {
    /// Adds one; of two with the same source the later one is found by it.
    pub fn insert(&mut self, tunnel: Arc<Tunnel>) {
        let Ends { port, vni, to, door, .. } = tunnel.ends;
        self.sources.insert((door, to.ip()));
        self.by_source.insert((door, to.ip(), vni), tunnel.clone());
        self.by_port.insert(port, tunnel);
    }

    /// The one that this port is.
    pub fn get(&self, port: PortId) -> Option<&Arc<Tunnel>> {
        self.by_port.get(&port)
    }

    /// The one that a datagram belongs to.
    pub fn find(&self, door: u16, from: IpAddr, vni: NetId) -> Option<&Arc<Tunnel>> {
        self.by_source.get(&(door, from, vni))
    }

    /// Whether there is a VTEP at this address that sends to this door, whatever the VNI.
    pub fn knows(&self, door: u16, from: IpAddr) -> bool {
        self.sources.contains(&(door, from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::testing::net;

    fn tunnel(to: &str, port: u32, vni: u32) -> Tunnel {
        let (port, network, vni) = (PortId(port), net(7), net(vni));
        Tunnel::new(Ends { port, network, vni, to: to.parse().unwrap(), door: 4789 })
    }

    #[test]
    fn what_fits_is_50_or_70_bytes_less_than_the_route_takes() {
        for (to, route, mtu) in [("10.0.0.5:4789", 1500, 1450), ("[fd00::5]:4789", 1500, 1430), ("10.0.0.5:1", 0, 1450)]
        {
            let tunnel = tunnel(to, 1, 42);
            tunnel.set_mtu(route);
            assert_eq!((tunnel.mtu(), tunnel.room()), (mtu, mtu + 14), "{to}");
        }
        let narrow = tunnel("10.0.0.5:4789", 1, 42);
        narrow.set_mtu(30);
        assert_eq!((narrow.mtu(), narrow.room()), (0, 0));
    }

    #[test]
    fn a_datagram_is_known_by_door_source_and_vni() {
        let mut all = Tunnels::default();
        let ends = [("10.0.0.5:4789", 1, 42), ("10.0.0.5:4789", 2, 43), ("10.0.0.6:8472", 3, 42)];
        ends.iter().for_each(|(to, port, vni)| all.insert(Arc::new(tunnel(to, *port, *vni))));
        let found = |door, from: &str, vni| all.find(door, from.parse().unwrap(), net(vni)).map(|t| t.ends.port.0);
        assert_eq!(found(4789, "10.0.0.5", 42), Some(1));
        assert_eq!(found(4789, "10.0.0.5", 43), Some(2));
        assert_eq!(found(4789, "10.0.0.6", 42), Some(3), "the port that it listens on is not the one it sends from");
        assert_eq!(found(4789, "10.0.0.6", 43), None);
        assert_eq!(found(4790, "10.0.0.5", 42), None);
        assert!(all.knows(4789, [10, 0, 0, 6].into()) && !all.knows(4789, [10, 0, 0, 7].into()));
        assert!(!all.knows(4790, [10, 0, 0, 6].into()));
        assert_eq!(all.get(PortId(2)).map(|t| t.ends.vni), Some(net(43)));
    }

    #[test]
    fn tells_when_it_was_last_heard() {
        let (tunnel, at) = (tunnel("10.0.0.5:4789", 1, 42), |s| Instant::ZERO + Duration::from_secs(s));
        assert_eq!(tunnel.silent_for(at(5)), None);
        tunnel.received(Count { frames: 2, bytes: 120 }, at(0));
        assert_eq!(tunnel.silent_for(at(5)), Some(Duration::from_secs(5)));
        tunnel.received(Count { frames: 1, bytes: 60 }, at(4));
        tunnel.sent(Count { frames: 1, bytes: 60 });
        assert_eq!(tunnel.silent_for(at(5)), Some(Duration::from_secs(1)));
        assert_eq!((tunnel.from_vtep().frames, tunnel.from_vtep().bytes, tunnel.to_vtep().frames), (3, 180, 1));
    }
}
