//! Address allocation as text: its part of the summary, and `rnet status ipam`.
//!
//! ```text
//! 7e:21:4a:70:2f:44(host1)                  524288 IPs (50.0% of total) (3 active)
//! 7e:21:4a:70:2f:45(host2)                  262144 IPs (25.0% of total) (1 active) - unreachable!
//! unowned                                   262144 IPs (25.0% of total)
//!
//! ready: 1 of 2 members within reach, 2 must agree to changes
//! waiting: web net:10.32.2.0/24 for 12s: <why>
//! ```

use super::{duration, line, who};
use crate::ipam::{IpamStatus, OwnerStatus};
use crate::node::status::Status;
use crate::types::{Network, PeerName};
use std::fmt::Write;

/// The section of `rnet status`.
pub fn summary(status: &Status, text: &mut String) {
    let Some(ipam) = &status.ipam else { return };
    let ranges: Vec<String> = ipam.ranges.iter().map(Network::to_string).collect();
    let default = ipam.default_subnet.map_or_else(|| "none".to_string(), |subnet| subnet.to_string());
    text.push('\n');
    let mut row = |label: &str, value: &str| {
        let _ = writeln!(text, "{label:>15}: {value}");
    };
    row("Service", "ipam");
    row("Status", &line(&ipam.state));
    row("Range", &ranges.join(" "));
    row("DefaultSubnet", &default);
    if !ipam.waiting.is_empty() {
        row("Waiting", &format!("{} (`rnet status ipam` says why)", ipam.waiting.len()));
    }
    if let Some(conflict) = &ipam.conflict {
        row("Conflict", &line(conflict));
    }
}

/// `rnet status ipam`.
pub fn text(status: &Status) -> String {
    let Some(ipam) = &status.ipam else { return "this router hands out no addresses\n".to_string() };
    let mut text = String::new();
    let mut owners: Vec<&OwnerStatus> = ipam.owners.iter().collect();
    owners.sort_by_key(|owner| (owner.peer != status.name, owner.peer));
    for owner in owners {
        let active = owner.used.map(|used| format!(" ({used} active)")).unwrap_or_default();
        let fate = match owner.standing.as_str() {
            "away" => " - set aside until it returns, or `rnet rmpeer`",
            "former" => " - of an earlier life of it, set aside until `rnet rmpeer`",
            _ if !owner.reachable => " - unreachable!",
            _ => "",
        };
        share(&mut text, &named(status, owner.peer), owner.total, ipam.total, &format!("{active}{fate}"));
    }
    if !ipam.owners.is_empty() {
        share(&mut text, "unowned", ipam.pool, ipam.total, "");
        text.push('\n');
    }
    let _ = writeln!(text, "{}", state(ipam));
    for waiting in &ipam.waiting {
        let key = waiting.key.as_ref().map(|key| format!("{} ", line(key))).unwrap_or_default();
        let (what, time, why) = (line(&waiting.what), duration(waiting.seconds), line(&waiting.why));
        let _ = writeln!(text, "waiting: {key}{what} for {time}: {why}");
    }
    if let Some(conflict) = &ipam.conflict {
        let _ = writeln!(text, "conflict: {}", line(conflict));
    }
    text
}

fn state(ipam: &IpamStatus) -> String {
    let state = line(&ipam.state);
    if ipam.members == 0 {
        return state;
    }
    let IpamStatus { members, within_reach, quorum, .. } = ipam;
    format!("{state}: {within_reach} of {members} members within reach, {quorum} must agree to changes")
}

fn named(status: &Status, peer: PeerName) -> String {
    let listed = status.peers.iter().find(|known| known.name == peer).map(|known| &known.nickname);
    match listed.or_else(|| status.nicknames.get(&peer)) {
        Some(nickname) => who(peer, nickname),
        None => peer.to_string(),
    }
}

fn share(text: &mut String, whose: &str, part: u64, total: u64, story: &str) {
    // Tenths of a per cent, rounded down, without leaving whole numbers.
    let tenths = if total == 0 { 0 } else { u128::from(part) * 1000 / u128::from(total) };
    let _ = writeln!(text, "{whose:<37} {part:>8} IPs ({:02}.{}% of total){story}", tenths / 10, tenths % 10);
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;
    use crate::ipam::WaitingStatus;
    use crate::types::{Mac, Nickname};

    fn name(last: u8) -> PeerName {
        PeerName(Mac([0x7e, 0x21, 0x4a, 0x70, 0x2f, last]))
    }

    fn owner(last: u8, standing: &str, total: u64, used: Option<u64>) -> OwnerStatus {
        let reachable = last == 0x44;
        OwnerStatus { peer: name(last), standing: standing.into(), reachable, runs: vec![], total, used }
    }

    fn ipam() -> IpamStatus {
        let range = "10.32.0.0/12".parse().unwrap();
        let waiting = WaitingStatus {
            key: Some("we\u{1b}b".into()),
            what: "net:10.32.2.0/24".into(),
            why: "asked host2 for space".into(),
            seconds: 72,
        };
        IpamStatus {
            ranges: vec![range],
            default_subnet: Some(range),
            state: "ready".into(),
            ready: true,
            version: 9,
            fingerprint: Default::default(),
            members: 2,
            quorum: 2,
            within_reach: 1,
            owners: vec![
                owner(0x43, "away", 64, None),
                owner(0x44, "member", 524_288, Some(3)),
                owner(0x45, "member", 1, Some(1)),
            ],
            pool: 524_223,
            total: 1 << 20,
            waiting: vec![waiting],
            conflict: None,
            strangers: vec![],
            malformed: 0,
        }
    }

    #[test]
    fn renders_shares_own_first_and_what_waits() {
        let mut status = Status { ipam: Some(ipam()), ..sample() };
        status.nicknames.insert(name(0x43), Nickname::new("dead"));
        insta::assert_snapshot!(text(&status), @"
        7e:21:4a:70:2f:44(host1)                524288 IPs (50.0% of total) (3 active)
        7e:21:4a:70:2f:43(dead)                     64 IPs (00.0% of total) - set aside until it returns, or `rnet rmpeer`
        7e:21:4a:70:2f:45(host2)                     1 IPs (00.0% of total) (1 active) - unreachable!
        unowned                                 524223 IPs (49.9% of total)

        ready: 1 of 2 members within reach, 2 must agree to changes
        waiting: we?b net:10.32.2.0/24 for 1m12s: asked host2 for space
        ");
    }

    #[test]
    fn renders_its_part_of_the_summary() {
        let mut shown = String::new();
        let conflict = Some("another address space is near".to_string());
        summary(&Status { ipam: Some(IpamStatus { conflict, ..ipam() }), ..sample() }, &mut shown);
        insta::assert_snapshot!(shown.trim_start(), @"
        Service: ipam
                 Status: ready
                  Range: 10.32.0.0/12
          DefaultSubnet: 10.32.0.0/12
                Waiting: 1 (`rnet status ipam` says why)
               Conflict: another address space is near
        ");
    }

    #[test]
    fn says_so_where_there_is_none() {
        let status = Status { ipam: None, ..sample() };
        let mut shown = String::new();
        summary(&status, &mut shown);
        assert!(shown.is_empty() && text(&status).contains("no addresses"));
    }
}
