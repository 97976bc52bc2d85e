# SPDX-License-Identifier: GPL-3.0-or-later
"""The features document (features.md, features-linux.md): what this build of ocirt accepts."""

from __future__ import annotations

from collections.abc import Sequence

from ocirt import __version__
from ocirt.spec import known_annotations
from ocirt.spec.model import NamespaceType
from ocirt.spec.names import (
    CAPABILITIES,
    HOOKS,
    MEMORY_POLICY_FLAGS,
    MEMORY_POLICY_MODES,
    SECCOMP_ACTIONS,
    SECCOMP_ARCHS,
    SECCOMP_FLAGS,
    SECCOMP_OPERATORS,
)

VERSION_MIN = "1.0.0"
VERSION_MAX = "1.3.0"


def features(
    mount_options: Sequence[str],
    seccomp_flags: Sequence[str] = tuple(SECCOMP_FLAGS),
) -> dict[str, object]:
    """Return the document; mount_options are those that ocirt.parts knows.

    seccomp_flags are those that this kernel supports: all else is the same on every machine.
    """
    return {
        "ociVersionMin": VERSION_MIN,
        "ociVersionMax": VERSION_MAX,
        "hooks": list(HOOKS),
        "mountOptions": list(mount_options),
        "linux": {
            "namespaces": sorted(NamespaceType),
            "capabilities": list(CAPABILITIES),
            "cgroup": {
                "v1": True,
                "v2": True,
                "systemd": False,
                "systemdUser": False,
                "rdma": True,
            },
            "seccomp": {
                "enabled": True,
                "actions": list(SECCOMP_ACTIONS),
                "operators": list(SECCOMP_OPERATORS),
                "archs": list(SECCOMP_ARCHS),
                "knownFlags": list(SECCOMP_FLAGS),
                "supportedFlags": list(seccomp_flags),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
            "memoryPolicy": {
                "modes": list(MEMORY_POLICY_MODES),
                "flags": list(MEMORY_POLICY_FLAGS),
            },
            "mountExtensions": {"idmap": {"enabled": "idmap" in mount_options}},
            "netDevices": {"enabled": True},
        },
        "annotations": {"io.ocirt.version": __version__},
        "potentiallyUnsafeConfigAnnotations": list(known_annotations.UNSAFE),
    }
