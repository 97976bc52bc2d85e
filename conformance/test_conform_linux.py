# SPDX-License-Identifier: GPL-3.0-or-later
"""config-linux.md: file systems, namespaces, devices, masked and read-only paths."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from conformance.probe import assert_create_refused, mount_at, wait_until
from conformance.requirement import Level, requirement
from tests.harness import Container, proc

must = partial(requirement, "config-linux.md", level=Level.MUST)
should = partial(requirement, "config-linux.md", level=Level.SHOULD)
should_not = partial(requirement, "config-linux.md", level=Level.SHOULD_NOT)

# namespaces[].type -> /proc/PID/ns/...
NAMESPACES = {
    "pid": "pid",
    "network": "net",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
    "time": "time",
}
RECENT = "the specification names it; the releases that are shown are older than that"


def set_namespaces(container: Container, *kinds: str) -> None:
    container.bundle.set("/linux/namespaces", [{"type": kind} for kind in kinds])
    if "uts" not in kinds:
        container.config.pop("hostname", None)


def map_ids(container: Container) -> None:
    for kind in ("uidMappings", "gidMappings"):
        entry = {"containerID": 0, "hostID": 100000, "size": 65536}
        container.bundle.set(f"/linux/{kind}", [entry])


@pytest.fixture
def holder() -> Iterator[int]:
    """The pid of a process with namespaces of its own, of all kinds but user and time."""
    kinds = ("--net", "--uts", "--ipc", "--cgroup", "--mount", "--pid", "--kill-child")
    process = subprocess.Popen(["unshare", *kinds, "--fork", "sleep", "1000"])
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: bool(children.read_text().strip()), "the holder is there")
    yield int(children.read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()


@should("Default Filesystems", 3, says="/proc, /sys, /dev/pts and /dev/shm are there")
def test_default_filesystems(container: Container) -> None:
    container.create()
    kinds = {"/proc": "proc", "/sys": "sysfs", "/dev/pts": "devpts", "/dev/shm": "tmpfs"}
    assert {place: mount_at(container.pid, place).kind for place in kinds} == kinds


@should("Namespaces", 7, says="all eight types are supported")
@must("Namespaces", 20, says="a type without path is a new namespace")
@pytest.mark.parametrize("kind", NAMESPACES)
@pytest.mark.right(RECENT)
def test_new_namespace(container: Container, kind: str) -> None:
    set_namespaces(container, *dict.fromkeys(("mount", "pid", kind)))
    if kind == "user":
        map_ids(container)
        # Only the owner of a network namespace may mount its sysfs.
        set_namespaces(container, "mount", "pid", "network", "ipc", "user")
    container.create()
    name = NAMESPACES[kind]
    assert proc.namespace(container.pid, name) not in ("", proc.namespace("self", name))


@must("Namespaces", 21, says="a type that isn't listed is inherited")
@pytest.mark.parametrize("kind", NAMESPACES)
def test_inherited_namespace(container: Container, kind: str) -> None:
    others = [other for other in ("pid", "mount", "uts", "ipc", "network") if other != kind]
    set_namespaces(container, *others)
    container.create()
    name = NAMESPACES[kind]
    assert proc.namespace(container.pid, name) == proc.namespace("self", name)


@must("Namespaces", 18, says="a path's namespace is joined")
@pytest.mark.parametrize("kind", ["network", "uts", "ipc", "pid", "cgroup"])
def test_joined_namespace(container: Container, holder: int, kind: str) -> None:
    name = NAMESPACES[kind]
    set_namespaces(container, "mount", *([] if kind == "pid" else ["pid"]))
    entry = {"type": kind, "path": f"/proc/{holder}/ns/{name}"}
    container.bundle.set("/linux/namespaces/-", entry)
    container.create()
    assert proc.namespace(container.pid, name) == proc.namespace(holder, name)


@must("Namespaces", 17, says="a namespace's path is absolute")
@pytest.mark.right('"Valid values": a path that must be absolute and isn\'t is an error')
def test_relative_namespace_path(container: Container, holder: int) -> None:
    # The file is there, seen from the working directory of the runtime.
    up = os.path.relpath(f"/proc/{holder}/ns/net", os.getcwd())
    set_namespaces(container, "mount", "pid")
    container.bundle.set("/linux/namespaces/-", {"type": "network", "path": up})
    assert_create_refused(container)


@must("Namespaces", 19, says="a path to a namespace of another type is an error")
@pytest.mark.parametrize("kind", ["network", "uts", "ipc", "pid", "mount"])
def test_wrong_namespace(container: Container, holder: int, kind: str) -> None:
    set_namespaces(container, *[k for k in ("mount", "pid") if k != kind])
    wrong = "net" if kind == "uts" else "uts"
    entry = {"type": kind, "path": f"/proc/{holder}/ns/{wrong}"}
    container.bundle.set("/linux/namespaces/-", entry)
    assert_create_refused(container)


@must("Namespaces", 19, says="a path to no namespace at all is an error")
def test_no_namespace(container: Container) -> None:
    set_namespaces(container, "mount", "pid")
    entry = {"type": "network", "path": str(container.bundle.rootfs / "etc/passwd")}
    container.bundle.set("/linux/namespaces/-", entry)
    assert_create_refused(container)


@must("Namespaces", 22, says="a type twice is an error")
def test_namespace_twice(container: Container) -> None:
    container.bundle.set("/linux/namespaces/-", {"type": "uts"})
    assert_create_refused(container)


@should_not("User namespace mappings", 7, says="the rootfs keeps its owners")
def test_owners_are_kept(container: Container) -> None:
    set_namespaces(container, "mount", "pid", "network", "ipc", "uts", "user")
    map_ids(container)
    places = [container.bundle.rootfs, *container.bundle.rootfs.rglob("*")]
    before = {place: place.lstat().st_uid for place in places}
    container.create()
    container.start()
    assert {place: place.lstat().st_uid for place in places} == before


NULL = {"type": "c", "major": 1, "minor": 3}


@must("Devices", 1, says="devices are made available")
@pytest.mark.parametrize(
    "kind, test", [("c", stat.S_ISCHR), ("b", stat.S_ISBLK), ("p", stat.S_ISFIFO)]
)
def test_device(container: Container, kind: str, test: object) -> None:
    device = {"path": "/made/here", "type": kind, "fileMode": 0o640, "uid": 3, "gid": 4}
    if kind != "p":
        device |= {"major": 1, "minor": 3}
    container.bundle.set("/linux/devices", [device])
    container.create()
    made = os.stat(f"/proc/{container.pid}/root/made/here")
    assert callable(test) and test(made.st_mode)
    assert (stat.S_IMODE(made.st_mode), made.st_uid, made.st_gid) == (0o640, 3, 4)
    if kind != "p":
        assert (os.major(made.st_rdev), os.minor(made.st_rdev)) == (1, 3)


@must("Devices", 8, says="another file at a device's path is an error")
@pytest.mark.parametrize("there", ["file", "device"])
@pytest.mark.right("the sentence is plain: what is there isn't the device that is asked for")
def test_device_mismatch(container: Container, there: str) -> None:
    path = container.bundle.file("/node", "not a device")
    if there == "device":
        path.unlink()
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    container.bundle.set("/linux/devices", [NULL | {"path": "/node"}])
    assert_create_refused(container)


DEFAULT_DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}


@must("Default Devices", 1, says="null, zero, full, random, urandom, tty and ptmx are there")
def test_default_devices(container: Container) -> None:
    container.create()
    for name, number in DEFAULT_DEVICES.items():
        node = os.stat(f"/proc/{container.pid}/root/dev/{name}")
        assert stat.S_ISCHR(node.st_mode)
        assert (os.major(node.st_rdev), os.minor(node.st_rdev)) == number
    multiplexer = os.stat(f"/proc/{container.pid}/root/dev/pts/ptmx")
    ptmx = Path(f"/proc/{container.pid}/root/dev/ptmx")
    if ptmx.is_symlink():
        assert os.readlink(ptmx) in ("pts/ptmx", "/dev/pts/ptmx")
    else:
        assert (ptmx.stat().st_dev, ptmx.stat().st_ino) == (multiplexer.st_dev, multiplexer.st_ino)


@must("Masked Paths", 2, says="masked paths are absolute")
@pytest.mark.right('"Valid values": a path that must be absolute and isn\'t is an error')
def test_relative_masked_path(container: Container) -> None:
    container.bundle.set("/linux/maskedPaths", ["etc/passwd"])
    assert_create_refused(container)


@must("Masked Paths", 2, says="absolute paths of the container are masked")
def test_masked_path(container: Container) -> None:
    container.bundle.set("/linux/maskedPaths", ["/etc/passwd", "/etc", "/no/such"])
    container.bundle.file("/other", "secret")
    container.bundle.set("/linux/maskedPaths/-", "/other")
    assert container.inside("cat /other /etc/passwd 2>/dev/null; ls /etc; true") == ""


@must("Readonly Paths", 2, says="read-only paths are absolute")
@pytest.mark.right('"Valid values": a path that must be absolute and isn\'t is an error')
def test_relative_readonly_path(container: Container) -> None:
    container.bundle.set("/linux/readonlyPaths", ["etc"])
    assert_create_refused(container)


@must("Readonly Paths", 2, says="absolute paths of the container become read-only")
def test_readonly_path(container: Container) -> None:
    container.bundle.set("/linux/readonlyPaths", ["/etc", "/no/such"])
    assert container.inside("touch /etc/new 2>/dev/null || echo refused") == "refused"
