use super::*;
use crate::mesh::peers::tests::{key, link, record};
use crate::mesh::peers::{Peers, Record};
use crate::types::{Nickname, Uid};
use proptest::prelude::*;
use std::collections::VecDeque;

struct Router {
    peers: Peers,
    gossip: Gossip,
}

/// Routers joined by lossless ordered links that take any time; a link that goes down takes with it what is under way.
struct Mesh {
    now: Instant,
    routers: Vec<Router>,
    links: BTreeMap<(u16, u16), VecDeque<Body<Record>>>,
    rng: StdRng,
    bodies: usize,
}

impl Mesh {
    fn new(count: u16, seed: u64) -> Mesh {
        let router = |n| {
            let gossip = Gossip::new([n as u8; 32], Instant::ZERO);
            Router { peers: Peers::new(record(n, &[])), gossip }
        };
        let routers = (0..count).map(router).collect();
        Mesh { now: Instant::ZERO, routers, links: BTreeMap::new(), rng: StdRng::seed_from_u64(seed), bodies: 0 }
    }

    fn change(&mut self, n: u16, change: impl FnOnce(&mut Record)) {
        let now = self.now;
        let router = &mut self.routers[usize::from(n)];
        if router.peers.update_me(change) {
            router.gossip.spread(&[key(n).name()], None, now);
        }
    }

    fn join(&mut self, a: u16, b: u16) {
        if a == b || self.links.contains_key(&(a, b)) {
            return;
        }
        for (from, to) in [(a, b), (b, a)] {
            self.links.insert((from, to), VecDeque::new());
            self.change(from, |me| me.links.push(link(to, true)));
            self.routers[usize::from(from)].gossip.link_up(key(from).name(), key(to).name());
        }
    }

    fn part(&mut self, a: u16, b: u16) {
        for (from, to) in [(a, b), (b, a)] {
            if self.links.remove(&(from, to)).is_some() {
                self.routers[usize::from(from)].gossip.link_down(key(to).name());
                self.change(from, |me| me.links.retain(|link| link.peer != key(to).name()));
            }
        }
    }

    fn number(&self, name: PeerName) -> u16 {
        (0..).find(|n| key(*n).name() == name).unwrap()
    }

    /// Sends what is to be sent, and delivers one body of a random link. False when nothing is under way.
    fn step(&mut self) -> bool {
        for from in 0..self.routers.len() as u16 {
            let router = &mut self.routers[usize::from(from)];
            let mut sent = Vec::new();
            let linked = router.peers.linked();
            while let Some((to, body)) = router.gossip.poll(&router.peers, &linked, self.now) {
                sent.push((to, body));
            }
            for (to, body) in sent {
                let to = self.number(to);
                self.bodies += 1;
                self.links.get_mut(&(from, to)).unwrap().push_back(body);
            }
        }
        let busy: Vec<_> = self.links.iter().filter(|(_, queue)| !queue.is_empty()).map(|(link, _)| *link).collect();
        let Some((from, to)) = busy.into_iter().choose(&mut self.rng) else { return false };
        let body = self.links.get_mut(&(from, to)).unwrap().pop_front().unwrap();
        self.routers[usize::from(from)].gossip.drained(key(to).name());
        let router = &mut self.routers[usize::from(to)];
        router.gossip.receive(key(from).name(), body, &mut router.peers, self.now);
        true
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let steps = (0..100_000).take_while(|_| self.step()).count();
            assert!(steps < 100_000, "gossip does not come to rest");
            self.now += Duration::from_millis(250);
            for router in &mut self.routers {
                router.gossip.handle(self.now);
                let linked = router.peers.linked();
                router.peers.collect(&linked, self.now);
            }
        }
    }

    fn is_agreed(&self) -> bool {
        let view = |n: usize| {
            let peers = &self.routers[n].peers;
            let linked = peers.linked();
            let mut view: Vec<_> =
                peers.iter().filter(|(name, _)| linked.contains(*name)).map(|(_, record)| record.clone()).collect();
            view.sort_by_key(Record::name);
            view
        };
        let views: Vec<_> = (0..self.routers.len()).map(view).collect();
        views.iter().enumerate().all(|(n, seen)| {
            let linked = self.routers[n].peers.linked();
            let in_sight = |(m, _): &(usize, _)| linked.contains(key(*m as u16).name());
            views
                .iter()
                .enumerate()
                .filter(in_sight)
                .all(|(m, theirs)| seen == theirs && seen.contains(self.routers[m].peers.me()))
        })
    }
}

#[test]
fn newcomer_learns_all_and_is_known_by_all_without_a_timer() {
    let mut mesh = Mesh::new(20, 1);
    (0..18).for_each(|n| mesh.join(n, n + 1));
    mesh.run(Duration::from_millis(1000));
    mesh.join(18, 19);
    while mesh.step() {}
    assert!(mesh.is_agreed());
    assert_eq!(mesh.routers[19].peers.count(), 20);
}

