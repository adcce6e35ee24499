use super::*;
use crate::crypto::keys::generate_key;
use crate::types::{Nickname, Uid};
use crate::wire::message::{Channel, Letter, Service};

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn intro(n: u8) -> Intro {
    Intro {
        nickname: Nickname::new("host"),
        uid: Uid(n.into()),
        connection: u64::from(n) << 8,
        port: 6783,
        aes: true,
        password: true,
        vxlan: 0,
        trusts: false,
        range: String::new(),
    }
}

fn pair() -> [Link; 2] {
    let psk = Psk([7; 32]);
    [(Role::Dialer, 1), (Role::Listener, 2)].map(|(role, n)| {
        let key = generate_key([n; 32]);
        Link::new(Setup { role, key: &key, psk: Some(&psk), seed: [n; 32], intro: intro(n) }, at(0))
    })
}

/// Carries bytes both ways until nobody has any; what each end saw. Introductions are accepted if `accept` says so.
fn carry(links: &mut [Link; 2], accept: [bool; 2], now: Instant) -> [Vec<LinkEvent>; 2] {
    let mut seen = [Vec::new(), Vec::new()];
    loop {
        let mut moved = false;
        for end in 0..2 {
            let bytes = links[end].take_output();
            links[end].drained();
            moved |= !bytes.is_empty();
            links[1 - end].receive(&bytes, now);
            while let Some(event) = links[1 - end].poll_event() {
                if matches!(event, LinkEvent::Introduced(_)) && accept[1 - end] {
                    links[1 - end].accept(now);
                }
                seen[1 - end].push(event);
            }
        }
        if !moved {
            return seen;
        }
    }
}

fn up() -> [Link; 2] {
    let mut links = pair();
    carry(&mut links, [true, true], at(0));
    assert!(links.iter().all(Link::is_up));
    links
}

#[test]
fn is_up_on_both_ends_or_on_none() {
    let mut links = pair();
    let [dialer, listener] = carry(&mut links, [true, false], at(0));
    assert!(!dialer.contains(&LinkEvent::Up) && !listener.contains(&LinkEvent::Up));
    links[1].accept(at(100));
    let [dialer, listener] = carry(&mut links, [true, true], at(100));
    assert!(dialer.contains(&LinkEvent::Up) && (listener.contains(&LinkEvent::Up) || links[1].is_up()));
    assert_eq!((links[0].rank(), links[0].hash()), (links[1].rank(), links[1].hash()));
}

#[test]
fn a_refusal_reaches_the_other_side() {
    let mut links = pair();
    carry(&mut links, [false, false], at(0));
    links[1].refuse(Refusal::ConnectionLimit { limit: 3 });
    let [dialer, _] = carry(&mut links, [false, false], at(0));
    assert_eq!(dialer, [LinkEvent::Closed(Ending::Theirs(Refusal::ConnectionLimit { limit: 3 }))]);
}

#[test]
fn says_something_every_two_seconds_and_dies_of_silence_after_five() {
    let mut links = up();
    for turn in 1..5 {
        let now = at(turn * 2000);
        assert!(links.iter().all(|link| link.deadline().unwrap() <= now));
        links.iter_mut().for_each(|link| link.handle(now));
        carry(&mut links, [true, true], now);
    }
    assert!(links.iter().all(Link::is_up));
    links[0].handle(at(12_900));
    assert!(links[0].is_up());
    links[0].handle(at(13_000));
    assert!(links[0].is_closed());
}

#[test]
fn who_does_not_introduce_itself_is_dropped_after_five_seconds() {
    for accept in [[false, false], [true, false]] {
        let mut links = pair();
        carry(&mut links, accept, at(0));
        assert_eq!(links[1].deadline(), Some(at(5000)));
        links[1].handle(at(5000));
        assert!(links[1].is_closed());
    }
}

#[test]
fn challenge_is_answered_by_the_living_only() {
    let mut links = up();
    links[0].challenge(42, at(1000));
    let [dialer, _] = carry(&mut links, [true, true], at(1000));
    assert_eq!(dialer, [LinkEvent::Alive]);
    assert!(!links[0].failed_challenge(at(9000)));
    links[0].challenge(43, at(9000));
    assert!(!links[0].failed_challenge(at(10_400)) && links[0].failed_challenge(at(10_500)));
}

#[test]
fn messages_out_of_order_are_malformed() {
    let gossip = Message::Gossip { channel: Channel::Topology, body: Vec::new() };
    for message in [gossip, Message::Pong { nonce: 1 }, Message::PathReady { epoch: 1 }] {
        let mut links = pair();
        carry(&mut links, [true, false], at(0));
        links[0].transmit(&message);
        let [_, listener] = carry(&mut links, [true, false], at(0));
        assert_eq!(listener.last(), Some(&LinkEvent::Closed(Ending::Ours(Refusal::Malformed))), "{message:?}");
    }
    let mut links = up();
    links[0].transmit(&Message::Intro(intro(1)));
    carry(&mut links, [true, true], at(0));
    assert!(links.iter().all(Link::is_closed), "a second introduction");
}

#[test]
fn who_asks_without_reading_is_closed_as_too_slow() {
    let [mut dialer, mut listener] = up();
    let ping = Message::Ping { nonce: 7 };
    for _ in 0..1_000_000 {
        dialer.transmit(&ping);
        listener.receive(&dialer.take_output(), at(1));
        listener.take_output();
        if listener.is_closed() {
            break;
        }
    }
    assert!(listener.undrained < URGENT_MAX + 1000);
    assert_eq!(listener.poll_event(), Some(LinkEvent::Closed(Ending::Ours(Refusal::TooSlow))));
}

#[test]
fn who_takes_nothing_for_half_a_minute_is_closed_though_it_speaks() {
    let [mut dialer, mut listener] = up();
    for second in 0..29 {
        dialer.transmit(&Message::Ping { nonce: 0 });
        listener.receive(&dialer.take_output(), at(second * 1000));
        listener.handle(at(second * 1000));
        listener.take_output();
        assert!(listener.is_up());
    }
    for second in 29..34 {
        dialer.transmit(&Message::Ping { nonce: 0 });
        listener.receive(&dialer.take_output(), at(second * 1000));
        listener.handle(at(second * 1000));
        listener.take_output();
    }
    assert!(listener.is_closed());
}

#[test]
fn letters_are_lost_while_the_other_side_is_behind() {
    let [mut dialer, _] = up();
    let name = crate::types::PeerName::default();
    let letter = Letter { service: Service::Addresses, from: name, to: vec![name], hops: 1, body: vec![0; 200 << 10] };
    let letter = Message::Letter(letter);
    let sent = (0..100).take_while(|_| dialer.send_letter(&letter)).count();
    assert_eq!(sent, (LETTERS_MAX / (200 << 10)) + 1, "bounded, and no reason to close the link");
    dialer.take_output();
    assert!(!dialer.send_letter(&letter) && dialer.is_up());
    dialer.drained();
    assert!(dialer.send_letter(&letter));
}

#[test]
fn gossip_does_not_count_as_urgent() {
    let [mut dialer, _] = up();
    dialer.send_gossip(&Message::Gossip { channel: Channel::Topology, body: vec![0; 3 << 20] });
    dialer.take_output();
    dialer.send(&Message::Ping { nonce: 0 });
    assert!(dialer.is_up());
}
