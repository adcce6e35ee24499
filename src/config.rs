//! The options of `rnet launch` as one valid value.
//!
//! Options come from three layers: command line, environment, file, in this order of precedence. Each layer is texts by
//! option name, whatever it was read from, so that one parser serves all three and every fault names its layer. Nothing
//! here reads a file or the environment: the caller gives the texts, and a reader for the files that options name.
//!
//! Invariant: a `Config` is valid as a whole. All bad values are reported at once, before anything is done.

use crate::ipam::Init;
use crate::types::{
    Framing, InterfaceFilter, InterfaceName, Invalid, Mtu, Network, Nickname, Password, PeerName, PublicKey, Target,
    objection,
};
use crate::wire::datagram::{INNER_LEN, OUTER_LEN, TAG_LEN};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use zeroize::Zeroize;

/// Bytes that rnet's framing, UDP and the inner Ethernet header take of an underlay packet, the IP header excluded.
const OVERHEAD: usize = 8 + OUTER_LEN + INNER_LEN + TAG_LEN + 14;
/// Largest attachment MTU: its frame still fits one UDP datagram (65,535 less the IPv4 header).
pub const MAX_MTU: u16 = low_half(65_535 - 20 - OVERHEAD);
/// Addresses that `--advertise` may give.
const ADVERTISED_MAX: usize = 8;
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
/// Ranges at most.
const MAX_RANGES: usize = 16;
/// Trusted subnets at most.
const MAX_SUBNETS: usize = 256;
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

/// How an option is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Present or not; in environment and file `true` or `false`.
    Flag,
    /// One value.
    Value,
    /// Any number of values; separated by spaces in the environment, an array in the file.
    List,
}

/// One option of `launch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Its name: `--port` on the command line, `port` in the file.
    pub name: &'static str,
    /// Its environment variable.
    pub env: &'static str,
    /// How it is written.
    pub form: Form,
}

const fn spec(name: &'static str, env: &'static str, form: Form) -> Spec {
    Spec { name, env, form }
}

/// Every option of `launch`, for all three layers. `peers` stands on the command line without a name.
pub const OPTIONS: [Spec; 31] = [
    spec("peers", "RNET_PEERS", Form::List),
    spec("port", "RNET_PORT", Form::Value),
    spec("host", "RNET_HOST", Form::Value),
    spec("nickname", "RNET_NICKNAME", Form::Value),
    spec("password", "RNET_PASSWORD", Form::Value),
    spec("password-file", "RNET_PASSWORD_FILE", Form::Value),
    spec("run-dir", "RNET_RUN_DIR", Form::Value),
    spec("data-dir", "RNET_DATA_DIR", Form::Value),
    spec("no-discovery", "RNET_NO_DISCOVERY", Form::Flag),
    spec("conn-limit", "RNET_CONN_LIMIT", Form::Value),
    spec("advertise", "RNET_ADVERTISE", Form::List),
    spec("interface-filter", "RNET_INTERFACE_FILTER", Form::Value),
    spec("allow", "RNET_ALLOW", Form::List),
    spec("allow-file", "RNET_ALLOW_FILE", Form::Value),
    spec("ipalloc-range", "RNET_IPALLOC_RANGE", Form::List),
    spec("ipalloc-default-subnet", "RNET_IPALLOC_DEFAULT_SUBNET", Form::Value),
    spec("ipalloc-init", "RNET_IPALLOC_INIT", Form::Value),
    spec("ipalloc-reclaim", "RNET_IPALLOC_RECLAIM", Form::Value),
    spec("mtu", "RNET_MTU", Form::Value),
    spec("framing", "RNET_FRAMING", Form::Value),
    spec("trusted-subnets", "RNET_TRUSTED_SUBNETS", Form::List),
    spec("capture", "RNET_CAPTURE", Form::Value),
    spec("interface", "RNET_INTERFACE", Form::List),
    spec("offload", "RNET_OFFLOAD", Form::Value),
    spec("threads", "RNET_THREADS", Form::Value),
    spec("pin-threads", "RNET_PIN_THREADS", Form::Flag),
    spec("no-guard", "RNET_NO_GUARD", Form::Flag),
    spec("log-level", "RNET_LOG_LEVEL", Form::Value),
    spec("foreground", "RNET_FOREGROUND", Form::Flag),
    spec("resume", "RNET_RESUME", Form::Flag),
    spec("config", "RNET_CONFIG", Form::Value),
];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Arguments.
    CommandLine,
    /// Variables `RNET_*`.
    Environment,
    /// The file of `--config`.
    File(String),
}

