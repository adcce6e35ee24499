//! What every path has in common, with a link beside it or without: heartbeats and checks, and the address of ours that they
//! leave from.
//!
//! A view of the parts of one path, lent for as long as something is sent or taken in. Owns how those are sealed, counted and
//! sent; whose path it is, whether it may move, and what its proof means is its owner's (`paths`, `kept`, `direct`).
//!
//! A host with several addresses answers from the one that it was reached at: a translator or a firewall in between lets nothing
//! else in. The driver tells at which address a probe came in, and is told from which one datagrams for an endpoint leave: for
//! the side that follows the one at which the newest heartbeat came in, for the side that leads the one whose check was
//! answered. Who has one address (of a family) is told nothing and asks for nothing: the kernel's choice is the only one.

use super::Node;
use super::border::Output;
use super::checks::SILENT;
use super::whereabouts::Whereabouts;
use crate::mesh::candidates::{Candidates, Check, Checked};
use crate::mesh::probe::Probe;
use crate::plane::fib::PathId;
use crate::plane::path::Path;
use crate::types::Instant;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Between two alarms of one path.
const ALARM_SPACING: Duration = Duration::from_secs(1);

/// A probe that the data plane opened.
#[derive(Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub path: PathId,
    pub epoch: u16,
    pub from: SocketAddr,
    /// The address of ours that it came to, if the driver was asked to tell.
    pub local: Option<IpAddr>,
    pub body: &'a [u8],
    /// Of the whole datagram, bytes.
    pub size: u16,
    pub at: Instant,
}

/// Where datagrams go.
pub(super) struct Post<'a> {
    pub whereabouts: &'a mut Whereabouts,
    pub out: &'a mut VecDeque<Output>,
    pub now: Instant,
}

/// See the head of this file.
pub(super) struct Leg<'a> {
    pub path: &'a Path,
    pub probe: &'a mut Probe,
    pub candidates: &'a mut Candidates,
    /// The address of ours that its datagrams leave from; nothing: the kernel's choice.
    pub local: &'a mut Option<IpAddr>,
    /// Datagrams that were sealed when that was last looked at: more now, and data flows.
    pub sealed: &'a mut u64,
    pub trouble_at: &'a mut Instant,
    /// What the data plane was told of the MTU, and whether it is the limit.
    pub told_mtu: &'a mut (u16, bool),
}

