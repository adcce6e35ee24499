//! What the data plane counts, and the reasons for which it drops.
//!
//! A batch tallies in plain numbers of its own and adds them to the shared atomics once, when it ends: no
//! atomic is touched per frame, and threads do not fight for a cache line. Readers see a batch late at worst.
//!
//! Directions are four words: from_bridge (captured), to_bridge (delivered), from_net (opened data
//! datagrams), to_net (datagrams written, one per neighbour and fragment). Bytes are bytes of frames, without our
//! headers. Every early return of `Plane` names a [`Drop`]; its label is the metric's label and never changes.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a frame or datagram went no further.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Drop { $($(#[$doc])* $name,)* }

        impl Drop {
            /// Every reason, in the order of the enum.
            pub const ALL: [Drop; [$(Drop::$name),*].len()] = [$(Drop::$name),*];

            /// The metric label: lower case, words joined by hyphens.
            pub const fn label(self) -> &'static str {
                match self { $(Drop::$name => $label,)* }
            }
        }
    };
}

reasons! {
    /// Not a whole Ethernet frame, or not a whole datagram of ours.
    Malformed = "malformed",
    /// Captured on a port that is not in the snapshot (any more).
    UnknownPort = "unknown-port",
    /// To 01:80:c2:00:00:0X, which no bridge forwards.
    LinkLocal = "link-local",
    /// A group address as the source.
    GroupSource = "group-source",
    /// Guard: this MAC was not given to an attachment on this port.
    GuardMac = "guard-mac",
    /// Guard: the source address that the frame claims was not given to its MAC.
    GuardAddress = "guard-address",
    /// Guard: tagged by 802.1Q or 802.1ad.
    GuardTagged = "guard-tagged",
    /// Guard: a router advertisement or redirect.
    GuardRouter = "guard-router",
    /// A question for the address of a known attachment elsewhere: it was answered here.
    Suppressed = "suppressed",
    /// From the bridge to a MAC on the same bridge: it has arrived already.
    Local = "local",
    /// A flood of a network that nobody else is on.
    NoPeers = "no-peers",
    /// The destination peer has no next hop from here.
    Unreachable = "unreachable",
    /// From the net for a network that has no port here.
    NotOpen = "not-open",
    /// From the net, but this peer is its origin.
    Own = "own",
    /// From the net with the MAC of a guarded attachment of this host as its source.
    Impersonated = "impersonated",
    /// Relayed too often: peers disagree about the topology.
    HopLimit = "hop-limit",
    /// The next hop is the neighbour that it came from: peers disagree about the topology.
    WayBack = "way-back",
    /// A flood from another neighbour than the one that the origin's tree names.
    WrongTree = "wrong-tree",
    /// A flood that was here before: it came by two trees while they change.
    Duplicate = "duplicate",
    /// A datagram with a receiver index that is not in use.
    UnknownIndex = "unknown-index",
    /// A datagram of a key epoch that is not installed, or not any more.
    UnknownEpoch = "unknown-epoch",
    /// A datagram that does not open: garbage, forged, or damaged on its way.
    Forged = "forged",
    /// A datagram that was here before, or is too old to tell.
    Replayed = "replayed",
    /// In clear on a path that is sealed.
    PlainOnSealed = "plain-on-sealed",
    /// In clear from another address than the path's.
    WrongAddress = "wrong-address",
    /// The path has no address or key yet, or is not proven.
    NotReady = "not-ready",
    /// The epoch's counter is used up and control has not replaced the keys.
    Exhausted = "exhausted",
    /// The caller's batch could not take more.
    SinkFull = "sink-full",
    /// Too big for the path; the sender was told by ICMP.
    TooBig = "too-big",
    /// The path's MTU has no room for even a fragment.
    NoRoom = "no-room",
    /// A fragment that contradicts what came before, or makes no sense.
    BadFragment = "bad-fragment",
    /// A partial frame was given up: too old, or no memory for more.
    FragmentLost = "fragment-lost",
    /// Datagrams that the kernel's send buffer or the device's queue had no room for.
    SendFull = "send-full",
    /// Datagrams larger than the MTU of the interface that they were to leave by.
    SendTooBig = "send-too-big",
    /// Datagrams without a route, or refused on their way.
    SendUnreachable = "send-unreachable",
    /// Datagrams that could not be sent for another reason, such as a firewall of this host.
    SendFailed = "send-failed",
    /// Frames from a bridge that came faster than they were read: the capture port's queue was full.
    BridgeQueue = "bridge-queue",
    /// Datagrams that came faster than they were read: the socket's receive buffer was full.
    NetQueue = "net-queue",
    /// Not frames but reads that failed, of a UDP socket or a capture port: a device that went, no memory, a rule of this host.
    ReceiveFailed = "receive-failed",
    /// Frames that the bridge's port did not take: its queue is full, or it is about to go.
    BridgeFull = "bridge-full",
    /// A VXLAN datagram from an address where no VTEP is joined.
    VtepUnknown = "vtep-unknown",
    /// A VXLAN datagram too short for its header and a frame's.
    VtepTruncated = "vtep-truncated",
    /// A VXLAN datagram that names no network: its I flag is clear, or its VNI is 0.
    VtepNoVni = "vtep-no-vni",
    /// A VXLAN datagram of another VNI than was agreed for its VTEP.
    VtepVni = "vtep-vni",
    /// From a VTEP with the MAC of an attachment of the mesh as its source: what was sent there came back, or it was forged.
    VtepLooped = "vtep-looped",
    /// From a VTEP for another one: these reach each other without us, or frames would go in circles.
    SplitHorizon = "split-horizon",
    /// VXLAN from an address that is no neighbour's with whom it is agreed: a stranger, or our own that came back.
    VxlanUnknown = "vxlan-unknown",
    /// From the VXLAN port of a peer: no VNI, no whole frame, or under the VNI of peers what is no probe.
    VxlanMalformed = "vxlan-malformed",
    /// A broadcast or multicast by VXLAN from a peer: peers send these by their own framing, or they would come twice.
    VxlanGroup = "vxlan-group",
    /// Too big for the way to or from a VTEP, where nothing is cut, and of a kind whose sender is not told.
    VtepTooBig = "vtep-too-big",
    /// By a VTEP that another host carries.
    VtepBlocked = "vtep-blocked",
    /// By an uplink that is cut off: its segment is reached twice, it is being looked at, or the interface is away.
    UplinkBlocked = "uplink-blocked",
    /// From an uplink with the MAC of an attachment of the mesh as its source: what was sent there came back, or it was forged.
    UplinkLooped = "uplink-looped",
    /// Floods from an uplink beyond what one may bring.
    FloodRate = "flood-rate",
    /// Beacons beyond what one segment can have.
    BeaconRate = "beacon-rate",
    /// Too big for a port of this host, where nothing is cut, and of a kind whose sender is not told.
    PortTooBig = "port-too-big",
    /// Probes that control was too busy to look at.
    EventLost = "event-lost",
}

