"""docs/operations.md has a row for each message for the site or a node to act on, and none of one that is gone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from udiroot.errors import ConfigError, UdiError

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/operations.md"
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
]
ROOMS += ["admin"]
VALUE = "…"
"""What stands for a value, in the page and in a message of the code."""
LEVELS = {"warning", "error", "exception", "critical"}
KINDS = {kind.__name__ for kind in UdiError.__subclasses__() if kind.owner != "user" and kind is not ConfigError}
"""Errors of the user and of the configuration say themselves what to do: the page has them as two groups."""


def text_of(node: ast.expr) -> str:
    """A message as the code has it, with a mark for each value; of what is no text, one mark."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[sdr]", VALUE, node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return VALUE


def is_log(call: ast.Call) -> bool:
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr in LEVELS
        and isinstance(function.value, ast.Name)
        and function.value.id in ("log", "_log")
    )


def messages() -> Iterator[tuple[str, str]]:
    """Each message, and where it is made. One that is nothing but values passes on another message."""
    paths = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
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
            if (is_error or is_log(node)) and re.search("[a-zA-Z]", text := text_of(node.args[0])):
                yield text, f"{path.relative_to(ROOT)}:{node.lineno}"


def patterns() -> list[str]:
    """The code spans in the first column of the tables of messages."""
    rows = [
        row for table in PAGE.read_text().split("| message |")[1:] for row in table.splitlines() if row[:3] == "| `"
    ]
    return [span for row in rows for span in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


def covers(pattern: str, message: str) -> bool:
    parts = [re.escape(part) for part in pattern.split(VALUE)]
    return re.fullmatch(".*".join(parts), message, re.DOTALL) is not None


def test_every_message_has_a_row() -> None:
    known = patterns()
    missing = {text: where for text, where in messages() if not any(covers(each, text) for each in known)}
    told = "\n".join(f"  {where}: {text}" for text, where in missing.items())
    assert not missing, f"docs/operations.md has no row for these; say there what they mean and what to do:\n{told}"


def test_no_row_is_of_a_message_that_is_gone() -> None:
    texts = {text for text, _ in messages()}
    gone = [each for each in patterns() if not any(covers(each, text) for text in texts)]
    assert not gone, f"docs/operations.md explains what no program says: {gone}"


def test_a_row_says_what_it_means_and_what_to_do() -> None:
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
            assert len(cells) == 3 and all(cells), line


@pytest.mark.parametrize(
    ("pattern", "message", "expected"),
    [
        ("setup on …: …", "setup on …: …", True),
        ("plan: …", "plan: line … is invalid", True),
        ("plan: …", "the plan: x", False),
        ("…", "x", True),
    ],
)
def test_what_a_pattern_covers(pattern: str, message: str, expected: bool) -> None:
    assert covers(pattern, message) == expected


NOT_OURS = {"torque.mom_priv", "torque.server_home", "slurm.spool"}
"""Directories of the workload manager's own, with files of ours that are installed, or with none."""


def test_every_place_that_something_is_left_in_says_who_removes_it() -> None:
    """Those are the directories below /var and /run, and the three whose place only a site knows."""
    places, table = {"store.path", "gateway.spool", "metrics.directory"}, ""
    for line in (ROOT / "docs/udi.toml.example").read_text().splitlines():
        if line.startswith("["):
            table = line.strip("[]")
        elif match := re.match(r'#? ?(\w+) = "(?:/var|/run)/', line):
            places.add(f"{table}.{match[1]}")
    text = PAGE.read_text().partition("\n## What is removed, by whom, and when\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(places) > 12
    assert sorted(places - NOT_OURS - set(re.findall(r"`([a-z]+\.\w+)`", text))) == []
    assert all((who.strip() and when.strip()) or who.strip().startswith("nobody: ") for _, who, when, _ in rows)
