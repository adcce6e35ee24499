//! What switching and the port guard need of an Ethernet frame.
//!
//! Owns: the fourteen bytes of the header, and the identity that a frame claims at layer 3. Does not own: whether that
//! identity may be claimed (`plane::guard`), nor where the frame goes (`plane::switch`). The header is etherparse's
//! `Ethernet2Slice`, which costs nothing; the rest is looked at only when the guard asks.
//!
//! ```text
//! 0        6        12           14
//! | dst    | src    | ether type | payload ...        no frame check sequence: the kernel takes it off
//! ```
//!
//! A frame can claim an address in more than one place, and a receiver believes each of them, so [`source`] looks where
//! receivers look: the sender fields of ARP (RFC 826), the source of IPv4 and IPv6, and in neighbour discovery (RFC 4861)
//! the target of an advertisement and the link-layer options, also behind extension headers (RFC 7113). Fragmented
//! neighbour discovery is ignored by receivers (RFC 6980) and counts as plain IPv6. A tagged frame is told apart,
//! because its payload belongs to a segment that rnet does not carry.

use super::Malformed;
use crate::types::Mac;
use etherparse::icmpv6::{NdpOptionSlice, NdpOptionsIterator};
use etherparse::{ArpPacketSlice, Ipv4HeaderSlice, LaxIpv6Slice, ip_number};
use etherparse::{EtherType, Ethernet2Slice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of the Ethernet header, and so of the smallest frame.
pub const HEADER_LEN: usize = 14;

/// Bytes of the largest frame that goes from peer to peer, header included.
pub const FRAME_MAX: usize = 65_535;

/// Bytes of the largest super-frame: the largest IPv4 packet and an Ethernet header. What one read of a capture port can return.
pub const SUPER_FRAME_MAX: usize = 65_535 + HEADER_LEN;

/// An Ethernet frame of 14 to [`SUPER_FRAME_MAX`] bytes. Borrowed, nothing is copied.
#[derive(Debug, Clone)]
pub struct Frame<'a>(Ethernet2Slice<'a>);

impl<'a> Frame<'a> {
    /// Takes a whole frame. `Truncated` below 14 bytes, `TooLong` above [`SUPER_FRAME_MAX`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Frame<'a>, Malformed> {
        if bytes.len() > SUPER_FRAME_MAX {
            return Err(Malformed::TooLong);
        }
        Ethernet2Slice::from_slice_without_fcs(bytes).map(Frame).map_err(|_| Malformed::Truncated)
    }

    /// Whom it is for.
    #[inline]
    pub fn dst(&self) -> Mac {
        Mac(self.0.destination())
    }

    /// Whom it says it is from.
    #[inline]
    pub fn src(&self) -> Mac {
        Mac(self.0.source())
    }

    /// The type of the payload (IEEE 802 numbers), or its length if below 0x0600.
    #[inline]
    pub fn ether_type(&self) -> u16 {
        self.0.ether_type().0
    }

    /// What follows the header.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.0.payload_slice()
    }

    /// The whole frame.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.0.slice()
    }
}

/// The layer 3 identity that a frame claims for its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// None: neither IP nor ARP.
    None,
    /// The source of an IPv4 or IPv6 packet; may be the unspecified address (DHCP).
    Ip(IpAddr),
    /// The sender of an ARP packet, request or reply; the address is 0.0.0.0 in a probe (RFC 5227).
    Arp {
        /// The hardware address that the sender says it has.
        mac: Mac,
        /// The protocol address that the sender says it has.
        ip: Ipv4Addr,
    },
    /// A neighbour discovery packet.
    Neighbour {
        /// The source of the packet; unspecified while an address is being probed.
        ip: Ipv6Addr,
        /// The address spoken for besides: the target of an advertisement, or of a probe from the unspecified address.
        claimed: Option<Ipv6Addr>,
        /// The link-layer address in its options, if there is one.
        mac: Option<Mac>,
        /// It speaks as a router: an advertisement of one, or a redirect.
        router: bool,
    },
    /// A VLAN tag (802.1Q, 802.1ad or the older 0x9100); what is inside is not looked at.
    Tagged,
    /// It says it is IP or ARP, and is not: no receiver would take it, so nobody needs it.
    Malformed,
}

