# SPDX-License-Identifier: GPL-3.0-or-later
"""A container without a mount namespace of its own: its mounts are the host's, while it is there.

config-linux.md, "Namespaces": a type that isn't listed is inherited.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Container, proc
from tests.integration.test_mounts import bind, mount
from tests.integration.test_namespaces import ask_for

LEAVES = pytest.mark.peer_fails("runc", "leaves its mounts on the host")


@pytest.fixture
def inheriting(container: Container) -> Iterator[Container]:
    """A container that shares the host's mount namespace; whatever a peer leaves is unmounted."""
    ask_for(container, "pid", "uts", "ipc", "network")
    yield container
    container.runtime.call("delete", "--force", container.id)
    while any(str(container.bundle.rootfs) in line for line in proc.mountinfo()):
        subprocess.run(["umount", "-R", "-l", container.bundle.rootfs], check=True)


def below(container: Container) -> list[str]:
    """Return the mount points of the host that lie in the rootfs, the rootfs itself as ""."""
    top = str(container.bundle.rootfs)
    points = [line.split()[4] for line in proc.mountinfo()]
    return sorted(p.removeprefix(top) for p in points if p == top or p.startswith(f"{top}/"))


def near(container: Container) -> list[str]:
    """Return the host's mounts in the bundle; elsewhere others may be at work."""
    return [line for line in proc.mountinfo() if str(container.bundle.directory) in line]


@LEAVES
def test_it_is_the_hosts_and_comes_back(inheriting: Container) -> None:
    inheriting.bundle.set("/linux/maskedPaths", ["/proc/keys"])
    inheriting.config["root"]["readonly"] = True
    before = near(inheriting)
    inheriting.create()
    assert proc.namespace(inheriting.pid, "mnt") == proc.namespace("self", "mnt")
    assert below(inheriting) == ["", "/dev", "/dev/pts", "/dev/shm", "/proc", "/proc/keys", "/sys"]
    inheriting.start()
    script = "wc -c < /proc/keys; touch /x || echo read-only; ls /bin/busybox"
    result = inheriting.runtime.call("exec", inheriting.id, "/bin/sh", "-c", script)
    assert result.checked().stdout.split() == ["0", "read-only", "/bin/busybox"]
    inheriting.kill("KILL")
    inheriting.wait_for("stopped")
    inheriting.delete()
    assert near(inheriting) == before


@LEAVES
def test_a_create_that_fails_leaves_nothing(inheriting: Container) -> None:
    before = near(inheriting)
    inheriting.command("/no/such/program")
    inheriting.bundle.save()
    inheriting.refused("create", "--bundle", str(inheriting.bundle.directory))
    assert near(inheriting) == before


@LEAVES
def test_mounts_on_shared_ones_dont_spread(inheriting: Container, directory: Path) -> None:
    """Neither the container's to the place of a bind's source, nor to the host's other places."""
    source = directory / "source"
    (source / "below").mkdir(parents=True)
    subprocess.run(["mount", "--bind", source, source], check=True)
    subprocess.run(["mount", "--make-shared", source], check=True)
    try:
        bind(inheriting, source, "/data")
        mount(inheriting, destination="/data/below", type="tmpfs", source="tmpfs")
        inheriting.create()
        assert not [line for line in proc.mountinfo() if line.split()[4] == f"{source}/below"]
        inheriting.delete("--force")
        assert below(inheriting) == []
    finally:
        subprocess.run(["umount", source], check=True)


@LEAVES
def test_a_rootfs_that_is_a_mount_stays_one(inheriting: Container) -> None:
    """As an engine's overlay is: only what the runtime mounted on it goes."""
    rootfs = inheriting.bundle.rootfs
    subprocess.run(["mount", "--bind", rootfs, rootfs], check=True)
    before = near(inheriting)
    inheriting.create()
    inheriting.delete("--force")
    assert near(inheriting) == before


@pytest.mark.peer_fails("runc", "1.1 changes the host's mounts")
def test_what_would_change_the_host(inheriting: Container) -> None:
    inheriting.bundle.set("/linux/rootfsPropagation", "rslave")
    inheriting.bundle.save()
    message = inheriting.refused("create", "--bundle", str(inheriting.bundle.directory))
    assert "/linux/rootfsPropagation" in message and "rslave" in message


def test_not_with_a_user_namespace(inheriting: Container) -> None:
    ask_for(inheriting, "pid", "uts", "ipc", "network", "user")
    inheriting.bundle.save()
    message = inheriting.refused("create", "--bundle", str(inheriting.bundle.directory))
    assert "mount" in message
