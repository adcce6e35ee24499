//! An uplink: an interface of this host that rnet did not make and captures, as one more port of a network.
//!
//! Owns whether it carries frames just now, how long they may be, what it counted, and the bounds of what may come in. Created and
//! steered by control, shared by the data path threads. Whoever is on the segment behind it is a stranger to rnet: what they may
//! say is `guard`'s, and which port a frame goes to is `switch`'s. Beacons pass whether it carries or not: to control, and to no
//! other port.
//!
//! ```text
//! floods (groups, unknown MACs)   FLOODS: a segment that is reached twice multiplies them until one of its ports is cut
//! beacons                         BEACONS: what control has to look at
//! ```

use super::Drop;
use super::bucket::{Bucket, Rate};
use super::counters::Count;
use super::fib::PortId;
use super::offload::layout::Protocol;
use super::offload::{Layout, checksum};
use crate::types::{Instant, NetId};
use crate::wire::frame::HEADER_LEN;
use crate::wire::virtio::{Gso, Offload};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

/// Floods that may come in by an uplink: four times what a busy segment of a thousand machines says to all.
pub const FLOODS: Rate = Rate { each_second: 4000, at_once: 2000 };
/// Beacons: those of thirty ports on one segment.
pub const BEACONS: Rate = Rate { each_second: 100, at_once: 50 };

/// Bytes of a tag of 802.1Q, which do not count against an MTU.
const TAG_LEN: usize = 4;
/// TCP's flag that only the first segment may have.
const CWR: u8 = 0x80;

/// See the head of this file.
#[derive(Debug)]
pub struct Uplink {
    /// The port that it is here; for its whole life.
    pub port: PortId,
    /// The network of that port.
    pub network: NetId,
    /// Its capture tells nothing of what the kernel left to do on a frame.
    pub bare: bool,
    carries: AtomicBool,
    mtu: AtomicU16,
    from: (AtomicU64, AtomicU64),
    to: (AtomicU64, AtomicU64),
    pub(super) floods: Bucket,
    pub(super) beacons: Bucket,
}

impl Uplink {
    /// One that carries nothing yet, of the MTU of Ethernet.
    pub fn new(port: PortId, network: NetId, bare: bool) -> Uplink {
        Uplink {
            port,
            network,
            bare,
            carries: AtomicBool::new(false),
            mtu: AtomicU16::new(1500),
            from: Default::default(),
            to: Default::default(),
            floods: Bucket::default(),
            beacons: Bucket::default(),
        }
    }

    /// Whether frames pass; beacons do in any case.
    pub fn carries(&self) -> bool {
        self.carries.load(Ordering::Relaxed)
    }

    /// Lets frames pass, or not.
    pub fn set_carries(&self, carries: bool) {
        self.carries.store(carries, Ordering::Relaxed);
    }

    /// The interface's MTU, bytes.
    pub fn mtu(&self) -> usize {
        self.mtu.load(Ordering::Relaxed).into()
    }

    /// The interface has this MTU now.
    pub fn set_mtu(&self, mtu: u16) {
        self.mtu.store(mtu, Ordering::Relaxed);
    }

    /// Bytes of the longest frame that it takes.
    pub(super) fn room(&self) -> usize {
        self.mtu() + HEADER_LEN
    }

    pub(super) fn received(&self, count: Count) {
        add(&self.from, count);
    }

    pub(super) fn sent(&self, count: Count) {
        add(&self.to, count);
    }

    /// Frames that came in by it so far, but for beacons.
    pub fn from_uplink(&self) -> Count {
        read(&self.from)
    }

    /// Frames that went out by it so far, but for beacons.
    pub fn to_uplink(&self) -> Count {
        read(&self.to)
    }

    /// Whether a flood of `frames` frames may come in.
    pub(super) fn admits_flood(&self, frames: usize, now: Instant) -> bool {
        self.floods.admit(FLOODS, frames, now)
    }

    /// What the kernel seems to have left to do on a frame, where the capture does not tell: a checksum that holds only the sum
    /// of its pseudo-header is unfinished, and a frame of TCP with such a one that is too long for the interface is a
    /// super-frame. `PortTooBig`: one of UDP, of which nothing tells how it is to be cut.
    pub(super) fn found(&self, frame: &[u8]) -> Result<Offload, Drop> {
        let Some(layout) = Layout::of(frame).filter(|layout| checksum::is_partial(frame, layout)) else {
            return Ok(Offload::NONE);
        };
        let checksum = Some(layout.partial());
        let size = self.room().saturating_sub(layout.payload);
        if frame.len() <= self.room() + TAG_LEN || size == 0 {
            return Ok(Offload { checksum, gso: None });
        }
        if layout.protocol != Protocol::Tcp {
            return Err(Drop::PortTooBig);
        }
        let ecn = frame.get(layout.transport + 13).is_some_and(|flags| flags & CWR != 0);
        let (size, headers) = (u16::try_from(size), u16::try_from(layout.payload));
        let (Ok(size), Ok(headers)) = (size, headers) else { return Err(Drop::Malformed) };
        Ok(Offload { checksum, gso: Some(Gso { kind: layout.gso_kind(), ecn, size, headers }) })
    }
}

impl PartialEq for Uplink {
    fn eq(&self, other: &Uplink) -> bool {
        self.port == other.port
    }
}

fn add(pair: &(AtomicU64, AtomicU64), count: Count) {
    pair.0.fetch_add(count.frames, Ordering::Relaxed);
    pair.1.fetch_add(count.bytes, Ordering::Relaxed);
}

fn read(pair: &(AtomicU64, AtomicU64)) -> Count {
    Count { frames: pair.0.load(Ordering::Relaxed), bytes: pair.1.load(Ordering::Relaxed) }
}
