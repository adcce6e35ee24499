//! Datagrams on their way out, collected over a batch and sent by few system calls.
//!
//! Owns one preallocated buffer in which datagrams lie in the order they were made, and the list of groups over it. A group is
//! one UDP_SEGMENT send: one destination, equal sizes but for a shorter last one, at most 64 segments and 65,507 bytes
//! (the kernel's limits). Datagrams for several destinations by turns (a flood, small frames of many flows) still make few
//! groups: what lies apart is copied together when it is sent. To one destination they leave in the order they were made, those
//! of sparse flows by themselves: they have a socket of their own, which marks them.
//! Nothing here allocates after construction, nothing blocks: what the kernel does not take is counted by reason and gone.
//!
//! ```text
//! buffer  | A 1400 | B 1400 | A 1400 | B 900 | B 1400 | A 1400 | ...
//! groups  A: 1400 1400 1400    B: 1400 900, closed    B: 1400
//! ```
//!
//! Trap: quinn-udp turns its own GSO hint off for good at the first EIO or EINVAL. The hint is not used here: a
//! batch that fails so is sent one by one, and the next batch tries again.

use super::sources::Sources;
use super::udp::{DATAGRAM_MAX, UdpSocket};
use crate::plane::Service;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Bytes after which a batch is to be sent before more is put into it. What is sealed is copied by the kernel soon after: 128 KB
/// stay in a processor's own cache of 2 MB (measured best: 32 KB are 10 % slower, and so is what fills half the cache).
const BATCH: usize = 128 << 10;
/// Bytes that a batch has room for: one frame may go to many, and is made for all of them before there is a flush.
const CAPACITY: usize = 1 << 20;
/// Segments of one send (UDP_MAX_SEGMENTS of kernels before 6.9).
const SEGMENTS_MAX: usize = 64;
/// Sends of one batch.
const GROUPS_MAX: usize = 1024;
/// Stretches of the buffer that belong to one group; datagrams by turns are one each.
const STRETCHES_MAX: usize = 4096;
/// Groups that are looked through, from the last one back, for one that a datagram may join: destinations by turns.
const TURNS: usize = 16;

/// Destinations whose sockets are remembered.
const KNOWN_MAX: usize = 4096;

/// The sockets that one thread sends by. Each destination has one of them, by turns: what waits for a slow one fills the send
/// buffer of those that share its socket and of nobody else.
pub struct Senders {
    sockets: Vec<Arc<UdpSocket>>,
    sparse: Option<Arc<UdpSocket>>,
    known: HashMap<SocketAddr, Known, foldhash::fast::RandomState>,
    turn: usize,
    sources: Arc<Sources>,
    /// Of what `known` holds.
    version: u64,
}

/// How datagrams for one destination leave.
#[derive(Debug, Clone, Copy)]
struct Known {
    socket: usize,
    from: Option<IpAddr>,
}

impl Senders {
    /// At least one.
    pub fn new(first: Arc<UdpSocket>, more: impl IntoIterator<Item = Arc<UdpSocket>>) -> Senders {
        let sockets = std::iter::once(first).chain(more).collect();
        let known = HashMap::with_capacity_and_hasher(KNOWN_MAX, foldhash::fast::RandomState::default());
        Senders { sockets, sparse: None, known, turn: 0, sources: Arc::default(), version: 0 }
    }

    /// Datagrams of sparse flows leave by this one.
    pub fn with_sparse(self, sparse: Option<Arc<UdpSocket>>) -> Senders {
        Senders { sparse, ..self }
    }

    /// What leaves here leaves from the addresses that `sources` says.
    pub fn with_sources(self, sources: Arc<Sources>) -> Senders {
        let mut senders = Senders { sources, ..self };
        senders.review();
        senders
    }

    /// What was said of addresses of this host may be another by now.
    fn review(&mut self) {
        self.version = self.sources.version();
        self.known.iter_mut().for_each(|(to, known)| known.from = self.sources.of(*to));
    }

