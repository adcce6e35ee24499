//! libpcap on one end of a veth pair as a capture port, where there is no /dev/net/tun.
//!
//! Owns the capture handle. The other end of the pair is a port of the bridge; what the bridge sends out there arrives here
//! (inbound only: our own frames are not captured again). Immediate mode: each frame is readable when it arrives. Slow by
//! nature: a copy per frame and no segmentation; and senders must complete checksums themselves (`ethtool`).

use pcap::{Active, Direction, Error};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// See the head of this file.
pub struct Pcap(pcap::Capture<Active>);

/// Ring between kernel and us, bytes.
const RING: i32 = 4 << 20;

impl Pcap {
    /// Captures on the device `name`, which must exist and be up, in the network namespace of the calling thread.
    pub fn open(name: &str) -> io::Result<Pcap> {
        let open = || {
            let capture = pcap::Capture::from_device(name)?
                .promisc(true)
                .immediate_mode(true)
                .snaplen(super::capture::FRAME_MAX as i32)
                .buffer_size(RING)
                .open()?
                .setnonblock()?;
            capture.direction(Direction::In)?;
            Ok(Pcap(capture))
        };
        open().map_err(|e: Error| io::Error::other(format!("pcap on {name}: {e}")))
    }

    /// See [`super::capture::Capture::read`].
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.0.next_packet() {
            Ok(packet) => {
                let length = packet.data.len().min(buffer.len());
                buffer[..length].copy_from_slice(&packet.data[..length]);
                Ok(Some(length))
            }
            Err(Error::TimeoutExpired | Error::NoMorePackets) => Ok(None),
            Err(e) => Err(io::Error::other(e)),
        }
    }

    /// See [`super::capture::Capture::write`].
    pub fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.sendpacket(frame).map_err(io::Error::other)
    }
}

impl AsRawFd for Pcap {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
