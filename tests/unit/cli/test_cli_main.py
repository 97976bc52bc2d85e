# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user sees: output, one sentence for what went wrong, and the exit status."""

from __future__ import annotations

import datetime
import errno
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ocirt
from ocirt.cli import commands
from ocirt.cli.main import main
from ocirt.cli.parse import Invocation
from ocirt.cli.table import COMMANDS, GLOBALS, Command
from ocirt.errors import OcirtError

Capture = pytest.CaptureFixture[str]

# main() in a process of its own, with the descriptors and signals a test gives it.
PROGRAM = [sys.executable, "-m", "ocirt"]
TOP = Path(ocirt.__file__).parent.parent


def replace(patch: pytest.MonkeyPatch, name: str, handler: Callable[[Invocation], int]) -> None:
    patch.setitem(commands.HANDLERS, name, handler)


def fail_with(error: BaseException) -> Callable[[Invocation], int]:
    def handler(invocation: Invocation) -> int:
        raise error

    return handler


class TestHelp:
    def test_the_overview_names_every_command_and_global_option(self, capfd: Capture) -> None:
        assert main(["--help"]) == 0
        out = capfd.readouterr().out
        for command in COMMANDS:
            assert f"  {command.name} " in out
        for option in GLOBALS:
            assert (f"--{option.name} " in out) is not option.hidden
        assert max(len(line) for line in out.splitlines()) <= 80

    @pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
    @pytest.mark.parametrize("ask", ["NAME --help", "help NAME", "-h NAME", "NAME -h"])
    def test_of_a_command_with_all_its_options(
        self, command: Command, ask: str, capfd: Capture
    ) -> None:
        assert main(ask.replace("NAME", command.name).split()) == 0
        out = capfd.readouterr().out
        assert f"Usage: ocirt {command.name}" in out
        for option in command.options:
            assert (f"--{option.name} " in f"{out} ") is not option.hidden
        assert max(len(line) for line in out.splitlines()) <= 80

    def test_of_an_unknown_command(self, capfd: Capture) -> None:
        assert main(["help", "delte"]) == 1
        assert capfd.readouterr().err == "ocirt: unknown command 'delte'; did you mean delete?\n"

    def test_no_arguments_at_all(self, capfd: Capture) -> None:
        assert main([]) == 1
        assert "Usage:" in capfd.readouterr().out


