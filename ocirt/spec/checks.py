# SPDX-License-Identifier: GPL-3.0-or-later
"""What the generated checks (_checks_*.py) raise: they run without fastjsonschema."""

from __future__ import annotations


class JsonSchemaValueException(ValueError):
    """A document doesn't match. The messages come from jsonschema, which is asked then."""

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
