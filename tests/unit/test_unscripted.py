"""Jobs without a script: how words are divided, and what reaches qsub, sbatch and the shell of the script."""

from __future__ import annotations

import shlex
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outside.submit import SubmissionRefused, prepared, submit
from slurm_hooks.unscripted import UnscriptedSlurm
from torque_hooks.directives import read_submission
from torque_hooks.unscripted import UnscriptedTorque
from udi.config import SiteConfig, StoreConfig
from udi.launch import RUN, Launch, Submission
from udiroot.errors import ConfigError, UpstreamFailed, UsageError

INSIDE, OUTSIDE, TORQUE = UnscriptedSlurm(inside=True), UnscriptedSlurm(inside=False), UnscriptedTorque()
STORE = StoreConfig(path="/images")
WORDS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12), max_size=5)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("-l nodes=2:ppn=4 -q debug app:1 -- a -b", 4),
        ("-lnodes=2 -V -h app:1", 3),
        ("app:1 -- -l x", 0),
        ("-v A=1,B=2 app", 2),
    ],
)
def test_options_of_qsub(words: str, options: int) -> None:
    listed = tuple(words.split())
    assert TORQUE.split(listed) == (listed[:options], listed[options:])


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("-N2 -n 4 app:1 -- a -b", 3),
        ("--nodes=2 --time 5 --hold --wait app:1", 5),
        ("-HN 2 -HN2 -Q app", 4),
        ("--exclusive --nice --nice=5 --exclusive=user app", 4),
        ("app:1 -- -N 4", 0),
        ("-- app", 0),
    ],
)
def test_options_of_sbatch(words: str, options: int) -> None:
    listed = tuple(words.split())
    assert INSIDE.split(listed) == (listed[:options], listed[options:])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "no image was named"),
        ("-l nodes=2", "no image was named"),
        ("app:1 ls", "'ls' after the image"),
        ("-l", "option -l requires argument"),
        ("-I app:1", "-I makes an interactive job, which has no command"),
        ("-v UDI=x app:1", "UDI is set by this command"),
        ("-v A=1,UDI_VOLUMES=/a:/b app:1", "UDI_VOLUMES is set by this command"),
        ("app,1", "qsub cannot pass on a value with , in it: 'app,1'"),
    ],
)
def test_what_is_refused_for_torque(words: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        prepared(SiteConfig(store=STORE), tuple(words.split()), (), ())
    assert refused.value.message == message
    assert refused.value.hint or "," in words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--image=x app:1", "--image is set by this command"),
        ("--wrap=ls app:1", "--wrap is set by this command"),
        ("-N", "option -N needs a value"),
    ],
)
def test_what_is_refused_for_slurm(words: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        prepared(SiteConfig(store=STORE, workload_manager="slurm"), tuple(words.split()), (), ())
    assert refused.value.message == message


def test_a_machine_whose_launcher_is_not_known() -> None:
    with pytest.raises(ConfigError, match="enter their root by the site's own launcher"):
        prepared(SiteConfig(store=STORE, machine="clusters"), ("app:1",), (), ())


def test_a_volume_that_is_none_is_refused_here() -> None:
    with pytest.raises(UsageError, match="not a volume"):
        prepared(SiteConfig(store=STORE), ("app:1",), ("/a",), ())


def test_qsub_gets_the_user_s_variables_and_ours() -> None:
    options = ("-v", "A=1,B", "-l", "nodes=2")
    made = TORQUE.submission(options, Launch("app:1", "/scratch/a:/b;/scratch/c:/d:ro"))
    seen = read_submission(made.argv[1:], made.script.encode(), {"B": "2"}).variables
    assert seen == {"A": "1", "B": "2", "UDI": "app:1", "UDI_VOLUMES": "/scratch/a:/b;/scratch/c:/d:ro"}
    assert made.argv[:3] == ("qsub", "-N", "app-1")
    assert TORQUE.submission(("-N", "mine"), Launch("app:1")).argv[:3] == ("qsub", "-N", "mine")


@pytest.mark.parametrize(
    ("image", "name"),
    [("debian:12", "debian-12"), ("registry.example.org:5000/team/app", "app"), ("id:" + "a" * 64, "aaaaaaaaaaaaaaa"),
     ("7zip:1", "udi-7zip-1"), ("docker:app", "app"), ("app@sha256:" + "0" * 64, "app")],
)  # fmt: skip
def test_a_job_is_called_after_its_image(image: str, name: str) -> None:
    assert Launch(image).job_name == name


def test_modules_reach_either() -> None:
    launch = Launch("app:1", modules="mpich;gpu")
    assert "--module=mpich;gpu" in INSIDE.submission((), launch).argv
    assert TORQUE.submission((), launch).argv[-2:] == ("-v", "UDI=app:1,UDI_MODULES=mpich;gpu")
    for manager, option in ((INSIDE, ("--module=x",)), (TORQUE, ("-v", "UDI_MODULES=x"))):
        with pytest.raises(UsageError, match="is set by this command"):
            manager.submission(option, launch)
    with pytest.raises(UsageError, match="not a module's name"):
        prepared(SiteConfig(store=STORE), ("app",), (), (), ("a b",))


def test_sbatch_gets_the_image_and_the_volumes() -> None:
    made = OUTSIDE.submission(("-N2",), Launch("app:1", "/a:/b"))
    assert made.argv == ("sbatch", "--parsable", "--job-name=app-1", "-N2", "--image=app:1", "--imagevolume=/a:/b")
    assert OUTSIDE.submission(("-J", "mine"), Launch("app:1")).argv == (
        *("sbatch", "--parsable", "-J", "mine", "--image=app:1"),
    )


@given(words=WORDS)
def test_the_shell_gives_udi_run_the_words_as_they_are(words: list[str]) -> None:
    launch = Launch("app:1", words=tuple(words))
    assert shlex.split(launch.command) == [RUN, *words]
    for script in (INSIDE.submission((), launch).script, OUTSIDE.submission((), launch).script):
        assert subprocess.run(["/bin/sh", "-n"], input=script.encode(), check=False).returncode == 0


@pytest.mark.parametrize(
    ("tasks", "nodes", "runs"), [("", "", "udi-run"), ("1", "1", "udi-run"), ("2", "1", "srun"), ("", "2", "srun")]
)
def test_a_script_inside_needs_srun_for_several_tasks_only(tmp_path: Path, tasks: str, nodes: str, runs: str) -> None:
    """Run by a real shell, with programs that say their names in place of udi-run and srun."""
    for name in ("udi-run", "srun"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} $#\n")
        (tmp_path / name).chmod(0o755)
    script = INSIDE.submission((), Launch("app:1", words=("--", "a b", "c"))).script.replace(RUN, f"{tmp_path}/udi-run")
    env = {"PATH": f"{tmp_path}:/bin", "SLURM_NTASKS": tasks, "SLURM_JOB_NUM_NODES": nodes}
    done = subprocess.run(["/bin/sh"], input=script, env=env, text=True, capture_output=True, check=False)
    assert done.stdout == f"{runs} {3 if runs == 'udi-run' else 4}\n", done.stderr
    (tmp_path / "srun").unlink()
    done = subprocess.run(
        ["/bin/sh"], input=script, env={**env, "PATH": str(tmp_path)}, text=True, capture_output=True, check=False
    )
    if runs == "srun":
        assert done.returncode == 125
        assert done.stderr.startswith("udi submit: this job has several tasks, and this site shows no srun")


def test_what_the_submission_program_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UpstreamFailed, match="qsub is not in PATH"):
        submit(Submission(("qsub",), ""))
    program = tmp_path / "qsub"
    for text, code in (("echo 12.sdb", 0), ("exit 3", 3), ("echo a; echo b", None)):
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        if code == 0:
            assert submit(Submission(("qsub",), "x")).job == "12.sdb"
        elif code:
            with pytest.raises(SubmissionRefused) as refused:
                submit(Submission(("qsub",), "x" * (1 << 20)))
            assert refused.value.exit_code == 3
        else:
            with pytest.raises(UpstreamFailed, match="printed no job id"):
                submit(Submission(("qsub",), ""))
