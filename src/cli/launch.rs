//! `rnet launch`: the composition root.
//!
//! ```text
//! options -> Config -> fork (background) -> lock -> ports -> sweep -> identity, state -> Plane, Node, Host
//!                        |                                      -> datapath, control socket, control -> ready -> ... stopped
//!                        '-- the parent waits for "ready" or for the line that says why not
//! ```
//!
//! Everything that can fail does so before `ready`, cheapest and most telling first, and what was made until then is
//! removed again. No thread exists before the fork. The password lives until its key is derived.

use super::args::{Launch, Router};
use super::secret::{self, Text};
use super::{Failure, print, sources};
use crate::api::{self, report};
use crate::config::{self, Config};
use crate::crypto::psk;
use crate::host::{self, Host, Keep};
use crate::io::alarm::Alarm;
use crate::io::background::{self, Ready, Side, Start};
use crate::io::capture::{CaptureKind, Options};
use crate::io::clock::Clock;
use crate::io::lock::Lock;
use crate::io::sources::Sources;
use crate::io::store::{Loaded, Store};
use crate::io::tap::Tap;
use crate::io::udp::{Group, UdpSocket};
use crate::io::{entropy, holder, marking, pcap, raw, routes, tcp};
use crate::ipam::Init;
use crate::node::border::State;
use crate::node::command::{Uplink, UplinkCapture};
use crate::node::status::DatapathStatus;
use crate::node::{AddressConfig, Node, NodeConfig, ReachConfig, STATE_VERSION};
use crate::plane::{Limits, Plane};
use crate::run::control::{Control, Inlets, Outlets};
use crate::run::datapath::{self, Datapath, EVENTS_MAX, SENDERS, Tells};
use crate::run::keeper::Keeper;
use crate::run::links::{self, Links};
use crate::run::{Desk, HAPPENINGS_MAX, Happening, journal, machine};
use crate::types::{Framing, StaticKey, Uid};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroize;

/// Name of the log in the data directory.
pub const LOG: &str = "rnet.log";
/// Name of the state file in the data directory.
const STATE: &str = "state";
/// How long answers and closed links have to reach the other side after the router has stopped.
const FAREWELL: Duration = Duration::from_millis(500);

/// The command. In the background it returns in the parent, when the router is ready or has failed.
pub fn launch(router: &Router, mut options: Launch, password: Option<Text>) -> Result<(), Failure> {
    hide_password(&options)?;
    let config = sources::config(router, &options, password);
    options.password.zeroize();
    let config = config?;
    require_privilege()?;
    require_free_ranges(&config)?;
    let (open, port, allowed) = (config.password.is_none(), config.port, config.allow.is_some());
    let log = config.data_dir.join(LOG);
    if config.foreground {
        if open {
            print::error(&format!("launch: {}", report::open_mesh(port, allowed)));
        }
        return serve(config, &mut Ready::unheard());
    }
    let failed = |why: std::io::Error| Failure::new("launch", format!("cannot go into the background: {why}"));
    match background::enter().map_err(failed)? {
        Side::Child(mut ready) => {
            let result = serve(config, &mut ready);
            if let Err(failure) = &result {
                ready.fail(&failure.lines, failure.code);
            }
            result
        }
        Side::Parent(Start::Ready(name), _) => {
            print::out(&format!("{name}\n"));
            if open {
                print::error(&format!("launch: {}", report::open_mesh(port, allowed)));
            }
            Ok(())
        }
        Side::Parent(Start::Failed(lines, code), _) => Err(Failure { lines, code }),
        Side::Parent(Start::Died, _) => {
            Err(Failure::new("launch", format!("the router ended before it was ready; {} may say why", log.display())))
        }
    }
}

/// A password among the arguments is wiped there before anybody stays with it.
fn hide_password(options: &Launch) -> Result<(), Failure> {
    let Some(password) = options.password.as_deref().filter(|password| *password != "-") else { return Ok(()) };
    let why =
        |error: std::io::Error| format!("--password: cannot be hidden from others here ({error}): use --password-file");
    secret::wipe_from_arguments(password).map_err(|error| Failure::new("launch", why(error)))?;
    print::error("launch: --password: others could see it until now, and your shell keeps it: prefer --password-file");
    Ok(())
}

