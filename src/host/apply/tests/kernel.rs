//! The kernel's VXLAN, and what a killed router left, on the real kernel. A kernel without VXLAN, or a host without nft, skips.

use super::*;
use crate::io::fdb::Entry;
use crate::io::vxlan::{PortRules, Vxlan};
use crate::node::border::VxlanPeer;
use crate::node::command::{Attachment, HOST_KEY};

const PORT: u16 = 6784;

fn id() -> NetId {
    NetId::new(ID).unwrap()
}

fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 1, last])
}

fn to(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), PORT)
}

const OPEN: HostOp = HostOp::OpenVxlan { port: PORT, engine: Engine::Kernel };

fn offload() -> HostOp {
    HostOp::OpenOffload { network: "10.2.1.0/24".parse().unwrap(), id: id(), mtu: 1410 }
}

fn carry(last: u8, address: &str) -> HostOp {
    HostOp::Offload { id: id(), mac: mac(last), to: Some(to(address)) }
}

fn peers(list: &[(u8, &str)]) -> HostOp {
    let peer = |(n, address): &(u8, &str)| VxlanPeer { peer: crate::types::PeerName(mac(*n)), address: to(address) };
    HostOp::VxlanPeers(list.iter().map(peer).collect())
}

impl Bench {
    /// With the engine and a network open; nothing (told on stderr) where that is impossible.
    async fn carrying(&mut self) -> Option<Capture> {
        match self.host.apply(OPEN).await {
            Err(why) if why.contains("nft") || why.contains("this kernel") => {
                eprintln!("skipped: {why}");
                return None;
            }
            opened => assert_eq!(opened, Ok(HostAnswer::Vxlan(Vec::new()))),
        }
        let capture = self.open().await;
        assert_eq!(self.host.apply(offload()).await, Ok(HostAnswer::Offloaded(Vec::new())));
        Some(capture)
    }

    async fn entries(&self, device: &str) -> Vec<Entry> {
        let index = self.link(device).await.index;
        let mut entries = self.host.shared.netlink.entries(&[index]).await.unwrap();
        entries.retain(|entry| !entry.own);
        entries.sort_by_key(|entry| (entry.mac, entry.sticky));
        entries
    }

    /// Waits until what is carried by a device is just this.
    async fn carries(&self, device: &str, wanted: &[(u8, &str)]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let entries = self.entries(device).await;
            let sticky = entries.iter().filter(|e| e.sticky && e.to.is_none()).map(|e| e.mac).collect::<Vec<_>>();
            let sent = entries.iter().filter_map(|e| Some((e.mac, e.to?.ip()))).collect::<Vec<_>>();
            let expected = wanted.iter().map(|(n, ip)| (mac(*n), ip.parse::<IpAddr>().unwrap())).collect::<Vec<_>>();
            if sent == expected && sticky == expected.iter().map(|(mac, _)| *mac).collect::<Vec<_>>() {
                return assert_eq!(entries.len(), wanted.len() * 2, "{entries:?}");
            }
            assert!(Instant::now() < deadline, "{device}: {entries:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn lost(&mut self) -> Option<NetId> {
        loop {
            if let HostEvent::OffloadLost { id } = self.event().await {
                return id;
            }
        }
    }
}

const GUARD: PortRules = PortRules { isolated: true, learning: false, flood: false };

#[test]
fn the_kernel_carries_what_it_was_told_and_floods_nothing() {
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Tap).await;
        let Some(_capture) = bench.carrying().await else { return };
        let netlink = bench.host.shared.netlink.clone();
        assert_eq!(netlink.port("rnx8312a4").await.unwrap(), Some(GUARD));
        assert_eq!(
            netlink.port("rnt8312a4").await.unwrap(),
            Some(PortRules { isolated: true, learning: true, flood: true })
        );
        let (device, bridge) = (bench.link("rnx8312a4").await, bench.link("rnb8312a4").await);
        assert!(
            device.up && device.forwarding && device.mtu == 1410 && device.master == Some(bridge.index),
            "{device:?}"
        );
        bench.carries("rnx8312a4", &[]).await;
        bench.host.apply(peers(&[(9, "192.0.2.9")])).await.unwrap();
        assert_eq!(bench.entries("rnxffffff").await.len(), 1);
        bench.host.apply(carry(1, "192.0.2.9")).await.unwrap();
        bench.host.apply(carry(2, "192.0.2.9")).await.unwrap();
        bench.carries("rnx8312a4", &[(1, "192.0.2.9"), (2, "192.0.2.9")]).await;
        bench.host.apply(carry(2, "192.0.2.8")).await.unwrap();
        bench.carries("rnx8312a4", &[(1, "192.0.2.9"), (2, "192.0.2.8")]).await;
        let gone = HostOp::Offload { id: id(), mac: mac(1), to: None };
        bench.host.apply(gone.clone()).await.unwrap();
        bench.host.apply(gone).await.unwrap();
        bench.carries("rnx8312a4", &[(2, "192.0.2.8")]).await;
        assert!(bench.entries("rnt8312a4").await.iter().any(|entry| entry.mac == mac(1)), "goes by the data path");
        bench.host.apply(peers(&[])).await.unwrap();
        assert!(bench.entries("rnxffffff").await.is_empty());
        let resize = HostOp::ResizeNetwork { network: "10.2.1.0/24".parse().unwrap(), id: id(), mtu: 1300 };
        bench.host.apply(resize).await.unwrap();
        assert_eq!(bench.link("rnx8312a4").await.mtu, 1300);
        bench.host.apply(HostOp::CloseOffload { id: id() }).await.unwrap();
        bench.host.apply(HostOp::CloseVxlan).await.unwrap();
        bench.host.apply(close()).await.unwrap();
        assert_eq!(bench.names().await, bench.before);
        while let Ok(event) = bench.events.try_recv() {
            assert!(!matches!(event, HostEvent::OffloadLost { .. }), "we did it ourselves");
        }
    });
}

