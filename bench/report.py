# SPDX-License-Identifier: GPL-3.0-or-later
"""From measurements to a table, JSON and a picture. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

# Operation -> at most this much of crun back to back, of crun idle between, of runc in either mode.
TARGETS: dict[str, tuple[float | None, float | None, float | None]] = {
    "run": (0.6, 0.35, 0.3),
    "create+start+delete": (0.5, 0.35, 0.25),
    "run, seccomp": (0.3, 0.25, 0.2),
    "exec": (0.6, 0.4, 0.3),
    "state": (0.3, 0.3, 0.25),
    "64 creates": (0.6, None, 0.3),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One operation in one mode: milliseconds of each runtime, by its name."""

    operation: str
    mode: str
    times: Mapping[str, Sequence[float]]

    def median(self, runtime: str) -> float | None:
        """Return the median in milliseconds, None if the runtime couldn't do it."""
        return statistics.median(self.times[runtime]) if self.times.get(runtime) else None

    def spread(self, runtime: str) -> float:
        """Return the interquartile range in milliseconds."""
        values = self.times[runtime]
        if len(values) < 2:
            return 0.0
        quarters = statistics.quantiles(values, n=4)
        return quarters[2] - quarters[0]

    def ratio(self, peer: str, ours: str = "ocirt") -> float | None:
        """Return our median as a part of a peer's."""
        mine, theirs = self.median(ours), self.median(peer)
        return mine / theirs if mine and theirs else None

    def target(self, peer: str) -> float | None:
        """Return what the ratio to a peer should be at most."""
        crun, crun_idle, runc = TARGETS.get(self.operation, (None, None, None))
        if peer == "runc":
            return runc
        return crun_idle if self.mode == "idle" else crun


def table(rows: Sequence[Row], runtimes: Sequence[str]) -> str:
    """Return a Markdown table: medians (and spreads) in ms, ratios, and targets."""
    peers = [r for r in runtimes if r != "ocirt"]
    head = ["operation", "mode", *(f"{r} ms" for r in runtimes), *(f"of {p}" for p in peers)]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows:
        cells = [row.operation, row.mode]
        cells += [_time(row, runtime) for runtime in runtimes]
        cells += [_ratio(row, peer) for peer in peers]
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _time(row: Row, runtime: str) -> str:
    median = row.median(runtime)
    return "-" if median is None else f"{median:.2f} (±{row.spread(runtime) / 2:.2f})"


def _ratio(row: Row, peer: str) -> str:
    ratio, target = row.ratio(peer), row.target(peer)
    if ratio is None:
        return "-"
    if target is None:
        return f"{ratio:.2f}"
    return f"{ratio:.2f} ({'met' if ratio <= target else 'missed'}: ≤ {target})"


_COLOURS = {"ocirt": "#2a6", "crun": "#47c", "runc": "#c84"}
_BAR, _GAP, _LEFT, _WIDTH = 12, 10, 210, 760


def svg(rows: Sequence[Row], runtimes: Sequence[str]) -> str:
    """Return a bar chart of the medians."""
    longest = max((row.median(r) or 0.0 for row in rows for r in runtimes), default=0.0) or 1.0
    scale = (_WIDTH - _LEFT - 70) / longest
    y = _GAP
    parts = []
    for row in rows:
        label = escape(f"{row.operation}, {row.mode}")
        parts.append(f'<text x="4" y="{y + _BAR}">{label}</text>')
        for runtime in runtimes:
            median = row.median(runtime) or 0.0
            colour = _COLOURS.get(runtime, "#888")
            parts.append(
                f'<rect x="{_LEFT}" y="{y}" width="{median * scale:.1f}" height="{_BAR - 2}"'
                f' fill="{colour}"/><text x="{_LEFT + median * scale + 4:.1f}" y="{y + _BAR - 2}">'
                f"{escape(runtime)} {median:.1f} ms</text>"
            )
            y += _BAR
        y += _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}"'
        f' font-family="sans-serif" font-size="10">{"".join(parts)}</svg>\n'
    )
