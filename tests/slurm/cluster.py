"""A cluster with shifter-xc, its users and their images, as the tests of whole jobs use it."""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slurmsim import site
from slurmsim.cluster import LOGIN, Cluster
from tests.slurm.waiting import without_waiting
from tests.system import images
from xcsim import loops, shared_root
from xcsim.processes import wait_until
from xcsim.site import Tables

ALICE, BOB = 1001, 1002
LOOK = 'echo "$(hostname -s) $(cat /etc/marker 2>/dev/null || echo NO IMAGE) $(id -u)"'
"""What a task says of where it runs; a node has no such file."""
_SECONDS = 60.0


@dataclass
class Slurm:
    """The cluster, up. alice has tiny:1, bob has secret:1 of his own, everybody tools:1."""

    cluster: Cluster
    ids: dict[str, str] = field(default_factory=dict)
    _token: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def up(self, slurm: Mapping[str, str] | None = None, tables: Tables | None = None) -> None:
        """Bring it up, with further parameters of slurm.conf, and tables of udi.toml."""
        self.cluster.start()
        site.install(self.cluster, tables or {}, slurm or {})
        site.start_gateway(self.cluster)
        self.cluster.start_slurm()
        for user, name in (("alice", "tiny:1"), ("bob", "secret:1"), ("root", "tools:1")):
            self.pull(user, name, *(["--public"] if user == "root" else []))

    @contextmanager
    def configured(self, changes: Tables) -> Iterator[None]:
        """The site's configuration with these changes, for a while."""
        site.configure(self.cluster, changes)
        try:
            yield
        finally:
            site.configure(self.cluster, {})

    @contextmanager
    def answering(self, answer: str) -> Iterator[None]:
        """For a while nothing judges a submission: the plugin is told this, as a user might forge it."""
        program = self.cluster.directory / "opt/bin/udi-slurm-submit"
        text = program.read_text()
        program.write_text(f"#!/bin/sh\nprintf '%s' '{answer}'\n")
        try:
            yield
        finally:
            program.write_text(text)

    def marker(self, name: str) -> str:
        """What the image says of itself."""
        return f"{name}-{self._token}"

    def pull(self, user: str, name: str, *options: str, layers: Any = None) -> None:
        """A tiny image, made and pulled by that user."""
        who = shared_root.account(user)
        assert who
        archive = self.cluster.directory / f"scratch/{name.replace(':', '-')}.tar"
        made = layers if layers is not None else images.tiny(self.marker(name))
        self.ids[name] = images.save(archive, made, name, (who.uid, who.uid))
        inside = f"docker-archive:/scratch/{archive.name}"
        done = self.run(user, "udi", "pull", inside, *options)
        assert done.returncode == 0, done.stderr

    # -- jobs -------------------------------------------------------------------------------------------------

    def run(self, user: str, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """A command of a user on the login host, in /scratch of that user's own."""
        if user == "root":
            return self.cluster.root(LOGIN, *words, check=False, **more)
        return self.cluster.run_as(user, *words, **{"cwd": f"/scratch/{user}", **more})

    def batch(self, user: str, script: str, *options: str, **more: Any) -> tuple[int, str]:
        """The exit code of a batch script, and what it wrote; of one that was refused, what sbatch said."""
        done = self.run(user, "sbatch", "--parsable", *options, input=f"#!/bin/sh\n{script}\n", **more)
        job = done.stdout.strip()
        if not job:
            return done.returncode, done.stderr
        self.await_state(job, "COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL")
        shown = self.cluster.root(LOGIN, "scontrol", "show", "job", job).stdout
        code = re.search(r" ExitCode=(\d+):(\d+)", shown)
        assert code, shown
        return int(code[1]) or 128 * (code[2] != "0"), self.output(user, job)

    def submit(self, user: str, script: str, *options: str, **more: Any) -> str:
        """The id of a batch job."""
        done = self.run(user, "sbatch", "--parsable", *options, input=f"#!/bin/sh\n{script}\n", **more)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().partition(";")[0]

    def output(self, user: str, job: str) -> str:
        path = self.scratch(user) / f"slurm-{job}.out"
        return without_waiting(path.read_text()) if path.exists() else ""

    def scratch(self, user: str) -> Path:
        return self.cluster.directory / f"scratch/{user}"

    def state(self, job: str) -> str:
        """A job's state, in Slurm's words; empty for one that it does not know."""
        shown = self.cluster.root(LOGIN, "scontrol", "show", "job", job, check=False).stdout
        found = re.search(r"JobState=(\w+) Reason=(\S+)", shown)
        return f"{found[1]} {found[2]}" if found else ""

    def await_state(self, job: str, *wanted: str, seconds: float = _SECONDS) -> str:
        """Wait until a job is in one of these states; the state that it was seen in."""
        seen = ""

        def is_there() -> bool:
            nonlocal seen
            seen = self.state(job)
            return seen.split(" ")[0] in wanted

        assert wait_until(is_there, seconds, 0.05), f"job {job} is {seen}"
        return seen

    def await_file(self, path: Path) -> None:
        """Wait until a job has made a file."""
        assert wait_until(path.exists, _SECONDS, 0.02), f"{path} does not exist; {self.cluster.states()}"

    # -- nodes ------------------------------------------------------------------------------------------------

    def roots(self, node: str) -> set[str]:
        """The jobs that have a root on a node."""
        done = self.cluster.root(node, "cat", "/proc/self/mountinfo")
        return set(re.findall(r" /var/udi/(\d+) ", done.stdout))

    def left(self, node: str) -> list[str]:
        """Everything of shifter-xc's on a node: mounts, files, loop devices."""
        mounts = self.cluster.root(node, "cat", "/proc/self/mountinfo").stdout.splitlines()
        found = [line for line in mounts if " udi:" in line or "/var/udi/" in line or "/run/udi/" in line]
        files = self.cluster.root(node, "sh", "-c", "ls -A /var/udi /run/udi /run/udi-slurm 2>/dev/null", check=False)
        found += [line for line in files.stdout.splitlines() if line and not line.endswith(":")]
        return found + [f"{one.name} {one.path}" for one in loops.of_node(self.cluster.host(node).pid)]

    def await_clean(self) -> None:
        """Wait until every node is idle and has nothing of any job."""
        self.cluster.await_states("idle", seconds=_SECONDS)
        for node in self.cluster.names:
            assert wait_until(lambda node=node: not self.left(node), 30, 0.05), self.left(node)  # type: ignore[misc]

    def tasks(self, node: str) -> list[str]:
        """The programs of users on a node, each with the root directory that it has."""
        script = (
            "for p in /proc/[0-9]*; do"
            ' [ "$(stat -c %u $p 2>/dev/null)" -ge 1000 ] 2>/dev/null || continue;'
            " root=$(readlink $p/root) || continue;"
            ' echo "$root $(tr "\\0" " " <$p/cmdline)"; done'
        )
        return self.cluster.root(node, "sh", "-c", script, check=False).stdout.splitlines()

    def cancel(self) -> None:
        """Cancel every job of the users."""
        for user in ("alice", "bob"):
            self.cluster.root(LOGIN, "scancel", "-u", user, check=False)

    def reset(self) -> None:
        """Cancel what runs, resume what is drained, and remove what jobs wrote."""
        self.cancel()
        for name, state in self.cluster.states().items():
            if "drain" in state or "down" in state:
                self.cluster.root(LOGIN, "scontrol", "update", f"nodename={name}", "state=resume", check=False)
        for user in ("alice", "bob"):
            for path in self.scratch(user).iterdir():
                if path.is_file():
                    os.unlink(path)
