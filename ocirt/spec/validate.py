# SPDX-License-Identifier: GPL-3.0-or-later
"""Is this document valid? The generated checks answer fast; jsonschema says what is wrong.

jsonschema is the authority. The generated code agrees with it (tests prove it) and spares its cost
to the valid documents that engines write. The rules hold what a schema can't say.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import Any

from ocirt.errors import OcirtError, describe
from ocirt.kernel.files import read_all
from ocirt.plain import call
from ocirt.spec.checks import JsonSchemaValueException
from ocirt.spec.load import LARGEST, TOO_DEEP, load
from ocirt.spec.messages import explain
from ocirt.spec.model import Config, Process, Resources
from ocirt.spec.report import ConfigError, Finding, Severity
from ocirt.spec.rules import check_config, check_process, check_resources, check_state
from ocirt.spec.schemas import Kind, generated_module

__all__ = [
    "Kind",
    "Report",
    "check_document",
    "config_from_bytes",
    "read_config",
    "read_document",
    "read_process",
    "read_resources",
]

_RULES = {
    Kind.CONFIG: check_config,
    Kind.PROCESS: check_process,
    Kind.RESOURCES: check_resources,
    Kind.STATE: check_state,
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
    data = read_document(path, "`ocirt spec` makes one, -b names the bundle it is in")
    document, warnings = _checked(data, path, Kind.CONFIG)
    return Config.from_json(document), data, warnings


def config_from_bytes(data: bytes, file: str) -> Config:
    """Build the model of a configuration that was checked before: the copy kept at create."""
    return Config.from_json(load(data, file))


def read_process(
    source: str | bytes, file: str = "process.json"
) -> tuple[Process, tuple[Finding, ...]]:
    """Check the process that exec gets: the model and warnings.

    source is a path, or the document itself, which messages then call file.
    Raises ConfigError with every error, OcirtError when the file can't be read.
    """
    if isinstance(source, bytes):
        data = source
    else:
        data, file = read_document(source, "it describes the process to run"), source
    document, warnings = _checked(data, file, Kind.PROCESS)
    return Process.from_json(document), warnings


def read_resources(data: bytes, file: str) -> tuple[Resources, tuple[Finding, ...]]:
    """Check the resources that update gets: the model and warnings. Raises ConfigError."""
    document, warnings = _checked(data, file, Kind.RESOURCES)
    return Resources.from_json(document), warnings


def read_document(path: str, hint: str) -> bytes:
    """Read a document, one byte more than load() takes at most: a file may be a device.

    Raises OcirtError, which ends in the hint.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return read_all(fd, LARGEST + 1)
        finally:
            os.close(fd)
    except OSError as e:
        e.filename = path  # read() leaves it out
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
    try:
        return _findings(document, file, kind)
    except RecursionError:
        # As deep as the parser could just bear, and where no field of ours nests like that.
        return Report(file, (TOO_DEEP,), ())


def _findings(document: Any, file: str, kind: Kind) -> Report:
    errors = _schema_errors(document, kind)
    known = {finding.pointer for finding in errors}
    warnings: list[Finding] = []
    if kind in _RULES and isinstance(document, dict):
        for severity, finding in _RULES[kind](document, typed=not errors):
            if finding.pointer not in known:
                (errors if severity is Severity.ERROR else warnings).append(finding)
    return Report(file, tuple(sorted(errors, key=_by_pointer)), tuple(warnings))


def _by_pointer(finding: Finding) -> list[tuple[int, str]]:
    """Order as in the document as far as a pointer tells: numbers by value."""
    parts = finding.pointer.split("/")
    return [(int(p), "") if p.isdecimal() and len(p) < 10 else (-1, p) for p in parts]


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
    try:
        found = call(explain, document, kind.value)
    except OcirtError as e:
        raise OcirtError(f"the document isn't valid; saying why failed: {e}") from None
    # Two missing properties are two errors that say the same.
    return list(dict.fromkeys(Finding(*words) for words in found))
