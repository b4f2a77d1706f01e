"""The node software as one precompiled zip.

A node imports from a parallel file system, where each path that is looked up is a round trip. The zip holds the
compiled code of all modules as one table, `bundle`, which imports from it, and the programs that set-up writes into
roots. Modules are compiled by the Python that nodes run, since another version would refuse them.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from udi import durable
from udi.command import run
from udi.config import SiteConfig
from udi.interpreters import ENTRY, own, python_in
from udi.nodestart import START
from udiroot import bundle
from udiroot.errors import ConfigError

_MODULES = {"udiroot": None, "nodehealth": ("__init__.py", "autoload.py", "check.py", "probe.py")}
"""Packages of the zip: all their files, or those named."""
_STANDARD = ("struct", "types", "ctypes", "ctypes._endian")
"""Modules of Python's own library that all steps import: out of the zip, they cost a node no look-up of their own. They
are those of the Python that nodes run."""

_COMPILE = """
import importlib.util, json, marshal, py_compile, sys
order = json.load(sys.stdin)
table = {}
for name in order["standard"]:
    spec = importlib.util.find_spec(name)
    if spec and spec.origin and spec.origin.endswith(".py"):
        order["modules"][name] = spec.submodule_search_locations is not None, spec.origin
for name, (package, path) in order["modules"].items():
    with open(path, "rb") as stream:
        code = compile(stream.read(), name, "exec", dont_inherit=True, optimize=2)
        table[name] = package, marshal.dumps(code)
with open(order["table"], "wb") as stream:
    marshal.dump(table, stream)
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
start, target = order["start"], order["start_to"]
py_compile.compile(start, cfile=target, dfile="bundle", doraise=True, optimize=2, invalidation_mode=mode)
"""
_SECONDS = 60


def build(site: SiteConfig, path: str, programs: Mapping[str, bytes] | None = None) -> None:
    """Compile the node side with `install.python`, or where that is an interpreter of a bundle with our own version of
    it, and put the zip at `path` atomically, with `programs` by their names.

    Raises ConfigError when a package is not installed, UpstreamFailed when that Python cannot compile it.
    """
    target, version = Path(path), own(site)
    python = python_in(site, version) if version else site.install.python
    durable.make_public_directory(str(target.parent))
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".udi-zip-") as directory:
        table, start, unfinished = (Path(directory) / name for name in ("table", "start", "udi.zip"))
        order = {
            "modules": _modules(),
            "standard": _STANDARD,
            "table": str(table),
            "start": str(Path(bundle.__file__ or "")),
            "start_to": str(start),
        }
        words = [python, "-I", "-S", "-c", _COMPILE]
        run(words, seconds=_SECONDS, stdin=json.dumps(order).encode()).require_success()
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
            entries = {ENTRY: version.encode()} if version else {}
            entries |= {f"{START}.pyc": start.read_bytes(), bundle.TABLE: table.read_bytes()}
            entries |= {bundle.PROGRAMS + name: content for name, content in (programs or {}).items()}
            for name, content in entries.items():
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
        durable.write(path, unfinished.read_bytes(), mode=0o644)


def _modules() -> dict[str, tuple[bool, str]]:
    """Module name → (whether it is a package, its source file)."""
    found: dict[str, tuple[bool, str]] = {}
    for package, names in _MODULES.items():
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(f"package {package} is not installed")
        directory = Path(spec.submodule_search_locations[0])
        for file in [directory / name for name in names] if names else sorted(directory.glob("*.py")):
            is_package = file.stem == "__init__"
            found[package if is_package else f"{package}.{file.stem}"] = is_package, str(file)
    return found
