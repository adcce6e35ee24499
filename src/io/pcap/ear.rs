//! One handle of the library: a ring between kernel and us, whose slots are all as large as the longest frame.

use super::library::{DLT_EN10MB, Handle, Header, Library, PCAP_D_IN, PCAP_ERRBUF_SIZE, Stats, error, text};
use crate::wire::Malformed;
use std::ffi::{CString, c_char, c_int, c_uchar};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;

/// For a handle that only sends.
const RING_UNUSED: c_int = 64 << 10;
const SNAP_UNUSED: c_int = 64;

/// What a handle hears.
#[derive(Debug, Clone, Copy)]
pub struct Hears {
    /// Bytes of the longest frame; what is longer is lost.
    pub longest: usize,
    /// Bytes of the ring.
    pub ring: c_int,
}

/// See the head of this file.
pub struct Ear {
    library: &'static Library,
    handle: NonNull<Handle>,
    fd: RawFd,
    dropped: u32,
}

// SAFETY: a handle is used by one thread at a time (pcap(3PCAP)), which exclusive access through `&mut` makes sure of.
unsafe impl Send for Ear {}

impl Ear {
    /// On the Ethernet device `name`, which must exist and be up, in the network namespace of the calling thread; `None`: it only
    /// sends. The error is one line.
    pub fn open(library: &'static Library, name: &str, hears: Option<Hears>) -> Result<Ear, String> {
        let device = CString::new(name).map_err(|_| "not a name".to_string())?;
        let mut why: [c_char; PCAP_ERRBUF_SIZE] = [0; PCAP_ERRBUF_SIZE];
        // SAFETY: the name is terminated and the buffer for errors as large as the library wants it.
        let handle = unsafe { (library.create)(device.as_ptr(), why.as_mut_ptr()) };
        // SAFETY: the library terminates what it writes, and the buffer began with zeros.
        let handle = NonNull::new(handle).ok_or_else(|| unsafe { text(why.as_ptr()) })?;
        let mut ear = Ear { library, handle, fd: -1, dropped: 0 };
        let p = handle.as_ptr();
        let (snap, ring) = match hears {
            None => (SNAP_UNUSED, RING_UNUSED),
            Some(Hears { longest, ring }) => (c_int::try_from(longest).unwrap_or(c_int::MAX), ring),
        };
        // SAFETY: the handle is ours, created and not yet activated for the first five calls, as the library wants them.
        unsafe {
            (library.set_snaplen)(p, snap);
            (library.set_promisc)(p, hears.is_some().into());
            (library.set_immediate_mode)(p, 1);
            (library.set_buffer_size)(p, ring);
            let done = (library.activate)(p);
            if done < 0 {
                let (status, details) = (text((library.statustostr)(done)), ear.error());
                return Err(if details.is_empty() || details == status { status } else { details });
            }
            if (library.setnonblock)(p, 1, why.as_mut_ptr()) < 0 {
                return Err(text(why.as_ptr()));
            }
            if (library.datalink)(p) != DLT_EN10MB {
                return Err("it is no Ethernet interface".to_string());
            }
            if (library.setdirection)(p, PCAP_D_IN) < 0 {
                return Err(ear.error());
            }
            ear.fd = (library.get_selectable_fd)(p);
        }
        if ear.fd < 0 {
            return Err("it cannot be waited for".to_string());
        }
        Ok(ear)
    }

    /// Frames that the ring had no room for, since this was last asked.
    pub fn dropped(&mut self) -> u64 {
        let mut stats = Stats::default();
        // SAFETY: the handle is active, and `stats` has the layout of pcap_stat and outlives the call.
        if unsafe { (self.library.stats)(self.handle.as_ptr(), &raw mut stats) } != 0 {
            return 0;
        }
        stats.dropped.wrapping_sub(std::mem::replace(&mut self.dropped, stats.dropped)).into()
    }

    /// Throws away what was captured; ends when nothing is, so nothing may come in meanwhile.
    pub fn empty(&mut self) -> io::Result<()> {
        loop {
            match self.read(&mut []) {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(why) if why.kind() != io::ErrorKind::InvalidData => return Err(why),
                _ => {}
            }
        }
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let length = c_int::try_from(frame.len()).map_err(io::Error::other)?;
        // SAFETY: the handle is active, and the frame has that many bytes.
        match unsafe { (self.library.sendpacket)(self.handle.as_ptr(), frame.as_ptr(), length) } {
            0 => Ok(()),
            _ => Err(io::Error::other(self.error())),
        }
    }

    fn error(&self) -> String {
        error(self.library, self.handle)
    }
}

impl Read for Ear {
    /// The next frame's length; it is at the start of `buffer`. WouldBlock: none waits. InvalidData: it was cut off, and is lost.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut taken = Taken { buffer, read: None };
        // SAFETY: the handle is active, and `take` is given what it wants: `taken`, which outlives the call and is not used by
        // others meanwhile.
        let count = unsafe { (self.library.dispatch)(self.handle.as_ptr(), 1, take, (&raw mut taken).cast()) };
        match taken.read {
            _ if count < 0 => Err(io::Error::other(self.error())),
            None => Err(io::ErrorKind::WouldBlock.into()),
            Some(Ok(length)) => Ok(length),
            // A bare kind: nothing is allocated for a frame, whatever it is.
            Some(Err(_)) => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Where a frame is put, and what became of it.
struct Taken<'b> {
    buffer: &'b mut [u8],
    read: Option<Result<usize, Malformed>>,
}

/// Copies a frame out of the ring, once: pcap_next_ex would copy it to a place of the library's before.
///
/// # Safety
/// `taken` is a [`Taken`] of the caller's; `header` and what it says of `bytes` are valid for the call.
unsafe extern "C" fn take(taken: *mut c_uchar, header: *const Header, bytes: *const c_uchar) {
    if header.is_null() || bytes.is_null() {
        return;
    }
    // SAFETY: as the caller promises.
    let (taken, header) = unsafe { (&mut *taken.cast::<Taken>(), &*header) };
    // SAFETY: so many bytes were captured.
    let frame = unsafe { std::slice::from_raw_parts(bytes, header.captured as usize) };
    taken.read = Some(match taken.buffer.get_mut(..frame.len()) {
        Some(into) if header.captured == header.length => {
            into.copy_from_slice(frame);
            Ok(frame.len())
        }
        _ => Err(Malformed::TooLong),
    });
}

impl Drop for Ear {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and not used any more.
        unsafe { (self.library.close)(self.handle.as_ptr()) }
    }
}

impl AsRawFd for Ear {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the handle's, which lives as long as this.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}
