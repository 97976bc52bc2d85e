# SPDX-License-Identifier: GPL-3.0-or-later
"""The pre-initialised executable, beyond what its build tests (ocirt/image/check.py)."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import shutil
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocirt.image.check import chosen_for_this_cpu
from ocirt.image.placement import drop_from_page_cache
from tests.harness import Container

SEED = Path(__file__).parent.parent.parent / "build/image/seed"
LIMIT_SECONDS = 60
PAGE = 4096
HUGE = 2 << 20
ONLY_READ = 1 << 31  # image.h


def test_it_needs_no_particular_cpu(image: Path) -> None:
    assert chosen_for_this_cpu(image, SEED) == []


def test_a_build_for_this_cpu_would_be_noticed(image: Path, tmp_path: Path) -> None:
    """The control: the same seed without the switch that hides what this CPU can."""
    if " avx2 " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this CPU has nothing to hide")
    script = tmp_path / "seed.py"
    script.write_text("def entry(argv, environ, ignored):\n    return 0\n")
    library = os.path.dirname(os.__file__)
    nothing = ("",) * 9  # more to run, blocks to place, pages
    command = [str(SEED), str(tmp_path / "image"), "/nowhere", "1", str(script), *nothing, library]
    subprocess.run(command, check=True, timeout=LIMIT_SECONDS, stdin=subprocess.DEVNULL)
    assert chosen_for_this_cpu(tmp_path / "image", SEED)


@dataclass(frozen=True, slots=True)
class Segment:
    """A PT_LOAD of an ELF file (elf(5)): offset in the file, address, bytes in the file, flags."""

    offset: int
    address: int
    size: int
    flags: str


@pytest.fixture
def segments(image: Path) -> list[Segment]:
    listing = subprocess.run(
        ["readelf", "--segments", "--wide", str(image)], capture_output=True, text=True, check=True
    ).stdout
    words = [line.split() for line in listing.splitlines() if line.split()[:1] == ["LOAD"]]
    return [Segment(int(w[1], 16), int(w[2], 16), int(w[4], 16), "".join(w[6:-1])) for w in words]


def test_blocks_are_placed(image: Path, segments: list[Segment]) -> None:
    """What a start uses lies together, behind the data; a build that can't have that goes on."""
    front = max(segments, key=lambda s: s.offset)
    data = image.read_bytes()[front.offset :]
    pages = [data[at : at + PAGE] for at in range(0, front.size, PAGE)]
    assert sum(page.strip(b"\0") != b"" for page in pages) > 200


def test_what_every_start_uses_is_the_end_of_the_file(image: Path, segments: list[Segment]) -> None:
    """So that nothing else is read ahead with it."""
    last = sorted(segments, key=lambda s: s.offset)[-3:]
    assert [s.flags for s in last] == ["RE", "R", "RW"]
    assert all(s.offset % HUGE == s.address % HUGE == s.size % HUGE == 0 for s in last)
    assert last[-1].offset + last[-1].size == image.stat().st_size


def used_pages() -> dict[str, list[tuple[int, int]]]:
    """Return what the build found out: by command, ranges of pages and how many (image.h)."""
    content = SEED.with_name("used").read_bytes()
    names, ends = zip(*struct.iter_unpack("=12sI", content[: 16 * 16]), strict=True)
    ranges = list(struct.iter_unpack("=II", content[16 * 16 :]))
    return {
        command: ranges[begin:end]
        for name, begin, end in zip(names, (0, *ends), ends, strict=False)
        if (command := name.rstrip(b"\0").decode())
    }


def test_it_knows_the_pages_that_commands_use(image: Path) -> None:
    assert SEED.with_name("used").read_bytes() in image.read_bytes()
    used = used_pages()
    written = {c: sum(n for _, n in used[c] if not n & ONLY_READ) for c in used}
    read = {c: sum(n & ~ONLY_READ for _, n in used[c] if n & ONLY_READ) for c in used}
    assert {"create", "start", "state", "exec", "kill", "delete", "run", "list"} <= written.keys()
    assert 20 < written["state"] < written["run"] < 1000
    assert all(0 < pages < 1000 for pages in read.values())


