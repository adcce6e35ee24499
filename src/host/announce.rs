//! Frames that tell a network where an address is now. Pure.
//!
//! Owns the content of a gratuitous ARP request (RFC 5227, section 3: an announcement) and of an unsolicited neighbour
//! advertisement (RFC 4861, section 7.2.6). Sent after an attachment is plugged, so that an address that moved here with
//! another MAC works at once and not when the others' caches expire.

use crate::node::command::Interface;
use crate::types::Mac;
use etherparse::icmpv6::NeighborAdvertisementHeader;
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, Icmpv6Header, Icmpv6Type, IpNumber, Ipv6FlowLabel, Ipv6Header,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// ff02::1 and the group address that it maps to.
const ALL_NODES: (Ipv6Addr, Mac) = (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), Mac([0x33, 0x33, 0, 0, 0, 1]));

/// One frame for each address of `interface`.
pub fn announcements(interface: &Interface) -> Vec<Vec<u8>> {
    let frame = |address: IpAddr| match address {
        IpAddr::V4(v4) => Some(gratuitous_arp(interface.mac, v4)),
        IpAddr::V6(v6) => unsolicited_advertisement(interface.mac, v6),
    };
    interface.addresses.iter().filter_map(|address| frame(address.ip())).collect()
}

fn ethernet(destination: Mac, source: Mac, ether_type: EtherType) -> Vec<u8> {
    let mut frame = Vec::with_capacity(96);
    frame.extend_from_slice(&destination.0);
    frame.extend_from_slice(&source.0);
    frame.extend_from_slice(&ether_type.0.to_be_bytes());
    frame
}

fn gratuitous_arp(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let arp = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: mac.0,
        sender_ipv4: address.octets(),
        target_mac: [0; 6],
        target_ipv4: address.octets(),
    };
    let mut frame = ethernet(Mac::BROADCAST, mac, EtherType::ARP);
    frame.extend_from_slice(&etherparse::ArpPacket::from(arp).to_bytes());
    frame
}

fn unsolicited_advertisement(mac: Mac, address: Ipv6Addr) -> Option<Vec<u8>> {
    // Target link-layer address: type 2, length 1 (of 8 bytes).
    let [a, b, c, d, e, f] = mac.0;
    let option = [2, 1, a, b, c, d, e, f];
    let mut payload = address.octets().to_vec();
    payload.extend_from_slice(&option);
    let advertisement = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
    let kind = Icmpv6Type::NeighborAdvertisement(advertisement);
    let header = Icmpv6Header::with_checksum(kind, address.octets(), ALL_NODES.0.octets(), &payload).ok()?;
    let ip = Ipv6Header {
        traffic_class: 0,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: u16::try_from(header.header_len() + payload.len()).ok()?,
        next_header: IpNumber::IPV6_ICMP,
        hop_limit: 255,
        source: address.octets(),
        destination: ALL_NODES.0.octets(),
    };
    let mut frame = ethernet(ALL_NODES.1, mac, EtherType::IPV6);
    frame.extend_from_slice(&ip.to_bytes());
    frame.extend_from_slice(&header.to_bytes());
    frame.extend_from_slice(&payload);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::HostAddress;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    fn frames() -> Vec<Vec<u8>> {
        let addresses: Vec<HostAddress> = ["10.2.1.7/24", "fd00:1::7/64"].map(|a| a.parse().unwrap()).to_vec();
        let network = addresses[0].network();
        let mac = Mac([2, 1, 2, 3, 4, 5]);
        let (name, id, gateway) = ("rnet0".into(), network.id(), None);
        announcements(&Interface { name, network, id, mac, addresses, gateway, masquerade: false })
    }

    #[test]
    fn arp_says_who_has_the_address_to_everybody() {
        let frame = &frames()[0];
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        assert_eq!((&frame[..6], &frame[6..12]), (&[0xff; 6][..], &[2, 1, 2, 3, 4, 5][..]));
        let Some(NetSlice::Arp(arp)) = packet.net else { panic!("not ARP") };
        assert_eq!((arp.sender_protocol_addr(), arp.target_protocol_addr()), (&[10, 2, 1, 7][..], &[10, 2, 1, 7][..]));
        assert_eq!(arp.sender_hw_addr(), [2, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn advertisement_has_a_valid_checksum_and_the_hop_limit_that_receivers_demand() {
        let frame = &frames()[1];
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = packet.net else { panic!("not IPv6") };
        assert_eq!(ip.header().hop_limit(), 255);
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("not ICMPv6") };
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
        assert_eq!(icmp.type_u8(), 136);
        assert_eq!(&frame[frame.len() - 8..], [2, 1, 2, 1, 2, 3, 4, 5]);
    }
}
