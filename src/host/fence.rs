//! The port guard in the kernel: set up, kept although others flush it, and taken away.
//!
//! Owns the table `netdev rnet_guard`, one chain for each guarded device. What a chain says is `guard`'s; which devices are
//! guarded follows from the plan. The table goes with its last chain.
//!
//! A kernel or host that lacks nftables can run networks all the same: that is told once, when the first network opens, and
//! what was to be set is remembered until it can be ([`Fences::try_again`]). Any other failure refuses the network or the
//! attachment that cannot be guarded.

use super::guard;
use crate::io::firewall::{self, Watch};
use nix::net::if_::if_nametoindex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Changes within this time are answered together.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is looked whether the kernel has nftables, where it has none.
const NONE_YET: Duration = Duration::from_secs(60);
/// What the kernel's VXLAN cannot do without.
pub const NEEDED: &str = "it needs a packet filter on devices (nft, nf_tables with the family netdev)";
/// NFPROTO_NETDEV.
const NETDEV: u8 = 5;

/// See the head of this file. Cheap to clone.
#[derive(Clone, Default)]
pub struct Fences(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// By device: the text that guards it.
    guarded: BTreeMap<String, String>,
    /// Whether it has worked, or is known not to.
    works: Option<bool>,
}

impl Fences {
    /// Guards `device` by `text`. The error is one line.
    pub async fn set(&self, device: &str, text: String) -> Result<(), String> {
        let mut kept = self.0.lock().await;
        if kept.works == Some(false) {
            kept.guarded.insert(device.to_string(), text);
            return Ok(());
        }
        match firewall::change(&text).await {
            Ok(()) => {
                kept.works = Some(true);
                kept.guarded.insert(device.to_string(), text);
                Ok(())
            }
            Err(why) if kept.works.is_none() && is_lacking(&why) => {
                kept.works = Some(false);
                kept.guarded.insert(device.to_string(), text);
                tracing::warn!("attachments of one network on this host can pass for one another: {why}");
                Ok(())
            }
            Err(why) => Err(format!("guarding {device}: {why}")),
        }
    }

    /// Guards `device` no longer; it may be gone. The error is one line.
    pub async fn clear(&self, device: &str) -> Result<(), String> {
        let mut kept = self.0.lock().await;
        if kept.guarded.remove(device).is_none() || kept.works == Some(false) {
            return Ok(());
        }
        if kept.guarded.is_empty() {
            return firewall::change(&guard::removal_of_all()).await;
        }
        // Some kernels take the chain away with its device.
        if chains().iter().any(|chain| chain == device) {
            firewall::change(&guard::removal(device)).await
        } else {
            Ok(())
        }
    }

    /// Takes away what a killed router had set for `device`.
    pub async fn clear_kept(&self, device: &str) -> Result<(), String> {
        let kept = self.0.lock().await;
        if kept.guarded.contains_key(device) || !chains().iter().any(|chain| chain == device) {
            return Ok(());
        }
        firewall::change(&guard::removal(device)).await
    }

    /// Whether this host can guard nothing.
    pub async fn are_lacking(&self) -> bool {
        self.0.lock().await.works == Some(false)
    }

    /// Guards what could not be guarded so far, if it can be by now. The error is one line: what is lacking.
    pub async fn try_again(&self) -> Result<(), String> {
        let mut kept = self.0.lock().await;
        if kept.works == Some(true) {
            return Ok(());
        }
        let all: String = kept.guarded.values().map(String::as_str).collect();
        let text = [guard::trial(), all].concat();
        firewall::change(&text).await.map_err(|why| format!("{NEEDED}: {why}"))?;
        if kept.works == Some(false) {
            kept.works = Some(true);
            tracing::info!("attachments of one network on this host cannot pass for one another any more");
        }
        Ok(())
    }

    /// Sets again what hands frames to `capture`, which is another device now. The error is one line.
    pub async fn renew(&self, capture: &str) -> Result<(), String> {
        let kept = self.0.lock().await;
        if kept.works == Some(false) {
            return Ok(());
        }
        for text in kept.guarded.values().filter(|text| guard::hands_to(text, capture)) {
            firewall::change(text).await.map_err(|why| format!("guarding: {why}"))?;
        }
        Ok(())
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
        while watch.changed(&[guard::TABLE]).await.is_ok() {
            sleep(PAUSE).await;
            let kept = self.0.lock().await;
            if kept.works == Some(false) {
                continue;
            }
            let there = chains();
            // One whose device is gone is about to be cleared.
            let is_lost = |device: &String| !there.contains(device) && if_nametoindex(device.as_str()).is_ok();
            let lost: Vec<&String> =
                kept.guarded.iter().filter(|(device, _)| is_lost(device)).map(|(_, text)| text).collect();
            if lost.is_empty() {
                continue;
            }
            tracing::warn!("somebody took the port guard out of the packet filter: it is put back");
            for text in lost {
                if let Err(why) = firewall::change(text).await {
                    tracing::warn!("the port guard could not be put back: {why}");
                }
            }
        }
    }
}

/// Whether the host has no `nft`, or the kernel not what is asked of it.
fn is_lacking(why: &str) -> bool {
    ["is missing", "not supported", "No such file or directory"].iter().any(|words| why.contains(words))
}

/// Takes away what a killed router left, but for the guards of `kept` devices. Answers whether there was something.
pub async fn sweep(kept: &BTreeSet<String>) -> Result<bool, String> {
    let (stay, go): (Vec<String>, Vec<String>) = chains().into_iter().partition(|chain| kept.contains(chain));
    if go.is_empty() {
        return Ok(false);
    }
    let text = match stay.as_slice() {
        [] => guard::removal_of_all(),
        _ => go.iter().map(|chain| guard::removal(chain)).collect(),
    };
    firewall::change(&text).await.map(|()| true)
}

/// The names of our chains in the kernel.
fn chains() -> Vec<String> {
    let all = firewall::chains().unwrap_or_default().into_iter();
    all.filter(|chain| chain.family == NETDEV && chain.table == guard::TABLE).map(|chain| chain.name).collect()
}
