# SPDX-License-Identifier: GPL-3.0-or-later
"""What `ocirt plan` prints: the steps of create and start, without running any."""

from __future__ import annotations

import os

from ocirt.kernel.files import real_path
from ocirt.parts.step import Side, Step
from ocirt.runtime.create import CreateOptions, load, make_plan
from ocirt.runtime.store import Store, check_id


def describe(
    store: Store, container_id: str | None, options: CreateOptions
) -> list[dict[str, object]]:
    """Return the plan of a bundle: number, phase, side, step, pointer and undo of each step.

    Raises OcirtError for a config.json that create would refuse.
    """
    name = container_id or "ID"
    check_id(name)
    bundle = real_path(options.bundle)
    config, _ = load(bundle, options.config)
    plan = make_plan(config, name, bundle, options, foreground=False)
    directory = os.path.join(store.root, name)
    reserve = Step(
        Side.RUNTIME, f"reserve the id: make {directory}", "", _Frame(), undo="remove it"
    )
    record = Step(Side.RUNTIME, "record the container as created, write the pid file", "", _Frame())
    rows: list[dict[str, object]] = []
    for phase, steps in (("create", (reserve, *plan.create, record)), ("start", plan.start)):
        for step in steps:
            rows.append(
                {
                    "number": len(rows) + 1,
                    "phase": phase,
                    "side": str(step.side),
                    "step": step.what,
                    "pointer": step.pointer,
                    "undo": step.undo,
                }
            )
    return rows


class _Frame:
    """What create does itself around the plan's steps (ocirt.runtime.create)."""

    def run(self, c: object) -> None:
        """Never called."""
        raise NotImplementedError
