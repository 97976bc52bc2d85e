# SPDX-License-Identifier: GPL-3.0-or-later
"""From linux.seccomp to the kernel's BPF, by libseccomp. What that lacks, docs/seccomp.md says.

A cold path: the result is cached (seccomp_cache), and libseccomp's binding isn't in the image, so
plain Python does it. That waits for nothing but this module: it imports as little as it can.
"""

from __future__ import annotations

import errno
import os
from types import ModuleType, SimpleNamespace

from ocirt.errors import OcirtError
from ocirt.parts import seccomp_enosys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ocirt.spec.model_seccomp import Seccomp, SeccompArg, SeccompSyscall

# Action -> its name in the binding. Those with an errno are functions there.
ACTIONS = {
    "SCMP_ACT_KILL": "KILL",
    "SCMP_ACT_KILL_THREAD": "KILL",
    "SCMP_ACT_KILL_PROCESS": "KILL_PROCESS",
    "SCMP_ACT_TRAP": "TRAP",
    "SCMP_ACT_ALLOW": "ALLOW",
    "SCMP_ACT_LOG": "LOG",
    "SCMP_ACT_NOTIFY": "NOTIFY",
}
ACTIONS_WITH_ERRNO = {"SCMP_ACT_ERRNO": "ERRNO", "SCMP_ACT_TRACE": "TRACE"}

OPERATORS = {
    "SCMP_CMP_NE": "NE",
    "SCMP_CMP_LT": "LT",
    "SCMP_CMP_LE": "LE",
    "SCMP_CMP_EQ": "EQ",
    "SCMP_CMP_GE": "GE",
    "SCMP_CMP_GT": "GT",
    "SCMP_CMP_MASKED_EQ": "MASKED_EQ",
}

# Whose programs a machine can run; the first is its own.
_FAMILIES = (("X86_64", "X86", "X32"), ("AARCH64", "ARM"))

# From here libseccomp's binary tree is worth its instructions: 4 calls are in one leaf.
_MANY_CALLS = 32
_BPF_MAXINSNS = 4096  # linux/bpf_common.h

# x86: socketcall(2) and ipc(2), for which libseccomp takes the names of the calls behind them. The
# numbers of their own that they got later end with msgctl's.
_X86_MULTIPLEXERS = (102, 117)
_X86_LAST_MULTIPLEXED = 402


def binding() -> ModuleType:
    """Import libseccomp's Python binding: the distribution's, or else pyseccomp."""
    try:
        import seccomp
    except ImportError:
        try:
            import pyseccomp as seccomp
        except ImportError:
            raise OcirtError(
                "libseccomp's Python binding is missing; install python3-seccomp"
            ) from None
    module: ModuleType = seccomp
    return module


def compile_profile(fields: Mapping[str, object]) -> tuple[bytes, tuple[str, ...], str]:
    """Compile a Seccomp, given as dataclasses.asdict() has it. Raises OcirtError.

    Returns the kernel's BPF program (seccomp(2)), the names that libseccomp doesn't know, and the
    files of libseccomp and its binding.
    """
    profile: Seccomp = _attributes(fields)
    lib = binding()
    default = _action(lib, profile.default_action, profile.default_errno_ret)
    try:
        filter_ = lib.SyscallFilter(default)
    except (ValueError, RuntimeError) as e:
        raise OcirtError(f"/linux/seccomp/defaultAction: {e}") from None
    architectures = _architectures(lib, profile)
    for name in architectures[1:]:
        filter_.add_arch(getattr(lib.Arch, name))
    # The stub sets no_new_privs itself, if it is wanted.
    filter_.set_attr(lib.Attr.CTL_NNP, 0)
    if sum(len(call.names) for call in profile.syscalls) > _MANY_CALLS:
        filter_.set_attr(lib.Attr.CTL_OPTIMIZE, 2)
    unknown: list[str] = []
    for index, call in enumerate(profile.syscalls):
        action = _action(lib, call.action, call.errno_ret)
        # libseccomp refuses a rule that says what the default says.
        if action != default:
            unknown += _add(lib, filter_, action, call, f"/linux/seccomp/syscalls/{index}")
    program = _export(filter_)
    if seccomp_enosys.wanted(profile.default_action, profile.default_errno_ret):
        newest = {name: _newest(lib, name, profile) for name in architectures}
        known = {name: number for name, number in newest.items() if number >= 0}
        program = seccomp_enosys.prologue(known) + program
    if len(program) > _BPF_MAXINSNS * seccomp_enosys.INSTRUCTION.size:
        raise OcirtError("the profile has too many rules for the kernel")
    return program, tuple(dict.fromkeys(unknown)), _loaded_libraries()


