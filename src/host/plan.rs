//! What a change to this machine consists of. Pure.
//!
//! Owns the order of steps and what undoes each. `apply` runs them one by one and, if one fails, the undoing steps of those
//! before it in reverse. A step that has no undoing goes with the device that it configures.
//!
//! The order matters for what others see: IPv6 is switched off on a device before it comes up, so that no link-local traffic
//! of the host ever enters a network; an attachment's interface has all its addresses before it comes up, and when the last step
//! is done its first frame is not lost.

use super::names;
use crate::io::capture::CaptureKind;
use crate::io::vxlan::{PortRules, Vxlan};
use crate::node::border::HostOp;
use crate::node::command::{Interface, Place};
use crate::plane::fib::PortId;
use crate::types::{HostAddress, Mac, NetId, VNI_OF_PEERS};
use crate::wire::beat;
use std::net::IpAddr;

/// One step. Devices are in the router's namespace, or `Inside` that of the attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a bridge, down.
    AddBridge { name: String, mtu: u16 },
    /// Make and open a TAP, down.
    AddTap { name: String },
    /// Make a veth pair with both ends here, down.
    AddPair { name: String, peer: String, mtu: u16 },
    /// Complete checksums and cut super-frames before they leave by this device (libpcap captures at its other end), but for those
    /// that are led past that (`io::marking`).
    Complete { name: String },
    /// Make a VXLAN device, down.
    AddVxlan { name: String, vxlan: Vxlan, mtu: u16 },
    /// Make a veth pair, `peer` inside with this MAC, both down.
    AddVeth { name: String, peer: String, mac: Mac, mtu: u16 },
    /// No IPv6 of the host on this device, and no IPv4 without an address there.
    Silence { name: String },
    /// Set the MTU; it is no error if the device is gone.
    SetMtu { name: String, mtu: u16 },
    /// Put a device on a bridge.
    SetMaster { port: String, bridge: String },
    /// Set what a port of a bridge does.
    SetPort { port: String, rules: PortRules },
    /// Bring a device up.
    SetUp { name: String },
    /// Wait until a bridge passes the frames of its port: the kernel notices a veth's other end a moment after it comes up.
    AwaitForwarding { port: String },
    /// Open AF_PACKET, or libpcap, on one end of a pair that is up and has this MTU; the other end is `bridged`.
    OpenPair { name: String, bridged: String, mtu: u16 },
    /// The device is about to have this MTU: where its capture has no room for such frames, another one takes its place.
    WidenPair { name: String, bridged: String, mtu: u16 },
    /// Give the open capture on a device to the data path.
    HandOver { port: PortId, name: String },
    /// Have the data path close its capture.
    TakeBack { port: PortId },
    /// Delete a device; it is no error if it is gone.
    Delete { name: String },
    /// Inside: settings of an interface; IPv6 only where it has an IPv6 address.
    InsideSettings { name: String, ipv6: bool },
    /// Inside: give an address.
    InsideAddress { name: String, address: HostAddress },
    /// Inside: set the MTU; it is no error if the interface is gone.
    InsideMtu { name: String, mtu: u16 },
    /// Inside: bring the interface up.
    InsideUp { name: String },
    /// Inside: send IPv4 multicast through this interface, unless something else has that route.
    InsideMulticast { name: String },
    /// Inside: send what has no other route to this address.
    InsideDefaultRoute { name: String, via: IpAddr },
    /// Let nothing of a bridge through to the host, which is not on its network.
    Shut { name: String },
    /// Let it through again; it is no error if the bridge is gone.
    Unshut { name: String },
    /// Let only what is honest through from this device of an attachment to its bridge, and the rest to the capture port.
    Guard { name: String, capture: String, mac: Mac, addresses: Vec<HostAddress> },
    /// Let nothing in from this VXLAN device of a network that comes in the name of these, or is for many.
    GuardArrivals { name: String, guarded: Vec<Mac> },
    /// Let only frames of this type in from a VXLAN device.
    GuardBeats { name: String, ether_type: u16 },
    /// No longer; it is no error if the device is gone.
    Unguard { name: String },
    /// The capture port is another device of the same name: hand the rest to that.
    GuardAnew { capture: String },
    /// Give a bridge this MAC, whatever its ports have.
    SetMac { name: String, mac: Mac },
    /// Settings of a bridge that the host has addresses on; IPv6 only where it has an IPv6 address.
    HostSettings { name: String, ipv6: bool },
    /// Give the host an address.
    HostAddress { name: String, address: HostAddress },
    /// Take it away; it is no error if it is gone.
    RemoveAddress { name: String, address: HostAddress },
}

