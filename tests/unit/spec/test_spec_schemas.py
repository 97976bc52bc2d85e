# SPDX-License-Identifier: GPL-3.0-or-later
"""Our schemas: two libraries read them alike, and they are at least as strict as the official."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from referencing import Registry
from referencing.jsonschema import DRAFT4

from ocirt.spec import compile as compiler
from ocirt.spec import names
from ocirt.spec.checks import JsonSchemaValueException
from ocirt.spec.defaults import default_config
from ocirt.spec.features import features
from ocirt.spec.load import load as load_json
from ocirt.spec.model import Config, NamespaceType, Process
from ocirt.spec.schemas import Kind, bundle, generated_module
from ocirt.spec.validate import check_document
from tests.unit.spec.samples import CHECKOUT, DATA, changed, load, recorded, rich

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
STATE: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "id": "a",
    "status": "running",
    "pid": 4,
    "bundle": "/b",
    "annotations": {"k": "v"},
}
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    1.5,
    2.0,
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
def mutations(draw: st.DrawFn, documents: list[Any] | None = None) -> Any:
    """A valid document with a few values replaced or removed."""
    documents = documents or [rich(), *(load(p) for p in recorded("*-config-01.json"))]
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


@cache
def ours(kind: Kind) -> jsonschema.Draft7Validator:
    """Return a validator of our schema."""
    return jsonschema.Draft7Validator(bundle(kind))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations())
def test_the_generated_checks_agree_with_jsonschema(document: Any) -> None:
    parts = {
        Kind.CONFIG: document,
        Kind.PROCESS: document.get("process"),
        Kind.RESOURCES: (document.get("linux") or {}).get("resources")
        if isinstance(document.get("linux"), dict)
        else None,
    }
    for kind, part in parts.items():
        assert generated_accepts(part, kind) == ours(kind).is_valid(part)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations())
def test_what_is_valid_can_be_built(document: Any) -> None:
    if ours_accepts(document):
        Config.from_json(load_json(json.dumps(document).encode(), "f"))


WRONG: dict[str, Any] = {
    "object": [],
    "array": {},
    "string": 1,
    "integer": "1",
    "boolean": 1,
}


def resolved(schema: Any, name: str) -> tuple[Any, str]:
    """Follow $ref; returns the schema and the file it is in."""
    while "$ref" in schema:
        file, _, pointer = schema["$ref"].partition("#")
        name = file or name
        schema = load(CHECKOUT / "schemas" / name)
        for part in pointer.split("/")[1:]:
            schema = schema[part]
    return schema, name


def fields(schema: Any, name: str, value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield the pointer and type of every place a schema speaks of, which value must have."""
    schema, name = resolved(schema, name)
    yield at, schema["type"]
    for key, inner in schema.get("properties", {}).items():
        yield from fields(inner, name, value[key], f"{at}/{key}")
    if "items" in schema:
        # The samples' items differ; the fullest of them shows every field.
        index = max(range(len(value)), key=lambda i: len(json.dumps(value[i])))
        yield from fields(schema["items"], name, value[index], f"{at}/{index}")
    if "additionalProperties" in schema:
        for key, inner in value.items():
            yield from fields(schema["additionalProperties"], name, inner, f"{at}/{key}")


FIELDS = list(fields({"$ref": "config.json"}, "config.json", rich()))


@pytest.mark.parametrize(("pointer", "kind"), FIELDS[1:])
def test_every_field_refuses_another_type(pointer: str, kind: str) -> None:
    """That rich() has every field is tested on the way: fields() would raise KeyError."""
    document = changed(pointer, WRONG[kind])
    report = check_document(json.dumps(document).encode(), "f", Kind.CONFIG)
    found = {(f.pointer, f.rule, f.found) for f in report.errors}
    assert (pointer, "type", json.dumps(WRONG[kind])) in found


