use super::*;
use crate::types::Mac;
use proptest::prelude::*;

const NET: u32 = 7;
const PSK: Psk = Psk([3; 32]);

fn net(id: u32) -> NetId {
    NetId::new(id).unwrap()
}

fn peer(n: u8) -> PeerName {
    PeerName(Mac([2, 0, 0, 0, 0, n]))
}

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(1000 + ms)
}

/// Peers with ports on segments; all are members of one mesh unless told otherwise.
struct World {
    peers: BTreeMap<u8, Loops>,
    /// Segment by peer and port.
    cables: BTreeMap<(u8, u32), u32>,
    strangers: Vec<u8>,
    ms: u64,
}

impl World {
    fn new(cables: &[(u8, u32, u32)]) -> World {
        let cables = cables.iter().map(|(p, port, segment)| ((*p, *port), *segment)).collect();
        let mut world = World { peers: BTreeMap::new(), cables, strangers: Vec::new(), ms: 0 };
        for (p, port) in world.cables.keys().copied().collect::<Vec<_>>() {
            world.open(p, port);
        }
        world
    }

    fn open(&mut self, p: u8, port: u32) {
        let loops = self.peers.entry(p).or_insert_with(|| Loops::new(peer(p), Uid(p.into()), Some(&PSK)));
        loops.open(port, net(NET), at(self.ms));
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.ms += 10;
            let now = at(self.ms);
            let mut said = Vec::new();
            for (p, loops) in &mut self.peers {
                said.extend(loops.due(now).into_iter().map(|(port, frame)| (*p, port, frame)));
            }
            for (p, port, frame) in said {
                let Some(segment) = self.cables.get(&(p, port)) else { continue };
                let hear = self.cables.iter().filter(|(from, on)| *on == segment && **from != (p, port));
                for ((q, there), _) in hear {
                    let strangers = &self.strangers;
                    let member = |name: PeerName, run: Uid| {
                        strangers.iter().all(|s| peer(*s) != name && *s != *q) && u64::from(name.0.0[5]) == run.0
                    };
                    let loops = self.peers.get_mut(q).unwrap();
                    loops.heard((Some(*there), net(NET)), &frame[14..], now, member);
                }
            }
        }
    }

    fn state(&self, p: u8, port: u32) -> State {
        self.peers[&p].state(port, at(self.ms)).unwrap()
    }

    fn carrying(&self) -> Vec<(u8, u32)> {
        self.cables.keys().copied().filter(|(p, port)| self.state(*p, *port) == State::Carrying).collect()
    }
}

fn speaker(p: u8, port: u32) -> Speaker {
    Speaker { peer: peer(p), port }
}

#[test]
fn a_port_listens_before_it_carries() {
    let mut world = World::new(&[(1, 5, 0)]);
    world.run(590);
    assert_eq!(world.state(1, 5), State::Listening);
    world.run(20);
    assert_eq!(world.carrying(), [(1, 5)]);
    let loops = world.peers.get_mut(&1).unwrap();
    assert_eq!(loops.changes(at(610)), [(5, State::Carrying)]);
    assert_eq!(loops.changes(at(611)), []);
}

#[test]
fn of_all_ports_on_a_segment_the_lowest_keeps_it() {
    let mut world = World::new(&[(2, 1, 0), (1, 9, 0), (3, 1, 0), (1, 10, 0), (2, 2, 1)]);
    world.run(700);
    assert_eq!(world.carrying(), [(1, 9), (2, 2)], "another segment is not concerned");
    assert_eq!(world.state(3, 1), State::Blocked(Some(speaker(1, 9))), "the one that keeps it is named");
    assert_eq!(world.state(1, 10), State::Blocked(Some(speaker(1, 9))), "two ports of one host");
    assert!(world.peers[&1].other(9, at(700)) == Some(speaker(1, 10)));
    world.run(20_000);
    assert_eq!(world.carrying(), [(1, 9), (2, 2)]);
}

#[test]
fn a_cable_is_noticed_within_a_beacon_and_healed_when_it_is_gone() {
    let mut world = World::new(&[(1, 1, 0), (2, 1, 1)]);
    world.run(2000);
    assert_eq!(world.carrying(), [(1, 1), (2, 1)]);
    world.cables.insert((2, 1), 0);
    world.run(310);
    assert_eq!(world.carrying(), [(1, 1)]);
    world.cables.insert((2, 1), 1);
    world.run(2600);
    assert_eq!(world.carrying(), [(1, 1)], "held for a while: beacons may be lost");
    world.run(500);
    assert_eq!(world.carrying(), [(1, 1), (2, 1)]);
}

#[test]
fn who_is_no_member_that_data_reaches_makes_no_loop() {
    let mut world = World::new(&[(1, 1, 0), (2, 1, 0)]);
    world.strangers = vec![1];
    world.run(3000);
    assert_eq!(world.carrying(), [(1, 1), (2, 1)], "two meshes");
    world.strangers.clear();
    world.run(310);
    assert_eq!(world.carrying(), [(1, 1)], "that have become one");
}

