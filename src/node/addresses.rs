//! Addresses that rnet chooses: joins the allocator (`ipam`) to links, attachments and edges.
//!
//! ```text
//! Attach with net: or an ip: of the space --> allocator --> granted, and on the disk --> job (`jobs`) --> attached
//!                                                |  '-- waits: why, in the status; ends with its client, or a detach
//! letters of other peers <---> allocator, fed with who is within reach and what others use
//! ```
//!
//! Owns which request waits for which address, and that an attachment holds in the allocator what it has and nothing else
//! (`reconcile`, after each job of its key). Does not own the allocation (`ipam`), the way of letters (`letters`), nor what
//! is attached (`attach`). Invariant: of what the allocator says after it changed its state nothing leaves before that state
//! is stored (`storing`).
//!
//! Peers whose ranges differ are not linked (`admit`): two allocators over one space that cannot agree would hand out the
//! same address twice. A router without a range takes part in nothing here and is linked all the same.
//!
//! Bounds: `MAX_PENDING` requests of edges wait; letters as `wire::message` and `mesh::link` say.

use super::Node;
use super::border::{Level, Output, RequestId};
use super::command::{Attach, Attachment, Reply};
use super::jobs::Job;
use crate::ipam::{Granted, Init, Ipam, IpamConfig, IpamOutput, IpamState, IpamStatus};
use crate::types::{AddressRequest, HostAddress, Instant, Network, Nickname, PeerName};
use crate::wire::message::Service;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Requests of edges that wait for the allocator.
pub const MAX_PENDING: usize = 1024;
/// Nicknames that are remembered.
const MAX_NICKNAMES: usize = 4096;
/// A disk that takes longer is told in the status.
const SLOW_DISK: Duration = Duration::from_secs(2);

/// How this router hands out addresses.
#[derive(Debug, Clone)]
pub struct AddressConfig {
    /// The space, the same on all peers; empty: none, and explicit addresses only.
    pub ranges: Vec<Network>,
    /// What `net:default` means; nothing: the first range.
    pub default_subnet: Option<Network>,
    /// How the space is founded.
    pub init: Init,
    /// After how long out of reach a peer no longer counts; nothing: never.
    pub reclaim: Option<Duration>,
}

impl AddressConfig {
    /// The space as peers compare it.
    pub fn text(&self) -> String {
        self.ranges.iter().map(Network::to_string).collect::<Vec<_>>().join(",")
    }
}

/// What an answer of the allocator is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Purpose {
    /// The address at this place of an attach request.
    Attach(RequestId, usize),
    /// An edge's own question.
    Question(RequestId),
    /// An address that an attachment had before this router started.
    Restored(String, HostAddress),
}

/// An attach request that waits for addresses.
struct Attaching {
    attach: Attach,
    /// In the order of the request; nothing: not yet.
    got: Vec<Option<HostAddress>>,
}

/// A question whose parts are answered one by one.
struct Question {
    open: usize,
    lines: Vec<String>,
    failed: bool,
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Addresses {
    ipam: Option<Ipam>,
    /// The allocator's state as it is to be stored.
    pub stored: Option<Arc<IpamState>>,
    /// Nicknames of peers, also of those that are long gone.
    pub nicknames: BTreeMap<PeerName, Nickname>,
    /// Letters that had no way, or met a link that was behind.
    pub lost: u64,
    /// Who is within reach may have changed.
    pub reach_changed: bool,
    /// What others use may have changed.
    pub claims_changed: bool,
    near: BTreeSet<PeerName>,
    used_elsewhere: BTreeSet<IpAddr>,
    asked: u64,
    purposes: BTreeMap<u64, Purpose>,
    attaching: BTreeMap<RequestId, Attaching>,
    questions: BTreeMap<RequestId, Question>,
    /// What may leave once the state of that number is stored.
    held: VecDeque<(u64, IpamOutput)>,
    needs: u64,
}

impl Addresses {
    /// The allocator goes on from what was stored.
    pub fn new(config: IpamConfig, stored: Option<Arc<IpamState>>, now: Instant) -> Addresses {
        let ipam = (!config.ranges.is_empty()).then(|| Ipam::new(config, stored.map(Arc::unwrap_or_clone), now));
        Addresses { ipam, reach_changed: true, ..Addresses::default() }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.ipam.as_ref().and_then(Ipam::deadline)
    }

