# SPDX-License-Identifier: GPL-3.0-or-later
"""SCMP_ACT_NOTIFY: an agent of ours gets the listener over a real socket, and answers."""

from __future__ import annotations

import errno
import os
import platform
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Container, proc
from tests.harness.agent import Agent, Answer, Decide, Notification
from tests.integration.conftest import MakeContainer
from tests.integration.test_exec import NOT_RUN, execute
from tests.integration.test_namespaces import ask_for
from tests.integration.test_seccomp import GETPPID, MKDIR, allowed_but, entry, ours

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="system calls are named by their numbers on x86-64"
)

MakeAgent = Callable[..., Agent]
EXECVE = 59
REFUSED = Answer(error=errno.EDQUOT)


@pytest.fixture
def make_agent(directory: Path) -> Iterator[MakeAgent]:
    """Make agents; they are closed when the containers are gone."""
    agents: list[Agent] = []

    def make(decide: Decide | None = None, path: Path | None = None) -> Agent:
        agents.append(Agent(path or directory / f"agent{len(agents)}", decide))
        return agents[-1]

    yield make
    for agent in agents:
        agent.close()


# After the agents, so that it is taken down before they are.
@pytest.fixture
def container(make_agent: MakeAgent, make_container: MakeContainer) -> Container:
    return make_container()


@pytest.fixture
def calls(container: Container, call_program: Path) -> Container:
    """A container with tests/harness/call.c as /bin/call."""
    os.link(call_program, container.bundle.rootfs / "bin/call")
    return container


def ask(container: Container, path: Path, *names: str, **more: Any) -> None:
    """Have an agent asked about these system calls, mkdir if none is given."""
    document = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [entry("SCMP_ACT_NOTIFY", *names)],
        "listenerPath": str(path),
        **more,
    }
    container.bundle.set("/linux/seccomp", document)


def refuse(notification: Notification) -> Answer:
    return REFUSED


def own_keys(state: dict[str, Any]) -> dict[str, Any]:
    return {name: state[name] for name in ("id", "bundle", "pid")}


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_create_and_start(calls: Container, make_agent: MakeAgent, no_new_privileges: bool) -> None:
    agent = make_agent(refuse)
    calls.config["process"]["noNewPrivileges"] = no_new_privileges
    calls.config["annotations"] = {"com.example.key": "value"}
    ask(calls, agent.path, listenerMetadata="some: text")
    calls.command("/bin/sh", "-c", f"/bin/call {MKDIR},/tmp/x,0755 >/tmp/out; sleep 1000")
    calls.create()
    calls.start()
    given = agent.given()
    assert given.state["ociVersion"]
    assert given.state["fds"] == ["seccompFd"]
    assert given.state["metadata"] == "some: text"
    assert given.state["pid"] == calls.pid
    state = given.state["state"]
    assert state.items() >= {"id": calls.id, "bundle": str(calls.bundle.directory)}.items()
    assert state["pid"] == calls.pid
    # runc sends it from create.
    assert state["status"] in ("created", "creating")
    assert state["annotations"] == {"com.example.key": "value"}
    out = calls.bundle.rootfs / "tmp/out"
    proc.wait_until(lambda: out.exists() and out.read_text() == f"{-errno.EDQUOT}\n")
    calls.kill("KILL")
    calls.wait_for("stopped")
    assert [n.number for n in given.notifications] == [MKDIR]
    assert not (calls.bundle.rootfs / "tmp/x").exists()
    assert agent.empty()


def test_the_agent_makes_up_a_result(calls: Container, make_agent: MakeAgent) -> None:
    def decide(notification: Notification) -> Answer:
        if notification.args[0] == 7:
            return Answer(proceed=True)
        return Answer(value=1000 + notification.args[0])

    ask(calls, make_agent(decide).path, "getpid")
    calls.command("/bin/call", "39,1", "39,7", "39,2")
    assert calls.run().checked().stdout == "1001\n1\n1002\n"


def test_conditions_hold_for_notifications(calls: Container, make_agent: MakeAgent) -> None:
    agent = make_agent(refuse)
    ask(calls, agent.path)
    argument = {"index": 1, "op": "SCMP_CMP_EQ", "value": 3}
    calls.bundle.set("/linux/seccomp/syscalls/0", entry("SCMP_ACT_NOTIFY", "getpid"))
    calls.bundle.set("/linux/seccomp/syscalls/0/args", [argument])
    calls.command("/bin/call", "39,0,3", "39,0,4")
    assert calls.run().checked().stdout == f"{-errno.EDQUOT}\n1\n"


