//! Segments, put together again.
//!
//! Owns [`Coalescer`], which lives for one batch of received frames and holds runs: frames of a flow that continue each other
//! and leave as one super-frame. Nothing is copied but the headers of the first frame: the payloads stay where they were
//! received. Does not own who may send (`guard`): whoever begins a run was looked at, and what joins is the same sender.
//!
//! A frame continues a run if it came the same [`Way`] and differs from the first frame only so:
//!
//! ```text
//! IPv4    total length; identification: one more than the last, or with DF the same in all; header checksum, which is right
//! IPv6    payload length
//! TCP     sequence: where the last ended; PSH, which closes the run; checksum, which is right
//! UDP     length; checksum, which is right and there
//! payload 1 byte to as many as in the first; fewer close the run; together at most 65,535 bytes of packet, 64 segments
//! ```
//!
//! A run begins with a frame that has a layout, payload, no padding, and for TCP no flag but ACK. A checksum is right if it is
//! that of the bytes, or, of a partial frame, the sum of the pseudo-header; the first frame's is proved when a second one comes,
//! for a super-frame's is never looked at again. At most one run of a flow is held, and what does not join it waits until it
//! is delivered: frames of a flow stay in order.

mod run;

use super::layout::{Layout, NETWORK, Protocol, Version, be32, chunk};
use crate::plane::fib::PortId;
use crate::plane::macs::Place;
use crate::wire::virtio::{Offload, Partial};
use run::{Run, may_begin, tag};
use smallvec::SmallVec;

/// Runs that are held at a time; beyond, the one that waits longest for its next frame is delivered.
pub const RUNS_MAX: usize = 8;

/// Frames in a run: the kernel refuses UDP super-frames of more (UDP_MAX_SEGMENTS before Linux 6.9).
pub const SEGMENTS_MAX: usize = 64;

/// Payloads that are held at a time, those of runs that have left not yet forgotten; beyond, all is delivered.
const PAYLOADS_MAX: usize = 512;

/// Where frames come from and go to. Those of different ways never mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Where they are delivered.
    pub port: PortId,
    /// Whence they came.
    pub origin: Place,
}

/// A frame that came in.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'d> {
    /// Where from, and where to.
    pub way: Way,
    /// The whole frame.
    pub frame: &'d [u8],
    /// Its transport checksum holds only the sum of the pseudo-header.
    pub partial: bool,
}

/// What super-frames a port's kernel takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merge {
    /// Of TCP.
    pub tcp: bool,
    /// Of UDP.
    pub udp: bool,
}

