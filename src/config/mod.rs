//! The options of `rnet launch` as one valid value.
//!
//! Options come from three layers: command line, environment, file, in this order of precedence. Each layer is texts by
//! option name, whatever it was read from, so that one parser serves all three and every fault names its layer. Nothing
//! here reads a file or the environment: the caller gives the texts, and a reader for the files that options name.
//!
//! ```text
//! layers     the options by name, and the texts that each layer has for them
//! reader     values out of layers, and the faults that are met
//! access, addresses, datapath      the options of a subject
//! ```
//!
//! Invariant: a `Config` is valid as a whole. All bad values are reported at once, before anything is done.

mod access;
mod addresses;
mod datapath;
mod layers;
mod reader;
#[cfg(test)]
mod tests;

pub use addresses::overlap;
pub use layers::{Form, Layer, OPTIONS, Origin, Spec};

use crate::ipam::Init;
use crate::types::{
    Framing, InterfaceFilter, InterfaceName, Invalid, Mtu, Network, Nickname, Password, PublicKey, Target,
};
use crate::wire::datagram::{INNER_LEN, OUTER_LEN, TAG_LEN};
use addresses::{init, reclaim, subnet};
use datapath::{CAPTURES, FRAMINGS, OFFLOADS, mtu, threads};
use ipnet::IpNet;
use reader::{Reader, expected};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Bytes that rnet's framing, UDP and the inner Ethernet header take of an underlay packet, the IP header excluded.
const OVERHEAD: usize = 8 + OUTER_LEN + INNER_LEN + TAG_LEN + 14;
/// Largest attachment MTU: its frame still fits one UDP datagram (65,535 less the IPv4 header).
pub const MAX_MTU: u16 = low_half(65_535 - 20 - OVERHEAD);
/// Smallest attachment MTU: IPv6 requires it (RFC 8200 section 5).
pub const MIN_MTU: u16 = 1280;

/// Most data path threads: each has a queue of every capture port and a socket.
pub const THREADS_MAX: usize = 64;
/// TCP and UDP port of a mesh, unless told otherwise (Weave's).
pub const DEFAULT_PORT: u16 = 6783;
/// Links at most, unless told otherwise (Weave's since 2.6).
pub const DEFAULT_CONNECTION_LIMIT: usize = 100;
/// Where addresses are chosen from, unless told otherwise (Weave's).
pub const DEFAULT_RANGE: &str = "10.32.0.0/12";
/// After how long a peer out of reach no longer counts, unless told otherwise.
pub const DEFAULT_RECLAIM: Duration = Duration::from_secs(3600);
/// Control socket and lock live here, unless told otherwise.
pub const DEFAULT_RUN_DIR: &str = "/run/rnet";
/// Identity, state and log live here, unless told otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/rnet";
/// Longest path of the control socket (`sun_path` is 108 bytes with its end, unix(7)) less `/rnet.sock`.
const MAX_RUN_DIR: usize = 107 - "/rnet.sock".len();

/// `bytes` as the 16 bits that it fits in; a constant one that does not is caught by the tests below.
const fn low_half(bytes: usize) -> u16 {
    let [.., high, low] = bytes.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// What the machine tells: given, so that this file stays pure.
pub struct Ambient<'a> {
    /// The host's name: nickname by default.
    pub hostname: &'a str,
    /// Reads a file that an option names whole, or standard input for `-`; an error is one line.
    pub read: &'a dyn Fn(&str) -> Result<String, String>,
}

/// What captures frames of a network's bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureKind {
    /// A TAP device (needs /dev/net/tun).
    Tap,
    /// AF_PACKET on a veth.
    Packet,
    /// libpcap on a veth.
    Pcap,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Broken things only.
    Error,
    /// And what is not as it should be.
    Warn,
    /// And what changed.
    Info,
    /// And what developers ask for.
    Debug,
}

/// Valid options. See the head of this file.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses to dial.
    pub targets: Vec<Target>,
    /// TCP and UDP.
    pub port: u16,
    /// Address to listen on; none: all.
    pub host: Option<IpAddr>,
    /// What people call this peer.
    pub nickname: Nickname,
    /// The mesh's password, if it has one.
    pub password: Option<Password>,
    /// Control socket and lock.
    pub run_dir: PathBuf,
    /// Identity, state, log.
    pub data_dir: PathBuf,
    /// Dial peers that other peers tell of.
    pub discovery: bool,
    /// Links at most.
    pub connection_limit: usize,
    /// Addresses that are told to others first; port 0: ours.
    pub advertise: Vec<SocketAddr>,
    /// Interfaces whose addresses are told.
    pub interface_filter: InterfaceFilter,
    /// Who may join; none: whoever has the password.
    pub allow: Option<Vec<PublicKey>>,
    /// Where addresses are chosen from; empty: none are.
    pub ranges: Vec<Network>,
    /// Whether the ranges were given, not taken by default.
    pub ranges_given: bool,
    /// What `net:default` means, unless it is the first range.
    pub default_subnet: Option<Network>,
    /// How the address space is founded; nothing: by a majority of this host and its targets.
    pub init: Option<Init>,
    /// After how long out of reach a peer no longer counts among those who must agree; nothing: never.
    pub reclaim: Option<Duration>,
    /// MTU of attachments.
    pub mtu: Mtu,
    /// What carries frames between peers where nothing is encrypted; none: the fastest that this machine has.
    pub framing: Option<Framing>,
    /// Where peers are that need no encryption, if they say the same of us.
    pub trusted_subnets: Vec<IpNet>,
    /// How frames are captured.
    pub capture: CaptureKind,
    /// Interfaces of this host that are captured, and the network that each leads to.
    pub interfaces: Vec<(InterfaceName, Network)>,
    /// Whether the kernel is asked to leave checksums and the cutting of super-frames to us.
    pub offload: bool,
    /// Data path threads; nothing: as many as suit the machine.
    pub threads: Option<usize>,
    /// Each data path thread stays on one core.
    pub pin_threads: bool,
    /// Attachments may send only from the addresses given to them.
    pub guard: bool,
    /// How much is logged.
    pub log_level: LogLevel,
    /// Stay in the foreground, log to standard error.
    pub foreground: bool,
    /// Take the targets of the last run.
    pub resume: bool,
}

