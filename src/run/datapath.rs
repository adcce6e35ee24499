//! The threads that move frames: capture ports and UDP sockets on one side, the pure `Plane` on the other.
//!
//! ```text
//! each thread: epoll(7) over a wake-up, its two UDP sockets, its queue of every capture port, its socket of every door; sends by
//! sockets of their own
//!   capture readable   up to its burst of frames or BYTES > plane.from_bridge > (Outlet) > flush
//!   UDP readable       one receive > plane.from_net > (Outlet) > one write for each coalesced frame > flush
//!                      what is of sparse flows has a socket of its own: read after, taken first
//!   door readable      the same with plane.from_vteps: VXLAN
//!   wake-up            orders of control: a port or door is open, or closed, a frame for a port, end
//! ```
//!
//! Threads share the plane and nothing else: a flow stays on one of them, because the kernel keeps it on one queue of the TAP,
//! and the number of the thread that wrote a datagram picks the socket that takes it (`io::udp`). No frame touches an async
//! runtime, no memory is allocated for one, and a thread sleeps while there is nothing to do: no spinning, which costs more than
//! it brings wherever cores are shared. Turns are short, so that no port waits long for another: what is left is still readable.
//! What cannot be delivered is counted and gone: nothing waits for anybody. A read that fails is counted too (`intake`); a thread
//! that cannot go on says why, and the whole router ends: without data path it would only look well.

use super::door::Door;
use super::farewell::Farewell;
use super::intake::{Intake, Wait};
use super::located::Located;
use super::patience::Patience;
use crate::io::capture::{CAPTURE_MAX, Capture};
use crate::io::clock::Clock;
use crate::io::egress::{Egress, Senders, Sent};
use crate::io::ingress::{Ingress, Received};
use crate::io::lost;
use crate::io::sources::Sources;
use crate::io::udp::UdpSocket;
use crate::plane::fib::PortId;
use crate::plane::{Drop as Reason, Event, Plane, Service, Sink, Takes, Tally};
use crate::types::{Instant, NetId};
use crate::wire::virtio::Offload;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::Pid;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes read of one port before they are sent and the others have their turn: at 10 Gbit/s, 0.1 ms.
const BYTES: usize = 128 << 10;
/// Bytes of sparse flows that are taken before others have their turn: those of 20 flows that begin at once.
const BYTES_OF_SPARSE: usize = 1 << 20;
/// How often the kernel's drops are looked at.
const AUDIT: Duration = Duration::from_secs(1);
/// Events that may wait for control; more are dropped, and the prober sees a lost probe.
pub const EVENTS_MAX: usize = 1024;

/// Threads by default: half of the cores, for the other half belongs to whoever sends and receives; at most 4, which is more than
/// a 25 Gbit/s link needs.
pub fn default_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, 4)
}

/// Sockets that a thread sends by, if the kernel lets it have any of its own: so many neighbours may be slow without harm to
/// others.
pub const SENDERS: usize = 8;

/// The sockets of a thread.
pub struct Sockets {
    /// Takes datagrams; sends too if there is no other.
    pub receiver: Arc<UdpSocket>,
    /// Takes and sends those of sparse flows, if it can be told apart.
    pub sparse: Option<Arc<UdpSocket>>,
    /// For sending only.
    pub senders: Vec<Arc<UdpSocket>>,
    /// Which of this host's addresses to send from.
    pub sources: Arc<Sources>,
}

impl Sockets {
    /// Those that datagrams come in by.
    pub fn receivers(&self) -> impl Iterator<Item = Arc<UdpSocket>> {
        std::iter::once(&self.receiver).chain(&self.sparse).cloned()
    }

    fn senders(mut self) -> (Senders, Sockets) {
        let first = self.senders.pop().unwrap_or_else(|| Arc::clone(&self.receiver));
        let senders = Senders::new(first, std::mem::take(&mut self.senders)).with_sparse(self.sparse.clone());
        (senders.with_sources(Arc::clone(&self.sources)), self)
    }
}

/// What threads tell control.
pub struct Tells<F: Fn(String)> {
    /// Never waited for.
    pub events: tokio::sync::mpsc::Sender<Event>,
    /// Hears why a thread ended that nobody told to.
    pub ended: F,
}

/// What control tells a thread.
enum Order {
    Open(PortId, Capture),
    Close(PortId),
    OpenDoor(u16, UdpSocket, Vec<UdpSocket>),
    CloseDoor(u16),
    Deliver(PortId, Vec<u8>),
    Announce(NetId, Vec<u8>),
    Beat(SocketAddr, Vec<u8>),
    End,
}

