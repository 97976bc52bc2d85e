# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the whole test run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# By hand each run tries new inputs; a test machine tries the same each time.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

DEFAULT_RUNTIME = Path(__file__).resolve().parent.parent / "build/ocirt"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--runtime",
        metavar="PATH",
        default=str(DEFAULT_RUNTIME),
        help="the runtime that the integration tests run (default: build/ocirt)",
    )