    /// Whether an attach request of `key` waits.
    fn is_waited_for(&self, key: &str) -> bool {
        self.attaching.values().any(|waiting| waiting.attach.key == key)
    }

    /// Whether the allocator decides about this request.
    fn decides(&self, asked: &AddressRequest) -> bool {
        match asked {
            AddressRequest::Ip(address) => self.ipam.as_ref().is_some_and(|ipam| ipam.spans(address.ip())),
            AddressRequest::Net(_) | AddressRequest::NetDefault => true,
        }
    }

    fn number(&mut self, purpose: Purpose) -> u64 {
        self.asked += 1;
        self.purposes.insert(self.asked, purpose);
        self.asked
    }

    /// Takes back everything that was asked for an attach request or a question.
    fn forget(&mut self, request: RequestId, now: Instant) {
        let of = |purpose: &Purpose| match purpose {
            Purpose::Attach(asked, _) | Purpose::Question(asked) => *asked == request,
            Purpose::Restored(..) => false,
        };
        let numbers: Vec<u64> = self.purposes.iter().filter(|(_, p)| of(p)).map(|(number, _)| *number).collect();
        for number in numbers {
            self.purposes.remove(&number);
            if let Some(ipam) = &mut self.ipam {
                ipam.cancel(number, now);
            }
        }
    }

    /// What of `key` the allocator has, but for `kept`.
    fn superfluous(&self, key: &str, kept: &BTreeSet<HostAddress>) -> Vec<HostAddress> {
        let held = self.ipam.as_ref().map_or(&[][..], |ipam| ipam.held(key));
        held.iter().filter(|address| !kept.contains(address)).copied().collect()
    }
}

fn addresses_of(attachment: &Attachment) -> impl Iterator<Item = HostAddress> {
    attachment.interfaces.iter().flat_map(|interface| interface.addresses.iter().copied())
}

impl Node {
    /// The allocator and the attachments of the last run are brought to agree: an attachment keeps what it has.
    pub(super) fn restore_addresses(&mut self, attachments: &[Attachment]) {
        let Some(ipam) = &self.addresses.ipam else { return };
        let known: BTreeSet<&str> = attachments.iter().map(|attachment| attachment.key.as_str()).collect();
        let gone: Vec<String> =
            ipam.holdings().map(|(key, _)| key).filter(|key| !known.contains(key)).map(String::from).collect();
        let lacking = |key: &str, address: &HostAddress| ipam.spans(address.ip()) && !ipam.held(key).contains(address);
        let claims: Vec<(String, HostAddress)> = attachments
            .iter()
            .flat_map(|attachment| addresses_of(attachment).map(|address| (attachment.key.clone(), address)))
            .filter(|(key, address)| lacking(key, address))
            .collect();
        gone.iter().for_each(|key| self.release(key, None));
        for (key, address) in claims {
            let number = self.addresses.number(Purpose::Restored(key.clone(), address));
            if let Some(ipam) = &mut self.addresses.ipam {
                ipam.claim(number, &key, address, self.now);
            }
        }
    }

    fn release(&mut self, key: &str, address: Option<HostAddress>) {
        if let Some(ipam) = &mut self.addresses.ipam {
            ipam.release(key, address, self.now);
        }
    }

    /// An edge asks for an attachment. What the allocator has to choose or to agree to is asked for; the rest goes on at once.
    pub(super) fn attach(&mut self, request: RequestId, attach: Attach) {
        if let Err(why) = self.check_request(&attach) {
            return self.refuse_request(request, why);
        }
        if !attach.addresses.iter().any(|asked| self.addresses.decides(asked)) {
            return self.ask(request, Job::Attach { request, attach });
        }
        if self.addresses.ipam.is_none() {
            let why = "this router hands out no addresses (--ipalloc-range \"\"): give an address such as 10.2.1.1/24";
            return self.refuse_request(request, format!("net: {why}"));
        }
        if self.addresses.attaching.len() >= MAX_PENDING {
            return self
                .refuse_request(request, "too many requests wait for addresses: try again in a moment".to_string());
        }
        self.hear_of_others();
        let wishes: Vec<(usize, AddressRequest)> =
            attach.addresses.iter().copied().enumerate().filter(|(_, asked)| self.addresses.decides(asked)).collect();
        let key = attach.key.clone();
        let fixed = |asked: &AddressRequest| match asked {
            AddressRequest::Ip(address) if !self.addresses.decides(asked) => Some(*address),
            _ => None,
        };
        let got = attach.addresses.iter().map(fixed).collect();
        self.addresses.attaching.insert(request, Attaching { attach, got });
        for (place, asked) in wishes {
            let number = self.addresses.number(Purpose::Attach(request, place));
            let Some(ipam) = &mut self.addresses.ipam else { return };
            match asked {
                AddressRequest::Ip(address) => ipam.claim(number, &key, address, self.now),
                AddressRequest::Net(network) => ipam.allocate(number, &key, network, self.now),
                AddressRequest::NetDefault => ipam.allocate_default(number, &key, self.now),
            }
        }
    }

