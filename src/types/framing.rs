//! What carries frames from one peer to the next.
//!
//! `udp` is rnet's own framing, which every path has; the other two are VXLAN (RFC 7348), alike on the wire, and only on
//! paths that are not encrypted.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A framing, slower ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Framing {
    /// rnet's own.
    Udp,
    /// VXLAN written and read by rnet.
    Vxlan,
    /// VXLAN written and read by the kernel.
    Kernel,
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Framing::Udp => "udp",
            Framing::Vxlan => "vxlan",
            Framing::Kernel => "kernel",
        })
    }
}

/// Who writes and reads VXLAN here. A router has at most one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// A VXLAN device for each network.
    Kernel,
    /// rnet, by sockets of its own.
    Userspace,
}

impl Engine {
    /// The framing of paths that it carries.
    pub fn framing(self) -> Framing {
        match self {
            Engine::Kernel => Framing::Kernel,
            Engine::Userspace => Framing::Vxlan,
        }
    }
}
