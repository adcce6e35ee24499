//! Segments that are reached twice: noticed by beacons, and cut at one port.
//!
//! Owns what each captured port (uplink) and each VTEP of this host has heard, when it says that it is there, and whether it may
//! carry frames. Pure: time and bytes come in. Frames are carried by `plane`, which the driver tells; who is a member is the caller's to say.
//!
//! ```text
//! opened > Listening, LISTEN > Carrying          says that it is there every EVERY, whatever its state
//!             | lower heard        | lower heard
//!             '----> Blocked <-----'             until no lower one was heard for HOLD
//! ```
//!
//! Of all ports that reach a segment, the lowest (peer, port) keeps it: each one sees by itself whether it is that one, and one
//! is left without a word between them. A port that hears its own beacon by another way than its segment (a bridge of this host,
//! a VTEP, a peer) is blocked too: the other way cannot be.
//!
//! A VTEP never sends on what another VTEP said, so the hosts that join one do not hear each other by it. Their beacons go through
//! the mesh instead, under a port number that is made of the VTEP's address and its name for the network ([`number`]) and so is
//! the same on all of them: through the mesh "who has that number" is "who reaches that segment". Everybody on the network gets
//! these beacons, so they are rare, and whoever keeps a VTEP answers others that speak for it. One that two hosts know by two
//! addresses is two.
//!
//! Heard is only what a member of the mesh that data reaches said in its present run, with a right tag, each beacon once. Whoever
//! is on two segments and carries beacons from one to the other joins them indeed. Without a password anybody can make a tag: he
//! can block a port of the segment that he is on, or a VTEP of his network, which he could disturb anyhow, and no other. Bound: `VOICES_MAX` for each port.

use crate::crypto::tag::Tagger;
use crate::types::{Instant, NetId, PeerName, Psk, Uid};
use crate::wire::beacon::{BEACON_LEN, Beacon};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How often a port says that it is there: a loop is noticed after so long at the latest, if no beacon is lost.
pub const EVERY: Duration = Duration::from_millis(300);
/// How long a new port listens before it carries: what is there already has spoken by then.
pub const LISTEN: Duration = Duration::from_millis(600);
/// How long a port stays blocked after the last lower one was heard: nine beacons may be lost.
pub const HOLD: Duration = Duration::from_secs(3);
/// By how much longer the times are for VTEPs: one speaks every 1.5 s after its first 1.2 s, and is missed after 6 s.
const RARER: u32 = 5;
const LONGER: u32 = 2;
/// What numbers of VTEPs have, and those of ports never.
const VTEP: u32 = 1 << 31;

/// The number of a VTEP in beacons: FNV-1a (RFC 9923) of the IPv6 (or mapped) address, UDP port and VNI, and the highest bit.
pub fn number(to: SocketAddr, vni: NetId) -> u32 {
    let ip = match to.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let bytes = ip.octets().into_iter().chain(to.port().to_be_bytes()).chain(vni.value().to_be_bytes());
    VTEP | bytes.fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Whether a number of a port is that of a VTEP, not of a captured port.
pub fn is_vtep(port: u32) -> bool {
    port & VTEP != 0
}

/// The number of the port that a beacon is of, if it is one. Not authenticated.
pub fn port_of(body: &[u8]) -> Option<u32> {
    Beacon::parse(body).ok().map(|(beacon, ..)| beacon.port)
}

/// Ports heard at one port that are told apart.
const VOICES_MAX: usize = 64;

/// A captured port of the mesh. The lowest keeps a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Speaker {
    /// Whose.
    pub peer: PeerName,
    /// Its number there.
    pub port: u32,
}

/// What a port does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It carries nothing yet.
    Listening,
    /// It carries frames.
    Carrying,
    /// It carries nothing: this one keeps the segment; if none, the segment is on the network by a way that is no captured port.
    Blocked(Option<Speaker>),
}

#[derive(Debug)]
struct Port {
    network: NetId,
    /// Of the next beacon.
    number: u64,
    next: Instant,
    listens_until: Instant,
    own: Speaker,
    /// Until when its own beacons count as heard by another way than its segment.
    echoed: Option<Instant>,
    voices: BTreeMap<Speaker, Voice>,
    told: State,
}

/// A port that was heard.
#[derive(Debug)]
struct Voice {
    /// Of its last beacon.
    number: u64,
    /// Until when it counts as being there.
    until: Instant,
}

impl Port {
    fn state(&self, now: Instant) -> State {
        match self.present(now).next() {
            Some(lowest) if lowest < self.own => State::Blocked(Some(lowest)),
            _ if self.echoed.is_some_and(|until| now < until) => State::Blocked(None),
            _ if now < self.listens_until => State::Listening,
            _ => State::Carrying,
        }
    }

    /// Who else reaches the segment, the lowest first.
    fn present(&self, now: Instant) -> impl Iterator<Item = Speaker> {
        let mut present = self.voices.iter().filter(move |(speaker, voice)| **speaker != self.own && now < voice.until);
        std::iter::from_fn(move || present.next().map(|(speaker, _)| *speaker))
    }

