//! What the kernel dropped before it came to us: queues in front of the data path that were full.
//!
//! Owns the reading of two counters: that of a socket (SO_MEMINFO, socket(7)) and that of a network device (proc_net(5)). Both
//! only grow, and wrap or begin anew when their object does; the caller takes differences.

use std::os::fd::{AsFd, AsRawFd};

const SO_MEMINFO: libc::c_int = 55;
/// Of the numbers that SO_MEMINFO tells, the one of drops (SK_MEMINFO_DROPS), and how many there are.
const DROPS: usize = 8;
const NUMBERS: usize = 9;

/// Datagrams that the receive buffer of this socket had no room for. Nothing before Linux 4.12.
pub fn of_socket(socket: &impl AsFd) -> Option<u32> {
    let mut numbers = [0u32; NUMBERS];
    let mut length = size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `numbers`; both outlive the call.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (asked == 0 && length as usize == size_of_val(&numbers)).then_some(numbers[DROPS])
}

/// Frames that could not be sent on each device of the calling thread's network namespace: for a TAP, those that its queue had no
/// room for.
pub fn of_devices() -> Vec<(String, u64)> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    text.lines().filter_map(device).collect()
}

/// `  rnt6c71e0: 8 numbers received, 8 sent`; of those sent the fourth is the drops.
fn device(line: &str) -> Option<(String, u64)> {
    let (name, numbers) = line.split_once(':')?;
    Some((name.trim().to_string(), numbers.split_whitespace().nth(11)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::udp::UdpSocket;

    #[test]
    fn a_full_receive_buffer_is_counted() {
        let (sender, receiver) = (UdpSocket::bind(0).unwrap(), UdpSocket::bind(0).unwrap());
        let to = (std::net::Ipv4Addr::LOCALHOST, receiver.local_addr().unwrap().port()).into();
        assert_eq!(of_socket(&receiver), Some(0));
        // 16 MB are asked for and doubled by the kernel, and each datagram takes its size at least.
        for _ in 0..4000 {
            let _ = sender.send(to, &[0; 16_000]);
        }
        assert!(of_socket(&receiver).unwrap() > 0);
        assert_eq!(of_socket(&sender), Some(0));
    }

    #[test]
    fn devices_are_found_with_their_drops() {
        let line = "rnt000007: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16";
        assert_eq!(device(line), Some(("rnt000007".to_string(), 12)));
        assert_eq!(device(" face |bytes    packets errs drop"), None);
        assert!(of_devices().iter().any(|(name, _)| name == "lo"));
    }
}
