"""One node with Slurm's hooks and without Slurm: what slurmd would run is run in a mount namespace of its own, and
squeue and scontrol are small programs that a test tells what to say.

What is tested here is what the hooks do by themselves; how Slurm takes it is tested on Slurm.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jobs.notes import Note, Notes
from tests import udi_run
from tests.node.rig import make_tree
from udi import nodezip
from udi.config import SiteConfig, load
from udi.facts import Facts, Ref
from udi.reference import ImageReference
from udi.store import StoreLayout
from udiroot import loop, mountinfo
from udiroot.mountinfo import Label, Mount

IMAGE_ID, OTHER_ID = "5a" * 32, "5b" * 32
UID = 1001
NODE = "n1"
HOST = f"hooks{os.getpid()}"
"""The node's own name: the machine's loop devices carry it, and other tests may use some."""

_SQUEUE = """\
#!/bin/sh
# Prints squeue.JOB; without it, Slurm has no such job. Slurm does not answer where `down` exists.
here=$(dirname "$0")
echo "$*" >>"$here/squeue.calls"
if [ -e "$here/down" ]; then echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; fi
for word in "$@"; do case $word in --jobs=*) job=${word#--jobs=} ;; esac; done
[ -e "$here/squeue.$job" ] || { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }
cat "$here/squeue.$job"
"""
_SCONTROL = """\
#!/bin/sh
# Keeps what it is told in scontrol.calls, and the node's state in `node`; `refuses` makes it fail for one word.
here=$(dirname "$0")
if [ -e "$here/down" ]; then echo "Unable to contact slurm controller (connect failure)" >&2; exit 1; fi
if [ "$1" = show ]; then cat "$here/node"; exit 0; fi
echo "$*" >>"$here/scontrol.calls"
if [ -e "$here/refuses" ] && echo "$*" | grep -q "$(cat "$here/refuses")"; then echo "Only batch jobs" >&2; exit 1; fi
case $* in *state=drain*) printf '   State=IDLE+DRAIN X=1\\n   Reason=%s [x@y]\\n' "${4#reason=}" >"$here/node" ;; esac
exit 0
"""
_PYTHON = """\
#!/bin/sh
# The node's Python. STEP.waits: it starts when that file is gone; STEP.says: it reports that; STEP.dies: nothing.
here=$(dirname "$0")
case $* in *unsetupRoot*) step=unsetupRoot ;; *) step=setupRoot ;; esac
echo $step >>"$here/python.calls"
[ -e "$here/$step.waits" ] && touch "$here/$step.waiting"
while [ -e "$here/$step.waits" ]; do sleep 0.05; done
if [ -e "$here/$step.dies" ]; then kill -9 $$; fi
if [ -e "$here/$step.says" ]; then
    for word in "$@"; do nonce=$word; done
    [ -e "$here/$step.works" ] && {python} "$@" >/dev/null
    echo "UDI-REPORT $nonce {host} $(cat "$here/$step.says")"
    exit 1
