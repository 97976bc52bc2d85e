# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding out which of CPython's blocks a start of the image uses, so that they lie together.

Python counts references in the objects themselves: using one means to write to it, and the kernel
copies the page. Which objects these are only a try can tell. Images that tell which of their pages
were used (start.c, tell) do what the real one will; once with all blocks where they happen to lie,
then with a page for each block of the pages that were used; in the end with all in their places,
which tells the pages that each command is going to use.
"""

from __future__ import annotations

import itertools
import os
import struct
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ocirt.image.rehearsal import Commands, run_quietly

_PAGE = 4096
_GRANULE = 16
_LARGEST = 4 * _PAGE
_TRIES = 3
# As image.h has them (struct used).
_NAME = struct.Struct("=12sI")
_RANGE = struct.Struct("=II")
_NAMES, _RANGES = 16, 4096
_ONLY_READ = 1 << 31
# Commands that use most of what is placed; a plan does, too, but is for people.
_LONG = ("create", "run", "exec", "plan")

Plant = Callable[..., None]


def plant_placed(plant: Plant, image: Path, work: Path, commands: Commands) -> None:
    """Make an image with the blocks placed that it uses, or, where that can't be had, without.

    plant is build.py's, commands are what the image is made for. On the way there are images of
    a gigabyte for a moment. Raises CalledProcessError if no image can be made at all.
    """
    for _ in range(_TRIES):
        try:
            place = Placement(plant, work, commands)
            if place.find() and place.refine() and place.plant_image(image):
                return
        except (subprocess.SubprocessError, OSError, ValueError) as e:
            print(f"blocks aren't placed: {e}", file=sys.stderr)
            break
        finally:
            (work / "profile").unlink(missing_ok=True)
    else:
        print("blocks aren't placed: allocations differ from run to run", file=sys.stderr)
    plant(image)


class Placement:
    """Which blocks to place, in lists, one behind the other.

    Those that short commands write to, those that only the others do; what is only read, in the
    same order: such pages aren't copied; and those which are used besides when the others lie where
    they will: where names lie decides which types' attributes CPython finds in its cache.
    """

    def __init__(self, plant: Plant, work: Path, commands: Commands) -> None:
        self._plant, self._work, self._commands = plant, work, commands
        self._lists: list[Path] = []
        self._placed: set[int] = set()
        self._blocks = array("Q")
        self._pages: dict[str, set[int]] = {}  # that each command used, as start.c tells them

    def find(self) -> bool:
        """Find all but the last; False if allocations differ from run to run."""
        hot = self._used_blocks()
        if not hot:
            return False
        for written in (True, False):
            for short in (True, False):
                names = [name for name in self._pages if not (short and name in _LONG)]
                used = set().union(*(self._pages[name] for name in names))
                pages = {page for page in used if page & 1 or not written}
                found = hot & _in_pages(self._blocks, pages) - self._placed
                kind = "written" if written else "read"
                self._place(f"{'short' if short else 'long'}-{kind}", found)
        return True

    def refine(self) -> bool:
        """Find the last."""
        more = self._used_blocks()
        if more is None:
            return False
        self._place("more", more)
        return True

    def plant_image(self, image: Path) -> bool:
        """Make the image; False if its blocks aren't those that were found."""
        self._profile()
        used = self._work / "used"
        used.write_bytes(_used(self._pages))
        record = self._work / "blocks"
        self._plant(image, lists=self._lists, record=record, used=used)
        return _same_order(self._blocks, _read(record))

    def _place(self, name: str, numbers: set[int]) -> None:
        self._lists.append(_write(self._work / name, numbers, self._blocks))
        self._placed |= numbers

    def _used_blocks(self) -> set[int] | None:
        """Return those blocks, not placed so far, that are used; the last profile tells them apart.

        None if allocations differ from run to run.
        """
        blocks = self._profile()
        near = _in_pages(blocks, set().union(*self._pages.values())) - self._placed
        self._blocks = self._profile(_write(self._work / "candidates", near, blocks))
        if not _same_order(blocks, self._blocks):
            return None
        hot = _in_pages(self._blocks, set().union(*self._pages.values())) & near
        # Of a large block, such as the table of interned strings, only some pages are used.
        return {n for n in hot if self._blocks[2 * n + 1] <= _LARGEST}

    def _profile(self, candidates: Path | None = None) -> array[int]:
        """See which pages each command uses of an image that tells; returns that image's blocks."""
        record, profile, output = (self._work / name for name in ("blocks", "profile", "pages"))
        lists, mode = self._lists, "profile"
        if candidates:
            lists, mode = [*lists, candidates], "spread"
        self._plant(profile, lists=lists, mode=mode, record=record)
        self._pages = {}
        for words in self._commands:
            output.unlink(missing_ok=True)
            # The kernel maps what it has there, too, around each page that is used.
            drop_from_page_cache(profile)
            env = {"OCIRT_PAGES": str(output), "PATH": os.defpath}
            run_quietly([str(profile), *words], env=env)
            self._pages.setdefault(_name(words), set()).update(_read(output))
        return _read(record)