    /// Whoever asked is gone: what still waits for it is given up.
    pub(super) fn withdrawn(&mut self, request: RequestId) {
        self.addresses.forget(request, self.now);
        self.addresses.questions.remove(&request);
        if let Some(waiting) = self.addresses.attaching.remove(&request) {
            self.reconcile(&waiting.attach.key);
        }
    }

    /// What waits for addresses under `key` (all of them: nothing) is refused.
    pub(super) fn give_up_waiting(&mut self, key: Option<&str>, why: &str) {
        let meant = |waiting: &Attaching| key.is_none_or(|key| waiting.attach.key == key);
        let requests: Vec<RequestId> =
            self.addresses.attaching.iter().filter(|(_, w)| meant(w)).map(|(request, _)| *request).collect();
        for request in requests {
            self.withdrawn(request);
            self.refuse_request(request, why.to_string());
        }
    }

    /// The addresses that these words mean among those of an attachment.
    pub(super) fn meant_addresses(&self, held: &Attachment, requests: &[AddressRequest]) -> Vec<HostAddress> {
        let default = self.addresses.ipam.as_ref().and_then(Ipam::default_subnet);
        let meant = |address: &HostAddress| {
            requests.iter().any(|request| match request {
                AddressRequest::Ip(asked) => asked == address,
                AddressRequest::Net(network) => address.network() == *network,
                AddressRequest::NetDefault => Some(address.network()) == default,
            })
        };
        addresses_of(held).filter(meant).collect()
    }

    /// Lets go of what the allocator has for `key` beyond what is attached under it.
    pub(super) fn reconcile(&mut self, key: &str) {
        if self.stopping || self.addresses.is_waited_for(key) || self.jobs.is_attaching(key) {
            return;
        }
        let kept = self.attachments.get(key).map(|held| addresses_of(held).collect()).unwrap_or_default();
        for address in self.addresses.superfluous(key, &kept) {
            self.release(key, Some(address));
        }
    }

    /// `rnet prime`.
    pub(super) fn prime(&mut self, request: RequestId) {
        self.question(request, 1);
        let number = self.addresses.number(Purpose::Question(request));
        match &mut self.addresses.ipam {
            Some(ipam) => ipam.prime(number, self.now),
            None => self.refuse_question(request, "prime: this router hands out no addresses (--ipalloc-range \"\")"),
        }
    }

    /// `rnet rmpeer`: peers by name or nickname.
    pub(super) fn rmpeer(&mut self, request: RequestId, texts: &[String]) {
        let mut names = BTreeSet::new();
        for text in texts.iter().take(MAX_PENDING) {
            match self.named_peer(text) {
                Ok(name) => names.insert(name),
                Err(why) => return self.refuse_request(request, format!("rmpeer {text}: {why}")),
            };
        }
        self.question(request, names.len());
        for name in names {
            let number = self.addresses.number(Purpose::Question(request));
            match &mut self.addresses.ipam {
                Some(ipam) => ipam.rmpeer(number, name, self.now),
                None => return self.refuse_question(request, "rmpeer: this router hands out no addresses"),
            }
        }
    }

    /// This host's space goes back to the others (`rnet reset`), after everything was taken off the machine.
    pub(super) fn retire(&mut self, request: RequestId) {
        self.question(request, 1);
        let number = self.addresses.number(Purpose::Question(request));
        match &mut self.addresses.ipam {
            Some(ipam) => ipam.retire(number, self.now),
            None => self.answered_question(request, Ok(String::new())),
        }
    }

