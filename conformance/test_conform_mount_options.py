# SPDX-License-Identifier: GPL-3.0-or-later
"""config.md "Linux mount options": each row's option has its effect, as mountinfo tells."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conformance.probe import (
    MountEntry,
    assert_create_refused,
    mount_at,
    mounts_at,
    try_create,
)
from conformance.requirement import Level, requirement
from tests.harness import Container

row = partial(requirement, "config.md", "Linux mount options")

MUST, SHOULD = Level.MUST, Level.SHOULD
RECENT = "the row demands it; the releases that are shown are older than the row"


@dataclass(frozen=True, slots=True)
class Effect:
    """What an option does to a tmpfs: flags that appear or go. before: options that come first."""

    sentence: int
    name: str
    level: Level = MUST
    before: tuple[str, ...] = ()
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


EFFECTS = (
    Effect(2, "async", before=("sync",), lacks=("sync",)),
    Effect(3, "atime", before=("noatime",), lacks=("noatime",)),
    Effect(5, "defaults", has=("rw",), lacks=("nosuid", "nodev", "noexec", "sync")),
    Effect(6, "dev", before=("nodev",), lacks=("nodev",)),
    Effect(7, "diratime", before=("nodiratime",), lacks=("nodiratime",)),
    Effect(8, "dirsync", has=("dirsync",)),
    Effect(9, "exec", before=("noexec",), lacks=("noexec",)),
    # mountinfo doesn't show these four; a file system would refuse them as its own.
    Effect(10, "iversion"),
    Effect(18, "noiversion"),
    Effect(12, "loud"),
    Effect(53, "silent"),
    Effect(11, "lazytime", has=("lazytime",)),
    Effect(14, "noatime", has=("noatime",)),
    Effect(15, "nodev", has=("nodev",)),
    Effect(16, "nodiratime", has=("nodiratime",)),
    Effect(17, "noexec", has=("noexec",)),
    Effect(19, "nolazytime", before=("lazytime",), lacks=("lazytime",)),
    Effect(21, "norelatime"),
    Effect(22, "nostrictatime", before=("strictatime",), has=("relatime",)),
    Effect(23, "nosuid", has=("nosuid",)),
    Effect(24, "nosymfollow", SHOULD, has=("nosymfollow",)),
    Effect(30, "relatime", has=("relatime",), lacks=("noatime",)),
    Effect(40, "ro", has=("ro",)),
    Effect(51, "rw", before=("ro",), has=("rw",)),
    Effect(55, "strictatime", lacks=("relatime", "noatime")),
    Effect(56, "suid", before=("nosuid",), lacks=("nosuid",)),
    Effect(57, "symfollow", SHOULD, before=("nosymfollow",), lacks=("nosymfollow",)),
    Effect(58, "sync", has=("sync",)),
)


def tmpfs(*options: str, destination: str = "/data") -> dict[str, Any]:
    return {"destination": destination, "type": "tmpfs", "source": "t", "options": list(options)}


def assert_flags(entry: MountEntry, has: tuple[str, ...], lacks: tuple[str, ...]) -> None:
    shown = {*entry.options, *entry.filesystem_options} - (
        {"rw"} if "ro" in entry.options else set()
    )
    assert set(has) <= shown, f"lacks {set(has) - shown}, has {shown}"
    assert not shown & set(lacks), f"has {shown & set(lacks)}"


@pytest.mark.parametrize(
    "effect",
    [
        pytest.param(
            effect,
            id=effect.name,
            marks=row(effect.sentence, level=effect.level, says=f"option {effect.name}"),
        )
        for effect in EFFECTS
    ],
)
@pytest.mark.right(RECENT)
def test_option(container: Container, effect: Effect) -> None:
    container.bundle.set("/mounts/-", tmpfs(*effect.before, effect.name))
    container.create()
    assert_flags(mount_at(container.pid, "/data"), effect.has, effect.lacks)


@row(1, level=MUST, says="all options that must be there are, together")
@row(1, level=SHOULD, says="and those that should be there")
@pytest.mark.right(RECENT)
def test_all_options(container: Container) -> None:
    for effect in EFFECTS:
        entry = tmpfs(*effect.before, effect.name, destination=f"/{effect.name}")
        container.bundle.set("/mounts/-", entry)
    container.create()
    for effect in EFFECTS:
        assert_flags(mount_at(container.pid, f"/{effect.name}"), effect.has, effect.lacks)


@row(31, level=MUST, says="option remount")
def test_remount(container: Container) -> None:
    container.bundle.set("/mounts/-", tmpfs("size=64k"))
    container.bundle.set("/mounts/-", tmpfs("remount", "ro", "size=64k"))
    container.create()
    (entry,) = mounts_at(container.pid, "/data")
    assert "ro" in entry.options


@dataclass(frozen=True, slots=True)
class Source:
    """A directory to bind: a mount of its own with another mount, sub, in it."""

    path: Path

    def mount(self, *options: str) -> dict[str, Any]:
        return {
            "destination": "/data",
            "type": "bind",
            "source": str(self.path),
            "options": list(options),
        }

    def remount(self, flags: str) -> None:
        for place in (self.path, self.path / "sub"):
            subprocess.run(["mount", "-o", f"remount,bind,{flags}", str(place)], check=True)


@pytest.fixture
def source(directory: Path) -> Iterator[Source]:
    """A source to bind, shared: mounts of it may be shared or slaves."""
    path = directory / "source"
    path.mkdir()
    # A private mount above: what is made here must not reach further.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(path)], check=True)
    (path / "sub").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "sub", str(path / "sub")], check=True)
    (path / "file").write_text("here\n")
    (path / "sub/file").write_text("below\n")
    subprocess.run(["mount", "--make-rshared", str(path)], check=True)
    yield Source(path)
    subprocess.run(["umount", "-R", "-l", str(path)], check=True)


@row(4, level=MUST, says="option bind")
def test_bind(container: Container, source: Source) -> None:
    container.bundle.set("/mounts/-", source.mount("bind"))
    assert container.inside("cat /data/file; ls /data/sub") == "here"


@row(27, level=MUST, says="option rbind")
def test_rbind(container: Container, source: Source) -> None:
    container.bundle.set("/mounts/-", source.mount("rbind"))
    assert container.inside("cat /data/file /data/sub/file").split() == ["here", "below"]


PROPAGATION = {
    "private": (25, ""),
    "rprivate": (41, ""),
    "shared": (52, "shared:"),
    "rshared": (45, "shared:"),
    "slave": (54, "master:"),
    "rslave": (46, "master:"),
    "unbindable": (60, "unbindable"),
    "runbindable": (50, "unbindable"),
}


@pytest.mark.parametrize(
    "name, field",
    [
        pytest.param(name, field, id=name, marks=row(at, level=MUST, says=f"option {name}"))
        for name, (at, field) in PROPAGATION.items()
    ],
)
def test_propagation(container: Container, source: Source, name: str, field: str) -> None:
    recursive = name.startswith("r")
    container.bundle.set("/mounts/-", source.mount("rbind", name))
    container.create()
    pid = container.pid
    for destination in ("/data", "/data/sub") if recursive else ("/data",):
        shown = mount_at(pid, destination).propagation
        # A shared mount may get what its master does, too.
        matches = [entry for entry in shown if field and entry.startswith(field)]
        assert bool(matches) == bool(field) and (field or not shown), f"{destination}: {shown}"


@dataclass(frozen=True, slots=True)
class Recursive:
    """A recursive option: the flag it sets, or clears where the source's mounts had it."""

    sentence: int
    name: str
    sets: str = ""
    clears: str = ""


