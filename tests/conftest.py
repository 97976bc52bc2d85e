# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the whole test run."""

from __future__ import annotations

from pathlib import Path

import pytest

DEFAULT_RUNTIME = Path(__file__).resolve().parent.parent / "build/ocirt"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--runtime",
        metavar="PATH",
        default=str(DEFAULT_RUNTIME),
        help="the runtime that the integration tests run (default: build/ocirt)",
    )
