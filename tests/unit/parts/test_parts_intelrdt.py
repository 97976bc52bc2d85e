# SPDX-License-Identifier: GPL-3.0-or-later
"""Intel RDT on an imitated resctrl: what is written where, and what is taken back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ocirt.errors import OcirtError
from ocirt.parts import intelrdt
from ocirt.parts.intelrdt import AssignInit, Group, MakeGroup, open_tasks, remove
from ocirt.parts.step import Context, Undo
from ocirt.spec.model import Config, IntelRdt

ID = "box"
PID = 4711


class Resctrl:
    """A directory like resctrl: a new group has its files, and goes with them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._mkdir, self._rmdir = os.mkdir, os.rmdir
        (root / "info").mkdir()
        (root / "info/last_cmd_status").write_text("ok\n")
        self._furnish(root)
        monkeypatch.setattr(intelrdt, "mountpoint", lambda: str(root))
        monkeypatch.setattr(os, "mkdir", self.mkdir)
        monkeypatch.setattr(os, "rmdir", self.rmdir)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self._mkdir(path, mode)
        self._furnish(Path(path))

    def rmdir(self, path: str) -> None:
        for place, below, files in os.walk(path, topdown=False):
            for name in files:
                os.unlink(f"{place}/{name}")
            for name in below:
                self._rmdir(f"{place}/{name}")
        self._rmdir(path)

    def _furnish(self, group: Path) -> None:
        (group / "tasks").write_text("")
        if group.parent.name != "mon_groups":
            (group / "schemata").write_text("    MB:0=100;1=100\n    L3:0=fffff;1=fffff\n")
            self._mkdir(group / "mon_groups")

    def text(self, path: str) -> str:
        return (self.root / path).read_text()


@pytest.fixture
def resctrl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resctrl:
    return Resctrl(tmp_path, monkeypatch)


def context(**rdt: Any) -> Context:
    document = {"ociVersion": "1.3.0", "linux": {"intelRdt": rdt}}
    c = Context(
        config=Config.from_json(document),
        container_id=ID,
        bundle="/b",
        rootfs="/b/rootfs",
        warn=lambda text: None,
        born=lambda pid, pidfd: None,
    )
    c.init_pid = PID
    return c


def make(c: Context) -> Undo:
    """Do what create does, and return what the journal has of it."""
    rdt = wanted(c)
    action = MakeGroup(rdt)
    undo = action.undo(c)
    action.run(c)
    AssignInit(rdt).run(c)
    return undo


def wanted(c: Context) -> IntelRdt:
    rdt = c.config.linux.intel_rdt
    assert rdt is not None
    return rdt


def test_without_a_name_the_class_has_the_containers_and_goes_with_it(resctrl: Resctrl) -> None:
    undo = make(context(l3CacheSchema="L3:0=7f0;1=1f", memBwSchema="MB:0=20;1=70"))
    assert resctrl.text(f"{ID}/schemata").startswith("L3:0=7f0;1=1f\nMB:0=20;1=70\n")
    assert resctrl.text(f"{ID}/tasks") == str(PID)
    remove(undo, complete=True)
    assert not (resctrl.root / ID).exists()
    remove(undo, complete=True)  # again, after a crash in between


def test_the_order_of_the_schemata(resctrl: Resctrl) -> None:
    lines = ["L2:0=f;1=f", "MB:0=10"]
    make(context(schemata=lines, memBwSchema="MB:0=20;1=70", l3CacheSchema="L3:0=7f0;1=1f"))
    written = resctrl.text(f"{ID}/schemata").splitlines()[:4]
    assert written == ["L3:0=7f0;1=1f", "MB:0=20;1=70", *lines]


def test_without_schemata_none_is_written(resctrl: Resctrl) -> None:
    before = resctrl.text("schemata")
    make(context())
    assert resctrl.text(f"{ID}/schemata") == before
    assert resctrl.text(f"{ID}/tasks") == str(PID)


def test_the_default_class(resctrl: Resctrl) -> None:
    before = resctrl.text("schemata")
    undo = make(context(closID="/"))
    assert resctrl.text("tasks") == str(PID)
    assert resctrl.text("schemata") == before
    remove(undo, complete=True)
    remove(undo, complete=False)
    assert (resctrl.root / "schemata").exists()


def test_a_name_alone_is_of_a_class_that_is_there(resctrl: Resctrl) -> None:
    with pytest.raises(OcirtError, match=r"gold doesn't exist"):
        make(context(closID="gold"))
    assert not (resctrl.root / "gold").exists()
    os.mkdir(resctrl.root / "gold")
    undo = make(context(closID="gold"))
    assert resctrl.text("gold/tasks") == str(PID)
    remove(undo, complete=True)
    assert (resctrl.root / "gold").exists()