#[test]
fn a_neighbour_over_ipv6_has_devices_of_its_own_on_the_same_bridge() {
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Tap).await;
        let Some(_capture) = bench.carrying().await else { return };
        bench.host.apply(peers(&[(9, "192.0.2.9"), (8, "2001:db8::8")])).await.unwrap();
        bench.host.apply(carry(1, "192.0.2.9")).await.unwrap();
        bench.host.apply(carry(2, "2001:db8::8")).await.unwrap();
        bench.carries("rnx8312a4", &[(1, "192.0.2.9")]).await;
        bench.carries("rny8312a4", &[(2, "2001:db8::8")]).await;
        // The same peer by another family.
        bench.host.apply(carry(1, "2001:db8::8")).await.unwrap();
        bench.carries("rnx8312a4", &[]).await;
        bench.carries("rny8312a4", &[(1, "2001:db8::8"), (2, "2001:db8::8")]).await;
        bench.host.apply(HostOp::CloseVxlan).await.unwrap();
        assert!(bench.names().await.iter().all(|name| !name.starts_with("rnx") && !name.starts_with("rny")));
    });
}

#[test]
fn what_others_change_is_put_back_and_what_they_take_is_told() {
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Tap).await;
        let Some(_capture) = bench.carrying().await else { return };
        let netlink = bench.host.shared.netlink.clone();
        bench.host.apply(peers(&[(9, "192.0.2.9")])).await.unwrap();
        bench.host.apply(carry(1, "192.0.2.9")).await.unwrap();
        bench.carries("rnx8312a4", &[(1, "192.0.2.9")]).await;
        let index = bench.link("rnx8312a4").await.index;
        assert!(netlink.send_nowhere(index, mac(1)).await.unwrap() && netlink.unstick(index, mac(1)).await.unwrap());
        bench.carries("rnx8312a4", &[(1, "192.0.2.9")]).await;
        netlink.send_to(index, mac(66), to("192.0.2.9")).await.unwrap();
        netlink.send_to(index, mac(1), to("192.0.2.66")).await.unwrap();
        bench.carries("rnx8312a4", &[(1, "192.0.2.9")]).await;
        netlink.set_port("rnx8312a4", PortRules { isolated: false, learning: true, flood: true }).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        while netlink.port("rnx8312a4").await.unwrap() != Some(GUARD) {
            assert!(Instant::now() < deadline);
            sleep(Duration::from_millis(10)).await;
        }
        netlink.delete("rnx8312a4").await.unwrap();
        assert_eq!(bench.lost().await, Some(id()));
        assert_eq!(bench.host.apply(offload()).await, Ok(HostAnswer::Offloaded(Vec::new())));
        bench.carries("rnx8312a4", &[]).await;
        netlink.delete("rnxffffff").await.unwrap();
        assert_eq!(bench.lost().await, None);
        assert_eq!(bench.host.apply(OPEN).await, Ok(HostAnswer::Vxlan(Vec::new())));
    });
}

