# SPDX-License-Identifier: GPL-3.0-or-later
"""The containers that are timed: busybox, all namespaces that engines make, their usual mounts."""

from __future__ import annotations

import copy
import re
import secrets
import subprocess
from pathlib import Path
from typing import Any

from bundles.make import make_rootfs
from ocirt.spec.defaults import default_config

_MOUNTS = 50


Document = dict[str, Any]


def documents(directory: Path) -> dict[str, Document]:
    """Make a rootfs below a directory; returns configurations that use it, by name."""
    rootfs = directory / "rootfs"
    make_rootfs(rootfs)
    base: Any = default_config(rootless=False)
    base["ociVersion"] = "1.0.2"  # Debian's crun refuses what is newer than itself
    base["root"]["path"] = str(rootfs)
    base["process"]["args"] = ["/bin/true"]
    base["process"]["terminal"] = False
    found: dict[str, Document] = {"true": base}
    found["idle"] = copy.deepcopy(base)
    found["idle"]["process"]["args"] = ["/bin/sleep", "100000"]
    found["seccomp"] = copy.deepcopy(base)
    found["seccomp"]["linux"]["seccomp"] = profile()
    found["uncached"] = copy.deepcopy(found["seccomp"])
    found["invalid"] = copy.deepcopy(base)
    found["invalid"]["linux"]["namespaces"].append({"type": "nosuch"})
    found["mounts"] = copy.deepcopy(base)
    found["mounts"]["mounts"] += [
        {"destination": f"/tmp/m{n}", "type": "tmpfs", "source": "tmpfs"} for n in range(_MOUNTS)
    ]
    # Made where all of them can be.
    found["mounts"]["mounts"].insert(
        -_MOUNTS, {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}
    )
    return found


def make_unknown(seccomp: Document) -> None:
    """Add a rule that no profile had before, so that no cache has its filter."""
    argument = {"index": 0, "value": secrets.randbits(32), "op": "SCMP_CMP_EQ"}
    rule = {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [argument]}
    seccomp["syscalls"].append(rule)


def profile() -> dict[str, Any]:
    """Return a profile of the size and shape of podman's: some 400 names for three ABIs."""
    header = subprocess.run(
        ["gcc", "-E", "-dM", "-include", "asm/unistd.h", "-xc", "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = sorted(set(re.findall(r"__NR_(\w+) ", header)))
    special = {"personality", "clone", "socket", "ptrace", "bpf", "mount", "setns", "reboot"}
    allowed = [n for n in names if n not in special]
    values = (0, 8, 131072, 131080, 4294967295)
    rules: list[dict[str, Any]] = [{"names": allowed, "action": "SCMP_ACT_ALLOW"}]
    rules += [
        {
            "names": ["personality"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}],
        }
        for value in values
    ]
    rules.append(
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        }
    )
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    }
