//! Floods through whole planes: whatever trees peers believe in, each comes out once and ends.

use super::*;

#[test]
fn floods_do_not_multiply_while_trees_differ() {
    // Everybody believes in another subset of the edges of a full mesh of six.
    let all: Vec<(usize, usize)> = (1..=6).flat_map(|a| (a + 1..=6).map(move |b| (a, b))).collect();
    let mut mesh = Mesh::new(6, &all, &[7]);
    for host in 1..=6 {
        let believed: Vec<_> = all.iter().copied().filter(|(a, b)| (a * 5 + b * 3 + host * 7) % 4 != 0).collect();
        mesh.publish(host, &believed, &[7], |_| {});
    }
    for host in 1..=6 {
        mesh.capture(host, PORT, &hello(Mac::BROADCAST, mac(host as u8)));
        let carried = mesh.carry();
        assert!(carried <= 25, "{carried} datagrams for one flood among six");
        let delivered = mesh.delivered();
        assert!((1..=6).all(|at| delivered.iter().filter(|d| d.0 == at).count() <= 1), "nobody has it twice");
    }
}

#[test]
fn a_flood_from_the_wrong_side_is_refused() {
    let ring = &[(1, 2), (2, 3), (3, 1)];
    let mut mesh = Mesh::new(3, ring, &[7]);
    let inner = Inner {
        origin: short(1),
        destination: ShortId::FLOOD,
        number: 0,
        network: net(7),
        hops: HOPS_MAX,
        partial: false,
        fragment: None,
    };
    let mut out = Memory::default();
    write(&mesh.host(3).paths[&2], &inner, &hello(Mac::BROADCAST, mac(1)), &mut out);
    mesh.receive(2, address(3), out.datagrams.remove(0).1);
    assert_eq!(dropped(&mut mesh, 2), [(Drop::WrongTree, 1)]);
    assert_eq!(mesh.delivered(), []);
}

/// Trees gone mad: every flood goes everywhere.
struct Everywhere(Vec<Arc<path::Path>>);

impl fib::Floods for Everywhere {
    fn each_next_hop(&self, _: ShortId, _: NetId, visit: &mut dyn FnMut(&path::Path)) {
        self.0.iter().for_each(|path| visit(path));
    }
}

#[test]
fn a_flood_is_never_handed_back() {
    let mut mesh = Mesh::new(3, CHAIN, &[7]);
    let paths = mesh.host(2).paths.values().cloned().collect();
    mesh.publish(2, CHAIN, &[7], |fib| fib.floods = Box::new(Everywhere(paths)));
    mesh.capture(1, PORT, &hello(Mac::BROADCAST, mac(1)));
    let first = mesh.sent(1).remove(0).1;
    mesh.receive(2, address(1), first);
    assert_eq!(mesh.sent(2).iter().map(|sent| sent.0).collect::<Vec<_>>(), [address(3)]);
}

/// Everybody hands every flood to all neighbours, and takes it from any.
pub(super) fn mad(count: usize, edges: &[(usize, usize)]) -> Mesh {
    let mut mesh = Mesh::new(count, edges, &[7]);
    for host in 1..=count {
        let paths = mesh.host(host).paths.values().cloned().collect();
        mesh.publish(host, edges, &[7], |fib| fib.floods = Box::new(Everywhere(paths)));
    }
    mesh
}

#[test]
fn by_however_many_ways_a_flood_comes_out_once_and_ends() {
    let edges: Vec<(usize, usize)> = (1..=5).flat_map(|a| (a + 1..=5).map(move |b| (a, b))).collect();
    let mut mesh = mad(5, &edges);
    for n in 0..100 {
        let from = n % 5 + 1;
        let frame = ethernet(Mac::BROADCAST, mac(from as u8), 0x88b5, &[n as u8; 60]);
        mesh.capture(from, PORT, &frame);
        assert_eq!(mesh.carry(), 4 + 4 * 3, "everybody hands it on once");
        let others = (1..=5).filter(|to| *to != from).map(|to| (to, PORT, frame.clone()));
        assert_eq!(mesh.delivered(), others.collect::<Vec<_>>());
    }
    // Of the sixteen four come first, and none comes back to its origin but by those it was sent to.
    let all: u64 = (1..=5).map(|host| mesh.host(host).plane.counters().dropped(Drop::Duplicate)).sum();
    let own: u64 = (1..=5).map(|host| mesh.host(host).plane.counters().dropped(Drop::Own)).sum();
    assert_eq!(all + own, 100 * 12);
}

