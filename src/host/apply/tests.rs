//! On the real kernel: each test in a network namespace of its own, on a thread of its own.
//!
//! Where the system forbids namespaces, each says `skipped:` and shows nothing.

mod guards;
mod kernel;
mod uncut;

use super::*;
use crate::host::Keep;
use crate::io::capture::{CAPTURE_MAX, CaptureKind};
use crate::io::netlink::Link;
use crate::types::{HostAddress, Mac, NetId};
use crate::wire::virtio::Offload;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::WaitPidFlag;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const PATIENCE: Duration = Duration::from_secs(5);

fn contains(frame: &[u8], body: &[u8]) -> bool {
    frame.windows(body.len()).any(|window| window == body)
}

/// A router's host part in a fresh namespace.
struct Bench {
    host: Host,
    events: UnboundedReceiver<HostEvent>,
    before: Vec<String>,
}

impl Bench {
    async fn new(kind: CaptureKind) -> Bench {
        Bench::with(Options::plain(kind)).await
    }

    async fn with(options: Options) -> Bench {
        let (sender, events) = unbounded_channel();
        let host = Host::start(options, sender).await.unwrap();
        let mut bench = Bench { host, events, before: Vec::new() };
        bench.before = bench.names().await;
        bench
    }

    async fn links(&self) -> Vec<Link> {
        self.host.shared.netlink.links().await.unwrap()
    }

    async fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.links().await.into_iter().map(|link| link.name).collect();
        names.sort();
        names
    }

    async fn link(&self, name: &str) -> Link {
        self.host.shared.netlink.link(name).await.unwrap().unwrap_or_else(|| panic!("no {name}"))
    }

    async fn event(&mut self) -> HostEvent {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event").expect("a sender")
    }

    /// The only queue.
    async fn open(&mut self) -> Capture {
        let [capture] = <[Capture; 1]>::try_from(self.open_all().await).unwrap_or_else(|all| panic!("{}", all.len()));
        capture
    }

    async fn open_all(&mut self) -> Vec<Capture> {
        self.host.apply(open()).await.unwrap();
        loop {
            if let HostEvent::Opened { port: PortId(3), captures } = self.event().await {
                return captures;
            }
        }
    }

    /// Waits until the attachment is told gone.
    async fn gone(&mut self) -> String {
        loop {
            if let HostEvent::AttachmentGone { key } = self.event().await {
                return key;
            }
        }
    }
}

