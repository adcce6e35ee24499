//! One router per run directory.
//!
//! Owns `<run-dir>/rnet.pid`: a file that the living router keeps locked and that holds its process id. The lock is an open
//! file description lock (fcntl(2), F_OFD_SETLK): it is inherited over fork and released by the kernel when the last
//! holder is gone, however it died; asking who holds it does not take it. The file itself stays: removing a
//! lock file lets two processes lock two files of one name.
//!
//! Invariant: whoever holds the [`Lock`] owns everything else in the directory; a control socket found there is stale.

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another router holds it.
    #[error("already running (pid {})", .pid.map_or("unknown".to_string(), |pid| pid.to_string()))]
    Held {
        /// Its process id, if it has written it already.
        pid: Option<i32>,
    },
    /// The directory or the file cannot be made.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The right to run in a directory, until dropped (and the same in forked children until they end).
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// See [`Lock::take`].
const LEGACY: Duration = Duration::from_secs(1);

/// There is no such process (in this process's namespace).
fn is_gone(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) == Err(nix::errno::Errno::ESRCH)
}

fn whole_file(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

fn path_in(run_dir: &Path) -> PathBuf {
    run_dir.join("rnet.pid")
}

fn read_pid(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 0)
}

impl Lock {
    /// Makes `run_dir` (0755) if it is missing, and takes its lock for this process. Waits only for what a killed router leaves: a
    /// child that it had just forked holds the lock until it has become its program, for [`LEGACY`] at most.
    pub fn take(run_dir: &Path) -> Result<Lock, LockError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| LockError::Io { path, source }
        };
        fs::create_dir_all(run_dir).map_err(failed(run_dir))?;
        let path = path_in(run_dir);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(&path);
        let mut file = file.map_err(failed(&path))?;
        let deadline = Instant::now() + LEGACY;
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
                Ok(_) => break,
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => {
                    let pid = read_pid(&mut file);
                    if !pid.is_some_and(is_gone) || Instant::now() >= deadline {
                        return Err(LockError::Held { pid });
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(e) => return Err(failed(&path)(e.into())),
            }
        }
        let mut lock = Lock { file };
        lock.write_pid().map_err(failed(&path))?;
        Ok(lock)
    }

    /// Writes the calling process's id: again after a fork, by the child that stays.
    pub fn write_pid(&mut self) -> io::Result<()> {
        self.file.rewind()?;
        self.file.set_len(0)?;
        writeln!(self.file, "{}", std::process::id())?;
        self.file.set_permissions(Permissions::from_mode(0o644))
    }

    /// Removes the control socket that a dead router left at `path`. Anything else there is not touched and an error.
    pub fn remove_stale_socket(&self, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
            Ok(_) => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} exists and is not a socket", path.display()),
            )),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// The process id of the router that runs in `run_dir`; nothing if none does (a killed one does not count).
pub fn running(run_dir: &Path) -> Option<i32> {
    let mut file = OpenOptions::new().read(true).open(path_in(run_dir)).ok()?;
    let mut query = whole_file(libc::F_RDLCK);
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut query)).ok()?;
    if i32::from(query.l_type) == libc::F_UNLCK { None } else { read_pid(&mut file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(running(dir.path()), None);
        let lock = Lock::take(dir.path()).unwrap();
        let me = std::process::id() as i32;
        assert!(matches!(Lock::take(dir.path()), Err(LockError::Held { pid: Some(pid) }) if pid == me));
        assert_eq!(running(dir.path()), Some(me));
        assert_eq!(LockError::Held { pid: Some(7) }.to_string(), "already running (pid 7)");
        drop(lock);
        assert_eq!(running(dir.path()), None);
        assert!(Lock::take(dir.path()).is_ok());
    }

    #[test]
    fn asking_does_not_take() {
        let dir = tempfile::tempdir().unwrap();
        drop(Lock::take(dir.path()).unwrap());
        let asked: Vec<_> = (0..3).map(|_| running(dir.path())).collect();
        assert_eq!(asked, [None, None, None]);
        let _lock = Lock::take(dir.path()).unwrap();
    }

    #[test]
    fn removes_a_stale_socket_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let path = dir.path().join("rnet.sock");
        lock.remove_stale_socket(&path).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        lock.remove_stale_socket(&path).unwrap();
        assert!(!path.exists());
        fs::write(&path, "mine").unwrap();
        assert!(lock.remove_stale_socket(&path).is_err());
        assert!(path.exists());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let error = Lock::take(&dir.path().join("file/run")).unwrap_err().to_string();
        assert!(error.contains("file/run"), "{error}");
    }

    #[test]
    fn what_a_killed_router_had_forked_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut left = Lock::take(dir.path()).unwrap();
        let mut killed = std::process::Command::new("true").spawn().unwrap();
        killed.wait().unwrap();
        left.file.rewind().unwrap();
        left.file.set_len(0).unwrap();
        writeln!(left.file, "{}", killed.id()).unwrap();
        assert!(matches!(Lock::take(dir.path()), Err(LockError::Held { .. })), "it is not taken from whoever holds it");
        std::thread::scope(|scope| {
            let (begun, begins) = std::sync::mpsc::channel();
            let taker = scope.spawn(move || {
                begun.send(()).unwrap();
                Lock::take(dir.path())
            });
            begins.recv().unwrap();
            drop(left);
            assert!(taker.join().unwrap().is_ok());
        });
    }
}
