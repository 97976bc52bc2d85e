# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the integration tests: the runtime under test, containers, the search for leaks."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bundles.make import make_rootfs
from tests.harness import Bundle, Container, Runtime, cgroup, leaks

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip without root; expect the failures that a peer is known for."""
    ours = [item for item in items if HERE in item.path.parents]
    if os.geteuid() != 0:
        for item in ours:
            item.add_marker(pytest.mark.skip(reason="needs root"))
        return
    marked = [(item, mark) for item in ours for mark in item.iter_markers("peer_fails")]
    if not marked:
        return
    version = Runtime(_executable(config), Path("/nonexistent")).version()
    for item, mark in marked:
        peer, why = mark.args
        if version.startswith(f"{peer} "):
            # Not strict: a later release may have mended it. -r in addopts prints the reasons.
            item.add_marker(pytest.mark.xfail(reason=f"{version}: {why}", strict=False))


def _executable(config: pytest.Config) -> str:
    path = os.path.abspath(str(config.getoption("--runtime")))
    if not os.access(path, os.X_OK):
        raise pytest.UsageError(f"--runtime {path}: not an executable file (make build makes ours)")
    return path


@pytest.fixture(scope="session")
def token() -> str:
    """Marks all that this run makes: cgroups by name, processes by their environment."""
    return secrets.token_hex(4)


@pytest.fixture(scope="session", autouse=True)
def no_leaks(token: str) -> Iterator[None]:
    """Fail the run if the machine has more of anything after it than before."""
    mark = f"OCIRT_TEST={token}"
    os.environ["OCIRT_TEST"] = token
    before = leaks.snapshot(mark)
    yield
    # No runtime may remove this: it is above the cgroups that the tests ask for.
    cgroup.remove_tree(f"/ocirt-test-{token}")
    if report := leaks.leaked(before, mark):
        pytest.fail(f"the tests left traces on this machine:\n{report}", pytrace=False)


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A directory with a short name (socket addresses are short) that any user may enter."""
    path = Path(tempfile.mkdtemp(prefix="ocirt-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def rootfs_template(scratch: Path) -> Path:
    """A busybox root filesystem, made once."""
    path = scratch / "rootfs"
    make_rootfs(path)
    return path


@pytest.fixture(scope="session")
def call_program(scratch: Path) -> Path:
    """tests/harness/call.c, compiled."""
    path = scratch / "call"
    argv = [
        "gcc",
        "-std=c11",
        "-O1",
        "-static",
        "-pthread",
        str(HERE.parent / "harness/call.c"),
        "-o",
        str(path),
    ]
    subprocess.run(argv, check=True)
    return path


@pytest.fixture
def directory(scratch: Path) -> Iterator[Path]:
    """A directory of this test's own; like tmp_path, but with a short name and open to users."""
    path = Path(tempfile.mkdtemp(dir=scratch, prefix=""))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def runtime(pytestconfig: pytest.Config, directory: Path) -> Runtime:
    """The runtime under test, with an empty state directory."""
    return Runtime(_executable(pytestconfig), directory / "run")


MakeContainer = Callable[[], Container]


@pytest.fixture
def make_container(
    runtime: Runtime, directory: Path, rootfs_template: Path, token: str
) -> Iterator[MakeContainer]:
    """Make containers (none is created yet); afterwards delete them and look for what is left."""
    # Deletes all of them even if one can't be.
    with ExitStack() as clean_ups:
        numbers = itertools.count()

        def make() -> Container:
            container_id = f"t{secrets.token_hex(4)}"
            cgroups_path = f"/ocirt-test-{token}/{container_id}"
            place = directory / f"bundle{next(numbers)}"
            bundle = Bundle(place, rootfs_template, cgroups_path)
            bundle.set("/process/env/-", f"OCIRT_TEST={token}")
            container = Container(runtime, container_id, bundle)
            clean_ups.callback(container.clean_up)
            return container

        yield make


@pytest.fixture
def container(make_container: MakeContainer) -> Container:
    """One container."""
    return make_container()


@pytest.fixture
def image(container: Container) -> Path:
    """The runtime under test, if it is an image."""
    path = Path(container.runtime.executable)
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    if "start: image" not in version.stdout:
        pytest.skip("about the image")
    return path
