# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests that an image must pass before it becomes build/ocirt.

A second image, made of the same seed, runs the code that it is given: what fails there would fail
in the real one. The real one is started a thousand times.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

STARTS = 1000
_LIMIT_SECONDS = 60
_NOBODY = 65534

# What is in the name of a routine that needs more than the first x86-64 had. Not erms: the string
# instructions are as old as x86, only their speed is new.
_NOT_BASELINE = re.compile(r"avx|evex|_fma4?$|sse3|ssse3|sse4|movbe|rtm")

# Each prints "fine" in the end.
_PROGRAMS = {
    "fork": """
import os
pid = os.fork()
if not pid:
    os._exit(7 if os.getpid() != os.getppid() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
""",
    "clone3": """
import os
from ocirt.kernel.process import clone3
pid, fd = clone3(0)
if not pid:
    os._exit(8)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 8
""",
    "subprocess": """
import subprocess
assert subprocess.run(["/bin/echo", "x"], capture_output=True, check=True).stdout == b"x\\n"
""",
    "signals": """
import os, signal
got = []
signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
os.kill(os.getpid(), signal.SIGUSR1)
assert got == [signal.SIGUSR1]
assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
""",
    "threads": """
import threading
got = []
thread = threading.Thread(target=lambda: got.append(threading.get_native_id()))
thread.start()
thread.join()
assert got and got != [threading.main_thread().native_id]
""",
    "tracebacks": """
import traceback
try:
    1 / 0
except ZeroDivisionError:
    assert "ZeroDivisionError: division by zero" in traceback.format_exc()
""",
    "exhausted descriptors": """
import errno, os
held = []
try:
    while True:
        held.append(os.open("/", os.O_RDONLY))
except OSError as e:
    assert e.errno == errno.EMFILE
for fd in held:
    os.close(fd)
""",
    "json": """
import json
text = '{"a": [1, 2.5, "\\\\u00e9", true, null], "b": {}}'
value = {"a": [1, 2.5, "\\u00e9", True, None], "b": {}, "c": (), 4: "\\u2028\\U0001f600"}
slow = json.encoder.JSONEncoder()
slow.indent = 0  # not in C
assert json.dumps(value) == slow.encode(value).replace("\\n", "")
assert json.loads(text) == {"a": [1, 2.5, "\xe9", True, None], "b": {}}
for wrong in ("{", "[1,]", '{"a" 1}', "nul", "[1] x", '"\\n"'):
    try:
        json.loads(wrong)
    except json.JSONDecodeError:
        continue
    raise AssertionError(wrong)
""",
    "memory": """
data = [bytes(1 << 20) for _ in range(50)] + [str(n) for n in range(200000)]
del data
""",
    "time and thread ids": """
import os, threading, time
assert abs(time.time() - os.stat("/proc/self").st_mtime) < 60
assert threading.main_thread().native_id == os.getpid()
""",
}


def check(image: Path, probe: Path, seed: Path) -> list[str]:
    """Return what is wrong with an image; empty if nothing is."""
    problems = [*_programs(probe), *_surroundings(probe), *_start_often(image)]
    return problems + [
        f"glibc chose {name} for this CPU" for name in chosen_for_this_cpu(image, seed)
    ]


def _programs(probe: Path) -> Iterator[str]:
    for name, code in _PROGRAMS.items():
        yield from _expect(name, [str(probe), f"{code}\nprint('fine')"])


def _expect(name: str, command: Sequence[str], **options: object) -> Iterator[str]:
    """Run a command that must say "fine"."""
    try:
        ended = subprocess.run(  # type: ignore[call-overload]
            command,
            capture_output=True,
            text=True,
            timeout=_LIMIT_SECONDS,
            check=False,
            **options,
        )
    except subprocess.TimeoutExpired:
        yield f"{name}: doesn't end"
        return
    if ended.returncode or ended.stdout != "fine\n":
        yield f"{name}: exit status {ended.returncode}, {ended.stdout!r}, {ended.stderr!r}"


