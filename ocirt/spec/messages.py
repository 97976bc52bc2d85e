# SPDX-License-Identifier: GPL-3.0-or-later
"""What jsonschema says about a document that isn't valid, in our words.

A cold path, by plain Python: jsonschema takes libraries that aren't in the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ocirt.errors import OcirtError
from ocirt.spec.load import escape
from ocirt.spec.report import shown
from ocirt.spec.schemas import Kind, schema

# The fields of a Finding.
_Fields = tuple[str, str, str, str, str]

# The end of our patterns: $ alone would let a trailing newline pass.
_NO_NEWLINE = "(?!\\n)"


def explain(document: Any, kind: str) -> list[_Fields]:
    """Return every finding's fields (report.Finding); kind is the value of a Kind.

    Raises OcirtError without jsonschema, RecursionError if the document is nested too deeply.
    """
    try:
        import jsonschema
    except ImportError:
        raise OcirtError("this takes the Python package jsonschema: install it") from None
    validator = jsonschema.Draft7Validator(schema(Kind(kind)))
    return [words for e in validator.iter_errors(document) for words in _translated(e)]


def _translated(error: Any) -> Iterator[_Fields]:
    """Turn a jsonschema.ValidationError into the fields of findings."""
    pointer = "".join("/" + escape(str(part)) for part in error.absolute_path)
    rule, wanted = str(error.validator), error.validator_value
    if rule == "required":
        for name in wanted:
            if name not in error.instance:
                yield f"{pointer}/{name}", "is missing", "", "", rule
    else:
        message, allowed = _words(rule, wanted)
        yield pointer, message, shown(error.instance), allowed, rule


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
