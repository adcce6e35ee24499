//! The law of coalescing: whatever comes in, in whatever batches, what comes out is worth the same frames, flow by flow in the
//! same order, and with the checksums that were there.

use super::naive::{self, Ip, Packet, Transport, ipv4, ipv6, meaning, tcp, udp};
use crate::plane::fib::PortId;
use crate::plane::macs::Place;
use crate::plane::offload::{Arrival, Coalescer, Merge, Way};
use crate::types::ShortId;
use crate::wire::virtio::{Gso, GsoKind, Offload};
use proptest::prelude::*;
use std::collections::HashMap;

const FLOWS: usize = 11;

/// How a frame of a flow differs from an honest one.
#[derive(Debug, Clone, Copy)]
enum Oddity {
    None,
    Partial,
    Psh,
    Fin,
    Window,
    /// A segment was lost before it, or came late.
    Gap,
    Identification,
    WrongChecksum,
    /// UDP without a checksum; TCP with a partial one that is wrong.
    NoChecksum,
    Padded,
    Fragment,
    /// The batch ends before it.
    Flush,
}

#[derive(Debug, Clone)]
struct Step {
    flow: usize,
    oddity: Oddity,
    len: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let oddity = prop_oneof![
        30 => Just(Oddity::None),
        20 => Just(Oddity::Partial),
        2 => Just(Oddity::Psh),
        1 => Just(Oddity::Fin),
        1 => Just(Oddity::Window),
        1 => Just(Oddity::Gap),
        1 => Just(Oddity::Identification),
        1 => Just(Oddity::WrongChecksum),
        1 => Just(Oddity::NoChecksum),
        1 => Just(Oddity::Padded),
        1 => Just(Oddity::Fragment),
        1 => Just(Oddity::Flush),
    ];
    let len = prop_oneof![20 => Just(500usize), 3 => Just(499usize), 1 => 0usize..1000, 1 => Just(21_000usize)];
    let trains = (0..FLOWS, 1usize..100, prop::collection::vec((oddity, len), 1..12));
    // A train of one flow, repeated: long runs are what this is about.
    prop::collection::vec(trains, 1..8).prop_map(|trains| {
        let mut steps = Vec::new();
        for (flow, repeat, train) in trains {
            for (oddity, len) in train.iter().cycle().take(repeat) {
                // Half of the trains have flows in turn.
                let flow = if repeat % 2 == 0 { flow } else { (flow + steps.len()) % FLOWS };
                steps.push(Step { flow, oddity: *oddity, len: *len });
            }
        }
        steps
    })
}

fn packets() -> Vec<Packet> {
    (0..FLOWS as u8)
        .map(|flow| {
            let (ip, transport) = match flow % 5 {
                0 => (ipv4(flow), tcp()),
                1 => (ipv6(flow), tcp()),
                2 => (ipv4(flow), udp()),
                3 => (ipv6(flow), udp()),
                // As flow 0 but for a port.
                _ => (ipv4(0), tcp()),
            };
            let mut packet = Packet::new(ip, transport, vec![]);
            if flow % 5 == 4 {
                packet.tcp().source_port += u16::from(flow);
            }
            if flow % 2 == 0
                && let Ip::V4(ip) = &mut packet.ip
            {
                ip.dont_fragment = flow % 4 == 0;
            }
            packet
        })
        .collect()
}

/// A frame as it comes in and what it is worth.
struct Sent {
    frame: Vec<u8>,
    partial: bool,
    worth: Vec<u8>,
}

