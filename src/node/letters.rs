//! Letters: messages for peers that may be several links away.
//!
//! Each router splits the receivers by the next hop toward them and hands one copy to each such neighbour, so a letter passes
//! a link once whatever the number of receivers behind it, and nobody remembers what it has seen. A neighbour gets its own
//! over the link to it even before data flows beside that link. A letter without a way, or for a link that is behind, is
//! lost and counted: services repair that themselves.

use super::Node;
use crate::types::PeerName;
use crate::wire::message::{Letter, Message, Service};
use std::collections::BTreeMap;

/// Links that a letter may pass.
const HOPS: u8 = 64;

impl Node {
    /// Sends a letter of ours.
    pub(super) fn write_letter(&mut self, service: Service, to: Vec<PeerName>, body: Vec<u8>) {
        self.hand_on(Letter { service, from: self.me, to, hops: HOPS, body }, None);
    }

    /// A neighbour handed us a letter: ours is taken in, the others' goes on.
    pub(super) fn letter(&mut self, neighbour: PeerName, mut letter: Letter) {
        let receivers = letter.to.len();
        letter.to.retain(|peer| *peer != self.me);
        if letter.to.len() < receivers && letter.from != self.me {
            match letter.service {
                Service::Addresses => self.addresses_told(letter.from, &letter.body),
                Service::Paths => self.path_letter(letter.from, &letter.body),
            }
        }
        letter.hops = letter.hops.saturating_sub(1);
        self.hand_on(letter, Some(neighbour));
    }

    fn hand_on(&mut self, letter: Letter, came_from: Option<PeerName>) {
        let mut ways: BTreeMap<PeerName, Vec<PeerName>> = BTreeMap::new();
        for peer in &letter.to {
            let way = if self.links.up(*peer).is_some() { Some(*peer) } else { self.published.routes.next_hop(*peer) };
            match way.filter(|way| Some(*way) != came_from && letter.hops > 0) {
                Some(way) => ways.entry(way).or_default().push(*peer),
                None => self.addresses.lost = self.addresses.lost.saturating_add(1),
            }
        }
        let Letter { service, from, hops, body, .. } = letter;
        for (way, to) in ways {
            let message = Message::Letter(Letter { service, from, to, hops, body: body.clone() });
            let link = self.links.by_peer.get(&way).and_then(|id| self.links.all.get_mut(id));
            if !link.is_some_and(|connected| connected.link.send_letter(&message)) {
                self.addresses.lost = self.addresses.lost.saturating_add(1);
            }
        }
    }
}
