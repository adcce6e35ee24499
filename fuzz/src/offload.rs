//! What must hold of super-frames. The frames of `coalesce` are built here from a few bytes each, else no two would ever be
//! alike; sums and segments are made once more, byte by byte.

use rnet::plane::Place;
use rnet::plane::fib::PortId;
use rnet::plane::offload::{Arrival, Coalescer, Layout, Merge, Segments, Way, checksum};
use rnet::types::ShortId;
use rnet::wire::virtio::{Gso, GsoKind, Offload};
use std::collections::HashMap;

fn sum(bytes: &[u8], more: usize) -> u16 {
    let words = bytes.chunks(2).map(|pair| usize::from(pair[0]) * 256 + usize::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = words.sum::<usize>() + more;
    while sum > 0xffff {
        sum = sum % 0x1_0000 + sum / 0x1_0000;
    }
    sum as u16
}

fn set(frame: &mut [u8], at: usize, value: usize) {
    frame[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
}

/// Of a TCP or UDP frame: whether IPv4, whether TCP, where its transport begins, where its checksum is.
fn shape(frame: &[u8]) -> (bool, bool, usize, usize) {
    let v4 = frame[12] == 8;
    let tcp = frame[if v4 { 23 } else { 20 }] == 6;
    let transport = if v4 { 34 } else { 54 };
    (v4, tcp, transport, transport + if tcp { 16 } else { 6 })
}

fn pseudo(frame: &[u8]) -> u16 {
    let (v4, tcp, transport, _) = shape(frame);
    let addresses = if v4 { &frame[26..34] } else { &frame[22..54] };
    sum(addresses, frame.len() - transport + if tcp { 6 } else { 17 })
}

/// Writes the lengths and both checksums anew.
fn finish(frame: &mut [u8]) {
    let (v4, tcp, transport, field) = shape(frame);
    if v4 {
        set(frame, 16, frame.len() - 14);
        set(frame, 24, 0);
        set(frame, 24, usize::from(!sum(&frame[14..34], 0)));
    } else {
        set(frame, 18, frame.len() - 54);
    }
    if !tcp {
        set(frame, transport + 4, frame.len() - transport);
    }
    set(frame, field, 0);
    let complete = !sum(&frame[transport..], pseudo(frame).into());
    set(frame, field, usize::from(if complete == 0 && !tcp { 0xffff } else { complete }));
}

/// The segments of a super-frame with complete checksums.
fn cut(frame: &[u8], headers: usize, size: usize) -> Vec<Vec<u8>> {
    let (v4, tcp, transport, _) = shape(frame);
    let (header, payload) = frame.split_at(headers);
    let count = payload.len().div_ceil(size).max(1);
    let segment = |n: usize| {
        let mut segment = [header, &payload[n * size..payload.len().min((n + 1) * size)]].concat();
        if v4 {
            set(&mut segment, 18, usize::from(frame[18]) * 256 + usize::from(frame[19]) + n);
        }
        if tcp {
            let number: [u8; 4] = frame[transport + 4..transport + 8].try_into().expect("four bytes");
            let number = u32::from_be_bytes(number).wrapping_add((n * size) as u32);
            segment[transport + 4..transport + 8].copy_from_slice(&number.to_be_bytes());
            let keep = if n == 0 { 0xff } else { 0x7f } & if n + 1 == count { 0xff } else { !9 };
            segment[transport + 13] &= keep;
        }
        finish(&mut segment);
        segment
    };
    (0..count).map(segment).collect()
}

/// The first byte is the kind (2 bits) and whether ECN, then come the size of segments and the length they are narrowed to, each
/// of two bytes; the rest is a frame. It is refused, or cut as the plain way does.
pub fn segment(data: &[u8]) {
    let Some((&[first, s0, s1, n0, n1], frame)) = data.split_first_chunk() else { return };
    let kind = [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp][usize::from(first & 3) % 3];
    let size = u16::from_be_bytes([s0, s1]);
    let gso = Gso { kind, ecn: first & 4 != 0 && kind != GsoKind::Udp, size, headers: 0 };
    let layout = Layout::of(frame);
    let Ok(segments) = Segments::new(frame, &gso) else { return };
    let layout = layout.expect("what is cut has a layout");
    assert_eq!((layout.gso_kind(), layout.partial()), (kind, segments.partial()));
    let whole = &frame[..layout.end];
    is_cut(&segments, whole, layout.payload, size.into());
    let narrow = usize::from(u16::from_be_bytes([n0, n1]));
    if let Some(narrowed) = segments.narrowed(narrow) {
        assert!(kind != GsoKind::Udp && narrowed.longest() <= narrow);
        is_cut(&narrowed, whole, layout.payload, usize::from(size).min(narrow - layout.payload));
    }
}

fn is_cut(segments: &Segments<'_>, whole: &[u8], headers: usize, size: usize) {
    let expected = cut(whole, headers, size);
    assert_eq!(segments.count(), expected.len());
    assert_eq!(segments.longest(), expected[0].len());
    for (n, expected) in expected.iter().enumerate() {
        let mut segment = vec![0xa5; segments.len_of(n)];
        segments.write(n, &mut segment);
        let field = shape(expected).3;
        assert_eq!(segment[field..field + 2], pseudo(expected).to_be_bytes());
        checksum::complete(&mut segment, segments.partial()).expect("a checksum inside");
        assert_eq!(segment, *expected);
        assert!(Layout::of(&segment).is_some_and(|layout| checksum::is_right(&segment, &layout)));
    }
}

/// The flow and what is odd about a frame, its payload's length, a byte of its headers and how that is changed.
type Step = [u8; 4];

const PARTIAL: u8 = 8;
const PUSHED: u8 = 16;
const FLUSHED: u8 = 32;
/// Checksums are made right again after the change.
const REPAIRED: u8 = 64;
/// A frame is lost after it, or for UDP a number is left out.
const LOST: u8 = 128;

/// The first byte says what may be merged, each four after it are a [`Step`]: frames of eight flows, most of them honest.
/// Frame by frame the same comes out of each flow, with the same checksums.
pub fn coalesce(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let merge = Merge { tcp: first & 1 == 0, udp: first & 2 == 0 };
    let steps = rest.as_chunks::<4>().0;
    let mut sent = [0usize; 8];
    let mut numbers = [0usize; 8];
    let frames: Vec<Vec<u8>> = steps.iter().map(|step| built(step, &mut sent, &mut numbers)).collect();
    let mut out = Vec::new();
    let mut deliver = |port: PortId, offload: &Offload, parts: &[&[u8]]| {
        assert_eq!(port, PortId(5));
        out.extend(worth(offload, &parts.concat(), merge));
    };
    let mut coalescer = Coalescer::new();
    for (step, frame) in steps.iter().zip(&frames) {
        if step[0] & FLUSHED != 0 {
            coalescer.flush(&mut deliver);
        }
        let way = Way { port: PortId(5), origin: Place::Peer(ShortId(6)) };
        let arrival = Arrival { way, frame, partial: step[0] & PARTIAL != 0 };
        if !coalescer.join(arrival) {
            coalescer.begin(arrival, merge, &mut deliver);
        }
    }
    coalescer.flush(&mut deliver);
    let came = steps.iter().zip(&frames).map(|(step, frame)| finished(frame, step[0] & PARTIAL != 0));
    assert_eq!(flows(out), flows(came.collect()));
}

fn built(step: &Step, sent: &mut [usize; 8], numbers: &mut [usize; 8]) -> Vec<u8> {
    let [what, len, at, change] = *step;
    let flow = usize::from(what & 7);
    let (v6, udp) = (flow & 1 != 0, flow & 2 != 0);
    let mut frame = vec![2; 12];
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 1, 0, 0, if udp { 17 } else { 6 }, 64]);
        frame.extend([0xfd; 32]);
    } else {
        // Every other flow must not be fragmented.
        let flags = if flow & 4 == 0 { 0x40 } else { 0 };
        frame.extend([8, 0, 0x45, 0, 0, 0, 0, 0, flags, 0, 64, if udp { 17 } else { 6 }, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        set(&mut frame, 18, numbers[flow]);
    }
    frame.extend([7, flow as u8, 0, 9]);
    if udp {
        frame.extend([0; 4]);
    } else {
        frame.extend((sent[flow] as u32).to_be_bytes());
        let flags = if what & PUSHED != 0 { 0x18 } else { 0x10 };
        frame.extend([0, 0, 0, 1, 0x80, flags, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
    let headers = frame.len();
    // Long ones for the largest packet.
    let len = if len > 250 { usize::from(len) * 100 } else { usize::from(len) };
    frame.extend((0..len).map(|n| (n + sent[flow]) as u8));
    finish(&mut frame);
    let field = shape(&frame).3;
    if change != 0 {
        frame[usize::from(at) % headers] ^= change;
        if what & REPAIRED != 0 && Layout::of(&frame).is_some_and(|layout| layout.end == frame.len()) {
            finish(&mut frame);
        }
    } else if what & PARTIAL != 0 {
        let pseudo = pseudo(&frame);
        set(&mut frame, field, pseudo.into());
    }
    sent[flow] += len + if what & LOST != 0 { 100 } else { 0 };
    numbers[flow] += if what & LOST != 0 { 2 } else { 1 };
    frame
}

/// The frames that a delivered one stands for.
fn worth(offload: &Offload, frame: &[u8], merge: Merge) -> Vec<Vec<u8>> {
    let Some(gso) = offload.gso else {
        return vec![finished(frame, offload.checksum.is_some())];
    };
    let layout = Layout::of(frame).expect("a super-frame has a layout");
    assert_eq!((offload.checksum, gso.kind), (Some(layout.partial()), layout.gso_kind()));
    assert_eq!((usize::from(gso.headers), gso.ecn, layout.end), (layout.payload, false, frame.len()));
    assert!(if gso.kind == GsoKind::Udp { merge.udp } else { merge.tcp });
    let field = shape(frame).3;
    assert_eq!(frame[field..field + 2], pseudo(frame).to_be_bytes());
    let segments = cut(frame, layout.payload, gso.size.into());
    assert!(segments.len() > 1 && segments.len() <= 64);
    segments.iter().map(|segment| meaning(segment)).collect()
}

/// A frame with a complete checksum if it has a partial one.
fn finished(frame: &[u8], partial: bool) -> Vec<u8> {
    let whole = Layout::of(frame).is_some_and(|layout| layout.end == frame.len());
    let mut frame = frame.to_vec();
    if partial && whole {
        let field = shape(&frame).3;
        let header = frame[24..26].to_vec();
        if frame[field..field + 2] == pseudo(&frame).to_be_bytes() {
            finish(&mut frame);
        }
        if shape(&frame).0 {
            frame[24..26].copy_from_slice(&header);
        }
    }
    meaning(&frame)
}

/// Without the identification where it has no meaning: of what must not be fragmented. A wrong checksum over it stays one.
fn meaning(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if Layout::of(&frame).is_some() && shape(&frame).0 && frame[20] & 0x40 != 0 && sum(&frame[14..34], 0) == 0xffff {
        set(&mut frame, 18, 0);
        set(&mut frame, 24, 0);
    }
    frame
}

/// The frames of each flow in order; those without a layout are one.
fn flows(frames: Vec<Vec<u8>>) -> HashMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows = HashMap::new();
    for frame in frames {
        let flow = match Layout::of(&frame) {
            None => vec![],
            Some(_) if shape(&frame).0 => [&frame[..14], &frame[23..24], &frame[26..38]].concat(),
            Some(_) => [&frame[..14], &frame[20..21], &frame[22..58]].concat(),
        };
        flows.entry(flow).or_insert_with(Vec::new).push(frame);
    }
    flows
}
