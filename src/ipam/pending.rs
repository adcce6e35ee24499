//! Requests that wait: what each is waiting for, in one line, and whom it asks meanwhile.
//!
//! Every wish ends in exactly one answer, unless it is cancelled. A wish that cannot be served from here first goes to the
//! pool (a `Want` or `Take` in our request), then from owner to owner that has space there; only when all of them can be
//! asked and have none is a subnet exhausted.

use super::messages::{Message, Want};
use super::ring::Standing;
use super::space::{Run, ip, position};
use super::{Granted, Ipam};
use crate::types::{HostAddress, Instant, Network, PeerName};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long one owner is given to answer.
const DONOR: Duration = Duration::from_secs(2);
/// After how long owners that had nothing are asked again.
const REFRESH: Duration = Duration::from_secs(10);
/// Most requests that wait.
const PENDING_MAX: usize = 65_536;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Net {
        key: String,
        network: Network,
    },
    Address {
        key: String,
        address: HostAddress,
    },
    Prime,
    /// The peer, and the start of it that is said to be dead.
    Remove {
        peer: PeerName,
        boot: Option<u64>,
    },
    Retire,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Pending {
    pub wish: Wish,
    pub since: Instant,
    pub why: String,
    denied: BTreeSet<PeerName>,
    silent: BTreeSet<PeerName>,
    asked: Option<(PeerName, Instant)>,
    refresh: Instant,
}

enum Verdict {
    Answer(Result<Granted, String>),
    Wait(String),
}

impl Pending {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asked
            .map(|(_, at)| at)
            .or_else(|| (!self.denied.is_empty() || !self.silent.is_empty()).then_some(self.refresh))
    }

    /// Gives up on an owner that does not answer, and forgets after a while who had nothing.
    fn expire(&mut self, now: Instant) {
        if let Some((peer, _)) = self.asked.filter(|(_, until)| now >= *until) {
            self.silent.insert(peer);
            self.asked = None;
        }
        if now >= self.refresh {
            self.denied.clear();
            self.silent.clear();
            self.refresh = now + REFRESH;
        }
    }

    /// The exact position that it waits for.
    pub(super) fn claims(&self) -> Option<u128> {
        if let Wish::Address { address, .. } = &self.wish { Some(position(address.ip())) } else { None }
    }

    fn wants(&self) -> Option<Want> {
        match &self.wish {
            Wish::Net { network, .. } => Some(Want::Net(*network)),
            Wish::Address { address, .. } => Some(Want::At(position(address.ip()))),
            _ => None,
        }
    }
}

impl Ipam {
    /// Takes a request in.
    pub(super) fn wish(&mut self, request: u64, wish: Wish, now: Instant) {
        if self.pending.len() >= PENDING_MAX {
            return self
                .answer(request, Err(format!("{PENDING_MAX} requests for addresses wait already: try again later")));
        }
        if wish == Wish::Retire {
            self.asking.retiring = true;
        }
        let (denied, silent) = (BTreeSet::new(), BTreeSet::new());
        let why = String::new();
        self.pending.insert(request, Pending { wish, since: now, why, denied, silent, asked: None, refresh: now });
        self.settle(now);
    }

    /// Answers whatever can be, and says of the rest why not.
    pub(super) fn answer_what_can_be(&mut self, now: Instant) {
        let requests: Vec<u64> = self.pending.keys().copied().collect();
        for request in requests {
            let Some(pending) = self.pending.get_mut(&request) else { continue };
            pending.expire(now);
            let wish = pending.wish.clone();
            let verdict = match &wish {
                Wish::Net { key, network } => self.try_network(request, key, *network, now),
                Wish::Address { key, address } => self.try_address(request, key, *address, now),
                Wish::Prime => self.try_prime(),
                Wish::Remove { peer, boot } => self.try_remove(*peer, *boot),
                Wish::Retire => self.try_retire(),
            };
            match verdict {
                Verdict::Answer(result) => {
                    self.pending.remove(&request);
                    self.answer(request, result);
                }
                Verdict::Wait(why) => self.wait(request, why),
            }
        }
    }

    fn wait(&mut self, request: u64, why: String) {
        if let Some(pending) = self.pending.get_mut(&request).filter(|pending| pending.why != why) {
            pending.why = why.clone();
            self.out.push_back(super::IpamOutput::Waiting { request, why });
        }
    }

