# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache of compiled filters: what is believed, and what is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocirt.parts import seccomp_cache
from ocirt.parts.seccomp_cache import KEPT, Cache, Filter, key
from ocirt.spec.model import Config, Seccomp


def profile(default: str = "SCMP_ACT_ERRNO", *names: str) -> Seccomp:
    document = {
        "ociVersion": "1.3.0",
        "linux": {
            "seccomp": {
                "defaultAction": default,
                "syscalls": [{"names": list(names or ["read"]), "action": "SCMP_ACT_ALLOW"}],
            }
        },
    }
    found = Config.from_json(document).linux.seccomp
    assert found is not None
    return found


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "libseccomp.so.2"
    path.write_bytes(b"version 1")
    return path


@pytest.fixture
def compiled(library: Path) -> Filter:
    return Filter(bytes(range(64)), ("no\nsuch",), str(library))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache((str(tmp_path / "cache"),))


def entry(cache: Cache) -> Path:
    (path,) = Path(cache.directories[0]).iterdir()
    return path


def test_what_was_stored_is_found(cache: Cache, compiled: Filter) -> None:
    assert cache.load(profile()) is None
    cache.store(profile(), compiled)
    assert cache.load(profile()) == compiled
    assert cache.load(profile("SCMP_ACT_KILL")) is None
    assert cache.load(profile("SCMP_ACT_ERRNO", "write")) is None
    assert entry(cache).stat().st_mode & 0o777 == 0o600


def test_a_damaged_entry_is_not_believed(cache: Cache, compiled: Filter) -> None:
    cache.store(profile(), compiled)
    whole = entry(cache).read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        entry(cache).write_bytes(damaged)
        assert cache.load(profile()) is None
    for length in range(len(whole)):
        entry(cache).write_bytes(whole[:length])
        assert cache.load(profile()) is None
    entry(cache).write_bytes(whole)
    assert cache.load(profile()) == compiled


def test_the_entry_of_another_profile(cache: Cache, compiled: Filter) -> None:
    """Whole and ours, but under a name that isn't its own."""
    cache.store(profile(), compiled)
    other = profile("SCMP_ACT_KILL")
    entry(cache).rename(entry(cache).with_name(key(other)))
    assert cache.load(other) is None


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_an_entry_that_others_could_write(cache: Cache, compiled: Filter, mode: int) -> None:
    cache.store(profile(), compiled)
    entry(cache).chmod(mode)
    assert cache.load(profile()) is None


def test_a_directory_that_others_could_write(cache: Cache, compiled: Filter) -> None:
    cache.store(profile(), compiled)
    Path(cache.directories[0]).chmod(0o777)
    assert cache.load(profile()) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_foreign_owner(cache: Cache, compiled: Filter) -> None:
    cache.store(profile(), compiled)
    os.chown(entry(cache), 1000, 0)
    assert cache.load(profile()) is None
    os.chown(entry(cache), 0, 0)
    os.chown(cache.directories[0], 1000, 0)
    assert cache.load(profile()) is None


def test_a_symbolic_link_or_fifo(cache: Cache, compiled: Filter, tmp_path: Path) -> None:
    cache.store(profile(), compiled)
    path = entry(cache)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert cache.load(profile()) is None
    path.unlink()
    os.mkfifo(path, 0o600)
    assert cache.load(profile()) is None


def test_another_libseccomp(cache: Cache, compiled: Filter, library: Path) -> None:
    cache.store(profile(), compiled)
    library.write_bytes(b"version 2, longer")
    assert cache.load(profile()) is None
    library.unlink()
    assert cache.load(profile()) is None


def test_other_kernel_actions(
    cache: Cache, compiled: Filter, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.store(profile(), compiled)
    monkeypatch.setattr(seccomp_cache, "read_at", lambda *_: "kill_process allow")
    assert cache.load(profile()) is None


def test_a_kernel_that_doesnt_tell_its_actions(
    cache: Cache, compiled: Filter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> str:
        raise FileNotFoundError("actions_avail")

    cache.store(profile(), compiled)
    monkeypatch.setattr(seccomp_cache, "read_at", missing)
    assert cache.load(profile()) is None
    cache.store(profile(), compiled)
    assert cache.load(profile()) == compiled


@pytest.mark.parametrize(
    ("uid", "environment", "places"),
    [
        (0, {}, ("/var/cache/ocirt/seccomp", "/run/ocirt-seccomp")),
        # Root of a user namespace, or a root without a /var and /run to write to.
        (
            0,
            {"XDG_RUNTIME_DIR": "/run/user/5", "HOME": "/h"},
            (
                "/var/cache/ocirt/seccomp",
                "/run/ocirt-seccomp",
                "/run/user/5/ocirt-seccomp",
                "/h/.cache/ocirt-seccomp",
            ),
        ),
        (5, {"HOME": "/h", "XDG_CACHE_HOME": "/c"}, ("/c/ocirt-seccomp",)),
        (5, {"XDG_RUNTIME_DIR": "somewhere"}, ()),
        (5, {}, ()),
    ],
)
def test_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
    uid: int,
    environment: dict[str, str],
    places: tuple[str, ...],
) -> None:
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert seccomp_cache.default_cache().directories == places


def test_the_second_directory_where_the_first_cant_be_made(
    cache: Cache, compiled: Filter, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    second = Cache((str(tmp_path / "file" / "cache"), *cache.directories))
    second.store(profile(), compiled)
    assert second.load(profile()) == cache.load(profile()) == compiled


def test_nowhere_to_write_is_no_error(cache: Cache, compiled: Filter) -> None:
    nowhere = Cache(("/proc/cache",))
    nowhere.store(profile(), compiled)
    assert nowhere.load(profile()) is None
    assert Cache(()).load(profile()) is None


def test_it_doesnt_grow_for_ever(cache: Cache, compiled: Filter) -> None:
    for number in range(KEPT + 5):
        cache.store(profile("SCMP_ACT_ERRNO", f"call{number}"), compiled)
        newest = Path(cache.directories[0], key(profile("SCMP_ACT_ERRNO", f"call{number}")))
        os.utime(newest, (number, number))
    assert len(list(Path(cache.directories[0]).iterdir())) <= KEPT + 1
    assert cache.load(profile("SCMP_ACT_ERRNO", f"call{KEPT + 4}")) == compiled
    assert cache.load(profile("SCMP_ACT_ERRNO", "call0")) is None
