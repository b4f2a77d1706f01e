"""A real Slurm of two slurmds in namespaces of their own, whose Prolog leaves root and note as a hook of ours would.

What a test wants to be wrong on the nodes it says in `spoil`: commands of the Prolog, after root and note are made.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path

from tests.slurm.waiting import without_waiting

ROOT = Path(__file__).parents[2]
PROGRAMS = ("slurmctld", "slurmd", "munged", "srun", "gcc", "busybox")
NODES = ("n1", "n2")
ALICE, BOB = 2001, 2002
APPLETS = (
    "sh",
    "ls",
    "pwd",
    "echo",
    "id",
    "cat",
    "sleep",
    "env",
    "test",
    "true",
    "false",
    "mount",
    "grep",
    "kill",
    "sed",
)

_START = r"""
set -e
mount --make-rprivate /
ip link set lo up; ip addr add 10.77.0.1/32 dev lo; hostname trial
for place in /etc/slurm /home /var/spool /run; do mount -t tmpfs trial $place; done
mkdir -p /run/munge /run/udi-slurm /run/udi /var/spool/ctld /var/spool/n1 /var/spool/n2
for file in passwd group hosts; do cp /etc/$file {d}/$file; done
printf 'alice:x:2001:2001::/home/alice:/bin/bash\nbob:x:2002:2002::/home/bob:/bin/bash\n' >> {d}/passwd
printf 'alice:x:2001:\nbob:x:2002:\n' >> {d}/group
printf '10.77.0.1 trial n1 n2\n' >> {d}/hosts
for file in passwd group hosts; do mount --bind {d}/$file /etc/$file; done
mkdir /home/alice /home/bob; chown 2001 /home/alice; chown 2002 /home/bob
chown munge /run/munge
setpriv --reuid munge --regid munge --clear-groups munged -S /run/munge/trial --pid-file=/run/munge/pid \
    --log-file=/run/munge/log --seed-file=/run/munge/seed
