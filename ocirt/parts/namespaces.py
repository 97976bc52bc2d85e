# SPDX-License-Identifier: GPL-3.0-or-later
"""Namespaces (config-linux.md, "Namespaces"): which are made, which joined, and by which process.

What can be made is made by one clone3(2). What is joined by path, a new time namespace, and a
joined user namespace need an intermediate child, the joiner (docs/maintainers.md says why). The
runtime itself never changes a namespace of its own.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from ocirt.errors import OcirtError
from ocirt.kernel import constants as k
from ocirt.kernel.constants import AT_FDCWD
from ocirt.kernel.files import write_at
from ocirt.kernel.process import namespace_type, setns, setresgid, setresuid, unshare
from ocirt.parts.identity import sysctl_namespace
from ocirt.parts.step import Context
from ocirt.spec.model import Config, NamespaceType, TimeOffset

FLAGS: dict[NamespaceType, int] = {
    NamespaceType.PID: k.CLONE_NEWPID,
    NamespaceType.NETWORK: k.CLONE_NEWNET,
    NamespaceType.MOUNT: k.CLONE_NEWNS,
    NamespaceType.IPC: k.CLONE_NEWIPC,
    NamespaceType.UTS: k.CLONE_NEWUTS,
    NamespaceType.USER: k.CLONE_NEWUSER,
    NamespaceType.CGROUP: k.CLONE_NEWCGROUP,
    NamespaceType.TIME: k.CLONE_NEWTIME,
}


# Whose files in /proc/PID/ns have other names (namespaces(7)).
_FILES = {NamespaceType.NETWORK: "net", NamespaceType.MOUNT: "mnt"}
# What hostname, domainname and sysctl change.
_CONFIGURED = (NamespaceType.UTS, NamespaceType.NETWORK, NamespaceType.IPC)


@dataclass(frozen=True, slots=True)
class Namespaces:
    """What config.json asks for: the types to make, and the paths to join with their pointers."""

    new: frozenset[NamespaceType]
    joined: tuple[tuple[NamespaceType, str, str], ...]

    @classmethod
    def of(cls, config: Config) -> Namespaces:
        """Sort linux.namespaces."""
        new: set[NamespaceType] = set()
        joined: list[tuple[NamespaceType, str, str]] = []
        for index, entry in enumerate(config.linux.namespaces):
            if entry.path:
                joined.append((entry.type, entry.path, f"/linux/namespaces/{index}/path"))
            else:
                new.add(entry.type)
        return cls(frozenset(new), tuple(joined))

    def joins(self, kind: NamespaceType) -> bool:
        """Whether a namespace of this type is joined by path."""
        return any(joined == kind for joined, _, _ in self.joined)

    def owns(self, kind: NamespaceType) -> bool:
        """Whether the container gets a namespace of this type that isn't the host's."""
        return kind in self.new or self.joins(kind)

    @property
    def needs_joiner(self) -> bool:
        """Whether one clone3(2) from the runtime isn't enough."""
        return bool(self.joined) or NamespaceType.TIME in self.new

    @property
    def after_identity(self) -> frozenset[NamespaceType]:
        """What init unshares itself.

        The cgroup namespace, whose root is the cgroup init is in by then; and IPC when the user
        namespace is made by the same clone3, for /dev/mqueue would belong to nobody.
        """
        late = {NamespaceType.CGROUP}
        if NamespaceType.USER in self.new and not self.needs_joiner:
            late.add(NamespaceType.IPC)
        return self.new & late

    @property
    def clone_flags(self) -> int:
        """The CLONE_NEW* flags of the clone3 that makes init."""
        apart = {NamespaceType.TIME} | ({NamespaceType.USER} if self.needs_joiner else set())
        return flags_of(self.new - self.after_identity - apart)


def flags_of(kinds: frozenset[NamespaceType]) -> int:
    """Return the CLONE_NEW* flags of a set of types."""
    flags = 0
    for kind in kinds:
        flags |= FLAGS[kind]
    return flags


