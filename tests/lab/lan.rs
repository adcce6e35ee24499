//! Lines with more than two ends, and translators between them.

use crate::room::{Host, Room, SOON};
use crate::wait::until;

/// Asks the kernel for what it tracks (ctnetlink: a dump of IPv4) and counts what was first sent to a port by UDP.
const MAPPINGS: &str = "
import socket, struct, sys
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
s.send(struct.pack('=IHHIIBBH', 20, 1 << 8 | 1, 0x301, 1, 0, 2, 0, 0))
def inner(data, *kinds):
    for kind in kinds:
        at = 0
        while at + 4 <= len(data):
            length, found = struct.unpack_from('=HH', data, at)
            if found & 0x3fff == kind: break
            at += max(length, 4) + 3 & ~3
        else: return b''
        data = data[at + 4:at + length]
    return data
count, more = 0, True
while more:
    data = s.recv(1 << 17)
    while data:
        length, kind = struct.unpack_from('=IH', data)
        if kind == 2: sys.exit('refused')
        if kind == 3: more = False
        # CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, then CTA_PROTO_NUM and CTA_PROTO_DST_PORT
        first = lambda last: inner(data[20:length], 1, 2, last)
        if kind == 256 and first(1) == b'\\x11' and first(3) == struct.pack('!H', int(sys.argv[1])): count += 1
        data = data[length + 3 & ~3:]
print(count)
";

/// A switch with hosts on it: `<prefix>.1` and on, in the order in which they were plugged in.
pub struct Lan {
    switch: Host,
    prefix: String,
    ends: std::cell::Cell<u8>,
}

impl Lan {
    /// A switch without hosts; `prefix` is of IPv4 (`10.201.0`) or of IPv6 (`fd00:201:`).
    pub fn new(room: &Room, prefix: &str) -> Lan {
        let switch = room.host(&format!("lan-{}", prefix.trim_end_matches(':').replace(['.', ':'], "-")));
        switch.sh("ip link add br0 type bridge && ip link set br0 up");
        Lan { switch, prefix: prefix.into(), ends: std::cell::Cell::new(0) }
    }

    /// Plugs a host in, by an interface of that name; its address there.
    pub fn plug(&self, host: &Host, interface: &str) -> String {
        let end = self.ends.get() + 1;
        self.ends.set(end);
        let (v6, pid) = (self.prefix.contains(':'), host.inside);
        let (address, length) =
            if v6 { (format!("{}:{end:x}", self.prefix), 64) } else { (format!("{}.{end}", self.prefix), 24) };
        self.switch.sh(&format!(
            "ip link add e{end} type veth peer name {interface} netns {pid} && ip link set e{end} master br0 up"
        ));
        let nodad = if v6 { "nodad" } else { "" };
        host.sh(&format!("ip address add {address}/{length} dev {interface} {nodad} && ip link set {interface} up"));
        address
    }

    /// The line of the host that was plugged in as that one goes dead; its interface does not notice.
    pub fn cut(&self, end: u8) {
        self.switch.sh(&format!("ip link set e{end} nomaster"));
    }
}

/// A host behind a translator of its own: `10.202.<n>.2`, by way of a machine that is plugged into `lan`.
pub struct Translated {
    pub host: Host,
    /// The translator.
    pub nat: Host,
}

impl Translated {
    /// `how`: nothing, or `random` ports, for nftables' masquerade.
    pub fn new(room: &Room, lan: &Lan, (name, n): (&str, u8), how: &str) -> Translated {
        let (host, nat) = (room.host(name), room.host(&format!("nat-{name}")));
        lan.plug(&nat, "out");
        let pid = host.inside;
        nat.sh(&format!("ip link add in type veth peer name eth0 netns {pid} && ip link set in up"));
        nat.sh(&format!("ip address add 10.202.{n}.1/24 dev in && echo 1 >/proc/sys/net/ipv4/ip_forward"));
        host.sh(&format!("ip address add 10.202.{n}.2/24 dev eth0 && ip link set eth0 up"));
        host.sh(&format!("ip route add default via 10.202.{n}.1"));
        // As such machines do: what nobody asked for is dropped without a word.
        nat.sh(&format!(
            "nft add table ip nat && nft 'add chain ip nat post {{ type nat hook postrouting priority 100; }}' && \
             nft add rule ip nat post oifname out masquerade {how} && \
             nft 'add chain ip nat filter {{ type filter hook input priority 0; }}' && \
             nft add rule ip nat filter iifname out ip protocol '{{ tcp, udp }}' drop"
        ));
        // Mappings of a few seconds instead of minutes.
        nat.sh("cd /proc/sys/net/netfilter && for f in nf_conntrack_udp_timeout nf_conntrack_udp_timeout_stream; do \
             [ ! -w $f ] || echo 5 >$f; done");
        Translated { host, nat }
    }

    /// How many mappings of UDP to this port the translator remembers.
    pub fn remembers(&self, port: u16) -> usize {
        self.nat.run(&["python3", "-c", MAPPINGS, &port.to_string()]).ok().trim().parse().unwrap()
    }

    /// Waits until nothing that was last used when this was called is remembered any more.
    #[track_caller]
    pub fn outlasts_mappings(&self, outside: &str) {
        const CANARY: u16 = 4321;
        let say = "import socket,sys; to = (sys.argv[1], int(sys.argv[2]))\n\
                   socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', to)";
        self.host.run(&["python3", "-c", say, outside, &CANARY.to_string()]).ok();
        until(SOON, "a datagram is mapped", || self.remembers(CANARY) == 1);
        until(4 * SOON, "it is forgotten", || self.remembers(CANARY) == 0);
    }

    /// Takes another address outside: the kernel forgets all mappings of the old one.
    pub fn moves_to(&self, old: &str, new: &str) {
        self.nat.sh(&format!("ip address del {old}/24 dev out && ip address add {new}/24 dev out"));
    }
}
