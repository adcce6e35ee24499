//! What a story asks of routers and attachments, and what it sees of them.

use super::frames;
use super::wires::PORT;
use super::world::{Event, H, World, millis, secs};
use rnet::crypto::keys::public_key;
use rnet::node::border::{Input, RequestId};
use rnet::node::command::{Attach, Command, Place, Reply};
use rnet::node::status::{ConnectionState, Status};
use rnet::types::{Instant, Mac, NetId, Network, PeerName, Target};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Echo requests again and again, and which were answered.
pub struct Flow {
    from: H,
    to: H,
    net: NetId,
    every: Duration,
    until: Instant,
    /// When each was sent, and its id.
    pub asked: Vec<(Instant, u64)>,
}

impl World {
    /// Asks the router of `h`, and waits for the answer.
    pub fn command(&mut self, h: H, command: Command) -> Reply {
        let request = self.ask(h, command);
        self.answer(h, request).unwrap_or_else(|| panic!("{} does not answer", self.hosts[h.0].name))
    }

    /// Puts a container with this address on the mesh.
    pub fn try_attach(&mut self, h: H, address: &str) -> Result<(), String> {
        let key = format!("{address}@{}", self.hosts[h.0].name);
        self.try_attach_as(h, &key, address).map(drop)
    }

    /// Puts a container of that name on the mesh; which address it got.
    pub fn try_attach_as(&mut self, h: H, key: &str, address: &str) -> Result<IpAddr, String> {
        let request = self.ask(h, attach(key, address));
        self.answer(h, request).map(|reply| first_address(&reply)).unwrap_or_else(|| panic!("no answer"))
    }

    /// Asks without waiting for an answer.
    pub fn ask(&mut self, h: H, command: Command) -> u64 {
        self.next_request += 1;
        let request = self.next_request;
        self.feed(h, Input::Command { request: RequestId(request), command });
        request
    }

    /// The answer, if it comes within a few seconds.
    pub fn answer(&mut self, h: H, request: u64) -> Option<Reply> {
        let answered = |world: &mut World| world.replied(h, request);
        self.run_until(secs(5), answered)?;
        self.hosts[h.0].process.as_mut()?.replies.remove(&request)
    }

    /// Whether it was answered.
    pub fn replied(&self, h: H, request: u64) -> bool {
        self.hosts[h.0].process.as_ref().is_some_and(|process| process.replies.contains_key(&request))
    }

    pub fn attach(&mut self, h: H, address: &str) {
        self.try_attach(h, address).unwrap_or_else(|why| panic!("{why}"));
    }

