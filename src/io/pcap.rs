//! libpcap as a capture port: the portable way, where there are no TAPs and for whom AF_PACKET is not to be had to capture by.
//!
//! Owns the handles (`ear`), what they hear, and how frames go out. The library (`library`) is loaded when the first capture is
//! opened and not linked: a router that captures otherwise starts without it, and none is needed to build. Promiscuous, immediate mode
//! (each frame is readable when it arrives), inbound only; what else is kept out is `sieve`'s, by the descriptor, as with AF_PACKET.
//!
//! libpcap tells nothing of what the kernel left to do on a frame. On an interface that is not ours frames come `bare`
//! (`plane::uplink` finds out what can be). On our own pairs the kernel completes frames before they get here (`host::plan`),
//! all but super-frames of TCP: those come `marked` with what libpcap does not tell, where the kernel takes our program for it.
//!
//! A ring has slots as large as the longest frame, so one for super-frames is large, or holds few. So there are two, read in `turns`:
//!
//! ```text
//! TCP, super-frames among it     512 slots of 64 KiB      a flow has all its frames in one ring, in their order
//! everything else                2,048 of the MTU         small packets come in crowds
//! ```
//!
//! Frames that go take another way where they can: an [`Injector`] beside the library's socket, by which super-frames and
//! unfinished checksums leave in one call. pcap_sendpacket takes one complete frame a call, which was half of all processor
//! time of a TCP stream (46 %; and frames that arrive alone cost bridge and receiver as much again). It is used where
//! offloads are off.

mod ear;
mod library;

use super::capture::{Captured, Features};
use super::marking::Marking;
use super::raw::{self, Injector};
use super::sieve::{self, Part};
use super::turns::Turns;
use crate::wire::frame::FRAME_MAX;
use crate::wire::virtio::Offload;
use crate::wire::{Malformed, mark};
use ear::{Ear, Hears};
use library::{Library, library};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// Bytes that hold every super-frame which Linux makes, in slots of 64 KiB with what libpcap puts before it.
pub const SUPER: usize = 65_536 - 128;

/// Ring between kernel and us, bytes: 2,048 frames of Ethernet's size, or 512 super-frames. With 8 MB nothing was faster, with 2 MB
/// small packets were lost sooner.
const RING: i32 = 4 << 20;
const RING_OF_SUPER: i32 = 32 << 20;

/// Whether libpcap can be had. The error is one line that says what to do.
pub fn available() -> Result<(), String> {
    library().map(drop)
}

/// How an interface is to be captured.
pub struct Wish<'a> {
    /// Bytes of the longest frame that matters, but for marked ones; what is longer is lost.
    pub longest: usize,
    /// Handles: the first one hears, the others only send. At least 1.
    pub queues: usize,
    /// Frames go out by an [`Injector`], with whatever is left to do on them; else complete ones, by the library.
    pub offload: bool,
    /// Not captured: see [`sieve`].
    pub deaf_to: &'a [u16],
    /// What marks super-frames of TCP here, if anything does.
    pub marking: Option<Marking>,
}

/// What one thread has of an interface. See the head of this file.
pub struct Pcap {
    ears: Turns<Ear>,
    longest: usize,
    /// Super-frames come marked while this is held.
    marking: Option<Marking>,
    out: Out,
}

/// How frames go out.
enum Out {
    Injector(Injector),
    /// By the library, and where a frame in parts becomes one: it has no vectored write.
    Library(Box<[u8]>),
}

impl Pcap {
    /// Captures on the Ethernet device `name`, which must exist and be up, in the network namespace of the calling thread. The error
    /// is one line.
    pub fn open(name: &str, wish: Wish<'_>) -> Result<Vec<Pcap>, String> {
        let failed = |why: &dyn std::fmt::Display| format!("pcap on {name}: {why}");
        let library = library()?;
        let Wish { longest, queues, offload, deaf_to, mut marking } = wish;
        let longest = longest.min(SUPER);
        let mut all = Vec::new();
        for number in 0..queues.max(1) {
            let out = if offload { Out::Injector(injector(name)?) } else { Out::Library(vec![0; FRAME_MAX].into()) };
            let marking = marking.take();
            let ears = match number {
                0 => hearing(library, name, longest, deaf_to, marking.is_some()),
                _ => deaf(library, name),
            };
            all.push(Pcap { ears: ears.map_err(|why| failed(&why))?, longest, marking, out });
        }
        Ok(all)
    }

