"""Tables of documents whose last column names tests, by file and function: their rows, and tests that are not there."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows(document: str) -> list[list[str]]:
    """The cells of each row of the tables that have a last column `test`."""
    found, has_tests = [], False
    for line in (ROOT / "docs" / document).read_text().splitlines():
        if not line.startswith("|"):
            has_tests = False
        elif line.endswith("| test |"):
            has_tests = True
        elif has_tests and not line.startswith("| ---"):
            found.append([cell.strip() for cell in line[1:-1].split("|")])
    return found


def tests(cell: str) -> list[tuple[str, str]]:
    """The tests that a cell names: each one's file, below `tests/`, and function."""
    return _TEST.findall(cell)


def missing(cell: str) -> list[str]:
    """Those that are not there, or that neither a plain run of pytest nor a target of the Makefile runs."""
    targets = (ROOT / "Makefile").read_text()
    return [
        f"{path}::{name}"
        for path, name in tests(cell)
        if name not in _functions(path) or not (Path(path).name.startswith("test_") or f"tests/{path}" in targets)
    ]


@functools.cache
def _functions(path: str) -> frozenset[str]:
    file = ROOT / "tests" / path
    tree = ast.parse(file.read_text() if file.is_file() else "")
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))