#[test]
fn who_has_the_port_is_named() {
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Tap).await;
        if bench.carrying().await.is_none() {
            return;
        }
        bench.host.apply(HostOp::CloseVxlan).await.unwrap();
        let netlink = bench.host.shared.netlink.clone();
        netlink.set_up("lo").await.unwrap();
        let device = Vxlan { vni: 42, port: PORT, ipv6: false, local: None, whole: false, learns: true };
        netlink.add_vxlan("flannel.1", &device, 1450).await.unwrap();
        let why = bench.host.apply(OPEN).await.unwrap_err();
        assert!(["6784", "flannel.1", "VNI 42", "--port"].iter().all(|word| why.contains(word)), "{why}");
        netlink.delete("flannel.1").await.unwrap();
        let socket = UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
        let why = bench.host.apply(OPEN).await.unwrap_err();
        let us = format!("process {}", std::process::id());
        assert!(["6784", us.as_str(), "--port"].iter().all(|word| why.contains(word)), "{why}");
        assert!(bench.names().await.iter().all(|name| !name.starts_with("rnx")), "nothing is left");
        drop(socket);
        bench.host.apply(OPEN).await.unwrap();
        // One that comes later is noticed.
        netlink.add_vxlan("flannel.1", &device, 1450).await.unwrap();
        netlink.set_up("flannel.1").await.unwrap();
        assert_eq!(bench.lost().await, None);
        assert!(bench.host.apply(OPEN).await.unwrap_err().contains("flannel.1"));
    });
}

#[test]
fn the_kernel_is_asked_while_our_own_sockets_have_the_port_and_takes_it_over_from_them() {
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Tap).await;
        if bench.carrying().await.is_none() {
            return;
        }
        bench.host.apply(HostOp::CloseVxlan).await.unwrap();
        let netlink = bench.host.shared.netlink.clone();
        let (ask, own) = (HostOp::TryVxlan { port: PORT }, HostOp::OpenVxlan { port: PORT, engine: Engine::Userspace });
        bench.host.apply(own).await.unwrap();
        let opened = loop {
            if let HostEvent::DoorOpened { sockets, .. } = bench.event().await {
                break sockets;
            }
        };
        let before = bench.names().await;
        assert_eq!(bench.host.apply(ask.clone()).await, Ok(HostAnswer::Done));
        assert_eq!(bench.names().await, before);
        let device = Vxlan { vni: 42, port: PORT, ipv6: false, local: None, whole: false, learns: true };
        netlink.add_vxlan("flannel.1", &device, 1450).await.unwrap();
        assert!(bench.host.apply(ask).await.unwrap_err().contains("flannel.1"));
        netlink.delete("flannel.1").await.unwrap();
        while !matches!(bench.event().await, HostEvent::VxlanGone) {}
        // The data path closes them a moment later.
        let closing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(opened);
        });
        bench.host.apply(HostOp::CloseVxlan).await.unwrap();
        assert_eq!(bench.host.apply(OPEN).await, Ok(HostAnswer::Vxlan(Vec::new())));
        closing.join().unwrap();
    });
}

fn attachment(key: &str, place: &Place, interfaces: &[Interface]) -> Attachment {
    let (published, interfaces) = (Vec::new(), interfaces.to_vec());
    Attachment { key: key.into(), name: None, place: place.clone(), interfaces, unguarded: false, published }
}

