//! Paths: keys, states and datagrams.

use super::*;
use crate::plane::testing::{Memory, address, agree, net, pair, rekey, short};
use crate::wire::datagram::HOPS_MAX;

fn inner() -> Inner {
    Inner {
        origin: short(1),
        destination: short(2),
        number: 0,
        network: net(7),
        hops: HOPS_MAX,
        partial: false,
        fragment: None,
    }
}

fn written(path: &Path, payload: &[u8]) -> Result<Vec<u8>, Drop> {
    let mut out = Memory::default();
    path.writer()?.write(&inner(), payload.len(), &mut out, |into| into.copy_from_slice(payload))?;
    Ok(out.datagrams.remove(0).1)
}

/// Opens at `path` what `from` sent.
fn opened(path: &Path, from: usize, datagram: &[u8]) -> Result<Vec<u8>, Drop> {
    let mut datagram = datagram.to_vec();
    let outer = Outer::parse(&datagram).unwrap();
    path.open(address(from), &outer, &mut datagram).map(|body| body.to_vec())
}

fn body(payload: &[u8]) -> Vec<u8> {
    let mut header = [0; INNER_LEN];
    inner().emit(&mut header);
    [&header, payload].concat()
}

#[test]
fn what_one_end_seals_the_other_opens_in_both_directions() {
    let (a, b) = pair();
    assert_eq!(opened(&b, 1, &written(&a, b"there").unwrap()), Ok(body(b"there")));
    assert_eq!(opened(&a, 2, &written(&b, b"back").unwrap()), Ok(body(b"back")));
    assert_eq!((a.counter(), b.counter()), (1, 1));
}

#[test]
fn a_datagram_never_shows_its_frame_nor_opens_at_its_sender() {
    let (a, _) = pair();
    let datagram = written(&a, &[b'x'; 100]).unwrap();
    assert!(!datagram.windows(8).any(|w| w == [b'x'; 8]));
    // Reflected, with the index put right: the directions have keys of their own.
    let mut reflected = datagram;
    reflected[4..8].copy_from_slice(&a.indexes()[0].to_be_bytes());
    assert_eq!(opened(&a, 2, &reflected), Err(Drop::Forged));
}

#[test]
fn opens_out_of_order_but_never_twice() {
    let (a, b) = pair();
    let datagrams: Vec<_> = (0..5).map(|n| written(&a, &[n]).unwrap()).collect();
    for n in [3, 0, 4, 1, 2] {
        assert!(opened(&b, 1, &datagrams[n]).is_ok());
    }
    for datagram in &datagrams {
        assert_eq!(opened(&b, 1, datagram), Err(Drop::Replayed));
    }
}

#[test]
fn keys_change_without_a_gap_and_the_old_ones_end() {
    let (a, b) = pair();
    let old = written(&a, b"old").unwrap();
    let late = written(&a, b"late").unwrap();
    rekey(&a, &b, 2);
    assert_eq!((a.epoch(), a.counter(), a.indexes().len()), (Some(2), 0, 2));
    assert_eq!(opened(&b, 1, &old), Ok(body(b"old")));
    assert_eq!(opened(&b, 1, &written(&a, b"new").unwrap()), Ok(body(b"new")));
    b.retire(1);
    assert_eq!(opened(&b, 1, &late), Err(Drop::UnknownEpoch));
    assert_eq!(b.indexes().len(), 1);
}

#[test]
fn an_epoch_is_opened_as_soon_as_it_is_installed_but_sealed_with_only_when_active() {
    let (a, b) = pair();
    let (ours, theirs) = agree(2, 7);
    let cipher = Cipher::ChaCha20Poly1305;
    b.install(Epoch { number: 2, cipher, keys: theirs, our_index: 50, their_index: 60 });
    assert_eq!(b.epoch(), Some(1));
    a.install(Epoch { number: 2, cipher, keys: ours, our_index: 60, their_index: 50 });
    a.activate(9);
    assert_eq!(a.epoch(), Some(1), "an unknown epoch is not activated");
    a.activate(2);
    assert_eq!(opened(&b, 1, &written(&a, b"new").unwrap()), Ok(body(b"new")));
    assert_eq!(opened(&a, 2, &written(&b, b"old").unwrap()), Ok(body(b"old")));
}

