# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices (config-linux.md, "Devices"): nodes made, bound, found there already, or wrong."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Container, Runtime
from tests.integration.test_namespaces import ask_for

STAT = "stat -c '%F %t %T %a %u %g' "
NUMBERS = os.makedev(1, 5)


def device(**fields: Any) -> dict[str, Any]:
    return {"path": "/srv/deep/own", "type": "c", "major": 1, "minor": 5, **fields}


def users(container: Container) -> None:
    ask_for(container, "pid", "mount", "uts", "ipc", "network", "user")


def refused(container: Container) -> str:
    container.bundle.save()
    message = container.refused("create", "--bundle", str(container.bundle.directory))
    assert container.remains() == []
    return message


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"fileMode": 0o640, "uid": 3, "gid": 7}, "character special file 1 5 640 3 7"),
        ({"fileMode": 0o100600}, "character special file 1 5 600 0 0"),
        ({}, "character special file 1 5 666 0 0"),
        ({"type": "u"}, "character special file 1 5 666 0 0"),
        ({"type": "b", "major": 7, "minor": 200}, "block special file 7 c8 666 0 0"),
        ({"type": "p", "fileMode": 0o622}, "fifo 0 0 622 0 0"),
    ],
)
@pytest.mark.peer_fails(
    "runc", "1.1 takes a file type in fileMode for a mode, or has another default"
)
def test_what_is_made(container: Container, fields: dict[str, Any], shown: str) -> None:
    wanted = device(**fields)
    if wanted["type"] == "p":
        del wanted["major"], wanted["minor"]
    container.bundle.set("/linux/devices", [wanted])
    assert container.inside(STAT + wanted["path"]) == shown


@pytest.mark.peer_fails("runc", "binds pipes from the host in a user namespace")
@pytest.mark.parametrize("in_namespace", [False, True])
def test_a_pipe_needs_no_privilege(container: Container, in_namespace: bool) -> None:
    if in_namespace:
        users(container)
    pipe = {"path": "/dev/pipe", "type": "p", "fileMode": 0o600}
    container.bundle.set("/linux/devices", [pipe])
    assert container.inside(STAT + "/dev/pipe") == "fifo 0 0 600 0 0"


@pytest.mark.peer_fails("runc", "1.1 makes a node that can't be used")
def test_in_a_user_namespace_nodes_are_the_hosts(container: Container) -> None:
    users(container)
    container.bundle.set("/linux/devices", [device(path="/dev/zero")])
    output = container.inside(STAT + "/dev/zero; head -c 3 /dev/zero | wc -c")
    numbers, size = output.splitlines()
    assert numbers.startswith("character special file 1 5 ")
    assert size == "3"


@pytest.mark.peer_fails("runc", "can't do without")
def test_a_runtime_that_may_make_none(container: Container, directory: Path) -> None:
    """Without CAP_MKNOD, as in an unprivileged container, nodes are the host's, too."""
    script = directory / "unprivileged"
    executable = container.runtime.executable
    script.write_text(f'#!/bin/sh\nexec setpriv --bounding-set -mknod {executable} "$@"\n')
    script.chmod(0o755)
    container.runtime = Runtime(str(script), container.runtime.root)
    container.bundle.set("/linux/devices", [device(path="/dev/own")])
    output = container.inside("head -c 3 /dev/own | wc -c; echo x > /dev/null && echo written")
    assert output.split() == ["3", "written"]


@pytest.mark.peer_fails("runc", "looks for the host's node at the same path alone")
def test_directories_on_the_way(container: Container) -> None:
    users(container)
    container.bundle.set("/linux/devices", [device()])
    assert container.inside("stat -c %a /srv /srv/deep").split() == ["755", "755"]


@pytest.mark.peer_fails("runc", "looks for the host's node at the same path alone")
def test_the_host_may_have_it_elsewhere(container: Container) -> None:
    """The kernel knows where: in a user namespace no node can be made."""
    users(container)
    container.bundle.set("/linux/devices", [device(path="/dev/own")])
    assert container.inside("head -c 3 /dev/own | wc -c") == "3"


@pytest.mark.peer_fails("runc", "1.1 keeps whatever is there")
def test_a_node_that_is_there(container: Container) -> None:
    """The same one will do, with the mode and owner that are asked for."""
    path = container.bundle.rootfs / "node"
    os.mknod(path, stat.S_IFCHR | 0o600, NUMBERS)
    container.bundle.set("/linux/devices", [device(path="/node", fileMode=0o644, uid=9)])
    assert container.inside(STAT + "/node") == "character special file 1 5 644 9 0"


@pytest.mark.peer_fails("runc", "1.1 keeps whatever is there")
@pytest.mark.parametrize("other", ["file", "numbers", "kind", "link"])
def test_something_else_is_there(container: Container, other: str) -> None:
    path = container.bundle.rootfs / "node"
    if other == "file":
        path.write_text("")
    elif other == "numbers":
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    elif other == "kind":
        os.mknod(path, stat.S_IFBLK | 0o600, NUMBERS)
    else:
        path.symlink_to("/dev/zero")
    container.bundle.set("/linux/devices", [device(path="/node")])
    message = refused(container)
    assert "/linux/devices/0" in message and "/node" in message


@pytest.mark.peer_fails("runc", "1.1 doesn't name the field")
def test_a_device_that_the_host_hasnt(container: Container) -> None:
    users(container)
    container.bundle.set("/linux/devices", [device(path="/dev/no-such", major=240, minor=77)])
    message = refused(container)
    assert "/linux/devices/0" in message and "/dev/no-such" in message
