"""The rooms of docs/design.md: each imports only what it may, there is no circle, and the node side stays light.

Imports inside functions and under TYPE_CHECKING count, and so do names of modules in strings: a room that is free of
workload managers and machines must not reach one by `importlib` or a rendered program either.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE = {"udiroot", "udi"}
GATEWAY = [
    "gateway.image",
    "gateway.disks",
    "gateway.store",
    "gateway.sources",
    "gateway.audit",
    "gateway.wire",
    "gateway.client",
    "gateway.service",
]
BELOW_ADMIN = {*BASE, "alps", "clusters", *GATEWAY, "nodehealth", "jobs", "torque_hooks", "slurm_hooks", "outside"}
ADMIN: dict[str, set[str]] = {
    "admin.console": BASE,
    "admin.install": BASE,
    "admin.checks": {*BELOW_ADMIN, "admin.console", "admin.install"},
    "admin.seams": {*BELOW_ADMIN, "admin.install", "admin.checks"},
    "admin.entry": {*BASE, "torque_hooks", "slurm_hooks", "admin.seams"},
    "admin.sitefiles": {*BELOW_ADMIN, "manual", "templates", "admin.seams"},
    **{room: {*BELOW_ADMIN, "admin.console", "admin.seams"} for room in ("admin.job", "admin.status", "admin.trial")},
}
MAY_IMPORT: dict[str, set[str]] = {
    "udiroot": set(),
    "udi": {"udiroot", "templates"},
    "alps": BASE,
    "clusters": BASE,
    **{room: {*BASE, *GATEWAY[:number]} for number, room in enumerate(GATEWAY)},
    "nodehealth": BASE,
    "jobs": {*BASE, "nodehealth"},
    "manual": BASE,
    "torque_hooks": {*BASE, "jobs", "gateway.wire", "gateway.client"},
    "slurm_hooks": {*BASE, "jobs", "gateway.wire", "gateway.client"},
    "outside": {*BASE, "jobs", *GATEWAY[:-1], "torque_hooks", "slurm_hooks"},
    **ADMIN,
    "admin": {*BELOW_ADMIN, *ADMIN},
}
"""Room → the other rooms that it may import; `xcsim`, `benchmarks` and `tests` see all, and nothing sees them."""
SEEING_ALL = ("xcsim", "slurmsim", "benchmarks", "tests")
ROOMS = (*MAY_IMPORT, "xcsim")
TOP = {room.split(".")[0] for room in (*ROOMS, *SEEING_ALL)}
FREE = ("udi", "jobs", "nodehealth")
"""Rooms that name no workload manager and no machine, in strings neither."""
NAMED = re.compile(r"(?:alps|clusters|torque_hooks|slurm_hooks)(?:[.:]\w+)*")
NODE_SIDE = [
    *sorted((ROOT / "udiroot").glob("*.py")),
    *(ROOT / f"nodehealth/{name}.py" for name in ("autoload", "check", "probe")),
]
HEAVY = {
    "argparse", "collections", "contextlib", "dataclasses", "enum", "functools", "hashlib", "json", "logging",
    "pathlib", "re", "shutil", "signal", "subprocess", "tempfile", "traceback", "typing",
}  # fmt: skip


def _imports(tree: ast.Module, where: str) -> set[str]:
    """Every module that a file imports, wherever in it: at the top, in a function, under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _docstrings(tree: ast.Module) -> set[int]:
    """The strings that stand alone: docstrings of modules, classes, functions and of values."""
    alone = (node.value for node in ast.walk(tree) if isinstance(node, ast.Expr))
    return {id(value) for value in alone if isinstance(value, ast.Constant)}


def _strings(tree: ast.Module) -> set[str]:
    passed_over = _docstrings(tree)
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in passed_over)
    return {node.value for node in constants if isinstance(node.value, str)}


def _room_of(module: str) -> str | None:
    """The room that a module is in; None for what is not ours, or a package above several rooms."""
    fits = [room for room in (*ROOMS, *SEEING_ALL, "templates") if module == room or module.startswith(room + ".")]
    return max(fits, key=len) if fits else None


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _files(room: str) -> list[Path]:
    """Those of a room, without the rooms that are inside it."""
    files = sorted((ROOT / room.replace(".", "/")).rglob("*.py"))
    return [path for path in files if _room_of(_module(path)) == room]


def _wrong(tree: ast.Module, room: str, where: str) -> set[str]:
    """What a file of `room` names that it may not: imports, and in free rooms module names in strings."""
    rooms = {name: _room_of(name) for name in _imports(tree, where)}
    wrong = {name for name, other in rooms.items() if other not in (None, room, *MAY_IMPORT[room])}
    if room in FREE:
        wrong |= {text for text in _strings(tree) if NAMED.fullmatch(text.strip())}
    return wrong


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_names_only_what_it_may(room: str) -> None:
    files = _files(room)
    assert files, f"room {room} is empty"
    for path in files:
        where = str(path.relative_to(ROOT))
        wrong = _wrong(ast.parse(path.read_text()), room, where)
        assert not wrong, f"{where} names {sorted(wrong)}"


@pytest.mark.parametrize(
    ("room", "text"),
    [
        ("jobs", "def f():\n    from alps.machine import Alps"),
        ("jobs", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torque_hooks.qstat"),
        ("udi", "PROGRAMS = {'x': 'torque_hooks.submit_filter'}"),
        ("nodehealth", "MACHINE = 'alps'"),
        ("torque_hooks", "from alps import machine"),
        ("gateway.wire", "from gateway.service import server"),
        ("gateway.client", "from gateway.service.history import History"),
        ("clusters", "import alps"),
        ("admin.install", "from admin.seams.managers import manager_of"),
        ("admin.job", "from admin.status.status import read_status"),
    ],
)
def test_what_is_forbidden_is_seen(room: str, text: str) -> None:
    assert _wrong(ast.parse(text), room, "example")


def test_every_package_is_in_a_room() -> None:
    patterns = ("*", "gateway/*", "admin/*")
    packages = {path.parent for pattern in patterns for path in ROOT.glob(f"{pattern}/__init__.py")}
    names = {".".join(path.relative_to(ROOT).parts) for path in packages}
    assert names - {"gateway", "templates"} == {*ROOMS, *SEEING_ALL}


@pytest.mark.parametrize("room", [*MAY_IMPORT, "xcsim"])
def test_no_circle_among_the_files_of_a_room(room: str) -> None:
    """Imports inside functions count too, but for those of `__init__` files by their own modules."""
    files = {_module(path): path for path in _files(room)}
    graph = {}
    for name, path in files.items():
        imported = _imports(ast.parse(path.read_text()), str(path))
        graph[name] = {other for other in imported if other in files and other != name}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join((*trail, name))}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", NODE_SIDE, ids=lambda path: path.name)
def test_the_node_side_imports_the_standard_library_and_itself(path: Path) -> None:
    imported = _imports(ast.parse(path.read_text()), path.name)
    foreign = {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names) - {"udiroot", "nodehealth"}
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
