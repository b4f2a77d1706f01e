"""What an image costs in a real Slurm: whole jobs, first and later steps, and steps of jobs that have none.

    python -m benchmarks.slurm [--rounds 15] [--steps 150]

A cluster of two nodes on this machine (`slurmsim`). What is compared takes turns, each started on the login host as a
user: `busybox true`, the same static program on the node and in the image. The peer is Charliecloud's ch-run with the
image as a directory; it is left out where it is not installed.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from slurmsim.cluster import LOGIN, Cluster
from tests.slurm.cluster import Slurm
from udiroot.errors import UpstreamFailed
from xcsim.processes import wait_until

_USER, _IMAGE = "alice", "tiny:1"
_PROGRAM = ("/bin/busybox", "true")
_ARCHIVE = f"/scratch/{_IMAGE.replace(':', '-')}.tar"
_TREE = f"/scratch/{_USER}/tree"
_WARM_UP = 2
_ALLOCATED = re.compile(r"Granted job allocation (\d+)")
_OF_STORE = re.compile(r'^\d+ +(?:\w+\(\d+<|(?!p?read)\w+\(.*?(?<!\\)[<"])/scratch/udi')
"""A path of the store in a line of strace, and not in what was read."""
_CALL = re.compile(r'^\d+ +(\w+)\(.*?(?<!\\)[<"]/scratch/udi(/[a-z]+)?(?:[^ ]*(\.\w+)[>"])?.*$')
"""A call, and of a path below the store the first name and the suffix."""
_COUNT_SECONDS = 30.0


@click.command()
@click.option("--rounds", default=15, show_default=True, help="Whole jobs of each kind.")
@click.option("--steps", default=150, show_default=True, help="Steps of each kind in one allocation.")
def main(rounds: int, steps: int) -> None:
    """Print the tables."""
    directory = Path(tempfile.mkdtemp(prefix="udi-bench-"))
    slurm = Slurm(Cluster(directory))
    try:
        slurm.up({"SchedulerParameters": "sched_interval=1,batch_sched_delay=0"})
        peer = _charliecloud(slurm)
        if not peer:
            click.echo("ch-run (Charliecloud) is not installed: no figures of a peer")
        _show(f"srun: a job of its own, {rounds} of each", _jobs(slurm, peer, rounds))
        _show(f"steps of an allocation: the first of {rounds}", _first_steps(slurm, peer, rounds))
        _show(f"steps of an allocation: later ones, {steps} of each", _later_steps(slurm, peer, steps))
        _show(f"steps of jobs without an image, {steps} of each", _without_line(slurm, steps))
        _count_operations(slurm)
    finally:
        slurm.cluster.stop()
        shutil.rmtree(directory)


def _jobs(slurm: Slurm, peer: bool, rounds: int) -> dict[str, list[float]]:
    """Each srun asks for nodes, and its image is prepared there. The next one starts when the nodes are clean again."""
    kinds: dict[str, tuple[str, ...]] = {}
    for nodes in ("1", "2"):
        kinds |= {f"{name}, {nodes} node(s)": ("-N", nodes, *words) for name, words in _kinds(peer, True).items()}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(rounds + _WARM_UP):
        for name, words in kinds.items():
            seconds = _seconds(slurm, *words)
            slurm.cluster.await_states("idle")
            if number >= _WARM_UP:
                times[name].append(seconds)
    return times


def _first_steps(slurm: Slurm, peer: bool, rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in _kinds(peer, False)}
    for _ in range(rounds):
        for name, words in _kinds(peer, False).items():
            with _allocation(slurm, name == _OURS) as job:
                times[name].append(_seconds(slurm, f"--jobid={job}", *words))
    return times


def _later_steps(slurm: Slurm, peer: bool, steps: int) -> dict[str, list[float]]:
    """The allocations stand side by side on both nodes."""
    times: dict[str, list[float]] = {}
    with _allocation(slurm, True) as ours, _allocation(slurm, False) as plain:
        kinds = {
            f"{name}, {nodes} node(s)": (
                f"--jobid={ours if name == _OURS else plain}",
                "-N",
                nodes,
                "--overlap",
                *words,
            )
            for nodes in ("1", "2")
            for name, words in _kinds(peer, False).items()
        }
        times = {name: [] for name in kinds}
        for number in range(steps + _WARM_UP):
            for name, words in kinds.items():
                seconds = _seconds(slurm, *words)
                if number >= _WARM_UP:
                    times[name].append(seconds)
    return times


def _without_line(slurm: Slurm, steps: int) -> dict[str, list[float]]:
    """Programs of Slurm read plugstack.conf each time: one file has the plugin's line, and the other nothing."""
    path = slurm.cluster.directory / "etc-slurm/plugstack.conf"
    texts = {_BARE_LINE: "", _WITH_LINE: path.read_text()}
    times: dict[str, list[float]] = {name: [] for name in texts}
    with _allocation(slurm, False) as job:
        for number in range(steps + _WARM_UP):
            for name, text in texts.items():
                _replace(path, text)
                seconds = _seconds(slurm, f"--jobid={job}", "-N", "1", "--overlap", *_PROGRAM)
                if number >= _WARM_UP:
                    times[name].append(seconds)
        _replace(path, texts[_WITH_LINE])
    return times


