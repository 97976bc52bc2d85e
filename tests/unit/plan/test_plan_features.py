# SPDX-License-Identifier: GPL-3.0-or-later
"""`features` is honest: all it lists is accepted (features.md, features-linux.md: MUST)."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import ocirt
from ocirt.cli.main import main
from ocirt.errors import OcirtError
from ocirt.parts import mount_options
from ocirt.parts.seccomp import filter_flags
from ocirt.parts.seccomp_cache import Filter
from ocirt.parts.seccomp_compile import compile_profile
from ocirt.plan.order import build
from ocirt.spec import known_annotations
from ocirt.spec.model import Config, Seccomp
from ocirt.spec.validate import Kind, check_document
from tests.unit.plan.test_plan_order import HOST, OPTIONS
from tests.unit.spec.test_spec_schemas import needs_official, official

SOURCES = Path(ocirt.__file__).parent
ANNOTATION = re.compile(r'"((?:run\.oci|org\.systemd|org\.criu|io\.ocirt)\.[A-Za-z_.-]*)')


@pytest.fixture
def document(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `ocirt features` prints."""
    assert main(["features"]) == 0
    printed: dict[str, Any] = json.loads(capfd.readouterr().out)
    return printed


def minimal(**fields: Any) -> dict[str, Any]:
    """A small configuration, with these fields."""
    config: dict[str, Any] = {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["sh"]},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "network"}]},
    }
    for key, value in fields.items():
        if isinstance(value, dict):
            config.setdefault(key, {}).update(value)
        else:
            config[key] = value
    return config


def checked(config: dict[str, Any]) -> Config:
    """Return a valid configuration's model."""
    report = check_document(json.dumps(config).encode(), "config.json", Kind.CONFIG)
    assert report.errors == ()
    return Config.from_json(config)


def accepted(config: dict[str, Any]) -> bool:
    """Whether a valid configuration becomes a plan."""
    try:
        build(checked(config), HOST, OPTIONS)
    except OcirtError:
        return False
    return True


@needs_official
def test_the_official_schema_accepts_it(document: dict[str, Any]) -> None:
    official("features-schema.json").validate(document)


def test_nothing_is_left_out(document: dict[str, Any]) -> None:
    """Every property that features.md and features-linux.md know."""
    schema = json.loads((SOURCES.parent / "schemas/features.json").read_text())

    def compare(there: dict[str, Any], known: dict[str, Any]) -> None:
        assert there.keys() == known.keys()
        for key, value in there.items():
            # An object without properties of its own has keys that anybody may choose.
            if "properties" in known[key]:
                compare(value, known[key]["properties"])

    compare(document, schema["properties"])


def test_hooks(document: dict[str, Any]) -> None:
    before = {"prestart", "createRuntime", "createContainer"}
    assert set(document["hooks"]) == before | {"startContainer", "poststart", "poststop"}
    assert accepted(minimal(hooks={kind: [{"path": "/bin/true"}] for kind in document["hooks"]}))


def test_mount_options(document: dict[str, Any]) -> None:
    for option in document["mountOptions"]:
        # What isn't understood would go to the filesystem.
        assert mount_options.parse((option,)).data == (), option


def test_namespaces(document: dict[str, Any]) -> None:
    kinds = document["linux"]["namespaces"]
    assert len(kinds) == 8
    mapping = [{"containerID": 0, "hostID": 1000, "size": 9}]
    linux = {"uidMappings": mapping, "gidMappings": mapping}
    assert accepted(minimal(linux={**linux, "namespaces": [{"type": kind} for kind in kinds]}))


def test_capabilities(document: dict[str, Any]) -> None:
    names = document["linux"]["capabilities"]
    assert len(names) == 41
    sets = ("bounding", "permitted", "effective", "inheritable", "ambient")
    assert accepted(minimal(process={"capabilities": dict.fromkeys(sets, names)}))


def seccomp_profile(**fields: Any) -> Seccomp:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent", **fields}
    found = checked(minimal(linux={"seccomp": profile})).linux.seccomp
    assert found is not None
    return found


def compiled(profile: Seccomp) -> Filter:
    return Filter(*compile_profile(asdict(profile)))


def test_seccomp(document: dict[str, Any]) -> None:
    seccomp = document["linux"]["seccomp"]
    for action in seccomp["actions"]:
        more = {"listenerPath": "/agent"} if action == "SCMP_ACT_NOTIFY" else {}
        rule = {"names": ["chdir"], "action": action}
        assert compiled(seccomp_profile(syscalls=[rule], **more)).program
    for operator in seccomp["operators"]:
        argument = {"index": 0, "value": 1, "valueTwo": 1, "op": operator}
        call = {"names": ["chdir"], "action": "SCMP_ACT_ERRNO", "args": [argument]}
        assert compiled(seccomp_profile(syscalls=[call]))
    for arch in seccomp["archs"]:
        assert compiled(seccomp_profile(architectures=[arch]))
    assert "seccomp" in Path(compiled(seccomp_profile()).libraries.split(":")[0]).name
    assert set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"])
    assert filter_flags(seccomp_profile(flags=seccomp["knownFlags"]))


@pytest.mark.parametrize(
    ("switch", "pointer", "value"),
    [
        ("apparmor/enabled", "process/apparmorProfile", "unconfined"),
        ("selinux/enabled", "process/selinuxLabel", "a:b:c:d"),
        ("intelRdt/enabled", "linux/intelRdt", {"closID": "c"}),
        ("intelRdt/schemata", "linux/intelRdt", {"schemata": ["L3:0=f"]}),
        ("intelRdt/monitoring", "linux/intelRdt", {"enableMonitoring": True}),
        ("netDevices/enabled", "linux/netDevices", {"eth0": {}}),
        ("memoryPolicy/modes", "linux/memoryPolicy", {"mode": "MPOL_LOCAL"}),
    ],
)
def test_a_switch_tells_whether_a_field_is_accepted(
    switch: str, pointer: str, value: object, document: dict[str, Any]
) -> None:
    room, _, name = switch.partition("/")
    place, _, field = pointer.partition("/")
    assert accepted(minimal(**{place: {field: value}})) is bool(document["linux"][room][name])


def test_idmapped_mounts(document: dict[str, Any]) -> None:
    mapping = [{"containerID": 0, "hostID": 1000, "size": 9}]
    mount: dict[str, Any] = {"destination": "/x", "source": "/y", "options": ["bind", "idmap"]}
    mount |= {"uidMappings": mapping, "gidMappings": mapping}
    switch = document["linux"]["mountExtensions"]["idmap"]["enabled"]
    assert accepted(minimal(mounts=[mount])) is switch


def test_annotations_that_do_something_are_declared(document: dict[str, Any]) -> None:
    assert document["potentiallyUnsafeConfigAnnotations"] == list(known_annotations.UNSAFE)
    declared = {*known_annotations.UNSAFE, *known_annotations.SAFE}
    known = {v for k, v in vars(known_annotations).items() if k.isupper() and isinstance(v, str)}
    assert known == declared
    for path in SOURCES.rglob("*.py"):
        if path.name not in ("known_annotations.py", "features.py"):
            found = ANNOTATION.findall(path.read_text())
            assert found == [], f"{path} has {found}: its place is ocirt/spec/known_annotations.py"
