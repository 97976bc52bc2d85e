# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents for the tests of validation: a small valid one, a rich one, and recorded ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ocirt.spec.names import HOOKS

CHECKOUT = Path(__file__).parents[3]
# The official schemas and engines' recorded documents: an oracle that isn't part of this tree.
DATA = Path(os.environ.get("OCIRT_SPEC_DATA") or CHECKOUT.parent / "shared" / "data")


def small() -> dict[str, Any]:
    """Return a minimal valid configuration."""
    return {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["sh"]},
    }


def rich() -> dict[str, Any]:
    """Return a valid configuration that uses nearly every field."""
    # Through JSON, so that no two places share an object.
    document: dict[str, Any] = json.loads(json.dumps(_RICH))
    return document


def changed(path: str, value: object) -> dict[str, Any]:
    """Return the rich configuration with the value at a JSON pointer replaced, or added."""
    document = rich()
    *parents, last = path.split("/")[1:]
    place: Any = document
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    if isinstance(place, list):
        place[int(last) :] = [value, *place[int(last) + 1 :]]
    else:
        place[last] = value
    return document


def recorded(pattern: str) -> list[Path]:
    """Return engines' documents, [] where they aren't there."""
    return sorted((DATA / "engine-configs").glob(pattern))


def load(path: Path) -> Any:
    """Parse a JSON file."""
    return json.loads(path.read_bytes())


_MAP = [{"containerID": 0, "hostID": 1000, "size": 100}]
# Every field there is, each with a value of its own, so that no two can be mixed up unseen.
_RICH: dict[str, Any] = {
    "ociVersion": "1.2.1-dev",
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "a",
    "domainname": "b.c",
    "annotations": {"k": "v"},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/data",
            "type": "bind",
            "source": "/srv",
            "options": ["rbind", "ro"],
            "uidMappings": _MAP,
            "gidMappings": [{"containerID": 1, "hostID": 2000, "size": 200}],
        },
    ],
    "hooks": {
        kind: [{"path": f"/bin/{kind}", "args": [kind], "env": ["A=b"], "timeout": number}]
        for number, kind in enumerate(HOOKS, 1)
    },
    "process": {
        "terminal": False,
        "consoleSize": {"height": 24, "width": 80},
        "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3], "username": "n"},
        "args": ["a", "b"],
        "commandLine": "a b",
        "env": ["PATH=/bin"],
        "cwd": "/tmp",
        "capabilities": {
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_FOWNER", "CAP_FSETID"],
            "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_FOWNER"],
            "effective": ["CAP_CHOWN", "CAP_KILL"],
            "inheritable": ["CAP_KILL"],
            "ambient": ["CAP_CHOWN"],
        },
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 2}],
        "noNewPrivileges": True,
        "apparmorProfile": "p",
        "selinuxLabel": "l",
        "oomScoreAdj": -5,
        "scheduler": {
            "policy": "SCHED_DEADLINE",
            "nice": 3,
            "priority": 0,
            "flags": ["SCHED_FLAG_RECLAIM"],
            "runtime": 10,
            "deadline": 20,
            "period": 30,
        },
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "execCPUAffinity": {"initial": "0-1", "final": "1"},
    },
    "linux": {
        "namespaces": [
            {"type": "pid"},
            {"type": "mount"},
            {"type": "uts"},
            {"type": "user"},
            {"type": "time"},
            {"type": "network", "path": "/proc/1/ns/net"},
        ],
        "uidMappings": _MAP,
        "gidMappings": [{"containerID": 0, "hostID": 2000, "size": 200}],
        "timeOffsets": {
            "boottime": {"secs": -1, "nanosecs": 2},
            "monotonic": {"secs": 3, "nanosecs": 4},
        },
        "devices": [
            {
                "type": "c",
                "path": "/dev/x",
                "major": 1,
                "minor": 2,
                "fileMode": 438,
                "uid": 3,
                "gid": 4,
            }
        ],
        "netDevices": {"eth1": {"name": "eth0"}},
        "cgroupsPath": "/a/b",
        "resources": {
            "unified": {"memory.high": "1"},
            "devices": [{"allow": False, "type": "c", "major": 1, "minor": 2, "access": "rwm"}],
            "pids": {"limit": 3},
            "memory": {
                "limit": 10,
                "reservation": 9,
                "swap": 20,
                "kernel": 8,
                "kernelTCP": 7,
                "swappiness": 60,
                "disableOOMKiller": True,
                "useHierarchy": False,
                "checkBeforeUpdate": True,
            },
            "cpu": {
                "shares": 2,
                "quota": 5000,
                "burst": 10,
                "period": 10000,
                "realtimeRuntime": 11,
                "realtimePeriod": 12,
                "cpus": "0-1",
                "mems": "0",
                "idle": 1,
            },
            "blockIO": {
                "weight": 10,
                "leafWeight": 11,
                "weightDevice": [{"major": 1, "minor": 2, "weight": 100, "leafWeight": 101}],
                "throttleReadBpsDevice": [{"major": 1, "minor": 2, "rate": 3}],
                "throttleWriteBpsDevice": [{"major": 1, "minor": 2, "rate": 4}],
                "throttleReadIOPSDevice": [{"major": 1, "minor": 2, "rate": 5}],
                "throttleWriteIOPSDevice": [{"major": 1, "minor": 2, "rate": 6}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
            "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 2}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}},
        },
        "intelRdt": {
            "closID": "c",
            "schemata": ["L3:0=f"],
            "l3CacheSchema": "L3:1=f",
            "memBwSchema": "MB:0=1",
            "enableMonitoring": True,
        },
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/run/listener",
            "listenerMetadata": "m",
            "syscalls": [
                {
                    "names": ["read"],
                    "action": "SCMP_ACT_TRACE",
                    "errnoRet": 2,
                    "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}],
                },
                {"names": ["write"], "action": "SCMP_ACT_ALLOW"},
            ],
        },
        "rootfsPropagation": "slave",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "m",
        "personality": {"domain": "LINUX", "flags": ["f"]},
    },
    "windows": {"anything": True},
    "solaris": {},
    "vm": {},
    "zos": {},
    "freebsd": {},
}
