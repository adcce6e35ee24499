//! The border between the pure router and whoever drives it: everything that goes in and comes out.
//!
//! The driver (the daemon's control task, the simulator) handles one input, then polls until
//! `Output::Wait`, then waits for the next input or the deadline. It holds no decision. The data plane is not
//! part of this border: the node holds the same `Arc<Plane>` as the data path threads, publishes snapshots into it
//! and reads its tables, all of it pure.

use super::command::{Attachment, Command, Interface, Place, Reply, Uplink, Vtep};
use crate::ipam::IpamState;
use crate::plane::Event;
use crate::plane::fib::PortId;
use crate::types::{Engine, Instant, Mac, NetId, Network, Nickname, PeerName, Target, Transport};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A TCP connection, numbered by the driver, never reused within a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A dial that the node asked for, numbered by the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// A request of an edge, numbered by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A change to this machine that the node asked for, numbered by the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u64);

/// What the driver tells the node.
#[derive(Debug)]
pub enum Input<'a> {
    /// A TCP connection stands: dialled by us for `dial`, or accepted.
    LinkUp { link: LinkId, dial: Option<DialId>, remote: SocketAddr, local: SocketAddr },
    /// Bytes arrived on it.
    LinkBytes { link: LinkId, bytes: &'a [u8] },
    /// Everything given by `Output::Send` so far is in the kernel's hands: more gossip may be sent.
    LinkDrained { link: LinkId },
    /// It ended by the other side or the network (not by `Output::Close`).
    LinkDown { link: LinkId, why: String },
    /// A dial failed: no such name, refused, timed out.
    DialFailed { dial: DialId, why: String },
    /// The data plane has something to tell.
    Plane(Event),
    /// An edge asks. Answered by exactly one `Output::Reply`, now or later.
    Command { request: RequestId, command: Command },
    /// A change to the machine was made, or failed and was undone (one line why).
    HostDone { host: HostId, result: Result<HostAnswer, String> },
    /// The process or namespace of an attachment is gone; its interfaces went with it.
    AttachmentGone { key: String },
    /// Whoever asked this is gone: it needs no answer any more, and what waits for it is given up.
    Withdrawn { request: RequestId },
    /// The state of that number (or a later one) is on the disk, synced.
    Persisted { number: u64 },
    /// The device of a capture port was taken away by others; no frame passes it any more.
    CaptureGone { port: PortId },
    /// An address, route or device of this machine changed: dial at once, and look how large datagrams may be.
    NetworkChanged,
    /// The addresses that this machine has now, by interface. At the start, and whenever they changed.
    Addresses(Vec<(String, IpAddr)>),
    /// What the route to the VTEP behind `port` takes now, bytes of IP packet.
    RouteMtu { port: PortId, mtu: u16 },
    /// What the captured interface that is `port` does now.
    Uplink { port: PortId, state: UplinkState },
    /// The kernel's VXLAN device of a network, or (none) the one that heartbeats pass, is gone or was changed by others: nothing
    /// that was installed there counts any more.
    OffloadLost { id: Option<NetId> },
    /// A VXLAN device of somebody else is gone: its UDP port may be free.
    VxlanGone,
    /// The deadline of `Output::Wait` was reached.
    Tick,
}