/// The values of one layer by option name; a flag's value is `true` or `false`.
#[derive(Clone, PartialEq, Eq)]
pub struct Layer {
    /// Where they came from.
    pub origin: Origin,
    /// Texts as they were given. Unknown names are faults.
    pub values: BTreeMap<String, Vec<String>>,
}

impl Layer {
    /// A layer without values.
    pub fn new(origin: Origin) -> Layer {
        Layer { origin, values: BTreeMap::new() }
    }

    /// Adds `text` to the values of `name`.
    pub fn add(&mut self, name: &str, text: String) {
        self.values.entry(name.to_string()).or_default().push(text);
    }

    /// How a fault in `name` is introduced: `--port`, `RNET_PORT`, `port in /etc/rnet.toml`.
    fn label(&self, name: &str) -> String {
        match &self.origin {
            Origin::CommandLine if name == "peers" => "PEER".to_string(),
            Origin::CommandLine => format!("--{name}"),
            Origin::Environment => OPTIONS
                .iter()
                .find(|spec| spec.name == name)
                .map_or_else(|| name.to_string(), |spec| spec.env.to_string()),
            Origin::File(path) => format!("{name} in {path}"),
        }
    }
}

/// A password among the values does not outlive the layer.
impl Drop for Layer {
    fn drop(&mut self) {
        self.values.get_mut("password").into_iter().flatten().for_each(Zeroize::zeroize);
    }
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

const CAPTURES: &[(&str, CaptureKind)] =
    &[("tap", CaptureKind::Tap), ("packet", CaptureKind::Packet), ("pcap", CaptureKind::Pcap)];
const FRAMINGS: &[(&str, Option<Framing>)] =
    &[("auto", None), ("kernel", Some(Framing::Kernel)), ("vxlan", Some(Framing::Vxlan)), ("udp", Some(Framing::Udp))];
const OFFLOADS: &[(&str, bool)] = &[("auto", true), ("off", false)];
const LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warning", LogLevel::Warn),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
];

/// A network of at least 4 addresses.
fn subnet(text: &str) -> Result<Network, String> {
    let network: Network = text.parse().map_err(|why: crate::types::Invalid| why.to_string())?;
    let hosts = network.cidr().max_prefix_len() - network.cidr().prefix_len();
    if hosts < 2 { Err(expected(text, "a network of at least 4 addresses (/30, /126 or larger)")) } else { Ok(network) }
}

/// Whether two networks have an address in common.
pub fn overlap(one: Network, other: Network) -> bool {
    one.contains(other.cidr().network()) || other.contains(one.cidr().network())
}

