//! What stands below the options in the help of a command: a few examples, and what has to be known before it is used.
//!
//! Texts only; `args` says which belongs to which command, and the terminal's width breaks their lines.

pub(super) const OVERVIEW: &str = "\
Examples:
  host1# rnet launch --password-file /etc/rnet.pw
  host2# rnet launch --password-file /etc/rnet.pw host1
  host1# rnet run --cidr 10.2.1.1/24 --name web -- python3 -m http.server 80
  host2# rnet run --cidr 10.2.1.2/24 -- curl http://10.2.1.1/

Addresses: [ip:]ADDRESS/LENGTH is that very address, net:CIDR any free one of that network, \
net:default any free one of the default network. \
Several may be given; what has the same CIDR is one network, whatever else is kept apart.

Exit status: 0 done, 1 failed (one line on standard error says why), 2 wrong usage.";

pub(super) const STOP: &str = "\
Examples:
  rnet stop
  rnet stop --keep && rnet launch --resume --password-file /etc/rnet.pw       a restart, or an upgrade

Identity, targets, VTEPs, captured interfaces and attachments are kept for the next launch; `rnet reset` forgets them. With
--keep the machine is left as it is: connections that the kernel carries (--framing kernel) go on without the router, others
as soon as there is a router again.";

pub(super) const RESET: &str = "\
Examples:
  rnet reset
  rnet reset --force      the router was killed and left its interfaces behind

Gives this host's addresses to the other hosts, stops, and removes what rnet made, and nothing else.";

pub(super) const CONNECT: &str = "\
Examples:
  rnet connect host3 192.0.2.7:7000
  rnet connect --replace host4
  rnet connect vxlan://10.0.0.5 --network 10.2.1.0/24 --vni 42       a kernel's VXLAN device, Open vSwitch, a switch
  rnet connect vxlan://[fd00::5]:8472 --network 10.2.1.0/24 --vni 42

A VTEP (VXLAN tunnel end) is joined to a network of the mesh from one host of it, and everybody on that network reaches it. \
Joined from a second host too, that one stands by and takes over when the first is gone. What is between is not encrypted. The VTEP must send to an address of this \
host, with the same VNI; what is behind it is not guarded, its addresses are unknown to rnet (take them from outside of \
--ipalloc-range), and packets of more than the network's MTU (`rnet status`) do not come through. It is kept until \
`rnet forget`.

On the other side, for example:
  ip link add vx0 type vxlan id 42 dstport 4789 local 10.0.0.5 remote THIS-HOST
  ovs-vsctl add-port br0 vx0 -- set interface vx0 type=vxlan options:remote_ip=THIS-HOST options:key=42";

pub(super) const FORGET: &str = "\
Examples:
  rnet forget host3
  rnet forget vxlan://10.0.0.5
  rnet forget vxlan://10.0.0.5 --network 10.2.1.0/24                 if it is on several

Give a peer as it was given before: `rnet status targets` lists them.";

pub(super) const DEMO: &str = "\
Example:
  sudo rnet demo

Needs root for its namespaces. Routers and interfaces of this host stay as they are, and everything is removed at the end, after a \
failure, and on Ctrl-C.";

pub(super) const RMPEER: &str = "\
Examples:
  rnet rmpeer host3
  rnet rmpeer 7e:21:4a:70:2f:45 host4      several that died together are given together

Give names or nicknames; `rnet status ipam` lists them. A majority of the other hosts must agree. It is safe to repeat it, also \
on two hosts at once. A host that was removed and comes back begins anew and says so in its log.";

pub(super) const RUN: &str = "\
Examples:
  rnet run --cidr net:10.32.2.0/24 -- curl http://10.32.2.1/
  rnet run --cidr 10.2.1.1/24 --name web -- python3 -m http.server 80
  rnet run --cidr 10.2.1.3/24 --cidr fd00:1::3/64 -- ping -c3 10.2.1.1
  rnet run --cidr 10.2.1.4/24 -p 8091:8090 --gateway -- ./server     needs `rnet expose 10.2.1.254/24`
  rnet run --join web -- tcpdump -ni rnet0
  rnet run --network none -- ./build.sh                              loopback only

The command starts when its interfaces rnet0, rnet1, ... are up. Terminal, signals and exit status pass through; \
everything is removed when it ends. `rnet attach ADDR NAME` adds networks while it runs. Without --cidr the variable RNET_CIDR (or WEAVE_CIDR) is read, several addresses \
separated by spaces; `none` gives the command no interface. Without both it gets an address of the default network.";

pub(super) const ATTACH: &str = "\
Examples:
  rnet attach net:10.32.2.0/24 web            a free address of that network
  rnet attach 10.2.1.1/24 web                 a container, by name or id
  rnet attach 10.2.1.1/24 10.2.2.1/24 pid:4711
  rnet attach fd00:1::5/64 netns:blue         /run/netns/blue; a path works too

Prints the addresses. Attaching again with the same address changes nothing.";

pub(super) const EXPOSE: &str = "\
Examples:
  rnet expose 10.2.1.254/24
  rnet expose 10.2.1.254/24 fd00:1::fe/64
  rnet expose --without-masquerade 10.2.1.254/24      others route to the network through this host

Prints the addresses. The host then reaches that network and is reached from it; attachments that were given --gateway get \
out through it, by its address unless --without-masquerade says otherwise. Networks still do not reach one another. \
Needs the program nft.";

pub(super) const PUBLISH: &str = "\
Examples:
  rnet publish 8091:8090 web
  rnet publish 53:5353/udp 192.0.2.1:80:8080 web

The port is reached from outside and from this host, which needs an address on a network of the target (`rnet expose`). \
`rnet ps` shows it; it ends with the attachment. Needs the program nft.";

pub(super) const STATUS: &str = "\
Examples:
  rnet status
  rnet status connections
  rnet status peers --json
  rnet status connections --json | jq -r '.[] | select(.state == \"blocked\") | .info'

The exit status is not 0 until the router is ready.";

pub(super) const LAUNCH: &str = "\
Examples:
  rnet launch --password-file /etc/rnet.pw
  rnet launch --password-file /etc/rnet.pw host1 192.0.2.7:7000
  rnet launch --foreground --resume          for systemd (Type=notify) and containers
  rnet launch --config /etc/rnet.toml        port = 6783, peers = [\"host1\"], no-discovery = true
  rnet launch --framing udp                  nothing by VXLAN; kernel, vxlan: that one, or no launch
  rnet launch --password-file /etc/rnet.pw --trusted-subnets 10.0.0.0/8      unencrypted there
  rnet launch --capture packet --threads 2   without /dev/net/tun, on two cores
  rnet launch --interface eth1=10.2.1.0/24 --interface docker0=172.17.0.0/16
  rnet launch --advertise 203.0.113.9:7000   behind a NAT that leads this port here
  rnet launch --interface-filter 'eth*,!eth3'

Returns when the router is ready and prints its name. \
Options come from the command line, the environment (RNET_PORT, ...) \
and the file of --config, in this order. Without a password anyone who reaches the port can join.";
