//! Next hops and flood trees, from the topology.
//!
//! Only links that both ends report as established carry data. Unicast: the cheapest way; among equals the one of fewest
//! hops, then the one that the lowest names lead to. Flood: the tree of the origin's cheapest ways, ties settled likewise.
//! Both are functions of the topology alone, so peers that agree on it agree on the way: unicast does not loop (each hop is
//! nearer by what it costs), and a flood reaches each peer exactly once.
//!
//! A link costs [`A_HOP`] and the worse of what both ends measured, which they told the mesh (`cost`).
//!
//! A flood of a network goes down a branch only if somebody on that branch has a port on it.
//!
//! ```text
//! names      ascending; a peer's index in it stands for the peer below
//! adjacent   per index, its neighbours, ascending by index, and what the links cost
//! trees      per origin, made when first asked for: our parent and our children by network
//! ```
//!
//! 1,000 peers of degree 10: about 1 ms per change, and 0.3 ms for an origin's first flood (`benches/routes.rs`).

use super::peers::Peers;
use super::short;
use crate::types::{NetId, PeerName, ShortId};
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::OnceLock;

/// A position in [`Routes::neighbours`].
pub type Hop = u16;
/// A position in `names`; there are at most `MAX_PEERS` + 1.
type Index = u16;
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
type Branches = SmallVec<[Hop; 8]>;

/// What handing on costs, in microseconds: a third host's processor and line. So a way by another one is taken only if it is
/// nearer by more than this, or the direct one loses frames.
pub const A_HOP: u32 = 10_000;

/// A link as the way-finder sees it: whom it leads to, and what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edge {
    to: Index,
    cost: u32,
}

/// Where one destination lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The destination.
    pub peer: PeerName,
    /// Its number; nothing if a lower name has the same one.
    pub short: Option<ShortId>,
    /// The neighbour that it is reached by, a position in [`Routes::neighbours`].
    pub hop: Hop,
    /// Links on the way: 1 for a neighbour.
    pub distance: u16,
    /// What they cost together.
    pub cost: u32,
}

/// See the head of this file. Immutable, shared with the data path.
#[derive(Debug, Default)]
pub struct Routes {
    names: Vec<PeerName>,
    me: Index,
    adjacent: Vec<Vec<Edge>>,
    networks: Vec<Vec<NetId>>,
    neighbours: Vec<PeerName>,
    routes: Vec<Route>,
    origins: Map<ShortId, Index>,
    trees: Vec<OnceLock<Tree>>,
}

/// Where we are in the flood tree of one origin.
#[derive(Debug, Default)]
struct Tree {
    /// Our parent; nothing if we are the origin or out of its reach.
    upstream: Option<Hop>,
    /// Our children by network.
    branches: Map<NetId, Branches>,
}

impl Routes {
    /// Computes all next hops; flood trees wait until they are used.
    pub fn compute(peers: &Peers) -> Routes {
        let mut records: Vec<_> = peers.iter().collect();
        records.sort_unstable_by_key(|(name, _)| *name);
        let names: Vec<PeerName> = records.iter().map(|(name, _)| *name).collect();
        let index = |name: PeerName| names.binary_search(&name).ok().and_then(|at| Index::try_from(at).ok());
        let named: Vec<Vec<Edge>> = records
            .iter()
            .map(|(_, record)| {
                let established = record.links.iter().filter(|link| link.established);
                established.filter_map(|link| Some(Edge { to: index(link.peer)?, cost: link.cost })).collect()
            })
            .collect();
        let adjacent = both_ways(&named);
        let networks = records.iter().map(|(_, record)| record.networks.iter().map(|(id, _)| *id).collect()).collect();
        let me = index(peers.name()).unwrap_or_default();
        let owners = short::owners(peers);
        let origins = owners.into_iter().filter_map(|(id, name)| Some((id, index(name)?))).collect();
        let neighbours = adjacent
            .get(usize::from(me))
            .into_iter()
            .flatten()
            .filter_map(|edge| names.get(usize::from(edge.to)).copied())
            .collect();
        let trees = names.iter().map(|_| OnceLock::new()).collect();
        let mut routes = Routes { names, me, adjacent, networks, neighbours, routes: Vec::new(), origins, trees };
        routes.routes = routes.unicast();
        routes
    }

    /// Our neighbours by proven links, ascending.
    pub fn neighbours(&self) -> &[PeerName] {
        &self.neighbours
    }

    /// All peers that data can reach, without ourselves, ascending by name.
    pub fn reachable(&self) -> &[Route] {
        &self.routes
    }

