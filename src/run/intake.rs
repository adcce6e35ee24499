//! A UDP socket that a data path thread reads, what it dropped, and how it is waited for.
//!
//! A read that fails does not end the thread. Most failures are told once, by the read that meets them; but one that lasts (no
//! memory, a rule of this host) leaves the socket readable, and a thread that is woken as long as it is would do nothing else. So
//! after a failure it is woken by what comes new (EPOLLET of epoll(7)), until a read succeeds.

use crate::io::ingress::{Ingress, Received};
use crate::io::lost;
use crate::io::udp::UdpSocket;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

/// See the head of this file.
pub(super) struct Intake {
    pub socket: Arc<UdpSocket>,
    /// Datagrams that the kernel had no room for so far.
    drops: u32,
    wait: Wait,
}

impl Intake {
    /// Waited for as `event`.
    pub fn new(socket: Arc<UdpSocket>, event: u64) -> Intake {
        let drops = lost::of_socket(&*socket).unwrap_or(0);
        Intake { socket, drops, wait: Wait::new(event) }
    }

    /// Datagrams that were dropped since this was last asked.
    pub fn dropped(&mut self) -> u64 {
        let drops = lost::of_socket(&*self.socket).unwrap_or(self.drops);
        let new = drops.wrapping_sub(self.drops);
        self.drops = drops;
        new.into()
    }

    /// As [`Ingress::receive`]; `readable` is where the socket is waited for.
    pub fn receive<'b>(&mut self, ingress: &'b mut Ingress, readable: &Epoll) -> io::Result<Received<'b>> {
        let received = ingress.receive(&self.socket)?;
        self.wait.after(received.has_failed(), readable, &self.socket);
        Ok(received)
    }
}

/// How a descriptor is waited for.
pub(super) struct Wait {
    event: u64,
    failing: bool,
}

impl Wait {
    /// For as long as it is readable.
    pub fn new(event: u64) -> Wait {
        Wait { event, failing: false }
    }

    /// From now on as it is right after a read of `what` that failed, or did not. Free while nothing changes.
    pub fn after(&mut self, failed: bool, readable: &Epoll, what: impl AsFd) {
        if failed == self.failing {
            return;
        }
        self.failing = failed;
        let how = if failed { EpollFlags::EPOLLIN | EpollFlags::EPOLLET } else { EpollFlags::EPOLLIN };
        // Fails for what is no longer waited for, which needs nothing.
        let _ = readable.modify(what, &mut EpollEvent::new(how, self.event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::epoll::{EpollCreateFlags, EpollTimeout};

    #[test]
    fn what_fails_is_waited_for_until_something_new_comes_and_what_works_while_it_is_readable() {
        let bind = || UdpSocket::bind_to("127.0.0.1:0".parse().unwrap()).unwrap();
        let (socket, peer) = (bind(), bind());
        let to = socket.local_addr().unwrap();
        let readable = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        readable.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, 7)).unwrap();
        let woken = || readable.wait(&mut [EpollEvent::empty(); 2], EpollTimeout::ZERO).unwrap();
        let mut wait = Wait::new(7);
        peer.send(to, b"first").unwrap();
        assert_eq!([woken(), woken(), woken()], [1; 3]);
        // Tried once more, and then not before there is news.
        wait.after(true, &readable, &socket);
        assert_eq!([woken(), woken(), woken()], [1, 0, 0]);
        wait.after(true, &readable, &socket);
        assert_eq!(woken(), 0);
        peer.send(to, b"second").unwrap();
        assert_eq!([woken(), woken()], [1, 0]);
        wait.after(false, &readable, &socket);
        assert_eq!([woken(), woken(), woken()], [1; 3]);
    }
}
