//! The queues of a device that one thread reads: in turns, so that a flow that fills its own keeps no other waiting long.
//!
//! Deficit round robin in its simplest form (RFC 8290, 4.2 has the reasons): whoever has frames gets [`QUANTUM`] bytes before
//! the next has its turn, and in each round those go first that were not left with more in the one before. What is readable is
//! asked of the kernel (epoll(7)) once per round, so a lone frame costs one call more than with a single queue. Frames are
//! written by the first queue. A queue is a TAP's descriptor, or an ear of libpcap's: each read is a frame, and none waits where
//! it would block.

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes of one queue before the next has its turn: a super-frame, or two where they are smaller.
const QUANTUM: usize = 64 << 10;
/// Queues of one thread at most. One of 15 flows shares its queue with a given other one; each takes 32 KB of the kernel.
pub const QUEUES_MAX: usize = 16;

/// See the head of this file.
pub struct Turns<Q> {
    first: Q,
    others: Vec<Q>,
    /// Nothing if there is one queue only.
    ready: Option<Epoll>,
    /// Who has frames, in this round; `at` says whose turn it is, `taken` what it had of it.
    round: Box<[EpollEvent; QUEUES_MAX]>,
    length: usize,
    at: usize,
    taken: usize,
    /// Whose turn ended before its frames did, in this round: a bit for each queue.
    more: u64,
}

impl<Q: Read + AsFd> Turns<Q> {
    /// Of `first` and at most [`QUEUES_MAX`] - 1 others.
    pub fn of(first: Q, others: Vec<Q>) -> io::Result<Turns<Q>> {
        let ready = (!others.is_empty()).then(|| Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)).transpose()?;
        if let Some(ready) = &ready {
            for (index, queue) in (0..).zip([&first].into_iter().chain(&others)) {
                ready.add(queue, EpollEvent::new(EpollFlags::EPOLLIN, index))?;
            }
        }
        let round = Box::new([EpollEvent::empty(); QUEUES_MAX]);
        Ok(Turns { first, others, ready, round, length: 0, at: 0, taken: 0, more: 0 })
    }

    /// The next frame's length in `buffer`; WouldBlock: none waits.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let none = || io::Error::from(io::ErrorKind::WouldBlock);
        let Some(ready) = &self.ready else {
            return self.first.read(buffer);
        };
        loop {
            if self.at >= self.length {
                let left = std::mem::take(&mut self.more);
                (self.at, self.taken, self.length) = (0, 0, 0);
                self.length = match ready.wait(self.round.as_mut_slice(), EpollTimeout::ZERO) {
                    Ok(0) | Err(Errno::EINTR) => return Err(none()),
                    Ok(length) => length,
                    Err(why) => return Err(why.into()),
                };
                if let Some(round) = self.round.get_mut(..self.length) {
                    round.sort_unstable_by_key(|event| left >> event.data() & 1);
                }
            }
            let turn = self.round.get(self.at).and_then(|event| usize::try_from(event.data()).ok());
            let queue = match turn.and_then(|index| index.checked_sub(1)) {
                None => &mut self.first,
                Some(index) => self.others.get_mut(index).unwrap_or(&mut self.first),
            };
            match queue.read(buffer) {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                    (self.at, self.taken) = (self.at + 1, 0);
                    // All were empty when they were looked at last: whoever waits for the descriptor hears of what came since.
                    if self.at >= self.length && self.more == 0 {
                        return Err(none());
                    }
                }
                Ok(length) => {
                    self.taken += length;
                    if self.taken >= QUANTUM {
                        (self.at, self.taken) = (self.at + 1, 0);
                        self.more |= 1 << turn.unwrap_or(0);
                    }
                    return Ok(length);
                }
                Err(why) => {
                    // The others are not to wait for one that fails.
                    (self.at, self.taken) = (self.at + 1, 0);
                    return Err(why);
                }
            }
        }
    }

    /// Where frames are written.
    pub fn first(&mut self) -> &mut Q {
        &mut self.first
    }

    /// All of them, the first one first.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Q> {
        std::iter::once(&mut self.first).chain(&mut self.others)
    }
}

impl<Q: AsFd> AsFd for Turns<Q> {
    /// Readable while a frame waits in any of the queues.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_ref().map_or(self.first.as_fd(), |ready| ready.0.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    struct Queue(UnixDatagram);

    impl Read for Queue {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.recv(buffer)
        }
    }

    impl AsFd for Queue {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    /// Queues, and what fills them.
    fn of(queues: usize) -> (Turns<Queue>, Vec<UnixDatagram>) {
        let (fill, mut queues): (Vec<_>, Vec<_>) = (0..queues)
            .map(|_| {
                let (fill, queue) = UnixDatagram::pair().unwrap();
                queue.set_nonblocking(true).unwrap();
                (fill, Queue(queue))
            })
            .unzip();
        let first = queues.remove(0);
        (Turns::of(first, queues).unwrap(), fill)
    }

    /// The first byte of the next frame.
    fn next(turns: &mut Turns<Queue>) -> Option<u8> {
        let mut buffer = [0; QUANTUM];
        match turns.read(&mut buffer) {
            Ok(_) => Some(buffer[0]),
            Err(why) => {
                assert_eq!(why.kind(), io::ErrorKind::WouldBlock);
                None
            }
        }
    }

    #[test]
    fn who_begins_to_send_goes_before_who_fills_its_queue() {
        // Whatever the kernel's order: each of them once fills its queue, and once begins.
        for full in 0..2 {
            let (mut turns, fill) = of(2);
            let send = |queue: usize, name: u8, length: usize| {
                assert_eq!(fill[queue].send(&vec![name; length]).unwrap(), length);
            };
            (0..2).for_each(|_| send(full, b'F', QUANTUM));
            assert_eq!(next(&mut turns), Some(b'F'), "nobody else is there");
            send(1 - full, b'b', 64);
            assert_eq!(next(&mut turns), Some(b'b'), "queue {full} is full");
            assert_eq!(next(&mut turns), Some(b'F'));
            assert_eq!(next(&mut turns), None);
        }
    }

    #[test]
    fn nobody_sends_more_than_a_quantum_while_others_wait_and_nothing_is_left() {
        let (mut turns, fill) = of(3);
        for (name, queue) in (b'0'..).zip(&fill) {
            (0..6).for_each(|_| assert!(queue.send(&[name; QUANTUM / 2]).is_ok()));
        }
        let all: Vec<u8> = std::iter::from_fn(|| next(&mut turns)).collect();
        assert_eq!(all.len(), 18);
        for round in all.chunks(6) {
            let mut turns: Vec<&[u8]> = round.chunks(2).collect();
            turns.sort_unstable();
            assert_eq!(turns, [b"00", b"11", b"22"]);
        }
    }
}
