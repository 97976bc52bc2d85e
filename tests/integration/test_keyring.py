# SPDX-License-Identifier: GPL-3.0-or-later
"""The session keyring (keyrings(7)): one of the container's own, which exec shares."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ocirt.kernel import _linux
from tests.harness import Container
from tests.integration.test_exec import execute
from tests.integration.test_namespaces import ask_for

# keyctl(2): KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING; none is made.
ASK = f"{_linux.SYS_keyctl},0,-3,0"
OWN_USERS = ("pid", "mount", "uts", "ipc", "network", "user")


@pytest.fixture
def asking(container: Container, call_program: Path) -> Container:
    """A container whose program says which keyring it has, and sleeps."""
    os.link(call_program, container.bundle.rootfs / "bin/call")
    container.shell(f"call {ASK} >/tmp/keyring; exec sleep 1000")
    return container


def own_keyring(container: Container, *options: str) -> str:
    """Start it; return the keyring of its first process."""
    container.create(*options)
    container.start()
    file = container.bundle.rootfs / "tmp/keyring"
    while not file.exists() or not file.read_text().endswith("\n"):
        assert container.status == "running"
    return file.read_text()


@pytest.fixture
def callers(call_program: Path) -> str:
    """The keyring that we have."""
    return subprocess.run([call_program, ASK], stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.mark.parametrize("user", ["0", "1000"])
@pytest.mark.parametrize(
    "users",
    [
        False,
        pytest.param(
            True, marks=pytest.mark.peer_fails("runc", "1.1's exec joins it as the host's root")
        ),
    ],
)
def test_exec_has_the_containers(asking: Container, callers: str, user: str, users: bool) -> None:
    if users:
        ask_for(asking, *OWN_USERS)
    keyring = own_keyring(asking)
    assert int(keyring) > 0
    assert keyring != callers
    assert execute(asking, f"--user={user}", "/bin/call", ASK).checked().stdout == keyring


def test_the_callers_is_kept(asking: Container, callers: str) -> None:
    assert own_keyring(asking, "--no-new-keyring") == callers
    assert execute(asking, "/bin/call", ASK).checked().stdout == callers


def test_each_container_has_another(asking: Container) -> None:
    first = own_keyring(asking)
    asking.runtime.call("delete", "--force", asking.id).checked()
    asking.id += "x"
    (asking.bundle.rootfs / "tmp/keyring").unlink()
    assert own_keyring(asking) != first
