# SPDX-License-Identifier: GPL-3.0-or-later
"""Each shell completes what the table has: asked as a user would, in the shells that are here."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
from pathlib import Path

import pytest

from ocirt.cli import completion
from ocirt.cli.proposals import What, of_argument, of_option
from ocirt.cli.table import BY_NAME, COMMANDS, GLOBALS, Kind

LIMIT_SECONDS = 30

# In ocirt's place: the ids tell which --root it was asked for.
PROGRAM = """#!/bin/sh
case "$*" in
"list -q") printf 'web1\\nweb2\\ndb\\n' ;;
"--root /r list -q" | "--root=/r list -q") printf 'other1\\n$(touch injected)\\n' ;;
*) echo "unexpected: $*"; exit 1 ;;
esac
"""

# A command line up to the cursor, and all that is to be offered.
LINES = [
    ("ocirt fea", ["features"]),
    ("ocirt st", ["start", "state"]),
    ("ocirt --debug st", ["start", "state"]),
    ("ocirt --log /x --log-format json st", ["start", "state"]),
    ("ocirt --cgroup-manager systemd st", ["start", "state"]),
    ("ocirt start w", ["web1", "web2"]),
    ("ocirt start ", ["db", "web1", "web2"]),
    ("ocirt --root /r start o", ["other1"]),
    ("ocirt --root=/r start o", ["other1"]),
    ("ocirt kill --root /r --all o", ["other1"]),
    ("ocirt delete --force d", ["db"]),
    ("ocirt exec -e A=b -d w", ["web1", "web2"]),
    ("ocirt exec --user 1 d", ["db"]),
    ("ocirt exec web1 w", []),
    ("ocirt exec web1 ls --no", []),
    ("ocirt create w", []),
    ("ocirt run w", []),
    ("ocirt start web1 w", []),
    ("ocirt kill web1 WI", ["WINCH"]),
    ("ocirt help fea", ["features"]),
    ("ocirt list --format ", ["json", "table"]),
    ("ocirt list -f ", ["json", "table"]),
    ("ocirt validate --format j", ["json"]),
    ("ocirt exec --cap CAP_SYS_PT", ["CAP_SYS_PTRACE"]),
    ("ocirt create --bundle b", ["bundle/"]),
    ("ocirt create --pid-file b", ["bundle/", "b.pid"]),
    ("ocirt --rootless a", ["auto"]),
    ("ocirt spec --rootless a", []),
    ("ocirt exec --no-new", ["--no-new-privs"]),
    ("ocirt state --log-f", ["--log-format"]),
    ("ocirt --cgroup-m", []),
    ("ocirt create --cgroup-m", []),
]

needs_fish = pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish here")
needs_zsh = pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the scripts, an `ocirt`, and something to complete."""
    completion.write(tmp_path)
    program = tmp_path / "bin/ocirt"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    (tmp_path / "work/bundle").mkdir(parents=True)
    (tmp_path / "work/b.pid").touch()
    return tmp_path


