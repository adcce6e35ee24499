//! libpcap as a capture port: the portable way, where there are no TAPs and for whom AF_PACKET is not to be had to capture by.
//!
//! Owns the binding to the C library and the handles. The library is loaded when the first capture is opened (dlopen(3)) and not
//! linked: a router that captures otherwise starts without it, and none is needed to build. Promiscuous, immediate mode (each
//! frame is readable when it arrives), inbound only; what else is kept out is `sieve`'s, by the descriptor, as with AF_PACKET.
//!
//! libpcap tells nothing of what the kernel left to do on a frame: frames that come are `bare` (`plane::uplink` finds out what can
//! be), or the kernel is made to complete them before (`host::plan`, on our own pairs). Its ring has slots as large as the longest
//! frame, so what is longer than asked for is lost and a ring for super-frames is large.
//!
//! Frames that go take another way where they can: an [`Injector`] beside the library's socket, by which super-frames and
//! unfinished checksums leave in one call. pcap_sendpacket takes one complete frame a call, which was half of all processor
//! time of a TCP stream (46 %; and frames that arrive alone cost bridge and receiver as much again). It is used where
//! offloads are off.

use super::capture::Features;
use super::raw::{self, Injector};
use super::sieve;
use crate::wire::Malformed;
use crate::wire::frame::FRAME_MAX;
use crate::wire::virtio::Offload;
use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::OnceLock;

/// Bytes that hold every super-frame which Linux makes, in slots of 64 KiB with what libpcap puts before it.
pub const SUPER: usize = 65_536 - 128;

/// Ring between kernel and us, bytes: 2,048 frames of Ethernet's size, or 512 super-frames. With 8 MB nothing was faster, with 2 MB
/// small packets were lost sooner.
const RING: c_int = 4 << 20;
const RING_OF_SUPER: c_int = 32 << 20;
/// For a handle that only sends.
const RING_UNUSED: c_int = 64 << 10;

/// pcap/pcap.h.
const PCAP_D_IN: c_int = 1;
const PCAP_ERRBUF_SIZE: usize = 256;
const DLT_EN10MB: c_int = 1;

/// pcap_t.
#[repr(C)]
struct Handle {
    _opaque: [u8; 0],
}

/// struct pcap_pkthdr.
#[repr(C)]
struct Header {
    at: libc::timeval,
    captured: u32,
    length: u32,
}

/// pcap_handler.
type Handler = unsafe extern "C" fn(*mut c_uchar, *const Header, *const c_uchar);

/// struct pcap_stat.
#[repr(C)]
#[derive(Default)]
struct Stats {
    received: u32,
    dropped: u32,
    by_interface: u32,
}

macro_rules! library {
    ($($name:ident: fn($($argument:ty),*) -> $result:ty,)*) => {
        /// What is used of the library.
        struct Library { $($name: unsafe extern "C" fn($($argument),*) -> $result,)* }

        impl Library {
            fn load() -> Result<Library, String> {
                let library = open_library()?;
                Ok(Library {
                    $($name: {
                        let symbol = concat!("pcap_", stringify!($name), "\0");
                        // SAFETY: the name is terminated, the library stays open for good, and the function has had this
                        // signature in every version of libpcap (pcap(3PCAP)).
                        unsafe {
                            let found = libc::dlsym(library.as_ptr(), symbol.as_ptr().cast());
                            if found.is_null() {
                                let name = symbol.trim_end_matches('\0');
                                return Err(format!("libpcap is too old: it has no {name}: install 1.5 or newer"));
                            }
                            std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) -> $result>(found)
                        }
                    },)*
                })
            }
        }
    };
}

library! {
    create: fn(*const c_char, *mut c_char) -> *mut Handle,
    set_snaplen: fn(*mut Handle, c_int) -> c_int,
    set_promisc: fn(*mut Handle, c_int) -> c_int,
    set_immediate_mode: fn(*mut Handle, c_int) -> c_int,
    set_buffer_size: fn(*mut Handle, c_int) -> c_int,
    activate: fn(*mut Handle) -> c_int,
    setnonblock: fn(*mut Handle, c_int, *mut c_char) -> c_int,
    setdirection: fn(*mut Handle, c_int) -> c_int,
    datalink: fn(*mut Handle) -> c_int,
    get_selectable_fd: fn(*mut Handle) -> c_int,
    dispatch: fn(*mut Handle, c_int, Handler, *mut c_uchar) -> c_int,
    sendpacket: fn(*mut Handle, *const c_uchar, c_int) -> c_int,
    stats: fn(*mut Handle, *mut Stats) -> c_int,
    geterr: fn(*mut Handle) -> *mut c_char,
    statustostr: fn(c_int) -> *const c_char,
    close: fn(*mut Handle) -> (),
}

