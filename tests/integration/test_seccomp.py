# SPDX-License-Identifier: GPL-3.0-or-later
"""seccomp filters on the real kernel: a program of ours makes system calls and tells what came.

Without an agent; test_seccomp_agent.py has one.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Container
from tests.integration.test_exec import execute

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="system calls are named by their numbers on x86-64"
)

SIGSYS = 128 + 31

MKDIR, GETPPID, PERSONALITY = 83, 110, 135
X86_GETPPID, X86_MKDIR = 64, 39
NEW = 1000  # no system call, and none for a long time

# What a program that does nothing needs, and a runtime that loads the filter last.
LEAST = {"names": ["execve", "exit"], "action": "SCMP_ACT_ALLOW"}
NOTHING = """
__attribute__((naked)) void _start(void)
{
    __asm__("mov $60, %eax; mov $42, %edi; syscall");
}
"""


@pytest.fixture
def calls(container: Container, call_program: Path) -> Container:
    """A container with that program as /bin/call."""
    os.link(call_program, container.bundle.rootfs / "bin/call")
    return container


def entry(action: str, *names: str, **more: Any) -> dict[str, Any]:
    return {"names": list(names or ["mkdir"]), "action": action, **more}


def profile(container: Container, default: str, *syscalls: dict[str, Any], **more: Any) -> None:
    document = {"defaultAction": default, "syscalls": list(syscalls), **more}
    container.bundle.set("/linux/seccomp", document)


def answers(container: Container, *requests: str) -> list[str]:
    """Run /bin/call, which has to end well; return what it printed for each request."""
    container.command("/bin/call", *requests)
    return container.run().checked().stdout.split("\n")[:-1]


def allowed_but(*names: str) -> list[dict[str, Any]]:
    """All that /bin/call needs, and these: for profiles whose default refuses."""
    own = (
        "execve execveat exit exit_group brk arch_prctl set_tid_address set_robust_list rseq "
        "prlimit64 readlink readlinkat getrandom mprotect mmap munmap fstat newfstatat write "
        "rt_sigprocmask rt_sigaction clone clone3 futex madvise"
    )
    # What runc does under a filter.
    runcs = (
        "close openat getdents64 read fcntl epoll_ctl epoll_pwait epoll_create1 epoll_wait sendto "
        "close_range nanosleep tgkill getpid gettid sigaltstack rt_sigreturn sched_yield "
        "capget capset prctl lseek fstatfs ioctl newfstatat stat lstat"
    )
    return [entry("SCMP_ACT_ALLOW", *own.split(), *runcs.split(), *names)]


@pytest.mark.parametrize(
    ("action", "number", "answer", "made"),
    [
        ("SCMP_ACT_ALLOW", None, "0", True),
        ("SCMP_ACT_LOG", None, "0", True),
        ("SCMP_ACT_ERRNO", None, f"{-errno.EPERM}", False),
        ("SCMP_ACT_ERRNO", errno.EOPNOTSUPP, f"{-errno.EOPNOTSUPP}", False),
        ("SCMP_ACT_ERRNO", 0, "0", False),
        ("SCMP_ACT_ERRNO", 4094, "-4094", False),
        # Nobody traces it.
        ("SCMP_ACT_TRACE", None, f"{-errno.ENOSYS}", False),
        ("SCMP_ACT_TRACE", 7, f"{-errno.ENOSYS}", False),
    ],
)
def test_actions(
    calls: Container, action: str, number: int | None, answer: str, made: bool
) -> None:
    rule = entry(action) if number is None else entry(action, errnoRet=number)
    # The default is another action, or the rule would be no rule.
    default = "SCMP_ACT_LOG" if action == "SCMP_ACT_ALLOW" else "SCMP_ACT_ALLOW"
    profile(calls, default, rule)
    assert answers(calls, f"{MKDIR},/tmp/x,0755") == [answer]
    assert (calls.bundle.rootfs / "tmp/x").exists() == made


@pytest.mark.parametrize(
    "action", ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"]
)
def test_actions_that_end_the_program(calls: Container, action: str) -> None:
    profile(calls, "SCMP_ACT_ALLOW", entry(action))
    calls.command("/bin/call", f"{MKDIR},/tmp/x,0755", "39")
    result = calls.run()
    assert (result.status, result.stdout) == (SIGSYS, "")
    assert not (calls.bundle.rootfs / "tmp/x").exists()


def test_a_thread_is_killed_or_all_are(calls: Container) -> None:
    rules = (
        entry("SCMP_ACT_KILL", "getppid"),
        entry("SCMP_ACT_KILL_THREAD", "personality"),
        entry("SCMP_ACT_KILL_PROCESS", "mkdir"),
    )
    profile(calls, "SCMP_ACT_ALLOW", *rules)
    threads = [f"thread:{number}" for number in (GETPPID, PERSONALITY, MKDIR)]
    calls.command("/bin/call", *threads)
    result = calls.run()
    assert (result.status, result.stdout) == (SIGSYS, "alive\nalive\n")


def test_a_trap_can_be_handled(calls: Container) -> None:
    profile(calls, "SCMP_ACT_ALLOW", entry("SCMP_ACT_TRAP"))
    assert answers(calls, f"handled:{MKDIR},/tmp/x,0755") == [f"SIGSYS {MKDIR}"]


@pytest.mark.parametrize(("number", "told"), [(None, errno.EPERM), (7, 7), (65535, 65535)])
def test_a_tracer_is_told_the_number(calls: Container, number: int | None, told: int) -> None:
    more = {} if number is None else {"errnoRet": number}
    profile(calls, "SCMP_ACT_ALLOW", entry("SCMP_ACT_TRACE", **more))
    assert answers(calls, f"traced:{MKDIR},/tmp/x,0755") == [f"traced {told}"]


@pytest.mark.parametrize(("number", "expected"), [(None, errno.EPERM), (95, 95), (1, 1)])
def test_the_default_actions_number(calls: Container, number: int | None, expected: int) -> None:
    more = {} if number is None else {"defaultErrnoRet": number}
    profile(calls, "SCMP_ACT_ERRNO", *allowed_but("umask"), **more)
    # Below the newest that is named, but not named.
    assert answers(calls, f"{MKDIR},/tmp/x,0755", "39") == [f"{-expected}", "1"]


def test_the_default_kills(calls: Container) -> None:
    profile(calls, "SCMP_ACT_KILL_PROCESS", *allowed_but())
    calls.command("/bin/call", "39", f"{MKDIR},/tmp/x,0755")
    result = calls.run()
    assert (result.status, result.stdout) == (SIGSYS, "1\n")


BIG = (1 << 40) + 5


@pytest.mark.parametrize(
    ("operator", "values", "through", "refused"),
    [
        ("NE", {"value": BIG}, [BIG], [BIG - 1, 5, 0]),
        ("EQ", {"value": BIG}, [BIG - 1, 5, 0], [BIG]),
        ("LT", {"value": BIG}, [BIG, BIG + 1, 1 << 63], [BIG - 1, 0, 1 << 33]),
        ("LE", {"value": BIG}, [BIG + 1, 1 << 41], [BIG, BIG - 1, 0]),
        ("GT", {"value": BIG}, [BIG, 5, 1 << 33], [BIG + 1, 1 << 41, 1 << 63]),
        ("GE", {"value": BIG}, [BIG - 1, 5], [BIG, BIG + 1, (1 << 64) - 1]),
        (
            "MASKED_EQ",
            {"value": 0xF0000000F0, "valueTwo": 0x5000000050},
            [0x5000000060, 0x6000000050, 0x50],
            [0x5000000050, 0x500000005F, 0x5F5000005F],
        ),
        ("MASKED_EQ", {"value": 0xF0}, [0x10], [0, 0x100F]),
        ("EQ", {"value": (1 << 64) - 1}, [0xFFFFFFFF], [(1 << 64) - 1]),
    ],
)
def test_operators(
    calls: Container,
    operator: str,
    values: dict[str, int],
    through: Sequence[int],
    refused: Sequence[int],
) -> None:
    argument = {"index": 2, "op": f"SCMP_CMP_{operator}", **values}
    profile(calls, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ERRNO", "getpid", args=[argument]))
    requests = [f"39,1,2,{value}" for value in (*through, *refused)]
    assert answers(calls, *requests) == ["1"] * len(through) + ["-1"] * len(refused)


@pytest.mark.parametrize("index", range(6))
def test_every_argument(calls: Container, index: int) -> None:
    argument = {"index": index, "op": "SCMP_CMP_EQ", "value": 9}
    profile(calls, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ERRNO", "getpid", args=[argument]))
    requests = [",".join(["39", *("9" if i == at else "0" for i in range(6))]) for at in range(6)]
    assert answers(calls, *requests) == ["-1" if at == index else "1" for at in range(6)]


def test_all_conditions_of_a_rule_count(calls: Container) -> None:
    arguments = [{"index": i, "op": "SCMP_CMP_EQ", "value": i} for i in (1, 2)]
    profile(calls, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ERRNO", "getpid", args=arguments))
    requests = ("39,0,1,2", "39,0,1,3", "39,0,2,2", "39")
    assert answers(calls, *requests) == ["-1", "1", "1", "1"]


def test_conditions_on_one_argument_are_alternatives(calls: Container) -> None:
    """As runc and crun have it, and the profiles that engines ship: they allow socket families."""
    arguments = [{"index": 0, "op": "SCMP_CMP_EQ", "value": value} for value in (3, 5)]
    profile(calls, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ERRNO", "getpid", args=arguments))
    assert answers(calls, "39,3", "39,5", "39,4", "39") == ["-1", "-1", "1", "1"]


def test_several_entries_for_one_call(calls: Container) -> None:
    def when(value: int, number: int) -> dict[str, Any]:
        argument = {"index": 0, "op": "SCMP_CMP_EQ", "value": value}
        return entry("SCMP_ACT_ERRNO", "getpid", args=[argument], errnoRet=number)

    profile(calls, "SCMP_ACT_ALLOW", when(3, 30), when(5, 50))
    assert answers(calls, "39,3", "39,5", "39,4") == ["-30", "-50", "1"]


def test_a_rule_that_says_what_the_default_says(calls: Container) -> None:
    profile(calls, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ALLOW"), entry("SCMP_ACT_ERRNO", "getpid"))
    assert answers(calls, f"{MKDIR},/tmp/x,0755", "39") == ["0", "-1"]


def test_other_architectures_are_filtered_too(calls: Container) -> None:
    refuse = entry("SCMP_ACT_ERRNO", "getppid", errnoRet=95)
    names = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    profile(calls, "SCMP_ACT_ALLOW", refuse, architectures=names)
    requests = (f"{GETPPID}", f"x86:{X86_GETPPID}", f"x32:{GETPPID}", "x86:20", "39")
    assert answers(calls, *requests) == ["-95", "-95", "-95", "1", "1"]


@pytest.mark.parametrize("request_", [f"x86:{X86_GETPPID}", f"x32:{GETPPID}"])
@pytest.mark.parametrize("names", [None, [], ["SCMP_ARCH_X86_64"], ["SCMP_ARCH_AARCH64"]])
def test_architectures_that_arent_named_are_shut(
    calls: Container, names: list[str] | None, request_: str
) -> None:
    more = {} if names is None else {"architectures": names}
    profile(calls, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ERRNO"), **more)
    calls.command("/bin/call", "39", request_)
    result = calls.run()
    assert (result.status, result.stdout) == (SIGSYS, "1\n")


@pytest.mark.peer_fails("runc", "1.1 doesn't know the architectures of 1.3")
def test_every_architecture_of_the_specification(calls: Container) -> None:
    names = (
        "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 "
        "PPC64LE S390 S390X PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB"
    )
    listed = [f"SCMP_ARCH_{name}" for name in names.split()]
    profile(calls, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ERRNO"), architectures=listed)
    assert answers(calls, f"{MKDIR},/tmp/x,0755", f"x86:{X86_MKDIR}") == ["-1", "-1"]


@pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"])
def test_what_is_newer_than_the_profile(calls: Container, default: str) -> None:
    profile(calls, default, *allowed_but(), architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])
    assert answers(calls, f"{NEW}", f"x86:{NEW}") == [f"{-errno.ENOSYS}"] * 2


def test_nothing_is_newer_for_a_default_that_permits(calls: Container) -> None:
    profile(calls, "SCMP_ACT_LOG", entry("SCMP_ACT_ERRNO"))
    # The kernel's own answer.
    assert answers(calls, f"{NEW}") == [f"{-errno.ENOSYS}"]


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_names_that_libseccomp_doesnt_know(calls: Container, no_new_privileges: bool) -> None:
    calls.config["process"]["noNewPrivileges"] = no_new_privileges
    profile(calls, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ERRNO", "no_such_call", "mkdir"))
    assert answers(calls, f"{MKDIR},/tmp/x,0755") == ["-1"]


def ours(container: Container) -> None:
    if not container.runtime.version().startswith("ocirt "):
        pytest.skip("runc has no such annotation")


FAIL_UNKNOWN = "run.oci.seccomp_fail_unknown_syscall"


def test_names_that_libseccomp_doesnt_know_can_be_an_error(calls: Container) -> None:
    ours(calls)
    calls.config["annotations"] = {FAIL_UNKNOWN: "1"}
    profile(calls, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ERRNO", "no_such_call", "mkdir", "other_one"))
    for _ in range(2):  # the second time from the cache
        calls.bundle.save()
        words = calls.refused("create", "--bundle", str(calls.bundle.directory))
        assert "no_such_call, other_one" in words
        assert "/linux/seccomp" in words
        assert FAIL_UNKNOWN in words
    assert calls.remains() == []


@pytest.mark.parametrize("value", ["0", "1"])
def test_names_that_all_are_known(calls: Container, value: str) -> None:
    calls.config["annotations"] = {FAIL_UNKNOWN: value}
    names = ["mkdir"] if value == "1" else ["mkdir", "no_such_call"]
    profile(calls, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ERRNO", *names))
    assert answers(calls, f"{MKDIR},/tmp/x,0755") == ["-1"]


def test_a_warning_where_a_rule_that_forbids_is_lost(calls: Container) -> None:
    ours(calls)
    profile(calls, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ERRNO", "no_such_call"))
    calls.command("/bin/true")
    for _ in range(2):  # the second time from the cache
        result = calls.run().checked()
        assert "no_such_call" in result.stderr
    profile(calls, "SCMP_ACT_ERRNO", *allowed_but("no_such_call"))
    calls.command("/bin/call")
    assert calls.run().checked().stderr == ""


@pytest.fixture
def nothing(container: Container, tmp_path: Path) -> Container:
    """A container with /bin/nothing, a program that does one system call: exit with 42."""
    source = tmp_path / "nothing.c"
    source.write_text(NOTHING)
    target = str(container.bundle.rootfs / "bin/nothing")
    subprocess.run(["gcc", "-nostdlib", "-static", str(source), "-o", target], check=True)
    container.command("/bin/nothing")
    return container


@pytest.mark.peer_fails("runc", "it makes many system calls under the filter")
@pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"])
def test_a_filter_needs_to_allow_no_more_than_the_program_needs(
    nothing: Container, default: str
) -> None:
    profile(nothing, default, LEAST)
    assert nothing.run().status == 42
    nothing.create()
    nothing.start()
    nothing.wait_for("stopped")


@pytest.mark.peer_fails("runc", "it makes many system calls under the filter")
def test_exec_under_such_a_filter(nothing: Container) -> None:
    needs = "pause rt_sigreturn brk arch_prctl set_tid_address set_robust_list rseq prlimit64"
    more = "readlink readlinkat getrandom mprotect getuid uname prctl"
    names = f"{needs} {more} nanosleep clock_nanosleep".split()
    profile(nothing, "SCMP_ACT_ERRNO", LEAST, entry("SCMP_ACT_ALLOW", *names))
    nothing.command("/bin/sleep", "1000")
    nothing.create()
    nothing.start()
    assert execute(nothing, "/bin/nothing").status == 42
    assert nothing.status == "running"


@pytest.mark.peer_fails("runc", "its start doesn't wait for the execve")
def test_a_program_that_cant_be_executed(container: Container) -> None:
    """The filter allows to tell why: so it is told."""
    container.bundle.file("/bin/text", "no program\n", 0o755)
    profile(container, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ERRNO"))
    container.command("/bin/text")
    container.create()
    words = container.refused("start")
    assert "/bin/text" in words or "exec format error" in words


@pytest.mark.peer_fails("runc", "its start doesn't wait for the execve")
def test_an_execve_that_is_forbidden(container: Container) -> None:
    profile(container, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ERRNO", "execve", errnoRet=95))
    container.command("/bin/true")
    container.create()
    assert "not supported" in container.refused("start")


FLAGS = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
]


@pytest.mark.peer_fails("runc", "it doesn't know all flags")
@pytest.mark.parametrize("flags", [[], *([flag] for flag in FLAGS), FLAGS])
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_flags(calls: Container, flags: list[str], no_new_privileges: bool) -> None:
    calls.config["process"]["noNewPrivileges"] = no_new_privileges
    profile(calls, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ERRNO"), flags=flags)
    assert answers(calls, f"{MKDIR},/tmp/x,0755") == ["-1"]


def test_an_unknown_flag(calls: Container) -> None:
    profile(calls, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ERRNO"), flags=["SECCOMP_FILTER_FLAG_X"])
    calls.bundle.save()
    words = calls.refused("create", "--bundle", str(calls.bundle.directory))
    assert "SECCOMP_FILTER_FLAG_X" in words or "runc create failed" in words


def features(container: Container) -> Any:
    return json.loads(container.runtime.call("features").checked().stdout)["linux"]["seccomp"]


def test_features_are_what_is_accepted(calls: Container) -> None:
    """Every name that features lists is taken."""
    listed = features(calls)
    if not listed.get("knownFlags"):
        pytest.skip("runc 1.1 tells less")
    syscalls = [
        entry(action, "mkdir", args=[{"index": 0, "op": "SCMP_CMP_EQ", "value": number}])
        for number, action in enumerate(listed["actions"])
        if action not in ("SCMP_ACT_NOTIFY", "SCMP_ACT_ALLOW")
    ]
    syscalls += [
        entry("SCMP_ACT_ERRNO", "getppid", args=[{"index": 0, "op": operator, "value": number}])
        for number, operator in enumerate(listed["operators"])
    ]
    more = {"architectures": listed["archs"], "flags": listed["supportedFlags"]}
    profile(calls, "SCMP_ACT_ALLOW", *syscalls, **more)
    assert answers(calls, "39") == ["1"]
    assert set(listed["supportedFlags"]) <= set(listed["knownFlags"]) == set(FLAGS)


def refused_with(container: Container, *words: str) -> None:
    container.bundle.save()
    stderr = container.refused("create", "--bundle", str(container.bundle.directory))
    for word in words:
        assert word in stderr
    assert container.remains() == []


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/linux/seccomp/defaultAction", "SCMP_ACT_NONE"),
        ("/linux/seccomp/defaultAction", "SCMP_ACT_NOTIFY"),
        ("/linux/seccomp/architectures", ["SCMP_ARCH_NONE"]),
        ("/linux/seccomp/syscalls/0/action", "SCMP_ACT_NONE"),
        ("/linux/seccomp/syscalls/0/args", [{"index": 0, "value": 1, "op": "SCMP_CMP_NONE"}]),
        ("/linux/seccomp/syscalls/0/args", [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]),
    ],
)
def test_bad_input(container: Container, pointer: str, value: object) -> None:
    profile(container, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ERRNO"))
    container.bundle.set(pointer, value)
    ourselves = container.runtime.version().startswith("ocirt ")
    refused_with(container, *([pointer] if ourselves else []))


@pytest.mark.peer_fails("runc", "it takes an errnoRet of an action that has none")
@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/linux/seccomp/defaultErrnoRet", 1),
        ("/linux/seccomp/syscalls/0/errnoRet", 4095),
        ("/linux/seccomp/syscalls/1/errnoRet", 1),
    ],
)
def test_numbers_that_cant_be(container: Container, pointer: str, value: int) -> None:
    """config-linux.md: an errno for an action that doesn't support it MUST be an error."""
    profile(container, "SCMP_ACT_ALLOW", entry("SCMP_ACT_ERRNO"), entry("SCMP_ACT_LOG", "chdir"))
    container.bundle.set(pointer, value)
    refused_with(container, pointer)
