"""The installed wrappers: what costs a job without image no Python, and what happens where Python cannot be started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from jobs.notes import Notes
from slurm_hooks.site_files import site_files, slurm_conf
from udi.config import SiteConfig, parse
from udi.sitefiles import Renderer

_JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_UID": "1001", "SLURM_JOB_RESTART_COUNT": "2", "SLURMD_NODENAME": "n1"}
_SQUEUE = "#!/bin/sh\necho '8|7_1|'\necho '7|7_2|'\n"


class Wrappers:
    """The wrappers of a site in a directory, with a Python that only says that it was started."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.notes = Notes(str(directory / "it's notes"))
        for name, text in (
            ("python", "#!/bin/sh\necho started\n"),
            ("squeue", _SQUEUE),
            ("scontrol", f'#!/bin/sh\necho "$*" >>{directory}/calls\n'),
        ):
            (directory / name).write_text(text)
            (directory / name).chmod(0o755)
        text = f"""
            [store]
            path = "/lus/udi"
            [node]
            run = "{directory}/run"
            [install]
            bin = "{directory}/bin"
            [slurm]
            notes = "{self.notes.path}"
            squeue = "{directory}/squeue"
            scontrol = "{directory}/scontrol"
        """
        self.site: SiteConfig = parse(text, "udi.toml")
        (directory / "bin").mkdir()
        for file in site_files(self.site, Renderer(self.site, "/etc/udi/udi.toml")):
            if file.kind == "complete":
                path = Path(file.path)
                path.write_text(file.text.replace(sys.executable, str(directory / "python")))
                path.chmod(file.mode)

    def run(self, name: str, environment: Mapping[str, str] = _JOB, **more: str) -> tuple[int, str]:
        path = self._directory / f"bin/udi-slurm-{name}"
        done = subprocess.run([path], env={**environment, **more}, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    def without_python(self, text: str = "") -> None:
        (self._directory / "python").unlink()
        if text:
            (self._directory / "python").write_text(text)
            (self._directory / "python").chmod(0o755)

    def leave(self, name: str) -> None:
        path = self._directory / name
        path.parent.mkdir(exist_ok=True)
        path.touch()

    def calls(self) -> str:
        path = self._directory / "calls"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def wrappers(tmp_path: Path) -> Wrappers:
    return Wrappers(tmp_path)


def test_a_job_without_image_starts_no_python(wrappers: Wrappers) -> None:
    for name in ("prolog", "epilog", "health"):
        assert wrappers.run(name) == (0, "")
        assert wrappers.run(name, {}) == (0, "")
    assert wrappers.run("prolog", SPANK_UDI_IMAGE="") == (0, "")


def test_a_job_with_an_image_does(wrappers: Wrappers) -> None:
    assert wrappers.run("prolog", SPANK_UDI_IMAGE="debian") == (0, "started\n")


@pytest.mark.parametrize("name", ["it's notes/7", "run/7", "run/7.plan", "run/7.lock"])
def test_what_is_left_is_looked_at(wrappers: Wrappers, name: str) -> None:
    wrappers.leave(name)
    assert wrappers.run("epilog") == wrappers.run("health") == (0, "started\n")
    assert wrappers.run("epilog", SLURM_JOB_ID="8") == (0, "")
    if not name.endswith(".lock"):
        assert wrappers.run("prolog") == (0, "started\n"), "a job of an earlier number left it"


@pytest.mark.parametrize("python", ["", "#!/bin/sh\nexit 75\n"], ids=["none", "without our packages"])
def test_a_program_that_cannot_be_started_lets_no_task_in(wrappers: Wrappers, python: str) -> None:
    wrappers.without_python(python)
    assert wrappers.run("prolog", SPANK_UDI_IMAGE="debian") == (0, "")
    note = wrappers.notes.read("7")
    assert note is not None and (note.state, note.uid, note.start) == ("failed", 1001, 2)
    assert note.why == "shifter-xc cannot be started on this node [site error (not your job's fault)]"
    assert wrappers.calls() == "requeuehold 7_2\n", "of an array, one job"
    assert wrappers.run("prolog") != (1, ""), "a job without image is none of its business"
    assert wrappers.run("epilog")[0] != 0, "slurmd drains the node"


def test_a_heterogeneous_job_is_held_by_its_first_component(wrappers: Wrappers, tmp_path: Path) -> None:
    """Slurm refuses it by any other, and by `6+1`."""
    squeue = next(tmp_path.rglob("squeue"))
    squeue.write_text("#!/bin/sh\necho '6|6+0|'\necho '7|6+1|'\n")
    wrappers.without_python("")
    assert wrappers.run("prolog", SPANK_UDI_IMAGE="debian") == (0, "")
    assert wrappers.calls() == "requeuehold 6\n"


def test_without_a_place_for_the_note_slurmd_drains(wrappers: Wrappers, tmp_path: Path) -> None:
    wrappers.without_python()
    Path(wrappers.notes.path).write_text("in its way")
    assert wrappers.run("prolog", SPANK_UDI_IMAGE="debian")[0] == 1
    assert wrappers.run("prolog", SPANK_UDI_IMAGE="debian", SLURM_JOB_UID="x")[0] == 1


@pytest.mark.parametrize(("name", "code"), [("prolog", 1), ("epilog", 6)])
def test_what_a_program_says_arrives_although_it_ends_at_once(
    wrappers: Wrappers, tmp_path: Path, name: str, code: int
) -> None:
    wrappers.without_python(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    wrappers.leave("run/7")
    argv = [str(tmp_path / f"bin/udi-slurm-{name}")]
    done = subprocess.run(argv, env=_JOB | {"SLURM_JOB_UID": "x"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"udi-slurm-{name}: not a uid in SLURM_JOB_UID: 'x'")
    assert done.stderr.count("\n") == 1


def test_slurm_conf(wrappers: Wrappers) -> None:
    values = slurm_conf(wrappers.site)
    assert values["PrologFlags"] == "Alloc" and values["Prolog"].endswith("/udi-slurm-prolog")
    assert int(values["PrologEpilogTimeout"]) == int(values["BatchStartTimeout"]) == 150 + 20 + 20


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_shellcheck(wrappers: Wrappers, tmp_path: Path) -> None:
    scripts = [str(tmp_path / "bin" / name) for name in os.listdir(tmp_path / "bin")]
    done = subprocess.run(["shellcheck", "-s", "sh", *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
