# SPDX-License-Identifier: GPL-3.0-or-later
"""The pre-initialised executable, beyond what its build tests (ocirt/image/check.py)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ocirt.image.check import chosen_for_this_cpu
from tests.harness import Container

SEED = Path(__file__).parent.parent.parent / "build/image/seed"
LIMIT_SECONDS = 60


@pytest.fixture
def image(container: Container) -> Path:
    """The runtime under test, if it is an image."""
    path = Path(container.runtime.executable)
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    if "start: image" not in version.stdout:
        pytest.skip("about the image")
    return path


def test_it_needs_no_particular_cpu(image: Path) -> None:
    assert chosen_for_this_cpu(image, SEED) == []


def test_a_build_for_this_cpu_would_be_noticed(image: Path, tmp_path: Path) -> None:
    """The control: the same seed without the switch that hides what this CPU can."""
    if " avx2 " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this CPU has nothing to hide")
    script = tmp_path / "seed.py"
    script.write_text("def entry(argv, environ, ignored):\n    return 0\n")
    library = os.path.dirname(os.__file__)
    placing = ("", "", "16", "")
    command = [str(SEED), str(tmp_path / "image"), "/nowhere", "1", str(script), *placing, library]
    subprocess.run(command, check=True, timeout=LIMIT_SECONDS, stdin=subprocess.DEVNULL)
    assert chosen_for_this_cpu(tmp_path / "image", SEED)


def test_blocks_are_placed(image: Path) -> None:
    """What a start uses lies together, behind the heap; a build that can't have that goes on."""
    listing = subprocess.run(
        ["readelf", "--segments", "--wide", str(image)], capture_output=True, text=True, check=True
    ).stdout
    loads = [line.split()[1:6] for line in listing.splitlines() if line.split()[:1] == ["LOAD"]]
    region, content = ([int(word, 16) for word in words] for words in loads[-2:])
    assert region[3] == 0, "the region's pages are the kernel's"
    assert content[1] == region[1] + region[4]
    data = image.read_bytes()[content[0] :]
    pages = [data[at : at + 4096] for at in range(0, content[3], 4096)]
    assert sum(page.strip(b"\0") != b"" for page in pages) > 200


def test_an_invalid_config_leaves_for_plain_python(image: Path, container: Container) -> None:
    """jsonschema isn't in the image; its message is the same as ever."""
    container.bundle.set("/hostname", 5)
    container.bundle.save()
    place = ("--bundle", str(container.bundle.directory))
    said = container.runtime.refused("create", *place, container.id)
    assert "/hostname: has the wrong type, found 5, allowed: a string" in said


def test_a_copy_alone(image: Path, container: Container, directory: Path) -> None:
    """Without the package beside it everything but the cold paths works; those say what they lack.

    The launcher's path is absolute, so a copy still finds it: it is hidden by a mount.
    """
    copy = directory / "ocirt"
    shutil.copy(image, copy)
    container.command("/bin/echo", "ran")
    container.bundle.save()
    hide = 'mount --make-rprivate / && mount --bind /dev/null "$0" && exec "$@"'
    launcher = Path(__file__).parent.parent.parent / "build/ocirt-plain"

    def alone(*words: str) -> subprocess.CompletedProcess[str]:
        argv = ["unshare", "--mount", "sh", "-c", hide, str(launcher), str(copy)]
        argv += ["--root", str(container.runtime.root), *words]
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )

    place = ("--bundle", str(container.bundle.directory))
    ended = alone("run", *place, container.id)
    assert (ended.returncode, ended.stdout) == (0, "ran\n"), ended.stderr
    container.bundle.set("/hostname", 5)
    container.bundle.save()
    refused = alone("create", *place, container.id)
    assert refused.returncode == 1
    assert "plain Python" in refused.stderr
    assert str(launcher) in refused.stderr
