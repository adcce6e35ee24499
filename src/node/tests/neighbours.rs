//! Questions for addresses that were given out are answered where they are asked, and what has moved is found.

use super::*;
use crate::types::{Mac, NetId, Network};
use crate::wire::frame::Frame;
use crate::wire::neighbour::announcement;

const THERE: [u8; 4] = [10, 2, 1, 1];

fn network() -> NetId {
    "10.2.1.0/24".parse::<Network>().unwrap().id()
}

fn plug(world: &mut World, at: usize, key: &str, address: [u8; 4]) -> Mac {
    let [a, b, c, d] = address;
    let Reply::Attached(attachment) = world.attach(at, key, &[&format!("{a}.{b}.{c}.{d}/24")]) else { panic!() };
    attachment.interfaces[0].mac
}

/// Three routers that all know each other, with 10.2.1.1, .2 and .3 attached; gives the MACs.
fn mesh() -> (World, [Mac; 3]) {
    let mut world = World::of(3);
    world.connect(0, 1);
    world.connect(1, 2);
    world.connect(2, 0);
    world.seconds(1);
    let macs = [0, 1, 2].map(|at| plug(&mut world, at, "web", [10, 2, 1, u8::try_from(at).unwrap() + 1]));
    world.seconds(1);
    world.hosts.iter_mut().for_each(|host| host.delivered.clear());
    (world, macs)
}

fn delivered(world: &mut World, at: usize) -> Vec<Vec<u8>> {
    std::mem::take(&mut world.hosts[at].delivered).into_iter().map(|(_, frame)| frame).collect()
}

/// The third router's attachment asks who has 10.2.1.1: who answers, and who else hears of it.
fn ask_for(world: &mut World, asker: Mac) -> (Option<Mac>, usize) {
    delivered(world, 2);
    let port = world.hosts[2].plane.fib().networks[&network()].port.unwrap();
    let fixed = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    let request = [&Mac::BROADCAST.0[..], &asker.0, &fixed, &asker.0, &[10, 2, 1, 3], &[0; 6], &THERE].concat();
    world.capture(2, port, &request);
    world.run_for(Duration::from_millis(50));
    let heard = [0, 1].map(|at| delivered(world, at).iter().filter(|frame| **frame == request).count());
    let answer = delivered(world, 2).iter().map(|frame| Frame::parse(frame).unwrap().src()).next();
    (answer, heard.iter().sum())
}

#[test]
fn questions_are_answered_by_claims_and_disturb_nobody() {
    let (mut world, [there, _, asker]) = mesh();
    assert_eq!(ask_for(&mut world, asker), (Some(there), 0));
    assert_eq!(world.status(2).drops, [("suppressed".to_string(), 1)]);
}

#[test]
fn a_moved_address_is_known_and_announced_within_a_moment() {
    let (mut world, [there, _, asker]) = mesh();
    assert!(matches!(world.ask(0, Command::Detach { key: "web".into(), addresses: vec![] }), Reply::Attached(_)));
    let new = plug(&mut world, 1, "moved", THERE);
    assert_ne!(new, there);
    world.run_for(Duration::from_millis(300));
    let announced = announcement(THERE.into(), new).unwrap().to_vec();
    assert_eq!(delivered(&mut world, 2), [announced]);
    assert_eq!(ask_for(&mut world, asker), (Some(new), 0));
}

#[test]
fn an_address_that_nobody_has_any_more_is_asked_for_everywhere() {
    let (mut world, [_, _, asker]) = mesh();
    world.ask(0, Command::Detach { key: "web".into(), addresses: vec![] });
    world.run_for(Duration::from_millis(300));
    // Only the second still has a port on the network.
    assert_eq!(ask_for(&mut world, asker), (None, 1));
}

#[test]
fn nobody_answers_for_a_router_that_is_dead() {
    let (mut world, [there, _, asker]) = mesh();
    // Nobody hears of it: no reset, no word.
    for other in [1, 2] {
        world.no_tcp.insert((0, other));
        world.no_udp.insert((0, other));
    }
    world.pipes.retain(|pipe| pipe.iter().all(|end| end.0 != 0));
    world.run_for(Duration::from_millis(5500));
    assert_eq!(ask_for(&mut world, asker), (None, 1));
    // Somebody else takes its address while the dead router's claim is still remembered.
    let new = plug(&mut world, 1, "heir", THERE);
    world.run_for(Duration::from_millis(300));
    assert_ne!(new, there);
    assert_eq!(ask_for(&mut world, asker), (Some(new), 0));
}

#[test]
fn changes_one_after_the_other_make_few_tables() {
    let (mut world, _) = mesh();
    let before = world.hosts[2].plane.fib().epoch;
    for n in 0..20_u8 {
        plug(&mut world, 0, &format!("more{n}"), [10, 2, 1, 100 + n]);
    }
    world.run_for(Duration::from_millis(200));
    assert_eq!(world.hosts[2].plane.fib().neighbours.len(), 23);
    let made = world.hosts[2].plane.fib().epoch - before;
    assert!(made <= 8, "{made} publications");
}