const REASONS: usize = Drop::ALL.len();

/// A pair of counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Frames.
    pub frames: u64,
    /// Bytes of frames.
    pub bytes: u64,
}

impl Count {
    /// Counts one frame of `bytes` bytes.
    pub fn add(&mut self, bytes: usize) {
        self.add_all(1, bytes);
    }

    /// Counts frames of so many bytes together.
    pub fn add_all(&mut self, frames: usize, bytes: usize) {
        self.frames += frames as u64;
        self.bytes += bytes as u64;
    }
}

/// What happened: of one batch while it runs, or in all as [`Counters::read`] tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Captured from the bridges.
    pub from_bridge: Count,
    /// Delivered to the bridges.
    pub to_bridge: Count,
    /// Received from peers.
    pub from_net: Count,
    /// Sent to peers, relayed ones included.
    pub to_net: Count,
    /// Of those received from peers, by VXLAN that rnet read itself.
    pub from_vxlan: Count,
    /// Of those sent to peers, by VXLAN that rnet wrote itself.
    pub to_vxlan: Count,
    /// MACs that were not learned because a port, a peer or the table had its maximum.
    pub unlearned: u64,
    drops: [u64; REASONS],
}

impl Default for Tally {
    fn default() -> Tally {
        let none = Count::default();
        Tally {
            from_bridge: none,
            to_bridge: none,
            from_net: none,
            to_net: none,
            from_vxlan: none,
            to_vxlan: none,
            unlearned: 0,
            drops: [0; REASONS],
        }
    }
}