#[test]
fn forged_replayed_and_foreign_beacons_are_not_heard() {
    let now = at(0);
    let fresh = || {
        let mut loops = Loops::new(peer(2), Uid(2), Some(&PSK));
        loops.open(1, net(NET), now);
        loops
    };
    let beacon = |key: Option<&Psk>, network: u32, run: u64, number: u64| {
        let beacon = Beacon { network: net(network), peer: peer(1), port: 1, run: Uid(run), number };
        beacon.emit(|bytes| Tagger::new(key).tag(bytes))
    };
    let member = |name: PeerName, run: Uid| (name, run) == (peer(1), Uid(1));
    let hear = |loops: &mut Loops, frame: &[u8], now: Instant| {
        loops.heard((Some(1), net(NET)), &frame[14..], now, member);
        matches!(loops.state(1, now), Some(State::Blocked(_)))
    };
    let good = beacon(Some(&PSK), NET, 1, 4);
    assert!(hear(&mut fresh(), &good, now));
    let mut damaged = good;
    damaged[47] ^= 1;
    for (what, frame) in [
        ("of another password", beacon(Some(&Psk([4; 32])), NET, 1, 4)),
        ("of no password", beacon(None, NET, 1, 4)),
        ("of another network", beacon(Some(&PSK), NET + 1, 1, 4)),
        ("of an earlier run", beacon(Some(&PSK), NET, 9, 4)),
        ("damaged", damaged),
    ] {
        assert!(!hear(&mut fresh(), &frame, now), "{what}");
    }
    let mut loops = fresh();
    hear(&mut loops, &good, now);
    let later = now + HOLD;
    assert!(!hear(&mut loops, &good, later) && !hear(&mut loops, &beacon(Some(&PSK), NET, 1, 3), later), "replayed");
    assert!(hear(&mut loops, &beacon(Some(&PSK), NET, 1, 5), later));
}

#[test]
fn a_port_whose_beacon_comes_back_by_another_way_is_blocked() {
    let now = at(0);
    let mut loops = Loops::new(peer(1), Uid(1), None);
    loops.open(1, net(NET), now);
    loops.open(2, net(NET), now);
    let said = loops.due(now);
    let later = now + LISTEN;
    loops.heard((None, net(NET)), &said[1].1[14..], later, |_, _| false);
    assert_eq!(loops.state(1, later), Some(State::Carrying));
    assert_eq!(loops.state(2, later), Some(State::Blocked(None)));
    // A segment that throws frames back is its own affair.
    loops.heard((Some(1), net(NET)), &said[0].1[14..], later, |_, _| false);
    assert_eq!(loops.state(1, later), Some(State::Carrying));
}

#[test]
fn the_deadline_is_never_missed_and_ends() {
    let mut loops = Loops::new(peer(1), Uid(1), None);
    assert_eq!(loops.deadline(at(0)), None);
    loops.open(1, net(NET), at(0));
    let (mut now, mut beacons) = (at(0), 0);
    while now < at(3000) {
        beacons += loops.due(now).len();
        loops.changes(now);
        let next = loops.deadline(now).unwrap();
        assert!(next > now, "it would never wait");
        now = next;
    }
    assert_eq!(beacons, 10);
}

proptest! {
    /// Whatever is plugged where and moved when: three seconds later, each segment has exactly one port that carries, the lowest.
    #[test]
    fn every_segment_has_one_port_in_the_end(
        cables in prop::collection::btree_map((1u8..5, 1u32..3), 0u32..3, 1..8),
        moves in prop::collection::vec((any::<prop::sample::Index>(), 0u32..3, 0u64..1500), 0..6),
    ) {
        let all: Vec<_> = cables.iter().map(|((p, port), segment)| (*p, *port, *segment)).collect();
        let mut world = World::new(&all);
        for (which, segment, ms) in moves {
            let (p, port, _) = all[which.index(all.len())];
            world.cables.insert((p, port), segment);
            world.run(ms);
        }
        world.run(3500);
        let mut lowest = BTreeMap::new();
        for (port, segment) in &world.cables {
            lowest.entry(*segment).or_insert(*port);
        }
        let mut expected: Vec<_> = lowest.into_values().collect();
        expected.sort_unstable();
        prop_assert_eq!(world.carrying(), expected);
    }
}

#[test]
fn of_the_hosts_that_join_a_vtep_the_lowest_keeps_it_and_the_next_one_takes_over() {
    let vtep = |address: &str, vni| number(address.parse().unwrap(), net(vni));
    let shared = vtep("10.0.0.5:4789", 42);
    assert_eq!(shared, vtep("[::ffff:10.0.0.5]:4789", 42));
    let others = [vtep("10.0.0.6:4789", 42), vtep("10.0.0.5:4790", 42), vtep("10.0.0.5:4789", 43)];
    assert!(others.iter().all(|other| *other != shared && is_vtep(*other)) && is_vtep(shared) && !is_vtep(7));
    // The mesh is what they all hear each other by.
    let mut world = World::new(&[(1, shared, 1), (2, shared, 1), (3, shared, 1), (3, others[0], 2)]);
    world.run(1300);
    let state = |world: &World, p: u8, port| world.peers[&p].state(port, at(world.ms));
    let keeper = Speaker { peer: peer(1), port: shared };
    assert_eq!(state(&world, 1, shared), Some(State::Carrying));
    assert_eq!([2, 3].map(|p| state(&world, p, shared)), [Some(State::Blocked(Some(keeper))); 2]);
    assert_eq!(state(&world, 3, others[0]), Some(State::Carrying), "another VTEP");
    assert_eq!(world.peers[&1].other(shared, at(world.ms)), Some(Speaker { peer: peer(2), port: shared }));
    world.run(20_000);
    assert_eq!(state(&world, 2, shared), Some(State::Blocked(Some(keeper))), "as long as that is there");
    world.cables.remove(&(1, shared));
    world.peers.remove(&1);
    world.run(6100);
    let keeper = Speaker { peer: peer(2), port: shared };
    assert_eq!(state(&world, 2, shared), Some(State::Carrying));
    assert_eq!(state(&world, 3, shared), Some(State::Blocked(Some(keeper))));
    // Whoever comes later hears of it before it carries anything, though the others speak seldom.
    world.run(1000);
    world.open(4, shared);
    world.cables.insert((4, shared), 1);
    world.run(1300);
    assert_eq!(state(&world, 4, shared), Some(State::Blocked(Some(keeper))));
}
