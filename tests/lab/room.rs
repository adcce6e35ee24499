//! A room: hosts in namespaces, their lines, the processes in them.
//!
//! Everything lives in one pid namespace whose first process reads from a pipe that the test holds. When the room is
//! dropped, or the test process dies in any way, the pipe closes, that process ends, and the kernel kills all others; then
//! namespaces, interfaces and mounts go, for nothing else holds them. Nothing has a name outside of the room.

use crate::wait::{until, within};
use rnet::node::status::{ConnectionState, Status};
use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

/// The program under test.
pub const RNET: &str = env!("CARGO_BIN_EXE_rnet");

/// Time for anything that should not take long, generous for a loaded machine of two cores.
pub const SOON: Duration = Duration::from_secs(20);

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why there cannot be a room on this machine, if so.
pub fn possible() -> Result<(), String> {
    let tools = ["unshare", "nsenter", "ip", "tc", "ethtool", "nft", "ping", "curl", "script", "python3", "setpriv"];
    for tool in tools.into_iter().chain(["hostname"]) {
        let found = PATH.split(':').any(|dir| Path::new(dir).join(tool).exists());
        found.then_some(()).ok_or(format!("the program {tool} is missing"))?;
    }
    let (dir, init) = (tempfile::tempdir().map_err(|e| e.to_string())?, include_str!("init.sh"));
    let mut try_it = unshare(&["--fork", "--pid", "--mount", "--net"], init, dir.path(), &[]);
    let output = try_it.stdin(Stdio::null()).output().map_err(|e| format!("unshare: {e}"))?;
    let why = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    if output.status.success() { Ok(()) } else { Err(format!("the kernel refuses namespaces: {why}")) }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// `unshare` with a user namespace where needed, running a script with `dir` and more arguments.
fn unshare(kinds: &[&str], script: &str, dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.env("PATH", PATH);
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(kinds).args(["--propagation", "private", "sh", "-c", script, "sh"]).arg(dir).args(more);
    command
}

struct Walls {
    /// Ends the room when its pipe closes.
    init: Child,
    /// The first process, as this process sees it.
    pid: u32,
    dir: tempfile::TempDir,
    lines: Cell<u8>,
    files: Cell<u32>,
}

impl Walls {
    fn enter(&self, pid: u32, kinds: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C").env("HOME", "/").env("RUST_BACKTRACE", "1");
        command.args(["--target", &pid.to_string()]);
        if !is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(kinds).arg("--");
        command
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.files.set(self.files.get() + 1);
        self.dir.path().join(format!("{}.{kind}", self.files.get()))
    }
}

impl Drop for Walls {
    fn drop(&mut self) {
        drop(self.init.stdin.take());
        let _ = self.init.wait();
    }
}

/// See the head of this file.
#[derive(Clone)]
pub struct Room(Rc<Walls>);

impl Room {
    /// An empty room.
    pub fn new() -> Room {
        let dir = tempfile::Builder::new().prefix("rnet-lab.").tempdir().unwrap();
        // Unprivileged users of the room look in too.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let kinds = ["--fork", "--pid", "--mount", "--net"];
        let mut init = unshare(&kinds, include_str!("init.sh"), dir.path(), &[])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = first_line(&mut init).parse().expect("the room's first process tells its pid");
        fs::write(dir.path().join("pw"), "correct horse battery staple\n").unwrap();
        fs::write(dir.path().join("other-pw"), "wrong horse\n").unwrap();
        Room(Rc::new(Walls { init, pid, dir, lines: Cell::new(0), files: Cell::new(0) }))
    }

    /// A host without lines.
    pub fn host(&self, name: &str) -> Host {
        let mut command = self.0.enter(self.0.pid, &["--pid", "--mount", "--net"]);
        command.args([
            "unshare",
            "--mount",
            "--net",
            "--uts",
            "--propagation",
            "private",
            "sh",
            "-c",
            include_str!("host.sh"),
            "sh",
        ]);
        command.arg(self.0.dir.path()).arg(name).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        let line = first_line(&mut holder);
        let (pid, inside) = line.split_once(' ').expect("a host tells its pids");
        let (pid, inside) = (pid.parse().unwrap(), inside.parse().unwrap());
        let dir = self.0.dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        Host { room: self.clone(), name: name.into(), holder, pid, inside, dir, addresses: RefCell::default() }
    }

    /// Hosts each joined to the next.
    pub fn chain<const N: usize>(&self, names: [&str; N]) -> [Host; N] {
        let hosts = names.map(|name| self.host(name));
        hosts.windows(2).for_each(|pair| self.join(&pair[0], &pair[1]));
        hosts
    }

    /// Draws a line between two hosts, 1500 bytes wide.
    pub fn join(&self, one: &Host, other: &Host) {
        let line = self.0.lines.get() + 1;
        self.0.lines.set(line);
        let (to, from) = (format!("to-{}", other.name), format!("to-{}", one.name));
        let pid = other.inside.to_string();
        one.sh(&format!("ip link add {to} type veth peer name {from} netns {pid}"));
        for (host, end, interface, peer) in [(one, 1, &to, other), (other, 2, &from, one)] {
            let address = format!("10.200.{line}.{end}");
            host.sh(&format!("ip address add {address}/24 dev {interface} && ip link set {interface} up"));
            host.addresses.borrow_mut().push((peer.name.clone(), address));
        }
    }

    /// A file in the room: `pw`, `other-pw`.
    pub fn path(&self, name: &str) -> String {
        self.0.dir.path().join(name).to_str().unwrap().into()
    }
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim().into()
}

/// A machine of the lab.
pub struct Host {
    room: Room,
    /// Its host name.
    pub name: String,
    holder: Child,
    /// The holder of its namespaces, as this process sees it.
    pid: u32,
    /// The same, as the room sees it.
    pub inside: u32,
    dir: PathBuf,
    addresses: RefCell<Vec<(String, String)>>,
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// What a finished program left.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status; 128 + signal where it was killed.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Its standard output; panics unless it succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// Panics unless it failed with `code`, with exactly one line on stderr that begins with `rnet: ` and has all these words.
    #[track_caller]
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert!(lines.len() == 1 && lines[0].starts_with("rnet: "), "not exactly one line `rnet: ...`: {self:?}");
        for word in words {
            assert!(lines[0].contains(word), "{word:?} is not in: {}", lines[0]);
        }
        assert!(self.stdout.is_empty(), "{self:?}");
    }
}

