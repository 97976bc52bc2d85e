# SPDX-License-Identifier: GPL-3.0-or-later
"""What the specification demands, as a value: a place in it, a level, a paraphrase."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pytest

# The Linux runtime's part of the specification, version 1.3.
DOCUMENTS = (
    "glossary.md",
    "bundle.md",
    "runtime.md",
    "runtime-linux.md",
    "config.md",
    "config-linux.md",
    "features.md",
    "features-linux.md",
)


class Level(StrEnum):
    """How strong a demand is (RFC 2119)."""

    MUST = "MUST"
    MUST_NOT = "MUST NOT"
    SHOULD = "SHOULD"
    SHOULD_NOT = "SHOULD NOT"


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    """One demand. sentence counts within the chapter, as conformance/sentences.py does."""

    document: str
    chapter: str
    sentence: int
    level: Level
    says: str

    def __str__(self) -> str:
        return f'{self.document} "{self.chapter}" {self.sentence} {self.level}: {self.says}'


def requirement(
    document: str, chapter: str, sentence: int, *, level: Level, says: str
) -> pytest.MarkDecorator:
    """Mark a test: it shows whether a runtime meets this. says: a short paraphrase."""
    return pytest.mark.requirement.with_args(Requirement(document, chapter, sentence, level, says))
