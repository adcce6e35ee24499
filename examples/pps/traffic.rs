//! Small datagrams between two network namespaces: counted in one direction, or timed there and back.
//!
//! A socket belongs to the namespace it was made in, so one process holds both ends. Each packet is a datagram of its own,
//! without UDP_SEGMENT: the path shall be measured, not how well the sender makes super-packets. It begins with a number in network
//! order: of the trial, so that late ones do not count for the next, or of the round trip.

use crate::search::Trial;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg, setsockopt, sockopt};
use nix::unistd::Pid;
use rnet::io::netns::Netns;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const BATCH: usize = 64;
/// Largest datagram, bytes; the smallest has room for its number.
pub const SIZES: std::ops::RangeInclusive<usize> = 8..=2048;
/// Asked of the kernel for the receiver, bytes: loss shall come from the path.
const RECEIVE_BUFFER: usize = 16 << 20;
const SEND_BUFFER: usize = 4 << 20;
/// How often a thread looks whether it is to end.
const GLANCE: Duration = Duration::from_millis(50);
/// A paced sender sleeps at least so long: more wake-ups would take the processor from the path.
const TICK: Duration = Duration::from_micros(100);
/// A sender that was kept from sending makes up for so much, in time or in packets that any queue has room for, whichever is more.
/// All of a longer break would be a burst that nobody asked for.
const LATE: Duration = Duration::from_millis(5);
const LATE_PACKETS: f64 = 400.0;
const LOST: Duration = Duration::from_secs(1);

/// Where from, where to.
#[derive(Debug)]
pub struct Route {
    pub from: Netns,
    pub to: Netns,
    /// The receiver's, as the sender reaches it.
    pub address: IpAddr,
    pub size: usize,
}

/// A namespace by its name in /run/netns, or by path.
pub fn namespace(name: &str) -> io::Result<Netns> {
    let path = if name.contains('/') { name.into() } else { Path::new("/run/netns").join(name) };
    Netns::at(&path).map_err(|e| io::Error::new(e.kind(), format!("namespace {}: {e}", path.display())))
}

impl Route {
    /// A receiver on any port, and a sender connected to it.
    fn sockets(&self) -> io::Result<(UdpSocket, UdpSocket)> {
        let any = |address: IpAddr| -> SocketAddr {
            if address.is_ipv6() { ([0u16; 8], 0).into() } else { ([0u8; 4], 0).into() }
        };
        let receiver = self.to.within(|| UdpSocket::bind(any(self.address)))?;
        setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        receiver.set_read_timeout(Some(GLANCE))?;
        let port = receiver.local_addr()?.port();
        let sender = self.from.within(|| {
            let sender = UdpSocket::bind(any(self.address))?;
            sender.connect((self.address, port))?;
            Ok(sender)
        })?;
        setsockopt(&sender, sockopt::SndBufForce, &SEND_BUFFER)?;
        Ok((receiver, sender))
    }

    /// Runs `work` with a sender whose packets are counted at the other end.
    pub fn counted<T>(&self, work: impl FnOnce(&mut Sender<'_>) -> io::Result<T>) -> io::Result<T> {
        let (receiver, sender) = self.sockets()?;
        let tally = Tally::default();
        thread::scope(|scope| {
            let sink = thread::Builder::new().name("sink".into()).spawn_scoped(scope, || tally.count(&receiver))?;
            let mut sender = Sender { socket: sender, tally: &tally, size: self.size };
            // Addresses are learned, paths are made.
            let done = sender.send(500.0, 0.3).and_then(|_| work(&mut sender));
            tally.end.store(true, Relaxed);
            joined(sink).and(done)
        })
    }

    /// Round-trip times, sorted, and how many were lost. `pinned`: each end on a processor of its own, where there are two.
    pub fn there_and_back(&self, seconds: f64, pause: Duration, pinned: bool) -> io::Result<(Vec<Duration>, u64)> {
        let (receiver, sender) = self.sockets()?;
        sender.set_read_timeout(Some(LOST))?;
        let (end, homes) = (AtomicBool::new(false), if pinned { two_processors()? } else { None });
        // Threads of their own: what a pinned thread starts is pinned too.
        thread::scope(|scope| {
            let answering = || pin(homes.map(|homes| homes[1])).and_then(|()| answer(&receiver, &end));
            let asking = || pin(homes.map(|homes| homes[0])).and_then(|()| ask(&sender, self.size, seconds, pause));
            let answering = thread::Builder::new().name("answer".into()).spawn_scoped(scope, answering)?;
            let asking = thread::Builder::new().name("ask".into()).spawn_scoped(scope, asking);
            let timed = asking.and_then(joined);
            end.store(true, Relaxed);
            joined(answering).and(timed)
        })
    }
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
}

/// The first two that this process may use, if it may use two.
fn two_processors() -> io::Result<Option<[usize; 2]>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut usable = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    Ok(usable.next().zip(usable.next()).map(|(one, other)| [one, other]))
}

