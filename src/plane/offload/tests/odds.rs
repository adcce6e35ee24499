use super::naive::{self, Packet, ipv4, ipv6, payload, tcp, udp};
use crate::plane::offload::odd::Odd;
use crate::wire::Malformed;
use crate::wire::virtio::{Gso, GsoKind, Partial};
use proptest::prelude::*;

/// What makes a frame odd.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Oddity {
    Tag,
    Tags,
    Options,
    Extension,
    Extensions,
}
use Oddity::*;

const ALL: [(Oddity, bool); 6] =
    [(Tag, true), (Tag, false), (Tags, true), (Options, true), (Extension, false), (Extensions, false)];

fn number(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) * 256 + usize::from(bytes[at + 1])
}

fn add(bytes: &mut [u8], at: usize, more: usize) {
    let sum = u16::try_from(number(bytes, at) + more).unwrap();
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The frame with the oddity, and how many bytes that puts before its transport header.
fn with(oddity: Oddity, plain: &[u8]) -> (Vec<u8>, usize) {
    let mut frame = plain.to_vec();
    let insert = |frame: &mut Vec<u8>, at: usize, bytes: &[u8]| drop(frame.splice(at..at, bytes.iter().copied()));
    match oddity {
        Tag => insert(&mut frame, 12, &[0x81, 0, 0, 7]),
        Tags => insert(&mut frame, 12, &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8]),
        Options => {
            insert(&mut frame, 34, &[7, 7, 4, 0, 0, 0, 0, 1]);
            frame[14] += 2;
            add(&mut frame, 16, 8);
            frame[24..26].fill(0);
            let mut sum: usize = frame[14..42].chunks(2).map(|word| number(word, 0)).sum();
            while sum > 0xffff {
                sum = sum % 0x1_0000 + sum / 0x1_0000;
            }
            frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        }
        Extension | Extensions => {
            let second: &[u8] = if oddity == Extensions { &[0; 16] } else { &[] };
            let mut headers = [&[frame[20], 0, 1, 4, 0, 0, 0, 0], second].concat();
            if oddity == Extensions {
                (headers[0], headers[8], headers[9]) = (43, frame[20], 1);
            }
            add(&mut frame, 18, headers.len());
            frame[20] = 60;
            insert(&mut frame, 54, &headers);
        }
    }
    let more = frame.len() - plain.len();
    (frame, more)
}

fn packet(v4: bool, is_tcp: bool, len: usize) -> Packet {
    Packet::new(if v4 { ipv4(1) } else { ipv6(1) }, if is_tcp { tcp() } else { udp() }, payload(len))
}

fn gso(v4: bool, is_tcp: bool, size: usize) -> Gso {
    let kind = match (is_tcp, v4) {
        (false, _) => GsoKind::Udp,
        (true, true) => GsoKind::Tcp4,
        (true, false) => GsoKind::Tcp6,
    };
    Gso { kind, ecn: false, size: size.try_into().unwrap(), headers: 0 }
}

fn partial(v4: bool, is_tcp: bool, more: usize) -> Partial {
    let start = if v4 { 34 } else { 54 } + u16::try_from(more).unwrap();
    Partial { start, offset: if is_tcp { 16 } else { 6 } }
}

fn written(odd: &Odd<'_>) -> Vec<Vec<u8>> {
    let write = |n| {
        let mut into = vec![0xa5; odd.len_of(n)];
        odd.write(n, &mut into);
        into
    };
    (0..odd.count()).map(write).collect()
}

fn assert_naive(oddity: Oddity, v4: bool, packet: &Packet, size: usize) {
    let is_tcp = matches!(packet.transport, naive::Transport::Tcp(_));
    let plain = packet.partial();
    let (frame, more) = with(oddity, &plain);
    let odd = Odd::new(&frame, &gso(v4, is_tcp, size), partial(v4, is_tcp, more)).unwrap();
    let expected: Vec<_> = naive::segment(&plain, size).iter().map(|segment| with(oddity, segment).0).collect();
    assert_eq!(written(&odd), expected, "{oddity:?}");
}

