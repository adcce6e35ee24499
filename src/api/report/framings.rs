//! What carries frames to peers, as text: of the router, and of a path.

use super::{duration, line};
use crate::node::status::{FramingStatus, PathStatus};
use crate::types::Framing;

/// `auto (vxlan by UDP port 6784; kernel: why not)`.
pub(super) fn summary(framing: &FramingStatus) -> String {
    let uses = match (framing.engine, framing.port) {
        (Some(engine), Some(port)) => format!("{engine} by UDP port {port}"),
        _ => "udp".to_string(),
    };
    let offloaded = match framing.offloaded {
        0 => String::new(),
        macs => format!(", {macs} MACs by the kernel alone"),
    };
    let info = if framing.info.is_empty() { String::new() } else { format!("; {}", line(&framing.info)) };
    let wanted = if framing.wanted.is_empty() { "auto" } else { &framing.wanted };
    format!("{wanted} ({uses}{offloaded}{info})")
}

/// For how long the framing in use is, and why it is no better one; nothing of a path that has no choice.
pub(super) fn of_path(path: &PathStatus) -> Vec<String> {
    let (framing, why) = (path.framing, &path.why_not_better);
    let since = format!("{framing}={}", duration(path.framing_for));
    match (framing, why.is_empty()) {
        (Framing::Udp, true) => Vec::new(),
        (_, true) => vec![since],
        (_, false) => vec![since, format!("not {}", line(why))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_is_used_and_why_nothing_better() {
        let none = FramingStatus { info: "--framing udp".into(), wanted: "udp".into(), ..FramingStatus::default() };
        assert_eq!(summary(&none), "udp (udp; --framing udp)");
        let some =
            FramingStatus { engine: Some(Framing::Kernel), port: Some(6784), offloaded: 3, ..Default::default() };
        assert_eq!(summary(&some), "auto (kernel by UDP port 6784, 3 MACs by the kernel alone)");
    }

    #[test]
    fn a_path_tells_for_how_long_and_why_not() {
        let path = |framing, why: &str| PathStatus {
            framing,
            framing_for: 72,
            why_not_better: why.into(),
            endpoint: "192.0.2.1:6783".parse().unwrap(),
            rtt_us: 0,
            jitter_us: 31,
            loss_out_percent: 0.0,
            loss_in_percent: 0.0,
            arrived: 0,
            lost: 0,
            cost_us: 0,
            mtu: 0,
            cipher: None,
            epoch: 1,
            up_for: 100,
        };
        assert_eq!(of_path(&path(Framing::Udp, "")), Vec::<String>::new());
        assert_eq!(of_path(&path(Framing::Vxlan, "")), ["vxlan=1m12s"]);
        assert_eq!(of_path(&path(Framing::Udp, "kernel: why")), ["udp=1m12s", "not kernel: why"]);
    }
}
