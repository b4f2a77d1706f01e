"""The installed check that Cray's NHC runs, under each shell that may be there, with each library and each end."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from tests.unit.cray_standins import StandIns
from tests.unit.rendered_site import find, rendered, sh


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path)


PLUGIN = "/opt/cray/nodehealth/default/bin/libplugin.sh"


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash --posix", "busybox sh", "ksh"])
@pytest.mark.parametrize(
    ("library", "program", "code", "words"),
    [
        ("", "echo noise; echo udi: clean", 0, "udi: clean"),
        ("", "echo udi: mounts left; exit 1", 1, "udi: mounts left"),
        ("", "echo broken; exit 77", 1, "broken"),
        ("", "kill -9 $$", 1, "udi: the check exited with 137"),
        ("", "echo ModuleNotFoundError: x; exit 1", 0, "udi: nothing found, but the check could not be started"),
        ("", "exit 127", 0, "udi: nothing found, but the check could not be started"),
        ('log_output() { echo "logged: $1"; }', "echo udi: mounts left; exit 1", 1, "logged: udi: mounts left"),
        ("noise() { :; }; echo noise", "echo udi: clean", 0, "noise\nudi: clean"),
        ("exit 0", "echo udi: mounts left; exit 1", 1, "udi: mounts left"),
        ("if fi (", "echo udi: mounts left; exit 1", 1, "udi: mounts left"),
    ],
)
def test_nodehealth_check(cray: StandIns, shell: str, library: str, program: str, code: int, words: str) -> None:
    interpreter, *options = shell.split()
    found = shutil.which(interpreter)
    if not found:
        pytest.skip(f"no {interpreter} here")
    fake = cray.directory / "python3"
    fake.write_text(f"#!/bin/sh\n{program}\n")
    fake.chmod(0o755)
    plugin = cray.directory / "libplugin.sh"
    if library:
        plugin.write_text(library + "\n")
    site = dataclasses.replace(cray.site, node=dataclasses.replace(cray.site.node, python=(str(fake),)))
    script = find(rendered(cray, site), "nodehealth-check")
    script.write_text(script.read_text().replace(PLUGIN, str(plugin)))
    assert sh(found, *options, script) == (code, f"{words}\n")


def test_nodehealth_check_without_python_still_sees_the_record(cray: StandIns) -> None:
    run = cray.directory / "run udi"
    run.mkdir()
    node = dataclasses.replace(cray.site.node, python=("/no/python",), run=str(run))
    script = find(rendered(cray, dataclasses.replace(cray.site, node=node)), "nodehealth-check")
    assert sh("/bin/sh", script)[0] == 0
    (run / "job").touch()
    code, words = sh("/bin/sh", script)
    assert code == 1 and f"{run}/job is left" in words
