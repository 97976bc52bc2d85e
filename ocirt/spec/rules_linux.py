# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules on linux of config.json (config-linux.md), but for its resources."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ocirt.spec.load import escape
from ocirt.spec.names import RESCTRL_NAMES
from ocirt.spec.report import Json, Result, error, relative, twice, warning

_SYSCTL = re.compile(r"[A-Za-z0-9_*-]+([./][A-Za-z0-9_*:.-]+)+")
_CLOCKS = ("monotonic", "boottime")  # time_namespaces(7)
_UINT32 = 1 << 32
_MAP_LINES = 340  # user_namespaces(7)
_IFNAMSIZ = 16  # linux/if.h, with the NUL byte
# The actions with a number, and the greatest. The kernel takes 4095, libseccomp less than that.
_LARGEST_ERRNO = {"SCMP_ACT_ERRNO": 4094, "SCMP_ACT_TRACE": 65535}
# What the stub does under a filter with a listener, and the actions that let it.
_HAND_OVER = {
    "sendmsg": ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"),
    "read": ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY"),
}


def namespaces(linux: Json) -> Iterator[Result]:
    """Check the list of namespaces, and what only goes with one of them."""
    listed = linux.get("namespaces", [])
    pointer = "/linux/namespaces"
    words = "is a second namespace of this type"
    yield from twice(listed, pointer, "namespace-twice", words, lambda n: n["type"])
    for index, entry in enumerate(listed):
        if path := entry.get("path"):
            yield from relative(path, f"{pointer}/{index}/path", "namespace-path")
    if offsets := linux.get("timeOffsets"):
        if not any(n["type"] == "time" and not n.get("path") for n in listed):
            yield error("/linux/timeOffsets", "time-offsets", "needs a new time namespace")
        for clock in offsets.keys() - set(_CLOCKS):
            where = f"/linux/timeOffsets/{escape(clock)}"
            allowed = ", ".join(_CLOCKS)
            yield error(where, "time-offset-clock", "has no offset", clock, allowed)


def user_mappings(linux: Json) -> Iterator[Result]:
    """Check uidMappings and gidMappings with the user namespace they are for."""
    users = [n for n in linux.get("namespaces", []) if n["type"] == "user"]
    for name in ("uidMappings", "gidMappings"):
        mapped = linux.get(name, [])
        pointer = f"/linux/{name}"
        if mapped and not users:
            yield error(pointer, "mappings-without-user", "need a user namespace")
        if not mapped and users and not users[0].get("path"):
            yield error(pointer, "mappings-missing", "are missing for a new user namespace")
        yield from mappings(mapped, pointer)


def mapped_users(document: Json) -> Iterator[Result]:
    """Check that a new user namespace has its root, and those that the program is to be."""
    linux = document.get("linux", {})
    users = [n for n in linux.get("namespaces", []) if n["type"] == "user"]
    if not users or users[0].get("path"):
        return
    user = document.get("process", {}).get("user", {})
    wanted = (
        ("uidMappings", [("/process/user/uid", user.get("uid", 0))]),
        (
            "gidMappings",
            [
                ("/process/user/gid", user.get("gid", 0)),
                *(
                    (f"/process/user/additionalGids/{index}", gid)
                    for index, gid in enumerate(user.get("additionalGids", []))
                ),
            ],
        ),
    )
    for name, ids in wanted:
        mapped = linux.get(name, [])
        if mapped and not _is_mapped(0, mapped):
            message = "has no entry with containerID 0: the container needs a root"
            yield error(f"/linux/{name}", "mappings-root", message)
        for pointer, number in ids:
            if mapped and number and not _is_mapped(number, mapped):
                message = f"isn't mapped in the container's user namespace (/linux/{name})"
                yield error(pointer, "user-not-mapped", message, number)


def _is_mapped(number: int, mapped: list[Json]) -> bool:
    return any(0 <= number - m["containerID"] < m["size"] for m in mapped)


def mappings(mapped: list[Json], pointer: str) -> Iterator[Result]:
    """Check a map of ids as the kernel would, which only says EINVAL (user_namespaces(7))."""
    if len(mapped) > _MAP_LINES:
        allowed = f"at most {_MAP_LINES}"
        yield error(pointer, "mappings-many", "are too many", len(mapped), allowed)
        return
    for side in ("containerID", "hostID"):
        taken: list[tuple[int, int]] = []
        for index, mapping in enumerate(mapped):
            first, end = mapping[side], mapping[side] + mapping["size"]
            where = f"{pointer}/{index}"
            if end > _UINT32:
                message = f"goes beyond the last id by its {side} + size"
                yield error(where, "mapping-range", message, end, f"at most {_UINT32}")
            if any(first < other_end and other < end for other, other_end in taken):
                message = f"overlaps an earlier mapping by its {side}"
                yield error(where, "mapping-overlap", message)
            taken.append((first, end))


