# SPDX-License-Identifier: GPL-3.0-or-later
"""The runtime's file is out of reach for what runs in containers (CVE-2019-5736)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Container, proc
from tests.integration.conftest import MakeContainer
from tests.integration.test_exec import execute, started
from tests.integration.test_namespaces import ask_for

EXECS, CREATES = 30, 6

# The attack: hold init's file, and open it for writing once it runs nowhere. Changes no byte.
HOLD_AND_REOPEN = """#!/usr/bin/python3
import errno, json, os, sys, time

held = os.open(f"/proc/{json.load(sys.stdin)['pid']}/exe", os.O_RDONLY)
if os.fork():
    os._exit(0)
for fd in (0, 1, 2):
    os.dup2(os.open(os.devnull, os.O_RDWR), fd)
for _ in range(300):
    try:
        # Closed at once: what is open for writing can't be executed, and the tests go on.
        os.close(os.open(f"/proc/self/fd/{held}", os.O_WRONLY))
    except OSError as e:
        said = errno.errorcode[e.errno]
        if e.errno != errno.ETXTBSY:
            break
        time.sleep(0.01)
    else:
        said = "opened"
        break
with open("OUTPUT.new", "w") as file:
    json.dump({"opened": said, "read_only": bool(os.fstatvfs(held).f_flag & os.ST_RDONLY)}, file)
os.rename("OUTPUT.new", "OUTPUT")
"""


SHOWN = pytest.mark.peer_fails("runc", "1.1 shows a read-only clone of its own file")
SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


def all_capabilities() -> dict[str, list[str]]:
    """Return every capability that this machine has to give."""
    header = Path("/usr/include/linux/capability.h").read_text()
    known = re.findall(r"^#define (CAP_\w+)\s+(\d+)$", header, re.MULTILINE)
    bounding = int(proc.status("self")["CapBnd"], 16)
    return {key: [name for name, bit in known if bounding >> int(bit) & 1] for key in SETS}


@dataclass(frozen=True, slots=True)
class Thief:
    """tests/harness/thief.c, compiled: the program and the library."""

    program: Path
    shared_object: Path

    def into(self, rootfs: Path) -> None:
        shutil.copy(self.program, rootfs / "bin/thief")
        (rootfs / "lib").mkdir(exist_ok=True)
        shutil.copy(self.shared_object, rootfs / "lib/thief.so")


@pytest.fixture(scope="module")
def thief(scratch: Path) -> Thief:
    made = Thief(scratch / "thief", scratch / "thief.so")
    source = str(Path(__file__).parent.parent / "harness/thief.c")
    compile_it = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", source, "-o"]
    subprocess.run([*compile_it, made.program, "-static"], check=True)
    subprocess.run([*compile_it, made.shared_object, "-DLIBRARY", "-shared", "-fPIC"], check=True)
    return made


def interpreter(runtime: str) -> str:
    """Return the program that a runtime is: it, or its interpreter if it is a script."""
    first = Path(runtime).read_bytes()[:256].split(b"\n")[0]
    return os.fsdecode(first[2:].split()[0]) if first.startswith(b"#!") else runtime


def programs(runtime: str) -> set[str]:
    """Return device and inode of the files that a runtime runs from."""
    found = [os.stat(path) for path in (runtime, interpreter(runtime))]
    return {f"{f.st_dev}:{f.st_ino}" for f in found}


def attacked(container: Container, directory: Path) -> dict[str, Any]:
    """Return how the attack went that the host's root makes by a hook, while init is set up.

    On a copy: nobody can execute a file while it is open for writing.
    """
    copy = directory / "runtime"
    shutil.copy(container.runtime.executable, copy)
    container.runtime.executable = str(copy)
    output, script = directory / "said", directory / "hook"
    script.write_text(HOLD_AND_REOPEN.replace("OUTPUT", str(output)))
    script.chmod(0o755)
    container.bundle.set("/hooks", {"createRuntime": [{"path": str(script)}]})
    container.command("/bin/true")
    container.create()
    deadline = time.monotonic() + 20
    while not output.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    said: dict[str, Any] = json.loads(output.read_text())
    return said


def test_in_a_joined_pid_namespace(make_container: MakeContainer, directory: Path) -> None:
    """There, others can look at init while it is the runtime: its file can't be written to."""
    first, second = started(make_container()), make_container()
    ask_for(second, "mount", "uts", "ipc", "network", pid=f"/proc/{first.pid}/ns/pid")
    said = attacked(second, directory)
    # An interpreter's file is busy as long as the attacker runs by it, too.
    assert said["opened"] in ("EROFS", "ETXTBSY")
    assert said["read_only"]


