//! What goes in at the start and what comes out: the border between address management and its driver.
//!
//! The driver calls a method of [`super::Ipam`], then polls until nothing comes, then waits for the next input or the
//! deadline. It holds no decision but one duty: order. Whatever comes out after a `Persist` may be seen by others only
//! once that state is durable; a state that was overtaken by a newer one need not be stored.

use super::IpamState;
use crate::types::{HostAddress, Network, PeerName, Uid};
use std::sync::Arc;
use std::time::Duration;

/// How the first ring comes about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Init {
    /// A majority of this many hosts agrees; 1: this host alone founds it when it first needs it.
    Consensus(usize),
    /// These peers, the same list on each of them: nothing needs to be agreed.
    Seed(Vec<PeerName>),
    /// Never founds: waits for a ring that others found.
    Observer,
}

/// What does not change while the router runs.
#[derive(Debug, Clone)]
pub struct IpamConfig {
    /// This peer.
    pub me: PeerName,
    /// This run.
    pub uid: Uid,
    /// The space; the same on all peers.
    pub ranges: Vec<Network>,
    /// What `net:default` means; none: the first range.
    pub default_subnet: Option<Network>,
    /// How the first ring comes about.
    pub init: Init,
    /// After how long a majority takes an unreachable peer out of the count; none: never.
    pub reclaim: Option<Duration>,
    /// Random bytes, fresh at every start.
    pub seed: [u8; 32],
}

/// What the driver is to do, in order: whatever comes after a `Persist` may only happen once that state is durable.
#[derive(Debug, Clone, PartialEq)]
pub enum IpamOutput {
    /// Make this durable; the newest stands for all before it. Drop it soon: a state that is still held is copied before
    /// the next change.
    Persist(Arc<IpamState>),
    /// Send to every peer; loss is repaired.
    Gossip(Vec<u8>),
    /// Send to one peer; loss is repaired.
    Unicast { to: PeerName, body: Vec<u8> },
    /// The answer to a request: an address, or why not (one line).
    Answer { request: u64, result: Result<Granted, String> },
    /// The request waits, and for what (one line). Again whenever the reason changes.
    Waiting { request: u64, why: String },
    /// One line for the log.
    Log(String),
}

/// What a request brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Granted {
    /// An address with the prefix length of the network asked for.
    Address(HostAddress),
    /// Done, with a line for people.
    Done(String),
}
