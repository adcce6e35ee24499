//! What paths cost, and what becomes of it: trials, what the mesh is told, and which way round.
//!
//! Joins `mesh::probe` (which measures), `mesh::loss` (which grades) and `mesh::cost` (which makes one slow number of both) with
//! the record that others compute routes from. Datagrams that got lost are a reason for a trial; where they are in clear, and where the
//! kernel or VXLAN carries them, nobody can count them, and heartbeats while data flows are the reason. Bounds: so many trials at
//! a time, and so many records a minute.

use super::Node;
use super::border::{Level, LinkId};
use super::paths::Tended;
use crate::crypto::replay::Arrivals;
use crate::mesh::cost::{Cost, News};
use crate::mesh::loss::Grade;
use crate::mesh::probe::Probe;
use crate::mesh::routes::Routes;
use crate::plane::path::Path;
use crate::types::{Instant, PeerName};
use std::time::Duration;

/// Paths that are tried at the same time: about 1,000 datagrams a second, when a line that all paths share gets lossy.
const TRIALS: usize = 8;
/// What came of datagrams is looked at no more often: so long a datagram may be overtaken before it counts as lost.
const ARRIVALS_SPACING: Duration = Duration::from_millis(250);
/// A path that is not so old is measured to its width, by datagrams that are too big for it.
const MEASURED: Duration = Duration::from_secs(5);
/// So is an idle one now and then: fewer than so many arrive meanwhile.
const FLOWING: u64 = 5;
/// Tests that count as lost, though they are known of already, are this many at most: a whole round of them.
const TESTS_MOST: i64 = 64;
/// The mesh is told of paths that cost more, and of those that cost less, not more often than this.
const WORSE_SPACING: Duration = Duration::from_secs(1);
const BETTER_SPACING: Duration = Duration::from_secs(10);
/// More neighbours than that changing their ways at once are told in one line.
const MANY_LINES: usize = 8;

/// A path's cost, and what its datagrams tell.
#[derive(Debug, Default)]
pub(super) struct Weighed {
    pub cost: Cost,
    /// Of the neighbour's datagrams while data flowed.
    pub arrivals: Arrivals,
    looked_at: Option<Instant>,
    /// Tests of the other side that need not arrive, as far as is known; and those of them that are not counted as lost yet.
    aside: i64,
    spare: i64,
}

impl Weighed {
    /// Looks at what came of the neighbour's datagrams on a path that is proven `since` then.
    pub fn look_at_arrivals(&mut self, path: &Path, probe: &mut Probe, since: Instant, now: Instant) {
        if self.looked_at.is_some_and(|at| now - at < ARRIVALS_SPACING) {
            return;
        }
        self.looked_at = Some(now);
        let aside = probe.tests_lost();
        let more = aside.saturating_sub(std::mem::replace(&mut self.aside, aside));
        self.spare = self.spare.saturating_add(more).clamp(-TESTS_MOST, TESTS_MOST);
        let Some(Arrivals { arrived, lost }) = path.arrivals() else { return };
        let tests = i64::try_from(lost).unwrap_or(i64::MAX).min(self.spare).max(0);
        self.spare = self.spare.saturating_sub(tests);
        let lost = lost.saturating_sub(u64::try_from(tests).unwrap_or(0));
        if arrived >= FLOWING && probe.proven(now) && now - since >= MEASURED {
            self.arrivals.arrived = self.arrivals.arrived.saturating_add(arrived);
            self.arrivals.lost = self.arrivals.lost.saturating_add(lost);
            probe.datagrams(arrived, lost, now);
        }
    }

    /// Begins a trial if there is reason, and takes in what was measured.
    pub fn weigh(&mut self, probe: &mut Probe, may_try: bool, now: Instant) -> Option<News> {
        if may_try && probe.wants_trial(now) {
            probe.begin_trial(now);
        }
        probe.proven(now).then(|| self.cost.weigh(&probe.quality(), probe.grade(), now)).flatten()
    }
}

/// What the mesh is to be told of costs.
#[derive(Debug, Default)]
pub(super) struct Telling {
    news: Option<News>,
    told_at: Option<Instant>,
}

impl Telling {
    pub fn hear(&mut self, news: Option<News>) {
        self.news = self.news.max(news);
    }

