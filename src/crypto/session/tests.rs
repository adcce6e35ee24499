//! Two ends of a link, honest and otherwise, with every way of cutting the stream between them.

use super::super::keys::{generate_key, public_key};
use super::*;

const NO_PASSWORD: Option<&Psk> = None;

fn key(number: u8) -> StaticKey {
    generate_key([number; 32])
}

fn dialer(psk: Option<&Psk>) -> Session {
    Session::new(Role::Dialer, &key(1), psk, [11; 32])
}

fn listener(psk: Option<&Psk>) -> Session {
    Session::new(Role::Listener, &key(2), psk, [12; 32])
}

/// Hands over what is due, both ways, until both are silent; `cut` bytes at a time. Errors as each side shows them.
fn talk(a: &mut Session, b: &mut Session, cut: usize) -> (Result<(), Refusal>, Result<(), Refusal>) {
    let (mut at_a, mut at_b) = (Ok(()), Ok(()));
    loop {
        let (from_a, from_b) = (a.take_output(), b.take_output());
        if from_a.is_empty() && from_b.is_empty() {
            return (at_a, at_b);
        }
        for piece in from_a.chunks(cut) {
            at_b = at_b.and_then(|()| b.receive(piece));
        }
        for piece in from_b.chunks(cut) {
            at_a = at_a.and_then(|()| a.receive(piece));
        }
    }
}

fn events(session: &mut Session) -> Vec<SessionEvent> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

fn hash_of(session: &mut Session, expected: &StaticKey) -> [u8; 32] {
    match events(session).as_slice() {
        [SessionEvent::Authenticated { key, hash }] if *key == public_key(expected) => *hash,
        other => panic!("{other:?}"),
    }
}

/// Two ends after the handshake.
fn linked(psk: Option<&Psk>) -> (Session, Session) {
    let (mut a, mut b) = (dialer(psk), listener(psk));
    assert_eq!(talk(&mut a, &mut b, usize::MAX), (Ok(()), Ok(())));
    assert_eq!(hash_of(&mut a, &key(2)), hash_of(&mut b, &key(1)));
    (a, b)
}

#[test]
fn both_learn_the_other_key_and_one_hash_without_a_password() {
    linked(NO_PASSWORD);
}

#[test]
fn both_learn_the_other_key_and_one_hash_with_the_same_password() {
    linked(Some(&Psk([5; 32])));
}

#[test]
fn every_link_has_its_own_hash() {
    let hash = |seed| {
        let (mut a, mut b) = (Session::new(Role::Dialer, &key(1), None, seed), listener(None));
        assert_eq!(talk(&mut a, &mut b, 7), (Ok(()), Ok(())));
        hash_of(&mut a, &key(2))
    };
    assert_ne!(hash([1; 32]), hash([2; 32]));
    assert_eq!(hash([1; 32]), hash([1; 32]), "and is a function of the seeds");
}

#[test]
fn messages_pass_both_ways_in_order() {
    let (mut a, mut b) = linked(Some(&Psk([5; 32])));
    for message in [&b"one"[..], b"", b"three"] {
        a.send(message);
        b.send(message);
    }
    assert_eq!(talk(&mut a, &mut b, 5), (Ok(()), Ok(())));
    let expected: Vec<_> = [&b"one"[..], b"", b"three"].map(|m| SessionEvent::Message(m.to_vec())).into();
    assert_eq!(events(&mut a), expected);
    assert_eq!(events(&mut b), expected);
}

#[test]
fn wrong_password_is_said_on_both_sides() {
    let (mut a, mut b) = (dialer(Some(&Psk([5; 32]))), listener(Some(&Psk([6; 32]))));
    assert_eq!(talk(&mut a, &mut b, 1), (Err(Refusal::WrongPassword), Err(Refusal::WrongPassword)));
    assert!(events(&mut a).is_empty() && events(&mut b).is_empty(), "nobody is authenticated");
    assert_eq!(a.receive(b"more"), Err(Refusal::WrongPassword), "and stays refused");
}

