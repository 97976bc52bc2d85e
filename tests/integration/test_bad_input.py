# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that are valid and still can't be: a message with place and value, and nothing left.

What isn't valid in itself is refused before anything is made; the unit tests of the specification's
rules know that of every field.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Container
from tests.integration.conftest import MakeContainer
from tests.integration.test_namespaces import ask_for

#: pointer, value, and what of the value the message shows (None: all of it).
CASES: list[tuple[str, Any, str | None]] = [
    ("/ociVersion", "2.0.0", None),
    ("/root/path", "no-such-root", None),
    ("/mounts/3/type", "nosuchfs", None),
    ("/mounts/2/options", ["colour=red"], "colour"),
    ("/mounts/2/destination", "/bin/sh/under", None),
    ("/mounts/-", {"destination": "/x", "type": "bind", "source": "/no/such"}, "/no/such"),
    (
        "/mounts/-",
        {"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["idmap"]},
        "idmap",
    ),
    (
        "/mounts/-",
        {"destination": "/x", "type": "bind", "source": "/tmp", "options": ["tmpcopyup"]},
        "tmpcopyup",
    ),
    ("/mounts/-", {"destination": "/", "type": "tmpfs", "source": "tmpfs"}, "top of rootfs"),
    ("/process/args", ["/no/such/program"], "/no/such/program"),
    ("/process/args", ["no-such-program"], "no-such-program"),
    ("/process/cwd", "/bin/busybox", None),
    ("/process/apparmorProfile", "no-such-profile", None),
    ("/process/selinuxLabel", "no:such:label:s0", None),
    (
        "/process/rlimits",
        [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1 << 40}],
        "RLIMIT_NOFILE",
    ),
    ("/linux/namespaces/-", {"type": "cgroup", "path": "/proc/self/ns/net"}, "/proc/self/ns/net"),
    ("/linux/namespaces/-", {"type": "time", "path": "/no/such"}, "/no/such"),
    ("/linux/devices", [{"path": "/bin/sh", "type": "c", "major": 1, "minor": 3}], "/bin/sh"),
    (
        "/linux/namespaces",
        [{"type": "mount"}, {"type": "uts", "path": "/proc/self/ns/uts"}],
        "/hostname (test)",
    ),
    ("/linux/sysctl", {"kernel.panic": "1"}, "kernel.panic"),
    ("/linux/sysctl", {"kernel.hostname": "x"}, "kernel.hostname"),
    ("/linux/sysctl", {"net.no.such": "1"}, "net.no.such"),
    ("/linux/sysctl", {"net.ipv4.ip_forward": "many"}, "net.ipv4.ip_forward"),
    ("/linux/netDevices", {"nosuchdevice": {}}, "nosuchdevice"),
    ("/linux/intelRdt", {"closID": "gold"}, "gold"),
    ("/linux/personality", {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}, "ADDR_NO"),
    ("/linux/seccomp/listenerPath", "/no/such/agent", None),
    ("/linux/resources/cpu", {"cpus": "4711"}, "4711"),
    ("/linux/resources/cpu", {"cpus": "one"}, "one"),
    ("/linux/resources/memory", {"limit": 1 << 40, "swappiness": 1000}, "1000"),
    ("/linux/resources/unified", {"memory.max": "1"}, "memory.max"),
    ("/hooks/createRuntime", [{"path": "/no/such/hook"}], "/no/such/hook"),
    ("/hooks/createContainer", [{"path": "/no/such/hook"}], "/no/such/hook"),
    ("/annotations/run.oci.pidfd_receiver", "/no/such/socket", None),
]
#: The same for what is found out when the program is to be started.
AT_START: list[tuple[str, Any, str | None]] = [
    ("/linux/memoryPolicy", {"mode": "MPOL_BIND", "nodes": "77"}, "MPOL_BIND"),
    ("/process/scheduler", {"policy": "SCHED_FIFO", "priority": 4711}, "SCHED_FIFO"),
    ("/hooks/startContainer", [{"path": "/no/such/hook"}], "/no/such/hook"),
]
#: And in a user namespace.
IN_USERS: list[tuple[str, Any, str | None]] = [
    ("/process/user/uid", 4_000_000, None),
    ("/process/user/gid", 4_000_000, None),
    ("/process/user/additionalGids", [4_000_000], "4000000"),
    ("/linux/devices", [{"path": "/dev/x", "type": "c", "major": 240, "minor": 9}], "/dev/x"),
    ("/linux/gidMappings", [{"containerID": 1, "hostID": 100000, "size": 9}], "containerID 0"),
]