    /// The way to `peer`; nothing for ourselves and for whom data cannot reach.
    pub fn route(&self, peer: PeerName) -> Option<Route> {
        let at = self.routes.binary_search_by(|route| route.peer.cmp(&peer)).ok()?;
        self.routes.get(at).copied()
    }

    /// The neighbour that `peer` is reached by.
    pub fn next_hop(&self, peer: PeerName) -> Option<PeerName> {
        self.neighbours.get(usize::from(self.route(peer)?.hop)).copied()
    }

    /// Who has the number `short` (ourselves included).
    pub fn owner(&self, short: ShortId) -> Option<PeerName> {
        self.names.get(usize::from(*self.origins.get(&short)?)).copied()
    }

    /// The neighbours (positions in [`Routes::neighbours`]) that a flood by `origin` on `network` is handed to from here.
    /// Empty for an unknown origin. The first call for an origin computes its tree; later ones are two look-ups.
    pub fn flood(&self, origin: ShortId, network: NetId) -> &[Hop] {
        let branches = self.tree(origin).and_then(|tree| tree.branches.get(&network));
        branches.map_or(&[], |hops| hops.as_slice())
    }

    /// The neighbour (a position in [`Routes::neighbours`]) that floods by `origin` come from; nothing for ourselves and for
    /// whom data cannot reach.
    pub fn upstream(&self, origin: ShortId) -> Option<Hop> {
        self.tree(origin)?.upstream
    }

    fn tree(&self, origin: ShortId) -> Option<&Tree> {
        let origin = *self.origins.get(&origin)?;
        let tree = self.trees.get(usize::from(origin))?;
        Some(tree.get_or_init(|| self.plant(origin)))
    }

    fn unicast(&self) -> Vec<Route> {
        let walk = Walk::from(self.me, &self.adjacent);
        // In the order of distance, so that a peer's parent has its hop before the peer asks for it.
        let mut hops: Vec<Option<Hop>> = vec![None; self.names.len()];
        let ours = self.adjacent.get(usize::from(self.me)).map_or(&[][..], |ours| ours);
        for (at, parent) in &walk.order {
            let hop = if *parent == self.me {
                position(ours, *at)
            } else {
                hops.get(usize::from(*parent)).copied().flatten()
            };
            put(&mut hops, *at, hop);
        }
        let numbers: Map<Index, ShortId> = self.origins.iter().map(|(short, at)| (*at, *short)).collect();
        let mut routes: Vec<Route> = Vec::with_capacity(walk.order.len());
        for (at, _) in &walk.order {
            let (Some(peer), Some(Some(hop))) = (self.names.get(usize::from(*at)), hops.get(usize::from(*at))) else {
                continue;
            };
            let (cost, distance) = walk.reached.get(usize::from(*at)).map_or((0, 0), |way| (way.cost, way.hops));
            routes.push(Route { peer: *peer, short: numbers.get(at).copied(), hop: *hop, distance, cost });
        }
        routes.sort_unstable_by_key(|route| route.peer);
        routes
    }

    /// The tree of `origin`: our parent, and per network our children below which (themselves included) somebody has a port.
    fn plant(&self, origin: Index) -> Tree {
        let walk = Walk::from(origin, &self.adjacent);
        let ours = self.adjacent.get(usize::from(self.me)).map_or(&[][..], |ours| ours);
        let above = walk.order.iter().find(|(at, _)| *at == self.me);
        let upstream = above.and_then(|(_, parent)| position(ours, *parent));
        let mut under: Vec<Option<Hop>> = vec![None; self.names.len()];
        let mut branches: Map<NetId, Branches> = Map::default();
        for (at, parent) in &walk.order {
            let hop = if *parent == self.me {
                position(ours, *at)
            } else {
                under.get(usize::from(*parent)).copied().flatten()
            };
            let Some(hop) = hop else { continue };
            put(&mut under, *at, Some(hop));
            for network in self.networks.get(usize::from(*at)).into_iter().flatten() {
                let hops = branches.entry(*network).or_default();
                if !hops.contains(&hop) {
                    hops.push(hop);
                }
            }
        }
        Tree { upstream, branches }
    }
}

/// Where a neighbour is in the list of all.
fn position(ours: &[Edge], at: Index) -> Option<Hop> {
    let position = ours.binary_search_by(|edge| edge.to.cmp(&at)).ok()?;
    Hop::try_from(position).ok()
}

/// The cheapest way known to a peer, in the order in which one is better than another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Reached {
    cost: u32,
    hops: u16,
    parent: Index,
}

