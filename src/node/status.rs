//! The one view of the router: text, JSON and metrics all render this.

use super::command::Attachment;
use crate::crypto::seal::Cipher;
use crate::ipam::IpamStatus;
use crate::types::{Framing, InterfaceName, Mac, NetId, Network, Nickname, PeerName, PublicKey, Target, VtepAddress};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Everything that can be told about this router.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of rnet.
    pub version: String,
    /// This peer's name.
    pub name: PeerName,
    /// The host's name.
    pub nickname: Nickname,
    /// Ours, for `--allow` on other hosts.
    pub public_key: PublicKey,
    /// TCP and UDP.
    pub port: u16,
    /// Whether a password protects the mesh.
    pub encrypted: bool,
    /// Whether peers are dialled that the user did not name.
    pub discovery: bool,
    /// Peers that may join, if an allow list is in use.
    pub allowed: Option<usize>,
    /// Attachments' interface MTU, bytes; at least 1280 on IPv6 networks.
    pub mtu: u16,
    /// Whether it follows the narrowest path of the mesh.
    #[serde(default)]
    pub mtu_auto: bool,
    /// That path, once one is measured.
    #[serde(default)]
    pub mtu_limit: Option<PathLimit>,
    /// VXLAN between peers, where nothing is encrypted.
    #[serde(default)]
    pub framing: FramingStatus,
    /// What moves frames.
    #[serde(default)]
    pub datapath: DatapathStatus,
    /// Seconds since start.
    pub uptime: u64,
    /// As the user gave them.
    pub targets: Vec<Target>,
    /// Links and attempts.
    pub connections: Vec<Connection>,
    /// Everybody known, ourselves first.
    pub peers: Vec<Peer>,
    /// Networks that are open here or known elsewhere.
    pub networks: Vec<NetworkStatus>,
    /// Who hands out which addresses; nothing: this router takes no part in it.
    #[serde(default)]
    pub ipam: Option<IpamStatus>,
    /// Letters about addresses that had no way, or met a link that was behind.
    #[serde(default)]
    pub letters_lost: u64,
    /// What people call peers, those included that are long gone.
    #[serde(default)]
    pub nicknames: BTreeMap<PeerName, Nickname>,
    /// What is attached here.
    pub attachments: Vec<Attachment>,
    /// Tunnel ends that are not rnet.
    #[serde(default)]
    pub vteps: Vec<VtepStatus>,
    /// Interfaces of this host that lead to networks.
    #[serde(default)]
    pub uplinks: Vec<UplinkStatus>,
    /// Learned MACs.
    pub macs: Vec<LearnedMac>,
    /// Frames dropped, by reason (metric label), only reasons that happened.
    pub drops: Vec<(String, u64)>,
    /// Frames and bytes in the four directions.
    pub traffic: Traffic,
}

/// A path that is as narrow as any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathLimit {
    /// Who measured it, and to whom it leads.
    pub ends: [(PeerName, Nickname); 2],
    /// Largest datagram that gets through, bytes of UDP payload.
    pub mtu: u16,
}

/// VXLAN between peers as this router has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FramingStatus {
    /// As given: `auto`, `kernel`, `vxlan`, `udp`.
    pub wanted: String,
    /// What works here, besides `udp`, which always does.
    pub engine: Option<Framing>,
    /// Its UDP port, if it is ever used.
    pub port: Option<u16>,
    /// MACs that the kernel carries frames to by itself.
    pub offloaded: usize,
    /// Why it is not used, or not the kernel's; empty if all is well.
    pub info: String,
}

/// What the data path has to work with on this machine; what is false is done without, at a price.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DatapathStatus {
    /// `tap`, `packet` or `pcap`.
    pub capture: String,
    /// By what frames go to capture ports: the same, or `packet` for `pcap` with offloads.
    pub injection: String,
    /// With `pcap`: super-frames of TCP come whole (Linux 6.6); else the kernel cuts them before.
    pub uncut: bool,
    /// Threads that move frames, each with a queue of every capture port and a socket of its own.
    pub threads: usize,
    /// Each of them stays on one core.
    pub pinned: bool,
    /// Capture ports leave checksums to whoever needs them. With `pcap` they take them so, but leave none to us; and so on.
    pub checksum: bool,
    /// Capture ports give and take super-frames of TCP (TSO).
    pub tcp_super_frames: bool,
    /// The same for datagrams of UDP (USO, Linux 6.2).
    pub udp_super_frames: bool,
    /// In capture ports flows wait in queues of their own, served in turns (Linux 4.16).
    pub fair_queues: bool,
    /// Datagrams of flows that send little have a lane of their own: sockets of their own on both ends.
    pub sparse_lane: bool,
    /// Many datagrams leave by one system call (UDP_SEGMENT, Linux 4.18).
    pub udp_gso: bool,
    /// Many datagrams arrive by one (UDP_GRO, Linux 5.0).
    pub udp_gro: bool,
    /// Probes have a socket of their own, so that data cannot hold them up.
    pub separate_probes: bool,
}

