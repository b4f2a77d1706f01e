"""The site's files as they are rendered."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from admin.seams.machines import machine_of
from admin.sitefiles.all_files import site_files
from tests.unit.cray_standins import StandIns
from tests.unit.rendered_site import files_of, find, rendered, sh
from udi.sitefiles import is_ours, marked


@pytest.fixture
def cray(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path)


PLAIN = {"PATH": "/usr/bin:/bin"}


def test_every_shell_file_is_valid_and_quoted(cray: StandIns) -> None:
    odd = "/odd $(touch owned) 'quoted'"
    site = dataclasses.replace(
        cray.site,
        other_tables={"torque": {"qstat": "/odd $(touch owned) 'quoted'"}},
        jobs=dataclasses.replace(cray.site.jobs, state=odd),
        node=dataclasses.replace(cray.site.node, root=odd, run=odd),
    )
    directory = rendered(cray, site)
    scripts = [
        p for p in directory.rglob("*") if p.is_file() and (p.read_text().startswith("#!/bin/sh") or p.suffix == ".sh")
    ]
    assert len(scripts) == 9
    for path in scripts:
        assert sh("/bin/sh", "-n", path) == (0, ""), path
    assert sh("/bin/sh", find(directory, "epilogue"), "1.vm") == (0, "")
    assert not (Path.cwd() / "owned").exists()


def test_shellcheck_is_content(cray: StandIns) -> None:
    found = shutil.which("shellcheck")
    if not found:
        pytest.skip("needs shellcheck")
    for path in rendered(cray).rglob("*"):
        if path.is_file() and (path.read_text().startswith("#!/bin/sh") or path.suffix == ".sh"):
            assert sh(found, "-s", "sh", path) == (0, ""), path


def test_modes(cray: StandIns) -> None:
    directory = rendered(cray)
    modes = {name: find(directory, name).stat().st_mode & 0o7777 for name in ("prologue", "epilogue", "udi", "udi.sh")}
    assert modes == {"prologue": 0o555, "epilogue": 0o555, "udi": 0o755, "udi.sh": 0o644}


def test_profile(cray: StandIns) -> None:
    snippet = find(rendered(cray), "udi.sh")
    for value, root in (("debian:12", "UDI"), ("", "DSL")):
        line = f'set -eu; . {snippet}; echo "$CRAY_ROOTFS"'
        assert sh("/bin/sh", "-c", line, UDI=value, CRAY_ROOTFS="DSL") == (0, f"{root}\n")
    assert sh("/bin/sh", "-c", f"set -eu; . {snippet}; env | grep -c CRAY_ROOTFS") == (1, "0\n")
    csh = shutil.which("tcsh") or shutil.which("csh")
    if csh:
        line = f"source {find(rendered(cray), 'udi.csh')}; echo $CRAY_ROOTFS"
        assert sh(csh, "-f", "-c", line, UDI='a" b', CRAY_ROOTFS="DSL") == (0, "UDI\n")


def test_a_relative_configuration_is_made_absolute(cray: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cray.directory)
    for file in site_files(cray.site, machine_of(cray.site), "udi.toml"):
        assert "--config udi.toml" not in file.text
        assert "--config" not in file.text or f"--config {cray.config_path}" in file.text


def test_every_complete_file_is_recognized(cray: StandIns) -> None:
    for file in files_of(cray):
        if file.kind == "complete":
            assert is_ours(marked(file.text)) and not is_ours(file.text)
            assert marked(file.text).startswith("#!") == file.text.startswith("#!")


def test_an_interrupt_while_a_program_loads_is_no_traceback(cray: StandIns) -> None:
    script = find(rendered(cray), "udi-admin")
    raised = "import os; os.kill(os.getpid(), signal.SIGINT)\nfrom admin.cli"
    text = script.read_text()
    assert "from admin.cli" in text
    script.write_text(text.replace("from admin.cli", raised))
    done = subprocess.run([script, "--version"], capture_output=True, env=PLAIN, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")
    script.write_text(text)
    assert subprocess.run([script, "--version"], capture_output=True, env=PLAIN, check=False).returncode == 0
