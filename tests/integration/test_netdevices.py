# SPDX-License-Identifier: GPL-3.0-or-later
"""netDevices where create fails: the device is the host's again. The rest is in conformance/."""

from __future__ import annotations

import subprocess

import pytest

from tests.harness import Container
from tests.integration.test_namespaces import ask_for

pytestmark = pytest.mark.peer_fails("runc", "has it since 1.4")


def attempt(container: Container) -> list[str]:
    """Create in a network namespace of the test's with a device d0; return what is there then."""
    container.bundle.save()
    script = (
        "ip link add d0 type veth peer name d1 && ip address add 192.0.2.1/24 dev d0 &&"
        ' ip link set d0 up && "$@"; echo status $?; ip -brief address show'
    )
    runtime = container.runtime
    words = [runtime.executable, "--root", str(runtime.root), "create"]
    words += ["--bundle", str(container.bundle.directory), container.id]
    ended = subprocess.run(
        ["unshare", "--net", "sh", "-c", script, "sh", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return [*ended.stdout.splitlines(), ended.stderr]


def test_it_comes_back(container: Container) -> None:
    container.bundle.set("/linux/netDevices", {"d0": {"name": "inner%d"}})
    container.bundle.set("/hooks", {"createContainer": [{"path": "/bin/false"}]})
    said = attempt(container)
    assert "status 1" in said
    (line,) = [line.split() for line in said if line.startswith("d0@")]
    assert "192.0.2.1/24" in line


def test_without_a_network_namespace(container: Container) -> None:
    container.bundle.set("/linux/netDevices", {"d0": {}})
    ask_for(container, "pid", "mount", "uts", "ipc")
    said = attempt(container)
    assert "status 1" in said
    assert "/linux/netDevices" in said[-1]
