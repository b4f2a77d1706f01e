"""The SPANK plugin at submission, and its conversation with `udi-slurm-submit`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.spank import run


class Submit:
    """A stand-in for udi-slurm-submit, whose arguments and environment are seen."""

    def __init__(self, directory: Path) -> None:
        self.program, self.seen = directory / "udi-slurm-submit", directory / "seen"
        self.answers("image debian:12\nid -\nvolumes /a:/b\nmodules mpich\nrun image=x\nend\n")

    def answers(self, text: str, more: str = "") -> None:
        lines = [
            "#!/bin/sh",
            f'printf "%s\\n" "$0" "$@" > {self.seen}',
            f"ls -l /proc/self/fd | grep -v /proc/ | sed 's/.*[0-9] \\([0-9]* -> .*\\)/\\1/' > {self.seen}.fds",
            more,
            f"printf '%s' '{text}'",
        ]
        self.program.write_text("\n".join(lines) + "\n")
        self.program.chmod(0o755)

    def run(
        self, program: str, *options: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        self.seen.unlink(missing_ok=True)
        return run(
            "submit", program, f"submit={self.program}", *options, env={"PATH": os.environ["PATH"], **(env or {})}
        )

    def words(self) -> list[str]:
        return self.seen.read_text().splitlines()[1:] if self.seen.exists() else []


@pytest.fixture
def submit(tmp_path: Path) -> Submit:
    return Submit(tmp_path)


def test_what_prolog_is_told(submit: Submit) -> None:
    done = submit.run("sbatch", "--image=debian:12", "--volume=/a:/b")
    assert (done.returncode, done.stderr) == (0, b"")
    assert submit.words() == ["--image", "debian:12", "--volumes", "/a:/b"]
    assert done.stdout.decode().splitlines() == [
        "UDI_IMAGE=debian:12",
        "UDI_ID=-",
        "UDI_VOLUMES=/a:/b",
        "UDI_MODULES=mpich",
        "UDI_RUN=image=x",
        "UDI_GIVEN_VOLUMES=/a:/b",
        "UDI_GIVEN_MODULES=",
    ]
    open_files = (submit.seen.with_name("seen.fds")).read_text().splitlines()
    assert [line.split(" ")[0] for line in open_files if line] == ["0", "2"] or len(open_files) <= 4
    assert "0 -> /dev/null" in open_files


def test_a_job_without_an_image_starts_no_program(submit: Submit) -> None:
    for options in ([], ["--image=none"]):
        done = submit.run("sbatch", *options)
        assert (done.returncode, done.stdout, done.stderr, submit.words()) == (0, b"", b"", [])


def test_volumes_given_one_by_one(submit: Submit) -> None:
    submit.run("salloc", "--image=debian", "--volume=/a:/b", "--imagevolume=/c:/d;/e:/f", "--imagevolume=/c:/d;/e:/f")
    assert submit.words()[-1].startswith("/a:/b;/c:/d;/e:/f")


def test_modules_given_one_by_one(submit: Submit) -> None:
    done = submit.run("sbatch", "--image=debian", "--module=mpich", "--volume=/a:/b", "--module=gpu;x")
    assert submit.words() == ["--image", "debian", "--volumes", "/a:/b", "--modules", "mpich;gpu;x"]
    assert done.stdout.endswith(b"UDI_GIVEN_VOLUMES=/a:/b\nUDI_GIVEN_MODULES=mpich;gpu;x\n")


@pytest.mark.parametrize("what", ["volume", "module"])
def test_lists_without_an_image(submit: Submit, what: str) -> None:
    for options in ([f"--{what}=/a:/b"], [f"--{what}=/a:/b", "--image=none"]):
        done = submit.run("sbatch", *options)
        assert done.returncode == 255
        assert done.stderr.decode() == f"udi: --{what} needs --image, since {what}s are inside an image\n"


def test_an_image_that_the_environment_alone_asks_for(submit: Submit) -> None:
    done = submit.run("sbatch", env={"_SLURM_SPANK_OPTION_udi_image": "debian:12"})
    assert submit.words() == ["--image", "debian:12"]
    assert b"UDI_IMAGE=debian:12\n" in done.stdout


def test_the_file_at_home_where_the_site_honors_it(submit: Submit, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    answer = "image chos:sl6\nid {}\nvolumes {}\nmodules \nrun \nend\n"
    submit.answers(answer.format("ab" * 32, ""))
    assert (submit.run("sbatch", "--home=yes", env=home).stdout, submit.words()) == (b"", []), "there is none"
    (tmp_path / ".chos").symlink_to("/nowhere")  # which the program looks at
    assert (submit.run("sbatch", env=home).stdout, submit.words()) == (b"", []), "the site does not say so"
    done = submit.run("sbatch", "--home=yes", env=home)
    assert submit.words() == ["--image", "~/.chos"]
    assert done.stdout.startswith(b"UDI_IMAGE=chos:sl6\nUDI_ID=abab"), done
    submit.answers(answer.format("-", "/a:/b"))
    submit.run("sbatch", "--home=yes", "--volume=/a:/b", env=home)
    assert submit.words() == ["--image", "~/.chos", "--volumes", "/a:/b"]
    typed = submit.run("sbatch", "--image=~/.chos", env=home)
    assert typed.stdout.startswith(b"UDI_IMAGE=chos:sl6\n"), typed
    for options in (("--image=none",), ("--image=debian:12",)):
        submit.run("sbatch", "--home=yes", *options, env=home)
        assert "~/.chos" not in submit.words()
    submit.run("srun", "--home=yes", env={**JOB, **home})
    assert submit.words() == [], "a step is its job's"


def test_the_file_at_home_names_nothing(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / ".chos").touch()
    submit.answers("image none\nid -\nvolumes \nmodules \nrun \nend\n")
    done = submit.run("sbatch", "--home=yes", env={"HOME": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    done = submit.run("sbatch", "--home=yes", "--volume=/a:/b", env={"HOME": str(tmp_path)})
    assert (done.returncode, b"--volume needs --image" in done.stderr) == (255, True)


JOB = {"SLURM_JOB_ID": "7", "SLURM_SPANK_UDI_IMAGE": "debian:12", "SLURM_SPANK_UDI_GIVEN_VOLUMES": "/a:/b;/c:/d;/e:/f"}


def test_an_srun_in_a_job_runs_in_the_jobs_image_without_asking(submit: Submit) -> None:
    for options in ([], ["--image=debian:12"], ["--image=none"], ["--image=none", "--volume=/x:/y"]):
        done = submit.run("srun", *options, env=JOB)
        assert (done.returncode, done.stderr, submit.words()) == (0, b"", [])
        assert done.stdout == b"UDI_IMAGE=debian:12\nUDI_ID=\nUDI_VOLUMES=\nUDI_MODULES=\nUDI_RUN=\n", (
            "without Alloc, Prolog knows no more"
        )
    done = submit.run(
        "srun", "--image=debian", env={**JOB, "SLURM_SPANK_UDI_ID": "ab", "SLURM_SPANK_UDI_VOLUMES": "/a:/b"}
    )
    assert (done.returncode, done.stdout) == (
        0,
        b"UDI_IMAGE=debian:12\nUDI_ID=ab\nUDI_VOLUMES=/a:/b\nUDI_MODULES=\nUDI_RUN=\n",
    )
    assert submit.words() == ["--image", "debian", "--job", "7", "--job-image", "debian:12"]


def test_an_srun_whose_job_has_another_image_is_refused_by_the_program(submit: Submit) -> None:
    submit.answers("", more="echo 'udi-slurm-submit: no' >&2; exit 2")
    done = submit.run("srun", "--image=alpine", env=JOB)
    assert (done.returncode, done.stderr) == (255, b"udi-slurm-submit: no\n")


def test_an_srun_in_a_job_leaves_to_the_node_what_it_cannot_know(submit: Submit) -> None:
    assert submit.run("srun", "--image=alpine", env={"SLURM_JOB_ID": "7"}).returncode == 0
    submit.program.unlink()
    assert submit.run("srun", "--image=alpine", env=JOB).returncode == 0


@pytest.mark.parametrize("volumes", ["/a:/b;/c:/d;/e:/f", "/e:/f", "/c:/d;/e:/f"])
def test_volumes_that_an_srun_inherits(submit: Submit, volumes: str) -> None:
    assert submit.run("srun", f"--volume={volumes}", env=JOB).returncode == 0


@pytest.mark.parametrize(
    ("given_modules", "code"), [("mpich;gpu", 0), ("gpu", 0), ("mpich", 255), ("pu", 255), ("", 255)]
)
def test_modules_of_a_step(submit: Submit, given_modules: str, code: int) -> None:
    job = {**JOB, "SLURM_SPANK_UDI_GIVEN_MODULES": "mpich;gpu"}
    done = submit.run("srun", f"--module={given_modules}", env=job)
    assert done.returncode == code
    line = b"udi: modules are the whole job's: give --module to sbatch, to salloc, or to an srun outside of a job\n"
    assert done.stderr == (line if code else b"")


@pytest.mark.parametrize("volumes", ["/a:/b", ":/f", "/x:/y", "", "/a:/b;/c:/d;/e:/f;/g:/h"])
def test_volumes_that_are_a_steps_own(submit: Submit, volumes: str) -> None:
    done = submit.run("srun", f"--volume={volumes}", env=JOB)
    assert done.returncode == 255
    assert done.stderr.startswith(b"udi: volumes are the whole job's")


def test_an_sbatch_in_a_job_is_a_job_of_its_own(submit: Submit) -> None:
    submit.run("sbatch", "--image=alpine", env=JOB)
    assert submit.words() == ["--image", "alpine"]


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "image a\nid -\nvolumes \nmodules \nrun \n",
        "image a\nid -\nvolumes \nend\n",
        "image a\nid -\nvolumes \nmodules \nrun \nend",
        "image a\nid -\nvolumes \nmodules \nrun \nend\nx\n",
        "image a\nid \nvolumes \nmodules \nrun \nend\n",
        "id -\nimage a\nvolumes \nmodules \nrun \nend\n",
        "image a\nid -\nvolumes \nmodules \nrun \nend x\n",
        "image a\n\nid -\nvolumes \nmodules \nrun \nend\n",
    ],
)
def test_an_answer_that_is_none(submit: Submit, answer: str) -> None:
    submit.answers(answer)
    done = submit.run("sbatch", "--image=a")
    assert (done.returncode, done.stdout) == (255, b"")
    assert done.stderr.endswith(b"answers is not understood; this is a fault of the site\n")


def test_an_answer_without_end_is_bounded(submit: Submit) -> None:
    submit.answers("", more="yes image")
    done = submit.run("sbatch", "--image=a")
    assert (done.returncode, done.stdout) == (255, b"")


@pytest.mark.parametrize(
    ("end", "words"),
    [("exit 3", b""), ("kill -9 $$", b" was terminated: Killed\n"), ("kill -14 $$", b" was terminated: Alarm clock\n")],
)
def test_a_program_that_refuses_or_dies(submit: Submit, end: str, words: bytes) -> None:
    submit.answers("image a\nid -\nvolumes \nmodules \nrun \nend\n", more=end)
    done = submit.run("sbatch", "--image=a")
    assert (done.returncode, done.stdout) == (255, b"")
    assert done.stderr.endswith(words) and done.stderr.count(b"\n") == (1 if words else 0)


def test_a_program_that_is_not_there(submit: Submit) -> None:
    submit.program.unlink()
    done = submit.run("sbatch", "--image=a")
    assert done.returncode == 255
    assert done.stderr.endswith(b"cannot be started: No such file or directory; this is a fault of the site\n")


@settings(max_examples=60)
@given(st.text("imageidvolumods -\nend", max_size=60).map(str.encode) | st.binary(max_size=40))
def test_any_answer(raw: bytes) -> None:
    run("answer", text=raw)


def test_control_characters_reach_no_terminal_and_no_log(submit: Submit) -> None:
    done = submit.run("srun", "--image=a", env={})
    assert done.returncode == 0
    assert "a??[31mb" in verdict_line("a\n\x1b[31mb")


def verdict_line(asked: str) -> str:
    done = run("refuse", asked)
    assert done.returncode == 1
    return done.stderr.decode()
