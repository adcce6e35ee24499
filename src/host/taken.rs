//! Who has a UDP port of this host that we would have.
//!
//! Owns the words by which every refusal names the holder and says what to do: a VXLAN device (the kernel holds its socket, so
//! no process does), found by netlink, or a process, found by /proc (`io::holder`). Changes nothing.

use super::names;
use crate::io::holder;
use crate::io::netlink::{Link, Netlink};
use crate::io::vxlan::Vxlan;

/// What to do instead where a port is taken that a VTEP sends to.
pub(super) const FOR_VTEP: &str = "have the VTEP send to another port and give it with --local-port";
/// What to do instead where the port is taken by which peers speak VXLAN.
pub(super) const FOR_PEERS: &str = "give the whole mesh another --port, of which it is the next one";

/// Why UDP `port` cannot be had, as one line: who has it, and what to do, `instead` of ending that.
pub(super) async fn taken(netlink: &Netlink, port: u16, instead: &str) -> String {
    let devices = netlink.vxlans().await.unwrap_or_default();
    // The socket is there while the device is up.
    let holding = |(link, vxlan): &&(Link, Vxlan)| vxlan.port == port && link.up;
    let (ours, others): (Vec<_>, Vec<_>) =
        devices.iter().filter(holding).partition(|(link, _)| names::is_vxlan(&link.name));
    if let Some((link, vxlan)) = others.first() {
        return by_device(port, link, vxlan, instead);
    }
    if !ours.is_empty() {
        return format!("UDP port {port} is the one by which peers speak VXLAN: {instead}");
    }
    match holder::of_udp_port(port) {
        Some(who) => format!("UDP port {port} is in use by {who}: end it, or {instead}"),
        None => format!(
            "UDP port {port} is in use by the kernel, for no VXLAN device of this network namespace, or by a process that is \
             hidden from here: end that, or {instead}"
        ),
    }
}

/// The same where a device is known to have it.
pub(super) fn by_device(port: u16, link: &Link, vxlan: &Vxlan, instead: &str) -> String {
    let (name, vni) = (&link.name, vxlan.vni);
    format!(
        "UDP port {port} is in use by the VXLAN device {name} (VNI {vni}) of somebody else: delete it (ip link delete {name}), or \
         {instead}"
    )
}

/// The same for the port of the mesh itself, before there is a router. Must be called within a runtime.
pub async fn mesh_port_taken(port: u16) -> String {
    let instead = "give the whole mesh another --port";
    match Netlink::open() {
        Ok(netlink) => taken(&netlink, port, instead).await,
        Err(_) => format!("UDP port {port} is in use: {instead}"),
    }
}
