# SPDX-License-Identifier: GPL-3.0-or-later
"""Options and fixtures of the conformance suite.

The whole run has mount, network, IPC and UTS namespaces of its own: what a test prepares (shared
mounts, network devices) is nobody else's, and what a runtime leaves goes with the run.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from conformance import peer
from conformance.reporting import Reporter
from tests.harness import Bundle, Container, Runtime, cgroup, proc
from tests.harness.container import PATIENCE_SECONDS, PAUSE_SECONDS

# The fixtures of the integration tests that any runtime can be tested with.
from tests.integration.conftest import directory, rootfs_template, scratch, token

__all__ = ["directory", "rootfs_template", "scratch", "token"]

DEFAULT_RUNTIME = Path(__file__).resolve().parent.parent / "build/ocirt"

# unshare(2), mount(2), umount2(2).
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET = 0x20000, 0x4000000, 0x8000000, 0x40000000
MS_REC, MS_PRIVATE, MNT_DETACH = 0x4000, 0x40000, 2


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--runtime", metavar="PATH", default=str(DEFAULT_RUNTIME), help="the runtime to test"
    )
    parser.addoption("--tap", metavar="FILE", help="write the results as TAP (- for stdout)")
    parser.addoption("--results", metavar="FILE", help="write the results as JSON, for the page")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "requirement(what): the demand that a test shows met or not")
    config.addinivalue_line("markers", "right(why): why a test is right that no peer passes")
    config.addinivalue_line("markers", "missing(what): what ocirt lacks, so that the test fails")
    config.pluginmanager.register(Reporter(config), "conformance-reporter")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Expect what ocirt is known to lack. A runtime of another name gets no such favour."""
    if config.option.collectonly or not peer.version(_executable(config)).startswith("ocirt "):
        return
    for item in items:
        if (mark := item.get_closest_marker("missing")) is not None:
            # Strict: who adds what is missing removes the mark.
            item.add_marker(pytest.mark.xfail(reason=mark.args[0], strict=True))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Enter the namespaces of this run."""
    if session.config.option.collectonly:
        return
    if os.geteuid() != 0:
        raise pytest.UsageError("the conformance suite needs root")
    libc = ctypes.CDLL(None, use_errno=True)

    def call(function: str, *arguments: object) -> None:
        if libc[function](*arguments) != 0:
            raise OSError(ctypes.get_errno(), function)

    call("unshare", CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET)
    call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    places = cgroup.hierarchies()
    if peer.refuses_hybrid(_executable(session.config)) and len(set(places.values())) > 1:
        with suppress(KeyError):
            call("umount2", os.fsencode(places[""]), MNT_DETACH)


def _executable(config: pytest.Config) -> str:
    path = os.path.abspath(str(config.getoption("--runtime")))
    if not os.access(path, os.X_OK):
        raise pytest.UsageError(f"--runtime {path}: not an executable file (make build makes ours)")
    return path


@pytest.fixture(scope="session", autouse=True)
def own_cgroup(token: str) -> Iterator[None]:
    """All containers' cgroups are below one, which goes at the end."""
    os.environ["OCIRT_TEST"] = token
    yield
    cgroup.remove_tree(f"/ocirt-test-{token}")
    assert not cgroup.directories(f"/ocirt-test-{token}"), "cgroups are left"


@pytest.fixture
def runtime(pytestconfig: pytest.Config, directory: Path) -> Runtime:
    """The runtime under test, with an empty state directory."""
    return Runtime(_executable(pytestconfig), directory / "run")


MakeContainer = Callable[[], Container]


@pytest.fixture
def make_container(
    runtime: Runtime, directory: Path, rootfs_template: Path, token: str
) -> Iterator[MakeContainer]:
    """Make containers (none is created yet); afterwards delete them, and fail if any is left."""
    with ExitStack() as clean_ups:
        numbers = itertools.count()

        def make() -> Container:
            container_id = f"c{secrets.token_hex(4)}"
            place = directory / f"bundle{next(numbers)}"
            bundle = Bundle(place, rootfs_template, f"/ocirt-test-{token}/{container_id}")
            container = Container(runtime, container_id, bundle)
            clean_ups.callback(_clean_up, container)
            return container

        yield make


def _clean_up(container: Container) -> None:
    """Delete the container whatever became of it. Unlike in the tests of ocirt alone, the exit
    status says nothing: runtimes differ about deleting by force what isn't there."""
    container.runtime.call("delete", "--force", container.id)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (left := container.remains()) and time.monotonic() < deadline:
        time.sleep(PAUSE_SECONDS)
    if left:
        container.sweep()
        _unmount_below(container.bundle.directory)
    assert not left, "left behind:\n" + "\n".join(left)


def _unmount_below(directory: Path) -> None:
    places = [line.split()[4] for line in proc.mountinfo()]
    for place in reversed([place for place in places if place.startswith(f"{directory}/")]):
        subprocess.run(["umount", "-l", place], check=False)


@pytest.fixture
def container(make_container: MakeContainer) -> Container:
    """One container."""
    return make_container()
