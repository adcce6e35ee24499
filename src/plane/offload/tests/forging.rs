use super::coalescing::{BOTH, WAY, arrive, kinds, train};
use super::naive::{Packet, Transport};
use crate::plane::fib::PortId;
use crate::plane::offload::{Arrival, Coalescer, Layout, checksum};
use crate::wire::virtio::Offload;

/// Every byte of the headers changed in every bit, with the checksums made right again: nothing but the comparison of that
/// very byte, or of lengths, can tell.
#[test]
fn a_forged_segment_never_merges_whatever_byte_of_the_header_is_changed() {
    for mut packet in kinds() {
        let is_tcp = matches!(packet.transport, Transport::Tcp(_));
        if is_tcp {
            // The forged one's is 0: as UDP it would be found by the same ports.
            packet.tcp().sequence_number = 0u32.wrapping_sub(1400);
        }
        let packets = train(&packet, &[700; 3]);
        for partial in [false, true] {
            let make = |packet: &Packet| if partial { packet.partial() } else { packet.bytes() };
            let honest: Vec<Vec<u8>> = packets.iter().map(make).collect();
            let layout = Layout::of(&honest[0]).unwrap();
            assert_eq!(joined(&honest[..2], &honest[2], partial), vec![3]);
            for at in 0..layout.payload {
                for change in [1, 2, 4, 8, 16, 32, 64, 128, 6 ^ 17] {
                    let mut forged = honest[2].clone();
                    forged[at] ^= change;
                    let pushed = is_tcp && at == layout.transport + 13 && change == 8;
                    for repaired in [false, true] {
                        if repaired {
                            repair(&mut forged, &layout, partial);
                        }
                        // A checksum that was changed and is repaired is what it was.
                        let same = forged == honest[2] || (pushed && (repaired || partial));
                        let expected = if same { vec![3] } else { vec![2, 1] };
                        assert_eq!(
                            joined(&honest[..2], &forged, partial),
                            expected,
                            "byte {at} change {change} {repaired} {partial}"
                        );
                    }
                }
            }
        }
    }
}

/// How many frames are in each delivery when a changed one comes last.
fn joined(before: &[Vec<u8>], last: &[u8], partial: bool) -> Vec<usize> {
    let mut counts = Vec::new();
    let mut deliver = |_: PortId, _: &Offload, parts: &[&[u8]]| counts.push(parts.len().max(2) - 1);
    let mut coalescer = Coalescer::new();
    for arrival in arrive(before, partial).chain([Arrival { way: WAY, frame: last, partial }]) {
        if !coalescer.join(arrival) {
            coalescer.begin(arrival, BOTH, &mut deliver);
        }
    }
    coalescer.flush(&mut deliver);
    // A frame that is now of no flow that runs leaves before the run.
    counts.sort_by_key(|count| usize::MAX - count);
    counts
}

/// Makes the checksums right, where they were, whatever the headers say now.
fn repair(frame: &mut [u8], layout: &Layout, partial: bool) {
    if layout.transport == 34 {
        frame[24..26].fill(0);
        let checksum = !checksum::sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
    let place = layout.partial();
    let at = usize::from(place.start + place.offset);
    let bytes = u32::try_from(frame.len() - layout.transport).unwrap();
    let pseudo = checksum::fold(checksum::pseudo(frame, layout) + bytes);
    frame[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    if !partial {
        checksum::complete(frame, place).unwrap();
    }
}
