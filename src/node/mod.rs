//! The router: joins the pure parts into one machine without I/O.
//!
//! `Node` owns the links, the topology, the claims and the attachments, and steers the data plane that it shares with the
//! data path threads. Its driver hands in one `Input`, polls until `Output::Wait`, and waits (see `border`). Each file is
//! one topic:
//!
//! ```text
//! links    TCP links: admission (admit), duplicates, clones, ends          requests   what edges ask
//! paths    the datagram path beside each link: keys (rekey), probes        attach     attachments: what is checked, what is planned
//! tell     gossip with neighbours                                          jobs       changes to this machine, one at a time
//! publish  our record, routes, the Fib (flood trees: trees)                view       Status
//! journal  log lines that a peer cannot flood                              addresses  addresses that rnet chooses
//! letters  messages over several links                                     storing    what must be on the disk before it is told
//! expose   the host's own addresses, ways out                              ports      ports of the host that lead in
//! vteps    tunnel ends that are not rnet, on networks here       carriers   what carries the frames of each path
//! holding  neighbours whose router is away while the kernel goes on
//! width    the MTU of attachments                             framings   VXLAN between peers: who has it, and what the kernel carries
//! uplinks  interfaces of this host that lead to networks
//! whereabouts   which addresses are told, and tried
//! direct   paths to peers without links, and their keys (knocks)   places   who gets a link where not all can
//! checks   at which addresses peers answer                      kept     paths whose links broke
//! quality  what paths cost, and which way round
//! ```
//!
//! After each input `settle` runs what fell due and publishes what changed; it is the only place that looks at timers.
//! Invariant: what the data plane sees is always a whole Fib, and no output is produced but through the queue.

mod addresses;
mod admit;
mod attach;
pub mod border;
mod carriers;
mod checks;
pub mod command;
mod direct;
mod expose;
mod framings;
mod holding;
mod jobs;
mod journal;
mod kept;
mod knocks;
mod leg;
mod letters;
mod links;
mod neighbours;
mod paths;
mod places;
mod ports;
mod publish;
mod quality;
pub mod rekey;
mod requests;
pub mod status;
mod storing;
mod tell;
#[cfg(test)]
mod tests;
mod trees;
mod uplinks;
mod view;
mod vteps;
mod whereabouts;
mod width;

use crate::crypto::keys::public_key;
use crate::ipam::IpamConfig;
use crate::mesh::claims::{ClaimSet, Claims};
use crate::mesh::dialer::Dialer;
use crate::mesh::gossip::Gossip;
use crate::mesh::loops::Loops;
use crate::mesh::peers::{Peers, Record};
use crate::mesh::short;
use crate::plane::Plane;
use crate::types::{Framing, Instant, Mtu, Nickname, PeerName, Psk, PublicKey, ShortId, StaticKey, Uid};
pub use addresses::AddressConfig;
pub use storing::STATE_VERSION;

use addresses::Addresses;
use attach::Attachments;
use border::{Edge, Input, Level, Output, State};
use command::{HOST_KEY, Uplink};
use direct::Directs;
use framings::Framings;
use holding::Holding;
use ipnet::IpNet;
use jobs::Jobs;
use journal::Journal;
use kept::KeptPaths;
use links::Links;
use neighbours::Neighbourhood;
use publish::Published;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use status::DatapathStatus;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use storing::Storing;
use tell::Tell;
pub use whereabouts::ReachConfig;
use whereabouts::Whereabouts;
use width::Width;

/// What a router is made of.
pub struct NodeConfig {
    /// Our identity.
    pub key: StaticKey,
    /// The mesh's password, derived; without one anybody may join and datagrams are not sealed.
    pub psk: Option<Psk>,
    /// The host's name.
    pub nickname: Nickname,
    /// TCP and UDP port that we listen on; also of targets without one.
    pub port: u16,
    /// This run: random.
    pub uid: Uid,
    /// Randomness of everything that follows; fresh at every start.
    pub seed: [u8; 32],
    /// This processor is fast at AES.
    pub aes: bool,
    /// Dial peers that the user did not name.
    pub discovery: bool,
    /// Who may link, ourselves not included; nothing: anybody (who has the password).
    pub allow: Option<Vec<PublicKey>>,
    /// Links at a time.
    pub connection_limit: usize,
    /// MTU of attachments' interfaces.
    pub mtu: Mtu,
    /// How others may reach us.
    pub reach: ReachConfig,
    /// What carries frames where nothing is encrypted; none: the fastest that this machine has.
    pub framing: Option<Framing>,
    /// Where peers are that need no encryption, if they say the same of us.
    pub trusted_subnets: Vec<IpNet>,
    /// What moves frames, for `Status`.
    pub datapath: DatapathStatus,
    /// How addresses are handed out.
    pub addresses: AddressConfig,
    /// Interfaces that are captured in this run, whatever the state says.
    pub uplinks: Vec<Uplink>,
    /// What survived the last run.
    pub state: State,
    /// Version of rnet, for `Status`.
    pub version: String,
}

