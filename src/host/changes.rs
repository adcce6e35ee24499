//! What of this machine's changes matters to the mesh.
//!
//! Owns the judgement: another address, another route, or a device that began or ceased to work or has another MTU may open
//! a way to peers that there was not before, so dials are tried again at once, or narrow one; our own devices coming and
//! going mean nothing. A device of an attachment that is gone means that the attachment is.
//!
//! Invariant: at most one [`Verdict::Network`] a pause is told on; our own doing never leads to one.

use super::names;
use crate::io::netlink::Link;
use crate::io::watch::Change;
use std::collections::{HashMap, HashSet};

/// What a change means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to us.
    Nothing,
    /// Peers may be reachable otherwise than before.
    Network,
    /// This device of ours is gone.
    Gone(String),
}

/// What is known of the devices here.
#[derive(Debug, Default)]
pub struct Devices {
    ours: HashSet<u32>,
    /// Whether they are up, and their MTU.
    others: HashMap<u32, (bool, u32)>,
}

impl Devices {
    /// Those that are there at the start.
    pub fn new(links: &[Link]) -> Devices {
        let mut devices = Devices::default();
        links.iter().for_each(|link| devices.note(link));
        devices
    }

    fn note(&mut self, link: &Link) {
        if names::is_ours(&link.name, &link.kind) {
            self.ours.insert(link.index);
        } else {
            self.others.insert(link.index, (link.up, link.mtu));
        }
    }

    /// Judges a change and keeps what it tells.
    pub fn judge(&mut self, change: &Change) -> Verdict {
        let network_unless = |ours: bool| if ours { Verdict::Nothing } else { Verdict::Network };
        match change {
            Change::Address(index) => network_unless(self.ours.contains(index)),
            Change::Route(through) => network_unless(through.is_some_and(|index| self.ours.contains(&index))),
            Change::Port(_) => Verdict::Nothing,
            Change::Link(link) => {
                let ours = names::is_ours(&link.name, &link.kind) || self.ours.contains(&link.index);
                let (was_up, mtu) = self.others.get(&link.index).copied().unwrap_or((false, link.mtu));
                self.note(link);
                network_unless(ours || (was_up == link.up && (mtu == link.mtu || !link.up)))
            }
            Change::LinkGone(link) => {
                if self.ours.remove(&link.index) {
                    return Verdict::Gone(link.name.clone());
                }
                let was_up = self.others.remove(&link.index).is_some_and(|(up, _)| up);
                network_unless(!was_up)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: &str, up: bool) -> Link {
        Link {
            index,
            name: name.into(),
            kind: kind.into(),
            ethernet: true,
            up,
            promiscuity: 0,
            master: None,
            lower: None,
            forwarding: false,
            mtu: 1500,
            mac: None,
            peer: None,
        }
    }

    #[test]
    fn others_addresses_and_routes_matter_and_ours_do_not() {
        let mut devices = Devices::new(&[link(2, "eth0", "", true), link(7, "rnb8312a4", "bridge", true)]);
        assert_eq!(devices.judge(&Change::Address(2)), Verdict::Network);
        assert_eq!(devices.judge(&Change::Address(7)), Verdict::Nothing);
        assert_eq!(devices.judge(&Change::Route(Some(7))), Verdict::Nothing);
        assert_eq!(devices.judge(&Change::Route(Some(2))), Verdict::Network);
        assert_eq!(devices.judge(&Change::Route(None)), Verdict::Network);
    }

    #[test]
    fn a_device_matters_when_it_begins_or_ceases_to_work() {
        let mut devices = Devices::default();
        assert_eq!(devices.judge(&Change::Link(link(3, "wlan0", "", false))), Verdict::Nothing);
        assert_eq!(devices.judge(&Change::Link(link(3, "wlan0", "", true))), Verdict::Network);
        assert_eq!(devices.judge(&Change::Link(link(3, "wlan0", "", true))), Verdict::Nothing);
        let narrow = |up: bool| Change::Link(Link { mtu: 1300, ..link(3, "wlan0", "", up) });
        assert_eq!(devices.judge(&narrow(true)), Verdict::Network);
        assert_eq!(devices.judge(&narrow(true)), Verdict::Nothing);
        assert_eq!(devices.judge(&narrow(false)), Verdict::Network);
        assert_eq!(
            devices.judge(&Change::Link(link(3, "wlan0", "", false))),
            Verdict::Nothing,
            "narrow or not, it is down"
        );
        assert_eq!(devices.judge(&Change::Link(link(3, "wlan0", "", true))), Verdict::Network);
        assert_eq!(devices.judge(&Change::Link(link(3, "wlan0", "", false))), Verdict::Network);
        assert_eq!(devices.judge(&Change::LinkGone(link(3, "wlan0", "", false))), Verdict::Nothing);
    }

    #[test]
    fn a_device_of_ours_that_is_gone_is_named() {
        let mut devices = Devices::default();
        assert_eq!(devices.judge(&Change::Link(link(9, "rnv01234567", "veth", true))), Verdict::Nothing);
        assert_eq!(
            devices.judge(&Change::LinkGone(link(9, "rnv01234567", "veth", true))),
            Verdict::Gone("rnv01234567".into())
        );
        // Told without its kind, as the kernel may: the index is known.
        devices.judge(&Change::Link(link(9, "rnv01234567", "veth", true)));
        assert_eq!(
            devices.judge(&Change::LinkGone(link(9, "rnv01234567", "", false))),
            Verdict::Gone("rnv01234567".into())
        );
    }
}
