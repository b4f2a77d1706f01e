"""The node software as one zip: what it holds, and what a node therefore need not look up."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from udi import nodezip
from udi.config import parse

_WHERE = """
import json
from udiroot import rights
import ctypes, struct, types
names = ("struct", "types", "ctypes", "ctypes._endian", "udiroot.rights")
print(json.dumps({name: type(sys.modules[name].__spec__.loader).__name__ for name in names}))
class Pair(ctypes.BigEndianStructure):
    _fields_ = [("first", ctypes.c_uint16), ("second", ctypes.c_uint16)]
assert bytes(Pair(1, 2)) == struct.pack(">2H", 1, 2)
assert ctypes.CDLL(None).getpid() > 0
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zip") / "udi.zip"
    nodezip.build(parse('[store]\npath = "/lus/udi"\n', "udi.toml"), str(path))
    return path


def test_what_all_steps_import_comes_out_of_the_zip(archive: Path) -> None:
    start = f"import sys; sys.path.insert(0, {str(archive)!r}); import bundle; bundle.install({str(archive)!r})"
    argv = ["/usr/bin/python3", "-I", "-S", "-c", f"{start}\n{_WHERE}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == dict.fromkeys(
        ("struct", "types", "ctypes", "ctypes._endian", "udiroot.rights"), "Bundle"
    )


def test_the_steps_import_nothing_else_of_the_library_but_compiled_modules(archive: Path) -> None:
    """Each one more would cost every node some five operations on the shared root."""
    start = f"import sys; sys.path.insert(0, {str(archive)!r}); import bundle; bundle.install({str(archive)!r})"
    listed = (
        "before = set(sys.modules); from udiroot.commands import main; import udiroot.setup, udiroot.teardown\n"
        "loaders = {name: type(sys.modules[name].__spec__.loader).__name__ for name in set(sys.modules) - before}\n"
        "print([name for name, loader in loaders.items() if loader == 'SourceFileLoader'])"
    )
    argv = ["/usr/bin/python3", "-I", "-S", "-c", f"{start}\n{listed}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_zip_is_the_same_each_time(archive: Path, tmp_path: Path) -> None:
    nodezip.build(parse('[store]\npath = "/lus/udi"\n', "udi.toml"), str(tmp_path / "again.zip"))
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
