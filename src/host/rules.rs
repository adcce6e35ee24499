//! The packet filter as one text: what `expose`, `publish` and isolation ask of nftables. Pure.
//!
//! Everything lives in one table of ours, `inet rnet`, and the text replaces that table whole, so that the kernel
//! changes from the old rules to the new in one transaction and nobody else's table is touched. Who runs the text,
//! and puts it back when somebody flushed it, is `firewall`.
//!
//! ```text
//! martians     what comes from a network never reaches this host's loopback
//! forward      one network never routes into another through this host, nor out if the host is not exposed there
//! prerouting   host port -> attachment, for packets that are addressed to this host
//! output       the same for this host's own processes
//! postrouting  masquerade: exposed networks on their way out, what comes in from outside, published ports
//! ```
//!
//! The rules name exposed bridges one by one and all others by the pattern `rnb*`, so that they hold for a network from the
//! moment at which its bridge is made. Frames that are bridged within a network pass everywhere, also where the kernel shows
//! them to IP filters (br_netfilter): their input and output are one bridge.
//!
//! A drop in any table is final (nft(8), "verdict statements"), so another firewall that drops forwarded packets by
//! default must be told about our bridges in its own chains: those are the `openings`.

use super::names::bridge;
use crate::node::border::{Edge, Exposure, Publication};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The table that is ours and nobody else's.
pub const TABLE: &str = "rnet";
/// The comment of our rules in the chains of others.
pub const MARK: &str = "comment \"rnet\"";

/// The text that removes the table; no error if there is none.
pub fn removal() -> String {
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// The text that replaces the table by one that does what `edge` says, in one transaction.
pub fn render(edge: &Edge) -> String {
    let mut text = removal();
    let _ = writeln!(text, "table inet {TABLE} {{");
    // A published port makes packets of the loopback routable (`route_localnet`): only those that we translated may be.
    let martians = ["iifname \"rnb*\" ip daddr 127.0.0.0/8 drop".to_string()];
    chain(&mut text, "martians", "type filter hook prerouting priority raw", &martians);
    chain(&mut text, "forward", "type filter hook forward priority filter - 5", &forward(edge));
    let dnat: Vec<String> = edge.publications.iter().map(translation).collect();
    chain(&mut text, "prerouting", "type nat hook prerouting priority -105", &dnat);
    chain(&mut text, "output", "type nat hook output priority -105", &dnat);
    chain(&mut text, "postrouting", "type nat hook postrouting priority 95", &postrouting(edge));
    text.push_str("}\n");
    text
}

/// What the rules that let our packets through another firewall's chain match: everything that is forwarded from and to
/// exposed networks of this family, and, where the kernel shows bridged frames to IP filters, those within any of `bridges`.
pub fn openings(edge: &Edge, ipv4: bool, bridges: &BTreeSet<String>, bridged: bool) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for exposure in edge.exposures.iter().filter(|exposure| exposure.network.cidr().addr().is_ipv4() == ipv4) {
        let bridge = bridge(exposure.id);
        all.insert(format!("iifname \"{bridge}\""));
        all.insert(format!("oifname \"{bridge}\""));
    }
    let within = bridges.iter().filter(|_| bridged).map(|bridge| format!("iifname \"{bridge}\" oifname \"{bridge}\""));
    all.extend(within);
    all
}

/// Our rules in a chain of others as `nft -a list chain` shows it: what each matches, and its handle.
pub fn marked(listing: &str) -> Vec<(String, u64)> {
    let rule = |line: &str| {
        let (rule, handle) = line.trim().rsplit_once(" # handle ")?;
        let matches = rule.strip_suffix(MARK)?.split(" counter ").next()?;
        Some((matches.trim().to_string(), handle.parse().ok()?))
    };
    listing.lines().filter_map(rule).collect()
}

/// The text that makes `wanted` our only rules in a chain, before all others; nothing if they are already.
/// `chain` is its family, table and name.
pub fn correction(chain: &str, listing: &str, wanted: &BTreeSet<String>) -> Option<String> {
    let present = marked(listing);
    let matches: BTreeSet<&String> = present.iter().map(|(matches, _)| matches).collect();
    if present.len() == wanted.len() && wanted.iter().all(|rule| matches.contains(rule)) {
        return None;
    }
    let mut text = String::new();
    for (_, handle) in &present {
        let _ = writeln!(text, "delete rule {chain} handle {handle}");
    }
    for rule in wanted {
        // With a counter it is a rule that iptables can show.
        let _ = writeln!(text, "insert rule {chain} {rule} counter accept {MARK}");
    }
    Some(text)
}

