# SPDX-License-Identifier: GPL-3.0-or-later
"""bundle.md and glossary.md: what a bundle is, and what JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from conformance.probe import exists
from conformance.requirement import Level, requirement
from tests.harness import Container

INVALID = '"Valid values": the text isn\'t a valid configuration'


def try_with(container: Container, text: bytes, name: str = "config.json") -> int:
    """Call create on a bundle whose only document is this text; return the exit status."""
    directory = container.bundle.directory
    (directory / "config.json").unlink(missing_ok=True)
    (directory / name).write_bytes(text)
    return container.runtime.call("create", "--bundle", str(directory), container.id).status


@requirement(
    "bundle.md",
    "Container Format",
    7,
    level=Level.MUST,
    says="config.json is in the bundle's root and has that name",
)
@pytest.mark.parametrize("name", ["Config.json", "config.yaml", "rootfs/config.json"])
def test_name(container: Container, name: str) -> None:
    text = json.dumps(container.config).encode()
    assert try_with(container, text, name) > 0
    assert not exists(container)
    # It was the name that was wrong, nothing else.
    assert try_with(container, text) == 0


def in_latin_1(text: str) -> bytes:
    return text.replace('"test"', '"t\xe9st"').encode("latin-1")


def in_utf_16(text: str) -> bytes:
    return text.encode("utf-16")


@requirement("glossary.md", "JSON", 1, level=Level.MUST, says="the configuration is in UTF-8")
@pytest.mark.right(INVALID)
@pytest.mark.parametrize("encode", [in_latin_1, in_utf_16])
def test_encoding(container: Container, encode: Callable[[str], bytes]) -> None:
    container.bundle.set("/annotations", {"key": "test"})
    text = json.dumps(container.config)
    assert try_with(container, encode(text)) > 0
    assert not exists(container)


@requirement("glossary.md", "JSON", 2, level=Level.MUST_NOT, says="a name twice is an error")
@pytest.mark.right(INVALID)
@pytest.mark.parametrize("place", ['{"ociVersion"', '"terminal"'])
def test_duplicate_names(container: Container, place: str) -> None:
    text = json.dumps(container.config)
    name = place.lstrip("{")
    value = container.config["ociVersion"] if "oci" in place else False
    again = place.replace(name, f"{name}: {json.dumps(value)}, {name}")
    assert place in text
    assert try_with(container, text.replace(place, again, 1).encode()) > 0
    assert not exists(container)
