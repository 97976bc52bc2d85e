# SPDX-License-Identifier: GPL-3.0-or-later
"""The stub, run as an ordinary process on lists made for it."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ocirt.kernel import _linux, stublist
from ocirt.kernel.stublist import Failure, Flag, Report, StubList, decode_report

STUB = Path(stublist.__file__).with_name("stub")
# Where the stub finds the file for what hooks write.
COPY = 200


def conversation(
    path: Path, fill: Callable[[StubList], None], *, before: bytes | None = None
) -> tuple[Report, bytes]:
    """Run the stub with a list, say "go", and return its report and its stdout."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path / "s"))
        server.listen(4)
        content = StubList()
        content.wait(server.fileno())
        fill(content)
        file = os.memfd_create("list")
        os.write(file, content.encode())
        copy = os.memfd_create("copy")
        os.dup2(copy, COPY)
        os.close(copy)
        with subprocess.Popen(
            [str(file)],
            executable=STUB,
            pass_fds=(file, COPY, server.fileno()),
            stdout=subprocess.PIPE,
            env={},
        ) as stub:
            if before is not None:
                with socket.socket(socket.AF_UNIX) as other:
                    other.connect(str(path / "s"))
                    other.sendall(before)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path / "s"))
                client.sendall(b"g")
                answer = b""
                while chunk := client.recv(100):
                    answer += chunk
            output = stub.communicate(timeout=20)[0]
        os.close(file)
        os.close(COPY)
    return decode_report(answer), output


def execute(content: StubList, *argv: str, env: tuple[str, ...] = ()) -> None:
    content.syscall(
        _linux.SYS_execve,
        argv[0].encode() + b"\0",
        content.place_strings([a.encode() for a in argv]),
        content.place_strings([e.encode() for e in env]),
        text=f"exec {argv[0]}",
        flags=Flag.SILENT,
    )


def test_it_executes(tmp_path: Path) -> None:
    def fill(content: StubList) -> None:
        execute(content, "/bin/sh", "-c", 'echo "$0 $A"', "word", env=("A=b",))

    assert conversation(tmp_path, fill) == (Report(executed=True), b"word b\n")


@pytest.mark.parametrize("before", [b"", b"x", b"nonsense"])
def test_it_waits_on_when_a_start_dies_before_go(tmp_path: Path, before: bytes) -> None:
    report, _ = conversation(tmp_path, lambda c: execute(c, "/bin/true"), before=before)
    assert report.executed


def test_a_failed_execve_is_reported(tmp_path: Path) -> None:
    report, _ = conversation(tmp_path, lambda c: execute(c, "/no/such"))
    assert report == Report(False, "exec /no/such", Failure.BY_ERRNO, errno.ENOENT)


def test_a_failed_call_stops_the_list(tmp_path: Path) -> None:
    def fill(content: StubList) -> None:
        content.syscall(_linux.SYS_chdir, b"/no/such\0", text="first")
        execute(content, "/bin/echo", "not reached")

    report, output = conversation(tmp_path, fill)
    assert report == Report(False, "first", Failure.BY_ERRNO, errno.ENOENT)
    assert output == b""


def test_a_call_may_be_allowed_to_fail(tmp_path: Path) -> None:
    def fill(content: StubList) -> None:
        content.syscall(_linux.SYS_chdir, b"/no/such\0", flags=Flag.MAY_FAIL)
        content.syscall(_linux.SYS_chdir, b"/usr\0")
        execute(content, "/bin/pwd")

    assert conversation(tmp_path, fill)[1] == b"/usr\n"


def hook(script: str, timeout_ms: int = 0) -> Callable[[StubList], None]:
    def fill(content: StubList) -> None:
        argv = [b"sh", b"-c", script.encode()]
        state = b"the state" * 20000
        files = (COPY, COPY, COPY)
        content.hook(b"/bin/sh", argv, [b"A=1"], state, timeout_ms, "the hook", files)
        execute(content, "/bin/echo", "reached")

    return fill


def test_a_hook_gets_its_input_and_environment(tmp_path: Path) -> None:
    report, output = conversation(tmp_path, hook("wc -c; echo $A >&2"))
    assert report.executed
    assert output == b"reached\n"
    (end,) = report.hooks
    assert (end.failure, end.number) == (Failure.BY_STATUS, 0)
    assert end.said.split() == ["180000", "1"]


def test_how_long_a_hook_took(tmp_path: Path) -> None:
    report, _ = conversation(tmp_path, hook("sleep 0.3"))
    assert report.hooks[0].seconds >= 0.3


def test_the_end_of_what_a_hook_wrote(tmp_path: Path) -> None:
    report, _ = conversation(tmp_path, hook("seq 100000"))
    assert report.executed
    assert report.hooks[0].said.endswith("99999\n100000\n")
    assert len(report.hooks[0].said) == 2048


def test_each_hook_says_its_own(tmp_path: Path) -> None:
    def fill(content: StubList) -> None:
        for word in (b"one", b"two", b"three"):
            argv = [b"echo", word]
            content.hook(b"/bin/echo", argv, [], b"", 0, "a hook", (COPY, COPY, COPY))
        execute(content, "/bin/true")

    report, _ = conversation(tmp_path, fill)
    assert [end.said for end in report.hooks] == ["one\n", "two\n", "three\n"]


def test_a_hook_that_fails(tmp_path: Path) -> None:
    report, output = conversation(tmp_path, hook("echo why; exit 5"))
    assert (report.text, report.failure) == ("the hook", Failure.BY_STATUS)
    assert os.waitstatus_to_exitcode(report.number) == 5
    assert report.hooks[0].said == "why\n"
    assert output == b""


def test_a_hook_that_takes_too_long_goes_with_its_children(tmp_path: Path) -> None:
    report, _ = conversation(tmp_path, hook("sleep 100 & sleep 100", 200))
    assert (report.failure, report.number) == (Failure.BY_TIMEOUT, 200)
    assert report.hooks[0].failure is Failure.BY_TIMEOUT


@pytest.mark.parametrize("content", [b"", b"garbage", b"\0" * 4096])
def test_a_list_that_isnt_one(content: bytes) -> None:
    file = os.memfd_create("list")
    os.write(file, content)
    ended = subprocess.run([str(file)], executable=STUB, pass_fds=(file,), timeout=20, check=False)
    os.close(file)
    assert ended.returncode == 1


def test_a_result_is_taken_by_the_next_call(tmp_path: Path) -> None:
    """Opened and written to without anybody knowing the descriptor's number."""
    file = tmp_path / "file"
    file.write_text("....")

    def fill(content: StubList) -> None:
        path = bytes(file) + b"\0"
        kept = content.keep(_linux.SYS_openat, -100, path, os.O_WRONLY, text="open")
        content.take(_linux.SYS_write, kept, b"word", 4, text="write")
        content.take(_linux.SYS_close, kept, text="close")
        execute(content, "/bin/sh", "-c", "ls /proc/self/fd | wc -l")

    # stdin, stdout, stderr, COPY, and ls's own.
    assert conversation(tmp_path, fill) == (Report(executed=True), b"5\n")
    assert file.read_text() == "word"


def test_silence_means_that_it_vanished() -> None:
    assert decode_report(b"") == Report(executed=False)
    assert decode_report(b"x") == Report(executed=True)


def test_it_stays_small() -> None:
    """A waiting container is charged for it: a page."""
    assert STUB.stat().st_size < 4096
