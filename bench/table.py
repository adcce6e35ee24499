"""The results as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from .figures import BY_KEY
from .rows import REFERENCES, ROWS

NOTHING = "–"
# Processors that others may use before the figures are in doubt.
BUSY = 0.15
Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    title: str
    cell: Callable[[Summary], str]


def number(value: float, digits: int) -> str:
    """As many digits as asked for, but never all of them zeros for something that is not."""
    if value == 0:
        return "0"
    while value and digits < 4 and abs(value) < 0.5 * 10**-digits:
        digits += 1
    return f"{value:.{digits}f}"


def times(ratio: float) -> str:
    """A ratio with two digits that count, and a third where it is near 1."""
    return f"{ratio:.{0 if ratio >= 10 else 1 if ratio >= 3 else 2}f}"


def value(key: str, spread: bool, scale: float = 1, digits: int | None = None) -> Callable[[Summary], str]:
    def cell(row: Summary) -> str:
        seen = row["figures"].get(key)
        if seen is None:
            return NOTHING
        shown = [
            number(seen[part] * scale, BY_KEY[key].digits if digits is None else digits) for part in ("median", "low", "high")
        ]
        return f"{shown[0]} ({shown[1]}–{shown[2]})" if spread and seen["count"] > 1 else shown[0]

    return cell


def several(*cells: Callable[[Summary], str]) -> Callable[[Summary], str]:
    return lambda row: " / ".join(cell(row) for cell in cells)


def ratio(key: str, reference: str) -> Callable[[Summary], str]:
    def cell(row: Summary) -> str:
        seen = row["figures"].get(key, {}).get("vs", {}).get(reference)
        return NOTHING if seen is None else times(seen)

    return cell


def ratios(key: str) -> list[Column]:
    return [Column(f"× {title}", ratio(key, name)) for name, title in REFERENCES.items()]


SHORT = (
    Column("TCP 1 Gbit/s", value("tcp1", spread=True)),
    *ratios("tcp1"),
    Column("TCP 4 Gbit/s", value("tcp4", spread=False)),
    Column("CPU s/GB, daemons / all", several(value("tcp1_daemons", spread=False), value("tcp1_machine", spread=False))),
    Column("UDP kpps", value("udp_held", spread=False)),
    Column("round trip µs, p50 / p99", several(value("idle_p50", spread=False), value("idle_p99", spread=False))),
    Column("under load ms, p99", value("loaded_p99", False, 0.001, 2)),
    Column("MB", value("memory", spread=False)),
)

FULL = (
    Column("TCP 1 Gbit/s", value("tcp1", spread=True)),
    *ratios("tcp1"),
    Column("TCP 4 Gbit/s", value("tcp4", spread=True)),
    *ratios("tcp4"),
    Column("TCP 1 CPU s/GB, daemons / all", several(value("tcp1_daemons", False), value("tcp1_machine", spread=True))),
    Column("TCP 4 CPU s/GB, daemons / all", several(value("tcp4_daemons", False), value("tcp4_machine", spread=True))),
    Column("UDP kpps under 0.5 % loss", value("udp_held", spread=True)),
    *ratios("udp_held"),
    Column("UDP kpps in a flood", value("udp_flood", spread=True)),
    Column("round trip µs, p50", value("idle_p50", spread=True)),
    Column("p99", value("idle_p99", spread=True)),
    Column("under load ms, p50", value("loaded_p50", False, 0.001, 2)),
    Column("p99", value("loaded_p99", True, 0.001, 2)),
    Column("max", value("loaded_max", True, 0.001, 2)),
    Column("MB", value("memory", spread=False)),
)


def table(rows: Mapping[str, Summary], columns: tuple[Column, ...]) -> str:
    """`rows`: the summary of one underlay."""
    lines = [["", *(column.title for column in columns)], ["---"] + ["---:"] * len(columns)]
    for row in ROWS:
        if row.name in rows:
            cells = [escape(column.cell(rows[row.name])) for column in columns]
            title = f"**{row.title}**" if row.name.startswith("rnet") else row.title
            lines.append([title + (" (host to host)" if row.hosts else ""), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def failures(rows: Mapping[str, Summary]) -> str:
    lines = [f"- {row.title}: {escape(why)}\n" for row in ROWS if row.name in rows for why in rows[row.name]["errors"]]
    return "\nFailed:\n\n" + "".join(lines) if lines else ""


def escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def about(results: Mapping[str, Any]) -> str:
    """Of what machine and when, in a sentence or two."""
    machine = results["machine"]
    count = f"{results['rounds']} interleaved rounds" if results["rounds"] > 1 else "one round"
    told = f"{results['date']}, {machine['cpus']} × {machine['cpu']}, {machine['kernel']}; medians of {count}."
    if results["paced"]:
        told += " Each stream is paced by a timer, as on machines whose default is bbr."
    if results["quick"]:
        told += " **A quick run: the figures show only that everything works.**"
    others = median(run["notes"].get("others_busy_cpus", 0) for run in results["runs"])
    if others > BUSY:
        told += f" **Other work on the machine took {others:.1f} processors meanwhile.**"
    return told


UNDERLAYS = {
    "veth": "`veth`: the line between the hosts carries super-packets uncut, which is free.",
    "wire": "`wire`: each packet crosses the line on its own, as with a network card without offloads.",
}


def full(results: Mapping[str, Any]) -> str:
    """The page beside the results."""
    parts = [f"# The last comparison\n\n{about(results)}\nbench/README.md says how to read it.\n"]
    for underlay, rows in results["summary"].items():
        parts.append(f"\n## {UNDERLAYS[underlay]}\n\n{table(rows, FULL)}{failures(rows)}")
    if results["skipped"]:
        parts.append("\n## Not measured\n\n" + "".join(f"- {name}: {escape(why)}\n" for name, why in results["skipped"].items()))
    versions = ", ".join(f"{name}: {version}" for name, version in results["versions"].items() if version)
    return "".join(parts) + f"\nVersions: {escape(versions)}\n"


def short(results: Mapping[str, Any]) -> str:
    """For the project's README: the first underlay only."""
    underlay, rows = next(iter(results["summary"].items()))
    picture = "![rnet beside its peers: TCP throughput, CPU, packets per second and round trips](bench/results/throughput.svg)"
    return f"{about(results)} {UNDERLAYS[underlay]}\n\n{picture}\n\n{table(rows, SHORT)}{failures(rows)}"


BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def between_markers(page: str, text: str) -> str:
    """The page with this text between the markers; ValueError if they are not there, once and in order."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"no {BEGIN} and {END}, once and in this order")
    head, tail = page.split(BEGIN)[0], page.split(END)[1]
    return f"{head}{BEGIN}\n{text.strip()}\n{END}{tail}"
