//! The port guard in the kernel, as text for nftables: what an attachment may put on its bridge. Pure.
//!
//! Two attachments of one network on one host talk through the bridge, which `plane::guard` never sees. So its rules stand
//! before the bridge too, at the ingress of each attachment's device. What is certainly honest goes on to the bridge;
//! everything else is handed to the capture port and to nobody else, where `plane::guard` reads it in full and counts why
//! it is refused. What that lets through nevertheless reaches the other hosts and not the neighbours here: only oddities.
//!
//! ```text
//! attachment > ingress of rnv... > honest > bridge > neighbours, capture port
//!                                > other  > capture port > plane::guard counts it, or carries it on
//! bridge for the host itself > ingress of rnb... > nothing, unless the network is exposed here
//! ```
//!
//! A frame's kind is read from its header and not taken from the kernel, that looks behind a VLAN tag. Neighbour discovery is
//! matched whole, by its length and at fixed places, because an option may stand anywhere. A MAC of a neighbour is told only
//! here, where it is known who sends; it is replaced by one that means so. Invariant: nothing passes that `plane::guard` would
//! refuse.

use crate::plane::guard::{FORGED, link_local};
use crate::types::{HostAddress, Mac};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

/// The table that is ours and nobody else's, of the family `netdev`.
pub const TABLE: &str = "rnet_guard";
/// Said of an address: it is a group's.
const GROUP: &str = "& 01:00:00:00:00:00 != 00:00:00:00:00:00";

/// The text that guards `device`, the host's end of an attachment with this MAC and these addresses; `capture` is the device
/// of the capture port on the same bridge.
pub fn port(device: &str, capture: &str, mac: Mac, addresses: &[HostAddress]) -> String {
    let stray = stray(capture);
    let ips = |v4: bool| addresses.iter().map(|address| address.ip()).filter(move |ip| ip.is_ipv4() == v4);
    let v4: Vec<String> = ips(true).map(|ip| ip.to_string()).collect();
    let v6 = ips(false).filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None });
    let v6: Vec<Ipv6Addr> = v6.chain([link_local(mac)]).collect();
    let mut rules = usual(mac, &v4, &v6);
    rules.extend([
        format!("ether saddr {GROUP} {stray}"),
        // It may be a neighbour's, to whom the data plane would grant it.
        format!("ether saddr != {mac} ether saddr set {FORGED} {stray}"),
        // Spanning tree and its like: a bridge without it passes them on.
        format!("ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 {stray}"),
    ]);
    if !v4.is_empty() {
        rules.push(format!("ether type ip ip saddr {{ {} }} accept", v4.join(", ")));
    }
    let senders: Vec<String> = std::iter::once("0.0.0.0".to_string()).chain(v4).collect();
    let form = "arp htype 1 arp ptype ip arp hlen 6 arp plen 4";
    rules.push(format!("ether type arp {form} arp saddr ether {mac} arp saddr ip {{ {} }} accept", senders.join(", ")));
    ipv6(&mut rules, mac, &v6);
    rules.push("ether type != { ip, arp, ip6, 8021q, 8021ad, 0x9100 } accept".to_string());
    rules.push(stray);
    chain(device, &rules)
}

/// What nearly all frames are, told by the fewest comparisons: each costs, and all frames pay for those before theirs. Measured with kernel
/// VXLAN and 64-byte packets on a line without offloads: 5 % more of them. nft compares the type and the MAC beside it at once.
fn usual(mac: Mac, v4: &[String], v6: &[Ipv6Addr]) -> Vec<String> {
    let from = format!("ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 ether saddr {mac} ether type");
    let mut rules = Vec::new();
    if !v4.is_empty() {
        rules.push(format!("{from} ip ip saddr {{ {} }} accept", v4.join(", ")));
    }
    let list: Vec<String> = v6.iter().map(Ipv6Addr::to_string).collect();
    // Neighbour discovery is neither.
    rules.push(format!("{from} ip6 ip6 nexthdr {{ tcp, udp }} ip6 saddr {{ {} }} accept", list.join(", ")));
    rules
}

/// What becomes of frames that are not certainly honest. The kernel remembers the device's number, not its name.
fn stray(capture: &str) -> String {
    format!("fwd to \"{capture}\"")
}