impl Leg<'_> {
    /// Nothing comes back from where it leads.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.path.endpoint().is_none() || self.probe.is_silent(SILENT, now)
    }

    /// Seals and sends. False: there are no keys.
    pub fn send(&mut self, (from, to): (Option<IpAddr>, SocketAddr), body: &[u8], out: &mut VecDeque<Output>) -> bool {
        let mut bytes = Vec::new();
        let is_sealed = self.path.seal_probe(body, &mut bytes);
        if is_sealed {
            *self.sealed += 1;
            out.push_back(Output::Datagram { from, to, bytes });
        }
        is_sealed
    }

    /// Sends the checks that are due; all of them are, once a path falls silent.
    pub fn send_checks(&mut self, post: &mut Post<'_>) {
        let now = post.now;
        if self.is_silent(now) && now - *self.trouble_at >= ALARM_SPACING {
            *self.trouble_at = now;
            self.candidates.trouble(now);
        }
        while let Some(Check { to, from, body }) = self.candidates.poll(&post.whereabouts.ours, now) {
            if post.whereabouts.restraint.allows(to.ip(), now) && self.send((from, to), &body, post.out) {
                self.probe.sent_aside();
            }
        }
    }

    /// Sends the heartbeats that are due, if it leads anywhere.
    pub fn send_probes(&mut self, post: &mut Post<'_>) {
        let Some(to) = self.path.endpoint() else { return };
        while let Some(body) = self.probe.poll(post.now) {
            self.send((*self.local, to), &body, post.out);
        }
    }

    /// Frames went out since this was last called: its probes are to know.
    pub fn saw_data(&mut self, now: Instant) -> bool {
        let sealed = self.path.counter();
        let sent = sealed != std::mem::replace(self.sealed, sealed);
        if sent {
            self.probe.data_flows(now);
        }
        sent
    }

    /// Takes in a check, and answers it from where it came to if it asks. Else: what it brought about.
    pub fn checked(&mut self, came: &Arrival<'_>, post: &mut Post<'_>) -> Option<Checked> {
        let brought = self.candidates.handle(came.body, came.from, came.at).ok()?;
        if brought == Checked::Leave {
            return Some(brought);
        }
        // Neither questions nor answers need to arrive: one from an address of ours that leads nowhere is no loss of the path's.
        self.probe.came_aside();
        let Checked::Asked(answer) = brought else { return Some(brought) };
        if self.send((came.local, came.from), &answer, post.out) {
            self.probe.sent_aside();
        }
        None
    }

    /// Leads it to the best address, from the best of ours. Returns where it leads now if that is another address.
    pub fn choose(&mut self, post: &mut Post<'_>) -> Option<SocketAddr> {
        let now = post.now;
        let (current, silent) = (self.path.endpoint(), self.is_silent(now));
        let best = self.candidates.best(current, silent, now)?;
        let from = self.candidates.reached_from(best);
        if Some(best) != current {
            self.lead_to(best, from, post);
            return Some(best);
        }
        if silent && from != *self.local && self.candidates.is_heard(best, now) {
            self.leave_from(from, post);
            self.probe.address_changed(now);
        }
        None
    }

    /// From now on it leads there, and leaves from that address of ours.
    pub fn lead_to(&mut self, to: SocketAddr, from: Option<IpAddr>, post: &mut Post<'_>) {
        self.path.set_endpoint(to);
        self.probe.address_changed(post.now);
        post.whereabouts.sources_changed = true;
        self.leave_from(from, post);
    }

    /// From now on its datagrams leave from that address of ours.
    pub fn leave_from(&mut self, from: Option<IpAddr>, post: &mut Post<'_>) {
        if from != std::mem::replace(self.local, from) {
            post.whereabouts.sources_changed = true;
        }
    }

    /// Tells the data plane what was found out of the MTU. Returns whether that is news.
    pub fn tell_mtu(&mut self) -> bool {
        let found = (self.probe.mtu(), self.probe.is_settled());
        if found == std::mem::replace(self.told_mtu, found) {
            return false;
        }
        match found {
            (mtu, true) => self.path.set_mtu(mtu),
            (mtu, false) => self.path.set_mtu_so_far(mtu),
        }
        true
    }
}

impl Node {
    fn legs(&mut self) -> impl Iterator<Item = Leg<'_>> {
        let linked = self.links.all.values_mut().filter_map(|connected| connected.tended.as_mut());
        let kept = self.kept.0.values_mut().map(|kept| &mut kept.tended);
        let direct = self.directs.paths.values_mut().map(|direct| direct.leg());
        linked.chain(kept).map(|tended| tended.leg()).chain(direct)
    }

    /// This machine has other addresses: what left from one that is gone is the kernel's choice again.
    pub(super) fn unpin(&mut self) {
        let pinned: BTreeSet<IpAddr> = self.legs().filter_map(|leg| *leg.local).collect();
        let gone: Vec<IpAddr> = pinned.into_iter().filter(|ip| !self.may_leave_from(*ip)).collect();
        for leg in self.legs() {
            leg.local.take_if(|local| gone.contains(local));
        }
        self.whereabouts.sources_changed = true;
    }

    /// Tells the driver what leaves from which address of ours, if that is not as it was.
    pub(super) fn publish_sources(&mut self) {
        if !std::mem::take(&mut self.whereabouts.sources_changed) {
            return;
        }
        let sources: BTreeMap<SocketAddr, IpAddr> =
            self.legs().filter_map(|leg| Some((leg.path.endpoint()?, (*leg.local)?))).collect();
        if sources != self.whereabouts.sources {
            self.whereabouts.sources = sources.clone();
            self.out.push_back(Output::Sources(sources));
        }
    }
}
