//! Standard output and standard error.
//!
//! A reader that goes away (`rnet status | head -1`) is no error and no panic: what it did not read is not written.
//! Colours only on a terminal, and not if `NO_COLOR` is set (no-color.org).

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

static LOST: AtomicBool = AtomicBool::new(false);

/// Writes `text` as it is to standard output.
pub fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(why) if why.kind() != ErrorKind::BrokenPipe => {
            LOST.store(true, Ordering::Relaxed);
            error(&format!("standard output: {why}"));
        }
        _ => {}
    }
}

/// Whether output was lost (a full disk, not a reader that had enough): the command has failed then.
pub fn is_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Writes `rnet: <line>` to standard error.
pub fn error(line: &str) {
    error_text(&format!("rnet: {line}\n"));
}

/// Writes `text` as it is to standard error.
pub fn error_text(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Whether that stream wants colours.
pub fn colour(stderr: bool) -> bool {
    let terminal = if stderr { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