/// Addresses that this host reaches elsewhere would become ambiguous. The default range was nobody's decision, so it has to
/// give way; one that was given is a decision.
fn require_free_ranges(config: &Config) -> Result<(), Failure> {
    for (route, device) in routes::destinations().iter().filter(|(_, device)| !is_ours(device)) {
        let Some(range) = config.ranges.iter().find(|range| config::overlap(**range, *route)) else { continue };
        let line = format!("the address range {range} overlaps this host's route {route} ({device})");
        if !config.ranges_given {
            return Err(Failure::new("launch", format!("{line}: give another one with --ipalloc-range")));
        }
        print::error(&format!("launch: warning: {line}"));
    }
    Ok(())
}

/// A device that a router made; see `host::names`.
fn is_ours(device: &str) -> bool {
    device.starts_with("rnb") || device.starts_with("rnv") || device.starts_with("rnt")
}

/// Interfaces can be made with CAP_NET_ADMIN only (capabilities(7)): better said now than in the middle.
fn require_privilege() -> Result<(), Failure> {
    const CAP_NET_ADMIN: u64 = 1 << 12;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    // Where /proc does not tell, the first change to the machine will.
    if effective.is_none_or(|bits| bits & CAP_NET_ADMIN != 0) {
        return Ok(());
    }
    Err(Failure::new("launch", "no permission to make network interfaces: run this as root (CAP_NET_ADMIN)"))
}

/// Runs the router until it has stopped. What it makes in its directories on the way to a failure is removed again.
fn serve(config: Config, ready: &mut Ready) -> Result<(), Failure> {
    let fail = |why: &dyn std::fmt::Display| Failure::new("launch", why);
    let place =
        if config.foreground { journal::Place::Stderr } else { journal::Place::File(config.data_dir.join(LOG)) };
    let new_dirs: Vec<_> =
        [&config.run_dir, &config.data_dir].into_iter().filter(|dir| !dir.exists()).cloned().collect();
    let lock = Lock::take(&config.run_dir).map_err(|why| fail(&why))?;
    let run_dir = config.run_dir.clone();
    let result = (|| {
        lock.remove_stale_socket(&run_dir.join(api::SOCKET)).map_err(|why| fail(&why))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|why| fail(&why))?;
        let sockets = Sockets::bind(&config, &runtime)?;
        journal::start(place, config.log_level);
        let result = runtime.block_on(run(config, sockets, ready));
        runtime.shutdown_timeout(FAREWELL);
        result
    })();
    // It tells `reset` that something may be left.
    if !matches!(result, Ok(true)) {
        let _ = std::fs::remove_file(run_dir.join(api::SOCKET));
    }
    if let Err(failure) = &result {
        failure.lines.iter().for_each(|line| tracing::error!("{line}"));
        new_dirs.iter().for_each(|dir| remove_if_bare(dir));
    }
    drop(lock);
    result.map(drop)
}

/// Removes a directory that this launch made if there is nothing in it but the lock.
fn remove_if_bare(dir: &Path) {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    if names.into_iter().all(|name| name == "rnet.pid") {
        let _ = std::fs::remove_file(dir.join("rnet.pid"));
        let _ = std::fs::remove_dir(dir);
    }
}

/// A device that exists for a moment: it goes with its descriptor, whatever happens.
const PROBED_TAP: &str = "rntprobe";

/// The mesh's port, taken.
struct Sockets {
    tcp: TcpListener,
    udp: Group,
}

impl Sockets {
    fn bind(config: &Config, runtime: &tokio::runtime::Runtime) -> Result<Sockets, Failure> {
        let failed = |protocol: &str, why: std::io::Error| {
            let reason = match why.kind() {
                std::io::ErrorKind::AddrInUse if protocol == "UDP" => {
                    return Failure::new("launch", runtime.block_on(host::mesh_port_taken(config.port)));
                }
                std::io::ErrorKind::AddrInUse => {
                    let who = holder::of_tcp_port(config.port);
                    let who = who.unwrap_or_else(|| "a process that is hidden from here".to_string());
                    format!("is in use by {who}: end it, or give the whole mesh another --port")
                }
                std::io::ErrorKind::PermissionDenied => "needs root".to_string(),
                std::io::ErrorKind::AddrNotAvailable => "cannot be had: --host is no address of this host".to_string(),
                _ => format!("cannot be had: {why}"),
            };
            Failure::new("launch", format!("{protocol} port {} {reason}", config.port))
        };
        let address = config.host.map(|ip: IpAddr| SocketAddr::new(ip, config.port));
        let tcp = address.map_or_else(|| tcp::listen(config.port), tcp::listen_at).map_err(|why| failed("TCP", why))?;
        let threads = threads(config);
        // One is control's.
        let spares = 1 + threads * SENDERS;
        let udp = match address {
            None => UdpSocket::bind_group(config.port, threads, spares),
            Some(address) => UdpSocket::bind_group_to(address, threads, spares),
        };
        Ok(Sockets { tcp, udp: udp.map_err(|why| failed("UDP", why))? })
    }
}

