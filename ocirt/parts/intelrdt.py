# SPDX-License-Identifier: GPL-3.0-or-later
"""Intel RDT (config-linux.md, "IntelRdt"): the container's class of service in resctrl.

A class is a directory of resctrl with a `schemata` file, which says what of the caches and of the
memory bandwidth its tasks get. Sources: the kernel's filesystems/resctrl.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from ocirt.errors import OcirtError
from ocirt.kernel.constants import AT_FDCWD
from ocirt.kernel.files import read_all, read_at, write_at
from ocirt.parts.step import Context, Side, Step, Undo, UndoKind
from ocirt.spec.model import IntelRdt
from ocirt.spec.names import RESCTRL_NAMES

_DEFAULT_CLASS = "/"


@dataclass(frozen=True, slots=True)
class Group:
    """A container's directories in resctrl: of its class, and for monitoring, "" without."""

    class_: str
    monitor: str

    @classmethod
    def of(cls, rdt: IntelRdt, container_id: str) -> Group:
        """Raises OcirtError where resctrl isn't mounted, or has this name for itself."""
        root = mountpoint()
        name = rdt.clos_id or container_id
        if name in RESCTRL_NAMES:
            raise OcirtError(f"{root}/{name} is no class of service; choose another name")
        class_ = root if name == _DEFAULT_CLASS else f"{root}/{name}"
        monitor = f"{class_}/mon_groups/{container_id}" if rdt.enable_monitoring else ""
        return cls(class_, monitor)

    @property
    def directories(self) -> tuple[str, ...]:
        """Both, in the order in which a task moves into them."""
        return (self.class_, self.monitor) if self.monitor else (self.class_,)


def mountpoint(proc: str = "/proc") -> str:
    """Return where resctrl is mounted. Raises OcirtError if it isn't."""
    fd = os.open(f"{proc}/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = read_all(fd).decode(errors="surrogateescape")
    finally:
        os.close(fd)
    for line in text.splitlines():
        if " - resctrl " in line:
            return line.split(" ")[4]
    raise OcirtError(
        "no resctrl filesystem is mounted, which takes a processor with Resource Director"
        " Technology and `mount -t resctrl resctrl /sys/fs/resctrl`"
    )


def make_steps(rdt: IntelRdt | None, container_id: str) -> Iterator[Step]:
    """Yield what is done before there is an init."""
    if rdt is not None:
        yield Step(
            Side.RUNTIME,
            f"prepare the resctrl class {rdt.clos_id or container_id}",
            "/linux/intelRdt",
            MakeGroup(rdt),
            undo="remove what was made of it",
        )


def assign_steps(rdt: IntelRdt | None) -> Iterator[Step]:
    """Yield what puts init into its class."""
    if rdt is not None:
        words = "assign init to its resctrl class"
        yield Step(Side.RUNTIME, words, "/linux/intelRdt", AssignInit(rdt))


@dataclass(frozen=True, slots=True)
class MakeGroup:
    """Make, or find, the class; give it its schemata; make the monitoring group."""

    rdt: IntelRdt

    def undo(self, c: Context) -> Undo:
        """Only what isn't there yet is ours; a class with a name of its own outlives us."""
        group = Group.of(self.rdt, c.container_id)
        missing = [d if d and not os.path.isdir(d) else "" for d in (group.class_, group.monitor)]
        data = {"class": missing[0], "monitor": missing[1], "keep": self.rdt.clos_id is not None}
        return Undo(UndoKind.RESCTRL, data)

    def run(self, c: Context) -> None:
        group = Group.of(self.rdt, c.container_id)
        lines = schema_lines(self.rdt)
        if self.rdt.clos_id is not None and not lines and not os.path.isdir(group.class_):
            raise OcirtError(
                f"{group.class_} doesn't exist; a closID alone names a class that is there"
                " (or give its schemata)"
            )
        if not _make(group.class_):
            _compare(group.class_, schema_lines(self.rdt, compared=True))
        if lines:
            try:
                write_at(AT_FDCWD, f"{group.class_}/schemata", "\n".join(lines) + "\n")
            except OSError as e:
                raise OSError(e.errno, _status() or os.strerror(e.errno or 0), e.filename) from None
        if group.monitor and not _make(group.monitor):
            raise OcirtError(f"{group.monitor} exists already; the container needs its own")


@dataclass(frozen=True, slots=True)
class AssignInit:
    """Write init's pid to the tasks files; what it forks goes along."""

    rdt: IntelRdt

    def run(self, c: Context) -> None:
        for directory in Group.of(self.rdt, c.container_id).directories:
            write_at(AT_FDCWD, f"{directory}/tasks", str(c.init_pid))


def open_tasks(c: Context) -> Iterator[int]:
    """Yield descriptors to which a process of the container writes "0" to be in its class."""
    rdt = c.config.linux.intel_rdt
    if rdt is not None:
        for directory in Group.of(rdt, c.container_id).directories:
            yield os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC)


def remove(undo: Undo, *, complete: bool) -> None:
    """Take MakeGroup back; complete says that the container was created. Raises OSError.

    A class that config.json names stays when the container is deleted. After a create that failed
    it goes, unless somebody is in it by now.
    """
    _remove(undo.data["monitor"])
    class_ = undo.data["class"]
    if undo.data["keep"] and (complete or not class_ or _tasks(class_)):
        return
    _remove(class_)


def _remove(directory: str) -> None:
    if directory:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass


def _tasks(directory: str) -> str:
    try:
        return read_at(AT_FDCWD, f"{directory}/tasks").strip()
    except FileNotFoundError:
        return ""


def _make(directory: str) -> bool:
    """Make a directory; False if it was there."""
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        return False
    except OSError as e:
        # ENOSPC: no class, or no monitoring group, is left.
        raise OSError(e.errno, _status() or os.strerror(e.errno or 0), directory) from None
    return True


def _status() -> str:
    """Return the kernel's own words for what failed last, "" if it has none."""
    try:
        words = read_at(AT_FDCWD, f"{mountpoint()}/info/last_cmd_status").strip()
    except OSError:
        return ""
    return "" if words == "ok" else words


def schema_lines(rdt: IntelRdt, *, compared: bool = False) -> list[str]:
    """Return the lines for schemata in the order that config-linux.md demands.

    compared: only those that have to be in a class that exists.
    """
    lines = (rdt.l3_cache_schema or "").splitlines()
    if rdt.mem_bw_schema:
        lines.append(rdt.mem_bw_schema)
    return lines if compared else [*lines, *rdt.schemata]


def _compare(class_: str, wanted: list[str]) -> None:
    """Raise OcirtError unless a class that was there has these schemata."""
    if not wanted:
        return
    has = read_at(AT_FDCWD, f"{class_}/schemata")
    present = dict(map(_parse, has.splitlines()))
    for line in wanted:
        name, values = _parse(line)
        if not values.items() <= present.get(name, {}).items():
            shown = "; ".join(text.strip() for text in has.splitlines())
            raise OcirtError(f"{class_} exists with other schemata than {line!r}: {shown}")


def _parse(line: str) -> tuple[str, dict[str, str]]:
    """Return a line of schemata as its resource and the value of each domain."""
    name, _, domains = line.partition(":")
    pairs = (domain.partition("=") for domain in domains.split(";"))
    values = {key.strip(): value.strip().lower().lstrip("0") for key, _, value in pairs}
    return name.strip(), values
