//! Which interfaces of a host are meant: patterns of names.

use super::Invalid;
use std::fmt;
use std::str::FromStr;

/// Interfaces that hosts elsewhere cannot be reached by: of this host itself, or of what runs on it.
const INNER: [&str; 9] = ["lo", "rn*", "docker*", "br-*", "veth*", "virbr*", "cni*", "flannel*", "lxc*"];

/// Names of interfaces, by patterns: `eth0`, `en*`, `!docker*`. The first that matches decides. Of what none matches: taken if
/// all patterns exclude, else not. Without patterns, all but those of this host itself and of containers on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceFilter {
    patterns: Vec<(bool, String)>,
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == pattern,
    }
}

impl InterfaceFilter {
    /// Whether the interface of this name is meant.
    pub fn allows(&self, name: &str) -> bool {
        if self.patterns.is_empty() {
            return !INNER.iter().any(|pattern| matches(pattern, name));
        }
        let first = self.patterns.iter().find(|(_, pattern)| matches(pattern, name));
        first.map_or_else(|| self.patterns.iter().all(|(takes, _)| !takes), |(takes, _)| *takes)
    }
}

impl FromStr for InterfaceFilter {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<InterfaceFilter, Invalid> {
        let invalid =
            || Invalid::new(text, "a list of interface names such as eth0,en* or !docker*,!tun0 (* only at the end)");
        let pattern = |word: &str| {
            let (takes, pattern) = word.strip_prefix('!').map_or((true, word), |rest| (false, rest));
            let begin = pattern.strip_suffix('*').unwrap_or(pattern);
            let sound = begin.bytes().all(|b| b.is_ascii_graphic() && !b"*!/".contains(&b)) && pattern.len() <= 16;
            (sound && !pattern.is_empty()).then(|| (takes, pattern.to_string())).ok_or_else(invalid)
        };
        Ok(InterfaceFilter { patterns: text.split(',').map(|word| pattern(word.trim())).collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for InterfaceFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> =
            self.patterns.iter().map(|(takes, name)| format!("{}{name}", if *takes { "" } else { "!" })).collect();
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_that_matches_decides() {
        let filter = |text: &str| text.parse::<InterfaceFilter>().unwrap();
        let facts = [
            ("eth0", "eth0", true),
            ("eth0", "eth1", false),
            ("eth*", "eth1", true),
            ("!eth1,eth*", "eth1", false),
            ("!eth1,eth*", "eth2", true),
            ("!tun0", "eth0", true),
            ("!tun0", "docker0", true),
            ("!*", "eth0", false),
            ("*", "docker0", true),
        ];
        for (text, name, is_meant) in facts {
            assert_eq!(filter(text).allows(name), is_meant, "{text} {name}");
            assert_eq!(filter(text).to_string(), text);
        }
        let usual = InterfaceFilter::default();
        assert!(usual.allows("eth0") && usual.allows("wg0") && usual.allows("to-b"));
        assert!(!usual.allows("lo") && !usual.allows("docker0") && !usual.allows("rnb1234"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "eth0,", "e*h", "!", "eth 0", "*eth", "an-interface-with-a-long-name"] {
            assert!(text.parse::<InterfaceFilter>().is_err(), "{text}");
        }
    }
}
