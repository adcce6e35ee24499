//! Processes seen from outside: a descriptor that tells when one is gone.
//!
//! Owns pidfd_open(2) (Linux 5.3). A number alone can be given to another process once the first is gone; the descriptor
//! always means the one that it was opened for.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process. Readable to poll(2) when it is gone.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Opens the process `pid`. Errors: ESRCH if there is none; EINVAL if the number is a thread's or not positive.
    pub fn open(pid: i32) -> io::Result<Pidfd> {
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the call just made this descriptor (close-on-exec) and nobody else owns it.
        Ok(Pidfd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Whether the process has ended (a zombie has).
    pub fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(ready) if ready > 0)
    }

    /// Waits until the process has ended. Needs a runtime with I/O.
    pub async fn gone(self) -> io::Result<()> {
        // SAFETY: `Pidfd` owns its descriptor, which stays open and the same until it is dropped after the registration.
        let registered = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        registered.map_err(io::Error::from)?.readable().await.map(|_| ())
    }
}

/// When the process `pid` began, clock ticks since boot: field 22 of proc_pid_stat(5). Together with the number it means this
/// very process.
pub fn started(pid: i32) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    field_22(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not as proc_pid_stat(5) says")))
}

/// The second field is the program's name in brackets, which may hold spaces and brackets itself.
fn field_22(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(22 - 3)?.parse().ok()
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Pidfd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn tells_when_the_process_is_gone_and_not_before() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pidfd = Pidfd::open(child.id() as i32).unwrap();
        assert!(!pidfd.is_gone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let watched = Pidfd::open(child.id() as i32).unwrap();
            child.kill().unwrap();
            tokio::time::timeout(std::time::Duration::from_secs(5), watched.gone()).await.unwrap().unwrap();
        });
        assert!(pidfd.is_gone());
        child.wait().unwrap();
    }

    #[test]
    fn start_time_is_the_22nd_field_whatever_the_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 424242 20 21";
        assert_eq!(field_22(&format!("7 (a) b ) (c)) {rest}\n")), Some(424_242));
        assert_eq!(field_22("7 (x"), None);
        let me = std::process::id() as i32;
        assert_eq!(started(me).unwrap(), started(me).unwrap());
        assert!(started(i32::MAX).is_err());
    }

    #[test]
    fn refuses_what_is_no_process() {
        assert_eq!(Pidfd::open(0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(Pidfd::open(i32::MAX).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
