"""What the kernel does alone: the bare line, and VXLAN."""

from __future__ import annotations

import platform

from ..room import Room, Target
from .peer import Peer


class Veth(Peer):
    """Host to host on the underlay: the most that this machine can do."""

    def start(self, room: Room) -> Target:
        return Target(room.a.ns, room.b.ns, room.b.address)


class KernelVxlan(Peer):
    """A VXLAN device as a port of each host's bridge, as container networks have it."""

    def start(self, room: Room) -> Target:
        target = room.bridge(overhead=50)
        for host in room.hosts:
            ends = ("local", host.address, "remote", room.other(host).address)
            host.ns.ip("link", "add", "vxlan", "type", "vxlan", "id", "7", *ends, "dstport", "4789", "dev", "line")
            room.join(host, "vxlan")
        return target

    def version(self) -> str:
        return f"Linux {platform.release()}"
