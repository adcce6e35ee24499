//! The namespace of an attachment: entered, and changed by the steps that are `Inside`.
//!
//! Owns how a place becomes a namespace, and the settings of interfaces there. An interface that is there already as it is to be, which
//! only one that a killed router left can be (`adopt`), is taken over: every step that it needs no more does nothing.

use super::adopt::Found;
use super::plan::Step;
use crate::io::netlink::{Netlink, NetlinkError, Veth};
use crate::io::netns::{Netns, set_sysctl};
use crate::io::pidfd::{Pidfd, started};
use crate::node::command::Place;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// An attachment's namespace, and its process where the attachment ends with that.
pub(super) struct Inside {
    pub namespace: Netns,
    netlink: Netlink,
    pub process: Option<Pidfd>,
    /// Where it is: this very process, if it was given by its number.
    pub place: Place,
    /// Interfaces that a killed router left and that were taken over as they are.
    adopted: Mutex<BTreeSet<String>>,
}

impl Inside {
    /// Opens the namespace of an attachment. Refuses the router's own.
    pub fn enter(place: &Place, own: &Netns) -> Result<Inside, String> {
        let named = match place {
            Place::Pid(pid) | Place::Process { pid, .. } => format!("pid {pid}"),
            Place::Path(path) => path.clone(),
            Place::Host => return Err("the host itself has no namespace to enter".to_string()),
        };
        let failed = |e: io::Error| match (place, e.kind(), e.raw_os_error()) {
            (Place::Path(_), io::ErrorKind::NotFound, _) => format!("{named}: no such network namespace"),
            (Place::Path(_), ..) => format!("{named}: {e}"),
            (_, io::ErrorKind::NotFound, _) | (_, _, Some(libc::ESRCH)) => format!("{named}: no such process"),
            (_, _, Some(libc::EINVAL)) => format!("{named}: not a process"),
            _ => format!("{named}: {e}"),
        };
        let (namespace, process, place) = match place {
            Place::Pid(pid) | Place::Process { pid, .. } => {
                // The descriptor first: if the process lives after its namespace was opened, they belong together.
                let process = Pidfd::open(*pid).map_err(failed)?;
                let began = started(*pid).map_err(failed)?;
                if let Place::Process { started, .. } = place
                    && *started != began
                {
                    return Err(format!("{named}: the process has ended, and another one has its number"));
                }
                let namespace = Netns::of_process(*pid).map_err(failed)?;
                if process.is_gone() {
                    return Err(format!("{named}: the process has ended"));
                }
                (namespace, Some(process), Place::Process { pid: *pid, started: began })
            }
            Place::Path(path) => (Netns::at(Path::new(path)).map_err(failed)?, None, place.clone()),
            Place::Host => return Err(named),
        };
        if own.is(&namespace).map_err(failed)? {
            return Err(format!("{named}: that is the host's own network namespace"));
        }
        let netlink = Netlink::open_in(&namespace).map_err(failed)?;
        Ok(Inside { namespace, netlink, process, place, adopted: Mutex::default() })
    }

