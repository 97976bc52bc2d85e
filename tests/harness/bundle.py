# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles for tests: a directory with a small rootfs and a config.json that a test can change."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def default_config(cgroups_path: str) -> dict[str, Any]:
    """Return a small valid config, with namespaces of its own: the process sleeps."""
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "test",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sleep", "1000"],
            "env": ["PATH=/bin", "HOME=/root"],
            "cwd": "/",
            "capabilities": {
                kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")
            },
            "noNewPrivileges": True,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            },
            {
                "destination": "/sys",
                "type": "sysfs",
                "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"],
            },
        ],
        "linux": {
            "cgroupsPath": cgroups_path,
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "uts", "ipc", "network")],
        },
    }


class Bundle:
    """A bundle directory. Change config freely; the harness saves it before it is used."""

    def __init__(self, directory: Path, template: Path, cgroups_path: str) -> None:
        """Make the bundle at directory; its rootfs is template's, with the files hard-linked."""
        self.directory = directory
        self.rootfs = directory / "rootfs"
        self.config = default_config(cgroups_path)
        directory.mkdir(parents=True)
        shutil.copytree(template, self.rootfs, symlinks=True, copy_function=os.link)

    def save(self) -> None:
        """Write config.json."""
        (self.directory / "config.json").write_text(json.dumps(self.config, indent=2))

    def get(self, pointer: str) -> Any:
        """Return the value at a JSON pointer (RFC 6901)."""
        value: Any = self.config
        for token in _tokens(pointer):
            value = value[int(token) if isinstance(value, list) else token]
        return value

    def set(self, pointer: str, value: object) -> None:
        """Put value at a JSON pointer; missing objects on the way appear, "-" appends to a list."""
        *parents, last = _tokens(pointer)
        place: Any = self.config
        for token in parents:
            place = place[int(token)] if isinstance(place, list) else place.setdefault(token, {})
        if not isinstance(place, list):
            place[last] = value
        elif last == "-":
            place.append(value)
        else:
            place[int(last)] = value

    def remove(self, pointer: str) -> None:
        """Remove what a JSON pointer points at."""
        parent, _, last = pointer.rpartition("/")
        place = self.get(parent)
        del place[int(last) if isinstance(place, list) else _tokens("/" + last)[0]]

    def file(self, path: str, text: str, mode: int = 0o644) -> Path:
        """Write a file inside the rootfs, in place of one that may be linked; return its path."""
        target = self.rootfs / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_text(text)
        target.chmod(mode)
        return target


def _tokens(pointer: str) -> list[str]:
    return [t.replace("~1", "/").replace("~0", "~") for t in pointer.split("/")[1:]]
