//! Values out of layers: which layer counts, what kinds of values there are, and the faults that are met.
//!
//! The highest layer that has an option wins it whole. A bad value becomes a fault, and nothing or a default takes its place, so
//! that all faults are found in one go. What is particular to a subject is in `access`, `addresses` and `datapath`.

use super::Fault;
use super::layers::{Layer, OPTIONS};
use std::path::PathBuf;
use std::str::FromStr;

pub(super) fn expected(given: &str, what: &str) -> String {
    let given: String = given.chars().take(64).collect();
    format!("{given:?} is not {what}")
}

/// Takes values out of the layers and keeps the faults it meets.
pub(super) struct Reader<'a> {
    pub layers: &'a [Layer],
    pub faults: Vec<Fault>,
}

impl Reader<'_> {
    pub fn fault(&mut self, option: String, why: String) {
        self.faults.push(Fault { option, why });
    }

    pub fn refuse_unknown(&mut self) {
        for layer in self.layers {
            for name in layer.values.keys() {
                if !OPTIONS.iter().any(|spec| spec.name == name) {
                    self.fault(layer.label(name), "is not an option; `rnet launch --help` lists them".to_string());
                }
            }
        }
    }

    /// The texts of the highest layer that has `name`, and how that layer calls it.
    pub fn texts(&self, name: &str) -> Option<(String, Vec<String>)> {
        self.layers.iter().find_map(|layer| layer.values.get(name).map(|texts| (layer.label(name), texts.clone())))
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        self.value(name, |text| Ok(text.to_string()))
    }

    pub fn value<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let (label, texts) = self.texts(name)?;
        let result = match texts.as_slice() {
            [text] if !text.is_empty() => parse(text),
            [] | [_] => Err("has no value".to_string()),
            _ => Err("takes one value".to_string()),
        };
        result.map_err(|why| self.fault(label, why)).ok()
    }

    pub fn list<T: FromStr<Err = crate::types::Invalid>>(&mut self, name: &str) -> Vec<T> {
        let Some((label, texts)) = self.texts(name) else { return Vec::new() };
        let mut values = Vec::new();
        for word in texts.iter().flat_map(|text| text.split_whitespace()) {
            match word.parse::<T>() {
                Ok(value) => values.push(value),
                Err(why) => self.fault(label.clone(), why.to_string()),
            }
        }
        values
    }

    pub fn number(&mut self, name: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let what = format!("a number from {} to {}", range.start(), range.end());
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        self.value(name, |text| {
            text.parse().ok().filter(|n| digits(text) && range.contains(n)).ok_or_else(|| expected(text, &what))
        })
    }

    pub fn flag(&mut self, name: &str) -> bool {
        let parse = |text: &str| match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => Err(expected(text, "true or false")),
        };
        self.value(name, parse).unwrap_or(false)
    }

    pub fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let find = |text: &str| choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        self.value(name, |text| find(text).ok_or_else(|| expected(text, &format!("one of {}", names.join(", ")))))
    }

    pub fn directory(&mut self, name: &str, default: &str) -> PathBuf {
        let parse = |text: &str| {
            if !text.starts_with('/') {
                return Err(expected(text, "an absolute path"));
            }
            let text = text.trim_end_matches('/');
            if text.is_empty() { Err("must not be the root directory".to_string()) } else { Ok(PathBuf::from(text)) }
        };
        self.value(name, parse).unwrap_or_else(|| PathBuf::from(default))
    }
}
