# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules on the annotations that change what ocirt does (ocirt.spec.known_annotations)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ocirt.spec import known_annotations as names
from ocirt.spec.gvariant import is_value
from ocirt.spec.load import escape
from ocirt.spec.report import Json, Result, error, relative, warning

# runc's rule: letters only, at least three.
_PROPERTY = re.compile(r"[A-Za-z]{3,}")
_PATHS = (names.HOOKS_STDOUT, names.HOOKS_STDERR, names.PIDFD_RECEIVER)


def our_annotations(wanted: Json) -> Iterator[Result]:
    """Check the keys, and the values of ours."""
    if "" in wanted:
        yield error("/annotations/", "annotation-key", "is an empty key")
    for name in _PATHS:
        if name in wanted:
            yield from relative(wanted[name], f"/annotations/{name}", "annotation-path")
    context = wanted.get(names.MOUNT_CONTEXT, "context")
    if context not in names.CONTEXTS:
        where, allowed = f"/annotations/{names.MOUNT_CONTEXT}", ", ".join(names.CONTEXTS)
        yield error(where, "annotation-context", "is no option of mount(8)", context, allowed)
    if names.DELEGATE_CGROUP in wanted:
        yield from _below(wanted, names.DELEGATE_CGROUP)
    if wanted.get(names.SYSTEMD_SUBGROUP):
        yield from _below(wanted, names.SYSTEMD_SUBGROUP)
    for name, value in wanted.items():
        if name.startswith(names.SYSTEMD_PROPERTY):
            yield from _property(name, value)


def _below(wanted: Json, name: str) -> Iterator[Result]:
    path = wanted[name]
    if not path or path.startswith("/") or {"", ".", ".."} & set(path.split("/")):
        message, allowed = "isn't a place below the container's cgroup", "such as payload"
        yield error(f"/annotations/{name}", "annotation-cgroup", message, path, allowed)


def _property(name: str, value: str) -> Iterator[Result]:
    """Only warn: without the systemd driver it is nobody's business."""
    where = f"/annotations/{escape(name)}"
    if not is_value(value):
        message = "isn't a value of D-Bus's in its text form, such as 'text', true or uint64 5"
        yield warning(where, "annotation-value", message, value)
    if not _PROPERTY.fullmatch(name.removeprefix(names.SYSTEMD_PROPERTY)):
        message = "isn't the name of a systemd property (three letters or more)"
        yield warning(where, "annotation-property", message, name)
