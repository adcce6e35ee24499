//! Waiting for conditions with a deadline, and taking turns on the machine.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Asks `probe` until it gives something; panics with `what` after `limit`.
#[track_caller]
pub fn within<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        pause();
    }
}

/// As `within`, for a condition; returns how long it took.
#[track_caller]
pub fn until(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    within(limit, what, || holds().then_some(()));
    start.elapsed()
}

/// Panics as soon as the condition does not hold during `span`: for what must NOT happen.
#[track_caller]
pub fn throughout(span: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < span {
        assert!(holds(), "{what}: stopped being so after {:?}", start.elapsed());
        pause();
    }
}

/// The one place where the lab gives up the processor: between two looks at a condition.
fn pause() {
    std::thread::sleep(LOOK_EVERY);
}

static MACHINE: RwLock<()> = RwLock::new(());

/// Held by tests that do not mind company.
pub fn machine_shared() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Held by tests that measure time or load.
pub fn machine_alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}
