//! May this port send this frame?
//!
//! Owns the rules by which an attachment speaks only for itself. What a frame claims is read by `wire::frame::source`;
//! which MACs and addresses were given to whom stands in the snapshot's permits; what becomes of a refused frame is
//! counted by `Plane`. Membership in a network is the port itself: there is one port per network, and the network id
//! of every datagram is that of the port, never a thing that the frame says.
//!
//! A guarded attachment may send from its own MAC, as one of its own addresses, or:
//!
//! ```text
//! ARP     as 0.0.0.0: a probe (RFC 5227)                         the sender's MAC must be the frame's
//! IPv6    as fe80::/64 + EUI-64 of its MAC (RFC 4291, app. A)
//!         as ::, to probe one of its addresses, to solicit routers (RFC 4862) or to report to ff02::16 (RFC 3810)
//!         link-layer options must name the frame's MAC; it may not advertise itself as a router, nor redirect
//! other   an ether type that carries neither IP nor ARP: it claims no address. Tagged frames are refused.
//! ```
//!
//! DHCP's 0.0.0.0 is refused: addresses come from the router. An attachment without guard may send anything but a
//! group address as the source.

use super::counters::Drop;
use super::fib::{NetworkEntry, Permit};
use crate::types::Mac;
use crate::wire::frame::{Frame, Source, source};
use std::net::{IpAddr, Ipv6Addr};

/// Where version 2 listener reports go: ff02::16.
const LISTENER_REPORTS: Mac = Mac([0x33, 0x33, 0, 0, 0, 0x16]);

/// Whether `frame` may come in on the port of `entry`, and why not.
pub fn check(entry: &NetworkEntry, frame: &Frame<'_>) -> Result<(), Drop> {
    let mac = frame.src();
    if mac.is_group() {
        return Err(Drop::GroupSource);
    }
    match entry.permits.get(&mac) {
        Some(permit) if permit.unguarded => Ok(()),
        Some(permit) => check_source(permit, mac, frame),
        None if entry.unguarded => Ok(()),
        None => Err(Drop::GuardMac),
    }
}

/// Whether `frame`, which a peer sent, may go out on the port of `entry`: not in the name of an attachment that is guarded
/// here, for then it was forged, or the attachment exists twice.
pub fn check_arrival(entry: &NetworkEntry, frame: &Frame<'_>) -> Result<(), Drop> {
    let mac = frame.src();
    if mac.is_group() {
        return Err(Drop::GroupSource);
    }
    match entry.permits.get(&mac) {
        Some(permit) if !permit.unguarded => Err(Drop::Impersonated),
        _ => Ok(()),
    }
}

fn check_source(permit: &Permit, mac: Mac, frame: &Frame<'_>) -> Result<(), Drop> {
    match source(frame) {
        Source::None => Ok(()),
        Source::Malformed => Err(Drop::Malformed),
        Source::Tagged => Err(Drop::GuardTagged),
        Source::Neighbour { router: true, .. } => Err(Drop::GuardRouter),
        Source::Arp { mac: sender, .. } if sender != mac => Err(Drop::GuardMac),
        Source::Neighbour { mac: Some(sender), .. } if sender != mac => Err(Drop::GuardMac),
        Source::Arp { ip, .. } => allow(ip.is_unspecified() || owns(permit, mac, ip.into())),
        Source::Ip(IpAddr::V6(ip)) if ip.is_unspecified() => allow(frame.dst() == LISTENER_REPORTS),
        Source::Ip(ip) => allow(owns(permit, mac, ip)),
        Source::Neighbour { ip, claimed, .. } => {
            let target = claimed.is_none_or(|target| owns(permit, mac, target.into()));
            allow(target && (ip.is_unspecified() || owns(permit, mac, ip.into())))
        }
    }
}

fn allow(allowed: bool) -> Result<(), Drop> {
    if allowed { Ok(()) } else { Err(Drop::GuardAddress) }
}

fn owns(permit: &Permit, mac: Mac, ip: IpAddr) -> bool {
    permit.addresses.contains(&ip) || ip == IpAddr::V6(link_local(mac))
}

/// The link-local address that an interface with this MAC makes for itself.
fn link_local(Mac([a, b, c, d, e, f]): Mac) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}
