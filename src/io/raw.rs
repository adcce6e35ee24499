//! A socket of AF_PACKET as a capture port: an interface that is there already, at the speed of a TAP (packet(7)).
//!
//! Owns the sockets, one per data path thread: a fanout group spreads flows over them by the kernel's hash. Promiscuous; hears
//! only what comes in (`sieve`), so what it sends itself never comes back. With each frame goes a virtio header, as with a TAP:
//! super-frames and unfinished checksums pass as they are, both ways, whatever the interface itself can do. An [`Injector`] is
//! the half of it that sends, for libpcap, which takes no such header.
//!
//! ```text
//! read    4 free | virtio header, 10 | frame         the kernel takes a tag of 802.1Q out of the frame: it is put back
//! write   virtio header, 10 | frame                  in parts
//! ```
//!
//! Each frame is one call, as with a TAP: what carries bytes is super-frames, for which a batch (recvmmsg) saves little, and a
//! ring (TPACKET_V2) would need 64 KiB for each slot or cut them off.
//!
//! An interface that goes down tells so once (ENETDOWN) and the socket goes on when it is up again; one that is deleted never
//! comes back here, whatever its successor is called: capture that.

use super::capture::{Captured, Features, PARTS_MAX};
use super::sieve::{self, Part};
use crate::wire::Malformed;
use crate::wire::virtio::{Gso, Offload, Partial, VIRTIO_LEN};
use nix::net::if_::if_nametoindex;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Bytes of a tag of 802.1Q, which the frame has to make room for.
pub const TAG_LEN: usize = 4;
/// Bytes of both addresses, before which the tag comes.
const ADDRESSES: usize = 12;

/// linux/if_packet.h; libc lacks it.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// Ether type of "everything" in the byte order of the network.
const ALL: u16 = (libc::ETH_P_ALL as u16).to_be();

/// Bytes that may wait in each direction, as the kernel counts them (a small frame counts about 800).
const RECEIVE: libc::c_int = 16 << 20;
const SEND: libc::c_int = 8 << 20;

/// linux/if_packet.h: the frame had a tag, and its type is told too.
const VLAN_VALID: u32 = 1 << 4;
const VLAN_TPID_VALID: u32 = 1 << 6;

/// How an interface is to be captured.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Sockets; at least 1.
    pub queues: usize,
    /// Leave us checksums and super-frames; else senders must complete and cut them.
    pub offload: bool,
    /// Not captured: see [`sieve`].
    pub deaf_to: &'a [u16],
}

/// One socket. See the head of this file.
pub struct Raw {
    socket: OwnedFd,
    features: Features,
}

impl Raw {
    /// Captures on the Ethernet interface `name` of the calling thread's network namespace.
    ///
    /// Errors: ENODEV, EPERM without CAP_NET_RAW.
    pub fn open(name: &str, wish: Wish<'_>) -> io::Result<Vec<Raw>> {
        let queues = wish.queues.max(1);
        // A group of a number that nobody else has.
        let mut group = None;
        let mut all = Vec::new();
        while all.len() < queues {
            let raw = open_one(name, wish)?;
            if queues > 1 {
                group = Some(join(&raw.socket, group)?);
            }
            all.push(raw);
        }
        Ok(all)
    }

    /// What the kernel leaves to us and takes from us.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Frames that the socket's buffer had no room for, since this was last asked.
    pub fn dropped(&self) -> u64 {
        let mut counts = [0u32; 2];
        let mut length = size_of_val(&counts) as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes, the size of `counts` (tpacket_stats); both outlive the call.
        let asked = unsafe {
            let into = (&raw mut counts).cast();
            libc::getsockopt(self.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, into, &raw mut length)
        };
        if asked == 0 { counts[1].into() } else { 0 }
    }

