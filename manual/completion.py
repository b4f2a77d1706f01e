"""The completion scripts of programs: of click commands, and of a program that has only its help text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import click

from udi.completion import LineComplete, complete_variable

Option = tuple[str, str, str]
"""An option, the word for its value, empty where it has none, and its help."""


def completion_script(shell: type[LineComplete], command: click.Command, program: str) -> str:
    """The script of a program made of click commands."""
    return shell(command, {}, program, complete_variable(program)).source()


def completion_of_options(shell: type[LineComplete], program: str, rows: Sequence[tuple[str, str]]) -> str:
    """The script of a program that starts another one, and whose own options are the `rows` of its help text."""
    options: dict[str, Option] = {}
    for terms, help_text in rows:
        for term in terms.split(", "):
            name, _, value = term.partition(" ")
            if name.startswith("--") and name != "--":
                options.setdefault(name, (name, value, help_text))
    return _OF_OPTIONS[shell.name](program, tuple(options.values()))


def _bash(program: str, options: Sequence[Option]) -> str:
    function = f"_{program.replace('-', '_')}"
    valued = " | ".join(name for name, value, _ in options if value)
    return f"""\
# bash completion of {program}
{function}() {{
    local at=1 each
    COMPREPLY=()
    while ((at < COMP_CWORD)); do
        case ${{COMP_WORDS[at]}} in
            {valued})
                at=$((at + 1))
                [[ ${{COMP_WORDS[at]}} == '=' ]] && at=$((at + 1))
                ;;
            =) at=$((at + 1)) ;;
            --) return ;;
            -*) ;;
            *) return ;;
        esac
        at=$((at + 1))
    done
    for each in {" ".join(name for name, _, _ in options)}; do
        [[ $2 == -* && $each == "$2"* ]] && COMPREPLY+=("$each")
    done
}}
complete -o default -F {function} {program}
"""


def _zsh(program: str, options: Sequence[Option]) -> str:
    rows = "".join(f"    {_zsh_row(*option)} \\\n" for option in options)
    return f"#compdef {program}\n_arguments -S -A '-*' \\\n{rows}    '*::command:_files'\n"


def _zsh_row(name: str, value: str, help_text: str) -> str:
    escaped = help_text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    action = f":{value}:{'_files -/' if value == 'DIR' else ''}" if value else ""
    return _single(f"*{name}{'=' if value else ''}[{escaped}]{action}")


def _single(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(program: str, options: Sequence[Option]) -> str:
    rows = "".join(
        f"complete --command {program} --long-option {name.removeprefix('--')}"
        f"{' --require-parameter' if value else ''} --description {_fish_quoted(help_text)}\n"
        for name, value, help_text in options
    )
    return f"# fish completion of {program}\n{rows}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_OF_OPTIONS: Mapping[str, Callable[[str, Sequence[Option]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
