# SPDX-License-Identifier: GPL-3.0-or-later
"""What main() changes in its process is put back."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    logger = logging.getLogger("ocirt")
    handlers = {number: signal.getsignal(number) for number in ENDING}
    log = (logger.level, logger.propagate, list(logger.handlers))
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    logger.level, logger.propagate, logger.handlers = log
