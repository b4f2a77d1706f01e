"""`make demo`: the main job on a one-machine Cray XC, shown as it goes.

A Debian image is in the center's registry; a job names it, is submitted, and runs in it on four nodes; the same again
with a process that keeps the image busy when the job ends; and with one that teardown must not kill, so that its node
is set admindown and brought back. Every claim that is printed was checked; the first one that is false stops the
demo with one line and exit code 1.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import click

from udi.commandline import run
from udi.nodes import numbered, parse_numbered
from udiroot.errors import NotPermitted
from xcsim import registry
from xcsim.debian import NAME, cache_option, demo_archive
from xcsim.entering import Entry
from xcsim.machine import Machine
from xcsim.node import kill_program
from xcsim.picture import NodePicture
from xcsim.processes import wait_until
from xcsim.telling import out, require, show, step

_PRIVATE = "alice/hello:1.0"
_LOG = "/var/log/udi/hooks.log"
_SET_UP = re.compile(r" ready on ([0-9]+) nodes?; (?:.* median )?([0-9]+) ms$")
_TORN_DOWN = re.compile(r" INFO teardown: (\S+): (?:.* median )?([0-9]+) ms$")
_SCRIPT = """\
#!/bin/bash
#PBS -N demo
#PBS -l nodes=4:ppn=2
aprun -n 8 -N 2 -b /opt/udi/bin/udi-run
status=$?
touch $HOME/ranks-done
while [ -e $HOME/wait ]; do sleep 0.1; done
exit $status
"""
_LAUNCHER = """\
#!/bin/bash
#PBS -N launcher
#PBS -l nodes=4:ppn=2
aprun -n 1 -N 1 -b /opt/udi/bin/udi-run sh -c '
rank=0
for node in $(cat /var/nodelist); do
    ssh $node ALPS_APP_PE=$rank python3 -I /opt/app/rank.py &
    rank=$((rank + 1))
