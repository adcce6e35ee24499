//! Threads that end, and are heard of.

use super::*;
use crate::plane::Limits;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

const SOON: Duration = Duration::from_secs(20);

fn start(receiver: UdpSocket) -> (Datapath, mpsc::Receiver<String>) {
    let sockets = Sockets { receiver: Arc::new(receiver), sparse: None, senders: Vec::new(), sources: Arc::default() };
    let (plane, (events, _)) = (Arc::new(Plane::new(Limits::default())), tokio::sync::mpsc::channel(1));
    let (tell, ended) = mpsc::channel();
    let tells = Tells { events, ended: move |why| drop(tell.send(why)) };
    (Datapath::start(plane, vec![sockets], false, Clock::start(), tells).unwrap(), ended)
}

#[test]
fn a_thread_whose_socket_is_none_tells_why_it_ends() {
    let socket = UdpSocket::bind_to("127.0.0.1:0".parse().unwrap()).unwrap();
    // In the socket's place is a pipe that has something to read.
    let (read, write) = nix::unistd::pipe().unwrap();
    nix::unistd::write(&write, b"?").unwrap();
    // SAFETY: the number is the socket's, whose owner lives on; what it names is replaced, not closed twice.
    let mut place = unsafe { OwnedFd::from_raw_fd(socket.as_raw_fd()) };
    nix::unistd::dup2(read.as_fd(), &mut place).unwrap();
    let _ = place.into_raw_fd();
    let (datapath, ended) = start(socket);
    let why = ended.recv_timeout(SOON).unwrap();
    assert!(why.starts_with("data path: thread 0: UDP socket: ") && why.contains("os error 88"), "{why}");
    drop(datapath);
    assert!(ended.recv().is_err(), "once");
}

#[test]
fn a_thread_that_is_told_to_end_says_nothing() {
    let (datapath, ended) = start(UdpSocket::bind_to("127.0.0.1:0".parse().unwrap()).unwrap());
    drop(datapath);
    assert!(ended.recv().is_err());
}

#[test]
fn what_control_or_a_port_does_not_take_is_counted() {
    let socket = Arc::new(UdpSocket::bind_to("127.0.0.1:0".parse().unwrap()).unwrap());
    let (events, _waiting) = tokio::sync::mpsc::channel(1);
    let mut outlet = Outlet {
        lane: 0,
        intakes: Vec::new(),
        senders: Senders::new(socket, []),
        egress: Egress::new(),
        ports: Vec::new(),
        doors: Vec::new(),
        events,
        lost: Tally::default(),
    };
    let (network, mac) = (NetId::new(7).unwrap(), crate::types::Mac([2; 6]));
    (0..3).for_each(|_| outlet.event(Event::Moved { network, mac }));
    outlet.deliver(PortId(9), &Offload::NONE, &[&[0; 60]]);
    let plane = Plane::new(Limits::default());
    outlet.report(&plane);
    assert_eq!(plane.counters().drops().collect::<Vec<_>>(), [(Reason::BridgeFull, 1), (Reason::EventLost, 2)]);
}