/// Runs `test` with a runtime in a fresh network namespace, the loopback down.
fn in_fresh_namespace(test: impl AsyncFnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Err(e) = unshare(CloneFlags::CLONE_NEWNET) {
                eprintln!("skipped: no network namespace can be made here: {e}");
                return;
            }
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

const ID: u32 = 0x8312a4;

fn open() -> HostOp {
    HostOp::OpenNetwork {
        network: "10.2.1.0/24".parse().unwrap(),
        id: NetId::new(ID).unwrap(),
        port: PortId(3),
        mtu: 1410,
    }
}

fn close() -> HostOp {
    HostOp::CloseNetwork { id: NetId::new(ID).unwrap(), port: PortId(3) }
}

fn interface(name: &str, last: u8, addresses: &[&str]) -> Interface {
    let addresses: Vec<HostAddress> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    Interface {
        name: name.into(),
        network: addresses[0].network(),
        id: NetId::new(ID).unwrap(),
        mac: Mac([2, 0, 0, 0, 0, last]),
        addresses,
        gateway: None,
        masquerade: false,
    }
}

fn place(namespace: &Netns) -> Place {
    Place::Path(format!("/proc/self/fd/{}", namespace.as_fd().as_raw_fd()))
}

fn plug(key: &str, place: &Place, interfaces: &[Interface]) -> HostOp {
    HostOp::Plug { key: key.into(), place: place.clone(), interfaces: interfaces.to_vec(), mtu: 1410, guarded: true }
}

fn unplug(key: &str, place: &Place, interfaces: &[Interface]) -> HostOp {
    HostOp::Unplug { key: key.into(), place: place.clone(), interfaces: interfaces.to_vec() }
}

fn udp_in(namespace: &Netns, address: &str) -> UdpSocket {
    let socket = namespace.within(|| UdpSocket::bind(address)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A process in `namespace`.
fn sleeper(namespace: &Netns) -> Child {
    namespace.within(|| Command::new("sleep").arg("600").spawn()).unwrap()
}

/// The next captured frame that `wanted` takes.
async fn captured(capture: &mut Capture, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut buffer = vec![0; CAPTURE_MAX];
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match capture.read(&mut buffer).unwrap() {
            Some(Ok(captured)) if wanted(captured.frame) => return captured.frame.to_vec(),
            Some(read) => assert_eq!(read.unwrap().offload, Offload::NONE),
            None => tokio::task::yield_now().await,
        }
    }
    panic!("no such frame was captured");
}

/// A whole UDP frame, checksums complete.
fn udp_frame(from: (Mac, &str), to: (Mac, SocketAddr), body: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.1.parse().unwrap(), to.1.ip()) else {
        panic!("IPv4 only")
    };
    let builder = etherparse::PacketBuilder::ethernet2(from.0.0, to.0.0)
        .ipv4(source.octets(), destination.octets(), 64)
        .udp(7, to.1.port());
    let mut frame = Vec::new();
    builder.write(&mut frame, body).unwrap();
    frame
}

fn read_in(namespace: &Netns, setting: &str) -> String {
    let path = format!("/proc/sys/net/{setting}");
    namespace.within(|| std::fs::read_to_string(&path)).unwrap().trim().to_string()
}

#[test]
fn a_network_is_a_bridge_with_its_tap_up_and_without_ipv6_of_the_host() {
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Tap).await;
        let capture = bench.open().await;
        let (bridge, tap) = (bench.link("rnb8312a4").await, bench.link("rnt8312a4").await);
        assert_eq!((bridge.kind.as_str(), bridge.up, bridge.mtu), ("bridge", true, 1410));
        assert_eq!((tap.kind.as_str(), tap.up, tap.mtu, tap.master), ("tun", true, 1410, Some(bridge.index)));
        for name in ["rnb8312a4", "rnt8312a4"] {
            let own = Netns::own().unwrap();
            assert_eq!(read_in(&own, &format!("ipv6/conf/{name}/disable_ipv6")), "1");
        }
        assert!(bench.host.apply(open()).await.unwrap_err().contains("making the bridge rnb8312a4: File exists"));
        bench.host.apply(close()).await.unwrap();
        assert!(matches!(bench.event().await, HostEvent::Closed { port: PortId(3) }));
        assert_eq!(bench.names().await, bench.before);
        let mut capture = capture;
        assert!(capture.read(&mut [0; 2048]).is_err(), "whoever still holds it is told");
        bench.host.apply(close()).await.unwrap();
    });
}

/// All that a TAP's kernel may leave to us, over two queues.
const ALL: Options = Options { kind: CaptureKind::Tap, queues: 2, offload: true };

#[test]
fn a_tap_has_a_capture_for_each_queue_and_leaves_what_was_asked_for() {
    in_fresh_namespace(async || {
        let mut bench = Bench::with(ALL).await;
        let mut captures = bench.open_all().await;
        assert_eq!(captures.len(), 2);
        assert!(captures.iter().all(|capture| capture.features().multi_queue && capture.features().tso));
        assert!(bench.link("rnt8312a4").await.up);
        let web = Netns::create().unwrap();
        let own = interface("rnet0", 1, &["10.2.1.1/24"]);
        bench.host.apply(plug("web", &place(&web), std::slice::from_ref(&own))).await.unwrap();
        let at_web = udp_in(&web, "10.2.1.1:5000");
        at_web.set_broadcast(true).unwrap();
        at_web.send_to(b"to everybody", "10.2.1.255:9").unwrap();
        let mut buffer = vec![0; CAPTURE_MAX];
        let deadline = Instant::now() + PATIENCE;
        let left = 'found: loop {
            assert!(Instant::now() < deadline, "no such frame was captured");
            for capture in &mut captures {
                if let Some(Ok(captured)) = capture.read(&mut buffer).unwrap()
                    && captured.frame.ends_with(b"to everybody")
                {
                    break 'found captured.offload;
                }
            }
        };
        assert!(left.checksum.is_some(), "the sender left the checksum to its device, and so do we");
        bench.host.apply(close()).await.unwrap();
        assert!(captures.iter_mut().all(|capture| capture.read(&mut buffer).is_err()));
    });
}

