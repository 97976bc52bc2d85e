# SPDX-License-Identifier: GPL-3.0-or-later
"""Strict JSON: what is refused, and what the message says about the place."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.spec.load import LARGEST, load
from ocirt.spec.report import ConfigError
from ocirt.spec.validate import Kind, check_document


def refused(data: bytes) -> str:
    with pytest.raises(ConfigError) as error:
        load(data, "file.json")
    return str(error.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "line 1, column 1"),
        (b'{"a": 1,}', "line 1"),
        (b'{\n "a": [1 2]}', "line 2, column 10"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "UTF-8"),
        (b"[1] 2", "line 1, column 5"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": "\\ud800"}', "/a: has half of a surrogate pair"),
        (b'{"\\uDC00": 1}', "/\\udc00: has half of a surrogate pair"),
        (b'{"a": ["x\\u0000y"]}', "/a/0: has a NUL byte"),
        (b'{"a\\u0000": 1}', "/a\\0: has a NUL byte"),
        (b'{"a": "\0"}', "invalid control character"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1, "a": 2}', "/a: is given twice"),
        (b'{"x": [{"a/b": 1, "a/b": 2}]}', "/x/0/a~1b: is given twice"),
        (b"[" * 100000 + b"]" * 100000, "nested too deeply"),
        (b"1" * 10000, "thousands of digits"),
        # What comes after the first duplicate key is still read.
        (b'{"x": {"a": 1, "a": 2}, oops', "column 25"),
        (b'{"x": {"a": 1, "a": 2}, "y": ' + b"[" * 100000, "nested too deeply"),
        (b'{"x": {"a": 1, "a": 2}, "y": NaN}', "NaN"),
        (b'{"\\ud800": 1, "\\ud800": 2}', "/\\ud800: is given twice"),
        (b" " * (LARGEST + 1), "at most"),
    ],
)
def test_refused(data: bytes, words: str) -> None:
    message = refused(data)
    assert words in message
    assert message.startswith("file.json: ")


def test_integers_written_as_floats_are_integers() -> None:
    document = load(b'{"a": 1.0, "b": 1e3, "c": 1.5}', "f")
    assert document == {"a": 1, "b": 1000, "c": 1.5}
    assert [type(v) for v in document.values()] == [int, int, float]


@pytest.mark.parametrize("text", [r"\\u0000", r"\ud83d\ude00", r"\\ud800", r"\u00e9"])
def test_escapes_that_are_fine(text: str) -> None:
    data = f'{{"a": "{text}"}}'.encode()
    assert load(data, "f") == json.loads(data)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_nothing_but_a_report_comes_of_any_bytes(data: bytes) -> None:
    report = check_document(data, "f", Kind.CONFIG)
    assert report.errors
