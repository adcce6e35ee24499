//! Datagrams on their way out, collected over a batch and sent by few system calls.
//!
//! Owns one preallocated buffer in which datagrams lie in the order they were made, and the list of groups over it. A group is
//! one UDP_SEGMENT send: one destination, equal sizes but for a shorter last one, at most 64 segments and 65,507 bytes
//! (the kernel's limits). Datagrams for several destinations by turns (a flood, small frames of many flows) still make few
//! groups: what lies apart is copied together when it is sent. To one destination they leave in the order they were made, those
//! of sparse flows first and by themselves: they have a socket of their own, which marks them.
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
        let first = groups.iter().filter(|group| group.service.sparse);
        for group in first.chain(groups.iter().filter(|group| !group.service.sparse)) {
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
            send_group(senders.of(group.to, group.service), *group, contents, &mut sent);
        }
        groups.clear();
        stretches.clear();
        *used = 0;
        sent
    }
}

fn send_group(way: (&UdpSocket, Option<IpAddr>), group: Group, contents: &[u8], sent: &mut Sent) {
    let (socket, from) = way;
    // A kernel before UDP_SEGMENT ignores the word: several small datagrams would leave as one.
    if group.count > 1 && !socket.segments {
        return send_singly(way, group, contents, sent);
    }
    sent.calls += 1;
    let segment = (group.count > 1).then_some(group.segment);
    match socket.send_segments((from, group.to), contents, segment) {
        Ok(()) => {
            sent.datagrams += group.count as u64;
            sent.bytes += contents.len() as u64;
        }
        // No segmentation on this route's device (EIO, EINVAL), or only some of the datagrams are too big.
        Err(e) if group.count > 1 && matches!(e.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)) => {
            send_singly(way, group, contents, sent);
        }
        Err(e) => sent.lost(group.count as u64, &e),
    }
}

fn send_singly(way: (&UdpSocket, Option<IpAddr>), group: Group, contents: &[u8], sent: &mut Sent) {
    for datagram in contents.chunks(group.segment) {
        send_group(way, Group { count: 1, ..group }, datagram, sent);
    }
}

#[cfg(test)]
mod tests;
