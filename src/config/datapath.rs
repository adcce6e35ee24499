//! How frames are captured and carried: MTU, capture, framing, offloads, threads, interfaces that are captured, subnets that are trusted.

use super::reader::{Reader, expected};
use super::{CaptureKind, Config, MAX_MTU, MIN_MTU, THREADS_MAX};
use crate::types::{Framing, InterfaceName, Mtu, Network};
use ipnet::IpNet;
use std::net::IpAddr;

/// Trusted subnets at most.
const MAX_SUBNETS: usize = 256;

pub(super) const CAPTURES: &[(&str, CaptureKind)] =
    &[("tap", CaptureKind::Tap), ("packet", CaptureKind::Packet), ("pcap", CaptureKind::Pcap)];
pub(super) const FRAMINGS: &[(&str, Option<Framing>)] =
    &[("auto", None), ("kernel", Some(Framing::Kernel)), ("vxlan", Some(Framing::Vxlan)), ("udp", Some(Framing::Udp))];
pub(super) const OFFLOADS: &[(&str, bool)] = &[("auto", true), ("off", false)];

pub(super) fn threads(text: &str) -> Result<Option<usize>, String> {
    if text == "auto" {
        return Ok(None);
    }
    let count = text.parse().ok().filter(|count| (1..=THREADS_MAX).contains(count));
    count.map(Some).ok_or_else(|| expected(text, &format!("a number from 1 to {THREADS_MAX}, or auto")))
}

pub(super) fn mtu(text: &str) -> Result<Mtu, String> {
    if text == "auto" {
        return Ok(Mtu::Auto);
    }
    let bytes = text.parse().ok().filter(|bytes| (MIN_MTU..=MAX_MTU).contains(bytes));
    bytes.map(Mtu::Fixed).ok_or_else(|| expected(text, &format!("auto, or a number from {MIN_MTU} to {MAX_MTU}")))
}

impl Reader<'_> {
    /// `IF` or `IF=CIDR`; without a network the default one is meant.
    pub(super) fn interfaces(&mut self, default: Option<Network>) -> Vec<(InterfaceName, Network)> {
        let Some((label, texts)) = self.texts("interface") else { return Vec::new() };
        let mut found: Vec<(InterfaceName, Network)> = Vec::new();
        for word in texts.iter().flat_map(|text| text.split_whitespace()) {
            let (name, network) = word.rsplit_once('=').map_or((word, None), |(name, cidr)| (name, Some(cidr)));
            let network = network.map(|cidr| cidr.parse().map_err(|why: crate::types::Invalid| why.to_string()));
            let unknown = || "leads to no network: give it as IF=CIDR (there is no --ipalloc-range)".to_string();
            let network = network.unwrap_or_else(|| default.ok_or_else(unknown));
            let name: Result<InterfaceName, _> = name.parse().map_err(|why: crate::types::Invalid| why.to_string());
            match (name, network) {
                (Ok(name), Ok(_)) if found.iter().any(|(other, _)| *other == name) => {
                    self.fault(label.clone(), format!("{name} is given twice"));
                }
                (Ok(name), Ok(network)) => found.push((name, network)),
                (Err(why), _) => self.fault(label.clone(), why),
                (Ok(name), Err(why)) => self.fault(label.clone(), format!("{name}: {why}")),
            }
        }
        found
    }

    /// Subnets, separated by spaces or commas; host bits do not matter. An empty text means none.
    pub(super) fn subnets(&mut self) -> Vec<IpNet> {
        let Some((label, texts)) = self.texts("trusted-subnets") else { return Vec::new() };
        let mut subnets: Vec<IpNet> = Vec::new();
        for word in texts.iter().flat_map(|text| text.split([' ', ','])).filter(|word| !word.is_empty()) {
            let single = || word.parse::<IpAddr>().map(IpNet::from);
            match word.parse::<IpNet>().or_else(|_| single()) {
                Ok(subnet) => subnets.push(subnet.trunc()),
                Err(_) => self.fault(label.clone(), expected(word, "a subnet such as 192.0.2.0/24 or fd00::/8")),
            }
        }
        if subnets.len() > MAX_SUBNETS {
            self.fault(label, format!("at most {MAX_SUBNETS} subnets can be given"));
        }
        subnets
    }

    /// What was asked for and would be ignored.
    pub(super) fn check_use(&mut self, config: &Config) {
        if let (CaptureKind::Pcap, Some(count @ 2..)) = (config.capture, config.threads) {
            let label = self.texts("threads").map(|(label, _)| label).unwrap_or_default();
            self.fault(label, format!("{count} are too many for --capture pcap, which has one: use --capture packet"));
        }
        let secret = ["password", "password-file"].iter().any(|name| self.texts(name).is_some());
        if let Some((label, _)) =
            self.texts("trusted-subnets").filter(|_| !secret && !config.trusted_subnets.is_empty())
        {
            self.fault(label, "is of no use without a password: nothing is encrypted anyhow".to_string());
        }
    }

    /// A framing that was asked for by its name and could never be used.
    pub(super) fn check_framing(&mut self, config: &Config) {
        let Some(framing) = config.framing.filter(|framing| *framing != Framing::Udp) else { return };
        let label = self.texts("framing").map(|(label, _)| label).unwrap_or_default();
        if config.password.is_some() && config.trusted_subnets.is_empty() {
            let why = "is for paths that are not encrypted, and a password encrypts all: give --trusted-subnets too, or no --framing";
            self.fault(label, format!("{framing} {why}"));
        } else if config.port == u16::MAX {
            self.fault(label, format!("{framing} takes the UDP port after --port {}: give a lower one", config.port));
        }
    }
}
