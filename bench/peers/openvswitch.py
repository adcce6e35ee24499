"""Open vSwitch with its datapath in userspace, and VXLAN between the hosts.

Two switches per host: `inner` holds the container and the VXLAN port, `outer` the line, whose address it takes over, so that the
daemon finds the way for its tunnels there. Each host has a database and a daemon of its own, apart from the machine's.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..process import run
from ..room import STATE, Host, Room, Target
from .peer import Peer

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")


class OpenVSwitch(Peer):
    programs = ("ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl")
    install = "apt-get install openvswitch-switch"
    version_argv = ("ovs-vswitchd", "--version")

    def start(self, room: Room) -> Target:
        target = room.bridge(overhead=50)
        for host in room.hosts:
            folder, env = home(host), environment(host)
            folder.mkdir()
            run(["ovsdb-tool", "create", str(folder / "db"), str(SCHEMA)])
            control = f"--unixctl={folder / 'database.ctl'}"
            room.daemon(
                host, "ovsdb-server", "ovsdb-server", str(folder / "db"), f"--remote=punix:{folder / 'socket'}", control, env=env
            )
            room.wait_for_file(folder / "socket")
            # The line must not answer for the address that moves to the switch.
            host.ns.run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1")
            host.ns.ip("address", "flush", "dev", "line")
            vsctl(host, "init")
            control = f"--unixctl={folder / 'switch.ctl'}"
            room.daemon(host, "ovs-vswitchd", "ovs-vswitchd", f"unix:{folder / 'socket'}", control, env=env)
        for host in room.hosts:
            self._connect(room, host)
        return target

    def _connect(self, room: Room, host: Host) -> None:
        host.ns.ip("link", "set", "vc", "nomaster")
        tunnel = ("type=vxlan", f"options:remote_ip={room.other(host).address}", "options:key=7")
        for switch, port, how in (
            ("outer", "line", ("type=system",)),
            ("inner", "vc", ("type=system",)),
            ("inner", "tunnel", tunnel),
        ):
            vsctl(host, "--may-exist", "add-br", switch, "--", "set", "bridge", switch, "datapath_type=netdev")
            vsctl(host, "add-port", switch, port, "--", "set", "interface", port, *how)
        for switch in ("outer", "inner"):
            room.wait_for(host, switch)
            host.ns.ip("link", "set", switch, "up")
        host.ns.ip("address", "add", f"{host.address}/30", "dev", "outer")
        # Its datapath takes only whole packets: nothing may be left to an offload.
        host.container.run("ethtool", "-K", "eth0", "tx", "off")
        host.ns.run("ethtool", "-K", "line", "tx", "off")


def home(host: Host) -> Path:
    return STATE / f"ovs-{host.name}"


def environment(host: Host) -> dict[str, str]:
    return os.environ | {"OVS_RUNDIR": str(home(host)), "OVS_DBDIR": str(home(host))}


def vsctl(host: Host, *words: str) -> None:
    host.ns.run("ovs-vsctl", f"--db=unix:{home(host) / 'socket'}", "--no-wait", *words, env=environment(host))