@pytest.mark.parametrize("spelling", ["--version", "-v", "version", "-version"])
def test_engines_parse_the_first_line_of_the_version(spelling: str, capfd: Capture) -> None:
    assert main([spelling]) == 0
    first, second, *_ = capfd.readouterr().out.splitlines()
    assert first == f"ocirt version {ocirt.__version__}"
    assert second == "spec: 1.3.0"


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (OcirtError("no such luck"), "ocirt create failed: no such luck\n"),
            (
                PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/run/x"),
                "ocirt create failed: /run/x: EACCES: permission denied\n",
            ),
            (
                TypeError("a surprise"),
                "ocirt create failed: internal error: TypeError: a surprise (this is a bug in"
                " ocirt; --debug shows where)\n",
            ),
        ],
    )
    def test_are_one_sentence(
        self, error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capfd: Capture
    ) -> None:
        replace(monkeypatch, "create", fail_with(error))
        assert main(["create", "c"]) == 1
        assert capfd.readouterr() == ("", said)

    def test_the_exit_status_is_the_errors(
        self, monkeypatch: pytest.MonkeyPatch, capfd: Capture
    ) -> None:
        error = OcirtError("x")
        error.exit_status = 255
        replace(monkeypatch, "create", fail_with(error))
        assert main(["create", "c"]) == 255

    def test_debug_shows_where(self, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
        replace(monkeypatch, "create", fail_with(TypeError("a surprise")))
        assert main(["--debug", "create", "c"]) == 1
        *before, last = capfd.readouterr().err.splitlines()
        assert any("in handler" in line for line in before)
        assert last.startswith("ocirt create failed: internal error")

    def test_a_mistake_on_the_command_line(self, capfd: Capture) -> None:
        assert main(["create", "--pidfile", "x", "c"]) == 1
        assert capfd.readouterr().err == (
            "ocirt: unknown option '--pidfile' of `ocirt create`; did you mean --pid-file?\n"
        )


class TestLog:
    def test_json_has_the_keys_that_engines_read(self, tmp_path: Path, capfd: Capture) -> None:
        log = tmp_path / "log"
        argv = ["--root", str(tmp_path), "--log", str(log), "--log-format", "json", "state", "c"]
        assert main(argv) == 1
        [line] = log.read_text().splitlines()
        message = json.loads(line)
        assert set(message) == {"level", "msg", "time"}
        assert message["level"] == "error"
        assert message["msg"].startswith("ocirt state failed: container does not exist: c")
        assert datetime.datetime.fromisoformat(message["time"]).tzinfo is not None
        # And stderr has it, too.
        assert capfd.readouterr().err == message["msg"] + "\n"

    def test_text_is_as_logrus_writes_it(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        assert main(["--root", str(tmp_path), "--log", str(log), "state", "c"]) == 1
        assert ' level=error msg="ocirt state failed: container ' in log.read_text()
        assert log.read_text().startswith('time="')

    def test_is_appended_to(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text("before\n")
        for _ in range(2):
            assert main(["--root", str(tmp_path), "--log", str(log), "state", "c"]) == 1
        before, *added = log.read_text().splitlines()
        assert before == "before"
        assert len(added) == 2

    def test_has_mistakes_on_the_command_line_too(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        argv = ["--log", str(log), "--log-format=json", "create", "--bundel", "x"]
        assert main(argv) == 1
        assert "did you mean --bundle?" in json.loads(log.read_text())["msg"]

    def test_the_error_is_the_last_line_even_with_debug(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        argv = ["--debug", "--root", str(tmp_path), "--log", str(log), "--log-format=json"]
        assert main([*argv, "state", "c"]) == 1
        first, *_, last = (json.loads(line)["level"] for line in log.read_text().splitlines())
        assert (first, last) == ("debug", "error")

    def test_warnings_go_to_the_file_instead_of_stderr(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
    ) -> None:
        def warn(invocation: Invocation) -> int:
            logging.getLogger("ocirt").warning("mind the gap")
            return 0

        replace(monkeypatch, "create", warn)
        assert main(["create", "c"]) == 0
        assert capfd.readouterr().err == "ocirt: warning: mind the gap\n"
        log = tmp_path / "log"
        assert main(["--log", str(log), "create", "c"]) == 0
        assert capfd.readouterr().err == ""
        assert 'level=warning msg="mind the gap"' in log.read_text()
        assert main(["--log-level", "error", "create", "c"]) == 0
        assert capfd.readouterr().err == ""

    def test_that_cannot_be_written(self, tmp_path: Path, capfd: Capture) -> None:
        assert main(["--log", str(tmp_path / "no/log"), "list"]) == 1
        assert capfd.readouterr().err == (
            f"ocirt: --log: {tmp_path}/no/log: ENOENT: no such file or directory\n"
        )

    def test_its_descriptor_is_never_one_to_preserve(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = tmp_path / "log"
        seen: list[int] = []

        def look(invocation: Invocation) -> int:
            for fd in os.listdir("/proc/self/fd"):
                path = f"/proc/self/fd/{fd}"
                if os.path.exists(path) and os.readlink(path) == str(log):
                    seen.append(int(fd))
            return 0

        replace(monkeypatch, "create", look)
        assert main(["--log", str(log), "create", "--preserve-fds", "200", "c"]) == 0
        assert len(seen) == 1 and seen[0] >= 203
        assert not os.get_inheritable(seen[0])

    @pytest.mark.parametrize("count", ["99999999", "999999999999999999"])
    def test_is_not_to_blame_for_descriptors_that_cannot_be(
        self, count: str, tmp_path: Path, capfd: Capture
    ) -> None:
        log = tmp_path / "log"
        assert main(["--log", str(log), "create", "--preserve-fds", count, "c"]) == 1
        assert "--preserve-fds" in capfd.readouterr().err
        assert "--preserve-fds" in log.read_text()

    def test_a_file_may_be_called_one(self, tmp_path: Path) -> None:
        log = tmp_path / "a:b"
        for destination in (str(log), f"file:{log}"):
            assert main(["--root", str(tmp_path), "--log", destination, "state", "c"]) == 1
        assert len(log.read_text().splitlines()) == 2


class TestStdio:
    """In a process of its own: pytest has a hand on this one's descriptors."""

    def run(
        self, *argv: str, before: Callable[[], object], stdout: int | None = subprocess.PIPE
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *argv],
            preexec_fn=before,
            cwd=TOP,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    def test_stderr_may_be_closed(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        result = self.run("--log", str(log), "state", "./", before=lambda: os.close(2))
        assert result.returncode == 1
        # The message is in the log once: the log didn't become descriptor 2.
        assert len(log.read_text().splitlines()) == 1

    def test_stderr_may_be_read_only(self) -> None:
        def before() -> None:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 2)

        assert self.run("state", "./", before=before).returncode == 1

    @pytest.mark.parametrize("fd", [0, 1, 2])
    def test_a_closed_one_becomes_dev_null(self, fd: int) -> None:
        program = (
            "import os; from ocirt.cli.main import main; main(['version']);"
            f" raise SystemExit(os.readlink('/proc/self/fd/{fd}') != os.devnull)"
        )
        result = subprocess.run(
            [sys.executable, "-c", program],
            preexec_fn=lambda: os.close(fd),
            cwd=TOP,
            check=False,
        )
        assert result.returncode == 0

    def test_a_result_that_cannot_be_written_is_a_failure(self) -> None:
        def before() -> None:
            os.dup2(os.open("/dev/full", os.O_WRONLY), 1)

        result = self.run("features", before=before, stdout=None)
        assert result.returncode == 1
        assert "standard output: ENOSPC" in result.stderr

    def test_a_reader_that_went_away_is_none_of_our_business(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)

        def before() -> None:
            os.dup2(writer, 1)

        result = self.run("features", before=before, stdout=None)
        os.close(writer)
        assert result.returncode == 128 + signal.SIGPIPE
        assert result.stderr == ""


class TestEndingSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    def test_let_a_command_clean_up_undisturbed(
        self, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done: list[str] = []
        signal.signal(number, signal.SIG_DFL)  # nohup(1) has SIGHUP ignored

        def create(invocation: Invocation) -> int:
            try:
                signal.raise_signal(number)
            finally:
                # Whoever is impatient doesn't keep us from it.
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(number)
                done.append("cleaned up")
            return 0

        replace(monkeypatch, "create", create)
        with pytest.raises(SystemExit) as ended:
            main(["create", "c"])
        assert ended.value.code == 128 + number
        assert done == ["cleaned up"]

    def test_that_are_ignored_stay_ignored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

        def create(invocation: Invocation) -> int:
            signal.raise_signal(signal.SIGHUP)
            return 0

        replace(monkeypatch, "create", create)
        assert main(["create", "c"]) == 0
