# SPDX-License-Identifier: GPL-3.0-or-later
"""Completion scripts for bash, zsh and fish, from the table.

    python -m ocirt.cli.completion DIR

writes them below DIR (PREFIX/share), where the shells look. Hidden options are understood, and not
offered.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ocirt.cli.proposals import Proposal, What, of_argument, of_option
from ocirt.cli.table import COMMANDS, GLOBALS, Kind, Option, Positional


def _shown(options: Sequence[Option]) -> list[Option]:
    return [option for option in options if not option.hidden]


def _names(option: Option) -> list[str]:
    return [option.name, *([option.short] if option.short else [])]


def _spelled(option: Option) -> list[str]:
    return [f"--{option.name}", *([f"-{option.short}"] if option.short else [])]


# bash

_BASH = r"""# Completion of ocirt(1) for bash, made from its table of options.

# Sets options and arguments: what a command ($1) takes.
_ocirt_command() {
    case $1 in
@COMMANDS@
    esac
    options+=' @GLOBALS@'
}

# Sets kind: what the value of an option ($2, without dashes) of a command ($1) is.
_ocirt_value() {
    kind=
    case "$1 $2" in
@VALUES@
    esac
}

_ocirt() {
    local program=$1 cur=${COMP_WORDS[COMP_CWORD]}
    local word name i command='' options='' kind='' pending='' ended='' prefix='' count=0
    local -a arguments=() root=()
    COMPREPLY=()
    _ocirt_command ''
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == '=' ]]; then
            # readline splits --name=value at the equals sign.
            pending=${pending:-nothing}
        elif [[ $pending ]]; then
            [[ $name == root ]] && root=(--root "${word/#\~\//$HOME/}")
            pending=''
        elif [[ $word == -- ]]; then
            ended=1
        elif [[ $word == -*=* && ! $ended ]]; then
            [[ $word == --root=* ]] && root=("$word")
        elif [[ $word == -?* && ! $ended ]]; then
            name=${word#-} name=${name#-}
            _ocirt_value "$command" "$name"
            pending=$kind
        elif [[ ! $command ]]; then
            command=$word options=''
            _ocirt_command "$command"
        else
            count=$((count + 1))
        fi
        [[ ${arguments[count]} == rest ]] && return
    done

    if [[ $cur == '=' ]]; then
        cur='' pending=${pending:-nothing}
    fi
    if [[ $pending ]]; then
        kind=$pending
    elif [[ $cur == -*=* && ! $ended ]]; then
        name=${cur%%=*} prefix=$name= cur=${cur#*=}
        name=${name#-} name=${name#-}
        _ocirt_value "$command" "$name"
    elif [[ $cur == -* && ! $ended ]]; then
        kind="word $options"
    elif [[ ! $command ]]; then
        kind='word @NAMES@'
    else
        kind=${arguments[count]}
    fi

    local -a words=()
    case $kind in
        word*) read -ra words <<<"${kind#word}" ;;
        container)
            program=${program/#\~\//$HOME/}
            mapfile -t words < <("$program" "${root[@]}" list -q 2>/dev/null)
            ;;
        file) compopt -o filenames && mapfile -t words < <(compgen -f -- "$cur") ;;
        directory) compopt -o filenames && mapfile -t words < <(compgen -d -- "$cur") ;;
    esac
    for word in "${words[@]}"; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$prefix$word")
    done
}

complete -F _ocirt ocirt
"""


def bash() -> str:
    """Return the script for bash; what bash-completion offers isn't needed."""
    commands = []
    for command in COMMANDS:
        options = " ".join(word for o in _shown(command.options) for word in _spelled(o))
        arguments = " ".join(shlex.quote(_bash_kind(of_argument(a))) for a in command.positionals)
        commands.append(
            f"{command.name}) options={shlex.quote(options)} arguments=({arguments}) ;;"
        )
    values = [_bash_value(command.name, o) for command in COMMANDS for o in command.options]
    values += [_bash_value("", o) for o in GLOBALS]
    return (
        _BASH.replace("@COMMANDS@", _indented(commands, 8))
        .replace("@VALUES@", _indented(values, 8))
        .replace("@GLOBALS@", " ".join(word for o in _shown(GLOBALS) for word in _spelled(o)))
        .replace("@NAMES@", " ".join(command.name for command in COMMANDS))
    )