#[test]
fn frames_travel_between_attachments_and_the_capture_port() {
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Tap).await;
        let mut capture = bench.open().await;
        let (web, db) = (Netns::create().unwrap(), Netns::create().unwrap());
        let (first, second) = (interface("rnet0", 1, &["10.2.1.1/24"]), interface("rnet0", 2, &["10.2.1.2/24"]));
        bench.host.apply(plug("web", &place(&web), std::slice::from_ref(&first))).await.unwrap();
        bench.host.apply(plug("db", &place(&db), std::slice::from_ref(&second))).await.unwrap();

        let (at_web, at_db) = (udp_in(&web, "10.2.1.1:5000"), udp_in(&db, "10.2.1.2:5000"));
        at_web.send_to(b"over the bridge", "10.2.1.2:5000").unwrap();
        let mut buffer = [0; 2048];
        assert_eq!(at_db.recv_from(&mut buffer).unwrap(), (15, "10.2.1.1:5000".parse().unwrap()));

        // The question for an address elsewhere reaches us, and so does what is announced.
        at_web.send_to(b"away", "10.2.1.9:5000").unwrap();
        let asks = |wanted: [u8; 4]| move |frame: &[u8]| frame[12..14] == [8, 6] && frame[38..42] == wanted;
        let frame = captured(&mut capture, asks([10, 2, 1, 9])).await;
        assert_eq!((&frame[..6], &frame[6..12]), (&Mac::BROADCAST.0[..], &first.mac.0[..]));
        captured(&mut capture, asks([10, 2, 1, 2])).await;

        // What we write reaches the attachment.
        let frame = udp_frame(
            (Mac([2, 0, 0, 0, 0, 9]), "10.2.1.9"),
            (first.mac, "10.2.1.1:5000".parse().unwrap()),
            b"from the mesh",
        );
        capture.write(&Offload::NONE, &[&frame]).unwrap();
        let (length, from) = at_web.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"from the mesh"[..], "10.2.1.9:7".parse().unwrap()));
    });
}

#[test]
fn an_interface_has_its_mac_mtu_addresses_and_settings_before_it_is_used() {
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Tap).await;
        let _capture = bench.open().await;
        let inside = Netns::create().unwrap();
        let interfaces =
            [interface("rnet0", 1, &["10.2.1.1/24"]), interface("rnet1", 2, &["fd00:1::1/64", "fd00:1::2/64"])];
        bench.host.apply(plug("web", &place(&inside), &interfaces)).await.unwrap();
        let netlink = Netlink::open_in(&inside).unwrap();
        for interface in &interfaces {
            let link = netlink.link(&interface.name).await.unwrap().unwrap();
            assert_eq!((link.up, link.mtu, link.mac), (true, 1410, Some(interface.mac)));
        }
        // Usable at once: binding to an address that is still being probed fails.
        let [from, to] = ["[fd00:1::1]:0", "[fd00:1::2]:6000"].map(|address| udp_in(&inside, address));
        drop((from, to));
        assert_eq!(read_in(&inside, "ipv6/conf/rnet0/disable_ipv6"), "1");
        assert_eq!(read_in(&inside, "ipv6/conf/rnet1/accept_ra"), "0");
        let own = Netns::own().unwrap();
        assert_eq!(read_in(&own, &format!("ipv6/conf/{}/disable_ipv6", names::veth("web", "rnet0"))), "1");
        let routes = inside.within(|| std::fs::read_to_string("/proc/thread-self/net/route")).unwrap();
        assert!(routes.lines().any(|line| line.starts_with("rnet0\t000000E0")), "{routes}");
    });
}

