"""Batch scripts that the site leaves on the node (`slurm.batch = "outside"`): their steps run in the image."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mpich.program import DEBIANS, program_with_libraries
from tests.slurm.cluster import ALICE, LOOK, Slurm
from tests.slurm.test_jobs import expected, outside
from tests.system import images


@pytest.fixture
def outdoors(slurm: Slurm) -> Iterator[Slurm]:
    """The cluster, whose site has chosen so; every program of Slurm reads the plugin's line at its start."""
    path = slurm.cluster.directory / "etc-slurm/plugstack.conf"
    ours = path.read_text()
    assert " batch=inside " in ours
    path.write_text(ours.replace(" batch=inside ", " batch=outside "))
    with slurm.configured({"slurm": {"batch": "outside"}}):
        yield slurm
    path.write_text(ours)


def test_steps_of_a_script(outdoors: Slurm) -> None:
    """Whatever their environment is; one that names another image is refused, and the script goes on."""
    script = f"""exec 2>&1
    {LOOK}
    srun -N2 -n2 sh -c '{LOOK}' | sort
    srun -N1 -n1 -w n2 --export=NONE /bin/sh -c '{LOOK}'
    env -i /usr/bin/srun --jobid=$SLURM_JOB_ID -N1 -n1 -w n2 /bin/sh -c '{LOOK}'
    srun -N1 -n1 -w n1 --image=none sh -c '{LOOK}'
    srun -N1 -n1 --image=tools:1 true || echo refused
    srun -w n1 -n1 sh -c '{LOOK}' : -w n2 -n1 sh -c '{LOOK}'"""
    code, output = outdoors.batch("alice", script, "-N2", "--image=tiny:1")
    lines = output.splitlines()
    first, second = expected(outdoors, "tiny:1", ALICE, "n1", "n2")
    none = outside(ALICE, "n1")[0]
    assert lines[:6] == [none, first, second, second, second, none], output
    assert "refused" in lines
    assert sum("tools:1" in line for line in lines) == 1
    assert code == 0 or "het" in output.lower(), output


def test_mpi_from_a_script(outdoors: Slurm, tmp_path: Path) -> None:
    """Steps one after the other; each of the nodes' addresses is named, as in test_mpi.py."""
    outdoors.pull("alice", "ring:2", layers=[*images.tiny(outdoors.marker("ring:2")), program_with_libraries(tmp_path)])
    hosts = outdoors.cluster.root("n1", "cat", "/etc/hosts").stdout
    addresses = re.findall(r"^(\S+) n\d$", hosts, re.MULTILINE)
    names = "\n".join(f"export MPICH_INTERFACE_HOSTNAME_R{rank}={each}" for rank, each in enumerate(addresses))
    step = "srun -N2 -n2 --mpi=pmi2 /bin/ring ring"
    script = f"export UCX_TLS=tcp,self\n{names}\n{step}\n{step}"
    code, output = outdoors.batch("alice", script, "-N2", "-n2", "--image=ring:2", timeout=60)
    lines = [f"{rank} of 2 got {10 - 10 * rank}, inside, {DEBIANS}" for rank in (0, 0, 1, 1)]
    assert (code, sorted(output.splitlines())) == (0, lines), output


def test_a_job_without_a_script_of_its_own(outdoors: Slurm) -> None:
    words = ("-N2", "-n2", "--output=out", "tiny:1", "--", "sh", "-c", LOOK)
    done = outdoors.run("alice", "udi", "submit", *words)
    outdoors.await_state(done.stdout.strip(), "COMPLETED")
    lines = sorted((outdoors.scratch("alice") / "out").read_text().splitlines())
    assert lines == expected(outdoors, "tiny:1", ALICE, "n1", "n2")


def test_a_script_of_a_job_whose_root_failed_does_not_start(outdoors: Slurm) -> None:
    data = outdoors.scratch("alice") / "gone"
    data.mkdir()
    data.chmod(0o777)
    job = outdoors.submit("alice", LOOK, "--hold", "--image=tiny:1", "--volume=/scratch/alice/gone:/data")
    data.rmdir()
    outdoors.cluster.root("login", "scontrol", "release", job)
    outdoors.await_state(job, "FAILED")
    assert "/scratch/alice/gone" in outdoors.output("alice", job)
    assert "NO IMAGE" not in outdoors.output("alice", job)
