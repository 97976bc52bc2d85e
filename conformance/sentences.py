# SPDX-License-Identifier: GPL-3.0-or-later
"""Number the sentences of the runtime specification, as the tests cite them.

Within a chapter (a heading and what is below it, up to the next heading but for "Example")
sentences count from 1.
A list entry, a paragraph and a row of a table each begin one; lines that only continue are joined;
code isn't counted, nor a table's head.

`python -m conformance.sentences FOLDER` compares a checkout of the specification with the tests:
each sentence that demands something has a test or a reason why not.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conformance.requirement import DOCUMENTS, Level
from conformance.untested import UNTESTED

_HEADING = re.compile(r"#+ +(?:<a [^>]*/> *)?(.+)")
_STARTS = re.compile(r" *(?:[*-]|\d+\.|>) +|\|? *`?[^|]+\|")
_RULE = re.compile(r"[ |:-]+$")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|cf)\.$")
_END = re.compile(r"(?<=[.:]) +(?=[A-Z`*\[(_])")
# The strongest first: "MUST NOT" contains "MUST".
_WORD = re.compile(r"\*{0,2}(MUST NOT|MUST|SHOULD NOT|SHOULD)\b")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of the specification. levels: what it demands, in the order it does."""

    document: str
    chapter: str
    number: int
    text: str

    @property
    def levels(self) -> list[Level]:
        return [Level(word) for word in _WORD.findall(self.text)]


def read(document: str, text: str) -> Iterator[Sentence]:
    """Return the sentences of a document of the specification."""
    chapter, number = "", 0
    for block in _blocks(text):
        if heading := _HEADING.match(block):
            if not heading[1].startswith("Example"):
                chapter, number = heading[1].strip(), 0
            continue
        for sentence in _split(block):
            number += 1
            yield Sentence(document, chapter, number, sentence)


def _blocks(text: str) -> Iterator[str]:
    """Return headings, paragraphs, list entries and rows of tables, each on one line."""
    code, joined, previous = False, "", ""
    for line in [*text.splitlines(), ""]:
        fence = line.strip().startswith("```")
        code ^= fence
        if code or fence:
            continue
        head = _RULE.match(line) is not None and "|" in line
        starts = _STARTS.match(line) or line.startswith("#") or not line.strip()
        if starts or previous.startswith("#"):
            if joined and not head:
                yield joined
            joined = "" if head else line.strip()
        else:
            joined = f"{joined} {line.strip()}"
        previous = line
    if joined:
        yield joined


def _split(block: str) -> Iterator[str]:
    held = ""
    for piece in _END.split(block):
        held = f"{held} {piece}".strip()
        if not _ABBREVIATION.search(held):
            yield held
            held = ""
    if held:
        yield held


def demands(folder: Path) -> list[Sentence]:
    """Return the sentences of the documents in folder that say MUST or SHOULD."""
    return [
        sentence
        for document in DOCUMENTS
        for sentence in read(document, (folder / document).read_text())
        if sentence.levels
    ]


def main(argv: list[str]) -> int:
    """Print the sentences that neither a test nor a reason covers, and what cites no demand."""
    from conformance.catalog import tested

    cited = [*tested(), *[entry.what for entry in UNTESTED]]
    known = {(r.document, r.chapter, r.sentence, r.level) for r in cited}
    found = {
        (s.document, s.chapter, s.number, level): s.text
        for s in demands(Path(argv[0]))
        for level in s.levels
    }
    for key in sorted(found.keys() - known):
        print(*key, found[key][:300], sep=" | ")
    for key in sorted(known - found.keys()):
        print("cites no demand:", *key)
    print(f"{len(found)} demands, {len(found.keys() - known)} neither tested nor excused")
    return int(bool(found.keys() ^ known))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