/// Control's hold on the threads. Dropping it ends them and closes their ports.
pub struct Datapath {
    hands: Hands,
    threads: Vec<JoinHandle<()>>,
}

/// Gives orders to the threads; cheap to clone.
#[derive(Clone)]
pub struct Hands {
    threads: Arc<[Hand]>,
}

struct Hand {
    orders: mpsc::Sender<Order>,
    wake: Arc<EventFd>,
}

impl Hands {
    /// Frames captured here come in on `port` from now on, and those that were captured before no longer: one queue for each
    /// thread.
    pub fn open(&self, port: PortId, queues: Vec<Capture>) {
        for (hand, queue) in self.threads.iter().zip(queues) {
            hand.order(Order::Open(port, queue));
        }
    }

    /// The port is closed and its queues with it.
    pub fn close(&self, port: PortId) {
        self.threads.iter().for_each(|hand| hand.order(Order::Close(port)));
    }

    /// Datagrams of VTEPs or of peers come to UDP port `door` from now on: one socket for each thread. What goes to them leaves
    /// by `senders`, if there are any.
    pub fn open_door(&self, door: u16, sockets: Vec<UdpSocket>, mut senders: Vec<UdpSocket>) {
        let each = senders.len() / self.threads.len().max(1);
        for (hand, socket) in self.threads.iter().zip(sockets) {
            let own = senders.split_off(senders.len().saturating_sub(each));
            hand.order(Order::OpenDoor(door, socket, own));
        }
    }

    /// The door is closed and its sockets with it.
    pub fn close_door(&self, door: u16) {
        self.threads.iter().for_each(|hand| hand.order(Order::CloseDoor(door)));
    }

    /// Sends a frame to a peer by VXLAN, under the VNI of peers; it is gone if that has no door here.
    pub fn beat(&self, to: SocketAddr, frame: Vec<u8>) {
        if let Some(hand) = self.threads.first() {
            hand.order(Order::Beat(to, frame));
        }
    }

    /// Sends a frame to all others on a network.
    pub fn announce(&self, network: NetId, frame: Vec<u8>) {
        if let Some(hand) = self.threads.first() {
            hand.order(Order::Announce(network, frame));
        }
    }

    /// Writes a frame to whatever is behind `port`; it is gone if that is closed.
    pub fn deliver(&self, port: PortId, frame: Vec<u8>) {
        if let Some(hand) = self.threads.first() {
            hand.order(Order::Deliver(port, frame));
        }
    }
}

impl Hand {
    fn order(&self, order: Order) {
        // A thread that has ended needs no orders.
        if self.orders.send(order).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}

impl Datapath {
    /// Starts a thread for each of `sockets`, which share one port; `pinned`: each stays on the core of its number.
    pub fn start(
        plane: Arc<Plane>,
        sockets: Vec<Sockets>,
        pinned: bool,
        clock: Clock,
        Tells { events, ended }: Tells<impl Fn(String) + Clone + Send + 'static>,
    ) -> io::Result<Datapath> {
        let (mut hands, mut workers) = (Vec::new(), Vec::new());
        for (lane, sockets) in (0..=u8::MAX).zip(sockets) {
            let (senders, Sockets { receiver, sparse, .. }) = sockets.senders();
            let wake = Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
            let (orders, waiting) = mpsc::channel();
            let readable = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            readable.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
            readable.add(&receiver, EpollEvent::new(EpollFlags::EPOLLIN, NET))?;
            if let Some(sparse) = &sparse {
                readable.add(sparse, EpollEvent::new(EpollFlags::EPOLLIN, SPARSE))?;
            }
            hands.push(Hand { orders, wake: Arc::clone(&wake) });
            let outlet = Outlet {
                lane,
                senders,
                intakes: (NET..)
                    .zip([receiver].into_iter().chain(sparse))
                    .map(|(event, socket)| Intake::new(socket, event))
                    .collect(),
                egress: Egress::new(),
                ports: Vec::new(),
                doors: Vec::new(),
                events: events.clone(),
                lost: Tally::default(),
            };
            let audited = clock.now();
            let plane = Arc::clone(&plane);
            workers.push(Worker { audited, captured: false, plane, clock, waiting, wake, readable, outlet });
        }
        let mut datapath = Datapath { hands: Hands { threads: hands.into() }, threads: Vec::new() };
        for mut worker in workers {
            let lane = worker.outlet.lane;
            let thread = std::thread::Builder::new().name(format!("rnet-data-{lane}"));
            let farewell = Farewell::new(format!("data path: thread {lane}"), ended.clone());
            datapath.threads.push(thread.spawn(move || {
                if pinned {
                    pin(lane.into());
                }
                farewell.say(worker.work());
            })?);
        }
        Ok(datapath)
    }

