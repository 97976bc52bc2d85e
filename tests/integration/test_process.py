# SPDX-License-Identifier: GPL-3.0-or-later
"""What the program gets (config.md, "Process"): looked at from inside and in /proc."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness import Container, proc

# capabilities(7), as <linux/capability.h> numbers them.
CAPABILITIES = {"CAP_CHOWN": 0, "CAP_KILL": 5, "CAP_NET_BIND_SERVICE": 10, "CAP_NET_RAW": 13}


def mask(*names: str) -> int:
    return sum(1 << CAPABILITIES[name] for name in names)


def started(container: Container) -> int:
    container.create()
    container.start()
    return container.pid


def test_args_and_exit_status(container: Container) -> None:
    container.command("/bin/sh", "-c", 'echo "$0" "$1"; exit 42', "a b", "c")
    result = container.run()
    assert result.stdout == "a b c\n"
    assert result.status == 42


def test_a_signal_is_128_and_its_number(container: Container) -> None:
    # Not pid 1, which would be spared.
    container.shell("sh -c 'kill -9 $$'; exit $?")
    assert container.run().status == 137


def test_env_is_what_config_says(container: Container) -> None:
    container.config["process"]["env"] += ["A=1", "A=2", "EMPTY="]
    lines = container.inside("env").splitlines()
    assert "A=2" in lines
    assert "A=1" not in lines
    assert "EMPTY=" in lines
    assert not any("XDG" in line or "LANG" in line for line in lines)


def test_home_comes_from_the_containers_passwd(container: Container) -> None:
    container.config["process"]["env"] = ["PATH=/bin"]
    container.config["process"]["user"] = {"uid": 1234, "gid": 1}
    container.bundle.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nu:x:1234:1::/home/u:/bin/sh\n")
    assert container.inside("echo $HOME") == "/home/u"


def test_home_that_is_set_stays(container: Container) -> None:
    container.config["process"]["env"] = ["PATH=/bin", "HOME=/elsewhere"]
    assert container.inside("echo $HOME") == "/elsewhere"


def test_home_of_a_user_that_the_image_doesnt_know(container: Container) -> None:
    container.config["process"]["env"] = ["PATH=/bin"]
    container.config["process"]["user"] = {"uid": 54321, "gid": 54321}
    assert container.inside("echo $HOME") == "/"


def test_cwd_is_made_if_missing(container: Container) -> None:
    container.config["process"]["cwd"] = "/a/new/place"
    assert container.inside("pwd") == "/a/new/place"


def test_cwd_that_is_a_file(container: Container) -> None:
    container.config["process"]["cwd"] = "/etc/passwd"
    container.bundle.save()
    message = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "not a directory" in message


@pytest.mark.peer_fails("runc", "1.1 makes cwd without following a dangling link: EEXIST")
def test_cwd_through_a_link_stays_in_the_container(container: Container, directory: Path) -> None:
    """A link in the image leads where the container would see it, and nowhere on the host."""
    outside = directory / "outside"
    outside.mkdir()
    (container.bundle.rootfs / "link").symlink_to(outside)
    container.config["process"]["cwd"] = "/link/deeper"
    container.command("/bin/touch", "here")
    container.run().checked()
    assert os.listdir(outside) == []
    assert (container.bundle.rootfs / str(outside).lstrip("/") / "deeper/here").exists()


def test_a_cwd_that_only_the_user_may_enter(container: Container) -> None:
    """Root without CAP_DAC_OVERRIDE may not enter it; the program's user owns it."""
    home = container.bundle.rootfs / "home/user"
    os.chown(home, 1000, 1000)
    home.chmod(0o700)
    container.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    container.config["process"]["cwd"] = "/home/user"
    assert container.inside("pwd; touch x && echo mine").split() == ["/home/user", "mine"]


