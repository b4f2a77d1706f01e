"""`make demo`: the main job on a one-machine Cray XC, shown as it goes.

A Debian image lies in the centre's registry; a job names it, is submitted, and runs in it on four nodes; the same
again with a process that holds the image when the job ends; and with one that teardown may not end, so that its node
goes admindown and is brought back. Every claim that is printed was checked; the first one that does not hold ends the
demo with its line and exit code 1.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from udiroot.errors import NotPermitted, UdiError, complain
from xcsim import registry
from xcsim.debian import NAME, demo_archive
from xcsim.entering import Entry
from xcsim.machine import Machine
from xcsim.node import kill_program
from xcsim.picture import NodePicture
from xcsim.processes import wait_until

_PRIVATE = "alice/hello:1.0"
_LOG = "/var/log/udi/hooks.log"
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
_SECONDS = 60.0
_out = Console(highlight=False, soft_wrap=True)


class DemoFailed(UdiError):
    """Something that the demo claims did not hold."""


@dataclass
class Totals:
    """What is counted for the last line."""

    began: float = field(default_factory=time.monotonic)
    jobs: int = 0
    ranks: int = 0
    clean_nodes: int = 0
    setup_ms: list[int] = field(default_factory=list)
    teardown_ms: list[int] = field(default_factory=list)

    def line(self) -> str:
        seconds = time.monotonic() - self.began
        return (
            f"demo: {self.jobs} jobs, {self.ranks} ranks inside the image; {len(self.setup_ms)} nodes set up (median "
            f"{statistics.median(self.setup_ms):.0f} ms) and {len(self.teardown_ms)} torn down (median "
            f"{statistics.median(self.teardown_ms):.0f} ms); {self.clean_nodes} pictures of nodes before and after are "
            f"equal; 1 node went admindown with its reason and came back; {seconds:.0f} s, 0 failures"
        )


class Demo:
    """The machine, the totals, and how far the hooks' log has been shown."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.totals = Totals()
        self._shown = 0

    def run(self, cache: Path) -> None:
        _step("a machine with four compute nodes, each in namespaces of its own, with the site's software installed")
        self.machine.up(site_changes=_SITE)
        _say(self._command("root", "xtprocadmin"))
        archive = self._push(cache)
        self._plain_job()
        self._private_image(archive)
        self._job_of_a_launcher()
        self._job_with_a_holder()
        self._job_that_leaves_a_dirty_node()
        _step("what is left: nothing")
        _say(self._command("root", "udi-admin", "status"))
        _out.print(f"\n[bold green]{self.totals.line()}[/]")

    # -- the steps --------------------------------------------------------------------------------------------------

    def _push(self, cache: Path) -> Path:
        _step("a real image: Debian minbase with python3 by debootstrap, three layers, as `docker save` writes it")
        archive = demo_archive(cache)
        _say(f"{archive} holds {archive.stat().st_size >> 20} MiB")
        registry.push(self.machine, archive, NAME)
        _say(f"pushed to the centre's registry: {registry.name(self.machine)}/{NAME}")
        return archive

    def _plain_job(self) -> None:
        _step(
            f"a job: qsub -v UDI={NAME}; nobody has pulled that yet, so qsub has it pulled, and pins what it stands for"
        )
        before = self._pictures()
        job = self._submit()
        done = self.machine.run_as("alice", ["/opt/udi/bin/udi-submit-filter", "-v", f"UDI={NAME}"], input=_SCRIPT)
        pinned = [line for line in done.stdout.splitlines() if line.startswith("#UDI pinned")]
        _require(len(pinned) == 1, f"the submit filter pinned nothing: {done.stderr}")
        _say(f"in the script: {pinned[0]}")
        self._finish(job, before)

    def _private_image(self, archive: Path) -> None:
        _step(f"an image of alice's own: udi pull docker-archive:demo-image.tar {_PRIVATE}")
        inside = self.machine.path("/home/alice/demo-image.tar")
        shutil.copyfile(archive, inside)
        inside.chmod(0o644)
        _say(self._command("alice", "udi", "pull", "docker-archive:/home/alice/demo-image.tar", _PRIVATE))
        _say(self._command("alice", "udi", "images"))
        seen = self._command("bob", "udi", "images")
        _require(_PRIVATE not in seen, "bob sees alice's private image")
        _require(NAME in seen, "bob does not see the registry's image")
        _say("bob sees what the registry gives to everybody, and not what alice brought in as a file")

    def _job_of_a_launcher(self) -> None:
        _step("a program inside the image starts eight others on the job's nodes: ssh, with keys of this job alone")
        self.machine.configure_site({**_SITE, "ssh": {"enabled": True}})
        before = self._pictures()
        self._finish(self._submit(_LAUNCHER), before)
        self.machine.configure_site(_SITE)

    def _job_with_a_holder(self) -> None:
        _step("the same job, with a process of alice's left on nid00021 that holds the image and ignores SIGTERM")
        before = self._pictures()
        job = self._submit(waiting=True)
        script = "trap '' TERM; while :; do sleep 1; done"
        held = self._hold(21, ["/bin/sh", "-c", script], Entry(1001, 1001, (1001,), root="/var/udi"))
        self._release(job)
        report = self._finish(job, before)
        held.wait()
        _require("ended 1 processes" in report or "ended 2 processes" in report, "teardown did not say whom it ended")

    def _job_that_leaves_a_dirty_node(self) -> None:
        _step("the same job, with a fault that teardown may not mend: a daemon of root's works inside the image")
        before = self._pictures()
        job = self._submit(waiting=True)
        held = self._hold(22, ["/bin/sleep", "100000"], Entry(0, 0, cwd="/var/udi/usr"))
        self._release(job)
        self.machine.wait_job(job, timeout=_SECONDS)
        self._show_log()
        self._count_ranks(job)
        states = self.machine.node_states()
        _require(states[22] == "admindown", f"nid00022 is {states[22]}, not admindown")
        _say(self._command("root", "xtprocadmin"))
        _say(self._command("root", "udi-admin", "status"))
        _step("no job is placed there: one that wants four nodes waits, one that wants three runs")
        waiting = self._qsub("nodes=4:ppn=2")
        running = self._qsub("nodes=3:ppn=1")
        self.machine.wait_job(running, timeout=_SECONDS)
        state = self.machine.job(waiting)["job_state"]
        _require(state == "Q", f"the job for four nodes is in state {state}, not queued")
        self._command("alice", "/usr/bin/qdel", waiting)
        _say(f"{running} ran on three nodes, {waiting} waited")
        _step("the operator ends that daemon, and brings the node back: udi-admin recover nid00022")
        kill_program(held)
        held.wait()
        _say(self._command("root", "udi-admin", "recover", "nid00022"))
        self._show_log()
        states = self.machine.node_states()
        _require(set(states.values()) == {"up"}, f"not all nodes are up: {states}")
        self._compare(before)

    # -- jobs -------------------------------------------------------------------------------------------------------

    def _submit(self, script: str = _SCRIPT, *, waiting: bool = False) -> str:
        """Submit the demo's job; with `waiting`, come back when its ranks are done and it waits for `_release`."""
        for name in ("wait", "ranks-done"):
            self._home(name).unlink(missing_ok=True)
        if waiting:
            self._home("wait").touch()
        command = ["/usr/bin/qsub", "-v", f"UDI={NAME},UDI_VOLUMES=/scratch/alice:/output"]
        done = self.machine.run_as("alice", command, input=script)
        _require(done.returncode == 0, f"qsub failed: {done.stderr}")
        job = done.stdout.strip()
        _say(f"{done.stderr}{job} submitted")
        self.totals.jobs += 1
        if waiting:
            _require(wait_until(self._home("ranks-done").exists, _SECONDS, 0.05), f"{job}: its ranks did not end")
        return job

    def _qsub(self, nodes: str) -> str:
        script = "#!/bin/bash\naprun -n 3 -N 1 -b /opt/udi/bin/udi-run /bin/true\n"
        self.totals.jobs += 1
        return self.machine.qsub("alice", ["-l", nodes, "-v", f"UDI={NAME}"], script)

    def _release(self, job: str) -> None:
        self._home("wait").unlink()

    def _home(self, name: str) -> Path:
        return self.machine.path(f"/home/alice/{name}")

    def _finish(self, job: str, before: dict[int, NodePicture]) -> str:
        """Wait for the job's end, show what it and the hooks said, and compare the nodes; what the hooks said."""
        ended = self.machine.wait_job(job, timeout=_SECONDS)
        said = self._show_log()
        _say(self.machine.output(job))
        status = ended["exit_status"]
        _require(status == "0", f"{job} ended with {status}: {self.machine.output(job, 'e')}")
        self._count_ranks(job)
        self._check_health()
        self._compare(before)
        return said

    def _count_ranks(self, job: str) -> None:
        """Every rank's own line says that it ran in the image, as the user, without set-uid programs and devices."""
        output = self.machine.output(job)
        ranks = re.findall(r"^rank \d+ on nid\d+: Debian GNU/Linux 12 .*, uid 1001, .*nosuid,nodev", output, re.M)
        _require(len(ranks) == 8, f"{len(ranks)} of 8 ranks ran inside the image")
        self.totals.ranks += len(ranks)

    # -- nodes ------------------------------------------------------------------------------------------------------

    def _pictures(self) -> dict[int, NodePicture]:
        return {nid: node.snapshot() for nid, node in self.machine.nodes().items()}

    def _compare(self, before: dict[int, NodePicture]) -> None:
        for nid, later in self._pictures().items():
            difference = before[nid].difference(later)
            _require(not difference, f"nid{nid:05d} is not as it was: {difference[:3]}")
            self.totals.clean_nodes += 1
        _say("mounts, loop devices, processes and files of all nodes are as they were before the job")

    def _check_health(self) -> None:
        """The health check of every node, by hand, as NHC runs it."""
        check = "/dsl/opt/udi/node/nodehealth-check"
        for nid, node in self.machine.nodes().items():
            done = node.run(["/bin/sh", check])
            _require(done.returncode == 0, f"nid{nid:05d} fails the health check: {done.stdout}")
        _say("the health check passes on all nodes")

    def _hold(self, nid: int, argv: list[str], entry: Entry) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        process = self.machine.node(nid).popen(argv, entry=entry, stdout=quiet, stderr=quiet)
        time.sleep(0.2)
        _require(process.poll() is None, f"no process could be left on nid{nid:05d}")
        return process

    # -- showing ----------------------------------------------------------------------------------------------------

    def _command(self, user: str, program: str, *words: str) -> str:
        places = {"xtprocadmin": "/opt/cray/sdb/default/bin/xtprocadmin"}
        path = places.get(program, program if program.startswith("/") else f"/opt/udi/bin/{program}")
        done = self.machine.run_as(user, [path, *words])
        _require(done.returncode == 0, f"{program} {' '.join(words)} failed: {done.stderr or done.stdout}")
        return done.stdout + done.stderr

    def _show_log(self) -> str:
        """What the hooks logged since the last time, times and all, for a person; the milliseconds are counted."""
        text = self.machine.path(_LOG).read_text()[self._shown :]
        self._shown += len(text)
        lines = [line for line in text.splitlines() if " DEBUG " not in line]
        for line in lines:
            _say(line)
        self.totals.setup_ms += [int(ms) for ms in re.findall(r"INFO set-up: nid\d+: (\d+) ms", text)]
        self.totals.teardown_ms += [int(ms) for ms in re.findall(r"teardown: nid\d+: (\d+) ms", text)]
        return text


def _step(text: str) -> None:
    _out.print(f"\n[bold]== {text}[/]")


def _say(text: str) -> None:
    for line in text.rstrip().splitlines():
        _out.print(f"   {line}", markup=False)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DemoFailed(otherwise)


def main() -> int:
    """Run the demo on a machine of its own, and take that down whatever happens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, default=Path("/var/lib/xcsim-demo"), help="folder of the demo's machine")
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache"), help="where the Debian image is kept between runs"
    )
    options = parser.parse_args()
    machine = Machine(options.state)
    try:
        _require_root()
        machine.down()
        Demo(machine).run(options.cache.absolute())
    except UdiError as error:
        return complain("demo", error)
    finally:
        machine.down()
    return 0


def _require_root() -> None:
    import os

    if os.geteuid() != 0:
        raise NotPermitted(
            "the demo needs root, because it makes namespaces, mounts and loop devices", "sudo make demo"
        )


if __name__ == "__main__":
    sys.exit(main())
