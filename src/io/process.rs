//! The fork of `rnet run`: a program in a network and mount namespace of its own that waits before it begins.
//!
//! Owns fork(2), everything the child does until exec(2), and signals as the parent of a program needs them. Between fork and
//! exec the child makes only async-signal-safe calls on memory that was prepared before, so it is safe whatever threads the
//! parent has. Two pipes join them, both closed by exec:
//!
//! ```text
//! parent                           child
//! fork                             die with the parent; new namespaces; resolv.conf; loopback up
//! ready()  <------- report 0 ----- (or the stage that failed and its errno)
//! ...attach pid...                 waits in read(go)
//! go       -------- one byte ----> exec
//!          <------- end of file -- it runs (or: the errno of exec)
//! ```
//!
//! Invariant: if the parent ends before `go`, however it ends, the program never runs.

use super::netns::Netns;
use super::pidfd::Pidfd;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::sys::signalfd::{SignalFd, siginfo};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::ptr;

/// What is to run.
pub struct Program {
    /// The file, with a slash in it.
    pub path: CString,
    /// Its arguments, the name it is called by first.
    pub arguments: Vec<CString>,
    /// Its whole environment, `NAME=value`.
    pub environment: Vec<CString>,
    /// What it sees as /etc/resolv.conf; the host's if there is none.
    pub resolv_conf: Option<Vec<u8>>,
    /// Its network namespace.
    pub network: Network,
}

/// The network namespace of a program.
#[derive(Debug)]
pub enum Network {
    /// One of its own, with nothing but a loopback that is up.
    New,
    /// That of its parent.
    Same,
    /// This one.
    Of(Netns),
}

/// A step of the child that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// Nothing failed.
    Ready = 0,
    /// Making the namespaces.
    Namespaces = 1,
    /// Keeping its mounts from the host.
    Mounts = 2,
    /// Its own /etc/resolv.conf.
    ResolvConf = 3,
    /// Its loopback device.
    Loopback = 4,
    /// Running the program.
    Exec = 5,
    /// Entering another's namespace.
    Join = 6,
}

impl Stage {
    const ALL: [Stage; 7] =
        [Stage::Ready, Stage::Namespaces, Stage::Mounts, Stage::ResolvConf, Stage::Loopback, Stage::Exec, Stage::Join];
}

/// The child, before and after it runs the program. Dropping it before [`Contained::go`] kills it.
pub struct Contained {
    pid: Pid,
    pidfd: Pidfd,
    go: Option<File>,
    report: File,
    reaped: bool,
}

/// How a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It runs.
    Runs,
    /// It is stopped (job control).
    Stopped,
    /// It ended by itself.
    Exited(i32),
    /// A signal ended it.
    Killed(i32),
}