/// Keeps the calling thread on this processor.
fn pin(processor: Option<usize>) -> io::Result<()> {
    let Some(processor) = processor else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(processor)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Nothing came, or the path broke for a moment.
fn passing(e: Errno) -> bool {
    let passing =
        [Errno::EAGAIN, Errno::EINTR, Errno::ENOBUFS, Errno::ECONNREFUSED, Errno::EHOSTUNREACH, Errno::ENETUNREACH];
    passing.contains(&e)
}

fn passing_io(e: &io::Error) -> bool {
    e.raw_os_error().is_some_and(|code| passing(Errno::from_raw(code)))
}

#[derive(Default)]
struct Tally {
    trial: AtomicU32,
    received: AtomicU64,
    end: AtomicBool,
}

impl Tally {
    /// Counts the current trial's packets until the end.
    fn count(&self, socket: &UdpSocket) -> io::Result<()> {
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
        let mut buffers = vec![[0; *SIZES.end()]; BATCH];
        while !self.end.load(Relaxed) {
            let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
            match recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None) {
                Ok(batch) => {
                    let trial = self.trial.load(Relaxed);
                    let ours = batch.filter(|packet| packet.iovs().next().and_then(number) == Some(trial)).count();
                    self.received.fetch_add(ours as u64, Relaxed);
                }
                Err(e) if passing(e) => (),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

fn number(packet: &[u8]) -> Option<u32> {
    packet.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn packet(number: u32, size: usize) -> Vec<u8> {
    let mut packet = vec![0; size];
    packet.splice(..4, number.to_be_bytes());
    packet
}

/// Sends trial after trial.
pub struct Sender<'a> {
    socket: UdpSocket,
    tally: &'a Tally,
    size: usize,
}

impl Sender<'_> {
    /// One trial; `rate` packets per second, 0: as many as go.
    pub fn send(&mut self, rate: f64, seconds: f64) -> io::Result<Trial> {
        let trial = self.tally.trial.load(Relaxed) + 1;
        self.tally.received.store(0, Relaxed);
        self.tally.trial.store(trial, Relaxed);
        let packet = packet(trial, self.size);
        let slices = [[IoSlice::new(&packet)]; BATCH];
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
        let (start, length) = (Instant::now(), Duration::from_secs_f64(seconds));
        let (mut pace, mut sent) = (Pace::new(rate), 0);
        loop {
            let now = start.elapsed();
            if now >= length {
                break;
            }
            let due = pace.due(now);
            if due == 0 {
                thread::sleep(pace.pause(now).min(length - now));
                continue;
            }
            match sendmmsg(self.socket.as_raw_fd(), &mut headers, &slices[..due], [None; BATCH], [], MsgFlags::empty())
            {
                Ok(done) => {
                    let done = done.count();
                    pace.sent += done as f64;
                    sent += done as u64;
                }
                Err(e) if passing(e) => thread::yield_now(),
                Err(e) => return Err(e.into()),
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let received_by_then = self.tally.received.load(Relaxed);
        let received = self.drained();
        Ok(Trial { wanted: rate, seconds, sent, received_by_then, received })
    }

    /// The count when no more come, at most a second later.
    fn drained(&self) -> u64 {
        let mut last = self.tally.received.load(Relaxed);
        for _ in 0..20 {
            thread::sleep(GLANCE);
            let now = self.tally.received.load(Relaxed);
            if now == last {
                break;
            }
            last = now;
        }
        last
    }
}

/// How many packets are due.
struct Pace {
    rate: f64,
    /// Counted from here.
    origin: Duration,
    sent: f64,
}

impl Pace {
    fn new(rate: f64) -> Pace {
        Pace { rate, origin: Duration::ZERO, sent: 0.0 }
    }

    fn due(&mut self, now: Duration) -> usize {
        if self.rate <= 0.0 {
            return BATCH;
        }
        let owed = (now - self.origin).as_secs_f64() * self.rate - self.sent;
        if owed > LATE_PACKETS.max(LATE.as_secs_f64() * self.rate) {
            (self.origin, self.sent) = (now, 0.0);
            return 1;
        }
        (owed.max(0.0) as usize).min(BATCH)
    }

    fn pause(&self, now: Duration) -> Duration {
        let next = (self.sent + 1.0) / self.rate - (now - self.origin).as_secs_f64();
        TICK.max(Duration::from_secs_f64(next.max(0.0)))
    }
}

/// Sends everything back until the end.
fn answer(socket: &UdpSocket, end: &AtomicBool) -> io::Result<()> {
    let mut buffer = [0; *SIZES.end()];
    while !end.load(Relaxed) {
        let answered = socket.recv_from(&mut buffer).and_then(|(length, from)| socket.send_to(&buffer[..length], from));
        if let Err(e) = answered
            && !passing_io(&e)
        {
            return Err(e);
        }
    }
    Ok(())
}

/// One packet at a time, the next one `pause` after the answer.
fn ask(socket: &UdpSocket, size: usize, seconds: f64, pause: Duration) -> io::Result<(Vec<Duration>, u64)> {
    let (start, length) = (Instant::now(), Duration::from_secs_f64(seconds));
    let (mut times, mut lost, mut buffer) = (Vec::new(), 0, [0; *SIZES.end()]);
    for round in 1.. {
        if start.elapsed() >= length {
            break;
        }
        let sent = Instant::now();
        match socket.send(&packet(round, size)).and_then(|_| returned(socket, round, &mut buffer)) {
            Ok(()) => times.push(sent.elapsed()),
            Err(e) if passing_io(&e) => lost += 1,
            Err(e) => return Err(e),
        }
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }
    times.sort_unstable();
    Ok((times, lost))
}

/// Waits for the answer of this round; late ones of rounds before are passed over.
fn returned(socket: &UdpSocket, round: u32, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        let length = socket.recv(buffer)?;
        if number(&buffer[..length]) == Some(round) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_owes_what_the_rate_says() {
        let mut pace = Pace::new(10_000.0);
        assert_eq!(pace.due(Duration::ZERO), 0);
        assert_eq!(pace.due(Duration::from_millis(3)), 30);
        pace.sent = 30.0;
        assert_eq!(pace.due(Duration::from_millis(3)), 0);
        assert_eq!(pace.pause(Duration::from_millis(3)), TICK);
    }

    #[test]
    fn slow_pace_sleeps_until_the_next_packet() {
        let pace = Pace::new(10.0);
        assert_eq!(pace.pause(Duration::ZERO), Duration::from_millis(100));
    }

    #[test]
    fn what_was_missed_for_long_is_not_sent_in_a_burst() {
        let mut pace = Pace::new(10_000.0);
        assert_eq!(pace.due(Duration::from_millis(30)), BATCH);
        assert_eq!(pace.due(Duration::from_millis(400)), 1);
        pace.sent = 1.0;
        assert_eq!(pace.due(Duration::from_millis(402)), 19);
    }

    #[test]
    fn without_a_rate_batches_are_full() {
        assert_eq!(Pace::new(0.0).due(Duration::from_secs(1)), BATCH);
    }

    #[test]
    fn packets_carry_their_number() {
        assert_eq!(number(&packet(7, 64)), Some(7));
        assert_eq!(packet(7, 64).len(), 64);
        assert_eq!(number(&[1, 2]), None);
    }
}