/// Debian's name first, which is not everybody's.
const NAMES: [&CStr; 2] = [c"libpcap.so.0.8", c"libpcap.so.1"];

fn open_library() -> Result<NonNull<c_void>, String> {
    // SAFETY: the names are terminated; what libpcap does when it is loaded is initialisation of its own.
    let mut found = NAMES.iter().map(|name| unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) });
    found.find_map(NonNull::new).ok_or_else(|| {
        "libpcap is not installed: install it (libpcap0.8 on Debian, libpcap elsewhere), or capture without it (--capture \
         packet)"
            .to_string()
    })
}

/// The library, loaded once. The error is one line that says what to do.
fn library() -> Result<&'static Library, String> {
    static LOADED: OnceLock<Result<Library, String>> = OnceLock::new();
    LOADED.get_or_init(Library::load).as_ref().map_err(String::clone)
}

/// Whether libpcap can be had. The error is one line that says what to do.
pub fn available() -> Result<(), String> {
    library().map(drop)
}

/// How an interface is to be captured.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Bytes of the longest frame that matters; what is longer is lost.
    pub longest: usize,
    /// Handles: the first one hears, the others only send. At least 1.
    pub queues: usize,
    /// Frames go out by an [`Injector`], with whatever is left to do on them; else complete ones, by the library.
    pub offload: bool,
    /// Not captured: see [`sieve`].
    pub deaf_to: &'a [u16],
}

/// One handle. See the head of this file.
pub struct Pcap {
    library: &'static Library,
    handle: NonNull<Handle>,
    fd: RawFd,
    longest: usize,
    dropped: u32,
    out: Out,
}

/// How frames go out.
enum Out {
    Injector(Injector),
    /// By the library, and where a frame in parts becomes one: it has no vectored write.
    Library(Box<[u8]>),
}

// SAFETY: a handle is used by one thread at a time (pcap(3PCAP)), which exclusive access through `&mut` makes sure of.
unsafe impl Send for Pcap {}

impl Pcap {
    /// Captures on the Ethernet device `name`, which must exist and be up, in the network namespace of the calling thread. The error
    /// is one line.
    pub fn open(name: &str, wish: Wish<'_>) -> Result<Vec<Pcap>, String> {
        let failed = |why: &dyn std::fmt::Display| format!("pcap on {name}: {why}");
        let library = library()?;
        let mut all = Vec::new();
        for number in 0..wish.queues.max(1) {
            let hears = number == 0;
            let out =
                if wish.offload { Out::Injector(injector(name)?) } else { Out::Library(vec![0; FRAME_MAX].into()) };
            let pcap = open_one(library, name, (hears, wish.longest), out).map_err(|why| failed(&why))?;
            let sifted = if hears { sieve::attach(&pcap, wish.deaf_to) } else { sieve::attach_deaf(&pcap) };
            sifted.map_err(|why| failed(&why))?;
            raw::ignore_outgoing(&pcap);
            all.push(pcap);
        }
        Ok(all)
    }

    /// What may be left to do on a frame that goes. On those that come nobody tells.
    pub fn features(&self) -> Features {
        raw::features(matches!(self.out, Out::Injector(_)))
    }

    /// Bytes of the longest frame that is captured whole.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Frames that the ring had no room for, since this was last asked.
    pub fn dropped(&mut self) -> u64 {
        let mut stats = Stats::default();
        // SAFETY: the handle is active, and `stats` has the layout of pcap_stat and outlives the call.
        if unsafe { (self.library.stats)(self.handle.as_ptr(), &raw mut stats) } != 0 {
            return 0;
        }
        let new = stats.dropped.wrapping_sub(std::mem::replace(&mut self.dropped, stats.dropped));
        new.into()
    }

    /// A descriptor of the same socket, by which its filter can be replaced.
    pub fn handle(&self) -> io::Result<OwnedFd> {
        self.as_fd().try_clone_to_owned()
    }

