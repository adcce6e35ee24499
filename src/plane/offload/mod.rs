//! What kernels leave to do on a frame: checksums to be completed, super-frames to be cut and to be put together.
//!
//! The kernel hands over and takes many segments of a flow under one header, because that is several times cheaper than
//! each alone; peers exchange the segments. This room is pure: it reads and writes bytes, and knows neither ports' features
//! (the caller says what a kernel takes) nor the virtio header (`wire::virtio`), nor how frames travel (`path`).
//!
//! ```text
//! layout     where the headers of a frame are, if it is TCP or UDP without oddities; all else passes untouched
//! checksum   the internet checksum: sums, completes, verifies
//! segment    bridge to net: a super-frame as segments, each written straight into the datagram that carries it
//! odd        the same for the few that have no layout: one by one, slowly
//! coalesce   net to bridge: the segments of a batch as super-frames again, from slices of the receive buffers
//! ```
//!
//! Invariant: what comes out of `coalesce` is, once cut by `segment` or by a kernel, what went in: the same frames of each flow
//! in the same order, except for IPv4 identifications of frames that must not be fragmented (RFC 6864: without meaning).
//! A checksum that is merged away was right, or was never computed (partial).

pub mod checksum;
pub mod coalesce;
pub mod layout;
pub mod odd;
pub mod segment;

pub use coalesce::{Arrival, Coalescer, Merge, Way};
pub use layout::Layout;
pub use odd::Odd;
pub use segment::Segments;

use crate::wire::Malformed;
use crate::wire::virtio::Partial;

/// Makes ready for the way a frame that is not to be cut: completes in place a checksum that cannot travel unfinished.
/// Returns whether the frame's checksum is unfinished still. Errors: it lies outside of the frame.
pub fn settle(frame: &mut [u8], checksum: Option<Partial>) -> Result<bool, Malformed> {
    match checksum {
        None => Ok(false),
        Some(partial) if layout::may_stay_partial(frame, partial) => Ok(true),
        Some(partial) => checksum::complete(frame, partial).map(|()| false),
    }
}

#[cfg(test)]
mod tests;
