//! Which flows send little: their datagrams need not wait behind those of flows that fill queues (RFC 8290, section 1.3, has the idea).
//!
//! Owns one word for each of many buckets: what its flows sent beyond a modest rate, when the last frame was, and whether it was
//! too much. Flows that share a bucket share its fate, which costs a flow that sends little what it had without all this, and
//! nothing else.
//!
//! ```text
//! flow      TCP: addresses and ports; UDP and the rest of IP: addresses and, where fragments tell it, protocol; others: both MACs, type
//! word      0..32 when, ms | 32 busy | 33..64 bytes
//! ```
//!
//! UDP goes without its ports because its fragments have none, and may not be overtaken by what is whole (`io::steering` does the
//! same). Invariant: what is busy stays so until it has paused for so long that nothing of it is under way any more, so no
//! datagram overtakes an earlier one of its flow; and what becomes busy is behind all that it sent so far, because receivers take
//! what is sparse first.

use crate::types::Instant;
use crate::wire::frame::Frame;
use etherparse::{EtherType, IpNumber};
use std::sync::atomic::{AtomicU64, Ordering};

/// A busy flow that sends nothing for so long is sparse again, ms: longer than the receive buffer of a router lasts at 600 Mbit/s,
/// and than a thread waits for a processor.
const PAUSE_MS: u64 = 250;
/// What a flow may send and be sparse, bytes each ms (1 Mbit/s), and beyond that for once, bytes: the first bursts of a TCP
/// connection (RFC 6928: 10 segments, and twice as many).
const RATE: u64 = 128;
const BURST: u64 = 48 << 10;
const BUCKETS: usize = 1024;

const BUSY: u64 = 1 << 31;
const BYTES: u64 = BUSY - 1;

/// See the head of this file. Shared by the threads: a flow stays on one of them.
pub(super) struct Flows {
    buckets: Box<[AtomicU64]>,
}

impl Default for Flows {
    fn default() -> Flows {
        Flows { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Flows {
    /// Whether the flow of `frame`, which sends `bytes` more now, sends little.
    #[inline]
    pub(super) fn is_sparse(&self, frame: &Frame<'_>, bytes: usize, now: Instant) -> bool {
        // The high bits are the ones that the mixing has reached.
        let bucket = usize::try_from(mixed(frame) >> 54).unwrap_or(0);
        let Some(bucket) = self.buckets.get(bucket) else { return false };
        let (word, now) = (bucket.load(Ordering::Relaxed), now.millis() & u64::from(u32::MAX));
        let gap = now.wrapping_sub(word >> 32) & u64::from(u32::MAX);
        let left = (word & BYTES).saturating_sub(gap.saturating_mul(RATE));
        let beyond = left.saturating_add(u64::try_from(bytes).unwrap_or(BYTES)).min(BYTES);
        let busy = beyond > BURST || (word & BUSY != 0 && gap < PAUSE_MS);
        bucket.store((now << 32) | if busy { BUSY } else { 0 } | beyond, Ordering::Relaxed);
        !busy
    }
}

/// A number that is the same for all frames of a flow and hardly ever for those of another.
#[inline]
fn mixed(frame: &Frame<'_>) -> u64 {
    let packet = frame.payload();
    let flow = match EtherType(frame.ether_type()) {
        EtherType::IPV4 => flow4(packet),
        EtherType::IPV6 => flow6(packet),
        _ => None,
    };
    let mut mix = Mix(u64::from(frame.ether_type()));
    match flow {
        Some((protocol, addresses, ports)) => {
            mix.add(addresses);
            mix.add(&[protocol]);
            mix.add(ports);
        }
        None => mix.add(frame.bytes().get(..12).unwrap_or_default()),
    }
    mix.0
}

/// Protocol, both addresses, and the ports if they count.
type Flow<'p> = (u8, &'p [u8], &'p [u8]);

#[inline]
fn flow4(packet: &[u8]) -> Option<Flow<'_>> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let length = usize::from(header[0] & 0x0f) * 4;
    let (protocol, addresses) = (header[9], header.get(12..20)?);
    // More follow, or this is not the first.
    let is_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    let has_ports = protocol == IpNumber::TCP.0 && !is_fragment;
    let ports = if has_ports { packet.get(length..length + 4)? } else { &[] };
    Some((protocol, addresses, ports))
}

#[inline]
fn flow6(packet: &[u8]) -> Option<Flow<'_>> {
    let header: &[u8; 40] = packet.first_chunk()?;
    let addresses = header.get(8..40)?;
    match IpNumber(header[6]) {
        IpNumber::TCP => Some((header[6], addresses, packet.get(40..44)?)),
        IpNumber::IPV6_ICMP => Some((header[6], addresses, &[])),
        // What a fragment is of stands only in the first one.
        _ => Some((IpNumber::UDP.0, addresses, &[])),
    }
}

/// Words multiplied into one (a multiplier without structure: 2^64 divided by the golden ratio). Nothing depends on its being
/// hard to foresee.
struct Mix(u64);

impl Mix {
    #[inline]
    fn add(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte));
            self.0 = (self.0.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::types::Mac;
    use std::time::Duration;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn ip4(protocol: u8, ports: [u16; 2], fragment: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        ports.iter().for_each(|port| packet.extend(port.to_be_bytes()));
        packet.extend([0; 16]);
        ethernet(B, A, 0x0800, &packet)
    }

    fn ip6(protocol: u8, ports: [u16; 2]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 20, protocol, 64];
        packet.extend((0..32).map(|n| n * 7));
        ports.iter().for_each(|port| packet.extend(port.to_be_bytes()));
        packet.extend([0; 16]);
        ethernet(B, A, 0x86dd, &packet)
    }