impl Host {
    /// A command in this host's namespaces; its router is found by the environment.
    fn command(&self, argv: &[&str]) -> Command {
        let mut command = self.room.0.enter(self.pid, &["--pid", "--mount", "--net", "--uts"]);
        command.env("RNET_RUN_DIR", self.run_dir()).env("RNET_DATA_DIR", self.data_dir());
        // A user's namespace may not open the device that the machine's root owns.
        if File::options().read(true).write(true).open("/dev/net/tun").is_err() {
            command.env("RNET_CAPTURE", "pcap");
        }
        command.args(argv);
        command
    }

    /// Where the router's socket is.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Where the router's state is.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Its address on the line to `other`.
    #[track_caller]
    pub fn toward(&self, other: &Host) -> String {
        let found =
            self.addresses.borrow().iter().find(|(name, _)| *name == other.name).map(|(_, address)| address.clone());
        found.expect("a line between the two")
    }

    /// A process in its network namespace, as the room sees it.
    pub fn pid_inside(&self) -> u32 {
        self.inside
    }

    /// Whether there is a line between the two.
    pub fn is_joined(&self, other: &Host) -> bool {
        self.addresses.borrow().iter().any(|(name, _)| *name == other.name)
    }

    /// Runs to the end, within a bounded time.
    #[track_caller]
    pub fn run(&self, argv: &[&str]) -> Outcome {
        self.start(argv).finish(SOON)
    }

