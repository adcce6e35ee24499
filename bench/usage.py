"""Processor time and memory, of processes and of the whole machine, from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Moment:
    """Seconds so far."""

    clock: float
    daemons: float
    machine: float
    stolen: float


@dataclass(frozen=True)
class Load:
    """Between two moments: processors that were busy, on average."""

    daemons: float
    machine: float
    stolen: float


def now(pids: Iterable[int]) -> Moment:
    busy, stolen = machine_seconds(Path("/proc/stat").read_text())
    return Moment(time.monotonic(), sum(process_seconds(pid) for pid in pids), busy, stolen)


def between(start: Moment, end: Moment) -> Load:
    span = end.clock - start.clock
    return Load((end.daemons - start.daemons) / span, (end.machine - start.machine) / span, (end.stolen - start.stolen) / span)


def machine_seconds(stat: str) -> tuple[float, float]:
    """Busy and stolen time of all processors, from the text of /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(word) for word in stat.splitlines()[0].split()[1:9])
    return (user + nice + system + irq + softirq) / TICKS, steal / TICKS


def process_seconds(pid: int) -> float:
    """Of all threads: to the nanosecond where the kernel keeps it, else in ticks."""
    try:
        threads = [(task / "schedstat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(int(thread.split()[0]) for thread in threads) / 1e9
    except (OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def resident_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0