#[test]
fn unplugging_is_idempotent_and_takes_only_what_it_names() {
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Tap).await;
        let _capture = bench.open().await;
        let inside = Netns::create().unwrap();
        let (first, second) = ([interface("rnet0", 1, &["10.2.1.1/24"])], [interface("rnet1", 2, &["10.2.1.2/24"])]);
        let there = place(&inside);
        bench.host.apply(plug("web", &there, &first)).await.unwrap();
        bench.host.apply(plug("web", &there, &second)).await.unwrap();
        for _ in 0..2 {
            bench.host.apply(unplug("web", &there, &first)).await.unwrap();
            assert!(bench.names().await.contains(&names::veth("web", "rnet1")));
        }
        bench.host.apply(unplug("web", &Place::Path("/no/such/namespace".into()), &second)).await.unwrap();
        bench.host.apply(close()).await.unwrap();
        assert_eq!(bench.names().await, bench.before);
        assert!(bench.host.shared.plugged().is_empty());
        while let Ok(event) = bench.events.try_recv() {
            assert!(!matches!(event, HostEvent::AttachmentGone { .. }), "what we took off is not told as gone");
        }
    });
}

#[test]
fn whatever_step_fails_nothing_is_left() {
    let kinds = [CaptureKind::Tap, CaptureKind::Packet, CaptureKind::Pcap];
    for options in [Options::plain(kinds[0]), ALL, Options::plain(kinds[1]), Options::plain(kinds[2])] {
        let kind = options.kind;
        in_fresh_namespace(async || {
            let mut bench = Bench::with(options).await;
            for step in 0..plan(&open(), kind).len() {
                bench.host.fail_at = Some(step);
                assert!(bench.host.apply(open()).await.unwrap_err().contains("injected"), "step {step}");
                assert_eq!(bench.names().await, bench.before, "step {step}");
            }
            bench.host.fail_at = None;
            let _captures = bench.open_all().await;
            let (inside, opened) = (Netns::create().unwrap(), bench.names().await);
            let interfaces = [interface("rnet0", 1, &["10.2.1.1/24"]), interface("rnet1", 2, &["fd00:1::1/64"])];
            let op = plug("web", &place(&inside), &interfaces);
            for step in 0..plan(&op, kind).len() {
                bench.host.fail_at = Some(step);
                assert!(bench.host.apply(op.clone()).await.unwrap_err().contains("injected"), "step {step}");
                assert_eq!(bench.names().await, opened, "step {step}");
                let left = Netlink::open_in(&inside).unwrap().links().await.unwrap();
                assert!(left.iter().all(|link| !link.name.starts_with("rnet")), "step {step}: {left:?}");
            }
            assert!(bench.host.shared.plugged().is_empty());
            bench.host.fail_at = None;
            bench.host.apply(op).await.unwrap();
        });
    }
}

#[test]
fn a_real_failure_names_the_device_and_leaves_nothing() {
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Tap).await;
        let inside = Netns::create().unwrap();
        let error = bench
            .host
            .apply(plug("web", &place(&inside), &[interface("rnet0", 1, &["10.2.1.1/24"])]))
            .await
            .unwrap_err();
        assert!(error.contains("on the bridge rnb8312a4: No such device"), "{error}");
        assert_eq!(bench.names().await, bench.before);
        let _capture = bench.open().await;
        let twice = [interface("rnet0", 1, &["10.2.1.1/24"]), interface("rnet0", 1, &["10.2.1.1/24"])];
        assert!(bench.host.apply(plug("web", &place(&inside), &twice)).await.unwrap_err().contains("File exists"));
        assert!(!bench.names().await.contains(&names::veth("web", "rnet0")));
    });
}

