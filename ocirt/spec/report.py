# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a document: findings, their severity, and the few shapes most of them have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ocirt.errors import OcirtError

Json = dict[str, Any]

# How much of an offending value a message shows.
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a document.

    pointer is a JSON pointer (RFC 6901), "" for the whole document; found is the offending value
    as short JSON text; allowed says what would be right; rule names the check that failed.
    """

    pointer: str
    message: str
    found: str = ""
    allowed: str = ""
    rule: str = ""

    def __str__(self) -> str:
        text = f"{self.pointer or '/'}: {self.message}"
        if self.found:
            text += f", found {self.found}"
        if self.allowed:
            text += f", allowed: {self.allowed}"
        return text


class ConfigError(OcirtError):
    """A document (config.json, process.json, ...) isn't valid; findings has every reason."""

    def __init__(self, file: str, findings: Sequence[Finding]) -> None:
        self.file = file
        self.findings = tuple(findings)
        more = len(self.findings) - 1
        text = f"{file}: {self.findings[0]}"
        if more:
            text += f" (and {more} more; `ocirt validate` lists all)"
        super().__init__(text)


class Severity(StrEnum):
    """An error refuses the document; a warning is logged."""

    ERROR = "error"
    WARNING = "warning"


Result = tuple[Severity, Finding]


def shown(value: object) -> str:
    """Return a value as short JSON text."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def error(pointer: str, rule: str, message: str, found: object = None, allowed: str = "") -> Result:
    """Return an error; found None leaves the value out."""
    text = "" if found is None else shown(found)
    return Severity.ERROR, Finding(pointer, message, text, allowed, rule)


def warning(pointer: str, rule: str, message: str, found: object = None) -> Result:
    """Return a warning; found None leaves the value out."""
    text = "" if found is None else shown(found)
    return Severity.WARNING, Finding(pointer, message, text, "", rule)


def twice(
    items: Iterable[Json], pointer: str, rule: str, words: str, key: Callable[[Json], object]
) -> Iterator[Result]:
    """Report every item of the array at pointer whose key an earlier one has."""
    seen: set[object] = set()
    for index, item in enumerate(items):
        name = key(item)
        if name in seen:
            yield error(f"{pointer}/{index}", rule, words, name)
        seen.add(name)


def relative(path: str, pointer: str, rule: str) -> tuple[Result, ...]:
    """Report a path that doesn't start at /."""
    if path.startswith("/"):
        return ()
    return (error(pointer, rule, "is relative", path, "an absolute path"),)