impl DatapathStatus {
    /// The offloads by their names, and whether each is on.
    pub fn offloads(&self) -> [(&'static str, bool); 7] {
        [
            ("checksum", self.checksum),
            ("tso", self.tcp_super_frames),
            ("uso", self.udp_super_frames),
            ("fair-queues", self.fair_queues),
            ("sparse-lane", self.sparse_lane),
            ("gso", self.udp_gso),
            ("gro", self.udp_gro),
        ]
    }
}

/// State of a connection, in the order of a connection's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionState {
    /// Link and path stand: traffic flows.
    Established,
    /// The link stands, the path is not proven yet.
    Pending,
    /// There is no link; traffic flows on a path without one.
    Direct,
    /// There is no path; traffic is handed on by the peer `via`.
    Relayed,
    /// It was up and will be tried again.
    Retrying,
    /// It never came up, or was refused; `info` says why.
    Failed,
    /// A dial is under way.
    Connecting,
}

/// One link, or one attempt at one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Remote address, or the target as given while there is none.
    pub address: String,
    /// Whether we dialled.
    pub outbound: bool,
    /// See [`ConnectionState`].
    pub state: ConnectionState,
    /// Whom it leads to, once known.
    pub peer: Option<(PeerName, Nickname)>,
    /// Why it is not established, or why it is degraded; empty if all is well.
    pub info: String,
    /// Seconds until the next try, while there is none.
    pub retry_in: Option<u64>,
    /// Whether its datagrams are sealed.
    pub encrypted: bool,
    /// The datagram path, once it is proven.
    pub path: Option<PathStatus>,
    /// Who hands on what is relayed.
    #[serde(default)]
    pub via: Option<(PeerName, Nickname)>,
}

/// The quality of a path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
    /// What carries frames to the peer itself.
    pub framing: Framing,
    /// Seconds since that one does.
    #[serde(default)]
    pub framing_for: u64,
    /// Why not a better one; empty if there is none to be had.
    #[serde(default)]
    pub why_not_better: String,
    /// Where datagrams go now.
    pub endpoint: SocketAddr,
    /// Round-trip time, smoothed, microseconds.
    pub rtt_us: u64,
    /// Smoothed difference of successive round trips, microseconds.
    #[serde(default)]
    pub jitter_us: u64,
    /// Heartbeats of ours lost of the last 64, per cent.
    #[serde(default)]
    pub loss_out_percent: f32,
    /// The same of the other side's.
    #[serde(default)]
    pub loss_in_percent: f32,
    /// Datagrams of the other side that arrived while data flowed, and those that did not: counted where the path is encrypted.
    #[serde(default)]
    pub arrived: u64,
    /// See `arrived`.
    #[serde(default)]
    pub lost: u64,
    /// What it costs as seen from this end, microseconds, as others are told; 0 while unknown, and where it is near.
    #[serde(default)]
    pub cost_us: u32,
    /// Largest datagram that came through whole, bytes of IP payload without the UDP header; 0 while unknown.
    pub mtu: u16,
    /// What frames to the peer are sealed with; none: they go in clear.
    #[serde(default)]
    pub cipher: Option<Cipher>,
    /// Key epoch in use.
    pub epoch: u16,
    /// Seconds since it was last proven.
    pub up_for: u64,
}

/// A peer as the topology tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: PeerName,
    /// Its host's name.
    pub nickname: Nickname,
    /// Its number in datagrams.
    pub short: u16,
    /// Version of what it published.
    pub version: u64,
    /// Next hop to it; ourselves: none; unreachable: none.
    pub via: Option<PeerName>,
    /// Whether data can reach it.
    pub reachable: bool,
    /// What the way to it costs, microseconds: of each link the cost that the worse of its ends publishes, and 10 ms more.
    #[serde(default)]
    pub cost_us: Option<u32>,
    /// The same of the link to it, if there is one; dearer than `cost_us` where a detour is taken.
    #[serde(default)]
    pub link_cost_us: Option<u32>,
    /// Networks that it has ports on.
    pub networks: Vec<NetId>,
    /// Its links.
    pub links: Vec<PeerLink>,
}