#[test]
fn every_oddity_is_cut_as_the_naive_way_does() {
    for (oddity, v4) in ALL {
        for (is_tcp, len, size) in [(true, 5000, 1440), (true, 1440, 1440), (false, 3001, 1000), (true, 0, 9)] {
            assert_naive(oddity, v4, &packet(v4, is_tcp, len), size);
        }
    }
}

#[test]
fn lies_are_malformed() {
    let (frame, more) = with(Options, &packet(true, true, 3000).partial());
    let (gso, partial) = (gso(true, true, 1000), partial(true, true, more));
    let cut = |frame: &[u8], gso: &Gso, partial: Partial| Odd::new(frame, gso, partial).map(|_| ());
    assert_eq!(cut(&frame, &gso, partial), Ok(()));
    for kind in [GsoKind::Tcp6, GsoKind::Udp] {
        assert_eq!(cut(&frame, &Gso { kind, ..gso }, partial), Err(Malformed::Kind));
    }
    for other in
        [Partial { start: 34, ..partial }, Partial { start: 60_000, ..partial }, Partial { offset: 6, ..partial }]
    {
        assert_eq!(cut(&frame, &gso, other), Err(Malformed::Kind), "{other:?}");
    }
    let mut fragment = frame.clone();
    fragment[20] |= 0x20;
    assert_eq!(cut(&fragment, &gso, partial), Err(Malformed::Kind));
    let mut header = frame.clone();
    header[34 + more + 12] = 0x40;
    assert_eq!(cut(&header, &gso, partial), Err(Malformed::Kind), "a header of 16 bytes");
    assert_eq!(cut(&frame[..frame.len() - 1], &gso, partial), Err(Malformed::Length), "longer than the frame");
    assert_eq!(cut(&frame[..20], &gso, partial), Err(Malformed::Truncated));
    assert_eq!(cut(&[], &gso, partial), Err(Malformed::Kind));
    assert_eq!(cut(&frame, &Gso { size: 0, ..gso }, partial), Err(Malformed::TooLong));
}

proptest! {
    #[test]
    fn any_odd_super_frame_is_cut_as_the_naive_way_does(
        which in 0..ALL.len(),
        is_tcp: bool,
        (len, size) in (0usize..9000, 100usize..3000),
        (options, flags, sequence) in (0usize..=10, any::<u8>(), any::<u32>()),
    ) {
        let (oddity, v4) = ALL[which];
        let mut packet = packet(v4, is_tcp, len);
        if is_tcp {
            let tcp = packet.tcp();
            tcp.set_options_raw(&vec![1; options * 4]).unwrap();
            (tcp.sequence_number, tcp.cwr, tcp.psh, tcp.fin) = (sequence, flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
        }
        assert_naive(oddity, v4, &packet, size);
    }

    #[test]
    fn any_bytes_are_refused_or_cut(
        changes in prop::collection::vec((0usize..90, any::<u8>()), 0..4),
        (which, is_tcp) in (0..ALL.len(), any::<bool>()),
        (cut, size) in (0usize..300, 0usize..100),
        (start, offset) in (0u16..100, 0u16..20),
        lies: bool,
    ) {
        let (oddity, v4) = ALL[which];
        let (mut frame, more) = with(oddity, &packet(v4, is_tcp, 100).partial());
        changes.iter().for_each(|(at, value)| frame[*at] = *value);
        frame.truncate(cut);
        let partial = if lies { Partial { start, offset } } else { partial(v4, is_tcp, more) };
        if let Ok(odd) = Odd::new(&frame, &gso(v4, is_tcp, size), partial) {
            prop_assert_eq!(written(&odd).len(), odd.count());
        }
    }
}
