"""One row, measured: what each figure is and how it is got."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import usage
from .process import Child, Failed, last_line, until
from .room import Room, Target
from .rows import Row


@dataclass(frozen=True)
class Times:
    """Seconds of each part."""

    pingpong: float
    tcp: float
    loaded: float
    flood: float
    search: float

    def row(self) -> float:
        """A guess for a whole row, set-up and the steps of the search included."""
        return self.pingpong + 2 * (self.tcp + 1.5) + self.loaded + 2 + self.flood + self.search + 17


FULL = Times(pingpong=3, tcp=6, loaded=5, flood=2, search=2)
QUICK = Times(pingpong=1, tcp=2.5, loaded=2, flood=1, search=1)

# What a row may do wrong without ending the run.
TROUBLE = (Failed, OSError, ValueError, LookupError)
# Not counted at the start of a stream.
SLOW_START = 1.0
LOADED_PAUSE_US = 5000
IPERF_PORT = 5201


@dataclass
class Seen:
    """What became of a row in a round."""

    row: str
    underlay: str
    round: int
    figures: dict[str, float] = field(default_factory=dict)
    # Beside the figures: what helps to judge them.
    notes: dict[str, Any] = field(default_factory=dict)
    # By part; a row that did not start has only "start".
    errors: dict[str, str] = field(default_factory=dict)


def measure(row: Row, underlay: str, number: int, times: Times, pps: Path, paced: bool = False) -> Seen:
    """Sets the row up, measures it and removes it. What fails is written down, and the rest still measured."""
    seen, room = Seen(row.name, underlay, number), Room()
    try:
        begin = usage.now([])
        time.sleep(1)
        seen.notes["others_busy_cpus"] = round(usage.between(begin, usage.now([])).machine, 2)
        room.build(underlay)
        target = row.peer.start(room)
        until("the first ping gets through", 20, lambda: room.healthy() and target.answers())
        row.peer.check(room)
        begin_with("bbr" if paced else "cubic", target)
        seen.notes["mtu"] = target.mtu()
        Bench(room, target, times, pps, seen).all()
    except TROUBLE as why:
        seen.errors["start"] = str(why)
    finally:
        try:
            room.remove()
        except TROUBLE as why:
            seen.errors["removal"] = str(why)
    return seen


def begin_with(control: str, target: Target) -> None:
    """The client's connections use this congestion control from their first packet on.

    `iperf3 -C cubic` sets cubic on a connection that stands: one that began with bbr, the default of some machines, keeps bbr's
    pacing, and then a timer is part of what is measured.
    """
    routes = target.client.ip("route", "show", "match", target.address).splitlines()
    if not routes:
        raise Failed(f"{target.client.name} has no route to {target.address}")
    target.client.ip("route", "change", *max(routes, key=prefix).split(), "congctl", control)


def prefix(route: str) -> int:
    """Bits of the destination in a line of `ip route`."""
    destination = route.split()[0]
    if destination == "default":
        return 0
    return int(destination.partition("/")[2] or 32)


class Bench:
    def __init__(self, room: Room, target: Target, times: Times, pps: Path, seen: Seen) -> None:
        self.room, self.target, self.times, self.pps, self.seen = room, target, times, pps, seen
        self.pids = [child.pid for child in room.daemons.list]

    def all(self) -> None:
        parts: dict[str, Callable[[], dict[str, float]]] = {
            "memory": self.memory,
            "idle": self.idle,
            "tcp1": lambda: self.tcp("tcp1", 1),
            "tcp4": lambda: self.tcp("tcp4", 4),
            "loaded": self.loaded,
            "udp_flood": self.flood,
            "udp_held": self.search,
        }
        for name, part in parts.items():
            try:
                self.seen.figures |= part()
                self.room.healthy()
            except TROUBLE as why:
                self.seen.errors[name] = str(why)
            finally:
                self.room.tools.stop()

    def memory(self) -> dict[str, float]:
        return {"memory": sum(usage.resident_megabytes(pid) for pid in self.pids) / len(self.room.hosts)}

    def idle(self) -> dict[str, float]:
        told = self._pps("pingpong", self.times.pingpong, "--pin")
        return {"idle_p50": told["p50_us"], "idle_p99": told["p99_us"]}

    def tcp(self, name: str, streams: int) -> dict[str, float]:
        client = self._iperf(streams, self.times.tcp)
        # Processor time of the steady part only: no start of programs, no slow start.
        time.sleep(SLOW_START)
        start = usage.now(self.pids)
        time.sleep(self.times.tcp - SLOW_START - 0.2)
        load = usage.between(start, usage.now(self.pids))
        told = transfer(client.wait(15))
        per_gigabyte = told.gigabits / 8
        self.seen.notes[name] = {"retransmits": told.retransmits, "stolen_cpus": round(load.stolen, 3)}
        return {
            name: told.gigabits,
            f"{name}_daemons": load.daemons / per_gigabyte,
            f"{name}_machine": load.machine / per_gigabyte,
        }

    def loaded(self) -> dict[str, float]:
        client = self._iperf(1, self.times.loaded + 5)
        time.sleep(SLOW_START)
        told = self._pps("pingpong", self.times.loaded, "--pause", str(LOADED_PAUSE_US))
        if not client.runs():
            raise Failed("the TCP stream ended too early")
        self.seen.notes["loaded_lost"] = told["lost"]
        return {f"loaded_{name}": told[f"{name}_us"] for name in ("p50", "p99", "max")}

    def flood(self) -> dict[str, float]:
        told = self._pps("flood", self.times.flood)
        self.seen.notes["flood_sent_kpps"] = round(told["sent_pps"] / 1000)
        return {"udp_flood": told["received_pps"] / 1000}

    def search(self) -> dict[str, float]:
        return {"udp_held": self._pps("search", self.times.search)["received_pps"] / 1000}

    def _pps(self, mode: str, seconds: float, *more: str) -> dict[str, float]:
        ends = ("--from", self.target.client.name, "--to", self.target.server.name, "--address", self.target.address)
        child = self.room.tools.start(f"pps-{mode}", [str(self.pps), mode, *ends, "--seconds", str(seconds), *more])
        # A search is at most 60 trials, most of them short, each with a wait for the last packets.
        text = child.wait(120 if mode == "search" else seconds + 15)
        if child.process.returncode != 0:
            raise Failed(last_line(child.err.read_text()) or child.why())
        told: dict[str, float] = json.loads(text)
        return told

    def _iperf(self, streams: int, seconds: float) -> Child:
        """Starts a server and a client, which ends by itself."""
        argv = self.target.server.argv("iperf3", "-s", "-1", "-p", str(IPERF_PORT))
        server = self.room.tools.start("iperf-server", argv)
        until("iperf3 listens", 5, lambda: not server.runs() or listens(server.pid, IPERF_PORT))
        how = ["-c", self.target.address, "-p", str(IPERF_PORT), "-P", str(streams), "-C", "cubic", "--connect-timeout", "5000"]
        # The omitted second comes on top of the time.
        how += ["-O", str(int(SLOW_START)), "-t", f"{max(1, round(seconds - SLOW_START))}", "-J"]
        return self.room.tools.start("iperf-client", self.target.client.argv("iperf3", *how))


def listens(pid: int, port: int) -> bool:
    """Whether somebody in the network namespace of `pid` does, on TCP."""
    tables = "".join(
        Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6") if Path(f"/proc/{pid}/net/{name}").exists()
    )
    return listening(tables, port)


def listening(tables: str, port: int) -> bool:
    """The same, from the text of /proc/net/tcp: local address, remote address, state; 0A is LISTEN."""
    rows = (line.split() for line in tables.splitlines())
    return any(len(row) > 3 and row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


@dataclass(frozen=True)
class Transfer:
    gigabits: float
    retransmits: int


def transfer(text: str) -> Transfer:
    """What `iperf3 -J` says of a TCP run: the receiver's rate."""
    try:
        told = json.loads(text)
    except ValueError as why:
        raise Failed("iperf3 printed no JSON") from why
    if "error" in told:
        raise Failed(f"iperf3: {told['error']}")
    try:
        rate, retransmits = told["end"]["sum_received"]["bits_per_second"], told["end"]["sum_sent"].get("retransmits", 0)
    except (KeyError, TypeError) as why:
        raise Failed("iperf3 printed no result") from why
    if rate <= 0:
        raise Failed("iperf3: nothing was received")
    return Transfer(rate / 1e9, int(retransmits))