    fn named_peer(&self, text: &str) -> Result<PeerName, String> {
        if let Ok(name) = text.parse() {
            return Ok(name);
        }
        let known: BTreeMap<PeerName, &Nickname> = self
            .addresses
            .nicknames
            .iter()
            .map(|(name, nickname)| (*name, nickname))
            .chain(self.peers.iter().map(|(name, record)| (name, &record.nickname)))
            .collect();
        let found: Vec<PeerName> =
            known.iter().filter(|(_, nickname)| nickname.as_str() == text).map(|(name, _)| *name).collect();
        match found.as_slice() {
            [name] => Ok(*name),
            [] => Err("no peer is known by this name: `rnet status ipam` lists them".to_string()),
            several => {
                let names: Vec<String> = several.iter().map(PeerName::to_string).collect();
                Err(format!("several peers are called so: give one of {}", names.join(", ")))
            }
        }
    }

    fn question(&mut self, request: RequestId, open: usize) {
        self.addresses.questions.insert(request, Question { open, lines: Vec::new(), failed: false });
    }

    fn refuse_question(&mut self, request: RequestId, why: &str) {
        self.addresses.questions.remove(&request);
        self.addresses.forget(request, self.now);
        self.refuse_request(request, why.to_string());
    }

    fn answered_question(&mut self, request: RequestId, result: Result<String, String>) {
        let Some(question) = self.addresses.questions.get_mut(&request) else { return };
        question.open = question.open.saturating_sub(1);
        question.failed |= result.is_err();
        question.lines.push(result.unwrap_or_else(|why| why));
        if question.open > 0 {
            return;
        }
        let Some(Question { lines, failed, .. }) = self.addresses.questions.remove(&request) else { return };
        let reply =
            if failed { Reply::Refused(format!("addresses: {}", lines.join("; "))) } else { Reply::Told(lines) };
        self.out.push_back(Output::Reply { request, reply });
    }

    /// A letter of another allocator.
    pub(super) fn addresses_told(&mut self, from: PeerName, body: &[u8]) {
        if let Some(ipam) = &mut self.addresses.ipam {
            ipam.receive(from, body, self.now);
        }
    }

    /// Tells the allocator what changed around it and what time it is, and carries out what it wants.
    pub(super) fn tend_addresses(&mut self) {
        if std::mem::take(&mut self.addresses.reach_changed) {
            self.remember_nicknames();
            let routes = self.published.routes.clone();
            let far = routes.reachable().iter().map(|route| route.peer);
            let near: BTreeSet<PeerName> = far.chain(self.links.neighbours().map(|(peer, _)| peer)).collect();
            if let Some(ipam) = self.addresses.ipam.as_mut().filter(|_| near != self.addresses.near) {
                ipam.reachable(&near, self.now);
            }
            self.addresses.near = near;
        }
        if let Some(ipam) = self.addresses.ipam.as_mut().filter(|ipam| ipam.deadline().is_some_and(|at| at <= self.now))
        {
            ipam.tick(self.now);
        }
        self.obey_allocator();
    }

    fn remember_nicknames(&mut self) {
        for (name, record) in self.peers.iter() {
            let known = self.addresses.nicknames.get(&name) == Some(&record.nickname);
            if !known
                && (self.addresses.nicknames.len() < MAX_NICKNAMES || self.addresses.nicknames.contains_key(&name))
            {
                self.addresses.nicknames.insert(name, record.nickname.clone());
                self.unsaved = true;
            }
        }
    }

    /// Tells the allocator which addresses others have by their own word. Asked for before each allocation and once a second.
    pub(super) fn hear_of_others(&mut self) {
        let Some(ipam) = self.addresses.ipam.as_mut().filter(|_| self.addresses.claims_changed) else { return };
        self.addresses.claims_changed = false;
        let linked = &self.published.linked;
        let sets = self.claims.iter().filter(|(peer, _)| *peer != self.me && linked.contains(*peer));
        let all = sets.flat_map(|(_, set)| set.claims.iter().map(|claim| claim.address.ip()));
        let used: BTreeSet<IpAddr> = all.filter(|ip| ipam.spans(*ip)).collect();
        if used != self.addresses.used_elsewhere {
            ipam.claimed_elsewhere(&used, self.now);
            self.addresses.used_elsewhere = used;
        }
    }