/// Data path threads: each needs a queue of its own at every capture port, and pcap has one.
fn threads(config: &Config) -> usize {
    match config.capture {
        config::CaptureKind::Tap | config::CaptureKind::Packet => {
            config.threads.unwrap_or_else(datapath::default_threads)
        }
        config::CaptureKind::Pcap => 1,
    }
}

/// What there is to work with. Offloads are agreed with a device, so one is made for a moment; where that fails, opening the
/// first network tells why.
fn datapath_status(config: &Config, capture: &Options, udp: &Group) -> DatapathStatus {
    let features = match capture.kind {
        CaptureKind::Tap => {
            let probed = Tap::create(PROBED_TAP, 1, capture.offload).ok();
            probed.and_then(|queues| queues.first().map(Tap::features)).unwrap_or_default()
        }
        CaptureKind::Packet | CaptureKind::Pcap => raw::features(capture.offload),
    };
    let name = |kind| match kind {
        CaptureKind::Tap => "tap".to_string(),
        CaptureKind::Packet => "packet".to_string(),
        CaptureKind::Pcap => "pcap".to_string(),
    };
    let injection =
        if capture.kind == CaptureKind::Pcap && capture.offload { CaptureKind::Packet } else { capture.kind };
    let uncut = capture.kind == CaptureKind::Pcap && capture.offload && marking::available().is_ok();
    let (udp_gso, udp_gro) = udp.sockets.first().map(UdpSocket::offloads).unwrap_or_default();
    DatapathStatus {
        capture: name(capture.kind),
        injection: name(injection),
        uncut,
        threads: udp.sockets.len(),
        pinned: config.pin_threads,
        checksum: features.checksum,
        tcp_super_frames: features.tso,
        udp_super_frames: features.uso,
        fair_queues: features.fair,
        sparse_lane: !udp.sparse.is_empty(),
        udp_gso,
        udp_gro,
        separate_probes: !udp.spares.is_empty(),
    }
}