#[test]
fn what_a_killed_router_left_is_taken_over_where_it_is_right_and_nothing_is_unplugged() {
    in_fresh_namespace(async || {
        let mut dead = Bench::new(CaptureKind::Tap).await;
        let Some(capture) = dead.carrying().await else { return };
        let (inside, other) = (Netns::create().unwrap(), Netns::create().unwrap());
        let (right, wrong) = (interface("rnet0", 1, &["10.2.1.1/24"]), interface("rnet0", 2, &["10.2.1.2/24"]));
        let host = Interface { name: "rnb8312a4".into(), ..interface("rnet0", 7, &["10.2.1.254/24"]) };
        dead.host.apply(plug(HOST_KEY, &Place::Host, std::slice::from_ref(&host))).await.unwrap();
        dead.host.apply(plug("web", &place(&inside), std::slice::from_ref(&right))).await.unwrap();
        dead.host.apply(plug("db", &place(&other), std::slice::from_ref(&wrong))).await.unwrap();
        dead.host.apply(peers(&[(9, "192.0.2.9")])).await.unwrap();
        dead.host.apply(carry(1, "192.0.2.9")).await.unwrap();
        let before: Vec<(String, u32)> = dead.links().await.into_iter().map(|link| (link.name, link.index)).collect();
        let Bench { host: router, events, .. } = dead;
        drop((router, events, capture));

        let mut next = Bench::new(CaptureKind::Tap).await;
        // Remembered with another MAC, so its pair is not right.
        let other_mac = Interface { mac: mac(77), ..wrong };
        let state = [
            attachment(HOST_KEY, &Place::Host, std::slice::from_ref(&host)),
            attachment("web", &place(&inside), std::slice::from_ref(&right)),
            attachment("db", &place(&other), std::slice::from_ref(&other_mac)),
        ];
        let mut keep = Keep::of(&state, true);
        keep.devices.insert("rnv00000000".into());
        next.host.shared.netlink.add_bridge("rnb000001", 1500).await.unwrap();
        let pair = Veth { name: "rnv00000000", peer: "left0", inside: None, mac: None, mtu: 1500 };
        next.host.shared.netlink.add_veth(pair).await.unwrap();
        assert_eq!(next.host.sweep(&keep).await.unwrap(), ["rnb000001"]);
        let peer = VxlanPeer { peer: crate::types::PeerName(mac(9)), address: to("192.0.2.9") };
        assert_eq!(next.host.apply(OPEN).await, Ok(HostAnswer::Vxlan(vec![peer])));
        let _capture = next.open().await;
        assert_eq!(next.host.apply(offload()).await, Ok(HostAnswer::Offloaded(vec![(mac(1), to("192.0.2.9"))])));
        let has_address = async |next: &Bench| {
            let index = next.link("rnb8312a4").await.index;
            let all = next.host.shared.netlink.addresses().await.unwrap();
            all.iter().any(|(on, address)| *on == index && address.to_string() == "10.2.1.254/24")
        };
        assert!(has_address(&next).await);
        next.host.apply(plug(HOST_KEY, &Place::Host, std::slice::from_ref(&host))).await.unwrap();
        next.host.apply(plug("web", &place(&inside), std::slice::from_ref(&right))).await.unwrap();
        next.host.apply(plug("db", &place(&other), std::slice::from_ref(&other_mac))).await.unwrap();
        next.host.apply(HostOp::SweepRest).await.unwrap();
        next.carries("rnx8312a4", &[(1, "192.0.2.9")]).await;
        assert!(has_address(&next).await);
        let after: HashMap<String, u32> = next.links().await.into_iter().map(|link| (link.name, link.index)).collect();
        let (db, tap) = (names::veth("db", "rnet0"), "rnt8312a4".to_string());
        for (name, index) in before {
            let is_same = after.get(&name) == Some(&index);
            assert_eq!(is_same, name != db && name != tap, "{name}");
        }
        assert!(!after.contains_key("rnv00000000"), "nobody took it over");
        for (key, interface, namespace) in [("web", &right, &inside), ("db", &other_mac, &other)] {
            let link = Netlink::open_in(namespace).unwrap().link("rnet0").await.unwrap().expect("plugged");
            assert!(link.up && link.mac == Some(interface.mac), "{link:?}");
            next.host.apply(unplug(key, &place(namespace), std::slice::from_ref(interface))).await.unwrap();
        }
    });
}

#[test]
fn what_is_remembered_of_nothing_is_swept_and_so_is_an_engine_that_is_not_wanted() {
    in_fresh_namespace(async || {
        let mut dead = Bench::new(CaptureKind::Tap).await;
        let Some(capture) = dead.carrying().await else { return };
        let Bench { before, host, events, .. } = dead;
        drop((host, events, capture));
        let mut next = Bench::new(CaptureKind::Tap).await;
        let state = [attachment("web", &Place::Pid(1), &[interface("rnet0", 1, &["10.2.1.1/24"])])];
        next.host.sweep(&Keep::of(&state, false)).await.unwrap();
        let mut left = before.clone();
        left.push("rnb8312a4".into());
        left.sort();
        assert_eq!(next.names().await, left);
        next.host.apply(HostOp::SweepRest).await.unwrap();
        assert_eq!(next.names().await, before);
        assert!(crate::io::firewall::chains().unwrap().is_empty());
    });
}
