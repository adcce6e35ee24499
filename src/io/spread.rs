//! Which processors take what arrives by a device: receive packet steering (RPS, Linux Documentation/networking/scaling.rst).
//!
//! Owns `rps_cpus` in sysfs, which has no netlink. Without it whoever sends by one end of a veth pair is also the one who carries
//! what arrives at the other end as far as it goes, and all that this sets off: an acknowledgement that we send takes our thread
//! through the receiver's TCP and back with the segments that it releases.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::fmt::Write;
use std::io;

/// Flows that arrive by `device`, of the network namespace of the calling thread, are spread over all processors that this program
/// may use. Errors: `NotFound` where /sys is missing or of another network namespace; where it is read-only; where the kernel has
/// no RPS.
pub fn over_processors(device: &str) -> io::Result<()> {
    let queues = format!("/sys/class/net/{device}/queues");
    let shown = std::fs::read_to_string(format!("/sys/class/net/{device}/ifindex"))?;
    if shown.trim() != nix::net::if_::if_nametoindex(device)?.to_string() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "/sys is of another network namespace"));
    }
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mask = mask((0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)));
    for queue in std::fs::read_dir(queues)? {
        let queue = queue?;
        if queue.file_name().as_encoded_bytes().starts_with(b"rx-") {
            std::fs::write(queue.path().join("rps_cpus"), &mask)?;
        }
    }
    Ok(())
}

/// A bitmap as the kernel reads it: hexadecimal, highest first, a comma after each 32 bits.
fn mask(cpus: impl Iterator<Item = usize>) -> String {
    let mut words = vec![0u32];
    for cpu in cpus {
        words.resize(words.len().max(cpu / 32 + 1), 0);
        words[cpu / 32] |= 1 << (cpu % 32);
    }
    let mut text = String::new();
    for (at, word) in words.iter().rev().enumerate() {
        let _ = if at == 0 { write!(text, "{word:x}") } else { write!(text, ",{word:08x}") };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_written_as_the_kernel_reads_it() {
        assert_eq!(mask([0, 1].into_iter()), "3");
        assert_eq!(mask([4, 31].into_iter()), "80000010");
        assert_eq!(mask([0, 33].into_iter()), "2,00000001");
        assert_eq!(mask([64].into_iter()), "1,00000000,00000000");
        assert_eq!(mask(std::iter::empty()), "0");
    }

    #[test]
    fn a_device_that_is_not_here_is_told() {
        assert!(over_processors("rnnothere").is_err());
    }
}