def test_a_named_class_is_made_and_stays(resctrl: Resctrl) -> None:
    undo = make(context(closID="gold", schemata=["L3:0=f"]))
    assert resctrl.text("gold/schemata").startswith("L3:0=f\n")
    remove(undo, complete=True)
    assert (resctrl.root / "gold").exists()


def test_a_create_that_failed_takes_a_named_class_back_unless_it_is_used(resctrl: Resctrl) -> None:
    undo = make(context(closID="gold", schemata=["L3:0=f"]))
    remove(undo, complete=False)
    assert (resctrl.root / "gold").exists(), "somebody is in it"
    (resctrl.root / "gold/tasks").write_text("")
    remove(undo, complete=False)
    assert not (resctrl.root / "gold").exists()


@pytest.mark.parametrize(
    ("rdt", "same"),
    [
        ({"l3CacheSchema": "L3:0=fffff;1=fffff"}, True),
        ({"l3CacheSchema": "L3:1=0FFFFF"}, True),
        ({"l3CacheSchema": "L3:0=ff"}, False),
        ({"l3CacheSchema": "L3CODE:0=fffff"}, False),
        ({"memBwSchema": "MB:0=100; 1=100"}, True),
        ({"memBwSchema": "MB:0=10"}, False),
        ({"l3CacheSchema": "L3:0=fffff", "memBwSchema": "MB:0=10"}, False),
    ],
)
def test_a_class_that_is_there_must_have_these_schemata(
    resctrl: Resctrl, rdt: dict[str, str], same: bool
) -> None:
    os.mkdir(resctrl.root / "gold")
    c = context(closID="gold", **rdt)
    if same:
        make(c)
        return
    with pytest.raises(OcirtError, match=r"gold exists with other schemata than .*MB:0=100"):
        make(c)
    assert resctrl.text("gold/tasks") == ""


@pytest.mark.parametrize(
    ("rdt", "above"), [({}, ID), ({"closID": "gold"}, "gold"), ({"closID": "/"}, "")]
)
def test_monitoring(resctrl: Resctrl, rdt: dict[str, str], above: str) -> None:
    if rdt.get("closID") == "gold":
        os.mkdir(resctrl.root / "gold")
    undo = make(context(enableMonitoring=True, **rdt))
    group = resctrl.root / above / "mon_groups" / ID
    assert (group / "tasks").read_text() == str(PID)
    assert (resctrl.root / above / "tasks").read_text() == str(PID)
    remove(undo, complete=True)
    assert not group.exists()


def test_a_monitoring_group_of_somebody_elses(resctrl: Resctrl) -> None:
    os.mkdir(resctrl.root / "mon_groups" / ID)
    c = context(closID="/", enableMonitoring=True)
    undo = MakeGroup(wanted(c)).undo(c)
    with pytest.raises(OcirtError, match="exists already"):
        MakeGroup(wanted(c)).run(c)
    remove(undo, complete=False)
    assert (resctrl.root / "mon_groups" / ID).exists()


def test_the_kernels_words(resctrl: Resctrl, monkeypatch: pytest.MonkeyPatch) -> None:
    (resctrl.root / "info/last_cmd_status").write_text("Out of CLOSIDs\n")

    def full(path: str, mode: int = 0) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(OSError, match="Out of CLOSIDs"):
        make(context())


def test_another_process_of_the_container(resctrl: Resctrl) -> None:
    c = context(enableMonitoring=True)
    make(c)
    opened = list(open_tasks(c))
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in opened] == [
        str(resctrl.root / ID / "tasks"),
        str(resctrl.root / ID / "mon_groups" / ID / "tasks"),
    ]
    for fd in opened:
        os.close(fd)


def test_a_name_that_resctrl_has_for_itself(resctrl: Resctrl) -> None:
    with pytest.raises(OcirtError, match="no class of service"):
        Group.of(IntelRdt(clos_id="info"), ID)


def test_where_resctrl_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    line = "30 24 0:27 / /sys/fs/resctrl rw,relatime shared:9 - resctrl resctrl rw\n"
    (tmp_path / "self/mountinfo").write_text(line)
    assert intelrdt.mountpoint(str(tmp_path)) == "/sys/fs/resctrl"
    (tmp_path / "self/mountinfo").write_text("")
    with pytest.raises(OcirtError, match="no resctrl"):
        intelrdt.mountpoint(str(tmp_path))
