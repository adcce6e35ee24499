//! What others may know of us, and what the data plane does: our record, the routes, the Fib.
//!
//! A change of the topology makes new routes: at once after a quiet time, else at most every 100 ms, and every 300 ms while changes
//! do not end. Our record is written at once too, but while our links keep coming and going at most every 200 ms. A change of paths,
//! networks or permits makes a new Fib at once, from the routes as they are. Numbers of paths and ports are never reused.
//!
//! The MACs behind a peer are forgotten when data cannot reach it any more, or when its number is another's.

use super::Node;
use super::border::Level;
use super::quality::Telling;
use super::trees::{Overlap, Tree, Trees};
use crate::mesh::claims::Claim;
use crate::mesh::pace::Pace;
use crate::mesh::peers::LinkRecord;
use crate::mesh::replica::Linked;
use crate::mesh::routes::Routes;
use crate::plane::fib::Fib;
use crate::plane::path::Path;
use crate::types::{Instant, PeerName, ShortId, Uid};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Routes are not computed more often than this.
const SPACING: Duration = Duration::from_millis(100);
/// After a few times not more often than this: every router of a mesh that comes up computes them for each change of everybody.
const ROUTES_EVERY: Duration = Duration::from_millis(300);
const ROUTES_BURST: u32 = 5;
/// Our record is not written more often than this, after a few times.
const RECORD_EVERY: Duration = Duration::from_millis(200);
const RECORD_BURST: u32 = 4;
/// More peers than that coming and going at once are told in one line.
const MANY_LINES: usize = 8;

/// What was published, and what changed since.
#[derive(Default)]
pub(super) struct Published {
    pub routes_changed: bool,
    pub fib_changed: bool,
    pub telling: Telling,
    pub routes: Arc<Routes>,
    overlap: Overlap,
    pub linked: Linked,
    /// The run that last wrote a newer record of us than we, and how often it did.
    pub contested: (Uid, u32),
    /// Warnings given once.
    pub warned: BTreeSet<String>,
    routes_at: Option<Instant>,
    routes_pace: Pace,
    record_pace: Pace,
    record_due: bool,
    epoch: u64,
    paths: u32,
    /// Numbers of the peers that data reached when routes were last computed.
    reached: BTreeMap<ShortId, PeerName>,
}

impl Published {
    /// A number for a new path.
    pub fn next_path(&mut self) -> u32 {
        self.paths = self.paths.wrapping_add(1);
        self.paths
    }
}

impl Node {
    /// Our links changed: the mesh is told, now or soon.
    pub(super) fn refresh_record(&mut self) {
        self.published.record_due = self.published.record_pace.next(RECORD_EVERY, RECORD_BURST, self.now) > self.now;
        if !self.published.record_due {
            self.write_record();
        }
    }

    fn write_record(&mut self) {
        let mut links = Vec::new();
        for connected in self.links.all.values().filter(|connected| connected.link.is_up()) {
            let (address, outbound) = (connected.dialable(), connected.dial.is_some());
            let (Some(peer), Some(tended)) = (connected.peer, connected.tended.as_ref()) else { continue };
            let (established, mtu, cost) = (tended.proven, tended.settled_mtu, &tended.weighed.cost);
            let (rtt_us, cost) = if established { (cost.delay(), cost.whole()) } else { (0, 0) };
            let seen = tended.path.endpoint().filter(|_| established);
            links.push(LinkRecord { peer, address, outbound, established, rtt_us, mtu, seen, cost });
        }
        self.kept.record(&mut links);
        let networks = self.attachments.open_networks();
        let addresses = self.whereabouts.told.clone();
        if self.peers.update_me(|me| (me.links, me.networks, me.addresses) = (links, networks, addresses)) {
            self.published.record_pace.took(RECORD_EVERY, self.now);
            // A new neighbour is to be told about everybody that it leads to, so this cannot wait for the next routes.
            self.published.linked = self.peers.linked();
            self.published.routes_changed = true;
            let me = self.me;
            self.tell.topology.spread(&[me], None, self.now);
        }
    }

    /// Our attachments changed: the mesh is told who has which address.
    pub(super) fn refresh_claims(&mut self) {
        let claims: Vec<Claim> = self.attachments.claims();
        if self.claims.update_me(|me| me.claims = claims) {
            let me = self.me;
            self.tell.claims.spread(&[me], None, self.now);
        }
        self.neighbourhood.changed = true;
        self.published.fib_changed = true;
        self.unsaved = true;
    }

    /// When `publish` has something to do.
    pub(super) fn publish_at(&self) -> Option<Instant> {
        let routes = self.published.routes_changed.then(|| self.routes_due());
        let record = &self.published.record_pace;
        let record = self.published.record_due.then(|| record.next(RECORD_EVERY, RECORD_BURST, self.now));
        let routes = routes.into_iter().chain(record);
        let others = [self.published.telling.deadline(self.now), self.published.overlap.deadline()];
        routes.chain(others.into_iter().flatten()).min()
    }