/// What the node wants done.
pub enum Output {
    /// Resolve (at each try), connect, and answer with `LinkUp` or `DialFailed`. `default_port` where the target has none.
    Dial { dial: DialId, target: Target, default_port: u16 },
    /// Write to the link, in order. Answered by `LinkDrained` when all is written.
    Send { link: LinkId, bytes: Vec<u8> },
    /// Flush what was sent (bounded time), then close. No `LinkDown` follows.
    Close { link: LinkId },
    /// Send this datagram (probes; already sealed) from that address of ours, or from whichever the kernel chooses.
    /// `dont_fragment` is always on.
    Datagram { from: Option<IpAddr>, to: SocketAddr, bytes: Vec<u8> },
    /// From now on tell with each probe at which address of ours it came in (`Event::Probe`), or no longer. Not at the begin.
    Locate(bool),
    /// What the data plane sends to these leaves from these addresses of ours, the rest from whichever the kernel chooses;
    /// instead of what was said before. A few hundred at most.
    Sources(BTreeMap<SocketAddr, IpAddr>),
    /// Send this probe (sealed, as a whole datagram of the path) to `peer` by the VXLAN engine that is open, in an Ethernet frame
    /// as `wire::beat` has it; now or never.
    Beat { peer: PeerName, to: SocketAddr, body: Vec<u8> },
    /// Write a frame to whatever is behind `port`, now or never.
    Deliver { port: PortId, frame: Vec<u8> },
    /// Send a frame to all others on this network, now or never.
    Announce { network: NetId, frame: Vec<u8> },
    /// Change this machine, and answer with `HostDone`.
    Host { host: HostId, op: HostOp },
    /// Answer an edge.
    Reply { request: RequestId, reply: Reply },
    /// The state that must survive a restart changed: store it (the newest wins; intermediate ones may be skipped) and say
    /// so with `Persisted`. Until then some answers and messages wait.
    Persist { number: u64, state: State },
    /// One line for the log.
    Log { level: Level, line: String },
    /// The router is to end. `kept`: everything on the machine is left to the next one (after `Command::Halt`); else it has been
    /// given up (after `Command::Stop`).
    Stopped { kept: bool },
    /// Nothing more until the next input, or this instant at the latest.
    Wait(Option<Instant>),
}

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something is broken and needs somebody.
    Error,
    /// Something is not as it should be.
    Warn,
    /// Something changed.
    Info,
    /// For developers.
    Debug,
}

/// A change to this machine. `host::plan` turns it into steps, `host::apply` runs them or undoes them all. An MTU counts as
/// `Network::usable_mtu` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostOp {
    /// Make bridge and capture port of a network; frames captured there come in on `port`.
    OpenNetwork { network: Network, id: NetId, port: PortId, mtu: u16 },
    /// Remove them.
    CloseNetwork { id: NetId, port: PortId },
    /// Make the capture port of an open network anew, since its device is gone: frames come in on `port` instead of `gone`.
    Recapture { id: NetId, gone: PortId, port: PortId, mtu: u16 },
    /// Make these interfaces in the namespace of `place`, up and addressed, bridged to their networks. `key` names the
    /// attachment for `AttachmentGone`. If `guarded`, it gets no forged frame onto the bridge.
    Plug { key: String, place: Place, interfaces: Vec<Interface>, mtu: u16, guarded: bool },
    /// Give bridge and capture port this MTU.
    ResizeNetwork { network: Network, id: NetId, mtu: u16 },
    /// Give these interfaces this MTU, in their namespace and here. It is no error if they are gone.
    Resize { key: String, place: Place, interfaces: Vec<Interface>, mtu: u16 },
    /// Remove these interfaces again; it is no error if they or the namespace are gone.
    Unplug { key: String, place: Place, interfaces: Vec<Interface> },
    /// Take in and send datagrams of a VTEP; it is `port` of its network. Answered by `Input::RouteMtu` besides, then and
    /// whenever that changes.
    OpenTunnel { port: PortId, id: NetId, vtep: Vtep },
    /// No longer.
    CloseTunnel { port: PortId, vtep: Vtep },
    /// Capture this interface: it is `port` of its network. Datagrams and connections of the mesh's port are not captured. If it
    /// `must`, an interface that cannot be captured just now is an error; else it is when it can. `Input::Uplink` tells, then and
    /// whenever that changes.
    OpenUplink { port: PortId, id: NetId, uplink: Uplink, mesh: u16, must: bool },
    /// No longer.
    CloseUplink { port: PortId, uplink: Uplink },
    /// Route and translate between networks and the outside as this says, instead of whatever was said before.
    Filter(Edge),
    /// Take in and send VXLAN of peers by this UDP port: by sockets that are handed to the data path, or by the kernel. Refused
    /// if that cannot be had: one line why.
    OpenVxlan { port: u16, engine: Engine },
    /// Whether the kernel's engine could be had by this UDP port if the data path's sockets gave it up; nothing changes. Refused
    /// if not: one line why.
    TryVxlan { port: u16 },
    /// No longer, by whichever engine.
    CloseVxlan,
    /// VXLAN is taken from these peers and from nobody else, instead of whoever was named before.
    VxlanPeers(Vec<VxlanPeer>),
    /// Kernel engine: make the VXLAN device of a network on its bridge, which has to be there. Nothing goes by it yet.
    OpenOffload { network: Network, id: NetId, mtu: u16 },
    /// Remove it, with all that was installed there.
    CloseOffload { id: NetId },
    /// Kernel engine: have the kernel carry frames for `mac` to the peer at this address, or no longer; it is no error if it did
    /// not.
    Offload { id: NetId, mac: Mac, to: Option<SocketAddr> },
    /// All that is remembered of the last run is back: remove what a killed router left and nothing took over.
    SweepRest,
}

