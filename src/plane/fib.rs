//! The forwarding information that control publishes and every data path thread reads.
//!
//! A `Fib` is immutable: control builds a new one for each change and swaps it in; a thread loads it
//! once a batch. It owns no timers and decides nothing; `switch` decides with it. The flood trees of
//! origins are computed on first use behind `Floods`, so that a mesh of thousands of peers costs
//! only what it uses.

use super::neighbours::Neighbours;
use super::path::Path;
use super::switch::Ports;
use super::tunnel::{Tunnel, Tunnels};
use super::uplink::Uplink;
use crate::types::{Mac, NetId, Network, ShortId};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A port of a network on this host: the capture port (one TAP or veth per network), an uplink, or a VTEP. Chosen by control, never reused
/// within a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u32);

/// A path to a neighbour. Chosen by control, never reused within a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u32);

/// Where floods of an origin go next from here.
pub trait Floods: Send + Sync {
    /// Visits the neighbours that a flood by `origin` on `net` is handed to by this peer: its children in the
    /// origin's shortest-path tree below which somebody has a port on `net`. None for an unknown origin.
    fn each_next_hop(&self, origin: ShortId, net: NetId, visit: &mut dyn FnMut(&Path));

    /// Whether floods by `origin` may come in on this path: by the neighbour that is above this peer in the origin's tree, or was
    /// a moment ago. Others are not heard, so that nobody speaks for whom it is not on the way from. True for an origin
    /// that is unknown: its floods are taken from anybody.
    fn takes(&self, origin: ShortId, came: PathId) -> bool {
        let _ = (origin, came);
        true
    }
}

/// A `Floods` that knows nobody: a router without neighbours.
#[derive(Debug, Default)]
pub struct NoFloods;

impl Floods for NoFloods {
    fn each_next_hop(&self, _: ShortId, _: NetId, _: &mut dyn FnMut(&Path)) {}
}

/// What an attachment may send: its MAC and the addresses that were given to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permit {
    /// The addresses that frames from this MAC may claim as their source (IP, ARP and ND alike).
    pub addresses: SmallVec<[IpAddr; 2]>,
    /// The port guard is off for this attachment: any source is let through (`--no-guard`).
    pub unguarded: bool,
    /// This is the host itself, which routes for others: it may also send IP packets from outside of this network.
    pub routes_for: Option<Network>,
}

/// One network as this host sees it.
#[derive(Debug, Clone, Default)]
pub struct NetworkEntry {
    /// The capture port, if the network is open here.
    pub port: Option<PortId>,
    /// The captured interfaces that lead to it here: further ports.
    pub uplinks: Vec<Arc<Uplink>>,
    /// The VTEPs that are joined to it here: further ports.
    pub tunnels: Vec<Arc<Tunnel>>,
    /// The largest packet that attachments take, bytes; none: not known.
    pub mtu: Option<u16>,
    /// The attachments' permits by MAC. Consulted by `guard` for frames from the bridge.
    pub permits: HashMap<Mac, Permit, foldhash::fast::RandomState>,
    /// Any MAC may send: an attachment without guard bridges or routes for others.
    pub unguarded: bool,
}

impl NetworkEntry {
    /// The uplink that this port is.
    #[inline]
    pub fn uplink(&self, port: PortId) -> Option<&Arc<Uplink>> {
        self.uplinks.iter().find(|uplink| uplink.port == port)
    }

    /// All of its ports.
    pub fn all(&self) -> Ports<'_> {
        Ports { bridge: self.port, uplinks: &self.uplinks, except: None, tunnels: &self.tunnels }
    }
}

/// The snapshot. See the head of this file.
pub struct Fib {
    /// Counts publications; a cached decision is valid for one epoch.
    pub epoch: u64,
    /// This peer's number.
    pub me: ShortId,
    /// Next hop by destination number; absent means unreachable.
    pub next_hops: HashMap<ShortId, Arc<Path>, foldhash::fast::RandomState>,
    /// The path that a datagram belongs to, by the receiver index in its header.
    pub by_index: HashMap<u32, Arc<Path>, foldhash::fast::RandomState>,
    /// Paths by id, for events and tests.
    pub paths: HashMap<PathId, Arc<Path>, foldhash::fast::RandomState>,
    /// Networks that have a port here.
    pub networks: HashMap<NetId, NetworkEntry, foldhash::fast::RandomState>,
    /// The network that a capture port or an uplink captures for.
    pub ports: HashMap<PortId, NetId, foldhash::fast::RandomState>,
    /// The ports that are VTEPs.
    pub tunnels: Tunnels,
    /// The UDP port of this host by which peers speak VXLAN, while rnet itself does that.
    pub vxlan_door: Option<u16>,
    /// The neighbours whose VXLAN is taken, by the address that it comes from, in canonical form.
    pub vxlan_sources: HashMap<IpAddr, Arc<Path>, foldhash::fast::RandomState>,
    /// Flood sets, computed lazily.
    pub floods: Box<dyn Floods>,
    /// Addresses that rnet gave out.
    pub neighbours: Arc<Neighbours>,
}

impl Fib {
    /// The snapshot of a router that knows nobody and has no networks.
    pub fn empty() -> Fib {
        Fib {
            epoch: 0,
            me: ShortId(0),
            next_hops: HashMap::default(),
            by_index: HashMap::default(),
            paths: HashMap::default(),
            networks: HashMap::default(),
            ports: HashMap::default(),
            tunnels: Tunnels::default(),
            vxlan_door: None,
            vxlan_sources: HashMap::default(),
            floods: Box::new(NoFloods),
            neighbours: Arc::default(),
        }
    }
}
