# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON, strictly: UTF-8, no duplicate keys, no NaN, no bottomless nesting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ocirt.errors import ConfigError, Finding

# Engines write some 20 KB. The bound keeps a mistake (a disk image, say) from filling memory.
LARGEST = 16 * 1024 * 1024


_ESCAPED_SURROGATE = "\\ud"


class _DuplicateKeyError(ValueError):
    pass


def load(data: bytes, file: str) -> Any:
    """Parse a document. Raises ConfigError with the place: a pointer, or line and column."""
    if len(data) > LARGEST:
        raise _error(file, f"is {len(data)} bytes long", allowed=f"at most {LARGEST} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise _error(file, f"isn't UTF-8: byte {e.start} can't be part of it") from None
    try:
        document = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
        )
        if _ESCAPED_SURROGATE in text.lower():
            # Half of a pair is no character: no file name, and nothing that could be shown.
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except _DuplicateKeyError:
        raise ConfigError(file, list(_duplicates(text))) from None
    except json.JSONDecodeError as e:
        place = f"line {e.lineno}, column {e.colno}"
        raise _error(file, f"isn't valid JSON: {e.msg[0].lower()}{e.msg[1:]} at {place}") from None
    except RecursionError:
        raise _error(file, "is nested too deeply") from None
    except ValueError as e:
        raise _error(file, f"isn't valid JSON: {e}") from None


def _error(file: str, message: str, allowed: str = "") -> ConfigError:
    return ConfigError(file, [Finding("", message, allowed=allowed, rule="json")])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _DuplicateKeyError
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} isn't a JSON number")


def _parse_float(text: str) -> int | float:
    """Read 1.0 and 1e3 as the integers they are to a JSON Schema; the model relies on int."""
    value = float(text)
    return int(value) if value.is_integer() else value


class _Pairs(list[tuple[str, Any]]):
    """An object with its duplicate keys."""


def _duplicates(text: str) -> Iterator[Finding]:
    """Find out where, once it is known that there are duplicate keys."""
    todo: list[tuple[str, Any]] = [("", json.loads(text, object_pairs_hook=_Pairs))]
    while todo:
        pointer, value = todo.pop()
        if isinstance(value, _Pairs):
            seen: set[str] = set()
            for key, inner in value:
                below = f"{pointer}/{escape(key)}"
                if key in seen:
                    yield Finding(below, "is given twice", rule="duplicate-key")
                seen.add(key)
                todo.append((below, inner))
        elif isinstance(value, list):
            todo += [(f"{pointer}/{index}", inner) for index, inner in enumerate(value)]


def escape(key: str) -> str:
    """Return a key as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def strings(document: Any) -> Iterator[tuple[str, str]]:
    """Yield every string of a document, keys too, with its pointer."""
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