fi
exec {python} "$@"
"""
_START = """
import sys
from slurm_hooks.{hook} import main
{before}
sys.exit(main({machine}sys.argv[1:]))
"""


@dataclass
class HooksNode:
    """The node; `directory` has its configuration, its image store and the stand-ins."""

    directory: Path
    bin: Path = field(init=False)
    _holder: subprocess.Popen[bytes] = field(init=False)
    _wrapper: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.directory.chmod(0o755)
        self.bin = self.directory / "bin"
        for name in ("bin", "store/images", "store/refs", "software", "scratch/alice"):
            (self.directory / name).mkdir(parents=True)
        os.chown(self.directory / "scratch/alice", UID, UID)
        for name, text in (
            ("squeue", _SQUEUE),
            ("scontrol", _SCONTROL),
            ("python", _PYTHON.format(python="/usr/bin/python3", host=HOST)),
        ):
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)
        (self.bin / "node").write_text("   State=IDLE ThreadsPerCore=1\n")
        (self.directory / "plugstack.conf").write_text("required /opt/udi/lib/udi.so\n")
        self.configure()
        nodezip.build(self.site, str(self.directory / "software/udi.zip"), {"udi-run": udi_run.program()})
        make_tree(self.directory / "tree")
        self.add_image("tiny:1", IMAGE_ID)
        (self.directory / "passwd").write_text(f"root:x:0:0::/root:/bin/sh\nalice:x:{UID}:{UID}::/home/alice:/bin/sh\n")
        namespaces = ["unshare", "-m", "-u", "--propagation", "private"]
        script = 'hostname "$0" && mount --bind "$1" /etc/passwd && echo && exec sleep 9999'
        command = [*namespaces, "sh", "-c", script, HOST, str(self.directory / "passwd")]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._holder.stdout and self._holder.stdout.readline() == b"\n"

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdout:
            self._holder.stdout.close()

    # -- the site ----------------------------------------------------------------------------------------------

    def configure(self, slurm: str = "", node: str = "", more: str = "", store: str = "store") -> None:
        """Write the configuration, with more lines in two of its tables, more tables, or another store."""
        d = self.directory
        text = f"""
            [store]
            path = "{d}/{store}"
            account = "0"
            [node]
            root = "{d}/root"
            run = "{d}/run"
            zip = "{d}/software/udi.zip"
            python = ["{d}/bin/python"]
            deadline = 5
            tmp_bytes = 16777216
            {node}
            [volumes]
            allowed = ["{d}/scratch"]
            [jobs]
            state = "{d}/spool/jobs"
            log = "{d}/hooks.log"
            syslog = false
            [slurm]
            scontrol = "{d}/bin/scontrol"
            squeue = "{d}/bin/squeue"
            notes = "{d}/notes"
            plugstack = "{d}/plugstack.conf"
            spool = "/var/spool/slurmd/%n"
            command_deadline = 5
            prolog_deadline = 40
            epilog_deadline = 40
            {slurm}
            {more}
        """
        (d / "udi.toml").write_text(textwrap.dedent(text))

    @property
    def site(self) -> SiteConfig:
        return load(str(self.directory / "udi.toml"))

    def add_image(self, name: str, image_id: str, owners: tuple[int, ...] = ()) -> None:
        """An image of the store, and a reference to it."""
        layout = StoreLayout(str(self.directory / "store"))
        path = Path(layout.image(image_id, "squashfs"))
        tree = self.directory / "tree"
        subprocess.run(["mksquashfs", tree, path, "-quiet", "-no-progress"], check=True, capture_output=True)
        path.chmod(0o444)
        facts = Facts(id=image_id, format="squashfs", size=path.stat().st_size, sha256="0" * 64, env=("A=b",))
        Path(layout.facts(image_id)).write_text(facts.to_json())
        ref = Ref(reference=str(ImageReference.parse(name)), id=image_id, owners=owners, created=1, used=1)
        owner = owners[0] if owners else None
        Path(layout.ref(ImageReference.parse(name), owner)).write_text(ref.to_json())

    def says(self, name: str, text: str = "") -> None:
        """Set a file by which a stand-in does something else."""
        (self.bin / name).write_text(text)

    def done(self, name: str) -> None:
        (self.bin / name).unlink()

    def queue(
        self, job: str, state: str = "RUNNING", *, name: str = "", start: int = 0, comment: str = "(null)"
    ) -> None:
        """What squeue says of a job."""
        nodes = "" if state == "PENDING" else "n[1-2]"
        self.says(f"squeue.{job}", f"{job}|{job}|{state}|{start}|{nodes}|{comment}\n")

    def calls(self, program: str = "scontrol") -> list[str]:
        path = self.bin / f"{program}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def told(self) -> list[str]:
        """What scontrol was told, since this was last asked."""
        calls = self.calls()
        (self.bin / "scontrol.calls").unlink(missing_ok=True)
        return calls

    # -- hooks -------------------------------------------------------------------------------------------------

    def start(
        self, hook: str, job: str = "7", *, image: str = "tiny:1", before: str = "", **more: str
    ) -> subprocess.Popen[str]:
        """Start a hook as slurmd does: no arguments but those of the wrapper, and an environment without PATH."""
        environment = {
            "SLURM_JOB_ID": job,
            "SLURM_JOB_UID": str(UID),
            "SLURMD_NODENAME": NODE,
            "SLURM_NODELIST": "n[1-2]",
            "SLURM_JOB_CPUS_PER_NODE": "2,1",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_JOB_RESTART_COUNT": "0",
            **({"SPANK_UDI_IMAGE": image, "SPANK_UDI_ID": "-", "SPANK_UDI_VOLUMES": ""} if image else {}),
            **more,
        }
        if hook == "health":
            environment = {"SLURMD_NODENAME": NODE}
        machine = "" if hook == "health" else "None, "
        code = _START.format(hook=hook, before=before, machine=machine)
        return self._start(
            [sys.executable, "-I", "-c", code, "--config", str(self.directory / "udi.toml")], environment
        )

    def store_calls(self, hook: str, node: str, pin: str = IMAGE_ID) -> list[str]:
        """The system calls with a path of the image store that a hook makes, its children included."""
        trace = self.directory / "trace"
        self._wrapper = ["/usr/bin/strace", "-f", "-o", str(trace), "-e", "trace=%file"]
        try:
            assert self.run(hook, SLURMD_NODENAME=node, SPANK_UDI_ID=pin) == 0
        finally:
            self._wrapper = []
        lines = [line for line in trace.read_text().splitlines() if f'"{self.directory}/store' in line]
        return [line.split(None, 1)[1].partition("(")[0] for line in lines]

    def run(self, hook: str, job: str = "7", **more: str) -> int:
        """Run a hook to its end; its exit code."""
        return self.end(self.start(hook, job, **more))

    def end(self, process: subprocess.Popen[str]) -> int:
        """Wait for a hook; its exit code, or the signal that ended it as a negative number."""
        out, err = process.communicate(timeout=90)
        said = f"{out}{err}{self.log()}"
        assert "Traceback" not in said, said
        return process.returncode

    def in_node(self, code: str) -> None:
        """Run Python on the node, with `site` and `Deadline` at hand; it must succeed."""
        head = (
            f"from udi.config import load\nfrom udi.command import Deadline\nsite = load('{self.directory}/udi.toml')\n"
        )
        process = self._start([sys.executable, "-I", "-c", head + textwrap.dedent(code)], {})
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err

    def shell(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script on the node."""
        process = self._start(["/bin/sh", "-c", script], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment})
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(script, process.returncode, out, err)

    def _start(self, command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["/usr/bin/nsenter", "-t", str(self._holder.pid), "-m", "-u", "--", *self._wrapper, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env=environment,
            start_new_session=True,
        )

    # -- what is there -----------------------------------------------------------------------------------------

    def note(self, job: str = "7") -> Note | None:
        return Notes(str(self.directory / "notes")).read(job)

    def why(self, job: str = "7") -> str:
        """Why a job failed, as its note says."""
        note = self.note(job)
        assert note is not None and note.state == "failed" and not note.root, note
        return note.why

    def mounts(self, job: str = "") -> list[Mount]:
        """Our mounts, of one job or of all."""
        labels = [(mount, Label.parse(mount.source)) for mount in mountinfo.read(self._holder.pid)]
        return [mount for mount, label in labels if label is not None and job in ("", label.job)]

    def left(self) -> dict[str, list[str]]:
        """Everything that is on the node."""
        names = {name: self.directory / name for name in ("run", "root", "notes")}
        found = {name: sorted(os.listdir(path)) for name, path in names.items() if path.exists()}
        found["mounts"] = [mount.point for mount in self.mounts()]
        found["loops"] = [name for name, _, _ in loop.bound().values() if name.startswith(f"udi:{HOST}:")]
        return {name: what for name, what in found.items() if what}

    def inside(self, script: str, job: str = "7") -> str:
        """What a shell script prints in the job's root, as its user."""
        root = f"{self.directory}/root/{job}"
        done = self.shell(f'chroot --userspec={UID}:{UID} {root} /bin/sh -c "$S"', S=script)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def log(self) -> str:
        path = self.directory / "hooks.log"
        return path.read_text() if path.exists() else ""

    def kill(self, process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
        """Signal a hook, which is the child of nsenter's place."""
        os.kill(process.pid, number)


def has_needs() -> bool:
    """Whether this can be run here."""
    return os.geteuid() == 0 and bool(shutil.which("mksquashfs"))


@pytest.fixture(scope="module")
def made_node() -> Iterator[HooksNode]:
    with tempfile.TemporaryDirectory() as directory:  # pytest's own is closed to users
        made = HooksNode(Path(directory))
        yield made
        made.close()


@pytest.fixture
def node(made_node: HooksNode) -> Iterator[HooksNode]:
    """Each test gives the node back as it was."""
    before = set(os.listdir(made_node.bin))
    text = (made_node.bin / "node").read_text()
    yield made_node
    for name in set(os.listdir(made_node.bin)) - before:
        (made_node.bin / name).unlink()
    (made_node.bin / "node").write_text(text)
    made_node.configure()
    for job in ("7", "8", "9"):
        made_node.run("epilog", job)
    for path in (made_node.bin / "scontrol.calls", made_node.bin / "python.calls", made_node.directory / "hooks.log"):
        path.unlink(missing_ok=True)
    assert made_node.left() == {}
