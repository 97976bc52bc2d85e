# SPDX-License-Identifier: GPL-3.0-or-later
"""The features document (features.md, features-linux.md): what this build of ocirt accepts."""

from __future__ import annotations

from collections.abc import Sequence

from ocirt import __version__
from ocirt.spec.model import NamespaceType
from ocirt.spec.names import CAPABILITIES, HOOKS, SECCOMP_ACTIONS, SECCOMP_ARCHS, SECCOMP_FLAGS
from ocirt.spec.names import SECCOMP_OPERATORS as OPERATORS

VERSION_MIN = "1.0.0"
VERSION_MAX = "1.3.0"


def features(mount_options: Sequence[str]) -> dict[str, object]:
    """Return the document; mount_options are those that ocirt.parts knows."""
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
                "actions": [a for a in SECCOMP_ACTIONS if a != "SCMP_ACT_NOTIFY"],
                "operators": list(OPERATORS),
                "archs": list(SECCOMP_ARCHS),
                "knownFlags": list(SECCOMP_FLAGS),
                "supportedFlags": list(SECCOMP_FLAGS),
            },
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": False}},
            "netDevices": {"enabled": False},
        },
        "annotations": {"io.ocirt.version": __version__},
    }