impl Step {
    /// What takes this step back.
    pub fn undo(&self) -> Option<Step> {
        match self {
            Step::AddBridge { name, .. }
            | Step::AddTap { name }
            | Step::AddPair { name, .. }
            | Step::AddVxlan { name, .. }
            | Step::AddVeth { name, .. } => Some(Step::Delete { name: name.clone() }),
            Step::HandOver { port, .. } => Some(Step::TakeBack { port: *port }),
            Step::Shut { name } => Some(Step::Unshut { name: name.clone() }),
            Step::Unshut { name } => Some(Step::Shut { name: name.clone() }),
            Step::Guard { name, .. } | Step::GuardArrivals { name, .. } | Step::GuardBeats { name, .. } => {
                Some(Step::Unguard { name: name.clone() })
            }
            Step::HostSettings { name, .. } => Some(Step::Silence { name: name.clone() }),
            Step::HostAddress { name, address } => Some(Step::RemoveAddress { name: name.clone(), address: *address }),
            _ => None,
        }
    }
}

/// The steps of `op`, where frames are captured by `kind`.
pub fn plan(op: &HostOp, kind: CaptureKind) -> Vec<Step> {
    match op {
        HostOp::OpenNetwork { network, id, port, mtu } => {
            let (bridge, mtu) = (names::bridge(*id), network.usable_mtu(*mtu));
            let mut steps = vec![
                Step::AddBridge { name: bridge.clone(), mtu },
                Step::Silence { name: bridge.clone() },
                Step::Shut { name: bridge.clone() },
            ];
            steps.extend(capture(*id, mtu, kind));
            steps.extend([
                Step::SetUp { name: bridge },
                Step::AwaitForwarding { port: on_bridge(*id, kind) },
                Step::HandOver { port: *port, name: captured(*id, kind) },
            ]);
            steps
        }
        HostOp::Recapture { id, gone, port, mtu } => {
            let mut steps = vec![Step::TakeBack { port: *gone }];
            steps.extend(capture(*id, *mtu, kind));
            steps.extend([
                Step::AwaitForwarding { port: on_bridge(*id, kind) },
                Step::GuardAnew { capture: on_bridge(*id, kind) },
                Step::HandOver { port: *port, name: captured(*id, kind) },
            ]);
            steps
        }
        HostOp::CloseNetwork { id, port } => {
            vec![
                Step::TakeBack { port: *port },
                Step::Delete { name: captured(*id, kind) },
                Step::Delete { name: names::bridge(*id) },
                Step::Unshut { name: names::bridge(*id) },
            ]
        }
        HostOp::ResizeNetwork { network, id, mtu } => {
            let ((captured, bridged), mtu) = (names::pair(*id), network.usable_mtu(*mtu));
            let ports = match kind {
                CaptureKind::Tap => vec![names::tap(*id)],
                CaptureKind::Packet | CaptureKind::Pcap => vec![captured.clone(), bridged],
            };
            let bridged = names::pair(*id).1;
            let widen = (kind == CaptureKind::Pcap).then_some(Step::WidenPair { name: captured, bridged, mtu });
            let vxlans = [false, true].map(|ipv6| names::vxlan(id.value(), ipv6));
            let ports = ports.into_iter().chain(vxlans);
            // The bridge last: it takes the least of its ports until it is told otherwise.
            let devices = ports.chain([names::bridge(*id)]);
            widen.into_iter().chain(devices.map(|name| Step::SetMtu { name, mtu })).collect()
        }
        HostOp::Resize { key, interfaces, mtu, .. } => {
            let resize = |interface: &Interface| {
                let (name, mtu) = (interface.name.clone(), interface.network.usable_mtu(*mtu));
                [Step::InsideMtu { name: name.clone(), mtu }, Step::SetMtu { name: names::veth(key, &name), mtu }]
            };
            interfaces.iter().flat_map(resize).collect()
        }
        HostOp::Plug { place: Place::Host, interfaces, .. } => interfaces.iter().flat_map(expose).collect(),
        HostOp::Unplug { place: Place::Host, interfaces, .. } => interfaces.iter().flat_map(hide).collect(),
        HostOp::Plug { key, interfaces, mtu, guarded, .. } => {
            let plug = |interface| plug(key, interface, (*mtu, *guarded), kind);
            interfaces.iter().flat_map(plug).collect()
        }
        HostOp::Unplug { key, interfaces, .. } => {
            let veths = interfaces.iter().map(|interface| names::veth(key, &interface.name));
            // The guard goes last, so that nothing passes unguarded.
            veths.flat_map(|name| [Step::Delete { name: name.clone() }, Step::Unguard { name }]).collect()
        }
        // No devices of ours: `firewall` does it, `doors`, and `uplinks`.
        HostOp::Filter(_)
        | HostOp::OpenTunnel { .. }
        | HostOp::CloseTunnel { .. }
        | HostOp::OpenUplink { .. }
        | HostOp::CloseUplink { .. } => Vec::new(),
        // `kernel` knows for which families; see `offload`.
        HostOp::OpenVxlan { .. } | HostOp::TryVxlan { .. } | HostOp::CloseVxlan | HostOp::VxlanPeers(_) => Vec::new(),
        HostOp::SweepRest => Vec::new(),
        HostOp::OpenOffload { .. } | HostOp::CloseOffload { .. } | HostOp::Offload { .. } => Vec::new(),
    }
}

