//! Stories about segments: cables between captured interfaces of hosts, which may make loops. On a segment everybody hears what
//! anybody else on it says; a station of its own is on each.

use super::frames;
use super::machine::{Outcome, Sent};
use super::story::net;
use super::world::{Event, H, World, millis, secs};
use rnet::node::border::{Input, UplinkState};
use rnet::node::command::{Command, Reply, Uplink, UplinkCapture};
use rnet::node::status::UplinkCondition::{self, Blocked, Carrying};
use rnet::plane::fib::PortId;
use rnet::types::{Mac, PeerName};
use std::collections::BTreeMap;

const NET: &str = "10.2.1.0/24";

impl World {
    /// The router of `h` is told of interfaces that it captures now.
    pub fn tell_uplinks(&mut self, h: H) {
        let known = self.hosts[h.0].uplinks.iter_mut();
        let new: Vec<PortId> =
            known.filter_map(|(port, up)| (!std::mem::replace(&mut up.2, true)).then_some(*port)).collect();
        for port in new {
            self.feed(h, Input::Uplink { port, state: UplinkState::Up(1500) });
        }
    }

    /// A frame goes out on an interface of `from`, or a station says it: the others on the segment hear it.
    pub fn on_segment(&mut self, segment: u32, from: Option<(H, PortId)>, frame: &[u8]) {
        *self.segment_frames.entry(segment).or_default() += 1;
        let mut heard = Vec::new();
        for ((h, name), on) in &self.cables {
            let host = &self.hosts[h.0];
            let port = host.uplinks.iter().find(|(_, up)| up.0 == *name).map(|(port, _)| *port);
            if let Some(port) = port.filter(|port| *on == segment && from != Some((*h, *port))) {
                heard.push((*h, host.life, port));
            }
        }
        for (h, life, port) in heard {
            self.after(millis(1), Event::Captured { h, life, port, frame: frame.to_vec() });
        }
    }

    /// A frame comes in by a captured interface.
    pub fn captured(&mut self, h: H, port: PortId, frame: &[u8]) {
        let Some(process) = self.hosts[h.0].process.as_ref().filter(|_| self.hosts[h.0].uplinks.contains_key(&port))
        else {
            return;
        };
        let (plane, mut outcome) = (process.plane.clone(), Outcome::default());
        plane.from_bridge(port, frame, self.now, &mut outcome);
        self.carry_out(h, outcome);
    }

    fn bridge(&mut self, h: H, name: &str, segment: u32) {
        self.cables.insert((h, name.to_string()), segment);
        let (interface, network) = (name.parse().unwrap(), NET.parse().unwrap());
        let uplink = Uplink { interface, network, capture: UplinkCapture::Packet };
        assert_eq!(self.command(h, Command::Bridge(uplink)), Reply::Done);
    }

    fn plug_cable(&mut self, h: H, name: &str, segment: u32) {
        self.cables.insert((h, name.to_string()), segment);
    }

    fn condition(&mut self, h: H, name: &str) -> UplinkCondition {
        let status = self.status(h);
        status.uplinks.into_iter().find(|uplink| uplink.interface.as_str() == name).unwrap().condition
    }

    /// A station of a segment says something to all; after a second, how often attachments heard it, by host.
    fn shout(&mut self, segment: u32) -> BTreeMap<H, usize> {
        self.next_token += 1;
        let token = self.next_token;
        let station = Mac([2, 0xee, 0, 0, 0, segment as u8]);
        let frame = frames::bare(station, Mac::BROADCAST, token);
        self.sent.insert(token, Sent { net: net(NET), bytes: frame.clone(), copies: BTreeMap::new() });
        self.on_segment(segment, None, &frame);
        self.run_for(secs(1));
        self.sent[&token].copies.clone()
    }
}

/// Three hosts in a ring, each with an attachment, in the order of their names.
fn ring(seed: u64) -> (World, [H; 3]) {
    let mut world = World::new(seed);
    let mut hosts: [H; 3] = world.hosts();
    for (n, h) in hosts.iter().enumerate() {
        world.launch(*h, &[hosts[(n + 1) % 3]]);
        world.attach(*h, &format!("10.2.1.{}/24", n + 1));
    }
    world.run_for(secs(5));
    hosts.sort_by_key(|h| -> PeerName { world.name(*h) });
    (world, hosts)
}

fn once(hosts: &[H]) -> BTreeMap<H, usize> {
    hosts.iter().map(|h| (*h, 1)).collect()
}

