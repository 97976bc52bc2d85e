# SPDX-License-Identifier: GPL-3.0-or-later
"""The hooks around a container's life that aren't steps of create: poststart and poststop."""

from __future__ import annotations

import logging
import os

from ocirt.errors import OcirtError
from ocirt.kernel.stublist import Failure, HookEnd
from ocirt.parts.hooks import describe_end, hook_state, log_hook, output_files, run_hook
from ocirt.runtime.store import CONFIG, Entry, Record
from ocirt.spec.model import Config, Hook
from ocirt.spec.validate import config_from_bytes

_log = logging.getLogger("ocirt")


def kept_config(entry: Entry) -> Config:
    """Return the configuration as it was at create; later edits of the bundle don't count."""
    return config_from_bytes(entry.read(CONFIG), f"{entry.path}/{CONFIG}")


def run_poststart(entry: Entry, record: Record) -> None:
    """Run the poststart hooks. Raises OcirtError at the first that fails (runtime.md, step 10)."""
    config = kept_config(entry)
    document = hook_state(config, record.id, "running", record.init_pid, record.bundle)
    with output_files(config.annotations) as files:
        for index, hook in enumerate(config.hooks.poststart):
            pointer = f"/hooks/poststart/{index}"
            try:
                run_hook(hook, document, pointer, cwd=record.bundle, files=files)
            except OcirtError as e:
                raise OcirtError(f"run the poststart hook {hook.path} [{pointer}]: {e}") from None


def run_poststop(config: Config, record: Record) -> None:
    """Run the poststop hooks; one that fails is a warning, and the others still run."""
    if not config.hooks.poststop:
        return
    document = hook_state(config, record.id, "stopped", 0, record.bundle)
    try:
        with output_files(config.annotations) as files:
            _run_poststop(config.hooks.poststop, document, record.bundle, files)
    except OcirtError as e:
        _log.warning("%s", e)
        _run_poststop(config.hooks.poststop, document, record.bundle, (-1, -1))


def _run_poststop(
    wanted: tuple[Hook, ...], document: dict[str, object], cwd: str, files: tuple[int, int]
) -> None:
    for index, hook in enumerate(wanted):
        pointer = f"/hooks/poststop/{index}"
        try:
            run_hook(hook, document, pointer, cwd=cwd, files=files)
        except OcirtError as e:
            _log.warning("poststop hook %s [%s]: %s", hook.path, pointer, e)


def log_start_hooks(entry: Entry, ends: tuple[HookEnd, ...]) -> None:
    """Say in the debug log what became of the startContainer hooks, which the stub ran."""
    if not ends or not _log.isEnabledFor(logging.DEBUG):
        return
    wanted = kept_config(entry).hooks.start_container
    for index, (hook, end) in enumerate(zip(wanted, ends, strict=False)):
        how = describe_report(end.failure, end.number)
        log_hook(hook, f"/hooks/startContainer/{index}", end.seconds, how, end.said.strip())


def describe_report(failure: Failure, number: int) -> str:
    """Return in words how a hook ended, by what the stub says of it."""
    if failure is Failure.BY_TIMEOUT:
        return f"killed after its timeout of {number // 1000} s"
    if failure is Failure.BY_ERRNO:
        return os.strerror(number).lower()
    return describe_end(os.waitstatus_to_exitcode(number))
