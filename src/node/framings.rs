//! VXLAN between peers.

use super::Node;
use super::border::HostOp;
use crate::types::{Instant, Mac, NetId, ShortId};
use std::net::SocketAddr;

// No path has VXLAN yet: nobody is asked to send what these tell of.
impl Node {
    pub(super) fn beat(&mut self, _: SocketAddr, _: Vec<u8>, _: u16, _: Instant) {}

    pub(super) fn offload_offered(&mut self, _: NetId, _: Mac, _: ShortId) {}

    pub(super) fn offload_lost(&mut self, _: Option<NetId>) {}
}

/// What could not be done, for the log.
pub(super) fn what(op: &HostOp) -> String {
    match op {
        HostOp::OpenVxlan { .. } => "VXLAN between peers could not be opened".to_string(),
        HostOp::CloseVxlan => "VXLAN between peers could not be closed".to_string(),
        HostOp::VxlanPeers(_) => "the peers that may send VXLAN could not be told to the kernel".to_string(),
        HostOp::OpenOffload { network, .. } => format!("network {network} gets no VXLAN device"),
        HostOp::CloseOffload { id } => format!("the VXLAN device of network {id} could not be taken off"),
        HostOp::Offload { id, mac, .. } => format!("{mac} on network {id}: its entry could not be changed"),
        _ => "this machine could not be changed".to_string(),
    }
}
