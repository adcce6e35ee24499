//! UDP ports by which VTEPs are reached: open from the first VTEP that needs one to the last. And the one by which peers speak
//! VXLAN, where rnet does that itself.
//!
//! Owns who needs which door, and looks now and then at what the routes to VTEPs take: a route may change, and a router on
//! the way may say that it takes less. The sockets are handed to the data path as they are opened, and are closed by it.

use super::events::HostEvent;
use super::taken::{FOR_PEERS, FOR_VTEP, taken};
use crate::io::door::{self, Route};
use crate::io::netlink::Netlink;
use crate::node::command::Vtep;
use crate::plane::fib::PortId;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep};

/// Sockets by which a queue sends to peers: so many may be slow without harm to others.
const SENDERS: usize = 8;
/// How often routes are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long the data path may take to close a door that is opened again, by us or by the kernel, at once.
const CLOSING: Duration = Duration::from_secs(1);

/// A VTEP that is reached by a door.
struct Reached {
    to: SocketAddr,
    door: u16,
    /// What its route took when it was last told; 0: not known.
    mtu: u16,
}

#[derive(Default)]
struct Table {
    reached: HashMap<PortId, Reached>,
    /// The one by which peers speak VXLAN.
    peers: Option<u16>,
    closed: HashMap<u16, Instant>,
}

/// See the head of this file. Cheap to clone.
#[derive(Clone)]
pub(super) struct Doors {
    /// The one address of this host that the router listens on, if it was told to.
    at: Option<IpAddr>,
    /// Sockets for each door.
    queues: usize,
    netlink: Netlink,
    events: UnboundedSender<HostEvent>,
    table: Arc<Mutex<Table>>,
}

impl Doors {
    pub fn new((at, queues): (Option<IpAddr>, usize), netlink: Netlink, events: UnboundedSender<HostEvent>) -> Doors {
        Doors { at, queues, netlink, events, table: Arc::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `port` leads to this VTEP from now on. The error is one line.
    pub async fn open(&self, port: PortId, vtep: &Vtep) -> Result<(), String> {
        let (to, number) = (vtep.address.socket(), vtep.local_port);
        let route = door::route(to).ok();
        if route.is_some_and(|route| route.own) && to.port() == number {
            return Err(
                "that is this host itself, by the very port that it would listen on: give the VTEP's address".into()
            );
        }
        if self.at.is_some_and(|at| at.is_ipv4() != to.is_ipv4() && !at.is_unspecified()) {
            let at = self.at.map(|at| at.to_string()).unwrap_or_default();
            return Err(format!("it cannot be reached from {at}, the one address that this router uses (--host)"));
        }
        if self.table().peers == Some(number) {
            return Err(format!(
                "UDP port {number} is the one by which peers speak VXLAN: give another one with --local-port"
            ));
        }
        let is_open = self.table().reached.values().any(|reached| reached.door == number);
        if !is_open {
            self.hand_over(number, 0, FOR_VTEP).await?;
        }
        self.table().reached.insert(port, Reached { to, door: number, mtu: 0 });
        self.look(port, route);
        Ok(())
    }

    /// The UDP ports that are open.
    pub fn numbers(&self) -> Vec<u16> {
        let mut numbers: Vec<u16> = self.table().reached.values().map(|reached| reached.door).collect();
        numbers.extend(self.table().peers);
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// Peers speak VXLAN by this port from now on. The error is one line.
    pub async fn open_peers(&self, number: u16) -> Result<(), String> {
        if self.table().peers == Some(number) {
            return Ok(());
        }
        if self.table().reached.values().any(|reached| reached.door == number) {
            return Err(format!(
                "a VTEP is reached by UDP port {number} of this host: forget it, and give another --local-port"
            ));
        }
        self.hand_over(number, SENDERS, FOR_PEERS).await?;
        self.table().peers = Some(number);
        Ok(())
    }

    /// Whether peers could speak VXLAN by this port now. The error is one line.
    pub async fn try_peers(&self, number: u16) -> Result<(), String> {
        match door::open(number, self.at, 1) {
            Ok(_) => Ok(()),
            Err(why) => Err(refused(&self.netlink, number, &why, FOR_PEERS).await),
        }
    }

    /// No longer: the data path has closed it when this returns, so that the kernel can have it, or takes long.
    pub async fn close_peers(&self) {
        let Some(door) = self.table().peers.take() else { return };
        let _ = self.events.send(HostEvent::DoorClosed { door });
        let since = Instant::now();
        let is_taken = || door::open(door, self.at, 1).is_err_and(|why| why.kind() == io::ErrorKind::AddrInUse);
        while since.elapsed() < CLOSING && is_taken() {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// `senders`: for each queue. The error is one line: why not, and what to do `instead`.
    async fn hand_over(&self, number: u16, senders: usize, instead: &str) -> Result<(), String> {
        let sockets = match self.bind(number).await {
            Ok(sockets) => sockets,
            Err(why) => return Err(refused(&self.netlink, number, &why, instead).await),
        };
        // Where there are none the door sends too.
        let senders = door::senders(self.at, senders * self.queues).unwrap_or_default();
        let _ = self.events.send(HostEvent::DoorOpened { door: number, sockets, senders });
        Ok(())
    }

    async fn bind(&self, number: u16) -> io::Result<Vec<crate::io::udp::UdpSocket>> {
        let closed = self.table().closed.remove(&number);
        loop {
            match door::open(number, self.at, self.queues) {
                Err(why)
                    if why.kind() == io::ErrorKind::AddrInUse && closed.is_some_and(|at| at.elapsed() < CLOSING) =>
                {
                    sleep(Duration::from_millis(10)).await;
                }
                other => return other,
            }
        }
    }

    /// `port` leads nowhere any more.
    pub fn close(&self, port: PortId) {
        let mut table = self.table();
        let Some(Reached { door, .. }) = table.reached.remove(&port) else { return };
        if table.reached.values().all(|reached| reached.door != door) {
            table.closed.insert(door, Instant::now());
            let _ = self.events.send(HostEvent::DoorClosed { door });
        }
    }

    /// Tells what the route takes, if that is new.
    fn look(&self, port: PortId, route: Option<Route>) {
        let Some(Route { mtu, .. }) = route else { return };
        if let Some(reached) = self.table().reached.get_mut(&port).filter(|reached| reached.mtu != mtu) {
            reached.mtu = mtu;
            let _ = self.events.send(HostEvent::RouteMtu { port, mtu });
        }
    }

    /// Looks at routes for ever.
    pub async fn keep(self) {
        loop {
            sleep(LOOK_EVERY).await;
            let all: Vec<(PortId, SocketAddr)> =
                self.table().reached.iter().map(|(port, reached)| (*port, reached.to)).collect();
            all.into_iter().for_each(|(port, to)| self.look(port, door::route(to).ok()));
        }
    }
}

/// Why a door cannot be opened, and what to do.
async fn refused(netlink: &Netlink, door: u16, why: &io::Error, instead: &str) -> String {
    match why.kind() {
        io::ErrorKind::AddrInUse => taken(netlink, door, instead).await,
        io::ErrorKind::PermissionDenied => format!("UDP port {door} needs root"),
        _ => format!("UDP port {door} cannot be had: {why}"),
    }
}
