"""WireGuard in userspace, host to host: no bridge and no veth on the way, two hops less than the others have."""

from __future__ import annotations

from pathlib import Path

from ..process import run
from ..room import STATE, Host, Room, Target
from .peer import Peer, package_version

# wg(8) looks here for daemons, whatever the namespace: so each interface has a name of its own.
SOCKETS = Path("/var/run/wireguard")
OVERHEAD = 80


class WireGuard(Peer):
    """A daemon that makes a TUN interface and takes its configuration from wg(8)."""

    def __init__(self, *daemon: str, install: str, package: str = "") -> None:
        self.daemon, self.programs, self.install, self.package = daemon, (daemon[0], "wg"), install, package
        self.version_argv = (daemon[0], "--version")

    def version(self) -> str:
        return (package_version(self.package) if self.package else "") or super().version()

    def start(self, room: Room) -> Target:
        keys = {host: run(["wg", "genkey"]).strip() for host in room.hosts}
        for host in room.hosts:
            socket = SOCKETS / f"{interface(host)}.sock"
            socket.unlink(missing_ok=True)
            room.daemon(host, Path(self.daemon[0]).name, *self.daemon, interface(host))
            room.wait_for(host, interface(host))
            room.wait_for_file(socket)
        # The second host first: who sends before the other is there tries again only after 5 s.
        for host in reversed(room.hosts):
            self._configure(host, room.other(host), keys)
        return Target(room.a.ns, room.b.ns, room.b.inner)

    def _configure(self, host: Host, other: Host, keys: dict[Host, str]) -> None:
        private = STATE / f"wireguard-{host.name}"
        private.touch(0o600)
        private.write_text(keys[host])
        peer = ("peer", run(["wg", "pubkey"], stdin=keys[other]).strip(), "allowed-ips", f"{other.inner}/32")
        own = ("private-key", str(private), "listen-port", "51820")
        host.ns.run("wg", "set", interface(host), *own, *peer, "endpoint", f"{other.address}:51820")
        host.ns.ip("address", "add", f"{host.inner}/24", "dev", interface(host))
        host.ns.ip("link", "set", interface(host), "mtu", str(1500 - OVERHEAD), "up")


def interface(host: Host) -> str:
    return f"rnetbenchwg{host.name}"