    pub fn status(&mut self, h: H) -> Status {
        match self.command(h, Command::Status) {
            Reply::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// Sends one broadcast from `from`'s attachment; after a second, how often it came out where.
    pub fn flood(&mut self, from: H, network: &str) -> BTreeMap<H, usize> {
        let token = self.broadcast(from, network);
        self.run_for(secs(1));
        self.sent[&token].copies.clone()
    }

    /// Sends one broadcast from `from`'s attachment; its number in `sent`.
    pub fn broadcast(&mut self, from: H, network: &str) -> u64 {
        self.broadcast_of(from, network, 0)
    }

    /// The same with this many bytes more than it needs.
    pub fn broadcast_of(&mut self, from: H, network: &str, fill: usize) -> u64 {
        let net = net(network);
        self.next_token += 1;
        let token = self.next_token;
        let mac = self.hosts[from.0].nic(net).unwrap().mac;
        self.transmit(from, net, frames::filled(mac, Mac::BROADCAST, fill, token));
        token
    }

    /// Whether an echo request from `from`'s attachment is answered by `to`'s within a second, its address asked for first
    /// if it is not known.
    pub fn ping(&mut self, from: H, to: H, network: &str) -> bool {
        self.ping_with(from, to, network, 56)
    }

    pub fn ping_with(&mut self, from: H, to: H, network: &str, fill: usize) -> bool {
        let net = net(network);
        let end = self.now + secs(1);
        while self.now < end {
            let id = self.send_echo(from, to, net, fill);
            if self.run_until(millis(250), |world| world.hosts[from.0].answered.contains_key(&id)).is_some() {
                return true;
            }
        }
        false
    }

    /// Echo requests from now on, for `time`.
    pub fn flow(&mut self, (from, to): (H, H), network: &str, every: Duration, time: Duration) -> usize {
        let number = self.flows.len();
        self.flows.push(Flow { from, to, net: net(network), every, until: self.now + time, asked: Vec::new() });
        self.after(Duration::ZERO, Event::Flow { number });
        number
    }

    /// When the first request after `since` was sent that was answered.
    pub fn first_answered(&self, flow: usize, since: Instant) -> Option<Instant> {
        let Flow { from, asked, .. } = &self.flows[flow];
        let answered = &self.hosts[from.0].answered;
        asked.iter().find(|(at, id)| *at >= since && answered.contains_key(id)).map(|(at, _)| *at)
    }

    /// Requests sent between, and how many of them were answered.
    pub fn answered(&self, flow: usize, from: Instant, to: Instant) -> (usize, usize) {
        let Flow { from: h, asked, .. } = &self.flows[flow];
        let sent = asked.iter().filter(|(at, _)| (from..to).contains(at));
        let answered = sent.clone().filter(|(_, id)| self.hosts[h.0].answered.contains_key(id));
        (sent.count(), answered.count())
    }

    /// The same up to now, without what is still under way.
    pub fn answered_since(&self, flow: usize, from: Instant) -> (usize, usize) {
        self.answered(flow, from, Instant::from_nanos(self.now.nanos().saturating_sub(100_000_000)))
    }

    pub fn name(&self, h: H) -> PeerName {
        public_key(&self.hosts[h.0].key).name()
    }

    /// Whether both ends say that traffic flows between these neighbours.
    pub fn are_neighbours(&mut self, a: H, b: H) -> bool {
        [(a, b), (b, a)].into_iter().all(|(here, there)| {
            let there = self.name(there);
            let established = |c: &rnet::node::status::Connection| {
                c.state == ConnectionState::Established && c.peer.as_ref().is_some_and(|(peer, _)| *peer == there)
            };
            self.status(here).connections.iter().any(established)
        })
    }

    /// Where `h` can be dialled.
    pub fn target(&self, h: H) -> Target {
        Target::from_addr(SocketAddr::new(self.hosts[h.0].ip, PORT))
    }

    /// Why `h` has no link with, or at, `whom` (part of the line).
    pub fn why_not(&mut self, h: H, whom: &str) -> String {
        let status = self.status(h);
        let told = |c: &&rnet::node::status::Connection| {
            c.address.contains(whom) || c.peer.as_ref().is_some_and(|(peer, _)| peer.to_string() == whom)
        };
        let lines: Vec<String> = status.connections.iter().filter(told).map(|c| c.info.clone()).collect();
        lines.join("; ")
    }

    /// How often the router of `h` was woken by its timers.
    pub fn wakes(&self, h: H) -> u64 {
        self.hosts[h.0].process.as_ref().unwrap().wakes
    }

    pub fn flow_on(&mut self, number: usize) {
        let Flow { from, to, net, every, until, .. } = self.flows[number];
        if self.now >= until {
            return;
        }
        let id = self.send_echo(from, to, net, 56);
        self.flows[number].asked.push((self.now, id));
        self.after(every, Event::Flow { number });
    }
}

/// The command that attaches a container.
pub fn attach(key: &str, address: &str) -> Command {
    let (key, addresses) = (key.to_string(), vec![address.parse().unwrap()]);
    let (name, place, vni, publish) = (None, Place::Pid(1), None, Vec::new());
    let (unguarded, gateway, masquerade) = (false, false, false);
    Command::Attach(Attach { key, name, place, addresses, unguarded, vni, gateway, masquerade, publish })
}

/// The newest address of an attachment, or why there is none.
pub fn first_address(reply: &Reply) -> Result<IpAddr, String> {
    match reply {
        Reply::Attached(attachment) => Ok(attachment.interfaces[0].addresses[0].ip()),
        Reply::Refused(why) => Err(why.clone()),
        other => panic!("{other:?}"),
    }
}

pub fn net(network: &str) -> NetId {
    network.parse::<Network>().unwrap().id()
}