    fn try_network(&mut self, request: u64, key: &str, network: Network, now: Instant) -> Verdict {
        if let Some(address) = self.existing(key, network) {
            return Verdict::Answer(Ok(Granted::Address(address)));
        }
        let Some(window) = Run::usable(network) else {
            return Verdict::Answer(Err(format!(
                "{network} is too small: a subnet has at least 4 addresses (/30, /126)"
            )));
        };
        if !self.config.ranges.iter().any(|range| Run::of(*range).meet(window).is_some()) {
            let why = format!("{network} lies outside of the allocation range {}", self.ranges_text());
            return Verdict::Answer(Err(why));
        }
        if let Some(why) = self.not_yet() {
            return Verdict::Wait(why);
        }
        if let Some(at) = self.holdings.lowest(network) {
            return Verdict::Answer(self.hand_out(key, at, network.cidr().prefix_len()));
        }
        if self.ring().is_some_and(|ring| ring.pool_size(window) > 0) {
            return Verdict::Wait(self.agreement(&format!("space in {network}")));
        }
        self.ask_owners(request, window, now)
    }

    fn try_address(&mut self, request: u64, key: &str, address: HostAddress, now: Instant) -> Verdict {
        let at = position(address.ip());
        if let Some(holder) = self.holdings.used.get(&at) {
            if holder != key {
                return Verdict::Answer(Err(format!(
                    "{} is already held by {holder}: release it there first",
                    address.ip()
                )));
            }
            if self.held(key).contains(&address) {
                return Verdict::Answer(Ok(Granted::Address(address)));
            }
            return Verdict::Answer(Err(format!("{key} holds {} already with another prefix length", address.ip())));
        }
        if !self.spans(address.ip()) {
            return Verdict::Answer(self.hand_out(key, at, address.prefix_len()));
        }
        if let Some(why) = self.not_yet() {
            return Verdict::Wait(why);
        }
        if self.holdings.all_free(Run::one(at)) {
            return Verdict::Answer(self.hand_out(key, at, address.prefix_len()));
        }
        match self.ring().and_then(|ring| ring.owner(at)) {
            None => Verdict::Wait(self.agreement(&address.ip().to_string())),
            Some(owner) if owner == self.owner() => {
                Verdict::Wait(format!("{} is being given to another peer", address.ip()))
            }
            Some(_) => self.ask_owners(request, Run::one(at), now),
        }
    }

    /// Asks the owners of space in `window`, one after the other.
    fn ask_owners(&mut self, request: u64, window: Run, now: Instant) -> Verdict {
        let Some(ring) = self.ring().cloned() else { return Verdict::Wait(String::new()) };
        let me = self.owner();
        let owners: BTreeSet<_> = ring.blocks_in(window).map(|(_, owner)| owner).filter(|owner| *owner != me).collect();
        let standing = |peer: &PeerName| ring.members.get(peer).copied();
        let (able, unable): (Vec<_>, Vec<_>) = owners.into_iter().partition(|owner| {
            let current = standing(&owner.peer).is_some_and(|m| m.life == owner.life && m.standing == Standing::Voting);
            current && self.near.contains(&owner.peer)
        });
        let life = self.state.life;
        let Some(pending) = self.pending.get_mut(&request) else { return Verdict::Wait(String::new()) };
        if let Some((peer, _)) = pending.asked {
            if able.iter().any(|owner| owner.peer == peer) && !pending.denied.contains(&peer) {
                return Verdict::Wait(format!("asked {peer} for space"));
            }
            pending.asked = None;
        }
        let tried = |peer: &PeerName| pending.denied.contains(peer) || pending.silent.contains(peer);
        let next = able.iter().map(|owner| owner.peer).find(|peer| !tried(peer));
        if let (Some(peer), Some(want)) = (next, pending.wants()) {
            pending.asked = Some((peer, now + DONOR));
            self.tell(peer, &Message::Need { want, life });
            return Verdict::Wait(format!("asked {peer} for space"));
        }
        let silent = able.iter().map(|owner| owner.peer).find(|peer| pending.silent.contains(peer));
        let exact = pending.claims();
        self.out_of_space(
            window,
            exact,
            unable.first().map(|owner| owner.peer).or(silent),
            able.first().map(|o| o.peer),
        )
    }

    /// What to say when every owner was asked: `unasked` did not answer or cannot be reached, the others have nothing.
    fn out_of_space(
        &self,
        window: Run,
        exact: Option<u128>,
        unasked: Option<PeerName>,
        denied: Option<PeerName>,
    ) -> Verdict {
        let dead = |who| format!("if it is dead, run `rnet rmpeer {who}`");
        match (exact.map(ip), unasked) {
            (Some(ip), Some(who)) => {
                Verdict::Wait(format!("{ip} is owned by {who}, which does not answer: {}", dead(who)))
            }
            (None, Some(who)) => Verdict::Wait(format!(
                "nothing is free within reach; {who} owns some and does not answer: {}",
                dead(who)
            )),
            (Some(ip), None) => Verdict::Answer(Err(match denied {
                Some(owner) => format!("{ip} is owned by other peer {owner}, where it is in use"),
                None => format!("{ip} cannot be had"),
            })),
            (None, None) => Verdict::Answer(Err(format!(
                "no address is left from {} to {}: release some, or use a larger subnet",
                ip(window.start),
                ip(window.last)
            ))),
        }
    }

