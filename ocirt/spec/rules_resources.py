# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules on resources (config-linux.md, "Control groups"), of config.json or of update."""

from __future__ import annotations

from collections.abc import Iterator

from ocirt.spec.load import escape
from ocirt.spec.report import Json, Result, error, twice

_WEIGHTS = ("weight", "leafWeight")


def resources(document: Json, at: str) -> Iterator[Result]:
    """Check resources; at is their pointer."""
    yield from _cpu(document.get("cpu", {}), f"{at}/cpu")
    yield from _memory(document.get("memory", {}), f"{at}/memory")
    yield from _pids(document.get("pids", {}), f"{at}/pids")
    yield from _block_io(document.get("blockIO", {}), f"{at}/blockIO")
    yield from twice(
        document.get("hugepageLimits", []),
        f"{at}/hugepageLimits",
        "hugepage-twice",
        "is a second limit for this page size",
        lambda limit: limit["pageSize"],
    )
    for name, limits in document.get("rdma", {}).items():
        if not {"hcaHandles", "hcaObjects"} & limits.keys():
            message = "has neither hcaHandles nor hcaObjects"
            yield error(f"{at}/rdma/{escape(name)}", "rdma-empty", message)
    for key in document.get("unified", {}):
        if "/" in key or key in ("", ".", ".."):
            pointer = f"{at}/unified/{escape(key)}"
            yield error(pointer, "unified-name", "isn't the name of a cgroup file", key)


def _cpu(cpu: Json, at: str) -> Iterator[Result]:
    burst, quota = cpu.get("burst"), cpu.get("quota")
    if burst and quota is not None and 0 < quota < burst:
        yield error(f"{at}/burst", "cpu-burst", "is above quota", burst, f"at most {quota}")


def _memory(memory: Json, at: str) -> Iterator[Result]:
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit is not None and swap is not None and 0 < swap < limit:
        allowed = f"at least limit ({limit}), which it includes"
        yield error(f"{at}/swap", "memory-swap", "is below limit", swap, allowed)


def _pids(pids: Json, at: str) -> Iterator[Result]:
    limit = pids.get("limit", 0)
    if limit < -1:
        yield error(f"{at}/limit", "pids-limit", "is negative", limit, "-1 (no limit) or more")


def _block_io(block_io: Json, at: str) -> Iterator[Result]:
    yield from _weights(block_io, at)
    for index, device in enumerate(block_io.get("weightDevice", [])):
        where = f"{at}/weightDevice/{index}"
        yield from _weights(device, where)
        if not device.keys() & set(_WEIGHTS):
            yield error(where, "blkio-weight-missing", "has neither weight nor leafWeight")


def _weights(document: Json, at: str) -> Iterator[Result]:
    for name in _WEIGHTS:
        weight = document.get(name, 0)
        if weight and not 10 <= weight <= 1000:
            allowed = "10 to 1000, 0 for none"
            yield error(f"{at}/{name}", "blkio-weight", "is out of range", weight, allowed)
