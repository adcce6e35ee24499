use super::*;
use crate::crypto::seal::Cipher;
use crate::node::command::{Interface, Place};
use crate::node::status::{FramingStatus, NetworkStatus, PathStatus, PeerLink, Traffic};
use crate::types::{Mac, PublicKey};

fn name(last: u8) -> PeerName {
    PeerName(Mac([0x7e, 0x21, 0x4a, 0x70, 0x2f, last]))
}

fn connection(address: &str, outbound: bool, state: ConnectionState) -> Connection {
    let address = address.to_string();
    let (peer, info, retry_in, encrypted, path) = (None, String::new(), None, true, None);
    Connection { address, outbound, state, peer, info, retry_in, encrypted, path, via: None }
}

fn sample_connections() -> Vec<Connection> {
    let path = PathStatus {
        framing: Framing::Udp,
        framing_for: 12,
        why_not_better: String::new(),
        endpoint: "192.168.48.12:6783".parse().unwrap(),
        rtt_us: 412,
        jitter_us: 31,
        loss_out_percent: 4.7,
        loss_in_percent: 0.0,
        arrived: 90_000,
        lost: 3,
        cost_us: 121_000,
        mtu: 1472,
        cipher: Some(Cipher::Aes256Gcm),
        epoch: 3,
        up_for: 192,
    };
    let mut up = connection("192.168.48.12:33866", false, ConnectionState::Established);
    (up.peer, up.path) = (Some((name(0x45), Nickname::new("host2"))), Some(path.clone()));
    let mut direct = connection("192.168.48.17:6783", true, ConnectionState::Direct);
    (direct.peer, direct.path) = (Some((name(0x47), Nickname::new("host4"))), Some(path));
    let mut relayed = connection("-", true, ConnectionState::Relayed);
    relayed.peer = Some((name(0x48), Nickname::new("host5")));
    relayed.via = Some((name(0x45), Nickname::new("host2")));
    (relayed.info, relayed.retry_in) = ("no answer over UDP from its address".into(), Some(15));
    let mut pending = connection("[fd00::7]:6783", true, ConnectionState::Pending);
    pending.peer = Some((name(0x46), Nickname::new("host3")));
    let mut failed = connection("192.168.48.15:6783", true, ConnectionState::Failed);
    (failed.info, failed.retry_in) = ("wrong password\u{1b}[2J".into(), Some(61));
    vec![up, pending, direct, relayed, failed, connection("host9", true, ConnectionState::Connecting)]
}

pub(super) fn sample() -> Status {
    let link = PeerLink {
        name: name(0x45),
        nickname: Nickname::new("host2"),
        outbound: true,
        address: "192.168.48.12:6783".parse().unwrap(),
        established: true,
        rtt_us: 0,
        cost: 120_000,
        mtu: 1472,
    };
    let peer = |last, nickname: &str, reachable: bool, links| Peer {
        name: name(last),
        nickname: Nickname::new(nickname),
        short: last.into(),
        version: 7,
        via: reachable.then(|| name(0x46)),
        reachable,
        cost_us: reachable.then_some(20_000),
        link_cost_us: reachable.then_some(130_000),
        networks: vec![],
        links,
    };
    let network = "10.2.1.0/24".parse().unwrap();
    let interface = Interface {
        name: "rnet0".into(),
        network,
        id: network.id(),
        mac: Mac([0x02, 0, 0, 0, 0, 1]),
        addresses: vec!["10.2.1.1/24".parse().unwrap(), "fd00:1::1/64".parse().unwrap()],
        gateway: None,
        masquerade: false,
    };
    let attachment = |key: &str, name: Option<&str>, interfaces| Attachment {
        key: key.into(),
        name: name.map(str::to_string),
        place: Place::Pid(7),
        interfaces,
        unguarded: false,
        published: vec![],
    };
    Status {
        version: "0.1.0".into(),
        name: name(0x44),
        nickname: Nickname::new("host1"),
        public_key: PublicKey([0xa7; 32]),
        port: 6783,
        encrypted: true,
        discovery: true,
        allowed: None,
        mtu: 1418,
        mtu_auto: true,
        mtu_limit: Some(PathLimit {
            ends: [(name(0x44), Nickname::new("host1")), (name(0x45), Nickname::new("host2"))],
            mtu: 1472,
        }),
        framing: FramingStatus { wanted: "auto".into(), info: "all is encrypted".into(), ..FramingStatus::default() },
        datapath: DatapathStatus {
            capture: "tap".into(),
            injection: "tap".into(),
            threads: 2,
            checksum: true,
            tcp_super_frames: true,
            sparse_lane: true,
            udp_gso: true,
            udp_gro: true,
            separate_probes: true,
            ..DatapathStatus::default()
        },
        uptime: 3700,
        targets: vec!["192.168.48.15".parse().unwrap(), "host9".parse().unwrap()],
        connections: sample_connections(),
        peers: vec![
            peer(0x44, "host1", false, vec![link]),
            peer(0x45, "host2", true, vec![]),
            peer(0x46, "h3", false, vec![]),
        ],
        networks: vec![NetworkStatus {
            network,
            id: network.id(),
            open: true,
            attachments: 1,
            addresses: 2,
            vteps: vec![],
            uplinks: vec![],
            peers: vec![name(0x44), name(0x99)],
        }],
        ipam: None,
        letters_lost: 0,
        nicknames: Default::default(),
        attachments: vec![
            attachment("pid:4711", Some("web"), vec![interface.clone()]),
            attachment(&"5c".repeat(32), None, vec![Interface { addresses: vec![], ..interface }]),
            attachment("netns:blue", None, vec![]),
        ],
        vteps: vec![],
        uplinks: vec![],
        macs: vec![],
        drops: vec![("replay".into(), 3), ("guard-mac".into(), 1)],
        traffic: Traffic { from_bridge: Count { frames: 12, bytes: 1400 }, ..Traffic::default() },
    }
}

