# SPDX-License-Identifier: GPL-3.0-or-later
"""Each rule and each kind of schema error: a document that breaks it, and where it is reported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ocirt.spec.report import Finding
from ocirt.spec.validate import Kind, check_document
from tests.unit.spec.samples import CHECKOUT, changed, rich, small

_MAP = {"containerID": 0, "hostID": 0, "size": 10}
_LIMIT = {"type": "RLIMIT_CORE", "soft": 1, "hard": 1}
_HUGE = {"pageSize": "2MB", "limit": 1}
_SECCOMP = {"defaultAction": "SCMP_ACT_ALLOW"}
_KILL = {"defaultAction": "SCMP_ACT_KILL"}
_ARGUMENT = {"index": 0, "value": 3, "op": "SCMP_CMP_EQ"}
_ASKED: list[dict[str, Any]] = [{"names": ["mkdir", "read"], "action": "SCMP_ACT_NOTIFY"}]
_HANDED: list[dict[str, Any]] = [{"names": ["sendmsg", "read"], "action": "SCMP_ACT_ALLOW"}]
_NOTIFY = {**_SECCOMP, "listenerPath": "/run/agent", "syscalls": _ASKED}


def errors(document: object) -> list[Finding]:
    data = json.dumps(document).encode()
    return list(check_document(data, "config.json", Kind.CONFIG).errors)


@pytest.mark.parametrize("document", [small(), rich(), {**small(), "unknown": {"x": [1]}}])
def test_valid_documents(document: object) -> None:
    report = check_document(json.dumps(document).encode(), "c", Kind.CONFIG)
    assert report.errors == report.warnings == ()


@pytest.mark.parametrize(
    ("pointer", "value", "rule"),
    [
        ("/hostname", "a\0b", "nul-byte"),
        ("/process/env/0", "A=\0", "nul-byte"),
        ("/ociVersion", "invalid", "oci-version"),
        ("/ociVersion", "1.0", "oci-version"),
        ("/ociVersion", "1.0.0\n", "oci-version"),
        ("/ociVersion", "1.0.0-01", "oci-version"),
        ("/ociVersion", "\uff11.0.0", "oci-version"),
        ("/ociVersion", "2.0.0", "oci-major-version"),
        ("/ociVersion", "0.9.0", "oci-major-version"),
        ("/mounts/0", {"destination": "/a", "options": ["bind"]}, "mount-source"),
        ("/mounts/0", {"destination": "/a"}, "mount-type"),
        ("/mounts/0", {"destination": "/a", "type": "t", "uidMappings": []}, "mount-mappings"),
        ("/mounts/1/gidMappings", [_MAP, _MAP], "mapping-overlap"),
        ("/mounts/1/uidMappings/0/hostID", 4294967295, "mapping-range"),
        ("/hooks/poststop/0/path", "bin/true", "hook-path"),
        ("/hooks/prestart/0/env/0", "novalue", "env"),
        ("/annotations/", "x", "annotation-key"),
        ("/linux/namespaces", [{"type": "mount"}], "name-without-uts"),
        ("/hostname", "x" * 65, "name-length"),
        ("/linux/namespaces/1", {"type": "pid"}, "namespace-twice"),
        ("/linux/namespaces/5/path", "relative", "namespace-path"),
        ("/linux/namespaces/4", {"type": "ipc"}, "time-offsets"),
        ("/linux/namespaces/3", {"type": "ipc"}, "mappings-without-user"),
        ("/linux/uidMappings", [], "mappings-missing"),
        ("/linux/uidMappings", [dict(_MAP, size=4294967295, hostID=2)], "mapping-range"),
        ("/linux/uidMappings", [_MAP, dict(_MAP, hostID=100)], "mapping-overlap"),
        ("/linux/gidMappings", [_MAP, dict(_MAP, containerID=50, hostID=5)], "mapping-overlap"),
        (
            "/linux/uidMappings",
            [dict(_MAP, size=1, containerID=i, hostID=i) for i in range(341)],
            "mappings-many",
        ),
        ("/linux/timeOffsets/realtime", {"secs": 1}, "time-offset-clock"),
        ("/linux/namespaces/4/path", "/proc/1/ns/time", "time-offsets"),
        ("/linux/sysctl", {"net..x": "1"}, "sysctl-name"),
        ("/linux/sysctl", {"../etc/x": "1"}, "sysctl-name"),
        ("/linux/devices/0/path", "dev/x", "device-path"),
        ("/linux/devices/0", {"type": "b", "path": "/dev/x"}, "device-numbers"),
        ("/linux/netDevices", {"eth0": {"name": "a/b"}}, "net-device-name"),
        ("/linux/netDevices", {"eth 0": {}}, "net-device-name"),
        ("/linux/netDevices", {"x" * 16: {"name": "a"}}, "net-device-name"),
        ("/linux/netDevices", {"a": {"name": "c"}, "b": {"name": "c"}}, "net-device-twice"),
        ("/linux/netDevices", {"a": {}, "b": {"name": "a"}}, "net-device-twice"),
        ("/annotations", {"run.oci.hooks.stdout": "log"}, "annotation-path"),
        ("/annotations", {"run.oci.hooks.stderr": ""}, "annotation-path"),
        ("/annotations", {"run.oci.pidfd_receiver": "./s"}, "annotation-path"),
        ("/annotations", {"run.oci.mount_context_type": "ctx"}, "annotation-context"),
        ("/annotations", {"run.oci.delegate-cgroup": "../a"}, "annotation-cgroup"),
        ("/annotations", {"run.oci.delegate-cgroup": ""}, "annotation-cgroup"),
        ("/annotations", {"run.oci.systemd.subgroup": "/a"}, "annotation-cgroup"),
        ("/linux/uidMappings", [dict(_MAP, containerID=1, hostID=1)], "mappings-root"),
        ("/process/user/uid", 4294967, "user-not-mapped"),
        ("/process/user/gid", 4294967, "user-not-mapped"),
        ("/process/user/additionalGids", [0, 4294967], "user-not-mapped"),
        ("/linux/intelRdt/closID", "..", "rdt-clos"),
        ("/linux/intelRdt/closID", "a/b", "rdt-clos"),
        ("/linux/intelRdt/closID", "info", "rdt-clos"),
        ("/linux/intelRdt/memBwSchema", "L3:0=f", "pattern"),
        ("/linux/intelRdt/memBwSchema", "MB:0=1\nMB:1=1", "pattern"),
        ("/linux/personality/domain", "LINUX64", "enum"),
        ("/linux/intelRdt/schemata/0", "L3:0=f\nMB:0=1", "rdt-schemata"),
        ("/linux/maskedPaths/0", "proc", "path-relative"),
        ("/process/args", [], "args-empty"),
        ("/process/args", [""], "args-empty"),
        ("/process/cwd", "tmp", "cwd"),
        ("/process/env/0", "NOVALUE", "env"),
        ("/process/env/0", "=x", "env"),
        ("/process/rlimits", [_LIMIT, _LIMIT], "rlimit-twice"),
        ("/process/rlimits/0/soft", 3, "rlimit-order"),
        ("/linux/resources/cpu/burst", 6000, "cpu-burst"),
        ("/linux/resources/memory/swap", 5, "memory-swap"),
        ("/linux/resources/pids/limit", -2, "pids-limit"),
        ("/linux/resources/blockIO/weight", 5, "blkio-weight"),
        ("/linux/resources/blockIO/weightDevice/0/leafWeight", 1001, "blkio-weight"),
        (
            "/linux/resources/blockIO/weightDevice/0",
            {"major": 8, "minor": 0},
            "blkio-weight-missing",
        ),
        ("/linux/resources/hugepageLimits", [_HUGE, _HUGE], "hugepage-twice"),
        ("/linux/resources/rdma/mlx5_1", {}, "rdma-empty"),
        ("/linux/resources/unified", {"a/b": "1"}, "unified-name"),
        ("/process/scheduler/policy", "SCHED_OTHER", "scheduler-field"),
        ("/process/scheduler/priority", 1, "scheduler-field"),
        ("/linux/seccomp", {**_SECCOMP, "listenerMetadata": "x"}, "seccomp-metadata"),
        ("/linux/seccomp", {**_SECCOMP, "defaultErrnoRet": 1}, "seccomp-errno"),
        ("/linux/seccomp/syscalls/1/errnoRet", 1, "seccomp-errno"),
        ("/linux/seccomp", {"defaultAction": "SCMP_ACT_NOTIFY"}, "seccomp-notify"),
        (
            "/linux/seccomp",
            {**_SECCOMP, "syscalls": [{"names": ["a"], "action": "SCMP_ACT_NOTIFY"}]},
            "seccomp-notify",
        ),
        ("/linux/seccomp", {**_NOTIFY, "listenerPath": "agent"}, "seccomp-listener"),
        ("/linux/seccomp", {**_NOTIFY, "defaultAction": "SCMP_ACT_ERRNO"}, "seccomp-hand-over"),
        (
            "/linux/seccomp",
            {**_NOTIFY, "syscalls": [{"names": ["sendmsg"], "action": "SCMP_ACT_NOTIFY"}]},
            "seccomp-hand-over",
        ),
        (
            "/linux/seccomp",
            {**_NOTIFY, "syscalls": [*_ASKED, {"names": ["read"], "action": "SCMP_ACT_ERRNO"}]},
            "seccomp-hand-over",
        ),
        (
            "/linux/seccomp",
            {
                **_NOTIFY,
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [*_ASKED, {**_HANDED[0], "args": [_ARGUMENT]}],
            },
            "seccomp-hand-over",
        ),
        (
            "/linux/seccomp",
            {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4095},
            "seccomp-errno",
        ),
        ("/linux/seccomp/syscalls/0/errnoRet", 65536, "seccomp-errno"),
        # What the schema says, in every kind of words it has.
        ("/process/user/uid", 4294967295, "maximum"),
        ("/process/user/additionalGids/0", 4294967295, "maximum"),
        ("/process/user/uid", -1, "minimum"),
        ("/process/user/uid", "0", "type"),
        ("/process/terminal", 0, "type"),
        ("/process/args", "sh", "type"),
        ("/linux/uidMappings/0/size", 0, "minimum"),
        ("/linux/namespaces/0/type", "pidns", "enum"),
        ("/process/rlimits/0/type", "RLIMIT_TEST", "enum"),
        ("/linux/seccomp/defaultAction", "ALLOW", "enum"),
        ("/linux/resources/hugepageLimits/0/pageSize", "2MB\n", "pattern"),
        ("/root/path", "", "minLength"),
        ("/linux/seccomp/syscalls/0/names", [], "minItems"),
        ("/hooks/poststop/0/timeout", 0, "minimum"),
        ("/hooks/poststop/0/timeout", 2147484, "maximum"),
        ("/process/consoleSize/width", 65536, "maximum"),
        ("/linux/devices/0/minor", 1 << 20, "maximum"),
        ("/linux/resources/devices/0/major", -2, "minimum"),
        ("/linux/personality", {}, "required"),
        ("/linux/memoryPolicy", {"nodes": "0"}, "required"),
        ("/process/env", None, "type"),
        ("/linux/timeOffsets/boottime/nanosecs", 1000000000, "maximum"),
        ("/windows", 3, "type"),
    ],
)
def test_one_thing_wrong(pointer: str, value: object, rule: str) -> None:
    found = errors(changed(pointer, value))
    assert rule in {f.rule for f in found}
    place = next(f.pointer for f in found if f.rule == rule)
    # At the value or at the part of it that is wrong; for two fields at odds, at either.
    assert (
        place.startswith(pointer)
        or pointer.startswith(place)
        or rule
        in (
            "name-without-uts",
            "time-offsets",
            "mappings-without-user",
            "scheduler-field",
        )
    )


def test_a_missing_root() -> None:
    document = small()
    del document["root"]
    assert [(f.pointer, f.rule) for f in errors(document)] == [("/root", "root-missing")]


def test_a_container_without_a_process_is_fine() -> None:
    document = small()
    del document["process"]
    assert errors(document) == []


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/linux/uidMappings", [dict(_MAP, size=4294967295)]),
        ("/linux/uidMappings", [_MAP, dict(_MAP, containerID=10, hostID=10)]),
        ("/ociVersion", "1.99.0"),
        ("/ociVersion", "1.3.0-rc.1+dev.2"),
        ("/linux/namespaces/3/path", "/proc/1/ns/user"),
        ("/linux/namespaces/0/path", ""),
        ("/linux/resources/memory/swap", -1),
        ("/linux/resources/pids/limit", -1),
        ("/linux/resources/cpu/quota", -1),
        ("/linux/resources/blockIO/weight", 0),
        ("/linux/resources/devices/0/major", -1),
        ("/linux/intelRdt/closID", "/"),
        ("/linux/netDevices", {"a": {"name": "eth%d"}, "b": {"name": "eth%d"}}),
        ("/linux/sysctl", {"net/ipv4/conf/eth0.100/rp_filter": "1"}),
        ("/linux/rootfsPropagation", "rslave"),
        ("/process/env/0", "A="),
        ("/process/rlimits/0/hard", (1 << 64) - 1),
        ("/hostname", ""),
        ("/mounts/0", {"destination": "/a", "options": ["remount", "ro"]}),
        ("/linux/seccomp", _NOTIFY),
        ("/linux/seccomp", {**_NOTIFY, **_KILL, "syscalls": [*_ASKED, *_HANDED]}),
        ("/linux/seccomp", {**_SECCOMP, "listenerPath": "ignored without SCMP_ACT_NOTIFY"}),
        ("/linux/seccomp/syscalls/0/errnoRet", 65535),
    ],
)
def test_what_engines_may_write(pointer: str, value: object) -> None:
    assert errors(changed(pointer, value)) == []


def test_everything_at_once() -> None:
    document = {"ociVersion": "one", "hostname": 1, "process": {"cwd": "x", "args": []}}
    assert [f.pointer for f in errors(document)] == [
        "/hostname",
        "/ociVersion",
        "/process/args",
        "/process/cwd",
        "/root",
    ]


@pytest.mark.parametrize(
    ("pointer", "value", "rule"),
    [
        ("/annotations/org.systemd.property.X1", "1", "annotation-property"),
        ("/annotations/org.systemd.property.TimeoutStopUSec", "ten", "annotation-value"),
        ("/process/capabilities/bounding/0", "CAP_NEW", "capability-unknown"),
        ("/mounts/0/destination", "proc", "mount-destination-relative"),
        ("/linux/intelRdt/l3CacheSchema", "MB:0=20", "rdt-l3"),
    ],
)
def test_warnings(pointer: str, value: str, rule: str) -> None:
    report = check_document(json.dumps(changed(pointer, value)).encode(), "c", Kind.CONFIG)
    assert report.errors == ()
    assert [(w.pointer, w.rule) for w in report.warnings] == [(pointer, rule)]


def test_a_finding_says_where_what_and_what_else() -> None:
    (finding,) = errors(changed("/linux/rootfsPropagation", "none"))
    assert str(finding).startswith(
        '/linux/rootfsPropagation: isn\'t a known value, found "none", allowed: private, shared'
    )


@pytest.mark.parametrize(
    ("change", "pointer", "rule"),
    [
        ({"pid": 0}, "/pid", "state-pid"),
        ({"bundle": "b"}, "/bundle", "state-bundle"),
        ({"status": "gone"}, "/status", "enum"),
        ({"pid": -1}, "/pid", "minimum"),
    ],
)
def test_states(change: dict[str, object], pointer: str, rule: str) -> None:
    state = {"ociVersion": "1.3.0", "id": "a", "status": "running", "bundle": "/b", "pid": 3}
    assert check_document(json.dumps(state).encode(), "s", Kind.STATE).errors == ()
    report = check_document(json.dumps(state | change).encode(), "s", Kind.STATE)
    assert [(f.pointer, f.rule) for f in report.errors] == [(pointer, rule)]


def test_a_stopped_container_has_no_pid() -> None:
    state = {"ociVersion": "1.3.0", "id": "a", "status": "stopped", "bundle": "/b"}
    assert check_document(json.dumps(state).encode(), "s", Kind.STATE).errors == ()


def rule_ids() -> set[str]:
    """Return every id that a rule reports under, or the loader."""
    sources = [*(CHECKOUT / "ocirt/spec").glob("rules*.py"), CHECKOUT / "ocirt/spec/load.py"]
    text = "".join(path.read_text() for path in sources)
    return {name for name in re.findall(r'"([a-z]+(?:-[a-z]+)+)"', text) if name != "utf-8"} | {
        "cwd",
        "env",
    }


def test_every_rule_is_documented() -> None:
    page = (CHECKOUT / "docs/validation.md").read_text()
    assert {name for name in rule_ids() if f"`{name}`" not in page} == set()


def test_every_rule_has_a_test() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    untested = {name for name in rule_ids() if f'"{name}"' not in tests}
    # The loader's own, which test_spec_load.py knows by their words.
    assert untested == {"duplicate-key", "surrogate"} & untested
