//! A TAP device as a capture port, with the kernel's work left to us where we ask for it.
//!
//! Owns the descriptors of /dev/net/tun, one per queue. Each thread has several queues over which flows are spread
//! (`steering`) and which it reads in `turns`: a question of 64 bytes waits for a few super-frames, not for all that a
//! full stream has in flight. Where the kernel does not let us steer, a thread has one queue, and the kernel spreads flows over
//! threads.
//!
//! The device is not persistent: it lives exactly as long as its last descriptor, so that no TAP is left of a router that was
//! killed, and a TAP that stands is proof of a living one. MTU, bridge and state are set by `netlink`.
//!
//! ```text
//! read, write   | virtio header, 10 | Ethernet frame, 14 to 65,549 |      one frame per call
//! ```
//!
//! The header is always there (IFF_VNET_HDR); what it may say is agreed once for the device (TUNSETOFFLOAD). If nothing is
//! agreed, the kernel completes checksums and cuts super-frames before they get here: four times the CPU per byte.
//!
//! Traps: the header is in the machine's byte order. A second IFF_MULTI_QUEUE open of a name joins the device that is there,
//! another router's too, so the first queue is made with IFF_TUN_EXCL. A UDP super-frame of more than 64 datagrams (128 since
//! Linux 6.9) is refused by the kernel (EINVAL), and is lost whole; one of TCP that is not TCP is not refused.

use super::capture::{Captured, PARTS_MAX};
use super::steering;
use super::turns::{QUEUES_MAX, Turns};
use crate::wire::Malformed;
use crate::wire::virtio::{Offload, VIRTIO_LEN};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

/// What a capture port's kernel leaves to us, and takes from us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// Checksums that are not complete.
    pub checksum: bool,
    /// Super-frames of TCP.
    pub tso: bool,
    /// Super-frames of UDP: at most 64 datagrams (Linux 6.2).
    pub uso: bool,
    /// Several threads can serve the port.
    pub multi_queue: bool,
    /// Flows wait in queues of their own, served in turns.
    pub fair: bool,
}

/// Frames that may wait in each queue. The kernel's 1,000 are 2.5 ms of small packets at 400,000 a second, less than a thread
/// waits for its turn on a busy processor. TCP never fills it: its windows are smaller.
const QUEUE_LEN: libc::c_int = 4096;
/// linux/sockios.h; libc lacks it.
const SIOCSIFTXQLEN: libc::Ioctl = 0x8943;

const CHECKSUM: u32 = libc::TUN_F_CSUM;
const TSO: u32 = CHECKSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
const USO: u32 = TSO | libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// The kernel's limit for a device.
const DEVICE_QUEUES_MAX: usize = 256;

/// What one thread has of a device. See the head of this file.
pub struct Tap {
    name: String,
    queues: Turns<File>,
    features: Features,
}