def cached_pages(path: Path) -> set[int]:
    """Return which pages of a file are in the page cache (mincore(2)), by their numbers."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        vector = (ctypes.c_ubyte * -(-len(mapping) // PAGE))()
        begin = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        size = ctypes.c_size_t(len(mapping))
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(begin), size, vector) == 0
    return {number for number, flags in enumerate(vector) if flags & 1}


@pytest.mark.parametrize(
    ("command", "words", "error"),
    [("create", ["c"], "config.json"), ("state", ["/"], "invalid container ID")],
)
def test_what_a_command_will_use_is_read_at_once(
    image: Path,
    segments: list[Segment],
    tmp_path: Path,
    command: str,
    words: list[str],
    error: str,
) -> None:
    """From the disk, and without having been used: these end before they have done anything."""
    front = max(segments, key=lambda s: s.offset)
    copy = tmp_path / "ocirt"
    shutil.copy(image, copy)
    drop_from_page_cache(copy)
    if len(cached_pages(copy)) * PAGE > copy.stat().st_size / 2:
        pytest.skip("this file system keeps its files in memory")
    argv = [str(copy), command, *words]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert error in ended.stderr
    scattered = {
        (page - s.address // PAGE) + s.offset // PAGE
        for first, count in used_pages()[command]
        for page in range(first, first + (count & ~ONLY_READ))
        for s in segments
        if s.address <= page * PAGE < s.address + s.size and s.address != front.address
    }
    assert scattered
    deadline = time.monotonic() + LIMIT_SECONDS
    while not scattered <= cached_pages(copy):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_its_file_is_asked_for_in_huge_pages(
    image: Path, container: Container, directory: Path
) -> None:
    """What every start uses; the rest isn't, and other data isn't read ahead of its use."""
    container.command("/bin/sleep", "100000")
    pid_file = directory / "pid"
    argv = command_line(container, f"--pid-file={pid_file}")
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while not pid_file.exists():
            assert process.poll() is None
            time.sleep(0.01)
        container.wait_for("running")
        maps = Path(f"/proc/{process.pid}/smaps").read_text()
        container.kill("KILL")
        process.wait(LIMIT_SECONDS)
    modes = re.findall(r"^[0-9a-f]+-[0-9a-f]+ (....) ", maps, re.MULTILINE)
    assert modes
    assert not [mode for mode in modes if "w" in mode and "x" in mode]
    found = re.findall(
        r"^([0-9a-f]+)-([0-9a-f]+) (r-xp|r--p|rw-p) .*/(?:.*\n)*?VmFlags:(.*)$", maps, re.MULTILINE
    )
    assert {mode for *_, mode, _ in found} == {"r-xp", "r--p", "rw-p"}
    assert {mode for *_, mode, flags in found if "rr" in flags} == {"rw-p"}
    mapped = {(mode, "hg" in flags): int(to, 16) - int(at, 16) for at, to, mode, flags in found}
    assert ("r-xp", False) in mapped, "code that is hardly used"
    assert mapped["r-xp", True] % HUGE == 0
    assert mapped["r--p", True] % HUGE == 0


def invalid(container: Container) -> str:
    container.bundle.set("/hostname", 5)
    return "/hostname: has the wrong type, found 5, allowed: a string"


def uncached(container: Container) -> str:
    number = int.from_bytes(os.urandom(4), "little")
    rule = {"index": 0, "value": number, "op": "SCMP_CMP_EQ"}
    call = {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [rule]}
    container.bundle.set("/linux/seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [call]})
    return ""


def device(container: Container) -> str:
    container.bundle.set("/linux/netDevices", {"nosuch0": {}})
    return "nosuch0: the host has no network device of that name"


# What takes a library that isn't in the image: the library, and the error to expect, "" for none.
COLD = {"jsonschema": invalid, "seccomp": uncached, "pyroute2": device}


def command_line(container: Container, *options: str) -> list[str]:
    container.bundle.save()
    runtime = container.runtime
    place = ("--bundle", str(container.bundle.directory))
    return [runtime.executable, "--root", str(runtime.root), "run", *place, *options, container.id]


def run(
    container: Container, *before: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the container, by a command that executes the words after it."""
    return subprocess.run(
        [*before, *command_line(container)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
        env=env,
        cwd=cwd,
    )


@pytest.mark.parametrize("library", COLD)
def test_cold_paths_take_nobody_elses_library(
    image: Path, container: Container, directory: Path, library: str
) -> None:
    """Plain Python is called by its full path and with -I: surroundings have no say."""
    mark = directory / "mark"
    (directory / "python3").write_text(f"#!/bin/sh\ntouch {mark}\n")
    (directory / "python3").chmod(0o755)
    for name in (library, "sitecustomize"):
        (directory / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')\n")
    path = os.environ["PATH"]
    env = {"PATH": f"{directory}:{path}", "PYTHONPATH": str(directory), "HOME": str(directory)}
    container.command("/bin/echo", "ran")
    error = COLD[library](container)
    ended = run(container, env=env, cwd=directory)
    assert not mark.exists()
    assert (ended.stdout, ended.returncode) == (("", 1) if error else ("ran\n", 0)), ended.stderr
    assert error in ended.stderr
    # The control: a Python that isn't isolated takes it.
    argv = ["/usr/bin/python3", "-c", f"import {library}"]
    subprocess.run(argv, check=True, env=env, cwd=directory)
    assert mark.exists()


@pytest.mark.parametrize("library", COLD)
def test_cold_paths_without_stdio(image: Path, container: Container, library: str) -> None:
    container.command("/bin/true")
    error = COLD[library](container)
    ended = run(container, "sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    assert ended.returncode == bool(error)
    assert not container.remains()


# The launcher's path is absolute, so any copy of the image finds it: a mount hides it.
HIDE = 'mount --make-rprivate / && mount --bind /dev/null "$0" && exec "$@"'
LAUNCHER = Path(__file__).parent.parent.parent / "build/ocirt-plain"
HIDDEN = ("unshare", "--mount", "sh", "-c", HIDE, str(LAUNCHER))


@pytest.mark.parametrize("library", COLD)
def test_a_copy_alone(image: Path, container: Container, directory: Path, library: str) -> None:
    """Without the package beside it everything but the cold paths works; those say what they lack.

    Nothing is left of a container that couldn't be had.
    """
    copy = directory / "ocirt"
    shutil.copy(image, copy)
    container.runtime.executable = str(copy)
    container.command("/bin/echo", "ran")
    ended = run(container, *HIDDEN)
    assert (ended.returncode, ended.stdout) == (0, "ran\n"), ended.stderr
    COLD[library](container)
    ended = run(container, *HIDDEN)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "plain Python" in ended.stderr
    assert str(LAUNCHER) in ended.stderr
    assert not container.remains()