impl Tally {
    /// Counts one drop.
    pub fn drop(&mut self, reason: Drop) {
        self.drops_of(reason, 1);
    }

    /// Counts `times` drops.
    pub fn drops_of(&mut self, reason: Drop, times: u64) {
        if let Some(count) = self.drops.get_mut(reason as usize) {
            *count += times;
        }
    }

    /// How often `reason` happened.
    pub fn dropped(&self, reason: Drop) -> u64 {
        self.drops.get(reason as usize).copied().unwrap_or(0)
    }

    /// The reasons that happened, in the order of the enum.
    pub fn drops(&self) -> impl Iterator<Item = (Drop, u64)> + '_ {
        Drop::ALL.into_iter().zip(self.drops).filter(|(_, count)| *count > 0)
    }
}

#[derive(Debug, Default)]
struct Pair {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Pair {
    fn add(&self, count: Count) {
        if count.frames > 0 {
            self.frames.fetch_add(count.frames, Ordering::Relaxed);
            self.bytes.fetch_add(count.bytes, Ordering::Relaxed);
        }
    }

    fn read(&self) -> Count {
        Count { frames: self.frames.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// The sums of all batches.
#[derive(Debug)]
pub struct Counters {
    from_bridge: Pair,
    to_bridge: Pair,
    from_net: Pair,
    to_net: Pair,
    from_vxlan: Pair,
    to_vxlan: Pair,
    unlearned: AtomicU64,
    drops: [AtomicU64; REASONS],
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            from_bridge: Pair::default(),
            to_bridge: Pair::default(),
            from_net: Pair::default(),
            to_net: Pair::default(),
            from_vxlan: Pair::default(),
            to_vxlan: Pair::default(),
            unlearned: AtomicU64::new(0),
            drops: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Counters {
    /// Adds what a batch tallied.
    pub fn add(&self, tally: &Tally) {
        self.from_bridge.add(tally.from_bridge);
        self.to_bridge.add(tally.to_bridge);
        self.from_net.add(tally.from_net);
        self.to_net.add(tally.to_net);
        self.from_vxlan.add(tally.from_vxlan);
        self.to_vxlan.add(tally.to_vxlan);
        let drops = self.drops.iter().zip(tally.drops);
        for (sum, count) in drops.chain([(&self.unlearned, tally.unlearned)]).filter(|(_, count)| *count > 0) {
            sum.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The sums so far; each is exact, together they may be a batch apart.
    pub fn read(&self) -> Tally {
        let mut drops = [0; REASONS];
        for (drop, sum) in drops.iter_mut().zip(&self.drops) {
            *drop = sum.load(Ordering::Relaxed);
        }
        Tally {
            from_bridge: self.from_bridge.read(),
            to_bridge: self.to_bridge.read(),
            from_net: self.from_net.read(),
            to_net: self.to_net.read(),
            from_vxlan: self.from_vxlan.read(),
            to_vxlan: self.to_vxlan.read(),
            unlearned: self.unlearned.load(Ordering::Relaxed),
            drops,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn labels_are_unique_and_fit_for_metrics() {
        let labels: HashSet<&str> = Drop::ALL.iter().map(|drop| drop.label()).collect();
        assert_eq!(labels.len(), Drop::ALL.len());
        assert!(labels.iter().all(|l| l.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
        // The label is also the serialised form.
        for drop in Drop::ALL {
            assert_eq!(serde_json::to_string(&drop).unwrap(), format!("\"{}\"", drop.label()));
        }
    }

    #[test]
    fn batches_add_up() {
        let sums = Counters::default();
        let mut tally = Tally::default();
        tally.from_bridge.add(100);
        tally.to_net.add(7);
        tally.drop(Drop::Forged);
        tally.drop(Drop::FragmentLost);
        tally.unlearned = 3;
        sums.add(&tally);
        sums.add(&tally);
        let read = sums.read();
        assert_eq!((read.from_bridge, read.to_net), (Count { frames: 2, bytes: 200 }, Count { frames: 2, bytes: 14 }));
        assert_eq!((read.to_bridge, read.from_net, read.unlearned), (Count::default(), Count::default(), 6));
        assert_eq!(read.drops().collect::<Vec<_>>(), [(Drop::Forged, 2), (Drop::FragmentLost, 2)]);
    }
}
