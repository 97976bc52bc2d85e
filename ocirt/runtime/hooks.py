# SPDX-License-Identifier: GPL-3.0-or-later
"""The hooks around a container's life that aren't steps of create: poststart and poststop."""

from __future__ import annotations

import logging

from ocirt.errors import OcirtError
from ocirt.parts.hooks import hook_state, run_hook
from ocirt.runtime.store import CONFIG, Entry, Record
from ocirt.spec.model import Config
from ocirt.spec.validate import config_from_bytes

_log = logging.getLogger("ocirt")


def kept_config(entry: Entry) -> Config:
    """Return the configuration as it was at create; later edits of the bundle don't count."""
    return config_from_bytes(entry.read(CONFIG), f"{entry.path}/{CONFIG}")


def run_poststart(entry: Entry, record: Record) -> None:
    """Run the poststart hooks. Raises OcirtError at the first that fails (runtime.md, step 10)."""
    config = kept_config(entry)
    document = hook_state(config, record.id, "running", record.init_pid, record.bundle)
    for index, hook in enumerate(config.hooks.poststart):
        try:
            run_hook(hook, document, cwd=record.bundle)
        except OcirtError as e:
            raise OcirtError(
                f"run the poststart hook {hook.path} [/hooks/poststart/{index}]: {e}"
            ) from None


def run_poststop(config: Config, record: Record) -> None:
    """Run the poststop hooks; one that fails is a warning, and the others still run."""
    document = hook_state(config, record.id, "stopped", 0, record.bundle)
    for index, hook in enumerate(config.hooks.poststop):
        try:
            run_hook(hook, document, cwd=record.bundle)
        except OcirtError as e:
            _log.warning("poststop hook %s [/hooks/poststop/%d]: %s", hook.path, index, e)