/// A link of a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerLink {
    /// To whom.
    pub name: PeerName,
    /// To whom, for people.
    pub nickname: Nickname,
    /// Whether it dialled.
    pub outbound: bool,
    /// The other end's address.
    pub address: SocketAddr,
    /// Whether its path is proven.
    pub established: bool,
    /// Round-trip time, microseconds; 0 while unknown.
    pub rtt_us: u32,
    /// What the way by it costs, microseconds; see `mesh::cost`.
    #[serde(default)]
    pub cost: u32,
    /// Largest datagram that gets through, bytes of UDP payload; 0 while unknown.
    #[serde(default)]
    pub mtu: u16,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Its CIDR.
    pub network: Network,
    /// Its id.
    pub id: NetId,
    /// Whether it has a port here.
    pub open: bool,
    /// Attachments here.
    pub attachments: usize,
    /// Addresses in use on it, in the whole mesh as far as it is known here.
    #[serde(default)]
    pub addresses: usize,
    /// VTEPs that are joined to it here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vteps: Vec<VtepAddress>,
    /// Interfaces of this host that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uplinks: Vec<InterfaceName>,
    /// Peers with a port on it, ourselves included.
    pub peers: Vec<PeerName>,
}

/// What a captured interface does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UplinkCondition {
    /// It carries frames.
    Carrying,
    /// It listens whether its segment is reached by others, and will carry in a moment.
    Listening,
    /// Its segment is reached by others, who keep it: it carries nothing, or there would be a loop.
    Blocked,
    /// It is not there, or down, or cannot be captured.
    Away,
}

/// An interface of this host that leads to a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// Which.
    pub interface: InterfaceName,
    /// The network.
    pub network: Network,
    /// `packet` or `pcap`.
    pub capture: String,
    /// The number by which others name it where a segment is reached twice.
    pub port: u32,
    /// What it does.
    pub condition: UplinkCondition,
    /// The interface's MTU, bytes; 0: not known.
    pub mtu: u16,
    /// Frames that came in by it.
    pub from_uplink: Count,
    /// Frames that went out by it.
    pub to_uplink: Count,
    /// A loop, and who keeps it or keeps off; or why it is away. Empty if all is well.
    pub info: String,
}

/// A tunnel end that is not rnet, on a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VtepStatus {
    /// Where it listens.
    pub address: VtepAddress,
    /// The network.
    pub network: Network,
    /// What it calls that.
    pub vni: NetId,
    /// The UDP port of this host that it sends to.
    pub local_port: u16,
    /// The largest packet that it can be sent, bytes; 0: it is not joined.
    pub mtu: u16,
    /// Frames that came from it.
    pub from_vtep: Count,
    /// Frames that were sent to it.
    pub to_vtep: Count,
    /// Seconds since its last frame; none: there was none.
    pub last_heard: Option<u64>,
    /// It carries no frames, since another host of the mesh does that.
    #[serde(default)]
    pub blocked: bool,
    /// Which other host has joined it for the same network; empty: none.
    #[serde(default)]
    pub shared: String,
    /// Why it is not joined; empty if it is.
    pub info: String,
}

/// Where a MAC was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LearnedMac {
    /// On which network.
    pub network: NetId,
    /// Which.
    pub mac: Mac,
    /// Behind which peer; none: on our own bridge, or behind a VTEP or a captured interface.
    pub peer: Option<PeerName>,
    /// Behind which VTEP of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtep: Option<VtepAddress>,
    /// Behind which captured interface of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<InterfaceName>,
    /// Seconds since it was last seen.
    pub age: u64,
}

/// Frames and bytes in the four directions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Captured from the bridges.
    pub from_bridge: Count,
    /// Written to the bridges.
    pub to_bridge: Count,
    /// Received from peers.
    pub from_net: Count,
    /// Sent to peers, relayed ones included.
    pub to_net: Count,
    /// Of those from peers, by VXLAN that rnet read itself.
    #[serde(default)]
    pub from_vxlan: Count,
    /// Of those to peers, by VXLAN that rnet wrote itself. What the kernel carries, nobody counts here.
    #[serde(default)]
    pub to_vxlan: Count,
}

/// A pair of counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Frames.
    pub frames: u64,
    /// Bytes of frames.
    pub bytes: u64,
}