RECURSIVE = (
    Recursive(26, "ratime", clears="noatime"),
    Recursive(28, "rdev", clears="nodev"),
    Recursive(29, "rdiratime", clears="nodiratime"),
    Recursive(32, "rexec", clears="noexec"),
    Recursive(33, "rnoatime", sets="noatime"),
    Recursive(34, "rnodiratime", sets="nodiratime"),
    Recursive(35, "rnoexec", sets="noexec"),
    Recursive(36, "rnorelatime", sets=""),
    Recursive(37, "rnostrictatime", sets="relatime"),
    Recursive(38, "rnosuid", sets="nosuid"),
    Recursive(39, "rnosymfollow", sets="nosymfollow"),
    Recursive(42, "rrelatime", sets="relatime"),
    Recursive(43, "rro", sets="ro"),
    Recursive(44, "rrw", clears="ro"),
    Recursive(47, "rstrictatime", clears="relatime"),
    Recursive(48, "rsuid", clears="nosuid"),
    Recursive(49, "rsymfollow", clears="nosymfollow"),
)


@pytest.mark.parametrize(
    "option",
    [
        pytest.param(o, id=o.name, marks=row(o.sentence, level=SHOULD, says=f"option {o.name}"))
        for o in RECURSIVE
    ],
)
@pytest.mark.right(RECENT)
def test_recursive(container: Container, source: Source, option: Recursive) -> None:
    if option.clears and option.clears != "relatime":
        source.remount(option.clears)
    container.bundle.set("/mounts/-", source.mount("rbind", option.name))
    container.create()
    for destination in ("/data", "/data/sub"):
        entry = mount_at(container.pid, destination)
        has = (option.sets,) if option.sets else ()
        assert_flags(entry, has, (option.clears,) if option.clears else ())


