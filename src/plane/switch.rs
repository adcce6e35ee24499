//! Where a frame goes: (frame, Fib, MacTable) -> Verdict.
//!
//! Decides and does nothing else: verdicts are Copy values that `Plane` carries out, so every rule can be tested
//! without a byte of payload. Learning and guarding come before, in `Plane`.
//!
//! ```text
//! from a port       group or unknown MAC -> flood, and to the other ports here    known at the same port -> nothing to do
//!                   known at another port here -> deliver    known behind a peer -> forward
//!                   known: by its last frame, else by whom it was given to, if data reaches that peer
//! from the net      for us -> deliver    for another peer -> forward, unseen    flood -> deliver here if the network is
//!                   open, and hand on along the origin's tree
//! ```
//!
//! The ports of a network on this host are its bridge, its uplinks and its VTEPs. What comes from a VTEP goes to the others and
//! into the mesh, never to another VTEP (split horizon): VTEPs of one network reach each other by themselves, and a second way
//! would be a loop, for which VXLAN has neither a hop limit nor a tree. An uplink that is cut off is no port.
//!
//! Three rules keep a mesh whole while its peers disagree about the topology. A flood is taken only from the
//! neighbour that is above us in the origin's tree, or was a moment ago; and only once (`once`), so a frame is never multiplied by
//! two trees that differ. And a frame is handed on at most [`HOPS_MAX`](crate::wire::datagram::HOPS_MAX) times, so what
//! goes in circles ends.

use super::counters::Drop;
use super::fib::{Fib, NetworkEntry, PathId, PortId};
use super::macs::{MacTable, Place};
use super::path::Path;
use super::tunnel::Tunnel;
use super::uplink::Uplink;
use crate::types::{Instant, Mac, NetId, ShortId};
use crate::wire::datagram::Inner;
use std::sync::Arc;

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict<'f> {
    /// Nothing.
    Drop(Drop),
    /// To ports of this host.
    Deliver(Ports<'f>),
    /// To one peer, over this path.
    Forward {
        /// The peer that it is for.
        to: ShortId,
        /// The next hop.
        path: &'f Path,
    },
    /// Along the tree of its origin.
    Flood,
    /// Both: to these ports, and along the tree of its origin.
    DeliverAndFlood(Ports<'f>),
}

/// Ports of a network on this host.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Ports<'f> {
    /// The one to its bridge.
    pub bridge: Option<PortId>,
    /// Captured interfaces, those included that carry nothing just now: see [`Ports::uplinks`].
    pub uplinks: &'f [Arc<Uplink>],
    /// None of which is this one.
    pub except: Option<PortId>,
    /// Those to VTEPs.
    pub tunnels: &'f [Arc<Tunnel>],
}

impl<'f> Ports<'f> {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bridge.is_none() && self.tunnels.is_empty() && self.uplinks().next().is_none()
    }

    /// The uplinks that carry frames.
    pub fn uplinks(&self) -> impl Iterator<Item = &'f Uplink> {
        let except = self.except;
        self.uplinks.iter().map(|uplink| &**uplink).filter(move |up| Some(up.port) != except && up.carries())
    }

    /// The one port that takes runs of frames, if there is no other: the bridge, or an uplink.
    #[inline]
    pub fn single(&self) -> Option<(PortId, Option<&'f Uplink>)> {
        if !self.tunnels.is_empty() {
            return None;
        }
        let mut uplinks = self.uplinks();
        match (self.bridge, uplinks.next(), uplinks.next()) {
            (Some(bridge), None, _) => Some((bridge, None)),
            (None, Some(uplink), None) => Some((uplink.port, Some(uplink))),
            _ => None,
        }
    }

    fn bridge(port: PortId) -> Ports<'f> {
        Ports { bridge: Some(port), ..Ports::default() }
    }

    fn tunnel(tunnel: &'f Arc<Tunnel>) -> Ports<'f> {
        Ports { tunnels: std::slice::from_ref(tunnel), ..Ports::default() }
    }

    fn uplink(uplink: &'f Arc<Uplink>) -> Ports<'f> {
        Ports { uplinks: std::slice::from_ref(uplink), ..Ports::default() }
    }
}

/// Where a frame was captured.
#[derive(Debug, Clone, Copy)]
pub struct Came<'f> {
    /// On this network.
    pub network: NetId,
    /// The same, as this host sees it.
    pub entry: &'f NetworkEntry,
    /// On this port of it.
    pub port: PortId,
}

impl<'f> Came<'f> {
    /// The ports that its flood goes to.
    fn others(self) -> Ports<'f> {
        let entry = self.entry;
        let bridge = entry.port.filter(|bridge| *bridge != self.port);
        let is_tunnel = entry.tunnels.iter().any(|tunnel| tunnel.ends.port == self.port);
        let tunnels = if is_tunnel { &[][..] } else { &entry.tunnels };
        Ports { bridge, uplinks: &entry.uplinks, except: Some(self.port), tunnels }
    }
}

