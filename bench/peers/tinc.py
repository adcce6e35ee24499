"""tinc 1.0 as a switch, its TAP a port of each host's bridge."""

from __future__ import annotations

import shutil

from ..process import run
from ..room import STATE, Room, Target
from .peer import Peer


class Tinc(Peer):
    programs = ("tincd",)
    install = "apt-get install tinc"
    version_argv = ("tincd", "--version")

    def start(self, room: Room) -> Target:
        folders = {host: STATE / f"tinc-{host.name}" for host in room.hosts}
        for host, folder in folders.items():
            (folder / "hosts").mkdir(parents=True)
            connect = "ConnectTo = a\n" if host is room.b else ""
            text = f"Name = {host.name}\nMode = switch\nDeviceType = tap\nInterface = tinc0\nAddressFamily = ipv4\n{connect}"
            (folder / "tinc.conf").write_text(text)
            (folder / "hosts" / host.name).write_text(f"Address = {host.address}\n")
            run(["tincd", "-c", str(folder), "-K", "2048"])
        for host in room.hosts:
            theirs = folders[room.other(host)] / "hosts" / room.other(host).name
            shutil.copy(theirs, folders[host] / "hosts" / theirs.name)
        target = room.bridge(overhead=100)
        for host, folder in folders.items():
            room.daemon(host, "tinc", "tincd", "-D", "-c", str(folder), "--pidfile", str(folder / "pid"))
            room.join(host, "tinc0", mtu="1400")
        return target
