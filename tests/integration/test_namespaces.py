# SPDX-License-Identifier: GPL-3.0-or-later
"""Namespaces new, inherited and joined, in the mixes that engines ask for.

Every mix is looked at from outside: the links in /proc/PID/ns say which namespace it is.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import Container, proc
from tests.integration.conftest import MakeContainer

# Type in config.json -> name in /proc/PID/ns.
LINKS = {
    "pid": "pid",
    "network": "net",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
    "time": "time",
}
MAPPINGS = [{"containerID": 0, "hostID": 100000, "size": 65536}]
NO_TIME = pytest.mark.peer_fails("runc", "1.1 doesn't know time namespaces")


def ask_for(container: Container, *new: str, **joined: str) -> None:
    """Ask for these new namespaces, and those joined by path."""
    entries = [{"type": kind} for kind in new]
    entries += [{"type": kind, "path": path} for kind, path in joined.items()]
    container.config["linux"]["namespaces"] = entries
    kinds = {*new, *joined}
    if "uts" not in kinds or "uts" in joined:
        container.config.pop("hostname", None)
    if "user" in new:
        container.bundle.set("/linux/uidMappings", MAPPINGS)
        container.bundle.set("/linux/gidMappings", MAPPINGS)
        own_rootfs(container)
    if "network" not in new:
        # A sysfs shows the network namespace, and can be mounted by its owner alone.
        container.config["mounts"] = [m for m in container.config["mounts"] if m["type"] != "sysfs"]
    if "ipc" not in kinds:
        container.config["mounts"] = [
            m for m in container.config["mounts"] if m["type"] != "mqueue"
        ]


def own_rootfs(container: Container) -> None:
    """Give the rootfs to the mapped root, in files of its own."""
    rootfs = container.bundle.rootfs
    subprocess.run(["cp", "-a", rootfs, f"{rootfs}.own"], check=True)
    subprocess.run(["rm", "-rf", rootfs], check=True)
    Path(f"{rootfs}.own").rename(rootfs)
    subprocess.run(["chown", "-hR", "100000:100000", rootfs], check=True)


def started(container: Container) -> int:
    """Create and start; return init's pid."""
    container.create()
    container.start()
    return container.pid


def links(pid: int | str) -> dict[str, str]:
    """Return every namespace of a process by its type in config.json."""
    return {kind: proc.namespace(pid, link) for kind, link in LINKS.items()}


@contextmanager
def namespaces_of_others(*options: str) -> Iterator[int]:
    """Run a process in namespaces made by unshare(1) with these options; yield its pid."""
    with subprocess.Popen(
        ["unshare", *options, "--fork", "--kill-child", "sh", "-c", "echo; exec sleep 1000"],
        stdout=subprocess.PIPE,
    ) as outer:
        assert outer.stdout is not None
        outer.stdout.readline()
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        try:
            yield int(children[0])
        finally:
            outer.kill()


def path(pid: int, kind: str) -> str:
    return f"/proc/{pid}/ns/{LINKS[kind]}"


@pytest.mark.parametrize(
    "kind",
    [
        "pid",
        "network",
        "ipc",
        "uts",
        "user",
        "cgroup",
        pytest.param("time", marks=NO_TIME),
    ],
)
def test_one_new_and_the_others_inherited(container: Container, kind: str) -> None:
    # A procfs can be mounted by the owner of the pid namespace alone.
    new = {"mount", kind, *(["pid"] if kind == "user" else [])}
    ask_for(container, *new)
    host, inside = links("self"), links(started(container))
    for name, link in inside.items():
        assert (link != host[name]) == (name in new), name
    container.kill("KILL")


@NO_TIME
def test_all_eight_new(container: Container) -> None:
    ask_for(container, *LINKS)
    host, inside = links("self"), links(started(container))
    assert all(inside[kind] != host[kind] for kind in LINKS)
    assert proc.status(container.pid)["NSpid"].split()[-1] == "1"