/// Whether the text of a guard hands frames to this device.
pub fn hands_to(text: &str, capture: &str) -> bool {
    text.contains(&stray(capture))
}

/// The text that keeps what `bridge` has for the host away from it: the host is not on this network.
pub fn bridge(bridge: &str) -> String {
    chain(bridge, &[])
}

/// The text that guards a VXLAN device of a network: nothing comes in for many, in the name of a group, nor in that of an attachment that is
/// guarded here; as `plane::guard::check_arrival` has it for what comes by the data path.
pub fn arrivals(device: &str, guarded: &[Mac]) -> String {
    // The lowest bit of the first byte of both addresses, in one comparison: each one counts at millions of packets a second.
    let for_and_from_one = "@ll,0,56 & 0x01000000000001 == 0";
    let list: Vec<String> = guarded.iter().map(Mac::to_string).collect();
    let not_here = if list.is_empty() { String::new() } else { format!(" ether saddr != {{ {} }}", list.join(", ")) };
    chain(device, &[format!("{for_and_from_one}{not_here} accept")])
}

/// The text that guards the VXLAN device of heartbeats: nothing of it is for this host's own protocols.
pub fn beats(device: &str, ether_type: u16) -> String {
    chain(device, &[format!("ether type {ether_type:#06x} accept")])
}

/// The text that takes the guard of `device` away, which must be there.
pub fn removal(device: &str) -> String {
    format!("flush chain netdev {TABLE} {device}\ndelete chain netdev {TABLE} {device}\n")
}

/// The text that takes everything away; no error if there is nothing.
pub fn removal_of_all() -> String {
    format!("table netdev {TABLE}\ndelete table netdev {TABLE}\n")
}

/// A text that changes nothing, and fails where no device can be guarded.
pub fn trial() -> String {
    format!("table netdev {TABLE}_trial\ndelete table netdev {TABLE}_trial\n")
}