    fn try_prime(&self) -> Verdict {
        let ready = self.default_subnet().is_some_and(|network| self.holdings.lowest(network).is_some());
        match self.not_yet() {
            Some(why) => Verdict::Wait(why),
            None if ready => Verdict::Answer(Ok(Granted::Done("addresses are ready".into()))),
            None => Verdict::Wait(self.agreement("space in the default subnet")),
        }
    }

    fn try_remove(&self, peer: PeerName, boot: Option<u64>) -> Verdict {
        let done = |text: String| Verdict::Answer(Ok(Granted::Done(text)));
        let Some(ring) = self.ring() else {
            return Verdict::Answer(Err("no address space has been founded yet".into()));
        };
        let owns = ring.blocks.values().any(|(_, owner)| owner.peer == peer);
        let stands = ring.members.get(&peer).is_some_and(|m| m.standing != Standing::Removed);
        if peer == self.config.me {
            return Verdict::Answer(Err(format!("{peer} is this host: use `rnet reset` to give its addresses away")));
        }
        if !stands && !owns {
            return done(format!("{peer} has no addresses"));
        }
        if boot.is_some() && stands && self.boot_of(peer) != boot {
            return Verdict::Answer(Err(format!("{peer} has come back meanwhile: it was not removed")));
        }
        let life = ring.members.get(&peer).map(|m| m.life);
        let older = ring.blocks.values().any(|(_, owner)| owner.peer == peer && Some(owner.life) != life);
        if stands && self.near.contains(&peer) && !older {
            return Verdict::Answer(Err(format!("{peer} is alive and within reach: run `rnet reset` there")));
        }
        Verdict::Wait(self.agreement(&format!("the removal of {peer}")))
    }

    fn try_retire(&self) -> Verdict {
        let done = |text: &str| Verdict::Answer(Ok(Granted::Done(text.into())));
        let Some(ring) = self.ring() else { return done("there is no address space to give back") };
        let me = self.owner();
        let gone = ring.members.get(&me.peer).is_none_or(|m| m.life != me.life || m.standing == Standing::Removed);
        let alone = ring.voters().all(|voter| voter == me.peer);
        if gone || alone {
            return done("the addresses of this host were given back");
        }
        Verdict::Wait(self.agreement("that this host leaves"))
    }

    /// Why nothing can be handed out here yet.
    pub(super) fn not_yet(&self) -> Option<String> {
        let Some(ring) = self.ring() else { return Some(self.founding_text()) };
        if self.asking.retiring {
            return Some("this host has given its addresses back".into());
        }
        if ring.moving.is_some() {
            return Some("this address space is being joined with another one".into());
        }
        (!self.counted_in()).then(|| self.agreement("that this host is counted in after its start"))
    }

    /// That something has to be agreed, and who is missing if it cannot be.
    pub(super) fn agreement(&self, what: &str) -> String {
        let Some(ring) = self.ring() else { return self.founding_text() };
        let dead = self.named_dead();
        let voters: Vec<PeerName> = ring.voters().filter(|v| !dead.contains(v)).collect();
        let reach = voters.iter().filter(|v| self.near.contains(v) || **v == self.config.me).count();
        let quorum = voters.len() / 2 + 1;
        if reach >= quorum {
            return format!("{what} is being agreed");
        }
        let missing = voters.iter().filter(|v| !self.near.contains(v) && **v != self.config.me).take(8);
        let missing: Vec<String> = missing.map(PeerName::to_string).collect();
        format!(
            "{what} needs {quorum} of {} members and {reach} are within reach: wait for one of {}, or run `rnet rmpeer` for those that are dead",
            voters.len(),
            missing.join(", ")
        )
    }

    /// An owner has nothing to give.
    pub(super) fn hear_deny(&mut self, from: PeerName, want: Want) {
        for pending in self.pending.values_mut().filter(|pending| pending.wants() == Some(want)) {
            pending.denied.insert(from);
        }
    }

    /// The space, for people.
    pub(super) fn ranges_text(&self) -> String {
        self.config.ranges.iter().map(Network::to_string).collect::<Vec<_>>().join(" ")
    }
}
