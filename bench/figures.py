"""What is measured of a row: one list for the runner, the tables and the plot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    key: str
    title: str
    unit: str
    digits: int
    more_is_better: bool


FIGURES = (
    Figure("tcp1", "TCP, 1 stream", "Gbit/s", 2, True),
    Figure("tcp4", "TCP, 4 streams", "Gbit/s", 2, True),
    Figure("tcp1_daemons", "CPU of both daemons, 1 stream", "s/GB", 2, False),
    Figure("tcp1_machine", "CPU of the machine, 1 stream", "s/GB", 2, False),
    Figure("tcp4_daemons", "CPU of both daemons, 4 streams", "s/GB", 2, False),
    Figure("tcp4_machine", "CPU of the machine, 4 streams", "s/GB", 2, False),
    Figure("udp_held", "64-byte UDP, loss under 0.5 %", "kpps", 0, True),
    Figure("udp_flood", "64-byte UDP received in a flood", "kpps", 0, True),
    Figure("idle_p50", "Round trip, idle, p50", "µs", 0, False),
    Figure("idle_p99", "Round trip, idle, p99", "µs", 0, False),
    Figure("loaded_p50", "Round trip beside a full TCP stream, p50", "µs", 0, False),
    Figure("loaded_p99", "Round trip beside a full TCP stream, p99", "µs", 0, False),
    Figure("loaded_max", "Round trip beside a full TCP stream, max", "µs", 0, False),
    Figure("memory", "Resident memory of a host, idle", "MB", 1, False),
)
BY_KEY = {figure.key: figure for figure in FIGURES}
