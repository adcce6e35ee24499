//! Datagrams on their way out, collected over a batch and sent by few system calls.
//!
//! Owns one preallocated buffer in which datagrams lie one behind the other, and the list of groups over it. A group is one
//! UDP_SEGMENT send: one destination, equal sizes but for a shorter last one, at most 64 segments and 65,507 bytes
//! (the kernel's limits). Nothing here allocates after construction, nothing blocks: what the kernel does not take is counted
//! by reason and gone.
//!
//! ```text
//! buffer  | 1400 | 1400 | 900 || 1400 | 1400 || 80 | ...
//! groups  |<-- to A, closed ->||<-- to B ---->||<- to A
//! ```
//!
//! Trap: quinn-udp turns its own GSO hint off for good at the first EIO or EINVAL. The hint is not used here: a
//! batch that fails so is sent one by one, and the next batch tries again.

use super::udp::{DATAGRAM_MAX, UdpSocket};
use std::io;
use std::net::SocketAddr;

/// Segments of one send (UDP_MAX_SEGMENTS of kernels before 6.9).
const SEGMENTS_MAX: usize = 64;
/// Bytes of one batch.
const CAPACITY: usize = 1 << 20;
/// Sends of one batch.
const GROUPS_MAX: usize = 1024;

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

#[derive(Debug, Clone, Copy)]
struct Group {
    to: SocketAddr,
    start: usize,
    end: usize,
    segment: usize,
    count: usize,
}

impl Group {
    /// Whether a datagram of `len` bytes for `to` may still join.
    fn takes(&self, to: SocketAddr, len: usize) -> bool {
        let open = self.end - self.start == self.segment * self.count;
        open && self.to == to
            && len <= self.segment
            && self.count < SEGMENTS_MAX
            && self.end - self.start + len <= DATAGRAM_MAX
    }
}

/// See the head of this file. One per data path thread.
pub struct Egress {
    buffer: Box<[u8]>,
    used: usize,
    groups: Vec<Group>,
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
            overflow: 0,
        }
    }

    /// Whether a datagram of `len` bytes for `to` would ride the send that the last one rides.
    pub fn joins(&self, to: SocketAddr, len: usize) -> bool {
        self.groups.last().is_some_and(|group| group.takes(to, len))
    }

    /// Room for a datagram of `len` bytes (1 to 65,507) for `to`, to be written whole before the next call. Nothing if the
    /// batch is full or no datagram can be that long; it is counted as `overflow` then.
    pub fn reserve(&mut self, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        let joins = self.joins(to, len);
        if len == 0 || len > DATAGRAM_MAX || self.used + len > CAPACITY || (!joins && self.groups.len() == GROUPS_MAX) {
            self.overflow += 1;
            return None;
        }
        let (start, end) = (self.used, self.used + len);
        match self.groups.last_mut() {
            Some(group) if joins => {
                group.end = end;
                group.count += 1;
            }
            _ => self.groups.push(Group { to, start, end, segment: len, count: 1 }),
        }
        self.used = end;
        self.buffer.get_mut(start..end)
    }

    /// Whether the batch is half full: flush before the next frame, so that a flood to many neighbours finds room.
    pub fn is_pressing(&self) -> bool {
        self.used > CAPACITY / 2 || self.groups.len() > GROUPS_MAX / 2
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Sends everything and starts anew. Never fails: see [`Sent`].
    pub fn flush(&mut self, socket: &UdpSocket) -> Sent {
        let mut sent = Sent { overflow: std::mem::take(&mut self.overflow), ..Sent::default() };
        for group in self.groups.drain(..) {
            let contents = &self.buffer[group.start..group.end];
            send_group(socket, group, contents, &mut sent);
        }
        self.used = 0;
        sent
    }
}

fn send_group(socket: &UdpSocket, group: Group, contents: &[u8], sent: &mut Sent) {
    sent.calls += 1;
    let segment = (group.count > 1).then_some(group.segment);
    match socket.send_segments(group.to, contents, segment) {
        Ok(()) => {
            sent.datagrams += group.count as u64;
            sent.bytes += contents.len() as u64;
        }
        // No segmentation on this route's device (EIO, EINVAL), or only some of the datagrams are too big.
        Err(e) if group.count > 1 && matches!(e.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)) => {
            for datagram in contents.chunks(group.segment) {
                send_group(socket, Group { count: 1, ..group }, datagram, sent);
            }
        }
        Err(e) => sent.lost(group.count as u64, &e),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ingress::Ingress;
    use super::*;
    use std::os::fd::AsFd;

    fn put(egress: &mut Egress, to: SocketAddr, len: usize, mark: u8) -> bool {
        egress.reserve(to, len).map(|room| room.fill(mark)).is_some()
    }

    fn pair() -> (UdpSocket, UdpSocket, SocketAddr) {
        let bind = || UdpSocket::bind_to("127.0.0.1:0".parse().unwrap()).unwrap();
        let (client, server) = (bind(), bind());
        let to = server.local_addr().unwrap();
        (client, server, to)
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
        let (client, server, to) = pair();
        let mut egress = Egress::new();
        for (len, mark) in [(1400, 1), (1400, 2), (900, 3), (1400, 4), (80, 5), (80, 6)] {
            assert!(put(&mut egress, to, len, mark));
        }
        let sent = egress.flush(&client);
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
    fn sends_are_cut_at_64_segments_and_at_65507_bytes() {
        let (client, server, to) = pair();
        let mut egress = Egress::new();
        (0..130).for_each(|i| assert!(put(&mut egress, to, 100, i)));
        assert_eq!(egress.flush(&client).calls, 3);
        assert_eq!(receive(&server, 130).len(), 130);
        (0..47).for_each(|i| assert!(put(&mut egress, to, 1400, i)));
        assert_eq!(egress.flush(&client), Sent { datagrams: 47, bytes: 65_800, calls: 2, ..Sent::default() });
        assert_eq!(receive(&server, 47).len(), 47);
    }

    #[test]
    fn destinations_are_not_mixed() {
        let (client, server, to) = pair();
        let (_, other, to_other) = pair();
        let mut egress = Egress::new();
        for mark in 0..3 {
            put(&mut egress, to, 500, mark);
            put(&mut egress, to_other, 500, mark + 10);
        }
        assert_eq!(egress.flush(&client).datagrams, 6);
        assert_eq!(receive(&server, 3).iter().map(|d| d[0]).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(receive(&other, 3).iter().map(|d| d[0]).collect::<Vec<_>>(), [10, 11, 12]);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_the_rest_is_sent() {
        let (client, _server, to) = pair();
        let mut egress = Egress::new();
        assert!(!put(&mut egress, to, 0, 0) && !put(&mut egress, to, DATAGRAM_MAX + 1, 0));
        let taken = (0..20).filter(|_| put(&mut egress, to, 60_000, 1)).count();
        assert_eq!(taken, CAPACITY / 60_000);
        assert!(egress.is_pressing());
        assert_eq!(egress.flush(&client).overflow, 2 + 20 - taken as u64);
        assert_eq!(egress.flush(&client), Sent::default());
    }

    #[test]
    fn losses_have_reasons_and_do_not_stop_the_others() {
        let (client, server, to) = pair();
        let mut egress = Egress::new();
        put(&mut egress, "[::1]:9".parse().unwrap(), 10, 0);
        put(&mut egress, to, 10, 7);
        let sent = egress.flush(&client);
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