@pytest.mark.parametrize(
    "kind",
    [
        "network",
        "ipc",
        "uts",
        "cgroup",
        "pid",
        pytest.param(
            "user",
            marks=pytest.mark.peer_fails("runc", "1.1 asks for mappings that the joined one has"),
        ),
    ],
)
def test_one_joined_by_path(container: Container, kind: str) -> None:
    options = {
        "network": ["--net"],
        "ipc": ["--ipc"],
        "uts": ["--uts"],
        "cgroup": ["--cgroup"],
        "pid": ["--pid"],
        "user": ["--user", "--map-root-user"],
    }[kind]
    with namespaces_of_others(*options) as other:
        new = [k for k in ("pid", "mount", "uts", "ipc") if k != kind]
        ask_for(container, *new, **{kind: path(other, kind)})
        inside = links(started(container))
        assert inside[kind] == proc.namespace(other, LINKS[kind])
        assert inside["mount"] != proc.namespace("self", "mnt")
        container.delete("--force")


@NO_TIME
def test_a_time_namespace_joined(make_container: MakeContainer) -> None:
    first, second = make_container(), make_container()
    ask_for(first, "mount", "pid", "time")
    first.bundle.set("/linux/timeOffsets", {"boottime": {"secs": 86400}})
    pid = started(first)
    ask_for(second, "mount", "pid", time=path(pid, "time"))
    assert links(started(second))["time"] == links(pid)["time"]


def test_a_joined_mount_namespace_sees_its_own_rootfs(container: Container) -> None:
    with namespaces_of_others("--mount", "--propagation", "private") as other:
        before = proc.namespace(other, "mnt")
        ask_for(container, "pid", "uts", "ipc", mount=path(other, "mount"))
        pid = started(container)
        assert proc.namespace(pid, "mnt") == before
        assert Path(f"/proc/{pid}/root/bin/busybox").exists()
        assert not Path(f"/proc/{pid}/root/usr").exists()
        container.delete("--force")


def test_a_pod_shares_network_ipc_and_uts(make_container: MakeContainer) -> None:
    pause, app = make_container(), make_container()
    pid = started(pause)
    ask_for(
        app,
        "pid",
        "mount",
        network=path(pid, "network"),
        ipc=path(pid, "ipc"),
        uts=path(pid, "uts"),
    )
    shared, own = links(pid), links(started(app))
    assert {k: own[k] for k in ("network", "ipc", "uts")} == {
        k: shared[k] for k in ("network", "ipc", "uts")
    }
    assert own["pid"] != shared["pid"]
    assert own["mount"] != shared["mount"]


def test_a_pod_that_shares_pids_sees_the_others(make_container: MakeContainer) -> None:
    pause, app = make_container(), make_container()
    pid = started(pause)
    ask_for(app, "mount", "uts", "ipc", pid=path(pid, "pid"))
    assert "sleep 1000" in app.inside("ps")


def test_a_pod_with_a_user_namespace(make_container: MakeContainer) -> None:
    """podman's pod and Kubernetes' hostUsers: false: everything shared belongs to that user ns."""
    pause, app = make_container(), make_container()
    ask_for(pause, "user", "pid", "mount", "network", "ipc", "uts")
    pid = started(pause)
    own_rootfs(app)
    shared = ("user", "network", "ipc", "uts")
    ask_for(app, "pid", "mount", **{kind: path(pid, kind) for kind in shared})
    app.bundle.set("/linux/uidMappings", MAPPINGS)
    app.bundle.set("/linux/gidMappings", MAPPINGS)
    inside = links(started(app))
    assert {k: inside[k] for k in shared} == {k: links(pid)[k] for k in shared}
    assert proc.status(app.pid)["Uid"].split()[0] == "100000"


def test_a_new_user_namespace_with_the_hosts_network_joined(container: Container) -> None:
    """The network namespace belongs to the host: it has to be joined before ids are given up."""
    with namespaces_of_others("--net") as other:
        ask_for(container, "user", "pid", "mount", "uts", "ipc", network=path(other, "network"))
        inside = links(started(container))
        assert inside["network"] == proc.namespace(other, "net")
        assert inside["user"] != proc.namespace("self", "user")
        container.delete("--force")


@NO_TIME
def test_new_user_and_time_with_a_joined_network(container: Container) -> None:
    with namespaces_of_others("--net") as other:
        ask_for(container, "user", "time", "pid", "mount", network=path(other, "network"))
        container.bundle.set("/linux/timeOffsets", {"monotonic": {"secs": 5000}})
        inside = links(started(container))
        assert inside["network"] == proc.namespace(other, "net")
        offsets = Path(f"/proc/{container.pid}/timens_offsets").read_text()
        assert "5000" in offsets.split("\n")[0]
        container.delete("--force")


