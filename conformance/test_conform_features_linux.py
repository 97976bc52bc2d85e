# SPDX-License-Identifier: GPL-3.0-or-later
"""features-linux.md: what `features` says about Linux, the runtime takes in a config.json.

Where a list names what this machine can't do, that it is known shows in a container without it.
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conformance.probe import assert_create_refused, try_create
from conformance.requirement import Level, requirement
from conformance.test_conform_features import features
from conformance.test_conform_linux import NAMESPACES, map_ids, set_namespaces
from conformance.test_conform_seccomp import listen
from tests.harness import Container, proc

__all__ = ["features"]

must = partial(requirement, "features-linux.md", level=Level.MUST)


def listed(features: dict[str, Any], *keys: str) -> list[str]:
    """Return a list of the document below linux; skip the test where it has none."""
    found: Any = features.get("linux", {})
    for key in keys:
        found = found.get(key) or {} if isinstance(found, dict) else {}
    if not found:
        pytest.skip(f"lists no linux.{'.'.join(keys)}")
    return list(found)


def refused(container: Container, pointer: str, values: dict[str, Any]) -> dict[str, str]:
    """Create a container with each value at a place; return what was said to those refused."""
    said = {}
    for name, value in values.items():
        container.bundle.set(pointer, value)
        result = try_create(container)
        if result.status:
            said[name] = result.stderr
        container.runtime.call("delete", "--force", container.id)
    return said


@must("Namespaces", 2, says="the namespaces that it lists are known")
def test_namespaces(container: Container, features: dict[str, Any]) -> None:
    for kind in listed(features, "namespaces"):
        set_namespaces(container, *dict.fromkeys(("mount", "pid", kind)))
        if kind == "user":
            set_namespaces(container, "mount", "pid", "network", "ipc", "user")
            map_ids(container)
        container.create()
        name = NAMESPACES[kind]
        assert proc.namespace(container.pid, name) != proc.namespace("self", name)
        container.runtime.call("delete", "--force", container.id)
        for key in ("uidMappings", "gidMappings"):
            container.config["linux"].pop(key, None)


@must("Capabilities", 2, says="the capabilities that it lists are known")
def test_capabilities(container: Container, features: dict[str, Any]) -> None:
    names = listed(features, "capabilities")
    header = Path("/usr/include/linux/capability.h").read_text()
    bits = {n: int(b) for n, b in re.findall(r"#define (CAP_\w+)\s+(\d+)\n", header)}
    ours = int(proc.status("self")["CapBnd"], 16)
    wanted = [name for name in names if ours >> bits[name] & 1]
    assert wanted
    sets = dict.fromkeys(("bounding", "effective", "permitted"), tuple(wanted))
    container.bundle.set("/process/capabilities", sets)
    container.create()
    container.start()
    expected = sum(1 << bits[name] for name in wanted)
    assert int(proc.status(container.pid)["CapEff"], 16) == expected


def rule(**more: Any) -> dict[str, Any]:
    return {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", **more}


def profile(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules), **more}


@must("Seccomp", 5, says="the actions that it lists are known")
def test_actions(container: Container, features: dict[str, Any], directory: Path) -> None:
    actions = set(listed(features, "seccomp", "actions")) - {"SCMP_ACT_NOTIFY"}
    values = {a: profile(rule(action=a)) for a in actions - {"SCMP_ACT_ALLOW"}}
    values["SCMP_ACT_ALLOW"] = profile(rule(action="SCMP_ACT_ALLOW"), defaultAction="SCMP_ACT_LOG")
    assert not refused(container, "/linux/seccomp", values)
    if "SCMP_ACT_NOTIFY" in features["linux"]["seccomp"]["actions"]:
        agent = listen(container, directory / "agent")
        try:
            container.create()
            container.start()
        finally:
            agent.close()
        container.runtime.call("delete", "--force", container.id)
    container.bundle.set("/linux/seccomp", profile(rule(action="SCMP_ACT_NOSUCH")))
    assert_create_refused(container)


@must("Seccomp", 7, says="the operators that it lists are known")
def test_operators(container: Container, features: dict[str, Any]) -> None:
    operators = listed(features, "seccomp", "operators")

    def compare(op: str) -> dict[str, Any]:
        return profile(rule(args=[{"index": 0, "value": 7, "valueTwo": 7, "op": op}]))

    assert not refused(container, "/linux/seccomp", {op: compare(op) for op in operators})
    container.bundle.set("/linux/seccomp", compare("SCMP_CMP_NOSUCH"))
    assert_create_refused(container)


# seccomp_arch_add(3): one filter can't be for two byte orders.
BIG_ENDIAN = re.compile(r"SCMP_ARCH_(MIPS(64)?(N32)?|PPC(64)?|S390X?|M68K|PARISC(64)?|SHEB)")


@must("Seccomp", 9, says="the architectures that it lists are known")
def test_architectures(container: Container, features: dict[str, Any]) -> None:
    names = [n for n in listed(features, "seccomp", "archs") if not BIG_ENDIAN.fullmatch(n)]
    assert names
    values = {name: profile(rule(), architectures=[name]) for name in names}
    assert not refused(container, "/linux/seccomp", values)
    container.bundle.set("/linux/seccomp", profile(rule(), architectures=["SCMP_ARCH_NOSUCH"]))
    assert_create_refused(container)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("knownFlags", marks=must("Seccomp", 11, says="the flags it lists are known")),
        pytest.param(
            "supportedFlags",
            marks=must("Seccomp", 14, says="the flags it lists as supported are known and work"),
        ),
    ],
)
def test_flags(container: Container, features: dict[str, Any], key: str) -> None:
    flags = listed(features, "seccomp", key)
    if key == "knownFlags":
        # Those that aren't supported are known, and may be refused for that.
        flags = [flag for flag in flags if flag in listed(features, "seccomp", "supportedFlags")]
    values = {flag: profile(rule(), flags=[flag]) for flag in flags}
    assert not refused(container, "/linux/seccomp", values)
    container.bundle.set("/linux/seccomp", profile(rule(), flags=["SECCOMP_FILTER_FLAG_NOSUCH"]))
    assert_create_refused(container)


def need_memory_policy() -> None:
    if not os.path.exists("/proc/self/numa_maps"):
        pytest.skip("this kernel has no memory policies")


@must("MemoryPolicy", 5, says="the modes that it lists are known")
def test_memory_policy_modes(container: Container, features: dict[str, Any]) -> None:
    modes = listed(features, "memoryPolicy", "modes")
    need_memory_policy()
    alone = ("MPOL_DEFAULT", "MPOL_LOCAL")
    values = {mode: {"mode": mode, "nodes": "" if mode in alone else "0"} for mode in modes}
    assert not refused(container, "/linux/memoryPolicy", values)
    container.bundle.set("/linux/memoryPolicy", {"mode": "MPOL_NOSUCH", "nodes": "0"})
    assert_create_refused(container)


@must("MemoryPolicy", 9, says="the flags that it lists are known")
def test_memory_policy_flags(container: Container, features: dict[str, Any]) -> None:
    flags = listed(features, "memoryPolicy", "flags")
    need_memory_policy()
    base = {"mode": "MPOL_BIND", "nodes": "0"}
    values = {flag: base | {"flags": [flag]} for flag in flags}
    assert not refused(container, "/linux/memoryPolicy", values)
    container.bundle.set("/linux/memoryPolicy", base | {"flags": ["MPOL_F_NOSUCH"]})
    assert_create_refused(container)


@must("MountExtensions", 5, says="who knows a mount's id mappings says so")
def test_idmap(container: Container, features: dict[str, Any]) -> None:
    source = container.bundle.directory / "source"
    source.mkdir()
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    entry = {"destination": "/data", "source": str(source), "options": ["bind", "idmap"]}
    container.bundle.set("/mounts/-", entry | {"uidMappings": mapping, "gidMappings": mapping})
    knows = try_create(container).status == 0
    knows = knows and os.stat(f"/proc/{container.pid}/root/data").st_uid == 100000
    if not knows:
        pytest.skip("doesn't know a mount's id mappings")
    assert features["linux"]["mountExtensions"]["idmap"]["enabled"] is True
