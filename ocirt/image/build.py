# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the image: compile the seed, let it save itself, test the result.

    python -m ocirt.image.build --plain LAUNCHER --work DIR OUTPUT

Exit status 3 means that this machine can't build one (the reason is printed): the plain launcher
does the same work, slower. Any other failure is a mistake that has to be mended.
"""

from __future__ import annotations

import argparse
import json
import marshal
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ocirt.image.check import check
from ocirt.image.placement import plant_placed
from ocirt.image.rehearsal import Commands, prepare

_HERE = Path(__file__).parent
_PACKAGE = _HERE.parent
_CANNOT = 3
_LISTS = 5  # of blocks (place.h)

# The built-in modules that ocirt and what it imports of the standard library use; those which this
# version of Python doesn't have are left out. No pwd and grp: without NSS they couldn't work.
_MODULES = [
    "_abc",
    "_ast",
    "_bisect",
    "_blake2",
    "_codecs",
    "_collections",
    "_datetime",
    "_functools",
    "_heapq",
    "_imp",
    "_io",
    "_locale",
    "_opcode",
    "_operator",
    "_posixsubprocess",
    "_signal",
    "_socket",
    "_sre",
    "_stat",
    "_string",
    "_struct",
    "_suggestions",
    "_symtable",
    "_sysconfig",
    "_thread",
    "_tokenize",
    "_tracemalloc",
    "_typing",
    "_warnings",
    "_weakref",
    "array",
    "atexit",
    "binascii",
    "errno",
    "faulthandler",
    "fcntl",
    "gc",
    "itertools",
    "marshal",
    "math",
    "posix",
    "select",
    "time",
    "zlib",
]
# CPython's own, and not named PyInit_*.
_ODD_NAMES = {"marshal": "PyMarshal_Init", "_warnings": "_PyWarnings_Init", "gc": "PyInit_gc"}
# Linked in from elsewhere.
_OURS = {"_linux": "PyInit__linux", "_prctl": "PyInit__prctl", "_speedups": "PyInit__speedups"}

# CPython's own frozen modules that it starts with: C name and path in the standard library.
_BOOTSTRAP = {
    "_frozen_importlib": ("importlib_bootstrap", "importlib/_bootstrap.py"),
    "_frozen_importlib_external": ("importlib_external", "importlib/_bootstrap_external.py"),
    "zipimport": ("zipimport", "zipimport.py"),
}

# CPU features by which glibc chooses string and mathematics routines: none, so that the image runs
# on every x86-64 (GLIBC_TUNABLES, glibc.cpu.hwcaps). Unknown names are ignored.
_BASELINE = [
    "AVX512F",
    "AVX512VL",
    "AVX512BW",
    "AVX512DQ",
    "AVX512ER",
    "AVX512CD",
    "AVX2",
    "AVX",
    "AVX_Fast_Unaligned_Load",
    "BMI1",
    "BMI2",
    "ERMS",
    "FSRM",
    "FMA",
    "FMA4",
    "LZCNT",
    "MOVBE",
    "POPCNT",
    "RTM",
    "SSE3",
    "SSSE3",
    "SSE4_1",
    "SSE4_2",
    "XSAVE",
    "XSAVEC",
    "Fast_Unaligned_Copy",
    "Fast_Copy_Backward",
    "Slow_BSF",
    "Prefer_No_VZEROUPPER",
]


class CannotBuildError(Exception):
    """This machine lacks something that the image needs; the message says what."""


def main() -> int:
    parser = argparse.ArgumentParser(description="build the pre-initialised executable")
    parser.add_argument("output", type=Path)
    parser.add_argument("--plain", type=Path, required=True, help="the launcher of plain Python")
    parser.add_argument("--work", type=Path, required=True, help="a directory for what is made")
    parser.add_argument("--hash-seed", type=int, help="Python's, to compare builds (else random)")
    options = parser.parse_args()
    try:
        work = options.work.resolve()
        # Python's own is 32 bits; 0 would mean none.
        hash_seed = options.hash_seed or 1 + secrets.randbelow(2**32 - 1)
        image, probe = build(work, options.plain.absolute(), hash_seed)
    except CannotBuildError as e:
        print(f"no image, plain Python instead: {e}", file=sys.stderr)
        return _CANNOT
    if problems := check(image, probe, work / "seed"):
        print("the image fails its tests:", *problems, sep="\n  ", file=sys.stderr)
        return 1
    options.output.unlink(missing_ok=True)
    image.rename(options.output)
    return 0


def build(work: Path, plain: Path, hash_seed: int) -> tuple[Path, Path]:
    """Return a new image below work, and one to test images with (probe.py).

    What it can't do, the launcher plain does. hash_seed decides where much lies.

    Raises CannotBuildError, and CalledProcessError where a tool fails that should not.
    """
    library = _python_library()
    work.mkdir(parents=True, exist_ok=True)
    sources = _sources(work)
    seed = work / "seed"
    _compile(seed, work, sources, library)
    image, probe = work / "image", work / "probe"
    with tempfile.TemporaryDirectory(prefix="ocirt-build-") as folder:
        commands = prepare(Path(folder))
        plant = Planter(seed, plain, hash_seed, sources, commands)
        plant_placed(plant, image, work, commands)
        plant(probe, _HERE / "probe.py")
    return image, probe


def _python_library() -> Path:
    if platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
        raise CannotBuildError(f"it is made for x86-64 with glibc, this is {platform.machine()}")
    folder = Path(sysconfig.get_config_var("LIBPL") or "")
    library = folder / f"libpython{sysconfig.get_config_var('LDVERSION')}.a"
    if not library.is_file():
        raise CannotBuildError(f"{library} is missing; install libpython3-dev")
    for name in ("libc.a", "libcap.a"):
        found = subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        )
        if not os.path.isabs(found.stdout.strip()):
            raise CannotBuildError(f"{name} is missing; install libc6-dev and libcap-dev")
    return library


def _sources(work: Path) -> Path:
    """Download the two extension modules that are linked in, by their hashes, and unpack them."""
    folder = work / "sources"
    wanted = _HERE / "sources.txt"
    stamp = folder / "sources.txt"
    if stamp.is_file() and stamp.read_bytes() == wanted.read_bytes():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-binary", ":all:", "--no-deps", "--require-hashes", "--dest", str(folder)]
    ended = subprocess.run(
        [*command, "-r", str(wanted)], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:]
        raise CannotBuildError(f"pip can't download {wanted.name}: {' '.join(last)}")
    for archive in folder.glob("*.tar.gz"):
        with tarfile.open(archive) as file:
            # What the archive may do was settled by its hash. Python 3.11.2 knows no filters yet.
            file.extraction_filter = getattr(tarfile, "data_filter", None)
            file.extractall(folder)
    shutil.copy(wanted, stamp)
    return folder


def _one(folder: Path, name: str) -> Path:
    """Return the file of this name below folder."""
    (path,) = folder.rglob(name)
    return path


def _compile(seed: Path, work: Path, sources: Path, library: Path) -> None:
    include = sysconfig.get_path("include")
    (work / "found.h").write_text(_found_h(library))
    (work / "vdso.h").write_text(_vdso_h())
    common = ["gcc", "-O2", "-fno-pie", f"-I{include}", f"-I{work}", "-c"]
    strict = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fno-stack-protector"]
    foreign = ["-w", "-DNDEBUG"]
    objects = []
    for source, flags in (
        (_HERE / "seed.c", strict),
        (_HERE / "dump.c", strict),
        (_HERE / "start.c", strict),
        (_HERE / "place.c", strict),
        (_HERE / "slot.c", strict),
        (
            _PACKAGE / "kernel/_linux.c",
            ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"],
        ),
        (_one(sources, "_prctlmodule.c"), foreign),
        (_one(sources, "_speedups.c"), foreign),
    ):
        target = work / f"{source.stem}.o"
        subprocess.run([*common, *flags, str(source), "-o", str(target)], check=True)
        objects.append(str(target))
    link = ["gcc", "-static", "-no-pie", "-o", str(seed), *objects, str(library)]
    # posix refers to functions that would load NSS; nothing here calls them.
    link += ["-lcap", "-lz", "-lm", "-Wl,--no-warnings", "-Wl,-z,norelro"]
    link += [f"-Wl,-T,{_HERE / 'layout.ld'}", "-Wl,-z,max-page-size=0x200000"]
    link += ["-Wl,--wrap=_Py_Deepfreeze_Init,--wrap=fexecve"]
    subprocess.run(link, check=True, stderr=subprocess.PIPE)


def _found_h(library: Path) -> str:
    """Return the header with what differs between versions of Python."""
    defined = set(_symbols(library, r"[TD]"))
    functions = {name: _ODD_NAMES.get(name, f"PyInit_{name}") for name in _MODULES}
    table = {name: f for name, f in functions.items() if f in defined} | _OURS
    lines = ["#define INIT_FUNCTIONS(X) \\"]
    lines += [f'    X("{name}", {function}) \\' for name, function in sorted(table.items())]
    lines += [""]
    for variable, code in _bootstrap_code().items():
        words = ", ".join(str(byte) for byte in code)
        lines.append(f"static const unsigned char {variable}[] = {{ {words} }};")
    lines += ["#define BOOTSTRAP_MODULES(X) \\"]
    lines += [f'    X("{name}", {variable}) \\' for name, (variable, _) in _BOOTSTRAP.items()]
    return "\n".join([*lines, "", ""])


def _vdso_h() -> str:
    """Return the header with what differs between versions of glibc."""
    libc = subprocess.run(
        ["gcc", "-print-file-name=libc.a"], capture_output=True, text=True, check=True
    ).stdout.strip()
    names = sorted(s for s in set(_symbols(Path(libc), r"[BbDd]")) if s.startswith("_dl_vdso_"))
    lines = ["#define VDSO_POINTERS(X) \\", *(f"    X({name}) \\" for name in names)]
    return "\n".join([*lines, "", ""])


def _bootstrap_code() -> dict[str, bytes]:
    """Return the modules that import others as marshalled code, by C names."""
    found = {}
    for variable, path in _BOOTSTRAP.values():
        name = path.removesuffix(".py").replace("/", ".")
        source = Path(sysconfig.get_path("stdlib"), path).read_text()
        code = compile(source, f"<frozen {name}>", "exec", dont_inherit=True, optimize=2)
        found[variable] = marshal.dumps(code)
    return found


def _symbols(library: Path, kinds: str) -> list[str]:
    listing = subprocess.run(
        ["nm", "--defined-only", str(library)], capture_output=True, text=True, check=True
    ).stdout
    return re.findall(rf"^[0-9a-f]+ {kinds} (\S+)$", listing, re.MULTILINE)


class Planter:
    """Runs the seed, without address randomisation where that can be had, and on a baseline CPU.

    Every run of one planter allocates in the same order (place.h): it has one hash seed.
    """

    def __init__(
        self, seed: Path, plain: Path, hash_seed: int, sources: Path, commands: Commands
    ) -> None:
        self._commands = json.dumps(commands)
        self._first = [str(seed)], [str(plain), str(hash_seed)]
        prctl = _one(sources, "prctl.py").parent
        self._search = [str(_PACKAGE.parent), sysconfig.get_path("stdlib"), str(prctl)]
        fixed = ["setarch", "--addr-no-randomize"]
        if subprocess.run([*fixed, "true"], capture_output=True, check=False).returncode == 0:
            self._first[0][:0] = fixed

    def __call__(
        self,
        target: Path,
        after: Path | None = None,
        *,
        lists: Sequence[Path] = (),
        mode: str = "",
        record: Path | None = None,
        used: Path | None = None,
    ) -> None:
        """Make an image that has run seed.py and after.

        lists and record are as in place.h, mode and used as in seed.c.
        """
        before, words = self._first
        programs = [str(_HERE / "seed.py"), str(after or "")]
        paths, gap = [*map(str, lists)], [""] * (_LISTS - len(lists))
        # In a spread one the last list is the one that is far away.
        paths = [*paths[:-1], *gap, paths[-1]] if mode == "spread" else [*paths, *gap]
        placing = [*paths, mode, str(record or ""), str(used or "")]
        tunables = ",".join(f"-{name}" for name in _BASELINE)
        subprocess.run(
            [*before, str(target), *words, *programs, *placing, *self._search],
            check=True,
            env={
                "GLIBC_TUNABLES": f"glibc.cpu.hwcaps={tunables}",
                "OCIRT_REHEARSAL": self._commands,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )


if __name__ == "__main__":
    sys.exit(main())
