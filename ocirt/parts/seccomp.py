# SPDX-License-Identifier: GPL-3.0-or-later
"""seccomp (config-linux.md, "Seccomp"): the steps. docs/seccomp.md has what users need to know.

libseccomp compiles the profile (seccomp_compile), if that wasn't done before (seccomp_cache), and
the stub loads it. A listener (SCMP_ACT_NOTIFY) goes from the stub to `start`, which passes it on to
the agent.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ocirt.errors import OcirtError
from ocirt.kernel import _linux
from ocirt.kernel import constants as k
from ocirt.kernel.seccomp import supports_flags
from ocirt.kernel.stublist import Flag
from ocirt.parts.seccomp_cache import Filter, default_cache
from ocirt.parts.seccomp_compile import compile_profile
from ocirt.parts.seccomp_enosys import PERMISSIVE
from ocirt.parts.step import Context
from ocirt.plain import call
from ocirt.spec.known_annotations import SECCOMP_STRICT
from ocirt.spec.model import Seccomp
from ocirt.spec.names import SECCOMP_FLAGS


def filter_flags(profile: Seccomp) -> int:
    """Return the flags for seccomp(2), with SECCOMP_FILTER_FLAG_NEW_LISTENER where it notifies.

    TSYNC means nothing for a process of one thread and is left out, as runc does; the kernel
    refuses WAIT_KILLABLE_RECV, which is about notifications, where there are none.
    """
    bits = 0
    # runc's and crun's default, which the kernel's own (since 5.16) agrees with.
    wanted = ("SECCOMP_FILTER_FLAG_SPEC_ALLOW",) if profile.flags is None else profile.flags
    for name in wanted:
        bits |= SECCOMP_FLAGS[name]
    bits &= ~k.SECCOMP_FILTER_FLAG_TSYNC
    if profile.notifies:
        return bits | k.SECCOMP_FILTER_FLAG_NEW_LISTENER
    return bits & ~k.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV


def supported_flags() -> Sequence[str]:
    """Return those of linux.seccomp.flags that this kernel supports."""
    return [name for name in SECCOMP_FLAGS if _is_supported(name)]


def _is_supported(flag: str) -> bool:
    bits = SECCOMP_FLAGS[flag]
    if bits == k.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV:
        bits |= k.SECCOMP_FILTER_FLAG_NEW_LISTENER
    return supports_flags(bits)


@dataclass(frozen=True, slots=True)
class CompileFilter:
    """Let libseccomp compile the profile, before anything is made for the container."""

    profile: Seccomp

    def run(self, c: Context) -> None:
        profile = self.profile
        for index, name in enumerate(profile.flags or ()):
            if not _is_supported(name):
                raise OcirtError(f"/linux/seccomp/flags/{index}: this kernel doesn't know {name}")
        cache = default_cache()
        found = cache.load(profile)
        if found is None:
            found = Filter(*call(compile_profile, asdict(profile)))
            cache.store(profile, found)
        if found.unknown:
            _judge_unknown(c, profile, found.unknown)
        c.filter = found.program


def _judge_unknown(c: Context, profile: Seccomp, names: Sequence[str]) -> None:
    """Refuse names that libseccomp doesn't know, or warn where a rule that forbids is lost."""
    words = f"libseccomp doesn't know {', '.join(names)}"
    # As in crun, any value but "0".
    if c.config.annotations.get(SECCOMP_STRICT, "0") != "0":
        raise OcirtError(f"{words}, which the annotation {SECCOMP_STRICT} makes an error")
    if profile.default_action in PERMISSIVE:
        c.warn(f"/linux/seccomp/syscalls: {words}: {profile.default_action} applies")


@dataclass(frozen=True, slots=True)
class LoadFilter:
    """seccomp(2) in the stub, with the flags of the profile."""

    profile: Seccomp

    def run(self, c: Context) -> None:
        # struct sock_fprog: the number of instructions, padding, the address of the first.
        fprog = struct.pack("=HxxxxxxQ", len(c.filter) // 8, c.stub.place(c.filter))
        add = c.stub.hand_over if self.profile.notifies else c.stub.syscall
        add(
            _linux.SYS_seccomp,
            k.SECCOMP_SET_MODE_FILTER,
            filter_flags(self.profile),
            fprog,
            text="load the seccomp filter",
            flags=Flag.SILENT,
        )
