# SPDX-License-Identifier: GPL-3.0-or-later
"""`make install` puts pages and completion where programs look for them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import ocirt
from ocirt.cli.table import BY_NAME

TOP = Path(ocirt.__file__).parent.parent
LOADER = Path("/usr/share/bash-completion/bash_completion")


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PREFIX/share of an installation; DESTDIR goes before it."""
    place = tmp_path_factory.mktemp("installed")
    command = ["make", "--no-print-directory", "install-docs", "PREFIX=/usr", f"DESTDIR={place}"]
    # A make that runs these tests hands its own variables down.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    subprocess.run(command, cwd=TOP, env=environment, check=True, stdout=subprocess.DEVNULL)
    return place / "usr/share"


def test_files(share: Path) -> None:
    found = {str(path.relative_to(share)) for path in share.rglob("*") if path.is_file()}
    pages = {"man/man1/ocirt.1", *(f"man/man1/ocirt-{name}.1" for name in BY_NAME)}
    scripts = {
        "bash-completion/completions/ocirt",
        "zsh/site-functions/_ocirt",
        "fish/vendor_completions.d/ocirt.fish",
    }
    assert found == pages | scripts


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man here")
def test_man_finds_the_pages(share: Path) -> None:
    argv = ["man", "-M", str(share / "man"), "-w", "ocirt-run"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(share / "man/man1/ocirt-run.1")


@pytest.mark.skipif(not LOADER.exists(), reason="there is no bash-completion here")
def test_bash_completion_loads_the_script(share: Path) -> None:
    script = f"source {LOADER}; _completion_loader ocirt; complete -p ocirt"
    environment = {**os.environ, "XDG_DATA_DIRS": str(share), "HOME": str(share)}
    argv = ["bash", "--norc", "-c", script]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "complete -F _ocirt ocirt\n", done.stderr
