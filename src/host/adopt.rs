//! What a router that was killed left on this machine: taken over where it is as it is to be, and swept where it is not.
//!
//! Owns the two times at which that is decided. At the start everything goes that nothing remembered has a use for. The rest stays and
//! goes on working, and each step that would make such a device takes it over instead (`AddBridge`, `AddVeth`, `AddVxlan`): frames that pass
//! without the router (between attachments here, and by the kernel's VXLAN) never notice that it was away. When all that was
//! remembered is back, what nobody took over goes too.
//!
//! ```text
//! killed | launch: sweep(keep)   networks, attachments, VXLAN devices: steps take over   SweepRest | as after any launch
//!        |  other devices gone |  rules of the packet filter replaced one by one       |  the rest |
//! ```
//!
//! A TAP goes with its router, so a network's capture port is always made anew. Nothing is taken over by its name alone: a veth pair has to
//! have both ends where they are to be, a VXLAN device all its settings.

use super::apply::{Host, Shared};
use super::{fence, firewall, names};
use crate::io::netlink::Link;
use crate::node::command::{Attachment, HOST_KEY, Place};
use crate::types::{HostAddress, NetId, VNI_OF_PEERS};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a dead router's kernel objects may take to go.
const SWEEP_PATIENCE: Duration = Duration::from_secs(2);

/// What of a killed router's devices may be of use, by what is remembered of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Keep {
    pub(super) devices: BTreeSet<String>,
    /// Bridges that the host has these addresses on.
    exposed: BTreeSet<(String, HostAddress)>,
    /// Something was exposed or published: the packet filter is replaced, not removed.
    edge: bool,
}

impl Keep {
    /// What these attachments need; and the VXLAN devices of their networks, if the kernel's engine may be used.
    pub fn of(attachments: &[Attachment], vxlan: bool) -> Keep {
        let mut keep = Keep::default();
        if vxlan {
            keep.devices.extend([false, true].map(|ipv6| names::vxlan(VNI_OF_PEERS, ipv6)));
        }
        for attachment in attachments {
            keep.edge |= attachment.key == HOST_KEY || !attachment.published.is_empty();
            for interface in &attachment.interfaces {
                let bridge = names::bridge(interface.id);
                match attachment.place {
                    Place::Host => {
                        keep.exposed.extend(interface.addresses.iter().map(|address| (bridge.clone(), *address)))
                    }
                    _ => drop(keep.devices.insert(names::veth(&attachment.key, &interface.name))),
                }
                keep.devices.insert(bridge);
                if vxlan {
                    keep.devices.extend([false, true].map(|ipv6| names::vxlan(interface.id.value(), ipv6)));
                }
            }
        }
        keep
    }
}

/// What was found and may be taken over.
#[derive(Debug, Default)]
pub(super) struct Found {
    devices: BTreeSet<String>,
    all: BTreeSet<String>,
    /// Bridges that the host was exposed on: not shut before it is known that it is so no more.
    exposed: BTreeSet<String>,
}

impl Found {
    /// Whether there is such a device to take over; only once.
    pub fn take(&mut self, name: &str) -> bool {
        self.devices.remove(name)
    }

    /// Whether there is such a device, or was one that is taken over by now.
    pub fn has(&self, name: &str) -> bool {
        self.all.contains(name)
    }

    /// Whether the host goes on using this bridge.
    pub fn is_exposed(&self, bridge: &str) -> bool {
        self.exposed.contains(bridge)
    }

    /// The host uses it by a step of its own from now on.
    pub fn expose(&mut self, bridge: &str) {
        self.exposed.remove(bridge);
    }
}

impl Host {
    /// Deletes every device in this namespace that a dead router left and that is not to be kept, and answers their names.
    ///
    /// Refused if a living router has devices here: a second router in one network namespace would take them away.
    pub async fn sweep(&mut self, keep: &Keep) -> Result<Vec<String>, String> {
        let leftovers = self.shared.leftovers().await?;
        let (kept, swept): (Vec<Link>, Vec<Link>) =
            leftovers.into_iter().partition(|link| keep.devices.contains(&link.name));
        let kept: BTreeSet<String> = kept.into_iter().map(|link| link.name).collect();
        let mut told = Vec::new();
        // Its rules go on holding for what is kept; they are replaced, each when its turn comes.
        let others =
            if kept.is_empty() || !keep.edge { firewall::sweep(!swept.is_empty(), &kept).await? } else { false };
        if others | fence::sweep(&kept).await? {
            told.push("the packet filter's rules".to_string());
        }
        for link in swept {
            // A veth's other end went with the first.
            if self.shared.netlink.delete(&link.name).await.map_err(|e| e.to_string())? {
                told.push(link.name);
            }
        }
        self.hide_what_was_not(&kept, keep).await?;
        if !kept.iter().any(|name| names::is_vxlan(name)) {
            super::gate::remove().await?;
        }
        self.found.exposed =
            keep.exposed.iter().map(|(name, _)| name.clone()).filter(|name| kept.contains(name)).collect();
        self.found.devices.clone_from(&kept);
        self.found.all = kept;
        Ok(told)
    }

    /// Takes addresses off kept bridges that the host is not remembered to have there.
    async fn hide_what_was_not(&self, kept: &BTreeSet<String>, keep: &Keep) -> Result<(), String> {
        if kept.is_empty() {
            return Ok(());
        }
        let links = self.shared.netlink.links().await.map_err(|e| e.to_string())?;
        for (index, held) in self.shared.netlink.addresses().await.map_err(|e| e.to_string())? {
            let Some(link) = links.iter().find(|link| link.index == index && kept.contains(&link.name)) else {
                continue;
            };
            let Ok(address) = held.to_string().parse::<HostAddress>() else { continue };
            if !keep.exposed.contains(&(link.name.clone(), address)) {
                self.shared.netlink.remove_address(&link.name, address).await.map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }

    /// Deletes what was kept and nobody took over: all that was remembered is back.
    pub(super) async fn sweep_rest(&mut self) -> Result<(), String> {
        for bridge in std::mem::take(&mut self.found.exposed) {
            if !self.found.devices.contains(&bridge) {
                self.fences.set(&bridge, super::guard::bridge(&bridge)).await?;
            }
        }
        self.found.all.clear();
        for name in std::mem::take(&mut self.found.devices) {
            if self.shared.netlink.delete(&name).await.map_err(|e| e.to_string())? {
                tracing::info!("removed what a killed router had left: {name}");
            }
            self.fences.clear_kept(&name).await?;
        }
        if !self.kernel.is_open().await {
            super::gate::remove().await?;
        }
        self.firewall.settle().await;
        Ok(())
    }
}

impl Shared {
    /// Devices of ours that no living router has.
    async fn leftovers(&self) -> Result<Vec<Link>, String> {
        let deadline = Instant::now() + SWEEP_PATIENCE;
        loop {
            let mut links = self.netlink.links().await.map_err(|e| e.to_string())?;
            links.retain(|link| names::is_ours(&link.name, &link.kind));
            let Some(used) = links.iter().find(|link| names::is_in_use(&link.name, link.promiscuity)) else {
                return Ok(links);
            };
            if Instant::now() >= deadline {
                return Err(format!("another router is running in this network namespace (it holds {})", used.name));
            }
            // A router that was killed a moment ago: the kernel is still taking its descriptors down.
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The network that a device of ours is of, if its name says that.
pub(super) fn network_of(name: &str) -> Option<NetId> {
    NetId::new(u32::from_str_radix(name.get(3..)?, 16).ok()?)
}
