# SPDX-License-Identifier: GPL-3.0-or-later
"""The typed model holds what the document says, field by field."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from ocirt.spec.model import Config, Hooks, Linux, NamespaceType, Process, Resources
from tests.unit.spec.samples import rich

# Not modelled: other platforms.
FOREIGN = {"windows", "solaris", "vm", "zos", "freebsd", "command_line"}


def snake(name: str) -> str:
    """Return a JSON name as the model spells it: execCPUAffinity is exec_cpu_affinity."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return {"class": "class_"}.get(name, words.lower())


def expected(value: Any) -> Any:
    """Return a document as dataclasses.asdict() would show its model."""
    if isinstance(value, dict):
        return {snake(k): expected(v) for k, v in value.items() if snake(k) not in FOREIGN}
    return tuple(expected(v) for v in value) if isinstance(value, list) else value


def without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, tuple):
        return tuple(without_none(v) for v in value)
    return value


def test_every_field_has_its_place() -> None:
    document = rich()
    model = without_none(dataclasses.asdict(Config.from_json(document)))
    wanted = expected(document)
    # Absent arrays are ().
    wanted["mounts"][0].update(options=(), uid_mappings=(), gid_mappings=())
    wanted["linux"]["seccomp"]["syscalls"][1]["args"] = ()
    assert model == wanted


def test_what_is_absent() -> None:
    config = Config.from_json({"ociVersion": "1.0.0"})
    absent = (config.root, config.process, config.hostname, config.domainname)
    assert absent == (None, None, None, None)
    assert config.linux == Linux() and config.hooks == Hooks()
    assert config.mounts == () and config.annotations == {}
    assert (config.linux.resources, config.linux.seccomp) == (None, None)


def test_an_absent_number_is_not_zero() -> None:
    resources = Resources.from_json({"memory": {"swappiness": 0}, "cpu": {}})
    assert resources.memory is not None and resources.cpu is not None
    assert resources.memory.swappiness == 0
    assert resources.memory.limit is None and resources.cpu.shares is None


def test_namespaces_have_a_type() -> None:
    linux = Linux.from_json({"namespaces": [{"type": kind} for kind in NamespaceType]})
    assert [n.type for n in linux.namespaces] == list(NamespaceType)
    with pytest.raises(ValueError, match="nope"):
        Linux.from_json({"namespaces": [{"type": "nope"}]})


def test_values_are_frozen() -> None:
    process = Process.from_json({"cwd": "/"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        process.cwd = "/tmp"  # type: ignore[misc]