impl Contained {
    /// Forks. The child prepares its surroundings; [`Contained::ready`] tells how that went.
    pub fn fork(program: &Program) -> io::Result<Contained> {
        let (go_read, go_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let (report_read, report_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let prepared = Prepared {
            path: &program.path,
            argv: pointers(&program.arguments),
            envp: pointers(&program.environment),
            resolv_conf: program.resolv_conf.as_deref(),
            unshared: match program.network {
                Network::New => libc::CLONE_NEWNET | libc::CLONE_NEWNS,
                Network::Same if program.resolv_conf.is_none() => 0,
                Network::Same | Network::Of(_) => libc::CLONE_NEWNS,
            },
            joined: match &program.network {
                Network::Of(namespace) => Some(namespace.as_fd().as_raw_fd()),
                Network::New | Network::Same => None,
            },
            parent: Pid::this(),
            go: go_read.as_raw_fd(),
            go_write: go_write.as_raw_fd(),
            report: report_write.as_raw_fd(),
        };
        // SAFETY: the child runs only `in_child`, which makes async-signal-safe calls on memory prepared above and never returns.
        match unsafe { fork() }? {
            ForkResult::Child => in_child(&prepared),
            ForkResult::Parent { child } => {
                drop((go_read, report_write));
                // Without it the child is given up: the go pipe closes and it ends.
                let pidfd = Pidfd::open(child.as_raw())?;
                Ok(Contained {
                    pid: child,
                    pidfd,
                    go: Some(go_write.into()),
                    report: report_read.into(),
                    reaped: false,
                })
            }
        }
    }

    /// Its process id: its namespaces can be found by it as soon as it is ready.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Waits until it is prepared. The error says what it could not do.
    pub fn ready(&mut self) -> Result<(), (Stage, io::Error)> {
        match self.read_report() {
            Some((Stage::Ready, _)) => Ok(()),
            Some((stage, errno)) => Err((stage, io::Error::from_raw_os_error(errno))),
            None => Err((Stage::Namespaces, io::Error::other("the process was killed"))),
        }
    }

    /// Lets it run the program. The error is that of exec; the child has ended then.
    pub fn go(&mut self) -> io::Result<()> {
        if let Some(mut go) = self.go.take() {
            // If the child is gone already, the wait that follows tells.
            let _ = go.write_all(&[1]);
        }
        match self.read_report() {
            Some((_, errno)) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }

    /// How it is now; does not wait. Once it has ended, its number means nothing any more.
    pub fn look(&mut self) -> io::Result<Outcome> {
        let status = waitpid(self.pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED))?;
        let outcome = match status {
            WaitStatus::Exited(_, code) => Outcome::Exited(code),
            WaitStatus::Signaled(_, signal, _) => Outcome::Killed(signal as i32),
            WaitStatus::Stopped(..) => Outcome::Stopped,
            _ => Outcome::Runs,
        };
        self.reaped |= matches!(outcome, Outcome::Exited(_) | Outcome::Killed(_));
        Ok(outcome)
    }

    /// Waits until one of `signals` is there, or the child has ended.
    pub fn wait_for(&self, signals: &SignalFd) -> io::Result<Option<siginfo>> {
        let mut fds =
            [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(signals.read_signal()?),
            Err(e) => Err(e.into()),
        }
    }

    /// Sends it a signal. No error if it has ended.
    pub fn signal(&self, signal: Signal) {
        if !self.reaped {
            // It cannot have been reaped by anybody else: at worst it is a zombie.
            let _ = kill(self.pid, signal);
        }
    }

    /// Stage and errno that the child reports, or nothing at the end of the pipe.
    fn read_report(&mut self) -> Option<(Stage, i32)> {
        let mut bytes = [0; 8];
        self.report.read_exact(&mut bytes).ok()?;
        let [a, b, c, d, e, f, g, h] = bytes;
        let stage = u32::from_ne_bytes([a, b, c, d]);
        let stage = Stage::ALL.into_iter().find(|s| *s as u32 == stage)?;
        Some((stage, i32::from_ne_bytes([e, f, g, h])))
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        if !self.reaped && self.go.is_some() {
            self.signal(Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

/// Stops the calling process as a shell's job: returns when it is continued.
pub fn stop_self() {
    let _ = nix::sys::signal::raise(Signal::SIGSTOP);
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// Everything that the child needs, so that it need not allocate.
struct Prepared<'a> {
    path: &'a CStr,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    resolv_conf: Option<&'a [u8]>,
    /// Kinds of namespaces that it gets anew.
    unshared: libc::c_int,
    /// The network namespace that it enters.
    joined: Option<RawFd>,
    parent: Pid,
    go: RawFd,
    go_write: RawFd,
    report: RawFd,
}

/// The child's life until exec. Only async-signal-safe calls: no allocation, no lock, no panic.
fn in_child(prepared: &Prepared<'_>) -> ! {
    // SAFETY: prctl, getppid, close and _exit are async-signal-safe and are given integers; the descriptor closed here is
    // the child's copy of the parent's end, which the child's code does not use again.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0);
        if libc::getppid() != prepared.parent.as_raw() {
            libc::_exit(1);
        }
        // Else the child would hold its own go pipe open and never see the parent's end.
        libc::close(prepared.go_write);
    }
    if let Err(stage) = prepare(prepared) {
        fail(prepared, stage);
    }
    tell(prepared, Stage::Ready, 0);
    let mut byte = 0u8;
    loop {
        // SAFETY: reads at most one byte into one byte of the stack.
        match unsafe { libc::read(prepared.go, (&raw mut byte).cast(), 1) } {
            1 => break,
            -1 if errno() == libc::EINTR => {}
            // SAFETY: _exit is async-signal-safe. The parent gave it up.
            _ => unsafe { libc::_exit(1) },
        }
    }
    // The runtime ignores SIGPIPE; programs expect to die of it.
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    let _ = unsafe { sigaction(Signal::SIGPIPE, &default) };
    // SAFETY: path and both lists are terminated and were made before the fork; execvpe returns only on failure.
    unsafe { libc::execvpe(prepared.path.as_ptr(), prepared.argv.as_ptr(), prepared.envp.as_ptr()) };
    fail(prepared, Stage::Exec)
}

fn errno() -> i32 {
    Errno::last_raw()
}

fn tell(prepared: &Prepared<'_>, stage: Stage, errno: i32) {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&(stage as u32).to_ne_bytes());
    bytes[4..].copy_from_slice(&errno.to_ne_bytes());
    // SAFETY: writes eight bytes of the stack; a pipe takes that much at once. A parent that is gone makes it fail: so be it.
    unsafe { libc::write(prepared.report, bytes.as_ptr().cast(), bytes.len()) };
}

fn fail(prepared: &Prepared<'_>, stage: Stage) -> ! {
    tell(prepared, stage, errno());
    // SAFETY: _exit is async-signal-safe.
    unsafe { libc::_exit(1) }
}

fn prepare(prepared: &Prepared<'_>) -> Result<(), Stage> {
    let check = |result: libc::c_int, stage: Stage| if result < 0 { Err(stage) } else { Ok(()) };
    let none: *const libc::c_char = ptr::null();
    if let Some(namespace) = prepared.joined {
        // SAFETY: a system call on integers; the parent holds the descriptor open until after the fork.
        check(unsafe { libc::setns(namespace, libc::CLONE_NEWNET) }, Stage::Join)?;
    }
    if prepared.unshared != 0 {
        // SAFETY: system calls on integers and on terminated literals.
        unsafe {
            check(libc::unshare(prepared.unshared), Stage::Namespaces)?;
            // Slave and not private: our mounts stay ours, and what the host unmounts is not kept busy in here.
            check(libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_SLAVE, ptr::null()), Stage::Mounts)?;
        }
    }
    if let Some(content) = prepared.resolv_conf {
        replace_resolv_conf(content).map_err(|()| Stage::ResolvConf)?;
    }
    if prepared.unshared & libc::CLONE_NEWNET == 0 {
        // Another's loopback is its own business.
        return Ok(());
    }
    loopback_up().map_err(|()| Stage::Loopback)
}

/// A file that exists only in this mount namespace: made in a tmpfs that is mounted over /tmp for a moment, bound, and left.
fn replace_resolv_conf(content: &[u8]) -> Result<(), ()> {
    let check = |ok: bool| if ok { Ok(()) } else { Err(()) };
    let (tmp, file) = (c"/tmp".as_ptr(), c"/tmp/resolv.conf".as_ptr());
    // SAFETY: system calls on terminated literals and on `content` with its own length.
    unsafe {
        check(libc::mount(c"rnet".as_ptr(), tmp, c"tmpfs".as_ptr(), 0, c"size=1m,mode=0755".as_ptr().cast()) == 0)?;
        let fd = libc::open(file, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC, 0o644);
        check(fd >= 0)?;
        libc::fchmod(fd, 0o644);
        check(usize::try_from(libc::write(fd, content.as_ptr().cast(), content.len())) == Ok(content.len()))?;
        libc::close(fd);
        check(libc::mount(file, c"/etc/resolv.conf".as_ptr(), ptr::null(), libc::MS_BIND, ptr::null()) == 0)?;
        check(libc::umount2(tmp, libc::MNT_DETACH) == 0)
    }
}

fn loopback_up() -> Result<(), ()> {
    // SAFETY: a zeroed ifreq is valid, its name is terminated, and both ioctls take just such a pointer; the descriptor is ours.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(());
        }
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let result = libc::ioctl(fd, libc::SIOCSIFFLAGS as libc::Ioctl, &raw const request);
        libc::close(fd);
        if result < 0 { Err(()) } else { Ok(()) }
    }
}
