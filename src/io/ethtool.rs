//! Offloads of a device, by the one ioctl that netlink has no word for in our crates.
//!
//! Owns SIOCETHTOOL with ETHTOOL_STXCSUM. Needed where frames are captured by libpcap: what leaves checksums and segmentation to
//! the device would be captured with wrong checksums and in frames of 64 KB.

use std::io;
use std::os::fd::AsRawFd;

/// linux/ethtool.h: sets whether the device completes checksums when sending.
const ETHTOOL_STXCSUM: u32 = 0x17;
/// linux/sockios.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Makes the kernel complete checksums (and so cut super-frames) before it hands frames to `device`, in the network namespace of
/// the calling thread. Errors: NoSuchDevice; EOPNOTSUPP if the driver has no such switch.
pub fn transmit_checksums_off(device: &str) -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    let mut value = EthtoolValue { command: ETHTOOL_STXCSUM, data: 0 };
    // SAFETY: ifreq is plain old data for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: `request` is an ifreq with a terminated name whose data points to an ethtool_value; both outlive the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