    /// Runs a shell script that must succeed; gives its output.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.run(&["sh", "-ec", script]).ok()
    }

    /// Runs rnet to the end.
    #[track_caller]
    pub fn rnet(&self, arguments: &[&str]) -> Outcome {
        self.run(&[&[RNET], arguments].concat())
    }

    /// Starts a program that goes on.
    #[track_caller]
    pub fn start(&self, argv: &[&str]) -> Process {
        self.start_with(argv, Stdio::null())
    }

    /// As `start`, with an input.
    #[track_caller]
    pub fn start_with(&self, argv: &[&str], input: Stdio) -> Process {
        let [pid, stdout, stderr] = ["pid", "out", "err"].map(|kind| self.room.0.file(kind));
        // The shell becomes the program, so the pid that it writes is the program's, as the room sees it.
        let mut command = self.command(&[
            "sh",
            "-c",
            "echo $$ >\"$0.new\" && mv \"$0.new\" \"$0\" && exec \"$@\"",
            pid.to_str().unwrap(),
        ]);
        command.args(argv).stdin(input);
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        let child = command.spawn().unwrap();
        let text = within(SOON, "a program starts", || fs::read_to_string(&pid).ok());
        Process { room: self.room.clone(), child, pid: text.trim().parse().unwrap(), stdout, stderr }
    }

    /// Launches an encrypted router that dials `peers`; it is ready when this returns.
    #[track_caller]
    pub fn launch(&self, peers: &[&str]) {
        self.launch_with(&["--password-file", &self.room.path("pw")], peers).ok();
    }

    /// Launches a router with these options.
    #[track_caller]
    pub fn launch_with(&self, options: &[&str], peers: &[&str]) -> Outcome {
        self.rnet(&[&["launch"], options, peers].concat())
    }

    /// The router's own view.
    #[track_caller]
    pub fn status(&self) -> Status {
        let text = self.rnet(&["status", "--json"]).ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// Waits until the router has this many links over which traffic flows.
    #[track_caller]
    pub fn linked(&self, links: usize) {
        let established = |s: &Status| s.connections.iter().filter(|c| c.state == ConnectionState::Established).count();
        let mut last = None;
        until(SOON, &format!("{} has {links} links", self.name), || {
            let status = self.status();
            let enough = established(&status) == links;
            last = Some(status);
            enough
        });
    }

    /// Waits for a connection whose info has all these words, and gives it.
    #[track_caller]
    pub fn told(&self, words: &[&str]) -> rnet::node::status::Connection {
        let what = format!("{} shows a connection with {words:?} in its info", self.name);
        within(SOON, &what, || {
            self.status().connections.into_iter().find(|c| words.iter().all(|word| c.info.contains(word)))
        })
    }

    /// Pids in the room whose program has this name, as the room sees them.
    #[track_caller]
    pub fn others(&self, program: &str) -> Vec<String> {
        let text = self.sh(&format!("grep -lx {program} /proc/[0-9]*/comm 2>/dev/null || true"));
        text.lines().filter_map(|path| path.split('/').nth(2)).map(str::to_string).collect()
    }

    /// The router's process, as the room sees it.
    #[track_caller]
    pub fn router_pid(&self) -> u32 {
        let file = fs::read_to_string(self.run_dir().join("rnet.pid")).expect("the router's pid file");
        let pid = file.trim().to_string();
        assert!(self.others("rnet").contains(&pid), "the pid file names {pid}, which is no rnet");
        pid.parse().unwrap()
    }

    /// Kills the router without a chance to clean up.
    #[track_caller]
    pub fn murder(&self) {
        let pid = self.router_pid();
        self.sh(&format!("kill -KILL {pid}"));
        until(SOON, "the router is dead", || self.run(&["test", "-d", &format!("/proc/{pid}")]).code != 0);
    }

    /// Names of all interfaces that rnet made here.
    #[track_caller]
    pub fn interfaces(&self) -> Vec<String> {
        let text = self.sh("ip -o link show");
        let names = text.lines().filter_map(|line| line.split(": ").nth(1));
        names
            .map(|name| name.split('@').next().unwrap_or(name).to_string())
            .filter(|name| name.starts_with("rn"))
            .collect()
    }

    /// Panics unless nothing of rnet is here: no interface, no process, no socket.
    #[track_caller]
    pub fn is_clean(&self) {
        assert_eq!(self.interfaces(), Vec::<String>::new(), "interfaces left on {}", self.name);
        let sockets =
            self.sh("ss -Hltun 2>/dev/null || cat /proc/net/tcp /proc/net/udp | grep -iE ':1a(7f|80)' || true");
        let ports = ["6783", "6784", "1A7F", "1A80"];
        assert!(ports.iter().all(|port| !sockets.contains(port)), "sockets left on {}: {sockets}", self.name);
        let socket = self.run_dir().join("rnet.sock");
        assert!(!socket.exists(), "{} is left", socket.display());
    }

    /// `rnet run` of something that stays, on these addresses; it is on the mesh when this returns.
    #[track_caller]
    pub fn container(&self, addresses: &[&str]) -> Container<'_> {
        self.container_running(addresses, &[], "exec sleep 600")
    }

    /// As `container`, with more options and a shell script that goes on.
    #[track_caller]
    pub fn container_running(&self, addresses: &[&str], options: &[&str], script: &str) -> Container<'_> {
        let pid = self.room.0.file("inner");
        let script = format!("echo $$ >{0}.new && mv {0}.new {0} && {script}", pid.display());
        let mut argv = vec![RNET, "run"];
        addresses.iter().for_each(|address| argv.extend(["--cidr", address]));
        argv.extend(options);
        argv.extend(["--", "sh", "-c", &script]);
        let mut process = self.start(&argv);
        let text = within(SOON, "the container runs", || {
            if let Some(outcome) = process.finished() {
                panic!("rnet run ended early: {outcome:?}");
            }
            fs::read_to_string(&pid).ok()
        });
        Container { host: self, process, pid: text.trim().parse().unwrap() }
    }
}