cp {d}/slurm.conf {d}/plugstack.conf /etc/slurm
slurmctld
slurmd -N n1
slurmd -N n2
until [ "$(sinfo -h -o %T)" = idle ]; do sleep 0.05; done
echo ready
exec sleep infinity
"""

_CONFIGURATION = """
ClusterName=trial
SlurmctldHost=trial(10.77.0.1)
SlurmUser=root
SlurmdUser=root
AuthInfo=socket=/run/munge/trial
StateSaveLocation=/var/spool/ctld
SlurmdSpoolDir=/var/spool/%n
SlurmctldPidFile=/run/ctld.pid
SlurmdPidFile=/run/%n.pid
SlurmctldLogFile={d}/log/ctld
SlurmdLogFile={d}/log/%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SchedulerParameters=bf_interval=1,sched_min_interval=100000
LaunchParameters=use_interactive_step
PrologFlags=Alloc
Prolog={d}/prolog
Epilog={d}/epilog
NodeName=n[1-2] NodeHostname=trial NodeAddr=10.77.0.1 Port=[17001-17002] CPUs=8 State=UNKNOWN
PartitionName=p Nodes=ALL Default=YES
"""

_PROLOG = r"""#!/bin/bash
PATH=/usr/sbin:/usr/bin:/sbin:/bin
J=$SLURM_JOB_ID U=$SLURM_JOB_UID ROOT=/run/udi/$SLURM_JOB_ID NOTE=/run/udi-slurm/$SLURM_JOB_ID
env | grep ^SPANK_UDI > {d}/log/prolog.$J
[ -n "$SPANK_UDI_IMAGE" ] || {{ [ ! -e {d}/spoil ] || . {d}/spoil; exit 0; }}
exec 9> {d}/lock; flock 9
[ -d $ROOT ] && exit 0
mkdir $ROOT
mount -t overlay udi:$J:$U:made -o lowerdir={d}/made:{d}/image,ro,nosuid,nodev $ROOT
mount --make-private $ROOT
mount -t tmpfs -o mode=1777 udi:$J:$U:made $ROOT/tmp
mount --rbind /dev $ROOT/dev; mount --rbind /proc $ROOT/proc
write_note() {{
    printf 'udi-note 1\nuid %s\nstart 0\nstate %s\nroot %s\nlabel %s\nimage debian:12\ngiven %s\nend\n' "$@" > $NOTE
}}
write_note $U ready $ROOT udi:$J:$U:made "$SPANK_UDI_IMAGE"
[ ! -e {d}/spoil ] || . {d}/spoil
exit 0
"""

_EPILOG = r"""#!/bin/bash
PATH=/usr/sbin:/usr/bin:/sbin:/bin
ROOT=/run/udi/$SLURM_JOB_ID
exec 9> {d}/lock; flock 9
umount --recursive --lazy $ROOT 2>&1
rm -f $ROOT 2>&1 || rmdir $ROOT 2>&1
rm -rf /run/udi-slurm/$SLURM_JOB_ID /run/udi-slurm/$SLURM_JOB_ID.x
exit 0
"""

_SUBMIT = r"""#!/bin/sh
[ "$2" != unknown ] || { echo "udi-slurm-submit: image unknown: nobody knows it" >&2; exit 2; }
printf 'image debian:12\nid -\nvolumes %s\nmodules \nrun \nend\n' "$4"
"""

_RUN_DATA = ("udi-run 1", "workdir /work", "set PATH=/bin:/from-image", "set COLOUR=blue", "set SLURM_JOB_ID=0", "end")


class Trial:
    """Slurm, running from `start` to `stop`; everything of it is in `directory` and in its namespaces."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="trial-"))  # not below a directory that is closed to users
        self._process: subprocess.Popen[str] | None = None
        self._init = 0

    def start(
        self, plugstack: str = "required {plugin} submit={submit} notes=/run/udi-slurm batch=inside seconds=20"
    ) -> None:
        directory = self.directory
        directory.chmod(0o755)
        (directory / "log").mkdir()
        subprocess.run([ROOT / "slurm/build.sh", directory], check=True)
        self._make_image()
        self.plugin, self.submit = directory / "udi.so", directory / "udi-slurm-submit"
        for name, text in (("prolog", _PROLOG), ("epilog", _EPILOG), ("slurm.conf", _CONFIGURATION)):
            (directory / name).write_text(text.format(d=directory))
            (directory / name).chmod(0o755)
        self.submit.write_text(_SUBMIT)
        self.submit.chmod(0o755)
        (directory / "plugstack.conf").write_text(plugstack.format(plugin=self.plugin, submit=self.submit) + "\n")
        command = ["unshare", "-m", "-n", "-u", "-i", "-p", "-f", "--mount-proc", "--kill-child", "bash", "-c"]
        self._process = subprocess.Popen(
            [*command, _START.replace("{d}", str(directory))], stdout=subprocess.PIPE, text=True, cwd="/"
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        self._init = int(children.split()[0])

    def _make_image(self) -> None:
        image, made = self.directory / "image", self.directory / "made"
        for name in ("bin", "work", "data", "tmp", "proc", "dev", "etc", "var/spool/n1", "var/spool/n2", "opt/udi/etc"):
            (image / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", image / "bin/busybox")
        for applet in APPLETS:
            (image / "bin" / applet).symlink_to("busybox")
        (image / "etc/inside").write_text("yes\n")
        (image / "home/bob").mkdir(parents=True)
        data = made / "opt/udi/etc/run"
        data.parent.mkdir(parents=True)
        data.write_text("".join(f"{record}\0" for record in _RUN_DATA))

    def stop(self) -> None:
        if self._process:
            os.kill(self._init, signal.SIGKILL)  # and with it everything in its namespaces
            self._process.wait()
        shutil.rmtree(self.directory)

    def command(self, *words: str, uid: int = ALICE, cwd: str = "", env: Mapping[str, str] | None = None) -> list[str]:
        """A command of a user, in the trial's namespaces."""
        home = "/home/alice" if uid == ALICE else "/home/bob"
        variables = {"PATH": "/usr/bin:/bin", "HOME": home, "LANG": "C", **(env or {})}
        return [
            *("nsenter", "-t", str(self._init), "-m", "-n", "-u", "-i", "-p", f"--wdns={cwd or home}"),
            *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "env", "-i"),
            *(f"{name}={value}" for name, value in variables.items()),
            *words,
        ]

    def run(
        self, *words: str, uid: int = ALICE, cwd: str = "", env: Mapping[str, str] | None = None, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        command = self.command(*words, uid=uid, cwd=cwd, env=env)
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)

    def sh(self, script: str) -> str:
        """What root's shell writes in the trial's namespaces."""
        command = ["nsenter", "-t", str(self._init), "-m", "-n", "-u", "-i", "-p", "bash", "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def batch(self, script: str, *options: str) -> tuple[int, str]:
        """The exit code of a batch script, and what it wrote."""
        output = f"/tmp/{self.directory.name}.%j"
        body = "#!/bin/sh\n" + textwrap.dedent(script)
        done = self.run("sbatch", "--parsable", "-o", output, *options, text=body)
        if done.returncode:
            return done.returncode, done.stderr
        job = done.stdout.strip()
        show = f"scontrol show job {job}"
        over = f"until {show} | grep -qE 'JobState=(COMPLETED|FAILED|CANCELLED)'; do sleep 0.05; done; {show}"
        code = re.search(r" ExitCode=(\d+):", self.sh(over))
        path = Path(output.replace("%j", job))
        try:
            return int(code[1]) if code else -1, without_waiting(path.read_text())
        finally:
            path.unlink(missing_ok=True)

    def spoil(self, commands: str) -> None:
        """What the next Prologs do when they have made root and note; also those of jobs without an image."""
        (self.directory / "spoil").write_text(commands + "\n")

    def heal(self) -> None:
        (self.directory / "spoil").unlink(missing_ok=True)
