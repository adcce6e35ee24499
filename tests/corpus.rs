//! Replays the committed fuzz corpora through the functions that the fuzz targets call.
//!
//! An input that once broke something, or reaches code that is hard to reach, is a file in `fuzz/corpus/<target>` and is
//! tried on every test run, without a fuzzing engine. `cargo test --test corpus -- --ignored` writes the seeds anew after
//! a layout has changed; files of other names stay.

// Reads files, and its helpers may panic as a test may.
#![allow(clippy::disallowed_methods, clippy::panic, clippy::unwrap_used)]

#[path = "../fuzz/src/lib.rs"]
mod properties;

use etherparse::{PacketBuilder, TcpHeader};
use properties::ALL;
use rnet::crypto::handshake::Hello;
use rnet::crypto::keys::generate_key;
use rnet::crypto::session::{Role, Session};
use rnet::types::{Mac, NetId, Nickname, PeerName, Psk, Refusal, ShortId, Uid};
use rnet::wire::beacon::Beacon;
use rnet::wire::datagram::{Fragment, Inner, Kind, Outer};
use rnet::wire::message::{Channel, Intro, Letter, Message, PathOffer, Service};
use rnet::wire::vxlan;
use std::fs;
use std::path::PathBuf;

fn fuzz() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz"].iter().collect()
}

fn corpus(target: &str) -> PathBuf {
    fuzz().join("corpus").join(target)
}

fn files(target: &str) -> Vec<PathBuf> {
    let listing = fs::read_dir(corpus(target)).unwrap_or_else(|error| panic!("no corpus of {target}: {error}"));
    listing.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_input_of_every_corpus_holds() {
    for (target, property) in ALL {
        let files = files(target);
        assert!(!files.is_empty(), "the corpus of {target} is empty");
        for file in files {
            eprintln!("{}", file.display()); // shown if the property panics
            property(&fs::read(&file).unwrap());
        }
    }
}

#[test]
fn every_corpus_and_every_target_has_its_property() {
    let known: Vec<&str> = ALL.iter().map(|(target, _)| *target).collect();
    for folder in ["corpus", "fuzz_targets"] {
        for entry in fs::read_dir(fuzz().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            assert!(known.contains(&name.as_str()), "{folder}/{name} is not in fuzz/src/lib.rs");
        }
    }
}

/// Writes `seed-<n>` files.
fn write(target: &str, seeds: Vec<Vec<u8>>) {
    fs::create_dir_all(corpus(target)).unwrap();
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(corpus(target).join(format!("seed-{number:02}")), seed).unwrap();
    }
}

#[test]
#[ignore = "writes fuzz/corpus"]
fn writes_the_seeds_anew() {
    write("frame", frames());
    write("datagram", datagrams());
    let mut header = [0; vxlan::VXLAN_LEN];
    vxlan::emit(NetId::new(0x83_12a4).unwrap(), &mut header);
    write(
        "vxlan",
        vec![[&header[..], &frames()[0]].concat(), header.to_vec(), vec![0x08; 7], vec![0; 8], vec![0xff; 9]],
    );
    let good = Beacon {
        network: NetId::new(0x83_12a4).unwrap(),
        peer: PeerName(Mac([2, 1, 2, 3, 4, 5])),
        port: 7,
        run: Uid(9),
        number: 10,
    };
    let good = good.emit(|_| [0xcc; 16])[14..].to_vec();
    write(
        "beacon",
        vec![good.clone(), good[..49].to_vec(), [&good[..], &[0; 10]].concat(), vec![0; 50], good[1..].to_vec()],
    );
    write("message", messages());
    write("session", streams());
    write("segment", super_frames());
    write("coalesce", trains());
}