def test_user_groups_and_umask(container: Container) -> None:
    user = {"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o027}
    container.config["process"]["user"] = user
    pid = started(container)
    status = proc.status(pid)
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["1001"] * 4
    assert status["Groups"].split() == ["5", "6"]
    assert status["Umask"] == "0027"


def test_the_umask_if_none_is_wanted(container: Container) -> None:
    assert proc.status(started(container))["Umask"] == "0022"


def test_root_gets_the_sets_as_they_are(container: Container) -> None:
    names = ("CAP_CHOWN", "CAP_KILL")
    sets = {kind: [*names] for kind in ("bounding", "permitted", "effective")}
    container.config["process"]["capabilities"] = sets
    status = proc.status(started(container))
    for name in ("CapBnd", "CapPrm", "CapEff"):
        assert int(status[name], 16) == mask(*names), name
    for name in ("CapInh", "CapAmb"):
        assert int(status[name], 16) == 0, name


def test_the_five_capability_sets(container: Container) -> None:
    wanted = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_CHOWN", "CAP_KILL"],
        "ambient": ["CAP_KILL"],
    }
    container.config["process"]["capabilities"] = wanted
    container.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    status = proc.status(started(container))
    # For another user than root execve(2) leaves permitted and effective what is ambient.
    assert int(status["CapBnd"], 16) == mask(*wanted["bounding"])
    assert int(status["CapInh"], 16) == mask(*wanted["inheritable"])
    assert int(status["CapAmb"], 16) == mask("CAP_KILL")
    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == mask("CAP_KILL")


def test_no_capabilities_at_all(container: Container) -> None:
    del container.config["process"]["capabilities"]
    status = proc.status(started(container))
    for name in ("CapBnd", "CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0, name


@pytest.mark.peer_fails("runc", "1.1 fails with EPERM for what the caller hasn't got itself")
def test_a_capability_that_cant_be_had_is_left_out(container: Container) -> None:
    names = ["CAP_KILL", "CAP_SYS_RESOURCE", "CAP_NO_SUCH_THING"]
    sets = {kind: list(names) for kind in ("bounding", "permitted", "effective")}
    container.config["process"]["capabilities"] = sets
    assert int(proc.status(started(container))["CapEff"], 16) & mask("CAP_KILL")


@pytest.mark.parametrize("wanted", [True, False])
def test_no_new_privileges(container: Container, wanted: bool) -> None:
    container.config["process"]["noNewPrivileges"] = wanted
    assert proc.status(started(container))["NoNewPrivs"] == str(int(wanted))


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_seccomp_filter_holds(container: Container, no_new_privileges: bool) -> None:
    container.config["process"]["noNewPrivileges"] = no_new_privileges
    container.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    call = {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO"}
    container.bundle.set(
        "/linux/seccomp",
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{**call, "errnoRet": 95}]},
    )
    container.shell("mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status; true")
    output = container.run().checked().stdout
    assert "not supported" in output
    assert output.split()[-1] == "2"


