"""A walk through docs/install-slurm.md: its own commands, one after another, on fresh Debian systems on which Slurm
runs already, and whose only network is their own: from the bundle, or from the sources, to the output of jobs in an
image, through the troubles that the page names, to the removal.

Three things differ from what the page says. There is no systemd, so `systemctl` is a program that starts units as they
say themselves. With the sources, apt finds its packages installed, and pip finds in a directory what it would find in
an index. Numbers of jobs are those of jobs that this walk brings into the trouble.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from slurmsim.cluster import LOGIN, Cluster
from tests.install import fresh
from tests.install.page import SLURM, Block, extended
from udi import config
from xcsim.processes import wait_until

_SECONDS = 120.0
_INSTALL_SECONDS = 400.0
_WHEELS = "/root/wheels"
_CONF = "/etc/slurm/slurm.conf"
_ROOT = {**fresh.ENVIRONMENT, "PATH": f"/opt/udi/bin:{fresh.ENVIRONMENT['PATH']}"}
_OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": _WHEELS}
_NUMBER = re.compile(r"\b1234\b")
_FIND_OURS = "find / -xdev -path /root -prune -o -regex '.*/_?udi[^/]*' -print | sort"
"""Directories of the cluster's own, which are other file systems, are named and not looked into."""
_SSHD = "mkdir -p /run/sshd; /usr/sbin/sshd"
_KEYS = "ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519; echo 'StrictHostKeyChecking no' > /root/.ssh/config"


@dataclass
class Walker:
    """Follows the page on a cluster that is up."""

    cluster: Cluster

    def follow(self, block: Block) -> str:
        """Run one block where it belongs; what it printed."""
        if block.path:
            self._write(block)
            return ""
        if "user" in block.words:
            self.cluster.await_states("idle")
            return self.cluster.run_as("alice", "sh", "-ec", block.text, check=True).stdout
        with self._trouble(block) as job:
            text = _NUMBER.sub(job, block.text)
            return "".join(self._root(host, text) for host in self._places(block))

    def _places(self, block: Block) -> list[str]:
        nodes = list(self.cluster.names)
        if "each-host" in block.words:
            return [LOGIN, *nodes] if "uninstall" not in block.text else [*nodes, LOGIN]
        if "each-node" in block.words:
            return nodes
        return nodes[:1] if "node" in block.words else [LOGIN]

    def _root(self, host: str, text: str) -> str:
        words = ["sh", "-ec", f"cd /root\n{text}"]
        done = self.cluster.host(host).run(words, env=_ROOT | _OFFLINE, check=False, timeout=_INSTALL_SECONDS)
        assert done.returncode == 0, f"on {host}: {text}\n{done.stdout}{done.stderr}"
        return f"{done.stdout}{done.stderr}"

    def _write(self, block: Block) -> None:
        """A file of the page's, or what it adds to one."""
        path = self.cluster.login.path(block.path)
        present = path.read_text() if path.exists() else ""
        path.write_text(extended(present, block.text) if block.words[0] == "toml" else present + block.text)
        path.chmod(0o644)

    # -- troubles -------------------------------------------------------------------------------------------------

    @contextmanager
    def _trouble(self, block: Block) -> Iterator[str]:
        """The number of the job that the block is about, where it is about one; all is well again afterwards."""
        if "job-left" in block.words:
            with self._without_epilog():
                yield self._job_left()
        elif "job-held" in block.words:
            job = self._job_held()
            yield job
            self._await_completed(job)
        elif "drained" in block.words:
            nodes = self.cluster.names[:1] if "node" in block.words else self.cluster.names
            self._root(LOGIN, f"udi-nodehealth admindown '{','.join(nodes)}'")
            assert [self.cluster.states()[name] for name in nodes] == ["drained"] * len(nodes)
            yield ""
        else:
            yield ""
            return
        self.cluster.await_states("idle")

    def _submit(self, *words: str) -> str:
        done = self.cluster.run_as("alice", "sbatch", "--parsable", "--image=debian:12", *words, check=True)
        return done.stdout.strip()

    def _await_job(self, job: str, *wanted: str) -> None:
        def shown() -> str:
            return self._root(LOGIN, f"scontrol show job {job}")

        assert wait_until(lambda: all(each in shown() for each in wanted), _SECONDS, 0.2), shown()

    def _await_completed(self, job: str) -> None:
        self._await_job(job, "JobState=COMPLETED")

    @contextmanager
    def _changed(self, path: str, changes: Mapping[str, str]) -> Iterator[None]:
        """A file with other text for some patterns, for a while."""
        file = self.cluster.login.path(path)
        present = file.read_text()
        text = present
        for pattern, other in changes.items():
            text, count = re.subn(pattern, other, text, flags=re.MULTILINE)
            assert count == 1, pattern
        try:
            file.write_text(text)
            yield
        finally:
            file.write_text(present)

    @contextmanager
    def _without_epilog(self) -> Iterator[None]:
        """Slurm runs other programs than our Epilog and health check."""
        others = {rf"^{name}=.*$": f"{name}=/bin/true" for name in ("Epilog", "HealthCheckProgram")}
        with self._changed(_CONF, others):
            self._root(LOGIN, "scontrol reconfigure")
            yield
        self._root(LOGIN, "scontrol reconfigure")

    def _job_left(self) -> str:
        """A job that has ended on the first node, and is still there."""
        job = self._submit(f"--nodelist={self.cluster.names[0]}", "--wrap=true")
        self._await_completed(job)
        self.cluster.await_states("idle")
        return job

    def _job_held(self) -> str:
        """A job that could not be started while the store was away."""
        job = self._submit("--hold", "--requeue", "--wrap=true")
        with self._changed(config.DEFAULT_PATH, {'^path = "/scratch/udi"$': 'path = "/scratch/away"'}):
            self._root(LOGIN, f"scontrol release {job}")
            self._await_job(job, "AdminComment=shifter-xc: ", ", held)", "JobState=PENDING")
        self.cluster.await_states("idle")
        return job


