//! `rnet stop` and `rnet reset`.
//!
//! `stop --keep` leaves everything to the next launch, which takes it over as it does after a kill. All wait until the router's process is gone, seen by its pidfd, so that a launch right after them finds a free port.
//! `reset` removes what rnet made, by exact name, and nothing else: a directory that holds other files stays.

use super::args::{Router, Stop};
use super::{Failure, ask, launch, print, sources};
use crate::api::SOCKET;
use crate::api::client::Client;
use crate::api::report;
use crate::host::{Host, Keep, firewall};
use crate::io::capture::{CaptureKind, Options};
use crate::io::lock::{self, Lock};
use crate::io::pidfd::Pidfd;
use crate::node::command::Command;
use std::path::Path;
use std::time::Duration;

/// A router that has not ended by then hangs.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long the other hosts have to take over this one's addresses.
const FAREWELL: Duration = Duration::from_secs(5);

/// `rnet stop`.
pub fn stop(router: &Router, options: &Stop) -> Result<(), Failure> {
    let (run_dir, _) = sources::directories("stop", router)?;
    end("stop", &run_dir, if options.keep { Command::Halt } else { Command::Stop })
}

/// Has the router of this directory end so, and waits for it.
fn end(what: &str, run_dir: &Path, how: Command) -> Result<(), Failure> {
    ask::wait(what, async {
        // Opened before it is asked: afterwards its number could be another's.
        let process = lock::running(run_dir).and_then(|pid| Pidfd::open(pid).ok());
        match Client::new(run_dir).ask(how).await {
            Ok(_) => {}
            Err(why) => return Err(ask::trouble(what, &why)),
        }
        let Some(process) = process else { return Ok(()) };
        match tokio::time::timeout(PATIENCE, process.gone()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Failure::new(what, format!("the router has not ended within {} s", PATIENCE.as_secs()))),
        }
    })?
}

/// `rnet reset`.
pub fn reset(router: &Router, force: bool) -> Result<(), Failure> {
    let (run_dir, data_dir) = sources::directories("reset", router)?;
    if lock::running(&run_dir).is_some() {
        leave(&run_dir)?;
        end("reset", &run_dir, Command::Stop)?;
    } else if run_dir.join(SOCKET).exists() && !force {
        let why = "the router was killed, or stopped with --keep, and may have left interfaces behind; `rnet reset --force` \
                   removes them";
        return Err(Failure::new("reset", why));
    }
    let had_run_dir = run_dir.exists();
    // Nobody launches while things are removed.
    let lock = Lock::take(&run_dir).map_err(|why| Failure::new("reset", why))?;
    let swept = ask::wait("reset", async {
        let (events, _unheard) = tokio::sync::mpsc::unbounded_channel();
        Host::start(Options::plain(CaptureKind::Tap), events).await?.sweep(&Keep::default()).await
    })?;
    let swept = swept.map_err(|why| Failure::new("reset", why))?;
    if !swept.is_empty() {
        print::error_text(&format!("removed {}\n", swept.join(" ")));
    }
    let mut lines = Vec::new();
    if let Err(why) = firewall::switch_back(&run_dir) {
        lines.push(format!("reset: {why}"));
    }
    lines.extend(remove_files(&data_dir, is_data));
    lines.extend(remove_files(&run_dir, is_run));
    drop(lock);
    if !had_run_dir {
        let _ = std::fs::remove_dir(&run_dir);
    }
    if lines.is_empty() { Ok(()) } else { Err(Failure { lines, code: 1 }) }
}

/// Has the router give its addresses to the others, if they can be asked: the reset does not depend on it.
fn leave(run_dir: &Path) -> Result<(), Failure> {
    ask::wait("reset", async {
        let client = Client::new(run_dir);
        let status = client.status().await.map_err(|why| ask::trouble("reset", &why))?;
        let name = report::who(status.name, &status.nickname);
        let left = match tokio::time::timeout(FAREWELL, client.ask(Command::Leave)).await {
            Ok(answer) => answer.map(drop).map_err(|why| why.to_string()),
            Err(_) => Err("the other hosts that must agree are out of reach".to_string()),
        };
        if let Err(why) = left {
            let line = format!(
                "its addresses could not be given back: {why}; run `rnet rmpeer {}` on another host",
                status.name
            );
            print::error(&format!("reset: {name}: {line}"));
        }
        Ok(())
    })?
}

fn is_data(name: &str) -> bool {
    let plain = ["identity", "state", launch::LOG];
    let damaged = |kind: &str| {
        let number = name.strip_prefix(kind).and_then(|rest| rest.strip_prefix(".damaged-"));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    plain.contains(&name) || name == format!("{}.1", launch::LOG) || damaged("identity") || damaged("state")
}

fn is_run(name: &str) -> bool {
    name == SOCKET || name == "rnet.pid" || name == firewall::SWITCHED
}

/// Removes the files that are ours and the directory if nothing else is in it; answers what could not be removed.
fn remove_files(dir: &Path, is_ours: fn(&str) -> bool) -> Vec<String> {
    let mut failures = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_ours)
            && let Err(why) = std::fs::remove_file(entry.path())
        {
            failures.push(format!("reset: {}: {why}", entry.path().display()));
        }
    }
    // Fails if something of others is in it, or if it never was: both are as they should be.
    let _ = std::fs::remove_dir(dir);
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_removes_our_files_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let ours = ["identity", "state", "rnet.log", "rnet.log.1", "state.damaged-1", "identity.damaged-12"];
        let others = ["notes", "state.damaged-", "state.damaged-x", "identity.bak", "rnet.log.2"];
        for name in ours.iter().chain(&others) {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert!(remove_files(dir.path(), is_data).is_empty());
        let mut left: Vec<String> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        let mut expected = others.map(str::to_string);
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn reset_removes_a_directory_that_is_empty_then() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        std::fs::create_dir(&run).unwrap();
        std::fs::write(run.join("rnet.sock"), "").unwrap();
        assert!(remove_files(&run, is_run).is_empty());
        assert!(!run.exists());
        assert!(remove_files(&run, is_run).is_empty(), "a missing directory is no failure");
    }
}