    /// The next frame's length, or nothing if none waits; it is at the start of `buffer`. `TooLong`: it was cut off, and is
    /// lost. See [`super::capture::Capture::read`].
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<Result<usize, Malformed>>> {
        let mut taken = Taken { buffer, read: None };
        // SAFETY: the handle is active, and `take` is given what it wants: `taken`, which outlives the call and is not used by others meanwhile.
        let count = unsafe { (self.library.dispatch)(self.handle.as_ptr(), 1, take, (&raw mut taken).cast()) };
        if count < 0 { Err(io::Error::other(self.error())) } else { Ok(taken.read) }
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
            return send(self.library, self.handle, frame);
        }
        let mut end = 0;
        for part in parts {
            let room = whole.get_mut(end..end + part.len()).ok_or(io::ErrorKind::InvalidInput)?;
            room.copy_from_slice(part);
            end += part.len();
        }
        send(self.library, self.handle, &whole[..end])
    }

    fn error(&self) -> String {
        error(self.library, self.handle)
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

fn send(library: &Library, handle: NonNull<Handle>, frame: &[u8]) -> io::Result<()> {
    let length = c_int::try_from(frame.len()).map_err(io::Error::other)?;
    // SAFETY: the handle is active, and the frame has that many bytes.
    match unsafe { (library.sendpacket)(handle.as_ptr(), frame.as_ptr(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::other(error(library, handle))),
    }
}

/// Why the last call on a handle failed.
fn error(library: &Library, handle: NonNull<Handle>) -> String {
    // SAFETY: the handle's error text is terminated and valid until the next call on it; it is copied.
    unsafe { text((library.geterr)(handle.as_ptr())) }
}

fn injector(name: &str) -> Result<Injector, String> {
    Injector::open(name).map_err(|why| {
        format!(
            "pcap on {name}: no socket of AF_PACKET to send by: {why}: --offload off has libpcap send, a frame a call"
        )
    })
}

impl Drop for Pcap {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and not used any more.
        unsafe { (self.library.close)(self.handle.as_ptr()) }
    }
}

impl AsRawFd for Pcap {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl AsFd for Pcap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the handle's, which lives as long as this.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

/// A C text of the library.
///
/// # Safety
/// `text` is null or terminated and valid for the call.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return "unknown error".to_string();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn open_one(library: &'static Library, name: &str, (hears, longest): (bool, usize), out: Out) -> Result<Pcap, String> {
    let device = CString::new(name).map_err(|_| "not a name".to_string())?;
    let mut why: [c_char; PCAP_ERRBUF_SIZE] = [0; PCAP_ERRBUF_SIZE];
    // SAFETY: the name is terminated and the buffer for errors as large as the library wants it.
    let handle = unsafe { (library.create)(device.as_ptr(), why.as_mut_ptr()) };
    // SAFETY: the library terminates what it writes, and the buffer began with zeros.
    let handle = NonNull::new(handle).ok_or_else(|| unsafe { text(why.as_ptr()) })?;
    let longest = longest.min(SUPER);
    let mut pcap = Pcap { library, handle, fd: -1, longest, dropped: 0, out };
    let ring = match (hears, longest) {
        (false, _) => RING_UNUSED,
        (true, ..10_000) => RING,
        (true, _) => RING_OF_SUPER,
    };
    let p = handle.as_ptr();
    let snap = if hears { longest as c_int } else { 64 };
    // SAFETY: the handle is ours, created and not yet activated for the first five calls, as the library wants them.
    unsafe {
        (library.set_snaplen)(p, snap);
        (library.set_promisc)(p, hears.into());
        (library.set_immediate_mode)(p, 1);
        (library.set_buffer_size)(p, ring);
        let done = (library.activate)(p);
        if done < 0 {
            let (status, details) = (text((library.statustostr)(done)), pcap.error());
            return Err(if details.is_empty() || details == status { status } else { details });
        }
        if (library.setnonblock)(p, 1, why.as_mut_ptr()) < 0 {
            return Err(text(why.as_ptr()));
        }
        if (library.datalink)(p) != DLT_EN10MB {
            return Err("it is no Ethernet interface".to_string());
        }
        if (library.setdirection)(p, PCAP_D_IN) < 0 {
            return Err(pcap.error());
        }
        pcap.fd = (library.get_selectable_fd)(p);
    }
    if pcap.fd < 0 {
        return Err("it cannot be waited for".to_string());
    }
    Ok(pcap)
}
