"""Every message that an operator can see, gathered from Python, from templates of shell programs, and from the plugin.

A value is shown as `VALUE`, whatever it is; what is nothing but values passes on another message, and is none.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from udiroot.errors import ConfigError, UdiError

ROOT = Path(__file__).resolve().parents[2]
ROOMS = [
    "udiroot",
    "udi",
    "alps",
    "clusters",
    "gateway",
    "nodehealth",
    "jobs",
    "slurm_hooks",
    "torque_hooks",
    "outside",
    "admin",
]
VALUE = "…"
"""What stands for a value, in the page and in a message of the code."""
LEVELS = {"warning", "error", "exception", "critical"}
KINDS = {kind.__name__ for kind in UdiError.__subclasses__() if kind.owner != "user" and kind is not ConfigError}
"""Errors of the user and of the configuration say themselves what to do: the page has them as two groups."""

Message = tuple[str, str]
"""The text, and where it is made."""


def messages() -> Iterator[Message]:
    """All of them."""
    yield from of_python(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))
    for path in sorted(ROOT.glob("[a-z]*/**/*.j2")):
        yield from _placed(path, of_shell(path.read_text()))
    for path in sorted((ROOT / "slurm").glob("*.c")):
        yield from _placed(path, of_plugin(path.read_text()))


def _placed(path: Path, texts: Iterator[str]) -> Iterator[Message]:
    for text in texts:
        if _says_something(text):
            yield text, str(path.relative_to(ROOT))


def _says_something(text: str) -> bool:
    return re.search("[a-zA-Z]", text) is not None


# Python


def of_python(paths: Iterator[Path]) -> Iterator[Message]:
    """Errors that are not the user's, what is logged as a warning or worse, and what a template is given to say."""
    nodes = [(node, path) for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    kinds = set(KINDS)
    for node, _ in 2 * nodes:
        if isinstance(node, ast.ClassDef) and any(
            isinstance(base, ast.Name) and base.id in kinds for base in node.bases
        ):
            kinds.add(node.name)
    for node, path in nodes:
        if isinstance(node, ast.Call) and node.args:
            is_error = isinstance(node.func, ast.Name) and node.func.id in kinds
            if (is_error or _is_log(node)) and _says_something(text := _text_of(node.args[0])):
                yield text, f"{path.relative_to(ROOT)}:{node.lineno}"
        elif isinstance(node, ast.Assign) and _says_something(text := _text_of(node.value)) and "[site error" in text:
            yield text, f"{path.relative_to(ROOT)}:{node.lineno}"


def _text_of(node: ast.expr) -> str:
    """A message as the code has it, with a mark for each value; of what is no text, one mark."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[sdr]", VALUE, node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text_of(node.left) + _text_of(node.right)
    return VALUE


def _is_log(call: ast.Call) -> bool:
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr in LEVELS
        and isinstance(function.value, ast.Name)
        and function.value.id in ("log", "_log")
    )


# Templates of shell programs

_QUOTED = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*')"""
_WORDS = rf"{_QUOTED}+(?:[ ]+{_QUOTED}+)*"
_SAID = re.compile(
    rf"(?<![\w-])(?:report|give_up|echo)[ ]+({_WORDS})"  # functions of ours, and echo
    rf"""|(?<![\w-])[a-z]+=({_QUOTED})"""  # parts of what is said later: those with a blank
    r'''|(?:os\.write\(2, |sys\.stderr\.write\()f?"((?:[^"\\]|\\.)*)"'''  # Python within a shell program
)
_EXPANDED = re.compile(r"\$\(\(.*?\)\)|\$\(.*?\)|\$\{[^}]*\}|\$\w+|\$[?#*@]")
_DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")


def of_shell(template: str) -> Iterator[str]:
    """What the program of a template says on standard error, in a log, or to NHC, as far as it says it in words."""
    text = re.sub(r"\{\{.*?\}\}", VALUE, re.sub(r"\{%.*?%\}", "", template))
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")).replace("\\\n", " ")
    for said in _SAID.finditer(text):
        if said[3] is not None:
            yield re.sub(r"\{\w+\}", VALUE, said[3].removesuffix("\\n"))
            continue
        words = said[1] or said[2]
        if said[2] and " " not in _without_quotes(words):
            continue
        for default in _DEFAULT.findall(words):
            yield _EXPANDED.sub(VALUE, default)
        yield _without_quotes(words)


def _without_quotes(words: str) -> str:
    """The words as `echo` prints them."""

    def content(quoted: re.Match[str]) -> str:
        inner = quoted[0][1:-1]
        return inner if quoted[0][0] == "'" else _EXPANDED.sub(VALUE, inner)

    return " ".join(re.sub(_QUOTED, content, word) for word in re.findall(f"{_QUOTED}+", words))


# The SPANK plugin

SAYING = ("give_up", "refuse", "because", "slurm_error", "dprintf")
"""The functions by which the plugin says something."""
_LITERAL = r'(?:"(?:[^"\\]|\\.)*"\s*|SITE_FAULT\s*)+'
_OF_PLUGIN = re.compile(rf"(?:\b(?:{'|'.join(SAYING)})\((?:2,)?\s*|\breturn\s+|\.why = )({_LITERAL})")


def of_plugin(source: str) -> Iterator[str]:
    """What the plugin says, without the `udi: ` before it and without its last words, which say whose fault it is."""
    for said in _OF_PLUGIN.finditer(source):
        text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', said[1]))
        yield re.sub("%[su]", VALUE, text.removesuffix("\\n").removeprefix("udi: "))