/// Puts everything together, tells `ready`, and runs until the node has stopped.
/// The router's life. Whether it leaves everything on the machine to the next one.
async fn run(mut config: Config, sockets: Sockets, ready: &mut Ready) -> Result<bool, Failure> {
    let fail = |why: &dyn std::fmt::Display| Failure::new("launch", why);
    let kind = match config.capture {
        config::CaptureKind::Tap => CaptureKind::Tap,
        config::CaptureKind::Packet => CaptureKind::Packet,
        config::CaptureKind::Pcap => CaptureKind::Pcap,
    };
    require_capture(kind)?;
    let capture = Options { kind, queues: threads(&config), offload: config.offload && can_offload(kind) };
    let (host_events, machine_events) = mpsc::unbounded_channel();
    let mut host =
        Host::start_in(Some(&config.run_dir), config.host, capture, host_events).await.map_err(|why| fail(&why))?;
    let names: Vec<&str> = config.interfaces.iter().map(|(interface, _)| interface.as_str()).collect();
    for (at, (interface, _)) in config.interfaces.iter().enumerate() {
        let fits = host.check_uplink(interface.as_str(), names.get(..at).unwrap_or_default()).await;
        fits.map_err(|why| fail(&format!("--interface {interface}: {why}")))?;
    }
    let store = Store::open(&config.data_dir).map_err(|why| fail(&why))?;
    let key = identity(&store)?;
    let state = state(&store, &config)?;
    let vxlan = config.framing.is_none_or(|framing| framing == Framing::Kernel);
    let keep = Keep::of(&state.attachments, vxlan && (config.password.is_none() || !config.trusted_subnets.is_empty()));
    let swept = host.sweep(&keep).await.map_err(|why| fail(&why))?;
    require_framing(&host, &config).await?;
    if !swept.is_empty() {
        tracing::info!("removed what a killed router had left: {}", swept.join(" "));
    }
    let clock = Clock::start();
    let plane = Arc::new(Plane::new(Limits::default()));
    let datapath_status = datapath_status(&config, &capture, &sockets.udp);
    let node_config = NodeConfig { datapath: datapath_status, ..node_config(&mut config, key, state)? };
    let node = Node::new(node_config, Arc::clone(&plane), clock.now());
    let name = node.name();

    let (events, probes) = mpsc::channel(EVENTS_MAX);
    let Group { sockets: receivers, sparse, spares } = sockets.udp;
    let mut sparse = sparse.into_iter().map(Arc::new);
    let mut spares = spares.into_iter().map(Arc::new);
    // Probes must not wait behind data; where there is no other socket they do.
    let prober = spares.next().inspect(|prober| prober.stand_apart());
    let sources = Arc::new(Sources::default());
    let of_thread = |receiver| datapath::Sockets {
        receiver,
        sparse: sparse.next(),
        senders: spares.by_ref().take(SENDERS).collect(),
        sources: Arc::clone(&sources),
    };
    let udp: Vec<_> = receivers.into_iter().map(Arc::new).map(of_thread).collect();
    let prober = prober.or_else(|| udp.first().map(|sockets| Arc::clone(&sockets.receiver)));
    let receivers = udp.iter().flat_map(datapath::Sockets::receivers).collect();
    let prober = prober.ok_or_else(|| fail(&"no UDP socket"))?;
    let (happenings, happened) = mpsc::channel(HAPPENINGS_MAX);
    let hears = happenings.clone();
    let ended = move |why| drop(hears.blocking_send(Happening::DatapathEnded(why)));
    let tells = Tells { events, ended };
    let datapath = Datapath::start(plane, udp, config.pin_threads, clock, tells).map_err(|why| fail(&why))?;
    let save = move |state: &State| store.save(STATE, state).map_err(|why| why.to_string());
    let stored = happenings.clone();
    // A router that has ended needs not hear of it.
    let keeper = Keeper::start(save, move |number| drop(stored.blocking_send(Happening::Stored(number))));
    let keeper = keeper.map_err(|why| fail(&why))?;
    let (machine, ops) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::from_std(sockets.tcp).map_err(|why| fail(&why))?;
    let accepting = tokio::spawn(links::accept(listener, happenings.clone()));
    let beats = host.beats();
    tokio::spawn(machine::change(host, ops, happenings.clone()));
    tokio::spawn(machine::notice(machine_events, datapath.hands(), clock, happenings.clone()));
    tokio::spawn(machine::signals(happenings.clone()));
    // The first that control hears of.
    let _ = happenings.send(machine::own_addresses()).await;

    let (desk, questions) = Desk::new(config.guard);
    let (end, ended) = oneshot::channel::<()>();
    let socket = api::http::bind(&config.run_dir).map_err(|why| fail(&why))?;
    let api = tokio::spawn(api::http::serve(socket, desk, async { ended.await.unwrap_or_default() }));
    let (links, hands) = (Links::new(happenings), datapath.hands());
    let outlets = Outlets { links, socket: prober, receivers, sources, hands, beats, machine, keeper };
    let control = Control::new(node, clock, outlets);
    let alarm = Alarm::new().map_err(|why| fail(&why))?;

    tracing::info!("rnet {} is ready: {name}({}), port {}", env!("CARGO_PKG_VERSION"), config.nickname, config.port);
    ready.tell(&name.to_string());
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let result = control.run(Inlets { questions, happenings: happened, events: probes, alarm }).await;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    accepting.abort();
    let _ = end.send(());
    let _ = tokio::time::timeout(FAREWELL, api).await;
    drop(datapath);
    let kept = result.map_err(|why| fail(&format!("{why}: the router has ended")))?;
    tracing::info!("stopped{}", if kept { ", and left everything to the next one" } else { "" });
    Ok(kept)
}

/// A capture that cannot work is told before anything is made.
fn require_capture(kind: CaptureKind) -> Result<(), Failure> {
    match kind {
        CaptureKind::Tap if !Path::new("/dev/net/tun").exists() => {
            let why = "/dev/net/tun is missing: load the kernel module tun (modprobe tun), or use --capture packet";
            Err(Failure::new("launch", why))
        }
        CaptureKind::Pcap => pcap::available().map_err(|why| Failure::new("launch", format!("--capture pcap: {why}"))),
        CaptureKind::Tap | CaptureKind::Packet => Ok(()),
    }
}

/// libpcap takes no super-frames: without a socket that does it sends frame by frame, and the log says so. `rnet status` does too.
fn can_offload(kind: CaptureKind) -> bool {
    let can = if kind == CaptureKind::Pcap { raw::can_inject() } else { Ok(()) };
    can.inspect_err(|why| tracing::warn!("--capture pcap: {why}: libpcap sends, a frame a call, which is slower"))
        .is_ok()
}

