//! The log: to standard error in the foreground, to a file of bounded size in the background.
//!
//! The file is opened at its first line, so that a launch that fails leaves none. When it is full it becomes
//! `<name>.1` and a new one begins: two files of 4 MiB at most. How many lines peers may cause is the node's to bound.

use crate::config::LogLevel;
use crate::node::border::Level;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use tracing_subscriber::filter::LevelFilter;

/// Bytes of one log file.
const FILE_MAX: u64 = 4 << 20;

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

/// Logs one line of the node.
pub fn line(level: Level, line: &str) {
    match level {
        Level::Error => tracing::error!("{line}"),
        Level::Warn => tracing::warn!("{line}"),
        Level::Info => tracing::info!("{line}"),
        Level::Debug => tracing::debug!("{line}"),
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
}
