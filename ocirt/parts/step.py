# SPDX-License-Identifier: GPL-3.0-or-later
"""A step of the plan, and what the steps of one container share while they run.

A plan is a list of steps in one total order over all processes that take part. Each side runs its
own steps and waits while it is another side's turn, so the order that the specification demands is
simply the order of the list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any, Protocol

from ocirt.cgroups.manager import Attachment, CgroupPaths
from ocirt.errors import OcirtError
from ocirt.kernel.stublist import StubList
from ocirt.parts.locked_view import LockedView
from ocirt.parts.rootpath import Root
from ocirt.spec.model import Config


class Side(StrEnum):
    """The process that runs a step."""

    RUNTIME = "runtime"  # in the host's namespaces, always
    JOINER = "joiner"  # the intermediate child that joins namespaces and clones init
    INIT = "init"  # our Python in the container's namespaces
    STUB = "stub"  # the static program that waits for start


class Action(Protocol):
    """What a step does. Frozen dataclasses in the modules of this room implement it."""

    def run(self, c: Context) -> None:
        """Do it. Raises OSError or OcirtError."""


class UndoKind(StrEnum):
    """What the undo journal can name: everything that outlives the container's processes."""

    PROCESS = "process"
    CGROUP = "cgroup"
    RESCTRL = "resctrl"
    MOUNT = "mount"


@dataclass(frozen=True, slots=True)
class Undo:
    """A record of the journal: plain JSON data by which any process can take a step back."""

    kind: UndoKind
    data: dict[str, Any]


class Undoable(Protocol):
    """An action with an effect outside the container's processes and namespaces."""

    def undo(self, c: Context) -> Undo:
        """Return how to take it back; called, and written to the journal, before it runs."""


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of the plan.

    what says in words what it does; pointer is the place in config.json it comes from; undo says
    how it is taken back ("" if it vanishes with the container's processes or namespaces). A step
    that clones, or whose action is Undoable, has words for it, or nobody asks it.
    """

    side: Side
    what: str
    pointer: str
    action: Action
    undo: str = ""


def _cannot_share(flags: int, cgroup: int) -> tuple[int, int]:
    raise OcirtError("nobody runs this plan")


@dataclass(slots=True)
class Context:
    """What the steps of one container share. After a fork each process has its own copy."""

    config: Config
    container_id: str
    bundle: str
    rootfs: str
    warn: Callable[[str], None]
    # Called where init has been cloned, with its pid and pidfd, in its parent or the joiner.
    born: Callable[[int, int], None]
    side: Side = Side.RUNTIME
    # Clones init as a process that shares our memory: CLONE_ flags and cgroup to pid and pidfd.
    share: Callable[[int, int], tuple[int, int]] = field(default=_cannot_share)
    # Descriptors and facts that earlier steps leave for later ones.
    proc: int = -1  # verified procfs, of the host
    root: Root = field(default_factory=lambda: Root(-1))
    cwd: int = -1
    executable: str = ""
    init_pid: int = 0
    init_pidfd: int = -1
    init_start: int = 0  # proc_pid_stat(5), field 22
    stub_program: int = -1  # sealed memfd that init executes
    listener: int = -1  # the socket on which the stub waits for start
    cgroup: CgroupPaths | None = None
    attachment: Attachment | None = None
    own_memory: int = -1  # the runtime's own v1 memory cgroup
    console: int = -1  # the socket that gets the terminal's master
    terminal: int = -1  # its other end, in init
    pidfd_socket: int = -1  # the socket that gets init's pidfd
    namespaces: dict[str, int] = field(default_factory=dict)  # joined ones, by type
    sources: dict[int, int] = field(default_factory=dict)  # detached bind sources, by mount index
    host_rootfs: int = -1  # the rootfs as a mount of the host's, detached
    locked_view: LockedView | None = None  # where sources for a user namespace are opened
    filter: bytes = b""  # the compiled seccomp program
    stub_procfs: int = -1  # procfs of the host, where the stub needs one
    stub: StubList = field(default_factory=StubList)
    hook_output: tuple[int, int] = (-1, -1)  # files for hooks' stdout and stderr, -1 for none
    hook_copy: int = -1  # what startContainer hooks write
    network: int = -1  # init's network namespace, where devices were moved into it
    cpus: bytes = b""  # where to go when there is no more reason to stay (affinity.py)
    hooks_ran: bool = False  # by the runtime: poststop hooks may have to answer them
    moved_devices: list[tuple[str, str]] = field(default_factory=list)  # their old and new names
    inherited: list[int] = field(default_factory=list)  # descriptors that exec's stub gets

    def of_init(self) -> Context:
        """Return what init has of this, where it shares our memory: as a fork(2) would copy it."""
        copy = Context(*_all_fields(self))
        copy.side = Side.INIT
        copy.init_pid = 0
        copy.namespaces = dict(self.namespaces)
        copy.sources = dict(self.sources)
        copy.stub = StubList()
        return copy


# copy.copy() and dataclasses.replace() take ten times as long.
_all_fields = attrgetter(*(f.name for f in fields(Context)))
