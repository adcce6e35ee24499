"""What the runner asks of a peer."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod

from ..process import Failed, last_line, run
from ..room import Room, Target


class Peer(ABC):
    """A way to join two containers, or two hosts. It starts daemons by `room.daemon`; the runner removes everything."""

    # Programs it needs, and how to get them.
    programs: tuple[str, ...] = ()
    install = ""
    # Prints the version.
    version_argv: tuple[str, ...] = ()

    @abstractmethod
    def start(self, room: Room) -> Target:
        """Sets it up between `room.a` and `room.b`. Need not wait for the first packet."""

    def missing(self) -> str | None:
        """Why it cannot run here, in one line with the way out."""
        lacking = [program for program in self.programs if shutil.which(program) is None]
        return f"no {' and no '.join(lacking)} here: {self.install}" if lacking else None

    def check(self, room: Room) -> None:
        """After the first packet: raises if what is measured is not what the row says."""
        return

    def version(self) -> str:
        if not self.version_argv:
            return ""
        try:
            text = run(self.version_argv, 5)
        except Failed:
            return ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return last_line(lines[0]) if lines else ""


def package_version(package: str) -> str:
    """What the package manager says, where the program itself does not tell."""
    if shutil.which("dpkg-query") is None:
        return ""
    try:
        return run(["dpkg-query", "-W", "-f", "${Package} ${Version}", package], 5)
    except Failed:
        return ""
