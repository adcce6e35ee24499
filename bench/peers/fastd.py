"""fastd, its TAP a port of each host's bridge."""

from __future__ import annotations

import re

from ..process import Failed, run
from ..room import STATE, Room, Target
from .peer import Peer

OVERHEAD = 94


class Fastd(Peer):
    """`method`: how it encrypts; `null` is not at all."""

    programs = ("fastd",)
    install = "apt-get install fastd"
    version_argv = ("fastd", "--version")

    def __init__(self, method: str) -> None:
        self.method = method

    def start(self, room: Room) -> Target:
        keys = {host: key_pair() for host in room.hosts}
        target = room.bridge(OVERHEAD)
        for host in room.hosts:
            other, mtu = room.other(host), 1500 - OVERHEAD
            file = STATE / f"fastd-{host.name}.conf"
            file.touch(0o600)
            file.write_text(
                f'log level warn; mode tap; interface "fastd0"; mtu {mtu}; method "{self.method}";\n'
                f'bind {host.address}:10000; secret "{keys[host][0]}";\n'
                f'peer "{other.name}" {{ key "{keys[other][1]}"; remote {other.address} port 10000; }}\n'
            )
            room.daemon(host, "fastd", "fastd", "--config", str(file))
            room.join(host, "fastd0")
        return target


def key_pair() -> tuple[str, str]:
    """Secret and public."""
    found = re.findall(r"\b[0-9a-f]{64}\b", run(["fastd", "--generate-key"]))
    if len(found) != 2:
        raise Failed("fastd --generate-key prints no pair of keys")
    return found[0], found[1]
