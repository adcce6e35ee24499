//! Who may hand out which address: a replicated allocator without a server, safe under any partition.
//!
//! The ring (`ring`) says which peer owns which addresses; what nobody owns is the common pool. A peer hands out only from
//! what the ring gives to this very start of it, so an allocation is local and immediate, also while the mesh is
//! partitioned; ahead of need it keeps spare addresses in every subnet in use (`open`, `holdings`). Everything else changes
//! the ring, and that takes a majority of its members:
//!
//! ```text
//! ring 0 --founding--> ring 1 --step--> ring 2 --step--> ...      each step decided once, by a majority of the members
//!   (`election`)         |                |                         of the ring before it (`rounds`: Paxos)
//!                     owners A B       owners A B C
//! ```
//!
//! Why no address is given twice. (1) A ring has one successor: majorities of one ring share a voter, and voters store
//! their promises before they speak. So all rings of one founding are one chain, and merging is taking the later one.
//! (2) In one ring every address has one owner. (3) From ring to ring an address leaves its owner only by the owner's own
//! request (`Shed`, `Leave`), after the owner stopped handing it out and stored that, or by an operator's word that the
//! owner is dead. A peer that a majority merely misses (`takeover`) loses its vote, never its addresses: it may live behind a
//! partition. (4) A request is applied at most once, and only for the newest start of its sender: late and doubled messages
//! are void. (5) After a start nothing is handed out before a majority counted this start in, so a peer that was removed
//! meanwhile knows first. (6) Two rings founded apart become one only if no address is in use in both (`merge`).
//!
//! What it costs: a host that restarts, or a subnet used for the first time, needs a majority within reach; while it is not,
//! requests wait and say for whom. With two members that is both: `rnet rmpeer` lets the survivor go on. If operators on
//! two sides declare each other dead, or one declares a majority dead that is not, both go on and both say so.
//!
//! Sans-IO: feed an input, `poll` until `None`, wait for `deadline`. Messages may be lost, doubled and reordered. All
//! that depends on the stored state comes out after it. Knows nothing of attachments (keys are opaque), of links, of MACs.

mod adopt;
mod border;
mod election;
mod holdings;
mod merge;
mod messages;
mod open;
mod pack;
mod pending;
mod ring;
mod rounds;
mod space;
mod state;
mod status;
mod steps;
mod takeover;

pub use border::{Granted, Init, IpamConfig, IpamOutput};
pub use messages::MESSAGE;
pub use state::IpamState;
pub use status::{IpamStatus, OwnerStatus, WaitingStatus};

use crate::types::{HostAddress, Instant, Network, PeerName};
use holdings::Holdings;
use messages::Message;
use open::Asking;
use pending::{Pending, Wish};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ring::Ring;
use rounds::Rounds;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use takeover::Takeover;

/// One peer's address management. Feed it, then `poll` until `None`, then wait for `deadline`.
pub struct Ipam {
    config: IpamConfig,
    rng: StdRng,
    state: Arc<IpamState>,
    dirty: bool,
    out: VecDeque<IpamOutput>,
    /// Other peers that can be reached, and since when members cannot.
    near: BTreeSet<PeerName>,
    takeover: Takeover,
    holdings: Holdings,
    pending: BTreeMap<u64, Pending>,
    asking: Asking,
    rounds: Rounds,
    election: election::Election,
    merge: merge::Meeting,
    adopting: adopt::Adopting,
    /// Counters of what was dropped, for `status`.
    malformed: u64,
}

impl Ipam {
    /// A machine that goes on from `state`, or starts afresh. State of other ranges or of another peer keeps its
    /// attachments' addresses and nothing else.
    pub fn new(config: IpamConfig, state: Option<IpamState>, now: Instant) -> Ipam {
        let mut rng = StdRng::from_seed(config.seed);
        let (state, line) = IpamState::start(state, &config, rng.random());
        let mut ipam = Ipam {
            takeover: Takeover::default(),
            holdings: Holdings::default(),
            pending: BTreeMap::new(),
            asking: Asking::default(),
            rounds: Rounds::default(),
            election: election::Election::default(),
            merge: merge::Meeting::default(),
            adopting: adopt::Adopting::default(),
            near: BTreeSet::new(),
            state: Arc::new(state),
            dirty: true,
            out: line.into_iter().map(IpamOutput::Log).collect(),
            malformed: 0,
            config,
            rng,
        };
        ipam.load_holdings();
        ipam.found_from_seeds();
        ipam.review(now);
        ipam.settle(now);
        ipam
    }

    /// An address of `network` for `key`: the one that it has there already, or the lowest free one.
    pub fn allocate(&mut self, request: u64, key: &str, network: Network, now: Instant) {
        self.wish(request, Wish::Net { key: key.to_owned(), network }, now);
    }

    /// An address of the default subnet for `key`.
    pub fn allocate_default(&mut self, request: u64, key: &str, now: Instant) {
        match self.default_subnet() {
            Some(network) => self.allocate(request, key, network, now),
            None => self.answer(request, Err("no address range is configured: launch with --ipalloc-range".into())),
        }
    }

    /// That very address for `key`. Outside of the space it is only noted here.
    pub fn claim(&mut self, request: u64, key: &str, address: HostAddress, now: Instant) {
        self.wish(request, Wish::Address { key: key.to_owned(), address }, now);
    }

