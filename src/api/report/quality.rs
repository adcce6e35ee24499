//! How good paths are, and why a peer is reached as it is.

use super::{milliseconds, who};
use crate::node::status::{PathStatus, Peer};

/// `loss=0%`, or of which direction it is.
pub(super) fn loss(path: &PathStatus) -> String {
    let [out, back] = [path.loss_out_percent, path.loss_in_percent].map(|percent| format!("{percent:.0}%"));
    if out == back { format!("loss={out}") } else { format!("loss={out}-out,{back}-in") }
}

/// By whom a peer is reached, and why: what that costs, and what its own link would.
pub(super) fn way(peer: &Peer, peers: &[Peer]) -> String {
    let (Some(via), Some(cost)) = (peer.via, peer.cost_us) else { return String::new() };
    let cost = milliseconds(cost.into());
    let relay = peers.iter().find(|relay| relay.name == via).map_or(via.to_string(), |relay| who(via, &relay.nickname));
    match peer.link_cost_us {
        _ if via == peer.name => format!(" - directly, cost={cost}"),
        None => format!(" - by way of {relay}, cost={cost}"),
        Some(link) => format!(" - by way of {relay}, cost={cost}; directly it would be {}", milliseconds(link.into())),
    }
}
