"""`make demo-slurm`: jobs of a real Slurm in a Debian image, shown as they go.

sbatch, srun and salloc name an image; scripts and steps run in it on two nodes; two users share a node, each in a root
of the job's own; what must not start does not, and says why. Every claim that is printed was checked; the first one
that is false stops the demo with one line and exit code 1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import click

from slurmsim import site
from slurmsim.cluster import LOGIN, Cluster
from udi.commandline import run
from udiroot.errors import NotPermitted
from xcsim.debian import NAME, cache_option, demo_archive
from xcsim.processes import wait_until
from xcsim.telling import out, require, show, step

_LOOK = 'echo "task $SLURM_PROCID on $(hostname -s): $(. /etc/os-release; echo $NAME), as $(id -un)"'
_INSIDE = re.compile(r"^task \d+ on (n\d): Debian GNU/Linux, as (\w+)$", re.MULTILINE)
_PRIVATE = "alice/hello:1.0"
_SECONDS = 60.0


@dataclass
class Totals:
    """What is counted for the last line."""

    began: float = field(default_factory=time.monotonic)
    jobs: int = 0
    tasks: int = 0
    refused: int = 0
    clean: int = 0

    def line(self) -> str:
        seconds = time.monotonic() - self.began
        return (
            f"demo: {self.jobs} jobs, {self.tasks} tasks inside the image; {self.refused} refused with the reason;"
            f" {self.clean} times a node was clean afterwards; {seconds:.0f} s, 0 failures"
        )


class Demo:
    """The cluster and the totals."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.totals = Totals()

    def run(self, cache: Path) -> None:
        step("a cluster: slurmctld, munge and two slurmds, each host in its own namespaces; shifter-xc is installed")
        self.cluster.start()
        site.install(self.cluster, {}, {})
        site.start_gateway(self.cluster)
        self.cluster.start_slurm()
        show(self.cluster.root(LOGIN, "sinfo", "-N", "-l").stdout)
        self._pull(cache)
        self._commands()
        self._batch()
        self._shared_node()
        self._refusals()
        step("nothing is left behind")
        self._require_clean()
        show(self.cluster.root(LOGIN, "udi-admin", "status").stdout)
        out.print(f"\n{self.totals.line()}")

    def _pull(self, cache: Path) -> None:
        step("root pulls a Debian image for everybody, and alice one for herself, from what docker save writes")
        target = self.cluster.directory / "scratch/image.tar"
        shutil.copyfile(demo_archive(cache), target)
        target.chmod(0o644)
        for user, options in (("root", ["--public"]), ("alice", [_PRIVATE])):
            words = ["udi", "pull", f"docker-archive:/scratch/{target.name}", *options]
            done = self.cluster.root(LOGIN, *words) if user == "root" else self._alice(*words)
            show(done.stdout)
        show(self._alice("udi", "images").stdout)

    def _commands(self) -> None:
        step(f"srun --image={NAME} on two nodes, and a step outside by --image=none")
        done = self._alice("srun", "-N2", "--ntasks-per-node=2", f"--image={NAME}", "sh", "-c", _LOOK)
        self._count(done, 4)
        inner = f"srun -N2 sh -c '{_LOOK}'; srun -N1 --image=none test -e /var/udi && echo outside"
        done = self._alice("salloc", "-N2", "-Q", f"--image={NAME}", "sh", "-c", inner)
        require("outside" in done.stdout, "a step with --image=none was not outside")
        self._count(done, 2)
        self._require_clean()

    def _batch(self) -> None:
        step("a batch script that names its image and a volume, and runs in it itself")
        script = (
            f"#!/bin/sh\n#SBATCH --image={_PRIVATE}\n#SBATCH --volume=/scratch/alice:/data\n{_LOOK}\ntouch /data/seen"
        )
        job = self._submitted("alice", script)
        self._ended(job)
        output = (self.cluster.directory / f"scratch/alice/slurm-{job}.out").read_text()
        self._count(subprocess.CompletedProcess([], 0, output, ""), 1)
        require((self.cluster.directory / "scratch/alice/seen").exists(), "the volume was not there")
        self._require_clean()

    def _shared_node(self) -> None:
        step("two users on one node at once, each in a root of the job's own")
        script = f"#!/bin/sh\n{_LOOK}\nuntil [ -e /scratch/go ]; do sleep 0.1; done"
        jobs = {user: self._submitted(user, script, "-w", "n1", f"--image={NAME}") for user in ("alice", "bob")}
        require(wait_until(lambda: self._roots("n1") == set(jobs.values()), _SECONDS), "the roots did not appear")
        show(self.cluster.root("n1", "ls", "-l", "/var/udi").stdout)
        (self.cluster.directory / "scratch/go").touch()
        for user, job in jobs.items():
            self._ended(job)
            output = (self.cluster.directory / f"scratch/{user}/slurm-{job}.out").read_text()
            self._count(subprocess.CompletedProcess([], 0, output, ""), 1, user)
        self._require_clean()

    def _refusals(self) -> None:
        step("what cannot be is refused, with the reason")
        for user, words in (
            ("alice", ["srun", "--image=demo/helo:1.0", "true"]),
            ("bob", ["srun", f"--image={_PRIVATE}", "true"]),
            ("alice", ["srun", f"--image={NAME}", "--volume=/root:/data", "true"]),
            ("alice", ["salloc", "-Q", f"--image={NAME}", "srun", "--image=another:1", "true"]),
        ):
            done = self.cluster.run_as(user, *words, cwd=f"/scratch/{user}")
            require(done.returncode != 0 and not done.stdout, f"{' '.join(words)} was not refused")
            show(done.stderr.strip().splitlines()[0] + "\n")
            self.totals.refused += 1

    def _alice(self, *words: str) -> subprocess.CompletedProcess[str]:
        out.print(f"   alice$ {' '.join(words[:5])}{' …' if len(words) > 5 else ''}", style="bold")
        done = self.cluster.run_as("alice", *words, cwd="/scratch/alice")
        require(done.returncode == 0, f"{' '.join(words)}: {(done.stderr or done.stdout).strip()}")
        return done

    def _submitted(self, user: str, script: str, *options: str) -> str:
        done = self.cluster.run_as(user, "sbatch", "--parsable", *options, input=f"{script}\n", cwd=f"/scratch/{user}")
        require(done.returncode == 0, f"sbatch: {done.stderr.strip()}")
        out.print(f"   {user}$ sbatch {' '.join(options)}: job {done.stdout.strip()}", style="bold")
        return done.stdout.strip()

    def _ended(self, job: str) -> None:
        def is_over() -> bool:
            return "JobState=COMPLETED" in self.cluster.root(LOGIN, "scontrol", "show", "job", job).stdout

        require(wait_until(is_over, _SECONDS, 0.1), f"job {job} has not completed")

    def _count(self, done: subprocess.CompletedProcess[str], tasks: int, user: str = "alice") -> None:
        """So many tasks must have been inside the image, as that user."""
        show(done.stdout)
        users = [found[2] for found in _INSIDE.finditer(done.stdout)]
        require(users == [user] * tasks, f"{len(users)} of {tasks} tasks were inside the image")
        self.totals.jobs += 1
        self.totals.tasks += tasks

    def _roots(self, node: str) -> set[str]:
        return set(re.findall(r" /var/udi/(\d+) ", self.cluster.root(node, "cat", "/proc/self/mountinfo").stdout))

    def _require_clean(self) -> None:
        self.cluster.await_states("idle")
        for node in self.cluster.names:
            require(wait_until(lambda node=node: not self._roots(node), 10), f"{node} has a root left")  # type: ignore[misc]
            self.totals.clean += 1


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@cache_option
def demo(cache: Path) -> None:
    """Show jobs of a real Slurm in images, with checks, and stop the cluster whatever happens."""
    if os.geteuid() != 0:
        raise NotPermitted(
            "the demo makes namespaces, mounts and loop devices, which needs root", "sudo make demo-slurm"
        )
    directory = Path(tempfile.mkdtemp(prefix="slurmsim-demo-"))
    cluster = Cluster(directory)
    try:
        Demo(cluster).run(cache.absolute())
    finally:
        cluster.stop()
        shutil.rmtree(directory)


if __name__ == "__main__":
    run(demo, "demo-slurm")
