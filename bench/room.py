"""Two hosts and a container in each, as network namespaces.

    ca          a                       b          cb          namespaces rnet-bench-*
    eth0 -- vc bridge ? line ===== line ? bridge vc -- eth0     ?: the peer under test
    10.2.1.1        198.18.0.1     198.18.0.2     10.2.1.2

The bridge, its veth and the container's addresses are there only for peers that ask for them (`bridge`): rnet brings its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .process import Child, Children, Failed, end_leftovers, run, until

PREFIX = "rnet-bench-"
STATE = Path("/run/rnet-bench")
UNDERLAY_MTU = 1500
# What a veth carries uncut for nothing, and a network card without offloads does not.
WIRE = {
    "tso": "off",
    "gso": "off",
    "tx-udp-segmentation": "off",
    "tx-udp_tnl-segmentation": "off",
    "tx-udp_tnl-csum-segmentation": "off",
    "gro": "on",
}
UNDERLAYS = ("veth", "wire")


@dataclass(frozen=True)
class Namespace:
    name: str

    def argv(self, *argv: str) -> list[str]:
        """A command inside. `ip` becomes it, so its pid is the command's."""
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, *argv: str, seconds: float = 20, env: Mapping[str, str] | None = None) -> str:
        return run(self.argv(*argv), seconds, env)

    def ip(self, *arguments: str) -> str:
        return run(["ip", "-n", self.name, *arguments])

    def has(self, interface: str) -> bool:
        return any(link["ifname"] == interface for link in json.loads(self.ip("-j", "link", "show")))


@dataclass(frozen=True)
class Host:
    name: str
    number: int
    ns: Namespace
    container: Namespace

    @property
    def address(self) -> str:
        """On the underlay."""
        return f"198.18.0.{self.number}"

    @property
    def inner(self) -> str:
        """On the network that the peer under test makes."""
        return f"10.2.1.{self.number}"


@dataclass(frozen=True)
class Target:
    """Between whom it is measured."""

    client: Namespace
    server: Namespace
    address: str

    def answers(self) -> bool:
        try:
            self.client.run("ping", "-c", "1", "-W", "1", self.address, seconds=5)
        except Failed:
            return False
        return True

    def mtu(self) -> int:
        """Of the interface by which the client reaches the server."""
        route = json.loads(self.client.ip("-j", "route", "get", self.address))[0]
        return int(json.loads(self.client.ip("-j", "link", "show", route["dev"]))[0]["mtu"])


class Room:
    def __init__(self) -> None:
        self.a, self.b = (
            Host(name, number, Namespace(PREFIX + name), Namespace(f"{PREFIX}c{name}")) for number, name in enumerate("ab", 1)
        )
        self.hosts = (self.a, self.b)
        self.daemons, self.tools = Children(STATE), Children(STATE / "tools")

    def other(self, host: Host) -> Host:
        return self.b if host is self.a else self.a

    def build(self, underlay: str) -> None:
        """The namespaces, and the line between the hosts."""
        for folder in (STATE, self.tools.where):
            folder.mkdir(mode=0o700, exist_ok=True)
        for host in self.hosts:
            for ns in (host.ns, host.container):
                run(["ip", "netns", "add", ns.name])
                ns.ip("link", "set", "lo", "up")
        run(
            [
                "ip",
                "link",
                "add",
                "line",
                "netns",
                self.a.ns.name,
                "type",
                "veth",
                "peer",
                "name",
                "line",
                "netns",
                self.b.ns.name,
            ]
        )
        for host in self.hosts:
            host.ns.ip("address", "add", f"{host.address}/30", "dev", "line")
            host.ns.ip("link", "set", "line", "mtu", str(UNDERLAY_MTU), "up")
            if underlay == "wire":
                host.ns.run("ethtool", "-K", "line", *(word for feature in WIRE.items() for word in feature))
        self._settle()

    def _settle(self) -> None:
        until("the line is up", 5, lambda: Target(self.a.ns, self.b.ns, self.b.address).answers())

    def bridge(self, overhead: int) -> Target:
        """A bridge in each host with its container on it; `overhead`: bytes of an underlay packet that the peer takes."""
        mtu = str(UNDERLAY_MTU - overhead)
        for host in self.hosts:
            host.ns.ip("link", "add", "bridge0", "mtu", mtu, "type", "bridge")
            host.ns.ip(
                "link", "add", "vc", "mtu", mtu, "type", "veth", "peer", "name", "eth0", "mtu", mtu, "netns", host.container.name
            )
            host.ns.ip("link", "set", "vc", "master", "bridge0", "up")
            host.ns.ip("link", "set", "bridge0", "up")
            host.container.ip("address", "add", f"{host.inner}/24", "dev", "eth0")
            host.container.ip("link", "set", "eth0", "up")
        return self.containers()

    def join(self, host: Host, interface: str, mtu: str | None = None) -> None:
        """Makes an interface a port of the host's bridge when it has come."""
        self.wait_for(host, interface)
        host.ns.ip("link", "set", interface, *(["mtu", mtu] if mtu else []), "master", "bridge0", "up")

    def wait_for(self, host: Host, interface: str) -> None:
        until(f"{interface} on host {host.name}", 5, lambda: self.healthy() and host.ns.has(interface))

    def wait_for_file(self, path: Path) -> None:
        until(f"{path} is there", 5, lambda: self.healthy() and path.exists())

    def containers(self) -> Target:
        return Target(self.a.container, self.b.container, self.b.inner)

    def daemon(self, host: Host, label: str, *argv: str, env: Mapping[str, str] | None = None) -> Child:
        """A process of the peer under test, in the host: its processor time and memory are counted."""
        return self.daemons.start(f"{label}-{host.name}", host.ns.argv(*argv), env)

    def healthy(self) -> bool:
        """Raises if a daemon has ended."""
        for child in self.daemons.list:
            if not child.runs():
                raise Failed(child.why())
        return True

    def remove(self) -> None:
        """Everything, also what an earlier run left."""
        for children in (self.tools, self.daemons):
            children.stop()
        remove_leftovers()


def remove_leftovers() -> None:
    """What bears this program's names: namespaces, files, and the processes in its files of pids."""
    for pids in (STATE / "tools" / "pids", STATE / "pids"):
        end_leftovers(pids)
    for line in run(["ip", "netns", "list"]).splitlines():
        name = line.split(" ")[0]
        if name.startswith(PREFIX):
            run(["ip", "netns", "delete", name])
    shutil.rmtree(STATE, ignore_errors=True)


def lacking() -> list[str]:
    """Programs without which nothing can be measured."""
    return [program for program in ("ip", "ping", "iperf3", "ethtool") if shutil.which(program) is None]
