# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the OCI runtime-tools validation programs against a runtime: pass, fail or skip for each.

The programs are built elsewhere, from github.com/opencontainers/runtime-tools: `make runtimetest
validation-executables`. They are run one at a time, in a jail, with a time limit.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from conformance.jail import Ended, Jail, environment
from conformance.peer import adapter_for
from conformance.programs import NOTES

LIMIT_SECONDS = 90
# How much of a failure's text is kept for the page.
WHY_LINES = 4
_RESULT = re.compile(r"^(not )?ok\b(?P<rest>.*)$")
_COMPLAINT = re.compile(r'^ *"error": "(.+?)(?:\\\\n|",?$)', re.MULTILINE)
_PLAN = re.compile(r"^1\.\.(\d+)")


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program said about a runtime; why is empty for a pass."""

    program: str
    verdict: Verdict
    why: str


def find_programs(folder: Path) -> dict[str, Path]:
    """Return name -> executable: NAME.t in folder, or where runtime-tools' Makefile puts them."""
    paths = [*folder.glob("*.t"), *folder.glob("validation/*/*.t")]
    return {path.stem: path.resolve() for path in sorted(paths) if os.access(path, os.X_OK)}


def judge(program: str, ended: Ended) -> Outcome:
    """Read a program's TAP. It passes if it ran to its end, and found nothing to complain about."""
    results = [m for line in ended.stdout.splitlines() if (m := _RESULT.match(line))]
    plans = [int(m[1]) for line in ended.stdout.splitlines() if (m := _PLAN.match(line))]
    bad = [f"not ok{m['rest']}" for m in results if m[1] and "# TODO" not in m["rest"]]
    skipped = [m for m in results if re.search(r"#\s*skip", m["rest"], re.IGNORECASE)]
    said = [line for line in ended.stderr.splitlines() if line.strip()][:WHY_LINES]
    if ended.timed_out:
        return Outcome(program, Verdict.FAIL, f"not ready in {LIMIT_SECONDS} s")
    if bad or ended.status:
        status = [f"exit status {ended.status}"] if ended.status else []
        return Outcome(program, Verdict.FAIL, "; ".join([*bad[:WHY_LINES], *status, *said]))
    if not results and (complaints := _COMPLAINT.findall(ended.stdout)):
        # Some programs never say "not ok": they end well and put an error into a diagnostic.
        return Outcome(program, Verdict.FAIL, "; ".join(complaints[:WHY_LINES]))
    if plans and len(results) < plans[0]:
        return Outcome(program, Verdict.FAIL, f"{len(results)} results of {plans[0]}")
    if results and len(skipped) == len(results):
        return Outcome(program, Verdict.SKIP, skipped[0]["rest"].strip())
    return Outcome(program, Verdict.PASS, "")


def run_program(runtime: str, folder: Path, program: Path, keep: Path | None) -> Outcome:
    """Run one program; keep: a folder for all it wrote, or None."""
    scratch = Path(tempfile.mkdtemp(prefix="oci-"))
    try:
        _lay_out(folder, scratch)
        env = environment(scratch, RUNTIME=adapter_for(runtime, scratch))
        ended = Jail(f"ocirt-test-{scratch.name}").run([str(program)], scratch, env, LIMIT_SECONDS)
    finally:
        shutil.rmtree(scratch)
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        text = f"{ended.stdout}\n--- stderr\n{ended.stderr}\n--- status {ended.status}\n"
        (keep / f"{program.stem}.txt").write_text(text)
    return judge(program.stem, ended)


def _lay_out(folder: Path, scratch: Path) -> None:
    """Put what the programs look for in their working directory there."""
    scratch.chmod(0o755)
    for source in (folder / "runtimetest", *folder.glob("rootfs-*.tar.gz")):
        shutil.copy(source, scratch / source.name)


def report(outcomes: Iterable[Outcome]) -> str:
    """Return TAP, one line per program."""
    lines = []
    for number, outcome in enumerate(outcomes, 1):
        ok = "not ok" if outcome.verdict is Verdict.FAIL else "ok"
        mark = f" # SKIP {outcome.why}" if outcome.verdict is Verdict.SKIP else ""
        why = f"\n# {outcome.why}" if outcome.verdict is Verdict.FAIL else ""
        lines.append(f"{ok} {number} - {outcome.program}{mark}{why}")
    return "\n".join(["TAP version 13", *lines, f"1..{len(lines)}"]) + "\n"


def main(argv: list[str]) -> int:
    """Run the programs; exit status 1 if one failed that nothing is to be said against."""
    parser = argparse.ArgumentParser(prog="conformance.tools", description=__doc__)
    parser.add_argument("--runtime", required=True, help="path of the runtime")
    parser.add_argument("--tools", required=True, type=Path, help="folder with the built programs")
    parser.add_argument("--json", type=Path, help="write the outcomes here")
    parser.add_argument("--keep", type=Path, help="write all that the programs wrote below here")
    parser.add_argument("program", nargs="*", help="names (default: all)")
    options = parser.parse_args(argv)
    programs = find_programs(options.tools)
    unknown = set(options.program) - set(programs)
    if unknown or not programs or not (options.tools / "runtimetest").exists():
        parser.error(f"{options.tools}: no {', '.join(unknown) or 'programs, or no runtimetest'}")
    outcomes = []
    for name in options.program or programs:
        arguments = (os.path.abspath(options.runtime), options.tools, programs[name], options.keep)
        outcome = run_program(*arguments)
        if outcome.verdict is Verdict.FAIL:
            # Some race with what they have just started: signals before a shell has its traps.
            outcome = run_program(*arguments)
        outcomes.append(outcome)
        print(f"{outcome.verdict} {name}  {outcome.why}", file=sys.stderr, flush=True)
    print(report(outcomes), end="")
    if options.json:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    failed = [outcome.program for outcome in outcomes if outcome.verdict is Verdict.FAIL]
    return int(any(program not in NOTES for program in failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
