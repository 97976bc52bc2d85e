# SPDX-License-Identifier: GPL-3.0-or-later
"""Our schemas: two libraries read them alike, and they are at least as strict as the official."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from referencing import Registry
from referencing.jsonschema import DRAFT4

from ocirt.spec import compile as compiler
from ocirt.spec.checks import JsonSchemaValueException
from ocirt.spec.defaults import default_config
from ocirt.spec.features import features
from ocirt.spec.model import Config, Process
from ocirt.spec.schemas import Kind, bundle, generated_module
from ocirt.spec.validate import check_document
from tests.unit.spec.samples import CHECKOUT, DATA, load, recorded, rich

# Keywords that jsonschema and fastjsonschema treat alike in draft 7.
ALIKE = {
    "type",
    "properties",
    "required",
    "items",
    "additionalProperties",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "minItems",
    "pattern",
}
NOTES = {"$schema", "$id", "$comment", "title", "definitions"}
OFFICIAL = DATA / "runtime-spec-1.3"
needs_official = pytest.mark.skipif(
    not OFFICIAL.is_dir(), reason="OCIRT_SPEC_DATA names no folder with the official schemas"
)
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    1.5,
    511,
    4294967295,
    1 << 70,
    "",
    "x",
    "/abs",
    [],
    [1],
    ["a"],
    {},
    {"a": 1},
]


def subschemas(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in schema position."""
    yield value
    for key in ("properties", "definitions"):
        for inner in value.get(key, {}).values():
            yield from subschemas(inner)
    for key in ("items", "additionalProperties"):
        if isinstance(value.get(key), dict):
            yield from subschemas(value[key])


@pytest.mark.parametrize("name", sorted(p.name for p in (CHECKOUT / "schemas").glob("*.json")))
def test_keywords(name: str) -> None:
    for schema in subschemas(load(CHECKOUT / "schemas" / name)):
        if "$ref" in schema:
            assert schema.keys() == {"$ref"}
        assert schema.keys() <= ALIKE | NOTES | {"$ref"}, schema
        assert schema.get("pattern", r"(?!\n)").endswith(r"(?!\n)")


def places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document."""
    yield at
    if isinstance(document, dict | list):
        items = document.items() if isinstance(document, dict) else enumerate(document)
        for key, inner in items:
            yield from places(inner, (*at, key))


@st.composite
def mutations(draw: st.DrawFn) -> Any:
    """A valid document with a few values replaced or removed."""
    documents = [rich(), *(load(p) for p in recorded("*-config-01.json"))]
    document: Any = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from([p for p in places(document) if p]))
        place = document
        for key in where[:-1]:
            place = place[key]
        if draw(st.booleans()):
            place[where[-1]] = copy.deepcopy(draw(st.sampled_from(VALUES)))
        else:
            del place[where[-1]]
    return document


def generated_accepts(document: Any, kind: Kind) -> bool:
    try:
        importlib.import_module(generated_module(kind)).validate_document(document)
    except JsonSchemaValueException:
        return False
    return True


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations())
def test_the_generated_checks_agree_with_jsonschema(document: Any) -> None:
    validator = jsonschema.Draft7Validator(bundle(Kind.CONFIG))
    assert generated_accepts(document, Kind.CONFIG) == validator.is_valid(document)


@pytest.mark.parametrize("kind", list(Kind))
def test_what_was_generated_is_up_to_date(kind: Kind) -> None:
    path = CHECKOUT / (generated_module(kind).replace(".", "/") + ".py")
    assert path.read_text() == compiler.code(kind)


def official(name: str) -> jsonschema.Draft4Validator:
    """Return a validator of the official schema."""
    resources = [(p.name, DRAFT4.create_resource(load(p))) for p in OFFICIAL.glob("*.json")]
    registry: Registry[Any] = Registry().with_resources(resources)
    return jsonschema.Draft4Validator(load(OFFICIAL / name), registry=registry)


def ours_accepts(document: Any, kind: Kind = Kind.CONFIG) -> bool:
    return not check_document(json.dumps(document).encode(), "f", kind).errors


def without_what_engines_write(document: Any) -> Any:
    """Make good the two things in which ours is laxer (docs/validation.md)."""
    linux = document.get("linux") if isinstance(document, dict) else None
    if not isinstance(linux, dict):
        return document
    if linux.get("rootfsPropagation") in ("rprivate", "rshared", "rslave", "runbindable"):
        linux["rootfsPropagation"] = linux["rootfsPropagation"][1:]
    devices = linux.get("devices")
    for device in devices if isinstance(devices, list) else ():
        mode = device.get("fileMode") if isinstance(device, dict) else None
        if isinstance(mode, int) and 511 < mode <= 65535:
            device["fileMode"] = mode & 0o777
    return document


@needs_official
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations())
def test_ours_rejects_what_the_official_schema_rejects(document: Any) -> None:
    document = without_what_engines_write(document)
    for platform in ("solaris", "windows", "vm", "zos", "freebsd"):
        document.pop(platform, None)
    if not official("config-schema.json").is_valid(document):
        assert not ours_accepts(document)


@needs_official
@pytest.mark.parametrize("verdict", ["good", "bad"])
def test_the_official_samples(verdict: str) -> None:
    seen = 0
    for path in (OFFICIAL / "test" / "config" / verdict).glob("*.json"):
        if path.name.startswith(("zos", "freebsd")):
            continue
        report = check_document(path.read_bytes(), path.name, Kind.CONFIG)
        # A good one may lack what only a Linux container needs; one is of version 0.5.
        rules = {f.rule for f in report.errors} - {"root-missing", "oci-major-version"}
        assert bool(rules) == (verdict == "bad"), report
        seen += 1
    assert seen


@pytest.mark.skipif(not recorded("*"), reason="OCIRT_SPEC_DATA names no recorded configurations")
def test_what_engines_write_is_accepted() -> None:
    for path in recorded("*-config-*.json"):
        report = check_document(path.read_bytes(), path.name, Kind.CONFIG)
        assert report.errors == (), report
        assert Config.from_json(load(path)).oci_version
    for path in recorded("*-process-*.json"):
        report = check_document(path.read_bytes(), path.name, Kind.PROCESS)
        assert report.errors == (), report
        assert Process.from_json(load(path)).args


@pytest.mark.parametrize("rootless", [False, True])
def test_the_default_config_is_valid(rootless: bool) -> None:
    assert ours_accepts(default_config(rootless=rootless))


def test_features_match_their_schema() -> None:
    assert ours_accepts(features(["ro", "rw"]), Kind.FEATURES)


def test_states() -> None:
    state: dict[str, Any] = {"ociVersion": "1.3.0", "id": "a", "status": "running", "bundle": "/"}
    assert ours_accepts(state, Kind.STATE)
    assert not ours_accepts({**state, "status": "gone"}, Kind.STATE)
    assert not ours_accepts({**state, "pid": -1}, Kind.STATE)
