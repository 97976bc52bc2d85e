# SPDX-License-Identifier: GPL-3.0-or-later
"""Hooks (config.md, "POSIX-platform Hooks"): the six kinds, run where the specification says.

The state goes to a hook's stdin, with the pid as the hook's side sees it. What a hook writes
is kept for the error message and the debug log.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ocirt.errors import OcirtError
from ocirt.kernel.signals import SIG_BLOCK, SIG_SETMASK, pthread_sigmask
from ocirt.parts.step import Context, Side, Step
from ocirt.spec.model import Config, Hook

_log = logging.getLogger("ocirt")

# How much of a hook's output an error message shows.
_SHOWN = 2048


def steps(side: Side, kind: str, hooks: Sequence[Hook], status: str) -> Iterator[Step]:
    """Yield a step per hook; kind is the key in config.json, status what the state says."""
    for index, hook in enumerate(hooks):
        action = StartContainerHook(index, hook) if side is Side.STUB else RunHook(hook, status)
        yield Step(side, f"run the {kind} hook {hook.path}", f"/hooks/{kind}/{index}", action)


def state(c: Context, status: str, pid: int) -> dict[str, object]:
    """Return the state that hooks get (runtime.md, "State"), with pid as their side sees it."""
    return hook_state(c.config, c.container_id, status, pid, c.bundle)


def hook_state(
    config: Config, container_id: str, status: str, pid: int, bundle: str
) -> dict[str, object]:
    """Return the state of runtime.md as JSON-ready data; a pid of 0 is left out."""
    document: dict[str, object] = {
        "ociVersion": config.oci_version,
        "id": container_id,
        "status": status,
        "bundle": bundle,
    }
    if pid:
        document["pid"] = pid
    if config.annotations:
        document["annotations"] = config.annotations
    return document


@dataclass(frozen=True, slots=True)
class RunHook:
    """Run one hook by the runtime (prestart, createRuntime) or by init (createContainer)."""

    hook: Hook
    status: str

    def run(self, c: Context) -> None:
        pid = c.init_pid or os.getpid()
        run_hook(self.hook, state(c, self.status, pid), cwd=c.bundle)


@dataclass(frozen=True, slots=True)
class StartContainerHook:
    """Run one hook by the stub, in the container, before it gives its privileges up.

    Its environment, where it has none of its own, is the program's, as in runc.
    """

    index: int
    hook: Hook

    def run(self, c: Context) -> None:
        hook, process = self.hook, c.config.process
        env = hook.env or (process.env if process else ())
        c.stub.hook(
            os.fsencode(hook.path),
            [os.fsencode(a) for a in hook.args or (hook.path,)],
            [os.fsencode(e) for e in env],
            json.dumps(state(c, "created", os.getpid())).encode(),
            (hook.timeout or 0) * 1000,
            f"run the startContainer hook {hook.path} [/hooks/startContainer/{self.index}]",
        )


def run_hook(hook: Hook, document: dict[str, object], *, cwd: str) -> None:
    """Run a hook to its end. Raises OcirtError when it can't be run, fails, or takes too long."""
    env = dict(e.partition("=")[::2] for e in hook.env)
    blocked = pthread_sigmask(SIG_BLOCK, ())
    began = time.monotonic()
    try:
        with subprocess.Popen(
            [*(hook.args or (hook.path,))],
            executable=hook.path,
            env=env,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Those that our caller blocks, and those that we hold for a program.
            preexec_fn=_unblock if blocked else None,  # noqa: PLW1509, there are no threads
        ) as process:
            try:
                output, late = _talk(process, json.dumps(document).encode(), hook.timeout)
            except BaseException:
                # Whoever ends us doesn't want to wait for the hook.
                os.killpg(process.pid, signal.SIGKILL)
                raise
    except OSError as e:
        raise OcirtError(f"{hook.path}: {(e.strerror or str(e)).lower()}") from None
    words = output.decode(errors="replace").strip()[-_SHOWN:]
    _log.debug(
        "hook %s: argv %s, %.3f s, status %s, output %r",
        hook.path,
        list(hook.args),
        time.monotonic() - began,
        process.returncode,
        words,
    )
    tail = f", output: {words}" if words else ""
    if late:
        raise OcirtError(f"killed after its timeout of {hook.timeout} s{tail}")
    if process.returncode:
        raise OcirtError(f"{describe_end(process.returncode)}{tail}")


def _unblock() -> None:
    pthread_sigmask(SIG_SETMASK, ())


def _talk(process: subprocess.Popen[bytes], text: bytes, timeout: int | None) -> tuple[bytes, bool]:
    """Feed a hook and collect its output; returns the output and whether it had to be killed."""
    try:
        return process.communicate(text, timeout)[0], False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0], True


def describe_end(returncode: int) -> str:
    """Return subprocess's return code in words."""
    if returncode < 0:
        return f"killed by {signal.Signals(-returncode).name}"
    return f"exit status {returncode}"


def poststart(config: Config) -> tuple[Step, ...]:
    """Return the steps that `start` runs when the program runs."""
    return tuple(steps(Side.RUNTIME, "poststart", config.hooks.poststart, "running"))
