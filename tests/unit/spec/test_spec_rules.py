# SPDX-License-Identifier: GPL-3.0-or-later
"""Each rule and each kind of schema error: a document that breaks it, and where it is reported."""

from __future__ import annotations

import json

import pytest

from ocirt.errors import Finding
from ocirt.spec.validate import Kind, check_document
from tests.unit.spec.samples import changed, rich, small

_MAP = {"containerID": 0, "hostID": 0, "size": 10}
_LIMIT = {"type": "RLIMIT_CORE", "soft": 1, "hard": 1}
_SECCOMP = {"defaultAction": "SCMP_ACT_ALLOW"}


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
        ("/ociVersion", "2.0.0", "oci-major-version"),
        ("/ociVersion", "0.9.0", "oci-major-version"),
        ("/mounts/0", {"destination": "/a", "options": ["bind"]}, "mount-source"),
        ("/mounts/0", {"destination": "/a"}, "mount-type"),
        ("/mounts/0", {"destination": "/a", "type": "t", "uidMappings": []}, "mount-mappings"),
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
        ("/linux/sysctl", {"net..x": "1"}, "sysctl-name"),
        ("/linux/sysctl", {"../etc/x": "1"}, "sysctl-name"),
        ("/linux/devices/0/path", "dev/x", "device-path"),
        ("/linux/devices/0", {"type": "b", "path": "/dev/x"}, "device-numbers"),
        ("/linux/netDevices", {"eth0": {"name": "a/b"}}, "net-device-name"),
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
        ("/linux/resources/unified", {"a/b": "1"}, "unified-name"),
        ("/linux/seccomp", {**_SECCOMP, "listenerMetadata": "x"}, "seccomp-metadata"),
        ("/linux/seccomp", {**_SECCOMP, "defaultErrnoRet": 1}, "seccomp-errno"),
        ("/linux/seccomp/syscalls/0/errnoRet", 1, "seccomp-errno"),
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


def test_usual_id_maps() -> None:
    document = changed("/linux/uidMappings", [dict(_MAP, size=4294967295)])
    assert errors(document) == []


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
        ("/process/capabilities/bounding/0", "CAP_NEW", "capability-unknown"),
        ("/mounts/0/destination", "proc", "mount-destination-relative"),
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