@dataclass(frozen=True, slots=True)
class OpenNamespace:
    """Open a namespace to be joined, while the path means what the caller meant by it."""

    kind: NamespaceType
    path: str

    def run(self, c: Context) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        c.namespaces[self.kind] = fd
        try:
            found = namespace_type(fd)
        except OSError as e:
            if e.errno != errno.ENOTTY:
                raise
            raise OcirtError(f"{self.path}: isn't a namespace") from None
        if found != FLAGS[self.kind]:
            names = [kind for kind, flag in FLAGS.items() if flag == found]
            raise OcirtError(
                f"{self.path}: is a namespace of type {names[0] if names else hex(found)},"
                f" not {self.kind}"
            )
        if self.kind in _CONFIGURED and _is_ours(fd, self.kind):
            self._leave_alone(c.config)

    def _leave_alone(self, config: Config) -> None:
        """Refuse what would change the host: the path is that of a namespace of the host's."""
        names = {"/hostname": config.hostname, "/domainname": config.domainname}
        changes = [f"{pointer} ({name})" for pointer, name in names.items() if name]
        changes = changes if self.kind is NamespaceType.UTS else []
        changes += [
            f"/linux/sysctl ({key})"
            for key in config.linux.sysctl
            if sysctl_namespace(key) is self.kind
        ]
        if changes:
            raise OcirtError(
                f"{self.path}: is the host's own {self.kind} namespace, which {', '.join(changes)}"
                " would change"
            )


@dataclass(frozen=True, slots=True)
class JoinNamespace:
    """setns(2) to a namespace that OpenNamespace opened."""

    kind: NamespaceType

    def run(self, c: Context) -> None:
        fd = c.namespaces[self.kind]
        try:
            setns(fd, FLAGS[self.kind])
        except OSError as e:
            # The user namespace we are in already can't be joined again; nor need it.
            if (
                self.kind is NamespaceType.USER
                and e.errno == errno.EINVAL
                and _is_ours(fd, self.kind)
            ):
                return
            raise


def _is_ours(fd: int, kind: NamespaceType) -> bool:
    own, joined = os.stat(f"/proc/self/ns/{_FILES.get(kind, kind)}"), os.fstat(fd)
    return (own.st_dev, own.st_ino) == (joined.st_dev, joined.st_ino)


@dataclass(frozen=True, slots=True)
class UnshareNamespaces:
    """unshare(2) of what one clone3 couldn't make rightly."""

    kinds: frozenset[NamespaceType]

    def run(self, c: Context) -> None:
        unshare(flags_of(self.kinds))


@dataclass(frozen=True, slots=True)
class BecomeRoot:
    """Take user and group 0 of the user namespace just entered."""

    def run(self, c: Context) -> None:
        try:
            setresgid(0)
            setresuid(0)
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise
            raise OcirtError(
                "id 0 isn't mapped in the container's user namespace; uidMappings and gidMappings"
                " need an entry with containerID 0"
            ) from None


@dataclass(frozen=True, slots=True)
class TimeOffsets:
    """linux.timeOffsets, of the joiner's children, before the first of them exists.

    By the runtime; a runtime without privilege can't, and the joiner, still dumpable, does it.
    """

    monotonic: TimeOffset | None
    boottime: TimeOffset | None

    def run(self, c: Context) -> None:
        lines = [
            f"{clock} {offset.secs or 0} {offset.nanosecs or 0}\n"
            for clock, offset in (("monotonic", self.monotonic), ("boottime", self.boottime))
            if offset is not None
        ]
        if lines:
            file = f"/proc/{c.init_pid or 'self'}/timens_offsets"
            try:
                write_at(AT_FDCWD, file, "".join(lines))
            except OSError as e:
                wanted = ", ".join(line.strip() for line in lines)
                raise OSError(e.errno, f"seconds and nanoseconds: {wanted}") from None
