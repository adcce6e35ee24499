//! Stories about underlays that drop in silence what is too big, and about the width of attachments.

use super::frames;
use super::machine::Options;
use super::mesh::attach_all;
use super::story::net;
use super::world::{H, World, millis, secs};
use rnet::types::{Instant, Mtu};
use std::time::Duration;

const NET: &str = "10.2.1.0/24";

fn auto() -> Options {
    Options { mtu: Mtu::Auto, ..Options::default() }
}

/// Hosts with wide lines, all linked with the first, whose widths follow the mesh.
fn linked<const N: usize>(seed: u64, lines: [usize; N]) -> (World, [H; N]) {
    let mut world = World::new(seed);
    world.weather.mtu = 9000;
    let hosts = lines.map(|mtu| {
        let h = world.host(auto());
        world.hosts[h.0].line_mtu = mtu;
        h
    });
    world.launch(hosts[0], &[]);
    hosts[1..].iter().for_each(|h| world.launch(*h, &[hosts[0]]));
    attach_all(&mut world, &hosts);
    (world, hosts)
}

/// Whether a frame of so many bytes that nobody can be told of (it is no IP) comes out at `to` within a second.
fn passes(world: &mut World, from: H, to: H, bytes: usize) -> bool {
    let (mine, theirs) = (world.hosts[from.0].nic(net(NET)).unwrap().mac, world.hosts[to.0].nic(net(NET)).unwrap().mac);
    world.next_token += 1;
    let token = world.next_token;
    world.transmit(from, net(NET), frames::frame(mine, theirs, 0x88b5, &vec![7; bytes], token));
    world.run_until(secs(1), |world| world.sent[&token].copies.contains_key(&to)).is_some()
}

fn width(world: &World, h: H) -> u16 {
    world.hosts[h.0].mtus[&net(NET)]
}

fn path_mtus(world: &mut World, h: H) -> Vec<u16> {
    world.status(h).connections.iter().filter_map(|c| c.path.as_ref()).map(|path| path.mtu).collect()
}

#[test]
fn an_underlay_of_700_bytes_carries_big_frames_from_the_first_on() {
    for seed in 0..10 {
        let (mut world, [a, b]) = linked(seed, [700, 1500]);
        world.run_until(secs(3), |world| world.ping(a, b, NET)).expect("small ones pass");
        for (from, to) in [(a, b), (b, a)] {
            for bytes in [1300, 10_000, 60_000] {
                assert!(passes(&mut world, from, to, bytes), "{bytes} bytes, seed {seed}");
            }
        }
        world.run_for(secs(10));
        assert_eq!((path_mtus(&mut world, a), path_mtus(&mut world, b)), (vec![672], vec![672]));
        assert_eq!((width(&world, a), width(&world, b)), (618, 618));
        assert!(passes(&mut world, a, b, 60_000));
    }
}

/// How long no big frame gets through, at most, while one is sent every 100 ms for `time`.
fn longest_gap(world: &mut World, from: H, to: H, time: Duration) -> Duration {
    let (mine, theirs) = (world.hosts[from.0].nic(net(NET)).unwrap().mac, world.hosts[to.0].nic(net(NET)).unwrap().mac);
    let (end, mut last, mut longest) = (world.now + time, world.now, Duration::ZERO);
    let mut sent: Vec<(Instant, u64)> = Vec::new();
    while world.now < end {
        world.next_token += 1;
        sent.push((world.now, world.next_token));
        world.transmit(from, net(NET), frames::frame(mine, theirs, 0x88b5, &[7; 1390], world.next_token));
        world.run_for(millis(100));
    }
    for (at, _) in sent.iter().filter(|(_, token)| world.sent[token].copies.contains_key(&to)) {
        longest = longest.max(*at - last);
        last = *at;
    }
    longest.max(end - last)
}