#[test]
fn a_password_on_one_side_only_is_said_on_both() {
    let psk = Psk([5; 32]);
    let (mut a, mut b) = (dialer(Some(&psk)), listener(None));
    assert_eq!(talk(&mut a, &mut b, 1), (Err(Refusal::PeerHasNoPassword), Err(Refusal::PeerRequiresPassword)));
    let (mut a, mut b) = (dialer(None), listener(Some(&psk)));
    assert_eq!(talk(&mut a, &mut b, 1), (Err(Refusal::PeerRequiresPassword), Err(Refusal::PeerHasNoPassword)));
}

#[test]
fn another_version_is_refused_naming_both() {
    for session in [&mut dialer(None), &mut listener(None)] {
        let refused = session.receive(b"rnet\x05\x06\x00\x00");
        assert_eq!(refused, Err(Refusal::Version { theirs: (5, 6), ours: (4, 4) }));
        assert_eq!(session.receive(b"x"), refused);
    }
    let refused = listener(None).receive(b"rnet\x03\x03\x00\x00").unwrap_err();
    assert_eq!(refused, Refusal::Version { theirs: (3, 3), ours: (4, 4) }, "without numbers of floods");
    assert_eq!(listener(None).receive(b"rnet\x01\x09\x00\x00"), Ok(()), "a range that includes ours will do");
    assert_eq!(listener(None).receive(b"rnet\x02\x01\x00\x00"), Err(Refusal::Malformed), "a range backwards");
}

#[test]
fn what_is_not_rnet_is_refused_at_its_first_wrong_byte() {
    for stream in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01", b"rnez", b"\x00", b"SSH-2.0-"] {
        let mut session = listener(None);
        assert_eq!(session.receive(stream), Err(Refusal::NotRnet));
        assert_eq!(session.take_output(), b"rnet\x04\x04\x00\x00", "nothing but the hello was said");
    }
}

#[test]
fn half_an_opening_waits_and_keeps_little() {
    let mut session = listener(Some(&Psk([5; 32])));
    assert_eq!(session.receive(b"rne"), Ok(()));
    assert!(session.poll_event().is_none());
    assert_eq!(session.receive(b"t\x04\x04\x01\x00"), Ok(()));
    assert_eq!(session.take_output(), b"rnet\x04\x04\x01\x00", "the listener waits for the dialer");
    assert_eq!(session.receive(&[HANDSHAKE, 0, 48]), Ok(()));
    assert!(session.record.len() <= HEADER_LEN + HANDSHAKE_MAX);
}

#[test]
fn garbage_after_the_hello_is_malformed_and_said_so() {
    let (mut a, mut b) = (dialer(None), listener(None));
    let hello = a.take_output();
    assert_eq!(b.receive(&hello), Ok(()));
    b.take_output();
    // 32 bytes are an ephemeral key whatever they are; the next message must fail.
    assert_eq!(b.receive(&[&[HANDSHAKE, 0, 32][..], &[7; 32]].concat()), Ok(()));
    b.take_output();
    assert_eq!(b.receive(&[&[HANDSHAKE, 0, 64][..], &[7; 64]].concat()), Err(Refusal::Malformed));
    assert_eq!(b.take_output(), [REFUSAL, 0, 1, 2]);
}

#[test]
fn nothing_but_small_handshake_records_is_kept_before_authentication() {
    let headers = [
        [HANDSHAKE, 0, 97],
        [HANDSHAKE, 255, 255],
        [HANDSHAKE, 0, 0],
        [SEALED, 0, 16],
        [SEALED, 255, 255],
        [REFUSAL, 0, 2],
        [REFUSAL, 0, 0],
        [0, 0, 1],
        [4, 0, 1],
        [255, 255, 255],
    ];
    for header in headers {
        let mut session = listener(None);
        assert_eq!(session.receive(b"rnet\x04\x04\x00\x00"), Ok(()));
        assert_eq!(session.receive(&header), Err(Refusal::Malformed), "{header:?}");
        assert!(session.record.is_empty());
    }
}

