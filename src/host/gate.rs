//! Whose VXLAN the kernel takes in: a set of addresses in the packet filter, kept although others flush it.
//!
//! Owns the table `inet rnet_vxlan`. VXLAN says nothing of who sends: a kernel's device takes frames for its VNI from anybody
//! who reaches the UDP port. So they are dropped before the socket unless they come from a neighbour with which VXLAN is agreed (who can
//! send from its address can forge them still, which is why such paths are only where nothing is encrypted anyway). One text replaces the
//! table, in one transaction. What other tables drop stays dropped: the heartbeats show it.

use crate::io::firewall::{self, Watch};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// The table that is ours and nobody else's, of the family `inet`.
const TABLE: &str = "rnet_vxlan";
/// Changes within this time are answered together.
const PAUSE: Duration = Duration::from_millis(100);
/// And not more often than this.
const SPACING: Duration = Duration::from_secs(1);
/// How often it is looked whether the kernel has nftables, where it has none.
const NONE_YET: Duration = Duration::from_secs(60);
/// NFPROTO_INET.
const INET: u8 = 1;

/// See the head of this file. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<Mutex<Option<Kept>>>);

struct Kept {
    text: String,
    /// As the kernel shows it when it is right.
    right: String,
}

impl Gate {
    /// Takes in what these send to `port`, and nothing else. The error is one line.
    pub async fn set(&self, port: u16, from: &BTreeSet<IpAddr>) -> Result<(), String> {
        let mut kept = self.0.lock().await;
        let text = render(port, from);
        if kept.as_ref().is_some_and(|kept| kept.text == text) {
            return Ok(());
        }
        firewall::change(&text).await?;
        *kept = Some(Kept { text, right: listing().await });
        Ok(())
    }

    /// There is no such port any more.
    pub async fn clear(&self) -> Result<(), String> {
        if self.0.lock().await.take().is_none() {
            return Ok(());
        }
        firewall::change(&removal()).await
    }

    /// Puts back what others took away, for ever.
    pub async fn keep(self) {
        loop {
            if let Ok(watch) = Watch::open() {
                self.restore(watch).await;
            }
            // The kernel has no nftables yet, or the socket broke.
            sleep(NONE_YET).await;
        }
    }

    async fn restore(&self, mut watch: Watch) {
        while watch.changed(&[TABLE]).await.is_ok() {
            sleep(PAUSE).await;
            {
                let mut kept = self.0.lock().await;
                let Some(Kept { text, right }) = &mut *kept else { continue };
                if listing().await != *right {
                    tracing::warn!("somebody changed the table inet {TABLE} of the packet filter: it is put back");
                    match firewall::change(text).await {
                        Ok(()) => *right = listing().await,
                        Err(why) => tracing::error!("the table inet {TABLE} could not be put back: {why}"),
                    }
                }
            }
            // What was told meanwhile, our own doing among it, waits in the socket.
            sleep(SPACING).await;
        }
    }
}

/// Takes away what a killed router left. The error is one line.
pub(super) async fn remove() -> Result<(), String> {
    let is_there = |chain: &firewall::Chain| chain.family == INET && chain.table == TABLE;
    if firewall::chains().unwrap_or_default().iter().any(is_there) {
        firewall::change(&removal()).await?;
    }
    Ok(())
}

async fn listing() -> String {
    firewall::list(&["table", "inet", TABLE]).await.unwrap_or_default()
}

fn removal() -> String {
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}

fn render(port: u16, from: &BTreeSet<IpAddr>) -> String {
    let set = |name: &str, kind: &str, ipv4: bool| {
        let list: Vec<String> = from.iter().filter(|ip| ip.is_ipv4() == ipv4).map(IpAddr::to_string).collect();
        let elements = if list.is_empty() { String::new() } else { format!(" elements = {{ {} }};", list.join(", ")) };
        format!("  set {name} {{ type {kind};{elements} }}\n")
    };
    format!(
        "{}table inet {TABLE} {{\n{}{}  chain input {{\n    type filter hook input priority filter - 5; policy accept;\n    \
         udp dport {port} ip saddr @neighbours4 accept\n    udp dport {port} ip6 saddr @neighbours6 accept\n    \
         udp dport {port} drop\n  }}\n}}\n",
        removal(),
        set("neighbours4", "ipv4_addr", true),
        set("neighbours6", "ipv6_addr", false),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_neighbours_pass_and_nobody_does_without_one() {
        let from = ["10.0.0.2", "fd00::2", "10.0.0.1"].map(|ip| ip.parse().unwrap()).into();
        let text = render(6784, &from);
        assert!(text.starts_with("table inet rnet_vxlan\ndelete table inet rnet_vxlan\ntable inet rnet_vxlan {\n"));
        assert!(text.contains("set neighbours4 { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 }; }"), "{text}");
        assert!(text.contains("set neighbours6 { type ipv6_addr; elements = { fd00::2 }; }"), "{text}");
        let empty = render(6784, &BTreeSet::new());
        assert!(empty.contains("type ipv4_addr; }") && empty.contains("6784 drop\n  }"), "{empty}");
    }
}
