//! What is told of VTEPs, in the views of targets, connections and networks.

use super::{columns, counted, duration, line};
use crate::node::status::{NetworkStatus, Status, VtepStatus};
use crate::types::VtepAddress;
use std::fmt::Write;

/// The targets' lines: where it is, and what it was joined with.
pub(super) fn targets(vteps: &[VtepStatus]) -> String {
    let row = |vtep: &VtepStatus| {
        let local = format!("local-port={}", vtep.local_port);
        let is_usual = vtep.local_port == vtep.address.socket().port();
        let words = [vtep.address.to_string(), vtep.network.to_string(), format!("vni={}", vtep.vni)];
        words.into_iter().chain((!is_usual).then_some(local)).collect()
    };
    columns(&vteps.iter().map(row).collect::<Vec<_>>())
}

/// The rows of connections.
pub(super) fn connections(vteps: &[VtepStatus]) -> impl Iterator<Item = Vec<String>> + '_ {
    vteps.iter().map(|vtep| {
        let state = state(vtep);
        vec!["->".to_string(), format!("{:<21}", vtep.address.to_string()), format!("{state:<11}"), story(vtep)]
    })
}

/// In a word.
pub(super) fn state(vtep: &VtepStatus) -> &'static str {
    match (vtep.info.is_empty(), vtep.blocked) {
        (false, _) => "failed",
        (true, true) => "blocked",
        (true, false) => "vtep",
    }
}

fn story(vtep: &VtepStatus) -> String {
    let mut story = format!("{:<11} {:<6} {} vni={}", "unencrypted", "vxlan", vtep.network, vtep.vni);
    if !vtep.info.is_empty() {
        return format!("{story} {}, tried again", line(&vtep.info));
    }
    let (from, to) = (vtep.from_vtep.frames, vtep.to_vtep.frames);
    let _ = write!(story, " mtu={} frames-in={from} frames-out={to}", vtep.mtu);
    story += &match vtep.last_heard {
        Some(seconds) => format!(" heard={}", duration(seconds)),
        None => " never heard".to_string(),
    };
    if vtep.shared.is_empty() { story } else { format!("{story} {}", line(&vtep.shared)) }
}

/// Those of a network, after its peers.
pub(super) fn of_network(network: &NetworkStatus) -> impl Iterator<Item = String> + '_ {
    network.vteps.iter().map(VtepAddress::to_string)
}

/// The summary's line, if there are any.
pub(super) fn summary(status: &Status) -> Option<String> {
    let count = |wanted: fn(&&VtepStatus) -> bool| status.vteps.iter().filter(wanted).count();
    let troubles = [
        (count(|vtep| !vtep.info.is_empty()), "not joined"),
        (count(|vtep| !vtep.shared.is_empty()), "joined by another host too"),
    ];
    let troubles: Vec<String> =
        troubles.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
    let all = counted(status.vteps.len(), "VTEP");
    match (status.vteps.is_empty(), troubles.is_empty()) {
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
        let vtep = |address: &str, vni: u32, local_port, info: &str| VtepStatus {
            address: address.parse().unwrap(),
            network: "10.2.1.0/24".parse().unwrap(),
            vni: vni.try_into().unwrap(),
            local_port,
            mtu: 1450,
            from_vtep: Count { frames: 12, bytes: 1400 },
            to_vtep: Count { frames: 7, bytes: 700 },
            last_heard: None,
            blocked: false,
            shared: String::new(),
            info: info.to_string(),
        };
        let mut status = super::super::tests::sample();
        let (blocked, shared) = (true, "host2 carries it".to_string());
        let heard = VtepStatus { last_heard: Some(3), blocked, shared, ..vtep("vxlan://10.0.0.5", 42, 4789, "") };
        status.networks[0].vteps = vec![heard.address];
        status.vteps =
            vec![heard, vtep("vxlan://10.0.0.6:8472", 1, 4790, ""), vtep("vxlan://[fd00::5]", 9, 4789, "port in use")];
        status
    }

    #[test]
    fn renders_vteps_where_people_look() {
        let all = [View::Targets, View::Connections, View::Networks].map(|view| {
            let text = text(&sample(), view);
            text.lines().filter(|line| line.contains("vxlan://")).map(|line| format!("{line}\n")).collect::<String>()
        });
        insta::assert_snapshot!(all.join("--\n"), @r"
        vxlan://10.0.0.5      10.2.1.0/24 vni=42
        vxlan://10.0.0.6:8472 10.2.1.0/24 vni=1  local-port=4790
        vxlan://[fd00::5]     10.2.1.0/24 vni=9
        --
        -> vxlan://10.0.0.5      blocked     unencrypted vxlan  10.2.1.0/24 vni=42 mtu=1450 frames-in=12 frames-out=7 heard=3s host2 carries it
        -> vxlan://10.0.0.6:8472 vtep        unencrypted vxlan  10.2.1.0/24 vni=1 mtu=1450 frames-in=12 frames-out=7 never heard
        -> vxlan://[fd00::5]     failed      unencrypted vxlan  10.2.1.0/24 vni=9 port in use, tried again
        --
        10.2.1.0/24 id=8312a4 open 1 attachment 2 addresses 7e:21:4a:70:2f:44(host1) 7e:21:4a:70:2f:99 vxlan://10.0.0.5
        ");
        assert!(
            text(&sample(), View::Summary).contains("VTEPs: 3 VTEPs (1 not joined, 1 joined by another host too)\n")
        );
        let parsed: Status = serde_json::from_str(&json(&sample(), View::Summary).unwrap()).unwrap();
        assert_eq!(parsed, sample());
        assert!(json(&sample(), View::Targets).unwrap().contains("\"vxlan://10.0.0.5\""));
    }
}
