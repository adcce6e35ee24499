//! The UDP socket of the mesh's datagrams.
//!
//! Owns the socket and its options; `egress` and `ingress` move batches through it. One socket speaks IPv6 and IPv4
//! ([::] without IPV6_V6ONLY), or IPv4 only where the kernel has no IPv6. Callers never see v4-mapped addresses: they are
//! made plain here on the way in and mapped here on the way out. Don't-fragment is always on (IP_PMTUDISC_PROBE), so that a
//! datagram larger than the interface allows fails with EMSGSIZE instead of being cut. A failed send concerns that
//! datagram only.
//!
//! Several threads have several sockets on one port, a [`Group`]: the kernel gives each datagram to one of them, by a byte of
//! it, and those of sparse flows to another of that thread. Spare ones receive nothing: they send, each with a send buffer of its
//! own, so that neither control's probes nor other neighbours wait behind what a slow neighbour's line has not taken yet.
//!
//! Invariant: nothing a peer sends or an ICMP error says makes a call here fail for good.

use crate::wire::datagram::SPARSE;
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Largest payload of a datagram over IPv4, bytes.
pub const DATAGRAM_MAX: usize = 65_507;

/// Asked of the kernel, bytes. What is received must hold the windows of several streams of TCP (6 MB each by default): with 4 MB
/// four streams lost some of their bursts and 15 % of their rate; the ping of one stream is bounded by its own window.
const RECEIVE_BUFFER: usize = 16 << 20;
/// A device that is slow may hold so much of what is sent; more would only wait longer.
const SEND_BUFFER: usize = 4 << 20;

/// Which byte of a datagram says whose it is, for a group's sockets: `wire::datagram`.
const QUEUE_AT: u32 = 1;

/// Sockets of one port. See [`UdpSocket::bind_group`].
///
/// Traps: what the kernel joins on the way in (UDP_GRO) arrives together where its first datagram says, so the byte spreads
/// load and must decide nothing. Drop them together: when one goes, the last one takes its number.
pub struct Group {
    /// One for each that receives; datagrams of lane `q` arrive at socket `q` modulo their number.
    pub sockets: Vec<UdpSocket>,
    /// As many for those that are sparse, to receive and to send, or none.
    pub sparse: Vec<UdpSocket>,
    /// For sending only, each with a send buffer of its own; nothing arrives here.
    pub spares: Vec<UdpSocket>,
}

/// See the head of this file. Shared by the data path thread and control (`&self` suffices for all).
pub struct UdpSocket {
    socket: Socket,
    pub(super) state: UdpSocketState,
    v6: bool,
    /// The kernel knows UDP_SEGMENT, as found when it was bound.
    pub(super) segments: bool,
}

