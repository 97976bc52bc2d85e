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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ocirt.errors import OcirtError, describe
from ocirt.kernel import _linux
from ocirt.kernel.constants import F_SETFD, FD_CLOEXEC
from ocirt.kernel.process import memfd
from ocirt.kernel.signals import SIG_BLOCK, SIG_SETMASK, pthread_sigmask
from ocirt.parts.step import Context, Side, Step
from ocirt.spec.known_annotations import HOOKS_STDERR, HOOKS_STDOUT
from ocirt.spec.model import Config, Hook

_log = logging.getLogger("ocirt")

# How much of a hook's output an error message shows.
_SHOWN = 2048


def output_steps(config: Config) -> Iterator[Step]:
    """Yield what opens the files that annotations name for the output of create's hooks."""
    wanted = config.hooks
    early = (wanted.prestart, wanted.create_runtime, wanted.create_container)
    if has_files(config.annotations) and any((*early, wanted.start_container)):
        yield Step(Side.RUNTIME, "open the files for hooks' output", "/annotations", OpenOutput())


def steps(side: Side, kind: str, hooks: Sequence[Hook], status: str) -> Iterator[Step]:
    """Yield a step per hook; kind is the key in config.json, status what the state says."""
    for index, hook in enumerate(hooks):
        pointer = f"/hooks/{kind}/{index}"
        on_stub = side is Side.STUB
        action = StartContainerHook(index, hook) if on_stub else RunHook(hook, status, pointer)
        yield Step(side, f"run the {kind} hook {hook.path}", pointer, action)


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


def has_files(annotations: Mapping[str, str]) -> bool:
    """Whether annotations name files for what hooks write."""
    return HOOKS_STDOUT in annotations or HOOKS_STDERR in annotations


@contextmanager
def output_files(annotations: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Open the files that annotations name for hooks' stdout and stderr; -1 where there is none.

    As in crun they are made where they are missing, and appended to. Raises OcirtError.
    """
    files = open_output(annotations)
    try:
        yield files
    finally:
        for fd in files:
            if fd >= 0:
                os.close(fd)


def open_output(annotations: Mapping[str, str]) -> tuple[int, int]:
    """Open the files for output_files(). Raises OcirtError."""
    return _append_to(annotations, HOOKS_STDOUT), _append_to(annotations, HOOKS_STDERR)


def _append_to(annotations: Mapping[str, str], name: str) -> int:
    path = annotations.get(name)
    if path is None:
        return -1
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise OcirtError(f"/annotations/{name}: {describe(e)}") from None


@dataclass(frozen=True, slots=True)
class OpenOutput:
    """Open the files for hooks' output in the host, also for those that run elsewhere."""

    def run(self, c: Context) -> None:
        c.hook_output = open_output(c.config.annotations)


@dataclass(frozen=True, slots=True)
class RunHook:
    """Run one hook by the runtime (prestart, createRuntime) or by init (createContainer)."""

    hook: Hook
    status: str
    pointer: str

    def run(self, c: Context) -> None:
        document = state(c, self.status, c.init_pid or os.getpid())
        run_hook(self.hook, document, self.pointer, cwd=c.bundle, files=c.hook_output)
        c.hooks_ran = True


@dataclass(frozen=True, slots=True)
class StartContainerHook:
    """Run one hook by the stub, in the container, before it gives its privileges up.

    Its environment, where it has none of its own, is the program's, as in runc. What it writes
    goes to an anonymous file, from which the stub tells it to `start`.
    """

    index: int
    hook: Hook

    def run(self, c: Context) -> None:
        hook, process = self.hook, c.config.process
        env = hook.env or (process.env if process else ())
        if self.index == 0:
            c.hook_copy = memfd("ocirt-hooks")
            for fd in (c.hook_copy, *c.hook_output):
                if fd >= 0:
                    # Through the stub's exec, but not through the first hook's.
                    os.set_inheritable(fd, True)
                    c.stub.syscall(_linux.SYS_fcntl, fd, F_SETFD, FD_CLOEXEC)
        stdout, stderr = (fd if fd >= 0 else c.hook_copy for fd in c.hook_output)
        c.stub.hook(
            os.fsencode(hook.path),
            [os.fsencode(a) for a in hook.args or (hook.path,)],
            [os.fsencode(e) for e in env],
            json.dumps(state(c, "created", os.getpid())).encode(),
            (hook.timeout or 0) * 1000,
            f"run the startContainer hook {hook.path} [/hooks/startContainer/{self.index}]",
            (stdout, stderr, c.hook_copy),
        )


def run_hook(
    hook: Hook,
    document: dict[str, object],
    pointer: str,
    *,
    cwd: str,
    files: tuple[int, int] = (-1, -1),
) -> None:
    """Run a hook to its end. Raises OcirtError when it can't be run, fails, or takes too long.

    files are for its stdout and stderr, -1 to keep them for the message and the debug log.
    """
    env = dict(e.partition("=")[::2] for e in hook.env)
    stdout, stderr = files
    if stderr < 0:
        stderr = subprocess.STDOUT if stdout < 0 else subprocess.PIPE
    blocked = pthread_sigmask(SIG_BLOCK, ())
    began = time.monotonic()
    try:
        with subprocess.Popen(
            [*(hook.args or (hook.path,))],
            executable=hook.path,
            env=env,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if stdout < 0 else stdout,
            stderr=stderr,
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
    end = f"killed after its timeout of {hook.timeout} s" if late else ""
    end = end or describe_end(process.returncode)
    log_hook(hook, pointer, time.monotonic() - began, end, words)
    if late or process.returncode:
        raise OcirtError(with_output(end, words))


def log_hook(hook: Hook, pointer: str, seconds: float, end: str, words: str) -> None:
    """Say in the debug log what became of a hook; its environment may hold secrets."""
    argv = list(hook.args or (hook.path,))
    _log.debug(
        "hook %s (%s): argv %s, %.3f s, %s, output: %r",
        pointer,
        hook.path,
        argv,
        seconds,
        end,
        words,
    )


def with_output(end: str, words: str) -> str:
    """Return how a hook ended, and the end of what it wrote if it wrote anything."""
    return f"{end}, output: {words}" if words else end


def _unblock() -> None:
    pthread_sigmask(SIG_SETMASK, ())


def _talk(process: subprocess.Popen[bytes], text: bytes, timeout: int | None) -> tuple[bytes, bool]:
    """Feed a hook and collect its output; returns the output and whether it had to be killed."""
    late = False
    try:
        output = process.communicate(text, timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, late = process.communicate(), True
    return b"".join(part for part in output if part), late


def describe_end(returncode: int) -> str:
    """Return subprocess's return code in words."""
    if returncode < 0:
        return f"killed by {signal.Signals(-returncode).name}"
    return f"exit status {returncode}"


def poststart(config: Config) -> tuple[Step, ...]:
    """Return the steps that `start` runs when the program runs."""
    return tuple(steps(Side.RUNTIME, "poststart", config.hooks.poststart, "running"))
