//! The demo's hosts, routers and containers, and their removal.
//!
//! A host is a network namespace that has no name: only the descriptor here and the processes in it hold it, so it goes with
//! them, and all its interfaces too. Routers and containers are children of this process, in process groups of
//! their own so that Ctrl-C comes to this process alone, which ends them in the right order; they are killed if the stage
//! is dropped before that. Files are in one directory.

use super::Step;
use crate::io::netlink::{Netlink, Veth};
use crate::io::netns::Netns;
use crate::types::HostAddress;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::time::{interval, timeout};

/// What takes longer than this does not work.
const LIMIT: Duration = Duration::from_secs(15);
/// Time that a process gets to end by itself.
const FAREWELL: Duration = Duration::from_secs(5);

struct Host {
    name: &'static str,
    namespace: Netns,
    netlink: Netlink,
    /// Files of its router.
    dir: PathBuf,
    router: Option<Child>,
    /// Its address on the line to another host.
    lines: Vec<(usize, IpAddr)>,
}

/// A running container.
pub struct Container {
    /// As `rnet ps` calls it.
    pub name: &'static str,
    /// Of the host it is on.
    pub host: &'static str,
    /// On the mesh.
    pub address: HostAddress,
    namespace: Netns,
}

impl Container {
    /// Its network namespace.
    pub fn namespace(&self) -> &Netns {
        &self.namespace
    }

    /// Its address without the prefix length.
    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// Whether the two are on one network and should reach each other.
    pub fn friend_of(&self, other: &Container) -> bool {
        self.address.network() == other.address.network()
    }
}

/// See the head of this file.
pub struct Stage {
    program: PathBuf,
    dir: PathBuf,
    hosts: Vec<Host>,
    /// The `rnet run` of each container.
    runs: Vec<Child>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The children are killed by their own drop. Nothing is to be told to anybody here.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn failed<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> String + '_ {
    move |why| format!("{what}: {why}")
}

impl Stage {
    /// Nothing but a directory with a password.
    pub fn new() -> Step<Stage> {
        if !nix::unistd::geteuid().is_root() {
            return Err("it makes network namespaces, which needs root: sudo rnet demo".into());
        }
        let program = std::env::current_exe().map_err(failed("finding this program"))?;
        let template = std::env::temp_dir().join("rnet-demo.XXXXXX");
        let dir = nix::unistd::mkdtemp(&template).map_err(failed("making a directory"))?;
        let stage = Stage { program, dir, hosts: Vec::new(), runs: Vec::new() };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(stage.dir.join("password")).map_err(failed("writing the password"))?;
        let seed = crate::io::entropy::seed().map_err(failed("making a password"))?;
        let password: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        file.write_all(password.as_bytes()).map_err(failed("writing the password"))?;
        Ok(stage)
    }

    /// Adds a host without lines.
    pub async fn host(&mut self, name: &'static str) -> Step<()> {
        let what = format!("making the host {name}");
        let namespace = Netns::create().map_err(|why| match why.kind() {
            io::ErrorKind::PermissionDenied => {
                format!("{what}: the kernel does not allow network namespaces here: {why}")
            }
            _ => format!("{what}: {why}"),
        })?;
        let netlink = Netlink::open_in(&namespace).map_err(failed(&what))?;
        netlink.set_up("lo").await.map_err(failed(&what))?;
        let dir = self.dir.join(name);
        fs::create_dir(&dir).map_err(failed(&what))?;
        self.hosts.push(Host { name, namespace, netlink, dir, router: None, lines: Vec::new() });
        Ok(())
    }

    fn at(&self, host: usize) -> Step<&Host> {
        self.hosts.get(host).ok_or_else(|| format!("there is no host {host}"))
    }

    /// Draws a line between two hosts.
    pub async fn join(&mut self, one: usize, other: usize) -> Step<()> {
        let (near, far) = (self.at(one)?, self.at(other)?);
        let names = [format!("to-{}", far.name), format!("to-{}", near.name)];
        let [name, peer] = &names;
        let veth = Veth { name, peer, inside: Some(&far.namespace), mac: None, mtu: 1500 };
        near.netlink.add_veth(veth).await.map_err(failed("joining the hosts"))?;
        let mut ends = Vec::new();
        for (host, name, end) in [(near, name, 1), (far, peer, 2)] {
            let address: HostAddress = format!("10.200.{one}.{end}/24").parse().map_err(failed("joining the hosts"))?;
            host.netlink.add_address(name, address).await.map_err(failed("joining the hosts"))?;
            host.netlink.set_up(name).await.map_err(failed("joining the hosts"))?;
            ends.push(address.ip());
        }
        for (host, to, address) in [(one, other, ends.first()), (other, one, ends.last())] {
            if let (Some(host), Some(address)) = (self.hosts.get_mut(host), address) {
                host.lines.push((to, *address));
            }
        }
        Ok(())
    }

    /// The address of `host` on its line to `other`.
    pub fn address(&self, host: usize, other: usize) -> Step<IpAddr> {
        let found = self.at(host)?.lines.iter().find(|(to, _)| *to == other);
        found.map(|(_, address)| *address).ok_or_else(|| "these hosts have no line".to_string())
    }