    fn routes_due(&self) -> Instant {
        let next = self.published.routes_pace.next(ROUTES_EVERY, ROUTES_BURST, self.now);
        self.published.routes_at.map_or(self.now, |at| next.max(at + SPACING))
    }

    /// Brings the routes and the data plane up to date.
    pub(super) fn publish(&mut self) {
        if self.published.telling.take(self.now) || self.published.record_due {
            self.refresh_record();
        }
        if self.published.routes_changed && self.now >= self.routes_due() {
            self.published.routes_pace.took(ROUTES_EVERY, self.now);
            (self.published.routes_changed, self.published.routes_at) = (false, Some(self.now));
            self.published.linked = self.peers.linked();
            let routes = Arc::new(Routes::compute(&self.peers));
            let before = std::mem::replace(&mut self.published.routes, routes);
            self.tell_detours(&before);
            self.published.overlap.change(before, &self.published.routes, self.now);
            self.published.fib_changed = true;
            (self.addresses.reach_changed, self.addresses.claims_changed) = (true, true);
            self.weigh_paths();
            self.forget_unreachable();
            self.review_candidates();
            self.review_directs();
            self.discover();
            self.refresh_neighbours(true);
        }
        self.refresh_neighbours(false);
        self.published.fib_changed |= self.published.overlap.deadline().is_some_and(|at| at <= self.now);
        if std::mem::take(&mut self.published.fib_changed) {
            self.publish_fib();
        }
    }

    fn publish_fib(&mut self) {
        self.published.epoch += 1;
        // Paths came or went.
        self.whereabouts.sources_changed = true;
        let routes = self.published.routes.clone();
        let old: Vec<Arc<Routes>> = self.published.overlap.old(self.now).cloned().collect();
        let path_of = |peer: &PeerName| self.path_beside(*peer);
        let paths_of = |routes: &Routes| routes.neighbours().iter().map(path_of).collect::<Vec<Option<Arc<Path>>>>();
        let paths = paths_of(&routes);
        let before = old.into_iter().map(|routes| Tree { paths: paths_of(&routes), routes }).collect();
        let mut fib = Fib { epoch: self.published.epoch, me: self.peers.me().short, ..Fib::empty() };
        for route in routes.reachable() {
            if let (Some(short), Some(Some(path))) = (route.short, paths.get(usize::from(route.hop))) {
                fib.next_hops.insert(short, path.clone());
            }
        }
        for (peer, connected) in self.links.neighbours() {
            let Some(tended) = &connected.tended else { continue };
            tended.path.set_peer(self.peers.get(peer).map_or(ShortId(0), |record| record.short));
            fib.paths.insert(tended.path.id(), tended.path.clone());
            fib.by_index.extend(tended.path.indexes().into_iter().map(|index| (index, tended.path.clone())));
        }
        self.fill_kept(&mut fib);
        self.fill_directs(&mut fib);
        self.framings.fill(&mut fib);
        self.fill_vxlan_sources(&mut fib);
        self.attachments.fill(&mut fib);
        fib.neighbours = self.neighbourhood.table.clone();
        fib.floods = Box::new(Trees { now: Tree { routes, paths }, before });
        self.plane.publish(fib);
    }

    fn forget_unreachable(&mut self) {
        let routes = &self.published.routes;
        let reached: BTreeMap<ShortId, PeerName> =
            routes.reachable().iter().filter_map(|route| Some((route.short?, route.peer))).collect();
        for (short, peer) in &self.published.reached {
            if reached.get(short) != Some(peer) {
                self.plane.forget_peer(*short);
            }
        }
        let names = |reached: &BTreeMap<ShortId, PeerName>| reached.values().copied().collect::<BTreeSet<PeerName>>();
        let (before, after) = (names(&self.published.reached), names(&reached));
        self.published.reached = reached;
        let mut lines: Vec<String> = after.difference(&before).filter_map(|peer| self.came_line(*peer)).collect();
        lines.extend(before.difference(&after).filter_map(|peer| self.went_line(*peer)));
        if lines.len() > MANY_LINES {
            lines = vec![format!("{} peers are reachable, of {} before", after.len(), before.len())];
        }
        for line in lines {
            self.log(Level::Info, line);
        }
    }

    /// Neighbours have lines of their own.
    fn came_line(&self, peer: PeerName) -> Option<String> {
        let via = self.published.routes.next_hop(peer).filter(|via| *via != peer)?;
        Some(format!("{} is reachable by way of {}", self.named(peer), self.named(via)))
    }

    fn went_line(&self, peer: PeerName) -> Option<String> {
        self.links.up(peer).is_none().then(|| format!("{} is not reachable any more", self.named(peer)))
    }
}