def _surroundings(probe: Path) -> Iterator[str]:
    """Start it as odd callers do."""
    fine = [str(probe), "print('fine')"]
    shell = "exec 3>&1; {} "
    yield from _expect("empty environment", fine, env={})
    look = "import os; print('fine' if os.environ == {'A': 'b=c'} else os.environ)"
    yield from _expect("the caller's environment", [str(probe), look], env={"A": "b=c"})
    said = "import os; os.write(3, b'fine\\n')"
    for name, redirection in (
        ("closed descriptors", "<&- >&- 2>&-"),
        ("read-only stderr", "2</dev/null >&-"),
        ("full stdout", ">/dev/full"),
    ):
        command = ["/bin/sh", "-c", shell.format(f'"$0" "$1" {redirection}'), str(probe), said]
        yield from _expect(name, command)
    limit = ["/bin/sh", "-c", 'ulimit -v 131072 && exec "$0" "$@"', *fine]
    yield from _expect("ulimit -v 131072", limit)
    ignored = "import signal; print('fine' if signal.getsignal(1) == signal.SIG_IGN else '')"
    yield from _expect("nohup", ["nohup", str(probe), ignored])
    if _can_unshare():
        yield from _expect("user namespace", ["unshare", "--user", "--map-root-user", *fine])
    if os.geteuid() == 0:
        yield from _as_nobody(probe)


def _can_unshare() -> bool:
    """Tell whether this machine lets us make user namespaces at all."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False)
    return tried.returncode == 0


def _as_nobody(probe: Path) -> Iterator[str]:
    """Start it without root, by descriptor: the folders above may be closed to others."""
    fd = os.open(probe, os.O_RDONLY)
    try:
        command = [f"/proc/self/fd/{fd}", "import os; print('fine' if os.geteuid() else 'root')"]
        yield from _expect("without root", command, user=_NOBODY, group=_NOBODY, pass_fds=(fd,))
    finally:
        os.close(fd)


def _start_often(image: Path) -> Iterator[str]:
    with open(os.devnull, "w") as null:
        for number in range(STARTS):
            if status := subprocess.call([image, "--version"], stdout=null):
                yield f"start {number} of {STARTS}: exit status {status}"
                return


def chosen_for_this_cpu(image: Path, seed: Path) -> list[str]:
    """Return the routines in an image that glibc chose because the build machine's CPU has more.

    glibc leaves its choices in the places that IRELATIVE relocations of the seed name.
    """
    names = _functions(seed)
    content = image.read_bytes()
    chosen = []
    for place in _choices(seed):
        (address,) = struct.unpack_from("<Q", content, _offset(content, place))
        alternatives = names.get(address)
        if alternatives is None:
            chosen.append(f"an unknown routine at {address:#x}")
        elif any(_NOT_BASELINE.search(name) for name in alternatives):
            chosen.append(sorted(alternatives)[0])
    return chosen


def _functions(program: Path) -> dict[int, set[str]]:
    listing = subprocess.run(["nm", str(program)], capture_output=True, text=True, check=True)
    found: dict[int, set[str]] = {}
    for line in listing.stdout.splitlines():
        address, _, rest = line.partition(" ")
        if address:
            found.setdefault(int(address, 16), set()).add(rest[2:])
    return found


def _choices(program: Path) -> list[int]:
    command = ["readelf", "--relocs", "--wide", str(program)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    places = re.findall(r"^([0-9a-f]{12,16}) .*R_X86_64_IRELATIV", listing, re.MULTILINE)
    if not places:
        raise ValueError(f"{program} has no IRELATIVE relocations: is it linked statically?")
    return [int(place, 16) for place in places]


def _offset(content: bytes, address: int) -> int:
    """Return where in an ELF file the byte of an address is (elf(5), program headers)."""
    table, size, count = struct.unpack_from("<Q14xHH", content, 32)
    for index in range(count):
        kind, _, offset, start, _, length = struct.unpack_from(
            "<IIQQQQ", content, table + index * size
        )
        if kind == 1 and start <= address < start + length:
            return int(offset + address - start)
    raise ValueError(f"no segment has {address:#x}")