def _bash_value(command: str, option: Option) -> str:
    # A global option's pattern is for every command; a command's own come before.
    patterns = [f"'{command} {n}'" if command else f"*' {n}'" for n in _names(option)]
    proposal = of_option(option)
    return (
        f"{' | '.join(patterns)}) kind={shlex.quote(_bash_kind(proposal)) if proposal else ''} ;;"
    )


def _bash_kind(proposal: Proposal) -> str:
    return " ".join((proposal.what.value, *proposal.words))


# zsh

_ZSH = r"""#compdef ocirt
# Completion of ocirt(1) for zsh, made from its table of options.

_ocirt_containers() {
    local -a ids root
    local given=${opt_args[--root]:-$outer_root}
    [[ -n $given ]] && root=(--root ${(Q)given})
    ids=(${(f)"$($program $root list -q 2>/dev/null)"})
    compadd -a ids
}

_ocirt_commands() {
    local -a commands
    commands=(
@COMMANDS@
    )
    _describe -t commands command commands
}

_ocirt() {
    local curcontext=$curcontext state line outer_root program=${words[1]/#\~\//$HOME/}
    typeset -A opt_args
    local -a globals
    globals=(
@GLOBALS@
    )
    _arguments -C -A '-*' $globals '1: :_ocirt_commands' '*:: :->arguments' && return
    [[ $state == arguments ]] || return
    outer_root=${opt_args[--root]}
    case $words[1] in
@CASES@
    esac
}

_ocirt "$@"
"""


def zsh() -> str:
    """Return the script for zsh: a function of its completion system."""
    described = [shlex.quote(f"{command.name}:{command.summary}") for command in COMMANDS]
    cases: list[str] = []
    for command in COMMANDS:
        own = "|".join(option.name for option in command.options)
        cases.append(f"{command.name})")
        # A command's own option takes the place of a global one of its name.
        cases.append(f"    _arguments ${{globals:#*--({own})(|=)\\[*}} \\")
        specs = [spec for o in _shown(command.options) for spec in _zsh_option(o)]
        specs += [_zsh_argument(n, a) for n, a in enumerate(command.positionals, 1)]
        cases += [f"        {spec} \\" for spec in specs]
        cases += ["        ;;"]
    return (
        _ZSH.replace("@COMMANDS@", _indented(described, 8))
        .replace("@GLOBALS@", _indented([s for o in _shown(GLOBALS) for s in _zsh_option(o)], 8))
        .replace("@CASES@", _indented(cases, 8))
    )


def _zsh_option(option: Option) -> Iterator[str]:
    proposal = of_option(option)
    names = _spelled(option)
    metavar = option.metavar.replace(":", "\\:")
    before = "*" if option.repeatable else f"({' '.join(names)})"
    for name in names:
        sign = "" if proposal is None else "=" if name.startswith("--") else "+"
        value = "" if proposal is None else f":{metavar}:{_zsh_action(proposal)}"
        yield shlex.quote(f"{before}{name}{sign}[{_zsh_text(option.help)}]{value}")


def _zsh_argument(number: int, argument: Positional) -> str:
    proposal = of_argument(argument)
    place = "*:" if argument.rest else f"{number}:" if argument.required else f"{number}::"
    colon = ":" if argument.rest else ""
    return shlex.quote(f"{place}{colon}{argument.name}:{_zsh_action(proposal)}")


def _zsh_action(proposal: Proposal) -> str:
    match proposal.what:
        case What.FILE:
            return "_files"
        case What.DIRECTORY:
            return "_files -/"
        case What.CONTAINER:
            return "_ocirt_containers"
        case What.WORD:
            return f"({' '.join(proposal.words)})"
    return " "


def _zsh_text(text: str) -> str:
    return re.sub(r"([\\\[\]:])", r"\\\1", text)


# fish