def _count_operations(slurm: Slurm) -> None:
    """How often the hooks of each node of a job name a path of the store, or read a file or directory there. What the
    kernel reads of the image itself is the same whoever makes a plan."""
    if not shutil.which("strace"):
        click.echo("strace is not installed: operations on the store are not counted")
        return
    cluster = slurm.cluster
    for hook in ("prolog", "epilog"):
        program = cluster.directory / f"opt/bin/traced-{hook}"
        watched = "strace -f -qq -y -s 256 -e trace=%file,read,pread64,getdents64"
        program.write_text(
            f"#!/bin/sh\nexec {watched} -o /scratch/{hook}-$SLURMD_NODENAME /opt/udi/bin/udi-slurm-{hook}\n"
        )
        program.chmod(0o755)
    cluster.configure({"Prolog": "/opt/udi/bin/traced-prolog", "Epilog": "/opt/udi/bin/traced-epilog"})
    cluster.root(LOGIN, "scontrol", "reconfigure")
    if not wait_until(
        lambda: cluster.root(LOGIN, "scontrol", "show", "config").stdout.count("traced") == 2, _COUNT_SECONDS, 0.1
    ):
        raise UpstreamFailed("slurmctld did not take other hooks")
    _seconds(slurm, "-N2", f"--image={_IMAGE}", *_PROGRAM)
    cluster.await_states("idle")
    for hook in ("prolog", "epilog"):
        for node, what in (("n1", "the first"), ("n2", "each other")):
            text = (cluster.directory / f"scratch/{hook}-{node}").read_text()
            lines = [line for line in text.splitlines() if _OF_STORE.search(line)]
            if hook == "prolog" and not lines:
                raise UpstreamFailed("the trace of Prolog has no path of the store")
            click.echo(f"\n{hook.title()} on {what} node of a job: {len(lines)} operations on the store")
            for call, count in Counter(_CALL.sub(r"\1 \2 \3", line) for line in lines).items():
                click.echo(f"{count:4}  {call}")


_BARE_LINE, _WITH_LINE = "without the plugin's line", "with it"
_BARE, _OURS, _PEER = "no image", "image", "ch-run"


def _kinds(peer: bool, own_job: bool) -> Mapping[str, tuple[str, ...]]:
    """What is compared: a name, and srun's words."""
    image = (f"--image={_IMAGE}",) if own_job else ()
    kinds = {_BARE: _PROGRAM, _OURS: (*image, *_PROGRAM)}
    return kinds | ({_PEER: ("ch-run", _TREE, "--", *_PROGRAM)} if peer else {})


def _charliecloud(slurm: Slurm) -> bool:
    """Whether there is a peer: the image is unpacked for it, as a user's directory on the shared file system."""
    if not shutil.which("ch-run"):
        return False
    with tarfile.open(slurm.cluster.directory / _ARCHIVE.lstrip("/")) as archive:
        manifest = archive.extractfile("manifest.json")
        layers = json.load(manifest)[0]["Layers"] if manifest else []
    unpack = " && ".join(f"tar -xOf {_ARCHIVE} {layer} | tar -x -C {_TREE} --exclude='.wh.*'" for layer in layers)
    made = slurm.run(_USER, "sh", "-c", f"mkdir {_TREE} && {unpack}")
    if made.returncode:
        raise UpstreamFailed(f"the image was not unpacked: {made.stderr.strip()}")
    tried = slurm.run(_USER, "ch-run", _TREE, "--", *_PROGRAM)
    if tried.returncode:
        raise UpstreamFailed(f"ch-run failed: {tried.stderr.strip()}")
    return True


@contextmanager
def _allocation(slurm: Slurm, with_image: bool) -> Iterator[str]:
    """Both nodes, half of each; the number of the job."""
    image = [f"--image={_IMAGE}"] if with_image else []
    done = slurm.run(_USER, "salloc", "-N2", "-n2", "-c2", *image, "--no-shell")
    granted = _ALLOCATED.search(done.stderr)
    if not granted:
        raise UpstreamFailed(f"no allocation: {done.stderr.strip()}")
    try:
        yield granted[1]
    finally:
        slurm.cluster.root(LOGIN, "scancel", granted[1])
        slurm.await_state(granted[1], "CANCELLED", "COMPLETED")


def _seconds(slurm: Slurm, *words: str) -> float:
    argv: Sequence[str] = slurm.cluster.words_as(_USER, ["srun", *words], cwd=f"/scratch/{_USER}")
    environment = {"PATH": "/usr/bin:/bin", "HOME": f"/home/{_USER}", "USER": _USER}
    began = time.perf_counter()
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise UpstreamFailed(f"srun {' '.join(words)}: {done.stderr.strip()}")
    return seconds


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.rename(path)


def _show(title: str, times: Mapping[str, Sequence[float]]) -> None:
    """A table, and of each pair the median of the differences to the first of its kind."""
    click.echo(f"\n{title}; milliseconds{'median':>10}{'minimum':>10}{'more than the first, each time':>34}")
    first: Sequence[float] = ()
    for name, values in times.items():
        if not first or name.startswith(_BARE):
            first = values
        more = statistics.median(own - base for own, base in zip(values, first, strict=True))
        click.echo(f"{name:46}{statistics.median(values) * 1000:10.1f}{min(values) * 1000:10.1f}{more * 1000:24.2f}")


if __name__ == "__main__":
    main()