impl Reached {
    const NEVER: Reached = Reached { cost: u32::MAX, hops: u16::MAX, parent: Index::MAX };
}

/// A walk that reaches the cheapest first (Dijkstra 1959): everybody's parent is the best one by [`Reached`], the same one on
/// every peer that walks from this start.
struct Walk {
    /// Everybody reached but the start, with the parent, cheapest first.
    order: Vec<(Index, Index)>,
    reached: Vec<Reached>,
}

impl Walk {
    fn from(start: Index, adjacent: &[Vec<Edge>]) -> Walk {
        let mut reached = vec![Reached::NEVER; adjacent.len()];
        let mut order: Vec<(Index, Index)> = Vec::with_capacity(adjacent.len());
        let origin = Reached { cost: 0, hops: 0, parent: start };
        put(&mut reached, start, origin);
        let mut queue = BinaryHeap::from([Reverse((origin, start))]);
        while let Some(Reverse((way, at))) = queue.pop() {
            if reached.get(usize::from(at)) != Some(&way) {
                continue; // A better way was found since.
            }
            if at != start {
                order.push((at, way.parent));
            }
            for edge in adjacent.get(usize::from(at)).into_iter().flatten() {
                let cost = way.cost.saturating_add(edge.cost).min(u32::MAX - 1);
                let next = Reached { cost, hops: way.hops.saturating_add(1), parent: at };
                if let Some(known) = reached.get_mut(usize::from(edge.to)).filter(|known| next < **known) {
                    *known = next;
                    queue.push(Reverse((next, edge.to)));
                }
            }
        }
        Walk { order, reached }
    }
}

/// Keeps of `named` (who names whom) the pairs that name each other, at the worse of both costs and the price of a hop.
fn both_ways(named: &[Vec<Edge>]) -> Vec<Vec<Edge>> {
    let back = |from: Index, to: Index| {
        let list = named.get(usize::from(from))?;
        list.get(list.binary_search_by(|edge| edge.to.cmp(&to)).ok()?)
    };
    let mutual = |(from, list): (Index, &Vec<Edge>)| {
        let edge = |edge: &Edge| {
            let cost = edge.cost.max(back(edge.to, from)?.cost).saturating_add(A_HOP);
            Some(Edge { to: edge.to, cost })
        };
        list.iter().filter_map(edge).collect()
    };
    (0..=Index::MAX).zip(named).map(mutual).collect()
}

