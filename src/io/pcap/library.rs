//! The binding to the C library: what is used of it, loaded (dlopen(3)) when it is first asked for.

use std::ffi::{CStr, c_char, c_int, c_uchar, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

/// pcap/pcap.h.
pub const PCAP_D_IN: c_int = 1;
pub const PCAP_ERRBUF_SIZE: usize = 256;
pub const DLT_EN10MB: c_int = 1;

/// pcap_t.
#[repr(C)]
pub struct Handle {
    _opaque: [u8; 0],
}

/// struct pcap_pkthdr.
#[repr(C)]
pub struct Header {
    at: libc::timeval,
    pub captured: u32,
    pub length: u32,
}

/// pcap_handler.
pub type Handler = unsafe extern "C" fn(*mut c_uchar, *const Header, *const c_uchar);

/// struct pcap_stat.
#[repr(C)]
#[derive(Default)]
pub struct Stats {
    received: u32,
    pub dropped: u32,
    by_interface: u32,
}

macro_rules! library {
    ($($name:ident: fn($($argument:ty),*) -> $result:ty,)*) => {
        /// What is used of the library.
        pub struct Library { $(pub $name: unsafe extern "C" fn($($argument),*) -> $result,)* }

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
pub fn library() -> Result<&'static Library, String> {
    static LOADED: OnceLock<Result<Library, String>> = OnceLock::new();
    LOADED.get_or_init(Library::load).as_ref().map_err(String::clone)
}

/// Why the last call on a handle failed.
pub fn error(library: &Library, handle: NonNull<Handle>) -> String {
    // SAFETY: the handle's error text is terminated and valid until the next call on it; it is copied.
    unsafe { text((library.geterr)(handle.as_ptr())) }
}

/// A C text of the library.
///
/// # Safety
/// `text` is null or terminated and valid for the call.
pub unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return "unknown error".to_string();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
