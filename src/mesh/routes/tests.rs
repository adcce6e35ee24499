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

#[test]
fn numbers_agree_until_one_is_another_peers() {
    let routes = |shorts: [u16; 2]| {
        let mut peers = Peers::new(record(0, &[(1, true), (2, true)]));
        let others = [1, 2].into_iter().zip(shorts);
        peers.merge(others.map(|(n, short)| Record { short: ShortId(short), ..record(n, &[(0, true)]) }).collect());
        Routes::compute(&peers)
    };
    let (before, after) = (routes([50, 60]), routes([50, 61]));
    assert!(before.numbers_agree(&after) && after.numbers_agree(&before), "a new number is nobody else's");
    assert!(Routes::default().numbers_agree(&before) && before.numbers_agree(&Routes::default()));
    assert!(!before.numbers_agree(&routes([60, 61])), "60 was the other's");
}
