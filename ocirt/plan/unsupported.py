# SPDX-License-Identifier: GPL-3.0-or-later
"""Fields of config.json that ocirt doesn't apply yet: refused, never silently left out."""

from __future__ import annotations

from ocirt.errors import OcirtError
from ocirt.spec.model import Config


def refuse_unsupported(config: Config) -> None:
    """Raise OcirtError naming the first field that would have no effect."""
    linux = config.linux
    _refuse(
        ("/linux/intelRdt", linux.intel_rdt),
        ("/linux/personality/flags", linux.personality and linux.personality.flags),
    )


def _refuse(*fields: tuple[str, object]) -> None:
    for pointer, value in fields:
        if value:
            raise OcirtError(f"{pointer}: isn't supported yet; take it out of config.json")
