# SPDX-License-Identifier: GPL-3.0-or-later
"""What the image asks plain Python: answers, refusals, and a plain Python that isn't there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from ocirt import plain
from ocirt.errors import OcirtError
from ocirt.parts.seccomp_compile import compile_profile
from ocirt.plain import call
from ocirt.spec.messages import explain
from ocirt.spec.model_seccomp import Seccomp, SeccompArg, SeccompSyscall

ROOT = Path(__file__).parent.parent.parent
# As the Makefile writes it.
LAUNCHER = """
import sys

sys.path.insert(0, {root!r})
from ocirt.launch import main

sys.exit(main())
"""

Install = Callable[[str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what makes a program the launcher, and lets this process be the image."""

    def write(program: str) -> Path:
        path = tmp_path / "plain"
        path.write_text(f"#!{sys.executable} -I\n{program}")
        path.chmod(0o755)
        monkeypatch.setattr(plain, "LAUNCHER", str(path))
        return path

    return write


def test_plain_python_answers(install: Install) -> None:
    questions = (
        (explain, {"ociVersion": 5, "hostname": ["x\u00e4"]}, "config"),
        (compile_profile, asdict(Seccomp("SCMP_ACT_ERRNO", architectures=("SCMP_ARCH_X86",)))),
    )
    here = [call(*question) for question in questions]
    install(LAUNCHER.format(root=str(ROOT)))
    assert [call(*question) for question in questions] == here
    assert len(here[0]) > 1


def test_it_passes_on_what_went_wrong(install: Install) -> None:
    install(LAUNCHER.format(root=str(ROOT)))
    rule = SeccompSyscall(("read",), "SCMP_ACT_ALLOW", args=(SeccompArg(7, 1, "SCMP_CMP_EQ"),))
    with pytest.raises(OcirtError, match=r"^/linux/seccomp/syscalls/0 .read.: libseccomp refuses"):
        call(compile_profile, asdict(Seccomp("SCMP_ACT_ERRNO", syscalls=(rule,))))
    with pytest.raises(RuntimeError, match=r"^ValueError: 'no such' is not a valid Kind"):
        call(explain, {}, "no such")


def test_it_is_not_there(install: Install) -> None:
    path = install("")
    path.unlink()
    with pytest.raises(OcirtError, match=rf"can't be run: {path}: ENOENT: no such file"):
        call(explain, {}, "config")


def test_its_package_is_not_there(install: Install, tmp_path: Path) -> None:
    """No traceback, but its last line."""
    path = install(LAUNCHER.format(root=str(tmp_path)))
    words = rf"can't be run: {path}: status 1, ModuleNotFoundError: No module named 'ocirt'$"
    with pytest.raises(OcirtError, match=words):
        call(explain, {}, "config")


def test_it_is_killed(install: Install) -> None:
    path = install("import os\nos.kill(os.getpid(), 9)")
    with pytest.raises(OcirtError, match=rf"can't be run: {path}: status -9, no message$"):
        call(explain, {}, "config")


@pytest.mark.parametrize("levels", [1500, 5000])
def test_a_question_that_is_nested_too_deeply(install: Install, levels: int) -> None:
    """For the function, which has to show what is wrong; for being asked at all."""
    install(LAUNCHER.format(root=str(ROOT)))
    document: list[object] = []
    for _ in range(levels):
        document = [document]
    with pytest.raises(RecursionError):
        call(explain, document, "config")


def test_nothing_else_is_to_be_called(install: Install) -> None:
    path = install(LAUNCHER.format(root=str(ROOT)))
    argv = [str(path), plain.ANSWER, "os", "getpid"]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "--answer" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("program", ["", "print('hello')"])
def test_it_says_something_else(install: Install, program: str) -> None:
    path = install(program)
    with pytest.raises(OcirtError, match=rf"can't be run: {path}: its answer can't be read$"):
        call(explain, {}, "config")


def test_it_takes_little_with_it() -> None:
    """What the seccomp profile's answer imports is what a first container waits for."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    script += "import ocirt.launch, ocirt.parts.seccomp_compile; print(*sys.modules)"
    argv = [sys.executable, "-I", "-S", "-c", script]
    loaded = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    heavy = {"dataclasses", "typing", "enum", "re", "json", "subprocess", "ocirt.kernel"}
    assert not heavy & set(loaded.split())
