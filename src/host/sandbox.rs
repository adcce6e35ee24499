//! `rnet run`: a program in a network namespace of its own that is on the mesh before it begins.
//!
//! Owns the search for the program, its environment, and what its parent does with signals and the exit status. The fork
//! itself is `io::process`'s. Two steps, so that the caller can attach the namespace in between:
//!
//! ```text
//! find(CMD) 127, 126 - spawn - [ask the router to attach pid()] - go - wait -> exit status
//! ```
//!
//! The program stays in the caller's session and process group: the terminal sends its signals to it directly, and a shell's
//! job control sees both as one job. So those that the terminal sends are ignored here and those that somebody sends to this
//! process alone are handed on; which is which, the kernel tells with each signal. When the program stops, so does this.

pub use crate::io::process::Network;
use crate::io::process::{Contained, Outcome, Program, Stage, stop_self};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{AccessFlags, access};
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Never handed to the program.
const SECRETS: [&str; 2] = ["RNET_PASSWORD", "WEAVE_PASSWORD"];
/// Handed on to the program when they are sent to this process.
const HANDED_ON: [Signal; 11] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
    Signal::SIGALRM,
    Signal::SIGPIPE,
    Signal::SIGCONT,
];

/// Why the program did not run: one line, and the exit status that shells give it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}")]
pub struct Failure {
    /// `<what>: <why>`.
    pub line: String,
    /// 127: not found; 126: found, but it cannot be run; 125: the surroundings could not be made.
    pub status: i32,
}

impl Failure {
    fn new(status: i32, line: String) -> Failure {
        Failure { line, status }
    }
}

/// Where `command` lies, searched as execvp(3) does, before anything else is begun.
pub fn find(command: &OsStr) -> Result<PathBuf, Failure> {
    let name = command.display();
    let runnable = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    if command.as_bytes().contains(&b'/') {
        let path = PathBuf::from(command);
        return match (path.exists(), runnable(&path)) {
            (_, true) => Ok(path),
            (true, false) => Err(Failure::new(126, format!("{name}: not an executable file"))),
            (false, _) => Err(Failure::new(127, format!("{name}: no such file"))),
        };
    }
    let search = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let found: Vec<PathBuf> = env::split_paths(&search)
        .map(|dir| dir.join(command))
        .filter(|path| !command.is_empty() && path.is_file())
        .collect();
    match found.iter().find(|path| runnable(path)) {
        Some(path) if path.is_relative() => Ok(Path::new(".").join(path)),
        Some(path) => Ok(path.clone()),
        None if found.is_empty() => Err(Failure::new(127, format!("{name}: command not found"))),
        None => Err(Failure::new(126, format!("{name}: not executable"))),
    }
}

/// A program that waits in its namespaces. Dropping it ends it without having run.
pub struct Sandbox {
    contained: Contained,
    name: String,
}

impl Sandbox {
    /// Makes or joins the namespaces, a new one's loopback up, and has `command` (its name and arguments; not empty) wait in them. With
    /// `resolv_conf` the program sees that as /etc/resolv.conf. Best called before the process has a runtime.
    pub fn spawn(command: &[OsString], resolv_conf: Option<&[u8]>, network: Network) -> Result<Sandbox, Failure> {
        let first = command.first().ok_or_else(|| Failure::new(127, "no command given".into()))?;
        let path = find(first)?;
        let name = first.display().to_string();
        let text = |text: OsString| {
            CString::new(text.into_vec())
                .map_err(|_| Failure::new(126, format!("{name}: an argument contains a zero byte")))
        };
        let variables = env::vars_os().filter(|(key, _)| !SECRETS.iter().any(|secret| key == secret));
        let program = Program {
            path: text(path.into_os_string())?,
            arguments: command.iter().cloned().map(text).collect::<Result<_, _>>()?,
            environment: variables.map(|(key, value)| text(joined(&key, &value))).collect::<Result<_, _>>()?,
            resolv_conf: resolv_conf.map(<[u8]>::to_vec),
            network,
        };
        let mut contained = Contained::fork(&program).map_err(|e| Failure::new(125, format!("fork: {e}")))?;
        match contained.ready() {
            Ok(()) => Ok(Sandbox { contained, name }),
            Err((stage, error)) => Err(Failure::new(125, stage_line(stage, &error))),
        }
    }

    /// The process whose network namespace is to be attached.
    pub fn pid(&self) -> i32 {
        self.contained.pid()
    }

    /// Runs the program and waits for it: its exit status, or 128 and the number of the signal that ended it.
    pub fn go(mut self) -> Result<i32, Failure> {
        // Before it runs, so that no signal falls between.
        let mut set = SigSet::empty();
        HANDED_ON.iter().for_each(|signal| set.add(*signal));
        set.add(Signal::SIGCHLD);
        let failed = |what: &str, e: &dyn std::fmt::Display| Failure::new(125, format!("{what}: {e}"));
        set.thread_block().map_err(|e| failed("blocking signals", &e))?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .map_err(|e| failed("signalfd", &e))?;
        if let Err(error) = self.contained.go() {
            // The file was found before: what is missing is what its first line names.
            return Err(match error.kind() {
                std::io::ErrorKind::NotFound => Failure::new(127, format!("{}: its interpreter is missing", self.name)),
                _ => Failure::new(126, format!("{}: {error}", self.name)),
            });
        }
        loop {
            match self.contained.look().map_err(|e| failed("waitpid", &e))? {
                Outcome::Exited(code) => return Ok(code),
                Outcome::Killed(signal) => return Ok(128 + signal),
                Outcome::Stopped => {
                    stop_self();
                    // Who continued only us meant both.
                    self.contained.signal(Signal::SIGCONT);
                }
                Outcome::Runs => {}
            }
            let Some(received) = self.contained.wait_for(&signals).map_err(|e| failed("waiting", &e))? else {
                continue;
            };
            let signal = i32::try_from(received.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            // From a process (SI_USER, SI_TKILL, ...: not positive) and not from the terminal, which tells both of us.
            if let Some(signal) = signal.filter(|signal| *signal != Signal::SIGCHLD && received.ssi_code <= 0) {
                self.contained.signal(signal);
            }
        }
    }
}

fn joined(key: &OsStr, value: &OsStr) -> OsString {
    let mut variable = key.to_os_string();
    variable.push("=");
    variable.push(value);
    variable
}

fn stage_line(stage: Stage, error: &std::io::Error) -> String {
    let what = match stage {
        Stage::Join if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return "joining a network namespace: it needs root, or CAP_SYS_ADMIN".into();
        }
        Stage::Join => "joining a network namespace",
        Stage::Namespaces if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return "making a network namespace: it needs root, or CAP_SYS_ADMIN".into();
        }
        Stage::Namespaces => "making a network namespace",
        Stage::Mounts => "making a mount namespace",
        Stage::ResolvConf => "replacing /etc/resolv.conf",
        Stage::Loopback => "bringing the loopback up",
        Stage::Ready | Stage::Exec => "starting",
    };
    format!("{what}: {error}")
}
