//! Flood trees for the data plane, and the change from one to the next.
//!
//! Owns which neighbours a flood is handed to and from whom it is taken; `mesh::routes` computes both. When links come, go, or change their
//! cost, not everybody hears of it and changes over at the same moment, and the new way of a flood is faster or slower than the old
//! one. So that none is lost or doubled for that, old trees are served on for a while beside the new one:
//!
//! ```text
//! from the change on, for OVERLAP    handed on along both trees, taken from either parent, the second copy dropped (plane::once)
//! then                               the new tree alone
//! ```
//!
//! Whatever tree everybody serves while a flood is under way brings it to everybody: whoever has a copy, be it by another tree, hands it
//! on along this one too. There is such a tree as long as news and floods together take less than `OVERLAP`. A change within
//! the overlap of the one before begins an overlap of its own, so several old trees are served if changes follow each other. A tree
//! by which a number stands for another peer than it does now is not served: floods of the one are none of the other.

use crate::mesh::routes::Routes;
use crate::plane::fib::{Floods, PathId};
use crate::plane::path::Path;
use crate::types::{Instant, NetId, ShortId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How long an old tree is served: several times what it takes news to cross a wide mesh.
const OVERLAP: Duration = Duration::from_secs(1);

/// Old trees that are served at most: as many as routes are computed in that time.
const OLD_MAX: usize = 8;

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

    fn parent(&self, origin: ShortId) -> Option<PathId> {
        let hop = self.routes.upstream(origin)?;
        Some(self.paths.get(usize::from(hop))?.as_ref()?.id())
    }
}

/// What the data plane asks.
pub(super) struct Trees {
    pub now: Tree,
    /// Those that are served on, newest first.
    pub before: Vec<Tree>,
}

impl Floods for Trees {
    fn each_next_hop(&self, origin: ShortId, net: NetId, visit: &mut dyn FnMut(&Path)) {
        self.now.hops(origin, net).for_each(&mut *visit);
        for (n, tree) in self.before.iter().enumerate() {
            let mut newer = std::iter::once(&self.now).chain(self.before.iter().take(n));
            let is_new = |path: &&Path| newer.all(|tree| tree.hops(origin, net).all(|hop| hop.id() != path.id()));
            tree.hops(origin, net).filter(is_new).for_each(&mut *visit);
        }
    }

    fn takes(&self, origin: ShortId, came: PathId) -> bool {
        let mut all = std::iter::once(&self.now).chain(&self.before);
        all.any(|tree| tree.parent(origin).is_none_or(|parent| parent == came))
    }
}

/// The changes that go on.
#[derive(Debug, Default)]
pub(super) struct Overlap {
    /// Routes of before, newest first, and when others took their place.
    old: VecDeque<(Arc<Routes>, Instant)>,
}

impl Overlap {
    /// `after` comes in the place of `before`.
    pub fn change(&mut self, before: Arc<Routes>, after: &Routes, now: Instant) {
        self.old.push_front((before, now));
        self.old.retain(|(old, _)| old.numbers_agree(after));
        self.old.truncate(OLD_MAX);
    }

    /// The old routes, newest first.
    pub fn old(&mut self, now: Instant) -> impl Iterator<Item = &Arc<Routes>> {
        self.old.retain(|(_, since)| now - *since < OVERLAP);
        self.old.iter().map(|(routes, _)| routes)
    }

