"""The results as a picture: a group of horizontal bars per figure, a column of groups per underlay. Pure, and plain SVG.

The picture has a ground of its own and follows the reader's choice of light or dark, so it is readable on any page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from .figures import BY_KEY, Figure
from .rows import REFERENCES, ROWS, Row
from .table import number, times

PLOTTED = ("tcp1", "tcp4", "tcp1_machine", "udp_held", "idle_p50")

# Geometry, in pixels.
MARGIN, NAMES, BARS, LABELS, GAP = 20, 150, 165, 215, 24
LINE, BAR, HEAD, TOP = 17, 11, 40, 84

STYLE = """
  text { font: 11px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 }
  .head { font-size: 12px; font-weight: 600 }
  .dim { fill: #59636e }
  .ground { fill: #ffffff; stroke: #d1d9e0 }
  .bar { fill: #9aa4af }
  .own { fill: #0969da }
  .axis { stroke: #818b98; stroke-width: 1 }
  .range { stroke: #1f2328; stroke-width: 1 }
  .end { text-anchor: end }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .dim { fill: #9198a1 }
    .ground { fill: #0d1117; stroke: #3d444d }
    .bar { fill: #656c76 }
    .own { fill: #4493f8 }
    .axis { stroke: #656c76 }
    .range { stroke: #f0f6fc }
  }
"""
UNDERLAYS = {"veth": "underlay: veth, super-packets uncut", "wire": "underlay: wire, each packet on its own"}


def text(x: float, y: float, words: str, kind: str = "") -> str:
    css = f" class={quoteattr(kind)}" if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{css}>{escape(words)}</text>\n'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class={quoteattr(kind)}/>\n'


def label(figure: Figure, seen: Mapping[str, Any], own: str) -> str:
    """The value, and how it compares with each reference."""
    versus = [f"{times(seen['vs'][name])}× {title}" for name, title in REFERENCES.items() if name in seen["vs"] and name != own]
    return " · ".join([number(seen["median"], figure.digits), *versus])


def bar(x: float, y: float, scale: float, row: Row, figure: Figure, summary: Mapping[str, Any] | None) -> str:
    """One row's bar with its range and label, or why there is none."""
    middle = y + BAR / 2
    seen = summary["figures"].get(figure.key) if summary else None
    if seen is None:
        return text(x + 4, middle + 4, "failed" if summary else "not measured", "dim")
    width = seen["median"] * scale
    kind = "own" if row.name.startswith("rnet") else "bar"
    parts = [f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{BAR}" class="{kind}"/>\n']
    if seen["high"] > seen["low"]:
        parts.append(line(x + seen["low"] * scale, middle, x + seen["high"] * scale, middle, "range"))
    parts.append(text(x + max(width, seen["high"] * scale) + 5, middle + 4, label(figure, seen, row.name)))
    return "".join(parts)


def group(y: float, figure: Figure, rows: list[Row], summary: Mapping[str, Mapping[str, Any]]) -> str:
    """One figure: names on the left, then a column of bars per underlay, all to one scale."""
    better = "more is better" if figure.more_is_better else "less is better"
    parts = [text(MARGIN, y + 14, f"{figure.title}, {figure.unit}", "head"), text(MARGIN, y + 28, better, "dim")]
    top = y + HEAD
    seen = [row["figures"].get(figure.key) for by_row in summary.values() for row in by_row.values()]
    scale = BARS / max([one["high"] for one in seen if one and one["high"] > 0], default=1)
    for index, row in enumerate(rows):
        parts.append(text(MARGIN + NAMES - 8, top + index * LINE + BAR - 1, row.title, "end"))
    for column, by_row in enumerate(summary.values()):
        x = MARGIN + NAMES + column * (BARS + LABELS + GAP)
        parts += [bar(x, top + index * LINE, scale, row, figure, by_row.get(row.name)) for index, row in enumerate(rows)]
        parts.append(line(x, top - 3, x, top + len(rows) * LINE, "axis"))
    return "".join(parts)


def svg(results: Mapping[str, Any]) -> str:
    summary = results["summary"]
    rows = [row for row in ROWS if any(row.name in by_row for by_row in summary.values())]
    figures = [BY_KEY[key] for key in PLOTTED]
    step = HEAD + len(rows) * LINE + GAP
    width = 2 * MARGIN + NAMES + len(summary) * (BARS + LABELS + GAP) - GAP
    height = TOP + len(figures) * step
    machine = f"{results['date']}, {results['machine']['cpus']} × {results['machine']['cpu']}" + (
        ", quick run" if results["quick"] else ""
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">\n',
        "<title>rnet beside its peers</title>\n",
        f"<style>{STYLE}</style>\n",
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8" class="ground"/>\n',
        text(MARGIN, 28, "rnet beside its peers, two hosts on one machine", "title"),
        text(MARGIN, 46, machine, "dim"),
    ]
    for column, underlay in enumerate(summary):
        parts.append(text(MARGIN + NAMES + column * (BARS + LABELS + GAP), 72, UNDERLAYS[underlay], "dim"))
    parts += [group(TOP + index * step, figure, rows, summary) for index, figure in enumerate(figures)]
    return "".join(parts) + "</svg>\n"
