//! The command line as definitions: help, shell completion and man pages are made of these.
//!
//! Values of `launch` stay texts here: `config` parses them together with environment and file, so that every fault is
//! reported at once and in one voice. Examples stand in `after_help`, a few for each command (`examples`).

mod examples;

use super::bridge::{BRIDGE, Bridge};
use crate::types::PortMap;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use examples::{ATTACH, CONNECT, DEMO, EXPOSE, FORGET, LAUNCH, OVERVIEW, PUBLISH, RESET, RMPEER, RUN, STATUS, STOP};
use std::ffi::OsString;

/// A virtual switch and router that joins containers and processes of many hosts into private encrypted networks
#[derive(Debug, Parser)]
#[command(name = "rnet", version, after_help = OVERVIEW, max_term_width = 120, disable_help_subcommand = false)]
pub struct Cli {
    /// Which router is meant.
    #[command(flatten)]
    pub router: Router,
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

/// Which of this machine's routers a command is for.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which router")]
pub struct Router {
    /// Directory of its control socket and lock [default: /run/rnet] [env: RNET_RUN_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub run_dir: Option<String>,
    /// Directory of its identity, state and log [default: /var/lib/rnet] [env: RNET_DATA_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// TOML file with options by their long names [env: RNET_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<String>,
}

/// The subcommands, in the order of a router's life.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the router and join the mesh of the given peers
    Launch(Box<Launch>),
    /// Stop the router and remove its interfaces, or keep them for the next launch
    #[command(after_help = STOP)]
    Stop(Stop),
    /// Stop the router and forget everything: interfaces, identity, state
    #[command(after_help = RESET)]
    Reset(Reset),
    /// Add peers to dial, or join a VXLAN tunnel end that is not rnet to a network
    #[command(after_help = CONNECT)]
    Connect(Connect),
    /// Stop dialling peers (connections that stand are kept), or take a VXLAN tunnel end off a network
    #[command(after_help = FORGET)]
    Forget(Forget),
    /// Bring an interface of this host, and the segment behind it, onto a network of the mesh
    #[command(after_help = BRIDGE)]
    Bridge(Bridge),
    /// Run a command in a network namespace of its own, on the mesh
    #[command(after_help = RUN)]
    Run(Run),
    /// Put a running container, process or namespace on the mesh
    #[command(after_help = ATTACH)]
    Attach(Attach),
    /// Take a container, process or namespace off the mesh
    #[command(after_help = "Examples:\n  rnet detach web\n  rnet detach 10.2.1.1/24 pid:4711")]
    Detach(Detach),
    /// Give this host an address on the mesh, and its containers a way out
    #[command(after_help = EXPOSE)]
    Expose(Expose),
    /// Take this host's addresses off the mesh
    #[command(after_help = "Examples:\n  rnet hide\n  rnet hide 10.2.1.254/24")]
    Hide(Addresses),
    /// Lead a port of this host to a port of what is attached here
    #[command(after_help = PUBLISH)]
    Publish(Ports),
    /// End that; all of its ports if none is given
    #[command(after_help = "Examples:\n  rnet unpublish web\n  rnet unpublish 8091:8090 web")]
    Unpublish(Ports),
    /// List what is attached here: name or id, MAC, addresses
    #[command(after_help = "Examples:\n  rnet ps\n  rnet ps web --json")]
    Ps(Ps),
    /// Show the router, its connections, peers, targets or networks
    #[command(after_help = STATUS)]
    Status(Status),
    /// Show everything as JSON, our public key included
    #[command(after_help = "Example:\n  rnet report | jq -r .public_key")]
    Report,
    /// Take over the addresses of dead peers
    #[command(after_help = RMPEER)]
    Rmpeer(Peers),
    /// Wait until addresses can be allocated
    #[command(after_help = "Example:\n  rnet prime && rnet run --cidr net:default -- ./server")]
    Prime,
    /// Show on this machine alone what rnet does: three hosts in namespaces, two networks, one mesh
    #[command(after_help = DEMO)]
    Demo(Demo),
    /// Print the version of this program, and of the router if it runs
    Version,
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  rnet completions bash > /etc/bash_completion.d/rnet")]
    Completions(Completions),
    /// Print the manual page of rnet or of one of its commands
    #[command(after_help = "Examples:\n  rnet man | man -l -\n  rnet man launch > rnet-launch.1")]
    Man(Man),
}