fn init(text: &str) -> Result<Init, String> {
    const FORMS: &str = "consensus=N (1 to 1000 hosts), seed=NAME,... (peer names), or observer";
    let wrong = || expected(text, FORMS);
    match text.split_once('=') {
        None if text == "observer" => Ok(Init::Observer),
        Some(("consensus", digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let hosts = digits.parse().ok().filter(|hosts| (1..=1000).contains(hosts));
            hosts.map(Init::Consensus).ok_or_else(wrong)
        }
        Some(("seed", names)) => {
            let names: Result<Vec<PeerName>, _> = names.split(',').map(str::parse).collect();
            names.map(Init::Seed).map_err(|_| wrong())
        }
        _ => Err(wrong()),
    }
}

/// `90s`, `30m`, `1h`, `2d`, `never`.
fn reclaim(text: &str) -> Result<Option<Duration>, String> {
    if text == "never" {
        return Ok(None);
    }
    let wrong = || expected(text, "a time such as 90s, 30m, 1h or 2d (at most 10 years), or never");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let digits = text.strip_suffix(unit).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number: u64 = digits.and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
    let seconds = number.checked_mul(factor).filter(|seconds| (1..=315_360_000).contains(seconds));
    seconds.map(|seconds| Some(Duration::from_secs(seconds))).ok_or_else(wrong)
}

fn threads(text: &str) -> Result<Option<usize>, String> {
    if text == "auto" {
        return Ok(None);
    }
    let count = text.parse().ok().filter(|count| (1..=THREADS_MAX).contains(count));
    count.map(Some).ok_or_else(|| expected(text, &format!("a number from 1 to {THREADS_MAX}, or auto")))
}

fn mtu(text: &str) -> Result<Mtu, String> {
    if text == "auto" {
        return Ok(Mtu::Auto);
    }
    let bytes = text.parse().ok().filter(|bytes| (MIN_MTU..=MAX_MTU).contains(bytes));
    bytes.map(Mtu::Fixed).ok_or_else(|| expected(text, &format!("auto, or a number from {MIN_MTU} to {MAX_MTU}")))
}

fn expected(given: &str, what: &str) -> String {
    let given: String = given.chars().take(64).collect();
    format!("{given:?} is not {what}")
}

/// Takes values out of the layers and keeps the faults it meets.
struct Reader<'a> {
    layers: &'a [Layer],
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, option: String, why: String) {
        self.faults.push(Fault { option, why });
    }

    fn refuse_unknown(&mut self) {
        for layer in self.layers {
            for name in layer.values.keys() {
                if !OPTIONS.iter().any(|spec| spec.name == name) {
                    self.fault(layer.label(name), "is not an option; `rnet launch --help` lists them".to_string());
                }
            }
        }
    }

    /// The texts of the highest layer that has `name`, and how that layer calls it.
    fn texts(&self, name: &str) -> Option<(String, Vec<String>)> {
        self.layers.iter().find_map(|layer| layer.values.get(name).map(|texts| (layer.label(name), texts.clone())))
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.value(name, |text| Ok(text.to_string()))
    }

    fn value<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let (label, texts) = self.texts(name)?;
        let result = match texts.as_slice() {
            [text] if !text.is_empty() => parse(text),
            [] | [_] => Err("has no value".to_string()),
            _ => Err("takes one value".to_string()),
        };
        result.map_err(|why| self.fault(label, why)).ok()
    }

    fn list<T: FromStr<Err = crate::types::Invalid>>(&mut self, name: &str) -> Vec<T> {
        let Some((label, texts)) = self.texts(name) else { return Vec::new() };
        let mut values = Vec::new();
        for word in texts.iter().flat_map(|text| text.split_whitespace()) {
            match word.parse::<T>() {
                Ok(value) => values.push(value),
                Err(why) => self.fault(label.clone(), why.to_string()),
            }
        }
        values
    }

    fn number(&mut self, name: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let what = format!("a number from {} to {}", range.start(), range.end());
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        self.value(name, |text| {
            text.parse().ok().filter(|n| digits(text) && range.contains(n)).ok_or_else(|| expected(text, &what))
        })
    }

    fn flag(&mut self, name: &str) -> bool {
        let parse = |text: &str| match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => Err(expected(text, "true or false")),
        };
        self.value(name, parse).unwrap_or(false)
    }

    /// Ranges, separated by spaces or commas. An empty text means none.
    fn ranges(&mut self) -> Vec<Network> {
        let Some((label, texts)) = self.texts("ipalloc-range") else {
            return DEFAULT_RANGE.parse().into_iter().collect();
        };
        let mut ranges: Vec<Network> = Vec::new();
        for word in texts.iter().flat_map(|text| text.split([' ', ','])).filter(|word| !word.is_empty()) {
            match subnet(word) {
                Ok(range) => match ranges.iter().find(|other| overlap(**other, range)) {
                    Some(other) => self.fault(label.clone(), format!("{range} overlaps {other}: give disjoint ranges")),
                    None => ranges.push(range),
                },
                Err(why) => self.fault(label.clone(), why),
            }
        }
        if ranges.len() > MAX_RANGES {
            self.fault(label, format!("at most {MAX_RANGES} ranges can be given"));
        }
        ranges
    }

    /// `IF` or `IF=CIDR`; without a network the default one is meant.
    fn interfaces(&mut self, default: Option<Network>) -> Vec<(InterfaceName, Network)> {
        let Some((label, texts)) = self.texts("interface") else { return Vec::new() };
        let mut found: Vec<(InterfaceName, Network)> = Vec::new();
        for word in texts.iter().flat_map(|text| text.split_whitespace()) {
            let (name, network) = word.rsplit_once('=').map_or((word, None), |(name, cidr)| (name, Some(cidr)));
            let network = network.map(|cidr| cidr.parse().map_err(|why: crate::types::Invalid| why.to_string()));
            let unknown = || "leads to no network: give it as IF=CIDR (there is no --ipalloc-range)".to_string();
            let network = network.unwrap_or_else(|| default.ok_or_else(unknown));
            let name: Result<InterfaceName, _> = name.parse().map_err(|why: crate::types::Invalid| why.to_string());
            match (name, network) {
                (Ok(name), Ok(_)) if found.iter().any(|(other, _)| *other == name) => {
                    self.fault(label.clone(), format!("{name} is given twice"));
                }
                (Ok(name), Ok(network)) => found.push((name, network)),
                (Err(why), _) => self.fault(label.clone(), why),
                (Ok(name), Err(why)) => self.fault(label.clone(), format!("{name}: {why}")),
            }
        }
        found
    }

    /// Subnets, separated by spaces or commas; host bits do not matter. An empty text means none.
    fn subnets(&mut self) -> Vec<IpNet> {
        let Some((label, texts)) = self.texts("trusted-subnets") else { return Vec::new() };
        let mut subnets: Vec<IpNet> = Vec::new();
        for word in texts.iter().flat_map(|text| text.split([' ', ','])).filter(|word| !word.is_empty()) {
            let single = || word.parse::<IpAddr>().map(IpNet::from);
            match word.parse::<IpNet>().or_else(|_| single()) {
                Ok(subnet) => subnets.push(subnet.trunc()),
                Err(_) => self.fault(label.clone(), expected(word, "a subnet such as 192.0.2.0/24 or fd00::/8")),
            }
        }
        if subnets.len() > MAX_SUBNETS {
            self.fault(label, format!("at most {MAX_SUBNETS} subnets can be given"));
        }
        subnets
    }

    fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let find = |text: &str| choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        self.value(name, |text| find(text).ok_or_else(|| expected(text, &format!("one of {}", names.join(", ")))))
    }

    fn directory(&mut self, name: &str, default: &str) -> PathBuf {
        let parse = |text: &str| {
            if !text.starts_with('/') {
                return Err(expected(text, "an absolute path"));
            }
            let text = text.trim_end_matches('/');
            if text.is_empty() { Err("must not be the root directory".to_string()) } else { Ok(PathBuf::from(text)) }
        };
        self.value(name, parse).unwrap_or_else(|| PathBuf::from(default))
    }

    /// The password of the highest layer that names one, by value or by file. The value `-` means standard input.
    fn password(&mut self, ambient: &Ambient<'_>) -> Option<Password> {
        for layer in self.layers {
            let (value, file) = (layer.values.get("password"), layer.values.get("password-file"));
            let label = |name| layer.label(name);
            let (option, text) = match (value.map(Vec::as_slice), file.map(Vec::as_slice)) {
                (None, None) => continue,
                (Some(_), Some(_)) => {
                    let why = format!("cannot stand beside {}: give one of them", label("password-file"));
                    self.fault(label("password"), why);
                    return None;
                }
                (Some(_), None) if matches!(layer.origin, Origin::File(_)) => {
                    let why = "a password does not belong into this file: give `password-file`".to_string();
                    self.fault(label("password"), why);
                    return None;
                }
                (Some([text]), None) if text == "-" => (label("password"), (ambient.read)("-")),
                (Some([text]), None) => (label("password"), Ok(text.clone())),
                (None, Some([path])) => (label("password-file"), (ambient.read)(path)),
                _ => (label("password"), Err("takes one value".to_string())),
            };
            let password = text.and_then(|mut text| {
                // Only the first line of a file counts, as for most tools; a password with a line end could not be typed.
                let first = text.lines().next().unwrap_or_default().to_string();
                text.zeroize();
                Password::new(first).ok_or_else(|| "the password is empty".to_string())
            });
            return password.map_err(|why| self.fault(option, why)).ok();
        }
        None
    }

    /// Keys of `--allow` and of the lines of `--allow-file` (`#` begins a comment).
    fn advertise(&mut self) -> Vec<SocketAddr> {
        let label = self.texts("advertise").map(|(label, _)| label).unwrap_or_default();
        let mut addresses = Vec::new();
        for target in self.list::<Target>("advertise") {
            let why = match target.ip() {
                None => Some("is a name, and an IP address is needed"),
                // Port 0 stands for ours, whatever that will be.
                Some(ip) => objection(SocketAddr::new(ip, 1)),
            };
            match (why, target.ip()) {
                (None, Some(ip)) => addresses.push(SocketAddr::new(ip, target.port.unwrap_or(0))),
                (why, _) => {
                    let why = why.unwrap_or_default();
                    self.fault(label.clone(), format!("{target} {why}: others cannot reach this host there"));
                }
            }
        }
        if addresses.len() > ADVERTISED_MAX {
            self.fault(label, format!("{} addresses, and at most {ADVERTISED_MAX} are told", addresses.len()));
        }
        addresses
    }

    fn allow(&mut self, ambient: &Ambient<'_>) -> Option<Vec<PublicKey>> {
        let mut keys: Vec<PublicKey> = self.list("allow");
        let mut given = self.texts("allow").is_some();
        if let Some(path) = self.text("allow-file") {
            given = true;
            match (ambient.read)(&path) {
                Err(why) => self.fault(self.texts("allow-file").map(|(label, _)| label).unwrap_or_default(), why),
                Ok(text) => self.allow_lines(&path, &text, &mut keys),
            }
        }
        keys.sort_unstable();
        keys.dedup();
        given.then_some(keys)
    }

    fn allow_lines(&mut self, path: &str, text: &str, keys: &mut Vec<PublicKey>) {
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            // What follows the key is a comment too, as in authorized_keys(5).
            let Some(word) = line.split_whitespace().next() else { continue };
            match word.parse() {
                Ok(key) => keys.push(key),
                Err(why) => self.fault(format!("{path} line {}", number.saturating_add(1)), why.to_string()),
            }
        }
    }

    /// A framing that was asked for by its name and could never be used.
    fn check_framing(&mut self, config: &Config) {
        let Some(framing) = config.framing.filter(|framing| *framing != Framing::Udp) else { return };
        let label = self.texts("framing").map(|(label, _)| label).unwrap_or_default();
        if config.password.is_some() && config.trusted_subnets.is_empty() {
            let why = "is for paths that are not encrypted, and a password encrypts all: give --trusted-subnets too, or no --framing";
            self.fault(label, format!("{framing} {why}"));
        } else if config.port == u16::MAX {
            self.fault(label, format!("{framing} takes the UDP port after --port {}: give a lower one", config.port));
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(origin: Origin, values: &[(&str, &[&str])]) -> Layer {
        let texts = |v: &[&str]| v.iter().map(|text| text.to_string()).collect();
        Layer { origin, values: values.iter().map(|(name, v)| (name.to_string(), texts(v))).collect() }
    }

    fn cli(values: &[(&str, &[&str])]) -> Layer {
        layer(Origin::CommandLine, values)
    }

    fn resolve(layers: &[Layer]) -> Result<Config, Vec<String>> {
        let read = |path: &str| match path {
            "-" => Ok("from stdin\n".to_string()),
            "/pw" => Ok("secret\nsecond line\n".to_string()),
            "/empty" => Ok("\n".to_string()),
            "/keys" => Ok(format!("# who\n{} host1\n\nnonsense\n", "ab".repeat(32))),
            _ => Err(format!("cannot read {path}: no such file")),
        };
        Config::resolve(layers, &Ambient { hostname: "box", read: &read })
            .map_err(|faults| faults.iter().map(Fault::to_string).collect())
    }

    #[test]
    fn defaults_are_those_of_the_manual() {
        let config = resolve(&[]).unwrap();
        assert_eq!((config.port, config.mtu, config.connection_limit), (6783, Mtu::Auto, 100));
        assert_eq!(config.nickname.as_str(), "box");
        assert_eq!(config.run_dir, PathBuf::from("/run/rnet"));
        assert!(config.discovery && config.guard && !config.foreground && !config.resume);
        assert!(config.password.is_none() && config.allow.is_none() && config.targets.is_empty());
    }

    #[test]
    fn higher_layer_wins_an_option_whole() {
        let file = layer(Origin::File("/f".into()), &[("port", &["1"]), ("peers", &["a", "b"]), ("mtu", &["1300"])]);
        let env = layer(Origin::Environment, &[("port", &["2"]), ("nickname", &["n"])]);
        let config = resolve(&[cli(&[("port", &["3"]), ("peers", &["c"])]), env, file]).unwrap();
        assert_eq!((config.port, config.mtu, config.nickname.as_str()), (3, Mtu::Fixed(1300), "n"));
        assert_eq!(config.targets, ["c".parse().unwrap()]);
    }

    #[test]
    fn reports_every_bad_value_at_once_with_its_layer() {
        let file = layer(Origin::File("/f".into()), &[("mtu", &["12"]), ("colour", &["red"]), ("capture", &["x"])]);
        let env = layer(Origin::Environment, &[("log-level", &["loud"]), ("no-discovery", &["maybe"])]);
        let bad_cli = cli(&[
            ("port", &["0"]),
            ("host", &["nowhere"]),
            ("peers", &["ok", "10.0.0.256", "a:b:c"]),
            ("allow", &["abc"]),
            ("run-dir", &["here"]),
            ("conn-limit", &["+5"]),
            ("password-file", &["/nope"]),
            ("nickname", &["a", "b"]),
        ]);
        insta::assert_snapshot!(resolve(&[bad_cli, env, file]).unwrap_err().join("\n"), @r#"
        colour in /f: is not an option; `rnet launch --help` lists them
        --password-file: cannot read /nope: no such file
        PEER: "10.0.0.256" is not a peer's address such as 192.0.2.7, host2, host2:6783 or [fd00::7]:6783
        PEER: "a:b:c" is not a peer's address such as 192.0.2.7, host2, host2:6783 or [fd00::7]:6783
        --port: "0" is not a number from 1 to 65535
        --host: "nowhere" is not an IP address of this host
        --nickname: takes one value
        --run-dir: "here" is not an absolute path
        RNET_NO_DISCOVERY: "maybe" is not true or false
        --conn-limit: "+5" is not a number from 1 to 65535
        --allow: "abc" is not a public key: 64 hexadecimal digits, as `rnet report` shows it
        mtu in /f: "12" is not auto, or a number from 1280 to 65453
        capture in /f: "x" is not one of tap, packet, pcap
        RNET_LOG_LEVEL: "loud" is not one of error, warning, warn, info, debug
        "#);
    }

    #[test]
    fn password_comes_from_the_highest_layer_that_names_one() {
        let secret = |layers: &[Layer]| resolve(layers).unwrap().password.map(|p| p.expose().to_vec());
        let env = layer(Origin::Environment, &[("password", &["of env"])]);
        assert_eq!(secret(&[cli(&[("password-file", &["/pw"])]), env.clone()]), Some(b"secret".to_vec()));
        assert_eq!(secret(&[cli(&[]), env]), Some(b"of env".to_vec()));
        assert_eq!(secret(&[cli(&[("password", &["-"])])]), Some(b"from stdin".to_vec()));
        assert_eq!(secret(&[cli(&[])]), None);
    }

    #[test]
    fn refuses_an_ambiguous_empty_or_exposed_password() {
        let both = resolve(&[cli(&[("password", &["x"]), ("password-file", &["/pw"])])]).unwrap_err();
        assert_eq!(both, ["--password: cannot stand beside --password-file: give one of them"]);
        assert_eq!(resolve(&[cli(&[("password-file", &["/empty"])])]).unwrap_err().len(), 1);
        assert_eq!(resolve(&[cli(&[("password", &[""])])]).unwrap_err(), ["--password: the password is empty"]);
        assert_eq!(resolve(&[layer(Origin::File("/f".into()), &[("password", &["x"])])]).unwrap_err().len(), 1);
    }

    #[test]
    fn allow_list_joins_options_and_file_and_names_the_bad_line() {
        let faults = resolve(&[cli(&[("allow-file", &["/keys"])])]).unwrap_err();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("/keys line 4: \"nonsense\""), "{faults:?}");
        let key = "cd".repeat(32);
        assert_eq!(resolve(&[cli(&[("allow", &[&key, &key])])]).unwrap().allow.unwrap().len(), 1);
    }

    #[test]
    fn advertised_are_addresses_that_others_can_reach() {
        let good = cli(&[("advertise", &["192.0.2.7 [2001:db8::1]:7000"])]);
        let told: Vec<String> = resolve(&[good]).unwrap().advertise.iter().map(|address| address.to_string()).collect();
        assert_eq!(told, ["192.0.2.7:0", "[2001:db8::1]:7000"]);
        let bad = cli(&[("advertise", &["127.0.0.1", "224.0.0.5:1", "myhost"]), ("interface-filter", &["e*h"])]);
        insta::assert_snapshot!(resolve(&[bad]).unwrap_err().join("\n"), @r#"
        --advertise: 127.0.0.1 is a loopback address: others cannot reach this host there
        --advertise: 224.0.0.5:1 is a multicast address: others cannot reach this host there
        --advertise: myhost is a name, and an IP address is needed: others cannot reach this host there
        --interface-filter: "e*h" is not a list of interface names such as eth0,en* or !docker*,!tun0 (* only at the end)
        "#);
    }

    #[test]
    fn ranges_are_disjoint_networks_and_may_be_none() {
        let ranges = |texts: &[&str]| resolve(&[cli(&[("ipalloc-range", texts)])]).map(|config| config.ranges);
        let texts = |ranges: Vec<Network>| ranges.iter().map(Network::to_string).collect::<Vec<_>>();
        assert_eq!(texts(resolve(&[]).unwrap().ranges), ["10.32.0.0/12"]);
        assert_eq!(texts(ranges(&["10.8.0.0/16,fd00:7::/48", "10.9.0.0/16"]).unwrap()).len(), 3);
        assert_eq!(texts(ranges(&[""]).unwrap()).len(), 0);
        for bad in ["10.8.0.1/16", "10.8.0.0/31", "10.8.0.0/16 10.8.1.0/24", "x"] {
            assert_eq!(ranges(&[bad]).unwrap_err().len(), 1, "{bad}");
        }
    }

    #[test]
    fn address_options_are_checked_together() {
        let with = |name, text| resolve(&[cli(&[(name, &[text])])]);
        assert_eq!(with("ipalloc-init", "consensus=3").unwrap().init, Some(Init::Consensus(3)));
        assert_eq!(with("ipalloc-init", "observer").unwrap().init, Some(Init::Observer));
        let seeds = with("ipalloc-init", "seed=02:00:00:00:00:01,02:00:00:00:00:02").unwrap().init;
        assert!(matches!(seeds, Some(Init::Seed(names)) if names.len() == 2));
        for bad in ["consensus=0", "consensus=+1", "consensus", "seed=", "seed=x", "leader"] {
            assert!(with("ipalloc-init", bad).is_err(), "{bad}");
        }
        let minutes = |text| with("ipalloc-reclaim", text).map(|config| config.reclaim.map(|time| time.as_secs() / 60));
        assert_eq!([minutes("30m"), minutes("2d"), minutes("never")], [Ok(Some(30)), Ok(Some(2880)), Ok(None)]);
        assert_eq!(resolve(&[]).unwrap().reclaim, Some(Duration::from_secs(3600)));
        for bad in ["1", "h", "0s", "-1h", "1w", "99999999999999999999d", "1 h"] {
            assert!(minutes(bad).is_err(), "{bad}");
        }
        assert!(with("ipalloc-default-subnet", "10.32.0.0/11").is_ok(), "it may be larger than the range");
        let why = with("ipalloc-default-subnet", "10.64.0.0/16").unwrap_err();
        assert_eq!(why, ["--ipalloc-default-subnet: 10.64.0.0/16 lies outside of the range 10.32.0.0/12"]);
        let off = resolve(&[cli(&[("ipalloc-range", &[""]), ("ipalloc-init", &["observer"])])]).unwrap_err();
        assert_eq!(off, ["--ipalloc-init: is of no use without an --ipalloc-range"]);
    }

    #[test]
    fn resume_takes_no_peers_and_directories_differ() {
        assert!(resolve(&[cli(&[("resume", &["true"])])]).unwrap().resume);
        assert_eq!(resolve(&[cli(&[("resume", &["true"]), ("peers", &["a"])])]).unwrap_err().len(), 1);
        assert_eq!(resolve(&[cli(&[("run-dir", &["/x"]), ("data-dir", &["/x/"])])]).unwrap_err().len(), 1);
        assert_eq!(resolve(&[cli(&[("run-dir", &[&format!("/{}", "x".repeat(97))])])]).unwrap_err().len(), 1);
    }
}
