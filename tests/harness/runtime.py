# SPDX-License-Identifier: GPL-3.0-or-later
"""An OCI runtime as an engine sees it: an executable, its arguments, its output."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.harness.bundle import Bundle

# A hanging runtime must not hang the tests; nothing here takes a tenth of it.
LIMIT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended. status is negative if a signal ended it (subprocess)."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return (
            f"$ {' '.join(self.argv)}\nexit status {self.status}\n"
            f"stdout: {self.stdout}\nstderr: {self.stderr}"
        )

    def checked(self) -> Result:
        """Return itself; fail the test if the command failed."""
        assert self.status == 0, str(self)
        return self


class Runtime:
    """A runtime executable with a state directory of its own.

    The methods named after operations fail the test if the operation fails; call() doesn't.
    """

    def __init__(self, executable: str, root: Path) -> None:
        self.executable = executable
        self.root = root

    def call(
        self, *args: str, stdin: IO[Any] | None = None, pass_fds: tuple[int, ...] = ()
    ) -> Result:
        """Run the runtime with --root and these arguments.

        Output goes to files: a container outlives its `create` and would hold a pipe open. It is
        what was written until the command ended.
        """
        argv = (self.executable, "--root", str(self.root), *args)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            ended = subprocess.run(
                argv,
                stdin=stdin or subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=pass_fds,
                timeout=LIMIT_SECONDS,
                text=True,
                check=False,
            )
            out.seek(0)
            err.seek(0)
            return Result(argv, ended.returncode, out.read(), err.read())

    def refused(self, *args: str) -> str:
        """Return the stderr of a command that must fail, as a person would want it to fail."""
        result = self.call(*args)
        assert result.status > 0, f"should have been refused\n{result}"
        assert result.stderr.strip(), f"failed without a word\n{result}"
        assert "Traceback" not in result.stderr, str(result)
        return result.stderr

    def create(self, container_id: str, bundle: Bundle, *options: str) -> Result:
        bundle.save()
        place = ("--bundle", str(bundle.directory))
        return self.call("create", *place, *options, container_id).checked()

    def run(self, container_id: str, bundle: Bundle, *options: str) -> Result:
        """Run in the foreground; the exit status is the container's, so it isn't checked."""
        bundle.save()
        return self.call("run", "--bundle", str(bundle.directory), *options, container_id)

    def start(self, container_id: str) -> Result:
        return self.call("start", container_id).checked()

    def kill(self, container_id: str, *args: str) -> Result:
        """args: the signal, options."""
        return self.call("kill", container_id, *args).checked()

    def delete(self, container_id: str, *options: str) -> Result:
        return self.call("delete", *options, container_id).checked()

    def state(self, container_id: str) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.call("state", container_id).checked().stdout)
        return state

    def list(self) -> list[dict[str, Any]]:
        """Return the states of all containers below this root."""
        # runc says null for none.
        return json.loads(self.call("list", "--format", "json").checked().stdout) or []

    def version(self) -> str:
        """Return the first line of --version: "runc version 1.1.5"."""
        argv = [self.executable, "--version"]
        ended = subprocess.run(argv, capture_output=True, text=True, check=False)
        return ended.stdout.partition("\n")[0]
