//! Who is on a network beside containers of the mesh, on segments that are not rnet's; and what everybody on one may expect.

use crate::room::{Container, Host, Outcome, Process, SOON};
use crate::wait::{throughout, until};
use std::time::Duration;

/// A namespace `name` of `host`, with these addresses (IPv4 and IPv6) at an interface whose other end is `<name>0` of the host; `plug`,
/// a shell script, puts that where it belongs.
pub fn machine(host: &Host, name: &str, [four, six]: [&str; 2], plug: &str) {
    host.sh(&format!(
        "ip netns add {name} && ip link add {name}0 type veth peer name eth0 netns {name} && ip link set {name}0 up && {plug}
        ip -n {name} link set lo up && ip netns exec {name} sysctl -qw net.ipv6.conf.eth0.accept_dad=0
        ip -n {name} address add {four}/24 dev eth0 && ip -n {name} address add {six}/64 dev eth0 nodad
        ip -n {name} link set eth0 up"
    ));
}

/// Somebody on the network: in a container, or in a namespace of a host that is no member.
pub enum Place<'h> {
    Here(&'h Container<'h>),
    Far(&'h Host, &'static str),
}

impl Place<'_> {
    pub fn run(&self, argv: &[&str]) -> Outcome {
        match self {
            Place::Here(container) => container.run(argv),
            Place::Far(host, name) => host.run(&[&["ip", "netns", "exec", name], argv].concat()),
        }
    }

    pub fn start(&self, argv: &[&str]) -> Process {
        match self {
            Place::Here(container) => container.start(argv),
            Place::Far(host, name) => host.start(&[&["ip", "netns", "exec", name], argv].concat()),
        }
    }

    /// Waits for an answer from `address`.
    #[track_caller]
    pub fn reaches(&self, address: &str) {
        let pings = || self.run(&["ping", "-nq", "-c1", "-W0.5", address]).code == 0;
        until(SOON, &format!("{address} answers"), pings);
    }
}

const SERVE: &str = "import socket,sys,hashlib
s=socket.create_server((sys.argv[1],7000),family=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
print('ready',flush=True);c,_=s.accept();h=hashlib.sha256()
while b:=c.recv(65536): h.update(b)
c.sendall(h.hexdigest().encode())";

const SEND: &str = "import socket,sys,random,hashlib
d=random.Random(7).randbytes(int(sys.argv[2]))
c=socket.create_connection((sys.argv[1],7000),timeout=20);c.sendall(d);c.shutdown(1)
print('same' if c.recv(99).decode()==hashlib.sha256(d).hexdigest() else 'other')";

/// Some megabytes of TCP arrive as they were sent.
#[track_caller]
pub fn bulk(from: &Place<'_>, to: &Place<'_>, address: &str) {
    let server = to.start(&["python3", "-c", SERVE, address]);
    until(SOON, "the server listens", || server.stdout().contains("ready"));
    assert_eq!(from.run(&["python3", "-c", SEND, address, "8000000"]).ok().trim(), "same");
}

const LISTEN: &str = "import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind(('',9000));print('ready',flush=True)
while True: print(s.recv(99).decode(),flush=True)";

const SHOUT: &str = "import socket,sys,time
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.setsockopt(socket.SOL_SOCKET,socket.SO_BROADCAST,1)
for w in sys.argv[1:]: s.sendto(w.encode(),('10.2.1.255',9000));time.sleep(0.05)";

/// What each says to all is heard by all others, once.
#[track_caller]
pub fn broadcasts_are_heard_once(places: &[Place<'_>]) {
    for (at, shouter) in places.iter().enumerate() {
        let others = places.iter().enumerate().filter(|(other, _)| *other != at);
        let listeners: Vec<Process> = others.map(|(_, place)| place.start(&["python3", "-c", LISTEN])).collect();
        until(SOON, "all listen", || listeners.iter().all(|listener| listener.stdout().contains("ready")));
        shouter.run(&["python3", "-c", SHOUT, "one", "two", "three"]).ok();
        let heard =
            |listener: &Process| listener.stdout().lines().skip(1).collect::<Vec<_>>() == ["one", "two", "three"];
        until(SOON, "all have heard it", || listeners.iter().all(heard));
        throughout(Duration::from_millis(200), "nobody hears it twice", || listeners.iter().all(heard));
    }
}
