# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of the steps, as a property of a list: no root, no container."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from ocirt.cgroups.layout import Hierarchy, Layout, Mode
from ocirt.errors import OcirtError
from ocirt.parts import mounts, process
from ocirt.parts.capabilities import SetCapabilities
from ocirt.parts.namespaces import FLAGS
from ocirt.parts.seccomp import LoadFilter
from ocirt.parts.step import Side, Step
from ocirt.plan.host import Host, Options
from ocirt.plan.order import Plan, build
from ocirt.spec.model import Config, NamespaceType
from ocirt.spec.names import HOOKS

LAYOUT = Layout(
    Mode.V1,
    tuple(
        Hierarchy((name,), f"/sys/fs/cgroup/{name}", "/", "/", None)
        for name in ("memory", "pids", "devices", "cpu")
    ),
    None,
)
HOST = Host(
    layout=LAYOUT,
    privileged=True,
    in_user_namespace=False,
    last_cap=40,
    bounding=(1 << 41) - 1,
    uid=0,
)
ROOTLESS = Host(
    layout=LAYOUT, privileged=False, in_user_namespace=False, last_cap=40, bounding=0, uid=1000
)
OPTIONS = Options(container_id="c", bundle="/bundle")
HOOK = [{"path": "/bin/true"}]
MAP = [{"containerID": 0, "hostID": 1000, "size": 1}]
BASE: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "root": {"path": "rootfs", "readonly": True},
    "process": {"cwd": "/", "args": ["sh"], "capabilities": {"bounding": ["CAP_KILL"]}},
    "hostname": "h",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]},
        {"destination": "/x", "type": "bind", "source": "/y", "options": ["bind"]},
    ],
    "hooks": dict.fromkeys(HOOKS, HOOK),
    "linux": {
        "namespaces": [{"type": k} for k in ("pid", "mount", "uts", "ipc", "network")],
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
        "resources": {"memory": {"limit": 1 << 30}, "pids": {"limit": 5}},
    },
}


def joined(*kinds: str) -> list[dict[str, str]]:
    return [{"type": k, "path": f"/proc/1/ns/{k}"} for k in kinds]


def plan(host: Host = HOST, options: Options = OPTIONS, **linux: Any) -> Plan:
    document = copy.deepcopy(BASE)
    document["linux"].update(linux)
    return build(Config.from_json(document), host, options)


def index(steps: tuple[Step, ...], words: str) -> int:
    """Return the place of the one step whose words begin like this."""
    (found,) = [i for i, step in enumerate(steps) if step.what.startswith(words)]
    return found


def assert_order(steps: tuple[Step, ...], *words: str) -> None:
    places = [index(steps, w) for w in words]
    assert places == sorted(places), [steps[p].what for p in places]


def test_the_order_of_a_creation() -> None:
    assert_order(
        plan().create,
        "look at the rootfs",
        "compile the seccomp filter",
        "make the cgroup",
        "clone init",
        "become non-dumpable",
        "join the cgroup",
        "cut mounts off",
        "bind the rootfs",
        "mount mounts[0]",
        "mount mounts[2]",
        "make the default devices",
        "make the links in /dev",
        "run the prestart hook",
        "run the createRuntime hook",
        "run the createContainer hook",
        "set sysctl",
        "make /proc/sys read-only",
        "mask /proc/kcore",
        "find the program",
        "make the rootfs read-only",
        "pivot the root",
        "join the memory cgroup",
        "become the stub",
        "write the remaining resource limits",
    )


def test_nothing_of_init_comes_after_it_became_the_stub() -> None:
    steps = plan().create
    after = steps[index(steps, "become the stub") + 1 :]
    assert {step.side for step in after} <= {Side.RUNTIME}


def test_a_read_only_dev_is_made_so_after_the_devices() -> None:
    steps = plan().create
    remount = [i for i, s in enumerate(steps) if isinstance(s.action, mounts.RemountReadOnly)]
    assert len(remount) == 1
    assert remount[0] > index(steps, "make the links in /dev")


@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_the_filter_comes_while_it_can_be_loaded(no_new_privileges: bool) -> None:
    document = copy.deepcopy(BASE)
    document["process"]["noNewPrivileges"] = no_new_privileges
    actions = [type(s.action) for s in build(Config.from_json(document), HOST, OPTIONS).start]
    first = LoadFilter if not no_new_privileges else SetCapabilities
    second = SetCapabilities if not no_new_privileges else LoadFilter
    assert actions.index(first) < actions.index(second)


def test_start_begins_with_the_wait_and_ends_with_poststart() -> None:
    steps = plan().start
    assert isinstance(steps[0].action, process.WaitForStart)
    assert steps[-1].pointer == "/hooks/poststart/0"
    assert steps[1].pointer == "/hooks/startContainer/0"


