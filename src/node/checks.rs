//! At which of its addresses a linked peer answers: `mesh::candidates` beside each link's path.
//!
//! A path leads to the link's address first. All others that the peer tells of, or that its neighbours see, are checked; the
//! side that dialled moves the path to a nearer one, or to any that answers once the one in use falls silent, and the other
//! side follows its heartbeats.

use super::Node;
use super::border::{LinkId, Output};
use super::paths::Tended;
use crate::crypto::session::Role;
use crate::mesh::candidates::Checked;
use crate::types::Instant;
use std::net::SocketAddr;
use std::time::Duration;

/// Nothing came back for this long: nearly twice what lies between two answers.
pub(super) const SILENT: Duration = Duration::from_millis(1750);
/// Between two alarms of one path.
const ALARM_SPACING: Duration = Duration::from_secs(1);

impl Tended {
    /// It comes from another address of a host that is known to have several: whoever leads looks for the best of them itself.
    pub fn is_aside(&self, from: SocketAddr) -> bool {
        self.candidates.is_told(from)
    }

    /// It may outlive its link. What VXLAN carries is held otherwise (`holding`).
    pub fn may_be_kept(&self, now: Instant) -> bool {
        self.proven && self.probe.proven(now) && self.vxlan.is_none()
    }

    fn alarm(&mut self, now: Instant) {
        if self.probe.is_silent(SILENT, now) && now - self.trouble_at >= ALARM_SPACING {
            self.trouble_at = now;
            self.candidates.trouble(now);
        }
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
        let now = self.now;
        let Some(tended) = self.links.all.get_mut(&id).and_then(|connected| connected.tended.as_mut()) else { return };
        if tended.rekey.active() == 0 {
            return;
        }
        tended.alarm(now);
        while let Some((to, body)) = tended.candidates.poll(now) {
            let mut bytes = Vec::new();
            if self.directs.restraint.allows(to.ip(), now) && tended.path.seal_probe(&body, &mut bytes) {
                tended.sealed += 1;
                tended.probe.sent_aside();
                self.out.push_back(Output::Datagram { to, bytes });
            }
        }
    }

    /// A check of a link's path was opened.
    pub(super) fn checked(&mut self, id: LinkId, body: &[u8], from: SocketAddr) {
        let now = self.now;
        let encrypts = self.config.psk.is_some();
        let Some(connected) = self.links.all.get_mut(&id) else { return };
        let (leads, nickname, peer) = (connected.link.role() == Role::Dialer, connected.nickname(), connected.peer);
        let Some(tended) = connected.tended.as_mut() else { return };
        match tended.candidates.handle(body, from, now) {
            Ok(Checked::Asked(answer)) => {
                tended.probe.came_aside();
                let mut bytes = Vec::new();
                if tended.path.seal_probe(&answer, &mut bytes) {
                    tended.sealed += 1;
                    self.out.push_back(Output::Datagram { to: from, bytes });
                }
            }
            // What is in clear because both ends trust an address stays at that one.
            Ok(Checked::Answered(_)) if leads && tended.vxlan.is_none() && tended.path.is_sealed() == encrypts => {
                let current = tended.path.endpoint();
                let silent = tended.probe.is_silent(SILENT, now);
                let best = tended.candidates.best(current, silent, now).filter(|best| Some(*best) != current);
                if let Some(best) = best {
                    tended.path.set_endpoint(best);
                    tended.probe.address_changed(now);
                    let peer = peer.unwrap_or_default();
                    self.log_about(best.ip(), format!("path to {peer}({nickname}) leads to {best} now"));
                }
            }
            Ok(_) | Err(_) => {}
        }
        self.send_checks(id);
        self.send_probes(id);
    }
}
