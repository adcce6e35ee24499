//! TCP links: from the connection to the linked peer, and to its end.
//!
//! Owns the table of connections and what follows from their events; `mesh::link` owns one link's order of messages,
//! `admit` the decision. A peer has at most one accepted link (`by_peer`); a connection that waits for the answer of a
//! challenged one is decided anew when that one answers or ends.
//!
//! Bounds: `MAX_PENDING` connections that others opened and that are not accepted yet, `MAX_PENDING_PER_ADDRESS` of one
//! address, each for 5 s (`link::HANDSHAKE_TIMEOUT`); `MAX_REFUSED` refused strangers remembered for the status.

use super::Node;
use super::admit::{self, Applicant, House, Standing, Verdict};
use super::border::{DialId, Level, LinkId, Output};
use super::paths::Tended;
use crate::crypto::session::Role;
use crate::mesh::link::{Ending, Link, LinkEvent, Setup};
use crate::types::{Instant, Nickname, PeerName, Refusal, Target};
use crate::wire::message::{Intro, Message};
use rand::RngExt;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Connections opened by others that are not accepted yet.
pub const MAX_PENDING: usize = 64;
/// Of these, from one address.
pub const MAX_PENDING_PER_ADDRESS: usize = 16;
/// Refused strangers that the status remembers, and for how long.
const MAX_REFUSED: usize = 64;
const REMEMBER_REFUSED: Duration = Duration::from_secs(60);

/// One TCP connection.
pub(super) struct Connected {
    pub link: Link,
    /// The dial that made it; nothing: the other side dialled.
    pub dial: Option<u64>,
    pub remote: SocketAddr,
    /// The address of ours that it stands on.
    pub local: IpAddr,
    /// Whom the key belongs to, once proven.
    pub peer: Option<PeerName>,
    /// Decided when this one answers its challenge or ends.
    pub waits_for: Option<LinkId>,
    /// The path beside it, once it is up.
    pub tended: Option<Tended>,
}

impl Connected {
    /// Address at which the peer can be dialled, as far as we can know.
    pub fn dialable(&self) -> SocketAddr {
        match (self.dial, self.link.theirs()) {
            (None, Some(intro)) => {
                let mut address = self.remote;
                address.set_port(intro.port);
                address
            }
            _ => self.remote,
        }
    }

    /// When something is to be done for it.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        let path = self.tended.as_ref().map(|tended| tended.deadline(now));
        self.link.deadline().into_iter().chain(path).min()
    }

    /// What people call the peer.
    pub fn nickname(&self) -> Nickname {
        self.link.theirs().map(|intro| intro.nickname.clone()).unwrap_or_default()
    }
}

/// A stranger that was refused.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub remote: SocketAddr,
    pub peer: Option<(PeerName, Nickname)>,
    pub why: String,
    at: Instant,
}

/// All connections.
#[derive(Default)]
pub(super) struct Links {
    pub all: BTreeMap<LinkId, Connected>,
    /// The accepted link of each peer.
    pub by_peer: BTreeMap<PeerName, LinkId>,
    pub refused: BTreeMap<IpAddr, Refused>,
}

impl Links {
    /// The link to a neighbour that is up.
    pub fn up(&self, peer: PeerName) -> Option<(LinkId, &Connected)> {
        let id = *self.by_peer.get(&peer)?;
        let connected = self.all.get(&id).filter(|connected| connected.link.is_up())?;
        Some((id, connected))
    }

    /// All that are up.
    pub fn neighbours(&self) -> impl Iterator<Item = (PeerName, &Connected)> {
        self.by_peer.keys().filter_map(|peer| Some((*peer, self.up(*peer)?.1)))
    }

    fn has_room(&self, from: IpAddr) -> bool {
        let pending = || self.all.values().filter(|c| c.dial.is_none() && !c.link.is_accepted());
        pending().count() < MAX_PENDING && pending().filter(|c| c.remote.ip() == from).count() < MAX_PENDING_PER_ADDRESS
    }

    pub fn forget_refused(&mut self, now: Instant) {
        self.refused.retain(|_, refused| now - refused.at < REMEMBER_REFUSED);
    }
}

/// An IPv4 address as such, though the socket speaks IPv6. Other addresses keep their scope.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// Why a connection ended.
enum Why {
    Told(Ending),
    Broken(String),
}