fn frames() -> Vec<Vec<u8>> {
    let eth = |ether_type: u16, payload: &[u8]| {
        [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &ether_type.to_be_bytes(), payload].concat()
    };
    let ipv4 = [0x45, 0, 0, 20, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 2, 1, 1, 10, 2, 1, 9];
    let arp = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 2, 1, 1, 0, 0, 0, 0, 0, 0, 10, 2, 1, 9];
    let ipv6 = |next: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap();
        let address = |last| [&[0xfd, 0, 0, 1][..], &[0; 11], &[last]].concat();
        let header = [0x60, 0, 0, 0, 0, length, next, 255];
        eth(0x86dd, &[&header[..], &address(1), &address(9), payload].concat())
    };
    let answer = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &[0xfd; 16], &[2, 1, 2, 0, 0, 0, 0, 1]].concat();
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    vec![
        eth(0x0800, &ipv4),
        eth(0x0806, &arp),
        ipv6(17, &[0; 8]),
        ipv6(58, &answer),
        ipv6(0, &[&options(60)[..], &options(44), &[58, 0, 0, 0, 0, 0, 0, 1], &answer].concat()),
        ipv6(44, &[&[58, 0, 0, 1, 0, 0, 0, 1][..], &answer].concat()),
        ipv6(58, &[&[134; 16][..], &[3, 4], &[0; 30], &[5, 1, 0, 0, 0, 0, 5, 0xdc]].concat()),
        ipv6(51, &[58, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        eth(0x8100, &[&[0, 5, 8, 0][..], &ipv4].concat()),
        eth(0x0026, &[0x42; 38]),
        vec![0; 13],
    ]
}

fn datagrams() -> Vec<Vec<u8>> {
    let build_for = |destination, kind, fragment| {
        let mut header = [0; 16];
        Outer { kind, lane: 3, sparse: false, epoch: 258, index: 0xa1a2_a3a4, counter: 772 }.emit(&mut header);
        let (origin, destination, number) = (ShortId(7), ShortId(destination), 0x0102_0304_0506_0708);
        let network = NetId::new(0x83_12a4).unwrap();
        let inner = Inner { origin, destination, number, network, hops: 0, partial: true, fragment };
        let mut rest = vec![0; inner.len()];
        inner.emit(&mut rest);
        [&header[..], &rest, &frames()[0]].concat()
    };
    let build = |kind, fragment| build_for(0, kind, fragment);
    let fragment = |offset, more| Some(Fragment { id: 0xdead_beef, offset, more });
    vec![
        build(Kind::Sealed, None),
        build(Kind::Plain, None),
        build(Kind::Probe, None),
        build(Kind::Plain, fragment(0, true)),
        build(Kind::Plain, fragment(65_528, false)),
        vec![0x11, 0],
        vec![0x31; 40],
        vec![0xff; 40],
        build_for(9, Kind::Plain, None),
        build_for(9, Kind::Plain, fragment(1456, true)),
        build(Kind::Plain, None)[..16 + 15].to_vec(),
        build(Kind::Plain, fragment(0, true))[..16 + 21].to_vec(),
    ]
}

fn messages() -> Vec<Vec<u8>> {
    let nickname = Nickname::new("host2");
    let range = "10.32.0.0/12".to_string();
    let (uid, connection) = (Uid(u64::MAX), 251);
    let (port, vxlan) = (6783, 6784);
    let intro = Intro { nickname, uid, connection, port, aes: true, password: true, vxlan, trusts: false, range };
    let offer = PathOffer { epoch: 7, index: 0xa1a2_a3a4, ephemeral: [0x5e; 32] };
    let refusal = Refusal::RangeMismatch { theirs: "10.0.0.0/8".into(), ours: "10.32.0.0/12".into() };
    let name = PeerName(Mac([2, 0, 0, 0, 0, 1]));
    let letter = Letter { service: Service::Addresses, from: name, to: vec![name; 3], hops: 64, body: vec![1; 20] };
    let all = [
        Message::Intro(intro),
        Message::Refuse(refusal),
        Message::Refuse(Refusal::Version { theirs: (1, 2), ours: (3, 4) }),
        Message::Refuse(Refusal::ConnectionLimit { limit: 200 }),
        Message::Ping { nonce: 250 },
        Message::Pong { nonce: u64::MAX },
        Message::Gossip { channel: Channel::Topology, body: b"body".to_vec() },
        Message::Gossip { channel: Channel::Claims, body: vec![7; 300] },
        Message::PathOffer(offer),
        Message::PathAnswer(offer),
        Message::PathReady { epoch: 300 },
    ];
    let odd: [&[u8]; 3] = [&[5, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0x40], &[10], &[1, 0xfc, 0, 0, 0x40, 0]];
    all.iter().map(Message::encode).chain(odd.map(<[u8]>::to_vec)).chain([Message::Letter(letter).encode()]).collect()
}

/// See [`properties::segment`] for the first five bytes.
fn super_frames() -> Vec<Vec<u8>> {
    let frame = |v4: bool, tcp: bool, len: usize| {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let builder =
            if v4 { builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64) } else { builder.ipv6([1; 16], [2; 16], 64) };
        let (payload, mut frame) = (vec![5; len], Vec::new());
        if tcp {
            let mut header = TcpHeader::new(7, 9, u32::MAX - 100, 512);
            (header.ack, header.psh, header.fin, header.cwr) = (true, true, true, true);
            header.set_options_raw(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
            builder.tcp_header(header).write(&mut frame, &payload).unwrap();
        } else {
            builder.udp(7, 9).write(&mut frame, &payload).unwrap();
        }
        frame
    };
    let seed = |first: u8, size: u16, narrow: u16, frame: Vec<u8>| {
        [&[first][..], &size.to_be_bytes(), &narrow.to_be_bytes(), &frame].concat()
    };
    vec![
        seed(0, 100, 120, frame(true, true, 450)),
        seed(5, 100, 130, frame(false, true, 450)),
        seed(2, 64, 100, frame(true, false, 200)),
        seed(2, 64, 100, frame(false, false, 200)),
        seed(0, 1, 67, frame(true, true, 9)),
        seed(1, 1000, 0, frame(false, true, 0)),
        seed(2, 9, 0, [frame(true, false, 20), vec![0; 9]].concat()),
        seed(2, 0, 0, frame(true, false, 20)),
        seed(0, 100, 0, frame(true, false, 200)),
    ]
}

/// See [`properties::coalesce`].
fn trains() -> Vec<Vec<u8>> {
    let train = |steps: &[[u8; 4]]| [&[0][..], &steps.concat()].concat();
    let each = |flags: u8, count: usize| -> Vec<[u8; 4]> {
        (0..8).flat_map(|flow| vec![[flow | flags, 100, 0, 0]; count]).collect()
    };
    let turns: Vec<[u8; 4]> = (0..80).map(|n| [n % 8, 20, 0, 0]).collect();
    // Two honest frames, and one with a byte changed: first, in the middle or last; its checksums as they were, or made right.
    let forged = |flags: u8| -> Vec<[u8; 4]> {
        let at = |at: u8| {
            let odd = [flags, 9, at, 1];
            [odd, [flags & 15, 9, 0, 0], odd, [flags & 15, 9, 0, 0], [flags & 15, 9, 0, 0], odd]
        };
        (0..=85).flat_map(at).collect()
    };
    let pushed: Vec<[u8; 4]> = (0..40).map(|n| [(if n % 5 == 3 { 16 } else { 0 }) | (n % 2), 30, 0, 0]).collect();
    let half: Vec<[u8; 4]> = (0..40).map(|n| [n % 2 * 8 + 5, 30, 0, 0]).collect();
    vec![
        train(&each(0, 3)),
        train(&each(8, 3)),
        train(&each(16, 2)),
        train(&each(128, 3)),
        train(&[[2, 9, 0, 0]; 70]),
        train(&[[8, 255, 0, 0]; 4]),
        train(&turns),
        train(&forged(64)),
        train(&forged(0)),
        train(&forged(8 + 5)),
        train(&forged(2)),
        train(&pushed),
        train(&half),
        [&[3][..], &each(0, 2).concat()].concat(),
        train(&[[4, 9, 0, 0], [4, 9, 20, 0x20], [4, 9, 0, 0], [36, 9, 0, 0], [4, 8, 0, 0], [4, 9, 0, 0], [4, 0, 0, 0]]),
    ]
}

/// See [`properties::session`] for the first byte.
fn streams() -> Vec<Vec<u8>> {
    let hello = |password| Hello::ours(password).emit();
    let record = |kind: u8, length: u8| [&[kind, 0, length][..], &vec![7; length.into()]].concat();
    // What an honest dialer says until it waits for the confirmation, here replayed by an impostor.
    let psk = Psk([5; 32]);
    let mut dialer = Session::new(Role::Dialer, &generate_key([1; 32]), Some(&psk), [3; 32]);
    let mut listener = Session::new(Role::Listener, &generate_key([2; 32]), Some(&psk), [9; 32]);
    let mut replayed = Vec::new();
    for _ in 0..3 {
        let said = dialer.take_output();
        listener.receive(&said).unwrap();
        replayed.extend(said);
        dialer.receive(&listener.take_output()).unwrap();
    }
    vec![
        [&[0xf0][..], &hello(false), &record(1, 96)].concat(),
        [&[0xf1][..], &hello(false), &record(1, 32), &record(1, 64)].concat(),
        [&[0xf3][..], &hello(true), &record(1, 48), &record(1, 64)].concat(),
        [&[0x03][..], &replayed].concat(),
        [&[0x00][..], &hello(true)].concat(),
        [&[0xf0][..], &hello(false), &[3, 0, 1, 1, 0]].concat(),
        [&[0x31][..], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"].concat(),
        [&[0xf4][..], &record(3, 1)].concat(),
        [&[0xfc][..], &record(2, 17), &record(2, 99)].concat(),
        [&[0xff][..], &[2, 0xff, 0xff][..], &[0; 200]].concat(),
        vec![0x01],
        b"\x11rnet\x02\x03\x00\x00".to_vec(),
    ]
}
