# SPDX-License-Identifier: GPL-3.0-or-later
"""features.md: what `features` prints. The operation is optional: without it, nothing to test."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conformance.probe import assert_create_and_start_work, text, try_create
from conformance.requirement import Level, requirement
from tests.harness import Container, Runtime

must = partial(requirement, "features.md", level=Level.MUST)
must_not = partial(requirement, "features.md", level=Level.MUST_NOT)
should = partial(requirement, "features.md", level=Level.SHOULD)
should_not = partial(requirement, "features.md", level=Level.SHOULD_NOT)

# The version of the specification in which a property appeared; the others are from the
# structure's first, 1.1.
SINCE = {
    "potentiallyUnsafeConfigAnnotations": (1, 2),
    "linux.mountExtensions": (1, 2),
    "linux.netDevices": (1, 3),
    "linux.memoryPolicy": (1, 3),
    "linux.intelRdt.schemata": (1, 3),
    "linux.intelRdt.monitoring": (1, 3),
}
FIRST = (1, 1)
FILESYSTEM_OPTIONS = {"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "newinstance"}


@pytest.fixture
def features(runtime: Runtime) -> dict[str, Any]:
    """The document; a runtime needn't have one."""
    result = runtime.call("features")
    if result.status != 0:
        pytest.skip("has no features operation, which is optional")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def number(version: str) -> tuple[int, ...]:
    """Return 1.2 of "1.2.0-rc.1" as numbers."""
    found = re.match(r"(\d+)\.(\d+)\.", version)
    assert found, f"not a semantic version: {version!r}"
    return tuple(int(part) for part in found.groups())


def values(value: object) -> list[object]:
    """Return a document's values, all the way down."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value, *[below for entry in inner for below in values(entry)]]


@should("Features Structure", 4, says="it doesn't depend on the machine it is asked on")
def test_independent_of_the_host(
    runtime: Runtime, directory: Path, features: dict[str, Any]
) -> None:
    script = directory / "elsewhere"
    hide = "mount -t tmpfs none /sys; mount -t tmpfs none /boot"
    run = f'exec {runtime.executable} "$@"'
    script.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{hide}; {run}' sh \"$@\"\n")
    script.chmod(0o755)
    elsewhere = Runtime(str(script), runtime.root).call("features").checked()
    again = json.loads(elsewhere.stdout)
    for document in (features, again):
        # The one list that may differ (features-linux.md).
        document.get("linux", {}).get("seccomp", {}).pop("supportedFlags", None)
    assert again == features


@must_not("Features Structure", 6, says="null isn't used for an empty value")
def test_no_null(features: dict[str, Any]) -> None:
    assert None not in values(features)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("ociVersionMin", marks=must("Specification version", 2, says="is accepted")),
        pytest.param("ociVersionMax", marks=must("Specification version", 4, says="is accepted")),
    ],
)
def test_versions(container: Container, features: dict[str, Any], name: str) -> None:
    container.bundle.set("/ociVersion", features[name])
    assert_create_and_start_work(container)


@must_not("Specification version", 5, says="the maximum isn't below the minimum")
def test_version_order(features: dict[str, Any]) -> None:
    assert number(features["ociVersionMin"]) <= number(features["ociVersionMax"])


@must_not("Specification version", 6, says="no property is newer than the maximum version")
@pytest.mark.right("the structure came with 1.1; the peer that has one calls itself older")
def test_no_newer_property(features: dict[str, Any]) -> None:
    highest = number(features["ociVersionMax"])
    assert highest >= FIRST, "the structure itself is newer"
    for path, since in SINCE.items():
        value: Any = features
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        assert value is None or since <= highest, path


@must("Hooks", 2, says="the hooks that it lists run")
def test_hooks(container: Container, features: dict[str, Any]) -> None:
    if not features.get("hooks"):
        pytest.skip("lists no hooks")
    log = container.bundle.directory / "log"
    container.config["hooks"] = {}
    for kind in features["hooks"]:
        place = f"/{kind}" if kind == "startContainer" else log
        entry = {"path": "/bin/sh", "args": ["sh", "-c", f"echo {kind} >> {place}"]}
        container.config["hooks"][kind] = [entry]
    container.create()
    container.start()
    container.kill("KILL")
    container.wait_for("stopped")
    container.delete()
    ran = {*text(log).split(), *text(container.bundle.rootfs / "startContainer").split()}
    assert ran == set(features["hooks"])


@must("Mount Options", 2, says="the mount options that it lists are known")
@pytest.mark.right(
    "what is listed must be accepted; each option is used alone, on a tmpfs or a bind"
)
def test_mount_options(container: Container, features: dict[str, Any]) -> None:
    if not features.get("mountOptions"):
        pytest.skip("lists no mount options")
    container.bundle.file("/source/file", "")
    mounts = container.config["mounts"]
    refused = []
    for option in features["mountOptions"]:
        # Options about an existing mount, and id maps, are others' tests: they need more than this.
        if option in ("remount", "idmap", "ridmap"):
            continue
        entry: dict[str, Any] = {"destination": "/data", "type": "tmpfs", "source": "t"}
        entry["options"] = [option]
        if option.startswith("r") and option not in ("ro", "rw", "relatime"):
            entry = {"destination": "/data", "source": str(container.bundle.rootfs / "source")}
            entry["options"] = ["rbind", option]
        elif option == "bind":
            entry["source"] = str(container.bundle.rootfs / "source")
        container.config["mounts"] = [*mounts, entry]
        result = try_create(container)
        if result.status:
            refused.append(f"{option}: {result.stderr}")
        container.runtime.call("delete", "--force", container.id)
    assert not refused


@should_not("Mount Options", 3, says="file systems' own options aren't listed")
def test_no_filesystem_options(features: dict[str, Any]) -> None:
    listed = {option.partition("=")[0] for option in features.get("mountOptions") or []}
    assert not listed & FILESYSTEM_OPTIONS


@must("Annotations", 3, says="annotations are strings by name")
def test_annotations(features: dict[str, Any]) -> None:
    annotations = features.get("annotations") or {}
    assert isinstance(annotations, dict)
    assert all(key and isinstance(value, str) for key, value in annotations.items())