impl UdpSocket {
    /// Binds `port` (0: any free one) on all addresses, IPv6 and IPv4, or IPv4 only where IPv6 is disabled.
    ///
    /// Errors: AddrInUse if somebody has the port; PermissionDenied below 1024 without privilege.
    pub fn bind(port: u16) -> io::Result<UdpSocket> {
        match UdpSocket::bind_to(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
            Err(e) if no_ipv6(&e) => UdpSocket::bind_to(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
            other => other,
        }
    }

    /// Binds this very address; an unspecified IPv6 address takes IPv4 too.
    pub fn bind_to(address: SocketAddr) -> io::Result<UdpSocket> {
        UdpSocket::bind_with(address, false)
    }

    fn bind_with(address: SocketAddr, joins: bool) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        enlarge(&socket);
        socket.set_reuse_port(joins)?;
        socket.bind(&address.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        hush(&socket);
        let segments = state.max_gso_segments() > 1;
        Ok(UdpSocket { socket, state, v6: address.is_ipv6(), segments })
    }

    /// Binds `count` sockets (at least one) to one `port` (0: any free one) as [`UdpSocket::bind`] does, as many for what is
    /// sparse, and `spares` that are for sending only; there are none of either where the kernel refuses the program that tells
    /// them apart.
    ///
    /// A datagram goes to the socket that its lane says, or by the kernel's hash of its addresses where programs are refused.
    /// Errors: AddrInUse if somebody has the port, another group too; PermissionDenied.
    pub fn bind_group(port: u16, count: usize, spares: usize) -> io::Result<Group> {
        match UdpSocket::bind_group_to(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), count, spares) {
            Err(e) if no_ipv6(&e) => {
                UdpSocket::bind_group_to(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), count, spares)
            }
            other => other,
        }
    }

    /// The same on this very address; an unspecified IPv6 address takes IPv4 too.
    pub fn bind_group_to(address: SocketAddr, count: usize, spares: usize) -> io::Result<Group> {
        let count = count.max(1);
        let mut sockets = UdpSocket::bind_together(address, 2 * count + spares)?;
        // The order of binding is the order in which the program counts them: spare ones are the last.
        let steered = steer(&sockets[0].socket, count);
        let mut spares = sockets.split_off(2 * count);
        let mut sparse = sockets.split_off(count);
        if steered.is_err() {
            // Where the kernel's hash chooses it would choose these too: closing takes them out of the group.
            spares.clear();
            sparse.clear();
        }
        sparse.iter().for_each(UdpSocket::stand_apart);
        Ok(Group { sockets, sparse, spares })
    }

    /// Binds `count` sockets (at least one) to this very address; a datagram goes to the one that the kernel's hash of its
    /// addresses and ports says. Errors: as [`UdpSocket::bind_group`].
    pub fn bind_together(address: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
        // SO_REUSEPORT would let any program of this user in, a second router too. So the first socket claims the port
        // without it: whoever has the port already, a group or not, makes this bind fail. Only then it lets the others in.
        // A program that asks for SO_REUSEPORT later could still join: it comes last, so in a group it receives nothing.
        let mut sockets = vec![UdpSocket::bind_to(address)?];
        if count > 1 {
            sockets[0].socket.set_reuse_port(true)?;
        }
        let address = sockets[0].local_addr()?;
        while sockets.len() < count {
            sockets.push(UdpSocket::bind_with(address, true)?);
        }
        Ok(sockets)
    }

    /// From now on what is sent has one hop less to live than what others send: a receiving kernel joins (GRO) only what is alike
    /// in that, so a datagram of a sparse flow is not carried to where those before it go.
    pub fn stand_apart(&self) {
        // Not reported: what is joined arrives with the others, as it did without all this.
        let _ = self.socket.ttl_v4().and_then(|hops| self.socket.set_ttl_v4(hops.saturating_sub(1).max(1)));
        if self.v6 {
            let fewer = |hops: u32| self.socket.set_unicast_hops_v6(hops.saturating_sub(1).max(1));
            let _ = self.socket.unicast_hops_v6().and_then(fewer);
        }
    }

    /// Where it is bound.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let address = self.socket.local_addr()?.as_socket();
        address.ok_or_else(|| io::Error::other("a UDP socket without an IP address"))
    }

    /// Whether IPv6 peers can be reached at all.
    pub fn speaks_ipv6(&self) -> bool {
        self.v6
    }

    /// Whether the kernel takes many datagrams by one call (UDP_SEGMENT), and gives many (UDP_GRO).
    pub fn offloads(&self) -> (bool, bool) {
        (self.segments, self.state.gro_segments() > 1)
    }

    /// Sends one datagram now (control's probes). The error says why this one did not leave: `WouldBlock` for a full
    /// buffer, EMSGSIZE for one larger than the interface's MTU.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        self.send_segments((None, to), datagram, None)
    }

    /// As [`UdpSocket::send`], from that address of this host; an error (EINVAL, ENETUNREACH) if it is none.
    pub fn send_from(&self, from: Option<IpAddr>, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        self.send_segments((from, to), datagram, None)
    }

    /// One send of datagrams of `segment` bytes each (the last may be shorter), from that address of this host if one is named.
    pub(super) fn send_segments(
        &self,
        (src_ip, to): (Option<IpAddr>, SocketAddr),
        contents: &[u8],
        segment: Option<usize>,
    ) -> io::Result<()> {
        let destination = self.outward(to)?;
        let transmit = Transmit { destination, ecn: None, contents, segment_size: segment, src_ip };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }

    /// From now on `Ingress` is told at which address of this host each datagram came in, or no longer: at first it is not, for
    /// that costs time for each (see `hush`). Errors: none but a broken socket's.
    pub fn locate(&self, on: bool) -> io::Result<()> {
        use nix::sys::socket::{setsockopt, sockopt};
        // A socket of IPv6 tells it of IPv4 too, as a mapped address.
        match self.v6 {
            true => setsockopt(&self.socket, sockopt::Ipv6RecvPacketInfo, &on)?,
            false => setsockopt(&self.socket, sockopt::Ipv4PacketInfo, &on)?,
        }
        Ok(())
    }

    /// An address as this socket's family needs it.
    fn outward(&self, to: SocketAddr) -> io::Result<SocketAddr> {
        match (self.v6, to) {
            (true, SocketAddr::V4(v4)) => {
                Ok(SocketAddr::V6(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0)))
            }
            (false, SocketAddr::V6(_)) => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
            _ => Ok(to),
        }
    }

    pub(super) fn as_udp_ref(&self) -> UdpSockRef<'_> {
        UdpSockRef::from(&self.socket)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Gives each datagram to the socket of the group that its lane says, of the first `count`, or of as many behind them if it is
