"""VpnCloud as a switch, its TAP a port of each host's bridge."""

from __future__ import annotations

from ..room import Room, Target
from .peer import Peer


class VpnCloud(Peer):
    programs = ("vpncloud",)
    install = "cargo install --locked vpncloud"
    version_argv = ("vpncloud", "--version")

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm

    def start(self, room: Room) -> Target:
        target = room.bridge(overhead=80)
        # It asks the kernel which of its addresses leads out, and needs a way out for that.
        for host in room.hosts:
            host.ns.ip("route", "add", "default", "via", room.other(host).address)
        for host in room.hosts:
            how = ("--type", "tap", "--mode", "switch", "--device", "vpncloud0", "--listen", "3210", "--no-port-forwarding")
            key = ("--password", "bench", "--algorithm", self.algorithm, "--peer", f"{room.other(host).address}:3210")
            room.daemon(host, "vpncloud", "vpncloud", *how, *key)
            room.join(host, "vpncloud0", mtu="1420")
        return target
