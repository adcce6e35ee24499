//! The thread that moves frames: capture ports and the UDP socket on one side, the pure `Plane` on the other.
//!
//! ```text
//! epoll(7) over: wake-up, UDP socket, capture ports
//!   capture readable   up to BURST frames > plane.from_bridge > (Outlet) > flush
//!   UDP readable       up to ROUNDS receives > plane.from_net > (Outlet) > flush
//!   wake-up            orders of control: a port is open, a port is closed, a frame for a bridge, end
//! ```
//!
//! No frame touches an async runtime, no memory is allocated for one, and the thread sleeps while there is nothing to
//! do. What cannot be delivered is counted and gone: nothing waits for anybody.

use crate::io::capture::{CAPTURE_MAX, Capture};
use crate::io::clock::Clock;
use crate::io::egress::Egress;
use crate::io::ingress::Ingress;
use crate::io::udp::UdpSocket;
use crate::plane::fib::PortId;
use crate::plane::{Drop as Reason, Event, Plane, Sink, Tally};
use crate::wire::virtio::Offload;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// Frames read of one port before the others have their turn.
const BURST: usize = 64;
/// Receive calls before the ports have their turn; each brings up to 8 x 64 KiB.
const ROUNDS: usize = 4;
/// Events that may wait for control; more are dropped, and the prober sees a lost probe.
pub const EVENTS_MAX: usize = 1024;

/// What control tells the thread.
enum Order {
    Open(PortId, Capture),
    Close(PortId),
    Deliver(PortId, Vec<u8>),
    End,
}

/// Control's hold on the thread. Dropping it ends the thread and closes its ports.
pub struct Datapath {
    hands: Hands,
    thread: Option<JoinHandle<()>>,
}

/// Gives orders to the thread; cheap to clone.
#[derive(Clone)]
pub struct Hands {
    orders: mpsc::Sender<Order>,
    wake: Arc<EventFd>,
}

impl Hands {
    /// Frames captured here come in on `port` from now on. Of several queues only the first is read yet.
    pub fn open(&self, port: PortId, captures: Vec<Capture>) {
        if let Some(capture) = captures.into_iter().next() {
            self.order(Order::Open(port, capture));
        }
    }

    /// The port is closed and its capture with it.
    pub fn close(&self, port: PortId) {
        self.order(Order::Close(port));
    }

    /// Writes a frame to the bridge behind `port`; it is gone if that is closed.
    pub fn deliver(&self, port: PortId, frame: Vec<u8>) {
        self.order(Order::Deliver(port, frame));
    }

