//! libpcap on one end of a veth pair as a capture port, where there is no /dev/net/tun.
//!
//! Owns the capture handle. The other end of the pair is a port of the bridge; what the bridge sends out there arrives here
//! (inbound only: our own frames are not captured again). Immediate mode: each frame is readable when it arrives. Slow by
//! nature: a copy per frame and no segmentation; and senders must complete checksums themselves (`ethtool`).

use crate::wire::frame::FRAME_MAX;
use pcap::{Active, Direction, Error};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// See the head of this file.
pub struct Pcap {
    capture: pcap::Capture<Active>,
    /// Where a frame in parts becomes one: libpcap has no vectored write.
    whole: Box<[u8]>,
}

/// Ring between kernel and us, bytes.
const RING: i32 = 4 << 20;

impl Pcap {
    /// Captures on the device `name`, which must exist and be up, in the network namespace of the calling thread.
    pub fn open(name: &str) -> io::Result<Pcap> {
        let open = || {
            let capture = pcap::Capture::from_device(name)?
                .promisc(true)
                .immediate_mode(true)
                .snaplen(FRAME_MAX as i32)
                .buffer_size(RING)
                .open()?
                .setnonblock()?;
            capture.direction(Direction::In)?;
            Ok(Pcap { capture, whole: vec![0; FRAME_MAX].into_boxed_slice() })
        };
        open().map_err(|e: Error| io::Error::other(format!("pcap on {name}: {e}")))
    }

    /// The next frame's length, or nothing if none waits; it is at the start of `buffer`. See [`super::capture::Capture::read`].
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.capture.next_packet() {
            Ok(packet) => {
                let length = packet.data.len().min(buffer.len());
                buffer[..length].copy_from_slice(&packet.data[..length]);
                Ok(Some(length))
            }
            Err(Error::TimeoutExpired | Error::NoMorePackets) => Ok(None),
            Err(e) => Err(io::Error::other(e)),
        }
    }

    /// See [`super::capture::Capture::write`]. `InvalidInput` for a frame that is too long.
    pub fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        if let [frame] = parts {
            return self.capture.sendpacket(*frame).map_err(io::Error::other);
        }
        let mut end = 0;
        for part in parts {
            let room = self.whole.get_mut(end..end + part.len()).ok_or(io::ErrorKind::InvalidInput)?;
            room.copy_from_slice(part);
            end += part.len();
        }
        self.capture.sendpacket(&self.whole[..end]).map_err(io::Error::other)
    }
}

impl AsRawFd for Pcap {
    fn as_raw_fd(&self) -> RawFd {
        self.capture.as_raw_fd()
    }
}
