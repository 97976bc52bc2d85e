# SPDX-License-Identifier: GPL-3.0-or-later
"""What a schema can't say: rules between fields, on documents that match the schema.

docs/validation.md lists them with their reasons; a finding's rule is the id used there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Any

from ocirt.errors import Finding
from ocirt.spec.load import escape, strings
from ocirt.spec.names import CAPABILITIES

Json = dict[str, Any]


class Severity(StrEnum):
    """An error refuses the document; a warning is logged."""

    ERROR = "error"
    WARNING = "warning"


Result = tuple[Severity, Finding]
_Rule = Callable[[Json], Iterable[Result]]

# semver.org, 2.0.0; only the shape matters here.
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?"
)
_SYSCTL = re.compile(r"[A-Za-z0-9_*-]+([./][A-Za-z0-9_*:.-]+)+")

_UINT32 = 1 << 32
_HOST_NAME_MAX = 64  # the kernel's __NEW_UTS_LEN
_MAP_LINES = 340  # user_namespaces(7)
_HOOKS = (
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
)


def check_config(document: Json, *, typed: bool = True) -> list[Result]:
    """Apply every rule to a config.json.

    typed says that it matches the schema. Otherwise a rule that meets a value of another type
    gives up: the schema has reported that value, and the other rules still say what they find.
    """
    return _apply(_CONFIG, document, typed=typed)


def check_process(document: Json, *, typed: bool = True) -> list[Result]:
    """Apply the rules to a process.json."""
    return _apply((_no_nul, lambda d: _process(d, "")), document, typed=typed)


def check_resources(document: Json, *, typed: bool = True) -> list[Result]:
    """Apply the rules to the resources that update takes."""
    return _apply((_no_nul, lambda d: _resources(d, "")), document, typed=typed)


def _apply(rules: Iterable[_Rule], document: Json, *, typed: bool) -> list[Result]:
    results: list[Result] = []
    for rule in rules:
        try:
            results.extend(rule(document))
        except (TypeError, KeyError, AttributeError, ValueError):
            if typed:
                raise
    return results


def _error(
    pointer: str, rule: str, message: str, found: object = None, allowed: str = ""
) -> Result:
    shown = "" if found is None else json.dumps(found, ensure_ascii=False)
    return Severity.ERROR, Finding(pointer, message, shown, allowed, rule)


def _warning(pointer: str, rule: str, message: str, found: object = None) -> Result:
    shown = "" if found is None else json.dumps(found, ensure_ascii=False)
    return Severity.WARNING, Finding(pointer, message, shown, "", rule)


def _twice(
    items: Iterable[Json], pointer: str, rule: str, words: str, key: Callable[[Json], object]
) -> Iterator[Result]:
    """Report every item whose key an earlier one has."""
    seen: set[object] = set()
    for index, item in enumerate(items):
        name = key(item)
        if name in seen:
            yield _error(f"{pointer}/{index}", rule, words, name)
        seen.add(name)


def _no_nul(document: Json) -> Iterator[Result]:
    for pointer, text in strings(document):
        if "\0" in text:
            yield _error(pointer, "nul-byte", "has a NUL byte, which ends a string in the kernel")


def _version(document: Json) -> Iterator[Result]:
    version = document.get("ociVersion", "1.0.0")
    match = _SEMVER.fullmatch(version)
    if match is None:
        allowed = "a version of runtime-spec such as 1.3.0 (semver.org)"
        yield _error("/ociVersion", "oci-version", "isn't a version", version, allowed)
    elif match[1] != "1":
        allowed = "1.x.y: another major version may mean something else by every field"
        yield _error("/ociVersion", "oci-major-version", "can't be read", version, allowed)


def _root(document: Json) -> Iterator[Result]:
    if "root" not in document:
        yield _error("/root", "root-missing", "is missing; a container on Linux needs a rootfs")


def _mounts(mounts: list[Json]) -> Iterator[Result]:
    for index, mount in enumerate(mounts):
        pointer = f"/mounts/{index}"
        options = mount.get("options", [])
        if not mount["destination"].startswith("/"):
            yield _warning(
                f"{pointer}/destination",
                "mount-destination-relative",
                "is relative (deprecated); it is taken to start at /",
                mount["destination"],
            )
        is_bind = mount.get("type") == "bind" or "bind" in options or "rbind" in options
        if is_bind and not mount.get("source"):
            yield _error(f"{pointer}/source", "mount-source", "is missing for a bind mount")
        if not is_bind and not mount.get("type") and "remount" not in options:
            yield _error(f"{pointer}/type", "mount-type", "is missing, and it isn't a bind mount")
        if ("uidMappings" in mount) != ("gidMappings" in mount):
            message = "has one of uidMappings and gidMappings; both are needed, or neither"
            yield _error(pointer, "mount-mappings", message)


def _hooks(hooks: Json) -> Iterator[Result]:
    for kind in _HOOKS:
        for index, hook in enumerate(hooks.get(kind, [])):
            pointer = f"/hooks/{kind}/{index}"
            if not hook["path"].startswith("/"):
                yield _error(
                    f"{pointer}/path", "hook-path", "is relative", hook["path"], "an absolute path"
                )
            yield from _environment(hook.get("env", []), f"{pointer}/env")


def _annotations(annotations: Json) -> Iterator[Result]:
    if "" in annotations:
        yield _error("/annotations/", "annotation-key", "is an empty key")


def _names(document: Json, linux: Json) -> Iterator[Result]:
    has_uts = any(n["type"] == "uts" for n in linux.get("namespaces", []))
    for name in ("hostname", "domainname"):
        value = document.get(name)
        if not value:
            continue
        if not has_uts:
            message = "would rename the host: the container has no uts namespace"
            yield _error(f"/{name}", "name-without-uts", message, value)
        if len(value.encode()) > _HOST_NAME_MAX:
            allowed = f"at most {_HOST_NAME_MAX} bytes"
            yield _error(f"/{name}", "name-length", "is too long", value, allowed)


def _namespaces(linux: Json) -> Iterator[Result]:
    namespaces = linux.get("namespaces", [])
    pointer = "/linux/namespaces"
    words = "is a second namespace of this type"
    yield from _twice(namespaces, pointer, "namespace-twice", words, lambda n: n["type"])
    for index, entry in enumerate(namespaces):
        path = entry.get("path")
        if path and not path.startswith("/"):
            yield _error(
                f"{pointer}/{index}/path", "namespace-path", "is relative", path, "an absolute path"
            )
    new = {n["type"] for n in namespaces if not n.get("path")}
    if linux.get("timeOffsets") and "time" not in new:
        message = "needs a new time namespace"
        yield _error("/linux/timeOffsets", "time-offsets", message)


def _mappings(linux: Json) -> Iterator[Result]:
    users = [n for n in linux.get("namespaces", []) if n["type"] == "user"]
    for name in ("uidMappings", "gidMappings"):
        mappings = linux.get(name, [])
        pointer = f"/linux/{name}"
        if mappings and not users:
            yield _error(pointer, "mappings-without-user", "need a user namespace")
        if not mappings and users and not users[0].get("path"):
            yield _error(pointer, "mappings-missing", "are missing for a new user namespace")
        if len(mappings) > _MAP_LINES:
            allowed = f"at most {_MAP_LINES}"
            yield _error(pointer, "mappings-many", "are too many", len(mappings), allowed)
        yield from _ranges(mappings, pointer)


def _ranges(mappings: list[Json], pointer: str) -> Iterator[Result]:
    for side in ("containerID", "hostID"):
        taken: list[tuple[int, int]] = []
        for index, mapping in enumerate(mappings):
            first, end = mapping[side], mapping[side] + mapping["size"]
            if end > _UINT32:
                message = f"{side} + size goes beyond the last id"
                yield _error(f"{pointer}/{index}", "mapping-range", message, end, f"{_UINT32}")
            if any(first < other_end and other < end for other, other_end in taken):
                message = f"overlaps an earlier mapping by its {side}"
                yield _error(f"{pointer}/{index}", "mapping-overlap", message)
            taken.append((first, end))


def _linux(linux: Json) -> Iterator[Result]:
    for key in linux.get("sysctl", {}):
        if not _SYSCTL.fullmatch(key) or ".." in key:
            pointer = f"/linux/sysctl/{escape(key)}"
            yield _error(
                pointer, "sysctl-name", "isn't a sysctl's name", key, "net.ipv4.ip_forward"
            )
    for index, device in enumerate(linux.get("devices", [])):
        pointer = f"/linux/devices/{index}"
        if not device["path"].startswith("/"):
            yield _error(f"{pointer}/path", "device-path", "is relative", device["path"])
        if device["type"] != "p" and not {"major", "minor"} <= device.keys():
            message = "needs major and minor"
            yield _error(pointer, "device-numbers", message, device["type"])
    for name, device in linux.get("netDevices", {}).items():
        for value in (name, device.get("name", "eth0")):
            if not 0 < len(value.encode()) < 16 or "/" in value or value in (".", ".."):
                pointer = f"/linux/netDevices/{escape(name)}"
                yield _error(pointer, "net-device-name", "isn't an interface's name", value)
    for name in ("maskedPaths", "readonlyPaths"):
        for index, path in enumerate(linux.get(name, [])):
            if not path.startswith("/"):
                yield _error(f"/linux/{name}/{index}", "path-relative", "is relative", path)


def _process(process: Json, at: str) -> Iterator[Result]:
    if not process.get("args") and "commandLine" not in process:
        yield _error(f"{at}/args", "args-empty", "is empty: there is no program to run")
    elif process.get("args") and not process["args"][0]:
        yield _error(f"{at}/args/0", "args-empty", "is empty: there is no program to run")
    if not process["cwd"].startswith("/"):
        yield _error(f"{at}/cwd", "cwd", "is relative", process["cwd"], "an absolute path")
    yield from _environment(process.get("env", []), f"{at}/env")
    yield from _twice(
        process.get("rlimits", []),
        f"{at}/rlimits",
        "rlimit-twice",
        "is a second limit of this type",
        lambda limit: limit["type"],
    )
    for index, limit in enumerate(process.get("rlimits", [])):
        if limit["soft"] > limit["hard"]:
            allowed = f"at most hard ({limit['hard']})"
            pointer = f"{at}/rlimits/{index}/soft"
            yield _error(pointer, "rlimit-order", "is above hard", limit["soft"], allowed)
    for name, wanted in process.get("capabilities", {}).items():
        for index, capability in enumerate(wanted if isinstance(wanted, list) else ()):
            if capability not in CAPABILITIES:
                yield _warning(
                    f"{at}/capabilities/{name}/{index}",
                    "capability-unknown",
                    "isn't a capability that ocirt knows; it is left out",
                    capability,
                )


def _environment(entries: list[str], pointer: str) -> Iterator[Result]:
    for index, entry in enumerate(entries):
        if not entry.partition("=")[1] or entry.startswith("="):
            where = f"{pointer}/{index}"
            yield _error(where, "env", "isn't of the form NAME=value", entry, "NAME=value")


def _resources(resources: Json, at: str) -> Iterator[Result]:
    cpu = resources.get("cpu", {})
    burst, quota = cpu.get("burst"), cpu.get("quota")
    if burst and quota is not None and 0 < quota < burst:
        yield _error(f"{at}/cpu/burst", "cpu-burst", "is above quota", burst, f"at most {quota}")
    memory = resources.get("memory", {})
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit is not None and swap is not None and 0 < swap < limit:
        allowed = f"at least limit ({limit}), which it includes"
        yield _error(f"{at}/memory/swap", "memory-swap", "is below limit", swap, allowed)
    if resources.get("pids", {}).get("limit", 0) < -1:
        found = resources["pids"]["limit"]
        yield _error(
            f"{at}/pids/limit", "pids-limit", "is negative", found, "-1 (no limit) or more"
        )
    block = resources.get("blockIO", {})
    for name in ("weight", "leafWeight"):
        weight = block.get(name) or 0
        if weight and not 10 <= weight <= 1000:
            pointer = f"{at}/blockIO/{name}"
            yield _error(
                pointer, "blkio-weight", "is out of range", weight, "10 to 1000, 0 for none"
            )
    yield from _twice(
        resources.get("hugepageLimits", []),
        f"{at}/hugepageLimits",
        "hugepage-twice",
        "is a second limit for this page size",
        lambda limit: limit["pageSize"],
    )
    for key in resources.get("unified", {}):
        if "/" in key or key in ("", ".", ".."):
            pointer = f"{at}/unified/{escape(key)}"
            yield _error(pointer, "unified-name", "isn't the name of a cgroup file", key)


def _seccomp(seccomp: Json) -> Iterator[Result]:
    if seccomp.get("listenerMetadata") and not seccomp.get("listenerPath"):
        message = "has no meaning without listenerPath"
        yield _error("/linux/seccomp/listenerMetadata", "seccomp-metadata", message)
    takes_errno = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
    if "defaultErrnoRet" in seccomp and seccomp["defaultAction"] not in takes_errno:
        yield _error(
            "/linux/seccomp/defaultErrnoRet",
            "seccomp-errno",
            f"can't go with {seccomp['defaultAction']}",
            seccomp["defaultErrnoRet"],
        )
    for index, call in enumerate(seccomp.get("syscalls", [])):
        if "errnoRet" in call and call["action"] not in takes_errno:
            pointer = f"/linux/seccomp/syscalls/{index}/errnoRet"
            message = f"can't go with {call['action']}"
            yield _error(pointer, "seccomp-errno", message, call["errnoRet"])


_CONFIG: tuple[_Rule, ...] = (
    _no_nul,
    _version,
    _root,
    lambda d: _mounts(d.get("mounts", [])),
    lambda d: _hooks(d.get("hooks", {})),
    lambda d: _annotations(d.get("annotations", {})),
    lambda d: _names(d, d.get("linux", {})),
    lambda d: _namespaces(d.get("linux", {})),
    lambda d: _mappings(d.get("linux", {})),
    lambda d: _linux(d.get("linux", {})),
    lambda d: _process(d["process"], "/process") if "process" in d else (),
    lambda d: _resources(d.get("linux", {}).get("resources", {}), "/linux/resources"),
    lambda d: _seccomp(d["linux"]["seccomp"]) if "seccomp" in d.get("linux", {}) else (),
)
