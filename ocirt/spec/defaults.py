# SPDX-License-Identifier: GPL-3.0-or-later
"""The config.json that `ocirt spec` writes: what runc's users know, up to date with 1.3."""

from __future__ import annotations

from collections.abc import Sequence

_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def default_config(
    *,
    rootless: bool = False,
    terminal: bool = False,
    uid: int = 0,
    gid: int = 0,
) -> dict[str, object]:
    """Return a configuration to start from.

    rootless maps the host's uid and gid to root in a new user namespace.
    """
    return {
        "ociVersion": "1.3.0",
        "process": {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": _CAPABILITIES,
                "effective": _CAPABILITIES,
                "permitted": _CAPABILITIES,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "ocirt",
        "mounts": _mounts(rootless),
        "linux": _rootless(uid, gid) if rootless else _rootful(),
    }


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, object]:
    entry: dict[str, object] = {"destination": destination, "type": kind, "source": source}
    if options:
        entry["options"] = list(options)
    return entry


def _mounts(rootless: bool) -> list[dict[str, object]]:
    quiet = ("nosuid", "noexec", "nodev")
    # Group 5 (tty) isn't mapped when there is a single id.
    tty = () if rootless else ("gid=5",)
    pts = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *tty)
    if rootless:
        # A new sysfs needs a network namespace of one's own.
        sys = _mount("/sys", "none", "/sys", "rbind", *quiet, "ro")
    else:
        sys = _mount("/sys", "sysfs", "sysfs", *quiet, "ro")
    return [
        _mount("/proc", "proc", "proc"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", *pts),
        _mount("/dev/shm", "tmpfs", "shm", *quiet, "mode=1777", "size=65536k"),
        _mount("/dev/mqueue", "mqueue", "mqueue", *quiet),
        sys,
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", *quiet, "relatime", "ro"),
    ]


def _rootful() -> dict[str, object]:
    kinds = ("pid", "ipc", "uts", "mount", "network", "cgroup")
    return {**_linux(kinds), "resources": {"devices": [{"allow": False, "access": "rwm"}]}}


def _rootless(uid: int, gid: int) -> dict[str, object]:
    # The host's network namespace: a new one would have nothing but lo.
    return {
        **_linux(("pid", "ipc", "uts", "mount", "user", "cgroup")),
        "uidMappings": [{"containerID": 0, "hostID": uid, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": gid, "size": 1}],
    }


def _linux(kinds: Sequence[str]) -> dict[str, object]:
    return {
        "namespaces": [{"type": kind} for kind in kinds],
        "maskedPaths": [
            "/proc/acpi",
            "/proc/asound",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/sys/firmware",
            "/proc/scsi",
        ],
        "readonlyPaths": [
            "/proc/bus",
            "/proc/fs",
            "/proc/irq",
            "/proc/sys",
            "/proc/sysrq-trigger",
        ],
    }