#[test]
fn refuses_the_hosts_own_namespace_and_places_that_are_none() {
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Tap).await;
        let _capture = bench.open().await;
        let opened = bench.names().await;
        let mut here = sleeper(&Netns::own().unwrap());
        let (own, pid) = (Netns::own().unwrap(), here.id() as i32);
        for (place, why) in [
            (place(&own), "that is the host's own network namespace"),
            (Place::Pid(pid), "that is the host's own network namespace"),
            (Place::Pid(i32::MAX), "no such process"),
            (Place::Pid(0), "not a process"),
            (Place::Path("/run/netns/no-such".into()), "no such network namespace"),
            (Place::Path("/etc/hostname".into()), "not a network namespace"),
        ] {
            let error =
                bench.host.apply(plug("web", &place, &[interface("rnet0", 1, &["10.2.1.1/24"])])).await.unwrap_err();
            assert!(error.contains(why), "{place:?}: {error}");
        }
        here.kill().unwrap();
        let dead = nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(pid));
        nix::sys::wait::waitid(dead, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        let error = bench
            .host
            .apply(plug("web", &Place::Pid(pid), &[interface("rnet0", 1, &["10.2.1.1/24"])]))
            .await
            .unwrap_err();
        assert!(error.contains("no such process") || error.contains("has ended"), "a zombie: {error}");
        here.wait().unwrap();
        assert_eq!(bench.names().await, opened);
    });
}

#[test]
fn an_attachment_ends_with_its_process_even_if_others_keep_its_namespace() {
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Tap).await;
        let _capture = bench.open().await;
        let opened = bench.names().await;
        let inside = Netns::create().unwrap();
        let mut process = sleeper(&inside);
        let interfaces = [interface("rnet0", 1, &["10.2.1.1/24"])];
        let pid = process.id() as i32;
        let answer = bench.host.apply(plug("pid:7", &Place::Pid(pid), &interfaces)).await.unwrap();
        let HostAnswer::Plugged(Place::Process { pid: told, started }) = answer else { panic!("{answer:?}") };
        assert_eq!(told, pid);
        let other = Place::Process { pid, started: started + 1 };
        let refused = bench.host.apply(plug("pid:8", &other, &interfaces)).await.unwrap_err();
        assert!(refused.contains("another one has its number"), "{refused}");
        process.kill().unwrap();
        assert_eq!(bench.gone().await, "pid:7");
        assert_eq!(bench.names().await, opened);
        process.wait().unwrap();
        // The node gives up what it knows of it: no error.
        bench.host.apply(unplug("pid:7", &Place::Pid(process.id() as i32), &interfaces)).await.unwrap();
    });
}

#[test]
fn an_attachment_ends_with_its_namespace() {
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Tap).await;
        let _capture = bench.open().await;
        let inside = Netns::create().unwrap();
        let interfaces = [interface("rnet0", 1, &["10.2.1.1/24"]), interface("rnet1", 2, &["10.2.1.2/24"])];
        bench.host.apply(plug("netns:web", &place(&inside), &interfaces)).await.unwrap();
        drop(inside);
        assert_eq!(bench.gone().await, "netns:web");
        assert!(bench.host.shared.plugged().is_empty());
    });
}

#[test]
fn sweeps_what_is_ours_by_name_and_kind_and_nothing_else() {
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Tap).await;
        let netlink = &bench.host.shared.netlink;
        let pair =
            async |name, peer| netlink.add_veth(Veth { name, peer, inside: None, mac: None, mtu: 1500 }).await.unwrap();
        netlink.add_bridge("rnb8312a4", 1500).await.unwrap();
        pair("rnv01234567", "left0").await;
        pair("rnp8312a4", "rnq8312a4").await;
        // Like ours, but of another kind or not quite of the name.
        netlink.add_bridge("rnbridge", 1500).await.unwrap();
        netlink.add_bridge("rnv89abcdef", 1500).await.unwrap();
        pair("rnv0123456", "rnet0").await;
        let mut swept = bench.host.sweep(&Keep::default()).await.unwrap();
        swept.sort();
        assert_eq!(swept.len(), 3, "{swept:?}: a pair goes at once");
        let mut left = bench.before.clone();
        left.extend(["rnbridge", "rnet0", "rnv0123456", "rnv89abcdef"].map(String::from));
        left.sort();
        assert_eq!(bench.names().await, left);
        assert!(bench.host.sweep(&Keep::default()).await.unwrap().is_empty());
    });
}