/// A running program of a host.
pub struct Process {
    room: Room,
    child: Child,
    /// As the room sees it.
    pub pid: u32,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// What it wrote so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap()).into_owned()
    }

    /// What it complained about so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned()
    }

    /// Sends a signal by name (`TERM`).
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let mut command = self.room.0.enter(self.room.0.pid, &["--pid", "--mount"]);
        assert!(command.args(["sh", "-c", &format!("kill -{name} {}", self.pid)]).status().unwrap().success());
    }

    /// Writes to its input, which must be a pipe.
    pub fn type_in(&mut self, bytes: &[u8]) {
        self.child.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Closes its input, if that is a pipe.
    pub fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// How it ended, if it has.
    pub fn finished(&mut self) -> Option<Outcome> {
        let status = self.child.try_wait().unwrap()?;
        Some(Outcome { code: code_of(status), stdout: self.stdout(), stderr: self.stderr() })
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(mut self, limit: Duration) -> Outcome {
        within(limit, &format!("process {} ends", self.pid), || self.finished())
    }

    /// Ends it and gives what it wrote.
    #[track_caller]
    pub fn end(mut self, signal: &str) -> Outcome {
        if self.finished().is_none() {
            self.signal(signal);
        }
        self.finish(SOON)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let mut command = self.room.0.enter(self.room.0.pid, &["--pid", "--mount"]);
            let _ = command.args(["sh", "-c", &format!("kill -KILL {}", self.pid)]).stderr(Stdio::null()).status();
            let _ = self.child.wait();
        }
    }
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// Something under `rnet run`.
pub struct Container<'h> {
    host: &'h Host,
    /// The `rnet run` itself.
    pub process: Process,
    /// The program under it, as the room sees it.
    pub pid: u32,
}

impl Container<'_> {
    fn argv<'a>(pid: &'a str, argv: &[&'a str]) -> Vec<&'a str> {
        [&["nsenter", "--target", pid, "--net", "--"], argv].concat()
    }

    /// Runs a program in its network namespace to the end.
    #[track_caller]
    pub fn run(&self, argv: &[&str]) -> Outcome {
        self.host.run(&Self::argv(&self.pid.to_string(), argv))
    }

    /// Starts a program in its network namespace that goes on.
    #[track_caller]
    pub fn start(&self, argv: &[&str]) -> Process {
        self.host.start(&Self::argv(&self.pid.to_string(), argv))
    }

    /// As `start`, with an input.
    #[track_caller]
    pub fn start_with(&self, argv: &[&str], input: Stdio) -> Process {
        self.host.start_with(&Self::argv(&self.pid.to_string(), argv), input)
    }

    /// Runs a shell script in its network namespace that must succeed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.run(&["sh", "-ec", script]).ok()
    }

    /// Whether one echo request is answered within half a second.
    #[track_caller]
    pub fn pings(&self, address: &str) -> bool {
        self.run(&["ping", "-nq", "-c1", "-W0.5", address]).code == 0
    }

    /// Waits for an answer from `address`.
    #[track_caller]
    pub fn reaches(&self, address: &str) -> Duration {
        until(SOON, &format!("{address} answers"), || self.pings(address))
    }

    /// Panics if `address` answers any of three requests.
    #[track_caller]
    pub fn never_reaches(&self, address: &str) {
        let outcome = self.run(&["ping", "-nq", "-c3", "-i0.2", "-W0.5", address]);
        assert_ne!(outcome.code, 0, "{address} answers");
    }

    /// Starts a steady stream of echo requests, twenty a second; see [`Stream::unharmed`].
    #[track_caller]
    pub fn stream(&self, address: &str) -> Stream {
        self.reaches(address);
        Stream(self.start(&["ping", "-n", "-i0.05", "-W1", address]))
    }

    /// MAC address of one of its interfaces.
    #[track_caller]
    pub fn mac(&self, interface: &str) -> String {
        let text = self.sh(&format!("ip -o link show {interface}"));
        let mac = text.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
        mac.expect("a MAC address").into()
    }
}

/// Traffic of others while something bad happens.
pub struct Stream(Process);

impl Stream {
    /// Panics if a single answer is missing or came twice.
    #[track_caller]
    pub fn unharmed(self) {
        until(SOON, "the stream has run for a while", || self.0.stdout().matches("icmp_seq=").count() >= 20);
        let outcome = self.0.end("INT");
        let line = outcome
            .stdout
            .lines()
            .find(|line| line.contains("packets transmitted"))
            .expect("ping's summary")
            .to_string();
        let number = |word: &str| -> u64 {
            let words: Vec<&str> = line.split([' ', ',']).filter(|w| !w.is_empty()).collect();
            let at = words.iter().position(|w| *w == word).expect("ping's summary");
            words[..at].iter().rev().find_map(|w| w.parse().ok()).expect("a number")
        };
        // The last request may still be under way when the stream ends.
        assert!(number("received") + 1 >= number("transmitted"), "the stream lost frames: {line}");
        assert!(!outcome.stdout.contains("DUP!"), "frames came twice: {}", outcome.stdout);
    }
}
