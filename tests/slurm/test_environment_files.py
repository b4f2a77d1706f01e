"""Environment files in jobs of a real Slurm: read as the user at submission, and carried from then on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Slurm

_SAYS = 'echo "$(cat /etc/marker) $MODE $LIST $(cat /output/name) $UDI_MODULES_USED"'
_FILE = """
image = "IMAGE"
volumes = ["/scratch/${USER}/run:/output"]
modules = ["extra"]

[environment]
MODE = "a,b;c 'd' 100%"
LIST = "mine:${LIST}"
"""
_MODE = "a,b;c 'd' 100%"
_MODULES = {"extra": {"environment": {"set": {"LIST": "site"}}}}
_ALPS = """
image = "tiny:1"
mounts = ["/scratch/alice/run:/output:ro"]
[env]
MODE = "edf"
"""


@pytest.fixture
def site(slurm: Slurm) -> Iterator[Slurm]:
    with slurm.configured({"modules": _MODULES}):
        yield slurm


def write(site: Slurm, user: str, text: str) -> Path:
    run = site.scratch(user) / "run"
    run.mkdir(exist_ok=True)
    (run / "name").write_text(f"{user}'s")
    path = site.scratch(user) / "run.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("user", "image"), [("alice", "tiny:1"), ("bob", "secret:1")])
def test_a_job_keeps_what_its_file_said(site: Slurm, user: str, image: str) -> None:
    """In the batch script and its steps, though the file says something else when they start."""
    path = write(site, user, _FILE.replace("IMAGE", image))
    job = site.submit(user, f"{_SAYS}\n", "--hold", f"--image=@/scratch/{user}/run.toml")
    path.write_text("nothing = 1\n")
    site.cluster.root("login", "scontrol", "release", job)
    site.await_state(job, "COMPLETED", "FAILED")
    wanted = f"{site.marker(image)} {_MODE} mine:site {user}'s extra\n"
    assert site.output(user, job) == wanted
    site.await_clean()


def test_steps_and_an_edf_file(site: Slurm) -> None:
    write(site, "alice", _FILE.replace("IMAGE", "tiny:1"))
    script = f"""exec 2>&1; rm run.toml; srun sh -c '{_SAYS}'; srun --image=tiny:1 sh -c '{_SAYS}'
    srun --image=@other.toml true; echo $?"""
    done = site.run("alice", "salloc", "-Q", "--image=@run.toml", "sh", "-c", script)
    inside, again, *refused = done.stdout.splitlines()
    assert inside == again == f"{site.marker('tiny:1')} {_MODE} mine:site alice's extra"
    assert "environment file other.toml was asked for in job" in refused[0] and refused[-1] != "0", refused
    write(site, "alice", _ALPS)
    edf = site.run("alice", "srun", "--image=@run.toml", "sh", "-c", _SAYS)
    assert edf.stdout == f"{site.marker('tiny:1')} edf  alice's \n", edf.stderr


def test_refused_at_submission_in_one_line(site: Slurm) -> None:
    path = write(site, "alice", _FILE.replace("IMAGE", "tiny:1"))
    path.chmod(0o600)
    site.scratch("alice").chmod(0o755)
    who = site.scratch("alice").stat()

    os.chown(path, who.st_uid, who.st_gid)
    for user, name, said in (
        ("bob", "@/scratch/alice/run.toml", "/scratch/alice/run.toml: it cannot be read: permission denied"),
        ("alice", "@/scratch/none.toml", "/scratch/none.toml: it cannot be read: no such file or directory"),
    ):
        done = site.run(user, "srun", f"--image={name}", "true")
        line = f"udi-slurm-submit: environment file {said}"
        assert (done.returncode, done.stderr.splitlines()) == (255, [line])


def test_a_forged_request_is_refused_on_the_node(site: Slurm) -> None:
    """Past the submission program: what the job carries is its user's text, and no file of root's choice is read."""
    for carried, said in (
        ("", "environment file /etc/shadow: the job carries nothing of it"),
        ("file=/etc/shadow;image=secret:1;set=HOME%3D/", "must not have HOME"),
        ("file=/etc/shadow;image=tiny:1", "tiny:1"),
    ):
        with site.answering(f"image secret:1\nid -\nvolumes \nmodules \nrun {carried}\nend\n"):
            done = site.run("bob", "srun", "--image=@/etc/shadow", "true")
        assert done.returncode != 0
        assert said in done.stderr
    site.await_clean()
