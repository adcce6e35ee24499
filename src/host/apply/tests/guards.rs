//! What is forged by an attachment, and what the host itself hears: the packet filter before the bridge.

use super::*;

/// An Ethernet frame to everybody with a UDP packet, and `body` by which it is known.
fn broadcast(mac: Mac, source: &str, body: &[u8]) -> Vec<u8> {
    udp_frame((mac, source), (Mac::BROADCAST, "10.2.1.255:5000".parse().unwrap()), body)
}

fn send_in(namespace: &Netns, device: &str, frame: &[u8]) {
    namespace.within(|| packet::send_frame(device, frame)).unwrap();
}

#[test]
fn what_is_forged_comes_to_the_capture_port_and_to_no_neighbour() {
    for kind in [CaptureKind::Tap, CaptureKind::Packet, CaptureKind::Pcap] {
        in_fresh_namespace(async || {
            let mut bench = Bench::new(kind).await;
            let mut capture = bench.open().await;
            let [evil, web] = [Netns::create().unwrap(), Netns::create().unwrap()];
            let (own, other) = (interface("rnet0", 1, &["10.2.1.1/24"]), interface("rnet0", 2, &["10.2.1.2/24"]));
            bench.host.apply(plug("evil", &place(&evil), std::slice::from_ref(&own))).await.unwrap();
            bench.host.apply(plug("web", &place(&web), std::slice::from_ref(&other))).await.unwrap();
            let heard = udp_in(&web, "0.0.0.0:5000");
            heard.set_broadcast(true).unwrap();
            let tagged = |frame: Vec<u8>| [&frame[..12], &[0x81, 0, 0xe0, 0], &frame[12..]].concat();
            let forged = [
                ("its MAC", broadcast(other.mac, "10.2.1.1", b"its MAC")),
                ("its address", broadcast(own.mac, "10.2.1.2", b"its address")),
                ("nobody's address", broadcast(own.mac, "0.0.0.0", b"nobody's address")),
                ("a tag", tagged(broadcast(own.mac, "10.2.1.1", b"a tag"))),
            ];
            for (what, frame) in &forged {
                send_in(&evil, "rnet0", frame);
                let frame = captured(&mut capture, |frame| contains(frame, what.as_bytes())).await;
                assert_ne!(frame[6..12], other.mac.0, "the data plane would take it for true");
            }
            send_in(&evil, "rnet0", &broadcast(own.mac, "10.2.1.1", b"the truth"));
            let mut buffer = [0; 2048];
            let (length, _) = heard.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"the truth", "forged frames came first");
            captured(&mut capture, |frame| contains(frame, b"the truth")).await;

            // Others flush everything, and it is put back.
            std::process::Command::new("nft").args(["flush", "ruleset"]).status().unwrap();
            let deadline = Instant::now() + PATIENCE;
            while crate::io::firewall::chains().unwrap().len() < 3 {
                assert!(Instant::now() < deadline, "the guard is not put back");
                sleep(Duration::from_millis(10)).await;
            }
            send_in(&evil, "rnet0", &broadcast(own.mac, "10.2.1.2", b"again"));
            send_in(&evil, "rnet0", &broadcast(own.mac, "10.2.1.1", b"still the truth"));
            let (length, _) = heard.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"still the truth");

            bench.host.apply(unplug("evil", &place(&evil), std::slice::from_ref(&own))).await.unwrap();
            bench.host.apply(unplug("web", &place(&web), std::slice::from_ref(&other))).await.unwrap();
            assert_eq!(crate::io::firewall::chains().unwrap().len(), 1, "that of the bridge");
            bench.host.apply(close()).await.unwrap();
            assert_eq!(crate::io::firewall::chains().unwrap(), []);
            assert_eq!(crate::io::firewall::list(&["ruleset"]).await.unwrap(), "");
        });
    }
}

#[test]
fn a_network_leads_to_the_host_only_while_it_is_exposed() {
    in_fresh_namespace(async || {
        let mut bench = Bench::new(CaptureKind::Tap).await;
        let _capture = bench.open().await;
        bench.host.shared.netlink.set_up("lo").await.unwrap();
        let evil = Netns::create().unwrap();
        let own = interface("rnet0", 1, &["10.2.1.1/24"]);
        bench.host.apply(plug("evil", &place(&evil), std::slice::from_ref(&own))).await.unwrap();
        let host = UdpSocket::bind("0.0.0.0:5000").unwrap();
        host.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let bridge = bench.link("rnb8312a4").await.mac.unwrap();
        let knock = |to: &str, body: &[u8]| {
            let to = (bridge, format!("{to}:5000").parse().unwrap());
            send_in(&evil, "rnet0", &udp_frame((own.mac, "10.2.1.1"), to, body));
        };
        let exposed = [Interface { mac: bridge, ..interface("rnb8312a4", 9, &["10.2.1.254/24"]) }];
        let mut buffer = [0; 64];
        knock("10.2.1.254", b"shut");
        send_in(&evil, "rnet0", &broadcast(own.mac, "10.2.1.1", b"shut"));
        assert!(host.recv_from(&mut buffer).is_err());
        let expose = HostOp::Plug {
            key: "host".into(),
            place: Place::Host,
            interfaces: exposed.to_vec(),
            mtu: 1410,
            guarded: true,
        };
        bench.host.apply(expose).await.unwrap();
        knock("10.2.1.254", b"exposed");
        let (length, _) = host.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"exposed");
        bench.host.apply(unplug("host", &Place::Host, &exposed)).await.unwrap();
        knock("10.2.1.254", b"hidden");
        assert!(host.recv_from(&mut buffer).is_err());
    });
}

#[test]
fn who_lacks_a_packet_filter_is_told_and_who_has_one_refuses_what_it_cannot_guard() {
    in_fresh_namespace(async || {
        // There is no such kind of chain, and the kernel says it as one without ours does.
        let text = || guard::bridge("lo").replace("type filter", "type nat");
        let lacking = Fences::default();
        assert_eq!(lacking.set("lo", text()).await, Ok(()));
        assert_eq!(lacking.set("lo", guard::bridge("lo")).await, Ok(()));
        assert_eq!(crate::io::firewall::chains().unwrap(), [], "known not to work, not tried again");

        // Later it can: all that was asked for is set, or nothing.
        assert!(lacking.try_again().await.is_ok() && !lacking.are_lacking().await);
        assert_eq!(crate::io::firewall::chains().unwrap().len(), 1);
        lacking.clear("lo").await.unwrap();
        let still = Fences::default();
        still.set("lo", text()).await.unwrap();
        assert!(still.try_again().await.unwrap_err().starts_with("it needs a packet filter on devices"));
        assert!(still.are_lacking().await && still.clear("lo").await.is_ok());
        assert_eq!(crate::io::firewall::chains().unwrap(), []);

        let having = Fences::default();
        assert!(having.set("lo", "no rule".into()).await.unwrap_err().starts_with("guarding lo: nft: "));
        having.set("lo", guard::bridge("lo")).await.unwrap();
        assert!(having.set("rnv01234567", text()).await.unwrap_err().contains("guarding rnv01234567: nft: "));
        having.clear("lo").await.unwrap();
        assert_eq!(crate::io::firewall::chains().unwrap(), []);
    });
}
