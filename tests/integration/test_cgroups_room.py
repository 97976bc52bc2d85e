# SPDX-License-Identifier: GPL-3.0-or-later
"""The cgroups room against the real kernel, as root; all below cgroups of its own.

v1 tests need a v1 or hybrid host. v2 tests use any mounted cgroup2, even one without controllers.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ocirt.cgroups import manager
from ocirt.cgroups.layout import Hierarchy, Layout, Mode
from ocirt.cgroups.manager import CgroupPaths, Phase
from ocirt.errors import OcirtError, StepError
from ocirt.spec.model import (
    CPU,
    BlockIO,
    DeviceRule,
    Memory,
    Pids,
    Resources,
)

SAME_PACKAGE = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@dataclass
class Place:
    """Cgroups below a top of the test's own, and the processes put there."""

    layout: Layout
    top: str = field(default_factory=lambda: f"/ocirt-test-{secrets.token_hex(6)}")
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def paths(self, name: str = "c") -> CgroupPaths:
        return manager.paths(f"{self.top}/{name}", "unused", self.layout)

    def tops(self) -> tuple[str, ...]:
        return manager.paths(self.top, "unused", self.layout).directories

    def made(self, name: str = "c") -> CgroupPaths:
        paths = self.paths(name)
        manager.create(paths, self.layout)
        return paths

    def sleep(self, paths: CgroupPaths | None = None) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(["sleep", "1000"])
        self.children.append(child)
        if paths is not None:
            manager.add_process(paths, child.pid)
        return child

    def python(self, script: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", script]
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.children.append(child)
        return child

    def clean(self) -> None:
        for child in self.children:
            child.kill()
        try:
            manager.kill(manager.paths(self.top, "unused", self.layout), signal.SIGKILL)
        finally:
            for child in self.children:
                child.wait()
                for pipe in (child.stdin, child.stdout):
                    if pipe is not None:
                        pipe.close()
            manager.remove(self.tops())


@contextmanager
def host_v1() -> Iterator[Place]:
    layout = manager.detect()
    if layout.mode is Mode.V2:
        pytest.skip("the host has cgroup v2 alone")
    with cleaned(Place(layout)) as place:
        yield place


@contextmanager
def host_v2() -> Iterator[Place]:
    """Treat a cgroup of the test's own as the top of v2.

    create() enables controllers from the top of the layout down: in the host's root cgroup that
    would outlive the test.
    """
    beside = manager.detect().unified
    if beside is None:
        pytest.skip("no cgroup2 mount")
    mountpoint = f"{beside.mountpoint}/ocirt-test-{secrets.token_hex(6)}"
    os.mkdir(mountpoint)
    try:
        with open(f"{mountpoint}/cgroup.controllers") as f:
            controllers = tuple(f.read().split())
        with cleaned(Place(Layout(Mode.V2, (), Hierarchy(controllers, mountpoint)))) as place:
            yield place
    finally:
        manager.remove((mountpoint,))


@contextmanager
def cleaned(place: Place) -> Iterator[Place]:
    try:
        yield place
    finally:
        place.clean()


@pytest.fixture
def v1() -> Iterator[Place]:
    with host_v1() as place:
        yield place


@pytest.fixture
def v2() -> Iterator[Place]:
    with host_v2() as place:
        yield place


@pytest.fixture(params=[host_v1, host_v2])
def any_version(request: pytest.FixtureRequest) -> Iterator[Place]:
    host: Callable[[], AbstractContextManager[Place]] = request.param
    with host() as place:
        yield place


def read(directory: str | None, file: str) -> str:
    assert directory is not None
    with open(f"{directory}/{file}") as f:
        return f.read().strip()


def set_all(
    place: Place, paths: CgroupPaths, resources: Resources, *, devices: bool = True
) -> None:
    found = manager.writes(resources, place.layout, devices=devices)
    manager.apply(paths, found, Phase.EARLY)
    manager.apply(paths, found, Phase.LATE)


# ---- directories


def test_missing_create_remove(any_version: Place) -> None:
    paths = any_version.paths("a/b")
    missing = manager.missing(paths, any_version.layout)
    assert set(missing) > set(paths.directories)
    for directory in missing:
        parent = os.path.dirname(directory)
        assert parent not in missing or missing.index(parent) < missing.index(directory)
        assert not os.path.exists(directory)
    manager.create(paths, any_version.layout)
    assert all(os.path.isdir(d) for d in missing)
    assert manager.missing(paths, any_version.layout) == ()
    manager.remove(missing)
    assert not any(os.path.exists(d) for d in missing)
    manager.remove(missing)  # gone already is fine


def test_remove_spares_a_neighbour_and_what_was_there_before(any_version: Place) -> None:
    first, second = any_version.paths("pod/one"), any_version.paths("pod/two")
    missing = manager.missing(first, any_version.layout)
    manager.create(first, any_version.layout)
    manager.create(second, any_version.layout)
    manager.remove(missing)
    assert not any(os.path.exists(d) for d in first.directories)
    assert all(os.path.isdir(d) for d in second.directories)


def test_remove_takes_what_the_container_made_inside(any_version: Place) -> None:
    paths = any_version.paths()
    missing = manager.missing(paths, any_version.layout)
    manager.create(paths, any_version.layout)
    for directory in paths.directories:
        os.makedirs(f"{directory}/inner/deep")
        os.mkdir(f"{directory}/other")
    manager.remove(missing)
    assert not any(os.path.exists(d) for d in paths.directories)


def test_remove_names_who_holds_a_cgroup(any_version: Place) -> None:
    paths = any_version.made()
    child = any_version.sleep(paths)
    with pytest.raises(OcirtError, match=rf"held by {child.pid} \(sleep\)"):
        manager.remove(paths.directories, deadline_seconds=0.02)


def test_remove_waits_for_processes_that_are_just_ending(any_version: Place) -> None:
    paths = any_version.made()
    ending = "import sys, time; sys.stdin.read(); time.sleep(0.2)"
    child = any_version.python(ending)
    manager.add_process(paths, child.pid)
    assert child.stdin is not None
    child.stdin.close()
    manager.remove(paths.directories, deadline_seconds=30)
    assert not any(os.path.exists(d) for d in paths.directories)


def test_a_cgroup_with_processes_is_refused(any_version: Place) -> None:
    paths = any_version.made()
    manager.create(paths, any_version.layout)  # empty ones may be used again
    any_version.sleep(paths)
    with pytest.raises(StepError, match=r"not empty: 1 process\(es\) found"):
        manager.create(paths, any_version.layout)


def test_a_path_that_cant_be_made(any_version: Place) -> None:
    with pytest.raises(OSError, match="line"):
        manager.create(any_version.paths("line\nbreak"), any_version.layout)


# ---- processes


def test_processes_are_listed_with_nested_ones(any_version: Place) -> None:
    paths = any_version.made()
    assert manager.processes(paths) == []
    outer = any_version.sleep(paths)
    inner = any_version.sleep(any_version.made("c/inner"))
    assert manager.processes(paths) == sorted([outer.pid, inner.pid])


def test_processes_of_no_cgroup(any_version: Place) -> None:
    assert manager.processes(any_version.paths()) == []


def test_kill_ends_nested_processes_too(any_version: Place) -> None:
    paths = any_version.made()
    children = [any_version.sleep(paths), any_version.sleep(any_version.made("c/inner"))]
    bystander = any_version.sleep()
    manager.kill(paths, signal.SIGKILL)
    assert manager.processes(paths) == []
    assert [c.wait() for c in children] == [-signal.SIGKILL] * 2
    assert bystander.poll() is None


def test_kill_with_another_signal_only_sends_it(any_version: Place) -> None:
    paths = any_version.made()
    child = any_version.sleep(paths)
    manager.kill(paths, signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM
    manager.kill(paths, signal.SIGTERM)


def test_kill_catches_processes_that_keep_forking(any_version: Place) -> None:
    paths = any_version.made()
    # Each process is replaced by a new one at once, so a list of pids is old when it is read.
    chain = "import os\nwhile True:\n  if os.fork(): os._exit(0)"
    start = f"import sys\nsys.stdin.read()\n{chain}"
    child = any_version.python(start)
    manager.add_process(paths, child.pid)
    assert child.stdin is not None
    child.stdin.close()
    child.wait()
    manager.kill(paths, signal.SIGKILL, deadline_seconds=60)
    assert manager.processes(paths) == []
    manager.remove(paths.directories)


def test_kill_spares_the_caller(v1: Place) -> None:
    paths = v1.made()
    script = (
        "import os, sys\n"
        "from ocirt.cgroups.manager import CgroupPaths, add_process, kill\n"
        "paths = CgroupPaths.from_json(eval(sys.argv[1]))\n"
        "add_process(paths, os.getpid())\n"
        "kill(paths, 9)\n"
        "print('alive')\n"
    )
    argv = [sys.executable, "-c", script, repr(paths.to_json())]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=SAME_PACKAGE)
    assert done.stdout == "alive\n"


# ---- v1


def test_v1_limits_are_read_back(v1: Place) -> None:
    paths = v1.made()
    resources = Resources(
        cpu=CPU(shares=512, quota=50000, period=200000, cpus="0", mems="0"),
        memory=Memory(limit=64 << 20, swap=128 << 20, reservation=32 << 20, swappiness=10),
        pids=Pids(20),
    )
    set_all(v1, paths, resources)
    assert read(paths.directory("cpu"), "cpu.shares") == "512"
    assert read(paths.directory("cpu"), "cpu.cfs_quota_us") == "50000"
    assert read(paths.directory("cpu"), "cpu.cfs_period_us") == "200000"
    assert read(paths.directory("cpuset"), "cpuset.cpus") == "0"
    memory = paths.directory("memory")
    assert read(memory, "memory.limit_in_bytes") == str(64 << 20)
    assert read(memory, "memory.memsw.limit_in_bytes") == str(128 << 20)
    assert read(memory, "memory.soft_limit_in_bytes") == str(32 << 20)
    assert read(memory, "memory.swappiness") == "10"
    assert read(paths.directory("pids"), "pids.max") == "20"


def test_v1_late_limits_wait(v1: Place) -> None:
    paths = v1.made()
    found = manager.writes(Resources(pids=Pids(3)), v1.layout)
    manager.apply(paths, found, Phase.EARLY)
    assert read(paths.directory("pids"), "pids.max") == "max"
    manager.apply(paths, found, Phase.LATE)
    assert read(paths.directory("pids"), "pids.max") == "3"


@pytest.mark.parametrize("sizes", [(64, 96), (256, 300), (64, 64), (-1, -1), (32, 48)])
def test_v1_memory_and_swap_go_up_and_down(v1: Place, sizes: tuple[int, int]) -> None:
    paths = v1.made()

    def limits(limit: int, swap: int) -> Resources:
        return Resources(memory=Memory(limit=limit, swap=swap))

    set_all(v1, paths, limits(128 << 20, 192 << 20))
    limit, swap = (-1 if size < 0 else size << 20 for size in sizes)
    set_all(v1, paths, limits(limit, swap))
    memory = paths.directory("memory")
    found = [int(read(memory, f"memory.{x}limit_in_bytes")) for x in ("", "memsw.")]
    if limit > 0:
        assert found == [limit, swap]
    else:
        assert min(found) > 1 << 60


@pytest.mark.parametrize(("quota", "period"), [(2_000, 2_000), (900_000, 1_000_000), (-1, 50_000)])
def test_v1_quota_and_period_go_up_and_down(v1: Place, quota: int, period: int) -> None:
    # The parent bounds the quotient, so that some orders are refused.
    parent, child = v1.made("p"), v1.made("p/c")
    for paths, cpu in (
        (parent, CPU(quota=100_000, period=100_000)),
        (child, CPU(quota=50_000, period=100_000)),
        (child, CPU(quota=quota, period=period)),
    ):
        set_all(v1, paths, Resources(cpu=cpu), devices=False)
    directory = child.directory("cpu")
    assert read(directory, "cpu.cfs_quota_us") == str(quota)
    assert read(directory, "cpu.cfs_period_us") == str(period)


def test_v1_cpuset_is_inherited_all_the_way(v1: Place) -> None:
    for top in v1.tops():
        os.mkdir(top)  # made by somebody who didn't fill it
    paths = v1.made("a/b")
    directory = paths.directory("cpuset")
    assert directory is not None
    wanted = read(os.path.dirname(v1.tops()[0].replace("systemd", "cpuset")), "cpuset.cpus")
    for level in (directory, os.path.dirname(directory), os.path.dirname(directory + "/../..")):
        assert read(level, "cpuset.cpus") == wanted
        assert read(level, "cpuset.mems")


def test_v1_cpuset_error_says_what_there_is(v1: Place) -> None:
    paths = v1.made()
    with pytest.raises(StepError, match=r"/linux/resources/cpu/cpus\].*available are [0-9]"):
        set_all(v1, paths, Resources(cpu=CPU(cpus="4000")))


def test_v1_memory_below_usage_says_so(v1: Place) -> None:
    paths = v1.made()
    hog = "b = bytearray(32 << 20); import ctypes, time\n" + (
        "ctypes.CDLL(None).mlockall(3)\nprint(flush=True)\ntime.sleep(1000)"
    )
    child = v1.python(f"input()\n{hog}")
    manager.add_process(paths, child.pid)
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(b"\n")
    child.stdin.flush()
    child.stdout.readline()
    with pytest.raises(StepError, match=r"memory/limit\].*EBUSY.*usage is [0-9]+ bytes"):
        set_all(v1, paths, Resources(memory=Memory(limit=4 << 20)))


def test_v1_device_rules_are_what_the_kernel_lists(v1: Place) -> None:
    paths = v1.made()
    rules = (
        DeviceRule(allow=False, access="rwm"),
        DeviceRule(allow=True, type="b", major=8, minor=None, access="r"),
    )
    set_all(v1, paths, Resources(devices=rules))
    listed = read(paths.directory("devices"), "devices.list").splitlines()
    assert "a *:* rwm" not in listed
    assert {"b 8:* r", "c *:* m", "c 1:3 rwm", "c 10:200 rwm", "c 136:* rwm"} <= set(listed)
    set_all(v1, paths, Resources(devices=(DeviceRule(allow=True, access="rwm"),)))
    assert read(paths.directory("devices"), "devices.list") == "a *:* rwm"


def test_v1_device_rules_bite(v1: Place) -> None:
    paths = v1.made()
    set_all(v1, paths, Resources(devices=(DeviceRule(allow=False, access="rwm"),)))
    script = (
        "import os, sys\n"
        "sys.stdin.readline()\n"
        "os.open('/dev/null', os.O_RDWR)\n"
        "try: os.open('/dev/kmsg', os.O_RDONLY)\n"
        "except PermissionError: print('denied')\n"
    )
    child = v1.python(script)
    manager.add_process(paths, child.pid)
    assert child.communicate(b"\n")[0] == b"denied\n"


def test_v1_missing_weight_file_is_an_error(v1: Place) -> None:
    paths = v1.made()
    directory = paths.directory("blkio")
    if directory is None:
        pytest.skip("no blkio controller")
    resources = Resources(block_io=BlockIO(weight=300))
    files = [f for f in ("blkio.bfq.weight", "blkio.weight") if os.path.exists(f"{directory}/{f}")]
    if files:
        set_all(v1, paths, resources)
        assert "300" in read(directory, files[0])
    else:
        with pytest.raises(StepError, match=r"blkio\.weight.*ENOENT.*no such file"):
            set_all(v1, paths, resources)


def test_v1_frozen_cgroup_is_refused_and_killed(v1: Place) -> None:
    paths = v1.made()
    inner = v1.made("c/inner")
    if paths.directory("freezer") is None:
        pytest.skip("no freezer controller")
    children = [v1.sleep(paths), v1.sleep(inner)]
    for each in (paths, inner):
        with open(f"{each.directory('freezer')}/freezer.state", "w") as f:
            f.write("FROZEN")
    with pytest.raises(StepError, match="unexpectedly frozen"):
        manager.create(v1.paths("c/new"), v1.layout)  # below a frozen one it would hang
    manager.kill(paths, signal.SIGKILL, deadline_seconds=30)
    assert [c.wait() for c in children] == [-signal.SIGKILL] * 2


def test_v1_join_through_tasks(v1: Place) -> None:
    paths = v1.made()
    attachment = manager.open_tasks(paths)
    assert attachment.into == -1
    assert len(attachment.early) + len(attachment.late) == len(paths.directories)
    script = (
        "import os, sys\n"
        "for fd in map(int, sys.argv[1:]): os.write(fd, b'0')\n"
        "print(open('/proc/self/cgroup').read())\n"
    )

    def groups(fds: tuple[int, ...]) -> dict[str, str]:
        argv = [sys.executable, "-c", script, *map(str, fds)]
        done = subprocess.run(argv, pass_fds=fds, capture_output=True, text=True, check=True)
        lines = (line.split(":", 2) for line in done.stdout.splitlines() if line)
        return {c: path for _, controllers, path in lines for c in controllers.split(",")}

    early, both = groups(attachment.early), groups((*attachment.early, *attachment.late))
    attachment.close()
    wanted = f"{v1.top}/c"
    assert {key for key in paths.v1 if early[key].endswith(wanted)} == paths.v1.keys() - {"memory"}
    assert all(both[key].endswith(wanted) for key in paths.v1)


# ---- v2


def test_v2_unified_values_are_read_back(v2: Place) -> None:
    paths = v2.made()
    set_all(v2, paths, Resources(unified={"cgroup.max.depth": "3"}))
    assert read(paths.unified, "cgroup.max.depth") == "3"


def test_v2_missing_file_names_the_controller(v2: Place) -> None:
    paths = v2.made()
    everything = Hierarchy(("pids",), v2.layout.unified.mountpoint) if v2.layout.unified else None
    found = manager.writes(Resources(pids=Pids(5)), Layout(Mode.V2, (), everything))
    if os.path.exists(f"{paths.unified}/pids.max"):
        pytest.skip("the host's v2 has pids")
    with pytest.raises(StepError, match=r"pids/limit\].*pids controller isn't enabled here"):
        manager.apply(paths, found, Phase.LATE)


def test_v2_controllers_are_enabled_on_the_way(v2: Place) -> None:
    assert v2.layout.unified is not None
    wanted = v2.layout.unified.controllers
    if not wanted:
        pytest.skip("nobody enabled a controller for the test's cgroup")
    paths = v2.made("a/b")
    assert set(read(paths.unified, "cgroup.controllers").split()) == set(wanted)
    # The leaf is for processes, so nothing may be enabled below it.
    assert read(paths.unified, "cgroup.subtree_control") == ""


def test_v2_clone_into(v2: Place) -> None:
    from ocirt.kernel import process

    paths = v2.made()
    attachment = manager.open_tasks(paths)
    assert attachment.early == attachment.late == ()
    clone_into_cgroup = 0x200000000
    pid, pidfd = process.clone3(clone_into_cgroup, cgroup=attachment.into)
    if pid == 0:
        time.sleep(1000)
        os._exit(0)
    try:
        assert manager.processes(paths) == [pid]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for fd in (pidfd, attachment.into):
            if fd >= 0:
                os.close(fd)


def test_v2_frozen_cgroup_is_refused_and_killed(v2: Place) -> None:
    paths = v2.made()
    child = v2.sleep(paths)
    with open(f"{paths.unified}/cgroup.freeze", "w") as f:
        f.write("1")
    with pytest.raises(StepError, match="unexpectedly frozen"):
        manager.create(v2.paths("c/new"), v2.layout)
    manager.kill(paths, signal.SIGKILL, deadline_seconds=30)
    assert child.wait() == -signal.SIGKILL


def test_v2_a_parent_with_processes_stays_what_it_is(v2: Place) -> None:
    """Controllers for processes beside it would make it a threaded domain, for good."""
    outer = v2.made("p")
    v2.sleep(outer)
    inner = v2.made("p/c")
    for paths in (outer, inner):
        assert Path(paths.unified, "cgroup.type").read_text() == "domain\n"
    v2.sleep(inner)


def test_v2_threaded_parent_is_refused(v2: Place) -> None:
    assert v2.layout.unified is not None
    # Controllers that aren't thread-aware would forbid threads.
    bare = Place(Layout(Mode.V2, (), Hierarchy((), v2.layout.unified.mountpoint)), v2.top)
    paths = bare.made("t/threaded")
    with open(f"{paths.unified}/cgroup.type", "w") as f:
        f.write("threaded")
    with pytest.raises(StepError, match="is domain invalid: a cgroup above it is threaded"):
        bare.made("t/new")


def test_v2_is_detected_where_it_is_alone() -> None:
    beside = manager.detect().unified
    if beside is None:
        pytest.skip("no cgroup2 mount")
    show = (
        "from ocirt.cgroups.manager import detect, paths\n"
        "layout = detect()\n"
        "print(layout.mode, layout.unified.mountpoint, paths('/c', 'x', layout).unified)"
    )
    # A bind mount: a fresh mount of cgroup2 would set the options of all of them.
    inner = 'mount --bind "$2" /sys/fs/cgroup && exec "$0" -c "$1"'
    argv = ["unshare", "--mount", "sh", "-c", inner, sys.executable, show, beside.mountpoint]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=SAME_PACKAGE)
    assert done.stdout == "v2 /sys/fs/cgroup /sys/fs/cgroup/c\n"
