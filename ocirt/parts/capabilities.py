# SPDX-License-Identifier: GPL-3.0-or-later
"""Capabilities (config.md, "Linux Process"; capabilities(7)), as operations of the stub."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from ocirt.kernel import _linux
from ocirt.kernel import constants as k
from ocirt.kernel.stublist import Flag
from ocirt.parts.step import Context
from ocirt.spec.model import Capabilities
from ocirt.spec.names import CAPABILITIES


@dataclass(frozen=True, slots=True)
class CapabilitySets:
    """The five sets as bit masks, without what can't be given."""

    bounding: int = 0
    effective: int = 0
    inheritable: int = 0
    permitted: int = 0
    ambient: int = 0

    @classmethod
    def of(cls, wanted: Capabilities | None, available: int) -> CapabilitySets:
        """Turn names into masks, without what isn't available and without unknown names."""
        if wanted is None:
            return cls()
        return cls(
            _mask(wanted.bounding, available),
            _mask(wanted.effective, available),
            _mask(wanted.inheritable, available),
            _mask(wanted.permitted, available),
            _mask(wanted.ambient, available),
        )


def _mask(names: Sequence[str], available: int) -> int:
    mask = 0
    for name in names:
        number = CAPABILITIES.get(name)
        if number is not None:
            mask |= 1 << number
    return mask & available


@dataclass(frozen=True, slots=True)
class DropBounding:
    """Drop every capability outside the bounding set, while CAP_SETPCAP is still there."""

    sets: CapabilitySets
    last_cap: int

    def run(self, c: Context) -> None:
        others = ~self.sets.bounding & (1 << self.last_cap + 1) - 1
        words = "drop capabilities from the bounding set"
        c.stub.for_each_bit(_linux.SYS_prctl, k.PR_CAPBSET_DROP, others, words)


@dataclass(frozen=True, slots=True)
class SetCapabilities:
    """Set effective, permitted and inheritable by capset(2), then the ambient set."""

    sets: CapabilitySets

    def run(self, c: Context) -> None:
        sets = self.sets
        header = struct.pack("=Ii", k.LINUX_CAPABILITY_VERSION_3, 0)
        three = (sets.effective, sets.permitted, sets.inheritable)
        data = struct.pack("=6I", *(s & 0xFFFFFFFF for s in three), *(s >> 32 for s in three))
        c.stub.syscall(_linux.SYS_capset, header, data, text="set the capabilities")
        self._ambient(c, k.PR_CAP_AMBIENT_CLEAR_ALL, 0)
        for number in range(sets.ambient.bit_length()):
            # As runc: one that isn't permitted and inheritable can't be ambient, and is left out.
            if sets.ambient & 1 << number:
                self._ambient(c, k.PR_CAP_AMBIENT_RAISE, number)

    def _ambient(self, c: Context, what: int, number: int) -> None:
        args = (k.PR_CAP_AMBIENT, what, number, 0, 0)
        c.stub.syscall(_linux.SYS_prctl, *args, flags=Flag.MAY_FAIL)