/// What becomes of a frame for `dst` that was captured on a port.
pub fn from_port<'f>(fib: &'f Fib, macs: &MacTable, came: Came<'f>, dst: Mac, now: Instant) -> Verdict<'f> {
    if dst.is_link_local() {
        return Verdict::Drop(Drop::LinkLocal);
    }
    let flood = || match came.others() {
        none if none.is_empty() => Verdict::Flood,
        others => Verdict::DeliverAndFlood(others),
    };
    if dst.is_group() {
        return flood();
    }
    let learned = macs.lookup(came.network, dst, now);
    match learned.or_else(|| fib.neighbours.place(came.network, dst)) {
        None => flood(),
        Some(Place::Port(port)) if port == came.port => Verdict::Drop(Drop::Local),
        Some(Place::Port(port)) => match fib.tunnels.get(port) {
            Some(_) if came.others().tunnels.is_empty() => Verdict::Drop(Drop::SplitHorizon),
            Some(tunnel) => Verdict::Deliver(Ports::tunnel(tunnel)),
            None if came.entry.port == Some(port) => Verdict::Deliver(Ports::bridge(port)),
            // A port that was closed or cut off a moment ago.
            None => match came.entry.uplink(port).filter(|uplink| uplink.carries()) {
                Some(uplink) => Verdict::Deliver(Ports::uplink(uplink)),
                None => flood(),
            },
        },
        Some(Place::Peer(to)) => match fib.next_hops.get(&to) {
            Some(path) => Verdict::Forward { to, path },
            None if learned.is_none() => flood(),
            None => Verdict::Drop(Drop::Unreachable),
        },
    }
}

/// What becomes of an opened datagram with the header `inner` that came in on the path `came`. It needs no look at the frame: where
/// that is to be delivered, [`among`] says which of the ports it is for.
pub fn from_net<'f>(fib: &'f Fib, came: PathId, inner: &Inner) -> Verdict<'f> {
    if inner.origin == fib.me || inner.origin == ShortId::FLOOD {
        return Verdict::Drop(Drop::Own);
    }
    let ports = fib.networks.get(&inner.network).map(NetworkEntry::all).filter(|ports| !ports.is_empty());
    if inner.destination == fib.me {
        return ports.map_or(Verdict::Drop(Drop::NotOpen), Verdict::Deliver);
    }
    if inner.destination == ShortId::FLOOD {
        if !fib.floods.takes(inner.origin, came) {
            return Verdict::Drop(Drop::WrongTree);
        }
        return match (ports, inner.hops) {
            (Some(ports), 0) => Verdict::Deliver(ports),
            (None, 0) => Verdict::Drop(Drop::HopLimit),
            (Some(ports), _) => Verdict::DeliverAndFlood(ports),
            (None, _) => Verdict::Flood,
        };
    }
    match fib.next_hops.get(&inner.destination) {
        None => Verdict::Drop(Drop::Unreachable),
        Some(path) if path.id() == came => Verdict::Drop(Drop::WayBack),
        Some(_) if inner.hops == 0 => Verdict::Drop(Drop::HopLimit),
        Some(path) => Verdict::Forward { to: inner.destination, path },
    }
}