    /// A hold for the task that opens ports.
    pub fn hands(&self) -> Hands {
        self.hands.clone()
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        self.hands.threads.iter().for_each(|hand| hand.order(Order::End));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Keeps the calling thread on one core, of those that this program may use.
fn pin(lane: usize) {
    let own = Pid::from_raw(0);
    let pinned = sched_getaffinity(own).and_then(|allowed| {
        let cores: Vec<usize> = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false)).collect();
        let core = cores.get(lane % cores.len().max(1)).copied().unwrap_or(0);
        let mut set = CpuSet::new();
        set.set(core).and_then(|()| sched_setaffinity(own, &set))
    });
    if let Err(why) = pinned {
        tracing::warn!("data path: thread {lane} cannot be pinned: {why}");
    }
}

struct Port {
    id: PortId,
    takes: Takes,
    capture: Capture,
    wait: Wait,
    /// The device's drops so far.
    drops: u64,
}

/// What is readable, as epoll keeps it: those that are always there, ports above, and doors above those.
const WAKE: u64 = 0;
const NET: u64 = 1;
const SPARSE: u64 = 2;
const PORTS: u64 = 3;
const DOORS: u64 = 1 << 33;

/// Where results of the plane go.
struct Outlet {
    lane: u8,
    /// For all; for what is of sparse flows, if that is told apart.
    intakes: Vec<Intake>,
    senders: Senders,
    egress: Egress,
    /// Few, and the one in use is found first.
    ports: Vec<Port>,
    /// Fewer still.
    doors: Vec<Door>,
    events: tokio::sync::mpsc::Sender<Event>,
    /// What the kernel or control did not take since the last report to the plane.
    lost: Tally,
}

impl Outlet {
    /// Sends what was collected.
    fn flush(&mut self) {
        let sent = self.egress.flush(&mut self.senders);
        self.account(&sent);
        for at in 0..self.doors.len() {
            let sent = self.doors[at].flush();
            self.account(&sent);
        }
    }

    /// The same for probes, which try sizes that are too big on purpose.
    fn flush_probes(&mut self) {
        for at in 0..self.doors.len() {
            let sent = self.doors[at].flush();
            self.account(&Sent { too_big: 0, ..sent });
        }
    }

    fn account(&mut self, sent: &Sent) {
        let lost = [
            (Reason::SendFull, sent.full),
            (Reason::SendTooBig, sent.too_big),
            (Reason::SendUnreachable, sent.unreachable),
            (Reason::SendFailed, sent.failed),
        ];
        for (reason, count) in lost {
            self.lost.drops_of(reason, count);
        }
    }

    /// Tells the plane what was lost, if anything was.
    fn report(&mut self, plane: &Plane) {
        if self.lost.drops().next().is_some() {
            plane.count(&self.lost);
            self.lost = Tally::default();
        }
    }

    fn port(&mut self, id: PortId) -> Option<&mut Port> {
        self.ports.iter_mut().find(|port| port.id == id)
    }
}

impl Sink for Outlet {
    fn datagram(&mut self, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        self.datagram_by(Service::default(), to, len)
    }

    fn datagram_by(&mut self, service: Service, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        if self.egress.is_pressing() && !self.egress.joins(service, to, len) {
            self.flush();
        }
        self.egress.reserve_by(service, to, len)
    }

    fn tunnelled(&mut self, door: u16, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        let at = self.doors.iter().position(|open| open.port == door)?;
        if self.doors[at].must_flush(to, len) {
            let sent = self.doors[at].flush();
            self.account(&sent);
        }
        self.doors[at].reserve(to, len)
    }

    fn deliver(&mut self, port: PortId, offload: &Offload, parts: &[&[u8]]) {
        // An error concerns this frame only: the device's queue is full, or it is about to go.
        let written = self.port(port).map(|port| port.capture.write(offload, parts));
        if !matches!(written, Some(Ok(()))) {
            let frames = if offload.gso.is_some() { parts.len().saturating_sub(1) } else { 1 };
            self.lost.drops_of(Reason::BridgeFull, frames as u64);
        }
    }

