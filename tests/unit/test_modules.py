"""Kernel modules at the boundary of system calls: which are made, in which order, with what.

A test machine's kernel may be one without modules, so none is ever loaded here; tests/node runs set-up and teardown
against a simulated table of modules.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from udiroot import kernel, modules, smallfile
from udiroot.errors import SetupFailed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The contents of /proc/modules and /proc/filesystems."""
    contents = {"/proc/modules": "", "/proc/filesystems": "nodev\tproc\n\text4\n"}

    def read(path: str) -> bytes:
        if path not in contents:
            raise FileNotFoundError(path)
        return contents[path].encode()

    monkeypatch.setattr(smallfile, "read", read)
    return contents


def test_absent_are_those_neither_loaded_nor_built_in(table: dict[str, str]) -> None:
    table["/proc/modules"] = "loop 36864 4 - Live 0x0\nzlib_inflate 20480 0 - Live 0x0\n"
    paths = ("/m/zlib-inflate.ko", "/m/drivers/loop.ko", "/m/fs/ext4.ko", "/m/fs/squash-fs.ko.xz", "/m/none.ko")
    assert modules.absent(paths) == ("/m/fs/squash-fs.ko.xz", "/m/none.ko")


def test_a_kernel_without_modules_has_what_it_has(table: dict[str, str]) -> None:
    del table["/proc/modules"]
    assert modules.absent(("/m/squashfs.ko",)) == ()
    modules.unload(("/m/squashfs.ko",))


def test_unload_in_reverse_and_only_what_is_loaded(table: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    table["/proc/modules"] = "b 1 0 - Live 0x0\na 1 1 b, Live 0x0\n"
    gone: list[str] = []
    monkeypatch.setattr(kernel, "delete_module", gone.append)
    modules.unload(("/m/a.ko", "/m/b.ko", "/m/c.ko"))
    assert gone == ["b", "a"]
    assert modules.unused(("/m/a.ko", "/m/b.ko", "/m/c.ko")) == ["b"]


def test_a_file_that_others_may_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(kernel, "load_module", lambda descriptor, path: loaded.append(path))
    path = tmp_path / "x.ko"
    path.write_text("")
    path.chmod(0o666)
    for wrong in (path, tmp_path):
        with pytest.raises(SetupFailed, match="must be a regular file that is owned by root"):
            modules.load((str(wrong),))
    with pytest.raises(SetupFailed, match="No such file"):
        modules.load((str(tmp_path / "none.ko"),))
    assert loaded == []


def test_the_system_calls_that_are_made(tmp_path: Path) -> None:
    """finit_module, init_module where the kernel has not got that, and delete_module without waiting."""
    if not shutil.which("strace"):
        pytest.skip("needs strace, which make setup installs")
    (tmp_path / "x.ko").write_text("not a module")
    script = (
        "import os; from udiroot import kernel\n"
        f"descriptor = os.open({str(tmp_path / 'x.ko')!r}, os.O_RDONLY)\n"
        "for step in (lambda: kernel.load_module(descriptor, 'x'), lambda: kernel.delete_module('udi_none')):\n"
        "    try:\n        step()\n    except OSError:\n        continue\n"
    )
    calls = "trace=finit_module,init_module,delete_module"
    done = subprocess.run(
        ["strace", "-e", calls, sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [line.partition(" = ") for line in done.stderr.splitlines() if "module(" in line]
    assert [line[0].rstrip() for line in lines if not line[0].startswith("init_")] == [
        'finit_module(3, "", 0)',
        'delete_module("udi_none", O_NONBLOCK)',
    ]
    tried_again = [line[0].rstrip() for line in lines if line[0].startswith("init_module(")]
    if "ENOSYS" in lines[0][2]:
        assert tried_again[0].endswith(', 12, "")')
    else:
        assert tried_again == []