fn build(next: &mut Packet, step: &Step, n: usize) -> Sent {
    let mut packet = Packet { payload: vec![n as u8; step.len], ..next.clone() };
    let field = if matches!(packet.ip, Ip::V4(_)) { 34 } else { 54 };
    let field = field + if matches!(packet.transport, Transport::Tcp(_)) { 16 } else { 6 };
    match (step.oddity, &mut packet.ip, &mut packet.transport) {
        (Oddity::Psh, _, Transport::Tcp(tcp)) => tcp.psh = true,
        (Oddity::Fin, _, Transport::Tcp(tcp)) => tcp.fin = true,
        (Oddity::Window, _, Transport::Tcp(tcp)) => tcp.window_size += 1,
        (Oddity::Gap, _, Transport::Tcp(tcp)) => tcp.sequence_number ^= 0x100,
        (Oddity::Identification, Ip::V4(ip), _) => ip.identification = ip.identification.wrapping_sub(1),
        _ => {}
    }
    let mut frame = packet.bytes();
    let worth = frame.clone();
    let mut sent = Sent { frame: worth.clone(), partial: false, worth };
    match step.oddity {
        Oddity::Partial => (sent.frame, sent.partial) = (packet.partial(), true),
        Oddity::WrongChecksum => {
            frame[field] ^= 0x40;
            (sent.frame, sent.worth) = (frame.clone(), frame);
        }
        Oddity::NoChecksum if matches!(packet.transport, Transport::Udp(_)) => {
            frame[field..field + 2].fill(0);
            (sent.frame, sent.worth) = (frame.clone(), frame);
        }
        Oddity::NoChecksum => {
            frame[field..field + 2].fill(0);
            (sent.frame, sent.partial) = (frame, true);
        }
        Oddity::Padded => {
            frame.extend([0; 3]);
            (sent.frame, sent.worth) = (frame.clone(), frame);
        }
        Oddity::Fragment if matches!(packet.ip, Ip::V4(_)) => {
            frame[21] = 9;
            (sent.frame, sent.worth) = (frame.clone(), frame);
        }
        _ => {}
    }
    if let Transport::Tcp(tcp) = &mut next.transport {
        tcp.sequence_number = tcp.sequence_number.wrapping_add(step.len as u32);
    }
    if let Ip::V4(ip) = &mut next.ip {
        ip.identification = ip.identification.wrapping_add(1);
    }
    sent
}

fn is_ipv4(frame: &[u8]) -> bool {
    frame[12] == 8
}

fn is_fragment(frame: &[u8]) -> bool {
    is_ipv4(frame) && frame[21] != 0
}

/// The frames of each flow in order; fragments count as one.
fn flows(frames: &[Vec<u8>]) -> HashMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows = HashMap::new();
    for frame in frames {
        let flow = match (is_fragment(frame), is_ipv4(frame)) {
            (true, _) => vec![],
            (_, true) => [&frame[23..24], &frame[26..38]].concat(),
            (_, false) => [&frame[20..21], &frame[22..58]].concat(),
        };
        flows.entry(flow).or_insert_with(Vec::new).push(meaning(frame));
    }
    flows
}

/// For each fragment what of its version came before: any of it may be of its flow.
fn before_fragments(frames: &[Vec<u8>]) -> Vec<Vec<Vec<u8>>> {
    let (mut before, mut all) = (Vec::new(), Vec::new());
    for frame in frames.iter().filter(|frame| is_ipv4(frame)) {
        if is_fragment(frame) {
            all.sort();
            before.push(all.clone());
        }
        all.push(meaning(frame));
    }
    before
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn what_comes_out_is_worth_what_came_in(steps in steps(), (tcp, udp) in any::<(bool, bool)>(), all in any::<bool>()) {
        let merge = Merge { tcp: tcp || all, udp: udp || all };
        let way = Way { port: PortId(1), origin: Place::Peer(ShortId(1)) };
        let mut packets = packets();
        let sent: Vec<Sent> =
            steps.iter().enumerate().map(|(n, step)| build(&mut packets[step.flow], step, n)).collect();
        let mut out: Vec<(Offload, Vec<u8>)> = Vec::new();
        let mut deliver = |_: PortId, offload: &Offload, parts: &[&[u8]]| out.push((*offload, parts.concat()));
        let mut coalescer = Coalescer::new();
        for (step, sent) in steps.iter().zip(&sent) {
            if matches!(step.oddity, Oddity::Flush) {
                coalescer.flush(&mut deliver);
                coalescer = Coalescer::new();
            }
            let arrival = Arrival { way, frame: &sent.frame, partial: sent.partial };
            if !coalescer.join(arrival) {
                coalescer.begin(arrival, merge, &mut deliver);
            }
        }
        coalescer.flush(&mut deliver);
        let sent: Vec<Vec<u8>> = sent.iter().map(|sent| sent.worth.clone()).collect();
        let came: Vec<Vec<u8>> = out.iter().flat_map(|(offload, frame)| naive::finished(offload, frame)).collect();
        prop_assert_eq!(flows(&came), flows(&sent));
        prop_assert_eq!(before_fragments(&came), before_fragments(&sent));
        for (offload, _) in &out {
            let allowed = |gso: Gso| if gso.kind == GsoKind::Udp { merge.udp } else { merge.tcp };
            prop_assert!(offload.gso.is_none_or(allowed));
        }
    }
}
