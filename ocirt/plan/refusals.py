# SPDX-License-Identifier: GPL-3.0-or-later
"""Combinations that neither the schema nor the rules can judge: they depend on the host."""

from __future__ import annotations

from ocirt.cgroups.layout import Mode
from ocirt.cgroups.manager import CgroupPaths
from ocirt.errors import OcirtError
from ocirt.parts import identity
from ocirt.parts.namespaces import Namespaces
from ocirt.plan.host import Host
from ocirt.spec.model import Config, NamespaceType


def refuse(config: Config, host: Host, ns: Namespaces, paths: CgroupPaths) -> None:
    """Raise OcirtError for what can't work together, with its place and value."""
    own_users = ns.owns(NamespaceType.USER)
    if own_users and not ns.owns(NamespaceType.MOUNT):
        raise OcirtError(
            "/linux/namespaces: with a user namespace a container needs a mount namespace, too (add"
            " {'type': 'mount'}): it can't mount anything in the host's"
        )
    if config.linux.rootfs_propagation and NamespaceType.MOUNT not in ns.new:
        raise OcirtError(
            f"/linux/rootfsPropagation: {config.linux.rootfs_propagation} would change mounts of"
            " others: it needs a new mount namespace (add {'type': 'mount'})"
        )
    if not host.privileged and not own_users:
        raise OcirtError(
            "/linux/namespaces: without root a container needs a user namespace; `ocirt spec"
            " --rootless` shows how"
        )
    if config.linux.personality and config.linux.personality.flags:
        flags = ", ".join(config.linux.personality.flags)
        raise OcirtError(
            f"/linux/personality/flags: {flags}: the specification has no flag yet; take it out"
        )
    if config.linux.net_devices and not ns.owns(NamespaceType.NETWORK):
        raise OcirtError(
            "/linux/netDevices: devices can be moved only into a network namespace of the"
            " container's (add {'type': 'network'})"
        )
    for key in config.linux.sysctl:
        kind = identity.sysctl_namespace(key)
        if kind is None or not ns.owns(kind):
            why = f"it needs a {kind} namespace" if kind else "it isn't part of any namespace"
            raise OcirtError(f"/linux/sysctl: {key} would change the host: {why}")
    if host.layout.mode is Mode.V2 and not paths.directories:
        raise OcirtError("/linux/cgroupsPath: no cgroup hierarchy is mounted")
