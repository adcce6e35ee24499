//! Flood trees for the data plane, and the change from one to the next.
//!
//! Owns which neighbours a flood is handed to and from whom it is taken; `mesh::routes` computes both. When links change their cost
//! or come up, and none goes, everybody has a parent in the old trees and in the new ones, but not everybody changes over at the same moment.
//! So that no flood is lost or doubled for that:
//!
//! ```text
//! from the change on      handed on along both trees    taken from the old parent
//! after OVERLAP / 2       handed on along both trees    taken from the new parent
//! after OVERLAP           the new tree alone
//! ```
//!
//! Whoever hears of the change within half of `OVERLAP` of its parents is served by the one that it takes floods from. If links
//! go there is no old tree to trust, and the new one holds at once. What is not settled by this is the difference of the two
//! ways' delays: at the moment that a peer changes over, floods of the last such milliseconds are lost if the new way is the faster
//! one, and doubled if it is slower.

use crate::mesh::routes::Routes;
use crate::plane::fib::{Floods, PathId};
use crate::plane::path::Path;
use crate::types::{Instant, NetId, ShortId};
use std::sync::Arc;
use std::time::Duration;

/// How long both trees are served: several times what it takes news to cross a wide mesh.
const OVERLAP: Duration = Duration::from_secs(1);

/// Routes, with a path for each neighbour, by position in `routes.neighbours()`.
pub(super) struct Tree {
    pub routes: Arc<Routes>,
    pub paths: Vec<Option<Arc<Path>>>,
}

impl Tree {
    fn hops(&self, origin: ShortId, net: NetId) -> impl Iterator<Item = &Path> {
        let hops = self.routes.flood(origin, net).iter();
        hops.filter_map(|hop| self.paths.get(usize::from(*hop))?.as_deref())
    }
}

/// What the data plane asks.
pub(super) struct Trees {
    pub now: Tree,
    pub before: Option<Tree>,
    /// Floods are still taken from the old parents.
    pub take_old: bool,
}

impl Floods for Trees {
    fn each_next_hop(&self, origin: ShortId, net: NetId, visit: &mut dyn FnMut(&Path)) {
        self.now.hops(origin, net).for_each(&mut *visit);
        let Some(before) = &self.before else { return };
        let is_new = |path: &&Path| self.now.hops(origin, net).all(|hop| hop.id() != path.id());
        before.hops(origin, net).filter(is_new).for_each(visit);
    }

    fn upstream(&self, origin: ShortId) -> Option<PathId> {
        let tree = self.before.as_ref().filter(|_| self.take_old).unwrap_or(&self.now);
        let hop = tree.routes.upstream(origin)?;
        Some(tree.paths.get(usize::from(hop))?.as_ref()?.id())
    }
}

/// The change that goes on.
#[derive(Debug, Default)]
pub(super) struct Overlap {
    old: Option<(Arc<Routes>, Instant)>,
    took_old: bool,
}

impl Overlap {
    /// `after` comes in the place of `before`.
    pub fn change(&mut self, before: Arc<Routes>, after: &Routes, now: Instant) {
        if !before.stands_in(after) {
            self.old = None;
        } else if self.old.is_none() {
            self.old = Some((before, now));
        }
    }

    /// The old routes, and whether floods are taken by them still.
    pub fn old(&mut self, now: Instant) -> (Option<Arc<Routes>>, bool) {
        self.old.take_if(|(_, since)| now - *since >= OVERLAP);
        self.took_old = self.old.as_ref().is_some_and(|(_, since)| now - *since < OVERLAP / 2);
        (self.old.as_ref().map(|(routes, _)| routes.clone()), self.took_old)
    }

    /// When the data plane is to be told of the next step.
    pub fn deadline(&self) -> Option<Instant> {
        let (_, since) = self.old.as_ref()?;
        Some(*since + if self.took_old { OVERLAP / 2 } else { OVERLAP })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_tree_is_taken_for_half_a_second_and_served_for_a_whole_one() {
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let (mut overlap, routes) = (Overlap::default(), Arc::new(Routes::default()));
        assert!(overlap.old(at(0)).0.is_none() && overlap.deadline().is_none());
        overlap.change(routes.clone(), &routes, at(0));
        assert!(overlap.old(at(0)).1);
        assert_eq!(overlap.deadline(), Some(at(500)));
        overlap.change(routes.clone(), &routes, at(300));
        let (old, take) = overlap.old(at(500));
        assert!(old.is_some() && !take, "a change meanwhile does not prolong it");
        assert_eq!(overlap.deadline(), Some(at(1000)));
        assert!(overlap.old(at(1000)).0.is_none() && overlap.deadline().is_none());
    }
}
