//! The log: to standard error in the foreground, to a file of bounded size in the background.
//!
//! The file is opened at its first line, so that a launch that fails leaves none. When it is full it becomes
//! `<name>.1` and a new one begins: two files of 4 MiB at most. What peers cause to be logged is bounded as well: a
//! token bucket of lines; what it holds back is counted and told with the next line that passes.

use crate::config::LogLevel;
use crate::node::border::Level;
use crate::types::Instant;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;

/// Bytes of one log file.
const FILE_MAX: u64 = 4 << 20;
/// Lines that may come at once.
const BURST: u32 = 200;
/// One more line may come each time this passes.
const REFILL: Duration = Duration::from_millis(100);

/// Where the log goes.
#[derive(Debug, Clone)]
pub enum Place {
    /// Standard error.
    Stderr,
    /// This file and its predecessor.
    File(PathBuf),
}

/// Starts logging for the whole process. A second call changes nothing.
pub fn start(place: Place, level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let log = tracing_subscriber::fmt().with_target(false).with_max_level(level);
    let _ = match place {
        Place::Stderr => {
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            tracing::subscriber::set_global_default(
                log.with_ansi(io::stderr().is_terminal() && !plain).with_writer(io::stderr).finish(),
            )
        }
        Place::File(path) => {
            let file = Mutex::new(Rolling { path, file: None, size: 0, max: FILE_MAX });
            tracing::subscriber::set_global_default(log.with_ansi(false).with_writer(file).finish())
        }
    };
    std::panic::set_hook(Box::new(|panic| tracing::error!("internal error: {panic}")));
}

/// A file that begins anew when it is full.
struct Rolling {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    max: u64,
}

impl Rolling {
    fn file(&mut self) -> io::Result<&mut File> {
        if self.size > self.max {
            self.file = None;
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
        }
        match &mut self.file {
            Some(file) => Ok(file),
            empty => {
                let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
                self.size = file.metadata()?.len();
                Ok(empty.insert(file))
            }
        }
    }
}

impl Write for Rolling {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file()?.write(bytes)?;
        self.size = self.size.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), File::flush)
    }
}

/// Lets the node's lines through, at most so many.
#[derive(Debug)]
pub struct Journal {
    tokens: u32,
    refilled: Instant,
    held_back: u64,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal { tokens: BURST, refilled: Instant::ZERO, held_back: 0 }
    }
}

impl Journal {
    /// Logs one line, or holds it back. Lines for developers are not limited: whoever asks for them gets them.
    pub fn line(&mut self, level: Level, line: &str, now: Instant) {
        if level == Level::Debug {
            tracing::debug!("{line}");
            return;
        }
        if !self.may_pass(now) {
            return;
        }
        match std::mem::take(&mut self.held_back) {
            0 => {}
            lines => tracing::warn!("{lines} lines were held back: too many at once"),
        }
        match level {
            Level::Error => tracing::error!("{line}"),
            Level::Warn => tracing::warn!("{line}"),
            Level::Info | Level::Debug => tracing::info!("{line}"),
        }
    }

    fn may_pass(&mut self, now: Instant) -> bool {
        let new = now.since(self.refilled).as_nanos() / REFILL.as_nanos();
        if new > 0 {
            self.tokens = BURST.min(self.tokens.saturating_add(u32::try_from(new).unwrap_or(u32::MAX)));
            self.refilled = now;
        }
        let passes = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        self.held_back += u64::from(!passes);
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_is_two_files_of_bounded_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rnet.log");
        let mut log = Rolling { path: path.clone(), file: None, size: 0, max: 100 };
        assert!(!path.exists(), "nothing is made before the first line");
        for number in 0..100 {
            writeln!(log, "line {number}").unwrap();
        }
        let length = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(length("rnet.log") <= 108 && length("rnet.log.1") <= 108);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(std::fs::read_to_string(path).unwrap().ends_with("line 99\n"));
    }

    #[test]
    fn an_old_log_is_continued() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rnet.log");
        std::fs::write(&path, "old\n").unwrap();
        let mut log = Rolling { path: path.clone(), file: None, size: 0, max: 100 };
        writeln!(log, "new").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "old\nnew\n");
        assert_eq!(log.size, 8);
    }

    #[test]
    fn lines_are_limited_and_the_held_back_counted() {
        let mut journal = Journal::default();
        let passed = (0..1000).filter(|_| journal.may_pass(Instant::ZERO)).count();
        assert_eq!((passed, journal.held_back), (200, 800));
        assert!(journal.may_pass(Instant::ZERO + REFILL));
        assert!(!journal.may_pass(Instant::ZERO + REFILL));
    }
}
