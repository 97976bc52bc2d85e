# SPDX-License-Identifier: GPL-3.0-or-later
"""Each command hands over what was given, and prints what it gets."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cli import commands
from ocirt.cli.main import main
from ocirt.errors import OcirtError
from ocirt.runtime import plan, query
from ocirt.runtime.create import CreateOptions
from ocirt.runtime.store import Store

Capture = pytest.CaptureFixture[str]


class Calls(list[tuple[tuple[Any, ...], dict[str, Any]]]):
    """In the place of a function of the runtime room: keeps what it was called with."""

    def __init__(self, result: Any = None) -> None:
        super().__init__()
        self.result = result

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.append((args, kwargs))
        return self.result


def test_create_hands_everything_over(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    monkeypatch.setattr(commands, "create", calls)
    argv = (
        "--root /r --systemd-cgroup --rootless true create -b B -f C --pid-file P"
        " --console-socket S --pidfd-socket F --no-pivot --no-new-keyring --preserve-fds 2"
        " --trace T c1"
    )
    assert main(argv.split()) == 0
    options = CreateOptions(
        "B",
        "C",
        "P",
        "S",
        pidfd_socket="F",
        no_pivot=True,
        no_new_keyring=True,
        preserve_fds=2,
        systemd_cgroup=True,
        rootless=True,
        trace="T",
    )
    assert calls == [((Store("/r"), "c1", options), {})]


def test_create_with_nothing_but_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    monkeypatch.setattr(commands, "create", calls)
    assert main(["--root=/r", "create", "c1"]) == 0
    assert calls == [((Store("/r"), "c1", CreateOptions(".")), {})]


@pytest.mark.parametrize(
    ("options", "detach", "keep", "subreaper"),
    [
        ([], False, False, True),
        (["-d"], True, False, True),
        (["--keep", "-no-subreaper"], False, True, False),
    ],
)
def test_run_returns_the_containers_status(
    options: list[str],
    detach: bool,
    keep: bool,
    subreaper: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = Calls(42)
    monkeypatch.setattr(commands, "run", calls)
    assert main(["run", *options, "c1"]) == 42
    assert calls[0][1] == {"detach": detach, "keep": keep, "subreaper": subreaper}


@pytest.mark.parametrize(
    ("words", "number", "everything"),
    [(["c1"], 15, False), (["c1", "kill"], 9, False), (["--all", "c1", "9"], 9, True)],
)
def test_kill(
    words: list[str], number: int, everything: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls()
    monkeypatch.setattr(commands, "kill", calls)
    assert main(["--root=/r", "kill", *words]) == 0
    assert calls == [((Store("/r"), "c1", number), {"everything": everything})]


@pytest.mark.parametrize("force", [False, True])
def test_delete(force: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    monkeypatch.setattr(commands, "delete", calls)
    assert main(["--root=/r", "delete", f"--force={force}", "c1"]) == 0
    assert calls == [((Store("/r"), "c1"), {"force": force})]


def test_start(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    monkeypatch.setattr(commands, "start", calls)
    monkeypatch.setenv("NOTIFY_SOCKET", "/n")
    assert main(["--root=/r", "start", "c1"]) == 0
    assert calls == [((Store("/r"), "c1", "/n"), {})]


def test_state_is_json_on_several_lines(monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    monkeypatch.setattr(query, "state", Calls({"id": "c1", "pid": 7}))
    assert main(["state", "c1"]) == 0
    assert capfd.readouterr().out == '{\n  "id": "c1",\n  "pid": 7\n}\n'


STATE = {
    "ociVersion": "1.3.0",
    "id": "c1",
    "pid": 4711,
    "status": "running",
    "bundle": "/a/long/bundle",
    "created": "2026-01-02T03:04:05Z",
    "owner": "root",
}


class TestList:
    def test_table_is_as_runc_prints_it(
        self, monkeypatch: pytest.MonkeyPatch, capfd: Capture
    ) -> None:
        monkeypatch.setattr(query, "list_containers", Calls([STATE]))
        assert main(["list"]) == 0
        assert capfd.readouterr().out == (
            "ID          PID         STATUS      BUNDLE           CREATED                OWNER\n"
            "c1          4711        running     /a/long/bundle   2026-01-02T03:04:05Z   root\n"
        )

    def test_json_is_an_array_on_one_line(
        self, monkeypatch: pytest.MonkeyPatch, capfd: Capture
    ) -> None:
        monkeypatch.setattr(query, "list_containers", Calls([STATE]))
        assert main(["list", "-f", "json"]) == 0
        out = capfd.readouterr().out
        assert json.loads(out) == [STATE]
        assert out.count("\n") == 1

    def test_of_nothing(self, tmp_path: Path, capfd: Capture) -> None:
        root = f"--root={tmp_path}/none"
        assert main([root, "list", "--format=json"]) == 0
        assert main([root, "list", "-q"]) == 0
        assert capfd.readouterr().out == "[]\n"
        assert not (tmp_path / "none").exists()


class TestSpec:
    def test_writes_a_configuration_that_is_valid(self, tmp_path: Path, capfd: Capture) -> None:
        for rootless in ("false", "true"):
            bundle = tmp_path / rootless
            bundle.mkdir()
            assert main(["spec", f"--rootless={rootless}", "-b", str(bundle)]) == 0
            assert main(["validate", "-b", str(bundle)]) == 0
            assert capfd.readouterr().out == f"{bundle}/config.json: valid\n"

    def test_overwrites_nothing(self, tmp_path: Path, capfd: Capture) -> None:
        config = tmp_path / "config.json"
        config.write_text("mine")
        assert main(["spec", "--bundle", str(tmp_path)]) == 1
        assert config.read_text() == "mine"
        assert f"{config} exists" in capfd.readouterr().err

    def test_maps_who_runs_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 7)
        monkeypatch.setattr(os, "getegid", lambda: 8)
        assert main(["spec", "--rootless", "-b", str(tmp_path)]) == 0
        linux = json.loads((tmp_path / "config.json").read_text())["linux"]
        assert linux["uidMappings"] == [{"containerID": 0, "hostID": 7, "size": 1}]
        assert linux["gidMappings"] == [{"containerID": 0, "hostID": 8, "size": 1}]


class TestValidate:
    def test_a_file_without_an_end_is_too_long(self, tmp_path: Path, capfd: Capture) -> None:
        assert main(["validate", "-b", str(tmp_path), "-f", "/dev/zero"]) == 1
        assert "is too long" in capfd.readouterr().out

    def test_lists_every_error(self, tmp_path: Path, capfd: Capture) -> None:
        (tmp_path / "config.json").write_text('{"ociVersion": 1, "hostname": 1}')
        assert main(["validate", "-b", str(tmp_path)]) == 1
        lines = capfd.readouterr().out.splitlines()
        assert any(line.startswith("error: /ociVersion: ") for line in lines)
        assert any(line.startswith("error: /hostname: ") for line in lines)

    def test_reports_as_json(self, tmp_path: Path, capfd: Capture) -> None:
        (tmp_path / "other.json").write_text('{"ociVersion": 1}')
        assert main(["validate", "-b", str(tmp_path), "-f", "other.json", "--format=json"]) == 1
        report = json.loads(capfd.readouterr().out)
        assert report["valid"] is False
        assert "/ociVersion" in [error["pointer"] for error in report["errors"]]

    def test_says_how_to_get_a_missing_one(self, tmp_path: Path, capfd: Capture) -> None:
        assert main(["validate", "-b", str(tmp_path)]) == 1
        err = capfd.readouterr().err
        assert f"{tmp_path}/config.json: ENOENT" in err
        assert "ocirt spec" in err


ROWS = [
    {"number": 1, "phase": "create", "side": "runtime", "step": "do", "pointer": "", "undo": "un"},
    {"number": 2, "phase": "start", "side": "stub", "step": "go", "pointer": "/p", "undo": ""},
]


class TestPlan:
    def test_text(self, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
        calls = Calls(ROWS)
        monkeypatch.setattr(plan, "describe", calls)
        assert main(["plan", "-b", "B", "c1"]) == 0
        assert calls[0][0][1:] == ("c1", CreateOptions("B"))
        assert capfd.readouterr().out == (
            "create:\n   1  runtime  do\n               undo: un\nstart:\n   2  stub     go  [/p]\n"
        )

    def test_json(self, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
        calls = Calls(ROWS)
        monkeypatch.setattr(plan, "describe", calls)
        assert main(["plan", "--format", "json"]) == 0
        assert calls[0][0][1] is None
        assert json.loads(capfd.readouterr().out) == ROWS


def test_features_are_json(capfd: Capture) -> None:
    assert main(["features"]) == 0
    assert json.loads(capfd.readouterr().out)["ociVersionMax"] == "1.3.0"


class TestRoot:
    """runc's rule for where states are kept."""

    @pytest.fixture
    def stores(self, monkeypatch: pytest.MonkeyPatch) -> Calls:
        calls = Calls()
        monkeypatch.setattr(commands, "start", calls)
        return calls

    @pytest.mark.parametrize(
        ("euid", "user_namespace", "environment", "root"),
        [
            (0, False, {}, "/run/ocirt"),
            (0, False, {"XDG_RUNTIME_DIR": "/x"}, "/run/ocirt"),
            (1000, False, {"XDG_RUNTIME_DIR": "/x"}, "/x/ocirt"),
            (1000, False, {}, "/run/ocirt"),
            (0, True, {"XDG_RUNTIME_DIR": "/x"}, "/x/ocirt"),
            (0, True, {"XDG_RUNTIME_DIR": "/x", "USER": "me"}, "/x/ocirt"),
            (0, True, {"XDG_RUNTIME_DIR": "/x", "USER": "root"}, "/run/ocirt"),
        ],
    )
    def test_default(
        self,
        euid: int,
        user_namespace: bool,
        environment: dict[str, str],
        root: str,
        stores: Calls,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name in ("XDG_RUNTIME_DIR", "USER"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        id_map = "0 1000 1\n" if user_namespace else "0 0 4294967295\n"
        monkeypatch.setattr(os, "geteuid", lambda: euid)
        monkeypatch.setattr(
            commands, "open", lambda path, encoding: io.StringIO(id_map), raising=False
        )
        assert main(["start", "c"]) == 0
        assert stores[0][0][0] == Store(root)

    def test_is_made_absolute(
        self, stores: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["--root", "a/../b", "start", "c"]) == 0
        assert stores[0][0][0] == Store(f"{tmp_path}/b")

    @pytest.mark.parametrize("root", ["/", "//", "/run/.."])
    def test_is_never_the_hosts_root(self, root: str, stores: Calls, capfd: Capture) -> None:
        assert main(["--root", root, "start", "c"]) == 1
        assert "--root can't be /" in capfd.readouterr().err
        assert not stores


@pytest.mark.parametrize(
    ("manager", "systemd"), [("cgroupfs", False), ("systemd", True), ("disabled", None)]
)
def test_cgroup_manager_is_cruns_spelling(
    manager: str, systemd: bool | None, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    calls = Calls()
    monkeypatch.setattr(commands, "create", calls)
    status = main(["--cgroup-manager", manager, "create", "c"])
    assert status == (systemd is None)
    assert [args[2].systemd_cgroup for args, _ in calls] == [systemd] * (systemd is not None)


def test_an_unknown_container(tmp_path: Path, capfd: Capture) -> None:
    for words in (["state", "c"], ["start", "c"], ["kill", "c"], ["delete", "c"]):
        assert main([f"--root={tmp_path}", *words]) == 1
        assert "container does not exist: c" in capfd.readouterr().err
    assert main([f"--root={tmp_path}", "delete", "--force", "c"]) == 0


def test_calls_can_fail(monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    def refuse(*args: object) -> None:
        raise OcirtError("not today")

    monkeypatch.setattr(commands, "start", refuse)
    assert main(["start", "c"]) == 1
    assert capfd.readouterr().err == "ocirt start failed: not today\n"


TEXTS = st.text(max_size=5)


@given(
    st.dictionaries(
        TEXTS, st.one_of(TEXTS, st.integers(), st.dictionaries(TEXTS, TEXTS)), max_size=5
    )
)
def test_indented_is_what_json_says(document: dict[str, object]) -> None:
    assert commands.indented(document) == json.dumps(document, indent=2)