    /// A descriptor of the same socket, by which its filter can be replaced.
    pub fn handle(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// See [`super::capture::Capture::read`].
    pub fn read<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<Result<Captured<'b>, Malformed>>> {
        let Some(room) = buffer.get_mut(TAG_LEN..) else { return Ok(Some(Err(Malformed::TooLong))) };
        let (length, tag) = match receive(&self.socket, room) {
            Ok(Received { cut: true, .. }) => return Ok(Some(Err(Malformed::TooLong))),
            Ok(received) => (received.length, received.tag),
            Err(e) => {
                return match e.raw_os_error() {
                    // Down: it tells when it is up again by having frames.
                    Some(libc::EAGAIN | libc::EINTR | libc::ENETDOWN) => Ok(None),
                    // A frame that the header has no words for; the kernel has dropped it.
                    Some(libc::EINVAL) => Ok(Some(Err(Malformed::Kind))),
                    _ => Err(e),
                };
            }
        };
        let end = TAG_LEN + length;
        let header = buffer.get(TAG_LEN..end).and_then(|read| read.first_chunk::<VIRTIO_LEN>());
        let Some(offload) = header.map(Offload::parse) else { return Ok(Some(Err(Malformed::Truncated))) };
        let begin = TAG_LEN + VIRTIO_LEN;
        let Some(tag) = tag else {
            let frame = buffer.get_mut(begin..end).unwrap_or_default();
            return Ok(Some(offload.map(|offload| Captured { frame, offload })));
        };
        if end < begin + ADDRESSES {
            return Ok(Some(Err(Malformed::Truncated)));
        }
        let tagged = begin - TAG_LEN;
        buffer.copy_within(begin..begin + ADDRESSES, tagged);
        if let Some(place) = buffer.get_mut(tagged + ADDRESSES..begin + ADDRESSES) {
            place.copy_from_slice(&tag);
        }
        let frame = buffer.get_mut(tagged..end).unwrap_or_default();
        Ok(Some(offload.map(|offload| Captured { frame, offload: behind_tag(offload) })))
    }

    /// See [`super::capture::Capture::write`].
    pub fn write(&mut self, offload: &Offload, parts: &[&[u8]]) -> io::Result<()> {
        inject(&self.socket, offload, parts)
    }
}

/// A socket that only sends. See the head of this file.
pub struct Injector(OwnedFd);

impl Injector {
    /// Sends out of the interface `name` of the calling thread's network namespace. Errors: ENODEV, EPERM without CAP_NET_RAW.
    pub fn open(name: &str) -> io::Result<Injector> {
        let socket = open_deaf()?;
        // Of no protocol still: it hears nothing.
        bind(&socket, index_of(name)?, 0)?;
        Ok(Injector(socket))
    }

    /// See [`super::capture::Capture::write`].
    pub fn write(&self, offload: &Offload, parts: &[&[u8]]) -> io::Result<()> {
        inject(&self.0, offload, parts)
    }
}

/// Whether there are sockets that send with virtio headers, as far as can be known without an interface. The error says what to do.
pub fn can_inject() -> Result<(), String> {
    open_deaf().map(drop).map_err(|why| format!("no socket of AF_PACKET with virtio headers (PACKET_VNET_HDR): {why}"))
}

/// Keeps from a socket what others send out of its interface, which its filter would else have to throw away.
pub fn ignore_outgoing(socket: &impl AsFd) {
    // Before Linux 4.20 the filter alone does it.
    let _ = set(socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1);
}

fn inject(socket: &OwnedFd, offload: &Offload, parts: &[&[u8]]) -> io::Result<()> {
    let header = offload.emit();
    let mut slices = [IoSlice::new(&[]); 1 + PARTS_MAX];
    let Some(slices) = slices.get_mut(..1 + parts.len()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    for (slice, part) in slices.iter_mut().zip([&header[..]].iter().chain(parts)) {
        *slice = IoSlice::new(part);
    }
    nix::sys::uio::writev(socket, slices).map(|_| ()).map_err(io::Error::from)
}

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The same work on a frame that has a tag now.
fn behind_tag(Offload { checksum, gso }: Offload) -> Offload {
    let more = TAG_LEN as u16;
    let later = |at: u16| at.saturating_add(more);
    Offload {
        checksum: checksum.map(|partial| Partial { start: later(partial.start), ..partial }),
        gso: gso.map(|gso| Gso { headers: later(gso.headers), ..gso }),
    }
}

/// A socket of no protocol, that hears nothing before it is bound, with virtio headers.
fn open_deaf() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made just now and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND)?;
    Ok(socket)
}

fn index_of(name: &str) -> io::Result<i32> {
    i32::try_from(if_nametoindex(name)?).map_err(io::Error::other)
}

