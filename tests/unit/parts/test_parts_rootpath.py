# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths inside a hostile root: openat2 and our walk agree, and neither leaves it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocirt.parts import rootpath
from ocirt.parts.rootpath import Make, Root

NAMES = ("a", "b", "link", "loop", "up", "abs", "file")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("tree")
    root = top / "root"
    for directory in ("a/b/a", "b/a"):
        (root / directory).mkdir(parents=True)
    for place in ("", "a", "a/b", "b"):
        (root / place / "file").write_text("")
        os.symlink("/a/b", root / place / "abs")
        os.symlink("../../../../b", root / place / "up")
        os.symlink("loop", root / place / "loop")
        os.symlink("a", root / place / "link")
    (top / "outside").mkdir()
    os.symlink(top / "outside", root / "out")
    return root


@pytest.fixture
def root(tree: Path) -> Iterator[Root]:
    fd = os.open(tree, os.O_PATH | os.O_DIRECTORY)
    yield Root(fd)
    os.close(fd)


def identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    os.close(fd)
    return found.st_dev, found.st_ino


def outcome(path: str, root: Root, how: str) -> object:
    try:
        return identity(root.open(path) if how == "openat2" else root.walk(path))
    except OSError as e:
        return e.errno


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.lists(st.sampled_from((*NAMES, "..", ".", "")), max_size=6), st.booleans())
def test_the_walk_agrees_with_openat2(root: Root, parts: list[str], absolute: bool) -> None:
    path = ("/" if absolute else "") + "/".join(parts)
    if path:
        assert outcome(path, root, "walk") == outcome(path, root, "openat2")


@pytest.mark.parametrize("path", ["../../../..", "/..", "up/../..", "abs/../../../.."])
def test_dots_dont_climb_out(root: Root, path: str) -> None:
    assert identity(root.open(path)) == identity(os.dup(root.fd))


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM, errno.EAGAIN])
def test_without_openat2(root: Root, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    expected = identity(root.open("/link/b"))
    tries = 0

    def fail(*args: object, **more: object) -> int:
        nonlocal tries
        tries += 1
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(rootpath, "openat2", fail)
    assert identity(root.open("/link/b")) == expected
    assert os.read(root.open("/file", os.O_RDONLY), 10) == b""
    with pytest.raises(OSError, match="loop"):
        root.open("/loop")
    assert os.readlink("", dir_fd=root.open("/abs", os.O_PATH | os.O_NOFOLLOW)) == "/a/b"
    # EAGAIN can be forced by whoever renames in a loop: it is tried again, but not for ever.
    assert tries == 4 * (32 if error == errno.EAGAIN else 1)


def test_making_goes_through_links_and_stays_inside(root: Root, tree: Path) -> None:
    outside = tree.parent / "outside"
    os.close(root.make("/out/new/dir", Make.DIRECTORY))
    os.close(root.make("/out/new/file", Make.FILE))
    assert os.listdir(outside) == []
    inside = tree / str(outside).lstrip("/")
    assert (inside / "new" / "dir").is_dir()
    assert (inside / "new" / "file").is_file()


def test_making_what_is_there_changes_nothing(root: Root, tree: Path) -> None:
    (tree / "a" / "file").write_text("kept")
    os.close(root.make("/a/file", Make.FILE))
    assert (tree / "a" / "file").read_text() == "kept"
    with pytest.raises(NotADirectoryError):
        root.make("/a/file/below", Make.DIRECTORY)


def test_a_loop_is_an_error(root: Root) -> None:
    with pytest.raises(OSError, match="loop") as caught:
        root.make("/a/loop/x", Make.DIRECTORY)
    assert caught.value.errno == errno.ELOOP


def test_no_descriptor_is_lost(root: Root) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in ("/a/b", "/loop", "/abs/none", "/up/link"):
        for how in ("openat2", "walk"):
            outcome(path, root, how)
    assert len(os.listdir("/proc/self/fd")) == before