    fn of(&mut self, to: SocketAddr, service: Service) -> (&UdpSocket, Option<IpAddr>) {
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&to) {
            // Addresses of long ago are among them: all begin anew.
            self.known.clear();
        }
        let Senders { sockets, sparse, known, turn, sources, .. } = self;
        let Known { socket, from } = *known.entry(to).or_insert_with(|| {
            *turn += 1;
            Known { socket: *turn % sockets.len(), from: sources.of(to) }
        });
        match sparse.as_deref().filter(|_| service.sparse) {
            Some(sparse) => (sparse, from),
            None => (&sockets[socket], from),
        }
    }
}

/// What became of a batch. Datagrams that did not leave are counted under exactly one reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams that the kernel took.
    pub datagrams: u64,
    /// Their bytes, UDP payload.
    pub bytes: u64,
    /// System calls made.
    pub calls: u64,
    /// Lost: the batch had no room for them.
    pub overflow: u64,
    /// Lost: the kernel's send buffer or the device's queue was full.
    pub full: u64,
    /// Lost: larger than the interface's MTU.
    pub too_big: u64,
    /// Lost: no route, network or host unreachable, or refused by the other end.
    pub unreachable: u64,
    /// Lost for another reason (a firewall's EPERM, for one).
    pub failed: u64,
}

impl Sent {
    /// Counts `datagrams` lost for `error`.
    fn lost(&mut self, datagrams: u64, error: &io::Error) {
        let count = match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => &mut self.full,
            Some(libc::EMSGSIZE) => &mut self.too_big,
            Some(
                libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::EADDRNOTAVAIL
                | libc::EAFNOSUPPORT,
            ) => &mut self.unreachable,
            _ => &mut self.failed,
        };
        *count += datagrams;
    }
}

/// A part of the buffer that holds datagrams of one group, one behind the other.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    start: usize,
    end: usize,
    /// The group's next one.
    next: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    to: SocketAddr,
    /// Its first and last stretch.
    first: usize,
    last: usize,
    segment: usize,
    count: usize,
    bytes: usize,
    service: Service,
}

impl Group {
    /// Whether a datagram of `len` bytes may still join.
    fn takes(&self, len: usize) -> bool {
        let open = !self.service.alone && self.bytes == self.segment * self.count;
        open && len <= self.segment && self.count < SEGMENTS_MAX && self.bytes + len <= DATAGRAM_MAX
    }
}

/// See the head of this file. One per data path thread.
pub struct Egress {
    buffer: Box<[u8]>,
    used: usize,
    groups: Vec<Group>,
    /// The group that the last datagram joined or began.
    latest: usize,
    stretches: Vec<Stretch>,
    /// Where a group that lies apart is copied together.
    together: Box<[u8]>,
    overflow: u64,
}

impl Default for Egress {
    fn default() -> Egress {
        Egress::new()
    }
}

impl Egress {
    /// Empty, with all the memory it will ever have.
    pub fn new() -> Egress {
        Egress {
            buffer: vec![0; CAPACITY].into_boxed_slice(),
            used: 0,
            groups: Vec::with_capacity(GROUPS_MAX),
            latest: 0,
            stretches: Vec::with_capacity(STRETCHES_MAX),
            together: vec![0; DATAGRAM_MAX].into_boxed_slice(),
            overflow: 0,
        }
    }

    /// Whether a datagram of `len` bytes for `to` would ride the send that the last one rides.
    pub fn joins(&self, service: Service, to: SocketAddr, len: usize) -> bool {
        let joins = |group: &Group| group.to == to && group.service == service && group.takes(len);
        self.groups.get(self.latest).is_some_and(joins)
    }

    /// Room for a datagram of `len` bytes (1 to 65,507) for `to`, to be written whole before the next call. Nothing if the
    /// batch is full or no datagram can be that long; it is counted as `overflow` then.
    pub fn reserve(&mut self, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        self.reserve_by(Service::default(), to, len)
    }