#[test]
fn a_router_that_was_killed_leaves_only_what_the_next_one_sweeps() {
    in_fresh_namespace(async || {
        let mut dead = Bench::new(CaptureKind::Tap).await;
        let capture = dead.open().await;
        let inside = Netns::create().unwrap();
        dead.host.apply(plug("web", &place(&inside), &[interface("rnet0", 1, &["10.2.1.1/24"])])).await.unwrap();
        let mut next = Bench::new(CaptureKind::Tap).await;
        assert!(next.host.sweep(&Keep::default()).await.unwrap_err().contains("another router is running"));
        let Bench { before, host, events, .. } = dead;
        drop((host, events, capture));
        next.host.sweep(&Keep::default()).await.unwrap();
        assert_eq!(next.names().await, before);
        let left = Netlink::open_in(&inside).unwrap().links().await.unwrap();
        assert!(left.iter().all(|link| link.name != "rnet0"));
    });
}

#[test]
fn tells_once_that_the_network_changed_and_nothing_of_its_own_doing() {
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Tap).await;
        let _capture = bench.open().await;
        let inside = Netns::create().unwrap();
        bench.host.apply(plug("web", &place(&inside), &[interface("rnet0", 1, &["10.2.1.1/24"])])).await.unwrap();
        let quiet = tokio::time::timeout(QUIET * 2, bench.events.recv()).await;
        assert!(quiet.is_err(), "what we did ourselves is no change");
        let netlink = bench.host.shared.netlink.clone();
        netlink.set_up("lo").await.unwrap();
        netlink.add_address("lo", "192.0.2.1/24".parse().unwrap()).await.unwrap();
        netlink.add_address("lo", "192.0.2.2/24".parse().unwrap()).await.unwrap();
        assert!(matches!(bench.event().await, HostEvent::NetworkChanged));
        assert!(tokio::time::timeout(QUIET * 2, bench.events.recv()).await.is_err(), "told once");
    });
}

#[test]
fn a_device_that_somebody_deletes_is_told_and_made_anew_and_our_own_doing_is_not() {
    in_fresh_namespace(async || {
        let mut bench = Bench::with(Options { kind: CaptureKind::Tap, queues: 2, offload: true }).await;
        let first = bench.open_all().await;
        let netlink = bench.host.shared.netlink.clone();
        netlink.delete("rnt8312a4").await.unwrap();
        assert!(matches!(bench.event().await, HostEvent::CaptureGone { port: PortId(3) }));
        let id = NetId::new(ID).unwrap();
        bench.host.apply(HostOp::Recapture { id, gone: PortId(3), port: PortId(4), mtu: 1410 }).await.unwrap();
        assert!(matches!(bench.event().await, HostEvent::Closed { port: PortId(3) }));
        let HostEvent::Opened { port: PortId(4), captures } = bench.event().await else { panic!("not opened") };
        assert_eq!(captures.len(), 2);
        let (tap, bridge) = (bench.link("rnt8312a4").await, bench.link("rnb8312a4").await);
        assert!(tap.up && tap.forwarding && tap.mtu == 1410 && tap.master == Some(bridge.index), "{tap:?}");
        drop(first);
        bench.host.apply(HostOp::CloseNetwork { id, port: PortId(4) }).await.unwrap();
        assert!(matches!(bench.event().await, HostEvent::Closed { port: PortId(4) }));
        assert!(tokio::time::timeout(QUIET * 2, bench.events.recv()).await.is_err(), "we did it ourselves");
        assert_eq!(bench.names().await, bench.before);
    });
}