#[test]
fn two_hosts_on_one_segment_carry_each_frame_once_and_the_lower_keeps_it() {
    let (mut world, hosts) = ring(300);
    let [low, high, _] = hosts;
    world.bridge(low, "seg0", 1);
    world.bridge(high, "seg0", 2);
    world.run_for(secs(1));
    assert_eq!((world.condition(low, "seg0"), world.condition(high, "seg0")), (Carrying, Carrying));
    assert_eq!(world.shout(1), once(&hosts));
    assert_eq!(world.shout(2), once(&hosts));
    world.plug_cable(high, "seg0", 1);
    world.run_for(millis(320));
    assert_eq!((world.condition(low, "seg0"), world.condition(high, "seg0")), (Carrying, Blocked));
    assert!(world.hosts[high.0].has_logged("seg0 is cut off: a loop: port"));
    assert_eq!(world.shout(1), once(&hosts));
    let status = world.status(low);
    assert!(status.uplinks[0].info.contains("reaches this segment too and is cut off"), "{}", status.uplinks[0].info);
    world.run_for(secs(60));
    assert_eq!(world.shout(1), once(&hosts));
    world.plug_cable(high, "seg0", 2);
    world.run_for(millis(3400));
    assert_eq!((world.condition(low, "seg0"), world.condition(high, "seg0")), (Carrying, Carrying));
    assert_eq!(world.shout(2), once(&hosts));
}

#[test]
fn who_carries_dies_and_the_other_takes_over_and_gives_back() {
    let (mut world, hosts) = ring(301);
    let [low, high, other] = hosts;
    world.bridge(low, "seg0", 1);
    world.run_for(secs(1));
    world.bridge(high, "seg0", 1);
    world.run_for(secs(1));
    assert_eq!(world.condition(high, "seg0"), Blocked, "it listened before it carried: nothing came twice");
    world.kill(low);
    world.run_for(secs(4));
    assert_eq!(world.condition(high, "seg0"), Carrying);
    assert_eq!(world.shout(1), once(&[high, other]));
    world.restart(low, super::world::KEPT);
    world.run_for(secs(8));
    assert_eq!((world.condition(low, "seg0"), world.condition(high, "seg0")), (Carrying, Blocked));
    assert_eq!(world.shout(1).get(&other), Some(&1));
}

#[test]
fn a_cable_between_two_interfaces_of_one_host_is_cut_at_the_higher() {
    let (mut world, hosts) = ring(302);
    world.bridge(hosts[0], "left", 1);
    world.bridge(hosts[0], "right", 2);
    world.run_for(secs(1));
    world.plug_cable(hosts[0], "right", 1);
    world.run_for(millis(320));
    assert_eq!((world.condition(hosts[0], "left"), world.condition(hosts[0], "right")), (Carrying, Blocked));
    assert_eq!(world.shout(1), once(&hosts));
}

#[test]
fn a_storm_is_bounded_until_it_is_cut() {
    let (mut world, hosts) = ring(303);
    world.bridge(hosts[0], "seg0", 1);
    world.bridge(hosts[1], "seg0", 2);
    world.run_for(secs(1));
    let before = world.datagrams;
    world.plug_cable(hosts[1], "seg0", 1);
    let station = Mac([2, 0xee, 0, 0, 0, 9]);
    for _ in 0..20 {
        world.next_token += 1;
        let (token, bytes) = (world.next_token, frames::bare(station, Mac::BROADCAST, world.next_token));
        world.sent.insert(token, Sent { net: net(NET), bytes: bytes.clone(), copies: BTreeMap::new() });
        world.on_segment(1, None, &bytes);
    }
    world.run_for(secs(2));
    let (all, on) = (world.datagrams - before, world.segment_frames[&1]);
    assert!(all < 30_000 && on < 30_000, "{all} datagrams, {on} frames on the segment");
    let circling = world.datagrams;
    world.run_for(secs(1));
    assert!(world.datagrams - circling < 200, "nothing circles any more");
    assert_eq!(world.shout(1), once(&hosts));
}

#[test]
fn two_meshes_on_one_segment_become_one_and_are_cut() {
    let (mut world, hosts) = ring(304);
    let [low, high, other] = hosts;
    world.wall(low, high);
    world.wall(high, other);
    world.run_for(secs(30));
    world.bridge(low, "seg0", 1);
    world.bridge(high, "seg0", 1);
    world.run_for(secs(5));
    assert_eq!((world.condition(low, "seg0"), world.condition(high, "seg0")), (Carrying, Carrying), "no loop yet");
    world.heal();
    let cut = world.run_until(secs(60), |world| world.condition(high, "seg0") == Blocked);
    assert!(cut.is_some());
    assert_eq!(world.condition(low, "seg0"), Carrying);
    assert_eq!(world.shout(1), once(&hosts));
}
