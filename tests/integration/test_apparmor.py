# SPDX-License-Identifier: GPL-3.0-or-later
"""AppArmor on a host that has it: what runs in a container is confined, and the runtime isn't."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Container
from tests.integration.test_exec import execute, started

ENABLED = Path("/sys/module/apparmor/parameters/enabled")
pytestmark = pytest.mark.skipif(
    not ENABLED.exists() or ENABLED.read_text() != "Y\n" or not shutil.which("apparmor_parser"),
    reason="needs AppArmor, and its parser",
)

# Everything but one file. attach_disconnected: the root isn't the host's.
PROFILE = """
profile {name} flags=(attach_disconnected,mediate_deleted) {{
  file, capability, network, signal, ptrace, unix, mount, umount, pivot_root, dbus,
  deny /etc/secret rw,
}}
"""
LOOK = "cat /proc/self/attr/current; cat /etc/secret && echo readable; true"


def load(option: str, name: str) -> None:
    subprocess.run(
        ["apparmor_parser", option, "--skip-cache"],
        input=PROFILE.format(name=name),
        text=True,
        check=True,
    )


@pytest.fixture
def profile() -> Iterator[str]:
    """A profile, loaded as long as the test runs."""
    name = f"ocirt-test-{secrets.token_hex(4)}"
    load("--replace", name)
    yield name
    load("--remove", name)


@pytest.fixture(params=[True, False], ids=["no new privileges", "new privileges"])
def confined(request: pytest.FixtureRequest, container: Container, profile: str) -> Container:
    """A container that asks for the profile, with a file that it denies."""
    container.bundle.file("/etc/secret", "secret\n")
    container.bundle.set("/process/apparmorProfile", profile)
    container.bundle.set("/process/noNewPrivileges", request.param)
    return container


def test_the_program_is_confined(confined: Container, profile: str) -> None:
    assert confined.inside(LOOK) == f"{profile} (enforce)"


def test_without_a_profile_nothing_is_denied(container: Container, profile: str) -> None:
    """The control."""
    container.bundle.file("/etc/secret", "secret\n")
    assert container.inside(LOOK).splitlines()[1:] == ["secret", "readable"]


def test_create_and_start(confined: Container, profile: str) -> None:
    started(confined)
    current = Path(f"/proc/{confined.pid}/attr/current").read_text()
    assert current == f"{profile} (enforce)\n"


def test_exec_is_confined_alike(confined: Container, profile: str) -> None:
    started(confined)
    assert execute(confined, "/bin/sh", "-c", LOOK).stdout == f"{profile} (enforce)\n"


def test_exec_with_a_profile_of_its_own(container: Container, profile: str) -> None:
    container.bundle.file("/etc/secret", "secret\n")
    started(container)
    said = execute(container, f"--apparmor={profile}", "/bin/sh", "-c", LOOK).stdout
    assert said == f"{profile} (enforce)\n"


def test_a_profile_that_isnt_loaded(container: Container) -> None:
    container.bundle.set("/process/apparmorProfile", "ocirt-test-nosuch")
    container.bundle.save()
    runtime = container.runtime
    place = ("--bundle", str(container.bundle.directory))
    created = runtime.call("create", *place, container.id)
    # Whether the profile exists is known when it is asked for: at create or at start.
    ended = runtime.call("start", container.id) if created.status == 0 else created
    assert ended.status > 0
    assert "ocirt-test-nosuch" in ended.stderr or "apparmor" in ended.stderr.lower()
    runtime.call("delete", "--force", container.id)
    assert not container.remains()