def test_a_seccomp_filter_that_kills(container: Container) -> None:
    call = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}
    container.bundle.set("/linux/seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [call]})
    container.shell("mkdir /tmp/x; echo $?")
    # 128 and SIGSYS, which is 31.
    assert container.run().checked().stdout == "159\n"
    assert not (container.bundle.rootfs / "tmp/x").exists()


def test_a_seccomp_rule_with_an_argument(container: Container) -> None:
    """Only what matches the argument is refused: personality(2) with PER_LINUX32."""
    argument = {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}
    call = {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [argument]}
    container.bundle.set("/linux/seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [call]})
    output = container.inside("linux64 echo through; linux32 echo through || echo refused")
    assert output.split() == ["through", "refused"]


def test_rlimits(container: Container) -> None:
    container.config["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    text = Path(f"/proc/{started(container)}/limits").read_text()
    lines = {line[:25].strip(): line[25:].split()[:2] for line in text.splitlines()}
    assert lines["Max open files"] == ["50", "60"]
    assert lines["Max core file size"] == ["0", "0"]


def test_oom_score_adj(container: Container) -> None:
    container.config["process"]["oomScoreAdj"] = 123
    assert Path(f"/proc/{started(container)}/oom_score_adj").read_text() == "123\n"


def create_with(container: Container, stdout: int, stderr: int) -> None:
    """Create with these descriptors, and /dev/null as stdin."""
    container.bundle.save()
    argv = [container.runtime.executable, "--root", str(container.runtime.root), "create"]
    argv += ["--bundle", str(container.bundle.directory), container.id]
    null = subprocess.DEVNULL
    subprocess.run(argv, stdin=null, stdout=stdout, stderr=stderr, check=True, timeout=60)


def test_a_pipe_belongs_to_the_programs_user(container: Container) -> None:
    container.config["process"]["user"] = {"uid": 4321, "gid": 4321}
    before = os.stat("/dev/null")
    pipes = [os.pipe(), os.pipe()]
    create_with(container, pipes[0][1], pipes[1][1])
    owners = [os.fstat(reader).st_uid for reader, _ in pipes]
    for fd in (fd for pipe in pipes for fd in pipe):
        os.close(fd)
    assert owners == [4321, 4321]
    after = os.stat("/dev/null")
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)


@pytest.mark.peer_fails("runc", "1.1 gives every descriptor away but /dev/null")
def test_a_file_of_the_host_stays_its_owners(container: Container, directory: Path) -> None:
    container.config["process"]["user"] = {"uid": 4321, "gid": 4321}
    file = directory / "output"
    with file.open("w") as output:
        create_with(container, output.fileno(), output.fileno())
    assert file.stat().st_uid == os.geteuid()


def test_null_of_the_image_that_is_a_file_of_the_host(
    container: Container, directory: Path
) -> None:
    """CVE-2026-88265: whatever /dev/null leads to in the image, its owner stays."""
    file = directory / "file"
    file.write_text("")
    container.config["process"]["user"] = {"uid": 4321, "gid": 4321}
    mounts = container.bundle.get("/mounts")
    kept = [m for m in mounts if not m["destination"].startswith("/dev")]
    bound = {"destination": "/host", "source": str(directory), "type": "none", "options": ["rbind"]}
    container.bundle.set("/mounts", [*kept, bound])
    (container.bundle.rootfs / "dev/null").symlink_to("/host/file")
    reader, writer = os.pipe()
    # To refuse such an image is right, too.
    with suppress(subprocess.CalledProcessError):
        create_with(container, writer, writer)
    os.close(reader)
    os.close(writer)
    assert file.stat().st_uid == os.geteuid()


def test_leaked_descriptors_are_closed(container: Container) -> None:
    with open("/etc/hostname", "rb") as leaked:
        container.shell("ls /proc/self/fd; sleep 1000")
        container.bundle.save()
        place = ("--bundle", str(container.bundle.directory))
        os.set_inheritable(leaked.fileno(), True)
        container.runtime.call(
            "create", *place, container.id, pass_fds=(leaked.fileno(),)
        ).checked()
        waiting = set(os.listdir(f"/proc/{container.pid}/fd"))
        container.start()
        running = set(os.listdir(f"/proc/{container.pid}/fd"))
        number = str(leaked.fileno())
    # The socket on which it waits may have got any number.
    assert number not in waiting or len(waiting) == 4
    assert running == {"0", "1", "2"}


def test_preserved_descriptors_are_passed(container: Container) -> None:
    reader, writer = os.pipe()
    # The harness can't choose numbers: 3 is what --preserve-fds 1 means.
    container.shell("echo through >&3")
    container.bundle.save()
    argv = [container.runtime.executable, "--root", str(container.runtime.root), "run"]
    argv += ["--preserve-fds", "1", "--bundle", str(container.bundle.directory), container.id]
    shell = ["bash", "-c", f'exec "$@" 3>&{writer}', "bash", *argv]
    subprocess.run(shell, pass_fds=(writer,), check=True, timeout=60, stdin=subprocess.DEVNULL)
    os.close(writer)
    assert os.read(reader, 100) == b"through\n"
    os.close(reader)


def test_a_preserved_descriptor_must_be_open(container: Container) -> None:
    container.bundle.save()
    place = ("--bundle", str(container.bundle.directory))
    assert container.refused("create", "--preserve-fds", "5", *place)


@pytest.mark.peer_fails("runc", "1.1 passes on what was blocked, and signal 32 ignored")
def test_no_signal_is_ignored_or_blocked(container: Container) -> None:
    container.bundle.save()
    argv = [container.runtime.executable, "--root", str(container.runtime.root), "create"]
    argv += ["--bundle", str(container.bundle.directory), container.id]
    # 32 is one of glibc's own, which neither Python nor a shell can set back.
    ignore = "import os, sys, signal, ctypes as c; c.CDLL(None).syscall(13, 32, IGN, None, 8)"
    ignore = ignore.replace("IGN", "(c.c_ulong * 4)(1, 0, 0, 0)")
    ignore += "; [signal.signal(s, signal.SIG_IGN) for s in (1, 10)]"
    ignore += "; signal.pthread_sigmask(0, [12]); os.execv(sys.argv[1], sys.argv[1:])"
    blocked = [sys.executable, "-c", ignore, *argv]
    null = subprocess.DEVNULL
    subprocess.run(blocked, stdin=null, stdout=null, stderr=null, check=True, timeout=60)
    container.start()
    status = proc.status(container.pid)
    assert (int(status["SigBlk"], 16), int(status["SigIgn"], 16)) == (0, 0)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nosuchprogram"], 'exec: "nosuchprogram": executable file not found in $PATH'),
        (["/no/such"], 'exec: "/no/such": stat /no/such: no such file or directory'),
        (["/etc/passwd"], 'exec: "/etc/passwd": permission denied'),
        pytest.param(
            ["/etc"],
            'exec: "/etc": is a directory',
            marks=pytest.mark.peer_fails("runc", "built with Go 1.19: permission denied"),
        ),
        pytest.param(
            ["bin/nothing"],
            'exec: "bin/nothing": stat bin/nothing: no such file or directory',
        ),
    ],
)
def test_a_program_that_cant_be_run_fails_create(
    container: Container, args: list[str], words: str
) -> None:
    container.command(*args)
    container.bundle.save()
    message = container.refused("create", "--bundle", str(container.bundle.directory))
    assert words in message.replace('\\"', '"')


