//! What is told of captured interfaces, in the views of connections and networks.

use super::{columns, counted, line};
use crate::node::status::{NetworkStatus, Status, UplinkCondition, UplinkStatus};
use std::fmt::Write;

/// The rows of connections.
pub(super) fn connections(uplinks: &[UplinkStatus]) -> impl Iterator<Item = Vec<String>> + '_ {
    uplinks.iter().map(|uplink| {
        let (interface, condition) = (uplink.interface.to_string(), condition(uplink.condition));
        vec!["--".to_string(), format!("{interface:<21}"), format!("{condition:<11}"), story(uplink)]
    })
}

/// The rows of `status targets`: what was asked for.
pub(super) fn targets(uplinks: &[UplinkStatus]) -> String {
    let row = |uplink: &UplinkStatus| {
        vec![uplink.interface.to_string(), uplink.network.to_string(), format!("capture={}", uplink.capture)]
    };
    columns(&uplinks.iter().map(row).collect::<Vec<_>>())
}

/// In a word.
pub(super) fn condition(condition: UplinkCondition) -> &'static str {
    match condition {
        UplinkCondition::Carrying => "bridged",
        UplinkCondition::Listening => "listening",
        UplinkCondition::Blocked => "blocked",
        UplinkCondition::Away => "away",
    }
}

fn story(uplink: &UplinkStatus) -> String {
    let mut story = format!("{:<11} {:<6} {}", "unencrypted", uplink.capture, uplink.network);
    if uplink.condition != UplinkCondition::Away {
        let (from, to) = (uplink.from_uplink.frames, uplink.to_uplink.frames);
        let _ = write!(story, " port={} mtu={} frames-in={from} frames-out={to}", uplink.port, uplink.mtu);
    }
    if !uplink.info.is_empty() {
        story = format!("{story} {}", line(&uplink.info));
    }
    story
}

/// Those of a network, after its peers.
pub(super) fn of_network(network: &NetworkStatus) -> impl Iterator<Item = String> + '_ {
    network.uplinks.iter().map(ToString::to_string)
}

/// The summary's line, if there are any.
pub(super) fn summary(status: &Status) -> Option<String> {
    let count = |wanted| status.uplinks.iter().filter(|uplink| uplink.condition == wanted).count();
    let troubles = [(count(UplinkCondition::Blocked), "blocked: a loop"), (count(UplinkCondition::Away), "away")];
    let troubles: Vec<String> =
        troubles.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
    let all = counted(status.uplinks.len(), "interface");
    match (status.uplinks.is_empty(), troubles.is_empty()) {
        (true, _) => None,
        (false, true) => Some(all),
        (false, false) => Some(format!("{all} ({})", troubles.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{View, json, text};
    use super::*;
    use crate::node::status::Count;

    fn sample() -> Status {
        let uplink = |interface: &str, port, condition, info: &str| UplinkStatus {
            interface: interface.parse().unwrap(),
            network: "10.2.1.0/24".parse().unwrap(),
            capture: "packet".to_string(),
            port,
            condition,
            mtu: 1500,
            from_uplink: Count { frames: 12, bytes: 1400 },
            to_uplink: Count { frames: 7, bytes: 700 },
            info: info.to_string(),
        };
        let mut status = super::super::tests::sample();
        status.networks[0].uplinks = vec!["eth1".parse().unwrap()];
        status.uplinks = vec![
            uplink("eth1", 3, UplinkCondition::Carrying, ""),
            uplink("eth2", 4, UplinkCondition::Blocked, "a loop: eth1 of this host keeps this segment"),
            uplink("usb0", 0, UplinkCondition::Away, "there is no such interface"),
        ];
        status
    }

    #[test]
    fn renders_captured_interfaces_where_people_look() {
        let all = [View::Targets, View::Connections, View::Networks].map(|view| {
            let text = text(&sample(), view);
            let names = ["eth1", "eth2", "usb0"];
            let told = text.lines().filter(|line| names.iter().any(|name| line.contains(name)));
            told.map(|line| format!("{line}\n")).collect::<String>()
        });
        insta::assert_snapshot!(all.join("--\n"), @r"
        eth1 10.2.1.0/24 capture=packet
        eth2 10.2.1.0/24 capture=packet
        usb0 10.2.1.0/24 capture=packet
        --
        -- eth1                  bridged     unencrypted packet 10.2.1.0/24 port=3 mtu=1500 frames-in=12 frames-out=7
        -- eth2                  blocked     unencrypted packet 10.2.1.0/24 port=4 mtu=1500 frames-in=12 frames-out=7 a loop: eth1 of this host keeps this segment
        -- usb0                  away        unencrypted packet 10.2.1.0/24 there is no such interface
        --
        10.2.1.0/24 id=8312a4 open 1 attachment 2 addresses 7e:21:4a:70:2f:44(host1) 7e:21:4a:70:2f:99 eth1
        ");
        let ways: Vec<serde_json::Value> = serde_json::from_str(&json(&sample(), View::Connections).unwrap()).unwrap();
        let interfaces = ways.iter().filter(|way| way["kind"] == "interface");
        let words: Vec<String> = interfaces.map(|way| format!("{} {}", way["interface"], way["state"])).collect();
        assert_eq!(words, [r#""eth1" "bridged""#, r#""eth2" "blocked""#, r#""usb0" "away""#]);
        assert!(text(&sample(), View::Summary).contains("Bridged: 3 interfaces (1 blocked: a loop, 1 away)\n"));
        let parsed: Status = serde_json::from_str(&json(&sample(), View::Summary).unwrap()).unwrap();
        assert_eq!(parsed, sample());
    }
}
