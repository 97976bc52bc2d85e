# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding out which of CPython's blocks a start of the image writes to, so that they lie together.

Python counts references in the objects themselves: using one means to write to it, and the kernel
copies the page. Which objects these are only a try can tell. Images that note which of their pages
were written to (profile.py) do what the real one will; once with all blocks where they happen to
lie, then with a page for each block of the pages that were written to.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ocirt.spec.defaults import default_config

_HERE = Path(__file__).parent
_PAGE = 4096
_LIMIT_SECONDS = 60

# The container's program: it ends at once, and with an argument it waits.
_PROGRAM = "#include <unistd.h>\nint main(int c, char **v) { (void)v; return c > 1 && pause(); }\n"

Plant = Callable[..., None]


def hot_blocks(plant: Plant, work: Path) -> Path | None:
    """Return a file of the blocks to place (place.h), None if that can't be found out here.

    plant is build.py's. Raises CalledProcessError where the build's tools fail.
    """
    profile, record = work / "profile", work / "blocks"
    tell = _HERE / "profile.py"
    plant(profile, tell, record=record)
    blocks = _read(record)
    near = _in_pages(blocks, _written(profile, work))
    candidates = _write(work / "candidates", near)
    plant(profile, tell, numbers=candidates, granule=_PAGE, record=record)
    spread = _read(record)
    # Not their sizes, too: a file that was read may have grown by a byte.
    if len(blocks) != len(spread):
        print("blocks aren't placed: allocations differ from run to run", file=sys.stderr)
        return None
    return _write(work / "hot", _in_pages(spread, _written(profile, work)) & near)


def _read(path: Path) -> array[int]:
    numbers = array("Q")
    numbers.frombytes(path.read_bytes())
    return numbers


def _write(path: Path, numbers: set[int]) -> Path:
    path.write_bytes(array("I", sorted(numbers)).tobytes())
    return path


def _in_pages(blocks: array[int], pages: set[int]) -> set[int]:
    """Return the numbers of the blocks that lie in these pages, as far as they still exist.

    blocks has address and size of each. Of two at one address the later one exists.
    """
    latest = {blocks[at]: at // 2 for at in range(0, len(blocks), 2)}
    return {
        number
        for address, number in latest.items()
        if any(
            page in pages
            for page in range(address & -_PAGE, address + max(1, blocks[2 * number + 1]), _PAGE)
        )
    }


def _written(profile: Path, work: Path) -> set[int]:
    """Run what the image will be used for; return the addresses of the pages written to."""
    output = work / "pages"
    output.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="ocirt-build-") as folder:
        for command in _commands(Path(folder)):
            ended = subprocess.run(
                [profile, "--root", f"{folder}/state", *command],
                env={"OCIRT_PROFILE": str(output), "PATH": os.defpath},
                # A container has them, too, and holds them: no pipes.
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_LIMIT_SECONDS,
                check=False,
            )
            if ended.returncode and "none" not in command:
                print(f"profile: {' '.join(command)} failed", file=sys.stderr)
    return set(_read(output))


def _commands(folder: Path) -> Iterator[tuple[str, ...]]:
    yield ("--version",)
    yield ("list",)
    yield "delete", "--force", "none"
    yield "state", "none"
    bundle = _bundle(folder, "true")
    yield "plan", "--bundle", bundle, "true"
    if os.geteuid():
        return
    yield "run", "--bundle", bundle, "true"
    name = "wait"
    yield "create", "--bundle", _bundle(folder, name, "wait"), name
    yield "start", name
    yield "state", name
    yield "exec", name, "/true"
    yield "kill", name, "KILL"
    yield "delete", "--force", name


def _bundle(folder: Path, name: str, *arguments: str) -> str:
    rootfs = folder / "rootfs"
    if not rootfs.exists():
        for place in ("dev", "proc", "sys"):
            (rootfs / place).mkdir(parents=True)
        compiler = ["gcc", "-O1", "-static", "-xc", "-o", str(rootfs / "true"), "-"]
        subprocess.run(compiler, input=_PROGRAM, text=True, check=True)
    config: dict[str, Any] = default_config(rootless=False)
    config["root"]["path"] = str(rootfs)
    config["process"]["args"] = ["/true", *arguments]
    config["process"]["terminal"] = False
    config["linux"]["cgroupsPath"] = f"/ocirt-build-{secrets.token_hex(4)}"
    bundle = folder / name
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps(config))
    return str(bundle)