@pytest.mark.peer_fails("runc", "1.1 always runs from a read-only clone")
def test_the_same_attack_where_init_is_alone(container: Container, directory: Path) -> None:
    """The control: unprotected, the attack reaches the file. Here only the host's root can try."""
    said = attacked(container, directory)
    assert said["opened"] in ("opened", "ETXTBSY")
    assert not said["read_only"]


def watching(container: Container, thief: Thief) -> Container:
    """Start a container whose program looks into all other processes, with all capabilities."""
    thief.into(container.bundle.rootfs)
    container.bundle.set("/process/capabilities", all_capabilities())
    container.command("/bin/thief", "watch")
    container.create()
    container.start()
    return container


def seen(container: Container) -> set[str]:
    """Return device and inode of what the watcher got hold of so far."""
    found = set((container.bundle.rootfs / "tmp/seen").read_text().split())
    own = os.stat(f"/proc/{container.pid}/exe")
    assert f"{own.st_dev}:{own.st_ino}" in found, "the watcher doesn't see even itself"
    return found


@SHOWN
@pytest.mark.parametrize("own_pid_namespace", [True, False])
def test_exec_never_shows_the_runtime(
    make_container: MakeContainer, thief: Thief, own_pid_namespace: bool
) -> None:
    """A process with every capability of the host's root watches while exec enters."""
    container = make_container()
    if not own_pid_namespace:
        first = started(make_container())
        ask_for(container, "mount", "uts", "ipc", "network", pid=f"/proc/{first.pid}/ns/pid")
    watching(container, thief)
    for _ in range(EXECS):
        execute(container, "/bin/true").checked()
    assert not seen(container) & programs(container.runtime.executable)


def in_the_same_pod(container: Container, first: Container) -> None:
    """Give a container the pid and user namespaces of another."""
    ask_for(container, "pid", "mount", "uts", "ipc", "network", "user")
    joined = {kind: f"/proc/{first.pid}/ns/{kind}" for kind in ("pid", "user")}
    ask_for(container, "mount", "uts", "ipc", "network", **joined)
    for key in ("uidMappings", "gidMappings"):
        container.config["linux"].pop(key)
    container.command("/bin/true")


@SHOWN
@pytest.mark.parametrize("operation", ["create", "run", "exec"])
def test_all_capabilities_in_a_user_namespace(
    make_container: MakeContainer, thief: Thief, operation: str
) -> None:
    """A pod with a user namespace: its first container may trace whoever enters that."""
    first = make_container()
    ask_for(first, "pid", "mount", "uts", "ipc", "network", "user")
    watching(first, thief)
    for _ in range(EXECS if operation == "exec" else CREATES):
        if operation == "exec":
            execute(first, "/bin/true").checked()
            continue
        second = make_container()
        in_the_same_pod(second, first)
        if operation == "run":
            assert second.run().status == 0
        else:
            second.create()
            second.start()
    assert not seen(first) & programs(first.runtime.executable)


@pytest.mark.parametrize("own_users", [True, False])
def test_a_file_of_the_host_would_be_seen(
    container: Container, thief: Thief, directory: Path, own_users: bool
) -> None:
    """The control: nsenter(1) runs a program of the host's in there, as a runtime might itself."""
    if own_users:
        ask_for(container, "pid", "mount", "uts", "ipc", "network", "user")
    watching(container, thief)
    program = directory / "program"
    shutil.copy("/bin/sleep", program)
    namespaces = ["--pid", *(["--user", "--preserve-credentials"] if own_users else [])]
    subprocess.run(["nsenter", f"--target={container.pid}", *namespaces, program, "1"], check=True)
    assert seen(container) & programs(str(program))


# What leads to the runtime's own file, were it executed in there by its name.
ENTRIES = ["/proc/self/exe", "/bin/exe-link", "/bin/exe-script"]
TRICK = "LD_PRELOAD=/lib/thief.so"


def booby_trap(rootfs: Path, thief: Thief, *programs: str) -> None:
    """Put the entries into a rootfs, the hostile library, and the libraries that programs load."""
    thief.into(rootfs)
    (rootfs / "bin/exe-link").symlink_to("/proc/self/exe")
    (rootfs / "bin/exe-script").write_text("#!/proc/self/exe\n")
    (rootfs / "bin/exe-script").chmod(0o755)
    for library in {library for program in programs for library in libraries(program)}:
        place = rootfs / library.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)


