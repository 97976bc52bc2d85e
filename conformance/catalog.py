# SPDX-License-Identifier: GPL-3.0-or-later
"""Which requirements have tests: pytest's collection, asked."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from conformance.requirement import Requirement


class _Collector:
    def __init__(self) -> None:
        self.found: list[Requirement] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self.found += [mark.args[0] for mark in item.iter_markers("requirement")]


def tested() -> list[Requirement]:
    """Return the requirements that tests show; one may appear several times."""
    collector = _Collector()
    folder = str(Path(__file__).resolve().parent)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = pytest.main(["--collect-only", "-q", folder], plugins=[collector])
    if status != pytest.ExitCode.OK:
        raise SystemExit(said.getvalue())
    return collector.found