    fn order(&self, order: Order) {
        // A thread that has ended needs no orders.
        if self.orders.send(order).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}

impl Datapath {
    /// Starts the thread. Events go to `events`, which is never waited for.
    pub fn start(
        plane: Arc<Plane>,
        socket: Arc<UdpSocket>,
        clock: Clock,
        events: tokio::sync::mpsc::Sender<Event>,
    ) -> io::Result<Datapath> {
        let wake = Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let (orders, waiting) = mpsc::channel();
        let hands = Hands { orders, wake: Arc::clone(&wake) };
        let outlet = Outlet { egress: Egress::new(), ports: Vec::new(), events, lost: Tally::default() };
        let readable = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        readable.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        readable.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, NET))?;
        let mut worker = Worker { plane, socket, clock, waiting, wake, readable, outlet };
        let thread = std::thread::Builder::new().name("rnet-data".to_string()).spawn(move || worker.work())?;
        Ok(Datapath { hands, thread: Some(thread) })
    }

    /// A hold for the task that opens ports.
    pub fn hands(&self) -> Hands {
        self.hands.clone()
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        self.hands.order(Order::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Port {
    id: PortId,
    capture: Capture,
}

/// What is readable, as epoll keeps it: the two that are always there, and ports above.
const WAKE: u64 = 0;
const NET: u64 = 1;
const PORTS: u64 = 2;

/// Where results of the plane go.
struct Outlet {
    egress: Egress,
    ports: Vec<Port>,
    events: tokio::sync::mpsc::Sender<Event>,
    /// What the kernel or control did not take since the last report to the plane.
    lost: Tally,
}

impl Outlet {
    /// Sends what was collected.
    fn flush(&mut self, socket: &UdpSocket) {
        let sent = self.egress.flush(socket);
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
}

impl Sink for Outlet {
    fn datagram(&mut self, to: SocketAddr, len: usize) -> Option<&mut [u8]> {
        self.egress.reserve(to, len)
    }

    fn deliver(&mut self, port: PortId, frame: &[u8]) {
        // An error concerns this frame only: the device's queue is full, or it is about to go.
        let written = self
            .ports
            .iter_mut()
            .find(|candidate| candidate.id == port)
            .map(|port| port.capture.write(&Offload::NONE, &[frame]));
        if !matches!(written, Some(Ok(()))) {
            self.lost.drop(Reason::BridgeFull);
        }
    }

    fn event(&mut self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.lost.drop(Reason::EventLost);
        }
    }
}

struct Worker {
    plane: Arc<Plane>,
    socket: Arc<UdpSocket>,
    clock: Clock,
    waiting: mpsc::Receiver<Order>,
    wake: Arc<EventFd>,
    readable: Epoll,
    outlet: Outlet,
}

impl Worker {
    fn work(&mut self) {
        let mut ingress = Ingress::new();
        let mut buffer = vec![0; CAPTURE_MAX];
        let mut ready = [EpollEvent::empty(); 64];
        loop {
            let count = match self.readable.wait(&mut ready, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(why) => return tracing::error!("data path: {why}: no frame will pass"),
            };
            for event in ready.iter().take(count) {
                match event.data() {
                    WAKE if !self.obey() => return,
                    WAKE => {}
                    NET => {
                        if let Err(why) = self.take_from_net(&mut ingress) {
                            return tracing::error!("data path: UDP socket: {why}: no frame will pass");
                        }
                    }
                    port => self.take_from_bridge(PortId(u32::try_from(port - PORTS).unwrap_or(u32::MAX)), &mut buffer),
                }
            }
        }
    }

    /// Carries out what control ordered; false: end.
    fn obey(&mut self) -> bool {
        let _ = self.wake.read();
        loop {
            match self.waiting.try_recv() {
                Ok(Order::Open(id, capture)) => self.open(Port { id, capture }),
                Ok(Order::Deliver(id, frame)) => self.outlet.deliver(id, &frame),
                Ok(Order::Close(id)) => self.outlet.ports.retain(|port| port.id != id),
                Err(mpsc::TryRecvError::Empty) => return true,
                Ok(Order::End) | Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn open(&mut self, port: Port) {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, PORTS + u64::from(port.id.0));
        match self.readable.add(&port.capture, event) {
            Ok(()) => self.outlet.ports.push(port),
            Err(why) => tracing::error!("data path: port {}: {why}", port.id.0),
        }
    }

    fn take_from_net(&mut self, ingress: &mut Ingress) -> io::Result<()> {
        let Worker { plane, socket, clock, outlet, .. } = self;
        let mut batch = plane.batch();
        for _ in 0..ROUNDS {
            let now = clock.now();
            let received = ingress.receive(socket)?;
            let last = received.is_last();
            for (from, datagram) in received {
                batch.from_net(from, datagram, now, outlet);
                if outlet.egress.is_pressing() {
                    outlet.flush(socket);
                }
            }
            if last {
                break;
            }
        }
        outlet.flush(socket);
        outlet.report(plane);
        Ok(())
    }

    fn take_from_bridge(&mut self, id: PortId, buffer: &mut [u8]) {
        let Worker { plane, socket, clock, readable, outlet, .. } = self;
        let mut batch = plane.batch();
        let now = clock.now();
        for _ in 0..BURST {
            let Some(port) = outlet.ports.iter_mut().find(|port| port.id == id) else { break };
            match port.capture.read(buffer) {
                // Until super-frames are cut here: captures are opened without offload, so that no such frame comes.
                Ok(Some(Ok(captured))) if captured.offload == Offload::NONE => {
                    batch.from_bridge(id, captured.frame, now, outlet);
                }
                Ok(Some(_)) => outlet.lost.drop(Reason::Malformed),
                Ok(None) => break,
                // Its device is gone or down: not waited for any more, control will close it.
                Err(why) => {
                    let _ = readable.delete(&port.capture);
                    tracing::error!("data path: port {}: {why}", id.0);
                    break;
                }
            }
            if outlet.egress.is_pressing() {
                outlet.flush(socket);
            }
        }
        outlet.flush(socket);
        outlet.report(plane);
    }
}
