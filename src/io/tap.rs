//! A TAP device as a capture port, through the `tun-tap` crate.
//!
//! Owns the descriptor of /dev/net/tun. The device is not persistent: it lives exactly as long as the descriptor, so
//! that no TAP is left of a router that was killed, and a TAP that stands is proof of a living one. MTU, bridge and state
//! are set by `netlink`. The crate makes a plain TAP (IFF_TAP | IFF_NO_PI): no virtio header, so the kernel completes
//! checksums and cuts super-frames before they get here (README, dependencies).
//!
//! Trap: never call TUNSETOFFLOAD on this descriptor. It succeeds, and super-frames then arrive without the header
//! that says so.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use tun_tap::{Iface, Mode};

/// See the head of this file.
pub struct Tap(Iface);

impl Tap {
    /// Makes the device `name` (at most 15 bytes) in the network namespace of the calling thread, down, MTU 1500.
    ///
    /// Errors: no /dev/net/tun (NotFound), no CAP_NET_ADMIN (PermissionDenied), the name is taken by another kind of
    /// device (InvalidInput) or by a TAP in use (ResourceBusy).
    pub fn create(name: &str) -> io::Result<Tap> {
        let iface = Iface::without_packet_info(name, Mode::Tap)?;
        if iface.name() != name {
            return Err(io::Error::other(format!("the kernel named the TAP {} and not {name}", iface.name())));
        }
        // SAFETY: `iface` owns this open descriptor and outlives the borrow, which ends with this statement's block.
        let fd = unsafe { BorrowedFd::borrow_raw(iface.as_raw_fd()) };
        let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
        fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Tap(iface))
    }

    /// See [`super::capture::Capture::read`].
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.0.recv(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// See [`super::capture::Capture::write`].
    pub fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame).map(|_| ())
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
