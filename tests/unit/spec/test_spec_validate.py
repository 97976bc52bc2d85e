# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways in: reading a file, reports, and documents of every shape, which end in a sentence."""

from __future__ import annotations

import errno
import importlib
import json
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocirt.errors import OcirtError
from ocirt.spec import validate
from ocirt.spec.load import LARGEST
from ocirt.spec.model import Config, Process, Resources
from ocirt.spec.report import ConfigError
from ocirt.spec.validate import (
    Kind,
    check_document,
    config_from_bytes,
    read_config,
    read_process,
    read_resources,
)
from tests.unit.spec.samples import rich, small


def test_reading_a_config(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    document = {**small(), "mounts": [{"destination": "proc", "type": "proc"}]}
    data = json.dumps(document, indent=3).encode()
    path.write_bytes(data)
    config, read, warnings = read_config(str(path))
    assert config == Config.from_json(document) == config_from_bytes(read, "copy")
    assert read == data
    assert [w.rule for w in warnings] == ["mount-destination-relative"]


def test_every_error_is_in_the_exception(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"ociVersion": "x", "hostname": 1}')
    with pytest.raises(ConfigError) as caught:
        read_config(str(path))
    assert [f.pointer for f in caught.value.findings] == ["/hostname", "/ociVersion", "/root"]
    assert str(caught.value).startswith(f"{path}: /hostname: has the wrong type")
    assert "and 2 more" in str(caught.value)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OcirtError, match=r"config\.json: ENOENT.*`ocirt spec` makes one"):
        read_config(str(tmp_path / "config.json"))
    with pytest.raises(OcirtError, match="EISDIR"):
        read_config(str(tmp_path))


def test_a_failing_read_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "config.json").touch()
    monkeypatch.setattr("ocirt.spec.validate.read_all", broken)
    path = tmp_path / "config.json"
    with pytest.raises(OcirtError, match=f"^{path}: EIO"):
        read_config(str(path))


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("data", [b"[]", b'"x"', b"1", b"null"])
def test_what_is_no_object_is_one_error(data: bytes, kind: Kind) -> None:
    report = check_document(data, "f", kind)
    assert [(f.pointer, f.rule) for f in report.errors] == [("", "type")]


def test_a_disk_image_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(8 * LARGEST)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match=f"too long.*at most {LARGEST}"):
            read_config(str(path))
        assert tracemalloc.get_traced_memory()[1] < 3 * LARGEST
    finally:
        tracemalloc.stop()


def test_a_process_from_a_file_or_from_memory(tmp_path: Path) -> None:
    document = {"cwd": "/", "args": ["sh"], "capabilities": {"bounding": ["CAP_NEW"]}}
    data = json.dumps(document).encode()
    path = tmp_path / "process.json"
    path.write_bytes(data)
    assert read_process(str(path)) == read_process(data)
    process, warnings = read_process(data)
    assert process == Process.from_json(document)
    assert [w.pointer for w in warnings] == ["/capabilities/bounding/0"]
    with pytest.raises(ConfigError, match=r"exec: /args"):
        read_process(b'{"cwd": "/"}', "exec")
    with pytest.raises(OcirtError, match="ENOENT"):
        read_process(str(tmp_path / "other.json"))


def test_resources() -> None:
    assert read_resources(b'{"pids": {"limit": 5}}', "f")[0] == Resources.from_json(
        {"pids": {"limit": 5}}
    )
    with pytest.raises(ConfigError, match=r"^f: /pids/limit: is negative, found -2"):
        read_resources(b'{"pids": {"limit": -2}}', "f")


def test_a_report_as_json() -> None:
    data = json.dumps({**small(), "hostname": 7}).encode()
    assert check_document(data, "c.json", Kind.CONFIG).to_json() == {
        "file": "c.json",
        "valid": False,
        "errors": [
            {
                "pointer": "/hostname",
                "message": "has the wrong type",
                "found": "7",
                "allowed": "a string",
                "rule": "type",
            }
        ],
        "warnings": [],
    }


def test_each_missing_property_is_named_once() -> None:
    document = {"cwd": "/", "args": ["a"], "consoleSize": {}, "rlimits": [{"type": "RLIMIT_CPU"}]}
    report = check_document(json.dumps(document).encode(), "f", Kind.PROCESS)
    assert [(f.pointer, f.rule) for f in report.errors] == [
        ("/consoleSize/height", "required"),
        ("/consoleSize/width", "required"),
        ("/rlimits/0/hard", "required"),
        ("/rlimits/0/soft", "required"),
    ]


def test_errors_are_in_order() -> None:
    document = {**small(), "mounts": [{"destination": "/"} for _ in range(11)]}
    report = check_document(json.dumps(document).encode(), "f", Kind.CONFIG)
    assert [f.pointer for f in report.errors] == [f"/mounts/{i}/type" for i in range(11)]


def test_a_long_value_is_cut() -> None:
    document = {**small(), "root": {"path": ["x" * 1000]}}
    (finding,) = check_document(json.dumps(document).encode(), "f", Kind.CONFIG).errors
    assert finding.found.endswith("...") and len(finding.found) < 100


@pytest.mark.parametrize("document", [small(), {**small(), "root": 1}])
def test_a_tree_that_was_not_built(monkeypatch: pytest.MonkeyPatch, document: Any) -> None:
    data = json.dumps(document).encode()
    built = check_document(data, "f", Kind.CONFIG)
    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> ModuleType:
        if "_checks_" in name:
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    assert check_document(data, "f", Kind.CONFIG) == built


def test_the_good_path_needs_no_jsonschema(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Any:
        raise AssertionError("jsonschema was asked")

    monkeypatch.setattr(validate, "_ask_jsonschema", fail)
    assert not check_document(json.dumps(rich()).encode(), "f", Kind.CONFIG).errors


@pytest.mark.parametrize("shape", ['{"hostname":%s}', '{"x":%s}', '{"linux":{"resources":%s}}'])
@pytest.mark.parametrize("ends", [("[", "]"), ('{"a":', "}")])
def test_any_depth_ends_in_a_report(shape: str, ends: tuple[str, str]) -> None:
    # Somewhere here lies the depth that the parser bears, and what comes after it doesn't.
    for depth in (*range(100, 1000, 50), *range(900, 1000)):
        data = shape % (ends[0] * depth + "1" + ends[1] * depth)
        assert check_document(data.encode(), "f", Kind.CONFIG).errors


def names(value: Any) -> set[str]:
    """Return every key of a document."""
    if isinstance(value, dict):
        return set(value).union(*(names(v) for v in value.values()))
    return set().union(*(names(v) for v in value)) if isinstance(value, list) else set()


KEYS = st.sampled_from(sorted(names(rich()))) | st.text(max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=25,
)


@settings(max_examples=150, deadline=None)
@given(JSON, st.sampled_from(list(Kind)))
def test_nothing_but_a_report_comes_of_any_json(document: Any, kind: Kind) -> None:
    report = check_document(json.dumps(document).encode(), "f", kind)
    for finding in (*report.errors, *report.warnings):
        assert finding.message and finding.rule
        assert str(finding).encode()