_FISH = r"""# Completion of ocirt(1) for fish, made from its table of options.

function __ocirt_has_value -a command option
    switch "$command $option"
@VALUES@
    end
    return 1
end

# Prints the command, how many arguments it has got before the cursor, and the --root given. In
# the command line of another program, which takes the rest, the command is "-".
function __ocirt_line
    set -l command ''
    set -l count 0
    set -l pending ''
    set -l root ''
    for word in (commandline -opc)[2..]
        if test -n "$pending"
            test $pending = root; and set root $word
            set pending ''
        else if string match -q -- '-*=*' $word
            string match -q -- '--root=*' $word; and set root (string replace -- --root= '' $word)
        else if string match -q -- '-*' $word
            set -l name (string replace -r -- '^--?' '' $word)
            __ocirt_has_value "$command" "$name"; and set pending $name
        else if test -z "$command"
            set command $word
        else
            set count (math $count + 1)
        end
    end
@REST@
    printf '%s\n' "$command" $count "$root"
end

# Whether the cursor is behind a command ('' for none), and at its argument of this number.
function __ocirt_at -a command argument
    set -l line (__ocirt_line)
    test "$line[1]" = "$command"; or return
    test -z "$argument"; or test "$line[2]" = "$argument"
end

function __ocirt_containers
    set -l words (commandline -opc)
    set -l root (__ocirt_line)[3]
    test -n "$root"; and set root --root $root; or set root
    $words[1] $root list -q 2>/dev/null
end

complete -c ocirt -f
"""


def fish() -> str:
    """Return the script for fish."""
    patterns = [_fish_pattern(c.name, o) for c in COMMANDS for o in c.options]
    patterns += [_fish_pattern("*", o) for o in GLOBALS]
    rest = [
        f'test "$command" = {c.name}; and test $count -ge {n}; and set command -'
        for c in COMMANDS
        for n, argument in enumerate(c.positionals)
        if argument.rest
    ]
    script = _FISH.replace("@VALUES@", _indented(patterns, 8)).replace("@REST@", _indented(rest, 4))
    lines = [script.rstrip("\n")]
    for command in COMMANDS:
        words = f"-a {command.name} -d {_fish_quoted(command.summary)}"
        lines.append(f"complete -c ocirt -n \"__ocirt_at ''\" {words}")
    for option in _shown(GLOBALS):
        # A command's own option takes the place of a global one of its name.
        owners = [c.name for c in COMMANDS if option.name in (o.name for o in c.options)]
        places = "; and ".join(f"not __ocirt_at {place}" for place in ("-", *owners))
        lines.append(f"complete -c ocirt -n '{places}' {_fish_option(option)}")
    for command in COMMANDS:
        for option in _shown(command.options):
            condition = f"-n '__ocirt_at {command.name}'"
            lines.append(f"complete -c ocirt {condition} {_fish_option(option)}")
        for number, argument in enumerate(command.positionals):
            if offered := _fish_proposal(of_argument(argument)):
                condition = f"-n '__ocirt_at {command.name} {number}'"
                lines.append(f"complete -c ocirt {condition} {offered}")
    return _lines(lines)


def _fish_pattern(command: str, option: Option) -> str:
    cases = " ".join(f"'{command} {name}'" for name in _names(option))
    return f"case {cases}; return {int(option.kind is Kind.FLAG)}"


def _fish_option(option: Option) -> str:
    words = [f"-l {option.name}", f"-s {option.short}" if option.short else ""]
    if proposal := of_option(option):
        words += ["-x" if proposal.what is not What.FILE else "-rF", _fish_proposal(proposal)]
    words.append(f"-d {_fish_quoted(option.help)}")
    return " ".join(word for word in words if word)


def _fish_proposal(proposal: Proposal) -> str:
    match proposal.what:
        case What.DIRECTORY:
            return "-a '(__fish_complete_directories)'"
        case What.CONTAINER:
            return "-a '(__ocirt_containers)'"
        case What.WORD:
            return f"-a '{' '.join(proposal.words)}'"
    return ""


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _indented(lines: Sequence[str], columns: int) -> str:
    return "\n".join(f"{'':<{columns}}{line}" for line in lines)


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


# Where each shell looks, below PREFIX/share.
SCRIPTS = {
    "bash-completion/completions/ocirt": bash,
    "zsh/site-functions/_ocirt": zsh,
    "fish/vendor_completions.d/ocirt.fish": fish,
}


def write(share: Path) -> None:
    """Write all scripts below a directory."""
    for place, script in SCRIPTS.items():
        path = share / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