fn ipv6(rules: &mut Vec<String>, mac: Mac, own: &[Ipv6Addr]) {
    let list: Vec<String> = own.iter().map(Ipv6Addr::to_string).collect();
    let from = format!("ether type ip6 ip6 saddr {{ {} }}", list.join(", "));
    let (nobody, hardware) = ("ether type ip6 ip6 saddr ::", hex(&mac.0));
    // Types: RFC 4861, section 4. The option with our MAC is 8 bytes: type, length 1, MAC.
    let (solicits, advertises) = (format!("0x0101{hardware}"), format!("0x0201{hardware}"));
    let mut pass = |rule: String| rules.push(format!("{rule} accept"));
    pass(format!("{from} meta l4proto != 58"));
    pass(format!("{from} icmpv6 type != 133-137"));
    // Further pieces have no type; what is in pieces is no neighbour discovery (RFC 6980).
    pass(format!("{from} frag frag-off != 0"));
    pass(format!("{from} icmpv6 type 133 ip6 length 8"));
    pass(format!("{from} icmpv6 type 133 ip6 length 16 @th,64,64 {solicits}"));
    pass(format!("{from} icmpv6 type 135 ip6 length 24"));
    pass(format!("{from} icmpv6 type 135 ip6 length 32 @th,192,64 {solicits}"));
    for target in own {
        let target = format!("@th,64,128 0x{}", hex(&target.octets()));
        pass(format!("{from} icmpv6 type 136 ip6 length 24 {target}"));
        pass(format!("{from} icmpv6 type 136 ip6 length 32 {target} @th,192,64 {advertises}"));
        // A probe, without or with a nonce (RFC 7527).
        pass(format!("{nobody} icmpv6 type 135 ip6 length 24 {target}"));
        pass(format!("{nobody} icmpv6 type 135 ip6 length 32 {target} @th,192,16 0x0e01"));
    }
    pass(format!("{nobody} icmpv6 type 133 ip6 length 8"));
    pass(format!("{nobody} ether daddr 33:33:00:00:00:16 icmpv6 type 143"));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A chain at the ingress of `device` with these rules and no others, in one transaction.
fn chain(device: &str, rules: &[String]) -> String {
    let mut text = format!("table netdev {TABLE} {{\n  chain {device} {{\n");
    let _ = writeln!(text, "    type filter hook ingress device \"{device}\" priority 0; policy drop;\n  }}\n}}");
    let _ = writeln!(text, "flush chain netdev {TABLE} {device}");
    for rule in rules {
        let _ = writeln!(text, "add rule netdev {TABLE} {device} {rule}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(addresses: &[&str]) -> String {
        let addresses: Vec<HostAddress> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        port("rnv01234567", "rnt8312a4", Mac([2, 0, 0, 0, 0, 1]), &addresses)
    }

    #[test]
    fn nothing_passes_but_by_a_rule_and_the_last_hands_over() {
        let text = text(&["10.2.1.1/24", "10.2.1.2/24"]);
        assert!(text.contains("hook ingress device \"rnv01234567\" priority 0; policy drop;"), "{text}");
        assert!(text.contains("ether type ip ip saddr { 10.2.1.1, 10.2.1.2 } accept"), "{text}");
        assert!(text.contains("arp saddr ip { 0.0.0.0, 10.2.1.1, 10.2.1.2 } accept"), "{text}");
        assert!(text.ends_with("add rule netdev rnet_guard rnv01234567 fwd to \"rnt8312a4\"\n"), "{text}");
        // What is told by its MAC alone comes before all that does not compare it.
        let mac = text.find("ether saddr != 02:00:00:00:00:01 ether saddr set 03:72:6e:65:74:00 fwd").unwrap();
        let (first, rest) = text.split_at(mac);
        assert!(rest.contains("accept"));
        for rule in first.lines().filter(|line| line.ends_with("accept")) {
            assert!(rule.contains("ether saddr 02:00:00:00:00:01 ether type "), "{rule}");
        }
    }

    #[test]
    fn what_nearly_all_frames_are_comes_first() {
        let text = text(&["10.2.1.1/24", "fd00::1/64"]);
        let rules: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("add rule netdev rnet_guard rnv01234567 ")).collect();
        let from = "ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 ether saddr 02:00:00:00:00:01 ether type";
        assert_eq!(rules[0], format!("{from} ip ip saddr {{ 10.2.1.1 }} accept"));
        assert_eq!(
            rules[1],
            format!("{from} ip6 ip6 nexthdr {{ tcp, udp }} ip6 saddr {{ fd00::1, fe80::ff:fe00:1 }} accept")
        );
    }

    #[test]
    fn no_address_of_a_family_means_no_packets_of_it_but_link_local_ones() {
        assert!(!text(&["fd00::1/64"]).contains("ether type ip ip saddr"));
        let only_v4 = text(&["10.2.1.1/24"]);
        assert!(only_v4.contains("ip6 saddr { fe80::ff:fe00:1 } meta l4proto != 58 accept"), "{only_v4}");
    }

    #[test]
    fn every_accepted_kind_is_read_from_the_frames_header() {
        let text = text(&["10.2.1.1/24", "fd00::1/64"]);
        for rule in text.lines().filter(|line| line.ends_with("accept")) {
            assert!(rule.contains(" ether type "), "{rule}");
        }
        assert!(text.contains("@th,64,128 0xfd000000000000000000000000000001 @th,192,64 0x0201020000000001 accept"));
    }

    #[test]
    fn nobody_arrives_by_vxlan_in_the_name_of_an_attachment_here_or_for_many() {
        let text = arrivals("rnx8312a4", &[Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])]);
        assert!(text.contains("policy drop;"), "{text}");
        let rule = "@ll,0,56 & 0x01000000000001 == 0 ether saddr != { 02:00:00:00:00:01, 02:00:00:00:00:02 } accept\n";
        assert!(text.ends_with(rule) && text.matches("add rule").count() == 1, "{text}");
        assert!(arrivals("rnx8312a4", &[]).ends_with("rnx8312a4 @ll,0,56 & 0x01000000000001 == 0 accept\n"));
    }

    #[test]
    fn a_bridge_has_nothing_for_the_host() {
        let text = bridge("rnb8312a4");
        assert!(text.contains("policy drop"));
        assert!(!text.contains("accept") && !text.contains("fwd"));
    }
}
