"""Images that the store does not have yet: submission brings them in from a registry, with progress, and pins them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from slurmsim import site
from slurmsim.cluster import LOGIN
from tests.slurm.cluster import ALICE, BOB, LOOK, Slurm
from tests.system import images
from xcsim.processes import wait_until
from xcsim.registry import PROGRAM
from xcsim.site import Tables

REGISTRY = "localhost:5000"
_PROGRAMS = [
    ("sbatch", ("--parsable", "--wrap=true")),
    ("srun", ("true",)),
    ("salloc", ("true",)),
]


@pytest.fixture(scope="module")
def registry(standing: Slurm) -> Iterator[None]:
    """A registry on the cluster's login host, from which submissions pull. The gateway is started again with it, and
    afterwards without."""
    tables: Tables = {
        "gateway": {"pull_at_submission": True},
        "registry": {"default": REGISTRY, "hosts": [{"name": REGISTRY, "plain_http": True}]},
    }
    cluster = standing.cluster
    configuration = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": "/scratch/registry"}},
        "http": {"addr": "127.0.0.1:5000"},
    }
    (cluster.directory / "scratch/registry.yml").write_text(json.dumps(configuration))
    cluster.root(LOGIN, "install", "-d", "-o", "udi", "/scratch/registry")
    cluster.root(LOGIN, "pkill", "-u", "udi", check=False)
    process = cluster.popen_as("udi", PROGRAM, "serve", "/scratch/registry.yml", cwd="/")
    site.configure(cluster, tables)
    site.start_gateway(cluster)
    try:
        assert wait_until(lambda: _answers(standing), 30, 0.05)
        yield
    finally:
        process.kill()
        process.wait()
        cluster.root(LOGIN, "pkill", "-u", "udi", check=False)
        site.configure(cluster, {})
        site.start_gateway(cluster)


@pytest.fixture
def pulling(registry: None, slurm: Slurm) -> Slurm:
    """The cluster for one test, with that registry."""
    return slurm


def _answers(slurm: Slurm) -> bool:
    script = "exec 3<>/dev/tcp/127.0.0.1/5000"
    return slurm.cluster.root(LOGIN, "bash", "-c", script, check=False).returncode == 0


def _push(slurm: Slurm, name: str, marker: str = "") -> str:
    """A new image in the registry, which says that it is `marker`; its id."""
    archive = slurm.cluster.directory / "scratch/pushed.tar"
    found = images.save(archive, images.tiny(marker or slurm.marker(name)), name, (0, 0))
    words = ("copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false")
    slurm.cluster.root(LOGIN, "skopeo", *words, "docker-archive:/scratch/pushed.tar", f"docker://{REGISTRY}/{name}")
    archive.unlink()
    return found


def _submitted(slurm: Slurm, user: str, command: str, name: str) -> tuple[str, str]:
    """What a job in the image says of itself, and what its submission said on stderr."""
    image = f"--image={name}"
    if command == "sbatch":
        done = slurm.run(user, "sbatch", "--parsable", image, input=f"#!/bin/sh\n{LOOK}\n")
        assert done.returncode == 0, done.stderr
        slurm.await_state(done.stdout.strip(), "COMPLETED")
        return slurm.output(user, done.stdout.strip()), done.stderr
    inner = ("srun",) if command == "salloc" else ()
    done = slurm.run(user, command, image, *inner, "sh", "-c", LOOK)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_each_program_pulls_and_shows_it(pulling: Slurm) -> None:
    for command, _ in _PROGRAMS:
        name = f"team/{command}:1"
        _push(pulling, name)
        said, progress = _submitted(pulling, "alice", command, name)
        assert said.split()[1:] == [pulling.marker(name), str(ALICE)]
        assert re.search(r"pulling team/\w+:1; UDI_WAIT=no submits without waiting", progress), progress
        assert "fetching" in progress and "packing" in progress
        again, silent = _submitted(pulling, "bob", command, f"{REGISTRY}/{name}")
        assert again.split()[1:] == [pulling.marker(name), str(BOB)]
        assert "pulling" not in silent


def test_the_tag_is_pinned_when_the_job_is_submitted(pulling: Slurm) -> None:
    """A tag that moves while the job waits does not move the job."""
    first = _push(pulling, "team/moving:1")
    done = pulling.run("alice", "sbatch", "--parsable", "--hold", "--image=team/moving:1", input=f"#!/bin/sh\n{LOOK}\n")
    job = done.stdout.strip()
    _push(pulling, "team/moving:1", "another")
    assert pulling.run("bob", "udi", "pull", "team/moving:1").returncode == 0
    assert pulling.run("alice", "udi", "lookup", "team/moving:1").stdout.split()[-1] != first
    pulling.run("alice", "scontrol", "release", job)
    pulling.await_state(job, "COMPLETED")
    assert pulling.output("alice", job).split()[1] == pulling.marker("team/moving:1")


@pytest.mark.parametrize(("command", "words"), _PROGRAMS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_name_that_nobody_knows(pulling: Slurm, command: str, words: tuple[str, ...]) -> None:
    """The sentence is the one that qsub's submit filter says, and no job is made."""
    done = pulling.run("alice", command, "--image=team/none:1", *words)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "team/none:1" in line]
    assert len(lines) == 1, done.stderr
    assert "image 'team/none:1' not found, or you do not have access to it; it cannot be pulled: registry " in lines[0]
    assert pulling.cluster.root(LOGIN, "squeue", "--noheader").stdout == ""