/// Options of `launch`; see `config` for what they may be.
#[derive(Debug, Default, Args)]
#[command(after_help = LAUNCH)]
pub struct Launch {
    /// Peers to connect to: addresses or names, with a port if theirs is another [env: RNET_PEERS]
    #[arg(value_name = "PEER")]
    pub peers: Vec<String>,
    /// TCP and UDP port, the same on every host [default: 6783] [env: RNET_PORT]
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
    /// Address of this host to listen on [default: all] [env: RNET_HOST]
    #[arg(long, visible_alias = "listen", value_name = "ADDRESS")]
    pub host: Option<String>,
    /// What people call this peer [default: the host's name] [env: RNET_NICKNAME]
    #[arg(long, value_name = "NAME")]
    pub nickname: Option<String>,
    /// File whose first line is the mesh's password [env: RNET_PASSWORD_FILE]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<String>,
    /// The mesh's password; `-` reads it from the terminal or standard input; prefer --password-file [env: RNET_PASSWORD]
    #[arg(long, value_name = "PASSWORD|-", allow_hyphen_values = true)]
    pub password: Option<String>,
    /// Public keys that may join, as `rnet report` shows them; may be repeated [env: RNET_ALLOW]
    #[arg(long, value_name = "KEY")]
    pub allow: Vec<String>,
    /// File with one such key in each line [env: RNET_ALLOW_FILE]
    #[arg(long, value_name = "FILE")]
    pub allow_file: Option<String>,
    /// Connect only to the peers given, not to those that they know [env: RNET_NO_DISCOVERY]
    #[arg(long)]
    pub no_discovery: bool,
    /// Links with other peers at most; traffic between all others takes paths without links [default: 100] [env: RNET_CONN_LIMIT]
    #[arg(long, value_name = "NUMBER")]
    pub conn_limit: Option<String>,
    /// Address, or address:port, at which others reach this host; told before the addresses of its interfaces; may be
    /// repeated [env: RNET_ADVERTISE]
    #[arg(long, value_name = "ADDRESS")]
    pub advertise: Vec<String>,
    /// Interfaces whose addresses are told to others, such as eth0,en* or !tun0 [default: all but those of containers]
    /// [env: RNET_INTERFACE_FILTER]
    #[arg(long, value_name = "NAMES")]
    pub interface_filter: Option<String>,
    /// Where `net:` addresses come from, the same on every host: CIDRs, comma-separated or repeated; "" for none
    /// [default: 10.32.0.0/12] [env: RNET_IPALLOC_RANGE]
    #[arg(long, value_name = "CIDR")]
    pub ipalloc_range: Vec<String>,
    /// What `net:default` means [default: the first range] [env: RNET_IPALLOC_DEFAULT_SUBNET]
    #[arg(long, value_name = "CIDR")]
    pub ipalloc_default_subnet: Option<String>,
    /// Who founds the address space: consensus=N (a majority of N hosts), seed=NAME,... (these peers, without asking),
    /// observer (others) [default: consensus of this host and the given peers] [env: RNET_IPALLOC_INIT]
    #[arg(long, value_name = "HOW")]
    pub ipalloc_init: Option<String>,
    /// After how long out of reach a peer no longer counts when the others agree about addresses: 90s, 30m, 1h, never
    /// [default: 1h] [env: RNET_IPALLOC_RECLAIM]
    #[arg(long, value_name = "TIME")]
    pub ipalloc_reclaim: Option<String>,
    /// MTU inside the networks: a number of bytes, or auto for what the narrowest path of the mesh takes whole [default: auto]
    /// [env: RNET_MTU]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<String>,
    /// What carries frames to peers where nothing is encrypted, by the next UDP port: kernel (its VXLAN devices), vxlan (the same,
    /// done by rnet), udp (rnet's own, which is always there too); auto: the first of these that works [default: auto]
    /// [env: RNET_FRAMING]
    #[arg(long, value_name = "HOW")]
    pub framing: Option<String>,
    /// Do not encrypt datagrams to and from peers there, if they say the same of this host: CIDRs, comma-separated or repeated
    /// [env: RNET_TRUSTED_SUBNETS]
    #[arg(long, value_name = "CIDR")]
    pub trusted_subnets: Vec<String>,
    /// How frames are captured: tap; packet (AF_PACKET), as fast where /dev/net/tun is missing; pcap (libpcap), a
    /// little slower [default: tap] [env: RNET_CAPTURE]
    #[arg(long, value_name = "HOW")]
    pub capture: Option<String>,
    /// Interface of this host (a network card, a bridge) whose segment is on a network of the mesh, as `rnet bridge add`: its
    /// name, with =CIDR if it is not the default network; captured by pcap with --capture pcap, else by packet; may be repeated
    /// [env: RNET_INTERFACE]
    #[arg(long, value_name = "IF[=CIDR]")]
    pub interface: Vec<String>,
    /// Super-frames and unfinished checksums between the kernel and rnet: auto takes what the kernel has, off does
    /// without (slower; to find a fault) [default: auto] [env: RNET_OFFLOAD]
    #[arg(long, value_name = "HOW")]
    pub offload: Option<String>,
    /// Threads that move frames: a number, or auto for half of the cores, at most 4 [default: auto] [env: RNET_THREADS]
    #[arg(long, value_name = "N")]
    pub threads: Option<String>,
    /// Keep each of these threads on one core [env: RNET_PIN_THREADS]
    #[arg(long)]
    pub pin_threads: bool,
    /// Let what is attached send from any address, not only from its own [env: RNET_NO_GUARD]
    #[arg(long)]
    pub no_guard: bool,
    /// Take the peers of the last run [env: RNET_RESUME]
    #[arg(long)]
    pub resume: bool,
    /// Stay in the foreground and log to standard error [env: RNET_FOREGROUND]
    #[arg(long)]
    pub foreground: bool,
    /// How much is logged: error, warning, info or debug [default: info] [env: RNET_LOG_LEVEL]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Options of `stop`.
#[derive(Debug, Args)]
pub struct Stop {
    /// Leave interfaces, rules and what the kernel carries in place: the next launch takes them over
    #[arg(long)]
    pub keep: bool,
}

/// Options of `reset`.
#[derive(Debug, Args)]
pub struct Reset {
    /// Also clean up after a router that was killed
    #[arg(long)]
    pub force: bool,
}

/// Options of `connect`.
#[derive(Debug, Args)]
pub struct Connect {
    /// Forget all other targets
    #[arg(long)]
    pub replace: bool,
    /// Addresses or names, with a port if it is not the mesh's; or vxlan://ADDRESS[:PORT]
    #[arg(value_name = "PEER", required = true)]
    pub peers: Vec<String>,
    /// The network that a VTEP is joined to; made if it is not there
    #[arg(long, value_name = "CIDR")]
    pub network: Option<String>,
    /// What the VTEP calls that network, 1 to 16777214
    #[arg(long, value_name = "ID")]
    pub vni: Option<String>,
    /// UDP port of this host that the VTEP sends to [default: the one that it listens on]
    #[arg(long, value_name = "PORT")]
    pub local_port: Option<String>,
}

/// Options of `forget`.
#[derive(Debug, Args)]
pub struct Forget {
    /// Peers, or vxlan://ADDRESS[:PORT]
    #[arg(value_name = "PEER", required = true)]
    pub peers: Vec<String>,
    /// The network that a VTEP is taken off, if it is on several
    #[arg(long, value_name = "CIDR")]
    pub network: Option<String>,
}

/// Some peers.
#[derive(Debug, Args)]
pub struct Peers {
    /// Peers
    #[arg(value_name = "PEER", required = true)]
    pub peers: Vec<String>,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Address on the mesh; may be repeated [env: RNET_CIDR, WEAVE_CIDR]
    #[arg(long, value_name = "ADDR")]
    pub cidr: Vec<String>,
    /// What `rnet ps` calls it
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Which network it sees: the mesh, none but a loopback of its own, or the host's
    #[arg(long, value_enum, default_value_t = Net::Mesh, value_name = "KIND")]
    pub network: Net,
    /// Run it in the namespace of this attachment: a name, pid:N, netns:NAME or a container
    #[arg(long, value_name = "TARGET", conflicts_with_all = ["cidr", "network", "publish", "gateway", "name", "no_guard"])]
    pub join: Option<String>,
    /// Lead a port of this host to it; may be repeated
    #[arg(short, long, value_name = "[HOSTIP:]HOSTPORT:PORT[/udp]")]
    pub publish: Vec<PortMap>,
    /// Let it get out through this host, which is exposed on its network
    #[arg(long)]
    pub gateway: bool,
    /// Let it send from any address: it bridges or routes for others
    #[arg(long)]
    pub no_guard: bool,
    /// Give the rest to `docker run` (not built yet)
    #[arg(long)]
    pub docker: bool,
    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

/// What `rnet run --network` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Net {
    /// A namespace of its own that is on the mesh
    Mesh,
    /// A namespace of its own with nothing but a loopback
    None,
    /// The host's own namespace
    Host,
}

/// Options of `expose`.
#[derive(Debug, Args)]
pub struct Expose {
    /// Addresses
    #[arg(value_name = "ADDR")]
    pub addresses: Vec<String>,
    /// Leave source addresses as they are on the way out and in
    #[arg(long)]
    pub without_masquerade: bool,
}

/// Options of `publish` and `unpublish`.
#[derive(Debug, Args)]
pub struct Ports {
    /// Ports ([HOSTIP:]HOSTPORT:PORT[/udp]), then the target: a name or key as `rnet ps` shows it, or a container
    #[arg(value_name = "[PORTS]... TARGET", required = true)]
    pub words: Vec<String>,
}

/// Options of `attach`.
#[derive(Debug, Args)]
pub struct Attach {
    /// Addresses, then the target: a name that `rnet ps` shows, a container's name or id, pid:N, netns:NAME or netns:PATH
    #[arg(value_name = "[ADDR]... TARGET", required = true)]
    pub words: Vec<String>,
    /// What `rnet ps` calls it
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Let it send from any address: it bridges or routes for others
    #[arg(long)]
    pub no_guard: bool,
    /// Let it get out through this host, which is exposed on its network
    #[arg(long)]
    pub gateway: bool,
    /// Network id instead of the one made of the CIDR, 1 to 16777214
    #[arg(long, value_name = "ID")]
    pub vni: Option<String>,
}

/// Options of `detach`.
#[derive(Debug, Args)]
pub struct Detach {
    /// Addresses (all of its if none), then the target: a container's name or id, pid:N, netns:NAME or netns:PATH
    #[arg(value_name = "[ADDR]... TARGET", required = true)]
    pub words: Vec<String>,
}

/// Some addresses.
#[derive(Debug, Args)]
pub struct Addresses {
    /// Addresses
    #[arg(value_name = "ADDR")]
    pub addresses: Vec<String>,
}

/// Options of `ps`.
#[derive(Debug, Args)]
pub struct Ps {
    /// Only these: names, ids, pid:N, netns:NAME
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// What of it
    #[arg(value_enum)]
    pub view: Option<View>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What of the status is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// Links and attempts, with path quality and the reason of each failure
    Connections,
    /// Every peer and its links
    Peers,
    /// What this router was told to dial
    Targets,
    /// Networks, and who is on them
    Networks,
    /// Who hands out which addresses, what is free, and what waits for an address and why
    Ipam,
    /// Names (not built yet)
    Dns,
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Options of the demo itself
    #[arg(value_name = "OPTION", trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub words: Vec<String>,
}

/// Options of `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// For which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Options of `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// One command's page instead of the overview
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
}

#[cfg(test)]
mod tests;