#[test]
fn leaf_of_a_large_star_hears_within_a_second_though_only_some_are_told_at_once() {
    let mut mesh = Mesh::new(60, 2);
    (1..60).for_each(|n| mesh.join(0, n));
    mesh.run(Duration::from_secs(1));
    assert!(mesh.is_agreed());
    mesh.change(0, |me| me.nickname = Nickname::new("renamed"));
    while mesh.step() {}
    assert!(!mesh.is_agreed(), "59 leaves are more than are told at once");
    mesh.run(Duration::from_secs(1));
    assert!(mesh.is_agreed());
}

#[test]
fn idle_mesh_says_next_to_nothing() {
    let mut mesh = Mesh::new(12, 3);
    (0..12).for_each(|a| (0..a).for_each(|b| mesh.join(a, b)));
    mesh.run(Duration::from_secs(20));
    let before = mesh.bodies;
    mesh.run(Duration::from_secs(60));
    assert!(mesh.bodies - before <= 12 * 6, "a summary each in 10 s, not {}", mesh.bodies - before);
}

#[test]
fn restarted_router_wins_over_what_is_remembered_of_it() {
    let mut mesh = Mesh::new(4, 4);
    (0..3).for_each(|n| mesh.join(n, n + 1));
    mesh.run(Duration::from_secs(2));
    (0..9).for_each(|n| mesh.change(3, |me| me.nickname = Nickname::new(&format!("before{n}"))));
    mesh.run(Duration::from_secs(2));
    mesh.part(2, 3);
    mesh.routers[3] =
        Router { peers: Peers::new(Record { uid: Uid(99), ..record(3, &[]) }), gossip: Gossip::new([9; 32], mesh.now) };
    mesh.join(2, 3);
    while mesh.step() {}
    assert!(mesh.is_agreed());
    assert_eq!(mesh.routers[0].peers.get(key(3).name()).unwrap().uid, Uid(99));
}

#[test]
fn peer_that_is_reached_again_is_told_to_who_joined_meanwhile() {
    let mut mesh = Mesh::new(5, 5);
    mesh.join(0, 1);
    mesh.join(1, 2);
    while mesh.step() {}
    mesh.part(1, 2);
    mesh.join(0, 3);
    while mesh.step() {}
    assert!(mesh.routers[3].peers.get(key(2).name()).is_none(), "nobody tells of whom nobody reaches");
    mesh.join(1, 4);
    mesh.join(4, 2);
    while mesh.step() {}
    assert!(mesh.is_agreed());
    assert!(mesh.routers[3].peers.get(key(2).name()).is_some());
}

#[test]
fn slow_neighbour_has_names_pending_and_nothing_else() {
    let mut gossip = Gossip::new([1; 32], Instant::ZERO);
    let mut peers = Peers::new(record(0, &[(1, true), (2, true)]));
    gossip.link_up(key(0).name(), key(1).name());
    let linked = peers.linked();
    assert!(gossip.poll(&peers, &linked, Instant::ZERO).is_some());
    for version in 2..1000 {
        let news = peers.merge(vec![Record { version, ..record(2, &[]) }]).news;
        gossip.spread(&news, None, Instant::ZERO);
        assert!(gossip.poll(&peers, &linked, Instant::ZERO).is_none(), "the link has not taken the first body yet");
    }
    gossip.drained(key(1).name());
    let Some((_, Body::Items(items))) = gossip.poll(&peers, &linked, Instant::ZERO) else { panic!("items") };
    assert_eq!((items.len(), items[0].version), (1, 999));
}

#[test]
fn bodies_are_bounded() {
    let mut gossip = Gossip::new([1; 32], Instant::ZERO);
    let links: Vec<_> = (100..600).map(|n| (n, true)).collect();
    let mut peers = Peers::new(record(0, &(1..60).map(|n| (n, true)).collect::<Vec<_>>()));
    peers.merge((1..60).map(|n| record(n, &links)).collect());
    gossip.link_up(key(0).name(), key(1).name());
    let all: Vec<_> = peers.iter().map(|(name, _)| name).collect();
    gossip.spread(&all, None, Instant::ZERO);
    let (mut bodies, mut told) = (0, 0);
    while let Some((to, body)) = gossip.poll(&peers, &peers.linked(), Instant::ZERO) {
        gossip.drained(to);
        if let Body::Items(items) = body {
            assert!(items.iter().map(Item::weight).sum::<usize>() <= BODY_MAX);
            bodies += 1;
            told += items.len();
        }
    }
    assert_eq!((told, bodies), (60, 9));
}

