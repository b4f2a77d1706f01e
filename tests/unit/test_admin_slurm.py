"""`udi-admin` on a site with Slurm: what is installed in which order, and what check-config finds."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from admin import cli, nodehealth_cli
from admin.checks.check import Level
from admin.config_check import errors_of
from admin.install.installing import install_programs, planned, render_below
from admin.seams.machines import machine_of
from admin.seams.managers import manager_of
from admin.sitefiles.all_files import site_files
from jobs.notes import Note, Notes
from tests.unit.cray_standins import StandIns
from udi import config
from udi.sitefiles import SiteFile
from udiroot.errors import ConfigError, NotPermitted, UdiError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the configuration must be root's")

_SCONTROL = """\
#!/bin/sh
here=$(dirname "$0")
printf '%s\\n' "$*" >>"$here/scontrol.calls"
[ -e "$here/scontrol.exit" ] && { echo "slurm_load_ctl_conf error: Unable to contact slurm controller" >&2; exit 1; }
case "$1 $2" in
"show config") sed 's/^\\([A-Za-z]*\\)=/\\1 = /' "$here/conf" ;;
"show node") cat "$here/nodes" ;;
esac
"""
_SRUN = """\
#!/bin/sh
here=$(dirname "$0")
[ -e "$here/srun.broken" ] && { echo "srun: error: spank: udi.so: Incompatible plugin version" >&2; exit 1; }
echo "  --imagevolume=/SOURCE:/TARGET"
"""
_NODES = """\
NodeName={name} Arch=x86_64 CoresPerSocket=8
   NodeAddr=10.0.0.1 NodeHostName={host} Version=22.05.8
   State={state} ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A
   Reason={reason} [root@2026-11-22T10:00:00]
"""


class Site:
    """A host of a site with native Slurm, whose commands are stand-ins."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stand_ins = StandIns(directory)
        self.bin = self.stand_ins.bin
        for name, text in (("scontrol", _SCONTROL), ("srun", _SRUN), ("squeue", "#!/bin/sh\n")):
            self.stand_ins.program(name, text)
        self.built = directory / "built.so"
        self.built.write_bytes(b"\x7fELF plugin")
        self.path = directory / "udi.toml"
        self.path.write_text(
            f"""\
workload_manager = "slurm"
[store]
path = "{self.stand_ins.store}"
account = "0"
[gateway]
socket = "{directory}/gateway.sock"
[node]
root = "{directory}/var/udi"
run = "{directory}/run/udi"
zip = "{directory}/udi.zip"
python = ["/usr/bin/python3"]
[install]
bin = "{directory}/opt/bin"
share = "{directory}/opt/share"
zip = "{directory}/udi.zip"
[jobs]
syslog = false
log = ""
[slurm]
scontrol = "{self.bin}/scontrol"
squeue = "{self.bin}/squeue"
notes = "{directory}/run/notes"
plugin = "{directory}/opt/udi.so"
plugin_built = "{self.built}"
plugstack = "{directory}/plugstack.conf"
"""
        )
        self.conf: dict[str, str] = {
            "Prolog": f"{directory}/opt/bin/udi-slurm-prolog",
            "Epilog": f"{directory}/opt/bin/udi-slurm-epilog",
            "PrologFlags": "Alloc,Contain",
            "PrologEpilogTimeout": "65534",
            "BatchStartTimeout": "600 sec",
            "HealthCheckProgram": f"{directory}/opt/bin/udi-slurm-health",
            "HealthCheckInterval": "300 sec",
            "HealthCheckNodeState": "ANY",
            "SlurmdSpoolDir": "/var/spool/slurmd",
            "TaskProlog": "(null)",
        }
        self.write_conf()
        (directory / "udi.zip").write_bytes(b"zip")

    def write_conf(self, **changes: str) -> None:
        self.conf |= changes
        (self.bin / "conf").write_text("".join(f"{name}={value}\n" for name, value in self.conf.items()))

    @property
    def site(self) -> config.SiteConfig:
        return config.parse(self.path.read_text(), str(self.path))

    def files(self) -> list[SiteFile]:
        site = self.site
        return [file for file in site_files(site, machine_of(site), str(self.path)) if "/etc/" not in file.path]

    def install(self, earlier: Sequence[SiteFile] = ()) -> list[str]:
        site = self.site
        plan = planned("", self.files(), earlier)
        return [*install_programs("", manager_of(site).built()), *plan.put().changed]

    def messages(self) -> list[str]:
        """What check-config finds, but for what any user must reach, since these directories are private."""
        found: list[UdiError] = [error for error in errors_of(str(self.path)) if "cannot be used by" not in str(error)]
        return [error.message.removeprefix(f"{self.path}: ") for error in found]