/// What a capture port does on its bridge: all but to pass frames to a VXLAN device, or to take them from there.
const CAPTURE_RULES: PortRules = PortRules { isolated: true, learning: true, flood: true };
/// What a VXLAN device does there.
const VXLAN_RULES: PortRules = PortRules { isolated: true, learning: false, flood: false };
/// MTU of the device that heartbeats pass: the largest, so that only the way limits them.
const BEATS_MTU: u16 = 16_000;

/// What the kernel's VXLAN of one IP family is made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Under {
    /// UDP port.
    pub port: u16,
    /// Over IPv6.
    pub ipv6: bool,
    /// The one address of this host that is used.
    pub local: Option<IpAddr>,
}

impl Under {
    fn vxlan(&self, vni: u32, whole: bool) -> Vxlan {
        Vxlan { vni, port: self.port, ipv6: self.ipv6, local: self.local, whole, learns: false }
    }
}

/// The steps that make the VXLAN device of a network, whose bridge is there.
pub(super) fn offload(id: NetId, mtu: u16, under: &Under, guarded: Vec<Mac>) -> Vec<Step> {
    let name = names::vxlan(id.value(), under.ipv6);
    vec![
        Step::AddVxlan { name: name.clone(), vxlan: under.vxlan(id.value(), false), mtu },
        Step::Silence { name: name.clone() },
        Step::SetMaster { port: name.clone(), bridge: names::bridge(id) },
        // Rules and guard before the first frame.
        Step::SetPort { port: name.clone(), rules: VXLAN_RULES },
        Step::GuardArrivals { name: name.clone(), guarded },
        Step::SetUp { name: name.clone() },
        Step::AwaitForwarding { port: name },
    ]
}

/// The steps that make the VXLAN device that heartbeats pass. Its packets are never cut: they prove what fits.
pub(super) fn beats(under: &Under) -> Vec<Step> {
    let name = names::vxlan(VNI_OF_PEERS, under.ipv6);
    vec![
        Step::AddVxlan { name: name.clone(), vxlan: under.vxlan(VNI_OF_PEERS, true), mtu: BEATS_MTU },
        Step::Silence { name: name.clone() },
        Step::GuardBeats { name: name.clone(), ether_type: beat::ETHER_TYPE },
        Step::SetUp { name },
    ]
}

