//! At which of its addresses a linked peer answers: `mesh::candidates` beside each link's path.
//!
//! A path leads to the link's address first. All others that the peer tells of, or that its neighbours see, are checked; the
//! side that dialled moves the path to a nearer one, or to any that answers once the one in use falls silent, and the other
//! side follows its heartbeats.

use super::border::LinkId;
use super::leg::{Arrival, Post};
use super::paths::Tended;
use super::{Node, NodeConfig};
use crate::crypto::session::Role;
use crate::mesh::candidates::Checked;
use crate::types::Instant;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Nothing came back for this long: nearly twice what lies between two answers.
pub(super) const SILENT: Duration = Duration::from_millis(1750);

impl Tended {
    /// It comes from another address of a host that is known to have several: whoever leads looks for the best of them itself.
    pub fn is_aside(&self, from: SocketAddr) -> bool {
        self.candidates.is_told(from)
    }

    /// It may outlive its link.
    pub fn may_be_kept(&self, now: Instant) -> bool {
        self.proven && self.probe.proven(now)
    }

    /// The newest heartbeat came: the path leads to where it came from, unless it `stays`, and the side that does not lead
    /// leaves from where it was reached. Returns whether it moved; VXLAN is proven anew at another address.
    pub fn follow(&mut self, came: &Arrival<'_>, leads: bool, stays: bool, post: &mut Post<'_>) -> bool {
        let before = self.path.endpoint();
        let moves = before != Some(came.from) && !stays;
        let mut leg = self.leg();
        if moves {
            leg.lead_to(came.from, came.local, post);
        } else if !leads {
            leg.leave_from(came.local, post);
        }
        self.vxlan_follows(before, post.now);
        moves
    }

    /// It led there before. Who sends by VXLAN is known by its address alone: at another one nothing is proven.
    fn vxlan_follows(&mut self, before: Option<SocketAddr>, now: Instant) {
        let ip = |address: Option<SocketAddr>| address.map(|address| address.ip().to_canonical());
        if let Some(vxlan) = self.vxlan.as_mut().filter(|_| ip(before) != ip(self.path.endpoint())) {
            vxlan.moved(now);
        }
    }

    /// Whether it may lead to that address. What is in clear because both ends trust each other's addresses is for those that are
    /// trusted; if nothing is encrypted, all are alike.
    pub fn may_lead_to(&self, to: IpAddr, config: &NodeConfig) -> bool {
        self.path.is_sealed() || config.psk.is_none() || config.trusts(to)
    }
}

impl Node {
    /// Where the mesh says that a linked peer is.
    pub(super) fn tell_candidates(&mut self, id: LinkId) {
        let Some(peer) = self.links.all.get(&id).and_then(|connected| connected.peer) else { return };
        let addresses = self.addresses_of(peer, &[]);
        if let Some(tended) = self.links.all.get_mut(&id).and_then(|connected| connected.tended.as_mut()) {
            tended.candidates.tell(&addresses, self.now);
        }
    }

    /// The topology changed: so may addresses.
    pub(super) fn review_candidates(&mut self) {
        let ids: Vec<LinkId> = self.links.by_peer.values().copied().collect();
        ids.into_iter().for_each(|id| self.tell_candidates(id));
    }

    /// Sends the checks of a link's path that are due.
    pub(super) fn send_checks(&mut self, id: LinkId) {
        let tended = self.links.all.get_mut(&id).and_then(|connected| connected.tended.as_mut());
        let Some(tended) = tended.filter(|tended| tended.rekey.active() != 0) else { return };
        let mut post = Post { whereabouts: &mut self.whereabouts, out: &mut self.out, now: self.now };
        tended.leg().send_checks(&mut post);
    }

    /// A check of a link's path was opened.
    pub(super) fn checked(&mut self, id: LinkId, came: &Arrival<'_>) {
        let Some(connected) = self.links.all.get_mut(&id) else { return };
        let (leads, nickname, peer) = (connected.link.role() == Role::Dialer, connected.nickname(), connected.peer);
        let Some(tended) = connected.tended.as_mut() else { return };
        // Whether the other end trusts the address that we would leave by is not known: what is in clear for trust stays.
        let may_move = leads && (tended.path.is_sealed() || self.config.psk.is_none());
        let before = tended.path.endpoint();
        let mut post = Post { whereabouts: &mut self.whereabouts, out: &mut self.out, now: self.now };
        let mut leg = tended.leg();
        if let Some(Checked::Answered(_)) = leg.checked(came, &mut post)
            && may_move
            && let Some(best) = leg.choose(&mut post)
        {
            tended.vxlan_follows(before, self.now);
            let peer = peer.unwrap_or_default();
            self.log_about(best.ip(), format!("path to {peer}({nickname}) leads to {best} now"));
        }
        self.send_checks(id);
        self.send_probes(id);
    }
}
