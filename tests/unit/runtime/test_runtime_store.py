# SPDX-License-Identifier: GPL-3.0-or-later
"""The state store and the journal: who wins an id, what a reader sees, what a crash leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ocirt.errors import ContainerNotFoundError, OcirtError, StateConflictError
from ocirt.parts.step import Undo, UndoKind
from ocirt.runtime import journal
from ocirt.runtime.pids import is_alive, open_process, start_time
from ocirt.runtime.store import JOURNAL, STATE, Record, Store, check_id


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "root"))


RECORD = Record("c", "/b", "/b/rootfs", "1.3.0", "2026-01-01T00:00:00Z", 0, annotations={"a": "b"})


@pytest.mark.parametrize("name", ["a", "A-b_c.d+e", "x" * 255, "..."])
def test_good_ids(name: str) -> None:
    check_id(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "x" * 256, "a\n", "-\0"])
def test_bad_ids(name: str) -> None:
    with pytest.raises(OcirtError):
        check_id(name)


def test_an_id_is_taken_once(store: Store) -> None:
    store.reserve("c").close()
    with pytest.raises(OcirtError, match="already exists"):
        store.reserve("c")


def test_of_many_creates_exactly_one_wins(store: Store) -> None:
    script = (
        "import sys; from ocirt.runtime.store import Store\n"
        "from ocirt.errors import OcirtError\n"
        "try: Store(sys.argv[1]).reserve('c')\n"
        "except OcirtError: sys.exit(1)"
    )
    argv = [sys.executable, "-c", script, store.root]
    checkout = str(Path(__file__).parents[3])
    many = [subprocess.Popen(argv, env={"PYTHONPATH": checkout}) for _ in range(6)]
    assert sorted(p.wait(60) for p in many) == [0, 1, 1, 1, 1, 1]


def test_a_record_comes_back(store: Store) -> None:
    entry = store.reserve("c")
    assert entry.read_record() is None
    entry.write_record(RECORD)
    assert entry.read_record() == RECORD
    assert os.stat(entry.path).st_mode & 0o777 == 0o700
    entry.close()


def test_a_record_of_an_ocirt_that_kept_less(store: Store) -> None:
    entry = store.reserve("c")
    entry.write_record(RECORD)
    document = json.loads(entry.read(STATE))
    del document["shares_pids"]
    entry.unlink(STATE)
    entry.write(STATE, json.dumps(document).encode())
    assert entry.read_record() == RECORD
    entry.close()


def test_a_format_that_isnt_known(store: Store) -> None:
    entry = store.reserve("c")
    entry.write(STATE, json.dumps({"format": 2}).encode())
    with pytest.raises(StateConflictError, match="format 2"):
        entry.read_record()
    entry.close()


def test_a_record_of_an_ocirt_that_kept_more(store: Store) -> None:
    """What this one doesn't know it would lose, were it to write the record anew."""
    entry = store.reserve("c")
    entry.write_record(RECORD)
    document = json.loads(entry.read(STATE)) | {"newer": 1}
    entry.unlink(STATE)
    entry.write(STATE, json.dumps(document).encode())
    with pytest.raises(OcirtError, match="newer"):
        entry.read_record()
    entry.close()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"format": 1, "x": 1}', b"\xff"])
def test_a_record_that_cant_be_read_is_a_sentence(store: Store, content: bytes) -> None:
    entry = store.reserve("c")
    entry.write(STATE, content)
    with pytest.raises(OcirtError, match="delete --force c"):
        entry.read_record()
    entry.close()


def test_a_removed_container_is_gone(store: Store) -> None:
    entry = store.reserve("c")
    entry.write_record(RECORD)
    entry.remove()
    assert not entry.is_current()
    entry.close()
    assert store.ids() == []
    with pytest.raises(ContainerNotFoundError):
        store.open("c")


def test_the_lock_is_felt(store: Store) -> None:
    entry = store.reserve("c")
    other = store.open("c")
    assert other.is_locked()
    assert not other.lock(0.05)
    entry.close()
    assert not other.is_locked()
    other.close()


def test_the_journal_keeps_its_order_and_forgets_a_torn_line(store: Store) -> None:
    entry = store.reserve("c")
    undos = [Undo(UndoKind.PROCESS, {"pid": n, "start": 1}) for n in range(3)]
    for undo in undos:
        journal.note(entry, undo)
    with open(os.path.join(entry.path, JOURNAL), "ab") as file:
        file.write(b'{"kind": "process", "pi')
    assert journal.read(entry) == undos
    entry.close()


@pytest.mark.parametrize(("complete", "class_stays"), [(True, True), (False, False)])
def test_undoing_a_class_of_service(
    store: Store, tmp_path: Path, complete: bool, class_stays: bool
) -> None:
    """One with a name of its own stays at delete, and goes after a create that failed."""
    class_, monitor = tmp_path / "gold", tmp_path / "monitor"
    class_.mkdir()
    monitor.mkdir()
    entry = store.reserve("c")
    data = {"class": str(class_), "monitor": str(monitor), "keep": True}
    journal.note(entry, Undo(UndoKind.RESCTRL, data))
    journal.undo_all(entry, complete=complete)
    assert (class_.exists(), monitor.exists()) == (class_stays, False)
    journal.undo_all(entry, complete=complete)  # again, after a crash in between
    entry.close()


def test_undoing_a_mount_that_is_gone(store: Store, tmp_path: Path) -> None:
    """Nothing is unmounted but what has the id on record."""
    entry = store.reserve("c")
    for path in ("/proc", str(tmp_path), "/no/such"):
        journal.note(entry, Undo(UndoKind.MOUNT, {"path": path, "id": 1 << 40}))
    journal.undo_all(entry)
    assert os.path.exists("/proc/self/mountinfo")
    entry.close()


def test_a_process_is_known_by_its_start_time(tmp_path: Path) -> None:
    # A name that looks like the end of the name's field.
    program = tmp_path / "a) S 1 (b"
    os.symlink("/bin/sleep", program)
    with subprocess.Popen([program, "1000"]) as child:
        began = start_time(child.pid)
        assert is_alive(child.pid, began)
        assert not is_alive(child.pid, began + 1)
        assert open_process(child.pid, began + 1) is None
        process = open_process(child.pid, began)
        assert process is not None
        with process:
            assert process.kill(9)
            assert process.wait(10)
        assert not is_alive(child.pid, began)  # a zombie by now


def test_ending_a_process_that_isnt_the_one_meant(store: Store) -> None:
    entry = store.reserve("c")
    with subprocess.Popen(["/bin/sleep", "1000"]) as child:
        start = start_time(child.pid)
        journal.note(entry, Undo(UndoKind.PROCESS, {"pid": child.pid, "start": start + 1}))
        journal.end_processes(entry)
        assert child.poll() is None
        journal.note(entry, Undo(UndoKind.PROCESS, {"pid": child.pid, "start": start}))
        journal.end_processes(entry)
        assert child.wait(10) == -9
    entry.close()
