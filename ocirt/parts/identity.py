# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a container a machine of its own: names, loopback, sysctls, session, keyring."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass

from ocirt.errors import OcirtError
from ocirt.kernel import constants as k
from ocirt.kernel.files import write_at
from ocirt.kernel.process import (
    keyctl_join_session_keyring,
    keyctl_setperm,
    setdomainname,
    sethostname,
)
from ocirt.parts.step import Context
from ocirt.spec.model import NamespaceType

# sysctls are the container's own only with the namespace that holds them (sysctl names that
# start with these, and the namespace).
_IPC_SYSCTLS = frozenset(
    {
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    }
)


# keyctl_setperm(3): all for who possesses it; view, read, search and link for its owner.
_KEYRING_PERMISSIONS = 0x3F1B0000


@dataclass(frozen=True, slots=True)
class SetHostname:
    """hostname, in the container's UTS namespace."""

    name: str

    def run(self, c: Context) -> None:
        sethostname(self.name)


@dataclass(frozen=True, slots=True)
class SetDomainname:
    """domainname, in the container's UTS namespace."""

    name: str

    def run(self, c: Context) -> None:
        setdomainname(self.name)


@dataclass(frozen=True, slots=True)
class LoopbackUp:
    """Bring lo up in a new network namespace (netdevice(7))."""

    def run(self, c: Context) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
            request = struct.pack("=16sh14x", b"lo", 0)
            (flags,) = struct.unpack_from("=h", fcntl.ioctl(s, k.SIOCGIFFLAGS, request), 16)
            fcntl.ioctl(s, k.SIOCSIFFLAGS, struct.pack("=16sh14x", b"lo", flags | k.IFF_UP))


@dataclass(frozen=True, slots=True)
class NewSession:
    """setsid(2): the container has no controlling terminal of the host."""

    def run(self, c: Context) -> None:
        try:
            os.setsid()
        except PermissionError:
            # Already a leader, as the first process of a pid namespace isn't; nothing to do.
            pass


@dataclass(frozen=True, slots=True)
class NewKeyring:
    """A session keyring of the container's own (keyrings(7)): the host's can't be searched.

    Its owner, the container's root, may search it: that is how exec joins it by its name.
    """

    def run(self, c: Context) -> None:
        try:
            keyctl_setperm(keyctl_join_session_keyring(keyring_name(c)), _KEYRING_PERMISSIONS)
        except OSError as e:
            # No keyrings in this kernel, or a sandbox around us forbids the call.
            if e.errno not in (errno.ENOSYS, errno.EPERM):
                raise


def keyring_name(c: Context) -> str:
    """Return the name of a container's session keyring, as runc has it."""
    return f"_ses.{c.container_id}"


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """One entry of linux.sysctl, written through the verified procfs."""

    key: str
    value: str

    def run(self, c: Context) -> None:
        try:
            write_at(c.proc, "sys/" + sysctl_path(self.key), self.value)
        except FileNotFoundError:
            raise OcirtError(f"this kernel has no sysctl {self.key}") from None


def sysctl_path(key: str) -> str:
    """Return a sysctl's path below /proc/sys: of dots and slashes, the first one separates."""
    for character in key:
        if character == "/":
            return key
        if character == ".":
            return key.translate(str.maketrans("./", "/."))
    return key


def sysctl_namespace(key: str) -> NamespaceType | None:
    """Return the namespace a sysctl belongs to, None if it is the whole machine's."""
    name = sysctl_path(key).replace("/", ".")
    if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        return NamespaceType.IPC
    if name.startswith("net."):
        return NamespaceType.NETWORK
    if name == "kernel.domainname":
        return NamespaceType.UTS
    if name.startswith("user."):
        return NamespaceType.USER
    return None
