//! The data plane: what becomes of a frame.
//!
//! Shared by the data path threads; no timers, no logging, no queue inside. Results go into the
//! `Sink` that the caller lent.

pub mod counters;
pub mod fib;
pub mod macs;
pub mod path;

use crate::types::Instant;
use fib::{PathId, PortId};
use std::net::SocketAddr;

/// Memory that belongs to the caller's batch: where a frame's outcome goes.
pub trait Sink {
    /// `len` bytes (at most 65,507) of a datagram for `to`, to be written whole before the next call. Consecutive calls
    /// with equal `to` and `len` ride one GSO send. Nothing if the batch cannot take more: the datagram is dropped and counted.
    fn datagram(&mut self, to: SocketAddr, len: usize) -> Option<&mut [u8]>;
    /// A frame for the bridge behind `port`.
    fn deliver(&mut self, port: PortId, frame: &[u8]);
    /// A small event for control. Never blocks; a full queue drops and counts.
    fn event(&mut self, event: Event);
}

/// What the data plane tells control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An authenticated probe (heartbeat) arrived on `path` from `from`: its body, at most 64 bytes kept, and the
    /// size of the whole datagram in bytes (padding is cut, its size is what proves the path MTU).
    Probe { path: PathId, from: SocketAddr, body: smallvec::SmallVec<[u8; 64]>, size: u16, at: Instant },
}