def _attributes(value: Any) -> Any:
    """Return data in which dictionaries are objects with attributes."""
    if isinstance(value, dict):
        return SimpleNamespace(**{key: _attributes(inner) for key, inner in value.items()})
    return tuple(map(_attributes, value)) if isinstance(value, tuple) else value


def _action(lib: ModuleType, name: str, errno_ret: int | None) -> int:
    if name in ACTIONS:
        return int(getattr(lib, ACTIONS[name]))
    number = errno.EPERM if errno_ret is None else errno_ret
    return int(getattr(lib, ACTIONS_WITH_ERRNO[name])(number))


def _architectures(lib: ModuleType, profile: Seccomp) -> Sequence[str]:
    """Return the names of the architectures to filter, without SCMP_ARCH_, the machine's first.

    No program of another one can run here, so there is nothing to filter for it.
    """
    for family in _FAMILIES:
        # One of them is signed in Debian's binding.
        if (lib.system_arch() ^ getattr(lib.Arch, family[0])) & 0xFFFFFFFF == 0:
            listed = {name.removeprefix("SCMP_ARCH_") for name in profile.architectures}
            return [family[0], *(name for name in family[1:] if name in listed)]
    raise OcirtError(f"filters for this machine ({os.uname().machine}): unknown")


def _add(
    lib: ModuleType, filter_: Any, action: int, call: SeccompSyscall, pointer: str
) -> list[str]:
    """Add the rules of one entry of syscalls. Returns the names that libseccomp doesn't know."""
    unknown = []
    groups = [[_condition(lib, arg) for arg in group] for group in _groups(call.args)]
    for name in call.names:
        # The same on all architectures: what one lacks has a negative number of libseccomp's own.
        if _number(lib, lib.Arch.X86_64, name) == -1:
            unknown.append(name)
            continue
        for conditions in groups:
            try:
                filter_.add_rule(action, name, *conditions)
            except (ValueError, RuntimeError, OSError) as e:
                raise OcirtError(f"{pointer} ({name}): libseccomp refuses the rule: {e}") from None
    return unknown


def _groups(args: Sequence[SeccompArg]) -> Sequence[Sequence[SeccompArg]]:
    """Two conditions on one argument can't be one rule in libseccomp: as runc, each is its own."""
    if len({arg.index for arg in args}) == len(args):
        return [args]
    return [[arg] for arg in args]


def _condition(lib: ModuleType, arg: SeccompArg) -> object:
    operator = getattr(lib, OPERATORS[arg.op])
    if arg.op == "SCMP_CMP_MASKED_EQ":
        return lib.Arg(arg.index, operator, arg.value, arg.value_two or 0)
    return lib.Arg(arg.index, operator, arg.value)


def _number(lib: ModuleType, arch: int, name: str) -> int:
    """Return a system call's number, -1 if it is unknown, below that if the architecture lacks it.

    In the last case it is a number of libseccomp's own (__PNR_ in seccomp-syscalls.h).
    """
    try:
        return int(lib.resolve_syscall(arch, name))
    except (ValueError, RuntimeError, OSError):
        return -1


def _newest(lib: ModuleType, arch: str, profile: Seccomp) -> int:
    """Return the greatest number of the calls that a profile names, negative if it names none."""
    newest = -1
    for call in profile.syscalls:
        for name in call.names:
            number = _number(lib, getattr(lib.Arch, arch), name)
            if arch == "X86" and number in _X86_MULTIPLEXERS:
                number = _X86_LAST_MULTIPLEXED
            newest = max(newest, number)
    return newest


def _export(filter_: Any) -> bytes:
    fd = os.memfd_create("ocirt-seccomp", os.MFD_CLOEXEC)
    with os.fdopen(fd, "w+b") as file:
        filter_.export_bpf(file)
        file.seek(0)
        return bytes(file.read())


def _loaded_libraries() -> str:
    """Return the files of libseccomp and its binding in this process (proc_pid_maps(5)), by ":".

    Debian links libseccomp into the binding; elsewhere it is a library of its own.
    """
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        paths = {"/" + line.rstrip("\n").partition("/")[2] for line in file}
    return ":".join(sorted(p for p in paths if "seccomp" in os.path.basename(p)))