#[test]
fn renders_the_summary() {
    insta::assert_snapshot!(text(&sample(), View::Summary).trim_start(), @r"
    Version: 0.1.0

            Service: router
               Name: 7e:21:4a:70:2f:44(host1)
         Encryption: enabled
      PeerDiscovery: enabled
          AllowList: none
               Port: 6783
                MTU: 1418 (auto: the path between 7e:21:4a:70:2f:44(host1) and 7e:21:4a:70:2f:45(host2) takes 1472 bytes)
            Framing: auto (udp; all is encrypted)
          Data path: tap, 2 threads, offloads: checksum tso sparse-lane gso gro, without: uso fair-queues
             Uptime: 1h01m
            Targets: 2
        Connections: 6 (1 established, 1 pending, 1 direct, 1 relayed, 1 failed, 1 connecting)
              Peers: 3 (with 1 established connection)
           Networks: 1 (1 open here)
        Attachments: 3
        From bridge: 12 frames, 1400 bytes
          To bridge: 0 frames, 0 bytes
           From net: 0 frames, 0 bytes
             To net: 0 frames, 0 bytes
              Drops: replay=3 guard-mac=1
    ");
}

#[test]
fn warns_of_a_mesh_without_password() {
    let text = text(&Status { encrypted: false, ..sample() }, View::Summary);
    assert!(
        text.ends_with("\nWarning: no password: traffic is not encrypted, and whoever reaches port 6783 can join\n")
    );
}

#[test]
fn renders_connections_aligned_and_without_terminal_escapes() {
    insta::assert_snapshot!(text(&sample(), View::Connections), @r"
    <- 192.168.48.12:33866   established encrypted   udp    7e:21:4a:70:2f:45(host2) rtt=0.41ms jitter=0.03ms loss=5%-out,0%-in mtu=1472 cipher=aes-256-gcm up=3m12s
    -> [fd00::7]:6783        pending     encrypted   none   7e:21:4a:70:2f:46(host3)
    -> 192.168.48.17:6783    direct      encrypted   udp    7e:21:4a:70:2f:47(host4) rtt=0.41ms jitter=0.03ms loss=5%-out,0%-in mtu=1472 cipher=aes-256-gcm up=3m12s
    -> -                     relayed     encrypted   none   7e:21:4a:70:2f:48(host5) by way of 7e:21:4a:70:2f:45(host2) no answer over UDP from its address, retry: in 15s
    -> 192.168.48.15:6783    failed      wrong password?[2J, retry: in 1m01s
    -> host9                 connecting
    ");
}

#[test]
fn renders_peers_targets_and_networks() {
    let all = [View::Peers, View::Targets, View::Networks].map(|view| text(&sample(), view));
    insta::assert_snapshot!(all.join("--\n"), @r"
    7e:21:4a:70:2f:44(host1)
       -> 192.168.48.12:6783    7e:21:4a:70:2f:45(host2)              established cost=120.00ms
    7e:21:4a:70:2f:45(host2) - by way of 7e:21:4a:70:2f:46(h3), cost=20.00ms; directly it would be 130.00ms
    7e:21:4a:70:2f:46(h3) - unreachable!
    --
    192.168.48.15
    host9
    --
    10.2.1.0/24 id=8312a4 open 1 attachment 2 addresses 7e:21:4a:70:2f:44(host1) 7e:21:4a:70:2f:99
    ");
}

#[test]
fn renders_attachments() {
    insta::assert_snapshot!(attachments(&sample().attachments), @r"
    web          02:00:00:00:00:01 10.2.1.1/24 fd00:1::1/64
    5c5c5c5c5c5c 02:00:00:00:00:01
    netns:blue
    ");
}

#[test]
fn an_attachment_is_meant_by_name_key_or_start_of_its_container_id() {
    let all = sample().attachments;
    assert!(is_meant(&all[0], "web") && is_meant(&all[0], "pid:4711") && !is_meant(&all[0], "pid:"));
    assert!(is_meant(&all[1], "5c5c") && !is_meant(&all[1], "5c5"));
}

#[test]
fn json_parses_back_to_the_same_status() {
    let text = json(&sample(), View::Summary).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), sample());
    assert!(json(&sample(), View::Targets).unwrap().starts_with("[\n"));
}

#[test]
fn durations_have_two_units_at_most() {
    let texts: Vec<String> = [0, 59, 60, 3599, 3600, 86_399, 86_400, 200_000].map(duration).into();
    assert_eq!(texts, ["0s", "59s", "1m00s", "59m59s", "1h00m", "23h59m", "1d00h", "2d07h"]);
}
