# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding out which of CPython's blocks a start of the image writes to, so that they lie together.

Python counts references in the objects themselves: using one means to write to it, and the kernel
copies the page. Which objects these are only a try can tell. Images that note which of their pages
were written to (profile.py) do what the real one will; once with all blocks where they happen to
lie, then with a page for each block of the pages that were written to.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Callable
from pathlib import Path

from ocirt.image.rehearsal import Commands, run_quietly

_HERE = Path(__file__).parent
_PAGE = 4096
_LARGEST = 2 * _PAGE

Plant = Callable[..., None]


def hot_blocks(plant: Plant, work: Path, commands: Commands) -> Path | None:
    """Return a file of the blocks to place (place.h), None if that can't be found out here.

    plant is build.py's, commands are what the image is made for. Raises CalledProcessError where
    the build's tools fail.
    """
    profile, record = work / "profile", work / "blocks"
    tell = _HERE / "profile.py"
    plant(profile, tell, record=record)
    blocks = _read(record)
    near = _in_pages(blocks, _written(profile, work, commands))
    candidates = _write(work / "candidates", near)
    plant(profile, tell, numbers=candidates, granule=_PAGE, record=record)
    spread = _read(record)
    # Not their sizes, too: a file that was read may have grown by a byte.
    if len(blocks) != len(spread):
        print("blocks aren't placed: allocations differ from run to run", file=sys.stderr)
        return None
    hot = _in_pages(spread, _written(profile, work, commands)) & near
    # Of a large block, such as the table of interned strings, only some pages are written to.
    return _write(work / "hot", {n for n in hot if spread[2 * n + 1] <= _LARGEST})


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


def _written(profile: Path, work: Path, commands: Commands) -> set[int]:
    """Run what the image will be used for; return the addresses of the pages written to."""
    output = work / "pages"
    output.unlink(missing_ok=True)
    for words in commands:
        run_quietly(profile, words, env={"OCIRT_PROFILE": str(output), "PATH": os.defpath})
    return set(_read(output))
