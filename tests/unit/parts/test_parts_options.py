# SPDX-License-Identifier: GPL-3.0-or-later
"""Mount options, capability masks, sysctl names: tables against what the kernel takes."""

from __future__ import annotations

import pytest

from ocirt.kernel import constants as k
from ocirt.parts.capabilities import CapabilitySets
from ocirt.parts.identity import sysctl_namespace, sysctl_path
from ocirt.parts.mount_options import SUPPORTED, parse
from ocirt.spec.model import Capabilities

# config.md, "Linux mount options".
SPECIFIED = """
async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev
nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow
private ratime rbind rdev rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec
rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave
rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid symfollow
sync tmpcopyup unbindable idmap ridmap
"""


def test_every_option_of_the_specification_is_known() -> None:
    assert set(SPECIFIED.split()) == set(SUPPORTED)


@pytest.mark.parametrize("option", SUPPORTED)
def test_a_known_option_is_never_data(option: str) -> None:
    assert parse((option,)).data == ()


def test_the_last_of_opposites_counts() -> None:
    options = parse(("ro", "nosuid", "rw", "rro", "rrw"))
    assert options.flags == k.MS_NOSUID
    assert options.cleared == k.MS_RDONLY
    assert (options.recursive_set, options.recursive_clear) == (0, k.MOUNT_ATTR_RDONLY)


def test_the_rest_is_the_filesystems() -> None:
    assert parse(("size=1k", "", "newinstance", "ro")).data == ("size=1k", "newinstance")


def test_propagation_keeps_its_order() -> None:
    wanted = (k.MS_PRIVATE | k.MS_REC, k.MS_SHARED)
    assert parse(("rprivate", "shared")).propagation == wanted


@pytest.mark.parametrize(
    ("options", "to_set", "to_clear"),
    [
        (["ro", "nodev"], k.MOUNT_ATTR_RDONLY | k.MOUNT_ATTR_NODEV, 0),
        (["rw", "exec"], 0, k.MOUNT_ATTR_RDONLY | k.MOUNT_ATTR_NOEXEC),
        (["noatime"], k.MOUNT_ATTR_NOATIME, k.MOUNT_ATTR__ATIME),
        (["relatime"], 0, k.MOUNT_ATTR__ATIME),
        (["nosymfollow"], k.MOUNT_ATTR_NOSYMFOLLOW, 0),
        ([], 0, 0),
    ],
)
def test_attributes(options: list[str], to_set: int, to_clear: int) -> None:
    assert parse(tuple(options)).attributes() == (to_set, to_clear)


def test_capabilities_that_cant_be_given_are_left_out() -> None:
    wanted = Capabilities(bounding=("CAP_CHOWN", "CAP_KILL", "CAP_NEW"), ambient=("CAP_KILL",))
    sets = CapabilitySets.of(wanted, available=1 << 5)
    assert (sets.bounding, sets.ambient, sets.permitted) == (1 << 5, 1 << 5, 0)
    assert CapabilitySets.of(None, available=~0) == CapabilitySets()


@pytest.mark.parametrize(
    ("key", "path", "namespace"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward", "network"),
        ("net/ipv4/conf/eth0.100/rp_filter", "net/ipv4/conf/eth0.100/rp_filter", "network"),
        ("net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter", "network"),
        ("kernel.shmmax", "kernel/shmmax", "ipc"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max", "ipc"),
        ("kernel.domainname", "kernel/domainname", "uts"),
        ("kernel.hostname", "kernel/hostname", None),
        ("vm.overcommit_memory", "vm/overcommit_memory", None),
    ],
)
def test_sysctls(key: str, path: str, namespace: str | None) -> None:
    assert sysctl_path(key) == path
    assert sysctl_namespace(key) == namespace
