# SPDX-License-Identifier: GPL-3.0-or-later
"""The results of a run, for programs: TAP and JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from conformance import peer
from conformance.requirement import Requirement


@dataclass(slots=True)
class TestResult:
    """One test's result. outcome: pass, fail or skip; why: the end of an error, or the reason."""

    name: str
    outcome: str = "skip"
    why: str = ""
    right: str = ""
    # Why the runtime under test is known not to pass.
    missing: str = ""
    requirements: list[Requirement] = field(default_factory=list)


class Reporter:
    """A pytest plugin that collects what happened to each test."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._results: dict[str, TestResult] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            marks = list(item.iter_markers("requirement"))
            if not marks:
                raise pytest.UsageError(f"{item.nodeid} shows no requirement")
            # The lowest decorator comes first; a page reads better from the top.
            result = TestResult(item.nodeid.removeprefix("conformance/"))
            result.requirements = [mark.args[0] for mark in reversed(marks)]
            if (right := item.get_closest_marker("right")) is not None:
                result.right = right.args[0]
            self._results[item.nodeid] = result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        result = self._results[report.nodeid]
        if missing := getattr(report, "wasxfail", ""):
            result.outcome = "pass" if report.passed else "fail"
            result.why = result.missing = missing
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            result.outcome, result.why = "skip", str(reason).removeprefix("Skipped: ")
        elif report.failed and report.when != "teardown":
            # What a test leaves behind fails the run, but isn't what the test shows.
            result.outcome, result.why = "fail", _last_words(report)
        elif report.when == "call":
            result.outcome = "pass"

    def pytest_sessionfinish(self) -> None:
        if self._config.option.collectonly:
            return
        results = list(self._results.values())
        if place := self._config.getoption("--tap"):
            text = tap(results)
            if place == "-":
                sys.stdout.write(text)
            else:
                Path(place).write_text(text)
        if place := self._config.getoption("--results"):
            runtime = str(self._config.getoption("--runtime"))
            document = {
                "runtime": peer.version(runtime),
                "tests": [asdict(result) for result in results],
            }
            Path(place).write_text(json.dumps(document, indent=1) + "\n")


def _last_words(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    message = crash.message if crash else str(report.longrepr)
    return str(message).splitlines()[0][:200]


def tap(results: list[TestResult]) -> str:
    """Return the results as TAP 13: a line per test, its requirements and error as comments."""
    lines = ["TAP version 13", f"1..{len(results)}"]
    for number, result in enumerate(results, 1):
        ok = "not ok" if result.outcome == "fail" else "ok"
        remark = f" # SKIP {result.why}" if result.outcome == "skip" else ""
        if result.missing:
            remark = f" # TODO {result.missing}"
        lines.append(f"{ok} {number} - {result.name}{remark}")
        lines += [f"# {what}" for what in result.requirements]
        if result.outcome == "fail":
            lines.append(f"# {result.why}")
    return "\n".join(lines) + "\n"
