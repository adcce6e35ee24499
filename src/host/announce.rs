//! Frames that tell a network where the addresses of a new attachment are. Pure.
//!
//! Their layout is `wire::neighbour`'s. Sent after an attachment is plugged, so that an address that moved here with another MAC
//! works at once and not when the others' caches expire: through the bridge, so that neighbours here hear them as well as
//! the other hosts.

use crate::node::command::Interface;
use crate::wire::neighbour::announcement;

/// One frame for each address of `interface`.
pub fn announcements(interface: &Interface) -> Vec<Vec<u8>> {
    let frames = interface.addresses.iter().filter_map(|address| announcement(address.ip(), interface.mac));
    frames.map(|frame| frame.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{HostAddress, Mac};
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
