//! A network's capture port: where frames leave the bridge for rnet and come back.
//!
//! Owns the choice between the two back ends; each is a file of its own. Frames are whole Ethernet frames of 14 to
//! 65,535 bytes without FCS and without any header before them, checksums complete (a plain TAP's kernel completes them;
//! `host` switches the offload off for pcap). Neither call ever blocks; readiness comes from poll(2) on the descriptor.
//! Dropping a capture closes it; a TAP's device goes with it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Largest frame that is read or written, bytes.
pub const FRAME_MAX: usize = 65_535;

/// How frames are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CaptureKind {
    /// A TAP device: needs /dev/net/tun.
    #[default]
    Tap,
    /// libpcap on one end of a veth pair: slower, needs no /dev/net/tun.
    Pcap,
}

impl CaptureKind {
    /// TAP where /dev/net/tun exists, else pcap. Errors: neither is there; the line says what to do.
    pub fn available() -> Result<CaptureKind, String> {
        if std::path::Path::new("/dev/net/tun").exists() {
            Ok(CaptureKind::Tap)
        } else if cfg!(feature = "pcap") {
            Ok(CaptureKind::Pcap)
        } else {
            Err("/dev/net/tun is missing and this rnet is built without pcap: load the kernel module tun (modprobe tun)".into())
        }
    }
}

/// An open capture port.
pub enum Capture {
    /// See [`super::tap`].
    Tap(super::tap::Tap),
    /// See [`super::pcap`].
    #[cfg(feature = "pcap")]
    Pcap(super::pcap::Pcap),
}

impl Capture {
    /// The next captured frame, or nothing if none waits. `buffer` should hold [`FRAME_MAX`] bytes; a longer frame is cut.
    /// An error means that the device is gone or down (EBADFD, EIO): close the port, or try again when it is up.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Capture::Tap(tap) => tap.read(buffer),
            #[cfg(feature = "pcap")]
            Capture::Pcap(pcap) => pcap.read(buffer),
        }
    }

    /// Gives one frame to the bridge. An error concerns this frame only: it is to be counted as lost.
    pub fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        match self {
            Capture::Tap(tap) => tap.write(frame),
            #[cfg(feature = "pcap")]
            Capture::Pcap(pcap) => pcap.write(frame),
        }
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the back end's own, open for as long as the capture that is borrowed here lives.
        unsafe { BorrowedFd::borrow_raw(self.as_raw_fd()) }
    }
}

impl AsRawFd for Capture {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Capture::Tap(tap) => tap.as_raw_fd(),
            #[cfg(feature = "pcap")]
            Capture::Pcap(pcap) => pcap.as_raw_fd(),
        }
    }
}