/// A framing that was asked for by its name is had, or the router does not start. After the sweep: a killed router may have the
/// port.
async fn require_framing(host: &Host, config: &Config) -> Result<(), Failure> {
    let (Some(framing), Some(port)) = (config.framing, config.port.checked_add(1)) else { return Ok(()) };
    let had = match framing {
        Framing::Udp => Ok(()),
        Framing::Vxlan => host.try_peers(port).await,
        Framing::Kernel => host.try_kernel(port).await,
    };
    had.map_err(|why| Failure::new("launch", format!("--framing {framing}: {why}")))
}

fn node_config(config: &mut Config, key: StaticKey, state: State) -> Result<NodeConfig, Failure> {
    let random = |result: std::io::Result<_>| result.map_err(|why| Failure::new("launch", why));
    let uid = entropy::number().map_err(|why| Failure::new("launch", why))?;
    Ok(NodeConfig {
        key,
        // Taken, so that the password is wiped as soon as its key is derived.
        psk: config.password.take().map(|password| psk::derive(&password)),
        nickname: config.nickname.clone(),
        port: config.port,
        uid: Uid(uid),
        seed: random(entropy::seed())?,
        aes: fast_aes(),
        discovery: config.discovery,
        allow: config.allow.clone(),
        connection_limit: config.connection_limit,
        reach: ReachConfig {
            advertise: std::mem::take(&mut config.advertise),
            interfaces: std::mem::take(&mut config.interface_filter),
            listen: config.host,
        },
        mtu: config.mtu,
        framing: config.framing,
        trusted_subnets: config.trusted_subnets.clone(),
        datapath: DatapathStatus::default(),
        addresses: AddressConfig {
            ranges: config.ranges.clone(),
            default_subnet: config.default_subnet,
            // As many as were named know of each other from the start, so the first one alone does not found a second space.
            init: config.init.clone().unwrap_or(Init::Consensus(state.targets.len().saturating_add(1))),
            reclaim: config.reclaim,
        },
        uplinks: uplinks(config),
        state,
        version: env!("CARGO_PKG_VERSION").to_string(),
    })
}

/// What `--interface` asks for. Where networks of our own are captured by libpcap, so are these; else by what is fastest.
fn uplinks(config: &Config) -> Vec<Uplink> {
    let capture = match config.capture {
        config::CaptureKind::Pcap => UplinkCapture::Pcap,
        config::CaptureKind::Tap | config::CaptureKind::Packet => UplinkCapture::Packet,
    };
    let interfaces = config.interfaces.iter().cloned();
    interfaces.map(|(interface, network)| Uplink { interface, network, capture }).collect()
}

/// Whether this processor has instructions for AES: without them ChaCha20 is faster.
fn fast_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// This peer's key: made at the first launch.
fn identity(store: &Store) -> Result<StaticKey, Failure> {
    let fail = |why: &dyn std::fmt::Display| Failure::new("launch", why);
    match store.load_identity().map_err(|why| fail(&why))? {
        Loaded::Found(key) => Ok(key),
        // A new name would look like a new peer to everybody: not without being told to.
        Loaded::Damaged { aside, why } => {
            let path = aside.display();
            Err(fail(&format!("the identity is damaged ({why}); it lies in {path} now: launch again for a new one")))
        }
        Loaded::Absent => {
            let key = crate::crypto::keys::generate_key(entropy::seed().map_err(|why| fail(&why))?);
            store.save_identity(&key).map_err(|why| fail(&why))?;
            Ok(key)
        }
    }
}

/// What survived the last run, with the targets that count now.
fn state(store: &Store, config: &Config) -> Result<State, Failure> {
    let stored = match store.load::<State>(STATE).map_err(|why| Failure::new("launch", why))? {
        Loaded::Found(state) if !(1..=STATE_VERSION).contains(&state.version) => {
            let (path, found) = (store.path(STATE), state.version);
            let why = format!(
                "{} has layout {found}, which this rnet does not know: use the rnet that wrote it, or move the file away",
                path.display()
            );
            return Err(Failure::new("launch", why));
        }
        Loaded::Found(state) => state,
        Loaded::Absent => State::default(),
        Loaded::Damaged { aside, why } => {
            tracing::warn!(
                "the state of the last run is damaged ({why}) and lies in {} now: starting anew",
                aside.display()
            );
            State::default()
        }
    };
    let targets = if config.resume { stored.targets } else { config.targets.clone() };
    Ok(State { version: STATE_VERSION, targets, ..stored })
}
