# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the launcher of plain Python begins (Makefile, "launcher")."""

from __future__ import annotations

import sys

from ocirt import plain

# Modules and functions that answer: all that call() gets.
_ANSWERS = (
    ["ocirt.parts.seccomp_compile", "compile_profile"],
    ["ocirt.spec.messages", "explain"],
)


def main() -> int:
    """Run a command line, or answer the image (ocirt.plain)."""
    if sys.argv[1:2] == [plain.ANSWER] and sys.argv[2:] in _ANSWERS:
        plain.answer(*sys.argv[2:])
    # Only now: the whole application.
    from ocirt.cli.main import main as run

    return run()
