//! Where addresses are chosen from: ranges, the default subnet, how the space is founded, who no longer counts.

use super::DEFAULT_RANGE;
use super::reader::{Reader, expected};
use crate::ipam::Init;
use crate::types::{Network, PeerName};
use std::time::Duration;

/// Ranges at most.
const MAX_RANGES: usize = 16;

/// A network of at least 4 addresses.
pub(super) fn subnet(text: &str) -> Result<Network, String> {
    let network: Network = text.parse().map_err(|why: crate::types::Invalid| why.to_string())?;
    let hosts = network.cidr().max_prefix_len() - network.cidr().prefix_len();
    if hosts < 2 { Err(expected(text, "a network of at least 4 addresses (/30, /126 or larger)")) } else { Ok(network) }
}

/// Whether two networks have an address in common.
pub fn overlap(one: Network, other: Network) -> bool {
    one.contains(other.cidr().network()) || other.contains(one.cidr().network())
}

pub(super) fn init(text: &str) -> Result<Init, String> {
    const FORMS: &str = "consensus=N (1 to 1000 hosts), seed=NAME,... (peer names), or observer";
    let wrong = || expected(text, FORMS);
    match text.split_once('=') {
        None if text == "observer" => Ok(Init::Observer),
        Some(("consensus", digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let hosts = digits.parse().ok().filter(|hosts| (1..=1000).contains(hosts));
            hosts.map(Init::Consensus).ok_or_else(wrong)
        }
        Some(("seed", names)) => {
            let names: Result<Vec<PeerName>, _> = names.split(',').map(str::parse).collect();
            names.map(Init::Seed).map_err(|_| wrong())
        }
        _ => Err(wrong()),
    }
}

/// `90s`, `30m`, `1h`, `2d`, `never`.
pub(super) fn reclaim(text: &str) -> Result<Option<Duration>, String> {
    if text == "never" {
        return Ok(None);
    }
    let wrong = || expected(text, "a time such as 90s, 30m, 1h or 2d (at most 10 years), or never");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let digits = text.strip_suffix(unit).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number: u64 = digits.and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
    let seconds = number.checked_mul(factor).filter(|seconds| (1..=315_360_000).contains(seconds));
    seconds.map(|seconds| Some(Duration::from_secs(seconds))).ok_or_else(wrong)
}

impl Reader<'_> {
    /// Ranges, separated by spaces or commas. An empty text means none.
    pub(super) fn ranges(&mut self) -> Vec<Network> {
        let Some((label, texts)) = self.texts("ipalloc-range") else {
            return DEFAULT_RANGE.parse().into_iter().collect();
        };
        let mut ranges: Vec<Network> = Vec::new();
        for word in texts.iter().flat_map(|text| text.split([' ', ','])).filter(|word| !word.is_empty()) {
            match subnet(word) {
                Ok(range) => match ranges.iter().find(|other| overlap(**other, range)) {
                    Some(other) => self.fault(label.clone(), format!("{range} overlaps {other}: give disjoint ranges")),
                    None => ranges.push(range),
                },
                Err(why) => self.fault(label.clone(), why),
            }
        }
        if ranges.len() > MAX_RANGES {
            self.fault(label, format!("at most {MAX_RANGES} ranges can be given"));
        }
        ranges
    }
}