/// A neighbour that VXLAN is agreed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VxlanPeer {
    /// Who.
    pub peer: PeerName,
    /// Where its VXLAN port is.
    pub address: SocketAddr,
}

/// What a captured interface does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UplinkState {
    /// It is there and up, and has this MTU, bytes.
    Up(u16),
    /// It is not: one line why.
    Away(String),
}

/// What this host does between its networks and the outside; nothing at all by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edge {
    /// Networks that the host has an address on, by id.
    pub exposures: Vec<Exposure>,
    /// Ports of the host that lead to attachments.
    pub publications: Vec<Publication>,
}

/// A network that the host has an address on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exposure {
    /// Its id.
    pub id: NetId,
    /// It.
    pub network: Network,
    /// Rewrite the source of what leaves it, and of what comes in from outside, to this host's address.
    pub masquerade: bool,
}

/// A port of the host that leads to an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publication {
    /// TCP or UDP.
    pub transport: Transport,
    /// Only on this address of the host; on all of the same family if none.
    pub host_ip: Option<IpAddr>,
    /// The host's port.
    pub host_port: u16,
    /// The attachment's address and port.
    pub to: SocketAddr,
    /// The network that it is on.
    pub id: NetId,
}

/// What a [`HostOp`] found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostAnswer {
    /// Done.
    Done,
    /// Plugged into the namespace of this very process.
    Plugged(Place),
    /// Open; a killed router had these peers, which are let in until it is known better.
    Vxlan(Vec<VxlanPeer>),
    /// Open; a killed router had the kernel carry frames for these MACs to there, which goes on.
    Offloaded(Vec<(Mac, SocketAddr)>),
}

/// What survives a restart, as JSON: versioned by `version`, unknown versions are refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct State {
    /// Layout of this struct; 2. In 1 there were no addresses.
    pub version: u32,
    /// The targets that the user gave.
    pub targets: Vec<Target>,
    /// What was attached: plugged again at the next start if its namespace still lives.
    pub attachments: Vec<Attachment>,
    /// The VTEPs that were joined: joined again at the next start.
    #[serde(default)]
    pub vteps: Vec<Vtep>,
    /// Interfaces that were captured: captured again at the next start.
    #[serde(default)]
    pub uplinks: Vec<Uplink>,
    /// MTU of attachments, if it was measured: what begins with it loses no frame to a narrower start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u16>,
    /// What people call peers that this one knew.
    #[serde(default)]
    pub nicknames: BTreeMap<PeerName, Nickname>,
    /// The allocator's own.
    #[serde(default)]
    pub ipam: Option<Arc<IpamState>>,
}
