# SPDX-License-Identifier: GPL-3.0-or-later
"""Our schemas as one self-contained document per kind of file.

The files in schemas/ refer to each other. Here they become one document, whose references stay
inside: so that jsonschema and fastjsonschema read the very same thing, wherever the package is.
"""

from __future__ import annotations

import importlib
import json
import os
from enum import StrEnum
from typing import Any

_DIRECTORY = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "schemas")


class Kind(StrEnum):
    """The kinds of documents; the value names the schema's file."""

    CONFIG = "config"
    PROCESS = "config-process"
    RESOURCES = "config-resources"
    STATE = "state"
    FEATURES = "features"


def generated_module(kind: Kind) -> str:
    """Return the name of the module that compile.py writes for a kind."""
    return f"ocirt.spec._checks_{kind.name.lower()}"


def schema(kind: Kind) -> dict[str, Any]:
    """Return the self-contained schema: from the generated module, or from schemas/."""
    try:
        built: dict[str, Any] = importlib.import_module(generated_module(kind)).SCHEMA
    except ImportError:
        return bundle(kind)
    return built


def bundle(kind: Kind, directory: str = _DIRECTORY) -> dict[str, Any]:
    """Read schemas/ and put everything a kind needs into one document."""
    files: dict[str, Any] = {}
    top = f"{kind}.json"
    todo = [top]
    while todo:
        name = todo.pop()
        if name in files:
            continue
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            document = json.load(file)
        for noise in ("$id", "$schema", "$comment"):
            document.pop(noise, None)
        files[name] = _localise(document, name, todo)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$ref": f"#/definitions/{top}",
        "definitions": files,
    }


def _localise(value: Any, name: str, todo: list[str]) -> Any:
    """Rewrite references to other files into references into the one document."""
    if isinstance(value, list):
        return [_localise(v, name, todo) for v in value]
    if not isinstance(value, dict):
        return value
    if isinstance(reference := value.get("$ref"), str):
        file, _, pointer = reference.partition("#")
        todo.append(file or name)
        return {"$ref": f"#/definitions/{file or name}{pointer}"}
    return {key: _localise(inner, name, todo) for key, inner in value.items()}