    /// When `take` is true.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let spacing = match self.news? {
            News::Worse => WORSE_SPACING,
            News::Better => BETTER_SPACING,
        };
        Some(self.told_at.map_or(now, |at| at + spacing))
    }

    /// Whether our record is to be written anew now.
    pub fn take(&mut self, now: Instant) -> bool {
        let due = self.deadline(now).is_some_and(|at| at <= now);
        if due {
            (self.news, self.told_at) = (None, Some(now));
        }
        due
    }
}

impl Node {
    /// Not too many paths are tried now.
    pub(super) fn may_try(&self) -> bool {
        let beside =
            self.links.all.values().filter_map(|connected| connected.tended.as_ref()).map(|tended| &tended.probe);
        let directs = self.directs.paths.values().map(|direct| &direct.probe);
        beside.chain(directs).filter(|probe| probe.is_tried()).count() < TRIALS
    }

    /// A heartbeat came, or time passed: is the path as good as it was?
    pub(super) fn weigh_path(&mut self, id: LinkId) {
        let (now, may_try) = (self.now, self.may_try());
        let Some(connected) = self.links.all.get_mut(&id) else { return };
        let (peer, nickname) = (connected.peer, connected.nickname());
        let Some(Tended { weighed, path, probe, since, .. }) = connected.tended.as_mut() else { return };
        let before = weighed.cost.grade();
        weighed.look_at_arrivals(path, probe, *since, now);
        let news = weighed.weigh(probe, may_try, now);
        let grade = weighed.cost.grade();
        self.published.telling.hear(news);
        if let Some(peer) = peer.filter(|_| grade != before) {
            let level = if grade > before { Level::Warn } else { Level::Info };
            self.log(level, format!("path to {peer}({nickname}) {}", lossy(grade)));
        }
    }

    /// Tells of neighbours that are not reached by their own path any more, or are again.
    pub(super) fn tell_detours(&mut self, before: &Routes) {
        let routes = &self.published.routes;
        let direct = |routes: &Routes, peer: PeerName| routes.next_hop(peer).map(|via| via == peer);
        let changed =
            |peer: &&PeerName| before.link_cost(**peer).is_some() && direct(before, **peer) != direct(routes, **peer);
        let mut lines: Vec<String> =
            routes.neighbours().iter().filter(changed).map(|peer| self.detour(*peer)).collect();
        if lines.len() > MANY_LINES {
            lines = vec![format!("{} neighbours are reached by another way", lines.len())];
        }
        for line in lines {
            self.log(Level::Info, line);
        }
    }

    fn detour(&self, peer: PeerName) -> String {
        let routes = &self.published.routes;
        let ms = |cost: Option<u32>| cost.unwrap_or(0) / 1000;
        let (way, own) = (ms(routes.route(peer).map(|route| route.cost)), ms(routes.link_cost(peer)));
        match routes.next_hop(peer) {
            Some(via) if via != peer => format!(
                "{} is reached by way of {} at a cost of {way} ms; its own path costs {own} ms",
                self.named(peer),
                self.named(via)
            ),
            _ => format!("{} is reached by its own path again at a cost of {own} ms", self.named(peer)),
        }
    }
}

/// As a line of the log goes on.
fn lossy(grade: Grade) -> &'static str {
    match grade {
        Grade::Clean => "is well again: hardly anything is lost",
        Grade::Lossy => "loses more than 2 % of what is sent",
        Grade::Bad => "loses more than 8 % of what is sent",
        Grade::Awful => "loses more than 30 % of what is sent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_news_are_told_within_a_second_and_good_news_within_ten() {
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let mut telling = Telling::default();
        assert!(!telling.take(at(0)));
        telling.hear(Some(News::Better));
        assert!(telling.take(at(0)) && !telling.take(at(0)), "the first at once, and once");
        telling.hear(Some(News::Better));
        telling.hear(None);
        assert_eq!((telling.take(at(900)), telling.deadline(at(900))), (false, Some(at(10_000))));
        telling.hear(Some(News::Worse));
        telling.hear(Some(News::Better));
        assert_eq!((telling.take(at(999)), telling.take(at(1000))), (false, true));
        assert_eq!(telling.deadline(at(1000)), None);
    }
}