def libraries(program: str) -> list[str]:
    """Return the shared libraries of a program, its loader among them; [] for a static one."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(/\S+) \(0x", said)


def stolen(rootfs: Path) -> str:
    """Return what the trick brought, "" if it never came to anything."""
    path = rootfs / "tmp/stolen"
    return path.read_text() if path.exists() else ""


@pytest.mark.peer_fails("runc", "1.1 lets its own clone be executed")
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("operation", ["create", "run", "exec"])
def test_the_runtime_as_the_program(
    container: Container, thief: Thief, operation: str, entry: str
) -> None:
    """An image whose program is /proc/self/exe, with a library for whatever that turns out to be.

    Nothing of the runtime runs in there, so nothing loads the library.
    """
    runtime = container.runtime
    before = Path(runtime.executable).read_bytes()
    booby_trap(container.bundle.rootfs, thief, interpreter(runtime.executable))
    container.bundle.set("/process/capabilities", all_capabilities())
    container.bundle.set("/process/env/-", TRICK)
    if operation == "exec":
        started(container)
        argv = [["exec", "--env", TRICK, container.id, entry, "--version"]]
    else:
        container.command(entry, "--version")
        container.bundle.save()
        argv = [[operation, "--bundle", str(container.bundle.directory), container.id]]
        argv += [["start", container.id]] if operation == "create" else []
    results = [runtime.call(*words) for words in argv]
    # A script's interpreter is executed, so create and start succeed: it is the stub, and gives up.
    if entry == "/bin/exe-script" and operation == "create":
        container.wait_for("stopped")
    else:
        assert any(result.status for result in results)
    assert all("version" not in result.stdout for result in results)
    assert stolen(container.bundle.rootfs) == ""
    assert Path(runtime.executable).read_bytes() == before


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_runtime_that_runs_its_own_file(
    container: Container, thief: Thief, directory: Path, entry: str
) -> None:
    """The control: chroot(8) is a runtime without protection. The trick gets at its file."""
    naive, rootfs = directory / "naive", container.bundle.rootfs
    shutil.copy(shutil.which("chroot") or "", naive)
    booby_trap(rootfs, thief, str(naive))
    script = f'mount -t proc proc {rootfs}/proc && {TRICK} exec {naive} {rootfs} "$@"'
    argv = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", script, "sh", entry, "--version"]
    subprocess.run(argv, check=True, timeout=60)
    assert stolen(rootfs).split() == [*programs(str(naive)), "opened"]


@SHOWN
def test_a_waiting_init_is_no_file_of_the_host(container: Container) -> None:
    container.create()
    own = os.stat(f"/proc/{container.pid}/exe")
    assert f"{own.st_dev}:{own.st_ino}" not in programs(container.runtime.executable)
    assert proc.is_running(container.pid)


NO_EXECUTABLE_MEMFDS = """
echo 2 > /proc/sys/vm/memfd_noexec || exit 90
R="$1 --root $2" B=$3 I=$4 T=$5
$R create --bundle $B $I </dev/null >/dev/null 2>&1 || exit 91
$R state $I | grep -q '"status": "created"' || exit 97
pid=$($R state $I | sed -n 's/^ *"pid": *\\([0-9]*\\).*/\\1/p')
stat -L -c %d:%i /proc/$pid/exe || exit 92
exec 3</proc/$pid/exe || exit 93
$R start $I || exit 94
$R exec $I /bin/echo ran || exit 95
$R exec --env $T $I /bin/exe-script --version
$R delete --force $I || exit 96
# The stub's file isn't executed any more, so that alone keeps nobody from writing to it.
(: >>/proc/self/fd/3) 2>&1 | grep -o "Read-only file system"
"""


@pytest.mark.skipif(not os.path.exists("/proc/sys/vm/memfd_noexec"), reason="the kernel is old")
@pytest.mark.peer_fails("runc", "1.1 doesn't know the setting")
def test_where_executable_memfds_are_forbidden(container: Container, thief: Thief) -> None:
    """vm.memfd_noexec=2, which belongs to a pid namespace: here the test's own."""
    runtime, bundle = container.runtime, container.bundle
    booby_trap(bundle.rootfs, thief, interpreter(runtime.executable))
    bundle.save()
    words = [runtime.executable, str(runtime.root), str(bundle.directory), container.id, TRICK]
    argv = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", NO_EXECUTABLE_MEMFDS, "sh"]
    ended = subprocess.run(
        [*argv, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    waiting, said, *rest = ended.stdout.splitlines()
    assert waiting not in programs(runtime.executable)
    assert (said, rest) == ("ran", ["Read-only file system"])
    assert stolen(bundle.rootfs) == ""
