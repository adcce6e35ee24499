//! A network's capture port: where frames leave the bridge for rnet and come back.
//!
//! Owns the choice between the back ends; each is a file of its own. Frames are whole Ethernet frames of 14 to
//! 65,549 bytes without FCS. Beside each goes what is left to do on it: the kernel may leave checksums and the cutting of
//! super-frames to us, and takes frames back so; libpcap says nothing of it when it captures (on our own pairs `host` has the
//! kernel complete what is captured, or `marking` say it). What is done about it is `plane::offload`'s. Neither call ever blocks; readiness comes
//! from poll(2) on the descriptor. Dropping a capture closes it; a TAP's device goes with its last queue.

pub use super::tap::Features;

use crate::wire::Malformed;
use crate::wire::frame::SUPER_FRAME_MAX;
use crate::wire::virtio::{Offload, VIRTIO_LEN};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Bytes that a read's buffer must hold: the largest super-frame, the header before it, and room for a tag.
pub const CAPTURE_MAX: usize = super::raw::TAG_LEN + VIRTIO_LEN + SUPER_FRAME_MAX;

/// Parts that a written frame may be in: headers and 64 segments, and one to spare.
pub const PARTS_MAX: usize = 66;

/// How frames are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CaptureKind {
    /// A TAP device: needs /dev/net/tun.
    #[default]
    Tap,
    /// AF_PACKET on one end of a veth pair: as fast, needs no /dev/net/tun.
    Packet,
    /// libpcap on one end of a veth pair, AF_PACKET for what goes back: slower, needs no /dev/net/tun.
    Pcap,
}

/// How a network's capture port is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// By what.
    pub kind: CaptureKind,
    /// Queues, at least 1. With pcap one of them hears and all can send.
    pub queues: usize,
    /// Whether the kernel may leave checksums and super-frames to us. False: every frame comes complete.
    pub offload: bool,
}

impl Options {
    /// One queue, every frame complete.
    pub fn plain(kind: CaptureKind) -> Options {
        Options { kind, queues: 1, offload: false }
    }
}

/// A frame from the bridge.
#[derive(Debug, PartialEq, Eq)]
pub struct Captured<'b> {
    /// The whole Ethernet frame, in the buffer that was read into.
    pub frame: &'b mut [u8],
    /// What the kernel left to do on it. Not checked against the frame.
    pub offload: Offload,
}

/// An open capture port: one queue of it.
pub enum Capture {
    /// See [`super::tap`].
    Tap(super::tap::Tap),
    /// See [`super::raw`].
    Raw(super::raw::Raw),
    /// See [`super::pcap`].
    Pcap(super::pcap::Pcap),
}

impl Capture {
    /// What the port's kernel leaves to us and takes from us; with pcap it leaves nothing, or does not tell.
    pub fn features(&self) -> Features {
        match self {
            Capture::Tap(tap) => tap.features(),
            Capture::Raw(raw) => raw.features(),
            Capture::Pcap(pcap) => pcap.features(),
        }
    }

    /// Frames to be read before other ports have their turn. By libpcap most are of Ethernet's size at most, and a turn of 64 would
    /// end amid what one send takes.
    pub fn burst(&self) -> usize {
        match self {
            Capture::Tap(_) | Capture::Raw(_) => 64,
            Capture::Pcap(_) => 192,
        }
    }

    /// The device whose queue frames wait in, if that counts those that it had no room for; else [`Capture::dropped`] tells.
    pub fn device(&self) -> Option<&str> {
        match self {
            Capture::Tap(tap) => Some(tap.name()),
            Capture::Raw(_) | Capture::Pcap(_) => None,
        }
    }

    /// Frames that this queue had no room for since this was last asked, where no device counts them.
    pub fn dropped(&mut self) -> u64 {
        match self {
            Capture::Tap(_) => 0,
            Capture::Raw(raw) => raw.dropped(),
            Capture::Pcap(pcap) => pcap.dropped(),
        }
    }

    /// The next captured frame, or nothing if none waits. `buffer` should hold [`CAPTURE_MAX`] bytes; a longer frame is cut.
    /// `Malformed` concerns that frame only: it is lost. An error means that the device is gone or down (EBADFD, EIO):
    /// close the port, or try again when it is up.
    pub fn read<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<Result<Captured<'b>, Malformed>>> {
        match self {
            Capture::Tap(tap) => tap.read(buffer),
            Capture::Raw(raw) => raw.read(buffer),
            Capture::Pcap(pcap) => pcap.read(buffer),
        }
    }

    /// Gives one frame, in at most [`PARTS_MAX`] parts, to the bridge. An error concerns this frame only: it is to be counted as
    /// lost. `Unsupported`: with pcap and without offloads nothing may be left to do. EINVAL: to the kernel `offload` does not fit the frame.
    pub fn write(&mut self, offload: &Offload, parts: &[&[u8]]) -> io::Result<()> {
        match self {
            Capture::Tap(tap) => tap.write(offload, parts),
            Capture::Raw(raw) => raw.write(offload, parts),
            Capture::Pcap(pcap) => pcap.write(offload, parts),
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
            Capture::Raw(raw) => raw.as_raw_fd(),
            Capture::Pcap(pcap) => pcap.as_raw_fd(),
        }
    }
}