    /// Answers once addresses can be handed out here.
    pub fn prime(&mut self, request: u64, now: Instant) {
        self.wish(request, Wish::Prime, now);
    }

    /// `key` gives up one address, or all of them.
    pub fn release(&mut self, key: &str, address: Option<HostAddress>, now: Instant) {
        self.give_up(key, address);
        self.settle(now);
    }

    /// The request is no longer wanted; it is not answered.
    pub fn cancel(&mut self, request: u64, now: Instant) {
        self.pending.remove(&request);
        self.settle(now);
    }

    /// An operator's word that `peer` is dead: all that it had is free. Safe to repeat, also on two hosts at once.
    pub fn rmpeer(&mut self, request: u64, peer: PeerName, now: Instant) {
        let boot = self.boot_of(peer);
        self.wish(request, Wish::Remove { peer, boot }, now);
    }

    /// This host gives all of its space back and leaves (`reset`). Nothing is handed out from now on.
    pub fn retire(&mut self, request: u64, now: Instant) {
        self.wish(request, Wish::Retire, now);
    }

    /// Which peers can be reached now, directly or over others; ourselves do not matter.
    pub fn reachable(&mut self, peers: &BTreeSet<PeerName>, now: Instant) {
        let me = self.config.me;
        let fresh: Vec<PeerName> = peers.iter().filter(|p| !self.near.contains(p) && **p != me).copied().collect();
        self.near = peers.iter().filter(|p| **p != me).copied().collect();
        self.watch(now);
        self.greet(&fresh);
        self.settle(now);
    }

    /// Addresses that somebody uses without asking us (explicit claims heard from the mesh, returning duplicates): never
    /// handed out by us. Replaces what was told before.
    pub fn claimed_elsewhere(&mut self, addresses: &BTreeSet<IpAddr>, now: Instant) {
        self.holdings.exclude(addresses);
        self.settle(now);
    }

    /// A message of `from`, which is the peer that made it, not the one that handed it on.
    pub fn receive(&mut self, from: PeerName, bytes: &[u8], now: Instant) {
        match Message::decode(bytes) {
            Some(message) if from != self.config.me => self.hear(from, message, now),
            Some(_) => {}
            None => self.malformed = self.malformed.saturating_add(1),
        }
        self.settle(now);
    }

    /// When `tick` is to be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let gossip = (!self.near.is_empty()).then_some(self.adopting.digest_at);
        [
            gossip,
            self.rounds.deadline(),
            self.asking.deadline(),
            self.takeover.deadline(),
            self.merge.deadline(),
            self.election.deadline(),
        ]
        .into_iter()
        .chain(self.pending.values().map(Pending::deadline))
        .flatten()
        .min()
    }

    /// The deadline has come.
    pub fn tick(&mut self, now: Instant) {
        self.gossip_now_and_then(now);
        self.watch(now);
        self.rounds_tick(now);
        self.settle(now);
    }

    /// What is to be done next; `None`: nothing before the next input or the deadline.
    pub fn poll(&mut self) -> Option<IpamOutput> {
        if self.dirty {
            self.dirty = false;
            return Some(IpamOutput::Persist(self.state.clone()));
        }
        self.out.pop_front()
    }

    /// The network that `net:default` means.
    pub fn default_subnet(&self) -> Option<Network> {
        self.config.default_subnet.or(self.config.ranges.first().copied())
    }

    /// Whether `ip` lies in the space.
    pub fn spans(&self, ip: IpAddr) -> bool {
        self.config.ranges.iter().any(|range| range.contains(ip))
    }

    /// What `key` holds here.
    pub fn held(&self, key: &str) -> &[HostAddress] {
        self.state.held.get(key).map_or(&[], Vec::as_slice)
    }

    /// Everything that is held here.
    pub fn holdings(&self) -> impl Iterator<Item = (&str, &[HostAddress])> {
        self.state.held.iter().map(|(key, addresses)| (key.as_str(), addresses.as_slice()))
    }

    /// After every input: answer what can be answered, ask for what is missing, take part in what is being decided. A
    /// step that this host decides alone changes the ring at once, hence again; bounded, since each round serves a wish.
    fn settle(&mut self, now: Instant) {
        for _ in 0..16 {
            self.answer_what_can_be(now);
            self.compose(now);
            self.meet(now);
            if !self.drive(now) {
                break;
            }
        }
    }

    fn ring(&self) -> Option<&Arc<Ring>> {
        self.state.ring.as_ref()
    }

    fn state_mut(&mut self) -> &mut IpamState {
        self.dirty = true;
        Arc::make_mut(&mut self.state)
    }

    fn answer(&mut self, request: u64, result: Result<Granted, String>) {
        self.out.push_back(IpamOutput::Answer { request, result });
    }

    fn log(&mut self, line: String) {
        self.out.push_back(IpamOutput::Log(line));
    }

    fn gossip(&mut self, message: &Message) {
        if !self.near.is_empty() {
            self.out.push_back(IpamOutput::Gossip(message.encode()));
        }
    }

    fn tell(&mut self, to: PeerName, message: &Message) {
        self.out.push_back(IpamOutput::Unicast { to, body: message.encode() });
    }

    /// A duration between half and one and a half of `around`.
    fn jitter(&mut self, around: Duration) -> Duration {
        let millis = u64::try_from(around.as_millis()).unwrap_or(u64::MAX).max(2);
        Duration::from_millis(millis / 2 + self.rng.random_range(0..millis))
    }
}
