//! Parsing and emitting: what each layer of bytes costs per frame or message.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rnet::types::{NetId, ShortId};
use rnet::wire::datagram::{Fragment, Inner, Kind, Outer};
use rnet::wire::frame::{Frame, source};
use rnet::wire::message::{Channel, Message, decode_body, encode_body};
use std::hint::black_box;

/// Of the shape of a topology record.
type Record = (u64, String, Vec<(u64, u32)>);

/// A frame of 1454 bytes with this type and this begin of its payload.
fn frame_of(ether_type: u16, begin: &[u8]) -> Vec<u8> {
    let mut frame = [&[2; 12][..], &ether_type.to_be_bytes(), begin].concat();
    frame.resize(1454, 0);
    frame
}

fn frames(c: &mut Criterion) {
    let ipv4 = frame_of(0x0800, &[0x45, 0, 5, 0xa0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 2, 1, 1, 10, 2, 1, 9]);
    let ipv6 = frame_of(0x86dd, &[0x60, 0, 0, 0, 5, 0x78, 6, 64]);
    let mut group = c.benchmark_group("frame");
    group.bench_function("parse", |b| {
        b.iter(|| Frame::parse(black_box(&ipv4)).map(|frame| (frame.dst(), frame.src(), frame.ether_type())))
    });
    for (name, bytes) in [("source of ipv4", &ipv4), ("source of ipv6", &ipv6)] {
        group.bench_function(name, |b| b.iter(|| Frame::parse(black_box(bytes)).map(|frame| source(&frame))));
    }
    group.finish();
}

fn datagrams(c: &mut Criterion) {
    let outer = Outer { kind: Kind::Sealed, lane: 0, sparse: false, epoch: 7, index: 0xa1a2_a3a4, counter: 1 << 40 };
    let Some(network) = NetId::new(0x83_12a4) else { return };
    let whole = Inner {
        origin: ShortId(7),
        destination: ShortId(9),
        number: 0,
        network,
        hops: 9,
        partial: false,
        fragment: None,
    };
    let part = Inner { fragment: Some(Fragment { id: 1, offset: 1456, more: true }), ..whole };
    let flood = Inner { destination: ShortId::FLOOD, number: 1 << 40, ..whole };
    let mut group = c.benchmark_group("datagram");
    for (name, inner) in [("whole", whole), ("fragment", part), ("flood", flood)] {
        let mut header = [0; 16];
        let mut rest = [0; 16];
        outer.emit(&mut header);
        inner.emit(&mut rest);
        group.bench_function(format!("parse {name}"), |b| {
            b.iter(|| (Outer::parse(black_box(&header)), Inner::parse(black_box(&rest))))
        });
        group.bench_function(format!("emit {name}"), |b| {
            b.iter(|| {
                black_box(&outer).emit(black_box(&mut header));
                black_box(&inner).emit(black_box(&mut rest))
            })
        });
    }
    group.finish();
}

fn messages(c: &mut Criterion) {
    // About what 100 peers with 20 links each weigh.
    let records: Vec<Record> = (0..100)
        .map(|peer| (peer << 40, format!("host{peer}"), (0..20).map(|link| (link << 40, 900)).collect()))
        .collect();
    let body = encode_body(&records);
    let gossip = Message::Gossip { channel: Channel::Topology, body: body.clone() };
    let bytes = gossip.encode();
    let ping = Message::Ping { nonce: 7 }.encode();
    let mut group = c.benchmark_group("message");
    group.bench_function("decode ping", |b| b.iter(|| Message::decode(black_box(&ping))));
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode gossip", |b| b.iter(|| black_box(&gossip).encode()));
    group.bench_function("decode gossip", |b| b.iter(|| Message::decode(black_box(&bytes))));
    group.bench_function("encode body", |b| b.iter(|| encode_body(black_box(&records))));
    group.bench_function("decode body", |b| b.iter(|| decode_body::<Vec<Record>>(black_box(&body))));
    group.finish();
}

criterion_group!(benches, frames, datagrams, messages);
criterion_main!(benches);