/// One bad value: where it was given and why it is bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `--port`, `RNET_PORT`, `port in FILE`.
    pub option: String,
    /// One line.
    pub why: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.why)
    }
}

impl Config {
    /// Makes one valid configuration of the layers, highest precedence first; the highest layer that has an option wins
    /// it whole (lists are not joined). Every fault of a value that would be used, and every unknown name, is reported.
    pub fn resolve(layers: &[Layer], ambient: &Ambient<'_>) -> Result<Config, Vec<Fault>> {
        let mut reader = Reader { layers, faults: Vec::new() };
        reader.refuse_unknown();
        let password = reader.password(ambient);
        let mut config = Config {
            targets: reader.list("peers"),
            port: reader.number("port", 1..=u16::MAX.into()).and_then(|n| n.try_into().ok()).unwrap_or(DEFAULT_PORT),
            host: reader.value("host", |text| text.parse().map_err(|_| expected(text, "an IP address of this host"))),
            nickname: Nickname::new(&reader.text("nickname").unwrap_or_else(|| ambient.hostname.to_string())),
            password,
            run_dir: reader.directory("run-dir", DEFAULT_RUN_DIR),
            data_dir: reader.directory("data-dir", DEFAULT_DATA_DIR),
            discovery: !reader.flag("no-discovery"),
            connection_limit: reader
                .number("conn-limit", 1..=65_535)
                .and_then(|n| n.try_into().ok())
                .unwrap_or(DEFAULT_CONNECTION_LIMIT),
            advertise: reader.advertise(),
            interface_filter: reader
                .value("interface-filter", |text| text.parse().map_err(|why: Invalid| why.to_string()))
                .unwrap_or_default(),
            allow: reader.allow(ambient),
            ranges_given: reader.texts("ipalloc-range").is_some(),
            ranges: reader.ranges(),
            default_subnet: reader.value("ipalloc-default-subnet", subnet),
            init: reader.value("ipalloc-init", init),
            reclaim: reader.value("ipalloc-reclaim", reclaim).unwrap_or(Some(DEFAULT_RECLAIM)),
            mtu: reader.value("mtu", mtu).unwrap_or(Mtu::Auto),
            framing: reader.choice("framing", FRAMINGS).unwrap_or(None),
            trusted_subnets: reader.subnets(),
            capture: reader.choice("capture", CAPTURES).unwrap_or(CaptureKind::Tap),
            interfaces: Vec::new(),
            offload: reader.choice("offload", OFFLOADS).unwrap_or(true),
            threads: reader.value("threads", threads).unwrap_or(None),
            pin_threads: reader.flag("pin-threads"),
            guard: !reader.flag("no-guard"),
            log_level: reader.choice("log-level", LEVELS).unwrap_or(LogLevel::Info),
            foreground: reader.flag("foreground"),
            resume: reader.flag("resume"),
        };
        config.interfaces = reader.interfaces(config.default_subnet.or(config.ranges.first().copied()));
        reader.check_whole(&config);
        if reader.faults.is_empty() { Ok(config) } else { Err(reader.faults) }
    }
}

const LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warning", LogLevel::Warn),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
];

impl Reader<'_> {
    /// Faults that only the values together have.
    fn check_whole(&mut self, config: &Config) {
        if config.resume && !config.targets.is_empty() {
            let why = "takes the peers of the last run: give no others (`rnet connect` adds some later)";
            self.fault("--resume".to_string(), why.to_string());
        }
        for name in ["ipalloc-init", "ipalloc-default-subnet"] {
            if let Some((label, _)) = self.texts(name).filter(|_| config.ranges.is_empty()) {
                self.fault(label, "is of no use without an --ipalloc-range".to_string());
            }
        }
        self.check_framing(config);
        self.check_use(config);
        let outside = |subnet: &Network| !config.ranges.iter().any(|range| overlap(*range, *subnet));
        if let Some(subnet) = config.default_subnet.filter(|s| !config.ranges.is_empty() && outside(s)) {
            let label = self.texts("ipalloc-default-subnet").map(|(label, _)| label).unwrap_or_default();
            let ranges: Vec<String> = config.ranges.iter().map(Network::to_string).collect();
            self.fault(label, format!("{subnet} lies outside of the range {}", ranges.join(" ")));
        }
        if config.run_dir.as_os_str().len() > MAX_RUN_DIR {
            self.fault("--run-dir".to_string(), format!("is longer than {MAX_RUN_DIR} bytes"));
        }
        if config.run_dir == config.data_dir {
            let why = "must not be the data directory: what is in it is removed at stop";
            self.fault("--run-dir".to_string(), why.to_string());
        }
    }
}