done
wait'
"""
_SITE = {
    "node": {
        "nid_file": "/etc/xcsim/nid",
        "filesystems": [{"source": "/scratch"}, {"source": "/home"}, {"source": "/etc/xcsim", "read_only": True}],
    }
}
_HELD, _DIRTY = numbered(21), numbered(22)
"""The nodes where something is left behind."""
_SECONDS = 60.0


@dataclass
class Totals:
    """What is counted for the last line; of each step on nodes its median, in milliseconds, as the log has it."""

    began: float = field(default_factory=time.monotonic)
    jobs: int = 0
    ranks: int = 0
    clean_nodes: int = 0
    set_up: int = 0
    torn_down: int = 0
    setup_ms: list[int] = field(default_factory=list)
    teardown_ms: list[int] = field(default_factory=list)

    def line(self) -> str:
        seconds = time.monotonic() - self.began
        return (
            f"demo: {self.jobs} jobs, {self.ranks} ranks inside the image; {self.set_up} nodes set up (median "
            f"{statistics.median(self.setup_ms):.0f} ms) and {self.torn_down} torn down (median "
            f"{statistics.median(self.teardown_ms):.0f} ms); {self.clean_nodes} pictures of nodes before and after are "
            f"equal; 1 node was set admindown with its reason and brought back; {seconds:.0f} s, 0 failures"
        )


class Demo:
    """The machine, the totals, and how much of the hooks' log has been shown."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.totals = Totals()
        self._shown = 0

    def run(self, cache: Path) -> None:
        step("a machine with four compute nodes, each in its own namespaces, with the site's software installed")
        self.machine.up(site_changes=_SITE)
        show(self._command("root", "xtprocadmin"))
        archive = self._push(cache)
        self._plain_job()
        self._private_image(archive)
        self._job_of_a_launcher()
        self._job_with_a_holder()
        self._job_that_leaves_a_dirty_node()
        step("nothing is left behind")
        show(self._command("root", "udi-admin", "status"))
        out.print(f"\n[bold green]{self.totals.line()}[/]")

    # -- the steps --------------------------------------------------------------------------------------------------

    def _push(self, cache: Path) -> Path:
        step("a real image: Debian minbase with python3 by debootstrap, three layers, as `docker save` writes it")
        archive = demo_archive(cache)
        show(f"{archive}: {archive.stat().st_size >> 20} MiB")
        registry.push(self.machine, archive, NAME)
        show(f"pushed to the center's registry: {registry.name(self.machine)}/{NAME}")
        return archive

    def _plain_job(self) -> None:
        step(
            f"a job: qsub -v UDI={NAME}; nobody has pulled it yet, so qsub has it pulled, and pins the tag to its image"
        )
        before = self._pictures()
        job = self._submit()
        done = self.machine.run_as("alice", ["/opt/udi/bin/udi-submit-filter", "-v", f"UDI={NAME}"], input=_SCRIPT)
        pinned = [line for line in done.stdout.splitlines() if line.startswith("#UDI pinned")]
        require(len(pinned) == 1, f"the submit filter pinned nothing: {done.stderr}")
        show(f"in the script: {pinned[0]}")
        self._finish(job, before)

    def _private_image(self, archive: Path) -> None:
        step(f"an image of alice's own: udi pull docker-archive:demo-image.tar {_PRIVATE}")
        inside = self.machine.path("/home/alice/demo-image.tar")
        shutil.copyfile(archive, inside)
        inside.chmod(0o644)
        show(self._command("alice", "udi", "pull", "docker-archive:/home/alice/demo-image.tar", _PRIVATE))
        show(self._command("alice", "udi", "images"))
        seen = self._command("bob", "udi", "images")
        require(_PRIVATE not in seen, "bob sees alice's private image")
        require(NAME in seen, "bob does not see the registry's image")
        show("bob sees what the registry serves to everybody, and not what alice imported from a file")

    def _job_of_a_launcher(self) -> None:
        step("a program inside the image starts others on the job's nodes by ssh, with keys made for this job alone")
        self.machine.configure_site({**_SITE, "ssh": {"enabled": True}})
        before = self._pictures()
        self._finish(self._submit(_LAUNCHER), before)
        self.machine.configure_site(_SITE)

    def _job_with_a_holder(self) -> None:
        step(f"the same job, with a process of alice's left on {_HELD} that keeps the image busy and ignores SIGTERM")
        before = self._pictures()
        job = self._submit(waiting=True)
        script = "trap '' TERM; while :; do sleep 1; done"
        held = self._hold(21, ["/bin/sh", "-c", script], Entry(1001, 1001, (1001,), root="/var/udi"))
        self._release()
        self._finish(job, before)
        status = held.wait(_SECONDS)
        require(status == -signal.SIGKILL, f"the process left on {_HELD} exited with {status}, not by SIGKILL")

    def _job_that_leaves_a_dirty_node(self) -> None:
        step(f"the same job, with a problem that teardown must not fix: a daemon of root's uses the image on {_DIRTY}")
        before = self._pictures()
        job = self._submit(waiting=True)
        held = self._hold(22, ["/bin/sleep", "100000"], Entry(0, 0, cwd="/var/udi/usr"))
        self._release()
        self.machine.wait_job(job, timeout=_SECONDS)
        self._show_log()
        self._count_ranks(job)
        states = self.machine.node_states()
        require(states[22] == "admindown", f"{_DIRTY} is {states[22]}, not admindown")
        show(self._command("root", "xtprocadmin"))
        show(self._command("root", "udi-admin", "status"))
        step("no job is placed there: one that requests four nodes waits, one that requests three runs")
        waiting = self._qsub("nodes=4:ppn=2")
        running = self._qsub("nodes=3:ppn=1")
        self.machine.wait_job(running, timeout=_SECONDS)
        state = self.machine.job(waiting)["job_state"]
        require(state == "Q", f"the job for four nodes is in state {state}, not queued")
        self._command("alice", "/usr/bin/qdel", waiting)
        show(f"{running} ran on three nodes, {waiting} waited")
        step(f"the operator stops that daemon and brings the node back: udi-admin recover {_DIRTY}")
        kill_program(held)
        held.wait()
        show(self._command("root", "udi-admin", "recover", _DIRTY.name))
        self._show_log()
        states = self.machine.node_states()
        require(set(states.values()) == {"up"}, f"not all nodes are up: {states}")
        self._compare(before)

    # -- jobs -------------------------------------------------------------------------------------------------------

    def _submit(self, script: str = _SCRIPT, *, waiting: bool = False) -> str:
        """Submit the demo's job; with `waiting`, return when its ranks are done and it waits for `_release`."""
        for name in ("wait", "ranks-done"):
            self._home(name).unlink(missing_ok=True)
        if waiting:
            self._home("wait").touch()
        command = ["/usr/bin/qsub", "-v", f"UDI={NAME},UDI_VOLUMES=/scratch/alice:/output"]
        done = self.machine.run_as("alice", command, input=script)
        require(done.returncode == 0, f"qsub failed: {done.stderr}")
        job = done.stdout.strip()
        show(f"{done.stderr}{job} submitted")
        self.totals.jobs += 1
        if waiting:
            require(wait_until(self._home("ranks-done").exists, _SECONDS, 0.05), f"{job}: its ranks did not finish")
        return job

    def _qsub(self, nodes: str) -> str:
        script = "#!/bin/bash\naprun -n 3 -N 1 -b /opt/udi/bin/udi-run /bin/true\n"
        self.totals.jobs += 1
        return self.machine.qsub("alice", ["-l", nodes, "-v", f"UDI={NAME}"], script)

    def _release(self) -> None:
        self._home("wait").unlink()

    def _home(self, name: str) -> Path:
        return self.machine.path(f"/home/alice/{name}")

    def _finish(self, job: str, before: dict[int, NodePicture]) -> None:
        """Wait for the end of the job, show its output and the hooks' log, and compare the nodes."""
        ended = self.machine.wait_job(job, timeout=_SECONDS)
        self._show_log()
        show(self.machine.output(job))
        status = ended["exit_status"]
        require(status == "0", f"{job} exited with {status}: {self.machine.output(job, 'e')}")
        self._count_ranks(job)
        self._check_health()
        self._compare(before)

    def _count_ranks(self, job: str) -> None:
        """Every rank's own line shows that it ran in the image, as the user, without set-uid programs and devices."""
        ranks = set()
        for line in self.machine.output(job).splitlines():
            fields = dict(field.partition("=")[::2] for field in line.split("; "))
            inside = fields.get("system", "").startswith("Debian GNU/Linux 12 ") and fields.get("uid") == "1001"
            if inside and {"nosuid", "nodev"} <= set(fields.get("usr", "").split(",")):
                ranks.add(fields["rank"])
        require(len(ranks) == 8, f"{len(ranks)} of 8 ranks ran inside the image")
        self.totals.ranks += len(ranks)

    # -- nodes ------------------------------------------------------------------------------------------------------

    def _pictures(self) -> dict[int, NodePicture]:
        return {nid: node.snapshot() for nid, node in self.machine.nodes().items()}

    def _compare(self, before: dict[int, NodePicture]) -> None:
        for nid, later in self._pictures().items():
            difference = before[nid].difference(later)
            require(not difference, f"{numbered(nid)} is not as it was before the job: {difference[:3]}")
            self.totals.clean_nodes += 1
        show("mounts, loop devices, processes and files of all nodes are as they were before the job")

    def _check_health(self) -> None:
        """The health check on every node, as NHC runs it."""
        check = "/dsl/opt/udi/node/nodehealth-check"
        for nid, node in self.machine.nodes().items():
            done = node.run(["/bin/sh", check])
            require(done.returncode == 0, f"{numbered(nid)} fails the health check: {done.stdout}")
        show("the health check passes on all nodes")

    def _hold(self, nid: int, argv: list[str], entry: Entry) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        process = self.machine.node(nid).popen(argv, entry=entry, stdout=quiet, stderr=quiet)
        time.sleep(0.2)
        require(process.poll() is None, f"the process left on {numbered(nid)} exited")
        return process

    # -- showing ----------------------------------------------------------------------------------------------------

    def _command(self, user: str, program: str, *words: str) -> str:
        paths = {"xtprocadmin": "/opt/cray/sdb/default/bin/xtprocadmin"}
        path = paths.get(program, program if program.startswith("/") else f"/opt/udi/bin/{program}")
        done = self.machine.run_as(user, [path, *words])
        require(done.returncode == 0, f"{program} {' '.join(words)} failed: {done.stderr or done.stdout}")
        return done.stdout + done.stderr

    def _show_log(self) -> None:
        """Show what the hooks have logged since the last time, and count the nodes of each step."""
        text = self.machine.path(_LOG).read_text()[self._shown :]
        self._shown += len(text)
        for line in text.splitlines():
            if " DEBUG " in line:
                continue
            show(line)
            if found := _SET_UP.search(line):
                self.totals.set_up += int(found[1])
                self.totals.setup_ms.append(int(found[2]))
            elif found := _TORN_DOWN.search(line):
                self.totals.torn_down += len(parse_numbered(found[1]))
                self.totals.teardown_ms.append(int(found[2]))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/xcsim-demo"),
    show_default=True,
    help="State directory of the demo's machine.",
)
@cache_option
def demo(state: Path, cache: Path) -> None:
    """Show the main job on a one-machine Cray XC, with checks, and stop the machine whatever happens."""
    if os.geteuid() != 0:
        raise NotPermitted("the demo makes namespaces, mounts and loop devices, which needs root", "sudo make demo")
    machine = Machine(state)
    try:
        machine.down()
        Demo(machine).run(cache.absolute())
    finally:
        machine.down()


if __name__ == "__main__":
    run(demo, "demo")