#[test]
fn without_a_tap_frames_are_captured_whole_with_complete_checksums_and_once() {
    use crate::io::capture::Features;
    use crate::wire::virtio::Partial;
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Pcap).await;
        let mut capture = bench.open().await;
        let web = Netns::create().unwrap();
        let first = interface("rnet0", 1, &["10.2.1.1/24"]);
        bench.host.apply(plug("web", &place(&web), std::slice::from_ref(&first))).await.unwrap();
        let at_web = udp_in(&web, "10.2.1.1:5000");
        let far = Mac([2, 0, 0, 0, 0, 9]);
        let frame = udp_frame((far, "10.2.1.9"), (first.mac, "10.2.1.1:5000".parse().unwrap()), b"from the mesh");
        // The answer to our own question makes the neighbour known inside.
        let mut arp = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
        arp.extend([2, 0, 0, 0, 0, 9, 10, 2, 1, 9, 0, 0, 0, 0, 0, 0, 10, 2, 1, 1]);
        capture.write(&Offload::NONE, &[&arp]).unwrap();
        capture.write(&Offload::NONE, &[&frame[..42], &frame[42..50], &[], &frame[50..]]).unwrap();
        // Without offloads libpcap sends, and nothing may be left to do on a frame.
        let partial = Offload { checksum: Some(Partial { start: 34, offset: 6 }), gso: None };
        assert_eq!(capture.features(), Features::default());
        assert_eq!(capture.write(&partial, &[&frame]).unwrap_err().kind(), io::ErrorKind::Unsupported);
        let long: &[u8] = &[0; 40_000];
        assert_eq!(capture.write(&Offload::NONE, &[long, long]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let mut buffer = [0; 2048];
        assert_eq!(at_web.recv_from(&mut buffer).unwrap(), (13, "10.2.1.9:7".parse().unwrap()));
        at_web.send_to(b"to the mesh", "10.2.1.9:7").unwrap();
        let got = captured(&mut capture, |frame| {
            assert_ne!(frame[6..12], far.0, "our own frames do not come back");
            frame[12..14] == [8, 0]
        });
        let got = got.await;
        let packet = etherparse::SlicedPacket::from_ethernet(&got).unwrap();
        let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Udp(udp))) =
            (packet.net, packet.transport)
        else {
            panic!("not UDP over IPv4")
        };
        assert_eq!(udp.payload(), b"to the mesh");
        let header = udp.to_header();
        assert_eq!(header.checksum, header.calc_checksum_ipv4(&ip.header().to_header(), udp.payload()).unwrap());
        // What the attachment leaves uncut is cut on its way, each frame with its checksum.
        let each: libc::c_int = 1000;
        nix::sys::socket::setsockopt(&at_web, nix::sys::socket::sockopt::UdpGsoSegment, &each).unwrap();
        at_web.send_to(&[b"many".repeat(250), b"more".repeat(250), b"last".to_vec()].concat(), "10.2.1.9:7").unwrap();
        for (mark, length) in [("many", 1000), ("more", 1000), ("last", 4)] {
            let got = captured(&mut capture, |frame| contains(frame, mark.as_bytes())).await;
            let packet = etherparse::SlicedPacket::from_ethernet(&got).unwrap();
            let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Udp(udp))) =
                (packet.net, packet.transport)
            else {
                panic!("not UDP over IPv4")
            };
            let header = udp.to_header();
            assert_eq!(udp.payload().len(), length, "{mark}");
            assert_eq!(header.checksum, header.calc_checksum_ipv4(&ip.header().to_header(), udp.payload()).unwrap());
        }
        bench.host.apply(close()).await.unwrap();
        assert_eq!(bench.names().await.len(), bench.before.len() + 1, "only the attachment's pair is left");
    });
}