def asked(place: Path, *argv: str) -> list[str]:
    """Run a shell where the scripts are; return its lines."""
    done = subprocess.run(
        argv,
        env={**os.environ, "PATH": f"{place}/bin:{os.environ['PATH']}", "HOME": str(place)},
        cwd=place / "work",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.stderr == ""
    assert not (place / "work/injected").exists()
    return done.stdout.splitlines()


# As readline calls it: a word per argument, = a word of its own.
BASH = """
source "$1"; shift
complete -p ocirt >/dev/null || exit
compopt() { :; }
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_ocirt "$1" "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def bash_offers(place: Path, line: str) -> list[str]:
    words = line.replace("=", " = ").split()
    if line.endswith(" "):
        words.append("")
    script = place / "bash-completion/completions/ocirt"
    return sorted(
        word for word in asked(place, "bash", "-c", BASH, "-", str(script), *words) if word
    )


@pytest.mark.parametrize(("line", "offered"), LINES)
def test_bash(place: Path, line: str, offered: list[str]) -> None:
    # bash adds a directory's slash later, as `compopt -o filenames` asks it to.
    assert bash_offers(place, line) == sorted(word.rstrip("/") for word in offered)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        # Straight after the equals sign, which is a word then, and where it doesn't split words.
        (["list", "--format", "="], ["json", "table"]),
        (["list", "--format", "=", "j"], ["json"]),
        (["list", "--format=j"], ["--format=json"]),
        (["delete", "--force", "=", "true", "d"], ["db"]),
        (["-log-format", "j"], ["json"]),
        (["start", "--", "d"], ["db"]),
        (["start", "--", "-"], []),
    ],
)
def test_bash_splits_words_in_its_own_way(
    place: Path, words: list[str], offered: list[str]
) -> None:
    script = place / "bash-completion/completions/ocirt"
    lines = asked(place, "bash", "-c", BASH, "-", str(script), "ocirt", *words)
    assert sorted(word for word in lines if word) == offered


@needs_fish
@pytest.mark.parametrize(("line", "offered"), LINES)
def test_fish(place: Path, line: str, offered: list[str]) -> None:
    script = place / "fish/vendor_completions.d/ocirt.fish"
    program = f"source {script}; complete -C '{line}'"
    lines = asked(place, "fish", "--no-config", "-c", program)
    # What follows a tab describes the word.
    assert sorted(line.partition("\t")[0] for line in lines) == sorted(offered)


@needs_fish
def test_fish_describes(place: Path) -> None:
    script = place / "fish/vendor_completions.d/ocirt.fish"
    program = f"source {script}; complete -C 'ocirt kil'; complete -C 'ocirt kill --al'"
    assert asked(place, "fish", "--no-config", "-c", program) == [
        f"kill\t{BY_NAME['kill'].summary}",
        "--all\tsend it to every process of the container",
    ]


class Zsh:
    """An interactive zsh on a terminal, with the scripts; ocirt prints its arguments there."""

    SETUP = (
        "PS1=; fpath=({place}/zsh/site-functions $fpath); autoload -U compinit; compinit -u -D;"
        ' ocirt() {{ [[ "$*" == *list\\ -q ]] && command ocirt "$@" || print -r -- "<$*>" }}\n'
    )

    def __init__(self, place: Path) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(place / "work")
            path = f"{place}/bin:{os.environ['PATH']}"
            environment = {"TERM": "dumb", "PATH": path, "HOME": str(place), "LC_ALL": "C"}
            os.execvpe("zsh", ["zsh", "-f", "-i"], environment)
        self.send(self.SETUP.format(place=place) + "print -r -- '<rea''dy>'\n")
        self.until("<ready>")

    def send(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, text: str) -> str:
        """Return what it prints up to this text."""
        seen = ""
        while text not in seen:
            assert select.select([self.fd], [], [], LIMIT_SECONDS)[0], f"only {seen!r}"
            seen += os.read(self.fd, 1 << 16).decode(errors="replace")
        return seen

    def end(self) -> None:
        os.close(self.fd)
        os.waitpid(self.pid, 0)


@needs_zsh
def test_zsh(place: Path) -> None:
    """Only lines with a single offer: it ends up on the line."""
    script = place / "zsh/site-functions/_ocirt"
    assert asked(place, "zsh", "-f", "-n", str(script)) == []
    shell = Zsh(place)
    for line, offered in LINES:
        if len(offered) == 1:
            shell.send(f"{line}\t\n")
            before = line.removeprefix("ocirt ").rpartition(" ")[0]
            shell.until(f"<{before} {offered[0].rstrip('/')}>".replace("< ", "<"))
    assert not (place / "work/injected").exists()
    shell.end()


def test_hidden_options_are_in_no_script_to_be_offered() -> None:
    hidden = [o.name for o in GLOBALS if o.hidden]
    assert hidden
    for name in hidden:
        assert f"--{name}" not in completion.bash()
        assert f"--{name}" not in completion.zsh()
        assert f"-l {name}" not in completion.fish()


def test_values_that_name_something_are_known() -> None:
    named = {"FILE": What.FILE, "PATH": What.FILE, "SOCKET": What.FILE, "DIR": What.DIRECTORY}
    for option in (*GLOBALS, *(o for c in COMMANDS for o in c.options)):
        proposal = of_option(option)
        assert (proposal is None) == (option.kind is Kind.FLAG)
        if proposal and option.metavar in named:
            assert proposal.what is named[option.metavar]
    for command in COMMANDS:
        for argument in command.positionals:
            if argument.name == "ID":
                assert of_argument(argument).what is (
                    What.NOTHING if argument.new else What.CONTAINER
                )
