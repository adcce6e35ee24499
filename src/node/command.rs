//! All that an edge (command line, HTTP, Docker, CNI) may ask of the router, and its answers.

use crate::types::{
    AddressRequest, HostAddress, InterfaceName, Mac, NetId, Network, PeerName, PortMap, Target, VtepAddress,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What is put on the mesh: the namespace of a process, or a named one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The network namespace of this process. The attachment ends when the process does.
    Pid(i32),
    /// A namespace file, absolute: `/run/netns/web`. The attachment ends with `detach`.
    Path(String),
    /// The process of that number that began at that time (field 22 of proc_pid_stat(5)), and no later one of that number.
    Process {
        /// Its number.
        pid: i32,
        /// When it began, clock ticks since boot.
        started: u64,
    },
    /// This host itself, on the bridges of its networks: `expose`.
    Host,
}

impl Place {
    /// Whether both may be the same namespace: a number alone may be any process that has or had it.
    pub fn matches(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Pid(one), Place::Process { pid, .. }) | (Place::Process { pid, .. }, Place::Pid(one)) => one == pid,
            (one, other) => one == other,
        }
    }
}

/// The key of the host's own attachment.
pub const HOST_KEY: &str = "host:expose";

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Command {
    /// The whole view. Never waits for anything.
    Status,
    /// Adds targets; `replace` removes all others first.
    Connect { targets: Vec<Target>, replace: bool },
    /// Removes targets as they were given. Links stay up.
    Forget { targets: Vec<Target> },
    /// Joins a VTEP to a network of the mesh. Idempotent.
    Join(Vtep),
    /// Takes a VTEP off a network, or off the only one that it is on. Idempotent.
    Part { address: VtepAddress, network: Option<Network> },
    /// Captures an interface of this host for a network of the mesh. Idempotent.
    Bridge(Uplink),
    /// No longer. Idempotent.
    Unbridge { interface: InterfaceName },
    /// Puts a namespace on the mesh. Idempotent per `key` and address; further addresses add interfaces.
    Attach(Attach),
    /// Takes addresses (all if none are given) of an attachment off the mesh. Idempotent.
    Detach { key: String, addresses: Vec<AddressRequest> },
    /// Gives this host addresses. Idempotent.
    Expose {
        /// What was asked for.
        addresses: Vec<AddressRequest>,
        /// Rewrite what leaves those networks, and what comes into them, to this host's address.
        masquerade: bool,
    },
    /// Takes addresses (all if none are given) of this host away. Idempotent.
    Hide { addresses: Vec<AddressRequest> },
    /// Leads ports of this host to ports of an attachment here. Idempotent.
    Publish { key: String, ports: Vec<PortMap> },
    /// Ends that (all of the attachment's if none are given). Idempotent.
    Unpublish { key: String, ports: Vec<PortMap> },
    /// Waits until addresses can be handed out here.
    Prime,
    /// Takes over the addresses of dead peers, by name or nickname. Safe to repeat.
    Rmpeer { peers: Vec<String> },
    /// Takes everything off the machine for good, and gives this host's addresses to the other peers.
    Leave,
    /// Gives up everything and ends the router.
    Stop,
    /// Ends the router and leaves everything as it is for the next one, as if it had been killed, but not amid a change.
    Halt,
}

/// See [`Command::Join`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Vtep {
    /// Where it listens.
    pub address: VtepAddress,
    /// The network of the mesh that it is on; opened here if it is not.
    pub network: Network,
    /// What it calls that network.
    pub vni: NetId,
    /// The UDP port of this host that it sends to.
    pub local_port: u16,
}

/// See [`Command::Bridge`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uplink {
    /// Which, in the router's network namespace.
    pub interface: InterfaceName,
    /// The network of the mesh that its segment is on; opened here if it is not.
    pub network: Network,
    /// How.
    pub capture: UplinkCapture,
}

/// How an interface is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UplinkCapture {
    /// By AF_PACKET.
    #[default]
    Packet,
    /// By libpcap.
    Pcap,
}

impl UplinkCapture {
    /// As options and status have it.
    pub fn name(self) -> &'static str {
        match self {
            UplinkCapture::Packet => "packet",
            UplinkCapture::Pcap => "pcap",
        }
    }
}

/// See [`Command::Attach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// What identifies the attachment on this host: a container id, `pid:N`, `netns:NAME`, or a run's id.
    pub key: String,
    /// What people call it, if it has a name.
    pub name: Option<String>,
    /// Where its interface goes.
    pub place: Place,
    /// What was asked for.
    pub addresses: Vec<AddressRequest>,
    /// Let it send from any MAC and address (it bridges or routes for others).
    #[serde(default)]
    pub unguarded: bool,
    /// Network id instead of the hash of the CIDR.
    #[serde(default)]
    pub vni: Option<NetId>,
    /// Its way out leads through this host, which must be exposed on one of its networks.
    #[serde(default)]
    pub gateway: bool,
    /// Only for the host itself: see [`Command::Expose`].
    #[serde(default)]
    pub masquerade: bool,
    /// Ports of this host that lead to it; only with a new attachment.
    #[serde(default)]
    pub publish: Vec<PortMap>,
}

/// One interface of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name inside: `rnet0`, `rnet1`, ...
    pub name: String,
    /// The network it is on.
    pub network: Network,
    /// That network's id.
    pub id: NetId,
    /// Its address there.
    pub mac: Mac,
    /// Its addresses there.
    pub addresses: Vec<HostAddress>,
    /// Its default route leads to this address of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// On the host itself: see [`Command::Expose`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub masquerade: bool,
}

/// One line of `rnet ps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// See [`Attach::key`].
    pub key: String,
    /// See [`Attach::name`].
    pub name: Option<String>,
    /// Where it is.
    pub place: Place,
    /// Its interfaces, in the order of their names.
    pub interfaces: Vec<Interface>,
    /// See [`Attach::unguarded`].
    #[serde(default)]
    pub unguarded: bool,
    /// Ports of this host that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<PortMap>,
}

/// The answer to a [`Command`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "with")]
pub enum Reply {
    /// Done, nothing to tell.
    Done,
    /// The view that every output renders.
    Status(Box<super::status::Status>),
    /// The attachment as it now is (after `Detach` and `Hide`, what was taken off).
    Attached(Attachment),
    /// Done, and this is to be told, a line each.
    Told(Vec<String>),
    /// Refused, or failed and undone: one line, `<what>: <why>` with what to do next.
    Refused(String),
}

/// Who holds an address that somebody else asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The peer it is at.
    pub peer: PeerName,
    /// Its attachment there, for people.
    pub label: String,
}