/// sparse.
///
/// The program sees the UDP payload and answers the number of the socket. What is too short for the byte goes to the first.
fn steer(socket: &Socket, count: usize) -> io::Result<()> {
    let count = u32::try_from(count).map_err(io::Error::other)?;
    let step = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let sparse = u32::from(SPARSE);
    let skip = |steps: u8, unless: u32| libc::sock_filter {
        jf: steps,
        ..step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, unless)
    };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, QUEUE_AT),
        skip(4, sparse),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, !sparse),
        step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, count),
        step(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, count),
        step(libc::BPF_RET | libc::BPF_A, 0),
        step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, count),
        step(libc::BPF_RET | libc::BPF_A, 0),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: the option takes a sock_fprog of this length; it and its steps outlive the call, which copies them.
    let set = unsafe {
        let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF);
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const program).cast(), length)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `address` without the v4-mapped form, so that one peer has one address.
pub fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, address.port())),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}

/// Whether a bind failed because the kernel has no IPv6, or none here.
pub(super) fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// No time, destination and class of traffic beside each datagram, which quinn-udp asks for and nobody here reads: without them
/// a receive costs 100 of 400 ns less per message. Not reported: who cannot switch them off receives all the same.
fn hush(socket: &Socket) {
    use nix::sys::socket::{setsockopt, sockopt};
    let _ = setsockopt(socket, sockopt::ReceiveTimestampns, &false);
    let _ = setsockopt(socket, sockopt::Ipv4PacketInfo, &false);
    let _ = setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &false);
    let _ = socket.set_recv_tos_v4(false);
    let _ = socket.set_recv_tclass_v6(false);
}