fn chain(text: &mut String, name: &str, hook: &str, rules: &[String]) {
    let _ = writeln!(text, "  chain {name} {{\n    {hook}; policy accept;");
    for rule in rules {
        let _ = writeln!(text, "    {rule}");
    }
    text.push_str("  }\n");
}

fn forward(edge: &Edge) -> Vec<String> {
    let exposed: Vec<String> = edge.exposures.iter().map(|exposure| bridge(exposure.id)).collect();
    let mut lines = Vec::new();
    for bridge in &exposed {
        lines.push(format!("iifname \"{bridge}\" oifname \"rnb*\" oifname != \"{bridge}\" drop"));
        lines.push(format!("iifname \"rnb*\" iifname != \"{bridge}\" oifname \"{bridge}\" drop"));
    }
    if !exposed.is_empty() {
        let names: Vec<String> = exposed.iter().map(|bridge| format!("\"{bridge}\"")).collect();
        let names = names.join(", ");
        lines.push(format!("iifname \"rnb*\" iifname != {{ {names} }} oifname != \"rnb*\" drop"));
    }
    lines
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "ip" } else { "ip6" }
}

fn translation(publication: &Publication) -> String {
    let to = publication.to;
    let place = match publication.host_ip {
        Some(ip) => format!("{} daddr {ip}", family(ip)),
        // `local` keeps packets that are only routed through this host out of it.
        None if to.is_ipv4() => "meta nfproto ipv4 fib daddr type local".to_string(),
        // IPv6 never routes packets of the loopback.
        None => "meta nfproto ipv6 ip6 daddr != ::1 fib daddr type local".to_string(),
    };
    let (word, port) = (publication.transport.word(), publication.host_port);
    format!("{place} {word} dport {port} dnat {} to {to}", family(to.ip()))
}

fn postrouting(edge: &Edge) -> Vec<String> {
    let (mut exceptions, mut lines) = (Vec::new(), Vec::new());
    for Exposure { id, network, .. } in edge.exposures.iter().filter(|exposure| exposure.masquerade) {
        let (ip, bridge) = (family(network.cidr().addr()), bridge(*id));
        let multicast = if ip == "ip" { "224.0.0.0/4" } else { "ff00::/8" };
        exceptions.push(format!("{ip} saddr {network} {ip} daddr {multicast} return"));
        lines.push(format!("{ip} saddr {network} oifname != {{ \"{bridge}\", \"lo\" }} masquerade"));
        lines.push(format!("{ip} daddr {network} {ip} saddr != {network} oifname \"{bridge}\" masquerade"));
    }
    // An attachment without a default route can answer only what seems to come from its own network, and one that
    // asks for a published port of its own host must not be answered past the translation.
    for Publication { transport, to, id, .. } in &edge.publications {
        let (ip, word, bridge) = (family(to.ip()), transport.word(), bridge(*id));
        let (address, port) = (to.ip(), to.port());
        lines.push(format!("ct status dnat oifname \"{bridge}\" {ip} daddr {address} {word} dport {port} masquerade"));
    }
    lines.sort();
    lines.dedup();
    exceptions.extend(lines);
    exceptions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NetId, Transport};

    const BRIDGES: [&str; 2] = ["rnb000001", "rnb000002"];

    fn edge() -> Edge {
        let id = NetId::new(1).unwrap();
        Edge {
            exposures: vec![Exposure { id, network: "10.2.1.0/24".parse().unwrap(), masquerade: true }],
            publications: vec![Publication {
                transport: Transport::Tcp,
                host_ip: None,
                host_port: 8091,
                to: "10.2.1.9:8090".parse().unwrap(),
                id,
            }],
        }
    }

    fn bridges() -> BTreeSet<String> {
        BRIDGES.map(str::to_string).into()
    }

    #[test]
    fn table_is_replaced_in_one_transaction() {
        let text = render(&edge());
        assert!(text.starts_with("table inet rnet\ndelete table inet rnet\ntable inet rnet {\n"), "{text}");
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }

    #[test]
    fn networks_do_not_route_into_one_another_nor_out_unexposed() {
        let text = render(&edge());
        for rule in [
            "iifname \"rnb000001\" oifname \"rnb*\" oifname != \"rnb000001\" drop",
            "iifname \"rnb*\" iifname != \"rnb000001\" oifname \"rnb000001\" drop",
            "iifname \"rnb*\" iifname != { \"rnb000001\" } oifname != \"rnb*\" drop",
        ] {
            assert!(text.contains(rule), "{rule}: {text}");
        }
    }

    #[test]
    fn published_port_is_translated_for_this_host_only() {
        let text = render(&edge());
        let line = "meta nfproto ipv4 fib daddr type local tcp dport 8091 dnat ip to 10.2.1.9:8090";
        assert_eq!(text.matches(line).count(), 2, "prerouting and output: {text}");
        let mut edge = edge();
        edge.publications[0].host_ip = Some("192.0.2.1".parse().unwrap());
        assert!(render(&edge).contains("ip daddr 192.0.2.1 tcp dport 8091 dnat"), "{}", render(&edge));
    }

    #[test]
    fn loopback_of_the_host_is_out_of_reach() {
        assert!(render(&edge()).contains("iifname \"rnb*\" ip daddr 127.0.0.0/8 drop"));
    }

    #[test]
    fn multicast_is_never_masqueraded() {
        let text = render(&edge());
        let exception = text.find("224.0.0.0/4 return").unwrap();
        assert!(exception < text.find("masquerade").unwrap(), "{text}");
    }

    #[test]
    fn masquerade_is_left_out_on_request() {
        let mut edge = edge();
        edge.exposures[0].masquerade = false;
        edge.publications.clear();
        assert!(!render(&edge).contains("masquerade"));
    }

    #[test]
    fn other_firewalls_are_opened_only_as_far_as_needed() {
        let open = |ipv4, bridged| openings(&edge(), ipv4, &bridges(), bridged).into_iter().collect::<Vec<_>>();
        assert_eq!(open(true, false), ["iifname \"rnb000001\"", "oifname \"rnb000001\""]);
        assert!(open(false, false).is_empty());
        let within = BRIDGES.map(|bridge| format!("iifname \"{bridge}\" oifname \"{bridge}\""));
        assert_eq!(open(false, true), within);
        assert_eq!(open(true, true).len(), 4);
    }

    const LISTING: &str = "table ip filter {
