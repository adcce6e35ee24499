//! Network namespaces: found by process or file, compared, and entered.
//!
//! Owns descriptors of namespaces. A thread of the daemon never changes its own namespace: [`Netns::within`] runs a closure
//! on a short-lived thread that enters and ends. A socket belongs for good to the namespace of the thread that made it, and
//! /proc/sys/net shows the namespace of the thread that reads it; so whatever is made in there can be used outside.

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// An open network namespace. It lives at least as long as this.
#[derive(Debug)]
pub struct Netns(File);

/// ioctl on a namespace descriptor: which type it is (ioctl_ns(2)).
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

impl Netns {
    /// The calling thread's own.
    pub fn own() -> io::Result<Netns> {
        Netns::at(Path::new("/proc/thread-self/ns/net"))
    }

    /// That of the process `pid`. Errors: NotFound if there is no such process, or it is ending.
    pub fn of_process(pid: i32) -> io::Result<Netns> {
        Netns::at(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// The namespace that `path` is a name of, as `ip netns add` makes it. Errors: NotFound; InvalidInput if it is not a network namespace.
    pub fn at(path: &Path) -> io::Result<Netns> {
        // Not blocking: the path is the user's and may be a pipe.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        // SAFETY: NS_GET_NSTYPE takes no argument and writes no memory; on files that are no namespaces it fails.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
        if kind == libc::CLONE_NEWNET {
            Ok(Netns(file))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a network namespace"))
        }
    }

    /// Whether both are one namespace.
    pub fn is(&self, other: &Netns) -> io::Result<bool> {
        let (ours, theirs) = (self.0.metadata()?, other.0.metadata()?);
        Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
    }

    /// Runs `work` inside, on a thread of its own, and waits for it: `work` must be short.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_a_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }

    /// A new one, empty but for a loopback that is down. It lives as long as the descriptor, a process or a mount holds it.
    pub fn create() -> io::Result<Netns> {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Netns::own()
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("rnet-netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}

/// Writes a setting of the calling thread's network namespace: `setting` is a path below /proc/sys/net.
///
/// A setting that does not exist is none that could do harm (IPv6 is not built in or disabled): no error.
pub fn set_sysctl(setting: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/{setting}");
    match fs::write(&path, value) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io::Error::new(e.kind(), format!("{path}: {e}"))),
        Ok(()) => Ok(()),
    }
}

/// Reads a setting of the calling thread's network namespace; nothing if it does not exist.
pub fn read_sysctl(setting: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/net/{setting}")).ok().map(|text| text.trim().to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A fresh namespace, or nothing (told on stderr) where the system forbids it.
    pub(crate) fn fresh() -> Option<Netns> {
        Netns::create().map_err(|e| eprintln!("skipped: no network namespace can be made here: {e}")).ok()
    }

    #[test]
    fn tells_namespaces_apart_and_enters_without_moving_the_caller() {
        let Some(new) = fresh() else { return };
        let own = Netns::own().unwrap();
        assert!(own.is(&Netns::of_process(std::process::id() as i32).unwrap()).unwrap());
        assert!(!own.is(&new).unwrap());
        assert!(new.within(|| Netns::own()?.is(&new)).unwrap());
        assert!(own.is(&Netns::own().unwrap()).unwrap());
    }

    #[test]
    fn refuses_files_that_are_no_network_namespaces() {
        for path in ["/etc/passwd", "/proc/self/ns/mnt", "/dev/null"] {
            assert_eq!(Netns::at(Path::new(path)).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{path}");
        }
        assert_eq!(Netns::at(Path::new("/run/netns/no-such")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(Netns::of_process(i32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
        let pipe = tempfile::tempdir().unwrap();
        let pipe = pipe.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(Netns::at(&pipe).unwrap_err().kind(), io::ErrorKind::InvalidInput, "and does not wait for a writer");
    }

    #[test]
    fn settings_belong_to_the_namespace_that_is_entered() {
        let Some(new) = fresh() else { return };
        let read = || fs::read_to_string("/proc/sys/net/ipv4/ip_forward").map(|text| text.trim().to_string());
        let before = read().unwrap();
        let other = if before == "1" { "0" } else { "1" };
        let inside = new.within(|| set_sysctl("ipv4/ip_forward", other).and_then(|()| read())).unwrap();
        assert_eq!((inside.as_str(), read().unwrap()), (other, before));
        assert!(new.within(|| set_sysctl("ipv6/conf/no-such-device/accept_ra", "0")).is_ok());
    }
}
