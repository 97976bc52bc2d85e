# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories and interface files, with plain files in the place of the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocirt.cgroups import manager
from ocirt.cgroups.layout import Hierarchy, Layout, Mode
from ocirt.cgroups.manager import CgroupPaths, Phase, Write
from ocirt.errors import StepError


def fake_v2(directory: Path, available: str, enabled: str = "") -> None:
    directory.mkdir()
    for file, text in (
        ("cgroup.controllers", available),
        ("cgroup.subtree_control", enabled),
        ("cgroup.procs", ""),
        ("cgroup.events", "populated 0\nfrozen 0\n"),
        ("cgroup.type", "domain\n"),
    ):
        (directory / file).write_text(text)


def test_v2_enables_what_isnt_yet_from_the_top_to_the_parent(tmp_path: Path) -> None:
    top, parent, leaf = tmp_path / "top", tmp_path / "top/a", tmp_path / "top/a/b"
    fake_v2(top, "cpu memory pids\n", "cpu memory pids")
    fake_v2(parent, "cpu memory pids\n")
    fake_v2(leaf, "")
    unified = Hierarchy(("cpu", "memory", "pids"), str(top))
    manager.create(CgroupPaths({}, str(leaf)), Layout(Mode.V2, (), unified))
    assert (top / "cgroup.subtree_control").read_text() == "cpu memory pids"
    assert (parent / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (leaf / "cgroup.subtree_control").read_text() == ""


def test_v2_leaves_everything_alone_where_the_controllers_are_there(tmp_path: Path) -> None:
    top, leaf = tmp_path / "top", tmp_path / "top/b"
    fake_v2(top, "cpu\n")
    fake_v2(leaf, "cpu\n")
    unified = Hierarchy(("cpu",), str(top))
    manager.create(CgroupPaths({}, str(leaf)), Layout(Mode.V2, (), unified))
    assert (top / "cgroup.subtree_control").read_text() == ""


@pytest.mark.parametrize(
    ("enabled", "place"), [("", "c"), ("cpu\n", "c/init"), ("cpu\n", "c/init/deeper")]
)
def test_where_another_process_may_join(tmp_path: Path, enabled: str, place: str) -> None:
    for name in ("c", "c/other", "c/init", "c/init/deeper"):
        fake_v2(tmp_path / name, "cpu\n", enabled if name == "c" else "")
    (tmp_path / place / "cgroup.procs").write_text("7\n42\n")
    (tmp_path / "c/other/cgroup.procs").write_text("4242\n")
    home = manager.home_of(CgroupPaths({}, str(tmp_path / "c")), 42)
    assert home == str(tmp_path / place)


def test_missing_is_ordered_and_names_shared_parents_once(tmp_path: Path) -> None:
    base = str(tmp_path)
    paths = CgroupPaths({"cpu": f"{base}/a/b", "memory": f"{base}/a/c"})
    assert manager.missing(paths, Layout(Mode.V1)) == (f"{base}/a", f"{base}/a/b", f"{base}/a/c")
    (tmp_path / "a").mkdir()
    assert manager.missing(paths, Layout(Mode.V1)) == (f"{base}/a/b", f"{base}/a/c")


def test_apply_uses_the_other_file_where_the_first_is_missing(tmp_path: Path) -> None:
    (tmp_path / "blkio.weight").write_text("")
    other = Write("blkio", "blkio.weight", "2", "/p")
    write = Write("blkio", "blkio.bfq.weight", "1", "/p", otherwise=other)
    manager.apply(CgroupPaths({"blkio": str(tmp_path)}), [write], Phase.EARLY)
    assert (tmp_path / "blkio.weight").read_text() == "2"


def test_apply_skips_optional_files_only(tmp_path: Path) -> None:
    paths = CgroupPaths({"cpu": str(tmp_path)})
    manager.apply(paths, [Write("cpu", "none", "1", "/p", optional=True)], Phase.EARLY)
    with pytest.raises(StepError, match=r"write '1' to .*/none \[/p\]: ENOENT"):
        manager.apply(paths, [Write("cpu", "none", "1", "/p")], Phase.EARLY)


def test_apply_names_a_controller_that_has_no_directory() -> None:
    with pytest.raises(StepError, match=r"\[/p\].*controller cpu"):
        manager.apply(CgroupPaths({}), [Write("cpu", "f", "1", "/p")], Phase.EARLY)


def test_effective_cpus_are_those_of_the_next_cgroup_that_has_the_controller(
    tmp_path: Path,
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "cpuset.cpus.effective").write_text("0-3\n")
    paths = CgroupPaths({}, str(tmp_path / "a/b"))
    assert manager.effective_cpus(paths) == "0-3"
    (tmp_path / "a/b/cpuset.cpus.effective").write_text("2\n")
    assert manager.effective_cpus(paths) == "2"


def test_effective_cpus_of_v1(tmp_path: Path) -> None:
    (tmp_path / "cpuset.effective_cpus").write_text("1,3\n")
    assert manager.effective_cpus(CgroupPaths({"cpuset": str(tmp_path)})) == "1,3"
    assert manager.effective_cpus(CgroupPaths({"memory": str(tmp_path)})) == ""
