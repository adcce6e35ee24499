//! Going into the background: fork(2) before there is any thread, and the pipe that tells how the start went.
//!
//! ```text
//! parent  --fork--> child: own session, / as directory, standard streams to /dev/null, starts, ...
//!    |                '--- Ready::tell(name) or Ready::fail(line) --- pipe ---.
//!    '--- waits for that one line, or for the child's end without one <-------'
//! ```
//!
//! Invariant: the parent learns exactly one of: it is ready, it failed and why, it died without a word.

use nix::unistd::{ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe2, setsid};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

/// What a start came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Start {
    /// Ready; what it told.
    Ready(String),
    /// It failed: the lines that say why, and the exit status.
    Failed(Vec<String>, u8),
    /// It ended without a word.
    Died,
}

/// The child's end of the pipe, or nothing in the foreground. Told once.
#[derive(Debug, Default)]
pub struct Ready(Option<File>);

impl Ready {
    /// Of a process that nobody waits for.
    pub fn unheard() -> Ready {
        Ready(None)
    }

    /// Tells the parent that it is done waiting.
    pub fn tell(&mut self, name: &str) {
        self.write(&format!("+{name}"));
    }

    /// Tells the parent why it failed, and the exit status.
    pub fn fail(&mut self, lines: &[String], code: u8) {
        self.write(&format!("-{code}\n{}", lines.join("\n")));
    }

    fn write(&mut self, text: &str) {
        if let Some(mut pipe) = self.0.take() {
            // A parent that is gone does not matter.
            let _ = pipe.write_all(text.as_bytes());
        }
    }
}

/// Which side of the fork this is.
pub enum Side {
    /// The child, in the background.
    Child(Ready),
    /// The parent, after the child has told or died.
    Parent(Start, Pid),
}

/// Forks and waits in the parent. To be called by the only thread of the process.
pub fn enter() -> io::Result<Side> {
    if std::fs::read_dir("/proc/self/task")?.count() > 1 {
        return Err(io::Error::other("the process has threads already"));
    }
    let (from_child, to_parent) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // SAFETY: this process has one thread (checked above), so the child's copy of memory and locks is consistent.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(from_child);
            let mut ready = Ready(Some(to_parent.into()));
            if let Err(why) = detach() {
                ready.fail(&[format!("launch: cannot go into the background: {why}")], 1);
                std::process::exit(1);
            }
            Ok(Side::Child(ready))
        }
        ForkResult::Parent { child } => {
            drop(to_parent);
            let mut text = Vec::new();
            File::from(from_child).read_to_end(&mut text)?;
            Ok(Side::Parent(parse(&String::from_utf8_lossy(&text)), child))
        }
    }
}

/// Leaves the session, the directory and the terminal of whoever started this process.
fn detach() -> io::Result<()> {
    setsid()?;
    chdir("/")?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}

fn parse(text: &str) -> Start {
    if let Some(name) = text.strip_prefix('+') {
        return Start::Ready(name.to_string());
    }
    let mut lines = text.strip_prefix('-').into_iter().flat_map(str::lines);
    match lines.next().and_then(|code| code.parse().ok()) {
        Some(code) => Start::Failed(lines.map(str::to_string).collect(), code),
        None => Start::Died,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tell: impl FnOnce(&mut Ready)) -> Start {
        let (read, write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let mut ready = Ready(Some(write.into()));
        tell(&mut ready);
        drop(ready);
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        parse(&text)
    }

    #[test]
    fn parent_learns_exactly_one_of_three() {
        assert_eq!(told(|ready| ready.tell("7e:21")), Start::Ready("7e:21".into()));
        let lines = ["launch: a".to_string(), "launch: b".to_string()];
        assert_eq!(told(|ready| ready.fail(&lines, 2)), Start::Failed(lines.to_vec(), 2));
        assert_eq!(told(|_| ()), Start::Died);
        assert_eq!(told(|ready| ["x", "y"].iter().for_each(|name| ready.tell(name))), Start::Ready("x".into()));
    }
}
