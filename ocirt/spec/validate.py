# SPDX-License-Identifier: GPL-3.0-or-later
"""Is this document valid? The generated checks answer fast; jsonschema says what is wrong.

jsonschema is the authority. The generated code agrees with it (tests prove it) and spares its cost
to the valid documents that engines write. The rules hold what a schema can't say.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from typing import Any

from ocirt.errors import ConfigError, Finding, OcirtError, describe
from ocirt.spec.checks import JsonSchemaValueException
from ocirt.spec.load import escape, load
from ocirt.spec.model import Config, Process, Resources
from ocirt.spec.rules import Severity, check_config, check_process, check_resources
from ocirt.spec.schemas import Kind, generated_module, schema

__all__ = [
    "Kind",
    "Report",
    "check_document",
    "config_from_bytes",
    "read_config",
    "read_process",
    "read_resources",
]

# How much of an offending value a message shows.
_SHOWN = 60

# The end of our patterns: $ alone would let a trailing newline pass.
_NO_NEWLINE = "(?!\\n)"

_RULES = {
    Kind.CONFIG: check_config,
    Kind.PROCESS: check_process,
    Kind.RESOURCES: check_resources,
}


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found in a document."""

    file: str
    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]

    def to_json(self) -> dict[str, object]:
        """Return what `ocirt validate --format json` prints (docs/validation.md)."""
        return {
            "file": self.file,
            "valid": not self.errors,
            "errors": [_finding_json(f) for f in self.errors],
            "warnings": [_finding_json(f) for f in self.warnings],
        }


def _finding_json(finding: Finding) -> dict[str, str]:
    return {
        "pointer": finding.pointer,
        "message": finding.message,
        "found": finding.found,
        "allowed": finding.allowed,
        "rule": finding.rule,
    }


def read_config(path: str) -> tuple[Config, bytes, tuple[Finding, ...]]:
    """Read and check a config.json: the model, the very bytes that were read, and warnings.

    Raises ConfigError with every error, OcirtError when the file can't be read.
    """
    data = _read(path, "`ocirt spec` makes one, -b names the bundle it is in")
    document, warnings = _checked(data, path, Kind.CONFIG)
    return Config.from_json(document), data, warnings


def config_from_bytes(data: bytes, file: str) -> Config:
    """Build the model of a configuration that was checked before: the copy kept at create."""
    return Config.from_json(load(data, file))


def read_process(path: str) -> tuple[Process, tuple[Finding, ...]]:
    """Read and check the process.json of exec. Raises ConfigError, OcirtError."""
    document, warnings = _checked(_read(path, "it describes the process"), path, Kind.PROCESS)
    return Process.from_json(document), warnings


def read_resources(data: bytes, file: str) -> tuple[Resources, tuple[Finding, ...]]:
    """Check the resources of update. Raises ConfigError."""
    document, warnings = _checked(data, file, Kind.RESOURCES)
    return Resources.from_json(document), warnings


def _read(path: str, hint: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as e:
        raise OcirtError(f"{describe(e)}; {hint}") from None


def _checked(data: bytes, file: str, kind: Kind) -> tuple[Any, tuple[Finding, ...]]:
    document = load(data, file)
    report = _check(document, file, kind)
    if report.errors:
        raise ConfigError(file, report.errors)
    return document, report.warnings


def check_document(data: bytes, file: str, kind: Kind) -> Report:
    """Check a document and report everything that is wrong with it; raises nothing."""
    try:
        document = load(data, file)
    except ConfigError as e:
        return Report(file, e.findings, ())
    return _check(document, file, kind)


def _check(document: Any, file: str, kind: Kind) -> Report:
    errors = _schema_errors(document, kind)
    known = {finding.pointer for finding in errors}
    warnings: list[Finding] = []
    if kind in _RULES:
        for severity, finding in _RULES[kind](document, typed=not errors):
            if finding.pointer not in known:
                (errors if severity is Severity.ERROR else warnings).append(finding)
    return Report(file, tuple(sorted(errors, key=_by_pointer)), tuple(warnings))


def _by_pointer(finding: Finding) -> list[tuple[int, str]]:
    """Order as in the document as far as a pointer tells: numbers by value."""
    parts = finding.pointer.split("/")
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in parts]


def _schema_errors(document: Any, kind: Kind) -> list[Finding]:
    try:
        module = importlib.import_module(generated_module(kind))
    except ImportError:  # a source tree that was not built
        return _ask_jsonschema(document, kind)
    try:
        module.validate_document(document)
    except JsonSchemaValueException:
        return _ask_jsonschema(document, kind)
    return []


def _ask_jsonschema(document: Any, kind: Kind) -> list[Finding]:
    import jsonschema

    validator = jsonschema.Draft7Validator(schema(kind))
    return [_finding(error) for error in validator.iter_errors(document)]


def _finding(error: Any) -> Finding:
    """Turn a jsonschema.ValidationError into a finding."""
    pointer = "".join("/" + escape(str(part)) for part in error.absolute_path)
    rule, wanted = str(error.validator), error.validator_value
    if rule == "required":
        missing = next((k for k in wanted if k not in error.instance), "")
        return Finding(f"{pointer}/{missing}", "is missing", rule=rule)
    message, allowed = _words(rule, wanted)
    return Finding(pointer, message, _shown(error.instance), allowed, rule)


def _words(rule: str, wanted: Any) -> tuple[str, str]:
    if rule == "type":
        return "has the wrong type", _TYPES.get(wanted, str(wanted))
    if rule == "enum":
        return "isn't a known value", ", ".join(str(v) for v in wanted)
    if rule in ("minimum", "maximum"):
        word = "least" if rule == "minimum" else "most"
        return "is out of range", f"at {word} {wanted}"
    if rule == "pattern":
        return "hasn't the right form", "what matches " + wanted.removesuffix(_NO_NEWLINE)
    if rule in ("minLength", "minItems"):
        return "is empty", f"at least {wanted}"
    return f"violates {rule}", str(wanted)


_TYPES = {
    "object": "an object",
    "array": "an array",
    "string": "a string",
    "integer": "an integer",
    "boolean": "true or false",
}


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