    /// Runs one step; `outside` is where the router is.
    pub async fn execute(&self, step: &Step, outside: &Netlink, found: &mut Found) -> Result<(), String> {
        let netlink = &self.netlink;
        let result = match step {
            Step::AddVeth { name, peer, mac, mtu } => {
                if self.adopts(step, outside, found).await? {
                    return Ok(());
                }
                let veth = Veth { name, peer, inside: Some(&self.namespace), mac: Some(*mac), mtu: *mtu };
                outside.add_veth(veth).await
            }
            Step::InsideAddress { name, address } => match netlink.add_address(name, *address).await {
                Err(e) if e.is_there() && self.is_adopted(name) => Ok(()),
                other => other,
            },
            Step::InsideMtu { name, mtu } => unless_gone(netlink.set_mtu(name, *mtu).await),
            Step::InsideUp { name } => netlink.set_up(name).await,
            Step::InsideMulticast { name } => netlink.add_multicast_route(name).await.map(|_| ()),
            Step::InsideDefaultRoute { name, via } => match netlink.add_default_route(name, *via).await {
                Err(e) if e.is_there() && self.is_adopted(name) => Ok(()),
                Err(e) if e.is_there() => {
                    return Err("gateway: it has a default route already: leave --gateway out".to_string());
                }
                other => other,
            },
            Step::InsideSettings { name, ipv6 } => {
                return self.namespace.within(|| settings_inside(name, *ipv6)).map_err(|e| e.to_string());
            }
            _ => Ok(()),
        };
        result.map_err(|e| e.to_string())
    }
    /// Whether the veth pair that `step` makes is here already, both ends where they are to be. One that is not so is deleted.
    async fn adopts(&self, step: &Step, outside: &Netlink, found: &mut Found) -> Result<bool, String> {
        let Step::AddVeth { name, peer, mac, mtu } = step else { return Ok(false) };
        if !found.take(name) {
            return Ok(false);
        }
        let ours = outside.link(name).await.map_err(|e| e.to_string())?;
        let theirs = self.netlink.link(peer).await.map_err(|e| e.to_string())?;
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            let one_pair = ours.peer == Some(theirs.index) && theirs.peer == Some(ours.index);
            if one_pair && ours.kind == "veth" && theirs.kind == "veth" && theirs.mac == Some(*mac) && theirs.up {
                for (netlink, name) in [(outside, name), (&self.netlink, peer)] {
                    netlink.set_mtu(name, *mtu).await.map_err(|e| e.to_string())?;
                }
                self.adopted.lock().unwrap_or_else(PoisonError::into_inner).insert(peer.clone());
                return Ok(true);
            }
        }
        outside.delete(name).await.map_err(|e| e.to_string())?;
        Ok(false)
    }

    fn is_adopted(&self, interface: &str) -> bool {
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner).contains(interface)
    }
}

/// A device that is gone needs no change.
pub(super) fn unless_gone(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    result.or_else(|e| if e.is_no_device() { Ok(()) } else { Err(e) })
}

pub(super) fn silence(name: &str) -> io::Result<()> {
    set_sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
    // A device without an address takes packets for any address of the host, and answers for it, unless it is told not to.
    set_sysctl(&format!("ipv4/conf/{name}/rp_filter"), "1")?;
    set_sysctl(&format!("ipv4/conf/{name}/arp_ignore"), "1")
}

pub(super) fn settings_of_host(name: &str, ipv6: bool) -> io::Result<()> {
    // Speak on a network only as who we are there: the port guard drops everything else.
    set_sysctl(&format!("ipv4/conf/{name}/arp_ignore"), "1")?;
    set_sysctl(&format!("ipv4/conf/{name}/arp_announce"), "2")?;
    set_sysctl(&format!("ipv4/conf/{name}/send_redirects"), "0")?;
    // The bridge is up: these before IPv6 makes itself an address.
    for setting in ["router_solicitations", "accept_ra", "accept_dad"] {
        set_sysctl(&format!("ipv6/conf/{name}/{setting}"), "0")?;
    }
    settings_inside(name, ipv6)
}

fn settings_inside(name: &str, ipv6: bool) -> io::Result<()> {
    // Without IPv6 addresses the guard would drop all that IPv6 says by itself; so it says nothing.
    set_sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), if ipv6 { "0" } else { "1" })?;
    set_sysctl(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
    set_sysctl(&format!("ipv6/conf/{name}/accept_dad"), "0")?;
    for family in ["ipv4", "ipv6"] {
        // An address that moved without a word is asked for again after seconds, not after a minute.
        set_sysctl(&format!("{family}/neigh/{name}/base_reachable_time_ms"), "5000")?;
        set_sysctl(&format!("{family}/neigh/{name}/delay_first_probe_time"), "2")?;
        set_sysctl(&format!("{family}/neigh/{name}/ucast_solicit"), "1")?;
    }
    Ok(())
}