def _name(words: list[str]) -> str:
    """Return the command of a command line, or what takes its place."""
    return next((word for word in words if not word.startswith("-")), words[-1])


def _used(pages: dict[str, set[int]]) -> bytes:
    """Return image.h's struct used for the pages that commands used, as start.c tells them."""
    # Where no container can be run, a plan tells most of what making one uses.
    pages = dict.fromkeys(_LONG, pages["plan"]) | pages
    names, ranges = b"", b""
    for name, used in pages.items():
        written = {page // _PAGE for page in used if page & 1}
        read = {page // _PAGE for page in used} - written
        only_read = ((first, count | _ONLY_READ) for first, count in _runs(read))
        ranges += b"".join(_RANGE.pack(*run) for run in sorted((*_runs(written), *only_read)))
        names += _NAME.pack(name.encode(), len(ranges) // _RANGE.size)
    if len(pages) >= _NAMES or len(ranges) > _RANGES * _RANGE.size:
        raise ValueError("image.h has no room for so many commands or ranges of pages")
    return names.ljust(_NAMES * _NAME.size, b"\0") + ranges.ljust(_RANGES * _RANGE.size, b"\0")


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield numbers that follow each other as first and count."""
    for _, run in itertools.groupby(enumerate(sorted(numbers)), lambda at: at[1] - at[0]):
        found = [number for _, number in run]
        yield found[0], len(found)


def _same_order(one: array[int], other: array[int]) -> bool:
    """Tell whether two runs allocated the same; a file that was read may have grown a little."""
    differing = sum(a != b for a, b in zip(one[1::2], other[1::2], strict=False))
    return len(one) == len(other) and differing < len(one) // 1000


def _read(path: Path) -> array[int]:
    numbers = array("Q")
    numbers.frombytes(path.read_bytes())
    return numbers


def _write(path: Path, numbers: set[int], blocks: array[int]) -> Path:
    """Write a file as place.h has it; blocks has their sizes."""
    size = sum(max(blocks[2 * n + 1], 1) + _GRANULE - 1 & -_GRANULE for n in numbers)
    path.write_bytes(array("I", [size, *sorted(numbers)]).tobytes())
    return path


def _in_pages(blocks: array[int], pages: set[int]) -> set[int]:
    """Return the numbers of the blocks that lie in these pages, as far as they still exist.

    blocks has address and size of each. Of two at one address the later one exists.
    """
    pages = {page & -_PAGE for page in pages}
    latest = {blocks[at]: at // 2 for at in range(0, len(blocks), 2)}
    return {
        number
        for address, number in latest.items()
        if any(
            page in pages
            for page in range(address & -_PAGE, address + max(1, blocks[2 * number + 1]), _PAGE)
        )
    }


def drop_from_page_cache(path: Path) -> None:
    """Have the next who reads a file get it from the disk, where it is written first."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