\tchain FORWARD { # handle 1
\t\ttype filter hook forward priority filter; policy drop;
\t\toifname \"rnb000001\" counter packets 0 bytes 0 accept comment \"rnet\" # handle 3
\t\tiifname \"docker0\" counter packets 7 bytes 9 accept comment \"mine\" # handle 4
\t\tiifname \"rnb000001\" counter packets 0 bytes 0 accept comment \"rnet\" # handle 2
\t}
}";

    #[test]
    fn our_rules_are_found_among_others_and_left_alone_when_they_are_right() {
        let found = marked(LISTING);
        let expected = [("oifname \"rnb000001\"".to_string(), 3), ("iifname \"rnb000001\"".to_string(), 2)];
        assert_eq!(found, expected);
        let wanted = openings(&edge(), true, &bridges(), false);
        assert_eq!(correction("ip filter FORWARD", LISTING, &wanted), None);
        assert_eq!(correction("ip filter FORWARD", "", &BTreeSet::new()), None);
    }

    #[test]
    fn our_rules_are_replaced_together_and_nobody_elses_is_touched() {
        let wanted = BTreeSet::from(["iifname \"rnb000002\"".to_string()]);
        let text = correction("ip filter FORWARD", LISTING, &wanted).unwrap();
        let expected = "delete rule ip filter FORWARD handle 3
delete rule ip filter FORWARD handle 2
insert rule ip filter FORWARD iifname \"rnb000002\" counter accept comment \"rnet\"
";
        assert_eq!(text, expected);
        let nothing = correction("ip filter FORWARD", LISTING, &BTreeSet::new()).unwrap();
        assert!(nothing.starts_with("delete rule") && !nothing.contains("insert"), "{nothing}");
    }

    #[test]
    fn ipv6_uses_its_own_words() {
        let mut edge = edge();
        edge.exposures[0].network = "fd00:1::/64".parse().unwrap();
        edge.publications[0].to = "[fd00:1::9]:53".parse().unwrap();
        edge.publications[0].transport = Transport::Udp;
        let text = render(&edge);
        assert!(text.contains("ip6 saddr fd00:1::/64 oifname != { \"rnb000001\", \"lo\" } masquerade"), "{text}");
        let line = "meta nfproto ipv6 ip6 daddr != ::1 fib daddr type local udp dport 8091 dnat ip6 to [fd00:1::9]:53";
        assert!(text.contains(line), "{text}");
    }
}
