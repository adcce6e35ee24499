//! The queues of a device that one thread reads: in turns, so that a flow that fills its own keeps no other waiting long.
//!
//! Deficit round robin in its simplest form (RFC 8290, 4.2 has the reasons): whoever has frames gets [`QUANTUM`] bytes before
//! the next has its turn. What is readable is asked of the kernel (epoll(7)) once per round, so a lone frame costs one call more
//! than with a single queue. Frames are written by the first queue. A queue is a TAP's descriptor, or an ear of libpcap's: each read is
//! a frame, and none waits where it would block.

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes of one queue before the next has its turn: two super-frames.
const QUANTUM: usize = 128 << 10;
/// Queues of one thread at most.
pub const QUEUES_MAX: usize = 8;

/// See the head of this file.
pub struct Turns<Q> {
    first: Q,
    others: Vec<Q>,
    /// Nothing if there is one queue only.
    ready: Option<Epoll>,
    /// Who has frames, in this round; `at` says whose turn it is, `taken` what it had of it.
    round: [EpollEvent; QUEUES_MAX],
    length: usize,
    at: usize,
    taken: usize,
    /// Somebody's turn ended before its frames did.
    more: bool,
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
        let round = [EpollEvent::empty(); QUEUES_MAX];
        Ok(Turns { first, others, ready, round, length: 0, at: 0, taken: 0, more: false })
    }

    /// The next frame's length in `buffer`; WouldBlock: none waits.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let none = || io::Error::from(io::ErrorKind::WouldBlock);
        let Some(ready) = &self.ready else {
            return self.first.read(buffer);
        };
        loop {
            if self.at >= self.length {
                (self.at, self.taken, self.more) = (0, 0, false);
                self.length = match ready.wait(&mut self.round, EpollTimeout::ZERO) {
                    Ok(0) | Err(Errno::EINTR) => {
                        self.length = 0;
                        return Err(none());
                    }
                    Ok(length) => length,
                    Err(why) => return Err(why.into()),
                };
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
                    if self.at >= self.length && !self.more {
                        return Err(none());
                    }
                }
                Ok(length) => {
                    self.taken += length;
                    if self.taken >= QUANTUM {
                        (self.at, self.taken, self.more) = (self.at + 1, 0, true);
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
