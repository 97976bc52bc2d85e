# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes' taking turns, as the runtime hears of it."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

import pytest

from ocirt.kernel.constants import CLONE_NEWNS
from ocirt.parts.process import CloneInit
from ocirt.parts.step import Context, Side, Step
from ocirt.runtime.channel import Channel, News
from ocirt.runtime.execute import Execution
from ocirt.spec.validate import config_from_bytes

PATIENCE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Note:
    """An action that only says that it ran."""

    ran: list[str]

    def run(self, c: Context) -> None:
        self.ran.append("ours")


@pytest.mark.parametrize("first", [News.BORN, News.TURN])
def test_init_may_be_faster_than_the_joiner(first: News) -> None:
    """The joiner says whom it cloned; init, that it has done its part: whichever comes first."""
    ran: list[str] = []
    ours, theirs = Channel.pair()
    context = Context(
        config=config_from_bytes(b'{"ociVersion": "1.3.0"}', "test"),
        container_id="c",
        bundle="/",
        rootfs="/",
        warn=ran.append,
        born=lambda pid, fd: ran.append(f"born {pid}"),
    )
    execution = Execution(context, ours, theirs, note=lambda undo: None)
    clone = Step(Side.JOINER, "clone init", "", CloneInit(CLONE_NEWNS), undo="kill init")
    steps = [clone, Step(Side.INIT, "", "", Note([])), Step(Side.RUNTIME, "", "", Note(ran))]
    for news in sorted((News.BORN, News.TURN), key=lambda news: news is not first):
        theirs.send(news, **({"pid": os.getpid()} if news is News.BORN else {}))
    runtime = threading.Thread(target=execution.run, args=(steps,), daemon=True)
    runtime.start()
    runtime.join(PATIENCE_SECONDS)
    assert not runtime.is_alive(), "it waits for what has been said"
    assert ran == [f"born {os.getpid()}", "ours"]
