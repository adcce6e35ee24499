//! What must hold for any bytes at all, one function for each parser.
//!
//! `cargo fuzz run <name>` feeds a function what libFuzzer invents; `tests/corpus.rs` of the main package includes this
//! file and replays `fuzz/corpus/<name>` through the same function on every `cargo test`. To add one: a function here and
//! its name in `ALL`, a target in `fuzz_targets/` and `Cargo.toml`, and a few seeds in `fuzz/corpus/<name>`. On a stable
//! toolchain `cargo fuzz run -s none <name>` works, and with `RUSTC_BOOTSTRAP=1` also the address sanitizer.

mod offload;

pub use offload::{coalesce, segment};
use rnet::crypto::keys::{generate_key, public_key};
use rnet::crypto::session::{Role, Session, SessionEvent};
use rnet::types::{Psk, ShortId};
use rnet::wire::beacon::{BODY_LEN, Beacon, TAG_LEN, is_beacon};
use rnet::wire::datagram::{INNER_LEN, Inner, OUTER_LEN, Outer};
use rnet::wire::frame::{FRAME_MAX, Frame, HEADER_LEN, Source, source};
use rnet::wire::message::Message;
use rnet::wire::vxlan;

/// Takes any bytes, panics if something does not hold.
pub type Property = fn(&[u8]);

/// Every property by its name, which is that of its target and its corpus.
pub const ALL: [(&str, Property); 8] = [
    ("frame", frame),
    ("datagram", datagram),
    ("vxlan", vxlan),
    ("beacon", beacon),
    ("message", message),
    ("session", session),
    ("segment", segment),
    ("coalesce", coalesce),
];

/// A frame keeps its bytes, and whatever it carries has a source.
pub fn frame(data: &[u8]) {
    let Ok(frame) = Frame::parse(data) else {
        assert!(data.len() < HEADER_LEN || data.len() > FRAME_MAX);
        return;
    };
    assert_eq!(frame.bytes(), data);
    assert_eq!([&frame.dst().0[..], &frame.src().0, &frame.ether_type().to_be_bytes(), frame.payload()].concat(), data);
    let tagged = matches!(frame.ether_type(), 0x8100 | 0x88a8 | 0x9100);
    assert_eq!(source(&frame) == Source::Tagged, tagged);
}

/// Headers are refused or written back as they were.
pub fn datagram(data: &[u8]) {
    if let Ok(outer) = Outer::parse(data) {
        let mut again = [0; OUTER_LEN];
        outer.emit(&mut again);
        assert!(data.starts_with(&again));
    }
    let inside = data.get(OUTER_LEN..).unwrap_or(data);
    if let Ok((inner, length)) = Inner::parse(inside) {
        assert!(inner.origin != ShortId::FLOOD && length >= INNER_LEN);
        let mut again = vec![0; length];
        assert_eq!(inner.emit(&mut again), length);
        assert!(inside.starts_with(&again));
    }
}

/// The network is written back as it was; what is reserved is not.
pub fn vxlan(data: &[u8]) {
    let Ok((network, frame)) = vxlan::parse(data) else { return };
    let mut again = [0; vxlan::VXLAN_LEN];
    vxlan::emit(network, &mut again);
    assert_eq!(vxlan::parse(&[&again, frame].concat()), Ok((network, frame)));
}

/// A beacon is refused, or what is signed in it is written back as it was.
pub fn beacon(data: &[u8]) {
    let Ok((beacon, signed, tag)) = Beacon::parse(data) else { return };
    assert_eq!(signed.len() + TAG_LEN, BODY_LEN);
    let again = beacon.emit(|bytes| {
        assert_eq!(bytes, signed);
        *tag
    });
    assert!(is_beacon(&again) && data.starts_with(&again[14..]));
}

/// A message is refused, or means the same when written and read again.
pub fn message(data: &[u8]) {
    let Ok(message) = Message::decode(data) else { return };
    let again = message.encode();
    // Not always the same bytes: an integer may have come in a longer form than need be, a text with more than is kept.
    assert!(again.len() <= data.len());
    assert_eq!(Message::decode(&again), Ok(message));
}

/// The first byte says which end this is (bit 0), whether it has a password (bit 1), how many steps of an honest
/// handshake come first (bits 2, 3) and how the stream is cut (the rest). The stream itself is an impostor's: an end may
/// take it or refuse it, but no message comes out of it, and a refusal is final.
pub fn session(data: &[u8]) {
    let Some((mode, stream)) = data.split_first() else { return };
    let psk = (mode & 2 != 0).then_some(Psk([5; 32]));
    let dialer = Session::new(Role::Dialer, &generate_key([1; 32]), psk.as_ref(), [3; 32]);
    let listener = Session::new(Role::Listener, &generate_key([2; 32]), psk.as_ref(), [4; 32]);
    let (mut ours, mut theirs, honest) = if mode & 1 == 0 { (dialer, listener, 2) } else { (listener, dialer, 1) };
    for _ in 0..(mode >> 2) & 3 {
        ours.receive(&theirs.take_output()).expect("the honest part of the stream");
        theirs.receive(&ours.take_output()).expect("the honest part of the stream");
    }
    let mut ended = None;
    for piece in stream.chunks(usize::from(mode >> 4) + 1) {
        let taken = ours.receive(piece);
        if let Some(refusal) = &ended {
            assert_eq!(taken.as_ref(), Err(refusal));
        }
        ended = ended.or(taken.err());
    }
    for event in std::iter::from_fn(|| ours.poll_event()) {
        match event {
            SessionEvent::Authenticated { key, .. } => assert_eq!(key, public_key(&generate_key([honest; 32]))),
            SessionEvent::Message(_) => panic!("a message that nobody sealed"),
        }
    }
}
