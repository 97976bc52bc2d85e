# SPDX-License-Identifier: GPL-3.0-or-later
"""--log to the machine's own logs, which the test plays in a mount namespace of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Container, Runtime

JOURNAL, SYSLOG = "/run/systemd/journal/socket", "/dev/log"
OTHERS = "1.1 knows files alone"

# Binds a socket at argv[1], runs the rest, prints the datagrams and how it ended as JSON.
LISTENER = """
import json, os, socket, subprocess, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
    if sys.argv[1]:
        os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True)
        log.bind(sys.argv[1])
    ended = subprocess.run(sys.argv[2:], stdin=subprocess.DEVNULL, capture_output=True)
    log.setblocking(False)
    got = []
    try:
        while sys.argv[1]:
            got.append(log.recv(1 << 20).hex())
    except BlockingIOError:
        pass
answer = {"got": got, "status": ended.returncode, "stderr": ended.stderr.decode()}
json.dump(answer, sys.stdout)
"""


def listened(address: str, *argv: str, zone: str = "UTC") -> tuple[list[bytes], dict[str, Any]]:
    """Run argv where only a log of ours is at the address; return its datagrams, and the end."""
    script = (
        "mount -t tmpfs none /run && mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3"
        ' && exec "$@"'
    )
    command = ["unshare", "-m", "/bin/sh", "-c", script, "sh", "env", f"TZ={zone}"]
    command += [sys.executable, "-c", LISTENER, address, *argv]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    answer = json.loads(done.stdout)
    return [bytes.fromhex(datagram) for datagram in answer["got"]], answer


def fields(datagram: bytes) -> dict[str, str]:
    """Read systemd's native journal protocol."""
    found: dict[str, str] = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        key, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(datagram[:8], "little")
            value, end, datagram = (
                datagram[8:][:length],
                datagram[8:][length:][:1],
                datagram[9 + length :],
            )
            assert end == b"\n"
        found[key.decode()] = value.decode()
    return found


def argv(runtime: Runtime, destination: str, *words: str) -> list[str]:
    return [runtime.executable, "--root", str(runtime.root), "--log", destination, *words]


@pytest.fixture(autouse=True)
def elsewhere(runtime: Runtime, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that knows files alone makes one with such a name where it is."""
    monkeypatch.chdir(directory)


@pytest.mark.peer_fails("runc", OTHERS)
@pytest.mark.parametrize(("destination", "name"), [("journald:web", "web"), ("journald:", "ocirt")])
def test_the_journal(runtime: Runtime, destination: str, name: str) -> None:
    [datagram], end = listened(JOURNAL, *argv(runtime, destination, "state", "none"))
    found = fields(datagram)
    assert found.keys() == {"PRIORITY", "SYSLOG_IDENTIFIER", "MESSAGE"}
    assert (found["PRIORITY"], found["SYSLOG_IDENTIFIER"]) == ("3", name)
    assert found["MESSAGE"] in end["stderr"]
    assert "does not exist" in found["MESSAGE"]
    assert end["status"] == 1


@pytest.mark.peer_fails("runc", OTHERS)
def test_a_message_of_several_lines_is_one_in_the_journal(runtime: Runtime) -> None:
    words = argv(runtime, "journald:x", "--debug", "state", "none")
    first, *_, last = (fields(datagram) for datagram in listened(JOURNAL, *words)[0])
    assert first["PRIORITY"] == "7"
    assert first["MESSAGE"].startswith("Traceback")
    assert len(first["MESSAGE"].splitlines()) > 2
    assert last["PRIORITY"] == "3"


@pytest.mark.peer_fails("runc", OTHERS)
@pytest.mark.parametrize(("destination", "name"), [("syslog:web", "web"), ("syslog:", "ocirt")])
def test_syslog(runtime: Runtime, destination: str, name: str) -> None:
    [datagram], end = listened(SYSLOG, *argv(runtime, destination, "state", "none"))
    # RFC 3164: user.err is 1 * 8 + 3; the day is padded by a blank.
    form = rb"<11>[A-Z][a-z]{2} [ 1-3][0-9] \d\d:\d\d:\d\d (\w+)\[\d+\]: (.*)"
    match = re.fullmatch(form, datagram)
    assert match, datagram
    assert match[1].decode() == name
    assert match[2].decode() in end["stderr"]


@pytest.mark.peer_fails("runc", OTHERS)
def test_syslogs_time_is_local(runtime: Runtime) -> None:
    hours = []
    for zone in ("AAA0", "BBB-5"):
        [datagram], _ = listened(SYSLOG, *argv(runtime, "syslog:x", "state", "none"), zone=zone)
        match = re.search(rb" (\d\d):\d\d:\d\d ", datagram)
        assert match, datagram
        hours.append(int(match[1]))
    # An hour may have begun in between.
    assert (hours[1] - hours[0]) % 24 in (5, 6)


@pytest.mark.parametrize("destination", ["journald:x", "syslog:x"])
def test_a_log_that_isnt_there_is_no_error(runtime: Runtime, destination: str) -> None:
    """As with crun: the message is on stderr alone."""
    _, end = listened("", *argv(runtime, destination, "state", "none"))
    assert end["status"] == 1
    assert "does not exist" in end["stderr"]
    _, end = listened("", *argv(runtime, destination, "list"))
    assert (end["status"], end["stderr"]) == (0, "")


@pytest.mark.peer_fails("runc", OTHERS)
def test_its_connection_is_not_the_containers(container: Container, tmp_path: Path) -> None:
    container.shell("ls -l /proc/self/fd")
    container.bundle.save()
    words = ["run", "--bundle", str(container.bundle.directory), container.id]
    command = [*argv(container.runtime, "syslog:x", *words)]
    out = tmp_path / "out"
    script = f'exec "$@" >{out}'
    listened(SYSLOG, "/bin/sh", "-c", script, "sh", *command)
    assert "socket:" not in out.read_text()
    assert " 0 -> /dev/null" in out.read_text()
