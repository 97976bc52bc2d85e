# SPDX-License-Identifier: GPL-3.0-or-later
"""What hooks write: in the debug log, in error messages, in the files that annotations name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Container, proc
from tests.integration.test_hooks import KINDS, hooks
from tests.integration.test_namespaces import ask_for

OURS = pytest.mark.peer_fails("runc", "says it only in an error message")
CRUNS = pytest.mark.peer_fails("runc", "doesn't know crun's annotations")


def script(text: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", text], **more}


def whole_life(container: Container, *options: str) -> None:
    """Create, start, kill, delete; options are global ones."""
    call, bundle = container.runtime.call, container.bundle
    bundle.save()
    call(*options, "create", "--bundle", str(bundle.directory), container.id).checked()
    call(*options, "start", container.id).checked()
    container.kill("KILL")
    container.wait_for("stopped")
    call(*options, "delete", container.id).checked()


@OURS
@pytest.mark.parametrize("users", [False, True])
def test_the_debug_log_has_every_hook(container: Container, directory: Path, users: bool) -> None:
    """Place, argv, duration, exit, output; but nothing of its environment, which may be secret."""
    if users:
        ask_for(container, "pid", "mount", "uts", "ipc", "network", "user")
    wanted = {
        kind: [
            script(f"echo said by {kind}", env=["SECRET=swordfish"]),
            script("echo and this >&2; exec /bin/sleep 0.1"),
        ]
        for kind in KINDS
    }
    hooks(container, **wanted)
    log = directory / "log"
    whole_life(container, "--debug", "--log", str(log))
    lines = [line for line in log.read_text().splitlines() if "hook /hooks/" in line]
    assert [re.findall(r"/hooks/(\w+)/(\d)", line) for line in lines] == [
        [(kind, str(index))] for kind in KINDS for index in (0, 1)
    ]
    for kind, first, second in zip(KINDS, lines[::2], lines[1::2], strict=True):
        assert f"argv ['sh', '-c', 'echo said by {kind}']" in first
        assert f"output: 'said by {kind}'" in first
        assert "exit status 0" in first
        assert "output: 'and this'" in second
        seconds = re.search(r"([0-9.]+) s, exit", second)
        assert seconds and float(seconds[1]) >= 0.1
    assert "swordfish" not in log.read_text()


@OURS
def test_a_failing_startcontainer_hook_says_why(container: Container) -> None:
    hooks(container, startContainer=[script("echo no licence >&2; exit 4")])
    container.create()
    message = container.refused("start")
    assert "exit status 4, output: no licence" in message


def test_the_program_gets_nothing_of_the_hooks(container: Container) -> None:
    """Neither their output nor a descriptor."""
    hooks(container, startContainer=[script("echo from the hook; ls /proc/self/fd >/fds")])
    output = container.inside("ls /proc/self/fd")
    assert output.split() == ["0", "1", "2", "3"]
    assert (container.bundle.rootfs / "fds").read_text().split() == ["0", "1", "2", "3"]


@CRUNS
@pytest.mark.parametrize("users", [False, True])
def test_files_for_hooks_output(container: Container, directory: Path, users: bool) -> None:
    """They are appended to, whichever side a hook runs on; the program gets none of them."""
    if users:
        ask_for(container, "pid", "mount", "uts", "ipc", "network", "user")
    out, err = directory / "out", directory / "err"
    out.write_text("before\n")
    container.config["annotations"] = {
        "run.oci.hooks.stdout": str(out),
        "run.oci.hooks.stderr": str(err),
    }
    hooks(container, **{kind: [script(f"echo {kind}; echo not {kind} >&2")] for kind in KINDS})
    container.shell("ls /proc/self/fd >/tmp/fds; sleep 1000")
    bundle = container.bundle
    container.create()
    container.start()
    fds = bundle.rootfs / "tmp/fds"
    proc.wait_until(lambda: fds.exists() and fds.read_text().split() == list("0123"))
    container.kill("KILL")
    container.wait_for("stopped")
    container.delete()
    assert out.read_text().splitlines() == ["before", *KINDS]
    assert err.read_text().splitlines() == [f"not {kind}" for kind in KINDS]


@CRUNS
def test_one_file_and_the_other_stream_in_the_message(
    container: Container, directory: Path
) -> None:
    container.config["annotations"] = {"run.oci.hooks.stdout": str(directory / "out")}
    hooks(container, createRuntime=[script("echo here; echo why >&2; exit 3")])
    container.bundle.save()
    message = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "exit status 3, output: why" in message
    assert (directory / "out").read_text() == "here\n"


@CRUNS
@pytest.mark.parametrize("kind", ["createRuntime", "startContainer"])
def test_a_file_that_cant_be_opened(container: Container, kind: str) -> None:
    container.config["annotations"] = {"run.oci.hooks.stdout": "/no/such/place"}
    hooks(container, **{kind: [script("true")]})
    container.bundle.save()
    message = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "run.oci.hooks.stdout" in message and "/no/such/place" in message
    assert container.remains() == []


def test_a_file_thats_gone_at_the_end_is_a_warning(container: Container, directory: Path) -> None:
    """poststop hooks run all the same."""
    if not container.runtime.version().startswith("ocirt "):
        pytest.skip("runc doesn't know crun's annotations")
    place = directory / "place"
    place.mkdir()
    container.config["annotations"] = {"run.oci.hooks.stdout": str(place / "out")}
    hooks(container, poststop=[script(f"echo ran > {directory / 'ran'}")])
    container.create()
    place.rmdir()
    result = container.delete("--force")
    assert "run.oci.hooks.stdout" in result.stderr
    assert (directory / "ran").read_text() == "ran\n"
