"""From runs to medians, ranges and ratios. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .figures import BY_KEY, FIGURES
from .rows import REFERENCES


@dataclass(frozen=True)
class Spread:
    median: float
    low: float
    high: float
    count: int

    @staticmethod
    def of(values: Iterable[float]) -> Spread | None:
        values = list(values)
        return Spread(median(values), min(values), max(values), len(values)) if values else None


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By underlay and row: figures with their ratios, and the errors, each told once."""
    result: dict[str, dict[str, Any]] = {}
    for run in runs:
        result.setdefault(run["underlay"], {}).setdefault(run["row"], None)
    for underlay, rows in result.items():
        here = [run for run in runs if run["underlay"] == underlay]
        for row in rows:
            rows[row] = of_row([run for run in here if run["row"] == row], here)
    return result


def of_row(own: Sequence[Mapping[str, Any]], all_rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    figures = {}
    for figure in FIGURES:
        spread = Spread.of(run["figures"][figure.key] for run in own if figure.key in run["figures"])
        if spread is not None:
            vs = {name: ratio(figure.key, own, all_rows, name) for name in REFERENCES}
            figures[figure.key] = vars(spread) | {"vs": {name: value for name, value in vs.items() if value is not None}}
    errors = dict.fromkeys(
        f"{BY_KEY[part].title if part in BY_KEY else part}: {why}" for run in own for part, why in run["errors"].items()
    )
    failed = sum("start" in run["errors"] for run in own)
    return {"rounds": len(own), "failed": failed, "figures": figures, "errors": list(errors)}


def ratio(key: str, own: Sequence[Mapping[str, Any]], all_rows: Sequence[Mapping[str, Any]], reference: str) -> float | None:
    """Median of what the row did against what the reference did in the same round: slow changes of the machine cancel out."""
    theirs = {run["round"]: run["figures"].get(key) for run in all_rows if run["row"] == reference}
    pairs = ((run["figures"].get(key), theirs.get(run["round"])) for run in own)
    ratios = [mine / other for mine, other in pairs if mine is not None and other]
    return median(ratios) if ratios else None
