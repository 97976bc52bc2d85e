# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/conformance.md from the results of runs: `make conformance-page`."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from conformance.programs import NOTES
from conformance.requirement import DOCUMENTS, Level, Requirement
from conformance.untested import UNTESTED

SIGNS = {"pass": "yes", "fail": "**no**", "skip": "n/a"}
OURS = "ocirt"

HEAD = """\
# Conformance

What the [runtime specification](https://github.com/opencontainers/runtime-spec) 1.3 demands of a
runtime for Linux, sentence by sentence, and which runtime does it. `make conformance` runs the
tests, `make conformance RUNTIME=/usr/sbin/runc` with another runtime; `make conformance-page`
writes this page, whose every mark is the result of a test.

A sentence is found by its document, its chapter and its number there: paragraphs, list entries and
rows of tables each begin one, code isn't counted. `python -m conformance.sentences FOLDER` numbers
those of a checkout of the specification, and tells which demand has neither a test nor a reason.
**yes**: all tests of it pass; **no**: one doesn't; n/a: it couldn't be tried here.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A requirement, the runtimes' verdicts, why a test is right that peers fail, what we lack."""

    what: Requirement
    verdicts: tuple[str, ...]
    right: str
    missing: str

    @property
    def contested(self) -> bool:
        """No peer passes, and at least one was tried."""
        peers = self.verdicts[1:]
        return "pass" not in peers and "fail" in peers


def verdict(outcomes: Iterable[str]) -> str:
    """Return what several tests of one requirement say together."""
    found = set(outcomes)
    return next((each for each in ("fail", "pass") if each in found), "skip")


def rows_of(runs: list[dict[str, Any]]) -> list[Row]:
    """Return the requirements in the specification's order; runs are the --results, ours first."""
    seen: dict[Requirement, list[list[dict[str, Any]]]] = {}
    names: dict[tuple[str, str, int, str], Requirement] = {}
    for number, run in enumerate(runs):
        for test in run["tests"]:
            for entry in test["requirements"]:
                what = Requirement(**entry | {"level": Level(entry["level"])})
                # Several tests may show one; the first one's words stand for it.
                place = (what.document, what.chapter, what.sentence, what.level)
                what = names.setdefault(place, what)
                seen.setdefault(what, [[] for _ in runs])[number].append(test)
    rows = [
        Row(
            what,
            tuple(verdict(test["outcome"] for test in tests) for tests in by_run),
            "; ".join(dict.fromkeys(t["right"] for t in by_run[0] if t["right"])),
            "; ".join(dict.fromkeys(t["missing"] for t in by_run[0] if t["missing"])),
        )
        for what, by_run in seen.items()
    ]
    return sorted(rows, key=lambda row: (DOCUMENTS.index(row.what.document),))


def check(rows: list[Row]) -> None:
    """Raise SystemExit where no peer passes and nothing says why the test is right."""
    bare = [str(row.what) for row in rows if row.contested and not row.right]
    if bare:
        raise SystemExit(
            "no peer passes, and no note says why the test is right:\n" + "\n".join(bare)
        )