#[test]
fn holds_four_epochs_and_never_loses_the_active_one() {
    let (a, b) = pair();
    for number in 2..20 {
        let (keys, _) = agree(number, 1);
        a.install(Epoch { number, cipher: Cipher::Aes256Gcm, keys, our_index: number.into(), their_index: 0 });
    }
    assert_eq!((a.indexes().len(), a.epoch()), (EPOCHS_MAX, Some(1)));
    assert!(opened(&b, 1, &written(&a, b"x").unwrap()).is_ok());
    a.retire(1);
    assert_eq!(written(&a, b"x"), Err(Drop::NotReady));
}

#[test]
fn a_wrong_index_or_epoch_is_not_opened() {
    let (a, b) = pair();
    rekey(&a, &b, 2);
    let datagram = written(&a, b"x").unwrap();
    let mut epoch = datagram.clone();
    epoch[3] = 1;
    assert_eq!(opened(&b, 1, &epoch), Err(Drop::UnknownEpoch), "index of epoch 2, number of epoch 1");
    let mut index = datagram.clone();
    index[7] ^= 1;
    assert_eq!(opened(&b, 1, &index), Err(Drop::UnknownEpoch));
    assert!(opened(&b, 1, &datagram).is_ok());
}

#[test]
fn nothing_is_written_before_there_is_key_address_and_proof() {
    let path = Path::new(PathId(1), short(2));
    assert_eq!(written(&path, b"x"), Err(Drop::NotReady));
    assert!(!path.seal_probe(b"x", &mut Vec::new()));
    let (keys, _) = agree(1, 1);
    path.install(Epoch { number: 1, cipher: Cipher::Aes256Gcm, keys, our_index: 1, their_index: 2 });
    path.activate(1);
    assert!(path.seal_probe(b"x", &mut Vec::new()), "probes are what proves it");
    assert_eq!(written(&path, b"x"), Err(Drop::NotReady));
    path.set_ready(true);
    assert_eq!(written(&path, b"x"), Err(Drop::NotReady));
    path.set_endpoint(address(2));
    assert!(path.is_sealed() && written(&path, b"x").is_ok());
}

#[test]
fn a_used_up_counter_stops_the_path_instead_of_coming_again() {
    let (a, _) = pair();
    a.state.load().active.as_ref().unwrap().sealed.store(SEALS_MAX - 1, Ordering::Relaxed);
    assert!(written(&a, b"x").is_ok());
    assert_eq!(written(&a, b"x"), Err(Drop::Exhausted));
    assert!(!a.seal_probe(b"x", &mut Vec::new()));
}

#[test]
fn room_is_what_fits() {
    let (a, _) = pair();
    for (sealed, mtu) in [(true, 256), (false, 1472), (true, 1280), (false, 9000)] {
        a.set_sealed(sealed);
        a.set_mtu(mtu);
        assert_eq!(a.writer().unwrap().limit(), Some(a.writer().unwrap().room()));
        assert!(written(&a, &vec![0; a.writer().unwrap().room()]).is_ok());
        assert_eq!(written(&a, &vec![0; a.writer().unwrap().room() + 1]), Err(Drop::TooBig));
    }
    a.set_mtu(1);
    assert_eq!(a.writer().unwrap().room(), 0);
    a.set_mtu_so_far(0);
    assert_eq!((a.mtu(), a.writer().unwrap().limit()), (MTU_SURE, None));
}

#[test]
fn threads_that_share_a_path_never_share_a_counter() {
    let (a, b) = pair();
    let (a, b) = (&a, &b);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || (0..500).for_each(|_| drop(opened(b, 1, &written(a, b"x").unwrap()).unwrap())));
        }
    });
    assert_eq!(a.counter(), 1000);
}

#[test]
fn of_threads_that_open_the_same_datagram_one_wins() {
    let (a, b) = pair();
    let datagrams: Vec<_> = (0..500).map(|_| written(&a, b"x").unwrap()).collect();
    let opens = || datagrams.iter().filter(|datagram| opened(&b, 1, datagram).is_ok()).count();
    let won = std::thread::scope(|scope| {
        let other = scope.spawn(opens);
        opens() + other.join().unwrap()
    });
    assert_eq!(won, datagrams.len());
}
