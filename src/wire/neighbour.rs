//! Who has this address? Questions of ARP and neighbour discovery, and the frames that answer them.
//!
//! Owns the layouts: which frame asks for which address, the answer to it, and the announcement of an address. Whether a
//! question is answered here is decided by `plane::neighbours`; what a frame claims besides is read by `wire::frame`.
//!
//! ```text
//! question       ARP request (RFC 826)                    neighbour solicitation (RFC 4861, 4.3)
//! answer         ARP reply to the asker                   advertisement: solicited, override, target link-layer option
//!   of a probe   the same (RFC 5227, 1.1)                 the same to all nodes, not solicited (RFC 4862, 5.4)
//! announcement   ARP request for itself (RFC 5227, 3)     unsolicited advertisement (RFC 4861, 7.2.6)
//! ```
//!
//! An announcement is no question: it says, it does not ask. A solicitation behind extension headers is not seen as one.
//! The checksum of a solicitation is not verified: the answer is true whoever asked, and a receiver checks its own.
//! Frames are built on the stack: [`Built`] spills over at no length that is written here.

use super::frame::Frame;
use crate::types::Mac;
use etherparse::icmpv6::NeighborAdvertisementHeader;
use etherparse::{ArpEthIpv4Packet, ArpOperation, ArpPacketSlice, EtherType};
use etherparse::{Icmpv6Header, Icmpv6Type, IpNumber, Ipv6FlowLabel, Ipv6Header};
use smallvec::SmallVec;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A frame on the stack. The longest that is built here, an advertisement with one option, takes 86 bytes.
pub type Built = SmallVec<[u8; 96]>;

/// ff02::1 and the group address that it maps to.
const ALL_NODES: (Ipv6Addr, Mac) = (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), Mac([0x33, 0x33, 0, 0, 0, 1]));

/// Somebody asks who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The address in question.
    pub target: IpAddr,
    /// Whom the frame is for: a group, or the holder as the asker remembers it.
    pub dst: Mac,
    /// Who asks.
    pub asker: Mac,
    /// The asker's address; the unspecified one if it wants to know whether it may take `target` itself.
    pub from: IpAddr,
}

impl Question {
    /// Duplicate address detection: asked by somebody who wants to take the address.
    pub fn is_probe(&self) -> bool {
        self.from.is_unspecified()
    }
}

/// The question that `frame` asks, if it asks one. Two comparisons for a frame of another kind.
#[inline]
pub fn question(frame: &Frame<'_>) -> Option<Question> {
    match EtherType(frame.ether_type()) {
        EtherType::ARP => request(frame),
        EtherType::IPV6 => solicitation(frame),
        _ => None,
    }
}

fn request(frame: &Frame<'_>) -> Option<Question> {
    let packet = ArpPacketSlice::from_slice(frame.payload()).ok()?;
    if packet.hw_addr_type().0 != 1
        || packet.proto_addr_type() != EtherType::IPV4
        || packet.operation() != ArpOperation::REQUEST
        || packet.sender_hw_addr() != frame.src().0
    {
        return None;
    }
    let sender: [u8; 4] = packet.sender_protocol_addr().try_into().ok()?;
    let target: [u8; 4] = packet.target_protocol_addr().try_into().ok()?;
    let question = Question {
        target: Ipv4Addr::from(target).into(),
        dst: frame.dst(),
        asker: frame.src(),
        from: Ipv4Addr::from(sender).into(),
    };
    (question.target != question.from).then_some(question)
}

fn solicitation(frame: &Frame<'_>) -> Option<Question> {
    const ICMPV6: u8 = 58;
    // Next header and hop limit: nobody beyond the segment can have sent it.
    let (header, icmp) = frame.payload().split_first_chunk::<40>()?;
    if header.get(6..8)? != [ICMPV6, 255] || icmp.get(..2)? != [135, 0] {
        return None;
    }
    let source: [u8; 16] = header.get(8..24)?.try_into().ok()?;
    let target: [u8; 16] = icmp.get(8..24)?.try_into().ok()?;
    let (from, target) = (Ipv6Addr::from(source), Ipv6Addr::from(target));
    let question = Question { target: target.into(), dst: frame.dst(), asker: frame.src(), from: from.into() };
    (!target.is_multicast() && !from.is_multicast() && target != from).then_some(question)
}

/// The frame that answers `question`: `mac` has the address.
pub fn answer(question: &Question, mac: Mac) -> Option<Built> {
    match (question.target, question.from) {
        (IpAddr::V4(target), IpAddr::V4(from)) => {
            let operation = ArpOperation::REPLY;
            Some(arp(
                question.asker,
                ArpEthIpv4Packet {
                    operation,
                    sender_mac: mac.0,
                    sender_ipv4: target.octets(),
                    target_mac: question.asker.0,
                    target_ipv4: from.octets(),
                },
            ))
        }
        (IpAddr::V6(target), IpAddr::V6(_)) if question.is_probe() => advertisement(target, mac, ALL_NODES, false),
        (IpAddr::V6(target), IpAddr::V6(from)) => advertisement(target, mac, (from, question.asker), true),
        _ => None,
    }
}

/// The frame that tells everybody that `mac` has `address`, asked or not.
pub fn announcement(address: IpAddr, mac: Mac) -> Option<Built> {
    match address {
        IpAddr::V4(address) => Some(arp(
            Mac::BROADCAST,
            ArpEthIpv4Packet {
                operation: ArpOperation::REQUEST,
                sender_mac: mac.0,
                sender_ipv4: address.octets(),
                target_mac: [0; 6],
                target_ipv4: address.octets(),
            },
        )),
        IpAddr::V6(address) => advertisement(address, mac, ALL_NODES, false),
    }
}

fn ethernet(dst: Mac, src: Mac, ether_type: EtherType) -> Built {
    let mut frame = Built::new();
    frame.extend_from_slice(&dst.0);
    frame.extend_from_slice(&src.0);
    frame.extend_from_slice(&ether_type.0.to_be_bytes());
    frame
}

fn arp(dst: Mac, packet: ArpEthIpv4Packet) -> Built {
    let mut frame = ethernet(dst, Mac(packet.sender_mac), EtherType::ARP);
    frame.extend_from_slice(&packet.to_bytes());
    frame
}

fn advertisement(target: Ipv6Addr, mac: Mac, to: (Ipv6Addr, Mac), solicited: bool) -> Option<Built> {
    // The target, then its link-layer address: option 2, 1 x 8 bytes.
    let mut payload = SmallVec::<[u8; 24]>::from_slice(&target.octets());
    payload.extend_from_slice(&[2, 1]);
    payload.extend_from_slice(&mac.0);
    let flags = NeighborAdvertisementHeader { router: false, solicited, r#override: true };
    let kind = Icmpv6Type::NeighborAdvertisement(flags);
    let icmp = Icmpv6Header::with_checksum(kind, target.octets(), to.0.octets(), &payload).ok()?;
    let ip = Ipv6Header {
        traffic_class: 0,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: 32,
        next_header: IpNumber::IPV6_ICMP,
        hop_limit: 255,
        source: target.octets(),
        destination: to.0.octets(),
    };
    let mut frame = ethernet(to.1, mac, EtherType::IPV6);
    frame.extend_from_slice(&ip.to_bytes());
    frame.extend_from_slice(&icmp.to_bytes());
    frame.extend_from_slice(&payload);
    Some(frame)
}

#[cfg(test)]
mod tests;