def summary(rows: list[Row], runtimes: list[str]) -> str:
    lines = [
        "## Summary",
        "",
        f"{len(rows) + len(UNTESTED)} demands: {len(rows)} tested,"
        f" {len(UNTESTED)} [not tested](#not-tested).",
        "",
        "| | " + " | ".join(runtimes) + " |",
        "| --- " * (len(runtimes) + 1) + "|",
    ]
    for level in ("MUST", "SHOULD"):
        counts = [
            Counter(row.verdicts[n] for row in rows if row.what.level.startswith(level))
            for n in range(len(runtimes))
        ]
        cells = [f"{c['pass']} of {c['pass'] + c['fail']}" for c in counts]
        lines.append(f"| {level} and {level} NOT | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def missing(rows: list[Row]) -> str:
    """What ocirt doesn't do."""
    bad = [row for row in rows if row.verdicts[0] == "fail"]
    if not bad:
        return ""
    by_reason: dict[str, list[str]] = {}
    for row in bad:
        by_reason.setdefault(row.missing or "not known", []).append(
            f"{row.what.chapter} {row.what.sentence}"
        )
    lines = [
        f"- {reason}: {', '.join(dict.fromkeys(where))}" for reason, where in by_reason.items()
    ]
    return "\n".join([f"What {OURS} lacks:", "", *lines])


def tables(rows: list[Row], runtimes: list[str]) -> str:
    parts = []
    notes: dict[str, int] = {}
    names = [runtime.split()[0] for runtime in runtimes]
    for document, of_document in groupby(rows, key=lambda row: row.what.document):
        parts += [f"## {document}", ""]
        by_chapter: dict[str, list[Row]] = {}
        for row in of_document:
            by_chapter.setdefault(row.what.chapter, []).append(row)
        for chapter, of_chapter in by_chapter.items():
            parts += [f"### {chapter}", "", "| sentence | | demand | " + " | ".join(names) + " |"]
            parts.append("| --- " * (len(names) + 3) + "|")
            for row in sorted(of_chapter, key=lambda row: (row.what.sentence, row.what.level)):
                cells = [SIGNS[each] for each in row.verdicts]
                note = ""
                if row.contested:
                    note = f" ({notes.setdefault(row.right, len(notes) + 1)})"
                what = f"| {row.what.sentence} | {row.what.level} | {row.what.says}{note} | "
                parts.append(what + " | ".join(cells) + " |")
            parts.append("")
    listed = [f"{number}. {why}" for why, number in notes.items()]
    return "\n".join([*parts, "## Where no peer passes", "", "Why the test is right:", "", *listed])


def untested() -> str:
    by_reason: dict[str, list[str]] = {}
    for entry in UNTESTED:
        what = entry.what
        by_reason.setdefault(entry.why, []).append(
            f"| {what.document} | {what.chapter} | {what.sentence} | {what.level} | {what.says} |"
        )
    parts = ["## Not tested", ""]
    for why, lines in by_reason.items():
        parts += [f"{why[0].upper()}{why[1:]}:", "", "| document | chapter | sentence | | demand |"]
        parts += ["| --- " * 5 + "|", *lines, ""]
    return "\n".join(parts).rstrip()


def programs(outcomes: list[dict[str, dict[str, str]]], names: list[str]) -> str:
    """The table of runtime-tools' programs; outcomes: a runtime each, by program."""
    counts = [Counter(o["verdict"] for o in by_program.values()) for by_program in outcomes]
    lines = [
        "## The validation programs of OCI runtime-tools",
        "",
        "Run one at a time, each with namespaces and a cgroup of its own and a time limit:"
        " `make conformance RUNTIME_TOOLS=DIR`, DIR being a checkout of"
        " [runtime-tools](https://github.com/opencontainers/runtime-tools) after"
        " `make runtimetest validation-executables`."
        f" Of {len(outcomes[0])} programs "
        + ", ".join(f"{n} passes {c['pass']}" for n, c in zip(names, counts, strict=True))
        + ".",
        "",
        "| program | " + " | ".join(names) + " | |",
        "| --- " * (len(names) + 2) + "|",
    ]
    for program in outcomes[0]:
        verdicts = [by_program[program]["verdict"] for by_program in outcomes]
        note = NOTES.get(program, "") if "fail" in verdicts else ""
        lines.append(f"| {program} | {' | '.join(SIGNS[v] for v in verdicts)} | {note} |")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Print the page."""
    parser = argparse.ArgumentParser(prog="conformance.page", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="files of --results, ocirt's first")
    parser.add_argument("--tools", nargs="*", type=Path, help="conformance.tools' files, likewise")
    options = parser.parse_args(argv)
    runs = [json.loads(path.read_text()) for path in options.results]
    runtimes = [run["runtime"].replace(" version", "") for run in runs]
    rows = rows_of(runs)
    check(rows)
    parts = [HEAD.rstrip(), summary(rows, runtimes), missing(rows)]
    if options.tools:
        tools = [json.loads(path.read_text()) for path in options.tools]
        by_program = [{entry["program"]: entry for entry in found} for found in tools]
        parts.append(programs(by_program, [runtime.split()[0] for runtime in runtimes]))
    parts += [tables(rows, runtimes), untested()]
    print("\n\n".join(part for part in parts if part))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
