# SPDX-License-Identifier: GPL-3.0-or-later
"""The manual pages have what the table has, and the programs that show them find no fault."""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ocirt.cli import man
from ocirt.cli.table import BY_NAME, COMMANDS, GLOBALS, Command, Kind, Option, Positional

DATE = datetime.date(2026, 1, 2)
PAGES = man.pages(DATE)

needs_groff = pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff here")
needs_mandoc = pytest.mark.skipif(shutil.which("mandoc") is None, reason="there is no mandoc here")


def plain(text: str) -> str:
    """Return a help text as a page has it: what is between backticks is bold."""
    return (text[:1].upper() + text[1:]).replace("`", "")


def shown(page: str) -> str:
    """Return a page as a terminal shows it, without bold and underlined; blanks are one."""
    argv = ["groff", "-man", "-Tascii", "-P-c", "-P-b", "-P-u", "-ww", "-rLL=200n"]
    done = subprocess.run(argv, input=page, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m", "", done.stdout))


@needs_groff
@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_a_page_explains_its_command(command: Command) -> None:
    text = shown(PAGES[f"ocirt-{command.name}.1"])
    assert f"NAME ocirt-{command.name} - {plain(command.summary)} SYN" in text
    assert f"SYNOPSIS ocirt {command.name}" in text
    for option in command.options:
        names = f"-{option.short}, " if option.short else ""
        written = f"{names}--{option.name} {option.metavar}".rstrip()
        assert (f" {written} {plain(option.help)}" in text) is not option.hidden
    for line, _ in command.examples:
        assert line in text
    assert "SEE ALSO ocirt(1)" in text


@needs_groff
def test_the_first_page_names_all_commands_and_global_options() -> None:
    text = shown(PAGES["ocirt.1"])
    for command in COMMANDS:
        assert f"ocirt-{command.name}(1) {plain(command.summary)}" in text
    for option in GLOBALS:
        assert (f"--{option.name} " in text) is not option.hidden
    for heading in ("EXIT STATUS", "ENVIRONMENT", "FILES"):
        assert heading in text
    assert "2026-01-02" in text


@needs_mandoc
@pytest.mark.parametrize("name", PAGES)
def test_mandoc_finds_no_fault(name: str, tmp_path: Path) -> None:
    page = tmp_path / name
    page.write_text(PAGES[name])
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@needs_groff
def test_no_text_is_taken_for_a_request() -> None:
    """What begins like a request or an escape, or would be typeset, is shown as it is."""
    odd = ".so /etc/passwd 'quoted' \\fIback\\slash - -- ^ ~ \"x\" `a b` .TH"
    command = Command(
        "odd",
        "Group",
        odd,
        " ".join([odd] * 5),
        (Positional("ID", odd),),
        (Option("x-y", odd, Kind.TEXT, "x", "A-B"),),
        ((odd, odd),),
    )
    text = shown(man.of_command(command, DATE))
    # Backticks make text bold in paragraphs, and are themselves in names.
    prose = odd.replace("`", "")
    assert " ".join([prose] * 5) in text
    assert f"-x, --x-y A-B {prose}" in text
    assert f"EXAMPLES {odd} {prose}" in text


def test_pages_are_dated_for_reproducible_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    man.write(tmp_path / "man1")
    assert {path.name for path in (tmp_path / "man1").iterdir()} == set(PAGES)
    assert len(PAGES) == len(BY_NAME) + 1
    for path in (tmp_path / "man1").iterdir():
        assert " 1970-01-02 " in path.read_text().splitlines()[0]