def devices(linux: Json) -> Iterator[Result]:
    """Check device nodes."""
    for index, device in enumerate(linux.get("devices", [])):
        pointer = f"/linux/devices/{index}"
        yield from relative(device["path"], f"{pointer}/path", "device-path")
        if device["type"] != "p" and not {"major", "minor"} <= device.keys():
            message = "needs major and minor"
            yield error(pointer, "device-numbers", message, device["type"])


def net_devices(linux: Json) -> Iterator[Result]:
    """Check the names of network devices, on the host and in the container."""
    wanted = linux.get("netDevices", {})
    taken: set[str] = set()
    for name, device in wanted.items():
        pointer = f"/linux/netDevices/{escape(name)}"
        inside = device.get("name") or name
        for value in dict.fromkeys((name, inside)):
            if not _names_interface(value):
                yield error(pointer, "net-device-name", "isn't an interface's name", value)
        if inside in taken and "%d" not in inside:
            yield error(pointer, "net-device-twice", "is a second one of this name", inside)
        taken.add(inside)


def _names_interface(name: str) -> bool:
    """Whether the kernel takes it: dev_valid_name() in net/core/dev.c."""
    fits = 0 < len(name.encode()) < _IFNAMSIZ and name not in (".", "..")
    return fits and not any(c in "/:" or c.isspace() for c in name)


def paths(linux: Json) -> Iterator[Result]:
    """Check what becomes a path: masks and sysctls."""
    for name in ("maskedPaths", "readonlyPaths"):
        for index, path in enumerate(linux.get(name, [])):
            yield from relative(path, f"/linux/{name}/{index}", "path-relative")
    for key in linux.get("sysctl", {}):
        if not _SYSCTL.fullmatch(key) or ".." in key:
            where = f"/linux/sysctl/{escape(key)}"
            allowed = "such as net.ipv4.ip_forward"
            yield error(where, "sysctl-name", "isn't a sysctl's name", key, allowed)


def intel_rdt(rdt: Json) -> Iterator[Result]:
    """Check what becomes a directory of resctrl, and what is written into its schemata."""
    clos = rdt.get("closID", "/")
    if clos != "/" and ("/" in clos or clos in ("", ".", "..", *RESCTRL_NAMES)):
        allowed = "one name, or / for the default"
        yield error("/linux/intelRdt/closID", "rdt-clos", "isn't a directory's name", clos, allowed)
    for index, line in enumerate(rdt.get("schemata", [])):
        if "\n" in line:
            where = f"/linux/intelRdt/schemata/{index}"
            yield error(where, "rdt-schemata", "is more than one line", line)
    for line in rdt.get("l3CacheSchema", "").splitlines():
        if not line.startswith("L3"):
            message = "should begin with L3: (config-linux.md)"
            yield warning("/linux/intelRdt/l3CacheSchema", "rdt-l3", message, line)


def seccomp(profile: Json) -> Iterator[Result]:
    """Check which actions go with an errno, and what a listener needs."""
    at = "/linux/seccomp"
    calls = profile.get("syscalls", [])
    if profile.get("listenerMetadata") and not profile.get("listenerPath"):
        message = "has no meaning without listenerPath"
        yield error(f"{at}/listenerMetadata", "seccomp-metadata", message)
    default = profile["defaultAction"]
    yield from _errno(profile, "defaultErrnoRet", default, at)
    if default == "SCMP_ACT_NOTIFY":
        message = "would stop the container's first system call, with no one to answer it"
        yield error(f"{at}/defaultAction", "seccomp-notify", message, default)
    if any(call["action"] == "SCMP_ACT_NOTIFY" for call in calls):
        if path := profile.get("listenerPath"):
            yield from relative(path, f"{at}/listenerPath", "seccomp-listener")
        for name, good in _HAND_OVER.items():
            if not _allowed(profile, name, good):
                message = f"with SCMP_ACT_NOTIFY has to allow {name}: the listener takes it"
                yield error(at, "seccomp-hand-over", message, None, " or ".join(good))
    for index, call in enumerate(calls):
        where = f"{at}/syscalls/{index}"
        yield from _errno(call, "errnoRet", call["action"], where)
        if call["action"] == "SCMP_ACT_NOTIFY" and not profile.get("listenerPath"):
            message = "needs listenerPath"
            yield error(f"{where}/action", "seccomp-notify", message, call["action"])


def _allowed(profile: Json, name: str, good: tuple[str, ...]) -> bool:
    """Whether a system call gets one of these actions, whatever its arguments are."""
    rules = [call for call in profile.get("syscalls", []) if name in call["names"]]
    if any(call["action"] not in good for call in rules):
        return False
    return profile["defaultAction"] in good or any(not call.get("args") for call in rules)


def _errno(document: Json, name: str, action: str, at: str) -> Iterator[Result]:
    if name not in document:
        return
    where, number = f"{at}/{name}", document[name]
    if action not in _LARGEST_ERRNO:
        yield error(where, "seccomp-errno", f"can't go with {action}", number)
    elif number > _LARGEST_ERRNO[action]:
        allowed = f"at most {_LARGEST_ERRNO[action]}"
        yield error(where, "seccomp-errno", f"is too large for {action}", number, allowed)
