# SPDX-License-Identifier: GPL-3.0-or-later
"""What this build accepts of a configuration, for `features`: asked of the code that refuses.

So the document says what the code does, whatever is learned or left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ocirt.errors import OcirtError
from ocirt.parts.mount_options import SUPPORTED
from ocirt.plan.unsupported import refuse_unsupported
from ocirt.spec.features import Abilities
from ocirt.spec.model import Config


def abilities() -> Abilities:
    """Return what features.md has a switch for."""
    return Abilities(
        apparmor=_accepts(process={"apparmorProfile": "p"}),
        selinux=_accepts(process={"selinuxLabel": "l"}),
        intel_rdt=_accepts(linux={"intelRdt": {"closID": "c"}}),
        intel_rdt_schemata=_accepts(linux={"intelRdt": {"schemata": ["L3:0=1"]}}),
        intel_rdt_monitoring=_accepts(linux={"intelRdt": {"enableMonitoring": True}}),
        memory_policy=_accepts(linux={"memoryPolicy": {"mode": "MPOL_LOCAL"}}),
        net_devices=_accepts(linux={"netDevices": {"d": {}}}),
        idmapped_mounts="idmap" in SUPPORTED,
    )


def _accepts(
    process: Mapping[str, Any] | None = None, linux: Mapping[str, Any] | None = None
) -> bool:
    document: dict[str, Any] = {"ociVersion": "1.3.0", "linux": linux or {}}
    document["process"] = {"cwd": "/", "args": ["sh"], **(process or {})}
    try:
        refuse_unsupported(Config.from_json(document))
    except OcirtError:
        return False
    return True
