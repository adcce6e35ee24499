//! `host::sandbox` as `rnet run` uses it: by a process with one thread, as its only child.
//!
//! Without the test harness, because signals and the fork are a whole process's: this program runs itself as the one
//! under test (`run`, `abandon`, `wait`) and looks at it from outside. Needs root for namespaces; without it, it says
//! `skipped:` and shows nothing.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test, though not of the harness

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rnet::host::sandbox::{Network, Sandbox, find};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Starts over with default signals where some are ignored, as under nohup(1) or in the background of a script: what is ignored
/// at the start no shell can trap, and the programs of these tests trap signals.
fn signals_as_in_a_terminal() {
    const DONE: &str = "RNET_TEST_SIGNALS";
    if std::env::var_os(DONE).is_none() {
        let again = std::env::current_exe().unwrap();
        let mut env = std::process::Command::new("env");
        env.arg("--default-signal").arg(format!("{DONE}=default")).arg(again).args(std::env::args_os().skip(1));
        eprintln!("env: {}", std::os::unix::process::CommandExt::exec(&mut env));
        std::process::exit(1);
    }
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    signals_as_in_a_terminal();
    match arguments.split_first() {
        Some((mode, _)) if mode == "count" => count_interrupts(),
        Some((mode, command)) if ["run", "abandon", "wait"].iter().any(|m| mode == m) => under_test(mode, command),
        _ => check_all(&arguments),
    }
}

/// The program that is run: tells each interrupt that it gets and who sent it, until half a second after the first.
fn count_interrupts() -> ExitCode {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.thread_block().unwrap();
    let signals = SignalFd::new(&set).unwrap();
    println!("ready");
    let mut timeout = PollTimeout::NONE;
    while poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], timeout).unwrap() > 0 {
        let sent_by_a_process = signals.read_signal().unwrap().unwrap().ssi_code <= 0;
        println!("{}", if sent_by_a_process { "handed on" } else { "of the terminal" });
        timeout = PollTimeout::from(500u16);
    }
    ExitCode::SUCCESS
}

/// The process under test.
fn under_test(mode: &OsStr, command: &[OsString]) -> ExitCode {
    let resolv_conf = std::env::var("TEST_RESOLV_CONF").ok();
    let sandbox = match Sandbox::spawn(command, resolv_conf.as_deref().map(str::as_bytes), Network::New) {
        Ok(sandbox) => sandbox,
        Err(failure) => return failed(&failure),
    };
    if mode == "abandon" {
        return ExitCode::SUCCESS;
    }
    if mode == "wait" {
        println!("{}", sandbox.pid());
        std::thread::park();
    }
    match sandbox.go() {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap()),
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &rnet::host::sandbox::Failure) -> ExitCode {
    eprintln!("{failure}");
    ExitCode::from(u8::try_from(failure.status).unwrap())
}

type Check = (&'static str, fn());

const CHECKS: [Check; 12] = [
    ("passes_exit_status_and_streams_through", passes_exit_status_and_streams_through),
    ("tells_the_signal_that_ended_the_program", tells_the_signal_that_ended_the_program),
    ("a_missing_program_is_127_and_one_that_cannot_run_126", a_missing_program_is_127_and_one_that_cannot_run_126),
    ("the_program_has_a_network_namespace_with_a_loopback", the_program_has_a_network_namespace_with_a_loopback),
    ("the_program_does_not_see_passwords", the_program_does_not_see_passwords),
    ("resolv_conf_is_replaced_inside_only", resolv_conf_is_replaced_inside_only),
    ("a_signal_sent_to_us_alone_reaches_the_program_once", a_signal_sent_to_us_alone_reaches_the_program_once),
    ("a_signal_of_the_terminal_reaches_the_program_once", a_signal_of_the_terminal_reaches_the_program_once),
    ("stops_and_continues_with_the_program", stops_and_continues_with_the_program),
    ("the_program_ends_with_us_when_we_are_killed", the_program_ends_with_us_when_we_are_killed),
    ("never_runs_if_given_up", never_runs_if_given_up),
    ("never_runs_if_we_are_killed_before", never_runs_if_we_are_killed_before),
];

fn check_all(filter: &[OsString]) -> ExitCode {
    if run(&["true"]).output().unwrap().status.code() == Some(125) {
        println!("skipped: tests/sandbox: no network namespace can be made here (it needs root)");
        return ExitCode::SUCCESS;
    }
    let wanted =
        |name: &str| filter.iter().filter_map(|f| f.to_str()).filter(|f| !f.starts_with('-')).all(|f| name.contains(f));
    let mut failures = 0;
    for (name, check) in CHECKS.iter().filter(|(name, _)| wanted(name)) {
        let outcome = std::panic::catch_unwind(check);
        println!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        failures += u8::from(outcome.is_err());
    }
    ExitCode::from(failures)
}

/// This program in `mode` with a command.
fn me(mode: &str, command: &[&str]) -> Command {
    let mut me = Command::new(std::env::current_exe().unwrap());
    me.arg(mode).args(command);
    me
}

fn run(command: &[&str]) -> Command {
    me("run", command)
}

fn shell(script: &str) -> Command {
    run(&["sh", "-c", script])
}

/// Starts it and reads the first line that it says.
fn start(mut command: Command) -> (Child, BufReader<impl Read>, String) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    (child, said, line.trim().to_string())
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Whether the process ends (or is a zombie) within five seconds.
fn ends(pid: &str) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) if !stat.contains(") Z ") => std::thread::yield_now(),
            _ => return true,
        }
    }
    false
}

fn passes_exit_status_and_streams_through() {
    let mut child = shell("cat; echo aside >&2; exit 7")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.stdout, output.stderr, output.status.code()),
        (b"through".to_vec(), b"aside\n".to_vec(), Some(7))
    );
}