    /// When its state may change by time alone.
    fn ends(&self, now: Instant) -> Option<Instant> {
        if self.state(now) != self.told {
            return Some(now);
        }
        let voices = self.voices.values().map(|voice| voice.until);
        voices.chain(self.echoed).chain([self.listens_until]).filter(|at| *at > now).min()
    }

    /// Takes in a beacon; false if it was heard before.
    fn note(&mut self, speaker: Speaker, number: u64, until: Instant) -> bool {
        let is_news = match self.voices.get(&speaker) {
            Some(voice) => number > voice.number,
            None => self.voices.len() < VOICES_MAX,
        };
        if is_news {
            self.voices.insert(speaker, Voice { number, until });
        }
        is_news
    }
}

/// See the head of this file.
pub struct Loops {
    me: PeerName,
    run: Uid,
    tagger: Tagger,
    ports: BTreeMap<u32, Port>,
}

impl Loops {
    /// Of this peer in this run, in the mesh of this password.
    pub fn new(me: PeerName, run: Uid, psk: Option<&Psk>) -> Loops {
        Loops { me, run, tagger: Tagger::new(psk), ports: BTreeMap::new() }
    }

    /// The port hears its segment from now on. It listens first.
    pub fn open(&mut self, port: u32, network: NetId, now: Instant) {
        // Numbers go on where they were: others have heard the last ones.
        let number = self.ports.remove(&port).map_or(0, |old| old.number);
        let (own, voices, told) = (Speaker { peer: self.me, port }, BTreeMap::new(), State::Listening);
        let listens_until = now + if is_vtep(port) { LISTEN * LONGER } else { LISTEN };
        self.ports.insert(port, Port { network, number, next: now, listens_until, own, echoed: None, voices, told });
    }

    /// The port hears nothing any more.
    pub fn close(&mut self, port: u32) {
        self.ports.remove(&port);
    }

    /// A beacon was heard on `network`: at this captured port, or elsewhere. `body`: what is behind its Ethernet header.
    /// `is_member`: whether data reaches that peer, and this is its run.
    pub fn heard(
        &mut self,
        (at, network): (Option<u32>, NetId),
        body: &[u8],
        now: Instant,
        is_member: impl Fn(PeerName, Uid) -> bool,
    ) {
        let Ok((beacon, signed, tag)) = Beacon::parse(body) else { return };
        if beacon.network != network || !self.tagger.is_right(signed, tag) {
            return;
        }
        let Beacon { peer, port: number_there, run, number, .. } = beacon;
        let is_ours = peer == self.me;
        if if is_ours { run != self.run } else { !is_member(peer, run) } {
            return;
        }
        let speaker = Speaker { peer, port: number_there };
        let Some(at) = at else {
            if let Some(port) = self.ports.get_mut(&number_there).filter(|_| is_ours)
                && port.note(speaker, number, now + HOLD)
            {
                port.echoed = Some(now + HOLD);
            }
            return;
        };
        if let Some(port) = self.ports.get_mut(&at).filter(|port| port.network == network && speaker != port.own) {
            let is_vtep = is_vtep(at);
            let hold = if is_vtep { HOLD * LONGER } else { HOLD };
            if port.note(speaker, number, now + hold) && is_vtep && port.own < speaker {
                port.next = port.next.min(now + EVERY);
            }
        }
    }

    /// The beacons that are due, whole frames: of captured ports for their segments, of VTEPs for their networks in the mesh.
    pub fn due(&mut self, now: Instant) -> Vec<(u32, [u8; BEACON_LEN])> {
        let (me, run, tagger) = (self.me, self.run, &self.tagger);
        let due = self.ports.iter_mut().filter(|(_, port)| port.next <= now);
        due.map(|(id, port)| {
            port.number += 1;
            port.next = now + if is_vtep(*id) && now >= port.listens_until { EVERY * RARER } else { EVERY };
            let beacon = Beacon { network: port.network, peer: me, port: *id, run, number: port.number };
            (*id, beacon.emit(|bytes| tagger.tag(bytes)))
        })
        .collect()
    }

    /// The ports whose state is another than when this was last asked.
    pub fn changes(&mut self, now: Instant) -> Vec<(u32, State)> {
        let mut changes = Vec::new();
        for (id, port) in &mut self.ports {
            let state = port.state(now);
            if state != port.told {
                port.told = state;
                changes.push((*id, state));
            }
        }
        changes
    }

    /// When something is due.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.ports.values().flat_map(|port| [Some(port.next), port.ends(now)]).flatten().min()
    }

    /// What a port does, if it hears its segment.
    pub fn state(&self, port: u32, now: Instant) -> Option<State> {
        self.ports.get(&port).map(|port| port.state(now))
    }

    /// Who reaches the segment of this port too, and keeps off for its sake where this one carries; the lowest of several.
    pub fn other(&self, port: u32, now: Instant) -> Option<Speaker> {
        self.ports.get(&port)?.present(now).next()
    }
}

#[cfg(test)]
mod tests;