def test_no_metadata(calls: Container, make_agent: MakeAgent) -> None:
    agent = make_agent(refuse)
    ask(calls, agent.path)
    calls.command("/bin/call")
    calls.run().checked()
    assert "metadata" not in agent.given().state


def test_a_state_that_is_longer_than_a_sockets_buffer(
    calls: Container, make_agent: MakeAgent
) -> None:
    agent = make_agent(refuse)
    calls.config["annotations"] = {"com.example.long": "é" * 500_000}
    ask(calls, agent.path)
    calls.command("/bin/call", f"{MKDIR},/tmp/x,0755")
    assert calls.run().checked().stdout == f"{-errno.EDQUOT}\n"
    assert agent.given().state["state"]["annotations"] == calls.config["annotations"]


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_exec(calls: Container, make_agent: MakeAgent, no_new_privileges: bool) -> None:
    """A filter and a listener of its own: pid is the process's, state the container's."""
    agent = make_agent(refuse)
    calls.config["process"]["noNewPrivileges"] = no_new_privileges
    ask(calls, agent.path, "mkdir", "getppid", listenerMetadata="text")
    calls.command("/bin/sleep", "1000")
    calls.create()
    calls.start()
    first = agent.given()
    pid_file = calls.bundle.directory / "pid"
    argv = ("/bin/call", f"{MKDIR},/tmp/x,0755")
    result = execute(calls, f"--pid-file={pid_file}", *argv).checked()
    assert result.stdout == f"{-errno.EDQUOT}\n"
    second = agent.given()
    assert second.state["pid"] == int(pid_file.read_text()) != calls.pid
    assert second.state["metadata"] == "text"
    assert second.state["state"] == {**first.state["state"], "status": "running"}
    assert [n.number for n in second.notifications] == [MKDIR]
    assert first.notifications == []


def test_two_containers_and_one_agent(
    make_agent: MakeAgent, make_container: MakeContainer, call_program: Path
) -> None:
    agent = make_agent(lambda n: Answer(value=5))
    containers = [make_container() for _ in range(2)]
    for container in containers:
        os.link(call_program, container.bundle.rootfs / "bin/call")
        ask(container, agent.path, "getppid")
        container.command("/bin/call", str(GETPPID))
        assert container.run().checked().stdout == "5\n"
    assert [agent.given().state["state"]["id"] for _ in containers] == [c.id for c in containers]


def test_execve_itself(calls: Container, make_agent: MakeAgent) -> None:
    ours(calls)  # runc's init would ask about more than one
    asked = make_agent(lambda n: Answer(proceed=True))
    ask(calls, asked.path, "execve")
    calls.command("/bin/call", "39")
    assert calls.run().checked().stdout == "1\n"
    given = asked.given()
    assert [n.number for n in given.notifications] == [EXECVE]


def test_an_agent_that_forbids_the_execve(calls: Container, make_agent: MakeAgent) -> None:
    ours(calls)
    ask(calls, make_agent(refuse).path, "execve")
    calls.command("/bin/call", "39")
    result = calls.run()
    assert result.status not in (0, None)
    assert "quota exceeded" in result.stderr


def test_in_a_user_namespace(calls: Container, make_agent: MakeAgent) -> None:
    ask_for(calls, "pid", "mount", "uts", "ipc", "network", "user")
    agent = make_agent(refuse)
    ask(calls, agent.path)
    calls.command("/bin/call", f"{MKDIR},/tmp/x,0755")
    assert calls.run().checked().stdout == f"{-errno.EDQUOT}\n"


def test_a_socket_in_a_long_path(calls: Container, make_agent: MakeAgent, directory: Path) -> None:
    place = directory / ("a" * 120)
    place.mkdir()
    fd = os.open(place, os.O_PATH | os.O_DIRECTORY)
    make_agent(refuse, Path(f"/proc/self/fd/{fd}/agent"))
    ask(calls, place / "agent")
    calls.command("/bin/call", f"{MKDIR},/tmp/x,0755")
    assert calls.run().checked().stdout == f"{-errno.EDQUOT}\n"


def test_a_profile_that_allows_little(calls: Container, make_agent: MakeAgent) -> None:
    """Of what we do under the filter, sendmsg and read have to be allowed, and nothing else."""
    agent = make_agent(refuse)
    syscalls = [*allowed_but("sendmsg", "read"), entry("SCMP_ACT_NOTIFY")]
    ask(calls, agent.path, defaultAction="SCMP_ACT_KILL_PROCESS", syscalls=syscalls)
    calls.command("/bin/call", f"{MKDIR},/tmp/x,0755", "39")
    assert calls.run().checked().stdout == f"{-errno.EDQUOT}\n1\n"