#[test]
fn the_dialer_waits_for_the_confirmation_and_takes_nothing_else() {
    let (mut a, mut b) = (dialer(None), listener(None));
    b.receive(&a.take_output()).unwrap();
    a.receive(&b.take_output()).unwrap();
    b.receive(&a.take_output()).unwrap();
    a.receive(&b.take_output()).unwrap();
    assert!(matches!(a.state, State::Confirm { .. }));
    assert!(a.poll_event().is_none(), "not authenticated by its handshake message alone");
    a.send(b"too early");
    b.receive(&a.take_output()).unwrap();
    assert_eq!(events(&mut b).len(), 1, "authenticated, and nothing was sent too early");
    let mut forged = b.take_output();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(a.receive(&forged), Err(Refusal::Malformed));
    assert!(a.poll_event().is_none());
}

#[test]
fn a_refusal_in_clear_counts_only_until_the_confirmation() {
    let mut session = dialer(None);
    assert_eq!(session.receive(b"rnet\x04\x04\x00\x00"), Ok(()));
    session.take_output();
    assert_eq!(session.receive(&[REFUSAL, 0, 1, 1]), Err(Refusal::WrongPassword));
    assert!(session.take_output().is_empty(), "a refusal is not answered");
    let (mut a, _b) = linked(None);
    assert_eq!(a.receive(&[REFUSAL, 0, 1, 1]), Err(Refusal::Malformed));
    assert!(a.take_output().is_empty(), "and nothing is said in clear any more");
}

#[test]
fn the_stream_may_be_cut_anywhere() {
    let transcript = |cut: usize| {
        let (mut a, mut b) = (dialer(Some(&Psk([5; 32]))), listener(Some(&Psk([5; 32]))));
        assert_eq!(talk(&mut a, &mut b, cut), (Ok(()), Ok(())));
        a.send(b"to the listener");
        b.send(&[9; 300]);
        assert_eq!(talk(&mut a, &mut b, cut), (Ok(()), Ok(())));
        (events(&mut a), events(&mut b))
    };
    let whole = transcript(usize::MAX);
    assert_eq!((whole.0.len(), whole.1.len()), (2, 2));
    for cut in 1..400 {
        assert_eq!(transcript(cut), whole, "{cut}");
    }
}

#[test]
fn a_message_may_be_split_in_two_at_every_byte() {
    let (mut a, mut b) = linked(None);
    let message = [b'm'; 150];
    for at in 0..=150 + HEADER_LEN + TAG_LEN + 1 {
        a.send(&message);
        let bytes = a.take_output();
        let (first, second) = bytes.split_at(at);
        assert_eq!(b.receive(first), Ok(()));
        assert_eq!(b.poll_event().is_some(), second.is_empty(), "{at}");
        assert_eq!(b.receive(second), Ok(()));
        if !second.is_empty() {
            assert_eq!(b.poll_event(), Some(SessionEvent::Message(message.to_vec())));
        }
    }
}

#[test]
fn messages_of_up_to_4_mib_pass_and_larger_ones_are_not_sent() {
    let (mut a, mut b) = linked(None);
    for length in [PART_MAX - 1, PART_MAX, PART_MAX + 1, 2 * PART_MAX, MESSAGE_MAX] {
        let message: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[2]).collect();
        a.send(&message);
        assert_eq!(talk(&mut a, &mut b, 10_000), (Ok(()), Ok(())));
        assert!(events(&mut b) == [SessionEvent::Message(message)], "{length}");
    }
    a.send(&vec![0; MESSAGE_MAX + 1]);
    assert!(a.take_output().is_empty());
}

/// A record with this plain text, as a peer would make it that does not keep to the rules.
fn forge(a: &mut Session, plain: &[u8]) -> Vec<u8> {
    let State::Open(transport) = &mut a.state else { panic!("{a:?}") };
    let mut record = Vec::new();
    seal_record(transport, plain, &mut record).unwrap();
    record
}

#[test]
fn a_message_above_4_mib_is_refused_when_it_becomes_too_long() {
    let (mut a, mut b) = linked(None);
    let part = [&[MORE][..], &[0; PART_MAX]].concat();
    for _ in 0..MESSAGE_MAX / PART_MAX {
        let record = forge(&mut a, &part);
        assert_eq!(b.receive(&record), Ok(()));
    }
    assert!(b.message.len() <= MESSAGE_MAX);
    let record = forge(&mut a, &part);
    assert_eq!(b.receive(&record), Err(Refusal::Malformed));
    assert!(b.message.is_empty() && b.poll_event().is_none());
}

