# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding out which of CPython's blocks a start of the image uses, so that they lie together.

Python counts references in the objects themselves: using one means to write to it, and the kernel
copies the page. Which objects these are only a try can tell. Images that note which of their pages
were used (profile.py) do what the real one will; once with all blocks where they happen to lie,
then with a page for each block of the pages that were used.
"""

from __future__ import annotations

import os
import subprocess
import sys
from array import array
from collections.abc import Callable
from pathlib import Path

from ocirt.image.rehearsal import Commands, run_quietly

_HERE = Path(__file__).parent
_PAGE = 4096
_LARGEST = 4 * _PAGE
_TRIES = 3

Plant = Callable[..., None]


def plant_placed(plant: Plant, image: Path, work: Path, commands: Commands) -> None:
    """Make an image with the blocks placed that it uses, or, where that can't be had, without.

    plant is build.py's, commands are what the image is made for. On the way there is an image of
    a gigabyte for a moment. Raises CalledProcessError if no image can be made at all.
    """
    for _ in range(_TRIES):
        try:
            blocks, hot = _hot_blocks(plant, work, commands)
        except subprocess.CalledProcessError as e:
            print(f"blocks aren't placed: {e}", file=sys.stderr)
            break
        finally:
            (work / "profile").unlink(missing_ok=True)
        record = work / "blocks"
        plant(image, numbers=_write(work / "hot", hot), record=record)
        if hot and _same_order(blocks, _read(record)):
            return
    else:
        print("blocks aren't placed: allocations differ from run to run", file=sys.stderr)
    plant(image)


def _hot_blocks(plant: Plant, work: Path, commands: Commands) -> tuple[array[int], set[int]]:
    """Return all blocks, as they were recorded, and the numbers of those that are used."""
    profile, record = work / "profile", work / "blocks"
    tell = _HERE / "profile.py"
    plant(profile, tell, record=record)
    blocks = _read(record)
    near = _in_pages(blocks, _used(profile, work, commands))
    candidates = _write(work / "candidates", near)
    plant(profile, tell, numbers=candidates, granule=_PAGE, record=record)
    spread = _read(record)
    if not _same_order(blocks, spread):
        return blocks, set()
    hot = _in_pages(spread, _used(profile, work, commands)) & near
    # Of a large block, such as the table of interned strings, only some pages are used.
    return spread, {n for n in hot if spread[2 * n + 1] <= _LARGEST}


def _same_order(one: array[int], other: array[int]) -> bool:
    """Tell whether two runs allocated the same; a file that was read may have grown a little."""
    differing = sum(a != b for a, b in zip(one[1::2], other[1::2], strict=False))
    return len(one) == len(other) and differing < len(one) // 1000


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


def _used(profile: Path, work: Path, commands: Commands) -> set[int]:
    """Run what the image will be used for; return the addresses of the pages that were used."""
    output = work / "pages"
    output.unlink(missing_ok=True)
    _drop_from_page_cache(profile)
    for words in commands:
        run_quietly([str(profile), *words], env={"OCIRT_PROFILE": str(output), "PATH": os.defpath})
    return set(_read(output))


def _drop_from_page_cache(path: Path) -> None:
    """The kernel maps what it has there, too, around each page that is used."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
