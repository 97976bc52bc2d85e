# SPDX-License-Identifier: GPL-3.0-or-later
"""What the build runs before the image is saved: the commands that people and engines run all day.

The seed runs them so often that CPython has specialised their code and filled its caches
(seed.py); the images that are profiled run them once (placement.py).
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ocirt.spec.defaults import default_config

_CHECKOUT = Path(__file__).parents[2]
_LIMIT_SECONDS = 60

# The container's program: it ends at once, and with an argument it waits.
_PROGRAM = "#include <unistd.h>\nint main(int c, char **v) { (void)v; return c > 1 && pause(); }\n"

# Small, but every step of loading a filter is there.
_PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
}

Commands = list[list[str]]


def prepare(folder: Path) -> Commands:
    """Make bundles below a folder; return command lines without the program's name.

    Plain Python tries whether containers can be run here: where they can't, the commands are those
    that need none. It leaves the profile's filter in the cache.
    """
    state = f"{folder}/state"
    commands = [[f"--root={state}", *words] for words in _without_containers(folder)]
    containers = [[f"--root={state}", *words] for words in _with_containers(folder)]
    if os.geteuid() == 0 and all(_works(words) for words in containers):
        commands += containers
    else:
        print("no containers can be run here: the image will be a slower one", file=sys.stderr)
    return commands


def run_quietly(command: list[str], **options: Any) -> int:
    """Run a command; a container may hold its stdio, so that is no pipe. Returns the status."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_LIMIT_SECONDS,
        check=False,
        **options,
    ).returncode


def _works(words: list[str]) -> bool:
    return run_quietly([sys.executable, "-m", "ocirt", *words], cwd=_CHECKOUT) == 0


def _without_containers(folder: Path) -> Iterator[tuple[str, ...]]:
    yield ("--version",)
    yield ("list",)
    yield "plan", "--bundle", _bundle(folder, "plan"), "plan"
    yield "delete", "--force", "none"


def _with_containers(folder: Path) -> Iterator[tuple[str, ...]]:
    """When all have been run, nothing is left."""
    yield "run", "--bundle", _bundle(folder, "true"), "true"
    yield "run", "--bundle", _bundle(folder, "filtered", seccomp=_PROFILE), "filtered"
    name = "wait"
    log = f"--log={folder}/log"
    pid_file = f"--pid-file={folder}/pid"
    bundle = _bundle(folder, name, "wait")
    yield log, "--log-format=json", "create", "--bundle", bundle, pid_file, name
    yield "start", name
    yield "state", name
    yield "list", "--format=json"
    yield "exec", name, "/true"
    yield "kill", name, "KILL"
    yield log, "--log-format=json", "delete", "--force", name


def _bundle(folder: Path, name: str, *arguments: str, **linux: Any) -> str:
    rootfs = folder / "rootfs"
    if not rootfs.exists():
        for place in ("dev", "proc", "sys"):
            (rootfs / place).mkdir(parents=True)
        compiler = ["gcc", "-O1", "-static", "-xc", "-o", str(rootfs / "true"), "-"]
        subprocess.run(compiler, input=_PROGRAM, text=True, check=True)
        (rootfs / "etc").mkdir()
        (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    config: dict[str, Any] = default_config(rootless=False)
    config["root"]["path"] = str(rootfs)
    config["process"]["args"] = ["/true", *arguments]
    config["process"]["terminal"] = False
    config["linux"] |= {"cgroupsPath": f"/ocirt-build-{secrets.token_hex(4)}", **linux}
    bundle = folder / name
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps(config))
    return str(bundle)
