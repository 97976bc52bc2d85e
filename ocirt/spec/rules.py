# SPDX-License-Identifier: GPL-3.0-or-later
"""What a schema can't say: rules between fields.

docs/validation.md lists them with their reasons; a finding's rule is the id used there. Here are
the rules on whole documents and on the fields of config.md; the other rules_*.py have the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from ocirt.spec import rules_linux
from ocirt.spec.names import HOOKS
from ocirt.spec.report import Json, Result, error, relative, warning
from ocirt.spec.rules_annotations import our_annotations
from ocirt.spec.rules_process import environment, process
from ocirt.spec.rules_resources import resources

_Rule = Callable[[Json], Iterable[Result]]

# semver.org, "Is there a suggested regular expression"
_SEMVER = re.compile(
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(-(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
    r"(\.(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?"
)
_HOST_NAME_MAX = 64  # the kernel's __NEW_UTS_LEN


def check_config(document: Json, *, typed: bool = True) -> list[Result]:
    """Apply every rule to a config.json.

    typed says that it matches the schema. Otherwise a rule that meets a value of another type
    gives up: the schema has reported that value, and the other rules still say what they find.
    """
    return _apply(_CONFIG, document, typed=typed)


def check_process(document: Json, *, typed: bool = True) -> list[Result]:
    """Apply the rules to a process.json."""
    return _apply((lambda d: process(d, ""),), document, typed=typed)


def check_resources(document: Json, *, typed: bool = True) -> list[Result]:
    """Apply the rules to the resources that update takes."""
    return _apply((lambda d: resources(d, ""),), document, typed=typed)


def check_state(document: Json, *, typed: bool = True) -> list[Result]:
    """Apply the rules to a state."""
    return _apply((_state,), document, typed=typed)


def _apply(rules: Iterable[_Rule], document: Json, *, typed: bool) -> list[Result]:
    results: list[Result] = []
    for rule in rules:
        try:
            results.extend(rule(document))
        except (TypeError, LookupError, AttributeError, ValueError):
            if typed:
                raise
    return results


def _version(document: Json) -> Iterator[Result]:
    version = document.get("ociVersion", "1.0.0")
    match = _SEMVER.fullmatch(version)
    if match is None:
        allowed = "a version of runtime-spec such as 1.3.0 (semver.org)"
        yield error("/ociVersion", "oci-version", "isn't a version", version, allowed)
    elif match[1] != "1":
        allowed = "1.x.y: another major version may mean something else by every field"
        yield error("/ociVersion", "oci-major-version", "can't be read", version, allowed)


def _root(document: Json) -> Iterator[Result]:
    if "root" not in document:
        yield error("/root", "root-missing", "is missing; a container on Linux needs a rootfs")


def _mounts(mounts: list[Json]) -> Iterator[Result]:
    for index, mount in enumerate(mounts):
        pointer = f"/mounts/{index}"
        options = mount.get("options", [])
        if not mount["destination"].startswith("/"):
            yield warning(
                f"{pointer}/destination",
                "mount-destination-relative",
                "is relative (deprecated); it is taken to start at /",
                mount["destination"],
            )
        kind = mount.get("type")
        is_bind = kind == "bind" or "bind" in options or "rbind" in options
        if is_bind:
            if not mount.get("source") and "remount" not in options:
                yield error(f"{pointer}/source", "mount-source", "is missing for a bind mount")
        elif not kind and "remount" not in options:
            yield error(f"{pointer}/type", "mount-type", "is missing, and it isn't a bind mount")
        if ("uidMappings" in mount) != ("gidMappings" in mount):
            message = "has one of uidMappings and gidMappings; both are needed, or neither"
            yield error(pointer, "mount-mappings", message)
        for name in ("uidMappings", "gidMappings"):
            if name in mount:
                yield from rules_linux.mappings(mount[name], f"{pointer}/{name}")


def _hooks(hooks: Json) -> Iterator[Result]:
    for kind in HOOKS:
        for index, hook in enumerate(hooks.get(kind, [])):
            pointer = f"/hooks/{kind}/{index}"
            yield from relative(hook["path"], f"{pointer}/path", "hook-path")
            yield from environment(hook.get("env", []), f"{pointer}/env")


def _host_names(document: Json) -> Iterator[Result]:
    namespaces = document.get("linux", {}).get("namespaces", [])
    has_uts = any(n["type"] == "uts" for n in namespaces)
    for name in ("hostname", "domainname"):
        value = document.get(name)
        if not value:
            continue
        if not has_uts:
            message = "would rename the host: the container has no uts namespace"
            yield error(f"/{name}", "name-without-uts", message, value)
        if len(value.encode()) > _HOST_NAME_MAX:
            allowed = f"at most {_HOST_NAME_MAX} bytes"
            yield error(f"/{name}", "name-length", "is too long", value, allowed)


def _state(document: Json) -> Iterator[Result]:
    """runtime.md, "State"."""
    if document["status"] in ("created", "running") and not document.get("pid"):
        message = f"is missing: the container is {document['status']}"
        yield error("/pid", "state-pid", message)
    yield from relative(document["bundle"], "/bundle", "state-bundle")


def _linux(document: Json) -> Json:
    linux: Json = document.get("linux", {})
    return linux


_CONFIG: tuple[_Rule, ...] = (
    _version,
    _root,
    lambda d: _mounts(d.get("mounts", [])),
    lambda d: _hooks(d.get("hooks", {})),
    lambda d: our_annotations(d.get("annotations", {})),
    _host_names,
    lambda d: rules_linux.namespaces(_linux(d)),
    lambda d: rules_linux.user_mappings(_linux(d)),
    rules_linux.mapped_users,
    lambda d: rules_linux.devices(_linux(d)),
    lambda d: rules_linux.net_devices(_linux(d)),
    lambda d: rules_linux.paths(_linux(d)),
    lambda d: rules_linux.intel_rdt(_linux(d).get("intelRdt", {})),
    lambda d: rules_linux.seccomp(d["linux"]["seccomp"]) if "seccomp" in _linux(d) else (),
    lambda d: process(d["process"], "/process") if "process" in d else (),
    lambda d: resources(_linux(d).get("resources", {}), "/linux/resources"),
)