def ids(case: tuple[str, Any, str | None]) -> str:
    pointer, value, shown = case
    return f"{pointer}={shown or value}"


@pytest.fixture(autouse=True)
def ours_only(container: Container) -> None:
    if not container.runtime.version().startswith("ocirt "):
        pytest.skip("peers don't name places in config.json")


def put(container: Container, pointer: str, value: Any) -> None:
    if pointer.startswith("/linux/seccomp/"):
        allow = {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}
        container.bundle.set("/linux/seccomp", {"defaultAction": "SCMP_ACT_ALLOW"})
        container.bundle.set("/linux/seccomp/syscalls", [allow])
    container.bundle.set(pointer, copy.deepcopy(value))


def assert_named(message: str, pointer: str, value: Any, shown: str | None) -> None:
    place = pointer.removesuffix("/-")
    if place.startswith("/mounts/"):
        place = place[: len("/mounts/0")]  # the whole entry is what is mounted
    if place != "/process/args":  # engines know that sentence by its words (docs/errors.md)
        assert place in message, message
    assert (shown or str(value)) in message, message
    assert len(message.splitlines()) == 1, message


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_at_create(container: Container, case: tuple[str, Any, str | None]) -> None:
    pointer, value, shown = case
    put(container, pointer, value)
    container.bundle.save()
    command = "start" if pointer == "/linux/seccomp/listenerPath" else "create"
    if command == "start":
        container.create()
        message = container.refused("start")
        container.delete("--force")
    else:
        message = container.refused("create", "--bundle", str(container.bundle.directory))
    assert_named(message, pointer, value, shown)
    assert container.remains() == []


@pytest.mark.parametrize("case", IN_USERS, ids=ids)
def test_in_a_user_namespace(container: Container, case: tuple[str, Any, str | None]) -> None:
    ask_for(container, "pid", "mount", "uts", "ipc", "network", "user")
    pointer, value, shown = case
    put(container, pointer, value)
    container.bundle.save()
    result = container.runtime.call(
        "run", "--bundle", str(container.bundle.directory), container.id
    )
    assert result.status == 1
    assert_named(result.stderr, pointer, value, shown)
    assert container.remains() == []


@pytest.mark.parametrize("case", AT_START, ids=ids)
def test_at_start(container: Container, case: tuple[str, Any, str | None]) -> None:
    pointer, value, shown = case
    put(container, pointer, value)
    container.create()
    message = container.refused("start")
    assert_named(message, pointer, value, shown)
    container.delete("--force")
    assert container.remains() == []


def test_sysctls_of_a_joined_namespace_that_is_the_hosts(container: Container) -> None:
    ask_for(container, "pid", "mount", "uts", "ipc", network="/proc/self/ns/net")
    container.bundle.set("/linux/sysctl", {"net.ipv4.ip_forward": "0"})
    container.bundle.save()
    message = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "/linux/namespaces/4/path" in message
    assert "/linux/sysctl (net.ipv4.ip_forward)" in message
    assert container.remains() == []


def test_clocks_that_would_run_before_zero(container: Container) -> None:
    ask_for(container, "pid", "mount", "uts", "ipc", "network", "time")
    container.bundle.set("/linux/timeOffsets", {"boottime": {"secs": -(1 << 40)}})
    container.bundle.save()
    message = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "/linux/timeOffsets" in message and f"boottime {-(1 << 40)} 0" in message
    assert container.remains() == []


def test_two_containers_and_a_bad_one(make_container: MakeContainer, directory: Path) -> None:
    """What is refused doesn't touch what is there."""
    good, bad = make_container(), make_container()
    good.create()
    bad.bundle.set("/hooks/prestart", [{"path": "/bin/false"}])
    bad.bundle.save()
    bad.refused("create", "--bundle", str(bad.bundle.directory))
    assert good.status == "created" and bad.remains() == []