    /// Carries out what the allocator wants; what follows a change of its state waits until that is stored.
    pub(super) fn obey_allocator(&mut self) {
        while let Some(output) = self.addresses.ipam.as_mut().and_then(Ipam::poll) {
            match output {
                IpamOutput::Persist(state) => {
                    self.addresses.stored = Some(state);
                    self.addresses.needs = self.storing.next();
                }
                IpamOutput::Waiting { .. } => {}
                IpamOutput::Log(line) => self.log(Level::Warn, line),
                output if self.storing.has(self.addresses.needs) => self.obey(output),
                output => self.addresses.held.push_back((self.addresses.needs, output)),
            }
        }
    }

    /// A state was stored: what waited for it leaves.
    pub(super) fn release_stored(&mut self) {
        while self.addresses.held.front().is_some_and(|(number, _)| self.storing.has(*number)) {
            if let Some((_, output)) = self.addresses.held.pop_front() {
                self.obey(output);
            }
        }
    }

    fn obey(&mut self, output: IpamOutput) {
        match output {
            IpamOutput::Gossip(body) => {
                let to: Vec<PeerName> = self.addresses.near.iter().filter(|peer| **peer != self.me).copied().collect();
                self.write_letter(Service::Addresses, to, body);
            }
            IpamOutput::Unicast { to, body } => self.write_letter(Service::Addresses, vec![to], body),
            IpamOutput::Answer { request, result } => self.allocated(request, result),
            IpamOutput::Persist(_) | IpamOutput::Waiting { .. } | IpamOutput::Log(_) => {}
        }
    }

    fn allocated(&mut self, number: u64, result: Result<Granted, String>) {
        // Withdrawn meanwhile: whoever withdrew it has let go of what it got.
        let Some(purpose) = self.addresses.purposes.remove(&number) else { return };
        match (purpose, result) {
            (Purpose::Attach(request, place), Ok(Granted::Address(address))) => self.granted(request, place, address),
            (Purpose::Attach(request, place), result) => {
                let why = result.err().unwrap_or_else(|| "no address was given".to_string());
                self.not_granted(request, place, &why);
            }
            (Purpose::Question(request), result) => {
                let line = result.map(|granted| match granted {
                    Granted::Done(line) => line,
                    Granted::Address(address) => address.to_string(),
                });
                self.answered_question(request, line);
            }
            (Purpose::Restored(key, address), Err(why)) => {
                let line =
                    format!("{key} keeps {address}, though it is not free for it: {why}; detach it and attach it anew");
                self.log(Level::Warn, line);
            }
            (Purpose::Restored(key, _), Ok(_)) => self.reconcile(&key),
        }
    }

    fn granted(&mut self, request: RequestId, place: usize, address: HostAddress) {
        let Some(waiting) = self.addresses.attaching.get_mut(&request) else { return };
        if let Some(got) = waiting.got.get_mut(place) {
            *got = Some(address);
        }
        if waiting.got.iter().any(Option::is_none) {
            return;
        }
        let Some(Attaching { mut attach, got }) = self.addresses.attaching.remove(&request) else { return };
        attach.addresses = got.into_iter().flatten().map(AddressRequest::Ip).collect();
        let key = attach.key.clone();
        self.ask(request, Job::Attach { request, attach });
        self.reconcile(&key);
        self.unsettled = true;
    }

    fn not_granted(&mut self, request: RequestId, place: usize, why: &str) {
        let Some(waiting) = self.addresses.attaching.get(&request) else { return };
        let asked = waiting.attach.addresses.get(place).map(AddressRequest::to_string).unwrap_or_default();
        let line = format!("{asked}: {why}");
        self.withdrawn(request);
        self.refuse_request(request, line);
    }

    /// The allocator's view, for `status`.
    pub(super) fn address_status(&self) -> Option<IpamStatus> {
        let mut status = self.addresses.ipam.as_ref()?.status(self.now);
        let slow = self.storing.waiting_since().map(|since| self.now - since).filter(|time| *time >= SLOW_DISK);
        if let Some(time) = slow {
            status.ready = false;
            status.state = format!("waiting for the disk: the state could not be stored for {} s", time.as_secs());
        }
        Some(status)
    }
}
