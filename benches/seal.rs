//! Sealing and opening datagrams of 64, 512 and 1,400 bytes and of 64 KB: what the cryptography costs, with the replay window.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rnet::crypto::replay::Window;
use rnet::crypto::seal::{Cipher, Opener, Sealer, TAG_LEN};
use std::hint::black_box;

const HEADER: [u8; 16] = [0x11; 16];
const KEY: [u8; 32] = [7; 32];

fn seal(c: &mut Criterion) {
    for (name, cipher) in [("aes-256-gcm", Cipher::Aes256Gcm), ("chacha20-poly1305", Cipher::ChaCha20Poly1305)] {
        let mut group = c.benchmark_group(name);
        for size in [64_usize, 512, 1400, 64 << 10] {
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_with_input(BenchmarkId::new("seal", size), &size, |b, &size| {
                let sealer = Sealer::new(cipher, &KEY);
                let (mut body, mut counter) = (vec![0; size], 0);
                b.iter(|| {
                    counter += 1;
                    black_box(sealer.seal(counter, &HEADER, &mut body))
                });
            });
            group.bench_with_input(BenchmarkId::new("open+replay", size), &size, |b, &size| {
                let (sealer, opener) = (Sealer::new(cipher, &KEY), Opener::new(cipher, &KEY));
                let (mut window, mut counter) = (Window::new(), 0);
                let sealed = || {
                    counter += 1;
                    let mut datagram = vec![0; size];
                    let tag: [u8; TAG_LEN] = sealer.seal(counter, &HEADER, &mut datagram);
                    datagram.extend(tag);
                    (counter, datagram)
                };
                let open = |(counter, mut datagram): (u64, Vec<u8>)| {
                    let opened = window.may_accept(counter)
                        && opener.open(counter, &HEADER, &mut datagram).is_ok()
                        && window.accept(counter);
                    assert!(opened);
                    datagram
                };
                b.iter_batched(sealed, open, BatchSize::SmallInput);
            });
        }
        group.finish();
    }
}

criterion_group!(benches, seal);
criterion_main!(benches);
