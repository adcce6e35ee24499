//! How much a stranger may make us write into the log.
//!
//! Lines about a remote address count against that address (`PER_ADDRESS` in `WINDOW`) and against all strangers together
//! (`TOGETHER`); what is over is counted and told with the next line. Addresses remembered: at most `ADDRESSES`.

use crate::types::Instant;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

const WINDOW: Duration = Duration::from_secs(30);
const PER_ADDRESS: u32 = 5;
const TOGETHER: u32 = 50;
const ADDRESSES: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Window {
    since: Instant,
    lines: u32,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Journal {
    windows: BTreeMap<IpAddr, Window>,
    together: Option<Window>,
    hidden: u64,
}

impl Journal {
    /// Whether a line about `remote` may be written now; how many were not written since the last one that was.
    pub fn may_tell(&mut self, remote: IpAddr, now: Instant) -> Option<u64> {
        if !self.windows.contains_key(&remote) && self.windows.len() >= ADDRESSES {
            self.windows.retain(|_, window| now - window.since < WINDOW);
        }
        let all = take(self.together.get_or_insert(Window { since: now, lines: 0 }), TOGETHER, now);
        let known = self.windows.contains_key(&remote) || self.windows.len() < ADDRESSES;
        let one =
            known && take(self.windows.entry(remote).or_insert(Window { since: now, lines: 0 }), PER_ADDRESS, now);
        if all && one {
            return Some(std::mem::take(&mut self.hidden));
        }
        self.hidden = self.hidden.saturating_add(1);
        None
    }
}

fn take(window: &mut Window, most: u32, now: Instant) -> bool {
    if now - window.since >= WINDOW {
        *window = Window { since: now, lines: 0 };
    }
    window.lines = window.lines.saturating_add(1);
    window.lines <= most
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(n))
    }

    #[test]
    fn one_address_cannot_flood_the_log_nor_silence_others() {
        let mut journal = Journal::default();
        let told = (0..1000).filter(|_| journal.may_tell(address(1), Instant::ZERO).is_some()).count();
        assert_eq!(told, 5);
        let later = Instant::ZERO + WINDOW;
        assert_eq!(journal.may_tell(address(2), later), Some(995));
    }

    #[test]
    fn many_addresses_cannot_either() {
        let mut journal = Journal::default();
        let told = (0..100_000).filter(|n| journal.may_tell(address(*n), Instant::ZERO).is_some()).count();
        assert_eq!(told, 50);
        assert!(journal.windows.len() <= ADDRESSES);
    }
}