@NO_TIME
@pytest.mark.parametrize("with_user", [False, True])
def test_time_offsets(container: Container, with_user: bool) -> None:
    kinds = ["mount", "pid", "time", *(["user"] if with_user else [])]
    ask_for(container, *kinds)
    container.bundle.set("/linux/timeOffsets", {"boottime": {"secs": 100000, "nanosecs": 5}})
    uptime = float(container.inside("cut -d. -f1 /proc/uptime"))
    assert uptime > float(Path("/proc/uptime").read_text().split()[0]) + 99000


@pytest.mark.peer_fails("runc", "1.1 leaves it to group 65534, which nobody inside has")
def test_message_queues_belong_to_the_mapped_root(container: Container) -> None:
    ask_for(container, "user", "pid", "mount", "ipc", "network", "uts")
    container.bundle.set(
        "/mounts/-", {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"}
    )
    assert container.inside("stat -c %u:%g /dev/mqueue") == "0:0"


def test_a_cgroup_namespace_is_rooted_at_the_containers_cgroup(container: Container) -> None:
    ask_for(container, "pid", "mount", "uts", "ipc", "network", "cgroup")
    container.bundle.set("/linux/resources", {"memory": {"limit": 50 << 20}})
    container.shell("cat /proc/self/cgroup; sleep 1000")
    pid = started(container)
    # From outside: it is really in there, memory too, which is joined last.
    assert pid in map(int, container.cgroup_file("memory", "cgroup.procs").read_text().split())
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    assert any(
        line.endswith(container.cgroups_path)
        for line in lines
        if ":memory:" in line or "0::" in line
    )
    container.delete("--force")
    seen = container.inside("cat /proc/self/cgroup").splitlines()
    assert [line for line in seen if not line.endswith(":/")] == []


def test_lo_is_up_in_a_new_network_namespace(container: Container) -> None:
    assert "UP" in container.inside("ip link show lo")


def test_names_are_set_inside_alone(container: Container) -> None:
    host = Path("/proc/sys/kernel/hostname").read_text()
    container.config["hostname"] = "inside"
    assert container.inside("hostname") == "inside"
    assert Path("/proc/sys/kernel/hostname").read_text() == host


@pytest.mark.peer_fails("runc", "1.1 doesn't know domainname")
def test_the_domain_name(container: Container) -> None:
    container.config["domainname"] = "example.org"
    assert container.inside("cat /proc/sys/kernel/domainname") == "example.org"


def test_the_id_maps_are_as_written(container: Container) -> None:
    ask_for(container, "user", "pid", "mount", "network", "ipc", "uts")
    mappings = [
        {"containerID": 0, "hostID": 100000, "size": 10},
        {"containerID": 20, "hostID": 300000, "size": 5},
    ]
    container.bundle.set("/linux/uidMappings", mappings)
    container.bundle.set("/linux/gidMappings", mappings[:1])
    pid = started(container)
    maps = [Path(f"/proc/{pid}/{name}").read_text().split() for name in ("uid_map", "gid_map")]
    assert maps == [["0", "100000", "10", "20", "300000", "5"], ["0", "100000", "10"]]


class TestRefusals:
    """A sentence that names the path, and nothing left behind (the fixture looks)."""

    def refused(self, container: Container, *new: str, **joined: str) -> str:
        ask_for(container, "mount", *new, **joined)
        container.bundle.save()
        return container.refused("create", "--bundle", str(container.bundle.directory))

    @pytest.mark.peer_fails("runc", "1.1 doesn't name the path")
    def test_a_path_of_another_type(self, container: Container) -> None:
        message = self.refused(container, network="/proc/self/ns/uts")
        assert "/proc/self/ns/uts" in message

    @pytest.mark.peer_fails("runc", "1.1 doesn't name the path")
    def test_a_path_that_is_no_namespace(self, container: Container) -> None:
        assert "/etc/hostname" in self.refused(container, network="/etc/hostname")

    def test_a_missing_path(self, container: Container) -> None:
        assert "/no/such/file" in self.refused(container, network="/no/such/file")

    def test_root_is_not_mapped(self, container: Container) -> None:
        ask_for(container, "user", "pid", "mount", "network")
        for name in ("uidMappings", "gidMappings"):
            mapping = {"containerID": 5, "hostID": 100000, "size": 10}
            container.bundle.set(f"/linux/{name}", [mapping])
        container.bundle.save()
        assert container.refused("create", "--bundle", str(container.bundle.directory))
