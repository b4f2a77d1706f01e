"""What `udi-admin check-config` can say, as the code of `admin.checks` has it: each check, and its levels."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from gateway.image.formats.squashfs import packers
from udi.gatewayconfig import GatewayConfig

ROOT = Path(__file__).resolve().parents[2]
Pair = tuple[str, str]
"""The name of a check, and a level other than ok."""
LEVELS = {"wrong": "error", "of_error": "error", "raised": "error", "warning": "warning"}
"""Functions of `admin.checks.check`, and the level of what they make."""


class Module:
    """One module of `admin.checks`: its functions and methods, and the checks that it makes."""

    def __init__(self, path: Path) -> None:
        self.tree = ast.parse(path.read_text())
        self.functions = {node.name: node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)}
        imports = [node for node in self.tree.body if isinstance(node, ast.ImportFrom)]
        self._others = {
            name.name for each in imports if (each.module or "").startswith("admin.checks.") for name in each.names
        }

    def levels(self, node: ast.AST, shared: dict[str, set[str]], seen: frozenset[str] = frozenset()) -> set[str]:
        """The levels of all findings that are made in a piece of code, and in what it calls of this module."""
        found: set[str] = set()
        for name in _called(node):
            if name in LEVELS:
                found.add(LEVELS[name])
            elif name in self.functions and name not in seen:
                found |= self.levels(self.functions[name], shared, seen | {name})
            elif name in self._others:
                found |= shared.get(name, set())
        return found

    def checks(self) -> Iterator[tuple[str, ast.expr]]:
        """Each check that has its name in the code, and what makes its findings."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                match node.func.id, node.args:
                    case "Check", [ast.Constant(value=str(name)), _, look]:
                        yield name, look
                    case "_grouped", [ast.Constant(value=str(name)), findings]:
                        yield name, findings
        if judges := self.functions.get("_judges"):
            for node in ast.walk(judges):
                if isinstance(node, ast.Dict):
                    yield from ((key.value, value) for key, value in zip(node.keys, node.values, strict=True))  # type: ignore[union-attr]

    def versions(self) -> Iterator[str]:
        """Keys of programs that are asked for their versions."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Asked":
                match node.args[0]:
                    case ast.Constant(value=str(key)):
                        yield key
                    case ast.JoinedStr(values=[*_, ast.Constant(value=str(end))]):
                        yield end
                    case ast.Name():  # each packer of squashfs
                        yield from packers(GatewayConfig(compression="lz4"))


def _called(node: ast.AST) -> Iterator[str]:
    """Names of functions, and of methods of the module's own classes."""
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id
        elif (
            isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id in ("self", "setup")
        ):
            yield each.attr


def can_be_said() -> set[Pair]:
    """Each check with each level other than ok that its findings can have."""
    modules = [Module(path) for path in sorted((ROOT / "admin/checks").glob("*.py")) if path.name != "check.py"]
    public = {
        name: module.levels(node, {})
        for module in modules
        for name, node in module.functions.items()
        if not name.startswith("_")
    }
    shared = {name: levels for name, levels in public.items() if name not in ("checks", "trials")}
    found = {
        (name, level) for module in modules for name, look in module.checks() for level in module.levels(look, shared)
    }
    keys = {key for module in modules for key in module.versions()}
    return found | {(f"version.{key.rpartition('.')[2]}", level) for key in keys for level in ("warning", "error")}


def names_of_checks() -> set[str]:
    """Those of all checks but `configuration`, which has the errors of the file itself."""
    return {name for name, _ in can_be_said()}