/// Which of these ports a frame from a peer for `dst` on `network` goes to: the one where that is known to be, else all. What is
/// known to be behind a peer is none of the VTEPs' business.
pub fn among<'f>(
    fib: &'f Fib,
    macs: &MacTable,
    ports: Ports<'f>,
    (network, dst): (NetId, Mac),
    now: Instant,
) -> Ports<'f> {
    if (ports.tunnels.is_empty() && ports.uplinks.is_empty()) || dst.is_group() {
        return ports;
    }
    let bridge = ports.bridge.map_or(Ports::default(), Ports::bridge);
    match macs.lookup(network, dst, now).or_else(|| fib.neighbours.place(network, dst)) {
        None => ports,
        Some(Place::Port(port)) => match fib.tunnels.get(port) {
            Some(tunnel) => Ports::tunnel(tunnel),
            None => match ports.uplinks.iter().find(|uplink| uplink.port == port) {
                Some(uplink) if uplink.carries() => Ports::uplink(uplink),
                Some(_) => ports,
                None => bridge,
            },
        },
        Some(Place::Peer(_)) => bridge,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::fib::Floods;
    use crate::plane::testing::{PORT, mac, net, tunnel};
    use std::time::Duration;

    const ME: ShortId = ShortId(1);
    const FAR: ShortId = ShortId(2);
    const NOWHERE: ShortId = ShortId(3);
    const ABOVE: PathId = PathId(10);
    const ASIDE: PathId = PathId(11);

    /// Floods of `FAR` come in on `ABOVE`.
    struct Tree;

    impl Floods for Tree {
        fn each_next_hop(&self, _: ShortId, _: NetId, _: &mut dyn FnMut(&Path)) {}

        fn takes(&self, origin: ShortId, came: PathId) -> bool {
            origin != FAR || came == ABOVE
        }
    }

    /// `FAR` is behind `ABOVE`; network 1 has a port, network 2 has none.
    fn fib() -> Fib {
        let mut fib = Fib { me: ME, floods: Box::new(Tree), ..Fib::empty() };
        fib.next_hops.insert(FAR, Arc::new(Path::new(ABOVE, FAR)));
        fib.networks.insert(net(1), NetworkEntry { port: Some(PORT), ..NetworkEntry::default() });
        fib.networks.insert(net(2), NetworkEntry::default());
        fib
    }

    #[test]
    fn what_becomes_of_a_captured_frame() {
        let (fib, now) = (fib(), Instant::ZERO);
        let macs = MacTable::new(10, Duration::from_secs(600));
        macs.learn(net(1), mac(1), Place::Port(PORT), now);
        macs.learn(net(1), mac(2), Place::Peer(FAR), now);
        macs.learn(net(1), mac(3), Place::Peer(NOWHERE), now);
        let path = &*fib.next_hops[&FAR];
        let later = now + Duration::from_secs(600);
        let facts = [
            ("to everybody", 1, Mac::BROADCAST, now, Verdict::Flood),
            ("to a group", 1, Mac([0x33, 0x33, 0, 0, 0, 1]), now, Verdict::Flood),
            ("to a neighbouring bridge", 1, Mac([1, 0x80, 0xc2, 0, 0, 0x0e]), now, Verdict::Drop(Drop::LinkLocal)),
            ("to nobody known", 1, mac(9), now, Verdict::Flood),
            ("to the same bridge", 1, mac(1), now, Verdict::Drop(Drop::Local)),
            ("to a peer", 1, mac(2), now, Verdict::Forward { to: FAR, path }),
            ("to a peer that is gone", 1, mac(3), now, Verdict::Drop(Drop::Unreachable)),
            ("to a peer, on another network", 2, mac(2), now, Verdict::Flood),
            ("to a peer, after long silence", 1, mac(2), later, Verdict::Flood),
        ];
        for (fact, network, dst, now, verdict) in facts {
            let (network, entry) = (net(network), &fib.networks[&net(network)]);
            assert_eq!(from_port(&fib, &macs, Came { network, entry, port: PORT }, dst, now), verdict, "{fact}");
        }
    }

    #[test]
    fn what_becomes_of_a_datagram() {
        let fib = fib();
        let path = &*fib.next_hops[&FAR];
        let all = ShortId::FLOOD;
        let bridge = Ports::bridge(PORT);
        let facts = [
            ("for us", FAR, ME, 1, ABOVE, 5, Verdict::Deliver(bridge)),
            ("for us, by a way that we would not take", FAR, ME, 1, ASIDE, 5, Verdict::Deliver(bridge)),
            ("for us, at its last hop", FAR, ME, 1, ABOVE, 0, Verdict::Deliver(bridge)),
            ("for us, network without a port", FAR, ME, 2, ABOVE, 5, Verdict::Drop(Drop::NotOpen)),
            ("for us, unknown network", FAR, ME, 9, ABOVE, 5, Verdict::Drop(Drop::NotOpen)),
            ("our own for us", ME, ME, 1, ABOVE, 5, Verdict::Drop(Drop::Own)),
            ("our own flood", ME, all, 1, ABOVE, 5, Verdict::Drop(Drop::Own)),
            ("our own for another", ME, FAR, 1, ASIDE, 5, Verdict::Drop(Drop::Own)),
            ("of nobody", all, ME, 1, ABOVE, 5, Verdict::Drop(Drop::Own)),
            ("for another", NOWHERE, FAR, 1, ASIDE, 5, Verdict::Forward { to: FAR, path }),
            (
                "for another, on a network that we are not on",
                NOWHERE,
                FAR,
                9,
                ASIDE,
                5,
                Verdict::Forward { to: FAR, path },
            ),
            ("for another, back where it came from", NOWHERE, FAR, 1, ABOVE, 5, Verdict::Drop(Drop::WayBack)),
            ("for another, too often handed on", NOWHERE, FAR, 1, ASIDE, 0, Verdict::Drop(Drop::HopLimit)),
            ("for another, unreachable", FAR, NOWHERE, 1, ABOVE, 5, Verdict::Drop(Drop::Unreachable)),
            ("a flood", FAR, all, 1, ABOVE, 5, Verdict::DeliverAndFlood(bridge)),
            ("a flood of a network without a port", FAR, all, 2, ABOVE, 5, Verdict::Flood),
            ("a flood of an unknown network", FAR, all, 9, ABOVE, 5, Verdict::Flood),
            ("a flood from the wrong side", FAR, all, 1, ASIDE, 5, Verdict::Drop(Drop::WrongTree)),
            ("a flood of a stranger", NOWHERE, all, 1, ASIDE, 5, Verdict::DeliverAndFlood(bridge)),
            ("a flood at its last hop", FAR, all, 1, ABOVE, 0, Verdict::Deliver(bridge)),
            ("a flood at its last hop, not for us", FAR, all, 9, ABOVE, 0, Verdict::Drop(Drop::HopLimit)),
        ];
        for (fact, origin, destination, network, came, hops, verdict) in facts {
            let (number, network) = (0, net(network));
            let inner = Inner { origin, destination, number, network, hops, partial: false, fragment: None };
            assert_eq!(from_net(&fib, came, &inner), verdict, "{fact}");
        }
    }

    /// `fib`, and two VTEPs on network 1.
    fn with_tunnels() -> (Fib, Arc<Tunnel>, Arc<Tunnel>) {
        let (mut fib, one, two) = (fib(), Arc::new(tunnel(5, 1)), Arc::new(tunnel(6, 1)));
        for tunnel in [&one, &two] {
            fib.tunnels.insert(tunnel.clone());
            fib.networks.get_mut(&net(1)).unwrap().tunnels.push(tunnel.clone());
        }
        (fib, one, two)
    }

    #[test]
    fn what_becomes_of_a_frame_among_several_ports() {
        let ((fib, one, two), now) = (with_tunnels(), Instant::ZERO);
        let macs = MacTable::new(10, Duration::from_secs(600));
        for (n, place) in
            [PORT, one.ends.port, two.ends.port].map(Place::Port).into_iter().zip(1..).map(|(p, n)| (n, p))
        {
            macs.learn(net(1), mac(n), place, now);
        }
        macs.learn(net(1), mac(4), Place::Peer(FAR), now);
        macs.learn(net(1), mac(5), Place::Port(PortId(77)), now);
        let path = &*fib.next_hops[&FAR];
        let both = [one.clone(), two.clone()];
        let except = |port, ports| Ports { except: Some(port), ..ports };
        let (bridge, first) = (Ports::bridge(PORT), Ports::tunnel(&both[0]));
        let flooded = except(one.ends.port, bridge);
        let vteps = except(PORT, Ports { tunnels: &both, ..Ports::default() });
        let (here, there) = (PORT, one.ends.port);
        let facts = [
            ("a group, from the bridge", here, Mac::BROADCAST, Verdict::DeliverAndFlood(vteps)),
            ("a group, from a VTEP", there, Mac::BROADCAST, Verdict::DeliverAndFlood(flooded)),
            ("unknown, from the bridge", here, mac(9), Verdict::DeliverAndFlood(vteps)),
            ("unknown, from a VTEP", there, mac(9), Verdict::DeliverAndFlood(flooded)),
            ("behind a VTEP, from the bridge", here, mac(2), Verdict::Deliver(first)),
            ("on the bridge, from a VTEP", there, mac(1), Verdict::Deliver(bridge)),
            ("on the bridge, from the bridge", here, mac(1), Verdict::Drop(Drop::Local)),
            ("behind a VTEP, from there", there, mac(2), Verdict::Drop(Drop::Local)),
            ("behind a VTEP, from another", there, mac(3), Verdict::Drop(Drop::SplitHorizon)),
            ("behind a peer, from a VTEP", there, mac(4), Verdict::Forward { to: FAR, path }),
            ("at a port that is gone", there, mac(5), Verdict::DeliverAndFlood(flooded)),
            ("to a neighbouring bridge", there, Mac([1, 0x80, 0xc2, 0, 0, 0]), Verdict::Drop(Drop::LinkLocal)),
        ];
        for (fact, port, dst, verdict) in facts {
            let came = Came { network: net(1), entry: &fib.networks[&net(1)], port };
            assert_eq!(from_port(&fib, &macs, came, dst, now), verdict, "{fact}");
        }
        let all = fib.networks[&net(1)].all();
        let facts = [
            ("a group", Mac::BROADCAST, all),
            ("unknown", mac(9), all),
            ("on the bridge", mac(1), bridge),
            ("behind a VTEP", mac(2), first),
            ("behind a peer", mac(4), bridge),
        ];
        for (fact, dst, ports) in facts {
            assert_eq!(among(&fib, &macs, all, (net(1), dst), now), ports, "{fact}");
        }
    }
}
