# SPDX-License-Identifier: GPL-3.0-or-later
"""Device rules: what a list of linux.resources.devices amounts to when it is applied in order.

Source: config-linux.md, Allowed Device list; the kernel's cgroup-v1/devices.rst.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ocirt.cgroups.resources import POINTER
from ocirt.errors import StepError
from ocirt.spec.model import DeviceRule

ALL = "rwm"
_POINTER = f"{POINTER}/devices"


@dataclass(frozen=True, slots=True)
class Node:
    """The devices that an exception is about: type c or b, None for any number."""

    type: str
    major: int | None
    minor: int | None

    def covers(self, other: Node) -> bool:
        """Whether every device of other is also one of this."""
        return (
            self.type == other.type
            and self.major in (None, other.major)
            and self.minor in (None, other.minor)
        )

    def meets(self, other: Node) -> bool:
        """Whether some device belongs to both."""
        return (
            self.type == other.type
            and (self.major == other.major or None in (self.major, other.major))
            and (self.minor == other.minor or None in (self.minor, other.minor))
        )

    def __str__(self) -> str:
        major, minor = ("*" if n is None else str(n) for n in (self.major, self.minor))
        return f"{self.type} {major}:{minor}"


@dataclass(frozen=True, slots=True)
class Grant:
    """An exception from the default, and where it comes from."""

    node: Node
    access: str
    pointer: str


@dataclass(frozen=True, slots=True)
class DevicePolicy:
    """What is allowed in the end: everything (or nothing), except exceptions, in their order."""

    allow_all: bool
    pointer: str
    exceptions: tuple[Grant, ...]

    @property
    def denies_nothing(self) -> bool:
        """Whether every device may be used."""
        return self.allow_all and not self.exceptions


_EVERYTHING = (Node("c", None, None), Node("b", None, None))

# What every container may use, as with the other runtimes: making any node, and the nodes that
# the specification has in each /dev (config-linux.md, Default Devices), with pts and net/tun.
DEFAULTS = (
    (Node("c", None, None), "m"),
    (Node("b", None, None), "m"),
    (Node("c", 1, 3), ALL),  # null
    (Node("c", 1, 5), ALL),  # zero
    (Node("c", 1, 7), ALL),  # full
    (Node("c", 1, 8), ALL),  # random
    (Node("c", 1, 9), ALL),  # urandom
    (Node("c", 5, 0), ALL),  # tty
    (Node("c", 5, 1), ALL),  # console
    (Node("c", 5, 2), ALL),  # ptmx
    (Node("c", 136, None), ALL),  # pts/*
    (Node("c", 10, 200), ALL),  # net/tun
)


def policy(rules: Iterable[DeviceRule]) -> DevicePolicy:
    """Return what the rules, and after them DEFAULTS, amount to; without a rule all is denied.

    Where a rule allows everything the defaults say nothing new: what a later rule denies stays so.
    Raises StepError for a rule that can't be expressed: one that takes a part out of an earlier,
    wider one. The kernel's v1 controller would silently ignore it.
    """
    state = _State()
    for index, rule in enumerate(rules):
        state.apply(rule, f"{_POINTER}/{index}")
    if not state.allow_all:
        for node, access in DEFAULTS:
            state.grant(node, access, _POINTER)
    grants = tuple(Grant(n, access, pointer) for n, (access, pointer) in state.exceptions.items())
    return DevicePolicy(state.allow_all, state.pointer, grants)


class _State:
    """The policy while it is built: exceptions with their access and the rule they came from."""

    def __init__(self) -> None:
        self.allow_all = False
        self.pointer = _POINTER
        self.exceptions: dict[Node, tuple[str, str]] = {}

    def apply(self, rule: DeviceRule, pointer: str) -> None:
        """Follow one rule of the user's. Raises StepError."""
        asked = rule.access or ""
        access = "".join(a for a in ALL if a in asked)
        if not access or set(asked) - set(ALL):
            raise StepError("device rule", pointer, f"access {asked!r} isn't made of r, w and m")
        nodes = _nodes(rule, pointer)
        if access == ALL and nodes == _EVERYTHING:
            self.allow_all, self.pointer = rule.allow, pointer
            self.exceptions.clear()
            return
        for node in nodes:
            if rule.allow is self.allow_all:
                self._take_back(node, access, pointer)
            else:
                self.grant(node, access, pointer)

    def grant(self, node: Node, access: str, pointer: str) -> None:
        """Make an exception, or widen one."""
        old, first = self.exceptions.get(node, ("", pointer))
        if old:
            access = "".join(a for a in ALL if a in old + access)
        self.exceptions[node] = (access, first)

    def _take_back(self, node: Node, access: str, pointer: str) -> None:
        """Drop exceptions, or the part of their access that is meant."""
        for other, (old, first) in list(self.exceptions.items()):
            if not node.meets(other) or not set(old) & set(access):
                continue
            if not node.covers(other):
                cause = f"{node} {access} is a part of the earlier, wider {other} {old}"
                raise StepError("device rule", pointer, f"{cause}: cgroups can't express that")
            left = "".join(a for a in old if a not in access)
            if left:
                self.exceptions[other] = (left, first)
            else:
                del self.exceptions[other]


def _nodes(rule: DeviceRule, pointer: str) -> tuple[Node, ...]:
    major, minor = _number(rule.major), _number(rule.minor)
    match rule.type or "a":
        case "a":
            return Node("c", major, minor), Node("b", major, minor)
        case "c" | "b" as kind:
            return (Node(kind, major, minor),)
        case "u":
            return (Node("c", major, minor),)
    raise StepError("device rule", pointer, f"type {rule.type!r} isn't one of a, b, c")


def _number(value: int | None) -> int | None:
    """Return a device number; engines write -1 for any."""
    return None if value is None or value < 0 else value
