//! Batches: what rides which send, in which order, and what is lost.

use super::*;
use crate::io::ingress::Ingress;
use socket2::SockRef;
use std::os::fd::{AsFd, AsRawFd};

fn put(egress: &mut Egress, to: SocketAddr, len: usize, mark: u8) -> bool {
    egress.reserve(to, len).map(|room| room.fill(mark)).is_some()
}

fn pair() -> (Senders, UdpSocket, SocketAddr) {
    let bind = || UdpSocket::bind_to("127.0.0.1:0".parse().unwrap()).unwrap();
    let (client, server) = (bind(), bind());
    let to = server.local_addr().unwrap();
    (Senders::new(Arc::new(client), []), server, to)
}

fn receive(socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
    let (mut ingress, mut got) = (Ingress::new(), Vec::new());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
    while got.len() < count && std::time::Instant::now() < deadline {
        let mut fds = [nix::poll::PollFd::new(socket.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, 50u8).unwrap();
        got.extend(ingress.receive(socket).unwrap().map(|(_, datagram)| datagram.to_vec()));
    }
    got
}

#[test]
fn equal_sizes_ride_one_send_and_a_shorter_one_closes_it() {
    let (mut client, server, to) = pair();
    let mut egress = Egress::new();
    for (len, mark) in [(1400, 1), (1400, 2), (900, 3), (1400, 4), (80, 5), (80, 6)] {
        assert!(put(&mut egress, to, len, mark));
    }
    let sent = egress.flush(&mut client);
    // 1400 1400 900 | 1400 80 | 80
    assert_eq!(sent, Sent { datagrams: 6, bytes: 5260, calls: 3, ..Sent::default() });
    let got = receive(&server, 6);
    assert_eq!(
        got.iter().map(|d| (d.len(), d[0])).collect::<Vec<_>>(),
        [(1400, 1), (1400, 2), (900, 3), (1400, 4), (80, 5), (80, 6)]
    );
    assert!(got.iter().all(|d| d.iter().all(|b| *b == d[0])), "each datagram is whole");
    assert!(egress.is_empty());
}

#[test]
fn what_is_for_a_destination_leaves_from_the_address_that_is_said() {
    let bind = || UdpSocket::bind_to("0.0.0.0:0".parse().unwrap()).unwrap();
    let (client, server) = (bind(), bind());
    let [ours, theirs] = ["127.0.0.2", "127.0.0.3"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let to = SocketAddr::new(theirs, server.local_addr().unwrap().port());
    let sources = Arc::new(Sources::default());
    let mut senders = Senders::new(Arc::new(client), []).with_sources(Arc::clone(&sources));
    let mut egress = Egress::new();
    for said in [None, Some(ours), None] {
        sources.set(said.map(|from| (to, from)).into_iter().collect());
        (0..3).for_each(|mark| assert!(put(&mut egress, to, 100, mark)));
        assert_eq!(egress.flush(&mut senders).datagrams, 3);
        let (mut ingress, mut came) = (Ingress::new(), 0);
        while came < 3 {
            let mut fds = [nix::poll::PollFd::new(server.as_fd(), nix::poll::PollFlags::POLLIN)];
            assert_eq!(nix::poll::poll(&mut fds, 2000u16), Ok(1));
            for (from, _) in ingress.receive(&server).unwrap() {
                assert_eq!(from.ip() == ours, said.is_some());
                came += 1;
            }
        }
    }
}

#[test]
fn what_is_to_be_alone_rides_no_other_send() {
    let (mut client, server, to) = pair();
    let mut egress = Egress::new();
    for (mark, alone) in [(1, false), (2, true), (3, true), (4, false), (5, false)] {
        let service = Service { alone, ..Service::default() };
        egress.reserve_by(service, to, 500).unwrap().fill(mark);
    }
    assert_eq!(egress.flush(&mut client), Sent { datagrams: 5, bytes: 2500, calls: 4, ..Sent::default() });
    assert_eq!(receive(&server, 5).iter().map(|d| d[0]).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}

#[test]
fn sparse_ones_leave_by_a_socket_of_their_own_whole_and_in_order() {
    let (senders, server, to) = pair();
    let own = Arc::new(UdpSocket::bind_to("127.0.0.1:0".parse().unwrap()).unwrap());
    let mark_of = |datagram: &[u8]| (datagram.len(), datagram[0]);
    let from = own.local_addr().unwrap();
    let mut senders = senders.with_sparse(Some(own));
    let mut egress = Egress::new();
    for n in 0..9u8 {
        let service = Service { sparse: n % 3 == 1, alone: false };
        egress.reserve_by(service, to, 400).unwrap().fill(n);
    }
    assert!(!egress.joins(Service { sparse: true, alone: false }, to, 400), "the last one is not");
    assert_eq!(egress.flush(&mut senders), Sent { datagrams: 9, bytes: 3600, calls: 2, ..Sent::default() });
    let mut ingress = Ingress::new();
    let mut got = Vec::new();
    while got.len() < 9 {
        let received = ingress.receive(&server).unwrap();
        got.extend(received.map(|(sender, datagram)| (sender == from, mark_of(datagram))));
    }
    // First, though the batch began with another: a flow may have become one of those.
    let expected = [1, 4, 7, 0, 2, 3, 5, 6, 8].map(|n: u8| (n % 3 == 1, (400, n)));
    assert_eq!(got, expected);
}

#[test]
fn sends_are_cut_at_64_segments_and_at_65507_bytes() {
    let (mut client, server, to) = pair();
    let mut egress = Egress::new();
    (0..130).for_each(|i| assert!(put(&mut egress, to, 100, i)));
    assert_eq!(egress.flush(&mut client).calls, 3);
    assert_eq!(receive(&server, 130).len(), 130);
    (0..47).for_each(|i| assert!(put(&mut egress, to, 1400, i)));
    assert_eq!(egress.flush(&mut client), Sent { datagrams: 47, bytes: 65_800, calls: 2, ..Sent::default() });
    assert_eq!(receive(&server, 47).len(), 47);
}

#[test]
fn destinations_are_not_mixed() {
    let (mut client, server, to) = pair();
    let (_, other, to_other) = pair();
    let mut egress = Egress::new();
    for mark in 0..3 {
        put(&mut egress, to, 500, mark);
        put(&mut egress, to_other, 500, mark + 10);
    }
    assert_eq!(egress.flush(&mut client), Sent { datagrams: 6, bytes: 3000, calls: 2, ..Sent::default() });
    assert_eq!(receive(&server, 3).iter().map(|d| d[0]).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(receive(&other, 3).iter().map(|d| d[0]).collect::<Vec<_>>(), [10, 11, 12]);
}

#[test]
fn destinations_by_turns_get_theirs_whole_and_in_order_by_few_sends() {
    let (mut client, _, _) = pair();
    let servers: Vec<UdpSocket> =
        (0..TURNS).map(|_| UdpSocket::bind_to("127.0.0.1:0".parse().unwrap()).unwrap()).collect();
    let to: Vec<SocketAddr> = servers.iter().map(|server| server.local_addr().unwrap()).collect();
    let mut egress = Egress::new();
    // Two in a row at times, a short one at times: every way to lie apart, and groups closed in between.
    let length = |n: u8| if n % 7 == 3 { 300 } else { 400 };
    for n in 0..40u8 {
        for (server, to) in to.iter().enumerate() {
            put(&mut egress, *to, length(n), n);
            if server == usize::from(n) % TURNS {
                put(&mut egress, *to, length(n), n + 100);
            }
        }
    }
    let sent = egress.flush(&mut client);
    assert_eq!(sent.datagrams, 40 * TURNS as u64 + 40);
    assert!(sent.calls < 10 * TURNS as u64, "{} sends", sent.calls);
    for (number, server) in servers.iter().enumerate() {
        let wanted: Vec<(usize, u8)> = (0..40u8)
            .flat_map(|n| [Some(n), (usize::from(n) % TURNS == number).then_some(n + 100)].map(|mark| (n, mark)))
            .filter_map(|(n, mark)| Some((length(n), mark?)))
            .collect();
        let got = receive(server, wanted.len());
        assert_eq!(got.iter().map(|d| (d.len(), d[0])).collect::<Vec<_>>(), wanted);
        assert!(got.iter().all(|d| d.iter().all(|b| *b == d[0])), "each datagram is whole");
    }
}

#[test]
fn more_destinations_than_are_looked_through_still_get_theirs_in_order() {
    let (mut client, server, to) = pair();
    let mut egress = Egress::new();
    for n in 0..3 {
        put(&mut egress, to, 100, n);
        for port in 1..=TURNS as u16 {
            put(&mut egress, SocketAddr::from(([127, 0, 0, 1], port)), 100, 0);
        }
    }
    egress.flush(&mut client);
    assert_eq!(receive(&server, 3).iter().map(|d| d[0]).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn what_does_not_fit_is_counted_and_the_rest_is_sent() {
    let (mut client, _server, to) = pair();
    let mut egress = Egress::new();
    assert!(!put(&mut egress, to, 0, 0) && !put(&mut egress, to, DATAGRAM_MAX + 1, 0));
    let taken = (0..20).filter(|_| put(&mut egress, to, 60_000, 1)).count();
    assert_eq!(taken, CAPACITY / 60_000);
    assert!(egress.is_pressing());
    assert_eq!(egress.flush(&mut client).overflow, 2 + 20 - taken as u64);
    assert_eq!(egress.flush(&mut client), Sent::default());
    // Many small ones: there are so many sends, and so many stretches, in a batch.
    let nobody = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let taken = (1..=2000).filter(|port| put(&mut egress, nobody(*port), 1, 0)).count();
    assert_eq!((taken, egress.is_pressing()), (GROUPS_MAX, true));
    assert_eq!(egress.flush(&mut client).overflow, 2000 - GROUPS_MAX as u64);
    let taken = (0..10_000).filter(|n| put(&mut egress, nobody(1 + n % 3), 1, 0)).count();
    assert_eq!((taken, egress.is_pressing()), (STRETCHES_MAX, true));
    assert_eq!(egress.flush(&mut client).overflow, 10_000 - STRETCHES_MAX as u64);
}

#[test]
fn a_batch_presses_at_its_size_and_not_before() {
    let (mut client, _server, to) = pair();
    let mut egress = Egress::new();
    let count = BATCH.div_ceil(1400);
    for n in 1..=count {
        assert!(!egress.is_pressing());
        put(&mut egress, to, 1400, n as u8);
    }
    assert!(egress.is_pressing());
    egress.flush(&mut client);
    assert!(!egress.is_pressing());
}

#[test]
fn what_joins_rides_the_send_of_the_datagram_before_it() {
    let (mut client, _server, to) = pair();
    let (_, _, other) = pair();
    let mut egress = Egress::new();
    let joins = |egress: &Egress, to, len| egress.joins(Service::default(), to, len);
    assert!(!joins(&egress, to, 100), "there is none yet");
    put(&mut egress, to, 100, 0);
    assert!(
        joins(&egress, to, 100) && joins(&egress, to, 60) && !joins(&egress, to, 101) && !joins(&egress, other, 100)
    );
    put(&mut egress, other, 100, 0);
    assert!(
        joins(&egress, other, 100) && !joins(&egress, to, 100),
        "an older group is not the one that is being filled"
    );
    put(&mut egress, to, 60, 0);
    assert!(!joins(&egress, to, 60) && !joins(&egress, other, 100));
    egress.flush(&mut client);
    assert!(!joins(&egress, to, 60));
}

#[test]
fn a_full_socket_loses_the_batch_counted_and_every_destination_is_tried() {
    let Some(namespace) = crate::io::netns::tests::fresh() else { return };
    if !std::path::Path::new("/dev/net/tun").exists() {
        return eprintln!("skipped: there is no /dev/net/tun here");
    }
    let socket = |namespace: &crate::io::netns::Netns| namespace.within(|| UdpSocket::bind(0)).unwrap();
    let (tap, group) = namespace
        .within(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let tap = crate::io::tap::Tap::create("tap0", 1, false)?;
                let netlink = crate::io::netlink::Netlink::open()?;
                netlink.add_address("tap0", "10.9.0.1/24".parse().unwrap()).await.unwrap();
                netlink.set_up("tap0").await.unwrap();
                netlink.set_up("lo").await.unwrap();
                Ok((tap, UdpSocket::bind_group(0, 1, 3)?))
            })
        })
        .unwrap();
    let mut spares = group.spares.into_iter().map(Arc::new);
    let (data, probes) = (Arc::new(group.sockets.into_iter().next().unwrap()), spares.next().unwrap());
    SockRef::from(&*data).set_send_buffer_size(1).unwrap();
    // Nobody answers for this address, so the kernel holds what is sent to it, and with it the send buffer.
    let held: SocketAddr = "10.9.0.2:9".parse().unwrap();
    while data.send(held, &[0; 1400]).is_ok() {}
    let reachable = socket(&namespace);
    let to = SocketAddr::from(([127, 0, 0, 1], reachable.local_addr().unwrap().port()));
    let (mut egress, mut one) = (Egress::new(), Senders::new(Arc::clone(&data), []));
    for n in 0..3 {
        put(&mut egress, held, 1400, n);
        put(&mut egress, to, 100, n);
    }
    assert_eq!(egress.flush(&mut one), Sent { calls: 2, full: 6, ..Sent::default() });
    // Probes do not wait for it, nor destinations with another socket.
    probes.send(to, b"a probe").unwrap();
    let two: Vec<_> = spares.inspect(|spare| SockRef::from(&**spare).set_send_buffer_size(1).unwrap()).collect();
    let mut two = Senders::new(Arc::clone(&two[0]), two.into_iter().skip(1));
    let fill = |egress: &mut Egress, n: u8| put(egress, held, 1400, n) && put(egress, to, 100, n);
    let sent: Vec<Sent> = (0..20).map(|n| (fill(&mut egress, n), egress.flush(&mut two)).1).collect();
    assert!(sent.iter().filter(|sent| sent.full == 1).count() > 5, "{sent:?}");
    assert!(sent.iter().all(|sent| sent.full + sent.datagrams == 2 && sent.datagrams > 0), "{sent:?}");
    SockRef::from(&*data).set_send_buffer_size(1 << 20).unwrap();
    put(&mut egress, to, 100, 77);
    assert_eq!(egress.flush(&mut one).datagrams, 1);
    let got = receive(&reachable, 22);
    assert_eq!((got.len(), &got[0][..], got[21][0]), (22, &b"a probe"[..], 77));
    drop(tap);
}

#[test]
fn every_destination_has_one_socket_and_they_take_turns() {
    let bind = || Arc::new(UdpSocket::bind_to("127.0.0.1:0".parse().unwrap()).unwrap());
    let mut senders = Senders::new(bind(), [bind(), bind()]);
    let to = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let of = |senders: &mut Senders, port| senders.of(to(port), Service::default()).0.as_raw_fd();
    let first: Vec<_> = (1..=6).map(|port| of(&mut senders, port)).collect();
    assert!(first[..3] == first[3..] && first[0] != first[1] && first[1] != first[2] && first[2] != first[0]);
    assert_eq!((1..=6).map(|port| of(&mut senders, port)).collect::<Vec<_>>(), first);
    // Of more than can be remembered all still have one.
    (1..=u16::MAX).for_each(|port| {
        of(&mut senders, port);
    });
    assert!(senders.known.len() <= KNOWN_MAX);
}

#[test]
fn a_kernel_without_segmentation_gets_datagrams_one_by_one() {
    let (_, server, to) = pair();
    let mut socket = UdpSocket::bind_to("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.segments = false;
    let (mut client, mut egress) = (Senders::new(Arc::new(socket), []), Egress::new());
    (1..=3).for_each(|mark| assert!(put(&mut egress, to, 100, mark)));
    assert_eq!(egress.flush(&mut client), Sent { datagrams: 3, bytes: 300, calls: 3, ..Sent::default() });
    assert_eq!(receive(&server, 3), [1, 2, 3].map(|mark| vec![mark; 100]));
}

#[test]
fn losses_have_reasons_and_do_not_stop_the_others() {
    let (mut client, server, to) = pair();
    let mut egress = Egress::new();
    put(&mut egress, "[::1]:9".parse().unwrap(), 10, 0);
    put(&mut egress, to, 10, 7);
    let sent = egress.flush(&mut client);
    assert_eq!((sent.unreachable, sent.datagrams), (1, 1));
    assert_eq!(receive(&server, 1), [[7; 10]]);
    let count = |errno| {
        let mut sent = Sent::default();
        sent.lost(1, &io::Error::from_raw_os_error(errno));
        [sent.full, sent.too_big, sent.unreachable, sent.failed]
    };
    for full in [libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM] {
        assert_eq!(count(full), [1, 0, 0, 0]);
    }
    assert_eq!(count(libc::EMSGSIZE), [0, 1, 0, 0]);
    for unreachable in [libc::ECONNREFUSED, libc::ENETUNREACH, libc::EHOSTUNREACH, libc::ENETDOWN] {
        assert_eq!(count(unreachable), [0, 0, 1, 0]);
    }
    assert_eq!(count(libc::EPERM), [0, 0, 0, 1]);
}