def _furnish(cluster: Cluster) -> None:
    """What the site has: users, who are not ours, ssh for root between its hosts, Slurm and no systemd."""
    cluster.root(LOGIN, "sh", "-ec", f"mkdir -p -m 0700 /root/.ssh; {_KEYS}")
    key = cluster.login.path("/root/.ssh/id_ed25519.pub").read_text()
    for host in cluster.hosts():
        fresh.put_systemctl(host.path("/"))
        host.run(["userdel", "udi"], env=_ROOT)  # the page makes the account itself
        if host is not cluster.login:
            host.run(["sh", "-ec", f"mkdir -p -m 0700 /root/.ssh; cat > /root/.ssh/authorized_keys; {_SSHD}"],
                     input=key, env=_ROOT)  # fmt: skip
    (cluster.directory / "scratch/udi").rmdir()
    cluster.configure({"PrologFlags": ""})
    cluster.root(LOGIN, "systemctl", "start", "slurmctld")
    for name in cluster.names:
        cluster.root(name, "systemctl", "start", "slurmd")
    assert wait_until(lambda: set(cluster.states().values()) == {"idle"}, _SECONDS, 0.2)


def _put_sources(cluster: Cluster, wheels: Path) -> None:
    """The source tree as root's directory, and what pip installs from it."""
    root = cluster.login.path("/root")
    packed = subprocess.run(["git", "archive", "HEAD"], cwd=fresh.ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", root], input=packed, check=True)
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(wheels)]
    subprocess.run([*download, "--constraint", "constraints.txt", "."], cwd=fresh.ROOT, check=True)
    subprocess.run([*download, "--requirement", "packaging/build-constraints.txt"], cwd=fresh.ROOT, check=True)
    subprocess.run(["cp", "-r", wheels, cluster.login.path(_WHEELS)], check=True)


@pytest.fixture(params=SLURM.choices)
def choice(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def walker(choice: str, tmp_path: Path) -> Iterator[Walker]:
    """A cluster of a login host and two nodes that share /opt/udi, /etc/udi and /etc/slurm, with what is to be
    installed in root's directory."""
    system = fresh.SLURM if choice == "from-bundle" else fresh.SLURM_WITH_COMPILERS
    cluster = Cluster(tmp_path / "cluster", system=str(fresh.tree(system)))
    try:
        cluster.start()
        _furnish(cluster)
        if choice == "from-source":
            _put_sources(cluster, tmp_path / "wheels")
        else:
            for file in fresh.bundle():
                cluster.login.path(f"/root/{file.name}").write_bytes(file.read_bytes())
        fresh.image(cluster.directory / "home/alice/debian.tar", fresh.NEW)
        yield Walker(cluster)
    finally:
        cluster.stop()


def test_the_page_leads_to_jobs_in_an_image_and_back(walker: Walker, choice: str) -> None:
    network = walker.cluster.login.run(["ip", "route", "get", "192.0.2.1"], env=_ROOT, check=False)
    assert "Network is unreachable" in network.stderr
    for block in SLURM.blocks(choice):
        print(f"--- {' '.join(block.words)}\n{block.text}")
        said = walker.follow(block)
        print(said, flush=True)
        if "user" in block.words:
            assert said.count("VERSION_CODENAME=bookworm") == 2
    for host in walker.cluster.hosts():
        assert host.run(["sh", "-c", _FIND_OURS], env=_ROOT, check=False).stdout.split() == ["/etc/udi", "/opt/udi"]