impl Why {
    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Why::Told(ending) => Some(ending.refusal()),
            Why::Broken(_) => None,
        }
    }

    /// One line, as seen from here.
    fn text(&self) -> String {
        match self {
            Why::Broken(why) => why.clone(),
            Why::Told(Ending::Ours(refusal)) => refusal.to_string(),
            // Only where it matters whose limits and lists these are; the rest is the same on both sides.
            Why::Told(Ending::Theirs(refusal)) => match refusal {
                Refusal::ConnectionLimit { .. }
                | Refusal::NotAllowed
                | Refusal::Cloned
                | Refusal::Malformed
                | Refusal::TooSlow
                | Refusal::Timeout => format!("refused by peer: {refusal}"),
                refusal => refusal.to_string(),
            },
        }
    }

    /// It would end the same way whenever it is tried.
    fn is_final(&self) -> bool {
        matches!(self.refusal(), Some(Refusal::Ourselves | Refusal::NameCollision))
    }
}

impl Node {
    fn house(&self) -> House<'_> {
        House {
            key: self.public,
            name: self.me,
            uid: self.config.uid,
            range: &self.range,
            allow: self.config.allow.as_deref(),
            links: self.links.by_peer.len(),
            limit: self.config.connection_limit,
        }
    }

    pub(super) fn link_up(&mut self, id: LinkId, dial: Option<DialId>, remote: SocketAddr, local: IpAddr) {
        let (remote, local) = (canonical(remote), local.to_canonical());
        if self.stopping || (dial.is_none() && !self.links.has_room(remote.ip())) {
            if !self.stopping {
                self.log_about(
                    remote.ip(),
                    format!("too many connections that do not introduce themselves: {remote} is turned away"),
                );
            }
            return self.out.push_back(Output::Close { link: id });
        }
        let intro = Intro {
            nickname: self.config.nickname.clone(),
            uid: self.config.uid,
            connection: self.rng.random(),
            port: self.config.port,
            aes: self.config.aes,
            password: self.config.psk.is_some(),
            vxlan: self.framings.port().unwrap_or(0),
            trusts: self.config.trusts(remote.ip()),
            range: self.range.clone(),
        };
        let role = if dial.is_some() { Role::Dialer } else { Role::Listener };
        let setup =
            Setup { role, key: &self.config.key, psk: self.config.psk.as_ref(), seed: self.rng.random(), intro };
        let link = Link::new(setup, self.now);
        let dial = dial.map(|dial| dial.0);
        self.links.all.insert(id, Connected { link, dial, remote, local, peer: None, waits_for: None, tended: None });
    }

    pub(super) fn link_bytes(&mut self, id: LinkId, bytes: &[u8]) {
        if let Some(connected) = self.links.all.get_mut(&id) {
            connected.link.receive(bytes, self.now);
            self.drain(id);
        }
    }

    pub(super) fn link_drained(&mut self, id: LinkId) {
        let Some(connected) = self.links.all.get_mut(&id) else { return };
        connected.link.drained();
        if let Some(peer) = connected.peer.filter(|_| connected.link.is_up()) {
            self.tell.drained(peer);
        }
    }

    pub(super) fn link_down(&mut self, id: LinkId, why: String) {
        self.ended(id, Why::Broken(why));
    }

    pub(super) fn dial_failed(&mut self, dial: u64, why: &str) {
        if let Some(target) = self.dialer.failed(dial, why, self.now) {
            self.log(Level::Warn, format!("no connection to {target}: {why}"));
        }
    }

    /// Carries out what the link's machine found.
    pub(super) fn drain(&mut self, id: LinkId) {
        while let Some(event) = self.links.all.get_mut(&id).and_then(|connected| connected.link.poll_event()) {
            match event {
                LinkEvent::Authenticated(_) => self.authenticated(id),
                LinkEvent::Introduced(_) => self.decide(id),
                LinkEvent::Up => self.linked(id),
                LinkEvent::Message(message) => self.message(id, message),
                LinkEvent::Alive => self.answered_challenge(id),
                LinkEvent::Closed(ending) => return self.ended(id, Why::Told(ending)),
            }
        }
    }

    fn authenticated(&mut self, id: LinkId) {
        let Some((dial, key)) = self.links.all.get(&id).and_then(|c| Some((c.dial, c.link.key()?))) else { return };
        let peer = key.name();
        let refusal = admit::key(&self.house(), key, self.peers.key(peer));
        if let Some(dial) = dial.filter(|_| peer != self.me) {
            self.dialer.reached(dial, peer);
        }
        if let Some(connected) = self.links.all.get_mut(&id) {
            connected.peer = Some(peer);
            if let Some(refusal) = refusal {
                connected.link.refuse(refusal);
            }
        }
    }

    fn decide(&mut self, id: LinkId) {
        let Some(connected) = self.links.all.get(&id) else { return };
        let (Some(peer), Some(key), Some(intro)) = (connected.peer, connected.link.key(), connected.link.theirs())
        else {
            return;
        };
        let old = self.links.by_peer.get(&peer).copied().filter(|old| *old != id);
        let standing = old.and_then(|old| self.links.all.get(&old)).and_then(|old| {
            let uid = old.link.theirs()?.uid;
            Some(Standing { uid, rank: old.link.rank(), silent_for: old.link.silent_for(self.now) })
        });
        let applicant = Applicant { key, uid: intro.uid, range: &intro.range, rank: connected.link.rank() };
        let gives_way = if old.is_none() { self.gives_way_to(peer) } else { None };
        let mut house = self.house();
        house.links -= usize::from(gives_way.is_some());
        match (admit::introduced(&house, &applicant, standing), old.or(gives_way)) {
            (Verdict::Accept, Some(spare)) => {
                self.accept(id, peer);
                let limit = u32::try_from(self.config.connection_limit).unwrap_or(u32::MAX);
                self.refuse(spare, Refusal::ConnectionLimit { limit });
                self.drain(spare);
            }
            (Verdict::Refuse(refusal), _) => self.refuse(id, refusal),
            (Verdict::Challenge, Some(old)) => self.challenge(id, old),
            (Verdict::Replace, Some(old)) => {
                self.accept(id, peer);
                self.refuse(old, Refusal::AlreadyConnected);
                self.drain(old);
            }
            _ => self.accept(id, peer),
        }
    }

    fn accept(&mut self, id: LinkId, peer: PeerName) {
        self.links.by_peer.insert(peer, id);
        if let Some(connected) = self.links.all.get_mut(&id) {
            connected.link.accept(self.now);
        }
    }

    fn refuse(&mut self, id: LinkId, refusal: Refusal) {
        if let Some(connected) = self.links.all.get_mut(&id) {
            connected.link.refuse(refusal);
        }
    }

    fn challenge(&mut self, id: LinkId, old: LinkId) {
        let nonce = self.rng.random_range(1..=u64::MAX);
        if let Some(old) = self.links.all.get_mut(&old).filter(|old| !old.link.is_challenged()) {
            old.link.challenge(nonce, self.now);
        }
        if let Some(connected) = self.links.all.get_mut(&id) {
            connected.waits_for = Some(old);
        }
    }

    /// The old link is alive: whoever waited for it has the same key in another place.
    fn answered_challenge(&mut self, old: LinkId) {
        for id in self.waiting_for(old) {
            self.refuse(id, Refusal::Cloned);
            self.drain(id);
        }
    }

    fn waiting_for(&self, old: LinkId) -> Vec<LinkId> {
        self.links.all.iter().filter(|(_, c)| c.waits_for == Some(old)).map(|(id, _)| *id).collect()
    }

    /// Both sides accepted: the peer is a neighbour.
    fn linked(&mut self, id: LinkId) {
        let Some(connected) = self.links.all.get(&id) else { return };
        let (Some(peer), remote) = (connected.peer, connected.remote) else { return };
        let line = format!("linked with {peer}({}) at {remote}", connected.nickname());
        self.links.refused.remove(&remote.ip());
        self.dialer.connected(peer);
        self.open_path(id);
        self.refresh_record();
        self.tell.link_up(self.me, peer);
        self.addresses.reach_changed = true;
        self.log(Level::Info, line);
    }

    fn message(&mut self, id: LinkId, message: Message) {
        let Some(peer) = self.links.all.get(&id).and_then(|connected| connected.peer) else { return };
        let result = match message {
            Message::Gossip { channel, body } => self.told(peer, channel, &body),
            Message::Letter(letter) => {
                self.letter(peer, letter);
                Ok(())
            }
            message => self.key_message(id, &message),
        };
        if let Err(refusal) = result {
            self.refuse(id, refusal);
        }
    }

    fn ended(&mut self, id: LinkId, why: Why) {
        let Some(mut connected) = self.links.all.remove(&id) else { return };
        if let Why::Told(_) = why {
            let bytes = connected.link.take_output();
            if !bytes.is_empty() {
                self.out.push_back(Output::Send { link: id, bytes });
            }
            self.out.push_back(Output::Close { link: id });
        }
        let was_up = connected.tended.is_some();
        let vxlan = connected.tended.as_ref().and_then(|tended| tended.vxlan_address());
        self.keep_path(&mut connected, why.refusal());
        let successor = connected.peer.and_then(|peer| self.links.by_peer.get(&peer)).is_some_and(|link| *link != id);
        let text = why.text();
        if let Some(peer) = connected.peer.filter(|_| !successor) {
            self.links.by_peer.remove(&peer);
            self.dialer.lost(peer, &text, self.now);
        }
        if was_up {
            connected.tended.iter().for_each(|tended| tended.path.set_ready(false));
            connected.peer.iter().for_each(|peer| self.neighbour_left(*peer, vxlan));
            self.published.fib_changed = true;
            self.addresses.reach_changed = true;
            connected.peer.iter().for_each(|peer| self.tell.link_down(*peer));
            self.refresh_record();
        }
        let news = self.dial_ended(&connected, &why, &text);
        self.tell_end(&connected, &why, was_up, news);
        for waiting in self.waiting_for(id) {
            if let Some(waiting) = self.links.all.get_mut(&waiting) {
                waiting.waits_for = None;
            }
            self.decide(waiting);
            self.drain(waiting);
        }
    }

    /// Tells the dialer; gives the target if the reason is another one than the last time.
    fn dial_ended(&mut self, connected: &Connected, why: &Why, text: &str) -> Option<Target> {
        let dial = connected.dial?;
        if why.is_final() { self.dialer.never(dial, text, self.now) } else { self.dialer.failed(dial, text, self.now) }
    }

    /// One line for people, and a line in the status for strangers.
    fn tell_end(&mut self, connected: &Connected, why: &Why, was_up: bool, news: Option<Target>) {
        let (remote, text) = (connected.remote, why.text());
        let peer = connected.peer.map(|peer| (peer, connected.nickname()));
        let whom = peer.as_ref().map_or(String::new(), |(peer, nickname)| format!(" with {peer}({nickname})"));
        match why.refusal() {
            Some(Refusal::AlreadyConnected) => {}
            Some(Refusal::Stopping) if self.stopping => {}
            _ if was_up => self.log(Level::Info, format!("link{whom} at {remote} ended: {text}")),
            Some(Refusal::Ourselves) => {
                if let Some(target) = news {
                    self.log(Level::Warn, format!("{target} is this peer itself: it is not dialled again"));
                }
            }
            _ if connected.dial.is_some() => {
                if let Some(target) = news {
                    self.log(Level::Warn, format!("no link{whom} at {target}: {text}"));
                }
            }
            _ => {
                self.remember_refused(remote, peer, &text);
                self.log_about(remote.ip(), format!("no link{whom} from {remote}: {text}"));
            }
        }
    }

    fn remember_refused(&mut self, remote: SocketAddr, peer: Option<(PeerName, Nickname)>, why: &str) {
        let refused = &mut self.links.refused;
        if refused.contains_key(&remote.ip()) || refused.len() < MAX_REFUSED {
            refused.insert(remote.ip(), Refused { remote, peer, why: why.to_string(), at: self.now });
        }
    }

    /// A line that somebody far away can cause at will.
    pub(super) fn log_about(&mut self, remote: IpAddr, line: String) {
        match self.journal.may_tell(remote, self.now) {
            Some(0) => self.log(Level::Warn, line),
            Some(hidden) => self.log(Level::Warn, format!("{line} ({hidden} such lines were left out)")),
            None => {}
        }
    }

    /// Time passed for all links and paths.
    pub(super) fn tend_links(&mut self) {
        let due = |connected: &Connected| {
            connected.link.is_closed() || connected.deadline(self.now).is_some_and(|at| at <= self.now)
        };
        let ids: Vec<LinkId> =
            self.links.all.iter().filter(|(_, connected)| due(connected)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(connected) = self.links.all.get_mut(&id) else { continue };
            connected.link.handle(self.now);
            if connected.link.failed_challenge(self.now) {
                connected.link.refuse(Refusal::Timeout);
            }
            self.tend_path(id);
            self.drain(id);
        }
    }

    /// Hands out what the links have to say.
    pub(super) fn flush_links(&mut self) {
        for (id, connected) in &mut self.links.all {
            let bytes = connected.link.take_output();
            if !bytes.is_empty() {
                self.out.push_back(Output::Send { link: *id, bytes });
            }
        }
    }

    /// When `tend_links` has something to do.
    pub(super) fn links_deadline(&self) -> Option<Instant> {
        self.links.all.values().filter_map(|connected| connected.deadline(self.now)).min()
    }

    /// Asks the driver for the dials that are due.
    pub(super) fn dial_due(&mut self) {
        if self.stopping {
            return;
        }
        while let Some((dial, target)) = self.dialer.poll(self.now) {
            let default_port = self.config.port;
            self.out.push_back(Output::Dial { dial: DialId(dial), target, default_port });
        }
    }

    /// Says goodbye to everybody.
    pub(super) fn close_links(&mut self) {
        let ids: Vec<LinkId> = self.links.all.keys().copied().collect();
        for id in ids {
            self.refuse(id, Refusal::Stopping);
            self.drain(id);
        }
    }
}
