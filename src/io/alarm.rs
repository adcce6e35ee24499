//! One timer that wakes its waiter once, when it is due.
//!
//! Owns timerfd_create(2). The runtime's own timers are a wheel: a deadline further off than 64 ms costs wake-ups on the way
//! to it, and for a router that is idle these were a fifth of all (measured with 10 links).

use crate::types::Instant;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// See the head of this file.
pub struct Alarm {
    timer: AsyncFd<Timer>,
    set: Option<Instant>,
}

struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl From<Timer> for OwnedFd {
    fn from(timer: Timer) -> OwnedFd {
        timer.0.into()
    }
}

impl Alarm {
    /// An alarm that is not set. Needs a runtime with I/O.
    pub fn new() -> io::Result<Alarm> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = Timer(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?);
        // SAFETY: `Timer` owns its descriptor, which stays open and the same until it is dropped after the registration.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
        Ok(Alarm { timer: timer.map_err(io::Error::from)?, set: None })
    }

    /// Ends at `deadline`, at once if it is past, or never. `now` is the time on the same clock. May be dropped and asked again.
    pub async fn due(&mut self, deadline: Option<Instant>, now: Instant) -> io::Result<()> {
        let Some(deadline) = deadline else { return std::future::pending().await };
        if self.set != Some(deadline) {
            // A time of zero would turn the timer off.
            let left = deadline.since(now).max(Duration::from_nanos(1));
            self.timer.get_ref().0.set(Expiration::OneShot(TimeSpec::from(left)), TimerSetTimeFlags::empty())?;
            self.set = Some(deadline);
        }
        loop {
            let mut ready = self.timer.readable().await?;
            // Readiness of an earlier setting is stale: the read tells.
            match ready
                .try_io(|timer| nix::unistd::read(timer.get_ref().0.as_fd(), &mut [0; 8]).map_err(io::Error::from))
            {
                Ok(read) => {
                    read?;
                    self.set = None;
                    return Ok(());
                }
                Err(_would_block) => continue,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::clock::Clock;

    #[test]
    fn is_due_once_and_not_before() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let clock = Clock::start();
            let mut alarm = Alarm::new().unwrap();
            let deadline = clock.now() + Duration::from_millis(80);
            // Dropped and asked again, with another deadline in between.
            for other in [deadline, deadline + Duration::from_secs(60), deadline] {
                let waited = tokio::time::timeout(Duration::from_millis(1), alarm.due(Some(other), clock.now())).await;
                assert!(waited.is_err());
            }
            alarm.due(Some(deadline), clock.now()).await.unwrap();
            assert!(clock.now() >= deadline);
            // A past deadline is due at once, and no deadline never.
            alarm.due(Some(deadline), clock.now()).await.unwrap();
            assert!(tokio::time::timeout(Duration::from_millis(5), alarm.due(None, clock.now())).await.is_err());
        });
    }
}