fn put<T>(list: &mut [T], at: Index, value: T) {
    if let Some(slot) = list.get_mut(usize::from(at)) {
        *slot = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::peers::Record;
    use crate::mesh::peers::tests::{key, record};
    use crate::types::Network;
    use proptest::prelude::*;

    /// What each of `count` peers would compute: `edges` are proven at both ends; peer n is on the networks of `on[n]`.
    fn mesh(count: u16, edges: &[(u16, u16)], on: &[Vec<u32>]) -> Vec<Routes> {
        let records: Vec<Record> = (0..count)
            .map(|n| {
                let ends = edges.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]);
                let links: Vec<(u16, bool)> =
                    ends.filter(|(from, to)| *from == n && *to != n).map(|(_, to)| (to, true)).collect();
                let networks = on.get(usize::from(n)).into_iter().flatten();
                let network: Network = "10.2.1.0/24".parse().unwrap();
                let networks = networks.map(|id| (NetId::new(*id).unwrap(), network)).collect();
                let mut record = Record { networks, ..record(n, &links) };
                crate::mesh::replica::Item::tidy(&mut record);
                record
            })
            .collect();
        let view = |n: &Record| {
            let mut peers = Peers::new(n.clone());
            peers.merge(records.clone());
            Routes::compute(&peers)
        };
        records.iter().map(view).collect()
    }

    fn distances(count: u16, edges: &[(u16, u16)], from: u16) -> Vec<Option<u16>> {
        let mut distance = vec![None; usize::from(count)];
        distance[usize::from(from)] = Some(0);
        for _ in 0..count {
            for (a, b) in edges.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]) {
                if let Some(d) = distance[usize::from(a)] {
                    let known = distance[usize::from(b)];
                    distance[usize::from(b)] = Some(known.map_or(d + 1, |known: u16| known.min(d + 1)));
                }
            }
        }
        distance
    }

    /// How often each peer gets a flood of `origin` when everybody hands it on by its own routes.
    fn flooded(all: &[Routes], origin: u16, network: u32) -> Vec<usize> {
        let mut copies = vec![0; all.len()];
        let mut under_way = vec![origin];
        while let Some(at) = under_way.pop() {
            copies[usize::from(at)] += 1;
            assert!(copies.iter().sum::<usize>() < 1000, "a flood loops");
            let routes = &all[usize::from(at)];
            for hop in routes.flood(ShortId(origin + 1), NetId::new(network).unwrap()) {
                let name = routes.neighbours()[usize::from(*hop)];
                under_way.push((0..).find(|n| key(*n).name() == name).unwrap());
            }
        }
        copies
    }

    fn graph() -> impl Strategy<Value = (u16, Vec<(u16, u16)>)> {
        (2_u16..14).prop_flat_map(|count| (Just(count), proptest::collection::vec((0..count, 0..count), 0..30)))
    }

    /// The same with what each end of each edge measured.
    fn measured(count: u16, edges: &[(u16, u16)], costs: &[(u32, u32)]) -> Vec<Routes> {
        let mut records: Vec<Record> = (0..count).map(|n| record(n, &[])).collect();
        for ((a, b), (there, back)) in edges.iter().zip(costs).filter(|((a, b), _)| a != b) {
            for (from, to, cost) in [(*a, *b, *there), (*b, *a, *back)] {
                let link = crate::mesh::peers::LinkRecord { cost, ..crate::mesh::peers::tests::link(to, true) };
                let links = &mut records[usize::from(from)].links;
                if links.iter().all(|known| known.peer != link.peer) {
                    links.push(link);
                }
            }
        }
        for record in &mut records {
            record.networks = vec![(NetId::new(7).unwrap(), "10.2.1.0/24".parse().unwrap())];
            crate::mesh::replica::Item::tidy(record);
        }
        let view = |n: &Record| {
            let mut peers = Peers::new(n.clone());
            peers.merge(records.clone());
            Routes::compute(&peers)
        };
        records.iter().map(view).collect()
    }

    proptest! {
        #[test]
        fn whatever_links_cost_floods_come_once_and_unicast_gets_nearer_with_each_hop(
            (count, edges) in graph(),
            costs in proptest::collection::vec((0_u32..100_000, 0_u32..100_000), 30),
        ) {
            let all = measured(count, &edges, &costs);
            let number = |name: PeerName| (0..).find(|n| key(*n).name() == name).unwrap();
            for origin in 0..count {
                let reached = distances(count, &edges, origin);
                for (copies, distance) in flooded(&all, origin, 7).into_iter().zip(reached) {
                    prop_assert_eq!(copies, usize::from(distance.is_some()));
                }
                for route in all[usize::from(origin)].reachable() {
                    let (mut at, mut left) = (origin, route.cost);
                    while at != number(route.peer) {
                        let routes = &all[usize::from(at)];
                        at = number(routes.next_hop(route.peer).unwrap());
                        let rest = all[usize::from(at)].route(route.peer).map_or(0, |route| route.cost);
                        prop_assert!(rest + A_HOP <= left, "each hop costs what it costs");
                        left = rest;
                    }
                    let back = all[usize::from(number(route.peer))].route(key(origin).name()).unwrap();
                    prop_assert_eq!(back.cost, route.cost, "both ends find the same price");
                }
            }
        }

        #[test]
        fn flood_reaches_each_peer_exactly_once((count, edges) in graph()) {
            let all = mesh(count, &edges, &vec![vec![7]; usize::from(count)]);
            for origin in 0..count {
                let reached = distances(count, &edges, origin);
                for (copies, distance) in flooded(&all, origin, 7).into_iter().zip(reached) {
                    prop_assert_eq!(copies, usize::from(distance.is_some()));
                }
            }
        }

        #[test]
        fn everybody_expects_a_flood_from_whoever_hands_it_on((count, edges) in graph()) {
            let all = mesh(count, &edges, &vec![vec![7]; usize::from(count)]);
            let name = |n: u16| key(n).name();
            for origin in (0..count).map(|n| ShortId(n + 1)) {
                for from in 0..count {
                    let routes = &all[usize::from(from)];
                    for hop in routes.flood(origin, NetId::new(7).unwrap()) {
                        let to = (0..count).find(|n| name(*n) == routes.neighbours()[usize::from(*hop)]).unwrap();
                        let above = all[usize::from(to)].upstream(origin).unwrap();
                        prop_assert_eq!(all[usize::from(to)].neighbours()[usize::from(above)], name(from));
                    }
                }
            }
        }

        #[test]
        fn pruned_flood_reaches_every_peer_on_the_network_once_and_no_dead_end(
            (count, edges) in graph(),
            on in proptest::collection::vec(proptest::collection::vec(1_u32..4, 0..3), 14),
        ) {
            let all = mesh(count, &edges, &on);
            for origin in 0..count {
                let reached = distances(count, &edges, origin);
                for network in 1..4 {
                    let copies = flooded(&all, origin, network);
                    let full: usize = copies.iter().sum();
                    for n in (0..usize::from(count)).filter(|n| *n != usize::from(origin)) {
                        let is_on = on[n].contains(&network) && reached[n].is_some();
                        prop_assert!(copies[n] <= 1 && (!is_on || copies[n] == 1));
                        if copies[n] == 1 && !is_on {
                            // A relay: it must hand the flood on to somebody.
                            let hops = all[n].flood(ShortId(origin + 1), NetId::new(network).unwrap());
                            prop_assert!(!hops.is_empty());
                        }
                    }
                    prop_assert!(full >= 1);
                }
            }
        }

        #[test]
        fn unicast_is_shortest_and_does_not_loop((count, edges) in graph()) {
            let all = mesh(count, &edges, &[]);
            for from in 0..count {
                let distance = distances(count, &edges, from);
                let others = distance.iter().filter(|d| d.is_some_and(|d| d > 0)).count();
                prop_assert_eq!(all[usize::from(from)].reachable().len(), others);
                for to in (0..count).filter(|to| *to != from) {
                    let (mut at, mut hops) = (from, 0);
                    while let Some(next) = all[usize::from(at)].next_hop(key(to).name()) {
                        at = (0..).find(|n| key(*n).name() == next).unwrap();
                        hops += 1;
                        if at == to { break; }
                        prop_assert!(hops <= count);
                    }
                    prop_assert_eq!((at == to).then_some(hops), distance[usize::from(to)]);
                    let route = all[usize::from(from)].route(key(to).name());
                    prop_assert_eq!(route.map(|route| route.distance), distance[usize::from(to)]);
                }
            }
        }
    }

    #[test]
    fn link_that_one_end_reports_carries_nothing() {
        let mut peers = Peers::new(record(0, &[(1, true), (2, true)]));
        peers.merge(vec![record(1, &[(0, false)]), record(2, &[(0, true)])]);
        let routes = Routes::compute(&peers);
        assert_eq!(routes.next_hop(key(1).name()), None);
        assert_eq!(routes.next_hop(key(2).name()), Some(key(2).name()));
        assert_eq!(routes.neighbours(), [key(2).name()]);
    }

    #[test]
    fn a_way_by_another_is_taken_if_it_is_nearer_by_more_than_handing_on_costs() {
        let edges = [(0, 1), (0, 2), (2, 1)];
        let by_other = |direct: u32| {
            let all = measured(3, &edges, &[(direct, 0), (1000, 1000), (1000, 1000)]);
            all[0].next_hop(key(1).name()) == Some(key(2).name())
        };
        assert!(!by_other(0) && !by_other(2000 + A_HOP) && by_other(2001 + A_HOP));
    }

    #[test]
    fn contested_number_is_the_lowest_names() {
        let mut peers = Peers::new(record(0, &[(1, true), (2, true)]));
        let twin = Record { short: ShortId(2), ..record(2, &[(0, true)]) };
        peers.merge(vec![record(1, &[(0, true)]), twin]);
        let routes = Routes::compute(&peers);
        let (low, high) = if key(1).name() < key(2).name() { (1, 2) } else { (2, 1) };
        assert_eq!(routes.owner(ShortId(2)), Some(key(low).name()));
        assert_eq!(routes.route(key(low).name()).unwrap().short, Some(ShortId(2)));
        assert_eq!(routes.route(key(high).name()).unwrap().short, None);
    }

    #[test]
    fn floods_of_strangers_go_nowhere() {
        let all = mesh(2, &[(0, 1)], &[vec![7], vec![7]]);
        assert_eq!(all[0].flood(ShortId(99), NetId::new(7).unwrap()), &[] as &[Hop]);
        assert_eq!(all[0].flood(ShortId(1), NetId::new(8).unwrap()), &[] as &[Hop]);
        assert_eq!(all[0].flood(ShortId(1), NetId::new(7).unwrap()), &[0]);
        assert_eq!(all[0].flood(ShortId(2), NetId::new(7).unwrap()), &[] as &[Hop], "never back");
        assert_eq!(Routes::default().flood(ShortId(1), NetId::new(7).unwrap()), &[] as &[Hop]);
    }
}