#[test]
fn a_flood_in_pieces_comes_out_once_though_ways_cut_it_differently() {
    let edges = &[(1, 2), (1, 3), (2, 4), (3, 4), (4, 5)];
    for slow in [2, 3] {
        let mut mesh = mad(5, edges);
        // The middle of each way is narrower than its begin, or wider.
        for (a, b, mtu) in [(1, 2, 1000), (2, 4, 600), (1, 3, 800), (3, 4, 1472), (4, 5, 700)] {
            mesh.host(a).paths[&b].set_mtu(mtu);
            mesh.host(b).paths[&a].set_mtu(mtu);
        }
        // Nobody delivers at 3: it only hands on.
        let paths = mesh.host(3).paths.values().cloned().collect();
        mesh.publish(3, edges, &[], |fib| fib.floods = Box::new(Everywhere(paths)));
        let frame = ethernet(Mac::BROADCAST, mac(1), 0x88b5, &(0..3000).map(|i| i as u8).collect::<Vec<_>>());
        mesh.capture(1, PORT, &frame);
        let (late, early): (Vec<_>, Vec<_>) = mesh.sent(1).into_iter().partition(|(to, _)| *to == address(slow));
        // Half of the pieces of one way, all of the other, the rest.
        let (first, rest) = late.split_at(late.len() / 2);
        for (to, datagram) in first.iter().chain(&early).chain(rest) {
            mesh.receive(if *to == address(2) { 2 } else { 3 }, address(1), datagram.clone());
        }
        mesh.carry();
        assert_eq!(mesh.delivered(), [2, 4, 5].map(|host| (host, PORT, frame.clone())));
        mesh.now += std::time::Duration::from_secs(3);
        for host in 1..=5 {
            let now = mesh.now;
            mesh.host(host).plane.expire(now);
            assert_eq!(mesh.host(host).plane.counters().dropped(Drop::FragmentLost), 0, "{host}");
        }
        assert_eq!(mesh.host(4).plane.counters().dropped(Drop::Duplicate), 1);
    }
}

#[test]
fn whoever_hands_a_flood_on_leaves_its_number_and_counts_its_own() {
    let mut mesh = Mesh::new(3, CHAIN, &[7]);
    for (host, there) in [(1, 2), (2, 1), (2, 3), (3, 2)] {
        mesh.host(host).paths[&there].set_sealed(false);
    }
    mesh.host(1).plane.number_floods_from(70);
    mesh.host(2).plane.number_floods_from(500);
    let number = |datagram: &[u8]| Inner::parse(&datagram[OUTER_LEN..]).unwrap().0.number;
    for n in 70..73 {
        mesh.capture(2, PORT, &hello(Mac::BROADCAST, mac(2)));
        assert!(mesh.sent(2).iter().all(|(_, datagram)| number(datagram) == 430 + n), "to everybody the same");
        mesh.capture(1, PORT, &hello(Mac::BROADCAST, mac(1)));
        let sent = mesh.sent(1).remove(0).1;
        assert_eq!(number(&sent), n);
        mesh.receive(2, address(1), sent);
        assert_eq!(number(&mesh.sent(2).remove(0).1), n);
    }
    // To one peer it goes without: eight bytes less.
    mesh.send(3, PORT, &hello(Mac::BROADCAST, mac(3)));
    mesh.capture(1, PORT, &hello(mac(3), mac(1)));
    mesh.capture(1, PORT, &hello(Mac::BROADCAST, mac(1)));
    let sent = mesh.sent(1);
    assert_eq!((sent[0].1.len(), sent[1].1.len()), (16 + 8 + 19, 16 + 16 + 19));
}