#[test]
fn parts_that_do_not_follow_the_rules_are_malformed() {
    let short = [&[MORE][..], &[0; PART_MAX - 1]].concat();
    for plain in [&[MORE][..], &short, &[2], &[2, 0], &[255; 9]] {
        let (mut a, mut b) = linked(None);
        let record = forge(&mut a, plain);
        assert_eq!(b.receive(&record), Err(Refusal::Malformed), "{} bytes", plain.len());
    }
    let (mut a, mut b) = linked(None);
    let record = forge(&mut a, &[]);
    assert_eq!(b.receive(&record), Err(Refusal::Malformed), "a second confirmation");
}

#[test]
fn changed_replayed_and_dropped_records_end_the_link() {
    let sent = |message: &[u8]| {
        let (mut a, b) = linked(None);
        a.send(message);
        (a.take_output(), a, b)
    };
    for at in HEADER_LEN..HEADER_LEN + 20 {
        let (mut bytes, _, mut b) = sent(b"abc");
        bytes[at] ^= 0x80;
        assert_eq!(b.receive(&bytes), Err(Refusal::Malformed), "{at}");
    }
    let (bytes, _, mut b) = sent(b"abc");
    assert_eq!(b.receive(&bytes), Ok(()));
    assert_eq!(b.receive(&bytes), Err(Refusal::Malformed), "replayed");
    let (_, mut a, mut b) = sent(b"lost");
    a.send(b"abc");
    assert_eq!(b.receive(&a.take_output()), Err(Refusal::Malformed), "after a dropped one");
}

#[test]
fn a_truncated_stream_gives_nothing_at_any_length() {
    let (mut a, mut b) = (dialer(None), listener(None));
    b.receive(&a.take_output()).unwrap();
    a.receive(&b.take_output()).unwrap();
    let first = a.take_output();
    for length in 0..first.len() {
        let mut b = listener(None);
        b.receive(&Hello::ours(false).emit()).unwrap();
        b.take_output();
        assert_eq!(b.receive(&first[..length]), Ok(()));
        assert!(b.take_output().is_empty() && b.poll_event().is_none(), "{length}");
    }
}

/// Links two ends while one bit of the byte at `at` of what `from` says is flipped. Nothing if it says less than that.
fn tampered(psk: Option<&Psk>, from: Role, at: usize) -> Option<(Session, Session)> {
    let (mut a, mut b) = (dialer(psk), listener(psk));
    let (mut passed, mut changed) = (0, false);
    for _ in 0..8 {
        let (mut from_a, mut from_b) = (a.take_output(), b.take_output());
        let bytes = if from == Role::Dialer { &mut from_a } else { &mut from_b };
        if let Some(byte) = at.checked_sub(passed).and_then(|at| bytes.get_mut(at)) {
            *byte ^= 1;
            changed = true;
        }
        passed += bytes.len();
        let _ = (a.receive(&from_b), b.receive(&from_a));
    }
    changed.then_some((a, b))
}

#[test]
fn a_changed_handshake_never_authenticates_its_reader() {
    for psk in [None, Some(&Psk([5; 32]))] {
        for from in [Role::Dialer, Role::Listener] {
            let mut at = 0;
            while let Some((a, b)) = tampered(psk, from, at) {
                let reader = if from == Role::Dialer { b } else { a };
                assert!(!matches!(reader.state, State::Open(_)), "byte {at} of the {from:?}");
                assert!(reader.events.is_empty(), "byte {at} of the {from:?}");
                at += 1;
            }
            assert!(at >= 110, "every byte was tried: {at}");
        }
    }
}

#[test]
fn a_clear_downgrade_of_the_hello_is_noticed() {
    let (mut a, mut b) = (dialer(None), listener(None));
    // Somebody in between widens the listener's version range, which nobody would notice without the prologue.
    b.receive(&a.take_output()).unwrap();
    let mut hello = b.take_output();
    hello[5] = 9;
    assert_eq!(a.receive(&hello), Ok(()));
    assert_eq!(b.receive(&a.take_output()), Ok(()));
    assert_eq!(a.receive(&b.take_output()), Err(Refusal::Malformed));
    assert_eq!(b.receive(&a.take_output()), Err(Refusal::Malformed), "and told to the other side");
}
