# SPDX-License-Identifier: GPL-3.0-or-later
"""Who owns a v2 cgroup (config-linux.md, "Cgroup ownership"), and crun's delegate-cgroup."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import Container, Runtime, cgroup
from tests.integration.test_namespaces import ask_for

UID = 1000
DELEGATED = Path("/sys/kernel/cgroup/delegate")
SHIFT = 100000  # what ask_for() maps id 0 to

OURS = pytest.mark.peer_fails(
    "runc", "1.1 leaves the cgroup to root, and doesn't know crun's annotation"
)


@pytest.fixture
def unified(container: Container, directory: Path) -> Container:
    """A container of a runtime that sees cgroup2 alone, with a user other than root."""
    if "" not in cgroup.hierarchies():
        pytest.skip("cgroup2 isn't mounted")
    script = directory / "unified"
    lines = [
        "mount --make-rprivate /",
        "umount -l /sys/fs/cgroup 2>/dev/null || :",
        "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
        f'exec {container.runtime.executable} "$@"',
    ]
    text = f"#!/bin/sh\nexec unshare --mount sh -c '{'; '.join(lines)}' sh \"$@\"\n"
    script.write_text(text)
    script.chmod(0o755)
    container.runtime = Runtime(str(script), container.runtime.root)
    container.bundle.set("/process/user", {"uid": UID, "gid": UID})
    return container


def mount_cgroup(container: Container, *options: str) -> None:
    entry = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}
    container.config["mounts"].append({**entry, "options": ["nosuid", "noexec", *options]})


def place(container: Container) -> Path:
    return cgroup.hierarchies()[""] / container.cgroups_path.lstrip("/")


def given(directory: Path, uid: int) -> set[str]:
    """Return what of a cgroup belongs to a user; "." is the directory itself."""
    paths = [directory, *directory.iterdir()]
    return {"." if p == directory else p.name for p in paths if p.lstat().st_uid == uid}


@OURS
@pytest.mark.parametrize("users", [False, True])
def test_the_containers_user_gets_its_cgroup(unified: Container, users: bool) -> None:
    """Only the directory and what the kernel lists: limits stay the host's."""
    kinds = ("pid", "mount", "uts", "ipc", "network", "cgroup")
    ask_for(unified, *kinds, *(["user"] if users else []))
    mount_cgroup(unified, "rw")
    unified.create()
    uid = UID + (SHIFT if users else 0)
    there = {p.name for p in place(unified).iterdir()}
    assert given(place(unified), uid) == {"."} | there & set(DELEGATED.read_text().split())
    assert "cgroup.procs" in given(place(unified), uid)
    assert "cgroup.freeze" not in given(place(unified), uid)


@OURS
def test_the_container_can_use_it(unified: Container) -> None:
    ask_for(unified, "pid", "mount", "uts", "ipc", "network", "cgroup", "user")
    mount_cgroup(unified)
    output = unified.inside(
        "cd /sys/fs/cgroup; mkdir one && echo 0 > one/cgroup.procs && grep ^0: /proc/self/cgroup;"
        " echo 1 > cgroup.freeze || echo refused"
    )
    assert output.splitlines() == ["0::/one", "refused"]


@pytest.mark.parametrize(
    ("namespace", "options"), [(False, ("rw",)), (True, ("ro",)), (True, None)]
)
def test_otherwise_it_stays_the_hosts(
    unified: Container, namespace: bool, options: tuple[str, ...] | None
) -> None:
    """Without a namespace of its own, without a mount, with a read-only one."""
    if namespace:
        ask_for(unified, "pid", "mount", "uts", "ipc", "network", "cgroup")
    if options is not None:
        mount_cgroup(unified, *options)
    unified.create()
    assert given(place(unified), UID) == set()


@OURS
def test_a_cgroup_below_is_given(unified: Container) -> None:
    """The annotation: limits on the container's cgroup, init in one below that it manages."""
    unified.config["annotations"] = {"run.oci.delegate-cgroup": "payload"}
    ask_for(unified, "pid", "mount", "uts", "ipc", "network", "cgroup")
    mount_cgroup(unified)
    unified.create()
    below = place(unified) / "payload"
    assert given(place(unified), UID) == {"payload"}
    assert "cgroup.procs" in given(below, UID)
    assert cgroup.processes(below) == [unified.pid]
    controllers = (place(unified) / "cgroup.controllers").read_text()
    assert (below / "cgroup.controllers").read_text() == controllers
    unified.start()
    result = unified.runtime.call("exec", unified.id, "/bin/grep", "^0:", "/proc/self/cgroup")
    assert result.checked().stdout == "0::/payload\n"


@OURS
def test_it_is_for_v2(container: Container) -> None:
    if "memory" not in cgroup.hierarchies():
        pytest.skip("needs cgroup v1")
    container.config["annotations"] = {"run.oci.delegate-cgroup": "payload"}
    container.bundle.save()
    message = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "/annotations/run.oci.delegate-cgroup" in message and "payload" in message
    assert container.remains() == []


@OURS
def test_a_user_that_isnt_mapped(unified: Container) -> None:
    ask_for(unified, "pid", "mount", "uts", "ipc", "network", "cgroup", "user")
    mount_cgroup(unified)
    unified.bundle.set("/process/user/uid", 3_000_000)
    unified.bundle.save()
    message = unified.refused("create", "--bundle", str(unified.bundle.directory))
    assert "3000000" in message
    assert unified.remains() == []
