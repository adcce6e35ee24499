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
//! The host itself, where it is exposed, also forwards: IP packets (not ARP nor ND) from any address outside of the network.
//! An address inside is somebody's, so an attachment cannot borrow the host to speak as another one.
//!
//! DHCP's 0.0.0.0 is refused: addresses come from the router. An attachment without guard may send anything but a
//! group address as the source.

use super::counters::Drop;
use super::fib::{Fib, NetworkEntry, Permit};
use crate::types::{Mac, NetId};
use crate::wire::frame::{Frame, Source, source};
use std::net::{IpAddr, Ipv6Addr};

/// Where version 2 listener reports go: ff02::16.
const LISTENER_REPORTS: Mac = Mac([0x33, 0x33, 0, 0, 0, 0x16]);

/// The source that `host::guard` gives to a frame from another MAC than its sender's, for only there it is known who sent it.
/// A group address: nobody can have it, and no bridge takes it.
pub const FORGED: Mac = Mac([3, 0x72, 0x6e, 0x65, 0x74, 0]);

/// Whether `frame` may come in on the port of `entry`, and why not.
pub fn check(entry: &NetworkEntry, frame: &Frame<'_>) -> Result<(), Drop> {
    let mac = frame.src();
    if mac.is_group() {
        return Err(if mac == FORGED { Drop::GuardMac } else { Drop::GroupSource });
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

/// Whether `frame`, which a VTEP or an uplink brought, may come in: not in the name of an attachment, here or elsewhere in the
/// mesh. With its MAC it is one of our own that came back, or forged; with its address in ARP or neighbour discovery it would
/// take that over. What else is behind it nobody knows, so it may say what it likes.
pub fn check_stranger(fib: &Fib, network: NetId, entry: &NetworkEntry, frame: &Frame<'_>) -> Result<(), Drop> {
    let mac = frame.src();
    if mac.is_group() {
        return Err(Drop::GroupSource);
    }
    let guarded_here = entry.permits.get(&mac).is_some_and(|permit| !permit.unguarded);
    if guarded_here || fib.neighbours.place(network, mac).is_some() {
        return Err(Drop::VtepLooped);
    }
    let is_free = |ip: IpAddr| fib.neighbours.holder(network, ip).is_none();
    match source(frame) {
        Source::Arp { ip, .. } => allow(is_free(ip.into())),
        Source::Neighbour { ip, claimed, .. } => {
            allow(is_free(ip.into()) && claimed.is_none_or(|target| is_free(target.into())))
        }
        Source::None | Source::Malformed | Source::Tagged | Source::Ip(_) => Ok(()),
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
        Source::Ip(ip) => allow(owns(permit, mac, ip) || is_forwarded(permit, ip)),
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

fn is_forwarded(permit: &Permit, ip: IpAddr) -> bool {
    let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let sendable = !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback() && !link_local;
    sendable && ip != IpAddr::V4(std::net::Ipv4Addr::BROADCAST) && permit.routes_for.is_some_and(|n| !n.contains(ip))
}

/// The link-local address that an interface with this MAC makes for itself.
pub fn link_local(Mac([a, b, c, d, e, f]): Mac) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::testing::{ethernet, mac, permit};
    use etherparse::{Icmpv6Type, PacketBuilder};

    const ROUTERS: Mac = Mac([0x33, 0x33, 0, 0, 0, 2]);

    /// `mac(1)` has 10.0.0.1 and fd00::1; `mac(2)` has 10.0.0.2; `mac(3)` is not guarded.
    fn entry() -> NetworkEntry {
        let mut entry = NetworkEntry::default();
        entry.permits.insert(mac(1), permit(&["10.0.0.1", "fd00::1"]));
        entry.permits.insert(mac(2), permit(&["10.0.0.2"]));
        entry.permits.insert(mac(3), Permit { unguarded: true, ..Permit::default() });
        entry
    }

    fn checked(frame: &[u8]) -> Result<(), Drop> {
        check(&entry(), &Frame::parse(frame).unwrap())
    }

    fn arp(src: Mac, sender: Mac, ip: [u8; 4]) -> Vec<u8> {
        let fixed = [0, 1, 8, 0, 6, 4, 0, 1];
        ethernet(Mac::BROADCAST, src, 0x0806, &[&fixed[..], &sender.0, &ip, &[0; 6], &[10, 0, 0, 9]].concat())
    }

    fn udp4(src: Mac, ip: [u8; 4]) -> Vec<u8> {
        let mut frame = Vec::new();
        let packet = PacketBuilder::ethernet2(src.0, mac(9).0).ipv4(ip, [10, 0, 0, 9], 64).udp(68, 67);
        packet.write(&mut frame, b"x").unwrap();
        frame
    }

    fn v6(text: &str) -> [u8; 16] {
        text.parse::<Ipv6Addr>().unwrap().octets()
    }

    fn udp6(src: Mac, dst: Mac, ip: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        let packet = PacketBuilder::ethernet2(src.0, dst.0).ipv6(v6(ip), v6("ff02::16"), 1).udp(1, 2);
        packet.write(&mut frame, b"x").unwrap();
        frame
    }

    /// ICMPv6 of `kind`: four bytes, then `body`.
    fn icmp6(src: Mac, ip: &str, kind: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let icmp = Icmpv6Type::Unknown { type_u8: kind, code_u8: 0, bytes5to8: [0; 4] };
        let packet = PacketBuilder::ethernet2(src.0, ROUTERS.0).ipv6(v6(ip), v6("ff02::2"), 255).icmpv6(icmp);
        packet.write(&mut frame, body).unwrap();
        frame
    }

    /// A target, and a link-layer option of type `option` unless it is 0.
    fn target(ip: &str, option: u8, sender: Mac) -> Vec<u8> {
        let option = if option == 0 { Vec::new() } else { [&[option, 1], &sender.0[..]].concat() };
        [&v6(ip)[..], &option].concat()
    }

    #[test]
    fn lets_an_attachment_speak_for_itself() {
        // EUI-64 of 02:00:00:00:00:01.
        let own = "fe80::ff:fe00:1";
        let facts = [
            ("ARP", arp(mac(1), mac(1), [10, 0, 0, 1])),
            ("ARP probe", arp(mac(1), mac(1), [0, 0, 0, 0])),
            ("IPv4", udp4(mac(1), [10, 0, 0, 1])),
            ("IPv6", udp6(mac(1), mac(9), "fd00::1")),
            ("IPv6 link-local", udp6(mac(1), mac(9), own)),
            ("neighbour solicitation", icmp6(mac(1), "fd00::1", 135, &target("fd00::9", 1, mac(1)))),
            ("neighbour advertisement", icmp6(mac(1), "fd00::1", 136, &target("fd00::1", 2, mac(1)))),
            ("link-local advertisement", icmp6(mac(1), own, 136, &target(own, 2, mac(1)))),
            ("address probe", icmp6(mac(1), "::", 135, &target("fd00::1", 0, mac(1)))),
            ("link-local address probe", icmp6(mac(1), "::", 135, &target(own, 0, mac(1)))),
            ("router solicitation", icmp6(mac(1), own, 133, &[])),
            ("router solicitation without address", icmp6(mac(1), "::", 133, &[])),
            ("listener report without address", udp6(mac(1), LISTENER_REPORTS, "::")),
            ("neither IP nor ARP", ethernet(mac(9), mac(1), 0x88b5, b"x")),
            ("LLC", ethernet(mac(9), mac(1), 3, &[0x42, 0x42, 3])),
            ("not guarded, any address", udp4(mac(3), [10, 0, 0, 1])),
            ("not guarded, tagged", ethernet(mac(9), mac(3), 0x8100, &[0, 1, 8, 0])),
        ];
        for (fact, frame) in facts {
            assert_eq!(checked(&frame), Ok(()), "{fact}");
        }
    }

    #[test]
    fn refuses_what_is_forged() {
        let own = "fe80::ff:fe00:1";
        let facts = [
            ("a MAC of nobody", udp4(mac(7), [10, 0, 0, 1]), Drop::GuardMac),
            ("another's address", udp4(mac(1), [10, 0, 0, 2]), Drop::GuardAddress),
            ("an address of nobody", udp4(mac(1), [10, 0, 0, 3]), Drop::GuardAddress),
            ("DHCP", udp4(mac(1), [0, 0, 0, 0]), Drop::GuardAddress),
            ("broadcast as the source", udp4(mac(1), [255, 255, 255, 255]), Drop::GuardAddress),
            ("another's MAC on its own device", udp4(FORGED, [10, 0, 0, 1]), Drop::GuardMac),
            ("a group MAC", udp4(Mac([3, 0, 0, 0, 0, 1]), [10, 0, 0, 1]), Drop::GroupSource),
            ("the broadcast MAC", udp4(Mac::BROADCAST, [10, 0, 0, 1]), Drop::GroupSource),
            ("ARP for another's address", arp(mac(1), mac(1), [10, 0, 0, 2]), Drop::GuardAddress),
            ("ARP with another's MAC inside", arp(mac(1), mac(2), [10, 0, 0, 1]), Drop::GuardMac),
            ("ARP probe with another's MAC inside", arp(mac(1), mac(2), [0, 0, 0, 0]), Drop::GuardMac),
            ("ARP cut short", arp(mac(1), mac(1), [10, 0, 0, 1])[..30].to_vec(), Drop::Malformed),
            ("IPv6 of another", udp6(mac(2), mac(9), "fd00::1"), Drop::GuardAddress),
            ("link-local of another", udp6(mac(2), mac(9), own), Drop::GuardAddress),
            ("IPv6 without address", udp6(mac(1), mac(9), "::"), Drop::GuardAddress),
            ("IPv4 in IPv6", udp6(mac(1), mac(9), "::ffff:10.0.0.1"), Drop::GuardAddress),
            (
                "advertisement for another",
                icmp6(mac(1), "fd00::1", 136, &target("fd00::2", 2, mac(1))),
                Drop::GuardAddress,
            ),
            (
                "advertisement of another's MAC",
                icmp6(mac(1), "fd00::1", 136, &target("fd00::1", 2, mac(2))),
                Drop::GuardMac,
            ),
            (
                "advertisement from another",
                icmp6(mac(1), "fd00::2", 136, &target("fd00::1", 2, mac(1))),
                Drop::GuardAddress,
            ),
            (
                "solicitation with another's MAC",
                icmp6(mac(1), "fd00::1", 135, &target("fd00::9", 1, mac(2))),
                Drop::GuardMac,
            ),
            (
                "probe for another's address",
                icmp6(mac(1), "::", 135, &target("fd00::2", 0, mac(1))),
                Drop::GuardAddress,
            ),
            ("router advertisement", icmp6(mac(1), own, 134, &[0; 8]), Drop::GuardRouter),
            ("redirect", icmp6(mac(1), own, 137, &[0; 32]), Drop::GuardRouter),
            ("802.1Q", ethernet(mac(9), mac(1), 0x8100, &[0, 1, 8, 0]), Drop::GuardTagged),
            ("802.1Q, priority only", ethernet(mac(9), mac(1), 0x8100, &[0xe0, 0, 8, 0]), Drop::GuardTagged),
            ("802.1ad", ethernet(mac(9), mac(1), 0x88a8, &[0, 1, 0x81, 0, 0, 1, 8, 0]), Drop::GuardTagged),
            ("IPv4 cut short", udp4(mac(1), [10, 0, 0, 1])[..20].to_vec(), Drop::Malformed),
            ("IPv6 cut short", udp6(mac(1), mac(9), "fd00::1")[..40].to_vec(), Drop::Malformed),
        ];
        for (fact, frame, reason) in facts {
            assert_eq!(checked(&frame), Err(reason), "{fact}");
        }
    }

    #[test]
    fn the_host_forwards_for_the_outside_and_speaks_as_nobody_inside() {
        let mut entry = entry();
        let host = Permit { routes_for: Some("10.0.0.0/24".parse().unwrap()), ..permit(&["10.0.0.254"]) };
        entry.permits.insert(mac(4), host);
        let checked = |frame: &[u8]| check(&entry, &Frame::parse(frame).unwrap());
        assert_eq!(checked(&udp4(mac(4), [10, 0, 0, 254])), Ok(()));
        assert_eq!(checked(&udp4(mac(4), [192, 0, 2, 7])), Ok(()));
        for inside in [[10, 0, 0, 1], [10, 0, 0, 77], [0, 0, 0, 0], [255, 255, 255, 255], [127, 0, 0, 1]] {
            assert_eq!(checked(&udp4(mac(4), inside)), Err(Drop::GuardAddress), "{inside:?}");
        }
        assert_eq!(checked(&arp(mac(4), mac(4), [192, 0, 2, 7])), Err(Drop::GuardAddress));
        assert_eq!(checked(&arp(mac(4), mac(4), [10, 0, 0, 254])), Ok(()));
    }

    #[test]
    fn an_open_port_takes_strangers_but_still_guards_the_others() {
        let open = NetworkEntry { unguarded: true, ..entry() };
        let checked = |frame: &[u8]| check(&open, &Frame::parse(frame).unwrap());
        assert_eq!(checked(&udp4(mac(7), [10, 0, 0, 77])), Ok(()));
        assert_eq!(checked(&udp4(mac(1), [10, 0, 0, 77])), Err(Drop::GuardAddress));
        assert_eq!(checked(&udp4(Mac::BROADCAST, [10, 0, 0, 77])), Err(Drop::GroupSource));
    }

    #[test]
    fn peers_cannot_speak_for_who_is_guarded_here() {
        let arrives = |src: Mac| check_arrival(&entry(), &Frame::parse(&ethernet(mac(1), src, 0x88b5, b"")).unwrap());
        assert_eq!(arrives(mac(1)), Err(Drop::Impersonated));
        assert_eq!(arrives(mac(3)), Ok(()), "an attachment without guard may have moved");
        assert_eq!(arrives(mac(7)), Ok(()));
        assert_eq!(arrives(Mac::BROADCAST), Err(Drop::GroupSource));
    }
}
