//! The name of a network interface.

use super::Invalid;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A name that the kernel can give: 1 to 15 bytes without slash, colon and white space (dev_valid_name in the kernel).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<InterfaceName, Invalid> {
        let fits = (1..=15).contains(&text.len()) && text != "." && text != "..";
        let clean = text.chars().all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | ':'));
        if fits && clean {
            Ok(InterfaceName(text.to_string()))
        } else {
            Err(Invalid::new(text, "the name of a network interface such as eth1 (`ip link` lists them)"))
        }
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = Invalid;
    fn try_from(text: String) -> Result<InterfaceName, Invalid> {
        text.parse()
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_what_the_kernel_takes() {
        for name in ["eth1", "br-lan", "enp0s31f6", "wlan0.100", "a", "x23456789012345"] {
            assert_eq!(name.parse::<InterfaceName>().unwrap().as_str(), name);
        }
        for name in ["", ".", "..", "x234567890123456", "eth 1", "a/b", "eth0:1", "a\u{1b}b"] {
            assert!(name.parse::<InterfaceName>().is_err(), "{name:?}");
        }
        assert!(serde_json::from_str::<InterfaceName>("\"a/b\"").is_err());
    }
}