/// Finds what `frame` claims. Looks at most at the headers, never at what they carry.
pub fn source(frame: &Frame<'_>) -> Source {
    let payload = frame.payload();
    match EtherType(frame.ether_type()) {
        EtherType::IPV4 => Ipv4HeaderSlice::from_slice(payload)
            .map_or(Source::Malformed, |ip| Source::Ip(IpAddr::V4(ip.source_addr()))),
        EtherType::IPV6 => ipv6(payload).unwrap_or(Source::Malformed),
        EtherType::ARP => arp(payload).unwrap_or(Source::Malformed),
        EtherType::VLAN_TAGGED_FRAME | EtherType::PROVIDER_BRIDGING | EtherType::VLAN_DOUBLE_TAGGED_FRAME => {
            Source::Tagged
        }
        _ => Source::None,
    }
}

fn arp(payload: &[u8]) -> Option<Source> {
    let packet = ArpPacketSlice::from_slice(payload).ok()?;
    if packet.hw_addr_type().0 != 1 || packet.proto_addr_type() != EtherType::IPV4 {
        return None;
    }
    let mac = Mac(packet.sender_hw_addr().try_into().ok()?);
    let octets: [u8; 4] = packet.sender_protocol_addr().try_into().ok()?;
    Some(Source::Arp { mac, ip: octets.into() })
}

fn ipv6(payload: &[u8]) -> Option<Source> {
    let (packet, stopped) = LaxIpv6Slice::from_slice(payload).ok()?;
    if stopped.is_some() {
        return None;
    }
    let ip = packet.header().source_addr();
    let inner = packet.payload();
    if inner.ip_number == ip_number::IPV6_ICMP && !inner.fragmented {
        neighbour(ip, inner.payload)
    } else {
        Some(Source::Ip(IpAddr::V6(ip)))
    }
}

/// Types and layouts: RFC 4861, section 4.
fn neighbour(ip: Ipv6Addr, icmp: &[u8]) -> Option<Source> {
    const ROUTER_SOLICITATION: u8 = 133;
    const ROUTER_ADVERTISEMENT: u8 = 134;
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    const REDIRECT: u8 = 137;
    let kind = *icmp.first()?;
    let options = match kind {
        ROUTER_SOLICITATION => 8,
        ROUTER_ADVERTISEMENT => 16,
        SOLICITATION | ADVERTISEMENT => 24,
        REDIRECT => 40,
        _ => return Some(Source::Ip(IpAddr::V6(ip))),
    };
    let mac = link_layer_address(icmp.get(options..)?)?;
    let claims_target = kind == ADVERTISEMENT || (kind == SOLICITATION && ip.is_unspecified());
    let target: [u8; 16] = icmp.get(8..24).and_then(|octets| octets.try_into().ok()).unwrap_or_default();
    let claimed = claims_target.then(|| Ipv6Addr::from(target));
    Some(Source::Neighbour { ip, claimed, mac, router: matches!(kind, ROUTER_ADVERTISEMENT | REDIRECT) })
}

/// The address in the source or target link-layer options. Outer nothing: unreadable options, or two that differ (which
/// of them a receiver takes is its own affair, so neither can be vouched for).
fn link_layer_address(options: &[u8]) -> Option<Option<Mac>> {
    let mut found: Option<Mac> = None;
    for option in NdpOptionsIterator::from_slice(options) {
        let address = match option.ok()? {
            NdpOptionSlice::SourceLinkLayerAddress(option) => option.link_layer_address(),
            NdpOptionSlice::TargetLinkLayerAddress(option) => option.link_layer_address(),
            _ => continue,
        };
        let mac = Mac(address.try_into().ok()?);
        if found.is_some_and(|other| other != mac) {
            return None;
        }
        found = Some(mac);
    }
    Some(found)
}

#[cfg(test)]
mod tests;
