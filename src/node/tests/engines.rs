//! Which engine of VXLAN a router uses where the kernel's is refused: rnet's own meanwhile, the kernel's as soon as it can be had.

use super::*;
use crate::node::status::PathStatus;
use crate::types::{Engine, Framing};

const KERNEL: HostOp = HostOp::OpenVxlan { port: 6784, engine: Engine::Kernel };
const OWN: HostOp = HostOp::OpenVxlan { port: 6784, engine: Engine::Userspace };
const ASK: HostOp = HostOp::TryVxlan { port: 6784 };

/// Two neighbours without a password; the machine of the first refuses this.
fn refusing(fails: impl Fn(&HostOp) -> bool + 'static) -> World {
    let open = |n| NodeConfig { psk: None, ..config(n) };
    let mut world = World::new(vec![open(2)]);
    let mut first = world.make(open(1), 0);
    first.fails = Box::new(fails);
    (first.address, world.hosts[0].address) = (address_of(0), address_of(1));
    world.hosts.insert(0, first);
    world.flying.iter_mut().for_each(|(_, to, _)| *to = 1);
    world.drain(0);
    world.connect(0, 1);
    world
}

fn no_kernel(op: &HostOp) -> bool {
    *op == KERNEL || *op == ASK
}

fn count(world: &World, wanted: &HostOp) -> usize {
    world.hosts[0].ops.iter().filter(|op| *op == wanted).count()
}

fn path(world: &mut World) -> PathStatus {
    world.status(0).connections.into_iter().find_map(|connection| connection.path).expect("a path")
}

/// Seconds after which it was asked again, as they pass.
fn asked(world: &mut World, seconds: u64) -> Vec<u64> {
    let mut times = Vec::new();
    for second in 1..=seconds {
        let before = count(world, &ASK);
        world.seconds(1);
        times.extend((before..count(world, &ASK)).map(|_| second));
    }
    times
}

#[test]
fn a_kernel_that_refuses_is_asked_ever_more_rarely_and_used_once_it_agrees() {
    let mut world = refusing(no_kernel);
    world.seconds(5);
    assert_eq!((count(&world, &KERNEL), count(&world, &OWN)), (1, 1));
    let times = asked(&mut world, 1500);
    let pauses: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!((times[0] < 10, pauses.as_slice()), (true, &[20, 40, 80, 160, 300, 300, 300][..]), "{times:?}");
    assert!(!world.hosts[0].ops.contains(&HostOp::CloseVxlan), "nothing is given up for a question");
    assert_eq!((count(&world, &KERNEL), count(&world, &OWN)), (1, 1));
    assert_eq!(world.logged(0, "framing kernel cannot be had: no permission; vxlan is used instead"), 1);
    assert_eq!(world.logged(0, "cannot be had"), 1);
    let seen = path(&mut world);
    assert_eq!((seen.framing, seen.why_not_better.as_str()), (Framing::Vxlan, "kernel: no permission"));
    assert_eq!(world.status(0).framing.info, "kernel: no permission");

    world.hosts[0].fails = Box::new(|_| false);
    world.seconds(320);
    let seen = path(&mut world);
    assert_eq!((seen.framing, seen.why_not_better.as_str()), (Framing::Kernel, ""));
    assert_eq!(world.status(0).framing.info, "");
    let changes: Vec<&HostOp> =
        world.hosts[0].ops.iter().filter(|op| [KERNEL, OWN, HostOp::CloseVxlan].contains(op)).collect();
    assert_eq!(changes, [&KERNEL, &OWN, &HostOp::CloseVxlan, &KERNEL]);
    assert_eq!(asked(&mut world, 1000), Vec::<u64>::new());
}

#[test]
fn a_device_of_somebody_else_that_goes_is_reason_to_ask_at_once_but_not_every_time() {
    let mut world = refusing(no_kernel);
    world.seconds(400);
    let before = count(&world, &ASK);
    world.input(0, Input::VxlanGone);
    world.seconds(2);
    assert_eq!(count(&world, &ASK), before + 1);
    // From then on as after the first refusal.
    assert_eq!(asked(&mut world, 32), [10, 30]);
    let before = count(&world, &ASK);
    for _ in 0..200 {
        world.input(0, Input::VxlanGone);
        world.run_for(Duration::from_millis(50));
    }
    assert!((5..=10).contains(&(count(&world, &ASK) - before)), "{} in ten seconds", count(&world, &ASK) - before);
    assert_eq!(world.logged(0, "cannot be had"), 1);
}

#[test]
fn a_kernel_that_agrees_and_then_refuses_costs_a_moment_ever_more_rarely() {
    let mut world = refusing(|op| *op == KERNEL);
    world.seconds(1500);
    let tries = count(&world, &KERNEL);
    assert!((6..=9).contains(&tries), "{tries}");
    assert_eq!((count(&world, &OWN), count(&world, &HostOp::CloseVxlan)), (tries, tries - 1));
    assert_eq!(world.logged(0, "cannot be had"), 1);
    assert_eq!(path(&mut world).framing, Framing::Vxlan);
    assert_eq!(world.established(0), 1);
}

#[test]
fn where_both_are_refused_both_are_tried_again_and_the_better_one_is_taken() {
    let mut world = refusing(|op| no_kernel(op) || *op == OWN);
    world.seconds(100);
    assert_eq!((world.logged(0, "framing kernel cannot"), world.logged(0, "framing vxlan cannot")), (1, 1));
    assert!((8..=12).contains(&count(&world, &OWN)) && (3..=6).contains(&count(&world, &KERNEL)));
    assert_eq!(path(&mut world).framing, Framing::Udp);
    assert_eq!(world.status(0).framing.info, "no permission", "what both lack is said once");
    world.hosts[0].fails = Box::new(|_| false);
    world.input(0, Input::VxlanGone);
    world.seconds(10);
    assert_eq!(path(&mut world).framing, Framing::Kernel);
    assert_eq!(count(&world, &HostOp::CloseVxlan), 0, "there was nothing to close");
}

#[test]
fn another_reason_is_told_and_the_same_one_is_not() {
    let mut world = refusing(no_kernel);
    world.seconds(5);
    let why = |world: &mut World, why: &str| {
        let host = world.hosts[0].ops.len();
        while world.hosts[0].ops.len() == host {
            world.run_for(Duration::from_millis(1));
        }
        let answer = world.flying.iter_mut().find_map(|(_, to, what)| match what {
            Flying::Host { result, .. } if *to == 0 => Some(result),
            _ => None,
        });
        *answer.expect("an answer under way") = Err(why.to_string());
        world.seconds(1);
    };
    for reason in ["no permission", "no room", "no room", "no permission"] {
        why(&mut world, reason);
    }
    assert_eq!((world.logged(0, "cannot be had: no room"), world.logged(0, "cannot be had: no permission")), (1, 2));
}
