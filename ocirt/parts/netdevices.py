# SPDX-License-Identifier: GPL-3.0-or-later
"""netDevices (config-linux.md, "Network Devices"): the host's devices, moved into the container.

The work is done by a child of the runtime that has a netlink socket in each of the two network
namespaces, since the runtime itself never leaves the host's. The kernel takes addresses away from
a device that is moved, so they are noted before, and given back after.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from ocirt.errors import NeedsPlainPythonError, OcirtError, describe
from ocirt.kernel.constants import CLONE_NEWNET
from ocirt.kernel.files import read_all
from ocirt.kernel.process import setns
from ocirt.parts.step import Context, Side, Step
from ocirt.spec.model import NetDevice

# rtnetlink(7), linux/if_addr.h
_SCOPE_UNIVERSE = 0
_IFA_F_PERMANENT = 0x80

# What a netlink socket and the messages of its answers are: pyroute2 has no types.
_Socket = Any
_Message = Any


def early_steps(devices: Mapping[str, NetDevice]) -> Iterator[Step]:
    """Yield what must not fail late: netlink is there, and so is each device."""
    if devices:
        yield Step(Side.RUNTIME, "look at network devices", "/linux/netDevices", Look(devices))


def steps(devices: Mapping[str, NetDevice]) -> Iterator[Step]:
    """Yield the moves, which need init's network namespace."""
    for name, device in devices.items():
        words = f"move the network device {name}" + (f" to {device.name}" if device.name else "")
        pointer = f"/linux/netDevices/{name.replace('~', '~0').replace('/', '~1')}"
        undo = "move it back"
        yield Step(Side.RUNTIME, words, pointer, Move(name, device.name or name), undo)


@dataclass(frozen=True, slots=True)
class Look:
    """See that pyroute2 can be had and that every device exists."""

    devices: Mapping[str, NetDevice]

    def run(self, c: Context) -> None:
        try:
            import pyroute2  # noqa: F401
        except ImportError:
            raise NeedsPlainPythonError(
                "/linux/netDevices: pyroute2 is missing; install python3-pyroute2"
            ) from None
        for name in self.devices:
            try:
                socket.if_nametoindex(name)
            except OSError:
                raise OcirtError(f"{name}: the host has no network device of that name") from None


@dataclass(frozen=True, slots=True)
class Move:
    """Move one device and set it up there under its new name, in which %d is a free number."""

    name: str
    new_name: str

    def run(self, c: Context) -> None:
        if c.network < 0:
            path = f"/proc/{c.init_pid}/ns/net"
            c.network = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        _in_child(partial(_move, self.name, self.new_name, c.network))
        c.moved_devices.append((self.name, self.new_name))


def give_back(c: Context) -> None:
    """Move what was moved back to the host, after a create that failed. Raises OcirtError."""
    while c.moved_devices:
        name, new_name = c.moved_devices.pop()
        _in_child(partial(_move_back, new_name, name, c.network))


def _in_child(work: Callable[[], None]) -> None:
    """Run in a child, which may change its network namespace. Raises OcirtError as it says."""
    reads, writes = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _work_and_exit(work, writes)
    os.close(writes)
    words = read_all(reads).decode(errors="replace")
    os.close(reads)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise OcirtError(words or f"the process that does it ended with {status}")


def _work_and_exit(work: Callable[[], None], writes: int) -> NoReturn:
    """Never unwind into what the parent would have done."""
    try:
        work()
        os._exit(0)
    except OcirtError as e:
        os.write(writes, str(e).encode())
    except OSError as e:
        os.write(writes, describe(e).encode())
    except BaseException as e:
        os.write(writes, _explain(e).encode())
    finally:
        os._exit(1)


def _explain(error: BaseException) -> str:
    """Return a sentence for what pyroute2 raises: its NetlinkError has the errno in code."""
    code = getattr(error, "code", None)
    if isinstance(code, int) and code > 0:
        return f"{os.strerror(code).lower()} ({errno.errorcode.get(code, code)})"
    return f"{type(error).__name__}: {error}"


def _sockets(network: int) -> tuple[_Socket, _Socket, int]:
    """Return netlink sockets in the host's and the container's network namespace, and the former.

    This process is in the container's from then on.
    """
    from pyroute2 import IPRoute

    host = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    outside = IPRoute()
    setns(network, CLONE_NEWNET)
    return outside, IPRoute(), host


def _move(name: str, new_name: str, network: int) -> None:
    outside, inside, host = _sockets(network)
    there = {_name(link): link["index"] for link in inside.get_links()}
    if new_name in there:
        raise OcirtError(f"the container already has a network device {new_name}")
    index = outside.link_lookup(ifname=name)[0]
    addresses = _addresses(outside, index)
    _transfer(outside, index, network, new_name)
    (link,) = [x for x in inside.get_links() if x["index"] not in there.values()]
    try:
        _furnish(inside, link["index"], addresses)
    except BaseException:
        _transfer(inside, link["index"], host, name)
        raise


def _move_back(new_name: str, name: str, network: int) -> None:
    outside, inside, host = _sockets(network)
    before = {link["index"] for link in outside.get_links()}
    stem = new_name.partition("%d")[0]
    for link in inside.get_links():
        if _name(link) == new_name or ("%d" in new_name and _name(link).startswith(stem)):
            addresses = _addresses(inside, link["index"])
            _transfer(inside, link["index"], host, name)
            (back,) = [x for x in outside.get_links() if x["index"] not in before]
            _furnish(outside, back["index"], addresses)
            return


def _transfer(from_: _Socket, index: int, to: int, name: str) -> None:
    """Move a device down and renamed: a device that is up can't be."""
    from_.link("set", index=index, state="down")
    from_.link("set", index=index, net_ns_fd=to, ifname=name)


def _furnish(where: _Socket, index: int, addresses: list[dict[str, object]]) -> None:
    for address in addresses:
        where.addr("add", index=index, **address)
    where.link("set", index=index, state="up")


def _name(link: _Message) -> str:
    return str(link.get_attr("IFLA_IFNAME"))


def _addresses(where: _Socket, index: int) -> list[dict[str, object]]:
    """Return the permanent global addresses of a device, as what adds them again."""
    found: list[dict[str, object]] = []
    for message in where.get_addr(index=index):
        flags = message.get_attr("IFA_FLAGS") or message["flags"]
        if message["scope"] != _SCOPE_UNIVERSE or not flags & _IFA_F_PERMANENT:
            continue
        address, local = message.get_attr("IFA_ADDRESS"), message.get_attr("IFA_LOCAL")
        entry: dict[str, object] = {"address": address, "prefixlen": message["prefixlen"]}
        if local and local != address:
            entry["local"] = local
        if broadcast := message.get_attr("IFA_BROADCAST"):
            entry["broadcast"] = broadcast
        found.append(entry)
    return found
