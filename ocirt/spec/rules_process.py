# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules on process (config.md, "Process"), of config.json or of the file that exec takes."""

from __future__ import annotations

from collections.abc import Iterator

from ocirt.spec.names import CAPABILITIES
from ocirt.spec.report import Json, Result, error, relative, twice, warning

_REAL_TIME = ("SCHED_FIFO", "SCHED_RR")
_DEADLINE = "SCHED_DEADLINE"


def process(document: Json, at: str) -> Iterator[Result]:
    """Check a process; at is its pointer."""
    yield from _args(document, at)
    yield from relative(document["cwd"], f"{at}/cwd", "cwd")
    yield from environment(document.get("env", []), f"{at}/env")
    yield from _rlimits(document.get("rlimits", []), f"{at}/rlimits")
    yield from _capabilities(document.get("capabilities", {}), f"{at}/capabilities")
    if "scheduler" in document:
        yield from _scheduler(document["scheduler"], f"{at}/scheduler")


def environment(entries: list[str], pointer: str) -> Iterator[Result]:
    """Check the environment of a process or a hook."""
    for index, entry in enumerate(entries):
        if not entry.partition("=")[1] or entry.startswith("="):
            where = f"{pointer}/{index}"
            yield error(where, "env", "isn't of the form NAME=value", entry, "NAME=value")


def _args(document: Json, at: str) -> Iterator[Result]:
    # commandLine doesn't stand in for it: that is Windows'.
    args = document.get("args")
    if not args:
        message = "is empty: there is no program to run" if args == [] else "is missing"
        yield error(f"{at}/args", "args-empty", message, allowed="a program and its arguments")
    elif not args[0]:
        yield error(f"{at}/args/0", "args-empty", "is empty: there is no program to run")


def _rlimits(rlimits: list[Json], pointer: str) -> Iterator[Result]:
    words = "is a second limit of this type"
    yield from twice(rlimits, pointer, "rlimit-twice", words, lambda limit: limit["type"])
    for index, limit in enumerate(rlimits):
        if limit["soft"] > limit["hard"]:
            allowed = f"at most hard ({limit['hard']})"
            where = f"{pointer}/{index}/soft"
            yield error(where, "rlimit-order", "is above hard", limit["soft"], allowed)


def _capabilities(capabilities: Json, pointer: str) -> Iterator[Result]:
    for name, wanted in capabilities.items():
        for index, capability in enumerate(wanted if isinstance(wanted, list) else ()):
            if capability not in CAPABILITIES:
                yield warning(
                    f"{pointer}/{name}/{index}",
                    "capability-unknown",
                    "isn't a capability that ocirt knows; it is left out",
                    capability,
                )


def _scheduler(scheduler: Json, pointer: str) -> Iterator[Result]:
    """Report fields that the policy has no use for (sched_setattr(2)); 0 stands for absent."""
    policy = scheduler["policy"]
    foreign = ["priority"] if policy not in _REAL_TIME else []
    if policy != _DEADLINE:
        foreign += ["runtime", "deadline", "period"]
    for name in foreign:
        if scheduler.get(name):
            message = f"has no meaning with {policy}"
            yield error(f"{pointer}/{name}", "scheduler-field", message, scheduler[name])