#[test]
fn a_path_that_narrows_in_silence_carries_big_frames_again_within_three_seconds() {
    for seed in 0..10 {
        let (mut world, [a, b]) = linked(100 + seed, [1500, 1500]);
        world.run_until(secs(3), |world| world.ping(a, b, NET)).expect("up");
        world.run_for(secs(5) + millis(137 * seed));
        let usual = longest_gap(&mut world, a, b, secs(5));
        assert!(usual <= millis(300), "{usual:?}");
        world.hosts[b.0].line_mtu = 1300 - usize::try_from(seed).unwrap() * 60;
        let gap = longest_gap(&mut world, a, b, secs(10));
        assert!(gap < secs(3) && gap > millis(100), "{gap:?}");
        assert!(world.are_neighbours(a, b), "the path itself never went down");
    }
}

#[test]
fn a_path_that_narrowed_while_nobody_sent_is_found_out_by_the_first_who_does() {
    let (mut world, [a, b]) = linked(200, [1500, 1500]);
    world.run_until(secs(3), |world| world.ping(a, b, NET)).expect("up");
    world.run_for(secs(10));
    world.hosts[a.0].line_mtu = 1000;
    let gap = longest_gap(&mut world, a, b, secs(6));
    assert!(gap < secs(3), "{gap:?}");
}

#[test]
fn jumbo_frames_are_used_where_all_underlays_take_them_and_a_mixed_mesh_goes_by_the_narrowest() {
    let (mut world, [a, b, c]) = linked(300, [9000, 9000, 9000]);
    let all = |world: &World, mtu: u16| [a, b, c].iter().all(|h| width(world, *h) == mtu);
    world.run_until(secs(15), |world| all(world, 8918)).expect("8972 - 54");
    world.run_for(secs(1));
    let d = world.host(auto());
    world.hosts[d.0].line_mtu = 1300;
    world.launch(d, &[a]);
    world.attach(d, "10.2.1.4/24");
    world.run_until(secs(15), |world| all(world, 1218) && width(world, d) == 1218).expect("1300 - 28 - 54");
    for h in [a, b, c, d] {
        let status = world.status(h);
        assert_eq!((status.mtu, status.mtu_limit.as_ref().unwrap().mtu), (1218, 1272));
        let name = world.name(d);
        assert!(status.mtu_limit.unwrap().ends.iter().any(|(end, _)| *end == name), "it is named");
    }
    assert!(passes(&mut world, b, c, 8000) && passes(&mut world, d, c, 8000));
    // It goes, and after a while the others are wide again.
    world.kill(d);
    world.run_until(secs(60), |world| all(world, 8918)).expect("wide again");
}

#[test]
fn a_path_that_comes_and_goes_does_not_make_the_width_flap() {
    let (mut world, [a, b, c]) = linked(400, [9000, 9000, 1500]);
    world.run_until(secs(15), |world| width(world, a) == 1418 && width(world, b) == 1418).expect("settled");
    world.run_for(secs(5));
    let changes = |world: &World| world.hosts[a.0].log.iter().filter(|(.., line)| line.contains("MTU of")).count();
    let before = changes(&world);
    for _ in 0..5 {
        world.partition(&[c], &[a, b]);
        world.run_for(secs(15));
        world.heal();
        world.run_for(secs(20));
    }
    assert_eq!((width(&world, a), changes(&world)), (1418, before));
}

#[test]
fn loss_and_reordering_do_not_narrow_a_mesh() {
    let (mut world, [a, b]) = linked(500, [1500, 1500]);
    world.weather.lost = 0.1;
    world.weather.doubled = 0.05;
    world.weather.jitter = millis(30);
    world.run_until(secs(20), |world| width(world, a) == 1418).expect("found in bad weather");
    let flow = world.flow((a, b), NET, millis(50), secs(600));
    world.run_for(secs(600));
    let changes = world.hosts[a.0].log.iter().filter(|(.., line)| line.contains("MTU of")).count();
    assert!(changes <= 4, "{changes} changes in ten minutes");
    let now = world.now;
    let (asked, answered) = world.answered(flow, Instant::ZERO, now);
    assert!(answered * 10 > asked * 7, "{answered} of {asked}");
}
