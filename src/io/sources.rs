//! Which address of this host a datagram leaves from, by where it goes: what control says and all senders obey.
//!
//! Empty on a host with one address, and for most destinations elsewhere: then the kernel chooses by its routes. Senders keep a
//! copy of what concerns them, and look here again only when the version is another: one relaxed load a batch.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Sources {
    version: AtomicU64,
    all: Mutex<BTreeMap<SocketAddr, IpAddr>>,
}

impl Sources {
    /// Instead of what was said before.
    pub fn set(&self, all: BTreeMap<SocketAddr, IpAddr>) {
        *self.all.lock().unwrap_or_else(PoisonError::into_inner) = all;
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Another one after each change.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// What datagrams for `to` leave from; nothing: the kernel chooses.
    pub fn of(&self, to: SocketAddr) -> Option<IpAddr> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(&to).copied()
    }
}