def enums(value: Any) -> Iterator[set[str]]:
    """Yield every enum in a schema's files."""
    if isinstance(value, dict):
        if isinstance(value.get("enum"), list):
            yield set(value["enum"])
        for inner in value.values():
            yield from enums(inner)


@pytest.mark.parametrize(
    "names",
    [
        names.RLIMITS,
        names.SECCOMP_ACTIONS,
        names.SECCOMP_OPERATORS,
        names.SECCOMP_FLAGS,
        names.MEMORY_POLICY_MODES,
        names.MEMORY_POLICY_FLAGS,
        list(NamespaceType),
    ],
)
def test_the_schemas_and_the_tables_list_the_same_names(names: Any) -> None:
    listed = [e for k in (Kind.CONFIG, Kind.FEATURES) for e in enums(bundle(k))]
    related = [e for e in listed if e & set(names)]
    assert related and all(e == set(names) for e in related)


@pytest.mark.parametrize("kind", list(Kind))
def test_what_was_generated_is_up_to_date(kind: Kind) -> None:
    path = CHECKOUT / (generated_module(kind).replace(".", "/") + ".py")
    assert path.read_text() == compiler.code(kind)


@cache
def official(name: str) -> jsonschema.Draft4Validator:
    """Return a validator of the official schema."""
    resources = [(p.name, DRAFT4.create_resource(load(p))) for p in OFFICIAL.glob("*.json")]
    registry: Registry[Any] = Registry().with_resources(resources)
    return jsonschema.Draft4Validator(load(OFFICIAL / name), registry=registry)


def ours_accepts(document: Any, kind: Kind = Kind.CONFIG) -> bool:
    return not check_document(json.dumps(document).encode(), "f", kind).errors


@needs_official
@pytest.mark.parametrize("kind", [Kind.STATE, Kind.FEATURES])
@pytest.mark.parametrize("verdict", ["good", "bad"])
def test_the_official_samples_of_state_and_features(kind: Kind, verdict: str) -> None:
    paths = list((OFFICIAL / "test" / kind / verdict).glob("*.json"))
    assert paths
    for path in paths:
        report = check_document(path.read_bytes(), path.name, kind)
        assert bool(report.errors) == (verdict == "bad"), report


@needs_official
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_state_and_features_reject_what_the_official_schemas_reject(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([Kind.STATE, Kind.FEATURES]))
    document = data.draw(
        mutations([features(["ro", "rw"]) if kind is Kind.FEATURES else copy.deepcopy(STATE)])
    )
    integers = without_what_ours_accepts(document)
    if not official(f"{kind}-schema.json").is_valid(integers):
        assert not ours_accepts(document, kind)
    assert generated_accepts(document, kind) == ours(kind).is_valid(document)


def without_what_ours_accepts(document: Any) -> Any:
    """Make good the things in which ours is laxer (docs/validation.md)."""
    document = load_json(json.dumps(document).encode(), "f")  # 2.0 becomes 2
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
    document = without_what_ours_accepts(document)
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
@pytest.mark.parametrize("terminal", [False, True])
def test_the_default_config_is_valid(rootless: bool, terminal: bool) -> None:
    document = default_config(rootless=rootless, terminal=terminal, uid=7, gid=8)
    assert ours_accepts(document)
    config = Config.from_json(document)
    assert config.process is not None and config.process.terminal is terminal
    maps = [(m.container_id, m.host_id, m.size) for m in config.linux.uid_mappings]
    assert maps == ([(0, 7, 1)] if rootless else [])


def test_features_match_their_schema_and_say_what_is_there() -> None:
    document = features(["ro", "rw"])
    assert ours_accepts(document, Kind.FEATURES)
    more: Any = features(["ro"], ["SECCOMP_FILTER_FLAG_LOG"])
    assert ours_accepts(more, Kind.FEATURES)
    seccomp = more["linux"]["seccomp"]
    assert seccomp["supportedFlags"] == ["SECCOMP_FILTER_FLAG_LOG"]
    assert seccomp["knownFlags"] == list(names.SECCOMP_FLAGS)
