//! Smoke.
use super::*;
use crate::plane::fib::PortId;
use crate::types::ShortId;
use crate::wire::virtio::{Gso, GsoKind, Offload};
use etherparse::PacketBuilder;

fn tcp4(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut header = etherparse::TcpHeader::new(5, 6, 1000, 512);
    header.ack = true;
    header.acknowledgment_number = 77;
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp_header(header)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

#[test]
fn a_cut_super_frame_is_put_together_again() {
    let payload: Vec<u8> = (0..5000u32).map(|n| (n * 7 % 251) as u8).collect();
    let frame = tcp4(&payload);
    let gso = Gso { kind: GsoKind::Tcp4, ecn: false, size: 1448, headers: 54 };
    let segments = Segments::new(&frame, &gso).unwrap();
    assert_eq!(segments.count(), 4);
    let mut cut: Vec<Vec<u8>> = (0..4).map(|n| vec![0xa5; segments.len_of(n)]).collect();
    for (n, into) in cut.iter_mut().enumerate() {
        segments.write(n, into);
        if n % 2 == 0 {
            checksum::complete(into, segments.partial()).unwrap();
            assert!(checksum::is_right(into, &Layout::of(into).unwrap()));
        }
    }
    let way = Way { port: PortId(1), origin: ShortId(2) };
    let mut coalescer = Coalescer::new();
    let mut out: Vec<(Offload, Vec<u8>)> = Vec::new();
    let mut deliver = |_: PortId, offload: &Offload, parts: &[&[u8]]| out.push((*offload, parts.concat()));
    for (n, frame) in cut.iter().enumerate() {
        let arrival = Arrival { way, frame, partial: n % 2 != 0 };
        if !coalescer.join(arrival) {
            assert_eq!(n, 0);
            coalescer.begin(arrival, Merge { tcp: true, udp: true }, &mut deliver);
        }
    }
    coalescer.flush(&mut deliver);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].0, Offload { checksum: Some(segments.partial()), gso: Some(gso) });
    let mut whole = out.remove(0).1;
    checksum::complete(&mut whole, segments.partial()).unwrap();
    let mut expected = frame.clone();
    expected[18..20].copy_from_slice(&whole[18..20]);
    assert_eq!(whole, expected);
}