    /// The same for a datagram that is to be sent in this way: it joins those of its own kind only.
    pub fn reserve_by(&mut self, service: Service, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        let fits = len > 0
            && len <= DATAGRAM_MAX
            && self.used + len <= CAPACITY
            && self.groups.len() < GROUPS_MAX
            && self.stretches.len() < STRETCHES_MAX;
        if !fits {
            self.overflow += 1;
            return None;
        }
        let (start, end) = (self.used, self.used + len);
        // Only the last group of a destination: an earlier one would overtake it.
        let fellow = |group: &Group| group.to == to && group.service.sparse == service.sparse;
        let group = self.groups.iter_mut().enumerate().rev().take(TURNS).find(|(_, group)| fellow(group));
        match group.filter(|(_, group)| !service.alone && group.takes(len)) {
            Some((number, group)) => {
                self.latest = number;
                group.count += 1;
                group.bytes += len;
                if self.stretches[group.last].end == start {
                    self.stretches[group.last].end = end;
                } else {
                    self.stretches[group.last].next = Some(self.stretches.len());
                    group.last = self.stretches.len();
                    self.stretches.push(Stretch { start, end, next: None });
                }
            }
            None => {
                self.latest = self.groups.len();
                let stretch = self.stretches.len();
                self.stretches.push(Stretch { start, end, next: None });
                self.groups.push(Group {
                    to,
                    first: stretch,
                    last: stretch,
                    segment: len,
                    count: 1,
                    bytes: len,
                    service,
                });
            }
        }
        self.used = end;
        self.buffer.get_mut(start..end)
    }

    /// Whether the batch is large enough to be sent before the next frame is put into it.
    pub fn is_pressing(&self) -> bool {
        self.used >= BATCH || self.groups.len() > GROUPS_MAX / 2 || self.stretches.len() > STRETCHES_MAX / 2
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Sends everything and starts anew. Never fails: see [`Sent`]. A full socket loses what is left group by group: what is for
    /// others is tried all the same, by sockets of their own, or because their devices may have taken what was in the way.
    pub fn flush(&mut self, senders: &mut Senders) -> Sent {
        let Egress { buffer, used, groups, stretches, together, overflow, .. } = self;
        let mut sent = Sent { overflow: std::mem::take(overflow), ..Sent::default() };
        if senders.version != senders.sources.version() {
            senders.review();
        }
        for group in groups.drain(..) {
            let Stretch { start, end, next } = stretches[group.first];
            let contents = match next {
                None => &buffer[start..end],
                Some(_) => {
                    let (mut stretch, mut length) = (Some(group.first), 0);
                    while let Some(Stretch { start, end, next }) = stretch.map(|at| stretches[at]) {
                        together[length..length + (end - start)].copy_from_slice(&buffer[start..end]);
                        (stretch, length) = (next, length + (end - start));
                    }
                    &together[..length]
                }
            };
            send_group(senders.of(group.to, group.service), group, contents, &mut sent);
        }
        stretches.clear();
        *used = 0;
        sent
    }
}

fn send_group(way: (&UdpSocket, Option<IpAddr>), group: Group, contents: &[u8], sent: &mut Sent) {
    sent.calls += 1;
    let segment = (group.count > 1).then_some(group.segment);
    let (socket, from) = way;
    match socket.send_segments((from, group.to), contents, segment) {
        Ok(()) => {
            sent.datagrams += group.count as u64;
            sent.bytes += contents.len() as u64;
        }
        // No segmentation on this route's device (EIO, EINVAL), or only some of the datagrams are too big.
        Err(e) if group.count > 1 && matches!(e.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)) => {
            for datagram in contents.chunks(group.segment) {
                send_group(way, Group { count: 1, ..group }, datagram, sent);
            }
        }
        Err(e) => sent.lost(group.count as u64, &e),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ingress::Ingress;
    use super::*;
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
        let (mut sparse, mut others) = (Vec::new(), Vec::new());
        while sparse.len() + others.len() < 9 {
            for (sender, datagram) in ingress.receive(&server).unwrap() {
                if sender == from { sparse.push(mark_of(datagram)) } else { others.push(mark_of(datagram)) }
            }
        }
        assert_eq!(sparse, [(400, 1), (400, 4), (400, 7)]);
        assert_eq!(others, [0, 2, 3, 5, 6, 8].map(|n| (400, n)));
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
            joins(&egress, to, 100)
                && joins(&egress, to, 60)
                && !joins(&egress, to, 101)
                && !joins(&egress, other, 100)
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
        assert_eq!(count(libc::EAGAIN), [1, 0, 0, 0]);
        assert_eq!(count(libc::EMSGSIZE), [0, 1, 0, 0]);
        assert_eq!(count(libc::ECONNREFUSED), [0, 0, 1, 0]);
        assert_eq!(count(libc::EPERM), [0, 0, 0, 1]);
    }
}