    fn takes(&self, port: PortId) -> Takes {
        self.ports.iter().find(|candidate| candidate.id == port).map(|port| port.takes).unwrap_or_default()
    }

    fn lane(&self) -> u8 {
        self.lane
    }

    fn event(&mut self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.lost.drop(Reason::EventLost);
        }
    }
}

struct Worker {
    /// When the kernel's drops were looked at.
    audited: Instant,
    /// Frames were captured since.
    captured: bool,
    plane: Arc<Plane>,
    clock: Clock,
    waiting: mpsc::Receiver<Order>,
    wake: Arc<EventFd>,
    readable: Epoll,
    outlet: Outlet,
}

impl Worker {
    /// Until it is told to end; an error: it cannot go on.
    fn work(&mut self) -> Result<(), String> {
        let (mut ingress, mut ingress_of_sparse) = (Ingress::new(), Ingress::new());
        let mut buffer = vec![0; CAPTURE_MAX];
        let mut ready = [EpollEvent::empty(); 64];
        let mut patience = Patience::new(std::thread::available_parallelism().map_or(1, usize::from));
        loop {
            let count = match patience.wait(&self.readable, &mut ready, self.clock) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(why) => return Err(format!("epoll: {why}")),
            };
            let ready = ready.get(..count).unwrap_or_default();
            let [net, sparse] = [NET, SPARSE].map(|wanted| ready.iter().any(|event| event.data() == wanted));
            if net || sparse {
                let taken = self.take_from_net(net, &mut ingress, &mut ingress_of_sparse);
                taken.map_err(|why| format!("UDP socket: {why}"))?;
            }
            for event in ready {
                match event.data() {
                    WAKE if !self.obey() => return Ok(()),
                    WAKE | NET | SPARSE => {}
                    door if door >= DOORS => {
                        let door = u16::try_from(door - DOORS).unwrap_or(0);
                        let taken = self.take_from_vteps(door, &mut ingress);
                        taken.map_err(|why| format!("UDP port {door}: {why}"))?;
                    }
                    port => self.take_from_bridge(PortId(u32::try_from(port - PORTS).unwrap_or(u32::MAX)), &mut buffer),
                }
            }
            self.audit();
        }
    }

    /// Counts what the kernel dropped in front of us. Queues overflow under load only, so looking once a second while
    /// there is something to do misses nothing, and costs nothing while there is not.
    fn audit(&mut self) {
        let now = self.clock.now();
        if now - self.audited < AUDIT {
            return;
        }
        self.audited = now;
        let Outlet { lane, intakes, ports, doors, lost, .. } = &mut self.outlet;
        let sockets = intakes.iter_mut().chain(doors.iter_mut().map(|door| &mut door.intake));
        sockets.for_each(|intake| lost.drops_of(Reason::NetQueue, intake.dropped()));
        for port in ports.iter_mut() {
            lost.drops_of(Reason::BridgeQueue, port.capture.dropped());
        }
        // A device counts for all its queues.
        if *lane == 0 && std::mem::take(&mut self.captured) {
            let devices = lost::of_devices();
            for port in ports {
                let Some((_, drops)) = devices.iter().find(|(name, _)| Some(name.as_str()) == port.capture.device())
                else {
                    continue;
                };
                lost.drops_of(Reason::BridgeQueue, drops.saturating_sub(port.drops));
                port.drops = *drops;
            }
        }
        self.outlet.report(&self.plane);
    }

    /// Carries out what control ordered; false: end.
    fn obey(&mut self) -> bool {
        let _ = self.wake.read();
        loop {
            match self.waiting.try_recv() {
                Ok(Order::Open(id, capture)) => self.open(id, capture),
                Ok(Order::Deliver(id, frame)) => {
                    let Worker { plane, clock, outlet, .. } = self;
                    plane.batch(clock.now()).deliver_to(id, &frame, outlet);
                    outlet.flush();
                }
                Ok(Order::Announce(network, frame)) => {
                    let Worker { plane, clock, outlet, .. } = self;
                    plane.batch(clock.now()).announce(network, &frame, outlet);
                    outlet.flush();
                }
                Ok(Order::Beat(to, frame)) => {
                    let Worker { plane, clock, outlet, .. } = self;
                    plane.batch(clock.now()).beat(to, &frame, outlet);
                    outlet.flush_probes();
                }
                Ok(Order::OpenDoor(door, socket, senders)) => self.open_door(door, socket, senders),
                Ok(Order::CloseDoor(door)) => self.outlet.doors.retain(|open| open.port != door),
                Ok(Order::Close(id)) => self.outlet.ports.retain(|port| port.id != id),
                Err(mpsc::TryRecvError::Empty) => return true,
                Ok(Order::End) | Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn open(&mut self, id: PortId, capture: Capture) {
        let event = PORTS + u64::from(id.0);
        let features = capture.features();
        let takes = Takes { checksum: features.checksum, tcp: features.tso, udp: features.uso };
        // Another one in its place: what that captured is in its successor too, or is lost.
        self.outlet.ports.retain(|port| port.id != id);
        match self.readable.add(&capture, EpollEvent::new(EpollFlags::EPOLLIN, event)) {
            Ok(()) => self.outlet.ports.push(Port { id, takes, capture, wait: Wait::new(event), drops: 0 }),
            Err(why) => tracing::error!("data path: port {}: {why}", id.0),
        }
    }

    fn open_door(&mut self, door: u16, socket: UdpSocket, senders: Vec<UdpSocket>) {
        let event = DOORS + u64::from(door);
        match self.readable.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, event)) {
            Ok(()) => self.outlet.doors.push(Door::new(door, event, socket, senders)),
            Err(why) => tracing::error!("data path: UDP port {door}: {why}"),
        }
    }

    /// Reads what came for all, unless only what is of sparse flows waits, then that, and takes that first. In this order nothing is
    /// taken before what its flow sent earlier: a flow that begins to send much was sparse until then.
    fn take_from_net(&mut self, net: bool, all: &mut Ingress, sparse: &mut Ingress) -> io::Result<()> {
        let Worker { plane, clock, readable, outlet, .. } = self;
        let all = match outlet.intakes.first_mut().filter(|_| net) {
            Some(intake) => Some(intake.receive(all, readable)?),
            None => None,
        };
        outlet.lost.drops_of(Reason::ReceiveFailed, all.as_ref().is_some_and(Received::has_failed).into());
        let mut bytes = 0;
        while bytes < BYTES_OF_SPARSE {
            let Some(intake) = outlet.intakes.get_mut(1) else { break };
            let received = intake.receive(sparse, readable)?;
            outlet.lost.drops_of(Reason::ReceiveFailed, received.has_failed().into());
            let (last, local) = (received.is_last(), received.local());
            // Empty datagrams have no bytes, and are not to keep us here.
            bytes += received.bytes().max(1024);
            if !received.is_empty() {
                plane.batch(clock.now()).from_net(received, &mut Located { outlet, local });
            }
            if last {
                break;
            }
        }
        if let Some(received) = all {
            let local = received.local();
            plane.batch(clock.now()).from_net(received, &mut Located { outlet, local });
        }
        outlet.flush();
        outlet.report(plane);
        Ok(())
    }

    fn take_from_vteps(&mut self, door: u16, ingress: &mut Ingress) -> io::Result<()> {
        let Worker { plane, clock, readable, outlet, .. } = self;
        let Some(open) = outlet.doors.iter_mut().find(|open| open.port == door) else { return Ok(()) };
        let received = open.intake.receive(ingress, readable)?;
        outlet.lost.drops_of(Reason::ReceiveFailed, received.has_failed().into());
        plane.batch(clock.now()).from_vteps(door, received, outlet);
        outlet.flush();
        outlet.report(plane);
        Ok(())
    }

    fn take_from_bridge(&mut self, id: PortId, buffer: &mut [u8]) {
        self.captured = true;
        let Worker { plane, clock, readable, outlet, .. } = self;
        let mut batch = plane.batch(clock.now());
        let mut bytes = 0;
        let burst = outlet.port(id).map_or(0, |port| port.capture.burst());
        for _ in 0..burst {
            let Some(port) = outlet.port(id) else { break };
            let read = port.capture.read(buffer);
            port.wait.after(read.is_err(), readable, &port.capture);
            match read {
                Ok(Some(Ok(captured))) => {
                    bytes += captured.frame.len();
                    batch.from_bridge(id, captured.frame, &captured.offload, outlet);
                }
                Ok(Some(Err(_))) => outlet.lost.drop(Reason::Malformed),
                Ok(None) => break,
                // If its device is gone, control will have it made again.
                Err(why) => {
                    outlet.lost.drop(Reason::ReceiveFailed);
                    tracing::debug!("data path: port {}: {why}", id.0);
                    break;
                }
            }
            if bytes >= BYTES {
                break;
            }
        }
        outlet.flush();
        outlet.report(plane);
    }
}

#[cfg(test)]
mod tests;
