# SPDX-License-Identifier: GPL-3.0-or-later
"""config.md but for mount options and hooks; runtime-linux.md."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conformance.probe import (
    assert_create_and_start_work,
    assert_create_refused,
    mount_at,
    text,
)
from conformance.requirement import Level, requirement
from tests.harness import Container, Runtime

must = partial(requirement, "config.md", level=Level.MUST)
must_not = partial(requirement, "config.md", level=Level.MUST_NOT)
should = partial(requirement, "config.md", level=Level.SHOULD)
should_not = partial(requirement, "config.md", level=Level.SHOULD_NOT)

INVALID_WHY = '"Valid values": a runtime must refuse an invalid value; this one is said to be'


@must("Specification version", 1, says="ociVersion is a semantic version")
@pytest.mark.right(INVALID_WHY + " not a semantic version")
@pytest.mark.parametrize("version", ["", "1", "1.0", "invalid", "1.0.0.0"])
def test_oci_version(container: Container, version: str) -> None:
    container.bundle.set("/ociVersion", version)
    assert_create_refused(container)


@must("Root", 10, says="root.path is a directory that exists")
@pytest.mark.parametrize("path", ["no-such-directory", "config.json"])
def test_root_path(container: Container, path: str) -> None:
    container.bundle.set("/root/path", path)
    assert_create_refused(container)


@must("Root", 11, says="a readonly root is read-only inside")
def test_root_readonly(container: Container) -> None:
    container.bundle.set("/root/readonly", True)
    assert container.inside("touch /new 2>/dev/null && echo written; true") == ""
    assert not (container.bundle.rootfs / "new").exists()


@must("Root", 11, says="a root is writable by default")
def test_root_writable(container: Container) -> None:
    container.bundle.remove("/root/readonly")
    container.inside("touch /new")
    assert (container.bundle.rootfs / "new").exists()


@must("Mounts", 2, says="mounts are made in the listed order")
def test_mount_order(container: Container) -> None:
    for directory in ("/a", "/a/b"):
        options = [f"size={64 if directory == '/a' else 128}k"]
        entry = {"destination": directory, "type": "tmpfs", "source": "t", "options": options}
        container.bundle.set("/mounts/-", entry)
    container.bundle.set(
        "/mounts/-",
        {"destination": "/a/b", "type": "tmpfs", "source": "last", "options": ["size=256k"]},
    )
    container.create()
    assert mount_at(container.pid, "/a/b").source == "last"
    assert mount_at(container.pid, "/a").filesystem_options.count("size=64k") == 1


@must("Mounts", 8, says="a relative destination is relative to /")
def test_relative_destination(container: Container) -> None:
    container.bundle.set("/mounts/-", {"destination": "data", "type": "tmpfs", "source": "here"})
    container.create()
    assert mount_at(container.pid, "/data").source == "here"


@should("Linux mount options", 83, says="unknown options are mount(2)'s data")
def test_filesystem_options(container: Container) -> None:
    options = ["size=64k", "nr_inodes=100"]
    entry = {"destination": "/data", "type": "tmpfs", "source": "t", "options": options}
    container.bundle.set("/mounts/-", entry)
    container.create()
    assert {"size=64k", "nr_inodes=100"} <= set(mount_at(container.pid, "/data").filesystem_options)


@should("Linux mount options", 83, says="a file system may refuse its options")
def test_wrong_filesystem_option(container: Container) -> None:
    entry = {"destination": "/data", "type": "tmpfs", "source": "t", "options": ["no-such=1"]}
    container.bundle.set("/mounts/-", entry)
    assert_create_refused(container)


@must("POSIX-platform Mounts", 10, says="uidMappings come with gidMappings")
@pytest.mark.right(INVALID_WHY + " incomplete")
def test_uid_mappings_alone(container: Container, directory: Path) -> None:
    _mount_with(container, directory, "uidMappings")
    assert_create_refused(container)


@must("POSIX-platform Mounts", 15, says="gidMappings come with uidMappings")
@pytest.mark.right(INVALID_WHY + " incomplete")
def test_gid_mappings_alone(container: Container, directory: Path) -> None:
    _mount_with(container, directory, "gidMappings")
    assert_create_refused(container)


def _mount_with(container: Container, directory: Path, mappings: str) -> None:
    entry = {
        "destination": "/data",
        "source": str(directory),
        "options": ["bind", "idmap"],
        mappings: [{"containerID": 0, "hostID": 1000, "size": 10}],
    }
    container.bundle.set("/mounts/-", entry)


@must("Process", 6, says="consoleSize is ignored without a terminal")
def test_console_size(container: Container) -> None:
    container.bundle.set("/process/consoleSize", {"height": 25, "width": 80})
    assert_create_and_start_work(container)


@must("Process", 10, says="cwd is absolute")
@pytest.mark.parametrize("cwd", ["bin", ".", ""])
def test_relative_cwd(container: Container, cwd: str) -> None:
    container.bundle.set("/process/cwd", cwd)
    assert_create_refused(container)


@must("POSIX process", 7, says="an unknown rlimit is an error")
@pytest.mark.parametrize("kind", ["RLIMIT_NO_SUCH", "NOFILE", ""])
def test_unknown_rlimit(container: Container, kind: str) -> None:
    container.bundle.set("/process/rlimits", [{"type": kind, "soft": 1, "hard": 1}])
    assert_create_refused(container)


RLIMITS = {"NOFILE": "open files", "CORE": "core file size", "STACK": "stack size"}


@must("POSIX process", 8, says="each rlimit can be asked for")
@must("POSIX process", 11, says="the soft limit is the configured one")
@must("POSIX process", 13, says="the hard limit is the configured one")
@pytest.mark.parametrize("kind", RLIMITS)
def test_rlimit(container: Container, kind: str) -> None:
    soft, hard = (100, 200) if kind != "STACK" else (1 << 20, 2 << 20)
    limit = {"type": f"RLIMIT_{kind}", "soft": soft, "hard": hard}
    container.bundle.set("/process/rlimits", [limit])
    lines = container.inside("cat /proc/self/limits").splitlines()
    (line,) = [line for line in lines if line.startswith(f"Max {RLIMITS[kind]}")]
    assert line.removeprefix(f"Max {RLIMITS[kind]}").split()[:2] == [str(soft), str(hard)]


@must("POSIX process", 15, says="an rlimit twice is an error")
@pytest.mark.right("the sentence names just this case")
def test_rlimit_twice(container: Container) -> None:
    limit = {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}
    container.bundle.set("/process/rlimits", [limit, limit | {"soft": 50}])
    assert_create_refused(container)


@must("Linux Process", 6, says="an unknown capability is logged as a warning")
@pytest.mark.right("it must be a warning, so create succeeds, and the capability is named")
def test_unknown_capability(container: Container, directory: Path) -> None:
    for kind in ("bounding", "effective", "permitted"):
        container.bundle.set(f"/process/capabilities/{kind}/-", "CAP_NO_SUCH")
    container.bundle.save()
    log = directory / "log"
    place = str(container.bundle.directory)
    result = container.runtime.call(
        "--log", str(log), "create", "--bundle", place, container.id
    ).checked()
    assert "CAP_NO_SUCH" in result.stderr + text(log)


@should_not("Linux Process", 7, says="a capability that can't be granted is no failure")
@pytest.mark.right("a restricted environment is the sentence's own example")
def test_capability_out_of_reach(container: Container, directory: Path) -> None:
    # The runtime runs without one of its own capabilities.
    less = directory / "runtime"
    words = f"setpriv --bounding-set=-wake_alarm {container.runtime.executable}"
    less.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    less.chmod(0o755)
    limited = Runtime(str(less), container.runtime.root)
    for kind in ("bounding", "effective", "permitted"):
        container.bundle.set(f"/process/capabilities/{kind}/-", "CAP_WAKE_ALARM")
    limited.create(container.id, container.bundle)
    limited.start(container.id)


@must("Linux Process", 17, says="oomScoreAdj is set")
def test_oom_score(container: Container) -> None:
    container.bundle.set("/process/oomScoreAdj", 321)
    assert container.inside("cat /proc/self/oom_score_adj") == "321"


@must_not("Linux Process", 18, says="without oomScoreAdj the value stays")
def test_oom_score_unset(container: Container) -> None:
    assert (
        container.inside("cat /proc/self/oom_score_adj")
        == text(Path("/proc/self/oom_score_adj")).strip()
    )


@should_not("Linux Process", 70, says="without execCPUAffinity.final the affinity is the cgroup's")
def test_exec_affinity(container: Container) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    last = str(max(os.sched_getaffinity(0)))
    container.bundle.set("/linux/resources", {"cpu": {"cpus": last, "mems": "0"}})
    container.create()
    container.start()
    result = container.runtime.call(
        "exec", container.id, "/bin/grep", "Cpus_allowed_list", "/proc/self/status"
    ).checked()
    assert result.stdout.split()[-1] == last


@must("Annotations", 3, says="annotations are a map")
@must("Annotations", 36, says="an annotation's value is a string")
@pytest.mark.parametrize("value", [["a"], {"org.example": 1}, {"org.example": ["a"]}])
def test_invalid_annotations(container: Container, value: object) -> None:
    container.config["annotations"] = value
    assert_create_refused(container)


@must("Annotations", 5, says="an annotation's key is a string, empty is invalid")
@must_not("Annotations", 6, says="an annotation's key is empty")
@pytest.mark.right(INVALID_WHY + " not allowed")
def test_empty_annotation_key(container: Container) -> None:
    container.config["annotations"] = {"": "value"}
    assert_create_refused(container)


@must("Annotations", 35, says="unknown annotations are ignored")
def test_unknown_annotation(container: Container) -> None:
    container.config["annotations"] = {"org.example.unknown": "", "no-dots": "x"}
    assert_create_and_start_work(container)


@must("Extensibility", 1, says="unknown properties are ignored")
@pytest.mark.parametrize("where", ["", "/process", "/linux", "/linux/namespaces/0", "/mounts/0"])
def test_unknown_property(container: Container, where: str) -> None:
    container.bundle.set(f"{where}/noSuchProperty", {"a": ["b", 1]})
    assert_create_and_start_work(container)


# Pointer, value; the first is replaced by the second.
INVALID: list[tuple[str, Any]] = [
    ("/process/args", []),
    ("/process/user/uid", -1),
    ("/process/user/uid", "root"),
    ("/process/env/0", 1),
    ("/process/noNewPrivileges", "yes"),
    ("/root/readonly", "yes"),
    ("/linux/namespaces/0/type", "nosuch"),
    ("/linux/rootfsPropagation", "nosuch"),
    ("/linux/seccomp", {"defaultAction": "SCMP_ACT_NO_SUCH"}),
    ("/linux/devices", [{"path": "/dev/x", "type": "z", "major": 1, "minor": 3}]),
    ("/linux/personality", {"domain": "NO_SUCH"}),
    ("/hostname", ["a"]),
]


@must("Valid values", 1, says="an invalid value is an error")
@pytest.mark.right("each is outside of what config.md and config-linux.md list or of its type")
@pytest.mark.parametrize("pointer, value", INVALID, ids=[f"{p}={v!r}"[:40] for p, v in INVALID])
def test_invalid_value(container: Container, pointer: str, value: object) -> None:
    container.bundle.set(pointer, value)
    assert_create_refused(container)


@must("Valid values", 1, says="a config.json that isn't JSON is an error")
def test_not_json(container: Container) -> None:
    (container.bundle.directory / "config.json").write_text('{"ociVersion": ')
    place = str(container.bundle.directory)
    assert container.runtime.call("create", "--bundle", place, container.id).status > 0


@requirement(
    "runtime-linux.md",
    "Dev symbolic links",
    1,
    level=Level.MUST,
    says="/dev has fd, stdin, stdout and stderr",
)
def test_dev_links(container: Container) -> None:
    script = "for name in fd stdin stdout stderr; do readlink /dev/$name; done"
    links = container.inside(script).split()
    assert links == ["/proc/self/fd", *[f"/proc/self/fd/{number}" for number in range(3)]]
