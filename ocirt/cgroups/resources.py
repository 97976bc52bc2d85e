# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be written into a container's cgroups, as values. No system calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from ocirt.spec.model import Rdma

POINTER = "/linux/resources"


class Phase(Enum):
    """When a value is written."""

    # When the cgroup is made, before anything joins it.
    EARLY = "early"
    # When init has become the waiting stub: the set-up code must not be hit by these limits.
    LATE = "late"


@dataclass(frozen=True, slots=True)
class Write:
    """One value for one interface file.

    pointer is the place in config.json it comes from. optional: a kernel without the file is fine.
    either_order: EINVAL may only mean that the kernel wants the controller's other values first.
    otherwise: what to write instead on a kernel without the file.
    """

    controller: str
    file: str
    value: str
    pointer: str
    phase: Phase = Phase.EARLY
    optional: bool = False
    either_order: bool = False
    otherwise: Write | None = None


def rdma_writes(limits: Mapping[str, Rdma]) -> Iterator[Write]:
    """Return the lines of rdma.max, the same on v1 and v2."""
    for name, limit in limits.items():
        value = name
        if limit.hca_handles is not None:
            value += f" hca_handle={limit.hca_handles}"
        if limit.hca_objects is not None:
            value += f" hca_object={limit.hca_objects}"
        yield Write("rdma", "rdma.max", value, f"{POINTER}/rdma/{name}")
