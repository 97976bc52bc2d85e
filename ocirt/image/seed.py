# SPDX-License-Identifier: GPL-3.0-or-later
"""What the seed runs before it is saved: import the whole application, leave `entry`.

It runs once, when the image is built, in the interpreter of seed.c. Its search path holds the
standard library's directory and the checkout; afterwards there is none, and what isn't imported
here can't be imported any more.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import logging
import os
import pkgutil
import sys
import threading
import types
from typing import Any

import _image  # type: ignore[import-not-found]

# Where the interpreter's archive lacks an extension module that others import (typing does).
_MISSING = {"_typing": {"_idfunc": lambda x: x}}

# Imported by functions when they are needed: by the standard library on the ways that we use, and
# codecs by their names.
_LAZY = (
    "encodings.ascii",
    "encodings.latin_1",
    "encodings.utf_8",
    "encodings.utf_8_sig",  # json guesses these from the first bytes
    "encodings.utf_16",
    "encodings.utf_16_be",
    "encodings.utf_16_le",
    "encodings.utf_32",
    "encodings.utf_32_be",
    "encodings.utf_32_le",
    "linecache",
    "stat",
    "textwrap",
    "tokenize",
    "traceback",
)

# CPython 3.11 specialises code when it has run some ten times.
_ROUNDS = 20

# Of the package: what builds, or what only plain Python runs.
_NOT_HERE = ("ocirt.image", "ocirt.spec.compile", "ocirt.cli.man")


def _fill_gaps() -> None:
    for name, attributes in _MISSING.items():
        try:
            importlib.import_module(name)
        except ImportError:
            module = types.ModuleType(name)
            module.__dict__.update(attributes)
            sys.modules[name] = module


def _fast_json() -> None:
    """Give json C code: simplejson's, since _json isn't in the interpreter's archive.

    simplejson was json once, and its parser still has the interface of _json's; only its errors
    and one attribute are its own. Its encoder takes more arguments.
    """
    import json.decoder
    import json.encoder
    import json.scanner

    errors = types.ModuleType("simplejson.errors")
    errors.JSONDecodeError = json.JSONDecodeError  # type: ignore[attr-defined]
    raw_json = types.ModuleType("simplejson.raw_json")
    raw_json.RawJSON = type("RawJSON", (), {})  # type: ignore[attr-defined]
    package = types.ModuleType("simplejson")
    modules = {"simplejson": package, errors.__name__: errors, raw_json.__name__: raw_json}
    sys.modules.update(modules)
    import _speedups  # type: ignore[import-not-found]

    for name in ("make_scanner", "c_make_scanner"):
        setattr(json.scanner, name, _speedups.make_scanner)
    json.decoder.JSONDecoder.encoding = "utf-8"  # type: ignore[attr-defined]
    json._default_decoder = json.decoder.JSONDecoder()  # type: ignore[attr-defined]
    json.encoder.encode_basestring_ascii = _speedups.encode_basestring_ascii

    # dumps() would make one each time, in Python. Nothing that we write contains itself.
    default = json._default_encoder  # type: ignore[attr-defined]
    chunks = _speedups.make_encoder(
        markers=None,
        default=default.default,
        encoder=_speedups.encode_basestring_ascii,
        indent=None,
        key_separator=default.key_separator,
        item_separator=default.item_separator,
        sort_keys=False,
        skipkeys=False,
        allow_nan=True,
        key_memo={},
        use_decimal=False,
        namedtuple_as_object=False,
        tuple_as_array=True,
        int_as_string_bitcount=None,
        item_sort_key=None,
        encoding="utf-8",
        for_json=False,
        ignore_nan=False,
        Decimal=float,
        iterable_as_array=False,
    )
    default.encode = lambda document: "".join(chunks(document, 0))


def _quick_dataclasses() -> None:
    """Let dataclasses set their fields directly.

    A frozen one calls object.__setattr__ for each, which takes as long as all the rest of making
    it. Nothing assigns to them: mypy sees to that, and plain Python, where all the tests run, too.
    """
    original = dataclasses.dataclass

    def dataclass(cls: Any = None, /, *, frozen: bool = False, **options: Any) -> Any:
        return original(cls, unsafe_hash=frozen, **options)

    dataclasses.dataclass = dataclass


def _import_everything() -> None:
    import _linux  # type: ignore[import-not-found]

    import ocirt.kernel

    # The module is linked in under its bare name.
    sys.modules["ocirt.kernel._linux"] = ocirt.kernel._linux = _linux  # type: ignore[attr-defined]
    for name in _LAZY:
        importlib.import_module(name)
    for found in pkgutil.walk_packages(ocirt.__path__, "ocirt."):
        if not found.name.startswith(_NOT_HERE):
            importlib.import_module(found.name)
    importlib.import_module("ocirt.image.entry")


def _rehearse(commands: list[list[str]], rounds: int) -> None:
    """Run commands of rehearsal.py; so often that CPython has specialised their code.

    It also fills caches (attributes of types, versions of dictionaries): what is written now
    needn't be written, and its page copied, in every process.
    """
    entry = sys.modules["ocirt.image.entry"].entry
    plain = sys.modules["ocirt.plain"]
    # No command may leave for plain Python: this very process is going to be saved.
    launcher, plain.LAUNCHER = plain.LAUNCHER, None  # type: ignore[attr-defined]
    logger = logging.getLogger("ocirt")
    handlers = logger.handlers
    for _ in range(rounds):
        for words in commands:
            if status := entry(["ocirt", *words], {b"PATH": b"/bin"}, 0):
                print("rehearsal:", *words, "ended with", status, file=sys.stderr)
    plain.LAUNCHER = launcher  # type: ignore[attr-defined]
    # What the last command left would be freed by the first of each process, from pages of its own.
    logger.handlers = handlers
    for words in (sys.argv, sys.orig_argv):
        words.clear()
    os.environ.clear()
    threading.main_thread()._native_id = None  # type: ignore[attr-defined]
    _reap()


def _reap() -> None:
    """Containers were our children."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _forget_the_build() -> None:
    """Leave nothing of this machine's: search path, files that were looked at, environment."""
    sys.path.clear()
    sys.path_importer_cache.clear()
    sys.path_hooks.clear()
    sys.meta_path[:] = [f for f in sys.meta_path if f.__name__ != "PathFinder"]  # type: ignore[attr-defined]
    sys.modules["linecache"].clearcache()
    sys.modules["__main__"].__dict__.pop("__file__", None)


_fill_gaps()
_fast_json()
_quick_dataclasses()
_import_everything()
commands = json.loads(os.environ["OCIRT_REHEARSAL"])
# A plan is the same every time, and what it leaves in our caches is used by all that make one.
_rehearse([words for words in commands if "plan" in words], 1)
# What containers make us allocate depends on how long things take: it can't be told by its number.
_image.stop_placing()
_rehearse(commands, _ROUNDS)
_forget_the_build()

entry = sys.modules["ocirt.image.entry"].entry
gc.collect()
# A command lives for milliseconds: looking for cycles would only touch, and so copy, pages.
gc.freeze()
gc.disable()
