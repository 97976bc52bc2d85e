# SPDX-License-Identifier: GPL-3.0-or-later
"""The runtime's file is out of reach for what runs in containers (CVE-2019-5736)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Container, proc
from tests.integration.conftest import MakeContainer
from tests.integration.test_exec import execute, started
from tests.integration.test_namespaces import ask_for

# Looks at the file of every process that shows, as fast as it can.
WATCH = "while :; do stat -L -c %d:%i /proc/[0-9]*/exe; done >>/tmp/seen 2>/dev/null"
EXECS = 30

# The attack: hold init's file, and open it for writing once it runs nowhere. Changes no byte.
HOLD_AND_REOPEN = """#!/usr/bin/python3
import errno, json, os, sys, time

held = os.open(f"/proc/{json.load(sys.stdin)['pid']}/exe", os.O_RDONLY)
if os.fork():
    os._exit(0)
for fd in (0, 1, 2):
    os.dup2(os.open(os.devnull, os.O_RDWR), fd)
for _ in range(300):
    try:
        # Closed at once: what is open for writing can't be executed, and the tests go on.
        os.close(os.open(f"/proc/self/fd/{held}", os.O_WRONLY))
    except OSError as e:
        said = errno.errorcode[e.errno]
        if e.errno != errno.ETXTBSY:
            break
        time.sleep(0.01)
    else:
        said = "opened"
        break
with open("OUTPUT.new", "w") as file:
    json.dump({"opened": said, "read_only": bool(os.fstatvfs(held).f_flag & os.ST_RDONLY)}, file)
os.rename("OUTPUT.new", "OUTPUT")
"""


def programs(runtime: str) -> set[str]:
    """Return device and inode of the files that a runtime runs from: it, or its interpreter."""
    path = Path(runtime)
    files = [path]
    first = path.read_bytes()[:256].split(b"\n")[0]
    if first.startswith(b"#!"):
        files.append(Path(os.fsdecode(first[2:].split()[0])))
    return {f"{f.stat().st_dev}:{f.stat().st_ino}" for f in files}


def attacked(container: Container, directory: Path) -> dict[str, Any]:
    """Return how the attack went that the host's root makes by a hook, while init is set up."""
    output, script = directory / "said", directory / "hook"
    script.write_text(HOLD_AND_REOPEN.replace("OUTPUT", str(output)))
    script.chmod(0o755)
    container.bundle.set("/hooks", {"createRuntime": [{"path": str(script)}]})
    container.command("/bin/true")
    container.create()
    deadline = time.monotonic() + 20
    while not output.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    said: dict[str, Any] = json.loads(output.read_text())
    return said


def test_in_a_joined_pid_namespace(make_container: MakeContainer, directory: Path) -> None:
    """There, others can look at init while it is the runtime: its file can't be written to."""
    first, second = started(make_container()), make_container()
    ask_for(second, "mount", "uts", "ipc", "network", pid=f"/proc/{first.pid}/ns/pid")
    said = attacked(second, directory)
    # An interpreter's file is busy as long as the attacker runs by it, too.
    assert said["opened"] in ("EROFS", "ETXTBSY")
    assert said["read_only"]


@pytest.mark.peer_fails("runc", "1.1 always runs from a read-only clone")
def test_the_same_attack_where_init_is_alone(container: Container, directory: Path) -> None:
    """The control: unprotected, the attack reaches the file. Here only the host's root can try."""
    said = attacked(container, directory)
    assert said["opened"] in ("opened", "ETXTBSY")
    assert not said["read_only"]


@pytest.mark.peer_fails("runc", "1.1 shows a read-only clone of its own file")
@pytest.mark.parametrize("own_pid_namespace", [True, False])
def test_exec_never_shows_the_runtime(
    make_container: MakeContainer, own_pid_namespace: bool
) -> None:
    """A process with CAP_SYS_PTRACE watches all others of its pid namespace while exec enters."""
    container = first = make_container()
    if not own_pid_namespace:
        first = started(make_container())
        ask_for(container, "mount", "uts", "ipc", "network", pid=f"/proc/{first.pid}/ns/pid")
    container.bundle.set("/process/user", {"uid": 0, "gid": 0})
    for kind in ("bounding", "effective", "permitted"):
        held = container.config["process"]["capabilities"].setdefault(kind, [])
        held.append("CAP_SYS_PTRACE")
    container.shell(WATCH)
    container.create()
    container.start()
    for _ in range(EXECS):
        execute(container, "/bin/true").checked()
    seen = set(execute(container, "/bin/sort", "-u", "/tmp/seen").checked().stdout.split())
    busybox = os.stat(f"/proc/{container.pid}/exe")
    assert f"{busybox.st_dev}:{busybox.st_ino}" in seen
    assert not seen & programs(container.runtime.executable)


@pytest.mark.parametrize("program", ["/proc/self/exe", "/proc/1/exe"])
def test_the_runtime_as_the_program(container: Container, program: str) -> None:
    """What these links lead to is never ours, and nothing of it runs."""
    runtime = Path(container.runtime.executable)
    before = runtime.read_bytes()
    container.command(program, "--version")
    container.bundle.save()
    result = container.run()
    assert result.status != 0
    assert "version" not in result.stdout
    assert runtime.read_bytes() == before


@pytest.mark.peer_fails("runc", "1.1 shows a read-only clone of its own file")
def test_a_waiting_init_is_no_file_of_the_host(container: Container) -> None:
    container.create()
    own = os.stat(f"/proc/{container.pid}/exe")
    assert f"{own.st_dev}:{own.st_ino}" not in programs(container.runtime.executable)
    assert proc.is_running(container.pid)