    /// When the data plane is to be told of the next step.
    pub fn deadline(&self) -> Option<Instant> {
        self.old.back().map(|(_, since)| *since + OVERLAP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::peers::tests::{key, link, record};
    use crate::mesh::peers::{LinkRecord, Peers};

    /// As peer 2 of a triangle sees it, where its link with peer 0 costs so much; the network is everywhere.
    fn routes(cost: u32, shorts: [u16; 3]) -> Routes {
        let net = (NetId::new(7).unwrap(), "10.2.1.0/24".parse().unwrap());
        let mut records = [0, 1, 2].map(|n| {
            let mut record = record(n, &[]);
            record.links = (0..3)
                .filter(|to| *to != n)
                .map(|to| LinkRecord { cost: if n + to == 2 && n != to { cost } else { 0 }, ..link(to, true) })
                .collect();
            record.links.sort_unstable_by_key(|link| link.peer);
            (record.networks, record.short) = (vec![net], ShortId(shorts[usize::from(n)]));
            record
        });
        let mut peers = Peers::new(records[2].clone());
        peers.merge(records[..2].iter_mut().map(|record| record.clone()).collect());
        Routes::compute(&peers)
    }

    /// The path to peer `n` has the number n + 10.
    fn tree(routes: Routes) -> Tree {
        let number = |name| (0..3).find(|n| key(*n).name() == name).unwrap();
        let path = |n: u16| Some(Arc::new(Path::new(PathId(u32::from(n) + 10), ShortId(n + 1))));
        let paths = routes.neighbours().iter().map(|name| path(number(*name))).collect();
        Tree { routes: Arc::new(routes), paths }
    }

    fn hops(trees: &Trees, origin: u16) -> Vec<u32> {
        let mut hops = Vec::new();
        trees.each_next_hop(ShortId(origin), NetId::new(7).unwrap(), &mut |path| hops.push(path.id().0));
        hops.sort_unstable();
        hops
    }

    #[test]
    fn both_trees_are_served_while_one_takes_the_place_of_the_other() {
        const SHORTS: [u16; 3] = [1, 2, 3];
        let [near, far] = [0, 90_000].map(|cost| move || tree(routes(cost, SHORTS)));
        let taken = |trees: &Trees, origin| [10, 11].map(|path| trees.takes(ShortId(origin), PathId(path)));
        let before = Trees { now: near(), before: Vec::new() };
        assert_eq!((taken(&before, 1), taken(&before, 2)), ([true, false], [false, true]));
        assert_eq!((hops(&before, 1), hops(&before, 2), hops(&before, 3)), (vec![], vec![], vec![10, 11]));
        let after = Trees { now: far(), before: Vec::new() };
        assert_eq!((taken(&after, 1), taken(&after, 2)), ([false, true], [false, true]));
        assert_eq!(hops(&after, 3), [11]);
        let during = Trees { now: far(), before: vec![near(), far(), near()] };
        assert_eq!((taken(&during, 1), taken(&during, 2)), ([true, true], [false, true]));
        assert_eq!((hops(&during, 1), hops(&during, 3)), (vec![], vec![10, 11]), "each once");
        assert!(
            [10, 11, 12].into_iter().all(|path| during.takes(ShortId(99), PathId(path))),
            "of whom nothing is known"
        );
        let come = Trees { now: near(), before: vec![tree(Routes::default())] };
        assert_eq!(taken(&come, 1), [true, true], "who has just come is taken from anybody too");
    }

    #[test]
    fn a_tree_by_which_a_number_is_another_peers_is_not_served() {
        let mut overlap = Overlap::default();
        let [one, other, third] = [[1, 2, 3], [2, 1, 3], [2, 4, 3]].map(|shorts| Arc::new(routes(0, shorts)));
        overlap.change(one.clone(), &one, Instant::ZERO);
        overlap.change(one, &other, Instant::ZERO);
        assert_eq!(overlap.old(Instant::ZERO).count(), 0);
        overlap.change(other, &third, Instant::ZERO);
        assert_eq!(overlap.old(Instant::ZERO).count(), 1, "a new number is nobody else's");
    }

    #[test]
    fn each_old_tree_is_served_for_a_second_and_not_too_many() {
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        let (mut overlap, routes) = (Overlap::default(), Arc::new(Routes::default()));
        assert_eq!((overlap.old(at(0)).count(), overlap.deadline()), (0, None));
        overlap.change(routes.clone(), &routes, at(0));
        assert_eq!((overlap.old(at(0)).count(), overlap.deadline()), (1, Some(at(1000))));
        overlap.change(routes.clone(), &routes, at(300));
        assert_eq!((overlap.old(at(999)).count(), overlap.deadline()), (2, Some(at(1000))));
        assert_eq!((overlap.old(at(1000)).count(), overlap.deadline()), (1, Some(at(1300))));
        assert_eq!((overlap.old(at(1300)).count(), overlap.deadline()), (0, None));
        (0..100).for_each(|n| overlap.change(routes.clone(), &routes, at(2000 + n)));
        assert_eq!((overlap.old(at(2100)).count(), overlap.deadline()), (OLD_MAX, Some(at(3092))));
    }
}
