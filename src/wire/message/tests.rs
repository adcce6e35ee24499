//! Golden bytes of every message, limits, and laws of the codec.

use super::*;
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn intro() -> Intro {
    Intro {
        nickname: Nickname::new("host2"),
        uid: Uid(0x0102_0304_0506_0708),
        connection: 251,
        port: 6783,
        aes: true,
        password: false,
        vxlan: 6784,
        trusts: true,
        range: "10.32.0.0/12".into(),
    }
}

fn offer() -> PathOffer {
    PathOffer { epoch: 7, index: 0xa1a2_a3a4, ephemeral: [0x5e; 32] }
}

fn letter() -> Letter {
    let name = |last| PeerName(crate::types::Mac([2, 0, 0, 0, 0, last]));
    Letter { service: Service::Addresses, from: name(1), to: vec![name(2), name(3)], hops: 64, body: b"abc".to_vec() }
}

fn all() -> Vec<(Message, String)> {
    let range = Refusal::RangeMismatch { theirs: "10.0.0.0/8".into(), ours: "10.32.0.0/12".into() };
    let version = Refusal::Version { theirs: (1, 2), ours: (3, 4) };
    let offered = format!("07fca4a3a2a1{}", "5e".repeat(32));
    vec![
        (
            Message::Intro(intro()),
            "0105686f737432fd0807060504030201fbfb00fb7f1a0100fb801a010c31302e33322e302e302f3132".into(),
        ),
        (Message::Refuse(version), "020001020304".into()),
        (Message::Refuse(Refusal::WrongPassword), "0204".into()),
        (Message::Refuse(Refusal::ConnectionLimit { limit: 200 }), "0209c8".into()),
        (Message::Refuse(range), "020b0a31302e302e302e302f380c31302e33322e302e302f3132".into()),
        (Message::Refuse(Refusal::Stopping), "020f".into()),
        (Message::Ping { nonce: 250 }, "03fa".into()),
        (Message::Pong { nonce: 1 << 32 }, "04fd0000000001000000".into()),
        (Message::Gossip { channel: Channel::Topology, body: b"abc".to_vec() }, "050003616263".into()),
        (Message::Gossip { channel: Channel::Claims, body: Vec::new() }, "050100".into()),
        (Message::PathOffer(offer()), format!("06{offered}")),
        (Message::PathAnswer(offer()), format!("07{offered}")),
        (Message::PathReady { epoch: 300 }, "08fb2c01".into()),
        (Message::Letter(letter()), "0900020000000001020200000000020200000000034003616263".into()),
    ]
}

#[test]
fn messages_are_these_bytes() {
    for (message, expected) in all() {
        let bytes = message.encode();
        assert_eq!(hex(&bytes), expected, "{message:?}");
        assert_eq!(Message::decode(&bytes), Ok(message));
    }
}

#[test]
fn truncated_messages_are_refused_at_every_length() {
    for (message, _) in all() {
        let bytes = message.encode();
        for length in 0..bytes.len() {
            assert_eq!(Message::decode(&bytes[..length]), Err(Malformed::Truncated), "{message:?} at {length}");
        }
    }
}

#[test]
fn trailing_bytes_are_refused() {
    for (message, _) in all() {
        let mut bytes = message.encode();
        bytes.push(0);
        assert_eq!(Message::decode(&bytes), Err(Malformed::Trailing), "{message:?}");
    }
}

#[test]
fn unknown_kinds_and_variants_are_refused() {
    assert_eq!(Message::decode(&[0]), Err(Malformed::Kind));
    assert_eq!(Message::decode(&[10, 1]), Err(Malformed::Kind));
    assert_eq!(Message::decode(&[2, 16]), Err(Malformed::Field), "a refusal that does not exist");
    assert_eq!(Message::decode(&[5, 2, 0]), Err(Malformed::Field), "a channel that does not exist");
    assert_eq!(Message::decode(&[9, 2, 0]), Err(Malformed::Field), "a service that does not exist");
}

#[test]
fn texts_are_cut_and_cleaned_when_read() {
    let told = Intro { range: "\u{1b}[2J".repeat(100), ..intro() };
    let Ok(Message::Intro(read)) = Message::decode(&Message::Intro(told).encode()) else { panic!("does not decode") };
    assert_eq!(read.range.chars().count(), 64);
    assert!(read.range.starts_with("?[2J?"));
}

