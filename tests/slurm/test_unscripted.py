"""`udi submit` on a real Slurm: jobs whose users wrote no script."""

from __future__ import annotations

from tests.slurm.cluster import Slurm


def test_the_entry_point_and_a_command(slurm: Slurm) -> None:
    job = slurm.run("alice", "udi", "submit", "-c1", "tiny:1")
    assert job.returncode == 0, job.stderr
    number = job.stdout.strip()
    slurm.await_state(number, "COMPLETED", "FAILED")
    assert slurm.output("alice", number) == 'entered in /analysis: it\'s "here" one two\n'
    words = ("--volume=/scratch/alice:/data", "--workdir=/data", "--env=A=it's $HOME", "--output=out", "tiny:1")
    script = 'echo "$A in $PWD of $(cat /etc/marker)" "$@"; exit 7'
    job = slurm.run("alice", "udi", "submit", *words, "--", "sh", "-c", script, "0", "a  b")
    state = slurm.await_state(job.stdout.strip(), "COMPLETED", "FAILED")
    text = (slurm.scratch("alice") / "out").read_text()
    assert (state.split()[0], text) == ("FAILED", f"it's $HOME in /data of {slurm.marker('tiny:1')} a  b\n")


def test_several_tasks_where_no_srun_is_in_images(slurm: Slurm) -> None:
    """The image has no srun, and this site shows none."""
    job = slurm.run("alice", "udi", "submit", "-N2", "--output=out", "tiny:1", "--", "true").stdout.strip()
    assert slurm.await_state(job, "COMPLETED", "FAILED").startswith("FAILED")
    line = (slurm.scratch("alice") / "out").read_text()
    assert line.startswith("udi submit: this job has several tasks, and this site shows no srun inside images; ")
    assert line.count("\n") == 1


def test_one_who_may_not(slurm: Slurm) -> None:
    done = slurm.run("alice", "udi", "submit", "secret:1")
    assert (done.returncode != 0, done.stdout, done.stderr.count("secret:1")) == (True, "", 1)
    assert done.stderr.splitlines()[-1] == "udi: the job was not submitted"
