# SPDX-License-Identifier: GPL-3.0-or-later
"""Annotations that change what the runtime does (docs/annotations.md), but for hooks' output."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import Container, Runtime
from tests.harness.terminal import ConsoleSocket
from tests.integration.test_exec_options import pid_behind

CRUNS = pytest.mark.peer_fails("runc", "doesn't know crun's annotations")


def refused(container: Container) -> str:
    container.bundle.save()
    message = container.refused("create", "--bundle", str(container.bundle.directory))
    assert container.remains() == []
    return message


@CRUNS
def test_a_receiver_gets_inits_pidfd(container: Container, directory: Path) -> None:
    socket = ConsoleSocket(directory / "pidfd.sock")
    container.config["annotations"] = {"run.oci.pidfd_receiver": str(socket.path)}
    container.create()
    _, pidfd = socket.descriptor()
    assert pid_behind(pidfd) == container.pid
    socket.close()


@CRUNS
def test_a_receiver_that_isnt_there(container: Container, directory: Path) -> None:
    container.config["annotations"] = {"run.oci.pidfd_receiver": str(directory / "none")}
    assert str(directory / "none") in refused(container)


@CRUNS
@pytest.mark.parametrize("value, kept", [("1", True), ("0", False)])
def test_groups_of_the_caller(
    container: Container, directory: Path, value: str, kept: bool
) -> None:
    """podman's --group-add keep-groups; additionalGids then don't count. exec does the same."""
    script = directory / "grouped"
    executable = container.runtime.executable
    script.write_text(f'#!/bin/sh\nexec setpriv --groups 1234,2345 {executable} "$@"\n')
    script.chmod(0o755)
    container.runtime = Runtime(str(script), container.runtime.root)
    container.config["annotations"] = {"run.oci.keep_original_groups": value}
    container.bundle.set("/process/user", {"uid": 7, "gid": 8, "additionalGids": [99]})
    container.create()
    container.start()
    status = Path(f"/proc/{container.pid}/status").read_text()
    groups = status.partition("Groups:")[2].partition("\n")[0].split()
    assert groups == (["1234", "2345"] if kept else ["99"])
    inside = container.runtime.call(
        "exec", container.id, "/bin/grep", "Groups:", "/proc/self/status"
    )
    assert inside.checked().stdout.split()[1:] == groups


@CRUNS
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run.oci.hooks.stdout", "relative"),
        ("run.oci.hooks.stderr", ""),
        ("run.oci.pidfd_receiver", "relative"),
        ("run.oci.mount_context_type", "nonsense"),
        ("run.oci.delegate-cgroup", "../above"),
        ("run.oci.systemd.subgroup", "../above"),
    ],
)
def test_values_that_cant_be(container: Container, name: str, value: str) -> None:
    container.config["annotations"] = {name: value}
    message = refused(container)
    assert f"/annotations/{name}" in message and value in message


def test_others_are_left_alone(container: Container) -> None:
    """So are those for the systemd driver while there is none at work."""
    container.config["annotations"] = {
        "run.oci.unheard-of": "../x",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "run.oci.systemd.subgroup": "payload",
    }
    container.create()
    assert container.state()["annotations"] == container.config["annotations"]


@CRUNS
def test_a_property_without_a_name_is_a_warning(container: Container) -> None:
    container.config["annotations"] = {"org.systemd.property.X1": "1"}
    result = container.create()
    assert "/annotations/org.systemd.property.X1" in result.stderr