@pytest.fixture
def host(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def installed(host: Site) -> Iterator[Site]:
    host.install()
    yield host


def test_the_plugin_is_in_place_before_the_line_that_loads_it(host: Site) -> None:
    """Slurm reads the line at once, and starts nothing for anybody where the plugin is missing."""
    changed = host.install()
    names = [os.path.basename(path) for path in changed]
    assert names.index("udi.so") < names.index("udi-slurm-submit") < names.index("plugstack.conf")
    assert (host.directory / "opt/udi.so").read_bytes() == host.built.read_bytes()
    assert (host.directory / "opt/udi.so").stat().st_mode & 0o7777 == 0o755


def test_the_line_of_a_plugin_that_moved_is_replaced(host: Site) -> None:
    """Slurm would load both, and end each srun by an option that is registered twice. A line of others stays."""
    plugstack = host.directory / "plugstack.conf"
    plugstack.write_text("required /opt/theirs/udi.so\n")
    host.install()
    earlier = [file for file in host.files() if file.kind == "line"]
    host.path.write_text(host.path.read_text().replace("/opt/udi.so", "/opt/moved/udi.so"))
    assert host.install(earlier) == [f"{host.directory}/opt/moved/udi.so", str(plugstack)]
    lines = [line.split()[:2] for line in plugstack.read_text().splitlines()]
    assert lines == [["required", "/opt/theirs/udi.so"], ["required", f"{host.directory}/opt/moved/udi.so"]]


def test_without_a_plugin_nothing_is_installed(host: Site) -> None:
    host.built.unlink()
    with pytest.raises(ConfigError, match=r"slurm\.plugin_built: .*: no such file or directory"):
        host.install()
    assert not (host.directory / "plugstack.conf").exists() and not (host.directory / "opt").exists()


def test_where_a_file_of_the_sites_own_is_in_the_way_the_plugin_is_not_replaced(host: Site) -> None:
    theirs = host.directory / "opt/bin/udi-slurm-epilog"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("#!/bin/sh\n")
    with pytest.raises(NotPermitted):
        host.install()
    assert not (host.directory / "opt/udi.so").exists()


def test_the_line_follows_the_configuration_and_other_lines_stay(host: Site) -> None:
    plugstack = host.directory / "plugstack.conf"
    plugstack.write_text("include /etc/slurm/plugstack.conf.d/*.conf\noptional /usr/lib/other.so\n")
    host.install()
    host.path.write_text(host.path.read_text() + 'batch = "outside"\n')
    assert host.install() == [str(plugstack)]
    lines = plugstack.read_text().splitlines()
    assert lines[:2] == ["include /etc/slurm/plugstack.conf.d/*.conf", "optional /usr/lib/other.so"]
    assert len(lines) == 3
    assert lines[2].startswith(f"required {host.directory}/opt/udi.so submit=") and "batch=outside" in lines[2]


def scripts_of(host: Site) -> list[Path]:
    """The shell scripts of the site, rendered for review."""
    site = host.site
    rendered = render_below(str(host.directory / "review"), site_files(site, machine_of(site), str(host.path)))
    scripts = [Path(path) for path in rendered if Path(path).read_text().startswith("#!/bin/sh")]
    assert {"udi-slurm-prolog", "udi-slurm-epilog", "udi-slurm-health"} <= {path.name for path in scripts}
    return scripts


def test_shellcheck_is_content(host: Site) -> None:
    found = shutil.which("shellcheck")
    if not found:
        pytest.skip("needs shellcheck")
    for script in scripts_of(host):
        done = subprocess.run([found, "-s", "sh", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_paths_are_no_code(host: Site) -> None:
    """Hooks of a job without an image end at once, whatever the directories are called."""
    odd = "/odd $(touch owned) 'quoted'"
    host.path.write_text(host.path.read_text().replace(f'notes = "{host.directory}/run/notes"', f'notes = "{odd}"'))
    for script in scripts_of(host):
        if script.name in ("udi-slurm-prolog", "udi-slurm-epilog"):
            done = subprocess.run(
                ["/bin/sh", script],
                env={"SLURM_JOB_ID": "5"},
                cwd=host.directory,
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (host.directory / "owned").exists()


def test_nothing_is_wrong(installed: Site) -> None:
    assert installed.messages() == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("Prolog", "(null)", "Prolog is not set"),
        ("Epilog", "/no/such/epilog", "Epilog is /no/such/epilog"),
        ("PrologFlags", "(null)", "PrologFlags is not set"),
        ("PrologEpilogTimeout", "60", "PrologEpilogTimeout is 60"),
        ("BatchStartTimeout", "10 sec", "BatchStartTimeout is 10 sec"),
        ("HealthCheckProgram", "/bin/true", "HealthCheckProgram is /bin/true"),
        ("HealthCheckInterval", "0 sec", "HealthCheckInterval is 0 sec"),
        ("SlurmdSpoolDir", "/var/spool/slurm/d", "SlurmdSpoolDir is /var/spool/slurm/d"),
    ],
)
def test_what_slurm_must_have(installed: Site, name: str, value: str, words: str) -> None:
    installed.write_conf(**{name: value})
    assert installed.messages() == [f"slurm.conf: {words}"]


def test_a_hook_of_the_sites_own_that_runs_ours(installed: Site) -> None:
    ours = installed.conf["Prolog"]
    hooks = installed.directory / "prolog.d"
    hooks.mkdir()
    (hooks / "10-site").write_text("#!/bin/sh\nexit 0\n")
    installed.write_conf(Prolog=f"{hooks}/*")
    assert installed.messages() == [f"slurm.conf: Prolog is {hooks}/*"]
    (hooks / "20-udi").write_text(f"#!/bin/sh\n# {ours}\n")
    assert installed.messages() == [f"slurm.conf: Prolog is {hooks}/*"]
    (hooks / "20-udi").write_text(f"#!/bin/sh\nexec {ours}\n")
    assert installed.messages() == []
    (hooks / "20-udi").unlink()
    (hooks / "30-udi").symlink_to(ours)
    assert installed.messages() == []


def test_where_slurmctld_does_not_answer_the_file_is_read(installed: Site) -> None:
    installed.stand_ins.tell("scontrol.exit", "1")
    conf = installed.directory / "slurm.conf"
    installed.path.write_text(installed.path.read_text() + f'conf = "{conf}"\n')
    [message] = installed.messages()
    assert message == "slurm.conf not checked: slurmctld does not answer"
    conf.write_text("".join(f"{name}={value}  # of the site\n" for name, value in installed.conf.items()))
    assert installed.messages() == []
    conf.write_text(conf.read_text().replace("PrologFlags=", "#PrologFlags="))
    assert installed.messages() == ["slurm.conf: PrologFlags is not set"]


def test_the_line_and_the_plugin(installed: Site) -> None:
    plugstack, plugin = installed.directory / "plugstack.conf", installed.directory / "opt/udi.so"
    ours = plugstack.read_text()
    for text in ("", "# " + ours, ours + ours, ours.replace("required", "optional"), ours.replace("batch=inside", "")):
        plugstack.write_text(text)
        [message] = installed.messages()
        assert message.startswith(f"{plugstack} must have one line for the plugin: {ours.strip()}")
    plugstack.write_text(ours + f"required /old/lib/{plugin.name}\n")
    assert len(installed.messages()) == 1
    plugstack.write_text(ours)
    plugin.chmod(0o777)
    assert "must be a regular file of root's that nobody else may write" in installed.messages()[0]
    plugin.unlink()
    assert installed.messages() == [f"slurm.plugin: {plugin}: no such file or directory"]


def test_a_plugin_that_slurm_does_not_load(installed: Site) -> None:
    installed.stand_ins.tell("srun.broken", "")
    [message] = installed.messages()
    assert message.startswith("srun does not load ") and message.endswith("Incompatible plugin version")


def test_what_only_a_cray_has(installed: Site) -> None:
    text = installed.path.read_text()
    zip_line, python = f'zip = "{installed.directory}/udi.zip"\n', 'python = ["/usr/bin/python3"]\n'
    installed.path.write_text(text.replace(zip_line, "", 1).replace(python, "") + "[ssh]\nenabled = true\n")
    found = installed.messages()
    for words in ("ssh.enabled is not for native Slurm", "node.python: /dsl/", "node.zip: /dsl/opt/udi/node/udi.zip"):
        assert any(message.startswith(words) for message in found), (words, found)


def test_an_unknown_manager(installed: Site) -> None:
    installed.path.write_text(installed.path.read_text().replace('"slurm"', '"slrum"'))
    assert installed.messages() == ["workload_manager must be torque or slurm, not 'slrum'"]


def run_admin(host: Site, *words: str, group: object = cli.cli) -> tuple[int, str, str]:
    done = CliRunner().invoke(group, ["--config", str(host.path), *words])  # type: ignore[arg-type]
    if isinstance(done.exception, UdiError):
        return done.exception.exit_code, done.stdout, done.exception.message
    return done.exit_code, done.stdout, done.stderr


def surprises(host: Site) -> list[str]:
    """What check-config warns of."""
    site = host.site
    rows = [row for check in manager_of(site).checks(machine_of(site)) for row in check.rows()]
    return [row.what for row in rows if row.level is Level.WARNING]


def test_notes_of_what_may_surprise(installed: Site) -> None:
    installed.write_conf(TaskProlog="/etc/slurm/task-prolog", JobContainerType="job_container/tmpfs")
    remarks = surprises(installed)
    assert len(remarks) == 2 and remarks[0].startswith("slurm.conf: TaskProlog=/etc/slurm/task-prolog runs inside")
    run = installed.directory / "run/udi"
    run.mkdir(parents=True)
    assert len(surprises(installed)) == 2
    os.chown(run, 65534, 65534)
    [_, remark, _] = surprises(installed)
    assert remark.startswith(f"node.run: {run} is owned by uid 65534 here")
    os.chown(run, 0, 0)
    shown = '[[node.filesystems]]\nsource = "/etc/slurm"\n'
    installed.path.write_text(installed.path.read_text() + shown)
    assert len(surprises(installed)) == 1


def test_drained_nodes_and_why(installed: Site) -> None:
    ours = _NODES.format(name="c1", host="a", state="IDLE+DRAIN", reason="shifter-xc: left by 7: 1 mount")
    theirs = _NODES.format(name="c2", host="b", state="IDLE+DRAIN", reason="bad fan")
    installed.stand_ins.tell("nodes", ours + "\n" + theirs)
    code, out, _ = run_admin(installed, "status")
    assert code == 0
    since = datetime.datetime(2026, 11, 22, 10).astimezone(datetime.UTC)  # Slurm shows local time
    assert [line for line in out.splitlines() if line.startswith("c")] == [
        f"c1: drain+idle, dirty since {since:%Y-%m-%d %H:%M} UTC: left by 7: 1 mount"
    ]
    installed.stand_ins.tell("scontrol.exit", "1")
    code, out, _ = run_admin(installed, "status")
    assert code == 0 and "slurmctld was not queried" in out


def test_jobs_that_are_here_and_jobs_that_are_held(installed: Site) -> None:
    """Of the jobs that wait, those that we hold; a site's own words in a comment are not ours."""
    comments = {
        "11": "shifter-xc: start 2 failed (3 in a row, held): no room in the store",
        "12": "shifter-xc: start 0 failed (1 in a row): no room in the store",
        "13": "held by the site",
        "14": "(null)",
    }
    rows = "".join(f"{job}|{job}|PENDING|1||{comment}\n" for job, comment in comments.items())
    installed.stand_ins.program("squeue", f"#!/bin/sh\ncat <<'E'\n{rows}E\n")
    installed.stand_ins.tell("nodes", "")
    notes = Notes(f"{installed.directory}/run/notes")
    notes.write("7", Note(4294967, "failed", image="debian:12", why="no volume"))
    code, out, _ = run_admin(installed, "status", "--json")
    found = json.loads(out)
    assert code == 0
    assert [(job["job"], job["user"], job["image"], job["phase"]) for job in found["jobs"]] == [
        ("7", "4294967", "debian:12", "failed")
    ]
    assert [(hold["job"], hold["reason"]) for hold in found["held"]] == [("11", comments["11"].partition(": ")[2])]
    text = run_admin(installed, "status")[1]
    assert f"job 11: held: {comments['11'].partition(': ')[2]}" in text.splitlines()


def test_a_job_that_is_here_is_shown_with_all_its_nodes(installed: Site) -> None:
    """As slurmctld has them, in one question for all jobs; where it has none, this host knows itself."""
    here = os.uname().nodename.partition(".")[0]
    notes = Notes(f"{installed.directory}/run/notes")
    for job in ("7", "8", "9"):
        notes.write(
            job, Note(1001, "ready", root="/var/udi/7", label="udi:7:1001:x", image="debian:12", given="debian")
        )
    rows = "7|7|RUNNING|0|c[01-03],d2|(null)\n8|8|PENDING|0|c9|(null)\n"
    installed.stand_ins.program("squeue", f'#!/bin/sh\necho "$*" >>{installed.bin}/squeue.calls\ncat <<E\n{rows}E\n')
    installed.stand_ins.tell("nodes", "")
    shown = json.loads(run_admin(installed, "status", "--json")[1])["jobs"]
    assert {job["job"]: job["nodes"] for job in shown} == {
        "7": ["c01", "c02", "c03", "d2"],
        "8": [here],
        "9": [here],
    }
    asked = [call for call in installed.stand_ins.calls("squeue") if "--jobs=" in call]
    assert len(asked) == 1 and "--jobs=7,8,9" in asked[0]
    assert "c[01-03],d2" in run_admin(installed, "status")[1]
    assert "it runs in its image on c[01-03],d2" in run_admin(installed, "job", "7")[1].replace("\n       ", " ")
    installed.stand_ins.program("squeue", "#!/bin/sh\nexit 1\n")
    found = json.loads(run_admin(installed, "status", "--json")[1])
    assert [job["nodes"] for job in found["jobs"]] == [[here]] * 3
    assert run_admin(installed, "status")[1].count("slurmctld was not queried") == 1


def test_a_socket_of_the_gateway_in_the_run_directory_is_no_job(installed: Site) -> None:
    """A site may keep both in one directory, on a login host that is no node."""
    run = installed.directory / "run/udi"
    run.mkdir(parents=True)
    (run / "gateway.sock").touch()
    installed.stand_ins.tell("nodes", "")
    assert run_admin(installed, "check", group=nodehealth_cli.cli)[:2] == (0, "udi: clean\n")
    (run / "7.lock").touch()
    (run / "8.plan").touch()
    (run / "9").mkdir()
    code, out, _ = run_admin(installed, "status", "--json")
    assert (code, [job["job"] for job in json.loads(out)["jobs"]]) == (0, ["7", "8", "9"])


def test_a_note_without_a_root_is_taken_down(installed: Site) -> None:
    """A Prolog that failed has left it, and Epilog never ran."""
    notes = Notes(f"{installed.directory}/run/notes")
    notes.write("7", Note(1001, "failed", why="no volume"))
    notes.write("8", Note(1001, "wanted"))
    assert run_admin(installed, "takedown", "7")[:2] == (0, "job 7: clean\n")
    assert notes.jobs() == {"8"}
    assert list((installed.directory / "run/udi").iterdir()) == []


def test_what_a_job_left_is_taken_down_before_its_node_is_resumed(installed: Site) -> None:
    """A job that slurmctld no longer has; where it cannot be asked, the job may run, and its node stays out."""
    here = os.uname().nodename.partition(".")[0]
    installed.stand_ins.tell("nodes", _NODES.format(name="c1", host=here, state="IDLE+DRAIN", reason="shifter-xc: x"))
    notes = Notes(f"{installed.directory}/run/notes")
    notes.write("7", Note(1001, "wanted"))
    installed.stand_ins.program("squeue", "#!/bin/sh\necho 'squeue: error: no answer' >&2\nexit 1\n")
    code, _, err = run_admin(installed, "recover", "c1")
    assert code == 8 and "no answer" in err
    assert notes.jobs() == {"7"}
    assert "update nodename=c1 state=resume" not in installed.stand_ins.calls("scontrol")
    installed.stand_ins.program(
        "squeue", "#!/bin/sh\necho 'slurm_load_jobs error: Invalid job id specified' >&2\nexit 1\n"
    )
    assert run_admin(installed, "recover", "c1")[:2] == (0, "c1: took down 7; clean and in service\n")
    assert notes.jobs() == set()
    assert installed.stand_ins.calls("scontrol")[-1] == "update nodename=c1 state=resume"


@pytest.mark.parametrize("group", [cli.cli, nodehealth_cli.cli])
def test_a_node_is_recovered_on_itself_by_its_name_in_slurm(installed: Site, group: object) -> None:
    here = os.uname().nodename.partition(".")[0]
    drained = {"state": "IDLE+DRAIN", "reason": "shifter-xc: why"}
    installed.stand_ins.tell("nodes", _NODES.format(name="c1", host="elsewhere", **drained))
    code, _, err = run_admin(installed, "recover", "c1", group=group)
    assert code == 2 and err == f"this node is {here}, not c1"
    assert run_admin(installed, "recover", "c[1-2]", group=group)[0] == 2
    installed.stand_ins.tell("nodes", _NODES.format(name="c1", host=here, **drained))
    assert run_admin(installed, "recover", "c1", group=group)[:2] == (0, "c1: clean and in service\n")
    assert installed.stand_ins.calls("scontrol")[-1] == "update nodename=c1 state=resume"
    installed.stand_ins.tell("nodes", _NODES.format(name="c1", host=here, state="IDLE+DRAIN", reason="bad fan"))
    assert run_admin(installed, "recover", "c1", group=group)[1] == "c1: drained by others: bad fan\n"


def test_nodes_are_marked_and_checked(installed: Site) -> None:
    installed.stand_ins.tell("nodes", "")
    done = run_admin(installed, "admindown", "--reason", "test", "c[1-2]", group=nodehealth_cli.cli)
    assert done[:2] == (0, "c1 drained: test\nc2 drained: test\n")
    assert installed.stand_ins.calls("scontrol")[-1] == "update nodename=c2 state=drain reason=shifter-xc: test"
    assert run_admin(installed, "check", group=nodehealth_cli.cli)[:2] == (0, "udi: clean\n")


def test_nothing_to_take_down(installed: Site) -> None:
    code, _, err = run_admin(installed, "takedown", "77")
    assert code == 3 and err == "nothing of job 77 is on this node"