    /// What may be left to do on a frame that goes. On those that come only a mark tells.
    pub fn features(&self) -> Features {
        raw::features(matches!(self.out, Out::Injector(_)))
    }

    /// Bytes of the longest frame that is captured whole, but for marked ones.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Frames that the rings had no room for, since this was last asked.
    pub fn dropped(&mut self) -> u64 {
        self.ears.all().map(Ear::dropped).sum()
    }

    /// A descriptor of the same socket, by which its filter can be replaced; of the first, where there are two.
    pub fn handle(&mut self) -> io::Result<OwnedFd> {
        self.ears.first().as_fd().try_clone_to_owned()
    }

    /// The next frame. `TooLong`: it was cut off, and is lost. See [`super::capture::Capture::read`].
    pub fn read<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<Result<Captured<'b>, Malformed>>> {
        let length = match self.ears.read(buffer) {
            Ok(length) => length,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => return Ok(Some(Err(Malformed::TooLong))),
            Err(e) => return Err(e),
        };
        let frame = buffer.get_mut(..length).unwrap_or_default();
        let offload = if self.marking.is_some() { mark::remove(frame) } else { Ok(Offload::NONE) };
        Ok(Some(offload.map(|offload| Captured { frame, offload })))
    }

    /// See [`super::capture::Capture::write`]. By the library: `Unsupported` where something is left to do, `InvalidInput` for a frame
    /// that is too long.
    pub fn write(&mut self, offload: &Offload, parts: &[&[u8]]) -> io::Result<()> {
        let whole = match &mut self.out {
            Out::Injector(injector) => return injector.write(offload, parts),
            Out::Library(_) if *offload != Offload::NONE => return Err(io::ErrorKind::Unsupported.into()),
            Out::Library(whole) => whole,
        };
        if let [frame] = parts {
            return self.ears.first().send(frame);
        }
        let mut end = 0;
        for part in parts {
            let room = whole.get_mut(end..end + part.len()).ok_or(io::ErrorKind::InvalidInput)?;
            room.copy_from_slice(part);
            end += part.len();
        }
        self.ears.first().send(&whole[..end])
    }
}

/// One that hears all, or, where super-frames are marked, two that share it.
fn hearing(
    library: &'static Library,
    name: &str,
    longest: usize,
    deaf_to: &[u16],
    marked: bool,
) -> Result<Turns<Ear>, String> {
    let ring = if longest < 10_000 { RING } else { RING_OF_SUPER };
    let hear = |hears, part| {
        let mut ear = Ear::open(library, name, Some(hears))?;
        raw::ignore_outgoing(&ear);
        // A handle hears everything until it has its filter: nothing of that is to be taken for what passed it.
        sieve::attach_deaf(&ear).map_err(|why| why.to_string())?;
        ear.empty().map_err(|why| why.to_string())?;
        sieve::attach(&ear, deaf_to, part).map_err(|why| why.to_string())?;
        Ok::<_, String>(ear)
    };
    let all = Hears { longest, ring };
    let (first, others) = if marked {
        let tcp = hear(Hears { longest: SUPER, ring: RING_OF_SUPER }, Part::Tcp)?;
        (hear(all, Part::Rest)?, vec![tcp])
    } else {
        (hear(all, Part::All)?, Vec::new())
    };
    Turns::of(first, others).map_err(|why| why.to_string())
}

fn deaf(library: &'static Library, name: &str) -> Result<Turns<Ear>, String> {
    let ear = Ear::open(library, name, None)?;
    sieve::attach_deaf(&ear).map_err(|why| why.to_string())?;
    raw::ignore_outgoing(&ear);
    Turns::of(ear, Vec::new()).map_err(|why| why.to_string())
}

fn injector(name: &str) -> Result<Injector, String> {
    Injector::open(name).map_err(|why| {
        format!(
            "pcap on {name}: no socket of AF_PACKET to send by: {why}: --offload off has libpcap send, a frame a call"
        )
    })
}

impl AsRawFd for Pcap {
    fn as_raw_fd(&self) -> RawFd {
        self.ears.as_fd().as_raw_fd()
    }
}