def test_nothing_notifies(calls: Container, make_agent: MakeAgent) -> None:
    """config-linux.md: without SCMP_ACT_NOTIFY nothing is sent."""
    agent = make_agent(refuse)
    ask(calls, agent.path, syscalls=[entry("SCMP_ACT_ERRNO")])
    calls.command("/bin/call", f"{MKDIR},/tmp/x,0755")
    assert calls.run().checked().stdout == "-1\n"
    assert agent.empty()


def test_no_agent(calls: Container, make_agent: MakeAgent, directory: Path) -> None:
    """Nothing has happened then: as soon as there is an agent, the container can be started."""
    ours(calls)  # runc's create refuses
    path = directory / "later"
    ask(calls, path)
    calls.command("/bin/sleep", "1000")
    calls.create()
    words = calls.refused("start")
    assert "/linux/seccomp/listenerPath" in words
    assert str(path) in words
    assert calls.status == "created"
    make_agent(refuse, path)
    calls.start()
    assert calls.status == "running"


def test_run_and_exec_without_an_agent(
    calls: Container, make_agent: MakeAgent, directory: Path
) -> None:
    path = directory / "later"
    ask(calls, path)
    calls.command("/bin/sleep", "1000")
    result = calls.run()
    assert result.status != 0
    assert calls.remains() == []
    agent = make_agent(refuse, path)
    calls.create()
    calls.start()
    agent.given()
    hidden = directory / "hidden"
    path.rename(hidden)
    failed = execute(calls, "/bin/true")
    assert failed.status == NOT_RUN, str(failed)
    hidden.rename(path)
    execute(calls, "/bin/true").checked()
    assert calls.status == "running"


def closing_agent(path: Path) -> threading.Thread:
    """Listen, take one connection and close it at once, before a listener can be sent."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen()

    def take() -> None:
        connection, _ = server.accept()
        connection.close()
        server.close()

    thread = threading.Thread(target=take)
    thread.start()
    return thread


def test_an_agent_that_hangs_up(calls: Container, directory: Path) -> None:
    """The listener can't be sent (or is lost): the program never has anybody to wait for."""
    path = directory / "agent"
    thread = closing_agent(path)
    ask(calls, path)
    calls.command("/bin/call", f"{MKDIR},/tmp/x,0755")
    result = calls.run()
    thread.join()
    # Either we noticed, or the kernel answers in the agent's place.
    assert result.status != 0 or result.stdout == f"{-errno.ENOSYS}\n"
    assert "Traceback" not in result.stderr
    assert calls.remains() == []


@pytest.mark.parametrize("killable", [False, True])
def test_wait_killable(calls: Container, make_agent: MakeAgent, killable: bool) -> None:
    """A signal ends the wait for an agent that has been asked, but not with the flag."""
    ours(calls)  # runc 1.1 doesn't know the flag
    agent = make_agent()
    flags = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] if killable else []
    ask(calls, agent.path, "getppid", flags=flags)
    calls.command("/bin/call", f"waits:{GETPPID}")
    calls.create()
    calls.start()
    listener = agent.given().listener
    notification = listener.receive()
    assert notification is not None
    os.kill(calls.pid, signal.SIGUSR1)
    if killable:
        # It has been told of the signal when its handler may run: after the answer.
        assert listener.still_waits(notification)
        listener.answer(notification, Answer(value=5))
    else:
        # The call is made anew when the handler has returned.
        again = listener.receive()
        assert again is not None
        assert again.id != notification.id
        assert not listener.still_waits(notification)
        listener.answer(again, Answer(value=5))
    calls.wait_for("stopped")


def refused_at_create(container: Container, *words: str) -> None:
    container.bundle.save()
    stderr = container.refused("create", "--bundle", str(container.bundle.directory))
    for word in words:
        assert word in stderr
    assert container.remains() == []


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"listenerPath": ""}, "/linux/seccomp"),
        ({"listenerPath": "relative"}, "/linux/seccomp/listenerPath"),
        ({"listenerPath": "", "listenerMetadata": "x"}, "/linux/seccomp/listenerMetadata"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "/linux/seccomp"),
        ({"syscalls": [entry("SCMP_ACT_NOTIFY", "sendmsg")]}, "sendmsg"),
        ({"defaultAction": "SCMP_ACT_ERRNO"}, "sendmsg"),
    ],
)
def test_profiles_that_cant_work(
    container: Container, directory: Path, more: dict[str, Any], pointer: str
) -> None:
    ours(container)
    ask(container, directory / "agent", **more)
    refused_at_create(container, pointer)
