//! Whether this host can carry VXLAN by its kernel: asked before anything is opened, and again where it could not.
//!
//! Owns the questions and their answers in words; `kernel` opens. Kernels take settings that they do not know without a word, so
//! what counts is what is read back from a bridge and a device that exist for a moment. What is asked changes nothing for
//! anybody: neither the UDP port is taken, which our own sockets may have meanwhile, nor a packet.

use super::apply::Host;
use super::kernel::RULES;
use super::names;
use super::taken::{FOR_PEERS, by_device, taken};
use crate::io::door;
use crate::io::netlink::{Link, NetlinkError};
use crate::io::vxlan::Vxlan;
use crate::types::{Mac, VNI_OF_PEERS};

/// A bridge that exists for a moment, to see what the kernel can do.
const PROBE_BRIDGE: &str = "rnbffffff";

impl Host {
    /// Whether the kernel could do it, and no device of somebody else has the port. The error is one line.
    pub(super) async fn check_engine(&self, port: u16) -> Result<(), String> {
        self.check_port(port).await?;
        self.check_kernel().await?;
        self.fences.try_again().await
    }

    /// Whether the engine could be opened now. The error is one line.
    pub async fn try_kernel(&self, port: u16) -> Result<(), String> {
        self.check_engine(port).await?;
        // What a killed router left for us holds the port rightly.
        let kept = [false, true].map(|ipv6| names::vxlan(VNI_OF_PEERS, ipv6)).iter().any(|name| self.found.has(name));
        if !kept && door::open(port, self.at, 1).is_err_and(|why| why.kind() == std::io::ErrorKind::AddrInUse) {
            return Err(taken(&self.shared.netlink, port, FOR_PEERS).await);
        }
        Ok(())
    }

    /// Why a step failed: who has the port, where that is what failed.
    pub(super) async fn told(&self, port: u16, why: String) -> String {
        if !why.contains("Address already in use") {
            return why;
        }
        taken(&self.shared.netlink, port, FOR_PEERS).await
    }

    /// Nobody else has the port.
    async fn check_port(&self, port: u16) -> Result<(), String> {
        let all = self.shared.netlink.vxlans().await.map_err(|e| e.to_string())?;
        let foreign = |(link, vxlan): &&(Link, Vxlan)| vxlan.port == port && !names::is_vxlan(&link.name);
        if let Some((link, vxlan)) = all.iter().find(foreign) {
            return Err(by_device(port, link, vxlan, FOR_PEERS));
        }
        Ok(())
    }

    /// The kernel has what is asked of it, also what it would ignore without a word.
    async fn check_kernel(&self) -> Result<(), String> {
        let netlink = &self.shared.netlink;
        let probe = names::vxlan(VNI_OF_PEERS - 1, false);
        let _ = netlink.delete(PROBE_BRIDGE).await;
        let _ = netlink.delete(&probe).await;
        let device = Vxlan { vni: VNI_OF_PEERS - 1, port: 1, ipv6: false, local: None, whole: false, learns: false };
        let tried = async {
            netlink.add_bridge(PROBE_BRIDGE, 1500).await?;
            netlink.add_vxlan(&probe, &device, 1400).await?;
            netlink.set_master(&probe, PROBE_BRIDGE).await?;
            netlink.set_port(&probe, RULES).await?;
            let (mac, index) = (Mac([2, 0, 0, 0, 0, 1]), netlink.link(&probe).await?.map_or(0, |link| link.index));
            netlink.stick(index, mac).await?;
            let rules = netlink.port(&probe).await?;
            let entries = netlink.entries(&[index]).await?;
            Ok::<_, NetlinkError>((rules, entries.iter().any(|entry| entry.mac == mac && entry.sticky)))
        };
        let tried = tried.await;
        let _ = netlink.delete(&probe).await;
        let _ = netlink.delete(PROBE_BRIDGE).await;
        match tried {
            Ok((Some(RULES), true)) => Ok(()),
            Ok(_) => {
                Err("this kernel's bridges lack isolated ports or sticky entries (Linux 4.20 has them)".to_string())
            }
            Err(e) if e.is_unsupported() => Err("this kernel has no VXLAN devices (module vxlan)".to_string()),
            Err(e) => Err(e.to_string()),
        }
    }
}