/// Large buffers: past the system's limit with privilege, else as much as it allows.
fn enlarge(socket: &Socket) {
    use nix::sys::socket::{setsockopt, sockopt};
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        // Not reported: a smaller buffer loses bursts, it breaks nothing.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    if setsockopt(socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::ingress::Ingress;

    /// Reads until `count` datagrams came, or two seconds passed.
    pub(crate) fn receive(socket: &UdpSocket, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let (mut ingress, mut got) = (Ingress::new(), Vec::new());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
        while got.len() < count && std::time::Instant::now() < deadline {
            let mut fds = [nix::poll::PollFd::new(socket.as_fd(), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut fds, 50u8).unwrap();
            got.extend(ingress.receive(socket).unwrap().map(|(from, datagram)| (from, datagram.to_vec())));
        }
        got
    }

    #[test]
    fn ipv4_and_ipv6_arrive_at_one_socket_with_plain_addresses() {
        let server = UdpSocket::bind(0).unwrap();
        let port = server.local_addr().unwrap().port();
        let client = UdpSocket::bind(0).unwrap();
        client.send(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), b"four").unwrap();
        let got = receive(&server, 1);
        assert_eq!(got[0].1, b"four");
        assert_eq!(got[0].0, SocketAddr::from((Ipv4Addr::LOCALHOST, client.local_addr().unwrap().port())));
        if server.speaks_ipv6() && client.send(SocketAddr::from((Ipv6Addr::LOCALHOST, port)), b"six").is_ok() {
            assert_eq!(
                receive(&server, 1)[0],
                ((Ipv6Addr::LOCALHOST, client.local_addr().unwrap().port()).into(), b"six".to_vec())
            );
        } else {
            eprintln!("skipped: no IPv6 on the loopback here");
        }
    }

    #[test]
    fn ipv4_only_socket_refuses_ipv6_destinations_and_works_otherwise() {
        let server = UdpSocket::bind_to("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(!server.speaks_ipv6());
        assert_eq!(server.send("[::1]:9".parse().unwrap(), b"x").unwrap_err().raw_os_error(), Some(libc::EAFNOSUPPORT));
        server.send(server.local_addr().unwrap(), b"self").unwrap();
        assert_eq!(receive(&server, 1)[0].1, b"self");
    }

    #[test]
    fn a_port_in_use_is_told_as_such() {
        let first = UdpSocket::bind(0).unwrap();
        let port = first.local_addr().unwrap().port();
        assert_eq!(UdpSocket::bind(port).err().unwrap().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_closed_port_on_the_other_side_does_not_break_the_socket() {
        let closed = { UdpSocket::bind(0).unwrap().local_addr().unwrap().port() };
        let (socket, other) = (UdpSocket::bind(0).unwrap(), UdpSocket::bind(0).unwrap());
        for _ in 0..3 {
            let _ = socket.send(SocketAddr::from((Ipv4Addr::LOCALHOST, closed)), b"nobody");
            socket
                .send(SocketAddr::from((Ipv4Addr::LOCALHOST, other.local_addr().unwrap().port())), b"somebody")
                .unwrap();
        }
        assert_eq!(receive(&other, 3).len(), 3);
        assert!(Ingress::new().receive(&socket).unwrap().is_empty());
    }

    /// What came in, and at which address.
    fn located(socket: &UdpSocket) -> (SocketAddr, Option<IpAddr>) {
        let mut ingress = Ingress::new();
        let mut fds = [nix::poll::PollFd::new(socket.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, 2000u16).unwrap();
        let mut received = ingress.receive(socket).unwrap();
        let local = received.local();
        (received.next().unwrap().0, local.get())
    }

    #[test]
    fn a_datagram_leaves_from_the_address_that_is_named_and_where_it_came_in_is_told_on_demand() {
        for any in ["[::]:0", "0.0.0.0:0"] {
            let [server, client] = [(); 2].map(|()| UdpSocket::bind_to(any.parse().unwrap()).unwrap());
            let [ours, theirs] = ["127.0.0.2", "127.0.0.3"].map(|address| address.parse::<IpAddr>().unwrap());
            let to = SocketAddr::new(theirs, port(&server));
            client.send_from(Some(ours), to, b"x").unwrap();
            assert_eq!(located(&server), (SocketAddr::new(ours, port(&client)), None), "nobody asked");
            server.locate(true).unwrap();
            client.send_from(Some(ours), to, b"x").unwrap();
            assert_eq!(located(&server), (SocketAddr::new(ours, port(&client)), Some(theirs)));
            server.locate(false).unwrap();
            client.send_from(None, to, b"x").unwrap();
            assert_eq!(located(&server).1, None);
            client.send_from(Some("192.0.2.1".parse().unwrap()), to, b"x").unwrap_err();
        }
    }

    fn loopback(port: u16) -> [SocketAddr; 2] {
        [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))]
    }

    fn port(socket: &UdpSocket) -> u16 {
        socket.local_addr().unwrap().port()
    }

    #[test]
    fn a_groups_datagrams_arrive_where_their_byte_says_and_never_at_the_spare_one() {
        let Group { sockets, sparse, spares } = UdpSocket::bind_group(0, 3, 2).unwrap();
        assert_eq!((sparse.len(), spares.len()), (3, 2));
        assert!(sockets.iter().chain(&sparse).chain(&spares).all(|socket| port(socket) == port(&sockets[0])));
        // Many senders: a hash of addresses would spread each byte's datagrams over all.
        let clients: Vec<UdpSocket> = (0..8).map(|_| UdpSocket::bind(0).unwrap()).collect();
        for to in loopback(port(&sockets[0])) {
            if to.is_ipv6() && clients[0].send(to, b"").is_err() {
                eprintln!("skipped: no IPv6 on the loopback here");
                continue;
            }
            for client in &clients {
                (0..12).for_each(|queue| client.send(to, &[1, queue, 3]).unwrap());
                (0..12).for_each(|queue| client.send(to, &[1, queue | SPARSE, 3]).unwrap());
            }
            for (number, socket) in sockets.iter().enumerate() {
                let got = receive(socket, 32);
                assert_eq!(got.len(), 32);
                assert!(got.iter().all(|(_, datagram)| usize::from(datagram[1]) % 3 == number), "{got:?}");
            }
            for (number, socket) in sparse.iter().enumerate() {
                let got = receive(socket, 32);
                assert_eq!(got.len(), 32);
                let fits = |byte: u8| byte >= SPARSE && usize::from(byte - SPARSE) % 3 == number;
                assert!(got.iter().all(|(_, datagram)| fits(datagram[1])), "{got:?}");
            }
        }
        // Too short for the byte.
        clients[0].send(loopback(port(&sockets[0]))[0], b"x").unwrap();
        assert_eq!(receive(&sockets[0], 1).len(), 1);
        for spare in &spares {
            assert!(Ingress::new().receive(spare).unwrap().is_empty());
            // What a spare one sends is from the port of all.
            let to = loopback(port(&clients[0]))[0];
            spare.send(to, b"probe").unwrap();
            assert_eq!(receive(&clients[0], 1), [(loopback(port(spare))[0], b"probe".to_vec())]);
        }
    }

    #[test]
    fn a_group_of_one_gets_everything_and_its_other_socket_what_is_sparse() {
        let Group { sockets, sparse, spares } = UdpSocket::bind_group_to("127.0.0.1:0".parse().unwrap(), 0, 0).unwrap();
        assert!(sockets.len() == 1 && sparse.len() == 1 && spares.is_empty() && !sockets[0].speaks_ipv6());
        let Group { sockets, sparse, spares } = UdpSocket::bind_group(0, 1, 1).unwrap();
        let client = UdpSocket::bind(0).unwrap();
        let to = loopback(port(&sockets[0]))[0];
        (0..200).for_each(|queue| client.send(to, &[0, queue]).unwrap());
        assert_eq!(receive(&sockets[0], 128).len(), 128);
        assert_eq!(receive(&sparse[0], 72).len(), 72);
        assert_eq!(spares.len(), 1);
    }

    #[test]
    fn what_stands_apart_has_one_hop_less_to_live() {
        let (plain, apart) = (UdpSocket::bind(0).unwrap(), UdpSocket::bind(0).unwrap());
        apart.stand_apart();
        assert_eq!(apart.socket.ttl_v4().unwrap() + 1, plain.socket.ttl_v4().unwrap());
        if plain.speaks_ipv6() {
            assert_eq!(apart.socket.unicast_hops_v6().unwrap() + 1, plain.socket.unicast_hops_v6().unwrap());
        }
    }

    #[test]
    fn a_groups_port_is_refused_to_everybody_else_and_a_taken_one_to_a_group() {
        let group = UdpSocket::bind_group(0, 2, 1).unwrap();
        let taken = port(&group.sockets[0]);
        let kind = |result: io::Result<Group>| result.err().map(|e| e.kind());
        for count in [1, 2, 4] {
            assert_eq!(kind(UdpSocket::bind_group(taken, count, 1)), Some(io::ErrorKind::AddrInUse));
        }
        assert_eq!(UdpSocket::bind(taken).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        drop(group);
        let plain = UdpSocket::bind(taken).unwrap();
        assert_eq!(kind(UdpSocket::bind_group(taken, 2, 0)), Some(io::ErrorKind::AddrInUse));
        drop(plain);
        UdpSocket::bind_group(taken, 2, 0).unwrap();
    }

    #[test]
    fn what_the_kernel_joined_on_the_way_in_is_handed_on_datagram_by_datagram() {
        let (server, client) = (UdpSocket::bind(0).unwrap(), UdpSocket::bind(0).unwrap());
        let to = loopback(port(&server))[0];
        let contents: Vec<u8> = (0..3500u32).map(|n| (n / 1000) as u8).collect();
        client.send_segments((None, to), &contents, Some(1000)).unwrap();
        client.send(to, b"").unwrap();
        client.send(to, b"alone").unwrap();
        let mut ingress = Ingress::new();
        let mut fds = [nix::poll::PollFd::new(server.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, 2000u16).unwrap();
        let received = ingress.receive(&server).unwrap();
        assert!(!received.is_empty() && received.is_last());
        // All at once, each mutable.
        let mut all: Vec<(SocketAddr, &mut [u8])> = received.collect();
        all.iter_mut().for_each(|(_, datagram)| datagram[0] += 100);
        let got: Vec<(usize, u8)> = all.iter().map(|(_, datagram)| (datagram.len(), datagram[0])).collect();
        assert_eq!(got, [(1000, 100), (1000, 101), (1000, 102), (500, 103), (5, b'a' + 100)]);
        assert!(all.iter().all(|(from, _)| *from == loopback(port(&client))[0]));
        let nothing = ingress.receive(&server).unwrap();
        assert!(nothing.is_empty() && nothing.is_last() && nothing.count() == 0);
    }
}
