"""Completion by bash, zsh and fish of programs made of click commands: the script of each shell, and what it asks for.

The script is a static file. At each request it starts the program with what was typed up to the cursor in the
environment; click finds the commands, options and arguments that fit. The answer is a line for each: kind, text and
help, divided by tabs; the kind `file` or `dir` leaves it to the shell to complete paths. click's own scripts are not
used: bash's breaks at the colon of an image's name, and expands what it is given as patterns.

A text that a shell would have to quote is never offered, so that nothing that came from elsewhere can be more than a
word in anybody's command line.
"""

from __future__ import annotations

import os
import re
import sys
from typing import ClassVar

from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

_WORD = re.compile(r"[A-Za-z0-9_./-][A-Za-z0-9_./:@+,%=-]*")
"""What means itself in every shell, wherever it stands."""


class LineComplete(ShellComplete):
    """The part that all shells share. COMP_LINE is what was typed up to the cursor, and COMP_WORD, where the shell has
    an idea of its own of words, what of it the completion replaces."""

    directory: ClassVar[str]
    """Where the shell looks for scripts, below the directory of shared data."""
    file: ClassVar[str]
    """What it calls the one of a program `{}`."""

    @classmethod
    def path(cls, program: str) -> str:
        """The script's path below the directory of shared data."""
        return f"{cls.directory}/{cls.file.format(program)}"

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is being typed, and that one. The installed program's own words, by which it
        names the site's configuration, come first."""
        line = os.environ.get("COMP_LINE", "")
        words = split_arg_string(line)[1:]
        incomplete = words.pop() if words and not line[-1].isspace() else ""
        return [*sys.argv[1:], *words], incomplete

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """What fits, as it takes the place of what was typed: all of `--option=value` where a value is completed."""
        option, equals, _ = incomplete.partition("=")
        given = option + equals if equals and option.startswith("--") and "--" not in args else ""
        found = super().get_completions(args, incomplete)
        for item in found:
            if item.type == "plain":
                item.value = f"{given}{item.value}"
        return [item for item in found if item.type != "plain" or _WORD.fullmatch(item.value)]

    def complete(self) -> str:
        """The answer. What the shell takes for the beginning of the word, as up to a colon, it has already."""
        args, incomplete = self.get_completion_args()
        word = os.environ.get("COMP_WORD", incomplete)
        kept = len(incomplete) - len(word) if incomplete.endswith(word) else 0
        found = self.get_completions(args, incomplete)
        return "".join(
            self.format_completion(item, kept if item.value.startswith(incomplete[:kept]) else 0) for item in found
        )

    def format_completion(self, item: CompletionItem, kept: int = 0) -> str:
        """A line of the answer, without the first `kept` characters of the text."""
        value = item.value[kept:] if item.type == "plain" else ""
        return f"{item.type}\t{value}\t{' '.join((item.help or '').split())}\n"


class BashComplete(LineComplete):
    """bash, from the version 3.2 of SLES 11 on, which has neither compopt nor nosort."""

    name = "bash"
    directory = "bash-completion/completions"
    file = "{}.bash"
    source_template = """\
# bash completion of %(prog_name)s
%(complete_func)s() {
    local kind value help
    COMPREPLY=()
    while IFS=$'\\t' read -r kind value help; do
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            file) compopt -o default 2>/dev/null ;;
            dir) compopt -o dirnames 2>/dev/null ;;
        esac
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORD="$2" \\
        %(complete_var)s=bash_complete "$1" </dev/null 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null || complete -F %(complete_func)s %(prog_name)s
"""


class ZshComplete(LineComplete):
    """zsh, which finds the script in its fpath."""

    name = "zsh"
    directory = "zsh/site-functions"
    file = "_{}"
    source_template = """\
#compdef %(prog_name)s
local kind value help line
local -a plain described
line="${(j: :)words[1,CURRENT-1]} $PREFIX"
while IFS= read -r line; do
    kind="${line%%%%$'\\t'*}" line="${line#*$'\\t'}"
    value="${line%%%%$'\\t'*}" help="${line#*$'\\t'}"
    case $kind in
        plain)
            if [[ -n $help ]]; then
                described+=("${value//:/\\\\:}:$help")
            else
                plain+=("$value")
            fi
            ;;
        file) _files ;;
        dir) _files -/ ;;
    esac
done < <(COMP_LINE=$line %(complete_var)s=zsh_complete "${(Q)~words[1]}" </dev/null 2>/dev/null)
(( $#described )) && _describe -V %(prog_name)s described
(( $#plain )) && compadd -V %(prog_name)s -a plain
"""


class FishComplete(LineComplete):
    """fish."""

    name = "fish"
    directory = "fish/vendor_completions.d"
    file = "{}.fish"
    source_template = """\
# fish completion of %(prog_name)s
function %(complete_func)s
    set -l line (commandline --cut-at-cursor --current-process | string join ' ')
    set -l program (commandline --tokenize --cut-at-cursor --current-process)[1]
    for answer in (COMP_LINE=$line %(complete_var)s=fish_complete $program </dev/null 2>/dev/null)
        set -l part (string split \\t -- $answer)
        switch $part[1]
            case plain
                printf '%%s\\t%%s\\n' $part[2] "$part[3]"
            case file
                __fish_complete_path (commandline --current-token)
            case dir
                __fish_complete_directories (commandline --current-token) ''
        end
    end
end
complete --command %(prog_name)s --no-files --keep-order --arguments '(%(complete_func)s)'
"""


SHELLS: tuple[type[LineComplete], ...] = (BashComplete, ZshComplete, FishComplete)


def register() -> None:
    """Let these classes answer requests, in the place of click's own."""
    for shell in SHELLS:
        add_completion_class(shell)


def complete_variable(program: str) -> str:
    """The variable in which a shell asks, as click calls it."""
    return f"_{program.replace('-', '_')}_COMPLETE".upper()
