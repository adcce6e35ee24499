//! Who may join, and where others find us: password, keys that are allowed, advertised addresses.

use super::Ambient;
use super::layers::Origin;
use super::reader::Reader;
use crate::types::{Password, PublicKey, Target, objection};
use std::net::SocketAddr;
use zeroize::Zeroize;

/// Addresses that `--advertise` may give.
pub(super) const ADVERTISED_MAX: usize = 8;

impl Reader<'_> {
    /// The password of the highest layer that names one, by value or by file. The value `-` means standard input.
    pub(super) fn password(&mut self, ambient: &Ambient<'_>) -> Option<Password> {
        for layer in self.layers {
            let (value, file) = (layer.values.get("password"), layer.values.get("password-file"));
            let label = |name| layer.label(name);
            let (option, text) = match (value.map(Vec::as_slice), file.map(Vec::as_slice)) {
                (None, None) => continue,
                (Some(_), Some(_)) => {
                    let why = format!("cannot stand beside {}: give one of them", label("password-file"));
                    self.fault(label("password"), why);
                    return None;
                }
                (Some(_), None) if matches!(layer.origin, Origin::File(_)) => {
                    let why = "a password does not belong into this file: give `password-file`".to_string();
                    self.fault(label("password"), why);
                    return None;
                }
                (Some([text]), None) if text == "-" => (label("password"), (ambient.read)("-")),
                (Some([text]), None) => (label("password"), Ok(text.clone())),
                (None, Some([path])) => (label("password-file"), (ambient.read)(path)),
                _ => (label("password"), Err("takes one value".to_string())),
            };
            let password = text.and_then(|mut text| {
                // Only the first line of a file counts, as for most tools; a password with a line end could not be typed.
                let first = text.lines().next().unwrap_or_default().to_string();
                text.zeroize();
                Password::new(first).ok_or_else(|| "the password is empty".to_string())
            });
            return password.map_err(|why| self.fault(option, why)).ok();
        }
        None
    }

    /// Addresses that others are told before any other; port 0 stands for ours.
    pub(super) fn advertise(&mut self) -> Vec<SocketAddr> {
        let label = self.texts("advertise").map(|(label, _)| label).unwrap_or_default();
        let mut addresses = Vec::new();
        for target in self.list::<Target>("advertise") {
            let why = match target.ip() {
                None => Some("is a name, and an IP address is needed"),
                // Port 0 stands for ours, whatever that will be.
                Some(ip) => objection(SocketAddr::new(ip, 1)),
            };
            match (why, target.ip()) {
                (None, Some(ip)) => addresses.push(SocketAddr::new(ip, target.port.unwrap_or(0))),
                (why, _) => {
                    let why = why.unwrap_or_default();
                    self.fault(label.clone(), format!("{target} {why}: others cannot reach this host there"));
                }
            }
        }
        if addresses.len() > ADVERTISED_MAX {
            self.fault(label, format!("{} addresses, and at most {ADVERTISED_MAX} are told", addresses.len()));
        }
        addresses
    }

    /// Keys of `--allow` and of the lines of `--allow-file` (`#` begins a comment).
    pub(super) fn allow(&mut self, ambient: &Ambient<'_>) -> Option<Vec<PublicKey>> {
        let mut keys: Vec<PublicKey> = self.list("allow");
        let mut given = self.texts("allow").is_some();
        if let Some(path) = self.text("allow-file") {
            given = true;
            match (ambient.read)(&path) {
                Err(why) => self.fault(self.texts("allow-file").map(|(label, _)| label).unwrap_or_default(), why),
                Ok(text) => self.allow_lines(&path, &text, &mut keys),
            }
        }
        keys.sort_unstable();
        keys.dedup();
        given.then_some(keys)
    }

    pub(super) fn allow_lines(&mut self, path: &str, text: &str, keys: &mut Vec<PublicKey>) {
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            // What follows the key is a comment too, as in authorized_keys(5).
            let Some(word) = line.split_whitespace().next() else { continue };
            match word.parse() {
                Ok(key) => keys.push(key),
                Err(why) => self.fault(format!("{path} line {}", number.saturating_add(1)), why.to_string()),
            }
        }
    }
}
