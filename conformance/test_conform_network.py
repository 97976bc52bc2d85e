# SPDX-License-Identifier: GPL-3.0-or-later
"""config-linux.md "Network Devices" and "Namespace Lifecycle and Container Termination".

The runtime's network namespace is the test run's own: its devices are nobody else's.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from conformance.probe import assert_create_refused, wait_until
from conformance.requirement import Level, requirement
from tests.harness import Container

devices = partial(requirement, "config-linux.md", "Network Devices", level=Level.MUST)
lifecycle = partial(
    requirement,
    "config-linux.md",
    "Namespace Lifecycle and Container Termination",
    level=Level.MUST_NOT,
)
pytestmark = [
    pytest.mark.right("netDevices is new in 1.3; the releases that are shown are older"),
]

ADDRESSES = ("192.0.2.7/24", "2001:db8::7/64")


def ip(*words: str, pid: int | None = None) -> list[dict[str, Any]]:
    """Run ip(8), in a process's network namespace if it is given; return its JSON."""
    enter = ["nsenter", f"--target={pid}", "--net"] if pid else []
    argv = [*enter, "ip", "-json", *words]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found: list[dict[str, Any]] = json.loads(said or "[]")
    return found


def links(pid: int | None = None) -> list[str]:
    return [link["ifname"] for link in ip("link", pid=pid)]


@pytest.fixture
def device() -> Iterator[str]:
    """A network device, veth's one end, with addresses."""
    ip("link", "add", "conf0", "type", "veth", "peer", "name", "conf1")
    for address in ADDRESSES:
        family = ["nodad"] if ":" in address else []
        ip("address", "add", address, "dev", "conf0", *family)
    yield "conf0"
    # Its end takes the other, wherever that is.
    subprocess.run(["ip", "link", "del", "conf1"], check=False, stderr=subprocess.DEVNULL)


def move(container: Container, device: str, name: str | None = None) -> None:
    container.bundle.set("/linux/netDevices", {device: {"name": name} if name else {}})


@devices(12, says="the device is in the container")
@devices(18, says="it was moved there")
@pytest.mark.parametrize("name", [None, "eth7"])
def test_move(container: Container, device: str, name: str | None) -> None:
    move(container, device, name)
    container.create()
    assert (name or device) in links(container.pid)
    assert device not in links()


@devices(18, says="what can't be moved is an error")
def test_no_such_device(container: Container, device: str) -> None:
    move(container, "nosuch0")
    assert_create_refused(container)
    # It wasn't refused for what it was asked to do, but for the device.
    move(container, device)
    container.create()


@devices(19, says="a name that the container has is an error")
def test_name_clash(container: Container, device: str) -> None:
    # Each network namespace has lo.
    move(container, device, "lo")
    assert_create_refused(container)
    assert device in links()
    move(container, device, "lo2")
    container.create()


@devices(20, says="%d in a name: the kernel finds a free one")
def test_template(container: Container, device: str) -> None:
    move(container, device, "eth%d")
    container.create()
    assert "eth0" in links(container.pid)


@devices(21, says="permanent addresses of global scope are kept")
def test_addresses(container: Container, device: str) -> None:
    move(container, device)
    container.create()
    (found,) = ip("address", "show", "dev", device, pid=container.pid)
    shown = {f"{a['local']}/{a['prefixlen']}" for a in found["addr_info"] if a["scope"] == "global"}
    assert shown == set(ADDRESSES)


@devices(23, says="the device is up")
def test_up(container: Container, device: str) -> None:
    move(container, device)
    container.create()
    (found,) = ip("link", "show", "dev", device, pid=container.pid)
    assert "UP" in found["flags"]


@lifecycle(1, says="once inside, the device is left alone")
@lifecycle(4, says="delete doesn't move the device out")
def test_lifecycle(container: Container, device: str) -> None:
    move(container, device)
    container.create()
    pid = container.pid
    ip("link", "set", device, "down", pid=pid)
    container.start()
    (found,) = ip("link", "show", "dev", device, pid=pid)
    assert "UP" not in found["flags"]
    container.kill("KILL")
    container.wait_for("stopped")
    container.delete()
    # A virtual device goes with its namespace, which the kernel frees in its own time.
    wait_until(lambda: "conf1" not in links(), "the other end is gone, too")
    assert device not in links()
