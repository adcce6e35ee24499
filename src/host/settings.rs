//! Settings of the kernel (sysctl) for the devices that rnet makes, in the namespace of the calling thread.
//!
//! Owns which ones: what a device may say by itself, and how soon an address that moved is asked for again. When they are set is
//! `plan`'s.

use crate::io::netns::set_sysctl;
use std::io;

/// Nothing of the host's own leaves by this device.
pub(super) fn silence(name: &str) -> io::Result<()> {
    set_sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
    // A device without an address takes packets for any address of the host, and answers for it, unless it is told not to.
    set_sysctl(&format!("ipv4/conf/{name}/rp_filter"), "1")?;
    set_sysctl(&format!("ipv4/conf/{name}/arp_ignore"), "1")
}

/// The host has addresses on this bridge.
pub(super) fn of_host(name: &str, ipv6: bool) -> io::Result<()> {
    // Speak on a network only as who we are there: the port guard drops everything else.
    set_sysctl(&format!("ipv4/conf/{name}/arp_ignore"), "1")?;
    set_sysctl(&format!("ipv4/conf/{name}/arp_announce"), "2")?;
    set_sysctl(&format!("ipv4/conf/{name}/send_redirects"), "0")?;
    // The bridge is up: these before IPv6 makes itself an address.
    for setting in ["router_solicitations", "accept_ra", "accept_dad"] {
        set_sysctl(&format!("ipv6/conf/{name}/{setting}"), "0")?;
    }
    inside(name, ipv6)
}

/// An interface of an attachment, or of the host.
pub(super) fn inside(name: &str, ipv6: bool) -> io::Result<()> {
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
