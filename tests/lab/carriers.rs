//! What tests of VXLAN between peers have in common: two hosts without a password, by what frames go between them, what blocks it.

use crate::room::{Container, Host, Process, Room, SOON};
use crate::wait::until;
use rnet::node::status::{Connection, ConnectionState};
use rnet::types::Framing;

/// What a router is launched with for either engine.
pub const KERNEL: [&str; 2] = ["--framing", "kernel"];
pub const BY_VXLAN: [&str; 2] = ["--framing", "vxlan"];

/// Two hosts that are linked, launched with these options.
pub fn two(options: [&[&str]; 2]) -> (Room, [Host; 2]) {
    let room = Room::new();
    let hosts = room.chain(["a", "b"]);
    let [a, b] = &hosts;
    a.launch_with(options[0], &[]).ok();
    b.launch_with(options[1], &[&a.toward(b)]).ok();
    b.linked(1);
    (room, hosts)
}

/// 10.2.1.1 and 10.2.1.2, which reach each other.
pub fn attach<'h>([a, b]: &'h [Host; 2]) -> [Container<'h>; 2] {
    let pair = [a.container(&["10.2.1.1/24"]), b.container(&["10.2.1.2/24"])];
    pair[0].reaches("10.2.1.2");
    pair
}

/// Its one established connection.
pub fn connection(host: &Host) -> Connection {
    let all = host.status().connections;
    all.into_iter().find(|c| c.state == ConnectionState::Established && c.path.is_some()).expect("a path")
}

/// By what frames go from one to a neighbour.
pub fn framing_to(host: &Host, peer: &Host) -> Option<Framing> {
    let connections = host.status().connections.into_iter();
    let to = |c: &Connection| c.peer.as_ref().is_some_and(|(_, nickname)| nickname.to_string() == peer.name);
    Some(connections.filter(to).find_map(|c| c.path)?.framing)
}

/// Waits until frames to that neighbour go by this.
#[track_caller]
pub fn sends_by(host: &Host, peer: &Host, framing: Framing) {
    let what = format!("{} sends to {} by {framing}", host.name, peer.name);
    until(SOON, &what, || framing_to(host, peer) == Some(framing));
}

/// Waits until frames between two go by this, both ways.
#[track_caller]
pub fn both_send_by([a, b]: &[Host; 2], framing: Framing) {
    sends_by(a, b, framing);
    sends_by(b, a, framing);
}

/// Waits until all paths of these hosts go by this.
#[track_caller]
pub fn goes_by(hosts: &[Host], framing: Framing) {
    for host in hosts {
        until(SOON, &format!("{} goes by {framing}", host.name), || {
            let all = host.status().connections;
            let mut paths = all.iter().filter_map(|c| c.path.as_ref()).peekable();
            paths.peek().is_some() && paths.all(|path| path.framing == framing)
        });
    }
}

/// Waits until the kernel of `host` carries frames to so many MACs.
#[track_caller]
pub fn carries(host: &Host, macs: usize) {
    until(SOON, &format!("the kernel of {} carries to {macs} MACs", host.name), || {
        host.status().framing.offloaded >= macs
    });
}

/// The VXLAN device of the one network on this host.
pub fn device(host: &Host) -> String {
    let mut all = host.interfaces().into_iter().filter(|name| name.starts_with("rnx"));
    all.find(|name| name != "rnxffffff").expect("a VXLAN device")
}

/// From now on this host drops what comes to UDP port 6784 and is longer than so many bytes, IP header included.
pub fn block(host: &Host, longer: u16) {
    host.sh(&format!(
        "nft 'add table inet block; add chain inet block input {{ type filter hook input priority raw; }}; \
         add rule inet block input udp dport 6784 meta length > {longer} drop'"
    ));
}

pub fn unblock(host: &Host) {
    host.sh("nft delete table inet block");
}

/// A TCP connection that says a number every 50 ms and is told the same; each line is how long that took, in ms.
const TALK: &str = "import socket,sys,time
c=socket.create_connection((sys.argv[1],7001),timeout=5);c.settimeout(30);n=0;filler=b'x'*1200
while True:
 t=time.time();c.sendall(b'%8d'%n+filler);got=b''
 while len(got)<8: got+=c.recv(8-len(got))
 assert got==b'%8d'%n
 print(int((time.time()-t)*1000),flush=True);n+=1;time.sleep(0.05)";

const ECHO: &str = "import socket
s=socket.create_server(('0.0.0.0',7001));print('ready',flush=True);c,_=s.accept();got=b''
while b:=c.recv(65536):
 got+=b
 while len(got)>=1208: c.sendall(got[:8]);got=got[1208:]";

/// Two who talk all the time by one TCP connection, in segments almost as wide as the path.
pub struct Talk {
    speaker: Process,
    _echo: Process,
}

impl Talk {
    #[track_caller]
    pub fn new(from: &Container, to: &Container, address: &str) -> Talk {
        let echo = to.start(&["python3", "-c", ECHO]);
        until(SOON, "the server listens", || echo.stdout().contains("ready"));
        let talk = Talk { speaker: from.start(&["python3", "-c", TALK, address]), _echo: echo };
        talk.goes_on("they talk");
        talk
    }

    /// Milliseconds that each answer took so far.
    pub fn took(&self) -> Vec<u64> {
        self.speaker.stdout().lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Waits until much more was said.
    #[track_caller]
    pub fn goes_on(&self, what: &str) {
        let before = self.took().len();
        until(SOON, what, || self.took().len() > before + 60);
    }
}