    /// This program on a host, for the router there.
    fn rnet(&self, host: &Host, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments.first()).arg("--run-dir").arg(host.dir.join("run"));
        command.arg("--data-dir").arg(host.dir.join("data")).args(arguments.get(1..).unwrap_or_default());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RNET_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::null()).process_group(0).kill_on_drop(true);
        command
    }

    /// Starts a child that is in the namespace of `host`.
    fn spawn(host: &Host, mut command: Command) -> io::Result<Child> {
        let runtime = Handle::current();
        host.namespace.within(move || {
            let _entered = runtime.enter();
            command.spawn()
        })
    }

    /// Launches a router that dials these peers, and waits until it is ready.
    pub async fn launch(&mut self, host: usize, peers: &[IpAddr]) -> Step<()> {
        let on = self.at(host)?;
        let what = format!("the router on {}", on.name);
        let password = self.dir.join("password");
        let mut command = self.rnet(on, &["launch", "--foreground", "--nickname", on.name, "--password-file"]);
        command.arg(password).args(peers.iter().map(IpAddr::to_string));
        // In some containers, and in a user's own namespaces, the device is missing or another's.
        if OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_err() {
            command.args(["--capture", "pcap"]);
        }
        let log = on.dir.join("log");
        command.stderr(File::create(&log).map_err(failed(&what))?);
        let mut router = Stage::spawn(on, command).map_err(failed(&what))?;
        let (end, mut look) = (Instant::now() + LIMIT, interval(Duration::from_millis(25)));
        while self.ask(on, &["status"]).await.is_err() {
            look.tick().await;
            let ended = router.try_wait().map_err(failed(&what))?.is_some();
            if ended || Instant::now() > end {
                let last = fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("{what} did not start: {}", last.lines().last().unwrap_or("it says nothing")));
            }
        }
        if let Some(on) = self.hosts.get_mut(host) {
            on.router = Some(router);
        }
        Ok(())
    }

    async fn ask(&self, host: &Host, arguments: &[&str]) -> Step<String> {
        let mut command = self.rnet(host, arguments);
        command.stdout(Stdio::piped());
        let what = format!("rnet {} on {}", arguments.join(" "), host.name);
        let child = Stage::spawn(host, command).map_err(failed(&what))?;
        let output = timeout(LIMIT, child.wait_with_output()).await.map_err(failed(&what))?.map_err(failed(&what))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(text) } else { Err(format!("{what}: {}", output.status)) }
    }

    /// What `rnet <arguments>` prints on a host.
    pub async fn status(&self, host: usize, arguments: &[&str]) -> Step<String> {
        self.ask(self.at(host)?, arguments).await
    }

    /// `rnet run` of the demo's server on a host.
    pub async fn contain(&mut self, host: usize, name: &'static str, address: &str) -> Step<Arc<Container>> {
        let on = self.at(host)?;
        let what = format!("the container {name} on {}", on.name);
        let address: HostAddress = address.parse().map_err(failed(&what))?;
        let mut command = self.rnet(on, &["run", "--name", name, "--cidr"]);
        command.arg(address.to_string()).arg("--").arg(&self.program).args(["demo", super::traffic::SERVE]);
        let log = on.dir.join(format!("{name}.log"));
        command.stdout(Stdio::piped()).stderr(File::create(&log).map_err(failed(&what))?);
        let mut run = Stage::spawn(on, command).map_err(failed(&what))?;
        let (host, mut line) = (on.name, String::new());
        if let Some(stdout) = run.stdout.take() {
            let mut stdout = BufReader::new(stdout);
            timeout(LIMIT, stdout.read_line(&mut line)).await.map_err(failed(&what))?.map_err(failed(&what))?;
        }
        let Some(pid) = line.trim().strip_prefix("ready ").and_then(|pid| pid.parse().ok()) else {
            let why = fs::read_to_string(&log).unwrap_or_default();
            return Err(format!("{what} did not start: {}", why.lines().last().unwrap_or("it says nothing")));
        };
        let namespace = Netns::of_process(pid).map_err(failed(&what))?;
        self.runs.push(run);
        Ok(Arc::new(Container { name, host, address, namespace }))
    }

    /// Ends containers, then routers; with them go namespaces, interfaces and files.
    pub async fn remove(mut self) -> Step<()> {
        let runs: Vec<Child> = std::mem::take(&mut self.runs);
        end(runs).await;
        let routers: Vec<Child> = self.hosts.iter_mut().filter_map(|host| host.router.take()).collect();
        end(routers).await;
        for host in &self.hosts {
            let links = host.netlink.links().await.map_err(failed("looking for leftovers"))?;
            let left: Vec<String> =
                links.into_iter().map(|link| link.name).filter(|name| name.starts_with("rn")).collect();
            if !left.is_empty() {
                return Err(format!(
                    "the router on {} left {}; they go with its namespace",
                    host.name,
                    left.join(", ")
                ));
            }
        }
        fs::remove_dir_all(&self.dir).map_err(failed("removing the directory"))
    }
}

/// Asks all to end, and kills who does not.
async fn end(children: Vec<Child>) {
    let pid = |child: &Child| child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    // A child that was not waited for keeps its number, so nobody else can be hit.
    for pid in children.iter().filter_map(pid) {
        let _ = kill(pid, Signal::SIGTERM);
    }
    for mut child in children {
        if timeout(FAREWELL, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
    }
}
