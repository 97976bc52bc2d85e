# SPDX-License-Identifier: GPL-3.0-or-later
"""Fields of config.json that ocirt doesn't apply yet: refused, never silently left out."""

from __future__ import annotations

from ocirt.errors import OcirtError
from ocirt.spec.model import Config


def refuse_unsupported(config: Config) -> None:
    """Raise OcirtError naming the first field that would have no effect."""
    process, linux = config.process, config.linux
    fields: list[tuple[str, object]] = [
        ("/linux/intelRdt", linux.intel_rdt),
        ("/linux/netDevices", linux.net_devices),
        ("/linux/memoryPolicy", linux.memory_policy),
        ("/linux/mountLabel", linux.mount_label),
        ("/linux/personality/flags", linux.personality and linux.personality.flags),
    ]
    if process is not None:
        fields += [
            ("/process/terminal", process.terminal),
            ("/process/apparmorProfile", process.apparmor_profile),
            ("/process/selinuxLabel", process.selinux_label),
            ("/process/scheduler", process.scheduler),
        ]
    for pointer, value in fields:
        if value:
            raise OcirtError(f"{pointer}: isn't supported yet; take it out of config.json")