def test_the_path_is_the_containers_own(container: Container) -> None:
    """PATH comes from process.env, in its order; what can't be executed is passed over."""
    container.bundle.file("/first/tool", "not executable")
    container.bundle.file("/second/tool", "#!/bin/sh\necho second\n", 0o755)
    container.bundle.file("/third/tool", "#!/bin/sh\necho third\n", 0o755)
    container.config["process"]["env"] = ["PATH=/first:/second:/third"]
    container.command("tool")
    assert container.run().checked().stdout == "second\n"


def test_a_path_with_a_slash_starts_at_cwd(container: Container) -> None:
    container.bundle.file("/data/tool", "#!/bin/sh\necho here\n", 0o755)
    container.config["process"]["cwd"] = "/data"
    container.command("./tool")
    assert container.run().checked().stdout == "here\n"


@pytest.mark.peer_fails("runc", "start doesn't wait for the exec: the error is on init's stderr")
def test_start_reports_a_failed_exec(container: Container) -> None:
    container.bundle.file("/bin/garbage", "\x01\x02 not a program", 0o755)
    container.command("/bin/garbage")
    container.create()
    message = container.refused("start")
    assert "exec format error" in message
    assert "/bin/garbage" in message
    container.wait_for("stopped")


def _is_ours(container: Container) -> bool:
    return container.runtime.version().startswith("ocirt ")


def test_start_without_a_process(container: Container) -> None:
    if not _is_ours(container):
        pytest.skip("runc refuses create already")
    del container.config["process"]
    container.create()
    assert "process" in container.refused("start")
    assert container.status == "created"


def test_the_waiting_stub_shows_nothing_of_the_host(container: Container) -> None:
    if not _is_ours(container):
        pytest.skip("looks at ocirt's stub")
    container.create()
    pid = container.pid
    assert stat.S_ISREG(os.stat(f"/proc/{pid}/exe").st_mode)
    assert "memfd:ocirt-stub" in os.readlink(f"/proc/{pid}/exe")
    kinds = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert not [k for k in kinds[3:] if k.startswith("/") and "memfd" not in k]
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""
    mounts = proc.mountinfo(pid)
    assert all(str(container.bundle.directory) not in m.split(" - ")[0].split()[4] for m in mounts)


@pytest.mark.skipif(os.path.exists("/sys/module/apparmor"), reason="this host has AppArmor")
@pytest.mark.skipif(os.path.exists("/sys/fs/selinux/enforce"), reason="this host has SELinux")
@pytest.mark.parametrize("field", ["apparmorProfile", "selinuxLabel"])
def test_a_label_that_cant_be_had(container: Container, field: str) -> None:
    container.bundle.set(f"/process/{field}", "a:b:c:d")
    container.bundle.save()
    words = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "apparmor" in words.lower() or "selinux" in words.lower()
