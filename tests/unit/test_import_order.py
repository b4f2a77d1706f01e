"""The rooms of docs/design.md: each imports only rooms above it, there is no circle, and the node side stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("udiroot", "udi", "alps", "gateway", "nodehealth", "jobs", "torque_hooks", "xcsim")
NODE_SIDE = [*sorted((ROOT / "udiroot").glob("*.py")), ROOT / "nodehealth/check.py"]
HEAVY = {
    "argparse", "collections", "contextlib", "dataclasses", "enum", "functools", "hashlib", "json", "logging",
    "pathlib", "re", "shutil", "signal", "subprocess", "tempfile", "traceback", "typing",
}  # fmt: skip


def _imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_above_it(room: str) -> None:
    below = set(ROOMS[ROOMS.index(room) + 1 :]) | {"tests", "benchmarks"}
    for path in (ROOT / room).rglob("*.py"):
        wrong = {name for name in _imports(path) if name.split(".")[0] in below}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("room", ROOMS)
def test_no_circle_among_the_files_of_a_room(room: str) -> None:
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in (ROOT / room).rglob("*.py")}
    graph = {name: {other for other in _top_level_imports(path) if other in files} for name, path in files.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join((*trail, name))}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def _top_level_imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", NODE_SIDE, ids=lambda path: path.name)
def test_the_node_side_imports_the_standard_library_and_itself(path: Path) -> None:
    foreign = {name.split(".")[0] for name in _imports(path)} - set(sys.stdlib_module_names) - {"udiroot", "nodehealth"}
    assert not foreign


@pytest.mark.parametrize("command", ["setup", "teardown"])
def test_what_every_node_imports_is_light(command: str) -> None:
    """Run as a node would: isolated and without `site`. Each module named in HEAVY costs every node milliseconds."""
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import udiroot.commands, udiroot.{command}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"{start}; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert HEAVY.isdisjoint(done.stdout.split())
    assert {"udiroot.ssh", "udiroot.privileges"}.isdisjoint(done.stdout.split())