impl Tap {
    /// Makes the device `name` (at most 15 bytes) in the network namespace of the calling thread, down, MTU 1500, for `threads`
    /// threads (at least one; the kernel allows 256). `wanted`: leave us what we can do better; else every frame comes complete.
    ///
    /// Errors: no /dev/net/tun (NotFound), no CAP_NET_ADMIN (PermissionDenied), the name is taken (ResourceBusy) or is none
    /// (InvalidInput).
    pub fn create(name: &str, threads: usize, wanted: bool) -> io::Result<Vec<Tap>> {
        let threads = threads.max(1);
        let kind = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
        let first = open_queue(name, kind | libc::IFF_TUN_EXCL)?;
        let agreed = agree(wanted, |offloads| {
            // SAFETY: TUNSETOFFLOAD takes its argument by value and writes no memory.
            match unsafe { libc::ioctl(first.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
        lengthen(name)?;
        let most = (DEVICE_QUEUES_MAX / threads).clamp(1, QUEUES_MAX);
        let fair = most > 1 && u32::try_from(threads * most).is_ok_and(|all| steering::steer(&first, all).is_ok());
        let features = Features { multi_queue: threads > 1, fair, ..agreed };
        // The kernel numbers queues as they are opened: that of the rest, 0, is the first thread's.
        let mut queues: Vec<Vec<File>> = (0..threads).map(|_| Vec::new()).collect();
        let mut made = Some(first);
        for _ in 0..if fair { most } else { 1 } {
            for thread in &mut queues {
                thread.push(made.take().map_or_else(|| open_queue(name, kind), Ok)?);
            }
        }
        let of_thread = |mut queues: Vec<File>| {
            let first = queues.remove(0);
            Ok(Tap { name: name.to_string(), queues: Turns::of(first, queues)?, features })
        };
        queues.into_iter().map(of_thread).collect()
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was agreed with the kernel for this device.
    pub fn features(&self) -> Features {
        self.features
    }

    /// See [`super::capture::Capture::read`].
    pub fn read<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<Result<Captured<'b>, Malformed>>> {
        let length = match self.queues.read(buffer) {
            Ok(length) => length,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return Ok(None),
            // A frame that the header has no words for; the kernel has dropped it.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && buffer.len() > VIRTIO_LEN => {
                return Ok(Some(Err(Malformed::Kind)));
            }
            Err(e) => return Err(e),
        };
        let Some((header, frame)) =
            buffer.get_mut(..length).and_then(|read| read.split_first_chunk_mut::<VIRTIO_LEN>())
        else {
            return Ok(Some(Err(Malformed::Truncated)));
        };
        Ok(Some(Offload::parse(header).map(|offload| Captured { frame, offload })))
    }

    /// See [`super::capture::Capture::write`].
    pub fn write(&mut self, offload: &Offload, parts: &[&[u8]]) -> io::Result<()> {
        let header = offload.emit();
        if let [frame] = parts {
            return self.queues.first().write_vectored(&[IoSlice::new(&header), IoSlice::new(frame)]).map(|_| ());
        }
        let mut slices = [IoSlice::new(&[]); 1 + PARTS_MAX];
        let Some(slices) = slices.get_mut(..1 + parts.len()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        for (slice, part) in slices.iter_mut().zip([&header[..]].iter().chain(parts)) {
            *slice = IoSlice::new(part);
        }
        self.queues.first().write_vectored(slices).map(|_| ())
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.queues.as_fd().as_raw_fd()
    }
}

/// Asks for the most first; older kernels refuse the whole of what they do not know in part.
fn agree(wanted: bool, mut ask: impl FnMut(u32) -> io::Result<()>) -> Features {
    let none = Features::default();
    let ladder = [
        (USO, Features { checksum: true, tso: true, uso: true, ..none }),
        (TSO, Features { checksum: true, tso: true, ..none }),
        (CHECKSUM, Features { checksum: true, ..none }),
    ];
    let agreed = ladder.into_iter().filter(|_| wanted).find(|(offloads, _)| ask(*offloads).is_ok());
    agreed.map_or(none, |(_, features)| features)
}

/// A request that names a device.
fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is plain old data for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero. A name with % would be a pattern that the kernel numbers.
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains('%') {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// Gives the queues of the device `name` their length (netdevice(7)).
fn lengthen(name: &str) -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None)?;
    let mut request = request(name)?;
    request.ifr_ifru.ifru_ifindex = QUEUE_LEN;
    // SAFETY: `request` is an ifreq with a terminated name, of which the kernel reads the number; it outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCSIFTXQLEN, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A descriptor that is a queue of the device `name`.
fn open_queue(name: &str, flags: libc::c_int) -> io::Result<File> {
    let mut request = request(name)?;
    // The kernel reads the 16 bits, IFF_TUN_EXCL (0x8000) among them.
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    let queue = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: `request` is an ifreq with a terminated name; it outlives the call.
    match unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } {
        0 => Ok(queue),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests;