/// How often what nobody asks for is forgotten.
const CHORES: Duration = Duration::from_secs(1);

/// The router. See the head of this file.
pub struct Node {
    config: NodeConfig,
    public: PublicKey,
    me: PeerName,
    /// The address space, as peers compare it.
    range: String,
    plane: Arc<Plane>,
    rng: StdRng,
    started: Instant,
    now: Instant,
    out: VecDeque<Output>,
    /// Something happened since `settle` last ran.
    unsettled: bool,
    links: Links,
    directs: Directs,
    kept: KeptPaths,
    whereabouts: Whereabouts,
    dialer: Dialer,
    peers: Peers,
    claims: Claims,
    tell: Tell,
    published: Published,
    neighbourhood: Neighbourhood,
    attachments: Attachments,
    loops: Loops,
    width: Width,
    framings: Framings,
    holding: Holding,
    jobs: Jobs,
    addresses: Addresses,
    storing: Storing,
    /// The packet filter that was last asked for; nothing is known of it before the first.
    filter: Option<Edge>,
    journal: Journal,
    /// The state on disk may be older than ours; and what it was.
    unsaved: bool,
    saved: State,
    stopping: bool,
    /// And leaves everything to the next router.
    halting: bool,
    /// Everything was taken off for good.
    leaving: bool,
    chores_at: Instant,
}

impl Node {
    /// A router that begins to dial its targets and to plug what was attached. `plane` is the one that the data path uses.
    pub fn new(mut config: NodeConfig, plane: Arc<Plane>, now: Instant) -> Node {
        let mut rng = StdRng::from_seed(config.seed);
        let public = public_key(&config.key);
        let me = public.name();
        let short = short::pick(&BTreeSet::new(), &mut rng).unwrap_or(ShortId(1));
        let record = Record {
            key: public,
            uid: config.uid,
            version: 1,
            nickname: config.nickname.clone(),
            short,
            networks: Vec::new(),
            links: Vec::new(),
            addresses: Vec::new(),
        };
        let mut state = std::mem::take(&mut config.state);
        let AddressConfig { ranges, default_subnet, init, reclaim } = config.addresses.clone();
        let ipam = IpamConfig { me, uid: config.uid, ranges, default_subnet, init, reclaim, seed: rng.random() };
        let addresses = Addresses::new(ipam, state.ipam.take(), now);
        let mut node = Node {
            public,
            me,
            range: config.addresses.text(),
            plane,
            started: now,
            now,
            out: VecDeque::new(),
            unsettled: true,
            links: Links::default(),
            directs: Directs::default(),
            kept: KeptPaths::default(),
            whereabouts: Whereabouts::default(),
            dialer: Dialer::new(rng.random()),
            peers: Peers::new(record),
            claims: Claims::new(ClaimSet::empty(me, config.uid)),
            tell: Tell { topology: Gossip::new(rng.random(), now), claims: Gossip::new(rng.random(), now) },
            published: Published::default(),
            neighbourhood: Neighbourhood::default(),
            attachments: Attachments::default(),
            loops: Loops::new(me, config.uid, config.psk.as_ref()),
            width: Width::new(config.mtu, state.width),
            framings: Framings::new(
                config.framing,
                config.port,
                config.psk.is_some() && config.trusted_subnets.is_empty(),
            ),
            holding: Holding::default(),
            jobs: Jobs::default(),
            addresses,
            storing: Storing::default(),
            // A router that was killed may have left another one.
            filter: state.attachments.iter().all(|a| a.key != HOST_KEY && a.published.is_empty()).then(Edge::default),
            journal: Journal::default(),
            unsaved: false,
            saved: state.clone(),
            stopping: false,
            halting: false,
            leaving: false,
            chores_at: now + CHORES,
            config,
            rng,
        };
        node.published.fib_changed = true;
        node.plane.number_floods_from(node.rng.random::<u64>() >> 1);
        for target in state.targets {
            node.dialer.give(target, now);
        }
        node.addresses.nicknames = state.nicknames;
        node.restore_addresses(&state.attachments);
        node.restore(state.attachments);
        node.restore_vteps(state.vteps);
        node.restore_uplinks(state.uplinks);
        node
    }

