# SPDX-License-Identifier: GPL-3.0-or-later
"""What a peer runtime needs to be measured at all, besides its path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# crun 1.8 refuses a newer config.json, whatever is in it, and a cgroup2 mounted beside v1.
_OLD = ("crun version 1.8",)
_ADAPTER = """#!{python} -I
import json, os, re, sys

if "create" in sys.argv or "run" in sys.argv:
    place = sys.argv[sys.argv.index("--bundle") + 1] if "--bundle" in sys.argv else "."
    path = os.path.join(place, "config.json")
    try:
        with open(path) as file:
            config = json.load(file)
        if re.fullmatch(r"1[.][0-9]+[.][0-9]+", str(config.get("ociVersion"))):
            config["ociVersion"] = "1.0.2"
            with open(path, "w") as file:
                json.dump(config, file)
    except (OSError, ValueError):
        pass
os.execv({runtime!r}, [{runtime!r}, *sys.argv[1:]])
"""


def version(runtime: str) -> str:
    """Return the first line that the runtime says to --version: "runc version 1.1.5"."""
    ended = subprocess.run([runtime, "--version"], capture_output=True, text=True, check=False)
    return ended.stdout.partition("\n")[0]


def adapter_for(runtime: str, folder: Path) -> str:
    """Return the runtime, or a script made in folder that declares an older ociVersion for it."""
    if not version(runtime).startswith(_OLD):
        return runtime
    script = folder / "runtime"
    script.write_text(_ADAPTER.format(python=sys.executable, runtime=runtime))
    script.chmod(0o755)
    return str(script)


def refuses_hybrid(runtime: str) -> bool:
    """Tell whether it can't work where a cgroup2 is mounted beside v1 hierarchies."""
    return version(runtime).startswith(_OLD)