/// The steps that remove either.
pub(super) fn close_vxlan(vni: u32, ipv6: bool) -> Vec<Step> {
    let name = names::vxlan(vni, ipv6);
    vec![Step::Delete { name: name.clone() }, Step::Unguard { name }]
}

/// The device that frames are captured on.
fn captured(id: NetId, kind: CaptureKind) -> String {
    match kind {
        CaptureKind::Tap => names::tap(id),
        CaptureKind::Packet | CaptureKind::Pcap => names::pair(id).0,
    }
}

/// The port of the bridge that leads there.
pub(super) fn on_bridge(id: NetId, kind: CaptureKind) -> String {
    match kind {
        CaptureKind::Tap => names::tap(id),
        CaptureKind::Packet | CaptureKind::Pcap => names::pair(id).1,
    }
}

/// Makes and opens the devices that frames are captured by, on the network's bridge.
fn capture(id: NetId, mtu: u16, kind: CaptureKind) -> Vec<Step> {
    let (captured, bridged, bridge) = (captured(id, kind), on_bridge(id, kind), names::bridge(id));
    match kind {
        CaptureKind::Tap => vec![
            Step::AddTap { name: captured.clone() },
            Step::Silence { name: captured.clone() },
            Step::SetMtu { name: captured.clone(), mtu },
            Step::SetMaster { port: captured.clone(), bridge },
            Step::SetPort { port: captured.clone(), rules: CAPTURE_RULES },
            Step::SetUp { name: captured },
        ],
        CaptureKind::Packet | CaptureKind::Pcap => {
            let add = Step::AddPair { name: captured.clone(), peer: bridged.clone(), mtu };
            // As late as can be: what goes from one attachment to another here stays as it is, and the bridge passes few.
            let complete = (kind == CaptureKind::Pcap).then_some(Step::Complete { name: bridged.clone() });
            let rest = [
                Step::Silence { name: captured.clone() },
                Step::Silence { name: bridged.clone() },
                Step::SetMaster { port: bridged.clone(), bridge },
                Step::SetPort { port: bridged.clone(), rules: CAPTURE_RULES },
                Step::SetUp { name: bridged.clone() },
                Step::SetUp { name: captured.clone() },
                Step::OpenPair { name: captured, bridged, mtu },
            ];
            std::iter::once(add).chain(complete).chain(rest).collect()
        }
    }
}

/// The host's interface on a network is the network's bridge.
fn expose(interface: &Interface) -> Vec<Step> {
    let name = names::bridge(interface.id);
    let ipv6 = interface.addresses.iter().any(|address| address.ip().is_ipv6());
    let mut steps = vec![Step::Unshut { name: name.clone() }, Step::SetMac { name: name.clone(), mac: interface.mac }];
    // IPv6 makes its link-local address of the MAC, so it comes after that.
    steps.push(Step::HostSettings { name: name.clone(), ipv6 });
    let addresses = interface.addresses.iter();
    steps.extend(addresses.map(|address| Step::HostAddress { name: name.clone(), address: *address }));
    steps
}

fn hide(interface: &Interface) -> Vec<Step> {
    let name = names::bridge(interface.id);
    let addresses = interface.addresses.iter().rev();
    let removals = addresses.map(|address| Step::RemoveAddress { name: name.clone(), address: *address });
    removals.chain([Step::Silence { name: name.clone() }, Step::Shut { name: name.clone() }]).collect()
}

