# SPDX-License-Identifier: GPL-3.0-or-later
"""The text form of D-Bus values (docs.gtk.org/glib/gvariant-text-format.html), as far as used here.

Values of org.systemd.property.* annotations: booleans, numbers, strings, arrays and tuples, with a
type in front (uint32 5, @as []) or without.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<open>[\[(]) | (?P<close>[\])]) | (?P<comma>,)
      | (?P<type>@[a-z(){}]+\s | (?:boolean|byte|u?int(?:16|32|64)|double|string|objectpath)\s)
      | (?P<value>true | false
                | [+-]?(?:0x[0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)(?=[\s,\])]|$)
                | b?'(?:[^'\\]|\\.)*' | b?"(?:[^"\\]|\\.)*")
    )""",
    re.VERBOSE,
)

# D-Bus's own limit of nesting.
_DEEPEST = 64


def is_value(text: str) -> bool:
    """Whether a text is one value."""
    tokens = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            return False
        kind = str(match.lastgroup)
        tokens.append(match[kind].strip() if kind in ("open", "close") else kind)
        at = match.end()
    return _value(tokens) and not tokens


def _value(tokens: list[str], depth: int = 0) -> bool:
    """Take one value from the front of the tokens; whether there was one."""
    while tokens and tokens[0] == "type":
        tokens.pop(0)
    if not tokens or depth > _DEEPEST:
        return False
    first = tokens.pop(0)
    if first not in ("[", "("):
        return first == "value"
    closing = "]" if first == "[" else ")"
    while tokens and tokens[0] != closing:
        if not _value(tokens, depth + 1):
            return False
        if tokens and tokens[0] == "comma":
            tokens.pop(0)
        elif tokens and tokens[0] != closing:
            return False
    return bool(tokens) and tokens.pop(0) == closing