/// The runs of a batch. Cheap to make, for its memory is not initialised; about 14 KB, not to be moved about. To be flushed
/// before it is dropped, or frames are lost.
#[derive(Debug)]
pub struct Coalescer<'d> {
    /// What the next frame of each run has in its transport header, see [`tag`]: most frames are told apart by this.
    tags: [u64; RUNS_MAX],
    /// The flow of each run, see [`flow`]; 0 where none is held.
    flows: [u64; RUNS_MAX],
    /// What was counted when each run took its last frame; 0 where none is held.
    used: [u64; RUNS_MAX],
    /// Those that have left stay, closed, until another takes the place.
    runs: SmallVec<[Run<'d>; RUNS_MAX]>,
    /// The payloads of runs but for the first, each with the place of the next one of its run. Cleared when no run is held.
    payloads: SmallVec<[(&'d [u8], usize); PAYLOADS_MAX]>,
    /// The run that took a frame last.
    recent: usize,
    /// How many runs are held.
    held: usize,
    /// Counts frames that were taken.
    clock: u64,
}

impl Default for Coalescer<'_> {
    fn default() -> Self {
        Coalescer::new()
    }
}

impl<'d> Coalescer<'d> {
    /// Holds nothing.
    #[inline]
    pub fn new() -> Coalescer<'d> {
        Coalescer {
            tags: [0; RUNS_MAX],
            flows: [0; RUNS_MAX],
            used: [0; RUNS_MAX],
            runs: SmallVec::new(),
            payloads: SmallVec::new(),
            recent: 0,
            held: 0,
            clock: 0,
        }
    }

    /// The fast way: true if the frame continues a run and was taken. It has the Ethernet and IP header of the frame that
    /// began the run: who sends what to whom need not be looked at again.
    #[inline]
    pub fn join(&mut self, arrival: Arrival<'d>) -> bool {
        if self.held == 0 {
            return false;
        }
        let Some(tag) = tag(arrival.frame) else { return false };
        if self.tags.get(self.recent) == Some(&tag) && self.extend(self.recent, &arrival) {
            return true;
        }
        for slot in 0..self.runs.len() {
            if self.tags.get(slot) == Some(&tag) && slot != self.recent && self.extend(slot, &arrival) {
                self.recent = slot;
                return true;
            }
        }
        false
    }

    /// The other way: takes a frame that did not join. What it must not overtake is delivered first; then it begins a run, if
    /// it can be continued and `merge` allows its protocol, or is delivered at once. One that is partial and has no layout is
    /// delivered as it came: nobody can say where its checksum would be.
    pub fn begin(&mut self, arrival: Arrival<'d>, merge: Merge, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
        let Some(layout) = Layout::of(arrival.frame) else {
            self.release_like(&arrival, deliver);
            deliver(arrival.way.port, &Offload::NONE, &[arrival.frame]);
            return;
        };
        let allowed = if layout.protocol == Protocol::Tcp { merge.tcp } else { merge.udp };
        let begins = allowed && may_begin(arrival.frame, &layout);
        if self.held != 0 || begins {
            let flow = flow(&arrival, &layout);
            if let Some(slot) = self.flows.iter().position(|held| *held == flow) {
                self.release(slot, deliver);
            }
            if begins {
                self.hold(Run::new(arrival, &layout), flow, deliver);
                return;
            }
        }
        deliver_one(&arrival, layout.partial(), deliver);
    }

    /// Delivers all that is held, in the order in which the runs began.
    pub fn flush(&mut self, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
        while self.held != 0 {
            let held = self.runs.iter().enumerate().zip(self.used).filter(|(_, used)| *used != 0);
            let Some(((slot, _), _)) = held.min_by_key(|((_, run), _)| run.began) else { return };
            self.release(slot, deliver);
        }
    }

    /// Whether more was held than there is room for.
    #[cfg(test)]
    pub(super) fn is_on_heap(&self) -> bool {
        self.runs.spilled() || self.payloads.spilled()
    }

    #[inline]
    fn extend(&mut self, slot: usize, arrival: &Arrival<'d>) -> bool {
        let (Some(run), Some(tag), Some(used)) =
            (self.runs.get_mut(slot), self.tags.get_mut(slot), self.used.get_mut(slot))
        else {
            return false;
        };
        let place = self.payloads.len();
        if place == PAYLOADS_MAX {
            return false;
        }
        let Some(payload) = run.take(arrival) else { return false };
        if let Some((_, next)) = run.append(place).and_then(|before| self.payloads.get_mut(before)) {
            *next = place;
        }
        self.payloads.push((payload, place));
        self.clock += 1;
        *used = self.clock;
        *tag = run.next_tag(*tag, payload.len());
        true
    }

    fn hold(&mut self, mut run: Run<'d>, flow: u64, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
        if self.payloads.len() == PAYLOADS_MAX {
            self.flush(deliver);
        }
        // A free place is one that was never used.
        let least = self.used.iter().enumerate().min_by_key(|(_, used)| **used);
        let slot = least.map_or(0, |(slot, _)| slot);
        self.release(slot, deliver);
        self.clock += 1;
        run.began = self.clock;
        let next = run.next_tag(tag(run.head.frame).unwrap_or(0), run.size());
        match self.runs.get_mut(slot) {
            Some(place) => *place = run,
            None => self.runs.push(run),
        }
        if let (Some(tag), Some(place), Some(used)) =
            (self.tags.get_mut(slot), self.flows.get_mut(slot), self.used.get_mut(slot))
        {
            (*tag, *place, *used) = (next, flow, self.clock);
        }
        self.recent = slot;
        self.held += 1;
    }

    /// Delivers the runs that a frame without a layout may belong to: a fragment has no ports.
    fn release_like(&mut self, arrival: &Arrival<'d>, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
        let ethernet: Option<[u8; NETWORK]> = chunk(arrival.frame, 0);
        let alike = |run: &Run<'_>| run.head.way == arrival.way && chunk(run.head.frame, 0) == ethernet;
        for slot in 0..self.runs.len() {
            if self.runs.get(slot).is_some_and(alike) {
                self.release(slot, deliver);
            }
        }
    }

    /// Delivers the run of this place, if one is held there.
    fn release(&mut self, slot: usize, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
        let (Some(run), Some(flow), Some(used)) =
            (self.runs.get_mut(slot), self.flows.get_mut(slot), self.used.get_mut(slot))
        else {
            return;
        };
        if *used == 0 {
            return;
        }
        (*flow, *used, run.closed) = (0, 0, true);
        if run.count == 1 {
            deliver_one(&run.head, run.partial(), deliver);
        } else {
            run.deliver(&self.payloads, deliver);
        }
        self.held -= 1;
        if self.held == 0 {
            self.payloads.clear();
        }
    }
}

fn deliver_one(arrival: &Arrival<'_>, partial: Partial, deliver: &mut impl FnMut(PortId, &Offload, &[&[u8]])) {
    let offload = Offload { checksum: arrival.partial.then_some(partial), gso: None };
    deliver(arrival.way.port, &offload, &[arrival.frame]);
}

/// A number of the flow, not 0: way, Ethernet, addresses, protocol and ports. Of two flows with one number one is only
/// delivered earlier.
fn flow(arrival: &Arrival<'_>, layout: &Layout) -> u64 {
    // Odd numbers without pattern.
    const FACTORS: [u64; 8] = [
        0x9e37_79b9_7f4a_7c15,
        0xbf58_476d_1ce4_e5b9,
        0x94d0_49bb_1331_11eb,
        0xd6e8_feb8_6659_fd93,
        0xa076_1d64_78bd_642f,
        0xe703_7ed1_a0b4_28db,
        0x8ebc_6af0_9c88_c6e3,
        0x5896_5cc7_5374_cc63,
    ];
    let at = |at: usize| chunk(arrival.frame, at).map_or(0, u64::from_ne_bytes);
    let origin = match arrival.way.origin {
        Place::Peer(peer) => u64::from(peer.0),
        Place::Port(port) => 1 << 31 | u64::from(port.0),
    };
    let way = u64::from(arrival.way.port.0) << 32 | origin;
    let protocol = if layout.protocol == Protocol::Tcp { 6 } else { 17 };
    let ports = u64::from(be32(arrival.frame, layout.transport)) << 8 | protocol;
    let words = match layout.version {
        Version::V4 => [way, at(0), at(6), ports, at(NETWORK + 12), 0, 0, 0],
        Version::V6 => {
            [way, at(0), at(6), ports, at(NETWORK + 8), at(NETWORK + 16), at(NETWORK + 24), at(NETWORK + 32)]
        }
    };
    words.iter().zip(FACTORS).fold(0u64, |sum, (word, factor)| sum.wrapping_add(word.wrapping_mul(factor))) | 1
}