def test_one_clone_is_enough_when_all_are_new() -> None:
    kinds = [type(s.action) for s in plan().create]
    assert process.CloneJoiner not in kinds
    assert Side.JOINER not in {s.side for s in plan().create}


def test_with_privilege_the_user_namespace_is_joined_last() -> None:
    entries = [*joined("user", "network", "ipc", "uts"), {"type": "pid"}, {"type": "mount"}]
    steps = plan(namespaces=entries).create
    assert_order(
        steps,
        "clone the joiner",
        "become non-dumpable",
        "join the network namespace",
        "join the user namespace",
        "become root",
        "clone init",
    )


def test_whom_the_joiner_clones_is_put_into_its_cgroup_v2() -> None:
    unified = Hierarchy((), "/sys/fs/cgroup", "/", "/", None)
    host = replace(HOST, layout=Layout(Mode.V2, (unified,), unified))
    entries = [*joined("user"), *({"type": k} for k in ("pid", "mount", "uts", "network"))]
    assert_order(
        plan(host, namespaces=entries, resources={}).create,
        "clone init",
        "put init into its cgroup",
        "join the cgroup",
    )
    assert not [s for s in plan(host, resources={}).create if s.what.startswith("put init")]


def test_without_privilege_it_comes_first() -> None:
    entries = [*joined("network", "uts"), {"type": "pid"}, {"type": "mount"}, {"type": "user"}]
    steps = plan(ROOTLESS, namespaces=entries, uidMappings=MAP, gidMappings=MAP).create
    assert_order(steps, "unshare the user namespace", "map user", "become root", "join the network")


def test_offsets_are_set_before_anybody_is_in_the_time_namespace() -> None:
    entries = [{"type": k} for k in ("pid", "mount", "uts", "network", "time")]
    steps = plan(namespaces=entries, timeOffsets={"boottime": {"secs": 1}}).create
    assert_order(steps, "unshare the time", "set the clocks", "clone init")


def test_ipc_waits_for_the_new_user_namespaces_root() -> None:
    entries = [{"type": k} for k in ("pid", "mount", "uts", "network", "ipc", "user")]
    steps = plan(namespaces=entries, uidMappings=MAP, gidMappings=MAP).create
    assert_order(steps, "clone init", "map user", "become root", "unshare namespaces: ipc")
    (clone,) = [s.action for s in steps if isinstance(s.action, process.CloneInit)]
    assert not clone.flags & FLAGS[NamespaceType.IPC]


def test_every_pointer_is_in_the_document() -> None:
    document: Any = copy.deepcopy(BASE)
    optional = ("/linux/cgroupsPath", "/process/user", "/linux/rootfsPropagation")
    for step in (*plan().create, *plan().start):
        if not step.pointer or step.pointer.startswith(optional):
            continue
        place = document
        for token in step.pointer.split("/")[1:]:
            key = token.replace("~1", "/").replace("~0", "~")
            place = place[int(key)] if isinstance(place, list) else place[key]


def test_what_has_an_effect_outside_has_an_undo() -> None:
    undone = {s.what.split()[0] for s in plan().create if s.undo}
    assert undone == {"make", "clone"}


@pytest.mark.parametrize(
    "linux",
    [
        {},
        {"namespaces": [*joined("network", "uts"), {"type": "mount"}, {"type": "pid"}]},
        {"namespaces": [{"type": k} for k in ("network", "uts", "pid")]},
        {"intelRdt": {"l3CacheSchema": "L3:0=f"}},
    ],
)
def test_who_clones_or_can_be_undone_says_so(linux: dict[str, Any]) -> None:
    """The execution looks no further where a step has no words for it."""
    steps = plan(**linux).create
    clones = [s for s in steps if isinstance(s.action, process.CloneInit | process.CloneJoiner)]
    undoable = [s for s in steps if hasattr(s.action, "undo")]
    assert clones
    assert undoable
    assert all(s.undo for s in (*clones, *undoable))


def test_no_pivot() -> None:
    steps = plan(options=Options(container_id="c", bundle="/b", no_pivot=True)).create
    assert not [s for s in steps if s.what.startswith("pivot")]
    index(steps, "move the rootfs")