fn plug(key: &str, interface: &Interface, (mtu, guarded): (u16, bool), kind: CaptureKind) -> Vec<Step> {
    let (ours, inside) = (names::veth(key, &interface.name), &interface.name);
    let ipv6 = interface.addresses.iter().any(|address| address.ip().is_ipv6());
    let ipv4 = interface.addresses.iter().any(|address| address.ip().is_ipv4());
    let mtu = interface.network.usable_mtu(mtu);
    let mut steps = vec![
        Step::AddVeth { name: ours.clone(), peer: inside.clone(), mac: interface.mac, mtu },
        Step::Silence { name: ours.clone() },
        Step::InsideSettings { name: inside.clone(), ipv6 },
    ];
    steps.extend(
        interface.addresses.iter().map(|address| Step::InsideAddress { name: inside.clone(), address: *address }),
    );
    steps.push(Step::SetMaster { port: ours.clone(), bridge: names::bridge(interface.id) });
    if guarded {
        let capture = on_bridge(interface.id, kind);
        let (name, mac, addresses) = (ours.clone(), interface.mac, interface.addresses.clone());
        steps.push(Step::Guard { name, capture, mac, addresses });
    }
    steps.extend([
        Step::SetUp { name: ours.clone() },
        Step::InsideUp { name: inside.clone() },
        Step::AwaitForwarding { port: ours },
    ]);
    if ipv4 {
        steps.push(Step::InsideMulticast { name: inside.clone() });
    }
    if let Some(via) = interface.gateway {
        steps.push(Step::InsideDefaultRoute { name: inside.clone(), via });
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, addresses: &[&str]) -> Interface {
        let addresses: Vec<HostAddress> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let network = addresses[0].network();
        let (mac, gateway) = (Mac([2, 0, 0, 0, 0, 1]), None);
        Interface { name: name.into(), network, id: network.id(), mac, addresses, gateway, masquerade: false }
    }

    fn open() -> HostOp {
        HostOp::OpenNetwork {
            network: "10.2.1.0/24".parse().unwrap(),
            id: NetId::new(0x8312a4).unwrap(),
            port: PortId(3),
            mtu: 1410,
        }
    }

    fn plug_two() -> HostOp {
        let interfaces =
            vec![interface("rnet0", &["10.2.1.1/24"]), interface("rnet1", &["fd00:1::1/64", "fd00:1::2/64"])];
        HostOp::Plug { key: "pid:7".into(), place: Place::Pid(7), interfaces, mtu: 1410, guarded: true }
    }

    fn position(steps: &[Step], wanted: impl Fn(&Step) -> bool) -> usize {
        steps.iter().position(wanted).unwrap()
    }

    #[test]
    fn a_network_is_silenced_before_it_is_up_and_handed_over_last() {
        for kind in [CaptureKind::Tap, CaptureKind::Packet, CaptureKind::Pcap] {
            let steps = plan(&open(), kind);
            for (at, step) in steps.iter().enumerate() {
                if let Step::SetUp { name } = step {
                    assert!(position(&steps, |s| *s == Step::Silence { name: name.clone() }) < at, "{name}");
                }
            }
            let name = if kind == CaptureKind::Tap { "rnt8312a4" } else { "rnp8312a4" }.to_string();
            assert_eq!(steps.last(), Some(&Step::HandOver { port: PortId(3), name }));
        }
    }

    #[test]
    fn a_port_made_anew_is_made_as_the_first_one_and_nothing_else_is_touched() {
        let id = NetId::new(0x8312a4).unwrap();
        for kind in [CaptureKind::Tap, CaptureKind::Packet, CaptureKind::Pcap] {
            let anew = plan(&HostOp::Recapture { id, gone: PortId(2), port: PortId(3), mtu: 1410 }, kind);
            let opening = plan(&open(), kind);
            let added: Vec<&Step> = anew.iter().filter(|step| !opening.contains(step)).collect();
            let capture = on_bridge(id, kind);
            assert_eq!(added, [&Step::TakeBack { port: PortId(2) }, &Step::GuardAnew { capture }]);
            let left_out = opening.iter().filter(|step| !anew.contains(step));
            let touches = |step: &Step| format!("{step:?}").contains("name: \"rnb8312a4\"");
            assert!(left_out.into_iter().all(touches), "{anew:?}");
            assert_eq!(position(&anew, |step| matches!(step, Step::HandOver { .. })), anew.len() - 1);
        }
    }

    #[test]
    fn a_vxlan_port_is_isolated_and_guarded_before_it_is_up_and_removed_whole() {
        let id = NetId::new(0x8312a4).unwrap();
        for ipv6 in [false, true] {
            let under = Under { port: 6784, ipv6, local: None };
            let steps = offload(id, 1410, &under, vec![Mac([2, 0, 0, 0, 0, 1])]);
            let up = position(&steps, |s| matches!(s, Step::SetUp { .. }));
            let isolated = |s: &Step| matches!(s, Step::SetPort { rules, .. } if rules.isolated && !rules.flood && !rules.learning);
            assert!(
                position(&steps, isolated) < up && position(&steps, |s| matches!(s, Step::GuardArrivals { .. })) < up
            );
            let undone: Vec<Step> = steps.iter().filter_map(Step::undo).collect();
            assert_eq!(undone, close_vxlan(id.value(), ipv6));
            let undone: Vec<Step> = beats(&under).iter().filter_map(Step::undo).collect();
            assert_eq!(undone, close_vxlan(VNI_OF_PEERS, ipv6));
        }
    }

    #[test]
    fn closing_removes_every_device_that_opening_makes() {
        let close = HostOp::CloseNetwork { id: NetId::new(0x8312a4).unwrap(), port: PortId(3) };
        for kind in [CaptureKind::Tap, CaptureKind::Packet, CaptureKind::Pcap] {
            let mut undone: Vec<Step> = plan(&open(), kind).iter().rev().filter_map(Step::undo).collect();
            undone.sort_by_key(|step| format!("{step:?}"));
            let mut closing = plan(&close, kind);
            closing.sort_by_key(|step| format!("{step:?}"));
            assert_eq!(undone, closing);
        }
    }

    #[test]
    fn unplugging_removes_every_device_that_plugging_makes() {
        let HostOp::Plug { key, place, interfaces, .. } = plug_two() else { unreachable!() };
        let undone: Vec<Step> = plan(&plug_two(), CaptureKind::Tap).iter().filter_map(Step::undo).collect();
        assert_eq!(plan(&HostOp::Unplug { key, place, interfaces }, CaptureKind::Tap), undone);
        assert_eq!(undone.len(), 4);
    }

    #[test]
    fn an_interface_comes_up_with_all_its_addresses_and_ipv6_only_where_asked_for() {
        let steps = plan(&plug_two(), CaptureKind::Tap);
        for inside in ["rnet0", "rnet1"] {
            let up = position(&steps, |s| *s == Step::InsideUp { name: inside.into() });
            let later = &steps[up..];
            assert!(!later.iter().any(|s| matches!(s, Step::InsideAddress { name, .. } if name == inside)));
            assert!(!later.iter().any(|s| matches!(s, Step::InsideSettings { name, .. } if name == inside)));
        }
        let settings: Vec<_> = steps
            .iter()
            .filter_map(|s| if let Step::InsideSettings { ipv6, .. } = s { Some(*ipv6) } else { None })
            .collect();
        assert_eq!(settings, [false, true]);
    }

    #[test]
    fn hiding_takes_back_what_exposing_did_and_leaves_the_bridge() {
        let (key, mtu) = ("host:expose".to_string(), 1410);
        let interfaces = vec![interface("rnb000001", &["10.2.1.1/24", "10.2.1.2/24"])];
        let unplug = HostOp::Unplug { key: key.clone(), place: Place::Host, interfaces: interfaces.clone() };
        let plug = HostOp::Plug { key, place: Place::Host, interfaces, mtu, guarded: true };
        for kind in [CaptureKind::Tap, CaptureKind::Packet, CaptureKind::Pcap] {
            let undone: Vec<Step> = plan(&plug, kind).iter().rev().filter_map(Step::undo).collect();
            assert_eq!(plan(&unplug, kind), undone);
            assert!(undone.iter().all(|step| !matches!(step, Step::Delete { .. })));
        }
    }

    #[test]
    fn ipv6_of_the_host_wakes_only_for_an_ipv6_address_and_after_the_mac_is_set() {
        let steps = |address: &str| expose(&interface("rnb000001", &[address]));
        let settings = |steps: &[Step]| position(steps, |s| matches!(s, Step::HostSettings { .. }));
        assert!(matches!(
            steps("10.2.1.1/24")[settings(&steps("10.2.1.1/24"))],
            Step::HostSettings { ipv6: false, .. }
        ));
        let six = steps("fd00:1::1/64");
        assert!(matches!(six[settings(&six)], Step::HostSettings { ipv6: true, .. }));
        assert!(position(&six, |s| matches!(s, Step::SetMac { .. })) < settings(&six));
    }

    #[test]
    fn an_attachment_is_guarded_before_its_device_is_up_unless_it_is_exempt() {
        let HostOp::Plug { key, place, interfaces, mtu, .. } = plug_two() else { unreachable!() };
        let free = HostOp::Plug { key, place, interfaces, mtu, guarded: false };
        for (kind, prefix) in [(CaptureKind::Tap, "rnt"), (CaptureKind::Packet, "rnq"), (CaptureKind::Pcap, "rnq")] {
            let steps = plan(&plug_two(), kind);
            for (at, step) in steps.iter().enumerate() {
                let Step::SetUp { name: port } = step else { continue };
                let guards = |s: &Step| matches!(s, Step::Guard { name, capture, .. } if name == port && capture.starts_with(prefix));
                assert!(position(&steps, guards) < at);
            }
            assert!(!plan(&free, kind).iter().any(|step| matches!(step, Step::Guard { .. })));
        }
    }

    #[test]
    fn a_bridge_is_shut_to_the_host_before_it_is_up() {
        let steps = plan(&open(), CaptureKind::Tap);
        let bridge = "rnb8312a4".to_string();
        let shut = position(&steps, |s| *s == Step::Shut { name: bridge.clone() });
        assert!(shut < position(&steps, |s| *s == Step::SetUp { name: bridge.clone() }));
    }

    #[test]
    fn every_device_that_has_an_mtu_gets_the_new_one_and_ipv6_at_least_1280() {
        let mtus = |steps: &[Step]| {
            let mtu = |step: &Step| match step {
                Step::AddBridge { name, mtu }
                | Step::AddVxlan { name, mtu, .. }
                | Step::SetMtu { name, mtu }
                | Step::InsideMtu { name, mtu } => {
                    vec![(name.clone(), *mtu)]
                }
                Step::AddPair { name, peer, mtu } | Step::AddVeth { name, peer, mtu, .. } => {
                    vec![(name.clone(), *mtu), (peer.clone(), *mtu)]
                }
                _ => Vec::new(),
            };
            steps.iter().flat_map(mtu).collect::<std::collections::BTreeMap<_, _>>()
        };
        let HostOp::OpenNetwork { network, id, .. } = open() else { unreachable!() };
        let HostOp::Plug { key, place, interfaces, .. } = plug_two() else { unreachable!() };
        for kind in [CaptureKind::Tap, CaptureKind::Packet, CaptureKind::Pcap] {
            let resized = mtus(&plan(&HostOp::ResizeNetwork { network, id, mtu: 1410 }, kind));
            let vxlan = |ipv6| offload(id, 1410, &Under { port: 6784, ipv6, local: None }, Vec::new());
            assert_eq!(resized, mtus(&[plan(&open(), kind), vxlan(false), vxlan(true)].concat()));
            let (key, place, interfaces) = (key.clone(), place.clone(), interfaces.clone());
            let resized = mtus(&plan(&HostOp::Resize { key, place, interfaces, mtu: 1410 }, kind));
            assert_eq!(resized, mtus(&plan(&plug_two(), kind)));
        }
        let narrow = mtus(&plan(&HostOp::Resize { key, place, interfaces, mtu: 600 }, CaptureKind::Tap));
        assert_eq!((narrow["rnet0"], narrow["rnet1"]), (600, 1280));
    }

    #[test]
    fn frames_are_completed_only_for_libpcap_on_their_way_to_it() {
        for kind in [CaptureKind::Tap, CaptureKind::Packet, CaptureKind::Pcap] {
            let steps = plan(&open(), kind);
            let complete = |step: &Step| *step == Step::Complete { name: "rnq8312a4".into() };
            assert_eq!(steps.iter().any(complete), kind == CaptureKind::Pcap);
            if kind == CaptureKind::Pcap {
                assert!(position(&steps, complete) < position(&steps, |s| matches!(s, Step::SetUp { .. })));
            }
        }
    }
}
