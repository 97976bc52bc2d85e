# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m bench`: time ocirt beside runc and crun, as root. See docs/bench.md."""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.report import Row, svg, table
from tests.harness import cgroup

IDLE_SECONDS = 0.06
OPERATIONS = {
    "run": ["measure", "true"],
    "create+start+delete": ["measure", "create+start+delete"],
    "run, seccomp": ["measure", "seccomp"],
    "run, seccomp, uncached": ["measure", "uncached"],
    "run, invalid config": ["measure", "invalid"],
    "run, 50 mounts": ["measure", "mounts"],
    "exec": ["measure", "exec"],
    "state": ["measure", "state"],
}
# Each driver has a mount namespace of its own. State directories are on a tmpfs, as /run is. crun
# can't live with a mounted cgroup2 beside v1.
_TMPFS = 'mount --make-rprivate / && mkdir "$0" && mount -t tmpfs tmpfs "$0" || exit; '
_WITHOUT_UNIFIED = "umount /sys/fs/cgroup/unified 2>/dev/null; "


class Peer:
    """A driver process of one runtime."""

    def __init__(self, name: str, path: str, directory: Path, token: str) -> None:
        self.name = name
        self.token = f"{token}{name}"
        place = directory / name
        place.mkdir()
        # Not through a symbolic link: dropping caches is about the file.
        argv = [sys.executable, "-m", "bench.driver", os.path.realpath(path), str(place)]
        argv.append(self.token)
        script = _TMPFS + (_WITHOUT_UNIFIED if name == "crun" else "") + 'exec "$@"'
        argv = ["unshare", "--mount", "sh", "-c", script, str(place / "state"), *argv]
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, *request: Any) -> dict[str, float]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer: dict[str, float] = json.loads(self.process.stdout.readline())
        return answer

    def close(self, containers: int) -> None:
        """End the driver and whatever is left of its containers."""
        assert self.process.stdin
        if self.process.poll() is None:
            self.ask("clean", containers)
        self.process.stdin.close()
        self.process.wait()
        cgroup.remove_tree(f"/ocirt-bench-{self.token}")


def main() -> int:
    parser = argparse.ArgumentParser(description="time ocirt beside runc and crun")
    parser.add_argument("--runtime", default="build/ocirt", help="ours (default build/ocirt)")
    parser.add_argument("--crun", default=shutil.which("crun"), help="a crun (default: PATH's)")
    parser.add_argument("--runc", default=shutil.which("runc"), help="a runc (default: PATH's)")
    parser.add_argument("--rounds", type=int, default=60, help="measurements of each kind")
    parser.add_argument("--containers", type=int, default=500, help="how many for list")
    parser.add_argument("--output", type=Path, default=Path("build"), help="for JSON and SVG")
    options = parser.parse_args()
    paths = {"ocirt": options.runtime, "crun": options.crun, "runc": options.runc}
    token = secrets.token_hex(3)
    directory = Path(tempfile.mkdtemp(prefix="ocirt-bench-"))
    peers = [Peer(n, os.path.abspath(p), directory, token) for n, p in paths.items() if p]
    try:
        rows = _timings(peers, options.rounds, options.containers)
        facts = {peer.name: _facts(peer) for peer in peers}
    finally:
        for peer in peers:
            peer.close(options.containers)
        shutil.rmtree(directory)
    names = [peer.name for peer in peers]
    text = table(rows, names) + "\n" + _facts_table(facts)
    print(text)
    options.output.mkdir(exist_ok=True)
    document = {"times": [_json(row) for row in rows], "facts": facts}
    (options.output / "bench.json").write_text(json.dumps(document, indent=1))
    (options.output / "bench.svg").write_text(svg(rows, names))
    (options.output / "bench.md").write_text(text)
    return 0


def _json(row: Row) -> dict[str, Any]:
    return {"operation": row.operation, "mode": row.mode, "ms": dict(row.times)}


def _timings(peers: list[Peer], rounds: int, containers: int) -> list[Row]:
    for peer in peers:
        peer.ask("idle")
    rows = []
    for operation, request in OPERATIONS.items():
        for mode, pause in (("back to back", 0.0), ("idle", IDLE_SECONDS)):
            rows.append(_interleaved(peers, operation, request, mode, pause, rounds))
    few = rounds // 6 + 1
    rows.append(_interleaved(peers, "64 creates", ["parallel"], "back to back", 0, few))
    rows.append(_interleaved(peers, "run, cold", ["cold"], "idle", IDLE_SECONDS, few))
    for peer in peers:
        peer.ask("clean")
        peer.ask("idle", containers)
    name = f"list of {containers}"
    rows.append(_interleaved(peers, name, ["measure", "list"], "back to back", 0, few))
    return rows


def _interleaved(
    peers: list[Peer], operation: str, request: list[str], mode: str, pause: float, rounds: int
) -> Row:
    """Ask every runtime in turn, each round in another order."""
    times: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        for peer in random.sample(peers, len(peers)):
            time.sleep(pause)
            answer = peer.ask(*request)
            if not answer["failed"]:
                times[peer.name].append(answer["ms"])
    return Row(operation, mode, times)


def _facts(peer: Peer) -> dict[str, float]:
    """Return what isn't time: memory in KiB, page faults and system calls of a run."""
    run = peer.ask("measure", "true")
    return {
        "least memory limit, KiB": peer.ask("smallest").get("limit", 0),
        "peak memory of run, KiB": peer.ask("peak")["peak"],
        "page faults of run": run["faults"],
        "system calls of run": peer.ask("system_calls")["calls"],
        **{f"created: {k}, KiB": v for k, v in peer.ask("created").items()},
    }


def _facts_table(facts: dict[str, dict[str, float]]) -> str:
    head = f"| | {' | '.join(facts)} |\n|{' --- |' * (len(facts) + 1)}\n"
    names = next(iter(facts.values()))
    rows = (
        f"| {n} | {' | '.join(f'{f.get(n, 0):.0f}' for f in facts.values())} |\n" for n in names
    )
    return head + "".join(rows)


if __name__ == "__main__":
    sys.exit(main())
