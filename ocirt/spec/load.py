# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON, strictly: UTF-8, no duplicate keys, no NaN, no bottomless nesting."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from ocirt.spec.report import ConfigError, Finding

# Engines write some 20 KB. The bound keeps a mistake (a disk image, say) from filling memory.
LARGEST = 16 * 1024 * 1024

TOO_DEEP = Finding("", "is nested too deeply", rule="json")

# A strict parser lets these into a string only as escapes; most documents have none.
_ESCAPES = ("\\u0000", "\\ud", "\\uD")


class _DuplicateKeyError(ValueError):
    pass


class _ConstantError(ValueError):
    pass


def load(data: bytes, file: str) -> Any:
    """Parse a document. Raises ConfigError with the place: a pointer, or line and column."""
    text = _decode(data, file)
    findings: list[Finding] = []
    try:
        try:
            document = _parse(text, _unique)
            if any(escape in text for escape in _ESCAPES):
                findings = list(_bad_strings(document))
        except _DuplicateKeyError:
            findings = list(_duplicates(_parse(text, _Pairs)))
    except json.JSONDecodeError as e:
        place = f"line {e.lineno}, column {e.colno}"
        raise _error(file, f"isn't valid JSON: {e.msg[0].lower()}{e.msg[1:]} at {place}") from None
    except _ConstantError as e:
        raise _error(file, f"isn't valid JSON: {e}") from None
    except RecursionError:
        raise ConfigError(file, [TOO_DEEP]) from None
    except ValueError:
        # int() has a bound on digits, which keeps it from taking minutes.
        raise _error(file, "has a number of thousands of digits") from None
    if findings:
        raise ConfigError(file, findings)
    return document


def _decode(data: bytes, file: str) -> str:
    if len(data) > LARGEST:
        raise _error(file, "is too long", allowed=f"at most {LARGEST} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise _error(file, f"isn't UTF-8: byte {e.start} can't be part of it") from None
    if text.startswith("\ufeff"):
        raise _error(file, "starts with a byte order mark, which JSON doesn't allow")
    return text


def _parse(text: str, pairs_hook: Callable[[list[tuple[str, Any]]], Any]) -> Any:
    return json.loads(
        text,
        object_pairs_hook=pairs_hook,
        parse_constant=_refuse_constant,
        parse_float=_parse_float,
    )


def _error(file: str, message: str, allowed: str = "") -> ConfigError:
    return ConfigError(file, [Finding("", message, allowed=allowed, rule="json")])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _DuplicateKeyError
    return result


def _refuse_constant(name: str) -> Any:
    raise _ConstantError(f"{name} isn't a JSON number")


def _parse_float(text: str) -> int | float:
    """Read 1.0 and 1e3 as the integers they are to a JSON Schema; the model relies on int."""
    value = float(text)
    return int(value) if value.is_integer() else value


class _Pairs(list[tuple[str, Any]]):
    """An object with its duplicate keys."""


def _duplicates(document: Any) -> Iterator[Finding]:
    """Find out where, once it is known that there are duplicate keys."""
    todo: list[tuple[str, Any]] = [("", document)]
    while todo:
        pointer, value = todo.pop()
        if isinstance(value, _Pairs):
            seen: set[str] = set()
            for key, inner in value:
                below = f"{pointer}/{escape(key)}"
                if key in seen:
                    yield Finding(_printable(below), "is given twice", rule="duplicate-key")
                seen.add(key)
                todo.append((below, inner))
        elif isinstance(value, list):
            todo += [(f"{pointer}/{index}", inner) for index, inner in enumerate(value)]


def _bad_strings(document: Any) -> Iterator[Finding]:
    """Report what can't be a path, an argument or a name, in keys too."""
    for pointer, text in _strings(document):
        where = _printable(pointer)
        if "\0" in text:
            message = "has a NUL byte, which ends a string in the kernel"
            yield Finding(where, message, rule="nul-byte")
        if any("\ud800" <= c <= "\udfff" for c in text):
            message = "has half of a surrogate pair, which is no character"
            yield Finding(where, message, rule="surrogate")


def _strings(document: Any) -> Iterator[tuple[str, str]]:
    todo: list[tuple[str, Any]] = [("", document)]
    while todo:
        pointer, value = todo.pop()
        if isinstance(value, str):
            yield pointer, value
        elif isinstance(value, dict):
            for key, inner in value.items():
                below = f"{pointer}/{escape(key)}"
                yield below, key
                todo.append((below, inner))
        elif isinstance(value, list):
            todo += [(f"{pointer}/{index}", inner) for index, inner in enumerate(value)]


def escape(key: str) -> str:
    """Return a key as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _printable(pointer: str) -> str:
    return pointer.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