MAPPING = [{"containerID": 0, "hostID": 1000, "size": 100}]
IDMAP_ROWS = {"idmap": (61, 62, 63, 65, 66), "ridmap": (67, 68, 69, 71, 72)}


def idmap_marks(name: str) -> list[pytest.MarkDecorator]:
    option, data, mapping, _, implemented = IDMAP_ROWS[name]
    return [
        row(option, level=SHOULD, says=f"option {name}"),
        row(option, level=MUST, says=f"{name} maps the mount's ids"),
        row(data, level=Level.SHOULD_NOT, says=f"{name} isn't given to mount(2)"),
        row(mapping, level=MUST, says="the mount's own mappings are used"),
        row(implemented, level=SHOULD, says="done by mount_setattr(2)"),
        *[
            requirement("config.md", "POSIX-platform Mounts", at, level=SHOULD, says=says)
            for at, says in ((7, "uidMappings by mount_setattr(2)"), (12, "gidMappings likewise"))
        ],
    ]


@pytest.mark.parametrize(
    "name", [pytest.param(name, id=name, marks=idmap_marks(name)) for name in IDMAP_ROWS]
)
@pytest.mark.right(RECENT)
def test_idmap(container: Container, source: Source, name: str) -> None:
    entry = source.mount("rbind", name) | {"uidMappings": MAPPING, "gidMappings": MAPPING}
    container.bundle.set("/mounts/-", entry)
    owners = container.inside("stat -c %u:%g /data/file /data/sub/file").split()
    below = "1000:1000" if name == "ridmap" else "0:0"
    assert owners == ["1000:1000", below]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, id=name, marks=row(at[3], level=MUST, says="no mappings: an error"))
        for name, at in IDMAP_ROWS.items()
    ],
)
@pytest.mark.right(RECENT)
def test_idmap_of_nothing(container: Container, source: Source, name: str) -> None:
    container.bundle.set("/mounts/-", source.mount("rbind", name))
    assert_create_refused(container)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("idmap", marks=row(64, level=MUST, says="the user namespace's, or an error")),
        pytest.param("ridmap", marks=row(70, level=MUST, says="the user namespace's, or an error")),
    ],
)
def test_idmap_of_user_namespace(container: Container, source: Source, name: str) -> None:
    linux = container.config["linux"]
    linux["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        linux[kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    container.bundle.set("/mounts/-", source.mount("rbind", name))
    container.command("/bin/stat", "-c", "%u", "/data/file")
    result = try_create(container)
    if result.status == 0:
        container.runtime.call("delete", "--force", container.id)
        assert container.run().checked().stdout == "0\n"
