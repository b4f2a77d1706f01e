"""The node software as one precompiled zip.

A node imports from a parallel file system, where each path that is looked up is a round trip; from a zip it opens one
file. It holds compiled files alone, made by the Python that nodes run (another version would refuse them), which spares
a node the compiling: a zip of sources takes twice the time of one of compiled files.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import zipfile
from pathlib import Path

from udi.command import run
from udi.config import SiteConfig
from udiroot.errors import ConfigError

_MODULES = {"udiroot": None, "nodehealth": ("__init__.py", "check.py")}
"""Packages of the zip: all their files, or those named."""

_COMPILE = """
import py_compile, sys
source, target, name = sys.argv[1:]
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
py_compile.compile(source, cfile=target, dfile=name, doraise=True, optimize=2, invalidation_mode=mode)
"""
_SECONDS = 60


def build(site: SiteConfig, path: str) -> None:
    """Compile the node side with `install.python` and put the zip at `path`, whole or not at all.

    Raises ConfigError when a package is not installed, UpstreamFailed when that Python cannot compile it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".udi-zip-") as folder:
        unfinished = Path(folder) / "udi.zip"
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
            for name, source in sorted(_sources().items()):
                compiled = Path(folder) / "module.pyc"
                argv = [site.install.python, "-I", "-S", "-c", _COMPILE, str(source), str(compiled), name]
                run(argv, seconds=_SECONDS).require_success()
                archive.writestr(zipfile.ZipInfo(name + "c", (1980, 1, 1, 0, 0, 0)), compiled.read_bytes())
        unfinished.chmod(0o644)
        os.replace(unfinished, target)


def _sources() -> dict[str, Path]:
    """Name in the zip (with `.py`) → source file."""
    found: dict[str, Path] = {}
    for package, names in _MODULES.items():
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(f"package {package} is not installed")
        folder = Path(spec.submodule_search_locations[0])
        files = [folder / name for name in names] if names else sorted(folder.glob("*.py"))
        found |= {f"{package}/{file.name}": file for file in files}
    return found
