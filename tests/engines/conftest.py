# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the engine tests: podman and containerd with the runtime under test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.containerd import Containerd
from tests.engines.jail import Jail
from tests.engines.podman import Podman
from tests.integration.conftest import no_leaks, rootfs_template, scratch, token

__all__ = ["no_leaks", "rootfs_template", "scratch", "token"]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip without root."""
    if os.geteuid() != 0:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def executable(pytestconfig: pytest.Config) -> str:
    """The runtime under test."""
    return os.path.abspath(str(pytestconfig.getoption("--runtime")))


@pytest.fixture(scope="session")
def archive(scratch: Path, rootfs_template: Path) -> Path:
    """The root filesystem as a tar archive: an image is made of it without any registry."""
    path = scratch / "rootfs.tar"
    subprocess.run(["tar", "-C", str(rootfs_template), "-cf", str(path), "."], check=True)
    return path


@pytest.fixture(scope="session")
def podman(scratch: Path, archive: Path, executable: str, token: str) -> Iterator[Podman]:
    """Podman with the image "busybox"."""
    if shutil.which("podman") is None:
        pytest.fail("podman isn't installed; `make setup` does it")
    place = scratch / "podman"
    place.mkdir()
    with Jail(Podman.environment(place)) as jail:
        it = Podman(jail, place, executable, f"/ocirt-test-{token}")
        it.call("import", str(archive), "busybox").checked()
        yield it
        it.call("rm", "--force", "--all", "--time", "0")


@pytest.fixture(scope="session")
def containerd(scratch: Path, archive: Path, executable: str, token: str) -> Iterator[Containerd]:
    """containerd with the image "busybox"."""
    if shutil.which("containerd") is None:
        pytest.fail("containerd isn't installed; `make setup` does it")
    place = scratch / "containerd"
    place.mkdir()
    with Jail({}) as jail, Containerd(jail, place, executable, f"ocirt-test-{token}") as it:
        it.load(archive)
        yield it
