//! The internet checksum (RFC 1071).
//!
//! Owns the sum and its two uses: [`complete`] a partial one, and say whether a complete one [`is_right`]. Where it is comes
//! from `layout` or from a kernel's `Partial`.
//!
//! The one's complement sum of 16-bit words does not depend on the order of bytes (RFC 1071, section 2 (B)) nor on how many words
//! are added at a time: words of 64 bits in the order of the machine are added, carries are counted apart, and only the end is
//! folded and turned. A sum that is still to be folded is a `u32` of big-endian words: 65,536 of them fit.

use super::layout::{Layout, NETWORK, Protocol, Version, be16};
use crate::wire::Malformed;
use crate::wire::virtio::Partial;

/// The one's complement sum of `bytes` in big-endian words of 16 bits, not complemented. An odd last byte is a high one.
#[inline]
pub fn sum(bytes: &[u8]) -> u16 {
    let (blocks, rest) = bytes.as_chunks::<32>();
    let mut lanes = [0u128; 4];
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u128::from(u64::from_ne_bytes(*word));
        }
    }
    let mut total: u128 = lanes.iter().sum();
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        total += u128::from(u64::from_ne_bytes(*word));
    }
    let mut last = [0; 8];
    for (place, byte) in last.iter_mut().zip(rest) {
        *place = *byte;
    }
    total += u128::from(u64::from_ne_bytes(last));
    // Powers of 2^16 are 1 modulo 2^16 - 1: the words of the total are added once more.
    let bytes = total.to_ne_bytes();
    let sum = bytes.as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_ne_bytes(*word))).sum();
    u16::from_be(fold(sum))
}

/// Adds the carries of a sum of big-endian words to it. Not 0 unless the sum is.
#[inline(always)]
pub fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = sum + (sum >> 16);
    let [_, _, high, low] = sum.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// The sum of the pseudo-header but for the length: addresses and protocol. To be added to the bytes of transport and folded.
#[inline]
pub fn pseudo(frame: &[u8], layout: &Layout) -> u32 {
    let (first, last) = match layout.version {
        Version::V4 => (NETWORK + 12, layout.transport),
        Version::V6 => (NETWORK + 8, layout.transport),
    };
    let (words, _) = frame.get(first..last).unwrap_or_default().as_chunks::<2>();
    let protocol = if layout.protocol == Protocol::Tcp { 6 } else { 17 };
    words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum::<u32>() + protocol
}

/// The sum of the IPv4 header but for total length, identification and checksum.
#[inline]
pub(super) fn network(frame: &[u8]) -> u32 {
    [0, 6, 8, 12, 14, 16, 18].iter().map(|at| u32::from(be16(frame, NETWORK + at))).sum()
}

/// Completes a checksum: sums from `partial.start` to the end of the packet and writes the complement. 0 becomes 0xffff in UDP,
/// where it would mean that there is none (RFC 768).
///
/// `Length` if the checksum is not inside of the packet. Where it is comes from whoever made the frame: it may point at an
/// address. So complete first and check then (the guard), unless [`super::layout::may_stay_partial`].
pub fn complete(frame: &mut [u8], partial: Partial) -> Result<(), Malformed> {
    let start = usize::from(partial.start);
    let at = usize::from(partial.offset);
    let end = packet_end(frame);
    let summed = frame.get_mut(start..end).ok_or(Malformed::Length)?;
    let checksum = match !sum(summed) {
        0 if partial.offset == 6 => 0xffff,
        checksum => checksum,
    };
    *summed.get_mut(at..at + 2).and_then(|field| field.first_chunk_mut()).ok_or(Malformed::Length)? =
        checksum.to_be_bytes();
    Ok(())
}

/// Whether the TCP or UDP checksum of `frame`, which has this layout, is there and right.
pub fn is_right(frame: &[u8], layout: &Layout) -> bool {
    let Some(transport) = frame.get(layout.transport..layout.end) else { return false };
    let checksum = be16(transport, layout.partial().offset.into());
    covers(checksum, pseudo(frame, layout) + length(transport.len()), transport, layout.protocol)
}

/// Whether the TCP or UDP checksum of `frame`, which has this layout, looks unfinished: it is the sum of the pseudo-header. One of
/// 65,536 that are complete looks so too; completing that changes nothing.
#[inline]
pub fn is_partial(frame: &[u8], layout: &Layout) -> bool {
    let bytes = layout.end.saturating_sub(layout.transport);
    be16(frame, layout.transport + usize::from(layout.partial().offset)) == fold(pseudo(frame, layout) + length(bytes))
}

/// Whether `checksum`, which stands in `transport`, is there and right. `pseudo` is the pseudo-header's sum, length included.
#[inline(always)]
pub(super) fn covers(checksum: u16, pseudo: u32, transport: &[u8], protocol: Protocol) -> bool {
    let none = protocol == Protocol::Udp && checksum == 0;
    !none && fold(pseudo + u32::from(sum(transport))) == 0xffff
}

/// A length as a term of a sum.
#[inline(always)]
pub(super) fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(0) & 0xffff
}

/// Where the IP packet ends, or the frame if it is none or says that it is longer: padding is not summed.
fn packet_end(frame: &[u8]) -> usize {
    let end = match be16(frame, 12) {
        0x0800 => NETWORK + usize::from(be16(frame, NETWORK + 2)),
        0x86dd => NETWORK + 40 + usize::from(be16(frame, NETWORK + 4)),
        _ => frame.len(),
    };
    end.min(frame.len())
}
