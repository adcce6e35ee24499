//! The running router: threads and tasks around the pure parts.
//!
//! ```text
//! main thread      control: one task that owns Node; tasks of `links`, `machine` and the control socket beside it
//! rnet-data-N      datapath: plain threads, each with a queue of every capture port and UDP sockets of its own
//! rnet-store       keeper: writes the state file, so that a slow disk stops nobody
//! ```
//!
//! Nothing in here decides: control handles one input, then carries out outputs until `Wait`. It wakes for inputs and
//! for the node's deadline, for nothing else.

#![allow(clippy::disallowed_methods)] // the rim: clocks, sockets, threads, files

pub mod control;
pub mod datapath;
mod desk;
mod door;
mod farewell;
mod intake;
pub mod journal;
pub mod keeper;
pub mod links;
mod located;
pub mod machine;
mod patience;

pub use desk::{Desk, Question};

use crate::node::border::{DialId, HostAnswer, HostId, LinkId, UplinkState};
use crate::plane::Event;
use crate::plane::fib::PortId;
use crate::types::NetId;
use std::net::{IpAddr, SocketAddr};
use tokio::net::TcpStream;

/// What the tasks around control tell it; the owned form of `node::border::Input`.
#[derive(Debug)]
pub enum Happening {
    /// Somebody connected to us, or a dial came through.
    Connected {
        /// The connection.
        stream: TcpStream,
        /// The other end.
        remote: SocketAddr,
        /// The dial that it answers.
        dial: Option<DialId>,
    },
    /// A dial failed: one line why.
    DialFailed(DialId, String),
    /// Bytes arrived.
    Bytes(LinkId, Vec<u8>),
    /// All that was given to a link is in the kernel's hands.
    Drained(LinkId),
    /// A link ended by the other side or the network: one line why.
    Down(LinkId, String),
    /// A link was dropped because its other side does not read.
    Slow(LinkId),
    /// A change to the machine was made or undone.
    Machine(HostId, Result<HostAnswer, String>),
    /// The process of an attachment is gone.
    Gone(String),
    /// The device of a capture port is gone.
    CaptureGone(PortId),
    /// Addresses or routes of this machine changed.
    NetworkChanged,
    /// The addresses that this machine has now, by interface.
    Addresses(Vec<(String, IpAddr)>),
    /// A heartbeat came by the kernel's VXLAN.
    Event(Event),
    /// A VXLAN device of the kernel is gone, or was changed.
    OffloadLost(Option<NetId>),
    /// A VXLAN device of somebody else is gone.
    VxlanGone,
    /// What the route to the VTEP behind a port takes.
    RouteMtu(PortId, u16),
    /// What the captured interface of this port does.
    Uplink(PortId, UplinkState),
    /// The state of this number is on the disk.
    Stored(u64),
    /// A thread of the data path ended, which nobody told to: one line why.
    DatapathEnded(String),
    /// SIGTERM or SIGINT.
    Signal,
}

/// Happenings that may wait for control; with 16 KiB of bytes in each, 4 MiB.
pub const HAPPENINGS_MAX: usize = 256;