    /// Our name.
    pub fn name(&self) -> PeerName {
        self.me
    }

    /// Takes in what happened. To be followed by `poll` until it gives `Output::Wait`.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) {
        self.now = self.now.max(now);
        self.unsettled = true;
        match input {
            Input::LinkUp { link, dial, remote, local } => self.link_up(link, dial, remote, local.ip()),
            Input::LinkBytes { link, bytes } => self.link_bytes(link, bytes),
            Input::LinkDrained { link } => self.link_drained(link),
            Input::LinkDown { link, why } => self.link_down(link, why),
            Input::DialFailed { dial, why } => self.dial_failed(dial.0, &why),
            Input::Plane(event) => self.told_by_plane(event),
            Input::OffloadLost { id } => self.offload_lost(id),
            Input::VxlanGone => self.vxlan_gone(),
            Input::Command { request, command } => self.command(request, command),
            Input::HostDone { host, result } => self.host_done(host, result),
            Input::AttachmentGone { key } => self.attachment_gone(key),
            Input::CaptureGone { port } => self.capture_gone(port),
            Input::Withdrawn { request } => self.withdrawn(request),
            Input::Persisted { number } => self.persisted(number),
            Input::RouteMtu { port, mtu } => self.route_mtu(port, mtu),
            Input::Uplink { port, state } => self.uplink_is(port, &state),
            Input::NetworkChanged => {
                self.dialer.network_changed(self.now);
                self.routes_changed();
                self.hurry_directs();
                self.hurry_kept();
            }
            Input::Addresses(all) => self.own_addresses(&all),
            Input::Tick => {}
        }
    }

    /// What is to be done next.
    pub fn poll(&mut self, now: Instant) -> Output {
        self.now = self.now.max(now);
        loop {
            if let Some(output) = self.out.pop_front() {
                return output;
            }
            let deadline = self.deadline();
            if !self.unsettled && deadline.is_none_or(|at| at > self.now) {
                return Output::Wait(deadline);
            }
            self.unsettled = false;
            self.settle();
        }
    }

    /// Runs what fell due, then publishes and sends what changed.
    fn settle(&mut self) {
        self.tend_framings();
        self.tend_links();
        self.tend_kept();
        self.tend_directs();
        self.dial_due();
        self.tell.topology.handle(self.now);
        self.tell.claims.handle(self.now);
        if self.now >= self.chores_at {
            self.chores();
        }
        self.publish();
        self.tend_addresses();
        self.tend_width();
        self.tend_loops();
        self.next_job();
        self.publish();
        self.obey_allocator();
        self.publish_sources();
        self.gossip();
        self.flush_links();
        self.save();
    }

    /// When `settle` has something to do.
    fn deadline(&mut self) -> Option<Instant> {
        let all = [
            self.links_deadline(),
            self.directs.deadline(self.now),
            self.kept.deadline(self.now),
            if self.stopping { None } else { self.dialer.deadline() },
            self.tell.topology.deadline(),
            self.tell.claims.deadline(),
            self.publish_at(),
            self.width_deadline(),
            self.loops.deadline(self.now),
            self.framings_deadline(),
            if self.stopping { None } else { self.addresses.deadline() },
            self.neighbourhood.due(self.now),
            // Alone in the world, there is nothing to forget.
            (self.peers.count() > 1 || !self.attachments.is_empty()).then_some(self.chores_at),
        ];
        all.into_iter().flatten().min()
    }

    fn chores(&mut self) {
        // On the grid of the other timers, to share their wake-ups.
        let second = 1_000_000_000;
        self.chores_at = Instant::from_nanos((self.now + CHORES).nanos() / second * second);
        self.collect();
        self.hear_of_others();
        self.retry_vteps();
        self.retry_uplinks();
        self.tend_holding();
        self.review_offloads();
        self.plane.expire(self.now);
        self.links.forget_refused(self.now);
        self.forget_wishes();
    }

    fn log(&mut self, level: Level, line: String) {
        self.out.push_back(Output::Log { level, line });
    }
}
