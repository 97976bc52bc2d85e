# SPDX-License-Identifier: GPL-3.0-or-later
"""seccomp (config-linux.md, "Seccomp"): libseccomp compiles the profile, the stub loads it.

System call names that libseccomp doesn't know are left out of the filter, as runc and crun do: a
name newer than the library stays under defaultAction.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from types import ModuleType

from ocirt.errors import NeedsPlainPythonError, OcirtError
from ocirt.kernel import _linux
from ocirt.kernel import constants as k
from ocirt.parts.seccomp_cache import default_cache
from ocirt.parts.step import Context
from ocirt.spec.model import Seccomp, SeccompSyscall

_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": k.SECCOMP_FILTER_FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": k.SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": k.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": k.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
}

# Action -> its name in the binding.
_ACTIONS = {
    "SCMP_ACT_KILL": "KILL",
    "SCMP_ACT_KILL_THREAD": "KILL",
    "SCMP_ACT_KILL_PROCESS": "KILL_PROCESS",
    "SCMP_ACT_TRAP": "TRAP",
    "SCMP_ACT_ALLOW": "ALLOW",
    "SCMP_ACT_LOG": "LOG",
}


def filter_flags(profile: Seccomp) -> int:
    """Return the SECCOMP_FILTER_FLAG_ bits of linux.seccomp.flags.

    TSYNC means nothing for a process of one thread and is left out, as runc does.
    """
    flags = 0
    for name in profile.flags:
        flags |= _FLAGS[name]
    return flags & ~k.SECCOMP_FILTER_FLAG_TSYNC


@dataclass(frozen=True, slots=True)
class CompileFilter:
    """Let libseccomp compile the profile, before anything is made for the container."""

    profile: Seccomp

    def run(self, c: Context) -> None:
        refuse_notify(self.profile)
        cache = default_cache()
        found = cache.load(self.profile)
        if found is None:
            found = compile_profile(self.profile)
            cache.store(self.profile, found)
        c.filter = found


@dataclass(frozen=True, slots=True)
class LoadFilter:
    """seccomp(2) in the stub, with the flags of the profile."""

    profile: Seccomp

    def run(self, c: Context) -> None:
        # struct sock_fprog: the number of instructions, padding, the address of the first.
        fprog = struct.pack("=HxxxxxxQ", len(c.filter) // 8, c.stub.place(c.filter))
        c.stub.syscall(
            _linux.SYS_seccomp,
            k.SECCOMP_SET_MODE_FILTER,
            filter_flags(self.profile),
            fprog,
            text="load the seccomp filter",
        )


def _binding() -> ModuleType:
    """Import libseccomp's Python binding: the distribution's, or else pyseccomp."""
    try:
        import seccomp
    except ImportError:
        try:
            import pyseccomp as seccomp
        except ImportError:
            raise NeedsPlainPythonError(
                "/linux/seccomp: libseccomp's Python binding is missing; install python3-seccomp"
            ) from None
    module: ModuleType = seccomp
    return module


def compile_profile(profile: Seccomp) -> bytes:
    """Compile linux.seccomp to the kernel's BPF program (seccomp(2)). Raises OcirtError."""
    refuse_notify(profile)
    lib = _binding()
    default = _action(lib, profile.default_action, profile.default_errno_ret)
    try:
        filter_ = lib.SyscallFilter(default)
    except (ValueError, RuntimeError) as e:
        raise OcirtError(f"/linux/seccomp/defaultAction: {e}") from None
    _architectures(lib, filter_, profile)
    # Binary tree: the kernel then finds a call's rule in a few steps (libseccomp 2.5).
    filter_.set_attr(lib.Attr.CTL_OPTIMIZE, 2)
    # The stub sets no_new_privs itself, if it is wanted.
    filter_.set_attr(lib.Attr.CTL_NNP, 0)
    for index, call in enumerate(profile.syscalls):
        _add(lib, filter_, profile, call, f"/linux/seccomp/syscalls/{index}")
    return _export(filter_)


def refuse_notify(profile: Seccomp) -> None:
    """Raise OcirtError for a profile that wants an agent."""
    if profile.listener_path or _uses_notify(profile):
        raise OcirtError("/linux/seccomp: SCMP_ACT_NOTIFY isn't supported yet")


def _uses_notify(profile: Seccomp) -> bool:
    return "SCMP_ACT_NOTIFY" in {profile.default_action, *(c.action for c in profile.syscalls)}


def _action(lib: ModuleType, name: str, errno_ret: int | None) -> int:
    number = errno.EPERM if errno_ret is None else errno_ret
    if name in _ACTIONS:
        return int(getattr(lib, _ACTIONS[name]))
    return int(lib.ERRNO(number) if name == "SCMP_ACT_ERRNO" else lib.TRACE(number))


def _architectures(lib: ModuleType, filter_: object, profile: Seccomp) -> None:
    native = lib.system_arch()
    for index, name in enumerate(profile.architectures):
        arch = getattr(lib.Arch, name.removeprefix("SCMP_ARCH_"), None)
        if arch is None:
            raise OcirtError(
                f"/linux/seccomp/architectures/{index}: this libseccomp doesn't know {name}"
            )
        if arch == native:
            continue
        try:
            filter_.add_arch(arch)  # type: ignore[attr-defined]
        except (ValueError, RuntimeError, OSError):
            # Named twice, or of another byte order than this machine's: nothing to filter.
            continue


def _add(
    lib: ModuleType, filter_: object, profile: Seccomp, call: SeccompSyscall, pointer: str
) -> None:
    action = _action(lib, call.action, call.errno_ret)
    if action == _action(lib, profile.default_action, profile.default_errno_ret):
        return  # libseccomp refuses a rule that says what the default says
    operators = {
        "SCMP_CMP_NE": lib.NE,
        "SCMP_CMP_LT": lib.LT,
        "SCMP_CMP_LE": lib.LE,
        "SCMP_CMP_EQ": lib.EQ,
        "SCMP_CMP_GE": lib.GE,
        "SCMP_CMP_GT": lib.GT,
        "SCMP_CMP_MASKED_EQ": lib.MASKED_EQ,
    }
    conditions = [
        lib.Arg(a.index, operators[a.op], a.value, a.value_two or 0)
        if a.op == "SCMP_CMP_MASKED_EQ"
        else lib.Arg(a.index, operators[a.op], a.value)
        for a in call.args
    ]
    # Two conditions on one argument can't be one rule in libseccomp: as runc, each is its own.
    indexes = [a.index for a in call.args]
    groups = [conditions] if len(set(indexes)) == len(indexes) else [[c] for c in conditions]
    for name in call.names:
        for group in groups:
            try:
                filter_.add_rule(action, name, *group)  # type: ignore[attr-defined]
            except (ValueError, RuntimeError, OSError) as e:
                if _is_unknown(lib, name):
                    continue
                raise OcirtError(f"{pointer} ({name}): libseccomp refuses the rule: {e}") from None


def _is_unknown(lib: ModuleType, name: str) -> bool:
    try:
        return int(lib.resolve_syscall(lib.Arch(), name)) == -1
    except (ValueError, RuntimeError, OSError):
        return True


def _export(filter_: object) -> bytes:
    fd = os.memfd_create("ocirt-seccomp", os.MFD_CLOEXEC)
    with os.fdopen(fd, "w+b") as file:
        filter_.export_bpf(file)  # type: ignore[attr-defined]
        file.seek(0)
        return file.read()
