//! Bytes to values and back.
//!
//! Stateless, and total: no input can make a parser panic, loop or allocate more than a stated maximum. A parser takes
//! bytes that anybody may have written and returns a value that upholds its type's invariants, or a [`Malformed`].
//! Nothing here decides what a value means: the guard, the switch and the node do.
//!
//! ```text
//! frame      what switching and the guard need of an Ethernet frame
//! neighbour  questions of ARP and neighbour discovery, and their answers
//! datagram   the headers of rnet's own UDP framing
//! vxlan      the header of RFC 7348
//! beacon     by which captured interfaces find a segment that is reached twice
//! beat       probes of the VXLAN path between peers
//! virtio     what a kernel leaves to do on a frame: checksums, super-frames
//! mark       the same in the frame itself, where there is no such header
//! message    control messages of a link, and the bodies of gossip
//! ```
//!
//! Every layout carries a version or a kind, and what is not known is refused, never skipped. Integers are big-endian,
//! except inside bincode (`message`) and what the kernel writes (`virtio`).

pub mod beacon;
pub mod beat;
pub mod datagram;
pub mod frame;
pub mod mark;
pub mod message;
pub mod neighbour;
pub mod virtio;
pub mod vxlan;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Shorter than what it announces or needs.
    #[error("truncated")]
    Truncated,
    /// Of a version that is not spoken here.
    #[error("unknown version")]
    Version,
    /// Of a kind that does not exist.
    #[error("unknown kind")]
    Kind,
    /// A length field contradicts the rest.
    #[error("bad length")]
    Length,
    /// A field holds a value that it may not.
    #[error("bad field")]
    Field,
    /// Longer than the stated maximum.
    #[error("too long")]
    TooLong,
    /// Bytes are left over.
    #[error("trailing bytes")]
    Trailing,
}
