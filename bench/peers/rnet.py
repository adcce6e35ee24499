"""rnet itself: a router on each host, and the containers attached by it."""

from __future__ import annotations

import json
import os
import re
from functools import partial
from pathlib import Path

from ..process import Failed, run, until
from ..room import STATE, Host, Room, Target
from .peer import Peer

PASSWORD = "a password for the benchmark only"


class Rnet(Peer):
    """Without a password nothing is encrypted, frames included. `launch`: further options of `rnet launch`."""

    def __init__(self, password: bool, framing: str = "udp", launch: tuple[str, ...] = ()) -> None:
        self.password, self.framing, self.launch = password, framing, launch
        self.binary = Path("target/release/rnet")

    def missing(self) -> str | None:
        if not os.access(self.binary, os.X_OK):
            return f"no {self.binary} here: cargo build --release --bin rnet"
        if self.framing != "udp" and not self._framing_option():
            return f"this build of rnet has no --framing {self.framing}"
        return None

    def version(self) -> str:
        return run([str(self.binary), "--version"]).strip()

    def _framing_option(self) -> list[str]:
        """A build with one framing only need not be told, and cannot be."""
        text = run([str(self.binary), "launch", "--help"])
        return ["--framing", self.framing] if offers(text, "--framing", self.framing) else []

    def start(self, room: Room) -> Target:
        options = [*self._framing_option(), *self.launch]
        if self.password:
            secret = STATE / "password"
            secret.touch(0o600)
            secret.write_text(PASSWORD + "\n")
            options += ["--password-file", str(secret)]
        for host in room.hosts:
            own = ["--foreground", "--nickname", f"bench-{host.name}", *options]
            peers = [room.a.address] if host is room.b else []
            room.daemon(host, "rnet", str(self.binary), "launch", *own, *peers, env=environment(host))
            until(f"the router of host {host.name} is ready", 15, partial(self._ready, room, host))
        for host in room.hosts:
            self._ask(host, "attach", f"{host.inner}/24", f"netns:{host.container.name}")
        return room.containers()

    def check(self, room: Room) -> None:
        """A better framing is used a moment after the path is up."""
        wanted = {(self.password, self.framing)}
        try:
            until("the framing of this row is in use", 15, lambda: room.healthy() and self._paths(room) == wanted)
        except Failed as why:
            seen = " and ".join(f"{'encrypted' if sealed else 'unencrypted'} {framing}" for sealed, framing in self._paths(room))
            raise Failed(f"the path is {seen}, not what this row is") from why

    def _paths(self, room: Room) -> set[tuple[bool, str]]:
        links = [link for host in room.hosts for link in json.loads(self._ask(host, "status", "connections", "--json"))]
        return {(link["encrypted"], link["path"]["framing"]) for link in links if link["state"] == "established"}

    def _ready(self, room: Room, host: Host) -> bool:
        room.healthy()
        try:
            self._ask(host, "status")
        except Failed:
            return False
        return True

    def _ask(self, host: Host, *words: str) -> str:
        return host.ns.run(str(self.binary), *words, env=environment(host))


def environment(host: Host) -> dict[str, str]:
    """Without the options of whoever runs this."""
    own = {"RNET_RUN_DIR": str(STATE / f"rnet-{host.name}" / "run"), "RNET_DATA_DIR": str(STATE / f"rnet-{host.name}" / "data")}
    return {name: value for name, value in os.environ.items() if not name.startswith(("RNET_", "WEAVE_"))} | own


def offers(help_text: str, option: str, value: str) -> bool:
    """Whether the help of a command describes an option, with this value in its text."""
    found = re.search(rf"^ *{re.escape(option)}\b.*?(?=^ *(?:-\w, )?--\w|\Z)", help_text, re.MULTILINE | re.DOTALL)
    return found is not None and re.search(rf"\b{re.escape(value)}\b", found[0]) is not None