/// Binds a socket to an interface and to an ether type in the byte order of the network; 0: none.
fn bind(socket: &OwnedFd, index: i32, ether_type: u16) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain old data for which zeroes are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    (address.sll_family, address.sll_protocol, address.sll_ifindex) = (libc::AF_PACKET as u16, ether_type, index);
    // SAFETY: the kernel reads a sockaddr_ll of just this length, which outlives the call.
    let bound = unsafe {
        let length = size_of_val(&address) as libc::socklen_t;
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length)
    };
    if bound == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn open_one(name: &str, wish: Wish<'_>) -> io::Result<Raw> {
    let socket = open_deaf()?;
    set(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1)?;
    ignore_outgoing(&socket);
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &RECEIVE)?;
    sieve::attach(&socket, wish.deaf_to, Part::All)?;
    let index = index_of(name)?;
    // SAFETY: packet_mreq is plain old data for which zeroes are valid.
    let mut member: libc::packet_mreq = unsafe { std::mem::zeroed() };
    (member.mr_ifindex, member.mr_type) = (index, libc::PACKET_MR_PROMISC as u16);
    set(&socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &member)?;
    bind(&socket, index, ALL)?;
    let features = Features { multi_queue: wish.queues > 1, ..features(wish.offload) };
    Ok(Raw { socket, features })
}

/// What the kernel leaves to a socket and takes from it, on whatever interface; nothing if not `wanted`.
pub fn features(wanted: bool) -> Features {
    Features { checksum: wanted, tso: wanted, uso: wanted && knows_udp_super_frames(), ..Features::default() }
}

/// The virtio header has had a word for super-frames of UDP since Linux 6.2.
fn knows_udp_super_frames() -> bool {
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 2)
}

/// Puts a socket into a fanout group (packet(7), PACKET_FANOUT), a new one if there is none; answers its number.
fn join(socket: &OwnedFd, group: Option<u16>) -> io::Result<u16> {
    let arg = |group: u16, flags: u32| u32::from(group) | (libc::PACKET_FANOUT_HASH | flags) << 16;
    let ask = |arg: u32| set(socket, libc::SOL_PACKET, libc::PACKET_FANOUT, &arg);
    if let Some(group) = group {
        return ask(arg(group, 0)).map(|()| group);
    }
    // The kernel chooses a number (Linux 4.12).
    ask(arg(0, libc::PACKET_FANOUT_FLAG_UNIQUEID))?;
    let (mut chosen, mut length) = (0u32, size_of::<u32>() as libc::socklen_t);
    // SAFETY: the kernel writes at most `length` bytes, the size of `chosen`; both outlive the call.
    let asked = unsafe {
        let into = (&raw mut chosen).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_FANOUT, into, &raw mut length)
    };
    if asked == 0 { Ok((chosen & 0xffff) as u16) } else { Err(io::Error::last_os_error()) }
}

fn set<T>(socket: &impl AsFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads at most the size of `value`, which is plain old data of the kind that the option takes.
    let done = unsafe {
        let length = size_of::<T>() as libc::socklen_t;
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, (value as *const T).cast(), length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

struct Received {
    length: usize,
    /// Longer than the buffer.
    cut: bool,
    /// The tag that the kernel took out, as it was.
    tag: Option<[u8; TAG_LEN]>,
}

/// Room for one control message with tpacket_auxdata, aligned as those are.
#[repr(C, align(8))]
struct Control([u8; 64]);

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = Control([0; 64]);
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is plain old data for which zeroes are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut slice, 1);
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: the message points to memory of the stated lengths that is ours alone and outlives the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let cut = message.msg_flags & libc::MSG_TRUNC != 0;
    let mut tag = None;
    // SAFETY: the kernel filled the control buffer with whole messages and told its length in `message`; the first one is read
    // only if it is there and has the size of tpacket_auxdata, without regard to alignment.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(&raw const message);
        let wanted = libc::CMSG_LEN(size_of::<libc::tpacket_auxdata>() as u32) as usize;
        if !first.is_null()
            && ((*first).cmsg_level, (*first).cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA)
            && (*first).cmsg_len as usize >= wanted
        {
            let told = libc::CMSG_DATA(first).cast::<libc::tpacket_auxdata>().read_unaligned();
            if told.tp_status & VLAN_VALID != 0 {
                let kind = if told.tp_status & VLAN_TPID_VALID != 0 { told.tp_vlan_tpid } else { 0x8100 };
                let ([k0, k1], [t0, t1]) = (kind.to_be_bytes(), told.tp_vlan_tci.to_be_bytes());
                tag = Some([k0, k1, t0, t1]);
            }
        }
    }
    Ok(Received { length, cut, tag })
}

#[cfg(test)]
mod tests;