@pytest.mark.parametrize(
    ("linux", "words"),
    [
        ({"namespaces": [{"type": "user"}], "uidMappings": MAP, "gidMappings": MAP}, "mount"),
        ({"namespaces": [{"type": "network"}], "rootfsPropagation": "slave"}, "slave"),
        ({"sysctl": {"kernel.panic": "1"}}, "kernel.panic"),
        ({"sysctl": {"kernel.shmmax": "1"}, "namespaces": [{"type": "mount"}]}, "ipc"),
        (
            {"netDevices": {"eth0": {}}, "namespaces": [{"type": "mount"}]},
            "/linux/netDevices",
        ),
    ],
)
def test_refusals(linux: dict[str, Any], words: str) -> None:
    with pytest.raises(OcirtError, match=words):
        plan(**linux)


def test_a_terminal_comes_with_the_devices_and_becomes_stdio_before_its_owner_changes() -> None:
    document = copy.deepcopy(BASE)
    document["process"]["terminal"] = True
    steps = build(Config.from_json(document), HOST, OPTIONS).create
    assert_order(
        steps,
        "make the default devices",
        "make a terminal",
        "bind it to /dev/console",
        "run the prestart hook",
        "make the terminal stdio",
        "give stdio to user",
        "make the rootfs read-only",
    )


def test_a_foreground_run_ends_with_the_runtime_after_the_user_is_set() -> None:
    options = Options(container_id="c", bundle="/bundle", foreground=True)
    assert_order(plan(options=options).start, "become user", "end with the runtime", "execute")
    assert not [s for s in plan().start if s.what == "end with the runtime"]


def test_sources_are_opened_before_there_is_an_init() -> None:
    linux: dict[str, Any] = {"namespaces": [{"type": "mount"}, {"type": "user"}], "sysctl": {}}
    steps = plan(HOST, OPTIONS, uidMappings=MAP, gidMappings=MAP, **linux).create
    assert_order(steps, "open /y, the source of mounts[2]", "clone init", "mount mounts[2]")


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_an_idmap_needs_mappings(option: str) -> None:
    document = copy.deepcopy(BASE)
    document["mounts"][2]["options"] = ["bind", option]
    with pytest.raises(OcirtError, match="/mounts/2/uidMappings"):
        build(Config.from_json(document), HOST, OPTIONS)


@pytest.mark.parametrize("new_privileges", [True, False])
def test_labels_are_asked_for_before_no_new_privs_and_the_filter(new_privileges: bool) -> None:
    document = copy.deepcopy(BASE)
    document["process"].update(
        apparmorProfile="p", selinuxLabel="l", noNewPrivileges=not new_privileges
    )
    steps = build(Config.from_json(document), HOST, OPTIONS)
    assert_order(steps.create, "look for AppArmor", "look for SELinux", "make the cgroup")
    words = ["run the startContainer", "ask for the AppArmor", "ask for the SELinux"]
    words += [] if new_privileges else ["set no_new_privs"]
    assert_order(steps.start, *words, "load the seccomp filter", "execute")


def test_only_binds_are_id_mapped() -> None:
    document = copy.deepcopy(BASE)
    document["mounts"][1]["options"] = ["idmap"]
    with pytest.raises(OcirtError, match="/mounts/1: 'idmap'"):
        build(Config.from_json(document), HOST, OPTIONS)


def test_a_mount_label_becomes_an_option_where_there_is_selinux() -> None:
    def data(host: Host) -> tuple[str, ...]:
        steps = plan(host, mountLabel="a:b:c:s0:c1,c2").create
        (step,) = [s for s in steps if s.what.startswith("mount mounts[1]")]
        assert isinstance(step.action, mounts.FilesystemMount)
        return step.action.options.data

    assert data(HOST) == ()
    assert "/linux/mountLabel" in plan(mountLabel="a").warnings[-1]
    assert data(replace(HOST, selinux=True)) == ('context="a:b:c:s0:c1,c2"',)


def test_what_a_bind_mount_has_no_use_for_is_a_warning() -> None:
    document = copy.deepcopy(BASE)
    document["mounts"][2]["options"] = ["bind", "mode=755"]
    (warning,) = build(Config.from_json(document), HOST, OPTIONS).warnings
    assert "/mounts/2/options" in warning and "mode=755" in warning


def test_without_root_a_user_namespace_is_needed() -> None:
    with pytest.raises(OcirtError, match="user namespace"):
        plan(ROOTLESS)


def test_a_class_of_service_is_ready_before_init_and_has_it_before_the_hooks() -> None:
    steps = plan(intelRdt={"l3CacheSchema": "L3:0=f"}).create
    assert_order(
        steps, "prepare the resctrl class c", "clone init", "assign init", "run the prestart hook"
    )


def test_a_personality_has_no_flags() -> None:
    with pytest.raises(OcirtError, match=r"/linux/personality/flags: MMAP_PAGE_ZERO"):
        plan(personality={"domain": "LINUX", "flags": ["MMAP_PAGE_ZERO"]})