fn tells_the_signal_that_ended_the_program() {
    assert_eq!(shell("kill -KILL $$").status().unwrap().code(), Some(137));
    assert_eq!(shell("kill -TERM $$").status().unwrap().code(), Some(143));
    // A program dies of a closed pipe, although the runtime of this one ignores that signal.
    assert_eq!(shell("kill -PIPE $$").status().unwrap().code(), Some(141));
}

fn a_missing_program_is_127_and_one_that_cannot_run_126() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plain");
    fs::write(&file, "text").unwrap();
    let broken = dir.path().join("broken");
    fs::write(&broken, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    let (file, broken, dir) = (file.to_str().unwrap(), broken.to_str().unwrap(), dir.path().to_str().unwrap());
    for (command, status) in
        [("no-such-command", 127), ("/no/such", 127), ("", 127), (file, 126), (dir, 126), (broken, 127)]
    {
        let output = run(&[command]).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{command:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "one line for {command:?}");
    }
    assert_eq!(find(OsStr::new("no-such-command")).unwrap_err().status, 127);
    assert!(find(OsStr::new("sh")).unwrap().is_absolute());
}

fn the_program_has_a_network_namespace_with_a_loopback() {
    let output = shell("readlink /proc/self/ns/net; cat /proc/net/fib_trie; cat /proc/net/dev").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(said.starts_with("net:[") && !said.starts_with(own.to_str().unwrap()), "{said}");
    assert!(said.contains("127.0.0.1"), "the loopback is up: {said}");
    assert_eq!(
        said.lines().filter(|line| line.trim_start().starts_with("eth") || line.trim_start().starts_with("rn")).count(),
        0
    );
}

fn the_program_does_not_see_passwords() {
    let output = run(&["env"])
        .env("RNET_PASSWORD", "secret")
        .env("WEAVE_PASSWORD", "secret")
        .env("OTHER", "kept")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!said.contains("secret") && said.contains("OTHER=kept"), "{said}");
}

fn resolv_conf_is_replaced_inside_only() {
    let before = fs::read("/etc/resolv.conf").unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let marker = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    let script = format!("cat /etc/resolv.conf; test -e {}", marker.path().display());
    let output = shell(&script).env("TEST_RESOLV_CONF", "nameserver 10.2.1.53\n").output().unwrap();
    assert_eq!(
        (output.stdout, output.status.code()),
        (b"nameserver 10.2.1.53\n".to_vec(), Some(0)),
        "and /tmp is the host's"
    );
    assert_eq!(fs::read("/etc/resolv.conf").unwrap(), before);
    assert_eq!(fs::read_to_string("/proc/self/mounts").unwrap(), mounts);
}

fn a_signal_sent_to_us_alone_reaches_the_program_once() {
    for (signal, name) in
        [(Signal::SIGTERM, "TERM"), (Signal::SIGUSR1, "USR1"), (Signal::SIGHUP, "HUP"), (Signal::SIGINT, "INT")]
    {
        let script = format!("trap 'echo got' {name}; trap 'exit 3' USR2; echo ready; while :; do sleep 0.02; done");
        let (mut child, mut said, line) = start(shell(&script));
        assert_eq!(line, "ready");
        kill(pid(&child), signal).unwrap();
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "got\n");
        kill(pid(&child), Signal::SIGUSR2).unwrap();
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("", Some(3)), "{name}");
    }
}

fn a_signal_of_the_terminal_reaches_the_program_once() {
    let terminal = nix::pty::openpty(None, None).unwrap();
    let me = std::env::current_exe().unwrap();
    let mut session = Command::new("setsid");
    session.arg("--ctty").arg(&me).arg("run").arg(&me).arg("count").stdin(Stdio::from(terminal.slave));
    let (mut child, mut said, line) = start(session);
    assert_eq!(line, "ready");
    // Held back until the program has had its own, so that a second one could not hide behind the first.
    kill(pid(&child), Signal::SIGSTOP).unwrap();
    fs::File::from(terminal.master.try_clone().unwrap()).write_all(b"\x03").unwrap();
    let (mut first, mut rest) = (String::new(), String::new());
    said.read_line(&mut first).unwrap();
    kill(pid(&child), Signal::SIGCONT).unwrap();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!((first.as_str(), rest.as_str()), ("of the terminal\n", ""));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

fn stops_and_continues_with_the_program() {
    let (mut child, _said, program) = start(shell("trap 'exit 5' USR1; echo $$; while :; do sleep 0.02; done"));
    let program = Pid::from_raw(program.parse().unwrap());
    kill(program, Signal::SIGSTOP).unwrap();
    let stopped = waitpid(pid(&child), Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(stopped, WaitStatus::Stopped(pid(&child), Signal::SIGSTOP), "the shell's job is stopped");
    kill(pid(&child), Signal::SIGCONT).unwrap();
    kill(pid(&child), Signal::SIGUSR1).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

fn the_program_ends_with_us_when_we_are_killed() {
    let (mut child, _said, program) = start(shell("trap '' TERM HUP INT; echo $$; while :; do sleep 0.02; done"));
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let ended = ends(&program);
    if !ended {
        kill(Pid::from_raw(program.parse().unwrap()), Signal::SIGKILL).unwrap();
    }
    assert!(ended, "it outlived the process that it was run by");
}

fn never_runs_if_given_up() {
    let output = me("abandon", &["echo", "it ran"]).output().unwrap();
    assert_eq!((output.stdout, output.status.code()), (vec![], Some(0)));
}

fn never_runs_if_we_are_killed_before() {
    let (mut child, mut said, waiting) = start(me("wait", &["echo", "it ran"]));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ends(&waiting));
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}