    fn of(frame: &[u8]) -> u64 {
        mixed(&Frame::parse(frame).unwrap())
    }

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn flows_of_tcp_differ_by_ports_and_others_by_protocol() {
        let all = [
            ip4(6, [1000, 80], 0),
            ip4(6, [1001, 80], 0),
            ip4(17, [1000, 80], 0),
            ip4(1, [0, 0], 0),
            ip6(6, [1000, 80]),
            ip6(6, [1001, 80]),
            ip6(17, [1000, 80]),
            ethernet(B, A, 0x0806, &[0; 28]),
            ethernet(A, B, 0x0806, &[0; 28]),
        ];
        let mixed: std::collections::BTreeSet<u64> = all.iter().map(|frame| of(frame)).collect();
        assert_eq!(mixed.len(), all.len());
        // Fragments belong to what is whole, whatever stands where ports would.
        assert_eq!(of(&ip4(17, [1000, 80], 0)), of(&ip4(17, [7, 8], 0x2000)));
        assert_eq!(of(&ip4(17, [1000, 80], 0)), of(&ip4(17, [9, 9], 185)));
        assert_eq!(of(&ip6(17, [1, 2])), of(&ip6(17, [3, 4])));
        assert_eq!(of(&ip6(17, [1, 2])), of(&ip6(44, [3, 4])));
        assert_ne!(of(&ip6(17, [1, 2])), of(&ip6(58, [1, 2])));
    }

    #[test]
    fn buckets_are_used_evenly() {
        let used: std::collections::BTreeSet<u64> = (0..2048).map(|port| of(&ip4(6, [port, 80], 0)) >> 54).collect();
        // Of 1,024 buckets 2,048 balls leave 1024 / e^2 = 139 empty.
        assert!(used.len() > 850, "{}", used.len());
    }

    #[test]
    fn a_flow_is_sparse_until_it_sends_much_and_after_a_pause() {
        let (flows, frame) = (Flows::default(), ip4(6, [1000, 80], 0));
        let frame = Frame::parse(&frame).unwrap();
        assert!(flows.is_sparse(&frame, 30_000, at(1000)));
        assert!(!flows.is_sparse(&frame, 30_000, at(1001)), "past the bound");
        assert!(!flows.is_sparse(&frame, 60, at(1002)), "at once for all that follow");
        // However little it sends: what it sent before may still be on its way.
        assert!((0..20).all(|n| !flows.is_sparse(&frame, 60, at(1200 + n * 249))));
        assert!(flows.is_sparse(&frame, 60, at(1200 + 19 * 249 + 250)), "after a pause");
        assert!(!flows.is_sparse(&frame, 640_000, at(10_000)));
        assert!(!flows.is_sparse(&frame, 60, at(10_300)), "what was sent is not forgotten by a pause");
        assert!(flows.is_sparse(&frame, 60, at(16_000)));
    }

    #[test]
    fn a_flow_below_the_rate_is_sparse_for_good() {
        let (flows, frame) = (Flows::default(), ip4(17, [0, 0], 0));
        let frame = Frame::parse(&frame).unwrap();
        assert!((0..5000).all(|n| flows.is_sparse(&frame, 1200, at(n * 10))), "960 kbit/s");
        assert!(!(0..5000).all(|n| flows.is_sparse(&frame, 1400, at(n * 10))), "1,120 kbit/s");
    }

    #[test]
    fn little_ones_stay_sparse_for_good_beside_a_busy_one() {
        let flows = Flows::default();
        let (ping, stream) = (ip4(1, [0, 0], 0), ip4(6, [1000, 80], 0));
        let (ping, stream) = (Frame::parse(&ping).unwrap(), Frame::parse(&stream).unwrap());
        for ms in 0..2000 {
            assert!(flows.is_sparse(&ping, 98, at(ms)));
            assert!(!flows.is_sparse(&stream, 64_000, at(ms)));
        }
    }

    #[test]
    fn anything_is_a_flow() {
        for length in 14..80 {
            for kind in [0x0800u16, 0x86dd, 0x0806, 0x8100] {
                let frame = ethernet(B, A, kind, &vec![0xff; length - 14]);
                let _ = Flows::default().is_sparse(&Frame::parse(&frame).unwrap(), usize::MAX, at(1));
            }
        }
    }
}