#[test]
fn an_announced_length_reserves_nothing() {
    // Gossip bodies and texts of 2^62 bytes, of 4 MiB, and of one byte more than there is.
    for length in ["fd0000000000000040", "fc00004000", "02ff"] {
        let bytes: Vec<u8> =
            (0..length.len()).step_by(2).map(|at| u8::from_str_radix(&length[at..at + 2], 16).unwrap()).collect();
        for start in [&[5, 0][..], &[1]] {
            let refused = Message::decode(&[start, &bytes].concat());
            assert!(matches!(refused, Err(Malformed::Truncated | Malformed::Length | Malformed::Field)), "{refused:?}");
        }
    }
    let list: Result<Vec<u64>, _> = decode_body(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0x40]);
    assert!(list.is_err());
}

#[test]
fn the_largest_gossip_passes_and_one_more_byte_does_not() {
    // Kind, channel, and 5 bytes for a length above 65535.
    let message = Message::Gossip { channel: Channel::Claims, body: vec![7; MESSAGE_MAX - 7] };
    let bytes = message.encode();
    assert_eq!(bytes.len(), MESSAGE_MAX);
    assert!(Message::decode(&bytes) == Ok(message), "an assert_eq would print it");
    let larger = Message::Gossip { channel: Channel::Claims, body: vec![7; MESSAGE_MAX - 6] };
    assert_eq!(Message::decode(&larger.encode()), Err(Malformed::TooLong));
    let small: Vec<u64> = vec![1; MESSAGE_MAX - 5];
    assert!(decode_body(&encode_body(&small)) == Ok(small), "integers of one byte, to the last");
}

#[test]
fn letters_are_bounded_in_receivers_and_body() {
    let decode = |to: usize, body: usize| {
        let letter = Letter { to: vec![letter().from; to], body: vec![7; body], ..letter() };
        Message::decode(&Message::Letter(letter).encode()).map(drop)
    };
    assert_eq!(decode(RECEIVERS_MAX, LETTER_MAX), Ok(()));
    assert_eq!(decode(RECEIVERS_MAX + 1, 0), Err(Malformed::TooLong));
    assert_eq!(decode(0, LETTER_MAX + 1), Err(Malformed::TooLong));
}

#[test]
fn bodies_with_long_lists_pass() {
    let list: Vec<(u64, String)> = (0..20_000).map(|n| (u64::MAX - n, format!("peer {n}"))).collect();
    let bytes = encode_body(&list);
    assert_eq!(decode_body(&bytes), Ok(list));
}

fn any_message() -> impl Strategy<Value = Message> {
    let offer = (any::<u16>(), any::<u32>(), any::<[u8; 32]>());
    let offer = offer.prop_map(|(epoch, index, ephemeral)| PathOffer { epoch, index, ephemeral });
    let intro = ("[!-~]{0,64}", any::<[u64; 2]>(), any::<[u16; 2]>(), any::<[bool; 3]>(), "[!-~]{0,64}");
    let intro = intro.prop_map(|(nickname, [uid, connection], [port, vxlan], [aes, password, trusts], range)| {
        Message::Intro(Intro {
            nickname: Nickname::new(&nickname),
            uid: Uid(uid),
            connection,
            port,
            aes,
            password,
            vxlan,
            trusts,
            range,
        })
    });
    let refusal = prop_oneof![
        Just(Refusal::Cloned),
        any::<u32>().prop_map(|limit| Refusal::ConnectionLimit { limit }),
        any::<[(u8, u8); 2]>().prop_map(|[theirs, ours]| Refusal::Version { theirs, ours }),
        ("[!-~]{0,64}", "[!-~]{0,64}").prop_map(|(theirs, ours)| Refusal::RangeMismatch { theirs, ours }),
    ];
    let body = prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        intro,
        refusal.prop_map(Message::Refuse),
        any::<u64>().prop_map(|nonce| Message::Ping { nonce }),
        any::<u64>().prop_map(|nonce| Message::Pong { nonce }),
        body.prop_map(|body| Message::Gossip { channel: Channel::Topology, body }),
        offer.clone().prop_map(Message::PathOffer),
        offer.prop_map(Message::PathAnswer),
        any::<u16>().prop_map(|epoch| Message::PathReady { epoch }),
        any::<(u8, [u8; 6])>().prop_map(|(hops, name)| {
            let name = PeerName(crate::types::Mac(name));
            Message::Letter(Letter { to: vec![name; usize::from(hops % 4)], from: name, hops, ..letter() })
        }),
    ]
}

proptest! {
    #[test]
    fn reads_what_it_wrote(message in any_message()) {
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn any_bytes_are_refused_or_a_message(kind in 0u8..11, rest in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(message) = Message::decode(&[&[kind], &rest[..]].concat()) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn a_changed_byte_never_panics(message in any_message(), at: prop::sample::Index, value: u8) {
        let mut bytes = message.encode();
        let at = at.index(bytes.len());
        bytes[at] = value;
        let _ = Message::decode(&bytes);
    }
}