#[test]
fn does_not_repeat_to_a_neighbour_what_it_told_itself() {
    let mut gossip = Gossip::new([1; 32], Instant::ZERO);
    let mut peers = Peers::new(record(0, &[(1, true), (2, true)]));
    gossip.link_up(key(0).name(), key(1).name());
    while let Some((to, _)) = gossip.poll(&peers, &peers.linked(), Instant::ZERO) {
        gossip.drained(to);
    }
    let linked = peers.linked();
    let news = peers.merge(vec![record(2, &[])]).news;
    gossip.spread(&news, None, Instant::ZERO);
    gossip.receive(key(1).name(), Body::Items(vec![record(2, &[])]), &mut peers, Instant::ZERO);
    assert!(gossip.poll(&peers, &linked, Instant::ZERO).is_none());
}

#[test]
fn who_always_has_news_tells_them_four_times_a_second() {
    let mut gossip = Gossip::new([1; 32], Instant::ZERO);
    let mut peers = Peers::new(record(0, &[(1, true), (2, true)]));
    gossip.link_up(key(0).name(), key(1).name());
    let linked = peers.linked();
    let mut told = Vec::new();
    for ms in 0..2000_u64 {
        let now = Instant::from_nanos(ms * 1_000_000);
        let news = peers.merge(vec![Record { version: 2 + ms, ..record(2, &[]) }]).news;
        gossip.spread(&news, None, now);
        while gossip.poll(&peers, &linked, now).is_some() {
            gossip.drained(key(1).name());
            told.push(ms);
        }
        let held_back = told.last() != Some(&ms);
        assert!(!held_back || gossip.deadline().is_some_and(|at| at > now && at - now <= SPACING));
    }
    assert!(told.iter().filter(|ms| **ms < 10).count() >= 8, "the news of one moment are told at once");
    assert!((14..=20).contains(&told.len()), "{}", told.len());
}

fn quiet(peers: &Peers, neighbour: u16) -> Gossip {
    let mut gossip = Gossip::new([1; 32], Instant::ZERO);
    gossip.link_up(peers.name(), key(neighbour).name());
    while let Some((to, _)) = gossip.poll(peers, &peers.linked(), Instant::ZERO) {
        gossip.drained(to);
    }
    gossip
}

#[test]
fn digest_is_answered_by_another_only_if_it_asks() {
    // Otherwise two that refuse each other's items would go on for ever.
    let mut peers = Peers::new(record(0, &[(1, true)]));
    let theirs = Peers::new(record(1, &[(0, true)]));
    let digest = theirs.digest(&theirs.linked());
    for answer in [true, false] {
        let mut gossip = quiet(&peers, 1);
        let linked = peers.linked();
        gossip.receive(key(1).name(), Body::Digest { digest: digest.clone(), answer }, &mut peers, Instant::ZERO);
        let mut said = Vec::new();
        while let Some((to, body)) = gossip.poll(&peers, &linked, Instant::ZERO) {
            gossip.drained(to);
            said.push(body);
        }
        let mut expected = vec![Body::Items(vec![peers.me().clone()])];
        if answer {
            expected.push(Body::Digest { digest: peers.digest(&linked), answer: false });
        }
        assert_eq!(said, expected);
    }
}

#[test]
fn who_tells_us_of_our_earlier_run_is_told_of_this_one() {
    let mut peers = Peers::new(record(0, &[(1, true)]));
    let mut gossip = quiet(&peers, 1);
    let linked = peers.linked();
    let before = Record { version: 9, ..record(0, &[]) };
    assert!(gossip.receive(key(1).name(), Body::Items(vec![before]), &mut peers, Instant::ZERO).me_contested());
    assert_eq!(
        gossip.poll(&peers, &linked, Instant::ZERO),
        Some((key(1).name(), Body::Items(vec![peers.me().clone()])))
    );
    assert_eq!(peers.me().version, 10);
}

#[test]
fn fans_out_to_all_of_few_and_to_few_of_many() {
    let fans: Vec<usize> = [0, 1, 2, 4, 6, 10, 100, 1000].into_iter().map(fan_out).collect();
    assert_eq!(fans, [0, 1, 2, 4, 6, 7, 14, 20]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_happens_all_that_are_linked_agree_in_the_end(
        count in 2_u16..10,
        steps in proptest::collection::vec((0_u8..4, 0_u16..10, 0_u16..10, 0_usize..30), 1..60),
        seed: u64,
    ) {
        let mut mesh = Mesh::new(count, seed);
        for (what, a, b, deliveries) in steps {
            let (a, b) = (a % count, b % count);
            match what {
                0 | 1 => mesh.join(a, b),
                2 => mesh.part(a, b),
                _ => mesh.change(a, |me| me.nickname = Nickname::new(&format!("n{deliveries}"))),
            }
            (0..deliveries).for_each(|_| { mesh.step(); });
        }
        mesh.run(Duration::from_secs(2));
        prop_assert!(mesh.is_agreed());
    }
}
